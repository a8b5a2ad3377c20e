//! Which voxels are neighbours.

/// Which voxels are neighbours: those that share at least a face, an edge or a corner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connectivity {
    /// A common face: 6 neighbours, 4 in a plane.
    Face,
    /// A common face or edge: 18 neighbours, 8 in a plane.
    Edge,
    /// A common face, edge or corner: 26 neighbours, 8 in a plane.
    Corner,
}

impl Connectivity {
    /// How far apart along x two voxels may be that are neighbours, in rows that are `steps` steps along y and z apart
    /// (1 or 2, one along each axis); `None` if voxels of such rows are never neighbours.
    pub(super) fn reach(self, steps: u32) -> Option<u32> {
        match (self, steps) {
            (Self::Corner, _) | (Self::Edge, 1) => Some(1),
            (Self::Edge, _) | (Self::Face, 1) => Some(0),
            (Self::Face, _) => None,
        }
    }

    /// The largest number of regions in a volume of this shape (z, y, x): every other voxel along each axis, or every
    /// other voxel at all.
    pub(super) fn most_regions(self, shape: [usize; 3]) -> u64 {
        let product =
            |edges: [usize; 3]| edges.iter().fold(1_u64, |product, &edge| product.saturating_mul(edge as u64));
        match self {
            Self::Corner => product(shape.map(|edge| edge.div_ceil(2))),
            Self::Face | Self::Edge => product(shape).div_ceil(2),
        }
    }
}
