//! The bus peer: puts commands of shards into the log and answers them, reads the event topics and gives every event to
//! the home shard of its scope.
//!
//! Laws: events of a topic reach their homes in the topic's order, each once, also one that was appended twice under one
//! id within the resume window. The peer pulls: it reads on only while the
//! mesh takes what it has read, so that what waits stays in the log; one event per topic is held, and one page of
//! records. A poison event holds nothing up: it is counted, logged once per topic, and kept in `ringgate.dead`.

use std::sync::Arc;

use serde::Serialize;

use super::DEAD_TOPIC;
use crate::id::{ConnAddr, NodeId, Scope};
use crate::limits;
use crate::message::{Append, Deliver, Effect, Event, PresenceRequest, Request};
use crate::ports::{Bus, Record};
use crate::protocol::envelope::{EnvelopeError, EventRules, EventSource, Json, event_id, parse_event};
use crate::router::Port;
use crate::router::peer::Peer;
use crate::seen::SeenIds;
use crate::stats::Counter;
use crate::time::{Monotonic, WallMillis};

/// A node of the mesh that carries commands and events. See the module.
#[derive(Debug)]
pub struct BusPeer<B, R> {
    port: Port,
    bus: B,
    rules: R,
    nodes: Nodes,
    topics: Vec<Reading>,
    seen: SeenIds,
    json: Json,
    stats: Arc<BusStats>,
}

/// Who is who on the mesh.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Nodes {
    /// The shards are `0..shards`.
    pub shards: u16,
    /// The presence peer, which is told of kicks.
    pub presence: NodeId,
}

/// What the bus peer shows.
#[derive(Default, Debug)]
pub struct BusStats {
    /// Commands put into the log.
    pub commands_total: Counter,
    /// Commands that the log refused.
    pub refused_total: Counter,
    /// Events given to homes.
    pub events_total: Counter,
    /// Events that were given to homes before, under the same id.
    pub repeated_total: Counter,
    /// Events that nobody can use.
    pub poison_total: Counter,
}

/// Where the peer stands in a topic.
#[derive(Debug)]
struct Reading {
    /// Topic, partition, epoch, and the offset of the record under way.
    source: EventSource,
    /// Where the next page begins.
    next: u64,
    /// Read and not yet looked at, the last first.
    page: Vec<Record>,
    /// Looked at, and not yet taken by the mesh.
    held: Option<Event>,
    poison_logged: bool,
}

impl<B: Bus, R: EventRules> BusPeer<B, R> {
    /// The peer at this end of the mesh; it reads `topics` from the beginning. With an embedded bus, `bus` is the
    /// registered reader of these topics.
    #[must_use]
    pub fn new(port: Port, bus: B, rules: R, nodes: Nodes, topics: &[&str]) -> Self {
        let reading = |topic: &&str| Reading {
            source: EventSource { topic: (*topic).into(), partition: 0, epoch: bus.epoch(topic), offset: 0 },
            next: 0,
            page: Vec::new(),
            held: None,
            poison_logged: false,
        };
        let topics: Vec<_> = topics.iter().map(reading).collect();
        // Ids are made by those who may publish; the seed need only be unknown to others.
        let seed = topics.first().map_or(0, |reading| reading.source.epoch);
        let seen = SeenIds::new(limits::RESUME_WINDOW, limits::SEEN_EVENTS, seed);
        Self { port, bus, rules, nodes, topics, seen, json: Json::default(), stats: Arc::default() }
    }

    /// Its counters, for the admin side.
    #[must_use]
    pub fn stats(&self) -> Arc<BusStats> {
        Arc::clone(&self.stats)
    }

    /// Returns whether there may be more.
    fn take_commands(&mut self, wall: WallMillis) -> bool {
        for _ in 0..limits::RING_SLOTS {
            let Some((from, request)) = self.port.take_request() else { return false };
            match request {
                Request::Append(append) => self.append(wall, &append),
                other => tracing::error!(from = from.0, ?other, "the bus peer got a request of another's"),
            }
        }
        true
    }

    fn append(&mut self, wall: WallMillis, append: &Append) {
        let outcome = self.bus.append(wall, append);
        let counter = if outcome.is_ok() { &self.stats.commands_total } else { &self.stats.refused_total };
        counter.add(1);
        if append.correlation != 0 {
            let Append { from: ConnAddr { shard, conn }, correlation, .. } = *append;
            self.port.deliver(shard, Deliver::Answered { to: conn, correlation, outcome });
        }
    }

    /// Gives a topic's events to their homes; returns whether there may be more that the mesh would take.
    fn pump(&mut self, at: usize, now: Monotonic, wall: WallMillis) -> bool {
        for _ in 0..limits::BUS_READ_RECORDS {
            if self.topics[at].held.is_none() && !self.look_at_next(at, now, wall) {
                return false;
            }
            if let Some(event) = self.topics[at].held.take()
                && let Err(event) = self.give(event)
            {
                self.topics[at].held = Some(event);
                return false;
            }
        }
        true
    }

    /// Reads a record into `held`, or past it if it is not for clients; `false` if there is none.
    fn look_at_next(&mut self, at: usize, now: Monotonic, wall: WallMillis) -> bool {
        let Self { bus, json, rules, topics, seen, stats, .. } = self;
        let Reading { source, next, page, held, .. } = &mut topics[at];
        if page.is_empty() {
            // All before `next` was taken by the mesh.
            bus.done(&source.topic, *next);
            *next = bus.read(&source.topic, *next, limits::BUS_READ_RECORDS, page);
            page.reverse();
        }
        let Some(record) = page.pop() else { return false };
        source.offset = record.offset;
        match parse_event(&record.value, source, rules, json) {
            Ok(_) if event_id(&record.value).is_some_and(|id| !seen.first(now, id)) => stats.repeated_total.add(1),
            Ok(event) => *held = event,
            Err(error) => self.bury(at, wall, &record, &error),
        }
        true
    }

    /// Gives the event back if the mesh does not take it now.
    fn give(&mut self, event: Event) -> Result<(), Event> {
        let home = event.scope.home(self.nodes.shards);
        let kicked = match (&event.effect, &event.scope) {
            (Some(Effect::Kick), Scope::User(user)) => Some(Arc::clone(user)),
            _ => None,
        };
        if !self.port.can_request(home) || (kicked.is_some() && !self.port.can_request(self.nodes.presence)) {
            return Err(event);
        }
        if let Some(user) = kicked {
            // Records first: a connection that the shards close now must not find its session again.
            let kick = Request::Presence(Box::new(PresenceRequest::Kick { user }));
            self.port.request(self.nodes.presence, kick);
        }
        self.port.request(home, Request::Event(Box::new(event)));
        self.stats.events_total.add(1);
        Ok(())
    }

    fn bury(&mut self, at: usize, wall: WallMillis, record: &Record, error: &EnvelopeError) {
        use base64::Engine;
        self.stats.poison_total.add(1);
        let Reading { source, poison_logged, .. } = &mut self.topics[at];
        let (topic, reason) = (&*source.topic, error.to_string());
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
        if let Err(code) = self.bus.append(wall, &dead) {
            tracing::warn!(topic = DEAD_TOPIC, code = code.name(), "a poison event is lost: the topic refused it");
        }
    }
}

impl<B: Bus, R: EventRules> Peer for BusPeer<B, R> {
    fn turn(&mut self, now: Monotonic, wall: WallMillis) -> Monotonic {
        self.port.flush_outboxes();
        // Nobody answers a peer; what comes all the same must not fill a ring.
        while self.port.take_deliver().is_some() {}
        let mut more = self.take_commands(wall);
        for at in 0..self.topics.len() {
            more |= self.pump(at, now, wall);
        }
        if more { now } else { Monotonic::NEVER }
    }

    fn port(&mut self) -> &mut Port {
        &mut self.port
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

#[cfg(test)]
mod tests;
