//! A grid that finds neighbouring points without comparing all pairs.

use std::collections::HashMap;

use crate::vector::Vector;

/// Points, sorted into cubes.
pub(crate) struct Grid {
    edge: f64,
    cubes: HashMap<[i64; 3], Vec<usize>>,
}

impl Grid {
    /// A grid that finds points up to `reach` apart, which is above 0.
    pub(crate) fn new(points: &[Vector], reach: f64) -> Self {
        // A little longer, so that rounding never puts two such points into cubes that do not touch.
        let mut grid = Self { edge: reach * (1.0 + 1e-9), cubes: HashMap::new() };
        for (index, &point) in points.iter().enumerate() {
            grid.cubes.entry(grid.cube(point)).or_default().push(index);
        }
        grid
    }

    /// Replaces `near` by the indices of all points within reach of `position`, and of some others, in ascending order.
    pub(crate) fn find(&self, position: Vector, near: &mut Vec<usize>) {
        near.clear();
        let [z, y, x] = self.cube(position);
        for z in z - 1..=z + 1 {
            for y in y - 1..=y + 1 {
                for x in x - 1..=x + 1 {
                    near.extend(self.cubes.get(&[z, y, x]).into_iter().flatten());
                }
            }
        }
        near.sort_unstable();
    }

    fn cube(&self, position: Vector) -> [i64; 3] {
        // Halved, so that the neighbours' numbers do not overflow however far away a position is.
        position.map(|along| ((along / self.edge).floor() as i64).clamp(i64::MIN / 2, i64::MAX / 2))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        rng::Rng,
        vector::{norm, scale, sub},
    };

    #[test]
    fn all_points_within_reach_are_found() {
        for seed in 0..40 {
            let mut rng = Rng::stream(seed, &[0]);
            let reach = rng.uniform(0.01, 20.0);
            let points: Vec<Vector> = (0..60).map(|_| scale(rng.in_ball(), 15.0)).collect();
            let grid = Grid::new(&points, reach);
            let mut near = Vec::new();
            for position in &points {
                grid.find(*position, &mut near);
                assert!(near.is_sorted());
                for (index, point) in points.iter().enumerate() {
                    assert!(norm(sub(*point, *position)) > reach || near.contains(&index));
                }
            }
        }
    }
}
