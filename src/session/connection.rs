//! The connection: phases, input with pauses, queue, timers, close.

use std::sync::Arc;
use std::time::Duration;

use super::authenticate::{Pending, Session};
use super::lobby::Asking;
use super::stash::Stash;
use super::{Cx, Output, Settings};
use crate::class::Class;
use crate::close::CloseReason;
use crate::delivery::{Context, EncodeSkipped, Pool, Verdict, WriteQueue};
use crate::frame::{Form, Handles, Run};
use crate::id::{ConnAddr, NodeId, StreamHandle};
use crate::limits;
use crate::message::{ConnectionInfo, Page, PageNext, PresenceRequest, Pull, Request};
use crate::packed::Packed;
use crate::protocol::Forms;
use crate::protocol::frames::write;
use crate::protocol::{gateway, rooms};
use crate::stats::{Ledger, ShardStats};
use crate::streams::Cursor;
use crate::time::Monotonic;
use crate::websocket::{self, Decoder, Message, Role};

/// What the client speaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Dialect {
    /// Binary frames, `/ws/frames`.
    Frames,
    /// Gateway JSON, `/ws`.
    Gateway,
    /// Room hub JSON, `/ws/rooms/{code}`.
    Rooms,
    /// `/echo`, dev mode.
    Echo,
}

/// One connection. 160 bytes while idle, beside its session: buffers exist only while they hold something.
pub struct Connection {
    pub(super) phase: Phase,
    pub(super) dialect: Dialect,
    /// Has a part of a message; `None` between messages.
    decoder: Option<Box<Decoder>>,
    /// Frames that wait to be sent.
    pub queue: WriteQueue,
    /// Catch-ups under way.
    pub cursors: Packed<Cursor>,
    /// Input that waits: the upgrade request's beginning, or what came while reading was to pause.
    pub(super) stash: Stash,
    pub(super) pause: Option<Box<Pause>>,
    /// When what has a time-out of its own began: the handshake, the authentication, then each interval between pings.
    pub(super) began_at: Monotonic,
    pub(super) last_input: Monotonic,
    /// The earliest timer the shard holds for this connection.
    pub timer: Monotonic,
}

/// Where the connection is in its life.
pub(super) enum Phase {
    /// Reading the upgrade request.
    Handshake,
    /// Presence is asked before it is answered.
    Asking(Box<Asking>),
    /// Upgraded; `attempts` HELLOs failed.
    Hello { attempts: u8, prepared: Option<Box<Prepared>> },
    /// A HELLO is being verified, looked up or resumed; input waits in the stash.
    Busy(Box<Pending>),
    /// A session is attached.
    Open(Box<Session>),
    /// `/echo`.
    Echo,
    /// The close frame is queued or sent; input is discarded.
    Closing(Box<Closing>),
}

/// What is known of a client before it authenticates.
#[derive(Default)]
pub(super) struct Prepared {
    /// A resume token that the upgrade request brought; the first message brings the positions.
    pub resume: Option<Box<str>>,
    /// A token that it brought too.
    pub token: Option<Box<str>>,
    /// When messages came that could not be read.
    pub faults: Vec<Monotonic>,
}

impl Phase {
    pub(super) fn hello(attempts: u8) -> Self {
        Self::Hello { attempts, prepared: None }
    }
}

/// The end of a connection.
pub(super) struct Closing {
    /// When waiting for the client is over.
    until: Monotonic,
    reason: CloseReason,
    /// The close frame of a healthy connection, which first gets what waits for it.
    last_words: Option<Box<[u8]>>,
    /// The client sent FIN.
    end_of_stream: bool,
}

/// A message that cannot be carried out now, and since when.
pub(super) struct Pause {
    pub since: Monotonic,
    /// The message; `None` when reading only waits for answers to drain.
    pub held: Option<Box<[u8]>>,
    /// The node that must have room for it; `None` = every shard and presence.
    pub target: Option<NodeId>,
}

/// What became of a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Flow {
    /// Done.
    Next,
    /// Hold this message and pause until this node, or if `None` every shard and presence, may be asked.
    Hold(Option<NodeId>),
}

impl Connection {
    /// A socket that was just accepted.
    #[must_use]
    pub fn new(now: Monotonic) -> Self {
        Self {
            phase: Phase::Handshake,
            dialect: Dialect::Frames,
            decoder: None,
            queue: WriteQueue::new(),
            cursors: Packed::default(),
            stash: Stash::default(),
            pause: None,
            began_at: now,
            last_input: now,
            timer: Monotonic::NEVER,
        }
    }

    /// Bytes arrived.
    pub fn receive(&mut self, cx: &mut Cx<'_>, bytes: &mut [u8]) {
        self.last_input = cx.now;
        match self.phase {
            Phase::Closing { .. } => {}
            Phase::Handshake => self.receive_handshake(cx, bytes),
            _ => self.take_in(cx, bytes),
        }
    }

    /// Reads bytes that just came, and keeps what must wait.
    pub(super) fn take_in(&mut self, cx: &mut Cx<'_>, bytes: &mut [u8]) {
        let read = self.decode(cx, bytes);
        if read < bytes.len() {
            self.stash(cx, &bytes[read..]);
        }
    }

    /// The client sent FIN. What it sent before is read first, as long as that may take; then, without a close frame among
    /// it, the connection is lost, and the session may come back.
    pub fn end_of_stream(&mut self, cx: &mut Cx<'_>) {
        let upgraded = !matches!(self.phase, Phase::Handshake | Phase::Asking(_));
        if !self.is_closing() {
            if upgraded && self.has_unread() {
                return self.stash.end();
            }
            self.lost(cx);
        }
        if let Phase::Closing(closing) = &mut self.phase {
            closing.end_of_stream = true;
        }
    }

    /// Whether a message is held, or input waits behind it or behind a HELLO.
    fn has_unread(&self) -> bool {
        !self.stash.is_empty() || self.pause.as_ref().is_some_and(|pause| pause.held.is_some())
    }

    /// The socket broke, or the client went without a word: nothing more can be sent.
    pub fn lost(&mut self, cx: &mut Cx<'_>) {
        let reason = match &self.phase {
            Phase::Closing(closing) => closing.reason,
            Phase::Handshake | Phase::Asking(_) => CloseReason::HandshakeTimeout,
            _ => CloseReason::ConnectionLost,
        };
        if !self.is_closing() {
            self.detach(cx, reason);
            cx.stats.closes_total[reason as usize].add(1);
        }
        self.with_queue(cx, |queue, context| queue.abandon(context));
        self.end(Monotonic::ZERO, reason, None);
    }

    /// Ends the connection for this reason: the frame under way is finished, the rest is lost, CLOSE follows.
    pub fn close(&mut self, cx: &mut Cx<'_>, reason: CloseReason) {
        self.close_with(cx, reason, reason.code(), reason.text());
    }

    /// [`Connection::close`] with another code and text, e.g. the client's own, or a reconnect delay.
    pub fn close_with(&mut self, cx: &mut Cx<'_>, reason: CloseReason, code: u16, text: &str) {
        if self.is_closing() {
            return;
        }
        let upgraded = !matches!(self.phase, Phase::Handshake | Phase::Asking(_));
        self.detach(cx, reason);
        cx.stats.closes_total[reason as usize].add(1);
        let frame = (upgraded && reason.code() != 0).then(|| {
            let mut frame = Vec::new();
            websocket::put_close(&mut frame, code, text);
            frame.into_boxed_slice()
        });
        let until = cx.now + cx.settings.clocks.close;
        if frame.is_some() && self.queue.has_sendable() && !self.queue.is_blocked() {
            return self.end(until, reason, frame);
        }
        self.end(until, reason, None);
        self.with_queue(cx, |queue, context| queue.close(frame, context));
    }

    /// Behind a flush: a closing connection that was healthy got what waited, or turned out not to be; CLOSE follows.
    pub fn flushed(&mut self, cx: &mut Cx<'_>) {
        if let Phase::Closing(closing) = &mut self.phase
            && (self.queue.is_blocked() || !self.queue.has_sendable())
            && let Some(frame) = closing.last_words.take()
        {
            self.with_queue(cx, |queue, context| queue.close(Some(frame), context));
        }
    }

    /// Ends a connection that was never upgraded once the answer that waits is sent.
    pub(super) fn finish(&mut self, cx: &mut Cx<'_>, reason: CloseReason) {
        cx.stats.closes_total[reason as usize].add(1);
        self.end(cx.now + cx.settings.clocks.close, reason, None);
    }

    fn end(&mut self, until: Monotonic, reason: CloseReason, last_words: Option<Box<[u8]>>) {
        let known = matches!(&self.phase, Phase::Closing(closing) if closing.end_of_stream);
        let end_of_stream = known || self.stash.is_all();
        self.phase = Phase::Closing(Box::new(Closing { until, reason, last_words, end_of_stream }));
    }

    /// A batch's run for this member; the verdict is carried out.
    pub fn deliver(&mut self, cx: &mut Cx<'_>, run: Run) {
        let verdict = self.with_queue(cx, |queue, context| queue.push_run(run, context));
        self.judge(cx, verdict);
    }

    /// What the timer wheel brought; see [`Connection::next_deadline`].
    pub fn timer(&mut self, cx: &mut Cx<'_>) {
        let (now, clocks) = (cx.now, cx.settings.clocks);
        match &self.phase {
            Phase::Closing(closing) if closing.until <= now => self.lost(cx),
            Phase::Closing { .. } => {}
            Phase::Handshake | Phase::Asking(_) if self.began_at + clocks.handshake <= now => {
                self.close(cx, CloseReason::HandshakeTimeout);
            }
            Phase::Handshake | Phase::Asking(_) => {}
            Phase::Hello { .. } | Phase::Busy(_) if self.began_at + clocks.authentication <= now => {
                self.close(cx, CloseReason::AuthenticationTimeout);
            }
            Phase::Hello { .. } | Phase::Busy(_) => {}
            Phase::Open(session) if session.closes_at <= now => self.close(cx, CloseReason::TokenExpired),
            Phase::Open(_) | Phase::Echo => self.open_timer(cx),
        }
    }

    fn open_timer(&mut self, cx: &mut Cx<'_>) {
        let (now, clocks) = (cx.now, cx.settings.clocks);
        if self.queue.age_deadline(&cx.settings.queue) <= now {
            let verdict = self.with_queue(cx, |queue, context| queue.check_age(context));
            self.judge(cx, verdict);
        }
        if self.pause.as_ref().is_some_and(|pause| pause.held.is_some() && pause.since + clocks.pause <= now) {
            self.give_up_held(cx);
        }
        let unread = self.pause.as_ref().is_some_and(|pause| pause.held.is_none() && pause.since + clocks.idle <= now);
        if unread || self.pause.is_none() && self.last_input + clocks.idle <= now {
            self.close(cx, CloseReason::IdleTimeout);
        } else if self.began_at + clocks.ping <= now {
            self.began_at = now;
            let mut ping = Vec::new();
            websocket::put_ping(&mut ping, &[]);
            let verdict = self.with_queue(cx, |queue, context| queue.push_ping(ping.into_boxed_slice(), context));
            self.judge(cx, verdict);
        }
    }

    /// When [`Connection::timer`] has something to do.
    #[must_use]
    pub fn next_deadline(&self, settings: &Settings) -> Monotonic {
        let clocks = &settings.clocks;
        match &self.phase {
            Phase::Handshake | Phase::Asking(_) => self.began_at + clocks.handshake,
            Phase::Hello { .. } | Phase::Busy(_) => self.began_at + clocks.authentication,
            Phase::Closing(closing) => closing.until,
            Phase::Open(_) | Phase::Echo => {
                let idle = match &self.pause {
                    None => self.last_input + clocks.idle,
                    Some(pause) if pause.held.is_some() => pause.since + clocks.pause,
                    // Who does not read its answers is idle in its own way.
                    Some(pause) => pause.since + clocks.idle,
                };
                let expiry = match &self.phase {
                    Phase::Open(session) => session.closes_at,
                    _ => Monotonic::NEVER,
                };
                let age = self.queue.age_deadline(&settings.queue);
                idle.min(expiry).min(age).min(self.began_at + clocks.ping)
            }
        }
    }

    /// Tries again what was held, then reads on in the stash. The shard calls it when rings or answers drained.
    pub fn resume(&mut self, cx: &mut Cx<'_>) {
        let answers_wait = self.pause.as_ref().is_some_and(|pause| pause.held.is_none());
        if answers_wait && !self.queue.answers_drained(&cx.settings.queue) {
            return;
        }
        if let Some(pause) = self.pause.take() {
            if let Some(mut held) = pause.held {
                // A message that is to be held has not been read in place.
                if let Flow::Hold(target) = self.message_of_dialect(cx, &mut held) {
                    self.pause = Some(Box::new(Pause { since: pause.since, held: Some(held), target }));
                    return;
                }
            }
            self.last_input = cx.now;
        }
        if !self.stash.is_empty() && !self.must_wait() && !self.is_closing() {
            let mut stash = self.stash.take();
            *cx.stash_reserve += beyond_bound(stash.len(), cx.settings);
            let read = self.decode(cx, &mut stash);
            if read < stash.len() {
                stash.drain(..read);
                *cx.stash_reserve -= beyond_bound(stash.len(), cx.settings);
                self.stash.put(stash);
            }
        }
        if self.stash.is_all() && !self.has_unread() && !self.is_closing() {
            self.lost(cx);
        }
    }

    /// Whether [`Connection::resume`] may have something to do.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        let stashed = !self.stash.is_empty() && !matches!(self.phase, Phase::Handshake);
        self.pause.is_some() || stashed || self.cursors.iter().any(Cursor::is_ready)
    }

    /// Whether [`Connection::resume`], or a pull, would get somewhere now.
    #[must_use]
    pub fn can_go_on(&self, settings: &Settings, may_request: &dyn Fn(NodeId) -> bool) -> bool {
        let input = match self.pause.as_deref() {
            Some(Pause { held: Some(_), target: Some(node), .. }) => {
                may_request(*node) && !self.waits_for_relayed(*node, settings.bus)
            }
            Some(Pause { held: Some(_), .. }) => (0..=settings.shards).all(|node| may_request(NodeId(node))),
            Some(_) => self.queue.answers_drained(&settings.queue),
            None => {
                !self.stash.is_empty() && !matches!(self.phase, Phase::Busy(_) | Phase::Asking(_) | Phase::Handshake)
            }
        };
        let (frames, bytes) = self.page_room(settings);
        let home = |cursor: &Cursor| cursor.stream().home(settings.shards);
        let pulls = |cursor: &Cursor| cursor.is_ready() && home(cursor).is_some_and(may_request);
        input || self.is_open() && frames > 0 && bytes > 0 && self.cursors.iter().any(pulls)
    }

    /// What is left of half the queue for pages. Deltas of a slow queue have bounds of their own and do not count.
    fn page_room(&self, settings: &Settings) -> (usize, usize) {
        let limits = &settings.queue;
        let fast_deltas = if self.queue.is_slow() { 0 } else { self.queue.pending(Class::Delta) };
        let frames = (self.queue.pending(Class::Reliable) + fast_deltas) as usize;
        let bytes = self.queue.pending_ordered_bytes();
        ((limits.frames / 2).saturating_sub(frames), (limits.bytes / 2).saturating_sub(bytes))
    }

    /// Since when input has been held, for those who wait longest go first.
    #[must_use]
    pub fn waiting_since(&self) -> Monotonic {
        self.pause.as_ref().map_or(Monotonic::ZERO, |pause| pause.since)
    }

    /// Whether the shard should receive for this connection.
    #[must_use]
    pub fn wants_reads(&self) -> bool {
        match &self.phase {
            Phase::Closing(closing) => !closing.end_of_stream,
            _ => !self.must_wait() && !self.stash.is_all(),
        }
    }

    /// Whether there is something to send now, as far as the socket takes it.
    #[must_use]
    pub fn has_sendable(&self) -> bool {
        self.queue.has_sendable()
    }

    /// Whether everything that will be sent is sent, and the sending side may end.
    #[must_use]
    pub fn is_flushed_and_closing(&self) -> bool {
        let Phase::Closing(closing) = &self.phase else { return false };
        closing.last_words.is_none() && !self.queue.has_sendable()
    }

    /// Whether it was told, or is to be told, that it ends.
    #[must_use]
    pub fn is_closing(&self) -> bool {
        matches!(self.phase, Phase::Closing { .. })
    }

    /// Whether the socket may be closed now: both sides have ended, or waiting for the client is over.
    #[must_use]
    pub fn is_over(&self, now: Monotonic) -> bool {
        let Phase::Closing(closing) = &self.phase else { return false };
        closing.until <= now || closing.end_of_stream && self.is_flushed_and_closing()
    }

    /// Whether it is on its way to a session, so that it counts against its client's address.
    #[must_use]
    pub fn is_newcomer(&self) -> bool {
        matches!(self.phase, Phase::Handshake | Phase::Asking(_) | Phase::Hello { .. } | Phase::Busy(_))
    }

    /// What it is doing, for messages of tests and simulations.
    #[must_use]
    pub fn describe(&self) -> String {
        let (reading, pause) = (self.wants_reads(), self.pause.is_some());
        format!("cursors {:?}, reading {reading}, paused {pause}, stash {}", self.cursors, self.stash.len())
    }

    /// What operators see of it.
    #[must_use]
    pub fn info(&self, addr: ConnAddr, now: Monotonic) -> ConnectionInfo {
        let session = match &self.phase {
            Phase::Open(session) => Some(session),
            _ => None,
        };
        ConnectionInfo {
            addr,
            dialect: match (&self.phase, self.dialect) {
                (Phase::Handshake | Phase::Asking(_), _) => "handshake",
                (_, Dialect::Frames) => "frames",
                (_, Dialect::Gateway) => "gateway",
                (_, Dialect::Rooms) => "rooms",
                (_, Dialect::Echo) => "echo",
            },
            session: session.map(|session| session.id),
            user: session.map(|session| Arc::clone(&session.user)),
            rooms: session.map_or(0, |session| session.rooms.len()),
            queued_bytes: self.queue.pending_bytes(),
            queued_reliable: self.queue.pending(Class::Reliable),
            queued_deltas: self.queue.pending(Class::Delta),
            slow: self.queue.is_slow(),
            silence: now.since(self.last_input),
        }
    }

    /// What the client speaks.
    #[must_use]
    pub fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// How stream frames are written for this client.
    #[must_use]
    pub fn form(&self) -> Form {
        match self.dialect {
            Dialect::Frames | Dialect::Echo => Form::Frames,
            Dialect::Gateway => Form::Gateway,
            Dialect::Rooms => Form::Rooms,
        }
    }

    /// Whether answers of homes are parked, so that a stream that appears meanwhile is added to them.
    #[must_use]
    pub fn is_resuming(&self) -> bool {
        matches!(&self.phase, Phase::Busy(pending) if matches!(**pending, Pending::Resuming(_)))
    }

    /// Whether a session is attached.
    #[must_use]
    pub fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Open(_))
    }

    /// Whether it has a session or asks for one.
    #[must_use]
    pub fn has_session(&self) -> bool {
        matches!(self.phase, Phase::Open(_) | Phase::Busy(_))
    }

    /// The cursors' pulls that fit: at most what is left of half the queue.
    pub fn pulls(
        &mut self,
        me: ConnAddr,
        settings: &Settings,
        may_request: &dyn Fn(NodeId) -> bool,
    ) -> Vec<(NodeId, Pull)> {
        let mut pulls = Vec::new();
        if self.cursors.is_empty() || !self.is_open() {
            return pulls;
        }
        let room = self.page_room(settings);
        let share = self.cursors.len();
        for cursor in self.cursors.iter_mut() {
            let home = cursor.stream().home(settings.shards);
            if let Some(home) = home.filter(|home| may_request(*home))
                && let Some(pull) = cursor.pull(me, room.0.div_ceil(share), room.1.div_ceil(share))
            {
                pulls.push((home, pull));
            }
        }
        pulls
    }

    /// Whether nothing but input concerns this connection: no catch-up, no pause, not closing.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.cursors.is_empty() && !self.is_waiting() && !self.is_closing()
    }

    /// A page of a catch-up arrived; `true` when the member is live in that stream from here on.
    pub fn page(&mut self, cx: &mut Cx<'_>, page: Page) -> bool {
        let stream = page.stream;
        if page.next == PageNext::Evicted {
            if self.cursors.iter().any(|cursor| cursor.stream() == stream) {
                self.close(cx, CloseReason::HistoryEvicted);
            }
            return false;
        }
        let Some(at) = self.cursors.iter().position(|cursor| cursor.stream() == stream) else { return false };
        let live = self.cursors[at].advance(&page);
        for run in page.runs {
            // A frame of the run before may have taken the session out of the room.
            if !self.is_open() || !self.cursors.iter().any(|cursor| cursor.stream() == stream) {
                return false;
            }
            let forms = Forms { routes: &cx.settings.routes };
            self.deliver_marked(cx, &mut Handles::new(run.batch, &forms), run.from, run.to);
        }
        let at = self.cursors.iter().position(|cursor| cursor.stream() == stream);
        let Some(at) = at.filter(|_| live && self.is_open()) else { return false };
        self.cursors.remove(at);
        true
    }

    /// Queues an answer or an introduction.
    pub(super) fn answer(&mut self, cx: &mut Cx<'_>, write: impl FnOnce(&mut Vec<u8>)) {
        if self.is_closing() {
            return;
        }
        let mut frame = Vec::new();
        write(&mut frame);
        let verdict = self.with_queue(cx, |queue, context| queue.push_answer(frame.into_boxed_slice(), context));
        self.judge(cx, verdict);
    }

    /// Carries out what the queue returned.
    pub fn judge(&mut self, cx: &mut Cx<'_>, verdict: Verdict) {
        match verdict {
            Verdict::Close(reason) => self.close(cx, reason),
            Verdict::AnswersFull if self.pause.is_none() => {
                self.pause = Some(Box::new(Pause { since: cx.now, held: None, target: None }));
                cx.stats.pauses_total.add(1);
            }
            Verdict::AnswersFull | Verdict::Queued | Verdict::Replaced | Verdict::Dropped | Verdict::Refused => {}
        }
    }

    pub(super) fn with_queue<T>(
        &mut self,
        cx: &mut Cx<'_>,
        act: impl FnOnce(&mut WriteQueue, &mut Context<'_>) -> T,
    ) -> T {
        let mut context = queue_context(self.dialect, cx.now, cx.settings, cx.ledger, cx.pool, cx.stats);
        act(&mut self.queue, &mut context)
    }

    /// Reads messages until the input is used up or reading must pause; returns how many bytes need not be kept.
    fn decode(&mut self, cx: &mut Cx<'_>, bytes: &mut [u8]) -> usize {
        let Some(mut begun) = self.decoder.take() else {
            let mut decoder = Decoder::new(Role::Server, cx.settings.max_frame);
            let read = self.decode_with(cx, &mut decoder, bytes);
            // Between messages it has nothing to remember.
            if !decoder.is_idle() && !self.is_closing() {
                self.decoder = Some(Box::new(decoder));
            }
            return read;
        };
        let read = self.decode_with(cx, &mut begun, bytes);
        if !begun.is_idle() && !self.is_closing() {
            self.decoder = Some(begun);
        }
        read
    }

    fn decode_with(&mut self, cx: &mut Cx<'_>, decoder: &mut Decoder, bytes: &mut [u8]) -> usize {
        let mut at = 0;
        loop {
            if self.is_closing() {
                return bytes.len();
            }
            if self.must_wait() {
                return at;
            }
            match decoder.next(bytes, &mut at) {
                Ok(None) => return bytes.len(),
                Ok(Some(message)) => self.websocket_message(cx, message),
                Err(error) => {
                    self.close(cx, error.reason());
                    return bytes.len();
                }
            }
        }
    }

    fn websocket_message(&mut self, cx: &mut Cx<'_>, message: Message<'_>) {
        cx.stats.frames_in_total.add(1);
        match message {
            Message::Binary(_) if matches!(self.dialect, Dialect::Gateway | Dialect::Rooms) => {
                self.close(cx, CloseReason::UnsupportedData);
            }
            Message::Binary(payload) => self.data(cx, payload),
            Message::Text(payload) if self.dialect == Dialect::Echo => {
                let text = std::str::from_utf8(payload).unwrap_or_default();
                self.answer(cx, |out| websocket::put_text(out, text));
            }
            Message::Text(payload) if matches!(self.dialect, Dialect::Gateway | Dialect::Rooms) => {
                self.data(cx, payload)
            }
            Message::Text(_) => self.close(cx, CloseReason::UnsupportedData),
            Message::Ping(payload) => {
                let mut pong = Vec::new();
                websocket::put_pong(&mut pong, payload);
                let verdict = self.with_queue(cx, |queue, context| queue.push_pong(pong.into_boxed_slice(), context));
                self.judge(cx, verdict);
            }
            Message::Pong(_) => {}
            Message::Close(None) => self.close(cx, CloseReason::Normal),
            Message::Close(Some((1001, _))) => self.close(cx, CloseReason::GoingAway),
            Message::Close(Some((code, _))) => self.close_with(cx, CloseReason::Normal, code, ""),
        }
    }

    fn data(&mut self, cx: &mut Cx<'_>, payload: &mut [u8]) {
        if self.dialect == Dialect::Echo {
            return self.answer(cx, |out| websocket::put_binary(out, payload));
        }
        if let Flow::Hold(target) = self.message_of_dialect(cx, payload) {
            self.pause = Some(Box::new(Pause { since: cx.now, held: Some(Box::from(&*payload)), target }));
            cx.stats.pauses_total.add(1);
        }
    }

    fn message_of_dialect(&mut self, cx: &mut Cx<'_>, payload: &mut [u8]) -> Flow {
        match self.dialect {
            Dialect::Gateway => self.gateway_message(cx, payload),
            Dialect::Rooms => self.hub_message(cx, payload),
            Dialect::Frames | Dialect::Echo => self.message(cx, payload),
        }
    }

    /// Whether input must wait: a HELLO is under way, a message is held, or answers must drain first.
    fn must_wait(&self) -> bool {
        matches!(self.phase, Phase::Busy(_) | Phase::Asking(_)) || self.pause.is_some()
    }

    /// Keeps input that came behind a pause. Beyond its bound it draws on the shard's reserve, unless the pause is the
    /// client's doing: it does not read its answers, or it is not authenticated. Who waits for a node's room is no
    /// worse for not reading meanwhile: a publisher gets its own frames back.
    fn stash(&mut self, cx: &mut Cx<'_>, bytes: &[u8]) {
        let before = beyond_bound(self.stash.len(), cx.settings);
        let more = beyond_bound(self.stash.len() + bytes.len(), cx.settings) - before;
        let holds = self.pause.as_ref().is_some_and(|pause| pause.held.is_some());
        let reads = holds || !self.queue.is_blocked();
        let entitled = !matches!(self.phase, Phase::Busy(_) | Phase::Asking(_)) && reads;
        if more > 0 && !(entitled && more <= *cx.stash_reserve) {
            return self.close(cx, CloseReason::TryAgainLater);
        }
        *cx.stash_reserve -= more;
        self.stash.extend(bytes);
    }

    /// What the stash has of the shard's reserve, bytes.
    #[must_use]
    pub fn reserved(&self, settings: &Settings) -> usize {
        beyond_bound(self.stash.len(), settings)
    }

    /// Gives up the session: seats, scopes, ownership of the record.
    fn detach(&mut self, cx: &mut Cx<'_>, reason: CloseReason) {
        *cx.stash_reserve += beyond_bound(self.stash.len(), cx.settings);
        self.stash.take();
        self.pause = None;
        self.cursors = Packed::default();
        let session = match &mut self.phase {
            Phase::Open(session) => {
                let seats = session.rooms.iter().map(|seat| &seat.scope);
                let scopes: Vec<_> =
                    seats.chain(session.joining.iter().map(|joining| &joining.scope)).cloned().collect();
                session.publisher_gone(cx, scopes.into_iter());
                Some(session.id)
            }
            Phase::Busy(pending) => pending.abandon(cx),
            _ => None,
        };
        if let Some(session) = session {
            cx.out.push(Output::Detach);
            // The one request that does not wait for room: no session begins without it, so that there are no more of
            // them than there were connections.
            let detached = PresenceRequest::Detached { from: cx.me, session, last_close: reason };
            cx.out.push(Output::Request(cx.settings.presence, Request::Presence(Box::new(detached))));
        }
    }
}

/// What every operation of a write queue needs; `dialect` is that of the connection when it is flushed.
pub fn queue_context<'a>(
    dialect: Dialect,
    now: Monotonic,
    settings: &'a Settings,
    ledger: &'a mut Ledger,
    pool: &'a mut Pool,
    stats: &'a ShardStats,
) -> Context<'a> {
    let skipped: &dyn EncodeSkipped = match dialect {
        Dialect::Gateway => &SkippedText,
        Dialect::Rooms => &SkippedRooms,
        Dialect::Frames | Dialect::Echo => &SkippedFrames,
    };
    Context { now, limits: &settings.queue, ledger, pool, skipped, delta_age: &stats.delta_age_ns }
}

/// Dialect D's `skipped` frame.
struct SkippedFrames;

impl EncodeSkipped for SkippedFrames {
    fn encode_skipped(&self, stream: StreamHandle, count: u64, out: &mut Vec<u8>) {
        write::skipped(out, stream, count);
    }
}

/// Dialect A's.
struct SkippedText;

impl EncodeSkipped for SkippedText {
    fn encode_skipped(&self, stream: StreamHandle, count: u64, out: &mut Vec<u8>) {
        gateway::write::skipped(out, stream, count);
    }
}

/// Dialect B's.
struct SkippedRooms;

impl EncodeSkipped for SkippedRooms {
    fn encode_skipped(&self, stream: StreamHandle, count: u64, out: &mut Vec<u8>) {
        rooms::write::skipped(out, stream, count);
    }
}

/// What an idle connection costs (DESIGN §10: 1,000 B with everything); a size class of the allocator.
const _: () = assert!(size_of::<Connection>() <= 160);

/// What a stash of so many bytes has beyond its own bound.
fn beyond_bound(len: usize, settings: &Settings) -> usize {
    len.saturating_sub(limits::STASH_BYTES.max(settings.max_frame + 64))
}

/// How long after `exp` (seconds since the Unix epoch) a connection may go on, seen from `now`.
pub(super) fn closes_at(cx: &Cx<'_>, expires_at: u64) -> Monotonic {
    if expires_at == u64::MAX {
        return Monotonic::NEVER;
    }
    let left = Duration::from_millis(expires_at.saturating_mul(1000).saturating_sub(cx.wall.0));
    cx.now + left + cx.settings.clocks.token_grace
}
