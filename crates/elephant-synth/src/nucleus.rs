//! One nucleus at one timepoint.

use crate::{
    rng::Rng,
    vector::{Rotation, Vector, dot, into_body, norm, scale, sub},
};

/// The size, shape and texture of a nucleus at one timepoint.
#[derive(Clone, Debug, PartialEq)]
pub struct Nucleus {
    /// Centre (z, y, x) in µm; the centre of voxel 0 is at 0.
    pub center_um: [f64; 3],
    /// Semi-axes in µm.
    pub semi_axes_um: [f64; 3],
    /// Directions of the semi-axes, as columns.
    pub(crate) rotation: Rotation,
    /// Fluorescence relative to the average nucleus.
    pub(crate) brightness: f64,
    /// How strongly the chromatin shows.
    pub(crate) contrast: f64,
    pub(crate) chromatin: Chromatin,
    pub(crate) surface: Surface,
}

/// How a nucleus differs from a smooth, filled ellipsoid.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Surface {
    /// Bulges and dents.
    pub(crate) bumps: Vec<Bump>,
    /// How much of the fluorescence is missing inside, 0 to 1: 1 leaves a shell.
    pub(crate) hollowness: f64,
}

/// A bulge or, where `height` is negative, a dent.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Bump {
    /// From the centre, of length 1, in coordinates relative to the semi-axes.
    pub(crate) direction: Vector,
    /// Relative to the distance of the ellipsoid's surface.
    pub(crate) height: f64,
}

impl Surface {
    /// The distance of the surface from the centre along `position`, relative to the ellipsoid's.
    fn distance(&self, position: Vector) -> f64 {
        let length = norm(position);
        if self.bumps.is_empty() || length < 1e-9 {
            return 1.0;
        }
        let along = scale(position, 1.0 / length);
        let bumps = self.bumps.iter().map(|bump| {
            let nearness = 0.5 + 0.5 * dot(bump.direction, along);
            bump.height * nearness.powi(4)
        });
        (1.0 + bumps.sum::<f64>()).max(0.4)
    }

    /// A bound on [`distance`](Self::distance).
    fn reach(&self) -> f64 {
        1.0 + self.bumps.iter().map(|bump| bump.height.max(0.0)).sum::<f64>()
    }

    /// Fluorescence relative to that of a filled nucleus, at a distance from the centre relative to the surface's.
    fn filling(&self, distance: f64) -> f64 {
        let inside = ((0.85 - distance) / 0.4).clamp(0.0, 1.0);
        1.0 - self.hollowness * inside
    }
}

/// Where DNA is dense or absent inside a nucleus. Coordinates and widths are relative to the semi-axes.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Chromatin {
    pub(crate) grains: Vec<Grain>,
}

/// A position with more, or less, DNA than around it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Grain {
    pub(crate) position: Vector,
    pub(crate) width: f64,
    pub(crate) amount: f64,
}

impl Chromatin {
    /// Bright grains of heterochromatin, and two nucleoli without DNA.
    pub(crate) fn draw(rng: &mut Rng) -> Self {
        let mut grains = Vec::new();
        for _ in 0..7 {
            let (position, width, amount) = (scale(rng.in_ball(), 0.8), rng.uniform(0.16, 0.34), rng.uniform(0.8, 2.0));
            grains.push(Grain { position, width, amount });
        }
        for _ in 0..2 {
            let (position, width, amount) =
                (scale(rng.in_ball(), 0.5), rng.uniform(0.2, 0.36), rng.uniform(-1.4, -0.8));
            grains.push(Grain { position, width, amount });
        }
        Self { grains }
    }

    /// DNA density relative to the average, at a position relative to the semi-axes.
    fn density(&self, position: Vector) -> f64 {
        let grains = self.grains.iter().map(|grain| {
            let away = sub(position, grain.position);
            let square = away.iter().map(|c| c * c).sum::<f64>() / (grain.width * grain.width);
            // A bell without an exponential function.
            grain.amount / ((1.0 + square) * (1.0 + square))
        });
        grains.sum()
    }
}

impl Nucleus {
    /// The matrix whose eigenvectors are the directions of the semi-axes and whose eigenvalues are their squares, over
    /// (z, y, x) in µm².
    pub fn covariance_um2(&self) -> [[f64; 3]; 3] {
        let entry = |a: usize, b: usize| {
            (0..3)
                .map(|k| self.rotation[a][k] * self.rotation[b][k] * self.semi_axes_um[k] * self.semi_axes_um[k])
                .sum()
        };
        std::array::from_fn(|a| std::array::from_fn(|b| entry(a.min(b), a.max(b))))
    }

    /// Half the size in µm of the box (z, y, x) around the ellipsoid.
    pub(crate) fn half_box_um(&self) -> Vector {
        let covariance = self.covariance_um2();
        std::array::from_fn(|axis| covariance[axis][axis].sqrt())
    }

    /// Where a point in µm lies relative to the semi-axes: the ellipsoid is where the length is below 1.
    pub(crate) fn relative(&self, point_um: Vector) -> Vector {
        let body = into_body(&self.rotation, sub(point_um, self.center_um));
        std::array::from_fn(|k| body[k] / self.semi_axes_um[k])
    }

    /// Half the size in µm of the box (z, y, x) outside which nothing of the nucleus shines.
    pub(crate) fn half_reach_um(&self) -> Vector {
        scale(self.half_box_um(), 1.1 * self.surface.reach())
    }

    /// Fluorescence at a position relative to the semi-axes.
    pub(crate) fn fluorescence(&self, position: Vector) -> f64 {
        let distance = norm(position) / self.surface.distance(position);
        let inside = ((1.06 - distance) / 0.12).clamp(0.0, 1.0);
        if inside == 0.0 {
            return 0.0;
        }
        let envelope = inside * inside * (3.0 - 2.0 * inside);
        envelope
            * self.surface.filling(distance)
            * self.brightness
            * (1.0 + self.contrast * self.chromatin.density(position)).max(0.1)
    }
}
