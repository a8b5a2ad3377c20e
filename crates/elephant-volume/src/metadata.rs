//! The `.zarray` file of a Zarr v2 array (specification v2, "Metadata").
//!
//! Written byte for byte as zarr-python 2.18 writes it, because workspaces move between the two servers.

use serde::{Deserialize, Serialize, ser::SerializeStruct};
use serde_json::{Value, json};

use crate::DataType;

/// Largest chunk, in bytes; also keeps chunks within Blosc's limit of 2 GiB.
const MAX_CHUNK_BYTES: usize = 1 << 28;

/// Why a `.zarray` file cannot be used.
pub(crate) enum Refused {
    /// It breaks the format.
    Damaged(String),
    /// It is valid, but not read here.
    Unsupported(String),
}

/// How chunks are compressed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Compressor {
    /// Not at all.
    None,
    /// By Blosc, which is a container around several methods.
    Blosc {
        /// The method: lz4, lz4hc or blosclz.
        method: String,
        /// 0 (none) to 9.
        level: i32,
        /// 0 none, 1 bytes, 2 bits.
        shuffle: i32,
    },
}

/// What a `.zarray` file says.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Metadata {
    pub shape: Vec<usize>,
    pub chunks: Vec<usize>,
    pub data_type: DataType,
    pub compressor: Compressor,
    /// The value of elements that were never written.
    pub fill: f64,
    /// Between the numbers of a chunk's name.
    pub separator: char,
}

impl Metadata {
    /// A new array as the original server makes it: Blosc lz4, level 5, byte shuffle.
    pub fn new(shape: &[usize], chunks: &[usize], data_type: DataType) -> Self {
        let compressor = Compressor::Blosc { method: "lz4".to_owned(), level: 5, shuffle: 1 };
        Self { shape: shape.to_vec(), chunks: chunks.to_vec(), data_type, compressor, fill: 0.0, separator: '.' }
    }

    /// Elements of a chunk.
    pub fn chunk_len(&self) -> usize {
        self.chunks.iter().product()
    }

    /// Bytes of a chunk, uncompressed.
    pub fn chunk_bytes(&self) -> usize {
        self.chunk_len() * self.data_type.size()
    }

    /// The text of the `.zarray` file.
    pub fn to_json(&self) -> Vec<u8> {
        let mut text = Vec::new();
        let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
        let mut serializer = serde_json::Serializer::with_formatter(&mut text, formatter);
        // Writing numbers and short strings into memory cannot fail.
        self.serialize(&mut serializer).expect("metadata are plain values");
        text
    }

    /// Understands the text of a `.zarray` file.
    pub fn from_json(text: &[u8]) -> Result<Self, Refused> {
        let file: ZarrayFile = serde_json::from_slice(text).map_err(|error| Refused::Damaged(error.to_string()))?;
        if file.zarr_format != 2 {
            return Err(Refused::Unsupported(format!("Zarr version {}", file.zarr_format)));
        }
        let name = file.dtype.as_str().unwrap_or("structured");
        let data_type =
            DataType::from_zarr_name(name).ok_or_else(|| Refused::Unsupported(format!("the data type {name:?}")))?;
        if file.order != "C" {
            return Err(Refused::Unsupported(format!("the element order {:?}", file.order)));
        }
        if file.filters.as_array().map_or(!file.filters.is_null(), |filters| !filters.is_empty()) {
            return Err(Refused::Unsupported("filters".to_owned()));
        }
        let separator = match file.dimension_separator.as_deref() {
            None | Some(".") => '.',
            Some("/") => '/',
            Some(_) => return Err(Refused::Damaged("the dimension separator is neither . nor /".to_owned())),
        };
        let compressor = Compressor::from_json(&file.compressor)?;
        let fill = fill_from_json(&file.fill_value, data_type)?;
        let metadata = Self { shape: file.shape, chunks: file.chunks, data_type, compressor, fill, separator };
        metadata.check_sizes().map_err(|reason| Refused::Damaged(reason.to_owned()))?;
        Ok(metadata)
    }

    /// Whether sizes and their products are sensible.
    pub fn check_sizes(&self) -> Result<(), &'static str> {
        if self.shape.len() != self.chunks.len() || self.shape.is_empty() {
            return Err("shape and chunks have different numbers of axes");
        }
        let product = |edges: &[usize], limit| {
            edges
                .iter()
                .try_fold(self.data_type.size(), |bytes, &edge| bytes.checked_mul(edge))
                .is_some_and(|bytes| bytes <= limit)
        };
        if !product(&self.shape, isize::MAX as usize) {
            return Err("the array is too large");
        }
        if !product(&self.chunks, MAX_CHUNK_BYTES) {
            return Err("the chunks are too large");
        }
        // An axis without elements may have chunks without elements: a movie of one timepoint has no flow.
        if self.shape.iter().zip(&self.chunks).any(|(&edge, &chunk)| chunk == 0 && edge != 0) {
            return Err("the chunks have no elements");
        }
        Ok(())
    }

    fn fill_json(&self) -> Value {
        match self.data_type {
            DataType::U8 | DataType::U16 => json!(self.fill as u16),
            DataType::F16 | DataType::F32 => json!(self.fill),
            // Base64 of "0": what zarr-python makes of the number 0 in a text array.
            DataType::Bytes16 => json!("MA=="),
        }
    }
}

/// The fields in the order in which zarr-python writes them, which is the alphabet's.
impl Serialize for Metadata {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut file = serializer.serialize_struct("zarray", 8)?;
        file.serialize_field("chunks", &self.chunks)?;
        file.serialize_field("compressor", &self.compressor.to_json())?;
        if self.separator != '.' {
            file.serialize_field("dimension_separator", &self.separator)?;
        }
        file.serialize_field("dtype", self.data_type.zarr_name())?;
        file.serialize_field("fill_value", &self.fill_json())?;
        file.serialize_field("filters", &None::<()>)?;
        file.serialize_field("order", "C")?;
        file.serialize_field("shape", &self.shape)?;
        file.serialize_field("zarr_format", &2)?;
        file.end()
    }
}

/// The `.zarray` file as it may come from any writer. Unknown fields are left alone.
#[derive(Deserialize)]
struct ZarrayFile {
    zarr_format: u64,
    shape: Vec<usize>,
    chunks: Vec<usize>,
    dtype: Value,
    #[serde(default)]
    compressor: Value,
    #[serde(default)]
    fill_value: Value,
    order: String,
    #[serde(default)]
    filters: Value,
    dimension_separator: Option<String>,
}

impl Compressor {
    fn from_json(value: &Value) -> Result<Self, Refused> {
        if value.is_null() {
            return Ok(Self::None);
        }
        let id = value["id"].as_str().ok_or_else(|| Refused::Damaged("the compressor has no id".to_owned()))?;
        if id != "blosc" {
            return Err(Refused::Unsupported(format!("the compressor {id:?}")));
        }
        let method = value["cname"].as_str().unwrap_or("lz4").to_owned();
        if !["lz4", "lz4hc", "blosclz"].contains(&method.as_str()) {
            return Err(Refused::Unsupported(format!("the compressor blosc with {method:?}")));
        }
        let number = |field: &str, default: i64, allowed: std::ops::RangeInclusive<i64>| {
            let number = value[field].as_i64().unwrap_or(default);
            let damaged = || Refused::Damaged(format!("the compressor's {field} is {number}"));
            if allowed.contains(&number) { Ok(number as i32) } else { Err(damaged()) }
        };
        Ok(Self::Blosc { method, level: number("clevel", 5, 0..=9)?, shuffle: number("shuffle", 1, -1..=2)? })
    }

    fn to_json(&self) -> Value {
        match self {
            Self::None => Value::Null,
            Self::Blosc { method, level, shuffle } => {
                json!({"blocksize": 0, "clevel": level, "cname": method, "id": "blosc", "shuffle": shuffle})
            }
        }
    }
}

fn fill_from_json(value: &Value, data_type: DataType) -> Result<f64, Refused> {
    match value {
        Value::Null => Ok(0.0),
        Value::String(_) if data_type == DataType::Bytes16 => Ok(0.0),
        Value::String(text) if text == "NaN" => Ok(f64::NAN),
        Value::Number(number) => Ok(number.as_f64().unwrap_or(0.0)),
        other => Err(Refused::Unsupported(format!("the fill value {other}"))),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Result<Metadata, String> {
        Metadata::from_json(text.as_bytes()).map_err(|refused| match refused {
            Refused::Damaged(reason) | Refused::Unsupported(reason) => reason,
        })
    }

    fn text() -> String {
        String::from_utf8(Metadata::new(&[3, 8, 20], &[1, 8, 16], DataType::F16).to_json()).unwrap()
    }

    #[test]
    fn what_is_written_is_read_back() {
        for data_type in DataType::ALL {
            let metadata = Metadata::new(&[3, 8, 20], &[1, 8, 16], data_type);
            assert_eq!(Metadata::from_json(&metadata.to_json()).ok(), Some(metadata));
        }
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        for (old, new, named) in [
            ("\"zarr_format\": 2", "\"zarr_format\": 3", "version 3"),
            ("<f2", ">f2", ">f2"),
            ("<f2", "<i8", "<i8"),
            ("\"lz4\"", "\"zstd\"", "zstd"),
            ("\"blosc\"", "\"zlib\"", "zlib"),
            ("\"order\": \"C\"", "\"order\": \"F\"", "\"F\""),
            ("\"filters\": null", "\"filters\": [{\"id\": \"delta\"}]", "filters"),
            ("\"clevel\": 5", "\"clevel\": 99", "clevel"),
            ("16\n    ]", "9000000000\n    ]", "chunks are too large"),
            ("20\n    ]", "9000000000000000000\n    ]", "array is too large"),
            ("16\n    ]", "0\n    ]", "no elements"),
            ("16\n    ]", "16, 1\n    ]", "numbers of axes"),
        ] {
            let changed = text().replacen(old, new, 1);
            assert_ne!(changed, text(), "{old}");
            assert!(parse(&changed).unwrap_err().contains(named), "{new}: {:?}", parse(&changed));
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(noise in "[ -~]{0,20}", at in 0..text().len(), length in 0_usize..20) {
            let text = text();
            let end = (at + length).min(text.len());
            let _ = parse(&format!("{}{noise}{}", &text[..at], &text[end..]));
        }
    }
}
