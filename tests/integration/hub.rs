//! A player of a room hub: the calls of the rooms API, and a tungstenite client of dialect B that holds every stream to
//! its `at` chain.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;

use serde_json::{Value, json};
use tungstenite::client::IntoClientRequest;
use tungstenite::handshake::client::Response;
use tungstenite::{Error, Message, WebSocket};

use crate::node::{DEADLINE, Gateway};

/// A call of the rooms API with these header lines: status, head and body.
pub fn call_with(gateway: &Gateway, request: &str, fields: &str, body: &str) -> (u16, String, Value) {
    exchange(gateway, request, fields, body.as_bytes())
}

fn exchange(gateway: &Gateway, request: &str, fields: &str, body: &[u8]) -> (u16, String, Value) {
    let mut stream = TcpStream::connect(gateway.address).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let head = format!("{request} HTTP/1.1\r\nHost: 127.0.0.1\r\n{fields}\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    // A refused body may not be taken to its end.
    let _ = stream.write_all(body);
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{answer:?}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, head.to_owned(), serde_json::from_str(body).unwrap_or(Value::Null))
}

/// A POST with a JSON body.
pub fn call(gateway: &Gateway, path: &str, body: &str) -> (u16, Value) {
    call_bytes(gateway, path, body.as_bytes())
}

/// The same with what may be no text.
pub fn call_bytes(gateway: &Gateway, path: &str, body: &[u8]) -> (u16, Value) {
    let fields = format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len());
    let (status, _, body) = exchange(gateway, &format!("POST {path}"), &fields, body);
    (status, body)
}

/// Makes a room.
pub fn create(gateway: &Gateway, name: &str) -> Ticket {
    create_for(gateway, name, 10)
}

/// Makes a room for so many.
pub fn create_for(gateway: &Gateway, name: &str, max_players: u32) -> Ticket {
    let body = json!({"display_name": name, "max_players": max_players});
    let (status, body) = call(gateway, "/api/rooms", &body.to_string());
    assert_eq!(status, 201, "{body}");
    Ticket::of(&body)
}

/// Joins it.
pub fn join(gateway: &Gateway, code: &str, name: &str) -> Ticket {
    let (status, body) = call(gateway, &format!("/api/rooms/{code}/join"), &json!({"display_name": name}).to_string());
    assert_eq!(status, 200, "{body}");
    Ticket::of(&body)
}

/// What a player has of the rooms API.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ticket {
    pub code: String,
    pub room: String,
    pub player: String,
    pub token: String,
}

impl Ticket {
    pub fn of(body: &Value) -> Self {
        let text = |name: &str| body[name].as_str().unwrap_or_else(|| panic!("{name} in {body}")).to_owned();
        assert_eq!(body.as_object().unwrap().len(), 4, "{body}");
        Self { code: text("code"), room: text("room_id"), player: text("player_id"), token: text("token") }
    }

    /// The path that the player connects to.
    pub fn path(&self) -> String {
        format!("/ws/rooms/{}?player_id={}&token={}", self.code, self.player, self.token)
    }
}

/// A connected player.
pub struct Player {
    socket: WebSocket<TcpStream>,
    pub ticket: Ticket,
    /// Payload of `state`, `joined`.
    pub joined: Value,
    /// By handle: name, epoch, place.
    streams: BTreeMap<u64, (String, u64, u64)>,
    /// Advances received.
    pub advances: u64,
}

/// Upgrades at a path, or gets an HTTP answer.
pub fn open(gateway: &Gateway, path: &str, authorization: Option<&str>) -> Result<WebSocket<TcpStream>, (u16, String)> {
    let stream = TcpStream::connect(gateway.address).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.set_nodelay(true).unwrap();
    let mut request = format!("ws://{}{path}", gateway.address).into_client_request().unwrap();
    if let Some(value) = authorization {
        request.headers_mut().insert("Authorization", value.parse().unwrap());
    }
    match tungstenite::client(request, stream) {
        Ok((socket, _)) => Ok(socket),
        Err(tungstenite::HandshakeError::Failure(Error::Http(response))) => {
            let response: Response = *response;
            let body = response.body().clone().unwrap_or_default();
            Err((response.status().as_u16(), String::from_utf8(body).unwrap()))
        }
        Err(error) => panic!("{error}"),
    }
}

impl Player {
    /// Connects and reads the first state.
    pub fn connect(gateway: &Gateway, ticket: &Ticket) -> Self {
        Self::connect_at(gateway, ticket, &ticket.path())
    }

    /// The same, going on from a position.
    pub fn resume(gateway: &Gateway, ticket: &Ticket, (epoch, offset): (u64, u64)) -> Self {
        Self::connect_at(gateway, ticket, &format!("{}&epoch={epoch}&offset={offset}", ticket.path()))
    }

    /// Connects, unless another connection of the player is faster.
    pub fn try_connect(gateway: &Gateway, ticket: &Ticket) -> Option<Self> {
        Self::enter(gateway, ticket, &ticket.path()).ok()
    }

    fn connect_at(gateway: &Gateway, ticket: &Ticket, path: &str) -> Self {
        Self::enter(gateway, ticket, path).unwrap_or_else(|close| panic!("closed: {close:?}"))
    }

    fn enter(gateway: &Gateway, ticket: &Ticket, path: &str) -> Result<Self, (u16, String)> {
        let socket = open(gateway, path, None).unwrap();
        let streams = BTreeMap::new();
        let mut player = Self { socket, ticket: ticket.clone(), joined: Value::Null, streams, advances: 0 };
        let first = player.next()?;
        assert_eq!((&first["type"], &first["event"]), (&json!("state"), &json!("joined")), "{first}");
        player.joined = first["payload"].clone();
        Ok(player)
    }

    /// Whether it is still served, or was replaced.
    pub fn is_answered(&mut self) -> bool {
        // Who was replaced may find the socket closed.
        let ping = json!({"type": "system", "payload": {"op": "ping"}});
        let _ = self.socket.send(Message::text(ping.to_string()));
        loop {
            match self.next() {
                Ok(message) if message["event"] == "pong" => return true,
                Ok(_) => {}
                Err((code, _)) => {
                    assert_eq!(code, 4409);
                    return false;
                }
            }
        }
    }

    /// A player who makes a room.
    pub fn host(gateway: &Gateway, name: &str) -> Self {
        Self::connect(gateway, &create(gateway, name))
    }

    /// One who joins this player's room.
    pub fn guest(&self, gateway: &Gateway, name: &str) -> Self {
        Self::connect(gateway, &join(gateway, &self.ticket.code, name))
    }

    pub fn send(&mut self, message: &Value) {
        self.send_text(&message.to_string());
    }

    pub fn send_text(&mut self, text: &str) {
        self.socket.send(Message::text(text)).unwrap();
    }

    pub fn send_message(&mut self, message: Message) {
        self.socket.send(message).unwrap();
    }

    pub fn chat(&mut self, text: &str) {
        self.send(&json!({"type": "chat", "payload": {"message": text}}));
    }

    /// The next message, checked against its stream; advances are counted and left out.
    pub fn read(&mut self) -> Value {
        self.next().unwrap_or_else(|close| panic!("closed: {close:?}"))
    }

    /// The next message, or code and reason of the close.
    pub fn next(&mut self) -> Result<Value, (u16, String)> {
        loop {
            match self.socket.read().unwrap() {
                Message::Text(text) => {
                    let message: Value = serde_json::from_str(&text).unwrap();
                    self.check(&message);
                    if message["event"] == "advance" {
                        self.advances += 1;
                    } else {
                        return Ok(message);
                    }
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

    /// Reads on to an event of this name: its payload.
    pub fn event(&mut self, name: &str) -> Value {
        loop {
            let message = self.read();
            if message["type"] == "event" && message["event"] == name {
                return message["payload"].clone();
            }
            assert_ne!(message["type"], "error", "{message}");
        }
    }

    /// Reads on to an error: code and correlation id.
    pub fn error(&mut self) -> (String, Value) {
        let (code, _, correlation_id) = self.fault();
        (code, correlation_id)
    }

    /// The same with its text: code, text, correlation id.
    pub fn fault(&mut self) -> (String, String, Value) {
        loop {
            let message = self.read();
            if message["type"] == "error" {
                let text = |name: &str| message["payload"][name].as_str().unwrap().to_owned();
                return (text("code"), text("message"), message["correlation_id"].clone());
            }
        }
    }

    /// Reads on to the answer of an op: its payload.
    pub fn answer(&mut self, op: &str) -> Value {
        self.send(&json!({"type": "system", "correlation_id": op, "payload": {"op": op}}));
        let event = if op == "ping" { "pong" } else { op };
        loop {
            let message = self.read();
            if message["type"] == "state" && message["event"] == event {
                assert_eq!(message["correlation_id"], op);
                return message["payload"].clone();
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

    /// Where the room's stream stands.
    pub fn position(&self) -> (u64, u64) {
        let name = format!("rooms.events.0/room:{}", self.ticket.room);
        let (_, epoch, place) = self.streams.values().find(|(known, ..)| *known == name).expect("it is introduced");
        (*epoch, *place)
    }

    /// The socket below, for what tungstenite does not do.
    pub fn stream(&mut self) -> &mut TcpStream {
        self.socket.get_mut()
    }

    fn check(&mut self, message: &Value) {
        let streams = match message["event"].as_str() {
            Some("joined") => vec![&message["payload"]["stream"]],
            Some("position") => message["payload"]["streams"].as_array().unwrap().iter().collect(),
            _ => Vec::new(),
        };
        for stream in streams.into_iter().filter(|_| message["type"] == "state") {
            let number = |name: &str| stream[name].as_u64().unwrap();
            let name = stream["stream"].as_str().unwrap().to_owned();
            self.streams.insert(number("handle"), (name, number("epoch"), number("offset")));
        }
        let Some(at) = message["at"].as_array() else { return };
        let at: Vec<u64> = at.iter().map(|number| number.as_u64().unwrap()).collect();
        let (name, _, place) = self.streams.get_mut(&at[0]).unwrap_or_else(|| panic!("introduced before {message}"));
        // Of the player's own streams a reconnect brings again what came before.
        if name.contains("/room:") {
            assert_eq!(at[2], *place, "{name}: a frame is missing or doubled before {message}");
        }
        assert!(at[1] > at[2], "{message}");
        *place = at[1];
    }
}
