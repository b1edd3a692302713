//! Events that a service repeats after a restart come under the same ids, and clients get them once (DELIVERY §7).
//!
//! Only ids that are derived (UUID v5) can repeat by design. A backend that gives several events one id must not lose
//! any, so an event is a repeat only if its type and payload are the same as well.

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use foldhash::quality::FixedState;
use xxhash_rust::xxh3::Xxh3;

use crate::limits;
use crate::message::Event;
use crate::time::WallMillis;

/// The events of the history time, at most [`limits::SEEN_EVENTS`].
#[derive(Debug)]
pub struct Duplicates {
    window_ms: u64,
    seen: HashSet<u128, FixedState>,
    /// Oldest first.
    order: VecDeque<(WallMillis, u128)>,
}

impl Default for Duplicates {
    fn default() -> Self {
        Self::new(limits::HISTORY_TIME)
    }
}

impl Duplicates {
    /// None; each is remembered for `window`.
    #[must_use]
    pub fn new(window: Duration) -> Self {
        let window_ms = u64::try_from(window.as_millis()).unwrap_or(u64::MAX);
        Self { window_ms, seen: HashSet::default(), order: VecDeque::new() }
    }

    /// Whether the event, accepted at that time, repeats one that was accepted before.
    pub fn is_repeat(&mut self, accepted: WallMillis, event: &Event) -> bool {
        let Some(id) = event.id.filter(|id| id.0[6] >> 4 == 5) else { return false };
        while let Some((at, oldest)) = self.order.front() {
            if self.order.len() < limits::SEEN_EVENTS && accepted.0.saturating_sub(at.0) <= self.window_ms {
                break;
            }
            self.seen.remove(oldest);
            self.order.pop_front();
        }
        let mut hash = Xxh3::new();
        hash.update(&id.0);
        hash.update(event.topic.as_bytes());
        hash.update(&event.body);
        let hash = hash.digest128();
        let first = self.seen.insert(hash);
        if first {
            self.order.push_back((accepted, hash));
        }
        !first
    }
}
