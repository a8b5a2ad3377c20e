//! Page faults, processor time and memory of forward passes and training steps under one allocator. Both allocators'
//! benchmarks run one after the other; faults do not depend on what else the machine does, times do.

use std::{fs, sync::Arc, thread, time::Duration};

use elephant_model::{
    ModelInTraining, Objective, ProbabilityOutput, SegmentationOptions, TrainingBatch, TrainingOptions,
};
use elephant_nn::{DeviceChoice, DeviceHandle, DeviceOptions, Model};
use elephant_types::{CancelToken, KeepAxials, NetworkKind, Numerics};
use ndarray::Axis;

use crate::common::{AnyResult, nuclei, peak_mib, segment};

const RUNS: usize = 3;
/// After that long, an allocator has handed back what it means to hand back.
const IDLE: Duration = Duration::from_secs(15);

/// Prints a line for each figure.
pub fn measure(allocator: &str) -> AnyResult<()> {
    let model = Arc::new(Model::random(NetworkKind::Volumetric, 1)?);
    let options = DeviceOptions { device: DeviceChoice::Cpu, ..DeviceOptions::default() };
    let device = DeviceHandle::start(options)?;
    device.info()?;
    let options = SegmentationOptions {
        kind: NetworkKind::Volumetric,
        keep_axials: KeepAxials::first(4),
        tile: None,
        is_pad: false,
        batch_size: 1,
        numerics: Numerics::Corrected,
        output: ProbabilityOutput::Center,
    };
    for _ in 0..RUNS {
        let image = nuclei([16, 384, 384]);
        let before = Usage::now();
        segment(&device, &model, image, &options)?;
        before.print(&format!("{allocator}, forward 16x384x384"));
    }
    print_memory(allocator, "forward");

    let objective = Objective::Labels { class_weights: [1.0, 10.0, 10.0], false_weight: 10.0 };
    let options = TrainingOptions { objective, numerics: Numerics::Corrected };
    let cancel = CancelToken::default();
    let training = device.train(model, options, None, &cancel)?;
    for _ in 0..RUNS {
        let images = nuclei([16, 192, 192]).insert_axis(Axis(0));
        let labels = images.mapv(|value| if value > 0.5 { 3 } else { 1 });
        let keep_axials = KeepAxials::first(3);
        let batch = TrainingBatch::labelled(images, labels, keep_axials);
        let before = Usage::now();
        training.step(batch, 1e-4, &cancel)?;
        before.print(&format!("{allocator}, step 16x192x192"));
    }
    print_memory(allocator, "step");
    Ok(())
}

fn print_memory(allocator: &str, task: &str) {
    let peak = peak_mib();
    thread::sleep(IDLE);
    println!("{allocator}, {task}: peak {peak} MiB, {} MiB after {} s", resident_mib(), IDLE.as_secs());
}

fn resident_mib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or_default() / 1024
}

/// What this process has used so far.
struct Usage {
    minor_faults: i64,
    user_seconds: f64,
    system_seconds: f64,
}

impl Usage {
    fn now() -> Self {
        #[allow(unsafe_code, reason = "the standard library does not tell what a process has used")]
        // SAFETY: all zeros are a valid `rusage`, which the call then fills in.
        let usage = unsafe {
            let mut usage: libc::rusage = std::mem::zeroed();
            libc::getrusage(libc::RUSAGE_SELF, &raw mut usage);
            usage
        };
        let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
        Self {
            minor_faults: usage.ru_minflt,
            user_seconds: seconds(usage.ru_utime),
            system_seconds: seconds(usage.ru_stime),
        }
    }

    fn print(&self, name: &str) {
        let now = Self::now();
        println!(
            "{name}: {} minor faults, {:.2} s of the processor in the program, {:.2} s in the kernel",
            now.minor_faults - self.minor_faults,
            now.user_seconds - self.user_seconds,
            now.system_seconds - self.system_seconds
        );
    }
}
