//! Drawing what a person says about spots into a dataset's label stores, and erasing it (contract sections 1.9 and 6.7).

mod centroids;
mod drawing;
mod stores;

use std::collections::{BTreeMap, BTreeSet};

use elephant_fs::{FolderLock, FsError};
use elephant_image::{Dims, LabelFrame};
use elephant_memory::{Memory, Need};
use elephant_types::{DatasetName, Numerics, TaggedSpot, TaskContext, VoxelSize};
use elephant_volume::{Dataset, Store};
use serde_json::{Map, Value};

pub use self::centroids::label_centroids;
use self::{
    drawing::{Background, Drawing},
    stores::LabelStores,
};
use crate::{
    PipelineError, Workspace,
    frames::{HeldDataset, check_timepoint, normalized_frame, open_dataset},
};

/// The original's answer to an update during another one.
const BUSY: &str = "Last update is ongoing";

/// Which timepoints to label, and how.
#[derive(Clone, Debug, PartialEq)]
pub struct UpdateLabels {
    /// The dataset.
    pub dataset: DatasetName,
    /// What is drawn, later spots over earlier ones. Each timepoint that has a spot is drawn anew.
    pub spots: Vec<TaggedSpot>,
    /// Edges of the stored voxels; in 2-D z is not used.
    pub voxel_size: VoxelSize,
    /// Size of the class "centre" as a fraction of the cell, in (0, 1].
    pub center_ratio: f64,
    /// Voxels whose intensity, scaled to 0..=1 over the frame, is below this are background; 0 for none.
    pub background_threshold: f64,
    /// Whether a live training waits for the labels: exactly one timepoint then.
    pub is_live: bool,
}

impl UpdateLabels {
    /// Whether the request makes sense, as far as can be told without the dataset.
    ///
    /// # Errors
    /// [`PipelineError::Invalid`], with the original's text where it has one.
    pub fn validate(&self) -> Result<(), PipelineError> {
        let check =
            |is_valid: bool, rule: &str| if is_valid { Ok(()) } else { Err(PipelineError::Invalid(rule.into())) };
        check(!self.spots.is_empty(), "nothing to update")?;
        let is_single = self.spots.iter().all(|spot| spot.t == self.spots[0].t);
        check(is_single || !self.is_live, "Livemode should update only a single timepoint")?;
        check(
            self.center_ratio > 0.0 && self.center_ratio <= 1.0,
            "c_ratio must be above 0 and at most 1, usually 0.4",
        )?;
        check((0.0..=1.0).contains(&self.background_threshold), "auto_bg_thresh must be 0 to 1")
    }
}

/// The labels of all datasets of a workspace.
#[derive(Clone, Debug)]
pub struct Labels {
    workspace: Workspace,
    memory: Memory,
    numerics: Numerics,
}

impl Labels {
    /// Labels in `workspace`, drawn within `memory` by the rules of `numerics`.
    pub fn new(workspace: &Workspace, memory: Memory, numerics: Numerics) -> Self {
        Self { workspace: workspace.clone(), memory, numerics }
    }

    /// Draws the labels of every timepoint that has a spot, from nothing, and returns these timepoints in ascending order.
    /// Timepoints between them that have none lose their labels: clients send ranges without gaps, so their tags are gone.
    ///
    /// Readers see each chunk as it was before or after, never half.
    ///
    /// # Errors
    /// [`PipelineError::Invalid`] when another update of the dataset is running, [`PipelineError::Spot`] naming a spot that
    /// cannot be drawn; nothing is changed then. After other errors, and when the task is cancelled, some timepoints may
    /// be done.
    pub fn update(&self, request: &UpdateLabels, context: &TaskContext) -> Result<Vec<usize>, PipelineError> {
        request.validate()?;
        let (_lock, dataset) = self.open_for_writing(&request.dataset)?;
        let mut spots = BTreeMap::<usize, Vec<&TaggedSpot>>::new();
        for spot in &request.spots {
            spots.entry(spot.t).or_default().push(spot);
        }
        // Nothing is drawn when one of the spots cannot be.
        for (&t, spots) in &spots {
            check_timepoint(&dataset, &request.dataset, t)?;
            frame(&dataset, request, spots, context)?;
        }
        let labels = dataset.store(Store::SegLabels);
        let mut attributes = labels.attributes()?;
        let drawn = self.draw_all(&dataset, request, &spots, &mut attributes, context);
        attributes.insert("updated".into(), true.into());
        labels.replace_attributes(&attributes)?;
        drawn.map(|()| spots.into_keys().collect())
    }

    /// Erases all labels of a dataset.
    ///
    /// # Errors
    /// When an update of the dataset is running or a file cannot be removed.
    pub fn reset(&self, dataset: &DatasetName) -> Result<(), PipelineError> {
        let (_lock, dataset) = self.open_for_writing(dataset)?;
        // Whoever looks for labels finds none from here on.
        dataset.store(Store::SegLabels).replace_attributes(&Map::new())?;
        dataset.store(Store::SegLabels).clear()?;
        Ok(dataset.store(Store::SegLabelsVis).clear()?)
    }

    /// See [`label_centroids`].
    ///
    /// # Errors
    /// When the dataset does not exist or its attributes are damaged.
    pub fn centroids(&self, dataset: &DatasetName) -> Result<BTreeMap<usize, Vec<[usize; 3]>>, PipelineError> {
        label_centroids(&open_dataset(&self.workspace, dataset)?)
    }

    /// One update at a time, and none during a generation.
    fn open_for_writing(&self, name: &DatasetName) -> Result<(FolderLock, HeldDataset), PipelineError> {
        let dataset = open_dataset(&self.workspace, name)?;
        let folder = self.workspace.dataset(name)?;
        let lock = FolderLock::try_acquire_part(&folder, ".labels.lock", "an update of its labels");
        let lock = lock.map_err(|error| match error {
            FsError::Locked { .. } => PipelineError::Invalid(BUSY.into()),
            error => error.into(),
        })?;
        Ok((lock, dataset))
    }

    /// Draws all timepoints and notes in the attributes what is done.
    fn draw_all(
        &self,
        dataset: &Dataset,
        request: &UpdateLabels,
        spots: &BTreeMap<usize, Vec<&TaggedSpot>>,
        attributes: &mut Map<String, Value>,
        context: &TaskContext,
    ) -> Result<(), PipelineError> {
        let stores = LabelStores::of(dataset)?;
        for t in timepoints_between(spots, attributes) {
            attributes.remove(&centroids::key(t));
            stores.replace(t, None, context)?;
        }
        for (done, (&t, spots)) in spots.iter().enumerate() {
            let frame = frame(dataset, request, spots, context)?;
            let centroids = centroids::to_json(dataset, frame.centroids());
            let background = match request.background_threshold {
                threshold if threshold > 0.0 => Some(background(dataset, t, threshold, &self.memory, context)?),
                _ => None,
            };
            let drawing = Drawing::new(frame, background, self.numerics);
            stores.replace(t, Some(&drawing), context)?;
            attributes.insert(centroids::key(t), centroids);
            context.report(done as u64 + 1, spots.len() as u64);
        }
        Ok(())
    }
}

/// Labelled timepoints without a spot, but with spots before and after.
fn timepoints_between(spots: &BTreeMap<usize, Vec<&TaggedSpot>>, attributes: &Map<String, Value>) -> BTreeSet<usize> {
    let (Some((&first, _)), Some((&last, _))) = (spots.first_key_value(), spots.last_key_value()) else {
        return BTreeSet::new();
    };
    let labelled = attributes.keys().filter_map(|key| centroids::timepoint(key));
    labelled.filter(|t| (first..last).contains(t) && !spots.contains_key(t)).collect()
}

/// The spots of one timepoint, ready to be drawn.
fn frame(
    dataset: &Dataset,
    request: &UpdateLabels,
    spots: &[&TaggedSpot],
    context: &TaskContext,
) -> Result<LabelFrame, PipelineError> {
    let dims = if dataset.is_3d() { Dims::ThreeD } else { Dims::TwoD };
    let mut frame = LabelFrame::new(dataset.frame_shape(), request.voxel_size, request.center_ratio, dims);
    for spot in spots {
        context.check()?;
        frame.add(spot)?;
    }
    Ok(frame)
}

fn background(
    dataset: &Dataset,
    t: usize,
    threshold: f64,
    memory: &Memory,
    context: &TaskContext,
) -> Result<Background, PipelineError> {
    let shape = dataset.frame_shape();
    let voxels = shape.iter().fold(1_u64, |product, &edge| product.saturating_mul(edge as u64));
    let need = Need { held: voxels.saturating_mul(size_of::<f32>() as u64), in_turn: 0 };
    let reserved = memory.reserve(need, context.cancel_token());
    let reserved = reserved.map_err(PipelineError::memory("set auto_bg_thresh to 0 and tag background by spots"))?;
    let image = normalized_frame(dataset, t, [0; 3], shape, false)?;
    Ok(Background { image, threshold: threshold as f32, _memory: reserved })
}
