//! The scopes homed on one shard: places, histories, newest delta values, joins, pages (DELIVERY §4).
//!
//! Frames collect in a stream's pending batch and go out when the shard seals, once per tick, so a member in step
//! holds one run however many frames a tick brought. Joins and pulls are answered on sealed streams only: whatever a
//! page ends at, the batches sent after it continue without a gap.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use foldhash::fast::FixedState;

use super::deltas::DeltaValues;
use super::evicted::{Evicted, Last};
use super::history::History;
use super::home_stream::HomeStream;
use crate::class::Class;
use crate::frame::{Audience, Batch, BatchBuilder, Encode, FrameKind, Item, Mark, Origin, SentRun};
use crate::id::{ConnAddr, NodeId, Scope, SessionId, ShardSet, StreamHandle};
use crate::limits;
use crate::message::{
    Effect, ErrorCode, Event, HistoryAsk, HistoryPage, HistoryRefusal, Introduction, JoinRequest, LostReason, Page,
    PageNext, Position, Publish, PublishTo, Pull, Recall, ResumeFrom, StreamStart,
};
use crate::time::{Monotonic, Wheel};

/// Bounds and identity of a shard's homes.
#[derive(Clone, Debug)]
pub struct HomeConfig {
    /// This shard.
    pub shard: NodeId,
    /// Shards of the node.
    pub shards: u16,
    /// Numbering of the streams that have no log behind them; random per process, < 2^53.
    pub epoch: u64,
    /// Seeds the hash tables.
    pub seed: u64,
    /// Frames a batch has at most: half the queue's bound, so that a burst that meets a short send closes nobody.
    pub batch_frames: usize,
    /// Reliable frames kept per stream.
    pub history_events: usize,
    /// Bytes kept per stream.
    pub history_bytes: usize,
    /// Bytes kept by all streams together.
    pub history_total_bytes: usize,
    /// How long frames are kept.
    pub history_time: Duration,
    /// Streams of users and sessions kept; beyond it the longest idle ones are taken away with all their frames and values,
    /// and a resume that lacks frames of them is told.
    pub own_streams: usize,
    /// How long an open room outlives its last member and event, and a publisher its connection. A room that backends let
    /// sessions into is kept for three of it.
    pub resume_window: Duration,
}

/// What a home sends, in order.
#[derive(Debug)]
pub enum HomeOutput {
    /// New frames for the members on these shards.
    Batch {
        /// The frames.
        batch: Arc<Batch>,
        /// Where members are.
        shards: ShardSet,
    },
    /// A stream appeared in a scope that has members on these shards.
    Introduce {
        /// The scope.
        scope: Scope,
        /// The stream.
        introduction: Arc<Introduction>,
        /// Where members are.
        shards: ShardSet,
    },
    /// A stream's numbering is over, and nobody can tell what its members lack: on these shards they close, and a resume
    /// says `epoch_changed`.
    Broken {
        /// The stream.
        stream: StreamHandle,
        /// Where members are.
        shards: ShardSet,
    },
    /// Every connection of the user closes, on all shards.
    Kick {
        /// The user id.
        user: Arc<str>,
    },
}

/// Where a frame was put.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Placed {
    /// The stream it went to.
    pub stream: StreamHandle,
    /// Its place; for a delta the place it follows.
    pub place: u64,
}

/// See the module.
#[derive(Debug)]
pub struct Homes {
    config: HomeConfig,
    scopes: HashMap<Scope, ScopeHome, FixedState>,
    streams: HashMap<u32, HomeStream, FixedState>,
    next_index: u32,
    place: u64,
    dirty: Vec<u32>,
    /// Streams with history by their last event, for the total bound.
    idle: BTreeSet<(Monotonic, u32)>,
    history_bytes: usize,
    /// Streams of users and sessions by their last use, for their bound.
    own: BTreeSet<(Monotonic, u32)>,
    evicted: Evicted,
    outputs: VecDeque<HomeOutput>,
    checks: Wheel<u32>,
    fired: Vec<u32>,
    /// The broken policy to run instead.
    #[cfg(feature = "mutants")]
    mutant: crate::mutant::Mutant,
}

#[derive(Debug)]
struct ScopeHome {
    shards: ShardSet,
    streams: Vec<u32>,
    publishers: Vec<Publisher>,
    /// Made by a publisher's JOIN, open to every authenticated user.
    open: bool,
    /// A backend lets sessions in: a publisher's JOIN does not open it.
    admits: bool,
    last_active: Monotonic,
}

/// A session that may publish to the room.
#[derive(Debug)]
struct Publisher {
    session: SessionId,
    from: ConnAddr,
    /// Set when its connection is gone: until when it may come back.
    until: Option<Monotonic>,
}

/// A frame to be put into a stream.
struct Incoming<'a> {
    class: Class,
    key: u64,
    forgets: bool,
    kind: FrameKind,
    place: Option<u64>,
    audience: Option<Arc<Audience>>,
    /// Whether the session joins or leaves the room.
    act: Option<(bool, Arc<str>)>,
    body: &'a [u8],
}

impl Homes {
    /// No scope yet.
    #[must_use]
    pub fn new(config: HomeConfig, now: Monotonic) -> Self {
        let hasher = FixedState::with_seed(config.seed);
        Self {
            scopes: HashMap::with_hasher(hasher.clone()),
            streams: HashMap::with_hasher(hasher),
            next_index: 0,
            place: 0,
            dirty: Vec::new(),
            idle: BTreeSet::new(),
            history_bytes: 0,
            own: BTreeSet::new(),
            evicted: Evicted::new(config.own_streams * EVICTED_PER_STREAM, config.history_time),
            outputs: VecDeque::new(),
            checks: Wheel::new(now, CHECK_GRANULARITY),
            fired: Vec::new(),
            #[cfg(feature = "mutants")]
            mutant: crate::mutant::Mutant::None,
            config,
        }
    }

    /// Runs a broken policy, if it is one of the homes'.
    #[cfg(feature = "mutants")]
    pub fn break_with(&mut self, mutant: crate::mutant::Mutant) {
        self.mutant = mutant;
    }

    /// Puts a relayed frame, or a player's command, into its stream.
    ///
    /// # Errors
    /// `RoomNotFound` for a stream that is not (or no longer) here, `Unavailable` for a command while no publisher's
    /// session, attached or resumable, is in the room.
    pub fn publish(&mut self, now: Monotonic, publish: &Publish, encode: &dyn Encode) -> Result<Placed, ErrorCode> {
        let index = publish.stream.index(self.config.shards).ok_or(ErrorCode::RoomNotFound)?;
        let stream = self.streams.get(&index).ok_or(ErrorCode::RoomNotFound)?;
        let scope = stream.scope.clone();
        let target = match publish.to {
            PublishTo::Stream => index,
            PublishTo::Relay => self.ensure_stream(now, &scope, &format!("relay/{scope}"), self.config.epoch, false)?,
            PublishTo::Input => {
                let home = self.scopes.get(&scope).ok_or(ErrorCode::RoomNotFound)?;
                if home.publishers.is_empty() {
                    return Err(ErrorCode::Unavailable);
                }
                self.ensure_stream(now, &scope, &format!("input/{scope}"), self.config.epoch, true)?
            }
        };
        let incoming = Incoming {
            class: publish.class,
            key: publish.key,
            forgets: publish.forgets,
            kind: publish.kind,
            place: None,
            audience: None,
            act: None,
            body: &publish.body,
        };
        self.put(now, target, &incoming, encode)
    }

    /// Puts an event of the bus into its stream, and carries out a kick. An event at or below the stream's head was
    /// put before and is left out; one of another epoch ends the stream and begins it anew.
    ///
    /// # Errors
    /// `Unavailable` once the process has used up its stream handles.
    pub fn event(&mut self, now: Monotonic, event: &Event, encode: &dyn Encode) -> Result<(), ErrorCode> {
        if event.effect == Some(Effect::Kick) {
            if let Scope::User(user) = &event.scope {
                self.outputs.push_back(HomeOutput::Kick { user: Arc::clone(user) });
            }
            return Ok(());
        }
        // What players send to a room's publishers by the bus is a stream beside that of the same topic.
        let publishers_only = event.kind.frame_type == FrameKind::PLAYER_COMMAND_TYPE;
        let input = if publishers_only { ".input" } else { "" };
        let name = format!("{}{input}.{}/{}", event.topic, event.partition, event.scope);
        let mut index = self.ensure_stream(now, &event.scope, &name, event.epoch, publishers_only)?;
        if self.streams.get(&index).is_some_and(|stream| stream.introduction.position.epoch != event.epoch) {
            self.break_off(now, index);
            index = self.ensure_stream(now, &event.scope, &name, event.epoch, publishers_only)?;
        }
        if self.streams.get(&index).is_some_and(|stream| event.class == Class::Reliable && event.place <= stream.head) {
            return Ok(());
        }
        let incoming = Incoming {
            class: event.class,
            key: event.key,
            forgets: event.forgets,
            kind: event.kind,
            place: Some(event.place),
            audience: event.audience.clone(),
            act: match &event.effect {
                Some(Effect::Join(room)) => Some((true, Arc::clone(room))),
                Some(Effect::Leave(room)) => Some((false, Arc::clone(room))),
                Some(Effect::Kick) | None => None,
            },
            body: &event.body,
        };
        #[cfg(feature = "mutants")]
        if self.mutant == crate::mutant::Mutant::DoubledEvent {
            self.put(now, index, &incoming, encode)?;
        }
        self.put(now, index, &incoming, encode).map(|_| ())
    }

    /// A room that a backend lets sessions into: no JOIN opens it, whether or not anybody is in it yet. What is open
    /// stays so.
    ///
    /// # Errors
    /// `Unavailable` once the process has used up its stream handles.
    pub fn reserve(&mut self, now: Monotonic, scope: &Scope) -> Result<(), ErrorCode> {
        let home = self.scopes.entry(scope.clone()).or_insert_with(|| ScopeHome::new(now));
        home.admits |= !home.open;
        self.ensure_any_stream(now, scope)
    }

    /// A publisher of some gateway is in the open room: it is open here too, unless a backend lets sessions in.
    ///
    /// # Errors
    /// `Unavailable` once the process has used up its stream handles.
    pub fn open(&mut self, now: Monotonic, scope: &Scope) -> Result<(), ErrorCode> {
        self.scopes.entry(scope.clone()).or_insert_with(|| ScopeHome::new(now)).last_active = now;
        self.open_room(now, scope)
    }

    /// Includes the asking shard in the scope and says where its streams start for the member. Call on sealed streams,
    /// after [`Homes::seal`], with the outputs delivered.
    ///
    /// # Errors
    /// `RoomNotFound` for a room that nobody opened and no backend let the session into.
    pub fn join(&mut self, now: Monotonic, join: &JoinRequest) -> Result<Vec<StreamStart>, ErrorCode> {
        debug_assert!(self.dirty.is_empty(), "joins are answered on sealed streams");
        let scope = &join.scope;
        if let Scope::Room(_) = scope {
            // Before a publisher opens it: a room that a backend lets into is not open.
            if join.admitted {
                let home = self.scopes.entry(scope.clone()).or_insert_with(|| ScopeHome::new(now));
                home.admits |= !home.open;
            }
            if join.publisher {
                self.open_room(now, scope)?;
            }
            if let Some(resume) = &join.resume {
                self.take_back(now, join, resume)?;
            }
            if let Some(entry) = join.entry.as_ref().or_else(|| join.resume.as_ref()?.unsaid_entry()) {
                // Whatever of it comes later is behind the entry: the cursor waits for it.
                self.ensure_stream(now, scope, &entry.stream, entry.epoch, false)?;
            }
            self.ensure_any_stream(now, scope)?;
            let entitled = join.admitted || join.publisher;
            let known = self.scopes.get_mut(scope).filter(|home| home.open || entitled);
            let home = known.ok_or(ErrorCode::RoomNotFound)?;
            // A session that comes back without the role is none any more.
            home.publishers.retain(|publisher| publisher.session != join.session);
            if join.publisher {
                home.publishers.push(Publisher { session: join.session, from: join.from, until: None });
            }
            home.shards.insert(join.from.shard);
            home.last_active = now;
        }
        self.take_up(now, join)?;
        let Some(home) = self.scopes.get(scope) else { return Ok(Vec::new()) };
        let streams = home.streams.iter().filter_map(|index| self.streams.get(index));
        let visible = streams.filter(|stream| join.publisher || !stream.introduction.publishers_only);
        let (entry, guarded) = (join.entry.as_ref(), true);
        #[cfg(feature = "mutants")]
        let entry = entry.filter(|_| self.mutant != crate::mutant::Mutant::EntryAtHead);
        #[cfg(feature = "mutants")]
        let guarded = guarded && self.mutant != crate::mutant::Mutant::ResumeBeforeEntry;
        Ok(visible.map(|stream| stream.start(join, entry, guarded)).collect())
    }

    /// Whether a backend lets sessions into the room, so that it is not open.
    #[must_use]
    pub fn admits(&self, scope: &Scope) -> bool {
        self.scopes.get(scope).is_some_and(|home| home.admits)
    }

    /// The scope under the name that is kept here: members of a room share its text, instead of each keeping the copy of
    /// their own JOIN.
    #[must_use]
    pub fn own_name(&self, scope: Scope) -> Scope {
        self.scopes.get_key_value(&scope).map_or(scope, |(own, _)| own.clone())
    }

    /// Excludes a shard that has no member of the scope left.
    pub fn leave(&mut self, now: Monotonic, scope: &Scope, from: NodeId) {
        if let Some(home) = self.scopes.get_mut(scope) {
            home.shards.remove(from);
            home.last_active = now;
        }
    }

    /// A publisher's session left the room, or lost its connection and may come back within the resume window.
    /// What a connection says that its session has since joined from another one is out of date.
    pub fn publisher_gone(&mut self, now: Monotonic, scope: &Scope, from: ConnAddr, gone: bool) {
        let until = now + self.config.resume_window;
        let Some(home) = self.scopes.get_mut(scope) else { return };
        if gone {
            home.publishers.retain(|publisher| publisher.from != from);
        } else if let Some(publisher) = home.publishers.iter_mut().find(|publisher| publisher.from == from) {
            publisher.until = Some(until);
        }
    }

    /// The next page of a catch-up. Call on sealed streams, with the outputs delivered.
    #[must_use]
    pub fn page(&self, pull: &Pull) -> Page {
        debug_assert!(self.dirty.is_empty(), "pages are cut from sealed streams");
        let index = pull.stream.index(self.config.shards);
        let mut page = Page {
            to: pull.from.conn,
            stream: pull.stream,
            runs: Vec::new(),
            after: pull.after,
            after_delta: pull.after_delta,
            next: PageNext::Live,
        };
        let Some(stream) = index.and_then(|index| self.streams.get(&index)) else {
            if !self.evicted.is_empty() {
                page.next = PageNext::Evicted;
            }
            return page;
        };
        let (frames, bytes) = (pull.frames as usize, pull.bytes as usize);
        let after = if pull.after == u64::MAX { stream.head } else { pull.after };
        if after > stream.head {
            page.next = PageNext::Wait;
            return page;
        }
        if !stream.history.reaches_back_to(after, stream.head) {
            page.next = PageNext::Evicted;
            return page;
        }
        let (runs, last) = stream.history.page(after, frames, bytes);
        (page.runs, page.after) = (runs, last);
        if last < stream.head {
            page.next = PageNext::More;
            return page;
        }
        // The head is met: all newest values in one page. A slow member's queue has bounds and turns of its own; paging
        // them here by age would starve the keys at the end for as long as those at the front change.
        let (run, sequence) = stream.deltas.page(pull.stream, stream.pending.origin(), pull.after_delta);
        page.runs.extend(run);
        page.after_delta = sequence;
        page
    }

    /// A page of a stream that is named. Call on sealed streams.
    ///
    /// # Errors
    /// If there is no such stream, or its history does not begin where the page is to.
    pub fn history(&self, ask: &HistoryAsk) -> Result<HistoryPage, HistoryRefusal> {
        let scope = ask.stream.split_once('/').and_then(|(_, scope)| Scope::parse(scope));
        if scope.as_ref().is_some_and(|scope| self.evicted.has(scope, &ask.stream)) {
            return Err(HistoryRefusal::Lost(LostReason::HistoryEvicted));
        }
        let home = scope.and_then(|scope| self.scopes.get(&scope));
        let mut streams = home.iter().flat_map(|home| &home.streams).filter_map(|index| self.streams.get(index));
        let named = |stream: &&HomeStream| stream.introduction.position.stream == ask.stream;
        let stream = streams.find(named).ok_or(HistoryRefusal::NoStream)?;
        let known = &stream.introduction.position;
        if ask.epoch.is_some_and(|epoch| epoch != known.epoch) {
            return Err(HistoryRefusal::Lost(LostReason::EpochChanged));
        }
        let after = ask.after.unwrap_or_else(|| stream.history.beginning(stream.head));
        if !stream.history.reaches_back_to(after, stream.head) {
            return Err(HistoryRefusal::Lost(LostReason::HistoryEvicted));
        }
        let (runs, after) = stream.history.page(after, ask.frames as usize, ask.bytes as usize);
        let position = Position { place: stream.head, ..known.clone() };
        Ok(HistoryPage { introduction: Arc::new(Introduction { position, ..*stream.introduction }), runs, after })
    }

    /// The newest frames of the room's streams that its members receive, in the order in which they were sealed. Call on
    /// sealed streams.
    #[must_use]
    pub fn recall(&self, recall: &Recall) -> Vec<SentRun> {
        let home = self.scopes.get(&recall.scope);
        let streams = home.iter().flat_map(|home| &home.streams).filter_map(|index| self.streams.get(index));
        let shown = streams.filter(|stream| !stream.introduction.publishers_only);
        let mut runs: Vec<_> = shown.flat_map(|stream| stream.history.newest(recall.frames, recall.bytes)).collect();
        runs.sort_by_key(|run| run.batch.born());
        runs
    }

    /// Whether frames wait to be sealed.
    #[must_use]
    pub fn has_pending(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// Seals every pending batch; the outputs have them.
    pub fn seal(&mut self, now: Monotonic) {
        let mut dirty = std::mem::take(&mut self.dirty);
        for index in dirty.drain(..) {
            self.seal_stream(now, index);
        }
        self.dirty = dirty;
        self.bound_own();
        self.bound_total();
    }

    /// The next output, in order.
    pub fn output(&mut self) -> Option<HomeOutput> {
        self.outputs.pop_front()
    }

    /// Evicts what time has passed by and ends rooms and streams that nobody uses. Streams must be sealed.
    pub fn expire(&mut self, now: Monotonic) {
        let mut fired = std::mem::take(&mut self.fired);
        self.checks.advance(now, &mut fired);
        for index in fired.drain(..) {
            if self.check_stream(now, index) {
                self.checks.insert(now + CHECK_INTERVAL, index);
            }
        }
        self.fired = fired;
        self.evicted.expire(now);
    }

    /// When [`Homes::expire`] has something to do.
    #[must_use]
    pub fn next_deadline(&self) -> Monotonic {
        self.checks.next_deadline()
    }

    /// Bytes of all histories, and how many streams there are.
    #[must_use]
    pub fn sizes(&self) -> (usize, usize) {
        (self.history_bytes, self.streams.len())
    }

    /// Evicted streams that are remembered.
    #[must_use]
    pub fn remembered(&self) -> usize {
        self.evicted.len()
    }

    fn open_room(&mut self, now: Monotonic, scope: &Scope) -> Result<(), ErrorCode> {
        let home = self.scopes.entry(scope.clone()).or_insert_with(|| ScopeHome::new(now));
        home.open |= !home.admits;
        self.ensure_stream(now, scope, &format!("relay/{scope}"), self.config.epoch, false)?;
        self.ensure_stream(now, scope, &format!("input/{scope}"), self.config.epoch, true)?;
        Ok(())
    }

    /// What members relay needs the handle of one of the room's streams, and so does the check that ends the room.
    fn ensure_any_stream(&mut self, now: Monotonic, scope: &Scope) -> Result<(), ErrorCode> {
        if self.scopes.get(scope).is_some_and(|home| home.streams.is_empty()) {
            self.ensure_stream(now, scope, &format!("relay/{scope}"), self.config.epoch, false)?;
        }
        Ok(())
    }

    /// Sessions outlive a process whose rooms and numbering were its own. Who was in a room without having been let in was
    /// in an open one; and a stream that was numbered otherwise is there again at once, so that its loss is told.
    fn take_back(&mut self, now: Monotonic, join: &JoinRequest, resume: &ResumeFrom) -> Result<(), ErrorCode> {
        let scope = &join.scope;
        if !join.admitted {
            let home = self.scopes.entry(scope.clone()).or_insert_with(|| ScopeHome::new(now));
            home.open |= !home.admits;
        }
        for (kind, publishers_only) in [("relay", false), ("input", true)] {
            let name = format!("{kind}/{scope}");
            let mut known = resume.positions.iter().chain(&resume.entered);
            let lost = known.any(|known| *known.stream == *name && known.epoch != self.config.epoch);
            if lost && (join.publisher || !publishers_only) {
                self.ensure_stream(now, scope, &name, self.config.epoch, publishers_only)?;
            }
        }
        Ok(())
    }

    /// Streams of the scope that were evicted are there again, without what was in them, so that a loss is told; those that
    /// are there are in use.
    fn take_up(&mut self, now: Monotonic, join: &JoinRequest) -> Result<(), ErrorCode> {
        for (name, epoch) in self.evicted.streams_of(now, &join.scope, join.resume.is_some()) {
            self.ensure_stream(now, &join.scope, &name, epoch, false)?;
        }
        let streams = self.scopes.get(&join.scope).filter(|_| is_own(&join.scope)).map(|home| &home.streams);
        for index in streams.into_iter().flatten() {
            if let Some(stream) = self.streams.get_mut(index) {
                self.own.remove(&(stream.last_use, *index));
                self.own.insert((now, *index));
                stream.last_use = now;
            }
        }
        Ok(())
    }

    /// The stream's index; a new stream is introduced to the shards that have members of its scope.
    fn ensure_stream(
        &mut self,
        now: Monotonic,
        scope: &Scope,
        name: &str,
        epoch: u64,
        publishers_only: bool,
    ) -> Result<u32, ErrorCode> {
        let home = self.scopes.entry(scope.clone()).or_insert_with(|| ScopeHome::new(now));
        for index in &home.streams {
            if self.streams.get(index).is_some_and(|stream| &*stream.introduction.position.stream == name) {
                return Ok(*index);
            }
        }
        let last = self.evicted.take(now, scope, name, epoch);
        let known = last.and_then(|last| last.index);
        let index = known.unwrap_or(self.next_index);
        let handle =
            StreamHandle::of_home(index, self.config.shard, self.config.shards).ok_or(ErrorCode::Unavailable)?;
        self.next_index += u32::from(known.is_none());
        let head = last.map_or(0, |last| last.head);
        let position = Position { stream: name.into(), epoch, place: head };
        let introduction = Arc::new(Introduction { handle, position, publishers_only });
        let origin = Origin::of_stream(name);
        home.streams.insert(if name.starts_with("relay/") { 0 } else { home.streams.len() }, index);
        let shards = match scope {
            Scope::Room(_) => home.shards,
            Scope::User(_) | Scope::Session(_) | Scope::Everyone => ShardSet::all(self.config.shards),
        };
        let stream = HomeStream {
            scope: scope.clone(),
            introduction: Arc::clone(&introduction),
            head,
            head_is_bound: last.is_some_and(|last| last.head_is_bound),
            last_event: now,
            last_use: now,
            next_check: now + CHECK_INTERVAL,
            pending: BatchBuilder::of(handle, origin),
            dirty: false,
            history: History::default(),
            deltas: DeltaValues::new(self.config.seed),
        };
        self.streams.insert(index, stream);
        self.checks.insert(now + CHECK_INTERVAL, index);
        if is_own(scope) {
            self.own.insert((now, index));
        }
        // Who was a member before it was evicted knows it still, and others are told when they join.
        if !shards.is_empty() && known.is_none() {
            self.outputs.push_back(HomeOutput::Introduce { scope: scope.clone(), introduction, shards });
        }
        Ok(index)
    }

    fn put(
        &mut self,
        now: Monotonic,
        index: u32,
        incoming: &Incoming<'_>,
        encode: &dyn Encode,
    ) -> Result<Placed, ErrorCode> {
        let stream = self.streams.get_mut(&index).ok_or(ErrorCode::RoomNotFound)?;
        let handle = stream.introduction.handle;
        let item = match incoming.class {
            Class::Reliable => {
                self.place += 1;
                let (place, prev) = (incoming.place.unwrap_or(self.place), stream.head);
                stream.head = place;
                Item { class: Class::Reliable, key: incoming.key, forgets: incoming.forgets, place, prev }
            }
            _ => Item { class: Class::Delta, key: incoming.key, forgets: false, place: stream.head, prev: 0 },
        };
        let from = stream.pending.byte_len();
        let known_prev = if item.class == Class::Reliable && stream.head_is_bound { 0 } else { item.prev };
        stream.head_is_bound &= item.class != Class::Reliable;
        let told = Item { prev: known_prev, ..item };
        stream.pending.push(item, |out| encode.encode(handle, &told, incoming.kind, incoming.body, out));
        let act = incoming.act.as_ref().map(|(joins, room)| Arc::new(stream.act(*joins, room, item.place)));
        let refusal = incoming.kind.frame_type == FrameKind::ERROR_TYPE;
        let mark = Mark { index: 0, audience: incoming.audience.clone(), act, refusal };
        if item.class == Class::Reliable && !mark.is_empty() {
            stream.pending.mark(mark);
        }
        if item.class == Class::Delta {
            let wire = &stream.pending.bytes()[from..];
            stream.deltas.set(now, item.key, item.place, wire);
            stream.deltas.bound(limits::HOME_DELTA_KEYS, limits::HOME_DELTA_BYTES);
        } else if item.forgets {
            stream.deltas.forget(item.key);
        }
        if !stream.dirty {
            stream.dirty = true;
            self.dirty.push(index);
        }
        if stream.pending.byte_len() >= limits::BATCH_BYTES || stream.pending.len() >= self.config.batch_frames {
            self.seal_stream(now, index);
            self.dirty.retain(|other| *other != index);
        }
        Ok(Placed { stream: handle, place: item.place })
    }

    fn seal_stream(&mut self, now: Monotonic, index: u32) {
        let Some(stream) = self.streams.get_mut(&index) else { return };
        stream.dirty = false;
        if stream.pending.is_empty() {
            return;
        }
        let batch = Arc::new(stream.pending.seal(now));
        self.history_bytes -= stream.history.bytes();
        self.idle.remove(&(stream.last_event, index));
        stream.history.append(&batch);
        stream.history.trim(now, self.config.history_events, self.config.history_bytes, self.config.history_time);
        stream.last_event = now;
        if self.own.remove(&(stream.last_use, index)) {
            self.own.insert((now, index));
        }
        stream.last_use = now;
        self.history_bytes += stream.history.bytes();
        self.idle.insert((now, index));
        let shards = match (&stream.scope, self.scopes.get_mut(&stream.scope)) {
            (Scope::Room(_), Some(home)) => {
                home.last_active = now;
                home.shards
            }
            (Scope::Room(_), None) => ShardSet::default(),
            _ => ShardSet::all(self.config.shards),
        };
        if !shards.is_empty() {
            self.outputs.push_back(HomeOutput::Batch { batch, shards });
        }
    }

    /// Evicts streams of users and sessions, the longest idle first, until their bound holds. Streams must be sealed.
    fn bound_own(&mut self) {
        while self.own.len() > self.config.own_streams
            && let Some((_, index)) = self.own.pop_first()
        {
            let Some(stream) = self.streams.get(&index) else { continue };
            let Position { stream: name, epoch, .. } = &stream.introduction.position;
            let (head, head_is_bound, last_event) = (stream.head, stream.head_is_bound, stream.last_event);
            let last = Last { index: Some(index), epoch: *epoch, head, head_is_bound, last_event };
            self.evicted.keep(&stream.scope, name, last);
            let scope = stream.scope.clone();
            self.remove_from(&scope, index);
        }
    }

    /// Evicts whole histories, the longest idle stream's first, until the total bound holds.
    fn bound_total(&mut self) {
        while self.history_bytes > self.config.history_total_bytes
            && let Some((_, index)) = self.idle.pop_first()
        {
            if let Some(stream) = self.streams.get_mut(&index) {
                self.history_bytes -= stream.history.bytes();
                stream.history.clear();
            }
        }
    }

    /// One stream's periodic check; `false` when the stream is gone.
    fn check_stream(&mut self, now: Monotonic, index: u32) -> bool {
        let Some(stream) = self.streams.get_mut(&index).filter(|stream| stream.next_check <= now) else { return false };
        stream.next_check = now + CHECK_INTERVAL;
        self.history_bytes -= stream.history.bytes();
        stream.history.trim(now, self.config.history_events, self.config.history_bytes, self.config.history_time);
        self.history_bytes += stream.history.bytes();
        stream.deltas.trim(now, limits::HOME_DELTA_AGE);
        let idle = now.since(stream.last_event);
        let scope = stream.scope.clone();
        let room = matches!(scope, Scope::Room(_));
        let Some(home) = self.scopes.get_mut(&scope) else { return false };
        home.publishers.retain(|publisher| publisher.until.is_none_or(|until| until > now));
        // A service holds a seat for a window, and an empty room for another: nobody may open it before it has ended.
        let windows = if home.admits { SERVICE_WINDOWS } else { 1 };
        let abandoned = home.shards.is_empty() && now.since(home.last_active) > self.config.resume_window * windows;
        if room && abandoned && home.publishers.is_empty() {
            for index in self.scopes.remove(&scope).map(|home| home.streams).unwrap_or_default() {
                self.remove_stream(index);
            }
            return false;
        }
        if !room && idle > self.config.history_time {
            self.remove_from(&scope, index);
            return false;
        }
        true
    }

    /// Ends a stream whose numbering is over; its name gets another one.
    fn break_off(&mut self, now: Monotonic, index: u32) {
        self.seal_stream(now, index);
        let Some(stream) = self.streams.get(&index) else { return };
        let (scope, handle) = (stream.scope.clone(), stream.introduction.handle);
        let mut shards = ShardSet::all(self.config.shards);
        if let Some(home) = self.scopes.get_mut(&scope) {
            home.streams.retain(|other| *other != index);
            if matches!(scope, Scope::Room(_)) {
                shards = home.shards;
            }
        }
        self.remove_stream(index);
        if !shards.is_empty() {
            self.outputs.push_back(HomeOutput::Broken { stream: handle, shards });
        }
    }

    /// Removes a stream of what is not a room.
    fn remove_from(&mut self, scope: &Scope, index: u32) {
        self.remove_stream(index);
        if let Some(home) = self.scopes.get_mut(scope) {
            home.streams.retain(|other| *other != index);
            if home.streams.is_empty() {
                self.scopes.remove(scope);
            }
        }
    }

    fn remove_stream(&mut self, index: u32) {
        if let Some(stream) = self.streams.remove(&index) {
            self.history_bytes -= stream.history.bytes();
            self.idle.remove(&(stream.last_event, index));
            self.own.remove(&(stream.last_use, index));
            self.dirty.retain(|other| *other != index);
        }
    }
}

impl ScopeHome {
    fn new(now: Monotonic) -> Self {
        let (streams, publishers) = (Vec::new(), Vec::new());
        Self { shards: ShardSet::default(), streams, publishers, open: false, admits: false, last_active: now }
    }
}

/// Whether anybody who may connect can make such scopes, so that their streams have a bound of their own.
fn is_own(scope: &Scope) -> bool {
    matches!(scope, Scope::User(_) | Scope::Session(_))
}

/// Evicted streams that are remembered, for each that is kept.
const EVICTED_PER_STREAM: usize = 2;
/// How exactly time-outs of histories, rooms and values are kept.
const CHECK_GRANULARITY: Duration = Duration::from_secs(1);
/// Resume windows that a backend's room outlives its last member and event.
const SERVICE_WINDOWS: u32 = 3;
/// How often a stream is checked.
const CHECK_INTERVAL: Duration = Duration::from_secs(20);
