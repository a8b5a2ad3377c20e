//! What callers of the device thread can rely on: turns, cancellation, and failures that stay their own.

mod common;

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
};

use elephant_model::{CollectedPlanes, ImageSource, ModelError, PlaneSink, ProbabilityOutput, SegmentationOptions};
use elephant_nn::{DeviceChoice, DeviceHandle, DeviceOptions, Model, NnError};
use elephant_types::{CancelToken, Coded, ErrorCode, KeepAxials, NetworkKind, Numerics, Progress, TaskContext};
use ndarray::{Array3, Array4, ArrayView4, ArrayViewMut3};

fn start() -> DeviceHandle {
    DeviceHandle::start(DeviceOptions { device: DeviceChoice::Cpu, ..DeviceOptions::default() }).unwrap()
}

fn model() -> Arc<Model> {
    Arc::new(Model::random(NetworkKind::Planar, 1).unwrap())
}

/// Four planes, which are four tiles.
fn image() -> Array3<f32> {
    Array3::from_shape_fn((4, 16, 16), |(z, y, x)| (z * 256 + y * 16 + x) as f32 / 1024.0)
}

fn segment(device: &DeviceHandle, context: &TaskContext) -> Result<Array4<f32>, NnError> {
    common::segment(device, &model(), &image(), &options(), context)
}

fn options() -> SegmentationOptions {
    SegmentationOptions {
        kind: NetworkKind::Planar,
        keep_axials: KeepAxials::first(4),
        tile: None,
        is_pad: false,
        batch_size: 1,
        numerics: Numerics::Corrected,
        output: ProbabilityOutput::Center,
    }
}

#[test]
fn progress_counts_tiles() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let report = Arc::clone(&seen);
    let context = TaskContext::new(CancelToken::default(), move |progress| report.lock().unwrap().push(progress));
    let options = SegmentationOptions { batch_size: 3, ..options() };
    common::segment(&start(), &model(), &image(), &options, &context).unwrap();
    let expected = [0, 3, 4].map(|done| Progress { done, total: 4 });
    assert_eq!(*seen.lock().unwrap(), expected);
}

#[test]
fn a_running_prediction_stops_between_tiles() {
    let cancel = CancelToken::default();
    let (seen, handle) = (Arc::new(Mutex::new(0)), cancel.clone());
    let last = Arc::clone(&seen);
    let context = TaskContext::new(cancel, move |progress: Progress| {
        *last.lock().unwrap() = progress.done;
        if progress.done == 2 {
            handle.cancel();
        }
    });
    let error = segment(&start(), &context).unwrap_err();
    assert_eq!(error.code(), ErrorCode::Cancelled);
    assert_eq!(*seen.lock().unwrap(), 2);
}

#[test]
fn a_waiting_prediction_takes_its_turn_and_can_be_cancelled() {
    let device = start();
    let (started, has_started) = mpsc::sync_channel(1);
    let (go_on, may_go_on) = mpsc::sync_channel::<()>(1);
    let may_go_on = Mutex::new(may_go_on);
    let slow = TaskContext::new(CancelToken::default(), move |progress| {
        if progress.done == 0 {
            started.send(()).unwrap();
            may_go_on.lock().unwrap().recv().unwrap();
        }
    });
    let first = thread::spawn({
        let device = device.clone();
        move || segment(&device, &slow)
    });
    has_started.recv().unwrap();

    // One that is cancelled while it waits returns although the device is still busy.
    let cancel = CancelToken::default();
    cancel.cancel();
    let error = segment(&device, &TaskContext::new(cancel, |_| {})).unwrap_err();
    assert_eq!(error.code(), ErrorCode::Cancelled);

    let second = thread::spawn({
        let device = device.clone();
        move || segment(&device, &TaskContext::detached())
    });
    go_on.send(()).unwrap();
    let (first, second) = (first.join().unwrap().unwrap(), second.join().unwrap().unwrap());
    assert_eq!(first, second);
}

#[test]
fn a_panic_fails_its_own_prediction_only() {
    let device = start();
    let context = TaskContext::new(CancelToken::default(), |_| panic!("on purpose"));
    let error = segment(&device, &context).unwrap_err();
    assert!(matches!(error, NnError::Panicked), "{error}");
    segment(&device, &TaskContext::detached()).unwrap();
}

#[test]
fn a_request_that_does_not_fit_says_why() {
    let device = start();
    let volumetric = SegmentationOptions { kind: NetworkKind::Volumetric, ..options() };
    let error = common::segment(&device, &model(), &image(), &volumetric, &TaskContext::detached()).unwrap_err();
    assert_eq!(error.code(), ErrorCode::InvalidArgument);
    assert!(error.to_string().contains("the model is a 2-D network, but a 3-D one was asked for"), "{error}");

    let empty = Array3::zeros((3, 0, 5));
    let error = common::segment(&device, &model(), &empty, &options(), &TaskContext::detached()).unwrap_err();
    assert_eq!(error.code(), ErrorCode::InvalidArgument);
}

#[test]
fn odd_sizes_are_predicted() {
    let device = start();
    for (shape, tile) in [((1, 1, 1), None), ((2, 3, 1), Some([9, 3, 9])), ((1, 17, 5), Some([1, 16, 5]))] {
        for numerics in [Numerics::Original, Numerics::Corrected] {
            for is_pad in [false, true] {
                let image = Array3::from_elem(shape, 0.5);
                let options = SegmentationOptions { tile, is_pad, numerics, batch_size: 0, ..options() };
                let found = common::segment(&device, &model(), &image, &options, &TaskContext::detached()).unwrap();
                assert_eq!(found.dim(), (1, shape.0, shape.1, shape.2));
                assert!(found.iter().all(|probability| (0.0..=1.0).contains(probability)));
            }
        }
    }
}

#[test]
fn the_device_says_what_it_is() {
    let options = DeviceOptions { device: DeviceChoice::Cpu, threads: Some(1), ..DeviceOptions::default() };
    let info = DeviceHandle::start(options).unwrap().info().unwrap();
    assert_eq!((info.name.as_str(), info.gpu, info.threads), ("cpu", None, 1));
}

#[test]
fn a_gpu_that_is_not_there_is_an_error_of_the_start() {
    let options = DeviceOptions { device: DeviceChoice::Cuda(4000), ..DeviceOptions::default() };
    let error = DeviceHandle::start(options).unwrap_err();
    assert_eq!(error.code(), ErrorCode::Unavailable);
    assert!(error.to_string().starts_with("cannot use cuda:4000: "), "{error}");
}

/// Fails when planes come.
struct Failing;

impl PlaneSink for Failing {
    fn take(&mut self, _: usize, _: ArrayView4<'_, f32>, _: &CancelToken) -> Result<(), ModelError> {
        Err(ModelError::new(ErrorCode::StorageFull, "the disk is full"))
    }
}

#[test]
fn a_sink_that_fails_ends_the_prediction_with_its_error() {
    let (device, tiles) = (start(), Arc::new(Mutex::new(0)));
    let seen = tiles.clone();
    let context = TaskContext::new(CancelToken::default(), move |progress| *seen.lock().unwrap() = progress.done);
    let image = Array3::from_shape_fn((64, 16, 16), |(z, y, x)| (z * 256 + y * 16 + x) as f32);
    let error = device.segment(model(), Arc::new(image), &options(), &mut Failing, &context).unwrap_err();
    assert_eq!((error.code(), error.to_string().as_str()), (ErrorCode::StorageFull, "the disk is full"));
    assert!(*tiles.lock().unwrap() < 64);
    segment(&device, &TaskContext::detached()).unwrap();
}

/// Fails after so many tiles.
struct Unreadable(AtomicUsize);

impl ImageSource for Unreadable {
    fn shape(&self) -> [usize; 3] {
        [4, 16, 16]
    }

    fn read(&self, _: usize, _: [usize; 3], _: ArrayViewMut3<'_, f32>, _: &CancelToken) -> Result<(), ModelError> {
        if self.0.fetch_sub(1, Ordering::Relaxed) == 0 {
            return Err(ModelError::new(ErrorCode::NotFound, "the chunk is gone"));
        }
        Ok(())
    }
}

#[test]
fn an_image_that_cannot_be_read_ends_the_prediction_with_its_error() {
    let device = start();
    let (image, context) = (Arc::new(Unreadable(AtomicUsize::new(2))), TaskContext::detached());
    let mut sink = CollectedPlanes::new([4, 16, 16]);
    let error = device.segment(model(), image, &options(), &mut sink, &context).unwrap_err();
    assert_eq!((error.code(), error.to_string().as_str()), (ErrorCode::NotFound, "the chunk is gone"));
    segment(&device, &context).unwrap();
}
