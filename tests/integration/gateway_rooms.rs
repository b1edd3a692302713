//! Dialect A in rooms: what members see of relayed commands, events and deltas, beside members of dialect D, and the
//! credit that bounds deltas in flight.

use std::path::PathBuf;

use ringgate::protocol::frames::{client, types};
use serde_json::{Value, json};

use crate::client::{Client, DELTA, EVENT, keyed};
use crate::json::Json;
use crate::node::{DRIVERS, Gateway, until};

/// A game whose players tell each other things without a backend.
const TABLE: &str = r#"
[[command]]
type = "party.*"
relay = "room"
rate = "1000/s"
[[command]]
type = "party.rare"
relay = "room"
rate = "2/m"
[[event]]
type = "party.position"
relay = "room"
to = "room"
class = "delta"
coalesce = "entity_id"
kind = 300
[[event]]
type = "party.emote"
relay = "room"
to = "room"
kind = 301
"#;

/// Runs a test on each driver, with the table.
fn with_table(name: &str, test: impl Fn(&Gateway)) {
    let file = Table::new(name);
    for driver in DRIVERS {
        test(&Gateway::start(&["--driver", driver, "--config", file.0.to_str().unwrap()]));
    }
}

/// The table in a file that is removed at the end.
struct Table(PathBuf);

impl Table {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("ringgate-{name}-{}.toml", std::process::id()));
        std::fs::write(&path, TABLE).unwrap();
        Self(path)
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// The JSON of a frame of dialect D.
fn parsed(payload: &[u8]) -> Value {
    serde_json::from_slice(payload).unwrap()
}

/// Without what only one dialect's form has.
fn plain(mut message: Value) -> Value {
    message.as_object_mut().unwrap().remove("at");
    message
}

/// A relayed command reaches every member, its sender too, in dialects A and D, under its own type with the client's
/// fields and the sender's id, which the client cannot choose; it is acknowledged, and `at` chains.
#[test]
fn relayed_commands_reach_the_members() {
    with_table("relayed", |gateway| {
        let mut publisher = Client::publisher(gateway, "server");
        publisher.join("arena");
        let mut frames = Client::player(gateway, "dan");
        frames.join("arena");
        let mut members = ["ann", "bob"].map(|user| Json::member(gateway, user, "arena"));
        for n in 1..=50 {
            let sent = json!({
                "type": "party.emote", "room_id": "arena", "correlation_id": format!("e{n}"), "n": n,
                "text": "h\u{e9} \"you\" \u{1F3B2}", "deep": {"a": [1, 2.5, null, true]},
                "sender_id": "somebody else", "at": [1, 2, 3],
            });
            members[n % 2].send(&sent);
        }
        for member in &mut members {
            let (mut seen, mut acks) = (Vec::new(), Vec::new());
            while seen.len() < 50 || acks.len() < 25 {
                let message = member.read();
                match message["type"].as_str().unwrap() {
                    "party.emote" => seen.push(message),
                    "system.ack" => acks.push(message["correlation_id"].as_str().unwrap().to_owned()),
                    "system.position" => {}
                    other => panic!("{other}: {message}"),
                }
            }
            assert!(acks.iter().all(|id| id.starts_with('e')), "{acks:?}");
            for message in &seen {
                let n = message["n"].as_u64().unwrap() as usize;
                let sender = ["ann", "bob"][n % 2];
                let expected = json!({
                    "type": "party.emote", "room_id": "arena", "n": n, "sender_id": sender,
                    "text": "h\u{e9} \"you\" \u{1F3B2}", "deep": {"a": [1, 2.5, null, true]},
                });
                assert_eq!(plain(message.clone()), expected);
            }
        }
        let mut numbers = Vec::new();
        while numbers.len() < 50 {
            let frame = frames.expect(types::EVENT);
            assert_eq!(frame.header.kind, 301);
            let event = parsed(&frame.payload);
            assert_eq!(event["sender_id"], ["ann", "bob"][event["n"].as_u64().unwrap() as usize % 2]);
            numbers.push(event["n"].as_u64().unwrap());
        }
        for parity in 0..2 {
            let of_one: Vec<_> = numbers.iter().filter(|n| **n % 2 == parity).collect();
            assert!(of_one.is_sorted() && of_one.len() == 25, "each sender's order: {numbers:?}");
        }
    });
}

/// What is not allowed is refused with its code and correlation id: strangers to the room, no room, no key for a delta,
/// more than the rate; the members see nothing of it.
#[test]
fn relayed_commands_are_refused() {
    with_table("refused", |gateway| {
        let mut publisher = Client::publisher(gateway, "server");
        publisher.join("arena");
        let mut member = Json::member(gateway, "ann", "arena");
        let mut stranger = Json::player(gateway, "eve");
        for (user, fields, code, part) in [
            ("eve", json!({"type": "party.emote", "room_id": "arena"}), "not_in_room", "room_id"),
            ("eve", json!({"type": "party.emote"}), "bad_request", "room_id"),
            ("ann", json!({"type": "party.emote", "room_id": "other"}), "not_in_room", "room_id"),
            ("ann", json!({"type": "party.emote", "room_id": {}}), "bad_request", "room_id"),
            ("ann", json!({"type": "party.position", "room_id": "arena", "x": 1}), "bad_request", "entity_id"),
        ] {
            let client = if user == "eve" { &mut stranger } else { &mut member };
            let mut message = fields;
            message["correlation_id"] = "r".into();
            client.send(&message);
            let (answered, text, correlation_id) = client.error();
            assert_eq!((&*answered, correlation_id.as_deref()), (code, Some("r")), "{message}");
            assert!(text.contains(part), "{message}: {text}");
        }
        let rare = json!({"type": "party.rare", "room_id": "arena", "correlation_id": "rare"});
        (0..3).for_each(|_| member.send(&rare));
        let answers: Vec<Value> = std::iter::from_fn(|| Some(member.read()))
            .filter(|message| message["correlation_id"] == "rare")
            .take(3)
            .collect();
        let kinds: Vec<_> = answers.iter().map(|answer| (answer["type"].as_str().unwrap(), &answer["code"])).collect();
        assert_eq!(kinds.iter().filter(|(kind, _)| *kind == "system.ack").count(), 2, "{answers:?}");
        assert_eq!(kinds.iter().filter(|(_, code)| **code == "rate_limited").count(), 1, "{answers:?}");
    });
}

/// Members of dialects A and D of one room see the same events with the same places, deltas with the key that coalesces
/// them, bytes that are no JSON as base64, a player's command not at all.
#[test]
fn both_dialects_see_the_same() {
    with_table("same", |gateway| {
        let mut publisher = Client::publisher(gateway, "server");
        let relay = publisher.join("arena")[0];
        let mut frames = Client::player(gateway, "dan");
        frames.join("arena");
        let mut member = Json::member(gateway, "ann", "arena");
        publisher.publish(EVENT, relay, 1, br#"{"type":"game.hit","by":"orc","at":"the gate"}"#);
        publisher.publish(DELTA, relay, 0, &keyed(7, br#"{"x":1}"#));
        publisher.publish(EVENT, relay, 2, b"\xFF\x00 no JSON");

        // A member that is still catching up gets the newest deltas behind the events.
        let (mut hit, mut delta, mut raw) = (None, None, None);
        while hit.is_none() || delta.is_none() || raw.is_none() {
            let message = member.read();
            let Some(at) = message["at"].as_array() else { continue };
            let at: Vec<u64> = at.iter().map(|n| n.as_u64().unwrap()).collect();
            match message["type"].as_str().unwrap() {
                "game.hit" => hit = Some((plain(message), at)),
                "world.delta" => delta = Some((plain(message), at)),
                _ if message.get("data_base64").is_some() => raw = Some((message, at)),
                _ => {}
            }
        }
        let ((hit, hit_at), (delta, delta_at), (raw, raw_at)) = (hit.unwrap(), delta.unwrap(), raw.unwrap());
        assert_eq!(hit, json!({"type": "game.hit", "by": "orc"}));
        assert_eq!(delta, json!({"type": "world.delta", "entity_id": "7", "x": 1}));
        assert_eq!(raw["data_base64"], "/wAgbm8gSlNPTg==", "{raw}");
        member.send(&json!({"type": "party.position", "room_id": "arena", "entity_id": "7", "x": 2}));
        publisher.publish(EVENT, relay, 3, br#"{"type":"game.over"}"#);
        let d_hit = frames.expect(types::EVENT);
        let d_delta = frames.expect(types::WORLD_DELTA);
        let d_raw = frames.expect(types::EVENT);
        let places = [&d_hit, &d_raw]
            .map(|frame| vec![u64::from(frame.header.stream.0), frame.header.number, frame.header.prev]);
        assert_eq!(places, [hit_at, raw_at]);
        assert_eq!(delta_at, [u64::from(d_delta.header.stream.0), d_delta.header.number]);
        assert_eq!(d_raw.payload, b"\xFF\x00 no JSON");

        let (mut position, mut over) = (None, false);
        while position.is_none() || !over {
            let message = member.read();
            match message["type"].as_str().unwrap() {
                "party.position" => position = Some(plain(message)),
                "game.over" => over = true,
                _ => {}
            }
        }
        let expected =
            json!({"type": "party.position", "room_id": "arena", "entity_id": "7", "x": 2, "sender_id": "ann"});
        assert_eq!(position, Some(expected.clone()));
        let position = frames.expect(types::WORLD_DELTA);
        assert_eq!((position.header.kind, &position.payload[..8]), (300, &7_u64.to_le_bytes()[..]));
        assert_eq!(parsed(&position.payload[8..]), expected);
    });
}

/// With a window of two, a member that acknowledges nothing gets two deltas and every reliable event; what is replaced
/// meanwhile is told, and each acknowledgement brings the newest values on.
#[test]
fn credit_bounds_deltas_in_flight() {
    with_table("credit", |gateway| {
        let mut publisher = Client::publisher(gateway, "server");
        let relay = publisher.join("arena")[0];
        let mut member = Json::member_with(gateway, "ann", "arena", json!({"delta_window": 2}));
        let rounds = 20;
        for n in 1..=rounds {
            publisher.publish(DELTA, relay, 0, &keyed(1, format!("{{\"n\":{n}}}").as_bytes()));
            publisher.publish(EVENT, relay, n, format!("{{\"type\":\"game.round\",\"n\":{n}}}").as_bytes());
            while publisher.expect(types::ACK).header.number != n {}
            assert_eq!(member.expect("game.round")["n"], n);
        }
        assert_eq!(member.deltas, 2, "two in flight, no more");
        member.send(&json!({"type": "system.delta_ack", "count": 1}));
        assert_eq!(member.expect("world.delta")["n"], rounds, "the newest value");
        assert_eq!((member.deltas, member.skipped), (3, rounds - 3));
        member.send(&json!({"type": "system.delta_ack", "count": 3}));
        publisher.publish(DELTA, relay, 0, &keyed(1, br#"{"n":99}"#));
        assert_eq!(member.expect("world.delta")["n"], 99);
    });
}

/// One session goes on in whatever dialect it is resumed, and misses nothing.
#[test]
fn a_session_moves_between_dialects() {
    with_table("moves", |gateway| {
        let mut publisher = Client::publisher(gateway, "server");
        let relay = publisher.join("arena")[0];
        let mut member = Json::member(gateway, "ann", "arena");
        let mut n = 0;
        for _ in 0..3 {
            n += 1;
            publisher.publish(EVENT, relay, 0, format!("{{\"type\":\"game.round\",\"n\":{n}}}").as_bytes());
            assert_eq!(member.expect("game.round")["n"], n);
            let positions = member.positions();
            let kept: Vec<_> = positions
                .as_object()
                .unwrap()
                .iter()
                .map(|(name, at)| ringgate::message::Position {
                    stream: name.as_str().into(),
                    epoch: at["epoch"].as_u64().unwrap(),
                    place: at["offset"].as_u64().unwrap(),
                })
                .collect();
            let mut frames = Client::resumed(gateway, &member.resume(), kept);
            assert!(frames.recovered, "{:?}", frames.reason);
            assert_eq!(member.closed().0, 4409);
            n += 1;
            publisher.publish(EVENT, relay, 0, format!("{{\"n\":{n}}}").as_bytes());
            assert_eq!(parsed(&frames.expect(types::EVENT).payload)["n"], n);
            frames.send(|out| client::ping(out, b"x"));
            frames.expect(types::PONG);
            let positions: serde_json::Map<_, _> = frames
                .positions()
                .iter()
                .map(|at| (at.stream.to_string(), json!({"epoch": at.epoch, "offset": at.place})))
                .collect();
            member = Json::resumed(gateway, &frames.resume, &Value::Object(positions));
            assert_eq!(member.session["recovered"], true, "{}", member.session);
        }
        until("one session is left", || gateway.metric("ringgate_sessions").iter().sum::<u64>() == 2);
    });
}
