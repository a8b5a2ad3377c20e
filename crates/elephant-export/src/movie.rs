//! What is exported, and what an import returns.

use elephant_image::Dims;
use elephant_types::{Lineage, Link, Spot, SpotId, VoxelSize};

use crate::ExportError;

/// A movie whose cells are tracked.
#[derive(Clone, Copy, Debug)]
pub struct TrackedMovie<'a> {
    /// The movie's name, for programs that show one.
    pub name: &'a str,
    /// All spots; their index is their [`SpotId`].
    pub spots: &'a [Spot],
    /// How they are linked.
    pub lineage: &'a Lineage,
    /// Voxel edges.
    pub voxel_size: VoxelSize,
    /// Size (t, z, y, x); one plane in 2-D.
    pub shape: [usize; 4],
    /// 3-D, or 2-D: z is left out where the format allows it.
    pub dims: Dims,
    /// The spots' names, one for each; without them they are called by their numbers.
    pub names: Option<&'a [Box<str>]>,
    /// A tag for each spot; empty for none.
    pub tags: Option<&'a [Box<str>]>,
    /// For each spot the score of the link that ends there; NaN for none.
    pub link_scores: Option<&'a [f64]>,
}

impl TrackedMovie<'_> {
    /// Checks that all parts describe the same spots.
    ///
    /// # Errors
    /// [`ExportError::InvalidMovie`] for lists of different lengths, [`ExportError::InvalidSpot`] for a spot whose numbers
    /// are not finite, whose timepoint is not in the movie or is another one in the lineage.
    pub fn check(&self) -> Result<(), ExportError> {
        let count = self.spots.len();
        let lengths = [
            ("the lineage", self.lineage.len()),
            ("the list of names", self.names.map_or(count, <[_]>::len)),
            ("the list of tags", self.tags.map_or(count, <[_]>::len)),
            ("the list of scores", self.link_scores.map_or(count, <[_]>::len)),
        ];
        for (what, length) in lengths {
            if length != count {
                return Err(ExportError::InvalidMovie(format!("{what} has {length} entries for {count} spots")));
            }
        }
        for (id, spot) in self.numbered() {
            let invalid = |reason| Err(ExportError::InvalidSpot { spot: id, t: spot.t, reason });
            if self.lineage.timepoint(id) as usize != spot.t {
                return invalid("has another timepoint in the lineage");
            }
            if spot.t >= self.shape[0] {
                return invalid("is behind the last timepoint");
            }
            if !spot.covariance_um2.iter().flatten().chain(&spot.center_um).all(|number| number.is_finite()) {
                return invalid("has a position or covariance that is not finite");
            }
        }
        Ok(())
    }

    /// The spots with their numbers.
    pub(crate) fn numbered(&self) -> impl Iterator<Item = (SpotId, &Spot)> {
        self.lineage.spots().zip(self.spots)
    }

    /// The name of a spot.
    pub(crate) fn name_of(&self, spot: SpotId) -> std::borrow::Cow<'_, str> {
        match self.names {
            Some(names) => (&*names[spot.index()]).into(),
            None => spot.to_string().into(),
        }
    }

    /// The score of a link, if it has one.
    pub(crate) fn score_of(&self, link: Link) -> Option<f64> {
        self.link_scores.map(|scores| scores[link.target.index()]).filter(|score| score.is_finite())
    }

    /// The spots of each timepoint.
    pub(crate) fn by_timepoint(&self) -> Vec<Vec<SpotId>> {
        let mut frames = vec![Vec::new(); self.shape[0]];
        for (id, spot) in self.numbered() {
            frames[spot.t].push(id);
        }
        frames
    }
}

/// The radius in micrometres of the ball, or in 2-D the disc over (y, x), that is as large as a spot's ellipsoid; 0 for one
/// without size.
pub(crate) fn mean_radius_um(covariance: &[[f64; 3]; 3], dims: Dims) -> f64 {
    let [[a, b, c], [_, d, e], [_, _, f]] = *covariance;
    let squared_volume = match dims {
        Dims::TwoD => (d * f - e * e).max(0.0).sqrt(),
        Dims::ThreeD => (a * (d * f - e * e) - b * (b * f - e * c) + c * (b * e - d * c)).max(0.0).cbrt(),
    };
    squared_volume.sqrt()
}

/// Spots and lineage from a file of another program.
#[derive(Clone, Debug)]
pub struct ImportedMovie {
    /// All spots; their index is their [`SpotId`].
    pub spots: Vec<Spot>,
    /// How they are linked.
    pub lineage: Lineage,
    /// The number of each spot in the file: its track in CTC, its node in GEFF.
    pub numbers: Vec<u64>,
    /// Voxel edges, if the file has them.
    pub voxel_size: Option<VoxelSize>,
    /// Size (t, z, y, x), if the file has it; one plane in 2-D.
    pub shape: Option<[usize; 4]>,
    /// 3-D or 2-D.
    pub dims: Dims,
}
