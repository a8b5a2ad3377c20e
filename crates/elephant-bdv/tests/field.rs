//! Movies as they are found in the field; `tests/golden/field/reading/make_reading.py` says what is in them.

#![allow(clippy::disallowed_methods)]

use std::path::{Path, PathBuf};

use elephant_bdv::{BdvError, BdvFile, Scale, Volume};
use elephant_hdf5::{Hdf5Error, Reach};
use elephant_testkit::golden;
use elephant_types::{Coded, ErrorCode};

const SHAPE: [usize; 3] = [3, 4, 5];
const VOXELS: usize = 3 * 4 * 5;

fn file(name: &str) -> PathBuf {
    golden("field/reading").join(name)
}

fn open(name: &str) -> BdvFile {
    BdvFile::open(&file(name)).unwrap()
}

/// The voxels that `make_reading.py` writes.
fn expected(t: usize, setup: usize) -> Vec<u16> {
    let voxel = |index: usize| t * 100 + setup * 10 + index / 20 * 7 + index / 5 % 4 * 3 + index % 5;
    (0..VOXELS).map(|index| voxel(index) as u16).collect()
}

fn voxels(volume: &Volume) -> (Vec<u16>, f64) {
    let mut voxels = vec![12345; volume.shape().iter().product()];
    let largest = volume.read(&volume.shape().map(|edge| 0..edge), &Scale::default(), &mut voxels).unwrap();
    (voxels, largest)
}

fn read(movie: &BdvFile, t: u32, setup: u32) -> Vec<u16> {
    voxels(&movie.volume(t, setup, 0).unwrap().expect("the movie has this image")).0
}

#[test]
fn every_type_is_read_in_every_storage() {
    for kind in ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float32", "float64"] {
        for order in ["", "be"] {
            let name = format!("types/{kind}{order}.h5");
            if !file(&name).exists() {
                assert!(kind.ends_with("t8") && order == "be", "{name}");
                continue;
            }
            let movie = open(&name);
            let mut voxels = expected(0, 0);
            for setup in [0, 1, 2, 3, 4] {
                assert_eq!(read(&movie, 0, setup), voxels, "{name} {setup}");
            }
            voxels[2 * 20..].fill(9);
            assert_eq!(read(&movie, 0, 5), voxels, "{name}");
            assert_eq!(read(&movie, 0, 6), [9; VOXELS], "{name}");
            let volume = movie.volume(0, 1, 0).unwrap().unwrap();
            let (first_row, mut row) = ([0..1, 3..4, 1..5], [0; 4]);
            volume.read(&first_row, &Scale::new(2.0), &mut row).unwrap();
            assert_eq!(row, [5, 5, 6, 6], "{name}");
            assert_eq!(
                (volume.is_float(), volume.is_wide()),
                (kind.starts_with('f'), kind != "uint8" && kind != "uint16")
            );
        }
    }
}

#[test]
fn szip_gives_the_voxels_of_gzip() {
    let movie = open("szip.h5");
    assert_eq!(movie.setups().len(), 30);
    for &setup in movie.setups() {
        let volumes = [0, 1].map(|t| movie.volume(t, setup, 0).unwrap().unwrap());
        assert!(volumes[0].stored_bytes() > 0 && volumes[0].shape() == [6, 24, 12]);
        let [szip, gzip] = volumes.map(|volume| voxels(&volume));
        assert!(szip == gzip, "setup {setup}");
    }
}

#[test]
fn sixteen_bit_are_signed_where_the_setup_says_so() {
    for (name, negative) in
        [("fixed", 0), ("variable", 0), ("padded", 0), ("legacy", 65_516), ("unsigned", 65_516), ("number", 65_516)]
    {
        let read = read(&open(&format!("values/int16_{name}.h5")), 0, 0);
        assert_eq!((read[0], read[VOXELS - 1]), (negative, 7), "{name}");
    }
}

/// The HDF5 library goes through a global heap for ever when one of its objects claims to have no size.
#[test]
fn heaps_without_an_end_are_refused() {
    for (name, says) in [
        ("values/int16_variable.h5", "its attribute dataType cannot be read: the heap of its texts is damaged"),
        ("virtual/movie.h5", "the list of its parts is damaged"),
    ] {
        let mut bytes = std::fs::read(file(name)).unwrap();
        let heaps: Vec<_> = (0..bytes.len() - 4).filter(|&at| bytes[at..].starts_with(b"GCOL")).collect();
        assert!(!heaps.is_empty(), "{name}");
        for heap in heaps {
            bytes[heap + 16..heap + 32].fill(0);
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("damaged.h5");
        std::fs::write(&path, bytes).unwrap();
        let error = BdvFile::open(&path).unwrap().volume(0, 0, 0).unwrap_err();
        assert!(error.to_string().contains(says), "{error}");
    }
}

/// The HDF5 library makes room for all parts of a virtual dataset before it reads the first one.
#[test]
fn virtual_datasets_with_too_many_parts_are_refused() {
    let whole = std::fs::read(golden("dataset/h5/virtual.h5")).unwrap();
    let heap = (0..whole.len() - 4).find(|&at| whole[at..].starts_with(b"GCOL")).unwrap();
    // Behind the headers of the heap and of its first object, and a version.
    let count = heap + 16 + 16 + 1;
    assert_eq!(whole[count..count + 8], 1_u64.to_le_bytes());
    for parts in [(1 << 16) + 1, 0xde << 16, 1 << 62, u64::MAX] {
        let mut bytes = whole.clone();
        bytes[count..count + 8].copy_from_slice(&parts.to_le_bytes());
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("damaged.h5");
        std::fs::write(&path, bytes).unwrap();
        let error = BdvFile::open(&path).unwrap().volume(0, 0, 0).unwrap_err();
        assert!(error.to_string().contains("the list of its parts is damaged"), "{parts}: {error}");
    }
}

#[test]
fn other_widths_of_addresses_are_refused() {
    for (name, at) in [("dataset/h5/gzip.h5", 13), ("dataset/h5/gzip.h5", 14), ("dataset/h5/latest.h5", 9)] {
        let mut bytes = std::fs::read(golden(name)).unwrap();
        assert_eq!(bytes[at], 8, "{name}");
        bytes[at] = 4;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("narrow.h5");
        std::fs::write(&path, bytes).unwrap();
        let error = BdvFile::open(&path).unwrap_err();
        assert!(error.to_string().contains("its addresses do not have 8 bytes"), "{error}");
    }
}

#[test]
fn values_beyond_16_bit_are_reported() {
    for (name, largest) in [("large", 135_000.0), ("infinite", f64::INFINITY), ("nan", 26.0), ("negative", 0.0)] {
        let (voxels, found) = voxels(&open(&format!("values/{name}.h5")).volume(0, 0, 0).unwrap().unwrap());
        assert_eq!(found, largest, "{name}");
        assert_eq!(voxels[0], 0, "{name}");
    }
}

#[test]
fn parts_are_found_wherever_they_were() {
    for name in ["below", "below_windows", "gone", "gone_windows", "drive", "share", "absolute", "round", "chain"] {
        let movie = open(&format!("links/home/{name}.h5"));
        for t in [0, 1] {
            assert_eq!(read(&movie, t as u32, 0), expected(t, 0), "{name}");
        }
    }
}

#[test]
fn parts_elsewhere_are_read_for_their_owner_only() {
    for name in ["elsewhere", "elsewhere_windows"] {
        let path = file(&format!("links/home/{name}.h5"));
        let own = BdvFile::open_within(&path, Reach::Anywhere).unwrap();
        assert_eq!(read(&own, 1, 0), expected(1, 0), "{name}");
        let other = BdvFile::open(&path).unwrap().volume(1, 0, 0).unwrap_err();
        assert!(other.to_string().contains("outer.h5\", which is not in its folder; put it there"), "{other}");
    }
    let gone =
        BdvFile::open_within(&file("links/home/nowhere.h5"), Reach::Anywhere).unwrap().volume(0, 0, 0).unwrap_err();
    assert_eq!(gone.code(), ErrorCode::NotFound);
    assert!(gone.to_string().contains("nowhere.h5"), "{gone}");
}

#[test]
fn virtual_datasets_are_read() {
    let movie = open("virtual/movie.h5");
    for t in [0, 1] {
        assert_eq!(read(&movie, t as u32, 0), expected(t, 0));
    }
    let mut partial = expected(2, 0);
    partial[40..].fill(8);
    assert_eq!(read(&movie, 2, 0), partial);
    assert_eq!(read(&movie, 3, 0), expected(3, 0));
    assert_eq!(read(&movie, 4, 0), expected(3, 0), "one inside the other");
    let floats: Vec<u16> = expected(0, 0).into_iter().map(|voxel| 4 * voxel).collect();
    assert_eq!(read(&movie, 5, 0), floats);
    let volume = movie.volume(1, 0, 0).unwrap().unwrap();
    let (region, mut some) = ([1..3, 2..4, 3..5], [0; 8]);
    volume.read(&region, &Scale::default(), &mut some).unwrap();
    assert_eq!(some.to_vec(), [116, 117, 119, 120, 123, 124, 126, 127]);
    for (t, says) in [
        (6, "needs the partition file \"gone.h5\""),
        (7, "virtual datasets of this kind cannot be read; write a copy that holds the voxels, with h5repack or h5py"),
        (8, "virtual datasets of this kind cannot be read"),
    ] {
        let error = movie.volume(t, 0, 0).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
}

#[test]
fn virtual_datasets_inside_each_other_are_limited() {
    let movie = open("virtual/nested.h5");
    let error = movie.volume(0, 0, 0).unwrap_err().to_string();
    assert!(error.contains("virtual datasets of this kind cannot be read"), "{error}");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("nested.h5");
    std::fs::copy(file("virtual/nested.h5"), &path).unwrap();
    for part in 0..300 {
        std::fs::copy(file("virtual/planes.h5"), folder.path().join(format!("part{part}.h5"))).unwrap();
    }
    let error = BdvFile::open(&path).unwrap().volume(3, 0, 0).unwrap_err().to_string();
    assert!(error.contains("its voxels are in more than 256 files"), "{error}");
}

/// The fill value counts where no part is, and nowhere else.
#[test]
fn parts_of_virtual_datasets_may_overlap() {
    let movie = open("virtual/nested.h5");
    let mut partial = expected(0, 0);
    partial[40..].fill(500);
    assert_eq!(voxels(&movie.volume(1, 0, 0).unwrap().unwrap()), (partial, 500.0));
    let (all, largest) = voxels(&movie.volume(2, 0, 0).unwrap().unwrap());
    assert_eq!((all, largest), (expected(0, 0), 27.0));
}

#[test]
fn virtual_datasets_stay_in_the_folder() {
    let folder = tempfile::tempdir().unwrap();
    let inside = folder.path().join("movie");
    std::fs::create_dir(&inside).unwrap();
    std::fs::copy(file("virtual/movie.h5"), inside.join("movie.h5")).unwrap();
    std::fs::copy(file("virtual/planes.h5"), folder.path().join("planes.h5")).unwrap();
    std::os::unix::fs::symlink("../planes.h5", inside.join("planes.h5")).unwrap();
    let movie = BdvFile::open(&inside.join("movie.h5")).unwrap();
    assert!(matches!(movie.volume(0, 0, 0), Err(BdvError::Hdf5(Hdf5Error::Escapes { .. }))));
    let own = BdvFile::open_within(&inside.join("movie.h5"), Reach::Anywhere).unwrap();
    assert_eq!(read(&own, 0, 0), expected(0, 0));
}

/// The timepoints, the setup and the first image that a description shows.
fn shown(path: &Path) -> (Vec<u32>, u32, Vec<u16>) {
    let movie =
        BdvFile::open_within(path, Reach::Anywhere).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let first = movie.first_volume(movie.shown_timepoints(), movie.first_setup(), 0).unwrap();
    (movie.shown_timepoints().to_vec(), movie.first_setup(), voxels(&first).0)
}

fn halves(t: usize, setup: usize) -> Vec<u16> {
    expected(t, setup).into_iter().map(|voxel| voxel / 2).collect()
}

#[test]
fn descriptions_of_any_system_lead_to_their_movie() {
    let mut names: Vec<String> = [
        "same",
        "dots",
        "windows",
        "drive",
        "encoded",
        "uri",
        "typeless",
        "wrapped",
        "declared_latin",
        "declared_utf16",
    ]
    .map(|name| format!("data/{name}"))
    .to_vec();
    names.extend(
        ["utf-8-sig", "utf-16-le", "utf-16-be", "utf-16", "latin-1", "cp1252"].map(|name| format!("data/{name}")),
    );
    names.extend(["above/up", "above/base", "down"].map(str::to_owned));
    for name in names {
        let path = file(&format!("xml/{name}.xml"));
        assert_eq!(shown(&path), (vec![1, 3, 20_210_603], 1, halves(1, 1)), "{name}");
        let unit = BdvFile::open_within(&path, Reach::Anywhere).unwrap().description().unwrap().setups[0].unit.clone();
        assert_eq!(unit.as_deref(), Some("µm"), "{name}");
    }
    let elsewhere = BdvFile::open(&file("xml/above/up.xml")).unwrap_err();
    let says = "up.xml names the images \"../data/movie.h5\", which are not there; put that .h5 file into the folder of up.xml";
    assert_eq!((elsewhere.to_string().as_str(), elsewhere.code()), (says, ErrorCode::NotFound));
    assert!(BdvFile::open(&file("xml/down.xml")).is_ok());
}

#[test]
fn descriptions_choose_timepoints_and_setups() {
    assert_eq!(shown(&file("xml/data/range.xml")), (vec![2, 3, 4], 0, halves(2, 0)));
    assert_eq!(shown(&file("xml/data/list.xml")), (vec![0, 20_210_603], 1, halves(0, 1)));
    let movie = open("xml/data/missing.xml");
    assert!(movie.volume(3, 1, 0).unwrap().is_none() && movie.volume(1, 0, 0).unwrap().is_none());
    assert!(movie.volume(1, 1, 0).unwrap().is_some());
    let h5 = open("xml/data/movie.h5");
    assert_eq!((h5.shown_timepoints(), h5.first_setup()), ([0, 1, 2, 3, 20_210_603].as_slice(), 0));
    assert_eq!(read(&h5, 20_210_603, 1), halves(3, 1));
}

#[test]
fn pieces_of_split_images_are_cut_out() {
    let movie = open("xml/data/split.xml");
    for (setup, columns) in [(5, 0..3), (6, 2..5)] {
        let whole = halves(1, 1);
        let piece: Vec<u16> = whole.chunks(5).flat_map(|row| row[columns.clone()].to_vec()).collect();
        let volume = movie.volume(1, setup, 0).unwrap().unwrap();
        assert_eq!((volume.shape(), voxels(&volume).0), ([3, 4, 3], piece), "{setup}");
    }
    assert_eq!(movie.first_volume(&[1], 5, 0).unwrap().shape(), [3, 4, 3]);
    assert_ne!(SHAPE, [3, 4, 3]);
}

#[test]
fn errors_say_what_to_do() {
    let failure = |name: &str| match BdvFile::open(&file(name)) {
        Ok(movie) => movie.first_volume(movie.timepoints(), 0, 0).unwrap_err(),
        Err(error) => error,
    };
    for (name, says) in [
        (
            "not_closed.h5",
            "still writing it, or was stopped while writing; close it there, or run h5clear -s not_closed.h5",
        ),
        ("level_1.h5", "has no resolution level 0; it has only level 1"),
        ("levels_1_3.h5", "has no resolution level 0; it has levels 1, 3"),
        (
            "xml/data/not_n5.xml",
            "images are in N5 (image loader \"bdv.n5\"), which cannot be read here; export them as HDF5/XML",
        ),
        ("xml/data/not_zarr.xml", "OME-Zarr"),
        ("xml/data/not_tiff.xml", "TIFF"),
    ] {
        let error = failure(name);
        assert!(error.to_string().contains(says), "{name}: {error}");
        assert!(error.to_string().is_ascii(), "{name}: {error}");
        assert_eq!(error.code(), ErrorCode::InvalidArgument, "{name}");
    }
}

#[test]
fn a_movie_of_links_is_found_where_they_lead() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["described.xml", "gzip.h5"] {
        std::os::unix::fs::symlink(golden("dataset/h5").join(name), folder.path().join(name)).unwrap();
    }
    let direct = BdvFile::open(&golden("dataset/h5/described.xml")).unwrap();
    let linked = BdvFile::open(&folder.path().join("described.xml")).unwrap();
    assert_eq!(linked.shown_timepoints(), direct.shown_timepoints());
    assert_eq!(linked.description(), direct.description());
}
