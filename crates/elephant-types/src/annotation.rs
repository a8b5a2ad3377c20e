//! What a person says about cells: the tags from which labels are drawn.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// What a person says about a spot (docs/protocol.md, "POST /seg/update"; docs/method.md, "Detection labels").
///
/// "False" marks mistakes of the last prediction; training gives them more weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "&'static str")]
pub enum SpotTag {
    /// A cell that was found: border and centre.
    TruePositive,
    /// No cell, but one was found: background.
    FalsePositive,
    /// No cell, and none was found: background.
    TrueNegative,
    /// A cell that was not found: border and centre.
    FalseNegative,
    /// The border between cells.
    TrueBorder,
    /// The border between cells, where none was found.
    FalseBorder,
}

impl SpotTag {
    /// Every tag, in the order in which the original counts them.
    pub const ALL: [Self; 6] = [
        Self::TruePositive,
        Self::FalsePositive,
        Self::TrueNegative,
        Self::FalseNegative,
        Self::TrueBorder,
        Self::FalseBorder,
    ];

    /// The client's name of the tag.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TruePositive => "tp",
            Self::FalsePositive => "fp",
            Self::TrueNegative => "tn",
            Self::FalseNegative => "fn",
            Self::TrueBorder => "tb",
            Self::FalseBorder => "fb",
        }
    }

    /// Whether the tag corrects a mistake of the last prediction.
    pub fn is_correction(self) -> bool {
        matches!(self, Self::FalsePositive | Self::FalseNegative | Self::FalseBorder)
    }

    /// Whether the tag marks a cell, with a centre.
    pub fn is_cell(self) -> bool {
        matches!(self, Self::TruePositive | Self::FalseNegative)
    }
}

impl fmt::Display for SpotTag {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// A text that is not one of the six tags.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the tag {0:?} is not known; the tags are tp, fp, tn, fn, tb and fb")]
pub struct UnknownTag(String);

impl TryFrom<String> for SpotTag {
    type Error = UnknownTag;

    fn try_from(text: String) -> Result<Self, UnknownTag> {
        text.parse()
    }
}

impl From<SpotTag> for &'static str {
    fn from(tag: SpotTag) -> Self {
        tag.as_str()
    }
}

impl FromStr for SpotTag {
    type Err = UnknownTag;

    fn from_str(text: &str) -> Result<Self, UnknownTag> {
        const SHOWN_CHARS: usize = 40;
        let found = Self::ALL.into_iter().find(|tag| tag.as_str() == text);
        found.ok_or_else(|| UnknownTag(text.chars().take(SHOWN_CHARS).collect()))
    }
}

/// A spot that a person has tagged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaggedSpot {
    /// Timepoint, from 0.
    pub t: usize,
    /// Centre (z, y, x) in micrometres; the centre of voxel 0 is at 0.
    pub center_um: [f64; 3],
    /// Covariance over (z, y, x) in square micrometres; the ellipsoid's semi-axes are the square roots of its eigenvalues.
    pub covariance_um2: [[f64; 3]; 3],
    /// What the person says.
    pub tag: SpotTag,
    /// The name by which the person knows the spot.
    #[serde(default)]
    pub label: Box<str>,
}

/// A link between two spots that a person has approved, from which flow labels are drawn (docs/protocol.md, "POST
/// /flow/update").
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApprovedLink {
    /// Timepoint of the source, the earlier spot, from 0.
    pub t: usize,
    /// Timepoint of the target, where it is known; `None` stands for the timepoint after `t`.
    #[serde(default)]
    pub target_t: Option<usize>,
    /// Centre of the target (z, y, x) in micrometres; the centre of voxel 0 is at 0.
    pub center_um: [f64; 3],
    /// Covariance of the target over (z, y, x) in square micrometres.
    pub covariance_um2: [[f64; 3]; 3],
    /// From the target to the source (z, y, x) in micrometres.
    pub displacement_um: [f64; 3],
}

impl ApprovedLink {
    /// The timepoint of the target.
    pub fn target_timepoint(&self) -> usize {
        self.target_t.unwrap_or(self.t.saturating_add(1))
    }

    /// Centre of the source (z, y, x) in micrometres.
    pub fn source_um(&self) -> [f64; 3] {
        std::array::from_fn(|d| self.center_um[d] + self.displacement_um[d])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_read_by_the_clients_names() {
        for tag in SpotTag::ALL {
            assert_eq!(tag.as_str().parse(), Ok(tag));
        }
        for text in ["unlabeled", "TP", ""] {
            let error = text.parse::<SpotTag>().unwrap_err().to_string();
            assert!(error.contains(&format!("{text:?}")), "{error}");
        }
        assert!("x".repeat(1000).parse::<SpotTag>().unwrap_err().to_string().len() < 200);
    }
}
