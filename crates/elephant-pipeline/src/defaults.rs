//! Values of the fields that a request may leave out; the original's, as its clients send all fields.

use elephant_types::{KeepAxials, NetworkTask};

pub(crate) fn keep_axials() -> KeepAxials {
    KeepAxials::first(4)
}

pub(crate) fn detection() -> NetworkTask {
    NetworkTask::Detection
}

pub(crate) fn is_3d() -> bool {
    true
}

pub(crate) fn center_ratio() -> f64 {
    0.4
}

pub(crate) fn threshold() -> f64 {
    0.5
}

pub(crate) fn max_radius_um() -> f64 {
    1e6
}

pub(crate) fn max_displacement() -> f64 {
    80.0
}

pub(crate) fn axis_weights() -> [f64; 3] {
    [1.0; 3]
}

pub(crate) fn batch_size() -> usize {
    1
}

pub(crate) fn crop_size() -> [usize; 3] {
    [16, 384, 384]
}

pub(crate) fn learning_rate() -> f64 {
    1e-3
}

pub(crate) fn crop_count() -> u32 {
    5
}

pub(crate) fn epochs() -> u32 {
    10
}

pub(crate) fn log_interval() -> u64 {
    1
}

pub(crate) fn divisor() -> f64 {
    1.0
}

pub(crate) fn members() -> usize {
    1
}
