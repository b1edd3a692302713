//! A broker that stands still.

use std::time::{Duration, Instant};

use ringgate::protocol::frames::{Header, types};

use crate::client::{Client, EVENT};
use crate::cluster::{Cluster, metric, publisher, read_to};
use crate::node::{Gateway, until};

/// While Kafka stands still a publisher is paused, and at last closed 1013, for its frame is refused; a player's command
/// is answered `unavailable`, and others go on. When Kafka is back a publisher goes on, all that was acknowledged is
/// there, in order, on the other gateway too, and nothing twice.
#[test]
fn a_standing_broker_closes_publishers() {
    let cluster = Cluster::start(1);
    let (a, b) = (cluster.gateway("a"), cluster.gateway("b"));
    let (mut publisher, relay) = publisher(&a, &b);
    let mut member = Client::player(&b, "bob");
    let handle = member.join("arena")[0];
    publisher.publish(EVENT, relay, 1, b"1");
    assert_eq!(publisher.expect(types::ACK).header.number, 1);
    cluster.broker.freeze();
    let began = Instant::now();
    for n in 2..=2 * ringgate::limits::RELAY_UNANSWERED as u64 {
        publisher.publish(EVENT, relay, 0, n.to_string().as_bytes());
    }
    until("the publisher is paused", || a.metric("ringgate_paused_connections").iter().sum::<u64>() == 1);
    member.command(0x8001, handle, 5, b"jump");
    member.send(|out| Header { frame_type: types::PING, ..Header::default() }.put(out));
    member.expect(types::PONG);
    assert_eq!(member.error(), ("unavailable", 5));
    assert_eq!(publisher.closed().0, 1013);
    let waited = began.elapsed();
    assert!(waited > Duration::from_secs(2) && waited < Duration::from_secs(15), "{waited:?}");
    cluster.broker.thaw();
    let accepted = says_until_accepted(&a, Client::resumed(&a, &publisher.resume, publisher.positions()));
    let (_, reliable, _) = read_to(&mut member, accepted.to_string().as_bytes());
    let numbers: Vec<u64> = reliable.iter().map(|text| std::str::from_utf8(text).unwrap().parse().unwrap()).collect();
    assert!(numbers.is_sorted_by(|a, b| a < b), "{numbers:?}");
    assert!(metric(&a, "ringgate_relay_refused_total") > 0);
}

/// A broker that is away for longer than a frame may wait, while a publisher says one after the other: what it said behind
/// the first that is refused reaches nobody, though Kafka is back before that would have been refused too. So members see
/// no hole: the frames before the outage, and those of the publisher that came back.
#[test]
fn nothing_is_relayed_behind_a_refusal() {
    let cluster = Cluster::start(1);
    let (a, b) = (cluster.gateway("a"), cluster.gateway("b"));
    let (mut publisher, relay) = publisher(&a, &b);
    let mut member = Client::player(&b, "bob");
    member.join("arena");
    publisher.publish(EVENT, relay, 1, b"1");
    assert_eq!(publisher.expect(types::ACK).header.number, 1);
    cluster.broker.kill();
    let began = Instant::now();
    std::thread::scope(|scope| {
        // A start takes about 3 s, as long as a frame waits: the first must have waited in vain.
        scope.spawn(|| {
            std::thread::park_timeout(Duration::from_millis(1500));
            cluster.broker.again();
        });
        // Until just before the first is refused; written is not read by the gateway.
        for n in 2..=13u64 {
            publisher.publish(EVENT, relay, 0, n.to_string().as_bytes());
            std::thread::park_timeout((Duration::from_millis(220) * (n as u32 - 1)).saturating_sub(began.elapsed()));
        }
    });
    assert_eq!(publisher.closed().0, 1013, "Kafka was away for longer than a frame waits");
    let again = Client::resumed(&a, &publisher.resume, publisher.positions());
    let last = says_until_accepted(&a, again);
    let (_, reliable, _) = read_to(&mut member, last.to_string().as_bytes());
    let numbers: Vec<u64> = reliable.iter().map(|text| std::str::from_utf8(text).unwrap().parse().unwrap()).collect();
    let before: Vec<u64> = numbers.iter().copied().filter(|n| *n < 1000).collect();
    assert!(before.iter().copied().eq(1..=before.len() as u64), "a hole: {numbers:?}");
    assert!(numbers.is_sorted_by(|a, b| a < b), "{numbers:?}");
}

/// A publisher says frames from number 1001 on, resuming whenever it is closed, until one is accepted: its number.
fn says_until_accepted(gateway: &Gateway, mut publisher: Client) -> u64 {
    let (mut relay, mut tried) = (publisher.joined()[0], 1000);
    loop {
        tried += 1;
        publisher.publish(EVENT, relay, tried, tried.to_string().as_bytes());
        let answer = std::iter::from_fn(|| publisher.next().ok()).find(|frame| frame.header.frame_type == types::ACK);
        if answer.is_some_and(|frame| frame.header.number == tried) {
            return tried;
        }
        publisher = Client::resumed(gateway, &publisher.resume, publisher.positions());
        relay = publisher.joined()[0];
    }
}
