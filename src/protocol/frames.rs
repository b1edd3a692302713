//! Dialect D, binary frames (PROTOCOLS "D. Binary frames"): one WebSocket binary message = one frame = a 24-byte
//! little-endian [`Header`] and a payload.
//!
//! [`parse`] reads what clients send, `write` holds the server's frames, `client` is the other side of both (load
//! generator, `connect`, tests), `json` the JSON payloads. Nothing here keeps state, reads a clock or panics on input.

pub mod client;
pub mod json;
pub mod write;

use std::fmt;

use crate::class::Class;
use crate::frame::FrameKind;
use crate::id::StreamHandle;
use crate::limits;

pub use write::FramesEncoder;

/// The frame types, the first byte of a header.
pub mod types {
    /// → JSON [`Hello`](super::json::Hello).
    pub const HELLO: u8 = 1;
    /// ← JSON [`Welcome`](super::json::Welcome).
    pub const WELCOME: u8 = 2;
    /// ← kind = error code from 1, number = correlation, UTF-8 text.
    pub const ERROR: u8 = 3;
    /// ↔ at most `limits::PING_BYTES`.
    pub const PING: u8 = 4;
    /// ↔ the ping's payload.
    pub const PONG: u8 = 5;
    /// → JSON [`Join`](super::json::Join), number = correlation.
    pub const JOIN: u8 = 6;
    /// ← JSON [`Joined`](super::json::Joined), number = correlation.
    pub const JOINED: u8 = 7;
    /// → room id, number = correlation.
    pub const LEAVE: u8 = 8;
    /// ← room id, number = correlation.
    pub const LEFT: u8 = 9;
    /// ← stream, number = head, JSON [`StreamName`](super::json::StreamName).
    pub const POSITION: u8 = 10;
    /// ← stream, number = place, prev: a reliable frame that was not for this member.
    pub const ADVANCE: u8 = 11;
    /// → kind, stream = a handle of the room, number = correlation.
    pub const COMMAND: u8 = 16;
    /// ← number = correlation.
    pub const ACK: u8 = 17;
    /// ← a player's command for the room's publishers.
    pub const PLAYER_COMMAND: u8 = 18;
    /// ↔ u64 key and the application's bytes; the only droppable type.
    pub const WORLD_DELTA: u8 = 32;
    /// ↔ a numbered event of a battle.
    pub const BATTLE_TIMELINE: u8 = 33;
    /// ↔ the end of a battle.
    pub const BATTLE_END: u8 = 34;
    /// ↔ any other event.
    pub const EVENT: u8 = 35;
    /// ← stream, number = deltas left out since last told.
    pub const SKIPPED: u8 = 36;
    /// → number = WORLD_DELTA frames received on this connection.
    pub const DELTA_ACK: u8 = 37;
}

/// Every type with its name, ascending.
pub const TYPES: [(u8, &str); 20] = [
    (types::HELLO, "HELLO"),
    (types::WELCOME, "WELCOME"),
    (types::ERROR, "ERROR"),
    (types::PING, "PING"),
    (types::PONG, "PONG"),
    (types::JOIN, "JOIN"),
    (types::JOINED, "JOINED"),
    (types::LEAVE, "LEAVE"),
    (types::LEFT, "LEFT"),
    (types::POSITION, "POSITION"),
    (types::ADVANCE, "ADVANCE"),
    (types::COMMAND, "COMMAND"),
    (types::ACK, "ACK"),
    (types::PLAYER_COMMAND, "PLAYER_COMMAND"),
    (types::WORLD_DELTA, "WORLD_DELTA"),
    (types::BATTLE_TIMELINE, "BATTLE_TIMELINE"),
    (types::BATTLE_END, "BATTLE_END"),
    (types::EVENT, "EVENT"),
    (types::SKIPPED, "SKIPPED"),
    (types::DELTA_ACK, "DELTA_ACK"),
];

/// A type's name, `None` if there is no such type.
#[must_use]
pub fn type_name(frame_type: u8) -> Option<&'static str> {
    TYPES.iter().find(|(number, _)| *number == frame_type).map(|(_, name)| *name)
}

/// The 24 bytes in front of every payload.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Header {
    /// One of [`types`].
    pub frame_type: u8,
    /// 0, or [`Header::FORGETS`].
    pub flags: u8,
    /// Command or event kind; the error code of ERROR.
    pub kind: u16,
    /// 0 = none.
    pub stream: StreamHandle,
    /// Place, correlation or count, by type.
    pub number: u64,
    /// The place of the stream's previous reliable frame, 0 = not known.
    pub prev: u64,
}

impl Header {
    /// Bytes of a header.
    pub const LEN: usize = 24;
    /// Flags bit 0 of types 33–35: the payload begins with the u64 key that the event forgets.
    pub const FORGETS: u8 = 1;

    /// Splits a message into header and payload; `None` if it is shorter than a header.
    #[must_use]
    pub fn read(message: &[u8]) -> Option<(Self, &[u8])> {
        let (head, payload) = message.split_first_chunk()?;
        Some((Self::from_bytes(head), payload))
    }

    /// The header in its wire form's fields.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; Self::LEN]) -> Self {
        let [frame_type, flags, k0, k1, s0, s1, s2, s3, rest @ ..] = *bytes;
        let [n0, n1, n2, n3, n4, n5, n6, n7, prev @ ..] = rest;
        Self {
            frame_type,
            flags,
            kind: u16::from_le_bytes([k0, k1]),
            stream: StreamHandle(u32::from_le_bytes([s0, s1, s2, s3])),
            number: u64::from_le_bytes([n0, n1, n2, n3, n4, n5, n6, n7]),
            prev: u64::from_le_bytes(prev),
        }
    }

    /// Appends the wire form.
    pub fn put(&self, out: &mut Vec<u8>) {
        let mut bytes = [0; Self::LEN];
        bytes[0] = self.frame_type;
        bytes[1] = self.flags;
        bytes[2..4].copy_from_slice(&self.kind.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.stream.0.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.number.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.prev.to_le_bytes());
        out.extend_from_slice(&bytes);
    }
}

/// What a client sent. JSON payloads stay as bytes (mutable, for the parser works in place): see `json`.
#[derive(PartialEq, Eq, Debug)]
pub enum Inbound<'a> {
    /// Authenticate, or resume.
    Hello {
        /// See [`json::Hello`].
        json: &'a mut [u8],
    },
    /// To be answered with the same payload.
    Ping {
        /// At most `limits::PING_BYTES`.
        payload: &'a [u8],
    },
    /// The answer to the server's ping.
    Pong,
    /// Join a room.
    Join {
        /// 0 = none.
        correlation: u64,
        /// See [`json::Join`].
        json: &'a mut [u8],
    },
    /// Leave a room.
    Leave {
        /// 0 = none.
        correlation: u64,
        /// Not checked to be a room id.
        room: &'a str,
    },
    /// A command for a backend, or for the room's publishers with `kind >= PLAYER_KIND_MIN`.
    Command {
        /// Command type by the type table.
        kind: u16,
        /// A handle of the room; not checked.
        stream: StreamHandle,
        /// 0 asks for no answer.
        correlation: u64,
        /// As the backend wants it.
        payload: &'a [u8],
    },
    /// Credit.
    DeltaAck {
        /// WORLD_DELTA frames received on this connection so far.
        count: u64,
    },
    /// A publisher's frame for the members; whether the sender may publish is not checked.
    Publish {
        /// Type 32–35 and kind.
        kind: FrameKind,
        /// `Delta` for type 32, else `Reliable`.
        class: Class,
        /// The delta's key, or the key to forget, else 0.
        key: u64,
        /// Whether the event forgets `key`.
        forgets: bool,
        /// The room's relay handle; not checked.
        stream: StreamHandle,
        /// 0 asks for no answer.
        correlation: u64,
        /// The whole payload, a leading key included, as the members get it.
        payload: &'a [u8],
    },
}

/// From this COMMAND kind on, commands go to the room's publishers.
pub const PLAYER_KIND_MIN: u16 = 0x8000;

/// Why a client's message is not a frame; the connection closes 4400.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FrameError {
    /// Shorter than a header.
    ShortHeader {
        /// Bytes of the message.
        len: usize,
    },
    /// A type that does not exist or that only the server sends.
    Type(u8),
    /// A flag that the type does not have.
    Flags {
        /// The type.
        frame_type: u8,
        /// The flags.
        flags: u8,
    },
    /// A payload of the wrong size or form.
    Payload {
        /// The type.
        frame_type: u8,
        /// What it must be.
        expected: &'static str,
    },
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |frame_type| type_name(frame_type).unwrap_or("unknown");
        match *self {
            Self::ShortHeader { len } => write!(f, "message of {len} bytes; a frame begins with a 24-byte header"),
            Self::Type(number) => write!(f, "type {number} ({}) is not one a client sends", name(number)),
            Self::Flags { frame_type, flags } => write!(f, "flags {flags:#x} on {}; send 0", name(frame_type)),
            Self::Payload { frame_type, expected } => write!(f, "{} payload; expected {expected}", name(frame_type)),
        }
    }
}

impl std::error::Error for FrameError {}

/// Reads a client's message.
///
/// # Errors
/// Whatever is not a frame that clients send; see [`FrameError`].
pub fn parse(message: &mut [u8]) -> Result<Inbound<'_>, FrameError> {
    let len = message.len();
    let (head, payload) = message.split_first_chunk_mut().ok_or(FrameError::ShortHeader { len })?;
    let header = Header::from_bytes(head);
    let frame_type = header.frame_type;
    let allowed = if may_forget(frame_type) { Header::FORGETS } else { 0 };
    if header.flags & !allowed != 0 {
        return Err(FrameError::Flags { frame_type, flags: header.flags });
    }
    let wrong = |expected| FrameError::Payload { frame_type, expected };
    let correlation = header.number;
    Ok(match frame_type {
        types::HELLO => Inbound::Hello { json: payload },
        types::PING | types::PONG if payload.len() > limits::PING_BYTES => return Err(wrong("at most 125 bytes")),
        types::PING => Inbound::Ping { payload },
        types::PONG => Inbound::Pong,
        types::JOIN => Inbound::Join { correlation, json: payload },
        types::LEAVE => {
            let room = std::str::from_utf8(payload).map_err(|_| wrong("a room id in UTF-8"))?;
            Inbound::Leave { correlation, room }
        }
        types::COMMAND => Inbound::Command { kind: header.kind, stream: header.stream, correlation, payload },
        types::DELTA_ACK if !payload.is_empty() => return Err(wrong("nothing")),
        types::DELTA_ACK => Inbound::DeltaAck { count: header.number },
        types::WORLD_DELTA..=types::EVENT => return publish(header, payload),
        other => return Err(FrameError::Type(other)),
    })
}

fn publish(header: Header, payload: &[u8]) -> Result<Inbound<'_>, FrameError> {
    let delta = header.frame_type == types::WORLD_DELTA;
    let forgets = header.flags & Header::FORGETS != 0;
    let key = if delta || forgets {
        let expected = "a u64 key first";
        leading_key(payload).ok_or(FrameError::Payload { frame_type: header.frame_type, expected })?
    } else {
        0
    };
    Ok(Inbound::Publish {
        kind: FrameKind { frame_type: header.frame_type, kind: header.kind },
        class: if delta { Class::Delta } else { Class::Reliable },
        key,
        forgets,
        stream: header.stream,
        correlation: header.number,
        payload,
    })
}

/// The u64 that a WORLD_DELTA or a forgetting event begins with.
fn leading_key(payload: &[u8]) -> Option<u64> {
    payload.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
}

fn may_forget(frame_type: u8) -> bool {
    matches!(frame_type, types::BATTLE_TIMELINE..=types::EVENT)
}

#[cfg(test)]
mod tests;
