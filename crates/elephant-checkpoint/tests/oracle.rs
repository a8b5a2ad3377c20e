//! The original server's checkpoints (`../shared/oracle/models`), tensor by tensor.

use std::fmt::Write;

use elephant_checkpoint::{Checkpoint, Dtype};
use elephant_testkit::{read_json, shared};
use elephant_types::{Coded, ErrorCode};
use sha2::{Digest, Sha256};

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

#[test]
fn every_tensor_has_the_originals_checksum() {
    let Some(models) = shared("oracle/models") else { return };
    let manifest = read_json(&models.join("manifest.json"));
    let mut checked = 0;
    for state in manifest["state_dicts"].as_object().unwrap().values() {
        let checkpoint = match Checkpoint::read(&models.join(state["file"].as_str().unwrap())) {
            Err(error) if error.code() == ErrorCode::NotFound => continue,
            result => result.unwrap(),
        };
        let tensors = state["tensors"].as_object().unwrap();
        assert_eq!(checkpoint.members.len(), 1);
        assert_eq!(checkpoint.members[0].len(), tensors.len());
        for (name, tensor) in checkpoint.members[0].iter() {
            let expected = &tensors[name];
            assert_eq!(serde_json::json!(tensor.shape()), expected["shape"], "{name}");
            assert_eq!(sha256(tensor.bytes()), expected["sha256"], "{name}");
        }
        checked += 1;
    }
    assert!(checked >= 4, "{checked} files");
}

#[test]
fn half_precision_is_the_same_rounded() {
    let Some(models) = shared("oracle/models") else { return };
    let [half, single] = ["seg_2d_float16.pth", "seg_2d.pth"].map(|name| Checkpoint::read(&models.join(name)).unwrap());
    assert_eq!(half.members[0].len(), single.members[0].len());
    for ((name, half), (single_name, single)) in half.members[0].iter().zip(single.members[0].iter()) {
        assert_eq!((name, half.dtype(), single.dtype()), (single_name, Dtype::F16, Dtype::F32));
        for (half, single) in half.to_f32().into_iter().zip(single.to_f32()) {
            assert_eq!(half, half::f16::from_f32(single).to_f32(), "{name}");
        }
    }
}
