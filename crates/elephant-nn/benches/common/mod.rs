//! What the benchmarks of the network share: an image, memory, and the peer in Python.

use std::{error::Error, fs, path::Path, sync::Arc};

use elephant_model::{CollectedPlanes, ImageSource, SegmentationOptions};
use elephant_nn::{DeviceHandle, Model};
use elephant_types::TaskContext;
use ndarray::{Array3, Array4};
use serde_json::Value;

pub type AnyResult<T> = Result<T, Box<dyn Error>>;

/// Bright balls over noise.
pub fn nuclei([depth, height, width]: [usize; 3]) -> Array3<f32> {
    Array3::from_shape_fn((depth, height, width), |(z, y, x)| {
        let index = ((z * height + y) * width + x) as u64;
        let noise = (index.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as f32 / (1 << 24) as f32;
        let distance = |at: usize, period: usize| (at % period) as f32 - period as f32 / 2.0;
        let square = 16.0 * distance(z, 8).powi(2) + distance(y, 32).powi(2) + distance(x, 32).powi(2);
        0.2 * noise + 0.7 * (-square / 72.0).exp()
    })
}

/// All probabilities of an image in memory, (c, z, y, x).
#[allow(dead_code, reason = "not every benchmark predicts")]
pub fn segment(
    device: &DeviceHandle,
    model: &Arc<Model>,
    image: Array3<f32>,
    options: &SegmentationOptions,
) -> AnyResult<Array4<f32>> {
    let image: Arc<dyn ImageSource> = Arc::new(image);
    let mut collected = CollectedPlanes::new(image.shape());
    device.segment(model.clone(), image, options, &mut collected, &TaskContext::detached())?;
    Ok(collected.into_map())
}

/// The most memory that this process has held.
pub fn peak_mib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or_default() / 1024
}

/// A Python peer, which does one task for each line it gets.
pub struct Peer {
    peer: elephant_testkit::Peer,
    pub peak_mib: f64,
}

impl Peer {
    /// `script` is in `benches/peers`. `None` without a Python to run it.
    pub fn start(script: &str, model: &Path) -> AnyResult<Option<Self>> {
        let peer = elephant_testkit::Peer::start(script, &[model])?;
        Ok(peer.map(|peer| Self { peer, peak_mib: 0.0 }))
    }

    /// Seconds that the task took.
    pub fn run(&mut self, task: &Value) -> AnyResult<f64> {
        let answer: Value = serde_json::from_str(&self.peer.ask(&task.to_string())?)?;
        self.peak_mib = answer["peak_mib"].as_f64().ok_or("no peak_mib")?;
        Ok(answer["seconds"].as_f64().ok_or("no seconds")?)
    }
}
