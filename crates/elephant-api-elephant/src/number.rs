//! Numbers as the Java client prints them: `1` for 1.0, `1.0E-4`, and integers that other clients print as `5.0`
//! (docs/protocol.md, "Numbers").

use serde::{Deserialize, Deserializer, Serialize, de::Error};

/// The largest magnitude up to which every integer is an f64.
const MAX_EXACT: f64 = 9_007_199_254_740_992.0;

/// An integer that may be printed like a floating-point number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Integer(pub(crate) i64);

impl<'de> Deserialize<'de> for Integer {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = f64::deserialize(deserializer)?;
        if number.fract() != 0.0 || number.abs() > MAX_EXACT {
            return Err(D::Error::custom(format!("{number} is not an integer")));
        }
        Ok(Self(number as i64))
    }
}

impl Integer {
    /// The integer as a count or an index.
    pub(crate) fn to_usize(self) -> Option<usize> {
        usize::try_from(self.0).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_an_integer_is_read() {
        for text in ["5", "5.0", "5e0", "0.5E1"] {
            assert_eq!(serde_json::from_str::<Integer>(text).unwrap(), Integer(5), "{text}");
        }
        for text in ["5.5", "1e300", "\"5\"", "null", "NaN", "true"] {
            assert!(serde_json::from_str::<Integer>(text).is_err(), "{text}");
        }
    }
}
