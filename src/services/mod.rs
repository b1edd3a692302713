//! The reference services: `(state, now, input) → events + next deadline`. Sans-IO and deterministic, so that what is
//! repeated after a restart yields the same events under the same ids.
//!
//! Law: `now` is the time of the input, or of the deadline that has come; an id is derived from the input's id and a
//! counter, or from the room and the deadline. So an event says the same whenever and however often it is made.

pub mod battle;
pub mod bigger_dice;
pub mod chat;
pub mod hub;
pub mod rooms;
mod seats;

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use serde::Serialize;

use crate::id::{EventId, Scope, SessionId};
use crate::limits;
use crate::message::ErrorCode;
use crate::ports::Write;
use crate::time::WallMillis;

/// A service's word on its way to the bus.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServiceEvent {
    /// Derived from the command that caused it (DELIVERY §7).
    pub id: EventId,
    /// Full type, e.g. `battle.event.timeline`; the module in front names the topic.
    pub event_type: &'static str,
    /// When it happened: the time of its cause.
    pub at: WallMillis,
    /// Whom it addresses.
    pub target: Scope,
    /// What orders it among the other events of the room, or of the session if there is no room.
    pub key: Box<str>,
    /// A JSON object's text.
    pub payload: String,
}

/// Who sent a command, and what its answers echo.
#[derive(Clone, Copy, Debug)]
pub struct Sender<'a> {
    /// The command's id.
    pub command: EventId,
    /// The session; without one nobody is told of an error.
    pub session: Option<SessionId>,
    /// The correlation id.
    pub correlation: Option<&'a str>,
}

impl Sender<'_> {
    /// `games.event.error` for the sender; `None` if it has no session.
    #[must_use]
    pub fn error(&self, now: WallMillis, room: Option<&str>, code: ErrorCode, message: &str) -> Option<ServiceEvent> {
        let session = self.session?;
        let body = Refusal { code: code.name(), message, room_id: room, correlation_id: self.correlation };
        Some(ServiceEvent {
            id: EventId::v5(&self.command.0, &[b"error"]),
            event_type: "games.event.error",
            at: now,
            target: Scope::Session(session),
            key: room.map_or_else(|| session.to_string().into(), Into::into),
            payload: simd_json::to_string(&body).expect("plain text is always JSON"),
        })
    }
}

/// Payload of `games.event.error`.
#[derive(Serialize)]
struct Refusal<'a> {
    code: &'static str,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    room_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    correlation_id: Option<&'a str>,
}

/// A user who sent a command.
#[derive(Clone, Copy, Debug)]
pub struct Caller<'a> {
    /// The command and the session.
    pub sender: Sender<'a>,
    /// User id.
    pub user: &'a str,
    /// Display name.
    pub name: &'a str,
}

/// What presence says of a session (`gateway.presence`).
#[derive(Clone, Copy, Debug)]
pub struct Sighting<'a> {
    /// The record's id.
    pub id: EventId,
    /// The session.
    pub session: SessionId,
    /// Its user.
    pub user: &'a str,
    /// The user's display name.
    pub name: &'a str,
    /// What happened.
    pub kind: SightingKind<'a>,
}

/// See [`Sighting`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SightingKind<'a> {
    /// The session has a connection.
    Connected,
    /// The session lost its connection, and may come back unless it was kicked.
    Disconnected {
        /// Whether the session has ended.
        kicked: bool,
    },
    /// The gateway made the session a member of the room.
    Joined {
        /// Room id.
        room: &'a str,
    },
    /// The gateway made the session leave the room.
    Left {
        /// Room id.
        room: &'a str,
    },
}

/// What services make of an input: everything that leaves them.
#[derive(Default, Debug)]
pub struct Outbox {
    /// For the bus, in order.
    pub events: Vec<ServiceEvent>,
    /// For the password pool.
    pub work: Vec<rooms::Work>,
    /// For the store's history tables, in order.
    pub writes: Vec<Write>,
    cause: Cause,
}

/// What is carried out now: the namespace of the ids of its events, and its time.
#[derive(Clone, Copy, Debug)]
struct Cause {
    id: EventId,
    at: WallMillis,
    events: u32,
}

impl Default for Cause {
    fn default() -> Self {
        Self { id: EventId([0; 16]), at: WallMillis(0), events: 0 }
    }
}

impl Outbox {
    /// What follows is caused by this input.
    fn begin(&mut self, id: EventId, at: WallMillis) {
        self.cause = Cause { id, at, events: 0 };
    }

    /// What follows is caused by a deadline of the room.
    fn begin_deadline(&mut self, room: &str, at: WallMillis) {
        self.begin(EventId::v5(&DEADLINES, &[&at.0.to_be_bytes(), room.as_bytes()]), at);
    }

    /// An event of the cause under way.
    fn emit(&mut self, event_type: &'static str, target: Scope, key: &str, payload: &impl Serialize) {
        let Cause { id, at, events } = &mut self.cause;
        let id = EventId::v5(&id.0, &[b"event", &events.to_be_bytes()]);
        *events += 1;
        let payload = simd_json::to_string(payload).expect("plain data is always JSON");
        self.events.push(ServiceEvent { id, event_type, at: *at, target, key: key.into(), payload });
    }

    /// An event for the members of the room.
    fn tell(&mut self, event_type: &'static str, room: &str, payload: &impl Serialize) {
        self.emit(event_type, Scope::Room(room.into()), room, payload);
    }

    /// Tells the sender why not.
    fn refuse(&mut self, sender: &Sender<'_>, room: Option<&str>, refusal: Refused) {
        self.events.extend(sender.error(self.cause.at, room, refusal.0, &refusal.1));
    }
}

/// Why a command is not carried out, with the remedy.
#[derive(Debug)]
struct Refused(ErrorCode, String);

impl Refused {
    fn bad(text: impl Into<String>) -> Self {
        Self(ErrorCode::BadRequest, text.into())
    }
}

/// A text of a client's as others see it: without control characters and surrounding space, 1 to `max` characters.
fn clean(field: &str, text: Option<&str>, max: usize) -> Result<String, Refused> {
    // What is far too long is not even looked at.
    let too_long = || Refused(ErrorCode::TooLong, format!("{field} is too long; send at most {max} characters"));
    let text = text.unwrap_or_default();
    if text.len() > 16 * max {
        return Err(too_long());
    }
    let kept: String = text.chars().filter(|c| !c.is_control()).collect();
    let kept = kept.trim();
    match kept.chars().count() {
        0 => Err(Refused::bad(format!("{field} is missing or empty; send 1 to {max} characters"))),
        count if count > max => Err(too_long()),
        _ => Ok(kept.to_owned()),
    }
}

/// A user id as envelopes have it.
fn is_user_id(text: &str) -> bool {
    (1..=limits::USER_ID_BYTES_MAX).contains(&text.len())
}

/// A record's bytes; a service's state is plain data.
fn record(service: &'static str, key: &str, state: &impl Serialize) -> Write {
    let value = simd_json::to_vec(state).expect("plain data is always JSON");
    Write::Put { service, key: key.into(), value: value.into() }
}

/// Ids in records are texts.
mod as_text {
    use serde::de::{Deserialize, Deserializer, Error};
    use serde::ser::Serializer;

    use crate::id::{EventId, SessionId};

    /// What can be read back from the text it prints.
    pub trait Text: std::fmt::Display + Sized {
        /// Reads it.
        fn read(text: &str) -> Option<Self>;
    }

    impl Text for SessionId {
        fn read(text: &str) -> Option<Self> {
            Self::parse(text)
        }
    }

    impl Text for EventId {
        fn read(text: &str) -> Option<Self> {
            Self::parse(text)
        }
    }

    pub fn serialize<T: Text, S: Serializer>(id: &T, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(id)
    }

    pub fn deserialize<'de, T: Text, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
        let text = String::deserialize(deserializer)?;
        T::read(&text).ok_or_else(|| D::Error::custom("not a UUID"))
    }
}

/// The ids of commands done lately, so that a repeated one is done once (DELIVERY §7).
#[derive(Debug)]
pub struct SeenCommands {
    ids: HashSet<EventId, foldhash::quality::FixedState>,
    order: VecDeque<(WallMillis, EventId)>,
    window_ms: u64,
    max: usize,
}

impl SeenCommands {
    /// Remembers an id for `window`, at most `max` of them (≥ 1); `seed` is that of the hashes.
    #[must_use]
    pub fn new(window: Duration, max: usize, seed: u64) -> Self {
        let ids = HashSet::with_hasher(foldhash::quality::FixedState::with_seed(seed));
        Self { ids, order: VecDeque::new(), window_ms: millis(window), max }
    }

    /// Whether the command is seen for the first time within the window.
    pub fn first(&mut self, now: WallMillis, id: EventId) -> bool {
        while let Some(&(at, oldest)) = self.order.front() {
            if self.order.len() < self.max && now.0.saturating_sub(at.0) < self.window_ms {
                break;
            }
            self.order.pop_front();
            self.ids.remove(&oldest);
        }
        let first = self.ids.insert(id);
        if first {
            self.order.push_back((now, id));
        }
        first
    }
}

/// Whole milliseconds.
fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// The time that long behind.
fn after(at: WallMillis, span: Duration) -> WallMillis {
    WallMillis(at.0.saturating_add(millis(span)))
}

/// Later than any deadline.
pub const NEVER: WallMillis = WallMillis(u64::MAX);
/// Namespace of the ids of what deadlines cause.
const DEADLINES: [u8; 16] = *b"ringgatedeadline";

#[cfg(test)]
mod tests {
    use super::*;

    /// A repeated command is known within the window and within the bound, and no longer.
    #[test]
    fn commands_are_remembered_for_a_while() {
        let mut seen = SeenCommands::new(Duration::from_secs(10), 3, 1);
        let second = |n: u64| WallMillis(1000 * n);
        let id = |n: u8| EventId([n; 16]);
        assert!(seen.first(second(0), id(1)));
        assert!(!seen.first(second(9), id(1)));
        assert!(seen.first(second(10), id(1)));
        for n in 2..5 {
            assert!(seen.first(second(11), id(n)));
        }
        assert!(!seen.first(second(11), id(4)));
        assert!(seen.first(second(11), id(1)), "the bound forgot it");
        assert!(seen.ids.len() <= 3);
    }

    /// An error names its code and echoes what the command brought; without a session nobody is told.
    #[test]
    fn errors_echo_the_command() {
        let sender = Sender { command: EventId([1; 16]), session: Some(SessionId([2; 16])), correlation: Some("c\"1") };
        let event = sender.error(WallMillis(1), Some("arena"), ErrorCode::RoomFull, "no").unwrap();
        let expected = r#"{"code":"room_full","message":"no","room_id":"arena","correlation_id":"c\"1"}"#;
        assert_eq!((&*event.payload, &*event.key), (expected, "arena"));
        assert_eq!(event.target, Scope::Session(SessionId([2; 16])));
        assert!(Sender { session: None, ..sender }.error(WallMillis(1), None, ErrorCode::Internal, "").is_none());
    }
}
