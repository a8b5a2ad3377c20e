//! What each author may undo and redo.

use std::collections::BTreeMap;

use crate::log::EntryKind;

/// So many entries of an author can be undone one after the other; older ones stay.
const KEPT: usize = 10_000;

/// The entries of one author.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stacks {
    /// Entries that stand, oldest first.
    pub done: Vec<u64>,
    /// Entries that were undone, the last one last.
    pub undone: Vec<u64>,
}

/// The entries of all authors, by the index of the author.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct History(pub BTreeMap<u32, Stacks>);

impl History {
    /// Takes note of an entry.
    pub fn record(&mut self, author: u32, seq: u64, kind: &EntryKind) {
        let Stacks { done, undone } = self.0.entry(author).or_default();
        match kind {
            EntryKind::Undo { of } => {
                done.retain(|seq| seq != of);
                undone.push(*of);
            }
            EntryKind::Redo { of } => {
                undone.retain(|seq| seq != of);
                done.push(*of);
            }
            EntryKind::Operation(_) => {
                undone.clear();
                done.push(seq);
            }
        }
        if done.len() > KEPT {
            done.remove(0);
        }
        if undone.len() > KEPT {
            undone.remove(0);
        }
    }

    /// The entry that this author's next undo takes back.
    pub fn last_done(&self, author: u32) -> Option<u64> {
        self.0.get(&author)?.done.last().copied()
    }

    /// The entry that this author's next redo repeats.
    pub fn last_undone(&self, author: u32) -> Option<u64> {
        self.0.get(&author)?.undone.last().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn undo_and_redo_follow_the_order_of_an_author() {
        let mut history = History::default();
        let operation = || EntryKind::Operation("tag".into());
        history.record(0, 1, &operation());
        history.record(1, 2, &operation());
        history.record(0, 3, &operation());
        assert_eq!((history.last_done(0), history.last_done(1), history.last_done(2)), (Some(3), Some(2), None));
        history.record(0, 4, &EntryKind::Undo { of: 3 });
        assert_eq!((history.last_done(0), history.last_undone(0)), (Some(1), Some(3)));
        history.record(0, 5, &EntryKind::Undo { of: 1 });
        history.record(0, 6, &EntryKind::Redo { of: 1 });
        assert_eq!((history.last_done(0), history.last_undone(0)), (Some(1), Some(3)));
        history.record(0, 7, &operation());
        assert_eq!((history.last_done(0), history.last_undone(0)), (Some(7), None), "what was undone is forgotten");
    }
}
