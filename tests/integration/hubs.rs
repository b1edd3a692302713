//! Dialect B end to end: tokens, the first state, chat, hidden events, one connection per player, resume, restarts.

use std::collections::BTreeSet;
use std::thread;

use rustix::process::Signal;
use serde_json::{Value, json};
use tungstenite::Message;

use crate::disk::DataDir;
use crate::hub::{Player, Ticket, call, create, create_for, join, open};
use crate::node::{DEADLINE, on_each_driver, until, until_within};
use crate::raw::{Raw, masked, reset};

/// The example of the seed: who connects with a valid token is in the hub, what one says reaches all in the envelope that
/// is promised, the sender included, and who was there before is told who comes and goes.
#[test]
fn chat_reaches_everybody() {
    on_each_driver(&["--resume-window-s", "1"], |gateway| {
        let mut ann = Player::host(gateway, "Ann");
        assert_eq!(ann.event("player_joined")["player_id"], *ann.ticket.player);
        let mut bob = ann.guest(gateway, "Bob");
        let told = json!({"player_id": bob.ticket.player, "display_name": "Bob"});
        assert_eq!(ann.event("player_joined"), told);
        let member = |player: &Player, name: &str| json!({"player_id": player.ticket.player, "display_name": name, "connected": true});
        assert_eq!(bob.joined["members"], json!([member(&ann, "Ann"), member(&bob, "Bob")]));
        assert_eq!((&bob.joined["code"], &bob.joined["max_players"]), (&json!(ann.ticket.code), &json!(10)));
        assert_eq!((&bob.joined["recovered"], &bob.joined["messages"]), (&json!(false), &json!([])));
        assert_eq!(bob.joined["stream"]["stream"], format!("rooms.events.0/room:{}", ann.ticket.room));
        ann.send(&json!({"type": "chat", "correlation_id": "c-1", "payload": {"message": "hi\u{7} there"}}));
        for player in [&mut ann, &mut bob] {
            let said = player.event("chat");
            let sent_at = said["sent_at"].as_str().unwrap().to_owned();
            let from = (&said["player_id"], &said["display_name"], &said["message"]);
            assert_eq!(from, (&told_by(player, &said), &json!("Ann"), &json!("hi there")), "{said}");
            assert!(sent_at.ends_with('Z'), "{said}");
        }
        ann.send(&json!({"type": "vote", "payload": {"approve": true, "player_id": "forged"}}));
        let vote = bob.event("vote");
        assert_eq!(vote, json!({"player_id": ann.ticket.player, "display_name": "Ann", "approve": true}));
        drop(bob);
        assert_eq!(ann.event("player_left"), told);
        ann.position().1 > 0
    });
}

fn told_by(player: &Player, said: &Value) -> Value {
    let known = player.joined["members"].as_array().unwrap().iter();
    known.map(|member| member["player_id"].clone()).find(|id| *id == said["player_id"]).expect("a member said it")
}

/// Guests who join while others join, leave and chat see every message exactly once and in the one order, in the first
/// state or behind it.
#[test]
fn guests_see_everything_once() {
    const WRITERS: usize = 5;
    const EACH: usize = 10;
    const GUESTS: usize = 8;
    let flags = ["--resume-window-s", "2", "--rooms-calls-per-minute", "100000"];
    on_each_driver(&flags, |gateway| {
        let gateway = &*gateway;
        let mut host = Player::connect(gateway, &create_for(gateway, "host", 100));
        let code = &*host.ticket.code.clone();
        let enter = |name: String| Player::connect(gateway, &join(gateway, code, &name));
        let (all, guests) = thread::scope(|scope| {
            for writer in 0..WRITERS {
                scope.spawn(move || {
                    let mut player = enter(format!("writer {writer}"));
                    for n in 0..EACH {
                        player.chat(&format!("{writer}.{n}"));
                        // Others pass by meanwhile.
                        drop(enter(format!("passer {writer}.{n}")));
                    }
                    assert_eq!(said(&mut player, &format!("{writer}.{}", EACH - 1)), 1);
                });
            }
            let guest = |guest: usize| {
                let mut player = enter(format!("guest {guest}"));
                let first = player.joined["messages"].as_array().unwrap().iter();
                let mut seen: Vec<_> = first.map(|message| message["message"].clone()).collect();
                while seen.len() < WRITERS * EACH {
                    seen.push(player.event("chat")["message"].clone());
                }
                seen
            };
            let guests: Vec<_> = (0..GUESTS).map(|n| scope.spawn(move || guest(n))).collect();
            let mut all = Vec::new();
            while all.len() < WRITERS * EACH {
                all.push(host.event("chat")["message"].clone());
            }
            (all, guests.into_iter().map(|guest| guest.join().unwrap()).collect::<Vec<_>>())
        });
        for seen in guests {
            assert_eq!(seen, all);
        }
        assert_eq!(all.iter().map(Value::to_string).collect::<BTreeSet<_>>().len(), WRITERS * EACH);
        all.len()
    });
}

/// Reads on until this was said; how often.
fn said(player: &mut Player, text: &str) -> usize {
    while player.event("chat")["message"] != text {}
    1
}

/// Events for some players alone leave every player's chain whole: who may not see one gets its place.
#[test]
fn hidden_events_leave_the_chain_whole() {
    on_each_driver(&[], |gateway| {
        let mut ann = Player::host(gateway, "Ann");
        let mut bob = ann.guest(gateway, "Bob");
        for player in [&mut ann, &mut bob] {
            while player.event("player_joined")["display_name"] != "Bob" {}
        }
        let room = ann.ticket.room.clone();
        let before = bob.position();
        let secret = |field: &str, player: &str, n: u32| {
            let target = json!({"room_id": room, field: [player]});
            json!({"event_type": "rooms.event.role", "target": target, "payload": {"n": n}}).to_string()
        };
        for n in 0..10 {
            gateway.publish(&secret("only", &ann.ticket.player, n));
            gateway.publish(&secret("except", &ann.ticket.player, 100 + n));
        }
        let end =
            json!({"event_type": "rooms.event.phase_changed", "target": {"room_id": room}, "payload": {"phase": 2}});
        gateway.publish(&end.to_string());
        for (player, first) in [(&mut ann, 0), (&mut bob, 100)] {
            for n in first..first + 10 {
                assert_eq!(player.event("role"), json!({"n": n}));
            }
            assert_eq!(player.event("phase_changed"), json!({"phase": 2}));
            assert_eq!(player.advances, 10);
        }
        let at = ann.position();
        assert_eq!(at, bob.position());
        // A replay hides the same.
        let mut again = Player::resume(gateway, &bob.ticket, before);
        assert_eq!(again.joined["recovered"], true, "{}", again.joined);
        for n in 100..110 {
            assert_eq!(again.event("role"), json!({"n": n}));
        }
        again.event("phase_changed");
        again.advances
    });
}

/// Who is kicked is told so, and the token opens nothing any more; the place is free for who joins anew, and only for one.
#[test]
fn a_kicked_player_needs_a_new_token() {
    on_each_driver(&[], |gateway| {
        let mut host = Player::connect(gateway, &create_for(gateway, "Ann", 2));
        let kick =
            |player: &str| json!({"event_type": "system.event.kick", "payload": {"user_id": player}}).to_string();
        let mut code = 0;
        for n in 0..3 {
            let mut bob = host.guest(gateway, "Bob");
            // Of who is kicked before the room was told of it nothing is said.
            while host.event("player_joined")["player_id"] != *bob.ticket.player {}
            gateway.publish(&kick(&bob.ticket.player));
            code = bob.closed().0;
            while host.event("player_left")["player_id"] != *bob.ticket.player {}
            for _ in 0..2 {
                let mut socket = open(gateway, &bob.ticket.path(), None).unwrap();
                let Message::Text(text) = socket.read().unwrap() else { panic!("{n}") };
                assert!(text.contains("auth_failed"), "{text}");
            }
            let mut again = host.guest(gateway, "Bob");
            again.chat("back");
            while host.event("chat")["player_id"] != *again.ticket.player {}
            let (status, body) =
                call(gateway, &format!("/api/rooms/{}/join", host.ticket.code), r#"{"display_name":"Eve"}"#);
            assert_eq!((status, &body["error"]["code"]), (409, &json!("room_full")));
            gateway.publish(&kick(&again.ticket.player));
            again.closed();
        }
        code
    });
}

/// A second connection of a player replaces the first, which is told 4409; nobody is told that the player left.
#[test]
fn a_player_has_one_connection() {
    on_each_driver(&[], |gateway| {
        let mut ann = Player::host(gateway, "Ann");
        let mut first = ann.guest(gateway, "Bob");
        first.chat("first");
        first.event("chat");
        let mut second = Player::connect(gateway, &first.ticket);
        assert_eq!(first.closed(), (4409, "replaced".into()));
        assert_eq!(second.joined["messages"][0]["message"], "first");
        second.chat("second");
        let mut heard = Vec::new();
        while heard.last().is_none_or(|last| *last != "second") {
            let message = ann.read();
            assert_ne!(message["event"], "player_left", "{message}");
            heard.push(message["payload"]["message"].clone());
        }
        // A crowd of connections of one player at once: one is left.
        let ticket = &second.ticket;
        let left: usize = thread::scope(|scope| {
            let tries: Vec<_> = (0..8).map(|_| scope.spawn(|| Player::try_connect(gateway, ticket))).collect();
            let players: Vec<_> = tries.into_iter().filter_map(|player| player.join().unwrap()).collect();
            players.into_iter().map(|mut player| usize::from(player.is_answered())).sum()
        });
        assert_eq!(left, 1);
        assert_eq!(second.closed().0, 4409);
        left
    });
}

/// Whoever has no valid token of this room is told so and closed 4401; a code that nobody has is 404 before the upgrade.
#[test]
fn forged_tokens_are_refused() {
    on_each_driver(&[], |gateway| {
        let (mine, other) = (create(gateway, "Ann"), create(gateway, "Eve"));
        let path = |ticket: &Ticket| format!("/ws/rooms/{}", ticket.code);
        let forged = format!("{}A", &mine.token[..mine.token.len() - 1]);
        let cases = [
            path(&mine),
            format!("{}?player_id={}", path(&mine), mine.player),
            format!("{}?player_id={}&token=", path(&mine), mine.player),
            format!("{}?player_id={}&token={forged}x", path(&mine), mine.player),
            format!("{}?player_id={}&token={}", path(&mine), mine.player, other.token),
            format!("{}?player_id={}&token={}", path(&mine), other.player, other.token),
            format!("{}?player_id={}&token={}", path(&mine), other.player, mine.token),
            format!("{}/connect?token={}x", path(&mine), "A".repeat(2000)),
        ];
        for path in &cases {
            let mut socket = open(gateway, path, None).unwrap();
            let Message::Text(text) = socket.read().unwrap() else { panic!("{path}") };
            let message: Value = serde_json::from_str(&text).unwrap();
            assert_eq!((&message["type"], &message["payload"]["code"]), (&json!("error"), &json!("auth_failed")));
            let Message::Close(Some(close)) = socket.read().unwrap() else { panic!("{path}") };
            assert_eq!((u16::from(close.code), &*close.reason), (4401, "unauthorized"));
        }
        for code in ["ABCDEF", "nowhere", "", "0OIL11"] {
            let (status, body) = open(gateway, &format!("/ws/rooms/{code}?token={}", mine.token), None).unwrap_err();
            assert_eq!(status, 404);
            assert!(body.contains(r#""code":"room_not_found""#), "{body}");
        }
        assert_eq!(open(gateway, &format!("{}&epoch=1", mine.path()), None).unwrap_err().0, 400);
        // The token alone says who it is; a header and lower case will do.
        let lower = format!("/ws/rooms/{}/connect", mine.code.to_lowercase());
        let mut socket = open(gateway, &lower, Some(&format!("Bearer {}", mine.token))).unwrap();
        let Message::Text(text) = socket.read().unwrap() else { panic!("no state") };
        assert!(text.starts_with(r#"{"type":"state","event":"joined""#), "{text}");
        assert!(!gateway.log().contains(&mine.token), "no token is logged");
        gateway.closes("unauthorized")
    });
}

/// Every wish that cannot be granted has its code and correlation, and the connection goes on; the third message within
/// a while that cannot be read closes 4400, a binary one 1003.
#[test]
fn refusals_have_their_codes() {
    on_each_driver(&[], |gateway| {
        let mut ann = Player::host(gateway, "Ann");
        let chat = |text: &str| json!({"type": "chat", "correlation_id": "c", "payload": {"message": text}});
        for (message, code) in [
            (json!({"type": "dance", "correlation_id": "c", "payload": {}}), "unknown_type"),
            (json!({"type": "chat", "correlation_id": "c"}), "bad_request"),
            (json!({"type": "system", "correlation_id": "c", "payload": {"op": "stop"}}), "bad_request"),
            (chat(""), "bad_request"),
            (chat(" "), "bad_request"),
            (chat(&"ä".repeat(2001)), "too_long"),
        ] {
            ann.send(&message);
            assert_eq!(ann.error(), (code.into(), json!("c")), "{message}");
        }
        ann.send(&chat(&"ä".repeat(2000)));
        assert_eq!(ann.event("chat")["message"].as_str().unwrap().chars().count(), 2000);
        assert!(ann.answer("ping")["timestamp"].as_str().unwrap().ends_with('Z'));
        let members = ann.answer("members")["members"].clone();
        assert_eq!(members, json!([{"player_id": ann.ticket.player, "display_name": "Ann", "connected": true}]));
        assert_eq!(ann.answer("history")["messages"].as_array().unwrap().len(), 1);
        for n in 0..30 {
            ann.chat(&n.to_string());
        }
        assert_eq!(ann.error().0, "rate_limited");
        for text in ["{", "[]"] {
            ann.send_text(text);
            while ann.error().0 != "bad_request" {}
        }
        ann.send_text("nonsense");
        assert_eq!(ann.closed(), (4400, "bad_request".into()));
        let mut again = Player::connect(gateway, &ann.ticket);
        again.send_message(Message::binary(vec![0; 24]));
        assert_eq!(again.closed().0, 1003);
        gateway.closes("unsupported_data")
    });
}

/// What is no message, and what has a field twice, of another kind or beyond its bounds, is answered `bad_request` with
/// the field or the place; the connection and the others go on. A WebSocket message that is no text at all closes with its
/// code.
#[test]
fn malformed_messages_are_answered() {
    let payload = |payload: &str| format!(r#"{{"type":"chat","payload":{payload}}}"#);
    let nested = format!("{}{}", "[".repeat(20_000), "]".repeat(20_000));
    let cases: Vec<(String, &str)> = vec![
        ("nonsense".into(), "not a JSON object"),
        ("{\"type\":\"chat\",".into(), "malformed JSON"),
        (r#"{"payload":{}}"#.into(), "type"),
        (r#"{"type":7,"payload":{}}"#.into(), "type"),
        (r#"{"type":"chat","type":"vote","payload":{}}"#.into(), "type: given twice"),
        (r#"{"type":"chat","payload":{"message":"a"},"payload":{}}"#.into(), "payload: given twice"),
        (payload(r#"{"message":"a","message":"b"}"#), "payload.message: given twice"),
        (payload(r#"{"message":["a"]}"#), "payload.message"),
        (payload(r#"{"message":7}"#), "payload.message"),
        (payload("[]"), "payload"),
        (payload(&format!(r#"{{"message":{nested}}}"#)), "malformed JSON"),
        (payload(&format!(r#"{{"message":"a","n":{}}}"#, "9".repeat(400))), "malformed JSON"),
        (payload(r#"{"message":"a","n":1e999}"#), "malformed JSON"),
        (payload(r#"{"message":"\ud800"}"#), "malformed JSON"),
        (format!(r#"{{"type":"chat","correlation_id":"{}","payload":{{}}}}"#, "c".repeat(65)), "correlation_id"),
        (r#"{"type":"system","payload":{"op":"ping","op":"members"}}"#.into(), "payload.op: given twice"),
        (r#"{"type":"system","payload":{"op":["ping"]}}"#.into(), "payload.op"),
    ];
    on_each_driver(&[], |gateway| {
        let mut bob = Player::host(gateway, "Bob");
        let ticket = join(gateway, &bob.ticket.code, "Ann");
        // Two within ten seconds are a connection's share.
        for pair in cases.chunks(2) {
            let mut ann = Player::connect(gateway, &ticket);
            for (text, part) in pair {
                ann.send_text(text);
                let (code, told, _) = ann.fault();
                let shown: String = text.chars().take(80).collect();
                assert_eq!(code, "bad_request", "{shown}: {told}");
                assert!(told.contains(part), "{shown}: {told}");
            }
            ann.answer("ping");
        }
        bob.answer("ping");
        let invalid = b"{\"type\":\"chat\",\"payload\":{\"message\":\"\xC0\xAF\"}}";
        let big = payload(&format!(r#"{{"message":"{}"}}"#, "x".repeat(64 << 10)));
        for (bytes, code) in [(masked(0x81, invalid), 1007), (masked(0x81, big.as_bytes()), 1009)] {
            let mut raw = Raw::upgraded(gateway, &ticket.path());
            raw.write(&bytes);
            assert_eq!(raw.closed(), code);
        }
        bob.answer("ping");
        cases.len()
    });
}

/// Behind a reset a player goes on from its position: what was said meanwhile comes once. A position that cannot be served
/// says why, and the player starts anew.
#[test]
fn a_reset_loses_nothing() {
    on_each_driver(&["--history-events", "30", "--queue-frames", "30"], |gateway| {
        let mut ann = Player::host(gateway, "Ann");
        let mut bob = ann.guest(gateway, "Bob");
        bob.chat("before");
        bob.event("chat");
        let at = bob.position();
        reset(bob.stream());
        let ticket = bob.ticket.clone();
        drop(bob);
        for n in 0..5 {
            ann.chat(&n.to_string());
            said(&mut ann, &n.to_string());
        }
        let mut bob = Player::resume(gateway, &ticket, at);
        assert_eq!(bob.joined["recovered"], true, "{}", bob.joined);
        assert_eq!((bob.joined["stream"]["epoch"].as_u64(), bob.position()), (Some(at.0), at));
        assert_eq!(bob.joined["messages"].as_array().unwrap().len(), 1, "what follows comes as events");
        for n in 0..5 {
            assert_eq!(bob.event("chat")["message"], n.to_string());
        }
        let lost = Player::resume(gateway, &ticket, (at.0 + 1, at.1));
        assert_eq!((&lost.joined["recovered"], &lost.joined["reason"]), (&json!(false), &json!("epoch_changed")));
        assert_eq!(lost.joined["messages"].as_array().unwrap().len(), 6);
        for n in 0..4 {
            let writer = Player::connect(gateway, &join(gateway, &ticket.code, &format!("w{n}")));
            let mut writer = writer;
            (0..10).for_each(|m| writer.chat(&format!("{n}.{m}")));
            said(&mut writer, &format!("{n}.9"));
        }
        let lost = Player::resume(gateway, &ticket, at);
        assert_eq!((&lost.joined["recovered"], &lost.joined["reason"]), (&json!(false), &json!("history_evicted")));
        let messages = lost.joined["messages"].as_array().unwrap();
        assert_eq!((messages.len(), &messages[45]["message"]), (46, &json!("3.9")));
        messages.len()
    });
}

/// Whatever position a player names, it reads nothing from before its session came in: a new session starts at the head,
/// one that was there before where it first came in, and both are told so.
#[test]
fn a_position_from_before_the_entry_is_not_served() {
    on_each_driver(&[], |gateway| {
        let mut ann = Player::host(gateway, "Ann");
        for text in ["early", "earlier still"] {
            ann.chat(text);
            said(&mut ann, text);
        }
        let (epoch, head) = ann.position();
        let ticket = join(gateway, &ann.ticket.code, "Bob");
        let mut bob = Player::resume(gateway, &ticket, (epoch, 0));
        assert_eq!((&bob.joined["recovered"], &bob.joined["reason"]), (&json!(false), &json!("expired")));
        assert_eq!(bob.event("player_joined")["display_name"], "Bob");
        let entry = bob.joined["stream"]["offset"].as_u64().unwrap();
        assert!(entry >= head);
        for text in ["one", "two"] {
            ann.chat(text);
            said(&mut bob, text);
        }
        let (_, place) = bob.position();
        // A connection without a position does not move the place of entry.
        let _fresh = Player::connect(gateway, &ticket);
        for (offset, recovered, reason, start) in [
            (0, false, json!("entered_later"), entry),
            (entry, true, Value::Null, entry),
            (place, true, Value::Null, place),
        ] {
            let mut bob = Player::resume(gateway, &ticket, (epoch, offset));
            assert_eq!((&bob.joined["recovered"], &bob.joined["reason"]), (&json!(recovered), &reason), "{offset}");
            assert_eq!(bob.joined["stream"]["offset"], start);
            let texts = if start == entry { &["one", "two"][..] } else { &[] };
            for text in texts {
                assert_eq!(bob.event("chat")["message"], *text);
            }
            ann.chat("end");
            assert_eq!(bob.event("chat")["message"], "end");
        }
    });
}

/// With `data_dir` a hub outlives kill -9: code, players, tokens, messages, and positions in its stream.
#[test]
fn hubs_survive_a_crash() {
    let dir = DataDir::new();
    for driver in ["uring", "monoio"] {
        let mut gateway = dir.start(&["--driver", driver]);
        let mut ann = Player::host(&gateway, "Ann");
        let later = join(&gateway, &ann.ticket.code, "Later");
        for n in 0..3 {
            ann.chat(&n.to_string());
            said(&mut ann, &n.to_string());
        }
        let at = ann.position();
        gateway.signal(Signal::KILL);
        gateway.ended();
        let mut gateway = dir.start(&["--driver", driver]);
        let mut ann = Player::resume(&gateway, &ann.ticket, (at.0, at.1 - 1));
        assert_eq!(ann.joined["recovered"], true, "{}", ann.joined);
        assert_eq!(ann.event("chat")["message"], "2");
        let mut second = Player::connect(&gateway, &later);
        let messages = second.joined["messages"].as_array().unwrap();
        let texts: Vec<_> = messages.iter().map(|message| message["message"].clone()).collect();
        assert_eq!(texts, ["0", "1", "2"]);
        second.chat("3");
        assert_eq!(said(&mut ann, "3"), 1);
        gateway.signal(Signal::KILL);
        gateway.ended();
    }
}

/// The records of hubs, those of the service and those of presence.
const HUB_RECORDS: &str = "records WHERE service IN ('hub', 'presence.hub')";

/// Hubs that were made, filled and left leave nothing: no code, no session, no row of any table.
#[test]
fn empty_hubs_leave_nothing() {
    const HUBS: usize = 40;
    let dir = DataDir::new();
    let flags = ["--resume-window-s", "1", "--rooms-calls-per-minute", "100000"];
    let gateway = dir.start(&flags);
    let mut codes = Vec::new();
    for n in 0..HUBS {
        let mut ann = Player::host(&gateway, "Ann");
        if n % 2 == 0 {
            let mut bob = ann.guest(&gateway, "Bob");
            ann.chat("hello");
            bob.event("chat");
            reset(bob.stream());
        }
        codes.push(ann.ticket.code.clone());
        // One is made and never entered.
        codes.push(create(&gateway, "Nobody").code);
    }
    let rows = || dir.rows("rooms") + dir.rows("room_players") + dir.rows("chat_messages") + dir.rows(HUB_RECORDS);
    assert!(rows() > 0, "hubs are in the store while they live");
    until("hubs have ended", || rows() == 0);
    for code in codes {
        assert_eq!(open(&gateway, &format!("/ws/rooms/{code}?token=x"), None).unwrap_err().0, 404);
    }
    until("sessions are gone", || gateway.metric("ringgate_sessions").iter().sum::<u64>() == 0);
    // A room's streams are looked at every 20 s.
    let history = || gateway.metric("ringgate_history_bytes").iter().sum::<u64>();
    until_within(2 * DEADLINE, "streams are gone", || history() == 0);
}
