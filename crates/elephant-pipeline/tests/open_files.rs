//! A process with too many open files: nothing is called missing or damaged because of it. The only test of its process,
//! whose limit it lowers.

#![allow(clippy::disallowed_methods)]

use elephant_pipeline::{GenerateOptions, READY, check_dataset, generate_dataset};
use elephant_testkit::golden;
use elephant_types::{Coded, ErrorCode, TaskContext};
use elephant_volume::VolumeError;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

#[test]
fn too_many_open_files_are_no_reason_to_make_a_dataset_anew() {
    const MOST: u64 = 64;
    let folder = tempfile::tempdir().unwrap();
    let options = GenerateOptions::new(&golden("dataset/h5/parts.h5"), folder.path());
    let generate = || generate_dataset(&options, &TaskContext::detached());
    let check = || check_dataset(folder.path(), "", &[2, 5, 7, 9]);
    generate().unwrap();
    assert_eq!(check().unwrap(), READY);

    let before = getrlimit(Resource::Nofile);
    let mut refused = (0, 0);
    for limit in 0..MOST {
        setrlimit(Resource::Nofile, Rlimit { current: Some(limit), ..before }).unwrap();
        let (checked, generated) = (check(), generate());
        setrlimit(Resource::Nofile, before).unwrap();
        match checked {
            Ok(message) => assert_eq!(message, READY, "with {limit} files"),
            Err(error) => {
                assert!(matches!(error, VolumeError::Fs(_)), "with {limit} files: {error}");
                refused.0 += 1;
            }
        }
        if let Err(error) = generated {
            assert_eq!(error.code(), ErrorCode::Internal, "with {limit} files: {error}");
            assert!(error.to_string().contains("os error 24"), "with {limit} files: {error}");
            refused.1 += 1;
        }
    }
    assert!((1..MOST).contains(&refused.0) && (1..MOST).contains(&refused.1), "{refused:?}");
    assert_eq!(check().unwrap(), READY, "the old dataset is whole");
}
