//! One training crop of 16 × 384 × 384 voxels, scaled, rotated, flipped and changed in contrast, out of a frame of
//! 64 × 512 × 512, against NumPy's, scikit-image's and PyTorch's way.
//!
//! `cargo bench -p elephant-image --bench crops`; set `ELEPHANT_PEER_PYTHON` to a Python with those three.

use std::{error::Error, fs, hint::black_box, time::Instant};

use elephant_image::Augmentation;
use elephant_testkit::Peer;
use fastrand::Rng;
use ndarray::{Array3, s};

const SHAPE: [usize; 3] = [64, 512, 512];
const RUNS: usize = 12;

type AnyResult<T> = Result<T, Box<dyn Error>>;

fn main() -> AnyResult<()> {
    let image = Array3::from_shape_fn(SHAPE, |(z, y, x)| ((z * 7 + y * 3 + x * 5) % 101) as f32 / 100.0);
    let labels = Array3::from_shape_fn(SHAPE, |(z, y, x)| ((z / 4 + y / 16 + x / 16) % 7) as u8);
    let plain =
        Augmentation { crop_size: [16, 384, 384], scale_factors: [0.0; 3], rotation_degrees: 0.0, contrast: 0.0 };
    let varied =
        Augmentation { scale_factors: [0.05, 0.2, 0.2], rotation_degrees: 30.0, contrast: 0.5, ..plain.clone() };
    for (name, augmentation) in [("plain crop", &plain), ("varied crop", &varied)] {
        let mut rng = Rng::with_seed(1);
        let times = (0..RUNS).map(|_| {
            let start = Instant::now();
            black_box(draw(augmentation, &image, &labels, &mut rng));
            start.elapsed().as_secs_f64()
        });
        println!("{name}: ours {}", shown(times.collect()));
    }
    match peer(&image, &labels)? {
        Some(times) => println!("varied crop: peer {}", shown(times)),
        None => println!("varied crop: peer skipped: set ELEPHANT_PEER_PYTHON"),
    }
    Ok(())
}

fn draw(augmentation: &Augmentation, image: &Array3<f32>, labels: &Array3<u8>, rng: &mut Rng) -> Array3<f32> {
    let crop = augmentation.draw(SHAPE, SHAPE, Some([30, 256, 256]), rng);
    let (origin, size) = crop.source(SHAPE);
    let [z, y, x]: [_; 3] = std::array::from_fn(|axis| origin[axis]..origin[axis] + size[axis]);
    let labels = crop.labels(labels.slice(s![z.clone(), y.clone(), x.clone()]), origin);
    // The server decodes the box into an array of its own, which the peer's copy stands for.
    let mut image = crop.image(image.slice(s![z, y, x]).to_owned().view(), origin);
    crop.change_contrast(&mut image, &labels);
    image
}

fn shown(mut times: Vec<f64>) -> String {
    times.sort_by(f64::total_cmp);
    format!("median {:.0} ms, best {:.0} ms", times[times.len() / 2] * 1e3, times[0] * 1e3)
}

#[allow(clippy::disallowed_methods, reason = "temporary files of this run")]
fn peer(image: &Array3<f32>, labels: &Array3<u8>) -> AnyResult<Option<Vec<f64>>> {
    let folder = tempfile::tempdir()?;
    let [image_path, labels_path] = ["image.f32", "labels.u8"].map(|name| folder.path().join(name));
    fs::write(&image_path, image.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>())?;
    fs::write(&labels_path, labels.iter().copied().collect::<Vec<u8>>())?;
    let Some(mut peer) = Peer::start("crops.py", &[image_path, labels_path])? else { return Ok(None) };
    let times = (0..RUNS).map(|_| Ok(peer.ask("next")?.parse()?)).collect::<AnyResult<_>>()?;
    Ok(Some(times))
}
