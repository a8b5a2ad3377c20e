//! What the costs of spots, links, divisions, appearances and disappearances are made of.
//!
//! Each property becomes some ramps: functions that rise from 0 to 1 between two values. A cost is a weighted sum of them, so it is a
//! piecewise linear function of each property, and constant where there were no examples.

use super::{detections::Scene, motion::Motion};

/// Kinds of variables with weights of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Spot,
    Appearance,
    Disappearance,
    Link,
    Division,
}

impl Kind {
    pub const ALL: [Self; 5] = [Self::Spot, Self::Appearance, Self::Disappearance, Self::Link, Self::Division];
}

/// Receives the features of one variable: sums weights, or stores them.
pub trait Sink {
    fn push(&mut self, value: f64);
}

/// The cost: the sum of weights times features.
pub struct Cost<'a> {
    weights: std::slice::Iter<'a, f64>,
    pub sum: f64,
}

impl<'a> Cost<'a> {
    pub fn new(weights: &'a [f64]) -> Self {
        Self { weights: weights.iter(), sum: 0.0 }
    }
}

impl Sink for Cost<'_> {
    fn push(&mut self, value: f64) {
        self.sum += self.weights.next().copied().unwrap_or(0.0) * value;
    }
}

impl Sink for Vec<f32> {
    fn push(&mut self, value: f64) {
        Self::push(self, value as f32);
    }
}

/// Features between each two of the ascending `knots`.
fn ramps(value: f64, knots: &[f64], sink: &mut impl Sink) {
    for pair in knots.windows(2) {
        sink.push(((value - pair[0]) / (pair[1] - pair[0])).clamp(0.0, 1.0));
    }
}

const LIGHT: &[f64] = &[-3.0, -2.0, -1.5, -1.1, -0.8, -0.5, -0.25, 0.0, 0.3, 0.7, 1.2];
const SIZE: &[f64] = &[-0.8, -0.6, -0.45, -0.3, -0.2, -0.1, 0.0, 0.1, 0.2, 0.35, 0.6];
const SIGMAS: &[f64] = &[0.0, 0.7, 1.4, 2.2, 3.0, 4.0, 6.0];

/// A scene with its motion, whose features are computed.
#[derive(Clone, Copy)]
pub struct View<'a> {
    pub scene: &'a Scene<'a>,
    pub motion: &'a Motion,
}

/// What is known of a link or a mother's daughter beside its two spots.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rivals {
    /// How many other targets are nearer to the expected place of the source.
    pub rank_at_source: u32,
    /// How many other sources are expected nearer to the target.
    pub rank_at_target: u32,
    /// Distance of the nearest other target from the expected place of the source, µm; infinite without one.
    pub other_target: f64,
    /// Distance to the target of the nearest other source's expected place, µm; infinite without one.
    pub other_source: f64,
}

impl View<'_> {
    /// A constant, and what the constant depends on: the noise of the movie.
    fn context(&self, sink: &mut impl Sink) {
        sink.push(1.0);
        sink.push((self.motion.scale / self.scene.radius).max(1e-3).ln() + 1.5);
        sink.push((10.0 * self.motion.gap_rate).min(3.0));
        sink.push((10.0 * self.motion.dropped_rate).min(3.0));
        sink.push(f64::from(u8::from(self.scene.detections.intensities.is_none())));
    }

    fn size(&self, spot: u32) -> f64 {
        self.scene.log_radius[spot as usize] - self.scene.radius.ln()
    }

    fn light(&self, spot: u32) -> f64 {
        self.scene.light[spot as usize]
    }

    /// `near`: distances in µm from the expected places in the previous and next frame to the nearest spots there.
    pub fn spot(&self, spot: u32, near: [Option<f64>; 2], sink: &mut impl Sink) {
        self.context(sink);
        ramps(self.light(spot), LIGHT, sink);
        ramps(self.size(spot), SIZE, sink);
        let (gap, neighbour) = self.scene.crowd[spot as usize];
        ramps(gap, &[0.3, 0.7, 1.0, 1.2, 1.4, 1.6, 1.8, 2.2, 3.0], sink);
        let beside = neighbour.filter(|_| gap < 1.75);
        let darker = beside.map_or(-9.0, |other| self.light(other) - self.light(spot));
        ramps(darker, &[-9.0, -1.0, -0.4, 0.0, 0.4, 1.0, 2.0], sink);
        ramps(beside.map_or(0.0, |other| (self.size(other) - self.size(spot)).abs()), &[0.0, 0.1, 0.25, 0.5], sink);
        sink.push(self.scene.quality[spot as usize]);
        for knots in [[0.0, 1.5], [1.5, 3.0], [3.0, 4.5], [4.5, 7.0]] {
            let far = near.iter().map(|distance| {
                distance.map_or(0.0, |distance| {
                    ((distance / self.motion.scale - knots[0]) / (knots[1] - knots[0])).clamp(0.0, 1.0)
                })
            });
            sink.push(far.sum());
        }
    }

    /// `age`: 1 if the spot is in the second frame of the movie or in the last but one, where a missing detection before or
    /// after looks like this.
    pub fn end(&self, spot: u32, age: u32, sink: &mut impl Sink) {
        self.context(sink);
        sink.push(f64::from(u8::from(age == 1)));
        ramps(self.light(spot), &[-3.0, -1.5, -0.8, -0.4, 0.0, 0.5, 1.2], sink);
        ramps(self.size(spot), &[-0.6, -0.4, -0.2, 0.0, 0.3], sink);
        ramps(self.scene.crowd[spot as usize].0, &[0.7, 1.2, 1.6, 2.0, 3.0], sink);
    }

    pub fn link(&self, source: u32, target: u32, rivals: &Rivals, sink: &mut impl Sink) {
        let steps = self.scene.time(target) - self.scene.time(source);
        self.context(sink);
        sink.push(f64::from(u8::from(steps == 2)));
        sink.push(f64::from(u8::from(steps >= 3)));
        let scale = self.motion.scale * f64::from(steps).sqrt();
        let offset = self.motion.offset(self.scene, source, target);
        let distance = norm(offset);
        ramps(distance / scale, &[0.0, 0.7, 1.2, 1.7, 2.2, 2.7, 3.3, 4.0, 5.0, 7.0, 10.0], sink);
        ramps(distance / self.scene.radius, &[0.0, 0.15, 0.3, 0.5, 0.75, 1.0, 1.4, 2.0, 3.0], sink);
        ramps(self.overlap_distance(offset, source, target), &[0.0, 0.2, 0.5, 0.8, 1.2, 2.0], sink);
        let growth = self.size(target) - self.size(source);
        ramps(growth.abs() / self.motion.size_noise, SIGMAS, sink);
        ramps(growth, &[-0.6, -0.4, -0.25, -0.12, 0.0, 0.12, 0.25, 0.4], sink);
        let lighter = self.light(target) - self.light(source);
        ramps(lighter.abs() / self.motion.light_noise, SIGMAS, sink);
        ramps(lighter, &[-2.0, -1.2, -0.7, -0.3, 0.0, 0.3, 0.7, 1.2, 2.0], sink);
        for rank in [rivals.rank_at_source, rivals.rank_at_target] {
            sink.push(f64::from(u8::from(rank == 1)));
            sink.push(f64::from(u8::from(rank >= 2)));
        }
        for other in [rivals.other_target, rivals.other_source] {
            ramps((other - distance) / scale, &[-4.0, -2.0, -1.0, 0.0, 1.0, 2.0, 4.0], sink);
        }
    }

    /// `next`: for each daughter the distance in µm to the nearest spot of the frame after hers; `None` if there is none.
    pub fn division(
        &self,
        mother: u32,
        daughters: [u32; 2],
        next: [Option<f64>; 2],
        rivals: &[Rivals; 2],
        sink: &mut impl Sink,
    ) {
        let time = self.scene.time(mother);
        let mut steps = daughters.map(|daughter| self.scene.time(daughter) - time);
        steps.sort_unstable();
        self.context(sink);
        sink.push(f64::from(u8::from(steps == [2, 2])));
        sink.push(f64::from(u8::from(steps == [1, 2])));
        let [a, b] = daughters.map(|daughter| self.motion.offset(self.scene, mother, daughter));
        let unit = self.scene.log_radius[mother as usize].exp().clamp(0.5 * self.scene.radius, 2.0 * self.scene.radius);
        let middle = norm([0, 1, 2].map(|axis| 0.5 * (a[axis] + b[axis])));
        let apart = norm([0, 1, 2].map(|axis| a[axis] - b[axis]));
        ramps(middle / unit, &[0.0, 0.1, 0.2, 0.3, 0.4, 0.55, 0.75, 1.0, 1.3], sink);
        ramps(middle / self.motion.scale, &[0.0, 0.7, 1.4, 2.1, 3.0, 5.0], sink);
        ramps(apart / unit, &[0.6, 1.0, 1.2, 1.4, 1.6, 1.8, 2.0, 2.3, 2.7, 3.3], sink);
        let cosine = (0..3).map(|axis| a[axis] * b[axis]).sum::<f64>() / (norm(a) * norm(b)).max(1e-9);
        ramps(cosine, &[-1.0, -0.95, -0.85, -0.7, -0.4, 0.0, 0.6], sink);
        ramps((norm(a) - norm(b)).abs() / unit, &[0.0, 0.2, 0.4, 0.7, 1.1], sink);
        let [size_a, size_b] = daughters.map(|daughter| self.size(daughter));
        ramps((size_a - size_b).abs() / self.motion.size_noise, SIGMAS, sink);
        ramps((size_a - size_b).abs(), &[0.0, 0.1, 0.2, 0.3, 0.5], sink);
        ramps(f64::midpoint(size_a, size_b) - self.size(mother), SIZE, sink);
        ramps(size_a.max(size_b), SIZE, sink);
        ramps(size_a.max(size_b) - self.size(mother), SIZE, sink);
        let [light_a, light_b] = daughters.map(|daughter| self.light(daughter));
        ramps((light_a - light_b).abs() / self.motion.light_noise, SIGMAS, sink);
        ramps((light_a - light_b).abs(), &[0.0, 0.15, 0.3, 0.5, 0.8, 1.3], sink);
        ramps(self.light(mother), LIGHT, sink);
        ramps(light_a.min(light_b), LIGHT, sink);
        ramps(light_a.min(light_b) - self.light(mother), &[-2.0, -1.2, -0.7, -0.4, -0.2, 0.0, 0.2, 0.5], sink);
        let farthest = next.iter().map(|distance| distance.map_or(0.0, |distance| distance / self.motion.scale));
        ramps(farthest.fold(0.0, f64::max), &[0.0, 1.5, 3.0, 4.5, 7.0], sink);
        let others = rivals.each_ref().map(|rivals| rivals.other_source.min(9.0 * self.scene.radius));
        for other in [others[0].min(others[1]), others[0].max(others[1])] {
            ramps(other / self.motion.scale, &[0.0, 1.0, 2.0, 3.0, 5.0, 8.0], sink);
            ramps(other / unit, &[0.0, 0.4, 0.8, 1.2, 1.7, 2.3], sink);
        }
    }

    /// Distance of the centres in units of the sum of the two ellipsoids: 0 if they coincide, about 1.4 if two equal balls are
    /// one diameter apart.
    fn overlap_distance(&self, offset: [f64; 3], source: u32, target: u32) -> f64 {
        let [a, b] = [source, target].map(|spot| &self.scene.detections.spots[spot as usize].covariance_um2);
        let floor = 1e-3 * self.scene.radius * self.scene.radius;
        let sum: [[f64; 3]; 3] = std::array::from_fn(|row| {
            std::array::from_fn(|column| a[row][column] + b[row][column] + if row == column { floor } else { 0.0 })
        });
        squared_mahalanobis(&sum, offset).max(0.0).sqrt().min(1e3)
    }
}

pub fn norm(vector: [f64; 3]) -> f64 {
    vector.iter().map(|value| value * value).sum::<f64>().sqrt()
}

/// `v · m⁻¹ v` by cofactors.
fn squared_mahalanobis(m: &[[f64; 3]; 3], v: [f64; 3]) -> f64 {
    let cofactor = |row: usize, column: usize| {
        let (r, s) = ((row + 1) % 3, (row + 2) % 3);
        let (c, d) = ((column + 1) % 3, (column + 2) % 3);
        m[r][c] * m[s][d] - m[r][d] * m[s][c]
    };
    let determinant: f64 = (0..3).map(|column| m[0][column] * cofactor(0, column)).sum();
    let form: f64 = (0..3).flat_map(|r| (0..3).map(move |c| (r, c))).map(|(r, c)| v[r] * cofactor(c, r) * v[c]).sum();
    if determinant > 0.0 { form / determinant } else { 1e6 }
}
