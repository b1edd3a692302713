//! The server's side of the opening handshake (RFC 6455 §4.2), over the bytes received so far.
//!
//! It judges form only. Path, origin and tokens are the caller's; so is a request without upgrade, which a page may
//! answer and a WebSocket path refuses with [`Refusal::UpgradeRequired`]. Bytes behind the head are left alone.

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use sha1::{Digest, Sha1};

use crate::limits;
use crate::websocket::Refusal;

/// A request with a whole head. Texts are as sent, not percent-decoded.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Request<'a> {
    /// What is to be done with the path.
    pub method: Method,
    /// Begins with `/`.
    pub path: &'a str,
    /// Behind the `?`; empty if there is none.
    pub query: &'a str,
    /// The `Host` field, with its port if sent; of an absolute target its authority (RFC 9112 §3.2.2).
    pub host: &'a str,
    /// The `Origin` field; browsers send it.
    pub origin: Option<&'a str>,
    /// The `Authorization` field.
    pub authorization: Option<&'a str>,
    /// `Forwarded` fields (RFC 7239), in order; to be believed from trusted proxies only.
    pub forwarded: Vec<&'a str>,
    /// `X-Forwarded-For` fields, in order; to be believed from trusted proxies only.
    pub forwarded_for: Vec<&'a str>,
    /// The WebSocket part; `None` = an ordinary GET.
    pub upgrade: Option<Upgrade<'a>>,
    /// Bytes of the head; what follows is the body, or belongs to the frames' decoder.
    pub consumed: usize,
    /// `Content-Length` of a POST, not bounded; `None` if it has none. Nothing else has a body.
    pub body_bytes: Option<u64>,
}

impl Request<'_> {
    /// Whether only the head of the response is asked for.
    #[must_use]
    pub fn head_only(&self) -> bool {
        self.method == Method::Head
    }
}

/// The methods that are served somewhere.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Method {
    /// An upgrade, or a page.
    Get,
    /// The head of what a GET gets (RFC 9110 §9.3.2).
    Head,
    /// A call with a body.
    Post,
    /// What a browser asks before it calls from a page of another origin.
    Options,
}

/// A valid wish to speak WebSocket version 13.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Upgrade<'a> {
    /// `Sec-WebSocket-Key`: base64 of 16 bytes.
    pub key: &'a str,
    /// Subprotocols the client offers, by its preference.
    pub protocols: Vec<&'a str>,
}

/// Reads the request at the beginning of `bytes`; `None` = more is needed.
///
/// # Errors
/// The refusal to answer with before closing; found as early as the bytes show it.
pub fn parse_request(bytes: &[u8]) -> Result<Option<Request<'_>>, Refusal> {
    let mut storage = [httparse::EMPTY_HEADER; limits::HANDSHAKE_HEADERS];
    let mut head = httparse::Request::new(&mut storage);
    let consumed = match head.parse(&bytes[..bytes.len().min(limits::HANDSHAKE_BYTES)]) {
        Ok(httparse::Status::Complete(consumed)) => consumed,
        Ok(httparse::Status::Partial) if bytes.len() < limits::HANDSHAKE_BYTES => return Ok(None),
        Ok(httparse::Status::Partial) if head.version.is_none() => return Err(Refusal::RequestLineTooLong),
        Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders) => return Err(Refusal::HeadTooLarge),
        Err(httparse::Error::Version) => return Err(Refusal::Malformed("HTTP/1.1 is required")),
        Err(_) => return Err(Refusal::Malformed("the request is not HTTP/1.1")),
    };
    if head.version != Some(1) {
        return Err(Refusal::Malformed("HTTP/1.1 is required"));
    }
    let method = match head.method {
        Some("GET") => Method::Get,
        Some("HEAD") => Method::Head,
        Some("POST") => Method::Post,
        Some("OPTIONS") => Method::Options,
        _ => return Err(Refusal::MethodNotAllowed),
    };
    let target = head.path.expect("a complete head has a target");
    let request = read_head(method, target, Fields(head.headers), consumed)?;
    if request.head_only() && request.upgrade.is_some() {
        return Err(Refusal::MethodNotAllowed);
    }
    Ok(Some(request))
}

/// The response that begins the WebSocket connection (§4.2.2). `key` is the request's, `protocol` one that it offered.
#[must_use]
pub fn accept_response(key: &str, protocol: Option<&str>) -> Vec<u8> {
    let mut out = Vec::with_capacity(192);
    out.extend_from_slice(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n");
    out.extend_from_slice(b"Sec-WebSocket-Accept: ");
    out.extend_from_slice(accept_value(key).as_bytes());
    if let Some(protocol) = protocol {
        out.extend_from_slice(b"\r\nSec-WebSocket-Protocol: ");
        out.extend_from_slice(protocol.as_bytes());
    }
    out.extend_from_slice(b"\r\n\r\n");
    out
}

/// What an ordinary GET is answered with, e.g. a file of the demo page.
#[derive(Clone, Copy, Debug)]
pub struct Page<'a> {
    /// Its media type.
    pub content_type: &'a str,
    /// How long it may be kept (RFC 9111 §5.2.2).
    pub cache_control: &'a str,
    /// Its bytes.
    pub body: &'a [u8],
}

/// A 200 response with the page, or with its head only. The connection closes behind it.
///
/// A page may load from its own origin alone, be framed by none, and speak WebSocket to anybody.
#[must_use]
pub fn page_response(page: &Page<'_>, head_only: bool) -> Vec<u8> {
    let Page { content_type, cache_control, body } = page;
    let mut out = format!(
        "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n\
         Cache-Control: {cache_control}\r\nContent-Security-Policy: {PAGE_POLICY}\r\n\
         X-Content-Type-Options: nosniff\r\n\r\n",
        body.len()
    )
    .into_bytes();
    if !head_only {
        out.extend_from_slice(body);
    }
    out
}

/// A response with a JSON body. `name` is the status's name, `fields` are whole header lines of its own. The connection
/// closes behind it.
#[must_use]
pub fn json_response(status: u16, name: &str, fields: &str, body: &str) -> Vec<u8> {
    let content = if body.is_empty() { "" } else { "Content-Type: application/json\r\n" };
    // RFC 9110 §8.6: a 204 has no length.
    let length = if status == 204 { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    format!("HTTP/1.1 {status} {name}\r\nConnection: close\r\n{fields}{content}{length}\r\n{body}").into_bytes()
}

/// `Sec-WebSocket-Accept` for a key: base64 of the SHA-1 of key and GUID (§4.2.2).
pub(super) fn accept_value(key: &str) -> String {
    let digest = Sha1::new().chain_update(key.as_bytes()).chain_update(GUID).finalize();
    BASE64.encode(digest)
}

fn read_head<'a>(
    method: Method,
    target: &'a str,
    fields: Fields<'_, 'a>,
    consumed: usize,
) -> Result<Request<'a>, Refusal> {
    let body_bytes = fields.body_bytes()?;
    if method != Method::Post && body_bytes.is_some_and(|bytes| bytes > 0) {
        return Err(Refusal::Malformed("only a POST has a body"));
    }
    let host = fields.single("host", "Host is not one header of text")?;
    let host = host.ok_or(Refusal::Malformed("the Host header is missing"))?;
    let (authority, path, query) = split_target(target)?;
    Ok(Request {
        method,
        path,
        query,
        host: authority.unwrap_or(host),
        origin: fields.single("origin", "Origin is not one header of text")?,
        authorization: fields.single("authorization", "Authorization is not one header of text")?,
        forwarded: fields.texts("forwarded")?,
        forwarded_for: fields.texts("x-forwarded-for")?,
        upgrade: if matches!(method, Method::Get | Method::Head) { read_upgrade(fields)? } else { None },
        consumed,
        body_bytes,
    })
}

fn read_upgrade<'a>(fields: Fields<'_, 'a>) -> Result<Option<Upgrade<'a>>, Refusal> {
    // A proxy that does not forward hop-by-hop fields strips both: then this is an ordinary GET.
    if !fields.lists("upgrade", "websocket")? || !fields.lists("connection", "upgrade")? {
        return Ok(None);
    }
    if fields.single("sec-websocket-version", "Sec-WebSocket-Version is not one header")? != Some("13") {
        return Err(Refusal::UpgradeRequired);
    }
    const BAD_KEY: &str = "Sec-WebSocket-Key is not one header with the base64 of 16 bytes";
    let key = fields.single("sec-websocket-key", BAD_KEY)?.ok_or(Refusal::Malformed(BAD_KEY))?;
    if key.len() != KEY_TEXT_BYTES || BASE64.decode_slice(key, &mut [0; 18]) != Ok(16) {
        return Err(Refusal::Malformed(BAD_KEY));
    }
    let offered = fields.texts("sec-websocket-protocol")?;
    let protocols: Vec<&str> = offered.into_iter().flat_map(|list| list.split(',')).map(str::trim).collect();
    if protocols.iter().any(|protocol| !is_token(protocol)) {
        return Err(Refusal::Malformed("Sec-WebSocket-Protocol is not a list of tokens"));
    }
    Ok(Some(Upgrade { key, protocols }))
}

/// Authority, path and query of a request target in origin or absolute form (RFC 9112 §3.2; RFC 6455 §4.1).
fn split_target(target: &str) -> Result<(Option<&str>, &str, &str), Refusal> {
    const BAD: Refusal = Refusal::Malformed("the request target is neither a path nor an http URI");
    if target.contains('#') {
        return Err(Refusal::Malformed("the request target has a fragment"));
    }
    let (authority, rest) = if target.starts_with('/') {
        (None, target)
    } else {
        let (scheme, rest) = target.split_once("://").ok_or(BAD)?;
        if !["http", "https", "ws", "wss"].iter().any(|known| known.eq_ignore_ascii_case(scheme)) {
            return Err(BAD);
        }
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        if end == 0 {
            return Err(BAD);
        }
        (Some(&rest[..end]), &rest[end..])
    };
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    Ok((authority, if path.is_empty() { "/" } else { path }, query))
}

/// The header fields of a request or response, looked up without regard to case.
#[derive(Clone, Copy)]
pub(super) struct Fields<'h, 'a>(pub(super) &'h [httparse::Header<'a>]);

impl<'h, 'a> Fields<'h, 'a> {
    fn all(self, name: &'static str) -> impl Iterator<Item = Result<&'a str, Refusal>> + use<'h, 'a> {
        self.0.iter().filter(move |field| field.name.eq_ignore_ascii_case(name)).map(|field| {
            let text = std::str::from_utf8(field.value).map(str::trim);
            text.map_err(|_| Refusal::Malformed("a header's value is not UTF-8"))
        })
    }

    /// The values of a field that may be sent several times, in order.
    pub(super) fn texts(self, name: &'static str) -> Result<Vec<&'a str>, Refusal> {
        self.all(name).collect()
    }

    /// The value of a field that may be sent once; a second one is refused, since readers would differ over it.
    pub(super) fn single(self, name: &'static str, complaint: &'static str) -> Result<Option<&'a str>, Refusal> {
        let mut values = self.all(name);
        let first = values.next().transpose()?;
        if values.next().is_some() { Err(Refusal::Malformed(complaint)) } else { Ok(first) }
    }

    /// Whether a comma-separated list has the token, in any case of letters.
    pub(super) fn lists(self, name: &'static str, token: &str) -> Result<bool, Refusal> {
        for list in self.all(name) {
            if list?.split(',').any(|item| item.trim().eq_ignore_ascii_case(token)) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// How long the body is, if there is one (RFC 9112 §6). One in chunks is not read: its end is the sender's word.
    fn body_bytes(self) -> Result<Option<u64>, Refusal> {
        const BAD: &str = "Content-Length is not one header with a number";
        if self.all("transfer-encoding").next().is_some() {
            return Err(Refusal::Malformed("a body in chunks is not read; send Content-Length"));
        }
        let Some(length) = self.single("content-length", BAD)? else { return Ok(None) };
        let digits = !length.is_empty() && length.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| length.parse().unwrap_or(u64::MAX)).map(Some).ok_or(Refusal::Malformed(BAD))
    }
}

/// RFC 9110 §5.6.2.
fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

/// Content-Security-Policy of every page.
const PAGE_POLICY: &str =
    "default-src 'self'; connect-src 'self' ws: wss:; base-uri 'none'; frame-ancestors 'none'; form-action 'self'";
/// RFC 6455 §1.3.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// Base64 of 16 bytes.
const KEY_TEXT_BYTES: usize = 24;
/// Writes canonically; reads keys whose unused bits are not zero, as the RFC does not forbid them.
pub(super) const BASE64: GeneralPurpose =
    GeneralPurpose::new(&STANDARD, GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true));

#[cfg(test)]
mod tests {
    use super::*;

    /// The opening handshake of RFC 6455 §1.2, with the given lines behind the request line changed or added.
    fn request(line: &str, fields: &[(&str, &str)]) -> String {
        let mut head = vec![
            ("Host", "server.example.com"),
            ("Upgrade", "websocket"),
            ("Connection", "Upgrade"),
            ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
            ("Sec-WebSocket-Version", "13"),
        ];
        head.retain(|(name, _)| !fields.iter().any(|(changed, _)| changed == name));
        head.extend(fields.iter().filter(|(_, value)| *value != "<none>"));
        let lines: String = head.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        format!("{line}\r\n{lines}\r\n")
    }

    fn refusal(text: &str) -> u16 {
        parse_request(text.as_bytes()).expect_err("is refused").status()
    }

    /// A browser's request is read field by field, at whatever byte it is cut, and what follows is left alone.
    #[test]
    fn an_upgrade_request_is_read() {
        let fields = [
            ("Host", "Server.example.com:8080"),
            ("Origin", "https://example.com"),
            ("Connection", "keep-alive, Upgrade"),
            ("Upgrade", "WebSocket"),
            ("Sec-WebSocket-Protocol", "chat, superchat"),
            ("sec-websocket-protocol", "third"),
            ("Authorization", "Bearer abc"),
            ("X-Forwarded-For", "10.0.0.1"),
            ("X-Forwarded-For", "10.0.0.2"),
            ("Forwarded", "for=10.0.0.1"),
        ];
        let text = request("GET /ws/rooms/a%20b?token=t&x HTTP/1.1", &fields) + "\u{82}frames";
        let head = text.len() - "\u{82}frames".len();
        for end in 0..head {
            assert_eq!(parse_request(&text.as_bytes()[..end]), Ok(None));
        }
        let read = parse_request(text.as_bytes()).unwrap().unwrap();
        let upgrade = Upgrade { key: "dGhlIHNhbXBsZSBub25jZQ==", protocols: vec!["chat", "superchat", "third"] };
        let expected = Request {
            method: Method::Get,
            path: "/ws/rooms/a%20b",
            query: "token=t&x",
            host: "Server.example.com:8080",
            origin: Some("https://example.com"),
            authorization: Some("Bearer abc"),
            forwarded: vec!["for=10.0.0.1"],
            forwarded_for: vec!["10.0.0.1", "10.0.0.2"],
            upgrade: Some(upgrade),
            consumed: head,
            body_bytes: None,
        };
        assert_eq!(read, expected);
    }

    /// A GET without upgrade is a request for a page, also when a proxy stripped the hop-by-hop fields.
    #[test]
    fn an_ordinary_get_is_recognised() {
        for text in [
            "GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
            request("GET / HTTP/1.1", &[("Upgrade", "<none>"), ("Connection", "<none>")]),
            request("GET / HTTP/1.1", &[("Upgrade", "h2c")]),
            request("GET / HTTP/1.1", &[("Connection", "keep-alive")]),
        ] {
            let read = parse_request(text.as_bytes()).unwrap().unwrap();
            assert_eq!((read.path, read.upgrade), ("/", None));
        }
    }

    /// A POST says how long its body is, which is left alone; it is never an upgrade.
    #[test]
    fn a_post_has_a_body() {
        for (length, expected) in
            [("5", Some(5)), ("0", Some(0)), ("99999999999999999999", Some(u64::MAX)), ("<none>", None)]
        {
            let text = request("POST /api/rooms HTTP/1.1", &[("Content-Length", length)]);
            let whole = text.clone() + "{\"a\":";
            let read = parse_request(whole.as_bytes()).unwrap().unwrap();
            assert_eq!((read.method, read.body_bytes, read.consumed), (Method::Post, expected, text.len()));
            assert_eq!(read.upgrade, None);
        }
    }

    /// Every malformed handshake has its exact status (§4.2.1, §4.2.2, §4.4).
    #[test]
    fn malformed_requests_are_refused() {
        let get = "GET /ws HTTP/1.1";
        for (status, line, fields) in [
            (400, "GET /ws HTTP/1.0", &[][..]),
            (400, "GET /ws HTTP/2.0", &[]),
            (400, "GET ws HTTP/1.1", &[]),
            (400, "GET /ws#x HTTP/1.1", &[]),
            (400, "GET ftp://a/ws HTTP/1.1", &[]),
            (400, "GET http:///ws HTTP/1.1", &[]),
            (400, "\u{1}", &[]),
            (400, get, &[("Host", "<none>")]),
            (400, get, &[("Host", "a"), ("host", "b")]),
            (400, get, &[("Origin", "a"), ("Origin", "b")]),
            (400, get, &[("Content-Length", "5")]),
            (400, get, &[("Transfer-Encoding", "chunked")]),
            (400, get, &[("Bad Name", "x")]),
            (400, get, &[("Sec-WebSocket-Key", "<none>")]),
            (400, get, &[("Sec-WebSocket-Key", "c2hvcnQ=")]),
            (400, get, &[("Sec-WebSocket-Key", "not base64, but 24 chars")]),
            (400, get, &[("Sec-WebSocket-Protocol", "a,,b")]),
            (400, get, &[("Sec-WebSocket-Protocol", "a b")]),
            (400, "POST /ws HTTP/1.1", &[("Transfer-Encoding", "chunked"), ("Content-Length", "5")]),
            (400, "POST /ws HTTP/1.1", &[("Content-Length", "-5")]),
            (400, "POST /ws HTTP/1.1", &[("Content-Length", "5"), ("content-length", "5")]),
            (400, "OPTIONS /ws HTTP/1.1", &[("Content-Length", "5")]),
            (405, "HEAD /ws HTTP/1.1", &[]),
            (405, "PUT /ws HTTP/1.1", &[]),
            (426, get, &[("Sec-WebSocket-Version", "<none>")]),
            (426, get, &[("Sec-WebSocket-Version", "8")]),
            (426, get, &[("Sec-WebSocket-Version", "13, 8")]),
        ] {
            assert_eq!(refusal(&request(line, fields)), status, "{line} {fields:?}");
        }
        let not_utf8 = [&b"GET / HTTP/1.1\r\nHost: a\r\nOrigin: \xff\r\n\r\n"[..]].concat();
        assert_eq!(parse_request(&not_utf8).unwrap_err().status(), 400);
    }

    /// Heads of exactly the bound pass, one byte more does not; an endless head is refused without its end.
    #[test]
    fn heads_are_bounded() {
        let empty = request("GET /ws HTTP/1.1", &[("X", "")]).len();
        let filled = |bytes: usize| request("GET /ws HTTP/1.1", &[("X", &"x".repeat(bytes - empty))]);
        let most = filled(limits::HANDSHAKE_BYTES);
        assert_eq!(parse_request(most.as_bytes()).unwrap().unwrap().consumed, limits::HANDSHAKE_BYTES);
        assert_eq!(refusal(&filled(limits::HANDSHAKE_BYTES + 1)), 431);
        assert_eq!(refusal(&format!("GET /ws HTTP/1.1\r\nX: {}", "x".repeat(limits::HANDSHAKE_BYTES))), 431);
        assert_eq!(refusal(&format!("GET /{}", "x".repeat(limits::HANDSHAKE_BYTES))), 414);
        let many = |count: usize| request("GET /ws HTTP/1.1", &vec![("Y", ""); count - 5]);
        assert!(parse_request(many(limits::HANDSHAKE_HEADERS).as_bytes()).unwrap().is_some());
        assert_eq!(refusal(&many(limits::HANDSHAKE_HEADERS + 1)), 431);
    }

    /// An absolute target gives host, path and query (RFC 9112 §3.2.2).
    #[test]
    fn absolute_targets_are_split() {
        for (target, expected) in [
            ("http://a.example:80/ws?x=1", ("a.example:80", "/ws", "x=1")),
            ("WS://a.example", ("a.example", "/", "")),
            ("http://a.example?x", ("a.example", "/", "x")),
        ] {
            let text = request(&format!("GET {target} HTTP/1.1"), &[]);
            let read = parse_request(text.as_bytes()).unwrap().unwrap();
            assert_eq!((read.host, read.path, read.query), expected);
        }
    }

    /// The answer has the accept value of RFC 6455 §1.3 and the chosen protocol.
    #[test]
    fn the_rfc_key_is_accepted() {
        let expected = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                        Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n";
        let key = "dGhlIHNhbXBsZSBub25jZQ==";
        assert_eq!(accept_response(key, None), format!("{expected}\r\n").as_bytes());
        let chosen = format!("{expected}Sec-WebSocket-Protocol: chat\r\n\r\n");
        assert_eq!(accept_response(key, Some("chat")), chosen.as_bytes());
    }

    /// A page has its type, its length and its bytes; its head alone says the same of them.
    #[test]
    fn a_page_is_a_whole_response() {
        let page = Page { content_type: "text/html; charset=utf-8", cache_control: "no-cache", body: b"<p>" };
        let text = String::from_utf8(page_response(&page, false)).unwrap();
        assert!(text.starts_with("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: text/html; charset=utf-8\r\n"));
        assert!(text.contains("\r\nContent-Length: 3\r\nCache-Control: no-cache\r\n"), "{text}");
        assert_eq!(text.strip_suffix("<p>").unwrap().as_bytes(), page_response(&page, true));
    }

    /// A HEAD is read as a GET without a body to come; it cannot ask for an upgrade.
    #[test]
    fn a_head_is_told_from_a_get() {
        let read = parse_request(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap().unwrap();
        assert_eq!((read.head_only(), read.upgrade), (true, None));
    }
}
