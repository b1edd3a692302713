//! The server's frames. Every function appends one whole wire frame: WebSocket header, header, payload.

use crate::close::CloseReason;
use crate::frame::{Encode, FrameKind, Item, put_websocket_header};
use crate::id::StreamHandle;
use crate::message::{ErrorCode, Introduction, LostReason};

use super::json::{self, Joined, LastClose, StreamName, StreamPlace, Welcome};
use super::{Header, types};

/// WebSocket opcode of a binary message (RFC 6455 §5.2).
const BINARY: u8 = 2;

/// Appends a frame of any type.
pub fn frame(out: &mut Vec<u8>, header: Header, payload: &[u8]) {
    put_websocket_header(out, BINARY, Header::LEN + payload.len());
    header.put(out);
    out.extend_from_slice(payload);
}

/// WELCOME.
pub fn welcome(out: &mut Vec<u8>, welcome: &Welcome<'_>) {
    frame(out, Header { frame_type: types::WELCOME, ..Header::default() }, &json::write(welcome));
}

/// What WELCOME says of the session's last connection.
#[must_use]
pub fn last_close(reason: CloseReason) -> LastClose<'static> {
    LastClose { code: reason.code(), reason: reason.text() }
}

/// ERROR; correlation 0 = none.
pub fn error(out: &mut Vec<u8>, code: ErrorCode, correlation: u64, text: &str) {
    let header = Header { frame_type: types::ERROR, kind: code.index(), number: correlation, ..Header::default() };
    frame(out, header, text.as_bytes());
}

/// PING; the payload has at most `limits::PING_BYTES`.
pub fn ping(out: &mut Vec<u8>, payload: &[u8]) {
    frame(out, Header { frame_type: types::PING, ..Header::default() }, payload);
}

/// PONG with the ping's payload.
pub fn pong(out: &mut Vec<u8>, payload: &[u8]) {
    frame(out, Header { frame_type: types::PONG, ..Header::default() }, payload);
}

/// JOINED; the relay stream comes first, then for publishers the input stream. `lost`: a stream could not start where
/// the event stands that let the session in, so frames between the two are missing.
pub fn joined<'a>(
    out: &mut Vec<u8>,
    correlation: u64,
    room: &str,
    streams: impl IntoIterator<Item = &'a Introduction>,
    lost: Option<LostReason>,
) {
    let streams = streams.into_iter().map(place).collect();
    let (recovered, reason) = (lost.map(|_| false), lost.map(LostReason::name));
    let header = Header { frame_type: types::JOINED, number: correlation, ..Header::default() };
    frame(out, header, &json::write(&Joined { room_id: room, streams, recovered, reason }));
}

/// LEFT.
pub fn left(out: &mut Vec<u8>, correlation: u64, room: &str) {
    frame(out, Header { frame_type: types::LEFT, number: correlation, ..Header::default() }, room.as_bytes());
}

/// POSITION: introduces a stream.
pub fn position(out: &mut Vec<u8>, introduction: &Introduction) {
    let position = &introduction.position;
    let (stream, number) = (introduction.handle, position.place);
    let header = Header { frame_type: types::POSITION, stream, number, ..Header::default() };
    frame(out, header, &json::write(&StreamName { stream: &position.stream, epoch: position.epoch }));
}

/// ADVANCE: a reliable frame of the stream was not for this member.
pub fn advance(out: &mut Vec<u8>, stream: StreamHandle, place: u64, prev: u64) {
    frame(out, Header { frame_type: types::ADVANCE, stream, number: place, prev, ..Header::default() }, &[]);
}

/// ACK; `correlation` > 0.
pub fn ack(out: &mut Vec<u8>, correlation: u64) {
    frame(out, Header { frame_type: types::ACK, number: correlation, ..Header::default() }, &[]);
}

/// SKIPPED: deltas of the stream left out since last told.
pub fn skipped(out: &mut Vec<u8>, stream: StreamHandle, count: u64) {
    frame(out, Header { frame_type: types::SKIPPED, stream, number: count, ..Header::default() }, &[]);
}

/// PLAYER_COMMAND's payload: the player's correlation, u16 length, user id, the player's bytes. `user` has at most
/// `limits::USER_ID_BYTES_MAX`.
#[must_use]
pub fn player_command_body(correlation: u64, user: &str, bytes: &[u8]) -> Box<[u8]> {
    let user_len = u16::try_from(user.len()).expect("user ids are bounded by limits::USER_ID_BYTES_MAX");
    let mut body = Vec::with_capacity(10 + user.len() + bytes.len());
    body.extend_from_slice(&correlation.to_le_bytes());
    body.extend_from_slice(&user_len.to_le_bytes());
    body.extend_from_slice(user.as_bytes());
    body.extend_from_slice(bytes);
    body.into()
}

/// Dialect D's form of a stream's frames (types 18, 32–35). `body` is the whole payload as the publisher sent it: that
/// of a delta, or of an event that forgets, begins with its u64 key. So encoding is a header and one copy.
#[derive(Clone, Copy, Default, Debug)]
pub struct FramesEncoder;

impl Encode for FramesEncoder {
    fn encode(&self, stream: StreamHandle, item: &Item, kind: FrameKind, body: &[u8], out: &mut Vec<u8>) {
        let flags = if item.forgets { Header::FORGETS } else { 0 };
        let FrameKind { frame_type, kind } = kind;
        frame(out, Header { frame_type, flags, kind, stream, number: item.place, prev: item.prev }, body);
    }
}

fn place(introduction: &Introduction) -> StreamPlace<'_> {
    let position = &introduction.position;
    StreamPlace {
        handle: introduction.handle.0,
        stream: &position.stream,
        epoch: position.epoch,
        offset: position.place,
    }
}
