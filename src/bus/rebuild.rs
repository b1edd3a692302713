//! Histories after a restart: what the event topics kept goes to the homes again, before anybody is served
//! (DELIVERY §7, "Reading"). The bus peer goes on where this ended, so every event reaches its home once.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::duplicates::Duplicates;
use super::relay::Repeats;
use crate::class::Class;
use crate::id::Scope;
use crate::limits;
use crate::message::{Effect, Event, Kick, Publishing};
use crate::ports::{Bus, Record, partition_name};
use crate::protocol::envelope::{EventRules, EventSource, Json, parse_event};
use crate::protocol::relay::{self, Relayed};
use crate::time::WallMillis;

/// Where a rebuild ended.
#[derive(Default, Debug)]
pub struct Rebuilt {
    /// Topics' partitions with the offset of their next record.
    pub next: Vec<(Arc<str>, u64)>,
    /// What was seen.
    pub duplicates: Duplicates,
    /// The same of the relay topic's records, by partition.
    pub repeats: Vec<(Arc<str>, Repeats)>,
    /// Events given.
    pub events: u64,
    /// Kicks that were not given; whoever keeps sessions over a restart knows which of them were carried out.
    pub kicks: Vec<Kick>,
    /// What the relay topic tells of publishers and when it was accepted, in order: the newest, four for each that may be
    /// known.
    pub notices: VecDeque<(WallMillis, Publishing)>,
}

/// Gives every event of these topics that is not older than `since`, each partition's in order, until `give` wants no
/// more. Where a remote bus has nothing here yet, `wait` waits until there may be more; it says whether to go on.
/// From then on an event that repeats one of the last `history` is left out.
/// No kick is given to a home: it acted once, when it was live. What nobody can use was buried when it was live. Of the
/// relay topic, those deltas are given that homes would still keep (`since` and `history` say what the time is).
pub fn rebuild<B: Bus>(
    bus: &mut B,
    rules: &impl EventRules,
    topics: &[&str],
    since: WallMillis,
    history: Duration,
    mut wait: impl FnMut() -> bool,
    mut give: impl FnMut(Event) -> bool,
) -> Rebuilt {
    let mut rebuilt = Rebuilt { duplicates: Duplicates::new(history), ..Rebuilt::default() };
    let (mut json, mut page) = (Json::default(), Vec::new());
    // All questions before the first record: behind a fetch that waits for records each would take half a second.
    let mut parts: Vec<Part> = topics
        .iter()
        .flat_map(|topic| (0..bus.partitions(topic)).map(move |number| (*topic, number)))
        .map(|(topic, number)| Part::find(bus, topic, number, since))
        .collect();
    loop {
        let mut came = false;
        for part in &mut parts {
            came |= part.read(bus, &mut page);
            for record in page.drain(..) {
                part.source.offset = record.offset;
                let event = if part.repeats.as_mut().is_some_and(|repeats| repeats.is_repeat(&record.value)) {
                    None
                } else if part.repeats.is_some() {
                    relayed(&record, &part.source, since, history, &mut rebuilt.notices)
                } else {
                    parse_event(&record.value, &part.source, rules, &mut json).ok().flatten()
                };
                let Some(event) = event else { continue };
                if rebuilt.duplicates.is_repeat(record.timestamp, &event) {
                    continue;
                }
                if event.effect == Some(Effect::Kick) {
                    if let Scope::User(user) = event.scope {
                        rebuilt.kicks.push(Kick { user, topic: Arc::clone(&part.name), place: event.place });
                    }
                    continue;
                }
                rebuilt.events += 1;
                if !give(event) {
                    return rebuilt;
                }
            }
        }
        if parts.iter().all(Part::is_read) || (!came && !wait()) {
            break;
        }
    }
    for Part { name, next, repeats, .. } in parts {
        rebuilt.repeats.extend(repeats.map(|repeats| (Arc::clone(&name), repeats)));
        rebuilt.next.push((name, next));
    }
    rebuilt
}

/// A partition under way.
struct Part {
    name: Arc<str>,
    source: EventSource,
    next: u64,
    end: u64,
    /// If it is the relay's.
    repeats: Option<Repeats>,
}

impl Part {
    fn find(bus: &impl Bus, topic: &str, partition: u32, since: WallMillis) -> Self {
        let name = partition_name(topic, partition);
        let source = EventSource { topic: topic.into(), partition, epoch: bus.epoch(&name), offset: 0 };
        let (next, (_, end)) = (bus.since(&name, since), bus.range(&name));
        let repeats = (*topic == *relay::TOPIC).then(Repeats::default);
        Self { name, source, next, end, repeats }
    }

    fn is_read(&self) -> bool {
        self.next >= self.end
    }

    /// Fills the page with what is here; whether that is anything.
    fn read(&mut self, bus: &mut impl Bus, page: &mut Vec<Record>) -> bool {
        if self.is_read() {
            return false;
        }
        let (name, from) = (&*self.name, self.next);
        self.next = bus.read(name, from, limits::BUS_READ_RECORDS, page);
        let epoch = bus.epoch(name);
        if self.source.epoch != epoch {
            (self.source.epoch, self.end) = (epoch, bus.range(name).1);
        }
        self.next != from
    }
}

/// What a record of the relay topic is for a home; a publisher is noted.
fn relayed(
    record: &Record,
    source: &EventSource,
    since: WallMillis,
    history: Duration,
    notices: &mut VecDeque<(WallMillis, Publishing)>,
) -> Option<Event> {
    let relayed = relay::read(&record.key, &record.value).ok()?;
    let now = WallMillis(since.0.saturating_add(millis(history)));
    match relayed {
        Relayed::Notice(publishing) => {
            if notices.len() == NOTICES {
                notices.pop_front();
            }
            notices.push_back((record.timestamp, publishing));
        }
        // Older values are kept by no home.
        Relayed::Frame { class: Class::Delta, .. }
            if record.timestamp.0.saturating_add(millis(limits::HOME_DELTA_AGE)) < now.0 => {}
        Relayed::Frame { .. } => return relayed.event(&record.key, source),
    }
    None
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// One is told again three times in a window, and the history is not much longer.
const NOTICES: usize = 4 * limits::RELAY_PUBLISHERS;
