//! Writing a GEFF, as Zarr version 3.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use elephant_fs::{FsError, StagingDir};
use elephant_image::Dims;
use elephant_types::{SpotId, TaskContext};
use serde_json::{Map, Value, json};
use zarrs::{
    array::{ArrayBuilder, DataType, Element, FillValue, codec::GzipCodec, data_type},
    filesystem::FilesystemStore,
    group::GroupBuilder,
};

use super::{COVARIANCE, KEY, RADIUS, SCORE};
use crate::{ExportError, TrackedMovie, movie::mean_radius_um};

/// The version of the specification.
const VERSION: &str = "1.1";
/// Rows of a chunk.
const CHUNK: u64 = 1 << 16;
/// The most different tags.
const MOST_TAGS: usize = 64;

/// Writes a movie as a GEFF folder, whose name usually ends in `.geff`. An earlier GEFF of this name is replaced; the parent
/// folder is created if it is missing.
///
/// Nodes are numbered as the spots. They have `t` in frames and `z`, `y`, `x` in micrometres (2-D: no `z`), `covariance`,
/// `radius`, `score`, the numbers of their track and lineage, and a truth value `tag_NAME` for each tag. Edges go forward in
/// time; they have a `score` if the movie has.
///
/// # Errors
/// For an invalid movie, more than 64 tags, a folder of this name that is no GEFF, a full disk, and when cancelled. An
/// earlier GEFF is unchanged then.
pub fn write_geff(movie: &TrackedMovie<'_>, path: &Path, task: &TaskContext) -> Result<(), ExportError> {
    movie.check()?;
    task.check()?;
    let (Some(name), Some(parent)) = (path.file_name().and_then(|name| name.to_str()), path.parent()) else {
        return Err(failed(path, "its name is not text"));
    };
    let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    fs::create_dir_all(parent).map_err(FsError::io("create", parent))?;
    let staging = StagingDir::begin(parent, "writing a GEFF")?;
    refuse_other_folder(path)?;
    let folder = staging.path().join(name);
    fs::create_dir(&folder).map_err(FsError::io("create", &folder))?;
    let store = FilesystemStore::new(&folder).map_err(|error| failed(path, error))?;
    Writer { movie, path: path.to_owned(), store: Arc::new(store), task }.write()?;
    task.check()?;
    Ok(staging.publish(&[name])?)
}

/// Something else of the same name must not be lost.
fn refuse_other_folder(path: &Path) -> Result<(), ExportError> {
    let occupied = |name: &str| ExportError::Occupied { path: path.to_owned(), name: name.to_owned() };
    match fs::read_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => Err(occupied("the content")),
        Err(error) => Err(FsError::io("list", path)(error).into()),
        Ok(entries) => {
            for entry in entries {
                let name = entry.map_err(FsError::io("list", path))?.file_name();
                let name = name.to_string_lossy();
                if !matches!(&*name, "nodes" | "edges" | "zarr.json" | ".zgroup" | ".zattrs" | ".zmetadata") {
                    return Err(occupied(&name));
                }
            }
            Ok(())
        }
    }
}

/// A failure of the Zarr library.
fn failed(path: &Path, error: impl std::fmt::Display) -> ExportError {
    ExportError::Fs(FsError::io("write", path)(io::Error::other(error.to_string())))
}

struct Writer<'a> {
    movie: &'a TrackedMovie<'a>,
    path: PathBuf,
    store: Arc<FilesystemStore>,
    task: &'a TaskContext,
}

impl Writer<'_> {
    fn write(&self) -> Result<(), ExportError> {
        let movie = self.movie;
        let mut node_props = Map::new();
        let mut edge_props = Map::new();
        for group in ["/nodes", "/nodes/props", "/edges", "/edges/props"] {
            self.group(group, Map::new())?;
        }
        self.write_nodes(&mut node_props)?;
        self.write_edges(&mut edge_props)?;
        let position = |axis: usize| movie.spots.iter().map(move |spot| spot.center_um[axis]);
        let axis = |name: &str, kind: &str, unit: &str, values: &mut dyn Iterator<Item = f64>| {
            let mut axis = json!({"name": name, "type": kind, "unit": unit});
            if let Some([min, max]) = range(values) {
                axis["min"] = min.into();
                axis["max"] = max.into();
            }
            axis
        };
        let mut axes = vec![axis("t", "time", "frame", &mut movie.spots.iter().map(|spot| spot.t as f64))];
        for (index, name) in self.axes() {
            axes.push(axis(name, "space", "micrometer", &mut position(*index)));
        }
        let [t, z, y, x] = movie.shape;
        let metadata = json!({
            "geff_version": VERSION,
            "directed": true,
            "axes": axes,
            "node_props_metadata": node_props,
            "edge_props_metadata": edge_props,
            "sphere": RADIUS,
            "ellipsoid": COVARIANCE,
            "track_node_props": {"tracklet": "track_id", "lineage": "lineage_id"},
            "extra": {"elephant": {
                "name": movie.name,
                "voxel_size_um": movie.voxel_size.zyx(),
                "shape": [t, z, y, x],
            }},
        });
        self.group("/", Map::from_iter([(KEY.to_owned(), metadata)]))
    }

    /// The space axes: their index in (z, y, x) and their name.
    fn axes(&self) -> &'static [(usize, &'static str)] {
        match self.movie.dims {
            Dims::ThreeD => &[(0, "z"), (1, "y"), (2, "x")],
            Dims::TwoD => &[(1, "y"), (2, "x")],
        }
    }

    fn write_nodes(&self, props: &mut Map<String, Value>) -> Result<(), ExportError> {
        let movie = self.movie;
        let count = movie.spots.len() as u64;
        let ids: Vec<u64> = (0..count).collect();
        self.array("/nodes/ids", &[count], data_type::uint64(), 0_u64, &ids)?;
        let nodes = "/nodes/props";
        let times: Vec<u64> = movie.spots.iter().map(|spot| spot.t as u64).collect();
        self.property(nodes, "t", &[count], "uint64", 0_u64, &times, props)?;
        for (axis, name) in self.axes() {
            let values: Vec<f64> = movie.spots.iter().map(|spot| spot.center_um[*axis]).collect();
            self.property(nodes, name, &[count], "float64", 0.0_f64, &values, props)?;
        }
        let axes: Vec<usize> = self.axes().iter().map(|(axis, _)| *axis).collect();
        let mut entries = Vec::with_capacity(movie.spots.len() * axes.len() * axes.len());
        for spot in movie.spots {
            for a in &axes {
                entries.extend(axes.iter().map(|b| spot.covariance_um2[*a][*b]));
            }
        }
        let side = axes.len() as u64;
        self.property(nodes, COVARIANCE, &[count, side, side], "float64", 0.0_f64, &entries, props)?;
        self.task.check()?;
        let radii: Vec<f64> = movie.spots.iter().map(|spot| mean_radius_um(&spot.covariance_um2, movie.dims)).collect();
        self.property(nodes, RADIUS, &[count], "float64", 0.0_f64, &radii, props)?;
        let scores: Vec<f64> = movie.spots.iter().map(|spot| spot.quality).collect();
        self.property(nodes, SCORE, &[count], "float64", 0.0_f64, &scores, props)?;
        let tracks = movie.lineage.tracks();
        let numbers: Vec<u64> = movie.lineage.spots().map(|spot| tracks.of_spot(spot).get().into()).collect();
        self.property(nodes, "track_id", &[count], "uint64", 0_u64, &numbers, props)?;
        self.property(nodes, "lineage_id", &[count], "uint64", 0_u64, &self.lineages(), props)?;
        for (tag, values) in self.tags()? {
            self.property(nodes, &tag, &[count], "bool", false, &values, props)?;
        }
        self.task.check()?;
        Ok(())
    }

    fn write_edges(&self, props: &mut Map<String, Value>) -> Result<(), ExportError> {
        let links: Vec<_> = self.movie.lineage.links().collect();
        let count = links.len() as u64;
        let ids: Vec<u64> = links.iter().flat_map(|link| [link.source.0.into(), link.target.0.into()]).collect();
        self.array("/edges/ids", &[count, 2], data_type::uint64(), 0_u64, &ids)?;
        if self.movie.link_scores.is_some() {
            let scores: Vec<Option<f64>> = links.iter().map(|link| self.movie.score_of(*link)).collect();
            let values: Vec<f64> = scores.iter().map(|score| score.unwrap_or(0.0)).collect();
            self.property("/edges/props", SCORE, &[count], "float64", 0.0_f64, &values, props)?;
            let missing: Vec<bool> = scores.iter().map(Option::is_none).collect();
            self.array("/edges/props/score/missing", &[count], data_type::bool(), false, &missing)?;
        }
        Ok(())
    }

    /// For each spot the number of its tree, from 1 in the order of roots.
    fn lineages(&self) -> Vec<u64> {
        let lineage = self.movie.lineage;
        let mut numbers = vec![0; lineage.len()];
        for (number, root) in (1..).zip(lineage.roots()) {
            let mut open: Vec<SpotId> = vec![root];
            while let Some(spot) = open.pop() {
                numbers[spot.index()] = number;
                open.extend(lineage.children(spot));
            }
        }
        numbers
    }

    /// A property for each tag, and who has it.
    fn tags(&self) -> Result<Vec<(String, Vec<bool>)>, ExportError> {
        let Some(tags) = self.movie.tags else { return Ok(Vec::new()) };
        let names: BTreeSet<&str> = tags.iter().map(|tag| &**tag).filter(|tag| !tag.is_empty()).collect();
        if names.len() > MOST_TAGS {
            return Err(ExportError::InvalidMovie(format!("it has more than {MOST_TAGS} different tags")));
        }
        let mut properties: Vec<(String, Vec<bool>)> = Vec::new();
        for tag in names {
            // The name becomes a folder.
            let safe: String =
                tag.chars().map(|c| if c.is_alphanumeric() || "-_".contains(c) { c } else { '_' }).take(60).collect();
            let mut name = format!("tag_{safe}");
            while properties.iter().any(|(other, _)| *other == name) {
                name.push('_');
            }
            properties.push((name, tags.iter().map(|other| **other == *tag).collect()));
        }
        Ok(properties)
    }

    fn group(&self, path: &str, attributes: Map<String, Value>) -> Result<(), ExportError> {
        let group = GroupBuilder::new().attributes(attributes).build(Arc::clone(&self.store), path);
        let group = group.map_err(|error| failed(&self.path, error))?;
        group.store_metadata().map_err(|error| failed(&self.path, error))
    }

    #[expect(clippy::too_many_arguments, reason = "a table row each")]
    fn property<T: Element + Copy>(
        &self,
        group: &str,
        name: &str,
        shape: &[u64],
        kind: &str,
        fill: T,
        values: &[T],
        metadata: &mut Map<String, Value>,
    ) -> Result<(), ExportError>
    where
        FillValue: From<T>,
    {
        let (data_type, unit) = match (kind, name) {
            ("uint64", "t") => (data_type::uint64(), Some("frame")),
            ("uint64", _) => (data_type::uint64(), None),
            ("bool", _) => (data_type::bool(), None),
            (_, "z" | "y" | "x" | RADIUS) => (data_type::float64(), Some("micrometer")),
            (_, COVARIANCE) => (data_type::float64(), Some("micrometer^2")),
            _ => (data_type::float64(), None),
        };
        self.group(&format!("{group}/{name}"), Map::new())?;
        self.array(&format!("{group}/{name}/values"), shape, data_type, fill, values)?;
        let mut entry = json!({"identifier": name, "dtype": kind, "varlength": false});
        if let Some(unit) = unit {
            entry["unit"] = unit.into();
        }
        metadata.insert(name.to_owned(), entry);
        Ok(())
    }

    fn array<T: Element + Copy>(
        &self,
        path: &str,
        shape: &[u64],
        data_type: DataType,
        fill: T,
        values: &[T],
    ) -> Result<(), ExportError>
    where
        FillValue: From<T>,
    {
        let failed = |error: &dyn std::fmt::Display| failed(&self.path, error);
        let mut chunk = shape.to_vec();
        chunk[0] = shape[0].clamp(1, CHUNK);
        let codec = GzipCodec::new(5).map_err(|error| failed(&error))?;
        let array = ArrayBuilder::new(shape.to_vec(), chunk, data_type, FillValue::from(fill))
            .bytes_to_bytes_codecs(vec![Arc::new(codec)])
            .build(Arc::clone(&self.store), path)
            .map_err(|error| failed(&error))?;
        array.store_metadata().map_err(|error| failed(&error))?;
        if !values.is_empty() {
            array.store_array_subset(&array.subset_all(), values).map_err(|error| failed(&error))?;
        }
        Ok(())
    }
}

/// Minimum and maximum; `None` without values.
fn range(values: &mut dyn Iterator<Item = f64>) -> Option<[f64; 2]> {
    values.fold(None, |range, value| match range {
        None => Some([value, value]),
        Some([min, max]) => Some([min.min(value), max.max(value)]),
    })
}
