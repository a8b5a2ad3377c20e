//! The map in `ARCHITECTURE.md` is true: every crate is in it, and dependencies point down.

#![allow(clippy::disallowed_methods)]

use std::{collections::BTreeMap, fs, path::Path, process::Command};

use serde_json::Value;

/// What only some crates may depend on: the lowest crate of the map that may, and the libraries.
const FLOORS: [(&str, &[&str]); 2] = [
    ("elephant-api-core", &["axum", "hyper", "hyper-util", "tower", "tower-http"]),
    ("elephant-jobs", &["tokio", "tokio-util"]),
];

/// Libraries that take long to build or are written in C or C++. One crate of ours wraps each.
const HEAVY: &[(&str, &str)] = &[
    ("blosc-src", "elephant-volume"),
    ("hdf5-metno", "elephant-hdf5"),
    ("hdf5-metno-sys", "elephant-hdf5"),
    ("highs", "elephant-track"),
    ("highs-sys", "elephant-track"),
    ("lapin", "elephant-amqp"),
    ("redis", "elephant-jobs"),
    ("rusqlite", "elephant-sqlite"),
    ("tch", "elephant-nn"),
    ("tiff", "elephant-ctc"),
    ("zarrs", "elephant-export"),
    ("zip", "elephant-checkpoint"),
];

/// The crates of the map, from top to bottom.
fn map() -> Vec<String> {
    let page = fs::read_to_string("ARCHITECTURE.md").unwrap();
    let names = page.lines().filter_map(|line| {
        let name = line.strip_prefix("| `")?.split_once('`')?.0;
        name.starts_with("elephant-").then(|| name.to_owned())
    });
    names.collect()
}

/// The names of what each crate of the workspace depends on, without what only its tests and benchmarks need.
fn dependencies() -> BTreeMap<String, Vec<String>> {
    let arguments = ["metadata", "--no-deps", "--offline", "--format-version", "1"];
    let output = Command::new(env!("CARGO")).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap().iter().map(|package| {
        let dependencies = package["dependencies"].as_array().unwrap().iter();
        let dependencies = dependencies.filter(|dependency| dependency["kind"] != "dev");
        let names = dependencies.map(|dependency| dependency["name"].as_str().unwrap().to_owned());
        (package["name"].as_str().unwrap().to_owned(), names.collect())
    });
    packages.collect()
}

#[test]
fn every_crate_is_in_the_map_and_in_a_folder_of_its_name() {
    let mut map = map();
    map.sort();
    let mut folders: Vec<String> =
        fs::read_dir("crates").unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    folders.sort();
    assert_eq!(map, folders);
    for name in dependencies().into_keys().filter(|name| name != "elephant-server") {
        assert!(Path::new("crates").join(&name).is_dir(), "the package {name} is in a folder of another name");
    }
}

#[test]
fn dependencies_point_down() {
    let map = map();
    let floor = |name: &str| map.iter().position(|known| known == name);
    for (name, dependencies) in dependencies() {
        let Some(from) = floor(&name) else { continue };
        for dependency in dependencies {
            if let Some(to) = floor(&dependency) {
                assert!(from < to, "{name} depends on {dependency}, which is above it in ARCHITECTURE.md");
            }
        }
    }
}

#[test]
fn api_families_do_not_depend_on_each_other() {
    let is_family = |name: &str| name.starts_with("elephant-api-") && name != "elephant-api-core";
    for (name, dependencies) in dependencies().into_iter().filter(|(name, _)| is_family(name)) {
        for dependency in dependencies {
            assert!(!is_family(&dependency), "the API family {name} depends on {dependency}");
        }
    }
}

#[test]
fn http_and_the_async_runtime_stay_above() {
    let (map, dependencies) = (map(), dependencies());
    for (lowest, libraries) in FLOORS {
        let lowest = map.iter().position(|name| name == lowest).unwrap();
        for name in &map[lowest + 1..] {
            for dependency in &dependencies[name] {
                assert!(!libraries.contains(&dependency.as_str()), "{name} depends on {dependency}");
            }
        }
    }
}

#[test]
fn one_crate_wraps_each_heavy_library() {
    for (name, dependencies) in dependencies() {
        for (heavy, owner) in HEAVY {
            assert!(
                name == *owner || !dependencies.iter().any(|dependency| dependency == heavy),
                "{name} depends on {heavy}, which {owner} wraps"
            );
        }
    }
}
