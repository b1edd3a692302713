//! What a client receives, held against D1, D2, D3, D4, D6, D7.

use ringgate::protocol::frames::client::{self, FromServer};
use ringgate::protocol::frames::json;
use ringgate::shard::driver::simulated::{Network, Sight};
use ringgate::websocket::{self, Decoder, Message, Role};

use crate::client::{Client, Seat, State, Temper, View};
use crate::oracle::{Oracle, Reader, Seen};
use crate::rooms::Introduced;

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
                Ok(Some(Message::Binary(payload))) if !self.text => self.frame(network, oracle, payload)?,
                Ok(Some(Message::Text(payload))) if self.text => self.text_frame(network, oracle, payload)?,
                Ok(Some(Message::Close(close))) => {
                    let (code, text) = close.unwrap_or((1005, ""));
                    self.closed(network, code, text)?;
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
            if self.text {
                self.write(network, &serde_json::json!({"type": "system.delta_ack", "count": self.deltas}));
                return Ok(());
            }
            let mut payload = Vec::new();
            client::delta_ack(&mut payload, self.deltas);
            self.send(network, &payload);
        }
        Ok(())
    }

    /// Whoever is closed 4408 was slow, or its catch-up was overtaken by the eviction of a history too short for it.
    fn closed(&mut self, network: &Network, code: u16, text: &str) -> Result<(), String> {
        self.last_close = Some(code);
        self.closes.push(code);
        let who = self.number;
        let slow = self.socket.is_some_and(|socket| network.was_slow(socket));
        match (code, text) {
            (4408, "history_evicted") if self.short_history => Ok(()),
            (4408, "slow_consumer") if slow => Ok(()),
            (4408, _) => Err(format!("D4: client {who} was closed 4408 ({text}) without a reason")),
            _ => Ok(()),
        }
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
            FromServer::Welcome { json } => self.welcome(network, oracle, json),
            FromServer::Joined { correlation, json } => self.joined(network, oracle, correlation, json),
            FromServer::Left { correlation, room } => self.left(correlation, room),
            FromServer::Position { stream, head, json } => {
                let mut json = json.to_vec();
                let name: json::StreamName<'_> = json::read(&mut json).map_err(|_| "POSITION: bad JSON")?;
                let stream = Introduced { handle: stream.0, name: name.stream, epoch: name.epoch, head };
                self.introduce(network, &stream, false);
                Ok(())
            }
            FromServer::Delta { stream, after, key, payload, .. } => {
                let version = payload[8..].first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes));
                self.delta(network, oracle, stream.0, after, (key, version))
            }
            FromServer::Reliable { stream, place, prev, payload, forgets, .. } => {
                let body = if forgets.is_some() { self.forget(stream.0, &payload[8..]) } else { payload };
                self.reliable(network, oracle, stream.0, place, prev, Seen::Frame(body))
            }
            FromServer::Advance { stream, place, prev } => {
                self.refusal = oracle.told(&self.view(stream.0)?.name, place).and_then(|told| told.refuses);
                self.reliable(network, oracle, stream.0, place, prev, Seen::Advance)
            }
            FromServer::Skipped { stream, count } => {
                self.view(stream.0)?.told += count;
                Ok(())
            }
            FromServer::Ack { correlation } => self.acknowledged(oracle, correlation),
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

    fn welcome(&mut self, network: &Network, oracle: &mut Oracle, json: &[u8]) -> Result<(), String> {
        let mut json = json.to_vec();
        let welcome: json::Welcome<'_> = json::read(&mut json).map_err(|_| "WELCOME: bad JSON")?;
        self.welcomed(network, oracle, &welcome)
    }

    /// A session is attached.
    pub(super) fn welcomed(
        &mut self,
        network: &Network,
        oracle: &mut Oracle,
        welcome: &json::Welcome<'_>,
    ) -> Result<(), String> {
        let json::Welcome { session_id: session, resume, recovered, ref rooms, reason, .. } = *welcome;
        self.resumed = recovered;
        if self.resume.is_some() {
            if recovered {
                self.recovered += 1
            } else {
                self.unrecovered += 1
            }
            if !recovered && !self.may_be_lost {
                let who = self.number;
                return Err(format!("D6: client {who} was never kicked and is not recovered: {reason:?}"));
            }
        }
        if !recovered {
            self.positions.clear();
            self.entries.clear();
            self.since.clear();
        }
        if self.session != session {
            (self.session_place, self.acted_before) = (0, 0);
        }
        self.last_close = None;
        self.resume = Some(resume.to_owned());
        self.session = session.to_owned();
        for (room, seat) in &mut self.rooms {
            *seat = if rooms.contains(&room.as_str()) { Seat::Joining } else { Seat::Out };
            if *seat == Seat::Out {
                let suffix = format!("/room:{room}");
                for positions in [&mut self.positions, &mut self.entries] {
                    positions.retain(|name, _| !name.ends_with(&suffix));
                }
                self.since.remove(room);
            } else {
                self.resuming.insert(room.clone());
            }
        }
        self.state = State::Joining;
        if self.rooms[&self.room] == Seat::Out {
            let room = self.room.clone();
            self.join(network, oracle, &room);
        }
        Ok(())
    }

    fn joined(&mut self, network: &Network, oracle: &Oracle, correlation: u64, json: &[u8]) -> Result<(), String> {
        let mut json = json.to_vec();
        let joined: json::Joined<'_> = json::read(&mut json).map_err(|_| "JOINED: bad JSON")?;
        let streams = joined.streams.iter().map(|stream| Introduced {
            handle: stream.handle,
            name: stream.stream,
            epoch: stream.epoch,
            head: stream.offset,
        });
        let streams: Vec<_> = streams.collect();
        self.entered(network, oracle, correlation, joined.room_id, &streams, joined.recovered == Some(false))
    }

    /// Whoever enters starts at the introduction's place; else a client keeps its own position where it has one: that is
    /// what the replay continues.
    pub(super) fn introduce(&mut self, network: &Network, stream: &Introduced<'_>, fresh: bool) {
        let Introduced { handle, name, epoch, head } = *stream;
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
        // Its home had forgotten it: it goes on under this handle.
        let earlier = |other: &u32, view: &mut View| *other != handle && view.name == name;
        for (_, before) in self.streams.extract_if(.., earlier) {
            self.told_of_left += before.told;
        }
        let (name, joined_at) = (name.to_owned(), network.now());
        let view = View { name, epoch, place, head, versions: Default::default(), told: 0, joined_at };
        if !fresh {
            self.streams.entry(handle).or_insert(view);
        } else if let Some(before) = self.streams.insert(handle, view) {
            // It was out in between, which dialect A did not say.
            self.told_of_left += before.told;
            self.leaves += 1;
        }
    }

    pub(super) fn view(&mut self, handle: u32) -> Result<&mut View, String> {
        let (who, left) = (self.number, self.left.contains(&handle));
        self.streams.get_mut(&handle).ok_or_else(|| match left {
            true => format!("D1: client {who}: a frame of stream {handle} behind the LEFT of its room"),
            false => format!("D1: client {who}: a frame of stream {handle} before its introduction"),
        })
    }

    pub(super) fn reliable(
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
        let (name, had, head) = (view.name.clone(), view.place, view.head);
        if let Some(had) = had.filter(|had| place <= *had) {
            return Err(format!("D1: client {who}: place {place} after {had} in {name}"));
        }
        view.place = Some(place);
        let epoch = view.epoch;
        if let Some(entry) = self.entries.get(&name).filter(|entry| entry.0 == epoch && place <= entry.1) {
            return Err(format!("D1: client {who} came into {name} at {entry:?} and reads {place}"));
        }
        let view = self.view(handle)?;
        let position = (view.epoch, place);
        self.positions.insert(name.clone(), position);
        self.delivered += 1;
        let reader = Reader { number: who, text: self.text };
        let seen = oracle.seen(network.now(), reader, &name, had, (place, prev), seen);
        seen.map_err(|breach| format!("{breach}, says client {who}"))?;
        match oracle.told(&name, place).filter(|_| name.contains("/session:")) {
            Some(told) => self.told(told, head),
            None => Ok(()),
        }
    }

    /// An event that forgets a key: no value that was published before it may follow (DELIVERY §3).
    pub(super) fn forget<'a>(&mut self, handle: u32, body: &'a [u8]) -> &'a [u8] {
        let (head, rest) = body.split_at(12);
        let key = u64::from_le_bytes(head[..8].try_into().expect("eight bytes"));
        let version = u32::from_le_bytes(head[8..].try_into().expect("four bytes"));
        if let Some(view) = self.streams.get_mut(&handle) {
            let newest = view.versions.entry(key).or_default();
            *newest = (*newest).max(version);
        }
        rest
    }

    pub(super) fn delta(
        &mut self,
        network: &Network,
        oracle: &mut Oracle,
        handle: u32,
        follows: u64,
        (key, version): (u64, u32),
    ) -> Result<(), String> {
        let who = self.number;
        let slow = self.window.is_some() || self.socket.is_none_or(|socket| network.was_slow(socket));
        let catch_up = self.catch_up;
        let view = self.view(handle)?;
        if let Some(had) = view.place.filter(|had| follows > *had) {
            return Err(format!("D1: client {who}: a delta behind {follows} overtook it; the client has {had}"));
        }
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
        self.passed()?;
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
            // An entry may stand behind the room's last event.
            if place.is_none_or(|place| place < head) {
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
