//! A player of a hub: gets a place by HTTP, connects, talks, takes its own connection over, breaks off, goes on, repeats
//! itself; and holds what it receives against the log.

use std::collections::BTreeMap;

use ringgate::shard::driver::simulated::{Sight, SocketId};
use ringgate::time::Monotonic;
use ringgate::websocket::{self, Decoder, Message, Opcode, ResponseError, Role};
use serde_json::{Value, json};

use super::census::Census;
use crate::services::house::House;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// Has no place.
    Out,
    /// Asks for one.
    Calling,
    Idle,
    Greeting,
    Open,
    /// Has left for good.
    Gone,
}

/// What a place is entered with.
#[derive(Clone, Debug)]
pub struct Ticket {
    pub code: String,
    pub room: String,
    pub player: String,
    token: String,
}

/// Where a connection asked to go on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Claim {
    Nowhere,
    /// Where it stands.
    Here(u64),
    /// Before everything.
    Beginning,
}

/// Something it said.
#[derive(Clone, Debug)]
pub struct Said {
    pub mark: String,
    pub refused: bool,
    /// Its connection broke before it came back, or it was repeated.
    pub doubtful: bool,
    correlation: String,
    text: String,
}

/// A stream of this connection, and the last place there, if that is known.
struct View {
    name: String,
    had: Option<u64>,
}

/// See the module.
pub struct Guest {
    pub number: u32,
    pub hub: usize,
    pub state: State,
    pub delivered: u64,
    pub hidden: u64,
    pub resumed: u64,
    pub replaced: u64,
    /// When it was last connected or not, and when it got its place.
    pub changed_at: Monotonic,
    pub enrolled_at: Monotonic,
    pub(super) ticket: Option<Ticket>,
    socket: Option<SocketId>,
    decoder: Decoder,
    key: String,
    /// The answer to a call or an upgrade, as far as it came; `None` behind an upgrade.
    head: Option<Vec<u8>>,
    /// Connections that this one is to replace.
    former: Vec<(SocketId, Decoder, bool)>,
    /// Epoch and place in the room's stream.
    pub(super) position: Option<(u64, u64)>,
    pub(super) claim: Claim,
    /// The room's last place when it got its place there, and where it came in as far as it was told.
    pub(super) floor: u64,
    pub(super) entry: Option<u64>,
    /// A restart may have lost its entry.
    pub(super) entry_doubtful: bool,
    /// A connection broke before it was told anything: one that is older may be served behind one that is younger.
    shaky: bool,
    handles: BTreeMap<u64, View>,
    said: Vec<Said>,
    /// By correlation, where it stands in `said`.
    speaking: BTreeMap<String, usize>,
    /// What the gateway was asked, by correlation, and the chats that were known then.
    pub(super) asked: BTreeMap<String, (Monotonic, usize)>,
    questions: u64,
    /// When it connected last.
    pub(super) connected_at: Monotonic,
}

impl Guest {
    pub fn new(number: u32, hub: usize) -> Self {
        Self {
            number,
            hub,
            state: State::Out,
            delivered: 0,
            hidden: 0,
            resumed: 0,
            replaced: 0,
            changed_at: Monotonic::ZERO,
            enrolled_at: Monotonic::ZERO,
            ticket: None,
            socket: None,
            decoder: Decoder::new(Role::Client, 1 << 20),
            key: String::new(),
            head: None,
            former: Vec::new(),
            position: None,
            claim: Claim::Nowhere,
            floor: 0,
            entry: None,
            entry_doubtful: false,
            shaky: false,
            handles: BTreeMap::new(),
            said: Vec::new(),
            speaking: BTreeMap::new(),
            asked: BTreeMap::new(),
            questions: 0,
            connected_at: Monotonic::ZERO,
        }
    }

    pub fn ticket(&self) -> Option<&Ticket> {
        self.ticket.as_ref()
    }

    pub fn name(&self) -> String {
        format!("Guest {}", self.number)
    }

    pub fn said(&self) -> &[Said] {
        &self.said
    }

    /// Whether it has no former connection either.
    pub fn is_alone(&self) -> bool {
        self.former.is_empty()
    }

    /// Asks for a place: makes the hub, or joins it once it is there.
    pub fn call(&mut self, house: &House, census: &mut Census, code: Option<&str>, makes: bool) {
        let path = match code {
            None if makes => "/api/rooms".to_owned(),
            None => return,
            Some(code) => format!("/api/rooms/{code}/join"),
        };
        let Some(socket) = house.network.connect(house.some_shard()) else { return };
        (self.socket, self.state, self.head) = (Some(socket), State::Calling, Some(Vec::new()));
        // One that nobody knows of may be there from now on.
        census.strays[self.hub] += 1;
        let body = json!({"display_name": self.name(), "max_players": 40}).to_string();
        let call = format!("POST {path} HTTP/1.1\r\nHost: sim\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        house.network.send(socket, call.as_bytes());
    }

    /// The answer to a call is there whole.
    fn placed(&mut self, house: &House, census: &mut Census) -> Result<(), String> {
        let answer = String::from_utf8(self.head.take().unwrap_or_default()).map_err(|error| error.to_string())?;
        (self.socket, self.state) = (None, State::Out);
        let status = answer.split(' ').nth(1).unwrap_or_default();
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        let body: Value = serde_json::from_str(body).unwrap_or(Value::Null);
        match status {
            "200" | "201" => {}
            // Nobody can be asked now, or too often: it tries again.
            "429" | "503" => {
                census.strays[self.hub] -= 1;
                return Ok(());
            }
            _ => return Err(format!("guest {}: its call is answered {answer}", self.number)),
        }
        let text = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
        let ticket =
            Ticket { code: text("code"), room: text("room_id"), player: text("player_id"), token: text("token") };
        census.enrol(self.hub, ticket.player.clone(), self.name(), house.network.now());
        self.floor = house.books.head(&stream(&ticket.room)).unwrap_or(0);
        (self.ticket, self.state, self.enrolled_at) = (Some(ticket), State::Idle, house.network.now());
        Ok(())
    }

    pub fn connect(&mut self, house: &mut House) {
        let (Some(ticket), Some(socket)) = (&self.ticket, house.network.connect(house.some_shard())) else { return };
        self.claim = match (house.network.below(8), self.position) {
            (0, Some(_)) => Claim::Beginning,
            (1..=5, Some((_, place))) => Claim::Here(place),
            _ => Claim::Nowhere,
        };
        let epoch = self.position.map_or(0, |position| position.0);
        let position = match self.claim {
            Claim::Nowhere => String::new(),
            Claim::Here(place) => format!("&epoch={epoch}&offset={place}"),
            Claim::Beginning => format!("&epoch={epoch}&offset=0"),
        };
        let Ticket { code, player, token, .. } = ticket;
        let path = format!("/ws/rooms/{code}?player_id={player}&token={token}{position}");
        self.key = websocket::client_key([self.number as u8; 16]);
        house.network.send(socket, &websocket::client_request("sim", &path, &self.key, &[], None));
        self.change(house, State::Greeting);
        (self.socket, self.head, self.connected_at) = (Some(socket), Some(Vec::new()), house.network.now());
        self.decoder = Decoder::new(Role::Client, 1 << 20);
    }

    fn change(&mut self, house: &House, state: State) {
        (self.state, self.changed_at) = (state, house.network.now());
    }

    /// Connects anew while the connection stands; the new one is to replace it.
    pub fn take_over(&mut self, house: &mut House) {
        let decoder = std::mem::replace(&mut self.decoder, Decoder::new(Role::Client, 1 << 20));
        let former = self.socket.take().map(|socket| (socket, decoder, false));
        self.forget_connection();
        self.former.extend(former);
        self.connect(house);
        if self.socket.is_none() {
            self.change(house, State::Idle);
        }
    }

    /// Breaks the connection off.
    pub fn reset(&mut self, house: &House) {
        if let Some(socket) = self.socket {
            if house.network.below(2) == 0 { house.network.reset(socket) } else { house.network.finish(socket) }
        }
        self.cut_off(house, false);
    }

    /// Its connections are gone, with the whole gateway perhaps.
    pub fn cut_off(&mut self, house: &House, by_restart: bool) {
        if by_restart {
            self.former.clear();
            let young = house.network.now().since(self.connected_at) < YOUNG;
            self.entry_doubtful |= young || self.state == State::Greeting;
        }
        self.shaky = !by_restart && (self.shaky || self.state == State::Greeting);
        self.socket = None;
        let state = if self.ticket.is_some() { State::Idle } else { State::Out };
        self.change(house, state);
        self.forget_connection();
    }

    fn forget_connection(&mut self) {
        self.head = None;
        self.handles.clear();
        self.asked.clear();
        for at in std::mem::take(&mut self.speaking).into_values() {
            self.said[at].doubtful = true;
        }
    }

    /// Ends its connection for good.
    pub fn leave(&mut self, house: &House) {
        if let Some(socket) = self.socket.take() {
            house.network.finish(socket);
        }
        self.change(house, State::Gone);
    }

    fn write(&self, house: &House, text: &str) {
        let mut out = Vec::new();
        websocket::put_masked_frame(&mut out, Opcode::Text, [1, 2, 3, self.number as u8], text.as_bytes());
        if let Some(socket) = self.socket {
            house.network.send(socket, &out);
        }
    }

    /// Does something, now and then.
    pub fn act(&mut self, house: &House) {
        if house.network.below(12) != 0 {
            return;
        }
        match house.network.below(12) {
            0..=5 => self.say(house, "chat"),
            6 => self.say(house, "vote"),
            7 => self.say(house, "action"),
            8 => self.repeat(house),
            number => self.ask(house, ["ping", "members", "history"][number as usize % 3]),
        }
    }

    fn say(&mut self, house: &House, kind: &str) {
        let mark = format!("{} of {}", self.said.len(), self.number);
        let correlation = format!("s{}", self.said.len());
        let field = if kind == "chat" { "message" } else { "choice" };
        let text = json!({"type": kind, "correlation_id": correlation, "payload": {field: mark}}).to_string();
        self.write(house, &text);
        self.speaking.insert(correlation.clone(), self.said.len());
        self.said.push(Said { mark, refused: false, doubtful: false, correlation, text });
    }

    /// Says once more what it said of late: it may not know what came of it.
    fn repeat(&mut self, house: &House) {
        let back = house.network.below(6) as usize;
        let Some(at) = self.said.len().checked_sub(back + 1) else { return };
        let Said { doubtful, correlation, text, .. } = &mut self.said[at];
        *doubtful = true;
        self.speaking.insert(correlation.clone(), at);
        let text = text.clone();
        self.write(house, &text);
    }

    fn ask(&mut self, house: &House, op: &str) {
        self.questions += 1;
        let correlation = format!("{} {}", if op == "ping" { "pong" } else { op }, self.questions);
        self.write(house, &json!({"type": "system", "correlation_id": correlation, "payload": {"op": op}}).to_string());
        let room = self.ticket.as_ref().map_or("", |ticket| &*ticket.room);
        let place = self.position.map_or(0, |position| position.1);
        let read = super::census::chats(house, room).into_iter().filter(|(at, _)| *at <= place).count();
        self.asked.insert(correlation, (house.network.now(), read));
    }

    /// Reads everything and judges it.
    pub fn read(&mut self, house: &mut House, census: &mut Census) -> Result<(), String> {
        self.read_former(house)?;
        let Some(socket) = self.socket else { return Ok(()) };
        let who = self.number;
        let mut bytes = Vec::new();
        let sight = house.network.read(socket, usize::MAX, &mut bytes);
        if let Some(head) = &mut self.head {
            head.extend_from_slice(&bytes);
            match (self.state, websocket::parse_response(head, &self.key)) {
                (State::Calling, _) if sight == Sight::Open => return Ok(()),
                (State::Calling, _) => {
                    house.network.finish(socket);
                    return self.placed(house, census);
                }
                (_, Ok(Some(accepted))) => bytes = head.split_off(accepted.consumed),
                (_, Ok(None)) => return Ok(()),
                (_, Err(ResponseError::Status(503))) => {
                    house.network.finish(socket);
                    self.cut_off(house, false);
                    return Ok(());
                }
                (_, Err(error)) => return Err(format!("guest {who}: handshake refused: {error}")),
            }
            self.head = None;
        }
        let mut decoder = std::mem::replace(&mut self.decoder, Decoder::new(Role::Client, 1 << 20));
        let mut at = 0;
        loop {
            match decoder.next(&mut bytes, &mut at) {
                Ok(None) => break,
                Ok(Some(Message::Text(text))) => self.frame(house, census, text)?,
                Ok(Some(Message::Close(Some((4409, _))))) if self.shaky => {
                    house.network.finish(socket);
                    self.cut_off(house, false);
                    return Ok(());
                }
                Ok(Some(Message::Close(close))) => return Err(format!("D6: guest {who} was closed: {close:?}")),
                Ok(Some(_)) => {}
                Err(error) => return Err(format!("D1: guest {who}: broken framing: {error:?}")),
            }
        }
        self.decoder = decoder;
        if sight == Sight::Open { Ok(()) } else { Err(format!("D6: guest {who} was cut off without a word")) }
    }

    /// A connection that was replaced is told so.
    fn read_former(&mut self, house: &House) -> Result<(), String> {
        let (who, mut over) = (self.number, 0);
        for (socket, decoder, told) in &mut self.former {
            let mut bytes = Vec::new();
            let (sight, mut at) = (house.network.read(*socket, usize::MAX, &mut bytes), 0);
            while let Ok(Some(message)) = decoder.next(&mut bytes, &mut at) {
                match message {
                    Message::Close(Some((4409, _))) => *told = true,
                    Message::Close(close) => return Err(format!("D7: guest {who} was replaced by {close:?}")),
                    _ => {}
                }
            }
            if sight != Sight::Open && !*told {
                return Err(format!("D6: a former connection of guest {who} was cut off without a word"));
            }
            if *told {
                house.network.finish(*socket);
                over += 1;
            }
        }
        self.replaced += over;
        self.former.retain(|(_, _, told)| !told);
        Ok(())
    }

    fn frame(&mut self, house: &House, census: &Census, text: &[u8]) -> Result<(), String> {
        let who = self.number;
        let frame: Value = serde_json::from_slice(text).map_err(|error| format!("D1: guest {who}: {error}"))?;
        let at: Vec<u64> = frame["at"].as_array().into_iter().flatten().filter_map(Value::as_u64).collect();
        let (kind, event) = (frame["type"].as_str().unwrap_or_default(), frame["event"].as_str().unwrap_or_default());
        match (kind, event, &at[..]) {
            (_, _, &[handle, place, prev]) => self.reliable(house, handle, (place, prev), &frame),
            ("state", "joined", []) => {
                self.joined(house, census, &frame["payload"])?;
                self.change(house, State::Open);
                self.shaky = false;
                Ok(())
            }
            ("state", "position", []) => {
                for stream in frame["payload"]["streams"].as_array().into_iter().flatten() {
                    self.introduced(stream, None);
                }
                Ok(())
            }
            ("state", "pong" | "members" | "history", []) => {
                let correlation = frame["correlation_id"].as_str().unwrap_or_default();
                let asked = self.asked.remove(correlation).filter(|_| correlation.starts_with(event));
                let asked = asked.ok_or_else(|| format!("D7: guest {who} never asked for {frame}"))?;
                self.told(house, census, event, asked, &frame["payload"])
            }
            ("error", _, []) => {
                let correlation = frame["correlation_id"].as_str().unwrap_or_default();
                let code = frame["payload"]["code"].as_str().unwrap_or_default();
                match self.speaking.remove(correlation) {
                    _ if !["rate_limited", "unavailable"].contains(&code) => Err(format!("guest {who}: {frame}")),
                    Some(at) => {
                        self.said[at].refused = true;
                        Ok(())
                    }
                    None if self.asked.remove(correlation).is_some() => Ok(()),
                    None => Err(format!("D7: guest {who} asked nothing that {frame} answers")),
                }
            }
            _ => Err(format!("guest {who}: {frame} is no frame")),
        }
    }

    /// A stream of this connection; where it goes on, if that is known.
    pub(super) fn introduced(&mut self, stream: &Value, had: Option<u64>) {
        let name = stream["stream"].as_str().unwrap_or_default().to_owned();
        self.handles.insert(stream["handle"].as_u64().unwrap_or(0), View { name, had });
    }

    fn reliable(&mut self, house: &House, handle: u64, (place, prev): (u64, u64), frame: &Value) -> Result<(), String> {
        let who = self.number;
        let unknown = || format!("D1: guest {who}: a frame of {handle}, which was not introduced: {frame}");
        let View { name, had: last } = self.handles.get_mut(&handle).ok_or_else(unknown)?;
        let had = last.replace(place).unwrap_or(place - 1);
        if place <= had || prev > had {
            return Err(format!("D1: guest {who}: place {place} behind {prev} after {had} in {name}"));
        }
        let event = house.books.at(name, had, place).map_err(|breach| format!("{breach}, says guest {who}"))?;
        let room = name.contains("/room:");
        self.delivered += 1;
        if room && let Some(position) = &mut self.position {
            position.1 = place;
        }
        let player = self.ticket.as_ref().map_or("", |ticket| &*ticket.player);
        let named = |list: &Value| list.as_array().is_some_and(|list| list.iter().any(|name| name == player));
        let target = &event["target"];
        let hidden = target["only"].is_array() && !named(&target["only"]) || named(&target["except"]);
        let advance = frame["type"] == "state" && frame["event"] == "advance";
        if hidden != advance {
            return Err(format!("D1: guest {who}: {event} is hidden: {hidden}, but {frame}"));
        }
        if hidden {
            self.hidden += 1;
            return Ok(());
        }
        let shown = event["payload"].as_object().into_iter().flatten();
        let mut others = shown.filter(|(field, value)| frame["payload"][field.as_str()] != **value);
        let kind = event["event_type"].as_str().unwrap_or_default();
        if others.next().is_some() || room && kind.strip_prefix("rooms.event.") != frame["event"].as_str() {
            return Err(format!("D1: guest {who}: {event} at {place}, but {frame}"));
        }
        if frame["payload"]["player_id"] == *player {
            let mark = frame["payload"]["message"].as_str().or(frame["payload"]["choice"].as_str());
            self.speaking.retain(|_, at| Some(&*self.said[*at].mark) != mark);
        }
        Ok(())
    }

    /// At the end: it is there, its former connections are not, it was answered, and has everything.
    pub fn settled(&self, books: &crate::services::books::Books) -> Result<(), String> {
        let who = self.number;
        let room = self.ticket.as_ref().map_or("", |ticket| &*ticket.room);
        if self.state != State::Open {
            return Err(format!("D7: guest {who} is {:?} at the end", self.state));
        }
        if !self.former.is_empty() {
            return Err(format!("D7: a former connection of guest {who} was never replaced"));
        }
        if let Some(correlation) = self.asked.keys().next() {
            return Err(format!("D7: guest {who}: {correlation} was never answered"));
        }
        let (had, head) = (self.position.map(|position| position.1), books.head(&stream(room)));
        if had < head {
            return Err(format!("D2: guest {who} ends at {had:?} of {head:?}"));
        }
        Ok(())
    }

    /// Behind the end of its hub its token opens nothing.
    pub fn finds_nothing(&mut self, house: &House) -> Result<(), String> {
        let (Some(socket), mut answer) = (self.socket, Vec::new()) else { return Ok(()) };
        house.network.read(socket, usize::MAX, &mut answer);
        if answer.starts_with(b"HTTP/1.1 404") {
            return Ok(());
        }
        Err(format!(
            "kept: the hub of guest {} has ended and answers {}",
            self.number,
            String::from_utf8_lossy(&answer)
        ))
    }
}

/// The name of a room's stream.
pub fn stream(room: &str) -> String {
    format!("rooms.events.0/room:{room}")
}

/// Presence may not have heard of what so young a connection did.
const YOUNG: std::time::Duration = std::time::Duration::from_millis(300);
