//! How a movie becomes a dataset of the shape that a client asks for: which file, timepoints and view setup.
//!
//! A client counts frames from 0 in the order of its timepoints, and says only how many there are. In the file they have
//! ids, which may begin anywhere and leave gaps; an `.xml` beside the movie lists them. Nothing is made of a movie whose
//! shape is another one.

use std::path::{Path, PathBuf};

use elephant_bdv::{BdvError, BdvFile, Volume};
use elephant_types::TaskContext;
use elephant_volume::{DatasetShape, Store};

use crate::{GenerateRequest, PipelineError, check::tuple, generate::MAX_TIMEPOINTS, movies::Candidate};

/// Most setups that are looked at for an image.
const MAX_SETUPS: usize = 1000;

/// What to read of a movie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    /// The `.h5` file, or the `.xml` that describes it.
    pub input: PathBuf,
    /// The timepoint id of each frame.
    pub timepoints: Vec<u32>,
    /// The view setup.
    pub setup: u32,
}

/// The plan for the first of the candidates that gives `asked`, a shape (t, z, y, x) or (t, y, x), or for the first movie
/// among them when nothing was asked for.
///
/// # Errors
/// Why the first candidate that is a movie cannot be used, or that `context` was cancelled.
pub(crate) fn plan(
    candidates: &[Candidate],
    request: &GenerateRequest,
    asked: Option<&[usize]>,
    context: &TaskContext,
) -> Result<Plan, PipelineError> {
    let (mut reason, mut no_movie) = (None, None);
    for candidate in candidates {
        match plan_movie(candidate, request, asked, context) {
            Ok(plan) => return Ok(plan),
            Err(error @ PipelineError::Cancelled(_)) => return Err(error),
            Err(error @ PipelineError::Movie(BdvError::NoTimepoints { .. } | BdvError::NotHdf5 { .. })) => {
                no_movie.get_or_insert(error);
            }
            Err(error) if asked.is_none() => return Err(error),
            Err(error) => {
                reason.get_or_insert(error);
            }
        }
    }
    let nothing = || PipelineError::NotFound("there is no movie; upload one".into());
    Err(reason.or(no_movie).unwrap_or_else(nothing))
}

fn plan_movie(
    candidate: &Candidate,
    request: &GenerateRequest,
    asked: Option<&[usize]>,
    context: &TaskContext,
) -> Result<Plan, PipelineError> {
    let descriptions = descriptions(candidate, request, context)?;
    let shape_of = |volume: &Volume, timepoints: usize| {
        let [z, y, x] = volume.shape();
        let frame = [if request.is_2d { 1 } else { z }, y, x];
        DatasetShape { timepoints, frame, is_3d: !request.is_2d }.of(Store::Images)
    };
    let mut failure = None;
    for (description, timepoints) in readings(&descriptions, asked.and_then(<[usize]>::first).copied()) {
        match description.first_volume(&timepoints, request, context) {
            Ok((setup, volume)) if asked.is_none_or(|asked| asked == shape_of(&volume, timepoints.len())) => {
                return Ok(Plan { input: description.input.clone(), timepoints, setup });
            }
            Ok(_) => {}
            Err(error @ PipelineError::Cancelled(_)) => return Err(error),
            Err(error) => {
                failure.get_or_insert(error);
            }
        }
    }
    if let Some(error) = failure {
        return Err(error);
    }
    let held = descriptions[0].file.timepoints();
    let (_, volume) = descriptions[0].first_volume(held, request, context)?;
    Err(other_shape(&candidate.movie, &shape_of(&volume, held.len()), held, asked.unwrap_or_default()))
}

fn other_shape(movie: &Path, shape: &[usize], held: &[u32], asked: &[usize]) -> PipelineError {
    let numbers = match held {
        [first, .., last] => format!("its timepoints are numbered {first} to {last}"),
        [only] => format!("its timepoint is number {only}"),
        [] => "it has no timepoints".to_owned(),
    };
    let movie = movie.file_name().unwrap_or_default().to_string_lossy();
    PipelineError::Invalid(format!(
        "{movie} has the shape {} ({numbers}), but {} was asked for; upload the movie that is open in the \
         client, put its .xml beside it, or ask for another shape (POST /dataset/check)",
        tuple(shape),
        tuple(asked)
    ))
}

/// A movie, as its `.xml` or the file alone describes it.
struct MovieDescription {
    input: PathBuf,
    file: BdvFile,
    /// The timepoints that the `.xml` lists.
    listed: Option<Vec<u32>>,
}

/// The descriptions of a movie, at least one: through each `.xml` that is of this movie and not of another version of it,
/// and the file alone.
fn descriptions(
    candidate: &Candidate,
    request: &GenerateRequest,
    context: &TaskContext,
) -> Result<Vec<MovieDescription>, PipelineError> {
    let alone =
        MovieDescription { input: candidate.movie.clone(), file: BdvFile::open(&candidate.movie)?, listed: None };
    let mut descriptions = Vec::new();
    for path in &candidate.descriptions {
        let description = BdvFile::open(path).map_err(PipelineError::from).and_then(|file| {
            let listed = file.shown_timepoints().to_vec();
            let description = MovieDescription { input: path.clone(), file, listed: Some(listed) };
            let held = description.file.timepoints();
            description.first_volume(held, request, context).map(|_| description)
        });
        match description {
            Ok(description) if description.shows_something() => descriptions.push(description),
            Ok(_) => tracing::debug!(xml = %path.display(), "none of the timepoints that it lists are in the movie"),
            Err(error @ PipelineError::Cancelled(_)) => return Err(error),
            Err(error) => tracing::debug!(xml = %path.display(), %error, "an .xml is not of its movie"),
        }
    }
    descriptions.push(alone);
    Ok(descriptions)
}

impl MovieDescription {
    fn holds(&self, timepoint: u32) -> bool {
        self.file.timepoints().binary_search(&timepoint).is_ok()
    }

    fn shows_something(&self) -> bool {
        self.listed.as_ref().is_none_or(|listed| listed.iter().any(|&timepoint| self.holds(timepoint)))
    }

    /// Whether all that is listed is there or said to be missing.
    fn is_complete(&self) -> bool {
        let setup = self.file.first_setup();
        let is_missing = |id| self.file.description().is_some_and(|xml| xml.is_missing(id, setup));
        self.listed.iter().flatten().all(|&id| self.holds(id) || is_missing(id))
    }

    /// The first volume of the setup that the request names, or else of the first one of the `.xml`, or else of the lowest
    /// one in the file that has an image at these timepoints.
    fn first_volume(
        &self,
        timepoints: &[u32],
        request: &GenerateRequest,
        context: &TaskContext,
    ) -> Result<(u32, Volume), PipelineError> {
        let Self { file, listed, .. } = self;
        let first_of = |setup| {
            file.first_volume_while(timepoints, setup, request.level, || Ok::<(), PipelineError>(context.check()?))
        };
        let first = file.first_setup();
        let setup = request.setup.or(listed.is_some().then_some(first));
        if let Some(setup) = setup {
            return Ok((setup, first_of(setup)?));
        }
        for &setup in file.setups().iter().take(MAX_SETUPS) {
            match first_of(setup) {
                Ok(volume) => return Ok((setup, volume)),
                Err(PipelineError::Movie(BdvError::NoImages { .. } | BdvError::NoSetup { .. })) => {}
                Err(error) => return Err(error),
            }
        }
        Ok((first, first_of(first)?))
    }
}

/// The ways to make `asked` frames of a movie, as the timepoint id of each frame, most likely first: as an `.xml` lists
/// them, all of which are there or said to be missing; as the ids in the file suggest; as another `.xml` lists them.
/// Without `asked`, what an `.xml` lists, or else all that is in the file.
fn readings(descriptions: &[MovieDescription], asked: Option<usize>) -> Vec<(&MovieDescription, Vec<u32>)> {
    let described = descriptions
        .iter()
        .filter_map(|description| Some((description, description.listed.clone()?)))
        .filter(|(_, listed)| {
            (1..=MAX_TIMEPOINTS).contains(&listed.len()) && asked.is_none_or(|asked| asked == listed.len())
        });
    let (mut complete, other): (Vec<_>, Vec<_>) = described.partition(|(description, _)| description.is_complete());
    let Some(description) = descriptions.first() else { return complete };
    let held = description.file.timepoints();
    if let Some(asked) = asked {
        complete.extend(frames(held, asked).map(|timepoints| (description, timepoints)));
        complete.extend(other);
    } else {
        complete.extend(other);
        complete.push((description, held.to_vec()));
    }
    complete
}

/// The ids of `asked` frames of a movie that holds the timepoints `held`, ascending: those in order; or all from the first
/// to the last, from 0 to the last, or at equal distances, with blank frames for those that are not there. `None` when it
/// cannot have so many frames.
fn frames(held: &[u32], asked: usize) -> Option<Vec<u32>> {
    let (&first, &last) = (held.first()?, held.last()?);
    if asked == held.len() {
        return Some(held.to_vec());
    }
    if asked > MAX_TIMEPOINTS {
        return None;
    }
    let step = held.windows(2).map(|pair| pair[1] - pair[0]).fold(0, greatest_common_divisor).max(1);
    let starts = [(first, 1), (0, 1), (first, step), (first % step, step)];
    let fits = |&(start, step): &(u32, u32)| ((last - start) / step) as usize + 1 == asked;
    let (start, step) = starts.into_iter().find(fits)?;
    Some((start..=last).step_by(step as usize).collect())
}

fn greatest_common_divisor(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

#[cfg(test)]
mod tests {
    use elephant_testkit::golden;
    use elephant_types::CancelToken;
    use proptest::prelude::*;

    use super::*;

    /// A movie with the timepoints 0, 1, 2, 3 and 20210603, and an `.xml` that lists five timepoints, of which its setup has
    /// no image.
    fn movie_without_listed_images() -> (tempfile::TempDir, Candidate, GenerateRequest) {
        let folder = tempfile::tempdir().unwrap();
        let (movie, xml) = (folder.path().join("movie.h5"), folder.path().join("movie.xml"));
        std::fs::copy(golden("field/reading/xml/data/movie.h5"), &movie).unwrap();
        let missing = [0, 1, 2, 3, 4].map(|t| format!(r#"<MissingView timepoint="{t}" setup="0"/>"#)).concat();
        let text = format!(
            "<SpimData><SequenceDescription><ImageLoader><hdf5>movie.h5</hdf5></ImageLoader><ViewSetups><ViewSetup>
            <id>0</id></ViewSetup></ViewSetups><Timepoints><first>0</first><last>4</last></Timepoints>
            <MissingViews>{missing}</MissingViews></SequenceDescription></SpimData>"
        );
        std::fs::write(&xml, text).unwrap();
        let request = GenerateRequest {
            dataset: "fly".parse().unwrap(),
            setup: None,
            level: 0,
            is_uint16: None,
            divisor: 1.0,
            is_2d: false,
        };
        (folder, Candidate { movie, descriptions: vec![xml] }, request)
    }

    #[test]
    fn an_xml_without_images_does_not_refuse_the_movie() {
        let (_folder, candidate, request) = movie_without_listed_images();
        let plan = |asked| plan(std::slice::from_ref(&candidate), &request, Some(asked), &TaskContext::detached());
        assert_eq!(plan(&[5, 3, 4, 5]).unwrap().timepoints, [0, 1, 2, 3, 20_210_603]);
        let error = plan(&[5, 3, 4, 6]).unwrap_err().to_string();
        assert!(error.contains("no image of setup 0 at the timepoints 0 to 4"), "{error}");
    }

    #[test]
    fn looking_for_an_image_can_be_cancelled() {
        let (_folder, candidate, request) = movie_without_listed_images();
        let cancel = CancelToken::default();
        cancel.cancel();
        let context = TaskContext::new(cancel, |_| {});
        for asked in [None, Some(&[5, 3, 4, 5][..])] {
            let outcome = plan(std::slice::from_ref(&candidate), &request, asked, &context);
            assert!(matches!(outcome, Err(PipelineError::Cancelled(_))), "{outcome:?}");
        }
    }

    #[test]
    fn frames_are_counted_as_the_client_counts_them() {
        for (held, asked, expected) in [
            (&[5, 6, 7][..], 3, Some(vec![5, 6, 7])),
            (&[18], 1, Some(vec![18])),
            (&[0, 2, 4, 6, 8], 5, Some(vec![0, 2, 4, 6, 8])),
            (&[20_210_603, 20_210_604, 20_210_607], 3, Some(vec![20_210_603, 20_210_604, 20_210_607])),
            // Blank frames: where the ids have a gap, before the first, or both.
            (&[5, 6, 8, 9], 5, Some(vec![5, 6, 7, 8, 9])),
            (&[0, 1, 3, 4], 5, Some(vec![0, 1, 2, 3, 4])),
            (&[2, 3], 4, Some(vec![0, 1, 2, 3])),
            (&[2, 5], 6, Some(vec![0, 1, 2, 3, 4, 5])),
            (&[20_210_603, 20_210_605], 3, Some(vec![20_210_603, 20_210_604, 20_210_605])),
            // Every second timepoint of which one is missing.
            (&[0, 2, 6, 8], 5, Some(vec![0, 2, 4, 6, 8])),
            (&[5, 9, 11], 4, Some(vec![5, 7, 9, 11])),
            (&[4, 6, 10], 6, Some(vec![0, 2, 4, 6, 8, 10])),
            // Another movie.
            (&[0, 1], 3, None),
            (&[0, 1, 2], 2, None),
            (&[5, 6, 7], 9, None),
            (&[5, 6, 7], 0, None),
            (&[], 0, None),
            (&[0, u32::MAX], u32::MAX as usize + 1, None),
        ] {
            assert_eq!(frames(held, asked), expected, "{held:?}, {asked}");
        }
    }

    proptest! {
        #[test]
        fn no_timepoint_is_lost(held in prop::collection::btree_set(any::<u32>(), 0..6), asked in 0..2_000_000_usize) {
            let held: Vec<u32> = held.into_iter().collect();
            if let Some(frames) = frames(&held, asked) {
                prop_assert_eq!(frames.len(), asked);
                prop_assert!(held.iter().all(|id| frames.contains(id)));
            }
        }

        #[test]
        fn small_movies_lose_no_timepoint(held in prop::collection::btree_set(0..20_u32, 1..8), asked in 0..25_usize) {
            let held: Vec<u32> = held.into_iter().collect();
            if let Some(frames) = frames(&held, asked) {
                prop_assert_eq!(frames.len(), asked);
                prop_assert!(held.iter().all(|id| frames.contains(id)));
            }
        }
    }
}
