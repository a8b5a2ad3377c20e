//! Links detections from files, so that other programs can be run on the same ones, and fits weights on such files.
//!
//! ```text
//! tracking_peer track METHOD WEIGHTS|builtin FILE.json...      writes FILE.METHOD.links.json beside each: [[source, target, score]...]
//! tracking_peer fit ROUNDS ORIGIN OUT.json FILE.json...        the files have their truth
//! ```
//! A file is `{"spots": [{"t", "center_um", "covariance_um2", "quality"}...], "intensities": [...] or null, "parents": [n or -1...]}`.

#![allow(clippy::disallowed_methods, clippy::print_stdout, clippy::print_stderr)]

use std::time::Instant;

use elephant_track::{Constraints, Detections, Example, FitOptions, TrackMethod, TrackOptions, Weights, fit, track};
use elephant_types::{CancelToken, Lineage, Link, Spot, SpotId, TaskContext};

#[derive(serde::Deserialize)]
struct File {
    spots: Vec<Spot>,
    intensities: Option<Vec<f64>>,
    #[serde(default)]
    parents: Vec<i64>,
}

type Anything = Box<dyn std::error::Error>;

fn read(path: &str) -> Result<File, Anything> {
    Ok(serde_json::from_slice(&std::fs::read(path)?)?)
}

fn main() -> Result<(), Anything> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match &arguments[..] {
        ["track", method, weights, files @ ..] => {
            let weights = match *weights {
                "builtin" => None,
                path => Some(serde_json::from_slice::<Weights>(&std::fs::read(path)?)?),
            };
            let chosen = if *method == "nearest" { TrackMethod::Nearest } else { TrackMethod::Optimal };
            let mut options = TrackOptions { method: chosen, weights, ..TrackOptions::default() };
            if let Ok(text) = std::env::var("TRACK_OPTIONS") {
                let given: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&text)?;
                let mut value = serde_json::to_value(&options)?;
                value.as_object_mut().ok_or("options")?.extend(given);
                options = serde_json::from_value(value)?;
            }
            for path in files {
                one(path, method, &options)?;
            }
            Ok(())
        }
        ["fit", rounds, origin, output, files @ ..] => {
            let examples: Vec<Example> = files.iter().map(|path| example(path)).collect::<Result<_, _>>()?;
            let options = FitOptions { rounds: rounds.parse()?, origin: (*origin).to_owned(), ..FitOptions::default() };
            let context = TaskContext::watched(CancelToken::default(), |event| {
                if event.stage == "note" {
                    eprintln!("{}", event.payload["text"]);
                }
            });
            let weights = fit(&examples, &options, &context)?;
            std::fs::write(output, serde_json::to_string(&weights)?)?;
            Ok(())
        }
        _ => {
            Err("usage: tracking_peer track METHOD WEIGHTS FILE... | tracking_peer fit ROUNDS ORIGIN OUT FILE..."
                .into())
        }
    }
}

fn one(path: &str, method: &str, options: &TrackOptions) -> Result<(), Anything> {
    let file = read(path)?;
    let detections =
        Detections { spots: &file.spots, intensities: file.intensities.as_deref(), ..Detections::default() };
    let start = Instant::now();
    let tracking = track(&detections, &Constraints::default(), options, &TaskContext::detached())?;
    let seconds = start.elapsed().as_secs_f64();
    println!(
        "{path}: {} links, {:?}, gap {:.1e}, {seconds:.2} s",
        tracking.link_scores.len(),
        tracking.status,
        tracking.gap()
    );
    let links: Vec<(u32, u32, f64)> =
        tracking.link_scores.iter().map(|(link, score)| (link.source.0, link.target.0, *score)).collect();
    std::fs::write(format!("{}.{method}.links.json", path.trim_end_matches(".json")), serde_json::to_string(&links)?)?;
    Ok(())
}

fn example(path: &str) -> Result<Example, Anything> {
    let file = read(path)?;
    let links = (0..).zip(&file.parents).filter_map(|(target, &parent)| {
        Some(Link { source: SpotId(u32::try_from(parent).ok()?), target: SpotId(target) })
    });
    let truth = Lineage::new(file.spots.iter().map(|spot| spot.t as u32).collect(), links)?;
    Ok(Example {
        name: path.to_owned(),
        spots: file.spots,
        intensities: file.intensities,
        displacements: None,
        numbers: None,
        truth,
        complete: true,
        corrections: Constraints::default(),
    })
}
