//! The server API, as backends and operators use it.

use std::io::{BufRead, BufReader};
use std::process::Child;

use ringgate::message::Position;
use ringgate::protocol::frames::json::Hello;
use ringgate::protocol::frames::types;
use simd_json::prelude::*;

use crate::client::{Client, EVENT, keyed};
use crate::http::parse;
use crate::node::{API_KEY, Gateway, command, on_each_driver, until};

/// `chess.command.play`, whose row is in the file: no built-in service answers it.
const PLAY: u16 = 300;
const TYPES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/examples/chess.toml");
const JSON: &str = "application/json";
const NDJSON: &str = "application/x-ndjson";

fn event(room: &str, n: usize) -> String {
    format!(r#"{{"event_type":"games.event.test.step","target":{{"room_id":"{room}"}},"payload":{{"n":{n}}}}}"#)
}

/// Two backends follow the same commands, each by its own stream, and what one of them publishes reaches the room.
#[test]
fn outside_backends_serve_a_room() {
    on_each_driver(&["--config", TYPES], |gateway| {
        let mut publisher = Client::publisher(gateway, "server");
        publisher.join("board");
        let mut player = Client::player(gateway, "bob");
        let relay = player.join("board")[0];
        let mut early = gateway.follow("chess.commands?from=0&heartbeat_ms=100");
        assert_eq!(early.standing.get_str("topic"), Some("chess.commands"));
        assert!(early.line().unwrap().get("heartbeat").is_some(), "silence is told");
        for n in 1..=20 {
            player.command(PLAY, relay, n, format!("{{\"n\":{n},\n\"room_id\":\"other\"}}").as_bytes());
            assert_eq!(player.expect(types::ACK).header.number, n);
        }
        let mut late = gateway.follow("chess.commands?from=0");
        for n in 1..=20_u64 {
            let (first, second) = (early.record(), late.record());
            assert_eq!(first, second);
            assert_eq!(first.get_u64("place"), Some(n));
            assert_eq!(first.get_str("event_type"), Some("chess.command.play"));
            let payload = first.get("payload").unwrap();
            assert_eq!((payload.get_u64("n"), payload.get_str("room_id")), (Some(n), Some("board")));
        }
        let epoch = late.standing.get_u64("epoch").unwrap();
        let mut resumed = gateway.follow(&format!("chess.commands?from=15&epoch={epoch}"));
        assert_eq!(resumed.record().get_u64("place"), Some(16), "a place is where to go on");
        gateway.publish(&event("board", 7));
        for client in [&mut player, &mut publisher] {
            let frame = client.expect(types::EVENT);
            assert_eq!(frame.header.kind, 19);
            assert_eq!(frame.payload, br#"{"type":"games.event.test.step","n":7}"#);
        }
        20
    });
}

/// A backend that answers the connection a command came from, as its target or by the payload's `socket_id`, reaches that
/// session alone; the user is told where the connection is gone.
#[test]
fn a_backend_answers_a_connection() {
    on_each_driver(&["--config", TYPES], |gateway| {
        let mut publisher = Client::publisher(gateway, "server");
        publisher.join("board");
        let (mut one, mut other) = (Client::player(gateway, "bob"), Client::player(gateway, "bob"));
        let relay = one.join("board")[0];
        one.command(PLAY, relay, 1, b"{}");
        let command = gateway.follow("chess.commands?from=0").record();
        let id = command.get_str("connection_id").unwrap().to_owned();
        assert_eq!(command.get("payload").unwrap().get_str("socket_id"), Some(&*id));
        let answer = |n: usize, target: &str, socket: &str| {
            let payload = format!(r#"{{"socket_id":"{socket}","host_id":"bob","n":{n}}}"#);
            gateway.publish(&format!(r#"{{"event_type":"games.event.rooms_listed",{target}"payload":{payload}}}"#));
        };
        answer(1, &format!(r#""target":{{"connection_id":"{id}"}},"#), "x");
        answer(2, "", &id);
        answer(3, "", "00000000-0000-0000-0000-000000000001");
        let heard = |client: &mut Client| String::from_utf8(client.expect(EVENT.frame_type).payload).unwrap();
        // The session and the user are two streams, between which there is no order.
        let all: Vec<String> = (1..=3).map(|_| heard(&mut one)).collect();
        let place = |n: usize| all.iter().position(|text| text.contains(&format!("\"n\":{n}}}")));
        assert!((1..=3).all(|n| place(n).is_some()) && place(1) < place(2), "{all:?}");
        assert!(heard(&mut other).contains("\"n\":3}"), "it hears what is for the user alone");
        3
    });
}

/// A batch arrives in the order of its lines, each line is answered for itself, and what is sent again under the same
/// keys is shown once.
#[test]
fn batches_are_ordered_and_repeats_are_dropped() {
    on_each_driver(&[], |gateway| {
        let mut publisher = Client::publisher(gateway, "server");
        for room in ["a", "b"] {
            publisher.join(room);
        }
        let mut player = Client::player(gateway, "bob");
        player.join("a");
        let line = |n: usize| {
            let (room, key) = (["a", "b"][n % 2], format!(r#"{{"idempotency_key":"step {n}","#));
            event(room, n).replacen('{', &key, 1)
        };
        let batch: Vec<String> = (0..400).map(line).collect();
        let text = format!("{}\n\nnonsense\n{}", batch.join("\n"), event("a b", 1));
        let answers: Vec<String> = (0..2)
            .map(|_| {
                let answer = gateway.post("/api/events", NDJSON, &text);
                assert_eq!(answer.status, 200, "{answer:?}");
                answer.body
            })
            .collect();
        assert_eq!(answers[0], answers[1], "the same keys are the same events");
        let results: Vec<_> = answers[0].lines().map(parse).collect();
        assert_eq!(results.len(), 402);
        assert!(results[..400].iter().all(|result| result.get_str("event_id").is_some_and(|id| id.len() == 36)));
        let faults = [(400, None), (401, Some("target.room_id"))];
        for (at, field) in faults {
            let error = results[at].get("error").unwrap();
            assert_eq!((error.get_str("code"), error.get_str("field")), (Some("bad_request"), field));
        }
        gateway.publish(&event("a", 1000));
        for n in (0..400).step_by(2).chain([1000]) {
            let text = format!(r#"{{"type":"games.event.test.step","n":{n}}}"#);
            assert_eq!(String::from_utf8(player.expect(types::EVENT).payload).unwrap(), text);
        }
        results.len()
    });
}

/// `only` and `except` narrow an event to some users of its room, and the history names them.
#[test]
fn audiences_are_kept() {
    on_each_driver(&[], |gateway| {
        let mut publisher = Client::publisher(gateway, "server");
        publisher.join("board");
        let mut players = ["bob", "eve"].map(|user| Client::player(gateway, user));
        players.iter_mut().for_each(|player| drop(player.join("board")));
        for (n, audience) in [r#","only":["bob"]"#, r#","except":["bob"]"#, ""].into_iter().enumerate() {
            gateway.publish(&event("board", n).replacen("\"board\"", &format!("\"board\"{audience}"), 1));
        }
        for (player, seen) in players.iter_mut().zip([[0, 2], [1, 2]]) {
            for n in seen {
                let text = format!(r#"{{"type":"games.event.test.step","n":{n}}}"#);
                assert_eq!(String::from_utf8(player.expect(types::EVENT).payload).unwrap(), text);
            }
        }
        let page = gateway.get("/api/history/games.events.0/room:board").json();
        let events = page.get_array("events").unwrap();
        let named = |n: usize, field| events[n].get_array(field).map(|users| users[0].as_str().unwrap().to_owned());
        assert_eq!((named(0, "only"), named(1, "except")), (Some("bob".into()), Some("bob".into())));
        assert_eq!((named(2, "only"), named(2, "except")), (None, None));
        events.len()
    });
}

/// What has a field twice means two things, and is refused by that field.
#[test]
fn fields_given_twice_are_refused() {
    let gateway = &Gateway::start(&[]);
    for (path, body, field) in [
        (
            "/api/events",
            r#"{"event_type":"games.event.x","event_type":"system.event.kick","payload":{"room_id":"a"}}"#,
            "event_type",
        ),
        (
            "/api/events",
            r#"{"event_type":"games.event.x","target":{"room_id":"a"},"t\u0061rget":{"everyone":true},"payload":{}}"#,
            "target",
        ),
        ("/api/disconnect", r#"{"user_id":"u","user_id":"v"}"#, "user_id"),
        ("/api/disconnect", r#"{"user_id":"u","code":4000,"code":4001}"#, "code"),
    ] {
        let answer = gateway.post(path, JSON, body);
        assert_eq!(answer.error(), (400, "bad_request".into(), Some(field.into())), "{body}");
    }
}

/// Every refusal has its status, code and field, and the gateway goes on.
#[test]
fn refusals_are_named() {
    let gateway = &Gateway::start(&[]);
    gateway.publish(&event("board", 1));
    let long = format!(r#"{{"event_type":"games.event.x","payload":{{"room_id":"a","x":"{}"}}}}"#, "x".repeat(65_536));
    let (many, huge) = (format!("{}\n", event("a", 1)).repeat(1025), "x".repeat((1 << 20) + 1));
    let disconnect = |body: &str| gateway.post("/api/disconnect", JSON, body);
    let publish = |body: &str| gateway.post("/api/events", JSON, body);
    let no_connection = r#"{"connection_id":"00000000-0000-0000-0000-000000000009"}"#;
    for (answer, status, code, field) in [
        (publish("nonsense"), 400, "bad_request", None),
        (publish("{}"), 400, "bad_request", Some("event_type")),
        (publish(r#"{"event_type":"no.such.type","payload":{}}"#), 400, "bad_request", Some("event_type")),
        (publish(r#"{"event_type":"games.event.x","payload":{}}"#), 400, "bad_request", Some("target")),
        (
            publish(r#"{"event_type":"world.delta","payload":{"room_id":"a","entity_id":1}}"#),
            400,
            "bad_request",
            Some("event_type"),
        ),
        (
            publish(
                r#"{"event_type":"world.delta","target":{"room_id":"a","except":["u"]},"payload":{"entity_id":1}}"#,
            ),
            400,
            "bad_request",
            Some("target.except"),
        ),
        (
            publish(r#"{"event_type":"games.event.x","target":{"room_id":"a","only":[],"except":["u"]},"payload":{}}"#),
            400,
            "bad_request",
            Some("target.only"),
        ),
        (publish(&long), 413, "too_long", None),
        (publish(&huge), 413, "too_long", None),
        (gateway.post("/api/events", NDJSON, &many), 413, "too_long", None),
        (gateway.get("/api/log/no.such"), 404, "not_found", None),
        (gateway.get("/api/log/games.events?from=x"), 400, "bad_request", Some("from")),
        (gateway.get("/api/log/games.events?form=1"), 400, "bad_request", Some("form")),
        (gateway.get("/api/log/games.events?from=9"), 409, "epoch_changed", None),
        (gateway.get("/api/log/games.events?from=0&epoch=1"), 409, "epoch_changed", None),
        (disconnect("[]"), 400, "bad_request", Some("body")),
        (disconnect("{}"), 400, "bad_request", Some("user_id")),
        (disconnect(r#"{"user_id":"u","connection_id":"c"}"#), 400, "bad_request", Some("user_id")),
        (disconnect(r#"{"connection_id":"c"}"#), 400, "bad_request", Some("connection_id")),
        (disconnect(r#"{"user_id":"u","code":1001}"#), 400, "bad_request", Some("code")),
        (disconnect(r#"{"user_id":"u","code":5000}"#), 400, "bad_request", Some("code")),
        (
            disconnect(&format!(r#"{{"user_id":"u","reason":"{}"}}"#, "é".repeat(62))),
            400,
            "bad_request",
            Some("reason"),
        ),
        (disconnect(no_connection), 404, "not_found", None),
        (disconnect(&huge), 413, "too_long", None),
        (gateway.get("/api/presence/no%20room"), 400, "bad_request", Some("room")),
        (gateway.get("/api/presence/a?limit=0"), 400, "bad_request", Some("limit")),
        (gateway.get("/api/history/nothing"), 400, "bad_request", Some("stream")),
        (gateway.get("/api/history/relay/room:nowhere"), 404, "not_found", None),
        (gateway.get("/api/history/games.events.0/room:board?epoch=1"), 409, "epoch_changed", None),
        (gateway.get("/api/connections?sort=name"), 400, "bad_request", Some("sort")),
        (gateway.get("/api/nothing"), 404, "not_found", None),
        (gateway.get("/api/events"), 405, "method_not_allowed", None),
    ] {
        assert_eq!(answer.error(), (status, code.into(), field.map(str::to_owned)), "{answer:?}");
    }
    assert_eq!(disconnect(r#"{"user_id":"nobody"}"#).body, r#"{"disconnected":0}"#);
    let described = gateway.ask("GET /api/openapi.json HTTP/1.1\r\nHost: a\r\n\r\n", b"").json();
    assert_eq!(described.get_str("openapi"), Some("3.1.0"), "the description needs no key");
}

/// Without the right key nothing is answered but what to send; who guesses is held off, and then served again.
#[test]
fn keys_are_wanted() {
    let gateway = &Gateway::start(&[]);
    let with = |header: &str| gateway.ask(&format!("GET /api/connections HTTP/1.1\r\nHost: a\r\n{header}\r\n"), b"");
    let key = format!("Authorization: APIKEY {API_KEY}\r\n");
    for header in ["", "Authorization: Bearer x\r\n", "Authorization: apikey wrong\r\n"] {
        let answer = with(header);
        assert_eq!(answer.error(), (401, "unauthorized".into(), None));
        assert!(answer.head.contains("www-authenticate: apikey"), "{answer:?}");
    }
    assert_eq!(with(&key).status, 200);
    let guesses = (0..).map(|n| with(&format!("Authorization: apikey wrong-{n}\r\n")));
    let limited = guesses.take(30).find(|answer| answer.status != 401).expect("guesses are limited");
    assert_eq!(limited.error(), (429, "rate_limited".into(), None));
    assert!(limited.head.contains("retry-after: "), "{limited:?}");
    assert_eq!(with(&key).status, 429, "the right key is not looked at either");
    until("time has passed", || with(&key).status == 200);
    let mut without = command(&[]);
    without.env_remove("API_KEY");
    let answer = Gateway::spawn(without).get("/api/connections");
    assert!(answer.status == 401 && answer.body.contains("set API_KEY"), "{answer:?}");
}

/// Dev mode makes a key and prints it, and it opens.
#[test]
fn dev_mode_prints_a_key() {
    let mut dev = command(&["--dev"]);
    dev.env_remove("API_KEY").env_remove("JWT_SECRET");
    let mut child = Ended(dev.spawn().unwrap());
    let child = &mut child.0;
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut banner = String::new();
    while !banner.contains("curl") {
        banner += &lines.next().expect("a key is printed").unwrap();
        banner.push('\n');
    }
    let between = |from: &str, to: &str| {
        banner.split_once(from).unwrap_or_else(|| panic!("{from} in {banner}")).1.split_once(to).unwrap().0.to_owned()
    };
    let (key, health) = (between("server API, key ", ":"), between("health http://", "/"));
    let mut stream = std::net::TcpStream::connect(health).unwrap();
    let request = format!("GET /api/connections HTTP/1.1\r\nHost: a\r\nAuthorization: apikey {key}\r\n\r\n");
    std::io::Write::write_all(&mut stream, request.as_bytes()).unwrap();
    let answer = std::io::read_to_string(stream).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

/// A process that ends with its test.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Log streams are bounded in number; a place comes back when a reader goes.
#[test]
fn log_streams_are_bounded() {
    let gateway = &Gateway::start(&[]);
    let mut streams: Vec<_> = (0..16).map(|_| gateway.follow("games.events?heartbeat_ms=100")).collect();
    assert_eq!(gateway.get("/api/log/games.events").error().0, 503);
    assert_eq!(gateway.get("/api/connections").status, 200, "short requests have places of their own");
    streams.pop();
    until("a place is free", || {
        gateway.get("/api/log/games.events?from=9").error().0 == 409 && {
            let mut stream = std::net::TcpStream::connect(gateway.health).unwrap();
            let head =
                format!("GET /api/log/games.events HTTP/1.1\r\nHost: a\r\nAuthorization: apikey {API_KEY}\r\n\r\n");
            std::io::Write::write_all(&mut stream, head.as_bytes()).unwrap();
            let mut status = [0; 12];
            std::io::Read::read_exact(&mut stream, &mut status).unwrap();
            status == *b"HTTP/1.1 200"
        }
    });
}

/// A user is disconnected on whatever shard: 4403 ends the session, another code leaves it resumable; a single
/// connection is closed by its id.
#[test]
fn users_are_disconnected_across_shards() {
    on_each_driver(&[], |gateway| {
        let mut players = Vec::new();
        until("both shards have connections", || {
            players.push(Client::player(gateway, "bob"));
            gateway.metric("ringgate_sessions").iter().all(|sessions| *sessions >= 1)
        });
        let other = &mut Client::player(gateway, "eve");
        let disconnect = |body: &str| gateway.post("/api/disconnect", JSON, body);
        let count = players.len();
        let answer = disconnect(r#"{"user_id":"bob"}"#);
        assert_eq!(answer.body, format!(r#"{{"disconnected":{count}}}"#));
        for player in &mut players {
            assert_eq!(player.closed(), (4403, "kicked".into()));
            let mut again = Client::open(gateway);
            again.send(|out| {
                let hello = Hello { resume: Some(&player.resume), ..Hello::default() };
                ringgate::protocol::frames::client::hello(out, &hello);
            });
            assert_eq!(again.error().0, "auth_failed", "the session is gone");
        }
        for (code, reason) in [(4777, "häppy"), (1012, ""), (1000, "bye")] {
            let mut player = Client::player(gateway, "dan");
            let body = format!(r#"{{"user_id":"dan","code":{code},"reason":"{reason}"}}"#);
            assert_eq!(disconnect(&body).body, r#"{"disconnected":1}"#);
            assert_eq!(player.closed(), (code, reason.to_owned()));
            let positions = Vec::<Position>::new();
            assert!(Client::resumed(gateway, &player.resume, positions).recovered, "{code}");
        }
        let rows = gateway.get("/api/connections?limit=1000").json();
        let rows = rows.get_array("connections").unwrap();
        let row = rows.iter().find(|row| row.get_str("user_id") == Some("eve")).unwrap();
        let body = format!(r#"{{"connection_id":"{}"}}"#, row.get_str("connection_id").unwrap());
        assert_eq!(disconnect(&body).status, 200);
        assert_eq!(other.closed(), (4403, "kicked".into()));
        assert_eq!(disconnect(&body).error().0, 404);
        let mut again = Client::open(gateway);
        again.send(|out| {
            let hello = Hello { resume: Some(&other.resume), ..Hello::default() };
            ringgate::protocol::frames::client::hello(out, &hello);
        });
        assert_eq!(again.error().0, "auth_failed", "a single kick ends its session too");
        4
    });
}

/// Presence lists a room's sessions with their connections, and those that may still resume without one.
#[test]
fn presence_lists_a_room() {
    on_each_driver(&[], |gateway| {
        let room = || gateway.get("/api/presence/board?limit=2").json();
        assert_eq!(room().get_u64("total"), Some(0));
        let mut publisher = Client::publisher(gateway, "server");
        publisher.join("board");
        let mut players: Vec<_> = ["bob", "eve"].map(|user| Client::player(gateway, user)).into();
        players.iter_mut().for_each(|player| drop(player.join("board")));
        until("all are in", || room().get_u64("total") == Some(3));
        assert_eq!(room().get_array("members").unwrap().len(), 2, "as many as were asked for");
        drop(players.pop());
        let mut gone = Vec::new();
        until("eve is gone", || {
            let answer = gateway.get("/api/presence/board").json();
            let members = answer.get_array("members").unwrap();
            let away = members.iter().filter(|member| member.get_str("connection_id").is_none());
            gone = away.map(|member| member.get_str("user_id").unwrap().to_owned()).collect();
            assert_eq!(members.len(), 3);
            !gone.is_empty()
        });
        assert_eq!(gone, ["eve"]);
        3
    });
}

/// Histories are paged by place, of relay streams and of the bus's; what was evicted is told.
#[test]
fn histories_are_paged() {
    let flags = ["--history-events", "8", "--queue-frames", "4"];
    on_each_driver(&flags, |gateway| {
        let mut publisher = Client::publisher(gateway, "server");
        let relay = publisher.join("board")[0];
        for n in 1..=5_u64 {
            publisher.publish(EVENT, relay, n, format!("{{\"n\":{n}}}").as_bytes());
            assert_eq!(publisher.expect(types::ACK).header.number, n);
        }
        publisher.publish(EVENT, relay, 6, b"\xff");
        publisher.expect(types::ACK);
        let page = gateway.get("/api/history/relay/room:board?limit=4").json();
        let events = page.get_array("events").unwrap();
        assert_eq!(events.len(), 4);
        for (n, event) in (1..).zip(events) {
            assert_eq!(event.get("payload").unwrap().get_u64("n"), Some(n));
        }
        let after = page.get_u64("after").unwrap();
        assert_eq!(events[3].get_u64("place"), Some(after));
        let rest = gateway.get(&format!("/api/history/relay%2Froom%3Aboard?after={after}")).json();
        let events = rest.get_array("events").unwrap();
        assert_eq!((events.len(), events[1].get_str("data_base64")), (2, Some("/w==")));
        assert_eq!(rest.get_u64("after"), rest.get_u64("head"));
        for n in 0..20 {
            gateway.publish(&event("board", n));
        }
        let stream = "/api/history/games.events.0/room:board";
        let mut kept = 0;
        until("the last event is there", || {
            let page = gateway.get(stream).json();
            kept = page.get_array("events").map_or(0, Vec::len);
            page.get_u64("head") == Some(20)
        });
        assert_eq!(gateway.get(&format!("{stream}?after=0")).error().1, "history_evicted");
        let delta = keyed(1, b"x");
        publisher.publish(crate::client::DELTA, relay, 0, &delta);
        kept
    });
}

/// The connection with the longest queue comes first, and is called slow.
#[test]
fn connections_are_sorted_by_queue() {
    on_each_driver(&[], |gateway| {
        let mut publisher = Client::publisher(gateway, "server");
        let relay = publisher.join("board")[0];
        let mut stalled = Client::player(gateway, "snail");
        stalled.join("board");
        let mut reader = Client::player(gateway, "hare");
        reader.join("board");
        let payload = vec![b'x'; 60 << 10];
        for n in 1..=12 {
            publisher.publish(EVENT, relay, n, &payload);
            publisher.expect(types::ACK);
            reader.expect(types::EVENT);
        }
        let mut first = parse("null");
        until("a queue is there", || {
            let answer = gateway.get("/api/connections?sort=queued_bytes&limit=2").json();
            assert_eq!(answer.get_u64("total"), Some(3));
            let rows = answer.get_array("connections").unwrap();
            assert_eq!(rows.len(), 2);
            first = rows[0].clone();
            first.get_str("user_id") == Some("snail")
        });
        assert!(
            first.get_u64("queued_bytes") > Some(60 << 10) && first.get_u64("queued_reliable") > Some(0),
            "{first}"
        );
        assert_eq!((first.get_bool("slow"), first.get_str("dialect")), (Some(true), Some("frames")));
        first.get_u64("rooms")
    });
}
