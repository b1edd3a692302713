//! The thread that reads a set again: from time to time, soon after a failure, and when somebody wishes so.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::Source;
use crate::auth::KeySet;
use crate::limits;
use crate::ports::KeyWish;
use crate::stats::KeyStats;

/// Reads a source again and again. See the module.
pub struct Watch {
    /// What is read.
    pub source: Source,
    /// How often, at least.
    pub every: Duration,
    /// Who may wish for it sooner.
    pub wish: Arc<KeyWish>,
    /// What became of it.
    pub stats: Arc<KeyStats>,
}

impl Watch {
    /// Starts the thread, which lasts as long as the process. Every good set is handed on with the number of its reading,
    /// from 1, the same as before or not.
    ///
    /// # Errors
    /// Out of threads.
    pub fn start(self, hand_on: impl FnMut(u64, KeySet) + Send + 'static) -> Result<(), String> {
        let run = move || self.run(hand_on);
        let thread = thread::Builder::new().name("keys".into()).spawn(run);
        thread.map(drop).map_err(|error| format!("the thread that reads token keys: {error}"))
    }

    fn run(self, mut hand_on: impl FnMut(u64, KeySet)) {
        self.wish.attend();
        // The start has read them just now.
        let (mut read_at, mut failed, mut reading) = (Instant::now(), false, 0);
        // Until when wishes rest; other readings do not begin it anew, however often they are.
        let mut rests_until = read_at;
        loop {
            let asked = self.await_reason(read_at, failed, rests_until);
            let outcome = self.source.read();
            // From its end on: one that takes long must not be followed by the next at once.
            read_at = Instant::now();
            match outcome {
                Ok(set) => {
                    if failed {
                        tracing::info!("token keys can be read again");
                    }
                    failed = false;
                    self.stats.read(set.len());
                    reading += 1;
                    hand_on(reading, set);
                    self.wish.answered(reading, asked);
                    if asked {
                        rests_until = read_at + limits::KEY_WISH_REST;
                    }
                }
                Err(error) => {
                    failed = true;
                    self.wish.failed();
                    self.stats.failures_total.add(1);
                    tracing::warn!("auth.jwt_jwks = {error}; the keys from before stay");
                }
            }
        }
    }

    /// Waits until it is time or somebody wishes; whether there is a wish. The rest after an answered one ends meanwhile.
    fn await_reason(&self, read_at: Instant, failed: bool, rests_until: Instant) -> bool {
        let due = read_at + if failed { self.every.min(limits::KEY_SET_RETRY) } else { self.every };
        loop {
            let now = Instant::now();
            if now >= rests_until {
                self.wish.rested();
            }
            if now >= due || self.wish.is_urgent() || (self.wish.is_open() && !failed) {
                return self.wish.is_open();
            }
            let next = if now < rests_until { rests_until.min(due) } else { due };
            thread::park_timeout(next - now);
        }
    }
}
