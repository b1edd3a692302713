//! How often an address may ask for something that costs the node memory, e.g. a room: a bucket for each address that
//! asked of late. The table is bounded; while it is full of such addresses, new ones are refused.

use std::collections::HashMap;
use std::net::IpAddr;

use foldhash::fast::FixedState;

use super::Bucket;
use crate::time::{Monotonic, Rate};

/// See the module.
#[derive(Debug)]
pub struct Visits {
    buckets: HashMap<IpAddr, Bucket, FixedState>,
    addresses_max: usize,
}

impl Visits {
    /// Nobody has asked; at most so many addresses are remembered, `seed` makes the hashes unpredictable for clients.
    #[must_use]
    pub fn new(addresses_max: usize, seed: u64) -> Self {
        Self { buckets: HashMap::with_hasher(FixedState::with_seed(seed)), addresses_max }
    }

    /// Whether the address, counted as `Newcomers` count it, may ask now; if so, it is counted.
    pub fn allow(&mut self, now: Monotonic, address: IpAddr, rate: Rate) -> bool {
        if !self.buckets.contains_key(&address) && self.buckets.len() >= self.addresses_max {
            self.buckets.retain(|_, bucket| !bucket.is_full(now));
            if self.buckets.len() >= self.addresses_max {
                return false;
            }
        }
        self.buckets.entry(address).or_default().allow(now, rate)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Each address has its own allowance; the table forgets who has not asked for a while, and refuses beyond its bound.
    #[test]
    fn addresses_have_their_own_allowance() {
        let (mut visits, rate) = (Visits::new(2, 1), Rate::per_minute(3));
        let [a, b, c] = [1, 2, 3].map(|host| IpAddr::from([192, 0, 2, host]));
        let start = Monotonic::from_nanos(5_000_000_000);
        assert_eq!((0..5).filter(|_| visits.allow(start, a, rate)).count(), 3);
        assert!(visits.allow(start, b, rate));
        assert!(!visits.allow(start, c, rate), "both others have asked of late");
        let later = start + Duration::from_secs(20);
        assert!(visits.allow(later, c, rate), "the second has its allowance back and is forgotten");
        assert!(visits.allow(later, a, rate) && !visits.allow(later, a, rate));
        assert_eq!(visits.buckets.len(), 2);
    }
}
