//! Groups and datasets of an open file.

use std::{collections::HashSet, sync::Arc};

use hdf5_metno::{IndexType, IterationOrder};

use crate::{
    Hdf5Error, Hdf5File, Value, Volume, array, attributes,
    file::{Located, OpenFile, brief},
    header::{self, Kind},
    volume::Role,
};

/// Deepest nesting of groups that [`Group::walk`] follows.
const MAX_DEPTH: usize = 64;
/// Fewest bytes that a link takes in a file: its name, and the address of what it leads to.
const LINK_BYTES: u64 = 10;

/// What a path leads to.
#[derive(Debug)]
pub enum Object<'f> {
    /// A group.
    Group(Group<'f>),
    /// A dataset.
    Dataset(Dataset<'f>),
    /// A named type, or something that this crate does not know.
    Other,
}

/// A group: names that lead to other objects, and attributes.
#[derive(Clone, Debug)]
pub struct Group<'f> {
    files: &'f Hdf5File,
    file: Arc<OpenFile>,
    handle: hdf5_metno::Group,
    address: u64,
    path: String,
}

/// A dataset: an array of numbers or texts of any number of axes, and attributes.
#[derive(Debug)]
pub struct Dataset<'f> {
    files: &'f Hdf5File,
    located: Located,
    path: String,
}

impl<'f> Group<'f> {
    /// The top group of the main file.
    pub(crate) fn root(files: &'f Hdf5File) -> Result<Self, Hdf5Error> {
        let file = Arc::clone(files.main());
        let address = file.root_address().ok_or_else(|| Hdf5Error::Damaged {
            file: file.name.clone(),
            detail: "its superblock names no root group".to_owned(),
        })?;
        let handle = file.root().clone();
        Ok(Self { files, file, handle, address, path: "/".to_owned() })
    }

    /// Path of the group in its file, beginning with `/`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The names in the group, sorted. Soft and external links are among them, whether they lead anywhere or not.
    ///
    /// # Errors
    /// When the group is damaged, or lists more names than its file has room for.
    pub fn members(&self) -> Result<Vec<String>, Hdf5Error> {
        // A damaged index may lead to the same names again and again.
        let most = (self.file.len() / LINK_BYTES) as usize;
        let mut names = Vec::new();
        let visited = self.handle.iter_visit(IndexType::Name, IterationOrder::Native, |name, _| {
            if names.len() == most {
                return Err("the group is damaged: it lists more members than its file can hold".into());
            }
            names.push(name.to_owned());
            Ok(())
        });
        visited.map_err(|error| self.fail(brief(&error)))?;
        names.sort_unstable();
        Ok(names)
    }

    /// Follows `path` from this group, or from the root of its file when it begins with `/`. `None` when a name on the way
    /// does not exist.
    ///
    /// # Errors
    /// When an object on the way is damaged, links go round in circles, or a link leads out of reach.
    pub fn object(&self, path: &str) -> Result<Option<Object<'f>>, Hdf5Error> {
        let full = if path.starts_with('/') { path.to_owned() } else { joined(&self.path, path) };
        let start = if path.starts_with('/') { self.file.root() } else { &self.handle };
        let located = self.files.locate_from(Arc::clone(&self.file), start.clone(), path, &full)?;
        located.map(|located| self.open(located, full)).transpose()
    }

    /// The dataset at `path`, as [`object`](Self::object) finds it.
    ///
    /// # Errors
    /// As [`object`](Self::object), and when it is something else than a dataset.
    pub fn dataset(&self, path: &str) -> Result<Option<Dataset<'f>>, Hdf5Error> {
        match self.object(path)? {
            None => Ok(None),
            Some(Object::Dataset(dataset)) => Ok(Some(dataset)),
            Some(_) => Err(Hdf5Error::object(&self.file.name, path, "it is not a dataset")),
        }
    }

    /// The group at `path`, as [`object`](Self::object) finds it.
    ///
    /// # Errors
    /// As [`object`](Self::object), and when it is something else than a group.
    pub fn group(&self, path: &str) -> Result<Option<Self>, Hdf5Error> {
        match self.object(path)? {
            None => Ok(None),
            Some(Object::Group(group)) => Ok(Some(group)),
            Some(_) => Err(Hdf5Error::object(&self.file.name, path, "it is not a group")),
        }
    }

    /// Calls `visit` with each object below this group that hard links lead to, in order of names, a group before its
    /// members. An object with several links is visited once; soft and external links are not followed.
    ///
    /// # Errors
    /// What `visit` returns, and when a group is damaged or groups are nested too deeply.
    pub fn walk<E: From<Hdf5Error>>(&self, mut visit: impl FnMut(&str, &Object<'f>) -> Result<(), E>) -> Result<(), E> {
        let mut visited = HashSet::from([self.address]);
        let mut ahead = vec![(self.clone(), self.members()?.into_iter())];
        while let Some((group, names)) = ahead.last_mut() {
            let Some(name) = names.next() else {
                ahead.pop();
                continue;
            };
            let group = group.clone();
            let path = joined(&group.path, &name);
            let Some(located) = Hdf5File::hard_link(&group.file, &group.handle, &name, &path)? else { continue };
            if !visited.insert(located.address) {
                continue;
            }
            let object = group.open(located, path)?;
            let path = match &object {
                Object::Group(found) => &found.path,
                Object::Dataset(found) => &found.path,
                Object::Other => continue,
            };
            visit(path, &object)?;
            if let Object::Group(found) = object {
                if ahead.len() == MAX_DEPTH {
                    return Err(found.fail(format!("its groups are nested more than {MAX_DEPTH} deep")).into());
                }
                let names = found.members()?.into_iter();
                ahead.push((found, names));
            }
        }
        Ok(())
    }

    /// Names of the attributes, sorted.
    ///
    /// # Errors
    /// When the group is damaged.
    pub fn attribute_names(&self) -> Result<Vec<String>, Hdf5Error> {
        attributes::names(&self.handle).map_err(|detail| self.fail(detail))
    }

    /// The value of an attribute; `None` when there is no such attribute.
    ///
    /// # Errors
    /// When the attribute is damaged, too large, or neither a number nor a text.
    pub fn attribute(&self, name: &str) -> Result<Option<Value>, Hdf5Error> {
        attributes::read(&self.file, &self.handle, self.address, name).map_err(|detail| self.fail(detail))
    }

    fn open(&self, located: Located, path: String) -> Result<Object<'f>, Hdf5Error> {
        let damaged = |detail: String| Hdf5Error::object(&located.file.name, path.trim_start_matches('/'), detail);
        match header::kind(&located.file, located.address) {
            None => Err(damaged("its header is damaged; copy the file again".to_owned())),
            Some(Kind::Group) => {
                let handle = located.group.group(&located.name).map_err(|error| damaged(brief(&error)))?;
                let Located { file, address, .. } = located;
                Ok(Object::Group(Self { files: self.files, file, handle, address, path }))
            }
            Some(Kind::Dataset) => Ok(Object::Dataset(Dataset { files: self.files, located, path })),
            Some(Kind::Other) => Ok(Object::Other),
        }
    }

    fn fail(&self, detail: impl Into<String>) -> Hdf5Error {
        Hdf5Error::object(&self.file.name, &self.path, detail)
    }
}

impl Dataset<'_> {
    /// Path of the dataset in its file, beginning with `/`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Length of each axis, slowest axis first; none for a single value.
    ///
    /// # Errors
    /// When the dataset is damaged.
    pub fn shape(&self) -> Result<Vec<usize>, Hdf5Error> {
        let handle = self.handle()?;
        handle.get_shape().map_err(|error| self.fail(brief(&error)))
    }

    /// Reads all values, of any number of axes.
    ///
    /// # Errors
    /// When they take more than 256 MiB, are neither numbers nor texts, are damaged, or are stored in other files or in a
    /// way that cannot be undone.
    pub fn read(&self) -> Result<Value, Hdf5Error> {
        array::read(&self.located.file, &self.path, &self.handle()?, self.located.address)
    }

    /// The dataset as a volume with three axes, whose boxes are read one by one.
    ///
    /// # Errors
    /// When it does not have three axes or does not hold numbers, is damaged, or lies out of reach.
    pub fn volume(&self) -> Result<Volume, Hdf5Error> {
        let object = self.path.trim_start_matches('/').to_owned();
        Volume::open(self.files, &self.located, object, Role::Image)
    }

    /// Names of the attributes, sorted.
    ///
    /// # Errors
    /// When the dataset is damaged.
    pub fn attribute_names(&self) -> Result<Vec<String>, Hdf5Error> {
        let handle = self.handle()?;
        attributes::names(&handle).map_err(|detail| self.fail(detail))
    }

    /// The value of an attribute; `None` when there is no such attribute.
    ///
    /// # Errors
    /// When the attribute is damaged, too large, or neither a number nor a text.
    pub fn attribute(&self, name: &str) -> Result<Option<Value>, Hdf5Error> {
        let handle = self.handle()?;
        let value = attributes::read(&self.located.file, &handle, self.located.address, name);
        value.map_err(|detail| self.fail(detail))
    }

    fn handle(&self) -> Result<hdf5_metno::Dataset, Hdf5Error> {
        self.located.open_dataset().map_err(|detail| self.fail(detail))
    }

    fn fail(&self, detail: impl Into<String>) -> Hdf5Error {
        Hdf5Error::object(&self.located.file.name, &self.path, detail)
    }
}

fn joined(group: &str, path: &str) -> String {
    format!("{}/{path}", group.trim_end_matches('/'))
}
