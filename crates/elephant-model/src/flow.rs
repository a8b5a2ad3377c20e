//! Prediction of the displacement of cells between two frames.

use std::{path::Path, sync::Arc};

use elephant_types::{KeepAxials, NetworkKind, Numerics, TaskContext};
use ndarray::Array4;

use crate::{CollectedPlanes, ImageSource, ModelError, NetworkCatalogue, PlaneSink};

/// Options of a prediction of displacements.
#[derive(Clone, Copy, Debug)]
pub struct FlowOptions {
    /// Kind of the network in the checkpoint.
    pub kind: NetworkKind,
    /// Levels whose pooling leaves z alone.
    pub keep_axials: KeepAxials,
    /// Tile size (z, y, x) in voxels; clipped to the image. `None` computes the pair in one piece.
    pub tile: Option<[usize; 3]>,
    /// Whether tiles are padded by replication before the network, and cropped after it. The original never does.
    pub is_pad: bool,
    /// Tiles per forward pass, at least 1.
    pub batch_size: usize,
    /// How tiles are blended, and in which order sums are formed.
    pub numerics: Numerics,
}

impl FlowOptions {
    /// Channels of the result: components x, y and z, of a 2-D network x and y.
    pub fn components(&self) -> usize {
        match self.kind {
            NetworkKind::Volumetric => 3,
            NetworkKind::Planar => 2,
        }
    }
}

/// A network that tells where the cell of each voxel was in the frame before.
pub trait FlowModel: NetworkCatalogue {
    /// Predicts the displacements in one pair of frames with the network in the `.pth` file `model`, the mean over an
    /// ensemble.
    ///
    /// `pair` has two channels, each scaled to 0..=1: the earlier frame (t − 1), then the later one (t). `sink` gets planes
    /// (c, z, y, x) of the vectors from the later frame's cells to their places in the earlier one, with components in the
    /// order x, y, z (a 2-D network: x, y) between −1 and 1. They are in units of the displacement that the training's labels
    /// were divided by, which depends on the axis (docs/method.md, "Flow labels").
    ///
    /// Waits for its turn on the device, reads the pair tile by tile, and gives `sink` planes as they are finished, on this
    /// thread. Progress is in tiles.
    ///
    /// # Errors
    /// When the file is not such a network, the pair or the sink fails, the device fails, or the task is cancelled. The sink
    /// may have taken planes by then.
    fn displacements(
        &self,
        model: &Path,
        pair: Arc<dyn ImageSource>,
        options: &FlowOptions,
        sink: &mut dyn PlaneSink,
        context: &TaskContext,
    ) -> Result<(), ModelError>;

    /// [`displacements`](Self::displacements) of a pair in memory, (2, z, y, x); returns all vectors, (c, z, y, x).
    ///
    /// # Errors
    /// As [`displacements`](Self::displacements).
    fn displacements_whole(
        &self,
        model: &Path,
        pair: Array4<f32>,
        options: &FlowOptions,
        context: &TaskContext,
    ) -> Result<Array4<f32>, ModelError> {
        let pair: Arc<dyn ImageSource> = Arc::new(pair);
        let mut collected = CollectedPlanes::new(pair.shape());
        self.displacements(model, pair, options, &mut collected, context)?;
        Ok(collected.into_map())
    }

    /// Memory of this computer, in bytes, that [`displacements`](Self::displacements) takes while it is its turn, for frames
    /// of `shape` (z, y, x): tiles, the network's activations, and the planes that are blended or wait for the sink. The
    /// frames themselves and what the sink keeps are not counted.
    ///
    /// # Errors
    /// When such a pair cannot be predicted with these options, or there is no device.
    fn displacement_bytes(&self, shape: [usize; 3], options: &FlowOptions) -> Result<u64, ModelError>;
}
