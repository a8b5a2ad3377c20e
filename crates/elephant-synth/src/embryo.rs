//! Synthetic embryos over time.

use std::ops::Range;

use elephant_types::{CancelToken, Lineage, SpotId, Tracks};

use crate::{EmbryoOptions, Nucleus, SynthError, growth::Growth};

/// A synthetic embryo over time.
#[derive(Clone, Debug)]
pub struct Embryo {
    options: EmbryoOptions,
    /// The nuclei of all timepoints, by their [`SpotId`].
    nuclei: Vec<Nucleus>,
    /// Where the nuclei of each timepoint begin; one entry more than timepoints.
    starts: Vec<u32>,
    lineage: Lineage,
    tracks: Tracks,
}

impl Embryo {
    /// Grows an embryo through all timepoints.
    ///
    /// # Errors
    /// [`SynthError::InvalidOption`], and [`SynthError::Cancelled`] soon after `cancel` was.
    pub fn grow(options: EmbryoOptions, cancel: &CancelToken) -> Result<Self, SynthError> {
        options.validate()?;
        let mut growth = Growth::begin(&options, cancel)?;
        for t in 0..options.timepoints {
            if t > 0 {
                growth.step(cancel)?;
            }
            growth.observe(t);
        }
        let Growth { nuclei, starts, timepoints, links, .. } = growth;
        let lineage = Lineage::new(timepoints, links)?;
        let tracks = lineage.tracks();
        Ok(Self { options, nuclei, starts, lineage, tracks })
    }

    /// The options that the embryo was grown with.
    pub fn options(&self) -> &EmbryoOptions {
        &self.options
    }

    /// The nuclei at timepoint `t`; none outside the movie.
    pub fn nuclei(&self, t: usize) -> &[Nucleus] {
        &self.nuclei[self.range(t)]
    }

    /// The spots of the lineage at timepoint `t`, in the order of [`nuclei`](Self::nuclei).
    pub fn spots(&self, t: usize) -> impl Iterator<Item = SpotId> {
        self.range(t).map(|index| SpotId(index as u32))
    }

    /// The lineage of all nuclei.
    pub fn lineage(&self) -> &Lineage {
        &self.lineage
    }

    /// The lineage's tracks; there are less than 2^16.
    pub fn tracks(&self) -> &Tracks {
        &self.tracks
    }

    fn range(&self, t: usize) -> Range<usize> {
        match self.starts.get(t..) {
            Some(&[start, end, ..]) => start as usize..end as usize,
            _ => 0..0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Preset,
        vector::{norm, sub},
    };

    fn grown(preset: Preset, seed: u64) -> Embryo {
        Embryo::grow(EmbryoOptions::preset(preset, seed), &CancelToken::default()).unwrap()
    }

    #[test]
    fn the_lineage_goes_from_each_timepoint_to_the_next() {
        for seed in 0..10 {
            let embryo = grown(Preset::Small, seed);
            let lineage = embryo.lineage();
            let mut next = 0;
            for t in 0..embryo.options().timepoints {
                assert_eq!(embryo.spots(t).count(), embryo.nuclei(t).len());
                for spot in embryo.spots(t) {
                    assert_eq!((spot.index(), lineage.timepoint(spot) as usize), (next, t));
                    next += 1;
                    let parent = lineage.parent(spot).map(|parent| lineage.timepoint(parent) as usize);
                    assert_eq!(parent, t.checked_sub(1));
                    let children = lineage.children(spot).count();
                    assert!(if t == 11 { children == 0 } else { (1..=2).contains(&children) });
                }
            }
            assert_eq!(next, lineage.len());
            assert!(embryo.nuclei(12).is_empty());
            assert!((25..=48).contains(&embryo.nuclei(11).len()), "{}", embryo.nuclei(11).len());
            let divisions = lineage.divisions().count();
            assert_eq!(embryo.tracks().len(), embryo.nuclei(0).len() + 2 * divisions);
            assert!(divisions >= 4, "seed {seed}: {divisions}");
        }
    }

    #[test]
    fn nuclei_keep_apart_and_inside() {
        for seed in 0..10 {
            let embryo = grown(Preset::Small, seed);
            let extent = embryo.options().extent_um();
            for t in 0..embryo.options().timepoints {
                let nuclei = embryo.nuclei(t);
                for (i, a) in nuclei.iter().enumerate() {
                    let half = a.half_box_um();
                    for axis in 0..3 {
                        assert!(a.center_um[axis] > 0.5 * half[axis]);
                        assert!(a.center_um[axis] + 0.5 * half[axis] < extent[axis]);
                    }
                    for b in &nuclei[i + 1..] {
                        let radius = |n: &Nucleus| n.semi_axes_um.iter().product::<f64>().cbrt();
                        let distance = norm(sub(a.center_um, b.center_um));
                        assert!(distance > 0.9 * (radius(a) + radius(b)), "seed {seed}, t {t}: {distance}");
                    }
                }
            }
        }
    }

    #[test]
    fn steps_are_short_enough_to_link() {
        let embryo = grown(Preset::Small, 3);
        for t in 1..embryo.options().timepoints {
            for (nucleus, spot) in embryo.nuclei(t).iter().zip(embryo.spots(t)) {
                let before = &embryo.nuclei[embryo.lineage().parent(spot).unwrap().index()];
                let way = norm(sub(nucleus.center_um, before.center_um));
                assert!(way < 8.0, "{way}");
            }
        }
    }

    #[test]
    fn invalid_options_are_refused() {
        let good = EmbryoOptions::preset(Preset::Tiny, 0);
        for (name, bad) in [
            ("timepoints", EmbryoOptions { timepoints: 0, ..good.clone() }),
            ("shape", EmbryoOptions { shape: [0, 10, 10], ..good.clone() }),
            ("shape", EmbryoOptions { shape: [4096; 3], ..good.clone() }),
            ("nuclei", EmbryoOptions { nuclei: 0, ..good.clone() }),
            ("nuclei", EmbryoOptions { nuclei: 500, ..good.clone() }),
            ("radius_um", EmbryoOptions { radius_um: f64::NAN, ..good.clone() }),
            ("cycle", EmbryoOptions { cycle: 1.0, ..good.clone() }),
            ("step_um", EmbryoOptions { step_um: -1.0, ..good.clone() }),
        ] {
            let message = Embryo::grow(bad, &CancelToken::default()).unwrap_err().to_string();
            assert!(message.contains(name), "{message}");
        }
    }

    #[test]
    fn a_plane_is_an_embryo_too() {
        let options = EmbryoOptions { shape: [1, 96, 96], ..EmbryoOptions::preset(Preset::Tiny, 0) };
        let embryo = Embryo::grow(options, &CancelToken::default()).unwrap();
        assert!(embryo.nuclei(3).iter().all(|nucleus| nucleus.center_um[0] == 0.0));
    }

    #[test]
    fn a_large_embryo_stops_growing_when_it_is_cancelled() {
        let options =
            EmbryoOptions { shape: [512, 1024, 1024], nuclei: 15_000, ..EmbryoOptions::preset(Preset::Small, 0) };
        let cancel = CancelToken::default();
        cancel.cancel();
        assert!(matches!(Embryo::grow(options, &cancel), Err(SynthError::Cancelled(_))));
    }
}
