//! The `ImageLoader` element: the HDF5 file, perhaps inside other loaders, or the format that cannot be read.

use std::ops::Range;

use elephant_hdf5::WrittenPath;

use super::{MAX_SETUPS, reversed_triple};

/// What the image loaders of a document say.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Loader {
    /// Format of each loader, from the outermost on; a loader may wrap others.
    formats: Vec<String>,
    /// The `.h5` file, as written.
    pub hdf5: Option<WrittenPath>,
    /// By ascending id, once the document is read.
    pieces: Vec<Piece>,
}

/// A setup that is a piece of a setup of the file: `BigStitcher` splits large images in this way.
#[derive(Clone, Debug, Default, PartialEq)]
struct Piece {
    id: u32,
    setup: u32,
    /// First and last voxel (z, y, x).
    min: [usize; 3],
    max: [usize; 3],
}

impl Loader {
    /// A loader begins, of this format.
    pub fn begin(&mut self, format: Option<String>) {
        self.formats.extend(format.filter(|_| self.formats.len() < 16));
    }

    /// The loader names its HDF5 file; the outermost one counts.
    pub fn name_file(&mut self, file: WrittenPath) {
        self.hdf5.get_or_insert(file);
    }

    /// A piece begins.
    pub fn begin_piece(&mut self) -> Result<(), String> {
        if self.pieces.len() == MAX_SETUPS {
            return Err(format!("it has more than {MAX_SETUPS} pieces of split images"));
        }
        self.pieces.push(Piece::default());
        Ok(())
    }

    /// Takes over the text of an element of the last piece.
    pub fn take(&mut self, field: &str, text: &str) -> Result<(), String> {
        let Some(piece) = self.pieces.last_mut() else { return Ok(()) };
        let is_taken = match field {
            "NewId" => text.parse().map(|id| piece.id = id).is_ok(),
            "OldId" => text.parse().map(|id| piece.setup = id).is_ok(),
            "min" => reversed_triple(text).map(|voxel| piece.min = voxel).is_some(),
            "max" => reversed_triple(text).map(|voxel| piece.max = voxel).is_some(),
            _ => true,
        };
        if is_taken {
            Ok(())
        } else {
            Err(format!("the {field} of a piece of an image is {text:.40?}, not numbers from 0"))
        }
    }

    /// The setup of the file that has the images of `setup`, and the box (z, y, x) that they are, if not all of it.
    pub fn stored(&self, setup: u32) -> (u32, Option<[Range<usize>; 3]>) {
        let found = self.pieces.partition_point(|piece| piece.id < setup);
        match self.pieces.get(found).filter(|piece| piece.id == setup) {
            Some(piece) => {
                let range = |axis: usize| piece.min[axis]..piece.max[axis].saturating_add(1);
                (piece.setup, Some([range(0), range(1), range(2)]))
            }
            None => (setup, None),
        }
    }

    /// The document has ended. Says why there is no HDF5 file, where there is none.
    pub fn finish(&mut self) -> Result<(), String> {
        // The first one of an id counts.
        self.pieces.sort_by_key(|piece| piece.id);
        let format = self.formats.last().filter(|format| !format.to_lowercase().contains("hdf5"));
        match (&self.hdf5, format) {
            (Some(_), _) => Ok(()),
            (None, None) => {
                Err("it does not name an HDF5 file; give the .xml of a BigDataViewer .h5/.xml pair".to_owned())
            }
            (None, Some(format)) => Err(format!(
                "its images are in {} (image loader {format:.60?}), which cannot be read here; export them as HDF5/XML (Fiji: Plugins > BigDataViewer > Export Current Image as XML/HDF5; BigStitcher: Resave as HDF5)",
                kind(format)
            )),
        }
    }
}

/// The kind of files behind an image loader.
fn kind(format: &str) -> &'static str {
    let format = format.to_lowercase();
    let kinds = [
        ("zarr", "OME-Zarr"),
        ("n5", "N5"),
        ("filelist", "an image series such as TIFF"),
        ("stack", "an image series such as TIFF"),
        ("filemap", "an image series such as TIFF"),
        ("tif", "TIFF"),
        ("imaris", "an Imaris file"),
        ("ims", "an Imaris file"),
        ("czi", "a CZI file"),
        ("klb", "KLB files"),
        ("remote", "a BigDataServer"),
        ("catmaid", "CATMAID"),
        ("openconnectome", "Open Connectome"),
    ];
    kinds.iter().find(|(part, _)| format.contains(part)).map_or("another format", |(_, kind)| kind)
}
