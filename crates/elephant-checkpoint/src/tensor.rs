//! Named tensors stored as bytes.

use std::collections::HashMap;

use half::{bf16, f16};

use crate::CheckpointError;

/// The data types of checkpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dtype {
    /// 32-bit floating point.
    F32,
    /// 64-bit floating point.
    F64,
    /// 16-bit floating point, IEEE 754.
    F16,
    /// 16-bit floating point with the exponent of `F32`.
    Bf16,
    /// Signed integer, 64 bits.
    I64,
    /// Signed integer, 32 bits.
    I32,
    /// Signed integer, 16 bits.
    I16,
    /// Signed integer, 8 bits.
    I8,
    /// Unsigned integer, 8 bits.
    U8,
    /// 0 or 1 in a byte.
    Bool,
}

impl Dtype {
    /// Bytes per element.
    pub const fn size(self) -> usize {
        match self {
            Self::F64 | Self::I64 => 8,
            Self::F32 | Self::I32 => 4,
            Self::F16 | Self::Bf16 | Self::I16 => 2,
            Self::I8 | Self::U8 | Self::Bool => 1,
        }
    }
}

/// An array of any shape, in C order, little endian.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl Tensor {
    /// An array of `shape` from its bytes, C order, little endian.
    ///
    /// # Errors
    /// [`CheckpointError::WrongLength`] when the length of `bytes` does not match the shape.
    pub fn new(dtype: Dtype, shape: Vec<usize>, bytes: Vec<u8>) -> Result<Self, CheckpointError> {
        let needed = byte_length(dtype, &shape).unwrap_or(usize::MAX);
        if bytes.len() != needed {
            return Err(CheckpointError::WrongLength { shape, needed, given: bytes.len() });
        }
        Ok(Self { dtype, shape, bytes })
    }

    /// An [`F32`](Dtype::F32) array of `shape` from its values, C order.
    ///
    /// # Errors
    /// [`CheckpointError::WrongLength`] when the number of values does not match the shape.
    pub fn from_f32(shape: Vec<usize>, values: &[f32]) -> Result<Self, CheckpointError> {
        Self::new(Dtype::F32, shape, values.iter().flat_map(|value| value.to_le_bytes()).collect())
    }

    /// The element type.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// The size of each axis.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The elements, C order, little endian.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The elements as `f32`, rounded if the type is wider.
    pub fn to_f32(&self) -> Vec<f32> {
        let bytes = &self.bytes;
        match self.dtype {
            Dtype::F32 => elements(bytes, f32::from_le_bytes),
            Dtype::F64 => elements(bytes, |b| f64::from_le_bytes(b) as f32),
            Dtype::F16 => elements(bytes, |b| f16::from_le_bytes(b).to_f32()),
            Dtype::Bf16 => elements(bytes, |b| bf16::from_le_bytes(b).to_f32()),
            Dtype::I64 => elements(bytes, |b| i64::from_le_bytes(b) as f32),
            Dtype::I32 => elements(bytes, |b| i32::from_le_bytes(b) as f32),
            Dtype::I16 => elements(bytes, |b| i16::from_le_bytes(b).into()),
            Dtype::I8 => elements(bytes, |b| i8::from_le_bytes(b).into()),
            Dtype::U8 | Dtype::Bool => elements(bytes, |[b]: [u8; 1]| b.into()),
        }
    }

    /// The elements as [`F16`](Dtype::F16), rounded to the nearest.
    pub(crate) fn to_half(&self) -> Self {
        let bytes = self.to_f32().into_iter().flat_map(|value| f16::from_f32(value).to_le_bytes()).collect();
        Self { dtype: Dtype::F16, shape: self.shape.clone(), bytes }
    }
}

/// The elements of `N` bytes each in `bytes`.
fn elements<const N: usize>(bytes: &[u8], convert: impl Fn([u8; N]) -> f32) -> Vec<f32> {
    bytes.as_chunks::<N>().0.iter().map(|element| convert(*element)).collect()
}

/// Bytes of an array of `shape`; `None` on overflow.
pub(crate) fn byte_length(dtype: Dtype, shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(dtype.size(), |bytes, &size| bytes.checked_mul(size))
}

/// Tensors by name, in the order in which they were added.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StateDict {
    entries: Vec<(String, Tensor)>,
    index: HashMap<String, usize>,
}

impl StateDict {
    /// Adds a tensor, or replaces the one of the same name at its position.
    pub fn insert(&mut self, name: impl Into<String>, tensor: Tensor) {
        let name = name.into();
        if let Some(&at) = self.index.get(&name) {
            self.entries[at].1 = tensor;
        } else {
            self.index.insert(name.clone(), self.entries.len());
            self.entries.push((name, tensor));
        }
    }

    /// The tensor named `name`.
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.index.get(name).map(|&at| &self.entries[at].1)
    }

    /// Names and tensors in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Tensor)> {
        self.entries.iter().map(|(name, tensor)| (name.as_str(), tensor))
    }

    /// Number of tensors.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are no tensors.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

impl FromIterator<(String, Tensor)> for StateDict {
    fn from_iter<I: IntoIterator<Item = (String, Tensor)>>(entries: I) -> Self {
        let mut dict = Self::default();
        for (name, tensor) in entries {
            dict.insert(name, tensor);
        }
        dict
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_converts_to_f32() {
        let cases: [(Dtype, &[u8], f32); 10] = [
            (Dtype::F32, &1.5f32.to_le_bytes(), 1.5),
            (Dtype::F64, &1.5f64.to_le_bytes(), 1.5),
            (Dtype::F16, &f16::from_f32(1.5).to_le_bytes(), 1.5),
            (Dtype::Bf16, &bf16::from_f32(1.5).to_le_bytes(), 1.5),
            (Dtype::I64, &(-3i64).to_le_bytes(), -3.0),
            (Dtype::I32, &(-3i32).to_le_bytes(), -3.0),
            (Dtype::I16, &(-3i16).to_le_bytes(), -3.0),
            (Dtype::I8, &[0xfd], -3.0),
            (Dtype::U8, &[200], 200.0),
            (Dtype::Bool, &[1], 1.0),
        ];
        for (dtype, bytes, expected) in cases {
            let tensor = Tensor::new(dtype, vec![1], bytes.to_vec()).unwrap();
            assert_eq!(tensor.to_f32(), [expected], "{dtype:?}");
        }
    }

    #[test]
    fn lengths_are_checked_without_overflow() {
        assert!(Tensor::new(Dtype::F32, vec![2, 3], vec![0; 23]).is_err());
        assert!(Tensor::new(Dtype::F32, vec![usize::MAX, usize::MAX], vec![]).is_err());
        assert_eq!(Tensor::new(Dtype::F32, vec![0, 5], vec![]).unwrap().to_f32(), Vec::<f32>::new());
    }

    #[test]
    fn a_repeated_name_replaces_in_place() {
        let scalar = |value: f32| Tensor::from_f32(vec![], &[value]).unwrap();
        let mut dict = StateDict::default();
        dict.insert("a", scalar(1.0));
        dict.insert("b", scalar(2.0));
        dict.insert("a", scalar(3.0));
        let found: Vec<_> = dict.iter().map(|(name, tensor)| (name, tensor.to_f32()[0])).collect();
        assert_eq!(found, [("a", 3.0), ("b", 2.0)]);
    }
}
