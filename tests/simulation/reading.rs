//! What a client receives, held against D1, D2, D3, D4, D6, D7.

use ringgate::message::ErrorCode;
use ringgate::protocol::frames::client::{self, FromServer};
use ringgate::protocol::frames::json;
use ringgate::shard::driver::simulated::{Network, Sight};
use ringgate::websocket::{self, Decoder, Message, Role};

use crate::client::{Ask, Client, Seat, State, Temper, View};
use crate::oracle::{Oracle, Seen};

impl Client {
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
        let frame = client::parse(payload).ok_or_else(|| format!("client {who}: not a frame"))?;
        let refusal = self.refusal.take();
        if let Some(number) =
            refusal.filter(|number| !matches!(frame, FromServer::Error { correlation, .. } if correlation == *number))
        {
            return Err(format!("D7: client {who}: {frame:?} where the refusal of {number} was due"));
        }
        match frame {
            FromServer::Welcome { json } => self.welcome(network, json),
            FromServer::Joined { correlation, json } => self.joined(network, correlation, json),
            FromServer::Left { correlation, room } => self.left(correlation, room),
            FromServer::Position { stream, head, json } => {
                let mut json = json.to_vec();
                let name: json::StreamName<'_> = json::read(&mut json).map_err(|_| "POSITION: bad JSON")?;
                self.introduce(network, stream.0, name.stream, name.epoch, head, false);
                Ok(())
            }
            FromServer::Delta { stream, after, payload, .. } => self.delta(network, oracle, stream.0, after, payload),
            FromServer::Reliable { stream, place, prev, payload, forgets, .. } => {
                let body = if let Some(key) = forgets { self.forget(stream.0, key, payload) } else { payload };
                self.reliable(network, oracle, stream.0, place, prev, Seen::Frame(body))
            }
            FromServer::Advance { stream, place, prev } => {
                self.refusal = oracle.refusal(&self.view(stream.0)?.name, place);
                self.reliable(network, oracle, stream.0, place, prev, Seen::Advance)
            }
            FromServer::Skipped { stream, count } => {
                self.view(stream.0)?.told += count;
                Ok(())
            }
            FromServer::Ack { correlation } => match self.asked.remove(&correlation) {
                Some(Ask::Publish | Ask::Command) => {
                    oracle.acknowledged(who, correlation);
                    Ok(())
                }
                asked => Err(format!("D7: client {who}: ACK {correlation} answers {asked:?}")),
            },
            // Replayed, it may refuse what a former connection asked.
            FromServer::Error { correlation, .. } if refusal.is_some() && correlation <= self.asked_before => Ok(()),
            FromServer::Error { code, correlation, text } => self.refused(code, correlation, text),
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
        self.resumed = welcome.recovered;
        if self.resume.is_some() {
            if welcome.recovered {
                self.recovered += 1
            } else {
                self.unrecovered += 1
            }
            if !welcome.recovered && !self.may_be_lost {
                let (who, reason) = (self.number, welcome.reason);
                return Err(format!("D6: client {who} was never kicked and is not recovered: {reason:?}"));
            }
        }
        if !welcome.recovered {
            self.positions.clear();
        }
        self.last_close = None;
        self.resume = Some(welcome.resume.to_owned());
        self.session = welcome.session_id.to_owned();
        for (room, seat) in &mut self.rooms {
            *seat = if welcome.rooms.contains(&room.as_str()) { Seat::Joining } else { Seat::Out };
            if *seat == Seat::Out {
                let suffix = format!("/room:{room}");
                self.positions.retain(|name, _| !name.ends_with(&suffix));
            }
        }
        self.state = State::Joining;
        if self.rooms[&self.room] == Seat::Out {
            let room = self.room.clone();
            self.join(network, &room);
        }
        Ok(())
    }

    fn joined(&mut self, network: &Network, correlation: u64, json: &[u8]) -> Result<(), String> {
        let mut json = json.to_vec();
        let joined: json::Joined<'_> = json::read(&mut json).map_err(|_| "JOINED: bad JSON")?;
        let room = joined.room_id;
        if correlation != 0 {
            match self.asked.remove(&correlation) {
                Some(Ask::Join(asked)) if asked == room => {}
                asked => return Err(format!("D7: client {}: JOINED {room} answers {asked:?}", self.number)),
            }
        }
        for stream in &joined.streams {
            if room == self.room && stream.stream.starts_with("relay/") {
                self.relay = stream.handle;
            }
            self.introduce(network, stream.handle, stream.stream, stream.epoch, stream.offset, correlation != 0);
        }
        self.rooms.insert(room.to_owned(), Seat::In);
        if room == self.room {
            self.state = State::Open;
        }
        Ok(())
    }

    /// Behind LEFT no frame of the room's streams may follow.
    fn left(&mut self, correlation: u64, room: &str) -> Result<(), String> {
        match self.asked.remove(&correlation) {
            Some(Ask::Leave(asked)) if asked == room => {}
            asked => return Err(format!("D7: client {}: LEFT {room} answers {asked:?}", self.number)),
        }
        let gone: Vec<u32> = self.streams.iter().filter(|(_, view)| view.is_of(room)).map(|(h, _)| *h).collect();
        for handle in gone {
            if let Some(view) = self.streams.remove(&handle) {
                self.told_of_left += view.told;
                self.positions.remove(&view.name);
            }
            self.left.insert(handle);
        }
        self.rooms.insert(room.to_owned(), Seat::Out);
        Ok(())
    }

    fn refused(&mut self, code: u16, correlation: u64, text: &str) -> Result<(), String> {
        let limited = code == ErrorCode::RateLimited.index();
        self.limited += u64::from(limited);
        match self.asked.remove(&correlation) {
            Some(Ask::Join(room)) => {
                self.rooms.insert(room, Seat::Out);
            }
            Some(Ask::Leave(room)) if limited => {
                self.rooms.insert(room, Seat::In);
            }
            Some(Ask::Publish | Ask::Command) => {}
            None if correlation == 0 => self.refusals.push(text.to_owned()),
            asked => return Err(format!("D7: client {}: error {code} ({text}) answers {asked:?}", self.number)),
        }
        Ok(())
    }

    /// A fresh JOIN starts at the introduction's place; else a client keeps its own position where it has one: that is
    /// what the replay continues.
    fn introduce(&mut self, network: &Network, handle: u32, name: &str, epoch: u64, head: u64, fresh: bool) {
        if fresh {
            self.positions.remove(name);
        }
        let own = self.positions.get(name).map(|(_, place)| *place);
        let known = fresh || !self.resumed || head == 0;
        let place = own.or(known.then_some(head));
        if let Some(place) = place {
            self.positions.insert(name.to_owned(), (epoch, place));
        }
        self.left.remove(&handle);
        let joined_at = network.now();
        let name = name.to_owned();
        self.streams.entry(handle).or_insert(View {
            name,
            epoch,
            place,
            versions: Default::default(),
            told: 0,
            joined_at,
        });
    }

    fn view(&mut self, handle: u32) -> Result<&mut View, String> {
        let (who, left) = (self.number, self.left.contains(&handle));
        self.streams.get_mut(&handle).ok_or_else(|| match left {
            true => format!("D1: client {who}: a frame of stream {handle} behind the LEFT of its room"),
            false => format!("D1: client {who}: a frame of stream {handle} before its introduction"),
        })
    }

    fn reliable(
        &mut self,
        network: &Network,
        oracle: &mut Oracle,
        handle: u32,
        place: u64,
        prev: u64,
        seen: Seen<'_>,
    ) -> Result<(), String> {
        let who = self.number;
        let view = self.view(handle)?;
        let (name, had) = (view.name.clone(), view.place);
        if let Some(had) = had {
            if place <= had {
                return Err(format!("D1: client {who}: place {place} after {had} in {name}"));
            }
            if prev != had {
                return Err(format!("D2: client {who}: {name} continues {prev}, the client has {had}"));
            }
        }
        view.place = Some(place);
        let position = (view.epoch, place);
        self.positions.insert(name.clone(), position);
        self.delivered += 1;
        oracle.seen(network.now(), &name, had, place, seen).map_err(|breach| format!("{breach}, says client {who}"))
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
        let slow = self.window.is_some() || self.socket.is_none_or(|socket| network.was_slow(socket));
        let catch_up = self.catch_up;
        let view = self.view(handle)?;
        if let Some(had) = view.place.filter(|had| follows > *had) {
            return Err(format!("D1: client {who}: a delta behind {follows} overtook it; the client has {had}"));
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
                // While it caught up, the home kept the newest values only (DELIVERY §4).
                let caught_up = network.now().since(view.joined_at) > catch_up;
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

    /// In peace: the newest ping of this connection has long been answered, however slow it was before (D7).
    pub fn answered(&self) -> Result<(), String> {
        if self.state == State::Open && self.socket_pong != self.pings {
            let (who, pings, pong) = (self.number, self.pings, self.socket_pong);
            return Err(format!("D7: client {who}: the newest of {pings} pings was never answered, {pong} was"));
        }
        Ok(())
    }

    /// At the end, with everything read and every key published once more: what must be true of this connection.
    pub fn settled(&self, oracle: &Oracle) -> Result<(), String> {
        let who = self.number;
        if self.state != State::Open || self.rooms[&self.room] != Seat::In {
            return Err(format!("D7: client {who} is {:?} at the end, its rooms {:?}", self.state, self.rooms));
        }
        if let Some((correlation, ask)) = self.asked.first_key_value() {
            return Err(format!("D7: client {who}: {ask:?} {correlation} was never answered"));
        }
        if let Some(text) = self.refusals.first() {
            return Err(format!("D7: client {who} was refused: {text}"));
        }
        if self.pongs != self.ping_sent {
            return Err(format!("D7: client {who} sent {} pings and got {} pongs", self.ping_sent, self.pongs));
        }
        if self.socket_pong != self.pings {
            let (pings, pong) = (self.pings, self.socket_pong);
            return Err(format!("D7: client {who}: the newest of {pings} pings is not answered, {pong}"));
        }
        self.heads_reached(oracle)
    }

    fn heads_reached(&self, oracle: &Oracle) -> Result<(), String> {
        let who = self.number;
        let mine = |name: &str| {
            let (_, scope) = name.split_once('/').unwrap_or_default();
            match scope.split_once(':') {
                Some(("room", room)) => {
                    let seen = self.publisher || !name.starts_with("input/");
                    seen && self.rooms.get(room) == Some(&Seat::In)
                }
                Some(("user", user)) => user == format!("user-{who}"),
                Some(("session", session)) => session == self.session,
                _ => scope == "everyone",
            }
        };
        for (name, head) in oracle.heads().filter(|(name, _)| mine(name)) {
            let view = self.streams.values().find(|view| view.name == name);
            let place = view.and_then(|view| view.place);
            if place != Some(head) {
                return Err(format!("D2: client {who} ends at {place:?} of {head} in {name}"));
            }
        }
        for room in self.seats() {
            let view = self.streams.values().find(|view| view.is_of(room) && view.name.starts_with("relay/"));
            for (key, version) in oracle.newest(room) {
                let seen = view.and_then(|view| view.versions.get(&key));
                if seen != Some(&version) {
                    return Err(format!("D3: client {who}: key {key:x} ends at {seen:?}, published {version}"));
                }
            }
        }
        Ok(())
    }
}
