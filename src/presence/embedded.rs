//! Session records and room hubs of one process (DELIVERY §6), in memory and, if there are stores, in them: deterministic,
//! `now` and the hash seed are arguments. A record lives while it has an owner, and for the resume window behind its last.
//!
//! Law: a session has one owner, and a new one is told `Resumed` only after the former said `Detached`, or after
//! [`limits::TAKEOVER_WAIT`] if it never does. One connection at most waits for a session; a newer one takes its turn
//! over, and the one that waited is told to stop.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use foldhash::quality::FixedState;

use super::hubs::Hubs;
use super::keeper::{Found, Keeper};
use super::sessions::{Owed, Sessions, Slot, Standing, Whole};
use crate::close::CloseReason;
use crate::id::{ConnAddr, Scope, SessionId, TokenHash};
use crate::limits;
use crate::message::{
    GatewayLife, HubChange, HubMessage, Kick, PresenceChange, PresenceKind, PresenceReply, PresenceRequest,
    SessionRecord,
};
use crate::ports::{Presence, Store, StoreError};
use crate::time::{Monotonic, WallMillis};

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
    life: GatewayLife,
    /// Attachments and moves there were.
    numbers: u64,
    /// `None` = nobody asks.
    changes: Option<Vec<PresenceChange>>,
    /// `None` = records end with the process.
    keeper: Option<Keeper>,
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
            life: GatewayLife::default(),
            numbers: 0,
            changes: None,
            keeper: None,
        }
    }

    /// The same, keeping what changes for [`Presence::changes`], under the names of this life of the gateway.
    #[must_use]
    pub fn announcing(self, life: GatewayLife) -> Self {
        Self { life, changes: Some(Vec::new()), ..self }
    }

    /// The same with the sessions that the store has, and keeping all of them there. Who had a connection when the
    /// former process ended counts as detached from then on, and others are told so. `log` is the numbering of the bus's
    /// streams: sessions from under another one have ended.
    ///
    /// # Errors
    /// If the store cannot be read, or was written by another build in a form of its own.
    pub fn keeping_sessions_in(
        mut self,
        now: (Monotonic, WallMillis),
        log: u64,
        store: Box<dyn Store>,
    ) -> Result<Self, StoreError> {
        self.sessions.watch();
        let (keeper, found) = Keeper::open(now, self.life, log, self.resume_window, store)?;
        self.keeper = Some(keeper);
        self.take_back(found);
        Ok(self)
    }

    /// The same with the hubs that the store has, and keeping all of them there.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn keeping_hubs_in(mut self, now: Monotonic, store: Box<dyn Store>) -> Result<Self, StoreError> {
        self.hubs.keep_in(now, store)?;
        Ok(self)
    }

    /// When the process whose sessions it took back was last alive, if it keeps any.
    #[must_use]
    pub fn former_alive(&self) -> Option<WallMillis> {
        self.keeper.as_ref().map(Keeper::former_alive)
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

    fn open(
        &mut self,
        now: Monotonic,
        from: ConnAddr,
        record: SessionRecord,
        token: TokenHash,
        replies: &mut Vec<PresenceReply>,
    ) {
        // Both ids are random; a repeat is a fault of the caller, and the newer session counts.
        if let Some(slot) = self.sessions.by_session(record.session) {
            self.end(now, slot, CloseReason::Replaced, replies);
        }
        if let Some(slot) = self.sessions.by_token(token) {
            self.end(now, slot, CloseReason::Replaced, replies);
        }
        let number = self.number();
        let slot = self.sessions.insert(record, token, from, number);
        self.changed(now, slot, from, number, PresenceKind::Connected);
        replies.push(PresenceReply::Opened { to: from, roles: self.sessions.roles(slot) });
    }

    fn resume(
        &mut self,
        now: Monotonic,
        from: ConnAddr,
        user: Option<&str>,
        token: TokenHash,
        replies: &mut Vec<PresenceReply>,
    ) {
        let Some(slot) = self.sessions.by_token(token) else {
            replies.push(PresenceReply::Expired { to: from });
            return;
        };
        // Before anybody is stopped for it.
        if user.is_some_and(|user| *self.sessions.who(slot).1 != *user) {
            replies.push(PresenceReply::Foreign { to: from });
            return;
        }
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
            _ => self.give(now, slot, from, replies),
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
            let (_, user, _) = self.sessions.who(slot);
            self.hubs.kick(&user);
            self.end(now, slot, CloseReason::Kicked, replies);
            return;
        }
        self.sessions.close(slot, last_close);
        if let Some(waiter) = self.end_takeover(slot) {
            self.give(now, slot, waiter, replies);
            return;
        }
        self.departed(now, slot, last_close);
        self.sessions.detach(slot, now + self.resume_window);
        self.bound_detached();
    }

    fn bound_detached(&mut self) {
        while self.sessions.detached() > self.detached_max {
            let (oldest, _) = self.sessions.oldest_detached().expect("there are more than none");
            self.sessions.expire(oldest);
        }
    }

    fn kick(&mut self, now: Monotonic, user: &str, replies: &mut Vec<PresenceReply>) {
        self.hubs.kick(user);
        while let Some(slot) = self.sessions.by_user(user) {
            self.end(now, slot, CloseReason::Kicked, replies);
        }
    }

    /// Does what was due before `now`'s request, so that an outcome never depends on when `poll` was called.
    fn advance(&mut self, now: Monotonic, replies: &mut Vec<PresenceReply>) {
        while let Some((slot, _)) = self.sessions.oldest_detached().filter(|(_, until)| *until <= now) {
            self.sessions.expire(slot);
        }
        while let Some(&(_, slot)) = self.deadlines.first().filter(|(deadline, _)| *deadline <= now) {
            let waiter = self.end_takeover(slot).expect("a deadline belongs to a takeover");
            self.sessions.close(slot, CloseReason::Replaced);
            self.give(now, slot, waiter, replies);
        }
    }

    fn give(&mut self, now: Monotonic, slot: Slot, to: ConnAddr, replies: &mut Vec<PresenceReply>) {
        let record = self.sessions.record(slot);
        if self.sessions.owner(slot) != Some(to) {
            self.departed(now, slot, record.last_close.unwrap_or(CloseReason::Replaced));
            let number = self.number();
            self.changed(now, slot, to, number, PresenceKind::Connected);
            self.sessions.attach(slot, to, number);
        }
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
            self.resume(now, from, Some(&record.user), token, replies);
        } else {
            self.open(now, from, record, token, replies);
        }
    }

    /// When [`Presence::poll`] has something to do, whatever the store is due.
    fn next(&self) -> Monotonic {
        let expiry = self.sessions.oldest_detached().map_or(Monotonic::NEVER, |(_, until)| until);
        let takeover = self.deadlines.first().map_or(Monotonic::NEVER, |(deadline, _)| *deadline);
        expiry.min(takeover).min(self.hubs.next())
    }

    fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    /// Keeps what others are to be told, if somebody asks.
    fn changed(&mut self, now: Monotonic, slot: Slot, connection: ConnAddr, number: u64, kind: PresenceKind) {
        let Some(changes) = &mut self.changes else { return };
        let (session, user, username) = self.sessions.who(slot);
        let life = self.life;
        if self.keeper.is_some() {
            self.sessions.owe(slot, Owed { life, connection, number, kind: kind.clone(), at: now });
        }
        let (gateway, again) = (None, false);
        changes.push(PresenceChange { gateway, life, connection, number, session, user, username, kind, again });
    }

    /// The owner, if there is one, is that no longer.
    fn departed(&mut self, now: Monotonic, slot: Slot, reason: CloseReason) {
        if let Some(connection) = self.sessions.owner(slot) {
            let number = self.sessions.attachment(slot);
            self.changed(now, slot, connection, number, PresenceKind::Disconnected(reason));
        }
    }

    /// Takes sessions of a former process over; says again what it may not have been heard to say.
    fn take_back(&mut self, found: Found) {
        let living = found.living.iter().map(|(whole, _)| whole);
        for whole in living.chain(&found.ended) {
            let SessionRecord { session, user, username, .. } = &whole.record;
            let again = |owed: &Owed| {
                let Owed { life, connection, number, kind, .. } = owed.clone();
                let (session, user, username) = (*session, user.clone(), username.clone());
                let (gateway, again) = (None, true);
                PresenceChange { gateway, life, connection, number, session, user, username, kind, again }
            };
            self.changes.iter_mut().for_each(|changes| changes.extend(whole.owed.iter().map(again)));
        }
        for (Whole { record, token, standing, owed }, changed) in found.living {
            let Standing::Detached(until) = standing else { continue };
            if self.sessions.by_token(token).is_some() {
                tracing::error!(session = %record.session, "two sessions have one token: this one is gone");
                self.sessions.is_stale(record.session);
                continue;
            }
            let slot = self.sessions.insert(record, token, ConnAddr::NOBODY, 0);
            owed.into_iter().for_each(|owed| self.sessions.owe(slot, owed));
            self.sessions.detach(slot, until);
            self.sessions.taken_back(slot, changed);
        }
        for whole in found.ended {
            match whole.owed.is_empty() {
                true => self.sessions.is_stale(whole.record.session),
                false => self.sessions.bury(whole),
            }
        }
        self.bound_detached();
    }

    /// A session that has a connection moved between rooms.
    fn moved(&mut self, now: Monotonic, slot: Slot, scope: &Scope, kind: impl FnOnce(Arc<str>) -> PresenceKind) {
        if let (Scope::Room(room), Some(owner)) = (scope, self.sessions.owner(slot)) {
            let number = self.number();
            self.changed(now, slot, owner, number, kind(Arc::clone(room)));
        }
    }

    fn end(&mut self, now: Monotonic, slot: Slot, reason: CloseReason, replies: &mut Vec<PresenceReply>) {
        self.departed(now, slot, reason);
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
            PresenceRequest::Open { from, record, token } => self.open(now, from, *record, token, replies),
            PresenceRequest::Resume { from, user, token } => self.resume(now, from, user.as_deref(), token, replies),
            PresenceRequest::Entered { session, entry } => {
                if let Some(slot) = self.sessions.by_session(session) {
                    if !self.sessions.is_in(slot, &entry.scope) {
                        self.moved(now, slot, &entry.scope, PresenceKind::Joined);
                    }
                    self.sessions.enter(slot, entry);
                }
            }
            PresenceRequest::Left { session, scope } => {
                if let Some(slot) = self.sessions.by_session(session) {
                    if self.sessions.is_in(slot, &scope) {
                        self.moved(now, slot, &scope, PresenceKind::Left);
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
            PresenceRequest::Kick { user, event } => {
                if let (Some(keeper), Some((topic, place))) = (&mut self.keeper, event) {
                    keeper.kicked(topic, place);
                }
                self.kick(now, &user, replies);
            }
            // There are no others.
            PresenceRequest::Disconnect(disconnect) => {
                replies.push(PresenceReply::Disconnected { to: disconnect.from, connections: 0 });
            }
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
        self.hubs.poll(now, |player| self.sessions.by_user(player).is_some());
        let due = self.keeper.as_ref().map_or(Monotonic::NEVER, |keeper| keeper.next(now, &self.sessions));
        self.next().min(due)
    }

    fn group(&self) -> usize {
        if self.keeper.is_some() { limits::PRESENCE_GROUP } else { 1 }
    }

    fn settle(&mut self, now: Monotonic, told: bool) {
        let told = told && self.changes.as_ref().is_none_or(Vec::is_empty);
        if let Some(keeper) = &mut self.keeper {
            keeper.settle(now, told, &mut self.sessions);
        }
    }

    fn carry_out(&mut self, now: Monotonic, kicks: Vec<Kick>) {
        for Kick { user, topic, place } in kicks {
            if self.keeper.as_ref().is_some_and(|keeper| !keeper.has_kicked(&topic, place)) {
                // Nobody is attached or waits yet, so that nobody is to be answered.
                self.handle(now, PresenceRequest::Kick { user, event: Some((topic, place)) }, &mut Vec::new());
            }
        }
    }

    fn hub_changes(&mut self, out: &mut Vec<HubChange>) {
        self.hubs.changes(out);
    }

    fn said(&mut self, room: &str, message: HubMessage) {
        self.hubs.said(room, message);
    }

    fn renumbered(&mut self) {
        self.hubs.renumbered();
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
    use crate::store::{SqliteStore, StoreSettings};

    /// As its peer drives it, with the changes told at once.
    impl Subject for EmbeddedPresence {
        const CASES: u32 = 400;

        fn new(detached_max: usize) -> Self {
            Self::new(WINDOW, detached_max, 7).announcing(GatewayLife::default())
        }

        fn handle(&mut self, now: Monotonic, request: PresenceRequest) -> Vec<PresenceReply> {
            let mut replies = Vec::new();
            Presence::handle(self, now, request, &mut replies);
            self.settle(now, true);
            replies
        }

        fn poll(&mut self, now: Monotonic) -> (Vec<PresenceReply>, Monotonic) {
            let mut replies = Vec::new();
            Presence::poll(self, now, &mut replies);
            self.settle(now, true);
            (replies, self.next())
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

    mod in_memory {
        use super::*;

        presence_suite!(EmbeddedPresence);
    }

    /// The same with its records in SQLite.
    struct Stored(EmbeddedPresence);

    impl Subject for Stored {
        const CASES: u32 = 400;

        fn new(detached_max: usize) -> Self {
            let store = SqliteStore::open(&StoreSettings { file: None, messages_max: 1 }).unwrap();
            let presence = <EmbeddedPresence as Subject>::new(detached_max);
            let began = (Monotonic::ZERO, WallMillis(0));
            Self(presence.keeping_sessions_in(began, 1, Box::new(store)).unwrap())
        }

        fn handle(&mut self, now: Monotonic, request: PresenceRequest) -> Vec<PresenceReply> {
            Subject::handle(&mut self.0, now, request)
        }

        fn poll(&mut self, now: Monotonic) -> (Vec<PresenceReply>, Monotonic) {
            Subject::poll(&mut self.0, now)
        }

        fn changes(&mut self) -> Vec<PresenceChange> {
            Subject::changes(&mut self.0)
        }

        fn sizes(&self) -> (usize, usize) {
            self.0.sizes()
        }
    }

    mod in_sqlite {
        use super::*;

        presence_suite!(Stored);
    }
}
