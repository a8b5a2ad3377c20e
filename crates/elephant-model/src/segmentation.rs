//! Prediction of one image.

use std::{path::Path, sync::Arc};

use elephant_types::{KeepAxials, NetworkKind, Numerics, TaskContext};
use ndarray::{Array3, Array4};

use crate::{CollectedPlanes, ImageSource, ModelError, NetworkCatalogue, PlaneSink};

/// Which class probabilities the caller needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbabilityOutput {
    /// Class 2, "cell centre", alone: one channel.
    Center,
    /// Background, border and centre: three channels.
    AllClasses,
}

impl ProbabilityOutput {
    /// Number of channels.
    pub fn channels(self) -> usize {
        match self {
            Self::Center => 1,
            Self::AllClasses => 3,
        }
    }
}

/// Options of a prediction.
#[derive(Clone, Copy, Debug)]
pub struct SegmentationOptions {
    /// Kind of the network in the checkpoint.
    pub kind: NetworkKind,
    /// Levels whose pooling leaves z alone.
    pub keep_axials: KeepAxials,
    /// Tile size (z, y, x) in voxels; clipped to the image. `None` computes the image in one piece.
    pub tile: Option<[usize; 3]>,
    /// Whether tiles are padded by replication before the network, and cropped after it.
    pub is_pad: bool,
    /// Tiles per forward pass, at least 1.
    pub batch_size: usize,
    /// How tiles are blended, and in which order sums are formed.
    pub numerics: Numerics,
    /// Channels of the result.
    pub output: ProbabilityOutput,
}

/// A network that distinguishes background, border and centre of cells.
pub trait SegmentationModel: NetworkCatalogue {
    /// Predicts the class probabilities of one image with the network in the `.pth` file `model`, the mean over an
    /// ensemble. Waits for its turn on the device, reads the image tile by tile, and gives `sink` planes as they are
    /// finished, on this thread. Progress is in tiles.
    ///
    /// # Errors
    /// When the file is not such a network, the image or the sink fails, the device fails, or the task is cancelled. The
    /// sink may have taken planes by then.
    fn segment(
        &self,
        model: &Path,
        image: Arc<dyn ImageSource>,
        options: &SegmentationOptions,
        sink: &mut dyn PlaneSink,
        context: &TaskContext,
    ) -> Result<(), ModelError>;

    /// [`segment`](Self::segment) of an image in memory, (z, y, x); returns all probabilities, (c, z, y, x).
    ///
    /// # Errors
    /// As [`segment`](Self::segment).
    fn segment_whole(
        &self,
        model: &Path,
        image: Array3<f32>,
        options: &SegmentationOptions,
        context: &TaskContext,
    ) -> Result<Array4<f32>, ModelError> {
        let image: Arc<dyn ImageSource> = Arc::new(image);
        let mut collected = CollectedPlanes::new(image.shape());
        self.segment(model, image, options, &mut collected, context)?;
        Ok(collected.into_map())
    }

    /// Memory of this computer, in bytes, that [`segment`](Self::segment) takes while it is its turn, for an image of
    /// `shape` (z, y, x): tiles, the network's activations, and the planes that are blended or wait for the sink. The
    /// image itself and what the sink keeps are not counted.
    ///
    /// # Errors
    /// When such an image cannot be segmented with these options, or there is no device.
    fn segment_bytes(&self, shape: [usize; 3], options: &SegmentationOptions) -> Result<u64, ModelError>;
}
