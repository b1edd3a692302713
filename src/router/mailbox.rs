//! One direction between two nodes: a bounded ring with one producer and one consumer, and a `starved` flag by which
//! a producer that found the ring full learns that there is room again.
//!
//! The flag belongs to the producer: it is set while the producer's last push failed, and the consumer only reads it.
//! (Were the consumer to clear it, it could clear the one that a second failure has just set, and never wake for it.)
//! No wake-up is lost if both keep to this: the producer sleeps by the doorbell's protocol and takes
//! [`Sender::has_room`] for work; the consumer, after it took messages, wakes a sleeping producer if
//! [`Receiver::producer_starves`].
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
    (Sender { ring: producer, starving: false, starved: Arc::clone(&starved) }, Receiver { ring: consumer, starved })
}

/// The producer's end.
#[derive(Debug)]
pub struct Sender<T> {
    ring: ring::Producer<T>,
    /// What `starved` holds, so that pushing need not touch its cache line.
    starving: bool,
    starved: Arc<CachePadded<AtomicBool>>,
}

impl<T> Sender<T> {
    /// Appends the message.
    ///
    /// # Errors
    /// Gives the message back if the ring is full, and says so to the consumer until a push succeeds.
    #[inline]
    pub fn push(&mut self, message: T) -> Result<(), T> {
        let result = self.ring.push(message);
        if result.is_err() != self.starving {
            self.starving = result.is_err();
            // The fence that orders it is the doorbell's, between a failed push and the sleep.
            self.starved.store(self.starving, Ordering::Relaxed);
        }
        result.map_err(|ring::PushError::Full(message)| message)
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
    #[inline]
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

    /// Whether the producer waits for room; to be asked after messages were taken. If it sleeps, it must be woken.
    #[must_use = "the producer's outbox waits until somebody wakes it"]
    pub fn producer_starves(&self) -> bool {
        // Pairs with the fence of `Doorbell::announce_sleep`: orders the room made before the look at the flag.
        fence(Ordering::SeqCst);
        self.starved.load(Ordering::Relaxed)
    }

    /// Broken on purpose, to show that the model checker finds it: clears the producer's flag.
    #[cfg(all(test, ringgate_loom))]
    pub(super) fn take_starved(&self) -> bool {
        fence(Ordering::SeqCst);
        self.starved.load(Ordering::Relaxed) && self.starved.swap(false, Ordering::Relaxed)
    }
}

#[cfg(all(test, not(ringgate_loom)))]
mod tests {
    use super::*;

    /// A full ring gives the message back and says that its producer waits, until a push succeeds.
    #[test]
    fn a_full_ring_gives_back_and_says_so() {
        let (mut tx, mut rx) = mailbox(2);
        assert_eq!((tx.push(1), tx.push(2), tx.push(3)), (Ok(()), Ok(()), Err(3)));
        assert!(!tx.has_room());
        assert_eq!((rx.len(), rx.pop()), (2, Some(1)));
        assert!(tx.has_room());
        assert!(rx.producer_starves());
        assert_eq!(tx.push(3), Ok(()));
        assert!(!rx.producer_starves());
        assert_eq!((rx.pop(), rx.pop(), rx.pop(), rx.is_empty()), (Some(2), Some(3), None, true));
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
