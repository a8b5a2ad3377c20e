//! How much two sets of voxels have in common.

use std::cmp::Ordering;

use super::Run;

/// Numbers of voxels in two sets and in their intersection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Overlap {
    /// Voxels of the first set.
    pub first: u64,
    /// Voxels of the second set.
    pub second: u64,
    /// Voxels of both sets.
    pub intersection: u64,
}

impl Overlap {
    /// Compares two sets of voxels, given as runs in raster order: those of [`Region::runs`](crate::Region::runs) or
    /// [`Raster::runs`](crate::Raster::runs).
    pub fn between(first: impl IntoIterator<Item = Run>, second: impl IntoIterator<Item = Run>) -> Self {
        let mut overlap = Self::default();
        let mut first = first.into_iter().inspect(|run| overlap.first += run.len());
        let mut second = second.into_iter().inspect(|run| overlap.second += run.len());
        let (mut a, mut b) = (first.next(), second.next());
        while let (Some(run), Some(other)) = (a, b) {
            let order = (run.z, run.y).cmp(&(other.z, other.y));
            if order == Ordering::Equal {
                let end = run.x1.min(other.x1);
                overlap.intersection += u64::from(end.saturating_sub(run.x0.max(other.x0)));
            }
            if order.then(run.x1.cmp(&other.x1)) == Ordering::Less {
                a = first.next();
            } else {
                b = second.next();
            }
        }
        first.for_each(drop);
        second.for_each(drop);
        overlap
    }

    /// Intersection over union, 0 to 1; 0 for two empty sets.
    pub fn iou(self) -> f64 {
        let union = self.first + self.second - self.intersection;
        if union == 0 { 0.0 } else { self.intersection as f64 / union as f64 }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use ndarray::Array3;
    use proptest::prelude::*;

    use super::*;
    use crate::{Connectivity, Region, find_regions};

    fn regions(bits: &[bool]) -> Vec<Region> {
        let image = Array3::from_shape_fn((4, 5, 9), |(z, y, x)| f32::from(u8::from(bits[(z * 5 + y) * 9 + x])));
        find_regions(image.view(), 0.5, Connectivity::Corner, &elephant_types::CancelToken::default()).unwrap()
    }

    proptest! {
        #[test]
        fn overlap_counts_common_voxels(
            a in prop::collection::vec(prop::bool::weighted(0.3), 4 * 5 * 9),
            b in prop::collection::vec(prop::bool::weighted(0.3), 4 * 5 * 9),
        ) {
            for first in &regions(&a) {
                for second in &regions(&b) {
                    let overlap = Overlap::between(first.runs().iter().copied(), second.runs().iter().copied());
                    let [one, other] = [first, second].map(|region| region.voxels().collect::<HashSet<_>>());
                    prop_assert_eq!(overlap.first, one.len() as u64);
                    prop_assert_eq!(overlap.second, other.len() as u64);
                    prop_assert_eq!(overlap.intersection, one.intersection(&other).count() as u64);
                    let union = one.union(&other).count() as f64;
                    prop_assert_eq!(overlap.iou(), overlap.intersection as f64 / union);
                }
            }
        }
    }

    #[test]
    fn empty_sets_do_not_overlap() {
        let run = Run::new(1, 2, 3..5);
        assert_eq!(Overlap::between([run], []), Overlap { first: 2, second: 0, intersection: 0 });
        assert_eq!(Overlap::between([], []).iou(), 0.0);
        assert_eq!(Overlap::between([run], [run]).iou(), 1.0);
    }
}
