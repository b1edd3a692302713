//! What shards and presence say to each other, and what presence keeps and tells of sessions and hubs.

use std::sync::Arc;

use super::{ErrorCode, Position, RoomMember};
use crate::close::CloseReason;
use crate::id::{ConnAddr, ConnectionId, RoomCode, Scope, SessionId, TokenHash};

/// What presence keeps of a session (DELIVERY §6).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SessionRecord {
    /// The session.
    pub session: SessionId,
    /// User id.
    pub user: Arc<str>,
    /// Display name.
    pub username: Arc<str>,
    /// Roles, e.g. `publisher`.
    pub roles: Arc<[Box<str>]>,
    /// The token's `exp`, seconds since the Unix epoch; `u64::MAX` = never.
    pub expires_at: u64,
    /// Scopes the session is in, with the places where their streams stood at entry.
    pub scopes: Vec<ScopeEntry>,
    /// Places up to which the effects of streams' events have acted.
    pub acted: Vec<Position>,
    /// How its last connection ended.
    pub last_close: Option<CloseReason>,
}

/// A scope of a session and the places at entry.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ScopeEntry {
    /// The scope.
    pub scope: Scope,
    /// Heads of its streams at entry; a stream that is missing did not exist then, unless the home has not said where
    /// they start ([`Position::unsaid`] is among them).
    pub entered: Vec<Position>,
    /// Whether it is a room that only a backend lets into, and let the session into.
    pub admitted: bool,
}

/// An event that ends a user's sessions.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Kick {
    /// The user id.
    pub user: Arc<str>,
    /// Where it stands: the topic,
    pub topic: Arc<str>,
    /// and its place there.
    pub place: u64,
}

/// To the presence peer. Requests of one shard are carried out in order.
#[derive(Debug)]
pub enum PresenceRequest {
    /// A new session, owned by the connection; answered `Opened`.
    Open {
        /// The owner.
        from: ConnAddr,
        /// The session.
        record: Box<SessionRecord>,
        /// The resume token's hash.
        token: TokenHash,
    },
    /// Attach the session of this token to the connection; answered `Resumed` or `Expired`, after a living former
    /// owner was told to stop and said so with `Detached`; or `Foreign`, and nothing happens to anybody.
    Resume {
        /// The new owner.
        from: ConnAddr,
        /// Whose the session must be, if the connection has shown who it is.
        user: Option<Arc<str>>,
        /// The resume token's hash.
        token: TokenHash,
    },
    /// The session entered a scope.
    Entered {
        /// The session.
        session: SessionId,
        /// The scope and its streams' heads.
        entry: ScopeEntry,
    },
    /// The session left a scope.
    Left {
        /// The session.
        session: SessionId,
        /// The scope.
        scope: Scope,
    },
    /// A new token took the place of the session's.
    Refreshed {
        /// The session.
        session: SessionId,
        /// The token's roles.
        roles: Arc<[Box<str>]>,
        /// The token's `exp`, seconds since the Unix epoch.
        expires_at: u64,
    },
    /// The effects of the stream's events up to this place have acted on the session.
    Acted {
        /// The session.
        session: SessionId,
        /// The stream and the place.
        place: Position,
    },
    /// The owner's connection is gone; the record lives on for the resume window, unless it was closed as kicked.
    Detached {
        /// The former owner; ignored if it is no longer that.
        from: ConnAddr,
        /// The session.
        session: SessionId,
        /// How the connection ended.
        last_close: CloseReason,
    },
    /// End all sessions of the user.
    Kick {
        /// The user id.
        user: Arc<str>,
        /// Topic and place of the event that says so, if it is one.
        event: Option<(Arc<str>, u64)>,
    },
    /// Have other gateways close connections; answered `Disconnected`.
    Disconnect(Box<Disconnect>),
    /// Who is in a room; answered `Members`, a part of the records at a time, so that nobody waits for a long look.
    Members {
        /// Who asks.
        from: ConnAddr,
        /// The room id.
        room: Arc<str>,
        /// Where to go on: 0, or the last answer's `next`.
        after: u32,
    },
    /// Make a room hub with its first player; answered `Enrolled`.
    CreateHub(Box<CreateHub>),
    /// Give a player a place in the hub of this code; answered `Enrolled`.
    JoinHub(Box<JoinHub>),
    /// Say which hub has this code; answered `Hub`.
    FindHub {
        /// Who asks.
        from: ConnAddr,
        /// The hub's.
        code: RoomCode,
    },
    /// Attach the session of this player of a hub to the connection, a new one if there is none; answered `Opened`, or
    /// as `Resume` is. `Expired` says that the hub or the player is gone.
    Attach {
        /// The new owner.
        from: ConnAddr,
        /// The hub.
        room: Arc<str>,
        /// The session, if it is a new one; the user is the player.
        record: Box<SessionRecord>,
        /// What the player's session is known by.
        token: TokenHash,
    },
    /// Say who is in a hub and what was said there; answered `HubState`.
    HubState {
        /// Who asks.
        from: ConnAddr,
        /// The hub.
        room: Arc<str>,
    },
}

/// See [`PresenceRequest::Disconnect`].
#[derive(Clone, Debug)]
pub struct Disconnect {
    /// Who asks.
    pub from: ConnAddr,
    /// Whose connections.
    pub whom: Elsewhere,
    /// The WebSocket close code; 4403 ends the sessions as a kick does.
    pub code: u16,
    /// The close frame's reason text, ≤ 123 bytes.
    pub reason: Arc<str>,
}

/// Connections that other gateways have.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Elsewhere {
    /// All of the user.
    User(Arc<str>),
    /// One.
    Connection(ConnectionId),
}

/// See [`PresenceRequest::CreateHub`].
#[derive(Debug)]
pub struct CreateHub {
    /// Who asks.
    pub from: ConnAddr,
    /// Room id; new.
    pub room: Arc<str>,
    /// The first player's id; new.
    pub player: Arc<str>,
    /// The first player's name.
    pub name: Arc<str>,
    /// Capacity.
    pub max_players: u32,
    /// Where codes are taken from, the first that is free.
    pub codes: [RoomCode; 4],
}

/// See [`PresenceRequest::JoinHub`].
#[derive(Debug)]
pub struct JoinHub {
    /// Who asks.
    pub from: ConnAddr,
    /// The hub's.
    pub code: RoomCode,
    /// The player's id; new.
    pub player: Arc<str>,
    /// The player's name.
    pub name: Arc<str>,
}

/// What a hub is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hub {
    /// Room id.
    pub room: Arc<str>,
    /// What players type.
    pub code: RoomCode,
    /// Capacity.
    pub max_players: u32,
    /// Players who have a place: ids and names.
    pub players: Vec<(Arc<str>, Arc<str>)>,
}

/// Who is in a hub and what was said there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HubState {
    /// Players by the time they came.
    pub members: Vec<HubMember>,
    /// The newest chat messages, the oldest of them first.
    pub messages: Vec<HubMessage>,
}

/// A player of a hub.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HubMember {
    /// Player id.
    pub player: Arc<str>,
    /// Display name.
    pub name: Arc<str>,
    /// Whether a connection has the player's session.
    pub connected: bool,
}

/// A chat message of a hub.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HubMessage {
    /// Its place in the room's stream of `rooms.events`; 0 = before all that is kept there.
    pub place: u64,
    /// The event's payload, JSON.
    pub payload: Arc<str>,
}

/// From the presence peer to the shard of the connection it names.
#[derive(Debug)]
pub enum PresenceReply {
    /// The session is kept.
    Opened {
        /// Who asked.
        to: ConnAddr,
        /// The record's roles, in the copy that all sessions with the same share.
        roles: Arc<[Box<str>]>,
    },
    /// The session is the connection's.
    Resumed {
        /// Who asked.
        to: ConnAddr,
        /// The session.
        record: Box<SessionRecord>,
    },
    /// No session under this token.
    Expired {
        /// Who asked.
        to: ConnAddr,
    },
    /// The session of this token is another user's.
    Foreign {
        /// Who asked.
        to: ConnAddr,
    },
    /// Members of a room among the records looked at.
    Members {
        /// Who asked.
        to: ConnAddr,
        /// The sessions in the room, in no order.
        members: Vec<RoomMember>,
        /// Where the next look goes on; `None` when all records were looked at.
        next: Option<u32>,
    },
    /// Another connection takes the session over: stop, answer `Detached`, close 4409.
    Stop {
        /// The owner until now.
        to: ConnAddr,
        /// The session.
        session: SessionId,
    },
    /// Other gateways were told to close so many connections.
    Disconnected {
        /// Who asked.
        to: ConnAddr,
        /// How many.
        connections: usize,
    },
    /// Another gateway was asked to have this connection closed.
    Close {
        /// The connection.
        to: ConnAddr,
        /// The WebSocket close code; 4403 is a kick.
        code: u16,
        /// The close frame's reason text.
        reason: Arc<str>,
    },
    /// The player has a place, or `RoomNotFound`, `RoomFull`, `Unavailable`.
    Enrolled {
        /// Who asked.
        to: ConnAddr,
        /// The hub's room id and code, or why not.
        outcome: Result<(Arc<str>, RoomCode), ErrorCode>,
    },
    /// The hub of a code, if there is one.
    Hub {
        /// Who asked.
        to: ConnAddr,
        /// The hub.
        hub: Option<Box<Hub>>,
    },
    /// Who is in the hub and what was said there; nothing if it has ended.
    HubState {
        /// Who asked.
        to: ConnAddr,
        /// The state.
        state: Box<HubState>,
    },
    /// Presence cannot be reached: whatever was asked is not done, as far as the asker will ever notice.
    Unavailable {
        /// Who asked.
        to: ConnAddr,
    },
}

impl PresenceReply {
    /// The connection it is for.
    #[must_use]
    pub fn to(&self) -> ConnAddr {
        match self {
            Self::Enrolled { to, .. } | Self::Hub { to, .. } | Self::HubState { to, .. } => *to,
            Self::Opened { to, .. }
            | Self::Resumed { to, .. }
            | Self::Expired { to }
            | Self::Foreign { to }
            | Self::Members { to, .. }
            | Self::Unavailable { to }
            | Self::Disconnected { to, .. }
            | Self::Close { to, .. }
            | Self::Stop { to, .. } => *to,
        }
    }
}

/// A life of a gateway, which names its connections.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct GatewayLife {
    /// See [`crate::id::ConnectionId::of`].
    pub nonce: u64,
    /// Which life of its gateway it is.
    pub incarnation: u64,
}

/// What others are told of a session (`gateway.presence`).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PresenceChange {
    /// The gateway that the connection belongs to; `None` = this one.
    pub gateway: Option<Arc<str>>,
    /// The gateway's life that the connection belongs to.
    pub life: GatewayLife,
    /// The connection it is about.
    pub connection: ConnAddr,
    /// Tells changes of one kind and connection apart; the same whenever the change is said.
    pub number: u64,
    /// Its session.
    pub session: SessionId,
    /// User id.
    pub user: Arc<str>,
    /// Display name.
    pub username: Arc<str>,
    /// What happened.
    pub kind: PresenceKind,
    /// Whether a former process may have said it already, so that it is said whatever has happened since.
    pub again: bool,
}

/// What the rooms service is told of hubs; saying it again changes nothing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum HubChange {
    /// It was made.
    Opened {
        /// Room id.
        room: Arc<str>,
        /// What players type.
        code: RoomCode,
        /// Capacity.
        max_players: u32,
    },
    /// A player has a place.
    Enrolled {
        /// Room id.
        room: Arc<str>,
        /// Player id.
        player: Arc<str>,
        /// Display name.
        name: Arc<str>,
        /// Who gave up theirs for that.
        in_place_of: Option<Arc<str>>,
    },
}

/// See [`PresenceChange`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PresenceKind {
    /// The session is the connection's now.
    Connected,
    /// It is not any more.
    Disconnected(CloseReason),
    /// It entered the room.
    Joined(Arc<str>),
    /// It left the room.
    Left(Arc<str>),
}
