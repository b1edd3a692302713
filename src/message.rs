//! What nodes of the mesh say to each other: shards among themselves, shards and peers (presence, bus).
//!
//! [`Request`] goes from a member's shard to a home, or from a peer to a shard, and may wait while deliveries cannot be
//! placed. [`Deliver`] goes from a home to its members' shards, or answers a request; taking one never makes another
//! message, so it is always drained (DELIVERY §5).

mod api;
mod error;
mod presence;

use std::sync::Arc;

pub use api::{
    ApiAnswer, ApiAsk, ApiReply, ApiRequest, ConnectionInfo, HistoryAsk, HistoryPage, HistoryRefusal, RoomMember, Whom,
};
pub use error::ErrorCode;
pub use presence::{
    CreateHub, Disconnect, Elsewhere, GatewayLife, Hub, HubChange, HubMember, HubMessage, HubState, JoinHub, Kick,
    PresenceChange, PresenceKind, PresenceReply, PresenceRequest, ScopeEntry, SessionRecord,
};

use crate::class::Class;
use crate::frame::{Audience, Batch, FrameKind, SentRun};
use crate::id::{ConnAddr, ConnKey, ConnectionId, EventId, NodeId, Scope, SessionId, StreamHandle};

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

impl Position {
    /// Among the places of an entry: the home has not said where the streams that are missing start.
    #[must_use]
    pub fn unsaid() -> Self {
        Self { stream: "".into(), epoch: 0, place: 0 }
    }

    /// See [`Position::unsaid`].
    #[must_use]
    pub fn is_unsaid(&self) -> bool {
        self.stream.is_empty()
    }
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
    /// Of a room alone: the session came in again behind the position, so what lies between is not all for it.
    EnteredLater,
}

impl LostReason {
    /// The wire name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::HistoryEvicted => "history_evicted",
            Self::EpochChanged => "epoch_changed",
            Self::EnteredLater => "entered_later",
        }
    }
}

/// To a home, or from a peer to a shard, or from a shard to a peer.
#[derive(Debug)]
pub enum Request {
    /// Include the sender's shard and say where the scope's streams stand.
    Join(Box<JoinRequest>),
    /// Backends let sessions into the room: nobody's JOIN opens it.
    Reserve {
        /// The room.
        scope: Scope,
    },
    /// Say whose session a connection of the shard has; answered `Session`.
    WhoIs {
        /// Who asks: a peer.
        from: NodeId,
        /// The sender's number.
        number: u64,
        /// The connection.
        conn: ConnKey,
    },
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
    /// To the bus peer: a publisher's session came into a room, or is there no longer.
    Publishing(Box<Publishing>),
    /// A publisher of some gateway is in the room, which is open: every authenticated user may join it here too.
    Open {
        /// The room.
        scope: Scope,
    },
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
    /// Answer to [`Request::Append`] of a frame that a publisher relays by the bus, with or without a correlation.
    Relayed {
        /// Who asked.
        to: ConnKey,
        /// The publisher's number; 0 = none.
        correlation: u64,
        /// Bytes of the record.
        bytes: u32,
        /// Accepted, or why not: whoever published it must not go on as if it had been.
        outcome: Result<(), ErrorCode>,
    },
    /// Answer of the presence peer.
    Presence(Box<PresenceReply>),
    /// The stream's numbering is over: close its members, 1013, so that a resume tells them.
    Broken {
        /// The stream.
        stream: StreamHandle,
    },
    /// Answer to [`Request::WhoIs`].
    Session {
        /// The request's number.
        number: u64,
        /// The connection's session, if it is there and has one.
        session: Option<SessionId>,
    },
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

impl ResumeFrom {
    /// The place of the event that let the session in, if no home has answered for it since.
    #[must_use]
    pub fn unsaid_entry(&self) -> Option<&Position> {
        let unsaid = self.entered.iter().any(Position::is_unsaid);
        self.entered.iter().find(|position| unsaid && !position.is_unsaid())
    }
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
    /// Whether it is a room that only a backend lets into.
    pub admits: bool,
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
    /// Like `Behind`, but elsewhere than the client says that it stands, for the session came in there: it is told.
    Anew(u64),
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

/// What homes had before a restart.
#[derive(Debug)]
pub enum Kept {
    /// An event of the bus.
    Event(Box<Event>),
    /// A room that backends let sessions into.
    Reserved(Scope),
    /// See [`Request::Open`].
    Open(Scope),
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

/// See [`Request::Publishing`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Publishing {
    /// The room's id.
    pub room: Arc<str>,
    /// Whose session.
    pub session: SessionId,
    /// Its connection: what is said of another one's life is out of date.
    pub connection: ConnectionId,
    /// What it is to the room.
    pub state: PublisherState,
}

/// What a publisher's session is to a room.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PublisherState {
    /// A member.
    Attached {
        /// Whether the room is open, rather than one that backends let sessions into.
        open: bool,
    },
    /// Without connection; it may come back within a resume window.
    Detached,
    /// No member any more.
    Gone,
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
