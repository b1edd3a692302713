//! What an idle connection costs: authenticated, in one room, with its session and its record in the embedded presence
//! (DESIGN §10: 1,000 B; `benches/measure.sh` measures that with a release build, from 2,000 to 15,000 connections).

use std::thread;

use ringgate::protocol::frames::client;
use ringgate::protocol::frames::json::Join;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::client::Client;
use crate::node::{DRIVERS, Gateway};
use crate::raw::Raw;

/// Connections at the first and at the second look.
const COUNTS: [usize; 2] = [1_000, 5_000];
/// Clients that are made at a time.
const THREADS: usize = 8;
/// Bytes per connection on each of `DRIVERS`: the target and what pages of 4 KiB and growing tables may add; on monoio
/// a task and a registration more.
const BYTES_MAX: [u64; 2] = [1_250, 1_600];

/// From 1,000 to 5,000 idle connections, resident memory grows by no more than the bound for each.
#[test]
fn an_idle_connection_is_small() {
    raise_descriptor_limit();
    for (driver, bytes_max) in DRIVERS.into_iter().zip(BYTES_MAX) {
        let gateway = Gateway::start(&["--driver", driver, "--shards", "1"]);
        let mut publisher = Client::publisher(&gateway, "server");
        publisher.join("arena");
        let mut clients = Vec::new();
        let rss_kib = COUNTS.map(|count| {
            clients.extend(connect(&gateway, clients.len()..count));
            gateway.rss_kib()
        });
        let bytes = rss_kib[1].saturating_sub(rss_kib[0]) * 1024 / (COUNTS[1] - COUNTS[0]) as u64;
        println!("{driver}: {bytes} B per connection, {rss_kib:?} KiB at {COUNTS:?}");
        assert!(bytes <= bytes_max, "{driver}: {bytes} B per connection, {rss_kib:?} KiB at {COUNTS:?}");
    }
}

/// Connects clients with these numbers, and joins them to the room.
fn connect(gateway: &Gateway, numbers: std::ops::Range<usize>) -> Vec<Raw> {
    thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|first| {
                let numbers = numbers.clone().skip(first).step_by(THREADS);
                scope.spawn(move || numbers.map(|number| idle(gateway, number)).collect::<Vec<_>>())
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    })
}

fn idle(gateway: &Gateway, number: usize) -> Raw {
    let mut raw = Raw::player(gateway, &format!("idle-{number}"));
    raw.send(|out| client::join(out, 1, &Join { room: "arena", password: None }));
    assert_eq!(raw.frame().unwrap().0, 0x82);
    raw
}

/// The clients' ends need a descriptor each, in this process.
fn raise_descriptor_limit() {
    let hard = getrlimit(Resource::Nofile).maximum;
    assert!(hard.is_none_or(|hard| hard > COUNTS[1] as u64 + 1_000), "raise the hard limit of open files above 6,000");
    setrlimit(Resource::Nofile, Rlimit { current: hard, maximum: hard }).unwrap();
}
