//! Seeded normal numbers, the same on every machine: logarithms and sines are `libm`'s, not the platform's.

/// Normal numbers of mean 0 and variance 1: `SplitMix64` (Steele, Lea and Flood, OOPSLA 2014) through the Box–Muller
/// transform.
pub(crate) struct Normal {
    state: u64,
    spare: Option<f64>,
}

/// Normal numbers on the CPU. Tests draw from here: libtorch's generator is one for all threads, so that tests beside each
/// other would take numbers from each other.
#[cfg(test)]
pub(crate) fn normal_tensor(seed: u64, size: &[i64], kind: tch::Kind) -> tch::Tensor {
    let mut normal = Normal::new(seed);
    let values: Vec<f64> = (0..size.iter().product::<i64>()).map(|_| normal.sample()).collect();
    tch::Tensor::from_slice(&values).reshape(size).to_kind(kind)
}

impl Normal {
    pub(crate) fn new(seed: u64) -> Self {
        Self { state: seed, spare: None }
    }

    pub(crate) fn sample(&mut self) -> f64 {
        if let Some(spare) = self.spare.take() {
            return spare;
        }
        let radius = (-2.0 * libm::log(1.0 - self.uniform())).sqrt();
        let (sine, cosine) = libm::sincos(std::f64::consts::TAU * self.uniform());
        self.spare = Some(radius * sine);
        radius * cosine
    }

    /// A number in 0..1.
    fn uniform(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}
