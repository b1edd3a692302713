//! The JSON payloads of dialect D. Unknown fields are ignored; strings borrow from the input, which is parsed in place.

use std::fmt;

use serde::de::{Error as _, MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::limits;
use crate::message::Position;

/// HELLO: a token, or a resume token and the places where the client stopped.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct Hello<'a> {
    /// JWT; not needed to resume unless the old one expired.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<&'a str>,
    /// The resume token of the last WELCOME.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resume: Option<&'a str>,
    /// `{"<stream>": {"epoch", "offset"}}`, at most `limits::POSITIONS_MAX`.
    #[serde(with = "positions", skip_serializing_if = "Vec::is_empty")]
    pub positions: Vec<Position>,
    /// Unacknowledged deltas that may be in flight; absent = no credit is kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delta_window: Option<u32>,
}

/// JOIN.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Join<'a> {
    /// Room id; not checked.
    pub room: &'a str,
    /// For rooms that have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<&'a str>,
}

/// WELCOME: the answer to HELLO.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct Welcome<'a> {
    /// UUID of the connection.
    pub connection_id: &'a str,
    /// UUID of the session.
    pub session_id: &'a str,
    /// The token's `sub`.
    pub user_id: &'a str,
    /// What to resume the session with.
    pub resume: &'a str,
    /// How often the server pings, ms.
    pub heartbeat_ms: u64,
    /// Whether a resume goes on without a gap; false for a new session.
    pub recovered: bool,
    /// Why a resume could not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'a str>,
    /// The streams that could not be recovered.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub lost: Vec<&'a str>,
    /// The rooms of the session.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rooms: Vec<&'a str>,
    /// What an acknowledged command survives: `memory`, `disk`, `kafka`.
    pub durability: &'a str,
    /// How the session's last connection ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_close: Option<LastClose<'a>>,
}

/// How a session's last connection ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LastClose<'a> {
    /// WebSocket close code, 0 if none was sent.
    pub code: u16,
    /// The close table's text.
    pub reason: &'a str,
}

/// JOINED: the streams of the room, the relay stream first, then for publishers the input stream.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Joined<'a> {
    /// The room.
    #[serde(borrow)]
    pub room_id: &'a str,
    /// Its streams.
    pub streams: Vec<StreamPlace<'a>>,
    /// `false` when a stream could not start behind the event that let the session in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovered: Option<bool>,
    /// Why not.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'a str>,
}

/// A stream's introduction.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct StreamPlace<'a> {
    /// Node-wide handle.
    pub handle: u32,
    /// Name, e.g. `relay/room:arena`.
    pub stream: &'a str,
    /// The numbering.
    pub epoch: u64,
    /// The head.
    pub offset: u64,
}

/// POSITION: what the header has no room for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct StreamName<'a> {
    /// Name, e.g. `relay/room:arena`.
    pub stream: &'a str,
    /// The numbering.
    pub epoch: u64,
}

/// Reads one of the payloads above; the input is used up.
///
/// # Errors
/// Not an object, invalid UTF-8, malformed JSON, a missing field, a wrong type, more positions than the limit.
pub fn read<'a, T: Deserialize<'a>>(json: &'a mut [u8]) -> Result<T, JsonError> {
    if json.trim_ascii_start().first() != Some(&b'{') {
        return Err(JsonError("not a JSON object".into()));
    }
    check_depth(json)?;
    simd_json::serde::from_slice(json).map_err(|error| JsonError(error.to_string()))
}

/// Writes one of the payloads above.
#[must_use]
pub fn write<T: Serialize>(value: &T) -> Vec<u8> {
    simd_json::serde::to_vec(value).expect("strings, numbers and lists of them always serialise")
}

/// Why a payload was not the JSON it should be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct JsonError(String);

impl fmt::Display for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for JsonError {}

fn check_depth(json: &[u8]) -> Result<(), JsonError> {
    if limits::is_deep_json(json) {
        return Err(JsonError(format!("JSON nested deeper than {}; flatten it", limits::JSON_DEPTH_MAX)));
    }
    Ok(())
}

/// `positions` is a map on the wire and a list in the core.
mod positions {
    use super::{Deserializer, Entry, Position, PositionsVisitor, SerializeMap, Serializer};

    pub(super) fn serialize<S: Serializer>(positions: &[Position], serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(positions.len()))?;
        for position in positions {
            map.serialize_entry(&*position.stream, &Entry { epoch: position.epoch, offset: position.place })?;
        }
        map.end()
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Position>, D::Error> {
        deserializer.deserialize_option(PositionsVisitor)
    }
}

#[derive(Clone, Copy, Serialize, Deserialize)]
struct Entry {
    epoch: u64,
    offset: u64,
}

struct PositionsVisitor;

impl<'de> Visitor<'de> for PositionsVisitor {
    type Value = Vec<Position>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map from stream name to {epoch, offset}, or null")
    }

    fn visit_none<E>(self) -> Result<Self::Value, E> {
        Ok(Vec::new())
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Vec::new())
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut positions = Vec::new();
        while let Some((stream, entry)) = map.next_entry::<&'de str, Entry>()? {
            if positions.len() == limits::POSITIONS_MAX {
                let max = limits::POSITIONS_MAX;
                return Err(A::Error::custom(format_args!("positions: more than {max}; send those of joined rooms")));
            }
            positions.push(Position { stream: stream.into(), epoch: entry.epoch, place: entry.offset });
        }
        Ok(positions)
    }
}
