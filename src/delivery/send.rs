//! One flush of a queue: choosing what goes next by the head rule of DELIVERY §3, and accounting for what the kernel
//! took. Planning changes nothing, so frames that were not started are where they were.

use super::backlog::{Backlog, Frame, UnderWay};
use super::queue::{Sole, WriteQueue};
use super::skips::Skips;
use super::{Context, Verdict, mutant};
use crate::class::Class;
use crate::close::CloseReason;
use crate::frame::Run;
use crate::id::StreamHandle;
use crate::time::Monotonic;

/// What the shard hands to the kernel next.
#[derive(Debug)]
pub enum ToSend {
    /// Nothing can be sent.
    Nothing,
    /// A run's shared bytes from byte `skip` on; nothing needs to be copied.
    Run {
        /// The run.
        run: Run,
        /// Bytes the kernel has already.
        skip: usize,
    },
    /// The bytes that [`WriteQueue::gather`] appends.
    Gather,
}

/// The units of one send, in order.
#[derive(Default, Debug)]
pub(super) struct Plan {
    steps: Vec<Step>,
    /// Wire bytes of all steps.
    bytes: usize,
    /// The `skipped` frames of the plan, contiguous.
    notices: Vec<u8>,
}

/// A unit of a send and its wire bytes.
#[derive(Clone, Copy, Debug)]
struct Step {
    unit: Unit,
    len: usize,
}

/// Each takes the head of its part, but for those that earlier steps take.
#[derive(Clone, Copy, Debug)]
enum Unit {
    UnderWay,
    Pong,
    Ping,
    Close,
    Ordered,
    Skipped { stream: StreamHandle, at: usize },
    Delta,
}

impl Plan {
    /// Forgets the steps, keeps the memory.
    pub fn clear(&mut self) {
        self.steps.clear();
        self.bytes = 0;
        self.notices.clear();
    }

    /// Adds a unit; the first always fits.
    fn push(&mut self, unit: Unit, len: usize) {
        self.steps.push(Step { unit, len });
        self.bytes += len;
    }

    fn has_room(&self, len: usize) -> bool {
        self.steps.is_empty() || self.bytes + len <= GATHER_BYTES
    }
}

impl WriteQueue {
    /// Chooses what the kernel gets next: whole frames of at most 64 KiB together, or one larger, behind the rest of
    /// the frame under way. Changes nothing that waits; follow anything but `Nothing` with [`WriteQueue::sent`].
    #[inline]
    pub fn next_send(&mut self, cx: &mut Context<'_>) -> ToSend {
        match &self.sole {
            Some(sole) => ToSend::Run { run: sole.run(), skip: 0 },
            None => self.plan(cx),
        }
    }

    #[inline(never)]
    fn plan(&mut self, cx: &mut Context<'_>) -> ToSend {
        let credit = self.credit.left(self.delta_under_way());
        let Some(backlog) = self.backlog.as_deref_mut() else { return ToSend::Nothing };
        backlog.plan.clear();
        if let Some(skips) = &mut self.skips {
            skips.clear_plan();
        }
        backlog.plan_own();
        if backlog.is_split() {
            let credit = if mutant!(cx.limits, IgnoreCredit) { u64::MAX } else { credit };
            backlog.plan_split(credit, &mut self.skips, cx);
        } else {
            backlog.plan_fifo(&mut self.skips, cx);
        }
        match backlog.plan.steps[..] {
            [] => {
                backlog.blocked = false;
                ToSend::Nothing
            }
            [step] => backlog.run_of(step.unit).map_or(ToSend::Gather, |(run, skip)| ToSend::Run { run, skip }),
            _ => ToSend::Gather,
        }
    }

    /// Appends the bytes that [`WriteQueue::next_send`] chose.
    pub fn gather(&self, out: &mut Vec<u8>) {
        let Some(backlog) = self.backlog.as_deref() else { return };
        let mut ordered = backlog.ordered.iter();
        let mut slot = backlog.ring.as_ref().and_then(|ring| ring.head());
        for step in &backlog.plan.steps {
            match step.unit {
                Unit::UnderWay => {
                    let rest = backlog.under_way.as_ref().map(|frame| &frame.frame.bytes()[frame.offset..]);
                    out.extend_from_slice(rest.unwrap_or_default());
                }
                Unit::Pong => out.extend_from_slice(backlog.pong.as_deref().unwrap_or_default()),
                Unit::Ping => out.extend_from_slice(backlog.ping.as_deref().unwrap_or_default()),
                Unit::Close => out.extend_from_slice(backlog.close.as_deref().unwrap_or_default()),
                Unit::Ordered => out.extend_from_slice(ordered.next().map_or(&[], |entry| entry.frame.bytes())),
                Unit::Skipped { at, .. } => out.extend_from_slice(&backlog.plan.notices[at..at + step.len]),
                Unit::Delta => {
                    if let (Some(ring), Some(head)) = (&backlog.ring, slot) {
                        out.extend_from_slice(ring.get(head).run.bytes());
                        slot = ring.after(head);
                    }
                }
            }
        }
    }

    /// Accounts for the bytes the kernel took of what [`WriteQueue::next_send`] chose; fewer than all make the queue
    /// slow, all and nothing more to send end that. `Close` if the frames left behind pass a bound.
    #[inline]
    pub fn sent(&mut self, bytes: usize, cx: &mut Context<'_>) -> Verdict {
        cx.ledger.bytes_sent += bytes as u64;
        if let Some(sole) = &self.sole
            && sole.byte_len() == bytes
        {
            let deltas = sole.deltas() as u64;
            cx.ledger.of(Class::Reliable).delivered += sole.reliable() as u64;
            if deltas > 0 {
                self.credit.delivered(delivered_deltas(&sole.run(), deltas, cx));
            }
            self.sole = None;
            return Verdict::Queued;
        }
        self.sent_of_plan(bytes, cx)
    }

    #[inline(never)]
    fn sent_of_plan(&mut self, bytes: usize, cx: &mut Context<'_>) -> Verdict {
        if let Some(len) = self.sole.as_ref().map(Sole::byte_len) {
            self.spill(cx).plan.push(Unit::Ordered, len);
        }
        let Some(backlog) = self.backlog.as_deref_mut() else { return Verdict::Queued };
        debug_assert!(bytes <= backlog.plan.bytes, "the kernel took more than it was given");
        let mut plan = std::mem::take(&mut backlog.plan);
        let all = bytes == plan.bytes;
        let mut left = bytes;
        let mut deltas = 0;
        for step in &plan.steps {
            if left < step.len {
                if left > 0 {
                    deltas += backlog.start(*step, left, &plan.notices, &mut self.skips, cx);
                }
                break;
            }
            left -= step.len;
            deltas += backlog.complete(*step, &mut self.skips, cx);
        }
        plan.clear();
        backlog.plan = plan;
        self.credit.delivered(deltas);
        if all {
            if !self.has_sendable() {
                self.unblock();
            }
            self.release(cx);
            return Verdict::Queued;
        }
        let verdict = if backlog.is_split() { Verdict::Queued } else { backlog.split(&mut self.skips, cx) };
        backlog.blocked = true;
        self.release(cx);
        verdict.max(self.judge(cx))
    }

    fn unblock(&mut self) {
        if let Some(backlog) = &mut self.backlog {
            backlog.blocked = false;
        }
    }

    /// Closes if a bound is passed.
    pub(super) fn judge(&mut self, cx: &Context<'_>) -> Verdict {
        if self.closed {
            return Verdict::Queued;
        }
        self.overflowed |= self.backlog.as_ref().is_some_and(|backlog| backlog.is_over(cx.limits));
        if self.overflowed { Verdict::Close(CloseReason::SlowConsumer) } else { Verdict::Queued }
    }
}

impl Backlog {
    /// Plans what precedes everything else: the frame under way, then control.
    fn plan_own(&mut self) {
        if let Some(frame) = &self.under_way {
            self.plan.push(Unit::UnderWay, frame.frame.byte_len() - frame.offset);
        }
        let own = [(Unit::Pong, &self.pong), (Unit::Ping, &self.ping), (Unit::Close, &self.close)];
        for (unit, frame) in own {
            if let Some(frame) = frame {
                self.plan.push(unit, frame.len());
            }
        }
    }

    fn plan_fifo(&mut self, skips: &mut Option<Box<Skips>>, cx: &Context<'_>) {
        let Self { ordered, plan, .. } = self;
        for entry in ordered {
            let len = entry.frame.byte_len();
            let fits = match &entry.frame {
                Frame::Run(run) if skips.is_some() && run.deltas() > 0 => {
                    plan.push_telling(Unit::Ordered, len, run.batch.stream(), skips, cx)
                }
                _ if plan.has_room(len) => {
                    plan.push(Unit::Ordered, len);
                    true
                }
                _ => false,
            };
            if !fits {
                break;
            }
        }
    }

    /// The head rule of DELIVERY §3: the ordered head goes first if it arrived before the delta head's newest value or that delta has
    /// no credit, else the delta head.
    fn plan_split(&mut self, mut credit: u64, skips: &mut Option<Box<Skips>>, cx: &mut Context<'_>) {
        let Self { ordered, ring: Some(ring), plan, .. } = self else { return };
        let mut ordered = ordered.iter().peekable();
        let mut slot = ring.head();
        loop {
            let delta = slot.filter(|_| credit > 0).map(|slot| ring.get(slot));
            let ordered_first = match (ordered.peek(), delta) {
                (None, None) => break,
                (Some(entry), Some(delta)) => entry.arrival < delta.arrival && !mutant!(cx.limits, DeltaOvertakes),
                (entry, _) => entry.is_some(),
            };
            if ordered_first {
                let len = ordered.peek().map_or(0, |entry| entry.frame.byte_len());
                if !plan.has_room(len) {
                    break;
                }
                plan.push(Unit::Ordered, len);
                ordered.next();
            } else if let (Some(delta), Some(head)) = (delta, slot) {
                let stream = delta.run.batch.stream();
                if !plan.push_telling(Unit::Delta, delta.run.byte_len(), stream, skips, cx) {
                    break;
                }
                credit -= 1;
                slot = ring.after(head);
            }
        }
    }

    /// The run that is the only unit of a plan, and what the kernel has of it already.
    fn run_of(&self, unit: Unit) -> Option<(Run, usize)> {
        let (frame, skip) = match unit {
            Unit::UnderWay => self.under_way.as_ref().map(|frame| (&frame.frame, frame.offset))?,
            Unit::Ordered => (&self.ordered.front()?.frame, 0),
            Unit::Delta => {
                let ring = self.ring.as_ref()?;
                return Some((ring.get(ring.head()?).run.clone(), 0));
            }
            _ => return None,
        };
        match frame {
            Frame::Run(run) => Some((run.clone(), skip)),
            Frame::Own(_) => None,
        }
    }

    /// The kernel has all of a unit. Returns how many deltas that delivered.
    fn complete(&mut self, step: Step, skips: &mut Option<Box<Skips>>, cx: &mut Context<'_>) -> u64 {
        match step.unit {
            Unit::UnderWay => {
                let done = self.under_way.take().expect("it was planned");
                match done.frame {
                    Frame::Run(run) => return self.settle_run(&run, cx),
                    Frame::Own(bytes) if done.class == Class::Answer => self.delivered_answer(bytes.len(), cx),
                    Frame::Own(_) => cx.ledger.of(Class::Control).delivered += 1,
                }
            }
            Unit::Ordered => match self.ordered.pop_front().expect("it was planned").frame {
                Frame::Run(run) => return self.delivered_run(&run, cx),
                Frame::Own(bytes) => self.delivered_answer(bytes.len(), cx),
            },
            Unit::Delta => {
                let delta = self.ring.as_mut().and_then(|ring| ring.pop_head()).expect("it was planned");
                return delivered_deltas(&delta.run, 1, cx);
            }
            Unit::Skipped { stream, .. } => {
                told(skips, stream, step.len, cx);
                cx.ledger.of(Class::Control).delivered += u64::from(step.len > 0);
            }
            Unit::Ping | Unit::Pong | Unit::Close => {
                let frame = match step.unit {
                    Unit::Ping => &mut self.ping,
                    Unit::Pong => &mut self.pong,
                    _ => &mut self.close,
                };
                *frame = None;
                cx.ledger.of(Class::Control).delivered += 1;
            }
        }
        0
    }

    /// The kernel has the first `taken` bytes of a unit, not all. Returns how many deltas that delivered.
    fn start(
        &mut self,
        step: Step,
        taken: usize,
        notices: &[u8],
        skips: &mut Option<Box<Skips>>,
        cx: &mut Context<'_>,
    ) -> u64 {
        let mut own = |frame: Option<Box<[u8]>>, class, queued_at| {
            let frame = Frame::Own(frame.expect("it was planned"));
            self.under_way = Some(UnderWay { frame, class, offset: taken, queued_at });
        };
        match step.unit {
            Unit::UnderWay => {
                let frame = self.under_way.as_mut().expect("it was planned");
                frame.offset = if mutant!(cx.limits, TornFrame) { taken } else { frame.offset + taken };
            }
            Unit::Ping => own(self.ping.take(), Class::Control, cx.now),
            Unit::Pong => own(self.pong.take(), Class::Control, cx.now),
            Unit::Close => own(self.close.take(), Class::Control, cx.now),
            Unit::Skipped { stream, at } => {
                told(skips, stream, step.len, cx);
                own(Some(notices[at..at + step.len].into()), Class::Control, cx.now);
            }
            Unit::Delta => {
                let delta = self.ring.as_mut().and_then(|ring| ring.pop_head()).expect("it was planned");
                record_age(&delta.run, 1, cx);
                let (frame, class) = (Frame::Run(delta.run), Class::Delta);
                self.under_way = Some(UnderWay { frame, class, offset: taken, queued_at: cx.now });
            }
            Unit::Ordered => {
                let mut entry = self.ordered.pop_front().expect("it was planned");
                match entry.frame {
                    Frame::Own(frame) => own(Some(frame), Class::Answer, entry.queued_at),
                    Frame::Run(run) => {
                        let (deltas, rest) = self.cut(&run, taken, entry.queued_at, cx);
                        if let Some(rest) = rest {
                            entry.arrival += u64::from(rest.from - run.from);
                            entry.frame = Frame::Run(rest);
                            self.ordered.push_front(entry);
                        }
                        return deltas;
                    }
                }
            }
        }
        0
    }

    /// Cuts a run where the kernel stopped: whole frames before are delivered, the frame the cut goes through is under
    /// way, the rest is returned. Also returns how many deltas were delivered.
    fn cut(&mut self, run: &Run, taken: usize, queued_at: Monotonic, cx: &mut Context<'_>) -> (u64, Option<Run>) {
        let from = run.from as usize;
        let mut at = from;
        while run.batch.byte_len(from, at + 1) <= taken {
            at += 1;
        }
        let offset = taken - run.batch.byte_len(from, at);
        let mut deltas = 0;
        let at = at as u32;
        if at > run.from {
            deltas = self.delivered_run(&Run { to: at, ..run.clone() }, cx);
        }
        let mut rest = at;
        if offset > 0 {
            let frame = Run::whole(run.batch.single(at as usize));
            let class = frame.items()[0].class;
            if class == Class::Delta {
                record_age(&frame, 1, cx);
                self.fifo_deltas -= 1;
            }
            self.under_way = Some(UnderWay { frame: Frame::Run(frame), class, offset, queued_at });
            rest += 1;
        }
        (deltas, (rest < run.to).then(|| Run { from: rest, ..run.clone() }))
    }

    /// Counts a run the kernel took as delivered, and the age of its deltas; returns how many those are.
    fn delivered_run(&mut self, run: &Run, cx: &mut Context<'_>) -> u64 {
        record_age(run, run.deltas() as u64, cx);
        self.settle_run(run, cx)
    }

    /// Counts a run the kernel took as delivered; the age of what was under way was recorded when it began.
    fn settle_run(&mut self, run: &Run, cx: &mut Context<'_>) -> u64 {
        let deltas = run.deltas();
        let reliable = run.len() - deltas;
        cx.ledger.of(Class::Reliable).delivered += reliable as u64;
        self.reliable_frames -= reliable;
        if !self.is_split() {
            self.bytes -= run.byte_len();
            self.fifo_deltas -= deltas;
        } else if reliable > 0 {
            self.bytes -= run.byte_len();
        }
        cx.ledger.of(Class::Delta).delivered += deltas as u64;
        deltas as u64
    }

    fn delivered_answer(&mut self, len: usize, cx: &mut Context<'_>) {
        cx.ledger.of(Class::Answer).delivered += 1;
        self.answer_frames -= 1;
        self.answer_bytes -= len;
    }
}

impl Plan {
    /// Adds a unit with deltas of the stream, behind the telling of what the stream left out; `false` if they do not
    /// fit.
    fn push_telling(
        &mut self,
        unit: Unit,
        len: usize,
        stream: StreamHandle,
        skips: &mut Option<Box<Skips>>,
        cx: &Context<'_>,
    ) -> bool {
        let at = self.notices.len();
        let untold = skips.as_mut().map(|skips| (skips.unplanned(stream), skips));
        if let Some((count, skips)) = untold.filter(|(count, _)| *count > 0 && !mutant!(cx.limits, SilentSkip)) {
            cx.skipped.encode_skipped(stream, count, &mut self.notices);
            let notice = self.notices.len() - at;
            if !self.has_room(notice + len) {
                return false;
            }
            skips.plan(stream);
            self.push(Unit::Skipped { stream, at }, notice);
        } else if !self.has_room(len) {
            return false;
        }
        self.push(unit, len);
        true
    }
}

/// A stream's left-out deltas are on their way to be told.
fn told(skips: &mut Option<Box<Skips>>, stream: StreamHandle, len: usize, cx: &mut Context<'_>) {
    if let Some(skips) = skips {
        skips.remove(stream);
    }
    cx.ledger.of(Class::Control).enqueued += u64::from(len > 0);
}

fn delivered_deltas(run: &Run, deltas: u64, cx: &mut Context<'_>) -> u64 {
    cx.ledger.of(Class::Delta).delivered += deltas;
    record_age(run, deltas, cx);
    deltas
}

/// Deltas are handed to the kernel: from a frame's first byte on it cannot be replaced.
fn record_age(run: &Run, deltas: u64, cx: &mut Context<'_>) {
    if deltas > 0 {
        let age = cx.now.since(run.batch.born());
        cx.delta_age.record_n(u64::try_from(age.as_nanos()).unwrap_or(u64::MAX), deltas);
    }
}

/// Bytes that one send gathers at most; more would be copied before the kernel's buffer takes them.
const GATHER_BYTES: usize = 64 << 10;
