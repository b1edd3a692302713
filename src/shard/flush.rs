//! The flush: every dirty connection gets one send per round, rounds go on while sockets take everything.

use super::driver::{Driver, Outcome};
use super::{Shard, mutant};
use crate::delivery::ToSend;
use crate::session::queue_context;

impl<D: Driver> Shard<D> {
    /// Sends what the dirty connections have, until nothing is left that a socket takes.
    pub(super) fn flush_dirty(&mut self) {
        self.flush_soon = false;
        if mutant!(self.settings, HeadOfLine)
            && self.slots.connections().any(|connection| connection.queue.is_blocked())
        {
            return;
        }
        let mut round = std::mem::take(&mut self.dirty);
        let mut rounds = 0;
        while !round.is_empty() && rounds < ROUNDS {
            rounds += 1;
            for index in round.drain(..) {
                self.stage(index);
                if self.batch.len() >= SENDS_PER_FLUSH || self.batch.gathered_bytes() >= GATHERED_PER_FLUSH {
                    self.send_staged();
                }
            }
            self.send_staged();
            std::mem::swap(&mut round, &mut self.dirty);
        }
        if self.dirty.is_empty() {
            self.dirty = round;
        } else {
            self.dirty.append(&mut round);
        }
    }

    /// Puts a connection's next send into the batch.
    fn stage(&mut self, index: u32) {
        let key = self.slots.key(index);
        let Self { slots, settings, ledger, pool, stats, batch, .. } = self;
        let slot = slots.get_mut(index);
        slot.dirty = false;
        let Some(connection) = slot.connection.as_deref_mut().filter(|_| !slot.blocked) else { return };
        let mut context = queue_context(connection.dialect(), self.now, settings, ledger, pool, stats);
        stats.queue_frames.record(connection.queue.pending(crate::class::Class::Reliable));
        match connection.queue.next_send(&mut context) {
            ToSend::Nothing => {}
            ToSend::Run { run, skip } => batch.push_run(key, run, skip),
            ToSend::Gather => batch.push_gathered(key, |out| connection.queue.gather(out)),
        }
    }

    fn send_staged(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        let mut batch = std::mem::take(&mut self.batch);
        self.driver.flush(&mut batch);
        self.stats.sends_total.add(batch.len() as u64);
        for (key, asked, outcome) in batch.outcomes() {
            match outcome {
                Outcome::Sent => self.sent(key, asked, false),
                Outcome::Short(bytes) => {
                    self.stats.short_sends_total.add(1);
                    self.sent(key, bytes, true);
                }
                Outcome::Error(_) => {
                    self.with(key, |connection, cx| connection.lost(cx));
                }
            }
        }
        batch.clear();
        self.batch = batch;
    }

    /// Accounts for a send; the common case, a healthy queue that is now empty, ends here.
    fn sent(&mut self, key: crate::id::ConnKey, bytes: usize, short: bool) {
        let Self { slots, settings, ledger, pool, stats, .. } = self;
        let Some(slot) = slots.live(key) else { return };
        let Some(connection) = slot.connection.as_deref_mut() else { return };
        let mut context = queue_context(connection.dialect(), self.now, settings, ledger, pool, stats);
        let verdict = connection.queue.sent(bytes, &mut context);
        if short {
            slot.blocked = true;
            self.driver.watch_writable(key);
        }
        let quiet = connection.queue.is_empty() && connection.is_quiet();
        if !quiet || short {
            self.with(key, |connection, cx| {
                connection.judge(cx, verdict);
                connection.flushed(cx);
            });
        }
    }
}

/// Sends staged before the driver is asked to submit them.
const SENDS_PER_FLUSH: usize = 256;
/// Gathered bytes staged before the driver is asked to submit them.
const GATHERED_PER_FLUSH: usize = 1 << 20;
/// Rounds of one flush; a connection with more to send stays dirty for the next turn, so that input is not starved.
const ROUNDS: usize = 8;
