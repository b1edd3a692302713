//! A model client: speaks dialect D in real bytes and holds what it receives against D1, D2, D3, D6, D7.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use ringgate::frame::FrameKind;
use ringgate::id::StreamHandle;
use ringgate::message::Position;
use ringgate::protocol::frames::client::{self, FromServer};
use ringgate::protocol::frames::{json, types};
use ringgate::shard::driver::simulated::{Network, Sight, SocketId};
use ringgate::time::Monotonic;
use ringgate::websocket::{self, Decoder, Message, Opcode, Role};

use crate::oracle::Oracle;

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
    pub token: String,
    pub room: String,
    pub window: Option<u32>,
    pub socket: Option<SocketId>,
    pub state: State,
    pub resume: Option<String>,
    pub positions: BTreeMap<String, (u64, u64)>,
    /// By handle, of this connection.
    pub streams: HashMap<u32, View>,
    pub relay: u32,
    pub last_close: Option<u16>,
    pub closes: Vec<u16>,
    pub recovered: u64,
    pub unrecovered: u64,
    pub delivered: u64,
    pub deltas: u64,
    acked_deltas: u64,
    pub stalled_until: Monotonic,
    sequence: u32,
    versions: HashMap<u64, u32>,
    correlation: u64,
    pings: u64,
    pub pongs: u64,
    pub ping_sent: u64,
    head: Vec<u8>,
    decoder: Decoder,
    key: String,
    joined_at: Monotonic,
    /// Has read everything at once all its life, so that every close frame reaches it.
    pub steady: bool,
    /// A fast reader has caught up this long after its JOINED.
    pub catch_up: Duration,
    /// The newest WebSocket pong.
    socket_pong: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    Idle,
    Upgrading,
    Greeting,
    Joining,
    Open,
}

/// A stream as this connection sees it.
#[derive(Clone, Default, Debug)]
pub struct View {
    pub name: String,
    pub place: u64,
    /// Newest version by key, on this connection.
    versions: HashMap<u64, u32>,
    /// Deltas that SKIPPED told of.
    pub told: u64,
}

impl Client {
    pub fn new(number: u32, room: String, token: String, publisher: bool, temper: Temper, window: Option<u32>) -> Self {
        Self {
            number,
            temper,
            publisher,
            token,
            room,
            window,
            socket: None,
            state: State::Idle,
            resume: None,
            positions: BTreeMap::new(),
            streams: HashMap::new(),
            relay: 0,
            last_close: None,
            closes: Vec::new(),
            recovered: 0,
            unrecovered: 0,
            delivered: 0,
            deltas: 0,
            acked_deltas: 0,
            stalled_until: Monotonic::ZERO,
            sequence: 0,
            versions: HashMap::new(),
            correlation: 0,
            pings: 0,
            pongs: 0,
            ping_sent: 0,
            head: Vec::new(),
            decoder: Decoder::new(Role::Client, 1 << 20),
            key: String::new(),
            joined_at: Monotonic::ZERO,
            steady: temper == Temper::Fast,
            catch_up: Duration::from_secs(1),
            socket_pong: 0,
        }
    }

    /// Connects and says HELLO in one piece, resuming if there is something to resume.
    pub fn connect(&mut self, network: &Network, node: ringgate::id::NodeId) {
        let Some(socket) = network.connect(node) else { return };
        self.key = websocket::client_key([self.number as u8; 16]);
        self.socket = Some(socket);
        self.state = State::Upgrading;
        self.streams.clear();
        self.relay = 0;
        self.head.clear();
        self.decoder = Decoder::new(Role::Client, 1 << 20);
        (self.deltas, self.acked_deltas, self.pings, self.pongs, self.ping_sent) = (0, 0, 0, 0, 0);
        self.socket_pong = 0;
        network.send(socket, &websocket::client_request("sim", "/ws/frames", &self.key, &[], None));
        let positions = self.positions.iter().map(|(stream, (epoch, place))| Position {
            stream: stream.as_str().into(),
            epoch: *epoch,
            place: *place,
        });
        let hello = json::Hello {
            token: Some(&self.token),
            resume: self.resume.as_deref(),
            positions: positions.collect(),
            delta_window: self.window,
        };
        let mut payload = Vec::new();
        client::hello(&mut payload, &hello);
        self.send(network, &payload);
        self.state = State::Greeting;
    }

    pub fn send(&self, network: &Network, payload: &[u8]) {
        let mut out = Vec::new();
        websocket::put_masked_frame(&mut out, Opcode::Binary, [1, 2, 3, self.number as u8], payload);
        if let Some(socket) = self.socket {
            network.send(socket, &out);
        }
    }

    /// Publishes a reliable event; the oracle remembers what must come of it.
    pub fn publish_event(&mut self, network: &Network, oracle: &mut Oracle, size: usize) {
        self.sequence += 1;
        self.correlation += 1;
        let mut body = Vec::new();
        body.extend_from_slice(&self.number.to_le_bytes());
        body.extend_from_slice(&self.sequence.to_le_bytes());
        body.resize(8 + size, 7);
        oracle.published(self.number, self.sequence, self.correlation, &self.room);
        let kind = FrameKind { frame_type: types::EVENT, kind: 1 };
        let mut payload = Vec::new();
        client::publish(&mut payload, kind, false, StreamHandle(self.relay), self.correlation, &body);
        self.send(network, &payload);
    }

    /// Publishes an event that forgets one of this publisher's keys.
    pub fn publish_forget(&mut self, network: &Network, oracle: &mut Oracle, key: u64) {
        let key = u64::from(self.number) << 32 | key;
        let version = self.versions.get(&key).copied().unwrap_or(0);
        self.sequence += 1;
        self.correlation += 1;
        oracle.published(self.number, self.sequence, self.correlation, &self.room);
        oracle.forgotten(&self.room, key);
        let mut body = key.to_le_bytes().to_vec();
        for number in [version, self.number, self.sequence] {
            body.extend_from_slice(&number.to_le_bytes());
        }
        let kind = FrameKind { frame_type: types::EVENT, kind: 2 };
        let mut payload = Vec::new();
        client::publish(&mut payload, kind, true, StreamHandle(self.relay), self.correlation, &body);
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

    /// A WebSocket ping and a PING frame, both to be answered.
    pub fn ping(&mut self, network: &Network) {
        self.pings += 1;
        self.ping_sent += 1;
        let mut payload = Vec::new();
        client::ping(&mut payload, &self.pings.to_le_bytes());
        self.send(network, &payload);
        let mut ping = Vec::new();
        websocket::put_masked_frame(&mut ping, Opcode::Ping, [9; 4], &self.pings.to_le_bytes());
        if let Some(socket) = self.socket {
            network.send(socket, &ping);
        }
    }

    /// In peace: the newest ping of this connection has long been answered, however slow it was before (D7).
    pub fn answered(&self) -> Result<(), String> {
        if self.state == State::Open && self.socket_pong != self.pings {
            let (who, pings, pong) = (self.number, self.pings, self.socket_pong);
            return Err(format!("D7: client {who}: the newest of {pings} pings was never answered, {pong} was"));
        }
        Ok(())
    }

    pub fn drop_socket(&mut self) {
        self.socket = None;
        self.state = State::Idle;
    }

    /// Reads as the temper allows and judges every frame.
    pub fn read(&mut self, network: &Network, oracle: &mut Oracle, all: bool) -> Result<(), String> {
        let Some(socket) = self.socket else { return Ok(()) };
        let most = match self.temper {
            _ if all => usize::MAX,
            Temper::Fast => usize::MAX,
            Temper::Trickle(bytes) => bytes,
            Temper::Stall if network.now() < self.stalled_until => 0,
            Temper::Stall => 4096,
        };
        let mut bytes = Vec::new();
        let sight = network.read(socket, most, &mut bytes);
        if self.state == State::Greeting && !self.upgraded() {
            self.head.extend_from_slice(&bytes);
            match websocket::parse_response(&self.head, &self.key) {
                Ok(Some(accepted)) => {
                    bytes = self.head.split_off(accepted.consumed);
                    self.head = b"upgraded".to_vec();
                }
                Ok(None) => bytes.clear(),
                Err(error) => return Err(format!("client {}: handshake refused: {error}", self.number)),
            }
        }
        self.decode(network, oracle, &mut bytes)?;
        if sight != Sight::Open {
            if sight == Sight::Gone && self.steady && self.last_close.is_none() {
                return Err(format!("D6: client {} was cut off without a word", self.number));
            }
            if sight == Sight::Ended && self.last_close.is_none() && self.state != State::Idle {
                return Err(format!("D6: client {} was disconnected without a word", self.number));
            }
            self.drop_socket();
        }
        Ok(())
    }

    fn upgraded(&self) -> bool {
        self.head == b"upgraded"
    }

    fn decode(&mut self, network: &Network, oracle: &mut Oracle, bytes: &mut [u8]) -> Result<(), String> {
        let mut decoder = std::mem::replace(&mut self.decoder, Decoder::new(Role::Client, 1 << 20));
        let mut at = 0;
        loop {
            match decoder.next(bytes, &mut at) {
                Ok(None) => break,
                Ok(Some(Message::Binary(payload))) => self.frame(network, oracle, payload)?,
                Ok(Some(Message::Close(code))) => {
                    let code = code.map_or(1005, |(code, _)| code);
                    self.last_close = Some(code);
                    self.closes.push(code);
                    if code == 4408 && self.socket.is_some_and(|socket| !network.was_slow(socket)) {
                        return Err(format!("D4: client {} was closed 4408 though it was never slow", self.number));
                    }
                }
                Ok(Some(Message::Pong(payload))) => {
                    self.socket_pong = payload.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
                }
                Ok(Some(_)) => {}
                Err(error) => return Err(format!("D1: client {}: broken framing: {error:?}", self.number)),
            }
        }
        self.decoder = decoder;
        if self.window.is_some() && self.deltas > self.acked_deltas {
            self.acked_deltas = self.deltas;
            let mut payload = Vec::new();
            client::delta_ack(&mut payload, self.deltas);
            self.send(network, &payload);
        }
        Ok(())
    }

    fn frame(&mut self, network: &Network, oracle: &mut Oracle, payload: &[u8]) -> Result<(), String> {
        let who = self.number;
        match client::parse(payload).ok_or_else(|| format!("client {who}: not a frame"))? {
            FromServer::Welcome { json } => self.welcome(network, json),
            FromServer::Joined { json, .. } => {
                self.joined_at = network.now();
                self.joined(json)
            }
            FromServer::Position { stream, head, json } => {
                let mut json = json.to_vec();
                let name: json::StreamName<'_> = json::read(&mut json).map_err(|_| "POSITION: bad JSON")?;
                self.introduce(stream.0, name.stream, name.epoch, head);
                Ok(())
            }
            FromServer::Delta { stream, after, payload, .. } => self.delta(network, oracle, stream.0, after, payload),
            FromServer::Reliable { stream, place, prev, payload, forgets, .. } => {
                let body = if let Some(key) = forgets { self.forget(stream.0, key, payload) } else { payload };
                self.reliable(network, oracle, stream.0, place, prev, body)
            }
            FromServer::Skipped { stream, count } => {
                let view = self.streams.get_mut(&stream.0).ok_or("D6: SKIPPED of a stream that was not introduced")?;
                view.told += count;
                Ok(())
            }
            FromServer::Ack { correlation } => {
                oracle.acknowledged(who, correlation);
                Ok(())
            }
            FromServer::Pong { payload } => {
                let number = u64::from_le_bytes(payload.try_into().map_err(|_| "D7: PONG with another payload")?);
                if number != self.pongs + 1 {
                    return Err(format!("D7: client {who} got pong {number} after {}", self.pongs));
                }
                self.pongs = number;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn welcome(&mut self, network: &Network, json: &[u8]) -> Result<(), String> {
        let mut json = json.to_vec();
        let welcome: json::Welcome<'_> = json::read(&mut json).map_err(|_| "WELCOME: bad JSON")?;
        if self.resume.is_some() {
            if welcome.recovered { self.recovered += 1 } else { self.unrecovered += 1 }
        }
        if !welcome.recovered {
            self.positions.clear();
        }
        self.last_close = None;
        self.resume = Some(welcome.resume.to_owned());
        if welcome.rooms.contains(&self.room.as_str()) {
            self.state = State::Joining;
        } else {
            self.join(network);
        }
        Ok(())
    }

    pub fn join(&mut self, network: &Network) {
        let mut payload = Vec::new();
        client::join(&mut payload, 1, &json::Join { room: &self.room, password: None });
        self.send(network, &payload);
        self.state = State::Joining;
    }

    fn joined(&mut self, json: &[u8]) -> Result<(), String> {
        let mut json = json.to_vec();
        let joined: json::Joined<'_> = json::read(&mut json).map_err(|_| "JOINED: bad JSON")?;
        for stream in &joined.streams {
            if stream.stream.starts_with("relay/") {
                self.relay = stream.handle;
            }
            self.introduce(stream.handle, stream.stream, stream.epoch, stream.offset);
        }
        self.state = State::Open;
        Ok(())
    }

    /// A client keeps its own position where it has one: that is what the replay continues.
    fn introduce(&mut self, handle: u32, name: &str, epoch: u64, head: u64) {
        let (_, place) = *self.positions.entry(name.to_owned()).or_insert((epoch, head));
        self.streams.entry(handle).or_insert_with(|| View { name: name.to_owned(), place, ..View::default() });
    }

    fn reliable(
        &mut self,
        network: &Network,
        oracle: &mut Oracle,
        handle: u32,
        place: u64,
        prev: u64,
        payload: &[u8],
    ) -> Result<(), String> {
        let who = self.number;
        let view = self.streams.get_mut(&handle).ok_or("D1: a frame before its stream's introduction")?;
        if place <= view.place {
            return Err(format!("D1: client {who}: place {place} after {} in {}", view.place, view.name));
        }
        if prev != view.place {
            return Err(format!("D2: client {who}: {} continues {prev}, the client has {}", view.name, view.place));
        }
        view.place = place;
        self.positions.entry(view.name.clone()).or_insert((0, 0)).1 = place;
        self.delivered += 1;
        let name = view.name.clone();
        oracle.seen(network.now(), &name, place, payload)
    }

    /// An event that forgets a key: no value that was published before it may follow (DELIVERY §3).
    fn forget<'a>(&mut self, handle: u32, key: u64, payload: &'a [u8]) -> &'a [u8] {
        let (head, rest) = payload.split_at(12);
        let version = u32::from_le_bytes(head[8..12].try_into().expect("four bytes"));
        if let Some(view) = self.streams.get_mut(&handle) {
            let newest = view.versions.entry(key).or_default();
            *newest = (*newest).max(version);
        }
        rest
    }

    fn delta(
        &mut self,
        network: &Network,
        oracle: &mut Oracle,
        handle: u32,
        follows: u64,
        payload: &[u8],
    ) -> Result<(), String> {
        let who = self.number;
        let view = self.streams.get_mut(&handle).ok_or("D1: a delta before its stream's introduction")?;
        if follows > view.place {
            return Err(format!(
                "D1: client {who}: a delta behind {follows} overtook it; the client has {}",
                view.place
            ));
        }
        let (key, rest) = payload.split_first_chunk().ok_or("a delta without key")?;
        let (key, version) =
            (u64::from_le_bytes(*key), rest.first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes)));
        match view.versions.insert(key, version) {
            Some(older) if version <= older => {
                return Err(format!("D3: client {who}: key {key:x}: version {version} after {older}"));
            }
            Some(older) => {
                let gap = u64::from(version - older - 1);
                let slow = self.window.is_some() || self.socket.is_none_or(|socket| network.was_slow(socket));
                // While it caught up, the home kept the newest values only (DELIVERY §4).
                let caught_up = network.now().since(self.joined_at) > self.catch_up;
                if gap > 0 && !slow && caught_up {
                    return Err(format!("D2: client {who} was never slow and misses {gap} values of key {key:x}"));
                }
            }
            None => {}
        }
        self.deltas += 1;
        if self.window.is_some_and(|window| self.deltas - self.acked_deltas > u64::from(window)) {
            let flight = self.deltas - self.acked_deltas;
            return Err(format!("D3: client {who} has {flight} unacknowledged deltas, its window is smaller"));
        }
        self.delivered += 1;
        oracle.key_sent(who, key)
    }

    /// At the end, with everything read and every key published once more: what must be true of this connection.
    pub fn settled(&self, oracle: &Oracle) -> Result<(), String> {
        let who = self.number;
        if self.state != State::Open {
            return Err(format!("D7: client {who} is {:?} at the end", self.state));
        }
        if self.pongs != self.ping_sent {
            return Err(format!("D7: client {who} sent {} pings and got {} pongs", self.ping_sent, self.pongs));
        }
        if self.socket_pong != self.pings {
            return Err(format!(
                "D7: client {who}: the newest of {} pings is not answered, {}",
                self.pings, self.socket_pong
            ));
        }
        for view in self.streams.values() {
            let head = oracle.head(&view.name);
            if view.name.starts_with("relay/") && view.place != head {
                return Err(format!("D2: client {who} ends at {} of {head} in {}", view.place, view.name));
            }
            if view.name.starts_with("relay/") {
                for (key, version) in oracle.newest(&self.room) {
                    if view.versions.get(&key) != Some(&version) {
                        let seen = view.versions.get(&key);
                        return Err(format!("D3: client {who}: key {key:x} ends at {seen:?}, published {version}"));
                    }
                }
            }
        }
        Ok(())
    }
}
