//! Lives of connections leave nothing behind: no descriptor, no connection, no session, no memory.
//!
//! `RINGGATE_LEAK_LIVES=n` asks for other than the 50,000 lives per driver, 100,000 together, of a default run.

use std::thread;

use ringgate::protocol::frames::client;
use ringgate::protocol::frames::json::{Hello, Join};

use crate::client::Client;
use crate::node::{Gateway, on_each_driver, token, until};
use crate::raw::{Raw, masked, request};

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
