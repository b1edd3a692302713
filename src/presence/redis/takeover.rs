//! New sessions and takeovers: one call asks for the session; if a living connection owns it, that is told to stop, and
//! whoever asked waits until it has, or for [`limits::TAKEOVER_WAIT`]. Sessions are written here too.

use std::collections::VecDeque;
use std::sync::Arc;

use redis::Value;

use super::answers::Asked;
use super::record::{self, Kept, Mark, number, string, text, token_text};
use super::{Ended, RedisPresence};
use crate::close::CloseReason;
use crate::id::{ConnAddr, ConnectionId, SessionId, TokenHash};
use crate::limits;
use crate::message::{PresenceReply, PresenceRequest, SessionRecord};
use crate::time::Monotonic;

/// A connection that waits for the owner to stop.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waiter {
    pub from: ConnAddr,
    pub token: TokenHash,
    pub deadline: Monotonic,
}

/// What is said of a session while Redis is asked whose it is.
#[derive(Default, Debug)]
pub(super) struct Held {
    /// Questions on their way.
    calls: u32,
    /// It was kicked meanwhile.
    pub is_ended: bool,
    requests: VecDeque<PresenceRequest>,
}

impl RedisPresence {
    /// What is said of a session that is asked for waits for the answer.
    pub(super) fn handle_ready(&mut self, now: Monotonic, request: PresenceRequest, replies: &mut Vec<PresenceReply>) {
        let session = match &request {
            PresenceRequest::Entered { session, .. }
            | PresenceRequest::Left { session, .. }
            | PresenceRequest::Refreshed { session, .. }
            | PresenceRequest::Acted { session, .. }
            | PresenceRequest::Detached { session, .. } => Some(*session),
            _ => None,
        };
        match session.and_then(|session| self.held.get_mut(&session)) {
            Some(held) => held.requests.push_back(request),
            None => self.act_on(now, request, replies),
        }
    }

    pub(super) fn open(
        &mut self,
        from: ConnAddr,
        record: SessionRecord,
        token: TokenHash,
        replies: &mut Vec<PresenceReply>,
    ) {
        // Both ids are random; a repeat is a fault of the caller, and the newer session counts.
        let (same_session, same_token) = (self.table.by_session(record.session), self.table.by_token(token));
        if let Some(slot) = same_session {
            self.end(slot, CloseReason::Replaced, replies);
        }
        if let Some(slot) = same_token.filter(|slot| same_session != Some(*slot)) {
            self.end(slot, CloseReason::Replaced, replies);
        }
        self.write_ended();
        let session = record.session;
        let fields = record::fields(&record, token, FIRST, &Mark::default());
        let slot = self.insert(record, token, from, (FIRST, Mark::default()));
        let args = self.named(from, Some(session)).into_iter().chain(fields).collect();
        if !self.ask("open", args, Asked::Opened { from, session }) {
            self.forget(slot);
            replies.push(PresenceReply::Unavailable { to: from });
        }
    }

    /// Redis keeps the new session.
    pub(super) fn opened(&mut self, from: ConnAddr, session: SessionId, replies: &mut Vec<PresenceReply>) {
        match self.table.by_session(session) {
            Some(slot) => {
                if self.table.owner(slot) == Some(from) {
                    self.arrived(slot, from);
                    self.refresh_later(session);
                }
                replies.push(PresenceReply::Opened { to: from, roles: self.table.roles(slot) });
            }
            // A kick was faster.
            None => replies.push(PresenceReply::Unavailable { to: from }),
        }
    }

    /// Asks for the session of this token, of this user if one is named.
    pub(super) fn claim(
        &mut self,
        from: ConnAddr,
        user: Option<Arc<str>>,
        token: TokenHash,
        replies: &mut Vec<PresenceReply>,
    ) {
        self.write_ended();
        let session = self.table.by_token(token).map(|slot| self.table.session(slot));
        self.write_now(session);
        let [conn, connected_at] = self.named(from, None);
        let args = vec![token_text(token), conn, connected_at, text(user.as_deref().unwrap_or_default())];
        if self.ask("claim", args, Asked::Claimed { from, user, token, session }) {
            self.hold(session);
        } else {
            replies.push(PresenceReply::Unavailable { to: from });
        }
    }

    /// Asks for the session of a hub's player: the one there is, or this.
    pub(super) fn attach(
        &mut self,
        from: ConnAddr,
        room: &str,
        record: SessionRecord,
        token: TokenHash,
        replies: &mut Vec<PresenceReply>,
    ) {
        self.write_ended();
        let known = self.table.by_token(token).map(|slot| self.table.session(slot));
        self.write_now(known);
        let session = record.session;
        let fields = record::fields(&record, token, FIRST, &Mark::default());
        let args = [text(room)].into_iter().chain(self.named(from, None)).chain(fields).collect();
        let asked = Asked::Attached { from, room: room.into(), record: Box::new(record), token, known };
        if self.ask("attach", args, asked) {
            self.hold(Some(session));
            self.hold(known);
        } else {
            replies.push(PresenceReply::Unavailable { to: from });
        }
    }

    /// The session is the connection's; `told`: its former connection, if it is one of this gateway, knows.
    pub(super) fn given(&mut self, from: ConnAddr, kept: Kept, told: bool, replies: &mut Vec<PresenceReply>) {
        let Kept { record, token, version, kicked } = kept;
        let session = record.session;
        let mut was_here = false;
        if let Some(slot) = self.table.by_session(session) {
            let former = self.table.owner(slot);
            was_here = former == Some(from);
            if let Some(former) = former.filter(|former| *former != from) {
                self.departed(slot, former, record.last_close.unwrap_or(CloseReason::Replaced));
                if !told {
                    replies.push(PresenceReply::Stop { to: former, session });
                }
            }
            self.forget(slot);
        }
        if let Some(slot) = self.table.by_token(token) {
            self.forget(slot);
        }
        if self.waiters.get(&session).is_some_and(|waiter| waiter.from == from) {
            self.end_takeover(session);
        }
        let is_kicked = self.was_kicked(&record.user, &kicked);
        let slot = self.insert(record.clone(), token, from, (version, kicked));
        if is_kicked || self.held.get(&session).is_some_and(|held| held.is_ended) {
            self.end(slot, CloseReason::Kicked, replies);
            replies.push(PresenceReply::Expired { to: from });
            return;
        }
        if was_here {
            self.own.entry(session).and_modify(|own| own.is_announced = true);
        } else {
            self.arrived(slot, from);
        }
        self.refresh_later(session);
        replies.push(PresenceReply::Resumed { to: from, record: Box::new(record) });
    }

    /// A living connection owns the session.
    pub(super) fn waits(
        &mut self,
        now: Monotonic,
        (from, token): (ConnAddr, TokenHash),
        answer: &[Value],
        replies: &mut Vec<PresenceReply>,
    ) {
        let [_, session, gateway, owner, left, ..] = answer else { return };
        let Some(session) = string(session).and_then(SessionId::parse) else { return };
        if let Some(waiter) = self.waiters.get_mut(&session) {
            let waited = std::mem::replace(&mut waiter.from, from);
            if waited != from {
                replies.push(PresenceReply::Stop { to: waited, session });
            }
            return;
        }
        let mut deadline = now + limits::TAKEOVER_WAIT;
        if string(gateway) == Some(&self.gateway.gateway_id) {
            let owner = string(owner).and_then(ConnectionId::parse).and_then(|id| id.addr(self.gateway.nonce));
            let slot = self.table.by_session(session);
            match owner.filter(|owner| slot.and_then(|slot| self.table.owner(slot)) == Some(*owner)) {
                Some(to) => replies.push(PresenceReply::Stop { to, session }),
                // Nobody there has it: nobody will stop.
                None => deadline = now,
            }
        } else {
            let left = std::time::Duration::from_millis(number(left).unwrap_or(0));
            deadline = now + left.min(limits::TAKEOVER_WAIT);
        }
        self.waiters.insert(session, Waiter { from, token, deadline });
        self.deadlines.insert((deadline, session));
    }

    /// The owner was waited for long enough.
    pub(super) fn seize(&mut self, session: SessionId, replies: &mut Vec<PresenceReply>) {
        let Some(Waiter { from, token, .. }) = self.end_takeover(session) else { return };
        self.write_now(Some(session));
        let [conn, connected_at] = self.named(from, None);
        let args = vec![text(&session.to_string()), conn, connected_at];
        if self.is_ready() && self.ask("seize", args, Asked::Seized { from, token, session }) {
            self.hold(Some(session));
        } else {
            replies.push(PresenceReply::Unavailable { to: from });
        }
    }

    /// A connection that waits does so no more.
    pub(super) fn give_up(&mut self, from: ConnAddr, session: SessionId) {
        if self.waiters.get(&session).is_some_and(|waiter| waiter.from == from) {
            self.end_takeover(session);
            let args = vec![text(&session.to_string()), text(&self.connection(from).to_string())];
            // If it is not taken: a later waiter takes the place.
            self.ask("unwait", args, Asked::Unwaited);
        }
    }

    pub(super) fn end_takeover(&mut self, session: SessionId) -> Option<Waiter> {
        let waiter = self.waiters.remove(&session)?;
        self.deadlines.remove(&(waiter.deadline, session));
        Some(waiter)
    }

    /// Another gateway has the session, under a version of at least this.
    pub(super) fn lost(&mut self, session: SessionId, replies: &mut Vec<PresenceReply>) {
        let Some(slot) = self.table.by_session(session) else { return };
        if let Some(owner) = self.table.owner(slot) {
            self.departed(slot, owner, CloseReason::Replaced);
            replies.push(PresenceReply::Stop { to: owner, session });
            self.ended.push_back(Ended::Connections(vec![self.connection(owner)]));
        }
        self.forget(slot);
    }

    /// A notice of another gateway. It comes by another connection than answers do: one that says nothing yet may be
    /// about the answer to a question that is on its way, and is looked at again behind it.
    pub(super) fn noticed(&mut self, now: Monotonic, channel: &str, notice: &str, replies: &mut Vec<PresenceReply>) {
        if channel == super::LEASES {
            self.heard(now, notice);
        } else if !self.obey(notice, replies) && self.claims > 0 && self.unheard.len() < limits::REDIS_NOTICES {
            self.unheard.push(notice.into());
        }
    }

    /// A question for a session is answered.
    pub(super) fn hear_again(&mut self, replies: &mut Vec<PresenceReply>) {
        for notice in std::mem::take(&mut self.unheard) {
            if !self.obey(&notice, replies) && self.claims > 0 {
                self.unheard.push(notice);
            }
        }
    }

    /// Whether the notice had something to do.
    fn obey(&mut self, notice: &str, replies: &mut Vec<PresenceReply>) -> bool {
        let mut words = notice.split(' ');
        let (Some(word), Some(session)) = (words.next(), words.next().and_then(SessionId::parse)) else { return false };
        let rest = words.next().unwrap_or_default();
        let named = ConnectionId::parse(rest).and_then(|id| id.addr(self.gateway.nonce));
        let waiter = self.waiters.get(&session).copied().filter(|waiter| Some(waiter.from) == named);
        match (word, waiter) {
            ("stop", waiter) => {
                let owner = self.table.by_session(session).and_then(|slot| self.table.owner(slot));
                let Some(to) = named.filter(|named| owner == Some(*named) || waiter.is_some()) else { return false };
                if waiter.is_some() {
                    self.end_takeover(session);
                }
                replies.push(PresenceReply::Stop { to, session });
            }
            ("yours", Some(waiter)) => {
                self.end_takeover(session);
                self.claim(waiter.from, None, waiter.token, replies);
            }
            ("ended", Some(waiter)) => {
                self.end_takeover(session);
                replies.push(PresenceReply::Expired { to: waiter.from });
            }
            ("taken", _) => {
                let version: u64 = rest.parse().unwrap_or(0);
                if self.own.get(&session).is_none_or(|own| own.version >= version) {
                    return false;
                }
                self.lost(session, replies);
            }
            _ => return false,
        }
        true
    }

    pub(super) fn hold(&mut self, session: Option<SessionId>) {
        if let Some(session) = session {
            self.held.entry(session).or_default().calls += 1;
        }
    }

    /// Redis has answered: what waited for it is carried out.
    pub(super) fn unhold(&mut self, now: Monotonic, session: Option<SessionId>, replies: &mut Vec<PresenceReply>) {
        let Some(session) = session else { return };
        let Some(held) = self.held.get_mut(&session) else { return };
        held.calls -= 1;
        if held.calls > 0 {
            return;
        }
        let requests = self.held.remove(&session).map(|held| held.requests).unwrap_or_default();
        for request in requests {
            self.handle_ready(now, request, replies);
        }
    }

    /// A connection's name, and since when it has the session (now, if it has none yet).
    fn named(&self, from: ConnAddr, session: Option<SessionId>) -> [Box<[u8]>; 2] {
        let own = session.and_then(|session| self.own.get(&session));
        let connected_at = own.map_or_else(|| (self.gateway.wall)(), |own| crate::time::WallMillis(own.connected_at));
        [text(&self.connection(from).to_string()), text(&connected_at.rfc3339())]
    }

    /// The session's record is to be written.
    pub(super) fn write_soon(&mut self, session: SessionId) {
        if let Some(own) = self.own.get_mut(&session)
            && !std::mem::replace(&mut own.is_unwritten, true)
        {
            self.unwritten.push_back(session);
        }
    }

    /// All of them are.
    pub(super) fn write_all(&mut self) {
        let all: Vec<_> = self.own.keys().copied().collect();
        for session in all {
            self.write_soon(session);
        }
    }

    /// Writes what is to be written, as far as the link takes it.
    pub(super) fn write(&mut self) {
        self.write_ended();
        while self.is_ready() && self.writes < limits::REDIS_WRITES {
            let Some(session) = self.unwritten.pop_front() else { return };
            self.write_now(Some(session));
        }
    }

    pub(super) fn write_ended(&mut self) {
        while self.is_ready() && self.writes < limits::REDIS_WRITES {
            let Some(ended) = self.ended.pop_front() else { return };
            let (operation, args) = match &ended {
                Ended::Session { session, version, owner } => {
                    let owner = owner.map(|owner| self.connection(owner).to_string()).unwrap_or_default();
                    ("finish", vec![text(&session.to_string()), text(&version.to_string()), text(&owner)])
                }
                Ended::Connections(connections) => {
                    let names = connections.iter().map(|connection| text(&connection.to_string()));
                    ("reap", [text(&self.gateway.gateway_id)].into_iter().chain(names).collect())
                }
                Ended::User { user, event } => {
                    let (topic, place) = event.as_ref().map_or(("", 0), |(topic, place)| (&**topic, *place));
                    let known_for = (self.gateway.history_time + self.gateway.resume_window).as_millis();
                    let args = [user, topic, &place.to_string(), &known_for.to_string()];
                    ("kick", args.map(text).into())
                }
            };
            if !self.ask(operation, args, Asked::Ended(ended.clone())) {
                return self.ended.push_front(ended);
            }
        }
    }

    /// Writes a session if it is to be written.
    fn write_now(&mut self, session: Option<SessionId>) {
        let Some(session) = session.filter(|_| self.is_ready()) else { return };
        let Some(slot) = self.table.by_session(session) else { return };
        let Some(own) = self.own.get_mut(&session).filter(|own| own.is_unwritten) else { return };
        own.is_unwritten = false;
        let (version, until, former) = (own.version, own.until, own.former);
        let fields = record::fields(&self.table.record(slot), self.table.token(slot), version, &own.kicked);
        let (operation, head) = match self.table.owner(slot) {
            Some(owner) => ("put", self.named(owner, Some(session))),
            None => {
                let left = until.since(self.now).as_millis().max(1).to_string();
                let former = former.map(|former| self.connection(former).to_string()).unwrap_or_default();
                ("detach", [text(&former), text(&left)])
            }
        };
        let args = head.into_iter().chain(fields).collect();
        if self.ask(operation, args, Asked::Written { session, version }) {
            if operation == "put" {
                self.refresh_later(session);
            }
        } else {
            self.write_soon(session);
        }
    }

    /// The record must be written again before its time to live ends.
    fn refresh_later(&mut self, session: SessionId) {
        let at = self.now + self.gateway.resume_window / 3;
        if let Some(own) = self.own.get_mut(&session) {
            self.refreshes.remove(&(own.refresh_at, session));
            own.refresh_at = at;
            self.refreshes.insert((at, session));
        }
    }
}

/// The version of a session's first owner.
const FIRST: u64 = 1;
