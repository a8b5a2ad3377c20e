//! Names of datasets, models and files: relative paths that may nest but never leave their root.

use std::{fmt, path::Path, str::FromStr};

use serde::{Deserialize, Serialize};

/// The longest name in bytes; also the longest file name that common file systems accept.
const MAX_BYTES: usize = 255;

/// A name that could leave its root, or that no file system would take.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the {kind} name {name:?} {reason}")]
pub struct InvalidName {
    kind: &'static str,
    name: String,
    reason: &'static str,
}

fn check(kind: &'static str, name: &str) -> Result<(), InvalidName> {
    let reason = if name.is_empty() {
        "is empty"
    } else if name.len() > MAX_BYTES {
        "is longer than 255 bytes; use a shorter one"
    } else if name.chars().any(char::is_control) {
        "holds a control character"
    } else if name.contains('\\') {
        "holds a backslash; separate folders with /"
    } else if name.starts_with('/') {
        "is absolute; give it relative to the workspace"
    } else if name.split('/').any(str::is_empty) {
        "has an empty part; write it without // and without a / at the end"
    } else if name.split('/').any(|part| part == ".." || part == ".") {
        "would leave its folder; write it without . and .. parts"
    } else if name.split('/').any(|part| part.starts_with('.')) {
        "has a part that starts with a dot; these are kept for temporary files"
    } else if name.split('/').any(|part| Path::new(part).extension().is_some_and(|it| it == "zarr")) {
        "has a part that ends in .zarr; these are kept for the stores of datasets"
    } else if name.contains(char::REPLACEMENT_CHARACTER) {
        "is not UTF-8"
    } else {
        return Ok(());
    };
    // A name may be hostile and long: quote its beginning only.
    let shown = name.chars().take(80).collect();
    Err(InvalidName { kind, name: shown, reason })
}

/// A dataset is a folder, so its name may end in `/`, as a shell completes it.
fn without_final_slash(mut name: String) -> String {
    let length = name.trim_end_matches('/').len();
    if length > 0 {
        name.truncate(length);
    }
    name
}

macro_rules! name_type {
    ($(#[$doc:meta])* $type:ident, $kind:literal, $simplify:expr) => {
        $(#[$doc])*
        ///
        /// At most 255 bytes of UTF-8, parts separated by `/`, no part empty or starting with a dot.
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $type(String);

        impl $type {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $type {
            type Error = InvalidName;
            fn try_from(name: String) -> Result<Self, InvalidName> {
                let name: String = $simplify(name);
                check($kind, &name)?;
                Ok(Self(name))
            }
        }

        impl FromStr for $type {
            type Err = InvalidName;
            fn from_str(name: &str) -> Result<Self, InvalidName> {
                name.to_owned().try_into()
            }
        }

        impl From<$type> for String {
            fn from(name: $type) -> String {
                name.0
            }
        }

        impl AsRef<Path> for $type {
            fn as_ref(&self) -> &Path {
                Path::new(&self.0)
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(&self.0)
            }
        }
    };
}

name_type!(
    /// The name of a dataset: its folder below `workspace/datasets`. Read from text, it may end in `/`.
    DatasetName,
    "dataset",
    without_final_slash
);
name_type!(
    /// The name of a model: its file below `workspace/models`.
    ModelName,
    "model",
    std::convert::identity
);
name_type!(
    /// The name of a file inside a dataset's folder.
    FileName,
    "file",
    std::convert::identity
);

impl ModelName {
    /// The model of requests that name none.
    pub fn detection() -> Self {
        Self("detection.pth".into())
    }

    /// The flow model of requests that name none.
    pub fn flow() -> Self {
        Self("flow.pth".into())
    }
}

impl FileName {
    /// The folder of logs of trainings that name none.
    pub fn detection_log() -> Self {
        Self("detection_log".into())
    }

    /// The same of trainings of flow networks.
    pub fn flow_log() -> Self {
        Self("flow_log".into())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn nested_names_are_fine() {
        for name in ["a", "lab/fly1", "größe/α.pth", "a b/c.d", "..a".trim_start_matches('.')] {
            assert!(name.parse::<DatasetName>().is_ok(), "{name}");
        }
    }

    #[test]
    fn names_that_leave_their_root_are_refused() {
        let long = "x".repeat(300);
        for name in [
            "",
            "..",
            "a/..",
            "../a",
            "a/../b",
            "/etc/passwd",
            "a//b",
            "a/",
            ".",
            "a/.",
            "a\0b",
            "a\\b",
            "fly/imgs.zarr",
            "imgs.zarr/0.0",
            "a\u{fffd}",
            ".tmp",
            "a/.b",
            &long,
        ] {
            assert!(name.parse::<ModelName>().is_err(), "{name:?}");
        }
    }

    #[test]
    fn a_dataset_is_a_folder_and_may_end_in_a_slash() {
        for name in ["lab/fly", "lab/fly/", "lab/fly//"] {
            assert_eq!(name.parse::<DatasetName>().unwrap().as_str(), "lab/fly");
            assert_eq!(serde_json::from_str::<DatasetName>(&format!("{name:?}")).unwrap().as_str(), "lab/fly");
        }
        for name in ["/", "//", "/fly/", "lab//fly/"] {
            assert!(name.parse::<DatasetName>().is_err(), "{name}");
        }
        assert!("fly.h5/".parse::<FileName>().is_err());
    }

    proptest! {
        #[test]
        fn an_accepted_name_stays_below_its_root(name in ".{0,40}") {
            if let Ok(name) = name.parse::<FileName>() {
                let path: &Path = name.as_ref();
                prop_assert!(path.components().all(|part| matches!(part, std::path::Component::Normal(_))));
            }
        }
    }
}
