//! What is tracked, and the properties of single spots.

use elephant_types::Spot;

use crate::{TrackError, kdtree::KdTree};

/// The spots of a movie.
#[derive(Clone, Copy, Debug, Default)]
pub struct Detections<'a> {
    /// The spots in any order. Their indices are their numbers ([`SpotId`](elephant_types::SpotId)).
    pub spots: &'a [Spot],
    /// For each spot the mean intensity around its centre (3 × 3 × 3 voxels or so) minus the background of its frame, on any linear
    /// scale. They are compared as ratios, after division by the median of the frame, so bleaching does no harm. Values below 3 %
    /// of the median count as 3 %.
    pub intensities: Option<&'a [f64]>,
    /// For each spot its place at the previous timepoint minus its place, (z, y, x) in µm, for example from a flow network. If
    /// there are none, the motion is estimated from the tracks themselves.
    pub displacements: Option<&'a [[f64; 3]]>,
    /// The numbers by which the caller knows the spots; errors name spots by them. Without them, the indices.
    pub numbers: Option<&'a [u64]>,
}

impl Detections<'_> {
    /// The number by which the caller knows a spot.
    pub(super) fn number(&self, spot: u32) -> u64 {
        self.numbers.and_then(|numbers| numbers.get(spot as usize).copied()).unwrap_or(spot.into())
    }
}

/// The spots of one timepoint.
pub struct Frame {
    pub time: u32,
    /// Numbers of the spots, ascending.
    pub spots: Vec<u32>,
    /// Their positions.
    pub positions: Vec<[f64; 3]>,
}

/// Checked detections, and what is compared of each.
pub struct Scene<'a> {
    pub detections: Detections<'a>,
    /// The timepoints that have spots, ascending.
    pub frames: Vec<Frame>,
    /// For each spot the index of its frame, and its place there.
    pub places: Vec<(u32, u32)>,
    /// Logarithm of the radius in µm of the ball with the spot's volume.
    pub log_radius: Vec<f64>,
    /// Logarithm of intensity over the median of the frame; 0 if there are no intensities.
    pub light: Vec<f64>,
    /// Quality minus the movie's median.
    pub quality: Vec<f64>,
    /// Distance to the nearest spot of the frame over the typical radius, at most 10, and that spot.
    pub crowd: Vec<(f64, Option<u32>)>,
    /// Median radius in µm.
    pub radius: f64,
}

/// Positions and radii must be below this, in µm.
const FARTHEST: f64 = 1e9;

impl<'a> Scene<'a> {
    pub fn new(detections: Detections<'a>) -> Result<Self, TrackError> {
        let spots = detections.spots;
        if spots.len() > elephant_types::Lineage::MOST_SPOTS as usize {
            return Err(elephant_types::LineageError::TooManySpots { most: elephant_types::Lineage::MOST_SPOTS }.into());
        }
        for (what, length) in [
            ("intensities", detections.intensities.map(<[_]>::len)),
            ("displacements", detections.displacements.map(<[_]>::len)),
            ("numbers", detections.numbers.map(<[_]>::len)),
        ] {
            if let Some(length) = length.filter(|&length| length != spots.len()) {
                return Err(TrackError::UnequalLengths { what, length, spots: spots.len() });
            }
        }
        for index in 0..spots.len() {
            check(&detections, index)?;
        }
        let log_radius: Vec<f64> = spots.iter().map(log_radius).collect();
        let mut order: Vec<u32> = (0..spots.len() as u32).collect();
        order.sort_by_key(|&spot| (spots[spot as usize].t, spot));
        let frames: Vec<Frame> = order
            .chunk_by(|&a, &b| spots[a as usize].t == spots[b as usize].t)
            .map(|members| Frame {
                time: spots[members[0] as usize].t as u32,
                spots: members.to_vec(),
                positions: members.iter().map(|&spot| spots[spot as usize].center_um).collect(),
            })
            .collect();
        let mut places = vec![(0, 0); spots.len()];
        for (index, frame) in (0..).zip(&frames) {
            for (place, &spot) in (0..).zip(&frame.spots) {
                places[spot as usize] = (index, place);
            }
        }
        let radius = median(log_radius.clone()).unwrap_or(0.0).exp();
        let light = light(&detections, &frames);
        let qualities: Vec<f64> = spots.iter().map(|spot| spot.quality).collect();
        let middle = median(qualities.clone()).unwrap_or(0.0);
        let quality = qualities.into_iter().map(|quality| (quality - middle).clamp(-1.0, 1.0)).collect();
        let crowd = crowd(&frames, spots.len(), radius);
        Ok(Self { detections, frames, places, log_radius, light, quality, crowd, radius })
    }

    pub fn len(&self) -> usize {
        self.detections.spots.len()
    }

    pub fn position(&self, spot: u32) -> [f64; 3] {
        self.detections.spots[spot as usize].center_um
    }

    pub fn time(&self, spot: u32) -> u32 {
        self.frames[self.places[spot as usize].0 as usize].time
    }

    /// The index of the frame with this time, if it has spots.
    pub fn frame_at(&self, time: u32) -> Option<usize> {
        self.frames.binary_search_by_key(&time, |frame| frame.time).ok()
    }
}

fn check(detections: &Detections<'_>, index: usize) -> Result<(), TrackError> {
    let invalid = |reason| Err(TrackError::InvalidSpot { spot: detections.number(index as u32), reason });
    let spot = &detections.spots[index];
    if u32::try_from(spot.t).is_err() {
        return invalid("its timepoint must be below 2^32");
    }
    if !spot.center_um.iter().all(|value| value.abs() < FARTHEST) {
        return invalid("its position must be finite and below 1e9 µm");
    }
    let covariance = spot.covariance_um2.as_flattened();
    if !covariance.iter().all(|value| value.abs() < FARTHEST) || trace(spot) <= 0.0 {
        return invalid("its covariance must be finite, with a positive trace");
    }
    if !spot.quality.is_finite() {
        return invalid("its quality must be finite");
    }
    if detections.intensities.is_some_and(|values| !values[index].is_finite()) {
        return invalid("its intensity must be finite");
    }
    if detections.displacements.is_some_and(|values| !values[index].iter().all(|value| value.abs() < FARTHEST)) {
        return invalid("its displacement must be finite and below 1e9 µm");
    }
    Ok(())
}

fn trace(spot: &Spot) -> f64 {
    (0..3).map(|axis| spot.covariance_um2[axis][axis]).sum()
}

/// From the determinant of the covariance; from its trace if the ellipsoid is flat.
fn log_radius(spot: &Spot) -> f64 {
    let [[a, b, c], [d, e, f], [g, h, i]] = spot.covariance_um2;
    let determinant = a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g);
    let mean = trace(spot) / 3.0;
    if determinant > 1e-6 * mean.powi(3) { determinant.ln() / 6.0 } else { mean.ln() / 2.0 }
}

fn light(detections: &Detections<'_>, frames: &[Frame]) -> Vec<f64> {
    let mut light = vec![0.0; detections.spots.len()];
    let Some(intensities) = detections.intensities else { return light };
    for frame in frames {
        let values = frame.spots.iter().map(|&spot| intensities[spot as usize]).collect();
        let middle = median(values).unwrap_or(0.0);
        if middle > 0.0 {
            for &spot in &frame.spots {
                light[spot as usize] = (intensities[spot as usize] / middle).max(0.03).ln().min(5.0);
            }
        }
    }
    light
}

fn crowd(frames: &[Frame], count: usize, radius: f64) -> Vec<(f64, Option<u32>)> {
    let mut crowd = vec![(10.0, None); count];
    for frame in frames {
        let tree = KdTree::new(&frame.positions);
        for (place, &spot) in (0_u32..).zip(&frame.spots) {
            let hits = tree.nearest(frame.positions[place as usize], 2, 10.0 * radius);
            if let Some(&(distance, other)) = hits.iter().find(|hit| hit.1 != place) {
                crowd[spot as usize] = (distance.sqrt() / radius, Some(frame.spots[other as usize]));
            }
        }
    }
    crowd
}

/// The middle value (the upper one of two).
pub fn median(mut values: Vec<f64>) -> Option<f64> {
    if values.is_empty() {
        return None;
    }
    let middle = values.len() / 2;
    Some(*values.select_nth_unstable_by(middle, f64::total_cmp).1)
}
