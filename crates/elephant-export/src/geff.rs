//! The graph exchange file format, GEFF 1 (<https://liveimagetrackingtools.org/geff>): a graph as a folder of Zarr arrays.

mod read;
mod write;

pub use read::read_geff;
pub use write::write_geff;

/// The name of the group's attribute that makes it a GEFF.
const KEY: &str = "geff";
/// The node properties that this program writes.
const COVARIANCE: &str = "covariance";
const RADIUS: &str = "radius";
const SCORE: &str = "score";
