//! Files are made with the permissions that the user's umask leaves. The only test of its process, whose umask it changes.

#![allow(clippy::disallowed_methods)]

use std::{fs, io::Write, os::unix::fs::PermissionsExt, path::Path};

use elephant_fs::{copy_atomic, replace_unflushed, temporary_file, write_atomic};
use rustix::{fs::Mode, process::umask};

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & 0o777
}

#[test]
fn the_umask_says_who_may_read_and_write() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    fs::write(path("source"), "content").unwrap();
    for (mask, expected) in [(0o077, 0o600), (0o022, 0o644), (0o002, 0o664), (0o027, 0o640)] {
        umask(Mode::from_bits_truncate(mask));
        write_atomic(&path("written"), |file| file.write_all(b"content")).unwrap();
        replace_unflushed(&path("replaced"), b"content").unwrap();
        copy_atomic(&path("source"), &path("copied")).unwrap();
        for name in ["written", "replaced", "copied"] {
            assert_eq!(mode(&path(name)), expected, "{name} with the umask {mask:03o}");
        }
        assert_eq!(mode(temporary_file(folder.path()).unwrap().path()), expected);
    }
}
