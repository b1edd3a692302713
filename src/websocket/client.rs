//! The client's side of the opening handshake (RFC 6455 §4.1), for the load generator and `ringgate connect`.

use std::fmt;

use base64::Engine;

use crate::limits;
use crate::websocket::handshake::{BASE64, Fields, accept_value};

/// The upgrade request. `host` with its port unless it is the default; `path` with its query; `key` from
/// [`client_key`]. The arguments are the caller's own: none may contain a line break.
#[must_use]
pub fn client_request(host: &str, path: &str, key: &str, protocols: &[&str], origin: Option<&str>) -> Vec<u8> {
    debug_assert!([host, path, key].iter().chain(protocols).all(|text| !text.contains(['\r', '\n'])));
    let mut out = format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n"
    );
    if !protocols.is_empty() {
        out.push_str("Sec-WebSocket-Protocol: ");
        out.push_str(&protocols.join(", "));
        out.push_str("\r\n");
    }
    if let Some(origin) = origin {
        out.push_str("Origin: ");
        out.push_str(origin);
        out.push_str("\r\n");
    }
    out.push_str("\r\n");
    out.into_bytes()
}

/// `Sec-WebSocket-Key` of 16 random bytes, fresh for each connection (§4.1).
#[must_use]
pub fn client_key(nonce: [u8; 16]) -> String {
    BASE64.encode(nonce)
}

/// The server speaks WebSocket from here on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Accepted {
    /// Bytes of the response; frames may follow in the same input.
    pub consumed: usize,
    /// The subprotocol the server chose; whether it was offered is the caller's to check.
    pub protocol: Option<String>,
}

/// Why the server's answer opens no WebSocket connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ResponseError {
    /// Not an HTTP/1.1 response, or its head exceeds `limits::HANDSHAKE_BYTES` or `limits::HANDSHAKE_HEADERS`.
    Malformed,
    /// The server answers with this status instead of 101.
    Status(u16),
    /// A 101 that does not upgrade to WebSocket.
    NotWebSocket,
    /// `Sec-WebSocket-Accept` does not belong to the key: this was answered by something else.
    WrongAccept,
    /// The server chose an extension, and none was offered.
    Extension,
}

impl fmt::Display for ResponseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed => f.write_str("the server's answer is not an HTTP/1.1 response"),
            Self::Status(status) => write!(f, "the server refuses the upgrade with HTTP status {status}"),
            Self::NotWebSocket => f.write_str("the server switches protocols, but not to WebSocket"),
            Self::WrongAccept => f.write_str("Sec-WebSocket-Accept does not belong to the key that was sent"),
            Self::Extension => f.write_str("the server chose an extension that was not offered"),
        }
    }
}

impl std::error::Error for ResponseError {}

/// Reads the server's answer at the beginning of `bytes`; `None` = more is needed. `key` is the request's.
///
/// # Errors
/// The answer does not open a connection (§4.1).
pub fn parse_response(bytes: &[u8], key: &str) -> Result<Option<Accepted>, ResponseError> {
    let mut storage = [httparse::EMPTY_HEADER; limits::HANDSHAKE_HEADERS];
    let mut head = httparse::Response::new(&mut storage);
    let consumed = match head.parse(&bytes[..bytes.len().min(limits::HANDSHAKE_BYTES)]) {
        Ok(httparse::Status::Complete(consumed)) => consumed,
        Ok(httparse::Status::Partial) if bytes.len() < limits::HANDSHAKE_BYTES => return Ok(None),
        Ok(httparse::Status::Partial) | Err(_) => return Err(ResponseError::Malformed),
    };
    match head.code {
        Some(101) if head.version == Some(1) => {}
        Some(status) if status != 101 => return Err(ResponseError::Status(status)),
        _ => return Err(ResponseError::Malformed),
    }
    let fields = Fields(head.headers);
    let malformed = |_| ResponseError::Malformed;
    let single = |name| fields.single(name, "a header is there twice").map_err(malformed);
    let lists = |name, token| fields.lists(name, token).map_err(malformed);
    if !lists("upgrade", "websocket")? || !lists("connection", "upgrade")? {
        return Err(ResponseError::NotWebSocket);
    }
    if single("sec-websocket-accept")? != Some(&accept_value(key)) {
        return Err(ResponseError::WrongAccept);
    }
    if single("sec-websocket-extensions")?.is_some_and(|list| !list.is_empty()) {
        return Err(ResponseError::Extension);
    }
    Ok(Some(Accepted { consumed, protocol: single("sec-websocket-protocol")?.map(str::to_owned) }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::websocket::{Refusal, accept_response, parse_request};

    const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

    /// Our client's request passes our server's judgement, and its answer our client's, at whatever byte it is cut.
    #[test]
    fn client_and_server_agree() {
        let key = client_key(*b"the sample nonce");
        assert_eq!(key, KEY);
        let request = client_request("a:1", "/ws?x=1", &key, &["p1", "p2"], Some("http://a:1"));
        let read = parse_request(&request).unwrap().unwrap();
        assert_eq!((read.host, read.path, read.query, read.origin), ("a:1", "/ws", "x=1", Some("http://a:1")));
        assert_eq!((read.consumed, read.upgrade.unwrap().protocols), (request.len(), vec!["p1", "p2"]));
        let mut response = accept_response(&key, Some("p2"));
        let consumed = response.len();
        for end in 0..consumed {
            assert_eq!(parse_response(&response[..end], &key), Ok(None));
        }
        response.extend_from_slice(b"\x81\x00");
        let accepted = Accepted { consumed, protocol: Some("p2".to_owned()) };
        assert_eq!(parse_response(&response, &key), Ok(Some(accepted)));
    }

    /// Every answer that is no acceptance of this key is told apart.
    #[test]
    fn other_answers_are_refused() {
        use ResponseError as E;
        let good = String::from_utf8(accept_response(KEY, None)).unwrap();
        for (answer, error) in [
            (String::from_utf8(Refusal::Forbidden.response()).unwrap(), E::Status(403)),
            (good.replace("Upgrade: websocket", "Upgrade: h2c"), E::NotWebSocket),
            (good.replace("Connection: Upgrade", "Connection: close"), E::NotWebSocket),
            (good.replace("s3pPL", "S3pPL"), E::WrongAccept),
            (good.replace("\r\n\r\n", "\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n"), E::Extension),
            (good.replace("HTTP/1.1", "HTTP/1.0"), E::Malformed),
            (good.replace("\r\n\r\n", &format!("\r\nX: {}", "x".repeat(limits::HANDSHAKE_BYTES))), E::Malformed),
            ("SSH-2.0-OpenSSH\r\n".to_owned(), E::Malformed),
        ] {
            assert_eq!(parse_response(answer.as_bytes(), KEY), Err(error), "{answer}");
        }
    }
}
