//! What follows from the fixed variables of a problem.

use super::graph::{Lists, NONE};
use crate::{Problem, TrackError, Variable};

/// The values of variables that are fixed, directly or because others are.
pub struct Fixings {
    nodes: Vec<Option<bool>>,
    arcs: Vec<Option<bool>>,
    no_appearance: Vec<bool>,
    no_disappearance: Vec<bool>,
}

struct Propagation<'a> {
    problem: &'a Problem,
    fixed: Fixings,
    /// Arcs that enter each node.
    ins: Lists,
    /// Arcs that leave each node.
    outs: Lists,
    node_conflicts: Lists,
    /// Nodes to look at again.
    waiting: Vec<u32>,
}

impl Fixings {
    /// # Errors
    /// [`TrackError::Infeasible`] if a contradiction is found. Not every contradiction is found here.
    pub fn propagate(problem: &Problem) -> Result<Self, TrackError> {
        let count = problem.nodes.len();
        let fixed = Self {
            nodes: vec![None; count],
            arcs: vec![None; problem.links.len() + problem.divisions.len()],
            no_appearance: vec![false; count],
            no_disappearance: vec![false; count],
        };
        if problem.fixed.is_empty() {
            return Ok(fixed);
        }
        let arcs = (0..fixed.arcs.len() as u32).map(|arc| (arc, ends(problem, arc)));
        let ins = arcs.clone().flat_map(|(arc, (_, targets))| {
            targets.into_iter().filter(|&target| target != NONE).map(move |target| (target, arc))
        });
        let members =
            (0_u32..).zip(&problem.conflicts).flat_map(|(c, members)| members.iter().map(move |&member| (member, c)));
        let mut propagation = Propagation {
            problem,
            fixed,
            ins: Lists::new(count, ins),
            outs: Lists::new(count, arcs.map(|(arc, (source, _))| (source, arc))),
            node_conflicts: Lists::new(count, members),
            waiting: Vec::new(),
        };
        propagation.start()?;
        while let Some(node) = propagation.waiting.pop() {
            propagation.visit(node)?;
        }
        Ok(propagation.fixed)
    }

    pub fn node(&self, node: u32) -> Option<bool> {
        self.nodes[node as usize]
    }

    pub fn arc(&self, arc: u32) -> Option<bool> {
        self.arcs[arc as usize]
    }

    pub fn may_appear(&self, node: u32) -> bool {
        !self.no_appearance[node as usize]
    }

    pub fn may_disappear(&self, node: u32) -> bool {
        !self.no_disappearance[node as usize]
    }
}

/// Source and targets of a link or, after the links, of a division.
fn ends(problem: &Problem, arc: u32) -> (u32, [u32; 2]) {
    if let Some(link) = problem.links.get(arc as usize) {
        return (link.source, [link.target, NONE]);
    }
    let division = &problem.divisions[arc as usize - problem.links.len()];
    (division.source, division.targets)
}

impl Propagation<'_> {
    fn start(&mut self) -> Result<(), TrackError> {
        let divisions = self.problem.links.len() as u32;
        for &(variable, value) in &self.problem.fixed {
            match variable {
                Variable::Node(node) => self.set_node(node, value)?,
                Variable::Link(link) => self.set_arc(link, value)?,
                Variable::Division(division) => self.set_arc(divisions + division, value)?,
                Variable::Appearance(node) if value => {
                    self.set_node(node, true)?;
                    self.close_ins(node, None)?;
                }
                Variable::Disappearance(node) if value => {
                    self.set_node(node, true)?;
                    self.close_outs(node, None)?;
                }
                Variable::Appearance(node) => self.forbid_appearance(node),
                Variable::Disappearance(node) => self.forbid_disappearance(node),
            }
        }
        // Demanded and forbidden at once.
        for &(variable, value) in &self.problem.fixed {
            match variable {
                Variable::Appearance(node) if value && self.fixed.no_appearance[node as usize] => {
                    return Err(contradiction(node));
                }
                Variable::Disappearance(node) if value && self.fixed.no_disappearance[node as usize] => {
                    return Err(contradiction(node));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn set_node(&mut self, node: u32, value: bool) -> Result<(), TrackError> {
        match self.fixed.nodes[node as usize] {
            Some(known) if known != value => return Err(contradiction(node)),
            Some(_) => return Ok(()),
            None => self.fixed.nodes[node as usize] = Some(value),
        }
        self.waiting.push(node);
        if value {
            for at in self.node_conflicts.range(node as usize) {
                let conflict = self.node_conflicts.item(at);
                for &member in &self.problem.conflicts[conflict as usize] {
                    if member != node {
                        self.set_node(member, false)?;
                    }
                }
            }
        } else {
            self.close_ins(node, None)?;
            self.close_outs(node, None)?;
        }
        Ok(())
    }

    fn set_arc(&mut self, arc: u32, value: bool) -> Result<(), TrackError> {
        let (source, targets) = ends(self.problem, arc);
        match self.fixed.arcs[arc as usize] {
            Some(known) if known != value => return Err(contradiction(source)),
            Some(_) => return Ok(()),
            None => self.fixed.arcs[arc as usize] = Some(value),
        }
        self.waiting.push(source);
        self.waiting.extend(targets.into_iter().filter(|&target| target != NONE));
        if value {
            self.set_node(source, true)?;
            self.close_outs(source, Some(arc))?;
            self.forbid_disappearance(source);
            for target in targets.into_iter().filter(|&target| target != NONE) {
                self.set_node(target, true)?;
                self.close_ins(target, Some(arc))?;
                self.forbid_appearance(target);
            }
        }
        Ok(())
    }

    fn close_ins(&mut self, node: u32, except: Option<u32>) -> Result<(), TrackError> {
        for at in self.ins.range(node as usize) {
            let arc = self.ins.item(at);
            if Some(arc) != except {
                self.set_arc(arc, false)?;
            }
        }
        Ok(())
    }

    fn close_outs(&mut self, node: u32, except: Option<u32>) -> Result<(), TrackError> {
        for at in self.outs.range(node as usize) {
            let arc = self.outs.item(at);
            if Some(arc) != except {
                self.set_arc(arc, false)?;
            }
        }
        Ok(())
    }

    fn forbid_appearance(&mut self, node: u32) {
        self.fixed.no_appearance[node as usize] = true;
        self.waiting.push(node);
    }

    fn forbid_disappearance(&mut self, node: u32) {
        self.fixed.no_disappearance[node as usize] = true;
        self.waiting.push(node);
    }

    /// A node that cannot be entered or left is not chosen; one that must be, and can be in one way only, fixes that way.
    fn visit(&mut self, node: u32) -> Result<(), TrackError> {
        let index = node as usize;
        let open = |arcs: &[u32]| -> Vec<u32> {
            arcs.iter().copied().filter(|&arc| self.fixed.arcs[arc as usize] != Some(false)).collect()
        };
        let sides = [
            (open(self.ins.of(index)), self.fixed.no_appearance[index]),
            (open(self.outs.of(index)), self.fixed.no_disappearance[index]),
        ];
        let mut forced = Vec::new();
        for (open, closed) in sides {
            match (closed, open.as_slice(), self.fixed.nodes[index]) {
                (true, [], Some(true)) => return Err(contradiction(node)),
                (true, [], None) => return self.set_node(node, false),
                (true, &[only], Some(true)) => forced.push(only),
                _ => {}
            }
        }
        for arc in forced {
            self.set_arc(arc, true)?;
        }
        Ok(())
    }
}

fn contradiction(node: u32) -> TrackError {
    TrackError::Infeasible { node: Some(node) }
}
