//! Publishers that wait for the ring to another shard. Rings of two slots make every burst a pause.

use std::collections::BTreeMap;
use std::io::Write;
use std::thread;

use ringgate::id::StreamHandle;
use ringgate::protocol::frames::{client, types};

use crate::client::{Client, EVENT};
use crate::node::{Gateway, on_each_driver};
use crate::raw::masked;

/// Publishers at a time, each to a room on either shard.
const PUBLISHERS: u64 = 3;
/// Events of each publisher: more than all receive buffers of a shard hold.
const EVENTS: u64 = 20_000;
/// Events of 60 kB that wait for each publisher before it begins: more than the kernel takes for who does not read.
const LARGE: u64 = 150;
/// What the gateway may grow by, KiB: the histories and the queues of who does not read yet.
const GROWTH_KIB: u64 = 96 << 10;

/// Publishers that write more than a ring, an outbox and a wait's receive buffers hold, and do not read what they get back
/// until they have, are paused and go on: every event of each reaches all, once and in order, and memory stays bounded.
#[test]
fn a_full_ring_pauses_and_loses_nothing() {
    // Nobody is to be closed 4408 for not reading meanwhile.
    let patient = ["--queue-frames", "200000", "--queue-bytes", "67108864", "--queue-age-ms", "60000"];
    let histories = ["--history-events", "200000", "--history-bytes", "67108864"];
    on_each_driver(&[&["--mesh-ring-slots", "2"], &patient[..], &histories].concat(), |gateway| {
        let rss_kib = gateway.rss_kib();
        let rooms = rooms(gateway);
        let mut clients: Vec<Client> = (0..PUBLISHERS).map(|n| publisher(gateway, n, &rooms)).collect();
        let mut member = Client::player(gateway, "member");
        rooms.iter().for_each(|(room, _)| drop(member.join(room)));
        let mut opener = Client::publisher(gateway, "opener");
        opener.join(&rooms[0].0);
        let large = vec![0; 60_000];
        (0..LARGE).for_each(|_| opener.publish(EVENT, rooms[0].1, 0, &large));
        (0..LARGE).for_each(|_| assert_eq!(member.expect(types::EVENT).payload.len(), large.len()));
        drop(opener);
        thread::scope(|scope| {
            for (number, client) in (0..).zip(&mut clients) {
                let rooms = &rooms;
                scope.spawn(move || {
                    client.stream().write_all(&events(number, rooms)).unwrap();
                    (0..LARGE).for_each(|_| drop(client.expect(types::EVENT)));
                    take_all(client);
                });
            }
            take_all(&mut member);
        });
        assert!(gateway.metric("ringgate_pauses_total").iter().sum::<u64>() > 0, "nobody was paused");
        assert_eq!(gateway.closes("try_again_later"), 0);
        let grown = gateway.rss_kib().saturating_sub(rss_kib);
        assert!(grown < GROWTH_KIB, "grown by {grown} KiB");
        member.reliable
    });
}

/// A room on each of the two shards, and its relay stream.
fn rooms(gateway: &Gateway) -> Vec<(String, StreamHandle)> {
    let mut opener = Client::publisher(gateway, "opener");
    let mut homes = BTreeMap::new();
    for number in 0.. {
        let room = format!("hall{number}");
        let relay = opener.join(&room)[0];
        homes.entry(relay.home(2)).or_insert((room, relay));
        if homes.len() == 2 {
            break;
        }
    }
    homes.into_values().collect()
}

fn publisher(gateway: &Gateway, number: u64, rooms: &[(String, StreamHandle)]) -> Client {
    let mut client = Client::publisher(gateway, &format!("server{number}"));
    rooms.iter().for_each(|(room, _)| drop(client.join(room)));
    // Small, so that the kernel does not take for it what it does not read.
    rustix::net::sockopt::set_socket_recv_buffer_size(client.stream(), 16 << 10).unwrap();
    client
}

/// All events of a publisher, those of odd numbers for one room, the others for the other.
fn events(publisher: u64, rooms: &[(String, StreamHandle)]) -> Vec<u8> {
    let event = |n: u64| {
        let mut frame = Vec::new();
        let body = [publisher.to_le_bytes(), n.to_le_bytes()].concat();
        client::publish(&mut frame, EVENT, false, rooms[n as usize % rooms.len()].1, 0, &body);
        masked(0x82, &frame)
    };
    (0..EVENTS).flat_map(event).collect()
}

/// Reads until every event of every publisher is there, each publisher's in order within a room.
fn take_all(client: &mut Client) {
    let mut next: BTreeMap<(u64, u64), u64> = BTreeMap::new();
    for _ in 0..PUBLISHERS * EVENTS {
        let payload = client.expect(types::EVENT).payload;
        let [publisher, n] = [0, 8].map(|at| u64::from_le_bytes(payload[at..at + 8].try_into().unwrap()));
        let expected = next.entry((publisher, n % 2)).or_insert(n % 2);
        assert_eq!(n, *expected, "of publisher {publisher}");
        *expected += 2;
    }
}
