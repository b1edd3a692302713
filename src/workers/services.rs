//! The reference services over the bus: reads commands, dispatches them, appends the services' events, keeps the records.
//!
//! Work goes in batches: a plan is written down together with the records of the batch before (one transaction), carried
//! out, its events appended; only then the next one is made. Hence the laws:
//! - events reach the bus in the order in which they were made; while one is refused nothing else is read or made, so
//!   that a full bus slows the services down and fills no memory;
//! - a worker that is started anew goes on from its records: it does the batch under way again, in the same order and at
//!   the same times, so that the same events are made under the same ids, and appends those that are not on the bus yet;
//! - every partition of the command topics is read, those that are added from their beginning; a plan names the partitions
//!   that it has records of, so that it means the same when there are more;
//! - records tell of an input only when its events are accepted, and the bus is told that it is done only then; a command
//!   that comes again within the window is not done again.

mod batch;
mod dispatch;
mod lanes;

use std::collections::{HashSet, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

pub use batch::{COMMAND_TOPICS, SERVICE_EVENT_TOPICS};

use super::passwords::Passwords;
use crate::id::{ConnAddr, EventId};
use crate::limits;
use crate::message::{Append, ErrorCode};
use crate::ports::{Accepted, Bus, Completed, Record, Store, StoreError, Ticket, Write};
use crate::protocol::envelope::members::{member, text};
use crate::protocol::envelope::{Json, parse_command, put_event};
use crate::services::rooms::Outcome;
use crate::services::{NEVER, Outbox, ServiceEvent};
use crate::time::{Monotonic, WallMillis};
use batch::{Batch, Places, Plan, WORKER, Wait, each_record, id_of, ids_since, own_record, prefetch, read_range};
pub use dispatch::Restarted;
use dispatch::{Input, PRESENCE, Services};
use lanes::Lanes;

/// The services and their place on the bus. See the module.
#[derive(Debug)]
pub struct ServiceWorker<B, S, P> {
    bus: B,
    store: S,
    passwords: P,
    services: Services,
    /// What is read, and where the next pages begin.
    lanes: Lanes,
    /// Time does not go back behind that.
    until: WallMillis,
    /// Made, and not yet written down or begun.
    planned: Option<Batch>,
    /// Outcomes that no plan has yet.
    failed: Vec<(u64, Outcome)>,
    out: Outbox,
    /// Made and not yet given to the bus; no more than a batch makes.
    pending: VecDeque<Append>,
    /// Given to the bus and not yet accepted, in order.
    unconfirmed: VecDeque<(Ticket, Append)>,
    completed: Vec<Completed>,
    /// What the records tell of the batches whose events are accepted; not yet written.
    writes: Vec<Write>,
    /// Whether the places written down are not these.
    behind: bool,
    event_topics: [Arc<str>; 3],
    json: Json,
    poison_logged: bool,
    store_told: Option<Monotonic>,
    read_logged: bool,
    /// The store did not answer, and neither may have the bus.
    silence: bool,
    tally: Tally,
    lost: Option<Lost>,
}

/// Why a worker cannot go on; another one, opened by its records, can.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Lost {
    /// The store is lost: see [`StoreError::lost`].
    Store(StoreError),
    /// A partition's numbering became another.
    Renumbered(Arc<str>),
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store(error) => error.fmt(f),
            Self::Renumbered(name) => write!(f, "topic {name} was made anew, or records of it are gone"),
        }
    }
}

/// What a worker has done since it was opened.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Tally {
    /// Records of command topics that were carried out.
    pub commands: u64,
    /// Events that were given to the bus; one that is refused is given again.
    pub events: u64,
    /// Transactions of the store.
    pub transactions: u64,
}

/// What a worker must be told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WorkerSettings {
    /// How long a seat is held for a session without connection.
    pub resume_window: Duration,
    /// Of all hashes.
    pub seed: u64,
    /// Seeds the dice of a store that has no secret yet; random.
    pub secret: [u8; 16],
    /// Set if the gateways whose presence this worker reads were started anew with it: their former connections are gone,
    /// though nobody has said so.
    pub restarted: Option<Restarted>,
}

impl<B: Bus, S: Store, P: Passwords> ServiceWorker<B, S, P> {
    /// A worker that goes on from the store's records, from the beginning if there are none.
    ///
    /// # Errors
    /// One line: the store cannot be read, or the bus where the worker goes on.
    pub fn open(bus: B, store: S, passwords: P, settings: &WorkerSettings) -> Result<Self, String> {
        Self::open_waiting(bus, store, passwords, settings, &mut || false)
    }

    /// The same over a remote bus, which may have nothing here yet that it tells of: `wait` waits until it may have, and
    /// says whether to go on.
    ///
    /// # Errors
    /// See [`ServiceWorker::open`].
    pub fn open_waiting(
        bus: B,
        mut store: S,
        passwords: P,
        settings: &WorkerSettings,
        wait: Wait<'_>,
    ) -> Result<Self, String> {
        let failed = |error: StoreError| error.to_string();
        let own = store.load(WORKER).map_err(failed)?;
        let find = |key: &str| own.iter().find(|(name, _)| name == key).map(|(_, value)| value.clone());
        let read_secret = |mut value: Vec<u8>| simd_json::from_slice::<[u8; 16]>(&mut value).ok();
        let known = find(SECRET).and_then(read_secret);
        let secret = known.unwrap_or(settings.secret);
        let mut services = Services::new(settings.resume_window, secret, settings.seed);
        for service in Services::names() {
            for (key, mut value) in store.load(service).map_err(failed)? {
                if !services.restore(service, &key, &mut value) {
                    tracing::error!(service, key, "a record of the store does not read; its room starts anew");
                }
            }
        }
        let places = find(PLACES).and_then(|mut value| simd_json::from_slice::<Places>(&mut value).ok());
        let plan = find(PLAN).and_then(|mut value| simd_json::from_slice::<Plan>(&mut value).ok());
        let places = places.unwrap_or_default();
        let lanes = Lanes::open(&bus, &places);
        let same = lanes.same(&places);
        let mut worker = Self {
            bus,
            store,
            passwords,
            services,
            lanes,
            until: places.until,
            planned: None,
            failed: Vec::new(),
            out: Outbox::default(),
            pending: VecDeque::new(),
            unconfirmed: VecDeque::new(),
            completed: Vec::new(),
            writes: if known.is_none() { vec![own_record(SECRET, &secret)] } else { Vec::new() },
            // A plan means nothing without the places it goes on from.
            behind: !same,
            event_topics: SERVICE_EVENT_TOPICS.map(Arc::from),
            json: Json::default(),
            poison_logged: false,
            store_told: None,
            read_logged: false,
            silence: false,
            tally: Tally::default(),
            lost: None,
        };
        // A bus on disk counts its readers from its oldest record on, and a full topic would bring nothing to commit.
        worker.tell_done();
        worker.remember(settings.resume_window, wait)?;
        worker.recover(plan.filter(|_| same), wait)?;
        if let Some(restarted) = settings.restarted {
            worker.services.restarted(restarted);
        }
        Ok(worker)
    }

    /// Runs a broken policy, if it is one of the services'.
    #[cfg(feature = "mutants")]
    pub fn break_with(&mut self, mutant: crate::mutant::Mutant) {
        self.services.mutant = mutant;
    }

    /// Battles that run.
    #[must_use]
    pub fn battles(&self) -> usize {
        self.services.battles.running()
    }

    /// Rooms of the rooms service.
    #[must_use]
    pub fn rooms(&self) -> usize {
        self.services.rooms.len()
    }

    /// What it has done.
    #[must_use]
    pub fn tally(&self) -> Tally {
        self.tally
    }

    /// Why it cannot go on, if it cannot; it does nothing more then.
    #[must_use]
    pub fn lost(&self) -> Option<&Lost> {
        self.lost.as_ref()
    }

    /// Where it stands, by what readers call the partition: everything below is done.
    pub fn places(&self) -> impl Iterator<Item = (&Arc<str>, u64)> {
        self.lanes.iter().map(|lane| (&lane.name, lane.next))
    }

    /// Does what there is to do, up to a budget; returns when to be called again at the latest, `now` or earlier if there
    /// is more, `NEVER` if only the bus or a password can bring something. It waits for nothing but the store.
    pub fn turn(&mut self, now: Monotonic, wall: WallMillis) -> Monotonic {
        if self.lost.is_some() || !self.append_pending(wall) {
            return Monotonic::NEVER;
        }
        if self.planned.is_none() {
            self.planned = self.plan(wall);
        }
        if self.lost.is_none()
            && (self.planned.is_some() || self.behind || !self.writes.is_empty())
            && let Err(error) = self.commit()
        {
            return self.wait_for_store(now, error);
        }
        if self.store_told.take().is_some() {
            tracing::info!("the records can be written again; the services go on");
        }
        let Some(batch) = self.planned.take() else { return self.next_call(now, wall) };
        self.carry_out(&batch, &HashSet::new());
        if self.append_pending(wall) { now } else { Monotonic::NEVER }
    }

    fn wait_for_store(&mut self, now: Monotonic, error: StoreError) -> Monotonic {
        self.silence = true;
        if error.lost {
            self.lost = Some(Lost::Store(error));
            return Monotonic::NEVER;
        }
        if self.store_told.is_none_or(|told| now >= told + STORE_COMPLAINTS) {
            self.store_told = Some(now);
            tracing::error!(%error, "the services wait until their records can be written");
        }
        now + STORE_RETRY
    }

    /// The next batch, if there is anything to do.
    fn plan(&mut self, wall: WallMillis) -> Option<Batch> {
        self.behind |= self.lanes.grow(&self.bus);
        if std::mem::take(&mut self.silence) {
            self.lanes.look_ahead(&self.bus);
        }
        let pages = match self.lanes.read(&mut self.bus, wall) {
            Ok(pages) => pages,
            Err(name) => {
                self.lost = Some(Lost::Renumbered(name));
                return None;
            }
        };
        let until = self.until.max(wall.min(self.lanes.time()));
        let mut outcomes = std::mem::take(&mut self.failed);
        outcomes.extend(std::iter::from_fn(|| self.passwords.finished()).take(limits::SERVICE_BATCH_RECORDS));
        let idle = outcomes.is_empty() && pages.0 == self.lanes.nexts() && self.services.next() > until;
        (!idle).then(|| Batch { plan: Plan::new(until, outcomes, &self.lanes, &pages.0), pages })
    }

    /// Writes down what was done, and what is to be done next.
    fn commit(&mut self) -> Result<(), StoreError> {
        let before = self.writes.len();
        self.services.save(&mut self.writes);
        self.writes.append(&mut self.out.writes);
        let done = self.behind || self.writes.len() > before;
        let (next, places) = (self.lanes.nexts(), self.next_of_places());
        if done || places != next {
            let places = own_record(PLACES, &Places::at(&self.lanes, self.until, &places));
            self.writes.push(places);
        }
        let mut batch = std::mem::take(&mut self.writes);
        let own = batch.len();
        match &self.planned {
            Some(Batch { plan, .. }) => batch.push(own_record(PLAN, plan)),
            None => batch.push(Write::Remove { service: WORKER, key: PLAN.into() }),
        }
        let outcome = self.store.write(&batch);
        if outcome.is_err() {
            batch.truncate(own);
            self.writes = batch;
            return outcome;
        }
        self.behind = false;
        self.tally.transactions += 1;
        self.tell_done();
        Ok(())
    }

    /// Behind what is done.
    fn next_of_places(&self) -> Vec<u64> {
        #[cfg(feature = "mutants")]
        if let (crate::mutant::Mutant::LostBatch, Some(batch)) = (self.services.mutant, &self.planned) {
            return batch.pages.0.clone();
        }
        self.lanes.nexts()
    }

    /// Tells the bus what it may forget: what the records that are written down tell of.
    fn tell_done(&mut self) {
        let waiting: Vec<u64> = self.services.rooms.tickets().collect();
        for lane in self.lanes.iter() {
            // What waits for its password is read again after a restart.
            let waits = waiting.iter().filter_map(|ticket| lane.offset(*ticket)).min();
            self.bus.done(&lane.name, lane.next.min(waits.unwrap_or(u64::MAX)));
        }
    }

    /// Carries a batch out; events that are `known` are on the bus already.
    fn carry_out(&mut self, batch: &Batch, known: &HashSet<EventId>) {
        let (Plan { until, outcomes, .. }, (to, records)) = (&batch.plan, &batch.pages);
        let mut timers = TIMERS_PER_BATCH;
        for (ticket, outcome) in outcomes {
            self.services.finish(*until, *ticket, outcome.clone(), &mut self.out);
        }
        for (lane, at) in self.lanes.order(records) {
            let record = &records[lane][at];
            self.services.timers(record.timestamp.min(*until), &mut timers, &mut self.out);
            self.input(lane, record);
        }
        self.services.timers(*until, &mut timers, &mut self.out);
        self.services.battles.poll(*until, EVENTS_PER_BATCH, &mut self.out.events);
        self.until = *until;
        self.lanes.advance(to);
        self.behind = true;
        for work in std::mem::take(&mut self.out.work) {
            let ticket = work.ticket;
            if self.passwords.submit(work).is_err() {
                self.failed.push((ticket, Outcome::Failed));
            }
        }
        for event in std::mem::take(&mut self.out.events) {
            if !known.contains(&event.id) {
                let append = self.envelope(&event);
                self.pending.push_back(append);
            }
        }
    }

    fn input(&mut self, lane: usize, record: &Record) {
        let lane = self.lanes.at(lane);
        let (name, ticket) = (Arc::clone(&lane.name), lane.ticket(record.offset));
        let input = Input { topic: lane.topic, ticket, at: record.timestamp, value: &record.value };
        self.tally.commands += 1;
        if let Err(error) = self.services.input(&input, &mut self.json, &mut self.out)
            && !std::mem::replace(&mut self.poison_logged, true)
        {
            let reason = error.to_string();
            tracing::warn!(
                topic = &*name,
                offset = record.offset,
                reason,
                "a command that no service can read is left alone"
            );
        }
    }

    fn envelope(&self, event: &ServiceEvent) -> Append {
        let mut value = Vec::with_capacity(256 + event.payload.len());
        put_event(&mut value, event.id, event.event_type, event.at, &event.target, &event.payload);
        let topic = match event.event_type.split_once('.') {
            Some(("chat", _)) => 1,
            Some(("rooms", _)) => 2,
            _ => 0,
        };
        Append {
            from: ConnAddr::NOBODY,
            correlation: 0,
            topic: Arc::clone(&self.event_topics[topic]),
            key: event.key.as_bytes().into(),
            value: value.into(),
        }
    }

    /// Whether the bus accepted everything; if not, it calls when there is news.
    fn append_pending(&mut self, wall: WallMillis) -> bool {
        self.confirm();
        while let Some(append) = self.pending.pop_front() {
            self.tally.events += 1;
            let outcome = match self.unconfirmed.len() < limits::BUS_PENDING {
                true => self.bus.append(wall, &append),
                false => Err(ErrorCode::Unavailable),
            };
            match outcome {
                Ok(Accepted::Now) => {}
                Ok(Accepted::Pending(ticket)) => self.unconfirmed.push_back((ticket, append)),
                Err(ErrorCode::Unavailable) => {
                    self.tally.events -= 1;
                    self.pending.push_front(append);
                    return false;
                }
                // Never with our own events, whose size is bounded; trying again would not help.
                Err(code) => {
                    tracing::error!(topic = &*append.topic, code = code.name(), "the bus refused an event for good")
                }
            }
        }
        self.unconfirmed.is_empty()
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
            for (_, append) in self.unconfirmed.drain(..).rev() {
                self.pending.push_front(append);
            }
        }
    }

    fn next_call(&mut self, now: Monotonic, wall: WallMillis) -> Monotonic {
        if self.lost.is_some() {
            return Monotonic::NEVER;
        }
        let stuck = self.lanes.unreadable().map(|lane| (Arc::clone(&lane.name), lane.next));
        if let Some((topic, next)) = &stuck
            && !self.read_logged
        {
            tracing::error!(topic = &**topic, next, "commands cannot be read; the services wait, and try again");
        }
        self.read_logged = stuck.is_some();
        let next = match self.services.next() {
            NEVER => Monotonic::NEVER,
            // What is read first wakes this thread; nothing comes of its own accord before.
            next if next <= wall => now + READ_RETRY,
            next => now + Duration::from_millis(next.0 - wall.0),
        };
        if stuck.is_some() { next.min(now + STORE_RETRY) } else { next }
    }

    /// Learns the commands of the window from the bus, to do none of them again.
    fn remember(&mut self, window: Duration, wait: Wait<'_>) -> Result<(), String> {
        let since = WallMillis(self.until.0.saturating_sub(u64::try_from(window.as_millis()).unwrap_or(u64::MAX)));
        let lanes = self.lanes.iter().filter(|lane| lane.topic != PRESENCE && lane.next > 0);
        let from: Vec<_> = lanes.map(|lane| (&lane.name, self.bus.since(&lane.name, since), lane.next)).collect();
        let early = |(_, from, next): &&(_, u64, u64)| from < next;
        prefetch(&mut self.bus, from.iter().filter(early).map(|(name, from, _)| (*name, *from)));
        for (name, from, next) in from {
            let seen = &mut self.services.seen;
            each_record(&mut self.bus, name, (from, next), wait, |record| {
                if let Some(id) = id_of(&record) {
                    seen.first(record.timestamp, id);
                }
            })?;
        }
        Ok(())
    }

    /// Begins the batch under way again, and the passwords that were.
    fn recover(&mut self, plan: Option<Plan>, wait: Wait<'_>) -> Result<(), String> {
        let planned: HashSet<u64> = plan.iter().flat_map(|plan| &plan.outcomes).map(|(ticket, _)| *ticket).collect();
        let tickets: Vec<u64> = self.services.rooms.tickets().filter(|ticket| !planned.contains(ticket)).collect();
        for ticket in tickets {
            let password = self.password(ticket, wait)?;
            let again = password.and_then(|password| self.services.rooms.work_again(ticket, &password));
            if again.is_none_or(|work| self.passwords.submit(work).is_err()) {
                self.failed.push((ticket, Outcome::Failed));
            }
        }
        let Some(plan) = plan.filter(Plan::is_of_today) else { return Ok(()) };
        let Some(to) = plan.ends(&self.lanes) else {
            return Err("the services were about to do what these topics do not have; see their partitions".to_owned());
        };
        let ahead = self.lanes.iter().zip(&to).filter(|(lane, to)| lane.next < **to);
        prefetch(&mut self.bus, ahead.map(|(lane, _)| (&lane.name, lane.next)));
        let mut known = HashSet::new();
        // The clock may have been corrected since the plan was made.
        let since = WallMillis(plan.until.0.saturating_sub(CLOCK_SLACK_MS));
        ids_since(&mut self.bus, &SERVICE_EVENT_TOPICS, since, wait, &mut known)?;
        let mut records = Vec::new();
        for (lane, to) in self.lanes.iter().zip(&to) {
            records.push(read_range(&mut self.bus, &lane.name, lane.next, *to, wait)?);
        }
        self.carry_out(&Batch { plan, pages: (to, records) }, &known);
        Ok(())
    }

    /// The password of a command that waits for it.
    fn password(&mut self, ticket: u64, wait: Wait<'_>) -> Result<Option<Box<str>>, String> {
        let lanes = self.lanes.iter().filter(|lane| lane.same);
        let Some((name, offset)) = lanes.filter_map(|lane| Some((&lane.name, lane.offset(ticket)?))).next() else {
            return Ok(None);
        };
        let record = read_range(&mut self.bus, name, offset, offset + 1, wait)?.pop();
        let command = record.as_ref().and_then(|record| parse_command(&record.value, &mut self.json).ok());
        Ok(command.and_then(|command| member(command.payload, "password").and_then(text).map(Into::into)))
    }
}

/// Own records: what seeds the dice, where the worker stands, what it is about to do.
const SECRET: &str = "secret";
const PLACES: &str = "places";
const PLAN: &str = "plan";
/// Events of battles per batch, so that commands and the stop flag are looked at between.
const EVENTS_PER_BATCH: usize = 256;
/// Deadlines of rooms per batch; each makes an event or a few.
const TIMERS_PER_BATCH: usize = 256;
/// How long lanes that have more than they gave are left alone.
const READ_RETRY: Duration = Duration::from_millis(50);
/// How long a store that fails is left alone.
const STORE_RETRY: Duration = Duration::from_secs(1);
/// How often a store that fails is complained of.
const STORE_COMPLAINTS: Duration = Duration::from_secs(10);
/// How far the clock may have been set back between a plan and its events.
const CLOCK_SLACK_MS: u64 = 60_000;

#[cfg(test)]
mod tests;
