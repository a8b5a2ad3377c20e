//! Which timepoints have labels, while they change: a timepoint is listed only when all of its labels are there, also after
//! a kill.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{PoisonError, RwLock},
};

use elephant_volume::{ArrayStore, Attributes};
use serde_json::value::RawValue;

use super::centroids;
use crate::PipelineError;

/// Timepoints that are drawn between two changes of the list of labelled timepoints, a file that grows with the movie.
const TIMEPOINTS_AT_ONCE: usize = 16;
/// The name of a flow label timepoint's norms is this and the timepoint.
const NORM_PREFIX: &str = "flow.norm.";

/// The name of the attribute with the displacements in voxels, (x, y, z), that the labels of timepoint `t` were divided by.
pub(crate) fn norm_key(t: usize) -> String {
    format!("{NORM_PREFIX}{t}")
}

/// The list of labelled timepoints while some of them change.
pub(crate) struct Listing<'a> {
    attributes: &'a mut Attributes,
    /// What was listed of timepoints that have not changed yet.
    untouched: &'a mut Attributes,
}

impl Listing<'_> {
    /// From here on the labels of timepoint `t` change.
    pub fn begin(&mut self, t: usize) {
        self.untouched.remove(&centroids::key(t));
        self.untouched.remove(&norm_key(t));
    }

    /// Lists a timepoint, or says something of it.
    pub fn add(&mut self, key: String, value: Box<RawValue>) {
        self.attributes.insert(key, value);
    }
}

/// Calls `replace` for every timepoint of `drawn`, and with `None` for those between the first and the last of them that have
/// labels and are not in it, whose labels are to go. No timepoint is listed while it changes; those that `replace` has not
/// begun when it fails stay listed. `listed` is held for writing while timepoints are not listed.
///
/// # Errors
/// Those of `replace`, and when the attributes cannot be read or written.
pub(crate) fn replace_listed<D>(
    store: &ArrayStore,
    listed: &RwLock<()>,
    drawn: BTreeMap<usize, D>,
    mut replace: impl FnMut(usize, Option<D>, &mut Listing<'_>) -> Result<(), PipelineError>,
) -> Result<(), PipelineError> {
    let mut attributes = store.attributes()?;
    attributes.insert("updated".into(), RawValue::TRUE.to_owned());
    let erased = timepoints_between(&drawn, &attributes).into_iter().map(|t| (t, None));
    let drawn = drawn.into_iter().map(|(t, drawn)| (t, Some(drawn)));
    let mut changes = erased.chain(drawn).peekable();
    while changes.peek().is_some() {
        let batch: Vec<_> = changes.by_ref().take(TIMEPOINTS_AT_ONCE).collect();
        let _listed = listed.write().unwrap_or_else(PoisonError::into_inner);
        let keys = batch.iter().flat_map(|(t, _)| [centroids::key(*t), norm_key(*t)]);
        let mut untouched: Attributes = keys.filter_map(|key| attributes.remove_entry(&key)).collect();
        if !untouched.is_empty() {
            store.replace_attributes_unflushed(&attributes)?;
        }
        let mut listing = Listing { attributes: &mut attributes, untouched: &mut untouched };
        let drawn = batch.into_iter().try_for_each(|(t, drawn)| replace(t, drawn, &mut listing));
        // There are some when the update ends early.
        attributes.append(&mut untouched);
        store.replace_attributes(&attributes)?;
        drawn?;
    }
    Ok(())
}

/// Labelled timepoints without something to draw, but with some before and after.
fn timepoints_between<D>(drawn: &BTreeMap<usize, D>, attributes: &Attributes) -> BTreeSet<usize> {
    let (Some((&first, _)), Some((&last, _))) = (drawn.first_key_value(), drawn.last_key_value()) else {
        return BTreeSet::new();
    };
    let labelled = attributes.keys().filter_map(|key| centroids::timepoint(key));
    labelled.filter(|t| (first..last).contains(t) && !drawn.contains_key(t)).collect()
}
