//! Which fields are in a dataset, and with what they were computed: a field is used again only where everything that
//! determines it is the same.

use std::{
    collections::{HashMap, HashSet},
    fs::File,
    io::Read,
    path::{Path, PathBuf},
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, UNIX_EPOCH},
};

use elephant_fs::{FileVersion, FsError};
use elephant_types::{CancelToken, Cancelled, Numerics};
use elephant_volume::{Dataset, FlowHash, Store};
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::PredictFlowRequest;
use crate::PipelineError;

/// How often a waiting prediction looks whether it was cancelled.
const CANCEL_POLL: Duration = Duration::from_millis(50);
/// Models whose digests are remembered.
const MAX_DIGESTS: usize = 64;
/// To be increased when fields are computed or stored differently.
const FORMAT: u32 = 1;
const BASE_64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// The content of a model, as far as it is known to be what a prediction uses.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ModelContent {
    digest: [u8; 32],
    version: FileVersion,
    /// The number of the newest parameters that a training has published instead of the file's.
    published: Option<u64>,
}

/// Everything that determines a field.
#[derive(Serialize)]
struct Determinants<'a> {
    format: u32,
    model: &'a [u8],
    /// The published parameters, with a number that another run of the server does not have.
    published: Option<(u64, u64)>,
    /// When and how the images were last changed.
    images: [Option<(u128, u64)>; 2],
    keep_axials: [bool; 4],
    max_displacement: f64,
    /// Tiles and the rescaled image, (z, y, x).
    tile: [usize; 3],
    size: [usize; 3],
    is_original: bool,
}

/// The fields of all datasets of a workspace.
#[derive(Debug)]
pub(super) struct Fields {
    digests: Mutex<HashMap<PathBuf, (FileVersion, [u8; 32])>>,
    /// Pairs that are read or written, by the dataset's folder.
    busy: Mutex<HashSet<(PathBuf, usize)>>,
    freed: Condvar,
    /// Held while a hash is written: the hashes of a dataset are in one chunk.
    writing: Mutex<()>,
    /// A number of this run of the server.
    run: u64,
}

/// The right to read and write a pair's field.
pub(super) struct Turn<'a> {
    fields: &'a Fields,
    key: (PathBuf, usize),
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        lock(&self.fields.busy).remove(&self.key);
        self.fields.freed.notify_all();
    }
}

impl Default for Fields {
    fn default() -> Self {
        let run = std::time::SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_nanos() as u64);
        Self {
            digests: Mutex::default(),
            busy: Mutex::default(),
            freed: Condvar::default(),
            writing: Mutex::default(),
            run: run ^ u64::from(std::process::id()).rotate_left(32),
        }
    }
}

impl Fields {
    /// Waits until no one else reads or writes the field of a pair.
    ///
    /// # Errors
    /// [`Cancelled`] while waiting.
    pub fn enter(&self, folder: &Path, pair: usize, cancel: &CancelToken) -> Result<Turn<'_>, Cancelled> {
        let key = (folder.to_owned(), pair);
        let mut busy = lock(&self.busy);
        while busy.contains(&key) {
            cancel.check()?;
            busy = self.freed.wait_timeout(busy, CANCEL_POLL).unwrap_or_else(PoisonError::into_inner).0;
        }
        busy.insert(key.clone());
        Ok(Turn { fields: self, key })
    }

    /// The content of the model in a file, of which `published` says whether a training has newer parameters.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn model_content(&self, path: &Path, published: Option<u64>) -> Result<ModelContent, PipelineError> {
        let version = FileVersion::of(path)?;
        let known = lock(&self.digests).get(path).filter(|(seen, _)| *seen == version).map(|(_, digest)| *digest);
        if let Some(digest) = known {
            return Ok(ModelContent { digest, version, published });
        }
        let digest = digest_of(path)?;
        // A file that was just written may be changed once more without a change of its version.
        if version.is_settled() {
            let mut digests = lock(&self.digests);
            if digests.len() >= MAX_DIGESTS {
                digests.clear();
            }
            digests.insert(path.to_owned(), (version, digest));
        }
        Ok(ModelContent { digest, version, published })
    }

    /// What a field is computed with by a request, where frames are rescaled to `size` (z, y, x).
    ///
    /// # Errors
    /// When the images cannot be looked at.
    pub fn hash(
        &self,
        dataset: &Dataset,
        folder: &Path,
        model: &ModelContent,
        request: &PredictFlowRequest,
        size: [usize; 3],
        numerics: Numerics,
    ) -> Result<FlowHash, PipelineError> {
        debug_assert_eq!(dataset.is_3d(), request.is_3d);
        let images = folder.join(Store::Images.folder());
        let tile = request.patch.unwrap_or(size);
        let determinants = Determinants {
            format: FORMAT,
            model: &model.digest,
            published: model.published.map(|number| (self.run, number)),
            images: [changed(&images.join(".zarray"))?, changed(&images)?],
            keep_axials: request.keep_axials.0,
            max_displacement: request.max_displacement,
            tile: std::array::from_fn(|axis| tile[axis].min(size[axis])),
            size,
            is_original: numerics == Numerics::Original,
        };
        let text = serde_json::to_vec(&determinants).map_err(|error| PipelineError::Invalid(error.to_string()))?;
        Ok(text_of(Sha256::digest(&text).into()))
    }

    /// Notes what the field of a pair was computed with, or that there is none.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn note(&self, dataset: &Dataset, pair: usize, hash: Option<FlowHash>) -> Result<(), PipelineError> {
        let _writing = lock(&self.writing);
        Ok(dataset.set_flow_hash(pair, hash)?)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn digest_of(path: &Path) -> Result<[u8; 32], FsError> {
    let mut file = File::open(path).map_err(FsError::io("open", path))?;
    let (mut digest, mut buffer) = (Sha256::new(), vec![0; 1 << 16]);
    loop {
        let count = file.read(&mut buffer).map_err(FsError::io("read", path))?;
        if count == 0 {
            return Ok(digest.finalize().into());
        }
        digest.update(&buffer[..count]);
    }
}

/// When a file or folder was last changed (nanoseconds since 1970), and the length of a file. The folder of a store changes
/// when one of its chunks is replaced.
fn changed(path: &Path) -> Result<Option<(u128, u64)>, FsError> {
    let Some(metadata) = elephant_fs::metadata(path)? else { return Ok(None) };
    let modified = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    let bytes = if metadata.is_file() { metadata.len() } else { 0 };
    Ok(modified.map(|time| (time.as_nanos(), bytes)))
}

/// The first 96 bits as text, which NumPy reads without loss.
fn text_of(digest: [u8; 32]) -> FlowHash {
    std::array::from_fn(|index| {
        let bit = 6 * index;
        let pair = u16::from_be_bytes([digest[bit / 8], digest[bit / 8 + 1]]);
        BASE_64[usize::from(pair >> (10 - bit % 8)) & 63]
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_base_64() {
        let mut digest = [0; 32];
        // "hello, hello" is aGVsbG8sIGhlbGxv.
        digest[..12].copy_from_slice(b"hello, hello");
        assert_eq!(&text_of(digest), b"aGVsbG8sIGhlbGxv");
    }

    #[test]
    fn one_at_a_time_has_a_pair() {
        let (fields, cancel) = (Fields::default(), CancelToken::default());
        let folder = Path::new("/fly");
        let turn = fields.enter(folder, 3, &cancel).unwrap();
        let _other = fields.enter(folder, 4, &cancel).unwrap();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| fields.enter(folder, 3, &cancel).is_ok());
            drop(turn);
            assert!(waiting.join().unwrap());
        });
        let _turn = fields.enter(folder, 3, &cancel).unwrap();
        cancel.cancel();
        assert!(fields.enter(folder, 3, &cancel).is_err());
    }

    #[test]
    fn a_changed_model_has_another_content() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.pth");
        let fields = Fields::default();
        std::fs::write(&path, "a").unwrap();
        let first = fields.model_content(&path, None).unwrap();
        assert_eq!(first, fields.model_content(&path, None).unwrap());
        assert_ne!(first, fields.model_content(&path, Some(1)).unwrap());
        // In place, with the same length and within the same second.
        std::fs::write(&path, "b").unwrap();
        assert_ne!(first.digest, fields.model_content(&path, None).unwrap().digest);
    }
}
