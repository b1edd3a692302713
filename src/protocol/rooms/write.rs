//! The gateway's own frames of dialect B, and the bodies of its HTTP answers. Every function but those of bodies appends
//! one whole unmasked WebSocket text frame.

use crate::id::{RoomCode, StreamHandle};
use crate::message::{ErrorCode, HubMember, Introduction, LostReason};
use crate::protocol::envelope::{put_field, put_name, put_string};
use crate::protocol::gateway::write::{put_array, put_correlation, put_number, put_stream, text_frame};
use crate::time::WallMillis;

/// What the first `state` says.
#[derive(Clone, Copy, Debug)]
pub struct Joined<'a> {
    /// Room id.
    pub room: &'a str,
    /// What players type.
    pub code: RoomCode,
    /// Capacity.
    pub max_players: u32,
    /// Who has a place.
    pub members: &'a [HubMember],
    /// The newest chat payloads up to the stream's offset, the oldest of them first.
    pub messages: &'a [&'a str],
    /// The room's stream of events; its frames follow from behind this offset on.
    pub stream: &'a Introduction,
    /// Whether a resume goes on without a gap; false without one.
    pub recovered: bool,
    /// Why a resume could not.
    pub reason: Option<LostReason>,
}

/// `state`, `joined`.
pub fn joined(out: &mut Vec<u8>, joined: &Joined<'_>) {
    state(out, "joined", None, |out| {
        put_field(out, "room_id", joined.room);
        put_field(out, "code", joined.code.as_str());
        put_number(out, "max_players", u64::from(joined.max_players));
        put_members(out, joined.members);
        put_messages(out, joined.messages);
        put_name(out, "stream");
        put_stream(out, joined.stream);
        put_name(out, "recovered");
        out.extend_from_slice(if joined.recovered { b"true" } else { b"false" });
        if let Some(reason) = joined.reason {
            put_field(out, "reason", reason.name());
        }
    });
}

/// `state`, `pong`.
pub fn pong(out: &mut Vec<u8>, now: WallMillis, correlation_id: Option<&str>) {
    state(out, "pong", correlation_id, |out| put_field(out, "timestamp", &now.rfc3339()));
}

/// `state`, `members`.
pub fn members(out: &mut Vec<u8>, members: &[HubMember], correlation_id: Option<&str>) {
    state(out, "members", correlation_id, |out| put_members(out, members));
}

/// `state`, `history`.
pub fn history(out: &mut Vec<u8>, messages: &[&str], correlation_id: Option<&str>) {
    state(out, "history", correlation_id, |out| put_messages(out, messages));
}

/// `state`, `position`: introduces other streams than the room's own, before their frames.
pub fn position<'a>(out: &mut Vec<u8>, introductions: impl IntoIterator<Item = &'a Introduction>) {
    state(out, "position", None, |out| {
        put_name(out, "streams");
        put_array(out, introductions, put_stream);
    });
}

/// `state`, `skipped`: deltas of the stream left out since last told.
pub fn skipped(out: &mut Vec<u8>, stream: StreamHandle, count: u64) {
    state(out, "skipped", None, |out| {
        put_number(out, "stream", u64::from(stream.0));
        put_number(out, "count", count);
    });
}

/// `error`.
pub fn error(out: &mut Vec<u8>, code: ErrorCode, message: &str, correlation_id: Option<&str>) {
    text_frame(out, |out| {
        out.extend_from_slice(b"{\"type\":\"error\"");
        put_correlation(out, correlation_id);
        out.extend_from_slice(b",\"payload\":{");
        put_field(out, "code", code.name());
        put_field(out, "message", message);
        out.extend_from_slice(b"}}");
    });
}

/// The body of the answer to who makes a room or joins it.
#[must_use]
pub fn enrolled(code: RoomCode, room: &str, player: &str, token: &str) -> String {
    let mut out = vec![b'{'];
    put_field(&mut out, "code", code.as_str());
    put_field(&mut out, "room_id", room);
    put_field(&mut out, "player_id", player);
    put_field(&mut out, "token", token);
    out.push(b'}');
    String::from_utf8(out).expect("it was made of text")
}

/// The body of a refusal; `field` names what of the request is wrong.
#[must_use]
pub fn refusal(code: &str, message: &str, field: Option<&str>) -> String {
    let mut out = b"{\"error\":{".to_vec();
    put_field(&mut out, "code", code);
    put_field(&mut out, "message", message);
    if let Some(field) = field {
        put_field(&mut out, "field", field);
    }
    out.extend_from_slice(b"}}");
    String::from_utf8(out).expect("it was made of text")
}

fn state(out: &mut Vec<u8>, event: &str, correlation_id: Option<&str>, payload: impl FnOnce(&mut Vec<u8>)) {
    text_frame(out, |out| {
        out.extend_from_slice(b"{\"type\":\"state\"");
        put_field(out, "event", event);
        put_correlation(out, correlation_id);
        out.extend_from_slice(b",\"payload\":{");
        payload(out);
        out.extend_from_slice(b"}}");
    });
}

fn put_members(out: &mut Vec<u8>, members: &[HubMember]) {
    put_name(out, "members");
    put_array(out, members, |out, member| {
        out.extend_from_slice(b"{\"player_id\":");
        put_string(out, &member.player);
        put_field(out, "display_name", &member.name);
        put_name(out, "connected");
        out.extend_from_slice(if member.connected { b"true}" } else { b"false}" });
    });
}

/// Payloads are JSON as they stand.
fn put_messages(out: &mut Vec<u8>, messages: &[&str]) {
    put_name(out, "messages");
    put_array(out, messages, |out, message| out.extend_from_slice(message.as_bytes()));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Position;

    fn text(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut frame = Vec::new();
        write(&mut frame);
        let from = if frame[1] < 126 { 2 } else { 4 };
        assert_eq!(frame[0], 0x81);
        String::from_utf8(frame[from..].to_vec()).unwrap()
    }

    /// Golden texts of every frame and body.
    #[test]
    fn frames_are_exact() {
        let member = |player: &str, connected| HubMember { player: player.into(), name: "A \"B\"".into(), connected };
        let position = Position { stream: "rooms.events.0/room:r".into(), epoch: 9, place: 4 };
        let stream = Introduction { handle: StreamHandle(3), position, publishers_only: false };
        let state = Joined {
            room: "r",
            code: RoomCode::parse("ABC234").unwrap(),
            max_players: 10,
            members: &[member("p", true), member("q", false)],
            messages: &[r#"{"message":"hi"}"#, r#"{"message":"ho"}"#],
            stream: &stream,
            recovered: false,
            reason: Some(LostReason::EpochChanged),
        };
        let members = r#""members":[{"player_id":"p","display_name":"A \"B\"","connected":true},{"player_id":"q","display_name":"A \"B\"","connected":false}]"#;
        let messages = r#""messages":[{"message":"hi"},{"message":"ho"}]"#;
        let introduced = r#"{"handle":3,"stream":"rooms.events.0/room:r","epoch":9,"offset":4}"#;
        assert_eq!(
            text(|out| joined(out, &state)),
            format!(
                r#"{{"type":"state","event":"joined","payload":{{"room_id":"r","code":"ABC234","max_players":10,{members},{messages},"stream":{introduced},"recovered":false,"reason":"epoch_changed"}}}}"#
            )
        );
        for (frame, expected) in [
            (
                text(|out| pong(out, WallMillis(5), Some("c"))),
                r#"{"type":"state","event":"pong","correlation_id":"c","payload":{"timestamp":"1970-01-01T00:00:00.005Z"}}"#.into(),
            ),
            (
                text(|out| super::members(out, state.members, None)),
                format!(r#"{{"type":"state","event":"members","payload":{{{members}}}}}"#),
            ),
            (
                text(|out| history(out, state.messages, None)),
                format!(r#"{{"type":"state","event":"history","payload":{{{messages}}}}}"#),
            ),
            (
                text(|out| super::position(out, [&stream])),
                format!(r#"{{"type":"state","event":"position","payload":{{"streams":[{introduced}]}}}}"#),
            ),
            (
                text(|out| skipped(out, StreamHandle(3), 7)),
                r#"{"type":"state","event":"skipped","payload":{"stream":3,"count":7}}"#.into(),
            ),
            (
                text(|out| error(out, ErrorCode::TooLong, "no \"more\"", Some("c"))),
                r#"{"type":"error","correlation_id":"c","payload":{"code":"too_long","message":"no \"more\""}}"#.into(),
            ),
        ] {
            assert_eq!(frame, expected);
        }
        let body = enrolled(state.code, "r", "p", "t");
        assert_eq!(body, r#"{"code":"ABC234","room_id":"r","player_id":"p","token":"t"}"#);
        let body = refusal("bad_request", "expected \"x\"", Some("f"));
        assert_eq!(body, r#"{"error":{"code":"bad_request","message":"expected \"x\"","field":"f"}}"#);
        assert_eq!(refusal("room_full", "full", None), r#"{"error":{"code":"room_full","message":"full"}}"#);
    }
}
