//! The boxes in which a movie's frames are read and written. Pure geometry.

use std::ops::Range;

use elephant_volume::CHUNK_EDGE;

/// The largest number of bytes of voxels in memory at a time. With the chunks being read and written, the process stays
/// below 300 MB, unless a single chunk of the movie takes more than 40 MB (three buffers of its size may be needed), or
/// the movie is a virtual dataset (whose parts are read into a second block).
pub(super) const BLOCK_BYTES: usize = 128 << 20;
/// Shorter rows of voxels count as rows of this length: each needs some bytes of its own while it is read.
const SHORTEST_ROW: usize = 256;
/// How often a chunk of the movie may be decoded, because several blocks have a part of it.
pub(super) const MAX_DECODES: usize = 64;

/// The size of the boxes in which a frame is read, (z, y, x): whole chunks of the stores in y and x; in z whole chunks of the
/// movie, as many as make half of [`BLOCK_BYTES`], or at least one. A movie chunk that is longer than a store's would be
/// decoded for each of these again, so boxes hold such chunks whole, as far as they fit.
pub(super) fn block_size(frame: [usize; 3], chunk: [usize; 3]) -> [usize; 3] {
    const MOST: usize = BLOCK_BYTES / size_of::<u16>();
    let is_long = |axis: usize| chunk[axis] > CHUNK_EDGE;
    let edge = |axis: usize| frame[axis].min(chunk[axis].next_multiple_of(CHUNK_EDGE));
    let whole = [1, 2].map(|axis| if is_long(axis) { frame[axis] } else { edge(axis) });
    let fits = |[y, x]: [usize; 2]| y.saturating_mul(x) <= MOST;
    let [y, x] = [whole, [edge(1), edge(2)]].into_iter().find(|&plane| fits(plane)).unwrap_or_else(|| {
        let least = frame[1].min(CHUNK_EDGE);
        let x = edge(2).min(MOST / least / CHUNK_EDGE * CHUNK_EDGE);
        // Rows of the stores' chunks, as many as fit.
        let rows = (MOST / x / CHUNK_EDGE).max(1) * CHUNK_EDGE;
        [frame[1].min(rows), x]
    });
    let planes = |bytes: usize| (bytes / (y * x.max(SHORTEST_ROW) * size_of::<u16>())).max(1);
    let depth = match planes(BLOCK_BYTES / 2) {
        several if several >= chunk[0] => several - several % chunk[0],
        _ => chunk[0].min(planes(BLOCK_BYTES)),
    };
    [depth.min(frame[0]), y, x]
}

/// How many blocks may have a part of the same chunk.
pub(super) fn decodes(frame: [usize; 3], block: [usize; 3], chunk: [usize; 3]) -> usize {
    let along = |axis: usize| match (block[axis], chunk[axis]) {
        (block, _) if block >= frame[axis] => 1,
        (block, chunk) if block.is_multiple_of(chunk) => 1,
        (block, chunk) => chunk.min(frame[axis]).div_ceil(block) + 1,
    };
    (0..3).map(along).fold(1, usize::saturating_mul)
}

/// The boxes of at most `block` voxels that make up a frame.
pub(super) fn blocks(frame: [usize; 3], block: [usize; 3]) -> impl Iterator<Item = [Range<usize>; 3]> {
    let ranges = move |axis: usize| {
        (0..frame[axis]).step_by(block[axis]).map(move |start| start..(start + block[axis]).min(frame[axis]))
    };
    ranges(0).flat_map(move |z| {
        ranges(1).flat_map(move |y| {
            let z = z.clone();
            ranges(2).map(move |x| [z.clone(), y.clone(), x])
        })
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn blocks_hold_whole_chunks_and_little_memory() {
        // A frame in one block; many chunks of a large frame; chunks too deep for two blocks; one chunk for everything.
        assert_eq!(block_size([64, 384, 384], [4, 32, 32]), [64, 384, 384]);
        assert_eq!(block_size([500, 2048, 2048], [5, 32, 32]), [30, 1024, 1024]);
        assert_eq!(block_size([500, 2048, 2048], [64, 64, 64]), [64, 1024, 1024]);
        assert_eq!(block_size([500, 2048, 2048], [500, 2048, 2048]), [16, 2048, 2048]);
        // Chunks longer than those of the stores stay whole, whatever the frame.
        assert_eq!(block_size([10, 20_000, 20_000], [1, 8192, 8192]), [1, 8192, 8192]);
        assert_eq!(block_size([10, 20_000, 20_000], [2, 5000, 1500]), [2, 5120, 2048]);
        assert_eq!(block_size([2, 16_384, 16_384], [1, 16_384, 16_384]), [1, 4096, 16_384]);
        assert_eq!(block_size([1, 2048, 1 << 28], [1, 1, 1 << 28]), [1, 1024, 1 << 16]);
        assert_eq!(block_size([1, 7, 9], [16, 16, 16]), [1, 7, 9]);
        assert_eq!(block_size([1 << 20, 1024, 1], [1, 1, 1])[0], 128);
    }

    #[test]
    fn chunks_are_decoded_a_few_times_at_most() {
        let decoded = |frame: [usize; 3], chunk: [usize; 3]| decodes(frame, block_size(frame, chunk), chunk);
        assert_eq!(decoded([64, 384, 384], [4, 32, 32]), 1);
        assert_eq!(decoded([500, 2048, 2048], [16, 2048, 2048]), 1);
        assert_eq!(decoded([10, 20_000, 20_000], [1, 8192, 8192]), 1);
        // The largest chunks of 8 bit that are read at all.
        assert!(decoded([2, 16_384, 16_384], [1, 16_384, 16_384]) <= MAX_DECODES);
        assert!(decoded([256, 1024, 1024], [256, 1024, 1024]) <= MAX_DECODES);
        // The first volume's chunks say how large the blocks are; another one's may not fit.
        let block = block_size([2, 16_384, 16_384], [1, 64, 64]);
        assert!(decodes([2, 16_384, 16_384], block, [1, 16_384, 16_384]) > MAX_DECODES);
        assert!(decoded([1, 2048, 1 << 28], [1, 1, 1 << 28]) > MAX_DECODES);
    }

    proptest! {
        #[test]
        fn blocks_take_little_memory_and_hold_whole_tiles_of_the_stores(
            frame in (1_usize..600, 1_usize..40_000, 1_usize..40_000),
            chunk in (1_usize..600, 1_usize..40_000, 1_usize..40_000),
        ) {
            let (frame, chunk): ([usize; 3], [usize; 3]) = (frame.into(), chunk.into());
            let block = block_size(frame, chunk);
            prop_assert!(block.iter().product::<usize>() * size_of::<u16>() <= BLOCK_BYTES);
            for axis in 1..3 {
                prop_assert!(block[axis] == frame[axis] || block[axis].is_multiple_of(CHUNK_EDGE));
            }
        }

        #[test]
        fn blocks_cover_each_voxel_once(frame in prop::array::uniform3(1_usize..9), block in prop::array::uniform3(1_usize..9)) {
            let mut seen = ndarray::Array3::<u8>::zeros(frame);
            for [z, y, x] in blocks(frame, block) {
                prop_assert!(z.len() <= block[0] && y.len() <= block[1] && x.len() <= block[2]);
                seen.slice_mut(ndarray::s![z, y, x]).map_inplace(|count| *count += 1);
            }
            prop_assert!(seen.iter().all(|&count| count == 1));
        }
    }
}
