//! The rooms API: every status with its JSON, CORS, rates, bodies that are too long or never come.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;

use serde_json::{Value, json};

use crate::hub::{call, call_bytes, call_with, create, create_for, join, open};
use crate::node::{DEADLINE, on_each_driver};

const NAME: &str = r#"{"display_name":"Ann"}"#;

fn code(body: &Value) -> (&str, Option<&str>) {
    let error = &body["error"];
    assert!(error["message"].as_str().unwrap().len() > 5, "{body}");
    (error["code"].as_str().unwrap(), error["field"].as_str())
}

/// A room is made and joined up to its capacity; codes are six characters, ids and tokens are each player's own.
#[test]
fn rooms_are_made_and_joined() {
    on_each_driver(&[], |gateway| {
        let first = create_for(gateway, "Ann", 2);
        assert_eq!(first.code.len(), 6);
        let second = join(gateway, &first.code.to_lowercase(), "Ann");
        assert_eq!((&second.code, &second.room), (&first.code, &first.room));
        assert!(second.player != first.player && second.token != first.token);
        let (status, body) = call(gateway, &format!("/api/rooms/{}/join", first.code), NAME);
        assert_eq!((status, code(&body)), (409, ("room_full", None)));
        assert_ne!(create(gateway, "Ann").code, first.code);
        status
    });
}

/// Every call that cannot be carried out has its exact status, and names the field that is wrong.
#[test]
fn refusals_are_exact() {
    on_each_driver(&[], |gateway| {
        let room = create(gateway, "Ann");
        let join = format!("/api/rooms/{}/join", room.code);
        let long = json!({"display_name": "x".repeat(65)}).to_string();
        let huge = format!("{{\"display_name\":\"A\",\"max_players\":{}}}", "9".repeat(400));
        let nested = format!("{{\"display_name\":{}{}}}", "[".repeat(2000), "]".repeat(2000));
        for (path, body, status, expected) in [
            ("/api/rooms", "", 400, ("bad_request", None)),
            ("/api/rooms", "{\"display_name\":", 400, ("bad_request", None)),
            ("/api/rooms", "[1]", 400, ("bad_request", None)),
            ("/api/rooms", "{}", 400, ("bad_request", Some("display_name"))),
            ("/api/rooms", &long, 400, ("bad_request", Some("display_name"))),
            ("/api/rooms", r#"{"display_name":"A","max_players":0}"#, 400, ("bad_request", Some("max_players"))),
            (&join, "{\"display_name\":7}", 400, ("bad_request", Some("display_name"))),
            (&join, r#"{"display_name":"A","display_name":"B"}"#, 400, ("bad_request", Some("display_name"))),
            ("/api/rooms", r#"{"display_name":"A","max_players":1e9}"#, 400, ("bad_request", Some("max_players"))),
            ("/api/rooms", &huge, 400, ("bad_request", None)),
            ("/api/rooms", &nested, 400, ("bad_request", Some("display_name"))),
            ("/api/rooms/ABCDEF/join", NAME, 404, ("room_not_found", None)),
            ("/api/rooms/nowhere/join", NAME, 404, ("room_not_found", None)),
        ] {
            let (got, answer) = call(gateway, path, body);
            assert_eq!((got, code(&answer)), (status, expected), "{path} {body}");
        }
        let (got, answer) = call_bytes(gateway, "/api/rooms", b"{\"display_name\":\"\xC0\xAF\"}");
        assert_eq!((got, code(&answer)), (400, ("bad_request", None)), "invalid UTF-8");
        let fields = |length: &str| format!("Content-Length: {length}\r\n");
        for (request, fields, body, status) in [
            ("POST /api/rooms", fields("4097"), "", 413),
            ("POST /api/rooms", fields("99999999999999999999"), "", 413),
            ("POST /api/rooms", String::new(), "", 411),
            ("GET /api/rooms", String::new(), "", 405),
            ("OPTIONS /ws/rooms/ABCDEF", String::new(), "", 405),
            ("POST /ws/rooms/ABCDEF", fields("2"), "{}", 405),
            ("PUT /api/rooms", String::new(), "", 405),
            ("POST /api/rooms/ABCDEF", fields("2"), "{}", 405),
            ("POST /api/rooms", "Transfer-Encoding: chunked\r\n".into(), "2\r\n{}\r\n0\r\n\r\n", 400),
        ] {
            let (got, head, _) = call_with(gateway, request, &fields, body);
            assert_eq!(got, status, "{request} {fields}: {head}");
        }
        let whole = format!("{{\"display_name\":\"A\",\"x\":\"{}\"}}", "x".repeat(4096 - 27));
        assert_eq!((whole.len(), call(gateway, "/api/rooms", &whole).0), (4096, 201));
        assert_eq!(open(gateway, "/ws/rooms/ABCDEF?token=%", None).unwrap_err().0, 400);
        let (status, ..) = call_with(gateway, "GET /ws/rooms/ABCDEF", "", "");
        status
    });
}

/// Pages of other origins may call only as the Origin rules allow, and those that may can read the answer.
#[test]
fn origins_rule_the_calls() {
    on_each_driver(&["--origins", "https://game.example"], |gateway| {
        let ask = |request: &str, origin: &str| {
            let length = if request.starts_with("POST") { "Content-Length: 22\r\n" } else { "" };
            let (status, head, _) = call_with(
                gateway,
                request,
                &format!("Origin: {origin}\r\n{length}"),
                if length.is_empty() { "" } else { NAME },
            );
            let allowed = head.lines().find_map(|line| line.strip_prefix("Access-Control-Allow-Origin: "));
            (status, allowed.map(str::to_owned))
        };
        let good = Some("https://game.example".to_owned());
        assert_eq!(NAME.len(), 22);
        assert_eq!(ask("OPTIONS /api/rooms", "https://game.example"), (204, good.clone()));
        assert_eq!(ask("POST /api/rooms", "https://game.example"), (201, good.clone()));
        assert_eq!(ask("POST /api/rooms/ABCDEF/join", "https://game.example"), (404, good));
        assert_eq!(ask("OPTIONS /api/rooms", "https://evil.example"), (403, None));
        assert_eq!(ask("POST /api/rooms", "https://evil.example"), (403, None));
        ask("GET /ws/rooms/ABCDEF", "https://evil.example").0
    });
}

/// One address may call so often; then it is told 429, and the calls that were refused made nothing.
#[test]
fn calls_are_counted_by_address() {
    on_each_driver(&["--shards", "1", "--rooms-calls-per-minute", "5"], |gateway| {
        let statuses: Vec<_> = (0..8).map(|_| call(gateway, "/api/rooms", NAME).0).collect();
        assert_eq!(statuses, [201, 201, 201, 201, 201, 429, 429, 429]);
        let (_, body) = call(gateway, "/api/rooms", NAME);
        assert_eq!(code(&body), ("rate_limited", None));
        statuses.len()
    });
}

/// A body that comes byte by byte is read; one that never ends is cut off by the handshake's time-out, while others are
/// served.
#[test]
fn slow_bodies_are_cut_off() {
    on_each_driver(&["--handshake-ms", "700"], |gateway| {
        let open = || {
            let stream = TcpStream::connect(gateway.address).unwrap();
            stream.set_read_timeout(Some(DEADLINE)).unwrap();
            stream.set_nodelay(true).unwrap();
            stream
        };
        let head = "POST /api/rooms HTTP/1.1\r\nHost: a\r\nContent-Length: 22\r\n\r\n";
        let mut stalled = open();
        stalled.write_all(format!("{head}{}", &NAME[..10]).as_bytes()).unwrap();
        let mut slow = open();
        for byte in format!("{head}{NAME}").bytes() {
            slow.write_all(&[byte]).unwrap();
        }
        let mut answer = String::new();
        slow.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 201 Created\r\n"), "{answer}");
        assert_eq!(call(gateway, "/api/rooms", NAME).0, 201);
        let mut rest = Vec::new();
        match stalled.read_to_end(&mut rest) {
            Ok(_) => assert!(rest.is_empty(), "{}", String::from_utf8_lossy(&rest)),
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
        }
        gateway.closes("handshake_timeout")
    });
}
