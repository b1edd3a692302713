//! A queue beside its model and its laws: every operation is done to all three and the outcomes compared.

use std::time::Duration;

use super::laws::Laws;
use super::model::Model;
use super::{TestDialect, TestFrame, shared};
use crate::class::Class;
use crate::delivery::{Context, Limits, Pool, ToSend, Verdict, WriteQueue};
use crate::frame::Run;
use crate::id::StreamHandle;
use crate::stats::{Histogram, Ledger};
use crate::time::Monotonic;

/// What may happen to a queue.
#[derive(Clone, Debug)]
pub(super) enum Op {
    /// A run of a batch: per frame class (true = delta), key and padding; `cut` frames at its start are not for us.
    Push {
        stream: u32,
        frames: Vec<(bool, u8, u16)>,
        cut: usize,
    },
    Answer {
        pad: u16,
    },
    Ping,
    Pong,
    /// The kernel has room for this many bytes.
    Flush {
        room: usize,
    },
    /// Acknowledges all but this many of the deltas delivered.
    Acknowledge {
        behind: u64,
    },
    Window(u32),
    Advance {
        seconds: u64,
    },
    Leave {
        stream: u32,
    },
    Close {
        frame: bool,
    },
    Abandon,
}

/// Streams of the harness are `1..=STREAMS`.
pub(super) const STREAMS: u32 = 3;

/// A shard of one queue.
pub(super) struct Harness {
    pub queue: WriteQueue,
    pub ledger: Ledger,
    pub limits: Limits,
    pub pool: Pool,
    pub delta_age: Histogram,
    pub now: Monotonic,
    pub model: Model,
    laws: Laws,
    next_id: u32,
    /// Whether the queue must be the model's equal; else only the laws are held against it.
    compare: bool,
}

impl Harness {
    pub fn new(limits: Limits, compare: bool) -> Self {
        Self {
            queue: WriteQueue::new(),
            ledger: Ledger::default(),
            model: Model::new(limits.clone()),
            limits,
            pool: Pool::new(7),
            delta_age: Histogram::default(),
            now: Monotonic::ZERO,
            laws: Laws::default(),
            next_id: 0,
            compare,
        }
    }

    pub fn with<T>(&mut self, act: impl FnOnce(&mut WriteQueue, &mut Context<'_>) -> T) -> T {
        let mut cx = Context {
            now: self.now,
            limits: &self.limits,
            ledger: &mut self.ledger,
            pool: &mut self.pool,
            skipped: &TestDialect,
            delta_age: &self.delta_age,
        };
        act(&mut self.queue, &mut cx)
    }

    fn frame(&mut self, tag: u8, stream: u32, key: u8, pad: u16) -> TestFrame {
        self.next_id += 1;
        let class = match tag {
            b'R' => Class::Reliable,
            b'D' => Class::Delta,
            b'A' => Class::Answer,
            _ => Class::Control,
        };
        TestFrame { class, tag, stream, key, id: self.next_id, pad }
    }

    /// Does it and checks everything.
    pub fn step(&mut self, op: &Op) -> Result<(), String> {
        if !self.compare && self.model.overflowed {
            return Ok(()); // the true queue's life ends here, and what a broken one does now proves nothing
        }
        let dropped = self.model.accounts[Class::Delta.index()].dropped;
        let (verdict, expected) = self.act(op)?;
        if self.model.slow {
            self.laws.slow();
        }
        if self.model.accounts[Class::Delta.index()].dropped != dropped {
            self.laws.dropped();
        }
        if Class::ALL.iter().all(|&class| self.model.pending(class) == 0) {
            self.laws.emptied();
        }
        if self.compare && verdict != expected {
            return Err(format!("verdict {verdict:?}, the model says {expected:?}"));
        }
        self.check()
    }

    fn act(&mut self, op: &Op) -> Result<(Verdict, Verdict), String> {
        let none = (Verdict::Queued, Verdict::Queued);
        Ok(match *op {
            Op::Push { stream, ref frames, cut } => self.push(stream, frames, cut),
            Op::Answer { pad } => {
                let frame = self.frame(b'A', 0, 0, pad);
                self.note(std::slice::from_ref(&frame));
                let wire = frame.wire().into();
                (self.with(|queue, cx| queue.push_answer(wire, cx)), self.model.push_answer(frame))
            }
            Op::Ping => self.push_control(b'P'),
            Op::Pong => self.push_control(b'O'),
            Op::Flush { room } => self.flush(room)?,
            Op::Acknowledge { behind } => {
                let total = self.queue.deltas_delivered().saturating_sub(behind);
                self.queue.acknowledge_deltas(total).map_err(|error| error.to_string())?;
                self.model.acknowledge(total.min(self.model.delivered));
                none
            }
            Op::Window(window) => (self.with(|queue, cx| queue.set_credit(window, cx)), self.model.set_window(window)),
            Op::Advance { seconds } => {
                self.now += Duration::from_secs(seconds);
                self.model.now = self.now;
                (self.with(|queue, cx| queue.check_age(cx)), self.model.check_age())
            }
            Op::Leave { stream } => {
                self.with(|queue, cx| queue.leave_stream(StreamHandle(stream), cx));
                self.model.leave(stream);
                self.laws.left(stream);
                none
            }
            Op::Close { frame } => {
                let frame = frame.then(|| self.frame(b'C', 0, 0, 0));
                let wire = frame.as_ref().map(|frame| frame.wire().into());
                self.with(|queue, cx| queue.close(wire, cx));
                self.model.end(true, frame);
                none
            }
            Op::Abandon => {
                self.with(|queue, cx| queue.abandon(cx));
                self.model.end(false, None);
                none
            }
        })
    }

    fn push(&mut self, stream: u32, frames: &[(bool, u8, u16)], cut: usize) -> (Verdict, Verdict) {
        let frames: Vec<_> = frames
            .iter()
            .map(|&(delta, key, pad)| self.frame(if delta { b'D' } else { b'R' }, stream, key, pad))
            .collect();
        let cut = cut.min(frames.len() - 1);
        let run = Run { from: cut as u32, ..Run::whole(shared(&frames, self.now)) };
        self.note(&frames[cut..]);
        (self.with(|queue, cx| queue.push_run(run, cx)), self.model.push(&frames[cut..]))
    }

    fn push_control(&mut self, tag: u8) -> (Verdict, Verdict) {
        let frame = self.frame(tag, 0, 0, 2);
        self.note(std::slice::from_ref(&frame));
        let wire = frame.wire().into();
        let verdict = self.with(|queue, cx| match tag {
            b'P' => queue.push_ping(wire, cx),
            _ => queue.push_pong(wire, cx),
        });
        (verdict, self.model.push_control(frame))
    }

    /// Tells the laws, unless the connection is past delivering.
    fn note(&mut self, frames: &[TestFrame]) {
        if !self.model.closed && !self.model.overflowed {
            frames.iter().for_each(|frame| self.laws.pushed(frame, self.model.slow));
        }
    }

    fn flush(&mut self, room: usize) -> Result<(Verdict, Verdict), String> {
        let (mut wire, mut verdict, mut left) = (Vec::new(), Verdict::Queued, room);
        loop {
            let mut bytes = Vec::new();
            match self.with(|queue, cx| queue.next_send(cx)) {
                ToSend::Nothing => break,
                ToSend::Run { run, skip } => bytes.extend_from_slice(&run.bytes()[skip..]),
                ToSend::Gather => self.queue.gather(&mut bytes),
            }
            if bytes.is_empty() {
                return Err("a send of no bytes".into());
            }
            let taken = left.min(bytes.len());
            left -= taken;
            wire.extend_from_slice(&bytes[..taken]);
            verdict = verdict.max(self.with(|queue, cx| queue.sent(taken, cx)));
            if taken < bytes.len() {
                break;
            }
        }
        let slow = self.model.slow;
        let before = self.model.wire.len();
        let expected = self.model.flush(room);
        if self.compare && self.model.wire[before..] != wire {
            return Err(format!("sent {wire:?}, the model says {:?}", &self.model.wire[before..]));
        }
        self.laws.took(&wire, slow)?;
        Ok((verdict, expected))
    }

    /// D5 and the type's invariants, and the model's equality.
    fn check(&self) -> Result<(), String> {
        self.queue.invariants();
        for class in Class::ALL {
            let (held, account) = (self.queue.pending(class), self.ledger.accounts[class.index()]);
            if account.pending() != held {
                return Err(format!("D5: {held} {class:?} frames wait, the account says {account:?}"));
            }
        }
        if !self.compare {
            return Ok(());
        }
        if self.ledger.accounts != self.model.accounts {
            return Err(format!("accounts {:?}, the model says {:?}", self.ledger.accounts, self.model.accounts));
        }
        let queue = (self.queue.is_slow(), self.queue.is_blocked(), self.queue.has_sendable());
        let model = (self.model.slow, self.model.blocked, self.model.has_sendable());
        if queue != model {
            return Err(format!("(slow, blocked, sendable) {queue:?}, the model says {model:?}"));
        }
        Ok(())
    }

    /// Sends all that waits and a delta of each stream, then holds the end against the laws.
    pub fn drain(&mut self) -> Result<(), String> {
        if self.model.closed || self.model.overflowed {
            return Ok(());
        }
        let all = Op::Flush { room: usize::MAX >> 1 };
        self.step(&Op::Window(0))?;
        self.step(&all)?;
        for stream in 1..=STREAMS {
            self.step(&Op::Push { stream, frames: vec![(true, 99, 0)], cut: 0 })?;
        }
        self.step(&all)?;
        if !self.queue.is_empty() {
            return Err("frames wait though the kernel takes all".into());
        }
        self.laws.drained()
    }
}
