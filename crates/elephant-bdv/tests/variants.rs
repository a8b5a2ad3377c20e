//! Every way in which a BigDataViewer file may be stored, and hostile files. The files were written by h5py;
//! `tests/golden/dataset/make_h5.py` says what is in them.

#![allow(clippy::disallowed_methods)]

use std::{io::Write, ops::Range, path::Path, thread};

use elephant_bdv::{BdvError, BdvFile, Scale};
use elephant_hdf5::{Hdf5Error, is_hdf5};
use elephant_testkit::golden;
use elephant_types::{Coded, ErrorCode};
use proptest::prelude::*;

const SHAPE: [usize; 3] = [5, 7, 9];

/// The voxel that `make_h5.py` writes.
fn voxel(t: u32, setup: u32, level: u32, [z, y, x]: [usize; 3]) -> u16 {
    (t as usize * 7919 + setup as usize * 1009 + level as usize * 499 + z * 4001 + y * 211 + x * 13) as u16
}

fn open(name: &str) -> Result<BdvFile, BdvError> {
    BdvFile::open(&golden("dataset/h5").join(name))
}

fn read(movie: &BdvFile, t: u32, setup: u32, level: u32, region: &[Range<usize>; 3]) -> Result<Vec<u16>, BdvError> {
    let volume = movie.volume(t, setup, level)?.expect("the movie has this image");
    let mut voxels = vec![12345; region.iter().map(Range::len).product()];
    volume.read(region, &Scale::default(), &mut voxels)?;
    Ok(voxels)
}

fn expected(t: u32, setup: u32, level: u32, [z, y, x]: &[Range<usize>; 3]) -> Vec<u16> {
    let mut voxels = Vec::new();
    for z in z.clone() {
        for y in y.clone() {
            voxels.extend(x.clone().map(|x| voxel(t, setup, level, [z, y, x])));
        }
    }
    voxels
}

fn regions() -> [[Range<usize>; 3]; 5] {
    [[0..5, 0..7, 0..9], [1..4, 3..6, 2..8], [4..5, 6..7, 8..9], [0..2, 0..4, 4..8], [2..2, 0..7, 0..9]]
}

#[test]
fn every_storage_gives_the_same_voxels() {
    for name in [
        "gzip",
        "shuffle_gzip",
        "shuffle_only",
        "plain_chunks",
        "contiguous",
        "compact",
        "lzf",
        "fletcher32",
        "latest",
        "large_chunks",
        "userblock",
        "uint16",
        "uint8",
        "big_endian",
        "parts",
        "parts_by_group",
    ] {
        let movie = open(&format!("{name}.h5")).unwrap();
        assert_eq!((movie.timepoints(), movie.setups()), ([0, 1].as_slice(), [0].as_slice()), "{name}");
        assert_eq!(movie.first_volume(movie.timepoints(), 0, 0).unwrap().shape(), SHAPE, "{name}");
        for region in regions() {
            for t in [0, 1] {
                let mut expected = expected(t, 0, 0, &region);
                if name.ends_with("uint8") {
                    expected = expected.into_iter().map(|voxel| voxel % 256).collect();
                }
                assert_eq!(read(&movie, t, 0, 0, &region).unwrap(), expected, "{name} {region:?}");
            }
        }
    }
}

#[test]
fn setups_levels_gaps_and_missing_views() {
    let movie = open("setups.h5").unwrap();
    assert_eq!(movie.setups(), [0, 1]);
    let coarse = [0..5, 0..4, 0..5];
    assert_eq!(read(&movie, 1, 0, 1, &coarse).unwrap(), expected(1, 0, 1, &coarse));
    assert_eq!(read(&movie, 0, 1, 1, &coarse).unwrap(), expected(0, 1, 1, &coarse));
    assert!(movie.volume(1, 1, 0).unwrap().is_none(), "this image is missing");
    assert!(movie.volume(7, 0, 0).unwrap().is_none());
    let error = |setup, level| movie.first_volume(movie.timepoints(), setup, level).unwrap_err().to_string();
    assert!(error(2, 0).contains("no setup 2; it has 0, 1"), "{}", error(2, 0));
    assert!(error(0, 5).contains("no resolution level 5; it has levels 0, 1"), "{}", error(0, 5));
    assert_eq!(open("gaps.h5").unwrap().timepoints(), [2, 5]);
}

#[test]
fn voxels_never_written_have_the_fill_value() {
    let movie = open("unwritten.h5").unwrap();
    let region = [0..5, 0..7, 0..9];
    let mut chunked = expected(0, 0, 0, &region);
    chunked[2 * 63..].fill(65534);
    assert_eq!(read(&movie, 0, 0, 0, &region).unwrap(), chunked);
    assert_eq!(read(&movie, 1, 0, 0, &region).unwrap(), [7; 315]);
    assert_eq!(read(&open("constant.h5").unwrap(), 1, 0, 0, &region).unwrap(), [300; 315]);
    let skipped = open("skipped_filter.h5").unwrap();
    assert_eq!(read(&skipped, 0, 0, 0, &region).unwrap(), expected(0, 0, 0, &region));
}

#[test]
fn a_file_may_be_longer_than_it_says() {
    // The client pads uploads to a multiple of 10 MiB with stale bytes.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("padded.h5");
    let mut file = std::fs::File::create(&path).unwrap();
    file.write_all(&std::fs::read(golden("dataset/h5/gzip.h5")).unwrap()).unwrap();
    file.write_all(&vec![0xA5; 10 << 20]).unwrap();
    let region = [0..5, 0..7, 0..9];
    assert_eq!(read(&BdvFile::open(&path).unwrap(), 1, 0, 0, &region).unwrap(), expected(1, 0, 0, &region));
}

#[test]
fn threads_read_the_same_movie_at_once() {
    for name in ["gzip.h5", "lzf.h5", "parts.h5"] {
        let movie = open(name).unwrap();
        thread::scope(|scope| {
            for t in [0, 1, 0, 1] {
                let movie = &movie;
                scope.spawn(move || {
                    for region in regions().iter().cycle().take(100) {
                        assert_eq!(read(movie, t, 0, 0, region).unwrap(), expected(t, 0, 0, region));
                    }
                });
            }
        });
    }
}

#[test]
fn boxes_that_do_not_fit_are_refused() {
    let volume = open("gzip.h5").unwrap().first_volume(&[0, 1], 0, 0).unwrap();
    for (region, length) in [([0..6, 0..7, 0..9], 378), ([0..5, 0..7, 0..9], 314), ([0..5, 8..9, 0..1], 5)] {
        assert!(
            volume
                .read(&region, &Scale::default(), &mut vec![0; length])
                .unwrap_err()
                .to_string()
                .contains("does not fit")
        );
    }
    let reversed = [Range { start: 3, end: 1 }, 0..7, 0..9];
    assert!(volume.read(&reversed, &Scale::default(), &mut []).is_err());
}

/// What opening the movie and reading its first timepoint fails with.
fn failure(name: &str) -> BdvError {
    let outcome = open(name).and_then(|movie| {
        let volume = movie.first_volume(movie.timepoints(), 0, 0)?;
        let [z, y, x] = volume.shape();
        volume.read(&[0..z, 0..y, 0..x], &Scale::default(), &mut vec![0; z * y * x])
    });
    outcome.expect_err(name)
}

#[test]
fn files_that_cannot_be_read_say_why() {
    for (name, says) in [
        ("text.h5", "text.h5 is not an HDF5 file"),
        ("truncated.h5", "cannot open truncated.h5: truncated file"),
        ("no_timepoints.h5", "holds no timepoints"),
        ("cells_is_a_group.h5", "cannot read t00000/s00/0/cells"),
        ("two_axes.h5", "it has 2 axes; three are expected"),
        ("zstd.h5", "compressed with Zstandard (HDF5 filter 32015), which cannot be read here; save it with gzip"),
        ("blosc.h5", "compressed with Blosc (HDF5 filter 32001)"),
        ("bomb.h5", "a chunk is not valid gzip data of its size"),
        ("not_gzip.h5", "a chunk is not valid gzip data of its size"),
        ("short_chunk.h5", "a chunk holds another number of voxels"),
        ("wrong_checksum.h5", "the checksum of a chunk is wrong"),
        ("scale_offset_shuffle.h5", "compressed with filters in an unusual order"),
        ("huge_shape.h5", "is too large"),
        ("huge_chunk.h5", "are too large; save it with smaller ones"),
        ("link_outside.h5", "needs the partition file \"../make_h5.py\", which is not in its folder"),
        ("link_absolute.h5", "needs the partition file \"/etc/passwd\", which is not in its folder"),
        ("link_missing.h5", "needs the partition file \"parts-99-00.h5\""),
        ("link_circle.h5", "go round in circles"),
        ("link_self.h5", "go round in circles"),
        ("link_dangling.h5", "cannot read t00000/s00/0 in link_dangling.h5: it holds no voxels"),
        ("voxels_outside.h5", "its voxels are in the raw file \"/etc/passwd\", which is not opened; write a copy"),
        ("virtual.h5", "needs the partition file \"/etc/passwd\", which is not in its folder"),
    ] {
        let error = failure(name);
        assert!(error.to_string().contains(says), "{name}: {error}");
        let is_missing = ["link_missing.h5", "link_absolute.h5", "link_outside.h5", "virtual.h5"].contains(&name);
        let code = if is_missing { ErrorCode::NotFound } else { ErrorCode::InvalidArgument };
        assert_eq!(error.code(), code, "{name}");
    }
    assert_eq!(failure("nonexistent.h5").code(), ErrorCode::NotFound);
    assert!(matches!(BdvFile::open(&golden("dataset")), Err(BdvError::NotHdf5 { .. })));
}

#[test]
fn hdf5_files_are_known_by_their_bytes() {
    for (name, expected) in
        [("gzip", Some(true)), ("latest", Some(true)), ("userblock", Some(true)), ("text", Some(false)), ("gone", None)]
    {
        assert_eq!(is_hdf5(&golden(&format!("dataset/h5/{name}.h5"))).ok(), expected, "{name}");
    }
    assert!(!is_hdf5(&golden("dataset")).unwrap());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("user_block");
    for (place, expected) in [(65_536, true), (65_000, false)] {
        let mut bytes = vec![0; place];
        bytes.extend(b"\x89HDF\r\n\x1a\n");
        std::fs::write(&path, bytes).unwrap();
        assert_eq!(is_hdf5(&path).unwrap(), expected, "{place}");
    }
}

#[test]
fn an_index_may_not_list_a_chunk_twice() {
    let mut bytes = std::fs::read(golden("dataset/h5/gzip.h5")).unwrap();
    let is_node = |at: &usize| bytes[*at..].starts_with(b"TREE\x01\0") && bytes[*at + 6] > 0;
    let nodes: Vec<usize> = (0..bytes.len() - 24).filter(is_node).collect();
    assert_eq!(nodes.len(), 2, "one for each timepoint");
    for node in nodes {
        // Behind a header of 24 bytes, an entry has a key of 40 bytes and an address; the last one is a key only.
        let (first, entries) = (node + 24, usize::from(bytes[node + 6]));
        bytes[node + 6] += 1;
        bytes.copy_within(first + 48 * entries..first + 48 * entries + 40, first + 48 * (entries + 1));
        bytes.copy_within(first..first + 48, first + 48 * entries);
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("twice.h5");
    std::fs::write(&path, bytes).unwrap();
    let error = BdvFile::open(&path).unwrap().volume(0, 0, 0).unwrap_err();
    assert!(error.to_string().contains("its index lists more chunks than there are"), "{error}");
}

#[test]
fn a_partition_may_not_be_a_link_to_elsewhere() {
    let folder = tempfile::tempdir().unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    for name in ["parts.h5", "parts-01-00.h5"] {
        std::fs::copy(golden("dataset/h5").join(name), folder.path().join(name)).unwrap();
    }
    std::fs::copy(golden("dataset/h5/parts-00-00.h5"), elsewhere.path().join("secret.h5")).unwrap();
    std::os::unix::fs::symlink(elsewhere.path().join("secret.h5"), folder.path().join("parts-00-00.h5")).unwrap();
    let movie = BdvFile::open(&folder.path().join("parts.h5")).unwrap();
    assert!(matches!(movie.volume(0, 0, 0), Err(BdvError::Hdf5(Hdf5Error::Escapes { .. }))));
    assert!(movie.volume(1, 0, 0).unwrap().is_some());
}

/// Reads everything that a file claims to hold, within reason.
fn read_everything(path: &Path) -> Result<(), BdvError> {
    let movie = BdvFile::open(path)?;
    for &t in movie.timepoints() {
        for &setup in movie.setups() {
            let Some(volume) = movie.volume(t, setup, 0)? else { continue };
            let [z, y, x] = volume.shape();
            if z * y * x < 1 << 20 {
                volume.read(&[0..z, 0..y, 0..x], &Scale::default(), &mut vec![0; z * y * x])?;
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn no_damage_makes_it_panic(
        name in prop::sample::select(vec![
            "dataset/h5/gzip", "dataset/h5/latest", "dataset/h5/lzf", "dataset/h5/fletcher32", "dataset/h5/contiguous",
            "dataset/h5/compact", "dataset/h5/scale_offset_gzip", "dataset/h5/unwritten", "field/reading/types/int16",
            "field/reading/types/float64be", "field/reading/szip", "field/reading/virtual/movie", "field/reading/links/home/chain",
        ]),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..5),
    ) {
        let mut bytes = std::fs::read(golden(&format!("{name}.h5"))).unwrap();
        for (place, byte) in damage {
            *place.get_mut(&mut bytes) = byte;
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("damaged.h5");
        std::fs::write(&path, bytes).unwrap();
        let _ = read_everything(&path);
    }
}
