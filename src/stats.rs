//! Plain counters. A [`Ledger`] is the conservation account of DELIVERY D5; [`Counter`]s are what a shard shows the
//! admin side: one writer, any reader, no read-modify-write.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::class::Class;
use crate::close::CloseReason;

/// Conservation of one class: `enqueued = delivered + replaced + dropped + pending + lost_at_close` (D5).
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Account {
    /// Frames a queue took.
    pub enqueued: u64,
    /// Frames whose last byte the kernel accepted.
    pub delivered: u64,
    /// Deltas replaced by a newer value.
    pub replaced: u64,
    /// Deltas left out.
    pub dropped: u64,
    /// Frames that waited when their connection ended.
    pub lost_at_close: u64,
}

impl Account {
    /// What must be waiting in queues now.
    ///
    /// # Panics
    /// In debug builds, if more left than entered.
    #[must_use]
    pub fn pending(&self) -> u64 {
        let gone = self.delivered + self.replaced + self.dropped + self.lost_at_close;
        debug_assert!(gone <= self.enqueued, "more frames left than entered: {self:?}");
        self.enqueued.wrapping_sub(gone)
    }
}

/// The accounts of all classes; one per shard, passed to every queue operation.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Ledger {
    /// By [`Class::index`].
    pub accounts: [Account; 4],
    /// Wire bytes the kernel accepted.
    pub bytes_sent: u64,
}

impl Ledger {
    /// A class's account.
    pub fn of(&mut self, class: Class) -> &mut Account {
        &mut self.accounts[class.index()]
    }
}

/// A value with one writer and any readers; relaxed, so it costs its writer a plain add.
#[derive(Default, Debug)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds; only the owning thread may call it.
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    /// Replaces; only the owning thread may call it.
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// Reads, from any thread.
    #[must_use]
    pub fn read(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What a worker shows the admin side.
#[derive(Default, Debug)]
pub struct WorkerStats {
    /// 1 while this worker is the active one of its cluster.
    pub active: Counter,
    /// Times that it became the active one.
    pub terms_total: Counter,
    /// Records of command topics that were carried out.
    pub commands_total: Counter,
    /// Events given to the bus.
    pub events_total: Counter,
    /// Transactions of the services' records.
    pub transactions_total: Counter,
    /// Records of each command topic that wait, by the topics' names; as they were measured last, while it is active.
    pub lag: Box<[(&'static str, Counter)]>,
}

impl WorkerStats {
    /// Of a worker that reads these topics.
    #[must_use]
    pub fn new(topics: &[&'static str]) -> Self {
        Self { lag: topics.iter().map(|topic| (*topic, Counter::default())).collect(), ..Self::default() }
    }
}

/// Counts by power of two: bucket `i` holds values in `2^(i-1) .. 2^i`, bucket 0 the zeros.
#[derive(Debug)]
pub struct Histogram {
    buckets: [Counter; Self::BUCKETS],
    sum: Counter,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { buckets: std::array::from_fn(|_| Counter::default()), sum: Counter::default() }
    }
}

impl Histogram {
    /// Values of 2^39 and more share the last bucket: 9 minutes in nanoseconds, 512 GiB in bytes.
    pub const BUCKETS: usize = 41;

    /// Records a value; only the owning thread may call it.
    pub fn record(&self, value: u64) {
        self.record_n(value, 1);
    }

    /// Records a value `n` times; only the owning thread may call it.
    pub fn record_n(&self, value: u64, n: u64) {
        let bucket = (64 - value.leading_zeros() as usize).min(Self::BUCKETS - 1);
        self.buckets[bucket].add(n);
        self.sum.add(value.wrapping_mul(n));
    }

    /// `(exclusive upper bound, count)` of each bucket, and the sum of all values.
    #[must_use]
    pub fn read(&self) -> (Vec<(u64, u64)>, u64) {
        let buckets = self.buckets.iter().enumerate().map(|(i, counter)| (1u64 << i, counter.read())).collect();
        (buckets, self.sum.read())
    }
}

/// What one shard shows: written by its thread, read by the admin side. Units in the names; counts where none.
#[derive(Default, Debug)]
#[expect(missing_docs, reason = "the metric table in admin/ describes each")]
pub struct ShardStats {
    pub connections: Counter,
    pub sessions: Counter,
    pub accepted_total: Counter,
    pub refused_total: Counter,
    pub frames_in_total: Counter,
    pub bytes_in_total: Counter,
    pub bytes_out_total: Counter,
    pub sends_total: Counter,
    pub short_sends_total: Counter,
    /// By class: enqueued, delivered, replaced, dropped, lost_at_close, pending.
    pub conservation: [[Counter; 6]; 4],
    /// By `CloseReason as usize`.
    pub closes_total: [Counter; CloseReason::ALL.len()],
    pub queue_frames: Histogram,
    pub delta_age_ns: Histogram,
    pub tick_ns: Histogram,
    pub tick_max_ns: Counter,
    pub ticks_total: Counter,
    pub mesh_depth: Histogram,
    pub pauses_total: Counter,
    pub paused_connections: Counter,
    pub history_bytes: Counter,
    pub streams: Counter,
}

impl ShardStats {
    /// The terms of [`ShardStats::conservation`], in order.
    pub const TERMS: [&'static str; 6] = ["enqueued", "delivered", "replaced", "dropped", "lost_at_close", "pending"];

    /// Copies a ledger's accounts; only the owning thread may call it.
    pub fn publish(&self, ledger: &Ledger) {
        for (terms, account) in self.conservation.iter().zip(&ledger.accounts) {
            let values = [
                account.enqueued,
                account.delivered,
                account.replaced,
                account.dropped,
                account.lost_at_close,
                account.pending(),
            ];
            for (term, value) in terms.iter().zip(values) {
                term.set(value);
            }
        }
        self.bytes_out_total.set(ledger.bytes_sent);
    }
}

/// What the peer of the bus shows.
#[derive(Default, Debug)]
pub struct BusStats {
    /// Commands put into the log.
    pub commands_total: Counter,
    /// Commands that the log refused.
    pub refused_total: Counter,
    /// Events given to homes.
    pub events_total: Counter,
    /// Events that nobody can use.
    pub poison_total: Counter,
    /// Those of them that could not be kept either.
    pub poison_lost_total: Counter,
    /// Events that repeat one of the window, which are dropped.
    pub duplicates_total: Counter,
    /// Frames and players' commands given to the bus to be relayed, and accepted.
    pub relayed_total: Counter,
    /// Those that the bus refused, or that were for publishers where there is none.
    pub relay_refused_total: Counter,
    /// Those of all gateways that came back from the bus and were given to homes.
    pub relay_events_total: Counter,
    /// Publishers in rooms of all gateways that are known here.
    pub relay_publishers: Counter,
}

/// What the reader of token keys shows, where others publish them.
#[derive(Default, Debug)]
pub struct KeyStats {
    /// Keys in use; 0 = no set is read here.
    pub keys: Counter,
    /// Sets read, the first one included.
    pub reads_total: Counter,
    /// Readings that failed.
    pub failures_total: Counter,
}

impl KeyStats {
    /// A set of so many keys was read.
    pub fn read(&self, keys: usize) {
        self.keys.set(keys as u64);
        self.reads_total.add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A histogram's buckets hold the values their bounds say.
    #[test]
    fn histogram_buckets_are_powers_of_two() {
        let histogram = Histogram::default();
        for value in [0, 1, 2, 3, 4, u64::MAX] {
            histogram.record(value);
        }
        let (buckets, _) = histogram.read();
        assert_eq!(buckets[0], (1, 1));
        assert_eq!(buckets[1], (2, 1));
        assert_eq!(buckets[2], (4, 2));
        assert_eq!(buckets[3], (8, 1));
        assert_eq!(buckets[Histogram::BUCKETS - 1].1, 1);
    }
}
