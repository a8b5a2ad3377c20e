//! What the server remembers of a dataset besides its stores: the shape that was asked for last, which files were uploaded
//! in which order, and why the last upload or generation failed.
//!
//! It is in `.record.json` in the dataset's folder, whose name no upload can have. A check makes no
//! folder: the records of datasets without one, and those that cannot be written, are kept in memory.

use std::{
    collections::BTreeMap,
    fs, io,
    io::Write,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use elephant_fs::{FsError, metadata, write_atomic};
use elephant_track::TrackOptions;
use elephant_types::{DatasetName, FileName};
use serde::{Deserialize, Serialize};

/// Most records in memory: datasets that were asked for and do not exist.
const MAX_UNSAVED: usize = 1000;
/// Most uploads remembered of a dataset; a movie may have a thousand partitions.
const MAX_UPLOADS: usize = 10_000;

/// What is remembered of a dataset.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Record {
    /// The shape that the last `dataset/check` asked for: (t, z, y, x), or (t, y, x) in 2-D.
    pub asked_shape: Option<Vec<usize>>,
    /// Whether a generation may still answer that a movie has to be uploaded: once after each check, and not after an
    /// upload, so that no client uploads for ever.
    pub may_request_upload: bool,
    /// Names of the completed uploads, the newest one last.
    pub uploads: Vec<String>,
    /// Why the last upload or generation failed; `None` after a success.
    pub failure: Option<String>,
    /// Options of the tracking that answers the ELEPHANT client's linking; `None` where the flow network does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steering: Option<TrackOptions>,
}

impl Record {
    /// A client asks for a dataset of this shape.
    pub fn ask(&mut self, shape: &[usize]) {
        self.asked_shape = Some(shape.to_vec());
        self.may_request_upload = true;
    }

    /// An upload is complete.
    pub fn add_upload(&mut self, file: &FileName) {
        self.uploads.retain(|name| name != file.as_str());
        self.uploads.push(file.as_str().to_owned());
        let surplus = self.uploads.len().saturating_sub(MAX_UPLOADS);
        self.uploads.drain(..surplus);
        self.may_request_upload = false;
        self.failure = None;
    }
}

/// The records of a workspace. Copies share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Records(Arc<Mutex<BTreeMap<DatasetName, Record>>>);

impl Records {
    /// The record of a dataset in `folder`; an empty one where there is none, or a damaged one.
    pub fn load(&self, dataset: &DatasetName, folder: &Path) -> Record {
        let unsaved = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        load(&unsaved, dataset, folder)
    }

    /// Changes a record, and returns what `change` returns. That the record cannot be written is logged: it holds until the
    /// server ends.
    pub fn update<T>(&self, dataset: &DatasetName, folder: &Path, change: impl FnOnce(&mut Record) -> T) -> T {
        let mut unsaved = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let old = load(&unsaved, dataset, folder);
        let mut new = old.clone();
        let result = change(&mut new);
        if new == old {
            return result;
        }
        let saved = metadata(folder).and_then(|found| found.map(|_| save(folder, &new)).transpose());
        match saved {
            Ok(Some(())) => {
                unsaved.remove(dataset);
                return result;
            }
            Ok(None) => {}
            Err(error) => tracing::warn!(%dataset, %error, "the dataset's record cannot be written"),
        }
        if unsaved.len() >= MAX_UNSAVED {
            unsaved.pop_first();
        }
        unsaved.insert(dataset.clone(), new);
        result
    }
}

fn path(folder: &Path) -> PathBuf {
    folder.join(".record.json")
}

fn load(unsaved: &BTreeMap<DatasetName, Record>, dataset: &DatasetName, folder: &Path) -> Record {
    if let Some(record) = unsaved.get(dataset) {
        return record.clone();
    }
    let record = match fs::read(path(folder)) {
        Ok(text) => serde_json::from_slice(&text).map_err(|error| error.to_string()),
        Err(error) if [io::ErrorKind::NotFound, io::ErrorKind::NotADirectory].contains(&error.kind()) => {
            Ok(Record::default())
        }
        Err(error) => Err(error.to_string()),
    };
    record.unwrap_or_else(|error| {
        tracing::warn!(%dataset, error, "the dataset's record cannot be read and is ignored");
        Record::default()
    })
}

fn save(folder: &Path, record: &Record) -> Result<(), FsError> {
    let text = serde_json::to_vec(record).map_err(io::Error::from);
    write_atomic(&path(folder), |file| file.write_all(&text?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_outlive_the_server_where_there_is_a_folder() {
        let folder = tempfile::tempdir().unwrap();
        let dataset: DatasetName = "fly".parse().unwrap();
        let fly = folder.path().join("fly");
        let records = Records::default();
        records.update(&dataset, &fly, |record| record.ask(&[3, 6, 24, 32]));
        assert!(!fly.exists(), "a check makes no folder");
        assert_eq!(records.load(&dataset, &fly).asked_shape.unwrap(), [3, 6, 24, 32]);
        assert_eq!(Records::default().load(&dataset, &fly), Record::default());

        fs::create_dir(&fly).unwrap();
        for name in ["a.h5", "b.h5", "a.h5"] {
            records.update(&dataset, &fly, |record| record.add_upload(&name.parse().unwrap()));
        }
        let expected = Record {
            asked_shape: Some(vec![3, 6, 24, 32]),
            may_request_upload: false,
            uploads: vec!["b.h5".into(), "a.h5".into()],
            failure: None,
            steering: None,
        };
        assert_eq!(Records::default().load(&dataset, &fly), expected);
        assert_eq!(records.load(&dataset, &fly), expected);
    }

    #[test]
    fn damaged_records_are_ignored() {
        let folder = tempfile::tempdir().unwrap();
        let dataset: DatasetName = "fly".parse().unwrap();
        for text in ["", "{", "[]", r#"{"uploads": 5}"#, "\u{0}"] {
            fs::write(path(folder.path()), text).unwrap();
            assert_eq!(Records::default().load(&dataset, folder.path()), Record::default(), "{text:?}");
        }
        fs::write(path(folder.path()), r#"{"failure": "x", "new": 1}"#).unwrap();
        assert_eq!(Records::default().load(&dataset, folder.path()).failure.as_deref(), Some("x"));
    }

    #[test]
    fn records_in_memory_do_not_pile_up() {
        let records = Records::default();
        for index in 0..2 * MAX_UNSAVED {
            let dataset = format!("d{index}").parse().unwrap();
            records.update(&dataset, Path::new("/nonexistent"), |record| record.ask(&[1, 1, 1, 1]));
        }
        assert_eq!(records.0.lock().unwrap().len(), MAX_UNSAVED);
    }
}
