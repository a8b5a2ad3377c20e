//! Ellipsoids, drawn labels and colours against those of the original server.

#![allow(clippy::disallowed_methods)]

use std::path::Path;

use elephant_image::{Dims, Ellipsoid, LabelFrame, Raster, label_color};
use elephant_testkit::{golden, read_json, read_npy, shared};
use elephant_types::{CancelToken, Cancelled, TaggedSpot, VoxelSize};
use ndarray::{Array3, Axis};
use serde_json::Value;
use sha2::{Digest, Sha256};

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
}

fn zyx<T: Copy>(first: T, numbers: &[T]) -> [T; 3] {
    match *numbers {
        [z, y, x] => [z, y, x],
        [y, x] => [first, y, x],
        _ => panic!("not two or three numbers"),
    }
}

fn matrix(rows: &[Value]) -> [[f64; 3]; 3] {
    let rows: Vec<Vec<f64>> = rows.iter().map(numbers).collect();
    match rows.as_slice() {
        [z, y, x] => [z, y, x].map(|row| zyx(0.0, row)),
        [y, x] => [[1.0, 0.0, 0.0], zyx(0.0, y), zyx(0.0, x)],
        _ => panic!("not a 2 x 2 or 3 x 3 matrix"),
    }
}

fn shape(value: &Value) -> [usize; 3] {
    zyx(1, &numbers(value).iter().map(|&edge| edge as usize).collect::<Vec<_>>())
}

fn raster(ellipsoid: &Ellipsoid, case: &Value) -> Raster {
    let (shape, minarea) = (shape(&case["shape"]), case["minarea"].as_u64().unwrap() as usize);
    ellipsoid.grown_to(shape, minarea).raster(shape, minarea).unwrap()
}

#[test]
fn ellipsoids_and_ellipses_are_those_of_the_original() {
    let cases = read_json(&golden("labels/ellipsoids.json"));
    for (key, axes, dims) in [("ellipsoid", "zyx", Dims::ThreeD), ("ellipse", "yx", Dims::TwoD)] {
        for (number, case) in cases[key].as_array().unwrap().iter().enumerate() {
            let get = |name: &str| case[format!("{name}_{axes}")].as_array().unwrap().clone();
            let vector = |name, first| zyx(first, &numbers(&get(name).into()));
            let voxel = VoxelSize::new(vector("scales", 1.0)).unwrap();
            let ellipsoid = Ellipsoid::new(vector("center", 0.0), matrix(&get("covariance")), voxel, dims).unwrap();
            let voxels = raster(&ellipsoid, case).voxels().collect::<Vec<_>>();
            // As the original's NumPy array: all z, all y, all x, without z in 2-D.
            let columns = if dims == Dims::ThreeD { 0..3 } else { 1..3 };
            let bytes: Vec<u8> =
                columns.flat_map(|axis| voxels.iter().flat_map(move |v| (v[axis] as i64).to_le_bytes())).collect();
            assert_eq!(voxels.len() as u64, case["n"], "{key} {number}");
            assert_eq!(sha256(&bytes), case["indices_sha256"].as_str().unwrap(), "{key} {number}");
        }
    }
}

fn sha256(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    digest
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .filter_map(|digit| char::from_digit(digit.into(), 16))
        .collect()
}

#[test]
fn rasters_are_those_of_the_contract() {
    for (number, case) in read_json(&golden("labels/raster.json")).as_array().unwrap().iter().enumerate() {
        let (radii, rotation) = (numbers(&case["radii"]), matrix(case["rotation"].as_array().unwrap()));
        let covariance = std::array::from_fn(|i| {
            std::array::from_fn(|j| (0..3).map(|k| rotation[i][k] * radii[k] * radii[k] * rotation[j][k]).sum())
        });
        let voxel = VoxelSize::new(zyx(1.0, &numbers(&case["scales_zyx"]))).unwrap();
        let center = zyx(0.0, &numbers(&case["center_zyx"]));
        let ellipsoid = Ellipsoid::new(center, covariance, voxel, Dims::ThreeD).unwrap();
        let mut mask = Array3::<u8>::zeros(shape(&case["shape"]));
        let voxels = raster(&ellipsoid, case).voxels().collect::<Vec<_>>();
        for &voxel in &voxels {
            mask[voxel] = 1;
        }
        assert_eq!(voxels.len() as u64, case["n"], "{number}");
        assert_eq!(sha256(mask.as_slice().unwrap())[..16], *case["sha"].as_str().unwrap(), "{number}");
    }
}

fn tagged(spot: &Value) -> TaggedSpot {
    let [x, y, z] = zyx(0.0, &numbers(&spot["pos"]));
    let covariance = numbers(&spot["covariance"]);
    TaggedSpot {
        t: spot["t"].as_u64().unwrap() as usize,
        center_um: [z, y, x],
        covariance_um2: std::array::from_fn(|i| std::array::from_fn(|j| covariance[8 - 3 * i - j])),
        tag: spot["tag"].as_str().unwrap().parse().unwrap(),
        label: spot["label"].as_str().unwrap().into(),
    }
}

/// The labels of a case at timepoint `t`.
fn drawn(case: &Value, spots: &Value, t: usize, shape: [usize; 3]) -> Array3<u8> {
    let is_plane = case["name"] == "2d";
    let dims = if is_plane { Dims::TwoD } else { Dims::ThreeD };
    let scales = if case["scales_zyx"].is_null() { [1.0; 3] } else { zyx(1.0, &numbers(&case["scales_zyx"])) };
    let mut frame = LabelFrame::new(shape, VoxelSize::new(scales).unwrap(), case["c_ratio"].as_f64().unwrap(), dims);
    for spot in spots.as_array().unwrap().iter().filter(|spot| spot["t"] == t) {
        frame.add(&tagged(spot)).unwrap();
    }
    let key = format!("label.indices.{t}");
    if let Some(expected) = case["attrs"].get(&key) {
        let centroids: Vec<Vec<usize>> = frame.centroids().iter().map(|centroid| centroid.to_vec()).collect();
        assert_eq!(serde_json::to_value(centroids).unwrap(), *expected, "{} {key}", case["name"]);
    }
    let cancel = CancelToken::default();
    frame.lose_borders_like_original(|_, _| Ok::<_, Cancelled>(()), &cancel).unwrap();
    let mut labels = Array3::zeros(shape);
    for (z, plane) in labels.axis_iter_mut(Axis(0)).enumerate() {
        frame.draw(z, [0; 2], plane, &cancel).unwrap();
    }
    labels
}

fn check_volume(name: &str, folder: &Path, labels: &Array3<u8>, expected: &Value) {
    let (label, vis) = (&expected["label"], &expected["vis"]);
    let path = folder.join(label["file"].as_str().unwrap_or("not there"));
    if path.is_file() {
        let theirs = read_npy(&path);
        for (index, (ours, theirs)) in labels.iter().zip(&theirs).enumerate() {
            assert_eq!(f32::from(*ours), *theirs, "{name}: voxel {index}");
        }
    }
    assert_eq!(sha256(labels.as_slice().unwrap()), label["sha256"].as_str().unwrap(), "{name}");
    if let Some(expected) = vis["sha256"].as_str() {
        let colors: Vec<u8> =
            labels.iter().flat_map(|&label| [0, 1, 2].map(|channel| label_color(label, channel))).collect();
        assert_eq!(sha256(&colors), expected, "{name}");
    }
}

/// Checks all cases but those with background from intensities, and returns how many volumes there were.
fn check_cases(path: &Path) -> usize {
    let mut checked = 0;
    for case in read_json(path).as_array().unwrap() {
        let timepoints = case["timepoints"].as_object().unwrap();
        for (t, expected) in timepoints.iter().filter(|_| case["auto_bg_thresh"] == 0) {
            let shape = shape(&expected["label"]["shape"]);
            let labels = drawn(case, &case["spots"], t.parse().unwrap(), shape);
            check_volume(case["name"].as_str().unwrap(), path.parent().unwrap(), &labels, expected);
            checked += 1;
        }
    }
    checked
}

#[test]
fn labels_are_those_of_the_original() {
    assert_eq!(check_cases(&golden("labels/seg_labels.json")), 7);
    let Some(path) = shared("oracle/labels/seg_labels.json") else { return };
    assert_eq!(check_cases(&path), 9);
}
