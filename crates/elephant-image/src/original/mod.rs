//! Roundings of the original server and its libraries, to the last bit.
//!
//! Flat regions have an eigenvalue that is zero in exact arithmetic, and the original drops, keeps or corrects such a cell
//! according to the sign of what rounding leaves of that zero. Its answers can only be met by rounding alike: sums in the
//! order of NumPy's `dot` ([`mask`]), eigenvalues as LAPACK finds them ([`eigen`]).
//!
//! [`Numerics::Original`](elephant_types::Numerics::Original) alone finds cells this way. The eigenvalues serve
//! [`Ellipsoid`](crate::Ellipsoid) too, whose voxels are the original's under both numerics: with other roundings 61 of 7500
//! ellipsoids with round numbers, turned by 45°, had other voxels on their surfaces. All else uses [`crate::eigen`].

mod eigen;
mod mask;

pub(crate) use eigen::symmetric_eigen;
use mask::Mask;

use crate::{Region, shape::FLAT};

/// Eigenvalues in ascending order and eigenvectors (columns) of the second central moments of a region, for voxels with the
/// given `edges`; `exact` are these moments without rounding.
pub(crate) fn principal_axes<const N: usize>(
    region: &Region,
    edges: [f64; N],
    exact: [[f64; N]; N],
) -> ([f64; N], [[f64; N]; N]) {
    let (values, vectors) = symmetric_eigen(exact);
    if values[0] <= values[N - 1] * FLAT
        && let Some(rounded) = rounded_covariance(region, edges)
    {
        return symmetric_eigen(rounded);
    }
    (values, vectors)
}

/// The covariance as NumPy sums it in 3-D; `None` in 2-D, where it sums otherwise, and for regions that span too much.
fn rounded_covariance<const N: usize>(region: &Region, edges: [f64; N]) -> Option<[[f64; N]; N]> {
    let edges = edges.as_slice().try_into().ok()?;
    let covariance = Mask::new(region)?.covariance(edges);
    Some(std::array::from_fn(|a| std::array::from_fn(|b| covariance[a][b])))
}
