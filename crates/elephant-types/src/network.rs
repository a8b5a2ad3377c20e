//! Properties of networks: their purpose, their numerical rules, their number of dimensions, and how they pool.

use serde::{Deserialize, Serialize};

/// Which rules to compute by; see `docs/numerics.md` for the rules and the size of each difference.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Numerics {
    /// The original server's numbers, with its mistakes.
    Original,
    /// The original's method with its mistakes corrected.
    #[default]
    Corrected,
}

/// Whether the network convolves in three dimensions, or in two and sees each z-plane on its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum NetworkKind {
    /// 3-D convolutions.
    #[serde(rename = "3d")]
    Volumetric,
    /// 2-D convolutions, plane by plane.
    #[serde(rename = "2d")]
    Planar,
}

impl NetworkKind {
    /// `3-D` or `2-D`.
    pub fn dims(self) -> &'static str {
        match self {
            Self::Volumetric => "3-D",
            Self::Planar => "2-D",
        }
    }
}

/// What a network computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NetworkTask {
    /// Classes of voxels: background, border and centre of cells.
    Detection,
    /// Displacement of each voxel's cell between two frames.
    Flow,
}

/// What a network computes, in how many dimensions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NetworkType {
    /// What it computes.
    pub task: NetworkTask,
    /// Its dimensions.
    pub kind: NetworkKind,
}

impl NetworkType {
    /// A detection network.
    pub fn detection(kind: NetworkKind) -> Self {
        Self { task: NetworkTask::Detection, kind }
    }

    /// A flow network.
    pub fn flow(kind: NetworkKind) -> Self {
        Self { task: NetworkTask::Flow, kind }
    }
}

/// `3-D detection`.
impl std::fmt::Display for NetworkType {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let task = match self.task {
            NetworkTask::Detection => "detection",
            NetworkTask::Flow => "flow",
        };
        write!(formatter, "{} {task}", self.kind.dims())
    }
}

/// The pooling levels that leave z alone, for anisotropic voxels: for each of the four levels of a network, whether z keeps
/// its size there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct KeepAxials(pub [bool; 4]);

impl KeepAxials {
    /// The first `n` levels keep z. Numbers outside 0 to 4 are clipped, as clients send −1 to 5 (docs/protocol.md,
    /// `n_keep_axials`).
    pub fn first(n: i64) -> Self {
        Self(std::array::from_fn(|level| (level as i64) < n))
    }

    /// What clients choose for voxels that are `anisotropy` times as long along z as along x: z is pooled once voxels
    /// have become about as long along x (docs/protocol.md, `n_keep_axials`).
    pub fn for_anisotropy(anisotropy: f64) -> Self {
        Self::first([2.0, 3.0, 6.0, 12.0].into_iter().filter(|&bound| anisotropy >= bound).count() as i64)
    }

    /// How many levels keep z.
    pub fn count(self) -> u32 {
        self.0.into_iter().filter(|keeps| *keeps).count() as u32
    }

    /// The displacements along (z, y, x) in voxels that an output of 1 of a flow network stands for, when the largest one in
    /// the plane is `max_displacement` voxels: less along z by a factor of two for each level that keeps z (docs/method.md,
    /// "Flow network").
    pub fn flow_norm(self, max_displacement: f64) -> [f64; 3] {
        [max_displacement / f64::from(1 << self.count()), max_displacement, max_displacement]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keep_axials_are_clipped() {
        assert_eq!(KeepAxials::first(-1), KeepAxials([false; 4]));
        assert_eq!(KeepAxials::first(2), KeepAxials([true, true, false, false]));
        assert_eq!(KeepAxials::first(5), KeepAxials([true; 4]));
    }

    #[test]
    fn displacements_along_z_are_scaled_by_the_levels_that_keep_z() {
        assert_eq!(KeepAxials::first(-1).flow_norm(80.0), [80.0; 3]);
        assert_eq!(KeepAxials::first(2).flow_norm(20.0), [5.0, 20.0, 20.0]);
    }

    #[test]
    fn keep_axials_follow_the_anisotropy_as_clients_have_it() {
        let cases =
            [(0.3, 0), (1.0, 0), (1.8, 0), (2.0, 1), (2.9, 1), (3.0, 2), (5.0, 2), (6.0, 3), (11.1, 3), (12.0, 4)];
        for (anisotropy, n) in cases {
            assert_eq!(KeepAxials::for_anisotropy(anisotropy), KeepAxials::first(n), "{anisotropy}");
        }
    }
}
