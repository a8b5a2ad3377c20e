//! The nearest of some points within a distance.

use std::collections::HashMap;

/// Points of one frame, found by their places. Cells of the grid are as large as the distance that is asked for.
pub(crate) struct Grid {
    edge: f64,
    cells: HashMap<[i64; 3], Vec<u32>>,
    points: Vec<[f64; 3]>,
}

impl Grid {
    /// No points; questions will be for distances up to `edge`, which is positive.
    pub fn new(edge: f64) -> Self {
        Self { edge, cells: HashMap::new(), points: Vec::new() }
    }

    fn cell(&self, point: [f64; 3]) -> [i64; 3] {
        // Saturates for places that no microscope has.
        point.map(|value| (value / self.edge).floor() as i64)
    }

    /// Adds a point, whose index is the number of those before it.
    pub fn push(&mut self, point: [f64; 3]) {
        let cell = self.cell(point);
        self.cells.entry(cell).or_default().push(self.points.len() as u32);
        self.points.push(point);
    }

    /// The points that are nearer than `distance`, with the squares of their distances, in no particular order.
    pub fn within(&self, point: [f64; 3], distance: f64) -> Vec<(f64, usize)> {
        let center = self.cell(point);
        let mut found = Vec::new();
        for offset in 0..27_i64 {
            let steps = [offset / 9 - 1, offset / 3 % 3 - 1, offset % 3 - 1];
            let cell = std::array::from_fn(|d| center[d].saturating_add(steps[d]));
            for &index in self.cells.get(&cell).into_iter().flatten() {
                let other = self.points[index as usize];
                let square: f64 = (0..3).map(|d| (other[d] - point[d]).powi(2)).sum();
                if square < distance * distance {
                    found.push((square, index as usize));
                }
            }
        }
        found
    }

    /// The nearest point that is nearer than `distance`; of several, the first one.
    pub fn nearest(&self, point: [f64; 3], distance: f64) -> Option<usize> {
        let nearest = self.within(point, distance).into_iter().min_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        nearest.map(|(_, index)| index)
    }
}

/// Pairs of points of two lists that are nearer than `reach(index of the first)`, each in one pair at most, the nearest pairs
/// first. For each of the first list the index of its partner.
pub(crate) fn pair(first: &[[f64; 3]], second: &[[f64; 3]], reach: impl Fn(usize) -> f64) -> Vec<Option<usize>> {
    let longest = (0..first.len()).map(&reach).fold(0.0, f64::max);
    let mut partners = vec![None; first.len()];
    if longest <= 0.0 {
        return partners;
    }
    let mut grid = Grid::new(longest);
    for point in second {
        grid.push(*point);
    }
    let mut pairs: Vec<(f64, usize, usize)> = Vec::new();
    for (index, point) in first.iter().enumerate() {
        pairs.extend(grid.within(*point, reach(index)).into_iter().map(|(square, other)| (square, index, other)));
    }
    pairs.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)).then(a.2.cmp(&b.2)));
    let mut is_taken = vec![false; second.len()];
    for (_, index, other) in pairs {
        if partners[index].is_none() && !is_taken[other] {
            (partners[index], is_taken[other]) = (Some(other), true);
        }
    }
    partners
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn points() -> impl Strategy<Value = Vec<[f64; 3]>> {
        proptest::collection::vec(proptest::array::uniform3(-10.0..10.0_f64), 0..40)
    }

    proptest! {
        #[test]
        fn the_nearest_is_that_of_all(points in points(), at in proptest::array::uniform3(-10.0..10.0_f64)) {
            let mut grid = Grid::new(3.0);
            for point in &points {
                grid.push(*point);
            }
            let square = |point: &[f64; 3]| (0..3).map(|d| (point[d] - at[d]).powi(2)).sum::<f64>();
            let best = (0..points.len()).min_by(|&a, &b| square(&points[a]).total_cmp(&square(&points[b])));
            prop_assert_eq!(grid.nearest(at, 3.0), best.filter(|&best| square(&points[best]) < 9.0));
        }

        #[test]
        fn each_point_is_in_one_pair(first in points(), second in points()) {
            let partners = pair(&first, &second, |_| 4.0);
            let mut taken: Vec<usize> = partners.iter().copied().flatten().collect();
            let count = taken.len();
            taken.sort_unstable();
            taken.dedup();
            prop_assert_eq!(taken.len(), count);
        }
    }

    #[test]
    fn the_nearest_pairs_come_first() {
        let first = [[0.0, 0.0, 0.0], [0.0, 0.0, 2.0]];
        let second = [[0.0, 0.0, 1.9], [0.0, 0.0, 9.0]];
        assert_eq!(pair(&first, &second, |_| 3.0), [None, Some(0)]);
        assert_eq!(pair(&first, &second, |_| 0.0), [None, None]);
    }
}
