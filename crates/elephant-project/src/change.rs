//! Changes: what the log consists of.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

use crate::{DetectionTag, LinkState, SpotKey, TrackingTag};

/// A symmetric 3 × 3 matrix over (z, y, x): zz, zy, zx, yy, yx, xx. In JSON it is the whole matrix.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Covariance(pub [f64; 6]);

impl Covariance {
    /// The upper triangle of a matrix; the lower one is not looked at.
    pub fn of([z, y, x]: [[f64; 3]; 3]) -> Self {
        Self([z[0], z[1], z[2], y[1], y[2], x[2]])
    }

    /// The whole matrix.
    pub fn matrix(self) -> [[f64; 3]; 3] {
        let [zz, zy, zx, yy, yx, xx] = self.0;
        [[zz, zy, zx], [zy, yy, yx], [zx, yx, xx]]
    }

    /// Whether it can be that of an ellipsoid: finite, and with no negative variance along z, y, x or between them.
    pub fn is_valid(self) -> bool {
        const LARGEST_UM2: f64 = 1e18;
        let [zz, zy, zx, yy, yx, xx] = self.0;
        let pairs = [(zz, yy, zy), (zz, xx, zx), (yy, xx, yx)];
        // A matrix of rank 1 or 2 has been rounded.
        let fits = |(a, b, ab): (f64, f64, f64)| ab * ab <= a * b * (1.0 + 1e-6);
        self.0.iter().all(|value| value.is_finite() && value.abs() <= LARGEST_UM2)
            && [zz, yy, xx].iter().all(|&variance| variance >= 0.0)
            && pairs.into_iter().all(fits)
    }
}

impl Serialize for Covariance {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.matrix().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Covariance {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let matrix = <[[f64; 3]; 3]>::deserialize(deserializer)?;
        let covariance = Self::of(matrix);
        let is_close = |a: f64, b: f64| (a - b).abs() <= 1e-6 * a.abs().max(b.abs());
        let is_symmetric = (0..3).all(|row| (0..row).all(|column| is_close(matrix[row][column], matrix[column][row])));
        if is_symmetric && covariance.is_valid() {
            return Ok(covariance);
        }
        Err(D::Error::custom("the covariance must be symmetric and positive, (z, y, x) in square micrometres"))
    }
}

/// A spot, complete.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SpotRecord {
    /// Its number.
    pub key: SpotKey,
    /// Timepoint, from 0.
    pub t: u32,
    /// Centre (z, y, x) in micrometres.
    pub center_um: [f64; 3],
    /// Covariance over (z, y, x) in square micrometres.
    pub covariance_um2: Covariance,
    /// How sure a program is that it is a cell, 0 to 1.
    pub quality: f64,
    /// What a person says about the detection.
    pub detection: DetectionTag,
    /// Whether a person has approved it.
    pub tracking: TrackingTag,
    /// Bits for programs.
    pub flags: u16,
    /// Who made it: the author of the log's entries who was the first, second, … to appear, from 0.
    pub author: u32,
}

/// A link, complete.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinkRecord {
    /// The earlier spot.
    pub source: SpotKey,
    /// The later spot.
    pub target: SpotKey,
    /// What is known of it.
    pub state: LinkState,
    /// How probable it is, 0 to 1, where a program says so.
    pub score: Option<f32>,
    /// Who made it, as in [`SpotRecord::author`].
    pub author: u32,
}

/// One change of a project, with the old value and the new.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// There is a new spot.
    SpotAdded(SpotRecord),
    /// A spot, which had this content and no links, is gone.
    SpotRemoved(SpotRecord),
    /// A spot has another centre (z, y, x) in micrometres.
    Moved {
        /// The spot.
        key: SpotKey,
        /// The old centre.
        from: [f64; 3],
        /// The new centre.
        to: [f64; 3],
    },
    /// A spot has another covariance (z, y, x) in square micrometres.
    Resized {
        /// The spot.
        key: SpotKey,
        /// The old covariance.
        from: Covariance,
        /// The new covariance.
        to: Covariance,
    },
    /// A spot has another detection tag.
    DetectionTagged {
        /// The spot.
        key: SpotKey,
        /// The old tag.
        from: DetectionTag,
        /// The new tag.
        to: DetectionTag,
    },
    /// A spot has another tracking tag.
    TrackingTagged {
        /// The spot.
        key: SpotKey,
        /// The old tag.
        from: TrackingTag,
        /// The new tag.
        to: TrackingTag,
    },
    /// There is a new link.
    LinkAdded(LinkRecord),
    /// A link, which had this content, is gone.
    LinkRemoved(LinkRecord),
    /// A link has another state.
    LinkMarked {
        /// The earlier spot.
        source: SpotKey,
        /// The later spot.
        target: SpotKey,
        /// The old state.
        from: LinkState,
        /// The new state.
        to: LinkState,
    },
    /// A link has another score.
    LinkScored {
        /// The earlier spot.
        source: SpotKey,
        /// The later spot.
        target: SpotKey,
        /// The old score.
        from: Option<f32>,
        /// The new score.
        to: Option<f32>,
    },
}

impl Change {
    /// The change that takes this one back.
    #[must_use]
    pub fn inverse(self) -> Self {
        match self {
            Self::SpotAdded(record) => Self::SpotRemoved(record),
            Self::SpotRemoved(record) => Self::SpotAdded(record),
            Self::Moved { key, from, to } => Self::Moved { key, from: to, to: from },
            Self::Resized { key, from, to } => Self::Resized { key, from: to, to: from },
            Self::DetectionTagged { key, from, to } => Self::DetectionTagged { key, from: to, to: from },
            Self::TrackingTagged { key, from, to } => Self::TrackingTagged { key, from: to, to: from },
            Self::LinkAdded(record) => Self::LinkRemoved(record),
            Self::LinkRemoved(record) => Self::LinkAdded(record),
            Self::LinkMarked { source, target, from, to } => Self::LinkMarked { source, target, from: to, to: from },
            Self::LinkScored { source, target, from, to } => Self::LinkScored { source, target, from: to, to: from },
        }
    }

    /// What it changes: a spot, or the link from the first to the second.
    pub(crate) fn subject(&self) -> (SpotKey, Option<SpotKey>) {
        match self {
            Self::SpotAdded(record) | Self::SpotRemoved(record) => (record.key, None),
            Self::Moved { key, .. }
            | Self::Resized { key, .. }
            | Self::DetectionTagged { key, .. }
            | Self::TrackingTagged { key, .. } => (*key, None),
            Self::LinkAdded(record) | Self::LinkRemoved(record) => (record.source, Some(record.target)),
            Self::LinkMarked { source, target, .. } | Self::LinkScored { source, target, .. } => {
                (*source, Some(*target))
            }
        }
    }
}
