//! A detected or annotated cell.

use serde::{Deserialize, Serialize};

/// An ellipsoidal cell at one timepoint.
///
/// The ellipsoid that Mastodon draws has semi-axes equal to the square roots of the covariance's eigenvalues, along its
/// eigenvectors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spot {
    /// Timepoint, from 0.
    pub t: usize,
    /// Centre (z, y, x) in micrometres; the centre of voxel 0 is at 0.
    pub center_um: [f64; 3],
    /// Covariance over (z, y, x) in square micrometres; symmetric.
    pub covariance_um2: [[f64; 3]; 3],
    /// Mean probability of the class "cell centre" over the component the spot was made from, 0 to 1.
    pub quality: f64,
}
