//! What waits in a queue that is not empty, and the policy for a slow one (DELIVERY §3). Pooled.

use std::collections::VecDeque;

use super::ring::{DeltaRing, Waiting};
use super::send::Plan;
use super::skips::Skips;
use super::{Context, Limits, Pool, Verdict, mutant};
use crate::class::Class;
use crate::frame::Run;
use crate::id::StreamHandle;
use crate::time::Monotonic;

/// The waiting frames of one connection, in one of two shapes.
///
/// - *Fifo* (`ring` is `None`): not slow. `ordered` holds runs and own frames as they came; nothing is under way.
/// - *Split* (`ring` is `Some`): slow, for its socket (`blocked`) or its credit. `ordered` holds reliable frames as runs
///   of one and own frames, `ring` the deltas.
///
/// Invariants: arrivals ascend along `ordered` and are `< next_arrival`; `blocked` ⇒ split; the counters are exact.
#[derive(Default, Debug)]
pub(super) struct Backlog {
    pub ordered: VecDeque<Entry>,
    pub ring: Option<Box<DeltaRing>>,
    pub under_way: Option<UnderWay>,
    pub ping: Option<Box<[u8]>>,
    pub pong: Option<Box<[u8]>>,
    pub close: Option<Box<[u8]>>,
    /// What the flush under way sends; empty between flushes.
    pub plan: Plan,
    /// Exactly while the last flush left something sendable behind: the connection is slow for its socket.
    pub blocked: bool,
    pub next_arrival: u64,
    /// Reliable frames, the one under way included.
    pub reliable_frames: usize,
    /// Split: wire bytes of `reliable_frames`. Fifo: of deltas too.
    pub bytes: usize,
    /// Fifo: waiting deltas. Split: 0.
    pub fifo_deltas: usize,
    /// Fifo: streams that the connection left, and the arrival number from which on it is in them again. Split: empty.
    pub left: Vec<(StreamHandle, u64)>,
    /// Answers, the one under way included.
    pub answer_frames: usize,
    /// Wire bytes of `answer_frames`.
    pub answer_bytes: usize,
}

/// An entry of the ordered part.
#[derive(Debug)]
pub(super) struct Entry {
    /// Arrival number of its first frame; a run of n takes n numbers.
    pub arrival: u64,
    /// When it was pushed.
    pub queued_at: Monotonic,
    pub frame: Frame,
}

/// What an entry sends.
#[derive(Debug)]
pub(super) enum Frame {
    /// Shared frames of a stream.
    Run(Run),
    /// One frame of this connection alone.
    Own(Box<[u8]>),
}

impl Frame {
    /// The wire bytes.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Run(run) => run.bytes(),
            Self::Own(bytes) => bytes,
        }
    }

    /// How many wire bytes.
    pub fn byte_len(&self) -> usize {
        match self {
            Self::Run(run) => run.byte_len(),
            Self::Own(bytes) => bytes.len(),
        }
    }
}

/// One frame of which the kernel has a part: it is finished before anything else is sent.
#[derive(Debug)]
pub(super) struct UnderWay {
    pub frame: Frame,
    pub class: Class,
    /// Bytes the kernel has; `0 < offset < frame.byte_len()`.
    pub offset: usize,
    /// When it was pushed.
    pub queued_at: Monotonic,
}

impl Backlog {
    /// Whether it has the shape of a slow queue.
    pub fn is_split(&self) -> bool {
        self.ring.is_some()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.ordered.is_empty()
            && self.ring_len() == 0
            && self.under_way.is_none()
            && self.ping.is_none()
            && self.pong.is_none()
            && self.close.is_none()
    }

    /// Whether anything but deltas waits.
    pub fn has_more_than_deltas(&self) -> bool {
        !self.ordered.is_empty()
            || self.under_way.is_some()
            || self.ping.is_some()
            || self.pong.is_some()
            || self.close.is_some()
    }

    /// Deltas in the ring.
    pub fn ring_len(&self) -> usize {
        self.ring.as_ref().map_or(0, |ring| ring.len())
    }

    fn ring_bytes(&self) -> usize {
        self.ring.as_ref().map_or(0, |ring| ring.bytes())
    }

    /// Wire bytes that wait, control and a delta under way excepted.
    pub fn waiting_bytes(&self) -> usize {
        self.bytes + self.ring_bytes() + self.answer_bytes
    }

    /// [`Backlog::waiting_bytes`] without the delta ring's.
    pub fn ordered_bytes(&self) -> usize {
        self.bytes + self.answer_bytes
    }

    /// Frames of a class that wait, the one under way included.
    pub fn pending(&self, class: Class) -> u64 {
        let under_way = self.under_way.as_ref().is_some_and(|frame| frame.class == class);
        let count = match class {
            Class::Reliable => self.reliable_frames,
            Class::Delta => self.fifo_deltas + self.ring_len() + usize::from(under_way),
            Class::Answer => self.answer_frames,
            Class::Control => {
                [&self.ping, &self.pong, &self.close].into_iter().flatten().count() + usize::from(under_way)
            }
        };
        count as u64
    }

    /// When the oldest reliable frame was pushed.
    pub fn oldest_reliable(&self) -> Option<Monotonic> {
        let under_way = self.under_way.as_ref().filter(|frame| frame.class == Class::Reliable);
        under_way.map(|frame| frame.queued_at).or_else(|| {
            self.ordered.iter().find(|entry| matches!(entry.frame, Frame::Run(_))).map(|entry| entry.queued_at)
        })
    }

    /// Appends a run to a Fifo.
    pub fn append_run(&mut self, run: Run, queued_at: Monotonic) {
        let (frames, deltas) = (run.len(), run.deltas());
        self.reliable_frames += frames - deltas;
        self.fifo_deltas += deltas;
        self.bytes += run.byte_len();
        self.append(Frame::Run(run), frames, queued_at);
    }

    /// Appends to the ordered part; the caller counts.
    pub fn append(&mut self, frame: Frame, frames: usize, queued_at: Monotonic) {
        let arrival = self.next_arrival;
        self.next_arrival += frames as u64;
        self.ordered.push_back(Entry { arrival, queued_at, frame });
    }

    /// The connection leaves a stream whose frames may wait. Only for a Fifo.
    pub fn leave_stream(&mut self, stream: StreamHandle) {
        self.left.retain(|(other, _)| *other != stream);
        self.left.push((stream, self.next_arrival));
    }

    /// Takes the shape of a slow queue. Only for a Fifo. Deltas of streams that were left meanwhile are left out, for
    /// in a split backlog a newer value of another key could let the answer to the LEAVE pass them.
    pub fn split(&mut self, skips: &mut Option<Box<Skips>>, cx: &mut Context<'_>) -> Verdict {
        debug_assert!(!self.is_split());
        self.ring = Some(cx.pool.take_ring());
        (self.reliable_frames, self.bytes, self.fifo_deltas) = (0, 0, 0);
        if let Some(frame) = self.under_way.as_ref().filter(|frame| frame.class == Class::Reliable) {
            (self.reliable_frames, self.bytes) = (1, frame.frame.byte_len());
        }
        let mut verdict = Verdict::Queued;
        for entry in std::mem::take(&mut self.ordered) {
            match entry.frame {
                Frame::Own(_) => self.ordered.push_back(entry),
                Frame::Run(run) => {
                    let over =
                        |(stream, until): &(StreamHandle, u64)| *stream == run.batch.stream() && entry.arrival < *until;
                    let left = self.left.iter().any(over);
                    verdict = verdict.max(self.admit(&run, entry.arrival, entry.queued_at, left, skips, cx));
                }
            }
        }
        self.left.clear();
        if mutant!(cx.limits, ReorderReliable) {
            self.ordered.make_contiguous().reverse();
        }
        verdict
    }

    /// Takes a run into a split backlog, frame by frame; of a stream that was `left`, without its deltas. `enqueued` is
    /// counted already.
    pub fn admit(
        &mut self,
        run: &Run,
        arrival: u64,
        queued_at: Monotonic,
        left: bool,
        skips: &mut Option<Box<Skips>>,
        cx: &mut Context<'_>,
    ) -> Verdict {
        let mut verdict = Verdict::Queued;
        for (index, arrival) in (run.from..run.to).zip(arrival..) {
            let single = Run::whole(run.batch.single(index as usize));
            verdict = verdict.max(match single.items()[0].class {
                Class::Delta if left => {
                    cx.ledger.of(Class::Delta).dropped += 1;
                    skips.get_or_insert_default().total += 1;
                    Verdict::Dropped
                }
                Class::Delta => self.admit_delta(Waiting { run: single, arrival }, skips, cx),
                _ => self.admit_reliable(Entry { arrival, queued_at, frame: Frame::Run(single) }, skips, cx),
            });
        }
        verdict
    }

    fn admit_reliable(&mut self, entry: Entry, skips: &mut Option<Box<Skips>>, cx: &mut Context<'_>) -> Verdict {
        let Frame::Run(run) = &entry.frame else { unreachable!("reliable frames are runs") };
        if mutant!(cx.limits, DropReliable) && self.reliable_frames * 2 >= cx.limits.frames {
            cx.ledger.of(Class::Reliable).delivered += 1;
            return Verdict::Queued;
        }
        let ring = self.ring.as_mut().expect("only a split backlog admits");
        let item = run.items()[0];
        let mut verdict = Verdict::Queued;
        if item.forgets && !mutant!(cx.limits, IgnoreForget) {
            let key = (run.batch.stream(), item.key);
            if let Some(slot) = ring.find(key) {
                leave_out(ring.take(slot), skips, cx);
                verdict = Verdict::Dropped;
            }
        }
        self.reliable_frames += 1;
        self.bytes += run.byte_len();
        self.ordered.push_back(entry);
        verdict.max(self.trim(skips, cx))
    }

    fn admit_delta(&mut self, delta: Waiting, skips: &mut Option<Box<Skips>>, cx: &mut Context<'_>) -> Verdict {
        let ring = self.ring.as_mut().expect("only a split backlog admits");
        let Some(slot) = ring.find(delta.key()) else {
            let len = delta.run.byte_len();
            let fits = ring.len() < cx.limits.delta_keys
                && ring.bytes() + len <= cx.limits.delta_bytes
                && self.bytes + ring.bytes() + len <= cx.limits.bytes;
            if fits {
                ring.push(delta);
                return Verdict::Queued;
            }
            leave_out(delta, skips, cx);
            return Verdict::Dropped;
        };
        #[cfg(feature = "mutants")]
        let Some(delta) = misplace(ring, slot, delta, skips, cx) else { return Verdict::Replaced };
        let older = ring.replace(slot, delta);
        if !mutant!(cx.limits, ForgottenCount) {
            cx.ledger.of(Class::Delta).replaced += 1;
        }
        if !mutant!(cx.limits, HalfTold) {
            skips.get_or_insert_default().add(older.run.batch.stream(), 1);
        }
        Verdict::Replaced.max(self.trim(skips, cx))
    }

    /// Leaves the youngest keys out while the bytes do not fit: a reliable frame came, or a value grew.
    fn trim(&mut self, skips: &mut Option<Box<Skips>>, cx: &mut Context<'_>) -> Verdict {
        let mut verdict = Verdict::Queued;
        let Some(ring) = self.ring.as_mut() else { return verdict };
        while ring.bytes() > cx.limits.delta_bytes || self.bytes + ring.bytes() > cx.limits.bytes {
            let Some(youngest) = ring.pop_youngest() else { break };
            leave_out(youngest, skips, cx);
            verdict = Verdict::Dropped;
        }
        verdict
    }

    /// Whether a bound on reliable frames is passed (D4).
    pub fn is_over(&self, limits: &Limits) -> bool {
        let over = self.reliable_frames > limits.frames || self.bytes > limits.bytes;
        let judged = self.blocked || mutant!(limits, CloseWhileFast);
        over && judged && !mutant!(limits, UnboundedQueue)
    }

    /// Whether a flush is due though the tick goes on. A blocked queue waits for its socket instead.
    pub fn is_half_full(&self, limits: &Limits) -> bool {
        !self.blocked
            && (self.reliable_frames * 2 >= limits.frames
                || self.bytes * 2 >= limits.bytes
                || self.fifo_deltas * 2 >= limits.delta_keys
                || self.answer_frames * 2 >= limits.answer_frames
                || self.answer_bytes * 2 >= limits.answer_bytes)
    }

    /// Discards all that waits; with `keep_under_way`, but that. The caller counts.
    pub fn discard(&mut self, keep_under_way: bool) {
        let under_way = self.under_way.take().filter(|_| keep_under_way);
        self.ordered.clear();
        self.left.clear();
        if let Some(ring) = &mut self.ring {
            ring.clear();
        }
        (self.ping, self.pong, self.close) = (None, None, None);
        self.plan.clear();
        (self.reliable_frames, self.bytes, self.fifo_deltas) = (0, 0, 0);
        (self.answer_frames, self.answer_bytes) = (0, 0);
        match &under_way {
            Some(UnderWay { class: Class::Reliable, frame, .. }) => {
                (self.reliable_frames, self.bytes) = (1, frame.byte_len());
            }
            Some(UnderWay { class: Class::Answer, frame, .. }) => {
                (self.answer_frames, self.answer_bytes) = (1, frame.byte_len());
            }
            _ => {}
        }
        self.under_way = under_way;
    }

    /// Makes an empty backlog fit for the pool and returns its ring.
    pub fn reset(&mut self) -> Option<Box<DeltaRing>> {
        debug_assert!(self.is_empty() && self.reliable_frames == 0 && self.fifo_deltas == 0);
        debug_assert!(self.bytes == 0 && self.answer_frames == 0 && self.answer_bytes == 0);
        self.blocked = false;
        self.next_arrival = 0;
        self.left.clear();
        self.plan.clear();
        if self.ordered.capacity() > ENTRIES_KEPT {
            self.ordered = VecDeque::new();
        }
        let mut ring = self.ring.take();
        if let Some(ring) = &mut ring {
            ring.clear();
        }
        ring
    }

    /// Panics if an invariant of the type is broken.
    pub fn invariants(&self) {
        let mut arrival = None;
        let (mut reliable, mut deltas, mut bytes, mut answers, mut answer_bytes) = (0, 0, 0, 0, 0);
        for entry in &self.ordered {
            assert!(arrival < Some(entry.arrival) && entry.arrival < self.next_arrival, "arrivals ascend");
            arrival = Some(entry.arrival);
            match &entry.frame {
                Frame::Run(run) => {
                    assert!(!self.is_split() || run.len() == 1, "a split backlog holds runs of one");
                    deltas += run.deltas();
                    reliable += run.len() - run.deltas();
                    bytes += run.byte_len();
                }
                Frame::Own(frame) => (answers, answer_bytes) = (answers + 1, answer_bytes + frame.len()),
            }
        }
        if let Some(UnderWay { frame, class, offset, .. }) = &self.under_way {
            assert!(self.is_split() && (1..frame.byte_len()).contains(offset), "0 < offset < frame.byte_len()");
            match class {
                Class::Reliable => (reliable, bytes) = (reliable + 1, bytes + frame.byte_len()),
                Class::Answer => (answers, answer_bytes) = (answers + 1, answer_bytes + frame.byte_len()),
                Class::Delta | Class::Control => {}
            }
        }
        assert_eq!((reliable, bytes, deltas), (self.reliable_frames, self.bytes, self.fifo_deltas));
        assert_eq!((answers, answer_bytes), (self.answer_frames, self.answer_bytes));
        assert!(!self.blocked || self.is_split(), "a blocked backlog is split");
        if let Some(ring) = &self.ring {
            ring.invariants();
        }
    }
}

/// Gives an emptied backlog back to the pool.
pub(super) fn release_if_empty(slot: &mut Option<Box<Backlog>>, pool: &mut Pool) {
    if slot.as_ref().is_some_and(|backlog| backlog.is_empty()) {
        pool.give_backlog(slot.take().expect("it was there"));
    }
}

/// Counts a delta as dropped and as to be told.
fn leave_out(delta: Waiting, skips: &mut Option<Box<Skips>>, cx: &mut Context<'_>) {
    cx.ledger.of(Class::Delta).dropped += 1;
    skips.get_or_insert_default().add(delta.run.batch.stream(), 1);
}

/// Runs the broken replacements; returns the delta if the true one shall go on.
#[cfg(feature = "mutants")]
fn misplace(
    ring: &mut DeltaRing,
    slot: u32,
    newer: Waiting,
    skips: &mut Option<Box<Skips>>,
    cx: &mut Context<'_>,
) -> Option<Waiting> {
    use crate::mutant::Mutant;
    let stream = newer.key().0;
    match cx.limits.mutant {
        Mutant::OlderAfterNewer => {
            let older = ring.replace(slot, newer);
            ring.push_unindexed(older);
        }
        Mutant::StaleValue => cx.ledger.of(Class::Delta).replaced += 1,
        Mutant::StarveKey => {
            cx.ledger.of(Class::Delta).replaced += 1;
            ring.take(slot);
            ring.push(newer);
        }
        _ => return Some(newer),
    }
    skips.get_or_insert_default().add(stream, 1);
    None
}

/// Ordered entries whose memory a pooled backlog keeps.
const ENTRIES_KEPT: usize = 16;
