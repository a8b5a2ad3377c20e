//! Reads a checkpoint of a 3-D network's size, compared with `torch.load`, and checks that PyTorch reads our files.
//!
//! `cargo bench -p elephant-checkpoint`; set `ELEPHANT_PEER_PYTHON` to a Python with torch 2.11.

use std::{error::Error, path::Path, time::Instant};

use elephant_checkpoint::{Checkpoint, Dtype, StateDict, Tensor};
use elephant_testkit::Peer;
use serde_json::{Value, json};

type AnyResult<T> = Result<T, Box<dyn Error>>;

const RUNS: usize = 20;

fn main() -> AnyResult<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("model.pth");
    let checkpoint = network_sized()?;
    let mut peer = Peer::start("load_checkpoint.py", &[] as &[&str])?;
    let (mut read, mut written, mut theirs) = (f64::INFINITY, f64::INFINITY, f64::INFINITY);
    for _ in 0..RUNS {
        let start = Instant::now();
        checkpoint.write(&path)?;
        written = written.min(start.elapsed().as_secs_f64() * 1e3);
        let start = Instant::now();
        let found = Checkpoint::read(&path)?;
        read = read.min(start.elapsed().as_secs_f64() * 1e3);
        assert!(found == checkpoint, "the checkpoint is read back");
        if let Some(peer) = &mut peer {
            theirs = theirs.min(load(peer, &path)?["seconds"].as_f64().ok_or("no seconds")? * 1e3);
        }
    }
    println!("checkpoint of 23.5 MB, written and flushed to the disk: ours {written:.1} ms");
    let Some(mut peer) = peer else {
        println!("checkpoint of 23.5 MB, read: ours {read:.1} ms, peer skipped: set ELEPHANT_PEER_PYTHON");
        return Ok(());
    };
    println!("checkpoint of 23.5 MB, read: ours {read:.1} ms, peer {theirs:.1} ms, ratio {:.1}", theirs / read);
    let members = [all_types()?, all_types()?];
    for count in [1, 2] {
        let checkpoint = Checkpoint::new(members[..count].to_vec());
        checkpoint.write(&path)?;
        assert_eq!(load(&mut peer, &path)?["members"], described(&checkpoint), "PyTorch reads the same");
    }
    println!("written state dicts and lists of them load with weights_only=True, every type with equal bytes");
    Ok(())
}

/// A checkpoint with as many tensors and bytes as a 3-D U-Net.
fn network_sized() -> AnyResult<Checkpoint> {
    let mut dict = StateDict::default();
    for index in 0..74 {
        let values: Vec<f32> = (0..79_555).map(|i| (i * index) as f32).collect();
        dict.insert(format!("layer.{index}.weight"), Tensor::from_f32(vec![79_555], &values)?);
    }
    Ok(dict.into())
}

const TYPES: [(Dtype, &str); 10] = [
    (Dtype::F32, "float32"),
    (Dtype::F64, "float64"),
    (Dtype::F16, "float16"),
    (Dtype::Bf16, "bfloat16"),
    (Dtype::I64, "int64"),
    (Dtype::I32, "int32"),
    (Dtype::I16, "int16"),
    (Dtype::I8, "int8"),
    (Dtype::U8, "uint8"),
    (Dtype::Bool, "bool"),
];

/// One tensor (2, 3) of each type, one without axes and one without elements.
fn all_types() -> AnyResult<StateDict> {
    let mut dict = StateDict::default();
    for (dtype, name) in TYPES {
        // Bit patterns that are finite numbers in every type, and valid booleans.
        let bytes = (0..6 * dtype.size()).map(|i| u8::from(i % 3 == 0)).collect();
        dict.insert(name, Tensor::new(dtype, vec![2, 3], bytes)?);
    }
    dict.insert("scalar", Tensor::from_f32(vec![], &[1.5])?);
    dict.insert("empty", Tensor::from_f32(vec![0, 3], &[])?);
    Ok(dict)
}

fn described(checkpoint: &Checkpoint) -> Value {
    let entry = |(name, tensor): (&str, &Tensor)| {
        let dtype = TYPES.iter().find(|(dtype, _)| *dtype == tensor.dtype()).map_or("", |(_, name)| name);
        let hexadecimal = tensor.bytes().iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"));
        json!([name, dtype, tensor.shape(), hexadecimal])
    };
    checkpoint.members.iter().map(|member| member.iter().map(entry).collect::<Value>()).collect()
}

/// Lets the peer load one file.
fn load(peer: &mut Peer, path: &Path) -> AnyResult<Value> {
    Ok(serde_json::from_str(&peer.ask(&path.display().to_string())?)?)
}
