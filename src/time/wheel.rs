//! A hierarchical timer wheel for many coarse timers: deadlines of idle, ping and resume timers, retries, ages.
//!
//! Eleven levels of 64 slots, one base-64 digit of the tick number each, so every deadline has a slot and nothing
//! overflows. A timer lies at the level of the highest digit in which its tick differs from the current one, moves
//! towards level 0 as that digit is reached, and fires from there: insertion is O(1), and a timer moves at most once
//! per level. There is no cancel: an owner whose timer fires looks whether it still wants anything, and inserts the
//! next deadline.
//!
//! Invariant: a timer at level `l`, slot `s` has digits above `l` equal to the current tick's, and `s` greater than the
//! current tick's digit `l`. So the first occupied slot of the lowest occupied level is the earliest.

use std::time::Duration;

use super::Monotonic;

/// Timers that carry a `T`. 16 bytes each if `T` has 8, half as much again at worst for slack.
#[derive(Debug)]
pub struct Wheel<T> {
    start: Monotonic,
    /// Nanoseconds per tick, ≥ 1.
    granularity: u64,
    /// Ticks completed: what was due by then has fired.
    tick: u64,
    len: usize,
    levels: Box<[Level<T>; LEVELS]>,
}

#[derive(Debug)]
struct Level<T> {
    /// A bit per slot that is not empty.
    occupied: u64,
    slots: [Vec<Timer<T>>; SLOTS],
}

#[derive(Clone, Copy, Debug)]
struct Timer<T> {
    /// When it fires; later than the wheel's tick.
    tick: u64,
    token: T,
}

impl<T: Copy> Wheel<T> {
    /// A wheel that begins at `start` and tells deadlines apart by `granularity`, taken as 1 ns if it is zero.
    #[must_use]
    pub fn new(start: Monotonic, granularity: Duration) -> Self {
        let granularity = u64::try_from(granularity.as_nanos()).unwrap_or(u64::MAX).max(1);
        let level = |_| Level { occupied: 0, slots: std::array::from_fn(|_| Vec::new()) };
        Self { start, granularity, tick: 0, len: 0, levels: Box::new(std::array::from_fn(level)) }
    }

    /// How many timers wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no timer waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds a timer. One whose deadline has passed fires with the next tick, so that an owner who keeps inserting
    /// passed deadlines does not spin. `Monotonic::NEVER` adds nothing.
    pub fn insert(&mut self, deadline: Monotonic, token: T) {
        if deadline == Monotonic::NEVER {
            return;
        }
        let since_start = deadline.as_nanos().saturating_sub(self.start.as_nanos());
        let tick = since_start.div_ceil(self.granularity).max(self.tick + 1);
        self.place(Timer { tick, token });
        self.len += 1;
    }

    /// Appends the tokens of all timers whose deadline, rounded up to the granularity, is not after `now`, earlier
    /// ticks first. Never one before its deadline. A `now` before an earlier one changes nothing.
    pub fn advance(&mut self, now: Monotonic, fired: &mut Vec<T>) {
        let target = (now.as_nanos().saturating_sub(self.start.as_nanos()) / self.granularity).min(u64::MAX - 1);
        while let Some((level, slot, tick)) = self.first_slot()
            && tick <= target
        {
            self.tick = tick;
            self.open(level, slot, fired);
        }
        self.tick = self.tick.max(target);
    }

    /// When to call [`Wheel::advance`] next: not after the earliest deadline rounded up to the granularity, and after
    /// the last `advance`; maybe earlier, when timers have to move a level. `Monotonic::NEVER` if there is none.
    #[must_use]
    pub fn next_deadline(&self) -> Monotonic {
        self.first_slot().map_or(Monotonic::NEVER, |(_, _, tick)| {
            Monotonic::from_nanos(self.start.as_nanos().saturating_add(tick.saturating_mul(self.granularity)))
        })
    }

    /// Level, slot and first tick of the earliest occupied slot.
    fn first_slot(&self) -> Option<(usize, usize, u64)> {
        let level = self.levels.iter().position(|level| level.occupied != 0)?;
        let slot = self.levels[level].occupied.trailing_zeros() as usize;
        let shift = level as u32 * DIGIT_BITS;
        let above = self.tick.checked_shr(shift + DIGIT_BITS).map_or(0, |high| high << (shift + DIGIT_BITS));
        Some((level, slot, above | (slot as u64) << shift))
    }

    /// Fires what is due in the slot and moves the rest to lower levels. The wheel's tick is the slot's first.
    fn open(&mut self, level: usize, slot: usize, fired: &mut Vec<T>) {
        self.levels[level].occupied &= !(1 << slot);
        let mut timers = std::mem::take(&mut self.levels[level].slots[slot]);
        for timer in timers.drain(..) {
            if timer.tick == self.tick {
                fired.push(timer.token);
                self.len -= 1;
            } else {
                self.place(timer);
            }
        }
        if timers.capacity() <= KEEP {
            self.levels[level].slots[slot] = timers;
        }
    }

    fn place(&mut self, timer: Timer<T>) {
        let level = ((timer.tick ^ self.tick).ilog2() / DIGIT_BITS) as usize;
        let slot = (timer.tick >> (level as u32 * DIGIT_BITS)) as usize % SLOTS;
        let level = &mut self.levels[level];
        level.occupied |= 1 << slot;
        let timers = &mut level.slots[slot];
        if timers.len() == timers.capacity() {
            // By half instead of the usual doubling, to bound the slack.
            timers.reserve_exact((timers.len() / 2).max(4));
        }
        timers.push(timer);
    }
}

/// Bits of a digit; a level's slots are numbered by one digit of the tick.
const DIGIT_BITS: u32 = 6;
const SLOTS: usize = 1 << DIGIT_BITS;
/// Digits of a 64-bit tick.
const LEVELS: usize = 64usize.div_ceil(DIGIT_BITS as usize);
/// Timers for which an empty slot keeps its memory, so that a few timers that come and go do not allocate.
const KEEP: usize = 10;
