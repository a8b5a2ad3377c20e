//! Removal of temporary files of killed processes.

use std::{
    fs::{self, FileType},
    path::Path,
    time::Duration,
};

use crate::{FsError, Root, StagingDir, metadata, staging::STAGING_PREFIX};

/// Prefix of the names of temporary files.
pub(crate) const TEMPORARY_PREFIX: &str = ".tmp-";
/// Prefix of the names of uploads that arrive in pieces: they outlive a request, but not a server.
pub const UPLOAD_PREFIX: &str = ".upload-";
/// A temporary file that was changed within this time may still be in use.
const ABANDONED_AFTER: Duration = Duration::from_mins(1);

/// Removes from `root` and the folders below it what killed processes left: temporary files and unfinished uploads that
/// did not change within the last minute, and the staging folders of publications that are not running any more. Links
/// are not followed. Chunked arrays, whose folders may have millions of files, are not searched.
///
/// # Errors
/// The first folder that cannot be listed, or file that cannot be removed, after all others have been processed.
pub fn remove_abandoned(root: &Path) -> Result<(), FsError> {
    for_each_entry(root, |folder, entry, kind| {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if kind.is_dir() {
            if name.starts_with(STAGING_PREFIX) { remove_staging(folder) } else { Ok(()) }
        } else if name.starts_with(TEMPORARY_PREFIX) || name.starts_with(UPLOAD_PREFIX) {
            remove_old(entry)
        } else {
            Ok(())
        }
    })
}

/// As [`remove_abandoned`], for the folders elsewhere that links in `root` and below lead to, if the root allows them.
/// Links in those folders are not followed.
///
/// # Errors
/// As [`remove_abandoned`].
pub fn remove_abandoned_behind_links(root: &Root) -> Result<(), FsError> {
    for_each_entry(root.path(), |_, entry, kind| {
        let path = entry.path();
        let is_searched = kind.is_symlink() && may_hold_datasets(&path) && is_folder(&path) && root.allows(&path);
        if is_searched { remove_abandoned(&path) } else { Ok(()) }
    })
}

/// Visits every entry of `root` and of the folders below that may hold datasets, with the folder it is in. Returns the
/// first error (of a visit, or of a folder that cannot be listed) after the last visit.
fn for_each_entry(
    root: &Path,
    mut visit: impl FnMut(&Path, &fs::DirEntry, FileType) -> Result<(), FsError>,
) -> Result<(), FsError> {
    let mut result = Ok(());
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) => {
                result = result.and(Err(FsError::io("list", folder)(error)));
                continue;
            }
        };
        for entry in entries.map_while(Result::ok) {
            let Ok(kind) = entry.file_type() else { continue };
            result = result.and(visit(&folder, &entry, kind));
            let path = entry.path();
            if kind.is_dir() && may_hold_datasets(&path) {
                folders.push(path);
            }
        }
    }
    result
}

/// Whether to search a folder: not hidden ones, and not chunked arrays.
fn may_hold_datasets(path: &Path) -> bool {
    let is_hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
    !is_hidden && path.extension().is_none_or(|extension| extension != "zarr")
}

fn is_folder(path: &Path) -> bool {
    matches!(metadata(path), Ok(Some(found)) if found.is_dir())
}

/// The beginning of a publication removes staging folders of earlier ones, but not of those that are still running
/// elsewhere.
fn remove_staging(target: &Path) -> Result<(), FsError> {
    match StagingDir::begin(target, "a publication") {
        Ok(_) | Err(FsError::Locked { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

fn remove_old(entry: &fs::DirEntry) -> Result<(), FsError> {
    // A file without a modification time may be in use.
    let changed = entry.metadata().and_then(|metadata| metadata.modified());
    if changed.is_ok_and(|at| at.elapsed().is_ok_and(|age| age > ABANDONED_AFTER)) {
        return fs::remove_file(entry.path()).map_err(FsError::io("remove", entry.path()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{fs::File, time::SystemTime};

    use super::*;

    #[test]
    fn only_abandoned_files_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        for deep in ["deep/lab", "imgs.zarr", ".hidden", "deep/.staging-x/imgs.zarr", "busy/.staging-y"] {
            fs::create_dir_all(folder.path().join(deep)).unwrap();
        }
        let _running = StagingDir::begin(&folder.path().join("deep/lab"), "a test").unwrap();
        let files = [
            (".tmp-a", true, false),
            ("deep/.tmp-b", true, false),
            ("deep/lab/.upload-fly.h5", true, false),
            ("deep/lab/.upload-new.h5", false, true),
            (".tmp-new", false, true),
            ("imgs.zarr/.tmp-c", true, true),
            (".hidden/.tmp-d", true, true),
            ("model.pth", true, true),
            (".model.pth.adam", true, true),
        ];
        let hour_ago = SystemTime::now() - Duration::from_hours(1);
        for (name, is_old, _) in files {
            let file = File::create(folder.path().join(name)).unwrap();
            if is_old {
                file.set_modified(hour_ago).unwrap();
            }
        }
        remove_abandoned(folder.path()).unwrap();
        for (name, _, is_left) in files {
            assert_eq!(folder.path().join(name).exists(), is_left, "{name}");
        }
        assert!(!folder.path().join("deep/.staging-x").exists());
        let left = fs::read_dir(folder.path().join("deep/lab")).unwrap();
        let names: Vec<_> = left.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        assert!(
            names.iter().any(|name| name.starts_with(STAGING_PREFIX)),
            "the folder of a running publication stays: {names:?}"
        );
    }

    #[test]
    fn an_unreadable_folder_does_not_stop_the_sweep() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("missing");
        assert!(matches!(remove_abandoned(&missing), Err(FsError::Io { operation: "list", .. })));
    }
    #[test]
    fn links_are_followed_into_allowed_folders() {
        let (folder, disk, other) =
            (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::create_dir(folder.path().join("lab")).unwrap();
        for deep in ["fly/deep", "fly/.staging-x"] {
            fs::create_dir_all(disk.path().join(deep)).unwrap();
        }
        let hour_ago = SystemTime::now() - Duration::from_hours(1);
        let files = [
            (disk.path().join("fly/.upload-a.h5"), false),
            (disk.path().join("fly/deep/.tmp-b"), false),
            (disk.path().join("fly/a.h5"), true),
            (disk.path().join(".tmp-c"), true),
            (other.path().join(".tmp-d"), true),
        ];
        for (path, _) in &files {
            File::create(path).unwrap().set_modified(hour_ago).unwrap();
        }
        let link = |target: &Path, name: &str| std::os::unix::fs::symlink(target, folder.path().join(name)).unwrap();
        link(&disk.path().join("fly"), "lab/fly");
        link(other.path(), "other");
        link(&disk.path().join("gone"), "gone");
        link(folder.path(), "loop");
        std::os::unix::fs::symlink(other.path(), disk.path().join("fly/out")).unwrap();
        let root = Root::open(folder.path()).unwrap();
        remove_abandoned_behind_links(&root).unwrap();
        assert!(files.iter().all(|(path, _)| path.exists()), "no link is allowed");
        remove_abandoned_behind_links(&root.allowing(&[disk.path().to_owned()]).unwrap()).unwrap();
        for (path, is_left) in files {
            assert_eq!(path.exists(), is_left, "{}", path.display());
        }
        assert!(!disk.path().join("fly/.staging-x").exists());
    }
}
