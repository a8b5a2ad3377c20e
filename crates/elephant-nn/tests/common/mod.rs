//! What tests of the device share.

use std::sync::Arc;

use elephant_model::{CollectedPlanes, ImageSource, SegmentationOptions};
use elephant_nn::{DeviceHandle, Model, NnError};
use elephant_types::TaskContext;
use ndarray::{Array3, Array4};

/// All probabilities of an image in memory, (c, z, y, x).
pub fn segment(
    device: &DeviceHandle,
    model: &Arc<Model>,
    image: &Array3<f32>,
    options: &SegmentationOptions,
    context: &TaskContext,
) -> Result<Array4<f32>, NnError> {
    let image: Arc<dyn ImageSource> = Arc::new(image.clone());
    let mut collected = CollectedPlanes::new(image.shape());
    device.segment(model.clone(), image, options, &mut collected, context)?;
    Ok(collected.into_map())
}
