//! What was seen lately: ids within a window of time and a bound of count.

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use crate::id::EventId;
use crate::time::Monotonic;

/// The ids of commands or events seen lately, so that a repeated one is done or shown once (DELIVERY §7).
#[derive(Debug)]
pub struct SeenIds {
    ids: HashSet<EventId, foldhash::quality::FixedState>,
    order: VecDeque<(Monotonic, EventId)>,
    window: Duration,
    max: usize,
}

impl SeenIds {
    /// Remembers an id for `window`, at most `max` of them (≥ 1); `seed` is that of the hashes.
    #[must_use]
    pub fn new(window: Duration, max: usize, seed: u64) -> Self {
        let ids = HashSet::with_hasher(foldhash::quality::FixedState::with_seed(seed));
        Self { ids, order: VecDeque::new(), window, max }
    }

    /// Whether the id is seen for the first time within the window.
    pub fn first(&mut self, now: Monotonic, id: EventId) -> bool {
        while let Some(&(at, oldest)) = self.order.front() {
            if self.order.len() < self.max && now.since(at) < self.window {
                break;
            }
            self.order.pop_front();
            self.ids.remove(&oldest);
        }
        let first = self.ids.insert(id);
        if first {
            self.order.push_back((now, id));
        }
        first
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A repeated id is known within the window and within the bound, and no longer.
    #[test]
    fn ids_are_remembered_for_a_while() {
        let (mut seen, second) = (SeenIds::new(Duration::from_secs(10), 3, 1), Duration::from_secs(1));
        let id = |n: u8| EventId([n; 16]);
        assert!(seen.first(Monotonic::ZERO, id(1)));
        assert!(!seen.first(Monotonic::ZERO + 9 * second, id(1)));
        assert!(seen.first(Monotonic::ZERO + 10 * second, id(1)));
        for n in 2..5 {
            assert!(seen.first(Monotonic::ZERO + 11 * second, id(n)));
        }
        assert!(!seen.first(Monotonic::ZERO + 11 * second, id(4)));
        assert!(seen.first(Monotonic::ZERO + 11 * second, id(1)), "the bound forgot it");
        assert!(seen.ids.len() <= 3);
    }
}
