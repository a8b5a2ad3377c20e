//! Bookkeeping of reservations.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use crate::{Need, available::Observed};

/// Time for which the allocator may keep freed memory before it returns it to the system.
const SETTLE: Duration = Duration::from_secs(12);

/// The reservations.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    needs: BTreeMap<u64, Need>,
    last_id: u64,
    /// Bytes used by this process while nothing was reserved.
    own_at_rest: u64,
    /// Bytes freed recently, and the time of the last release: the next task can use them, although the system still
    /// counts them as used.
    freed: Option<(Instant, u64)>,
}

/// Result of a request for memory.
#[derive(Debug, PartialEq)]
pub(crate) enum Fit {
    /// The memory is reserved under this id.
    Added(u64),
    /// It will fit when other tasks have ended.
    Later,
    /// It does not fit even alone, or only if a task is stopped that does not end by itself.
    Never { free: u64 },
}

impl Ledger {
    /// Reserves `need` if it fits at the time `now`. If the system does not report its memory, everything fits.
    pub(crate) fn add(&mut self, need: Need, observed: Observed, now: Instant) -> Fit {
        if let Some(available) = observed.available {
            let kept = self.kept(now);
            let own = observed.own.unwrap_or(0);
            let is_at_rest = self.needs.is_empty() && kept == 0;
            self.own_at_rest = if is_at_rest { own } else { self.own_at_rest.min(own) };
            // Memory that is reserved (or was freed just now) and already in use is missing from `available`, but
            // belongs to the total that is distributed.
            let reserved = self.needs.values().fold(kept, |sum, need| sum.saturating_add(need.most()));
            let in_use = own.saturating_sub(self.own_at_rest).min(reserved);
            let free = available.saturating_add(in_use);
            let endless = total(self.needs.values().filter(|need| need.is_endless));
            if total(self.needs.values().filter(|need| need.is_endless).chain([&need])) > free {
                return Fit::Never { free: free.saturating_sub(endless) };
            }
            if total(self.needs.values().chain([&need])) > free {
                return Fit::Later;
            }
        }
        self.last_id += 1;
        self.needs.insert(self.last_id, need);
        Fit::Added(self.last_id)
    }

    pub(crate) fn remove(&mut self, id: u64, now: Instant) {
        if let Some(need) = self.needs.remove(&id) {
            self.freed = Some((now, self.kept(now).saturating_add(need.most())));
        }
    }

    /// Freed bytes that the allocator may still keep for reuse.
    fn kept(&self, now: Instant) -> u64 {
        self.freed.filter(|(at, _)| now.saturating_duration_since(*at) < SETTLE).map_or(0, |(_, bytes)| bytes)
    }
}

/// Largest total of some tasks, of which only one has its turn at a time.
fn total<'a>(needs: impl IntoIterator<Item = &'a Need>) -> u64 {
    let add = |(held, in_turn): (u64, u64), need: &Need| (held.saturating_add(need.held), in_turn.max(need.in_turn));
    let (held, in_turn) = needs.into_iter().fold((0, 0), add);
    held.saturating_add(in_turn)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A system at a simulated time.
    struct System {
        ledger: Ledger,
        now: Instant,
    }

    impl System {
        fn new() -> Self {
            Self { ledger: Ledger::default(), now: Instant::now() }
        }

        fn add(&mut self, need: Need, available: u64, own: u64) -> Fit {
            self.ledger.add(need, Observed { available: Some(available), own: Some(own) }, self.now)
        }

        fn remove(&mut self, id: u64) {
            self.ledger.remove(id, self.now);
        }
    }

    fn task(held: u64, in_turn: u64) -> Need {
        Need::while_running(held, in_turn)
    }

    #[test]
    fn turns_do_not_add_up() {
        let mut system = System::new();
        for id in 1..=2 {
            assert_eq!(system.add(task(10, 70), 100, 5), Fit::Added(id));
        }
        assert_eq!(system.add(task(20, 0), 100, 5), Fit::Later);
        assert_eq!(system.add(task(10, 0), 100, 5), Fit::Added(3));
    }

    #[test]
    fn memory_in_use_by_reservations_is_not_counted_twice() {
        let mut system = System::new();
        assert_eq!(system.add(task(60, 0), 100, 5), Fit::Added(1));
        // Nothing is in use yet: 100 are available, but 60 of them are reserved.
        assert_eq!(system.add(task(41, 0), 100, 5), Fit::Later);
        // All of it is in use: 40 of 100 are left.
        assert_eq!(system.add(task(40, 0), 40, 65), Fit::Added(2));
        // Another program uses the rest.
        assert_eq!(system.add(task(71, 0), 10, 65), Fit::Never { free: 70 });
    }

    #[test]
    fn memory_used_before_any_reservation_is_not_distributed() {
        assert_eq!(System::new().add(task(60, 0), 50, 1000), Fit::Never { free: 50 });
    }

    #[test]
    fn memory_kept_by_the_allocator_is_available_to_the_next_task() {
        let mut system = System::new();
        assert_eq!(system.add(task(60, 0), 100, 5), Fit::Added(1));
        system.remove(1);
        // Its pages are kept: 40 are available.
        assert_eq!(system.add(task(90, 0), 40, 65), Fit::Added(2));
        system.remove(2);
        // After a long time, the memory in use belongs to the process itself.
        system.now += 2 * SETTLE;
        assert_eq!(system.add(task(90, 0), 40, 65), Fit::Never { free: 40 });
    }

    #[test]
    fn memory_returned_during_a_task_is_free_again() {
        let mut system = System::new();
        assert_eq!(system.add(task(50, 0), 100, 5), Fit::Added(1));
        system.remove(1);
        // It begins while 50 are kept, which are returned later.
        assert_eq!(system.add(task(30, 0), 50, 55), Fit::Added(2));
        system.now += 2 * SETTLE;
        assert_eq!(system.add(task(70, 0), 70, 35), Fit::Added(3));
    }

    #[test]
    fn no_task_waits_for_an_endless_one() {
        let mut system = System::new();
        assert_eq!(system.add(Need::until_stopped(40, 10), 100, 5), Fit::Added(1));
        assert_eq!(system.add(task(61, 0), 100, 5), Fit::Never { free: 50 });
        assert_eq!(system.add(task(30, 0), 100, 5), Fit::Added(2));
        assert_eq!(system.add(task(30, 0), 100, 5), Fit::Later);
    }

    #[test]
    fn everything_fits_if_the_system_reports_nothing() {
        let mut ledger = Ledger::default();
        assert_eq!(ledger.add(task(u64::MAX, u64::MAX), Observed::default(), Instant::now()), Fit::Added(1));
    }
}
