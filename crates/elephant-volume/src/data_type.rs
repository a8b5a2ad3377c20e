//! The data types of the seven stores.

use bytemuck::Pod;
use half::f16;

/// Type of an array's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataType {
    /// Unsigned byte.
    U8,
    /// Unsigned 16 bit.
    U16,
    /// IEEE half precision.
    F16,
    /// IEEE single precision.
    F32,
    /// Sixteen bytes of text, padded with NUL.
    Bytes16,
}

impl DataType {
    /// All types.
    pub(crate) const ALL: [Self; 5] = [Self::U8, Self::U16, Self::F16, Self::F32, Self::Bytes16];

    /// The type as Zarr v2 writes it, little endian.
    pub(crate) fn zarr_name(self) -> &'static str {
        match self {
            Self::U8 => "|u1",
            Self::U16 => "<u2",
            Self::F16 => "<f2",
            Self::F32 => "<f4",
            Self::Bytes16 => "|S16",
        }
    }

    /// The type of a Zarr v2 name.
    pub(crate) fn from_zarr_name(name: &str) -> Option<Self> {
        // A byte has no byte order; some writers give it one.
        let name = if name == "<u1" { "|u1" } else { name };
        Self::ALL.into_iter().find(|data_type| data_type.zarr_name() == name)
    }

    /// Bytes of one element.
    pub fn size(self) -> usize {
        match self {
            Self::U8 => 1,
            Self::U16 | Self::F16 => 2,
            Self::F32 => 4,
            Self::Bytes16 => 16,
        }
    }
}

/// A number or text that arrays hold.
pub trait Element: Pod + Send + Sync {
    /// Its data type.
    const TYPE: DataType;

    /// The element nearest to `value`; the empty text for texts.
    fn from_f64(value: f64) -> Self;
}

macro_rules! element {
    ($type:ty, $data_type:ident, $convert:expr) => {
        impl Element for $type {
            const TYPE: DataType = DataType::$data_type;
            fn from_f64(value: f64) -> Self {
                $convert(value)
            }
        }
    };
}

element!(u8, U8, |value| value as u8);
element!(u16, U16, |value| value as u16);
element!(f16, F16, f16::from_f64);
element!(f32, F32, |value| value as f32);
// Texts have no fill value but the empty one.
element!([u8; 16], Bytes16, |_| [0; 16]);
