//! Who is connected: `POST /api/disconnect`, `GET /api/presence/{room}`, `GET /api/connections`.

use std::cmp::Reverse;
use std::collections::HashSet;
use std::sync::Arc;

use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;

use super::peer::{Answer, Ask};
use super::{Api, check_length, read};
use crate::admin::answer::{self, Fault};
use crate::admin::target::Target;
use crate::close::CloseReason;
use crate::id::{ConnAddr, ConnectionId, is_room_id};
use crate::limits;
use crate::message::{ApiAnswer, ApiAsk, ConnectionInfo, Elsewhere, Whom};
use crate::protocol::envelope::Json;
use crate::protocol::envelope::members::{given_twice, member, text};

impl Api {
    /// Closes a user's connections, or one; 4403 ends the sessions too.
    pub(super) async fn disconnect(&self, request: Request) -> Result<Response, Fault> {
        #[derive(Serialize)]
        struct Disconnected {
            disconnected: usize,
        }
        check_length(request.headers())?;
        let body = read(request.into_body()).await?;
        let (whom, code, reason) = self.order(&body)?;
        let ask = |whom| ApiAsk::Disconnect { whom, code, reason: Arc::clone(&reason) };
        let disconnected = match whom {
            Order::User(user) => {
                let is_kick = code == CloseReason::Kicked.code();
                if is_kick {
                    // Records first: a connection that closes now must not find its session again.
                    self.calls.ask(Ask::Kick { user: Arc::clone(&user) }).await?;
                }
                let answers = self.calls.ask_shards(&ask(Whom::User(Arc::clone(&user)))).await?;
                let here: usize = answers.iter().map(closed).sum();
                let others = self.elsewhere(Elsewhere::User(Arc::clone(&user)), code, &reason).await?;
                if is_kick && self.log.elsewhere().is_some() {
                    // Sessions without connection are each gateway's to end, those of one that is gone anybody's.
                    self.kick_everywhere(&user).await?;
                }
                here + others
            }
            Order::Connection(addr) => {
                match self.calls.ask(Ask::Shard(addr.shard, ask(Whom::Connection(addr.conn)))).await? {
                    Answer::Shard(answer) if closed(&answer) > 0 => closed(&answer),
                    _ => return Err(Fault::not_found("no such connection, or it is closing already")),
                }
            }
            Order::Elsewhere(id) => match self.elsewhere(Elsewhere::Connection(id), code, &reason).await? {
                0 => return Err(Fault::not_found("no gateway has this connection")),
                told => told,
            },
        };
        Ok(answer::json(StatusCode::OK, &Disconnected { disconnected }))
    }

    /// Has other gateways close connections; how many were told.
    async fn elsewhere(&self, whom: Elsewhere, code: u16, reason: &Arc<str>) -> Result<usize, Fault> {
        match self.calls.ask(Ask::Elsewhere { whom, code, reason: Arc::clone(reason) }).await? {
            Answer::Disconnected(told) => Ok(told),
            _ => Err(Fault::unavailable("presence answered something else; try again")),
        }
    }

    /// Says on the bus that the user is kicked.
    async fn kick_everywhere(&self, user: &str) -> Result<(), Fault> {
        let user = answer::text(&user);
        let event =
            format!(r#"{{"event_type":"{KICK}","target":{{"user_id":{user}}},"payload":{{"user_id":{user}}}}}"#);
        self.publish_own(event.as_bytes()).await
    }

    fn order(&self, body: &[u8]) -> Result<(Order, u16, Arc<str>), Fault> {
        let mut json = Json::default();
        let object = json.check_object(body).ok_or_else(|| Fault::bad_request("body", "send a JSON object"))?;
        if let Some(name) = given_twice(object, &["user_id", "connection_id", "code", "reason"]) {
            return Err(Fault::bad_request(name, "given twice; give it once"));
        }
        let field =
            |name: &str| member(object, name).filter(|value| *value != "null").map(|value| (value, text(value)));
        let whom = match (field("user_id"), field("connection_id")) {
            (Some((_, Some(user))), None) if (1..=limits::USER_ID_BYTES_MAX).contains(&user.len()) => {
                Order::User(user.as_ref().into())
            }
            (None, Some((_, id))) => {
                let id = id.and_then(|id| ConnectionId::parse(&id));
                let id = id.ok_or_else(|| Fault::bad_request("connection_id", "send the UUID of the welcome"))?;
                match id.addr(self.nonce) {
                    Some(addr) if addr.shard.0 < self.calls.nodes().shards => Order::Connection(addr),
                    _ => Order::Elsewhere(id),
                }
            }
            (Some((_, _)), None) => return Err(Fault::bad_request("user_id", "send a text of 1–256 bytes")),
            _ => return Err(Fault::bad_request("user_id", "send either user_id or connection_id")),
        };
        let code = match field("code") {
            None => CloseReason::Kicked.code(),
            Some((_, code)) => {
                let code = code.and_then(|code| code.parse().ok());
                let allowed = code.filter(|code| matches!(code, 1000 | 1008 | 1012 | 1013 | 4000..=4999));
                allowed.ok_or_else(|| Fault::bad_request("code", "send 1000, 1008, 1012, 1013 or 4000–4999"))?
            }
        };
        let reason = match field("reason") {
            None if code == CloseReason::Kicked.code() => CloseReason::Kicked.text().into(),
            None => "".into(),
            Some((_, Some(reason))) if reason.len() <= REASON_BYTES_MAX => reason.as_ref().into(),
            Some(_) => return Err(Fault::bad_request("reason", "send a text of at most 123 bytes")),
        };
        Ok((whom, code, reason))
    }

    /// The sessions in a room, those that may still resume among them.
    pub(super) async fn presence(&self, target: &Target) -> Result<Response, Fault> {
        let room = &target.segment;
        if !is_room_id(room) {
            return Err(Fault::bad_request("room", "a room id is 1–64 of A-Z a-z 0-9 . _ -"));
        }
        let limit = target.number("limit", 1, limits::API_MEMBERS as u64)?.unwrap_or(PRESENCE_ROWS) as usize;
        let _one = self.looks.acquire().await.map_err(|_| Fault::unavailable("the gateway is ending"))?;
        let (mut sessions, mut members, mut after) = (HashSet::new(), Vec::new(), Some(0));
        while let Some(from) = after {
            let ask = Ask::Members { room: room.as_str().into(), after: from };
            let Answer::Members { members: found, next } = self.calls.ask(ask).await? else { break };
            for found in found {
                // A session may have moved to a record that is looked at later.
                if sessions.insert(found.session) && members.len() < limit {
                    members.push(Member {
                        session_id: found.session.to_string(),
                        user_id: found.user.as_ref().into(),
                        username: found.username.as_ref().into(),
                        connection_id: found
                            .connection
                            .map(|addr| self.name(addr))
                            .or(found.elsewhere.map(|id| id.to_string())),
                    });
                }
            }
            after = next;
        }
        Ok(answer::json(StatusCode::OK, &Room { room_id: room, total: sessions.len(), members }))
    }

    /// The node's connections, the longest queues first.
    pub(super) async fn connections(&self, target: &Target) -> Result<Response, Fault> {
        if target.text("sort").is_some_and(|sort| sort != "queued_bytes") {
            return Err(Fault::bad_request("sort", "connections are sorted by queued_bytes"));
        }
        let limit = target.number("limit", 1, limits::API_CONNECTIONS as u64)?.unwrap_or(CONNECTION_ROWS) as usize;
        let _one = self.looks.acquire().await.map_err(|_| Fault::unavailable("the gateway is ending"))?;
        let answers = self.calls.ask_shards(&ApiAsk::Connections { limit }).await?;
        let (mut total, mut rows) = (0, Vec::new());
        for answer in answers {
            if let ApiAnswer::Connections { total: of_shard, rows: of_rows } = answer {
                total += of_shard;
                rows.extend(of_rows);
            }
        }
        rows.sort_by_key(|row| Reverse(row.queued_bytes));
        rows.truncate(limit);
        let connections = rows.into_iter().map(|row| self.row(row)).collect();
        Ok(answer::json(StatusCode::OK, &Connections { total, connections }))
    }

    fn row(&self, info: ConnectionInfo) -> Connection {
        Connection {
            connection_id: self.name(info.addr),
            shard: info.addr.shard.0,
            dialect: info.dialect,
            session_id: info.session.map(|session| session.to_string()),
            user_id: info.user.as_deref().map(str::to_owned),
            rooms: info.rooms,
            queued_bytes: info.queued_bytes,
            queued_reliable: info.queued_reliable,
            queued_deltas: info.queued_deltas,
            slow: info.slow,
            silent_ms: u64::try_from(info.silence.as_millis()).unwrap_or(u64::MAX),
        }
    }

    fn name(&self, addr: ConnAddr) -> String {
        ConnectionId::of(self.nonce, addr).to_string()
    }
}

/// Whom a disconnect names.
enum Order {
    User(Arc<str>),
    Connection(ConnAddr),
    /// Another process's.
    Elsewhere(ConnectionId),
}

#[derive(Serialize)]
struct Room<'a> {
    room_id: &'a str,
    total: usize,
    members: Vec<Member>,
}

#[derive(Serialize)]
struct Member {
    session_id: String,
    user_id: String,
    username: String,
    connection_id: Option<String>,
}

#[derive(Serialize)]
struct Connections {
    total: usize,
    connections: Vec<Connection>,
}

#[derive(Serialize)]
struct Connection {
    connection_id: String,
    shard: u16,
    dialect: &'static str,
    session_id: Option<String>,
    user_id: Option<String>,
    rooms: usize,
    queued_bytes: usize,
    queued_reliable: u64,
    queued_deltas: u64,
    slow: bool,
    silent_ms: u64,
}

fn closed(answer: &ApiAnswer) -> usize {
    match answer {
        ApiAnswer::Disconnected(count) => *count,
        _ => 0,
    }
}

/// What a close frame holds behind its code (RFC 6455 §5.5).
const REASON_BYTES_MAX: usize = 123;
/// Members listed if the request does not say how many.
const PRESENCE_ROWS: u64 = 1000;
/// Connections listed if the request does not say how many.
const CONNECTION_ROWS: u64 = 100;
/// What ends a user's sessions on all gateways.
const KICK: &str = "system.event.kick";
