//! Values read through the HDF5 library, as the type that the file says: it would clip them on the way to another type.

use hdf5_metno::{
    Dataset, Result,
    dataset::DatasetCreate,
    types::{FloatSize, H5Type, IntSize, TypeDescriptor},
};

/// `$function($argument, T::to_le_bytes)` for the type T of a descriptor.
macro_rules! as_stored {
    ($descriptor:expr, $function:ident($argument:expr), $otherwise:expr) => {
        match $descriptor {
            TypeDescriptor::Unsigned(IntSize::U1) => $function($argument, u8::to_le_bytes),
            TypeDescriptor::Unsigned(IntSize::U2) => $function($argument, u16::to_le_bytes),
            TypeDescriptor::Unsigned(IntSize::U4) => $function($argument, u32::to_le_bytes),
            TypeDescriptor::Unsigned(IntSize::U8) => $function($argument, u64::to_le_bytes),
            TypeDescriptor::Integer(IntSize::U1) => $function($argument, i8::to_le_bytes),
            TypeDescriptor::Integer(IntSize::U2) => $function($argument, i16::to_le_bytes),
            TypeDescriptor::Integer(IntSize::U4) => $function($argument, i32::to_le_bytes),
            TypeDescriptor::Integer(IntSize::U8) => $function($argument, i64::to_le_bytes),
            TypeDescriptor::Float(FloatSize::U4) => $function($argument, f32::to_le_bytes),
            TypeDescriptor::Float(FloatSize::U8) => $function($argument, f64::to_le_bytes),
            _ => $otherwise,
        }
    };
}

/// All values of a dataset, as little-endian bytes.
pub(crate) fn read_all(dataset: &Dataset) -> Result<Vec<u8>> {
    fn read<T: H5Type, const N: usize>(dataset: &Dataset, to_bytes: fn(T) -> [u8; N]) -> Result<Vec<u8>> {
        Ok(dataset.read_raw::<T>()?.into_iter().flat_map(to_bytes).collect())
    }
    as_stored!(dataset.dtype()?.to_descriptor()?, read(dataset), Err("the values are no numbers".into()))
}

/// The value of what was never written, as little-endian bytes; zeros when there is none.
pub(crate) fn fill_value(dataset: &Dataset, properties: &DatasetCreate) -> Result<Vec<u8>> {
    fn value<T: H5Type, const N: usize>(
        properties: &DatasetCreate,
        to_bytes: fn(T) -> [u8; N],
    ) -> Result<Option<Vec<u8>>> {
        Ok(properties.get_fill_value_as::<T>()?.map(|value| to_bytes(value).to_vec()))
    }
    let dtype = dataset.dtype()?;
    let stored = as_stored!(dtype.to_descriptor()?, value(properties), Ok(None))?;
    Ok(stored.unwrap_or_else(|| vec![0; dtype.size()]))
}
