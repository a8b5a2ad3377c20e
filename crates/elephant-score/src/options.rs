//! Options of scoring.

use serde::{Deserialize, Serialize};

use crate::ScoreError;

/// How near the centres of two spots must be to be the same cell.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MatchRadius {
    /// So many times the geometric mean radius of the reference's spot.
    Relative(f64),
    /// So many micrometres.
    Micrometres(f64),
}

/// Links that skip frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Gaps {
    /// Cells are interpolated in the skipped frames, linearly, so that a closed gap counts as found.
    Interpolate,
    /// Cells of the skipped frames are missing; the track ends, and its only child goes on.
    Keep,
}

/// Options of scoring.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ScoreOptions {
    /// How near spots must be; of no use for label images.
    pub radius: MatchRadius,
    /// Links of spots that skip frames; of no use for label images, which have gaps as they are.
    pub gaps: Gaps,
    /// Whether spots of the result without any link are left out.
    pub drop_unlinked: bool,
    /// By how many frames a division may be early or late and is still not listed as a mistake.
    pub division_tolerance: u32,
}

impl Default for ScoreOptions {
    /// One radius, interpolated gaps, all spots, one frame.
    fn default() -> Self {
        Self {
            radius: MatchRadius::Relative(1.0),
            gaps: Gaps::Interpolate,
            drop_unlinked: false,
            division_tolerance: 1,
        }
    }
}

impl ScoreOptions {
    /// Checks that the options make sense.
    ///
    /// # Errors
    /// [`ScoreError::InvalidOption`] for a radius that is not a positive number.
    pub fn validate(&self) -> Result<(), ScoreError> {
        let (MatchRadius::Relative(radius) | MatchRadius::Micrometres(radius)) = self.radius;
        if radius.is_finite() && radius > 0.0 {
            return Ok(());
        }
        Err(ScoreError::InvalidOption {
            name: "radius",
            value: radius.to_string(),
            rule: "it must be a positive number",
        })
    }
}
