//! Vectors as the client sends them: in x, y, z order, three numbers or two in 2-D (contract section 1.1).

use elephant_types::VoxelSize;

use crate::{number::Integer, problem::Problem};

/// Three numbers, or two for 2-D data, in x, y, z order.
pub(crate) type Xyz<T> = Vec<T>;

/// The field `scales`; voxels of edge length 1 when it is absent.
pub(crate) fn voxel_size(scales: Option<&[f64]>) -> Result<VoxelSize, Problem> {
    let zyx = match scales {
        None => [1.0; 3],
        Some(&[x, y, z]) => [z, y, x],
        Some(&[x, y]) => [1.0, y, x],
        Some(_) => return Err(Problem::bad_request("scales must have 3 numbers (x, y, z)")),
    };
    VoxelSize::new(zyx).map_err(|error| {
        Problem::bad_request(format!("scales: {error}")).in_short("scales must be three positive numbers")
    })
}

/// Counts of voxels along (z, y, x) from `field`.
pub(crate) fn zyx_sizes(field: &str, xyz: &[Integer]) -> Result<[usize; 3], Problem> {
    let size = |value: Integer| {
        let size = value.to_usize();
        size.ok_or_else(|| Problem::bad_request(format!("{field}: every number must be 0 or more")))
    };
    match *xyz {
        [x, y, z] => Ok([size(z)?, size(y)?, size(x)?]),
        [x, y] => Ok([1, size(y)?, size(x)?]),
        _ => Err(Problem::bad_request(format!("{field} must have 3 numbers (x, y, z)"))),
    }
}
