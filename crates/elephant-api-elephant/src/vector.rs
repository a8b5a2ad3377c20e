//! Vectors as the client sends them: in x, y, z order, three numbers or two in 2-D (docs/protocol.md,
//! "Axis order and units").

use std::{fmt, marker::PhantomData, ops::Deref};

use elephant_api_core::ApiError;
use elephant_types::VoxelSize;
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{Error, SeqAccess, Visitor},
};

use crate::number::Integer;

/// Three numbers, or two for 2-D data, in x, y, z order. A list that is much longer is not read to its end: bodies may have
/// hundreds of megabytes.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(transparent)]
pub(crate) struct Xyz<T>(Vec<T>);

/// The most numbers that are read, so that a few too many can be refused where the field's name is known.
const MOST_NUMBERS: usize = 8;

impl<T> Default for Xyz<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T, const N: usize> From<[T; N]> for Xyz<T> {
    fn from(numbers: [T; N]) -> Self {
        Self(numbers.into())
    }
}

impl<T> Deref for Xyz<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Xyz<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Numbers<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Numbers<T> {
            type Value = Xyz<T>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("three numbers (x, y, z)")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Xyz<T>, A::Error> {
                let mut numbers = Vec::new();
                while let Some(number) = sequence.next_element()? {
                    if numbers.len() == MOST_NUMBERS {
                        return Err(A::Error::invalid_length(MOST_NUMBERS + 1, &self));
                    }
                    numbers.push(number);
                }
                Ok(Xyz(numbers))
            }
        }

        deserializer.deserialize_seq(Numbers(PhantomData))
    }
}

/// A vector (x, y, z) as (z, y, x).
pub(crate) fn zyx([x, y, z]: [f64; 3]) -> [f64; 3] {
    [z, y, x]
}

/// A covariance over (x, y, z), row by row, as one over (z, y, x).
pub(crate) fn zyx_covariance(covariance: [f64; 9]) -> [[f64; 3]; 3] {
    std::array::from_fn(|i| std::array::from_fn(|j| covariance[3 * (2 - i) + 2 - j]))
}

/// The field `scales`; voxels of edge length 1 when it is absent.
pub(crate) fn voxel_size(scales: Option<&[f64]>) -> Result<VoxelSize, ApiError> {
    let zyx = match scales {
        None => [1.0; 3],
        Some(&[x, y, z]) => [z, y, x],
        Some(&[x, y]) => [1.0, y, x],
        Some(_) => return Err(ApiError::bad_request("scales must have 3 numbers (x, y, z)")),
    };
    VoxelSize::new(zyx).map_err(|error| {
        ApiError::bad_request(format!("scales: {error}")).in_short("scales must be three positive numbers")
    })
}

/// Counts of voxels along (z, y, x) from `field`.
pub(crate) fn zyx_sizes(field: &str, xyz: &[Integer]) -> Result<[usize; 3], ApiError> {
    let size = |value: Integer| {
        let size = value.to_usize();
        size.ok_or_else(|| ApiError::bad_request(format!("{field}: every number must be 0 or more")))
    };
    match *xyz {
        [x, y, z] => Ok([size(z)?, size(y)?, size(x)?]),
        [x, y] => Ok([1, size(y)?, size(x)?]),
        _ => Err(ApiError::bad_request(format!("{field} must have 3 numbers (x, y, z)"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_list_is_not_read_to_its_end() {
        let read = |text: &str| serde_json::from_str::<Xyz<f64>>(text).map_err(|error| error.to_string());
        assert_eq!(read("[1, 2, 3]").unwrap(), Xyz::from([1.0, 2.0, 3.0]));
        assert_eq!(read("[]").unwrap(), Xyz::default());
        // What comes after the ninth number is not even looked at.
        let error = read("[1, 2, 3, 4, 5, 6, 7, 8, 9, what follows").unwrap_err();
        assert!(error.starts_with("invalid length 9, expected three numbers (x, y, z)"), "{error}");
        assert!(read("1").is_err());
    }
}
