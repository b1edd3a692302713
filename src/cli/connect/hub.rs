//! `ringgate connect` at `/ws/rooms`: enters a room of the hub, by HTTP if it has only a name; a typed line is a command of
//! dialect B, each message one readable line.

use std::io::{Read, Write};
use std::net::TcpStream;

use serde::Deserialize;
use tungstenite::{Message, WebSocket};

use super::json::{printable, quoted};
use super::{Halves, Speaker, connect, leave, print, reach, send, split};
use crate::protocol::envelope::Json;
use crate::protocol::envelope::members::{member, members};
use crate::protocol::frames::json::read;

/// Connects to the room of the URL with a player's token, or as a new player of this name; without a code in the path the
/// player makes a room.
///
/// # Errors
/// Why there is no connection, with the remedy.
pub fn enter(url: &str, name: Option<&str>, token: Option<&str>) -> Result<Halves, String> {
    let (host, path) = split(url)?;
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let code = path.strip_prefix("/ws/rooms").unwrap_or_default().trim_matches('/');
    match (name, token) {
        (Some(_), Some(_)) => Err("--name and --token: leave one out".into()),
        (Some(name), None) => {
            let call = if code.is_empty() { "/api/rooms".to_owned() } else { format!("/api/rooms/{code}/join") };
            let ticket = enrol(host, &call, name)?;
            let url = format!("ws://{host}/ws/rooms/{}", ticket.code);
            print(&format!("room {}; others enter by: ringgate connect {url} --name NAME", ticket.code), true);
            connect(&url, Some(&ticket.token))
        }
        (None, _) if code.is_empty() => Err("who are you? give --name NAME, which makes a room".into()),
        (None, None) if query.is_empty() => Err("who are you? give --name NAME to join the room, or --token".into()),
        (None, token) => connect(url, token),
    }
}

/// What the rooms API answers.
#[derive(Deserialize)]
struct Ticket {
    code: String,
    token: String,
}

/// Longest answer of the rooms API.
const ANSWER_BYTES_MAX: u64 = 16 << 10;

fn enrol(host: &str, call: &str, name: &str) -> Result<Ticket, String> {
    let mut stream = reach(host)?;
    let body = format!("{{\"display_name\":{}}}", quoted(name));
    let request = format!(
        "POST {call} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{body}",
        body.len()
    );
    let failed = |error| format!("POST {call}: {error}");
    stream.write_all(request.as_bytes()).map_err(failed)?;
    let mut answer = String::new();
    stream.take(ANSWER_BYTES_MAX).read_to_string(&mut answer).map_err(failed)?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.lines().next().unwrap_or_default();
    let status = status.split_once(' ').map_or(status, |(_, status)| status);
    if !status.starts_with('2') {
        return Err(format!("POST {call}: {}", printable(&format!("{status} {body}"))));
    }
    read(&mut body.as_bytes().to_vec()).map_err(|error| format!("POST {call}: {error} in {}", printable(body)))
}

/// See the module. The first line waits for the first state, the one behind `members`, `history` and `ping` for the
/// answer; what is said has none.
pub struct HubConsole {
    socket: WebSocket<TcpStream>,
    json: Json,
    count: u64,
    awaited: Option<Awaited>,
}

/// What input waits for.
#[derive(PartialEq, Eq, Debug)]
enum Awaited {
    /// `state`, `joined`.
    Joined,
    /// What has this correlation id.
    Answer(u64),
}

impl HubConsole {
    /// A console of a player who is let in.
    pub fn new(socket: WebSocket<TcpStream>) -> Self {
        Self { socket, json: Json::default(), count: 0, awaited: Some(Awaited::Joined) }
    }

    fn say(&mut self, kind: &str, payload: &str) -> Result<(), String> {
        self.count += 1;
        let text = format!("{{\"type\":\"{kind}\",\"correlation_id\":\"{}\",\"payload\":{payload}}}", self.count);
        send(&mut self.socket, Message::text(text))
    }
}

impl Speaker for HubConsole {
    fn note(&mut self, message: &[u8]) -> Result<(), String> {
        let text = std::str::from_utf8(message).unwrap_or_default();
        let answered = match self.awaited {
            // A refusal is followed by a close.
            Some(Awaited::Joined) => true,
            Some(Awaited::Answer(id)) => member(text, "correlation_id") == Some(&format!("\"{id}\"")),
            None => false,
        };
        if answered {
            self.awaited = None;
        }
        Ok(())
    }

    fn carry_out(&mut self, line: &str) -> Result<bool, String> {
        let (verb, rest) = line.split_once(' ').map_or((line, ""), |(verb, rest)| (verb, rest.trim()));
        match verb {
            "" => {}
            "quit" => return Ok(false),
            "help" => print(HELP, true),
            "chat" => self.say("chat", &format!("{{\"message\":{}}}", quoted(rest)))?,
            "vote" | "action" if self.json.check_object(rest.as_bytes()).is_some() => self.say(verb, rest)?,
            "vote" | "action" => return Err(format!("write: {verb} JSON, an object")),
            "members" | "history" | "ping" => {
                self.say("system", &format!("{{\"op\":\"{verb}\"}}"))?;
                self.awaited = Some(Awaited::Answer(self.count));
            }
            other => return Err(format!("{other:?} is no command; write help")),
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
        // A refusal closes the connection.
        false
    }

    fn leave(&mut self) {
        leave(&mut self.socket);
    }
}

const HELP: &str = "chat TEXT · vote JSON · action JSON · members · history · ping · quit · help";

/// One line: type and event, the payload's fields as they stand, then what else the message has.
fn describe(text: &str) -> String {
    let name = |name: &str| member(text, name).map(|value| value.trim_matches('"'));
    let Some(kind) = name("type") else { return printable(text) };
    let mut line = name("event").map_or_else(|| kind.to_owned(), |event| format!("{kind} {event}"));
    let payload = member(text, "payload").unwrap_or_default();
    let rest = members(text).filter(|(name, _)| !["type", "event", "payload"].contains(name));
    for (name, value) in members(payload).chain(rest) {
        line += &format!(" {name}={value}");
    }
    printable(&line)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A message is one line: what it is, its payload's fields, its place; no control character reaches the terminal.
    #[test]
    fn messages_are_readable() {
        let chat = r#"{"type":"event","event":"chat","at":[2,2,1],"payload":{"display_name":"Ann","message":"x"}}"#;
        assert_eq!(describe(chat), r#"event chat display_name="Ann" message="x" at=[2,2,1]"#);
        let error = r#"{"type":"error","correlation_id":"1","payload":{"code":"bad_request","message":"no"}}"#;
        assert_eq!(describe(error), r#"error code="bad_request" message="no" correlation_id="1""#);
        assert_eq!(describe("no JSON\u{9b}"), "no JSON\u{FFFD}");
    }

    /// Whoever says neither name nor token, or both, is told what to give before anything is sent.
    #[test]
    fn entering_needs_a_name_or_a_token() {
        for (url, name, token, remedy) in [
            ("ws://127.0.0.1:1/ws/rooms", None, Some("t"), "--name NAME, which makes a room"),
            ("ws://127.0.0.1:1/ws/rooms/ABCDEF", None, None, "--name NAME to join"),
            ("ws://127.0.0.1:1/ws/rooms/ABCDEF", Some("Ann"), Some("t"), "leave one out"),
            ("ws://127.0.0.1:1/ws/rooms/ABCDEF", Some("Ann"), None, "cannot reach 127.0.0.1:1"),
            ("ws://127.0.0.1:1/ws/rooms/ABCDEF?token=t", None, None, "cannot reach 127.0.0.1:1"),
        ] {
            let error = enter(url, name, token).err().unwrap();
            assert!(error.contains(remedy), "{error}");
        }
    }
}
