//! What an embedded bus keeps of a topic in memory, whether or not it is on disk too: its newest records and where its
//! readers stand.
//!
//! Invariants: the records are contiguous, `first..next`; a cursor never goes back and never beyond `next`. While the
//! slowest reader is more than half the bound behind, nothing is admitted, so the other half is what a reader may still
//! look back on.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::Waker;

use crate::limits;
use crate::ports::Record;
use crate::router::Wake;
use crate::time::WallMillis;

/// How much a topic keeps in memory.
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

/// Who reads; a bus's own number for a handle.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct ReaderId(pub usize);

/// Whom to wake.
pub(super) type Wakes = Arc<[Arc<dyn Wake>]>;

/// See the module.
pub(super) struct Topic {
    name: Arc<str>,
    records: VecDeque<Stored>,
    /// Offset of the next record.
    next: u64,
    /// Bytes of all records there ever were here.
    end: u64,
    /// Admitted and not yet pushed.
    waiting_records: u64,
    waiting_bytes: u64,
    cursors: Vec<(ReaderId, u64)>,
    /// Whom a record wakes; shared, so that it costs an append one count.
    wakes: Wakes,
    /// Whom the next record wakes, once.
    watchers: Vec<Waker>,
    /// Whether an append was refused since there was room last.
    refused: bool,
}

struct Stored {
    record: Record,
    /// Bytes of all records before it.
    start: u64,
}

impl Topic {
    /// Without records; the next gets this offset.
    pub fn new(name: Arc<str>, next: u64) -> Self {
        Self {
            name,
            records: VecDeque::new(),
            next,
            end: 0,
            waiting_records: 0,
            waiting_bytes: 0,
            cursors: Vec::new(),
            wakes: Arc::default(),
            watchers: Vec::new(),
            refused: false,
        }
    }

    /// Its name.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Offset of the oldest record kept here.
    pub fn first(&self) -> u64 {
        self.next - self.records.len() as u64
    }

    /// Offset of the next record.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Whom a record wakes.
    pub fn wakes(&self) -> Wakes {
        Arc::clone(&self.wakes)
    }

    /// Sets whom a record wakes, after readers came or went.
    pub fn share_wakes(&mut self, wake: impl Fn(ReaderId) -> Option<Arc<dyn Wake>>) {
        self.wakes = self.cursors.iter().filter_map(|(reader, _)| wake(*reader)).collect();
    }

    /// The next record wakes it, once; one that is known already is kept once.
    pub fn watch(&mut self, waker: &Waker) {
        if !self.watchers.iter().any(|known| known.will_wake(waker)) {
            self.watchers.push(waker.clone());
        }
    }

    /// Whom a record wakes that was pushed now.
    pub fn take_watchers(&mut self) -> Vec<Waker> {
        std::mem::take(&mut self.watchers)
    }

    /// A reader that needs everything from the oldest record kept here.
    pub fn register(&mut self, reader: ReaderId) {
        self.register_at(reader, self.first());
    }

    /// A reader that needs everything from `offset` on.
    pub fn register_at(&mut self, reader: ReaderId, offset: u64) {
        self.cursors.push((reader, offset));
    }

    /// The reader needs nothing any more; who was refused may try again.
    pub fn unregister(&mut self, reader: ReaderId) {
        self.cursors.retain(|(other, _)| *other != reader);
        self.refused = false;
    }

    /// The reader needs nothing below `offset`. Returns whether somebody who was refused may try again.
    pub fn done(&mut self, reader: ReaderId, offset: u64, bounds: TopicBounds) -> bool {
        let next = self.next;
        if let Some((_, cursor)) = self.cursors.iter_mut().find(|(other, _)| *other == reader) {
            *cursor = offset.clamp(*cursor, next.max(*cursor));
        }
        // A quarter, so that a refused writer finds room for more than one record.
        let room = self.refused && !self.lags(bounds.records / 4, bounds.bytes / 4);
        self.refused &= !room;
        room
    }

    /// The oldest offset that a reader needs; `None` if nobody reads.
    pub fn unread(&self) -> Option<u64> {
        self.cursors.iter().map(|(_, cursor)| *cursor).min()
    }

    /// Whether a record may come. If not, [`Topic::done`] says when.
    pub fn admits(&mut self, bounds: TopicBounds) -> bool {
        let lags = self.lags(bounds.records / 2, bounds.bytes / 2);
        self.refused |= lags;
        !lags
    }

    /// A record of so many bytes was admitted and comes later.
    pub fn promise(&mut self, bytes: usize) {
        self.waiting_records += 1;
        self.waiting_bytes += bytes as u64;
    }

    /// It comes now, or never.
    pub fn redeem(&mut self, bytes: usize) {
        self.waiting_records -= 1;
        self.waiting_bytes -= bytes as u64;
    }

    /// Adds a record; its offset is the next one.
    pub fn push(&mut self, record: Record) {
        let start = self.end;
        self.end += (record.key.len() + record.value.len()) as u64;
        self.records.push_back(Stored { record: Record { offset: self.next, ..record }, start });
        self.next += 1;
    }

    /// Evicts what is beyond the bounds; it has been read, for more would not have been admitted.
    pub fn evict(&mut self, bounds: TopicBounds) {
        let unread = self.unread().unwrap_or(self.next);
        while !self.is_within(bounds) {
            let unread = self.first() >= unread;
            debug_assert!(!unread, "a reader is never more than half a bound behind, so there is something to evict");
            if unread {
                break;
            }
            self.records.pop_front();
        }
    }

    /// Evicts what is beyond the bounds; the disk has it.
    pub fn evict_to_disk(&mut self, bounds: TopicBounds) {
        while !self.is_within(bounds) {
            self.records.pop_front();
        }
    }

    /// Copies out at most `max` records from `offset`, which is not below `first`; returns where to go on.
    pub fn read(&self, offset: u64, max: usize, out: &mut Vec<Record>) -> u64 {
        let from = self.index(offset.max(self.first())).unwrap_or(self.records.len());
        let to = from.saturating_add(max).min(self.records.len());
        out.extend(self.records.range(from..to).map(|stored| stored.record.clone()));
        if from == to { offset.max(self.first()) } else { self.first() + to as u64 }
    }

    /// Offset of the first record here that is not older.
    pub fn since(&self, since: WallMillis) -> u64 {
        let at = self.records.iter().position(|stored| stored.record.timestamp >= since);
        self.first() + at.unwrap_or(self.records.len()) as u64
    }

    /// Whether the slowest reader has more than so much before it, what is admitted included. Of what is only on disk
    /// the records count, not the bytes.
    fn lags(&self, records: usize, bytes: usize) -> bool {
        let Some(unread) = self.unread() else { return false };
        let start = self.index(unread.max(self.first())).and_then(|at| self.records.get(at));
        let start = start.map_or(self.end, |stored| stored.start);
        let (end, next) = (self.end + self.waiting_bytes, self.next + self.waiting_records);
        next.saturating_sub(unread) > records as u64 || end - start > bytes as u64
    }

    fn is_within(&self, bounds: TopicBounds) -> bool {
        let oldest = self.records.front().map_or(self.end, |stored| stored.start);
        self.records.len() <= bounds.records && self.end - oldest <= bounds.bytes as u64
    }

    /// The place in `records` of an offset that is not behind the end.
    fn index(&self, offset: u64) -> Option<usize> {
        let at = usize::try_from(offset.checked_sub(self.first())?).ok()?;
        (at <= self.records.len()).then_some(at)
    }
}
