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
const KEEP: usize = 12;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MILLI: u64 = 1_000_000;
    const DAY: u64 = 86_400_000 * MILLI;

    #[derive(Clone, Copy, Debug)]
    enum Step {
        /// Nanoseconds behind the current time, which may lie before the last advance's tick.
        Insert(u64),
        InsertPassed(u64),
        InsertNever,
        Advance(u64),
        AdvanceToNext,
    }

    fn span() -> impl Strategy<Value = u64> {
        prop_oneof![
            0..3 * MILLI,
            0..20_000 * MILLI,
            0..30 * DAY,
            0..u64::MAX / 4,
            (0u64..8, 0..64u32).prop_map(|(factor, shift)| (factor << (shift % 40)).saturating_mul(MILLI) / 4),
        ]
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => span().prop_map(Step::Insert),
            1 => span().prop_map(Step::InsertPassed),
            1 => Just(Step::InsertNever),
            3 => span().prop_map(Step::Advance),
            2 => Just(Step::AdvanceToNext),
        ]
    }

    /// What the wheel should hold: for each token, when it is due.
    struct Model {
        start: u64,
        granularity: u64,
        advanced_to: u64,
        due: std::collections::BTreeMap<u32, u128>,
    }

    impl Model {
        fn insert(&mut self, deadline: u64, token: u32) {
            // In 128 bits: the rounded deadline may lie behind the clock's end, where it never fires.
            let (granularity, start) = (u128::from(self.granularity), u128::from(self.start));
            let rounded = start + u128::from(deadline.saturating_sub(self.start)).div_ceil(granularity) * granularity;
            let next_tick = start + (u128::from(self.advanced_to - self.start) / granularity + 1) * granularity;
            self.due.insert(token, rounded.max(next_tick));
        }

        /// Due times and tokens, in the order of firing up to the order within a tick.
        fn advance(&mut self, now: u64) -> Vec<(u128, u32)> {
            self.advanced_to = now;
            let mut fired: Vec<_> = self.due.iter().map(|(token, due)| (*due, *token)).collect();
            fired.retain(|(due, _)| *due <= u128::from(now));
            self.due.retain(|_, due| *due > u128::from(now));
            fired.sort_unstable();
            fired
        }
    }

    /// Against a model that keeps every due time: what fires, when and in which order; never early, at most one tick
    /// late; `next_deadline` lies between the last advance and the earliest timer. Fired timers are inserted again.
    #[test]
    fn the_wheel_fires_what_a_sorted_map_would() {
        let granularity = prop_oneof![Just(1), Just(7), Just(MILLI), Just(100 * MILLI)];
        proptest!(|(start in 0..DAY, granularity in granularity, steps in prop::collection::vec(step(), 1..120), again in span())| {
            let mut wheel = Wheel::new(Monotonic::from_nanos(start), Duration::from_nanos(granularity));
            let mut model = Model { start, granularity, advanced_to: start, due: Default::default() };
            let (mut now, mut tokens, mut fired) = (start, 0u32.., Vec::new());
            for step in steps {
                let mut insert = |model: &mut Model, wheel: &mut Wheel<u32>, deadline: u64| {
                    let token = tokens.next().unwrap();
                    model.insert(deadline, token);
                    wheel.insert(Monotonic::from_nanos(deadline), token);
                };
                match step {
                    Step::Insert(span) if now.saturating_add(span) < u64::MAX => insert(&mut model, &mut wheel, now + span),
                    Step::InsertPassed(span) => insert(&mut model, &mut wheel, now.saturating_sub(span)),
                    Step::Insert(_) | Step::InsertNever => wheel.insert(Monotonic::NEVER, u32::MAX),
                    Step::Advance(span) => now = now.saturating_add(span).min(u64::MAX - 1),
                    Step::AdvanceToNext if !wheel.is_empty() => now = wheel.next_deadline().as_nanos().min(u64::MAX - 1),
                    Step::AdvanceToNext => {}
                }
                if matches!(step, Step::Advance(_) | Step::AdvanceToNext) {
                    fired.clear();
                    wheel.advance(Monotonic::from_nanos(now), &mut fired);
                    let expected = model.advance(now);
                    let due = |token: &u32| expected.iter().find(|(_, t)| t == token).map(|(due, _)| *due);
                    prop_assert!(fired.is_sorted_by_key(due), "{fired:?} {expected:?}");
                    let mut in_model_order: Vec<_> = fired.iter().map(|token| (due(token).unwrap_or(0), *token)).collect();
                    in_model_order.sort_unstable();
                    prop_assert_eq!(in_model_order, expected);
                    for _ in 0..fired.len().min(3) {
                        if now.saturating_add(again) < u64::MAX {
                            insert(&mut model, &mut wheel, now + again);
                        }
                    }
                }
                prop_assert_eq!(wheel.len(), model.due.len());
                let next = u128::from(wheel.next_deadline().as_nanos());
                match model.due.values().min() {
                    None => prop_assert_eq!(next, u128::from(u64::MAX)),
                    Some(earliest) => {
                        prop_assert!(next <= *earliest);
                        prop_assert!(next > u128::from(model.advanced_to) || next == u128::from(u64::MAX));
                    }
                }
            }
        });
    }

    /// An owner that sleeps until `next_deadline` each time reaches a far timer in at most one wake-up per level.
    #[test]
    fn a_far_timer_needs_few_wake_ups() {
        for days in [0, 1, 30, 3650] {
            let deadline = Monotonic::from_nanos(days * DAY + 123_456_789);
            let mut wheel = Wheel::new(Monotonic::ZERO, Duration::from_millis(10));
            wheel.insert(deadline, ());
            let (mut fired, mut wake_ups, mut now) = (Vec::new(), 0, Monotonic::ZERO);
            while fired.is_empty() {
                now = wheel.next_deadline();
                wheel.advance(now, &mut fired);
                wake_ups += 1;
            }
            assert!(now >= deadline && now.since(deadline) < Duration::from_millis(10));
            assert!(wake_ups <= LEVELS, "{wake_ups}");
        }
    }

    /// 100,000 timers take at most 24 bytes each, besides what empty slots may keep, and give it back.
    #[test]
    fn memory_is_bounded_and_goes_back() {
        fn bytes(wheel: &Wheel<u64>) -> usize {
            let timers: usize = wheel.levels.iter().flat_map(|level| &level.slots).map(Vec::capacity).sum();
            timers * size_of::<Timer<u64>>()
        }
        let kept = LEVELS * SLOTS * KEEP * size_of::<Timer<u64>>();
        let mut wheel = Wheel::new(Monotonic::ZERO, Duration::from_millis(100));
        for i in 0..100_000u64 {
            wheel.insert(Monotonic::from_nanos(i * 3 * MILLI), i);
        }
        assert!(bytes(&wheel) <= 24 * wheel.len() + kept, "{}", bytes(&wheel));
        let mut fired = Vec::new();
        for second in 0..=301 {
            wheel.advance(Monotonic::from_nanos(second * 1000 * MILLI), &mut fired);
        }
        assert_eq!((fired.len(), wheel.len()), (100_000, 0));
        assert!(bytes(&wheel) <= kept, "{}", bytes(&wheel));
    }
}
