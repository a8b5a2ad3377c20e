//! Who has what set aside.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use crate::{Need, available::Observed};

/// How long the allocator may keep what was freed before it hands it back to the system.
const SETTLE: Duration = Duration::from_secs(12);

/// The reservations.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    needs: BTreeMap<u64, Need>,
    last_id: u64,
    /// Bytes of this process when nothing was reserved.
    own_at_rest: u64,
    /// What was freed lately, and when the last of it was: the next task can have it, while the system counts it as taken.
    freed: Option<(Instant, u64)>,
}

/// What came of a need.
#[derive(Debug, PartialEq)]
pub(crate) enum Fit {
    /// It is reserved under this number.
    Added(u64),
    /// It fits when others have ended.
    Later,
    /// It does not fit even alone, or only when somebody stops what would not end by itself.
    Never { free: u64 },
}

impl Ledger {
    /// Reserves `need` if it fits into what there is at the moment `now`. Where the system does not say, everything fits.
    pub(crate) fn add(&mut self, need: Need, observed: Observed, now: Instant) -> Fit {
        if let Some(available) = observed.available {
            let kept = self.kept(now);
            let own = observed.own.unwrap_or(0);
            let is_at_rest = self.needs.is_empty() && kept == 0;
            self.own_at_rest = if is_at_rest { own } else { self.own_at_rest.min(own) };
            // What was reserved, or freed just now, and is in use is no longer available, yet part of what is shared out.
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

    /// Bytes that were freed and may still be kept for reuse.
    fn kept(&self, now: Instant) -> u64 {
        self.freed.filter(|(at, _)| now.saturating_duration_since(*at) < SETTLE).map_or(0, |(_, bytes)| bytes)
    }
}

/// What some tasks take at the most, as only one of them has its turn at a time.
fn total<'a>(needs: impl IntoIterator<Item = &'a Need>) -> u64 {
    let add = |(held, in_turn): (u64, u64), need: &Need| (held.saturating_add(need.held), in_turn.max(need.in_turn));
    let (held, in_turn) = needs.into_iter().fold((0, 0), add);
    held.saturating_add(in_turn)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A system at one moment.
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
    fn what_reservations_use_already_is_not_counted_twice() {
        let mut system = System::new();
        assert_eq!(system.add(task(60, 0), 100, 5), Fit::Added(1));
        // Nothing is in use yet: 100 are available, but 60 of them are spoken for.
        assert_eq!(system.add(task(41, 0), 100, 5), Fit::Later);
        // All of it is in use: 40 of 100 are left.
        assert_eq!(system.add(task(40, 0), 40, 65), Fit::Added(2));
        // Somebody else took the rest.
        assert_eq!(system.add(task(71, 0), 10, 65), Fit::Never { free: 70 });
    }

    #[test]
    fn memory_that_this_process_had_before_is_not_shared_out() {
        assert_eq!(System::new().add(task(60, 0), 50, 1000), Fit::Never { free: 50 });
    }

    #[test]
    fn what_one_task_left_to_the_allocator_is_the_next_ones() {
        let mut system = System::new();
        assert_eq!(system.add(task(60, 0), 100, 5), Fit::Added(1));
        system.remove(1);
        // Its pages are kept: 40 are available.
        assert_eq!(system.add(task(90, 0), 40, 65), Fit::Added(2));
        system.remove(2);
        // Long afterwards, what the process has is its own.
        system.now += 2 * SETTLE;
        assert_eq!(system.add(task(90, 0), 40, 65), Fit::Never { free: 40 });
    }

    #[test]
    fn what_is_handed_back_while_a_task_goes_on_is_free_again() {
        let mut system = System::new();
        assert_eq!(system.add(task(50, 0), 100, 5), Fit::Added(1));
        system.remove(1);
        // It begins while 50 are kept, which are handed back later.
        assert_eq!(system.add(task(30, 0), 50, 55), Fit::Added(2));
        system.now += 2 * SETTLE;
        assert_eq!(system.add(task(70, 0), 70, 35), Fit::Added(3));
    }

    #[test]
    fn nothing_waits_for_what_does_not_end() {
        let mut system = System::new();
        assert_eq!(system.add(Need::until_stopped(40, 10), 100, 5), Fit::Added(1));
        assert_eq!(system.add(task(61, 0), 100, 5), Fit::Never { free: 50 });
        assert_eq!(system.add(task(30, 0), 100, 5), Fit::Added(2));
        assert_eq!(system.add(task(30, 0), 100, 5), Fit::Later);
    }

    #[test]
    fn everything_fits_where_the_system_does_not_say() {
        let mut ledger = Ledger::default();
        assert_eq!(ledger.add(task(u64::MAX, u64::MAX), Observed::default(), Instant::now()), Fit::Added(1));
    }
}
