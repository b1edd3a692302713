//! Session records and room hubs in this process's memory (DELIVERY §6): sans-IO and deterministic, `now` and the hash seed are
//! arguments. A record lives while it has an owner, and for the resume window behind its last.
//!
//! Law: a session has one owner, and a new one is told `Resumed` only after the former said `Detached`, or after
//! [`limits::TAKEOVER_WAIT`] if it never does. One connection at most waits for a session; a newer one takes its turn
//! over, and the one that waited is told to stop.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use foldhash::quality::FixedState;

use super::hubs::Hubs;
use super::sessions::{Sessions, Slot};
use crate::close::CloseReason;
use crate::id::{ConnAddr, Scope, SessionId, TokenHash};
use crate::limits;
use crate::message::{
    HubChange, HubMessage, PresenceChange, PresenceKind, PresenceReply, PresenceRequest, SessionRecord,
};
use crate::ports::{Presence, Store, StoreError};
use crate::time::Monotonic;

/// Presence of a node that has no Redis. See the module.
#[derive(Debug)]
pub struct EmbeddedPresence {
    sessions: Sessions,
    hubs: Hubs,
    takeovers: HashMap<Slot, Takeover, FixedState>,
    /// Of `takeovers`, by time.
    deadlines: BTreeSet<(Monotonic, Slot)>,
    resume_window: Duration,
    detached_max: usize,
    /// `None` = nobody asks.
    changes: Option<Vec<PresenceChange>>,
}

/// A connection that waits for the owner to stop.
#[derive(Clone, Copy, Debug)]
struct Takeover {
    waiter: ConnAddr,
    deadline: Monotonic,
}

impl EmbeddedPresence {
    /// Empty; `resume_window` is how long a session outlives its connection, `detached_max` how many may do so at once
    /// ([`limits::DETACHED_SESSIONS`]; beyond it the longest detached expire early), `seed` that of all hashes.
    #[must_use]
    pub fn new(resume_window: Duration, detached_max: usize, seed: u64) -> Self {
        Self {
            sessions: Sessions::new(seed),
            hubs: Hubs::new(resume_window, seed),
            takeovers: HashMap::with_hasher(FixedState::with_seed(seed)),
            deadlines: BTreeSet::new(),
            resume_window,
            detached_max,
            changes: None,
        }
    }

    /// The same, keeping what changes for [`Presence::changes`].
    #[must_use]
    pub fn announcing(self) -> Self {
        Self { changes: Some(Vec::new()), ..self }
    }

    /// The same with the hubs that the store has, and keeping all of them there.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn keeping_hubs_in(mut self, now: Monotonic, store: Box<dyn Store>) -> Result<Self, StoreError> {
        self.hubs.keep_in(now, store)?;
        Ok(self)
    }

    /// Hubs, and the bytes of the messages that are kept of them.
    #[must_use]
    pub fn hubs(&self) -> (usize, usize) {
        self.hubs.sizes()
    }

    /// Sessions kept, attached or not.
    #[must_use]
    pub fn sessions(&self) -> usize {
        self.sessions.len()
    }

    /// Sessions that have no connection now.
    #[must_use]
    pub fn detached(&self) -> usize {
        self.sessions.detached()
    }

    fn open(&mut self, from: ConnAddr, record: SessionRecord, token: TokenHash, replies: &mut Vec<PresenceReply>) {
        // Both ids are random; a repeat is a fault of the caller, and the newer session counts.
        if let Some(slot) = self.sessions.by_session(record.session) {
            self.end(slot, CloseReason::Replaced, replies);
        }
        if let Some(slot) = self.sessions.by_token(token) {
            self.end(slot, CloseReason::Replaced, replies);
        }
        let slot = self.sessions.insert(record, token, from);
        self.changed(slot, from, PresenceKind::Connected);
        replies.push(PresenceReply::Opened { to: from, roles: self.sessions.roles(slot) });
    }

    fn resume(&mut self, now: Monotonic, from: ConnAddr, token: TokenHash, replies: &mut Vec<PresenceReply>) {
        let Some(slot) = self.sessions.by_token(token) else {
            replies.push(PresenceReply::Expired { to: from });
            return;
        };
        let session = self.sessions.session(slot);
        match self.sessions.owner(slot) {
            Some(owner) if owner != from => match self.takeovers.get_mut(&slot) {
                Some(takeover) => {
                    let waited = std::mem::replace(&mut takeover.waiter, from);
                    if waited != from {
                        replies.push(PresenceReply::Stop { to: waited, session });
                    }
                }
                None => {
                    let deadline = now + limits::TAKEOVER_WAIT;
                    self.takeovers.insert(slot, Takeover { waiter: from, deadline });
                    self.deadlines.insert((deadline, slot));
                    replies.push(PresenceReply::Stop { to: owner, session });
                }
            },
            _ => self.give(slot, from, replies),
        }
    }

    fn detached_by(
        &mut self,
        now: Monotonic,
        from: ConnAddr,
        session: SessionId,
        last_close: CloseReason,
        replies: &mut Vec<PresenceReply>,
    ) {
        let Some(slot) = self.sessions.by_session(session) else { return };
        if self.sessions.owner(slot) != Some(from) {
            if self.takeovers.get(&slot).is_some_and(|takeover| takeover.waiter == from) {
                self.end_takeover(slot);
            }
            return;
        }
        if last_close == CloseReason::Kicked {
            self.end(slot, CloseReason::Kicked, replies);
            return;
        }
        self.sessions.close(slot, last_close);
        if let Some(waiter) = self.end_takeover(slot) {
            self.give(slot, waiter, replies);
            return;
        }
        self.changed(slot, from, PresenceKind::Disconnected(last_close));
        self.sessions.detach(slot, now + self.resume_window);
        while self.sessions.detached() > self.detached_max {
            let (oldest, _) = self.sessions.oldest_detached().expect("there are more than none");
            self.sessions.remove(oldest);
        }
    }

    fn kick(&mut self, user: &str, replies: &mut Vec<PresenceReply>) {
        while let Some(slot) = self.sessions.by_user(user) {
            self.end(slot, CloseReason::Kicked, replies);
        }
    }

    /// Does what was due before `now`'s request, so that an outcome never depends on when `poll` was called.
    fn advance(&mut self, now: Monotonic, replies: &mut Vec<PresenceReply>) {
        while let Some((slot, _)) = self.sessions.oldest_detached().filter(|(_, until)| *until <= now) {
            self.sessions.remove(slot);
        }
        while let Some(&(_, slot)) = self.deadlines.first().filter(|(deadline, _)| *deadline <= now) {
            let waiter = self.end_takeover(slot).expect("a deadline belongs to a takeover");
            self.sessions.close(slot, CloseReason::Replaced);
            self.give(slot, waiter, replies);
        }
    }

    fn give(&mut self, slot: Slot, to: ConnAddr, replies: &mut Vec<PresenceReply>) {
        let record = self.sessions.record(slot);
        let former = self.sessions.owner(slot);
        if let Some(former) = former.filter(|former| *former != to) {
            let reason = record.last_close.unwrap_or(CloseReason::Replaced);
            self.changed(slot, former, PresenceKind::Disconnected(reason));
        }
        if former != Some(to) {
            self.changed(slot, to, PresenceKind::Connected);
        }
        self.sessions.attach(slot, to);
        replies.push(PresenceReply::Resumed { to, record: Box::new(record) });
    }

    /// The session of a hub's player: the one there is, or this.
    fn attach(
        &mut self,
        now: Monotonic,
        from: ConnAddr,
        room: &str,
        record: SessionRecord,
        token: TokenHash,
        replies: &mut Vec<PresenceReply>,
    ) {
        if !self.hubs.enter(now, room, &record.user) {
            replies.push(PresenceReply::Expired { to: from });
        } else if self.sessions.by_token(token).is_some() {
            self.resume(now, from, token, replies);
        } else {
            self.open(from, record, token, replies);
        }
    }

    /// Keeps what others are to be told, if somebody asks.
    fn changed(&mut self, slot: Slot, connection: ConnAddr, kind: PresenceKind) {
        if let Some(changes) = &mut self.changes {
            let (session, user, username) = self.sessions.who(slot);
            changes.push(PresenceChange { connection, session, user, username, kind, elsewhere: None });
        }
    }

    /// A session that has a connection moved between rooms.
    fn moved(&mut self, slot: Slot, scope: &Scope, kind: impl FnOnce(Arc<str>) -> PresenceKind) {
        if let (Scope::Room(room), Some(owner)) = (scope, self.sessions.owner(slot)) {
            self.changed(slot, owner, kind(Arc::clone(room)));
        }
    }

    fn end(&mut self, slot: Slot, reason: CloseReason, replies: &mut Vec<PresenceReply>) {
        if let Some(owner) = self.sessions.owner(slot) {
            self.changed(slot, owner, PresenceKind::Disconnected(reason));
        }
        if let Some(waiter) = self.end_takeover(slot) {
            replies.push(PresenceReply::Expired { to: waiter });
        }
        self.sessions.remove(slot);
    }

    fn end_takeover(&mut self, slot: Slot) -> Option<ConnAddr> {
        let takeover = self.takeovers.remove(&slot)?;
        self.deadlines.remove(&(takeover.deadline, slot));
        Some(takeover.waiter)
    }
}

impl Presence for EmbeddedPresence {
    fn handle(&mut self, now: Monotonic, request: PresenceRequest, replies: &mut Vec<PresenceReply>) {
        self.advance(now, replies);
        match request {
            PresenceRequest::Open { from, record, token } => self.open(from, *record, token, replies),
            PresenceRequest::Resume { from, token } => self.resume(now, from, token, replies),
            PresenceRequest::Entered { session, entry } => {
                if let Some(slot) = self.sessions.by_session(session) {
                    if !self.sessions.is_in(slot, &entry.scope) {
                        self.moved(slot, &entry.scope, PresenceKind::Joined);
                    }
                    self.sessions.enter(slot, entry);
                }
            }
            PresenceRequest::Left { session, scope } => {
                if let Some(slot) = self.sessions.by_session(session) {
                    if self.sessions.is_in(slot, &scope) {
                        self.moved(slot, &scope, PresenceKind::Left);
                    }
                    self.sessions.leave(slot, &scope);
                }
            }
            PresenceRequest::Refreshed { session, roles, expires_at } => {
                if let Some(slot) = self.sessions.by_session(session) {
                    self.sessions.refresh(slot, roles, expires_at);
                }
            }
            PresenceRequest::Acted { session, place } => {
                if let Some(slot) = self.sessions.by_session(session) {
                    self.sessions.acted(slot, place);
                }
            }
            PresenceRequest::Detached { from, session, last_close } => {
                self.detached_by(now, from, session, last_close, replies);
            }
            PresenceRequest::Kick { user } => self.kick(&user, replies),
            PresenceRequest::Members { from, room, after } => {
                let (members, next) = self.sessions.members(&room, after, limits::PRESENCE_LOOK);
                replies.push(PresenceReply::Members { to: from, members, next });
            }
            PresenceRequest::CreateHub(hub) => {
                let outcome = self.hubs.create(now, &hub);
                replies.push(PresenceReply::Enrolled { to: hub.from, outcome });
            }
            PresenceRequest::JoinHub(join) => {
                let outcome = self.hubs.join(now, &join, |player| self.sessions.by_user(player).is_some());
                replies.push(PresenceReply::Enrolled { to: join.from, outcome });
            }
            PresenceRequest::FindHub { from, code } => {
                replies.push(PresenceReply::Hub { to: from, hub: self.hubs.find(code).map(Box::new) });
            }
            PresenceRequest::Attach { from, room, record, token } => {
                self.attach(now, from, &room, *record, token, replies);
            }
            PresenceRequest::HubState { from, room } => {
                let owner = |player: &str| self.sessions.by_user(player).and_then(|slot| self.sessions.owner(slot));
                let state = self.hubs.state(&room, |player| owner(player).is_some());
                replies.push(PresenceReply::HubState { to: from, state: Box::new(state) });
            }
        }
    }

    fn poll(&mut self, now: Monotonic, replies: &mut Vec<PresenceReply>) -> Monotonic {
        self.advance(now, replies);
        let expiry = self.sessions.oldest_detached().map_or(Monotonic::NEVER, |(_, until)| until);
        let takeover = self.deadlines.first().map_or(Monotonic::NEVER, |(deadline, _)| *deadline);
        self.hubs.poll(now, |player| self.sessions.by_user(player).is_some());
        expiry.min(takeover).min(self.hubs.next())
    }

    fn hub_changes(&mut self, out: &mut Vec<HubChange>) {
        self.hubs.changes(out);
    }

    fn said(&mut self, room: &str, message: HubMessage) {
        self.hubs.said(room, message);
    }

    fn changes(&mut self, out: &mut Vec<PresenceChange>) {
        if let Some(changes) = &mut self.changes {
            out.append(changes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{self as suite, Subject, WINDOW, presence_suite};
    use super::*;

    impl Subject for EmbeddedPresence {
        const CASES: u32 = 400;

        fn new(detached_max: usize) -> Self {
            Self::new(WINDOW, detached_max, 7).announcing()
        }

        fn handle(&mut self, now: Monotonic, request: PresenceRequest) -> Vec<PresenceReply> {
            let mut replies = Vec::new();
            Presence::handle(self, now, request, &mut replies);
            replies
        }

        fn poll(&mut self, now: Monotonic) -> (Vec<PresenceReply>, Monotonic) {
            let mut replies = Vec::new();
            let next = Presence::poll(self, now, &mut replies);
            (replies, next)
        }

        fn changes(&mut self) -> Vec<PresenceChange> {
            let mut changes = Vec::new();
            Presence::changes(self, &mut changes);
            changes
        }

        fn sizes(&self) -> (usize, usize) {
            (self.sessions(), self.detached())
        }
    }

    presence_suite!(EmbeddedPresence);
}
