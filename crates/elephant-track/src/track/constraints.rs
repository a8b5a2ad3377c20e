//! Checks of what is given, and its translation into fixed variables.

use std::collections::{BTreeMap, BTreeSet};

use elephant_types::{Link, SpotId};

use super::{detections::Scene, options::Constraints};
use crate::TrackError;

/// Constraints that do not contradict each other, ordered.
#[derive(Debug, Default)]
pub struct Given {
    pub children: BTreeMap<u32, Vec<u32>>,
    pub parents: BTreeMap<u32, u32>,
    pub forbidden: BTreeSet<(u32, u32)>,
    pub required: BTreeSet<u32>,
    pub excluded: BTreeSet<u32>,
}

impl Given {
    pub fn new(constraints: &Constraints, scene: &Scene<'_>) -> Result<Self, TrackError> {
        let known = |spot: SpotId| {
            if spot.index() < scene.len() {
                Ok(spot.0)
            } else {
                Err(TrackError::UnknownSpot { spot: spot.0, spots: scene.len() })
            }
        };
        let ends = |link: &Link| -> Result<(u32, u32), TrackError> {
            let (source, target) = (known(link.source)?, known(link.target)?);
            let timepoints = [scene.time(source), scene.time(target)];
            if timepoints[0] >= timepoints[1] {
                return Err(elephant_types::LineageError::NotForward { link: *link, timepoints }.into());
            }
            Ok((source, target))
        };
        let links: BTreeSet<(u32, u32)> = constraints.links.iter().map(ends).collect::<Result<_, _>>()?;
        let given = Self {
            forbidden: constraints.forbidden.iter().map(ends).collect::<Result<_, _>>()?,
            required: constraints.required.iter().copied().map(known).collect::<Result<_, _>>()?,
            excluded: constraints.excluded.iter().copied().map(known).collect::<Result<_, _>>()?,
            ..Self::default()
        };
        given.with_links(&links, |spot| scene.detections.number(spot))
    }

    /// `number` gives the number by which the caller knows a spot.
    fn with_links(mut self, links: &BTreeSet<(u32, u32)>, number: impl Fn(u32) -> u64) -> Result<Self, TrackError> {
        let contradiction = |reason: String| Err(TrackError::ContradictoryCorrections { reason });
        if let Some(spot) = self.required.intersection(&self.excluded).next() {
            return contradiction(format!("spot {} is both confirmed and rejected", number(*spot)));
        }
        if let Some((source, target)) = links.intersection(&self.forbidden).next() {
            return contradiction(format!(
                "the link from spot {} to spot {} is both approved and rejected",
                number(*source),
                number(*target)
            ));
        }
        for &(source, target) in links {
            if let Some(spot) = [source, target].iter().find(|spot| self.excluded.contains(spot)) {
                return contradiction(format!(
                    "the link from spot {} to spot {} is approved, but spot {} is rejected",
                    number(source),
                    number(target),
                    number(*spot)
                ));
            }
            if let Some(other) = self.parents.insert(target, source) {
                return contradiction(format!(
                    "spot {} has two approved parents, {} and {}",
                    number(target),
                    number(other),
                    number(source)
                ));
            }
            let children = self.children.entry(source).or_default();
            children.push(target);
            if let [first, second, third] = children[..] {
                return contradiction(format!(
                    "spot {} has three approved daughters, {}, {} and {}",
                    number(source),
                    number(first),
                    number(second),
                    number(third)
                ));
            }
        }
        Ok(self)
    }

    /// Whether the solution may contain this link.
    pub fn allows(&self, source: u32, target: u32) -> bool {
        !self.excluded.contains(&source)
            && !self.excluded.contains(&target)
            && !self.forbidden.contains(&(source, target))
            && self.parents.get(&target).is_none_or(|&parent| parent == source)
    }

    pub fn is_approved(&self, source: u32, target: u32) -> bool {
        self.parents.get(&target) == Some(&source)
    }
}
