//! The write queue as one would write it without regard for cost: plain vectors, one frame at a time.

use std::collections::BTreeMap;

use super::{TestFrame, skipped};
use crate::class::Class;
use crate::close::CloseReason;
use crate::delivery::{Limits, Verdict};
use crate::stats::Account;
use crate::time::Monotonic;

const CLOSE: Verdict = Verdict::Close(CloseReason::SlowConsumer);

#[derive(Clone, Debug)]
struct Waiting {
    frame: TestFrame,
    at: Monotonic,
    /// Whether it is the first frame of a run that has deltas.
    tells: bool,
    /// Its stream was left after it came.
    left: bool,
}

#[derive(Default, Debug)]
pub(super) struct Model {
    pub now: Monotonic,
    pub accounts: [Account; 4],
    pub wire: Vec<u8>,
    pub slow: bool,
    pub blocked: bool,
    pub closed: bool,
    pub overflowed: bool,
    pub delivered: u64,
    limits: Limits,
    /// Fast: all; slow: reliable frames and answers. In order of arrival.
    ordered: Vec<Waiting>,
    /// Slow: deltas in order of first waiting.
    deltas: Vec<Waiting>,
    under_way: Option<(Waiting, usize)>,
    ping: Option<TestFrame>,
    pong: Option<TestFrame>,
    close: Option<TestFrame>,
    untold: BTreeMap<u32, u64>,
    acknowledged: u64,
    window: u32,
}

impl Model {
    pub fn new(limits: Limits) -> Self {
        Self { limits, ..Self::default() }
    }

    fn account(&mut self, class: Class) -> &mut Account {
        &mut self.accounts[class.index()]
    }

    pub fn pending(&self, class: Class) -> u64 {
        let waiting = self.ordered.iter().chain(&self.deltas).chain(self.under_way.as_ref().map(|(w, _)| w));
        let own = [&self.ping, &self.pong, &self.close].into_iter().flatten();
        waiting.map(|w| &w.frame).chain(own).filter(|frame| frame.class == class).count() as u64
    }

    fn is_empty(&self) -> bool {
        Class::ALL.iter().all(|&class| self.pending(class) == 0)
    }

    fn settle(&mut self) {
        if self.is_empty() {
            (self.slow, self.blocked) = (false, false);
        }
    }

    fn credit(&self) -> u64 {
        let started = self.under_way.iter().filter(|(w, _)| w.frame.class == Class::Delta).count() as u64;
        let used = self.delivered - self.acknowledged + started;
        if self.window == 0 { u64::MAX } else { u64::from(self.window).saturating_sub(used) }
    }

    fn reliable(&self) -> impl Iterator<Item = &Waiting> {
        let under_way = self.under_way.iter().map(|(w, _)| w);
        under_way.chain(&self.ordered).filter(|w| w.frame.class == Class::Reliable)
    }

    fn reliable_bytes(&self) -> usize {
        self.reliable().map(|w| w.frame.byte_len()).sum()
    }

    fn delta_bytes(&self) -> usize {
        self.deltas.iter().map(|w| w.frame.byte_len()).sum()
    }

    fn judge(&mut self) -> Verdict {
        if self.closed {
            return Verdict::Queued;
        }
        let over = self.reliable().count() > self.limits.frames || self.reliable_bytes() > self.limits.bytes;
        self.overflowed |= self.blocked && over;
        if self.overflowed { CLOSE } else { Verdict::Queued }
    }

    pub fn push(&mut self, frames: &[TestFrame]) -> Verdict {
        if self.closed {
            return Verdict::Refused;
        }
        for frame in frames {
            self.account(frame.class).enqueued += 1;
        }
        if self.overflowed {
            frames.iter().for_each(|frame| self.account(frame.class).lost_at_close += 1);
            return CLOSE;
        }
        let mut verdict = Verdict::Queued;
        let deltas = frames.iter().any(|frame| frame.class == Class::Delta);
        for (index, frame) in frames.iter().enumerate() {
            let waiting = Waiting { frame: frame.clone(), at: self.now, tells: deltas && index == 0, left: false };
            if self.slow {
                verdict = verdict.max(self.admit(waiting));
            } else {
                self.ordered.push(waiting);
            }
        }
        verdict = verdict.max(self.heed_credit());
        self.settle();
        verdict.max(self.judge())
    }

    fn heed_credit(&mut self) -> Verdict {
        let deltas = self.ordered.iter().filter(|w| w.frame.class == Class::Delta).count() as u64;
        if !self.slow && deltas > self.credit() { self.become_slow() } else { Verdict::Queued }
    }

    fn become_slow(&mut self) -> Verdict {
        self.slow = true;
        let mut verdict = Verdict::Queued;
        for waiting in std::mem::take(&mut self.ordered) {
            verdict = verdict.max(self.admit(waiting));
        }
        verdict
    }

    fn admit(&mut self, new: Waiting) -> Verdict {
        match new.frame.class {
            Class::Reliable => self.admit_reliable(new),
            Class::Delta if new.left => {
                self.account(Class::Delta).dropped += 1;
                Verdict::Dropped
            }
            Class::Delta => self.admit_delta(new),
            _ => {
                self.ordered.push(new);
                Verdict::Queued
            }
        }
    }

    fn admit_reliable(&mut self, new: Waiting) -> Verdict {
        let (stream, key) = (new.frame.stream, new.frame.key);
        let mut verdict = Verdict::Queued;
        if key > 0
            && let Some(at) = self.find(stream, key)
        {
            let forgotten = self.deltas.remove(at);
            self.leave_out(&forgotten);
            verdict = Verdict::Dropped;
        }
        self.ordered.push(new);
        verdict.max(self.trim())
    }

    fn admit_delta(&mut self, new: Waiting) -> Verdict {
        if let Some(at) = self.find(new.frame.stream, new.frame.key) {
            *self.untold.entry(new.frame.stream).or_default() += 1;
            self.deltas[at] = new;
            self.account(Class::Delta).replaced += 1;
            return Verdict::Replaced.max(self.trim());
        }
        let deltas = self.delta_bytes() + new.frame.byte_len();
        let fits = self.deltas.len() < self.limits.delta_keys
            && deltas <= self.limits.delta_bytes
            && self.reliable_bytes() + deltas <= self.limits.bytes;
        if fits {
            self.deltas.push(new);
            return Verdict::Queued;
        }
        self.leave_out(&new);
        Verdict::Dropped
    }

    fn trim(&mut self) -> Verdict {
        let mut verdict = Verdict::Queued;
        while self.delta_bytes() > self.limits.delta_bytes
            || self.reliable_bytes() + self.delta_bytes() > self.limits.bytes
        {
            let Some(youngest) = self.deltas.pop() else { break };
            self.leave_out(&youngest);
            verdict = Verdict::Dropped;
        }
        verdict
    }

    fn find(&self, stream: u32, key: u8) -> Option<usize> {
        self.deltas.iter().position(|w| w.frame.stream == stream && w.frame.key == key)
    }

    fn leave_out(&mut self, delta: &Waiting) {
        self.account(Class::Delta).dropped += 1;
        *self.untold.entry(delta.frame.stream).or_default() += 1;
    }

    pub fn push_answer(&mut self, frame: TestFrame) -> Verdict {
        if self.closed {
            return Verdict::Refused;
        }
        self.account(Class::Answer).enqueued += 1;
        if self.overflowed {
            self.account(Class::Answer).lost_at_close += 1;
            return CLOSE;
        }
        self.ordered.push(Waiting { frame, at: self.now, tells: false, left: false });
        let under_way = self.under_way.iter().map(|(w, _)| w);
        let answers = self.ordered.iter().chain(under_way).filter(|w| w.frame.class == Class::Answer);
        let (frames, bytes) = answers.fold((0, 0), |(n, bytes), w| (n + 1, bytes + w.frame.byte_len()));
        let full = frames >= self.limits.answer_frames || bytes >= self.limits.answer_bytes;
        if full { Verdict::AnswersFull } else { Verdict::Queued }
    }

    pub fn push_control(&mut self, frame: TestFrame) -> Verdict {
        if self.closed {
            return Verdict::Refused;
        }
        self.account(Class::Control).enqueued += 1;
        let place = if frame.tag == b'P' { &mut self.ping } else { &mut self.pong };
        if place.replace(frame).is_some() {
            self.account(Class::Control).replaced += 1;
            return Verdict::Replaced;
        }
        Verdict::Queued
    }

    pub fn set_window(&mut self, window: u32) -> Verdict {
        self.window = window;
        if self.is_empty() {
            return Verdict::Queued;
        }
        let verdict = self.heed_credit();
        self.settle();
        verdict.max(self.judge())
    }

    pub fn acknowledge(&mut self, total: u64) {
        self.acknowledged = self.acknowledged.max(total);
    }

    pub fn leave(&mut self, stream: u32) {
        let before = self.deltas.len();
        self.deltas.retain(|w| w.frame.stream != stream);
        self.account(Class::Delta).dropped += (before - self.deltas.len()) as u64;
        self.untold.remove(&stream);
        self.ordered.iter_mut().filter(|w| w.frame.stream == stream).for_each(|w| w.left = true);
        self.settle();
    }

    pub fn check_age(&mut self) -> Verdict {
        if self.closed {
            return Verdict::Queued;
        }
        let oldest = self.reliable().next().map(|w| w.at);
        self.overflowed |= self.blocked && oldest.is_some_and(|at| at + self.limits.age <= self.now);
        if self.overflowed { CLOSE } else { Verdict::Queued }
    }

    pub fn end(&mut self, keep_under_way: bool, close: Option<TestFrame>) {
        if keep_under_way && self.closed {
            return;
        }
        let kept = self.under_way.take().filter(|_| keep_under_way);
        for class in Class::ALL {
            let account = self.accounts[class.index()];
            let kept = u64::from(kept.as_ref().is_some_and(|(w, _)| w.frame.class == class));
            self.account(class).lost_at_close += account.pending() - kept;
        }
        self.ordered.clear();
        self.deltas.clear();
        (self.ping, self.pong) = (None, None);
        self.account(Class::Control).enqueued += u64::from(close.is_some());
        (self.under_way, self.close, self.closed) = (kept, close, true);
        self.settle();
    }

    pub fn has_sendable(&self) -> bool {
        let deltas = !self.deltas.is_empty() && self.credit() > 0;
        deltas
            || !self.ordered.is_empty()
            || self.under_way.is_some()
            || self.ping.is_some()
            || self.pong.is_some()
            || self.close.is_some()
    }

    /// The kernel has room for `room` bytes.
    pub fn flush(&mut self, mut room: usize) -> Verdict {
        while self.has_sendable() {
            if room == 0 {
                let verdict = if self.slow { Verdict::Queued } else { self.become_slow() };
                self.blocked = true;
                self.settle();
                return verdict.max(self.judge());
            }
            let (waiting, offset) = self.take_next();
            let bytes = waiting.frame.wire();
            let taken = room.min(bytes.len() - offset);
            self.wire.extend_from_slice(&bytes[offset..offset + taken]);
            room -= taken;
            if offset + taken < bytes.len() {
                self.under_way = Some((waiting, offset + taken));
            } else {
                self.account(waiting.frame.class).delivered += 1;
                self.delivered += u64::from(waiting.frame.class == Class::Delta);
            }
        }
        self.blocked = false;
        self.settle();
        Verdict::Queued
    }

    fn take_next(&mut self) -> (Waiting, usize) {
        if let Some(under_way) = self.under_way.take() {
            return under_way;
        }
        if let Some(frame) = self.pong.take().or_else(|| self.ping.take()).or_else(|| self.close.take()) {
            return (Waiting { frame, at: self.now, tells: false, left: false }, 0);
        }
        let delta = self.deltas.first().filter(|_| self.credit() > 0).map(|w| (w.frame.id, w.frame.stream));
        let ordered = self.ordered.first().map(|w| w.frame.id);
        let Some((_, stream)) = delta.filter(|(id, _)| ordered.is_none_or(|ordered| *id < ordered)) else {
            let head = &self.ordered[0];
            let telling = if head.tells && !self.slow { self.take_untold(head.frame.stream) } else { None };
            return (telling.unwrap_or_else(|| self.ordered.remove(0)), 0);
        };
        (self.take_untold(stream).unwrap_or_else(|| self.deltas.remove(0)), 0)
    }

    fn take_untold(&mut self, stream: u32) -> Option<Waiting> {
        let count = self.untold.remove(&stream)?;
        self.account(Class::Control).enqueued += 1;
        Some(Waiting { frame: skipped(stream, count), at: self.now, tells: false, left: false })
    }
}
