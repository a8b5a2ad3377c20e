//! Numbers that `tests/golden/nn/generate.py` makes weights and images of, by a formula instead of files.

/// Number `index` of stream `stream`, in 0..1: `SplitMix64`'s output function (Steele, Lea and Flood, OOPSLA 2014).
pub fn golden_number(stream: u64, index: u64) -> f64 {
    let mut z = ((stream << 32) + index).wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^= z >> 31;
    (z >> 40) as f64 / f64::from(1 << 24)
}

/// The values of a network's parameter, C order: uniform with variance 2 / fan-in for convolutions, near 1 for the weights
/// of norms, near 0 for biases.
pub fn golden_parameter(stream: u64, name: &str, shape: &[usize]) -> Vec<f32> {
    let value = |index| {
        let centred = 2.0 * golden_number(stream, index) - 1.0;
        let value = match shape {
            [_, fan_in @ ..] if !fan_in.is_empty() => centred * (6.0 / fan_in.iter().product::<usize>() as f64).sqrt(),
            _ => 0.25 * centred + f64::from(u8::from(name.ends_with("weight"))),
        };
        value as f32
    };
    (0..shape.iter().product::<usize>() as u64).map(value).collect()
}
