//! Events that a service repeats after a restart come under the same ids, and clients get them once (DELIVERY §7).
//!
//! Only ids that are derived (UUID v5) can repeat by design. A backend that gives several events one id must not lose
//! any, so an event is a repeat only if its type and payload are the same as well.

use std::collections::{HashSet, VecDeque};

use foldhash::quality::FixedState;
use xxhash_rust::xxh3::Xxh3;

use crate::limits;
use crate::message::Event;
use crate::time::WallMillis;

/// The events of the resume window, at most [`limits::SEEN_EVENTS`].
#[derive(Default, Debug)]
pub struct Duplicates {
    seen: HashSet<u128, FixedState>,
    /// Oldest first.
    order: VecDeque<(WallMillis, u128)>,
}

impl Duplicates {
    /// Whether the event, accepted at that time, repeats one that was accepted before.
    pub fn is_repeat(&mut self, accepted: WallMillis, event: &Event) -> bool {
        let Some(id) = event.id.filter(|id| id.0[6] >> 4 == 5) else { return false };
        let window = limits::RESUME_WINDOW.as_millis() as u64;
        while let Some((at, oldest)) = self.order.front() {
            if self.order.len() < limits::SEEN_EVENTS && accepted.0.saturating_sub(at.0) <= window {
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
