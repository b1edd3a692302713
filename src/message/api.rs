//! What the server API asks of shards and presence, and their answers (PROTOCOLS "Server API"). Every answer is bounded
//! by what the question says.

use std::sync::Arc;
use std::time::Duration;

use super::{Introduction, LostReason};
use crate::frame::SentRun;
use crate::id::{ConnAddr, ConnKey, ConnectionId, SessionId};

/// See [`super::Request::Api`].
#[derive(Debug)]
pub struct ApiRequest {
    /// Where the answer goes: the API's node, and the call as its connection.
    pub from: ConnAddr,
    /// The question.
    pub ask: ApiAsk,
}

/// A question to a shard.
#[derive(Clone, Debug)]
pub enum ApiAsk {
    /// The shard's connections with the most bytes waiting, at most `limit` of them; answered `Connections`.
    Connections {
        /// Rows at most.
        limit: usize,
    },
    /// Close connections; answered `Disconnected`.
    Disconnect {
        /// Whose.
        whom: Whom,
        /// The WebSocket close code; 4403 ends the session as a kick does.
        code: u16,
        /// The close frame's reason text, ≤ 123 bytes.
        reason: Arc<str>,
    },
    /// A page of a stream homed on the shard; answered `History`.
    History(HistoryAsk),
}

/// Whom a disconnect means.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Whom {
    /// All connections of the user.
    User(Arc<str>),
    /// One connection of the shard.
    Connection(ConnKey),
}

/// See [`ApiAsk::History`].
#[derive(Clone, Debug)]
pub struct HistoryAsk {
    /// The stream's name, e.g. `relay/room:arena`.
    pub stream: Arc<str>,
    /// The numbering that `after` belongs to, if the asker has one.
    pub epoch: Option<u64>,
    /// Frames behind this place; `None` begins with the oldest frame kept.
    pub after: Option<u64>,
    /// At most this many frames, at least 1.
    pub frames: u32,
    /// At most this many bytes, but always one frame.
    pub bytes: u32,
}

/// Answer to [`ApiRequest`].
#[derive(Debug)]
pub struct ApiReply {
    /// The call, as the request named it.
    pub to: ConnKey,
    /// The answer.
    pub answer: ApiAnswer,
}

/// What a shard says.
#[derive(Debug)]
pub enum ApiAnswer {
    /// See [`ApiAsk::Connections`].
    Connections {
        /// Connections of the shard, listed or not.
        total: usize,
        /// The most queued bytes first.
        rows: Vec<ConnectionInfo>,
    },
    /// How many connections were told to close.
    Disconnected(usize),
    /// See [`ApiAsk::History`].
    History(Result<HistoryPage, HistoryRefusal>),
}

/// A connection as operators see it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConnectionInfo {
    /// The connection on its shard.
    pub addr: ConnAddr,
    /// What it speaks, e.g. `frames`.
    pub dialect: &'static str,
    /// Its session, once it has one.
    pub session: Option<SessionId>,
    /// The session's user.
    pub user: Option<Arc<str>>,
    /// Rooms the session is in.
    pub rooms: usize,
    /// Bytes that wait in the write queue.
    pub queued_bytes: usize,
    /// Reliable frames that wait.
    pub queued_reliable: u64,
    /// Deltas that wait.
    pub queued_deltas: u64,
    /// Whether the last flush left something behind.
    pub slow: bool,
    /// Time since the client last sent something.
    pub silence: Duration,
}

/// A page of a stream's history.
#[derive(Debug)]
pub struct HistoryPage {
    /// The stream and its head.
    pub introduction: Arc<Introduction>,
    /// Reliable frames, in order.
    pub runs: Vec<SentRun>,
    /// The place of the last one; with none, where the page began.
    pub after: u64,
}

/// Why there is no page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HistoryRefusal {
    /// No such stream.
    NoStream,
    /// The history does not reach back that far, or the place is of another numbering.
    Lost(LostReason),
}

/// A session in a room, as presence knows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RoomMember {
    /// The session.
    pub session: SessionId,
    /// Its user.
    pub user: Arc<str>,
    /// The user's name.
    pub username: Arc<str>,
    /// Its connection; `None` while it may still resume, and if it is another gateway's.
    pub connection: Option<ConnAddr>,
    /// Its connection, if that is another gateway's.
    pub elsewhere: Option<ConnectionId>,
}
