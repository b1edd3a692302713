//! What the handles and the writer of a log on disk share: topics, handles, what waits for the disk, where records are.
//!
//! Invariants: a topic's number is its place in `topics`, in `commit` and in `index`; `topics[n].next() ==
//! index.range(n).1`: a record is visible when it is durable, and then both in memory and on disk; a handle has been
//! told of `answered ≤ given` tickets, in order.

use std::fs::File;
use std::sync::Arc;
use std::task::Waker;

use super::no_wakes;
use crate::bus::topic::{ReaderId, Topic, TopicBounds, Wakes};
use crate::limits;
use crate::log::{Batch, Commit, CommitBounds, Held, Index, Item, Recovered, Retention, TopicStart};
use crate::message::ErrorCode;
use crate::ports::{Completed, Record, Ticket};
use crate::router::Wake;
use crate::time::WallMillis;

/// See the module.
pub(super) struct State {
    /// The log's id.
    pub id: u64,
    bounds: TopicBounds,
    topics: Vec<Topic>,
    /// By [`ReaderId`].
    handles: Vec<Option<Handle>>,
    commit: Commit<Tag>,
    index: Index,
    /// Oldest first, each with its file; the last is being written.
    segments: Vec<Segment>,
    held: Vec<Held>,
    /// The disk refuses, or nobody writes any more.
    refuses: bool,
    /// Whether an append found too much waiting since there was room.
    full: bool,
}

/// A segment's file.
#[derive(Clone)]
pub(super) struct Segment {
    pub number: u64,
    pub mark: u32,
    pub file: Arc<File>,
}

/// Who appended.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tag(ReaderId);

/// Where on disk a reader goes on.
pub(super) struct Block {
    pub file: Arc<File>,
    pub number: u64,
    pub mark: u32,
    pub topic: u16,
    /// The wanted record.
    pub offset: u64,
    /// Where in the segment the block begins, and where its last record begins at the latest.
    pub at: u32,
    pub end: u64,
    /// Where what is durable of the segment ends.
    pub limit: u64,
}

#[derive(Default)]
struct Handle {
    wake: Option<Arc<dyn Wake>>,
    given: u64,
    answered: u64,
    completed: Vec<Completed>,
    /// It has not yet been told of a failure.
    failed: bool,
}

/// What the writer is to do next.
pub(super) struct Job {
    pub batch: Batch<Tag>,
    pub names: Vec<Arc<str>>,
}

impl State {
    /// A log as it was found.
    pub fn new(found: Recovered, segments: Vec<Segment>, bounds: TopicBounds, commit: CommitBounds) -> Self {
        let mut commit = Commit::new(commit);
        found.topics.iter().for_each(|topic| commit.add_topic(topic.next));
        let topics = found.topics.iter().map(|topic| Topic::new(Arc::clone(&topic.name), topic.next)).collect();
        let Recovered { log: id, index, held, .. } = found;
        let handles = Vec::new();
        Self { id, bounds, topics, handles, commit, index, segments, held, refuses: false, full: false }
    }

    pub fn add_handle(&mut self, wake: Option<Arc<dyn Wake>>) -> ReaderId {
        self.handles.push(Some(Handle { wake, ..Handle::default() }));
        ReaderId(self.handles.len() - 1)
    }

    /// Returns whom to wake, and whether it was the last.
    pub fn remove_handle(&mut self, reader: ReaderId) -> (Wakes, bool) {
        self.handles[reader.0] = None;
        self.topics.iter_mut().for_each(|topic| topic.unregister(reader));
        self.share_wakes();
        (self.everyone(), self.is_abandoned())
    }

    /// Whether there is no handle left.
    pub fn is_abandoned(&self) -> bool {
        self.handles.iter().all(Option::is_none)
    }

    pub fn register(&mut self, reader: ReaderId, topics: &[&str]) {
        for name in topics {
            let number = self.number_or_new(name).expect("readers are registered before BUS_TOPICS others are in use");
            let (first, _) = self.index.range(number);
            self.topics[usize::from(number)].register_at(reader, first);
        }
        self.share_wakes();
    }

    pub fn append(&mut self, reader: ReaderId, topic: &str, record: Record) -> Result<Ticket, ErrorCode> {
        let bytes = record.key.len() + record.value.len();
        if bytes > self.bounds.bytes / 2 {
            return Err(ErrorCode::TooLong);
        }
        let failed = self.handles[reader.0].as_ref().is_none_or(|handle| handle.failed);
        if self.refuses || failed {
            return Err(ErrorCode::Unavailable);
        }
        let number = self.number_or_new(topic).ok_or(ErrorCode::Unavailable)?;
        let topic = &mut self.topics[usize::from(number)];
        if !topic.admits(self.bounds) {
            return Err(ErrorCode::Unavailable);
        }
        if self.commit.push(number, record, Tag(reader)).is_err() {
            self.full = true;
            return Err(ErrorCode::Unavailable);
        }
        topic.promise(bytes);
        let handle = self.handles[reader.0].as_mut().expect("a handle that appends is there");
        handle.given += 1;
        Ok(Ticket(handle.given))
    }

    pub fn completed(&mut self, reader: ReaderId, out: &mut Vec<Completed>) {
        if let Some(handle) = &mut self.handles[reader.0] {
            out.append(&mut handle.completed);
            handle.failed = false;
        }
    }

    pub fn range(&self, topic: &str) -> (u64, u64) {
        self.number(topic).map_or((0, 0), |number| self.index.range(number))
    }

    pub fn since(&self, topic: &str, since: WallMillis) -> u64 {
        self.number(topic).map_or(0, |number| self.index.since(number, since))
    }

    /// Reads from memory, or says which block of the disk has the record.
    pub fn read(&self, topic: &str, offset: u64, max: usize, out: &mut Vec<Record>) -> Result<u64, Block> {
        let Some(number) = self.number(topic) else { return Ok(offset) };
        let topic = &self.topics[usize::from(number)];
        let offset = offset.max(self.index.range(number).0);
        if offset >= topic.first() {
            return Ok(topic.read(offset, max, out));
        }
        let (segment, at) = self.index.find(number, offset).expect("what was evicted from memory is on disk");
        let place = self.segments.binary_search_by_key(&segment, |segment| segment.number);
        let place = place.expect("the index names segments that are there");
        let limit = self.held[place].bytes;
        let end = limit.min(u64::from(at) + u64::from(Index::BLOCK_BYTES));
        let Segment { file, mark, .. } = self.segments[place].clone();
        Err(Block { file, number: segment, mark, topic: number, offset, at, end, limit })
    }

    /// See [`Topic::watch`]. A topic beyond the bound never gets a record.
    pub fn watch(&mut self, topic: &str, waker: &Waker) {
        if let Some(number) = self.number_or_new(topic) {
            self.topics[usize::from(number)].watch(waker);
        }
    }

    /// Returns whom to wake.
    pub fn done(&mut self, reader: ReaderId, topic: &str, offset: u64) -> Wakes {
        let Some(number) = self.number(topic) else { return no_wakes() };
        let room = self.topics[usize::from(number)].done(reader, offset, self.bounds);
        if room { self.everyone() } else { no_wakes() }
    }

    /// What is to be written next.
    pub fn take(&mut self) -> Option<Job> {
        let batch = self.commit.take()?;
        Some(Job { batch, names: self.topics.iter().map(|topic| Arc::clone(topic.name())).collect() })
    }

    /// The topics as the next segment's header has them.
    pub fn starts(&self) -> Vec<TopicStart> {
        let topics = self.topics.iter().zip(self.commit.durable());
        topics.map(|(topic, next)| TopicStart { name: Arc::clone(topic.name()), next }).collect()
    }

    /// The segment that is written.
    pub fn last_segment(&self) -> Segment {
        self.segments.last().expect("a segment is written").clone()
    }

    /// Another segment is written from now on.
    pub fn add_segment(&mut self, segment: Segment, bytes: u64, created: WallMillis) {
        self.held.push(Held { number: segment.number, bytes, newest: created });
        self.segments.push(segment);
    }

    /// The batch is durable at these places of the last segment, which has so many bytes now. Returns whom to wake:
    /// handles, and those who watch a topic.
    pub fn finish(&mut self, batch: Batch<Tag>, places: &[u32], bytes: u64) -> (Vec<Arc<dyn Wake>>, Vec<Waker>) {
        let held = self.held.last_mut().expect("a segment is written");
        let (mut wakes, mut watchers) = (Vec::new(), Vec::new());
        let (items, number) = (self.commit.finish(batch), held.number);
        held.bytes = bytes;
        let mut touched = 0u64;
        for (Item { topic, record, tag }, at) in items.into_iter().zip(places) {
            held.newest = held.newest.max(record.timestamp);
            self.index.note(topic, record.offset, record.timestamp, number, *at);
            touched |= 1 << topic;
            let (topic, offset) = (&mut self.topics[usize::from(topic)], record.offset);
            debug_assert_eq!(offset, topic.next());
            topic.redeem(record.key.len() + record.value.len());
            topic.push(record);
            topic.evict_to_disk(self.bounds);
            self.handles[tag.0.0].as_mut().into_iter().for_each(|handle| handle.complete(Ok(()), &mut wakes));
        }
        for (_, topic) in self.topics.iter_mut().enumerate().filter(|(number, _)| touched >> number & 1 == 1) {
            topic.wakes().iter().for_each(|wake| add(&mut wakes, wake));
            watchers.append(&mut topic.take_watchers());
        }
        if std::mem::take(&mut self.full) {
            self.everyone().iter().for_each(|wake| add(&mut wakes, wake));
        }
        (wakes, watchers)
    }

    /// The disk refused the batch: it and all that waits has failed, and nothing is taken until [`State::resume`].
    pub fn fail(&mut self, batch: Batch<Tag>) -> Vec<Arc<dyn Wake>> {
        self.refuses = true;
        let mut wakes = Vec::new();
        for Item { topic, record, tag } in self.commit.fail(batch) {
            self.topics[usize::from(topic)].redeem(record.key.len() + record.value.len());
            let handle = self.handles[tag.0.0].as_mut();
            handle.into_iter().for_each(|handle| handle.complete(Err(ErrorCode::Unavailable), &mut wakes));
        }
        wakes
    }

    /// The disk may be tried again. Returns whom to wake.
    pub fn resume(&mut self) -> Wakes {
        self.refuses = false;
        self.everyone()
    }

    /// Nobody writes any more: whatever waits has failed.
    pub fn end(&mut self) -> Wakes {
        self.refuses = true;
        let mut wakes = Vec::new();
        for handle in self.handles.iter_mut().flatten() {
            while handle.answered < handle.given {
                handle.complete(Err(ErrorCode::Unavailable), &mut wakes);
            }
        }
        self.everyone()
    }

    /// Forgets the segments that retention lets go; returns their numbers.
    pub fn expire(&mut self, retention: &Retention, now: WallMillis) -> Vec<u64> {
        let unread = self.topics.iter().enumerate().filter_map(|(number, topic)| {
            let (first, _) = self.index.range(number as u16);
            self.index.find(number as u16, topic.unread()?.max(first)).map(|(segment, _)| segment)
        });
        let gone = retention.expired(&self.held, now, unread.min());
        let gone: Vec<u64> = self.held.drain(..gone).map(|held| held.number).collect();
        self.segments.drain(..gone.len());
        gone.iter().for_each(|segment| self.index.drop_segment(*segment));
        gone
    }

    fn number(&self, name: &str) -> Option<u16> {
        self.topics.iter().position(|topic| **topic.name() == *name).map(|number| number as u16)
    }

    fn number_or_new(&mut self, name: &str) -> Option<u16> {
        self.number(name).or_else(|| {
            if self.topics.len() == limits::BUS_TOPICS || name.len() > limits::TOPIC_BYTES_MAX {
                return None;
            }
            self.topics.push(Topic::new(name.into(), 0));
            self.commit.add_topic(0);
            self.index.add_topic(0);
            self.number(name)
        })
    }

    fn share_wakes(&mut self) {
        let Self { topics, handles, .. } = self;
        for topic in topics {
            topic.share_wakes(|reader| handles[reader.0].as_ref().and_then(|handle| handle.wake.clone()));
        }
    }

    fn everyone(&self) -> Wakes {
        self.handles.iter().flatten().filter_map(|handle| handle.wake.clone()).collect()
    }
}

impl Handle {
    fn complete(&mut self, outcome: Result<(), ErrorCode>, wakes: &mut Vec<Arc<dyn Wake>>) {
        self.answered += 1;
        self.failed |= outcome.is_err();
        self.completed.push(Completed { ticket: Ticket(self.answered), outcome });
        self.wake.iter().for_each(|wake| add(wakes, wake));
    }
}

/// Once each.
fn add(wakes: &mut Vec<Arc<dyn Wake>>, wake: &Arc<dyn Wake>) {
    if !wakes.iter().any(|other| Arc::ptr_eq(other, wake)) {
        wakes.push(Arc::clone(wake));
    }
}

const _: () = assert!(limits::BUS_TOPICS <= 64, "the topics of a batch are the bits of a word");
