//! The reference services: `(state, now, input) → events + next deadline`. Sans-IO and deterministic, so that what is
//! repeated after a restart yields the same events under the same ids.

pub mod battle;

use serde::Serialize;

use crate::id::{EventId, Scope, SessionId};
use crate::message::ErrorCode;
pub use crate::seen::SeenIds as SeenCommands;

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

#[cfg(test)]
mod tests {
    use super::*;

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
