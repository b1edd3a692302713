//! The worker against a bus that refuses, repeats and is full of other people's commands, and against crashes.

mod properties;
pub mod rig;

use std::time::Duration;

use super::dispatch::GAMES;
use super::*;
use rig::{NOW, Shared, command, room_of, spin, try_worker, worker};

fn start(id: u32, room: &str, events: u32, interval_ms: u32) -> Vec<u8> {
    let payload = format!(r#"{{"room_id":"{room}","events":{events},"interval_ms":{interval_ms}}}"#);
    command(id, "battle.command.start", 9, 9, &payload)
}

fn games(commands: Vec<Vec<u8>>) -> Shared {
    let shared = Shared::default();
    for command in commands {
        shared.0.lock().unwrap().put(GAMES, 0, command);
    }
    shared
}

fn events(shared: &Shared) -> Vec<String> {
    shared.0.lock().unwrap().texts("games.events")
}

fn done(shared: &Shared) -> u64 {
    shared.0.lock().unwrap().done[GAMES]
}

/// A battle's events are envelopes with id, type, time, target and payload, and the turn names the next one's time.
#[test]
fn a_command_becomes_events() {
    let shared = games(vec![start(1, "arena", 2, 50)]);
    let mut worker = worker(&shared);
    assert_eq!(worker.turn(NOW, WallMillis(0)), NOW);
    let next = worker.turn(NOW, WallMillis(0));
    assert_eq!(next, NOW + Duration::from_millis(50));
    spin(&mut worker, 50);
    assert_eq!(worker.turn(next, WallMillis(50)), Monotonic::NEVER);
    let events = events(&shared);
    assert_eq!(events.len(), 3);
    assert!(events[0].starts_with(r#"{"event_id":""#), "{}", events[0]);
    let first = r#""event_type":"battle.event.timeline","timestamp":"1970-01-01T00:00:00.000Z","target":{"room_id":"arena"},"payload":{"room_id":"arena","battle_id":""#;
    assert!(events[0].contains(first), "{}", events[0]);
    assert!(events[2].contains(r#""event_type":"battle.event.end""#) && events[2].ends_with(r#""events":2}}"#));
    assert_eq!(worker.battles(), 0);
}

/// A repeated command is done once, also by a worker that is started anew; other games' commands and unreadable ones hold
/// nothing up.
#[test]
fn commands_are_done_once_and_others_left_alone() {
    let commands = vec![
        start(1, "a", 1, 0),
        b"nonsense".to_vec(),
        command(2, "games.command.chess.move", 9, 9, "{}"),
        start(1, "a", 1, 0),
        command(3, "battle.command.start", 9, 9, "{}"),
    ];
    let shared = games(commands);
    spin(&mut worker(&shared), 0);
    shared.0.lock().unwrap().put(GAMES, 1000, start(1, "a", 1, 0));
    spin(&mut worker(&shared), 1000);
    let events = events(&shared);
    assert_eq!(events.iter().filter(|event| event.contains("battle.event.timeline")).count(), 1);
    assert_eq!(events.iter().filter(|event| event.contains("games.event.error")).count(), 1);
    assert_eq!((events.len(), done(&shared)), (3, 6));
}

/// A worker that is started anew and finds nothing to do tells the bus at once how far it is, or the bus would count it
/// as far behind and refuse every command.
#[test]
fn a_worker_that_starts_tells_how_far_it_is() {
    let shared = games(vec![start(1, "a", 1, 0)]);
    spin(&mut worker(&shared), 0);
    shared.0.lock().unwrap().done.clear();
    assert_eq!(worker(&shared).turn(NOW, WallMillis(1)), Monotonic::NEVER, "there is nothing to do");
    assert_eq!(done(&shared), 1);
}

/// A worker that cannot read what it was about to do refuses to start, rather than skip it; once it can, nothing is missing
/// and nothing comes twice. What it looks back on it reads in pieces.
#[test]
fn nothing_is_skipped_that_cannot_be_read() {
    let commands = (1..=1000).map(|id| start(id, &format!("r{id}"), 1, 0));
    let whole = games(commands.clone().collect());
    spin(&mut worker(&whole), 0);
    let shared = games(commands.collect());
    let mut crashed = worker(&shared);
    // So that a plan is written down and half carried out.
    shared.0.lock().unwrap().fuse = Some(300);
    for _ in 0..100 {
        crashed.turn(NOW, WallMillis(0));
    }
    drop(crashed);
    shared.0.lock().unwrap().fuse = None;
    let done = done(&shared);
    assert!(done > 64 && done < 1000, "{done}");
    for unreadable in [(GAMES, done + 1), (GAMES, done), (GAMES, done - 1), ("games.events", 3)] {
        shared.0.lock().unwrap().unreadable = Some(unreadable);
        let error = try_worker(&shared).unwrap_err();
        assert!(error.contains(unreadable.0) && error.contains("cannot be read at"), "{error}");
    }
    shared.0.lock().unwrap().unreadable = None;
    spin(&mut worker(&shared), 0);
    assert_eq!(events(&shared), events(&whole));
    shared.0.lock().unwrap().read_most = 0;
    worker(&shared);
    assert!((1..=256).contains(&shared.0.lock().unwrap().read_most));
}

/// A log that cannot be read for a while stops the services and loses nothing: they look again by themselves, no deadline
/// comes before the commands that nobody could read, and these are done when they can be.
#[test]
fn services_wait_for_a_log_that_cannot_be_read() {
    let commands = || vec![start(1, "a", 3, 1000), start(2, "b", 1, 5), start(3, "c", 1, 6)];
    let whole = games(commands());
    spin(&mut worker(&whole), 9000);
    let shared = games(commands());
    let mut worker = worker(&shared);
    shared.0.lock().unwrap().unreadable = Some((GAMES, 1));
    for wall in [0, 500, 8000] {
        let mut next = NOW;
        while next == NOW {
            next = worker.turn(NOW, WallMillis(wall));
        }
        assert!(next <= NOW + STORE_RETRY, "nobody else wakes it");
    }
    let early = events(&shared);
    assert!(early.len() < events(&whole).len() && !early.iter().any(|event| event.contains(r#""n":2"#)), "{early:?}");
    shared.0.lock().unwrap().unreadable = None;
    spin(&mut worker, 9000);
    // Each room's in its order; the rooms were carried out at other times.
    let sorted = |shared: &Shared| {
        let mut events = events(shared);
        events.sort_by_key(|event| ["a", "b", "c"].map(|room| event.contains(&format!(r#""room_id":"{room}""#))));
        events
    };
    assert_eq!(sorted(&shared), sorted(&whole));
}

/// Where the log was brought back from an older copy, its new commands are carried out, not taken for old ones.
#[test]
fn commands_behind_a_log_that_was_cut_are_done() {
    let shared = games(vec![start(1, "a", 1, 0), start(2, "a", 1, 0), start(3, "a", 1, 0)]);
    spin(&mut worker(&shared), 0);
    shared.0.lock().unwrap().topics.get_mut(GAMES).unwrap().truncate(1);
    let mut worker = worker(&shared);
    spin(&mut worker, 1);
    shared.0.lock().unwrap().put(GAMES, 2, start(4, "a", 1, 0));
    let before = events(&shared).len();
    spin(&mut worker, 2);
    assert_eq!(events(&shared).len(), before + 2);
}

/// A full bus stops the services without losing or repeating an event, and without memory for what waits.
#[test]
fn a_full_bus_slows_the_services() {
    let shared = games(vec![start(1, "a", 1000, 0), start(2, "b", 1000, 0)]);
    shared.0.lock().unwrap().room_for = Some(0);
    let mut worker = worker(&shared);
    let mut refusals = 0;
    while events(&shared).len() < 2002 {
        if worker.turn(NOW, WallMillis(0)) == Monotonic::NEVER {
            refusals += 1;
            assert!(worker.pending.len() <= EVENTS_PER_BATCH);
            shared.0.lock().unwrap().room_for = Some(17);
        }
    }
    assert!(refusals > 100);
    let all = events(&shared);
    for room in ["a", "b"] {
        let of_room = format!(r#""target":{{"room_id":"{room}"}}"#);
        let events: Vec<_> = all.iter().filter(|event| event.contains(&of_room)).collect();
        assert_eq!(events.len(), 1001);
        for (at, event) in events[..1000].iter().enumerate() {
            assert!(event.ends_with(&format!(r#""n":{}}}}}"#, at + 1)), "{event}");
        }
    }
}

/// A command counts as done only once its own events are accepted.
#[test]
fn a_command_is_done_behind_its_events() {
    let shared = games(vec![command(3, "battle.command.start", 9, 9, "{}")]);
    shared.0.lock().unwrap().room_for = Some(0);
    let mut worker = worker(&shared);
    assert_eq!(worker.turn(NOW, WallMillis(0)), Monotonic::NEVER);
    assert_eq!((done(&shared), events(&shared).len()), (0, 0));
    shared.0.lock().unwrap().room_for = Some(1);
    spin(&mut worker, 0);
    assert_eq!((done(&shared), events(&shared).len()), (1, 1));
}

fn create(id: u32, user: u8, name: &str, password: &str) -> Vec<u8> {
    let payload = format!(r#"{{"game_type":"bigger_dice","room_name":"{name}","password":{password}}}"#);
    command(id, "games.command.create_room", user, user, &payload)
}

fn join(id: u32, user: u8, name: &str, password: &str) -> Vec<u8> {
    let payload = format!(r#"{{"room_name":"{name}","password":{password}}}"#);
    command(id, "games.command.join_room", user, user, &payload)
}

/// The types of the events and whom they address, without ids.
fn shown(events: &[String]) -> Vec<String> {
    let field = |event: &str, name: &str| {
        let from = event.find(&format!("\"{name}\":")).unwrap() + name.len() + 3;
        event[from..].split([',', '}']).next().unwrap().trim_matches(['{', '"']).replace('"', "").to_owned()
    };
    events.iter().map(|event| format!("{} {}", field(event, "event_type"), field(event, "target"))).collect()
}

/// Create and join a room: each event with its target, the members before the session that joins.
#[test]
fn a_room_is_created_and_joined() {
    let shared =
        games(vec![create(1, 1, "My Room", "null"), join(2, 2, "My Room", "null"), join(3, 3, "None", "null")]);
    spin(&mut worker(&shared), 0);
    let (room, all) = (room_of(1), events(&shared));
    let session = |n| format!("session_id:00000000-0000-0000-0000-00000000000{n}");
    let expected = [
        format!("games.event.room_created {}", session(1)),
        format!("games.event.player_joined room_id:{room}"),
        format!("games.event.lobby_joined {}", session(2)),
        format!("games.event.error {}", session(3)),
    ];
    assert_eq!(shown(&all), expected);
    let created = format!(
        r#""payload":{{"room_id":"{room}","room_name":"My Room","game_type":"bigger_dice","host_id":"u1","host_name":"U1","is_password_protected":false,"max_players":6,"correlation_id":"c1"}}}}"#
    );
    assert!(all[0].ends_with(&created), "{}", all[0]);
    let players = r#""player":{"user_id":"u2","username":"U2"},"players":[{"user_id":"u1","username":"U1"},{"user_id":"u2","username":"U2"}]"#;
    assert!(all[2].contains(players), "{}", all[2]);
    assert!(all[3].contains(r#""code":"room_not_found""#) && all[3].contains(r#""correlation_id":"c3""#), "{}", all[3]);
}

/// A password opens its room; a wrong or missing one is answered late, and after a few nothing is tried any more.
#[test]
fn a_password_guards_its_room() {
    let shared = games(vec![create(1, 1, "a", "\"open sesame\"")]);
    let mut worker = worker(&shared);
    spin(&mut worker, 0);
    let put = |at, command| shared.0.lock().unwrap().put(GAMES, at, command);
    put(10, join(2, 2, "a", "\"open sesame\""));
    put(10, join(3, 3, "a", "\"open says me\""));
    put(10, join(4, 3, "a", "null"));
    spin(&mut worker, 1009);
    let count = |text: &str| events(&shared).iter().filter(|event| event.contains(text)).count();
    assert_eq!((count("lobby_joined"), count("wrong_password")), (1, 0));
    spin(&mut worker, 1010);
    assert_eq!(count("wrong_password"), 2);
    for id in 5..10 {
        put(2000, join(id, 3, "a", "\"x\""));
    }
    spin(&mut worker, 10_000);
    assert_eq!((count("wrong_password"), count("rate_limited")), (5, 2));
    put(61_000, join(10, 3, "a", "\"open sesame\""));
    spin(&mut worker, 61_000);
    assert_eq!(count("lobby_joined"), 2);
    let disk = shared.0.lock().unwrap();
    let stored = disk.records.values().map(|value| String::from_utf8_lossy(value).into_owned());
    assert!(stored.chain(disk.texts("games.events")).all(|text| !text.contains("sesame")));
}

/// A field that is no text is refused by its name and not taken for one that is missing: a room whose password is a list
/// is not open to all.
#[test]
fn fields_of_another_kind_are_refused() {
    let shared = Shared::default();
    let mut worker = worker(&shared);
    let cases = [
        (
            GAMES,
            "games.command.create_room",
            r#"{"game_type":"x","room_name":"a","password":["open sesame"]}"#,
            "password",
        ),
        (GAMES, "games.command.create_room", r#"{"game_type":"x","room_name":{},"password":"p"}"#, "room_name"),
        (GAMES, "games.command.create_room", r#"{"game_type":true,"room_name":"a"}"#, "game_type"),
        (GAMES, "games.command.create_room", r#"{"game_type":"x","room_name":"a","max_players":[2]}"#, "max_players"),
        (GAMES, "games.command.join_room", r#"{"room_name":["a"]}"#, "room_name"),
        (GAMES, "games.command.join_room", r#"{"room_name":"a","password":false}"#, "password"),
        (GAMES, "games.command.leave_room", r#"{"room_id":{}}"#, "room_id"),
        (GAMES, "games.command.bigger_dice.roll", r#"{"room_id":[]}"#, "room_id"),
        (GAMES, "games.command.list_rooms", r#"{"game_type":["x"]}"#, "game_type"),
        ("chat.commands", "chat.command.send_message", r#"{"recipient_id":["u2"],"content":"x"}"#, "recipient_id"),
        ("chat.commands", "chat.command.send_message", r#"{"recipient_id":"u2","content":{"x":1}}"#, "content"),
        ("chat.commands", "chat.command.send_lobby_message", r#"{"lobby_id":"a","content":[]}"#, "content"),
        ("rooms.commands", "rooms.command.chat", r#"{"room_id":"a","message":true}"#, "message"),
    ];
    for (at, (topic, event_type, payload, field)) in cases.iter().enumerate() {
        let id = 1 + at as u32;
        shared.0.lock().unwrap().put(topic, 5, command(id, event_type, 1, 1, payload));
        spin(&mut worker, 5);
        let all = events(&shared);
        assert_eq!(all.len(), at + 1, "{event_type} {payload}: {all:?}");
        let told = format!(r#""code":"bad_request","message":"{field} is neither a string nor a number"#);
        assert!(all[at].contains(&told) && all[at].contains(&format!(r#""correlation_id":"c{id}""#)), "{}", all[at]);
    }
    shared.0.lock().unwrap().put(GAMES, 5, create(50, 1, "a", "null"));
    spin(&mut worker, 5);
    assert!(events(&shared)[cases.len()].contains("room_created"), "the name is free");
}

fn sighting(id: u32, kind: &str, user: u8, room: Option<&str>) -> Vec<u8> {
    let room = room.map(|room| format!(r#","room_id":"{room}""#)).unwrap_or_default();
    let payload = format!(r#"{{"type":"{kind}","reason":"connection_lost"{room}}}"#);
    command(id, &format!("gateway.presence.{kind}"), user, user, &payload)
}

/// A player who loses the connection keeps the seat for the resume window and then leaves, whose turn it was passes; one
/// who comes back in time stays; who never was seen leaves as well; the empty room ends a window later.
#[test]
fn seats_are_held_for_the_resume_window() {
    let room = room_of(1);
    let roll =
        |id, user| command(id, "games.command.bigger_dice.roll", user, user, &format!(r#"{{"room_id":"{room}"}}"#));
    let shared = games(vec![create(1, 1, "a", "null"), join(2, 2, "a", "null"), join(3, 3, "a", "null"), roll(4, 1)]);
    let mut worker = worker(&shared);
    spin(&mut worker, 0);
    let see = |at, record| shared.0.lock().unwrap().put("gateway.presence", at, record);
    for user in 1..=3 {
        see(1, sighting(10 + u32::from(user), "joined", user, Some(&room)));
    }
    see(1000, sighting(20, "disconnected", 2, None));
    see(1000, sighting(21, "disconnected", 3, None));
    see(2000, sighting(22, "connected", 3, None));
    spin(&mut worker, 300_999);
    assert!(!shown(&events(&shared)).iter().any(|event| event.contains("player_left")));
    spin(&mut worker, 301_000);
    let all = shown(&events(&shared));
    let ends = [format!("games.event.player_left room_id:{room}"), format!("games.event.turn_changed room_id:{room}")];
    assert_eq!(all[all.len() - 2..], ends);
    assert!(events(&shared).last().unwrap().contains(r#""player_id":"u3""#));
    see(400_000, sighting(23, "disconnected", 1, None));
    see(400_000, sighting(24, "disconnected", 3, None));
    spin(&mut worker, 700_000);
    assert_eq!((shown(&events(&shared)).len(), worker.rooms()), (all.len() + 3, 1), "two leave, one wins");
    spin(&mut worker, 1_000_000);
    assert_eq!(worker.rooms(), 0);
}

/// A whole game: everybody rolls in turn until one has 50, who has won; then the host may start another.
#[test]
fn a_game_is_played_to_its_end() {
    let room = room_of(1);
    let roll =
        |id, user| command(id, "games.command.bigger_dice.roll", user, user, &format!(r#"{{"room_id":"{room}"}}"#));
    let shared = games(vec![create(1, 1, "a", "null"), roll(2, 1), join(3, 2, "a", "null"), roll(4, 2)]);
    let mut worker = worker(&shared);
    spin(&mut worker, 0);
    let refused = events(&shared).iter().filter(|event| event.contains("game_not_started")).count();
    assert_eq!(refused, 2, "alone, and not the host");
    let mut rolls = 0;
    while !events(&shared).iter().any(|event| event.contains("game_ended")) {
        shared.0.lock().unwrap().put(GAMES, 0, roll(100 + rolls, (rolls % 2) as u8 + 1));
        rolls += 1;
        assert!(rolls <= 99, "one has 50 by then");
        spin(&mut worker, 0);
    }
    let rolled = events(&shared).iter().filter(|event| event.contains("bigger_dice.rolled")).count();
    assert!(rolled == rolls as usize && rolls >= 17, "{rolls}");
    assert!(events(&shared).iter().all(|event| !event.contains("not_your_turn")));
    shared.0.lock().unwrap().put(GAMES, 0, roll(500, 1));
    spin(&mut worker, 0);
    assert_eq!(events(&shared).iter().filter(|event| event.contains("game_started")).count(), 2);
}

/// With the records on disk a worker that is started anew goes on where the former was: the room is there, its password
/// and its game, and its dice go on; who does not come back leaves after a window.
#[test]
fn a_file_brings_the_rooms_back() {
    use crate::store::{SqliteStore, StoreSettings};
    let file = std::env::temp_dir().join(format!("ringgate-services-{}.sqlite", std::process::id()));
    let room = room_of(1);
    let roll =
        |id, user| command(id, "games.command.bigger_dice.roll", user, user, &format!(r#"{{"room_id":"{room}"}}"#));
    let shared = games(vec![create(1, 1, "a", "\"open sesame\"")]);
    let open = |restarted| {
        let store = SqliteStore::open(&StoreSettings { file: Some(file.clone()), messages_max: 10 }).unwrap();
        let settings = WorkerSettings { resume_window: rig::WINDOW, seed: 1, secret: [7; 16], restarted };
        ServiceWorker::open(shared.clone(), store, rig::Hasher::default(), &settings).unwrap()
    };
    let put = |command| shared.0.lock().unwrap().put(GAMES, 10, command);
    let spin = |worker: &mut ServiceWorker<_, _, _>, wall| while worker.turn(NOW, WallMillis(wall)) <= NOW {};
    let mut first = open(None);
    spin(&mut first, 0);
    put(join(2, 2, "a", "\"open sesame\""));
    spin(&mut first, 10);
    put(roll(3, 1));
    spin(&mut first, 10);
    drop(first);
    let mut second = open(Some(Restarted { at: WallMillis(20), alive: WallMillis(20) }));
    put(roll(4, 2));
    put(join(5, 3, "a", "\"open sesame\""));
    spin(&mut second, 10);
    let count = |text: &str| events(&shared).iter().filter(|event| event.contains(text)).count();
    assert_eq!(
        (count("bigger_dice.rolled"), count("lobby_joined"), count("game_started"), count("error")),
        (2, 2, 1, 0)
    );
    spin(&mut second, 300_020);
    assert_eq!(count("player_left"), 3);
    for suffix in ["", "-wal", "-shm"] {
        // SQLite has removed those that it needs no more.
        let _ = std::fs::remove_file(format!("{}{suffix}", file.display()));
    }
}

/// Who is cut off by a crash keeps the seat for a window from when the gateway was last alive, however late it starts
/// again, as the session does; who is back in time keeps it for good.
#[test]
fn a_seat_ends_with_its_session_over_a_restart() {
    let room = room_of(1);
    let shared = games(vec![create(1, 1, "a", "null"), join(2, 2, "a", "null")]);
    let mut first = worker(&shared);
    spin(&mut first, 0);
    let see = |at, record| shared.0.lock().unwrap().put("gateway.presence", at, record);
    (1..=2).for_each(|user| see(1, sighting(10 + u32::from(user), "joined", user, Some(&room))));
    spin(&mut first, 1);
    drop(first);
    let restarted = Some(Restarted { at: WallMillis(200_000), alive: WallMillis(1_000) });
    let settings = WorkerSettings { resume_window: rig::WINDOW, seed: 1, secret: [7; 16], restarted };
    let mut second = ServiceWorker::open(shared.clone(), shared.clone(), rig::Hasher::default(), &settings).unwrap();
    (1..=2).for_each(|user| see(200_010, sighting(20 + u32::from(user), "disconnected", user, None)));
    spin(&mut second, 200_010);
    see(250_000, sighting(31, "connected", 1, None));
    spin(&mut second, 250_000);
    let left = || events(&shared).into_iter().filter(|event| event.contains("player_left")).collect::<Vec<_>>();
    spin(&mut second, 300_999);
    assert_eq!(left(), [""; 0]);
    spin(&mut second, 301_000);
    assert!(left().len() == 1 && left()[0].contains(r#""user_id":"u2""#), "{:?}", left());
    spin(&mut second, 900_000);
    assert_eq!(left().len(), 1);
}

/// A hub hears its players only, tells who comes and goes, keeps what is said, and is entered by token alone.
#[test]
fn a_hub_is_its_players() {
    let shared = Shared::default();
    let put = |topic: &str, record| shared.0.lock().unwrap().put(topic, 5, record);
    let made = |id, verb: &str, fields: &str| command(id, &format!("rooms.command.{verb}"), 0, 0, fields);
    put("rooms.commands", made(1, "opened", r#"{"room_id":"hub","code":"ABCDEF","max_players":2}"#));
    put("rooms.commands", made(2, "enrolled", r#"{"room_id":"hub","player_id":"u1","display_name":"Ann"}"#));
    let mut worker = worker(&shared);
    spin(&mut worker, 5);
    put("gateway.presence", sighting(3, "joined", 1, Some("hub")));
    put("gateway.presence", sighting(4, "joined", 2, Some("hub")));
    let say = |id, user, verb: &str, fields: &str| {
        command(id, &format!("rooms.command.{verb}"), user, user, &format!(r#"{{"room_id":"hub",{fields}}}"#))
    };
    put("rooms.commands", say(5, 1, "chat", r#""message":"hi\u0000""#));
    put("rooms.commands", say(6, 2, "chat", r#""message":"I am not here""#));
    put("rooms.commands", say(7, 1, "vote", r#""player_id":"u9","for":[1]"#));
    put("rooms.commands", say(8, 1, "opened", r#""room_id":"mine","max_players":2"#));
    put(GAMES, command(9, "games.command.join_room", 3, 3, r#"{"room_id":"hub"}"#));
    spin(&mut worker, 5);
    let all = shared.0.lock().unwrap().texts("rooms.events");
    let payloads: Vec<_> = all.iter().map(|event| event.split_once("\"payload\":").unwrap().1).collect();
    let expected = [
        r#"{"player_id":"u1","display_name":"Ann"}}"#,
        r#"{"player_id":"u1","display_name":"Ann","message":"hi","sent_at":"1970-01-01T00:00:00.005Z"}}"#,
        r#"{"player_id":"u1","display_name":"Ann","for":[1]}}"#,
    ];
    assert_eq!(payloads, expected);
    let errors = events(&shared);
    assert!(errors[0].contains("\"forbidden\"") && errors[1].contains("\"not_in_room\""), "{errors:?}");
    put("gateway.presence", sighting(10, "left", 1, Some("hub")));
    spin(&mut worker, 5);
    let left = shown(&shared.0.lock().unwrap().texts("rooms.events")).pop();
    assert_eq!(left.as_deref(), Some("rooms.event.player_left room_id:hub"));
    assert_eq!(shared.0.lock().unwrap().messages.len(), 1);
    spin(&mut worker, 400_000);
    assert!(!shared.0.lock().unwrap().records.contains_key(&("hub".into(), "hub".into())));
}

/// Both topics tell of a hub before they speak of its players, so that whichever is read first misses nobody; said twice
/// it is the same; a place that is given on is the new player's alone.
#[test]
fn hubs_are_told_of_in_both_topics() {
    let shared = Shared::default();
    let put = |topic: &str, record| shared.0.lock().unwrap().put(topic, 5, record);
    let tell = |id: u32, verb: &str, fields: &str| {
        let payload = format!(r#"{{"room_id":"hub",{fields}}}"#);
        put("gateway.presence", command(id, &format!("gateway.presence.{verb}"), 0, 0, &payload));
        put("rooms.commands", command(id, &format!("rooms.command.{verb}"), 0, 0, &payload));
    };
    let chat = |id, user| command(id, "rooms.command.chat", user, user, r#"{"room_id":"hub","message":"hi"}"#);
    tell(1, "opened", r#""code":"ABCDEF","max_players":1"#);
    tell(2, "enrolled", r#""player_id":"u1","display_name":"Ann""#);
    put("gateway.presence", sighting(3, "joined", 1, Some("hub")));
    put("rooms.commands", chat(4, 1));
    let mut worker = worker(&shared);
    spin(&mut worker, 5);
    let told = || shown(&shared.0.lock().unwrap().texts("rooms.events"));
    assert_eq!(told(), ["rooms.event.player_joined room_id:hub", "rooms.event.chat room_id:hub"]);
    tell(5, "enrolled", r#""player_id":"u2","display_name":"Bob","in_place_of":"u1""#);
    put("rooms.commands", chat(6, 2));
    spin(&mut worker, 5);
    assert_eq!(told().len(), 2, "who is there keeps the place");
    put("gateway.presence", sighting(7, "left", 1, Some("hub")));
    spin(&mut worker, 5);
    tell(8, "enrolled", r#""player_id":"u2","display_name":"Bob","in_place_of":"u1""#);
    put("rooms.commands", chat(9, 2));
    put("rooms.commands", chat(10, 1));
    spin(&mut worker, 5);
    assert_eq!(told()[2..], ["rooms.event.player_left room_id:hub", "rooms.event.chat room_id:hub"]);
}

/// Events that end later, and some of them badly, arrive once each and in order, and a command counts as done only
/// behind them.
#[test]
fn late_and_failed_appends_keep_the_order() {
    let shared = games(vec![start(1, "arena", 5, 10)]);
    shared.0.lock().unwrap().later = true;
    let mut worker = worker(&shared);
    for step in 0..40 {
        shared.0.lock().unwrap().fail_next = step % 3 == 1;
        worker.turn(NOW, WallMillis(1_000 + step * 5));
        let (events, counted) = (events(&shared).len(), done(&shared));
        assert!(counted == 0 || events > 0, "the command counts as done behind its first event");
    }
    shared.0.lock().unwrap().fail_next = false;
    for _ in 0..20 {
        worker.turn(NOW, WallMillis(5_000));
    }
    let events = events(&shared);
    assert_eq!(events.len(), 6, "{events:?}");
    for (at, event) in events.iter().enumerate().take(5) {
        assert!(event.ends_with(&format!(r#""n":{}}}}}"#, at + 1)), "{event}");
    }
    assert_eq!(done(&shared), 1);
}
