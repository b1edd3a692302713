//! A batch: what a worker does between two transactions of the store; and how it is written down before it is begun.

use std::collections::{BTreeMap, HashSet};

use serde::{Deserialize, Serialize};

use super::dispatch::{CHAT, GAMES, PRESENCE, ROOMS};
use crate::id::EventId;
use crate::ports::{Bus, Record, Write};
use crate::protocol::envelope::members::{member, text};
use crate::services::rooms::Outcome;
use crate::time::WallMillis;

/// The topics that a worker reads commands from, for which it must be the bus's registered reader.
pub const COMMAND_TOPICS: [&str; 4] = [PRESENCE, GAMES, CHAT, ROOMS];
/// The topics that the services' events go to.
pub const SERVICE_EVENT_TOPICS: [&str; 3] = ["games.events", "chat.events", "rooms.events"];

/// What is to be done, in this order: the outcomes, the records topic by topic, the timers. Written down before it is
/// begun, so that it is the same when it is begun again: neither what arrived meanwhile nor the clock changes it.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize, Debug)]
pub struct Plan {
    /// Timers that are due then are carried out.
    pub until: WallMillis,
    /// Passwords that were hashed, by ticket.
    pub outcomes: Vec<(u64, Outcome)>,
    /// By [`COMMAND_TOPICS`]: the offset behind the last record.
    pub to: Vec<u64>,
}

/// A plan and its records.
#[derive(Debug)]
pub struct Batch {
    pub plan: Plan,
    /// By [`COMMAND_TOPICS`].
    pub records: Vec<Vec<Record>>,
}

/// Where a worker stands: everything before is done.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize, Debug)]
pub struct Places {
    /// Time does not go back behind that.
    pub until: WallMillis,
    topics: BTreeMap<String, Place>,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Debug)]
struct Place {
    epoch: u64,
    next: u64,
}

impl Places {
    /// Where to go on in the topics; from the beginning in those whose numbering is another, at the end of those that
    /// are shorter than they were: such a log is an older copy, and what comes now is new. And whether all are as they
    /// were, so that a plan still means what it says.
    pub fn next(&self, bus: &impl Bus) -> (Vec<u64>, bool) {
        let (mut next, mut same) = (Vec::with_capacity(COMMAND_TOPICS.len()), true);
        for topic in COMMAND_TOPICS {
            let place = self.topics.get(topic).filter(|place| place.epoch == bus.epoch(topic));
            let (_, end) = bus.range(topic);
            same &= place.is_some_and(|place| place.next <= end);
            next.push(place.map_or(0, |place| place.next.min(end)));
        }
        (next, same)
    }

    /// The places behind these offsets.
    pub fn at(bus: &impl Bus, until: WallMillis, next: &[u64]) -> Self {
        let place =
            |(topic, next): (&&str, &u64)| ((*topic).to_owned(), Place { epoch: bus.epoch(topic), next: *next });
        Self { until, topics: COMMAND_TOPICS.iter().zip(next).map(place).collect() }
    }
}

/// A record of the worker itself.
pub fn own_record(key: &str, state: &impl Serialize) -> Write {
    let value = simd_json::to_vec(state).expect("plain data is always JSON");
    Write::Put { service: WORKER, key: key.into(), value: value.into() }
}

/// The records `from..to` of a topic, as far as they are kept.
///
/// # Errors
/// See [`each_record`].
pub fn read_range(bus: &mut impl Bus, topic: &str, from: u64, to: u64) -> Result<Vec<Record>, String> {
    let mut records = Vec::new();
    each_record(bus, topic, from, to, |record| records.push(record))?;
    Ok(records)
}

/// Gives the records `from..to` of a topic one after the other, as far as they are kept; a page of them at a time is in
/// memory.
///
/// # Errors
/// One line, if what the bus says it has cannot be read: whoever went on without it would skip commands, or do some twice.
pub fn each_record(
    bus: &mut impl Bus,
    topic: &str,
    from: u64,
    to: u64,
    mut give: impl FnMut(Record),
) -> Result<(), String> {
    let (mut next, to, mut page) = (from, to.min(bus.range(topic).1), Vec::new());
    while next < to {
        let most = usize::try_from(to - next).unwrap_or(usize::MAX).min(PAGE);
        let behind = bus.read(topic, next, most, &mut page);
        if page.is_empty() {
            let (first, _) = bus.range(topic);
            if first <= next {
                return Err(format!(
                    "the bus's topic {topic} cannot be read at {next}, where the services go on; see why in the log above, \
                     and start anew"
                ));
            }
            next = first;
            continue;
        }
        next = behind;
        page.drain(..).filter(|record| record.offset < to).for_each(&mut give);
    }
    Ok(())
}

/// The ids of all records of a topic since then.
///
/// # Errors
/// See [`each_record`].
pub fn ids_since(bus: &mut impl Bus, topic: &str, since: WallMillis, ids: &mut HashSet<EventId>) -> Result<(), String> {
    let from = bus.since(topic, since);
    each_record(bus, topic, from, u64::MAX, |record| ids.extend(id_of(&record)))
}

/// The id in a record's envelope.
pub fn id_of(record: &Record) -> Option<EventId> {
    let envelope = std::str::from_utf8(&record.value).ok()?;
    member(envelope, "event_id").and_then(text).and_then(|id| EventId::parse(&id))
}

/// Whose records the worker's own are in the store.
pub const WORKER: &str = "worker";
/// Records copied at a time.
const PAGE: usize = 256;
