//! Spots and prepared images against those of the original server and of its libraries.

#![allow(clippy::disallowed_methods)]

use elephant_image::{Dims, ImageError, SpotOptions, find_spots, resize_trilinear};
use elephant_testkit::{golden, read_json, read_npy, shared};
use elephant_types::{CancelToken, Coded, ErrorCode, Numerics, Spot, VoxelSize};
use ndarray::{Array3, Ix2, Ix3};
use serde_json::Value;

fn numbers<const N: usize>(value: &Value) -> [f64; N] {
    let list: Vec<f64> = value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect();
    list.try_into().unwrap()
}

/// Tolerances: 1e-3 voxel, 1e-3 relative, 1e-6.
fn assert_same(name: &str, found: &[Spot], expected: &[Value], voxel: [f64; 3]) {
    assert_eq!(found.len(), expected.len(), "{name}");
    for (spot, expected) in found.iter().zip(expected) {
        let [x, y, z] = numbers(&expected["pos"]);
        for ((found, expected), edge) in spot.center_um.iter().zip([z, y, x]).zip(voxel) {
            assert!((found - expected).abs() < 1e-3 * edge, "{name}: {spot:?} {expected}");
        }
        let [xx, xy, xz, yx, yy, yz, zx, zy, zz] = numbers(&expected["covariance"]);
        let expected_covariance = [[zz, zy, zx], [yz, yy, yx], [xz, xy, xx]];
        let scale = xx.max(yy).max(zz);
        for (found, expected) in spot.covariance_um2.iter().flatten().zip(expected_covariance.iter().flatten()) {
            let allowed = if expected.abs() > 1e-9 * scale { expected.abs() } else { scale };
            assert!((found - expected).abs() < 1e-3 * allowed, "{name}: {spot:?} {expected_covariance:?}");
        }
        assert!((spot.quality - expected["quality"].as_f64().unwrap()).abs() < 1e-6, "{name}: {spot:?}");
        assert_eq!(spot.t as u64, expected["t"].as_u64().unwrap());
    }
}

/// The map as a volume, and whether it was a plane.
fn read_map(path: &std::path::Path) -> (Array3<f32>, Dims) {
    let map = read_npy(path);
    match map.ndim() {
        2 => (map.into_dimensionality::<Ix2>().unwrap().insert_axis(ndarray::Axis(0)), Dims::TwoD),
        _ => (map.into_dimensionality::<Ix3>().unwrap(), Dims::ThreeD),
    }
}

fn options(case: &Value, dims: Dims) -> SpotOptions {
    let voxel = match (&case["scales"], dims) {
        (Value::Null, _) => [1.0; 3],
        (scales, Dims::ThreeD) => numbers(scales),
        (scales, Dims::TwoD) => {
            let [y, x] = numbers(scales);
            [1.0, y, x]
        }
    };
    let origin_vox = match &case["crop_box"] {
        Value::Null => [0.0; 3],
        crop => std::array::from_fn(|axis| crop[axis].as_f64().unwrap()),
    };
    SpotOptions {
        t: case["timepoint"].as_u64().unwrap() as usize,
        voxel_size: VoxelSize::new(voxel).unwrap(),
        origin_vox,
        c_ratio: case["c_ratio"].as_f64().unwrap(),
        p_thresh: case["p_thresh"].as_f64().unwrap(),
        r_min_um: case["r_min"].as_f64().unwrap(),
        r_max_um: case["r_max"].as_f64().unwrap(),
        dims,
        use_2d: case["use_2d"].as_bool().unwrap(),
        numerics: Numerics::Original,
    }
}

fn check_cases(cases: &Value, folder: &std::path::Path) -> usize {
    let mut checked = 0;
    for case in cases.as_array().unwrap() {
        let path = folder.join(case["map"].as_str().unwrap());
        if !path.is_file() {
            continue;
        }
        let (map, dims) = read_map(&path);
        let options = options(case, dims);
        let found = find_spots(map.view(), &options, &CancelToken::default()).unwrap();
        assert_same(
            case["name"].as_str().unwrap(),
            &found,
            case["spots"].as_array().unwrap(),
            options.voxel_size.zyx(),
        );
        checked += 1;
    }
    checked
}

#[test]
fn spots_are_those_of_the_original() {
    let Some(path) = shared("oracle/detect/find_and_push_spots.json") else { return };
    assert!(check_cases(&read_json(&path), path.parent().unwrap()) >= 11);
}

#[test]
fn spots_are_those_of_scikit_image() {
    let path = golden("image/find_spots.json");
    assert_eq!(check_cases(&read_json(&path), path.parent().unwrap()), 9);
}

fn read_volume(name: &str) -> Array3<f32> {
    read_npy(&golden("image").join(name)).into_dimensionality().unwrap()
}

#[test]
fn resized_images_are_those_of_pytorch() {
    let image = read_volume("resize_input.npy");
    for shape in [[8, 16, 7], [1, 9, 300], [5, 1, 384]] {
        let [z, y, x] = shape;
        let expected = read_volume(&format!("resize_{z}x{y}x{x}.npy"));
        let resized = resize_trilinear(image.view(), shape, &CancelToken::default()).unwrap();
        assert_eq!(resized.dim(), expected.dim());
        for (index, (found, expected)) in resized.iter().zip(&expected).enumerate() {
            assert!((found - expected).abs() < 1e-6, "{shape:?} {index}: {found} is not {expected}");
        }
    }
}

#[test]
fn invalid_options_are_refused() {
    let map = Array3::from_elem((2, 8, 8), 0.7);
    let good = SpotOptions {
        t: 0,
        voxel_size: VoxelSize::new([1.0; 3]).unwrap(),
        origin_vox: [0.0; 3],
        c_ratio: 0.4,
        p_thresh: 0.5,
        r_min_um: 0.0,
        r_max_um: 1e6,
        dims: Dims::ThreeD,
        use_2d: false,
        numerics: Numerics::Corrected,
    };
    let found = |options: &SpotOptions| find_spots(map.view(), options, &CancelToken::default());
    assert_eq!(found(&good).unwrap().len(), 1);
    for (name, bad) in [
        ("c_ratio", SpotOptions { c_ratio: 0.0, ..good.clone() }),
        ("c_ratio", SpotOptions { c_ratio: f64::NAN, ..good.clone() }),
        ("p_thresh", SpotOptions { p_thresh: f64::NAN, ..good.clone() }),
        ("r_min", SpotOptions { r_min_um: -1.0, ..good.clone() }),
        ("r_max", SpotOptions { r_min_um: 5.0, r_max_um: 1.0, ..good.clone() }),
        ("r_max", SpotOptions { r_max_um: f64::NAN, ..good.clone() }),
    ] {
        let error = found(&bad).unwrap_err();
        assert!(error.to_string().contains(name), "{error}");
        assert_eq!(error.code(), ErrorCode::InvalidArgument);
    }
    let planar = SpotOptions { dims: Dims::TwoD, ..good.clone() };
    assert_eq!(found(&planar), Err(ImageError::NotPlanar { planes: 2 }));
    // Legal, and nothing is found, or all is cut to the largest radius.
    assert!(found(&SpotOptions { p_thresh: 1.0, ..good.clone() }).unwrap().is_empty());
    assert!(found(&SpotOptions { r_min_um: 100.0, ..good.clone() }).unwrap().is_empty());
    let tiny = found(&SpotOptions { c_ratio: 1e-300, r_max_um: 3.0, ..good }).unwrap();
    assert!((tiny[0].covariance_um2[0][0] - 9.0).abs() < 1e-9);
}
