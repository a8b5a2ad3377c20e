//! Attributes of groups and datasets.

use hdf5_metno::{Attribute, Location};
use hdf5_metno_sys::h5a::H5Aread;

use crate::{
    Value,
    file::{OpenFile, brief},
    header,
    value::StoredType,
};

/// Largest attribute that is read, in bytes; those in an object's header have 64 KiB at most.
const MAX_BYTES: usize = 16 << 20;

/// The names of the attributes of an object, sorted.
pub(crate) fn names(object: &Location) -> Result<Vec<String>, String> {
    object.attr_names().map_err(|error| brief(&error))
}

/// The attribute `name` of the object whose header is at `address`; `None` when there is no such attribute.
pub(crate) fn read(file: &OpenFile, object: &Location, address: u64, name: &str) -> Result<Option<Value>, String> {
    if !names(object)?.iter().any(|found| found == name) {
        return Ok(None);
    }
    let fail = |detail: String| format!("its attribute {name} cannot be read: {detail}");
    let attribute = object.attr(name).map_err(|error| fail(brief(&error)))?;
    let stored = StoredType::read(&attribute).map_err(fail)?;
    let space = attribute.space().map_err(|error| fail(brief(&error)))?;
    let shape = if space.is_null() { vec![0] } else { space.shape() };
    let length = shape.iter().try_fold(stored.size(), |length: usize, &edge| length.checked_mul(edge));
    let length = length.filter(|&length| length <= MAX_BYTES).ok_or_else(|| fail("it is too large".to_owned()))?;
    let bytes = if stored.is_variable_text() {
        // The library goes for ever through a damaged heap, so only the references are taken, and followed by ourselves.
        header::attribute(file, address, name).filter(|bytes| bytes.len() >= length).ok_or_else(|| {
            fail("it is not in the header of its object; write it as a text of fixed length".to_owned())
        })?
    } else {
        raw(&attribute, length).ok_or_else(|| fail("it is damaged".to_owned()))?
    };
    stored.decode(file, &shape, &bytes[..length]).map(Some).map_err(fail)
}

/// The `length` bytes of an attribute as they are stored. It must not hold values of variable length, which would come as
/// pointers.
#[allow(
    unsafe_code,
    reason = "the safe wrapper of the HDF5 library converts values to types that are fixed beforehand"
)]
fn raw(attribute: &Attribute, length: usize) -> Option<Vec<u8>> {
    let stored_type = attribute.dtype().ok()?;
    if attribute.storage_size() != length as u64 {
        return None;
    }
    let mut bytes = vec![0_u8; length];
    hdf5_metno::sync::sync(|| {
        // SAFETY: both handles are alive. The attribute's own type is asked for, so that nothing is converted and the
        // library writes the attribute's storage size, which is the length of the buffer.
        let read = unsafe { H5Aread(attribute.id(), stored_type.id(), bytes.as_mut_ptr().cast()) };
        (read >= 0).then_some(())
    })?;
    Some(bytes)
}
