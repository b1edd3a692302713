//! Envelopes of the bus (PROTOCOLS "Bus topics and envelopes"): commands on their way to services, events on their way
//! to clients.
//!
//! What the gateway does not read it passes on byte for byte: a payload's fields are cut out of its text and spliced
//! into the new one, so that numbers keep their digits. simd-json says first whether the text is JSON at all; what walks
//! over it afterwards ([`members`]) never recurses, so nesting costs nothing but the bytes.
//!
//! Fields that the gateway vouches for (`user_id`, `room_id`, …) are removed from what a client sent before its own are
//! written, however the client spelled their names.

pub mod command;
pub mod event;
pub mod members;
pub mod published;

use std::fmt;

pub use command::{ClientCommand, PayloadForm, ServiceCommand, command_id, own_fields, parse_command, put_command};
pub use event::{Audience, EffectRule, EventRule, EventRules, EventSource, delta_key, parse_event, put_event};
pub use members::Json;
pub use published::{Published, publish_event, put_payload, put_record};

/// Why an envelope cannot be used. Such a one is kept in the topic `ringgate.dead`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum EnvelopeError {
    /// Not a JSON object.
    NotJson,
    /// A field that is needed is not there.
    Missing {
        /// The field's path.
        field: String,
    },
    /// A field has a value that it cannot have.
    Invalid {
        /// The field's path.
        field: String,
        /// What it has, cut to 64 characters.
        value: String,
        /// What it may have.
        remedy: &'static str,
    },
    /// The type table has no entry for the event's type.
    UnknownType(String),
    /// Nothing says whom the event is for.
    NoTarget {
        /// The event's type.
        event_type: String,
    },
}

impl EnvelopeError {
    /// The path of the field that is at fault; `None` if it is the whole.
    #[must_use]
    pub fn field(&self) -> Option<&str> {
        match self {
            Self::NotJson => None,
            Self::Missing { field } | Self::Invalid { field, .. } => Some(field),
            Self::UnknownType(_) => Some("event_type"),
            Self::NoTarget { .. } => Some("target"),
        }
    }

    fn missing(field: impl Into<String>) -> Self {
        Self::Missing { field: field.into() }
    }

    fn invalid(field: impl Into<String>, value: &str, remedy: &'static str) -> Self {
        Self::Invalid { field: field.into(), value: cut(value), remedy }
    }
}

impl fmt::Display for EnvelopeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotJson => f.write_str("the record is not a JSON object; send an envelope in UTF-8"),
            Self::Missing { field } => write!(f, "{field} is missing; the envelope needs it"),
            Self::Invalid { field, value, remedy } => write!(f, "{field} is {value:?}; it must be {remedy}"),
            Self::UnknownType(event_type) => {
                write!(f, "event_type is {event_type:?}; add an [[event]] entry for it to the type table")
            }
            Self::NoTarget { event_type } => {
                write!(
                    f,
                    "{event_type} names no target; give it \"target\" or the field that its [[event]] entry reads"
                )
            }
        }
    }
}

impl std::error::Error for EnvelopeError {}

/// The first 64 characters.
fn cut(text: &str) -> String {
    text.chars().take(64).collect()
}

/// Appends a JSON string.
pub fn put_string(out: &mut Vec<u8>, text: &str) {
    simd_json::to_writer(out, text).expect("writing to memory does not fail");
}

/// Appends `"name":"text"` behind a comma if something stands before it.
pub(super) fn put_field(out: &mut Vec<u8>, name: &str, text: &str) {
    put_name(out, name);
    put_string(out, text);
}

/// Appends `"name":` behind a comma if something stands before it. `name` needs no escaping.
pub(super) fn put_name(out: &mut Vec<u8>, name: &str) {
    if !matches!(out.last(), None | Some(b'{')) {
        out.push(b',');
    }
    out.push(b'"');
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
}

/// Appends an object's fields, as they stand there, except those of these names.
pub(super) fn put_others(out: &mut Vec<u8>, object: &str, except: &[&str]) {
    for (key, value) in members::members(object) {
        if !except.iter().any(|name| members::names(key, name)) {
            put_name(out, key);
            out.extend_from_slice(value.as_bytes());
        }
    }
}

/// Appends `"data_base64":"…"`.
fn put_base64(out: &mut Vec<u8>, bytes: &[u8]) {
    use base64::Engine;
    put_field(out, "data_base64", &base64::engine::general_purpose::STANDARD.encode(bytes));
}

#[cfg(test)]
mod tests;
