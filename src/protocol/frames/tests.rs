//! Golden vectors for every type, and properties of both parsers.

use std::sync::Arc;

use proptest::prelude::*;

use super::client::{self, FromServer};
use super::json::{Hello, Join, Joined, LastClose, StreamName, StreamPlace, Welcome};
use super::*;
use crate::close::CloseReason;
use crate::frame::{Encode, Item};
use crate::message::{ErrorCode, Introduction, Position};

/// Bytes of a header written by hand: type, flags, kind, stream, number, prev.
fn head(frame_type: u8, flags: u8, kind: [u8; 2], stream: [u8; 4], number: [u8; 8], prev: [u8; 8]) -> Vec<u8> {
    [&[frame_type, flags][..], &kind, &stream, &number, &prev].concat()
}

const NO_KIND: [u8; 2] = [0; 2];
const NO_STREAM: [u8; 4] = [0; 4];
const ZERO: [u8; 8] = [0; 8];
/// 0x0807060504030201 and 0x0403_0201, so that a wrong byte order shows.
const NUMBER: u64 = 0x0807_0605_0403_0201;
const NUMBER_LE: [u8; 8] = [1, 2, 3, 4, 5, 6, 7, 8];
const STREAM: StreamHandle = StreamHandle(0x0403_0201);
const STREAM_LE: [u8; 4] = [1, 2, 3, 4];

fn written(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    write(&mut out);
    out
}

/// The golden wire frame: WebSocket header of a short binary message, header, payload.
fn wire(header: Vec<u8>, payload: &[u8]) -> Vec<u8> {
    let len = u8::try_from(header.len() + payload.len()).unwrap();
    assert!(len < 126);
    [&[0x82, len][..], &header, payload].concat()
}

fn introduction() -> Introduction {
    let position = Position { stream: "relay/room:a".into(), epoch: 7, place: NUMBER };
    Introduction { handle: STREAM, position, publishers_only: false }
}

fn item(class: Class, forgets: bool) -> Item {
    Item { class, key: 9, forgets, place: NUMBER, prev: 3 }
}

/// Every frame a client sends has exactly these bytes, and the server reads them as what was meant.
#[test]
fn golden_client_to_server() {
    let hello_json =
        br#"{"token":"t","resume":"r","positions":{"relay/room:a":{"epoch":1,"offset":2}},"delta_window":3}"#;
    let positions = vec![Position { stream: "relay/room:a".into(), epoch: 1, place: 2 }];
    let hello = Hello { token: Some("t"), resume: Some("r"), positions, delta_window: Some(3) };
    let mut bytes = written(|out| client::hello(out, &hello));
    assert_eq!(bytes, [head(1, 0, NO_KIND, NO_STREAM, ZERO, ZERO), hello_json.to_vec()].concat());
    let Ok(Inbound::Hello { json }) = parse(&mut bytes) else { panic!("not a HELLO") };
    assert_eq!(json::read::<Hello<'_>>(json).unwrap(), hello);

    let join = Join { room: "a", password: None };
    let mut bytes = written(|out| client::join(out, NUMBER, &join));
    assert_eq!(bytes, [head(6, 0, NO_KIND, NO_STREAM, NUMBER_LE, ZERO), br#"{"room":"a"}"#.to_vec()].concat());
    let Ok(Inbound::Join { correlation: NUMBER, json }) = parse(&mut bytes) else { panic!("not a JOIN") };
    assert_eq!(json::read::<Join<'_>>(json).unwrap(), join);

    let golden = |bytes: Vec<u8>, header: Vec<u8>, payload: &[u8], expected: Inbound<'_>| {
        assert_eq!(bytes, [&header[..], payload].concat());
        assert_eq!(parse(&mut { bytes }), Ok(expected));
    };
    golden(
        written(|out| client::ping(out, b"x")),
        head(4, 0, NO_KIND, NO_STREAM, ZERO, ZERO),
        b"x",
        Inbound::Ping { payload: b"x" },
    );
    golden(written(|out| client::pong(out, b"x")), head(5, 0, NO_KIND, NO_STREAM, ZERO, ZERO), b"x", Inbound::Pong);
    golden(
        written(|out| client::leave(out, NUMBER, "a")),
        head(8, 0, NO_KIND, NO_STREAM, NUMBER_LE, ZERO),
        b"a",
        Inbound::Leave { correlation: NUMBER, room: "a" },
    );
    golden(
        written(|out| client::command(out, 0x8001, STREAM, NUMBER, b"x")),
        head(16, 0, [1, 0x80], STREAM_LE, NUMBER_LE, ZERO),
        b"x",
        Inbound::Command { kind: 0x8001, stream: STREAM, correlation: NUMBER, payload: b"x" },
    );
    golden(
        written(|out| client::delta_ack(out, NUMBER)),
        head(37, 0, NO_KIND, NO_STREAM, NUMBER_LE, ZERO),
        b"",
        Inbound::DeltaAck { count: NUMBER },
    );
}

/// A publisher's frames have exactly these bytes: a delta names its key, an event may name one that it forgets.
#[test]
fn golden_publish() {
    let keyed = [&NUMBER_LE[..], b"x"].concat();
    for (frame_type, forgets, payload) in
        [(32, false, &keyed[..]), (33, false, b"x"), (34, false, b""), (35, false, b"x"), (35, true, &keyed)]
    {
        let kind = FrameKind { frame_type, kind: 0x0201 };
        let mut bytes = written(|out| client::publish(out, kind, forgets, STREAM, NUMBER, payload));
        let header = head(frame_type, u8::from(forgets), [1, 2], STREAM_LE, NUMBER_LE, ZERO);
        assert_eq!(bytes, [&header[..], payload].concat());
        let delta = frame_type == 32;
        let expected = Inbound::Publish {
            kind,
            class: if delta { Class::Delta } else { Class::Reliable },
            key: if delta || forgets { NUMBER } else { 0 },
            forgets,
            stream: STREAM,
            correlation: NUMBER,
            payload,
        };
        assert_eq!(parse(&mut bytes), Ok(expected));
    }
}

/// The server's JSON frames have exactly these bytes, and the client reads them as what was meant.
#[test]
fn golden_server_json() {
    let last_close = Some(write::last_close(CloseReason::SlowConsumer));
    let welcome = Welcome {
        connection_id: "c",
        session_id: "s",
        user_id: "u",
        resume: "r",
        heartbeat_ms: 25_000,
        recovered: false,
        reason: Some("expired"),
        lost: vec!["relay/room:a"],
        rooms: vec!["a"],
        durability: "memory",
        last_close,
    };
    let bytes = written(|out| write::welcome(out, &welcome));
    let json = br#"{"connection_id":"c","session_id":"s","user_id":"u","resume":"r","heartbeat_ms":25000,"recovered":false,"reason":"expired","lost":["relay/room:a"],"rooms":["a"],"durability":"memory","last_close":{"code":4408,"reason":"slow_consumer"}}"#;
    let header = head(2, 0, NO_KIND, NO_STREAM, ZERO, ZERO);
    let len = u16::try_from(24 + json.len()).unwrap().to_be_bytes();
    assert_eq!(bytes, [&[0x82, 126][..], &len, &header, json].concat());
    let Some(FromServer::Welcome { json }) = client::parse(&bytes[4..]) else { panic!("not a WELCOME") };
    assert_eq!(json::read::<Welcome<'_>>(&mut json.to_vec()).unwrap(), welcome);
    assert_eq!(last_close, Some(LastClose { code: 4408, reason: "slow_consumer" }));

    let small = Introduction {
        handle: StreamHandle(3),
        position: Position { place: 2, ..introduction().position },
        publishers_only: false,
    };
    let bytes = written(|out| write::joined(out, NUMBER, "a", [&small], None));
    let json = br#"{"room_id":"a","streams":[{"handle":3,"stream":"relay/room:a","epoch":7,"offset":2}]}"#;
    assert_eq!(bytes, wire(head(7, 0, NO_KIND, NO_STREAM, NUMBER_LE, ZERO), json));
    let Some(FromServer::Joined { correlation: NUMBER, json }) = client::parse(&bytes[2..]) else {
        panic!("not a JOINED")
    };
    let streams = vec![StreamPlace { handle: 3, stream: "relay/room:a", epoch: 7, offset: 2 }];
    assert_eq!(
        json::read::<Joined<'_>>(&mut json.to_vec()).unwrap(),
        Joined { room_id: "a", streams, recovered: None, reason: None }
    );

    let bytes = written(|out| write::position(out, &introduction()));
    let json = br#"{"stream":"relay/room:a","epoch":7}"#;
    assert_eq!(bytes, wire(head(10, 0, NO_KIND, STREAM_LE, NUMBER_LE, ZERO), json));
    let Some(FromServer::Position { stream: STREAM, head: NUMBER, json }) = client::parse(&bytes[2..]) else {
        panic!("not a POSITION")
    };
    assert_eq!(
        json::read::<StreamName<'_>>(&mut json.to_vec()).unwrap(),
        StreamName { stream: "relay/room:a", epoch: 7 }
    );
}

/// The server's other answers and introductions have exactly these bytes, and the client reads them as what was meant.
#[test]
fn golden_server_answers() {
    let golden = |bytes: Vec<u8>, header: Vec<u8>, payload: &[u8], expected: FromServer<'_>| {
        assert_eq!(bytes, wire(header, payload));
        assert_eq!(client::parse(&bytes[2..]), Some(expected));
    };
    golden(
        written(|out| write::error(out, ErrorCode::BadRequest, NUMBER, "no")),
        head(3, 0, [3, 0], NO_STREAM, NUMBER_LE, ZERO),
        b"no",
        FromServer::Error { code: 3, correlation: NUMBER, text: "no" },
    );
    golden(
        written(|out| write::ping(out, b"x")),
        head(4, 0, NO_KIND, NO_STREAM, ZERO, ZERO),
        b"x",
        FromServer::Ping { payload: b"x" },
    );
    golden(
        written(|out| write::pong(out, b"x")),
        head(5, 0, NO_KIND, NO_STREAM, ZERO, ZERO),
        b"x",
        FromServer::Pong { payload: b"x" },
    );
    golden(
        written(|out| write::left(out, NUMBER, "a")),
        head(9, 0, NO_KIND, NO_STREAM, NUMBER_LE, ZERO),
        b"a",
        FromServer::Left { correlation: NUMBER, room: "a" },
    );
    golden(
        written(|out| write::advance(out, STREAM, NUMBER, 3)),
        head(11, 0, NO_KIND, STREAM_LE, NUMBER_LE, [3, 0, 0, 0, 0, 0, 0, 0]),
        b"",
        FromServer::Advance { stream: STREAM, place: NUMBER, prev: 3 },
    );
    golden(
        written(|out| write::ack(out, NUMBER)),
        head(17, 0, NO_KIND, NO_STREAM, NUMBER_LE, ZERO),
        b"",
        FromServer::Ack { correlation: NUMBER },
    );
    golden(
        written(|out| write::skipped(out, STREAM, NUMBER)),
        head(36, 0, NO_KIND, STREAM_LE, NUMBER_LE, ZERO),
        b"",
        FromServer::Skipped { stream: STREAM, count: NUMBER },
    );
}

/// Stream frames have exactly these bytes; the body stands in them as it came, its key included.
#[test]
fn golden_stream_frames() {
    let keyed = [&NUMBER_LE[..], b"x"].concat();
    let player = write::player_command_body(NUMBER, "bob", b"x");
    assert_eq!(*player, *[&NUMBER_LE[..], &[3, 0], b"bobx"].concat());
    for (frame_type, forgets, body) in
        [(18, false, &*player), (33, false, b"x"), (34, false, b""), (35, false, b"x"), (35, true, &keyed)]
    {
        let kind = FrameKind { frame_type, kind: 0x0201 };
        let bytes = written(|out| FramesEncoder.encode(STREAM, &item(Class::Reliable, forgets), kind, body, out));
        let header = head(frame_type, u8::from(forgets), [1, 2], STREAM_LE, NUMBER_LE, [3, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(bytes, wire(header, body));
        let forgets = forgets.then_some(NUMBER);
        let expected = FromServer::Reliable { kind, stream: STREAM, place: NUMBER, prev: 3, forgets, payload: body };
        assert_eq!(client::parse(&bytes[2..]), Some(expected));
    }
    let kind = FrameKind { frame_type: 32, kind: 0x0201 };
    let delta = Item { prev: 0, ..item(Class::Delta, false) };
    let bytes = written(|out| FramesEncoder.encode(STREAM, &delta, kind, &keyed, out));
    assert_eq!(bytes, wire(head(32, 0, [1, 2], STREAM_LE, NUMBER_LE, ZERO), &keyed));
    let expected = FromServer::Delta { kind: 0x0201, stream: STREAM, after: NUMBER, key: NUMBER, payload: &keyed };
    assert_eq!(client::parse(&bytes[2..]), Some(expected));
}

/// The vectors above and the table name the same types: one that is added without a vector fails here.
#[test]
fn the_type_table_is_complete() {
    let numbers: Vec<u8> = TYPES.iter().map(|(number, _)| *number).collect();
    assert_eq!(numbers, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 16, 17, 18, 32, 33, 34, 35, 36, 37]);
    assert_eq!(type_name(18), Some("PLAYER_COMMAND"));
    assert_eq!(type_name(12), None);
}

/// Every kind of malformed message is refused, for the reason that is true of it.
#[test]
fn malformed_frames_are_refused() {
    let frame = |frame_type, flags, payload: &[u8]| {
        [head(frame_type, flags, NO_KIND, NO_STREAM, ZERO, ZERO), payload.to_vec()].concat()
    };
    assert_eq!(parse(&mut []), Err(FrameError::ShortHeader { len: 0 }));
    assert_eq!(parse(&mut frame(4, 0, b"")[..23]), Err(FrameError::ShortHeader { len: 23 }));
    for frame_type in [0, 2, 3, 7, 9, 10, 11, 12, 17, 18, 31, 36, 38, 255] {
        assert_eq!(parse(&mut frame(frame_type, 0, b"")), Err(FrameError::Type(frame_type)));
    }
    for (frame_type, flags) in [(1, 1), (6, 1), (16, 1), (32, 1), (35, 2), (35, 3), (37, 128)] {
        let refused = parse(&mut frame(frame_type, flags, &[0; 8])).map(|_| ());
        assert_eq!(refused, Err(FrameError::Flags { frame_type, flags }));
    }
    for (frame_type, flags, payload) in
        [(4, 0, &[0; 126][..]), (5, 0, &[0; 126]), (8, 0, &[0xff]), (32, 0, &[0; 7]), (33, 1, &[0; 7]), (37, 0, &[0])]
    {
        let refused = parse(&mut frame(frame_type, flags, payload)).map(|_| ());
        assert!(matches!(refused, Err(FrameError::Payload { frame_type: t, .. }) if t == frame_type), "{refused:?}");
    }
    assert!(parse(&mut frame(4, 0, &[0; 125])).is_ok());
    let text = FrameError::Flags { frame_type: 35, flags: 2 }.to_string();
    assert_eq!(text, "flags 0x2 on EVENT; send 0");
}

/// HELLO takes any subset of its fields and ignores others, and a peer can choose neither the number of positions nor
/// the depth of the JSON.
#[test]
fn hello_is_bounded() {
    let read = |text: &str| json::read::<Hello<'static>>(text.as_bytes().to_vec().leak());
    assert_eq!(read("{}").unwrap(), Hello::default());
    let hello = read(r#"{"token":"\u00e4","positions":null,"extra":[{"a":1}],"resume":null}"#).unwrap();
    assert_eq!(hello, Hello { token: Some("ä"), ..Hello::default() });
    for bad in ["", "[]", "1", "{", r#"{"token":1}"#, r#"{"delta_window":-1}"#, r#"{"positions":{"a":{}}}"#] {
        assert!(read(bad).is_err(), "{bad:?}");
    }
    let positions = |count: usize| {
        let entries: Vec<String> = (0..count).map(|i| format!(r#""s{i}":{{"epoch":1,"offset":{i}}}"#)).collect();
        format!(r#"{{"positions":{{{}}}}}"#, entries.join(","))
    };
    assert_eq!(read(&positions(limits::POSITIONS_MAX)).unwrap().positions.len(), limits::POSITIONS_MAX);
    assert!(read(&positions(limits::POSITIONS_MAX + 1)).unwrap_err().to_string().contains("1024"));
    let deep = |prefix: &str| format!("{prefix}{}{}", "[".repeat(30_000), "]".repeat(30_000));
    assert!(read(&deep(r#"{"x":"#)).unwrap_err().to_string().contains("deeper"));
    assert!(read(&deep(r#"{"x":\""#)).is_err());
    assert!(read(r#"{"token":"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[["}"#).is_ok());
}

fn any_json() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..200),
        r#"[\[\]{}":,\\0-9a-z.eE+-]{0,120}"#.prop_map(String::into_bytes),
        r#"\{"(token|positions|room)":[\[\]{}":,\\0-9a-z]{0,60}\}"#.prop_map(String::into_bytes),
    ]
}

proptest! {
    /// Whatever a peer sends, parsing it does not panic.
    #[test]
    fn parsing_never_panics(mut message in proptest::collection::vec(any::<u8>(), 0..300), frame_type in 0u8..40) {
        let _ = client::parse(&message);
        let _ = parse(&mut message);
        if let Some(first) = message.first_mut() {
            *first = frame_type;
        }
        if let Some(flags) = message.get_mut(1) {
            *flags &= 1;
        }
        let _ = client::parse(&message);
        let _ = parse(&mut message);
    }

    /// Whatever JSON a peer sends, reading it does not panic.
    #[test]
    fn reading_json_never_panics(json in any_json()) {
        let _ = json::read::<Hello<'_>>(&mut json.clone());
        let _ = json::read::<Join<'_>>(&mut json.clone());
        let _ = json::read::<Joined<'_>>(&mut json.clone());
        let _ = json::read::<Welcome<'_>>(&mut json.clone());
    }

    /// A header is read as it was written.
    #[test]
    fn headers_round_trip(frame_type: u8, flags: u8, kind: u16, stream: u32, number: u64, prev: u64, tail: Vec<u8>) {
        let header = Header { frame_type, flags, kind, stream: StreamHandle(stream), number, prev };
        let mut bytes = written(|out| header.put(out));
        bytes.extend_from_slice(&tail);
        prop_assert_eq!(Header::read(&bytes), Some((header, &tail[..])));
    }

    /// A HELLO is read as it was written, whatever its strings hold.
    #[test]
    fn hellos_round_trip(token: Option<String>, resume: Option<String>, delta_window: Option<u32>, names: Vec<String>) {
        let mut positions: Vec<Position> = Vec::new();
        for (i, name) in names.iter().enumerate() {
            positions.push(Position { stream: Arc::from(name.as_str()), epoch: (1 << 53) - 1, place: i as u64 });
        }
        let hello = Hello { token: token.as_deref(), resume: resume.as_deref(), positions, delta_window };
        let mut bytes = json::write(&hello);
        let Ok(read) = json::read::<Hello<'_>>(&mut bytes) else { return Err(TestCaseError::fail("not read")) };
        prop_assert_eq!(read, hello);
    }

    /// What a publisher sends reaches the members byte for byte.
    #[test]
    fn published_payloads_arrive_unchanged(payload in proptest::collection::vec(any::<u8>(), 8..400), forgets: bool) {
        let kind = FrameKind { frame_type: types::EVENT, kind: 5 };
        let mut sent = written(|out| client::publish(out, kind, forgets, STREAM, 1, &payload));
        let Ok(Inbound::Publish { class, key, forgets, payload: body, .. }) = parse(&mut sent) else {
            return Err(TestCaseError::fail("not a publish"));
        };
        let item = Item { class, key, forgets, place: 2, prev: 1 };
        let wire = written(|out| FramesEncoder.encode(STREAM, &item, kind, body, out));
        let header_len = if wire[1] == 126 { 4 } else { 2 };
        let Some(FromServer::Reliable { place: 2, prev: 1, payload: got, forgets: forgot, .. }) =
            client::parse(&wire[header_len..])
        else {
            return Err(TestCaseError::fail("not a reliable frame"));
        };
        prop_assert_eq!(got, &payload[..]);
        prop_assert_eq!(forgot, forgets.then_some(key));
    }
}
