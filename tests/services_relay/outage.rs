//! A broker that stands still.

use std::io::Write as _;
use std::time::Duration;

use ringgate::id::StreamHandle;
use ringgate::limits::{KAFKA_DELIVERY_TIMEOUT, RELAY_UNANSWERED_BYTES, STASH_BYTES};
use ringgate::protocol::frames::{Header, client, types};

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
    read_to(&mut member, b"1");
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
    drop((publisher, member));
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
    read_to(&mut member, b"1");
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
    drop((publisher, member));
    cluster.ends(vec![("a", a), ("b", b)]);
}

/// While Kafka stands still longer than the frame of the first of several publishers waits, that is refused, and the
/// others' frames are said again by Kafka's client, which does not know which of them Kafka has; members get each once.
#[test]
fn what_is_said_again_comes_once() {
    let cluster = Cluster::start(1);
    let (a, b) = (cluster.gateway_with("a", &[]), cluster.gateway("b"));
    let (mut first, stream) = publisher(&a, &b);
    let mut others: Vec<_> = (0..PUBLISHERS).map(|n| Client::publisher(&a, &format!("p{n}"))).collect();
    let streams: Vec<_> = others.iter_mut().map(|other| other.join("arena")[0]).collect();
    let mut member = Client::player(&b, "bob");
    member.join("arena");
    first.publish(EVENT, stream, 1, b"1");
    assert_eq!(first.expect(types::ACK).header.number, 1);
    read_to(&mut member, b"1");
    cluster.broker.freeze();
    first.publish(EVENT, stream, 0, b"2");
    for (n, (other, stream)) in (3..).zip(std::iter::zip(&mut others, &streams)) {
        std::thread::park_timeout(KAFKA_DELIVERY_TIMEOUT / (PUBLISHERS as u32 + 1));
        other.publish(EVENT, *stream, 0, n.to_string().as_bytes());
    }
    assert_eq!(first.closed().0, 1013, "Kafka stood still for longer than a frame waits");
    cluster.broker.thaw();
    let again = Client::resumed(&a, &first.resume, first.positions());
    let last = says_until_accepted(&a, again);
    let (_, reliable, _) = read_to(&mut member, last.to_string().as_bytes());
    let numbers: Vec<u64> = reliable.iter().map(|text| std::str::from_utf8(text).unwrap().parse().unwrap()).collect();
    assert!(numbers.is_sorted_by(|a, b| a < b), "each once: {numbers:?}");
    drop((first, others, member));
    cluster.ends(vec![("a", a), ("b", b)]);
}

/// Publishers that say all they can while Kafka stands still are paused with no more than their share on its way, so that
/// memory grows by that and no more, and are closed 1013, each for its refused frames. When Kafka is back their room goes
/// on.
#[test]
fn publishers_on_a_standing_broker_are_bounded() {
    let cluster = Cluster::start(1);
    let gateway = cluster.gateway_with("a", &[]);
    let mut publishers: Vec<_> = (0..PUBLISHERS).map(|n| Client::publisher(&gateway, &format!("p{n}"))).collect();
    let relays: Vec<_> = publishers.iter_mut().map(|publisher| publisher.join("arena")[0]).collect();
    publishers[0].publish(EVENT, relays[0], 1, b"1");
    assert_eq!(publishers[0].expect(types::ACK).header.number, 1);
    let before = gateway.rss_kib();
    cluster.broker.freeze();
    let most = std::thread::scope(|scope| {
        let pushing: Vec<_> = std::iter::zip(&mut publishers, &relays)
            .map(|(publisher, relay)| scope.spawn(|| push(publisher, *relay)))
            .collect();
        until("all are paused", || {
            gateway.metric("ringgate_paused_connections").iter().sum::<u64>() == PUBLISHERS as u64
        });
        let mut most = gateway.rss_kib();
        while pushing.iter().any(|thread| !thread.is_finished()) {
            most = gateway.rss_kib().max(most);
            std::thread::park_timeout(Duration::from_millis(10));
        }
        for thread in pushing {
            assert_eq!(thread.join().unwrap(), 1013);
        }
        most
    });
    println!("resident KiB before {before}, at most {most}");
    let bound = before + ((2 * PUBLISHERS * (RELAY_UNANSWERED_BYTES + STASH_BYTES) + ELSE_BYTES) as u64 >> 10);
    assert!(most < bound, "resident memory grew from {before} to {most} KiB, more than to {bound}");
    cluster.broker.thaw();
    let publisher = Client::resumed(&gateway, &publishers[0].resume, publishers[0].positions());
    says_until_accepted(&gateway, publisher);
    drop(publishers);
    cluster.ends(vec![("a", gateway)]);
}

/// Writes [`PUSHED_BYTES`] of frames, or until nobody takes any; the code of the close.
fn push(publisher: &mut Client, relay: StreamHandle) -> u16 {
    let (mut frame, payload) = (Vec::new(), vec![b'x'; 32 << 10]);
    client::publish(&mut frame, EVENT, false, relay, 0, &payload);
    // Masked with zeros.
    let mut message = vec![0x82, 0xfe];
    message.extend_from_slice(&u16::try_from(frame.len()).unwrap().to_be_bytes());
    message.extend_from_slice(&[0; 4]);
    message.append(&mut frame);
    let stream = publisher.stream();
    let _ended = (0..PUSHED_BYTES / message.len()).try_for_each(|_| stream.write_all(&message));
    publisher.closed().0
}

/// What a member gets behind 1 and up to this number, which the publisher said when it was back: of what it said before,
/// the first ones, once.
fn has_no_hole(member: &mut Client, last: u64) {
    let (_, reliable, _) = read_to(member, last.to_string().as_bytes());
    let numbers: Vec<u64> = reliable.iter().map(|text| std::str::from_utf8(text).unwrap().parse().unwrap()).collect();
    assert!(numbers.is_sorted_by(|a, b| a < b), "{numbers:?}");
    let before: Vec<u64> = numbers.iter().copied().filter(|n| *n < SAID_AGAIN).collect();
    assert!(before.iter().copied().eq(2..2 + before.len() as u64), "a hole: {numbers:?}");
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
const PUBLISHERS: usize = 8;
/// Of each publisher: many times what may be on its way.
const PUSHED_BYTES: usize = 40 << 20;
/// What threads, connections and allocators keep beside.
const ELSE_BYTES: usize = 16 << 20;
