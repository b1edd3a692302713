//! Who sleeps. The protocol of every sleeping thread and everyone who gives it work:
//!
//! | sleeper | producer |
//! |---|---|
//! | [`Doorbell::announce_sleep`] | push |
//! | look for work once more | [`Doorbell::ring_needed`]: if so, wake it |
//! | none: block | |
//! | [`Doorbell::awake`] | |
//!
//! Both sides write, pass a `SeqCst` fence, and then read what the other wrote, so at least one of them sees the
//! other: the sleeper finds the work, or the producer finds the sleeper. A wake-up is never lost, and one sleep is
//! rung for at most once. It may be rung for although the sleeper found the work itself: the wake-up must be one that a
//! thread which is not blocked keeps for later (eventfd, socket, `unpark`), and waking for nothing must be harmless.

use std::fmt;
use std::thread::Thread;

use super::sync::{AtomicBool, Ordering, fence};

/// Whether one thread sleeps, or is about to.
#[derive(Debug)]
pub struct Doorbell {
    /// True from `announce_sleep` until a producer took it upon itself to ring, or until `awake`.
    sleeping: AtomicBool,
}

impl Default for Doorbell {
    fn default() -> Self {
        Self::new()
    }
}

impl Doorbell {
    /// The doorbell of a thread that is awake.
    #[must_use]
    pub fn new() -> Self {
        Self { sleeping: AtomicBool::new(false) }
    }

    /// The owner is about to block. It must look for work once more before it does, and call [`Doorbell::awake`]
    /// afterwards, whether it blocked or not.
    pub fn announce_sleep(&self) {
        self.sleeping.store(true, Ordering::Relaxed);
        // Pairs with the fence of `ring_needed`: orders the flag before the owner's last look for work.
        fence(Ordering::SeqCst);
    }

    /// The owner does not block any more; producers need not ring.
    pub fn awake(&self) {
        // A store would do, since a producer's exchange directly follows the announcement it ends; but loom lets it take
        // effect after later stores, and an exchange per sleep costs nothing beside the sleep.
        self.sleeping.swap(false, Ordering::Relaxed);
    }

    /// Whether the caller, who has just given the owner work, must wake it. Of several producers at most one is told
    /// so per sleep; it must do it, for the others rely on it.
    #[must_use = "the owner sleeps on if nobody wakes it"]
    pub fn ring_needed(&self) -> bool {
        // Pairs with the fence of `announce_sleep`: orders the caller's work before its look at the flag.
        fence(Ordering::SeqCst);
        // The plain load keeps the line shared while the owner is awake.
        self.sleeping.load(Ordering::Relaxed)
            && self.sleeping.compare_exchange(true, false, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

/// Ends a thread's sleep. A wake-up that comes while the thread is not blocked ends its next sleep at once.
pub trait Wake: Send + Sync {
    /// Wakes the thread; never blocks.
    fn wake(&self);
}

/// Wakes a peer that sleeps in [`std::thread::park`] or `park_timeout`.
#[derive(Clone)]
pub struct ThreadWaker(Thread);

impl ThreadWaker {
    /// For the thread to wake: `thread::current()` or `JoinHandle::thread`.
    #[must_use]
    pub fn new(thread: Thread) -> Self {
        Self(thread)
    }
}

impl Wake for ThreadWaker {
    fn wake(&self) {
        self.0.unpark();
    }
}

impl fmt::Debug for ThreadWaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ThreadWaker").field(&self.0.id()).finish()
    }
}

#[cfg(all(test, not(ringgate_loom)))]
mod tests {
    use super::*;

    /// A sleep is rung for once, by the first producer that asks, and not at all once the owner is awake.
    #[test]
    fn a_sleep_is_rung_for_once() {
        let bell = Doorbell::new();
        assert!(!bell.ring_needed());
        bell.announce_sleep();
        assert!(bell.ring_needed());
        assert!(!bell.ring_needed());
        bell.announce_sleep();
        bell.awake();
        assert!(!bell.ring_needed());
    }

    /// A parked thread is woken, also when the wake-up comes before it parks.
    #[test]
    fn a_thread_waker_ends_park() {
        let sleeper = std::thread::spawn(std::thread::park);
        ThreadWaker::new(sleeper.thread().clone()).wake();
        sleeper.join().unwrap();
    }
}
