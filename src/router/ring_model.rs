//! rtrb's ring for the model checker: the same calls, the same cached indices, the same orderings on loom's primitives.
//! Only built under `cfg(ringgate_loom)`.

use std::sync::Arc;

use loom::cell::UnsafeCell;
use loom::sync::atomic::{AtomicUsize, Ordering};

/// Makes rings.
#[derive(Debug)]
pub struct RingBuffer<T> {
    /// Messages taken; written by the consumer.
    head: AtomicUsize,
    /// Messages pushed; written by the producer. `head <= tail <= head + slots.len()`.
    tail: AtomicUsize,
    slots: Box<[UnsafeCell<Option<T>>]>,
}

// SAFETY: a slot is touched by the producer alone while it is outside `head..tail` and by the consumer alone while it
// is inside; the Release stores and Acquire loads of the indices hand it over. Loom checks this on every access.
unsafe impl<T: Send> Sync for RingBuffer<T> {}

impl<T> RingBuffer<T> {
    /// A ring of `capacity` slots.
    #[expect(clippy::new_ret_no_self, reason = "rtrb's signature")]
    pub fn new(capacity: usize) -> (Producer<T>, Consumer<T>) {
        let slots = (0..capacity).map(|_| UnsafeCell::new(None)).collect();
        let ring = Arc::new(Self { head: AtomicUsize::new(0), tail: AtomicUsize::new(0), slots });
        let producer = Producer { ring: Arc::clone(&ring), head: std::cell::Cell::new(0), tail: 0 };
        (producer, Consumer { ring, head: 0, tail: std::cell::Cell::new(0) })
    }
}

/// The ring was full.
#[derive(Debug)]
pub enum PushError<T> {
    /// The value that did not fit.
    Full(T),
}

/// The producer's end, with its last look at `head`.
#[derive(Debug)]
pub struct Producer<T> {
    ring: Arc<RingBuffer<T>>,
    head: std::cell::Cell<usize>,
    tail: usize,
}

impl<T> Producer<T> {
    /// Appends, or gives the value back.
    pub fn push(&mut self, value: T) -> Result<(), PushError<T>> {
        if self.is_full() {
            return Err(PushError::Full(value));
        }
        let slot = &self.ring.slots[self.tail % self.ring.slots.len()];
        // SAFETY: `head <= tail < head + slots`, so the slot is the producer's; `&mut self` makes it the only one.
        slot.with_mut(|slot| unsafe { *slot = Some(value) });
        self.tail += 1;
        self.ring.tail.store(self.tail, Ordering::Release);
        Ok(())
    }

    /// Whether no slot is free.
    pub fn is_full(&self) -> bool {
        if self.tail - self.head.get() < self.ring.slots.len() {
            return false;
        }
        self.head.set(self.ring.head.load(Ordering::Acquire));
        self.tail - self.head.get() == self.ring.slots.len()
    }

    /// Whether the consumer is gone.
    pub fn is_abandoned(&self) -> bool {
        Arc::strong_count(&self.ring) < 2
    }
}

/// The consumer's end, with its last look at `tail`.
#[derive(Debug)]
pub struct Consumer<T> {
    ring: Arc<RingBuffer<T>>,
    head: usize,
    tail: std::cell::Cell<usize>,
}

/// The ring was empty.
#[derive(Debug)]
pub struct PopError;

impl<T> Consumer<T> {
    /// Takes the oldest value.
    pub fn pop(&mut self) -> Result<T, PopError> {
        if self.is_empty() {
            return Err(PopError);
        }
        let slot = &self.ring.slots[self.head % self.ring.slots.len()];
        // SAFETY: `head < tail`, so the slot is the consumer's; `&mut self` makes it the only one.
        let value = slot.with_mut(|slot| unsafe { (*slot).take() });
        self.head += 1;
        self.ring.head.store(self.head, Ordering::Release);
        value.ok_or(PopError)
    }

    /// Whether no value waits.
    pub fn is_empty(&self) -> bool {
        if self.head == self.tail.get() {
            self.tail.set(self.ring.tail.load(Ordering::Acquire));
        }
        self.head == self.tail.get()
    }

    /// How many values wait.
    pub fn slots(&self) -> usize {
        self.tail.set(self.ring.tail.load(Ordering::Acquire));
        self.tail.get() - self.head
    }
}
