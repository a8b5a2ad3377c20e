//! Random damage to a file.

use fastrand::Rng;

/// Numbers that parsers go wrong on.
const EDGES: [u64; 12] =
    [0, 1, 0x7f, 0x80, 0xff, 0x7fff, 0xffff, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff, 1 << 62, u64::MAX];

/// Changes some bytes of `bytes`, moves, removes or repeats some, or puts some of `other` in.
pub fn damage(bytes: &mut Vec<u8>, other: &[u8], random: &mut Rng) {
    for _ in 0..1 << random.u32(0..4) {
        if bytes.is_empty() {
            return;
        }
        let place = random.usize(..bytes.len());
        match random.u32(0..100) {
            0..30 => bytes[place] ^= 1 << random.u32(0..8),
            30..50 => bytes[place] = random.u8(..),
            50..80 => {
                let width = 1 << random.u32(0..4);
                let number = match random.u32(0..3) {
                    0 => EDGES[random.usize(..EDGES.len())],
                    1 => bytes.len() as u64,
                    _ => random.u64(..) >> random.u32(0..64),
                };
                let number = if random.bool() { number.to_le_bytes() } else { number.swap_bytes().to_le_bytes() };
                bytes[place..].iter_mut().zip(&number[..width]).for_each(|(byte, new)| *byte = *new);
            }
            80..88 => {
                let (from, length) = (random.usize(..bytes.len()), random.usize(1..65));
                let part: Vec<u8> = bytes[from..].iter().copied().take(length).collect();
                bytes[place..].iter_mut().zip(part).for_each(|(byte, new)| *byte = new);
            }
            88..92 => {
                let end = (place + random.usize(1..33)).min(bytes.len());
                bytes.drain(place..end);
            }
            92..95 => {
                let new = random.u8(..);
                bytes.splice(place..place, std::iter::repeat_n(new, random.usize(1..33)));
            }
            95..98 if !other.is_empty() => {
                let from = random.usize(..other.len());
                let length = random.usize(1..257);
                bytes[place..].iter_mut().zip(other[from..].iter().take(length)).for_each(|(byte, new)| *byte = *new);
            }
            _ => bytes.truncate(place),
        }
    }
}
