//! The self-check: both modes answer with exactly the bytes they should.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::ExitCode;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use ringgate::class::Class;
use ringgate::frame::{Encode, FrameKind, Item};
use ringgate::id::StreamHandle;
use ringgate::protocol::frames::json::{Hello, Join};
use ringgate::protocol::frames::{FramesEncoder, client, types, write};

use super::server::{self, Mode, Server};

/// Checks both modes.
pub fn check() -> ExitCode {
    if let Err(error) = io_uring::IoUring::new(8) {
        println!("limit: not checked, this host refuses io_uring: {error}");
        return ExitCode::SUCCESS;
    }
    echo();
    fanout();
    println!("limit: ok");
    ExitCode::SUCCESS
}

fn echo() {
    let (address, server) = start(Mode::Echo, 1);
    let mut client = upgrade(address, "/echo");
    for len in [0usize, 1, 125, 126, 5000, 70_000] {
        let payload: Vec<u8> = (0..len).map(|i| i as u8).collect();
        send(&mut client, &payload);
        let mut expected = Vec::new();
        ringgate::frame::put_websocket_header(&mut expected, 2, len);
        expected.extend_from_slice(&payload);
        expect(&mut client, &expected);
    }
    drop(client);
    server.join().expect("the server ends").expect("the server serves");
}

fn fanout() {
    let (address, server) = start(Mode::Fanout, 3);
    let mut clients: Vec<TcpStream> = (0..3).map(|_| join(address)).collect();
    let kind = FrameKind { frame_type: types::EVENT, kind: 0 };
    for place in 1..=50u64 {
        let payload = vec![place as u8; 100];
        let mut message = Vec::new();
        client::publish(&mut message, kind, false, StreamHandle(1), place, &payload);
        send(&mut clients[0], &message);
        let item = Item { class: Class::Reliable, key: 0, forgets: false, place, prev: place - 1 };
        let (mut event, mut ack) = (Vec::new(), Vec::new());
        FramesEncoder.encode(StreamHandle(1), &item, kind, &payload, &mut event);
        write::ack(&mut ack, place);
        expect(&mut clients[0], &ack);
        clients.iter_mut().for_each(|client| expect(client, &event));
    }
    drop(clients);
    server.join().expect("the server ends").expect("the server serves");
}

fn start(mode: Mode, connections: usize) -> (SocketAddr, JoinHandle<io::Result<()>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = listener.local_addr().expect("it is bound");
    (address, thread::spawn(move || Server::new(listener, mode)?.run(connections)))
}

fn upgrade(address: SocketAddr, path: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).expect("the server listens");
    stream.set_read_timeout(Some(Duration::from_secs(5))).expect("5 s are a timeout");
    let key = "dGhlIHNhbXBsZSBub25jZQ==";
    write!(stream, "GET {path} HTTP/1.1\r\nSec-WebSocket-Key: {key}\r\n\r\n").expect("sent");
    expect(&mut stream, server::upgrade_response("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=").as_bytes());
    stream
}

fn join(address: SocketAddr) -> TcpStream {
    let mut stream = upgrade(address, "/ws/frames");
    let mut message = Vec::new();
    client::hello(&mut message, &Hello::default());
    send(&mut stream, &message);
    let mut expected = Vec::new();
    server::put_welcome(&mut expected);
    expect(&mut stream, &expected);
    message.clear();
    client::join(&mut message, 1, &Join { room: server::ROOM, password: None });
    send(&mut stream, &message);
    expected.clear();
    server::put_joined(&mut expected, 1, 0);
    expect(&mut stream, &expected);
    stream
}

fn send(stream: &mut TcpStream, payload: &[u8]) {
    let mut frame = Vec::new();
    ringgate::frame::put_websocket_header(&mut frame, 2, payload.len());
    frame[1] |= 0x80;
    let mask = [1, 2, 3, 4];
    frame.extend_from_slice(&mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    stream.write_all(&frame).expect("sent");
}

fn expect(stream: &mut TcpStream, expected: &[u8]) {
    let mut got = vec![0; expected.len()];
    stream.read_exact(&mut got).expect("the answer comes");
    assert!(got == expected, "the server sent other bytes");
}
