//! How well the semi-axes of known ellipsoids are recovered from their drawn centres, under both rule sets:
//! `cargo run --release -p elephant-image --example ellipsoid_sizes`. The table in `docs/numerics.md` comes from here.
//!
//! Centres are drawn as training draws them (strict boundary, at least 9 voxels), at random orientations and positions.

use std::error::Error;

use elephant_image::{Dims, SpotOptions, find_spots};
use elephant_types::{CancelToken, Numerics, SplitMix64, Spot, VoxelSize};
use ndarray::Array3;

const C_RATIO: f64 = 0.4;
const ELLIPSOIDS: u64 = 400;
/// Semi-axes over their geometric mean.
const PROPORTIONS: [f64; 3] = [1.0 / 1.2, 1.0, 1.2];

fn main() -> Result<(), Box<dyn Error>> {
    println!("voxel (z, y, x) um | radius um | original | original x sqrt(5)/2 | corrected");
    for voxel in [[2.0, 0.5, 0.5], [2.1605, 0.2768, 0.2768], [0.5, 0.5, 0.5]] {
        for radius in [4.0, 5.0, 6.0, 8.0] {
            let original = errors(voxel, radius, Numerics::Original, 1.0)?;
            let scaled = errors(voxel, radius, Numerics::Original, 5.0_f64.sqrt() / 2.0)?;
            let corrected = errors(voxel, radius, Numerics::Corrected, 1.0)?;
            println!("{voxel:?} | {radius} | {original} | {scaled} | {corrected}");
        }
    }
    Ok(())
}

/// Mean and standard deviation of the error of the geometric mean of the semi-axes, in percent.
fn errors(voxel: [f64; 3], radius: f64, numerics: Numerics, factor: f64) -> Result<String, Box<dyn Error>> {
    let mut found = Vec::new();
    for index in 0..ELLIPSOIDS {
        let mut random = SplitMix64::new(index);
        let image = draw(voxel, PROPORTIONS.map(|proportion| proportion * radius * C_RATIO), &mut random);
        let options = SpotOptions {
            t: 0,
            voxel_size: VoxelSize::new(voxel)?,
            origin_vox: [0.0; 3],
            c_ratio: C_RATIO,
            p_thresh: 0.5,
            r_min_um: 0.0,
            r_max_um: 1e6,
            dims: Dims::ThreeD,
            use_2d: false,
            numerics,
        };
        let spots = find_spots(image.view(), &options, &CancelToken::default())?;
        let [spot] = spots.as_slice() else { return Err("an ellipsoid is one spot".into()) };
        found.push(100.0 * (factor * mean_radius(spot) / radius - 1.0));
    }
    let mean = found.iter().sum::<f64>() / found.len() as f64;
    let variance = found.iter().map(|error| (error - mean).powi(2)).sum::<f64>() / found.len() as f64;
    Ok(format!("{mean:+.1} ± {:.1} %", variance.sqrt()))
}

/// The radius of the ball of the same volume.
fn mean_radius(spot: &Spot) -> f64 {
    let [[a, b, c], [d, e, f], [g, h, i]] = spot.covariance_um2;
    (a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g)).powf(1.0 / 6.0)
}

/// 1 inside a randomly turned ellipsoid near the middle of the image, 0 outside.
fn draw(voxel: [f64; 3], semi_axes: [f64; 3], random: &mut SplitMix64) -> Array3<f32> {
    let axes = rotation(random);
    let half = voxel.map(|edge| (semi_axes[2] / edge).ceil() as usize + 4);
    let shift: [f64; 3] = std::array::from_fn(|axis| (random.next_f64() - 0.5) * voxel[axis]);
    let distances = Array3::from_shape_fn(half.map(|n| 2 * n + 1), |(z, y, x)| {
        let away: [f64; 3] = std::array::from_fn(|i| ([z, y, x][i] as f64 - half[i] as f64) * voxel[i] - shift[i]);
        let along = |k: usize| (0..3).map(|i| axes[k][i] * away[i]).sum::<f64>() / semi_axes[k];
        (0..3).map(|k| along(k).powi(2)).sum::<f64>()
    });
    let mut limit = 1.0;
    while distances.iter().filter(|&&distance| distance < limit).count() < 9 {
        limit *= 1.1;
    }
    distances.mapv(|distance| f32::from(u8::from(distance < limit)))
}

/// A rotation from a random quaternion in the unit ball.
fn rotation(random: &mut SplitMix64) -> [[f64; 3]; 3] {
    let (norm, [w, x, y, z]) = loop {
        let q: [f64; 4] = std::array::from_fn(|_| 2.0 * random.next_f64() - 1.0);
        let norm: f64 = q.iter().map(|c| c * c).sum();
        if (0.01..1.0).contains(&norm) {
            break (norm, q);
        }
    };
    let s = 2.0 / norm;
    [
        [1.0 - s * (y * y + z * z), s * (x * y - z * w), s * (x * z + y * w)],
        [s * (x * y + z * w), 1.0 - s * (x * x + z * z), s * (y * z - x * w)],
        [s * (x * z - y * w), s * (y * z + x * w), 1.0 - s * (x * x + y * y)],
    ]
}
