//! Tests of the write queue: unit tests per rule, and random operations against a naive model and against the laws.

mod harness;
mod laws;
mod model;
mod properties;
mod rules;

use std::sync::Arc;

use super::EncodeSkipped;
use crate::class::Class;
use crate::frame::{BatchBuilder, Item, Run, Shared};
use crate::id::StreamHandle;
use crate::time::Monotonic;

/// A test frame; its wire form names it.
#[derive(Clone, PartialEq, Eq, Debug)]
struct TestFrame {
    class: Class,
    /// `R`, `D`, `A`, `P`ing, p`O`ng, `C`lose, `S`kipped.
    tag: u8,
    stream: u32,
    /// Delta: its key. Reliable: what it forgets, 0 = nothing.
    key: u8,
    /// Number in order of arrival; of a `skipped`, the count.
    id: u32,
    /// Bytes behind the head.
    pad: u16,
}

/// Wire bytes of a test frame without padding.
const HEAD: usize = 9;

impl TestFrame {
    fn wire(&self) -> Vec<u8> {
        let mut out = vec![self.tag, self.stream as u8, self.key];
        out.extend_from_slice(&self.id.to_le_bytes());
        out.extend_from_slice(&self.pad.to_le_bytes());
        out.resize(self.byte_len(), self.id as u8);
        out
    }

    fn byte_len(&self) -> usize {
        HEAD + usize::from(self.pad)
    }

    /// The first whole frame of `wire`, `None` if it is not whole; an error if it is torn.
    fn read(wire: &[u8]) -> Result<Option<Self>, String> {
        let Some(head) = wire.get(..HEAD) else { return Ok(None) };
        let tag = head[0];
        let class = match tag {
            b'R' => Class::Reliable,
            b'D' => Class::Delta,
            b'A' => Class::Answer,
            b'P' | b'O' | b'C' | b'S' => Class::Control,
            _ => return Err(format!("no frame starts with {tag}")),
        };
        let id = u32::from_le_bytes([head[3], head[4], head[5], head[6]]);
        let pad = u16::from_le_bytes([head[7], head[8]]);
        let frame = Self { class, tag, stream: u32::from(head[1]), key: head[2], id, pad };
        let Some(body) = wire.get(HEAD..frame.byte_len()) else { return Ok(None) };
        if body.iter().any(|&byte| byte != id as u8) {
            return Err(format!("torn frame {frame:?}"));
        }
        Ok(Some(frame))
    }

    fn item(&self) -> Item {
        let forgets = self.class == Class::Reliable && self.key > 0;
        Item { class: self.class, key: u64::from(self.key), forgets, place: u64::from(self.id), prev: 0 }
    }
}

/// The frames as one batch, shared.
fn shared(frames: &[TestFrame], born: Monotonic) -> Shared {
    let mut builder = BatchBuilder::new(StreamHandle(frames[0].stream));
    for frame in frames {
        builder.push(frame.item(), |out| out.extend_from_slice(&frame.wire()));
    }
    Shared::new(Arc::new(builder.seal(born)))
}

fn run(frames: &[TestFrame], born: Monotonic) -> Run {
    Run::whole(shared(frames, born))
}

/// `skipped` frames in the form of test frames.
struct TestDialect;

impl EncodeSkipped for TestDialect {
    fn encode_skipped(&self, stream: StreamHandle, count: u64, out: &mut Vec<u8>) {
        out.extend_from_slice(&skipped(stream.0, count).wire());
    }
}

fn skipped(stream: u32, count: u64) -> TestFrame {
    TestFrame { class: Class::Control, tag: b'S', stream, key: 0, id: count as u32, pad: 0 }
}
