//! Who has what set aside.

use std::collections::BTreeMap;

use crate::Need;

/// The reservations.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    needs: BTreeMap<u64, Need>,
    last_id: u64,
    /// Bytes of this process when nothing was reserved last.
    own_at_rest: u64,
}

/// What came of a need.
#[derive(Debug, PartialEq)]
pub(crate) enum Fit {
    /// It is reserved under this number.
    Added(u64),
    /// It fits when others have ended.
    Later,
    /// It does not fit even alone.
    Never { free: u64 },
}

impl Ledger {
    /// Reserves `need` if it fits into what the system has `available` now, while this process has `own` bytes. Where the
    /// system does not say, everything fits.
    pub(crate) fn add(&mut self, need: Need, available: Option<u64>, own: Option<u64>) -> Fit {
        if let Some(available) = available {
            let own = own.unwrap_or(0);
            if self.needs.is_empty() {
                self.own_at_rest = own;
            }
            // What was reserved and is in use already is no longer available, yet part of what is shared out here.
            let reserved: u64 = self.needs.values().map(|need| need.held.saturating_add(need.in_turn)).sum();
            let in_use = own.saturating_sub(self.own_at_rest).min(reserved);
            let free = available.saturating_add(in_use);
            if total([&need]) > free {
                return Fit::Never { free };
            }
            if total(self.needs.values().chain([&need])) > free {
                return Fit::Later;
            }
        }
        self.last_id += 1;
        self.needs.insert(self.last_id, need);
        Fit::Added(self.last_id)
    }

    pub(crate) fn remove(&mut self, id: u64) {
        self.needs.remove(&id);
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

    fn need(held: u64, in_turn: u64) -> Need {
        Need { held, in_turn }
    }

    #[test]
    fn turns_do_not_add_up() {
        let mut ledger = Ledger::default();
        for id in 1..=2 {
            assert_eq!(ledger.add(need(10, 70), Some(100), Some(5)), Fit::Added(id));
        }
        assert_eq!(ledger.add(need(20, 0), Some(100), Some(5)), Fit::Later);
        assert_eq!(ledger.add(need(10, 0), Some(100), Some(5)), Fit::Added(3));
    }

    #[test]
    fn what_reservations_use_already_is_not_counted_twice() {
        let mut ledger = Ledger::default();
        assert_eq!(ledger.add(need(60, 0), Some(100), Some(5)), Fit::Added(1));
        // All of it is in use: 40 of 100 are left.
        assert_eq!(ledger.add(need(40, 0), Some(40), Some(65)), Fit::Added(2));
        ledger.remove(2);
        // Nothing is in use yet: 100 are available, but 60 of them are spoken for.
        assert_eq!(ledger.add(need(41, 0), Some(100), Some(5)), Fit::Later);
        // Somebody else took the rest.
        assert_eq!(ledger.add(need(71, 0), Some(10), Some(65)), Fit::Never { free: 70 });
    }

    #[test]
    fn memory_that_this_process_had_before_is_not_shared_out() {
        let mut ledger = Ledger::default();
        assert_eq!(ledger.add(need(60, 0), Some(50), Some(1000)), Fit::Never { free: 50 });
    }

    #[test]
    fn everything_fits_where_the_system_does_not_say() {
        assert_eq!(Ledger::default().add(need(u64::MAX, u64::MAX), None, None), Fit::Added(1));
    }
}
