use elephant_types::CancelToken;
use ndarray::{Array3, ArrayView3, Axis, s};
use proptest::prelude::*;

use super::{Connectivity, Region, RegionFinder, Run, find_regions};
use crate::{ImageError, Moments};

const CONNECTIVITIES: [Connectivity; 3] = [Connectivity::Face, Connectivity::Edge, Connectivity::Corner];

/// Flood fill from each voxel that no earlier fill reached: slow and plainly right.
fn flood_fill(image: &Array3<f32>, threshold: f32, connectivity: Connectivity) -> Vec<Vec<[usize; 3]>> {
    let shape: [usize; 3] = image.dim().into();
    let most_steps = match connectivity {
        Connectivity::Face => 1,
        Connectivity::Edge => 2,
        Connectivity::Corner => 3,
    };
    let mut seen = Array3::from_elem(image.dim(), false);
    let mut found = Vec::new();
    for (z, y, x) in ndarray::indices(image.dim()) {
        let mut voxels = Vec::new();
        let mut stack = vec![[z, y, x]];
        while let Some(voxel) = stack.pop() {
            let is_foreground = image[voxel].is_finite() && image[voxel] > threshold;
            if !is_foreground || std::mem::replace(&mut seen[voxel], true) {
                continue;
            }
            voxels.push(voxel);
            for steps in ndarray::indices((3, 3, 3)) {
                let steps: [usize; 3] = steps.into();
                let neighbour: [usize; 3] = std::array::from_fn(|axis| (voxel[axis] + steps[axis]).wrapping_sub(1));
                let is_near = steps.iter().filter(|&&step| step != 1).count() <= most_steps;
                if is_near && (0..3).all(|axis| neighbour[axis] < shape[axis]) {
                    stack.push(neighbour);
                }
            }
        }
        if !voxels.is_empty() {
            voxels.sort_unstable();
            found.push(voxels);
        }
    }
    found
}

fn corner_regions(image: ArrayView3<'_, f32>) -> Vec<Region> {
    find_regions(image, 0.5, Connectivity::Corner, &CancelToken::default()).unwrap()
}

fn assert_same(found: &[Region], image: &Array3<f32>, connectivity: Connectivity) {
    let expected = flood_fill(image, 0.5, connectivity);
    assert_eq!(found.len(), expected.len());
    for (region, voxels) in found.iter().zip(expected) {
        let single = |&[z, y, x]: &[usize; 3]| Moments::of_run(Run::new(z, y, x..x + 1));
        assert_eq!(Some(region.moments()), voxels.iter().map(single).reduce(Moments::merged).as_ref());
        let sum: f64 = voxels.iter().map(|&voxel| f64::from(image[voxel])).sum();
        assert!((region.sum() - sum).abs() <= 1e-9 * sum);
        assert_eq!(region.voxels().collect::<Vec<_>>(), voxels);
        assert!(region.runs().windows(2).all(|runs| runs[0] < runs[1]));
    }
}

/// Noise whose foreground has about the given share of the voxels.
fn noise_image(shape: (usize, usize, usize), share: f32, seed: u64) -> Array3<f32> {
    let mut random = fastrand::Rng::with_seed(seed);
    Array3::from_shape_simple_fn(shape, || (random.f32() - (1.0 - share)) * 0.5 / share + 0.5)
}

/// The regions of an image whose planes are given in pieces of these sizes, the rest at last.
fn pushed(image: &Array3<f32>, pieces: &[usize], connectivity: Connectivity) -> Vec<Region> {
    let cancel = CancelToken::default();
    let mut finder = RegionFinder::new(image.dim().into(), 0.5, connectivity).unwrap();
    let mut rest = image.view();
    for &planes in pieces {
        let (next, others) = rest.split_at(Axis(0), planes.min(rest.dim().0));
        finder.push(next, &cancel).unwrap();
        rest = others;
    }
    finder.push(rest, &cancel).unwrap();
    finder.finish(&cancel).unwrap()
}

fn bits(regions: &[Region]) -> Vec<(&[Run], &Moments, u64)> {
    regions.iter().map(|region| (region.runs(), region.moments(), region.sum().to_bits())).collect()
}

proptest! {
    #[test]
    fn agrees_with_flood_fill(
        shape in (1..7_usize, 1..12_usize, 1..70_usize), share in 0.01..0.6_f32, seed in any::<u64>(), kind in 0..3_usize,
    ) {
        let image = noise_image(shape, share, seed);
        let connectivity = CONNECTIVITIES[kind];
        let found = find_regions(image.view(), 0.5, connectivity, &CancelToken::default()).unwrap();
        assert_same(&found, &image, connectivity);
        prop_assert!(found.len() as u64 <= connectivity.most_regions(shape.into()));
    }

    #[test]
    fn the_cut_into_pushes_does_not_matter(
        shape in (1..30_usize, 1..60_usize, 1..70_usize),
        share in 0.01..0.4_f32,
        seed in any::<u64>(),
        pieces in prop::collection::vec(0..9_usize, 0..8),
        kind in 0..3_usize,
    ) {
        let image = noise_image(shape, share, seed);
        let whole = pushed(&image, &[], CONNECTIVITIES[kind]);
        let cut = pushed(&image, &pieces, CONNECTIVITIES[kind]);
        prop_assert_eq!(bits(&whole), bits(&cut));
    }
}

#[test]
fn regions_cross_slabs_of_planes_and_of_rows() {
    // Slabs of four planes, and of rows within a plane: more than one of each.
    for (shape, share) in
        [((40_usize, 50_usize, 140), 0.02), ((40, 50, 140), 0.05), ((1, 900, 700), 0.2), ((1, 900, 700), 0.4)]
    {
        let image = noise_image(shape, share, 7);
        assert_same(&corner_regions(image.view()), &image, Connectivity::Corner);
        let plane_by_plane = pushed(&image, &vec![1; shape.0], Connectivity::Corner);
        assert_eq!(bits(&plane_by_plane), bits(&corner_regions(image.view())));
    }
}

#[test]
fn other_memory_layouts_give_the_same() {
    let image = noise_image((9, 14, 40), 0.1, 3);
    let mut wide = Array3::from_elem((9, 14, 80), 1.0);
    wide.slice_mut(s![.., .., ..;2]).assign(&image);
    assert_same(&corner_regions(wide.slice(s![.., .., ..;2])), &image, Connectivity::Corner);
    let flipped = image.slice(s![.., .., ..;-1]).to_owned();
    assert_same(&corner_regions(image.slice(s![.., .., ..;-1])), &flipped, Connectivity::Corner);
}

#[test]
fn thread_counts_give_the_same_bits() {
    let image = noise_image((40, 64, 120), 0.12, 11);
    let found = [1, 2, 7].map(|threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| corner_regions(image.view()))
    });
    assert!(found[0].len() > 100);
    assert_eq!(bits(&found[0]), bits(&found[1]));
    assert_eq!(bits(&found[0]), bits(&found[2]));
}

#[test]
fn a_region_of_many_runs_has_the_moments_of_its_voxels() {
    // More runs than one thread sums up.
    let mut image = Array3::zeros((1, 300, 200));
    image.slice_mut(s![.., .., ..;2]).fill(1.0);
    image.slice_mut(s![.., 7, ..]).fill(1.0);
    let found = corner_regions(image.view());
    assert!(found[0].runs().len() > 20_000);
    assert_same(&found, &image, Connectivity::Corner);
}

#[test]
fn values_that_are_not_finite_are_background() {
    let mut image = Array3::from_elem((2, 3, 40), f32::NAN);
    image[(0, 0, 0)] = f32::INFINITY;
    image[(1, 2, 39)] = 0.75;
    let found = corner_regions(image.view());
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].bounds(), [1..2, 2..3, 39..40]);
    assert_eq!(found[0].mean(), 0.75);
}

#[test]
fn noise_is_refused_before_it_takes_more_memory_than_the_image() {
    let search = |image: &Array3<f32>| find_regions(image.view(), 0.5, Connectivity::Corner, &CancelToken::default());
    // Single voxels apart: more regions than any embryo has cells.
    let mut image = Array3::zeros((1, 3000, 3000));
    image.slice_mut(s![.., ..;2, ..;3]).fill(1.0);
    assert_eq!(search(&image), Err(ImageError::TooManyPieces { pieces: 1 << 20 }));
    // Every other column: few regions, but as many runs as there can be.
    let mut image = Array3::zeros((1, 3000, 3000));
    image.slice_mut(s![.., .., ..;2]).fill(1.0);
    assert_eq!(search(&image), Err(ImageError::TooManyPieces { pieces: 1 << 22 }));
    // In one go or plane by plane.
    let image = image.into_shape_with_order((30, 300, 1000)).unwrap();
    let mut finder = RegionFinder::new([30, 300, 1000], 0.5, Connectivity::Corner).unwrap();
    let cancel = CancelToken::default();
    let mut pushes = image.axis_iter(Axis(0)).map(|plane| finder.push(plane.insert_axis(Axis(0)), &cancel));
    let failed = pushes.find_map(Result::err);
    assert_eq!(failed, Some(ImageError::TooManyPieces { pieces: 1 << 22 }));
}

#[test]
fn planes_that_do_not_fit_are_refused() {
    let cancel = CancelToken::default();
    let mut finder = RegionFinder::new([3, 4, 5], 0.5, Connectivity::Corner).unwrap();
    finder.push(Array3::zeros((2, 4, 5)).view(), &cancel).unwrap();
    for shape in [(1, 5, 4), (2, 4, 5)] {
        let found = finder.push(Array3::zeros(shape).view(), &cancel);
        assert!(matches!(found, Err(ImageError::UnexpectedPlanes { known: 2, .. })), "{found:?}");
    }
    assert_eq!(finder.finish(&cancel), Err(ImageError::MissingPlanes { known: 2, shape: [3, 4, 5] }));
    assert!(RegionFinder::new([1 << 25, 1, 1], 0.5, Connectivity::Corner).is_err());
}

#[test]
fn empty_images_have_no_regions() {
    for shape in [(0, 5, 5), (5, 0, 5), (5, 5, 0)] {
        assert!(corner_regions(Array3::zeros(shape).view()).is_empty());
    }
}

#[test]
fn a_cancelled_search_stops() {
    let cancel = CancelToken::default();
    let mut finder = RegionFinder::new([3, 4, 5], 0.5, Connectivity::Corner).unwrap();
    finder.push(Array3::zeros((3, 4, 5)).view(), &cancel).unwrap();
    cancel.cancel();
    assert!(matches!(finder.push(Array3::zeros((0, 4, 5)).view(), &cancel), Err(ImageError::Cancelled(_))));
    let image = Array3::ones((3, 4, 5));
    let found = find_regions(image.view(), 0.5, Connectivity::Corner, &cancel);
    assert!(matches!(found, Err(ImageError::Cancelled(_))));
}

#[test]
fn memory_is_bounded_by_foreground_and_limits() {
    let bytes = |shape| RegionFinder::most_bytes(shape, Connectivity::Corner);
    // Below the limits, every other voxel of a row may be a run, and every eighth voxel a region.
    let small = bytes([4, 100, 100]);
    let regions = 5_000 * size_of::<Region>() as u64;
    assert!((20_000 * 36 + regions..20_000 * 36 + 2 * regions).contains(&small), "{small}");
    let large = bytes([512, 2048, 2048]);
    assert!(large < 3 << 30, "{large}");
    assert!(bytes([4096, 2048, 2048]) < large + (1 << 26), "a larger volume takes no more but for its rows");
    assert!(bytes([usize::MAX; 3]) > 0);
}
