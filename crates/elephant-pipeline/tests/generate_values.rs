//! What becomes of values that are not unsigned 8 or 16 bit; `tests/golden/field/reading/make_reading.py` says what they are.

#![allow(clippy::disallowed_methods)]

use std::path::Path;

use elephant_pipeline::{GenerateOptions, PipelineError, Summary, generate_dataset};
use elephant_testkit::{golden, shared};
use elephant_types::{CancelToken, Coded, ErrorCode, TaskContext};
use elephant_volume::{FrameCache, FrameSource};
use ndarray::Array3;
use tempfile::TempDir;

const SHAPE: [usize; 3] = [3, 4, 5];

fn options(name: &str, folder: &TempDir) -> GenerateOptions {
    GenerateOptions::new(&golden("field/reading").join(name), folder.path())
}

fn generate(options: &GenerateOptions) -> Result<Summary, PipelineError> {
    generate_dataset(options, &TaskContext::detached())
}

fn frame(folder: &Path, t: usize) -> Array3<f32> {
    let frames = FrameSource::open(folder, &FrameCache::default()).unwrap();
    let mut frame = Array3::zeros(frames.shape());
    frames.read(t, [0; 3], frame.view_mut(), &CancelToken::default()).unwrap();
    frame
}

/// The frame whose voxel of the value v, before what the movie makes of it, is `change(v)`.
fn expected(t: usize, change: impl Fn(f64) -> f64) -> Array3<f32> {
    Array3::from_shape_fn(SHAPE, |(z, y, x)| change((t * 100 + z * 7 + y * 3 + x) as f64) as f32)
}

#[test]
fn floats_are_rounded_down() {
    for (is_uint16, divisor) in [(None, 1.0), (Some(true), 1.0), (Some(false), 4.0), (None, 0.125)] {
        let folder = tempfile::tempdir().unwrap();
        let summary = generate(&GenerateOptions { is_uint16, divisor, ..options("values/float.h5", &folder) }).unwrap();
        assert_eq!((summary.max_value, summary.divisor), (508.25, divisor), "values are 0.25 to 508.25");
        assert_eq!(summary.is_uint16, is_uint16 != Some(false), "{is_uint16:?} {divisor}");
        for t in [0, 1] {
            assert_eq!(frame(folder.path(), t), expected(t, |v| ((v * 4.0 + 0.25) / divisor).floor()), "{divisor}");
        }
        assert!(summary.remarks("uint16", "divisor").is_empty(), "{summary:?}");
    }
}

#[test]
fn scaled_fractions_are_reported_to_the_user() {
    let folder = tempfile::tempdir().unwrap();
    let summary = generate(&options("values/fraction.h5", &folder)).unwrap();
    assert_eq!((summary.is_uint16, summary.is_scaled, summary.divisor), (true, true, 1.0 / 32768.0));
    for t in [0, 1] {
        assert_eq!(frame(folder.path(), t), expected(t, |v| (f64::from(v as f32 / 160.0) * 32768.0).floor()));
    }
    let remarks = summary.remarks("uint16", "divisor").join("\n");
    assert!(remarks.contains("they were multiplied by 32768 and rounded down"), "{remarks}");

    let summary =
        generate(&GenerateOptions { is_uint16: Some(false), ..options("values/fraction.h5", &folder) }).unwrap();
    assert_eq!((summary.is_uint16, summary.divisor), (false, 1.0 / 128.0));
    assert_eq!(frame(folder.path(), 1).fold(0.0, |max: f32, &value| max.max(value)), 101.0);

    let summary = generate(&GenerateOptions { divisor: 0.25, ..options("values/fraction.h5", &folder) }).unwrap();
    assert_eq!((summary.is_scaled, summary.is_coarse), (false, true), "who gives a divisor gets it");
}

#[test]
fn images_with_few_levels_are_reported() {
    let folder = tempfile::tempdir().unwrap();
    let coarse = generate(&options("values/coarse.h5", &folder)).unwrap();
    assert!(coarse.remarks("uint16", "--divisor")[0].contains("few levels; use a smaller --divisor"), "{coarse:?}");
    let blank = generate(&options("values/negative.h5", &folder)).unwrap();
    assert_eq!(blank.remarks("uint16", "divisor"), ["no value is above 0: all frames are blank"]);
    assert_eq!(frame(folder.path(), 0), expected(0, |_| 0.0));
}

#[test]
fn signed_values_below_0_are_0_and_legacy_ones_are_large() {
    let folder = tempfile::tempdir().unwrap();
    for (name, is_signed) in [("fixed", true), ("variable", true), ("legacy", false)] {
        let summary = generate(&options(&format!("values/int16_{name}.h5"), &folder)).unwrap();
        let value = |v: f64| if v < 20.0 && !is_signed { 65536.0 + v - 20.0 } else { (v - 20.0).max(0.0) };
        assert_eq!((summary.is_uint16, frame(folder.path(), 0)), (!is_signed, expected(0, value)), "{name}");
    }
}

#[test]
fn values_that_do_not_fit_are_refused_with_the_divisor_to_use() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |options: GenerateOptions| {
        let error = generate(&options).unwrap_err();
        assert_eq!(error.code(), ErrorCode::InvalidArgument);
        assert!(error.to_string().is_ascii());
        error.to_string()
    };
    let large = refused(options("values/large.h5", &folder));
    let says = "values of 135000 and more, which do not fit into 16 bit; divide them by 3 or more (dataset_generator --divisor 3,";
    assert!(large.contains(says), "{large}");
    let float = refused(GenerateOptions { is_uint16: Some(false), ..options("values/float.h5", &folder) });
    assert!(float.contains("do not fit into 8 bit; store them with 16 bit, or divide them by 2 or more"), "{float}");
    let infinite = refused(options("values/infinite.h5", &folder));
    assert!(infinite.contains("infinite values, which cannot be stored"), "{infinite}");
    let summary = generate(&GenerateOptions { divisor: 3.0, ..options("values/large.h5", &folder) }).unwrap();
    assert_eq!((summary.max_value, summary.is_wrapped), (135_000.0, false));
    assert_eq!(frame(folder.path(), 0), expected(0, |v| (v * 5000.0 / 3.0).floor()));
}

#[test]
fn what_is_not_a_number_is_0_and_types_may_differ() {
    let folder = tempfile::tempdir().unwrap();
    generate(&options("values/nan.h5", &folder)).unwrap();
    assert_eq!(frame(folder.path(), 0), expected(0, |v| if v == 27.0 { 0.0 } else { v }));
    let summary = generate(&options("values/mixed.h5", &folder)).unwrap();
    assert!(summary.is_uint16);
    assert_eq!(frame(folder.path(), 0), expected(0, |v| v));
    assert_eq!(frame(folder.path(), 1), expected(1, |v| v * 4.0));
}

#[test]
fn the_original_command_s_8_bit_are_for_unsigned_movies() {
    let folder = tempfile::tempdir().unwrap();
    let prefers_8_bit = |name: &str| GenerateOptions { prefers_8_bit: true, ..options(name, &folder) };
    let float = generate(&prefers_8_bit("values/float.h5")).unwrap();
    assert_eq!((float.is_uint16, float.is_wrapped), (true, false));
    let legacy = generate(&prefers_8_bit("values/int16_legacy.h5")).unwrap();
    assert_eq!((legacy.is_uint16, legacy.is_wrapped), (false, true));
}

#[test]
fn a_real_floating_point_movie_is_converted() {
    let Some(movie) = shared("data/mastodon-sc_mastodon-deep-lineage/tgmm_mini_27_31.xml") else { return };
    let folder = tempfile::tempdir().unwrap();
    let summary = generate(&GenerateOptions::new(&movie, folder.path())).unwrap();
    assert_eq!((summary.shape.timepoints, summary.shape.frame, summary.is_uint16), (5, [29, 40, 70], true));
    assert_eq!(summary.max_value, 2117.0);
    let sum = frame(folder.path(), 0).iter().map(|&value| f64::from(value)).sum::<f64>();
    assert_eq!(sum, 28_146_455.0, "as h5py and NumPy have it");
}
