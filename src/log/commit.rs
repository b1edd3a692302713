//! Group commit as a state machine: appends collect while a batch is being made durable, and the next batch takes them
//! all. One batch is under way at a time; what is under way or waits is bounded, and what does not fit is refused.
//!
//! Invariant of a topic: `durable ≤ assigned`; the offsets between are those under way and those that wait, in order.

use std::collections::VecDeque;
use std::mem::size_of;

use crate::ports::Record;

/// See the module. `T` is what the owner wants to find again with an append.
#[derive(Debug)]
pub struct Commit<T> {
    bounds: CommitBounds,
    topics: Vec<Numbers>,
    queue: VecDeque<Item<T>>,
    /// Bytes that wait or are under way.
    bytes: usize,
    /// Records that wait or are under way.
    records: usize,
    under_way: bool,
}

/// How much may wait and how much is written at once; a single record always may.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CommitBounds {
    /// Records that wait or are under way.
    pub records: usize,
    /// Bytes that wait or are under way.
    pub bytes: usize,
    /// Bytes of one batch.
    pub batch_bytes: usize,
}

/// An append on its way to the disk.
#[derive(Clone, Debug)]
pub struct Item<T> {
    /// The topic's number.
    pub topic: u16,
    /// The record with its offset.
    pub record: Record,
    /// The owner's.
    pub tag: T,
}

/// What is written and synced as one.
#[derive(Debug)]
#[must_use = "a batch that is neither finished nor failed stops the log"]
pub struct Batch<T> {
    /// In order, at least one.
    pub items: Vec<Item<T>>,
}

/// Too much waits for the disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Refused;

#[derive(Clone, Copy, Debug)]
struct Numbers {
    durable: u64,
    assigned: u64,
}

impl<T> Commit<T> {
    /// Nothing waits, no topics.
    #[must_use]
    pub fn new(bounds: CommitBounds) -> Self {
        Self { bounds, topics: Vec::new(), queue: VecDeque::new(), bytes: 0, records: 0, under_way: false }
    }

    /// The next topic, whose next record gets this offset.
    pub fn add_topic(&mut self, next: u64) {
        self.topics.push(Numbers { durable: next, assigned: next });
    }

    /// Next offset of each topic once all that is durable now is all there is.
    pub fn durable(&self) -> impl Iterator<Item = u64> {
        self.topics.iter().map(|numbers| numbers.durable)
    }

    /// Takes the record, whose offset it sets, into the next batch.
    ///
    /// # Errors
    /// If what waits is at a bound.
    pub fn push(&mut self, topic: u16, record: Record, tag: T) -> Result<(), Refused> {
        let size = size(&record);
        let full = self.records >= self.bounds.records || self.bytes + size > self.bounds.bytes;
        if full && self.records > 0 {
            return Err(Refused);
        }
        let numbers = &mut self.topics[usize::from(topic)];
        let record = Record { offset: numbers.assigned, ..record };
        numbers.assigned += 1;
        self.bytes += size;
        self.records += 1;
        self.queue.push_back(Item { topic, record, tag });
        Ok(())
    }

    /// The next batch; `None` while one is under way or nothing waits.
    pub fn take(&mut self) -> Option<Batch<T>> {
        if self.under_way {
            return None;
        }
        let mut bytes = 0;
        let fits = |item: &&Item<T>| {
            bytes += size(&item.record);
            bytes <= self.bounds.batch_bytes
        };
        let count = self.queue.iter().take_while(fits).count().max(1).min(self.queue.len());
        let items: Vec<_> = self.queue.drain(..count).collect();
        self.under_way = !items.is_empty();
        self.under_way.then_some(Batch { items })
    }

    /// The batch under way is durable: its items may be acknowledged, in this order.
    pub fn finish(&mut self, batch: Batch<T>) -> Vec<Item<T>> {
        debug_assert!(self.under_way);
        self.under_way = false;
        for item in &batch.items {
            let numbers = &mut self.topics[usize::from(item.topic)];
            debug_assert_eq!(numbers.durable, item.record.offset);
            numbers.durable += 1;
        }
        self.records -= batch.items.len();
        self.bytes -= batch.items.iter().map(|item| size(&item.record)).sum::<usize>();
        batch.items
    }

    /// The batch under way was not made durable: it and all that waits is refused, in this order, and its offsets are
    /// given anew.
    pub fn fail(&mut self, batch: Batch<T>) -> Vec<Item<T>> {
        self.under_way = false;
        (self.records, self.bytes) = (0, 0);
        for numbers in &mut self.topics {
            numbers.assigned = numbers.durable;
        }
        let mut items = batch.items;
        items.extend(self.queue.drain(..));
        items
    }

    /// Whether nothing waits and nothing is under way.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.records == 0
    }
}

/// What a record counts for; the head stands for the memory that it takes besides its bytes.
fn size(record: &Record) -> usize {
    size_of::<Record>() + record.key.len() + record.value.len()
}
