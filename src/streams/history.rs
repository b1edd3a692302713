//! The reliable frames a home keeps of one stream, oldest first.
//!
//! Invariant: places ascend, `bytes` is the sum of the kept frames' wire bytes.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crate::class::Class;
use crate::frame::{Batch, Item, SentRun};
use crate::time::Monotonic;

/// A bounded ring of reliable frames.
#[derive(Default, Debug)]
pub struct History {
    frames: VecDeque<Kept>,
    bytes: usize,
}

/// A kept frame: frame `index` of a batch that holds nothing but reliable frames.
#[derive(Debug)]
struct Kept {
    batch: Arc<Batch>,
    index: u32,
}

impl Kept {
    fn item(&self) -> &Item {
        &self.batch.items()[self.index as usize]
    }

    fn byte_len(&self) -> usize {
        self.batch.byte_len(self.index as usize, self.index as usize + 1)
    }

    /// Appends the frame to runs of earlier ones.
    fn join(&self, runs: &mut Vec<SentRun>) {
        match runs.last_mut() {
            Some(run) if Arc::ptr_eq(&run.batch, &self.batch) && run.to == self.index => run.to += 1,
            _ => runs.push(SentRun { batch: Arc::clone(&self.batch), from: self.index, to: self.index + 1 }),
        }
    }
}

impl History {
    /// Appends a sealed batch's reliable frames. A batch with deltas in it is copied without them, so that the history
    /// never keeps their bytes alive.
    pub fn append(&mut self, batch: &Arc<Batch>) {
        let kept = match batch.deltas(0, batch.len()) {
            0 => Some(Arc::clone(batch)),
            _ => batch.reliable_only().map(Arc::new),
        };
        let Some(kept) = kept else { return };
        self.bytes += kept.byte_len(0, kept.len());
        debug_assert!(kept.items().iter().all(|item| item.class == Class::Reliable));
        self.frames.extend((0..kept.len() as u32).map(|index| Kept { batch: Arc::clone(&kept), index }));
    }

    /// Evicts the oldest frames beyond the bounds, and those older than `time`.
    pub fn trim(&mut self, now: Monotonic, events: usize, bytes: usize, time: Duration) {
        while let Some(oldest) = self.frames.front() {
            let expired = now.since(oldest.batch.born()) > time;
            if self.frames.len() <= events && self.bytes <= bytes && !expired {
                break;
            }
            self.evict_oldest();
        }
        if self.frames.is_empty() {
            self.frames = VecDeque::new();
        }
    }

    /// Evicts everything.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// Wire bytes kept.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether a member that has everything up to `place` finds all later frames here, given the stream's `head`
    /// (DELIVERY §6 "Recovered").
    #[must_use]
    pub fn reaches_back_to(&self, place: u64, head: u64) -> bool {
        match self.frames.get(self.first_behind(place)) {
            Some(kept) => kept.item().prev <= place,
            None => head <= place,
        }
    }

    /// The place behind which the frames kept begin; the `head` if none is.
    #[must_use]
    pub fn beginning(&self, head: u64) -> u64 {
        self.frames.front().map_or(head, |kept| kept.item().prev)
    }

    /// The frames behind `place`, at most `frames` of them and about `bytes` (at least one frame), as few runs as
    /// possible. Returns the runs and the place of the last frame.
    #[must_use]
    pub fn page(&self, place: u64, frames: usize, bytes: usize) -> (Vec<SentRun>, u64) {
        let mut runs: Vec<SentRun> = Vec::new();
        let (mut last, mut taken) = (place, 0);
        for kept in self.frames.range(self.first_behind(place)..).take(frames) {
            if taken > 0 && taken + kept.byte_len() > bytes {
                break;
            }
            taken += kept.byte_len();
            last = kept.item().place;
            kept.join(&mut runs);
        }
        (runs, last)
    }

    /// The newest frames, at most so many and so many bytes, oldest first, as few runs as possible.
    #[must_use]
    pub fn newest(&self, frames: usize, bytes: usize) -> Vec<SentRun> {
        let mut taken = 0;
        let fits = |kept: &&Kept| {
            taken += kept.byte_len();
            taken <= bytes
        };
        let count = self.frames.iter().rev().take(frames).take_while(fits).count();
        let mut runs = Vec::new();
        self.frames.range(self.frames.len() - count..).for_each(|kept| kept.join(&mut runs));
        runs
    }

    fn first_behind(&self, place: u64) -> usize {
        self.frames.partition_point(|kept| kept.item().place <= place)
    }

    fn evict_oldest(&mut self) {
        if let Some(kept) = self.frames.pop_front() {
            self.bytes -= kept.byte_len();
        }
    }
}
