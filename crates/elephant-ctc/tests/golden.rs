//! Label images that tifffile wrote, and a ground truth of another program.

#![allow(clippy::disallowed_methods)]

use elephant_ctc::{CtcFolder, labels_shape, read_labels};
use elephant_testkit::{golden, shared};

#[test]
fn every_form_of_tiff_is_read() {
    let forms = ["plain", "imagej", "big_endian", "bigtiff", "lzw", "lzw_predictor", "packbits", "tiled", "u4", "i4"];
    for form in forms {
        let path = golden(&format!("ctc/{form}.tif"));
        let labels = read_labels(&path).unwrap();
        assert_eq!(labels.dim(), (3, 20, 24), "{form}");
        assert_eq!(labels_shape(&path).unwrap(), [3, 20, 24], "{form}");
        for ((z, y, x), label) in labels.indexed_iter() {
            let expected = match (z, y, x) {
                (2, 19, 23) if form != "packbits" => 65535,
                _ if (x + y) % 5 == 0 => 0,
                _ => 1 + 7 * z + y / 4 + 3 * (x / 6),
            };
            assert_eq!(*label as usize, expected, "{form} ({z}, {y}, {x})");
        }
    }
}

#[test]
fn other_images_are_refused() {
    for (form, word) in [("float", "floating-point"), ("rgb", "RGB")] {
        let message = read_labels(&golden(&format!("ctc/{form}.tif"))).unwrap_err().to_string();
        assert!(message.contains(word), "{message}");
    }
}

#[test]
fn a_synthetic_ground_truth_is_read() {
    let Some(folder) = shared("data/embryo-tiny") else { return };
    let movie = CtcFolder::open(&folder).unwrap();
    assert_eq!((movie.frames(), movie.shape(), movie.rows().len()), (8, [32, 96, 96], 29));
    for t in 0..movie.frames() {
        let labels = movie.frame(t).unwrap();
        for row in movie.rows() {
            let lives = (row.begin..=row.end).contains(&(t as u32));
            assert_eq!(labels.iter().any(|&label| label == row.id.get()), lives, "track {} at {t}", row.id);
        }
    }
}
