//! Flow labels and displacements of spots against those of the original server.

#![allow(clippy::disallowed_methods)]

use elephant_image::{Dims, FieldMeans, FlowLabelFrame};
use elephant_testkit::{golden, read_json, read_npy, shared};
use elephant_types::{ApprovedLink, CancelToken, VoxelSize};
use ndarray::{Array2, Array4, Ix4, s};
use serde_json::Value;
use sha2::{Digest, Sha256};

fn numbers<const N: usize>(value: &Value) -> [f64; N] {
    let list: Vec<f64> = value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect();
    list.try_into().unwrap()
}

fn zyx(value: &Value) -> [f64; 3] {
    let [x, y, z] = numbers(value);
    [z, y, x]
}

fn covariance(value: &Value) -> [[f64; 3]; 3] {
    let [xx, xy, xz, yx, yy, yz, zx, zy, zz] = numbers(value);
    [[zz, zy, zx], [yz, yy, yx], [xz, xy, xx]]
}

/// All channels (c, z, y, x) of a frame's labels.
fn draw(frame: &FlowLabelFrame, [depth, height, width]: [usize; 3]) -> Array4<f32> {
    let mut labels = Array4::zeros((4, depth, height, width));
    for z in 0..depth {
        let mut plane = Array2::zeros((height, width));
        frame.draw_numbers(z, [0; 2], plane.view_mut(), &CancelToken::default()).unwrap();
        for channel in 0..4 {
            labels.slice_mut(s![channel, z, .., ..]).assign(&plane.mapv(|number| frame.value(number, channel)));
        }
    }
    labels
}

#[test]
fn labels_are_those_of_the_original_to_the_last_bit() {
    const SHAPE: [usize; 3] = [32, 96, 96];
    for case in read_json(&golden("labels/flow_labels.json")).as_array().unwrap() {
        let voxel_size = VoxelSize::new(numbers(&case["scales_zyx"])).unwrap();
        for (t, expected) in case["timepoints"].as_object().unwrap() {
            let norm = zyx(&case["flow_norm_factor_xyz"]);
            let mut frame = FlowLabelFrame::new(SHAPE, voxel_size, norm, Dims::ThreeD);
            for spot in case["spots"].as_array().unwrap().iter().filter(|spot| spot["t"].as_u64() == t.parse().ok()) {
                let link = ApprovedLink {
                    t: 0,
                    target_t: None,
                    center_um: zyx(&spot["pos"]),
                    covariance_um2: covariance(&spot["covariance"]),
                    displacement_um: zyx(&spot["displacement"]),
                };
                frame.add(&link).unwrap();
            }
            let labels = draw(&frame, SHAPE);
            let mut digest = Sha256::new();
            labels.iter().for_each(|value| digest.update(value.to_le_bytes()));
            let found = format!("{:x}", digest.finalize());
            assert_eq!(found, expected["sha256"].as_str().unwrap(), "{} {t}", case["name"]);
            let centroids: Vec<[u64; 3]> =
                frame.centroids().iter().map(|place| place.map(|number| number as u64)).collect();
            let listed: Vec<[f64; 3]> =
                case["attrs"][format!("label.indices.{t}")].as_array().unwrap().iter().map(numbers).collect();
            assert_eq!(centroids.iter().map(|place| place.map(|n| n as f64)).collect::<Vec<_>>(), listed);
        }
    }
}

/// Half precision of the mean, which the original rounds to.
const TOLERANCE: f64 = 1.0 / 1024.0;

#[test]
fn displacements_of_spots_are_those_of_the_original() {
    let Some(cases) = shared("oracle/flow/estimate_spots_with_flow.json") else { return };
    for case in read_json(&cases).as_array().unwrap() {
        // A spot outside the image is inflated by the original until it has voxels; here it stays where it is.
        let Some(flow) = case["flow"].as_str() else { continue };
        let Some(path) = shared(&format!("oracle/flow/{flow}")) else { return };
        let flow = read_npy(&path).into_dimensionality::<Ix4>().unwrap();
        let scales = if case["scales_zyx"].is_null() { [1.0; 3] } else { numbers(&case["scales_zyx"]) };
        let factor: [f64; 3] = numbers(&case["resize_factor"]);
        let origin = if case["crop_box"].is_null() {
            [0.0; 3]
        } else {
            std::array::from_fn(|axis| case["crop_box"][axis].as_f64().unwrap())
        };
        let shape: [usize; 3] = std::array::from_fn(|axis| flow.shape()[axis + 1]);
        let mut builder = FieldMeans::builder(shape, VoxelSize::new(scales).unwrap(), Dims::ThreeD);
        let spots = case["spots"].as_array().unwrap();
        let mut inside = Vec::new();
        for (spot, expected) in spots.iter().zip(case["result"].as_array().unwrap()) {
            let center = zyx(&spot["pos"]);
            // The original's crop begins at the field's first voxel.
            let center: [f64; 3] = std::array::from_fn(|axis| center[axis] - origin[axis] * scales[axis]);
            if (0..3).all(|axis| (0.0..shape[axis] as f64 - 1.0).contains(&(center[axis] / scales[axis]))) {
                builder.add(center, covariance(&spot["covariance"])).unwrap();
                inside.push((spot, expected));
            }
        }
        assert!(inside.len() >= 8, "{}", case["name"]);
        let mut means = builder.build();
        means.take([0; 3], flow.view(), &CancelToken::default()).unwrap();
        for ((spot, expected), mean) in inside.into_iter().zip(means.finish()) {
            let (before, after) = (zyx(&spot["pos"]), zyx(&expected["pos"]));
            let mut square = 0.0;
            for axis in 0..3 {
                let displacement = mean[axis] * scales[axis] * factor[axis];
                square += displacement * displacement;
                let (found, unit) = (before[axis] + displacement, scales[axis] * factor[axis] * TOLERANCE);
                let size = mean[axis].abs().max(1.0);
                assert!((found - after[axis]).abs() < unit * size, "{} {spot} {mean:?} {expected}", case["name"]);
            }
            let expected = expected["sqdisp"].as_f64().unwrap();
            assert!((square - expected).abs() < 4.0 * TOLERANCE * expected.max(1.0), "{} {spot}", case["name"]);
        }
    }
}
