//! How the values of a movie become 16 bit.

/// Division of all values, rounded down.
#[derive(Clone, Debug)]
pub struct Scale {
    divisor: f64,
    /// The quotient of each 16-bit value; `None` when values stay as they are.
    table: Option<Vec<u16>>,
}

impl Default for Scale {
    /// Values stay as they are.
    fn default() -> Self {
        Self::new(1.0)
    }
}

impl Scale {
    /// Division by a positive number. Unsigned values of 8 and 16 bit keep the last 16 bits of a larger quotient, as in the
    /// original. Values of all other types become 0 when they are negative or not a number, and 65535 when their quotient is
    /// larger.
    pub fn new(divisor: f64) -> Self {
        let mut scale = Self { divisor, table: None };
        if divisor != 1.0 {
            scale.table = Some((0..=u16::MAX).map(|value| scale.quotient(value.into()) as u64 as u16).collect());
        }
        scale
    }

    /// What values are divided by.
    pub fn divisor(&self) -> f64 {
        self.divisor
    }

    /// `value` divided and rounded down, as NumPy's `//` does it for floating-point numbers: through the remainder, because
    /// the quotient itself may be rounded up to the next whole number.
    pub fn quotient(&self, value: f64) -> f64 {
        if self.divisor == 1.0 || value < 0.0 || value.is_infinite() {
            return (value / self.divisor).floor();
        }
        ((value - value % self.divisor) / self.divisor).round()
    }

    /// Divides 16-bit values in place. Returns the largest one before division.
    pub(crate) fn apply(&self, values: &mut [u16]) -> f64 {
        let largest = values.iter().fold(0, |max: u16, &value| max.max(value));
        if let Some(table) = &self.table {
            for value in values {
                *value = table[usize::from(*value)];
            }
        }
        largest.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotients_are_those_of_numpy() {
        for (value, divisor, expected) in [
            (1.0, 0.1, 9.0),
            (255.0, 0.1, 2549.0),
            (300.0, 0.1, 2999.0),
            (255.0, 0.001, 254_999.0),
            (65535.0, 3.0, 21845.0),
            (-7.0, 2.0, -4.0),
            (7.9, 1.0, 7.0),
            (f64::INFINITY, 3.0, f64::INFINITY),
        ] {
            assert_eq!(Scale::new(divisor).quotient(value), expected, "{value} // {divisor}");
        }
        assert!(Scale::new(3.0).quotient(f64::NAN).is_nan());
    }
}
