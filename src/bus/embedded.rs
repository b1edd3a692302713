//! A log of topics in this process's memory, for one machine: one partition each, offsets from 0.
//!
//! Invariants of a topic: its records are contiguous, `first..next`; every registered reader's cursor is in that range;
//! what a reader has not dealt with is never evicted. That is kept by refusing: while the slowest reader is more than
//! half the topic's bound behind, an append is `Unavailable`, so the other half is what a reader may still look back on.
//!
//! Shards never touch it: the bus peer and the workers share it, each through a handle, and hold its lock for one
//! operation at a time. Nobody waits in here; a reader is woken when there is something new, a refused writer that is
//! also a reader when there is room.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::Waker;

use crate::limits;
use crate::message::{Append, ErrorCode};
use crate::ports::{Bus, Durability, LogView, Record};
use crate::router::Wake;
use crate::time::WallMillis;

/// A handle of the log. See the module.
pub struct EmbeddedBus {
    log: Arc<Mutex<Log>>,
    reader: Option<ReaderId>,
}

/// How much a topic keeps.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TopicBounds {
    /// Records, ≥ 2.
    pub records: usize,
    /// Bytes of keys and values.
    pub bytes: usize,
}

impl Default for TopicBounds {
    fn default() -> Self {
        Self { records: limits::BUS_TOPIC_RECORDS, bytes: limits::BUS_TOPIC_BYTES }
    }
}

impl EmbeddedBus {
    /// An empty log; `epoch` names its numbering, random per process and < 2^53. This handle reads nothing by duty.
    #[must_use]
    pub fn new(epoch: u64, bounds: TopicBounds) -> Self {
        debug_assert!(epoch < 1 << 53, "JSON clients hold an epoch in a double");
        let log = Log { epoch, bounds, topics: Vec::new(), readers: Vec::new() };
        Self { log: Arc::new(Mutex::new(log)), reader: None }
    }

    /// A handle that reads these topics from their oldest record on: nothing of them is evicted before its
    /// [`Bus::done`], and `wake` is called when one gets a record, or an append that was refused may be tried again.
    /// Dropping the handle ends that.
    #[must_use]
    pub fn reader(&self, topics: &[&str], wake: Arc<dyn Wake>) -> Self {
        let reader = self.lock().register(topics, wake);
        Self { log: Arc::clone(&self.log), reader: Some(reader) }
    }

    /// A handle that reads nothing by duty.
    #[must_use]
    pub fn handle(&self) -> Self {
        Self { log: Arc::clone(&self.log), reader: None }
    }

    /// The offset of the oldest record kept, and the offset that the next record gets.
    #[must_use]
    pub fn range(&self, topic: &str) -> (u64, u64) {
        self.lock().topic(topic).map_or((0, 0), |topic| (topic.first(), topic.next))
    }

    fn lock(&self) -> MutexGuard<'_, Log> {
        self.log.lock().expect("nothing panics while it holds the log")
    }
}

impl Bus for EmbeddedBus {
    fn durability(&self) -> Durability {
        Durability::Memory
    }

    fn epoch(&self, _topic: &str) -> u64 {
        self.lock().epoch
    }

    fn append(&mut self, now: WallMillis, append: &Append) -> Result<(), ErrorCode> {
        let record =
            Record { offset: 0, timestamp: now, key: append.key.as_ref().into(), value: append.value.as_ref().into() };
        let (wakes, watchers) = self.lock().append(&append.topic, record)?;
        wakes.iter().for_each(|wake| wake.wake());
        watchers.into_iter().for_each(Waker::wake);
        Ok(())
    }

    fn read(&mut self, topic: &str, offset: u64, max: usize, out: &mut Vec<Record>) -> u64 {
        self.lock().topic(topic).map_or(offset, |topic| topic.read(offset, max, out))
    }

    fn done(&mut self, topic: &str, offset: u64) {
        let Some(reader) = self.reader else { return };
        let wakes = self.lock().done(reader, topic, offset);
        wakes.iter().for_each(|wake| wake.wake());
    }
}

impl LogView for EmbeddedBus {
    fn epoch(&self, _topic: &str) -> u64 {
        self.lock().epoch
    }

    fn range(&self, topic: &str) -> (u64, u64) {
        EmbeddedBus::range(self, topic)
    }

    fn look(&self, topic: &str, offset: u64, max: usize, out: &mut Vec<Record>) {
        if let Some(topic) = self.lock().topic(topic) {
            topic.read(offset, max, out);
        }
    }

    fn watch(&self, topic: &str, waker: &Waker) {
        // A topic beyond the bound never gets a record.
        if let Some(topic) = self.lock().topic_or_new(topic)
            && !topic.watchers.iter().any(|known| known.will_wake(waker))
        {
            topic.watchers.push(waker.clone());
        }
    }
}

impl Drop for EmbeddedBus {
    fn drop(&mut self) {
        if let (Some(reader), Ok(mut log)) = (self.reader, self.log.lock()) {
            let wakes = log.unregister(reader);
            drop(log);
            wakes.iter().for_each(|wake| wake.wake());
        }
    }
}

impl fmt::Debug for EmbeddedBus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmbeddedBus").field("reader", &self.reader).finish_non_exhaustive()
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct ReaderId(usize);

type Wakes = Arc<[Arc<dyn Wake>]>;

struct Log {
    epoch: u64,
    bounds: TopicBounds,
    /// Few enough to be searched by name.
    topics: Vec<Topic>,
    /// By [`ReaderId`].
    readers: Vec<Option<Arc<dyn Wake>>>,
}

struct Topic {
    name: Box<str>,
    records: VecDeque<Stored>,
    /// Offset of the next record.
    next: u64,
    /// Bytes of all records there ever were.
    end: u64,
    cursors: Vec<(ReaderId, u64)>,
    /// Whom an append wakes; shared, so that it costs an append one count.
    wakes: Wakes,
    /// Whom the next append wakes, once.
    watchers: Vec<Waker>,
    /// Whether an append was refused since there was room last.
    refused: bool,
}

struct Stored {
    record: Record,
    /// Bytes of all records before it.
    start: u64,
}

impl Log {
    fn topic(&self, name: &str) -> Option<&Topic> {
        self.topics.iter().find(|topic| *topic.name == *name)
    }

    fn topic_or_new(&mut self, name: &str) -> Option<&mut Topic> {
        let at = self.topics.iter().position(|topic| *topic.name == *name);
        let at = match at {
            Some(at) => at,
            None if self.topics.len() == limits::BUS_TOPICS => return None,
            None => {
                self.topics.push(Topic::new(name));
                self.topics.len() - 1
            }
        };
        Some(&mut self.topics[at])
    }

    fn register(&mut self, topics: &[&str], wake: Arc<dyn Wake>) -> ReaderId {
        let reader = ReaderId(self.readers.len());
        self.readers.push(Some(wake));
        for name in topics {
            let topic = self.topic_or_new(name).expect("readers are registered before BUS_TOPICS others are in use");
            topic.cursors.push((reader, topic.first()));
        }
        self.share_wakes();
        reader
    }

    fn unregister(&mut self, reader: ReaderId) -> Wakes {
        self.readers[reader.0] = None;
        for topic in &mut self.topics {
            topic.cursors.retain(|(other, _)| *other != reader);
            topic.refused = false;
        }
        self.share_wakes();
        self.everyone()
    }

    fn share_wakes(&mut self) {
        let Self { topics, readers, .. } = self;
        for topic in topics {
            topic.wakes = topic.cursors.iter().filter_map(|(reader, _)| readers[reader.0].clone()).collect();
        }
    }

    fn everyone(&self) -> Wakes {
        self.readers.iter().flatten().cloned().collect()
    }

    fn append(&mut self, topic: &str, record: Record) -> Result<(Wakes, Vec<Waker>), ErrorCode> {
        let bounds = self.bounds;
        if record.key.len() + record.value.len() > bounds.bytes / 2 {
            return Err(ErrorCode::TooLong);
        }
        let topic = self.topic_or_new(topic).ok_or(ErrorCode::Unavailable)?;
        if topic.lags(bounds.records / 2, bounds.bytes / 2) {
            topic.refused = true;
            return Err(ErrorCode::Unavailable);
        }
        topic.push(record);
        topic.evict(bounds);
        Ok((Arc::clone(&topic.wakes), std::mem::take(&mut topic.watchers)))
    }

    fn done(&mut self, reader: ReaderId, topic: &str, offset: u64) -> Wakes {
        let bounds = self.bounds;
        let Some(topic) = self.topic_or_new(topic) else { return Arc::default() };
        let next = topic.next;
        if let Some((_, cursor)) = topic.cursors.iter_mut().find(|(other, _)| *other == reader) {
            *cursor = offset.clamp(*cursor, next);
        }
        // A quarter, so that a refused writer finds room for more than one record.
        let room = topic.refused && !topic.lags(bounds.records / 4, bounds.bytes / 4);
        if !room {
            return Arc::default();
        }
        topic.refused = false;
        self.everyone()
    }
}

impl Topic {
    fn new(name: &str) -> Self {
        Self {
            name: name.into(),
            records: VecDeque::new(),
            next: 0,
            end: 0,
            cursors: Vec::new(),
            wakes: Arc::default(),
            watchers: Vec::new(),
            refused: false,
        }
    }

    fn first(&self) -> u64 {
        self.next - self.records.len() as u64
    }

    /// The offset up to which all readers are done; `next` if there are none.
    fn done(&self) -> u64 {
        self.cursors.iter().map(|(_, cursor)| *cursor).min().unwrap_or(self.next)
    }

    /// Whether the slowest reader has more than so much before it.
    fn lags(&self, records: usize, bytes: usize) -> bool {
        let done = self.done();
        let unread = self.next - done;
        let start = self.index(done).and_then(|at| self.records.get(at)).map_or(self.end, |stored| stored.start);
        unread > records as u64 || self.end - start > bytes as u64
    }

    fn push(&mut self, record: Record) {
        let start = self.end;
        self.end += (record.key.len() + record.value.len()) as u64;
        self.records.push_back(Stored { record: Record { offset: self.next, ..record }, start });
        self.next += 1;
    }

    fn evict(&mut self, bounds: TopicBounds) {
        let done = self.done();
        while let Some(oldest) = self.records.front() {
            let kept = self.end - oldest.start;
            let within = self.records.len() <= bounds.records && kept <= bounds.bytes as u64;
            if within || oldest.record.offset >= done {
                debug_assert!(
                    within,
                    "a reader is never more than half a bound behind, so there is something to evict"
                );
                break;
            }
            self.records.pop_front();
        }
    }

    fn read(&self, offset: u64, max: usize, out: &mut Vec<Record>) -> u64 {
        let from = self.index(offset.max(self.first())).unwrap_or(self.records.len());
        let to = from.saturating_add(max).min(self.records.len());
        out.extend(self.records.range(from..to).map(|stored| stored.record.clone()));
        if from == to { offset.max(self.first()) } else { self.first() + to as u64 }
    }

    /// The place in `records` of an offset that is not behind the end.
    fn index(&self, offset: u64) -> Option<usize> {
        let at = usize::try_from(offset.checked_sub(self.first())?).ok()?;
        (at <= self.records.len()).then_some(at)
    }
}

#[cfg(test)]
mod tests;
