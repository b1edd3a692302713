//! The WebSocket codec beside tungstenite, an implementation that shares no code with it.
//!
//! Where the two differ on purpose (RFC 6455 leaves or tungstenite takes liberties):
//! - a length that is not in its shortest form: tungstenite reads it, we refuse it (§5.2 "minimal number of bytes");
//! - a close code that must not be sent: tungstenite delivers 1002 instead, we fail with 1002;
//! - frames behind a close: tungstenite reports them, we ignore them (§1.4);
//! - tungstenite judges whole frames, we judge each byte; so only whole frames are compared.

use std::cell::RefCell;
use std::io::{self, Read, Write};
use std::rc::Rc;

use proptest::prelude::*;
use ringgate::websocket::{
    self, Accepted, DecodeError, Decoder, Message, Opcode, Role, Upgrade, accept_response, client_key, client_request,
    parse_request, parse_response, put_binary, put_close, put_masked_close, put_masked_frame, put_ping, put_pong,
    put_text,
};
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tungstenite::{HandshakeError, WebSocket};

/// A message as both sides show it.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Seen {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<(u16, String)>),
}

/// One direction's bytes that end without an end of file, and what was written.
#[derive(Clone, Default)]
struct Pipe {
    input: Rc<RefCell<io::Cursor<Vec<u8>>>>,
    output: Rc<RefCell<Vec<u8>>>,
}

impl Pipe {
    fn of(bytes: Vec<u8>) -> Self {
        Self { input: Rc::new(RefCell::new(io::Cursor::new(bytes))), output: Rc::default() }
    }

    fn supply(&self, bytes: &[u8]) {
        self.input.borrow_mut().get_mut().extend_from_slice(bytes);
    }

    fn written(&self) -> Vec<u8> {
        self.output.borrow().clone()
    }
}

impl Read for Pipe {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.input.borrow_mut().read(buffer)? {
            0 => Err(io::ErrorKind::WouldBlock.into()),
            read => Ok(read),
        }
    }
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.output.borrow_mut().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What our decoder makes of bytes that arrive in pieces of the given lengths, the rest at once.
fn ours(role: Role, max: usize, bytes: &[u8], pieces: &[usize]) -> (Vec<Seen>, Result<(), DecodeError>) {
    let (mut decoder, mut seen, mut rest) = (Decoder::new(role, max), Vec::new(), bytes);
    let mut pieces = pieces.iter();
    while !rest.is_empty() {
        let take = pieces.next().map_or(rest.len(), |&piece| piece.min(rest.len()));
        let (mut piece, mut at) = (rest[..take].to_vec(), 0);
        rest = &rest[take..];
        loop {
            match decoder.next(&mut piece, &mut at) {
                Ok(Some(message)) => seen.push(owned(&message)),
                Ok(None) => break,
                Err(error) => return (seen, Err(error)),
            }
        }
        assert_eq!(at, piece.len(), "None means that all is consumed");
        assert!(decoder.buffered_bytes() <= max + 125, "memory is bounded");
    }
    (seen, Ok(()))
}

fn owned(message: &Message<'_>) -> Seen {
    match message {
        Message::Text(bytes) => Seen::Text(String::from_utf8(bytes.to_vec()).expect("the decoder validates text")),
        Message::Binary(bytes) => Seen::Binary(bytes.to_vec()),
        Message::Ping(bytes) => Seen::Ping(bytes.to_vec()),
        Message::Pong(bytes) => Seen::Pong(bytes.to_vec()),
        Message::Close(close) => Seen::Close(close.map(|(code, text)| (code, text.to_owned()))),
    }
}

/// What tungstenite makes of bytes; `false` = it found a breach.
fn theirs(role: tungstenite::protocol::Role, max: usize, bytes: &[u8]) -> (Vec<Seen>, bool) {
    let config = WebSocketConfig::default().max_message_size(Some(max)).max_frame_size(Some(max.max(125)));
    let mut socket = WebSocket::from_raw_socket(Pipe::of(bytes.to_vec()), role, Some(config));
    let mut seen = Vec::new();
    loop {
        use tungstenite::Message as M;
        seen.push(match socket.read() {
            Ok(M::Text(text)) => Seen::Text(text.as_str().to_owned()),
            Ok(M::Binary(bytes)) => Seen::Binary(bytes.to_vec()),
            Ok(M::Ping(bytes)) => Seen::Ping(bytes.to_vec()),
            Ok(M::Pong(bytes)) => Seen::Pong(bytes.to_vec()),
            Ok(M::Close(Some(close))) if close.reason.as_str() == "Protocol violation" => return (seen, false),
            Ok(M::Close(close)) => {
                seen.push(Seen::Close(close.map(|close| (close.code.into(), close.reason.as_str().to_owned()))));
                return (seen, true);
            }
            Ok(M::Frame(_)) => unreachable!("read() yields messages"),
            Err(tungstenite::Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => return (seen, true),
            Err(_) => return (seen, false),
        });
    }
}

/// Payload lengths on both sides of every length form, and small ones.
fn payload() -> impl Strategy<Value = Vec<u8>> {
    let len = prop_oneof![8 => 0usize..300, 1 => 124usize..128, 1 => 65_533usize..65_538];
    (len, any::<u8>()).prop_map(|(len, seed)| (0..len).map(|i| (i as u8).wrapping_mul(31) ^ seed).collect())
}

fn control() -> impl Strategy<Value = Seen> {
    let payload = proptest::collection::vec(any::<u8>(), 0..=125);
    (payload, any::<bool>()).prop_map(|(bytes, ping)| if ping { Seen::Ping(bytes) } else { Seen::Pong(bytes) })
}

fn data() -> impl Strategy<Value = Seen> {
    prop_oneof![payload().prop_map(Seen::Binary), "\\PC{0,80}".prop_map(Seen::Text)]
}

fn close() -> impl Strategy<Value = Seen> {
    let code = prop_oneof![1000u16..=1003, 1007u16..=1013, 3000u16..=4999];
    proptest::option::of((code, "\\PC{0,30}")).prop_map(Seen::Close)
}

/// Messages of every kind, and a close at the end.
fn conversation() -> impl Strategy<Value = Vec<Seen>> {
    let messages = proptest::collection::vec(prop_oneof![3 => data(), 1 => control()], 0..8);
    (messages, close()).prop_map(|(mut messages, close)| {
        messages.push(close);
        messages
    })
}

fn pieces() -> impl Strategy<Value = Vec<usize>> {
    proptest::collection::vec(prop_oneof![3 => 1usize..8, 1 => 1usize..400, 1 => 1usize..70_000], 0..60)
}

/// A frame that breaks no rule or some, with a length in its shortest form.
#[derive(Clone, Debug)]
struct RawFrame {
    first: u8,
    masked: bool,
    payload: Vec<u8>,
}

fn raw_frame() -> impl Strategy<Value = RawFrame> {
    let opcode = prop_oneof![4 => Just(0u8), 3 => Just(1), 3 => Just(2), 1 => Just(8), 2 => 9u8..=10, 1 => 0u8..16];
    let text = prop_oneof![
        6 => "\\PC{0,20}".prop_map(String::into_bytes),
        1 => Just(b"\xe2\x82".to_vec()),
        1 => Just(b"\xac".to_vec()),
        1 => Just(b"\xed\xa0".to_vec()),
        1 => Just(b"\xf0\x9f".to_vec()),
        1 => proptest::collection::vec(any::<u8>(), 0..6),
        1 => proptest::collection::vec(Just(b'x'), 120..260),
        1 => (0u16..=5100, "[a-z]{0,4}").prop_map(|(code, text)| [&code.to_be_bytes()[..], text.as_bytes()].concat()),
    ];
    let reserved = prop_oneof![30 => Just(0u8), 1 => 0u8..8];
    let flags = (proptest::bool::weighted(0.6), reserved, proptest::bool::weighted(0.97));
    (opcode, flags, text).prop_map(|(opcode, (fin, reserved, masked), payload)| RawFrame {
        first: u8::from(fin) << 7 | reserved << 4 | opcode,
        masked,
        payload,
    })
}

fn write_raw(out: &mut Vec<u8>, frame: &RawFrame) {
    let start = out.len();
    if frame.masked {
        put_masked_frame(out, Opcode::Binary, [0x1b, 0xe2, 0x00, 0x9d], &frame.payload);
    } else {
        put_binary(out, &frame.payload);
    }
    out[start] = frame.first;
}

fn write_ours(out: &mut Vec<u8>, message: &Seen) {
    match message {
        Seen::Text(text) => put_text(out, text),
        Seen::Binary(bytes) => put_binary(out, bytes),
        Seen::Ping(bytes) => put_ping(out, bytes),
        Seen::Pong(bytes) => put_pong(out, bytes),
        Seen::Close(None) => put_close(out, 0, ""),
        Seen::Close(Some((code, text))) => put_close(out, *code, text),
    }
}

fn write_ours_masked(out: &mut Vec<u8>, key: [u8; 4], message: &Seen) {
    let (opcode, bytes) = match message {
        Seen::Text(text) => (Opcode::Text, text.as_bytes()),
        Seen::Binary(bytes) => (Opcode::Binary, &bytes[..]),
        Seen::Ping(bytes) => (Opcode::Ping, &bytes[..]),
        Seen::Pong(bytes) => (Opcode::Pong, &bytes[..]),
        Seen::Close(close) => {
            let (code, text) = close.as_ref().map_or((0, ""), |(code, text)| (*code, text.as_str()));
            return put_masked_close(out, key, code, text);
        }
    };
    put_masked_frame(out, opcode, key, bytes);
}

fn write_theirs(socket: &mut WebSocket<Pipe>, message: &Seen) {
    use tungstenite::Message as M;
    let message = match message.clone() {
        Seen::Text(text) => M::text(text),
        Seen::Binary(bytes) => M::binary(bytes),
        Seen::Ping(bytes) => M::Ping(bytes.into()),
        Seen::Pong(bytes) => M::Pong(bytes.into()),
        Seen::Close(close) => {
            M::Close(close.map(|(code, text)| CloseFrame { code: CloseCode::from(code), reason: text.as_str().into() }))
        }
    };
    // A pong is only queued by write(); its own flush keeps the order.
    socket.write(message).expect("a pipe takes everything");
    socket.flush().expect("a pipe takes everything");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    /// What our encoders write, as server and as client, tungstenite reads, message for message.
    #[test]
    fn tungstenite_reads_what_we_write(messages in conversation(), key in any::<[u8; 4]>()) {
        let (mut plain, mut masked) = (Vec::new(), Vec::new());
        for message in &messages {
            write_ours(&mut plain, message);
            write_ours_masked(&mut masked, key, message);
        }
        prop_assert_eq!(theirs(tungstenite::protocol::Role::Client, 1 << 20, &plain), (messages.clone(), true));
        prop_assert_eq!(theirs(tungstenite::protocol::Role::Server, 1 << 20, &masked), (messages, true));
    }

    /// What tungstenite writes, as client and as server, our decoder reads over any splits.
    #[test]
    fn we_read_what_tungstenite_writes(messages in conversation(), pieces in pieces(), client in any::<bool>()) {
        use tungstenite::protocol::Role as Theirs;
        let (their_role, our_role) = if client { (Theirs::Client, Role::Server) } else { (Theirs::Server, Role::Client) };
        let pipe = Pipe::default();
        let mut socket = WebSocket::from_raw_socket(pipe.clone(), their_role, None);
        for message in &messages {
            write_theirs(&mut socket, message);
        }
        prop_assert_eq!(ours(our_role, 1 << 20, &pipe.written(), &pieces), (messages, Ok(())));
    }

    /// Messages in fragments cut anywhere, control frames between them, arrive whole over any splits.
    #[test]
    fn fragments_are_joined(
        messages in proptest::collection::vec((data(), proptest::collection::vec((0usize..200, control()), 0..5)), 1..4),
        pieces in pieces(),
    ) {
        let (mut bytes, mut expected) = (Vec::new(), Vec::new());
        for (message, cuts) in messages {
            let (mut opcode, mut rest) = match &message {
                Seen::Text(text) => (1, text.as_bytes()),
                Seen::Binary(bytes) => (2, &bytes[..]),
                other => unreachable!("data() makes no {other:?}"),
            };
            for (cut, control) in cuts {
                let (payload, behind) = rest.split_at(cut.min(rest.len()));
                write_raw(&mut bytes, &RawFrame { first: opcode, masked: true, payload: payload.to_vec() });
                write_ours_masked(&mut bytes, [1, 2, 3, 4], &control);
                expected.push(control);
                (opcode, rest) = (0, behind);
            }
            write_raw(&mut bytes, &RawFrame { first: 0x80 | opcode, masked: true, payload: rest.to_vec() });
            expected.push(message);
        }
        prop_assert_eq!(ours(Role::Server, 1 << 20, &bytes, &pieces), (expected, Ok(())));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    /// Frames with and without breaches: we and tungstenite see the same messages and refuse the same frame.
    #[test]
    fn verdicts_agree_with_tungstenite(frames in proptest::collection::vec(raw_frame(), 1..7), pieces in pieces()) {
        let mut bytes = Vec::new();
        frames.iter().for_each(|frame| write_raw(&mut bytes, frame));
        let (seen, end) = ours(Role::Server, 60, &bytes, &pieces);
        let (their_seen, their_end) = theirs(tungstenite::protocol::Role::Server, 60, &bytes);
        prop_assert_eq!((seen, end.is_ok()), (their_seen, their_end), "we ended with {:?}", end);
    }

    /// Garbage never panics, and what is made of any bytes does not depend on how they were split.
    #[test]
    fn splits_never_matter(
        frames in proptest::collection::vec(raw_frame(), 0..4),
        garbage in proptest::collection::vec(any::<u8>(), 0..40),
        pieces in pieces(),
        server in any::<bool>(),
    ) {
        let role = if server { Role::Server } else { Role::Client };
        let mut bytes = Vec::new();
        frames.iter().for_each(|frame| write_raw(&mut bytes, frame));
        bytes.extend(garbage);
        prop_assert_eq!(ours(role, 240, &bytes, &pieces), ours(role, 240, &bytes, &[]));
    }

    /// Garbage, and a good request with garbage in it, never makes the handshake's parsers panic or want more for ever.
    #[test]
    fn handshake_garbage_never_panics(garbage in proptest::collection::vec(any::<u8>(), 0..60), at in 0usize..160) {
        let mut bytes = client_request("host", "/ws", "dGhlIHNhbXBsZSBub25jZQ==", &["p"], None);
        let at = at.min(bytes.len());
        bytes.splice(at..at, garbage);
        let _ = parse_request(&bytes);
        let _ = parse_response(&bytes, "dGhlIHNhbXBsZSBub25jZQ==");
        bytes.resize(ringgate::limits::HANDSHAKE_BYTES, b'x');
        prop_assert!(!matches!(parse_request(&bytes), Ok(None)), "a full buffer must get an answer");
    }
}

/// tungstenite's server accepts our client's request, and our client its answer.
#[test]
fn tungstenite_accepts_our_handshake() {
    let key = client_key([7; 16]);
    let pipe = Pipe::of(client_request("localhost:1", "/ws?x=1", &key, &[], Some("http://localhost:1")));
    tungstenite::accept(pipe.clone()).expect("our request is a handshake");
    let answer = pipe.written();
    assert_eq!(parse_response(&answer, &key), Ok(Some(Accepted { consumed: answer.len(), protocol: None })));
}

/// Our server accepts tungstenite's request, and tungstenite's client our answer.
#[test]
fn we_accept_tungstenites_handshake() {
    let pipe = Pipe::default();
    let Err(HandshakeError::Interrupted(waiting)) = tungstenite::client("ws://localhost:1/ws?x=1", pipe.clone()) else {
        panic!("the client waits for an answer")
    };
    let bytes = pipe.written();
    let request = parse_request(&bytes).expect("a handshake").expect("a whole one");
    assert_eq!((request.path, request.query, request.host), ("/ws", "x=1", "localhost:1"));
    assert_eq!(request.consumed, bytes.len());
    let Some(Upgrade { key, .. }) = request.upgrade else { panic!("an upgrade") };
    pipe.supply(&accept_response(key, None));
    waiting.handshake().map(drop).expect("our answer is an acceptance");
}

/// Each purposeful difference to tungstenite stands: ours is the stricter side, or the silent one behind a close.
#[test]
fn documented_differences_stand() {
    let long_form = [0x82, 0xfe, 0, 1, 0, 0, 0, 0, 9];
    let tolerant = theirs(tungstenite::protocol::Role::Server, 99, &long_form);
    assert_eq!(tolerant, (vec![Seen::Binary(vec![9])], true));
    assert_eq!(ours(Role::Server, 99, &long_form, &[]), (vec![], Err(DecodeError::Length)));
    let mut late = Vec::new();
    put_masked_close(&mut late, [0; 4], 1000, "");
    websocket::put_masked_frame(&mut late, Opcode::Text, [0; 4], b"late");
    assert_eq!(ours(Role::Server, 99, &late, &[]), (vec![Seen::Close(Some((1000, String::new())))], Ok(())));
}
