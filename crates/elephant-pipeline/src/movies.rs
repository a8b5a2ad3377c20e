//! Which file in a dataset's folder is its movie.
//!
//! The movie that was uploaded last counts before those that somebody put into the folder: a client has no other way to
//! replace one. It uploads partitions first and their main file at the end.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    path::{Path, PathBuf},
};

use elephant_bdv::{BdvError, BdvFile, SpimData};
use elephant_fs::{FsError, metadata};
use elephant_hdf5::is_hdf5;
use elephant_types::{DatasetName, VoxelSize};

use crate::{PipelineError, Workspace};

/// How movies end; others are recognised by their first bytes.
const EXTENSIONS: [&str; 3] = ["h5", "hdf5", "hdf"];

/// A file that may be the movie.
#[derive(Debug)]
pub(crate) struct Candidate {
    /// The `.h5` file, or an `.xml` that names one elsewhere than beside itself.
    pub movie: PathBuf,
    /// The `.xml` files that name the movie, most likely first.
    pub descriptions: Vec<PathBuf>,
}

/// An `.xml` file that names a movie.
#[derive(Debug)]
struct Description {
    path: PathBuf,
    /// The movie's name, without its folder.
    movie: String,
}

/// The files that may be the movie of a dataset, most likely first ([`Rank`]). `uploads` are names of uploaded files, the
/// newest one last. Partitions, to which a main file beside them refers, and older uploads are left out.
///
/// # Errors
/// When the folder cannot be listed, an `.xml` cannot be read, or all that is there are files that cannot be read or links
/// that lead out of the datasets.
pub(crate) fn candidates(
    workspace: &Workspace,
    dataset: &DatasetName,
    uploads: &[String],
) -> Result<Vec<Candidate>, PipelineError> {
    let folder = Folder::open(workspace, dataset, uploads)?;
    let known = Known::of(&folder, uploads);
    let beside = folder.movies.iter().filter_map(|(name, path)| {
        let descriptions = known.descriptions.get(name.as_str()).cloned().unwrap_or_default();
        Some((folder.rank(name, &known)?, Candidate { movie: path.clone(), descriptions }))
    });
    let is_elsewhere = |description: &&Description| {
        !folder.movies.contains_key(&description.movie)
            && !matches!(BdvFile::open(&description.path), Err(BdvError::NoMovie { .. }))
    };
    let elsewhere = folder.descriptions.iter().filter(is_elsewhere).map(|description| {
        (Rank::Described, Candidate { movie: description.path.clone(), descriptions: vec![description.path.clone()] })
    });
    let mut ranked: Vec<(Rank, Candidate)> = beside.chain(elsewhere).collect();
    // Within a rank the names' order stays.
    ranked.sort_by_key(|&(rank, _)| rank);
    match folder.unusable {
        Some(error) if ranked.is_empty() => Err(error),
        _ => Ok(ranked.into_iter().map(|(_, candidate)| candidate).collect()),
    }
}

/// The size of the movie's voxels, if an `.xml` file gives it in micrometres. `uploads` as for [`candidates`].
///
/// # Errors
/// As [`candidates`].
pub(crate) fn described_voxel_size(
    workspace: &Workspace,
    dataset: &DatasetName,
    uploads: &[String],
) -> Result<Option<VoxelSize>, PipelineError> {
    const MICROMETERS: [&str; 8] =
        ["micrometer", "micrometers", "micrometre", "micrometres", "micron", "microns", "um", "\u{b5}m"];
    let Some(movie) = candidates(workspace, dataset, uploads)?.into_iter().next() else { return Ok(None) };
    let Some(description) = movie.descriptions.first() else { return Ok(None) };
    let setups = SpimData::read(description)?.setups;
    let Some(setup) = setups.first() else { return Ok(None) };
    // The Greek letter looks the same as the micro sign.
    let unit = setup.unit.as_deref().unwrap_or_default().trim().to_lowercase().replace('\u{3bc}', "\u{b5}");
    Ok(setup.voxel_size.filter(|_| MICROMETERS.contains(&unit.as_str())))
}

/// How likely a file is the movie, most likely first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    /// The upload that was completed last, apart from partitions.
    Uploaded,
    /// Put there by hand, and an `.xml` names it.
    Described,
    /// Put there by hand as `NAME.h5` for a dataset `lab/NAME`.
    Named,
    /// Put there by hand.
    Other,
    /// The upload that was completed last, and has the name of a partition.
    UploadedPartition,
    /// Put there by hand with the name of a partition, but no main file is there.
    Partition,
    /// Put there by hand, and known as HDF5 by its first bytes only.
    Unnamed,
}

/// What is in a dataset's folder.
struct Folder {
    /// The dataset's name without the folders above.
    leaf: String,
    /// Paths of the HDF5 files by name, uploads in folders below included.
    movies: BTreeMap<String, PathBuf>,
    /// Those of the same name as the dataset first, then in alphabetical order.
    descriptions: Vec<Description>,
    /// Why a file is left out that may be a movie: a link to the outside, or one that cannot be read.
    unusable: Option<PipelineError>,
}

impl Folder {
    fn open(workspace: &Workspace, dataset: &DatasetName, uploads: &[String]) -> Result<Self, PipelineError> {
        let leaf = dataset.as_str().rsplit('/').next().unwrap_or_default().to_owned();
        let mut folder = Self { leaf, movies: BTreeMap::new(), descriptions: Vec::new(), unusable: None };
        let mut names = list(&workspace.dataset(dataset)?)?;
        names.extend(uploads.iter().filter(|name| name.contains('/')).cloned());
        for name in names {
            let path = match workspace.datasets().resolve(AsRef::<Path>::as_ref(dataset).join(&name)) {
                Ok(path) => path,
                Err(error) => {
                    folder.unusable = Some(error.into());
                    continue;
                }
            };
            if !metadata(&path)?.is_some_and(|found| found.is_file()) {
                continue;
            }
            if has_extension(&name, &["xml"]) {
                match SpimData::read(&path) {
                    Ok(data) => {
                        let movie = data.h5_name().unwrap_or_default().to_owned();
                        folder.descriptions.push(Description { path, movie });
                    }
                    // It may say which timepoints the movie has; without it another dataset would come out.
                    Err(error @ BdvError::Io { .. }) => return Err(error.into()),
                    Err(error) => tracing::debug!(%dataset, %error, "an .xml beside the movie is ignored"),
                }
            } else if is_named_as_movie(&name) {
                folder.movies.insert(name, path);
            } else {
                match is_hdf5(&path) {
                    Ok(true) => drop(folder.movies.insert(name, path)),
                    Ok(false) => {}
                    Err(error) => folder.unusable = Some(error.into()),
                }
            }
        }
        let leaf = folder.leaf.clone();
        folder
            .descriptions
            .sort_by_key(|description| (description.path.file_stem() != Some(leaf.as_ref()), description.path.clone()));
        Ok(folder)
    }

    /// `None` for what is no movie of its own, or not any more.
    fn rank(&self, name: &str, known: &Known<'_>) -> Option<Rank> {
        if known.uploads.contains(name) {
            return if known.newest_main == Some(name) {
                Some(Rank::Uploaded)
            } else {
                known.newest.filter(|newest| *newest == name).map(|_| Rank::UploadedPartition)
            };
        }
        let stem = name.rsplit_once('.').map_or(name, |(stem, _)| stem);
        if known.has_main_file(name) {
            None
        } else if known.descriptions.contains_key(name) {
            Some(Rank::Described)
        } else if !is_named_as_movie(name) {
            Some(Rank::Unnamed)
        } else if stem == self.leaf {
            Some(Rank::Named)
        } else if main_stem(name).is_some() {
            Some(Rank::Partition)
        } else {
            Some(Rank::Other)
        }
    }
}

/// What the ranks of all files depend on, found once: there may be thousands of files.
struct Known<'a> {
    uploads: HashSet<&'a str>,
    /// The newest upload that is there.
    newest: Option<&'a str>,
    /// The newest upload that is there and no partition.
    newest_main: Option<&'a str>,
    /// Names of the movies without their extension.
    stems: HashSet<&'a str>,
    /// The `.xml` files that name a movie.
    descriptions: HashMap<&'a str, Vec<PathBuf>>,
}

impl<'a> Known<'a> {
    fn of(folder: &'a Folder, uploads: &'a [String]) -> Self {
        let mut known = Self {
            uploads: uploads.iter().map(String::as_str).collect(),
            newest: None,
            newest_main: None,
            stems: folder.movies.keys().filter_map(|name| Some(name.rsplit_once('.')?.0)).collect(),
            descriptions: HashMap::new(),
        };
        for description in &folder.descriptions {
            known.descriptions.entry(&description.movie).or_default().push(description.path.clone());
        }
        let mut there = uploads.iter().rev().map(String::as_str).filter(|upload| folder.movies.contains_key(*upload));
        known.newest = there.clone().next();
        known.newest_main = there.find(|upload| !known.has_main_file(upload));
        known
    }

    /// Whether a file has the name of a partition, and the main file is there.
    fn has_main_file(&self, name: &str) -> bool {
        main_stem(name).is_some_and(|main| self.stems.contains(main))
    }
}

/// The names in a folder without the hidden ones; none where there is no folder.
fn list(folder: &Path) -> Result<Vec<String>, FsError> {
    if metadata(folder)?.is_none() {
        return Ok(Vec::new());
    }
    let names = folder.read_dir().and_then(|entries| {
        entries.map(|entry| Ok(entry?.file_name().into_string().unwrap_or_default())).collect::<Result<Vec<_>, _>>()
    });
    let names = names.map_err(FsError::io("list", folder))?;
    Ok(names.into_iter().filter(|name| !name.is_empty() && !name.starts_with('.')).collect())
}

/// Whether a file's name is that of a movie.
pub(crate) fn is_named_as_movie(name: &str) -> bool {
    has_extension(name, &EXTENSIONS)
}

fn has_extension(name: &str, extensions: &[&str]) -> bool {
    let extension = Path::new(name).extension().unwrap_or_default();
    extensions.iter().any(|wanted| extension.eq_ignore_ascii_case(wanted))
}

/// The stem of the main file, if the name is one that BigDataViewer gives to a partition: `MAIN-SETUP-TIME.h5` with at
/// least two digits each.
fn main_stem(name: &str) -> Option<&str> {
    let (stem, _) = name.rsplit_once('.')?;
    let (rest, time) = stem.rsplit_once('-')?;
    let (main, setup) = rest.rsplit_once('-')?;
    let is_number = |part: &str| part.len() >= 2 && part.bytes().all(|byte| byte.is_ascii_digit());
    (is_number(time) && is_number(setup)).then_some(main)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const SIGNATURE: &[u8; 8] = b"\x89HDF\r\n\x1a\n";
    const SPIM_DATA: &str = r#"<SpimData version="0.2"><BasePath type="relative">.</BasePath><SequenceDescription>
        <ImageLoader format="bdv.hdf5"><hdf5 type="relative">FILE</hdf5></ImageLoader></SequenceDescription></SpimData>"#;

    /// A dataset `lab/fly` with files of these names; `x.xml>y.h5` is an `.xml` that names `y.h5`, and what ends in `!`
    /// is an HDF5 file by its first bytes. The names of the candidates.
    fn movies(files: &[&str], uploads: &[&str]) -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        let workspace = Workspace::open(folder.path()).unwrap();
        let dataset: DatasetName = "lab/fly".parse().unwrap();
        let fly = workspace.dataset(&dataset).unwrap();
        fs::create_dir_all(fly.join("sub")).unwrap();
        for file in files {
            match (file.split_once('>'), file.strip_suffix('!')) {
                (Some((xml, h5)), _) => fs::write(fly.join(xml), SPIM_DATA.replace("FILE", h5)).unwrap(),
                (_, Some(name)) => fs::write(fly.join(name), [&[0; 512], &SIGNATURE[..]].concat()).unwrap(),
                _ => fs::write(fly.join(file), "").unwrap(),
            }
        }
        let uploads: Vec<String> = uploads.iter().copied().map(str::to_owned).collect();
        let found = candidates(&workspace, &dataset, &uploads).unwrap();
        found.into_iter().map(|it| it.movie.strip_prefix(&fly).unwrap().display().to_string()).collect()
    }

    #[test]
    fn the_movie_is_the_main_file() {
        assert!(movies(&[".upload-a.h5", "a.xml", "notes.txt"], &[]).is_empty());
        assert_eq!(movies(&["b-00-00.h5", "b-00-01.h5"], &[]), ["b-00-00.h5", "b-00-01.h5"]);
        assert_eq!(movies(&["b-00-00.h5", "b-00-01.h5", "b.h5"], &[]), ["b.h5"]);
        assert_eq!(movies(&["a.h5", "fly.h5", "z-01-02.h5"], &[]), ["fly.h5", "a.h5", "z-01-02.h5"]);
    }

    #[test]
    fn the_voxel_size_is_known_in_micrometres_only() {
        for (unit, is_known) in [
            ("micrometer", true),
            (" \u{3bc}m ", true),
            ("\u{b5}m", true),
            ("pixel", false),
            ("mm", false),
            ("", false),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let workspace = Workspace::open(folder.path()).unwrap();
            let dataset: DatasetName = "fly".parse().unwrap();
            assert_eq!(described_voxel_size(&workspace, &dataset, &[]).unwrap(), None);
            let fly = workspace.dataset(&dataset).unwrap();
            fs::create_dir_all(&fly).unwrap();
            fs::write(fly.join("m.h5"), SIGNATURE).unwrap();
            assert_eq!(described_voxel_size(&workspace, &dataset, &[]).unwrap(), None);
            let setup = format!(
                "<ViewSetups><ViewSetup><id>0</id><voxelSize><unit>{unit}</unit><size>0.5 1.0 2.0</size></voxelSize>\
                 </ViewSetup></ViewSetups></SequenceDescription>"
            );
            let document = SPIM_DATA.replace("FILE", "m.h5").replace("</SequenceDescription>", &setup);
            fs::write(fly.join("m.xml"), document).unwrap();
            let found = described_voxel_size(&workspace, &dataset, &[]).unwrap();
            assert_eq!(found.map(VoxelSize::zyx), is_known.then_some([2.0, 1.0, 0.5]), "{unit:?}");
        }
    }

    #[test]
    fn every_way_to_write_the_extension_counts() {
        for name in ["a.h5", "a.H5", "a.hdf5", "a.HDF5", "a.hdf", "a.Hdf"] {
            assert_eq!(movies(&[name], &[]), [name]);
            assert_eq!(movies(&[name], &[name]), [name]);
        }
        assert_eq!(movies(&["a.ims!", "movie!", "b.h5"], &[]), ["b.h5", "a.ims", "movie"]);
    }

    #[test]
    fn the_newest_upload_counts_before_what_is_there() {
        assert_eq!(movies(&["a.h5", "z.h5"], &["a.h5", "z.h5"]), ["z.h5"]);
        assert_eq!(movies(&["a.h5", "z.h5"], &["z.h5", "a.h5"]), ["a.h5"]);
        assert_eq!(movies(&["a.h5", "z.h5", "fly.h5"], &["fly.h5", "z.h5"]), ["z.h5", "a.h5"]);
        assert_eq!(movies(&["a.h5"], &["a.h5", "gone.h5"]), ["a.h5"], "somebody deleted the newest");
        assert_eq!(movies(&["a.h5", "sub/b.h5"], &["sub/b.h5"]), ["sub/b.h5", "a.h5"]);
        // Partitions come first from the client, and in any order from others.
        assert_eq!(movies(&["m.h5", "m-00-00.h5"], &["m-00-00.h5", "m.h5"]), ["m.h5"]);
        assert_eq!(movies(&["m.h5", "m-00-00.h5"], &["m.h5", "m-00-00.h5"]), ["m.h5", "m-00-00.h5"]);
        assert_eq!(movies(&["m.h5", "m-00-00.h5"], &["m-00-00.h5"]), ["m.h5", "m-00-00.h5"]);
        assert_eq!(movies(&["fly-2021-03.h5", "a.h5"], &["a.h5", "fly-2021-03.h5"]), ["fly-2021-03.h5"]);
    }

    #[test]
    fn thousands_of_files_are_ranked_at_once() {
        let uploads: Vec<String> = (0..10_000).map(|part| format!("m-00-{part:05}.h5")).collect();
        let movies = uploads.iter().map(|name| (name.clone(), PathBuf::from(name))).collect();
        let mut folder = Folder { leaf: "fly".to_owned(), movies, descriptions: Vec::new(), unusable: None };
        folder.movies.insert("m.h5".to_owned(), PathBuf::from("m.h5"));
        let known = Known::of(&folder, &uploads);
        let ranks: Vec<Rank> = folder.movies.keys().filter_map(|name| folder.rank(name, &known)).collect();
        assert!(ranks.contains(&Rank::UploadedPartition) && ranks.contains(&Rank::Other) && ranks.len() == 2);
    }

    #[test]
    fn what_an_xml_names_counts_before_other_names() {
        assert_eq!(movies(&["Cam_00.h5", "fly.h5", "m.xml>m.h5", "m.h5"], &[]), ["m.h5", "fly.h5", "Cam_00.h5"]);
        assert_eq!(movies(&["a.h5", "m.xml>C:\\data\\m.hdf5", "m.hdf5"], &[]), ["m.hdf5", "a.h5"]);
        assert_eq!(movies(&["a.h5", "m.xml>sub/m.h5", "sub/m.h5"], &[]), ["m.xml", "a.h5"]);
        assert_eq!(movies(&["a.h5", "u.h5", "m.XML>m.h5", "m.h5"], &["u.h5"]), ["u.h5", "m.h5", "a.h5"]);
        assert_eq!(movies(&["a.h5", "m.xml"], &[]), ["a.h5"], "not an XML file");
    }

    #[test]
    fn links_to_the_outside_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("secret.h5"), SIGNATURE).unwrap();
        let workspace = Workspace::open(folder.path()).unwrap();
        let dataset: DatasetName = "fly".parse().unwrap();
        let fly = workspace.dataset(&dataset).unwrap();
        fs::create_dir(&fly).unwrap();
        std::os::unix::fs::symlink(outside.path().join("secret.h5"), fly.join("fly.h5")).unwrap();
        let error = candidates(&workspace, &dataset, &[]).unwrap_err().to_string();
        assert!(error.contains("leads out of its folder"), "{error}");
        fs::write(fly.join("a.h5"), "").unwrap();
        assert_eq!(candidates(&workspace, &dataset, &[]).unwrap().len(), 1);
    }
}
