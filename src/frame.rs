//! Frozen frames: a [`Batch`] holds the encoded frames that one stream produced in one flush of its home, contiguous
//! and immutable, so that any run of them is one slice that thousands of members send without a copy.
//!
//! - [`Batch`] crosses threads behind an `Arc`: one reference per shard, not one per member.
//! - [`Shared`] is the shard's own handle of a batch: cloning it is a plain increment.
//! - [`Run`] is what write queues hold: frames `from..to` of a batch. A single frame is a run of one.
//!
//! Nothing that belongs to one connection ever sits in a frame.

use std::cell::RefCell;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

use crate::class::Class;
use crate::id::StreamHandle;
use crate::time::Monotonic;

/// What the queue and the cursor must know of a frame without reading its bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Item {
    /// `Reliable` or `Delta`.
    pub class: Class,
    /// Delta: its coalescing key. Reliable with `forgets`: the key that it forgets.
    pub key: u64,
    /// Whether this reliable frame forgets earlier deltas of `key` in its own stream.
    pub forgets: bool,
    /// Reliable: its place, > 0. Delta: the place of the reliable frame it follows, 0 if none.
    pub place: u64,
    /// Reliable: the place of the stream's previous reliable frame, 0 = not known. Delta: 0.
    pub prev: u64,
}

/// Where an item's bytes end, and how many deltas the batch has up to and including it.
#[derive(Clone, Copy, Debug)]
struct Mark {
    end: u32,
    deltas: u32,
}

/// Encoded frames of one stream, in stream order. Immutable.
///
/// Invariant: `marks` ascend, `marks.last().end == bytes.len()`, one mark per item.
#[derive(Debug)]
pub struct Batch {
    stream: StreamHandle,
    born: Monotonic,
    items: Box<[Item]>,
    marks: Box<[Mark]>,
    bytes: Box<[u8]>,
}

impl Batch {
    /// The stream all frames belong to.
    #[must_use]
    pub fn stream(&self) -> StreamHandle {
        self.stream
    }

    /// When the home sealed it; the age of a delta counts from here.
    #[must_use]
    pub fn born(&self) -> Monotonic {
        self.born
    }

    /// How many frames it has; at least one.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a batch is never empty")]
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// The frames' descriptions.
    #[must_use]
    pub fn items(&self) -> &[Item] {
        &self.items
    }

    /// The wire bytes of frames `from..to`; `from <= to <= len()`.
    #[must_use]
    pub fn bytes(&self, from: usize, to: usize) -> &[u8] {
        &self.bytes[self.span(from, to)]
    }

    /// How many wire bytes frames `from..to` have; `from <= to <= len()`.
    #[must_use]
    pub fn byte_len(&self, from: usize, to: usize) -> usize {
        self.span(from, to).len()
    }

    /// How many of the frames `from..to` are deltas; `from <= to <= len()`.
    #[must_use]
    pub fn deltas(&self, from: usize, to: usize) -> usize {
        (self.deltas_before(to) - self.deltas_before(from)) as usize
    }

    /// The batch of the one frame `index`, with its own copy of the bytes.
    #[must_use]
    pub fn single(&self, index: usize) -> Batch {
        let item = self.items[index];
        let bytes: Box<[u8]> = self.bytes(index, index + 1).into();
        let mark = Mark { end: bytes.len() as u32, deltas: u32::from(item.class == Class::Delta) };
        Batch { stream: self.stream, born: self.born, items: [item].into(), marks: [mark].into(), bytes }
    }

    /// The batch of its reliable frames alone, `None` if it has none; for histories, which must not keep deltas' bytes.
    #[must_use]
    pub fn reliable_only(&self) -> Option<Batch> {
        let mut builder = BatchBuilder::new(self.stream);
        for (index, item) in self.items.iter().enumerate() {
            if item.class == Class::Reliable {
                builder.push(*item, |out| out.extend_from_slice(self.bytes(index, index + 1)));
            }
        }
        (!builder.is_empty()).then(|| builder.seal(self.born))
    }

    fn span(&self, from: usize, to: usize) -> Range<usize> {
        self.start(from)..self.start(to)
    }

    fn start(&self, index: usize) -> usize {
        index.checked_sub(1).map_or(0, |before| self.marks[before].end as usize)
    }

    fn deltas_before(&self, index: usize) -> u32 {
        index.checked_sub(1).map_or(0, |before| self.marks[before].deltas)
    }
}

/// Collects a stream's frames until its home seals them.
#[derive(Debug)]
pub struct BatchBuilder {
    stream: StreamHandle,
    items: Vec<Item>,
    marks: Vec<Mark>,
    bytes: Vec<u8>,
}

impl BatchBuilder {
    /// An empty builder for a stream.
    #[must_use]
    pub fn new(stream: StreamHandle) -> Self {
        Self { stream, items: Vec::new(), marks: Vec::new(), bytes: Vec::new() }
    }

    /// Appends a frame whose wire bytes `encode` writes; it must only append.
    pub fn push(&mut self, item: Item, encode: impl FnOnce(&mut Vec<u8>)) {
        let before = self.marks.last().map_or(0, |mark| mark.deltas);
        encode(&mut self.bytes);
        let end = u32::try_from(self.bytes.len()).expect("a batch is sealed long before 4 GiB (limits::BATCH_BYTES)");
        self.items.push(item);
        self.marks.push(Mark { end, deltas: before + u32::from(item.class == Class::Delta) });
    }

    /// The wire bytes collected.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// How many wire bytes were collected.
    #[must_use]
    pub fn byte_len(&self) -> usize {
        self.bytes.len()
    }

    /// Frames collected.
    #[must_use]
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there is nothing to seal.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Freezes what was collected and starts anew. Must not be empty.
    pub fn seal(&mut self, born: Monotonic) -> Batch {
        debug_assert!(!self.is_empty(), "an empty batch has no meaning");
        Batch {
            stream: self.stream,
            born,
            items: std::mem::take(&mut self.items).into(),
            marks: std::mem::take(&mut self.marks).into(),
            bytes: std::mem::take(&mut self.bytes).into(),
        }
    }
}

/// A shard's handle of a batch; `Clone` touches no atomic. Queues that split a batch share the single frames too, and
/// so a slow member keeps alive the frames that wait for it, not the batches they came in.
#[derive(Clone, Debug)]
pub struct Shared(Rc<Local>);

#[derive(Debug)]
struct Local {
    batch: Arc<Batch>,
    singles: RefCell<Vec<Option<Shared>>>,
}

impl Shared {
    /// Takes the shard's one reference.
    #[must_use]
    pub fn new(batch: Arc<Batch>) -> Self {
        Self(Rc::new(Local { batch, singles: RefCell::new(Vec::new()) }))
    }

    /// Frame `index` as a batch of its own, made once and shared by all who split this batch. `index < len()`.
    #[must_use]
    pub fn single(&self, index: usize) -> Shared {
        if self.len() == 1 {
            return self.clone();
        }
        let mut singles = self.0.singles.borrow_mut();
        if singles.is_empty() {
            singles.resize(self.len(), None);
        }
        singles[index].get_or_insert_with(|| Shared::new(Arc::new(self.0.batch.single(index)))).clone()
    }
}

impl std::ops::Deref for Shared {
    type Target = Batch;
    fn deref(&self) -> &Batch {
        &self.0.batch
    }
}

/// Frames `from..to` of a batch, in order; `from < to <= batch.len()`. The only entry of a write queue.
#[derive(Clone, Debug)]
pub struct Run {
    /// The batch.
    pub batch: Shared,
    /// First frame.
    pub from: u32,
    /// Behind the last frame.
    pub to: u32,
}

impl Run {
    /// All frames of a batch.
    #[must_use]
    pub fn whole(batch: Shared) -> Self {
        let to = batch.len() as u32;
        Self { batch, from: 0, to }
    }

    /// How many frames.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a run is never empty")]
    pub fn len(&self) -> usize {
        (self.to - self.from) as usize
    }

    /// The wire bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.batch.bytes(self.from as usize, self.to as usize)
    }

    /// How many wire bytes.
    #[must_use]
    pub fn byte_len(&self) -> usize {
        self.batch.byte_len(self.from as usize, self.to as usize)
    }

    /// How many of the frames are deltas.
    #[must_use]
    pub fn deltas(&self) -> usize {
        self.batch.deltas(self.from as usize, self.to as usize)
    }

    /// The frames' descriptions.
    #[must_use]
    pub fn items(&self) -> &[Item] {
        &self.batch.items()[self.from as usize..self.to as usize]
    }
}

/// The same as [`Run`] on its way between shards.
#[derive(Clone, Debug)]
pub struct SentRun {
    /// The batch.
    pub batch: Arc<Batch>,
    /// First frame.
    pub from: u32,
    /// Behind the last frame.
    pub to: u32,
}

/// Appends the header of an unfragmented, unmasked WebSocket frame (RFC 6455 §5.2) with the minimal length form.
/// It stands here because every dialect's encoder writes it in front of its payload, contiguously.
pub fn put_websocket_header(out: &mut Vec<u8>, opcode: u8, payload_len: usize) {
    debug_assert!(opcode < 16);
    let first = 0x80 | opcode;
    if payload_len < 126 {
        out.extend_from_slice(&[first, payload_len as u8]);
    } else if let Ok(len) = u16::try_from(payload_len) {
        out.extend_from_slice(&[first, 126]);
        out.extend_from_slice(&len.to_be_bytes());
    } else {
        out.extend_from_slice(&[first, 127]);
        out.extend_from_slice(&(payload_len as u64).to_be_bytes());
    }
}

/// Writes a stream's frames in the dialect's wire form. The home calls it once per frame; streams know no protocol.
pub trait Encode {
    /// Appends one whole wire frame (WebSocket header and payload) to `out`.
    fn encode(&self, stream: StreamHandle, item: &Item, kind: FrameKind, body: &[u8], out: &mut Vec<u8>);
}

/// What a stream's frame is in dialect D's header; other dialects look it up in the type table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FrameKind {
    /// D's type: 18, 32–35.
    pub frame_type: u8,
    /// D's kind field.
    pub kind: u16,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(class: Class, place: u64) -> Item {
        Item { class, key: place, forgets: false, place, prev: place.saturating_sub(1) }
    }

    fn sample() -> Batch {
        let mut builder = BatchBuilder::new(StreamHandle(1));
        for (n, class) in [Class::Reliable, Class::Delta, Class::Delta, Class::Reliable].into_iter().enumerate() {
            builder.push(item(class, n as u64 + 1), |out| out.extend(std::iter::repeat_n(n as u8, n + 1)));
        }
        builder.seal(Monotonic::ZERO)
    }

    /// Runs of a batch are contiguous slices with exact counts of bytes and deltas.
    #[test]
    fn a_run_is_one_slice_of_its_batch() {
        let batch = sample();
        assert_eq!(batch.bytes(0, 4), [0, 1, 1, 2, 2, 2, 3, 3, 3, 3]);
        assert_eq!(batch.bytes(1, 3), [1, 1, 2, 2, 2]);
        assert_eq!(batch.byte_len(2, 2), 0);
        assert_eq!((batch.deltas(0, 4), batch.deltas(1, 2), batch.deltas(3, 4)), (2, 1, 0));
    }

    /// A frame split off twice is one allocation, and keeps nothing of its batch alive.
    #[test]
    fn split_frames_are_shared_and_outlive_their_batch() {
        let shared = Shared::new(Arc::new(sample()));
        let (a, b) = (shared.single(2), shared.single(2));
        assert!(std::ptr::eq(a.bytes(0, 1), b.bytes(0, 1)));
        drop(shared);
        assert_eq!(a.bytes(0, 1), [2, 2, 2]);
        assert_eq!(a.items()[0].place, 3);
    }

    /// The history's copy has the reliable frames in order and no delta.
    #[test]
    fn reliable_only_leaves_deltas_out() {
        let kept = sample().reliable_only().unwrap();
        assert_eq!(kept.bytes(0, kept.len()), [0, 3, 3, 3, 3]);
        assert_eq!(kept.deltas(0, 2), 0);
        let mut builder = BatchBuilder::new(StreamHandle(1));
        builder.push(item(Class::Delta, 1), |out| out.push(1));
        assert!(builder.seal(Monotonic::ZERO).reliable_only().is_none());
    }
}
