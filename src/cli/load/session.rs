//! One client of a run: how it connects, authenticates, joins, receives, and comes back.

mod gateway;
mod player;

use std::collections::VecDeque;
use std::net::TcpStream;
use std::sync::atomic::Ordering;

use serde::Deserialize;

use crate::id::StreamHandle;
use crate::message::ErrorCode;
use crate::protocol::frames::client::{self, FromServer};
use crate::protocol::frames::json::{self, Hello, Join, Joined, StreamName, Welcome};
use crate::protocol::frames::types;

use super::link::{Link, Received};
use super::options::{Dialect, Mode, Options};
use super::publisher::{self, BATTLE_CORRELATION, Publisher};
use super::shared::{Measured, Phase, Shared};
use super::stamp::{Reading, Stamp};
use super::verify::{MemberCheck, Sent};
use super::wire::{self, opcode};

pub use player::Player;
use player::Schedule;

/// What a client is there for.
#[derive(Debug)]
pub enum Role {
    /// Sends and gets its own messages back.
    Echo {
        /// Number of the last message sent.
        sent: u64,
        /// Number of the last one that came back.
        back: u64,
    },
    /// Sends to a room.
    Publisher(Publisher),
    /// Rolls dice with another one.
    Player(Player),
    /// Reads.
    Member,
    /// Reads slowly or not at all.
    Stalled,
}

/// How far a client is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    Waiting,
    Upgrading,
    Authenticating,
    Joining,
    Live,
    Gone,
}

/// One client; lives across its connections.
#[derive(Debug)]
pub struct Client {
    role: Role,
    room: usize,
    /// Paces its room's publishers.
    witness: bool,
    token: String,
    stage: Stage,
    link: Option<Link>,
    check: MemberCheck,
    relay: StreamHandle,
    resume: Option<String>,
    /// It speaks JSON from the next connection on.
    json: bool,
    /// Its session comes from dialect D and has not gone on in JSON yet.
    took_over: bool,
    /// When the heartbeats that are not answered were sent, ns.
    beats: VecDeque<u64>,
    /// When the connection was begun, or the next one may be, ns.
    since_ns: u64,
    deltas_received: u64,
    deltas_acked: u64,
    battle_started: bool,
    /// Bytes a slow reader may read now.
    allowance: f64,
    allowed_at_ns: u64,
}

/// What a client works with in one step.
#[derive(Debug)]
pub struct Step<'a> {
    /// The run.
    pub shared: &'a Shared,
    /// The thread's measurements.
    pub measured: &'a mut Measured,
    /// For frames under construction.
    pub scratch: &'a mut Vec<u8>,
    /// The run's clock, ns.
    pub now: u64,
}

/// Why a connection ends: the close code that came, or 1006.
struct Ended(u16);

/// No close frame came (RFC 6455 §7.1.5).
const LOST: u16 = 1006;
/// From a close to the next attempt.
const RECONNECT_NS: u64 = 50_000_000;

impl Client {
    /// A client that has not begun.
    #[must_use]
    pub fn new(role: Role, room: usize, witness: bool, token: String, options: &Options) -> Self {
        Self {
            role,
            room,
            witness,
            token,
            stage: Stage::Waiting,
            link: None,
            check: MemberCheck::new(options.shape()),
            relay: StreamHandle::NONE,
            resume: None,
            json: matches!(options.mode, Mode::Echo | Mode::Rolls) && options.dialect == Dialect::Json,
            took_over: false,
            beats: VecDeque::new(),
            since_ns: 0,
            deltas_received: 0,
            deltas_acked: 0,
            battle_started: false,
            allowance: 0.0,
            allowed_at_ns: 0,
        }
    }

    /// Whether it waits to connect and may by now.
    #[must_use]
    pub fn wants_connection(&self, now: u64) -> bool {
        self.stage == Stage::Waiting && self.since_ns <= now
    }

    /// Whether a connection is being made.
    #[must_use]
    pub fn is_connecting(&self) -> bool {
        matches!(self.stage, Stage::Upgrading | Stage::Authenticating | Stage::Joining)
    }

    /// Begins a connection and queues the upgrade; returns the socket to watch.
    ///
    /// # Errors
    /// No descriptor or port left.
    pub fn connect(&mut self, step: &Step<'_>) -> std::io::Result<&TcpStream> {
        let options = &step.shared.options;
        let mut link = Link::connect(options.address)?;
        let (path, protocol) = match self.json {
            true => (gateway::PATH, None),
            false => (&*options.path, (options.mode != Mode::Echo).then_some("ringgate.frames.v1")),
        };
        link.put(&wire::upgrade_request(&options.host, path, protocol));
        (self.stage, self.since_ns) = (Stage::Upgrading, step.now);
        (self.deltas_received, self.deltas_acked) = (0, 0);
        Ok(self.link.insert(link).stream())
    }

    /// Reads all there is, or what a slow reader may, and writes what that leads to.
    pub fn on_ready(&mut self, buffer: &mut [u8], step: &mut Step<'_>) {
        if let Err(Ended(code)) = self.receive(buffer, step) {
            return self.ended(code, step);
        }
        self.acknowledge_deltas(step);
        self.flush(step);
        if matches!(self.role, Role::Player(_)) {
            // Its turn may have come; the next round would be late by everybody else's.
            self.on_time(step);
        }
    }

    /// Sends what is due; returns when to call again, ns.
    pub fn on_time(&mut self, step: &mut Step<'_>) -> u64 {
        if let (Role::Player(player), Stage::Joining) = (&mut self.role, self.stage) {
            if let Some(command) = player.enter(step.now) {
                self.put(opcode::TEXT, command.as_bytes());
                self.flush(step);
            }
            return u64::MAX;
        }
        let (Stage::Live, Phase::Send) = (self.stage, step.shared.phase()) else { return u64::MAX };
        let Some(link) = &mut self.link else { return u64::MAX };
        let options = &step.shared.options;
        let next = match &mut self.role {
            Role::Publisher(publisher) => {
                if let (Some(battle), false) = (options.battle, self.battle_started) {
                    self.battle_started = true;
                    publisher::start_battle(link, step.scratch, self.relay, battle.events, battle.interval_ms);
                }
                publisher.pump(link, self.relay, step.shared, step.now)
            }
            Role::Echo { .. } if self.json => {
                self.send_heartbeats(step);
                u64::MAX
            }
            Role::Echo { sent, back } => {
                while *sent - *back < options.in_flight {
                    *sent += 1;
                    let stamp = Stamp { publisher: 0, number: *sent, sent_ns: step.now };
                    link.put_frame(opcode::BINARY, options.size, |out| stamp.put(out, options.size));
                }
                u64::MAX
            }
            Role::Player(player) => match player.roll(schedule(self.room, step.shared), step.now) {
                Ok(command) => {
                    link.put_frame(opcode::TEXT, command.len(), |out| out.extend_from_slice(command.as_bytes()));
                    u64::MAX
                }
                Err(next) => return next,
            },
            Role::Member | Role::Stalled => return u64::MAX,
        };
        self.flush(step);
        next
    }

    /// Whether it must be called every few ms: slow readers, whose sockets announce nothing new.
    #[must_use]
    pub fn is_throttled(&self) -> bool {
        matches!(self.role, Role::Stalled) && self.stage == Stage::Live
    }

    /// Whether it sends by itself.
    #[must_use]
    pub fn is_sender(&self) -> bool {
        matches!(self.role, Role::Publisher(_) | Role::Echo { .. } | Role::Player(_))
    }

    /// Drops the connection so that it is made anew (storm).
    pub fn drop_connection(&mut self, step: &mut Step<'_>) {
        if self.link.take().is_some() {
            if self.stage == Stage::Live {
                step.shared.ready.fetch_sub(1, Ordering::AcqRel);
            }
            self.stage = Stage::Waiting;
            self.since_ns = step.now;
        }
    }

    /// Whether the drain must go on for it.
    #[must_use]
    pub fn is_pending(&self, shared: &Shared) -> bool {
        let battle = shared.options.battle.is_some() && !self.check.battle_ended();
        match &self.role {
            _ if self.stage == Stage::Gone => false,
            Role::Echo { sent, back } => sent != back,
            Role::Publisher(publisher) => publisher.unanswered() > 0,
            Role::Player(player) => player.waits(),
            Role::Member | Role::Stalled => {
                let sent = |publisher: usize| shared.reliable[publisher].load(Ordering::Acquire);
                let deltas = |publisher: usize| shared.deltas[publisher].load(Ordering::Acquire);
                let refused = |publisher: usize| shared.deltas_refused[publisher].load(Ordering::Acquire);
                battle || !self.check.is_complete(self.room, sent) || !self.check.has_deltas(self.room, deltas, refused)
            }
        }
    }

    /// Judges what it got and adds it up.
    pub fn finish(mut self, shared: &Shared, sent: &Sent, measured: &mut Measured) {
        let whole = match &self.role {
            Role::Echo { sent, back } => {
                measured.tally.missing += if self.stage == Stage::Gone { 0 } else { sent - back };
                measured.tally.add(self.check.tally());
                return;
            }
            Role::Player(player) => {
                measured.tally.missing += u64::from(player.waits());
                measured.tally.add(self.check.tally());
                return;
            }
            Role::Publisher(publisher) => {
                measured.unacknowledged += publisher.unanswered();
                self.check.has_received() && self.stage != Stage::Gone
            }
            Role::Member | Role::Stalled => self.stage != Stage::Gone,
        };
        let battle = shared.options.battle.is_some() && !matches!(self.role, Role::Publisher(_));
        self.check.finish(self.room, sent, whole, battle);
        measured.tally.add(self.check.tally());
    }

    fn receive(&mut self, buffer: &mut [u8], step: &mut Step<'_>) -> Result<(), Ended> {
        loop {
            let limit = self.read_limit(step);
            let Some(link) = self.link.as_mut().filter(|_| limit > 0) else { return Ok(()) };
            let (len, new, drained) = match link.receive(buffer, limit) {
                Ok(Received::Bytes(len, new, drained)) => (len, new, drained),
                Ok(Received::Nothing) => return Ok(()),
                Ok(Received::End) => return Err(Ended(LOST)),
                Err(error) => {
                    self.lost(&error.to_string(), step);
                    return Err(Ended(LOST));
                }
            };
            step.now = step.shared.now();
            self.allowance -= new as f64;
            let used = self.feed(&buffer[..len], step)?;
            if let Some(link) = &mut self.link {
                link.keep(&buffer[used..len]);
            }
            if drained {
                return Ok(());
            }
        }
    }

    /// How much may be read now.
    fn read_limit(&mut self, step: &Step<'_>) -> usize {
        if !self.is_throttled() || step.shared.phase() >= Phase::Drain {
            return usize::MAX;
        }
        let speed = step.shared.options.reader_speed as f64;
        let elapsed = step.now.saturating_sub(self.allowed_at_ns) as f64 / 1e9;
        self.allowance = (self.allowance + elapsed * speed).min(speed / 10.0 + 1.0);
        self.allowed_at_ns = step.now;
        self.allowance.max(0.0) as usize
    }

    /// Takes whole frames; returns how many bytes they were.
    fn feed(&mut self, input: &[u8], step: &mut Step<'_>) -> Result<usize, Ended> {
        let mut used = 0;
        if self.stage == Stage::Upgrading {
            match wire::upgrade_response(input) {
                Ok(None) => return Ok(0),
                Ok(Some(len)) => used = len,
                Err(text) => {
                    step.shared.fail(format!("{text}; check --url and its path"));
                    return Err(Ended(LOST));
                }
            }
            self.upgraded(step);
        }
        while let Some(frame) = wire::frame(&input[used..]).map_err(|text| self.malformed(text, step))? {
            used += frame.len;
            match frame.opcode {
                opcode::BINARY if matches!(self.role, Role::Echo { .. }) => self.on_echo(&frame, step),
                opcode::BINARY => self.on_frame(&frame, step)?,
                opcode::TEXT if self.json => self.on_text(&frame, step)?,
                opcode::PING => self.put(opcode::PONG, frame.payload),
                opcode::CLOSE => {
                    let code = frame.payload.first_chunk().map_or(1005, |bytes| u16::from_be_bytes(*bytes));
                    return Err(Ended(code));
                }
                _ => {}
            }
            if self.stage == Stage::Waiting {
                // It goes on elsewhere; what is left of this connection is for nobody.
                (self.link, self.since_ns) = (None, step.now);
                return Ok(used);
            }
        }
        Ok(used)
    }

    fn upgraded(&mut self, step: &mut Step<'_>) {
        if self.json {
            return self.authenticate(step);
        }
        if matches!(self.role, Role::Echo { .. }) {
            return self.live(step);
        }
        let positions = if self.resume.is_some() { self.check.positions() } else { Vec::new() };
        let hello = Hello {
            token: self.resume.is_none().then_some(&*self.token),
            resume: self.resume.as_deref(),
            positions,
            delta_window: step.shared.options.delta_window,
        };
        if let Some(link) = &mut self.link {
            link.put_binary(step.scratch, |out| client::hello(out, &hello));
        }
        self.stage = Stage::Authenticating;
    }

    fn live(&mut self, step: &mut Step<'_>) {
        self.stage = Stage::Live;
        self.allowed_at_ns = step.now;
        self.allowance = 0.0;
        step.shared.ready.fetch_add(1, Ordering::AcqRel);
        step.measured.connect_ns.saturating_record(step.now.saturating_sub(self.since_ns));
    }

    fn on_echo(&mut self, frame: &wire::Frame<'_>, step: &mut Step<'_>) {
        let Role::Echo { back, .. } = &mut self.role else { return };
        let Reading::Ours(stamp) = Stamp::read(frame.payload, step.shared.options.size) else {
            step.measured.tally.corrupt += 1;
            return;
        };
        if stamp.number <= *back {
            step.measured.tally.duplicated += 1;
            return;
        }
        step.measured.tally.missing += stamp.number - *back - 1;
        step.measured.tally.reliable += 1;
        *back = stamp.number;
        self.count(Some(stamp), false, frame.len, step);
    }

    #[inline]
    fn on_frame(&mut self, frame: &wire::Frame<'_>, step: &mut Step<'_>) -> Result<(), Ended> {
        let message = client::parse(frame.payload);
        match message.ok_or_else(|| self.malformed("not a frame of dialect D", step))? {
            FromServer::Reliable { kind, stream, place, prev, payload, .. } => {
                let stamp = self.check.reliable(stream.0, place, prev, payload);
                if kind.frame_type != types::EVENT {
                    self.on_battle(kind.frame_type, payload, step);
                }
                if let (Some(stamp), true) = (stamp, self.witness) {
                    step.shared.witnessed[stamp.publisher as usize].fetch_max(stamp.number, Ordering::AcqRel);
                }
                self.count(stamp, false, frame.len, step);
            }
            FromServer::Delta { stream, after, key, payload, .. } => {
                let stamp = self.check.delta(stream.0, after, key, payload.get(8..).unwrap_or_default());
                self.deltas_received += 1;
                self.count(stamp, true, frame.len, step);
            }
            FromServer::Advance { stream, place, prev } => self.check.advance(stream.0, place, prev),
            FromServer::Skipped { stream, count } => self.check.skipped(stream.0, count),
            FromServer::Ack { correlation } => self.on_answer(correlation, true, step.shared),
            FromServer::Error { code, correlation, text } => self.on_error(code, correlation, text, step),
            FromServer::Ping { payload } => self.reply(step.scratch, |out| client::pong(out, payload)),
            FromServer::Welcome { json } => self.on_welcome(json, step),
            FromServer::Joined { json, .. } => self.on_joined(json, step),
            FromServer::Position { stream, head, json } => match json::read::<StreamName<'_>>(&mut json.to_vec()) {
                Ok(name) => self.check.introduce(stream.0, name.stream, name.epoch, head),
                Err(error) => step.shared.fail(format!("unreadable POSITION: {error}")),
            },
            FromServer::Pong { .. } | FromServer::Left { .. } => {}
        }
        Ok(())
    }

    /// Counts a delivery; it belongs to the window of its sending for its time, to that of its arrival for the rate.
    #[inline]
    fn count(&self, stamp: Option<Stamp>, delta: bool, bytes: usize, step: &mut Step<'_>) {
        let (from, to) =
            (step.shared.measure_from.load(Ordering::Relaxed), step.shared.measure_to.load(Ordering::Relaxed));
        let stalled = matches!(self.role, Role::Stalled);
        if (from..to).contains(&step.now) {
            step.measured.deliveries += 1;
            step.measured.stalled_deliveries += u64::from(stalled);
            step.measured.bytes += bytes as u64;
        }
        let Some(stamp) = stamp.filter(|stamp| (from..to).contains(&stamp.sent_ns)) else { return };
        let histogram = match (stalled, delta) {
            (true, false) => &mut step.measured.stalled_ns,
            (true, true) => &mut step.measured.stalled_delta_ns,
            (false, false) => &mut step.measured.reliable_ns,
            (false, true) => &mut step.measured.delta_ns,
        };
        histogram.saturating_record(step.now.saturating_sub(stamp.sent_ns));
    }

    fn on_welcome(&mut self, json: &[u8], step: &mut Step<'_>) {
        let mut json = json.to_vec();
        let welcome = match json::read::<Welcome<'_>>(&mut json) {
            Ok(welcome) => welcome,
            Err(error) => return step.shared.fail(format!("unreadable WELCOME: {error}")),
        };
        let room = room_id(self.room);
        let resumed = self.resume.is_some();
        self.resume = Some(welcome.resume.to_owned()).filter(|token| !token.is_empty());
        if resumed {
            step.measured.resumed += 1;
            self.check.resumed(welcome.recovered);
            if welcome.recovered || welcome.rooms.contains(&&*room) {
                return self.live(step);
            }
        }
        self.stage = Stage::Joining;
        self.reply(step.scratch, |out| client::join(out, 1, &Join { room: &room, password: None }));
    }

    fn on_joined(&mut self, json: &[u8], step: &mut Step<'_>) {
        match json::read::<Joined<'_>>(&mut json.to_vec()) {
            Ok(joined) => {
                for stream in &joined.streams {
                    self.check.introduce(stream.handle, stream.stream, stream.epoch, stream.offset);
                    if stream.stream.starts_with("relay/") {
                        self.relay = StreamHandle(stream.handle);
                    }
                }
                let player = matches!(self.role, Role::Member | Role::Stalled);
                if self.stage != Stage::Joining {
                } else if player && step.shared.options.dialect == Dialect::Json {
                    (self.json, self.took_over, self.stage) = (true, true, Stage::Waiting);
                } else {
                    self.live(step);
                }
            }
            Err(error) => step.shared.fail(format!("unreadable JOINED: {error}")),
        }
    }

    fn on_battle(&mut self, frame_type: u8, payload: &[u8], step: &Step<'_>) {
        #[derive(Deserialize)]
        struct Timeline {
            n: u64,
        }
        #[derive(Deserialize)]
        struct End {
            events: u64,
        }
        let mut json = payload.to_vec();
        let read = match frame_type {
            types::BATTLE_TIMELINE => json::read::<Timeline>(&mut json).map(|event| self.check.battle_event(event.n)),
            types::BATTLE_END => json::read::<End>(&mut json).map(|end| self.check.battle_end(end.events)),
            _ => return,
        };
        if let Err(error) = read {
            step.shared.fail(format!("unreadable battle event: {error}"));
        }
    }

    fn on_answer(&mut self, correlation: u64, accepted: bool, shared: &Shared) {
        if let (Role::Publisher(publisher), true) = (&mut self.role, correlation != BATTLE_CORRELATION) {
            publisher.answered(correlation, accepted, shared);
        }
    }

    fn on_error(&mut self, code: u16, correlation: u64, text: &str, step: &mut Step<'_>) {
        let name = ErrorCode::ALL.get(usize::from(code).wrapping_sub(1)).map_or("unknown", |code| code.name());
        *step.shared.log().errors.entry(format!("{name}: {text}")).or_default() += 1;
        match self.stage {
            Stage::Authenticating if self.resume.take().is_some() => {
                self.check.resumed(false);
                self.upgraded(step);
            }
            Stage::Authenticating => step.shared.fail(format!(
                "the server rejected the token ({name}: {text}); pass --secret with the server's JWT_SECRET, or a valid --token"
            )),
            Stage::Joining => step.shared.fail(format!(
                "the server refused to join {} ({name}: {text}); publishers need a token with the role publisher",
                room_id(self.room)
            )),
            _ if correlation == BATTLE_CORRELATION => {
                step.shared.fail(format!("the server refused the battle ({name}: {text})"));
            }
            _ => self.on_answer(correlation, false, step.shared),
        }
    }

    fn acknowledge_deltas(&mut self, step: &mut Step<'_>) {
        if step.shared.options.delta_window.is_some() && self.deltas_received > self.deltas_acked {
            self.deltas_acked = self.deltas_received;
            let count = self.deltas_acked;
            if self.json {
                return self
                    .put(opcode::TEXT, format!("{{\"type\":\"system.delta_ack\",\"count\":{count}}}").as_bytes());
            }
            self.reply(step.scratch, |out| client::delta_ack(out, count));
        }
    }

    fn reply(&mut self, scratch: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
        if let Some(link) = &mut self.link {
            link.put_binary(scratch, write);
        }
    }

    fn put(&mut self, opcode: u8, payload: &[u8]) {
        if let Some(link) = &mut self.link {
            link.put_frame(opcode, payload.len(), |out| out.extend_from_slice(payload));
        }
    }

    fn flush(&mut self, step: &mut Step<'_>) {
        if let Some(Err(error)) = self.link.as_mut().map(Link::flush) {
            // A close frame may still be waiting to be read; the end of the stream follows it.
            *step.shared.log().errors.entry(format!("write: {error}")).or_default() += 1;
        }
    }

    fn malformed(&self, text: &str, step: &Step<'_>) -> Ended {
        *step.shared.log().errors.entry(format!("malformed: {text}")).or_default() += 1;
        step.shared.fail(format!("the server broke the protocol: {text}"));
        Ended(LOST)
    }

    fn lost(&self, text: &str, step: &Step<'_>) {
        *step.shared.log().errors.entry(format!("connection: {text}")).or_default() += 1;
    }

    /// The connection is over: come back, or be gone for good.
    fn ended(&mut self, code: u16, step: &mut Step<'_>) {
        self.link = None;
        self.check.disconnected(self.room, |publisher| step.shared.deltas[publisher].load(Ordering::Acquire));
        *step.shared.log().closes.entry(code).or_default() += 1;
        if self.stage == Stage::Live {
            step.shared.ready.fetch_sub(1, Ordering::AcqRel);
        }
        let returns = step.shared.options.resume && self.resume.is_some() && !self.is_sender();
        let retries = step.shared.phase() == Phase::Connect && self.is_connecting();
        self.stage = if returns || retries { Stage::Waiting } else { Stage::Gone };
        self.since_ns = step.now + RECONNECT_NS;
        match &mut self.role {
            Role::Publisher(publisher) => publisher.gone(step.shared),
            Role::Player(_) if self.stage == Stage::Gone => {
                step.shared.fail(format!("a player's connection was closed ({code}), and its room cannot go on"));
            }
            _ => {}
        }
        if self.witness && self.stage == Stage::Gone {
            let rooms = step.shared.options.rooms;
            step.shared
                .witnessed
                .iter()
                .skip(self.room)
                .step_by(rooms)
                .for_each(|w| w.store(u64::MAX, Ordering::Release));
        }
    }
}

/// When a room's rolls are due: rooms take turns within an interval.
fn schedule(room: usize, shared: &Shared) -> Schedule {
    let options = &shared.options;
    let interval_ns = if options.rate > 0.0 { 1e9 / options.rate } else { 0.0 };
    let begin = shared.measure_from.load(Ordering::Relaxed).saturating_sub(options.warmup.as_nanos() as u64);
    Schedule { from_ns: begin as f64 + interval_ns * room as f64 / options.rooms as f64, interval_ns }
}

/// The name of a run's room. Each run has rooms of its own: of one that came before, newest values would go on arriving.
#[must_use]
pub fn room_id(index: usize) -> String {
    format!("load-{}-{index}", std::process::id())
}
