//! A bare socket: HTTP heads and WebSocket frames byte by byte.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};

use ringgate::protocol::frames::client;
use ringgate::protocol::frames::json::Hello;
use rustix::net::sockopt::set_socket_linger;
use std::time::Duration;

use crate::node::{DEADLINE, Gateway, token};

/// See the module.
pub struct Raw {
    pub stream: TcpStream,
    input: Vec<u8>,
}

impl Raw {
    pub fn connect(gateway: &Gateway) -> Self {
        let stream = TcpStream::connect(gateway.address).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.set_write_timeout(Some(DEADLINE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, input: Vec::new() }
    }

    /// A socket that something else has used.
    pub fn around(stream: TcpStream) -> Self {
        Self { stream, input: Vec::new() }
    }

    /// Connects and upgrades.
    pub fn upgraded(gateway: &Gateway, path: &str) -> Self {
        let mut raw = Self::connect(gateway);
        raw.write(request(path, &[]).as_bytes());
        let (status, _) = raw.response();
        assert_eq!(status, 101);
        raw
    }

    /// A player whose WELCOME is read.
    pub fn player(gateway: &Gateway, user: &str) -> Self {
        let mut raw = Self::upgraded(gateway, "/ws/frames");
        let token = token(user, &[]);
        raw.send(|out| client::hello(out, &Hello { token: Some(&token), ..Hello::default() }));
        assert_eq!(raw.frame().unwrap().0, 0x82);
        raw
    }

    pub fn write(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// Sends a dialect D frame.
    pub fn send(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let mut payload = Vec::new();
        write(&mut payload);
        self.write(&masked(0x82, &payload));
    }

    /// Status and head of the response.
    pub fn response(&mut self) -> (u16, String) {
        let end = loop {
            if let Some(at) = self.input.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            assert!(self.fill(), "no response: {}", String::from_utf8_lossy(&self.input));
        };
        let head = String::from_utf8(self.input.drain(..end).collect()).unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), head)
    }

    /// The next frame: first byte and payload; `None` at the end of the stream.
    pub fn frame(&mut self) -> Option<(u8, Vec<u8>)> {
        loop {
            if let Some((first, from, to)) = frame_bounds(&self.input).filter(|(_, _, to)| *to <= self.input.len()) {
                let payload = self.input[from..to].to_vec();
                self.input.drain(..to);
                return Some((first, payload));
            }
            if !self.fill() {
                assert!(self.input.is_empty(), "ended within a frame");
                return None;
            }
        }
    }

    /// Asks for an upgrade that may be refused; whether it was granted.
    pub fn try_upgrade(&mut self) -> bool {
        // A refusal may have ended the connection before it was asked for.
        let _ = self.stream.write_all(request("/ws/frames", &[]).as_bytes());
        let mut status = [0; 12];
        self.stream.read_exact(&mut status).is_ok() && &status == b"HTTP/1.1 101"
    }

    /// Reads on to the close frame, its code (0 if it has none), and that nothing but the end follows.
    pub fn closed(&mut self) -> u16 {
        loop {
            let (first, payload) = self.frame().expect("a close frame before the end");
            if first == 0x88 {
                assert!(self.frame().is_none(), "a frame behind the close frame");
                return payload.first_chunk().map_or(0, |code| u16::from_be_bytes(*code));
            }
        }
    }

    /// What else the server sends before it ends the stream, in order.
    pub fn rest(mut self) -> Vec<u8> {
        while self.fill() {}
        self.input
    }

    /// Reads until the server ends the stream; whether it did so in order, without a reset.
    pub fn ended(&mut self) -> bool {
        let mut rest = Vec::new();
        match self.stream.read_to_end(&mut rest) {
            Ok(_) => true,
            Err(error) if error.kind() == ErrorKind::ConnectionReset => false,
            Err(error) => panic!("{error}"),
        }
    }

    /// Ends the sending side.
    pub fn shut(&mut self) {
        self.stream.shutdown(Shutdown::Write).unwrap();
    }

    /// Ends the connection with RST.
    pub fn reset(self) {
        reset(&self.stream);
    }

    fn fill(&mut self) -> bool {
        let mut chunk = [0; 16 << 10];
        let bytes = self.stream.read(&mut chunk).unwrap();
        self.input.extend_from_slice(&chunk[..bytes]);
        bytes > 0
    }
}

/// When this socket is dropped, the other side sees RST.
pub fn reset(stream: &TcpStream) {
    set_socket_linger(stream, Some(Duration::ZERO)).unwrap();
}

/// First byte, start and end of the payload of an unmasked frame.
fn frame_bounds(input: &[u8]) -> Option<(u8, usize, usize)> {
    let (&[first, second], rest) = input.split_first_chunk()?;
    assert_eq!(second & 0x80, 0, "§5.1: a server masks no frame");
    let (from, len) = match second {
        126 => (4, usize::from(u16::from_be_bytes(*rest.first_chunk()?))),
        127 => (10, usize::try_from(u64::from_be_bytes(*rest.first_chunk()?)).unwrap()),
        short => (2, usize::from(short)),
    };
    Some((first, from, from + len))
}

/// A client's frame with this first byte.
pub fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
    let mut out = vec![first];
    match payload.len() {
        short @ 0..=125 => out.push(0x80 | short as u8),
        medium @ 126..=0xffff => {
            out.push(0x80 | 126);
            out.extend_from_slice(&(medium as u16).to_be_bytes());
        }
        long => {
            out.push(0x80 | 127);
            out.extend_from_slice(&(long as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&KEY);
    out.extend(payload.iter().zip(KEY.iter().cycle()).map(|(byte, key)| byte ^ key));
    out
}

/// An upgrade request with headers changed, added, or (`-`) left out.
pub fn request(path: &str, changes: &[(&str, &str)]) -> String {
    let mut fields = vec![
        ("Host", "127.0.0.1"),
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("Sec-WebSocket-Version", "13"),
    ];
    fields.retain(|(name, _)| !changes.iter().any(|(changed, _)| changed == name));
    fields.extend(changes.iter().filter(|(_, value)| *value != "-"));
    let lines: String = fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    format!("GET {path} HTTP/1.1\r\n{lines}\r\n")
}
