//! Chat (PROTOCOLS A): a message to a room's members, or to one user. Without state: who may speak in a room the gateway
//! has checked, the history is the homes' and the store's.
//!
//! Law: a private message is one event for the recipient and one for the sender, so that all sessions of both see it.

use serde::Serialize;

use super::{Caller, Outbox, Refused, clean, is_user_id};
use crate::id::{Scope, is_room_id};
use crate::limits;
use crate::ports::{ChatMessage, Write};
use crate::time::WallMillis;

/// A message; texts as the client sent them.
#[derive(Clone, Copy, Debug)]
pub enum Command<'a> {
    /// `chat.command.send_message`.
    Private {
        /// User id.
        recipient_id: Option<&'a str>,
        /// What to say.
        content: Option<&'a str>,
    },
    /// `chat.command.send_lobby_message`.
    Lobby {
        /// Room id.
        lobby_id: Option<&'a str>,
        /// What to say.
        content: Option<&'a str>,
    },
}

/// Carries a command out.
pub fn handle(now: WallMillis, caller: &Caller<'_>, command: &Command<'_>, out: &mut Outbox) {
    out.begin(caller.sender.command, now);
    let (room, outcome) = match *command {
        Command::Private { recipient_id, content } => (None, private(now, caller, recipient_id, content, out)),
        Command::Lobby { lobby_id, content } => (lobby_id, lobby(now, caller, lobby_id, content, out)),
    };
    if let Err(refused) = outcome {
        out.refuse(&caller.sender, room.filter(|room| is_room_id(room)), refused);
    }
}

/// The name under which the messages between two users are stored: no room can have it.
#[must_use]
pub fn conversation(one: &str, other: &str) -> String {
    let (first, second) = if one <= other { (one, other) } else { (other, one) };
    format!("@{}:{first}{second}", first.len())
}

fn lobby(
    now: WallMillis,
    caller: &Caller<'_>,
    lobby_id: Option<&str>,
    content: Option<&str>,
    out: &mut Outbox,
) -> Result<(), Refused> {
    let room = lobby_id.filter(|room| is_room_id(room));
    let room = room.ok_or_else(|| Refused::bad("lobby_id is missing or no room id; send the room to speak in"))?;
    let content = clean("content", content, limits::CHAT_CHARS)?;
    let said = Said { lobby_id: Some(room), ..Said::new(now, caller, &content) };
    out.tell(MESSAGE_RECEIVED, room, &said);
    out.writes.push(stored(now, caller, room, &content));
    Ok(())
}

fn private(
    now: WallMillis,
    caller: &Caller<'_>,
    recipient_id: Option<&str>,
    content: Option<&str>,
    out: &mut Outbox,
) -> Result<(), Refused> {
    let recipient = recipient_id.filter(|user| is_user_id(user));
    let recipient = recipient.ok_or_else(|| Refused::bad("recipient_id is missing or too long; send a user's id"))?;
    let content = clean("content", content, limits::CHAT_CHARS)?;
    let said = Said { recipient_id: Some(recipient), ..Said::new(now, caller, &content) };
    out.emit(MESSAGE_RECEIVED, Scope::User(recipient.into()), recipient, &said);
    if recipient != caller.user {
        out.emit(MESSAGE_RECEIVED, Scope::User(caller.user.into()), caller.user, &said);
    }
    out.writes.push(stored(now, caller, &conversation(caller.user, recipient), &content));
    Ok(())
}

fn stored(now: WallMillis, caller: &Caller<'_>, room: &str, content: &str) -> Write {
    Write::Message(Box::new(ChatMessage {
        id: caller.sender.command,
        room: room.into(),
        sender: caller.user.into(),
        sender_name: caller.name.into(),
        message: content.into(),
        at: now,
    }))
}

/// Payload of `chat.event.message_received`.
#[derive(Serialize)]
struct Said<'a> {
    sender_id: &'a str,
    sender_name: &'a str,
    content: &'a str,
    timestamp: String,
    lobby_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    recipient_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    correlation_id: Option<&'a str>,
}

impl<'a> Said<'a> {
    fn new(now: WallMillis, caller: &Caller<'a>, content: &'a str) -> Self {
        let (sender_id, sender_name, correlation_id) = (caller.user, caller.name, caller.sender.correlation);
        let timestamp = now.rfc3339();
        Self { sender_id, sender_name, content, timestamp, lobby_id: None, recipient_id: None, correlation_id }
    }
}

const MESSAGE_RECEIVED: &str = "chat.event.message_received";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{EventId, SessionId};
    use crate::services::Sender;

    fn said(command: &Command<'_>) -> Outbox {
        let sender = Sender { command: EventId([1; 16]), session: Some(SessionId([2; 16])), correlation: Some("7") };
        let mut out = Outbox::default();
        handle(WallMillis(1000), &Caller { sender, user: "7", name: "Ann" }, command, &mut out);
        out
    }

    /// A lobby message goes to the room once and is stored, without control characters.
    #[test]
    fn a_lobby_hears_a_message() {
        let out = said(&Command::Lobby { lobby_id: Some("arena"), content: Some(" he\u{7}llo\n") });
        assert_eq!(out.events.len(), 1);
        let event = &out.events[0];
        assert_eq!((&event.target, &*event.key), (&Scope::Room("arena".into()), "arena"));
        let payload = r#"{"sender_id":"7","sender_name":"Ann","content":"hello","timestamp":"1970-01-01T00:00:01.000Z","lobby_id":"arena","correlation_id":"7"}"#;
        assert_eq!(event.payload, payload);
        assert!(matches!(&out.writes[..], [Write::Message(it)] if &*it.room == "arena" && &*it.message == "hello"));
    }

    /// A private message goes to both users under ids of their own, and is stored once, whoever of the two speaks.
    #[test]
    fn two_users_hear_a_private_message() {
        let out = said(&Command::Private { recipient_id: Some("8"), content: Some("hi") });
        let targets: Vec<_> = out.events.iter().map(|event| event.target.clone()).collect();
        assert_eq!(targets, [Scope::User("8".into()), Scope::User("7".into())]);
        assert_ne!(out.events[0].id, out.events[1].id);
        assert!(out.events.iter().all(|event| event.payload.contains(r#""lobby_id":null,"recipient_id":"8""#)));
        assert_eq!(out.writes.len(), 1);
        assert_eq!(conversation("7", "8"), conversation("8", "7"));
        assert_ne!(conversation("1", "12"), conversation("11", "2"));
        assert!(!is_room_id(&conversation("a", "b")));
        assert_eq!(said(&Command::Private { recipient_id: Some("7"), content: Some("hi") }).events.len(), 1);
    }

    /// What is too long, empty or addressed to nobody is refused by name and not stored.
    #[test]
    fn bad_messages_are_refused() {
        let fits = "ä".repeat(limits::CHAT_CHARS);
        assert_eq!(said(&Command::Lobby { lobby_id: Some("a"), content: Some(&fits) }).writes.len(), 1);
        let (long, huge) = (format!("{fits}ä"), "a".repeat(1 << 20));
        for (command, code) in [
            (Command::Lobby { lobby_id: Some("a"), content: Some(&long) }, "too_long"),
            (Command::Lobby { lobby_id: Some("a"), content: Some(&huge) }, "too_long"),
            (Command::Lobby { lobby_id: Some("a"), content: Some("\n\u{0} ") }, "bad_request"),
            (Command::Lobby { lobby_id: Some("a b"), content: Some("x") }, "bad_request"),
            (Command::Private { recipient_id: None, content: Some("x") }, "bad_request"),
            (Command::Private { recipient_id: Some("8"), content: None }, "bad_request"),
        ] {
            let out = said(&command);
            assert_eq!((out.events.len(), out.writes.len()), (1, 0), "{command:?}");
            assert!(out.events[0].payload.contains(code) && out.events[0].payload.len() < 300);
        }
    }
}
