//! Synthetic scenes as the network sees them.

use elephant_image::{Dims, normalize};
use elephant_synth::{Nucleus, Scene};
use elephant_types::{KeepAxials, NetworkKind, SpotTag, TaggedSpot};
use ndarray::Array3;

/// The radius of the centre that the network marks, over the radius of the cell: the client's default.
pub(crate) const CENTER_RATIO: f64 = 0.4;

/// The intensities of a scene, scaled to 0..=1, (z, y, x).
pub(crate) fn normalized(scene: &Scene) -> Array3<f32> {
    let mut image = scene.image.mapv(f32::from);
    normalize(image.view_mut());
    image
}

/// How z is pooled for the voxels of a scene.
pub(crate) fn keep_axials(scene: &Scene) -> KeepAxials {
    let [z, _, x] = scene.voxel_size.zyx();
    KeepAxials::for_anisotropy(z / x)
}

pub(crate) fn dims(kind: NetworkKind) -> Dims {
    match kind {
        NetworkKind::Volumetric => Dims::ThreeD,
        NetworkKind::Planar => Dims::TwoD,
    }
}

/// A nucleus as a person tags a cell that was found.
pub(crate) fn tagged(nucleus: &Nucleus) -> TaggedSpot {
    TaggedSpot {
        t: 0,
        center_um: nucleus.center_um,
        covariance_um2: nucleus.covariance_um2(),
        tag: SpotTag::TruePositive,
        label: "synthetic nucleus".into(),
    }
}
