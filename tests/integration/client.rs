//! A tungstenite client of dialect D. It knows the law of its streams: every reliable frame names the one before it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpStream;
use std::sync::Arc;

use ringgate::frame::FrameKind;
use ringgate::id::StreamHandle;
use ringgate::message::{ErrorCode, Position};
use ringgate::protocol::frames::json::{self, Hello, Join};
use ringgate::protocol::frames::{Header, client, types};
use tungstenite::protocol::WebSocketConfig;
use tungstenite::{Message, WebSocket};

use crate::node::{DEADLINE, Gateway, token};

/// The kind that starts a battle.
pub const BATTLE: u16 = 10;
/// An event of no kind.
pub const EVENT: FrameKind = FrameKind { frame_type: types::EVENT, kind: 0 };
/// A delta of no kind.
pub const DELTA: FrameKind = FrameKind { frame_type: types::WORLD_DELTA, kind: 0 };

/// A frame of the server.
#[derive(Debug)]
pub struct Frame {
    pub header: Header,
    pub payload: Vec<u8>,
}

/// A client, upgraded.
pub struct Client {
    socket: WebSocket<TcpStream>,
    /// The resume token.
    pub resume: String,
    pub recovered: bool,
    pub reason: Option<String>,
    pub last_close: Option<u16>,
    /// By handle: name, epoch, place. A resumed stream of which the client knew nothing goes on from its entry, so its
    /// place is not known before its first frame.
    streams: BTreeMap<u32, (String, u64, Option<u64>)>,
    /// Streams that were introduced and had no frame: a room that an event let the session into starts behind that
    /// event's place, which is not one of its own.
    fresh: BTreeSet<u32>,
    /// Where the session stopped on a former connection.
    before: Vec<Position>,
    /// Reliable frames received.
    pub reliable: u64,
}

impl Client {
    /// Connects and upgrades.
    pub fn open(gateway: &Gateway) -> Self {
        let stream = TcpStream::connect(gateway.address).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.set_write_timeout(Some(DEADLINE)).unwrap();
        stream.set_nodelay(true).unwrap();
        let url = format!("ws://{}/ws/frames", gateway.address);
        let config = WebSocketConfig::default().max_message_size(Some(16 << 20));
        let (socket, _) = tungstenite::client::client_with_config(url, stream, Some(config)).unwrap();
        Self {
            socket,
            resume: String::new(),
            recovered: false,
            reason: None,
            last_close: None,
            streams: BTreeMap::new(),
            fresh: BTreeSet::new(),
            before: Vec::new(),
            reliable: 0,
        }
    }

    pub fn player(gateway: &Gateway, user: &str) -> Self {
        let mut client = Self::open(gateway);
        client.hello(&Hello { token: Some(&token(user, &[])), ..Hello::default() });
        client
    }

    pub fn publisher(gateway: &Gateway, user: &str) -> Self {
        let mut client = Self::open(gateway);
        client.hello(&Hello { token: Some(&token(user, &["publisher"])), ..Hello::default() });
        client
    }

    /// A new connection of a session that stopped at `positions`.
    pub fn resumed(gateway: &Gateway, resume: &str, positions: Vec<Position>) -> Self {
        let mut client = Self::open(gateway);
        client.before = positions.clone();
        client.hello(&Hello { resume: Some(resume), positions, ..Hello::default() });
        client
    }

    /// HELLO, and WELCOME read.
    pub fn hello(&mut self, hello: &Hello<'_>) {
        self.send(|out| client::hello(out, hello));
        let mut frame = self.read();
        assert_eq!(frame.header.frame_type, types::WELCOME, "{frame:?}");
        let welcome: json::Welcome<'_> = json::read(&mut frame.payload).unwrap();
        self.resume = welcome.resume.to_owned();
        self.recovered = welcome.recovered;
        self.reason = welcome.reason.map(str::to_owned);
        self.last_close = welcome.last_close.map(|close| close.code);
    }

    /// JOIN, and JOINED read: the relay stream, and what follows it for publishers.
    pub fn join(&mut self, room: &str) -> Vec<StreamHandle> {
        self.send(|out| client::join(out, 7, &Join { room, password: None }));
        self.joined()
    }

    /// The next JOINED.
    pub fn joined(&mut self) -> Vec<StreamHandle> {
        let mut frame = self.expect(types::JOINED);
        let joined: json::Joined<'_> = json::read(&mut frame.payload).unwrap();
        joined.streams.iter().map(|stream| StreamHandle(stream.handle)).collect()
    }

    pub fn command(&mut self, kind: u16, stream: StreamHandle, correlation: u64, payload: &[u8]) {
        self.send(|out| client::command(out, kind, stream, correlation, payload));
    }

    pub fn publish(&mut self, kind: FrameKind, stream: StreamHandle, correlation: u64, payload: &[u8]) {
        self.send(|out| client::publish(out, kind, false, stream, correlation, payload));
    }

    pub fn send(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let mut frame = Vec::new();
        write(&mut frame);
        self.send_message(Message::binary(frame));
    }

    pub fn send_message(&mut self, message: Message) {
        self.socket.send(message).unwrap();
    }

    /// The socket below, for what tungstenite does not do.
    pub fn stream(&mut self) -> &mut TcpStream {
        self.socket.get_mut()
    }

    /// The next frame, checked against its stream.
    pub fn read(&mut self) -> Frame {
        self.next().unwrap_or_else(|close| panic!("closed: {close:?}"))
    }

    /// The next frame, or code and reason of the close.
    pub fn next(&mut self) -> Result<Frame, (u16, String)> {
        loop {
            match self.socket.read().unwrap() {
                Message::Binary(bytes) => {
                    let (header, payload) = Header::read(&bytes).unwrap();
                    let frame = Frame { header, payload: payload.to_vec() };
                    self.check(&frame);
                    return Ok(frame);
                }
                Message::Close(close) => {
                    let close = close.unwrap();
                    return Err((close.code.into(), close.reason.to_string()));
                }
                Message::Ping(_) => self.socket.flush().unwrap(),
                other => panic!("{other:?}"),
            }
        }
    }

    /// Reads on to the first frame of this type.
    pub fn expect(&mut self, frame_type: u8) -> Frame {
        loop {
            let frame = self.read();
            if frame.header.frame_type == frame_type {
                return frame;
            }
            assert_ne!(frame.header.frame_type, types::ERROR, "{}", String::from_utf8_lossy(&frame.payload));
        }
    }

    /// Reads on to an ERROR: code and correlation.
    pub fn error(&mut self) -> (&'static str, u64) {
        loop {
            let Frame { header, .. } = self.read();
            if header.frame_type == types::ERROR {
                return (ErrorCode::ALL[usize::from(header.kind) - 1].name(), header.number);
            }
        }
    }

    /// Reads on to the close.
    pub fn closed(&mut self) -> (u16, String) {
        loop {
            if let Err(close) = self.next() {
                return close;
            }
        }
    }

    /// What a resume needs.
    pub fn positions(&self) -> Vec<Position> {
        let streams = self.streams.values().filter_map(|(name, epoch, place)| {
            Some(Position { stream: Arc::from(&**name), epoch: *epoch, place: (*place)? })
        });
        streams.collect()
    }

    fn check(&mut self, frame: &Frame) {
        let header = frame.header;
        match header.frame_type {
            types::JOINED => {
                let mut payload = frame.payload.clone();
                let joined: json::Joined<'_> = json::read(&mut payload).unwrap();
                for stream in joined.streams {
                    self.introduce(stream.handle, stream.stream, stream.epoch, stream.offset);
                }
            }
            types::POSITION => {
                let mut payload = frame.payload.clone();
                let name: json::StreamName<'_> = json::read(&mut payload).unwrap();
                self.introduce(header.stream.0, name.stream, name.epoch, header.number);
            }
            // A service's refusal is an event of the session's stream.
            types::ERROR if header.stream == StreamHandle::NONE => {}
            types::ERROR | types::ADVANCE | types::PLAYER_COMMAND | types::BATTLE_TIMELINE..=types::EVENT => {
                let (name, _, place) = self.streams.get_mut(&header.stream.0).expect("introduced before");
                let prev = place.unwrap_or(header.prev);
                let follows = header.prev == prev || self.fresh.contains(&header.stream.0) && header.prev < prev;
                assert!(follows, "{name}: a frame is missing or doubled before {header:?}, which follows {prev}");
                assert!(header.number > prev, "{name}: {header:?}");
                self.fresh.remove(&header.stream.0);
                *place = Some(header.number);
                self.reliable += 1;
            }
            types::WORLD_DELTA => {
                let (name, _, place) = self.streams.get(&header.stream.0).expect("introduced before");
                assert!(
                    place.is_none_or(|place| header.number <= place),
                    "{name}: a delta overtook what it follows: {header:?}"
                );
            }
            _ => {}
        }
    }

    fn introduce(&mut self, handle: u32, name: &str, epoch: u64, head: u64) {
        let stopped = self.before.iter().find(|position| &*position.stream == name && position.epoch == epoch);
        let place = if self.recovered { stopped.map(|position| position.place) } else { Some(head) };
        self.streams.insert(handle, (name.to_owned(), epoch, place));
        self.fresh.insert(handle);
    }
}

/// A delta's payload.
pub fn keyed(key: u64, value: &[u8]) -> Vec<u8> {
    [&key.to_le_bytes(), value].concat()
}
