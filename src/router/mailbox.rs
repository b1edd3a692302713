//! One direction between two nodes: a bounded ring with one producer and one consumer, and a `starved` flag by which
//! a producer that found the ring full learns that there is room again.
//!
//! The flag follows the doorbell's rule: the producer sets it, passes a `SeqCst` fence and tries again; the consumer
//! takes messages, passes a `SeqCst` fence and looks at the flag. So either the second try finds room, or the consumer
//! finds the flag and sees to it that the producer is woken.
//!
//! Under `cfg(ringgate_loom)` the ring is a stand-in with rtrb's orderings on the model checker's primitives.

use std::sync::Arc;

use crossbeam_utils::CachePadded;

use super::sync::{AtomicBool, Ordering, fence};

#[cfg(ringgate_loom)]
use super::ring_model as ring;
#[cfg(not(ringgate_loom))]
use rtrb as ring;

/// A ring of `slots` messages; `slots` ≥ 1.
///
/// # Panics
/// If `slots` is 0: such a ring could never carry a message.
#[must_use]
pub fn mailbox<T>(slots: usize) -> (Sender<T>, Receiver<T>) {
    assert!(slots > 0, "a mailbox needs at least one slot");
    let (producer, consumer) = ring::RingBuffer::new(slots);
    let starved = Arc::new(CachePadded::new(AtomicBool::new(false)));
    (Sender { ring: producer, starved: Arc::clone(&starved) }, Receiver { ring: consumer, starved })
}

/// The producer's end.
#[derive(Debug)]
pub struct Sender<T> {
    ring: ring::Producer<T>,
    /// True from a failed push until the consumer, having made room, looked at it.
    starved: Arc<CachePadded<AtomicBool>>,
}

impl<T> Sender<T> {
    /// Appends the message.
    ///
    /// # Errors
    /// Gives the message back if the ring is full; the consumer's [`Receiver::take_starved`] will then say so once it
    /// has made room.
    pub fn push(&mut self, message: T) -> Result<(), T> {
        let Err(ring::PushError::Full(message)) = self.ring.push(message) else { return Ok(()) };
        self.starved.store(true, Ordering::Relaxed);
        // Pairs with the fence of `take_starved`: orders the flag before the second look at the ring.
        fence(Ordering::SeqCst);
        self.ring.push(message).map_err(|ring::PushError::Full(message)| message)
    }

    /// Broken on purpose, to show that the model checker finds it: says that it starves, but does not look again.
    #[cfg(all(test, ringgate_loom))]
    pub(super) fn push_without_second_try(&mut self, message: T) -> Result<(), T> {
        let Err(ring::PushError::Full(message)) = self.ring.push(message) else { return Ok(()) };
        self.starved.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        Err(message)
    }

    /// Whether a push would succeed now.
    #[must_use]
    pub fn has_room(&self) -> bool {
        !self.ring.is_full()
    }

    /// Whether the consumer is gone, so that nobody will ever take a message.
    #[must_use]
    pub fn is_abandoned(&self) -> bool {
        self.ring.is_abandoned()
    }
}

/// The consumer's end.
#[derive(Debug)]
pub struct Receiver<T> {
    ring: ring::Consumer<T>,
    starved: Arc<CachePadded<AtomicBool>>,
}

impl<T> Receiver<T> {
    /// Takes the oldest message.
    pub fn pop(&mut self) -> Option<T> {
        self.ring.pop().ok()
    }

    /// Whether no message waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ring.is_empty()
    }

    /// How many messages wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ring.slots()
    }

    /// Whether the producer waits for room; to be asked after messages were taken. Forgets it: the caller must see to
    /// it that the producer, if it sleeps, is woken.
    #[must_use = "the producer's outbox waits until somebody wakes it"]
    pub fn take_starved(&mut self) -> bool {
        // Pairs with the fence of `push`: orders the room made before the look at the flag.
        fence(Ordering::SeqCst);
        self.starved.load(Ordering::Relaxed) && self.starved.swap(false, Ordering::Relaxed)
    }
}

#[cfg(all(test, not(ringgate_loom)))]
mod tests {
    use super::*;

    /// A full ring gives the message back and remembers that its producer waits, until it is asked.
    #[test]
    fn a_full_ring_gives_back_and_remembers() {
        let (mut tx, mut rx) = mailbox(2);
        assert_eq!((tx.push(1), tx.push(2), tx.push(3)), (Ok(()), Ok(()), Err(3)));
        assert!(!tx.has_room());
        assert_eq!((rx.len(), rx.pop()), (2, Some(1)));
        assert!(tx.has_room());
        assert!(rx.take_starved());
        assert!(!rx.take_starved());
        assert_eq!((rx.pop(), rx.pop(), rx.is_empty()), (Some(2), None, true));
    }

    /// The producer learns that the consumer is gone.
    #[test]
    fn a_gone_consumer_is_seen() {
        let (tx, rx) = mailbox::<u8>(1);
        assert!(!tx.is_abandoned());
        drop(rx);
        assert!(tx.is_abandoned());
    }
}
