//! Dialect A of a model client: what it writes, and how it reads what it is judged by.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ringgate::message::ErrorCode;
use ringgate::protocol::frames::json::Welcome;
use ringgate::shard::driver::simulated::Network;
use serde_json::{Value, json};

use crate::client::{Ask, Client, Seat};
use crate::oracle::{Oracle, Seen};
use crate::rooms::Introduced;

impl Client {
    /// `system.authenticate`.
    pub(super) fn authenticate(&self, network: &Network) {
        let positions = self.positions.iter();
        let positions =
            positions.map(|(name, (epoch, offset))| (name.clone(), json!({"epoch": epoch, "offset": offset})));
        let message = json!({
            "type": "system.authenticate", "token": self.token, "resume": self.resume,
            "positions": Value::Object(positions.collect()), "delta_window": self.window,
        });
        self.write(network, &message);
    }

    pub(super) fn write(&self, network: &Network, message: &Value) {
        self.send(network, message.to_string().as_bytes());
    }

    /// Asks the rooms service to be let into a room, or out of it.
    pub(super) fn ask_service(&mut self, network: &Network, room: &str, joins: bool) {
        let ask = Ask::Service { room: room.to_owned(), joins, acknowledged: false, answered: false };
        let correlation = self.ask(ask).to_string();
        let verb = if joins { "games.command.join_room" } else { "games.command.leave_room" };
        self.write(network, &json!({"type": verb, "room_id": room, "correlation_id": correlation}));
        self.rooms.insert(room.to_owned(), if joins { Seat::Joining } else { Seat::Leaving });
        self.moves += 1;
    }

    /// A frame that came.
    pub(super) fn text_frame(&mut self, network: &Network, oracle: &mut Oracle, text: &[u8]) -> Result<(), String> {
        let who = self.number;
        let frame: Value = serde_json::from_slice(text).map_err(|error| format!("D1: client {who}: {error}"))?;
        let at = frame["at"].as_array().map(Vec::as_slice).unwrap_or_default();
        let at: Vec<u64> = at.iter().filter_map(Value::as_u64).collect();
        match (frame["type"].as_str().unwrap_or_default(), &at[..]) {
            ("system.advance", &[handle, place, prev]) => {
                self.reliable(network, oracle, handle as u32, place, prev, Seen::Advance)
            }
            ("world.delta", &[handle, follows]) => {
                let key = frame["entity_id"].as_str().and_then(|key| key.parse().ok()).ok_or("a delta without key")?;
                let data = data(&frame).ok_or("a delta without data")?;
                let version = data.first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes));
                self.delta(network, oracle, handle as u32, follows, (key, version))
            }
            (kind, &[handle, place, prev]) => {
                let data = data(&frame);
                let body = match &data {
                    Some(data) if kind == FORGETS => self.forget(handle as u32, data),
                    Some(data) => data,
                    None => text,
                };
                self.reliable(network, oracle, handle as u32, place, prev, Seen::Frame(body))
            }
            ("system.error", &[]) => {
                let name = frame["code"].as_str().unwrap_or_default();
                let code = ErrorCode::ALL.into_iter().find(|code| code.name() == name).ok_or("an unknown error")?;
                self.refused(code.index(), number(&frame), frame["message"].as_str().unwrap_or_default())
            }
            ("system.ack", &[]) => self.acknowledged(oracle, number(&frame)),
            ("system.position", &[]) => self.positions_told(network, oracle, &frame),
            ("system.authenticated", &[]) => self.authenticated(network, oracle, &frame),
            ("system.skipped", &[]) => {
                let handle = frame["stream"].as_u64().unwrap_or(0) as u32;
                self.view(handle)?.told += frame["count"].as_u64().unwrap_or(0);
                Ok(())
            }
            ("system.heartbeat_ack", &[]) => {
                self.pongs += 1;
                Ok(())
            }
            ("system.welcome", &[]) => Ok(()),
            (kind, at) => Err(format!("client {who}: {kind} at {at:?} is no frame")),
        }
    }

    /// It says the same as dialect D's WELCOME.
    fn authenticated(&mut self, network: &Network, oracle: &mut Oracle, frame: &Value) -> Result<(), String> {
        let rooms = frame["rooms"].as_array().map(Vec::as_slice).unwrap_or_default();
        let welcome = Welcome {
            session_id: frame["session_id"].as_str().unwrap_or_default(),
            resume: frame["resume"].as_str().unwrap_or_default(),
            recovered: frame["recovered"] == json!(true),
            reason: frame["reason"].as_str(),
            rooms: rooms.iter().filter_map(Value::as_str).collect(),
            ..Welcome::default()
        };
        self.welcomed(network, oracle, &welcome)
    }

    /// Streams of one scope.
    fn positions_told(&mut self, network: &Network, oracle: &Oracle, frame: &Value) -> Result<(), String> {
        let streams = frame["streams"].as_array().map(Vec::as_slice).unwrap_or_default();
        let streams = streams.iter().map(|stream| Introduced {
            handle: stream["handle"].as_u64().unwrap_or(0) as u32,
            name: stream["stream"].as_str().unwrap_or_default(),
            epoch: stream["epoch"].as_u64().unwrap_or(0),
            head: stream["offset"].as_u64().unwrap_or(0),
        });
        let streams: Vec<_> = streams.collect();
        let room = streams.first().and_then(Introduced::room);
        let is_in = |room: &&str| matches!(self.rooms.get(*room), Some(Seat::In | Seat::Leaving));
        let known = streams.iter().any(|stream| self.streams.contains_key(&stream.handle));
        match room.filter(|room| known || self.resuming.contains(*room) || !is_in(room)) {
            Some(room) => self.entered(network, oracle, 0, room, &streams, frame["recovered"] == json!(false)),
            None => {
                streams.iter().for_each(|stream| self.introduce(network, stream, false));
                Ok(())
            }
        }
    }
}

/// What publishers wrote.
fn data(frame: &Value) -> Option<Vec<u8>> {
    frame["data_base64"].as_str().and_then(|text| STANDARD.decode(text).ok())
}

fn number(frame: &Value) -> u64 {
    frame["correlation_id"].as_str().and_then(|number| number.parse().ok()).unwrap_or(0)
}

/// The type of the publishers' events that forget a key: EVENT of kind 2 in the type table.
const FORGETS: &str = "system.event.announcement";
