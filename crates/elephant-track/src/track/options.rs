//! Options of tracking, and what is given.

use elephant_types::{Link, SpotId};
use serde::{Deserialize, Serialize};

use super::weights::Weights;
use crate::{SolveOptions, TrackError};

/// How spots are linked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TrackMethod {
    /// One global optimum over all frames.
    #[default]
    Optimal,
    /// The nearest spot of the previous frame, as the ELEPHANT client links.
    Nearest,
}

/// Options of [`track`](crate::track()). Added costs are in units of log likelihood ratios: 2.3 makes something ten times less likely.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrackOptions {
    /// How spots are linked.
    pub method: TrackMethod,
    /// The largest number of timepoints from a spot to the next one of its cell, 1 to 3. 3 closes gaps of two missed detections.
    pub max_gap: u32,
    /// Whether cells divide.
    pub divisions: bool,
    /// Tracks with fewer spots, without mother or daughters, are dropped. At least 1.
    pub min_length: usize,
    /// Most candidates for each spot and gap, 1 to 32.
    pub candidates: usize,
    /// Radius of the search, in standard deviations of the motion that is not expected.
    pub gate: f64,
    /// How many times the tracks are computed; each time the motion and the noise are taken from the tracks before. 1 to 5.
    pub passes: usize,
    /// Added to the cost of every spot: a positive value drops more.
    pub spot_cost: f64,
    /// Added to the cost of a track that begins after the first timepoint.
    pub appearance_cost: f64,
    /// Added to the cost of a track that ends before the last timepoint.
    pub disappearance_cost: f64,
    /// Added to the cost of every link.
    pub link_cost: f64,
    /// Added to the cost of a link for each timepoint it skips.
    pub gap_cost: f64,
    /// Added to the cost of every division.
    pub division_cost: f64,
    /// Weight of a spot's quality (0 to 1) beside what is fitted: the cost falls by this much from quality 0 to quality 1.
    pub quality_weight: f64,
    /// The fitted costs; those that ship with the program if there are none. See [`fit`](crate::fit).
    pub weights: Option<Weights>,
    /// Options of the solver.
    pub solver: SolveOptions,
    /// Options of [`TrackMethod::Nearest`].
    pub nearest: NearestOptions,
}

impl Default for TrackOptions {
    fn default() -> Self {
        Self {
            method: TrackMethod::Optimal,
            max_gap: 3,
            divisions: true,
            min_length: 2,
            candidates: 8,
            gate: 6.0,
            passes: 3,
            spot_cost: 0.0,
            appearance_cost: 0.0,
            disappearance_cost: 0.0,
            link_cost: 0.0,
            gap_cost: 0.0,
            division_cost: 0.0,
            quality_weight: 0.0,
            weights: None,
            solver: SolveOptions::default(),
            nearest: NearestOptions::default(),
        }
    }
}

/// Options of the client's linking (`docs/protocol.md`), with its defaults.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NearestOptions {
    /// Largest distance in µm.
    pub threshold_um: f64,
    /// How many of the nearest spots are tried, 1 to 32.
    pub neighbours: usize,
    /// Most daughters of a spot, 1 to 8.
    pub max_edges: usize,
    /// How many timepoints back a parent is looked for, 1 to 8.
    pub depth: u32,
}

impl Default for NearestOptions {
    fn default() -> Self {
        Self { threshold_um: 5.0, neighbours: 3, max_edges: 2, depth: 1 }
    }
}

impl TrackOptions {
    /// Checks all ranges.
    ///
    /// # Errors
    /// [`TrackError::InvalidOption`] for the first value outside its range, and [`TrackError::InvalidWeights`].
    pub fn validate(&self) -> Result<(), TrackError> {
        let whole = |name, value: usize, least: usize, most: usize, range| {
            let valid = (least..=most).contains(&value);
            if valid { Ok(()) } else { Err(TrackError::InvalidOption { name, value: value as f64, range }) }
        };
        let number = |name, value: f64, least: f64, most: f64, range| {
            let valid = value >= least && value <= most;
            if valid { Ok(()) } else { Err(TrackError::InvalidOption { name, value, range }) }
        };
        whole("max_gap", self.max_gap as usize, 1, 3, "1 to 3")?;
        whole("min_length", self.min_length, 1, usize::MAX, "at least 1")?;
        whole("candidates", self.candidates, 1, 32, "1 to 32")?;
        whole("passes", self.passes, 1, 5, "1 to 5")?;
        number("gate", self.gate, 0.5, 100.0, "0.5 to 100")?;
        for (name, value) in [
            ("spot_cost", self.spot_cost),
            ("appearance_cost", self.appearance_cost),
            ("disappearance_cost", self.disappearance_cost),
            ("link_cost", self.link_cost),
            ("gap_cost", self.gap_cost),
            ("division_cost", self.division_cost),
            ("quality_weight", self.quality_weight),
        ] {
            number(name, value, -1000.0, 1000.0, "-1000 to 1000")?;
        }
        number("nearest.threshold_um", self.nearest.threshold_um, 0.0, 1e6, "0 to 1e6")?;
        whole("nearest.neighbours", self.nearest.neighbours, 1, 32, "1 to 32")?;
        whole("nearest.max_edges", self.nearest.max_edges, 1, 8, "1 to 8")?;
        whole("nearest.depth", self.nearest.depth as usize, 1, 8, "1 to 8")?;
        self.solver.validate()?;
        self.weights.as_ref().map_or(Ok(()), Weights::validate)
    }
}

/// What a person has decided: the solution obeys it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Constraints {
    /// Links that must be in the solution. Two from one spot are a division. They may skip any number of timepoints.
    pub links: Vec<Link>,
    /// Links that must not be in it.
    pub forbidden: Vec<Link>,
    /// Spots that are real cells.
    pub required: Vec<SpotId>,
    /// Spots that are not.
    pub excluded: Vec<SpotId>,
}
