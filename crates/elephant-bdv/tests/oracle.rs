//! Voxels against the original server's: checksums of whole timepoints.

use elephant_bdv::{BdvFile, Scale};
use elephant_testkit::{read_json, shared};
use sha2::{Digest, Sha256};

/// The checksums of a conversion to unsigned 16 bit, one for each timepoint.
fn checksums(case: &str) -> Option<Vec<String>> {
    let manifest = read_json(&shared("oracle/dataset/manifest.json")?);
    let sums = manifest[case]["imgs_per_timepoint_sha256"].as_array().unwrap();
    Some(sums.iter().map(|sum| sum.as_str().unwrap().to_owned()).collect())
}

fn read_frames(path: &str, level: u32, slab: usize) -> Option<Vec<Vec<u16>>> {
    let movie = BdvFile::open(&shared(path)?).unwrap();
    let frame = |&t: &u32| {
        let volume = movie.volume(t, 0, level).unwrap().unwrap();
        let [z, y, x] = volume.shape();
        let mut voxels = vec![0; z * y * x];
        for (index, part) in voxels.chunks_mut(slab * y * x).enumerate() {
            let start = index * slab;
            volume.read(&[start..start + part.len() / (y * x), 0..y, 0..x], &Scale::default(), part).unwrap();
        }
        voxels
    };
    Some(movie.timepoints().iter().map(frame).collect())
}

#[test]
fn movies_equal_the_originals_timepoint_by_timepoint() {
    for (case, path) in [
        ("tiny", "data/embryo-tiny/embryo_tiny.h5"),
        ("tiny", "data/embryo-tiny/embryo_tiny.xml"),
        ("tiny_hi", "data/embryo-tiny-hi/embryo_tiny_hi.h5"),
    ] {
        for slab in [3, 4, 32] {
            let (Some(expected), Some(frames)) = (checksums(case), read_frames(path, 0, slab)) else { return };
            let found: Vec<_> = frames
                .iter()
                .map(|frame| {
                    format!(
                        "{:x}",
                        Sha256::digest(frame.iter().flat_map(|voxel| voxel.to_le_bytes()).collect::<Vec<_>>())
                    )
                })
                .collect();
            assert_eq!(found, expected, "{path}, {slab} planes at a time");
        }
    }
}

#[test]
fn chunks_may_be_larger_than_the_volume() {
    let Some(frames) = read_frames("data/elephant-track_elephant-server/test.h5", 0, 5) else { return };
    assert_eq!(frames, vec![vec![0; 125]; 5]);
}

#[test]
fn coarser_levels_are_read_too() {
    let Some(frames) = read_frames("data/constantinpape_pybdv/example.h5", 1, 3) else { return };
    assert_eq!(frames[0].len(), 3 * 256 * 256);
    assert_eq!(frames[0].iter().max(), Some(&65503));
}

#[test]
fn every_setup_is_read() {
    let Some(path) = shared("data/nvladimus_npy2bdv/kidney.xml") else { return };
    let movie = BdvFile::open(&path).unwrap();
    assert_eq!((movie.timepoints(), movie.setups()), ([0].as_slice(), [0, 1, 2].as_slice()));
    for (setup, low, high) in [(0, 50, 2921), (1, 57, 14820), (2, 59, 2266)] {
        let volume = movie.first_volume(movie.timepoints(), setup, 0).unwrap();
        assert_eq!(volume.shape(), [32, 172, 111]);
        let mut voxels = vec![0; 32 * 172 * 111];
        volume.read(&[0..32, 0..172, 0..111], &Scale::default(), &mut voxels).unwrap();
        assert_eq!((voxels.iter().min(), voxels.iter().max()), (Some(&low), Some(&high)));
    }
    let setups = &movie.description().unwrap().setups;
    assert_eq!((setups[2].id, setups[2].size, setups[2].unit.as_deref()), (2, Some([32, 172, 111]), Some("µm")));
    assert!(movie.first_volume(movie.timepoints(), 3, 0).unwrap_err().to_string().contains("it has 0 to 2"));
    assert!(movie.first_volume(movie.timepoints(), 0, 1).unwrap_err().to_string().contains("it has only level 0"));
}
