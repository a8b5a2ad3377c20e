//! Moving a finished file into place.

use std::{
    fs::{self, File},
    io,
    path::Path,
};

use rustix::{
    fs::{CWD, RenameFlags, renameat_with},
    io::Errno,
};

use crate::{FsError, atomic::sync_folder};

/// Moves a finished file to `to`, replacing an old one, so that `to` has the old content or all of the new one, also
/// after a power failure. Both must be on the same file system.
///
/// # Errors
/// When the file cannot be flushed or moved; the old file is then unchanged. If flushing the folder fails, the file has
/// been moved already.
pub fn publish_file(from: &Path, to: &Path) -> Result<(), FsError> {
    File::open(from).and_then(|file| file.sync_all()).map_err(FsError::io("flush", from))?;
    #[expect(clippy::disallowed_methods, reason = "this is the function that others call instead")]
    fs::rename(from, to).map_err(FsError::io("replace", to))?;
    sync_folder(folder_of(to))
}

/// Moves a finished file to `to`, where there must not be one: of two callers at once, one succeeds. Both must be on the same
/// file system.
///
/// # Errors
/// As [`publish_file`], and when there is such a file ([`io::ErrorKind::AlreadyExists`]).
pub fn publish_new_file(from: &Path, to: &Path) -> Result<(), FsError> {
    File::open(from).and_then(|file| file.sync_all()).map_err(FsError::io("flush", from))?;
    let moved = match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // Some network file systems cannot do that.
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {
            fs::hard_link(from, to).and_then(|()| fs::remove_file(from))
        }
        moved => moved.map_err(io::Error::from),
    };
    moved.map_err(FsError::io("create", to))?;
    sync_folder(folder_of(to))
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_new_file_replaces_the_old_one() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join(".new"), folder.path().join("movie.h5"));
        fs::write(&to, "old").unwrap();
        publish_file(&from, &to).unwrap_err();
        assert_eq!(fs::read_to_string(&to).unwrap(), "old");
        fs::write(&from, "new").unwrap();
        publish_file(&from, &to).unwrap();
        assert_eq!(fs::read_to_string(&to).unwrap(), "new");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
    #[test]
    fn a_new_file_replaces_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join(".new"), folder.path().join("main.sqlite"));
        fs::write(&from, "first").unwrap();
        publish_new_file(&from, &to).unwrap();
        fs::write(&from, "second").unwrap();
        let error = publish_new_file(&from, &to).unwrap_err();
        assert!(
            matches!(&error, FsError::Io { source, .. } if source.kind() == io::ErrorKind::AlreadyExists),
            "{error}"
        );
        assert_eq!(
            (fs::read_to_string(&to).unwrap(), fs::read_to_string(&from).unwrap()),
            ("first".into(), "second".into())
        );
    }
}
