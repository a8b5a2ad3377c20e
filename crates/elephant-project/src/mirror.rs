//! A session of the unchanged ELEPHANT client in Mastodon, as far as its requests tell of it.
//!
//! The client's own numbers of spots do not last, so spots are recognised by their places: the nearest pairs first, and only
//! within a spot's radius. Nothing here fails a request: what goes wrong is logged.

use std::collections::{BTreeMap, BTreeSet};

use elephant_types::{ApprovedLink, DatasetName, Spot, TaggedSpot, VoxelSize};

use crate::{
    Author, BoxUm, Covariance, DetectionTag, EntryKind, LinkState, NewSpot, Operation, Project, ProjectError,
    ProjectId, ProjectKind, Projects, SUPPRESSION_UM, SpotKey, edit::Edit, near::pair,
};

/// The name of the project that follows the client's session.
pub const MIRROR: &str = "mastodon";

/// The projects that follow sessions of the client: one of each dataset, named [`MIRROR`].
#[derive(Clone, Debug)]
pub struct Mirror {
    projects: Projects,
}

/// A place that the client has named.
struct Place {
    center_um: [f64; 3],
    covariance_um2: Covariance,
    tag: Option<DetectionTag>,
}

impl Mirror {
    /// The mirrors among these projects.
    pub fn new(projects: &Projects) -> Self {
        Self { projects: projects.clone() }
    }

    /// Which project follows the session with a dataset; it need not exist.
    pub fn id(dataset: &DatasetName) -> ProjectId {
        ProjectId::new(dataset.clone(), MIRROR.parse().unwrap_or_else(|_| unreachable!("a valid name")))
    }

    /// The project that follows the session with a dataset, which is made if there is none.
    ///
    /// # Errors
    /// When it cannot be opened or made.
    pub fn project(&self, dataset: &DatasetName) -> Result<std::sync::Arc<Project>, ProjectError> {
        self.projects.get_or_create(&Self::id(dataset), ProjectKind::Mirror)
    }

    /// Takes note of the size of a dataset's voxels, which each request of the client has.
    pub fn voxels(&self, dataset: &DatasetName, size: VoxelSize) {
        if let Err(error) = self.project(dataset).and_then(|project| project.set_voxel_size(size)) {
            tracing::warn!(%dataset, %error, "the voxel size is not mirrored into the project");
        }
    }

    fn change(
        &self,
        dataset: &DatasetName,
        kind: &'static str,
        change: impl FnOnce(&mut Edit<'_>) -> Result<(), ProjectError>,
    ) -> Option<()> {
        let author: Author = "Mastodon".parse().ok()?;
        let written = self.project(dataset).and_then(|project| {
            project.write(&author, None, |edit, _| change(edit).map(|()| EntryKind::Operation(kind.into())))
        });
        match written {
            Ok(_) => Some(()),
            Err(error) => {
                tracing::warn!(%dataset, %error, "what the client has is not mirrored into its project");
                None
            }
        }
    }

    /// A prediction was answered: `spots` of frame `t`, or of the part of it that was predicted.
    pub fn predicted(&self, dataset: &DatasetName, t: usize, inside: Option<BoxUm>, spots: &[Spot]) {
        let Ok(t) = u32::try_from(t) else { return };
        let spots = spots.iter().map(NewSpot::of).collect();
        let operation = Operation::Predict { t, inside, spots, suppression_um: SUPPRESSION_UM };
        self.change(dataset, "predict", |edit| operation.apply(edit));
    }

    /// Labels were updated from all tagged spots of their frames, or, with `is_partial`, from some of them. Other spots of
    /// these frames have no tags any more, unless some were left out.
    pub fn tagged(&self, dataset: &DatasetName, spots: &[TaggedSpot], is_partial: bool) {
        let mut frames: BTreeMap<u32, Vec<Place>> = BTreeMap::new();
        for spot in spots {
            let Ok(t) = u32::try_from(spot.t) else { continue };
            frames.entry(t).or_default().push(Place {
                center_um: spot.center_um,
                covariance_um2: Covariance::of(spot.covariance_um2),
                tag: Some(spot.tag.into()),
            });
        }
        self.change(dataset, "tag", |edit| {
            for (t, places) in frames {
                let known = find_all(edit, t, &places)?;
                let known: BTreeSet<SpotKey> = known.into_iter().flatten().collect();
                for key in edit.state.keys_at(t) {
                    if !is_partial && !known.contains(&key) {
                        edit.tag_detection(key, DetectionTag::Unlabeled)?;
                    }
                }
            }
            Ok(())
        });
    }

    /// The client has asked where the cells of frame `t` come from: `spots` without parents, as it has them now. Their
    /// numbers in the project, in the same order; `None` for a spot that cannot be stored, or when nothing can.
    pub fn candidates(&self, dataset: &DatasetName, t: usize, spots: &[Spot]) -> Vec<Option<SpotKey>> {
        let places: Vec<Place> = spots
            .iter()
            .map(|spot| Place {
                center_um: spot.center_um,
                covariance_um2: Covariance::of(spot.covariance_um2),
                tag: None,
            })
            .collect();
        let mut keys = vec![None; spots.len()];
        let Ok(t) = u32::try_from(t) else { return keys };
        let changed = self.change(dataset, "candidates", |edit| {
            keys = find_all(edit, t, &places)?;
            Ok(())
        });
        if changed.is_some() { keys } else { vec![None; spots.len()] }
    }

    /// Flow labels were updated from these links, which are all that are approved between their frames.
    pub fn approved_links(&self, dataset: &DatasetName, links: &[ApprovedLink]) {
        self.change(dataset, "approve", |edit| {
            let mut frames: BTreeMap<(u32, u32), Vec<&ApprovedLink>> = BTreeMap::new();
            for link in links {
                if let (Ok(source), Ok(target)) = (u32::try_from(link.t), u32::try_from(link.target_timepoint())) {
                    frames.entry((source, target)).or_default().push(link);
                }
            }
            for ((source_t, target_t), links) in frames.into_iter().filter(|((source, target), _)| source < target) {
                approve(edit, source_t, target_t, &links)?;
            }
            Ok(())
        });
    }
}

fn approve(edit: &mut Edit<'_>, source_t: u32, target_t: u32, links: &[&ApprovedLink]) -> Result<(), ProjectError> {
    let place = |center_um, link: &ApprovedLink| Place {
        center_um,
        covariance_um2: Covariance::of(link.covariance_um2),
        tag: None,
    };
    // Both daughters of a division name their mother, who is one spot.
    let mut mothers: Vec<Place> = Vec::new();
    let mut mother_of = Vec::with_capacity(links.len());
    for link in links {
        const SAME_UM: f64 = 1e-6;
        let is_same = |other: &Place| (0..3).all(|d| (other.center_um[d] - link.source_um()[d]).abs() <= SAME_UM);
        mother_of.push(mothers.iter().position(is_same).unwrap_or_else(|| {
            mothers.push(place(link.source_um(), link));
            mothers.len() - 1
        }));
    }
    let daughters: Vec<Place> = links.iter().map(|link| place(link.center_um, link)).collect();
    let mothers = find_or_add(edit, source_t, &mothers, false)?;
    let daughters = find_or_add(edit, target_t, &daughters, false)?;
    let mut approved = BTreeSet::new();
    for (mother, daughter) in mother_of.into_iter().map(|index| mothers[index]).zip(daughters) {
        if let (Some(mother), Some(daughter)) = (mother, daughter) {
            edit.link(mother, daughter, LinkState::Approved, None, true)?;
            approved.insert(daughter);
        }
    }
    for target in edit.state.keys_at(target_t) {
        let Some(slot) = edit.state.slot(target) else { continue };
        let source = edit.state.parent(slot).filter(|_| slot.link.state == LinkState::Approved);
        if let (Some(source), false) = (source, approved.contains(&target)) {
            edit.mark(source, target, LinkState::Unlabeled)?;
        }
    }
    Ok(())
}

/// The spots of frame `t` at these places. Known spots get the places, sizes and tags that the client has; others are added.
fn find_all(edit: &mut Edit<'_>, t: u32, places: &[Place]) -> Result<Vec<Option<SpotKey>>, ProjectError> {
    find_or_add(edit, t, places, true)
}

fn find_or_add(
    edit: &mut Edit<'_>,
    t: u32,
    places: &[Place],
    is_size_known: bool,
) -> Result<Vec<Option<SpotKey>>, ProjectError> {
    let keys = edit.state.keys_at(t);
    let known: Vec<[f64; 3]> =
        keys.iter().map(|key| edit.spot(*key).map(|spot| spot.center_um)).collect::<Result<_, _>>()?;
    let centers: Vec<[f64; 3]> = places.iter().map(|place| place.center_um).collect();
    let partners = pair(&centers, &known, |index| radius_um(places[index].covariance_um2).min(SUPPRESSION_UM));
    let mut found = Vec::with_capacity(places.len());
    for (place, partner) in places.iter().zip(partners) {
        let Some(key) = partner.map(|partner| keys[partner]) else {
            found.push(add(edit, t, place)?);
            continue;
        };
        if place.center_um.iter().all(|value| value.is_finite()) {
            edit.move_to(key, place.center_um)?;
        }
        if is_size_known && place.covariance_um2.is_valid() {
            edit.resize(key, place.covariance_um2)?;
        }
        if let Some(tag) = place.tag {
            edit.tag_detection(key, tag)?;
        }
        found.push(Some(key));
    }
    Ok(found)
}

/// Adds a spot; `None` for one that cannot be stored.
fn add(edit: &mut Edit<'_>, t: u32, place: &Place) -> Result<Option<SpotKey>, ProjectError> {
    let key = edit.new_key();
    let spot = NewSpot {
        key: None,
        t,
        center_um: place.center_um,
        covariance_um2: place.covariance_um2,
        quality: 0.0,
        detection: place.tag.unwrap_or_default(),
        tracking: crate::TrackingTag::Unlabeled,
        flags: 0,
        parent: None,
    };
    match (Operation::Add { spots: vec![spot] }).apply(edit) {
        Ok(()) => Ok(Some(key)),
        Err(ProjectError::Invalid(reason)) => {
            tracing::debug!(t, reason, "a spot of the client is not mirrored");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// The radius of a ball as large as the ellipsoid, in micrometres.
fn radius_um(covariance: Covariance) -> f64 {
    let [[zz, zy, zx], [_, yy, yx], [_, _, xx]] = covariance.matrix();
    let determinant = zz * (yy * xx - yx * yx) - zy * (zy * xx - yx * zx) + zx * (zy * yx - yy * zx);
    let radius = determinant.max(0.0).powf(1.0 / 6.0);
    // A flat ellipsoid, as of a 2-D dataset.
    if radius > 0.0 { radius } else { zz.max(yy).max(xx).max(0.0).sqrt() }
}

#[cfg(test)]
mod tests;
