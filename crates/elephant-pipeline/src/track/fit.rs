//! Learning the costs of tracking from projects and from synthetic movies.

use elephant_jobs::JobSpec;
use elephant_project::ProjectId;
use elephant_synth::{Embryo, EmbryoOptions, Preset};
use elephant_track::{Constraints, Example, FitOptions, Weights};
use elephant_types::{Lineage, ModelName, Spot, TaskContext, TaskEvent};
use ndarray::{Array3, s};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::{
    brightness::{around, frames, intensities},
    known_voxel_size,
    mistakes::{Mistakes, Truth},
    weights::check_name,
};
use crate::{PipelineError, Request, UseCases, Workspace, frames::open_dataset};

/// What costs of tracking are learnt from, and their name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FitRequest {
    /// The file to write among the models, for example `embryo.json`. Tracking takes its name as `weights`.
    pub weights: ModelName,
    /// Projects whose links are all true, and in which no links are missing: imported or corrected ground truth. Spots without
    /// links are spurious there. Learnt from as they are, and with missed, spurious and shifted cells.
    #[serde(default)]
    pub complete: Vec<ProjectId>,
    /// Projects in which only approved links are known to be true, and rejected ones to be wrong. The rest is completed by
    /// tracking around them.
    #[serde(default)]
    pub approved: Vec<ProjectId>,
    /// Number of synthetic movies to learn from as well, 0 to 100.
    #[serde(default)]
    pub synthetic: u64,
    /// How many times each example is visited, 1 to 100.
    #[serde(default = "rounds")]
    pub rounds: usize,
    /// Whether to begin without the weights that ship with the program. Needs many movies of complete ground truth.
    #[serde(default)]
    pub from_scratch: bool,
    /// Seed of the synthetic movies and of all other random numbers.
    #[serde(default)]
    pub seed: u64,
}

fn rounds() -> usize {
    8
}

/// What came of fitting.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FitSummary {
    /// The name of the weights.
    pub weights: ModelName,
    /// The number of examples: a movie with each kind of mistakes is one.
    pub examples: usize,
    /// The number of spots in them.
    pub spots: usize,
    /// The number of true links in them.
    pub links: usize,
}

/// Most spots of all examples together; their features take some kilobytes each.
const MOST_SPOTS: usize = 1_000_000;
/// Most projects of each kind.
const MOST_PROJECTS: usize = 100;
/// Which frames of synthetic movies are taken.
const STEPS: [usize; 2] = [1, 3];

impl Request for FitRequest {
    type Output = FitSummary;

    fn spec(&self) -> JobSpec {
        let exclusive = Some(format!("weights {}", self.weights).into());
        JobSpec { noun: "fitting", exclusive, ..JobSpec::new("fit", self.weights.as_str()) }
    }

    fn validate(&self) -> Result<(), PipelineError> {
        let invalid = |reason: String| Err(PipelineError::Invalid(reason));
        check_name(&self.weights)?;
        if self.complete.is_empty() && self.approved.is_empty() && self.synthetic == 0 {
            return invalid(
                "there is nothing to learn from; give projects as complete or approved, or synthetic movies".into(),
            );
        }
        if let Some(project) = self.complete.iter().find(|project| self.approved.contains(project)) {
            return invalid(format!("{project} is both complete and approved; give it as one of them"));
        }
        if self.complete.len() > MOST_PROJECTS || self.approved.len() > MOST_PROJECTS {
            return invalid(format!("complete and approved must have at most {MOST_PROJECTS} projects"));
        }
        if self.synthetic > 100 {
            return invalid(format!("synthetic must be 0 to 100, not {}", self.synthetic));
        }
        if !(1..=100).contains(&self.rounds) {
            return invalid(format!("rounds must be 1 to 100, not {}", self.rounds));
        }
        if self.from_scratch && !self.approved.is_empty() {
            return invalid(
                "from_scratch needs complete ground truth, but some projects have approved links only".into(),
            );
        }
        Ok(())
    }

    fn run(&self, use_cases: &UseCases, context: &TaskContext) -> Result<FitSummary, PipelineError> {
        let workspace = &use_cases.workspace;
        let movies = (self.complete.len() + self.approved.len()) as u64 + self.synthetic;
        let mut examples = Vec::new();
        let mut read = 0;
        let mut add = |more: Vec<Example>| {
            examples.extend(more);
            read += 1;
            context.report(read, movies + 1);
            let spots: usize = examples.iter().map(|example| example.spots.len()).sum();
            if spots > MOST_SPOTS {
                return Err(PipelineError::Invalid(format!(
                    "the examples have {spots} spots together, of which at most {MOST_SPOTS} can be learnt from; give fewer"
                )));
            }
            Ok(context.check()?)
        };
        for project in &self.complete {
            add(complete(workspace, project, self.seed, context)?)?;
        }
        for project in &self.approved {
            add(vec![approved(workspace, project, context)?])?;
        }
        for number in 0..self.synthetic {
            add(synthetic(self.seed.wrapping_add(number), context)?)?;
        }
        let options = FitOptions {
            start: (!self.from_scratch).then(|| Weights::builtin().clone()),
            rounds: self.rounds,
            seed: self.seed,
            origin: self.origin(),
            ..FitOptions::default()
        };
        let summary = FitSummary {
            weights: self.weights.clone(),
            examples: examples.len(),
            spots: examples.iter().map(|example| example.spots.len()).sum(),
            links: examples.iter().map(|example| example.truth.links().count()).sum(),
        };
        let weights = elephant_track::fit(&examples, &options, &after(movies, context))?;
        workspace.write_weights(&self.weights, &weights)?;
        Ok(summary)
    }
}

impl FitRequest {
    /// How the weights were made, for those who find the file.
    fn origin(&self) -> String {
        let list = |kind: &str, projects: &[ProjectId]| {
            let names: Vec<String> = projects.iter().map(ProjectId::to_string).collect();
            (!names.is_empty()).then(|| format!("{kind} {}", names.join(", ")))
        };
        let synthetic = (self.synthetic > 0).then(|| format!("{} synthetic movies", self.synthetic));
        let parts = [list("complete", &self.complete), list("approved links of", &self.approved), synthetic];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        let begin = if self.from_scratch { "from scratch" } else { "from the weights that ship" };
        let (version, rounds, seed) = (env!("CARGO_PKG_VERSION"), self.rounds, self.seed);
        format!("elephant-server {version} fit, {rounds} rounds {begin}, seed {seed}: {}", parts.join("; "))
    }
}

/// For the fitting, whose steps come after those of reading the movies. Its notes are passed on.
fn after(movies: u64, context: &TaskContext) -> TaskContext {
    let outer = context.clone();
    TaskContext::watched(context.cancel_token().clone(), move |event| match (&*event.stage, event.done, event.total) {
        (TaskEvent::PROGRESS, Some(done), Some(total)) => outer.report(movies + done, movies + total),
        _ => outer.tell(event),
    })
}

/// The intensities of spots in a project's movie.
fn measured(
    workspace: &Workspace,
    id: &ProjectId,
    spots: &[Spot],
    context: &TaskContext,
) -> Result<Vec<f64>, PipelineError> {
    let dataset = open_dataset(workspace, &id.dataset)?;
    let voxel_size = known_voxel_size(workspace, id, None)?;
    Ok(intensities(&dataset, spots, voxel_size, |_| None, context.cancel_token(), |_| {})?)
}

/// A project that is complete, as it is and with mistakes.
fn complete(
    workspace: &Workspace,
    id: &ProjectId,
    seed: u64,
    context: &TaskContext,
) -> Result<Vec<Example>, PipelineError> {
    let view = workspace.projects().get(id)?.view(0, u32::MAX)?;
    let lineage = view.lineage().map_err(elephant_track::TrackError::from)?;
    if lineage.links().next().is_none() {
        return Err(PipelineError::Invalid(format!("{id} has no links to learn from; track or import it first")));
    }
    let truth = Truth { spots: view.detections(), lineage };
    (seed..)
        .zip(Mistakes::ALL)
        .map(|(seed, mistakes)| {
            let detected = truth.detected(mistakes, seed).map_err(elephant_track::TrackError::from)?;
            let intensities = measured(workspace, id, &detected.spots, context)?;
            Ok(example(id.to_string(), detected, intensities))
        })
        .collect()
}

fn example(name: String, Truth { spots, lineage }: Truth, intensities: Vec<f64>) -> Example {
    Example {
        name,
        spots,
        intensities: Some(intensities),
        displacements: None,
        numbers: None,
        truth: lineage,
        complete: true,
        corrections: Constraints::default(),
    }
}

/// A project of which only what people have said is known.
fn approved(workspace: &Workspace, id: &ProjectId, context: &TaskContext) -> Result<Example, PipelineError> {
    let view = workspace.projects().get(id)?.view(0, u32::MAX)?;
    let spots = view.detections();
    let elephant_project::Constraints { approved_links, rejected_links, required, excluded } = view.constraints();
    if approved_links.is_empty() {
        return Err(PipelineError::Invalid(format!(
            "{id} has no approved links to learn from; approve some, or give it as complete if all its links are true"
        )));
    }
    let timepoints = spots.iter().map(|spot| spot.t as u32).collect();
    Ok(Example {
        name: id.to_string(),
        intensities: Some(measured(workspace, id, &spots, context)?),
        displacements: None,
        numbers: Some(view.spots.iter().map(|spot| spot.key.0).collect()),
        truth: Lineage::new(timepoints, approved_links).map_err(elephant_track::TrackError::from)?,
        complete: false,
        corrections: Constraints { links: Vec::new(), forbidden: rejected_links, required, excluded },
        spots,
    })
}

/// A synthetic movie with mistakes of each kind, with all its frames and with every third.
fn synthetic(seed: u64, context: &TaskContext) -> Result<Vec<Example>, PipelineError> {
    let options = EmbryoOptions { timepoints: 20, ..EmbryoOptions::preset(Preset::Small, seed) };
    let failed = |error: elephant_synth::SynthError| match error {
        elephant_synth::SynthError::Cancelled(cancelled) => PipelineError::Cancelled(cancelled),
        error => PipelineError::Invalid(error.to_string()),
    };
    let embryo = Embryo::grow(options, context.cancel_token()).map_err(failed)?;
    let truth = Truth { spots: cells(&embryo), lineage: embryo.lineage().clone() };
    let images: Vec<Array3<f32>> = (0..embryo.options().timepoints)
        .into_par_iter()
        .map(|t| Ok(context.check().map(|()| embryo.render(t).image.mapv(f32::from))?))
        .collect::<Result<_, PipelineError>>()?;
    let edges = embryo.options().voxel_size.zyx();
    let mut examples = Vec::new();
    for step in STEPS {
        let every = truth.every(step).map_err(elephant_track::TrackError::from)?;
        for (number, mistakes) in (0..).zip(Mistakes::ALL) {
            let seed = elephant_types::SplitMix64::mix(seed ^ (step as u64) << 32) ^ number;
            let detected = every.detected(mistakes, seed).map_err(elephant_track::TrackError::from)?;
            let intensities = frames(&detected.spots)
                .flat_map(|frame| {
                    let spots = &detected.spots[frame];
                    in_image(&images[step * spots[0].t], spots, edges)
                })
                .collect();
            examples.push(example(format!("synthetic movie {seed}"), detected, intensities));
        }
    }
    Ok(examples)
}

fn cells(embryo: &Embryo) -> Vec<Spot> {
    let frame = |t| {
        embryo.nuclei(t).iter().map(move |nucleus| Spot {
            t,
            center_um: nucleus.center_um,
            covariance_um2: nucleus.covariance_um2(),
            quality: 1.0,
        })
    };
    (0..embryo.options().timepoints).flat_map(frame).collect()
}

/// As [`intensities`], in an image that is in memory.
fn in_image(image: &Array3<f32>, spots: &[Spot], edges: [f64; 3]) -> Vec<f64> {
    let shape: [usize; 3] = image.dim().into();
    let mut values: Vec<f32> = image.iter().copied().collect();
    let middle = values.len() / 2;
    let background = f64::from(*values.select_nth_unstable_by(middle, f32::total_cmp).1);
    let mean = |spot: &Spot| {
        let [z, y, x] = around(spot.center_um, edges, shape);
        let voxels = image.slice(s![z, y, x]);
        voxels.iter().copied().map(f64::from).sum::<f64>() / voxels.len() as f64 - background
    };
    spots.iter().map(mean).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn synthetic_movies_have_mistakes_and_their_cells_are_brighter_than_what_is_between_them() {
        let examples = synthetic(3, &TaskContext::detached()).unwrap();
        assert_eq!(examples.len(), STEPS.len() * Mistakes::ALL.len());
        let [whole, .., noisy, third, _, _, _] = &examples[..] else { panic!("eight examples") };
        let frames = |example: &Example| example.spots.last().unwrap().t + 1;
        assert_eq!((frames(whole), frames(third)), (20, 7));
        let unlinked = |example: &Example| {
            let lineage = &example.truth;
            let is_alone = |spot: &_| lineage.parent(*spot).is_none() && lineage.children(*spot).next().is_none();
            lineage.spots().filter(is_alone).collect::<Vec<_>>()
        };
        assert!(unlinked(whole).is_empty());
        let spurious = unlinked(noisy);
        assert!(
            !spurious.is_empty() && spurious.len() < noisy.spots.len() / 5,
            "{} of {}",
            spurious.len(),
            noisy.spots.len()
        );
        let mean = |values: Vec<f64>| values.iter().sum::<f64>() / values.len() as f64;
        let light = noisy.intensities.clone().unwrap();
        let of_spurious = mean(spurious.iter().map(|spot| light[spot.index()]).collect());
        let of_cells = mean(whole.intensities.clone().unwrap());
        assert!(of_spurious < 0.7 * of_cells, "{of_spurious} {of_cells}");
    }
}
