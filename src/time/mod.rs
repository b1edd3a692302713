//! Time as data: everything below the drivers takes `now` as an argument and never reads a clock.

mod wheel;

use std::fmt;
use std::ops::{Add, AddAssign};
use std::time::Duration;

pub use wheel::Wheel;

/// Nanoseconds on the node's monotonic clock, the same for all its threads; the zero is arbitrary.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Monotonic(u64);

impl Monotonic {
    /// The clock's zero.
    pub const ZERO: Self = Self(0);
    /// Later than any instant that occurs.
    pub const NEVER: Self = Self(u64::MAX);

    /// From nanoseconds since the clock's zero.
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the clock's zero.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// The time since `earlier`, zero if that is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Monotonic {
    type Output = Self;
    fn add(self, span: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl AddAssign<Duration> for Monotonic {
    fn add_assign(&mut self, span: Duration) {
        *self = *self + span;
    }
}

/// How often something may happen: so many times per period, of which a period's worth may come at once. 0 allows
/// nothing. Its text is `20/s` or `600/m`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Rate {
    /// Times per period.
    pub times: u32,
    /// The period.
    pub per: Period,
}

/// What a rate counts by.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Period {
    Second,
    Minute,
}

impl Rate {
    /// So many times per second.
    #[must_use]
    pub const fn per_second(times: u32) -> Self {
        Self { times, per: Period::Second }
    }

    /// So many times per minute.
    #[must_use]
    pub const fn per_minute(times: u32) -> Self {
        Self { times, per: Period::Minute }
    }

    /// The period's length.
    #[must_use]
    pub const fn period(self) -> Duration {
        match self.per {
            Period::Second => Duration::from_secs(1),
            Period::Minute => Duration::from_secs(60),
        }
    }

    /// Reads `20/s` or `600/m`; `None` if it is neither.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (times, period) = text.split_once('/')?;
        let is_number = times.bytes().all(|byte| byte.is_ascii_digit());
        let times = times.parse().ok().filter(|_| is_number)?;
        match period {
            "s" => Some(Self::per_second(times)),
            "m" => Some(Self::per_minute(times)),
            _ => None,
        }
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let period = match self.per {
            Period::Second => "s",
            Period::Minute => "m",
        };
        write!(f, "{}/{period}", self.times)
    }
}

/// Milliseconds since the Unix epoch: token expiry, timestamps on the wire and what services date, never intervals.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug, serde::Serialize, serde::Deserialize)]
pub struct WallMillis(pub u64);

impl WallMillis {
    /// Whole seconds since the Unix epoch, as JWT claims count.
    #[must_use]
    pub const fn seconds(self) -> u64 {
        self.0 / 1000
    }

    /// RFC 3339 in UTC with milliseconds, e.g. `2026-11-21T03:29:49.120Z`.
    #[must_use]
    pub fn rfc3339(self) -> String {
        let (days, ms) = (self.0 / 86_400_000, self.0 % 86_400_000);
        let (year, month, day) = civil_from_days(days);
        let (h, m, s, ms) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60, ms % 1000);
        format!("{year:04}-{month:02}-{day:02}T{h:02}:{m:02}:{s:02}.{ms:03}Z")
    }
}

/// Proleptic Gregorian date of a day count since 1970-01-01 (H. Hinnant, "chrono-Compatible Low-Level Date Algorithms").
fn civil_from_days(days: u64) -> (u64, u64, u64) {
    let z = days + 719_468;
    let (era, doe) = (z / 146_097, z % 146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let day = doy - (153 * mp + 2) / 5 + 1;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    (yoe + era * 400 + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Timestamps are RFC 3339 across leap days and year ends.
    #[test]
    fn wall_time_prints_as_rfc3339() {
        assert_eq!(WallMillis(0).rfc3339(), "1970-01-01T00:00:00.000Z");
        assert_eq!(WallMillis(951_782_400_000).rfc3339(), "2000-02-29T00:00:00.000Z");
        assert_eq!(WallMillis(1_767_225_599_999).rfc3339(), "2025-12-31T23:59:59.999Z");
    }

    /// A rate reads back from its text, and nothing else is a rate.
    #[test]
    fn rates_have_one_text() {
        for (text, rate) in
            [("20/s", Rate::per_second(20)), ("600/m", Rate::per_minute(600)), ("0/s", Rate::per_second(0))]
        {
            assert_eq!(Rate::parse(text), Some(rate));
            assert_eq!(rate.to_string(), text);
        }
        for bad in ["", "20", "/s", "20/h", "20 /s", "+2/s", "-1/s", "1.5/s", "4294967296/s", "20/s/s"] {
            assert_eq!(Rate::parse(bad), None, "{bad}");
        }
    }
}
