//! A model client: what it is, wants and sends, in real bytes of dialect D. `reading` judges what it receives.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ringgate::frame::FrameKind;
use ringgate::id::{NodeId, StreamHandle};
use ringgate::message::Position;
use ringgate::protocol::frames::{PLAYER_KIND_MIN, client, json, types};
use ringgate::shard::driver::simulated::{Network, SocketId};
use ringgate::time::Monotonic;
use ringgate::websocket::{self, Decoder, Opcode, Role};
use serde_json::json;

use crate::oracle::Oracle;
use crate::rooms::Passing;

/// How a client behaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Temper {
    /// Reads everything at once.
    Fast,
    /// Reads a few bytes per step.
    Trickle(usize),
    /// Reads nothing for long stretches.
    Stall,
}

pub struct Client {
    pub number: u32,
    pub temper: Temper,
    pub publisher: bool,
    /// Speaks dialect A, else D.
    pub text: bool,
    pub token: Option<String>,
    /// Where it publishes, and where it is again in the end.
    pub room: String,
    /// Every room there is.
    pub rooms: BTreeMap<String, Seat>,
    pub window: Option<u32>,
    pub socket: Option<SocketId>,
    pub state: State,
    pub resume: Option<String>,
    pub session: String,
    pub positions: BTreeMap<String, (u64, u64)>,
    /// By handle, of this connection.
    pub streams: BTreeMap<u32, View>,
    /// Handles of streams that it left on this connection, and what SKIPPED told of them.
    pub left: BTreeSet<u32>,
    pub told_of_left: u64,
    /// LEAVEs of this connection.
    pub leaves: u64,
    pub relay: u32,
    /// Since when the session has been in a room without a break, as far as the client knows.
    pub since: BTreeMap<String, Monotonic>,
    /// Where it came into the streams of the rooms it is in: nothing up to there is for it.
    pub(super) entries: BTreeMap<String, (u64, u64)>,
    /// Positions from before it was out of a room.
    pub(super) former: BTreeMap<String, (u64, u64)>,
    /// What this connection asked and was not answered, by correlation: one answer each (D7).
    pub asked: BTreeMap<u64, Ask>,
    pub last_close: Option<u16>,
    pub closes: Vec<u16>,
    /// The number up to which asked its former connections.
    pub(super) asked_before: u64,
    /// The newest place of the session's own stream that it received, and up to where a former connection did.
    pub(super) session_place: u64,
    pub(super) acted_before: u64,
    /// Its position in that stream when it last connected.
    earlier: Option<(String, (u64, u64))>,
    /// The rooms of a resume that are not introduced yet.
    pub(super) resuming: BTreeSet<String>,
    /// Backends' events that are about to let it in or out, by room.
    pub(super) passing: BTreeMap<String, Passing>,
    /// Dialect A: rooms that an event of a replay took it out of, unless a later one lets it in.
    pub(super) doubtful: BTreeSet<String>,
    /// The command that the ADVANCE which came last says is refused; ERROR must follow.
    pub(super) refusal: Option<u64>,
    /// Errors that answer nothing it asked.
    pub refusals: Vec<String>,
    /// Answers `rate_limited`.
    pub limited: u64,
    pub recovered: u64,
    pub unrecovered: u64,
    /// It was kicked, so its session may be gone.
    pub may_be_lost: bool,
    /// Histories may be shorter than what it misses.
    pub short_history: bool,
    pub moves: u64,
    pub delivered: u64,
    pub deltas: u64,
    pub(super) acked_deltas: u64,
    pub stalled_until: Monotonic,
    /// Connections it has had.
    pub(super) life: u32,
    sequence: u32,
    versions: BTreeMap<u64, u32>,
    correlation: u64,
    pub(super) pings: u64,
    pub pongs: u64,
    pub ping_sent: u64,
    pub(super) head: Vec<u8>,
    pub(super) decoder: Decoder,
    pub(super) key: String,
    /// Whether this connection goes on where a former one stopped.
    pub(super) resumed: bool,
    /// Has read everything at once all its life, so that every close frame reaches it.
    pub steady: bool,
    /// A fast reader has caught up this long after its JOINED.
    pub catch_up: Duration,
    /// The newest WebSocket pong.
    pub(super) socket_pong: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    Idle,
    Greeting,
    /// Welcome, and not in its own room for the first time.
    Joining,
    Open,
}

/// Where it stands with a room.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Seat {
    Out,
    Joining,
    In,
    Leaving,
}

/// What was asked under a correlation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Ask {
    Join(String),
    Leave(String),
    /// A command for the rooms service, which answers by an event; in dialect D that is LEFT.
    Service {
        room: String,
        joins: bool,
        acknowledged: bool,
        answered: bool,
    },
    /// A frame for a stream that a home numbers.
    Publish,
    /// A command for the bus.
    Command,
}

/// A stream as this connection sees it.
#[derive(Clone, Debug)]
pub struct View {
    pub name: String,
    pub epoch: u64,
    /// The place of the last frame; not known where a resume goes on from the place of an entry it never heard of.
    pub place: Option<u64>,
    /// The head that its introduction named.
    pub head: u64,
    /// Newest version by key, on this connection.
    pub versions: BTreeMap<u64, u32>,
    /// Deltas that SKIPPED told of.
    pub told: u64,
    pub joined_at: Monotonic,
}

impl View {
    /// Whether it is a stream of this room.
    pub fn is_of(&self, room: &str) -> bool {
        self.name.split_once("/room:").is_some_and(|(_, name)| name == room)
    }
}

impl Client {
    pub fn new(number: u32, room: String, token: String, publisher: bool, temper: Temper, window: Option<u32>) -> Self {
        Self {
            number,
            temper,
            publisher,
            text: false,
            token: Some(token),
            rooms: BTreeMap::from([(room.clone(), Seat::Out)]),
            room,
            window,
            socket: None,
            state: State::Idle,
            resume: None,
            session: String::new(),
            positions: BTreeMap::new(),
            streams: BTreeMap::new(),
            left: BTreeSet::new(),
            told_of_left: 0,
            leaves: 0,
            relay: 0,
            since: BTreeMap::new(),
            entries: BTreeMap::new(),
            former: BTreeMap::new(),
            asked: BTreeMap::new(),
            asked_before: 0,
            session_place: 0,
            acted_before: 0,
            earlier: None,
            resuming: BTreeSet::new(),
            passing: BTreeMap::new(),
            doubtful: BTreeSet::new(),
            refusal: None,
            last_close: None,
            closes: Vec::new(),
            refusals: Vec::new(),
            limited: 0,
            recovered: 0,
            unrecovered: 0,
            may_be_lost: false,
            short_history: false,
            moves: 0,
            delivered: 0,
            deltas: 0,
            acked_deltas: 0,
            stalled_until: Monotonic::ZERO,
            life: 0,
            sequence: 0,
            versions: BTreeMap::new(),
            correlation: 0,
            pings: 0,
            pongs: 0,
            ping_sent: 0,
            head: Vec::new(),
            decoder: Decoder::new(Role::Client, 1 << 20),
            key: String::new(),
            resumed: false,
            steady: temper == Temper::Fast,
            catch_up: Duration::from_secs(1),
            socket_pong: 0,
        }
    }

    /// Connects and says HELLO in one piece, resuming if there is something to resume.
    pub fn connect(&mut self, network: &Network, node: NodeId) {
        let Some(socket) = network.connect(node) else { return };
        self.key = websocket::client_key([self.number as u8; 16]);
        self.socket = Some(socket);
        self.state = State::Greeting;
        self.life += 1;
        self.forget_connection();
        let path = if self.text { "/ws" } else { "/ws/frames" };
        network.send(socket, &websocket::client_request("sim", path, &self.key, &[], None));
        self.hello(network);
    }

    /// HELLO, also again on the connection that refused one.
    pub fn hello(&mut self, network: &Network) {
        if self.text {
            return self.authenticate(network);
        }
        let positions = self.positions.iter().map(|(stream, (epoch, place))| Position {
            stream: stream.as_str().into(),
            epoch: *epoch,
            place: *place,
        });
        let hello = json::Hello {
            token: self.token.as_deref(),
            resume: self.resume.as_deref(),
            positions: positions.collect(),
            delta_window: self.window,
        };
        let mut payload = Vec::new();
        client::hello(&mut payload, &hello);
        self.send(network, &payload);
    }

    fn forget_connection(&mut self) {
        self.streams.clear();
        self.left.clear();
        self.asked.clear();
        (self.asked_before, self.refusal) = (self.correlation, None);
        self.acted_before = self.session_place;
        self.resuming.clear();
        self.passing.clear();
        self.doubtful.clear();
        (self.told_of_left, self.leaves) = (0, 0);
        self.relay = 0;
        self.head.clear();
        self.decoder = Decoder::new(Role::Client, 1 << 20);
        (self.deltas, self.acked_deltas, self.pings, self.pongs, self.ping_sent) = (0, 0, 0, 0, 0);
        self.socket_pong = 0;
    }

    /// Goes on from where it was when it connected last, as if it had lost what it received of its session's stream since.
    pub fn forget_some(&mut self) {
        let own = self.positions.iter().find(|(name, _)| name.contains("/session:"));
        let own = own.map(|(name, position)| (name.clone(), *position));
        if let Some((name, position)) = self.earlier.take().filter(|(name, _)| self.positions.contains_key(name)) {
            self.positions.insert(name, position);
        }
        self.earlier = own;
    }

    /// Says that it stands where it stood in streams of its rooms before it was out of them, or at their beginning: what
    /// was said before it came in is not for it all the same.
    pub fn claim_more(&mut self, network: &Network) {
        for (name, position) in self.positions.iter_mut().filter(|(name, _)| name.contains("/room:")) {
            match (network.below(3), self.former.get(name)) {
                (0, Some(former)) if former.0 == position.0 => *position = *former,
                (1, _) => position.1 = 0,
                _ => {}
            }
        }
    }

    pub fn send(&self, network: &Network, payload: &[u8]) {
        let mut out = Vec::new();
        let opcode = if self.text { Opcode::Text } else { Opcode::Binary };
        websocket::put_masked_frame(&mut out, opcode, [1, 2, 3, self.number as u8], payload);
        if let Some(socket) = self.socket {
            network.send(socket, &out);
        }
    }

    /// A number for something to be answered.
    pub(super) fn ask(&mut self, ask: Ask) -> u64 {
        self.correlation += 1;
        self.asked.insert(self.correlation, ask);
        self.correlation
    }

    /// A number and a mark for a reliable frame; the oracle remembers what must come of it.
    fn mark(&mut self, oracle: &mut Oracle) -> (u64, [u8; 8]) {
        self.sequence += 1;
        let correlation = self.ask(Ask::Publish);
        oracle.published((self.number, self.sequence), self.life, correlation);
        let mut mark = [0; 8];
        mark[..4].copy_from_slice(&self.number.to_le_bytes());
        mark[4..].copy_from_slice(&self.sequence.to_le_bytes());
        (correlation, mark)
    }

    /// Publishes a reliable event.
    pub fn publish_event(&mut self, network: &Network, oracle: &mut Oracle, size: usize) {
        let (correlation, mark) = self.mark(oracle);
        let mut body = mark.to_vec();
        body.resize(8 + size, 7);
        let kind = FrameKind { frame_type: types::EVENT, kind: 1 };
        let mut payload = Vec::new();
        client::publish(&mut payload, kind, false, StreamHandle(self.relay), correlation, &body);
        self.send(network, &payload);
    }

    /// Publishes an event that forgets one of this publisher's keys.
    pub fn publish_forget(&mut self, network: &Network, oracle: &mut Oracle, key: u64) {
        let key = u64::from(self.number) << 32 | key;
        let version = self.versions.get(&key).copied().unwrap_or(0);
        let (correlation, mark) = self.mark(oracle);
        oracle.forgotten(&self.room, key);
        // Dialect A does not show the key in front.
        let mut body = [key.to_le_bytes(), key.to_le_bytes()].concat();
        body.extend_from_slice(&version.to_le_bytes());
        body.extend_from_slice(&mark);
        let kind = FrameKind { frame_type: types::EVENT, kind: 2 };
        let mut payload = Vec::new();
        client::publish(&mut payload, kind, true, StreamHandle(self.relay), correlation, &body);
        self.send(network, &payload);
    }

    /// Publishes the next value of one of this publisher's keys.
    pub fn publish_delta(&mut self, network: &Network, oracle: &mut Oracle, key: u64, size: usize) {
        let key = u64::from(self.number) << 32 | key;
        let version = self.versions.entry(key).or_default();
        *version += 1;
        oracle.delta(&self.room, key, *version);
        let mut body = key.to_le_bytes().to_vec();
        body.extend_from_slice(&version.to_le_bytes());
        body.resize(12 + size, 9);
        let kind = FrameKind { frame_type: types::WORLD_DELTA, kind: 0 };
        let mut payload = Vec::new();
        client::publish(&mut payload, kind, false, StreamHandle(self.relay), 0, &body);
        self.send(network, &payload);
    }

    /// Sends a player's command to the publishers of a room it is in.
    pub fn command_publishers(&mut self, network: &Network, oracle: &mut Oracle, room: &str) {
        let Some(handle) = self.relay_of(room).filter(|_| !self.text) else { return };
        let (correlation, mark) = self.mark(oracle);
        oracle.sent_to_publishers((self.number, self.sequence), room, network.now());
        let mut payload = Vec::new();
        client::command(&mut payload, PLAYER_KIND_MIN, handle, correlation, &mark);
        self.send(network, &payload);
    }

    /// Sends a command for the bus that concerns a room it is in (`rooms.command.chat`).
    pub fn command_bus(&mut self, network: &Network, oracle: &mut Oracle, room: &str) {
        if self.text {
            let correlation = self.ask(Ask::Command);
            oracle.commanded(self.number, correlation);
            let id = correlation.to_string();
            let chat = json!({"type": "rooms.command.chat", "room_id": room, "message": "hi", "correlation_id": id});
            return self.write(network, &chat);
        }
        let Some(handle) = self.relay_of(room) else { return };
        let correlation = self.ask(Ask::Command);
        oracle.commanded(self.number, correlation);
        let mut payload = Vec::new();
        client::command(&mut payload, CHAT, handle, correlation, b"{\"message\":\"hi\"}");
        self.send(network, &payload);
    }

    fn relay_of(&self, room: &str) -> Option<StreamHandle> {
        let mut views = self.streams.iter();
        views.find(|(_, view)| view.is_of(room) && view.name.starts_with("relay/")).map(|(h, _)| StreamHandle(*h))
    }

    /// A WebSocket ping and a PING frame, both to be answered.
    pub fn ping(&mut self, network: &Network) {
        self.pings += 1;
        self.ping_sent += 1;
        let mut payload = Vec::new();
        client::ping(&mut payload, &self.pings.to_le_bytes());
        match self.text {
            true => self.write(network, &json!({"type": "system.heartbeat"})),
            false => self.send(network, &payload),
        }
        let mut ping = Vec::new();
        websocket::put_masked_frame(&mut ping, Opcode::Ping, [9; 4], &self.pings.to_le_bytes());
        if let Some(socket) = self.socket {
            network.send(socket, &ping);
        }
    }

    pub fn join(&mut self, network: &Network, oracle: &mut Oracle, room: &str) {
        if self.text {
            return self.ask_service(network, room, true);
        }
        if self.publisher {
            oracle.opened(room);
        }
        let correlation = self.ask(Ask::Join(room.to_owned()));
        let mut payload = Vec::new();
        client::join(&mut payload, correlation, &json::Join { room, password: None });
        self.send(network, &payload);
        self.rooms.insert(room.to_owned(), Seat::Joining);
        self.moves += 1;
    }

    pub fn leave(&mut self, network: &Network, room: &str) {
        if self.text {
            return self.ask_service(network, room, false);
        }
        let correlation = self.ask(Ask::Leave(room.to_owned()));
        let mut payload = Vec::new();
        client::leave(&mut payload, correlation, room);
        self.send(network, &payload);
        self.rooms.insert(room.to_owned(), Seat::Leaving);
        self.moves += 1;
    }

    /// Joins the room if it is out of it, leaves it if it is in; a publisher never leaves its own.
    pub fn move_in_or_out(&mut self, network: &Network, oracle: &mut Oracle, room: &str) {
        match self.rooms.get(room) {
            Some(Seat::Out) => self.join(network, oracle, room),
            Some(Seat::In) if !(self.publisher && room == self.room) => self.leave(network, room),
            _ => {}
        }
    }

    /// Asks the rooms service to be let out of a room it is in.
    pub fn leave_by_service(&mut self, network: &Network, room: &str) {
        if self.text {
            return self.ask_service(network, room, false);
        }
        let mut views = self.streams.iter();
        let Some(handle) = views.find(|(_, view)| view.is_of(room)).map(|(handle, _)| StreamHandle(*handle)) else {
            return;
        };
        let ask = Ask::Service { room: room.to_owned(), joins: false, acknowledged: false, answered: false };
        let correlation = self.ask(ask);
        let mut payload = Vec::new();
        client::command(&mut payload, LEAVE_ROOM, handle, correlation, b"{}");
        self.send(network, &payload);
        self.rooms.insert(room.to_owned(), Seat::Leaving);
        self.moves += 1;
    }

    /// The rooms it is in.
    pub fn seats(&self) -> impl Iterator<Item = &String> {
        self.rooms.iter().filter(|(_, seat)| **seat == Seat::In).map(|(room, _)| room)
    }

    pub fn drop_socket(&mut self) {
        self.socket = None;
        self.state = State::Idle;
        self.rooms.values_mut().for_each(|seat| *seat = Seat::Out);
    }
}

/// D's kind of `rooms.command.chat`.
const CHAT: u16 = 7;
/// D's kind of `games.command.leave_room`.
const LEAVE_ROOM: u16 = 6;
