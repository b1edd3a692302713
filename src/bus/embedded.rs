//! A log of topics in this process's memory, for one machine: one partition each, offsets from 0.
//!
//! Invariants of a topic: its records are contiguous, `first..next`; every registered reader's cursor is in that range;
//! what a reader has not dealt with is never evicted. That is kept by refusing: while the slowest reader is more than
//! half the topic's bound behind, an append is `Unavailable`, so the other half is what a reader may still look back on.
//!
//! Shards never touch it: the bus peer and the workers share it, each through a handle, and hold its lock for one
//! operation at a time. Nobody waits in here; a reader is woken when there is something new, a refused writer that is
//! also a reader when there is room.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::Waker;

use super::topic::{ReaderId, Topic, TopicBounds, Wakes};
use crate::limits;
use crate::message::{Append, ErrorCode};
use crate::ports::{Accepted, Bus, Completed, Durability, Record, Unreadable};
use crate::router::Wake;
use crate::time::WallMillis;

/// A handle of the log. See the module.
pub struct EmbeddedBus {
    log: Arc<Mutex<Log>>,
    reader: Option<ReaderId>,
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

    fn append(&mut self, now: WallMillis, append: &Append) -> Result<Accepted, ErrorCode> {
        let record =
            Record { offset: 0, timestamp: now, key: append.key.as_ref().into(), value: append.value.as_ref().into() };
        let (wakes, watchers) = self.lock().append(&append.topic, record)?;
        wakes.iter().for_each(|wake| wake.wake());
        watchers.into_iter().for_each(Waker::wake);
        Ok(Accepted::Now)
    }

    fn completed(&mut self, _out: &mut Vec<Completed>) {}

    fn range(&self, topic: &str) -> (u64, u64) {
        self.lock().topic(topic).map_or((0, 0), |topic| (topic.first(), topic.next()))
    }

    fn since(&self, topic: &str, since: WallMillis) -> u64 {
        self.lock().topic(topic).map_or(0, |topic| topic.since(since))
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

impl crate::ports::LogView for EmbeddedBus {
    fn epoch(&self, _topic: &str) -> u64 {
        self.lock().epoch
    }

    fn range(&self, topic: &str) -> (u64, u64) {
        Bus::range(self, topic)
    }

    fn look(&self, topic: &str, offset: u64, max: usize, out: &mut Vec<Record>) -> Result<(), Unreadable> {
        if let Some(topic) = self.lock().topic(topic) {
            topic.read(offset, max, out);
        }
        Ok(())
    }

    fn watch(&self, topic: &str, waker: &Waker) {
        // A topic beyond the bound never gets a record.
        if let Some(topic) = self.lock().topic_or_new(topic) {
            topic.watch(waker);
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

struct Log {
    epoch: u64,
    bounds: TopicBounds,
    /// Few enough to be searched by name.
    topics: Vec<Topic>,
    /// By [`ReaderId`].
    readers: Vec<Option<Arc<dyn Wake>>>,
}

impl Log {
    fn topic(&self, name: &str) -> Option<&Topic> {
        self.topics.iter().find(|topic| **topic.name() == *name)
    }

    /// Nobody looks back on presence, and every connection says two things there: less of it is kept.
    fn bounds_of(&self, topic: &str) -> TopicBounds {
        let TopicBounds { records, bytes } = self.bounds;
        let most = if topic == PRESENCE_TOPIC { limits::PRESENCE_TOPIC_RECORDS } else { usize::MAX };
        TopicBounds { records: records.min(most), bytes }
    }

    fn topic_or_new(&mut self, name: &str) -> Option<&mut Topic> {
        let at = self.topics.iter().position(|topic| **topic.name() == *name);
        let at = match at {
            Some(at) => at,
            None if self.topics.len() == limits::BUS_TOPICS => return None,
            None => {
                self.topics.push(Topic::new(name.into(), 0));
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
            topic.register(reader);
        }
        self.share_wakes();
        reader
    }

    fn unregister(&mut self, reader: ReaderId) -> Wakes {
        self.readers[reader.0] = None;
        for topic in &mut self.topics {
            topic.unregister(reader);
        }
        self.share_wakes();
        self.everyone()
    }

    fn share_wakes(&mut self) {
        let Self { topics, readers, .. } = self;
        for topic in topics {
            topic.share_wakes(|reader| readers[reader.0].clone());
        }
    }

    fn everyone(&self) -> Wakes {
        self.readers.iter().flatten().cloned().collect()
    }

    fn append(&mut self, topic: &str, record: Record) -> Result<(Wakes, Vec<Waker>), ErrorCode> {
        let bounds = self.bounds_of(topic);
        if record.key.len() + record.value.len() > bounds.bytes / 2 {
            return Err(ErrorCode::TooLong);
        }
        let topic = self.topic_or_new(topic).ok_or(ErrorCode::Unavailable)?;
        if !topic.admits(bounds) {
            return Err(ErrorCode::Unavailable);
        }
        topic.push(record);
        topic.evict(bounds);
        Ok((topic.wakes(), topic.take_watchers()))
    }

    fn done(&mut self, reader: ReaderId, topic: &str, offset: u64) -> Wakes {
        let bounds = self.bounds_of(topic);
        let Some(topic) = self.topic_or_new(topic) else { return Arc::default() };
        if !topic.done(reader, offset, bounds) {
            return Arc::default();
        }
        self.everyone()
    }
}

/// See [`Log::bounds_of`].
const PRESENCE_TOPIC: &str = "gateway.presence";

#[cfg(test)]
mod tests;
