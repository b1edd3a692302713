//! A client of the server API, by hand: one request a connection, and log streams line by line.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use simd_json::OwnedValue;
use simd_json::prelude::*;

use crate::node::{API_KEY, DEADLINE, Gateway};

/// An answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Answer {
    pub fn json(&self) -> OwnedValue {
        parse(&self.body)
    }

    /// Status, code and field of an error.
    pub fn error(&self) -> (u16, String, Option<String>) {
        let body = self.json();
        let error = body.get("error").unwrap_or_else(|| panic!("{self:?}"));
        assert!(error.get_str("message").unwrap().len() > 5, "{self:?}");
        (self.status, error.get_str("code").unwrap().into(), error.get_str("field").map(str::to_owned))
    }
}

pub fn parse(text: &str) -> OwnedValue {
    simd_json::to_owned_value(&mut text.as_bytes().to_vec()).unwrap_or_else(|error| panic!("{error}: {text}"))
}

impl Gateway {
    /// A request with the right key.
    pub fn get(&self, path: &str) -> Answer {
        self.ask(&format!("GET {path} HTTP/1.1\r\nHost: a\r\nAuthorization: apikey {API_KEY}\r\n\r\n"), b"")
    }

    /// A body with the right key.
    pub fn post(&self, path: &str, content_type: &str, body: &str) -> Answer {
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: a\r\nAuthorization: apikey {API_KEY}\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        self.ask(&head, body.as_bytes())
    }

    /// An event, accepted: its id.
    pub fn publish(&self, event: &str) -> String {
        let answer = self.post("/api/events", "application/json", event);
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json().get_str("event_id").unwrap().to_owned()
    }

    pub fn ask(&self, head: &str, body: &[u8]) -> Answer {
        let mut stream = self.connect();
        stream.write_all(head.as_bytes()).unwrap();
        // A refused body may not be taken to its end.
        let _ = stream.write_all(body);
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Answer { status, head: head.to_ascii_lowercase(), body: body.to_owned() }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.health).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream
    }

    /// A stream of a topic; its first line is read.
    pub fn follow(&self, target: &str) -> Log {
        let mut stream = self.connect();
        let head = format!("GET /api/log/{target} HTTP/1.1\r\nHost: a\r\nAuthorization: apikey {API_KEY}\r\n\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        let mut log = Log { stream: BufReader::new(stream), pieces: Vec::new(), standing: parse("null") };
        let status = log.raw_line();
        assert!(status.starts_with("HTTP/1.1 200"), "{status}");
        while log.raw_line() != "\r\n" {}
        log.standing = log.line().unwrap();
        log
    }
}

/// A log stream.
pub struct Log {
    stream: BufReader<TcpStream>,
    /// What of the last chunks is not yet a line.
    pieces: Vec<u8>,
    /// The first line.
    pub standing: OwnedValue,
}

impl Log {
    /// The next line; `None` at the end.
    pub fn line(&mut self) -> Option<OwnedValue> {
        loop {
            let end = self.pieces.as_slice().split(|byte| *byte == b'\n').next().map_or(0, <[u8]>::len);
            if end < self.pieces.len() {
                let line: Vec<u8> = self.pieces.drain(..=end).collect();
                return Some(parse(std::str::from_utf8(&line).unwrap()));
            }
            let size = self.raw_line();
            let size = usize::from_str_radix(size.trim(), 16).unwrap_or_else(|_| panic!("{size:?}"));
            let mut chunk = vec![0; size + 2];
            self.stream.read_exact(&mut chunk).unwrap();
            if size == 0 {
                assert!(self.pieces.is_empty(), "the stream ended within a line");
                return None;
            }
            self.pieces.extend_from_slice(&chunk[..size]);
        }
    }

    /// The next record.
    pub fn record(&mut self) -> OwnedValue {
        loop {
            let line = self.line().expect("the stream goes on");
            if line.get("place").is_some() {
                return line;
            }
            assert!(line.get("heartbeat").is_some(), "{line}");
        }
    }

    fn raw_line(&mut self) -> String {
        let mut line = String::new();
        self.stream.read_line(&mut line).unwrap();
        line
    }
}
