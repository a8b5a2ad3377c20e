//! Disjoint sets with union and find.

/// A union-find whose sets are represented by their lowest member; a member's parent is never above it.
#[derive(Default)]
pub(super) struct DisjointSets(Vec<u32>);

impl DisjointSets {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Adds sets of one member each, up to `members` members in all.
    pub(super) fn grow_to(&mut self, members: usize) {
        self.0.extend(self.0.len() as u32..members as u32);
    }

    /// Adds the sets of `other`, whose members are counted on from those here.
    pub(super) fn append(&mut self, other: &Self) {
        let offset = self.0.len() as u32;
        self.0.extend(other.0.iter().map(|parent| parent + offset));
    }

    fn find(&mut self, mut member: u32) -> u32 {
        while self.0[member as usize] != member {
            // Path halving.
            let parent = self.0[member as usize];
            self.0[member as usize] = self.0[parent as usize];
            member = self.0[member as usize];
        }
        member
    }

    pub(super) fn join(&mut self, a: usize, b: usize) {
        let (a, b) = (self.find(a as u32), self.find(b as u32));
        let (low, high) = (a.min(b), a.max(b));
        self.0[high as usize] = low;
    }

    /// How many sets there are.
    pub(super) fn count(&self) -> usize {
        self.0.iter().zip(0..).filter(|&(&parent, member)| parent == member).count()
    }

    /// The number of each member's set, where sets are numbered in the order of their lowest members.
    pub(super) fn into_numbers(self) -> Vec<u32> {
        let mut numbers = self.0;
        let mut next = 0;
        for member in 0..numbers.len() {
            let parent = numbers[member] as usize;
            // Parents come first, so that theirs is a number already.
            numbers[member] = if parent == member {
                next += 1;
                next - 1
            } else {
                numbers[parent]
            };
        }
        numbers
    }
}
