//! Dialect A, gateway JSON (PROTOCOLS "A. Gateway JSON"): one WebSocket text message = one JSON object with a `type`.
//!
//! [`parse`] reads what clients send: it checks the whole text, for a half-checked message must not reach a backend, and
//! reads only the fields that routing needs. [`mod@write`] holds the gateway's own frames, [`transcode`] makes A's and B's
//! form of a stream's frames out of dialect D's. Nothing here changes its input, so a message that has to wait can be
//! read again; nothing keeps state, reads a clock, recurses or panics on input.

pub mod scan;
pub mod transcode;
pub mod write;

use std::borrow::Cow;
use std::fmt;

use super::envelope::members::{member, members};
use crate::limits;
use crate::message::Position;

pub use scan::Fields;
use scan::{Object, unescape};
pub(super) use transcode::payload_of;
pub use transcode::{FrameForm, Origin};

/// What a client sent.
#[derive(PartialEq, Eq, Debug)]
pub enum Inbound<'a> {
    /// `system.authenticate`: authenticate, resume, or refresh the token.
    Authenticate(Authenticate<'a>),
    /// `system.heartbeat`.
    Heartbeat,
    /// `system.delta_ack`: credit.
    DeltaAck {
        /// Deltas received on this connection so far.
        count: u64,
    },
    /// Anything else; whether the type table has the type is not checked.
    Command(Command<'a>),
}

/// `system.authenticate`.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Authenticate<'a> {
    /// JWT; not needed to resume unless the old one expired. At most `limits::TOKEN_BYTES_MAX`.
    pub token: Option<Cow<'a, str>>,
    /// The resume token of the last `system.authenticated`; not checked to be one.
    pub resume: Option<Cow<'a, str>>,
    /// Where the client stopped; at most `limits::POSITIONS_MAX`.
    pub positions: Vec<Position>,
    /// Unacknowledged deltas that may be in flight; absent = no credit is kept.
    pub delta_window: Option<u32>,
    /// To be echoed in an error.
    pub correlation_id: Option<Cow<'a, str>>,
}

/// A command, for a backend or for the gateway.
#[derive(PartialEq, Eq, Debug)]
pub struct Command<'a> {
    /// Its full type, 1–[`TYPE_BYTES_MAX`] bytes.
    pub event_type: Cow<'a, str>,
    /// 1–[`CORRELATION_BYTES_MAX`] bytes; an empty one counts as none, or all who send it would repeat one command.
    pub correlation_id: Option<Cow<'a, str>>,
    /// The whole object as it was sent, valid JSON, without surrounding space.
    pub body: &'a str,
    object: Object<'a>,
}

impl<'a> Command<'a> {
    /// A field on the top level as it stands, valid JSON.
    #[must_use]
    pub fn value(&self, name: &str) -> Option<&'a str> {
        self.object.value(name)
    }

    /// What a field on the top level says: a string, or a number's digits, since ids may be sent as numbers. `None` if
    /// it is absent or anything else. No length is checked.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<Cow<'a, str>> {
        self.object.text(name)
    }
}

/// Why a client's message cannot be read; it is answered `bad_request` with this as its message, and the third within
/// 10 s closes 4400.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Malformed {
    /// Not UTF-8.
    Utf8 {
        /// Bytes that are.
        at: usize,
    },
    /// JSON, perhaps, but no object.
    NotAnObject,
    /// Not JSON, nested deeper than [`scan::DEPTH_MAX`], or with a number that readers would not agree upon.
    Syntax {
        /// Where, in bytes.
        at: usize,
        /// What had to stand there.
        expected: &'static str,
    },
    /// More than [`scan::FIELDS_MAX`] fields on the top level.
    TooManyFields,
    /// A field's name is longer than [`scan::NAME_BYTES_MAX`].
    LongName,
    /// Two fields of one name on the top level: readers would differ in which one they take.
    Duplicate {
        /// The name, cut to 64 characters.
        field: String,
    },
    /// A field has the wrong type or size, or is missing.
    Field {
        /// Its name.
        field: &'static str,
        /// What it must be.
        expected: &'static str,
    },
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Utf8 { at } => write!(f, "not UTF-8 at byte {at}"),
            Self::NotAnObject => f.write_str("not a JSON object; send {\"type\": …}"),
            Self::Syntax { at, expected } => write!(f, "malformed JSON: expected {expected} at byte {at}"),
            Self::TooManyFields => write!(f, "more than {} fields on the top level; nest them", scan::FIELDS_MAX),
            Self::LongName => write!(f, "a field's name is longer than {} bytes", scan::NAME_BYTES_MAX),
            Self::Duplicate { field } => write!(f, "{field}: given twice; give it once"),
            Self::Field { field, expected } => write!(f, "{field}: expected {expected}"),
        }
    }
}

impl std::error::Error for Malformed {}

/// Reads a client's message. `fields` is scratch space, kept by the caller so that nothing is allocated at rest.
///
/// # Errors
/// Whatever is not a message; see [`Malformed`].
pub fn parse<'a>(text: &'a [u8], fields: &'a mut Fields) -> Result<Inbound<'a>, Malformed> {
    let text = std::str::from_utf8(text).map_err(|error| Malformed::Utf8 { at: error.valid_up_to() })?;
    let object = fields.read(text)?;
    let event_type = event_type(&object)?;
    Ok(match &*event_type {
        "system.heartbeat" => Inbound::Heartbeat,
        "system.delta_ack" => Inbound::DeltaAck { count: count(&object)? },
        "system.authenticate" => Inbound::Authenticate(authenticate(&object)?),
        _ => {
            let correlation_id = correlation(&object)?;
            Inbound::Command(Command { event_type, correlation_id, body: text.trim_ascii(), object })
        }
    })
}

/// Bytes of a `type`: twice the longest that anybody has named.
pub const TYPE_BYTES_MAX: usize = 128;
/// Bytes of a `correlation_id`: a UUID with a prefix.
pub const CORRELATION_BYTES_MAX: usize = 64;
/// Bytes of a `resume` token; ours have 22.
pub const RESUME_BYTES_MAX: usize = 64;
/// Bytes of a stream's name in `positions`: a topic and partition, and the longest user id.
pub const STREAM_BYTES_MAX: usize = 256 + limits::USER_ID_BYTES_MAX;

fn event_type<'a>(object: &Object<'a>) -> Result<Cow<'a, str>, Malformed> {
    let name = object.string("type").filter(|name| (1..=TYPE_BYTES_MAX).contains(&name.len()));
    name.ok_or(Malformed::Field { field: "type", expected: "a string of 1-128 bytes" })
}

fn correlation<'a>(object: &Object<'a>) -> Result<Option<Cow<'a, str>>, Malformed> {
    let expected = "a string of at most 64 bytes";
    if object.is_absent("correlation_id") {
        return Ok(None);
    }
    let id = object.text("correlation_id").filter(|id| id.len() <= CORRELATION_BYTES_MAX);
    let id = id.ok_or(Malformed::Field { field: "correlation_id", expected })?;
    Ok(Some(id).filter(|id| !id.is_empty()))
}

fn count(object: &Object<'_>) -> Result<u64, Malformed> {
    let count = object.value("count").and_then(|value| value.parse().ok());
    count.ok_or(Malformed::Field { field: "count", expected: "the number of deltas received" })
}

fn authenticate<'a>(object: &Object<'a>) -> Result<Authenticate<'a>, Malformed> {
    let token = "a string of at most 8192 bytes";
    Ok(Authenticate {
        token: string(object, "token", limits::TOKEN_BYTES_MAX, token)?,
        resume: string(object, "resume", RESUME_BYTES_MAX, "a string of at most 64 bytes")?,
        positions: object.value("positions").map_or(Ok(Vec::new()), positions)?,
        delta_window: delta_window(object)?,
        correlation_id: correlation(object)?,
    })
}

fn string<'a>(
    object: &Object<'a>,
    field: &'static str,
    bytes_max: usize,
    expected: &'static str,
) -> Result<Option<Cow<'a, str>>, Malformed> {
    if object.is_absent(field) {
        return Ok(None);
    }
    let text = object.string(field).filter(|text| text.len() <= bytes_max);
    text.map(Some).ok_or(Malformed::Field { field, expected })
}

fn delta_window(object: &Object<'_>) -> Result<Option<u32>, Malformed> {
    let Some(value) = object.value("delta_window").filter(|value| *value != "null") else { return Ok(None) };
    let expected = "a whole number below 2^32";
    value.parse().map(Some).map_err(|_| Malformed::Field { field: "delta_window", expected })
}

fn positions(value: &str) -> Result<Vec<Position>, Malformed> {
    let wrong = |expected| Malformed::Field { field: "positions", expected };
    if value == "null" {
        return Ok(Vec::new());
    }
    if !value.starts_with('{') {
        return Err(wrong("an object {\"<stream>\": {\"epoch\", \"offset\"}}"));
    }
    let mut positions = Vec::new();
    for (stream, entry) in members(value) {
        if positions.len() == limits::POSITIONS_MAX {
            return Err(wrong("at most 1024 streams; send those of joined rooms"));
        }
        let stream = unescape(stream);
        if stream.len() > STREAM_BYTES_MAX {
            return Err(wrong("stream names of at most 512 bytes"));
        }
        let number = |name| member(entry, name).and_then(|value| value.parse().ok());
        let (epoch, place) = number("epoch").zip(number("offset")).ok_or(wrong("epoch and offset as whole numbers"))?;
        positions.push(Position { stream: stream.into(), epoch, place });
    }
    Ok(positions)
}

const _: () = assert!(limits::TOKEN_BYTES_MAX == 8192 && limits::POSITIONS_MAX == 1024 && STREAM_BYTES_MAX == 512);

#[cfg(test)]
mod golden;
#[cfg(test)]
mod tests;
