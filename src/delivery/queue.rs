//! The write queue of one connection: what may be pushed, told and asked between flushes.

use std::fmt;

use super::backlog::{Backlog, Frame, release_if_empty};
use super::skips::Skips;
use super::{Context, Limits, Pool, Verdict, mutant};
use crate::class::Class;
use crate::close::CloseReason;
use crate::frame::{Run, Shared};
use crate::id::StreamHandle;
use crate::time::Monotonic;

/// Frames that wait for one client. Small while empty: what waits is in a pooled backlog.
///
/// [`WriteQueue::close`] or [`WriteQueue::abandon`] must precede its drop while anything waits, so that the ledger
/// holds.
#[derive(Default, Debug)]
pub struct WriteQueue {
    /// The run that waits alone on a connection that is not slow: most flushes need no more, and so no backlog.
    pub(super) sole: Option<Sole>,
    /// `Some` exactly while something waits and `sole` is `None`.
    pub(super) backlog: Option<Box<Backlog>>,
    /// `Some` from the first left-out delta on.
    pub(super) skips: Option<Box<Skips>>,
    pub(super) credit: Credit,
    /// A bound was passed: what comes from now on is lost at once.
    pub(super) overflowed: bool,
    pub(super) closed: bool,
}

/// A run and when it was pushed. Not a [`Run`]: copied field by field, it avoids a wide load from narrow stores, which
/// took 40 % of push and flush.
#[derive(Debug)]
pub(super) struct Sole {
    batch: Shared,
    to: u32,
    from: u32,
    queued_at: Monotonic,
}

impl Sole {
    /// The run.
    pub fn run(&self) -> Run {
        Run { batch: self.batch.clone(), from: self.from, to: self.to }
    }

    /// How many wire bytes.
    pub fn byte_len(&self) -> usize {
        self.batch.byte_len(self.from as usize, self.to as usize)
    }

    /// How many deltas.
    pub fn deltas(&self) -> usize {
        self.batch.deltas(self.from as usize, self.to as usize)
    }

    /// How many reliable frames.
    pub fn reliable(&self) -> usize {
        (self.to - self.from) as usize - self.deltas()
    }
}

/// Deltas in flight against what the client allows.
#[derive(Default, Debug)]
pub(super) struct Credit {
    /// Deltas delivered on this connection; also without credit.
    delivered: u64,
    /// Of these, how many the client has not acknowledged; saturates, far beyond any window.
    in_flight: u32,
    /// How many may be in flight; 0 = any number.
    window: u32,
}

impl Credit {
    /// How many more deltas may be sent, `started` of them having begun.
    pub fn left(&self, started: u64) -> u64 {
        if self.window == 0 {
            return u64::MAX;
        }
        u64::from(self.window).saturating_sub(u64::from(self.in_flight) + started)
    }

    /// The kernel took deltas.
    pub fn delivered(&mut self, deltas: u64) {
        self.delivered += deltas;
        self.in_flight = self.in_flight.saturating_add(u32::try_from(deltas).unwrap_or(u32::MAX));
    }
}

/// The client acknowledged deltas that it was never sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CreditExceeded {
    /// What the client says it received.
    pub acknowledged: u64,
    /// What the kernel took.
    pub delivered: u64,
}

impl fmt::Display for CreditExceeded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "count {} acknowledges more than the {} deltas delivered", self.acknowledged, self.delivered)?;
        f.write_str("; send the number of deltas received on this connection")
    }
}

impl std::error::Error for CreditExceeded {}

impl WriteQueue {
    /// An empty queue.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes frames of a stream. Never refuses a reliable frame but by `Close`.
    #[inline]
    pub fn push_run(&mut self, run: Run, cx: &mut Context<'_>) -> Verdict {
        if self.closed {
            return Verdict::Refused;
        }
        let (frames, deltas) = (run.len(), run.deltas());
        cx.ledger.of(Class::Reliable).enqueued += (frames - deltas) as u64;
        cx.ledger.of(Class::Delta).enqueued += deltas as u64;
        if self.overflowed {
            cx.ledger.of(Class::Reliable).lost_at_close += (frames - deltas) as u64;
            cx.ledger.of(Class::Delta).lost_at_close += deltas as u64;
            return Verdict::Close(CloseReason::SlowConsumer);
        }
        if self.is_empty() && self.may_wait_alone(&run, deltas, cx.limits) {
            let Run { batch, from, to } = run;
            self.sole = Some(Sole { batch, to, from, queued_at: cx.now });
            return Verdict::Queued;
        }
        self.push_behind(run, cx)
    }

    /// Takes a run that does not wait alone.
    #[inline(never)]
    fn push_behind(&mut self, run: Run, cx: &mut Context<'_>) -> Verdict {
        let window = self.credit.window;
        let now = cx.now;
        let backlog = spill(&mut self.backlog, &mut self.sole, cx.pool);
        if backlog.is_split() {
            let arrival = backlog.next_arrival;
            backlog.next_arrival += run.len() as u64;
            let verdict = backlog.admit(&run, arrival, now, false, &mut self.skips, cx);
            self.release(cx);
            return verdict.max(self.judge(cx));
        }
        let deltas = run.deltas();
        backlog.append_run(run, now);
        if (deltas > 0 && window > 0) || mutant!(cx.limits, ReplaceWhileFast) || mutant!(cx.limits, CloseWhileFast) {
            return self.heed_credit(cx);
        }
        Verdict::Queued
    }

    /// Takes an answer or an introduction, whole wire frames; it keeps its place among the reliable frames.
    pub fn push_answer(&mut self, frame: Box<[u8]>, cx: &mut Context<'_>) -> Verdict {
        if self.closed {
            return Verdict::Refused;
        }
        cx.ledger.of(Class::Answer).enqueued += 1;
        if self.overflowed {
            cx.ledger.of(Class::Answer).lost_at_close += 1;
            return Verdict::Close(CloseReason::SlowConsumer);
        }
        let backlog = spill(&mut self.backlog, &mut self.sole, cx.pool);
        backlog.answer_frames += 1;
        backlog.answer_bytes += frame.len();
        backlog.append(Frame::Own(frame), 1, cx.now);
        if self.answers_over(cx.limits) { Verdict::AnswersFull } else { Verdict::Queued }
    }

    /// Takes a ping; it replaces one that waits.
    pub fn push_ping(&mut self, frame: Box<[u8]>, cx: &mut Context<'_>) -> Verdict {
        self.push_control(frame, |backlog| &mut backlog.ping, cx)
    }

    /// Takes a pong; it replaces one that waits (RFC 6455 §5.5.3 allows answering the newest ping alone).
    pub fn push_pong(&mut self, frame: Box<[u8]>, cx: &mut Context<'_>) -> Verdict {
        if mutant!(cx.limits, DropPong) && self.is_blocked() && !self.closed {
            cx.ledger.of(Class::Control).enqueued += 1;
            cx.ledger.of(Class::Control).dropped += 1;
            return Verdict::Dropped;
        }
        self.push_control(frame, |backlog| &mut backlog.pong, cx)
    }

    /// Allows at most `window` unacknowledged deltas in flight; 0 = any number.
    pub fn set_credit(&mut self, window: u32, cx: &mut Context<'_>) -> Verdict {
        self.credit.window = window;
        self.heed_credit(cx)
    }

    /// The client has received `total` deltas on this connection; a smaller number than before says nothing. Waiting
    /// deltas may have become sendable.
    ///
    /// # Errors
    /// If fewer were delivered.
    pub fn acknowledge_deltas(&mut self, total: u64) -> Result<(), CreditExceeded> {
        if total > self.credit.delivered {
            return Err(CreditExceeded { acknowledged: total, delivered: self.credit.delivered });
        }
        let in_flight = u32::try_from(self.credit.delivered - total).unwrap_or(u32::MAX);
        self.credit.in_flight = self.credit.in_flight.min(in_flight);
        Ok(())
    }

    /// The connection leaves a stream: its waiting deltas are left out if the queue is slow or becomes slow before they
    /// are sent, for a later answer could pass them, and what was left out is never told. Its reliable frames stay.
    pub fn leave_stream(&mut self, stream: StreamHandle, cx: &mut Context<'_>) {
        if self.sole.as_ref().is_some_and(|sole| sole.deltas() > 0) {
            self.spill(cx);
        }
        if let Some(backlog) = self.backlog.as_mut().filter(|backlog| !backlog.is_split() && backlog.fifo_deltas > 0) {
            backlog.leave_stream(stream);
        } else if let Some(ring) = self.backlog.as_mut().and_then(|backlog| backlog.ring.as_mut()) {
            let removed = ring.remove_stream(stream);
            cx.ledger.of(Class::Delta).dropped += removed;
            if removed > 0 {
                self.skips.get_or_insert_default().total += removed;
            }
        }
        if let Some(skips) = &mut self.skips {
            skips.remove(stream);
        }
        self.release(cx);
    }

    /// Ends the queue: the frame under way is finished, all else is lost, then the close frame goes. Nothing is taken
    /// from now on. A second call changes nothing.
    pub fn close(&mut self, frame: Option<Box<[u8]>>, cx: &mut Context<'_>) {
        if std::mem::replace(&mut self.closed, true) {
            return;
        }
        self.lose(true, cx);
        if let Some(frame) = frame {
            cx.ledger.of(Class::Control).enqueued += 1;
            self.backlog.get_or_insert_with(|| cx.pool.take_backlog()).close = Some(frame);
        }
        self.release(cx);
    }

    /// Ends the queue of a broken connection: all that waits is lost. Also after [`WriteQueue::close`].
    pub fn abandon(&mut self, cx: &mut Context<'_>) {
        self.closed = true;
        self.lose(false, cx);
        self.release(cx);
    }

    /// Judges the age of the oldest reliable frame; for the timer of [`WriteQueue::age_deadline`].
    pub fn check_age(&mut self, cx: &Context<'_>) -> Verdict {
        let due = !self.closed && self.age_deadline(cx.limits) <= cx.now;
        self.overflowed |= due && !mutant!(cx.limits, UnboundedQueue);
        if self.overflowed && !self.closed { Verdict::Close(CloseReason::SlowConsumer) } else { Verdict::Queued }
    }

    /// When the oldest reliable frame of a queue that is slow for its socket gets too old; else `NEVER`.
    #[must_use]
    pub fn age_deadline(&self, limits: &Limits) -> Monotonic {
        let blocked = self.backlog.as_ref().filter(|backlog| backlog.blocked && !self.closed);
        let oldest = blocked.and_then(|backlog| backlog.oldest_reliable());
        oldest.map_or(Monotonic::NEVER, |queued_at| queued_at + limits.age)
    }

    /// Whether deltas may be replaced and left out: the last flush left something behind, or credit is used up.
    #[must_use]
    pub fn is_slow(&self) -> bool {
        self.backlog.as_ref().is_some_and(|backlog| backlog.is_split())
    }

    /// Whether the last flush left something sendable behind: only the socket's becoming writable helps.
    #[must_use]
    pub fn is_blocked(&self) -> bool {
        self.backlog.as_ref().is_some_and(|backlog| backlog.blocked)
    }

    /// Whether [`WriteQueue::next_send`] would choose anything.
    #[must_use]
    pub fn has_sendable(&self) -> bool {
        let Some(backlog) = &self.backlog else { return self.sole.is_some() };
        backlog.has_more_than_deltas() || (backlog.ring_len() > 0 && self.credit.left(self.delta_under_way()) > 0)
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sole.is_none() && self.backlog.is_none()
    }

    /// Whether [`WriteQueue::close`] or [`WriteQueue::abandon`] was called.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// Whether the queue should be flushed before the tick ends: half a bound is reached and the socket takes bytes.
    #[must_use]
    pub fn over_half(&self, limits: &Limits) -> bool {
        match (&self.sole, &self.backlog) {
            (Some(sole), _) => {
                sole.reliable() * 2 >= limits.frames
                    || sole.deltas() * 2 >= limits.delta_keys
                    || sole.byte_len() * 2 >= limits.bytes
            }
            (None, backlog) => backlog.as_ref().is_some_and(|backlog| backlog.is_half_full(limits)),
        }
    }

    /// Whether the answers' share is used up.
    #[must_use]
    pub fn answers_over(&self, limits: &Limits) -> bool {
        self.backlog.as_ref().is_some_and(|backlog| {
            backlog.answer_frames >= limits.answer_frames || backlog.answer_bytes >= limits.answer_bytes
        })
    }

    /// Whether a connection whose reading paused for its answers may read again: at most half their share waits.
    #[must_use]
    pub fn answers_drained(&self, limits: &Limits) -> bool {
        self.backlog.as_ref().is_none_or(|backlog| {
            backlog.answer_frames * 2 <= limits.answer_frames && backlog.answer_bytes * 2 <= limits.answer_bytes
        })
    }

    /// Frames of a class that wait; also those of which the kernel has a part.
    #[must_use]
    pub fn pending(&self, class: Class) -> u64 {
        let alone = self.sole.as_ref().map_or(0, |sole| match class {
            Class::Reliable => sole.reliable(),
            Class::Delta => sole.deltas(),
            Class::Answer | Class::Control => 0,
        });
        alone as u64 + self.backlog.as_ref().map_or(0, |backlog| backlog.pending(class))
    }

    /// Wire bytes of runs and answers that wait; the frame under way counts in full unless it is a delta.
    #[must_use]
    pub fn pending_bytes(&self) -> usize {
        let alone = self.sole.as_ref().map_or(0, Sole::byte_len);
        alone + self.backlog.as_ref().map_or(0, |backlog| backlog.waiting_bytes())
    }

    /// Wire bytes of reliable frames and answers that wait; of all that waits while the queue is not slow.
    #[must_use]
    pub fn pending_ordered_bytes(&self) -> usize {
        self.backlog.as_ref().map_or(0, |backlog| backlog.ordered_bytes())
    }

    /// Deltas delivered on this connection.
    #[must_use]
    pub fn deltas_delivered(&self) -> u64 {
        self.credit.delivered
    }

    /// Deltas replaced or left out on this connection, told or not.
    #[must_use]
    pub fn deltas_left_out(&self) -> u64 {
        self.skips.as_ref().map_or(0, |skips| skips.total)
    }

    /// Panics if an invariant of the type is broken; for tests and debug builds, O(waiting frames).
    pub fn invariants(&self) {
        assert!(u64::from(self.credit.in_flight) <= self.credit.delivered, "in_flight <= delivered");
        assert!(self.sole.is_none() || self.backlog.is_none(), "a run waits alone or in the backlog");
        if let Some(backlog) = &self.backlog {
            assert!(!backlog.is_empty(), "an empty queue owns no backlog");
            backlog.invariants();
        }
    }

    /// Whether a run on an empty queue needs no backlog: it has its credit, and nothing is to be told before it.
    #[inline]
    fn may_wait_alone(&self, run: &Run, deltas: usize, limits: &Limits) -> bool {
        let plain = deltas == 0
            || (deltas as u64 <= self.credit.left(0)
                && self.skips.as_ref().is_none_or(|skips| skips.untold(run.batch.stream()) == 0));
        plain && !mutant!(limits, ReplaceWhileFast) && !mutant!(limits, CloseWhileFast)
    }

    /// Moves the run that waits alone into a backlog.
    pub(super) fn spill(&mut self, cx: &mut Context<'_>) -> &mut Backlog {
        spill(&mut self.backlog, &mut self.sole, cx.pool)
    }

    /// 1 if the frame under way is a delta.
    pub(super) fn delta_under_way(&self) -> u64 {
        let under_way = self.backlog.as_ref().and_then(|backlog| backlog.under_way.as_ref());
        u64::from(under_way.is_some_and(|frame| frame.class == Class::Delta))
    }

    /// Gives an emptied backlog back.
    pub(super) fn release(&mut self, cx: &mut Context<'_>) {
        release_if_empty(&mut self.backlog, cx.pool);
    }

    /// Becomes slow for deltas if more wait than credit is left.
    fn heed_credit(&mut self, cx: &mut Context<'_>) -> Verdict {
        if self.is_empty() {
            return Verdict::Queued;
        }
        let left = self.credit.left(self.delta_under_way());
        let backlog = spill(&mut self.backlog, &mut self.sole, cx.pool);
        let used_up = backlog.fifo_deltas as u64 > left;
        let verdict = if !backlog.is_split() && (used_up || mutant!(cx.limits, ReplaceWhileFast)) {
            backlog.split(&mut self.skips, cx)
        } else {
            Verdict::Queued
        };
        self.release(cx);
        verdict.max(self.judge(cx))
    }

    fn push_control(
        &mut self,
        frame: Box<[u8]>,
        place: impl FnOnce(&mut Backlog) -> &mut Option<Box<[u8]>>,
        cx: &mut Context<'_>,
    ) -> Verdict {
        if self.closed {
            return Verdict::Refused;
        }
        let backlog = spill(&mut self.backlog, &mut self.sole, cx.pool);
        let account = cx.ledger.of(Class::Control);
        account.enqueued += 1;
        if place(backlog).replace(frame).is_some() {
            account.replaced += 1;
            return Verdict::Replaced;
        }
        Verdict::Queued
    }

    /// Counts what waits as lost and discards it, the frame under way excepted if it is to be finished.
    fn lose(&mut self, keep_under_way: bool, cx: &mut Context<'_>) {
        if self.is_empty() {
            return;
        }
        let backlog = spill(&mut self.backlog, &mut self.sole, cx.pool);
        let kept = backlog.under_way.as_ref().filter(|_| keep_under_way).map(|frame| frame.class);
        for class in Class::ALL {
            let lost = backlog.pending(class) - u64::from(kept == Some(class));
            cx.ledger.of(class).lost_at_close += lost;
        }
        backlog.discard(keep_under_way);
    }
}

/// The backlog, made if there is none, with the run that waited alone in it.
fn spill<'a>(backlog: &'a mut Option<Box<Backlog>>, sole: &mut Option<Sole>, pool: &mut Pool) -> &'a mut Backlog {
    let backlog = backlog.get_or_insert_with(|| pool.take_backlog());
    if let Some(sole) = sole.take() {
        backlog.append_run(sole.run(), sole.queued_at);
    }
    backlog
}
