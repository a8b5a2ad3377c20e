//! The original's flow network (`../shared/oracle`): the same walk through another table.

use std::path::Path;

use elephant_checkpoint::Checkpoint;
use elephant_model::{ProbabilityOutput, SegmentationOptions};
use elephant_testkit::{read_json, read_npy, shared};
use elephant_types::{NetworkKind, Numerics, TaskContext};
use ndarray::{Array4, ArrayD, Axis, Ix4};
use serde_json::Value;

use super::*;
use crate::{segment::segment, spec};

/// Largest difference from the original's vectors, which are between -1 and 1.
const TOLERANCE: f64 = 1e-5;

fn array(folder: &Path, case: &Value) -> Option<ArrayD<f32>> {
    let path = folder.join(case["file"].as_str().unwrap());
    path.try_exists().unwrap().then(|| read_npy(&path))
}

fn tensor(array: &ArrayD<f32>) -> Tensor {
    let size: Vec<i64> = array.shape().iter().map(|&size| size as i64).collect();
    Tensor::from_slice(array.as_slice().unwrap()).reshape(size)
}

fn network(models: &Path, case: &Value, arithmetic: Arithmetic) -> Network {
    let checkpoint = Checkpoint::read(&models.join(case["model"].as_str().unwrap())).unwrap();
    let spec = spec::identify(&checkpoint.members[0]).unwrap();
    assert_eq!(spec.task, elephant_types::NetworkTask::Flow);
    let keep_axials = KeepAxials::first(case["n_keep_axials"].as_i64().unwrap());
    let config = NetworkConfig { keep_axials, arithmetic, precision: Precision::F32, device: Device::Cpu };
    Network::new(&checkpoint.members[0], spec, config).unwrap()
}

#[test]
fn flow_networks_compute_the_originals_vectors() {
    let Some(models) = shared("oracle/models") else { return };
    let _no_grad = tch::no_grad_guard();
    let manifest = read_json(&models.join("manifest.json"));
    let (mut checked, mut largest) = (0, 0.0_f64);
    for case in manifest["cases"].as_array().unwrap().iter().filter(|case| case["kind"] == "flow") {
        let (Some(input), Some(output)) = (array(&models, &case["input"]), array(&models, &case["output"])) else {
            continue;
        };
        for arithmetic in [Arithmetic::Original, Arithmetic::Fast] {
            let network = network(&models, case, arithmetic);
            let is_pad = case["is_pad"].as_bool().unwrap();
            let channels = 0..network.spec().outputs;
            let found = network.forward(&tensor(&input), is_pad, &channels, &CancelToken::default()).unwrap();
            assert_eq!(found.size(), tensor(&output).size());
            let difference = (found - tensor(&output)).abs().max().double_value(&[]);
            assert!(difference < TOLERANCE, "{} {arithmetic:?}: {difference:e}", case["name"]);
            largest = largest.max(difference);
        }
        checked += 1;
    }
    assert!(checked >= 8, "{checked} cases");
    println!("flow: {checked} cases, largest difference {largest:e}");
}

#[test]
fn tiled_vectors_are_the_originals() {
    let (Some(models), Some(folder)) = (shared("oracle/models"), shared("oracle/predict")) else { return };
    let _no_grad = tch::no_grad_guard();
    let manifest = read_json(&folder.join("manifest.json"));
    let case = manifest.as_array().unwrap().iter().find(|case| case["name"] == "p6_flow_3d_nopad").unwrap();
    let network = network(&models, case, Arithmetic::Original);
    let frames: Array4<f32> =
        array(&folder, &case["input"]).unwrap().index_axis_move(Axis(0), 0).into_dimensionality::<Ix4>().unwrap();
    let expected = array(&folder, &case["output"]).unwrap().into_dimensionality::<Ix4>().unwrap();
    let tile: Vec<usize> = case["patch_zyx"].as_array().unwrap().iter().map(|n| n.as_u64().unwrap() as usize).collect();
    let options = SegmentationOptions {
        kind: NetworkKind::Volumetric,
        keep_axials: network.config().keep_axials,
        tile: Some([tile[0], tile[1], tile[2]]),
        is_pad: false,
        batch_size: 1,
        numerics: Numerics::Original,
        output: ProbabilityOutput::AllClasses,
    };
    let (mut next, mut largest) = (0, 0.0_f32);
    segment(&[network], &frames, &options, &TaskContext::detached(), &mut |slab| {
        let planes = slab.planes();
        assert_eq!(slab.z, next);
        for (found, expected) in planes.axis_iter(Axis(1)).zip(expected.axis_iter(Axis(1)).skip(next)) {
            largest = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(largest, f32::max);
        }
        next += planes.len_of(Axis(1));
        Ok(())
    })
    .unwrap();
    assert_eq!(next, expected.len_of(Axis(1)));
    // The original stores them in half precision.
    assert!(largest < 5e-4, "{largest:e}");
    println!("tiled flow: largest difference {largest:e}");
}
