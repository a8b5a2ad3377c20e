//! Drawing tagged spots into a dataset's label stores, and erasing labels (docs/protocol.md,
//! "POST /seg/update"; docs/method.md, "Detection labels").

pub(crate) mod centroids;
mod drawing;
pub(crate) mod listing;
mod stores;

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock},
};

use elephant_fs::{FolderLock, FsError};
use elephant_image::{Dims, LabelFrame};
use elephant_memory::{Memory, Need, Reservation};
use elephant_types::{DatasetName, Numerics, TaggedSpot, TaskContext, VoxelSize};
use elephant_volume::{Attributes, Dataset, FrameSource, Store};
use serde::{Deserialize, Serialize};

pub(crate) use self::centroids::Centroids;
use self::{
    drawing::{Background, Drawing},
    listing::replace_listed,
    stores::LabelStores,
};
use crate::{
    PipelineError, UndrawableSpots, Workspace, defaults,
    frames::{HeldDataset, check_timepoint, open_dataset},
};

/// Spots that an error names, if as many cannot be drawn.
pub(crate) const MAX_NAMED_SPOTS: usize = 20;
/// The original's answer to an update during another one.
pub(crate) const BUSY: &str = "Last update is ongoing";

/// Which timepoints to label, and how.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpdateLabels {
    /// The dataset.
    pub dataset: DatasetName,
    /// What is drawn, later spots over earlier ones. All labels of a timepoint that has a spot are replaced.
    pub spots: Vec<TaggedSpot>,
    /// Edges of the stored voxels; in 2-D z is not used.
    pub voxel_size: VoxelSize,
    /// Size of the class "centre" as a fraction of the cell, in (0, 1].
    #[serde(default = "defaults::center_ratio")]
    pub center_ratio: f64,
    /// Voxels whose intensity, scaled to 0..=1 over the frame, is below this are background; 0 for none.
    #[serde(default)]
    pub background_threshold: f64,
    /// Whether a live training waits for the labels: exactly one timepoint then.
    #[serde(default)]
    pub is_live: bool,
}

impl UpdateLabels {
    /// Checks everything that does not depend on the dataset.
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

/// The labels of all datasets of a workspace. Clones share state.
#[derive(Clone, Debug)]
pub struct Labels {
    workspace: Workspace,
    memory: Memory,
    numerics: Numerics,
    /// Held for writing while timepoints are drawn, which are not listed then.
    listed: Arc<RwLock<()>>,
}

impl Labels {
    /// Labels in `workspace`, drawn within `memory` by the rules of `numerics`.
    pub fn new(workspace: &Workspace, memory: Memory, numerics: Numerics) -> Self {
        Self { workspace: workspace.clone(), memory, numerics, listed: Arc::default() }
    }

    /// Draws the labels of every timepoint that has a spot, from nothing, and returns these timepoints in ascending order.
    /// Timepoints between them that have none lose their labels: clients send ranges without gaps, so their tags are gone.
    ///
    /// Readers see each chunk as it was before or after, never half. A timepoint is listed among those with labels only
    /// when all of them are drawn, also after a kill in between.
    ///
    /// # Errors
    /// [`PipelineError::Invalid`] when another update of the dataset is running, [`PipelineError::Spots`] naming the spots
    /// that cannot be drawn; nothing is changed then. After other errors, and when the task is cancelled, some timepoints
    /// may be done.
    pub fn update(&self, request: &UpdateLabels, context: &TaskContext) -> Result<Vec<usize>, PipelineError> {
        request.validate()?;
        let (_lock, dataset) = self.open_for_writing(&request.dataset)?;
        // Nothing is drawn when one of the spots cannot be.
        let frames = frames(dataset.dataset(), request, context)?;
        let timepoints = frames.keys().copied().collect();
        self.draw_all(&dataset, request, frames, context)?;
        Ok(timepoints)
    }

    /// Erases all labels of a dataset.
    ///
    /// # Errors
    /// When an update of the dataset is running or a file cannot be removed.
    pub fn reset(&self, dataset: &DatasetName) -> Result<(), PipelineError> {
        let (_lock, dataset) = self.open_for_writing(dataset)?;
        let dataset = dataset.dataset();
        // From here on no reader finds labels.
        dataset.store(Store::SegLabels).replace_attributes(&Attributes::new())?;
        dataset.store(Store::SegLabels).clear()?;
        Ok(dataset.store(Store::SegLabelsVis).clear()?)
    }

    /// Which timepoints have labels, and where: for each the centres (z, y, x) of its spots in whole voxels inside the
    /// image, in the order in which they were drawn; z is 0 in 2-D. The original's own labels are found too.
    ///
    /// # Errors
    /// When the dataset does not exist or its attributes are damaged.
    pub fn centroids(&self, dataset: &DatasetName) -> Result<BTreeMap<usize, Vec<[usize; 3]>>, PipelineError> {
        let dataset = open_dataset(&self.workspace, dataset)?;
        self.centroids_at(dataset.dataset(), |_| true)
    }

    /// As [`centroids`](Self::centroids), of the timepoints that `is_included` selects. Waits while some are drawn.
    pub(crate) fn centroids_at(
        &self,
        dataset: &Dataset,
        is_included: impl Fn(usize) -> bool,
    ) -> Result<Centroids, PipelineError> {
        let _listed = self.listed.read().unwrap_or_else(PoisonError::into_inner);
        centroids::read(dataset, Store::SegLabels, is_included)
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

    /// Memory for reading a frame's intensities, where they tell what is background.
    fn reserve_background(
        &self,
        frames: &FrameSource,
        request: &UpdateLabels,
        context: &TaskContext,
    ) -> Result<Option<Reservation>, PipelineError> {
        if request.background_threshold <= 0.0 {
            return Ok(None);
        }
        let reserved = self.memory.reserve(Need::while_running(frames.reading_bytes(), 0), context.cancel_token());
        reserved.map(Some).map_err(PipelineError::memory("set auto_bg_thresh to 0 and tag background"))
    }

    /// Draws all timepoints, and lists those that are done.
    fn draw_all(
        &self,
        frames: &FrameSource,
        request: &UpdateLabels,
        drawn: BTreeMap<usize, LabelFrame>,
        context: &TaskContext,
    ) -> Result<(), PipelineError> {
        let dataset = frames.dataset();
        let (stores, labels) = (LabelStores::of(dataset)?, dataset.store(Store::SegLabels));
        // Before labels are locked, so that they can be read while this waits for memory.
        let _memory = self.reserve_background(frames, request, context)?;
        let (mut done, total) = (0, drawn.len() as u64);
        replace_listed(labels, &self.listed, drawn, |t, frame, listing| {
            context.check()?;
            let Some(frame) = frame else {
                listing.begin(t);
                return stores.replace(t, None, context);
            };
            let places = centroids::to_json(dataset, frame.centroids())?;
            let threshold = request.background_threshold as f32;
            let background = (request.background_threshold > 0.0)
                .then(|| Background::new(frames, t, threshold, context.cancel_token()))
                .transpose()?;
            let drawing = Drawing::new(frame, background, self.numerics, context.cancel_token())?;
            listing.begin(t);
            stores.replace(t, Some(&drawing), context)?;
            listing.add(centroids::key(t), places);
            done += 1;
            context.report(done, total);
            Ok(())
        })
    }
}

/// The spots of each timepoint, ready to be drawn.
fn frames(
    dataset: &Dataset,
    request: &UpdateLabels,
    context: &TaskContext,
) -> Result<BTreeMap<usize, LabelFrame>, PipelineError> {
    let dims = if dataset.is_3d() { Dims::ThreeD } else { Dims::TwoD };
    let empty = LabelFrame::new(dataset.frame_shape(), request.voxel_size, request.center_ratio, dims);
    let mut frames = BTreeMap::new();
    let (mut undrawable, mut more) = (Vec::new(), 0);
    for spot in &request.spots {
        context.check()?;
        check_timepoint(dataset, &request.dataset, spot.t)?;
        match frames.entry(spot.t).or_insert_with(|| empty.clone()).add(spot) {
            Err(spot) if undrawable.len() < MAX_NAMED_SPOTS => undrawable.push(spot),
            Err(_) => more += 1,
            Ok(()) => {}
        }
    }
    if undrawable.is_empty() {
        Ok(frames)
    } else {
        Err(PipelineError::Spots(UndrawableSpots { named: undrawable, more }))
    }
}
