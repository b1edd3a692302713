//! The bus peer: puts commands of shards into the log and answers them, reads the event topics and gives every event to
//! the home shard of its scope.
//!
//! Laws: events of a topic's partition reach their homes in its order, each once. The peer pulls: it reads on only while
//! the mesh takes what it has read, so that what waits stays in the log; one event per partition is held, and one page of
//! records. A poison event holds nothing up: it is counted, logged once per topic, and kept in `ringgate.dead`. A command
//! is answered when the bus has accepted it, however late that is; while too many are on their way no more are taken.
//!
//! Where gateways share the bus it also carries what is relayed ([`crate::protocol::relay`]): frames and players' commands
//! go into the relay topic as other commands do, and come out of it as events of their rooms, on every gateway. A
//! publisher is told of each of its frames, whether it asked or not, for it must know of a hole.

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use foldhash::quality::FixedState;
use serde::Serialize;

use super::DEAD_TOPIC;
use super::duplicates::Duplicates;
use super::rebuild::Rebuilt;
use super::relay::{Publishers, Repeats};
use crate::id::{ConnAddr, ConnectionId, NodeId, Scope, SessionId};
use crate::limits;
use crate::message::{Append, Deliver, Effect, ErrorCode, Event, PresenceRequest, PublisherState, Publishing, Request};
use crate::ports::{Accepted, Bus, Completed, Durability, Record, Ticket, partition_name};
use crate::protocol::envelope::{EventRule, EventRules, EventSource, Json, parse_event};
use crate::protocol::relay::{self, Relayed};
use crate::router::peer::Peer;
use crate::router::{Latest, Port};
use crate::stats::{BusStats, Counter};
use crate::time::{Monotonic, WallMillis};

/// A node of the mesh that carries commands and events. See the module.
#[derive(Debug)]
pub struct BusPeer<B, R> {
    port: Port,
    bus: B,
    rules: Latest<R>,
    nodes: Nodes,
    /// One per partition; those that a topic gets later come behind.
    topics: Vec<Reading>,
    /// The topics, and how many partitions of each are read.
    known: Vec<(Arc<str>, u32)>,
    /// Who waits for an answer.
    pending: HashMap<Ticket, Waiting, FixedState>,
    completed: Vec<Completed>,
    duplicates: Duplicates,
    /// A poison event was lost, and none was kept since.
    dead_lost: bool,
    json: Json,
    /// What the node's connections are named by; unset, nothing is for a connection.
    nonce: Option<u64>,
    /// Of the relay, if gateways share the bus.
    publishers: Option<Publishers>,
    relay_topic: Arc<str>,
    /// Records of this process in it, on their way or there.
    relay_records: u64,
    /// Of this turn.
    now: Monotonic,
    /// See [`BusPeer::numbering`].
    rooms_epoch: Option<Arc<AtomicU64>>,
    stats: Arc<BusStats>,
    /// The broken policy to run instead.
    #[cfg(feature = "mutants")]
    mutant: crate::mutant::Mutant,
}

/// Whether the named broken policy runs; never without the feature `mutants`.
macro_rules! mutant {
    ($peer:expr, $name:ident) => {{
        #[cfg(feature = "mutants")]
        let broken = $peer.mutant == $crate::mutant::Mutant::$name;
        #[cfg(not(feature = "mutants"))]
        let broken = false;
        broken
    }};
}

/// Who is who on the mesh.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Nodes {
    /// The shards are `0..shards`.
    pub shards: u16,
    /// The presence peer, which is told of kicks.
    pub presence: NodeId,
}

/// Who waits for the end of an append.
#[derive(Debug)]
enum Waiting {
    /// A command's sender, or nobody.
    Sender(ConnAddr, u64),
    /// The publisher of a frame of so many bytes.
    Publisher(ConnAddr, u64, u32),
    /// The sender of another relayed frame.
    Relay(ConnAddr, u64),
    /// Poison that is to be kept.
    Dead,
    /// What is told of a publisher.
    Notice(Box<Publishing>),
}

/// What was read and waits for the mesh.
#[derive(Debug)]
enum Held {
    Event(Box<Event>),
    /// A publisher is in the open room.
    Open(Scope),
}

/// Where the peer stands in a partition of a topic.
#[derive(Debug)]
struct Reading {
    /// What the bus calls the partition.
    name: Arc<str>,
    /// Topic, partition, epoch, and the offset of the record under way.
    source: EventSource,
    /// Where the next page begins.
    next: u64,
    /// Read and not yet looked at, the last first.
    page: Vec<Record>,
    /// Looked at, and not yet taken by the mesh.
    held: Option<Held>,
    /// Whether it is the relay's.
    relays: bool,
    /// Of the relay's records.
    repeats: Repeats,
    /// Whose connection the record under way is for.
    asking: Asking,
    poison_logged: bool,
}

impl Reading {
    fn new(bus: &impl Bus, topic: &Arc<str>, partition: u32) -> Self {
        let name = partition_name(topic, partition);
        Self {
            source: EventSource { topic: Arc::clone(topic), partition, epoch: bus.epoch(&name), offset: 0 },
            relays: **topic == *relay::TOPIC,
            repeats: Repeats::default(),
            name,
            next: 0,
            page: Vec::new(),
            held: None,
            asking: Asking::Nobody,
            poison_logged: false,
        }
    }
}

/// Where a topic stands with a record that names a connection instead of a session. It is read again once the
/// connection's shard has answered.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
enum Asking {
    /// Nobody was asked.
    #[default]
    Nobody,
    /// The shard was.
    Shard(ConnectionId),
    /// It has answered.
    Answered(ConnectionId, Option<SessionId>),
}

/// The type table, and what is known of the connection that a record names.
struct Resolving<'a, R> {
    rules: &'a R,
    asking: Asking,
    /// A connection that nobody was asked about.
    unknown: Cell<Option<ConnectionId>>,
}

impl<R: EventRules> EventRules for Resolving<'_, R> {
    fn rule(&self, event_type: &str) -> Option<EventRule<'_>> {
        self.rules.rule(event_type)
    }

    fn session_of(&self, connection: ConnectionId) -> Option<SessionId> {
        match self.asking {
            Asking::Answered(known, session) if known == connection => session,
            _ => {
                self.unknown.set(Some(connection));
                None
            }
        }
    }
}

impl<B: Bus, R: EventRules> BusPeer<B, R> {
    /// The peer at this end of the mesh; it reads `topics` from the beginning, each event by the newest rules. With an
    /// embedded bus, `bus` is the registered reader of these topics.
    #[must_use]
    pub fn new(port: Port, bus: B, rules: Latest<R>, nodes: Nodes, topics: &[&str]) -> Self {
        let known = topics.iter().map(|topic| ((*topic).into(), 0)).collect();
        let mut peer = Self {
            port,
            bus,
            rules,
            nodes,
            topics: Vec::new(),
            known,
            pending: HashMap::default(),
            completed: Vec::new(),
            duplicates: Duplicates::default(),
            dead_lost: false,
            json: Json::default(),
            nonce: None,
            publishers: None,
            relay_topic: relay::TOPIC.into(),
            relay_records: 0,
            now: Monotonic::ZERO,
            rooms_epoch: None,
            stats: Arc::default(),
            #[cfg(feature = "mutants")]
            mutant: crate::mutant::Mutant::None,
        };
        peer.meet_partitions();
        peer
    }

    /// Reads partitions that topics have got, from their beginning.
    fn meet_partitions(&mut self) {
        for (topic, known) in &mut self.known {
            let now = self.bus.partitions(topic);
            for partition in *known..now {
                self.topics.push(Reading::new(&self.bus, topic, partition));
            }
            *known = now.max(*known);
        }
    }

    /// Runs a broken policy, if it is one of the bus peer's.
    #[cfg(feature = "mutants")]
    pub fn break_with(&mut self, mutant: crate::mutant::Mutant) {
        self.mutant = mutant;
    }

    /// The peer gives what names a connection of this node ([`ConnectionId::of`]) to its session.
    #[must_use]
    pub fn naming(self, nonce: u64) -> Self {
        Self { nonce: Some(nonce), ..self }
    }

    /// The peer carries the relays of all gateways; the rebuild has noted their publishers. The relay topic is among those
    /// that it reads.
    #[must_use]
    pub fn relaying(self, publishers: Publishers) -> Self {
        Self { publishers: Some(publishers), ..self }
    }

    /// The peer counts here.
    #[must_use]
    pub fn showing(self, stats: Arc<BusStats>) -> Self {
        Self { stats, ..self }
    }

    /// The same, keeping the numbering of the rooms' events as it is read, for whoever names a place in a stream that has
    /// no event yet.
    #[must_use]
    pub fn numbering(self, rooms_epoch: Arc<AtomicU64>) -> Self {
        Self { rooms_epoch: Some(rooms_epoch), ..self }
    }

    /// The peer reads on where the histories' rebuild ended.
    #[must_use]
    pub fn after(mut self, rebuilt: Rebuilt) -> Self {
        for (name, next) in &rebuilt.next {
            if let Some(reading) = self.topics.iter_mut().find(|reading| reading.name == *name) {
                reading.next = *next;
                self.bus.done(name, *next);
            }
        }
        for (name, repeats) in rebuilt.repeats {
            if let Some(reading) = self.topics.iter_mut().find(|reading| reading.name == name) {
                reading.repeats = repeats;
            }
        }
        Self { duplicates: rebuilt.duplicates, ..self }
    }

    /// Its counters, for the admin side.
    #[must_use]
    pub fn stats(&self) -> Arc<BusStats> {
        Arc::clone(&self.stats)
    }

    /// Returns whether there may be more.
    fn take_commands(&mut self, wall: WallMillis) -> bool {
        for _ in 0..limits::RING_SLOTS {
            if !self.takes_input() {
                return false;
            }
            let Some((from, request)) = self.port.take_request() else { return false };
            match request {
                Request::Append(mut append) => self.append(wall, &mut append),
                Request::Publishing(publishing) => self.publishing(wall, *publishing),
                other => tracing::error!(from = from.0, ?other, "the bus peer got a request of another's"),
            }
        }
        true
    }

    fn append(&mut self, wall: WallMillis, append: &mut Append) {
        if mutant!(self, ForgottenCommand) && wall.0.is_multiple_of(16) {
            self.stats.commands_total.add(1);
            return self.answer(append.from, append.correlation, Ok(()));
        }
        let waiting = self.waiting_for(append);
        if matches!(waiting, Waiting::Relay(..)) && relay::is_input(&append.value) && !self.has_publisher(wall, append)
        {
            return self.ended(waiting, Err(ErrorCode::Unavailable));
        }
        if !matches!(waiting, Waiting::Sender(..)) {
            self.number(append);
        }
        self.append_for(wall, append, waiting);
    }

    /// Says in a record of the relay topic which it is.
    fn number(&mut self, append: &mut Append) {
        if let Some(nonce) = self.nonce {
            self.relay_records += 1;
            relay::put_origin(&mut append.value, nonce, self.relay_records);
        }
    }

    fn append_for(&mut self, wall: WallMillis, append: &Append, waiting: Waiting) {
        match self.bus.append(wall, append) {
            Ok(Accepted::Now) => self.ended(waiting, Ok(())),
            Ok(Accepted::Pending(ticket)) => _ = self.pending.insert(ticket, waiting),
            Err(code) => self.ended(waiting, Err(code)),
        }
    }

    fn waiting_for(&self, append: &Append) -> Waiting {
        let Append { from, correlation, topic, value, .. } = append;
        if self.publishers.is_none() || *topic != self.relay_topic {
            return Waiting::Sender(*from, *correlation);
        }
        if relay::is_of_publisher(value) {
            let bytes = u32::try_from(value.len()).unwrap_or(u32::MAX);
            return Waiting::Publisher(*from, *correlation, bytes);
        }
        Waiting::Relay(*from, *correlation)
    }

    fn has_publisher(&mut self, wall: WallMillis, append: &Append) -> bool {
        let room = relay::room(&append.key);
        self.publishers.as_mut().is_some_and(|publishers| room.is_ok_and(|room| publishers.has(wall, room)))
    }

    /// A publisher of this gateway came, or went: all gateways are told.
    fn publishing(&mut self, wall: WallMillis, publishing: Publishing) {
        let Some(publishers) = &mut self.publishers else { return };
        publishers.of_here(self.now, wall, publishing.clone());
        self.tell(wall, publishing);
    }

    fn tell(&mut self, wall: WallMillis, publishing: Publishing) {
        let mut notice = relay::notice(&self.relay_topic, &publishing);
        self.number(&mut notice);
        self.append_for(wall, &notice, Waiting::Notice(Box::new(publishing)));
    }

    /// Tells again of those who are still there.
    fn tell_again(&mut self, wall: WallMillis) {
        let now = self.now;
        let due = self.publishers.as_mut().map(|publishers| publishers.due(now, wall));
        for publishing in due.into_iter().flatten() {
            self.tell(wall, publishing);
        }
    }

    /// Answers those whose appends have ended.
    fn answer_completed(&mut self) {
        let mut completed = std::mem::take(&mut self.completed);
        self.bus.completed(&mut completed);
        for Completed { ticket, outcome } in completed.drain(..) {
            if let Some(waiting) = self.pending.remove(&ticket) {
                self.ended(waiting, outcome);
            }
        }
        self.completed = completed;
    }

    fn ended(&mut self, waiting: Waiting, outcome: Result<(), ErrorCode>) {
        let stats = &self.stats;
        let count =
            |accepted: &Counter, refused: &Counter| if outcome.is_ok() { accepted.add(1) } else { refused.add(1) };
        match waiting {
            Waiting::Sender(from, correlation) => {
                count(&stats.commands_total, &stats.refused_total);
                self.answer(from, correlation, outcome);
            }
            Waiting::Relay(from, correlation) => {
                count(&stats.relayed_total, &stats.relay_refused_total);
                self.answer(from, correlation, outcome);
            }
            Waiting::Publisher(ConnAddr { shard, conn: to }, correlation, bytes) => {
                count(&stats.relayed_total, &stats.relay_refused_total);
                self.port.deliver(shard, Deliver::Relayed { to, correlation, bytes, outcome });
            }
            Waiting::Dead => self.buried(outcome),
            Waiting::Notice(publishing) => {
                if let (Err(_), Some(publishers)) = (outcome, &mut self.publishers) {
                    publishers.untold(self.now, &publishing);
                }
            }
        }
    }

    fn answer(&mut self, from: ConnAddr, correlation: u64, outcome: Result<(), ErrorCode>) {
        if correlation != 0 {
            let ConnAddr { shard, conn } = from;
            self.port.deliver(shard, Deliver::Answered { to: conn, correlation, outcome });
            if mutant!(self, DoubledAnswer) {
                self.port.deliver(shard, Deliver::Answered { to: conn, correlation, outcome });
            }
        }
    }

    /// Gives a topic's events to their homes; returns whether there may be more that the mesh would take.
    fn pump(&mut self, at: usize, wall: WallMillis) -> bool {
        for _ in 0..limits::BUS_READ_RECORDS {
            if self.topics[at].held.is_none() && !self.look_at_next(at, wall) {
                return false;
            }
            let given = match self.topics[at].held.take() {
                Some(Held::Event(event)) => self.give(event).map_err(Held::Event),
                Some(Held::Open(room)) => self.open(room).map_err(Held::Open),
                None => Ok(()),
            };
            if let Err(held) = given {
                self.topics[at].held = Some(held);
                return false;
            }
        }
        true
    }

    /// Whether a topic of this process's log has records and gives none, which is a failure of its disk: nobody says when
    /// it can be read again.
    fn is_stuck(&self) -> bool {
        let is_stuck = |reading: &Reading| {
            let (first, next) = self.bus.range(&reading.name);
            reading.held.is_none() && reading.page.is_empty() && reading.next.max(first) < next
        };
        self.bus.durability() == Durability::Disk && self.topics.iter().any(is_stuck)
    }

    /// Reads a record into `held`, or past it if it is not for clients; `false` if there is none.
    fn look_at_next(&mut self, at: usize, wall: WallMillis) -> bool {
        let reversed = mutant!(self, ReversedEvents);
        let Self { bus, json, rules, topics, duplicates, stats, rooms_epoch, .. } = self;
        let Reading { name, source, next, page, held, asking, relays, .. } = &mut topics[at];
        if matches!(asking, Asking::Shard(_)) {
            return false;
        }
        if page.is_empty() {
            // All before `next` was taken by the mesh.
            bus.done(name, *next);
            *next = bus.read(name, *next, limits::BUS_READ_RECORDS, page);
            source.epoch = bus.epoch(name);
            if let Some(epoch) = rooms_epoch.as_ref().filter(|_| **name == *ROOMS_EVENTS) {
                epoch.store(source.epoch, Ordering::Relaxed);
            }
            if !reversed {
                page.reverse();
            }
        }
        let Some(record) = page.pop() else { return false };
        source.offset = record.offset;
        if *relays {
            self.look_at_relayed(at, wall, &record);
            return true;
        }
        let resolving = Resolving { rules: &**rules, asking: *asking, unknown: Cell::new(None) };
        let parsed = parse_event(&record.value, source, &resolving, json);
        if let Some(connection) = resolving.unknown.get() {
            page.push(record);
            return self.ask_whose(at, connection);
        }
        *asking = Asking::Nobody;
        match parsed {
            Ok(Some(event)) if duplicates.is_repeat(record.timestamp, &event) => stats.duplicates_total.add(1),
            Ok(event) => *held = event.map(|event| Held::Event(Box::new(event))),
            Err(error) => self.bury(at, wall, &record, error.to_string()),
        }
        true
    }

    /// Holds what a record of the relay topic is for a home.
    fn look_at_relayed(&mut self, at: usize, wall: WallMillis, record: &Record) {
        let Reading { source, held, repeats, .. } = &mut self.topics[at];
        if repeats.is_repeat(&record.value) {
            return self.stats.duplicates_total.add(1);
        }
        match relay::read(&record.key, &record.value) {
            Ok(Relayed::Notice(publishing)) => {
                if publishing.state == (PublisherState::Attached { open: true }) {
                    *held = Some(Held::Open(Scope::Room(Arc::clone(&publishing.room))));
                }
                if let Some(publishers) = &mut self.publishers {
                    publishers.note(wall, wall, publishing);
                }
            }
            Ok(relayed) => *held = relayed.event(&record.key, source).map(|event| Held::Event(Box::new(event))),
            Err(error) => self.bury(at, wall, record, error.to_string()),
        }
    }

    /// Asks the connection's shard whose session it has; whether the answer is known at once.
    fn ask_whose(&mut self, at: usize, connection: ConnectionId) -> bool {
        let addr = self.nonce.and_then(|nonce| connection.addr(nonce));
        let Some(ConnAddr { shard, conn }) = addr.filter(|addr| addr.shard.0 < self.nodes.shards) else {
            self.topics[at].asking = Asking::Answered(connection, None);
            return true;
        };
        if self.port.can_request(shard) {
            self.topics[at].asking = Asking::Shard(connection);
            let (from, number) = (self.port.id(), at as u64);
            self.port.request(shard, Request::WhoIs { from, number, conn });
        }
        false
    }

    /// A shard has answered.
    fn answered(&mut self, number: u64, session: Option<SessionId>) {
        let reading = usize::try_from(number).ok().and_then(|at| self.topics.get_mut(at));
        if let Some(Reading { asking, .. }) = reading
            && let Asking::Shard(connection) = *asking
        {
            *asking = Asking::Answered(connection, session);
        }
    }

    /// Gives the room back if the mesh does not take it now.
    fn open(&mut self, scope: Scope) -> Result<(), Scope> {
        let home = scope.home(self.nodes.shards);
        if !self.port.can_request(home) {
            return Err(scope);
        }
        self.port.request(home, Request::Open { scope });
        Ok(())
    }

    /// Gives the event back if the mesh does not take it now.
    fn give(&mut self, event: Box<Event>) -> Result<(), Box<Event>> {
        let home = event.scope.home(self.nodes.shards);
        let kicked = match (&event.effect, &event.scope) {
            (Some(Effect::Kick), Scope::User(user)) => Some(Arc::clone(user)),
            _ => None,
        };
        // Where gateways share the bus, the room that a backend lets a session into is nobody's to open on any of them.
        let admitting = match &event.effect {
            Some(Effect::Join(room)) if self.publishers.is_some() => Some(Scope::Room(Arc::clone(room))),
            _ => None,
        };
        let closed = |scope: &Scope| !self.port.can_request(scope.home(self.nodes.shards));
        if closed(&event.scope)
            || admitting.as_ref().is_some_and(closed)
            || (kicked.is_some() && !self.port.can_request(self.nodes.presence))
        {
            return if mutant!(self, LostEvent) { Ok(()) } else { Err(event) };
        }
        if let Some(user) = kicked {
            // Records first: a connection that the shards close now must not find its session again.
            let event = Some((partition_name(&event.topic, event.partition), event.place));
            let kick = Request::Presence(Box::new(PresenceRequest::Kick { user, event }));
            self.port.request(self.nodes.presence, kick);
        }
        if let Some(scope) = admitting {
            self.port.request(scope.home(self.nodes.shards), Request::Reserve { scope });
        }
        let is_relayed = self.publishers.is_some() && event.topic == self.relay_topic;
        self.port.request(home, Request::Event(event));
        let counter = if is_relayed { &self.stats.relay_events_total } else { &self.stats.events_total };
        counter.add(1);
        Ok(())
    }

    fn bury(&mut self, at: usize, wall: WallMillis, record: &Record, reason: String) {
        use base64::Engine;
        self.stats.poison_total.add(1);
        let Reading { source, poison_logged, .. } = &mut self.topics[at];
        let topic = &*source.topic;
        if !std::mem::replace(poison_logged, true) {
            tracing::warn!(
                topic,
                offset = record.offset,
                reason,
                "an event that nobody can use is kept in {DEAD_TOPIC}; further ones of this topic are counted"
            );
        }
        let data_base64 = base64::engine::general_purpose::STANDARD.encode(&record.value);
        let dead = Dead { topic, partition: source.partition, offset: record.offset, reason, data_base64 };
        let dead = Append {
            from: ConnAddr::NOBODY,
            correlation: 0,
            topic: DEAD_TOPIC.into(),
            key: record.key.as_ref().into(),
            value: simd_json::to_vec(&dead).expect("plain text is always JSON").into(),
        };
        self.append_for(wall, &dead, Waiting::Dead);
    }

    /// The first of several losses in a row is told; all are counted.
    fn buried(&mut self, outcome: Result<(), ErrorCode>) {
        if let Err(code) = outcome {
            self.stats.poison_lost_total.add(1);
            if !self.dead_lost {
                let code = code.name();
                tracing::warn!(topic = DEAD_TOPIC, code, "a poison event is lost; further ones are counted");
            }
        }
        self.dead_lost = outcome.is_err();
    }
}

impl<B: Bus, R: EventRules> Peer for BusPeer<B, R> {
    fn turn(&mut self, now: Monotonic, wall: WallMillis) -> Monotonic {
        self.now = now;
        self.port.flush_outboxes();
        // Nothing else is asked; what comes all the same must not fill a ring.
        while let Some((_, message)) = self.port.take_deliver() {
            if let Deliver::Session { number, session } = message {
                self.answered(number, session);
            }
        }
        self.answer_completed();
        self.tell_again(wall);
        let mut more = self.take_commands(wall);
        // Behind the commands: the events of one that a new row allowed find that table's rows here.
        self.rules.refresh();
        self.meet_partitions();
        for at in 0..self.topics.len() {
            more |= self.pump(at, wall);
        }
        let next = self.publishers.as_ref().map_or(Monotonic::NEVER, |publishers| {
            self.stats.relay_publishers.set(publishers.count() as u64);
            publishers.next()
        });
        match more {
            true => now,
            false if self.is_stuck() => next.min(now + READ_RETRY),
            false => next,
        }
    }

    fn port(&mut self) -> &mut Port {
        &mut self.port
    }

    fn takes_input(&self) -> bool {
        self.pending.len() < limits::BUS_PENDING
    }
}

/// A record of [`DEAD_TOPIC`].
#[derive(Serialize)]
struct Dead<'a> {
    topic: &'a str,
    partition: u32,
    offset: u64,
    reason: String,
    data_base64: String,
}

/// How long a log that cannot be read is left alone.
const READ_RETRY: Duration = Duration::from_secs(1);
/// Where the first partition's numbering is looked at.
const ROOMS_EVENTS: &str = "rooms.events";

#[cfg(test)]
mod relay_tests;
#[cfg(test)]
mod tests;
