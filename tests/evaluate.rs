//! `elephant-server evaluate`: scores of a result against ground truth.

#![allow(clippy::disallowed_methods)]

mod common;

use std::process::{Command, Output};

use common::BINARY;
use elephant_testkit::{golden, read_json};
use serde_json::Value;

fn evaluate(arguments: &[&str]) -> Output {
    Command::new(BINARY).arg("evaluate").args(arguments).output().expect("it starts")
}

/// Runs it on a golden case.
fn evaluate_case(case: &str, options: &[&str]) -> String {
    let result = golden("scores").join(case);
    let truth = result.parent().unwrap().join("GT");
    let mut arguments = vec![result.to_str().unwrap(), truth.to_str().unwrap()];
    arguments.extend(options);
    let output = evaluate(&arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_report_has_the_scores_and_all_mistakes() {
    let report: Value = serde_json::from_str(&evaluate_case("colony/mixed1", &["--json"])).unwrap();
    let expected = &read_json(&golden("scores/expected.json"))["colony/mixed1"];
    for (name, score) in [
        ("DET", &report["challenge"]["det"]),
        ("SEG", &report["challenge"]["seg"]),
        ("TRA", &report["challenge"]["tra"]),
        ("CHOTA", &report["association"]["chota"]),
        ("BC(1)", &report["biology"]["bc"][1]),
    ] {
        let (score, expected) = (score.as_f64().unwrap(), expected[name].as_f64().unwrap());
        assert!((score - expected).abs() < 1e-12, "{name}: {score}, not {expected}");
    }
    let mistakes = report["mistakes"].as_array().unwrap();
    let missed = mistakes.iter().filter(|mistake| mistake["kind"] == "missed_cell").count();
    assert_eq!(missed as f64, expected["AOGM_FN"].as_f64().unwrap());
    let short: Value = serde_json::from_str(&evaluate_case("colony/mixed1", &["--json", "--errors", "3"])).unwrap();
    assert_eq!(short["mistakes"].as_array().unwrap()[..], mistakes[..3]);
}

#[test]
fn a_person_gets_a_table() {
    let table = evaluate_case("colony/swapped", &[]);
    for part in
        ["DET     1.0000  cells", "TRA     0.9792  cells and links", "divisions, ±1 frames", "wrong link", "… and"]
    {
        assert!(table.contains(part), "no {part:?} in\n{table}");
    }
    // The first mistake has the place of its cell in micrometres.
    let line = |options: &[&str]| {
        let table = evaluate_case("colony/swapped", options);
        table.lines().skip_while(|line| !line.contains("z, y, x in µm")).nth(1).unwrap().to_owned()
    };
    let numbers = |line: &str| -> Vec<f64> { line.split([' ', ',']).filter_map(|word| word.parse().ok()).collect() };
    let (pixels, micrometres) = (numbers(&line(&[])), numbers(&line(&["--voxel-size", "5,10,10"])));
    assert!((pixels[2] * 10.0 - micrometres[2]).abs() <= 0.56, "{pixels:?} {micrometres:?}");
    assert!(evaluate_case("colony/perfect", &[]).contains("no mistakes"));
}

#[test]
fn errors_say_what_to_do() {
    let truth = golden("scores/colony/GT");
    let truth = truth.to_str().unwrap();
    let fails = |arguments: &[&str], code: i32| {
        let output = evaluate(arguments);
        assert_eq!(output.status.code(), Some(code));
        String::from_utf8(output.stderr).unwrap()
    };
    let message = fails(&["/nowhere", truth], 1);
    assert!(message.starts_with("elephant-server: ") && message.contains("/nowhere"), "{message}");
    let embryo = golden("scores/embryo/perfect");
    let message = fails(&[embryo.to_str().unwrap(), truth], 1);
    assert!(message.contains("the result has 8 frames and the ground truth 12"), "{message}");
    let message = fails(&[truth, truth, "--voxel-size", "1,2"], 2);
    assert!(message.contains("three numbers in the order z, y, x"), "{message}");
    let help = evaluate(&["--help"]);
    assert!(String::from_utf8_lossy(&help.stdout).contains("elephant-server evaluate 01_RES 01_GT"));
}

#[test]
fn tracks_of_different_formats_are_compared_by_their_centres() {
    let folder = tempfile::tempdir().unwrap();
    let table = folder.path().join("spots.csv");
    let header = "t,id,parent,x,y,z,c00,c01,c02,c10,c11,c12,c20,c21,c22";
    let ball = "9,0,0,0,9,0,0,0,9";
    let rows = |rows: [&str; 2]| rows.map(|row| format!("{row},{ball}\n")).concat();
    std::fs::write(&table, format!("{header}\n{}", rows(["0,0,-1,10,10,0", "1,0,0,11,10,0"]))).unwrap();
    let found = folder.path().join("found.csv");
    std::fs::write(&found, format!("{header}\n{}", rows(["0,0,-1,12,10,0", "1,0,0,15,10,0"]))).unwrap();
    let report = |more: &[&str]| -> Value {
        let mut arguments = vec![found.to_str().unwrap(), table.to_str().unwrap(), "--json"];
        arguments.extend(more);
        let output = evaluate(&arguments);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    };
    // The radius is 3 µm; the second centre is 4 µm away.
    let near = report(&[]);
    assert_eq!((&near["cells"]["true_positives"], &near["links"]["true_positives"]), (&1.into(), &0.into()));
    assert_eq!(report(&["--radius", "4"])["links"]["true_positives"], 1);
    let masks = golden("scores/embryo/GT");
    let fails = |arguments: &[&str]| String::from_utf8(evaluate(arguments).stderr).unwrap();
    let message = fails(&[table.to_str().unwrap(), masks.to_str().unwrap()]);
    assert!(message.contains("give the voxel size (z, y, x) in micrometres"), "{message}");
    let output = evaluate(&[
        masks.to_str().unwrap(),
        masks.to_str().unwrap(),
        "--voxel-size",
        "2,1,1",
        "--radius",
        "1",
        "--json",
    ]);
    let same: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&same["links"]["f1"], &same["cells"]["f1"]), (&1.0.into(), &1.0.into()));
}
