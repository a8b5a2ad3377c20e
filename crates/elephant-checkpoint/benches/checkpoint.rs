//! Reading a checkpoint of a 3-D network's size against `torch.load`, and whether PyTorch reads what is written here.
//!
//! `cargo bench -p elephant-checkpoint`; set `ELEPHANT_PEER_PYTHON` to a Python with torch 2.11.

use std::{
    env,
    error::Error,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
    time::Instant,
};

use elephant_checkpoint::{Checkpoint, Dtype, StateDict, Tensor};
use serde_json::{Value, json};

type AnyResult<T> = Result<T, Box<dyn Error>>;

const RUNS: usize = 20;

fn main() -> AnyResult<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("model.pth");
    let checkpoint = network_sized()?;
    let mut peer = Peer::start()?;
    let (mut read, mut written, mut theirs) = (f64::INFINITY, f64::INFINITY, f64::INFINITY);
    for _ in 0..RUNS {
        let start = Instant::now();
        checkpoint.write(&path)?;
        written = written.min(start.elapsed().as_secs_f64() * 1e3);
        let start = Instant::now();
        let found = Checkpoint::read(&path)?;
        read = read.min(start.elapsed().as_secs_f64() * 1e3);
        assert!(found == checkpoint, "what is written is read back");
        if let Some(peer) = &mut peer {
            theirs = theirs.min(peer.load(&path)?["seconds"].as_f64().ok_or("no seconds")? * 1e3);
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
        assert_eq!(peer.load(&path)?["members"], described(&checkpoint), "PyTorch reads the same");
    }
    println!("written state dicts and lists of them load with weights_only=True, every type with equal bytes");
    Ok(())
}

/// As many tensors and bytes as a 3-D U-Net.
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
        // Bit patterns that are finite numbers in every type, and booleans.
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

/// The Python peer, which loads one file for each line it gets.
struct Peer {
    process: Child,
    answers: BufReader<ChildStdout>,
}

impl Peer {
    fn start() -> AnyResult<Option<Self>> {
        let Ok(python) = env::var("ELEPHANT_PEER_PYTHON") else { return Ok(None) };
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../benches/peers/load_checkpoint.py");
        let mut process = Command::new(python).arg(script).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let answers = BufReader::new(process.stdout.take().ok_or("the peer has no output")?);
        Ok(Some(Self { process, answers }))
    }

    fn load(&mut self, path: &Path) -> AnyResult<Value> {
        let input = self.process.stdin.as_mut().ok_or("the peer has no input")?;
        writeln!(input, "{}", path.display())?;
        input.flush()?;
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        Ok(serde_json::from_str(&line).map_err(|_| "the peer failed")?)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        let _ = self.process.wait();
    }
}
