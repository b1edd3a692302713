//! What arrives at a shard: completions of the driver, messages of the mesh.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::connections::Slots;
use super::driver::{Completion, Driver};
use super::{Shard, mutant};
use crate::close::CloseReason;
use crate::delivery::Verdict;
use crate::frame::{Batch, Handles, Run, View};
use crate::id::{ConnAddr, ConnKey, Scope};
use crate::message::{
    Deliver, Introduction, Joined, Page, PresenceReply, PresenceRequest, Recall, Recalled, Request, Whom,
};
use crate::protocol::Forms;
use crate::protocol::frames::write::FramesEncoder;
use crate::session::{Connection, Dialect};
use crate::streams::HomeOutput;
use crate::websocket::Refusal;

impl<D: Driver> Shard<D> {
    pub(super) fn dispatch_completions(&mut self) {
        let mut completions = std::mem::take(&mut self.completions);
        for completion in completions.drain(..) {
            self.dispatch(completion);
        }
        self.completions = completions;
    }

    fn dispatch(&mut self, completion: Completion<D::Socket>) {
        match completion {
            Completion::Accepted { socket, peer } => self.accept(socket, peer.ip()),
            Completion::AcceptFailed(kind) => tracing::warn!(?kind, "accepting failed; trying again"),
            Completion::Received { conn, lease } => {
                self.stats.bytes_in_total.add(u64::from(lease.len));
                let mut lease = Some(lease);
                self.with_driver(conn, |connection, cx, driver| {
                    if let Some(lease) = lease.take() {
                        connection.receive(cx, driver.bytes_mut(&lease));
                        driver.release(lease);
                    }
                });
                if let Some(lease) = lease {
                    self.driver.release(lease);
                }
                // What is published to homes of this shard is taken at once when its room is used up, so that one
                // turn's input never pauses the publisher it came from.
                if !self.port.can_request(self.port.id()) {
                    self.drain_requests();
                }
            }
            Completion::EndOfStream { conn } => {
                self.with(conn, |connection, cx| connection.end_of_stream(cx));
            }
            Completion::Failed { conn, .. } => {
                self.with(conn, |connection, cx| connection.lost(cx));
            }
            Completion::Writable { conn } => {
                if let Some(slot) = self.slots.live(conn) {
                    slot.blocked = false;
                    self.settle(conn);
                }
            }
            Completion::Closed { conn } => self.slots.free(conn),
        }
    }

    fn accept(&mut self, socket: D::Socket, peer: IpAddr) {
        if !self.newcomers.has_room(peer) {
            self.stats.refused_total.add(1);
            return self.driver.refuse(socket, &Refusal::TooManyNewcomers.response());
        }
        let count = self.node.connections.fetch_add(1, Ordering::Relaxed);
        if count >= self.node.connections_max || self.draining {
            self.node.connections.fetch_sub(1, Ordering::Relaxed);
            self.stats.refused_total.add(1);
            return self.driver.refuse(socket, &Refusal::Unavailable.response());
        }
        self.stats.accepted_total.add(1);
        let connection = Box::new(Connection::new(self.now));
        let key = self.slots.insert(connection);
        self.newcomers.enter(key.slot, peer);
        self.driver.attach(key, socket);
        self.settle(key);
    }

    /// Takes every delivery: it never makes another message that could wait (DELIVERY §5).
    pub(super) fn drain_deliver(&mut self) {
        while let Some((_, message)) = self.port.take_deliver() {
            if mutant!(self.settings, SwapDeliveries)
                && let Some((_, second)) = self.port.take_deliver()
            {
                self.take_in(second);
            }
            self.take_in(message);
            if self.flush_soon {
                self.flush_dirty();
            }
        }
    }

    fn take_in(&mut self, message: Deliver) {
        match message {
            Deliver::Batch(batch) => self.deliver(batch),
            Deliver::Introduce { scope, introduction } => {
                self.resuming.retain(|key| slots_resume(&mut self.slots, *key, &scope, &introduction));
                for slot in self.members.introduce(&scope, &introduction) {
                    let key = self.slots.key(slot);
                    self.with(key, |connection, cx| connection.introduced(cx, &scope, &introduction));
                }
            }
            Deliver::Joined(joined) => self.joined(*joined),
            Deliver::Page(page) => self.page(*page),
            Deliver::Recalled(recalled) => {
                self.with(recalled.to, |connection, cx| connection.recalled(cx, &recalled));
            }
            Deliver::Answered { to, correlation, outcome } => {
                self.with(to, |connection, cx| connection.answered(cx, correlation, outcome));
            }
            Deliver::Relayed { to, correlation, bytes, outcome } => {
                self.with(to, |connection, cx| connection.relayed(cx, correlation, bytes, outcome));
            }
            Deliver::Presence(reply) => self.presence(*reply),
            Deliver::Broken { stream } => {
                for slot in self.members.broken(stream) {
                    let key = self.slots.key(slot);
                    self.with(key, |connection, cx| connection.close(cx, CloseReason::TryAgainLater));
                }
            }
            Deliver::Kick { user } => {
                // A resume whose answer is on its way past this kick on another ring must not outlive it.
                self.slots.connections_mut().for_each(|connection| connection.kicked_while_looking(&user));
                for slot in self.members.of_user(&user) {
                    let key = self.slots.key(slot);
                    self.with(key, |connection, cx| connection.close(cx, CloseReason::Kicked));
                }
            }
            Deliver::Api(_) | Deliver::Session { .. } => debug_assert!(false, "a shard does not ask that"),
        }
    }

    /// New frames for all live members.
    fn deliver(&mut self, batch: Arc<Batch>) {
        let stream = batch.stream();
        let settings = self.settings.clone();
        let forms = Forms { routes: &settings.routes };
        let mut handles = Handles::new(batch, &forms);
        if handles.batch().marks().is_empty() {
            self.deliver_plain(&mut handles);
        } else {
            let to = handles.batch().len() as u32;
            for index in self.members.live(stream).to_vec() {
                let key = self.slots.key(index);
                // An effect of an earlier member's frame touches that member's seats alone.
                self.with(key, |connection, cx| connection.deliver_marked(cx, &mut handles, 0, to));
                let connection = self.slots.connection(key);
                self.flush_soon |= connection.is_some_and(|connection| connection.queue.over_half(&settings.queue));
            }
        }
        for index in self.members.take_waiting(stream) {
            let key = self.slots.key(index);
            self.with(key, |connection, _| {
                let mut cursors = connection.cursors.iter_mut();
                if let Some(cursor) = cursors.find(|cursor| cursor.stream() == stream) {
                    cursor.stream_moved();
                }
            });
        }
    }

    /// One push for each member, nothing else on this path.
    fn deliver_plain(&mut self, handles: &mut Handles<'_>) {
        let stream = handles.batch().stream();
        let mut troubled: Vec<(u32, Verdict)> = Vec::new();
        let Self { members, slots, settings, ledger, pool, stats, dirty, flush_soon, timers, .. } = self;
        let mut context = crate::session::queue_context(Dialect::Frames, self.now, settings, ledger, pool, stats);
        for &index in members.live(stream) {
            let key = slots.key(index);
            let slot = slots.get_mut(index);
            let Some(connection) = slot.connection.as_deref_mut() else { continue };
            let batch = handles.of(connection.form(), View::Whole).clone();
            let verdict = connection.queue.push_run(Run::whole(batch), &mut context);
            if slot.blocked {
                // No flush will settle it: its age is watched from here.
                let deadline = connection.queue.age_deadline(&settings.queue);
                if deadline < connection.timer {
                    connection.timer = deadline;
                    timers.insert(deadline, key);
                }
            } else if !slot.dirty {
                slot.dirty = true;
                dirty.push(index);
            }
            *flush_soon |= connection.queue.over_half(&settings.queue);
            if matches!(verdict, Verdict::Close(_)) {
                troubled.push((index, verdict));
            }
        }
        for (index, verdict) in troubled {
            let key = self.slots.key(index);
            self.with(key, |connection, cx| connection.judge(cx, verdict));
        }
    }

    fn joined(&mut self, joined: Joined) {
        let (key, scope) = (joined.to, joined.scope.clone());
        if self.with(key, |connection, cx| connection.joined(cx, joined)).is_none()
            && self.members.join_answered(&scope)
        {
            self.leave_home(scope);
        }
    }

    fn page(&mut self, page: Page) {
        let (key, stream, next) = (page.to, page.stream, page.next);
        if mutant!(self.settings, LiveWhileCatchingUp) {
            self.members.go_live(key.slot, stream);
        }
        let live = self.with(key, |connection, cx| connection.page(cx, page));
        if live == Some(true) {
            self.members.go_live(key.slot, stream);
        } else if live.is_some() && next == crate::message::PageNext::Wait {
            self.members.wait(key.slot, stream);
        }
    }

    fn presence(&mut self, reply: PresenceReply) {
        let to = reply.to();
        if let PresenceReply::Close { code, reason, .. } = &reply {
            self.disconnect(&Whom::Connection(to.conn), *code, reason);
            return;
        }
        let session = match &reply {
            PresenceReply::Resumed { record, .. } => Some(record.session),
            PresenceReply::Stop { session, .. } => Some(*session),
            PresenceReply::Opened { .. }
            | PresenceReply::Expired { .. }
            | PresenceReply::Foreign { .. }
            | PresenceReply::Members { .. }
            | PresenceReply::Disconnected { .. }
            | PresenceReply::Close { .. }
            | PresenceReply::Enrolled { .. }
            | PresenceReply::Hub { .. }
            | PresenceReply::Unavailable { .. }
            | PresenceReply::HubState { .. } => None,
        };
        let called = self.with(to.conn, |connection, cx| connection.presence(cx, reply));
        if let (None, Some(session)) = (called, session) {
            // The connection ended while it was asked about: it owns nothing.
            let last_close = CloseReason::ConnectionLost;
            let detached = PresenceRequest::Detached { from: to, session, last_close };
            self.port.request(self.settings.presence, Request::Presence(Box::new(detached)));
        }
    }

    /// Takes requests while deliveries can be placed, at most a budget per turn.
    pub(super) fn drain_requests(&mut self) {
        for _ in 0..REQUESTS_PER_TURN {
            let Some((_, request)) = self.port.take_request() else { return };
            if mutant!(self.settings, SwapRequests)
                && let Some((_, second)) = self.port.take_request()
            {
                self.carry_home(second);
            }
            self.carry_home(request);
        }
        self.busy_next = true;
    }

    fn carry_home(&mut self, request: Request) {
        match request {
            Request::Publish(publish) => {
                let outcome = self.homes.publish(self.now, &publish, &FramesEncoder);
                if publish.correlation != 0 {
                    self.answer(publish.from, publish.correlation, outcome.map(|_| ()));
                }
            }
            Request::Event(event) => {
                if let Err(code) = self.homes.event(self.now, &event, &FramesEncoder) {
                    tracing::error!(code = code.name(), topic = &*event.topic, place = event.place, "event refused");
                }
            }
            Request::Open { scope } => self.open(&scope),
            Request::WhoIs { from, number, conn } => {
                let session = self.slots.connection(conn).and_then(Connection::session_id);
                self.port.deliver(from, Deliver::Session { number, session });
            }
            Request::Join(_)
            | Request::Reserve { .. }
            | Request::Leave { .. }
            | Request::Pull(_)
            | Request::Recall(_)
            | Request::PublisherGone { .. } => self.deferred.push(request),
            Request::Api(request) => self.api(*request),
            Request::Presence(_) | Request::Append(_) | Request::Publishing(_) => {
                debug_assert!(false, "a peer's request reached a shard")
            }
        }
    }

    fn answer(&mut self, to: ConnAddr, correlation: u64, outcome: Result<(), crate::message::ErrorCode>) {
        self.port.deliver(to.shard, Deliver::Answered { to: to.conn, correlation, outcome });
    }

    /// Seals what the homes collected, sends it, then answers joins and pulls, which therefore continue behind it.
    pub(super) fn settle_streams(&mut self) {
        self.homes.seal(self.now);
        self.send_outputs();
        self.homes.expire(self.now);
        let mut deferred = std::mem::take(&mut self.deferred);
        for request in deferred.drain(..) {
            match request {
                Request::Join(join) => {
                    let outcome = self.homes.join(self.now, &join);
                    self.send_outputs();
                    let (admits, scope) = (self.homes.admits(&join.scope), self.homes.own_name(join.scope));
                    let joined = Joined { to: join.from.conn, scope, outcome, admits };
                    self.port.deliver(join.from.shard, Deliver::Joined(Box::new(joined)));
                }
                Request::Reserve { scope } => self.reserve(&scope),
                Request::Leave { scope, from } => self.homes.leave(self.now, &scope, from),
                Request::PublisherGone { scope, from, gone } => {
                    self.homes.publisher_gone(self.now, &scope, from, gone);
                }
                Request::Pull(pull) => {
                    let page = self.homes.page(&pull);
                    self.port.deliver(pull.from.shard, Deliver::Page(Box::new(page)));
                }
                Request::Recall(recall) => {
                    let runs = self.homes.recall(&recall);
                    let Recall { from, number, scope, .. } = *recall;
                    let recalled = Recalled { to: from.conn, number, scope, runs };
                    self.port.deliver(from.shard, Deliver::Recalled(Box::new(recalled)));
                }
                Request::Api(request) => self.history(&request),
                _ => debug_assert!(false, "what looks at no stream is not deferred"),
            }
        }
        self.deferred = deferred;
    }

    pub(super) fn open(&mut self, scope: &Scope) {
        if let Err(code) = self.homes.open(self.now, scope) {
            tracing::error!(code = code.name(), %scope, "a room cannot be opened");
        }
    }

    pub(super) fn reserve(&mut self, scope: &Scope) {
        if let Err(code) = self.homes.reserve(self.now, scope) {
            tracing::error!(code = code.name(), %scope, "a room cannot be kept from being opened");
        }
    }

    fn send_outputs(&mut self) {
        while let Some(output) = self.homes.output() {
            match output {
                HomeOutput::Batch { batch, shards } => {
                    for shard in shards.iter() {
                        self.port.deliver(shard, Deliver::Batch(Arc::clone(&batch)));
                    }
                }
                HomeOutput::Introduce { scope, introduction, shards } => {
                    for shard in shards.iter() {
                        let (scope, introduction) = (scope.clone(), Arc::clone(&introduction));
                        self.port.deliver(shard, Deliver::Introduce { scope, introduction });
                    }
                }
                HomeOutput::Broken { stream, shards } => {
                    shards.iter().for_each(|shard| self.port.deliver(shard, Deliver::Broken { stream }));
                }
                HomeOutput::Kick { user } => {
                    for shard in crate::id::ShardSet::all(self.settings.shards).iter() {
                        self.port.deliver(shard, Deliver::Kick { user: Arc::clone(&user) });
                    }
                }
            }
        }
    }

    /// Goes on with connections whose input waited for room, answers or an authentication; who waits longest goes first,
    /// so that a flood cannot keep the others from the room that there is.
    pub(super) fn resume_waiting(&mut self) {
        let mut waiting = std::mem::take(&mut self.waiting);
        if waiting.is_empty() {
            return;
        }
        let slots = &self.slots;
        let since = |slot: &u32| slots.connection(slots.key(*slot)).map(Connection::waiting_since);
        waiting.sort_by_key(since);
        for slot in waiting {
            let key = self.slots.key(slot);
            if self.can_go_on(slot) {
                self.slots.get_mut(slot).waiting = false;
                // It goes into the list anew if it waits again.
                self.with(key, |connection, cx| connection.resume(cx));
            } else if self.slots.live(key).is_some() {
                self.waiting.push(slot);
            } else {
                self.slots.get_mut(slot).waiting = false;
            }
        }
    }
}

/// Adds a new stream to a resume whose answer for the scope is parked; whether that connection still resumes.
fn slots_resume(slots: &mut Slots, key: ConnKey, scope: &Scope, introduction: &Arc<Introduction>) -> bool {
    let connection = slots.live(key).and_then(|slot| slot.connection.as_deref_mut());
    connection.is_some_and(|connection| connection.introduced_while_resuming(scope, introduction))
}

/// Requests taken in one turn: a budget, so that a flood of them cannot keep a shard from its sockets.
const REQUESTS_PER_TURN: usize = 4096;
