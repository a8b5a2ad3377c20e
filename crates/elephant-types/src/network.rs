//! Properties of networks: their numerical rules, their number of dimensions, and how they pool.

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
    fn keep_axials_follow_the_anisotropy_as_clients_have_it() {
        let cases =
            [(0.3, 0), (1.0, 0), (1.8, 0), (2.0, 1), (2.9, 1), (3.0, 2), (5.0, 2), (6.0, 3), (11.1, 3), (12.0, 4)];
        for (anisotropy, n) in cases {
            assert_eq!(KeepAxials::for_anisotropy(anisotropy), KeepAxials::first(n), "{anisotropy}");
        }
    }
}
