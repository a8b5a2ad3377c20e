//! Seeded normal numbers, the same on every machine: logarithms and sines are `libm`'s, not the platform's.

use elephant_types::SplitMix64;

/// Normal numbers of mean 0 and variance 1, by the Box–Muller transform.
pub(crate) struct Normal {
    bits: SplitMix64,
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
        Self { bits: SplitMix64::new(seed), spare: None }
    }

    pub(crate) fn sample(&mut self) -> f64 {
        if let Some(spare) = self.spare.take() {
            return spare;
        }
        let radius = (-2.0 * libm::log(1.0 - self.bits.next_f64())).sqrt();
        let (sine, cosine) = libm::sincos(std::f64::consts::TAU * self.bits.next_f64());
        self.spare = Some(radius * sine);
        radius * cosine
    }
}
