//! The reference services over the bus: reads commands, dispatches them, appends the services' events.
//!
//! Laws: events reach the bus in the order in which they were made; while one is refused nothing else is read or made,
//! so that a full bus slows the services down and fills no memory. A command is done, as far as the bus is concerned,
//! once its own events are accepted; one that comes again is not done again.
//!
//! After a restart the commands of the resume window before the log's end are carried out again, at the times at which
//! they were accepted, and make the same events under the same ids; those that the log has are left out. So a command
//! that was accepted is carried out, and a battle that was cut off goes on.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use crate::id::{ConnAddr, EventId};
use crate::limits;
use crate::message::{Append, ErrorCode};
use crate::ports::{Accepted, Bus, Completed, Record, Ticket};
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
    /// Made and not yet given to the bus; no more than a turn makes, and what the bus gave back.
    pending: VecDeque<Append>,
    /// Given to the bus and not yet accepted, in order.
    unconfirmed: VecDeque<(Ticket, Append)>,
    completed: Vec<Completed>,
    /// Events ever given to the bus, less those given back.
    given: u64,
    /// Offsets below which all commands are done once so many events are accepted.
    checkpoints: VecDeque<(u64, u64)>,
    recovery: Option<Recovery>,
    events_topic: Arc<str>,
    json: Json,
    poison_logged: bool,
}

/// What a worker does again after a restart.
#[derive(Debug)]
struct Recovery {
    /// Commands below this offset are done again.
    until: u64,
    /// Events that the log has of them.
    made: HashSet<EventId, foldhash::quality::FixedState>,
    /// When no command is left that may make one of them again.
    ends: WallMillis,
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
            unconfirmed: VecDeque::new(),
            completed: Vec::new(),
            given: 0,
            checkpoints: VecDeque::new(),
            recovery: None,
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

    /// The worker does again what the log's commands of the last resume window say, and leaves out what it has of
    /// that; call it before the first turn, with the wall clock's time.
    #[must_use]
    pub fn recover(mut self, wall: WallMillis, seed: u64) -> Self {
        let (_, until) = self.bus.range(GAMES_COMMANDS);
        let Some(newest) = self.newest(GAMES_COMMANDS).max(self.newest(&Arc::clone(&self.events_topic))) else {
            return self;
        };
        // Behind the log's end nothing was done, however long ago that is.
        let since = WallMillis(newest.0.saturating_sub(limits::RESUME_WINDOW.as_millis() as u64));
        self.next = self.bus.since(GAMES_COMMANDS, since);
        let mut made = HashSet::with_hasher(foldhash::quality::FixedState::with_seed(seed));
        let (mut at, (_, end)) = (self.bus.since(&self.events_topic, since), self.bus.range(&self.events_topic));
        let mut page = Vec::new();
        while at < end && made.len() < limits::BATTLE_EVENTS as usize {
            at = self.bus.read(&self.events_topic, at, limits::BUS_READ_RECORDS, &mut page);
            if page.is_empty() {
                break;
            }
            made.extend(page.drain(..).filter_map(|record| event_id(&record.value, &mut self.json)));
        }
        let ends = WallMillis(wall.0 + limits::RESUME_WINDOW.as_millis() as u64);
        self.recovery = Some(Recovery { until, made, ends });
        self
    }

    /// Does what there is to do, up to a budget, and never blocks; returns when to be called again at the latest, `now`
    /// or earlier if there is more, `NEVER` if only the bus can bring something.
    pub fn turn(&mut self, now: Monotonic, wall: WallMillis) -> Monotonic {
        self.confirm();
        if !self.append_pending(wall) {
            return Monotonic::NEVER;
        }
        let mut more = true;
        for _ in 0..limits::BUS_READ_RECORDS {
            let Some(record) = self.next_command() else {
                more = false;
                break;
            };
            let at = self.time_of(&record, now, wall);
            if at < now && self.battles.poll(at, EVENTS_PER_TURN, &mut self.made) <= at {
                // What was due before this command comes first.
                self.page.push(record);
            } else {
                self.carry_out(at, &record);
            }
            if !self.append_made(wall) {
                return Monotonic::NEVER;
            }
        }
        self.recovery.take_if(|recovery| recovery.ends < wall);
        let next = self.battles.poll(now, EVENTS_PER_TURN, &mut self.made);
        if !self.append_made(wall) {
            return Monotonic::NEVER;
        }
        if more { now } else { next }
    }

    /// A command that is done again is done at its own time, so that what followed from it follows again.
    fn time_of(&self, record: &Record, now: Monotonic, wall: WallMillis) -> Monotonic {
        match &self.recovery {
            Some(recovery) if record.offset < recovery.until => {
                let age = wall.0.saturating_sub(record.timestamp.0).saturating_mul(1_000_000);
                Monotonic::from_nanos(now.as_nanos().saturating_sub(age))
            }
            _ => now,
        }
    }

    /// The next record.
    fn next_command(&mut self) -> Option<Record> {
        if self.page.is_empty() {
            // The events of all before it were given to the bus.
            if self.checkpoints.back().is_none_or(|(next, _)| *next != self.next) {
                self.checkpoints.push_back((self.next, self.given));
            }
            self.pass_checkpoints();
            self.next = self.bus.read(GAMES_COMMANDS, self.next, limits::BUS_READ_RECORDS, &mut self.page);
            self.page.reverse();
        }
        self.page.pop()
    }

    /// Tells the bus of commands whose events are accepted.
    fn pass_checkpoints(&mut self) {
        let accepted = self.given - self.unconfirmed.len() as u64;
        let mut done = None;
        while let Some((next, _)) = self.checkpoints.pop_front_if(|(_, given)| *given <= accepted) {
            done = Some(next);
        }
        if let Some(next) = done {
            self.bus.done(GAMES_COMMANDS, next);
        }
    }

    /// Takes note of what the bus has accepted. What it has not is to be given again, in order, before anything else.
    fn confirm(&mut self) {
        self.bus.completed(&mut self.completed);
        let mut refused = false;
        for Completed { ticket, outcome } in self.completed.drain(..) {
            refused |= outcome.is_err();
            if refused {
                break;
            }
            let confirmed = self.unconfirmed.pop_front();
            debug_assert!(confirmed.is_some_and(|(expected, _)| expected == ticket), "completed in order");
        }
        if refused {
            self.given -= self.unconfirmed.len() as u64;
            for (_, append) in self.unconfirmed.drain(..).rev() {
                self.pending.push_front(append);
            }
        }
        self.pass_checkpoints();
    }

    fn newest(&mut self, topic: &str) -> Option<WallMillis> {
        let mut last = Vec::new();
        let (_, next) = self.bus.range(topic);
        self.bus.read(topic, next.saturating_sub(1), 1, &mut last);
        last.first().map(|record| record.timestamp)
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
            if self.recovery.as_mut().is_some_and(|recovery| recovery.made.remove(&event.id)) {
                continue;
            }
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

    /// Whether the bus took everything; if not, it calls when it may be tried again.
    fn append_pending(&mut self, wall: WallMillis) -> bool {
        while let Some(append) = self.pending.pop_front() {
            let outcome = match self.unconfirmed.len() < limits::BUS_PENDING {
                true => self.bus.append(wall, &append),
                false => Err(ErrorCode::Unavailable),
            };
            match outcome {
                Ok(Accepted::Now) => self.given += 1,
                Ok(Accepted::Pending(ticket)) => {
                    self.given += 1;
                    self.unconfirmed.push_back((ticket, append));
                }
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

/// The id of an event's envelope.
fn event_id(value: &[u8], json: &mut Json) -> Option<EventId> {
    let id = member(json.check_object(value)?, "event_id").and_then(text)?;
    EventId::parse(&id)
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
