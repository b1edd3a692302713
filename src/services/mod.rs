//! The reference services: `(state, now, input) → events + next deadline`. Sans-IO and deterministic, so that what is
//! repeated after a restart yields the same events under the same ids.

pub mod battle;

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use serde::Serialize;

use crate::id::{EventId, Scope, SessionId};
use crate::message::ErrorCode;
use crate::time::Monotonic;

/// A service's word on its way to the bus.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServiceEvent {
    /// Derived from the command that caused it (DELIVERY §7).
    pub id: EventId,
    /// Full type, e.g. `battle.event.timeline`.
    pub event_type: &'static str,
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
    pub fn error(&self, room: Option<&str>, code: ErrorCode, message: &str) -> Option<ServiceEvent> {
        let session = self.session?;
        let body = Refusal { code: code.name(), message, room_id: room, correlation_id: self.correlation };
        Some(ServiceEvent {
            id: EventId::v5(&self.command.0, &[b"error"]),
            event_type: "games.event.error",
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

/// The ids of commands done lately, so that a repeated one is done once (DELIVERY §7).
#[derive(Debug)]
pub struct SeenCommands {
    ids: HashSet<EventId, foldhash::quality::FixedState>,
    order: VecDeque<(Monotonic, EventId)>,
    window: Duration,
    max: usize,
}

impl SeenCommands {
    /// Remembers an id for `window`, at most `max` of them (≥ 1); `seed` is that of the hashes.
    #[must_use]
    pub fn new(window: Duration, max: usize, seed: u64) -> Self {
        let ids = HashSet::with_hasher(foldhash::quality::FixedState::with_seed(seed));
        Self { ids, order: VecDeque::new(), window, max }
    }

    /// Whether the command is seen for the first time within the window.
    pub fn first(&mut self, now: Monotonic, id: EventId) -> bool {
        while let Some(&(at, oldest)) = self.order.front() {
            if self.order.len() < self.max && now.since(at) < self.window {
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A repeated command is known within the window and within the bound, and no longer.
    #[test]
    fn commands_are_remembered_for_a_while() {
        let (mut seen, second) = (SeenCommands::new(Duration::from_secs(10), 3, 1), Duration::from_secs(1));
        let id = |n: u8| EventId([n; 16]);
        assert!(seen.first(Monotonic::ZERO, id(1)));
        assert!(!seen.first(Monotonic::ZERO + 9 * second, id(1)));
        assert!(seen.first(Monotonic::ZERO + 10 * second, id(1)));
        for n in 2..5 {
            assert!(seen.first(Monotonic::ZERO + 11 * second, id(n)));
        }
        assert!(!seen.first(Monotonic::ZERO + 11 * second, id(4)));
        assert!(seen.first(Monotonic::ZERO + 11 * second, id(1)), "the bound forgot it");
        assert!(seen.ids.len() <= 3);
    }

    /// An error names its code and echoes what the command brought; without a session nobody is told.
    #[test]
    fn errors_echo_the_command() {
        let sender = Sender { command: EventId([1; 16]), session: Some(SessionId([2; 16])), correlation: Some("c\"1") };
        let event = sender.error(Some("arena"), ErrorCode::RoomFull, "no").unwrap();
        let expected = r#"{"code":"room_full","message":"no","room_id":"arena","correlation_id":"c\"1"}"#;
        assert_eq!((&*event.payload, &*event.key), (expected, "arena"));
        assert_eq!(event.target, Scope::Session(SessionId([2; 16])));
        assert!(Sender { session: None, ..sender }.error(None, ErrorCode::Internal, "").is_none());
    }
}
