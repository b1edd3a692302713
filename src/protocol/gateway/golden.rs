//! What clients receive: golden frames of every writer, the events of the reference documents from their envelope to
//! the wire, and properties of transcoding.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::transcode::{payload_of, transcode_a, transcode_b};
use super::write::{self, Authenticated, HISTORY_ANSWER_BYTES, HISTORY_ANSWER_EVENTS};
use super::*;
use crate::close::CloseReason;
use crate::frame::{Encode, Item};
use crate::id::{ConnectionId, EventId, Scope, SessionId, StreamHandle};
use crate::message::{ErrorCode, Introduction, LostReason};
use crate::protocol::envelope::{self, EventSource, Json, parse_event, put_event};
use crate::protocol::frames::{self, FramesEncoder, Header, types};
use crate::protocol::routes::Routes;
use crate::time::WallMillis;

/// The text of the one frame that is written, whose header must be that of a whole unmasked text message.
fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
    let mut out = b"before".to_vec();
    write(&mut out);
    let wire = out.strip_prefix(b"before").expect("writers append");
    let payload = payload_of(wire).expect("a header");
    let mut header = Vec::new();
    crate::frame::put_websocket_header(&mut header, 1, payload.len());
    assert_eq!(wire[..wire.len() - payload.len()], header);
    String::from_utf8(payload.to_vec()).expect("text")
}

fn introduction(handle: u32, stream: &str, place: u64) -> Introduction {
    let position = Position { stream: stream.into(), epoch: 7, place };
    Introduction { handle: StreamHandle(handle), position, publishers_only: false }
}

/// Every frame of the gateway's own has exactly this text.
#[test]
fn golden_frames_of_the_gateway() {
    let now = WallMillis(951_782_400_000);
    let id = "01010101-0101-0101-0101-010101010101";
    assert_eq!(
        written(|out| write::welcome(out, ConnectionId([1; 16]), now, "memory")),
        format!(
            r#"{{"type":"system.welcome","connection_id":"{id}","timestamp":"2000-02-29T00:00:00.000Z","durability":"memory"}}"#
        ),
    );
    let fresh =
        Authenticated { user_id: "123", username: "player1", roles: &["user".into()], ..Authenticated::default() };
    assert_eq!(
        written(|out| write::authenticated(
            out,
            &Authenticated { session: Some(SessionId([1; 16])), resume: Some("r"), ..fresh }
        )),
        format!(
            r#"{{"type":"system.authenticated","user_id":"123","username":"player1","roles":["user"],"session_id":"{id}","resume":"r","recovered":false,"rooms":[]}}"#
        ),
    );
    let resumed = Authenticated {
        roles: &[],
        reason: Some(LostReason::HistoryEvicted),
        lost: &["relay/room:a"],
        rooms: &["a", "b"],
        last_close: Some(CloseReason::SlowConsumer),
        ..fresh
    };
    assert_eq!(
        written(|out| write::authenticated(out, &resumed)),
        r#"{"type":"system.authenticated","user_id":"123","username":"player1","roles":[],"recovered":false,"reason":"history_evicted","lost":["relay/room:a"],"rooms":["a","b"],"last_close":{"code":4408,"reason":"slow_consumer"}}"#,
    );
    let recovered = written(|out| write::authenticated(out, &Authenticated { recovered: true, ..fresh }));
    assert!(recovered.contains(r#""recovered":true"#));
    assert_eq!(
        written(|out| write::error(out, ErrorCode::AuthFailed, "Invalid token", None)),
        r#"{"type":"system.error","code":"auth_failed","message":"Invalid token"}"#,
    );
    assert_eq!(
        written(|out| write::error(out, ErrorCode::BadRequest, "say \"a\\b\"\n\u{1}ж", Some("c\""))),
        r#"{"type":"system.error","code":"bad_request","message":"say \"a\\b\"\n\u0001ж","correlation_id":"c\""}"#,
    );
    assert_eq!(
        written(|out| write::heartbeat_ack(out, now)),
        r#"{"type":"system.heartbeat_ack","timestamp":"2000-02-29T00:00:00.000Z"}"#,
    );
    assert_eq!(written(|out| write::ack(out, "c-1")), r#"{"type":"system.ack","correlation_id":"c-1"}"#);
    let (a, b) = (introduction(1, "relay/room:a", 0), introduction(u32::MAX, "games.events.0/room:a", u64::MAX));
    assert_eq!(
        written(|out| write::position(out, [&a, &b], None)),
        r#"{"type":"system.position","streams":[{"handle":1,"stream":"relay/room:a","epoch":7,"offset":0},{"handle":4294967295,"stream":"games.events.0/room:a","epoch":7,"offset":18446744073709551615}]}"#,
    );
    assert_eq!(
        written(|out| write::skipped(out, StreamHandle(3), 10)),
        r#"{"type":"system.skipped","stream":3,"count":10}"#,
    );
    assert_eq!(
        written(|out| write::members(out, "a", [("123", "player1"), ("ж\"", "")], true, Some("c"))),
        r#"{"type":"rooms.event.members","room_id":"a","members":[{"user_id":"123","username":"player1"},{"user_id":"ж\"","username":""}],"truncated":true,"correlation_id":"c"}"#,
    );
    assert_eq!(
        written(|out| write::members(out, "a", [], false, None)),
        r#"{"type":"rooms.event.members","room_id":"a","members":[]}"#,
    );
}

/// An advance has its stream's handle, its place and the place before, in each form.
#[test]
fn golden_advances() {
    let advance = |form: FrameForm| move |out: &mut Vec<u8>| form.advance(out, StreamHandle(3), 9, 8);
    assert_eq!(written(advance(FrameForm::Gateway)), r#"{"type":"system.advance","at":[3,9,8]}"#);
    assert_eq!(written(advance(FrameForm::Rooms)), r#"{"type":"state","event":"advance","at":[3,9,8]}"#);
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    FrameForm::Frames.advance(&mut ours, StreamHandle(3), 9, 8);
    frames::write::advance(&mut theirs, StreamHandle(3), 9, 8);
    assert_eq!(ours, theirs);
}

fn d_frame(header: Header, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    frames::write::frame(&mut out, header, payload);
    out
}

fn header(frame_type: u8, kind: u16) -> Header {
    Header { frame_type, flags: 0, kind, stream: StreamHandle(3), number: 9, prev: 8 }
}

fn relayed(form: FrameForm, header: Header, payload: &[u8]) -> String {
    let frame = d_frame(header, payload);
    written(|out| assert!(form.transcode(&frame, Origin::Relay, &Routes::default(), out)))
}

/// An event on its way from its envelope to D's wire frame.
fn from_bus(event_type: &str, payload: &str) -> Vec<u8> {
    let mut record = Vec::new();
    put_event(&mut record, EventId([1; 16]), event_type, WallMillis(0), &Scope::Room("uuid".into()), payload);
    let source = EventSource { topic: "games.events".into(), partition: 0, epoch: 1, offset: 8 };
    let event = parse_event(&record, &source, &Routes::default(), &mut Json::default()).unwrap().unwrap();
    let item = Item { class: event.class, key: event.key, forgets: event.forgets, place: event.place, prev: 8 };
    let mut out = Vec::new();
    FramesEncoder.encode(StreamHandle(3), &item, event.kind, &event.body, &mut out);
    out
}

fn spliced(form: FrameForm, event_type: &str, payload: &str) -> String {
    let frame = from_bus(event_type, payload);
    written(|out| assert!(form.transcode(&frame, Origin::Bus, &Routes::default(), out)))
}

/// The events of the reference documents reach clients as printed there, with their place; the envelope's payload need
/// not have the type.
#[test]
fn events_of_the_reference_documents() {
    for (event_type, fields) in [
        (
            "games.event.room_created",
            r#""room_id":"uuid","room_name":"My Room","game_type":"bigger_dice","host_id":"123","host_name":"player1","is_password_protected":false"#,
        ),
        (
            "games.event.lobby_joined",
            r#""room_id":"uuid","room_name":"My Room","player":{ "user_id": 123, "username": "player1" }"#,
        ),
        ("games.event.bigger_dice.rolled", r#""room_id":"uuid","player_id":"123","roll":5,"new_score":25"#),
        ("chat.event.message_received", r#""sender_id":"...","content":"...","timestamp":"...","lobby_id":"uuid""#),
        ("battle.event.timeline", r#""room_id":"uuid","n":1"#),
        ("battle.event.end", r#""room_id":"uuid","count":1"#),
    ] {
        let shown = spliced(FrameForm::Gateway, event_type, &format!("{{{fields}}}"));
        assert_eq!(shown, format!(r#"{{"type":"{event_type}",{fields},"at":[3,9,8]}}"#));
    }
    assert_eq!(
        spliced(
            FrameForm::Gateway,
            "games.event.error",
            r#"{"code":"not_your_turn","message":"Wait","session_id":"s"}"#
        ),
        r#"{"type":"system.error","code":"not_your_turn","message":"Wait","at":[3,9,8]}"#,
    );
    let delta = spliced(FrameForm::Gateway, "world.delta", r#"{"entity_id":"goblin","x":1,"type":"t","at":0}"#);
    assert_eq!(delta, r#"{"type":"world.delta","entity_id":"goblin","x":1,"at":[3,9]}"#);
    assert_eq!(spliced(FrameForm::Gateway, "games.event.x", "{}"), r#"{"type":"games.event.x","at":[3,9,8]}"#);
    assert_eq!(
        spliced(FrameForm::Gateway, "games.event.x", "5"),
        r#"{"type":"games.event.x","payload":5,"at":[3,9,8]}"#
    );
}

/// B's clients receive room events under their short name, errors as errors, everything else under its full type.
#[test]
fn events_in_the_form_of_rooms() {
    assert_eq!(
        spliced(
            FrameForm::Rooms,
            "rooms.event.chat",
            r#"{"player_id":"1","display_name":"a","message":"hi","sent_at":"…"}"#
        ),
        r#"{"type":"event","event":"chat","at":[3,9,8],"payload":{"player_id":"1","display_name":"a","message":"hi","sent_at":"…"}}"#,
    );
    assert_eq!(
        spliced(FrameForm::Rooms, "rooms.event.phase_changed", "{}"),
        r#"{"type":"event","event":"phase_changed","at":[3,9,8],"payload":{}}"#,
    );
    assert_eq!(
        spliced(FrameForm::Rooms, "games.event.x", r#"{"a":1}"#),
        r#"{"type":"event","event":"games.event.x","at":[3,9,8],"payload":{"a":1}}"#,
    );
    assert_eq!(
        spliced(FrameForm::Rooms, "games.event.error", r#"{"code":"forbidden","message":"m","correlation_id":"c"}"#),
        r#"{"type":"error","correlation_id":"c","at":[3,9,8],"payload":{"code":"forbidden","message":"m"}}"#,
    );
    assert_eq!(
        relayed(FrameForm::Rooms, header(types::EVENT, 300), b"\x00"),
        r#"{"type":"event","event":"relay.event","at":[3,9,8],"payload":{"data_base64":"AA=="}}"#,
    );
    assert_eq!(
        relayed(FrameForm::Rooms, header(types::EVENT, 40), br#"{"type":"rooms.event.vote","by":"1"}"#),
        r#"{"type":"event","event":"vote","at":[3,9,8],"payload":{"by":"1"}}"#,
    );
}

/// A publisher's object becomes fields, its other bytes base64; type, place and routing fields are the gateway's.
#[test]
fn publishers_frames() {
    let a = |header, payload: &[u8]| relayed(FrameForm::Gateway, header, payload);
    let timeline = header(types::BATTLE_TIMELINE, 0);
    assert_eq!(
        a(timeline, br#" { "n" : 1, "type":"system.error", "\u0061t":[0], "session_id":1, "socket_id":2 } "#),
        r#"{"type":"battle.event.timeline","n":1,"at":[3,9,8]}"#,
    );
    for bytes in ["[1]", "5", "{", "{\"a\":1", "{\"a\":\"\\ud800\"}", ""] {
        let base64 = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, bytes);
        let expected = format!(r#"{{"type":"battle.event.timeline","data_base64":"{base64}","at":[3,9,8]}}"#);
        assert_eq!(a(timeline, bytes.as_bytes()), expected);
    }
    let keyed = |key: u64, body: &[u8]| [&key.to_le_bytes(), body].concat();
    let delta = header(types::WORLD_DELTA, 0);
    let key = u64::MAX;
    assert_eq!(
        a(delta, &keyed(key, b"\xff")),
        r#"{"type":"world.delta","entity_id":"18446744073709551615","data_base64":"/w==","at":[3,9]}"#,
    );
    assert_eq!(
        a(delta, &keyed(7, br#"{"entity_id":"8","x":1}"#)),
        r#"{"type":"world.delta","entity_id":"7","x":1,"at":[3,9]}"#,
    );
    assert_eq!(
        a(delta, &keyed(envelope::delta_key("goblin"), br#"{"x":1,"entity_id":"goblin"}"#)),
        r#"{"type":"world.delta","x":1,"entity_id":"goblin","at":[3,9]}"#,
    );
    let forgets = Header { flags: Header::FORGETS, ..header(types::EVENT, 300) };
    assert_eq!(a(forgets, &keyed(7, b"{\"a\":1}")), r#"{"type":"relay.event","a":1,"at":[3,9,8]}"#);
    assert_eq!(a(header(types::PLAYER_COMMAND, 0x8001), b"x"), r#"{"type":"system.advance","at":[3,9,8]}"#);
}

/// A publisher's frame has the table's name; its own only where the table has none, and never one that is another's.
#[test]
fn names_of_publishers_frames() {
    let name = |kind, own: &str| {
        let text =
            relayed(FrameForm::Gateway, header(types::EVENT, kind), format!("{{\"type\":\"{own}\"}}").as_bytes());
        serde_json::from_str::<Value>(&text).unwrap()["type"].as_str().unwrap().to_owned()
    };
    assert_eq!(name(14, "x"), "games.event.player_joined");
    assert_eq!(name(19, "games.event.chess.moved"), "games.event.chess.moved");
    assert_eq!(name(19, "games.event.player_joined"), "games.event");
    assert_eq!(name(0, "party.position"), "party.position");
    assert_eq!(name(0, "games.event.player_joined"), "relay.event");
    assert_eq!(name(0, "system.error"), "relay.event");
    assert_eq!(name(0, "a b"), "relay.event");
    assert_eq!(name(0, ""), "relay.event");
}

/// What is no frame of a stream is not shown.
#[test]
fn other_frames_have_no_form() {
    let mut out = Vec::new();
    for frame in [d_frame(header(types::WELCOME, 0), b"{}"), b"\x82\x05short".to_vec(), vec![], vec![0x82]] {
        assert!(!transcode_a(&frame, Origin::Bus, &Routes::default(), &mut out));
        assert!(!transcode_b(&frame, Origin::Relay, &Routes::default(), &mut out));
    }
    assert_eq!(out, b"");
}

/// A stream's name tells who writes its frames.
#[test]
fn origins() {
    for name in ["relay/room:a", "input/room:a", "ringgate.relay.0/room:a"] {
        assert_eq!(Origin::of_stream(name), Origin::Relay);
    }
    for name in ["games.events.0/room:a", "system.events.0/everyone", "world/session:x"] {
        assert_eq!(Origin::of_stream(name), Origin::Bus);
    }
}

/// A history answer has the newest events, oldest first, within both of its bounds.
#[test]
fn history_answers_are_bounded() {
    let routes = Routes::default();
    let answer = |frames: &[Vec<u8>], correlation: Option<&str>| {
        let frames = frames.iter().map(|frame| (frame.as_slice(), Origin::Bus));
        written(|out| write::history(out, "uuid", frames, &routes, correlation))
    };
    let two = [from_bus("games.event.x", r#"{"n":1}"#), from_bus("games.event.x", r#"{"n":2}"#)];
    assert_eq!(
        answer(&two, Some("c")),
        r#"{"type":"rooms.event.history","room_id":"uuid","events":[{"type":"games.event.x","n":1,"at":[3,9,8]},{"type":"games.event.x","n":2,"at":[3,9,8]}],"correlation_id":"c"}"#,
    );
    assert_eq!(answer(&[], None), r#"{"type":"rooms.event.history","room_id":"uuid","events":[]}"#);
    let numbers = |text: &str| -> Vec<u64> {
        let answer: Value = serde_json::from_str(text).unwrap();
        answer["events"].as_array().unwrap().iter().map(|event| event["n"].as_u64().unwrap()).collect()
    };
    let many: Vec<_> = (0..60).map(|n| from_bus("games.event.x", &format!("{{\"n\":{n}}}"))).collect();
    assert_eq!(numbers(&answer(&many, None)), (60 - HISTORY_ANSWER_EVENTS as u64..60).collect::<Vec<_>>());
    let pad = "x".repeat(10_000);
    let large: Vec<_> =
        (0..9).map(|n| from_bus("games.event.x", &format!("{{\"n\":{n},\"pad\":\"{pad}\"}}"))).collect();
    let text = answer(&large, Some(&"\"".repeat(64)));
    assert!(text.len() <= HISTORY_ANSWER_BYTES, "{}", text.len());
    assert_eq!(numbers(&text), [3, 4, 5, 6, 7, 8]);
}

proptest! {
    /// Whatever a publisher sends, both forms are one object with the frame's place, and an object's fields are kept.
    #[test]
    fn publishers_bytes_always_make_json(
        (frame_type, kind, flags) in (types::WORLD_DELTA..=types::EVENT, any::<u16>(), 0..2u8),
        (stream, number, prev) in (any::<u32>(), any::<u64>(), any::<u64>()),
        payload in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..300),
            "\\{\"[a-d]\":(1|\"x\"|\\[\\]|\\{\\})(,\"[e-h]\":(null|\"\\\\n\"))?\\}".prop_map(String::into_bytes),
        ],
        origin in prop_oneof![Just(Origin::Bus), Just(Origin::Relay)],
    ) {
        let header = Header { frame_type, flags, kind, stream: StreamHandle(stream), number, prev };
        let keyed = frame_type == types::WORLD_DELTA || flags == Header::FORGETS;
        let payload = if keyed { [&[7; 8][..], &payload].concat() } else { payload };
        let body = if keyed { &payload[8..] } else { &payload[..] };
        let frame = d_frame(header, &payload);
        let at = if frame_type == types::WORLD_DELTA { json!([stream, number]) } else { json!([stream, number, prev]) };
        let given = serde_json::from_slice::<serde_json::Map<String, Value>>(body).ok();
        for form in [FrameForm::Gateway, FrameForm::Rooms] {
            let text = written(|out| assert!(form.transcode(&frame, origin, &Routes::default(), out)));
            let shown: Value = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(&shown["at"], &at);
            prop_assert!(shown["type"].is_string());
            let fields = if form == FrameForm::Rooms { &shown["payload"] } else { &shown };
            match &given {
                Some(given) => given.iter().for_each(|(name, value)| assert_eq!(&fields[name], value)),
                None => prop_assert!(fields["data_base64"].is_string()),
            }
        }
    }

    /// No bytes make transcoding panic, and what it refuses leaves no trace.
    #[test]
    fn transcoding_is_total(bytes in prop::collection::vec(any::<u8>(), 0..80), relay in any::<bool>()) {
        let origin = if relay { Origin::Relay } else { Origin::Bus };
        for form in [FrameForm::Gateway, FrameForm::Rooms] {
            let mut out = Vec::new();
            prop_assert_eq!(form.transcode(&bytes, origin, &Routes::default(), &mut out), !out.is_empty());
        }
    }

    /// An event of the bus keeps every field, its digits and escapes, in both forms.
    #[test]
    fn events_of_the_bus_keep_their_text(
        fields in prop::collection::vec("\"f[a-z]{1,8}\":(\"([a-z]|\\\\\"|\\\\u00e9|é)*\"|1e5|-0\\.10|\\[1, 2\\]|null)", 1..40),
    ) {
        let fields = fields.join(",");
        let payload = format!("{{{fields}}}");
        let shown = spliced(FrameForm::Gateway, "games.event.x", &payload);
        prop_assert_eq!(shown, format!("{{\"type\":\"games.event.x\",{fields},\"at\":[3,9,8]}}"));
        let shown = spliced(FrameForm::Rooms, "rooms.event.x", &payload);
        prop_assert_eq!(shown, format!("{{\"type\":\"event\",\"event\":\"x\",\"at\":[3,9,8],\"payload\":{payload}}}"));
    }

    /// Texts reach the client as they are, whatever characters they have.
    #[test]
    fn texts_survive_writing(message in any::<String>(), correlation in any::<String>()) {
        let text = written(|out| write::error(out, ErrorCode::Internal, &message, Some(&correlation)));
        let expected = json!({"type": "system.error", "code": "internal", "message": message, "correlation_id": correlation});
        prop_assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), expected);
    }

    /// A frame's header is right on both sides of every length at which its form changes.
    #[test]
    fn lengths_are_right(len in prop_oneof![90..140usize, 65_400..65_700usize]) {
        let text = written(|out| write::ack(out, &"x".repeat(len)));
        prop_assert_eq!(text.len(), len + r#"{"type":"system.ack","correlation_id":""}"#.len());
    }
}
