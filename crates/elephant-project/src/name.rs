//! Names of projects and of those who work on them.

use std::{fmt, str::FromStr};

use elephant_types::DatasetName;
use serde::{Deserialize, Serialize};

/// A name that cannot be one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the {kind} {name:?} is not valid: {rule}")]
pub struct InvalidProjectName {
    kind: &'static str,
    name: String,
    rule: &'static str,
}

const SHOWN_CHARS: usize = 80;

fn invalid(kind: &'static str, name: &str, rule: &'static str) -> InvalidProjectName {
    InvalidProjectName { kind, name: name.chars().take(SHOWN_CHARS).collect(), rule }
}

/// Control characters, and those that turn the direction of what follows.
fn is_invisible(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

macro_rules! text_type {
    ($(#[$doc:meta])* $type:ident, $kind:literal, $max:literal, $rule:literal, $is_valid:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $type(String);

        impl $type {
            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $type {
            type Error = InvalidProjectName;
            fn try_from(text: String) -> Result<Self, InvalidProjectName> {
                let is_valid: fn(&str) -> bool = $is_valid;
                if text.is_empty() || text.len() > $max || !is_valid(&text) {
                    return Err(invalid($kind, &text, $rule));
                }
                Ok(Self(text))
            }
        }

        impl FromStr for $type {
            type Err = InvalidProjectName;
            fn from_str(text: &str) -> Result<Self, InvalidProjectName> {
                text.to_owned().try_into()
            }
        }

        impl From<$type> for String {
            fn from(text: $type) -> String {
                text.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(&self.0)
            }
        }
    };
}

text_type!(
    /// The name of a project within its dataset: letters, digits, `-` and `_`, at most 64 bytes.
    ProjectName,
    "project name",
    64,
    "use 1 to 64 letters, digits, - and _, and no - at the beginning",
    |text| !text.starts_with('-') && text.chars().all(|c| c.is_alphanumeric() || matches!(c, '-' | '_'))
);
text_type!(
    /// The name of a person or program that changes projects: at most 64 bytes without control characters.
    Author,
    "author",
    64,
    "use 1 to 64 bytes without control characters, and no space at the ends",
    |text| text.trim() == text && !text.chars().any(is_invisible)
);
text_type!(
    /// A client's own name of a request, by which a repeated one is recognised: at most 64 printable ASCII characters without spaces.
    ClientId,
    "client id",
    64,
    "use 1 to 64 printable ASCII characters without spaces, different for each request",
    |text| text.bytes().all(|byte| (0x21..0x7f).contains(&byte))
);

/// A project of a dataset. As text `DATASET/NAME`; the dataset's name may have more parts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ProjectId {
    /// The dataset.
    pub dataset: DatasetName,
    /// Its name within the dataset.
    pub name: ProjectName,
}

impl ProjectId {
    /// A project of a dataset.
    pub fn new(dataset: DatasetName, name: ProjectName) -> Self {
        Self { dataset, name }
    }
}

impl fmt::Display for ProjectId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.dataset, self.name)
    }
}

impl FromStr for ProjectId {
    type Err = InvalidProjectName;

    fn from_str(text: &str) -> Result<Self, InvalidProjectName> {
        const RULE: &str = "write it as DATASET/NAME";
        let (dataset, name) = text.rsplit_once('/').ok_or_else(|| invalid("project", text, RULE))?;
        let dataset = dataset.parse().map_err(|_| invalid("project", text, RULE))?;
        Ok(Self { dataset, name: name.parse()? })
    }
}

impl TryFrom<String> for ProjectId {
    type Error = InvalidProjectName;

    fn try_from(text: String) -> Result<Self, InvalidProjectName> {
        text.parse()
    }
}

impl From<ProjectId> for String {
    fn from(id: ProjectId) -> Self {
        id.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_file_names_everywhere() {
        for name in ["main", "Ann_2", "größe", "2-cells"] {
            assert!(name.parse::<ProjectName>().is_ok(), "{name}");
        }
        let long = "x".repeat(65);
        for name in ["", "a.b", "a/b", "..", "-a", "a b", "a\0", long.as_str()] {
            let error = name.parse::<ProjectName>().unwrap_err().to_string();
            assert!(error.len() < 200, "{error}");
        }
    }

    #[test]
    fn a_project_belongs_to_a_dataset() {
        let id: ProjectId = "lab/fly/main".parse().unwrap();
        assert_eq!((id.dataset.as_str(), id.name.as_str()), ("lab/fly", "main"));
        assert_eq!(id.to_string(), "lab/fly/main");
        for text in ["main", "/main", "../a/main", "fly/", "fly//main"] {
            assert!(text.parse::<ProjectId>().is_err() || text == "fly//main", "{text}");
        }
    }

    #[test]
    fn authors_can_be_seen() {
        for good in ["Ann", "Ann of Lab 3", "Иван", "elephant-server track"] {
            assert!(good.parse::<Author>().is_ok(), "{good}");
        }
        for bad in ["", " ", " Ann", "Ann\n", "Ann\u{202e}nnA"] {
            assert!(bad.parse::<Author>().is_err(), "{bad:?}");
        }
    }
}
