//! Event envelopes: a service's word on its way to clients. What a type of event means is the type table's; it is asked
//! through [`EventRules`].

use std::borrow::Cow;
use std::sync::Arc;

use super::members::{Json, member, text};
use super::{EnvelopeError, put_field, put_name, put_others, put_string};
use crate::class::Class;
use crate::frame::{self, FrameKind};
use crate::id::{ConnectionId, EventId, Scope, SessionId, is_room_id};
use crate::limits;
use crate::message::{Effect, Event};
use crate::time::WallMillis;

/// Whom a type of event is for, where the event itself does not say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Audience {
    /// The room in `room_id`, else `lobby_id`.
    Room,
    /// The user in `user_id`, else `recipient_id`.
    User,
    /// The session in `session_id`, else that of the connection in `socket_id` or `connection_id`, else all of the user in
    /// `player.user_id` or `host_id`.
    Session,
    /// All.
    Everyone,
    /// The room in the target field or the usual ones; where that is absent or null, the user.
    RoomOrUser,
}

/// What the type table says of a type of event (DESIGN §8).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EventRule<'a> {
    /// Whom it is for.
    pub to: Audience,
    /// The payload's field that names the room, user or session, in place of the usual ones.
    pub target: Option<&'a str>,
    /// `Reliable` or `Delta`.
    pub class: Class,
    /// The payload's field whose value is a delta's key; needed for deltas.
    pub coalesce: Option<&'a str>,
    /// Type and kind in D's header; type 0 = carried out, never shown.
    pub kind: FrameKind,
    /// What it does.
    pub effect: Option<EffectRule<'a>>,
}

/// What a type of event does, with the payload's field it reads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EffectRule<'a> {
    /// The session joins the room named there.
    Join(&'a str),
    /// The session leaves the room named there.
    Leave(&'a str),
    /// Earlier deltas of the key named there are forgotten.
    Forget(&'a str),
    /// The user's sessions end.
    Kick,
}

/// The event half of the type table.
pub trait EventRules {
    /// The rule of an event's type; `None` if the table has none.
    fn rule(&self, event_type: &str) -> Option<EventRule<'_>>;

    /// The session of a connection, by which a backend may name it; `None` if it is not known here, or no more.
    fn session_of(&self, _connection: ConnectionId) -> Option<SessionId> {
        None
    }
}

impl<T: EventRules + ?Sized> EventRules for Arc<T> {
    fn rule(&self, event_type: &str) -> Option<EventRule<'_>> {
        (**self).rule(event_type)
    }

    fn session_of(&self, connection: ConnectionId) -> Option<SessionId> {
        (**self).session_of(connection)
    }
}

/// Where a record stands on the bus.
#[derive(Clone, Debug)]
pub struct EventSource {
    /// Event topic.
    pub topic: Arc<str>,
    /// Partition of the topic.
    pub partition: u32,
    /// The topic's numbering.
    pub epoch: u64,
    /// Offset in the partition.
    pub offset: u64,
}

/// Reads an event envelope; `None` for what gateways say among themselves (`system.gateway.*`).
///
/// # Errors
/// If it is not JSON, of no known type, or nobody can be found whom it is for. A delta with `only` or `except` is an
/// error as well: newest values are kept for all members alike.
pub fn parse_event(
    bytes: &[u8],
    source: &EventSource,
    rules: &impl EventRules,
    json: &mut Json,
) -> Result<Option<Event>, EnvelopeError> {
    let envelope = json.check_object(bytes).ok_or(EnvelopeError::NotJson)?;
    let event_type =
        member(envelope, "event_type").and_then(text).ok_or_else(|| EnvelopeError::missing("event_type"))?;
    if event_type.starts_with("system.gateway.") {
        return Ok(None);
    }
    let rule = rules.rule(&event_type).ok_or_else(|| EnvelopeError::UnknownType(super::cut(&event_type)))?;
    let payload = member(envelope, "payload").unwrap_or("{}");
    let fields = if payload.starts_with('{') { payload } else { "{}" };
    let target = member(envelope, "target").filter(|target| *target != "null");
    let scope = match target {
        Some(target) => scope_of_target(target, rules)?,
        None => scope_of_rule(&rule, fields, rules)?,
    };
    let audience = target.map_or(Ok(None), audience)?;
    if let Some(audience) = audience.as_ref().filter(|_| rule.class == Class::Delta) {
        let field = match audience {
            frame::Audience::Only(_) => "target.only",
            frame::Audience::Except(_) => "target.except",
        };
        let given = target.and_then(|target| member(target, &field["target.".len()..])).unwrap_or_default();
        return Err(EnvelopeError::invalid(field, given, "left out: a delta goes to everybody in its room"));
    }
    let scope = scope.ok_or_else(|| EnvelopeError::NoTarget { event_type: super::cut(&event_type) })?;
    let (key, forgets) = key(&rule, fields)?;
    let id = member(envelope, "event_id").and_then(text).and_then(|id| EventId::parse(&id));
    Ok(Some(Event {
        id,
        topic: Arc::clone(&source.topic),
        partition: source.partition,
        epoch: source.epoch,
        place: source.offset + 1,
        scope,
        class: rule.class,
        key,
        forgets,
        kind: rule.kind,
        effect: effect(&rule, fields)?,
        audience: audience.map(Arc::new),
        body: body(&rule, &event_type, payload, key, forgets),
    }))
}

/// Appends an event's envelope, as the reference services send them. `payload` is a JSON object's text.
pub fn put_event(
    out: &mut Vec<u8>,
    event_id: EventId,
    event_type: &str,
    timestamp: WallMillis,
    target: &Scope,
    payload: &str,
) {
    out.extend_from_slice(b"{\"event_id\":");
    put_string(out, &event_id.to_string());
    put_field(out, "event_type", event_type);
    put_field(out, "timestamp", &timestamp.rfc3339());
    out.extend_from_slice(b",\"target\":{");
    match target {
        Scope::Room(id) => put_field(out, "room_id", id),
        Scope::User(id) => put_field(out, "user_id", id),
        Scope::Session(id) => put_field(out, "session_id", &id.to_string()),
        Scope::Everyone => out.extend_from_slice(b"\"everyone\":true"),
    }
    out.extend_from_slice(b"},\"payload\":");
    out.extend_from_slice(payload.as_bytes());
    out.push(b'}');
}

fn scope_of_target(target: &str, rules: &impl EventRules) -> Result<Option<Scope>, EnvelopeError> {
    let named = |field: &str| member(target, field).and_then(text);
    if let Some(id) = named("room_id") {
        return room("target.room_id", &id).map(Some);
    }
    if let Some(id) = named("user_id") {
        return user("target.user_id", &id).map(Some);
    }
    if let Some(id) = named("session_id") {
        return session("target.session_id", &id).map(Some);
    }
    if let Some(id) = named("connection_id") {
        let known = ConnectionId::parse(&id).and_then(|connection| rules.session_of(connection));
        let remedy = "a connection that is there and has a session";
        let known = known.ok_or_else(|| EnvelopeError::invalid("target.connection_id", &id, remedy))?;
        return Ok(Some(Scope::Session(known)));
    }
    Ok((member(target, "everyone") == Some("true")).then_some(Scope::Everyone))
}

/// Who of the scope sees the event; `only` and `except` exclude each other.
fn audience(target: &str) -> Result<Option<frame::Audience>, EnvelopeError> {
    let named = |field: &'static str| {
        let value = member(target, field).filter(|value| *value != "null");
        value.map(|value| user_ids(field, value)).transpose()
    };
    match (named("only")?, named("except")?) {
        (Some(_), Some(_)) => {
            let only = member(target, "only").unwrap_or_default();
            Err(EnvelopeError::invalid("target.only", only, "left out where `except` is given"))
        }
        (Some(only), None) => Ok(Some(frame::Audience::Only(only))),
        (None, Some(except)) if !except.is_empty() => Ok(Some(frame::Audience::Except(except))),
        (None, _) => Ok(None),
    }
}

/// A list of user ids, in ascending order; numbers are ids too.
fn user_ids(field: &str, list: &str) -> Result<Box<[Box<str>]>, EnvelopeError> {
    #[derive(serde::Deserialize)]
    #[serde(untagged)]
    enum Id {
        Text(Box<str>),
        Number(u64),
    }
    let invalid = || EnvelopeError::invalid(format!("target.{field}"), list, "a list of at most 1,024 user ids");
    if limits::is_deep_json(list.as_bytes()) {
        return Err(invalid());
    }
    let ids: Vec<Id> = simd_json::from_slice(&mut list.as_bytes().to_vec()).map_err(|_| invalid())?;
    if ids.len() > limits::AUDIENCE_IDS {
        return Err(invalid());
    }
    let text = |id| match id {
        Id::Text(text) => text,
        Id::Number(number) => number.to_string().into(),
    };
    let mut ids: Vec<Box<str>> = ids.into_iter().map(text).collect();
    ids.sort_unstable();
    ids.dedup();
    Ok(ids.into())
}

fn scope_of_rule(rule: &EventRule<'_>, fields: &str, rules: &impl EventRules) -> Result<Option<Scope>, EnvelopeError> {
    type Read = fn(&str, &str) -> Result<Scope, EnvelopeError>;
    if rule.to == Audience::RoomOrUser {
        let rooms = EventRule { to: Audience::Room, ..*rule };
        let users = EventRule { to: Audience::User, target: None, ..*rule };
        return Ok(scope_of_rule(&rooms, fields, rules)?.or(scope_of_rule(&users, fields, rules)?));
    }
    let (usual, read): (&[&str], Read) = match rule.to {
        Audience::Room => (&["room_id", "lobby_id"], room),
        Audience::User => (&["user_id", "recipient_id"], user),
        Audience::Session => return session_of_rule(rule, fields, rules),
        Audience::Everyone | Audience::RoomOrUser => return Ok(Some(Scope::Everyone)),
    };
    let usual = rule.target.as_ref().map_or(usual, std::slice::from_ref);
    for field in usual {
        if let Some(id) = member(fields, field).and_then(text) {
            return read(field, &id).map(Some);
        }
    }
    Ok(None)
}

fn session_of_rule(
    rule: &EventRule<'_>,
    fields: &str,
    rules: &impl EventRules,
) -> Result<Option<Scope>, EnvelopeError> {
    let usual = ["session_id", "socket_id", "connection_id"];
    for field in rule.target.as_ref().map_or(&usual[..], std::slice::from_ref) {
        let Some(id) = member(fields, field).and_then(text) else { continue };
        if !CONNECTION_FIELDS.contains(field) {
            return session(field, &id).map(Some);
        }
        // Of one that is gone the session may have another connection: the user is told instead.
        match ConnectionId::parse(&id).map(|connection| rules.session_of(connection)) {
            Some(Some(known)) => return Ok(Some(Scope::Session(known))),
            Some(None) => break,
            None => {}
        }
    }
    if rule.target.is_some() {
        return Ok(None);
    }
    let player = member(fields, "player").and_then(|player| member(player, "user_id")).and_then(text);
    match player.or_else(|| member(fields, "host_id").and_then(text)) {
        Some(id) => user("player.user_id", &id).map(Some),
        None => Ok(None),
    }
}

fn room(field: &str, id: &str) -> Result<Scope, EnvelopeError> {
    let valid = is_room_id(id).then(|| Scope::Room(id.into()));
    valid.ok_or_else(|| EnvelopeError::invalid(field, id, "1–64 of A-Z a-z 0-9 . _ -"))
}

fn user(field: &str, id: &str) -> Result<Scope, EnvelopeError> {
    let valid = (1..=limits::USER_ID_BYTES_MAX).contains(&id.len()).then(|| Scope::User(id.into()));
    valid.ok_or_else(|| EnvelopeError::invalid(field, id, "1–256 bytes"))
}

fn session(field: &str, id: &str) -> Result<Scope, EnvelopeError> {
    let valid = SessionId::parse(id).map(Scope::Session);
    valid.ok_or_else(|| EnvelopeError::invalid(field, id, "a session's UUID"))
}

/// The delta key, or the key to forget; and whether it forgets.
fn key(rule: &EventRule<'_>, fields: &str) -> Result<(u64, bool), EnvelopeError> {
    let (field, forgets) = match (rule.class, rule.effect) {
        (Class::Delta, _) => (rule.coalesce.ok_or_else(|| EnvelopeError::missing("coalesce of a delta"))?, false),
        (_, Some(EffectRule::Forget(field))) => (field, true),
        _ => return Ok((0, false)),
    };
    let id = needed(fields, field)?;
    Ok((delta_key(&id), forgets))
}

/// A decimal below 2^64, written as JSON writes numbers, is the key itself; any other text is hashed (PROTOCOLS D).
#[must_use]
pub fn delta_key(id: &str) -> u64 {
    let canonical = id.bytes().all(|byte| byte.is_ascii_digit()) && (id == "0" || !id.starts_with('0'));
    let number = if canonical { id.parse().ok() } else { None };
    number.unwrap_or_else(|| xxhash_rust::xxh3::xxh3_64(id.as_bytes()))
}

fn effect(rule: &EventRule<'_>, fields: &str) -> Result<Option<Effect>, EnvelopeError> {
    let named = |field| {
        let id = needed(fields, field)?;
        match room(field, &id)? {
            Scope::Room(id) => Ok(id),
            _ => unreachable!("room() makes rooms"),
        }
    };
    Ok(match rule.effect {
        Some(EffectRule::Join(field)) => Some(Effect::Join(named(field)?)),
        Some(EffectRule::Leave(field)) => Some(Effect::Leave(named(field)?)),
        Some(EffectRule::Kick) => Some(Effect::Kick),
        Some(EffectRule::Forget(_)) | None => None,
    })
}

fn needed<'a>(fields: &'a str, field: &str) -> Result<Cow<'a, str>, EnvelopeError> {
    member(fields, field).and_then(text).ok_or_else(|| EnvelopeError::missing(format!("payload.{field}")))
}

/// D's payload: the key where the frame's type or flag says there is one, then the JSON of A's frame without `at`.
fn body(rule: &EventRule<'_>, event_type: &str, payload: &str, key: u64, forgets: bool) -> Box<[u8]> {
    if rule.kind.frame_type == 0 {
        return Box::default();
    }
    let mut out = Vec::with_capacity(payload.len() + event_type.len() + 24);
    if rule.class == Class::Delta || forgets {
        out.extend_from_slice(&key.to_le_bytes());
    }
    out.extend_from_slice(b"{\"type\":");
    put_string(&mut out, if event_type == ERROR_EVENT { "system.error" } else { event_type });
    if payload.starts_with('{') {
        put_others(&mut out, payload, &["type", "at", "session_id", "socket_id"]);
    } else {
        put_name(&mut out, "payload");
        out.extend_from_slice(payload.as_bytes());
    }
    out.push(b'}');
    out.into()
}

/// Fields that name a connection.
const CONNECTION_FIELDS: [&str; 2] = ["socket_id", "connection_id"];
/// What services answer to a command they refuse; clients know it under the gateway's own name (PROTOCOLS, type table).
const ERROR_EVENT: &str = "games.event.error";
