//! Atomic replacement of one file.

use std::{
    fs::{self, File, Permissions},
    io::{self, BufWriter, Write},
    os::unix::fs::PermissionsExt,
    path::Path,
};

use tempfile::NamedTempFile;

use crate::{FsError, sweep::TEMPORARY_PREFIX};

/// Permissions of new files before the operating system applies the umask, as for files of other programs.
const ALL_MAY_READ_AND_WRITE: u32 = 0o666;

/// A hidden file in `folder`, which is deleted when dropped. If the process is killed,
/// [`remove_abandoned`](crate::remove_abandoned) deletes it later.
///
/// # Errors
/// When the file cannot be created.
pub fn temporary_file(folder: &Path) -> Result<NamedTempFile, FsError> {
    tempfile::Builder::new()
        .prefix(TEMPORARY_PREFIX)
        .permissions(Permissions::from_mode(ALL_MAY_READ_AND_WRITE))
        .tempfile_in(folder)
        .map_err(FsError::io("create a temporary file in", folder))
}

/// Writes a file so that `path` has either its old content or all of the new one, even if the process is killed or the
/// disk is full: the content goes into a temporary file in the same folder, which is flushed to the disk and then
/// renamed. Missing parent folders are created.
///
/// # Errors
/// When the content cannot be written; the old file is then unchanged and the temporary file is deleted.
pub fn write_atomic(path: &Path, write: impl FnOnce(&mut BufWriter<&File>) -> io::Result<()>) -> Result<(), FsError> {
    let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(folder).map_err(FsError::io("create", folder))?;
    let temporary = temporary_file(folder)?;
    let mut writer = BufWriter::new(temporary.as_file());
    write(&mut writer).and_then(|()| writer.flush()).map_err(FsError::io("write", path))?;
    drop(writer);
    temporary.as_file().sync_all().map_err(FsError::io("flush", path))?;
    temporary.persist(path).map_err(|failed| FsError::io("replace", path)(failed.error))?;
    sync_folder(folder)
}

/// Replaces a small file as [`write_atomic`] does, but does not flush it to the disk: for thousands of small files. If
/// the process is killed, `path` has its old or its new content; after a power failure both may be lost. The folder
/// must exist.
///
/// # Errors
/// When the content cannot be written; the old file is then unchanged and the temporary file is deleted.
pub fn replace_unflushed(path: &Path, content: &[u8]) -> Result<(), FsError> {
    let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut temporary = temporary_file(folder)?;
    temporary.write_all(content).map_err(FsError::io("write", path))?;
    temporary.persist(path).map_err(|failed| FsError::io("replace", path)(failed.error))?;
    Ok(())
}

/// Copies a file; `to` is replaced as by [`write_atomic`].
///
/// # Errors
/// When `from` cannot be read or `to` cannot be written.
pub fn copy_atomic(from: &Path, to: &Path) -> Result<(), FsError> {
    let mut source = File::open(from).map_err(FsError::io("open", from))?;
    write_atomic(to, |writer| io::copy(&mut source, writer).map(|_| ()))
}

/// Flushes the entries of a folder, so that a rename survives a power failure.
pub(crate) fn sync_folder(folder: &Path) -> Result<(), FsError> {
    File::open(folder).and_then(|opened| opened.sync_all()).map_err(FsError::io("flush", folder))
}

/// Moves a complete file in place of another one. `to` holds its old content or the new whenever the process is killed; as
/// with [`replace_unflushed`], a power failure may lose either. The folder must exist, and may be on another disk.
///
/// # Errors
/// When the file cannot be moved; the old one is then untouched.
#[expect(clippy::disallowed_methods, reason = "nothing is flushed, as the documentation says")]
pub fn move_unflushed(from: &Path, to: &Path) -> Result<(), FsError> {
    match fs::rename(from, to) {
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
            replace_unflushed(to, &fs::read(from).map_err(FsError::io("read", from))?)
        }
        moved => moved.map_err(FsError::io("replace", to)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_file_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("0.0.0");
        for content in ["old", "new"] {
            replace_unflushed(&path, content.as_bytes()).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), content);
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "the temporary file is deleted");
    }

    #[test]
    fn a_failed_write_leaves_the_old_file_unchanged() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.pth");
        write_atomic(&path, |file| file.write_all(b"old")).unwrap();
        let failed = write_atomic(&path, |file| {
            file.write_all(b"half of the new")?;
            Err(io::Error::from(io::ErrorKind::StorageFull))
        });
        assert!(failed.is_err());
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "the temporary file is deleted");
    }
}
