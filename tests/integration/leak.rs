//! Lives of connections, rooms and hubs leave nothing behind: no descriptor, no connection, no session, no room, no memory.
//!
//! `RINGGATE_LEAK_LIVES=n` asks for other than the 50,000 lives per driver, 100,000 together, of a default run.

use std::thread;

use ringgate::protocol::frames::client;
use ringgate::protocol::frames::json::{Hello, Join};

use serde_json::{Value, json};

use crate::client::Client;
use crate::disk::DataDir;
use crate::hub::Player;
use crate::json::Json;
use crate::node::{Gateway, on_each_driver, token, until};
use crate::raw::{Raw, masked, request, reset};

const LIVES: usize = 50_000;
/// Clients at a time.
const THREADS: usize = 4;
/// What memory may grow by between the first tenth and the end, KiB.
const GROWTH_KIB: u64 = 16 << 10;

/// Connections that end in every way, at every stage, leave descriptors, gauges and memory where they were.
#[test]
fn lives_leave_nothing() {
    let lives = std::env::var("RINGGATE_LEAK_LIVES").map_or(LIVES, |text| text.parse().expect("a number"));
    on_each_driver(&["--resume-window-s", "1", "--close-ms", "500"], |gateway| {
        let mut publisher = Client::publisher(gateway, "server");
        publisher.join("arena");
        // Pools, tables and the allocator reach their size in the first tenth.
        live(gateway, lives / 10);
        settled(gateway);
        let (descriptors, rss_kib) = (gateway.descriptors(), gateway.rss_kib());
        live(gateway, lives - lives / 10);
        settled(gateway);
        until("descriptors are back", || gateway.descriptors() <= descriptors);
        let grown = gateway.rss_kib().saturating_sub(rss_kib);
        println!("{rss_kib} KiB and {grown} more after {lives} lives");
        assert!(grown < GROWTH_KIB, "{rss_kib} KiB grew by {grown} KiB");
        publisher.send(|out| client::ping(out, b"still here"));
        assert_eq!(publisher.read().payload, b"still here");
        // Who is reset in the kernel's backlog was never accepted.
        let accepted = gateway.metric("ringgate_connections_accepted_total").iter().sum::<u64>();
        assert!(accepted > lives as u64 * 6 / 8, "{accepted}");
        lives
    });
}

/// Lives so many lives, some at a time.
fn live(gateway: &Gateway, lives: usize) {
    thread::scope(|scope| {
        for first in 0..THREADS {
            scope.spawn(move || {
                let token = token("mayfly", &[]);
                (first..lives).step_by(THREADS).for_each(|n| life(gateway, n, &token));
            });
        }
    });
}

/// One life; `n` decides how it ends.
fn life(gateway: &Gateway, n: usize, token: &str) {
    let mut raw = Raw::connect(gateway);
    if n.is_multiple_of(8) {
        return raw.reset();
    }
    raw.write(request("/ws/frames", &[]).as_bytes());
    if n % 8 == 1 {
        return raw.reset();
    }
    assert_eq!(raw.response().0, 101);
    if n % 8 == 2 {
        raw.write(&masked(0x82, b"short"));
        assert_eq!(raw.closed(), 4400);
        return;
    }
    let mut hello = Vec::new();
    client::hello(&mut hello, &Hello { token: Some(token), ..Hello::default() });
    let mut join = Vec::new();
    client::join(&mut join, 1, &Join { room: "arena", password: None });
    if n % 8 == 3 {
        raw.write(&masked(0x82, &hello));
        return raw.reset();
    }
    // Both at once: the JOIN waits for the WELCOME.
    raw.write(&[masked(0x82, &hello), masked(0x82, &join)].concat());
    assert_eq!(raw.frame().unwrap().0, 0x82);
    if n % 8 == 4 {
        return raw.reset();
    }
    assert_eq!(raw.frame().unwrap().0, 0x82);
    match n % 8 {
        5 => {
            raw.write(&masked(0x88, &1000_u16.to_be_bytes()));
            assert_eq!(raw.closed(), 1000);
        }
        6 => {
            raw.shut();
            assert!(raw.ended());
        }
        _ => {
            raw.write(&masked(0x82, &[0; 100])[..50]);
            raw.reset();
        }
    }
}

/// Only the publisher is left.
fn settled(gateway: &Gateway) {
    let sum = |name| gateway.metric(name).iter().sum::<u64>();
    until("connections are gone", || sum("ringgate_connections") == 1);
    until("sessions are gone", || sum("ringgate_sessions") == 1);
}

/// Rooms, hubs and the sessions in them that were made, filled, guarded by passwords, played in and abandoned leave
/// nothing: no session and no record of one, no room or hub and no row of it, and no memory.
#[test]
fn rooms_leave_nothing() {
    const FEW: usize = 20;
    let dir = DataDir::new();
    // Longer than a player of a hub that was just made takes to come in, on a busy machine.
    let flags = ["--resume-window-s", "4", "--rooms-calls-per-minute", "100000", "--newcomers-max", "10000"];
    let gateway = dir.start(&flags);
    let gone = || {
        until("connections are gone", || gateway.metric("ringgate_connections").iter().sum::<u64>() == 0);
        until("sessions have ended", || dir.sessions_with("") == 0);
        let tables = ["rooms", "room_players", "chat_messages WHERE room_id NOT LIKE '@%'", SERVICE_RECORDS];
        until("nothing of rooms and hubs is stored", || tables.iter().all(|table| dir.rows(table) == 0));
    };
    (0..FEW).for_each(|n| room_life(&gateway, n));
    assert!(dir.rows("rooms") > 0 && dir.rows(SERVICE_RECORDS) > 0, "they are stored while they live");
    gone();
    let (descriptors, rss_kib) = (gateway.descriptors(), gateway.rss_kib());
    (FEW..4 * FEW).for_each(|n| room_life(&gateway, n));
    gone();
    until("descriptors are back", || gateway.descriptors() <= descriptors);
    let grown = gateway.rss_kib().saturating_sub(rss_kib);
    println!("{rss_kib} KiB and {grown} more after {} rooms and hubs", 4 * FEW);
    assert!(grown < GROWTH_KIB, "{rss_kib} KiB grew by {grown} KiB");
    let mut late = Json::player(&gateway, "late");
    late.send(&json!({"type": "games.command.list_rooms"}));
    assert_eq!(late.expect("games.event.rooms_listed")["rooms"], json!([]));
}

/// What the services and presence keep of rooms and hubs.
const SERVICE_RECORDS: &str =
    "records WHERE service IN ('rooms', 'rooms.pending', 'rooms.late', 'hub', 'presence.hub')";

/// A room and a hub, each with two players, and how they are left: by a goodbye, by a leave, or by nothing at all.
fn room_life(gateway: &Gateway, n: usize) {
    let name = format!("room {n}");
    let mut host = Json::player(gateway, &format!("host {n}"));
    let password = if n.is_multiple_of(20) { json!("open sesame") } else { Value::Null };
    host.send(&json!({"type": "games.command.create_room", "game_type": "bigger_dice", "room_name": name,
        "password": password}));
    let room = host.expect("games.event.room_created")["room_id"].clone();
    let mut guest = Json::player(gateway, &format!("guest {n}"));
    guest.send(&json!({"type": "games.command.join_room", "room_name": name, "password": password}));
    guest.expect("games.event.lobby_joined");
    host.send(&json!({"type": "games.command.bigger_dice.roll", "room_id": room}));
    guest.expect("games.event.bigger_dice.rolled");
    guest.send(&json!({"type": "chat.command.send_lobby_message", "lobby_id": room, "content": "hello"}));
    host.expect("chat.event.message_received");
    let mut ann = Player::host(gateway, "Ann");
    let mut bob = ann.guest(gateway, "Bob");
    ann.chat("hello");
    bob.event("chat");
    match n % 3 {
        0 => {
            reset(host.stream());
            reset(bob.stream());
        }
        1 => {
            host.send(&json!({"type": "games.command.leave_room", "room_id": room}));
            host.expect("games.event.room_left");
        }
        _ => {}
    }
}
