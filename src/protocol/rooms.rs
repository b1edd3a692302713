//! Dialect B, room hub JSON (PROTOCOLS "B. Room hub"): what clients send, over the socket and by HTTP. Stream frames in
//! B's form are `gateway::transcode`'s; [`mod@write`] holds the gateway's own.
//!
//! Nothing here changes its input, so a message that has to wait can be read again.

pub mod write;

use std::borrow::Cow;

use super::envelope::Json;
use super::envelope::members::{given_twice, member, text};
use super::gateway::{self, Fields, Malformed};
use crate::limits;

/// A message of a client.
#[derive(Debug)]
pub struct Message<'a> {
    /// What it asks for.
    pub wish: Result<Wish<'a>, Unfit>,
    /// To be echoed.
    pub correlation_id: Option<Cow<'a, str>>,
    /// The whole object as it was sent.
    pub body: &'a str,
}

/// What a message asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wish<'a> {
    /// A command for a backend: its full type, and the client's fields, a JSON object's text.
    Command(&'static str, &'a str),
    /// An answer of the gateway.
    System(Op),
}

/// See [`Wish::System`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Op {
    /// Whether it is there.
    Ping,
    /// Who has a place in the room.
    Members,
    /// What was said last.
    History,
}

impl Op {
    /// Its row of the type table; a ping has none.
    #[must_use]
    pub fn command(self) -> Option<&'static str> {
        match self {
            Self::Ping => None,
            Self::Members => Some("rooms.command.members"),
            Self::History => Some("rooms.command.history"),
        }
    }
}

/// Why a message that was read is not carried out; each is an error code with its text.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unfit {
    /// `unknown_type`.
    Type,
    /// `bad_request`: no object of fields.
    Payload,
    /// `bad_request`: no text to say.
    Empty,
    /// `too_long`: too much to say.
    Long,
    /// `bad_request`: no operation of the gateway's.
    Op,
    /// `bad_request`: a field that the gateway reads is there more than once.
    Twice(&'static str),
}

impl Unfit {
    /// The error's text.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::Type => "type: expected chat, vote, action or system",
            Self::Payload => "payload: expected an object",
            Self::Empty => "payload.message: expected 1-2000 characters",
            Self::Long => "payload.message: too long; send at most 2000 characters",
            Self::Op => "payload.op: expected ping, members or history",
            Self::Twice(text) => text,
        }
    }
}

/// Reads a client's message; see [`gateway::parse`].
///
/// # Errors
/// Whatever is not a message.
pub fn parse<'a>(bytes: &'a [u8], fields: &'a mut Fields) -> Result<Message<'a>, Malformed> {
    let gateway::Inbound::Command(command) = gateway::parse(bytes, fields)? else {
        let body = std::str::from_utf8(bytes).unwrap_or_default();
        return Ok(Message { wish: Err(Unfit::Type), correlation_id: None, body });
    };
    let payload = command.value("payload").filter(|value| value.starts_with('{'));
    let wish = match (&*command.event_type, payload) {
        ("chat" | "vote" | "action" | "system", None) => Err(Unfit::Payload),
        ("chat", Some(payload)) => sayable(payload).map(|()| Wish::Command("rooms.command.chat", payload)),
        ("vote", Some(payload)) => Ok(Wish::Command("rooms.command.vote", payload)),
        ("action", Some(payload)) => Ok(Wish::Command("rooms.command.action", payload)),
        ("system", Some(payload)) => op(payload).map(Wish::System),
        _ => Err(Unfit::Type),
    };
    Ok(Message { wish, correlation_id: command.correlation_id, body: command.body })
}

/// A body of `POST /api/rooms` or of its join.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// The player's name, 1–64 characters.
    pub display_name: String,
    /// The room's capacity, if it is said.
    pub max_players: Option<u32>,
}

/// Reads the body of a call.
///
/// # Errors
/// The field that is wrong, empty for the whole; and what is expected.
pub fn entry(body: &[u8], json: &mut Json) -> Result<Entry, (&'static str, &'static str)> {
    let object = json.check_object(body).ok_or(("", "the body must be a JSON object"))?;
    if let Some(name) = given_twice(object, &["display_name", "max_players"]) {
        return Err((name, "given twice; give it once"));
    }
    let name = member(object, "display_name").filter(|value| value.starts_with('"')).and_then(text);
    let kept: String = name.as_deref().unwrap_or_default().chars().filter(|c| !c.is_control()).collect();
    let display_name = kept.trim().to_owned();
    if !(1..=limits::DISPLAY_NAME_CHARS).contains(&display_name.chars().count()) {
        return Err(("display_name", "expected a string of 1-64 characters"));
    }
    let max_players = match member(object, "max_players").filter(|value| *value != "null") {
        None => None,
        Some(value) => {
            let players = value.parse().ok().filter(|players| (1..=limits::ROOM_PLAYERS_MAX).contains(players));
            Some(players.ok_or(("max_players", "expected a whole number from 1 to 100"))?)
        }
    };
    Ok(Entry { display_name, max_players })
}

/// Whether a chat message has 1 to [`limits::CHAT_CHARS`] characters that others may see.
fn sayable(payload: &str) -> Result<(), Unfit> {
    if given_twice(payload, &["message"]).is_some() {
        return Err(Unfit::Twice("payload.message: given twice; give it once"));
    }
    let message = member(payload, "message").filter(|value| value.starts_with('"')).and_then(text);
    let seen = message.as_deref().unwrap_or_default().chars().filter(|c| !c.is_control());
    match seen.take(limits::CHAT_CHARS + 1).count() {
        0 => Err(Unfit::Empty),
        count if count > limits::CHAT_CHARS => Err(Unfit::Long),
        _ => Ok(()),
    }
}

fn op(payload: &str) -> Result<Op, Unfit> {
    if given_twice(payload, &["op"]).is_some() {
        return Err(Unfit::Twice("payload.op: given twice; give it once"));
    }
    match member(payload, "op").and_then(text).as_deref() {
        Some("ping") => Ok(Op::Ping),
        Some("members") => Ok(Op::Members),
        Some("history") => Ok(Op::History),
        _ => Err(Unfit::Op),
    }
}

const _: () =
    assert!(limits::CHAT_CHARS == 2000 && limits::DISPLAY_NAME_CHARS == 64 && limits::ROOM_PLAYERS_MAX == 100);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn wish(message: &str) -> Result<String, String> {
        let mut fields = Fields::default();
        let read = parse(message.as_bytes(), &mut fields).map_err(|error| error.to_string())?;
        read.wish.map(|wish| format!("{wish:?}")).map_err(|unfit| unfit.text().to_owned())
    }

    /// Every message of PROTOCOLS B is read, and what is none says why.
    #[test]
    fn messages_are_read() {
        let payload = r#"{"message":"hi","n":[1]}"#;
        let chat = format!(r#"{{"type":"chat","correlation_id":7,"payload":{payload}}}"#);
        let mut fields = Fields::default();
        let read = parse(chat.as_bytes(), &mut fields).unwrap();
        assert_eq!(read.wish, Ok(Wish::Command("rooms.command.chat", payload)));
        assert_eq!((read.correlation_id.as_deref(), read.body), (Some("7"), &*chat));
        for (message, expected) in [
            (r#"{"type":"vote","payload":{}}"#, Ok(r#"Command("rooms.command.vote", "{}")"#)),
            (r#"{"type":"action","payload":{"a":1}}"#, Ok(r#"Command("rooms.command.action", "{\"a\":1}")"#)),
            (r#"{"type":"system","payload":{"op":"ping"}}"#, Ok("System(Ping)")),
            (r#"{"type":"system","payload":{"op":"members"}}"#, Ok("System(Members)")),
            (r#"{"type":"system","payload":{"op":"history"}}"#, Ok("System(History)")),
            (r#"{"type":"system","payload":{"op":"stop"}}"#, Err(Unfit::Op.text())),
            (r#"{"type":"chat"}"#, Err(Unfit::Payload.text())),
            (r#"{"type":"vote","payload":[1]}"#, Err(Unfit::Payload.text())),
            (r#"{"type":"chat","payload":{"message":7}}"#, Err(Unfit::Empty.text())),
            (r#"{"type":"chat","payload":{"message":"\u0007"}}"#, Err(Unfit::Empty.text())),
            (
                r#"{"type":"chat","payload":{"message":"a","m\u0065ssage":"b"}}"#,
                Err("payload.message: given twice; give it once"),
            ),
            (
                r#"{"type":"system","payload":{"op":"ping","op":"members"}}"#,
                Err("payload.op: given twice; give it once"),
            ),
            (r#"{"type":"chat","type":"vote","payload":{}}"#, Err("type: given twice; give it once")),
            (r#"{"type":"dance","payload":{}}"#, Err(Unfit::Type.text())),
            (r#"{"type":"system.authenticate","token":"t"}"#, Err(Unfit::Type.text())),
            (r#"{"type":"chat","#, Err("malformed JSON: expected a field's name in quotes at byte 15")),
            ("[]", Err("not a JSON object; send {\"type\": …}")),
        ] {
            assert_eq!(wish(message).as_deref().map_err(|text| &**text), expected, "{message}");
        }
    }

    /// A chat message has 1 to 2,000 characters, control characters not counted.
    #[test]
    fn chat_is_measured_in_characters() {
        let chat = |text: &str| wish(&format!(r#"{{"type":"chat","payload":{{"message":"{text}"}}}}"#)).is_ok();
        assert!(chat("ä") && chat(&"ä".repeat(2000)) && chat(&("ä".repeat(2000) + r"\u0000\n")));
        assert!(!chat(&"ä".repeat(2001)) && !chat(""));
    }

    /// Bodies of the rooms API are read; what is wrong is named by its field.
    #[test]
    fn bodies_name_the_field_that_is_wrong() {
        let mut json = Json::default();
        let mut read = |body: &str| entry(body.as_bytes(), &mut json).map_err(|(field, _)| field);
        let named = |name: &str, max_players| Ok(Entry { display_name: name.into(), max_players });
        assert_eq!(read(r#"{"display_name":" Ann\u0000 ","other":1}"#), named("Ann", None));
        assert_eq!(read(r#"{"display_name":"Ann","max_players":100}"#), named("Ann", Some(100)));
        let long = format!(r#"{{"display_name":"{}"}}"#, "x".repeat(65));
        for (body, field) in [
            ("", ""),
            ("[]", ""),
            ("{", ""),
            ("{}", "display_name"),
            (r#"{"display_name":7}"#, "display_name"),
            (r#"{"display_name":"A","display_name":"B"}"#, "display_name"),
            (r#"{"display_name":"A","max_players":2,"max_pl\u0061yers":3}"#, "max_players"),
            (r#"{"display_name":" "}"#, "display_name"),
            (&long, "display_name"),
            (r#"{"display_name":"A","max_players":0}"#, "max_players"),
            (r#"{"display_name":"A","max_players":101}"#, "max_players"),
            (r#"{"display_name":"A","max_players":"9"}"#, "max_players"),
            (r#"{"display_name":"A","max_players":1.5}"#, "max_players"),
        ] {
            assert_eq!(read(body), Err(field), "{body}");
        }
    }

    proptest! {
        /// Whatever bytes come, reading them ends without a panic.
        #[test]
        fn any_bytes_are_read(bytes in prop::collection::vec(any::<u8>(), 0..200), text in r#"[{}":,a-z\\0-9]{0,60}"#) {
            let mut fields = Fields::default();
            let _ = parse(&bytes, &mut fields);
            let _ = parse(format!(r#"{{"type":"chat","payload":{text}}}"#).as_bytes(), &mut fields);
            let _ = entry(&bytes, &mut Json::default());
            let _ = entry(text.as_bytes(), &mut Json::default());
        }
    }
}
