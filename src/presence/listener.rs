//! What is said in hubs, read from the bus: `rooms.event.chat` of `rooms.events`, with its place in the room's stream, so
//! that who connects gets each message once, in the first state or behind it.
//!
//! Law: the topic has one partition, for a client of a hub names one place to go on from. Where it gets more, what stands
//! in them reaches clients, but no first state, and that is told once.

use std::fmt;
use std::sync::Arc;

use serde::Deserialize;

use crate::limits;
use crate::message::HubMessage;
use crate::ports::{Bus, Record, partition_name};
use crate::time::WallMillis;

/// A reader of `rooms.events`. See the module.
pub struct Listener {
    bus: Box<dyn Bus>,
    /// Of the first partition.
    name: Arc<str>,
    /// Where to go on.
    next: u64,
    /// As many as there are.
    partitions: u32,
    page: Vec<Record>,
    /// Of what was read last.
    epoch: u64,
}

/// What a [`Listener`] hears.
#[derive(Debug)]
pub enum Heard<'a> {
    /// A message of a room.
    Said(&'a str, HubMessage),
    /// Another numbering begins.
    Renumbered,
}

impl Listener {
    /// Reads what the bus has since then, and the newest before, which a store may not have got. It must be a registered
    /// reader of [`Listener::TOPIC`]. What is older is in no history, so that nobody asks where in the stream it stands.
    #[must_use]
    pub fn new(mut bus: Box<dyn Bus>, since: WallMillis) -> Self {
        let name = partition_name(Self::TOPIC, 0);
        let (first, end) = bus.range(&name);
        let from = bus.since(&name, since).min(end.saturating_sub(LOOK_BACK)).max(first);
        bus.done(&name, from);
        let epoch = bus.epoch(&name);
        Self { bus, name, next: from, partitions: 1, page: Vec::new(), epoch }
    }

    /// What it reads.
    pub const TOPIC: &'static str = "rooms.events";

    /// Reads on to the end: afterwards every message that any home may have is known.
    pub fn hear(&mut self, mut heard: impl FnMut(Heard<'_>)) {
        let Self { bus, name, next, page, epoch, partitions } = self;
        let count = bus.partitions(Self::TOPIC);
        if std::mem::replace(partitions, count) < count {
            tracing::error!(
                topic = Self::TOPIC,
                partitions = count,
                "the topic must have one partition: who visits a room hub is shown nothing of the others when it connects, \
                 and cannot go on from a place in them; make it anew with one"
            );
        }
        loop {
            *next = bus.read(name, *next, limits::BUS_READ_RECORDS, page);
            let numbering = bus.epoch(name);
            if std::mem::replace(epoch, numbering) != numbering {
                heard(Heard::Renumbered);
            }
            if page.is_empty() {
                return;
            }
            for record in page.drain(..) {
                if let Some((room, payload)) = chat(&record.value) {
                    heard(Heard::Said(&room, HubMessage { place: record.offset + 1, payload: payload.into() }));
                }
            }
            bus.done(name, *next);
        }
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener").field("next", &self.next).finish_non_exhaustive()
    }
}

/// Room and payload of a chat message that is for the whole room; what is for some of it is nobody else's.
fn chat(value: &[u8]) -> Option<(String, String)> {
    #[derive(Deserialize)]
    struct Envelope {
        event_type: String,
        target: Option<Target>,
        payload: simd_json::OwnedValue,
    }
    #[derive(Deserialize)]
    struct Target {
        room_id: Option<String>,
        only: Option<simd_json::OwnedValue>,
        except: Option<simd_json::OwnedValue>,
    }
    // Most events are something else: a look at the bytes is cheaper than a parse.
    value.windows(CHAT.len()).any(|bytes| bytes == CHAT.as_bytes()).then_some(())?;
    // Such a one reaches clients as it is, but the parser here descends.
    if limits::is_deep_json(value) {
        return None;
    }
    let envelope: Envelope = simd_json::from_slice(&mut value.to_vec()).ok()?;
    if envelope.event_type != CHAT {
        return None;
    }
    let target = envelope.target?;
    if target.only.is_some() || target.except.is_some() {
        return None;
    }
    Some((target.room_id?, simd_json::to_string(&envelope.payload).ok()?))
}

/// Records read at a start however old they are; more than a worker does between two writes of its store.
const LOOK_BACK: u64 = 4096;
/// The type of what is kept.
const CHAT: &str = "rooms.event.chat";

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::thread;

    use super::*;
    use crate::bus::{EmbeddedBus, TopicBounds};
    use crate::id::ConnAddr;
    use crate::message::Append;
    use crate::router::ThreadWaker;

    /// After a restart what the histories have is read, and the newest of what is older; all else is left alone, and is
    /// not held back on the bus.
    #[test]
    fn a_restart_reads_what_is_new() {
        let bounds = TopicBounds { records: 1 << 20, bytes: 1 << 30 };
        let mut bus = EmbeddedBus::new(1, bounds);
        let wake = Arc::new(ThreadWaker::new(thread::current()));
        let reader = || Box::new(bus.reader(&[Listener::TOPIC], wake.clone()));
        let readers = [reader(), reader(), reader()];
        let (old, new) = (LOOK_BACK + 500, LOOK_BACK + 100);
        for n in 0..old + new {
            let text = format!(r#"{{"event_type":"{CHAT}","target":{{"room_id":"r"}},"payload":{{"n":{n}}}}}"#);
            let (topic, key, value) = (Listener::TOPIC.into(), Box::default(), text.into_bytes().into());
            let append = Append { from: ConnAddr::NOBODY, correlation: 0, topic, key, value };
            bus.append(WallMillis(if n < old { 1 } else { 9 }), &append).unwrap();
        }
        for (reader, (since, first)) in readers.into_iter().zip([(0, 0), (5, old), (10, old + new - LOOK_BACK)]) {
            let mut heard = Vec::new();
            Listener::new(reader, WallMillis(since)).hear(|said| match said {
                Heard::Said(_, message) => heard.push(message.place),
                Heard::Renumbered => panic!("it is one numbering"),
            });
            assert_eq!(heard, (first + 1..=old + new).collect::<Vec<_>>());
        }
    }

    /// Only what is said to a whole room is heard, whatever else stands in the topic.
    #[test]
    fn only_chat_for_everybody_is_heard() {
        let said =
            br#"{"event_type":"rooms.event.chat","target":{"room_id":"r"},"payload":{"message":"hi \"you\"","n":1}}"#;
        assert_eq!(chat(said), Some(("r".into(), r#"{"message":"hi \"you\"","n":1}"#.into())));
        // It would overflow the stack of who descends.
        let deep = "[".repeat(100_000) + &"]".repeat(100_000);
        for other in [
            r#"{"event_type":"rooms.event.vote","target":{"room_id":"r"},"payload":{"message":"rooms.event.chat"}}"#,
            r#"{"event_type":"rooms.event.chat","target":{"room_id":"r","only":["p"]},"payload":{}}"#,
            r#"{"event_type":"rooms.event.chat","target":{"session_id":"s"},"payload":{}}"#,
            r#"{"event_type":"rooms.event.chat","payload":{"room_id":"r"}}"#,
            "rooms.event.chat",
            "",
            &format!(r#"{{"event_type":"{CHAT}","target":{{"room_id":"r"}},"payload":{deep}}}"#),
            &format!(r#"{{"event_type":"{CHAT}","target":{{"room_id":"r"}},"payload":{{}},"more":{deep}}}"#),
        ] {
            assert_eq!(chat(other.as_bytes()), None, "{other}");
        }
    }
}
