//! Command envelopes: a client's message on its way to a service, and how a service reads it.

use std::borrow::Cow;

use super::members::{Json, SPACE, member, text};
use super::{EnvelopeError, put_base64, put_field, put_name, put_others, put_string};
use crate::id::{ConnectionId, EventId, SessionId};
use crate::time::WallMillis;

/// How a command's payload is written (DESIGN §8).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PayloadForm {
    /// The client's fields, and those that the gateway vouches for in place of the client's own.
    Enriched,
    /// Byte for byte.
    Raw,
}

/// A client's command and who sent it.
#[derive(Clone, Copy, Debug)]
pub struct ClientCommand<'a> {
    /// [`command_id`], or a v7 id if the command has no correlation.
    pub event_id: EventId,
    /// Full type, e.g. `games.command.chess.move`.
    pub event_type: &'a str,
    /// When it was read.
    pub timestamp: WallMillis,
    /// This gateway.
    pub gateway_id: &'a str,
    /// The sender's connection.
    pub connection: ConnectionId,
    /// The sender's session.
    pub session: SessionId,
    /// The sender's correlation id.
    pub correlation: Option<&'a str>,
    /// The sender.
    pub user_id: &'a str,
    /// The sender's name.
    pub username: &'a str,
    /// The sender's roles.
    pub roles: &'a [Box<str>],
    /// The room that the gateway found the sender to be a member of; takes the place of a `room_id` of the client's.
    pub room_id: Option<&'a str>,
    /// What stands for the client's `password`, which then enters no envelope that is enriched.
    pub password: Option<&'a str>,
    /// How to write `body`.
    pub form: PayloadForm,
    /// What the client sent.
    pub body: &'a [u8],
    /// Whether `body` was found to be a JSON object, by a reader that accepts nothing else: it is not checked again.
    pub checked: bool,
}

impl<'a> ClientCommand<'a> {
    /// The body as one JSON value's text, if it is that.
    fn json(&self, json: &mut Json) -> Option<&'a str> {
        if !self.checked {
            return json.check(self.body);
        }
        debug_assert!(json.check_object(self.body).is_some(), "a checked body is an object");
        std::str::from_utf8(self.body).ok().map(|text| text.trim_matches(SPACE))
    }
}

/// The id of a command that has a correlation id: the same command sent again has it too, so that it is done once
/// (DELIVERY §7).
#[must_use]
pub fn command_id(session: SessionId, correlation: &str, bytes: &[u8]) -> EventId {
    // The length keeps the border between the two: ("1", "2x") is not ("12", "x").
    let len = (correlation.len() as u64).to_be_bytes();
    EventId::v5(&session.0, &[&len, correlation.as_bytes(), bytes])
}

/// The payload's fields that are the sender's own, as an object's text.
#[must_use]
pub fn own_fields(payload: &str, ours: &[&str]) -> String {
    let mut out = vec![b'{'];
    put_others(&mut out, payload, ours);
    out.push(b'}');
    String::from_utf8(out).expect("the fields of a text are text")
}

/// Appends the command's envelope.
pub fn put_command(out: &mut Vec<u8>, command: &ClientCommand<'_>, json: &mut Json) {
    out.reserve(ENVELOPE_BYTES + command.body.len());
    out.extend_from_slice(b"{\"event_id\":");
    put_string(out, &command.event_id.to_string());
    put_field(out, "event_type", command.event_type);
    put_field(out, "timestamp", &command.timestamp.rfc3339());
    put_field(out, "gateway_id", command.gateway_id);
    put_field(out, "connection_id", &command.connection.to_string());
    put_field(out, "session_id", &command.session.to_string());
    if let Some(correlation) = command.correlation {
        put_field(out, "correlation_id", correlation);
    }
    put_user(out, command);
    put_name(out, "payload");
    match command.form {
        PayloadForm::Enriched => put_enriched(out, command, json),
        PayloadForm::Raw => match command.json(json) {
            Some(text) => out.extend_from_slice(text.as_bytes()),
            None => {
                out.push(b'{');
                put_base64(out, command.body);
                out.push(b'}');
            }
        },
    }
    out.push(b'}');
}

fn put_user(out: &mut Vec<u8>, command: &ClientCommand<'_>) {
    put_name(out, "user");
    out.push(b'{');
    put_field(out, "user_id", command.user_id);
    put_field(out, "username", command.username);
    put_name(out, "roles");
    out.push(b'[');
    for (at, role) in command.roles.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        put_string(out, role);
    }
    out.extend_from_slice(b"]}");
}

fn put_enriched(out: &mut Vec<u8>, command: &ClientCommand<'_>, json: &mut Json) {
    let verb = command.event_type.split_once(".command.").map_or(command.event_type, |(_, verb)| verb);
    out.push(b'{');
    put_field(out, "type", verb);
    put_field(out, "user_id", command.user_id);
    put_field(out, "username", command.username);
    put_field(out, "socket_id", &command.connection.to_string());
    let replaced = [("room_id", command.room_id), ("password", command.password)];
    let replaced = replaced.map(|(name, value)| {
        value.map_or("type", |value| {
            put_field(out, name, value);
            name
        })
    });
    let ours = ["type", "user_id", "username", "socket_id", replaced[0], replaced[1]];
    match command.json(json).filter(|text| text.starts_with('{')) {
        Some(object) => put_others(out, object, &ours),
        None if command.body.is_empty() => {}
        None => put_base64(out, command.body),
    }
    out.push(b'}');
}

/// A command as a service reads it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServiceCommand<'a> {
    /// Its id.
    pub event_id: EventId,
    /// Full type.
    pub event_type: Cow<'a, str>,
    /// Who sent it.
    pub session: Option<SessionId>,
    /// The user, as the gateway vouches for it.
    pub user_id: Option<Cow<'a, str>>,
    /// The user's name; the id if there is none.
    pub username: Option<Cow<'a, str>>,
    /// The sender's correlation id, to be echoed in answers.
    pub correlation: Option<Cow<'a, str>>,
    /// The payload's text; `{}` if there is none.
    pub payload: &'a str,
}

/// Reads a command envelope.
///
/// # Errors
/// If it is not JSON, or has no usable `event_id`, `event_type` or `session_id`.
pub fn parse_command<'a>(bytes: &'a [u8], json: &mut Json) -> Result<ServiceCommand<'a>, EnvelopeError> {
    let envelope = json.check_object(bytes).ok_or(EnvelopeError::NotJson)?;
    let field = |name: &str| member(envelope, name).and_then(text);
    let id = field("event_id").ok_or_else(|| EnvelopeError::missing("event_id"))?;
    let event_id = EventId::parse(&id).ok_or_else(|| EnvelopeError::invalid("event_id", &id, "a UUID"))?;
    let event_type = field("event_type").ok_or_else(|| EnvelopeError::missing("event_type"))?;
    let session = match field("session_id") {
        None => None,
        Some(id) => {
            Some(SessionId::parse(&id).ok_or_else(|| EnvelopeError::invalid("session_id", &id, "a session's UUID"))?)
        }
    };
    let user = member(envelope, "user").unwrap_or("{}");
    let user_id = member(user, "user_id").and_then(text);
    let username = member(user, "username").and_then(text).or_else(|| user_id.clone());
    let (correlation, payload) = (field("correlation_id"), member(envelope, "payload").unwrap_or("{}"));
    Ok(ServiceCommand { event_id, event_type, session, user_id, username, correlation, payload })
}

/// An envelope's own bytes, about.
const ENVELOPE_BYTES: usize = 640;
