//! The statement of a tracking problem: what may be chosen, what each choice costs, and which choices are given.
//!
//! This module knows nothing of positions or images, and does not solve anything.

use crate::TrackError;

/// Hypotheses with conflicts, links and divisions. The best solution has the smallest sum of the costs of what it chooses.
///
/// A solution is consistent if
/// - every chosen node has exactly one of: an incoming link, an incoming division, an appearance;
/// - every chosen node has exactly one of: an outgoing link, a division, a disappearance;
/// - nodes that are not chosen have none of these;
/// - at most one node of each conflict is chosen.
///
/// Costs may have either sign; only candidates with negative costs are worth choosing. `f64::INFINITY` is not allowed:
/// leave the candidate out, or fix it to `false`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Problem {
    /// The hypotheses, in any order. Their indices name them everywhere else.
    pub nodes: Vec<Node>,
    /// The candidates for "is the same cell in a later frame".
    pub links: Vec<LinkCandidate>,
    /// The candidates for "divides into these two".
    pub divisions: Vec<DivisionCandidate>,
    /// Groups of nodes of which at most one may be chosen (for example segmentations that overlap). Groups may overlap. The
    /// fewer and larger, the better: one group of three instead of three of two.
    pub conflicts: Vec<Vec<u32>>,
    /// Variables with a given value. The same variable may be named more than once, but not with both values.
    ///
    /// To demand that `a` is the parent of `b`, by a link or by a division: fix `Node(a)` and `Node(b)` to `true`, and
    /// `Appearance(b)` and all links and divisions that lead to `b` from other nodes to `false`. [`Problem::fix_parent`] does so.
    pub fixed: Vec<(Variable, bool)>,
}

/// A hypothesis: something that may be a cell in one frame.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Node {
    /// The frame it is in.
    pub frame: u32,
    /// Cost of choosing it.
    pub cost: f64,
    /// Cost of a track that begins here, 0 where nothing can be known of the time before.
    pub appearance: f64,
    /// Cost of a track that ends here.
    pub disappearance: f64,
}

/// A candidate for a link from a node to one in a later frame. Frames may be skipped.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LinkCandidate {
    /// The node in the earlier frame.
    pub source: u32,
    /// The node in the later frame.
    pub target: u32,
    /// Cost of choosing the link.
    pub cost: f64,
}

/// A candidate for a division: one variable for the mother and both daughters, so its cost may depend on all three.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DivisionCandidate {
    /// The mother.
    pub source: u32,
    /// The daughters, two different nodes in later frames (usually both in the next).
    pub targets: [u32; 2],
    /// Cost of choosing the division.
    pub cost: f64,
}

/// A variable of a [`Problem`], by the index of its node, link or division.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Variable {
    /// The node is chosen.
    Node(u32),
    /// A track begins at this node.
    Appearance(u32),
    /// A track ends at this node.
    Disappearance(u32),
    /// The link is chosen.
    Link(u32),
    /// The division is chosen.
    Division(u32),
}

impl Problem {
    /// Demands that `parent` is the parent of `child`, by any of the links and divisions there are. To be called after these are
    /// complete. If there is none, [`solve`](crate::solve) reports a contradiction.
    pub fn fix_parent(&mut self, parent: u32, child: u32) {
        self.fixed.extend([
            (Variable::Node(parent), true),
            (Variable::Node(child), true),
            (Variable::Appearance(child), false),
        ]);
        for (link, candidate) in (0..).zip(&self.links) {
            if candidate.target == child && candidate.source != parent {
                self.fixed.push((Variable::Link(link), false));
            }
        }
        for (division, candidate) in (0..).zip(&self.divisions) {
            if candidate.targets.contains(&child) && candidate.source != parent {
                self.fixed.push((Variable::Division(division), false));
            }
        }
    }

    /// Checks indices, frames and costs.
    ///
    /// # Errors
    /// [`TrackError::InvalidProblem`] names the first object with an index out of range, a cost that is not finite, a link or
    /// division that does not lead to a later frame, equal daughters, a conflict with a node named twice, or a fixing of a
    /// variable that does not exist.
    pub fn validate(&self) -> Result<(), TrackError> {
        for (what, length) in [
            ("node", self.nodes.len()),
            ("link", self.links.len()),
            ("division", self.divisions.len()),
            ("conflict", self.conflicts.len()),
        ] {
            if u32::try_from(length).is_err() {
                return Err(invalid(what, length, "there are too many of them; track a shorter time range"));
            }
        }
        for (index, node) in self.nodes.iter().enumerate() {
            if !(node.cost.is_finite() && node.appearance.is_finite() && node.disappearance.is_finite()) {
                return Err(invalid("node", index, "its costs must be finite"));
            }
        }
        for (index, link) in self.links.iter().enumerate() {
            self.check_candidate("link", index, link.cost, link.source, &[link.target])?;
        }
        for (index, division) in self.divisions.iter().enumerate() {
            self.check_candidate("division", index, division.cost, division.source, &division.targets)?;
            if division.targets[0] == division.targets[1] {
                return Err(invalid("division", index, "its daughters must be two different nodes"));
            }
        }
        for (index, conflict) in self.conflicts.iter().enumerate() {
            let mut members = conflict.clone();
            members.sort_unstable();
            if members.windows(2).any(|pair| pair[0] == pair[1]) {
                return Err(invalid("conflict", index, "it names a node twice"));
            }
            if members.last().is_some_and(|&last| last as usize >= self.nodes.len()) {
                return Err(invalid("conflict", index, "it names a node that does not exist"));
            }
        }
        for (index, (variable, _)) in self.fixed.iter().enumerate() {
            let (number, count) = match *variable {
                Variable::Node(number) | Variable::Appearance(number) | Variable::Disappearance(number) => {
                    (number, self.nodes.len())
                }
                Variable::Link(number) => (number, self.links.len()),
                Variable::Division(number) => (number, self.divisions.len()),
            };
            if number as usize >= count {
                return Err(invalid("fixing", index, "it names a variable that does not exist"));
            }
        }
        Ok(())
    }

    fn check_candidate(
        &self,
        what: &'static str,
        index: usize,
        cost: f64,
        source: u32,
        targets: &[u32],
    ) -> Result<(), TrackError> {
        if !cost.is_finite() {
            return Err(invalid(what, index, "its cost must be finite"));
        }
        let frame = |node: u32| {
            let found = self.nodes.get(node as usize).map(|node| node.frame);
            found.ok_or_else(|| invalid(what, index, "it names a node that does not exist"))
        };
        let begin = frame(source)?;
        for &target in targets {
            if frame(target)? <= begin {
                return Err(invalid(what, index, "it must lead to a later frame"));
            }
        }
        Ok(())
    }
}

fn invalid(what: &'static str, index: usize, reason: &str) -> TrackError {
    TrackError::InvalidProblem { what, index, reason: reason.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two_frames() -> Problem {
        let node = |frame| Node { frame, cost: 0.0, appearance: 1.0, disappearance: 1.0 };
        Problem {
            nodes: vec![node(0), node(1), node(1)],
            links: vec![LinkCandidate { source: 0, target: 1, cost: -3.0 }],
            divisions: vec![DivisionCandidate { source: 0, targets: [1, 2], cost: -5.0 }],
            conflicts: vec![vec![1, 2]],
            fixed: vec![(Variable::Link(0), true)],
        }
    }

    fn message(change: impl FnOnce(&mut Problem)) -> String {
        let mut problem = two_frames();
        change(&mut problem);
        problem.validate().unwrap_err().to_string()
    }

    #[test]
    fn a_wrong_object_is_named() {
        two_frames().validate().unwrap();
        assert_eq!(message(|p| p.nodes[2].cost = f64::NAN), "node 2: its costs must be finite");
        assert_eq!(message(|p| p.links[0].target = 3), "link 0: it names a node that does not exist");
        assert_eq!(message(|p| p.nodes[1].frame = 0), "link 0: it must lead to a later frame");
        assert_eq!(
            message(|p| p.divisions[0].targets = [2, 2]),
            "division 0: its daughters must be two different nodes"
        );
        assert_eq!(message(|p| p.divisions[0].cost = f64::INFINITY), "division 0: its cost must be finite");
        assert_eq!(message(|p| p.conflicts[0] = vec![1, 1]), "conflict 0: it names a node twice");
        assert_eq!(message(|p| p.conflicts[0] = vec![1, 9]), "conflict 0: it names a node that does not exist");
        assert_eq!(
            message(|p| p.fixed.push((Variable::Division(1), false))),
            "fixing 1: it names a variable that does not exist"
        );
    }
}
