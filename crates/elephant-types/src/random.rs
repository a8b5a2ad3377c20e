//! Random numbers that are the same on every machine, for what must be reproducible: synthetic data, initial weights, tests.

/// `SplitMix64` (Steele, Lea & Flood, OOPSLA 2014): a counter and a mixing function. Not for secrets.
#[derive(Clone, Debug)]
pub struct SplitMix64(u64);

impl SplitMix64 {
    /// What the counter grows by: 2^64 over the golden ratio.
    pub const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

    /// The generator with this seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number; all 64 bits are random.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(Self::GAMMA);
        Self::mix(self.0)
    }

    /// The next number in 0..1, a multiple of 2^-53.
    pub fn next_f64(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// The mixing function alone: a bijection under which similar numbers become unrelated ones.
    pub fn mix(mut z: u64) -> u64 {
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_the_reference() {
        // From the authors' C program (prng.di.unimi.it/splitmix64.c) with the seed 1234567.
        let mut random = SplitMix64::new(1_234_567);
        let found: Vec<u64> = (0..3).map(|_| random.next_u64()).collect();
        assert_eq!(found, [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]);
        assert!((0..1000).map(|_| random.next_f64()).all(|number| (0.0..1.0).contains(&number)));
    }
}
