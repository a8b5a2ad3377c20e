//! Which models predictions use newer parameters of than those in their files, while they are trained.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

/// Numbers of published parameters. What is computed with a model may be kept under its number, if that is the same before
/// and after.
#[derive(Debug, Default)]
pub(crate) struct Published(Mutex<Numbers>);

#[derive(Debug, Default)]
struct Numbers {
    last: u64,
    of: HashMap<PathBuf, u64>,
}

impl Published {
    /// The number of a model's published parameters; `None` where predictions use its file.
    pub fn number(&self, path: &Path) -> Option<u64> {
        self.numbers().of.get(path).copied()
    }

    /// Runs `change`, after which predictions use other parameters of a model. No number before, during and after it is the
    /// same.
    pub fn changing<T>(&self, path: &Path, change: impl FnOnce() -> T) -> T {
        self.renumber(path);
        let result = change();
        self.renumber(path);
        result
    }

    /// Runs `change`, after which predictions use the file of a model.
    pub fn withdrawing<T>(&self, path: &Path, change: impl FnOnce() -> T) -> T {
        self.renumber(path);
        let result = change();
        self.numbers().of.remove(path);
        result
    }

    fn renumber(&self, path: &Path) {
        let mut numbers = self.numbers();
        numbers.last += 1;
        let number = numbers.last;
        numbers.of.insert(path.to_owned(), number);
    }

    fn numbers(&self) -> MutexGuard<'_, Numbers> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_change_has_its_numbers() {
        let (published, path) = (Published::default(), Path::new("/models/m.pth"));
        let number = || published.number(path);
        assert_eq!(number(), None);
        let during = published.changing(path, number);
        let after = number();
        assert!(during.is_some() && after > during);
        assert!(published.changing(path, number) > after);
        assert!(published.withdrawing(path, number) > after);
        assert_eq!((number(), published.number(Path::new("/other"))), (None, None));
    }
}
