//! Where labels are: attributes of the store of detection or flow labels, one for each labelled timepoint (docs/method.md,
//! "Detection labels" and "Flow labels").

use std::collections::BTreeMap;

use elephant_volume::{Dataset, Store};
use serde_json::value::{RawValue, to_raw_value};

use crate::PipelineError;

/// The name of a timepoint's attribute is this and the timepoint.
const PREFIX: &str = "label.indices.";

/// For each timepoint the centres (z, y, x) of its spots.
pub(crate) type Centroids = BTreeMap<usize, Vec<[usize; 3]>>;

/// The name of the attribute with the centroids of timepoint `t`.
pub(crate) fn key(t: usize) -> String {
    format!("{PREFIX}{t}")
}

/// The timepoint of an attribute with centroids.
pub(crate) fn timepoint(key: &str) -> Option<usize> {
    key.strip_prefix(PREFIX)?.parse().ok()
}

/// Centres (z, y, x) in voxels as the attribute has them: (y, x) in 2-D.
pub(crate) fn to_json(dataset: &Dataset, places: &[[usize; 3]]) -> Result<Box<RawValue>, PipelineError> {
    let first = usize::from(!dataset.is_3d());
    let places: Vec<&[usize]> = places.iter().map(|place| &place[first..]).collect();
    to_raw_value(&places).map_err(|error| PipelineError::Invalid(format!("the labels cannot be listed: {error}")))
}

/// Labels in `store` of the timepoints that `is_included` selects: for each the centres (z, y, x) of its spots in whole
/// voxels inside the image, in the order in which they were drawn; z is 0 in 2-D. The original's own labels are found too.
///
/// # Errors
/// When the attributes of the label store are damaged.
pub(crate) fn read(
    dataset: &Dataset,
    store: Store,
    is_included: impl Fn(usize) -> bool,
) -> Result<Centroids, PipelineError> {
    let mut centroids = Centroids::new();
    // Flow labels are of pairs, of which there is one less.
    let store = dataset.store(store);
    for (key, value) in store.attributes()? {
        let Some(t) = timepoint(&key).filter(|&t| t < store.shape()[0] && is_included(t)) else { continue };
        let Some(places) = places_in(dataset, value.get()) else {
            let name = store.name();
            let message = format!("the attribute {key} of {name} is not a list of places; reset the labels");
            return Err(PipelineError::Invalid(message));
        };
        if !places.is_empty() {
            centroids.insert(t, places);
        }
    }
    Ok(centroids)
}

/// The centres in an attribute, moved into the image; the original notes also those that are outside.
fn places_in(dataset: &Dataset, attribute: &str) -> Option<Vec<[usize; 3]>> {
    let places: Vec<[i64; 3]> = if dataset.is_3d() {
        serde_json::from_str(attribute).ok()?
    } else {
        let places: Vec<[i64; 2]> = serde_json::from_str(attribute).ok()?;
        places.into_iter().map(|[y, x]| [0, y, x]).collect()
    };
    let inside = |number: i64, edge: usize| usize::try_from(number).unwrap_or(0).min(edge.saturating_sub(1));
    let [depth, height, width] = dataset.frame_shape();
    Some(places.into_iter().map(|[z, y, x]| [inside(z, depth), inside(y, height), inside(x, width)]).collect())
}
