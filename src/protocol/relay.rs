//! Records of the topic `ringgate.relay`: what relays carry where gateways share a bus (DELIVERY §7 "Relay").
//!
//! The key is the room's id. A partition is a numbering, and a room's frames stand in one partition, that of its key,
//! unless somebody else's partitioner put them elsewhere or partitions were added. So there is one stream for the room's
//! members and one for its publishers **per partition**, named as every stream of a topic is (DELIVERY §1):
//!
//! - `ringgate.relay.<partition>/room:<id>`: frames for the members; deltas stand in the log too, and follow the reliable
//!   frame of the room that is before them in their partition.
//! - `ringgate.relay.input.<partition>/room:<id>`: players' commands for the publishers.
//!
//! `relay/room:<id>` and `input/room:<id>`, which the home numbers where there is no such bus, have no frames then; the
//! handle of the first is still what publishers send on. Their epoch is [`HANDLE_EPOCH`] on every gateway.
//!
//! The value is binary, little-endian; version 2:
//!
//! | at | what |
//! |---|---|
//! | 0 | u8 version, 2 |
//! | 1 | u8 dialect D's type: 32–35 a frame, 18 a player's command, 0 a notice of a publisher |
//! | 2 | u16 D's kind; of a notice 1 attached, 2 detached, 3 gone |
//! | 4 | u8 flags: 1 the frame forgets its key, 2 a publisher sent it, 4 (of a notice) the room is open |
//! | 5 | 3 bytes, 0 |
//! | 8 | 16 bytes, the sender's session |
//! | 24 | u64, the gateway's process; 0 if it is not said |
//! | 32 | u64, which of that process's records it is, from 1 |
//! | 40 | D's payload, that of a delta or of a frame that forgets begins with the u64 key; of a notice the 16 bytes of the connection's id |
//!
//! A gateway that has no answer from Kafka may say a record again though it is there: it comes behind those of higher
//! numbers then, or as the last one again, and is left out ([`origin`]).
//!
//! Type 32 is a delta, the others are reliable. A record of any other form is poison: nobody else need write here.

use std::fmt;
use std::sync::Arc;

use super::frames::{PLAYER_KIND_MIN, types};
use crate::class::Class;
use crate::frame::FrameKind;
use crate::id::{ConnAddr, ConnectionId, Scope, SessionId, is_room_id};
use crate::message::{Append, Event, PublisherState, Publishing};

use super::envelope::EventSource;

/// The topic.
pub const TOPIC: &str = "ringgate.relay";
/// The epoch of the streams that only give publishers their handle: a session may resume on any gateway.
pub const HANDLE_EPOCH: u64 = 0;
/// Bytes in front of the payload.
pub const HEADER_BYTES: usize = 40;

/// A record that was read.
#[derive(PartialEq, Eq, Debug)]
pub enum Relayed<'a> {
    /// A frame for the room's members, or a player's command for its publishers.
    Frame {
        /// Type and kind.
        kind: FrameKind,
        /// `Delta` for type 32, else `Reliable`.
        class: Class,
        /// The delta's key, or the key to forget, else 0.
        key: u64,
        /// Whether it forgets `key`.
        forgets: bool,
        /// D's payload.
        body: &'a [u8],
    },
    /// Who publishes to the room.
    Notice(Publishing),
}

/// What the sender of a record is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sender {
    /// A game server, which has to know of each frame whether it is relayed.
    Publisher,
    /// A player.
    Player,
}

/// The value of a frame for the room's members; `body` appends D's payload.
pub fn frame(
    kind: FrameKind,
    forgets: bool,
    sender: Sender,
    session: SessionId,
    body: impl FnOnce(&mut Vec<u8>),
) -> Vec<u8> {
    let forgets = if forgets { FORGETS } else { 0 };
    let sender = if sender == Sender::Publisher { OF_PUBLISHER } else { 0 };
    let mut out = Vec::new();
    put_header(&mut out, kind, forgets | sender, session);
    body(&mut out);
    out
}

/// The value of a player's command for the publishers; `body` is PLAYER_COMMAND's payload.
#[must_use]
pub fn input(kind: u16, session: SessionId, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER_BYTES + body.len());
    put_header(&mut out, FrameKind { frame_type: types::PLAYER_COMMAND, kind }, 0, session);
    out.extend_from_slice(body);
    out
}

/// The record that tells all gateways of a publisher.
#[must_use]
pub fn notice(topic: &Arc<str>, publishing: &Publishing) -> Append {
    let (kind, flags) = match publishing.state {
        PublisherState::Attached { open } => (ATTACHED, if open { OPEN } else { 0 }),
        PublisherState::Detached => (DETACHED, 0),
        PublisherState::Gone => (GONE, 0),
    };
    let mut value = Vec::with_capacity(HEADER_BYTES + 16);
    put_header(&mut value, FrameKind { frame_type: NOTICE, kind }, flags, publishing.session);
    value.extend_from_slice(&publishing.connection.0);
    record(topic, ConnAddr::NOBODY, 0, &publishing.room, value)
}

/// A record for a room's partition.
#[must_use]
pub fn record(topic: &Arc<str>, from: ConnAddr, correlation: u64, room: &str, value: Vec<u8>) -> Append {
    Append { from, correlation, topic: Arc::clone(topic), key: room.as_bytes().into(), value: value.into() }
}

/// Says in a record's value which process's it is, and which of them.
pub fn put_origin(value: &mut [u8], process: u64, number: u64) {
    if let Some(origin) = value.get_mut(ORIGIN) {
        let (first, second) = origin.split_at_mut(8);
        first.copy_from_slice(&process.to_le_bytes());
        second.copy_from_slice(&number.to_le_bytes());
    }
}

/// Which process's record a value is, and which of them; `None` if it does not say, or is another version's, which may
/// have anything there.
#[must_use]
pub fn origin(value: &[u8]) -> Option<(u64, u64)> {
    let said = value.get(ORIGIN).filter(|_| value[0] == VERSION)?;
    let (process, number) = said.split_first_chunk()?;
    let number = number.first_chunk()?;
    Some((u64::from_le_bytes(*process), u64::from_le_bytes(*number))).filter(|(process, _)| *process != 0)
}

/// Whether the value that this gateway made is a player's command.
#[must_use]
pub fn is_input(value: &[u8]) -> bool {
    value.get(1) == Some(&types::PLAYER_COMMAND)
}

/// Whether the value that this gateway made is a frame whose publisher has to know what became of it.
#[must_use]
pub fn is_of_publisher(value: &[u8]) -> bool {
    value.get(4).is_some_and(|flags| flags & OF_PUBLISHER != 0)
}

/// The room of a record's key.
///
/// # Errors
/// If it is no room id.
pub fn room(key: &[u8]) -> Result<&str, RelayError> {
    std::str::from_utf8(key).ok().filter(|room| is_room_id(room)).ok_or(RelayError::Key)
}

/// Reads a record.
///
/// # Errors
/// What is wrong with a record that no gateway of this version wrote.
pub fn read<'a>(key: &[u8], value: &'a [u8]) -> Result<Relayed<'a>, RelayError> {
    let room = room(key)?;
    let (header, payload) = value.split_first_chunk::<HEADER_BYTES>().ok_or(RelayError::Short(value.len()))?;
    let [version, frame_type, k0, k1, flags, r0, r1, r2, ..] = *header;
    let session = header[8..].first_chunk().expect("a header is longer");
    let (kind, session) = (u16::from_le_bytes([k0, k1]), SessionId(*session));
    if version != VERSION {
        return Err(RelayError::Version(version));
    }
    let allowed = match frame_type {
        NOTICE if kind == ATTACHED => OPEN,
        types::WORLD_DELTA => OF_PUBLISHER,
        types::BATTLE_TIMELINE..=types::EVENT => OF_PUBLISHER | FORGETS,
        NOTICE | types::PLAYER_COMMAND => 0,
        other => return Err(RelayError::Type(other)),
    };
    if flags & !allowed != 0 || [r0, r1, r2] != [0; 3] {
        return Err(RelayError::Flags(flags));
    }
    let wrong = |expected| RelayError::Payload { frame_type, expected };
    if frame_type == NOTICE {
        let connection = ConnectionId(payload.try_into().map_err(|_| wrong("16 bytes"))?);
        let state = match kind {
            ATTACHED => PublisherState::Attached { open: flags & OPEN != 0 },
            DETACHED => PublisherState::Detached,
            GONE => PublisherState::Gone,
            other => return Err(RelayError::Notice(other)),
        };
        return Ok(Relayed::Notice(Publishing { room: room.into(), session, connection, state }));
    }
    if frame_type == types::PLAYER_COMMAND && !(kind >= PLAYER_KIND_MIN && is_command(payload)) {
        return Err(wrong("a kind from 0x8000 on; u64 correlation, u16 length, user id, bytes"));
    }
    let delta = frame_type == types::WORLD_DELTA;
    let forgets = flags & FORGETS != 0;
    let key = match payload.first_chunk() {
        Some(key) if delta || forgets => u64::from_le_bytes(*key),
        None if delta || forgets => return Err(wrong("a u64 key first")),
        _ => 0,
    };
    let class = if delta { Class::Delta } else { Class::Reliable };
    Ok(Relayed::Frame { kind: FrameKind { frame_type, kind }, class, key, forgets, body: payload })
}

impl Relayed<'_> {
    /// What of it goes to the home of its room; `key` is the record's.
    #[must_use]
    pub fn event(&self, key: &[u8], source: &EventSource) -> Option<Event> {
        let (Self::Frame { kind, class, key: delta, forgets, body }, Ok(room)) = (self, room(key)) else { return None };
        Some(Event {
            id: None,
            topic: Arc::clone(&source.topic),
            partition: source.partition,
            epoch: source.epoch,
            place: source.offset + 1,
            scope: Scope::Room(room.into()),
            class: *class,
            key: *delta,
            forgets: *forgets,
            kind: *kind,
            effect: None,
            audience: None,
            body: (*body).into(),
        })
    }
}

/// What is wrong with a record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RelayError {
    /// The key is no room id.
    Key,
    /// So many bytes are no header.
    Short(usize),
    /// Another version's.
    Version(u8),
    /// No type that is relayed.
    Type(u8),
    /// Flags that the type does not have, or what follows them is not 0.
    Flags(u8),
    /// No state of a publisher.
    Notice(u16),
    /// A payload that the type does not have.
    Payload {
        /// The type.
        frame_type: u8,
        /// What it must be.
        expected: &'static str,
    },
}

impl fmt::Display for RelayError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key => f.write_str("the key is no room id; give the room's, 1–64 of A-Z a-z 0-9 . _ -"),
            Self::Short(len) => {
                write!(f, "{len} bytes are less than the header's {HEADER_BYTES}; only gateways write here")
            }
            Self::Version(version) => {
                write!(f, "version {version}, and this gateway reads {VERSION}; bring all gateways to one version")
            }
            Self::Type(number) => write!(f, "type {number} is not one that is relayed; send 32–35"),
            Self::Flags(flags) => write!(f, "flags {flags:#x} are not the type's; send 0"),
            Self::Notice(kind) => write!(f, "kind {kind} is no state of a publisher; send 1, 2 or 3"),
            Self::Payload { frame_type, expected } => write!(f, "payload of type {frame_type}; expected {expected}"),
        }
    }
}

impl std::error::Error for RelayError {}

fn put_header(out: &mut Vec<u8>, kind: FrameKind, flags: u8, session: SessionId) {
    let [k0, k1] = kind.kind.to_le_bytes();
    out.extend_from_slice(&[VERSION, kind.frame_type, k0, k1, flags, 0, 0, 0]);
    out.extend_from_slice(&session.0);
    out.extend_from_slice(&[0; ORIGIN.end - ORIGIN.start]);
}

/// Whether it is PLAYER_COMMAND's payload.
fn is_command(payload: &[u8]) -> bool {
    let user = payload.get(8..).and_then(|rest| rest.split_first_chunk());
    user.is_some_and(|(len, rest)| rest.len() >= usize::from(u16::from_le_bytes(*len)))
}

/// The first byte of every record.
pub const VERSION: u8 = 2;
/// Where a record says which it is.
const ORIGIN: std::ops::Range<usize> = 24..HEADER_BYTES;
/// A notice has no type of dialect D.
const NOTICE: u8 = 0;
const ATTACHED: u16 = 1;
const DETACHED: u16 = 2;
const GONE: u16 = 3;
const FORGETS: u8 = 1;
const OF_PUBLISHER: u8 = 2;
const OPEN: u8 = 4;
const _: () =
    assert!(FORGETS == super::frames::Header::FORGETS && types::PLAYER_COMMAND == FrameKind::PLAYER_COMMAND_TYPE);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::frames::write::player_command_body;
    use super::*;

    const SESSION: SessionId = SessionId([7; 16]);

    fn publishing(state: PublisherState) -> Publishing {
        Publishing { room: "arena".into(), session: SESSION, connection: ConnectionId([9; 16]), state }
    }

    /// The bytes are those that the table says.
    #[test]
    fn records_have_the_tables_form() {
        let kind = FrameKind { frame_type: types::EVENT, kind: 0x0102 };
        let value = frame(kind, true, Sender::Publisher, SESSION, |out| out.extend_from_slice(b"12345678x"));
        assert_eq!(value[..8], [2, 35, 2, 1, 3, 0, 0, 0]);
        assert_eq!((&value[8..24], &value[40..]), (&[7; 16][..], &b"12345678x"[..]));
        assert_eq!(origin(&value), None);
        let mut said = value.clone();
        put_origin(&mut said, 0x0807_0605_0403_0201, 9);
        assert_eq!(said[24..40], [1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(
            (origin(&said), &said[..24], &said[40..]),
            (Some((0x0807_0605_0403_0201, 9)), &value[..24], &value[40..])
        );
        said[0] = 1;
        assert_eq!(origin(&said), None, "version 1 had its payload there");
        assert!(is_of_publisher(&value) && !is_input(&value));
        let append = notice(&TOPIC.into(), &publishing(PublisherState::Attached { open: true }));
        assert_eq!((&*append.key, &append.value[..8]), (&b"arena"[..], &[2, 0, 1, 0, 4, 0, 0, 0][..]));
        assert_eq!(append.value[40..], [9; 16]);
    }

    /// Notices come out as they went in.
    #[test]
    fn notices_come_back() {
        use PublisherState::{Attached, Detached, Gone};
        for state in [Attached { open: true }, Attached { open: false }, Detached, Gone] {
            let append = notice(&TOPIC.into(), &publishing(state));
            assert_eq!(read(&append.key, &append.value), Ok(Relayed::Notice(publishing(state))));
        }
    }

    /// What no gateway of this version wrote is refused, with what to do about it.
    #[test]
    fn foreign_records_are_refused() {
        let good = |frame_type| {
            let kind = FrameKind { frame_type, kind: 0 };
            frame(kind, false, Sender::Player, SESSION, |out| out.extend_from_slice(&[0; 8]))
        };
        let with = |at: usize, byte: u8| {
            let mut value = good(types::EVENT);
            value[at] = byte;
            value
        };
        let refusals: [(&[u8], Vec<u8>, RelayError); 9] = [
            (b"a room", good(types::EVENT), RelayError::Key),
            (b"r", b"{\"type\":1}".to_vec(), RelayError::Short(10)),
            (b"r", with(0, 1), RelayError::Version(1)),
            (b"r", with(1, 36), RelayError::Type(36)),
            (b"r", with(4, 8), RelayError::Flags(8)),
            (b"r", with(6, 1), RelayError::Flags(0)),
            (b"r", with(1, 0), RelayError::Payload { frame_type: 0, expected: "16 bytes" }),
            (
                b"r",
                good(types::WORLD_DELTA)[..47].to_vec(),
                RelayError::Payload { frame_type: types::WORLD_DELTA, expected: "a u64 key first" },
            ),
            (
                b"r",
                input(PLAYER_KIND_MIN, SESSION, &[0, 0, 0, 0, 0, 0, 0, 0, 1, 0]),
                RelayError::Payload {
                    frame_type: types::PLAYER_COMMAND,
                    expected: "a kind from 0x8000 on; u64 correlation, u16 length, user id, bytes",
                },
            ),
        ];
        for (key, value, expected) in refusals {
            assert_eq!(read(key, &value).unwrap_err(), expected);
            assert!(!expected.to_string().is_empty());
        }
    }

    proptest! {
        /// Every frame that a client can send comes out as it went in, whatever its payload.
        #[test]
        fn frames_come_back(frame_type in 32u8..36, kind: u16, forget: bool, key: u64, rest: Vec<u8>, publisher: bool) {
            let delta = frame_type == types::WORLD_DELTA;
            let forgets = forget && !delta;
            let body = if delta || forgets { [&key.to_le_bytes()[..], &rest].concat() } else { rest };
            let sender = if publisher { Sender::Publisher } else { Sender::Player };
            let kind = FrameKind { frame_type, kind };
            let value = frame(kind, forgets, sender, SESSION, |out| out.extend_from_slice(&body));
            prop_assert_eq!(is_of_publisher(&value), publisher);
            let class = if delta { Class::Delta } else { Class::Reliable };
            let key = if delta || forgets { key } else { 0 };
            prop_assert_eq!(read(b"r", &value), Ok(Relayed::Frame { kind, class, key, forgets, body: &body }));
        }

        /// So does every command of a player.
        #[test]
        fn inputs_come_back(kind in PLAYER_KIND_MIN.., correlation: u64, user in "\\PC{0,20}", rest: Vec<u8>) {
            let body = player_command_body(correlation, &user, &rest);
            let value = input(kind, SESSION, &body);
            prop_assert!(is_input(&value) && !is_of_publisher(&value));
            let kind = FrameKind { frame_type: types::PLAYER_COMMAND, kind };
            let expected = Relayed::Frame { kind, class: Class::Reliable, key: 0, forgets: false, body: &body };
            prop_assert_eq!(read(b"r", &value), Ok(expected));
        }

        /// No bytes make it panic, and what it takes is what is written anew from it.
        #[test]
        fn any_bytes_are_read_or_refused(key: Vec<u8>, head in any::<[u8; 5]>(), rest: Vec<u8>, cut in 0usize..80) {
            let mut value = [&[VERSION, head[1] % 40, head[2] % 5, head[3], head[4] % 8, 0, 0, 0][..], &rest].concat();
            value.truncate(cut.max(rest.len() / 2));
            let _ = read(&key, &value);
            if let Ok(Relayed::Frame { kind, forgets, body, .. }) = read(b"r", &value) {
                let sender = if is_of_publisher(&value) { Sender::Publisher } else { Sender::Player };
                let session = SessionId(value[8..24].try_into().unwrap());
                let mut again = frame(kind, forgets, sender, session, |out| out.extend_from_slice(body));
                again[ORIGIN].copy_from_slice(&value[ORIGIN]);
                prop_assert_eq!(again, value);
            }
        }
    }
}
