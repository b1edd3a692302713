//! The way into room hubs (PROTOCOLS B): making and joining rooms by HTTP, and the upgrade of who has a token. Rooms
//! live behind presence, so each waits for its answer within the handshake's time-out, and nothing else waits for it.

use std::net::IpAddr;
use std::sync::Arc;

use super::authenticate::{Entry, Visit};
use super::connection::{Connection, Dialect, Phase};
use super::{Cx, Output};
use crate::auth::{self, RoomClaims, room_token_hash};
use crate::close::CloseReason;
use crate::id::{EventId, RoomCode, Scope, TokenHash};
use crate::limits;
use crate::message::{self, CreateHub, ErrorCode, Hub, JoinHub, PresenceRequest};
use crate::protocol::rooms::{self, write};
use crate::websocket::{self, Method, Refusal, Request, query_parameter};

/// What presence was asked before the connection is upgraded, or instead.
pub(super) enum Asking {
    /// A place in a room, for this player.
    Place {
        /// Its id.
        player: Arc<str>,
        /// Whether the room is made too.
        makes: bool,
        /// The page that calls, if it is another origin's.
        origin: Option<Box<str>>,
    },
    /// The room of a code, for an upgrade.
    Room(Box<Knock>),
}

/// An upgrade request for a hub.
pub(super) struct Knock {
    /// `Sec-WebSocket-Key`.
    key: Box<str>,
    claims: Result<(RoomClaims, TokenHash), String>,
    /// Epoch and offset that it wants to go on from.
    position: Option<(u64, u64)>,
}

/// A path that concerns hubs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Place<'a> {
    /// `/api/rooms`
    Rooms,
    /// `/api/rooms/{code}/join`
    Join(&'a str),
    /// `/ws/rooms/{code}`, `/ws/rooms/{code}/connect`
    Hub(&'a str),
}

impl<'a> Place<'a> {
    /// Of a path, if it is one.
    pub(super) fn of(path: &'a str) -> Option<Self> {
        let part = |rest: &'a str| Some(rest).filter(|rest| !rest.contains('/'));
        if path == "/api/rooms" {
            return Some(Self::Rooms);
        }
        if let Some(rest) = path.strip_prefix("/api/rooms/") {
            return part(rest.strip_suffix("/join")?).map(Self::Join);
        }
        let rest = path.strip_prefix("/ws/rooms/")?;
        part(rest.strip_suffix("/connect").unwrap_or(rest)).map(Self::Hub)
    }

    fn is_call(self) -> bool {
        self != Self::Hub("") && !matches!(self, Self::Hub(_))
    }
}

/// What became of a request whose head was read.
pub(super) enum Taken {
    /// It was answered, or waits for presence.
    Yes,
    /// Its body is not there yet.
    NeedsMore,
}

impl Connection {
    /// A request for a place of hubs; `body` is what came behind its head.
    pub(super) fn lobby(&mut self, cx: &mut Cx<'_>, place: Place<'_>, request: &Request<'_>, body: &[u8]) -> Taken {
        let allowed = auth::allowed(request.origin, Some(request.host), &cx.settings.origins);
        match (request.method, place) {
            (_, _) if !allowed => self.refuse(cx, &Refusal::Forbidden.response()),
            (Method::Get, Place::Hub(code)) => self.knock(cx, code, request),
            (Method::Options, place) if place.is_call() => {
                let fields = cors(request.origin)
                    + "Access-Control-Allow-Methods: POST\r\nAccess-Control-Allow-Headers: content-type\r\n\
                       Access-Control-Max-Age: 600\r\n";
                self.reply(cx, &websocket::json_response(204, "No Content", &fields, ""));
            }
            (Method::Post, place) if place.is_call() => return self.call(cx, place, request, body),
            (_, Place::Hub(_)) => self.refuse(cx, &Refusal::MethodNotAllowed.response()),
            _ => {
                let refused = Refused::new(405, "method_not_allowed", "only POST is served here");
                self.refuse_call(cx, request.origin, &refused);
            }
        }
        Taken::Yes
    }

    fn call(&mut self, cx: &mut Cx<'_>, place: Place<'_>, request: &Request<'_>, body: &[u8]) -> Taken {
        let refused = match request.body_bytes {
            None => Refused::new(411, "length_required", "send Content-Length"),
            Some(bytes) if bytes > limits::ROOMS_BODY_BYTES => {
                Refused::new(413, "too_large", "the body is longer than 4096 bytes")
            }
            Some(bytes) if (body.len() as u64) < bytes => return Taken::NeedsMore,
            Some(bytes) => match self.ask_for_place(cx, place, request, &body[..bytes as usize]) {
                Ok(()) => return Taken::Yes,
                Err(refused) => refused,
            },
        };
        self.refuse_call(cx, request.origin, &refused);
        Taken::Yes
    }

    fn ask_for_place(
        &mut self,
        cx: &mut Cx<'_>,
        place: Place<'_>,
        request: &Request<'_>,
        body: &[u8],
    ) -> Result<(), Refused> {
        if !cx.newcomers.forwarded(cx.me.conn.slot, &request.forwarded_for, &request.forwarded) {
            return Err(Refused::new(429, "rate_limited", "too many connections of this address"));
        }
        let address: Option<IpAddr> = cx.newcomers.address(cx.me.conn.slot);
        if address.is_some_and(|address| !cx.visits.allow(cx.now, address, cx.settings.rooms_calls)) {
            let message = format!("at most {} calls of one address", cx.settings.rooms_calls);
            return Err(Refused::new(429, "rate_limited", message));
        }
        let rooms::Entry { display_name, max_players } = rooms::entry(body, cx.json)
            .map_err(|(field, text)| Refused { field: Some(field), ..Refused::new(400, "bad_request", text) })?;
        if !(cx.may_request)(cx.settings.presence) {
            return Err(Refused::of(ErrorCode::Unavailable));
        }
        let (from, player): (_, Arc<str>) = (cx.me, fresh_id(cx));
        let name = display_name.into();
        let ask = match place {
            Place::Join(code) => {
                let code = RoomCode::parse(code).ok_or_else(|| Refused::of(ErrorCode::RoomNotFound))?;
                PresenceRequest::JoinHub(Box::new(JoinHub { from, code, player: player.clone(), name }))
            }
            _ => {
                let codes = std::array::from_fn(|_| RoomCode::of((cx.random)()));
                let (room, player) = (fresh_id(cx), player.clone());
                let max_players = max_players.unwrap_or(limits::ROOM_PLAYERS);
                PresenceRequest::CreateHub(Box::new(CreateHub { from, room, player, name, max_players, codes }))
            }
        };
        let (makes, origin) = (place == Place::Rooms, request.origin.map(Box::from));
        self.phase = Phase::Asking(Box::new(Asking::Place { player, makes, origin }));
        cx.out.push(Output::Request(cx.settings.presence, message::Request::Presence(Box::new(ask))));
        Ok(())
    }

    fn knock(&mut self, cx: &mut Cx<'_>, code: &str, request: &Request<'_>) {
        let Some(upgrade) = &request.upgrade else {
            return self.refuse(cx, &Refusal::UpgradeRequired.response());
        };
        if !cx.newcomers.forwarded(cx.me.conn.slot, &request.forwarded_for, &request.forwarded) {
            return self.refuse(cx, &Refusal::TooManyNewcomers.response());
        }
        let asked = credentials(cx, request).and_then(|claims| Ok((claims, position(request)?)));
        let (claims, position) = match asked {
            Ok(asked) => asked,
            Err(refusal) => return self.refuse(cx, &refusal.response()),
        };
        let Some(code) = RoomCode::parse(code) else { return self.refuse_knock(cx) };
        if !(cx.may_request)(cx.settings.presence) {
            return self.refuse(cx, &Refusal::Unavailable.response());
        }
        let knock = Knock { key: upgrade.key.into(), claims, position };
        self.phase = Phase::Asking(Box::new(Asking::Room(Box::new(knock))));
        self.ask_presence(cx, PresenceRequest::FindHub { from: cx.me, code });
    }

    fn refuse_knock(&mut self, cx: &mut Cx<'_>) {
        self.refuse_call(cx, None, &Refused::of(ErrorCode::RoomNotFound));
    }

    /// Presence gave a place, or none.
    pub(super) fn enrolled(&mut self, cx: &mut Cx<'_>, outcome: Result<(Arc<str>, RoomCode), ErrorCode>) {
        let Phase::Asking(asking) = &mut self.phase else { return };
        let Asking::Place { player, makes, origin } = &mut **asking else { return };
        let (player, makes, origin) = (player.clone(), *makes, origin.take());
        match outcome {
            Ok((room, code)) => {
                let token = cx.settings.room_key.mint(&room, &player);
                if makes {
                    // Who holds no token does not get in, not even before its first player.
                    let scope = Scope::Room(room.clone());
                    let home = scope.home(cx.settings.shards);
                    cx.out.push(Output::Request(home, message::Request::Reserve { scope }));
                }
                let body = write::enrolled(code, &room, &player, &token);
                let (status, name) = if makes { (201, "Created") } else { (200, "OK") };
                let fields = cors(origin.as_deref()) + "Cache-Control: no-store\r\n";
                self.reply(cx, &websocket::json_response(status, name, &fields, &body));
            }
            Err(code) => self.refuse_call(cx, origin.as_deref(), &Refused::of(code)),
        }
    }

    /// Presence knows the room of the code, or does not: who has a token for it is let in.
    pub(super) fn hub_found(&mut self, cx: &mut Cx<'_>, hub: Option<Box<Hub>>) {
        if !matches!(self.phase, Phase::Asking(_)) {
            return;
        }
        let Phase::Asking(asking) = std::mem::replace(&mut self.phase, Phase::Handshake) else { return };
        let (Asking::Room(knock), Some(hub)) = (*asking, hub) else { return self.refuse_knock(cx) };
        let Knock { key, claims, position } = *knock;
        self.dialect = Dialect::Rooms;
        self.began_at = cx.now;
        self.phase = Phase::hello(0);
        let response = websocket::accept_response(&key, None);
        self.answer(cx, |out| out.extend_from_slice(&response));
        let player = claims.and_then(|(claims, hash)| {
            if *claims.room != *hub.room {
                return Err("token is another room's; ask POST /api/rooms/{code}/join for one".to_owned());
            }
            let place = hub.players.iter().find(|(player, _)| **player == *claims.player);
            let (player, name) = place.ok_or("player_id has no place in this room any more; join it anew")?;
            Ok((player.clone(), name.clone(), hash))
        });
        match player {
            Ok((player, name, hash)) => {
                let visit = Visit {
                    room: hub.room,
                    code: hub.code,
                    max_players: hub.max_players,
                    position,
                    entry: Entry::Expired,
                };
                self.attach(cx, visit, player, name, hash);
            }
            Err(text) => {
                self.error(cx, ErrorCode::AuthFailed, 0, &text);
                self.close(cx, CloseReason::Unauthorized);
            }
        }
    }

    /// Presence cannot be reached.
    pub(super) fn refuse_asking(&mut self, cx: &mut Cx<'_>) {
        let Phase::Asking(asking) = &mut self.phase else { return };
        let origin = if let Asking::Place { origin, .. } = &mut **asking { origin.take() } else { None };
        self.refuse_call(cx, origin.as_deref(), &Refused::of(ErrorCode::Unavailable));
    }

    fn refuse_call(&mut self, cx: &mut Cx<'_>, origin: Option<&str>, refused: &Refused) {
        let Refused { status, code, message, field } = refused;
        let name = match status {
            400 => "Bad Request",
            404 => "Not Found",
            405 => "Method Not Allowed",
            409 => "Conflict",
            411 => "Length Required",
            413 => "Content Too Large",
            429 => "Too Many Requests",
            _ => "Service Unavailable",
        };
        let own = match status {
            405 => "Allow: POST, OPTIONS\r\n",
            429 | 503 => "Retry-After: 1\r\n",
            _ => "",
        };
        let body = write::refusal(code, message, field.filter(|field| !field.is_empty()));
        self.refuse(cx, &websocket::json_response(*status, name, &(cors(origin) + own), &body));
    }

    /// Answers a call and ends the connection.
    fn reply(&mut self, cx: &mut Cx<'_>, response: &[u8]) {
        self.answer(cx, |out| out.extend_from_slice(response));
        self.finish(cx, CloseReason::Normal);
    }
}

/// Why a call is refused.
struct Refused {
    status: u16,
    code: &'static str,
    message: String,
    field: Option<&'static str>,
}

impl Refused {
    fn new(status: u16, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), field: None }
    }

    fn of(code: ErrorCode) -> Self {
        match code {
            ErrorCode::RoomNotFound => Self::new(404, code.name(), "there is no room with this code"),
            ErrorCode::RoomFull => Self::new(409, code.name(), "the room is full"),
            _ => Self::new(503, "unavailable", "no room can be made or joined now; try again"),
        }
    }
}

/// What lets a page of another origin read the answer; the origin was allowed.
fn cors(origin: Option<&str>) -> String {
    origin.map_or_else(String::new, |origin| format!("Access-Control-Allow-Origin: {origin}\r\nVary: Origin\r\n"))
}

fn fresh_id(cx: &mut Cx<'_>) -> Arc<str> {
    EventId::v7(cx.wall, cx.entropy()).to_string().into()
}

/// Whom the request's token is for; a `player_id` beside it must be the same.
fn credentials(cx: &Cx<'_>, request: &Request<'_>) -> Result<Result<(RoomClaims, TokenHash), String>, Refusal> {
    let player = query_parameter(request.query, "player_id")?;
    let token = match super::handshake::bearer(request) {
        Some(token) => Some(token.to_owned()),
        None => query_parameter(request.query, "token")?.map(|token| token.into_owned()),
    };
    let Some(token) = token else {
        return Ok(Err("token is missing; send that of POST /api/rooms or of its join".to_owned()));
    };
    Ok(match cx.settings.room_key.verify(&token) {
        Err(error) => Err(error.to_string()),
        Ok(claims) if player.is_some_and(|player| *player != *claims.player) => {
            Err("player_id is not the token's".to_owned())
        }
        Ok(claims) => Ok((claims, room_token_hash(&token))),
    })
}

/// `epoch` and `offset`, both or neither.
fn position(request: &Request<'_>) -> Result<Option<(u64, u64)>, Refusal> {
    const BAD: Refusal = Refusal::Malformed("epoch and offset must be whole numbers below 2^63, both or neither");
    let number = |name| -> Result<Option<u64>, Refusal> {
        let Some(text) = query_parameter(request.query, name)? else { return Ok(None) };
        let number = text.parse().ok().filter(|number| *number < 1 << 63);
        number.map(Some).ok_or(BAD)
    };
    match (number("epoch")?, number("offset")?) {
        (Some(epoch), Some(offset)) => Ok(Some((epoch, offset))),
        (None, None) => Ok(None),
        _ => Err(BAD),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Paths of hubs are told from all others.
    #[test]
    fn paths_are_places() {
        for (path, place) in [
            ("/api/rooms", Some(Place::Rooms)),
            ("/api/rooms/ABC234/join", Some(Place::Join("ABC234"))),
            ("/ws/rooms/ABC234", Some(Place::Hub("ABC234"))),
            ("/ws/rooms/ABC234/connect", Some(Place::Hub("ABC234"))),
            ("/ws/rooms/", Some(Place::Hub(""))),
            ("/api/rooms/ABC234", None),
            ("/api/rooms/a/b/join", None),
            ("/ws/rooms/a/b", None),
            ("/api/roomsx", None),
            ("/ws", None),
        ] {
            assert_eq!(Place::of(path), place, "{path}");
        }
    }
}
