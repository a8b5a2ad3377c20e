//! A box of an array, cut along the borders of its chunks.

use ndarray::{ArrayBase, ArrayViewD, ArrayViewMutD, Axis, IxDyn, RawData, Slice, Zip};

/// The part of a box that lies in one chunk.
pub(crate) struct Tile<S: RawData> {
    /// Place of the chunk in the grid of chunks.
    pub chunk: Vec<usize>,
    /// Where the part begins inside the chunk.
    pub offset: Vec<usize>,
    /// The elements.
    pub part: ArrayBase<S, IxDyn>,
}

/// Cuts the view of a box that begins at `start`. `split` is `split_at` of the view's type.
pub(crate) fn tiles<S: RawData>(
    view: ArrayBase<S, IxDyn>,
    start: &[usize],
    chunks: &[usize],
    split: impl Fn(ArrayBase<S, IxDyn>, Axis, usize) -> (ArrayBase<S, IxDyn>, ArrayBase<S, IxDyn>),
) -> Vec<Tile<S>> {
    let mut tiles = vec![Tile { chunk: Vec::new(), offset: Vec::new(), part: view }];
    for (axis, (&start, &edge)) in start.iter().zip(chunks).enumerate() {
        let mut cut = Vec::new();
        for Tile { chunk, offset, part } in tiles {
            let (mut rest, mut at) = (part, start);
            while rest.len_of(Axis(axis)) > 0 {
                let index = at / edge;
                let length = ((index + 1) * edge - at).min(rest.len_of(Axis(axis)));
                let (part, after) = split(rest, Axis(axis), length);
                let chunk = chunk.iter().copied().chain([index]).collect();
                let offset = offset.iter().copied().chain([at - index * edge]).collect();
                cut.push(Tile { chunk, offset, part });
                (rest, at) = (after, at + length);
            }
        }
        tiles = cut;
    }
    tiles
}

impl<S: RawData> Tile<S> {
    /// Whether the part holds all of the chunk that is inside an array of this shape.
    pub fn covers(&self, shape: &[usize], chunks: &[usize]) -> bool {
        (0..shape.len()).all(|axis| {
            let inside = chunks[axis].min(shape[axis] - self.chunk[axis] * chunks[axis]);
            self.offset[axis] == 0 && self.part.shape()[axis] == inside
        })
    }

    /// The part of a chunk's elements, in C order, where this tile belongs.
    pub fn window<'a, T>(&self, elements: &'a [T], chunks: &[usize]) -> ArrayViewD<'a, T> {
        let mut view = ArrayViewD::from_shape(chunks, elements).expect("a chunk's buffer has the chunk's size");
        for (axis, (&offset, &length)) in self.offset.iter().zip(self.part.shape()).enumerate() {
            view.slice_axis_inplace(Axis(axis), Slice::from(offset..offset + length));
        }
        view
    }

    /// As [`window`](Self::window), for writing.
    pub fn window_mut<'a, T>(&self, elements: &'a mut [T], chunks: &[usize]) -> ArrayViewMutD<'a, T> {
        let mut view = ArrayViewMutD::from_shape(chunks, elements).expect("a chunk's buffer has the chunk's size");
        for (axis, (&offset, &length)) in self.offset.iter().zip(self.part.shape()).enumerate() {
            view.slice_axis_inplace(Axis(axis), Slice::from(offset..offset + length));
        }
        view
    }
}

/// Sets every element of `out` to the converted one of `from`, which has the same shape.
pub(crate) fn convert_into<T: Copy, U>(from: ArrayViewD<'_, T>, out: ArrayViewMutD<'_, U>, convert: &impl Fn(T) -> U) {
    let (mut from, mut out) = (from, out);
    // Axes of one element would make an inner loop of one element.
    for axis in (0..out.ndim()).rev().map(Axis) {
        if out.len_of(axis) == 1 {
            from = from.index_axis_move(axis, 0);
            out = out.index_axis_move(axis, 0);
        }
    }
    match (from.as_slice(), out.as_slice_mut()) {
        (Some(from), Some(out)) => out.iter_mut().zip(from).for_each(|(out, &value)| *out = convert(value)),
        _ => Zip::from(&mut out).and(&from).for_each(|out, &value| *out = convert(value)),
    }
}
