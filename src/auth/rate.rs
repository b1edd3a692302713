//! A token bucket per connection and route, as one instant (GCRA, ITU-T I.371): no counter, no refill timer.

use crate::time::{Monotonic, Rate};

/// Remembers when the allowance is used up. Starts full; a period's worth may come at once.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Bucket {
    /// The instant at which the bucket is full again, nanoseconds of the monotonic clock.
    full_at: u64,
}

impl Bucket {
    /// Whether one more is allowed now, and if so, counts it. What is refused costs nothing.
    pub fn allow(&mut self, now: Monotonic, rate: Rate) -> bool {
        if rate.times == 0 {
            return false;
        }
        let period = rate.period().as_nanos() as u64;
        let interval = (period / u64::from(rate.times)).max(1);
        let full_at = self.full_at.max(now.as_nanos()).saturating_add(interval);
        if full_at - now.as_nanos() > period {
            return false;
        }
        self.full_at = full_at;
        true
    }

    /// Whether nothing of the allowance is used: such a bucket says no more than a new one.
    #[must_use]
    pub fn is_full(&self, now: Monotonic) -> bool {
        self.full_at <= now.as_nanos()
    }
}

const _: () = assert!(size_of::<Bucket>() <= 16);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    const SECOND: u64 = 1_000_000_000;

    /// A fresh bucket allows a second's worth at once, refuses the next, and refills at the rate.
    #[test]
    fn a_burst_is_a_second_and_refills_at_the_rate() {
        let (mut bucket, rate) = (Bucket::default(), Rate::per_second(5));
        let start = Monotonic::from_nanos(7_000_000_000);
        assert_eq!((0..10).filter(|_| bucket.allow(start, rate)).count(), 5);
        assert!(!bucket.allow(start + Duration::from_millis(199), rate));
        assert!(bucket.allow(start + Duration::from_millis(200), rate));
        assert!(!bucket.allow(start + Duration::from_millis(399), rate));
    }

    /// A minute's worth may come at once and refills over the minute; then the bucket is as good as new.
    #[test]
    fn minutes_are_counted_by_minutes() {
        let (mut bucket, rate) = (Bucket::default(), Rate::per_minute(6));
        let start = Monotonic::from_nanos(7_000_000_000);
        assert!(bucket.is_full(start));
        assert_eq!((0..10).filter(|_| bucket.allow(start, rate)).count(), 6);
        assert!(!bucket.allow(start + Duration::from_millis(9_999), rate));
        assert!(!bucket.is_full(start + Duration::from_secs(59)));
        assert!(bucket.is_full(start + Duration::from_secs(60)));
        assert!(bucket.allow(start + Duration::from_secs(10), rate));
    }

    /// Rate 0 allows nothing, and the end of time does not overflow.
    #[test]
    fn the_extremes_hold() {
        assert!(!Bucket::default().allow(Monotonic::ZERO, Rate::per_second(0)));
        let mut bucket = Bucket::default();
        assert!(bucket.allow(Monotonic::NEVER, Rate::per_second(1)));
        assert_ne!(bucket, Bucket::default());
        let mut fast = Bucket::default();
        assert!((0..1000).all(|_| fast.allow(Monotonic::ZERO, Rate::per_second(u32::MAX))));
    }

    proptest! {
        /// Over any span, no more pass than the burst and the rate times the span.
        #[test]
        fn never_more_than_burst_and_rate(per_second in 1u32..1000, steps in prop::collection::vec(0u64..200_000_000, 1..400)) {
            let (mut bucket, rate) = (Bucket::default(), Rate::per_second(per_second));
            let (mut now, mut passed) = (0u64, 0u64);
            for step in steps {
                now += step;
                passed += u64::from(bucket.allow(Monotonic::from_nanos(now), rate));
                let interval = SECOND / u64::from(per_second);
                prop_assert!(passed <= SECOND / interval + now / interval);
            }
        }
    }
}
