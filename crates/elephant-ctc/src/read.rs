//! Label images from TIFF files of any program.

use std::{fs::File, io::BufReader, path::Path};

use elephant_fs::FsError;
use ndarray::Array3;
use tiff::{
    ColorType,
    decoder::{Decoder, DecodingResult, Limits},
    tags::Tag,
};

use crate::CtcError;

/// The most voxels of one label image.
pub const MOST_VOXELS: u64 = 1 << 33;

/// The most bytes that one byte of a file can become: deflate reaches 1032, LZW somewhat more.
const BEST_COMPRESSION: u64 = 4096;

type File3d = Decoder<BufReader<File>>;

/// Reads a label image, (z, y, x), whose file has one page for each plane, one channel of whole numbers, uncompressed or compressed with
/// deflate, LZW or `PackBits`. 0 is the background.
///
/// # Errors
/// When the file cannot be read, is not such a TIFF, has pages of different sizes, a negative label or one above 2^32 − 1,
/// or more than [`MOST_VOXELS`] voxels.
pub fn read_labels(path: &Path) -> Result<Array3<u32>, CtcError> {
    let mut pages = Pages::open(path)?;
    let mut labels = Vec::new();
    let mut planes = 0;
    while pages.advance()? {
        pages.read(&mut labels)?;
        planes += 1;
    }
    let [height, width] = pages.size;
    Array3::from_shape_vec([planes, height, width], labels).map_err(|error| pages.invalid(error.to_string()))
}

/// The shape (z, y, x) of a label image; its voxels are not read.
///
/// # Errors
/// As [`read_labels`], as far as the image's headers tell.
pub fn labels_shape(path: &Path) -> Result<[usize; 3], CtcError> {
    let mut pages = Pages::open(path)?;
    let mut planes = 0;
    while pages.advance()? {
        planes += 1;
    }
    let [height, width] = pages.size;
    Ok([planes, height, width])
}

/// The pages of an open file, one after the other.
struct Pages<'a> {
    path: &'a Path,
    /// Always there, except while its limits change.
    decoder: Option<File3d>,
    /// Bytes of the file.
    length: u64,
    /// Pages seen so far.
    seen: u64,
    /// Height and width; of all pages.
    size: [usize; 2],
}

impl<'a> Pages<'a> {
    fn open(path: &'a Path) -> Result<Self, CtcError> {
        let file = elephant_fs::open_file(path)?;
        let length = file.metadata().map_err(FsError::io("look at", path))?.len();
        let decoder = Decoder::new(BufReader::new(file)).map_err(|error| invalid(path, error.to_string()))?;
        let mut pages = Self { path, decoder: Some(decoder), length, seen: 0, size: [0; 2] };
        pages.limit_to(pages.header_limit());
        Ok(pages)
    }

    fn invalid(&self, reason: impl Into<String>) -> CtcError {
        invalid(self.path, reason)
    }

    /// Bytes in memory of the values of a header, each of which has 32.
    fn header_limit(&self) -> usize {
        usize::try_from(self.length.saturating_mul(32)).unwrap_or(usize::MAX).max(1 << 16)
    }

    /// From now on refuses to take more bytes than this for values of a header or for a page.
    fn limit_to(&mut self, bytes: usize) {
        let mut limits = Limits::unlimited();
        limits.decoding_buffer_size = bytes;
        limits.ifd_value_size = self.header_limit();
        self.decoder = self.decoder.take().map(|decoder| decoder.with_limits(limits));
    }

    fn decoder(&mut self) -> &mut File3d {
        self.decoder.as_mut().expect("it is always there")
    }

    /// Goes to the next page and looks at its size and type; `false` after the last one.
    fn advance(&mut self) -> Result<bool, CtcError> {
        if self.seen > 0 {
            if !self.decoder().more_images() {
                self.expect_all_pages()?;
                return Ok(false);
            }
            self.decoder().next_image().map_err(|error| invalid(self.path, error.to_string()))?;
        }
        let failed = |error: tiff::TiffError| invalid(self.path, error.to_string());
        let (width, height) = self.decoder().dimensions().map_err(failed)?;
        let size = [height as usize, width as usize];
        if self.seen == 0 {
            self.size = size;
        } else if size != self.size {
            let [page, first] = [size, self.size];
            return Err(self.invalid(format!("page {} has {page:?} voxels (y, x), but page 0 {first:?}", self.seen)));
        }
        let bits = match self.decoder().colortype().map_err(failed)? {
            ColorType::Gray(bits @ (8 | 16 | 32 | 64)) => bits,
            other => return Err(self.invalid(format!("it has voxels of type {other:?}; labels are whole numbers"))),
        };
        self.seen += 1;
        self.check_size(u64::from(bits / 8))?;
        Ok(true)
    }

    /// Refuses what no file of this length can hold, before memory is taken for it.
    fn check_size(&mut self, bytes_per_voxel: u64) -> Result<(), CtcError> {
        let [height, width] = self.size;
        let voxels = (height as u64).saturating_mul(width as u64).saturating_mul(self.seen);
        if voxels == 0 {
            return Err(self.invalid("it has no voxels"));
        }
        if voxels > MOST_VOXELS {
            let reason =
                format!("{} and more planes of {height} x {width} voxels; {MOST_VOXELS} is the limit", self.seen);
            return Err(CtcError::TooLarge { path: self.path.to_owned(), reason });
        }
        let page = (voxels / self.seen).saturating_mul(bytes_per_voxel);
        if page.saturating_mul(self.seen) > self.length.saturating_mul(BEST_COMPRESSION) {
            let reason =
                format!("its {} bytes cannot hold {} planes of {height} x {width} voxels", self.length, self.seen);
            return Err(self.invalid(reason));
        }
        Ok(())
    }

    /// ImageJ writes stacks of 4 GiB and more with the first page's header alone.
    fn expect_all_pages(&mut self) -> Result<(), CtcError> {
        if self.seen > 1 {
            return Ok(());
        }
        let description = self.decoder().get_tag_ascii_string(Tag::ImageDescription).unwrap_or_default();
        let count = description.lines().find_map(|line| line.strip_prefix("images=")?.trim().parse::<u64>().ok());
        match count {
            Some(count) if count > 1 && description.starts_with("ImageJ=") => Err(self
                .invalid(format!("ImageJ says that it has {count} planes, but only one has a header; save it anew"))),
            _ => Ok(()),
        }
    }

    /// Appends the labels of this page.
    fn read(&mut self, labels: &mut Vec<u32>) -> Result<(), CtcError> {
        let [height, width] = self.size;
        self.limit_to(height * width * size_of::<u64>());
        let page = self.decoder().read_image().map_err(|error| invalid(self.path, error.to_string()))?;
        self.limit_to(self.header_limit());
        let before = labels.len();
        match page {
            DecodingResult::U8(values) => labels.extend(values.into_iter().map(u32::from)),
            DecodingResult::U16(values) => labels.extend(values.into_iter().map(u32::from)),
            DecodingResult::U32(values) => labels.extend(values),
            DecodingResult::U64(values) => self.append(values, labels)?,
            DecodingResult::I8(values) => self.append(values, labels)?,
            DecodingResult::I16(values) => self.append(values, labels)?,
            DecodingResult::I32(values) => self.append(values, labels)?,
            DecodingResult::I64(values) => self.append(values, labels)?,
            DecodingResult::F16(_) | DecodingResult::F32(_) | DecodingResult::F64(_) => {
                return Err(self.invalid("it has voxels of a floating-point type; labels are whole numbers"));
            }
        }
        if labels.len() - before == height * width {
            Ok(())
        } else {
            Err(self.invalid(format!("page {} has too few voxels", self.seen - 1)))
        }
    }

    fn append<T: Copy + std::fmt::Display>(&self, values: Vec<T>, labels: &mut Vec<u32>) -> Result<(), CtcError>
    where
        u32: TryFrom<T>,
    {
        for value in values {
            let label = u32::try_from(value);
            labels.push(
                label
                    .map_err(|_| self.invalid(format!("{value} is not a label; labels are from 0 to {}", u32::MAX)))?,
            );
        }
        Ok(())
    }
}

fn invalid(path: &Path, reason: impl Into<String>) -> CtcError {
    CtcError::InvalidLabels { path: path.to_owned(), reason: reason.into() }
}

#[cfg(test)]
mod tests {
    use tiff::encoder::{Compression, TiffEncoder, colortype};

    use super::*;
    use crate::{LabelStack, PlaneEncoder};

    fn written(pages: &[(u32, u32)]) -> (tempfile::TempDir, std::path::PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mask000.tif");
        let mut encoder =
            TiffEncoder::new(File::create(&path).unwrap()).unwrap().with_compression(Compression::Packbits);
        for &(height, width) in pages {
            let values: Vec<i16> = (0..height * width).map(|value| value as i16).collect();
            encoder.write_image::<colortype::GrayI16>(width, height, &values).unwrap();
        }
        (folder, path)
    }

    #[test]
    fn signed_labels_are_read_if_none_is_negative() {
        let (_folder, path) = written(&[(3, 5), (3, 5)]);
        let labels = read_labels(&path).unwrap();
        assert_eq!(labels.dim(), (2, 3, 5));
        assert_eq!(labels_shape(&path).unwrap(), [2, 3, 5]);
        assert_eq!(labels[[1, 2, 3]], 13);
        let (_folder, path) = written(&[(200, 200)]);
        let message = read_labels(&path).unwrap_err().to_string();
        assert!(message.contains("-32768 is not a label"), "{message}");
    }

    #[test]
    fn pages_of_two_sizes_are_refused() {
        let (_folder, path) = written(&[(3, 5), (3, 4)]);
        let message = read_labels(&path).unwrap_err().to_string();
        assert!(message.contains("page 1 has [3, 4] voxels (y, x), but page 0 [3, 5]"), "{message}");
    }

    #[test]
    fn sizes_that_the_file_cannot_hold_are_refused_before_memory_is_taken() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mask000.tif");
        let mut stack = LabelStack::new([1, 3, 5]).unwrap();
        stack.push(PlaneEncoder::new().encode(&[1; 15]));
        let mut bytes = Vec::new();
        stack.write(&mut bytes).unwrap();
        // The entries of width, height and rows per strip, of type 4 (32 bits) with one value.
        for tag in [256_u16, 257, 278] {
            let entry: Vec<u8> = [tag.to_le_bytes(), 4_u16.to_le_bytes(), [1, 0], [0, 0]].concat();
            let at = bytes.windows(entry.len()).position(|window| window == entry).unwrap();
            bytes[at + 8..at + 12].copy_from_slice(&60_000_u32.to_le_bytes());
        }
        std::fs::write(&path, &bytes).unwrap();
        let message = read_labels(&path).unwrap_err().to_string();
        assert!(message.contains("cannot hold"), "{message}");
    }

    #[test]
    fn damaged_files_are_errors() {
        let (folder, path) = written(&[(3, 5), (3, 5)]);
        let bytes = std::fs::read(&path).unwrap();
        let damaged = folder.path().join("damaged.tif");
        for length in 0..bytes.len() {
            std::fs::write(&damaged, &bytes[..length]).unwrap();
            let _ = read_labels(&damaged);
        }
        for at in 0..bytes.len() {
            let mut bytes = bytes.clone();
            bytes[at] ^= 0xa5;
            std::fs::write(&damaged, &bytes).unwrap();
            let _ = read_labels(&damaged);
        }
        std::fs::write(&damaged, b"not an image").unwrap();
        assert!(read_labels(&damaged).is_err());
    }
}
