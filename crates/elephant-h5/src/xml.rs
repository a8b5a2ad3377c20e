//! The `.xml` beside a movie: which `.h5` file it describes, and the names and voxel sizes of its setups.
//!
//! Reads what the server needs of BigDataViewer's SpimData format, and nothing that a document could use against it:
//! entities are not expanded, nesting and size are limited.

use std::{
    fs::File,
    io::Read,
    path::{Component, Path, PathBuf},
};

use elephant_types::VoxelSize;
use quick_xml::{Reader, escape::resolve_predefined_entity, events::Event};

use crate::{H5Error, error::file_name};

/// Largest document read; a movie of 10,000 timepoints and ten setups has 30 MB of view registrations.
const MAX_BYTES: u64 = 128 << 20;
/// Deepest nesting of elements; the format has about eight levels.
const MAX_DEPTH: usize = 64;
/// Longest text of an element that is kept, in bytes.
const MAX_TEXT: usize = 4096;

/// Where the view setups are in the document.
const VIEW_SETUP: &str = "SpimData/SequenceDescription/ViewSetups/ViewSetup";

/// What the `.xml` file says about a movie.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SpimData {
    h5: Option<String>,
    base: Option<String>,
    /// The view setups, in the document's order.
    pub setups: Vec<ViewSetup>,
}

/// One channel or angle of a movie.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ViewSetup {
    /// Number of the setup, as in the group names of the `.h5` file.
    pub id: u32,
    /// Name for people.
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
    /// When the file is missing, too large or not a SpimData document.
    pub fn read(path: &Path) -> Result<Self, H5Error> {
        let file = File::open(path).map_err(H5Error::io("open", path))?;
        let mut text = String::new();
        file.take(MAX_BYTES + 1).read_to_string(&mut text).map_err(H5Error::io("read", path))?;
        let parsed = if text.len() as u64 > MAX_BYTES { Err("it is too large".to_owned()) } else { Self::parse(&text) };
        parsed.map_err(|reason| H5Error::Xml { file: file_name(path), reason })
    }

    /// Understands the text of a SpimData document.
    fn parse(text: &str) -> Result<Self, String> {
        let mut reader = Reader::from_str(text);
        reader.config_mut().expand_empty_elements = true;
        let mut data = Self::default();
        let mut open: Vec<String> = Vec::new();
        let mut content = String::new();
        loop {
            match reader.read_event().map_err(|error| format!("it is not valid XML: {error}"))? {
                Event::Start(element) => {
                    if open.len() == MAX_DEPTH {
                        return Err("its elements are nested too deeply".to_owned());
                    }
                    open.push(element.local_name().as_ref().to_owned());
                    content.clear();
                    if open.join("/") == VIEW_SETUP {
                        data.setups.push(ViewSetup::default());
                    }
                }
                Event::Text(part) => push_limited(&mut content, &part.xml10_content()),
                Event::CData(part) => push_limited(&mut content, &part.xml10_content()),
                Event::GeneralRef(reference) => {
                    let character = reference.resolve_char_ref().ok().flatten().map(String::from);
                    let text = character.as_deref().or_else(|| resolve_predefined_entity(&reference));
                    push_limited(&mut content, text.unwrap_or_default());
                }
                Event::End(_) => {
                    data.take(&open.join("/"), content.trim())?;
                    content.clear();
                    open.pop();
                }
                Event::Eof if !open.is_empty() => return Err("it ends in the middle; copy it again".to_owned()),
                Event::Eof if data.h5.is_none() => return Err("it does not name an HDF5 file".to_owned()),
                Event::Eof => return Ok(data),
                _ => {}
            }
        }
    }

    /// Takes over the text of the element at `path`.
    fn take(&mut self, path: &str, text: &str) -> Result<(), String> {
        match path {
            "SpimData/BasePath" => self.base = Some(text.to_owned()),
            "SpimData/SequenceDescription/ImageLoader/hdf5" => self.h5 = Some(text.to_owned()),
            _ => {}
        }
        let field = path.strip_prefix(VIEW_SETUP).and_then(|field| field.strip_prefix('/'));
        let (Some(field), Some(setup)) = (field, self.setups.last_mut()) else { return Ok(()) };
        match field {
            "id" => setup.id = text.parse().map_err(|_| format!("the id of a view setup is {text:?}, not a number"))?,
            "name" => setup.name = Some(text.to_owned()),
            "size" => setup.size = reversed_triple(text),
            "voxelSize/unit" => setup.unit = Some(text.to_owned()),
            "voxelSize/size" => setup.voxel_size = reversed_triple(text).and_then(|edges| VoxelSize::new(edges).ok()),
            _ => {}
        }
        Ok(())
    }

    /// The `.h5` file that the document at `xml` describes, which must be in its folder or below.
    pub(crate) fn h5_path(&self, xml: &Path) -> Result<PathBuf, H5Error> {
        let written = Path::new(self.base.as_deref().unwrap_or(".")).join(self.h5.as_deref().unwrap_or_default());
        let file = file_name(xml);
        let escapes = || H5Error::Escapes {
            file: file.clone(),
            object: "its hdf5 element".to_owned(),
            target: written.display().to_string(),
        };
        if !written.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir)) {
            return Err(escapes());
        }
        let folder = xml.parent().unwrap_or(Path::new("")).join(".");
        let folder = folder.canonicalize().map_err(H5Error::io("open the folder of", xml))?;
        let path = folder.join(&written);
        let real = path.canonicalize().map_err(H5Error::io("open", &path))?;
        if real.starts_with(&folder) { Ok(real) } else { Err(escapes()) }
    }
}

fn push_limited(content: &mut String, text: &str) {
    if content.len() + text.len() <= MAX_TEXT {
        content.push_str(text);
    }
}

/// Three numbers written as "x y z", as (z, y, x).
fn reversed_triple<T: std::str::FromStr>(text: &str) -> Option<[T; 3]> {
    let mut numbers = text.split_whitespace().map(str::parse).collect::<Result<Vec<T>, _>>().ok()?;
    numbers.reverse();
    numbers.try_into().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MOVIE: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
        <SpimData version="0.2"><BasePath type="relative">.</BasePath><SequenceDescription>
        <ImageLoader format="bdv.hdf5"><hdf5 type="relative">a &amp; b.h5</hdf5></ImageLoader>
        <ViewSetups><ViewSetup><id>3</id><name>nuclei</name><size>111 172 32</size>
        <voxelSize><unit>&#181;m</unit><size>0.5 0.25 2.0</size></voxelSize></ViewSetup>
        <ViewSetup><id>4</id><voxelSize><unit /><size>0 0 nothing</size></voxelSize></ViewSetup>
        </ViewSetups></SequenceDescription></SpimData>"#;

    #[test]
    fn names_sizes_and_units_are_read() {
        let data = SpimData::parse(MOVIE).unwrap();
        assert_eq!(data.h5.as_deref(), Some("a & b.h5"));
        let voxel_size = VoxelSize::new([2.0, 0.25, 0.5]).ok();
        assert_eq!(
            data.setups,
            [
                ViewSetup {
                    id: 3,
                    name: Some("nuclei".into()),
                    size: Some([32, 172, 111]),
                    voxel_size,
                    unit: Some("µm".into())
                },
                ViewSetup { id: 4, unit: Some(String::new()), ..ViewSetup::default() },
            ]
        );
    }

    #[test]
    fn entities_are_not_expanded() {
        let bomb = MOVIE.replace(
            "<SpimData version",
            r#"<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;"><!ENTITY f SYSTEM "file:///etc/passwd">]><SpimData version"#,
        );
        let data = SpimData::parse(&bomb.replace("nuclei", "x&b;&f;y")).unwrap();
        assert_eq!(data.setups[0].name.as_deref(), Some("xy"));
    }

    #[test]
    fn damaged_documents_are_refused() {
        let deep = "<SpimData>".repeat(100_000);
        for text in ["", "<SpimData></SpimData>", "not xml", &MOVIE[..400], &MOVIE.replace("<id>3", "<id>x"), &deep] {
            assert!(SpimData::parse(text).is_err(), "{text:.60}");
        }
    }

    #[test]
    fn a_description_cannot_name_a_file_elsewhere() {
        let folder = tempfile::tempdir().unwrap();
        let inside = folder.path().join("movie");
        std::fs::create_dir(&inside).unwrap();
        std::fs::write(folder.path().join("secret.h5"), "").unwrap();
        std::os::unix::fs::symlink(folder.path().join("secret.h5"), inside.join("link.h5")).unwrap();
        let secret = folder.path().join("secret.h5").display().to_string();
        for target in ["../secret.h5", "link.h5", &secret] {
            let data = SpimData { h5: Some(target.to_owned()), ..SpimData::default() };
            assert!(matches!(data.h5_path(&inside.join("m.xml")), Err(H5Error::Escapes { .. })), "{target}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in ".{0,200}", at in 0..MOVIE.len()) {
            let _ = SpimData::parse(&text);
            let cut = MOVIE.char_indices().map(|(index, _)| index).take_while(|&index| index <= at).last().unwrap_or(0);
            let _ = SpimData::parse(&format!("{}{text}{}", &MOVIE[..cut], &MOVIE[cut..]));
        }
    }
}
