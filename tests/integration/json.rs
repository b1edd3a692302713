//! A tungstenite client of dialect A. It holds every stream to its `at` chain: a reliable frame names the one before it,
//! a delta the one it follows.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{SocketAddr, TcpStream};

use serde_json::{Value, json};
use tungstenite::client::IntoClientRequest;
use tungstenite::{Message, WebSocket};

use crate::client::Client;
use crate::node::{DEADLINE, Gateway, token};

/// How a connection ended.
#[derive(Debug)]
pub enum End {
    /// By a close frame of the gateway: code and reason.
    Closed(u16, String),
    /// Without one, or there was none to begin with.
    Lost(String),
}

/// See the module.
pub struct Json {
    socket: WebSocket<TcpStream>,
    /// `system.welcome`.
    pub welcome: Value,
    /// `system.authenticated`, null before.
    pub session: Value,
    /// By handle: name, epoch, place; of a resumed stream that the client did not know, the place is not known before its
    /// first frame.
    streams: BTreeMap<u64, (String, u64, Option<u64>)>,
    /// Streams that were introduced and had no frame: a room that an event let the session into starts behind that
    /// event's place, which is not one of its own.
    fresh: BTreeSet<u64>,
    /// Where the session stopped on a former connection.
    before: Value,
    /// Reliable frames and advances received.
    pub reliable: u64,
    /// Deltas received.
    pub deltas: u64,
    /// Deltas that the gateway says it left out.
    pub skipped: u64,
}

impl Json {
    /// Connects and reads the welcome.
    pub fn open(gateway: &Gateway) -> Self {
        Self::open_with(gateway, "", None)
    }

    /// The same with a query (`?…`) and an `Authorization` field.
    pub fn open_with(gateway: &Gateway, query: &str, authorization: Option<&str>) -> Self {
        Self::connect(gateway.address, query, authorization).unwrap_or_else(|end| panic!("not opened: {end:?}"))
    }

    /// The same at an address where perhaps nobody is.
    pub fn connect(address: SocketAddr, query: &str, authorization: Option<&str>) -> Result<Self, End> {
        let stream = TcpStream::connect(address).map_err(|error| End::Lost(error.to_string()))?;
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.set_write_timeout(Some(DEADLINE)).unwrap();
        stream.set_nodelay(true).unwrap();
        let mut request = format!("ws://{address}/ws{query}").into_client_request().unwrap();
        if let Some(value) = authorization {
            request.headers_mut().insert("Authorization", value.parse().unwrap());
        }
        let (socket, _) = tungstenite::client(request, stream).map_err(|error| End::Lost(error.to_string()))?;
        let mut client = Self {
            socket,
            welcome: Value::Null,
            session: Value::Null,
            streams: BTreeMap::new(),
            fresh: BTreeSet::new(),
            before: Value::Null,
            reliable: 0,
            deltas: 0,
            skipped: 0,
        };
        client.welcome = client.attempt()?;
        assert_eq!(client.welcome["type"], "system.welcome", "{}", client.welcome);
        Ok(client)
    }

    pub fn player(gateway: &Gateway, user: &str) -> Self {
        Self::with_token(gateway, &token(user, &[]))
    }

    pub fn with_token(gateway: &Gateway, token: &str) -> Self {
        let mut client = Self::open(gateway);
        client.authenticate(&json!({"token": token}));
        client
    }

    /// A new connection of a session that stopped at `positions`.
    pub fn resumed(gateway: &Gateway, resume: &str, positions: &Value) -> Self {
        let mut client = Self::open(gateway);
        client.authenticate(&json!({"resume": resume, "positions": positions}));
        client
    }

    /// A member of a room that a publisher has opened: only D joins such a room, then the session goes on here.
    pub fn member(gateway: &Gateway, user: &str, room: &str) -> Self {
        Self::member_with(gateway, user, room, json!({}))
    }

    /// The same with more fields of `system.authenticate`.
    pub fn member_with(gateway: &Gateway, user: &str, room: &str, mut fields: Value) -> Self {
        let mut frames = Client::player(gateway, user);
        frames.join(room);
        fields["resume"] = frames.resume.clone().into();
        fields["positions"] = frames
            .positions()
            .iter()
            .map(|at| (at.stream.to_string(), json!({"epoch": at.epoch, "offset": at.place})))
            .collect::<serde_json::Map<_, _>>()
            .into();
        let mut client = Self::open(gateway);
        client.authenticate(&fields);
        assert_eq!(client.session["rooms"], json!([room]));
        client
    }

    /// `system.authenticate` with these fields, and its answer read.
    pub fn authenticate(&mut self, fields: &Value) {
        self.ask_in(fields).unwrap();
        self.authenticated();
    }

    /// `system.authenticate` with these fields.
    pub fn ask_in(&mut self, fields: &Value) -> Result<(), End> {
        let mut message = json!({"type": "system.authenticate"});
        message.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        self.before = fields["positions"].clone();
        self.try_send(&message)
    }

    /// Reads `system.authenticated`.
    pub fn authenticated(&mut self) {
        let answer = self.read();
        assert_eq!(answer["type"], "system.authenticated", "{answer}");
    }

    /// The resume token.
    pub fn resume(&self) -> String {
        self.session["resume"].as_str().unwrap().to_owned()
    }

    /// What a resume needs.
    pub fn positions(&self) -> Value {
        let known = self.streams.values().filter_map(|(name, epoch, place)| Some((name, epoch, (*place)?)));
        let entries = known.map(|(name, epoch, place)| (name.clone(), json!({"epoch": epoch, "offset": place})));
        Value::Object(entries.collect())
    }

    pub fn send(&mut self, message: &Value) {
        self.send_message(Message::text(message.to_string()));
    }

    pub fn send_message(&mut self, message: Message) {
        self.socket.send(message).unwrap();
    }

    /// The same on a connection that may be gone.
    pub fn try_send(&mut self, message: &Value) -> Result<(), End> {
        self.socket.send(Message::text(message.to_string())).map_err(|error| End::Lost(error.to_string()))
    }

    /// The socket below, for what tungstenite does not do.
    pub fn stream(&mut self) -> &mut TcpStream {
        self.socket.get_mut()
    }

    /// The next message, checked against its stream.
    pub fn read(&mut self) -> Value {
        self.next().unwrap_or_else(|close| panic!("closed: {close:?}"))
    }

    /// The next message, or code and reason of the close.
    pub fn next(&mut self) -> Result<Value, (u16, String)> {
        match self.attempt() {
            Ok(message) => Ok(message),
            Err(End::Closed(code, reason)) => Err((code, reason)),
            Err(End::Lost(error)) => panic!("the connection is lost: {error}"),
        }
    }

    /// The next message, or how the connection ended.
    pub fn attempt(&mut self) -> Result<Value, End> {
        loop {
            match self.socket.read().map_err(|error| End::Lost(error.to_string()))? {
                Message::Text(text) => {
                    let message: Value = serde_json::from_str(text.as_str()).unwrap();
                    if message["type"] == "system.authenticated" {
                        self.session = message.clone();
                    }
                    self.check(&message);
                    return Ok(message);
                }
                Message::Close(close) => {
                    let close = close.unwrap();
                    return Err(End::Closed(close.code.into(), close.reason.to_string()));
                }
                Message::Ping(_) => self.socket.flush().map_err(|error| End::Lost(error.to_string()))?,
                other => panic!("{other:?}"),
            }
        }
    }

    /// Reads on to the first message of this type.
    pub fn expect(&mut self, event_type: &str) -> Value {
        loop {
            let message = self.read();
            if message["type"] == event_type {
                return message;
            }
            assert_ne!(message["type"], "system.error", "{message}");
        }
    }

    /// Reads on to a `system.error`: its code, its message and its correlation id.
    pub fn error(&mut self) -> (String, String, Option<String>) {
        loop {
            let message = self.read();
            if message["type"] == "system.error" {
                let text = |name: &str| message[name].as_str().map(str::to_owned);
                return (text("code").unwrap(), text("message").unwrap(), text("correlation_id"));
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

    /// The connection is up and answers.
    pub fn is_alive(&mut self) {
        self.send(&json!({"type": "system.heartbeat"}));
        self.expect("system.heartbeat_ack");
    }

    fn check(&mut self, message: &Value) {
        if message["type"] == "system.position" {
            message["streams"].as_array().unwrap().iter().for_each(|stream| self.introduce(stream));
        } else if message["type"] == "system.skipped" {
            assert!(self.streams.contains_key(&message["stream"].as_u64().unwrap()), "{message}");
            self.skipped += message["count"].as_u64().unwrap();
        }
        let Some(at) = message["at"].as_array() else { return };
        let at: Vec<u64> = at.iter().map(|number| number.as_u64().unwrap()).collect();
        let (name, _, place) = self.streams.get_mut(&at[0]).expect("introduced before");
        match at[1..] {
            [offset, prev] => {
                let before = place.unwrap_or(prev);
                let follows = prev == before || self.fresh.contains(&at[0]) && prev < before;
                assert!(follows, "{name}: a frame is missing or doubled before {message}, which follows {before}");
                assert!(offset > before, "{name}: {message}");
                *place = Some(offset);
                self.fresh.remove(&at[0]);
                self.reliable += 1;
            }
            [follows] => {
                assert!(place.is_none_or(|place| follows <= place), "{name}: overtook what it follows: {message}");
                self.deltas += 1;
            }
            _ => panic!("{message}"),
        }
    }

    fn introduce(&mut self, stream: &Value) {
        let [handle, epoch, head] = ["handle", "epoch", "offset"].map(|name| stream[name].as_u64().unwrap());
        let name = stream["stream"].as_str().unwrap();
        let stopped = &self.before[name];
        let stopped = (stopped["epoch"] == epoch).then(|| stopped["offset"].as_u64().unwrap());
        let place = if self.session["recovered"] == true { stopped } else { Some(head) };
        self.streams.insert(handle, (name.to_owned(), epoch, place));
        self.fresh.insert(handle);
    }
}
