//! Dialect A: what a client must not send. Each fault has its exact code and names its field, and the connection goes on
//! unless it says so.

use serde_json::{Value, json};
use tungstenite::Message;

use crate::client::Client;
use crate::json::Json;
use crate::node::{Gateway, on_each_driver};
use crate::raw::{Raw, masked};

/// A connection is closed at its third malformed message within ten seconds; two are its share.
const SHARE: usize = 2;

/// Each malformed message is answered `bad_request` with what is wrong and where; the connection goes on.
#[test]
fn malformed_messages_are_answered() {
    let nested = |depth: usize| format!("{{\"type\":\"a.b\",\"a\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
    let fields = |count: usize| (0..count).map(|n| format!(",\"f{n}\":{n}")).collect::<String>();
    let cases: Vec<(String, &str)> = vec![
        ("".into(), "not a JSON object"),
        ("{".into(), "malformed JSON"),
        ("nonsense".into(), "not a JSON object"),
        ("[]".into(), "not a JSON object"),
        ("\"text\"".into(), "not a JSON object"),
        ("null".into(), "not a JSON object"),
        ("{}".into(), "type: expected"),
        ("{\"type\":\"a.b\"} {}".into(), "malformed JSON"),
        ("{\"type\":\"a.b\",}".into(), "malformed JSON"),
        ("{'type':'a.b'}".into(), "malformed JSON"),
        ("{\"type\":\"a.b\",\"x\":NaN}".into(), "malformed JSON"),
        ("{\"type\":\"a.b\",\"x\":01}".into(), "malformed JSON"),
        ("{\"type\":\"a.b\",\"x\":\"\u{1}\"}".into(), "malformed JSON"),
        ("{\"type\":\"a.b\",\"x\":\"\\ud800\"}".into(), "malformed JSON"),
        ("{\"type\":\"a.b\",\"type\":\"a.c\"}".into(), "type: given twice"),
        ("{\"type\":\"a.b\",\"room_id\":\"a\",\"room_\\u0069d\":\"b\"}".into(), "room_id: given twice"),
        (nested(100), "malformed JSON"),
        (nested(20_000), "malformed JSON"),
        (format!("{{\"type\":\"a.b\",\"x\":{}}}", "9".repeat(400)), "malformed JSON"),
        ("{\"type\":\"a.b\",\"x\":1e999}".into(), "malformed JSON"),
        (format!("{{\"type\":\"a.b\"{}}}", fields(64)), "more than 64 fields"),
        (format!("{{\"type\":\"a.b\",\"{}\":1}}", "n".repeat(257)), "name is longer than 256"),
        ("{\"type\":7}".into(), "type: expected"),
        ("{\"type\":null}".into(), "type: expected"),
        ("{\"type\":\"\"}".into(), "type: expected"),
        (format!("{{\"type\":\"{}\"}}", "t".repeat(129)), "type: expected"),
        (json!({"type": "a.b", "correlation_id": "c".repeat(65)}).to_string(), "correlation_id: expected"),
        (json!({"type": "a.b", "correlation_id": {}}).to_string(), "correlation_id: expected"),
        (json!({"type": "system.delta_ack"}).to_string(), "count: expected"),
        (json!({"type": "system.delta_ack", "count": "many"}).to_string(), "count: expected"),
        (json!({"type": "system.delta_ack", "count": -1}).to_string(), "count: expected"),
        (json!({"type": "system.authenticate", "token": 7}).to_string(), "token: expected"),
        (json!({"type": "system.authenticate", "token": "t".repeat(8193)}).to_string(), "token: expected"),
        (json!({"type": "system.authenticate", "resume": "r".repeat(65)}).to_string(), "resume: expected"),
        (json!({"type": "system.authenticate", "resume": []}).to_string(), "resume: expected"),
        (json!({"type": "system.authenticate", "delta_window": -1}).to_string(), "delta_window: expected"),
        (json!({"type": "system.authenticate", "delta_window": 1u64 << 32}).to_string(), "delta_window: expected"),
        (json!({"type": "system.authenticate", "positions": []}).to_string(), "positions: expected"),
        (json!({"type": "system.authenticate", "positions": {"s": {"epoch": 1}}}).to_string(), "positions: expected"),
        (json!({"type": "system.authenticate", "positions": {"s": 5}}).to_string(), "positions: expected"),
        (
            json!({"type": "system.authenticate", "positions": {"s".repeat(513): {"epoch": 1, "offset": 1}}})
                .to_string(),
            "positions: expected",
        ),
        (json!({"type": "system.authenticate", "positions": many_positions()}).to_string(), "positions: expected"),
    ];
    on_each_driver(&[], |gateway| {
        for pair in cases.chunks(SHARE) {
            let mut client = Json::player(gateway, "bob");
            for (text, part) in pair {
                client.send_message(Message::text(text.clone()));
                let (code, message, correlation_id) = client.error();
                let shown: String = text.chars().take(80).collect();
                assert_eq!((&*code, correlation_id), ("bad_request", None), "{shown}: {message}");
                assert!(message.contains(part), "{shown}: {message}");
            }
            client.is_alive();
        }
        cases.len()
    });
}

/// One stream more than a client may have positions of.
fn many_positions() -> Value {
    Value::Object((0..1025).map(|n| (format!("s{n}"), json!({"epoch": 1, "offset": 1}))).collect())
}

/// The third malformed message within ten seconds closes 4400, before and behind authentication; readable ones between
/// them do not help.
#[test]
fn three_malformed_messages_close() {
    on_each_driver(&[], |gateway| {
        for mut client in [Json::open(gateway), Json::player(gateway, "bob")] {
            for _ in 0..3 {
                client.is_alive();
                client.send_message(Message::text("{"));
                assert_eq!(client.error().0, "bad_request");
            }
            assert_eq!(client.closed(), (4400, "bad_request".into()));
        }
        gateway.closes("bad_request")
    });
}

/// Faults of the WebSocket message itself close with their codes: binary 1003, invalid UTF-8 1007, too big 1009; also in
/// fragments.
#[test]
fn unreadable_messages_close() {
    on_each_driver(&[], |gateway| {
        let big = format!("{{\"type\":\"a.b\",\"x\":\"{}\"}}", "x".repeat(64 << 10));
        let invalid = b"{\"type\":\"a.b\",\"x\":\"\xC0\xAF\"}";
        let cases = [
            (masked(0x82, b"{\"type\":\"system.heartbeat\"}"), 1003),
            (masked(0x81, invalid), 1007),
            ([masked(0x01, &invalid[..19]), masked(0x80, &invalid[19..])].concat(), 1007),
            (masked(0x81, big.as_bytes()), 1009),
            ([masked(0x01, &big.as_bytes()[..40_000]), masked(0x80, &big.as_bytes()[40_000..])].concat(), 1009),
        ];
        for (bytes, code) in &cases {
            let mut raw = Raw::upgraded(gateway, "/ws");
            raw.write(bytes);
            assert_eq!(raw.closed(), *code);
        }
        let mut raw = Raw::upgraded(gateway, "/ws");
        assert_eq!(raw.frame().unwrap().0, 0x81);
        for piece in [masked(0x01, b"{\"type\":"), masked(0x00, b"\"system.heart"), masked(0x80, b"beat\"}")] {
            raw.write(&piece);
        }
        assert!(raw.frame().unwrap().1.starts_with(b"{\"type\":\"system.heartbeat_ack\""));
        cases.len()
    });
}

/// A command that is readable and not allowed has its code, its text names the field, and its correlation id comes back.
#[test]
fn refusals_have_their_codes() {
    on_each_driver(&[], |gateway| {
        let mut publisher = Client::publisher(gateway, "server");
        publisher.join("arena");
        let mut client = Json::member(gateway, "bob", "arena");
        let start =
            |room: Value| json!({"type": "battle.command.start", "room_id": room, "events": 1, "interval_ms": 1});
        let chat = |room: &str| json!({"type": "chat.command.send_lobby_message", "lobby_id": room, "content": "x"});
        let cases = [
            (json!({"type": "no.such.type"}), "unknown_type", "no.such.type"),
            (json!({"type": "system.unheard_of"}), "unknown_type", "system.unheard_of"),
            (
                json!({"type": "games.event.lobby_joined", "room_id": "arena"}),
                "unknown_type",
                "games.event.lobby_joined",
            ),
            (start("elsewhere".into()), "not_in_room", "room_id"),
            (chat("elsewhere"), "not_in_room", "lobby_id"),
            (json!({"type": "games.command.leave_room", "room_id": "elsewhere"}), "not_in_room", "room_id"),
            (json!({"type": "games.command.chess.move", "room_id": "elsewhere"}), "not_in_room", "room_id"),
            (json!({"type": "games.command.chess.move"}), "bad_request", "room_id"),
            (start(Value::Null), "bad_request", "room_id"),
            (start(json!(["arena"])), "bad_request", "room_id"),
        ];
        let count = cases.len();
        for (n, (mut message, code, part)) in cases.into_iter().enumerate() {
            let id = format!("case-{n}");
            message["correlation_id"] = id.clone().into();
            client.send(&message);
            let (answered, text, correlation_id) = client.error();
            assert_eq!((&*answered, correlation_id), (code, Some(id)), "{message}");
            assert!(text.contains(part), "{message}: {text}");
        }
        client.send(&json!({"type": "system.delta_ack", "count": 5}));
        assert_eq!(client.closed(), (4400, "bad_request".into()), "credit for deltas that were never sent");
        count
    });
}

/// A flood of commands beyond their rate is `rate_limited`, command by command, with their correlation ids; others have
/// rates of their own, the connection lives, and the rate comes back.
#[test]
fn floods_are_rate_limited() {
    on_each_driver(&[], |gateway| {
        let mut publisher = Client::publisher(gateway, "server");
        publisher.join("arena");
        let mut client = Json::member(gateway, "bob", "arena");
        let start = json!({"type": "battle.command.start", "room_id": "arena", "events": 1, "interval_ms": 1});
        let send = |client: &mut Json, n: u32| {
            let mut message = start.clone();
            message["correlation_id"] = n.into();
            client.send(&message);
        };
        let count = 40;
        (0..count).for_each(|n| send(&mut client, n));
        let (mut accepted, mut refused) = (Vec::new(), Vec::new());
        while accepted.len() + refused.len() < count as usize {
            let message = client.read();
            let id = message["correlation_id"].as_str().map(str::to_owned);
            match message["type"].as_str().unwrap() {
                "system.ack" => accepted.push(id.unwrap()),
                "system.error" => {
                    assert_eq!(message["code"], "rate_limited", "{message}");
                    assert!(message["message"].as_str().unwrap().contains("battle.command.start"), "{message}");
                    refused.push(id.unwrap());
                }
                _ => {}
            }
        }
        assert_eq!(accepted, ["0"]);
        assert_eq!(refused.len(), 39);
        client.send(&json!({"type": "games.command.list_rooms", "correlation_id": "other"}));
        assert_eq!(client.expect("system.ack")["correlation_id"], "other");
        crate::node::until("the rate comes back", || {
            send(&mut client, 99);
            loop {
                let message = client.read();
                if message["correlation_id"] == "99" {
                    return message["type"] == "system.ack";
                }
            }
        });
        accepted.len() + refused.len()
    });
}

/// A gateway whose clients flood it with malformed messages without reading lives on for others.
#[test]
fn a_flood_of_nonsense_harms_nobody() {
    on_each_driver(&[], |gateway: &mut Gateway| {
        let mut client = Json::player(gateway, "bob");
        for _ in 0..20 {
            let mut raw = Raw::upgraded(gateway, "/ws");
            let piece = masked(0x81, b"[1,2").repeat(1000);
            raw.write(&piece);
            assert_eq!(raw.closed(), 4400);
            client.is_alive();
        }
        gateway.closes("bad_request")
    });
}
