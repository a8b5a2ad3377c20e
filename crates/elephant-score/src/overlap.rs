//! Common voxels of the labels of two images, in one parallel pass.

use std::collections::HashMap;

use rayon::prelude::*;

use crate::labels::LabelImage;

/// The most different pairs of labels in a frame.
pub(crate) const MOST_PAIRS: usize = 1 << 22;

/// The voxels that have one label in the reference and one in the result.
#[derive(Clone, Copy, Debug, Default)]
struct Region {
    voxels: u64,
    /// Sums of the voxels' coordinates (z, y, x).
    sums: [u64; 3],
}

impl Region {
    fn add(&mut self, other: &Self) {
        self.voxels += other.voxels;
        for (sum, more) in self.sums.iter_mut().zip(other.sums) {
            *sum += more;
        }
    }

    /// The mean coordinates (z, y, x).
    fn centre(&self) -> [f64; 3] {
        self.sums.map(|sum| sum as f64 / self.voxels as f64)
    }
}

/// Regions by pair of labels. Neighbouring runs mostly have the same pair.
#[derive(Default)]
struct Regions {
    index: HashMap<(u32, u32), usize>,
    list: Vec<((u32, u32), Region)>,
    last: usize,
}

impl Regions {
    fn at(&mut self, pair: (u32, u32)) -> &mut Region {
        if self.list.get(self.last).is_none_or(|(known, _)| *known != pair) {
            let next = self.list.len();
            self.last = *self.index.entry(pair).or_insert(next);
            if self.last == next {
                self.list.push((pair, Region::default()));
            }
        }
        &mut self.list[self.last].1
    }

    fn merge(mut self, other: &Self) -> Self {
        for (pair, region) in &other.list {
            self.at(*pair).add(region);
        }
        self
    }

    /// Adds the runs of equal pairs in a row of voxels.
    fn add_row(&mut self, reference: &[u32], result: &[u32], z: u64, y: u64) {
        let pairs = || reference.iter().zip(result);
        let mut start = 0;
        while start < reference.len() {
            let pair = (reference[start], result[start]);
            let run = pairs().skip(start).take_while(|&(&a, &b)| (a, b) == pair).count();
            if pair != (0, 0) {
                let (voxels, first) = (run as u64, start as u64);
                // first + (first + 1) + … : `voxels` numbers.
                let x = voxels * first + voxels * (voxels - 1) / 2;
                self.at(pair).add(&Region { voxels, sums: [voxels * z, voxels * y, x] });
            }
            start += run;
        }
    }
}

/// A label of an image.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Segment {
    pub label: u32,
    pub voxels: u64,
    /// Mean coordinates (z, y, x) in voxels.
    pub centre: [f64; 3],
}

/// A label of the reference with more than half of its voxels in one label of the result.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LabelMatch {
    /// Index into the labels of the reference.
    pub reference: u32,
    /// Index into the labels of the result.
    pub result: u32,
    /// Intersection over union.
    pub overlap: f64,
}

/// The labels of two images of one frame, each sorted by number, and which match.
#[derive(Clone, Debug, Default)]
pub(crate) struct FrameOverlap {
    pub reference: Vec<Segment>,
    pub result: Vec<Segment>,
    pub matches: Vec<LabelMatch>,
}

fn labels_of(regions: impl Iterator<Item = (u32, Region)>) -> Vec<Segment> {
    let mut regions: Vec<(u32, Region)> = regions.filter(|one| one.0 != 0).collect();
    regions.sort_unstable_by_key(|one| one.0);
    let groups = regions.chunk_by(|a, b| a.0 == b.0);
    let sum = |group: &[(u32, Region)]| {
        let mut all = Region::default();
        for one in group {
            all.add(&one.1);
        }
        Segment { label: group[0].0, voxels: all.voxels, centre: all.centre() }
    };
    groups.map(sum).collect()
}

fn position(labels: &[Segment], label: u32) -> Option<usize> {
    labels.binary_search_by_key(&label, |one| one.label).ok()
}

/// Compares a plane or volume of the reference with the same of the result. `None` if there are more than [`MOST_PAIRS`]
/// pairs of labels.
pub(crate) fn compare(reference: &LabelImage, result: &[u32]) -> Option<FrameOverlap> {
    let [_, rows, width] = reference.shape;
    if reference.labels.is_empty() {
        return Some(FrameOverlap::default());
    }
    // Some 64 thousand voxels each, so that a task takes much longer than to hand it out.
    let rows_at_once = (65_536 / width).max(1);
    let chunk = rows_at_once * width;
    let parts: Option<Vec<Regions>> = reference
        .labels
        .par_chunks(chunk)
        .zip(result.par_chunks(chunk))
        .enumerate()
        .map(|(part, (reference, result))| {
            let mut regions = Regions::default();
            for (row, (a, b)) in reference.chunks(width).zip(result.chunks(width)).enumerate() {
                let row = part * rows_at_once + row;
                regions.add_row(a, b, (row / rows) as u64, (row % rows) as u64);
            }
            (regions.list.len() <= MOST_PAIRS).then_some(regions)
        })
        .collect();
    let mut all = Regions::default();
    for part in parts? {
        all = all.merge(&part);
        if all.list.len() > MOST_PAIRS {
            return None;
        }
    }
    let of_reference = labels_of(all.list.iter().map(|&((label, _), region)| (label, region)));
    let of_result = labels_of(all.list.iter().map(|&((_, label), region)| (label, region)));
    let mut matches = Vec::new();
    for &((label, other), region) in &all.list {
        let (Some(a), Some(b)) = (position(&of_reference, label), position(&of_result, other)) else { continue };
        if 2 * region.voxels > of_reference[a].voxels {
            let union = of_reference[a].voxels + of_result[b].voxels - region.voxels;
            let overlap = region.voxels as f64 / union as f64;
            matches.push(LabelMatch { reference: a as u32, result: b as u32, overlap });
        }
    }
    matches.sort_unstable_by_key(|one| one.reference);
    Some(FrameOverlap { reference: of_reference, result: of_result, matches })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn equals_counting_voxel_by_voxel(
            shape in (1_usize..4, 1_usize..5, 1_usize..40),
            seed in any::<u64>(),
        ) {
            let shape = [shape.0, shape.1, shape.2];
            let mut random = elephant_types::SplitMix64::new(seed);
            let mut labels = || -> Vec<u32> {
                let mut last = 0;
                let count = shape.iter().product();
                let mut label = || {
                    if random.next_u64().is_multiple_of(3) {
                        last = (random.next_u64() % 4) as u32 * 70_000;
                    }
                    last
                };
                (0..count).map(|_| label()).collect()
            };
            let image = LabelImage { shape, labels: labels() };
            let result = labels();
            let overlap = compare(&image, &result).unwrap();
            for (labels, found) in [(&image.labels, &overlap.reference), (&result, &overlap.result)] {
                for label in [70_000, 140_000, 210_000] {
                    let voxels: Vec<usize> = (0..labels.len()).filter(|&at| labels[at] == label).collect();
                    let one = found.iter().find(|one| one.label == label);
                    prop_assert_eq!(one.map_or(0, |one| one.voxels), voxels.len() as u64);
                    let Some(one) = one else { continue };
                    let mean = |axis: &dyn Fn(usize) -> usize| {
                        voxels.iter().map(|&at| axis(at) as f64).sum::<f64>() / voxels.len() as f64
                    };
                    let [_, rows, width] = shape;
                    let centre = [mean(&|at| at / width / rows), mean(&|at| at / width % rows), mean(&|at| at % width)];
                    prop_assert_eq!(one.centre, centre);
                }
            }
            for (index, label) in overlap.reference.iter().enumerate() {
                let pairs = || image.labels.iter().zip(&result);
                let inside = |other: u32| pairs().filter(|&(&a, &b)| (a, b) == (label.label, other)).count() as u64;
                let expected = overlap.result.iter().position(|other| 2 * inside(other.label) > label.voxels);
                let found = overlap.matches.iter().find(|one| one.reference as usize == index);
                prop_assert_eq!(found.map(|one| one.result as usize), expected);
                if let Some(found) = found {
                    let other = overlap.result[found.result as usize];
                    let both = inside(other.label);
                    prop_assert_eq!(found.overlap, both as f64 / (label.voxels + other.voxels - both) as f64);
                }
            }
        }
    }

    #[test]
    fn an_empty_image_has_no_labels() {
        let image = LabelImage { shape: [0, 5, 0], labels: Vec::new() };
        assert!(compare(&image, &[]).unwrap().reference.is_empty());
    }
}
