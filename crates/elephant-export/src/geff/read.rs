//! Reading a GEFF of any program, in Zarr version 2 or 3.

use std::{collections::HashMap, fs, path::Path, sync::Arc};

use elephant_fs::FsError;
use elephant_image::Dims;
use elephant_types::{Lineage, Link, Spot, SpotId, VoxelSize};
use serde::Deserialize;
use zarrs::{
    array::{Array, data_type},
    filesystem::FilesystemStore,
    group::Group,
};

use super::{KEY, SCORE};
use crate::{ExportError, ImportedMovie};

/// The most nodes.
const MOST_NODES: u64 = 1 << 24;
/// The most numbers of an array or chunk: a covariance for each node.
const MOST_NUMBERS: u64 = 9 * MOST_NODES;

/// The part of the metadata that is used.
#[derive(Deserialize)]
struct Metadata {
    axes: Option<Vec<Axis>>,
    sphere: Option<String>,
    ellipsoid: Option<String>,
    #[serde(default)]
    extra: serde_json::Value,
}

#[derive(Deserialize)]
struct Axis {
    name: String,
    #[serde(rename = "type")]
    kind: Option<String>,
    unit: Option<String>,
    scale: Option<f64>,
    scaled_unit: Option<String>,
    offset: Option<f64>,
}

/// Micrometres in a unit of length; `None` for one that is not known.
fn micrometers(unit: &str) -> Option<f64> {
    Some(match unit {
        "angstrom" => 1e-4,
        "picometer" => 1e-6,
        "nanometer" => 1e-3,
        "micrometer" | "micron" | "um" | "\u{b5}m" | "\u{3bc}m" => 1.0,
        "millimeter" => 1e3,
        "centimeter" => 1e4,
        "decimeter" => 1e5,
        "meter" => 1e6,
        _ => return None,
    })
}

/// Makes spots and lineage from a GEFF folder. Positions in pixels, or without a unit, are multiplied by `voxel_size`, which
/// is taken from the file where it was written by this program, and is 1 otherwise if not given.
///
/// Nodes become spots in the file's order. Times in frames, or without a unit, are timepoints; others are divided by their
/// smallest difference. A spot's ellipsoid is the property that the metadata name as `ellipsoid`, else a ball with the radius
/// named as `sphere`, else a ball of `default_radius_um`. The quality is the property `score`, or 1.
///
/// # Errors
/// When a file cannot be read; without one time axis and two or three space axes; for values that are missing or not finite,
/// negative timepoints, edges to unknown nodes, nodes with two parents, and more than 16,777,216 nodes.
pub fn read_geff(
    path: &Path,
    voxel_size: Option<VoxelSize>,
    default_radius_um: f64,
) -> Result<ImportedMovie, ExportError> {
    // The library would create nothing, but its message is worse.
    fs::read_dir(path).map_err(FsError::io("list", path))?;
    let store = FilesystemStore::new(path).map_err(|error| invalid(path, error.to_string()))?;
    let geff = Geff { path, store: Arc::new(store) };
    let metadata = geff.metadata()?;
    let ids = geff.integers("/nodes/ids")?.ok_or_else(|| geff.invalid("it has no nodes/ids"))?;
    let count = ids.len();
    let elephant = &metadata.extra["elephant"];
    let own: Option<VoxelSize> = serde_json::from_value(elephant["voxel_size_um"].clone()).ok();
    let voxel_size = voxel_size.or(own);
    let axes = Axes::new(&geff, &metadata, voxel_size)?;
    let times = geff.timepoints(axes.time, count)?;
    let mut spots: Vec<Spot> = times
        .iter()
        .map(|&t| Spot { t: t as usize, center_um: [0.0; 3], covariance_um2: [[0.0; 3]; 3], quality: 1.0 })
        .collect();
    for space in &axes.space {
        let values = geff.scalars(&space.name, count)?;
        for (spot, value) in spots.iter_mut().zip(values) {
            spot.center_um[space.axis] = value * space.scale + space.offset;
        }
    }
    geff.fill_covariances(&metadata, &axes, default_radius_um, &mut spots)?;
    if let Some(scores) = geff.optional_scalars(SCORE, count)? {
        spots.iter_mut().zip(scores).for_each(|(spot, score)| spot.quality = score);
    }
    let is_finite = |spot: &Spot| spot.covariance_um2.iter().flatten().chain(&spot.center_um).all(|n| n.is_finite());
    if let Some(index) = spots.iter().position(|spot| !is_finite(spot) || !spot.quality.is_finite()) {
        return Err(geff.invalid(format!("a value of node {} is not finite", ids[index])));
    }
    let links = geff.links(&ids, &times)?;
    let lineage =
        Lineage::new(times, links).map_err(|source| ExportError::Lineage { path: path.to_owned(), source })?;
    let shape: Option<[usize; 4]> = serde_json::from_value(elephant["shape"].clone()).ok();
    let dims = if axes.space.len() == 2 { Dims::TwoD } else { Dims::ThreeD };
    Ok(ImportedMovie { spots, lineage, numbers: ids, voxel_size, shape, dims })
}

fn invalid(path: &Path, reason: impl Into<String>) -> ExportError {
    ExportError::InvalidFile { path: path.to_owned(), format: "GEFF", reason: reason.into() }
}

/// Where positions and times are.
struct Axes<'a> {
    time: &'a Axis,
    space: Vec<Space>,
}

/// A space axis.
struct Space {
    name: String,
    /// Its index in (z, y, x).
    axis: usize,
    /// From its values to micrometres.
    scale: f64,
    offset: f64,
}

impl<'a> Axes<'a> {
    fn new(geff: &Geff<'_>, metadata: &'a Metadata, voxel_size: Option<VoxelSize>) -> Result<Self, ExportError> {
        let axes = metadata.axes.as_deref().unwrap_or_default();
        let is_time = |axis: &&Axis| match axis.kind.as_deref() {
            Some(kind) => kind == "time",
            None => matches!(&*axis.name, "t" | "time" | "frame"),
        };
        let is_space = |axis: &&Axis| match axis.kind.as_deref() {
            Some(kind) => kind == "space",
            None => matches!(&*axis.name, "z" | "y" | "x"),
        };
        let times: Vec<&Axis> = axes.iter().filter(is_time).collect();
        let spaces: Vec<&Axis> = axes.iter().filter(is_space).collect();
        let (&[time], 2..=3) = (&times[..], spaces.len()) else {
            let (t, s) = (times.len(), spaces.len());
            return Err(
                geff.invalid(format!("it has {t} time axes and {s} space axes; one and two or three are needed"))
            );
        };
        let first = 3 - spaces.len();
        let by_name = |axis: &Axis| ["z", "y", "x"].iter().position(|name| *name == axis.name.to_lowercase());
        let mut named: Vec<usize> = spaces.iter().filter_map(|axis| by_name(axis)).collect();
        named.sort_unstable();
        let uses_names = named == (first..3).collect::<Vec<_>>();
        let space = spaces.iter().enumerate().map(|(index, axis)| {
            let place = by_name(axis).filter(|_| uses_names).unwrap_or(first + index);
            let voxel = voxel_size.map_or(1.0, |size| size.zyx()[place]);
            let of_unit = |unit: Option<&str>| match unit {
                None | Some("pixel" | "voxel") => Ok(voxel),
                Some(unit) => micrometers(unit).ok_or_else(|| {
                    geff.invalid(format!("axis {} is in {unit:?}, which is no unit of length that is known", axis.name))
                }),
            };
            let unit = match (axis.scale, axis.scaled_unit.as_deref()) {
                // A scale without a unit leads from pixels to micrometres.
                (Some(_), None) => 1.0,
                (Some(_), unit) => of_unit(unit)?,
                (None, _) => of_unit(axis.unit.as_deref())?,
            };
            let (scale, offset) = (axis.scale.unwrap_or(1.0) * unit, axis.offset.unwrap_or(0.0) * unit);
            if !(scale.is_finite() && scale > 0.0 && offset.is_finite()) {
                return Err(geff.invalid(format!("axis {} has the scale {scale} and the offset {offset}", axis.name)));
            }
            Ok(Space { name: axis.name.clone(), axis: place, scale, offset })
        });
        Ok(Self { time, space: space.collect::<Result<_, ExportError>>()? })
    }
}

/// An open GEFF.
struct Geff<'a> {
    path: &'a Path,
    store: Arc<FilesystemStore>,
}

impl Geff<'_> {
    fn invalid(&self, reason: impl Into<String>) -> ExportError {
        invalid(self.path, reason)
    }

    fn metadata(&self) -> Result<Metadata, ExportError> {
        let group = Group::open(Arc::clone(&self.store), "/").map_err(|error| self.invalid(error.to_string()))?;
        let Some(value) = group.attributes().get(KEY) else {
            return Err(
                self.invalid("its attributes have no \"geff\"; name the folder of the graph inside a larger one")
            );
        };
        Metadata::deserialize(value).map_err(|error| self.invalid(error.to_string()))
    }

    /// An array, if it is there, of a size that can be read.
    fn array(&self, path: &str) -> Result<Option<Array<FilesystemStore>>, ExportError> {
        let folder = self.path.join(path.trim_start_matches('/'));
        if matches!(fs::metadata(&folder), Err(error) if error.kind() == std::io::ErrorKind::NotFound) {
            return Ok(None);
        }
        let array =
            Array::open(Arc::clone(&self.store), path).map_err(|error| self.invalid(format!("{path}: {error}")))?;
        let numbers = |shape: &mut dyn Iterator<Item = u64>| shape.fold(1_u64, u64::saturating_mul);
        let chunk = array
            .chunk_shape(&vec![0; array.shape().len()])
            .map_or(1, |shape| numbers(&mut shape.iter().map(|length| length.get())));
        let all = numbers(&mut array.shape().iter().copied());
        if all.max(chunk) > MOST_NUMBERS || array.shape().first().is_some_and(|rows| *rows > MOST_NODES) {
            let shape = array.shape();
            return Err(self.invalid(format!("{path} has the shape {shape:?}; {MOST_NODES} rows are the limit")));
        }
        Ok(Some(array))
    }

    /// The numbers of an array of any type, as `f64`, and its shape.
    #[allow(clippy::type_complexity, reason = "shape and numbers, where there is such an array")]
    fn numbers(&self, path: &str) -> Result<Option<(Vec<u64>, Vec<f64>)>, ExportError> {
        let Some(array) = self.array(path)? else { return Ok(None) };
        macro_rules! read {
            ($($kind:ident: $type:ty),*) => {
                $(if *array.data_type() == data_type::$kind() {
                    let values: Vec<$type> =
                        array.retrieve_array_subset(&array.subset_all()).map_err(|error| self.invalid(format!("{path}: {error}")))?;
                    let values = values.into_iter().map(|value| value as f64).collect();
                    return Ok(Some((array.shape().to_vec(), values)));
                })*
            };
        }
        read!(float64: f64, float32: f32, int64: i64, int32: i32, int16: i16, int8: i8);
        read!(uint64: u64, uint32: u32, uint16: u16, uint8: u8);
        Err(self.invalid(format!("{path} has values of type {}, not numbers", array.data_type())))
    }

    /// The whole numbers of an array.
    fn integers(&self, path: &str) -> Result<Option<Vec<u64>>, ExportError> {
        let Some(array) = self.array(path)? else { return Ok(None) };
        let failed = |error: zarrs::array::ArrayError| self.invalid(format!("{path}: {error}"));
        macro_rules! read {
            ($($kind:ident: $type:ty),*) => {
                $(if *array.data_type() == data_type::$kind() {
                    let values: Vec<$type> = array.retrieve_array_subset(&array.subset_all()).map_err(failed)?;
                    let values = values.into_iter().map(u64::try_from).collect::<Result<_, _>>();
                    return values.map(Some).map_err(|_| self.invalid(format!("{path} has a negative number")));
                })*
            };
        }
        read!(uint64: u64, uint32: u32, uint16: u16, uint8: u8, int64: i64, int32: i32, int16: i16, int8: i8);
        Err(self.invalid(format!("{path} has values of type {}, not whole numbers", array.data_type())))
    }

    /// A number for each node, if the property is there and no value is missing.
    fn optional_scalars(&self, name: &str, count: usize) -> Result<Option<Vec<f64>>, ExportError> {
        self.check_name(name)?;
        let Some((shape, values)) = self.numbers(&format!("/nodes/props/{name}/values"))? else { return Ok(None) };
        if shape != [count as u64] {
            return Err(self.invalid(format!("property {name} has the shape {shape:?} for {count} nodes")));
        }
        if self.has_missing(name)? {
            return Ok(None);
        }
        Ok(Some(values))
    }

    fn scalars(&self, name: &str, count: usize) -> Result<Vec<f64>, ExportError> {
        let values = self.optional_scalars(name, count)?;
        values.ok_or_else(|| self.invalid(format!("property {name}, an axis, is missing or has missing values")))
    }

    /// Names come from the file, and become paths.
    fn check_name(&self, name: &str) -> Result<(), ExportError> {
        if name.is_empty() || name.starts_with('.') || name.contains(['/', '\\']) {
            return Err(self.invalid(format!("{name:?} is no name of a property")));
        }
        Ok(())
    }

    /// Whether a value of a property is marked as missing.
    fn has_missing(&self, name: &str) -> Result<bool, ExportError> {
        let path = format!("/nodes/props/{name}/missing");
        let Some(array) = self.array(&path)? else { return Ok(false) };
        let values: Result<Vec<bool>, _> = array.retrieve_array_subset(&array.subset_all());
        let values = values.map_err(|error| self.invalid(format!("{path}: {error}")))?;
        Ok(values.contains(&true))
    }

    fn timepoints(&self, axis: &Axis, count: usize) -> Result<Vec<u32>, ExportError> {
        let mut values = self.scalars(&axis.name, count)?;
        if !matches!(axis.unit.as_deref(), None | Some("frame")) {
            let mut distinct: Vec<f64> = values.clone();
            distinct.sort_unstable_by(f64::total_cmp);
            distinct.dedup();
            let step = distinct.windows(2).map(|pair| pair[1] - pair[0]).fold(f64::INFINITY, f64::min);
            let first = distinct.first().copied().unwrap_or(0.0);
            let frame = |value: f64| if step.is_finite() { (value - first) / step } else { 0.0 };
            if let Some(value) = values.iter().find(|value| (frame(**value) - frame(**value).round()).abs() > 1e-3) {
                let reason = format!("time {value} is not a multiple of the smallest difference {step} of two times");
                return Err(self.invalid(reason));
            }
            for value in &mut values {
                *value = frame(*value).round();
            }
        }
        let timepoint = |value: f64| {
            let is_valid = value.fract() == 0.0 && (0.0..=f64::from(u32::MAX - 1)).contains(&value);
            is_valid.then_some(value as u32).ok_or_else(|| self.invalid(format!("{value} is not a timepoint")))
        };
        values.into_iter().map(timepoint).collect()
    }

    fn fill_covariances(
        &self,
        metadata: &Metadata,
        axes: &Axes<'_>,
        default_radius_um: f64,
        spots: &mut [Spot],
    ) -> Result<(), ExportError> {
        let count = spots.len();
        let side = axes.space.len();
        if let Some(name) = &metadata.ellipsoid {
            self.check_name(name)?;
            let found = self.numbers(&format!("/nodes/props/{name}/values"))?;
            if let Some((shape, values)) = found.filter(|_| matches!(self.has_missing(name), Ok(false))) {
                if shape != [count as u64, side as u64, side as u64] {
                    return Err(self.invalid(format!("ellipsoid property {name} has the shape {shape:?}")));
                }
                for (spot, entries) in spots.iter_mut().zip(values.chunks(side * side)) {
                    for (entry, value) in entries.iter().enumerate() {
                        let (a, b) = (&axes.space[entry / side], &axes.space[entry % side]);
                        spot.covariance_um2[a.axis][b.axis] = value * a.scale * b.scale;
                    }
                    if side == 2 {
                        spot.covariance_um2[0][0] = 1.0;
                    }
                }
                return Ok(());
            }
        }
        let radii = match &metadata.sphere {
            Some(name) => self.optional_scalars(name, count)?,
            None => None,
        };
        for (index, spot) in spots.iter_mut().enumerate() {
            for axis in 0..3 {
                let scale = axes.space.iter().find(|space| space.axis == axis).map_or(1.0, |space| space.scale);
                let radius = radii.as_ref().map_or(default_radius_um, |radii| radii[index] * scale);
                spot.covariance_um2[axis][axis] = radius * radius;
            }
        }
        Ok(())
    }

    /// The edges, forward in time.
    fn links(&self, ids: &[u64], times: &[u32]) -> Result<Vec<Link>, ExportError> {
        let mut spots = HashMap::with_capacity(ids.len());
        for (index, id) in ids.iter().enumerate() {
            if spots.insert(*id, SpotId(index as u32)).is_some() {
                return Err(self.invalid(format!("there are two nodes {id}")));
            }
        }
        let ends = self.integers("/edges/ids")?.unwrap_or_default();
        if ends.len() % 2 != 0 {
            return Err(self.invalid("an edge has one node"));
        }
        let node = |id: &u64| {
            let spot = spots.get(id).copied();
            spot.ok_or_else(|| self.invalid(format!("an edge goes to node {id}, which does not exist")))
        };
        ends.chunks(2)
            .map(|pair| {
                let (a, b) = (node(&pair[0])?, node(&pair[1])?);
                // Some programs write edges from daughters to mothers, or without a direction.
                let is_forward = times[a.index()] <= times[b.index()];
                let (source, target) = if is_forward { (a, b) } else { (b, a) };
                Ok(Link { source, target })
            })
            .collect()
    }
}
