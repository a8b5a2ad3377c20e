//! `TrackMate` files, version 7: the XML that *Plugins › Tracking › Load a `TrackMate` file* opens in Fiji.

use std::{
    io::{self, Write},
    path::Path,
};

use elephant_fs::write_atomic;
use elephant_types::{SpotId, TaskContext};
use quick_xml::{
    Writer,
    events::{BytesDecl, BytesEnd, BytesStart, Event},
};

use crate::{ExportError, TrackedMovie, movie::mean_radius_um};

/// The version of `TrackMate` whose files look like this.
const VERSION: &str = "7.11.1";

/// Declared properties: key, name, short name, dimension, whether it is a whole number.
type Feature = (&'static str, &'static str, &'static str, &'static str, bool);

const SPOT_FEATURES: [Feature; 8] = [
    ("QUALITY", "Quality", "Quality", "QUALITY", false),
    ("POSITION_X", "X", "X", "POSITION", false),
    ("POSITION_Y", "Y", "Y", "POSITION", false),
    ("POSITION_Z", "Z", "Z", "POSITION", false),
    ("POSITION_T", "T", "T", "TIME", false),
    ("FRAME", "Frame", "Frame", "NONE", true),
    ("RADIUS", "Radius", "R", "LENGTH", false),
    ("VISIBILITY", "Visibility", "Visibility", "NONE", true),
];
const EDGE_FEATURES: [Feature; 3] = [
    ("SPOT_SOURCE_ID", "Source spot ID", "Source ID", "NONE", true),
    ("SPOT_TARGET_ID", "Target spot ID", "Target ID", "NONE", true),
    ("LINK_COST", "Edge cost", "Cost", "COST", false),
];
const TRACK_FEATURES: [Feature; 2] =
    [("TRACK_INDEX", "Track index", "Index", "NONE", true), ("TRACK_ID", "Track ID", "ID", "NONE", true)];

/// Writes a movie as a `TrackMate` file. Spots are balls there, as large as their ellipsoids; a track is a whole tree with
/// its divisions, if it has a link. Positions are micrometres, times are frames. `LINK_COST` is 1 minus a link's score.
///
/// # Errors
/// For an invalid movie, a full disk, and when cancelled; an earlier file is unchanged then.
pub fn write_trackmate(movie: &TrackedMovie<'_>, path: &Path, task: &TaskContext) -> Result<(), ExportError> {
    movie.check()?;
    task.check()?;
    write_atomic(path, |out| {
        let mut file = File { xml: Writer::new_with_indent(out, b' ', 2), movie };
        file.write()
    })?;
    Ok(())
}

struct File<'a, W: Write> {
    xml: Writer<W>,
    movie: &'a TrackedMovie<'a>,
}

/// An attribute: its name and its value.
type Attribute<'a> = (&'a str, String);

impl<W: Write> File<'_, W> {
    fn write(&mut self) -> io::Result<()> {
        self.xml.write_event(Event::Decl(BytesDecl::new("1.0", Some("UTF-8"), None)))?;
        self.open("TrackMate", &[("version", VERSION.to_owned())])?;
        self.open("Model", &[("spatialunits", "micrometer".to_owned()), ("timeunits", "frame".to_owned())])?;
        self.open("FeatureDeclarations", &[])?;
        self.declare("SpotFeatures", &SPOT_FEATURES)?;
        self.declare("EdgeFeatures", &EDGE_FEATURES)?;
        self.declare("TrackFeatures", &TRACK_FEATURES)?;
        self.close("FeatureDeclarations")?;
        self.write_spots()?;
        self.write_tracks()?;
        self.close("Model")?;
        self.write_settings()?;
        self.empty("GUIState", &[("state", "ConfigureViews".to_owned())])?;
        self.close("TrackMate")
    }

    fn declare(&mut self, group: &str, features: &[Feature]) -> io::Result<()> {
        self.open(group, &[])?;
        for (key, name, short, dimension, is_whole) in features {
            self.empty(
                "Feature",
                &[
                    ("feature", (*key).to_owned()),
                    ("name", (*name).to_owned()),
                    ("shortname", (*short).to_owned()),
                    ("dimension", (*dimension).to_owned()),
                    ("isint", is_whole.to_string()),
                ],
            )?;
        }
        self.close(group)
    }

    fn write_spots(&mut self) -> io::Result<()> {
        let movie = self.movie;
        self.open("AllSpots", &[("nspots", movie.spots.len().to_string())])?;
        for (t, ids) in movie.by_timepoint().iter().enumerate() {
            self.open("SpotsInFrame", &[("frame", t.to_string())])?;
            for &id in ids {
                let spot = &movie.spots[id.index()];
                let [z, y, x] = spot.center_um;
                self.empty(
                    "Spot",
                    &[
                        ("ID", id.to_string()),
                        ("name", movie.name_of(id).into_owned()),
                        ("QUALITY", spot.quality.to_string()),
                        ("POSITION_X", x.to_string()),
                        ("POSITION_Y", y.to_string()),
                        ("POSITION_Z", z.to_string()),
                        ("POSITION_T", (t as f64).to_string()),
                        ("FRAME", t.to_string()),
                        ("RADIUS", mean_radius_um(&spot.covariance_um2, movie.dims).to_string()),
                        ("VISIBILITY", "1".to_owned()),
                    ],
                )?;
            }
            self.close("SpotsInFrame")?;
        }
        self.close("AllSpots")
    }

    fn write_tracks(&mut self) -> io::Result<()> {
        let lineage = self.movie.lineage;
        let roots: Vec<SpotId> = lineage.roots().filter(|root| lineage.children(*root).next().is_some()).collect();
        self.open("AllTracks", &[])?;
        for (index, root) in roots.iter().enumerate() {
            let number = index.to_string();
            let name = format!("Track_{index}");
            self.open("Track", &[("name", name), ("TRACK_INDEX", number.clone()), ("TRACK_ID", number)])?;
            let mut unseen = vec![*root];
            while let Some(source) = unseen.pop() {
                for target in lineage.children(source) {
                    let cost =
                        self.movie.score_of(elephant_types::Link { source, target }).map_or(0.0, |score| 1.0 - score);
                    self.empty(
                        "Edge",
                        &[
                            ("SPOT_SOURCE_ID", source.to_string()),
                            ("SPOT_TARGET_ID", target.to_string()),
                            ("LINK_COST", cost.to_string()),
                        ],
                    )?;
                    unseen.push(target);
                }
            }
            self.close("Track")?;
        }
        self.close("AllTracks")?;
        self.open("FilteredTracks", &[])?;
        for index in 0..roots.len() {
            self.empty("TrackID", &[("TRACK_ID", index.to_string())])?;
        }
        self.close("FilteredTracks")
    }

    fn write_settings(&mut self) -> io::Result<()> {
        let ([t, z, y, x], [dz, dy, dx]) = (self.movie.shape, self.movie.voxel_size.zyx());
        let last = |length: usize| length.saturating_sub(1).to_string();
        let zero = || "0".to_owned();
        self.open("Settings", &[])?;
        self.empty(
            "ImageData",
            &[
                ("filename", self.movie.name.to_owned()),
                ("folder", String::new()),
                ("width", x.to_string()),
                ("height", y.to_string()),
                ("nslices", z.to_string()),
                ("nframes", t.to_string()),
                ("pixelwidth", dx.to_string()),
                ("pixelheight", dy.to_string()),
                ("voxeldepth", dz.to_string()),
                ("timeinterval", "1.0".to_owned()),
            ],
        )?;
        self.empty(
            "BasicSettings",
            &[
                ("xstart", zero()),
                ("xend", last(x)),
                ("ystart", zero()),
                ("yend", last(y)),
                ("zstart", zero()),
                ("zend", last(z)),
                ("tstart", zero()),
                ("tend", last(t)),
            ],
        )?;
        self.empty(
            "DetectorSettings",
            &[("DETECTOR_NAME", "MANUAL_DETECTOR".to_owned()), ("RADIUS", "5.0".to_owned())],
        )?;
        let filter = [("feature", "QUALITY".to_owned()), ("value", "0.0".to_owned()), ("isabove", "true".to_owned())];
        self.empty("InitialSpotFilter", &filter)?;
        self.empty("SpotFilterCollection", &[])?;
        self.empty("TrackerSettings", &[("TRACKER_NAME", "MANUAL_TRACKER".to_owned())])?;
        self.empty("TrackFilterCollection", &[])?;
        self.open("AnalyzerCollection", &[])?;
        for group in ["SpotAnalyzers", "EdgeAnalyzers", "TrackAnalyzers"] {
            self.empty(group, &[])?;
        }
        self.close("AnalyzerCollection")?;
        self.close("Settings")
    }

    fn element<'b>(name: &'b str, attributes: &[Attribute<'_>]) -> BytesStart<'b> {
        let mut element = BytesStart::new(name);
        for (key, value) in attributes {
            // XML has no control characters, not even as references.
            let value: String =
                value.chars().filter(|c| !c.is_control() && !matches!(c, '\u{fffe}' | '\u{ffff}')).collect();
            element.push_attribute((*key, &*value));
        }
        element
    }

    fn open(&mut self, name: &str, attributes: &[Attribute<'_>]) -> io::Result<()> {
        self.xml.write_event(Event::Start(Self::element(name, attributes)))
    }

    fn empty(&mut self, name: &str, attributes: &[Attribute<'_>]) -> io::Result<()> {
        self.xml.write_event(Event::Empty(Self::element(name, attributes)))
    }

    fn close(&mut self, name: &str) -> io::Result<()> {
        self.xml.write_event(Event::End(BytesEnd::new(name)))
    }
}
