//! Histories after a restart: what the event topics kept goes to the homes again, before anybody is served
//! (DELIVERY §7, "Reading"). The bus peer goes on where this ended, so every event reaches its home once.

use std::sync::Arc;
use std::time::Duration;

use super::duplicates::Duplicates;
use crate::id::Scope;
use crate::limits;
use crate::message::{Effect, Event, Kick};
use crate::ports::{Bus, partition_name};
use crate::protocol::envelope::{EventRules, EventSource, Json, parse_event};
use crate::time::WallMillis;

/// Where a rebuild ended.
#[derive(Default, Debug)]
pub struct Rebuilt {
    /// Topics' partitions with the offset of their next record.
    pub next: Vec<(Arc<str>, u64)>,
    /// What was seen.
    pub duplicates: Duplicates,
    /// Events given.
    pub events: u64,
    /// Kicks that were not given; whoever keeps sessions over a restart knows which of them were carried out.
    pub kicks: Vec<Kick>,
}

/// Gives every event of these topics that is not older than `since`, in the order of their partitions, until `give`
/// wants no more. Where a remote bus has nothing here yet, `wait` waits until there may be more; it says whether to go on.
/// From then on an event that repeats one of the last `history` is left out.
/// No kick is given to a home: it acted once, when it was live. What nobody can use was buried when it was live.
pub fn rebuild(
    bus: &mut impl Bus,
    rules: &impl EventRules,
    topics: &[&str],
    since: WallMillis,
    history: Duration,
    mut wait: impl FnMut() -> bool,
    mut give: impl FnMut(Event) -> bool,
) -> Rebuilt {
    let mut rebuilt = Rebuilt { duplicates: Duplicates::new(history), ..Rebuilt::default() };
    let (mut json, mut page) = (Json::default(), Vec::new());
    let counts: Vec<_> = topics.iter().map(|topic| (*topic, bus.partitions(topic))).collect();
    for (topic, partition) in counts.iter().flat_map(|(topic, count)| (0..*count).map(move |n| (*topic, n))) {
        let name = partition_name(topic, partition);
        let mut source = EventSource { topic: topic.into(), partition, epoch: bus.epoch(&name), offset: 0 };
        let (mut next, (_, mut end)) = (bus.since(&name, since), bus.range(&name));
        while next < end {
            let from = next;
            next = bus.read(&name, from, limits::BUS_READ_RECORDS, &mut page);
            if source.epoch != bus.epoch(&name) {
                (source.epoch, end) = (bus.epoch(&name), bus.range(&name).1);
            }
            if page.is_empty() && next < end && !wait() {
                break;
            }
            for record in page.drain(..) {
                source.offset = record.offset;
                let Ok(Some(event)) = parse_event(&record.value, &source, rules, &mut json) else { continue };
                if rebuilt.duplicates.is_repeat(record.timestamp, &event) {
                    continue;
                }
                if event.effect == Some(Effect::Kick) {
                    if let Scope::User(user) = event.scope {
                        rebuilt.kicks.push(Kick { user, topic: Arc::clone(&name), place: event.place });
                    }
                    continue;
                }
                rebuilt.events += 1;
                if !give(event) {
                    return rebuilt;
                }
            }
        }
        rebuilt.next.push((name, next));
    }
    rebuilt
}
