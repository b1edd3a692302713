//! The upgrade request: which endpoint it names, who may have it, and the exact refusal otherwise (PROTOCOLS
//! "Endpoints").

use super::Cx;
use super::connection::{Connection, Dialect, Phase};
use crate::auth;
use crate::close::CloseReason;
use crate::websocket::{self, Refusal, Request};

/// Subprotocol of `/ws/frames`.
const FRAMES_PROTOCOL: &str = "ringgate.frames.v1";

impl Connection {
    pub(super) fn receive_handshake(&mut self, cx: &mut Cx<'_>, bytes: &mut [u8]) {
        self.stash.extend_from_slice(bytes);
        let head = std::mem::take(&mut self.stash);
        match websocket::parse_request(&head) {
            Ok(None) => self.stash = head,
            Err(refusal) => self.refuse(cx, &refusal.response()),
            Ok(Some(request)) => {
                let rest = request.consumed;
                self.upgrade(cx, &request);
                if !matches!(self.phase, Phase::Closing { .. }) && rest < head.len() {
                    let mut rest = head[rest..].to_vec();
                    self.take_in(cx, &mut rest);
                }
            }
        }
    }

    fn upgrade(&mut self, cx: &mut Cx<'_>, request: &Request<'_>) {
        let dialect = match request.path {
            "/ws/frames" => Dialect::Frames,
            "/echo" if cx.settings.dev => Dialect::Echo,
            "/" if cx.settings.dev && !cx.settings.page.is_empty() && request.upgrade.is_none() => {
                return self
                    .refuse(cx, &websocket::page_response("text/html; charset=utf-8", cx.settings.page.as_bytes()));
            }
            _ => return self.refuse(cx, &Refusal::NotFound.response()),
        };
        let Some(upgrade) = &request.upgrade else {
            return self.refuse(cx, &Refusal::UpgradeRequired.response());
        };
        if !auth::allowed(request.origin, Some(request.host), &cx.settings.origins) {
            return self.refuse(cx, &Refusal::Forbidden.response());
        }
        let offered = dialect == Dialect::Frames && upgrade.protocols.contains(&FRAMES_PROTOCOL);
        let response = websocket::accept_response(upgrade.key, offered.then_some(FRAMES_PROTOCOL));
        self.dialect = dialect;
        self.opened_at = cx.now;
        self.phase = match dialect {
            Dialect::Frames => Phase::Hello { attempts: 0 },
            Dialect::Echo => Phase::Echo,
        };
        self.answer(cx, |out| out.extend_from_slice(&response));
    }

    /// Answers in HTTP and ends the connection.
    fn refuse(&mut self, cx: &mut Cx<'_>, response: &[u8]) {
        cx.stats.refused_total.add(1);
        self.answer(cx, |out| out.extend_from_slice(response));
        self.finish(cx, CloseReason::Refused);
    }
}
