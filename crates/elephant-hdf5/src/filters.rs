//! Undoing the filters of a chunk, without the HDF5 library: its own filters trust the sizes in the file.

use hdf5_metno::filters::{Filter, SZip, ScaleOffset as Scaling};
use libdeflater::Decompressor;

use crate::{
    scale_offset::{self, ScaleOffset},
    szip::Szip,
};

/// h5py's fast compression, registered with The HDF Group under this number.
const LZF: i32 = 32000;
const CHECKSUM_BYTES: usize = 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Compression {
    Deflate,
    Lzf,
    Szip(Szip),
}

/// What filters know of the values of a dataset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Values {
    /// How they would be packed.
    pub scale: ScaleOffset,
    /// Whether they are floating-point numbers.
    pub is_float: bool,
    /// Values of a chunk (z, y, x).
    pub chunk: [usize; 3],
}

/// The filters of a dataset, each with its position in the order of writing: scale-offset or byte shuffle, then
/// compression, then checksum, all of them optional.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pipeline {
    scale: Option<(u32, ScaleOffset)>,
    shuffle: Option<u32>,
    compression: Option<(u32, Compression)>,
    checksum: Option<u32>,
}

impl Pipeline {
    /// The pipeline of `filters`, in the order of writing, or the name of the one that cannot be undone.
    pub fn new(filters: &[Filter], values: Values) -> Result<Self, String> {
        let Values { scale, is_float, chunk } = values;
        let mut pipeline = Self::default();
        for (position, filter) in (0..).zip(filters) {
            let unchecked = pipeline.checksum.is_none();
            let uncompressed = unchecked && pipeline.compression.is_none();
            let first = position == 0;
            match filter {
                // A dataset may ask for a number of bits; for all of them, the filter does nothing.
                Filter::ScaleOffset(Scaling::Integer(bits))
                    if first && !is_float && usize::from(*bits) < 8 * scale.size =>
                {
                    pipeline.scale = Some((position, scale));
                }
                Filter::ScaleOffset(Scaling::FloatDScale(decimals)) if first && is_float => {
                    pipeline.scale = Some((position, ScaleOffset { decimals: Some(*decimals), ..scale }));
                }
                Filter::Shuffle if first => pipeline.shuffle = Some(position),
                Filter::Deflate(_) if uncompressed => pipeline.compression = Some((position, Compression::Deflate)),
                other if other.id() == LZF && uncompressed => {
                    pipeline.compression = Some((position, Compression::Lzf));
                }
                Filter::SZip(coding, block) if uncompressed && pipeline.scale.is_none() => {
                    let has_differences = *coding == SZip::NearestNeighbor;
                    let szip = Szip::new(scale.size, scale.big_endian, has_differences, (*block).into(), chunk);
                    pipeline.compression = Some((position, Compression::Szip(szip.ok_or_else(|| name(filter.id()))?)));
                }
                Filter::Fletcher32 if unchecked => pipeline.checksum = Some(position),
                other => return Err(name(other.id())),
            }
        }
        Ok(pipeline)
    }

    /// Whether a filter packs numbers and makes no sense for texts.
    pub fn is_for_numbers(self) -> bool {
        self.scale.is_some() || matches!(self.compression, Some((_, Compression::Szip(_))))
    }

    /// How many buffers of the size of a chunk [`undo`](Self::undo) needs, with the one of the stored chunk.
    pub fn buffers(self) -> usize {
        1 + usize::from(self.compression.is_some()) + usize::from(self.scale.is_some())
    }

    /// Undoes everything but the shuffle. Returns the chunk's bytes, exactly `expected` many whatever the file claims, and
    /// whether they are shuffled. `skipped` has bit i set when filter i was left out for this chunk.
    pub fn undo(self, skipped: u32, expected: usize, scratch: &mut Scratch) -> Result<(&[u8], bool), &'static str> {
        let applied = |position: u32| skipped & (1 << position) == 0;
        let mut stored = scratch.stored.as_slice();
        if self.checksum.is_some_and(applied) {
            let (bytes, sum) = stored.split_last_chunk::<CHECKSUM_BYTES>().ok_or("a chunk is too short")?;
            if fletcher32(bytes) != u32::from_le_bytes(*sum) {
                return Err("the checksum of a chunk is wrong; the file is damaged, copy it again");
            }
            stored = bytes;
        }
        let scale = self.scale.filter(|&(position, _)| applied(position));
        let bytes = match self.compression.filter(|&(position, _)| applied(position)) {
            None => stored,
            Some((_, compression)) => {
                // The packed values have a header and, at the end, one byte more than they need.
                scratch.plain.resize(expected + if scale.is_some() { scale_offset::HEADER_BYTES + 1 } else { 0 }, 0);
                let length = match compression {
                    Compression::Deflate => scratch.decompressor.zlib_decompress(stored, &mut scratch.plain).map_err(
                        |_| "a chunk is not valid gzip data of its size; the file is damaged, copy it again",
                    )?,
                    Compression::Lzf => unpack_lzf(stored, &mut scratch.plain)
                        .ok_or("a chunk is not valid LZF data of its size; the file is damaged, copy it again")?,
                    Compression::Szip(szip) => szip
                        .decode(stored, &mut scratch.plain)
                        .map(|()| expected)
                        .ok_or("a chunk is not valid szip data of its size; the file is damaged, copy it again")?,
                };
                &scratch.plain[..length]
            }
        };
        if let Some((_, scale)) = scale {
            scratch.unpacked.resize(expected, 0);
            let unpacked = scale.unpack(bytes, &mut scratch.unpacked);
            unpacked.ok_or("a chunk is not valid scale-offset data of its size; the file is damaged, copy it again")?;
            return Ok((&scratch.unpacked, false));
        }
        if bytes.len() == expected {
            Ok((bytes, self.shuffle.is_some_and(applied)))
        } else {
            Err("a chunk holds another number of voxels than it should")
        }
    }
}

/// Buffers of one worker, used again for each chunk.
#[derive(Default)]
pub(crate) struct Scratch {
    /// The chunk as it is in the file.
    pub stored: Vec<u8>,
    plain: Vec<u8>,
    unpacked: Vec<u8>,
    decompressor: Decompressor,
}

/// Unpacks `LibLZF` data and returns its length, or `None` when it is damaged or longer than `out`.
fn unpack_lzf(packed: &[u8], out: &mut [u8]) -> Option<usize> {
    let mut input = packed.iter();
    let mut at = 0;
    while let Some(&control) = input.next() {
        let control = usize::from(control);
        if control < 32 {
            let length = control + 1;
            let (literal, rest) = input.as_slice().split_at_checked(length)?;
            out.get_mut(at..at + length)?.copy_from_slice(literal);
            input = rest.iter();
            at += length;
        } else {
            let mut length = (control >> 5) + 2;
            if length == 9 {
                length += usize::from(*input.next()?);
            }
            let back = ((control & 31) << 8) + usize::from(*input.next()?) + 1;
            let from = at.checked_sub(back)?;
            // Source and target may overlap: the copy repeats what it has just written.
            let target = out.get_mut(from..at + length)?;
            (back..back + length).for_each(|i| target[i] = target[i - back]);
            at += length;
        }
    }
    Some(at)
}

/// The checksum of HDF5's Fletcher32 filter: Fletcher's sums over big-endian 16-bit words, modulo 65535, where a multiple
/// of it is 65535 and not 0.
fn fletcher32(bytes: &[u8]) -> u32 {
    let add = |sum: u32, term: u32| if sum + term > 65535 { sum + term - 65535 } else { sum + term };
    let (pairs, rest) = bytes.as_chunks::<2>();
    let last = rest.first().map(|&byte| [byte, 0]);
    let (low, high) = pairs.iter().copied().chain(last).fold((0, 0), |(low, high), pair| {
        let low = add(low, u16::from_be_bytes(pair).into());
        (low, add(high, low))
    });
    high << 16 | low
}

/// Names of the filters that movies are compressed with, as registered with The HDF Group.
fn name(id: i32) -> String {
    let name = match id {
        1 | 2 | 3 | 6 | LZF => return "filters in an unusual order".to_owned(),
        4 => "an unknown kind of SZIP",
        5 => "N-bit",
        32001 => "Blosc",
        32004 => "LZ4",
        32008 => "bitshuffle",
        32013 => "ZFP",
        32015 => "Zstandard",
        32026 => "Blosc2",
        _ => return format!("HDF5 filter {id}"),
    };
    format!("{name} (HDF5 filter {id})")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const VALUES: Values = Values {
        scale: ScaleOffset { size: 2, big_endian: false, fill: None, decimals: None },
        is_float: false,
        chunk: [2, 3, 4],
    };

    #[test]
    fn filters_are_known_in_their_usual_order_only() {
        let gzip = Filter::Deflate(6);
        let lzf = Filter::User(LZF, vec![]);
        let scale = Filter::ScaleOffset(Scaling::Integer(0));
        for good in [
            vec![],
            vec![Filter::Shuffle, gzip.clone(), Filter::Fletcher32],
            vec![lzf.clone()],
            vec![scale.clone(), gzip.clone()],
            vec![Filter::Shuffle, Filter::Fletcher32],
        ] {
            assert!(Pipeline::new(&good, VALUES).is_ok(), "{good:?}");
        }
        for bad in [
            vec![gzip.clone(), gzip.clone()],
            vec![gzip.clone(), Filter::Shuffle],
            vec![Filter::Shuffle, scale],
            vec![Filter::Fletcher32, gzip],
            vec![lzf, Filter::NBit],
            vec![Filter::Fletcher32, Filter::Fletcher32],
        ] {
            assert!(Pipeline::new(&bad, VALUES).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn lzf_copies_may_overlap_themselves() {
        // Literal "ab", then 9 + 3 bytes from two back.
        let mut out = [0; 14];
        assert_eq!(unpack_lzf(&[1, b'a', b'b', 7 << 5, 3, 1], &mut out), Some(14));
        assert_eq!(&out, b"ababababababab");
        assert_eq!(unpack_lzf(&[1, b'a', b'b', 7 << 5, 3, 2], &mut out), None, "before the beginning");
        assert_eq!(unpack_lzf(&[1, b'a', b'b', 7 << 5, 4, 1], &mut out), None, "beyond the end");
        assert_eq!(unpack_lzf(&[1, b'a'], &mut out), None, "cut off");
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(stored: Vec<u8>, skipped: u32, expected in 0_usize..300) {
            for filters in [
                vec![Filter::Shuffle, Filter::User(LZF, vec![])],
                vec![Filter::Deflate(1), Filter::Fletcher32],
                vec![Filter::Fletcher32],
                vec![Filter::SZip(SZip::NearestNeighbor, 8)],
                vec![Filter::ScaleOffset(Scaling::Integer(0)), Filter::Deflate(1)],
                vec![Filter::ScaleOffset(Scaling::Integer(0))],
            ] {
                let pipeline = Pipeline::new(&filters, VALUES).unwrap();
                let mut scratch = Scratch { stored: stored.clone(), ..Scratch::default() };
                if let Ok((bytes, _)) = pipeline.undo(skipped, expected, &mut scratch) {
                    prop_assert_eq!(bytes.len(), expected);
                }
            }
        }
    }
}
