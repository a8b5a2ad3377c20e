//! Files that PyTorch wrote (`tests/golden/checkpoint`), read and written again.

use std::{fs, io::Cursor};

use elephant_checkpoint::{Checkpoint, CheckpointError, Dtype, StateDict, Tensor};
use elephant_testkit::{golden, read_json};
use elephant_types::{Coded, ErrorCode};
use serde_json::Value;

fn read(name: &str) -> Result<Checkpoint, CheckpointError> {
    Checkpoint::read(&golden(&format!("checkpoint/{name}.pth")))
}

/// Each member as (name, shape, values).
fn contents(checkpoint: &Checkpoint) -> Value {
    let entry = |(name, tensor): (&str, &Tensor)| serde_json::json!([name, tensor.shape(), values(tensor)]);
    checkpoint.members.iter().map(|member| member.iter().map(entry).collect::<Value>()).collect()
}

fn values(tensor: &Tensor) -> Vec<f64> {
    tensor.to_f32().into_iter().map(f64::from).collect()
}

#[test]
fn every_file_of_pytorch_is_read() {
    let expected = read_json(&golden("checkpoint/expected.json"));
    for (name, expected) in expected.as_object().unwrap() {
        let checkpoint = read(name).unwrap_or_else(|error| panic!("{name}: {error}"));
        let found = serde_json::to_value(contents(&checkpoint)).unwrap();
        // Rounded to f32, as `to_f32` gives them.
        let rounded = expected.to_string().parse::<Value>().unwrap();
        assert_eq!(round(found), round(rounded), "{name}");
    }
}

/// Numbers as f32, so that 1/3 compares equal in both precisions.
fn round(value: Value) -> Value {
    match value {
        Value::Array(items) => items.into_iter().map(round).collect(),
        Value::Number(number) => f64::from(number.as_f64().unwrap() as f32).into(),
        other => other,
    }
}

#[test]
fn types_are_kept() {
    use Dtype::{Bf16, Bool, F16, F32, F64, I8, I16, I32, I64, U8};
    for name in ["types", "legacy_types"] {
        let checkpoint = read(name).unwrap();
        let types: Vec<_> = checkpoint.members[0].iter().map(|(_, tensor)| tensor.dtype()).collect();
        assert_eq!(types, [F32, F64, F16, Bf16, I64, I32, I16, I8, U8, Bool, F32, F32], "{name}");
    }
}

#[test]
fn written_files_are_read_back_and_have_always_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["types", "views", "ensemble"] {
        let checkpoint = read(name).unwrap();
        let [first, second] = ["first.pth", "second.pth"].map(|file| folder.path().join(file));
        checkpoint.write(&first).unwrap();
        checkpoint.write(&second).unwrap();
        assert_eq!(Checkpoint::read(&first).unwrap(), checkpoint, "{name}");
        assert!(fs::read(&first).unwrap() == fs::read(&second).unwrap(), "{name}");
    }
}

#[test]
fn storages_are_aligned_as_pytorch_aligns_them() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.pth");
    let marks = [[1.25f32; 7], [2.5; 7]];
    let tensors = marks.map(|mark| Tensor::from_f32(vec![7], &mark).unwrap());
    let dict: StateDict = ["a".to_owned(), "b".to_owned()].into_iter().zip(tensors).collect();
    Checkpoint::from(dict).write(&path).unwrap();
    let bytes = fs::read(&path).unwrap();
    for mark in marks {
        let pattern: Vec<u8> = mark.iter().flat_map(|value| value.to_le_bytes()).collect();
        let at = bytes.windows(pattern.len()).position(|window| window == pattern).unwrap();
        assert_eq!(at % 64, 0);
    }
}

#[test]
fn only_named_tensors_are_accepted() {
    let cases = [
        ("bad_command", "posix.system"),
        ("bad_legacy_command", "posix.system"),
        ("bad_pickle_command", "posix.system"),
        ("bad_whole_module", "torch.nn.modules.container.Sequential"),
        ("bad_numpy", "numpy"),
        ("bad_training_state", "a dict as \"model\" where a tensor is expected"),
        ("bad_number", "a number where a state dict is expected"),
        ("bad_empty", "a dict without any tensor"),
        ("bad_compressed", "compressed"),
    ];
    for (name, reason) in cases {
        let error = read(name).unwrap_err();
        assert!(error.to_string().contains(reason), "{name}: {error}");
        assert_eq!(error.code(), ErrorCode::InvalidArgument, "{name}");
    }
}

#[test]
fn other_files_are_not_checkpoints() {
    for content in [&b""[..], b"PK", b"\x89HDF\r\n\x1a\n", b"weights", b"\x00\x00\x00\x00"] {
        let error = Checkpoint::read_from(Cursor::new(content)).unwrap_err();
        assert!(matches!(error, CheckpointError::NotACheckpoint), "{content:?}: {error}");
    }
    let missing = Checkpoint::read(&golden("checkpoint/none.pth")).unwrap_err();
    assert_eq!(missing.code(), ErrorCode::NotFound);
}
