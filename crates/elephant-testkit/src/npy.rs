//! NumPy's `.npy` files, in the variants that the reference data uses (format 1.0 to 3.0, C order, little endian).

use std::path::Path;

use ndarray::{ArrayD, IxDyn};

/// Reads a `.npy` file of floating-point numbers, integers or booleans as float32.
///
/// # Panics
/// When the file cannot be read, is not in C order, or has another data type.
pub fn read_npy(path: &Path) -> ArrayD<f32> {
    let bytes = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert_eq!(&bytes[..6], b"\x93NUMPY", "{} is not a .npy file", path.display());
    let (header_at, header_length) = match bytes[6] {
        1 => (10, u16::from_le_bytes([bytes[8], bytes[9]]) as usize),
        _ => (12, u32::from_le_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]) as usize),
    };
    let header = std::str::from_utf8(&bytes[header_at..header_at + header_length]).expect("the header is text");
    assert!(header.contains("'fortran_order': False"), "{}: not C order", path.display());
    let shape: Vec<usize> =
        between(header, "'shape': (", ")").split(',').filter_map(|part| part.trim().parse().ok()).collect();
    let data = &bytes[header_at + header_length..];
    let values = match between(header, "'descr': '", "'") {
        "<f4" => data.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect(),
        "<f8" => data.chunks_exact(8).map(|b| f64::from_le_bytes(b.try_into().unwrap()) as f32).collect(),
        "|u1" | "|b1" => data.iter().map(|&b| f32::from(b)).collect(),
        "<i8" => data.chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().unwrap()) as f32).collect(),
        "<u2" => data.chunks_exact(2).map(|b| f32::from(u16::from_le_bytes(b.try_into().unwrap()))).collect(),
        "<f2" => data.chunks_exact(2).map(|b| half::f16::from_le_bytes(b.try_into().unwrap()).to_f32()).collect(),
        other => panic!("{}: data type {other}", path.display()),
    };
    ArrayD::from_shape_vec(IxDyn(&shape), values).expect("the number of values matches the shape")
}

fn between<'a>(text: &'a str, before: &str, after: &str) -> &'a str {
    let start = text.find(before).expect("the header has this field") + before.len();
    let length = text[start..].find(after).expect("the field ends");
    &text[start..start + length]
}
