//! What nodes of the mesh say to each other: shards among themselves, shards and peers (presence, bus).
//!
//! [`Request`] goes from a member's shard to a home, or from a peer to a shard, and may wait while deliveries cannot be
//! placed. [`Deliver`] goes from a home to its members' shards, or answers a request; taking one never makes another
//! message, so it is always drained (DELIVERY §5).

mod api;
mod error;

use std::sync::Arc;

pub use api::{
    ApiAnswer, ApiAsk, ApiReply, ApiRequest, ConnectionInfo, HistoryAsk, HistoryPage, HistoryRefusal, RoomMember, Whom,
};
pub use error::ErrorCode;

use crate::class::Class;
use crate::close::CloseReason;
use crate::frame::{Audience, Batch, FrameKind, SentRun};
use crate::id::{
    ConnAddr, ConnKey, ConnectionId, EventId, NodeId, RoomCode, Scope, SessionId, StreamHandle, TokenHash,
};

/// A place in a named stream: what a client sends to resume, and what a session's record keeps from entry.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Position {
    /// The stream's name, e.g. `relay/room:arena`.
    pub stream: Arc<str>,
    /// The numbering the place belongs to; < 2^53.
    pub epoch: u64,
    /// The place of the last reliable frame seen; 0 = none yet.
    pub place: u64,
}

/// A stream as it is introduced to a client: its position is the head when the introduction was made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Introduction {
    /// Node-wide handle.
    pub handle: StreamHandle,
    /// Name, epoch and head.
    pub position: Position,
    /// Whether only the room's publishers receive it (`input/room:<id>`).
    pub publishers_only: bool,
}

/// Why a resume could not replay.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum LostReason {
    /// No session under this token.
    Expired,
    /// The history no longer reaches back to the position.
    HistoryEvicted,
    /// The position belongs to another numbering.
    EpochChanged,
}

impl LostReason {
    /// The wire name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::HistoryEvicted => "history_evicted",
            Self::EpochChanged => "epoch_changed",
        }
    }
}

/// To a home, or from a peer to a shard, or from a shard to a peer.
#[derive(Debug)]
pub enum Request {
    /// Include the sender's shard and say where the scope's streams stand.
    Join(Box<JoinRequest>),
    /// The sender's shard has no member of the scope left.
    Leave {
        /// The scope.
        scope: Scope,
        /// The shard to exclude.
        from: NodeId,
    },
    /// A publisher's session left a room (`gone`), or lost its connection and may come back.
    PublisherGone {
        /// The room.
        scope: Scope,
        /// The connection that joined; a session that has joined anew from another one is not meant.
        from: ConnAddr,
        /// Left for good, rather than detached for at most a resume window.
        gone: bool,
    },
    /// A frame for a stream that the home numbers.
    Publish(Box<Publish>),
    /// The next page of a catch-up.
    Pull(Box<Pull>),
    /// An event of the bus, for the home of its scope. Losing one would break D1: it waits in the bus until it fits.
    Event(Box<Event>),
    /// The newest frames of a room.
    Recall(Box<Recall>),
    /// To the presence peer.
    Presence(Box<PresenceRequest>),
    /// To the bus peer.
    Append(Box<Append>),
    /// A question of the server API to a shard.
    Api(Box<ApiRequest>),
}

/// To members' shards, or the answer to a request.
#[derive(Debug)]
pub enum Deliver {
    /// New frames of a stream, for all its live members on the shard.
    Batch(Arc<Batch>),
    /// A stream appeared in a scope that the shard has members of; sent before the stream's first batch.
    Introduce {
        /// The scope.
        scope: Scope,
        /// The stream.
        introduction: Arc<Introduction>,
    },
    /// Answer to [`Request::Join`].
    Joined(Box<Joined>),
    /// Answer to [`Request::Pull`].
    Page(Box<Page>),
    /// Answer to [`Request::Recall`].
    Recalled(Box<Recalled>),
    /// Answer to [`Request::Publish`] or [`Request::Append`] with a correlation.
    Answered {
        /// Who asked.
        to: ConnKey,
        /// The sender's number, not 0.
        correlation: u64,
        /// Accepted, or why not.
        outcome: Result<(), ErrorCode>,
    },
    /// Answer of the presence peer.
    Presence(Box<PresenceReply>),
    /// Close every connection of the user, 4403 kicked.
    Kick {
        /// The user id.
        user: Arc<str>,
    },
    /// Answer to [`Request::Api`].
    Api(Box<ApiReply>),
}

/// See [`Request::Join`].
#[derive(Debug)]
pub struct JoinRequest {
    /// Where the answer goes.
    pub from: ConnAddr,
    /// Whose session.
    pub session: SessionId,
    /// What to join.
    pub scope: Scope,
    /// Whether the session may publish: its first JOIN opens a room, and it receives the room's input.
    pub publisher: bool,
    /// Whether a backend has let the session in (an event's join effect), so that the room need not be open.
    pub admitted: bool,
    /// The place of the event that let the session in: the room's stream of this name starts right behind it. It is made
    /// if it is not there; `u64::MAX` asks for no more than that.
    pub entry: Option<Position>,
    /// Where to go on, for a resume; `None` starts every stream at its head.
    pub resume: Option<ResumeFrom>,
}

/// Where a resuming session stands in a scope.
#[derive(Clone, Default, Debug)]
pub struct ResumeFrom {
    /// What the client says, first choice.
    pub positions: Vec<Position>,
    /// What the record says from entry.
    pub entered: Vec<Position>,
}

/// See [`Deliver::Joined`].
#[derive(Debug)]
pub struct Joined {
    /// Who asked.
    pub to: ConnKey,
    /// What was joined.
    pub scope: Scope,
    /// The scope's streams, or why there is none.
    pub outcome: Result<Vec<StreamStart>, ErrorCode>,
}

/// A stream of a joined scope.
#[derive(Debug)]
pub struct StreamStart {
    /// The stream.
    pub introduction: Arc<Introduction>,
    /// Where this member goes on.
    pub start: Start,
}

/// Where a member's delivery starts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Start {
    /// With the next batch: nothing is to be caught up.
    Live,
    /// By pages, behind this place.
    Behind(u64),
    /// The position cannot be served; the whole resume then starts at the heads.
    Lost(LostReason),
}

/// See [`Request::Pull`]. The cursor is the member's; the home keeps nothing of it.
#[derive(Debug)]
pub struct Pull {
    /// Where the page goes.
    pub from: ConnAddr,
    /// Which stream.
    pub stream: StreamHandle,
    /// The place of the last reliable frame the member has; `u64::MAX` starts at the head.
    pub after: u64,
    /// The home's sequence of the last delta value the member has, 0 = none.
    pub after_delta: u64,
    /// At most this many frames, at least 1.
    pub frames: u32,
    /// At most this many bytes, but always one frame.
    pub bytes: u32,
}

/// See [`Deliver::Page`].
#[derive(Debug)]
pub struct Page {
    /// Who asked.
    pub to: ConnKey,
    /// Which stream.
    pub stream: StreamHandle,
    /// Frames in order.
    pub runs: Vec<SentRun>,
    /// The cursor behind these frames.
    pub after: u64,
    /// The delta cursor behind these frames.
    pub after_delta: u64,
    /// What comes next.
    pub next: PageNext,
}

/// See [`Request::Recall`].
#[derive(Debug)]
pub struct Recall {
    /// Where the answer goes.
    pub from: ConnAddr,
    /// The sender's number.
    pub number: u64,
    /// The room.
    pub scope: Scope,
    /// At most this many frames of each stream.
    pub frames: usize,
    /// At most this many bytes of each stream.
    pub bytes: usize,
}

/// See [`Deliver::Recalled`].
#[derive(Debug)]
pub struct Recalled {
    /// Who asked.
    pub to: ConnKey,
    /// The request's number.
    pub number: u64,
    /// The room.
    pub scope: Scope,
    /// Reliable frames of the streams that members receive, as they were sealed, oldest first.
    pub runs: Vec<SentRun>,
}

/// What follows a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PageNext {
    /// Pull again.
    More,
    /// The batches that follow this page on the same ring.
    Live,
    /// Pull again behind the stream's next batch: the position lies ahead of this home.
    Wait,
    /// Nothing: the history was evicted past the cursor; close 4408.
    Evicted,
}

/// See [`Request::Publish`].
#[derive(Debug)]
pub struct Publish {
    /// Who is answered.
    pub from: ConnAddr,
    /// The sender's number; 0 asks for no answer.
    pub correlation: u64,
    /// A stream of the room.
    pub stream: StreamHandle,
    /// Which of the room's it is for.
    pub to: PublishTo,
    /// Type and kind in D's header.
    pub kind: FrameKind,
    /// `Reliable` or `Delta`.
    pub class: Class,
    /// Delta key, or the key to forget.
    pub key: u64,
    /// Whether the frame forgets `key`.
    pub forgets: bool,
    /// D's payload.
    pub body: Box<[u8]>,
}

/// The stream that a frame is published to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PublishTo {
    /// The one that is named.
    Stream,
    /// The room's `relay` stream (a client's command for the other members).
    Relay,
    /// The room's `input` stream (a player's command for the game servers).
    Input,
}

/// An event of the bus on its way to the home of its scope.
#[derive(Debug)]
pub struct Event {
    /// The envelope's `event_id`, if it is a UUID.
    pub id: Option<EventId>,
    /// Event topic, e.g. `games.events`.
    pub topic: Arc<str>,
    /// Partition of the topic.
    pub partition: u32,
    /// The topic's numbering.
    pub epoch: u64,
    /// Offset + 1.
    pub place: u64,
    /// Whom it addresses.
    pub scope: Scope,
    /// `Reliable` or `Delta`.
    pub class: Class,
    /// Delta key, or the key to forget.
    pub key: u64,
    /// Whether it forgets `key`.
    pub forgets: bool,
    /// Type and kind in D's header; type 0 = carried out, never shown to clients (a kick).
    pub kind: FrameKind,
    /// What it does to the sessions it addresses.
    pub effect: Option<Effect>,
    /// Who of the scope sees it; `None` = everybody.
    pub audience: Option<Arc<Audience>>,
    /// D's payload: the JSON of A's frame without `at`.
    pub body: Box<[u8]>,
}

/// What an event does besides being delivered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Effect {
    /// End the user's sessions.
    Kick,
    /// The session joins the room.
    Join(Arc<str>),
    /// The session leaves the room.
    Leave(Arc<str>),
}

/// A command for a topic of the bus.
#[derive(Debug)]
pub struct Append {
    /// Who is answered.
    pub from: ConnAddr,
    /// The client's number; 0 asks for no answer.
    pub correlation: u64,
    /// Command topic, e.g. `games.commands`.
    pub topic: Arc<str>,
    /// Partition key.
    pub key: Box<[u8]>,
    /// The command envelope (PROTOCOLS "Bus topics and envelopes"), JSON.
    pub value: Box<[u8]>,
}

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
    /// Heads of its streams at entry; a stream that is missing did not exist then.
    pub entered: Vec<Position>,
    /// Whether a backend let the session in.
    pub admitted: bool,
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
    /// owner was told to stop and said so with `Detached`.
    Resume {
        /// The new owner.
        from: ConnAddr,
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
    },
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
            | Self::Members { to, .. }
            | Self::Unavailable { to }
            | Self::Stop { to, .. } => *to,
        }
    }
}

/// What others are told of a session (`gateway.presence`).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PresenceChange {
    /// The connection it is about.
    pub connection: ConnAddr,
    /// Its session.
    pub session: SessionId,
    /// User id.
    pub user: Arc<str>,
    /// Display name.
    pub username: Arc<str>,
    /// What happened.
    pub kind: PresenceKind,
    /// Whose connection it was, if another process's; `connection` is then nobody's.
    pub elsewhere: Option<Box<Elsewhere>>,
}

/// A connection of another process, or of a former life of this gateway.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Elsewhere {
    /// Its name.
    pub connection: ConnectionId,
    /// The gateway that had it.
    pub gateway: Arc<str>,
    /// The gateway's life then.
    pub incarnation: u64,
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Ring messages stay small: what is large is boxed.
    #[test]
    fn mesh_messages_are_small() {
        assert!(size_of::<Request>() <= 48, "{}", size_of::<Request>());
        assert!(size_of::<Deliver>() <= 48, "{}", size_of::<Deliver>());
    }
}
