//! What callers of the device thread can rely on: turns, cancellation, and failures that stay their own.

use std::{
    sync::{Arc, Mutex, mpsc},
    thread,
};

use elephant_nn::{DeviceChoice, DeviceHandle, DeviceOptions, Model, NnError};
use elephant_types::{
    CancelToken, Coded, ErrorCode, KeepAxials, NetworkKind, Numerics, ProbabilityOutput, Progress, SegmentationOptions,
    SegmentationRequest, TaskContext,
};
use ndarray::Array3;

fn start() -> DeviceHandle {
    DeviceHandle::start(DeviceOptions { device: DeviceChoice::Cpu, ..DeviceOptions::default() }).unwrap()
}

fn model() -> Arc<Model> {
    Arc::new(Model::random(NetworkKind::Planar, 1).unwrap())
}

/// Four tiles.
fn request() -> SegmentationRequest {
    with(options())
}

fn with(options: SegmentationOptions) -> SegmentationRequest {
    let image = Array3::from_shape_fn((4, 16, 16), |(z, y, x)| (z * 256 + y * 16 + x) as f32 / 1024.0);
    SegmentationRequest { image, options }
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
    let request = with(SegmentationOptions { batch_size: 3, ..options() });
    start().segment(model(), request, context).unwrap();
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
    let error = start().segment(model(), request(), context).unwrap_err();
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
        move || device.segment(model(), request(), slow)
    });
    has_started.recv().unwrap();

    // One that is cancelled while it waits returns although the device is still busy.
    let cancel = CancelToken::default();
    cancel.cancel();
    let error = device.segment(model(), request(), TaskContext::new(cancel, |_| {})).unwrap_err();
    assert_eq!(error.code(), ErrorCode::Cancelled);

    let second = thread::spawn({
        let device = device.clone();
        move || device.segment(model(), request(), TaskContext::detached())
    });
    go_on.send(()).unwrap();
    let (first, second) = (first.join().unwrap().unwrap(), second.join().unwrap().unwrap());
    assert_eq!(first, second);
}

#[test]
fn a_panic_fails_its_own_prediction_only() {
    let device = start();
    let context = TaskContext::new(CancelToken::default(), |_| panic!("on purpose"));
    let error = device.segment(model(), request(), context).unwrap_err();
    assert!(matches!(error, NnError::Panicked), "{error}");
    device.segment(model(), request(), TaskContext::detached()).unwrap();
}

#[test]
fn a_request_that_does_not_fit_says_why() {
    let device = start();
    let volumetric = with(SegmentationOptions { kind: NetworkKind::Volumetric, ..options() });
    let error = device.segment(model(), volumetric, TaskContext::detached()).unwrap_err();
    assert_eq!(error.code(), ErrorCode::InvalidArgument);
    assert!(error.to_string().contains("the model is a 2-D network, but a 3-D one was asked for"), "{error}");

    let empty = SegmentationRequest { image: Array3::zeros((3, 0, 5)), ..request() };
    let error = device.segment(model(), empty, TaskContext::detached()).unwrap_err();
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
                let request = SegmentationRequest { image, options };
                let found = device.segment(model(), request, TaskContext::detached()).unwrap();
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
fn a_gpu_that_is_not_there_is_an_error_for_everyone_who_asks() {
    let device =
        DeviceHandle::start(DeviceOptions { device: DeviceChoice::Cuda(4000), ..DeviceOptions::default() }).unwrap();
    let errors = [device.info().unwrap_err(), device.segment(model(), request(), TaskContext::detached()).unwrap_err()];
    for error in errors {
        assert_eq!(error.code(), ErrorCode::Unavailable);
        assert!(error.to_string().starts_with("cannot use cuda:4000: "), "{error}");
    }
}
