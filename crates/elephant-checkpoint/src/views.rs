//! Tensors as views of storages: offset, shape and strides, in elements.

use std::{borrow::Cow, collections::HashMap, iter};

use crate::{
    Checkpoint, CheckpointError, Dtype, StateDict, Tensor, interpret::Views, pickle::shortened, tensor::byte_length,
};

/// Largest total size of all views, as a multiple of the file's length: views may repeat elements of their storage
/// (tied weights, `expand`).
const MAX_GROWTH: u64 = 4;

/// Position of a tensor's elements in a storage.
#[derive(Clone, Debug)]
pub(crate) struct View<'a> {
    pub(crate) storage_key: &'a str,
    pub(crate) dtype: Dtype,
    /// Number of elements of the storage according to the pickle.
    pub(crate) storage_elements: usize,
    pub(crate) offset: usize,
    pub(crate) shape: Vec<usize>,
    pub(crate) strides: Vec<usize>,
}

impl View<'_> {
    /// The elements in C order, or `None` if the view extends beyond its storage.
    fn elements(&self, storage: Cow<'_, [u8]>) -> Option<Vec<u8>> {
        let length = byte_length(self.dtype, &self.shape)?;
        if self.offset == 0 && length == storage.len() && self.is_contiguous() {
            return Some(storage.into_owned());
        }
        self.gather(&storage, length)
    }

    fn gather(&self, storage: &[u8], length: usize) -> Option<Vec<u8>> {
        if length == 0 {
            return Some(Vec::new());
        }
        let size = self.dtype.size();
        let end = self.last_element()?.checked_add(1)?.checked_mul(size)?;
        let storage = storage.get(..end)?;
        if self.is_contiguous() {
            return Some(storage[self.offset * size..end].to_vec());
        }
        let mut gathered = Vec::with_capacity(length);
        let mut index = vec![0; self.shape.len()];
        while gathered.len() < length {
            let element = self.offset + iter::zip(&index, &self.strides).map(|(i, stride)| i * stride).sum::<usize>();
            gathered.extend_from_slice(&storage[element * size..][..size]);
            self.advance(&mut index);
        }
        Some(gathered)
    }

    /// Index of the last element of the view, if no size is 0.
    fn last_element(&self) -> Option<usize> {
        iter::zip(&self.shape, &self.strides)
            .try_fold(self.offset, |last, (&size, &stride)| last.checked_add((size - 1).checked_mul(stride)?))
    }

    fn is_contiguous(&self) -> bool {
        let mut expected = Some(1_usize);
        iter::zip(&self.shape, &self.strides).rev().all(|(&size, &stride)| {
            let fits = size == 1 || Some(stride) == expected;
            expected = expected.and_then(|stride| stride.checked_mul(size));
            fits
        })
    }

    /// The next index in C order.
    fn advance(&self, index: &mut [usize]) {
        for (i, &size) in iter::zip(index, &self.shape).rev() {
            *i += 1;
            if *i < size {
                return;
            }
            *i = 0;
        }
    }
}

/// Byte order of storages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ByteOrder {
    Little,
    Big,
}

/// Reads every view's elements. `load` returns the bytes of a view's storage. Each storage is loaded once and dropped
/// after its last view. Names count as bytes of their tensors.
pub(crate) fn materialise<'a>(
    members: Vec<Views<'a>>,
    order: ByteOrder,
    file_length: u64,
    load: impl FnMut(&View<'_>) -> Result<Vec<u8>, CheckpointError>,
) -> Result<Checkpoint, CheckpointError> {
    let mut budget = file_length.saturating_mul(MAX_GROWTH);
    let mut storages = Storages::new(&members, load);
    let mut read = |name: &str, view: View<'a>| {
        let wrong = |reason: &str| CheckpointError::damaged(format!("the tensor {:?} {reason}", shortened(name)));
        if view.shape.len() != view.strides.len() {
            return Err(wrong("has a shape that does not fit its strides"));
        }
        let length = byte_length(view.dtype, &view.shape).and_then(|bytes| bytes.checked_add(name.len()));
        let length = length.map_or(u64::MAX, |bytes| bytes as u64);
        budget = budget.checked_sub(length).ok_or_else(|| wrong("is larger than the file can contain"))?;
        let storage = storages.get(&view)?;
        if Some(storage.len()) != view.storage_elements.checked_mul(view.dtype.size()) {
            return Err(wrong("is in a storage of another size than the file says"));
        }
        let mut bytes = view.elements(storage).ok_or_else(|| wrong("extends beyond its storage"))?;
        if order == ByteOrder::Big {
            bytes.chunks_exact_mut(view.dtype.size()).for_each(<[u8]>::reverse);
        }
        Tensor::new(view.dtype, view.shape, bytes)
    };
    let mut state_dict = |views: Views<'a>| -> Result<StateDict, CheckpointError> {
        views.into_iter().map(|(name, view)| read(name, view).map(|tensor| (name.to_owned(), tensor))).collect()
    };
    Ok(Checkpoint::new(members.into_iter().map(&mut state_dict).collect::<Result<_, _>>()?))
}

/// Loaded storages that are still needed by views.
struct Storages<'a, F> {
    /// Number of remaining views of each storage.
    uses: HashMap<&'a str, usize>,
    loaded: HashMap<&'a str, Vec<u8>>,
    load: F,
}

impl<'a, F: FnMut(&View<'_>) -> Result<Vec<u8>, CheckpointError>> Storages<'a, F> {
    fn new(members: &[Views<'a>], load: F) -> Self {
        let mut uses = HashMap::new();
        for (_, view) in members.iter().flatten() {
            *uses.entry(view.storage_key).or_insert(0) += 1;
        }
        Self { uses, loaded: HashMap::new(), load }
    }

    /// The view's storage; removed from here with its last view.
    fn get(&mut self, view: &View<'a>) -> Result<Cow<'_, [u8]>, CheckpointError> {
        let key = view.storage_key;
        if !self.loaded.contains_key(key) {
            let storage = (self.load)(view)?;
            self.loaded.insert(key, storage);
        }
        if let Some(uses) = self.uses.get_mut(key) {
            *uses -= 1;
            if *uses > 0 {
                return Ok(Cow::Borrowed(&self.loaded[key]));
            }
        }
        Ok(Cow::Owned(self.loaded.remove(key).unwrap_or_default()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn view(offset: usize, shape: &[usize], strides: &[usize]) -> View<'static> {
        View {
            storage_key: "0",
            dtype: Dtype::U8,
            storage_elements: 24,
            offset,
            shape: shape.to_vec(),
            strides: strides.to_vec(),
        }
    }

    #[test]
    fn slices_transposes_and_repeats() {
        let storage: Vec<u8> = (0..24).collect();
        let gather =
            |offset, shape: &[usize], strides: &[usize]| view(offset, shape, strides).elements(Cow::Borrowed(&storage));
        assert_eq!(gather(4, &[2, 2], &[2, 1]).unwrap(), [4, 5, 6, 7]);
        assert_eq!(gather(0, &[2, 3], &[1, 2]).unwrap(), [0, 2, 4, 1, 3, 5]);
        assert_eq!(gather(23, &[3], &[0]).unwrap(), [23, 23, 23]);
        assert_eq!(gather(9, &[], &[]).unwrap(), [9]);
        assert_eq!(gather(900, &[0, 3], &[3, 1]).unwrap(), Vec::<u8>::new());
        assert_eq!(gather(0, &[usize::MAX, 2, 0], &[0, 0, 1]), None, "the number of elements overflows");
        assert_eq!(gather(0, &[0, usize::MAX, 2], &[0, 2, 1]), Some(Vec::new()));
        assert_eq!(gather(23, &[2], &[1]), None);
        assert_eq!(gather(1, &[usize::MAX], &[usize::MAX]), None);
    }

    #[test]
    fn tiny_files_cannot_claim_large_tensors() {
        let views = vec![vec![("bomb", view(0, &[1 << 40], &[0]))]];
        let error = materialise(views, ByteOrder::Little, 1000, |_| panic!("nothing is loaded")).unwrap_err();
        assert!(error.to_string().contains("larger than the file"), "{error}");
    }

    #[test]
    fn big_endian_elements_are_swapped() {
        let wide = View { dtype: Dtype::I16, storage_elements: 2, ..view(0, &[2], &[1]) };
        let read = materialise(vec![vec![("a", wide)]], ByteOrder::Big, 100, |_| Ok(vec![0, 1, 2, 3])).unwrap();
        assert_eq!(read.members[0].get("a").unwrap().to_f32(), [1.0, 515.0]);
    }

    proptest! {
        #[test]
        fn any_view_gives_its_elements_or_nothing(
            offset in 0..30usize,
            axes in proptest::collection::vec((0..6usize, 0..12usize), 0..4),
        ) {
            let storage: Vec<u8> = (0..24).collect();
            let (shape, strides): (Vec<_>, Vec<_>) = axes.into_iter().unzip();
            let view = view(offset, &shape, &strides);
            if let Some(gathered) = view.elements(Cow::Borrowed(&storage)) {
                prop_assert_eq!(gathered.len(), shape.iter().product::<usize>());
                if let (Some(&first), Some(&last)) = (gathered.first(), gathered.last()) {
                    prop_assert_eq!(usize::from(first), offset);
                    prop_assert_eq!(Some(usize::from(last)), view.last_element());
                }
            }
        }
    }
}
