//! Fitted costs.

use std::sync::OnceLock;

use elephant_types::Spot;
use serde::{Deserialize, Serialize};

use super::{
    detections::{Detections, Scene},
    features::{Kind, Rivals, Sink, View},
    motion::Motion,
};
use crate::TrackError;

/// What a cost is made of: the weights of the features of each kind of variable. Made by [`fit`](crate::fit).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Weights {
    /// How they were fitted.
    pub origin: String,
    /// Weights of the cost of taking a spot as real.
    pub spot: Vec<f64>,
    /// Weights of the cost of a track's beginning.
    pub appearance: Vec<f64>,
    /// Weights of the cost of a track's end.
    pub disappearance: Vec<f64>,
    /// Weights of the cost of a link.
    pub link: Vec<f64>,
    /// Weights of the cost of a division.
    pub division: Vec<f64>,
    /// Slope and offset of the logistic function that turns the distance in cost to the best alternative of a link into its score.
    pub score: [f64; 2],
}

impl Weights {
    /// The weights that ship with the program.
    pub fn builtin() -> &'static Self {
        static BUILTIN: OnceLock<Weights> = OnceLock::new();
        BUILTIN.get_or_init(|| {
            let parsed = serde_json::from_str(include_str!("weights.json"));
            parsed.expect("the file is part of the program, and a test reads it")
        })
    }

    pub(crate) fn zero() -> Self {
        let zeros = |kind| vec![0.0; feature_count(kind)];
        Self {
            origin: String::new(),
            spot: zeros(Kind::Spot),
            appearance: zeros(Kind::Appearance),
            disappearance: zeros(Kind::Disappearance),
            link: zeros(Kind::Link),
            division: zeros(Kind::Division),
            score: [1.0, 0.0],
        }
    }

    pub(crate) fn of(&self, kind: Kind) -> &[f64] {
        match kind {
            Kind::Spot => &self.spot,
            Kind::Appearance => &self.appearance,
            Kind::Disappearance => &self.disappearance,
            Kind::Link => &self.link,
            Kind::Division => &self.division,
        }
    }

    pub(crate) fn of_mut(&mut self, kind: Kind) -> &mut [f64] {
        match kind {
            Kind::Spot => &mut self.spot,
            Kind::Appearance => &mut self.appearance,
            Kind::Disappearance => &mut self.disappearance,
            Kind::Link => &mut self.link,
            Kind::Division => &mut self.division,
        }
    }

    /// Checks lengths and values.
    ///
    /// # Errors
    /// [`TrackError::InvalidWeights`].
    pub fn validate(&self) -> Result<(), TrackError> {
        for kind in Kind::ALL {
            let (found, expected) = (self.of(kind), feature_count(kind));
            if found.len() != expected {
                let found = found.len();
                let reason =
                    format!("there are {found} of the kind {kind:?}, but {expected} are needed; fit them again");
                return Err(TrackError::InvalidWeights { reason });
            }
            if !found.iter().all(|weight| weight.abs() <= 1e6) {
                let reason = format!("one of the kind {kind:?} is not a number or above 1e6; fit them again");
                return Err(TrackError::InvalidWeights { reason });
            }
        }
        if !self.score.iter().all(|value| value.is_finite()) {
            return Err(TrackError::InvalidWeights { reason: "the score must have finite numbers".to_owned() });
        }
        Ok(())
    }
}

struct Count(usize);

impl Sink for Count {
    fn push(&mut self, _: f64) {
        self.0 += 1;
    }
}

/// The number of features of a kind, counted on a scene of three spots.
pub fn feature_count(kind: Kind) -> usize {
    static COUNTS: OnceLock<[usize; 5]> = OnceLock::new();
    let counts = COUNTS.get_or_init(|| {
        let spot = |t: usize, x: f64| Spot {
            t,
            center_um: [0.0, 0.0, x],
            covariance_um2: [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]],
            quality: 1.0,
        };
        let spots = [spot(0, 0.0), spot(1, 0.0), spot(1, 2.0)];
        let detections = Detections { spots: &spots, ..Detections::default() };
        let scene = Scene::new(detections).expect("the spots are valid");
        let motion = Motion::start(&scene);
        let view = View { scene: &scene, motion: &motion };
        Kind::ALL.map(|kind| {
            let mut count = Count(0);
            match kind {
                Kind::Spot => view.spot(0, [None; 2], &mut count),
                Kind::Appearance | Kind::Disappearance => view.end(0, 0, &mut count),
                Kind::Link => view.link(0, 1, &Rivals::default(), &mut count),
                Kind::Division => view.division(0, [1, 2], [None; 2], &[Rivals::default(); 2], &mut count),
            }
            count.0
        })
    });
    counts[kind as usize]
}
