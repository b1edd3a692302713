//! Sessions outlive the gateway with `data_dir`: after kill -9 or a drain every dialect resumes on the new process with
//! nothing lost and nothing doubled, or is told what is lost.

use std::collections::{BTreeMap, BTreeSet};
use std::thread;

use ringgate::protocol::frames::client::hello;
use ringgate::protocol::frames::json::Hello;
use ringgate::protocol::frames::types;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::client::{Client, EVENT};
use crate::disk::DataDir;
use crate::hub::Player;
use crate::json::Json;
use crate::node::{Gateway, command, token, until};

/// How a gateway ends, on both drivers.
const ENDS: [(Signal, &str); 2] = [(Signal::KILL, "uring"), (Signal::TERM, "monoio")];

impl DataDir {
    /// Session records with this text.
    pub fn sessions_with(&self, text: &str) -> u64 {
        let db = rusqlite::Connection::open(self.0.join("sessions.sqlite")).unwrap();
        db.busy_timeout(crate::node::DEADLINE).unwrap();
        let query = "SELECT COUNT(*) FROM records WHERE service = 'presence.session' AND instr(value, ?) > 0";
        db.query_row(query, [text.as_bytes()], |row| row.get(0)).unwrap()
    }

    /// Puts one text in place of another in the records that have a third.
    fn change_sessions(&self, from: &str, to: &str, with: &str) {
        let db = rusqlite::Connection::open(self.0.join("sessions.sqlite")).unwrap();
        let query = "UPDATE records SET value = CAST(replace(value, ?, ?) AS BLOB) WHERE instr(value, ?) > 0";
        assert_eq!(db.execute(query, [from.as_bytes(), to.as_bytes(), with.as_bytes()]).unwrap(), 1);
    }
}

fn end(mut gateway: Gateway, signal: Signal) {
    gateway.signal(signal);
    gateway.ended();
}

fn publish(gateway: &Gateway, events: &[Value]) {
    let lines: Vec<_> = events.iter().map(Value::to_string).collect();
    let answer = gateway.post("/api/events", "application/x-ndjson", &lines.join("\n"));
    assert_eq!(answer.status, 200, "{answer:?}");
}

fn step(room: &str, n: usize) -> Value {
    json!({"event_type": "games.event.test.step", "target": {"room_id": room}, "payload": {"n": n}})
}

/// Dialect A: the session comes back as it was, with its rooms; what was said before it was seen, while nobody ran and
/// before it came back comes once and in order; a command that is repeated is acknowledged and not done again.
#[test]
fn a_json_session_goes_on() {
    for (signal, driver) in ENDS {
        let dir = DataDir::new();
        let gateway = dir.start(&["--driver", driver]);
        let (mut ann, mut bob) = (Json::player(&gateway, "ann"), Json::player(&gateway, "bob"));
        let joins = json!({"event_type": "games.event.lobby_joined", "target": {"session_id": bob.session["session_id"]},
            "payload": {"room_id": "board"}});
        publish(&gateway, &[joins, step("board", 1)]);
        assert_eq!(bob.expect("games.event.test.step")["n"], 1);
        let says = json!({"type": "chat.command.send_message", "recipient_id": "bob", "content": "hi",
            "correlation_id": "c1"});
        ann.send(&says);
        ann.expect("system.ack");
        assert_eq!(bob.expect("chat.event.message_received")["content"], "hi");
        until("the room is kept", || dir.sessions_with("room:board") == 1);
        let (was, positions) = (bob.session.clone(), bob.positions());
        let anns = (ann.resume(), ann.positions());
        // Bob has not read these.
        publish(&gateway, &[step("board", 2), step("board", 3)]);
        drop((ann, bob));
        end(gateway, signal);
        let gateway = dir.start(&["--driver", driver]);
        publish(&gateway, &[step("board", 4)]);
        let mut ann = Json::resumed(&gateway, &anns.0, &anns.1);
        ann.send(&says);
        ann.expect("system.ack");
        let mut bob = Json::resumed(&gateway, was["resume"].as_str().unwrap(), &positions);
        assert_eq!((&bob.session["recovered"], &bob.session["rooms"]), (&json!(true), &json!(["board"])));
        for name in ["session_id", "user_id", "username", "roles", "resume"] {
            assert_eq!(bob.session[name], was[name], "{name}");
        }
        publish(&gateway, &[step("board", 5)]);
        for n in 2..=5 {
            assert_eq!(bob.expect("games.event.test.step")["n"], n, "the client holds the places to their chain");
        }
        let again = json!({"type": "chat.command.send_message", "recipient_id": "bob", "content": "bye"});
        ann.send(&again);
        assert_eq!(bob.expect("chat.event.message_received")["content"], "bye", "not hi once more");
        end(gateway, signal);
        presence_is_balanced(&dir);
    }
}

/// Of every connection that came it was said that it went, once, and nothing was said twice under two names.
fn presence_is_balanced(dir: &DataDir) {
    // Whose gateway was killed is told of by the next one.
    end(dir.start(&[]), Signal::TERM);
    let (mut came, mut went) = (BTreeMap::new(), BTreeMap::new());
    let mut ids = BTreeSet::new();
    for record in dir.records("gateway.presence") {
        let record: Value = serde_json::from_str(&record).unwrap();
        let payload = &record["payload"];
        let kind = payload["type"].as_str().unwrap();
        let counts = match kind {
            "connected" => &mut came,
            "disconnected" => &mut went,
            _ => continue,
        };
        if ids.insert(record["event_id"].as_str().unwrap().to_owned()) {
            *counts.entry(payload["connection_id"].as_str().unwrap().to_owned()).or_insert(0) += 1;
        }
    }
    assert!(!came.is_empty());
    assert_eq!(came, went);
}

/// Dialect D: a session whose streams are all on the bus goes on without a gap. One that was in an open room is told that
/// the room's own streams are numbered anew, whoever comes back first, and is in the room again: its publisher publishes
/// there without a new JOIN.
#[test]
fn a_frames_session_goes_on() {
    for (signal, driver) in ENDS {
        for publisher_first in [true, false] {
            let dir = DataDir::new();
            let gateway = dir.start(&["--driver", driver]);
            let mut publisher = Client::publisher(&gateway, "server");
            let relay = publisher.join("arena")[0];
            let mut player = Client::player(&gateway, "bob");
            player.join("arena");
            let loner = Client::player(&gateway, "eve");
            publisher.publish(EVENT, relay, 0, b"one");
            assert_eq!(player.expect(types::EVENT).payload, b"one");
            until("the room is kept", || dir.sessions_with("room:arena") == 2);
            publisher.publish(EVENT, relay, 5, b"two, which the player never reads");
            while publisher.expect(types::ACK).header.number != 5 {}
            let kept = [&publisher, &player, &loner].map(|client| (client.resume.clone(), client.positions()));
            drop((publisher, player, loner));
            end(gateway, signal);
            let gateway = dir.start(&["--driver", driver]);
            let resumed = |at: usize| Client::resumed(&gateway, &kept[at].0, kept[at].1.clone());
            assert!(resumed(2).recovered);
            let order = if publisher_first { [0, 1] } else { [1, 0] };
            let mut back = order.map(resumed);
            if !publisher_first {
                back.reverse();
            }
            let [mut publisher, mut player] = back;
            for client in [&publisher, &player] {
                assert_eq!((client.recovered, client.reason.as_deref()), (false, Some("epoch_changed")));
                assert_eq!(client.resume, kept[usize::from(std::ptr::eq(client, &player))].0, "the same session");
            }
            let (relay, players) = (publisher.joined()[0], player.joined());
            assert_eq!(players, [relay]);
            publisher.publish(EVENT, relay, 0, b"three");
            assert_eq!(player.expect(types::EVENT).payload, b"three");
            player.command(0x8000, relay, 9, b"move");
            assert_eq!(player.expect(types::ACK).header.number, 9);
            assert!(publisher.expect(types::PLAYER_COMMAND).payload.ends_with(b"move"));
            // What is left of the room is the new process's own: from here on it resumes as ever.
            let mut player = Client::resumed(&gateway, &player.resume, player.positions());
            assert!(player.recovered, "{:?}", player.reason);
            assert_eq!(player.joined(), [relay]);
        }
    }
}

/// Dialect B: players go on from their places; nobody hears that one left who came back, and all hear once that one did
/// who did not.
#[test]
fn hub_players_go_on() {
    for (signal, driver) in ENDS {
        let dir = DataDir::new();
        let flags = ["--driver", driver, "--resume-window-s", "6"];
        let gateway = dir.start(&flags);
        let mut ann = Player::host(&gateway, "Ann");
        let mut bob = ann.guest(&gateway, "Bob");
        let gone = ann.guest(&gateway, "Gone");
        while ann.event("player_joined")["player_id"] != *gone.ticket.player {}
        ann.chat("one");
        bob.event("chat");
        until("all are kept", || dir.sessions_with(&format!("room:{}", ann.ticket.room)) == 3);
        let (anns, bobs) = (ann.position(), bob.position());
        let tickets = [ann.ticket.clone(), bob.ticket.clone()];
        let left = gone.ticket.player.clone();
        drop((ann, bob, gone));
        end(gateway, signal);
        let gateway = dir.start(&flags);
        let mut ann = Player::resume(&gateway, &tickets[0], anns);
        ann.chat("two");
        let mut bob = Player::resume(&gateway, &tickets[1], bobs);
        for player in [&ann, &bob] {
            assert_eq!(player.joined["recovered"], true, "{}", player.joined);
        }
        bob.chat("three");
        let mut heard = Vec::new();
        while heard.last().is_none_or(|last: &Value| last["event"] != "player_left") {
            heard.push(bob.read());
        }
        let says = |text: &str| heard.iter().filter(|event| event["payload"]["message"] == text).count();
        assert_eq!(["one", "two", "three"].map(says), [0, 1, 1], "{heard:?}");
        assert_eq!(heard.last().unwrap()["payload"]["player_id"], *left);
        assert!(heard.iter().all(|event| event["event"] != "player_joined"), "{heard:?}");
    }
}

/// A game of dice between two clients goes on to its end over kills and drains, each in the middle of a roll that nobody
/// was told of: sent again under its id it is done once.
#[test]
fn a_game_goes_on_to_its_end() {
    const ROLLED: &str = "games.event.bigger_dice.rolled";
    let dir = DataDir::new();
    let mut gateway = dir.start(&[]);
    let mut players = ["ann", "bob"].map(|user| Json::player(&gateway, user));
    let create = json!({"type": "games.command.create_room", "game_type": "bigger_dice", "room_name": "Dice"});
    players[0].send(&create);
    let room = players[0].expect("games.event.room_created")["room_id"].clone();
    players[1].send(&json!({"type": "games.command.join_room", "room_name": "Dice"}));
    players[1].expect("games.event.lobby_joined");
    players.iter_mut().for_each(|player| is_in(player, &room));
    until("both are kept", || dir.sessions_with(&format!("room:{}", room.as_str().unwrap())) == 2);
    let (mut turn, mut scores, mut n) = (0, [0, 0], 0);
    let winner = loop {
        let roll =
            json!({"type": "games.command.bigger_dice.roll", "room_id": room, "correlation_id": format!("r{n}")});
        players[turn].send(&roll);
        if n % 4 == 2 {
            let kept = players.map(|player| (player.resume(), player.positions()));
            end(gateway, if n % 8 == 2 { Signal::KILL } else { Signal::TERM });
            gateway = dir.start(&[]);
            players = kept.map(|(resume, positions)| Json::resumed(&gateway, &resume, &positions));
            for player in &players {
                assert_eq!((&player.session["recovered"], &player.session["rooms"]), (&json!(true), &json!([room])));
            }
            players[turn].send(&roll);
        }
        let told = players.each_mut().map(|player| {
            let rolled = player.expect(ROLLED);
            assert_eq!(rolled["correlation_id"], format!("r{n}"), "{rolled}");
            scores[turn] = rolled["new_score"].as_u64().unwrap();
            loop {
                let next = player.read();
                match next["type"].as_str().unwrap() {
                    "games.event.turn_changed" | "games.event.game_ended" => break next,
                    "system.error" => panic!("{next}"),
                    _ => {}
                }
            }
        });
        assert_eq!(told[0], told[1]);
        if told[0]["type"] == "games.event.game_ended" {
            break told[0]["winner_id"].clone();
        }
        (turn, n) = (1 - turn, n + 1);
    };
    assert_eq!(winner, ["ann", "bob"][turn]);
    assert!(scores[turn] >= 50 && scores[1 - turn] < 50, "{scores:?}");
    end(gateway, Signal::TERM);
    let rolled = |event: &&String| event.contains(&format!("\"event_type\":\"{ROLLED}\""));
    let rolls = dir.records("games.events").iter().filter(rolled).count();
    assert_eq!(rolls, n + 1, "each roll once");
}

/// Asks until the gateway has let the player in, a moment after the event that says so.
fn is_in(player: &mut Json, room: &Value) {
    until("the player is in the room", || {
        player.send(&json!({"type": "rooms.command.members", "room_id": room, "correlation_id": "m"}));
        loop {
            let answer = player.read();
            if answer["correlation_id"] == "m" && answer["type"] != "system.ack" {
                break answer["type"] == "rooms.event.members";
            }
        }
    });
}

/// What ended does not come back: who was kicked, who left a room, whose window passed while nobody ran.
#[test]
fn what_ended_stays_ended() {
    let dir = DataDir::new();
    let flags = ["--resume-window-s", "3"];
    let gateway = dir.start(&flags);
    let mut publisher = Client::publisher(&gateway, "server");
    publisher.join("arena");
    let mut bob = Client::player(&gateway, "bob");
    bob.join("arena");
    let mut eve = Client::player(&gateway, "eve");
    until("they are kept", || dir.sessions_with("room:arena") == 2 && dir.sessions_with("eve") == 1);
    publish(&gateway, &[json!({"event_type": "system.event.kick", "target": {"user_id": "eve"}, "payload": {}})]);
    assert_eq!(eve.closed().0, 4403);
    bob.send(|out| ringgate::protocol::frames::client::leave(out, 3, "arena"));
    bob.expect(types::LEFT);
    until("it is noted", || dir.sessions_with("room:arena") == 1 && dir.sessions_with("\"user\":\"eve\"") == 0);
    let kept = (bob.resume.clone(), bob.positions());
    drop(bob);
    end(gateway, Signal::KILL);
    let gateway = dir.start(&flags);
    let mut again = Client::open(&gateway);
    again.send(|out| hello(out, &Hello { resume: Some(&eve.resume), ..Hello::default() }));
    assert_eq!(again.error().0, "auth_failed");
    let mut bob = Client::resumed(&gateway, &kept.0, kept.1);
    assert!(bob.recovered);
    bob.send(|out| ringgate::protocol::frames::client::leave(out, 4, "arena"));
    assert_eq!(bob.error(), ("not_in_room", 4));
    let kept = bob.resume.clone();
    // Still connected, so that the record's window begins when the process was last alive.
    end(gateway, Signal::KILL);
    drop(bob);
    dir.change_sessions("\"alive\":1", "\"alive\":", "\"alive\":");
    let gateway = dir.start(&flags);
    let mut bob = Client::open(&gateway);
    let token = token("bob", &[]);
    bob.hello(&Hello { token: Some(&token), resume: Some(&kept), ..Hello::default() });
    assert_eq!((bob.recovered, bob.reason.as_deref()), (false, Some("expired")));
    until("their rows are gone", || dir.sessions_with("") == 1);
}

/// A seat lasts as long as its session: where both were over before the gateway started again, so is the room.
#[test]
fn seats_end_with_their_sessions() {
    let dir = DataDir::new();
    let gateway = dir.start(&[]);
    let mut ann = Json::player(&gateway, "ann");
    ann.send(&json!({"type": "games.command.create_room", "game_type": "bigger_dice", "room_name": "Den"}));
    let room = ann.expect("games.event.room_created")["room_id"].clone();
    is_in(&mut ann, &room);
    let rooms =
        |like: &str| dir.rows(&format!("records WHERE service = 'rooms' AND CAST(value AS TEXT) LIKE '%{like}%'"));
    until("she surely has her seat", || rooms("\"until\":null") == 1);
    end(gateway, Signal::KILL);
    drop(ann);
    dir.change_sessions("\"alive\":1", "\"alive\":", "\"alive\":");
    let _gateway = dir.start(&[]);
    until("room and seat are gone", || rooms("") == 0);
}

/// A crowd comes back at once, twice: first half of it, whose gateway is killed again, then all; nobody is missing.
#[test]
fn a_crowd_comes_back() {
    const THREADS: usize = 4;
    const EACH: usize = 75;
    let dir = DataDir::new();
    let mut gateway = dir.start(&[]);
    let crowd = |come: &(dyn Fn(usize) -> Client + Sync), each: usize| -> Vec<Client> {
        thread::scope(|scope| {
            let part = |at: usize| scope.spawn(move || (0..each).map(|n| come(at * EACH + n)).collect::<Vec<_>>());
            let parts: Vec<_> = (0..THREADS).map(part).collect();
            parts.into_iter().flat_map(|part| part.join().unwrap()).collect()
        })
    };
    let all = crowd(&|n| Client::player(&gateway, &format!("p{n}")), EACH);
    let kept: Vec<_> = all.iter().map(|client| (client.resume.clone(), client.positions())).collect();
    for part in [EACH / 2, EACH] {
        end(gateway, Signal::KILL);
        gateway = dir.start(&[]);
        let back = crowd(&|n| Client::resumed(&gateway, &kept[n].0, kept[n].1.clone()), part);
        assert!(back.iter().all(|client| client.recovered));
        assert_eq!(dir.sessions_with("Attached"), (part * THREADS) as u64);
    }
    assert_eq!(dir.sessions_with(""), (EACH * THREADS) as u64);
}

/// Session records of a form that this build does not know end the start with what to do; one that does not read ends that
/// session, says so in the log, and nothing else.
#[test]
fn records_that_do_not_read_are_named() {
    let dir = DataDir::new();
    let gateway = dir.start(&[]);
    let (ann, bob) = (Client::player(&gateway, "ann"), Client::player(&gateway, "bob"));
    end(gateway, Signal::KILL);
    dir.change_sessions("token", "nekot", "\"user\":\"ann\"");
    let gateway = dir.start(&[]);
    assert!(gateway.log().contains("a session's record does not read"), "{}", gateway.log());
    assert!(Client::resumed(&gateway, &bob.resume, bob.positions()).recovered);
    let mut lost = Client::open(&gateway);
    lost.send(|out| hello(out, &Hello { resume: Some(&ann.resume), ..Hello::default() }));
    assert_eq!(lost.error().0, "auth_failed");
    end(gateway, Signal::KILL);
    dir.change_sessions("\"schema\":1", "\"schema\":2", "schema");
    let output = command(&["--data-dir", dir.0.to_str().unwrap()]).output().unwrap();
    let refusal = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success());
    let told =
        "sessions.sqlite: its session records are of schema 2, this ringgate's is 1; start the ringgate that wrote it";
    assert!(refusal.contains(told), "{refusal}");
}
