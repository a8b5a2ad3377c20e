//! Statistics of stored intensities: their range and their medians.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, PoisonError},
};

use crate::Element;

/// The number of values of 16 bit.
const VALUES: usize = 1 << 16;
/// The most entries that are remembered.
const MAX_REMEMBERED: usize = 1024;

/// An unsigned number of 8 or 16 bit.
pub(crate) trait Intensity: Element + Into<u16> + Ord {}

impl Intensity for u8 {}
impl Intensity for u16 {}

/// The lowest and the highest of some stored intensities.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// The lowest.
    pub min: u16,
    /// The highest; below `min` when there are none.
    pub max: u16,
}

impl Extent {
    /// The extent of no intensities.
    pub(crate) const EMPTY: Self = Self { min: u16::MAX, max: 0 };

    /// The extent of a plane, given row by row.
    pub(crate) fn of_values<T: Intensity>(values: &[T]) -> Self {
        let Some(&first) = values.first() else { return Self::EMPTY };
        let (min, max) = values.iter().fold((first, first), |(min, max), &value| (min.min(value), max.max(value)));
        Self { min: min.into(), max: max.into() }
    }

    pub(crate) fn and(self, other: Self) -> Self {
        Self { min: self.min.min(other.min), max: self.max.max(other.max) }
    }
}

/// The medians of the planes of a box and of all its voxels.
///
/// The median of an even number of values is the mean of the two in the middle.
#[derive(Clone, Debug, PartialEq)]
pub struct Medians {
    /// The extent and the median of each plane, in ascending z.
    pub planes: Vec<(Extent, f32)>,
    /// The median of all voxels.
    pub all: f32,
}

/// Number of voxels of each value.
#[derive(Clone)]
pub(crate) struct Histogram(Vec<u64>);

impl Histogram {
    pub fn new() -> Self {
        Self(vec![0; VALUES])
    }

    pub fn of_values<T: Intensity>(values: &[T]) -> Self {
        let mut histogram = Self::new();
        for &value in values {
            histogram.0[usize::from(value.into())] += 1;
        }
        histogram
    }

    pub fn add(&mut self, other: &Self) {
        for (count, more) in self.0.iter_mut().zip(&other.0) {
            *count += more;
        }
    }

    /// The median of at least one value.
    pub fn median(&self) -> f32 {
        let total: u64 = self.0.iter().sum();
        // The values at two places in ascending order, which are one place where the number is odd.
        let (lower, upper) = (total.saturating_sub(1) / 2, total / 2);
        f32::from(self.value_at(lower)).midpoint(f32::from(self.value_at(upper)))
    }

    /// The value at a place in ascending order.
    fn value_at(&self, place: u64) -> u16 {
        let mut passed = 0;
        let value = self.0.iter().position(|count| {
            passed += count;
            passed > place
        });
        value.map_or(0, |value| value as u16)
    }
}

/// Values that were computed once. Clones share them. Beyond a number of values it forgets all.
#[derive(Debug)]
pub(crate) struct Remembered<K, V>(Arc<Mutex<HashMap<K, V>>>);

impl<K, V> Clone for Remembered<K, V> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<K, V> Default for Remembered<K, V> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<K: Eq + Hash, V: Clone> Remembered<K, V> {
    pub fn get(&self, key: &K) -> Option<V> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
    }

    pub fn insert(&self, key: K, value: V) {
        let mut values = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if values.len() >= MAX_REMEMBERED {
            values.clear();
        }
        values.insert(key, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_are_the_values_in_the_middle() {
        let median = |values: &[u16]| Histogram::of_values(values).median();
        assert_eq!(median(&[3, 1, 2]), 2.0);
        assert_eq!(median(&[7]), 7.0);
        assert_eq!(median(&[4, 1, 2, 65535]), 3.0);
        assert_eq!(median(&[1, 2]), 1.5);
        assert_eq!(median(&[0, 0, 0, 5]), 0.0);
        let mut both = Histogram::of_values(&[1_u8, 2]);
        both.add(&Histogram::of_values(&[9_u16]));
        assert_eq!(both.median(), 2.0);
    }

    #[test]
    fn extents_add_up() {
        assert_eq!(Extent::of_values(&[5_u8, 3, 9]), Extent { min: 3, max: 9 });
        assert_eq!(Extent::of_values(&[5_u16]).and(Extent::EMPTY), Extent { min: 5, max: 5 });
        assert_eq!(Extent::of_values::<u8>(&[]), Extent::EMPTY);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let remembered = Remembered::default();
        for key in 0..=MAX_REMEMBERED {
            remembered.insert(key, key);
        }
        assert_eq!((remembered.get(&0), remembered.get(&MAX_REMEMBERED)), (None, Some(MAX_REMEMBERED)));
        assert_eq!(remembered.0.lock().unwrap().len(), 1);
    }
}
