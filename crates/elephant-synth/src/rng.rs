//! Random numbers that are the same on every machine.

use elephant_types::SplitMix64;

/// Any number of independent streams of random numbers, opened by name.
#[derive(Clone, Debug)]
pub(crate) struct Rng(SplitMix64);

impl Rng {
    /// The stream that `name` denotes under this seed.
    pub(crate) fn stream(seed: u64, name: &[u64]) -> Self {
        const GAMMA: u64 = SplitMix64::GAMMA;
        let mix = SplitMix64::mix;
        let state = name.iter().fold(mix(seed ^ GAMMA), |state, &word| mix(state.wrapping_add(GAMMA) ^ mix(word)));
        Self(SplitMix64::new(state))
    }

    /// Between 0 and 1, both excluded.
    pub(crate) fn unit(&mut self) -> f64 {
        ((self.0.next_u64() >> 12) as f64 + 0.5) / (1_u64 << 52) as f64
    }

    /// Between `low` and `high`.
    pub(crate) fn uniform(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.unit()
    }

    /// Normally distributed with mean 0 and variance 1.
    pub(crate) fn normal(&mut self) -> f64 {
        normal_quantile(self.unit())
    }

    /// Three independent normal numbers.
    pub(crate) fn normal_vector(&mut self) -> [f64; 3] {
        std::array::from_fn(|_| self.normal())
    }

    /// Inside the ball of radius 1.
    pub(crate) fn in_ball(&mut self) -> [f64; 3] {
        loop {
            let point: [f64; 3] = std::array::from_fn(|_| self.uniform(-1.0, 1.0));
            if point.iter().map(|c| c * c).sum::<f64>() <= 1.0 {
                return point;
            }
        }
    }

    /// A number of photons with the given mean; from 12 on, a rounded normal number.
    pub(crate) fn poisson(&mut self, mean: f64) -> f64 {
        if mean >= 12.0 {
            return (mean + mean.sqrt() * self.normal()).round().max(0.0);
        }
        // Knuth's method: count how many uniform numbers multiply to less than exp(−mean).
        let limit = libm::exp(-mean);
        let (mut photons, mut product) = (0.0, self.unit());
        while product > limit {
            photons += 1.0;
            product *= self.unit();
        }
        photons
    }
}

/// The inverse of the normal distribution function to seven digits: algorithm AS 241, PPND7 (Wichura, Applied Statistics
/// 37, 1988).
fn normal_quantile(p: f64) -> f64 {
    let q = p - 0.5;
    if q.abs() <= 0.425 {
        let r = 0.180_625 - q * q;
        return q * (((59.109_374_720 * r + 159.291_132_02) * r + 50.434_271_938) * r + 3.387_132_717_9)
            / (((67.187_563_600 * r + 78.757_757_664) * r + 17.895_169_469) * r + 1.0);
    }
    let r = (-libm::log(if q < 0.0 { p } else { 1.0 - p })).sqrt();
    let tail = if r <= 5.0 {
        let r = r - 1.6;
        (((0.170_238_211_03 * r + 1.306_728_481_6) * r + 2.756_815_390_0) * r + 1.423_437_277_7)
            / ((0.120_211_329_75 * r + 0.737_001_642_50) * r + 1.0)
    } else {
        let r = r - 5.0;
        (((0.017_337_203_997 * r + 0.428_682_943_37) * r + 3.081_226_386_0) * r + 6.657_905_115_0)
            / ((0.012_258_202_635 * r + 0.241_978_942_25) * r + 1.0)
    };
    tail.copysign(q)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_the_normal_distribution() {
        for (p, expected) in
            [(0.5, 0.0), (0.841_344_746, 1.0), (0.975, 1.959_963_985), (0.001, -3.090_232_306), (1e-12, -7.034_483_825)]
        {
            assert!((normal_quantile(p) - expected).abs() < 1e-6, "{p}");
        }
    }

    #[test]
    fn samples_have_the_moments_they_should() {
        let mut rng = Rng::stream(1, &[2, 3]);
        let mut check = |draw: &mut dyn FnMut(&mut Rng) -> f64, mean: f64, variance: f64| {
            let samples: Vec<f64> = (0..100_000).map(|_| draw(&mut rng)).collect();
            let found = samples.iter().sum::<f64>() / samples.len() as f64;
            let spread = samples.iter().map(|s| (s - found).powi(2)).sum::<f64>() / samples.len() as f64;
            // Five standard errors of the mean; the variance to 3 %.
            assert!((found - mean).abs() < 5.0 * (variance / 1e5).sqrt(), "{found} is not {mean}");
            assert!((spread / variance - 1.0).abs() < 0.03, "{spread} is not {variance}");
        };
        check(&mut Rng::unit, 0.5, 1.0 / 12.0);
        check(&mut Rng::normal, 0.0, 1.0);
        check(&mut |rng| rng.poisson(3.0), 3.0, 3.0);
        check(&mut |rng| rng.poisson(11.9), 11.9, 11.9);
        check(&mut |rng| rng.poisson(40.0), 40.0, 40.0);
    }

    #[test]
    fn streams_are_reproducible_and_differ() {
        let first = |name: &[u64]| Rng::stream(7, name).0.next_u64();
        assert_eq!(first(&[1, 2]), first(&[1, 2]));
        assert_ne!(first(&[1, 2]), first(&[2, 1]));
        assert_ne!(first(&[1, 2]), first(&[1, 2, 0]));
        assert_ne!(Rng::stream(7, &[1]).0.next_u64(), Rng::stream(8, &[1]).0.next_u64());
    }
}
