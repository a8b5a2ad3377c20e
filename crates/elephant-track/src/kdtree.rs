//! Nearest points by a k-d tree.
//!
//! Small on purpose: unlike the trees of the usual libraries it takes any number of points with equal coordinates (all spots of
//! a plane have the same z), and equal distances are ordered by the points' numbers.

/// Points in space, numbered in the order they were given.
pub struct KdTree<'a> {
    points: &'a [[f64; 3]],
    /// The points' numbers; each range of them has its splitting point in the middle.
    order: Vec<u32>,
    axes: Vec<u8>,
}

/// A found point: its squared distance and number.
pub type Hit = (f64, u32);

impl<'a> KdTree<'a> {
    /// The tree of some points; coordinates must be finite.
    pub fn new(points: &'a [[f64; 3]]) -> Self {
        let mut order: Vec<u32> = (0..points.len() as u32).collect();
        let mut axes = vec![0; points.len()];
        split(points, &mut order, &mut axes);
        Self { points, order, axes }
    }

    /// The `most` nearest points within `radius` of `place`, ordered by distance and then by number.
    pub fn nearest(&self, place: [f64; 3], most: usize, radius: f64) -> Vec<Hit> {
        let mut hits = Vec::with_capacity(most.min(self.points.len()) + 1);
        if most > 0 {
            self.descend(place, most, radius * radius, 0, self.order.len(), &mut hits);
        }
        hits
    }

    fn descend(&self, place: [f64; 3], most: usize, limit: f64, begin: usize, end: usize, hits: &mut Vec<Hit>) {
        if begin >= end {
            return;
        }
        let middle = begin + (end - begin) / 2;
        let number = self.order[middle];
        let point = self.points[number as usize];
        let hit = (squared_distance(place, point), number);
        if hit.0 <= limit && (hits.len() < most || is_before(&hit, &hits[hits.len() - 1])) {
            let at = hits.partition_point(|other| is_before(other, &hit));
            hits.insert(at, hit);
            hits.truncate(most);
        }
        let axis = usize::from(self.axes[middle]);
        let offset = place[axis] - point[axis];
        let (near, far) =
            if offset < 0.0 { ((begin, middle), (middle + 1, end)) } else { ((middle + 1, end), (begin, middle)) };
        self.descend(place, most, limit, near.0, near.1, hits);
        let reach = if hits.len() < most { limit } else { limit.min(hits[hits.len() - 1].0) };
        if offset * offset <= reach {
            self.descend(place, most, limit, far.0, far.1, hits);
        }
    }
}

fn split(points: &[[f64; 3]], order: &mut [u32], axes: &mut [u8]) {
    if order.len() < 2 {
        return;
    }
    let extent = |axis: usize| {
        let bounds = order.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), &number| {
            let value = points[number as usize][axis];
            (low.min(value), high.max(value))
        });
        bounds.1 - bounds.0
    };
    let extents = [extent(0), extent(1), extent(2)];
    let axis = (1..3).fold(0, |best, axis| if extents[axis] > extents[best] { axis } else { best });
    let middle = order.len() / 2;
    order.select_nth_unstable_by(middle, |&a, &b| {
        points[a as usize][axis].total_cmp(&points[b as usize][axis]).then(a.cmp(&b))
    });
    axes[middle] = axis as u8;
    let (low, high) = order.split_at_mut(middle);
    let (low_axes, high_axes) = axes.split_at_mut(middle);
    split(points, low, low_axes);
    split(points, &mut high[1..], &mut high_axes[1..]);
}

fn is_before(a: &Hit, b: &Hit) -> bool {
    a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)).is_lt()
}

/// Squared Euclidean distance.
pub fn squared_distance(a: [f64; 3], b: [f64; 3]) -> f64 {
    (0..3).map(|axis| (a[axis] - b[axis]).powi(2)).sum()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn hits_are_those_of_a_full_search(
            points in prop::collection::vec(prop::array::uniform3(0_u8..6), 0..60),
            place in prop::array::uniform3(0_u8..6), most in 0_usize..9, radius in 0_u8..5,
        ) {
            // Small whole numbers, so that equal coordinates and equal distances are common.
            let points: Vec<[f64; 3]> = points.into_iter().map(|point| point.map(f64::from)).collect();
            let (place, radius) = (place.map(f64::from), f64::from(radius));
            let mut expected: Vec<Hit> =
                (0..).zip(&points).map(|(number, &point)| (squared_distance(place, point), number)).collect();
            expected.retain(|hit| hit.0 <= radius * radius);
            expected.sort_by(|a, b| a.partial_cmp(b).unwrap());
            expected.truncate(most);
            prop_assert_eq!(KdTree::new(&points).nearest(place, most, radius), expected);
        }
    }

    #[test]
    fn a_thousand_points_in_one_place_are_no_problem() {
        let points = vec![[1.0; 3]; 1000];
        let hits = KdTree::new(&points).nearest([1.0; 3], 3, 0.0);
        assert_eq!(hits, [(0.0, 0), (0.0, 1), (0.0, 2)]);
    }
}
