//! Drawing approved links into a dataset's store of flow labels, reading and erasing them (docs/protocol.md, "POST
//! /flow/update"; docs/method.md, "Flow labels").

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock},
};

use elephant_fs::{FolderLock, FsError};
use elephant_image::{Dims, FlowLabelFrame, UndrawableSpot};
use elephant_jobs::{Activity, JobSpec, ProcessState};
use elephant_types::{ApprovedLink, CancelToken, DatasetName, KeepAxials, Numerics, TaskContext, TaskEvent, VoxelSize};
use elephant_volume::{Attributes, Dataset, FrameSource, Store};
use ndarray::{Array3, Array4, Axis};
use serde::{Deserialize, Serialize};
use serde_json::value::to_raw_value;

use super::stores::FlowLabelStore;
use crate::{
    PipelineError, Request, UndrawableSpots, UseCases, Workspace, defaults,
    frames::{HeldDataset, open_dataset},
    labels::{
        BUSY, Centroids, MAX_NAMED_SPOTS, centroids,
        listing::{norm_key, replace_listed},
    },
};

/// Which pairs of frames to label, and how.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpdateFlowLabels {
    /// The dataset.
    pub dataset: DatasetName,
    /// What is drawn, later links over earlier ones. All flow labels of a pair that has a link are replaced.
    pub links: Vec<ApprovedLink>,
    /// Edges of the stored voxels; in 2-D z is not used.
    pub voxel_size: VoxelSize,
    /// The displacement in the plane, in stored voxels, that a network's output of 1 stands for.
    #[serde(default = "defaults::max_displacement")]
    pub max_displacement: f64,
    /// Pooling along z of the network that is to learn from the labels, which scales displacements along z. `None` where it
    /// is not known: chosen by the voxel's anisotropy, or, with the original's numerics, not scaled.
    #[serde(default)]
    pub keep_axials: Option<KeepAxials>,
}

impl UpdateFlowLabels {
    /// Checks everything that does not depend on the dataset.
    ///
    /// # Errors
    /// [`PipelineError::Invalid`], with the original's text where it has one.
    pub fn validate(&self) -> Result<(), PipelineError> {
        check_max_displacement(self.max_displacement)?;
        if self.links.is_empty() { Err(PipelineError::Invalid("nothing to update".into())) } else { Ok(()) }
    }

    /// Displacements (z, y, x) in voxels that labels are divided by.
    fn norm_vox(&self, numerics: Numerics) -> [f64; 3] {
        let [z, _, x] = self.voxel_size.zyx();
        let keep_axials = self.keep_axials.unwrap_or_else(|| match numerics {
            Numerics::Original => KeepAxials::first(0),
            Numerics::Corrected => KeepAxials::for_anisotropy(z / x),
        });
        keep_axials.flow_norm(self.max_displacement)
    }
}

/// Displacements are stored in half precision, which ends at 65504, and relative to this.
const MAX_DISPLACEMENTS: std::ops::RangeInclusive<f64> = 1e-3..=1e4;

/// Refuses a displacement that nothing can be divided by, or that leads out of the stored numbers.
pub(super) fn check_max_displacement(value: f64) -> Result<(), PipelineError> {
    if MAX_DISPLACEMENTS.contains(&value) {
        return Ok(());
    }
    Err(PipelineError::Invalid(format!("max_displacement must be 0.001 to 10000 voxels, usually 80, not {value:e}")))
}

/// The flow labels of all datasets of a workspace. Clones share state.
#[derive(Clone, Debug)]
pub struct FlowLabels {
    workspace: Workspace,
    numerics: Numerics,
    /// Held for writing while pairs are drawn, which are not listed then.
    listed: Arc<RwLock<()>>,
}

impl FlowLabels {
    /// Flow labels in `workspace`, drawn by the rules of `numerics`.
    pub fn new(workspace: &Workspace, numerics: Numerics) -> Self {
        Self { workspace: workspace.clone(), numerics, listed: Arc::default() }
    }

    /// Draws the flow labels of every pair that has a link, from nothing, and returns these pairs in ascending order. Pairs
    /// between them that have none lose their labels: clients send ranges without gaps, so their approvals are gone.
    ///
    /// A link whose target is known not to be in the frame after its source is left out, and the caller is told: it belongs
    /// to no pair.
    ///
    /// # Errors
    /// [`PipelineError::Invalid`] when another update of the dataset is running or no link can be used,
    /// [`PipelineError::Spots`] naming the targets that cannot be drawn; nothing is changed then. After other errors, and
    /// when the task is cancelled, some pairs may be done.
    pub fn update(&self, request: &UpdateFlowLabels, context: &TaskContext) -> Result<Vec<usize>, PipelineError> {
        request.validate()?;
        let (_lock, held) = self.open_for_writing(&request.dataset)?;
        let dataset = held.dataset();
        let norm_vox = request.norm_vox(self.numerics);
        // Nothing is drawn when one of the links cannot be.
        let drawn = frames(dataset, request, norm_vox, context)?;
        let pairs: Vec<usize> = drawn.keys().copied().collect();
        let store = FlowLabelStore::of(dataset)?;
        let [z, y, x] = norm_vox;
        let norm = to_raw_value(&[x, y, z]).map_err(|error| PipelineError::Invalid(error.to_string()))?;
        let (mut done, total) = (0, drawn.len() as u64);
        replace_listed(dataset.store(Store::FlowLabels), &self.listed, drawn, |t, frame, listing| {
            context.check()?;
            listing.begin(t);
            store.replace(t, frame.as_ref(), context)?;
            let Some(frame) = frame else { return Ok(()) };
            listing.add(centroids::key(t), centroids::to_json(dataset, frame.centroids())?);
            listing.add(norm_key(t), norm.clone());
            done += 1;
            context.report(done, total);
            Ok(())
        })?;
        Ok(pairs)
    }

    /// Erases all flow labels of a dataset.
    ///
    /// # Errors
    /// When an update of the dataset's flow labels is running or a file cannot be removed.
    pub fn reset(&self, dataset: &DatasetName) -> Result<(), PipelineError> {
        let (_lock, dataset) = self.open_for_writing(dataset)?;
        let store = dataset.dataset().store(Store::FlowLabels);
        // From here on no reader finds labels.
        store.replace_attributes(&Attributes::new())?;
        Ok(store.clear()?)
    }

    /// Which of the pairs that `is_included` selects have labels, and where: for each the centres (z, y, x) of its targets in
    /// whole voxels inside the image; z is 0 in 2-D. Waits while some are drawn.
    ///
    /// # Errors
    /// When the attributes are damaged.
    pub(crate) fn centroids_at(
        &self,
        dataset: &Dataset,
        is_included: impl Fn(usize) -> bool,
    ) -> Result<Centroids, PipelineError> {
        let _listed = self.listed.read().unwrap_or_else(PoisonError::into_inner);
        centroids::read(dataset, Store::FlowLabels, is_included)
    }

    /// The labels of pair `t` in the box that begins at `origin` and has `size`, both (z, y, x): displacements (channel, z, y,
    /// x) along x, y and, in 3-D, z in units of `norm_vox` (z, y, x), and their weight. Labels that were drawn for another
    /// unit are scaled; the original's labels, whose unit is not known, are taken as they are.
    ///
    /// # Errors
    /// When the box leaves the movie, the store is damaged or the task is cancelled.
    pub(crate) fn read(
        frames: &FrameSource,
        t: usize,
        origin: [usize; 3],
        size: [usize; 3],
        norm_vox: [f64; 3],
        cancel: &CancelToken,
    ) -> Result<(Array4<f32>, Array3<f32>), PipelineError> {
        let dataset = frames.dataset();
        let channels = dataset.flow_channels();
        let mut values = Array4::zeros((channels, size[0], size[1], size[2]));
        for (channel, out) in values.axis_iter_mut(Axis(0)).enumerate() {
            frames.read_flow_labels(t, channel, origin, out, cancel)?;
        }
        let mut weight = Array3::zeros(size);
        frames.read_flow_labels(t, channels, origin, weight.view_mut(), cancel)?;
        if let Some(drawn_xyz) = drawn_norm(dataset, t)? {
            let [z, y, x] = norm_vox;
            for ((mut component, drawn), wanted) in values.axis_iter_mut(Axis(0)).zip(drawn_xyz).zip([x, y, z]) {
                if drawn != wanted {
                    component.mapv_inplace(|value| (f64::from(value) * drawn / wanted) as f32);
                }
            }
        }
        Ok((values, weight))
    }

    /// One update at a time, and none during a generation.
    fn open_for_writing(&self, name: &DatasetName) -> Result<(FolderLock, HeldDataset), PipelineError> {
        let dataset = open_dataset(&self.workspace, name)?;
        let folder = self.workspace.dataset(name)?;
        let lock = FolderLock::try_acquire_part(&folder, ".flow-labels.lock", "an update of its flow labels");
        let lock = lock.map_err(|error| match error {
            FsError::Locked { .. } => PipelineError::Invalid(BUSY.into()),
            error => error.into(),
        })?;
        Ok((lock, dataset))
    }
}

/// What the labels of a pair were divided by, (x, y, z), where that was noted.
fn drawn_norm(dataset: &Dataset, t: usize) -> Result<Option<[f64; 3]>, PipelineError> {
    let mut attributes = dataset.store(Store::FlowLabels).attributes()?;
    let norm = attributes.remove(&norm_key(t)).and_then(|text| serde_json::from_str::<[f64; 3]>(text.get()).ok());
    Ok(norm.filter(|norm| norm.iter().all(|part| part.is_finite() && *part > 0.0)))
}

/// The links of each pair, ready to be drawn. Tells `context` what was left out and what no network can learn.
fn frames(
    dataset: &Dataset,
    request: &UpdateFlowLabels,
    norm_vox: [f64; 3],
    context: &TaskContext,
) -> Result<BTreeMap<usize, FlowLabelFrame>, PipelineError> {
    let dims = if dataset.is_3d() { Dims::ThreeD } else { Dims::TwoD };
    let empty = FlowLabelFrame::new(dataset.frame_shape(), request.voxel_size, norm_vox, dims);
    let mut frames = BTreeMap::new();
    let (mut undrawable, mut more, mut skipping) = (Vec::new(), 0, 0_usize);
    for (number, link) in (1_usize..).zip(&request.links) {
        context.check()?;
        check_pair(dataset, &request.dataset, link.t)?;
        if link.target_t.is_some_and(|target| Some(target) != link.t.checked_add(1)) {
            skipping += 1;
            continue;
        }
        let frame = frames.entry(link.t).or_insert_with(|| empty.clone());
        if let Err(reason) = frame.add(link) {
            if undrawable.len() < MAX_NAMED_SPOTS {
                undrawable.push(UndrawableSpot { label: format!("of link {number}").into(), t: link.t + 1, reason });
            } else {
                more += 1;
            }
        }
    }
    if !undrawable.is_empty() {
        return Err(PipelineError::Spots(UndrawableSpots { named: undrawable, more }));
    }
    if skipping > 0 {
        context.tell(TaskEvent::note(format!("{skipping} links skip frames and belong to no pair; they are left out")));
    }
    if frames.is_empty() {
        return Err(PipelineError::Invalid("nothing to update: every link skips frames".into()));
    }
    let far: usize = frames.values().map(FlowLabelFrame::out_of_reach).sum();
    if far > 0 {
        context.tell(TaskEvent::note(format!(
            "{far} links are longer than max_displacement allows, so that no network can learn them; use a larger one"
        )));
    }
    Ok(frames)
}

/// Refuses the number of a pair that the dataset does not have.
fn check_pair(dataset: &Dataset, name: &DatasetName, t: usize) -> Result<(), PipelineError> {
    let count = dataset.timepoint_count();
    // `t + 1` would overflow for the largest number.
    if t < count.saturating_sub(1) {
        return Ok(());
    }
    Err(PipelineError::NotFound(format!(
        "there is no timepoint after timepoint {t}; the dataset {name} has {count}, counted from 0, and t is the source's"
    )))
}

impl Request for UpdateFlowLabels {
    type Output = Vec<usize>;

    fn spec(&self) -> JobSpec {
        changes_flow_labels(&self.dataset)
    }

    fn validate(&self) -> Result<(), PipelineError> {
        self.validate()
    }

    fn run(&self, use_cases: &UseCases, context: &TaskContext) -> Result<Vec<usize>, PipelineError> {
        use_cases.flow_labels.update(self, context)
    }

    fn mirror(&self, use_cases: &UseCases, _: &Vec<usize>) {
        use_cases.mirror_approved_links(self);
    }
}

impl Request for EraseFlowLabels {
    type Output = ();

    fn spec(&self) -> JobSpec {
        changes_flow_labels(&self.dataset)
    }

    fn validate(&self) -> Result<(), PipelineError> {
        Ok(())
    }

    fn run(&self, use_cases: &UseCases, _: &TaskContext) -> Result<(), PipelineError> {
        use_cases.flow_labels.reset(&self.dataset)
    }
}

/// Which dataset to erase the flow labels of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EraseFlowLabels {
    /// The dataset.
    pub dataset: DatasetName,
}

fn changes_flow_labels(dataset: &DatasetName) -> JobSpec {
    let activity = Activity { updating_flow_labels: true, ..Activity::showing(ProcessState::Wait) };
    JobSpec { activity, ..JobSpec::new("update_flow", dataset.as_str()) }
}
