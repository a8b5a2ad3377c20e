//! Writing PyTorch's zip format, so that `torch.load(weights_only=True)` reads it.

use std::io::{self, Seek, SeekFrom, Write};

use zip::{CompressionMethod, ZipWriter, write::SimpleFileOptions};

use crate::{Checkpoint, Dtype, StateDict, Tensor, archive::PROVENANCE};

/// Alignment of storages in the file, in bytes, as in PyTorch's files, so that they can be mapped into memory.
const ALIGNMENT: u16 = 64;

/// Writes a checkpoint from the start of an empty `file`.
pub(crate) fn write(checkpoint: &Checkpoint, file: impl Write + Seek) -> io::Result<()> {
    let mut zip = ZipWriter::new(DeferErrors { file, position: 0, length: 0, error: None });
    let mut add = |name: &str, content: &[u8]| {
        let options = SimpleFileOptions::default()
            .compression_method(CompressionMethod::Stored)
            .large_file(content.len() >= u32::MAX as usize)
            .with_alignment(ALIGNMENT);
        zip.start_file(format!("archive/{name}"), options)?;
        zip.write_all(content)
    };
    add("data.pkl", &description(checkpoint))?;
    add("byteorder", b"little")?;
    let tensors = checkpoint.members.iter().flat_map(StateDict::iter);
    for (key, (_, tensor)) in tensors.enumerate() {
        add(&format!("data/{key}"), tensor.bytes())?;
    }
    if let Some(provenance) = &checkpoint.provenance {
        add(PROVENANCE, &serde_json::to_vec(provenance)?)?;
    }
    add("version", b"3\n")?;
    zip.finish()?.error.map_or(Ok(()), Err)
}

/// A file that keeps its first error instead of returning it, and ignores what is written after it. A `ZipWriter` prints
/// the errors that it meets when it is dropped; this way it meets none.
struct DeferErrors<W> {
    file: W,
    /// Position in the file, as if there had been no error.
    position: u64,
    /// Length of the file, as if there had been no error.
    length: u64,
    error: Option<io::Error>,
}

impl<W> DeferErrors<W> {
    fn attempt<T>(&mut self, operation: impl FnOnce(&mut W) -> io::Result<T>) {
        if self.error.is_none() {
            self.error = operation(&mut self.file).err();
        }
    }
}

impl<W: Write> Write for DeferErrors<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.attempt(|file| file.write_all(bytes));
        self.position += bytes.len() as u64;
        self.length = self.length.max(self.position);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.attempt(Write::flush);
        Ok(())
    }
}

impl<W: Seek> Seek for DeferErrors<W> {
    fn seek(&mut self, target: SeekFrom) -> io::Result<u64> {
        let position = match target {
            SeekFrom::Start(position) => Some(position),
            SeekFrom::Current(offset) => self.position.checked_add_signed(offset),
            SeekFrom::End(offset) => self.length.checked_add_signed(offset),
        };
        let position = position.ok_or(io::ErrorKind::InvalidInput)?;
        if position != self.position {
            self.attempt(|file| file.seek(SeekFrom::Start(position)));
            self.position = position;
        }
        Ok(position)
    }
}

/// `data.pkl`, protocol 2: an `OrderedDict`, or a list of them, of calls to `torch._utils._rebuild_tensor_v2`.
fn description(checkpoint: &Checkpoint) -> Vec<u8> {
    let mut pickle = PickleWriter { bytes: vec![0x80, 2], storages: 0 };
    if let [member] = checkpoint.members.as_slice() {
        pickle.state_dict(member);
    } else {
        pickle.bytes.extend(b"](");
        for member in &checkpoint.members {
            pickle.state_dict(member);
        }
        pickle.bytes.push(b'e');
    }
    pickle.bytes.push(b'.');
    pickle.bytes
}

struct PickleWriter {
    bytes: Vec<u8>,
    /// Number of storages so far. Each tensor has its own storage, named by a number.
    storages: usize,
}

impl PickleWriter {
    fn state_dict(&mut self, dict: &StateDict) {
        self.empty_ordered_dict();
        self.bytes.push(b'(');
        for (name, tensor) in dict.iter() {
            self.text(name);
            self.tensor(tensor);
        }
        self.bytes.push(b'u');
    }

    fn empty_ordered_dict(&mut self) {
        self.bytes.extend(b"ccollections\nOrderedDict\n)R");
    }

    /// `_rebuild_tensor_v2(storage, offset, shape, strides, requires_grad, backward_hooks)`
    fn tensor(&mut self, tensor: &Tensor) {
        self.bytes.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((");
        self.text("storage");
        self.bytes.extend(format!("ctorch\n{}\n", storage_class(tensor.dtype())).bytes());
        self.text(&self.storages.to_string());
        self.text("cpu");
        self.integer(tensor.bytes().len() / tensor.dtype().size());
        self.bytes.extend(b"tQ");
        self.storages += 1;
        self.integer(0);
        self.tuple(tensor.shape());
        self.tuple(&contiguous_strides(tensor.shape()));
        self.bytes.push(0x89); // False
        self.empty_ordered_dict();
        self.bytes.extend(b"tR");
    }

    fn tuple(&mut self, values: &[usize]) {
        self.bytes.push(b'(');
        for &value in values {
            self.integer(value);
        }
        self.bytes.push(b't');
    }

    /// `BININT` if it fits, otherwise `LONG1`; lengths in memory are below 2^63.
    fn integer(&mut self, value: usize) {
        if let Ok(value) = i32::try_from(value) {
            self.bytes.push(b'J');
            self.bytes.extend(value.to_le_bytes());
        } else {
            self.bytes.extend([0x8a, 8]);
            self.bytes.extend(value.to_le_bytes());
        }
    }

    fn text(&mut self, text: &str) {
        self.bytes.push(b'X');
        self.bytes.extend((text.len() as u32).to_le_bytes());
        self.bytes.extend(text.bytes());
    }
}

fn contiguous_strides(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; shape.len()];
    for axis in (1..shape.len()).rev() {
        strides[axis - 1] = strides[axis] * shape[axis].max(1);
    }
    strides
}

fn storage_class(dtype: Dtype) -> &'static str {
    match dtype {
        Dtype::F32 => "FloatStorage",
        Dtype::F64 => "DoubleStorage",
        Dtype::F16 => "HalfStorage",
        Dtype::Bf16 => "BFloat16Storage",
        Dtype::I64 => "LongStorage",
        Dtype::I32 => "IntStorage",
        Dtype::I16 => "ShortStorage",
        Dtype::I8 => "CharStorage",
        Dtype::U8 => "ByteStorage",
        Dtype::Bool => "BoolStorage",
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;
    use crate::Provenance;

    /// A disk with room for so many bytes.
    struct SmallDisk {
        file: Cursor<Vec<u8>>,
        bytes: u64,
    }

    impl Write for SmallDisk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.file.position() + bytes.len() as u64 > self.bytes {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.file.write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Seek for SmallDisk {
        fn seek(&mut self, target: SeekFrom) -> io::Result<u64> {
            self.file.seek(target)
        }
    }

    #[test]
    fn a_full_disk_is_reported_wherever_it_occurs() {
        let provenance = Some(Provenance { origin: "a test".into(), steps: 0 });
        let checkpoint = Checkpoint { members: vec![StateDict::default()], provenance };
        let mut whole = Cursor::new(Vec::new());
        write(&checkpoint, &mut whole).unwrap();
        let length = whole.get_ref().len() as u64;
        for bytes in 0..=length {
            let mut disk = SmallDisk { file: Cursor::new(Vec::new()), bytes };
            let result = write(&checkpoint, &mut disk).map_err(|error| error.kind());
            if bytes < length {
                assert_eq!(result, Err(io::ErrorKind::StorageFull), "{bytes} of {length} bytes");
            } else {
                assert_eq!((result, disk.file.get_ref()), (Ok(()), whole.get_ref()));
            }
        }
    }
}
