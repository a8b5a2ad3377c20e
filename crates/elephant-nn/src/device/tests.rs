//! What happens at the edges of the device's thread.

use elephant_model::{CollectedPlanes, Objective, ProbabilityOutput, TrainingBatch};
use elephant_testkit::eventually;
use elephant_types::{KeepAxials, NetworkKind};
use ndarray::{Array3, Array4};

use super::*;

/// How long a test waits for what must happen.
const PATIENCE: Duration = Duration::from_mins(1);

fn cpu() -> DeviceHandle {
    DeviceHandle::start(DeviceOptions { device: DeviceChoice::Cpu, ..DeviceOptions::default() }).unwrap()
}

/// What `work` returns, unless it waits for ever.
fn soon<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, result) = mpsc::sync_channel(1);
    thread::spawn(move || done.send(work()));
    result.recv_timeout(PATIENCE).expect("it neither returned nor failed")
}

fn found() -> DeviceInfo {
    DeviceInfo { name: "cpu".into(), gpu: None, threads: 1, precision: Precision::F32, training_devices: 1 }
}

fn segment(device: &DeviceHandle) -> Result<Array4<f32>, NnError> {
    let options = SegmentationOptions {
        kind: NetworkKind::Planar,
        keep_axials: KeepAxials::first(4),
        tile: None,
        is_pad: false,
        batch_size: 1,
        numerics: Numerics::Corrected,
        output: ProbabilityOutput::Center,
    };
    let mut collected = CollectedPlanes::new([1, 16, 16]);
    let (model, image) = (Arc::new(Model::random(NetworkKind::Planar, 1).unwrap()), Array3::zeros((1, 16, 16)));
    device.segment(model, Arc::new(image), &options, &mut collected, &TaskContext::detached())?;
    Ok(collected.into_map())
}

fn training(device: &DeviceHandle) -> Training {
    let model = Arc::new(Model::random(NetworkKind::Volumetric, 1).unwrap());
    let objective = Objective::Labels { class_weights: [1.0, 10.0, 10.0], false_weight: 10.0 };
    let options = TrainingOptions { objective, numerics: Numerics::Corrected };
    device.train(model, options, None, &CancelToken::default()).unwrap()
}

fn trainers(device: &DeviceHandle) -> usize {
    device.call(&CancelToken::default(), WhenCancelled::Leave, |worker| Ok(worker.trainers.len())).unwrap()
}

#[test]
fn nobody_waits_for_a_thread_that_has_died() {
    let at_once = DeviceHandle::spawn(|_, _| panic!("on purpose")).unwrap();
    let later = DeviceHandle::spawn(|status, commands| {
        status.set(Ok(found()));
        drop(commands.recv());
        panic!("on purpose");
    });
    for device in [at_once, later.unwrap()] {
        let (other, third) = (device.clone(), device.clone());
        let error = soon(move || segment(&other)).unwrap_err();
        assert!(matches!(error, NnError::Stopped), "{error}");
        let info = soon(move || third.info());
        assert!(matches!(&info, Err(NnError::Stopped)) || info.is_ok_and(|info| info == found()));
        // A caller is released with its command, just before the thread ends.
        eventually("the device is unready", || matches!(device.health(), Err(NnError::Stopped)));
    }
}

#[test]
fn health_is_told_without_waiting() {
    let (found_it, may_find) = mpsc::sync_channel::<()>(0);
    let device = DeviceHandle::spawn(move |status, commands| {
        let _ = may_find.recv();
        status.set(Ok(found()));
        drop(commands.recv());
    });
    let device = device.unwrap();
    assert!(matches!(device.health(), Err(NnError::Starting)));
    found_it.send(()).unwrap();
    device.info().unwrap();
    device.health().unwrap();
}

#[test]
fn a_training_whose_caller_left_while_it_began_is_dropped() {
    let device = cpu();
    let kept = training(&device);
    let model = Model::random(NetworkKind::Planar, 1).unwrap();
    let options = TrainingOptions { objective: Objective::Intensities, numerics: Numerics::Corrected };
    let gone = std::sync::Weak::new();
    device
        .call(&CancelToken::default(), WhenCancelled::Leave, move |worker| {
            worker.begin_training(gone, &model, options, None)?;
            assert_eq!(worker.trainers.len(), 2);
            Ok(())
        })
        .unwrap();
    assert_eq!(trainers(&device), 1);
    drop(kept);
    assert_eq!(trainers(&device), 0);
}

#[test]
fn dropping_a_training_wakes_the_thread() {
    let (woken, is_woken) = mpsc::sync_channel(1);
    let device = DeviceHandle::spawn(move |_, commands| woken.send(commands.recv().is_ok()).unwrap()).unwrap();
    drop(Training { owner: Arc::new(()), device: Waking(device.clone()) });
    assert!(is_woken.recv_timeout(PATIENCE).unwrap());
}

#[test]
fn a_full_queue_can_be_left() {
    let (end, has_ended) = mpsc::sync_channel::<()>(0);
    let device = DeviceHandle::spawn(move |_, _commands| {
        let _ = has_ended.recv();
    });
    let device = device.unwrap();
    let cancel = CancelToken::default();
    for _ in 0..QUEUE_LENGTH {
        device.send(Box::new(|_| {}), &cancel).unwrap();
    }
    let (waiting, stop) = (device.clone(), cancel.clone());
    let caller = thread::spawn(move || waiting.call(&stop, WhenCancelled::AwaitEnd, |_| Ok(())));
    cancel.cancel();
    let left = soon(move || caller.join().unwrap());
    assert!(matches!(left, Err(NnError::Cancelled(_))));
    drop(end);
}

#[test]
fn a_cancelled_command_holds_nothing_in_the_queue() {
    let (taken, is_taken) = mpsc::sync_channel(1);
    let (end, has_ended) = mpsc::sync_channel::<()>(0);
    let device = DeviceHandle::spawn(move |_, commands| {
        let _in_queue = commands.recv();
        taken.send(()).unwrap();
        let _ = has_ended.recv();
    });
    let device = device.unwrap();
    let image = Arc::new(());
    let (held, cancel, waiting) = (Arc::clone(&image), CancelToken::default(), device.clone());
    let stop = cancel.clone();
    let caller = thread::spawn(move || {
        waiting.call(&cancel, WhenCancelled::Leave, move |_| {
            drop(held);
            Ok(())
        })
    });
    is_taken.recv_timeout(PATIENCE).unwrap();
    stop.cancel();
    let left = soon(move || caller.join().unwrap());
    assert!(matches!(left, Err(NnError::Cancelled(_))));
    assert_eq!(Arc::strong_count(&image), 1);
    drop(end);
}

#[test]
fn who_must_know_the_end_waits_for_it_when_cancelled() {
    let device = cpu();
    let cancel = CancelToken::default();
    let stop = cancel.clone();
    let result = device.call(&cancel, WhenCancelled::AwaitEnd, move |_| {
        stop.cancel();
        // Time enough for the caller to notice.
        thread::sleep(4 * CANCEL_POLL);
        Ok(7)
    });
    assert_eq!(result.unwrap(), 7);
}

#[test]
fn a_step_that_runs_stops_and_has_changed_nothing() {
    let device = cpu();
    let training = training(&device);
    let shape = (2, 16, 96, 96);
    let batch = TrainingBatch::labelled(
        Array4::from_shape_fn(shape, |(n, z, y, x)| ((n + z + y + x) % 7) as f32 / 7.0),
        Array4::from_shape_fn(shape, |(n, z, y, x)| ((n + z + y + x) % 4) as u8),
        KeepAxials::first(2),
    );
    let before = training.snapshot().unwrap();
    let cancel = CancelToken::default();
    let (owner, stop) = (Arc::downgrade(&training.owner), cancel.clone());
    // Cancelled when the command has begun, which `call` itself no longer looks at.
    let result = device.call(&cancel, WhenCancelled::AwaitEnd, move |worker| {
        stop.cancel();
        worker.trainer(&owner)?.step(&batch, 1e-3, &stop)
    });
    assert!(matches!(result, Err(NnError::Cancelled(_))), "{result:?}");
    let after = training.snapshot().unwrap();
    assert_eq!((before.0.fingerprint(), before.1), (after.0.fingerprint(), after.1));
}
