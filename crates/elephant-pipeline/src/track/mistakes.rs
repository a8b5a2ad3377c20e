//! Copies of true cells with the mistakes that detectors make, to learn from.

use elephant_types::{Lineage, LineageError, Link, SplitMix64, Spot, SpotId};

/// How often a detector is wrong.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Mistakes {
    /// Share of the cells that are missed, and of spurious ones that are added.
    pub(super) share: f64,
    /// Standard deviation of a cell's place along each axis, in its radii.
    pub(super) jitter: f64,
}

impl Mistakes {
    /// Those that examples are made with.
    pub(super) const ALL: [Self; 4] = [
        Self { share: 0.0, jitter: 0.0 },
        Self { share: 0.05, jitter: 0.06 },
        Self { share: 0.1, jitter: 0.0 },
        Self { share: 0.1, jitter: 0.29 },
    ];

    fn is_none(self) -> bool {
        self.share == 0.0 && self.jitter == 0.0
    }
}

/// Cells and their lineage. Spots are ordered by timepoint.
#[derive(Clone, Debug)]
pub(super) struct Truth {
    pub(super) spots: Vec<Spot>,
    pub(super) lineage: Lineage,
}

/// Standard deviation of the logarithm of a radius.
const RADIUS_NOISE: f64 = 0.08;
/// The same of spurious cells.
const SPURIOUS_RADIUS_NOISE: f64 = 0.2;
/// Distance of spurious cells from a cell, in its radii, for half of them. The others are anywhere between the cells.
const BESIDE: [f64; 2] = [0.8, 1.6];

impl Truth {
    /// The same without the links of spots that are not `kept`, whose cells are linked to their next kept ancestors.
    fn kept(&self, is_kept: impl Fn(SpotId) -> bool) -> Result<Self, LineageError> {
        let kept: Vec<SpotId> = self.lineage.spots().filter(|&spot| is_kept(spot)).collect();
        let ancestor = |spot| {
            std::iter::successors(self.lineage.parent(spot), |&at| self.lineage.parent(at)).find(|&at| is_kept(at))
        };
        let number = |spot| kept.binary_search(&spot).ok().map(|index| SpotId(index as u32));
        let links = kept.iter().zip(0..).filter_map(|(&spot, target)| {
            Some(Link { source: ancestor(spot).and_then(number)?, target: SpotId(target) })
        });
        let spots: Vec<Spot> = kept.iter().map(|spot| self.spots[spot.index()].clone()).collect();
        Ok(Self { lineage: Lineage::new(spots.iter().map(|spot| spot.t as u32).collect(), links)?, spots })
    }

    /// Every `step`th frame, with timepoints in a row.
    pub(super) fn every(&self, step: usize) -> Result<Self, LineageError> {
        let mut truth = self.kept(|spot| self.spots[spot.index()].t.is_multiple_of(step))?;
        truth.spots.iter_mut().for_each(|spot| spot.t /= step);
        let links: Vec<Link> = truth.lineage.links().collect();
        truth.lineage = Lineage::new(truth.spots.iter().map(|spot| spot.t as u32).collect(), links)?;
        Ok(truth)
    }

    /// What a detector with such mistakes would find. The same seed gives the same.
    pub(super) fn detected(&self, mistakes: Mistakes, seed: u64) -> Result<Self, LineageError> {
        if mistakes.is_none() {
            return Ok(self.clone());
        }
        let mut random = SplitMix64::new(seed);
        let found: Vec<bool> = self.spots.iter().map(|_| random.next_f64() >= mistakes.share).collect();
        let mut detected = self.kept(|spot| found[spot.index()])?;
        for spot in &mut detected.spots {
            let radius = radius(spot);
            for value in &mut spot.center_um {
                *value += mistakes.jitter * radius * normal(&mut random);
            }
            scale(spot, (RADIUS_NOISE * normal(&mut random)).exp());
        }
        let spurious: Vec<Spot> = self
            .spots
            .chunk_by(|a, b| a.t == b.t)
            .flat_map(|frame| Self::spurious(frame, mistakes.share, &mut random))
            .collect();
        detected.with(spurious)
    }

    fn spurious(frame: &[Spot], share: f64, random: &mut SplitMix64) -> Vec<Spot> {
        let mut radii: Vec<f64> = frame.iter().map(radius).collect();
        radii.sort_by(f64::total_cmp);
        let middle = radii[radii.len() / 2];
        let mut spots = Vec::new();
        for cell in frame {
            if random.next_f64() >= share {
                continue;
            }
            let center_um = if random.next_f64() < 0.5 {
                let direction = [0; 3].map(|_| normal(random));
                let length = direction.iter().map(|value| value * value).sum::<f64>().sqrt().max(1e-9);
                let distance = radius(cell) * (BESIDE[0] + (BESIDE[1] - BESIDE[0]) * random.next_f64());
                std::array::from_fn(|axis| cell.center_um[axis] + distance * direction[axis] / length)
            } else {
                std::array::from_fn(|axis| {
                    let values = || frame.iter().map(|spot| spot.center_um[axis]);
                    let (least, most) =
                        (values().fold(f64::INFINITY, f64::min), values().fold(f64::NEG_INFINITY, f64::max));
                    least + (most - least) * random.next_f64()
                })
            };
            let squared = (2.0 * SPURIOUS_RADIUS_NOISE * normal(random)).exp() * middle * middle;
            let covariance_um2 =
                std::array::from_fn(|row| std::array::from_fn(|column| if row == column { squared } else { 0.0 }));
            spots.push(Spot { center_um, covariance_um2, ..cell.clone() });
        }
        spots
    }

    /// The same with further spots, which have no links.
    fn with(self, more: Vec<Spot>) -> Result<Self, LineageError> {
        let mut all: Vec<(Spot, Option<SpotId>)> = self.spots.into_iter().zip(self.lineage.spots().map(Some)).collect();
        all.extend(more.into_iter().map(|spot| (spot, None)));
        all.sort_by_key(|(spot, number)| (spot.t, number.is_none()));
        let mut numbers = vec![SpotId(0); self.lineage.len()];
        for ((_, old), new) in all.iter().zip(0..) {
            if let Some(old) = old {
                numbers[old.index()] = SpotId(new);
            }
        }
        let renumbered =
            |link: Link| Link { source: numbers[link.source.index()], target: numbers[link.target.index()] };
        let lineage =
            Lineage::new(all.iter().map(|(spot, _)| spot.t as u32).collect(), self.lineage.links().map(renumbered))?;
        Ok(Self { spots: all.into_iter().map(|(spot, _)| spot).collect(), lineage })
    }
}

/// Root mean square of the semi-axes, in µm.
fn radius(spot: &Spot) -> f64 {
    ((0..3).map(|axis| spot.covariance_um2[axis][axis]).sum::<f64>() / 3.0).max(0.0).sqrt()
}

fn scale(spot: &mut Spot, factor: f64) {
    spot.covariance_um2.as_flattened_mut().iter_mut().for_each(|value| *value *= factor * factor);
}

/// A number with the standard normal distribution, nearly: the sum of twelve uniform ones.
fn normal(random: &mut SplitMix64) -> f64 {
    (0..12).map(|_| random.next_f64()).sum::<f64>() - 6.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spot(t: usize, x: f64) -> Spot {
        let covariance_um2 = [[9.0, 0.0, 0.0], [0.0, 9.0, 0.0], [0.0, 0.0, 9.0]];
        Spot { t, center_um: [0.0, 0.0, x], covariance_um2, quality: 1.0 }
    }

    /// A thousand cells for ten frames; the cell 0 divides at the end into 0 and one more.
    fn truth() -> Truth {
        let mut spots: Vec<Spot> = (0..10_000).map(|n| spot(n / 1000, 20.0 * (n % 1000) as f64)).collect();
        spots.push(spot(9, 5.0));
        let mut links: Vec<Link> =
            (1000..10_000).map(|n| Link { source: SpotId(n - 1000), target: SpotId(n) }).collect();
        links.push(Link { source: SpotId(8000), target: SpotId(10_000) });
        let lineage = Lineage::new(spots.iter().map(|spot| spot.t as u32).collect(), links).unwrap();
        Truth { spots, lineage }
    }

    #[test]
    fn mistakes_are_as_frequent_as_asked_for_and_links_go_over_missed_cells() {
        let truth = truth();
        let found = truth.detected(Mistakes { share: 0.1, jitter: 0.0 }, 5).unwrap();
        assert!(found.spots.is_sorted_by_key(|spot| spot.t));
        let is_true = |spot: SpotId| {
            let Spot { t, center_um, .. } = found.spots[spot.index()];
            truth.spots.iter().any(|other| other.t == t && other.center_um == center_um)
        };
        let cells: Vec<SpotId> = found.lineage.spots().filter(|&spot| is_true(spot)).collect();
        let spurious = found.spots.len() - cells.len();
        assert!((8800..9200).contains(&cells.len()) && (850..1150).contains(&spurious), "{} {spurious}", cells.len());
        let mut over = 0;
        for link in found.lineage.links() {
            assert!(is_true(link.source) && is_true(link.target));
            let [a, b] = [link.source, link.target].map(|spot| &found.spots[spot.index()]);
            assert!(a.center_um == b.center_um || b.center_um[2] == 5.0);
            over += usize::from(b.t - a.t == 2);
        }
        assert!((600..900).contains(&over), "8 frames with 1000 cells, of which 9 % of 90 % are alone missed: {over}");
        assert_eq!(found.spots, truth.detected(Mistakes { share: 0.1, jitter: 0.0 }, 5).unwrap().spots);
        assert_ne!(found.spots, truth.detected(Mistakes { share: 0.1, jitter: 0.0 }, 6).unwrap().spots);
    }

    #[test]
    fn cells_are_shifted_by_their_radius() {
        let truth = truth();
        let found = truth.detected(Mistakes { share: 0.0, jitter: 0.5 }, 1).unwrap();
        let squared: f64 =
            found.spots.iter().zip(&truth.spots).map(|(a, b)| (a.center_um[2] - b.center_um[2]).powi(2)).sum();
        let deviation = (squared / found.spots.len() as f64).sqrt();
        assert!((1.45..1.55).contains(&deviation), "{deviation}");
        assert!(found.lineage.links().eq(truth.lineage.links()));
    }

    #[test]
    fn every_third_frame_has_links_between_its_neighbours() {
        let truth = truth().every(3).unwrap();
        assert_eq!(truth.spots.len(), 4001);
        assert_eq!(truth.spots.last().unwrap().t, 3);
        let sources = truth.lineage.links().map(|link| link.source.0);
        assert!(sources.eq((0..3000).chain([2000])));
    }
}
