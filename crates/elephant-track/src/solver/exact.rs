//! One integer program for the whole problem, in a thread of its own so that it can be left at any time.

use std::{
    sync::{self, Mutex, mpsc},
    time::Duration,
};

use super::{
    Outcome, Stop,
    graph::Graph,
    ilp::{self, Found, Limits},
};
use crate::TrackError;

/// How often to look whether the task was cancelled. `HiGHS` itself does not look during its first linear program.
const PATIENCE: Duration = Duration::from_millis(50);

/// Improves `start` to an optimum, if there is time. A program that is left behind ends at its next look or its time limit.
pub fn solve(graph: Graph, start: Outcome, stop: &Stop<'_>) -> Result<Outcome, TrackError> {
    let graph = sync::Arc::new(graph);
    let incumbent = sync::Arc::new(Mutex::new(None));
    let (sender, receiver) = mpsc::sync_channel(1);
    let (deadline, relative_gap, cancel) = (stop.deadline, stop.relative_gap, stop.cancel.clone());
    let (work, place, begin) = (sync::Arc::clone(&graph), sync::Arc::clone(&incumbent), start.choice.clone());
    std::thread::Builder::new()
        .name("integer program".to_owned())
        .spawn(move || {
            let limits = Limits { deadline, cancel: &cancel, relative_gap, nodes: None, incumbent: Some(&place) };
            // The receiver is gone if the program was left behind.
            let _ = sender.send(ilp::solve(&work, Some(&begin), true, &limits));
        })
        .map_err(|error| TrackError::Highs(format!("no thread could be started for it: {error}")))?;
    let found = loop {
        match receiver.recv_timeout(PATIENCE) {
            Ok(found) => break Some(found?),
            Err(mpsc::RecvTimeoutError::Timeout) if !stop.is_due() => {}
            Err(mpsc::RecvTimeoutError::Timeout) => break None,
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                return Err(TrackError::Highs("its thread ended unexpectedly".to_owned()));
            }
        }
    };
    let Found { choice, bound, complete } = found.unwrap_or_else(|| {
        let values = incumbent.lock().ok().and_then(|mut place| place.take());
        let choice = values.map(|values| ilp::choice_of(&graph, &values));
        Found { choice, bound: f64::NEG_INFINITY, complete: false }
    });
    let mut bound = start.bound.max(bound);
    if let (Some(optimum), true) = (&choice, complete) {
        // The library has proven this, by its own tolerances.
        let cost = optimum.cost(&graph);
        bound = bound.max(cost - ilp::ABSOLUTE_GAP - relative_gap * cost.abs());
    }
    let better = choice
        .filter(|found| complete || !start.choice.is_allowed(&graph) || found.cost(&graph) < start.choice.cost(&graph));
    Ok(Outcome { choice: better.unwrap_or(start.choice), bound })
}
