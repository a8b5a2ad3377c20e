//! Spots and links as projects have them.

use std::fmt;

use elephant_types::{Spot, SpotTag};
use serde::{Deserialize, Serialize};

/// Number of a spot in its project. It stays the same for the life of the spot and is not used again.
///
/// The project numbers spots from 1. Clients may choose numbers from [`FIRST_OF_CLIENTS`](Self::FIRST_OF_CLIENTS) on, at
/// random. All are exact as JSON numbers in JavaScript.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SpotKey(pub u64);

impl SpotKey {
    /// The first number that clients may choose.
    pub const FIRST_OF_CLIENTS: Self = Self(1 << 52);
    /// The largest number.
    pub const MAX: Self = Self((1 << 53) - 1);

    /// Whether a client may give this number to a new spot.
    pub fn is_of_clients(self) -> bool {
        (Self::FIRST_OF_CLIENTS..=Self::MAX).contains(&self)
    }
}

impl fmt::Display for SpotKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// A closed set of names, stored as a byte and shown as a word.
macro_rules! named_set {
    ($(#[$doc:meta])* $type:ident { $($(#[$variant_doc:meta])* $variant:ident = $number:literal $name:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum $type {
            $($(#[$variant_doc])* #[serde(rename = $name)] $variant = $number,)+
        }

        impl $type {
            /// All of them, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// Its name.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name),+ }
            }

            /// The one with this number.
            pub fn from_number(number: u8) -> Option<Self> {
                Self::ALL.iter().copied().find(|one| *one as u8 == number)
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(self.as_str())
            }
        }
    };
}

named_set! {
    /// What a person says about a detection, by the ELEPHANT client's names.
    DetectionTag {
        /// Nobody has said anything.
        #[default]
        Unlabeled = 0 "unlabeled",
        /// A cell that was found.
        TruePositive = 1 "tp",
        /// No cell, but one was found.
        FalsePositive = 2 "fp",
        /// No cell, and none was found.
        TrueNegative = 3 "tn",
        /// A cell that was not found.
        FalseNegative = 4 "fn",
        /// The border between cells.
        TrueBorder = 5 "tb",
        /// The border between cells, where none was found.
        FalseBorder = 6 "fb",
    }
}

impl DetectionTag {
    /// Whether the spot is a cell as far as is known: it is not tagged as background or border.
    pub fn is_cell(self) -> bool {
        matches!(self, Self::Unlabeled | Self::TruePositive | Self::FalseNegative)
    }
}

impl From<SpotTag> for DetectionTag {
    fn from(tag: SpotTag) -> Self {
        match tag {
            SpotTag::TruePositive => Self::TruePositive,
            SpotTag::FalsePositive => Self::FalsePositive,
            SpotTag::TrueNegative => Self::TrueNegative,
            SpotTag::FalseNegative => Self::FalseNegative,
            SpotTag::TrueBorder => Self::TrueBorder,
            SpotTag::FalseBorder => Self::FalseBorder,
        }
    }
}

impl From<DetectionTag> for Option<SpotTag> {
    fn from(tag: DetectionTag) -> Self {
        Some(match tag {
            DetectionTag::Unlabeled => return None,
            DetectionTag::TruePositive => SpotTag::TruePositive,
            DetectionTag::FalsePositive => SpotTag::FalsePositive,
            DetectionTag::TrueNegative => SpotTag::TrueNegative,
            DetectionTag::FalseNegative => SpotTag::FalseNegative,
            DetectionTag::TrueBorder => SpotTag::TrueBorder,
            DetectionTag::FalseBorder => SpotTag::FalseBorder,
        })
    }
}

named_set! {
    /// Whether a person has approved that a spot belongs to its track.
    TrackingTag {
        /// Nobody has said anything.
        #[default]
        Unlabeled = 0 "unlabeled",
        /// It has to be there; a new prediction does not remove it.
        Approved = 1 "approved",
    }
}

named_set! {
    /// What is known of a link.
    LinkState {
        /// A program or a person has made it, and nobody has said anything about it.
        #[default]
        Unlabeled = 0 "unlabeled",
        /// A person says that the two spots are the same cell, or mother and daughter.
        Approved = 1 "approved",
        /// A person says that they are not. The link is no part of the lineage.
        Rejected = 2 "rejected",
    }
}

/// A spot of a project.
#[derive(Clone, Debug, PartialEq)]
pub struct ProjectSpot {
    /// Its number.
    pub key: SpotKey,
    /// Timepoint, centre, covariance and quality.
    pub spot: Spot,
    /// What a person says about the detection.
    pub detection: DetectionTag,
    /// Whether a person has approved the spot for tracking.
    pub tracking: TrackingTag,
    /// Bits for programs: [`ProjectSpot::INTERPOLATED`]; others are kept and have no meaning here.
    pub flags: u16,
    /// Who made it: an index into [`View::authors`](crate::View::authors).
    pub author: u32,
    /// The sequence number of the last entry that changed it.
    pub changed: u64,
}

impl ProjectSpot {
    /// Flag of a spot that no program has seen: it fills a gap between two that were.
    pub const INTERPOLATED: u16 = 1;
}

/// A link of a project.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProjectLink {
    /// The earlier spot.
    pub source: SpotKey,
    /// The later spot.
    pub target: SpotKey,
    /// What is known of it.
    pub state: LinkState,
    /// How probable it is, 0 to 1, where a program says so.
    pub score: Option<f32>,
}
