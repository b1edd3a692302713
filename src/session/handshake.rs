//! The upgrade request: which endpoint it names, who may have it, and the exact refusal otherwise (PROTOCOLS
//! "Endpoints").

use super::Cx;
use super::authenticate::Hello;
use super::connection::{Connection, Dialect, Phase, Prepared};
use super::lobby::{Place, Taken};
use crate::auth;
use crate::close::CloseReason;
use crate::limits;
use crate::protocol::gateway;
use crate::websocket::{self, Method, Refusal, Request};

/// A token and a resume token.
type Credentials = (Option<Box<str>>, Option<Box<str>>);

/// What the upgrade request brings: `Authorization: Bearer`, `?token=`, `?resume=`.
fn credentials(request: &Request<'_>) -> Result<Credentials, Refusal> {
    const LONG: Refusal = Refusal::Malformed("token is longer than 8192 bytes");
    let query = |name| websocket::query_parameter(request.query, name).map(|value| value.map(|text| text.into_owned()));
    let token = match bearer(request) {
        Some(token) => Some(token.to_owned()),
        None => query("token")?,
    };
    let resume = query("resume")?;
    if token.as_ref().or(resume.as_ref()).is_some_and(|text| text.len() > limits::TOKEN_BYTES_MAX) {
        return Err(LONG);
    }
    Ok((token.map(Into::into), resume.map(Into::into)))
}

/// The token of `Authorization: Bearer`.
pub(super) fn bearer<'a>(request: &Request<'a>) -> Option<&'a str> {
    let (scheme, token) = request.authorization?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// Subprotocol of `/ws/frames`.
const FRAMES_PROTOCOL: &str = "ringgate.frames.v1";

impl Connection {
    pub(super) fn receive_handshake(&mut self, cx: &mut Cx<'_>, bytes: &mut [u8]) {
        let mut head = self.stash.take();
        head.extend_from_slice(bytes);
        match websocket::parse_request(&head) {
            Ok(None) => self.stash.put(head),
            Err(refusal) => self.refuse(cx, &refusal.response()),
            Ok(Some(request)) => {
                let mut rest = request.consumed;
                match Place::of(request.path) {
                    Some(place) => match self.lobby(cx, place, &request, &head[rest..]) {
                        Taken::NeedsMore => return self.stash.put(head),
                        // What stands behind a call's body is nobody's.
                        Taken::Yes if request.method == Method::Post => rest = head.len(),
                        Taken::Yes => {}
                    },
                    None if matches!(request.method, Method::Get | Method::Head) => self.upgrade(cx, &request),
                    None => self.refuse(cx, &Refusal::MethodNotAllowed.response()),
                }
                if !self.is_closing() && rest < head.len() {
                    let mut rest = head[rest..].to_vec();
                    self.take_in(cx, &mut rest);
                }
            }
        }
    }

    fn upgrade(&mut self, cx: &mut Cx<'_>, request: &Request<'_>) {
        if self.serve_page(cx, request) {
            return;
        }
        if request.head_only() {
            return self.refuse(cx, &Refusal::MethodNotAllowed.response());
        }
        let dialect = match request.path {
            "/ws/frames" => Dialect::Frames,
            "/ws" => Dialect::Gateway,
            "/echo" if cx.settings.dev => Dialect::Echo,
            _ => return self.refuse(cx, &Refusal::NotFound.response()),
        };
        let Some(upgrade) = &request.upgrade else {
            return self.refuse(cx, &Refusal::UpgradeRequired.response());
        };
        if !auth::allowed(request.origin, Some(request.host), &cx.settings.origins) {
            return self.refuse(cx, &Refusal::Forbidden.response());
        }
        if !cx.newcomers.forwarded(cx.me.conn.slot, &request.forwarded_for, &request.forwarded) {
            return self.refuse(cx, &Refusal::TooManyNewcomers.response());
        }
        let offered = dialect == Dialect::Frames && upgrade.protocols.contains(&FRAMES_PROTOCOL);
        let response = websocket::accept_response(upgrade.key, offered.then_some(FRAMES_PROTOCOL));
        let prepared = match dialect {
            Dialect::Gateway => match credentials(request) {
                Ok(credentials) => Some(credentials),
                Err(refusal) => return self.refuse(cx, &refusal.response()),
            },
            Dialect::Frames | Dialect::Rooms | Dialect::Echo => None,
        };
        self.dialect = dialect;
        self.began_at = cx.now;
        self.phase = match dialect {
            Dialect::Frames | Dialect::Gateway | Dialect::Rooms => Phase::hello(0),
            Dialect::Echo => Phase::Echo,
        };
        self.answer(cx, |out| out.extend_from_slice(&response));
        if let Some(credentials) = prepared {
            self.greet(cx, credentials);
        }
    }

    /// Dialect A: the welcome, and what the upgrade request brought is made use of.
    fn greet(&mut self, cx: &mut Cx<'_>, (token, resume): Credentials) {
        let (connection, now, durability) = (cx.settings.connection_id(cx.me), cx.wall, cx.settings.durability);
        self.answer(cx, |out| gateway::write::welcome(out, connection, now, durability));
        if token.is_some() && resume.is_none() {
            return self.begin(cx, Hello { token, ..Hello::default() }, None);
        }
        // The positions are in the first message; a token beside it is not needed unless the session's has expired.
        if let Phase::Hello { prepared, .. } = &mut self.phase
            && resume.is_some()
        {
            *prepared = Some(Box::new(Prepared { resume, token, ..Prepared::default() }));
        }
    }

    /// Answers in HTTP and ends the connection.
    pub(super) fn refuse(&mut self, cx: &mut Cx<'_>, response: &[u8]) {
        cx.stats.refused_total.add(1);
        self.answer(cx, |out| out.extend_from_slice(response));
        self.finish(cx, CloseReason::Refused);
    }
}
