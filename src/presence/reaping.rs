//! Presence of a process without clients, as a worker is: it keeps a lease of its own and reaps gateways that are gone, so
//! that somebody does when no gateway is left. It answers nobody.

use super::Announcer;
use crate::message::{HubChange, PresenceChange, PresenceReply};
use crate::ports::Presence;
use crate::time::{Monotonic, WallMillis};

/// See the module.
#[derive(Debug)]
pub struct Reaping<P> {
    presence: P,
    announcer: Announcer,
    replies: Vec<PresenceReply>,
    changes: Vec<PresenceChange>,
    hub_changes: Vec<HubChange>,
}

impl<P: Presence> Reaping<P> {
    /// Says on the announcer's bus who is gone.
    #[must_use]
    pub fn new(presence: P, announcer: Announcer) -> Self {
        let (replies, changes, hub_changes) = (Vec::new(), Vec::new(), Vec::new());
        Self { presence, announcer, replies, changes, hub_changes }
    }

    /// Does what there is to do, without blocking; returns when to be called again at the latest.
    pub fn turn(&mut self, now: Monotonic, wall: WallMillis) -> Monotonic {
        let next = self.presence.poll(now, &mut self.replies);
        self.presence.changes(&mut self.changes);
        self.presence.hub_changes(&mut self.hub_changes);
        self.announcer.announce_hubs(wall, self.hub_changes.drain(..));
        self.announcer.announce(wall, self.changes.drain(..));
        if self.announcer.is_done() {
            self.presence.announced(&mut self.replies);
        }
        // It has no connection that any of them could be for.
        self.replies.clear();
        if self.announcer.waiting() == 0 { next } else { next.min(now + super::peer::RETRY) }
    }

    /// The process ends: gives the lease back. Call it until it returns true.
    pub fn finish(&mut self, now: Monotonic, wall: WallMillis) -> bool {
        self.turn(now, wall);
        self.announcer.is_done() && self.presence.finish(now)
    }
}
