//! Frozen frames: a [`Batch`] holds the encoded frames that one stream produced in one flush of its home, contiguous
//! and immutable, so that any run of them is one slice that thousands of members send without a copy.
//!
//! - [`Batch`] crosses threads behind an `Arc`: one reference per shard, not one per member. It holds its frames in
//!   dialect D's form; the form of another dialect is made of that once per batch, by the first shard with a member
//!   that speaks it ([`Transcode`]).
//! - [`Shared`] is the shard's own handle of a batch in one form: cloning it is a plain increment.
//! - [`Run`] is what write queues hold: frames `from..to` of a batch. A single frame is a run of one.
//!
//! Nothing that belongs to one connection ever sits in a frame. What only a part of the members may see, and what a
//! frame does to its session, stands beside the bytes ([`Mark`]).

use std::cell::RefCell;
use std::ops::Range;
use std::rc::Rc;
use std::sync::{Arc, OnceLock};

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

/// How a batch's frames are written.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Form {
    /// Dialect D; every batch has it.
    Frames,
    /// Dialect A.
    Gateway,
    /// Dialect B.
    Rooms,
}

/// What of a frame is sent to a member.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum View {
    /// The frame.
    Whole,
    /// Its place alone: the member is not of its audience (DELIVERY §4 "only / except").
    Advance,
    /// Its place, then the refusal that it is in dialect D's own form, whose header has no place for both.
    Refusal,
}

/// Who wrote the payloads of a stream's frames.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Origin {
    /// ringgate itself, of what came by the bus: the JSON of A's frame without `at`.
    Bus,
    /// A publisher, whatever it liked.
    Relay,
}

impl Origin {
    /// The origin of a stream's frames, by its name (DELIVERY §1).
    #[must_use]
    pub fn of_stream(name: &str) -> Self {
        let relayed = ["relay/", "input/", "ringgate.relay."].iter().any(|prefix| name.starts_with(prefix));
        if relayed { Self::Relay } else { Self::Bus }
    }
}

/// A frame to be written in another form.
#[derive(Clone, Copy, Debug)]
pub struct Original<'a> {
    /// Its stream.
    pub stream: StreamHandle,
    /// Who wrote its payload.
    pub origin: Origin,
    /// What it is.
    pub item: &'a Item,
    /// The whole wire frame of dialect D.
    pub wire: &'a [u8],
}

/// Writes a frame in another form than dialect D's. Streams and queues know no protocol.
pub trait Transcode {
    /// Appends one whole wire frame to `out`.
    fn transcode(&self, form: Form, view: View, original: &Original<'_>, out: &mut Vec<u8>);
}

/// Who of a stream's members sees a frame, by user id. The ids ascend: every member of the room is looked for in them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Audience {
    /// These alone.
    Only(Box<[Box<str>]>),
    /// All but these.
    Except(Box<[Box<str>]>),
}

impl Audience {
    /// Whether the user sees it.
    #[must_use]
    pub fn includes(&self, user: &str) -> bool {
        match self {
            Self::Only(users) => has(users, user),
            Self::Except(users) => !has(users, user),
        }
    }
}

fn has(users: &[Box<str>], user: &str) -> bool {
    debug_assert!(users.is_sorted(), "an audience's ids ascend");
    users.binary_search_by(|other| (**other).cmp(user)).is_ok()
}

/// What a frame does to the sessions that it is delivered to, once each (DELIVERY §4 "Effects").
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Act {
    /// The session joins the room, else it leaves it.
    pub joins: bool,
    /// The room.
    pub room: Arc<str>,
    /// The frame's own stream, by name.
    pub stream: Arc<str>,
    /// The numbering of that stream, and of the room's of the same topic and partition.
    pub epoch: u64,
    /// The frame's place.
    pub place: u64,
}

impl Act {
    /// The room's stream of the same topic and partition: a join starts there right behind `place`.
    #[must_use]
    pub fn room_stream(&self) -> String {
        let log = self.stream.split('/').next().unwrap_or_default();
        format!("{log}/room:{}", self.room)
    }
}

/// What is special about one frame of a batch.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Mark {
    /// Frame of the batch.
    pub index: u32,
    /// Who sees it; `None` = every member.
    pub audience: Option<Arc<Audience>>,
    /// What it does.
    pub act: Option<Arc<Act>>,
    /// Whether it is a backend's refusal of a command ([`View::Refusal`]).
    pub refusal: bool,
}

impl Mark {
    /// Whether it says nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.audience.is_none() && self.act.is_none() && !self.refusal
    }
}

/// Encoded frames of one stream, in stream order. Immutable.
///
/// Invariant: `deltas` counts up to and including each item; every encoding has one end per item.
#[derive(Debug)]
pub struct Batch {
    stream: StreamHandle,
    origin: Origin,
    born: Monotonic,
    items: Box<[Item]>,
    deltas: Box<[u32]>,
    marks: Box<[Mark]>,
    frames: Encoded,
    others: OnceLock<Box<[OnceLock<Encoded>; OTHER_FORMS]>>,
}

/// The frames of a batch in one form; `ends[i]` is behind frame `i`.
#[derive(Default, Debug)]
struct Encoded {
    ends: Box<[u32]>,
    bytes: Box<[u8]>,
}

impl Encoded {
    fn span(&self, from: usize, to: usize) -> Range<usize> {
        self.start(from)..self.start(to)
    }

    fn start(&self, index: usize) -> usize {
        index.checked_sub(1).map_or(0, |before| self.ends[before] as usize)
    }
}

impl Batch {
    /// The stream all frames belong to.
    #[must_use]
    pub fn stream(&self) -> StreamHandle {
        self.stream
    }

    /// Who wrote its frames' payloads.
    #[must_use]
    pub fn origin(&self) -> Origin {
        self.origin
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

    /// The frames that are special, in order; none in nearly every batch.
    #[must_use]
    pub fn marks(&self) -> &[Mark] {
        &self.marks
    }

    /// Dialect D's wire bytes of frames `from..to`; `from <= to <= len()`.
    #[must_use]
    pub fn bytes(&self, from: usize, to: usize) -> &[u8] {
        &self.frames.bytes[self.frames.span(from, to)]
    }

    /// How many bytes dialect D's frames `from..to` have; `from <= to <= len()`.
    #[must_use]
    pub fn byte_len(&self, from: usize, to: usize) -> usize {
        self.frames.span(from, to).len()
    }

    /// How many of the frames `from..to` are deltas; `from <= to <= len()`.
    #[must_use]
    pub fn deltas(&self, from: usize, to: usize) -> usize {
        let before = |index: usize| index.checked_sub(1).map_or(0, |before| self.deltas[before]);
        (before(to) - before(from)) as usize
    }

    /// The batch of its reliable frames alone, `None` if it has none; for histories, which must not keep deltas' bytes.
    #[must_use]
    pub fn reliable_only(&self) -> Option<Batch> {
        let mut builder = BatchBuilder::of(self.stream, self.origin);
        let mut marks = self.marks.iter().peekable();
        for (index, item) in self.items.iter().enumerate() {
            let mark = marks.next_if(|mark| mark.index as usize == index);
            if item.class == Class::Reliable {
                builder.push(*item, |out| out.extend_from_slice(self.bytes(index, index + 1)));
                if let Some(mark) = mark {
                    builder.mark(mark.clone());
                }
            }
        }
        (!builder.is_empty()).then(|| builder.seal(self.born))
    }

    fn encoded(&self, form: FormView) -> &Encoded {
        let Some(other) = form.other() else { return &self.frames };
        let others = self.others.get().and_then(|others| others[other].get());
        others.expect("a handle of a form is made after the form")
    }

    /// Makes the form unless it is there.
    fn ensure(&self, form: FormView, transcode: &dyn Transcode) {
        let Some(other) = form.other() else { return };
        self.others.get_or_init(Box::default)[other].get_or_init(|| {
            let mut bytes = Vec::with_capacity(self.frames.bytes.len());
            let mut ends = Vec::with_capacity(self.items.len());
            let mut marks = self.marks.iter().peekable();
            for (index, item) in self.items.iter().enumerate() {
                let special = marks.next_if(|mark| mark.index as usize == index);
                // A view that no member has of the frame is never sent.
                let seen = match form.view {
                    View::Whole => true,
                    View::Advance => special.is_some_and(|mark| mark.audience.is_some()),
                    View::Refusal => special.is_some_and(|mark| mark.refusal),
                };
                if seen {
                    let wire = self.bytes(index, index + 1);
                    let original = Original { stream: self.stream, origin: self.origin, item, wire };
                    transcode.transcode(form.form, form.view, &original, &mut bytes);
                }
                ends.push(end_of(&bytes));
            }
            Encoded { ends: ends.into(), bytes: bytes.into() }
        });
    }

    /// The batch of the one frame `index` in one form, with its own copy of the bytes.
    fn single(&self, index: usize, form: FormView) -> Batch {
        let item = self.items[index];
        let encoded = self.encoded(form);
        let bytes: Box<[u8]> = encoded.bytes[encoded.span(index, index + 1)].into();
        let encoded = Encoded { ends: [end_of(&bytes)].into(), bytes };
        let mut single = Batch {
            stream: self.stream,
            origin: self.origin,
            born: self.born,
            items: [item].into(),
            deltas: [u32::from(item.class == Class::Delta)].into(),
            marks: Box::default(),
            frames: Encoded::default(),
            others: OnceLock::new(),
        };
        match form.other() {
            None => single.frames = encoded,
            Some(other) => {
                let slot = &single.others.get_or_init(Box::default)[other];
                slot.set(encoded).expect("the batch was made above, without this form");
            }
        }
        single
    }
}

/// Collects a stream's frames until its home seals them.
#[derive(Debug)]
pub struct BatchBuilder {
    stream: StreamHandle,
    origin: Origin,
    items: Vec<Item>,
    ends: Vec<u32>,
    deltas: Vec<u32>,
    marks: Vec<Mark>,
    bytes: Vec<u8>,
}

impl BatchBuilder {
    /// An empty builder for a stream whose frames publishers write.
    #[must_use]
    pub fn new(stream: StreamHandle) -> Self {
        Self::of(stream, Origin::Relay)
    }

    /// An empty builder for a stream.
    #[must_use]
    pub fn of(stream: StreamHandle, origin: Origin) -> Self {
        let (items, ends, deltas) = (Vec::new(), Vec::new(), Vec::new());
        Self { stream, origin, items, ends, deltas, marks: Vec::new(), bytes: Vec::new() }
    }

    /// Appends a frame whose wire bytes `encode` writes; it must only append.
    pub fn push(&mut self, item: Item, encode: impl FnOnce(&mut Vec<u8>)) {
        let before = self.deltas.last().copied().unwrap_or(0);
        encode(&mut self.bytes);
        self.items.push(item);
        self.ends.push(end_of(&self.bytes));
        self.deltas.push(before + u32::from(item.class == Class::Delta));
    }

    /// Who writes the frames.
    #[must_use]
    pub fn origin(&self) -> Origin {
        self.origin
    }

    /// Says what is special about the frame pushed last; its index is put right.
    pub fn mark(&mut self, mark: Mark) {
        let index = self.items.len().checked_sub(1).expect("a frame was pushed before it is marked") as u32;
        self.marks.push(Mark { index, ..mark });
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
        let (ends, bytes) = (std::mem::take(&mut self.ends).into(), std::mem::take(&mut self.bytes).into());
        Batch {
            stream: self.stream,
            origin: self.origin,
            born,
            items: std::mem::take(&mut self.items).into(),
            deltas: std::mem::take(&mut self.deltas).into(),
            marks: std::mem::take(&mut self.marks).into(),
            frames: Encoded { ends, bytes },
            others: OnceLock::new(),
        }
    }
}

/// A shard's handle of a batch in one form; `Clone` touches no atomic. Queues that split a batch share the single
/// frames too, and so a slow member keeps alive the frames that wait for it, not the batches they came in.
#[derive(Clone, Debug)]
pub struct Shared(Rc<Local>);

#[derive(Debug)]
struct Local {
    batch: Arc<Batch>,
    form: FormView,
    singles: RefCell<Vec<Option<Shared>>>,
}

impl Shared {
    /// Takes the shard's one reference, in dialect D's form.
    #[must_use]
    pub fn new(batch: Arc<Batch>) -> Self {
        Self::of(batch, FormView::FRAMES)
    }

    /// Takes a reference in the given form, which is made unless it is there.
    #[must_use]
    pub fn in_form(batch: Arc<Batch>, form: Form, view: View, transcode: &dyn Transcode) -> Self {
        let form = FormView { form, view };
        batch.ensure(form, transcode);
        Self::of(batch, form)
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
        let Local { batch, form, .. } = &*self.0;
        singles[index].get_or_insert_with(|| Shared::of(Arc::new(batch.single(index, *form)), *form)).clone()
    }

    /// The wire bytes of frames `from..to`; `from <= to <= len()`.
    #[must_use]
    pub fn bytes(&self, from: usize, to: usize) -> &[u8] {
        let encoded = self.0.batch.encoded(self.0.form);
        &encoded.bytes[encoded.span(from, to)]
    }

    /// How many wire bytes frames `from..to` have; `from <= to <= len()`.
    #[must_use]
    pub fn byte_len(&self, from: usize, to: usize) -> usize {
        self.0.batch.encoded(self.0.form).span(from, to).len()
    }

    fn of(batch: Arc<Batch>, form: FormView) -> Self {
        Self(Rc::new(Local { batch, form, singles: RefCell::new(Vec::new()) }))
    }
}

/// Derefs to what does not depend on the form; [`Shared::bytes`] and [`Shared::byte_len`] hide the batch's own.
impl std::ops::Deref for Shared {
    type Target = Batch;
    fn deref(&self) -> &Batch {
        &self.0.batch
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct FormView {
    form: Form,
    view: View,
}

impl FormView {
    const FRAMES: Self = Self { form: Form::Frames, view: View::Whole };

    /// Its place among the forms that a batch may lack.
    fn other(self) -> Option<usize> {
        let Self { form, view } = self;
        (form as usize * VIEWS + view as usize).checked_sub(1)
    }
}

const VIEWS: usize = 3;
/// Three forms in each view, without the one that every batch has.
const OTHER_FORMS: usize = 3 * VIEWS - 1;

fn end_of(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).expect("a batch is sealed long before 4 GiB (limits::BATCH_BYTES)")
}

/// A shard's handles of one batch, in the forms that its members speak; each is made when first asked for.
pub struct Handles<'a> {
    batch: Arc<Batch>,
    transcode: &'a dyn Transcode,
    made: [Option<Shared>; OTHER_FORMS + 1],
}

impl<'a> Handles<'a> {
    /// No handle yet.
    #[must_use]
    pub fn new(batch: Arc<Batch>, transcode: &'a dyn Transcode) -> Self {
        Self { batch, transcode, made: Default::default() }
    }

    /// The batch.
    #[must_use]
    pub fn batch(&self) -> &Batch {
        &self.batch
    }

    /// The handle of a form.
    #[inline]
    pub fn of(&mut self, form: Form, view: View) -> &Shared {
        let Self { batch, transcode, made } = self;
        let made = &mut made[FormView { form, view }.other().map_or(0, |other| other + 1)];
        made.get_or_insert_with(|| Shared::in_form(Arc::clone(batch), form, view, *transcode))
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

impl FrameKind {
    /// D's type of a refusal.
    pub const ERROR_TYPE: u8 = 3;
    /// D's type of a player's command to the room's publishers.
    pub const PLAYER_COMMAND_TYPE: u8 = 18;
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

    /// Upper case for A, the place for an advance.
    struct Shouting;

    impl Transcode for Shouting {
        fn transcode(&self, form: Form, view: View, original: &Original<'_>, out: &mut Vec<u8>) {
            assert_eq!(form, Form::Gateway);
            match view {
                View::Whole => out.extend(original.wire.iter().map(|byte| byte + 100)),
                View::Advance | View::Refusal => out.push(original.item.place as u8),
            }
        }
    }

    /// Another dialect's form is made once, has its own lengths, and splits like the first; only hidden frames have an
    /// advance.
    #[test]
    fn forms_are_made_once_and_split() {
        let mut builder = BatchBuilder::new(StreamHandle(1));
        for place in 1..4 {
            builder.push(item(Class::Reliable, place), |out| out.extend(std::iter::repeat_n(place as u8, 2)));
            if place == 2 {
                builder.mark(Mark { audience: Some(Arc::new(Audience::Except(Box::default()))), ..Mark::default() });
            }
        }
        let batch = Arc::new(builder.seal(Monotonic::ZERO));
        let mut handles = Handles::new(Arc::clone(&batch), &Shouting);
        let whole = handles.of(Form::Gateway, View::Whole).clone();
        assert_eq!(whole.bytes(0, 3), [101, 101, 102, 102, 103, 103]);
        assert_eq!(whole.single(1).bytes(0, 1), [102, 102]);
        let advance = handles.of(Form::Gateway, View::Advance).clone();
        assert_eq!((advance.bytes(0, 3), advance.byte_len(1, 2)), (&[2][..], 1));
        assert_eq!(advance.single(1).bytes(0, 1), [2]);
        assert_eq!(handles.of(Form::Frames, View::Whole).bytes(1, 2), [2, 2]);
        let other = Shared::in_form(batch, Form::Gateway, View::Whole, &Shouting);
        assert!(std::ptr::eq(other.bytes(0, 1), whole.bytes(0, 1)), "one encoding for all shards");
    }
}
