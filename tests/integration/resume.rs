//! Sessions outlive their connections: nothing is lost, nothing doubled.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use ringgate::id::StreamHandle;
use ringgate::protocol::frames::client::{hello, ping};
use ringgate::protocol::frames::json::Hello;
use ringgate::protocol::frames::types;

use crate::client::{BATTLE, Client, DELTA, EVENT, Frame, keyed};
use crate::node::{on_each_driver, token, until};
use crate::raw::reset;

/// A member that is reset again and again in the middle of a stream receives every event once and in order.
#[test]
fn resets_lose_and_double_nothing() {
    const EVENTS: u64 = 400;
    on_each_driver(&[], |gateway| {
        let mut publisher = Client::publisher(gateway, "server");
        let relay = publisher.join("arena")[0];
        let mut member = Client::player(gateway, "bob");
        member.join("arena");
        let publishing = thread::spawn(move || {
            for n in 1..=EVENTS {
                publisher.publish(EVENT, relay, n, &n.to_le_bytes());
                // Every tenth waits for its ACK, so that the stream goes on while the member comes and goes.
                while n % 10 == 0 && publisher.expect(types::ACK).header.number != n {}
            }
            publisher
        });
        let (mut next, mut resumes) = (1, 0);
        while next <= EVENTS {
            let until = EVENTS.min(next + 39);
            while next <= until {
                assert_eq!(member.expect(types::EVENT).payload, next.to_le_bytes());
                next += 1;
            }
            let (resume, positions) = (member.resume.clone(), member.positions());
            reset(member.stream());
            drop(member);
            member = Client::resumed(gateway, &resume, positions);
            assert!(member.recovered, "{:?}", member.reason);
            resumes += 1;
        }
        drop(publishing.join().unwrap());
        (next, resumes)
    });
}

/// A session comes back with its room and no event twice, also when nothing happened meanwhile, and may go on commanding.
#[test]
fn an_idle_session_comes_back() {
    on_each_driver(&[], |gateway| {
        let mut publisher = Client::publisher(gateway, "server");
        let relay = publisher.join("arena")[0];
        let mut member = Client::player(gateway, "bob");
        member.join("arena");
        publisher.publish(EVENT, relay, 0, b"before");
        assert_eq!(member.expect(types::EVENT).payload, b"before");
        let (resume, positions) = (member.resume.clone(), member.positions());
        drop(member);
        let mut member = Client::resumed(gateway, &resume, positions);
        assert!(member.recovered, "{:?}", member.reason);
        assert_eq!(member.joined(), [relay]);
        member.command(0x8000, relay, 3, b"back");
        assert_eq!(member.expect(types::ACK).header.number, 3);
        publisher.publish(EVENT, relay, 0, b"after");
        assert_eq!(member.expect(types::EVENT).payload, b"after");
        member.reliable
    });
}

/// A reader that stalls under a flood of deltas is closed 4408; its resume completes the battle's timeline while the
/// flood goes on.
#[test]
fn a_stalled_reader_resumes_a_whole_battle() {
    const EVENTS: u64 = 1500;
    let flags =
        ["--queue-frames", "64", "--history-events", "4096", "--resume-window-s", "60", "--queue-bytes", "262144"];
    on_each_driver(&flags, |gateway| {
        let mut publisher = Client::publisher(gateway, "server");
        let relay = publisher.join("arena")[0];
        let mut member = Client::player(gateway, "bob");
        member.join("arena");
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| flood(&mut publisher, relay, &over));
            let _stop = Stop(&over);
            let start = format!("{{\"events\":{EVENTS},\"interval_ms\":1}}");
            member.command(BATTLE, relay, 1, start.as_bytes());
            until("the stalled reader is closed", || gateway.closes("slow_consumer") > 0);
            let mut n = 0;
            let close = loop {
                match member.next() {
                    Ok(frame) => n = timeline(&frame, n),
                    Err((code, _)) => break code,
                }
            };
            assert_eq!(close, 4408);
            assert!(n < EVENTS);
            let mut closes = 1;
            // A debug build may be too slow for the flood once more: it is closed and comes back, as it should.
            while n <= EVENTS {
                let mut again = Client::resumed(gateway, &member.resume, member.positions());
                assert!(again.recovered, "{:?}", again.reason);
                assert_eq!(again.last_close, Some(4408));
                while n <= EVENTS {
                    match again.next() {
                        Ok(frame) => n = timeline(&frame, n),
                        Err((code, _)) => {
                            assert_eq!(code, 4408);
                            closes += 1;
                            break;
                        }
                    }
                }
                member = again;
            }
            assert!(closes < 20, "{closes} closes");
            n
        })
    });
}

/// Who resumes takes over: the former connection closes 4409, and the new one alone receives.
#[test]
fn a_takeover_replaces() {
    on_each_driver(&[], |gateway| {
        let mut publisher = Client::publisher(gateway, "server");
        let relay = publisher.join("arena")[0];
        let mut former = Client::player(gateway, "bob");
        former.join("arena");
        let mut members = 0;
        for n in 0..10_u64 {
            let mut member = Client::resumed(gateway, &former.resume, former.positions());
            assert!(member.recovered, "{:?}", member.reason);
            assert_eq!(former.closed(), (4409, "replaced".into()));
            publisher.publish(EVENT, relay, 0, &n.to_le_bytes());
            assert_eq!(member.expect(types::EVENT).payload, n.to_le_bytes());
            former = member;
            members += 1;
        }
        members
    });
}

/// A resume of a session that does not exist (any more) is a new session that says so, if a token comes with it, else
/// `auth_failed`; another user's token neither opens a session nor ends its connection.
#[test]
fn a_lost_session_is_told() {
    on_each_driver(&[], |gateway| {
        let made_up = "AAAAAAAAAAAAAAAAAAAAAA";
        for resume in [made_up, "not a token", ""] {
            let mut client = Client::open(gateway);
            let bob = token("bob", &[]);
            client.hello(&Hello { token: Some(&bob), resume: Some(resume), ..Hello::default() });
            assert_eq!((client.recovered, client.reason.as_deref()), (false, Some("expired")), "{resume}");
        }
        let mut client = Client::open(gateway);
        client.send(|out| hello(out, &Hello { resume: Some(made_up), ..Hello::default() }));
        assert_eq!(client.error().0, "auth_failed");
        let bob = Client::player(gateway, "bob");
        let mut thief = Client::open(gateway);
        let mallory = token("mallory", &[]);
        let stolen = Hello { token: Some(&mallory), resume: Some(&bob.resume), ..Hello::default() };
        thief.send(|out| hello(out, &stolen));
        assert_eq!(thief.error().0, "auth_failed");
        // Nor does it end another's connection.
        let mut bob = bob;
        bob.send(|out| ping(out, b"still here"));
        assert_eq!(bob.expect(types::PONG).payload, b"still here");
    });
}

/// Publishes deltas of many keys until told to stop.
fn flood(publisher: &mut Client, relay: StreamHandle, over: &AtomicBool) {
    let value = [7; 1000];
    let mut round = 0;
    while !over.load(Ordering::Acquire) {
        for key in 0..100 {
            publisher.publish(DELTA, relay, 0, &keyed(key, &value));
        }
        round += 1;
        // The ACK of this event bounds how far the flood runs ahead.
        publisher.publish(EVENT, relay, round, b"round");
        while publisher.expect(types::ACK).header.number != round {}
    }
}

/// Ends the flood also when a check fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// The number of the timeline behind this frame; the end counts as one more.
fn timeline(frame: &Frame, n: u64) -> u64 {
    let text = String::from_utf8_lossy(&frame.payload);
    match frame.header.frame_type {
        types::BATTLE_TIMELINE => assert!(text.contains(&format!("\"n\":{}}}", n + 1)), "behind {n}: {text}"),
        types::BATTLE_END => assert!(text.contains(&format!("\"events\":{n}")), "behind {n}: {text}"),
        _ => return n,
    }
    n + 1
}
