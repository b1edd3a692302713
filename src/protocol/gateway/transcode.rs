//! A's and B's form of a stream's frames, made out of the one that homes and histories keep: dialect D's whole wire
//! frame. Total: whatever bytes a publisher sent, the outcome is valid JSON, and a reliable frame is never left out
//! without an advance.
//!
//! What comes from the bus is JSON that ringgate wrote itself ([`parse_event`](crate::protocol::envelope::parse_event)),
//! so its place is spliced in behind it; what a room's publishers sent is checked and taken apart.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::frame::FrameKind;
pub use crate::frame::Origin;
use crate::id::StreamHandle;
use crate::protocol::envelope::{delta_key, put_name, put_string};
use crate::protocol::frames::{self, Header, types};
use crate::protocol::routes::Routes;

use super::TYPE_BYTES_MAX;
use super::scan::{Span, scan_object, string_len, text};
use super::write::{digits, put_digits, text_frame, text_frame_of};

/// The form in which a connection receives a stream's frames.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum FrameForm {
    /// Dialect D's, in which they are kept.
    Frames,
    /// Dialect A's: `{"type", …fields…, "at"}`.
    Gateway,
    /// Dialect B's: `{"type": "event", "event", "at", "payload": {…fields…}}`.
    Rooms,
}

impl FrameForm {
    /// Appends this form of one wire frame of dialect D, whole. A reliable frame that the form has no words for becomes
    /// an advance; what is no frame of a stream becomes nothing, and the answer is false.
    pub fn transcode(self, d_frame: &[u8], origin: Origin, routes: &Routes, out: &mut Vec<u8>) -> bool {
        match self {
            Self::Frames => {
                out.extend_from_slice(d_frame);
                true
            }
            Self::Gateway => transcode_a(d_frame, origin, routes, out),
            Self::Rooms => transcode_b(d_frame, origin, routes, out),
        }
    }

    /// Appends an advance: a reliable frame of the stream was not for this member (DELIVERY §4).
    pub fn advance(self, out: &mut Vec<u8>, stream: StreamHandle, place: u64, prev: u64) {
        let start: &[u8] = match self {
            Self::Frames => return frames::write::advance(out, stream, place, prev),
            Self::Gateway => b"{\"type\":\"system.advance\"",
            Self::Rooms => b"{\"type\":\"state\",\"event\":\"advance\"",
        };
        let header = Header { frame_type: types::EVENT, stream, number: place, prev, ..Header::default() };
        text_frame_of(out, &[start, At::of(&header).bytes(), b"}"]);
    }
}

/// See [`FrameForm::transcode`].
pub fn transcode_a(d_frame: &[u8], origin: Origin, routes: &Routes, out: &mut Vec<u8>) -> bool {
    transcode(FrameForm::Gateway, d_frame, origin, routes, out)
}

/// See [`FrameForm::transcode`].
pub fn transcode_b(d_frame: &[u8], origin: Origin, routes: &Routes, out: &mut Vec<u8>) -> bool {
    transcode(FrameForm::Rooms, d_frame, origin, routes, out)
}

/// The payload of an unmasked wire frame.
pub(in crate::protocol) fn payload_of(wire: &[u8]) -> Option<&[u8]> {
    let header = match wire.get(1)? {
        126 => 4,
        127 => 10,
        _ => 2,
    };
    wire.get(header..)
}

fn transcode(form: FrameForm, d_frame: &[u8], origin: Origin, routes: &Routes, out: &mut Vec<u8>) -> bool {
    let Some((header, payload)) = payload_of(d_frame).and_then(Header::read) else { return false };
    match header.frame_type {
        types::ERROR | types::WORLD_DELTA..=types::EVENT => {}
        types::PLAYER_COMMAND => {
            form.advance(out, header.stream, header.number, header.prev);
            return true;
        }
        _ => return false,
    }
    let (key, body) = split_key(&header, payload);
    let at = At::of(&header);
    if origin == Origin::Relay || !splice(form, body, at.bytes(), out) {
        relayed(form, &header, key, body, at.bytes(), routes, out);
    }
    true
}

/// The u64 in front of a delta, or of an event that forgets, and what follows it.
fn split_key<'a>(header: &Header, payload: &'a [u8]) -> (u64, &'a [u8]) {
    let keyed = header.frame_type == types::WORLD_DELTA || header.flags & Header::FORGETS != 0;
    match payload.split_first_chunk() {
        Some((key, body)) if keyed => (u64::from_le_bytes(*key), body),
        _ => (0, payload),
    }
}

/// The body of an event of the bus with its place put in; false, and nothing done, if it is not one.
fn splice(form: FrameForm, body: &[u8], at: &[u8], out: &mut Vec<u8>) -> bool {
    let Some((open, b"}")) = body.split_last_chunk::<1>().map(|(open, last)| (open, last.as_slice())) else {
        return false;
    };
    let Some(name) = open.strip_prefix(TYPE_FIRST) else { return false };
    if form != FrameForm::Rooms {
        text_frame_of(out, &[open, at, b"}"]);
        return true;
    }
    let Some(len) = string_len(name) else { return false };
    let (name, fields) = (&name[..len], &name[len + 1..]);
    if name == ERROR_TYPE.as_bytes() {
        return false;
    }
    let event = name.strip_prefix(ROOM_EVENTS.as_bytes()).filter(|event| !event.is_empty()).unwrap_or(name);
    let fields = fields.strip_prefix(b",").unwrap_or(fields);
    let parts = [b"{\"type\":\"event\",\"event\":\"", event, b"\"", at, b",\"payload\":{", fields, b"}}"];
    text_frame_of(out, &parts);
    true
}

/// A frame whose payload may be anything.
fn relayed(form: FrameForm, header: &Header, key: u64, body: &[u8], at: &[u8], routes: &Routes, out: &mut Vec<u8>) {
    let object = std::str::from_utf8(body).ok().and_then(|text| Own::read(text).map(|own| (text, own)));
    let own_type = object.and_then(|(_, own)| own.event_type).and_then(text);
    let name = type_name(header, own_type, routes);
    let delta = header.frame_type == types::WORLD_DELTA;
    let own_key = object.and_then(|(_, own)| own.entity_id).and_then(text);
    let put_key = delta && own_key.is_none_or(|id| delta_key(&id) != key);
    let error = form == FrameForm::Rooms && name == ERROR_TYPE;
    text_frame(out, |out| {
        out.push(b'{');
        match form {
            FrameForm::Rooms => put_rooms_head(out, &name, object.and_then(|(_, own)| own.correlation_id), at),
            FrameForm::Gateway | FrameForm::Frames => {
                put_name(out, "type");
                put_string(out, &name);
            }
        }
        if put_key {
            put_name(out, "entity_id");
            out.push(b'"');
            put_digits(out, key);
            out.push(b'"');
        }
        match object {
            Some((text, _)) => put_fields(out, text, put_key, error),
            None => put_base64(out, body),
        }
        if form == FrameForm::Rooms {
            out.extend_from_slice(b"}}");
        } else {
            out.extend_from_slice(at);
            out.push(b'}');
        }
    });
}

/// B's frame up to the inside of its payload.
fn put_rooms_head(out: &mut Vec<u8>, name: &str, correlation_id: Option<&str>, at: &[u8]) {
    if name == ERROR_TYPE {
        out.extend_from_slice(b"\"type\":\"error\"");
        if let Some(correlation_id) = correlation_id {
            put_name(out, "correlation_id");
            out.extend_from_slice(correlation_id.as_bytes());
        }
    } else {
        let event = name.strip_prefix(ROOM_EVENTS).filter(|event| !event.is_empty()).unwrap_or(name);
        out.extend_from_slice(b"\"type\":\"event\",\"event\":");
        put_string(out, event);
    }
    out.extend_from_slice(at);
    out.extend_from_slice(b",\"payload\":{");
}

/// The fields of a checked object, as they stand, except those that are the gateway's or say whom it is for.
fn put_fields(out: &mut Vec<u8>, object: &str, without_key: bool, without_correlation: bool) {
    let ours = |span: &Span| {
        REPLACED.iter().any(|name| span.is(name, object))
            || (without_key && span.is("entity_id", object))
            || (without_correlation && span.is("correlation_id", object))
    };
    let scanned = scan_object(object, |span| {
        if !ours(span) {
            put_name(out, span.key(object));
            out.extend_from_slice(span.value(object).as_bytes());
        }
        Ok(())
    });
    debug_assert!(scanned.is_ok(), "the object was checked before");
}

fn put_base64(out: &mut Vec<u8>, bytes: &[u8]) {
    put_name(out, "data_base64");
    out.push(b'"');
    let start = out.len();
    out.resize(start + bytes.len().div_ceil(3) * 4, 0);
    let encoded = STANDARD.encode_slice(bytes, &mut out[start..]);
    debug_assert_eq!(encoded, Ok(out.len() - start), "padded base64 has four characters for three bytes");
    out.push(b'"');
}

/// What a publisher's object says that its frame's name, key and form depend on; values as they stand.
#[derive(Clone, Copy, Default)]
struct Own<'a> {
    event_type: Option<&'a str>,
    entity_id: Option<&'a str>,
    correlation_id: Option<&'a str>,
}

impl<'a> Own<'a> {
    /// `None` if the text is not a JSON object.
    fn read(text: &'a str) -> Option<Self> {
        let mut own = Self::default();
        scan_object(text, |span| {
            let fields = [
                ("type", &mut own.event_type),
                ("entity_id", &mut own.entity_id),
                ("correlation_id", &mut own.correlation_id),
            ];
            for (name, place) in fields {
                if span.is(name, text) {
                    *place = Some(span.value(text));
                }
            }
            Ok(())
        })
        .ok()?;
        Some(own)
    }
}

/// The type of a publisher's frame. The table's full name for its type and kind; where the table has only a prefix or
/// nothing, the payload's own type if that does not contradict the table; else the prefix, or a name for anything.
fn type_name<'a>(header: &Header, own: Option<Cow<'a, str>>, routes: &'a Routes) -> Cow<'a, str> {
    if header.frame_type == types::ERROR {
        return ERROR_TYPE.into();
    }
    let kind = FrameKind { frame_type: header.frame_type, kind: header.kind };
    let stem = match routes.event_of_kind(kind).map(|row| &*row.pattern) {
        Some(pattern) => match pattern.strip_suffix(".*") {
            Some(stem) => Some(stem),
            None => return pattern.into(),
        },
        None => None,
    };
    let agrees = |own: &str| match routes.event(own) {
        // A command that is relayed without a kind of its own.
        Some(row) => row.kind.map_or(kind.frame_type == types::EVENT && kind.kind == 0, |own| own == kind),
        None => stem.is_none() && !own.starts_with("system."),
    };
    if let Some(own) = own.filter(|own| is_type_name(own) && agrees(own)) {
        return own;
    }
    let default = match header.frame_type {
        types::WORLD_DELTA => "world.delta",
        types::BATTLE_TIMELINE => "battle.event.timeline",
        types::BATTLE_END => "battle.event.end",
        _ => stem.unwrap_or(RELAYED_TYPE),
    };
    default.into()
}

fn is_type_name(text: &str) -> bool {
    let valid = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    (1..=TYPE_BYTES_MAX).contains(&text.len()) && text.bytes().all(valid)
}

/// `,"at":[handle,offset,prev]`, of a delta without `prev`.
struct At {
    bytes: [u8; AT_BYTES],
    len: usize,
}

impl At {
    fn of(header: &Header) -> Self {
        let mut at = Self { bytes: [0; AT_BYTES], len: 0 };
        at.put(b",\"at\":[");
        at.put(digits(u64::from(header.stream.0), &mut [0; 20]));
        at.put(b",");
        at.put(digits(header.number, &mut [0; 20]));
        if header.frame_type != types::WORLD_DELTA {
            at.put(b",");
            at.put(digits(header.prev, &mut [0; 20]));
        }
        at.put(b"]");
        at
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    fn put(&mut self, bytes: &[u8]) {
        self.bytes[self.len..self.len + bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
    }
}

/// `,"at":[`, a u32 of 10 digits, two u64 of 20, two commas and a bracket.
const AT_BYTES: usize = 7 + 10 + 20 + 20 + 2 + 1;
/// How the body of every event of the bus begins.
const TYPE_FIRST: &[u8] = b"{\"type\":\"";
const ERROR_TYPE: &str = "system.error";
/// What B leaves out of its events' names.
const ROOM_EVENTS: &str = "rooms.event.";
/// A publisher's event that has no name, neither in the type table nor of its own.
const RELAYED_TYPE: &str = "relay.event";
/// Fields of a payload that are the gateway's, or for routing only (PROTOCOLS A).
const REPLACED: [&str; 4] = ["type", "at", "session_id", "socket_id"];
