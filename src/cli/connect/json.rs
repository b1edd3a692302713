//! `ringgate connect` on `/ws`: each line that is typed is a JSON message of dialect A, each frame one readable line.

use std::net::TcpStream;

use tungstenite::{Message, WebSocket};

use super::{Speaker, leave, print, send};
use crate::protocol::envelope::members::{Json, member, members};
use crate::protocol::envelope::put_string;

/// See the module. A command gets a correlation id if it has none, and the next line waits for its answer, so a piped
/// script needs no pauses.
pub struct JsonConsole {
    socket: WebSocket<TcpStream>,
    json: Json,
    /// Commands that got an id here.
    count: u64,
    /// The room to join after the welcome.
    room: Option<String>,
    refused: bool,
    awaited: Option<Awaited>,
}

/// The answer that input waits for.
#[derive(PartialEq, Eq, Debug)]
enum Awaited {
    /// `system.authenticated`, or that it failed.
    Session,
    /// One with this correlation id, as it stands in the message.
    Answer(String),
}

impl JsonConsole {
    /// A console that will authenticate and then join the room of this name.
    pub fn new(socket: WebSocket<TcpStream>, room: Option<String>) -> Self {
        Self { socket, json: Json::default(), count: 0, room, refused: false, awaited: Some(Awaited::Session) }
    }

    /// Sends `system.authenticate`.
    ///
    /// # Errors
    /// The connection is gone.
    pub fn authenticate(
        &mut self,
        token: Option<&str>,
        resume: Option<&str>,
        delta_window: Option<u32>,
    ) -> Result<(), String> {
        let mut text = r#"{"type":"system.authenticate""#.to_owned();
        for (name, value) in [("token", token), ("resume", resume)] {
            if let Some(value) = value {
                text += &format!(",\"{name}\":{}", quoted(value));
            }
        }
        if let Some(window) = delta_window {
            text += &format!(",\"delta_window\":{window}");
        }
        self.send(&(text + "}"))
    }

    /// Sends a message; a command gets a correlation id, whose answer is waited for.
    fn say(&mut self, object: &str) -> Result<(), String> {
        let Some(event_type) = member(object, "type").filter(|value| value.starts_with('"')) else {
            return Err(format!("a message needs a type; {EXAMPLE}"));
        };
        if event_type.starts_with("\"system.") {
            return self.send(object);
        }
        if let Some(id) = member(object, "correlation_id") {
            self.awaited = Some(Awaited::Answer(id.to_owned()));
            return self.send(object);
        }
        self.count += 1;
        let id = format!("\"{}\"", self.count);
        // It has a type, so a comma is right.
        let rest = object.trim_start().strip_prefix('{').unwrap_or_default();
        let text = format!("{{\"correlation_id\":{id},{rest}");
        self.awaited = Some(Awaited::Answer(id));
        self.send(&text)
    }

    fn send(&mut self, text: &str) -> Result<(), String> {
        send(&mut self.socket, Message::text(text))
    }
}

impl Speaker for JsonConsole {
    fn note(&mut self, message: &[u8]) -> Result<(), String> {
        let text = std::str::from_utf8(message).unwrap_or_default();
        let event_type = member(text, "type").unwrap_or_default();
        match &self.awaited {
            Some(Awaited::Session) if event_type == "\"system.authenticated\"" => {
                self.awaited = None;
                if let Some(room) = self.room.take() {
                    self.say(&format!("{{\"type\":\"games.command.join_room\",\"room_name\":{}}}", quoted(&room)))?;
                }
            }
            // Another token may be typed.
            Some(Awaited::Session) if event_type == "\"system.error\"" => (self.awaited, self.refused) = (None, true),
            None if self.refused && event_type == "\"system.authenticated\"" => self.refused = false,
            Some(Awaited::Answer(id)) if member(text, "correlation_id") == Some(id) => self.awaited = None,
            _ => {}
        }
        Ok(())
    }

    fn carry_out(&mut self, line: &str) -> Result<bool, String> {
        match line {
            "" => {}
            "quit" => return Ok(false),
            "help" => print(&format!("a JSON object is sent as it is; {EXAMPLE} · quit · help"), true),
            object if self.json.check_object(object.as_bytes()).is_some() => self.say(object)?,
            _ => return Err(format!("that is no JSON object; {EXAMPLE}")),
        }
        Ok(true)
    }

    fn describe(&self, message: &[u8]) -> String {
        describe(&String::from_utf8_lossy(message))
    }

    fn waits(&self) -> bool {
        self.awaited.is_some()
    }

    fn is_refused(&self) -> bool {
        self.refused
    }

    fn leave(&mut self) {
        leave(&mut self.socket);
    }
}

/// One line: type, then the fields as they stand.
fn describe(text: &str) -> String {
    let mut line = member(text, "type").map_or_else(|| text.to_owned(), |name| name.trim_matches('"').to_owned());
    for (name, value) in members(text).filter(|(name, _)| *name != "type") {
        line += &format!(" {name}={value}");
    }
    printable(&line)
}

/// JSON escapes most of what would move a terminal's cursor, but neither DEL nor C1.
pub(super) fn printable(line: &str) -> String {
    line.chars().map(|c| if c.is_control() { '\u{FFFD}' } else { c }).collect()
}

/// A JSON string.
pub(super) fn quoted(text: &str) -> String {
    let mut out = Vec::new();
    put_string(&mut out, text);
    String::from_utf8(out).expect("a string of UTF-8 is written as UTF-8")
}

const EXAMPLE: &str = r#"write e.g. {"type":"games.command.list_rooms"}"#;

#[cfg(test)]
mod tests {
    use super::*;

    /// A message is one line with its type first and no control character.
    #[test]
    fn messages_are_readable() {
        let line = describe("{\"at\":[1,2,1],\"type\":\"a.b\",\"text\":\"a \\\"b\\\"\u{7f}\u{9b}\",\"n\":{\"a\":1}}");
        assert_eq!(line, "a.b at=[1,2,1] text=\"a \\\"b\\\"\u{FFFD}\u{FFFD}\" n={\"a\":1}");
        assert_eq!(describe("no JSON"), "no JSON");
    }
}
