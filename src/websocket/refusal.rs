//! Handshakes that end before the upgrade: one row of the table is one exact HTTP answer.

/// Why a request is not upgraded. Some are found by [`parse_request`](crate::websocket::parse_request), the others
/// are the caller's verdicts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// 400: not HTTP/1.1, or not a handshake (RFC 6455 §4.2.1); the text says what is wrong.
    Malformed(&'static str),
    /// 401: the path wants a token and the request has none that is valid.
    Unauthorized,
    /// 403: the origin is not allowed.
    Forbidden,
    /// 404: nothing is served at the path.
    NotFound,
    /// 405: only GET is served.
    MethodNotAllowed,
    /// 414: the request line exceeds `limits::HANDSHAKE_BYTES`.
    RequestLineTooLong,
    /// 431: the head exceeds `limits::HANDSHAKE_BYTES` or `limits::HANDSHAKE_HEADERS`.
    HeadTooLarge,
    /// 426: the path speaks WebSocket version 13 only (RFC 6455 §4.4).
    UpgradeRequired,
    /// 429: too many connections of this address have not authenticated.
    TooManyNewcomers,
    /// 503: no room for a connection now.
    Unavailable,
}

impl Refusal {
    /// The HTTP status code.
    #[must_use]
    pub fn status(self) -> u16 {
        self.row().0
    }

    /// The text body.
    #[must_use]
    pub fn text(self) -> &'static str {
        self.row().3
    }

    /// The whole HTTP response. The connection closes behind it.
    #[must_use]
    pub fn response(self) -> Vec<u8> {
        let (status, name, fields, text) = self.row();
        let connection = if self == Self::UpgradeRequired { "close, Upgrade" } else { "close" };
        format!(
            "HTTP/1.1 {status} {name}\r\nConnection: {connection}\r\n{fields}\
             Content-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\n\r\n{text}\n",
            text.len() + 1
        )
        .into_bytes()
    }

    /// Status, its name, fields of its own, text.
    fn row(self) -> (u16, &'static str, &'static str, &'static str) {
        match self {
            Self::Malformed(what) => (400, "Bad Request", "", what),
            Self::Unauthorized => {
                (401, "Unauthorized", "WWW-Authenticate: Bearer\r\n", "a valid token is required; see the manual")
            }
            Self::Forbidden => (403, "Forbidden", "", "this origin is not allowed"),
            Self::NotFound => (404, "Not Found", "", "nothing is served at this path"),
            Self::MethodNotAllowed => (405, "Method Not Allowed", "Allow: GET\r\n", "only GET is served"),
            Self::RequestLineTooLong => (414, "URI Too Long", "", "the request line is too long"),
            Self::HeadTooLarge => {
                (431, "Request Header Fields Too Large", "", "the request has too many or too large header fields")
            }
            Self::UpgradeRequired => (
                426,
                "Upgrade Required",
                "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n",
                "this path speaks WebSocket, version 13",
            ),
            Self::TooManyNewcomers => (
                429,
                "Too Many Requests",
                "Retry-After: 1\r\n",
                "too many connections of this address have not authenticated",
            ),
            Self::Unavailable => (503, "Service Unavailable", "Retry-After: 1\r\n", "no capacity, try again later"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every refusal is a well-formed response that closes, with the length of its body and the fields its status needs.
    #[test]
    fn refusals_are_exact_responses() {
        use Refusal as R;
        for (refusal, status, field) in [
            (R::Malformed("the Host header is missing"), 400, None),
            (R::Unauthorized, 401, Some(("WWW-Authenticate", "Bearer"))),
            (R::Forbidden, 403, None),
            (R::NotFound, 404, None),
            (R::MethodNotAllowed, 405, Some(("Allow", "GET"))),
            (R::RequestLineTooLong, 414, None),
            (R::HeadTooLarge, 431, None),
            (R::UpgradeRequired, 426, Some(("Sec-WebSocket-Version", "13"))),
            (R::TooManyNewcomers, 429, Some(("Retry-After", "1"))),
            (R::Unavailable, 503, Some(("Retry-After", "1"))),
        ] {
            let bytes = refusal.response();
            let mut headers = [httparse::EMPTY_HEADER; 8];
            let mut response = httparse::Response::new(&mut headers);
            let head = response.parse(&bytes).unwrap().unwrap();
            assert_eq!((response.code, refusal.status()), (Some(status), status));
            let value = |name: &str| {
                let header = response.headers.iter().find(|header| header.name == name);
                header.map(|header| std::str::from_utf8(header.value).unwrap())
            };
            assert!(value("Connection").unwrap().starts_with("close"));
            assert_eq!(value("Content-Length").unwrap().parse(), Ok(bytes.len() - head));
            assert_eq!(bytes[head..].trim_ascii_end(), refusal.text().as_bytes());
            if let Some((name, expected)) = field {
                assert_eq!(value(name), Some(expected));
            }
        }
    }
}
