//! What the ELEPHANT client's requests tell of its session goes into the project that follows it.

use elephant_project::BoxUm;
use elephant_types::Spot;

use crate::{PredictFlowRequest, PredictRequest, UpdateFlowLabels, UpdateLabels, UseCases};

impl UseCases {
    /// A prediction was answered to the client.
    pub fn mirror_prediction(&self, request: &PredictRequest, spots: &[Spot]) {
        let edges = request.voxel_size.zyx();
        let inside = request.crop.map(|crop| BoxUm {
            min_um: std::array::from_fn(|d| crop.origin[d] as f64 * edges[d]),
            max_um: std::array::from_fn(|d| (crop.origin[d] + crop.size[d]) as f64 * edges[d]),
        });
        let mirror = self.workspace.mirror();
        mirror.predicted(&request.dataset, request.timepoint, inside, spots);
        mirror.voxels(&request.dataset, request.voxel_size);
    }

    /// Labels were drawn from the client's tags. In live mode it sends only those that are visible.
    pub fn mirror_tags(&self, request: &UpdateLabels) {
        self.workspace.mirror().tagged(&request.dataset, &request.spots, request.is_live);
    }

    /// Cells were asked for their places in the frame before.
    pub fn mirror_candidates(&self, request: &PredictFlowRequest) {
        let mirror = self.workspace.mirror();
        mirror.candidates(&request.dataset, request.timepoint, &request.detections());
        mirror.voxels(&request.dataset, request.voxel_size);
    }

    /// Flow labels were drawn from the links that the client's user has approved.
    pub fn mirror_approved_links(&self, request: &UpdateFlowLabels) {
        let mirror = self.workspace.mirror();
        mirror.approved_links(&request.dataset, &request.links);
        mirror.voxels(&request.dataset, request.voxel_size);
    }
}
