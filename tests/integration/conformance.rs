//! RFC 6455 over a real socket, by section, on `/echo` of a dev-mode gateway.

use ringgate::protocol::frames::client;
use ringgate::protocol::frames::json::Hello;

use crate::node::{Gateway, on_each_driver, token, until};
use crate::raw::{Raw, masked, request};

const DEV: [&str; 1] = ["--dev"];

/// §4.2, §4.4: every handshake that is not one is refused with its exact status and the connection ends in order.
#[test]
fn section_4_handshakes_are_refused() {
    let upgrade = |changes: &[(&str, &str)]| request("/ws/frames", changes);
    let long = "x".repeat(9 << 10);
    let cases = [
        (400, upgrade(&[("Host", "-")])),
        (400, upgrade(&[("Sec-WebSocket-Key", "-")])),
        (400, upgrade(&[("Sec-WebSocket-Key", "c2hvcnQ=")])),
        (400, upgrade(&[("Sec-WebSocket-Protocol", "a,,b")])),
        (400, upgrade(&[("Content-Length", "5")])),
        (400, upgrade(&[]).replace("HTTP/1.1", "HTTP/1.0")),
        (400, "\u{1}\u{2}\r\n\r\n".to_owned()),
        (403, upgrade(&[("Origin", "https://elsewhere.example")])),
        (404, request("/nowhere", &[])),
        (404, request("/echo", &[])),
        (405, upgrade(&[]).replace("GET", "POST")),
        (414, request(&format!("/{long}"), &[])),
        (426, upgrade(&[("Upgrade", "-")])),
        (426, upgrade(&[("Sec-WebSocket-Version", "8")])),
        (431, upgrade(&[("X", &long)])),
    ];
    on_each_driver(&[], |gateway| {
        for (status, text) in &cases {
            let mut raw = Raw::connect(gateway);
            raw.write(text.as_bytes());
            let (answered, head) = raw.response();
            assert_eq!(answered, *status, "{text}");
            assert!(head.contains("\r\nConnection: close"), "{head}");
            if *status == 426 {
                assert!(head.contains("\r\nSec-WebSocket-Version: 13\r\n"), "{head}");
            }
            raw.shut();
            assert!(raw.ended(), "reset instead of an end: {text}");
        }
        until("all are counted", || gateway.closes("refused") == cases.len() as u64);
        gateway.closes("refused")
    });
}

/// §4.2.2: the acceptance names the key's digest and the one subprotocol that is spoken, however the request is cut, and
/// frames may follow the request at once; the same origin and localhost may connect.
#[test]
fn section_4_handshakes_are_accepted() {
    on_each_driver(&DEV, |gateway| {
        let mut raw = Raw::connect(gateway);
        let text = request("/ws/frames", &[("Sec-WebSocket-Protocol", "other, ringgate.frames.v1")]);
        for byte in text.as_bytes() {
            raw.write(&[*byte]);
        }
        let (status, head) = raw.response();
        assert_eq!(status, 101);
        assert!(head.contains("\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"), "{head}");
        assert!(head.contains("\r\nSec-WebSocket-Protocol: ringgate.frames.v1\r\n"), "{head}");
        for (host, origin) in [("a.example", "https://a.example"), ("a.example", "http://localhost:8080")] {
            let mut raw = Raw::connect(gateway);
            let mut bytes = request("/echo", &[("Host", host), ("Origin", origin)]).into_bytes();
            bytes.extend(masked(0x81, b"early"));
            raw.write(&bytes);
            let (status, head) = raw.response();
            assert_eq!(status, 101);
            assert!(!head.contains("Sec-WebSocket-Protocol"), "{head}");
            assert_eq!(raw.frame(), Some((0x81, b"early".to_vec())));
        }
    });
}

/// §4.2.2 (503): a gateway that is full says so, and has room again once a connection has gone.
#[test]
fn a_full_gateway_says_so() {
    on_each_driver(&["--max-connections", "1"], |gateway| {
        let only = Raw::upgraded(gateway, "/ws/frames");
        let mut refused = Raw::connect(gateway);
        let (status, head) = refused.response();
        assert_eq!(status, 503);
        assert!(head.contains("\r\nRetry-After: 1\r\n"), "{head}");
        drop(only);
        until("there is room", || Raw::connect(gateway).try_upgrade());
    });
}

/// RFC 6585 §4 (429): connections of one address that do not authenticate are refused beyond their number, before and,
/// behind a trusted proxy, at the upgrade; who authenticates or ends makes room, other clients of the proxy have theirs.
#[test]
fn newcomers_are_bounded_by_address() {
    on_each_driver(&["--shards", "1", "--newcomers-max", "2"], |gateway| {
        let mut first = Raw::upgraded(gateway, "/ws/frames");
        let second = Raw::connect(gateway);
        let mut refused = Raw::connect(gateway);
        let (status, head) = refused.response();
        assert_eq!(status, 429);
        assert!(head.contains("\r\nRetry-After: 1\r\n"), "{head}");
        let token = token("bob", &[]);
        first.send(|out| client::hello(out, &Hello { token: Some(&token), ..Hello::default() }));
        assert_eq!(first.frame().unwrap().0, 0x82);
        let third = Raw::upgraded(gateway, "/ws/frames");
        assert_eq!(Raw::connect(gateway).response().0, 429);
        drop((second, third));
        until("there is room", || Raw::connect(gateway).try_upgrade());
    });
    on_each_driver(&["--shards", "1", "--newcomers-max", "1", "--trusted-proxies", "127.0.0.0/8"], |gateway| {
        let upgrade = |client: &str| {
            let mut raw = Raw::connect(gateway);
            raw.write(request("/ws/frames", &[("X-Forwarded-For", client)]).as_bytes());
            let (status, _) = raw.response();
            (raw, status)
        };
        let (first, second) = (upgrade("192.0.2.1"), upgrade("192.0.2.2"));
        assert_eq!((first.1, second.1, upgrade("192.0.2.1").1), (101, 101, 429));
        drop(first);
        until("there is room", || upgrade("192.0.2.1").1 == 101);
    });
}

/// §5.2–§5.5, §7.4: each breach of framing closes with the code the RFC names for it, and nothing follows.
#[test]
fn section_5_breaches_close() {
    let first = |first: u8| masked(first, b"x");
    let close = |payload: &[u8]| masked(0x88, payload);
    let code = |code: u16| masked(0x88, &code.to_be_bytes());
    let header = |bytes: &[u8]| [bytes, &[0; 4]].concat();
    let cases: Vec<(&str, Vec<u8>, u16)> = vec![
        ("5.1 unmasked", b"\x81\x01x".to_vec(), 1002),
        ("5.2 RSV1", first(0xC1), 1002),
        ("5.2 RSV2", first(0xA1), 1002),
        ("5.2 RSV3", first(0x91), 1002),
        ("5.2 reserved opcode", first(0x83), 1002),
        ("5.2 reserved opcode", first(0x87), 1002),
        ("5.2 reserved control opcode", first(0x8B), 1002),
        ("5.2 reserved control opcode", first(0x8F), 1002),
        ("5.2 length in more bytes than needed", header(b"\x82\xFE\x00\x7D"), 1002),
        ("5.2 length in more bytes than needed", header(b"\x82\xFF\0\0\0\0\0\0\xFF\xFF"), 1002),
        ("5.2 length with its first bit", header(b"\x82\xFF\x80\0\0\0\0\0\0\0"), 1002),
        ("5.4 continuation of nothing", first(0x80), 1002),
        ("5.4 a message within another", [first(0x01), first(0x81)].concat(), 1002),
        ("5.5 fragmented ping", first(0x09), 1002),
        ("5.5 ping of 126 bytes", masked(0x89, &[0; 126]), 1002),
        ("5.5 fragmented close", first(0x08), 1002),
        ("5.5.1 close of 1 byte", close(b"x"), 1002),
        ("5.5.1 close reason is not UTF-8", close(b"\x03\xE8\xFF"), 1007),
        ("7.4 code 0", code(0), 1002),
        ("7.4 code 999", code(999), 1002),
        ("7.4.1 code 1004", code(1004), 1002),
        ("7.4.1 code 1005", code(1005), 1002),
        ("7.4.1 code 1006", code(1006), 1002),
        ("7.4.1 code 1015", code(1015), 1002),
        ("7.4.2 code 1016", code(1016), 1002),
        ("7.4.2 code 5000", code(5000), 1002),
        ("8.1 text is not UTF-8", masked(0x81, b"\xC0\xAF"), 1007),
        ("8.1 text ends within a character", masked(0x81, b"\xE2\x82"), 1007),
        ("8.1 a surrogate", masked(0x81, b"\xED\xA0\x80"), 1007),
        ("8.1 the first bad byte, before the message ends", masked(0x01, b"a\xFF"), 1007),
        ("10.4 too big by its header", header(b"\x82\xFF\0\0\0\0\0\x01\0\x01"), 1009),
        ("10.4 too big in fragments", [masked(0x02, &[0; 40 << 10]), masked(0x80, &[0; 40 << 10])].concat(), 1009),
    ];
    on_each_driver(&DEV, |gateway| {
        for (name, bytes, code) in &cases {
            let mut raw = Raw::upgraded(gateway, "/echo");
            raw.write(bytes);
            assert_eq!(raw.closed(), *code, "{name}");
        }
        cases.len()
    });
}

/// §5.4, §5.5: fragments make one message, with pings between them answered at once; empty frames and the largest
/// message are messages too; an unasked pong is ignored.
#[test]
fn section_5_messages_are_whole() {
    on_each_driver(&DEV, |gateway| {
        let mut raw = Raw::upgraded(gateway, "/echo");
        raw.write(&masked(0x01, "gr".as_bytes()));
        raw.write(&masked(0x89, b"between"));
        assert_eq!(raw.frame(), Some((0x8A, b"between".to_vec())));
        // The character's two bytes come in two fragments, with an empty one and a pong between.
        raw.write(&masked(0x00, b"\xC3"));
        raw.write(&masked(0x8A, b"unasked"));
        raw.write(&masked(0x00, b""));
        raw.write(&masked(0x80, b"\xBC\xC3\x9F"));
        assert_eq!(raw.frame(), Some((0x81, "grüß".into())));
        let mut echoed = 0;
        for len in [0, 1, 125, 126, 127, 65_535, 65_536] {
            let payload: Vec<u8> = (0..len as u32).map(|n| n as u8 ^ 0x55).collect();
            raw.write(&masked(0x82, &payload));
            let (first, back) = raw.frame().unwrap();
            assert!(first == 0x82 && back == payload, "{len} bytes");
            echoed += back.len();
        }
        raw.write(&masked(0x89, &[7; 125]));
        assert_eq!(raw.frame(), Some((0x8A, vec![7; 125])));
        for byte in masked(0x81, "byte by byte: ✓".as_bytes()) {
            raw.write(&[byte]);
        }
        assert_eq!(raw.frame(), Some((0x81, "byte by byte: ✓".into())));
        echoed
    });
}

/// §5.5.1, §7.1: the closing handshake echoes the client's code, then the server ends TCP first and in order.
#[test]
fn section_7_closes_are_answered() {
    on_each_driver(&DEV, |gateway| {
        let mut answered = Vec::new();
        for code in [1000_u16, 1001, 1003, 1007, 1011, 3000, 4999] {
            let mut raw = Raw::upgraded(gateway, "/echo");
            raw.write(&masked(0x88, &[&code.to_be_bytes()[..], b"bye"].concat()));
            answered.push(raw.closed());
        }
        assert_eq!(answered, [1000, 1001, 1003, 1007, 1011, 3000, 4999]);
        let mut raw = Raw::upgraded(gateway, "/echo");
        // What comes behind a close frame is not read any more (§5.5.1).
        raw.write(&[masked(0x81, b"last"), masked(0x88, b""), masked(0x81, b"never")].concat());
        assert_eq!(raw.frame(), Some((0x81, b"last".to_vec())));
        assert_eq!(raw.closed(), 1000);
        drop(raw);
        no_connection_left(gateway);
        answered.len()
    });
}

fn no_connection_left(gateway: &Gateway) {
    until("no connection is left", || gateway.metric("ringgate_connections").iter().sum::<u64>() == 0);
}
