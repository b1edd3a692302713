//! A batch: what a worker does between two transactions of the store; and how it is written down before it is begun.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::dispatch::{CHAT, GAMES, PRESENCE, ROOMS};
use super::lanes::{Lane, Lanes, Pages};
use crate::id::EventId;
use crate::ports::{Bus, Durability, Record, Write, partition_name};
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
    /// By [`COMMAND_TOPICS`]: the offset behind the last record of the first partition.
    to: Vec<u64>,
    /// The same of further partitions of which there are records, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    more: Vec<(String, u64)>,
}

impl Plan {
    /// A plan of these pages.
    pub fn new(until: WallMillis, outcomes: Vec<(u64, Outcome)>, lanes: &Lanes, to: &[u64]) -> Self {
        let mut plan = Self { until, outcomes, to: Vec::new(), more: Vec::new() };
        for (lane, to) in lanes.iter().zip(to) {
            match COMMAND_TOPICS.contains(&&*lane.name) {
                true => plan.to.push(*to),
                false if *to != lane.next => plan.more.push((lane.name.as_ref().to_owned(), *to)),
                false => {}
            }
        }
        plan
    }

    /// Whether it was made for these topics.
    pub fn is_of_today(&self) -> bool {
        self.to.len() == COMMAND_TOPICS.len()
    }

    /// The offsets behind its records, by lane; `None` if these are not the lanes it was made with.
    pub fn ends(&self, lanes: &Lanes) -> Option<Vec<u64>> {
        let firsts = COMMAND_TOPICS.iter().zip(&self.to).map(|(topic, to)| (*topic, *to));
        let named: BTreeMap<&str, u64> =
            firsts.chain(self.more.iter().map(|(name, to)| (name.as_str(), *to))).collect();
        let known = lanes.iter().filter(|lane| named.contains_key(&*lane.name)).count();
        let to = |lane: &Lane| named.get(&*lane.name).copied().unwrap_or(lane.next);
        (known == named.len()).then(|| lanes.iter().map(to).collect())
    }
}

/// A plan and its records.
#[derive(Debug)]
pub struct Batch {
    pub plan: Plan,
    pub pages: Pages,
}

/// Where a worker stands: everything before is done.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize, Debug)]
pub struct Places {
    /// Time does not go back behind that.
    pub until: WallMillis,
    /// By what readers call the partition.
    topics: BTreeMap<String, Place>,
}

/// Where it stands in a partition.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub struct Place {
    /// The numbering.
    pub epoch: u64,
    /// Behind what is done.
    pub next: u64,
}

impl Places {
    /// The place in a partition, if it has one.
    pub fn of(&self, name: &str) -> Option<Place> {
        self.topics.get(name).copied()
    }

    /// The places behind these offsets.
    pub fn at(lanes: &Lanes, until: WallMillis, next: &[u64]) -> Self {
        Self { until, topics: lanes.iter().zip(next).map(|(lane, next)| lane.place(*next)).collect() }
    }
}

/// A record of the worker itself.
pub fn own_record(key: &str, state: &impl Serialize) -> Write {
    let value = simd_json::to_vec(state).expect("plain data is always JSON");
    Write::Put { service: WORKER, key: key.into(), value: value.into() }
}

/// Waits until a bus may have more here than it had; whether to go on. A bus of this process's own has everything here.
pub type Wait<'a> = &'a mut dyn FnMut() -> bool;

/// The records `from..to` of a partition, as far as they are kept.
///
/// # Errors
/// See [`each_record`].
pub fn read_range(bus: &mut impl Bus, name: &str, from: u64, to: u64, wait: Wait<'_>) -> Result<Vec<Record>, String> {
    let mut records = Vec::new();
    each_record(bus, name, (from, to), wait, |record| records.push(record))?;
    Ok(records)
}

/// Gives the records `from..to` of a partition one after the other, as far as they are kept; a page of them at a time is
/// in memory.
///
/// # Errors
/// One line, if what the bus says it has cannot be read: whoever went on without it would skip commands, or do some twice.
pub fn each_record(
    bus: &mut impl Bus,
    name: &str,
    (from, to): (u64, u64),
    wait: Wait<'_>,
    mut give: impl FnMut(Record),
) -> Result<(), String> {
    let (mut next, to, mut page) = (from, to.min(bus.range(name).1), Vec::new());
    while next < to {
        let most = usize::try_from(to - next).unwrap_or(usize::MAX).min(PAGE);
        let behind = bus.read(name, next, most, &mut page);
        if behind < next {
            return Err(format!(
                "the bus's topic {name} got another numbering while it was read at {next}; start anew"
            ));
        }
        if page.is_empty() && behind == next {
            let (first, _) = bus.range(name);
            if first <= next && !wait() {
                return Err(format!(
                    "the bus's topic {name} cannot be read at {next}, where the services go on; see why in the log above, \
                     and start anew"
                ));
            }
            next = first.max(next);
            continue;
        }
        next = behind;
        page.drain(..).filter(|record| record.offset < to).for_each(&mut give);
    }
    Ok(())
}

/// Has a remote bus fetch these partitions from these offsets on, all at once: one after the other each would wait for the
/// round of those before it.
pub fn prefetch<'a>(bus: &mut impl Bus, from: impl Iterator<Item = (&'a Arc<str>, u64)>) {
    if bus.durability() == Durability::Kafka {
        for (name, from) in from {
            // Nothing is asked for yet.
            let _ = bus.read(name, from, 0, &mut Vec::new());
        }
    }
}

/// The ids of all records of these topics since then.
///
/// # Errors
/// See [`each_record`].
pub fn ids_since(
    bus: &mut impl Bus,
    topics: &[&str],
    since: WallMillis,
    wait: Wait<'_>,
    ids: &mut HashSet<EventId>,
) -> Result<(), String> {
    let partitions = topics.iter().flat_map(|topic| (0..bus.partitions(topic)).map(|n| partition_name(topic, n)));
    let names: Vec<Arc<str>> = partitions.collect();
    let from: Vec<(Arc<str>, u64)> =
        names.into_iter().map(|name| (Arc::clone(&name), bus.since(&name, since))).collect();
    prefetch(bus, from.iter().map(|(name, from)| (name, *from)));
    for (name, from) in &from {
        each_record(bus, name, (*from, u64::MAX), wait, |record| ids.extend(id_of(&record)))?;
    }
    Ok(())
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
