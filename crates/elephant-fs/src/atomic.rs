//! Replacing one file whole.

use std::{
    fs::{self, File},
    io::{self, BufWriter, Write},
    path::Path,
    time::Duration,
};

use crate::FsError;

/// How the names of temporary files begin.
const TEMPORARY_PREFIX: &str = ".tmp-";
/// For so long a temporary file may be somebody's who is writing it.
const ABANDONED_AFTER: Duration = Duration::from_mins(1);

/// Writes a file so that `path` holds either its old content or all of the new, even when the process is killed or the
/// disk is full: into a temporary file beside it, flushed to the disk, then renamed. Missing parent folders are made.
///
/// # Errors
/// When the content cannot be written; the old file is then untouched and no temporary file stays.
pub fn write_atomic(path: &Path, write: impl FnOnce(&mut BufWriter<&File>) -> io::Result<()>) -> Result<(), FsError> {
    let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(folder).map_err(FsError::io("create", folder))?;
    let temporary = tempfile::Builder::new()
        .prefix(TEMPORARY_PREFIX)
        .tempfile_in(folder)
        .map_err(FsError::io("create a temporary file in", folder))?;
    let mut writer = BufWriter::new(temporary.as_file());
    write(&mut writer).and_then(|()| writer.flush()).map_err(FsError::io("write", path))?;
    drop(writer);
    temporary.as_file().sync_all().map_err(FsError::io("flush", path))?;
    // Temporary files are private to their owner; published ones follow the usual permissions.
    set_default_permissions(temporary.as_file()).map_err(FsError::io("set the permissions of", path))?;
    temporary.persist(path).map_err(|failed| FsError::io("replace", path)(failed.error))?;
    sync_folder(folder)
}

/// Replaces a small file as [`write_atomic`] does, but leaves it to the operating system when it reaches the disk: for
/// files that come by the thousand. `path` holds its old content or the new whenever the process is killed; after a power
/// failure either may be lost. The folder must exist.
///
/// # Errors
/// When the content cannot be written; the old file is then untouched and no temporary file stays.
pub fn replace_unflushed(path: &Path, content: &[u8]) -> Result<(), FsError> {
    let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut temporary = tempfile::Builder::new()
        .prefix(TEMPORARY_PREFIX)
        .permissions(published_permissions())
        .tempfile_in(folder)
        .map_err(FsError::io("create a temporary file in", folder))?;
    temporary.write_all(content).map_err(FsError::io("write", path))?;
    temporary.persist(path).map_err(|failed| FsError::io("replace", path)(failed.error))?;
    Ok(())
}

/// Removes the temporary files that killed writers left in a folder and in the folders below it. Those that changed within
/// the last minute are left alone, as somebody may be writing them.
///
/// # Errors
/// When a folder cannot be listed or a file not removed.
pub fn remove_temporary(folder: &Path) -> Result<(), FsError> {
    for entry in fs::read_dir(folder).map_err(FsError::io("list", folder))? {
        let path = entry.map_err(FsError::io("list", folder))?.path();
        let Ok(metadata) = path.symlink_metadata() else { continue };
        let is_temporary = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(TEMPORARY_PREFIX));
        if metadata.is_dir() {
            remove_temporary(&path)?;
        } else if is_temporary
            && metadata.modified().is_ok_and(|at| at.elapsed().is_ok_and(|age| age > ABANDONED_AFTER))
        {
            fs::remove_file(&path).map_err(FsError::io("remove", &path))?;
        }
    }
    Ok(())
}

/// Copies a file as [`write_atomic`] writes one.
///
/// # Errors
/// When `from` cannot be read or `to` cannot be written.
pub fn copy_atomic(from: &Path, to: &Path) -> Result<(), FsError> {
    let mut source = File::open(from).map_err(FsError::io("open", from))?;
    write_atomic(to, |writer| io::copy(&mut source, writer).map(|_| ()))
}

fn set_default_permissions(file: &File) -> io::Result<()> {
    file.set_permissions(published_permissions())
}

fn published_permissions() -> fs::Permissions {
    use std::os::unix::fs::PermissionsExt;
    fs::Permissions::from_mode(0o644)
}

/// Flushes a folder's list of names, so that a rename survives a power failure.
pub(crate) fn sync_folder(folder: &Path) -> Result<(), FsError> {
    File::open(folder).and_then(|opened| opened.sync_all()).map_err(FsError::io("flush", folder))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_file_is_replaced_and_readable_by_others() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("0.0.0");
        for content in ["old", "new"] {
            replace_unflushed(&path, content.as_bytes()).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), content);
        }
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o444, 0o444);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no temporary file stays");
    }

    #[test]
    fn a_failed_write_leaves_the_old_file_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.pth");
        write_atomic(&path, |file| file.write_all(b"old")).unwrap();
        let failed = write_atomic(&path, |file| {
            file.write_all(b"half of the new")?;
            Err(io::Error::from(io::ErrorKind::StorageFull))
        });
        assert!(failed.is_err());
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no temporary file stays");
    }

    #[test]
    fn only_abandoned_temporary_files_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("deep")).unwrap();
        let hour_ago = std::time::SystemTime::now() - Duration::from_hours(1);
        for (name, is_old) in [("deep/.tmp-a", true), (".tmp-b", false), ("model.pth", true), (".model.pth.adam", true)]
        {
            let file = File::create(folder.path().join(name)).unwrap();
            if is_old {
                file.set_modified(hour_ago).unwrap();
            }
        }
        remove_temporary(folder.path()).unwrap();
        for (name, is_left) in
            [("deep/.tmp-a", false), (".tmp-b", true), ("model.pth", true), (".model.pth.adam", true)]
        {
            assert_eq!(folder.path().join(name).exists(), is_left, "{name}");
        }
    }
}
