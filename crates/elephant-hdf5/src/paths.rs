//! Paths that files hold: of other files in links, and of the `.h5` file in the `.xml` of a movie. Written on some machine
//! at some time, they may be relative or absolute, with slashes or backslashes, and lead to where the files once were.

use std::{
    io::ErrorKind,
    path::{Component, Path, PathBuf},
};

use percent_encoding::percent_decode_str;

use crate::Hdf5Error;

/// How far the links of a file may lead.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reach {
    /// Into the folder of the main file and below: for files that come from others, as a server gets them.
    #[default]
    Folder,
    /// Wherever they say: for files of the person who runs the program, as BigDataViewer does.
    Anywhere,
}

/// A path as written in a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WrittenPath {
    /// The path.
    pub text: String,
    /// Whether the file says that it is relative, where it says something.
    pub is_relative: Option<bool>,
}

impl WrittenPath {
    /// A path of which only its text is known.
    pub fn new(text: &str) -> Self {
        Self { text: text.to_owned(), is_relative: None }
    }

    /// The last component, after a slash or a backslash; `None` when it is empty, `.` or `..`.
    pub fn last(&self) -> Option<&str> {
        self.text.rsplit(['/', '\\']).next().filter(|name| !matches!(*name, "" | "." | ".."))
    }

    /// `other`, as seen from this path.
    #[must_use]
    pub fn joined(&self, other: &Self) -> Self {
        if !other.is_relative() || self.text.is_empty() {
            return other.clone();
        }
        Self { text: format!("{}/{}", self.text, other.text), is_relative: self.is_relative }
    }

    /// The file that a path means, without links: as it is written, seen from one of the folders `from`; with backslashes as
    /// slashes; as an address (`file:/a%20b`); or its last component in the folder `home` of the main file. `None` when nothing is there, or, with
    /// [`Reach::Folder`], nothing within `home`: what lies elsewhere is not even looked at. `from` and `home` are without links.
    ///
    /// # Errors
    /// When one of the places cannot be looked at: the file may be there.
    pub fn find(&self, from: &[&Path], home: &Path, reach: Reach) -> Result<Option<PathBuf>, Hdf5Error> {
        let slashes = self.text.replace('\\', "/");
        let address = percent_decode_str(&slashes).decode_utf8_lossy().into_owned();
        let address =
            address.strip_prefix("file:").map(|path| format!("/{}", path.trim_start_matches('/'))).unwrap_or(address);
        let mut candidates = Vec::new();
        for text in [self.text.as_str(), &slashes, &address] {
            if self.is_relative() {
                candidates.extend(from.iter().map(|folder| folder.join(text.trim_start_matches('/'))));
            }
            if !self.is_relative() || text.starts_with('/') {
                candidates.push(from.first().unwrap_or(&home).join(text));
            }
        }
        let names = [self.last(), address.rsplit('/').next().filter(|name| !matches!(*name, "" | "." | ".."))];
        candidates.extend(names.into_iter().flatten().map(|name| home.join(name)));
        for candidate in &candidates {
            let real = match reach {
                Reach::Anywhere => real_file(candidate)?,
                Reach::Folder => {
                    let plain = without_dots(candidate);
                    let real = if plain.starts_with(home) { real_file(&plain)? } else { None };
                    real.filter(|real| real.starts_with(home))
                }
            };
            if real.is_some() {
                return Ok(real);
            }
        }
        Ok(None)
    }

    fn is_relative(&self) -> bool {
        let drive = matches!(self.text.as_bytes(), [letter, b':', b'/' | b'\\', ..] if letter.is_ascii_alphabetic());
        self.is_relative.unwrap_or(!(drive || self.text.starts_with(['/', '\\'])))
    }
}

/// A file's path without links; `None` when no file can be there.
fn real_file(path: &Path) -> Result<Option<PathBuf>, Hdf5Error> {
    let found = path.canonicalize().and_then(|real| Ok(real.metadata()?.is_file().then_some(real)));
    found.or_else(|error| match error.kind() {
        // Written on other systems, a path may be no path here.
        ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::InvalidFilename | ErrorKind::InvalidInput => {
            Ok(None)
        }
        _ => Err(Hdf5Error::io("open", path)(error)),
    })
}

/// An absolute path with its `.` and `..` taken out, without looking at the disk.
fn without_dots(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => drop(plain.pop()),
            other => plain.push(other),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// Folders `main`, `main/parts` and `other`, with a file `N.h5` each, where N is the folder's name.
    fn folders() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let real = folder.path().canonicalize().unwrap();
        for path in ["main/parts", "other"] {
            fs::create_dir_all(real.join(path)).unwrap();
        }
        for path in ["main/main.h5", "main/parts/parts.h5", "other/other.h5"] {
            fs::write(real.join(path), "").unwrap();
        }
        (folder, real)
    }

    #[test]
    fn paths_of_any_system_are_found() {
        let (_folder, root) = folders();
        let home = root.join("main");
        let found = |text: &str, reach| {
            let path = WrittenPath::new(text).find(&[&home], &home, reach).unwrap()?;
            Some(path.strip_prefix(&root).unwrap().display().to_string())
        };
        let absolute = home.join("parts/parts.h5").display().to_string();
        for (text, file) in [
            ("parts/parts.h5", "main/parts/parts.h5"),
            ("parts\\parts.h5", "main/parts/parts.h5"),
            ("./parts/../main.h5", "main/main.h5"),
            ("../main/main.h5", "main/main.h5"),
            ("..\\main\\main.h5", "main/main.h5"),
            ("../gone/main.h5", "main/main.h5"),
            ("gone/main.h5", "main/main.h5"),
            ("/gone/main.h5", "main/main.h5"),
            ("C:\\movies\\main.h5", "main/main.h5"),
            ("\\\\server\\share\\main.h5", "main/main.h5"),
            (absolute.as_str(), "main/parts/parts.h5"),
            (format!("file:{absolute}").as_str(), "main/parts/parts.h5"),
            (format!("file://{absolute}").as_str(), "main/parts/parts.h5"),
            ("parts/p%61rts.h5", "main/parts/parts.h5"),
            ("file:///C:/movies/main%2Eh5", "main/main.h5"),
        ] {
            for reach in [Reach::Folder, Reach::Anywhere] {
                assert_eq!(found(text, reach).as_deref(), Some(file), "{text}");
            }
        }
        for text in ["", ".", "..", "parts", "gone.h5", "/"] {
            assert_eq!(found(text, Reach::Anywhere), None, "{text}");
        }
    }

    #[test]
    fn what_lies_elsewhere_is_out_of_reach() {
        let (_folder, root) = folders();
        let home = root.join("main");
        std::os::unix::fs::symlink(root.join("other/other.h5"), home.join("link.h5")).unwrap();
        std::os::unix::fs::symlink(root.join("other"), home.join("linked")).unwrap();
        let absolute = root.join("other/other.h5").display().to_string();
        for text in
            ["../other/other.h5", "..\\other\\other.h5", &absolute, "link.h5", "linked/other.h5", "linked\\other.h5"]
        {
            let found = |reach| WrittenPath::new(text).find(&[&home], &home, reach).unwrap();
            assert_eq!(found(Reach::Folder), None, "{text}");
            assert_eq!(found(Reach::Anywhere), Some(root.join("other/other.h5")), "{text}");
        }
    }

    #[test]
    fn a_file_that_cannot_be_looked_at_is_not_missing() {
        let (_folder, root) = folders();
        let home = root.join("main");
        std::os::unix::fs::symlink("loop.h5", home.join("loop.h5")).unwrap();
        for reach in [Reach::Folder, Reach::Anywhere] {
            let error = WrittenPath::new("loop.h5").find(&[&home], &home, reach).unwrap_err();
            assert!(matches!(error, Hdf5Error::Io { .. }), "{error}");
            // Neither name can be one of this system.
            for text in ["main.h5/x.h5", &"x".repeat(300), "a\0b"] {
                assert_eq!(WrittenPath::new(text).find(&[&home], &home, reach).unwrap(), None, "{text}");
            }
        }
    }

    #[test]
    fn bases_are_joined_as_spimdata_joins_them() {
        let relative = |text: &str| WrittenPath { text: text.to_owned(), is_relative: Some(true) };
        let absolute = |text: &str| WrittenPath { text: text.to_owned(), is_relative: Some(false) };
        assert_eq!(relative("..").joined(&relative("data/m.h5")), relative("../data/m.h5"));
        assert_eq!(absolute("/data").joined(&relative("m.h5")), absolute("/data/m.h5"));
        assert_eq!(relative("..").joined(&absolute("/data/m.h5")), absolute("/data/m.h5"));
        assert_eq!(relative("..").joined(&WrittenPath::new("C:\\m.h5")), WrittenPath::new("C:\\m.h5"));
        assert_eq!(WrittenPath::default().joined(&relative("m.h5")), relative("m.h5"));
    }
}
