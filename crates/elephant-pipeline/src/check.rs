//! `dataset/check`: whether a folder contains a dataset of the size that the client expects.
//!
//! The messages are the original server's, word for word: the client shows them to its user (docs/protocol.md,
//! "POST /dataset/check").

use std::path::Path;

use elephant_volume::{ArrayStore, DatasetShape, Store, VolumeError};

/// The answer when nothing is wrong.
pub const READY: &str = "ready";

/// The first problem of the dataset in `folder`, or [`READY`]. `shape` is (t, z, y, x) or, in 2-D, (t, y, x). The folder
/// appears in the message as `shown_as`.
///
/// # Errors
/// When a store is there but cannot be read: the client offers to make the dataset anew when there is a problem, and the
/// labels would be lost.
pub fn check_dataset(folder: &Path, shown_as: &str, shape: &[usize]) -> Result<String, VolumeError> {
    match first_problem(folder, shown_as, shape) {
        Ok(()) => Ok(READY.to_owned()),
        Err(Found::Problem(message)) => Ok(message),
        Err(Found::Unreadable(error)) => Err(error),
    }
}

/// What keeps a dataset from being ready.
enum Found {
    /// Making the dataset anew solves it.
    Problem(String),
    /// It cannot be read, so it may be complete.
    Unreadable(VolumeError),
}

fn first_problem(folder: &Path, shown_as: &str, shape: &[usize]) -> Result<(), Found> {
    let images = open(folder, shown_as, Store::Images)?;
    check_shape(&images, shape)?;
    // An array of images with other axes than these cannot have passed as a movie of the expected shape.
    let Some(expected) = DatasetShape::from_images(shape) else {
        let found = tuple(shape);
        return problem(format!("Invalid shape for imgs.zarr\nExpected: (t, z, y, x) Found: {found}"));
    };
    for store in Store::ALL.into_iter().filter(|&store| store != Store::Images) {
        let array = open(folder, shown_as, store)?;
        check_shape(&array, &expected.of(store))?;
        if Some(array.data_type()) != store.data_type() {
            return problem(format!("Invalid dtype for {}", store.folder()));
        }
    }
    Ok(())
}

fn problem<T>(message: String) -> Result<T, Found> {
    Err(Found::Problem(message))
}

fn open(folder: &Path, shown_as: &str, store: Store) -> Result<ArrayStore, Found> {
    let name = store.folder();
    ArrayStore::open(&folder.join(name)).map_err(|error| match error {
        VolumeError::Fs(_) => Found::Unreadable(error),
        _ => Found::Problem(format!("{shown_as}/{name} is not found or broken.")),
    })
}

fn check_shape(array: &ArrayStore, expected: &[usize]) -> Result<(), Found> {
    if array.shape() == expected {
        return Ok(());
    }
    let (expected, found) = (tuple(expected), tuple(array.shape()));
    problem(format!("Invalid shape for {}\nExpected: {expected} Found: {found}", array.name()))
}

/// Numbers as Python prints a tuple.
pub(crate) fn tuple(numbers: &[usize]) -> String {
    match numbers {
        [one] => format!("({one},)"),
        _ => format!("({})", numbers.iter().map(usize::to_string).collect::<Vec<_>>().join(", ")),
    }
}
