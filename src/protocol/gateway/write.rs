//! The gateway's own frames of dialect A. Every function appends one whole unmasked WebSocket text frame.

use std::ops::Range;

use crate::close::CloseReason;
use crate::frame::put_websocket_header;
use crate::id::{ConnectionId, SessionId, StreamHandle};
use crate::message::{ErrorCode, Introduction, LostReason};
use crate::protocol::envelope::{put_field, put_name, put_others, put_string};
use crate::protocol::routes::Routes;
use crate::time::WallMillis;

use super::transcode::{FrameForm, Origin, payload_of};

/// WebSocket opcode of a text message (RFC 6455 §5.2).
const TEXT: u8 = 1;
/// Events of a history answer (PROTOCOLS A).
pub const HISTORY_ANSWER_EVENTS: usize = 50;
/// Payload bytes of a history answer (PROTOCOLS A).
pub const HISTORY_ANSWER_BYTES: usize = 64 << 10;

/// What `system.authenticated` says.
#[derive(Clone, Copy, Default, Debug)]
pub struct Authenticated<'a> {
    /// The token's `sub`.
    pub user_id: &'a str,
    /// The token's name.
    pub username: &'a str,
    /// The token's roles.
    pub roles: &'a [Box<str>],
    /// The session, `None` is left out.
    pub session: Option<SessionId>,
    /// What to resume the session with, `None` is left out.
    pub resume: Option<&'a str>,
    /// Whether a resume goes on without a gap; false for a new session.
    pub recovered: bool,
    /// Why a resume could not.
    pub reason: Option<LostReason>,
    /// The streams that could not be recovered.
    pub lost: &'a [&'a str],
    /// The rooms of the session.
    pub rooms: &'a [&'a str],
    /// How the session's last connection ended.
    pub last_close: Option<CloseReason>,
}

/// `system.welcome`. `durability` is what an acknowledged command survives: `memory`, `disk`, `kafka`.
pub fn welcome(out: &mut Vec<u8>, connection: ConnectionId, now: WallMillis, durability: &str) {
    object(out, "system.welcome", |out| {
        put_field(out, "connection_id", &connection.to_string());
        put_field(out, "timestamp", &now.rfc3339());
        put_field(out, "durability", durability);
    });
}

/// `system.authenticated`.
pub fn authenticated(out: &mut Vec<u8>, answer: &Authenticated<'_>) {
    object(out, "system.authenticated", |out| {
        put_field(out, "user_id", answer.user_id);
        put_field(out, "username", answer.username);
        put_list(out, "roles", answer.roles.iter().map(|role| &**role));
        if let Some(session) = answer.session {
            put_field(out, "session_id", &session.to_string());
        }
        if let Some(resume) = answer.resume {
            put_field(out, "resume", resume);
        }
        put_name(out, "recovered");
        out.extend_from_slice(if answer.recovered { b"true" } else { b"false" });
        if let Some(reason) = answer.reason {
            put_field(out, "reason", reason.name());
        }
        if !answer.lost.is_empty() {
            put_list(out, "lost", answer.lost.iter().copied());
        }
        put_list(out, "rooms", answer.rooms.iter().copied());
        if let Some(reason) = answer.last_close {
            put_name(out, "last_close");
            out.push(b'{');
            put_number(out, "code", u64::from(reason.code()));
            put_field(out, "reason", reason.text());
            out.push(b'}');
        }
    });
}

/// `system.error`.
pub fn error(out: &mut Vec<u8>, code: ErrorCode, message: &str, correlation_id: Option<&str>) {
    object(out, "system.error", |out| {
        put_field(out, "code", code.name());
        put_field(out, "message", message);
        put_correlation(out, correlation_id);
    });
}

/// `system.heartbeat_ack`.
pub fn heartbeat_ack(out: &mut Vec<u8>, now: WallMillis) {
    object(out, "system.heartbeat_ack", |out| put_field(out, "timestamp", &now.rfc3339()));
}

/// `system.ack`: the bus has the command.
pub fn ack(out: &mut Vec<u8>, correlation_id: &str) {
    object(out, "system.ack", |out| put_field(out, "correlation_id", correlation_id));
}

/// `system.position`: introduces streams. `lost`: one of them could not start where the event stands that let the
/// session into the room, so frames between the two are missing.
pub fn position<'a>(
    out: &mut Vec<u8>,
    introductions: impl IntoIterator<Item = &'a Introduction>,
    lost: Option<LostReason>,
) {
    object(out, "system.position", |out| {
        put_name(out, "streams");
        put_array(out, introductions, put_stream);
        if let Some(reason) = lost {
            out.extend_from_slice(b",\"recovered\":false");
            put_field(out, "reason", reason.name());
        }
    });
}

/// `{"handle", "stream", "epoch", "offset"}`.
pub(in crate::protocol) fn put_stream(out: &mut Vec<u8>, introduction: &Introduction) {
    let position = &introduction.position;
    out.push(b'{');
    put_number(out, "handle", u64::from(introduction.handle.0));
    put_field(out, "stream", &position.stream);
    put_number(out, "epoch", position.epoch);
    put_number(out, "offset", position.place);
    out.push(b'}');
}

/// The body of a client's relayed command: the client's fields under their own type, and who sent it.
pub fn relayed_body(out: &mut Vec<u8>, event_type: &str, body: &str, sender_id: &str) {
    out.extend_from_slice(b"{\"type\":");
    put_string(out, event_type);
    put_field(out, "sender_id", sender_id);
    put_others(out, body, &["type", "at", "sender_id", "correlation_id"]);
    out.push(b'}');
}

/// `system.skipped`: deltas of the stream left out since last told.
pub fn skipped(out: &mut Vec<u8>, stream: StreamHandle, count: u64) {
    object(out, "system.skipped", |out| {
        put_number(out, "stream", u64::from(stream.0));
        put_number(out, "count", count);
    });
}

/// `rooms.event.members`: the answer to `rooms.command.members`, of user ids and names. `truncated`: there are more.
pub fn members<'a>(
    out: &mut Vec<u8>,
    room_id: &str,
    members: impl IntoIterator<Item = (&'a str, &'a str)>,
    truncated: bool,
    correlation_id: Option<&str>,
) {
    object(out, "rooms.event.members", |out| {
        put_field(out, "room_id", room_id);
        put_name(out, "members");
        put_array(out, members, |out, (user_id, username)| {
            out.push(b'{');
            put_field(out, "user_id", user_id);
            put_field(out, "username", username);
            out.push(b'}');
        });
        if truncated {
            out.extend_from_slice(b",\"truncated\":true");
        }
        put_correlation(out, correlation_id);
    });
}

/// `rooms.event.history`: the answer to `rooms.command.history`. Of these wire frames of dialect D, oldest first, the
/// newest [`HISTORY_ANSWER_EVENTS`] as far as [`HISTORY_ANSWER_BYTES`] reach, oldest first.
pub fn history<'a>(
    out: &mut Vec<u8>,
    room_id: &str,
    frames: impl DoubleEndedIterator<Item = (&'a [u8], Origin)>,
    routes: &Routes,
    correlation_id: Option<&str>,
) {
    object(out, "rooms.event.history", |out| {
        put_field(out, "room_id", room_id);
        put_name(out, "events");
        let given = room_id.len() + correlation_id.map_or(0, str::len);
        let bytes_max = HISTORY_ANSWER_BYTES.saturating_sub(HISTORY_OVERHEAD + given * ESCAPED_BYTES);
        let (texts, spans) = newest(frames, routes, bytes_max);
        put_array(out, spans.into_iter().rev(), |out, span| out.extend_from_slice(&texts[span]));
        put_correlation(out, correlation_id);
    });
}

/// What a history answer has beside its room id, its events and its correlation id, at most.
const HISTORY_OVERHEAD: usize = 96;
/// What escaping makes of one byte, at most: `\u001f`.
const ESCAPED_BYTES: usize = 6;

/// Texts of the newest frames, newest first, behind each other; and where each stands.
fn newest<'a>(
    frames: impl DoubleEndedIterator<Item = (&'a [u8], Origin)>,
    routes: &Routes,
    bytes_max: usize,
) -> (Vec<u8>, Vec<Range<usize>>) {
    let (mut texts, mut spans, mut frame) = (Vec::new(), Vec::new(), Vec::new());
    for (d_frame, origin) in frames.rev() {
        frame.clear();
        FrameForm::Gateway.transcode(d_frame, origin, routes, &mut frame);
        let Some(text) = payload_of(&frame) else { continue };
        if spans.len() == HISTORY_ANSWER_EVENTS || texts.len() + spans.len() + text.len() > bytes_max {
            break;
        }
        let start = texts.len();
        texts.extend_from_slice(text);
        spans.push(start..texts.len());
    }
    (texts, spans)
}

/// A text frame whose length is known only when it is written: room for the usual header first, moved if it was wrong.
pub(in crate::protocol) fn text_frame(out: &mut Vec<u8>, payload: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; HEADER_BYTES]);
    payload(out);
    let end = out.len();
    let len = end - start - HEADER_BYTES;
    put_websocket_header(out, TEXT, len);
    let header_len = out.len() - end;
    let mut header = [0; HEADER_BYTES_MAX];
    header[..header_len].copy_from_slice(&out[end..]);
    if header_len != HEADER_BYTES {
        out.resize(end + HEADER_BYTES_MAX, 0);
        out.copy_within(start + HEADER_BYTES..end, start + header_len);
    }
    out.truncate(start + header_len + len);
    out[start..start + header_len].copy_from_slice(&header[..header_len]);
}

/// A text frame of parts that stand ready.
pub(super) fn text_frame_of(out: &mut Vec<u8>, parts: &[&[u8]]) {
    let len = parts.iter().map(|part| part.len()).sum();
    out.reserve(len + HEADER_BYTES_MAX);
    put_websocket_header(out, TEXT, len);
    parts.iter().for_each(|part| out.extend_from_slice(part));
}

/// Appends a number's digits.
pub(in crate::protocol) fn put_digits(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(digits(number, &mut [0; 20]));
}

/// A number's digits, written to the end of a buffer that holds the longest number.
pub(super) fn digits(mut number: u64, buffer: &mut [u8; 20]) -> &[u8] {
    let mut at = buffer.len();
    loop {
        at -= 1;
        buffer[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            return &buffer[at..];
        }
    }
}

/// The header of a payload of 126 bytes to 64 KiB.
const HEADER_BYTES: usize = 4;
/// The header of any payload.
const HEADER_BYTES_MAX: usize = 10;

fn object(out: &mut Vec<u8>, event_type: &str, fields: impl FnOnce(&mut Vec<u8>)) {
    text_frame(out, |out| {
        out.push(b'{');
        put_field(out, "type", event_type);
        fields(out);
        out.push(b'}');
    });
}

pub(in crate::protocol) fn put_number(out: &mut Vec<u8>, name: &str, number: u64) {
    put_name(out, name);
    put_digits(out, number);
}

pub(in crate::protocol) fn put_correlation(out: &mut Vec<u8>, correlation_id: Option<&str>) {
    if let Some(correlation_id) = correlation_id {
        put_field(out, "correlation_id", correlation_id);
    }
}

fn put_list<'a>(out: &mut Vec<u8>, name: &str, texts: impl IntoIterator<Item = &'a str>) {
    put_name(out, name);
    put_array(out, texts, put_string);
}

pub(in crate::protocol) fn put_array<T>(
    out: &mut Vec<u8>,
    items: impl IntoIterator<Item = T>,
    mut put: impl FnMut(&mut Vec<u8>, T),
) {
    out.push(b'[');
    for (at, item) in items.into_iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        put(out, item);
    }
    out.push(b']');
}
