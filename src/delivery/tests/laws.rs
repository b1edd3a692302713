//! D1–D3, D6 and D7 judged from what was pushed and what came out, without any idea of how a queue works.

use std::collections::{BTreeMap, BTreeSet};

use super::TestFrame;
use crate::class::Class;

type Key = (u32, u8);

/// What the client of one queue may see. Errors name the invariant.
#[derive(Default, Debug)]
pub(super) struct Laws {
    wire: Vec<u8>,
    /// Reliable frames and answers that were pushed and have not arrived, in order.
    owed: Vec<TestFrame>,
    /// Ids of deltas that were pushed and have not arrived, per key.
    missing: BTreeMap<Key, BTreeSet<u32>>,
    /// Newest id pushed per key.
    newest: BTreeMap<Key, u32>,
    /// Newest id that arrived per key.
    arrived: BTreeMap<Key, u32>,
    /// Deltas told as left out, per stream.
    told: BTreeMap<u32, u64>,
    /// Whether the queue has been slow since it was last empty.
    was_slow: bool,
    /// Slow: which keys were served since a key that waits began to wait.
    served: BTreeMap<Key, BTreeSet<Key>>,
    /// While the connection is not slow, every id up to this came or was given up while it was.
    last_fast: u32,
    /// Newest id pushed.
    last_pushed: u32,
    /// Newest ping and pong pushed and not arrived.
    control: BTreeMap<u8, u32>,
    /// Streams whose deltas were left out untold, for the client left them, and the newest id pushed by then.
    left: BTreeMap<u32, u32>,
    /// The newest answer that arrived: what was left before it was pushed is over.
    answered: u32,
}

impl Laws {
    pub fn pushed(&mut self, frame: &TestFrame, slow: bool) {
        let key = (frame.stream, frame.key);
        self.last_pushed = frame.id;
        match frame.class {
            Class::Reliable | Class::Answer => {
                self.owed.push(frame.clone());
                if frame.class == Class::Reliable && frame.key > 0 {
                    self.served.remove(&key);
                }
            }
            Class::Delta => {
                self.missing.entry(key).or_default().insert(frame.id);
                self.newest.insert(key, frame.id);
                if slow {
                    self.served.entry(key).or_default();
                }
            }
            Class::Control => {
                self.control.insert(frame.tag, frame.id);
            }
        }
    }

    /// A delta was left out by a bound: it is not known which, so the turns are counted anew.
    pub fn dropped(&mut self) {
        self.served.clear();
    }

    pub fn left(&mut self, stream: u32) {
        self.left.insert(stream, self.last_pushed);
        self.served.clear();
    }

    /// The connection is slow.
    pub fn slow(&mut self) {
        self.was_slow = true;
    }

    /// Bytes that the kernel took in one flush, and whether the queue was slow when it began.
    pub fn took(&mut self, bytes: &[u8], slow: bool) -> Result<(), String> {
        let mut under_way = !self.wire.is_empty();
        self.wire.extend_from_slice(bytes);
        while let Some(frame) = TestFrame::read(&self.wire)? {
            self.wire.drain(..frame.byte_len());
            match frame.class {
                Class::Reliable | Class::Answer => self.reliable(&frame)?,
                Class::Delta => self.delta(&frame, slow && !under_way)?,
                Class::Control if frame.tag == b'S' => {
                    *self.told.entry(frame.stream).or_default() += u64::from(frame.id);
                }
                Class::Control => self.control.retain(|&tag, &mut id| tag != frame.tag || id > frame.id),
            }
            if frame.class == Class::Reliable || frame.class == Class::Delta {
                self.fifo(&frame)?;
            }
            under_way = false;
        }
        Ok(())
    }

    /// Nothing waits: as far as D2 goes, a new life begins.
    pub fn emptied(&mut self) {
        (self.was_slow, self.last_fast) = (false, self.last_pushed);
        self.served.clear();
    }

    fn reliable(&mut self, frame: &TestFrame) -> Result<(), String> {
        let owed = self.owed.first();
        if owed != Some(frame) {
            return Err(format!("D1: {frame:?} came where {owed:?} is owed"));
        }
        self.owed.remove(0);
        if frame.class == Class::Answer {
            self.answered = frame.id;
        }
        Ok(())
    }

    fn delta(&mut self, frame: &TestFrame, started_slow: bool) -> Result<(), String> {
        let key = (frame.stream, frame.key);
        let earlier =
            |owed: &&TestFrame| owed.class == Class::Reliable && owed.stream == frame.stream && owed.id < frame.id;
        if let Some(owed) = self.owed.iter().find(earlier) {
            return Err(format!("D1: {frame:?} overtook {owed:?}"));
        }
        let left = self.left.get(&frame.stream).copied().unwrap_or(0);
        if frame.id <= left && left < self.answered {
            return Err(format!("D1: {frame:?} came behind an answer that was pushed after its stream was left"));
        }
        if self.arrived.insert(key, frame.id).is_some_and(|before| before >= frame.id) {
            return Err(format!("D3: {frame:?} is older than what came before"));
        }
        if started_slow && self.newest[&key] != frame.id {
            return Err(format!("D3: {frame:?} is not the newest value, {} is", self.newest[&key]));
        }
        if started_slow {
            for (waiting, served) in self.served.iter_mut().filter(|(waiting, _)| **waiting != key) {
                if !served.insert(key) {
                    return Err(format!("D3: {key:?} had two turns while {waiting:?} waited"));
                }
            }
        }
        self.served.remove(&key);
        self.missing.entry(key).or_default().remove(&frame.id);
        let lost = |(key, missing): (&Key, &BTreeSet<u32>)| {
            let arrived = self.arrived.get(key).copied().unwrap_or(0);
            missing.range(..arrived).count() as u64
        };
        let in_stream = self.missing.iter().filter(|((stream, _), _)| *stream == frame.stream);
        let lost: u64 = in_stream.map(lost).sum();
        let told = self.told.get(&frame.stream).copied().unwrap_or(0);
        if told < lost && !self.left.contains_key(&frame.stream) {
            return Err(format!("D6: {frame:?} came, {lost} are left out, {told} were told"));
        }
        Ok(())
    }

    /// While the connection is not slow nothing is missing.
    fn fifo(&mut self, frame: &TestFrame) -> Result<(), String> {
        if self.was_slow {
            return Ok(());
        }
        let lost = |missing: &BTreeSet<u32>| {
            missing.range(self.last_fast + 1..frame.id.max(self.last_fast + 1)).next().copied()
        };
        if let Some(id) = self.missing.values().find_map(lost) {
            return Err(format!("D2: delta {id} is missing though the connection was not slow"));
        }
        self.last_fast = frame.id;
        Ok(())
    }

    /// Everything was sent and then a delta of each stream: nothing is owed, all is told.
    pub fn drained(&self) -> Result<(), String> {
        if let Some(owed) = self.owed.first() {
            return Err(format!("D2: {owed:?} never came"));
        }
        if let Some((&tag, id)) = self.control.iter().next() {
            return Err(format!("D7: control frame {} {id} never came", char::from(tag)));
        }
        let mut lost = BTreeMap::<u32, u64>::new();
        for ((stream, _), missing) in &self.missing {
            *lost.entry(*stream).or_default() += missing.len() as u64;
        }
        for (stream, lost) in lost.into_iter().filter(|(stream, _)| !self.left.contains_key(stream)) {
            let told = self.told.get(&stream).copied().unwrap_or(0);
            if told != lost {
                return Err(format!("D6: of stream {stream}, {lost} deltas never came, {told} were told"));
            }
        }
        Ok(())
    }
}
