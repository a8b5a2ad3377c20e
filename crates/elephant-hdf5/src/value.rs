//! Values of attributes and datasets, with their type and shape as stored.

use hdf5_metno::{
    Container,
    datatype::ByteOrder,
    types::{IntSize, TypeDescriptor},
};
use ndarray::{ArrayD, IxDyn};

use crate::{
    NumberKind, NumberType, StoredNumbers,
    file::{OpenFile, brief},
    text,
};

/// The numbers or texts of an attribute or a dataset: an array in C order, without axes for a single value.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "each variant is named by its type")]
pub enum Value {
    /// An enumeration of one byte with the members `FALSE` = 0 and `TRUE` = 1, as h5py writes it. All but 0 is true.
    Bool(ArrayD<bool>),
    U8(ArrayD<u8>),
    U16(ArrayD<u16>),
    U32(ArrayD<u32>),
    U64(ArrayD<u64>),
    I8(ArrayD<i8>),
    I16(ArrayD<i16>),
    I32(ArrayD<i32>),
    I64(ArrayD<i64>),
    F32(ArrayD<f32>),
    F64(ArrayD<f64>),
    /// Texts of fixed length, without the NULs that fill them up, or of variable length.
    Text(ArrayD<String>),
}

/// Evaluates `$expression` with `$array` being the array of any variant.
macro_rules! for_any {
    ($value:expr, $array:ident => $expression:expr) => {
        match $value {
            Value::Bool($array) => $expression,
            Value::U8($array) => $expression,
            Value::U16($array) => $expression,
            Value::U32($array) => $expression,
            Value::U64($array) => $expression,
            Value::I8($array) => $expression,
            Value::I16($array) => $expression,
            Value::I32($array) => $expression,
            Value::I64($array) => $expression,
            Value::F32($array) => $expression,
            Value::F64($array) => $expression,
            Value::Text($array) => $expression,
        }
    };
}

impl Value {
    /// Length of each axis, slowest axis first; none for a single value.
    pub fn shape(&self) -> &[usize] {
        for_any!(self, array => array.shape())
    }

    /// The text, when there is exactly one.
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Text(texts) if texts.len() == 1 => texts.first().map(String::as_str),
            _ => None,
        }
    }

    /// The truth value, when there is exactly one.
    pub fn bool(&self) -> Option<bool> {
        match self {
            Self::Bool(values) if values.len() == 1 => values.first().copied(),
            _ => None,
        }
    }

    /// The values as whole numbers; `None` for texts and floating-point numbers, and when one is above `i64::MAX`.
    pub fn integers(&self) -> Option<ArrayD<i64>> {
        Some(match self {
            Self::Bool(values) => values.mapv(i64::from),
            Self::U8(values) => values.mapv(i64::from),
            Self::U16(values) => values.mapv(i64::from),
            Self::U32(values) => values.mapv(i64::from),
            Self::U64(values) if values.iter().all(|&value| i64::try_from(value).is_ok()) => {
                values.mapv(|value| value as i64)
            }
            Self::I8(values) => values.mapv(i64::from),
            Self::I16(values) => values.mapv(i64::from),
            Self::I32(values) => values.mapv(i64::from),
            Self::I64(values) => values.clone(),
            Self::U64(_) | Self::F32(_) | Self::F64(_) | Self::Text(_) => return None,
        })
    }

    /// The values as floating-point numbers, rounded where an integer has more than 53 bits; `None` for texts.
    pub fn floats(&self) -> Option<ArrayD<f64>> {
        Some(match self {
            Self::U64(values) => values.mapv(|value| value as f64),
            Self::F32(values) => values.mapv(f64::from),
            Self::F64(values) => values.clone(),
            Self::Text(_) => return None,
            integers => integers.integers()?.mapv(|value| value as f64),
        })
    }
}

/// How the values of an attribute or a dataset are stored.
#[derive(Clone, Copy, Debug)]
pub(crate) enum StoredType {
    Bool,
    Number(NumberType),
    /// Texts of so many bytes.
    FixedText(usize),
    VariableText,
}

impl StoredType {
    /// The type of a dataset or an attribute; the error says what else it holds.
    pub fn read(container: &Container) -> Result<Self, String> {
        let dtype = container.dtype().map_err(|error| brief(&error))?;
        let descriptor = dtype.to_descriptor().map_err(|error| format!("its values have an unusable type: {error}"))?;
        let size = dtype.size();
        let number = |kind| {
            let is_big_endian = match dtype.byte_order() {
                ByteOrder::BigEndian => true,
                ByteOrder::LittleEndian => false,
                _ if size == 1 => false,
                other => return Err(format!("its values have the byte order {other:?}; save them as little endian")),
            };
            Ok(Self::Number(NumberType { kind, size, is_big_endian }))
        };
        match descriptor {
            TypeDescriptor::Boolean => Ok(Self::Bool),
            TypeDescriptor::Unsigned(_) => number(NumberKind::Unsigned),
            TypeDescriptor::Integer(_) => number(NumberKind::Signed),
            TypeDescriptor::Enum(members) => {
                let kind = if members.signed { NumberKind::Signed } else { NumberKind::Unsigned };
                if size == members.size as usize { number(kind) } else { Err("its values are damaged".to_owned()) }
            }
            TypeDescriptor::Float(_) if matches!(size, 4 | 8) => number(NumberKind::Float),
            TypeDescriptor::FixedAscii(size) | TypeDescriptor::FixedUnicode(size) => Ok(Self::FixedText(size)),
            TypeDescriptor::VarLenAscii | TypeDescriptor::VarLenUnicode => Ok(Self::VariableText),
            other => Err(format!("its values are {other}; only numbers, truth values and texts are read")),
        }
    }

    /// Bytes of one value in the file.
    pub fn size(self) -> usize {
        match self {
            Self::Bool => IntSize::U1 as usize,
            Self::Number(number_type) => number_type.size,
            Self::FixedText(size) => size,
            Self::VariableText => text::REFERENCE_BYTES,
        }
    }

    pub fn is_variable_text(self) -> bool {
        matches!(self, Self::VariableText)
    }

    /// The number type, when these are numbers.
    pub fn number_type(self) -> Option<NumberType> {
        if let Self::Number(number_type) = self { Some(number_type) } else { None }
    }

    /// The values of `shape` that are stored as `bytes`, one after the other.
    pub fn decode(self, file: &OpenFile, shape: &[usize], bytes: &[u8]) -> Result<Value, String> {
        match self {
            Self::Bool => Ok(Value::Bool(shaped(shape, bytes.iter().map(|&byte| byte != 0).collect())?)),
            Self::FixedText(size) => Ok(Value::Text(shaped(shape, text::fixed(bytes, size)?)?)),
            Self::VariableText => Ok(Value::Text(shaped(shape, text::variable(file, bytes)?)?)),
            Self::Number(number_type) => numbers(number_type, shape, bytes),
        }
    }
}

fn numbers(number_type: NumberType, shape: &[usize], bytes: &[u8]) -> Result<Value, String> {
    fn decoded<T: Clone + Default, const N: usize>(
        stored: StoredNumbers<'_>,
        shape: &[usize],
        from_bytes: fn([u8; N]) -> T,
    ) -> Result<ArrayD<T>, String> {
        let mut values = vec![T::default(); stored.bytes.len() / N];
        stored.decode(0, &mut values, from_bytes);
        shaped(shape, values)
    }
    let stored = StoredNumbers { number_type, bytes, is_shuffled: false };
    Ok(match (number_type.kind, number_type.size) {
        (NumberKind::Unsigned, 1) => Value::U8(decoded(stored, shape, u8::from_le_bytes)?),
        (NumberKind::Unsigned, 2) => Value::U16(decoded(stored, shape, u16::from_le_bytes)?),
        (NumberKind::Unsigned, 4) => Value::U32(decoded(stored, shape, u32::from_le_bytes)?),
        (NumberKind::Unsigned, _) => Value::U64(decoded(stored, shape, u64::from_le_bytes)?),
        (NumberKind::Signed, 1) => Value::I8(decoded(stored, shape, i8::from_le_bytes)?),
        (NumberKind::Signed, 2) => Value::I16(decoded(stored, shape, i16::from_le_bytes)?),
        (NumberKind::Signed, 4) => Value::I32(decoded(stored, shape, i32::from_le_bytes)?),
        (NumberKind::Signed, _) => Value::I64(decoded(stored, shape, i64::from_le_bytes)?),
        (NumberKind::Float, 4) => Value::F32(decoded(stored, shape, f32::from_le_bytes)?),
        (NumberKind::Float, _) => Value::F64(decoded(stored, shape, f64::from_le_bytes)?),
    })
}

fn shaped<T>(shape: &[usize], values: Vec<T>) -> Result<ArrayD<T>, String> {
    ArrayD::from_shape_vec(IxDyn(shape), values).map_err(|error| error.to_string())
}
