//! How an image is cut into overlapping tiles, and with which weights their results are added. Pure geometry.
//!
//! Axes are independent: a tile's weight at a voxel is the product of three numbers, one per axis, and so is the sum of
//! all weights at a voxel. [`Numerics::Original`] follows docs/method.md, "Tiles and blending", where that sum is not
//! always 1 and may be 0. [`Numerics::Corrected`] makes it 1 everywhere. It also spaces tiles evenly, and lets them
//! grow by up to a sixteenth where fewer are then enough: one of 400 voxels instead of two of 384. They never shrink,
//! because a network normalises by what its tile holds and has learnt with crops of that size.

use elephant_types::Numerics;

/// The tiles of an image along one axis. All have the same size.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct AxisTiles {
    /// Voxels per tile.
    pub(crate) size: usize,
    /// Where each tile starts.
    pub(crate) starts: Vec<usize>,
    /// For each tile, the weight of each of its voxels.
    pub(crate) weights: Vec<Vec<f32>>,
}

impl AxisTiles {
    /// Cuts `image` voxels into tiles of `patch`. The network resamples sizes that are not a multiple of `multiple`;
    /// corrected tiles are one where `patch` is.
    pub(crate) fn new(numerics: Numerics, image: usize, patch: usize, multiple: usize) -> Self {
        let patch = patch.clamp(1, image);
        if patch == image {
            return Self::whole(image);
        }
        match numerics {
            Numerics::Original => Self::original(image, patch),
            Numerics::Corrected => Self::corrected(image, patch, multiple),
        }
    }

    /// One tile for each plane: what a 2-D network sees of a volume.
    pub(crate) fn planes(image: usize) -> Self {
        Self { size: 1, starts: (0..image).collect(), weights: vec![vec![1.0]; image] }
    }

    fn whole(image: usize) -> Self {
        Self { size: image, starts: vec![0], weights: vec![vec![1.0; image]] }
    }

    fn original(image: usize, patch: usize) -> Self {
        let count = image / patch + 1;
        let interval = patch - (patch * count - image) / (count - 1);
        let overlap = 1.max(patch - interval);
        let starts: Vec<usize> = (0..count).map(|k| (k * interval).min(image - patch)).collect();
        let weights = (0..count).map(|k| {
            let mut weights = vec![1.0; patch];
            if k > 0 {
                weights[..overlap].iter_mut().enumerate().for_each(|(i, weight)| *weight *= linspace(overlap, i));
            }
            if k < count - 1 {
                let falling = weights[patch - overlap..].iter_mut().enumerate();
                falling.for_each(|(i, weight)| *weight *= falling_linspace(overlap, i));
            }
            weights
        });
        Self { size: patch, weights: weights.collect(), starts }
    }

    fn corrected(image: usize, patch: usize, multiple: usize) -> Self {
        let (size, count) = corrected_size_and_count(image, patch, multiple);
        if count == 1 {
            return Self::whole(image);
        }
        let starts: Vec<usize> = (0..count).map(|k| k * (image - size) / (count - 1)).collect();
        let mut weights: Vec<Vec<f32>> = (0..count).map(|k| corrected_ramps(&starts, size, k)).collect();
        let mut sums = vec![0.0; image];
        for (start, weights) in starts.iter().zip(&weights) {
            sums[*start..][..size].iter_mut().zip(weights).for_each(|(sum, weight)| *sum += weight);
        }
        for (start, weights) in starts.iter().zip(&mut weights) {
            weights.iter_mut().zip(&sums[*start..]).for_each(|(weight, sum)| *weight /= sum);
        }
        Self { size, starts, weights }
    }
}

/// Size and number of tiles that overlap enough to be blended. The number is never above the original's.
fn corrected_size_and_count(image: usize, patch: usize, multiple: usize) -> (usize, usize) {
    let original = (patch, image / patch + 1);
    // Sizes that the network need not resample stay such sizes.
    let multiple = if patch.is_multiple_of(multiple) { multiple } else { 1 };
    let largest = (patch + patch / 16) / multiple * multiple;
    if image <= largest {
        return (image, 1);
    }
    let overlap = (patch / 16).max(2).min(patch - 1);
    let count = (image - overlap).div_ceil(largest - overlap);
    let size = (image + (count - 1) * overlap).div_ceil(count).next_multiple_of(multiple).max(patch);
    if count <= original.1 { (size, count) } else { original }
}

/// Rises from the first voxel over the overlap with the tile before and falls over the overlap with the tile after,
/// never to 0.
fn corrected_ramps(starts: &[usize], size: usize, k: usize) -> Vec<f32> {
    let overlap = |left: usize| (starts[left] + size).saturating_sub(starts[left + 1]);
    let before = if k > 0 { overlap(k - 1) } else { 0 };
    let after = if k + 1 < starts.len() { overlap(k) } else { 0 };
    let ramp = |distance: usize, length: usize| ((distance + 1) as f32 / (length + 1) as f32).min(1.0);
    (0..size).map(|i| ramp(i, before) * ramp(size - 1 - i, after)).collect()
}

/// Element `i` of `torch.linspace(0, 1, length)`, rounded as PyTorch rounds it: from the nearer end.
fn linspace(length: usize, i: usize) -> f32 {
    if length == 1 {
        return 0.0;
    }
    let step = 1.0 / (length - 1) as f32;
    if i < length / 2 { step * i as f32 } else { 1.0 - step * (length - i - 1) as f32 }
}

/// Element `i` of `torch.linspace(1, 0, length)`.
fn falling_linspace(length: usize, i: usize) -> f32 {
    if length == 1 {
        return 1.0;
    }
    let step = -1.0 / (length - 1) as f32;
    if i < length / 2 { 1.0 + step * i as f32 } else { -step * (length - i - 1) as f32 }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sums(tiles: &AxisTiles, image: usize) -> Vec<f32> {
        let mut sums = vec![0.0; image];
        for (start, weights) in tiles.starts.iter().zip(&tiles.weights) {
            for (i, weight) in weights.iter().enumerate() {
                sums[start + i] += weight;
            }
        }
        sums
    }

    /// The table in docs/method.md, "Tiles and blending".
    #[test]
    fn original_tiles_start_where_the_original_starts_them() {
        let cases: [(usize, usize, &[usize], usize); 8] = [
            (400, 384, &[0, 16], 368),
            (512, 384, &[0, 128], 256),
            (708, 384, &[0, 324], 60),
            (768, 384, &[0, 192, 384], 192),
            (1000, 384, &[0, 308, 616], 76),
            (999, 384, &[0, 308, 615], 76),
            (1151, 384, &[0, 384, 767], 1),
            (35, 24, &[0, 11], 13),
        ];
        for (image, patch, starts, overlap) in cases {
            let tiles = AxisTiles::new(Numerics::Original, image, patch, 16);
            assert_eq!(tiles.starts, starts, "{image}/{patch}");
            let ramp = tiles.weights[1].iter().take_while(|weight| **weight < 1.0).count();
            // The ramp's last sample is 1, except that one sample from 0 to 1 is a 0.
            assert_eq!(ramp, if overlap == 1 { 1 } else { overlap - 1 }, "{image}/{patch}");
        }
    }

    #[test]
    fn original_weights_have_the_originals_mistakes() {
        let largest = sums(&AxisTiles::new(Numerics::Original, 999, 384, 16), 999).into_iter().fold(0.0, f32::max);
        assert!((largest - 1.0133).abs() < 1e-4, "{largest}");
        assert_eq!(sums(&AxisTiles::new(Numerics::Original, 1151, 384, 16), 1151)[384], 0.0);
    }

    #[test]
    fn one_tile_is_enough_for_a_small_image() {
        for numerics in [Numerics::Original, Numerics::Corrected] {
            let tiles = AxisTiles::new(numerics, 12, 24, 16);
            assert_eq!((tiles.size, tiles.starts, tiles.weights), (12, vec![0], vec![vec![1.0; 12]]));
        }
    }

    #[test]
    fn corrected_tiles_are_fewer() {
        let cases: [(usize, usize, usize, &[usize]); 7] = [
            (400, 384, 400, &[0]),
            (512, 384, 384, &[0, 128]),
            (768, 384, 400, &[0, 368]),
            (1151, 384, 400, &[0, 375, 751]),
            (64, 24, 24, &[0, 20, 40]),
            (48, 24, 24, &[0, 12, 24]),
            (35, 24, 24, &[0, 11]),
        ];
        for (image, patch, size, starts) in cases {
            let multiple = if patch == 24 { 2 } else { 16 };
            let tiles = AxisTiles::new(Numerics::Corrected, image, patch, multiple);
            assert_eq!((tiles.size, tiles.starts.as_slice()), (size, starts), "{image}/{patch}");
        }
    }

    proptest! {
        #[test]
        fn original_tiles_stay_inside(image in 1..2000usize, patch in 1..500usize) {
            let tiles = AxisTiles::new(Numerics::Original, image, patch, 16);
            prop_assert!(tiles.starts.iter().all(|start| start + tiles.size <= image));
            prop_assert!(tiles.weights.iter().flatten().all(|weight| (0.0..=1.0).contains(weight)));
        }

        #[test]
        fn corrected_weights_sum_to_one(image in 1..2000usize, patch in 1..500usize, log in 0..5u32) {
            let tiles = AxisTiles::new(Numerics::Corrected, image, patch, 1 << log);
            prop_assert!(tiles.starts.iter().all(|start| start + tiles.size <= image));
            prop_assert!(tiles.weights.iter().flatten().all(|weight| *weight > 0.0));
            for sum in sums(&tiles, image) {
                prop_assert!((sum - 1.0).abs() < 1e-5, "{sum}");
            }
        }

        #[test]
        fn corrected_tiles_are_never_more_nor_much_larger(image in 1..3000usize, patch in 1..500usize, log in 0..5u32) {
            let multiple = 1 << log;
            let original = AxisTiles::new(Numerics::Original, image, patch, multiple);
            let corrected = AxisTiles::new(Numerics::Corrected, image, patch, multiple);
            prop_assert!(corrected.starts.len() <= original.starts.len());
            prop_assert!(corrected.size >= patch.min(image) && corrected.size <= patch + patch / 16);
            let is_resampled = |size: usize| size != image && !size.is_multiple_of(multiple);
            prop_assert!(is_resampled(original.size) || !is_resampled(corrected.size));
        }
    }
}
