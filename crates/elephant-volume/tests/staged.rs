//! Boxes that are written aside and put into an array at once.

#![allow(clippy::disallowed_methods)]

use std::{fs, path::Path};

use elephant_volume::{ArrayStore, DataType, StagedBox};
use ndarray::{Array2, ArrayD, IxDyn, s};
use proptest::prelude::*;

fn array(folder: &Path) -> ArrayStore {
    let array = ArrayStore::create(&folder.join("a.zarr"), &[7, 10], &[2, 4], DataType::U8).unwrap();
    array.write(&[0, 0], ArrayD::from_elem(IxDyn(&[7, 10]), 9_u8).view()).unwrap();
    array
}

fn read(array: &ArrayStore) -> Array2<u8> {
    let mut all = ArrayD::from_elem(IxDyn(array.shape()), 99);
    array.read(&[0, 0], all.view_mut()).unwrap();
    all.into_dimensionality().unwrap()
}

fn staging(folder: &Path) -> tempfile::TempDir {
    tempfile::tempdir_in(folder).unwrap()
}

#[test]
fn what_is_not_published_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let array = array(folder.path());
    let staged = StagedBox::new(&array, &[0, 0], &[7, 10], staging(folder.path())).unwrap();
    staged.write_as(&[0, 0], ArrayD::from_elem(IxDyn(&[3, 10]), 1_u8).view(), |value| value).unwrap();
    assert!(read(&array).iter().all(|&value| value == 9));
    drop(staged);
    assert!(read(&array).iter().all(|&value| value == 9));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "the staging folder is gone");
    assert!(StagedBox::new(&array, &[0, 1], &[7, 10], staging(folder.path())).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn the_box_and_nothing_else_changes(
        start in [0_usize..7, 0_usize..10],
        end in [0_usize..7, 0_usize..10],
        rows_at_once in 1_usize..4,
    ) {
        let folder = tempfile::tempdir().unwrap();
        let array = array(folder.path());
        let shape: [usize; 2] = std::array::from_fn(|axis| end[axis].saturating_sub(start[axis]) + 1);
        let value = |row: usize, column: usize| (20 * row + column) as u8 + 10;
        let staged = StagedBox::new(&array, &start, &shape, staging(folder.path())).unwrap();
        for row in (start[0]..start[0] + shape[0]).step_by(rows_at_once) {
            let rows = rows_at_once.min(start[0] + shape[0] - row);
            let part = ArrayD::from_shape_fn(IxDyn(&[rows, shape[1]]), |index| value(row + index[0], start[1] + index[1]));
            staged.write_as(&[row, start[1]], part.view(), |value: u8| value).unwrap();
        }
        staged.publish::<u8>().unwrap();
        let mut expected = Array2::from_elem((7, 10), 9);
        let [rows, columns] = std::array::from_fn(|axis| start[axis]..start[axis] + shape[axis]);
        let mut changed = expected.slice_mut(s![rows, columns]);
        changed.indexed_iter_mut().for_each(|((y, x), element)| *element = value(start[0] + y, start[1] + x));
        prop_assert_eq!(read(&array), expected);
        prop_assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
