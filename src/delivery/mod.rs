//! Policy and write queue of one connection (DELIVERY §3), sans-IO.
//!
//! A [`WriteQueue`] holds what waits for one client and decides what may be replaced, left out or must end the
//! connection. It only returns a [`Verdict`]; the shard carries it out. One flush of a connection is
//! [`WriteQueue::next_send`], the bytes handed to the kernel, [`WriteQueue::sent`], repeated until `next_send` says
//! `Nothing` or the kernel took fewer bytes than asked; nothing is pushed between `next_send` and its `sent`.
//!
//! Invariants: D1–D4, D6, D7 of DELIVERY §2 within one connection, and after every operation, per class, what the
//! ledger says is pending is what the shard's queues hold (D5).
//!
//! It never touches a socket, reads a clock, encodes an event, or looks at a neighbour's queue.

mod backlog;
mod queue;
mod ring;
mod send;
mod skips;
#[cfg(test)]
mod tests;

use std::time::Duration;

use foldhash::fast::FixedState;

use crate::close::CloseReason;
use crate::id::StreamHandle;
use crate::limits;
use crate::stats::{Histogram, Ledger};
use crate::time::Monotonic;

use backlog::Backlog;
pub use queue::{CreditExceeded, WriteQueue};
use ring::DeltaRing;
pub use send::ToSend;

/// Whether a deliberately broken policy is chosen; constant `false` without the feature `mutants`.
#[cfg(feature = "mutants")]
macro_rules! mutant {
    ($limits:expr, $name:ident) => {
        $limits.mutant == $crate::mutant::Mutant::$name
    };
}
#[cfg(not(feature = "mutants"))]
macro_rules! mutant {
    ($limits:expr, $name:ident) => {
        $crate::delivery::unbroken($limits)
    };
}
use mutant;

/// No policy is broken without the feature `mutants`.
#[cfg(not(feature = "mutants"))]
#[inline(always)]
const fn unbroken(_: &Limits) -> bool {
    false
}

/// Bounds of one connection's queue, judged while it is slow (D4, D7).
#[derive(Clone, Debug)]
pub struct Limits {
    /// Reliable frames that may wait.
    pub frames: usize,
    /// Bytes of reliable frames and deltas that may wait.
    pub bytes: usize,
    /// How long the oldest reliable frame may wait.
    pub age: Duration,
    /// Keys in the delta ring.
    pub delta_keys: usize,
    /// Bytes in the delta ring.
    pub delta_bytes: usize,
    /// Answers that may wait before the connection's reading pauses.
    pub answer_frames: usize,
    /// Bytes of answers that may wait before the connection's reading pauses.
    pub answer_bytes: usize,
    /// The broken policy to run instead.
    #[cfg(feature = "mutants")]
    pub mutant: crate::mutant::Mutant,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            frames: limits::QUEUE_FRAMES,
            bytes: limits::QUEUE_BYTES,
            age: limits::QUEUE_AGE,
            delta_keys: limits::DELTA_KEYS,
            delta_bytes: limits::DELTA_BYTES,
            answer_frames: limits::ANSWER_FRAMES,
            answer_bytes: limits::ANSWER_BYTES,
            #[cfg(feature = "mutants")]
            mutant: crate::mutant::Mutant::None,
        }
    }
}

/// What a shard lends to every operation of its queues.
pub struct Context<'a> {
    /// The tick's time.
    pub now: Monotonic,
    /// Bounds.
    pub limits: &'a Limits,
    /// The shard's conservation accounts (D5).
    pub ledger: &'a mut Ledger,
    /// The shard's free queue memory.
    pub pool: &'a mut Pool,
    /// Writes `skipped` frames in the connection's dialect.
    pub skipped: &'a dyn EncodeSkipped,
    /// Age of every delta at the time the kernel took its first byte, nanoseconds.
    pub delta_age: &'a Histogram,
}

/// A dialect's `skipped` frame (D6).
pub trait EncodeSkipped {
    /// Appends one whole wire frame that says that `count` deltas of the stream were left out since last told. A
    /// dialect without such a frame appends nothing.
    fn encode_skipped(&self, stream: StreamHandle, count: u64, out: &mut Vec<u8>);
}

/// What became of a push, and what the shard must do about it. Ordered by severity; of several, the most severe counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use = "the queue only returns a verdict; the shard carries it out"]
pub enum Verdict {
    /// Everything waits or nothing was to be done.
    Queued,
    /// At least one older value of a key gave way to a newer one.
    Replaced,
    /// At least one delta was left out, the pushed one or another.
    Dropped,
    /// The answers' share is used up: pause the connection's reading until [`WriteQueue::answers_drained`].
    AnswersFull,
    /// A bound is passed: close the connection with this reason. Nothing pushed from now on is delivered.
    Close(CloseReason),
    /// The queue was closed before; the frames were neither taken nor counted.
    Refused,
}

impl Verdict {
    /// The more severe of the two.
    pub fn max(self, other: Self) -> Self {
        if other.severity() > self.severity() { other } else { self }
    }

    fn severity(self) -> u8 {
        match self {
            Self::Queued => 0,
            Self::Replaced => 1,
            Self::Dropped => 2,
            Self::AnswersFull => 3,
            Self::Close(_) => 4,
            Self::Refused => 5,
        }
    }
}

/// Free queue memory of one shard: an empty queue owns none.
#[derive(Debug)]
pub struct Pool {
    #[expect(clippy::vec_box, reason = "the boxes go in and out of queues as they are")]
    backlogs: Vec<Box<Backlog>>,
    #[expect(clippy::vec_box, reason = "the boxes go in and out of queues as they are")]
    rings: Vec<Box<DeltaRing>>,
    hasher: FixedState,
}

impl Pool {
    /// An empty pool. `seed` must be random per process, for clients choose delta keys.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { backlogs: Vec::new(), rings: Vec::new(), hasher: FixedState::with_seed(seed) }
    }

    fn take_backlog(&mut self) -> Box<Backlog> {
        self.backlogs.pop().unwrap_or_default()
    }

    /// Takes back a backlog that holds nothing.
    fn give_backlog(&mut self, mut backlog: Box<Backlog>) {
        if let Some(ring) = backlog.reset() {
            self.give_ring(ring);
        }
        if self.backlogs.len() < BACKLOGS_KEPT {
            self.backlogs.push(backlog);
        }
    }

    fn take_ring(&mut self) -> Box<DeltaRing> {
        self.rings.pop().unwrap_or_else(|| Box::new(DeltaRing::new(self.hasher.clone())))
    }

    /// Takes back a ring that holds nothing.
    fn give_ring(&mut self, ring: Box<DeltaRing>) {
        if self.rings.len() < RINGS_KEPT {
            self.rings.push(ring);
        }
    }
}

/// Free backlogs a shard keeps: 4,096 × about 0.5 KiB = 2 MiB at most.
const BACKLOGS_KEPT: usize = 4096;
/// Free delta rings a shard keeps: 64 × about 64 KiB = 4 MiB at most.
const RINGS_KEPT: usize = 64;
