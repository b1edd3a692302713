//! The client's side of dialect D. The encoders append header and payload; the WebSocket frame and its mask are the
//! caller's. [`parse`] reads what servers send.

use crate::frame::FrameKind;
use crate::id::StreamHandle;

use super::json::{self, Hello, Join};
use super::{Header, leading_key, may_forget, types};

/// HELLO.
pub fn hello(out: &mut Vec<u8>, hello: &Hello<'_>) {
    put(out, Header { frame_type: types::HELLO, ..Header::default() }, &json::write(hello));
}

/// JOIN.
pub fn join(out: &mut Vec<u8>, correlation: u64, join: &Join<'_>) {
    put(out, Header { frame_type: types::JOIN, number: correlation, ..Header::default() }, &json::write(join));
}

/// LEAVE.
pub fn leave(out: &mut Vec<u8>, correlation: u64, room: &str) {
    put(out, Header { frame_type: types::LEAVE, number: correlation, ..Header::default() }, room.as_bytes());
}

/// COMMAND on a handle of the room; correlation 0 asks for no answer.
pub fn command(out: &mut Vec<u8>, kind: u16, stream: StreamHandle, correlation: u64, payload: &[u8]) {
    let header = Header { frame_type: types::COMMAND, kind, stream, number: correlation, ..Header::default() };
    put(out, header, payload);
}

/// A publisher's frame, type 32–35, on the room's relay handle. The payload of a delta, or of an event that `forgets`,
/// begins with the u64 key.
pub fn publish(
    out: &mut Vec<u8>,
    kind: FrameKind,
    forgets: bool,
    stream: StreamHandle,
    correlation: u64,
    payload: &[u8],
) {
    let flags = if forgets { Header::FORGETS } else { 0 };
    let FrameKind { frame_type, kind } = kind;
    put(out, Header { frame_type, flags, kind, stream, number: correlation, prev: 0 }, payload);
}

/// DELTA_ACK: WORLD_DELTA frames received on this connection so far.
pub fn delta_ack(out: &mut Vec<u8>, count: u64) {
    put(out, Header { frame_type: types::DELTA_ACK, number: count, ..Header::default() }, &[]);
}

/// PING; the payload has at most `limits::PING_BYTES`.
pub fn ping(out: &mut Vec<u8>, payload: &[u8]) {
    put(out, Header { frame_type: types::PING, ..Header::default() }, payload);
}

/// PONG with the ping's payload.
pub fn pong(out: &mut Vec<u8>, payload: &[u8]) {
    put(out, Header { frame_type: types::PONG, ..Header::default() }, payload);
}

fn put(out: &mut Vec<u8>, header: Header, payload: &[u8]) {
    header.put(out);
    out.extend_from_slice(payload);
}

/// What a server sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "the fields are those of PROTOCOLS D's table, or of L0 types that describe them")]
pub enum FromServer<'a> {
    /// Payload: [`json::Welcome`].
    Welcome { json: &'a [u8] },
    /// `code` counts from 1 in `ErrorCode::ALL`.
    Error { code: u16, correlation: u64, text: &'a str },
    /// To be answered with the same payload.
    Ping { payload: &'a [u8] },
    /// The answer to a ping.
    Pong { payload: &'a [u8] },
    /// Payload: [`json::Joined`].
    Joined { correlation: u64, json: &'a [u8] },
    /// The room was left.
    Left { correlation: u64, room: &'a str },
    /// Payload: [`json::StreamName`].
    Position { stream: StreamHandle, head: u64, json: &'a [u8] },
    /// A reliable frame that was not for this member.
    Advance { stream: StreamHandle, place: u64, prev: u64 },
    /// A command or a published frame was accepted.
    Ack { correlation: u64 },
    /// Types 18 and 33–35; `forgets` is the key this event forgets, with which the payload begins.
    Reliable { kind: FrameKind, stream: StreamHandle, place: u64, prev: u64, forgets: Option<u64>, payload: &'a [u8] },
    /// Type 32; the payload begins with the key.
    Delta { kind: u16, stream: StreamHandle, after: u64, key: u64, payload: &'a [u8] },
    /// Deltas left out since last told.
    Skipped { stream: StreamHandle, count: u64 },
}

/// Reads a server's message; `None` if it is not a frame that servers send.
#[must_use]
pub fn parse(message: &[u8]) -> Option<FromServer<'_>> {
    let (header, payload) = Header::read(message)?;
    let Header { frame_type, flags, kind, stream, number, prev } = header;
    let forgets = may_forget(frame_type) && flags == Header::FORGETS;
    if flags != 0 && !forgets {
        return None;
    }
    let text = || std::str::from_utf8(payload).ok();
    Some(match frame_type {
        types::WELCOME => FromServer::Welcome { json: payload },
        types::ERROR => FromServer::Error { code: kind, correlation: number, text: text()? },
        types::PING => FromServer::Ping { payload },
        types::PONG => FromServer::Pong { payload },
        types::JOINED => FromServer::Joined { correlation: number, json: payload },
        types::LEFT => FromServer::Left { correlation: number, room: text()? },
        types::POSITION => FromServer::Position { stream, head: number, json: payload },
        types::ADVANCE => FromServer::Advance { stream, place: number, prev },
        types::ACK => FromServer::Ack { correlation: number },
        types::PLAYER_COMMAND | types::BATTLE_TIMELINE..=types::EVENT => FromServer::Reliable {
            kind: FrameKind { frame_type, kind },
            stream,
            place: number,
            prev,
            forgets: if forgets { Some(leading_key(payload)?) } else { None },
            payload,
        },
        types::WORLD_DELTA => FromServer::Delta { kind, stream, after: number, key: leading_key(payload)?, payload },
        types::SKIPPED => FromServer::Skipped { stream, count: number },
        _ => return None,
    })
}
