//! Gateways that are gone: found by their lease, reaped under it (PROTOCOLS "Redis keys"). Their connections are said to
//! be `disconnected` first, under ids that are the same whoever says it, and their keys go when the bus has accepted
//! that; their sessions are remembered here from then on. What a former life of this gateway left is reaped alike.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use foldhash::quality::FixedState;
use redis::Value;

use super::RedisPresence;
use super::answers::{Asked, Watch};
use super::record::{self, Kept, number, string, text};
use crate::close::CloseReason;
use crate::id::{ConnAddr, ConnectionId, SessionId};
use crate::limits;
use crate::message::{GatewayLife, PresenceChange, PresenceKind};
use crate::time::Monotonic;

/// The watch, and the one gateway that is being reaped.
#[derive(Debug)]
pub(super) struct Reaper {
    /// Other gateways, and when their lease was renewed last as far as is known here.
    known: HashMap<Arc<str>, Option<Monotonic>, FixedState>,
    watch_at: Monotonic,
    find_at: Monotonic,
    find_from: String,
    waiting: VecDeque<Arc<str>>,
    job: Option<Job>,
    /// Whether the former life's detached sessions were taken over.
    has_adopted: bool,
}

#[derive(Debug)]
struct Job {
    gateway: Arc<str>,
    step: Step,
    /// Where the next page of connections begins.
    cursor: String,
    /// Connections of the page.
    page: Vec<ConnectionId>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    Lock,
    Read,
    /// The changes wait to be taken.
    Offer,
    /// They were taken, and the bus has not accepted all.
    Announce,
    Reap,
    Adopt,
    Unlock,
}

impl Reaper {
    pub(super) fn new(hasher: FixedState) -> Self {
        Self {
            known: HashMap::with_hasher(hasher),
            watch_at: Monotonic::ZERO,
            find_at: Monotonic::ZERO,
            find_from: START.to_owned(),
            waiting: VecDeque::new(),
            job: None,
            has_adopted: false,
        }
    }

    pub(super) fn is_idle(&self) -> bool {
        self.job.is_none() && self.waiting.is_empty()
    }

    /// Redis is away, or somebody else reaps: begins anew when the watch finds it.
    pub(super) fn stop(&mut self) {
        self.job = None;
    }

    /// The changes were taken.
    pub(super) fn offered(&mut self) {
        if let Some(job) = self.job.as_mut().filter(|job| job.step == Step::Offer) {
            job.step = Step::Announce;
        }
    }
}

impl RedisPresence {
    /// A gateway renewed its lease.
    pub(super) fn heard(&mut self, now: Monotonic, gateway: &str) {
        if *gateway != *self.gateway.gateway_id {
            self.reaper.known.insert(gateway.into(), Some(now));
        }
    }

    /// Notices arrive from now on; what those before said is looked up: who is there, and which sessions were taken.
    pub(super) fn listening(&mut self, now: Monotonic) {
        self.reaper.find_at = now;
        self.reaper.watch_at = now;
        self.write_all();
    }

    /// Looks after other gateways; returns when to come again.
    pub(super) fn watch(&mut self, now: Monotonic) -> Monotonic {
        if !self.is_ready() {
            return Monotonic::NEVER;
        }
        self.next_job();
        if now < self.reaper.watch_at {
            return self.reaper.watch_at;
        }
        self.reaper.watch_at = now + WATCH;
        let silent = |heard: &Option<Monotonic>| heard.is_none_or(|heard| heard + limits::GATEWAY_LEASE <= now);
        let silent = self.reaper.known.iter().filter(|(_, heard)| silent(heard));
        let silent: Vec<_> = silent.map(|(gateway, _)| text(gateway)).take(LOOK).collect();
        if !silent.is_empty() {
            self.ask("missing", silent, Asked::Watch(Watch::Missing));
        }
        if now >= self.reaper.find_at {
            self.find();
        }
        self.reaper.watch_at
    }

    fn find(&mut self) {
        let from = text(&self.reaper.find_from);
        self.ask("find", vec![from], Asked::Watch(Watch::Find));
    }

    pub(super) fn watched(&mut self, now: Monotonic, watch: Watch, answer: &[Value]) {
        match watch {
            Watch::Missing => {
                for gateway in answer.iter().skip(1).filter_map(string) {
                    self.reap_later(gateway);
                }
            }
            Watch::Find => {
                let Some(next) = answer.get(1).and_then(string) else { return };
                next.clone_into(&mut self.reaper.find_from);
                for gateway in answer.iter().skip(2).filter_map(string) {
                    if *gateway != *self.gateway.gateway_id {
                        self.reaper.known.entry(gateway.into()).or_insert(None);
                    }
                }
                if next == START {
                    self.reaper.find_at = now + FIND;
                } else {
                    self.find();
                }
            }
        }
    }

    fn reap_later(&mut self, gateway: &str) {
        let under_way = self.reaper.job.as_ref().is_some_and(|job| *job.gateway == *gateway);
        if !under_way && self.reaper.waiting.iter().all(|other| **other != *gateway) {
            self.reaper.waiting.push_back(gateway.into());
        }
        self.next_job();
    }

    /// Takes out what this gateway has in Redis and does not know of.
    pub(super) fn reap_own(&mut self) {
        self.reaper.job = None;
        let own = self.gateway.gateway_id.clone();
        self.reap_later(&own);
    }

    fn next_job(&mut self) {
        if self.reaper.job.is_some() {
            return;
        }
        let Some(gateway) = self.reaper.waiting.pop_front() else { return };
        let step = if *gateway == *self.gateway.gateway_id { Step::Read } else { Step::Lock };
        self.reaper.job = Some(Job { gateway, step, cursor: START.to_owned(), page: Vec::new() });
        self.do_step(step);
    }

    fn do_step(&mut self, step: Step) {
        let Some(job) = &mut self.reaper.job else { return };
        job.step = step;
        let (gateway, cursor) = (text(&job.gateway), text(&job.cursor));
        let (operation, args) = match step {
            Step::Lock => ("lock", vec![gateway]),
            Step::Read => ("sockets", vec![gateway, cursor]),
            Step::Reap => {
                let page = job.page.iter().map(|connection| text(&connection.to_string()));
                ("reap", [gateway].into_iter().chain(page).collect())
            }
            Step::Adopt => ("adopt", vec![gateway, cursor]),
            Step::Unlock => ("reaped", vec![gateway]),
            Step::Offer | Step::Announce => return,
        };
        if !self.ask(operation, args, Asked::Reaping) {
            self.reaper.job = None;
        }
    }

    /// The bus has accepted what was said.
    pub(super) fn reap_announced(&mut self) {
        if self.reaper.job.as_ref().is_some_and(|job| job.step == Step::Announce) {
            self.do_step(Step::Reap);
        }
    }

    /// A step is done.
    pub(super) fn reaped(&mut self, now: Monotonic, word: &str, answer: &[Value]) {
        let Some(job) = &mut self.reaper.job else { return };
        if word != "OK" {
            // Somebody else does it, or its lease is back.
            let gateway = Arc::clone(&job.gateway);
            self.reaper.known.insert(gateway, Some(now));
            return self.reaper.stop();
        }
        match job.step {
            Step::Lock => self.do_step(Step::Read),
            Step::Read => {
                answer.get(1).and_then(string).unwrap_or(START).clone_into(&mut job.cursor);
                self.page(answer);
            }
            Step::Reap => {
                let is_last = job.cursor == START;
                self.adopt(now, answer.iter().skip(1));
                self.do_step(if is_last { Step::Adopt } else { Step::Read });
            }
            Step::Adopt => {
                answer.get(1).and_then(string).unwrap_or(START).clone_into(&mut job.cursor);
                let is_last = job.cursor == START;
                self.adopt(now, answer.iter().skip(2));
                self.do_step(if is_last { Step::Unlock } else { Step::Adopt });
            }
            Step::Unlock => {
                let gateway = Arc::clone(&job.gateway);
                self.reaper.job = None;
                if *gateway == *self.gateway.gateway_id {
                    self.reaper.has_adopted = true;
                } else {
                    tracing::info!(
                        id = &*gateway,
                        "a gateway or worker has no lease any more; what it left is taken out"
                    );
                    self.reaper.known.remove(&gateway);
                }
                self.next_job();
            }
            Step::Offer | Step::Announce => {}
        }
    }

    /// A page of connections: those that this process has stay; what others had is announced.
    fn page(&mut self, answer: &[Value]) {
        let Some(job) = &mut self.reaper.job else { return };
        job.page.clear();
        let gateway = Arc::clone(&job.gateway);
        let is_own = *gateway == *self.gateway.gateway_id;
        let (mut page, mut changes) = (Vec::new(), Vec::new());
        for entry in answer.iter().skip(2) {
            let Value::Array(fields) = entry else { continue };
            let at = |index: usize| fields.get(index).and_then(string).unwrap_or_default();
            let Some(connection) = ConnectionId::parse(at(0)) else { continue };
            let here = connection.addr(self.gateway.nonce);
            let session = SessionId::parse(at(3));
            let owner =
                session.and_then(|session| self.table.by_session(session)).and_then(|slot| self.table.owner(slot));
            if is_own && here.is_some() && here == owner {
                continue;
            }
            page.push(connection);
            if let (None, Some(session)) = (here, session) {
                let incarnation = number(&fields[4]).unwrap_or(0);
                let nonce = connection.nonce();
                changes.push(PresenceChange {
                    gateway: Some(Arc::clone(&gateway)),
                    life: GatewayLife { nonce, incarnation },
                    connection: connection.addr(nonce).unwrap_or(ConnAddr::NOBODY),
                    number: 0,
                    session,
                    user: at(1).into(),
                    username: at(2).into(),
                    kind: PresenceKind::Disconnected(CloseReason::ConnectionLost),
                    again: false,
                });
            }
        }
        job.page = page;
        match (changes.is_empty(), job.page.is_empty()) {
            (false, _) => {
                job.step = Step::Offer;
                self.changes.append(&mut changes);
            }
            (true, false) => self.do_step(Step::Reap),
            (true, true) if job.cursor != START => self.do_step(Step::Read),
            (true, true) if is_own && self.reaper.has_adopted => self.do_step(Step::Unlock),
            (true, true) => self.do_step(Step::Adopt),
        }
    }

    /// Sessions without a connection that this gateway is to remember.
    fn adopt<'a>(&mut self, now: Monotonic, records: impl Iterator<Item = &'a Value>) {
        for Kept { record, token, version, kicked } in records.filter_map(record::read) {
            if self.table.by_session(record.session).is_some() || self.table.by_token(token).is_some() {
                continue;
            }
            let (session, until) = (record.session, now + self.gateway.resume_window);
            let slot = self.insert(record, token, ConnAddr::NOBODY, (version, kicked));
            self.table.detach(slot, until);
            self.own.entry(session).and_modify(|own| own.until = until);
        }
        while self.table.detached() > self.gateway.detached_max {
            let (oldest, _) = self.table.oldest_detached().expect("there are more than none");
            self.end(oldest, CloseReason::Normal, &mut Vec::new());
        }
    }
}

/// Where a look through Redis begins, and what it says at the end.
const START: &str = "0";
/// Between two looks at leases that were not heard of.
const WATCH: Duration = Duration::from_secs(1);
/// Between two looks for gateways that nobody has heard of.
const FIND: Duration = Duration::from_secs(60);
/// Gateways looked at at once.
const LOOK: usize = 256;
