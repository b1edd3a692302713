//! The delta ring of a slow connection: the newest value of each waiting key, in the order of first waiting (D3).

use std::collections::HashMap;

use foldhash::fast::FixedState;

use crate::frame::Run;
use crate::id::StreamHandle;

/// A key within its stream.
pub(super) type Key = (StreamHandle, u64);

/// Waiting deltas as a list through a slab, with an index by key; every operation is O(1).
///
/// Invariant: the list from `head` has `len` slots, their bytes sum to `bytes`, `index.len() <= len <= slots.len()`
/// (equal without mutants), and `free.len() + len == slots.len()`.
#[derive(Debug)]
pub(super) struct DeltaRing {
    index: HashMap<Key, u32, FixedState>,
    slots: Vec<Slot>,
    free: Vec<u32>,
    head: u32,
    tail: u32,
    len: u32,
    bytes: usize,
}

#[derive(Debug)]
struct Slot {
    before: u32,
    after: u32,
    /// `None` exactly when the slot is free.
    delta: Option<Waiting>,
}

/// A waiting delta.
#[derive(Debug)]
pub(super) struct Waiting {
    /// A run of one.
    pub run: Run,
    /// Arrival number of this value, the newest of its key.
    pub arrival: u64,
}

impl Waiting {
    /// The delta's key.
    pub fn key(&self) -> Key {
        (self.run.batch.stream(), self.run.items()[0].key)
    }
}

impl DeltaRing {
    /// An empty ring.
    pub fn new(hasher: FixedState) -> Self {
        let index = HashMap::with_hasher(hasher);
        Self { index, slots: Vec::new(), free: Vec::new(), head: NIL, tail: NIL, len: 0, bytes: 0 }
    }

    /// Waiting deltas.
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// Their wire bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The slot of the delta whose turn is next.
    pub fn head(&self) -> Option<u32> {
        (self.head != NIL).then_some(self.head)
    }

    /// The slot whose turn follows that of `slot`.
    pub fn after(&self, slot: u32) -> Option<u32> {
        Some(self.slots[slot as usize].after).filter(|&after| after != NIL)
    }

    /// The delta of an occupied slot.
    pub fn get(&self, slot: u32) -> &Waiting {
        self.slots[slot as usize].delta.as_ref().expect("only occupied slots are linked")
    }

    /// The slot of a waiting key.
    pub fn find(&self, key: Key) -> Option<u32> {
        self.index.get(&key).copied()
    }

    /// Adds a key that does not wait, at the tail.
    pub fn push(&mut self, delta: Waiting) {
        let key = delta.key();
        let slot = self.link(delta);
        let former = self.index.insert(key, slot);
        debug_assert!(former.is_none(), "the key waited already");
    }

    /// Puts a newer value in its key's turn and returns the older one.
    pub fn replace(&mut self, slot: u32, newer: Waiting) -> Waiting {
        let delta = self.slots[slot as usize].delta.as_mut().expect("only occupied slots are indexed");
        self.bytes = self.bytes - delta.run.byte_len() + newer.run.byte_len();
        std::mem::replace(delta, newer)
    }

    /// Takes the delta whose turn is next.
    pub fn pop_head(&mut self) -> Option<Waiting> {
        self.head().map(|slot| self.take(slot))
    }

    /// Takes the delta that began to wait last.
    pub fn pop_youngest(&mut self) -> Option<Waiting> {
        (self.tail != NIL).then(|| self.take(self.tail))
    }

    /// Takes the delta of an occupied slot out of turn.
    pub fn take(&mut self, slot: u32) -> Waiting {
        let entry = &mut self.slots[slot as usize];
        let (before, after) = (entry.before, entry.after);
        let delta = entry.delta.take().expect("only occupied slots are taken");
        *self.end_or_link(before, true) = after;
        *self.end_or_link(after, false) = before;
        self.free.push(slot);
        self.len -= 1;
        self.bytes -= delta.run.byte_len();
        if self.index.get(&delta.key()) == Some(&slot) {
            self.index.remove(&delta.key());
        }
        delta
    }

    /// Takes every delta of a stream out and returns how many there were.
    pub fn remove_stream(&mut self, stream: StreamHandle) -> u64 {
        let mut removed = 0;
        let mut next = self.head();
        while let Some(slot) = next {
            next = self.after(slot);
            if self.get(slot).run.batch.stream() == stream {
                self.take(slot);
                removed += 1;
            }
        }
        removed
    }

    /// Empties the ring, keeps its memory.
    pub fn clear(&mut self) {
        self.index.clear();
        self.slots.clear();
        self.free.clear();
        (self.head, self.tail, self.len, self.bytes) = (NIL, NIL, 0, 0);
    }

    /// Adds a second value of a waiting key behind all others.
    #[cfg(feature = "mutants")]
    pub fn push_unindexed(&mut self, delta: Waiting) {
        self.link(delta);
    }

    /// Panics if an invariant of the type is broken.
    pub fn invariants(&self) {
        let (mut len, mut bytes, mut before, mut next) = (0, 0, NIL, self.head);
        while next != NIL {
            assert_eq!(self.slots[next as usize].before, before, "the list is linked both ways");
            let delta = self.get(next);
            assert_eq!(delta.run.len(), 1, "a waiting delta is a run of one");
            (len, bytes) = (len + 1, bytes + delta.run.byte_len());
            (before, next) = (next, self.slots[next as usize].after);
        }
        assert_eq!((before, len, bytes), (self.tail, self.len, self.bytes));
        assert_eq!(self.free.len() + self.len(), self.slots.len());
        assert!(self.index.len() <= self.len(), "every indexed key waits");
        for (key, &slot) in &self.index {
            assert_eq!(self.get(slot).key(), *key);
        }
    }

    fn link(&mut self, delta: Waiting) -> u32 {
        self.len += 1;
        self.bytes += delta.run.byte_len();
        let entry = Slot { before: self.tail, after: NIL, delta: Some(delta) };
        let slot = if let Some(slot) = self.free.pop() {
            self.slots[slot as usize] = entry;
            slot
        } else {
            self.slots.push(entry);
            (self.slots.len() - 1) as u32
        };
        *self.end_or_link(self.tail, true) = slot;
        self.tail = slot;
        slot
    }

    /// The `after` (or `before`) link of a slot; of no slot, the list's head (or tail).
    fn end_or_link(&mut self, slot: u32, forward: bool) -> &mut u32 {
        match (slot, forward) {
            (NIL, true) => &mut self.head,
            (NIL, false) => &mut self.tail,
            (slot, true) => &mut self.slots[slot as usize].after,
            (slot, false) => &mut self.slots[slot as usize].before,
        }
    }
}

/// No slot.
const NIL: u32 = u32::MAX;
