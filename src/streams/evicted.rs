//! What homes remember of the streams of users and sessions that their bound took away: where each stood, so that a resume
//! that lacks something of them is told, and who lacks nothing goes on (DELIVERY §4, §6).
//!
//! Invariant: `order` holds every entry of `streams`, by the stream's last event as it was taken away; it may hold more,
//! of streams that are there again. Beyond the bound an entry goes early, and until its time its topic's watermark stands
//! for it: whatever is not known of then counts as having stood there. It never forgets silently.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::id::Scope;
use crate::time::Monotonic;

/// See the module.
#[derive(Debug)]
pub struct Evicted {
    /// Entries that are kept.
    bound: usize,
    /// How long, behind a stream's last event, a resume may lack something of it.
    history_time: Duration,
    topics: Vec<Topic>,
    streams: BTreeMap<Key, Last>,
    order: VecDeque<(Monotonic, Key)>,
}

/// Where a stream stood.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Last {
    /// Its index, so that members know it under the same handle when it is there again; `None` if that is not known.
    pub index: Option<u32>,
    /// The numbering.
    pub epoch: u64,
    /// The place of its last reliable frame.
    pub head: u64,
    /// Its last reliable frame may have been before that.
    pub head_is_bound: bool,
    /// When it had its last frame.
    pub last_event: Monotonic,
}

/// A scope and one of the topics.
type Key = (Scope, u16);

/// Topic and partition, which all streams of a scope differ in.
#[derive(Debug)]
struct Topic {
    name: Box<str>,
    /// The last place of all streams whose entries went early.
    forgotten: Option<Last>,
}

impl Evicted {
    /// Nothing yet.
    #[must_use]
    pub fn new(bound: usize, history_time: Duration) -> Self {
        Self { bound, history_time, topics: Vec::new(), streams: BTreeMap::new(), order: VecDeque::new() }
    }

    /// Whether no stream was taken away of late.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.order.is_empty() && self.topics.iter().all(|topic| topic.forgotten.is_none())
    }

    /// Entries, those of streams that are there again among them.
    #[must_use]
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// Remembers a stream of the scope.
    pub fn keep(&mut self, scope: &Scope, name: &str, last: Last) {
        let Some(topic) = self.topic(name) else { return };
        let key = (scope.clone(), topic);
        self.order.push_back((last.last_event, key.clone()));
        self.streams.insert(key, last);
        while self.order.len() > self.bound {
            self.forget_oldest();
        }
    }

    /// Where the stream stood, as far as that must be known now. It is there again.
    pub fn take(&mut self, now: Monotonic, scope: &Scope, name: &str, epoch: u64) -> Option<Last> {
        let topic = name.split_once('/')?.0;
        let at = self.topics.iter().position(|known| *known.name == *topic)?;
        let known = self.streams.remove(&(scope.clone(), at as u16));
        known.or_else(|| self.watermark(now, at)).filter(|last| last.epoch == epoch)
    }

    /// Whether the stream was taken away, and that is known of it.
    #[must_use]
    pub fn has(&self, scope: &Scope, name: &str) -> bool {
        let topic = name.split_once('/').map(|(topic, _)| topic);
        let at = self.topics.iter().position(|known| topic == Some(&*known.name));
        at.is_some_and(|at| self.streams.contains_key(&(scope.clone(), at as u16)))
    }

    /// Names and numberings of the scope's streams; who resumes may lack something of those that were forgotten, too.
    #[must_use]
    pub fn streams_of(&self, now: Monotonic, scope: &Scope, resumes: bool) -> Vec<(String, u64)> {
        if self.is_empty() {
            return Vec::new();
        }
        let stood = |at: usize| {
            let known = self.streams.get(&(scope.clone(), at as u16)).copied();
            known.or_else(|| self.watermark(now, at).filter(|_| resumes))
        };
        let named = |at: usize| Some((format!("{}/{scope}", self.topics[at].name), stood(at)?.epoch));
        (0..self.topics.len()).filter_map(named).collect()
    }

    /// Drops what no resume can lack any more.
    pub fn expire(&mut self, now: Monotonic) {
        let time = self.history_time;
        let old = |last_event: Monotonic| now.since(last_event) > time;
        while self.order.front().is_some_and(|(last_event, _)| old(*last_event)) {
            let Some((last_event, key)) = self.order.pop_front() else { break };
            if self.streams.get(&key).is_some_and(|last| last.last_event == last_event) {
                self.streams.remove(&key);
            }
        }
        for topic in &mut self.topics {
            topic.forgotten = topic.forgotten.filter(|last| !old(last.last_event));
        }
    }

    fn watermark(&self, now: Monotonic, at: usize) -> Option<Last> {
        self.topics[at].forgotten.filter(|last| now.since(last.last_event) <= self.history_time)
    }

    fn forget_oldest(&mut self) {
        let Some((last_event, key)) = self.order.pop_front() else { return };
        if self.streams.get(&key).is_none_or(|last| last.last_event != last_event) {
            return;
        }
        let Some(last) = self.streams.remove(&key) else { return };
        let forgotten = &mut self.topics[usize::from(key.1)].forgotten;
        // Of another numbering nothing stands in this one.
        let before = forgotten.filter(|before| before.epoch == last.epoch);
        *forgotten = Some(Last {
            index: None,
            head_is_bound: true,
            head: before.map_or(last.head, |before| before.head.max(last.head)),
            last_event: before.map_or(last.last_event, |before| before.last_event.max(last.last_event)),
            ..last
        });
    }

    /// The number of the stream's topic; there are no more than partitions of the bus.
    fn topic(&mut self, name: &str) -> Option<u16> {
        let topic = name.split_once('/')?.0;
        let known = self.topics.iter().position(|known| *known.name == *topic);
        let at = known.unwrap_or_else(|| {
            self.topics.push(Topic { name: topic.into(), forgotten: None });
            self.topics.len() - 1
        });
        u16::try_from(at).ok()
    }
}
