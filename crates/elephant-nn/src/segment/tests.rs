use std::sync::atomic::{AtomicUsize, Ordering};

use elephant_types::{KeepAxials, Numerics};
use ndarray::{Array3, ArrayViewMut3, s};

use super::*;
use crate::{
    Precision,
    network::NetworkConfig,
    spec::{self, NetworkSpec},
};

fn options(tile: Option<[usize; 3]>) -> SegmentationOptions {
    SegmentationOptions {
        kind: NetworkKind::Volumetric,
        keep_axials: KeepAxials::first(2),
        tile,
        is_pad: false,
        batch_size: 1,
        numerics: Numerics::Corrected,
        output: ProbabilityOutput::Center,
    }
}

fn network(dims: NetworkKind) -> Network {
    let spec = NetworkSpec::detection(dims);
    let config = NetworkConfig {
        keep_axials: KeepAxials::first(2),
        arithmetic: Arithmetic::Fast,
        precision: Precision::F32,
        device: Device::Cpu,
    };
    Network::new(&spec::random(spec, 1).unwrap(), spec, config).unwrap()
}

/// The slabs, as the first plane and the planes of each.
fn slabs(image: &dyn ImageSource, options: &SegmentationOptions) -> Vec<(usize, ndarray::Array4<f32>)> {
    let _no_grad = tch::no_grad_guard();
    let mut slabs = Vec::new();
    segment(&[network(options.kind)], image, options, &TaskContext::detached(), &mut |slab| {
        slabs.push((slab.z, slab.planes().to_owned()));
        Ok(())
    })
    .unwrap();
    slabs
}

fn whole(image: &dyn ImageSource, options: &SegmentationOptions) -> ndarray::Array4<f32> {
    let slabs = slabs(image, options);
    let views: Vec<_> = slabs.iter().map(|(_, planes)| planes.view()).collect();
    ndarray::concatenate(ndarray::Axis(1), &views).unwrap()
}

#[test]
fn activations_are_those_of_the_tiles_that_exist() {
    let bytes = |shape, options: SegmentationOptions| {
        SegmentationBytes::new(NetworkSpec::detection(NetworkKind::Volumetric), shape, &options).unwrap().activations
    };
    let shape = [16, 64, 96];
    let one = 400 * 16 * 64 * 96;
    assert_eq!(bytes(shape, options(None)), one);
    // One tile, however many are asked for at once.
    assert_eq!(bytes(shape, SegmentationOptions { batch_size: 8, ..options(None) }), one);
    // Two tiles of 16 × 64 × 64.
    let tiled = SegmentationOptions { batch_size: 8, ..options(Some([16, 64, 64])) };
    assert_eq!(bytes(shape, tiled), 2 * 400 * 16 * 64 * 64);
    // z is pooled twice, y and x four times.
    let padded = SegmentationOptions { is_pad: true, ..options(None) };
    assert_eq!(bytes(shape, padded), 400 * (16 + 4) * (64 + 16) * (96 + 16));
    assert_eq!(bytes([15, 63, 96], options(None)), one);
    assert_eq!(bytes(shape, SegmentationOptions { numerics: Numerics::Original, ..options(None) }), one / 4 * 9);
    // A planar network sees one plane of a volume at a time.
    let planar = SegmentationOptions { kind: NetworkKind::Planar, is_pad: true, ..options(None) };
    assert_eq!(bytes(shape, planar), 400 * (64 + 16) * (96 + 16));
}

#[test]
fn buffers_do_not_grow_with_the_depth_of_the_image() {
    let bytes = |depth| {
        SegmentationBytes::new(
            NetworkSpec::detection(NetworkKind::Volumetric),
            [depth, 64, 96],
            &options(Some([16, 64, 96])),
        )
        .unwrap()
        .buffers
    };
    assert!(bytes(64) > bytes(16));
    assert_eq!(bytes(64), bytes(512));
}

#[test]
fn patches_that_make_too_many_tiles_are_refused() {
    for tile in [[1, 15, 96], [16, 64, 1], [0, 64, 96], [1, 0, 0]] {
        let error =
            SegmentationBytes::new(NetworkSpec::detection(NetworkKind::Volumetric), [16, 64, 96], &options(Some(tile)))
                .unwrap_err()
                .to_string();
        assert!(error.contains("at least 16 voxels along x and y"), "{error}");
    }
    for (shape, tile) in [([16, 64, 96], [1, 16, 16]), ([16, 5, 96], [4, 5, 16]), ([1, 5, 7], [9, 9, 9])] {
        SegmentationBytes::new(NetworkSpec::detection(NetworkKind::Volumetric), shape, &options(Some(tile))).unwrap();
    }
}

#[test]
fn tiles_are_numbered_in_raster_order() {
    let grid = TileGrid::new([4, 64, 64], &options(Some([2, 64, 32]))).unwrap();
    let indices: Vec<_> = grid.indices().collect();
    assert_eq!(indices.len(), grid.len());
    assert!(indices.is_sorted() && indices.len() > 2, "{indices:?}");
}

/// An image that counts the voxels that were read.
struct Counted {
    image: Array3<f32>,
    read: AtomicUsize,
}

impl ImageSource for Counted {
    fn shape(&self) -> [usize; 3] {
        ImageSource::shape(&self.image)
    }

    fn read(
        &self,
        channel: usize,
        origin: [usize; 3],
        out: ArrayViewMut3<'_, f32>,
        cancel: &CancelToken,
    ) -> Result<(), elephant_model::ModelError> {
        self.read.fetch_add(out.len(), Ordering::Relaxed);
        self.image.read(channel, origin, out, cancel)
    }
}

#[test]
fn planes_are_handed_on_before_the_image_is_read_to_its_end() {
    let _no_grad = tch::no_grad_guard();
    let image = Array3::from_shape_fn((24, 16, 16), |(z, y, x)| ((z + 3 * y + 5 * x) % 7) as f32 / 7.0);
    let image = Counted { image, read: AtomicUsize::new(0) };
    let options = options(Some([4, 16, 16]));
    let mut slabs = Vec::new();
    segment(&[network(options.kind)], &image, &options, &TaskContext::detached(), &mut |slab| {
        slabs.push((slab.z, slab.planes().dim(), image.read.load(Ordering::Relaxed)));
        Ok(())
    })
    .unwrap();
    let mut next = 0;
    for (z, (_, count, _, _), _) in &slabs {
        assert_eq!(*z, next);
        next += count;
    }
    assert_eq!(next, 24);
    assert!(slabs.len() > 4);
    // The row that begins, and one more that is read meanwhile, and one that waits.
    assert!(slabs[0].2 <= 4 * 4 * 16 * 16, "{slabs:?}");
}

/// A frame whose background is zero: two of its tiles hold a cell.
fn sparse() -> Array3<f32> {
    let mut image = Array3::zeros((12, 48, 48));
    image.slice_mut(s![1..3, 2..9, 2..9]).fill(0.8);
    image
        .slice_mut(s![8..11, 35..44, 37..44])
        .assign(&Array3::from_shape_fn((3, 9, 7), |(z, y, x)| (1 + z + y + x) as f32 / 20.0));
    image
}

#[test]
fn constant_tiles_have_the_bits_of_tiles_that_are_computed() {
    let image = sparse();
    for numerics in [Numerics::Corrected, Numerics::Original] {
        let options = SegmentationOptions { numerics, ..options(Some([4, 16, 16])) };
        let grid = TileGrid::new(ImageSource::shape(&image), &options).unwrap();
        let _no_grad = tch::no_grad_guard();
        let networks = [network(options.kind)];
        let context = TaskContext::detached();
        let computation = Computation::new(&networks, &grid, &options, context.cancel_token()).unwrap();
        let mut blending = Blending::new(&grid, 1);
        let (mut expected, mut constant) = (Vec::new(), 0);
        for index in grid.indices() {
            let [z, y, x] = grid.origin(index);
            let [depth, height, width] = grid.tile_size();
            let tile = image.slice(s![z..z + depth, y..y + height, x..x + width]);
            constant += usize::from(tile.iter().all(|value| *value == 0.0));
            let tile: Vec<f32> = tile.iter().copied().collect();
            let result = computation.predict(&Tensor::from_slice(&tile)).unwrap();
            expected.extend(blending.add(index, &result));
        }
        expected.push(blending.finish());
        assert!(constant > grid.len() / 2 && constant < grid.len(), "{constant} of {}", grid.len());
        let found = slabs(&image, &options);
        assert_eq!(found.len(), expected.len());
        for ((z, planes), slab) in found.iter().zip(&expected) {
            assert_eq!(*z, slab.z);
            assert!(planes == slab.planes(), "{numerics:?}");
        }
    }
}

#[test]
fn constant_tiles_are_not_computed_in_batches() {
    let image = Array3::from_elem((8, 32, 32), 0.25);
    let batches = |batch_size| SegmentationOptions { batch_size, ..options(Some([4, 16, 16])) };
    assert!(whole(&image, &batches(3)) == whole(&image, &batches(1)));
}

#[test]
fn few_constants_are_kept() {
    let _no_grad = tch::no_grad_guard();
    let options = options(None);
    let grid = TileGrid::new([2, 16, 16], &options).unwrap();
    let networks = [network(options.kind)];
    let context = TaskContext::detached();
    let computation = Computation::new(&networks, &grid, &options, context.cancel_token()).unwrap();
    let mut constants = ConstantTiles::default();
    let first = constants.result(&[0.5], &computation).unwrap().to_vec();
    for value in [0.25, 0.75, f32::NAN, f32::NAN] {
        let _ = constants.result(&[value], &computation).unwrap();
    }
    assert_eq!(constants.0.len(), KEPT_CONSTANTS);
    assert_eq!(constants.result(&[0.5], &computation).unwrap(), first);
}
