//! A broker that stands still.

use std::time::{Duration, Instant};

use ringgate::protocol::frames::{Header, types};

use crate::client::{Client, EVENT};
use crate::cluster::{Cluster, knows, metric, read_to};
use crate::node::until;

/// While Kafka stands still a publisher is paused, and at last closed 1013, for its frame is refused; a player's command
/// is answered `unavailable`, and others go on. When Kafka is back a publisher goes on, all that was acknowledged is
/// there, in order, on the other gateway too, and nothing twice.
#[test]
fn a_standing_broker_closes_publishers() {
    let cluster = Cluster::start(1);
    let (a, b) = (cluster.gateway("a"), cluster.gateway("b"));
    let mut publisher = Client::publisher(&a, "server");
    let relay = publisher.join("arena")[0];
    knows(&b, 1);
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
    let mut again = Client::resumed(&a, &publisher.resume, publisher.positions());
    let mut relay = again.joined()[0];
    let mut tried = 1000;
    let accepted = loop {
        tried += 1;
        again.publish(EVENT, relay, tried, tried.to_string().as_bytes());
        let answer = std::iter::from_fn(|| again.next().ok()).find(|frame| frame.header.frame_type == types::ACK);
        if answer.is_some_and(|frame| frame.header.number == tried) {
            break tried;
        }
        again = Client::resumed(&a, &again.resume, again.positions());
        relay = again.joined()[0];
    };
    let (_, reliable, _) = read_to(&mut member, accepted.to_string().as_bytes());
    let numbers: Vec<u64> = reliable.iter().map(|text| std::str::from_utf8(text).unwrap().parse().unwrap()).collect();
    assert!(numbers.is_sorted_by(|a, b| a < b), "{numbers:?}");
    assert!(metric(&a, "ringgate_relay_refused_total") > 0);
}
