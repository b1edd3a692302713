//! The reference services over the bus: reads commands, dispatches them, appends the services' events.
//!
//! Laws: events reach the bus in the order in which they were made; while one is refused nothing else is read or made,
//! so that a full bus slows the services down and fills no memory. A command is done, as far as the bus is concerned,
//! once its own events are accepted; one that comes again is not done again.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::id::ConnAddr;
use crate::limits;
use crate::message::{Append, ErrorCode};
use crate::ports::{Bus, Record};
use crate::protocol::envelope::members::{member, text};
use crate::protocol::envelope::{Json, ServiceCommand, parse_command, put_event};
use crate::services::battle::{Battles, Start};
use crate::services::{SeenCommands, Sender, ServiceEvent};
use crate::time::{Monotonic, WallMillis};

/// The topics that a worker reads commands from, for which it must be the bus's registered reader.
pub const COMMAND_TOPICS: [&str; 1] = [GAMES_COMMANDS];

/// The services and their place on the bus. See the module.
#[derive(Debug)]
pub struct ServiceWorker<B> {
    bus: B,
    /// Where the next page begins.
    next: u64,
    /// Read and not yet carried out, the last first.
    page: Vec<Record>,
    battles: Battles,
    seen: SeenCommands,
    made: Vec<ServiceEvent>,
    /// Made and not yet accepted; no more than a turn makes.
    pending: VecDeque<Append>,
    events_topic: Arc<str>,
    json: Json,
    poison_logged: bool,
}

impl<B: Bus> ServiceWorker<B> {
    /// A worker that reads commands from the beginning; `seed` is that of all hashes.
    #[must_use]
    pub fn new(bus: B, seed: u64) -> Self {
        Self {
            bus,
            next: 0,
            page: Vec::new(),
            battles: Battles::new(seed),
            seen: SeenCommands::new(limits::RESUME_WINDOW, limits::SEEN_COMMANDS, seed),
            made: Vec::new(),
            pending: VecDeque::new(),
            events_topic: "games.events".into(),
            json: Json::default(),
            poison_logged: false,
        }
    }

    /// Battles that run.
    #[must_use]
    pub fn battles(&self) -> usize {
        self.battles.running()
    }

    /// Does what there is to do, up to a budget, and never blocks; returns when to be called again at the latest, `now`
    /// or earlier if there is more, `NEVER` if only the bus can bring something.
    pub fn turn(&mut self, now: Monotonic, wall: WallMillis) -> Monotonic {
        if !self.append_pending(wall) {
            return Monotonic::NEVER;
        }
        let mut more = true;
        for _ in 0..limits::BUS_READ_RECORDS {
            let Some(record) = self.next_command() else {
                more = false;
                break;
            };
            self.carry_out(now, &record);
            if !self.append_made(wall) {
                return Monotonic::NEVER;
            }
        }
        let next = self.battles.poll(now, EVENTS_PER_TURN, &mut self.made);
        if !self.append_made(wall) {
            return Monotonic::NEVER;
        }
        if more { now } else { next }
    }

    /// The next record; the events of all before it are accepted.
    fn next_command(&mut self) -> Option<Record> {
        if self.page.is_empty() {
            self.bus.done(GAMES_COMMANDS, self.next);
            self.next = self.bus.read(GAMES_COMMANDS, self.next, limits::BUS_READ_RECORDS, &mut self.page);
            self.page.reverse();
        }
        self.page.pop()
    }

    fn carry_out(&mut self, now: Monotonic, record: &Record) {
        let Self { battles, seen, made, json, .. } = self;
        let command = match parse_command(&record.value, json) {
            Ok(command) => command,
            Err(error) => {
                if !std::mem::replace(&mut self.poison_logged, true) {
                    let (topic, offset, reason) = (GAMES_COMMANDS, record.offset, error.to_string());
                    tracing::warn!(topic, offset, reason, "a command that no service can read is left alone");
                }
                return;
            }
        };
        // Verbs of other games are other backends'.
        if command.event_type == "battle.command.start" && seen.first(now, command.event_id) {
            start_battle(battles, now, &command, made);
        }
    }

    fn append_made(&mut self, wall: WallMillis) -> bool {
        for event in self.made.drain(..) {
            let mut value = Vec::with_capacity(256 + event.payload.len());
            put_event(&mut value, event.id, event.event_type, wall, &event.target, &event.payload);
            self.pending.push_back(Append {
                from: ConnAddr::NOBODY,
                correlation: 0,
                topic: Arc::clone(&self.events_topic),
                key: event.key.as_bytes().into(),
                value: value.into(),
            });
        }
        self.append_pending(wall)
    }

    /// Whether the bus accepted everything; if not, it calls when it may be tried again.
    fn append_pending(&mut self, wall: WallMillis) -> bool {
        while let Some(append) = self.pending.pop_front() {
            match self.bus.append(wall, &append) {
                Ok(()) => {}
                Err(ErrorCode::Unavailable) => {
                    self.pending.push_front(append);
                    return false;
                }
                // Never with our own events, whose size is bounded; trying again would not help.
                Err(code) => {
                    tracing::error!(topic = &*append.topic, code = code.name(), "the bus refused an event for good")
                }
            }
        }
        true
    }
}

fn start_battle(battles: &mut Battles, now: Monotonic, command: &ServiceCommand<'_>, made: &mut Vec<ServiceEvent>) {
    let room = member(command.payload, "room_id").and_then(text);
    let sender =
        Sender { command: command.event_id, session: command.session, correlation: command.correlation.as_deref() };
    let (events, interval_ms) = (member(command.payload, "events"), member(command.payload, "interval_ms"));
    battles.start(now, &Start { sender, room: room.as_deref(), events, interval_ms }, made);
}

const GAMES_COMMANDS: &str = "games.commands";
/// Events of battles per turn, so that commands and the stop flag are looked at between.
const EVENTS_PER_TURN: usize = 256;

#[cfg(test)]
mod tests;
