//! A client of a run that speaks JSON (dialect A, `/ws`). Only dialect D joins a room that publishers opened, so a member
//! joins there first and takes its session over; from then on it lives, and comes back, in JSON. Echoes are heartbeats.
//!
//! Frames are read as far as the checks need. The gateway writes their type first and their place last; one that has not
//! is its fault.

use std::sync::atomic::Ordering;

use serde::Deserialize;

use super::super::shared::Shared;
use super::super::stamp::Stamp;
use super::super::wire::{self, opcode};
use super::player::Seen;
use super::{Client, Ended, LOST, Role, Stage, Step};
use crate::protocol::envelope::members::member;
use crate::protocol::envelope::put_string;
use crate::protocol::frames::{json, types};

/// The path of dialect A.
pub const PATH: &str = "/ws";

impl Client {
    /// `system.authenticate`: what a member has of its session, else the token.
    pub(super) fn authenticate(&mut self, step: &mut Step<'_>) {
        let mut text = b"{\"type\":\"system.authenticate\"".to_vec();
        let (name, secret) = self.resume.as_deref().map_or(("token", &*self.token), |resume| ("resume", resume));
        text.extend_from_slice(format!(",\"{name}\":").as_bytes());
        put_string(&mut text, secret);
        text.extend_from_slice(b",\"positions\":{");
        let positions = if self.resume.is_some() { self.check.positions() } else { Vec::new() };
        for (at, position) in positions.iter().enumerate() {
            text.extend_from_slice(if at > 0 { b"," } else { b"" });
            put_string(&mut text, &position.stream);
            text.extend_from_slice(
                format!(":{{\"epoch\":{},\"offset\":{}}}", position.epoch, position.place).as_bytes(),
            );
        }
        text.push(b'}');
        if let Some(window) = step.shared.options.delta_window {
            text.extend_from_slice(format!(",\"delta_window\":{window}").as_bytes());
        }
        text.push(b'}');
        self.put(opcode::TEXT, &text);
        self.stage = Stage::Authenticating;
    }

    #[inline]
    pub(super) fn on_text(&mut self, frame: &wire::Frame<'_>, step: &mut Step<'_>) -> Result<(), Ended> {
        let message = std::str::from_utf8(frame.payload).ok().and_then(parse);
        match message.ok_or_else(|| self.malformed("not a message of dialect A", step))? {
            FromGateway::Reliable { event_type, handle, place, prev } => {
                let stamp = self.check.reliable(handle, place, prev, frame.payload);
                match event_type {
                    "battle.event.timeline" => self.on_battle(types::BATTLE_TIMELINE, frame.payload, step),
                    "battle.event.end" => self.on_battle(types::BATTLE_END, frame.payload, step),
                    _ => {}
                }
                if matches!(self.role, Role::Player(_)) {
                    self.on_player_event(event_type, frame, step);
                    return Ok(());
                }
                if let (Some(stamp), true) = (stamp, self.witness) {
                    step.shared.witnessed[stamp.publisher as usize].fetch_max(stamp.number, Ordering::AcqRel);
                }
                self.count(stamp, false, frame.len, step);
            }
            FromGateway::Delta { handle, after, key } => {
                let stamp = self.check.delta(handle, after, key, frame.payload);
                self.deltas_received += 1;
                self.count(stamp, true, frame.len, step);
            }
            FromGateway::Skipped { handle, count } => self.check.skipped(handle, count),
            FromGateway::Authenticated { recovered, resume, rooms } => {
                return self.on_authenticated(recovered, resume, rooms, step);
            }
            FromGateway::Position(text) => self.on_position(text, step.shared),
            FromGateway::HeartbeatAck => self.on_heartbeat_ack(frame, step),
            FromGateway::Error { code, text } => {
                *step.shared.log().errors.entry(format!("{code}: {text}")).or_default() += 1;
                if matches!(self.role, Role::Player(_)) {
                    self.on_player_event("system.error", frame, step);
                }
                if self.stage == Stage::Authenticating {
                    step.shared.fail(format!("the server let a client in no more ({code}: {text})"));
                    return Err(Ended(LOST));
                }
            }
            FromGateway::Other => {}
        }
        Ok(())
    }

    fn on_authenticated(
        &mut self,
        recovered: bool,
        resume: Option<&str>,
        rooms: &str,
        step: &mut Step<'_>,
    ) -> Result<(), Ended> {
        let took_over = std::mem::take(&mut self.took_over);
        self.resume = resume.map(str::to_owned);
        if matches!(self.role, Role::Echo { .. }) {
            self.live(step);
            return Ok(());
        }
        if matches!(self.role, Role::Player(_)) {
            self.stage = Stage::Joining;
            return Ok(());
        }
        if took_over && !recovered {
            step.shared.fail("the server did not let a session go on in JSON".to_owned());
            return Err(Ended(LOST));
        }
        if !took_over {
            step.measured.resumed += 1;
            self.check.resumed(recovered);
        }
        if recovered || rooms.contains(&format!("\"{}\"", super::room_id(self.room))) {
            self.live(step);
        } else {
            // The session is gone, and with it the membership.
            (self.json, self.resume, self.stage) = (false, None, Stage::Waiting);
        }
        Ok(())
    }

    fn on_position(&mut self, text: &str, shared: &Shared) {
        #[derive(Deserialize)]
        struct Introduced<'a> {
            handle: u32,
            stream: &'a str,
            epoch: u64,
            offset: u64,
        }
        #[derive(Deserialize)]
        struct Streams<'a> {
            #[serde(borrow)]
            streams: Vec<Introduced<'a>>,
        }
        match json::read::<Streams<'_>>(&mut text.as_bytes().to_vec()) {
            Ok(read) => read.streams.iter().for_each(|stream| {
                self.check.introduce(stream.handle, stream.stream, stream.epoch, stream.offset);
            }),
            Err(error) => shared.fail(format!("unreadable system.position: {error}")),
        }
    }

    /// Sends heartbeats of the run's size as long as the window has room.
    pub(super) fn send_heartbeats(&mut self, step: &Step<'_>) {
        let Role::Echo { sent, back } = &mut self.role else { return };
        let Some(link) = &mut self.link else { return };
        let options = &step.shared.options;
        while *sent - *back < options.in_flight {
            *sent += 1;
            self.beats.push_back(step.now);
            link.put_frame(opcode::TEXT, options.size, |out| {
                let start = out.len();
                out.extend_from_slice(HEARTBEAT);
                out.resize(start + options.size - HEARTBEAT_END.len(), b'x');
                out.extend_from_slice(HEARTBEAT_END);
            });
        }
    }

    /// A roll is a delivery when it is told to who rolled.
    fn on_player_event(&mut self, event_type: &str, frame: &wire::Frame<'_>, step: &mut Step<'_>) {
        let Role::Player(player) = &mut self.role else { return };
        let text = std::str::from_utf8(frame.payload).unwrap_or_default();
        match player.see(event_type, text, step.now) {
            Seen::Nothing => {}
            Seen::InRoom => self.live(step),
            Seen::Told(sent_ns) => {
                step.measured.tally.reliable += 1;
                self.count(Some(Stamp { publisher: 0, number: 0, sent_ns }), false, frame.len, step);
            }
            Seen::Twice => step.measured.tally.duplicated += 1,
        }
    }

    /// Answers come in the order of what they answer.
    fn on_heartbeat_ack(&mut self, frame: &wire::Frame<'_>, step: &mut Step<'_>) {
        let Role::Echo { back, .. } = &mut self.role else { return };
        let Some(sent_ns) = self.beats.pop_front() else {
            step.measured.tally.duplicated += 1;
            return;
        };
        *back += 1;
        step.measured.tally.reliable += 1;
        let stamp = Stamp { publisher: 0, number: *back, sent_ns };
        self.count(Some(stamp), false, frame.len, step);
    }
}

/// What the server sent.
#[derive(PartialEq, Eq, Debug)]
enum FromGateway<'a> {
    /// What asks for nothing: `system.welcome`, `system.ack`.
    Other,
    Authenticated {
        recovered: bool,
        resume: Option<&'a str>,
        rooms: &'a str,
    },
    /// `system.position`, whole.
    Position(&'a str),
    Error {
        code: &'a str,
        text: &'a str,
    },
    HeartbeatAck,
    Skipped {
        handle: u32,
        count: u64,
    },
    /// A frame with a place, an advance too.
    Reliable {
        event_type: &'a str,
        handle: u32,
        place: u64,
        prev: u64,
    },
    Delta {
        handle: u32,
        after: u64,
        key: u64,
    },
}

/// Reads a text message; `None` if it is none of the gateway's.
#[inline]
fn parse(text: &str) -> Option<FromGateway<'_>> {
    let (event_type, _) = text.strip_prefix("{\"type\":\"")?.split_once('"')?;
    let quoted = |name| member(text, name).map(|value| value.trim_matches('"'));
    match event_type {
        "system.authenticated" => {
            let recovered = member(text, "recovered") == Some("true");
            let (resume, rooms) = (quoted("resume"), member(text, "rooms").unwrap_or_default());
            return Some(FromGateway::Authenticated { recovered, resume, rooms });
        }
        "system.position" => return Some(FromGateway::Position(text)),
        "system.heartbeat_ack" => return Some(FromGateway::HeartbeatAck),
        "system.skipped" => {
            let handle = member(text, "stream")?.parse().ok()?;
            return Some(FromGateway::Skipped { handle, count: member(text, "count")?.parse().ok()? });
        }
        _ => {}
    }
    let Some(at) = text.rfind("\"at\":[") else {
        return Some(match event_type {
            "system.error" => FromGateway::Error { code: quoted("code")?, text: quoted("message")? },
            _ => FromGateway::Other,
        });
    };
    let mut places = text[at + "\"at\":[".len()..].strip_suffix("]}")?.split(',');
    let handle = places.next()?.parse().ok()?;
    let place = places.next()?.parse().ok()?;
    Some(match places.next() {
        Some(prev) => FromGateway::Reliable { event_type, handle, place, prev: prev.parse().ok()? },
        None => FromGateway::Delta { handle, after: place, key: quoted("entity_id")?.parse().ok()? },
    })
}

const HEARTBEAT: &[u8] = br#"{"type":"system.heartbeat","x":""#;
const HEARTBEAT_END: &[u8] = br#""}"#;

#[cfg(test)]
mod tests {
    use super::*;

    /// Each message of the gateway is read; what is cut or has no type first is none.
    #[test]
    fn messages_are_read() {
        use FromGateway as G;
        for (text, expected) in [
            (r#"{"type":"system.welcome","connection_id":"x"}"#, Some(G::Other)),
            (
                r#"{"type":"system.authenticated","user_id":"7","resume":"abc","recovered":true,"rooms":["r"]}"#,
                Some(G::Authenticated { recovered: true, resume: Some("abc"), rooms: "[\"r\"]" }),
            ),
            (r#"{"type":"system.heartbeat_ack","timestamp":"t"}"#, Some(G::HeartbeatAck)),
            (r#"{"type":"system.skipped","stream":3,"count":5}"#, Some(G::Skipped { handle: 3, count: 5 })),
            (r#"{"type":"system.error","code":"c","message":"m"}"#, Some(G::Error { code: "c", text: "m" })),
            (
                r#"{"type":"system.advance","at":[3,9,8]}"#,
                Some(G::Reliable { event_type: "system.advance", handle: 3, place: 9, prev: 8 }),
            ),
            (
                r#"{"type":"x.y","a":{"at":[1,2,3]},"at":[3,9,8]}"#,
                Some(G::Reliable { event_type: "x.y", handle: 3, place: 9, prev: 8 }),
            ),
            (
                r#"{"type":"load.delta","entity_id":"17","p":0,"at":[3,9]}"#,
                Some(G::Delta { handle: 3, after: 9, key: 17 }),
            ),
            (r#"{"type":"x.y","at":[3,9,8]"#, None),
            (r#"{"type":"x.y","at":[3]}"#, None),
            (r#"{"at":[3,9,8],"type":"x.y"}"#, None),
            ("", None),
        ] {
            assert_eq!(parse(text), expected, "{text}");
        }
    }
}
