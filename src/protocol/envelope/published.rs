//! What outside backends send and read: event envelopes, checked before the bus has them and completed with what may be
//! left out; records of a topic, a line each.

use std::sync::Arc;

use super::event::{EventRule, EventRules, EventSource, parse_event};
use super::members::{Json, given_twice, member, text};
use super::{EnvelopeError, put_base64, put_field, put_name, put_others};
use crate::id::{ConnectionId, EventId, Scope, SessionId, is_room_id};
use crate::limits;
use crate::time::WallMillis;

/// An event that may be appended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Published {
    /// The envelope's, or that of its `idempotency_key`, or a fresh one.
    pub event_id: EventId,
    /// Full type.
    pub event_type: Box<str>,
    /// What orders it among the others: the room that it is for or names, else the user or session.
    pub key: Box<str>,
    /// The complete envelope.
    pub value: Vec<u8>,
}

/// Checks an envelope and completes it: an `event_id` (`fresh`, if nothing else says one) and a `timestamp` are added
/// where they are missing, `idempotency_key` is taken out; all else stays byte for byte.
///
/// # Errors
/// Whatever would make it useless later, named by its field: what [`parse_event`] says, a missing payload, an id that is
/// no UUID, a key that is no text.
pub fn publish_event(
    bytes: &[u8],
    rules: &impl EventRules,
    now: WallMillis,
    fresh: EventId,
    json: &mut Json,
) -> Result<Published, EnvelopeError> {
    let envelope = json.check_object(bytes).ok_or(EnvelopeError::NotJson)?;
    if let Some(name) = given_twice(envelope, &NAMES) {
        return Err(EnvelopeError::invalid(name, "given twice", "one value"));
    }
    let source = EventSource { topic: Arc::from(""), partition: 0, epoch: 0, offset: 0 };
    let event = parse_event(bytes, &source, &AnyConnection(rules), json)?;
    let event_type =
        member(envelope, "event_type").and_then(text).ok_or_else(|| EnvelopeError::missing("event_type"))?;
    let remedy = "another type: this one is the gateways' own";
    let event = event.ok_or_else(|| EnvelopeError::invalid("event_type", &event_type, remedy))?;
    let payload = member(envelope, "payload").ok_or_else(|| EnvelopeError::missing("payload"))?;
    let event_id = id(envelope, &event_type)?.unwrap_or(fresh);
    let mut value = Vec::with_capacity(envelope.len() + 128);
    value.push(b'{');
    put_field(&mut value, "event_id", &event_id.to_string());
    let timestamp = member(envelope, "timestamp").filter(|value| *value != "null");
    match timestamp {
        None => {
            put_field(&mut value, "timestamp", &now.rfc3339());
            put_others(&mut value, envelope, &["event_id", "idempotency_key", "timestamp"]);
        }
        Some(text) if text.starts_with('"') => put_others(&mut value, envelope, &["event_id", "idempotency_key"]),
        Some(other) => return Err(EnvelopeError::invalid("timestamp", other, "a text, RFC 3339")),
    }
    value.push(b'}');
    let room = member(payload, "room_id").and_then(text).filter(|room| is_room_id(room));
    let key = match (event.scope, room) {
        (Scope::Room(room), _) => room.as_ref().into(),
        (_, Some(room)) => room.as_ref().into(),
        (Scope::User(user), None) => user.as_ref().into(),
        (Scope::Session(session), None) => session.to_string().into(),
        (Scope::Everyone, None) => "everyone".into(),
    };
    Ok(Published { event_id, event_type: event_type.as_ref().into(), key, value })
}

/// Fields of an envelope that mean something.
const NAMES: [&str; 6] = ["event_id", "idempotency_key", "event_type", "timestamp", "target", "payload"];

/// Rules by which every connection may have a session: which has one is known where it is, when the event comes there.
struct AnyConnection<'a, R>(&'a R);

impl<R: EventRules> EventRules for AnyConnection<'_, R> {
    fn rule(&self, event_type: &str) -> Option<EventRule<'_>> {
        self.0.rule(event_type)
    }

    fn session_of(&self, connection: ConnectionId) -> Option<SessionId> {
        // What is for one connection has one key.
        Some(SessionId(connection.0))
    }
}

/// Appends a record as a line of JSON: its place (offset + 1), then its envelope's members as they stand; what is no JSON
/// object appears as `data_base64`.
pub fn put_record(out: &mut Vec<u8>, place: u64, record: &[u8], json: &mut Json) {
    out.extend_from_slice(b"{\"place\":");
    out.extend_from_slice(place.to_string().as_bytes());
    let from = out.len();
    match json.check_object(record) {
        Some(envelope) => put_others(out, envelope, &["place"]),
        None => put_base64(out, record),
    }
    // In valid JSON line ends stand between tokens only.
    out[from..].iter_mut().filter(|byte| matches!(**byte, b'\n' | b'\r')).for_each(|byte| *byte = b' ');
    out.extend_from_slice(b"}\n");
}

/// Appends `"payload":…`: the bytes as they stand if they are JSON, else `"data_base64":"…"`.
pub fn put_payload(out: &mut Vec<u8>, payload: &[u8], json: &mut Json) {
    match json.check(payload) {
        Some(text) => {
            put_name(out, "payload");
            out.extend_from_slice(text.as_bytes());
        }
        None => put_base64(out, payload),
    }
}

/// The id that the envelope says, or that its key makes: the same key and type name the same event.
fn id(envelope: &str, event_type: &str) -> Result<Option<EventId>, EnvelopeError> {
    let field = |name| member(envelope, name).filter(|value| *value != "null");
    match (field("event_id"), field("idempotency_key")) {
        (None, None) => Ok(None),
        (Some(value), None) => {
            let id = text(value).and_then(|id| EventId::parse(&id));
            id.map(Some).ok_or_else(|| EnvelopeError::invalid("event_id", value, "a UUID"))
        }
        (None, Some(value)) => {
            let key = text(value).filter(|key| (1..=limits::IDEMPOTENCY_KEY_BYTES).contains(&key.len()));
            let key = key.ok_or_else(|| EnvelopeError::invalid("idempotency_key", value, "a text of 1–256 bytes"))?;
            // The length keeps the border between the two.
            let len = (event_type.len() as u64).to_be_bytes();
            Ok(Some(EventId::v5(&IDEMPOTENCY, &[&len, event_type.as_bytes(), key.as_bytes()])))
        }
        (Some(_), Some(value)) => {
            Err(EnvelopeError::invalid("idempotency_key", value, "left out where there is an event_id"))
        }
    }
}

/// Namespace of the ids that idempotency keys make.
const IDEMPOTENCY: [u8; 16] = *b"ringgate-idempot";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::routes::Routes;

    const FRESH: EventId = EventId([7; 16]);

    fn publish(text: &str) -> Result<Published, EnvelopeError> {
        publish_event(text.as_bytes(), &Routes::default(), WallMillis(0), FRESH, &mut Json::default())
    }

    /// What is missing is added, what is there stays as it is written, and the key is the room's if there is one.
    #[test]
    fn envelopes_are_completed() {
        let event = publish(r#" {"event_type":"games.event.x","payload":{"room_id":"a","n":1.50}} "#).unwrap();
        let expected = format!(
            r#"{{"event_id":"{FRESH}","timestamp":"1970-01-01T00:00:00.000Z","event_type":"games.event.x","payload":{{"room_id":"a","n":1.50}}}}"#
        );
        assert_eq!(String::from_utf8(event.value).unwrap(), expected);
        assert_eq!((event.event_id, &*event.event_type, &*event.key), (FRESH, "games.event.x", "a"));
        let id = EventId([1; 16]);
        let text = format!(
            r#"{{"event_id":"{id}","timestamp":"then","event_type":"games.event.error","target":{{"user_id":"u"}},"payload":{{}}}}"#
        );
        let event = publish(&text).unwrap();
        assert_eq!((event.event_id, &*event.key), (id, "u"));
        assert_eq!(String::from_utf8(event.value).unwrap(), text);
        let event = publish(r#"{"event_type":"games.event.error","target":{"user_id":"u"},"payload":{"room_id":"a"}}"#);
        assert_eq!(&*event.unwrap().key, "a");
    }

    /// The same key makes the same id for the same type, and only then; it does not reach the bus.
    #[test]
    fn keys_make_ids() {
        let of = |event_type: &str, key: &str| {
            let text = format!(
                r#"{{"idempotency_key":"{key}","event_type":"{event_type}","target":{{"everyone":true}},"payload":{{}}}}"#
            );
            publish(&text).unwrap()
        };
        let first = of("games.event.x", "1");
        assert_eq!(first, of("games.event.x", "1"));
        assert_ne!(first.event_id, of("games.event.x", "2").event_id);
        assert_ne!(first.event_id, of("games.event.y", "1").event_id);
        assert_eq!(first.event_id.0[6] >> 4, 5);
        assert!(!String::from_utf8(first.value).unwrap().contains("idempotency"));
    }

    /// A record is one line with its place in front, whatever the record is.
    #[test]
    fn records_are_lines() {
        let line = |record: &[u8]| {
            let mut out = Vec::new();
            put_record(&mut out, 5, record, &mut Json::default());
            String::from_utf8(out).unwrap()
        };
        assert_eq!(
            line(b"{\"place\":1,\n \"a\":[1,\r\n2],\"b\":\"\\n\"}"),
            "{\"place\":5,\"a\":[1,  2],\"b\":\"\\n\"}\n"
        );
        assert_eq!(line(b"{}"), "{\"place\":5}\n");
        assert_eq!(line(b"\n"), "{\"place\":5,\"data_base64\":\"Cg==\"}\n");
        assert_eq!(line(b"[1]"), "{\"place\":5,\"data_base64\":\"WzFd\"}\n");
    }

    /// Every fault is named by its field.
    #[test]
    fn faults_are_named() {
        let long = format!(r#"{{"event_type":"games.event.x","idempotency_key":"{}"}}"#, "k".repeat(257));
        let long = long.replace("\"}", "\",\"payload\":{\"room_id\":\"a\"}}");
        for (text, field) in [
            ("nonsense", None),
            ("[]", None),
            ("{}", Some("event_type")),
            (r#"{"event_type":"nobody.knows"}"#, Some("event_type")),
            (r#"{"event_type":"system.gateway.up","payload":{}}"#, Some("event_type")),
            (r#"{"event_type":"games.event.x","payload":{}}"#, Some("target")),
            (r#"{"event_type":"games.event.x","target":{"room_id":"a"}}"#, Some("payload")),
            (r#"{"event_type":"games.event.x","target":{"room_id":"a b"},"payload":{}}"#, Some("target.room_id")),
            (r#"{"event_type":"games.event.x","payload":{"room_id":"a b"}}"#, Some("room_id")),
            (
                r#"{"event_type":"games.event.lobby_joined","target":{"user_id":"u"},"payload":{}}"#,
                Some("payload.room_id"),
            ),
            (r#"{"event_id":"1","event_type":"games.event.x","payload":{"room_id":"a"}}"#, Some("event_id")),
            (r#"{"timestamp":5,"event_type":"games.event.x","payload":{"room_id":"a"}}"#, Some("timestamp")),
            (
                r#"{"idempotency_key":"","event_type":"games.event.x","payload":{"room_id":"a"}}"#,
                Some("idempotency_key"),
            ),
            (
                r#"{"idempotency_key":{},"event_type":"games.event.x","payload":{"room_id":"a"}}"#,
                Some("idempotency_key"),
            ),
            (&long, Some("idempotency_key")),
        ] {
            assert_eq!(publish(text).unwrap_err().field(), field, "{text}");
        }
        let both = r#"{"event_id":"00000000-0000-0000-0000-000000000001","idempotency_key":"k","event_type":"games.event.x","payload":{"room_id":"a"}}"#;
        assert_eq!(publish(both).unwrap_err().field(), Some("idempotency_key"));
    }
}
