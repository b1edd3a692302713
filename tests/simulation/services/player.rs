//! A player of dialect A: makes rooms, enters and leaves them, rolls and talks, breaks off, resumes, repeats itself; and
//! holds what it receives against the log.

use std::collections::{BTreeMap, BTreeSet};

use ringgate::shard::driver::simulated::{Sight, SocketId};
use ringgate::websocket::{self, Decoder, Message, Opcode, Role};
use serde_json::{Value, json};

use super::books::{Books, PRIVATE, Sent};
use super::house::House;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    Idle,
    Greeting,
    Open,
}

/// See the module.
pub struct Player {
    number: u32,
    pub state: State,
    pub delivered: u64,
    pub resumed: u64,
    token: String,
    socket: Option<SocketId>,
    decoder: Decoder,
    key: String,
    head: Option<Vec<u8>>,
    session: String,
    resume: Option<String>,
    /// By stream: epoch and place.
    positions: BTreeMap<String, (u64, u64)>,
    handles: BTreeMap<u64, String>,
    /// Streams introduced on this connection whose first frame has not come; where it goes on, the client may not know.
    unknown: BTreeSet<String>,
    /// Scopes that a resume goes on in, until they are introduced.
    resuming: BTreeSet<String>,
    /// Rooms that it is in.
    rooms: BTreeSet<String>,
    /// Rooms where it may be its turn to roll.
    turns: BTreeSet<String>,
    /// Where the event stands that let it into a room, until the room's stream is introduced.
    entries: BTreeMap<String, u64>,
    sent: Vec<Sent>,
    /// What this connection was not told of yet, by correlation.
    waiting: BTreeMap<String, usize>,
    /// Rooms where it spoke on the event that let it in, by correlation.
    greeted: BTreeMap<String, String>,
}

impl Player {
    pub fn new(number: u32, token: String) -> Self {
        Self {
            number,
            state: State::Idle,
            delivered: 0,
            resumed: 0,
            token,
            socket: None,
            decoder: Decoder::new(Role::Client, 1 << 20),
            key: String::new(),
            head: None,
            session: String::new(),
            resume: None,
            positions: BTreeMap::new(),
            handles: BTreeMap::new(),
            unknown: BTreeSet::new(),
            resuming: BTreeSet::new(),
            rooms: BTreeSet::new(),
            turns: BTreeSet::new(),
            entries: BTreeMap::new(),
            sent: Vec::new(),
            waiting: BTreeMap::new(),
            greeted: BTreeMap::new(),
        }
    }

    /// What it ever asked for.
    pub fn sent(&self) -> impl Iterator<Item = &Sent> {
        self.sent.iter()
    }

    pub fn connect(&mut self, house: &mut House) {
        let Some(socket) = house.network.connect(house.some_shard()) else { return };
        self.cut_off();
        (self.socket, self.state) = (Some(socket), State::Greeting);
        self.key = websocket::client_key([self.number as u8; 16]);
        self.head = Some(Vec::new());
        house.network.send(socket, &websocket::client_request("sim", "/ws", &self.key, &[], None));
        let positions = self
            .positions
            .iter()
            .map(|(name, (epoch, place))| (name.clone(), json!({"epoch": epoch, "offset": place})));
        let positions = Value::Object(positions.collect());
        let hello = json!({
            "type": "system.authenticate", "token": self.token, "resume": self.resume, "positions": positions,
        });
        self.write(house, &hello.to_string());
    }

    /// Breaks the connection off.
    pub fn reset(&mut self, house: &mut House) {
        if let Some(socket) = self.socket {
            if house.network.below(2) == 0 { house.network.reset(socket) } else { house.network.finish(socket) }
        }
        self.cut_off();
    }

    /// The connection is gone.
    pub fn cut_off(&mut self) {
        (self.socket, self.state) = (None, State::Idle);
        self.decoder = Decoder::new(Role::Client, 1 << 20);
        self.handles.clear();
        self.entries.clear();
        self.unknown.clear();
        self.resuming.clear();
        self.greeted.clear();
        for at in std::mem::take(&mut self.waiting).into_values() {
            self.sent[at].doubtful = true;
        }
    }

    fn write(&self, house: &House, text: &str) {
        let mut out = Vec::new();
        websocket::put_masked_frame(&mut out, Opcode::Text, [1, 2, 3, self.number as u8], text.as_bytes());
        if let Some(socket) = self.socket {
            house.network.send(socket, &out);
        }
    }

    /// Does something, now and then.
    pub fn act(&mut self, house: &mut House) {
        if house.network.below(12) != 0 {
            return;
        }
        let below = |bound: usize| house.network.below(bound.max(1) as u64) as usize;
        let room = self.rooms.iter().nth(below(self.rooms.len())).cloned();
        if let Some(room) = self.turns.pop_first().filter(|room| self.rooms.contains(room)) {
            return self.command(house, "games.command.bigger_dice.roll", json!({"room_id": room}));
        }
        let password = |name: usize| if name == 0 { json!("sesame") } else { Value::Null };
        match (below(16), room) {
            (0, _) => {
                let name = below(4);
                let room_name = format!("table-{name}");
                let fields = json!({"game_type": "bigger_dice", "room_name": room_name, "password": password(name)});
                self.command(house, "games.command.create_room", fields);
            }
            (1..=3, _) => {
                let name = below(4);
                let guess = if below(4) == 0 { json!("wrong") } else { password(name) };
                let fields = json!({"room_name": format!("table-{name}"), "password": guess});
                self.command(house, "games.command.join_room", fields);
            }
            (4, _) => self.command(house, "games.command.list_rooms", json!({})),
            (5, _) => {
                let fields = json!({"recipient_id": format!("user-{}", 1000 + below(3)), "content": "psst"});
                self.command(house, PRIVATE, fields);
            }
            (6 | 7, _) => self.repeat(house),
            (8, Some(room)) if below(3) == 0 => {
                self.command(house, "games.command.leave_room", json!({"room_id": room}));
            }
            (9..=12, Some(room)) => {
                self.command(house, "games.command.bigger_dice.roll", json!({"room_id": room}));
            }
            (_, Some(room)) => {
                let fields = json!({"lobby_id": room, "content": "hello"});
                self.command(house, "chat.command.send_lobby_message", fields);
            }
            _ => {}
        }
    }

    fn command(&mut self, house: &House, kind: &'static str, mut fields: Value) {
        let correlation = format!("{}-{}", self.number, self.sent.len());
        fields["type"] = json!(kind);
        fields["correlation_id"] = json!(correlation);
        let (text, session) = (fields.to_string(), self.session.clone());
        self.write(house, &text);
        self.waiting.insert(correlation.clone(), self.sent.len());
        let (acknowledged, refused, doubtful) = (false, false, false);
        self.sent.push(Sent { correlation, kind, text, session, acknowledged, refused, doubtful });
    }

    /// Speaks in a room at the event that lets it in, before the room's streams are introduced.
    fn greet(&mut self, house: &House, room: &str) {
        self.command(house, "chat.command.send_lobby_message", json!({"lobby_id": room, "content": "here I am"}));
        if let Some(sent) = self.sent.last() {
            self.greeted.insert(sent.correlation.clone(), room.to_owned());
        }
    }

    /// Says once more what it said of late in this session: it may not know what came of it.
    fn repeat(&mut self, house: &House) {
        let back = house.network.below(6) as usize;
        let Some(at) = self.sent.len().checked_sub(back + 1) else { return };
        let sent = &mut self.sent[at];
        if sent.session == self.session && !self.waiting.contains_key(&sent.correlation) {
            sent.doubtful = true;
            self.waiting.insert(sent.correlation.clone(), at);
            let text = sent.text.clone();
            self.write(house, &text);
        }
    }

    /// Reads everything and judges it.
    pub fn read(&mut self, house: &mut House) -> Result<(), String> {
        let Some(socket) = self.socket else { return Ok(()) };
        let mut bytes = Vec::new();
        let sight = house.network.read(socket, usize::MAX, &mut bytes);
        if let Some(head) = &mut self.head {
            head.extend_from_slice(&bytes);
            match websocket::parse_response(head, &self.key) {
                Ok(Some(accepted)) => bytes = head.split_off(accepted.consumed),
                Ok(None) => return Ok(()),
                Err(error) => return Err(format!("player {}: handshake refused: {error}", self.number)),
            }
            self.head = None;
        }
        let mut decoder = std::mem::replace(&mut self.decoder, Decoder::new(Role::Client, 1 << 20));
        let mut at = 0;
        loop {
            match decoder.next(&mut bytes, &mut at) {
                Ok(None) => break,
                Ok(Some(Message::Text(text))) => self.frame(house, text)?,
                Ok(Some(Message::Close(close))) => {
                    return Err(format!("D6: player {} was closed: {close:?}", self.number));
                }
                Ok(Some(_)) => {}
                Err(error) => return Err(format!("D1: player {}: broken framing: {error:?}", self.number)),
            }
        }
        self.decoder = decoder;
        if sight != Sight::Open {
            return Err(format!("D6: player {} was cut off without a word", self.number));
        }
        Ok(())
    }

    fn frame(&mut self, house: &House, text: &[u8]) -> Result<(), String> {
        let who = self.number;
        let frame: Value = serde_json::from_slice(text).map_err(|error| format!("D1: player {who}: {error}"))?;
        let at = frame["at"].as_array().map(Vec::as_slice).unwrap_or_default();
        let at: Vec<u64> = at.iter().filter_map(Value::as_u64).collect();
        let correlation = frame["correlation_id"].as_str();
        match (frame["type"].as_str().unwrap_or_default(), &at[..]) {
            (_, &[handle, place, _]) => self.reliable(house, handle, place, &frame),
            ("system.ack", []) => self.told(correlation, |sent| sent.acknowledged = true),
            ("system.error", []) => {
                let greeted = correlation.and_then(|correlation| self.greeted.remove(correlation));
                if let Some(room) = greeted.filter(|room| frame["code"] == "not_in_room" && self.rooms.contains(room)) {
                    return Err(format!("D7: player {who} was let into {room} and may not speak there"));
                }
                self.told(correlation, |sent| sent.refused = true)
            }
            ("system.authenticated", []) => self.authenticated(&frame),
            ("system.position", []) => self.introduced(&frame),
            ("system.welcome", []) => Ok(()),
            (kind, at) => Err(format!("player {who}: {kind} at {at:?} is no frame")),
        }
    }

    fn told(&mut self, correlation: Option<&str>, take: impl FnOnce(&mut Sent)) -> Result<(), String> {
        let at = correlation.and_then(|correlation| self.waiting.remove(correlation));
        match at {
            Some(at) => take(&mut self.sent[at]),
            None => return Err(format!("D7: player {}: {correlation:?} is answered and was not asked", self.number)),
        }
        Ok(())
    }

    fn authenticated(&mut self, frame: &Value) -> Result<(), String> {
        let recovered = frame["recovered"] == json!(true);
        let session = frame["session_id"].as_str().unwrap_or_default().to_owned();
        self.resume = frame["resume"].as_str().map(str::to_owned);
        self.state = State::Open;
        let rooms: BTreeSet<&str> = frame["rooms"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        if recovered {
            self.resuming = rooms.iter().map(|room| format!("room:{room}")).collect();
            self.resuming.extend([format!("user:user-{}", self.number), format!("session:{session}")]);
            self.resumed += 1;
            // What stands in its stream and it has not seen yet may have acted already.
            self.rooms.retain(|room| rooms.contains(&**room));
        } else {
            self.rooms.clear();
            self.positions.clear();
        }
        self.rooms.extend(rooms.into_iter().map(str::to_owned));
        self.session = session;
        Ok(())
    }

    fn introduced(&mut self, frame: &Value) -> Result<(), String> {
        let anew = frame["recovered"] == json!(false);
        let mut scopes = BTreeSet::new();
        for stream in frame["streams"].as_array().into_iter().flatten() {
            let name = stream["stream"].as_str().unwrap_or_default().to_owned();
            let number = |field: &str| stream[field].as_u64().unwrap_or(0);
            let (handle, epoch, offset) = (number("handle"), number("epoch"), number("offset"));
            let room = name.strip_prefix("games.events.0/room:").and_then(|room| self.entries.remove(room));
            if let Some(entry) = room.filter(|entry| *entry != offset && !anew) {
                let who = self.number;
                return Err(format!("D2: player {who} was let in at {entry} of {name} and starts at {offset}"));
            }
            let scope = name.split_once('/').map_or("", |(_, scope)| scope).to_owned();
            let goes_on = self.resuming.contains(&scope) && !anew;
            let known = self.positions.get(&name).filter(|(known, _)| *known == epoch && goes_on).map(|known| known.1);
            if goes_on && known.is_none() && offset > 0 {
                self.unknown.insert(name.clone());
            }
            let place = known.unwrap_or(if goes_on { 0 } else { offset });
            scopes.insert(scope);
            self.positions.insert(name.clone(), (epoch, place));
            self.handles.insert(handle, name);
        }
        self.resuming.retain(|scope| !scopes.contains(scope));
        Ok(())
    }

    fn reliable(&mut self, house: &House, handle: u64, place: u64, frame: &Value) -> Result<(), String> {
        let who = self.number;
        let unknown = || format!("D1: player {who}: a frame of {handle}, which was not introduced: {frame}");
        let name = self.handles.get(&handle).cloned().ok_or_else(unknown)?;
        let position = self.positions.get_mut(&name).ok_or_else(unknown)?;
        let had = std::mem::replace(&mut position.1, place);
        let had = if self.unknown.remove(&name) { place - 1 } else { had };
        if place <= had {
            return Err(format!("D1: player {who}: place {place} after {had} in {name}"));
        }
        let event = house.books.at(&name, had, place).map_err(|breach| format!("{breach}, says player {who}"))?;
        self.delivered += 1;
        let (kind, payload) = (event["event_type"].as_str().unwrap_or_default(), &event["payload"]);
        let shown = payload.as_object().into_iter().flatten();
        let mut shown = shown.filter(|(field, _)| !["type", "at", "session_id", "socket_id"].contains(&field.as_str()));
        if let Some((field, value)) = shown.find(|(field, value)| frame[field.as_str()] != **value) {
            return Err(format!("D1: player {who}: {field} of {name} at {place} is {value}, but {frame}"));
        }
        if frame["type"] != *kind && kind != "games.event.error" {
            return Err(format!("D1: player {who}: {name} at {place} is {kind}, but {frame}"));
        }
        let room = payload["room_id"].as_str().unwrap_or_default();
        match kind {
            "games.event.room_created" | "games.event.lobby_joined" if self.rooms.insert(room.to_owned()) => {
                self.entries.insert(room.to_owned(), place);
                self.greet(house, room);
            }
            "games.event.turn_changed" if payload["player_id"] == json!(format!("user-{who}")) => {
                self.turns.insert(room.to_owned());
            }
            "games.event.room_left" => {
                self.rooms.remove(room);
                self.entries.remove(room);
                let suffix = format!("/room:{room}");
                self.positions.retain(|name, _| !name.ends_with(&suffix));
            }
            _ => {}
        }
        Ok(())
    }

    /// At the end: it is there, was told what came of everything, and has everything that is for it.
    pub fn settled(&self, books: &Books) -> Result<(), String> {
        let who = self.number;
        if self.state != State::Open {
            return Err(format!("D7: player {who} is {:?} at the end", self.state));
        }
        if let Some(at) = self.waiting.values().next() {
            return Err(format!("D7: player {who}: nobody said what came of {:?}", self.sent[*at]));
        }
        let mut scopes: BTreeSet<String> = self.rooms.iter().map(|room| format!("room:{room}")).collect();
        scopes.extend([format!("user:user-{who}"), format!("session:{}", self.session)]);
        for name in books.streams_of(&scopes) {
            let (had, head) = (self.positions.get(name).map(|position| position.1), books.head(name));
            // A message to the user from before this session is not for it.
            if had.is_none() && name.contains("/user:") {
                continue;
            }
            if had < head {
                return Err(format!("D2: player {who} ends at {had:?} of {head:?} in {name}"));
            }
        }
        Ok(())
    }
}
