//! Dialect D end to end.

use ringgate::frame::FrameKind;
use ringgate::id::StreamHandle;
use ringgate::protocol::frames::json::{Hello, Join};
use ringgate::protocol::frames::{client, types};
use tungstenite::Message;

use crate::client::{BATTLE, Client, DELTA, EVENT, keyed};
use crate::node::{Gateway, on_each_driver, token, until};

/// Members on both shards receive a publisher's events in order and whole, each delta behind the event it follows, and
/// the publisher an ACK for each of them.
#[test]
fn a_room_spans_shards() {
    on_each_driver(&[], |gateway| {
        let mut publisher = Client::publisher(gateway, "server");
        let relay = publisher.join("arena")[0];
        let mut members = Vec::new();
        until("both shards have members", || {
            for _ in 0..4 {
                let mut member = Client::player(gateway, &format!("player-{}", members.len()));
                assert_eq!(member.join("arena"), [relay]);
                members.push(member);
            }
            gateway.metric("ringgate_sessions").iter().all(|sessions| *sessions >= 2)
        });
        for n in 1..=100_u64 {
            publisher.publish(EVENT, relay, n, &n.to_le_bytes());
            publisher.publish(DELTA, relay, 0, &keyed(n % 3, &n.to_le_bytes()));
        }
        for n in 1..=100 {
            assert_eq!(publisher.expect(types::ACK).header.number, n);
        }
        for member in &mut members {
            let (mut events, mut deltas) = (0, 0);
            while events < 100 || deltas < 100 {
                let frame = member.read();
                match frame.header.frame_type {
                    types::EVENT => {
                        events += 1;
                        assert_eq!(frame.payload, u64::to_le_bytes(events));
                    }
                    types::WORLD_DELTA => {
                        deltas += 1;
                        assert_eq!(frame.payload, keyed(deltas % 3, &deltas.to_le_bytes()));
                        assert!(deltas <= events);
                    }
                    other => panic!("type {other}"),
                }
            }
        }
        (100, gateway.page("/ready").contains("\"ready\":true"))
    });
}

/// A player's command reaches the publisher with who sent it and is acknowledged; once the publisher has left, it is
/// `unavailable`.
#[test]
fn players_command_publishers() {
    on_each_driver(&[], |gateway| {
        let mut publisher = Client::publisher(gateway, "server");
        let input = publisher.join("arena")[1];
        let mut player = Client::player(gateway, "bob");
        let relay = player.join("arena")[0];
        for n in 1..=50_u64 {
            player.command(0x8001, relay, n, b"jump");
        }
        for n in 1..=50_u64 {
            assert_eq!(player.expect(types::ACK).header.number, n);
            let frame = publisher.expect(types::PLAYER_COMMAND);
            assert_eq!((frame.header.kind, frame.header.stream), (0x8001, input));
            assert_eq!(frame.payload, [&n.to_le_bytes()[..], &3_u16.to_le_bytes(), b"bob", b"jump"].concat());
        }
        publisher.send(|out| client::leave(out, 9, "arena"));
        assert_eq!(publisher.expect(types::LEFT).header.number, 9);
        let mut refused = 0;
        until("the room has no publisher", || {
            player.command(0x8001, relay, 51, b"jump");
            let frame = player.read();
            refused = frame.header.kind;
            frame.header.frame_type == types::ERROR
        });
        assert_eq!(refused, 16, "unavailable");
        publisher.reliable
    });
}

/// A battle is a timeline of the numbers 1 to N followed by its end, with every `prev` in place, for every member; a
/// second one within the second is `rate_limited`.
#[test]
fn a_battle_is_complete() {
    on_each_driver(&[], |gateway| {
        let mut publisher = Client::publisher(gateway, "server");
        publisher.join("arena");
        let mut members = ["a", "b", "c"].map(|user| Client::player(gateway, user));
        let relay = members.each_mut().map(|member| member.join("arena")[0])[0];
        let start = br#"{"events":200,"interval_ms":1}"#;
        members[0].command(BATTLE, relay, 1, start);
        members[0].command(BATTLE, relay, 2, start);
        let mut answers = Vec::new();
        for member in &mut members {
            let mut n = 0;
            loop {
                let frame = member.read();
                let text = String::from_utf8_lossy(&frame.payload);
                match frame.header.frame_type {
                    types::BATTLE_TIMELINE => {
                        n += 1;
                        assert!(text.contains(&format!("\"n\":{n}}}")), "{text}");
                    }
                    types::BATTLE_END => {
                        assert!(text.contains("\"events\":200"), "{text}");
                        break;
                    }
                    types::ACK | types::ERROR => answers.push((frame.header.number, frame.header.kind)),
                    types::POSITION => {}
                    other => panic!("type {other}"),
                }
            }
            assert_eq!(n, 200);
            assert_eq!(member.reliable, 201);
        }
        answers.sort_unstable();
        assert_eq!(answers, [(1, 0), (2, 15)], "ACK, rate_limited");
        members.iter().map(|member| member.reliable).sum::<u64>()
    });
}

/// Every refusal has its exact code and the correlation of what was refused, and the connection goes on.
#[test]
fn refusals_have_their_codes() {
    on_each_driver(&[], |gateway| {
        let mut publisher = Client::publisher(gateway, "server");
        let streams = publisher.join("arena");
        let mut player = Client::player(gateway, "bob");
        let relay = player.join("arena")[0];
        let unknown = StreamHandle(relay.0 ^ 0xff00);
        let frame = |write: &dyn Fn(&mut Vec<u8>)| {
            let mut frame = Vec::new();
            write(&mut frame);
            frame
        };
        let join = |room| frame(&|out| client::join(out, 5, &Join { room, password: None }));
        let event = |stream| frame(&|out| client::publish(out, EVENT, false, stream, 5, b"x"));
        let command = |kind, stream| frame(&|out| client::command(out, kind, stream, 5, b"{}"));
        let cases = [
            (join("nowhere"), "room_not_found"),
            (join("no such/room"), "bad_request"),
            (frame(&|out| client::leave(out, 5, "nowhere")), "not_in_room"),
            (command(0x8000, unknown), "not_in_room"),
            (command(BATTLE, unknown), "not_in_room"),
            (command(999, relay), "unknown_type"),
            (event(relay), "forbidden"),
        ];
        let count = cases.len();
        for (bytes, code) in cases {
            player.send(|out| out.extend_from_slice(&bytes));
            assert_eq!(player.error(), (code, 5));
        }
        for stream in [streams[1], unknown, StreamHandle::NONE] {
            publisher.send(|out| out.extend_from_slice(&event(stream)));
            assert_eq!(publisher.error(), ("bad_request", 5));
        }
        player.send(|out| client::ping(out, b"still here"));
        assert_eq!(player.expect(types::PONG).payload, b"still here");
        count
    });
}

/// Three bad tokens close 4401, each answered `auth_failed`; a good one after a bad one is welcome.
#[test]
fn three_bad_tokens_close() {
    on_each_driver(&[], |gateway| {
        let bad = Hello { token: Some("a.b.c"), ..Hello::default() };
        let mut client = Client::open(gateway);
        for _ in 0..3 {
            client.send(|out| client::hello(out, &bad));
            assert_eq!(client.error(), ("auth_failed", 0));
        }
        assert_eq!(client.closed(), (4401, "unauthorized".into()));
        let mut client = Client::open(gateway);
        client.send(|out| client::hello(out, &bad));
        assert_eq!(client.error(), ("auth_failed", 0));
        client.hello(&Hello { token: Some(&token("bob", &[])), ..Hello::default() });
        gateway.closes("unauthorized")
    });
}

/// Breaches of the dialect close with exactly the code that names them, before and behind the WELCOME.
#[test]
fn breaches_close_with_their_codes() {
    on_each_driver(&[], |gateway| {
        let open = |gateway: &Gateway, welcome: bool| {
            if welcome { Client::player(gateway, "bob") } else { Client::open(gateway) }
        };
        let frame = |header: &[u8]| Message::binary(header.to_vec());
        let of_type = |frame_type: u8| {
            let mut bytes = [0; 24];
            bytes[0] = frame_type;
            frame(&bytes)
        };
        let cases = [
            (false, of_type(types::JOIN), 4401),
            (false, of_type(types::PING), 4401),
            (false, of_type(types::HELLO), 4400),
            (false, frame(b"short"), 4400),
            (true, frame(b"short"), 4400),
            (true, of_type(types::WELCOME), 4400),
            (true, of_type(99), 4400),
            (true, of_type(types::JOIN), 4400),
            (true, of_type(types::WORLD_DELTA), 4400),
            (true, Message::text("hello"), 1003),
            (true, frame(&[0; (64 << 10) + 1]), 1009),
            (false, frame(&[0; (64 << 10) + 1]), 1009),
        ];
        for (welcome, message, code) in cases.clone() {
            let mut client = open(gateway, welcome);
            client.send_message(message.clone());
            assert_eq!(client.closed().0, code, "{message:?}");
        }
        until("no connection is left", || gateway.metric("ringgate_connections").iter().sum::<u64>() == 0);
        cases.len()
    });
}

/// The largest frame the gateway takes reaches the members unchanged, of each reliable type with its kind.
#[test]
fn the_largest_frame_arrives() {
    on_each_driver(&[], |gateway| {
        let mut publisher = Client::publisher(gateway, "server");
        let relay = publisher.join("arena")[0];
        let mut member = Client::player(gateway, "bob");
        member.join("arena");
        let payload: Vec<u8> = (0..(64 << 10) - 24_u32).map(|n| n as u8).collect();
        for frame_type in [types::BATTLE_TIMELINE, types::BATTLE_END, types::EVENT] {
            publisher.publish(FrameKind { frame_type, kind: 513 }, relay, 1, &payload);
            let frame = member.expect(frame_type);
            assert_eq!(frame.header.kind, 513);
            assert!(frame.payload == payload);
        }
        member.reliable
    });
}
