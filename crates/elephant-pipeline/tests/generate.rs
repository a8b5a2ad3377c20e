//! Datasets against those that the original server made of the same movies.

#![allow(clippy::disallowed_methods)]

use std::path::Path;

use elephant_pipeline::{GenerateOptions, READY, check_dataset, generate_dataset};
use elephant_testkit::{read_json, shared};
use elephant_types::TaskContext;
use elephant_volume::{DataType, Dataset, Store};
use ndarray::ArrayD;
use serde_json::Value;
use sha2::{Digest, Sha256};

/// The movie of a case, if it is on this machine.
fn movie_of(case: &str) -> Option<&'static str> {
    match case {
        "tiny" | "tiny_forced_u8" | "tiny_div4_u8" | "tiny_div3_u16" | "tiny_2d" => {
            Some("data/embryo-tiny/embryo_tiny.h5")
        }
        "tiny_hi" => Some("data/embryo-tiny-hi/embryo_tiny_hi.h5"),
        "sample" => Some("data/elephant-track_elephant-client/sample.h5"),
        "server_test" => Some("data/elephant-track_elephant-server/test.h5"),
        _ => None,
    }
}

/// Checksums of the stored voxels, one for each timepoint.
fn checksums(dataset: &Dataset) -> Vec<String> {
    let images = dataset.store(Store::Images);
    let mut size = images.shape().to_vec();
    size[0] = 1;
    let bytes = |t: usize| {
        let mut start = vec![0; size.len()];
        start[0] = t;
        if images.data_type() == DataType::U8 {
            let mut voxels = ArrayD::zeros(size.clone());
            images.read(&start, voxels.view_mut()).unwrap();
            voxels.into_raw_vec_and_offset().0
        } else {
            let mut voxels = ArrayD::<u16>::zeros(size.clone());
            images.read(&start, voxels.view_mut()).unwrap();
            voxels.iter().flat_map(|voxel| voxel.to_le_bytes()).collect()
        }
    };
    (0..dataset.timepoint_count()).map(|t| format!("{:x}", Sha256::digest(bytes(t)))).collect()
}

fn assert_same_dataset(case: &str, expected: &Value, folder: &Path) {
    for (store, array) in expected["stores"].as_object().unwrap() {
        let found = read_json(&folder.join(store).join(".zarray"));
        assert_eq!(found, array["metadata"][".zarray"], "{case} {store}");
        let files = std::fs::read_dir(folder.join(store)).unwrap().count() as u64;
        assert_eq!(files, array["n_chunk_files"].as_u64().unwrap() + 1, "{case} {store}: only .zarray and the chunks");
    }
    let dataset = Dataset::open(folder).unwrap();
    let expected_sums: Vec<_> = expected["imgs_per_timepoint_sha256"].as_array().unwrap().iter().collect();
    assert_eq!(checksums(&dataset).iter().collect::<Vec<_>>(), expected_sums, "{case}");
    let shape = dataset.store(Store::Images).shape().to_vec();
    assert_eq!(check_dataset(folder, "shown", &shape).unwrap(), READY);
    let longer = [&[99], &shape[1..]].concat();
    assert_eq!(check_dataset(folder, "shown", &longer).unwrap(), expected["check_wrong_shape"].as_str().unwrap());
}

#[test]
fn datasets_equal_the_originals() {
    let Some(manifest) = shared("oracle/dataset/manifest.json") else { return };
    let mut compared = 0;
    for (case, expected) in read_json(&manifest).as_object().unwrap() {
        let Some(movie) = movie_of(case) else { continue };
        let folder = tempfile::tempdir().unwrap();
        let args = &expected["args"];
        let options = GenerateOptions {
            // Without the argument, the original stores 8 bit.
            is_uint16: args.get("is_uint16").map_or(Some(false), Value::as_bool),
            divisor: args["divisor"].as_f64().unwrap_or(1.0),
            is_2d: args["is_2d"].as_bool().unwrap_or(false),
            ..GenerateOptions::new(&shared(movie).unwrap(), folder.path())
        };
        generate_dataset(&options, &TaskContext::detached()).unwrap();
        assert_same_dataset(case, expected, folder.path());
        compared += 1;
    }
    assert_eq!(compared, 8);
}
