//! How long an HDF5 file has to be.
//!
//! The superblock says where the file's content ends (HDF5 file format specification, II.A "Format Signature and
//! Superblock"). The library refuses a file that ends before, and does not mind one that ends later.

use std::{fs::File, os::unix::fs::FileExt, path::Path};

use crate::{
    Hdf5Error,
    file::{signature, widths},
    header::number,
};

/// Length of an HDF5 file's content in bytes, from the beginning of the file, as its superblock has it. A shorter file has
/// lost its end, a longer one is padded. `None` for a file that is not HDF5, or that does not say it.
///
/// # Errors
/// When the file cannot be read.
pub fn content_length(path: &Path) -> Result<Option<u64>, Hdf5Error> {
    let file = File::open(path).map_err(Hdf5Error::io("open", path))?;
    let place = signature(&file).map_err(Hdf5Error::io("read", path))?;
    Ok(place.and_then(|place| end_of_content(&file, place)))
}

/// The end of the content of the file whose signature is at `place`.
fn end_of_content(file: &File, place: u64) -> Option<u64> {
    let [width, _] = widths(file, place)?;
    let mut version = [0];
    file.read_exact_at(&mut version, place + 8).ok()?;
    // Where the addresses begin: of the file's base, of something else, of the end.
    let first = match version[0] {
        0 => 24,
        1 => 28,
        _ => 12,
    };
    let address = |index: u64| {
        let mut bytes = [0; 8];
        let bytes = bytes.get_mut(..usize::from(width))?;
        file.read_exact_at(bytes, place + first + index * u64::from(width)).ok()?;
        number(bytes, 0, bytes.len())
    };
    let (base, end) = (address(0)?, address(2)?);
    // A user block may have been put before the file later.
    end.checked_add(place)?.checked_sub(base)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use elephant_testkit::golden;

    use super::*;

    /// A file of one of the three forms of superblocks, with its content's end, width and all.
    fn superblock(version: u8, width: u8, base: u64, end: u64) -> Vec<u8> {
        let mut bytes = b"\x89HDF\r\n\x1a\n".to_vec();
        let addresses =
            [base, u64::MAX, end].map(|address| address.to_le_bytes()[..usize::from(width.min(8))].to_vec());
        match version {
            0 => bytes.extend([0, 0, 0, 0, 0, width, 8, 0, 4, 0, 16, 0, 0, 0, 0, 0]),
            1 => bytes.extend([1, 0, 0, 0, 0, width, 8, 0, 4, 0, 16, 0, 0, 0, 0, 0, 32, 0, 0, 0]),
            _ => bytes.extend([version, width, 8, 0]),
        }
        bytes.extend(addresses.concat());
        bytes.resize(200, 0);
        bytes
    }

    fn length(content: &[u8]) -> Option<u64> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("movie.h5");
        fs::write(&path, content).unwrap();
        content_length(&path).unwrap()
    }

    #[test]
    fn every_superblock_gives_the_length() {
        for version in 0..4 {
            for width in [4, 8] {
                assert_eq!(length(&superblock(version, width, 0, 12_345)), Some(12_345), "version {version}, {width}");
            }
        }
        let behind_a_user_block = |base| [vec![0; 512], superblock(0, 8, base, 1000)].concat();
        assert_eq!(length(&behind_a_user_block(512)), Some(1000));
        assert_eq!(length(&behind_a_user_block(0)), Some(1512), "the block came later");
        for (what, content) in [
            ("empty", Vec::new()),
            ("text", b"<SpimData/>".to_vec()),
            ("the signature alone", superblock(0, 8, 0, 1)[..8].to_vec()),
            ("cut", superblock(2, 8, 0, 1)[..30].to_vec()),
            ("an unknown version", superblock(4, 8, 0, 1)),
            ("an unknown width", superblock(0, 32, 0, 1)),
            ("a base beyond the end", superblock(0, 8, 512, 1)),
        ] {
            assert_eq!(length(&content), None, "{what}");
        }
    }

    #[test]
    fn files_of_the_library_are_as_long_as_they_say() {
        for file in ["dataset/h5/gzip.h5", "field/ids/from_5.h5"] {
            let path = golden(file);
            assert_eq!(content_length(&path).unwrap(), Some(path.metadata().unwrap().len()), "{file}");
        }
    }
}
