//! The `.xml` beside a movie: which `.h5` file it describes, its timepoints, its setups and the views that are missing.
//!
//! Reads what the server needs of BigDataViewer's SpimData format as its Java reader (spimdata) does, and nothing that a
//! document could use against it: entities are not expanded, nesting and size are limited.

mod encoding;
mod loader;
mod timepoints;

use std::{
    fs::File,
    io::Read,
    ops::Range,
    path::{Path, PathBuf},
};

use elephant_hdf5::{Reach, WrittenPath};
use elephant_types::VoxelSize;
use quick_xml::{
    Reader, XmlVersion,
    escape::resolve_predefined_entity,
    events::{BytesStart, Event},
};

use self::{loader::Loader, timepoints::TimepointsElement};
use crate::{BdvError, error::file_name};

/// Largest document read; a movie of 10,000 timepoints and ten setups has 30 MB of view registrations.
const MAX_BYTES: u64 = 128 << 20;
/// Deepest nesting of elements; the format has about eight levels.
const MAX_DEPTH: usize = 64;
/// Longest text of an element that is kept, in bytes; a pattern may list each timepoint.
const MAX_TEXT: usize = 1 << 20;
/// Largest number of view setups, and of pieces of split images.
const MAX_SETUPS: usize = 1 << 16;

const BASE_PATH: &str = "SpimData/BasePath";
const SEQUENCE: &str = "SpimData/SequenceDescription/";
/// Where the view setups are in the document, and where they were before version 0.2 of the format.
const VIEW_SETUP: [&str; 2] = ["ViewSetups/ViewSetup", "ViewSetup"];
/// Where the pieces of split images are.
const PIECE: &str = "ImageLoader/SetupIds/SetupIdDefinition";

/// What the `.xml` file says about a movie.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SpimData {
    base: WrittenPath,
    loader: Loader,
    /// Ids of the timepoints, ascending. BigDataViewer shows the first of them as timepoint 0, the second as timepoint 1
    /// and so on. Empty when the document lists none.
    pub timepoints: Vec<u32>,
    /// The view setups by ascending id. BigDataViewer's first source is the first of them.
    pub setups: Vec<ViewSetup>,
    /// The views without an image, as (timepoint id, setup id), ascending.
    pub missing_views: Vec<(u32, u32)>,
}

/// One channel or angle of a movie.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ViewSetup {
    /// Number of the setup, as in the group names of the `.h5` file.
    pub id: u32,
    /// Name for display.
    pub name: Option<String>,
    /// Size (z, y, x) in voxels.
    pub size: Option<[usize; 3]>,
    /// Edge lengths of a voxel.
    pub voxel_size: Option<VoxelSize>,
    /// Unit of the voxel size, as written ("micrometer", "µm", "pixel").
    pub unit: Option<String>,
}

impl SpimData {
    /// Reads the `.xml` file of a movie.
    ///
    /// # Errors
    /// When the file is missing, too large or not a SpimData document, or its images are not in an HDF5 file.
    pub fn read(path: &Path) -> Result<Self, BdvError> {
        let file = File::open(path).map_err(BdvError::io("open", path))?;
        let mut bytes = Vec::new();
        file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(BdvError::io("read", path))?;
        let parsed = if bytes.len() as u64 > MAX_BYTES {
            Err("it is too large".to_owned())
        } else {
            Self::parse(&encoding::decode(&bytes))
        };
        parsed.map_err(|reason| BdvError::Xml { file: file_name(path), reason })
    }

    /// Whether the document says that a setup has no image at a timepoint.
    pub fn is_missing(&self, timepoint: u32, setup: u32) -> bool {
        self.missing_views.binary_search(&(timepoint, setup)).is_ok()
    }

    /// The setup of the `.h5` file that has the images of `setup`, and the box (z, y, x) of them that it is, if not all.
    pub(crate) fn stored(&self, setup: u32) -> (u32, Option<[Range<usize>; 3]>) {
        self.loader.stored(setup)
    }

    /// The name of the `.h5` file, without the folders that the document names.
    pub fn h5_name(&self) -> Option<&str> {
        self.loader.hdf5.as_ref().and_then(WrittenPath::last)
    }

    /// The `.h5` file that the document at `xml` describes: where it says, or else beside it.
    pub(crate) fn h5_path(&self, xml: &Path, reach: Reach) -> Result<PathBuf, BdvError> {
        let file = file_name(xml);
        let Some(h5) = self.loader.hdf5.as_ref().filter(|h5| h5.last().is_some()) else {
            return Err(BdvError::Xml { file, reason: "it does not name an HDF5 file".to_owned() });
        };
        let written = self.base.joined(h5);
        let folder = match xml.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        // Where the document is, and where it leads to if it is a link, as the `.h5` file beside it may be one.
        let target = if xml.is_symlink() { Some(xml.canonicalize().map_err(BdvError::io("open", xml))?) } else { None };
        for folder in [Some(folder), target.as_deref().and_then(Path::parent)].into_iter().flatten() {
            let folder = folder.canonicalize().map_err(BdvError::io("open the folder of", xml))?;
            if let Some(found) = written.find(&[&folder], &folder, reach)? {
                return Ok(found);
            }
        }
        Err(BdvError::NoMovie { file, h5: h5.text.clone() })
    }

    /// Understands the text of a SpimData document.
    fn parse(text: &str) -> Result<Self, String> {
        let mut reader = Reader::from_str(text);
        reader.config_mut().expand_empty_elements = true;
        let mut document = Document::default();
        loop {
            match reader.read_event().map_err(|error| format!("it is not valid XML: {error}"))? {
                Event::Start(element) => document.begin(&element)?,
                Event::Text(part) => document.add(&part.xml10_content()),
                Event::CData(part) => document.add(&part.xml10_content()),
                Event::GeneralRef(reference) => {
                    let character = reference.resolve_char_ref().ok().flatten().map(String::from);
                    let text = character.as_deref().or_else(|| resolve_predefined_entity(&reference));
                    document.add(text.unwrap_or_default());
                }
                Event::End(_) => document.end()?,
                Event::Eof => return document.finish(),
                _ => {}
            }
        }
    }
}

/// A document while it is read.
#[derive(Default)]
struct Document {
    data: SpimData,
    timepoints: TimepointsElement,
    /// Names of the open elements, divided by `/`.
    path: String,
    depth: usize,
    /// Text of the innermost element so far.
    content: String,
    /// Whether that text is too long to be kept.
    is_cut: bool,
    /// The `type` of the innermost element that has begun: whether a path is relative.
    is_relative: Option<bool>,
}

impl Document {
    fn begin(&mut self, element: &BytesStart<'_>) -> Result<(), String> {
        if self.depth == MAX_DEPTH {
            return Err("its elements are nested too deeply".to_owned());
        }
        if self.depth > 0 {
            self.path.push('/');
        }
        self.depth += 1;
        self.path.push_str(element.local_name().as_ref());
        self.content.clear();
        self.is_cut = false;
        self.is_relative = attribute(element, "type").map(|kind| kind == "relative");
        let Some(inside) = self.path.strip_prefix(SEQUENCE) else { return Ok(()) };
        if VIEW_SETUP.contains(&inside) {
            if self.data.setups.len() == MAX_SETUPS {
                return Err(format!("it has more than {MAX_SETUPS} view setups"));
            }
            self.data.setups.push(ViewSetup::default());
        } else if inside == "MissingViews/MissingView" {
            let id = |name| attribute(element, name).and_then(|id| id.trim().parse().ok());
            let view = id("timepoint").zip(id("setup"));
            self.data.missing_views.push(view.ok_or("a missing view has no timepoint or no setup")?);
        } else if inside == PIECE {
            self.data.loader.begin_piece()?;
        } else if inside.ends_with("ImageLoader") {
            self.data.loader.begin(attribute(element, "format").or_else(|| attribute(element, "class")));
        }
        Ok(())
    }

    fn add(&mut self, text: &str) {
        if self.content.len() + text.len() <= MAX_TEXT {
            self.content.push_str(text);
        } else {
            self.is_cut = true;
        }
    }

    fn end(&mut self) -> Result<(), String> {
        self.take()?;
        self.content.clear();
        self.is_cut = false;
        self.depth = self.depth.saturating_sub(1);
        self.path.truncate(self.path.rfind('/').unwrap_or(0));
        Ok(())
    }

    /// Takes over the text of the innermost element.
    fn take(&mut self) -> Result<(), String> {
        if self.is_cut && (self.path == BASE_PATH || self.path.starts_with(SEQUENCE)) {
            return Err(format!("the text of its element {:.100} is too long", self.path));
        }
        let text = self.content.trim();
        if self.path == BASE_PATH {
            self.data.base = WrittenPath { text: text.to_owned(), is_relative: self.is_relative };
        }
        let Some(inside) = self.path.strip_prefix(SEQUENCE) else { return Ok(()) };
        if let Some(field) = inside.strip_prefix("Timepoints/") {
            return self.timepoints.take(field, text);
        }
        if inside.starts_with("ImageLoader/") && inside.ends_with("/hdf5") {
            self.data.loader.name_file(WrittenPath { text: text.to_owned(), is_relative: self.is_relative });
        }
        if let Some(field) = inside.strip_prefix(PIECE) {
            return self.data.loader.take(field.trim_start_matches('/'), text);
        }
        let field = VIEW_SETUP.iter().find_map(|setup| inside.strip_prefix(setup)?.strip_prefix('/'));
        match (field, self.data.setups.last_mut()) {
            (Some(field), Some(setup)) => setup.take(field, text),
            _ => Ok(()),
        }
    }

    fn finish(mut self) -> Result<SpimData, String> {
        if self.depth > 0 {
            return Err("it ends in the middle; copy it again".to_owned());
        }
        self.data.loader.finish()?;
        self.data.timepoints = self.timepoints.ids()?;
        self.data.setups.sort_by_key(|setup| setup.id);
        self.data.missing_views.sort_unstable();
        Ok(self.data)
    }
}

impl ViewSetup {
    fn take(&mut self, field: &str, text: &str) -> Result<(), String> {
        match field {
            "id" => self.id = text.parse().map_err(|_| format!("the id of a view setup is {text:?}, not a number"))?,
            "name" => self.name = Some(text.to_owned()),
            "size" => self.size = reversed_triple(text),
            "voxelSize/unit" => self.unit = Some(text.to_owned()),
            "voxelSize/size" => self.voxel_size = reversed_triple(text).and_then(|edges| VoxelSize::new(edges).ok()),
            _ => {}
        }
        Ok(())
    }
}

/// The value of an attribute, without regard to namespaces.
fn attribute(element: &BytesStart<'_>, name: &str) -> Option<String> {
    let mut attributes = element.attributes();
    let found = attributes.with_checks(false).flatten().find(|found| found.key.local_name().as_ref() == name)?;
    Some(found.normalized_value(XmlVersion::Implicit1_0).ok()?.into_owned())
}

/// Three numbers written as "x y z", as (z, y, x).
fn reversed_triple<T: std::str::FromStr>(text: &str) -> Option<[T; 3]> {
    let mut numbers = text.split_whitespace().map(str::parse).collect::<Result<Vec<T>, _>>().ok()?;
    numbers.reverse();
    numbers.try_into().ok()
}

#[cfg(test)]
mod tests;
