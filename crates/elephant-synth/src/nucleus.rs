//! One nucleus at one timepoint.

use crate::vector::{Rotation, Vector, into_body, sub};

/// A nucleus at one timepoint: an ellipsoid with a place in the lineage.
#[derive(Clone, Debug, PartialEq)]
pub struct Nucleus {
    /// Counts the nuclei of all timepoints from 0.
    pub id: usize,
    /// The track it belongs to, from 1; a division ends a track and starts two.
    pub track: u16,
    /// The `id` of the same nucleus, or its mother, one timepoint earlier.
    pub parent: Option<usize>,
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
}

/// Where DNA is dense or absent inside a nucleus. Coordinates and widths are relative to the semi-axes.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Chromatin {
    pub(crate) grains: Vec<Grain>,
}

/// A place with more, or less, DNA than around it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Grain {
    pub(crate) place: Vector,
    pub(crate) width: f64,
    pub(crate) amount: f64,
}

impl Chromatin {
    /// DNA density relative to the average, at a place relative to the semi-axes.
    fn density(&self, place: Vector) -> f64 {
        let grains = self.grains.iter().map(|grain| {
            let away = sub(place, grain.place);
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

    /// Fluorescence at a place relative to the semi-axes.
    pub(crate) fn fluorescence(&self, place: Vector) -> f64 {
        let distance = place.iter().map(|c| c * c).sum::<f64>().sqrt();
        let inside = ((1.06 - distance) / 0.12).clamp(0.0, 1.0);
        if inside == 0.0 {
            return 0.0;
        }
        let envelope = inside * inside * (3.0 - 2.0 * inside);
        envelope * self.brightness * (1.0 + self.contrast * self.chromatin.density(place)).max(0.1)
    }
}
