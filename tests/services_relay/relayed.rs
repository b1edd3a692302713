//! Members, publishers and players on both gateways.

use std::collections::BTreeMap;

use ringgate::protocol::frames::client::leave;
use ringgate::protocol::frames::types;
use rustix::process::Signal;
use serde_json::json;

use crate::client::{Client, DELTA, EVENT, keyed};
use crate::cluster::{Cluster, knows, metric, publisher, read_to};
use crate::json::Json;
use crate::node::until;

/// A publisher's frames reach members on both gateways in one order, reliable ones and deltas, in both dialects. What a
/// player on the other gateway tells the room reaches all of them, and what it sends to publishers reaches the publisher,
/// for as long as one is there.
#[test]
fn members_on_two_gateways_get_what_is_relayed() {
    let cluster = Cluster::start(3);
    let (a, b) = (cluster.gateway("a"), cluster.gateway("b"));
    let (mut publisher, relay) = publisher(&a, &b);
    let mut near = Json::member(&a, "ann", "arena");
    let mut far = Client::player(&b, "bob");
    let handle = far.join("arena")[0];
    let mut talker = Json::member(&b, "cid", "arena");
    for n in 1..=50 {
        publisher.publish(DELTA, relay, 0, &keyed(n % 5, &value(n)));
        publisher.publish(EVENT, relay, n, &value(n));
    }
    let (deltas, reliable, _) = read_to(&mut far, &value(50));
    assert!(reliable.into_iter().eq((1..=50).map(value)));
    assert_eq!(deltas, (46..=50).map(|n| (n % 5, value(n))).collect::<BTreeMap<_, _>>());
    for n in 1..=50 {
        assert_eq!(publisher.expect(types::ACK).header.number, n);
        assert_eq!(near.expect("game.step")["n"], n);
    }
    talker.send(&json!({"type": "party.wave", "room_id": "arena", "to": "all", "correlation_id": "w1"}));
    let waved = near.expect("party.wave");
    assert_eq!((&waved["sender_id"], &waved["to"]), (&json!("cid"), &json!("all")));
    assert_eq!(talker.expect("system.ack")["correlation_id"], "w1");
    let wave = far.expect(types::EVENT).payload;
    until("the publisher sees the wave", || publisher.expect(types::EVENT).payload == wave);

    far.command(COMMAND, handle, 7, b"jump");
    let command = publisher.expect(types::PLAYER_COMMAND);
    assert_eq!((command.header.kind, &command.payload[10..]), (COMMAND, &b"bobjump"[..]));
    assert_eq!(far.expect(types::ACK).header.number, 7);
    publisher.send(|out| leave(out, 9, "arena"));
    publisher.expect(types::LEFT);
    knows(&b, 0);
    far.command(COMMAND, handle, 8, b"jump");
    assert_eq!(far.error(), ("unavailable", 8));
    assert_eq!((metric(&b, "ringgate_relayed_total"), metric(&b, "ringgate_relay_refused_total")), (2, 1));
    assert_eq!((metric(&a, "ringgate_relayed_total"), metric(&a, "ringgate_bus_poison_total")), (100, 0));
    drop((publisher, near, far, talker));
    cluster.ends(vec![("a", a), ("b", b)]);
}

/// A member that does not read for a while loses nothing but deltas, is told of them, and has the newest value of every
/// key; so does one on the publisher's own gateway.
#[test]
fn slow_members_lose_deltas_alone() {
    let cluster = Cluster::start(1);
    let (a, b) = (cluster.gateway("a"), cluster.gateway("b"));
    let (mut publisher, relay) = publisher(&a, &b);
    let mut slow = [Client::player(&a, "near"), Client::player(&b, "far")];
    slow.iter_mut().for_each(|member| _ = member.join("arena"));
    let padded = |n: u64| [&value(n)[..], &[b' '; 4000]].concat();
    for n in 1..=6000 {
        publisher.publish(DELTA, relay, 0, &keyed(n % 20, &padded(n)));
        if n % 100 == 0 {
            publisher.publish(EVENT, relay, n, &value(n));
            // It reads what comes back, or it would be slow itself.
            while publisher.read().header.frame_type != types::ACK {}
        }
    }
    publisher.publish(EVENT, relay, 0, &value(9999));
    for member in &mut slow {
        let (mut deltas, reliable, skipped) = read_to(member, &value(9999));
        assert!(reliable.into_iter().eq((1..=60).map(|n| value(n * 100)).chain([value(9999)])));
        assert!(skipped > 0, "24 MB of deltas fit no socket's buffers");
        // A reliable frame may pass deltas that wait (DELIVERY §3).
        while !(5981..=6000).all(|n| deltas.get(&(n % 20)) == Some(&padded(n))) {
            let delta = member.expect(types::WORLD_DELTA);
            let (key, value) = delta.payload.split_first_chunk().unwrap();
            deltas.insert(u64::from_le_bytes(*key), value.to_vec());
        }
    }
    drop((publisher, slow));
    cluster.ends(vec![("a", a), ("b", b)]);
}

/// A gateway is killed while its publisher relays: members of the other one get all that was acknowledged, and its own
/// members and the publisher resume there without a gap, whatever was relayed meanwhile; partitions that the topic gets
/// then change nothing.
#[test]
fn a_killed_gateways_members_resume_on_the_other() {
    let cluster = Cluster::start(2);
    let (a, b) = (cluster.gateway("a"), cluster.gateway("b"));
    let (mut publisher, relay) = publisher(&a, &b);
    let mut stays = Client::player(&b, "stays");
    stays.join("arena");
    let mut moves = Client::player(&a, "moves");
    moves.join("arena");
    let mut talks = Json::member(&a, "talks", "arena");
    for n in 1..=20 {
        publisher.publish(EVENT, relay, n, &value(n));
        assert_eq!(publisher.expect(types::ACK).header.number, n);
    }
    read_to(&mut moves, &value(7));
    assert_eq!(talks.expect("game.step")["n"], 1);
    a.signal(Signal::KILL);
    drop(a);

    let mut other = Client::publisher(&b, "other");
    let relay = other.join("arena")[0];
    for n in 21..=40 {
        other.publish(EVENT, relay, n, &value(n));
        assert_eq!(other.expect(types::ACK).header.number, n);
    }
    let (_, reliable, _) = read_to(&mut stays, &value(40));
    assert!(reliable.into_iter().eq((1..=40).map(value)), "what was acknowledged is there, in order");
    let mut moves = Client::resumed(&b, &moves.resume, moves.positions());
    let mut talks = Json::resumed(&b, &talks.resume(), &talks.positions());
    assert!(moves.recovered && talks.session["recovered"] == true, "{:?} {}", moves.reason, talks.session);
    let (_, reliable, _) = read_to(&mut moves, &value(40));
    assert!(reliable.into_iter().eq((8..=40).map(value)));
    assert!((2..=40).all(|n| talks.expect("game.step")["n"] == n));
    let mut publisher = Client::resumed(&b, &publisher.resume, publisher.positions());
    assert!(publisher.recovered, "{:?}", publisher.reason);
    read_to(&mut publisher, &value(40));

    cluster.broker.add_partitions("ringgate.relay", 5);
    let mut n = 40;
    let mut say = |other: &mut Client, count: u64| {
        for _ in 0..count {
            n += 1;
            other.publish(EVENT, relay, n, &value(n));
        }
        n
    };
    let last = say(&mut other, 100);
    until("the gateway knows the partitions", || b.log().contains("the topic has got partitions"));
    let later = say(&mut other, 100);
    let mut seen: Vec<Vec<u8>> = read_to(&mut stays, &value(last)).1;
    while seen.len() < 200 {
        seen.push(stays.expect(types::EVENT).payload);
    }
    seen.sort();
    let mut expected: Vec<_> = (41..=later).map(value).collect();
    expected.sort();
    assert!(seen == expected, "each once, on whichever partition");
    drop((publisher, stays, moves, talks, other));
    cluster.ends(vec![("b", b)]);
}

/// A frame's payload.
fn value(n: u64) -> Vec<u8> {
    json!({"type": "game.step", "n": n}).to_string().into_bytes()
}

const COMMAND: u16 = 0x8001;
