//! A broker that stands still.

use ringgate::limits::KAFKA_DELIVERY_TIMEOUT;
use ringgate::protocol::frames::{Header, types};

use crate::client::{Client, EVENT};
use crate::cluster::{Cluster, metric, publisher, read_to};
use crate::node::{Gateway, until};

/// While Kafka stands still a publisher is paused, and closed 1013 before Kafka goes on, for its frame is refused; a
/// player's command is answered `unavailable`, and others go on. When Kafka is back a publisher goes on: what it said
/// first is there without a hole, in order, on the other gateway too, and nothing twice.
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
    for n in 2..=2 * ringgate::limits::RELAY_UNANSWERED as u64 {
        publisher.publish(EVENT, relay, 0, n.to_string().as_bytes());
    }
    until("the publisher is paused", || a.metric("ringgate_paused_connections").iter().sum::<u64>() == 1);
    member.command(0x8001, handle, 5, b"jump");
    member.send(|out| Header { frame_type: types::PING, ..Header::default() }.put(out));
    member.expect(types::PONG);
    assert_eq!(member.error(), ("unavailable", 5));
    assert_eq!(publisher.closed().0, 1013);
    assert!(metric(&a, "ringgate_relay_refused_total") > 0);
    cluster.broker.thaw();
    let accepted = says_until_accepted(&a, Client::resumed(&a, &publisher.resume, publisher.positions()));
    has_no_hole(&mut member, accepted);
    cluster.ends(vec![("a", a), ("b", b)]);
}

/// A Kafka that stands still until the first of a publisher's frames is refused, and goes on long before the last would be,
/// had they been sent as they were said: what was said behind the refused one reaches nobody all the same, and nothing
/// twice. So members see no hole: the frames before the outage, and those of the publisher that came back.
#[test]
fn nothing_is_relayed_behind_a_refusal() {
    let cluster = Cluster::start(1);
    let (a, b) = (cluster.gateway_with("a", &[]), cluster.gateway("b"));
    let (mut publisher, stream) = publisher(&a, &b);
    let mut member = Client::player(&b, "bob");
    member.join("arena");
    publisher.publish(EVENT, stream, 1, b"1");
    assert_eq!(publisher.expect(types::ACK).header.number, 1);
    cluster.broker.freeze();
    // As long as a frame waits, so that the first is refused when the last has been said, and hardly later.
    const COUNT: u32 = 20;
    for n in 2..=COUNT {
        publisher.publish(EVENT, stream, 0, n.to_string().as_bytes());
        std::thread::park_timeout(KAFKA_DELIVERY_TIMEOUT / COUNT);
    }
    assert_eq!(publisher.closed().0, 1013, "Kafka stood still for longer than a frame waits");
    cluster.broker.thaw();
    let again = Client::resumed(&a, &publisher.resume, publisher.positions());
    has_no_hole(&mut member, says_until_accepted(&a, again));
    cluster.ends(vec![("a", a), ("b", b)]);
}

/// What a member gets up to this number, which the publisher said when it was back: of what it said before, the first ones.
fn has_no_hole(member: &mut Client, last: u64) {
    let (_, reliable, _) = read_to(member, last.to_string().as_bytes());
    let numbers: Vec<u64> = reliable.iter().map(|text| std::str::from_utf8(text).unwrap().parse().unwrap()).collect();
    assert!(numbers.is_sorted_by(|a, b| a < b), "{numbers:?}");
    let before: Vec<u64> = numbers.iter().copied().filter(|n| *n < SAID_AGAIN).collect();
    assert!(!before.is_empty() && before.iter().copied().eq(1..=before.len() as u64), "a hole: {numbers:?}");
}

/// A publisher says frames numbered from [`SAID_AGAIN`] on, resuming whenever it is closed, until one is accepted: its number.
fn says_until_accepted(gateway: &Gateway, mut publisher: Client) -> u64 {
    let (mut relay, mut tried) = (publisher.joined()[0], SAID_AGAIN);
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

/// Less than any number that is said when Kafka is back.
const SAID_AGAIN: u64 = 1000;
