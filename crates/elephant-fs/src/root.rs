//! A folder below which names from requests are resolved and cannot leave.

use std::{
    io::ErrorKind,
    path::{Path, PathBuf},
};

use crate::FsError;

/// A folder below which names are resolved. Symbolic links that point to the outside are refused, unless they lead into
/// an [allowed](Self::allowing) folder.
#[derive(Clone, Debug)]
pub struct Root {
    path: PathBuf,
    /// Canonical paths of folders elsewhere into which links may lead.
    allowed: Vec<PathBuf>,
}

impl Root {
    /// The root at `path`, which is created if it is missing.
    ///
    /// # Errors
    /// When the folder cannot be created or read.
    pub fn open(path: &Path) -> Result<Self, FsError> {
        std::fs::create_dir_all(path).map_err(FsError::io("create", path))?;
        let path = path.canonicalize().map_err(FsError::io("open", path))?;
        Ok(Self { path, allowed: Vec::new() })
    }

    /// The same root, with links that may also lead into these folders, which must exist.
    ///
    /// # Errors
    /// When one of the folders does not exist or cannot be read.
    pub fn allowing(mut self, folders: &[PathBuf]) -> Result<Self, FsError> {
        for folder in folders {
            self.allowed.push(folder.canonicalize().map_err(FsError::io("open", folder))?);
        }
        Ok(self)
    }

    /// The root's own absolute path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether `path`, with all links resolved, is in one of the [allowed](Self::allowing) folders.
    pub(crate) fn allows(&self, path: &Path) -> bool {
        path.canonicalize().is_ok_and(|real| self.allowed.iter().any(|folder| real.starts_with(folder)))
    }

    /// The absolute path of `name` below the root. The file itself need not exist.
    ///
    /// A user who can write below the root can change a link between this call and the use of the path. So this
    /// protects against names in requests, but not against other users of the machine.
    ///
    /// # Errors
    /// [`FsError::Escapes`] when the name is absolute, has `..` parts, or contains a link to the outside.
    pub fn resolve(&self, name: impl AsRef<Path>) -> Result<PathBuf, FsError> {
        let name = name.as_ref();
        let escapes = || FsError::Escapes { name: name.display().to_string() };
        if !name.components().all(|part| matches!(part, std::path::Component::Normal(_))) {
            return Err(escapes());
        }
        let path = self.path.join(name);
        // `symlink_metadata` also finds a link whose target is missing, which `canonicalize` then refuses.
        let mut existing = path.as_path();
        while let Err(error) = existing.symlink_metadata() {
            if error.kind() != ErrorKind::NotFound {
                return Err(FsError::io("look at", existing)(error));
            }
            existing = existing.parent().ok_or_else(escapes)?;
        }
        let real = existing.canonicalize().map_err(|error| match error.kind() {
            ErrorKind::NotFound => escapes(),
            _ => FsError::io("look at", existing)(error),
        })?;
        let is_inside = [&self.path].into_iter().chain(&self.allowed).any(|folder| real.starts_with(folder));
        if is_inside { Ok(path) } else { Err(escapes()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_to_the_outside_are_refused() {
        let outside = tempfile::tempdir().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let root = Root::open(folder.path()).unwrap();
        std::os::unix::fs::symlink(outside.path(), folder.path().join("out")).unwrap();
        std::os::unix::fs::symlink("/nonexistent/file", folder.path().join("dangling")).unwrap();
        std::fs::create_dir(folder.path().join("in")).unwrap();
        std::os::unix::fs::symlink(folder.path().join("in"), folder.path().join("alias")).unwrap();
        for name in ["out", "out/file", "dangling", "dangling/x", "../x", "/etc/passwd"] {
            assert!(matches!(root.resolve(name), Err(FsError::Escapes { .. })), "{name}");
        }
        for name in ["in", "in/new/deep.h5", "alias/x", "new"] {
            assert!(root.resolve(name).is_ok(), "{name}");
        }
    }

    #[test]
    fn links_may_lead_into_allowed_folders() {
        let (folder, disk, other) =
            (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::create_dir(disk.path().join("fly")).unwrap();
        std::os::unix::fs::symlink(disk.path().join("fly"), folder.path().join("fly")).unwrap();
        std::os::unix::fs::symlink(other.path(), disk.path().join("fly/out")).unwrap();
        std::os::unix::fs::symlink(disk.path().join("gone"), folder.path().join("gone")).unwrap();
        let root = Root::open(folder.path()).unwrap();
        assert!(root.resolve("fly").is_err());
        let root = root.allowing(&[disk.path().to_owned()]).unwrap();
        for name in ["fly", "fly/imgs.zarr/0.0.0.0"] {
            assert_eq!(root.resolve(name).unwrap(), root.path().join(name));
        }
        for name in ["fly/out", "gone", "fly/../../etc"] {
            assert!(matches!(root.resolve(name), Err(FsError::Escapes { .. })), "{name}");
        }
        let missing = disk.path().join("missing");
        assert!(matches!(root.allowing(&[missing]), Err(FsError::Io { .. })));
    }

    #[test]
    fn an_unreadable_folder_is_not_reported_as_an_escape() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::open(folder.path()).unwrap();
        std::fs::write(folder.path().join("file"), "").unwrap();
        std::os::unix::fs::symlink("loop", folder.path().join("loop")).unwrap();
        for name in ["file/x", "loop", "loop/x", &"x".repeat(300)] {
            let error = root.resolve(name).unwrap_err();
            assert!(matches!(error, FsError::Io { operation: "look at", .. }), "{name}: {error}");
        }
    }
}
