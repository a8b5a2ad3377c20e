//! A folder that names from outside cannot leave.

use std::path::{Path, PathBuf};

use crate::FsError;

/// A folder below which names are resolved. Links that point to the outside are refused.
#[derive(Clone, Debug)]
pub struct Root(PathBuf);

impl Root {
    /// The root at `path`, which is made when it is missing.
    ///
    /// # Errors
    /// When the folder cannot be made or read.
    pub fn open(path: &Path) -> Result<Self, FsError> {
        std::fs::create_dir_all(path).map_err(FsError::io("create", path))?;
        path.canonicalize().map(Self).map_err(FsError::io("open", path))
    }

    /// The root's own absolute path.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The absolute path of `name` below the root. The file itself need not exist.
    ///
    /// # Errors
    /// [`FsError::Escapes`] when the name is absolute, has `..` parts, or passes a link to the outside.
    pub fn resolve(&self, name: impl AsRef<Path>) -> Result<PathBuf, FsError> {
        let name = name.as_ref();
        let escapes = || FsError::Escapes { name: name.display().to_string() };
        if !name.components().all(|part| matches!(part, std::path::Component::Normal(_))) {
            return Err(escapes());
        }
        let path = self.0.join(name);
        // `symlink_metadata` also finds a link whose target is missing, which `canonicalize` then refuses.
        let existing = path.ancestors().find(|ancestor| ancestor.symlink_metadata().is_ok()).ok_or_else(escapes)?;
        let real = existing.canonicalize().map_err(|_| escapes())?;
        if real.starts_with(&self.0) { Ok(path) } else { Err(escapes()) }
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
}
