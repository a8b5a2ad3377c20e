//! Label images equal those of the original's export, voxel by voxel (`../shared/oracle/ctc`).

#![allow(clippy::disallowed_methods)]

use std::{
    fs,
    io::{Cursor, Read, Write as _},
};

use elephant_ctc::read_labels;
use elephant_export::{MaskSpot, Masks, stream_masks};
use elephant_image::Dims;
use elephant_testkit::{read_json, shared};
use elephant_types::{TaskContext, VoxelSize};
use serde_json::Value;
use sha2::{Digest, Sha256};

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
}

fn spot(value: &Value) -> MaskSpot {
    let (pos, covariance) = (numbers(&value["pos"]), numbers(&value["covariance"]));
    MaskSpot {
        t: value["t"].as_u64().unwrap() as u32,
        center_um: [pos[2], pos[1], pos[0]],
        covariance_um2: std::array::from_fn(|i| std::array::from_fn(|j| covariance[3 * (2 - i) + 2 - j])),
        label: value["value"].as_u64().unwrap() as u16,
    }
}

/// The request of a case of the manifest.
fn masks(case: &Value) -> Masks {
    let (scales, shape) = (numbers(&case["scales_zyx"]), numbers(&case["shape"]));
    let t = |key: &str| case[key].as_u64().unwrap() as u32;
    let size = |value: f64| value as usize;
    let (voxel_size, shape, dims) = match (&scales[..], &shape[..]) {
        (&[z, y, x], &[depth, height, width]) => ([z, y, x], [depth, height, width].map(size), Dims::ThreeD),
        (&[y, x], &[height, width]) => ([1.0, y, x], [1.0, height, width].map(size), Dims::TwoD),
        _ => panic!("{case}"),
    };
    Masks {
        shape,
        voxel_size: VoxelSize::new(voxel_size).unwrap(),
        dims,
        timepoints: [t("t_start"), t("t_end")],
        spots: case["spots"].as_array().unwrap().iter().map(spot).collect(),
    }
}

#[test]
fn masks_equal_the_originals() {
    let Some(manifest) = shared("oracle/ctc/manifest.json") else { return };
    let folder = tempfile::tempdir().unwrap();
    for case in read_json(&manifest).as_array().unwrap() {
        let (bytes, skipped) = stream_masks(&masks(case), Vec::new(), &TaskContext::detached()).unwrap();
        assert_eq!(skipped, 0);
        let mut archive = zip::ZipArchive::new(Cursor::new(bytes)).unwrap();
        let entries = case["entries"].as_array().unwrap();
        assert_eq!(archive.len(), entries.len(), "{}", case["name"]);
        for entry in entries {
            let mut file = archive.by_name(entry["name"].as_str().unwrap()).unwrap();
            let path = folder.path().join("mask.tif");
            let mut content = Vec::new();
            file.read_to_end(&mut content).unwrap();
            fs::File::create(&path).unwrap().write_all(&content).unwrap();
            let labels = read_labels(&path).unwrap();
            let bytes: Vec<u8> = labels.iter().flat_map(|&label| u16::try_from(label).unwrap().to_le_bytes()).collect();
            let found = format!("{:x}", Sha256::digest(&bytes));
            let differs = || {
                let mut counts = std::collections::BTreeMap::new();
                labels.iter().for_each(|label| *counts.entry(label.to_string()).or_insert(0_u64) += 1);
                format!("{} {}: {counts:?}\n{}", case["name"], entry["name"], entry["labels"])
            };
            assert!(entry["sha256"] == found, "{}", differs());
        }
    }
}
