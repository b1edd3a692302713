//! Envelopes there and back.

use proptest::prelude::*;

use super::*;
use std::sync::Arc;

use crate::class::Class;
use crate::frame::{self, FrameKind};
use crate::id::{ConnectionId, EventId, Scope, SessionId};
use crate::message::{Effect, Event};
use crate::time::WallMillis;

/// A few rules of PROTOCOLS' table.
struct Table;

impl EventRules for Table {
    fn rule(&self, event_type: &str) -> Option<EventRule<'_>> {
        let frame = |frame_type, kind| FrameKind { frame_type, kind };
        let plain =
            |to, kind| EventRule { to, target: None, class: Class::Reliable, coalesce: None, kind, effect: None };
        Some(match event_type {
            "battle.event.timeline" => plain(Audience::Room, frame(33, 0)),
            "games.event.lobby_joined" => {
                EventRule { effect: Some(EffectRule::Join("room_id")), ..plain(Audience::Session, frame(35, 11)) }
            }
            "games.event.error" => plain(Audience::Session, frame(35, 3)),
            "games.event.despawned" => {
                EventRule { effect: Some(EffectRule::Forget("entity_id")), ..plain(Audience::Room, frame(35, 20)) }
            }
            "world.delta" => {
                EventRule { class: Class::Delta, coalesce: Some("entity_id"), ..plain(Audience::Room, frame(32, 0)) }
            }
            "chat.event.note" => EventRule { target: Some("reader"), ..plain(Audience::User, frame(35, 1)) },
            "system.event.kick" => EventRule { effect: Some(EffectRule::Kick), ..plain(Audience::User, frame(0, 0)) },
            "system.event.announcement" => plain(Audience::Everyone, frame(35, 2)),
            _ => return None,
        })
    }

    fn session_of(&self, connection: ConnectionId) -> Option<SessionId> {
        (connection == ConnectionId([2; 16])).then_some(SESSION)
    }
}

const SESSION: SessionId = SessionId([0xab; 16]);
const SESSION_TEXT: &str = "abababab-abab-abab-abab-abababababab";

fn read(envelope: &str) -> Result<Option<Event>, EnvelopeError> {
    let source = EventSource { topic: "games.events".into(), partition: 0, epoch: 9, offset: 41 };
    parse_event(envelope.as_bytes(), &source, &Table, &mut Json::default())
}

fn event(envelope: &str) -> Event {
    read(envelope).unwrap().unwrap()
}

fn body(event: &Event) -> &str {
    std::str::from_utf8(&event.body).unwrap()
}

fn command<'a>(form: PayloadForm, body: &'a [u8], roles: &'a [Box<str>]) -> ClientCommand<'a> {
    ClientCommand {
        event_id: EventId([1; 16]),
        event_type: "games.command.chess.move",
        timestamp: WallMillis(0),
        gateway_id: "gw\"1",
        connection: ConnectionId([2; 16]),
        session: SESSION,
        correlation: Some("c-1"),
        user_id: "123",
        username: "player1",
        roles,
        room_id: Some("arena"),
        password: None,
        form,
        body,
        checked: false,
    }
}

fn written(command: &ClientCommand<'_>) -> String {
    let (mut out, mut json) = (Vec::new(), Json::default());
    put_command(&mut out, command, &mut json);
    assert!(json.check_object(&out).is_some(), "{:?}", String::from_utf8_lossy(&out));
    String::from_utf8(out).unwrap()
}

fn payload(command: &ClientCommand<'_>) -> String {
    members::member(&written(command), "payload").unwrap().to_owned()
}

const OURS: &str = r#""type":"chess.move","user_id":"123","username":"player1","socket_id":"02020202-0202-0202-0202-020202020202","room_id":"arena""#;

/// A command's envelope has the fields of PROTOCOLS, in its order.
#[test]
fn a_command_envelope_is_as_documented() {
    let roles = ["user".into(), "admin".into()];
    let text = written(&command(PayloadForm::Enriched, br#"{"from":"e2","to":"e4"}"#, &roles));
    let expected = format!(
        concat!(
            r#"{{"event_id":"01010101-0101-0101-0101-010101010101","event_type":"games.command.chess.move","#,
            r#""timestamp":"1970-01-01T00:00:00.000Z","gateway_id":"gw\"1","#,
            r#""connection_id":"02020202-0202-0202-0202-020202020202","session_id":"{}","correlation_id":"c-1","#,
            r#""user":{{"user_id":"123","username":"player1","roles":["user","admin"]}},"#,
            r#""payload":{{{},"from":"e2","to":"e4"}}}}"#
        ),
        SESSION_TEXT, OURS
    );
    assert_eq!(text, expected);
}

/// A client cannot speak for another by writing the gateway's fields itself, escaped or twice; its numbers keep their digits.
#[test]
fn a_client_cannot_forge_the_gateways_fields() {
    let forged = br#" { "user_id":"9", "us\u0065r_id":"9","room_id":["x"],"type":{"a":"}"},"n": 1.50 ,"big":18446744073709551615,"user_id":"8" } "#;
    assert_eq!(
        payload(&command(PayloadForm::Enriched, forged, &[])),
        format!(r#"{{{OURS},"n":1.50,"big":18446744073709551615}}"#)
    );
}

/// A password that is sealed stands in no form in the envelope, however the client spelled the field's name.
#[test]
fn a_sealed_password_takes_the_place_of_the_clients() {
    let body = br#"{"password":"open","p\u0061ssword":"sesame","room_name":"r"}"#;
    let command = ClientCommand { password: Some("hmac:x"), ..command(PayloadForm::Enriched, body, &[]) };
    assert_eq!(payload(&command), format!(r#"{{{OURS},"password":"hmac:x","room_name":"r"}}"#));
}

/// A body that was checked before is written like one that was not.
#[test]
fn a_checked_body_is_written_the_same() {
    for body in [&br#" {"user_id":"9","n": 1.50} "#[..], b"{}"] {
        for form in [PayloadForm::Enriched, PayloadForm::Raw] {
            let unchecked = command(form, body, &[]);
            assert_eq!(written(&ClientCommand { checked: true, ..unchecked }), written(&unchecked));
        }
    }
}

/// What is not JSON travels as base64, and a raw payload byte for byte.
#[test]
fn payloads_are_raw_or_base64() {
    assert_eq!(
        payload(&command(PayloadForm::Enriched, b"\xff\x00", &[])),
        format!(r#"{{{OURS},"data_base64":"/wA="}}"#)
    );
    let huge = payload(&command(PayloadForm::Enriched, br#"{"n":12345678901234567890123}"#, &[]));
    assert!(huge.ends_with(r#""n":12345678901234567890123}"#), "{huge}");
    let infinite = payload(&command(PayloadForm::Enriched, br#"{"n":1e400}"#, &[]));
    assert!(infinite.contains("data_base64"), "{infinite}");
    assert_eq!(payload(&command(PayloadForm::Enriched, b"[1]", &[])), format!(r#"{{{OURS},"data_base64":"WzFd"}}"#));
    assert_eq!(payload(&command(PayloadForm::Enriched, b"", &[])), format!("{{{OURS}}}"));
    assert_eq!(payload(&command(PayloadForm::Raw, br#"{"user_id": "9"}"#, &[])), r#"{"user_id": "9"}"#);
    assert_eq!(payload(&command(PayloadForm::Raw, b"\xff\x00", &[])), r#"{"data_base64":"/wA="}"#);
}

/// A service reads back what the gateway wrote; a command without usable names is refused with field, value, remedy.
#[test]
fn a_service_reads_the_command_back() {
    let text = written(&command(PayloadForm::Enriched, br#"{"events":3}"#, &[]));
    let read = parse_command(text.as_bytes(), &mut Json::default()).unwrap();
    assert_eq!((read.event_id, &*read.event_type), (EventId([1; 16]), "games.command.chess.move"));
    assert_eq!((read.session, read.correlation.as_deref()), (Some(SESSION), Some("c-1")));
    assert_eq!(members::member(read.payload, "events"), Some("3"));
    let error = |text: &str| parse_command(text.as_bytes(), &mut Json::default()).unwrap_err().to_string();
    assert_eq!(error("[]"), "the record is not a JSON object; send an envelope in UTF-8");
    assert_eq!(error(r#"{"event_type":"x"}"#), "event_id is missing; the envelope needs it");
    assert_eq!(error(r#"{"event_id":5}"#), "event_id is \"5\"; it must be a UUID");
}

/// The id of a command depends on session, correlation and bytes, and on nothing else.
#[test]
fn command_ids_repeat_with_the_command() {
    let id = command_id(SESSION, "1", b"2x");
    assert_eq!(id, command_id(SESSION, "1", b"2x"));
    for other in
        [command_id(SessionId([0; 16]), "1", b"2x"), command_id(SESSION, "12", b"x"), command_id(SESSION, "1", b"2y")]
    {
        assert_ne!(id, other);
    }
}

/// An event's frame is its type, then the payload's fields without those that only route; its place is offset + 1.
#[test]
fn an_event_becomes_a_frame() {
    let got = event(
        r#"{"event_id":"x","event_type":"battle.event.timeline","target":{"room_id":"arena"},
            "payload":{"type":"t","at":[1],"n": 3 ,"session_id":"s","socket_id":"k","text":"a\"b,}"}}"#,
    );
    assert_eq!(body(&got), r#"{"type":"battle.event.timeline","n":3,"text":"a\"b,}"}"#);
    assert_eq!((&*got.topic, got.partition, got.epoch, got.place), ("games.events", 0, 9, 42));
    assert_eq!((got.scope, got.class, got.kind.frame_type), (Scope::Room("arena".into()), Class::Reliable, 33));
    let odd = event(r#"{"event_type":"system.event.announcement","payload":[1,2]}"#);
    assert_eq!(
        (body(&odd), odd.scope.clone()),
        (r#"{"type":"system.event.announcement","payload":[1,2]}"#, Scope::Everyone)
    );
    let refusal = event(&format!(
        r#"{{"event_type":"games.event.error","payload":{{"session_id":"{SESSION_TEXT}","code":"room_full"}}}}"#
    ));
    assert_eq!(body(&refusal), r#"{"type":"system.error","code":"room_full"}"#);
    assert_eq!(refusal.scope, Scope::Session(SESSION));
}

/// Without a target the payload's fields name the audience; ids may be numbers.
#[test]
fn the_audience_is_found_in_the_payload() {
    let scope = |text: &str| event(text).scope;
    let lobby = r#"{"event_type":"battle.event.timeline","payload":{"lobby_id":"den"}}"#;
    assert_eq!(scope(lobby), Scope::Room("den".into()));
    let player = r#"{"event_type":"games.event.lobby_joined","payload":{"room_id":"r","player":{"user_id":7}}}"#;
    assert_eq!(scope(player), Scope::User("7".into()));
    let host = r#"{"event_type":"games.event.lobby_joined","target":null,"payload":{"room_id":"r","host_id":"h"}}"#;
    assert_eq!(scope(host), Scope::User("h".into()));
    assert_eq!(
        scope(r#"{"event_type":"chat.event.note","payload":{"reader":"me","user_id":"you"}}"#),
        Scope::User("me".into())
    );
    assert_eq!(
        scope(r#"{"event_type":"world.delta","target":{"everyone":true},"payload":{"entity_id":1}}"#),
        Scope::Everyone
    );
}

/// A connection stands for its session, as the target or in the payload; for one that is gone the user is told, if the
/// payload names one and the target is not the connection itself.
#[test]
fn a_connection_stands_for_its_session() {
    let here = "02020202-0202-0202-0202-020202020202";
    let gone = "03030303-0303-0303-0303-030303030303";
    let target = |id: &str| {
        format!(
            r#"{{"event_type":"games.event.error","target":{{"connection_id":"{id}"}},"payload":{{"host_id":"h"}}}}"#
        )
    };
    assert_eq!(event(&target(here)).scope, Scope::Session(SESSION));
    for bad in [gone, "x"] {
        let error = read(&target(bad)).unwrap_err();
        assert_eq!(error.field(), Some("target.connection_id"), "{error}");
    }
    for field in ["socket_id", "connection_id"] {
        let payload = |id: &str, more: &str| {
            format!(r#"{{"event_type":"games.event.error","payload":{{"{field}":"{id}"{more}}}}}"#)
        };
        assert_eq!(event(&payload(here, r#","host_id":"h""#)).scope, Scope::Session(SESSION));
        for other in [gone, "12"] {
            assert_eq!(event(&payload(other, r#","host_id":"h""#)).scope, Scope::User("h".into()));
            assert_eq!(read(&payload(other, "")).unwrap_err().field(), Some("target"));
        }
    }
}

/// Effects and keys come from the fields that the table names; a key stands in front of the body where D wants it.
#[test]
fn effects_and_keys_come_from_the_payload() {
    let join = event(r#"{"event_type":"games.event.lobby_joined","payload":{"host_id":1,"room_id":"r"}}"#);
    assert_eq!(join.effect, Some(Effect::Join("r".into())));
    let kick = event(r#"{"event_type":"system.event.kick","payload":{"user_id":"bad"}}"#);
    assert_eq!(
        (kick.effect, kick.scope, kick.kind.frame_type, kick.body.len()),
        (Some(Effect::Kick), Scope::User("bad".into()), 0, 0)
    );
    let delta = event(r#"{"event_type":"world.delta","target":{"room_id":"r"},"payload":{"entity_id":"77","x":1}}"#);
    assert_eq!((delta.class, delta.key, delta.forgets), (Class::Delta, 77, false));
    assert_eq!(
        (&delta.body[..8], &delta.body[8..]),
        (77u64.to_le_bytes().as_slice(), br#"{"type":"world.delta","entity_id":"77","x":1}"#.as_slice())
    );
    let gone =
        event(r#"{"event_type":"games.event.despawned","target":{"room_id":"r"},"payload":{"entity_id":"orc"}}"#);
    assert_eq!((gone.class, gone.key, gone.forgets), (Class::Reliable, xxhash_rust::xxh3::xxh3_64(b"orc"), true));
    assert_eq!(gone.body[..8], gone.key.to_le_bytes());
    for (text, number) in [
        ("0", Some(0)),
        ("18446744073709551615", Some(u64::MAX)),
        ("18446744073709551616", None),
        ("007", None),
        ("+7", None),
        ("", None),
    ] {
        assert_eq!(
            event::delta_key(text),
            number.unwrap_or_else(|| xxhash_rust::xxh3::xxh3_64(text.as_bytes())),
            "{text:?}"
        );
    }
}

/// What cannot be delivered as meant is an error that says why; what gateways say among themselves is none.
#[test]
fn poison_is_refused() {
    assert!(read(r#"{"event_type":"system.gateway.started","payload":{}}"#).unwrap().is_none());
    for (text, error) in [
        ("nonsense", "the record is not a JSON object; send an envelope in UTF-8"),
        ("{}", "event_type is missing; the envelope needs it"),
        (r#"{"event_type":"x.y"}"#, "event_type is \"x.y\"; add an [[event]] entry for it to the type table"),
        (
            r#"{"event_type":"battle.event.timeline","payload":{}}"#,
            "battle.event.timeline names no target; give it \"target\" or the field that its [[event]] entry reads",
        ),
        (
            r#"{"event_type":"battle.event.timeline","target":{"room_id":"a b"}}"#,
            "target.room_id is \"a b\"; it must be 1–64 of A-Z a-z 0-9 . _ -",
        ),
        (
            r#"{"event_type":"battle.event.timeline","target":{"room_id":"a","only":["1"],"except":["2"]}}"#,
            "target.only is \"[\\\"1\\\"]\"; it must be left out where `except` is given",
        ),
        (
            r#"{"event_type":"battle.event.timeline","target":{"room_id":"a","except":"1"}}"#,
            "target.except is \"\\\"1\\\"\"; it must be a list of at most 1,024 user ids",
        ),
        (
            r#"{"event_type":"world.delta","target":{"room_id":"a","only":["1"]},"payload":{"entity_id":1}}"#,
            "target.only is \"[\\\"1\\\"]\"; it must be left out: a delta goes to everybody in its room",
        ),
        (
            r#"{"event_type":"world.delta","target":{"room_id":"a"},"payload":{"entity_id":null}}"#,
            "payload.entity_id is missing; the envelope needs it",
        ),
        (
            r#"{"event_type":"games.event.lobby_joined","target":{"session_id":"x"}}"#,
            "target.session_id is \"x\"; it must be a session's UUID",
        ),
    ] {
        assert_eq!(read(text).unwrap_err().to_string(), error, "{text}");
    }
}

/// An audience that is nested without end is poison like another, and ends no gateway.
#[test]
fn a_deep_audience_is_refused() {
    for (open, close) in [("[", "]"), (r#"{"a":"#, "}")] {
        let deep = format!("[{}0{}]", open.repeat(100_000), close.repeat(100_000));
        let text = format!(r#"{{"event_type":"battle.event.timeline","target":{{"room_id":"a","only":{deep}}}}}"#);
        let error = read(&text).unwrap_err().to_string();
        assert!(error.contains("a list of at most 1,024 user ids"), "{}", error.len());
    }
}

/// Audiences are lists of user ids, numbers among them; an empty `except` is none, an empty `only` is nobody.
#[test]
fn audiences_are_read() {
    let audience = |list: &str| {
        let text = format!(r#"{{"event_type":"battle.event.timeline","target":{{"room_id":"a",{list}}}}}"#);
        event(&text).audience.map(Arc::unwrap_or_clone)
    };
    assert_eq!(audience(r#""only":["x",7]"#), Some(frame::Audience::Only(["7".into(), "x".into()].into())));
    assert_eq!(audience(r#""only":["b","a","b"]"#), Some(frame::Audience::Only(["a".into(), "b".into()].into())));
    let many: Vec<u32> = (0..1024).rev().collect();
    let many = audience(&format!(r#""except":{many:?}"#)).unwrap();
    assert!((0..1024).all(|id: u32| !many.includes(&id.to_string())) && many.includes("1024") && many.includes("x"));
    assert_eq!(audience(r#""except":["x"],"only":null"#), Some(frame::Audience::Except(["x".into()].into())));
    assert_eq!(audience(r#""except":[]"#), None);
    assert!(!audience(r#""only":[]"#).unwrap().includes("x"));
}

/// What a service writes is read back as it was meant.
#[test]
fn events_are_read_back() {
    for scope in [Scope::Room("r".into()), Scope::User("u\"".into()), Scope::Session(SESSION), Scope::Everyone] {
        let mut out = Vec::new();
        put_event(&mut out, EventId([3; 16]), "battle.event.timeline", WallMillis(1), &scope, r#"{"n":1}"#);
        let got = event(std::str::from_utf8(&out).unwrap());
        assert_eq!((got.scope.clone(), body(&got)), (scope, r#"{"type":"battle.event.timeline","n":1}"#));
    }
}

/// Nesting as deep as a message can be neither recurses nor fails.
#[test]
fn deep_nesting_is_only_bytes() {
    let deep = format!(r#"{{"a":{}{},"b":1}}"#, "[".repeat(30_000), "]".repeat(30_000));
    let got = payload(&command(PayloadForm::Enriched, deep.as_bytes(), &[]));
    assert!(got.ends_with(r#"],"b":1}"#), "{}", &got[..80]);
    let _ = read(&format!(r#"{{"event_type":"battle.event.timeline","target":{{"room_id":"r"}},"payload":{deep}}}"#));
}

fn json_value() -> impl Strategy<Value = String> {
    let text = |any: String| {
        let mut out = Vec::new();
        put_string(&mut out, &any);
        String::from_utf8(out).unwrap()
    };
    let leaf = prop_oneof![
        Just("null".to_owned()),
        Just("true".to_owned()),
        any::<i32>().prop_map(|n| n.to_string()),
        any::<String>().prop_map(text),
        "[a-z\\\\\"{}\\[\\],: é]{0,8}".prop_map(text),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(|all| format!("[{}]", all.join(" , "))),
            proptest::collection::vec(("[a-z]{0,3}", inner), 0..4).prop_map(|all| {
                let members: Vec<_> = all.iter().map(|(key, value)| format!("\n\"{key}\" : {value}")).collect();
                format!("{{{}}}", members.join(","))
            }),
        ]
    })
}

proptest! {
    /// The members of any object are exactly those it was made of.
    #[test]
    fn members_are_what_the_object_was_made_of(all in proptest::collection::vec(("[a-z]{0,4}", json_value()), 0..6)) {
        let object = format!(" {{{}}}\n", all.iter().map(|(k, v)| format!(" \"{k}\"\t:{v} ")).collect::<Vec<_>>().join(","));
        prop_assert!(Json::default().check_object(object.as_bytes()).is_some());
        let got: Vec<_> = members::members(&object).map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
        prop_assert_eq!(got, all);
    }

    /// No bytes make the readers panic, and what is written of them is JSON.
    #[test]
    fn any_bytes_are_survived(bytes in prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..60),
        "[\\[\\]{}\",:\\\\a1 ]{0,40}".prop_map(String::into_bytes),
    ]) {
        written(&command(PayloadForm::Enriched, &bytes, &[]));
        written(&command(PayloadForm::Raw, &bytes, &[]));
        let text = String::from_utf8_lossy(&bytes);
        prop_assert!(members::members(&text).count() <= bytes.len());
        let _ = read(&text);
        let _ = parse_command(&bytes, &mut Json::default());
    }
}
