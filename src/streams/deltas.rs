//! The newest value of each delta key of one stream, in the order of their last change.
//!
//! Invariant: `order` and `slots` hold the same keys; sequences ascend along the order; `bytes` is the sum of what the
//! slots' buffers take.
//! A slot's buffer is written again in place, so an update allocates nothing once the key exists.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use foldhash::fast::FixedState;

use crate::class::Class;
use crate::frame::{BatchBuilder, Item, Origin, SentRun};
use crate::id::StreamHandle;
use crate::time::Monotonic;

/// See the module.
#[derive(Debug)]
pub struct DeltaValues {
    slots: HashMap<u64, Slot, FixedState>,
    order: BTreeMap<u64, u64>,
    sequence: u64,
    bytes: usize,
}

#[derive(Debug)]
struct Slot {
    sequence: u64,
    place: u64,
    at: Monotonic,
    bytes: Vec<u8>,
}

impl DeltaValues {
    /// No value yet; `seed` makes the hash unpredictable for clients.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { slots: HashMap::with_hasher(FixedState::with_seed(seed)), order: BTreeMap::new(), sequence: 0, bytes: 0 }
    }

    /// Whether there is no value.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Sets a key's newest value: its wire frame and the place it follows.
    pub fn set(&mut self, now: Monotonic, key: u64, place: u64, wire: &[u8]) {
        self.sequence += 1;
        let sequence = self.sequence;
        let slot = self.slots.entry(key).or_insert_with(|| Slot { sequence: 0, place, at: now, bytes: Vec::new() });
        if slot.sequence != 0 {
            self.order.remove(&slot.sequence);
        }
        (slot.sequence, slot.place, slot.at) = (sequence, place, now);
        self.bytes -= slot.bytes.capacity();
        slot.bytes.clear();
        slot.bytes.extend_from_slice(wire);
        self.bytes += slot.bytes.capacity();
        self.order.insert(sequence, key);
    }

    /// Removes the values that changed longest ago until the others are at most so many keys and bytes.
    pub fn bound(&mut self, keys: usize, bytes: usize) {
        while (self.order.len() > keys || self.bytes > bytes)
            && let Some((_, &oldest)) = self.order.first_key_value()
        {
            self.forget(oldest);
        }
    }

    /// Removes a key's value.
    pub fn forget(&mut self, key: u64) {
        if let Some(slot) = self.slots.remove(&key) {
            self.order.remove(&slot.sequence);
            self.bytes -= slot.bytes.capacity();
        }
    }

    /// Removes values that have not changed for `age`.
    pub fn trim(&mut self, now: Monotonic, age: Duration) {
        while let Some((_, &key)) = self.order.first_key_value() {
            if self.slots.get(&key).is_some_and(|slot| now.since(slot.at) <= age) {
                break;
            }
            self.forget(key);
        }
        if self.slots.is_empty() {
            self.slots.shrink_to_fit();
        }
    }

    /// The values that changed behind `sequence`, as one run, and the sequence of the last.
    #[must_use]
    pub fn page(&self, stream: StreamHandle, origin: Origin, sequence: u64) -> (Option<SentRun>, u64) {
        let mut builder = BatchBuilder::of(stream, origin);
        let (mut last, mut born) = (sequence, Monotonic::NEVER);
        for (&sequence, key) in self.order.range(sequence + 1..) {
            let slot = self.slots.get(key).expect("the order holds the slots' keys");
            let item = Item { class: Class::Delta, key: *key, forgets: false, place: slot.place, prev: 0 };
            builder.push(item, |out| out.extend_from_slice(&slot.bytes));
            born = born.min(slot.at);
            last = sequence;
        }
        ((!builder.is_empty()).then(|| whole(builder, born)), last)
    }
}

fn whole(mut builder: BatchBuilder, born: Monotonic) -> SentRun {
    let to = builder.len() as u32;
    SentRun { batch: Arc::new(builder.seal(born)), from: 0, to }
}
