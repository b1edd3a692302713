//! Clients that break the rules or never listen. Whatever they do, the gateway's memory stays bounded and a neighbour
//! in the same room gets every frame.

use std::io::{ErrorKind, Write};
use std::net::Shutdown;
use std::time::Duration;

use ringgate::id::StreamHandle;
use ringgate::protocol::frames::client;
use ringgate::protocol::frames::json::Join;
use ringgate::protocol::frames::types;

use crate::client::{Client, DELTA, EVENT, keyed};
use crate::node::{Gateway, on_each_driver, until};
use crate::raw::{Raw, masked, request};

/// How much the gateway may grow whatever hostile clients do, KiB: a few queues at their bounds and noise.
const GROWTH_KIB: u64 = 48 << 10;
/// What a flood sends if it is let, bytes.
const FLOOD_BYTES: usize = 8 << 20;

/// A publisher and a member that must not notice anything.
struct Neighbours {
    publisher: Client,
    member: Client,
    relay: StreamHandle,
    sent: u64,
    rss_kib: u64,
}

impl Neighbours {
    fn meet(gateway: &Gateway) -> Self {
        let mut publisher = Client::publisher(gateway, "server");
        let relay = publisher.join("arena")[0];
        let mut member = Client::player(gateway, "neighbour");
        member.join("arena");
        Self { publisher, member, relay, sent: 0, rss_kib: gateway.rss_kib() }
    }

    /// Fifty more events, each received before the next is sent.
    fn play(&mut self) {
        for _ in 0..50 {
            self.sent += 1;
            self.publisher.publish(EVENT, self.relay, 0, &self.sent.to_le_bytes());
            assert_eq!(self.member.expect(types::EVENT).payload, self.sent.to_le_bytes());
        }
    }

    /// Plays once more and looks at the memory; returns what the member received.
    fn unharmed(mut self, gateway: &Gateway) -> u64 {
        self.play();
        let grown = gateway.rss_kib().saturating_sub(self.rss_kib);
        assert!(grown < GROWTH_KIB, "grown by {grown} KiB");
        self.member.reliable
    }
}

/// Many commands without correlation in one piece, each of which draws a random id: every one is taken or refused by
/// its rate, and the shard lives on.
#[test]
fn commands_in_one_piece_do_not_exhaust_entropy() {
    on_each_driver(&[], |gateway| {
        let neighbours = Neighbours::meet(gateway);
        let mut client = Client::player(gateway, "hasty");
        // chat.command.send_message needs no room; 10/s are allowed, the other ten are refused.
        let commands = 20;
        let piece: Vec<u8> =
            (0..commands).flat_map(|_| dialect(|out| client::command(out, 1, StreamHandle::NONE, 0, b"{}"))).collect();
        client.stream().write_all(&piece).unwrap();
        let refused = (0..10).filter(|_| client.error().0 == "rate_limited").count();
        assert_eq!(refused, 10);
        neighbours.unharmed(gateway)
    });
}

/// Floods of pings, of dialect pings and of commands by clients that never read an answer: the answers stay bounded, the
/// reading pauses where answers must be kept.
#[test]
fn floods_without_reading_are_bounded() {
    on_each_driver(&[], |gateway| {
        let mut neighbours = Neighbours::meet(gateway);
        let mut floods = Vec::new();
        for (user, frame) in [
            ("pings", masked(0x89, &[1; 125])),
            ("dialect-pings", dialect(|out| client::ping(out, &[1; 125]))),
            ("commands", dialect(|out| client::command(out, 0x8000, StreamHandle(9), 1, &[1; 100]))),
            ("joins", dialect(|out| client::join(out, 1, &Join { room: "nowhere", password: None }))),
        ] {
            let mut raw = Raw::player(gateway, user);
            flood(&mut raw, &frame);
            neighbours.play();
            floods.push(raw);
        }
        // Answers that must be kept pause the reading; what had come in already may exceed the stash, which closes.
        until("three floods are held", || gateway.metric("ringgate_pauses_total").iter().sum::<u64>() >= 3);
        assert!(gateway.closes("try_again_later") <= 3);
        neighbours.unharmed(gateway)
    });
}

/// Members that never read under a stream of large frames: each is closed 4408, and none costs more than its queue.
#[test]
fn members_that_never_read_are_closed() {
    on_each_driver(&["--close-ms", "300"], |gateway| {
        let mut neighbours = Neighbours::meet(gateway);
        let mut stalled: Vec<Client> = (0..8).map(|n| Client::player(gateway, &format!("stalled-{n}"))).collect();
        stalled.iter_mut().for_each(|client| drop(client.join("arena")));
        let large = vec![7; (64 << 10) - 24];
        let mut sent = 0;
        while gateway.closes("slow_consumer") < 8 {
            neighbours.publisher.publish(EVENT, neighbours.relay, 1, &large);
            neighbours.publisher.publish(DELTA, neighbours.relay, 0, &keyed(sent % 50, &large[8..]));
            // The publisher is a member, too, and has to read.
            neighbours.publisher.expect(types::ACK);
            assert_eq!(neighbours.member.expect(types::EVENT).payload.len(), large.len());
            sent += 1;
            assert!(sent < 1000, "they are not closed");
        }
        until("their sockets are closed", || gateway.metric("ringgate_connections").iter().sum::<u64>() == 2);
        neighbours.play();
        neighbours.unharmed(gateway) - sent
    });
}

/// A stalled member that goes on sending is closed with a megabyte behind it and input that nobody read: what the kernel
/// had taken and the close frame arrive, and the end is no reset.
#[test]
fn a_close_delivers_what_is_under_way() {
    on_each_driver(&[], |gateway| {
        let mut publisher = Client::publisher(gateway, "server");
        let relay = publisher.join("arena")[0];
        let mut stalled = Client::player(gateway, "stalled");
        stalled.join("arena");
        let payload = vec![7; 16 << 10];
        let mut sent = 0_u64;
        while gateway.closes("slow_consumer") == 0 {
            sent += 1;
            publisher.publish(EVENT, relay, sent, &payload);
            publisher.expect(types::ACK);
            // Half a frame, then whole ones: unread when the close comes.
            stalled.send(|out| client::ping(out, b"unread"));
        }
        for _ in 0..100 {
            stalled.send(|out| client::ping(out, &[2; 125]));
        }
        assert!(sent * payload.len() as u64 > 1 << 20, "{sent}");
        let mut received = 0;
        let close = loop {
            match stalled.next() {
                Ok(frame) => received += u64::from(frame.header.frame_type == types::EVENT),
                Err(close) => break close,
            }
        };
        assert_eq!(close, (4408, "slow_consumer".into()));
        assert!((1..sent).contains(&received), "{received} of {sent}");
        let mut rest = Raw::around(stalled.stream().try_clone().unwrap());
        rest.shut();
        assert!(rest.ended(), "a reset at the end");
    });
}

/// A client that ends its sending side without a close frame is ended in order; one that is reset within a frame, a
/// message or the handshake leaves no connection behind.
#[test]
fn broken_connections_are_cleared() {
    on_each_driver(&[], |gateway| {
        let neighbours = Neighbours::meet(gateway);
        let mut half = Raw::player(gateway, "half");
        half.shut();
        assert!(half.ended());
        let frame = masked(0x82, &[0; 1000]);
        for cut in [1, 3, 7, 500] {
            let mut raw = Raw::player(gateway, "cut");
            raw.write(&frame[..cut]);
            raw.reset();
            let mut raw = Raw::upgraded(gateway, "/ws/frames");
            raw.write(&masked(0x02, &[0; 1000]));
            raw.write(&frame[..cut]);
            raw.stream.shutdown(Shutdown::Write).unwrap();
            assert!(raw.ended());
        }
        for cut in [0, 1, 50] {
            let mut raw = Raw::connect(gateway);
            raw.write(&request("/ws/frames", &[]).as_bytes()[..cut]);
            raw.reset();
        }
        until("they are gone", || gateway.metric("ringgate_connections").iter().sum::<u64>() == 2);
        neighbours.unharmed(gateway)
    });
}

/// Crowds that never finish what they began, an upgrade, a HELLO or a message of the largest size, cost what they sent
/// at most.
#[test]
fn unfinished_business_is_bounded() {
    on_each_driver(&[], |gateway| {
        let mut neighbours = Neighbours::meet(gateway);
        let mut crowd = Vec::new();
        for n in 0..100 {
            let mut raw = Raw::connect(gateway);
            raw.write(b"GET /ws/frames HTTP/1.1\r\nX: ");
            raw.write(&[b'x'; 4000]);
            crowd.push(raw);
            let mut raw = Raw::player(gateway, &format!("unfinished-{n}"));
            // The header promises the largest message; a fragment of it comes, never its end.
            raw.write(&masked(0x82, &vec![0; 64 << 10])[..32 << 10]);
            crowd.push(raw);
        }
        neighbours.play();
        neighbours.unharmed(gateway)
    });
}

fn dialect(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut payload = Vec::new();
    write(&mut payload);
    masked(0x82, &payload)
}

/// Writes the frame over and over until the gateway takes no more, or it was a lot.
fn flood(raw: &mut Raw, frame: &[u8]) {
    let burst = frame.repeat(64);
    raw.stream.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
    let mut sent = 0;
    while sent < FLOOD_BYTES {
        match raw.stream.write(&burst) {
            // A partial write ends within a frame; only a paused reader makes one, and then there is no next.
            Ok(bytes) if bytes < burst.len() => break,
            Ok(bytes) => sent += bytes,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => break,
            Err(error) => panic!("{error}"),
        }
    }
}
