//! Reading links without following them.
//!
//! The HDF5 library follows soft and external links by itself, to any file on the machine. Movies come from outside, so
//! links are read here and followed by [`crate::file`], which keeps them inside the movie's folder.

use std::ffi::CString;

use hdf5_metno::Group;
use hdf5_metno_sys::{h5i::hid_t, h5l, h5p::H5P_DEFAULT};

/// What a name in a group stands for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Link {
    /// An object of the same file, by the address of its header.
    Hard(u64),
    /// A path in the same file.
    Soft(String),
    /// A path in another file.
    External { file: String, path: String },
}

/// Longest link value that is read, in bytes; paths are shorter.
const MAX_VALUE: usize = 8192;

/// Looks up `name` in `group`. `None` when there is no such name.
pub(crate) fn read_link(group: &Group, name: &str) -> Result<Option<Link>, String> {
    let c_name = CString::new(name).map_err(|_| "the name holds a NUL".to_owned())?;
    let Some((kind, value)) = raw_link(group.id(), &c_name)? else { return Ok(None) };
    match kind {
        h5l::H5L_TYPE_HARD => {
            let address = value.first_chunk().ok_or("its link is damaged")?;
            Ok(Some(Link::Hard(u64::from_le_bytes(*address))))
        }
        h5l::H5L_TYPE_SOFT => text_until_nul(&value).map(|(path, _)| Some(Link::Soft(path))),
        h5l::H5L_TYPE_EXTERNAL => {
            // One byte of version and flags, then file name and path, each ended by a NUL (format spec IV.A.2.g).
            let (file, rest) = text_until_nul(value.get(1..).unwrap_or_default())?;
            let (path, _) = text_until_nul(rest)?;
            Ok(Some(Link::External { file, path }))
        }
        _ => Err("it is a link of an unknown kind".to_owned()),
    }
}

fn text_until_nul(bytes: &[u8]) -> Result<(String, &[u8]), String> {
    let end = bytes.iter().position(|&byte| byte == 0).ok_or("its link is damaged")?;
    let text = std::str::from_utf8(&bytes[..end]).map_err(|_| "its link is not UTF-8")?;
    Ok((text.to_owned(), &bytes[end + 1..]))
}

/// The kind of a link and its value; of a hard one, the address.
#[allow(unsafe_code, reason = "the safe wrapper of the HDF5 library has no call that reads a link's value")]
fn raw_link(group: hid_t, name: &CString) -> Result<Option<(h5l::H5L_type_t, Vec<u8>)>, String> {
    hdf5_metno::sync::sync(|| {
        // SAFETY: the group's handle is alive, borrowed by the caller, and the name ends with a NUL.
        let exists = unsafe { h5l::H5Lexists(group, name.as_ptr(), H5P_DEFAULT) };
        if exists < 0 {
            return Err("the group is damaged".to_owned());
        }
        if exists == 0 {
            return Ok(None);
        }
        let mut info = h5l::H5L_info2_t::default();
        // SAFETY: as above; `info` is a valid place for the answer.
        if unsafe { h5l::H5Lget_info2(group, name.as_ptr(), &raw mut info, H5P_DEFAULT) } < 0 {
            return Err("its link is damaged".to_owned());
        }
        if info.type_ == h5l::H5L_TYPE_HARD {
            // SAFETY: a hard link has a token, 16 bytes that begin with the address in little endian.
            let token = unsafe { *info.u.token().cast::<[u8; 8]>() };
            return Ok(Some((info.type_, token.to_vec())));
        }
        // One byte more than the library may fill, so that the value always ends with a NUL.
        let mut value = vec![0_u8; MAX_VALUE + 1];
        // SAFETY: the buffer holds at least MAX_VALUE bytes, and the library writes no more than that.
        if unsafe { h5l::H5Lget_val(group, name.as_ptr(), value.as_mut_ptr().cast(), MAX_VALUE, H5P_DEFAULT) } < 0 {
            return Err("its link is damaged".to_owned());
        }
        Ok(Some((info.type_, value)))
    })
}
