//! The boxes that a virtual dataset is made of, listed without opening their files.

#![allow(unsafe_code, reason = "the safe wrapper of the HDF5 library does not read selections as h5py writes them")]

use std::{ffi::c_char, ops::Range};

use hdf5_metno::dataset::DatasetCreate;
use hdf5_metno_sys::{h5::hsize_t, h5i::hid_t, h5p, h5s};

/// Longest name of a file or a dataset that is read, in bytes.
const MAX_NAME: usize = 8192;
/// Largest number of axes of a dataset (`H5S_MAX_RANK`).
const MAX_AXES: usize = 32;

/// A box of a virtual dataset.
#[derive(Debug)]
pub(crate) struct Mapping {
    /// File of the source, as written; `.` is the file of the virtual dataset.
    pub file: String,
    /// Path of the source in its file.
    pub path: String,
    /// The box in the virtual dataset, a range for each axis.
    pub place: Vec<Range<usize>>,
    /// The box in the source, a range for each axis; `None` for all of it.
    pub from: Option<Vec<Range<usize>>>,
}

/// The shape of a virtual dataset and its boxes; `None` when it has no boxes, more than `most`, or one that is not a box.
pub(crate) fn mappings(properties: &DatasetCreate, most: usize) -> Option<(Vec<usize>, Vec<Mapping>)> {
    let list = properties.id();
    hdf5_metno::sync::sync(|| {
        let mut count = 0;
        // SAFETY: the property list is alive, borrowed by the caller; `count` is a valid place for the answer.
        if unsafe { h5p::H5Pget_virtual_count(list, &raw mut count) } < 0 || count > most {
            return None;
        }
        let mut shape = None;
        let mut mappings = Vec::new();
        for index in 0..count {
            // SAFETY: as above, and the index is below the count.
            let (virtual_space, source_space) =
                unsafe { (h5p::H5Pget_virtual_vspace(list, index), h5p::H5Pget_virtual_srcspace(list, index)) };
            let (virtual_space, source_space) = (Space(virtual_space), Space(source_space));
            shape = shape.or_else(|| virtual_space.shape());
            mappings.push(Mapping {
                // SAFETY: the functions fill a buffer of the given length with a text that ends with a NUL.
                file: name(|text, length| unsafe { h5p::H5Pget_virtual_filename(list, index, text, length) })?,
                path: name(|text, length| unsafe { h5p::H5Pget_virtual_dsetname(list, index, text, length) })?,
                place: virtual_space.selected_box()?,
                from: if source_space.is_all() { None } else { Some(source_space.selected_box()?) },
            });
        }
        Some((shape?, mappings))
    })
}

/// A text that the library copies into a buffer.
fn name(copy: impl Fn(*mut c_char, usize) -> isize) -> Option<String> {
    let mut bytes = vec![0_u8; MAX_NAME];
    let length = usize::try_from(copy(bytes.as_mut_ptr().cast(), MAX_NAME)).ok().filter(|&length| length < MAX_NAME)?;
    bytes.truncate(length);
    String::from_utf8(bytes).ok()
}

/// A dataspace of the library, closed at the end.
struct Space(hid_t);

impl Drop for Space {
    fn drop(&mut self) {
        if self.0 >= 0 {
            // SAFETY: the handle is ours and is not used again.
            unsafe { h5s::H5Sclose(self.0) };
        }
    }
}

impl Space {
    fn axes(&self) -> Option<usize> {
        // SAFETY: an invalid handle gives a negative answer.
        let axes = unsafe { h5s::H5Sget_simple_extent_ndims(self.0) };
        usize::try_from(axes).ok().filter(|axes| (1..=MAX_AXES).contains(axes))
    }

    fn shape(&self) -> Option<Vec<usize>> {
        let mut shape: Vec<hsize_t> = vec![0; self.axes()?];
        // SAFETY: the vector has a place for each axis; no maximum is asked for.
        let got = unsafe { h5s::H5Sget_simple_extent_dims(self.0, shape.as_mut_ptr(), std::ptr::null_mut()) };
        if got < 0 { None } else { shape.into_iter().map(|edge| edge.try_into().ok()).collect() }
    }

    /// Whether everything is selected: of a source, the size is then unknown.
    fn is_all(&self) -> bool {
        // SAFETY: an invalid handle gives another answer.
        unsafe { h5s::H5Sget_select_type(self.0) == h5s::H5S_sel_type::H5S_SEL_ALL }
    }

    /// The selection as a range for each axis, when it is a box: all points within its bounds.
    fn selected_box(&self) -> Option<Vec<Range<usize>>> {
        let axes = self.axes()?;
        let (mut first, mut last): (Vec<hsize_t>, Vec<hsize_t>) = (vec![0; axes], vec![0; axes]);
        // SAFETY: the vectors have a place for each axis.
        if unsafe { h5s::H5Sget_select_bounds(self.0, first.as_mut_ptr(), last.as_mut_ptr()) } < 0 {
            return None;
        }
        // SAFETY: an invalid handle gives a negative answer.
        let points = u64::try_from(unsafe { h5s::H5Sget_select_npoints(self.0) }).ok()?;
        let mut volume = 1_u64;
        let mut ranges = Vec::with_capacity(axes);
        for (first, last) in first.into_iter().zip(last) {
            let end = last.checked_add(1).filter(|&end| end > first)?;
            volume = volume.checked_mul(end - first)?;
            ranges.push(first.try_into().ok()?..end.try_into().ok()?);
        }
        (volume == points).then_some(ranges)
    }
}
