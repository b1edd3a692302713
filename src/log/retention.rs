//! How long segments are kept: whole segments go, the oldest first, once they are too old or the log is too large. The
//! last one stays, and so does every segment with something that an active reader has not dealt with.

use std::time::Duration;

use crate::time::WallMillis;

/// The bounds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Retention {
    /// A segment whose newest record is older goes.
    pub time: Duration,
    /// Bytes of all segments; beyond it the oldest goes.
    pub bytes: u64,
}

/// A segment as retention sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Held {
    /// Its number.
    pub number: u64,
    /// Its size.
    pub bytes: u64,
    /// Its newest record's time; without a record, that of its making.
    pub newest: WallMillis,
}

impl Retention {
    /// How many of the oldest segments go. `unread` is the segment of the oldest record that an active reader needs.
    #[must_use]
    pub fn expired(&self, held: &[Held], now: WallMillis, unread: Option<u64>) -> usize {
        let since = now.0.saturating_sub(u64::try_from(self.time.as_millis()).unwrap_or(u64::MAX));
        let mut left: u64 = held.iter().map(|segment| segment.bytes).sum();
        let all_but_last = held.len().saturating_sub(1);
        let goes = |segment: &&Held| {
            let due = segment.newest.0 < since || left > self.bytes;
            left -= segment.bytes;
            due && unread.is_none_or(|unread| segment.number < unread)
        };
        held[..all_but_last].iter().take_while(goes).count()
    }

    /// The age at which a segment is followed by the next, so that time takes effect on a log that grows slowly.
    #[must_use]
    pub fn segment_age(&self) -> Duration {
        self.time / 4
    }
}
