//! Label images as 16-bit TIFF stacks that ImageJ opens as hyperstacks.

use std::{
    io::{self, Write},
    path::PathBuf,
    sync::Arc,
};

use libdeflater::{CompressionLvl, Compressor};

use crate::CtcError;

/// The name of the image of timepoint `t` of a result, in a movie whose last timepoint is `last`: as many digits as that
/// has, and at least three.
pub fn mask_name(t: u32, last: u32) -> String {
    let digits = last.checked_ilog10().map_or(1, |log| log as usize + 1).max(3);
    format!("mask{t:0digits$}.tif")
}

/// Compresses planes of labels. One encoder can be used for any number of planes, one after the other.
pub struct PlaneEncoder {
    compressor: Compressor,
    /// Room for what is compressed.
    compressed: Vec<u8>,
}

impl Default for PlaneEncoder {
    fn default() -> Self {
        Self::new()
    }
}

impl PlaneEncoder {
    /// An encoder.
    pub fn new() -> Self {
        Self { compressor: Compressor::new(CompressionLvl::default()), compressed: Vec::new() }
    }

    /// The labels of a plane in raster order, as a zlib stream of little-endian 16-bit numbers.
    pub fn encode(&mut self, labels: &[u16]) -> Arc<[u8]> {
        let swapped: Vec<u16>;
        let little_endian = if cfg!(target_endian = "little") {
            labels
        } else {
            swapped = labels.iter().map(|label| label.to_le()).collect();
            &swapped
        };
        let bytes: &[u8] = bytemuck::cast_slice(little_endian);
        self.compressed.resize(self.compressor.zlib_compress_bound(bytes.len()), 0);
        let length = self.compressor.zlib_compress(bytes, &mut self.compressed);
        let length = length.expect("the bound is large enough for every input");
        self.compressed[..length].into()
    }
}

/// A label image (z, y, x) whose planes are compressed.
#[derive(Clone, Debug)]
pub struct LabelStack {
    shape: [usize; 3],
    planes: Vec<Arc<[u8]>>,
}

/// Bytes of a page's header: its entries' number, its entries, the position of the next header.
const ENTRIES: usize = 10;
const HEADER_BYTES: usize = 2 + 12 * (ENTRIES + 1) + 4;

/// Types of entries.
const TEXT: u16 = 2;
const SHORT: u16 = 3;
const LONG: u16 = 4;

impl LabelStack {
    /// An image of this shape (z, y, x), to which its planes are then added.
    ///
    /// # Errors
    /// [`CtcError::TooLarge`] when a plane has 4 GiB or more, and for more than 2^24 planes.
    pub fn new(shape: [usize; 3]) -> Result<Self, CtcError> {
        let [depth, height, width] = shape;
        let plane = (height as u64).saturating_mul(width as u64).saturating_mul(2);
        if plane > u64::from(u32::MAX) || height.max(width) > u32::MAX as usize || depth > 1 << 24 {
            let reason = format!("{depth} planes of {height} x {width} voxels do not fit into a TIFF");
            return Err(CtcError::TooLarge { path: PathBuf::from("mask.tif"), reason });
        }
        Ok(Self { shape, planes: Vec::new() })
    }

    /// Adds the next plane, as [`PlaneEncoder::encode`] returns it.
    pub fn push(&mut self, plane: Arc<[u8]>) {
        self.planes.push(plane);
    }

    /// Writes the file: one page for each plane; z are ImageJ's slices.
    ///
    /// # Errors
    /// When `out` cannot be written, the number of planes is not that of the shape, or the file would have 4 GiB or more.
    pub fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let [depth, height, width] = self.shape;
        if self.planes.len() != depth {
            return Err(io::Error::other(format!("{} planes of {depth} are there", self.planes.len())));
        }
        let mut description = match depth {
            0 | 1 => "ImageJ=1.11a\nimages=1\nhyperstack=true\nmode=grayscale\n\0".to_owned(),
            _ => format!("ImageJ=1.11a\nimages={depth}\nslices={depth}\nhyperstack=true\nmode=grayscale\n\0"),
        };
        if description.len() % 2 == 1 {
            description.push('\0');
        }
        let headers = 8 + depth * HEADER_BYTES + description.len();
        let total = headers as u64 + self.planes.iter().map(|plane| plane.len() as u64).sum::<u64>();
        if total > u64::from(u32::MAX) {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "a label image has 4 GiB or more when compressed"));
        }
        let text_at = 8 + depth * HEADER_BYTES;
        let mut bytes = Vec::with_capacity(headers);
        bytes.extend_from_slice(b"II*\0");
        put_u32(&mut bytes, if depth == 0 { 0 } else { 8 });
        let mut data_at = headers;
        for (page, plane) in self.planes.iter().enumerate() {
            let has_text = page == 0;
            bytes.extend_from_slice(&(ENTRIES as u16 + u16::from(has_text)).to_le_bytes());
            let mut entry = |tag: u16, kind: u16, count: usize, value: usize| {
                bytes.extend_from_slice(&tag.to_le_bytes());
                bytes.extend_from_slice(&kind.to_le_bytes());
                put_u32(&mut bytes, count);
                put_u32(&mut bytes, value);
            };
            entry(256, LONG, 1, width);
            entry(257, LONG, 1, height);
            entry(258, SHORT, 1, 16); // bits per sample
            entry(259, SHORT, 1, 8); // deflate
            entry(262, SHORT, 1, 1); // black is zero
            if has_text {
                entry(270, TEXT, description.len(), text_at);
            }
            entry(273, LONG, 1, data_at);
            entry(277, SHORT, 1, 1); // samples per pixel
            entry(278, LONG, 1, height); // rows per strip
            entry(279, LONG, 1, plane.len());
            entry(339, SHORT, 1, 1); // unsigned integers
            let next = if page + 1 < depth { 8 + (page + 1) * HEADER_BYTES } else { 0 };
            put_u32(&mut bytes, next);
            bytes.resize(8 + (page + 1) * HEADER_BYTES, 0);
            data_at += plane.len();
        }
        bytes.extend_from_slice(description.as_bytes());
        out.write_all(&bytes)?;
        self.planes.iter().try_for_each(|plane| out.write_all(plane))
    }
}

fn put_u32(bytes: &mut Vec<u8>, value: usize) {
    bytes.extend_from_slice(&(value as u32).to_le_bytes());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::read_labels;

    #[test]
    fn names_have_at_least_three_digits() {
        assert_eq!(mask_name(0, 0), "mask000.tif");
        assert_eq!(mask_name(7, 999), "mask007.tif");
        assert_eq!(mask_name(7, 1000), "mask0007.tif");
        assert_eq!(mask_name(u32::MAX, u32::MAX), "mask4294967295.tif");
    }

    #[test]
    fn what_is_too_large_for_the_format_is_refused() {
        assert!(LabelStack::new([1, 1 << 16, 1 << 15]).is_err());
        assert!(LabelStack::new([1, usize::MAX, 2]).is_err());
        assert!(LabelStack::new([1, 0, usize::MAX]).is_err());
        assert!(LabelStack::new([2, 4, 4]).unwrap().write(&mut Vec::new()).is_err(), "planes are missing");
    }

    proptest! {
        #[test]
        fn another_program_reads_the_labels(
            depth in 1..4_usize, height in 1..6_usize, width in 1..6_usize, seed in prop::collection::vec(any::<u16>(), 125),
        ) {
            // The reader is the crate `tiff`.
            let mut stack = LabelStack::new([depth, height, width]).unwrap();
            let mut encoder = PlaneEncoder::new();
            let labels = &seed[..depth * height * width];
            labels.chunks(height * width).for_each(|plane| stack.push(encoder.encode(plane)));
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("mask000.tif");
            let mut bytes = Vec::new();
            stack.write(&mut bytes).unwrap();
            std::fs::write(&path, bytes).unwrap();
            let read = read_labels(&path).unwrap();
            prop_assert_eq!(read.dim(), (depth, height, width));
            prop_assert!(read.iter().copied().eq(labels.iter().map(|&label| u32::from(label))));
        }
    }
}
