//! The shard: one pinned thread, its connections, its homes (DESIGN §2, §3). No lock, no future, nothing shared but
//! rings, frozen frames and versions of the settings.
//!
//! One [`Shard::turn`]: wait → drain mailboxes → dispatch completions → requests → timers → seal the homes' batches →
//! answer joins and pulls → flush dirty connections → wake whom the mesh names. Policy lives in `session`, `delivery`
//! and `streams`; the shard only carries out what they say, so the simulation runs the same code on another driver.

pub mod driver;

mod api;
mod connections;
mod dispatch;
mod flush;
mod random;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::auth::{Newcomers, Visits};
use crate::close::CloseReason;
use crate::delivery::Pool;
use crate::id::ConnKey;
use crate::limits;
use crate::message::{Kept, Request};
use crate::ports::Lease;
use crate::protocol::envelope::Json;
use crate::protocol::frames::FramesEncoder;
use crate::protocol::gateway::Fields;
use crate::router::{Latest, Port};
use crate::session::{Output, Settings};
use crate::stats::{Ledger, ShardStats};
use crate::streams::{HomeConfig, Homes, Members};
use crate::time::{Monotonic, WallMillis, Wheel};
use connections::Slots;
use driver::{Completion, Driver, SendBatch, Wait};

/// What a shard is built from, besides its driver.
pub struct ShardConfig {
    /// Its end of the mesh; its id is the shard's.
    pub port: Port,
    /// Bounds and identity of its homes.
    pub homes: HomeConfig,
    /// What its connections share; the newest is taken at the beginning of a turn.
    pub settings: Latest<Settings>,
    /// What it shows.
    pub stats: Arc<ShardStats>,
    /// What all shards of the node share.
    pub node: Arc<NodeState>,
    /// Seeds its hash tables; random per process.
    pub seed: u64,
}

/// What the shards of a node share: a count, a bound and a flag.
#[derive(Debug)]
pub struct NodeState {
    /// Connections of all shards.
    pub connections: AtomicU64,
    /// Beyond it a connection gets 503.
    pub connections_max: u64,
    /// Set at shutdown; shards then stop accepting, flush, close 1012 and end.
    pub draining: AtomicBool,
    /// Set at the end of the drain time-out: shards end at once.
    pub abandon: AtomicBool,
    /// How long the sessions of this node are its own.
    pub lease: Arc<Lease>,
    /// Spread of the reconnect delays that a drain suggests.
    pub reconnect_spread: Duration,
}

/// See the module.
pub struct Shard<D: Driver> {
    driver: D,
    port: Port,
    homes: Homes,
    members: Members,
    newcomers: Newcomers,
    visits: Visits,
    slots: Slots,
    settings: Latest<Settings>,
    stats: Arc<ShardStats>,
    node: Arc<NodeState>,
    ledger: Ledger,
    pool: Pool,
    timers: Wheel<ConnKey>,
    now: Monotonic,
    wall: WallMillis,
    completions: Vec<Completion<D::Socket>>,
    fired: Vec<ConnKey>,
    /// Connections with something to send.
    dirty: Vec<u32>,
    /// Connections whose input waits.
    waiting: Vec<u32>,
    verify: VecDeque<ConnKey>,
    /// Joins, leaves, pulls and looks at histories of this turn, answered on sealed streams.
    deferred: Vec<Request>,
    batch: SendBatch,
    outputs: Vec<Output>,
    /// Whether a queue reached half its bound, so that the flush must not wait for the turn's end.
    flush_soon: bool,
    draining: bool,
    /// Leases that had run out at the last look.
    lapses: u64,
    /// The last turn left work for the next.
    busy: bool,
    /// Requests were left over by the budget.
    busy_next: bool,
    random: random::Random,
    /// Connections whose resume has answers parked; a stream that appears meanwhile is added to them.
    resuming: Vec<ConnKey>,
    /// How long that list may get before those that have resumed are taken out.
    resuming_bound: usize,
    json: Json,
    fields: Fields,
    /// What is left for input that one wait brought behind a pause.
    stash_reserve: usize,
}

/// Whether the shard goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Turn {
    /// Call again.
    Next,
    /// Drained: nothing is left.
    Ended,
}

impl<D: Driver> Shard<D> {
    /// A shard without connections.
    #[must_use]
    pub fn new(mut driver: D, config: ShardConfig) -> Self {
        let now = driver.now();
        #[cfg_attr(not(feature = "mutants"), expect(unused_mut, reason = "only mutants change it"))]
        let mut homes = Homes::new(config.homes, now);
        #[cfg(feature = "mutants")]
        homes.break_with(config.settings.queue.mutant);
        Self {
            homes,
            members: Members::new(config.seed),
            newcomers: {
                let settings = &config.settings;
                Newcomers::new(settings.newcomers_max, settings.trusted_proxies.clone(), config.seed)
            },
            visits: Visits::new(limits::ROOMS_CALLERS, config.seed),
            slots: Slots::default(),
            pool: Pool::new(config.seed),
            timers: Wheel::new(now, TIMER_GRANULARITY),
            wall: driver.wall(),
            port: config.port,
            settings: config.settings,
            stats: config.stats,
            node: config.node,
            ledger: Ledger::default(),
            now,
            completions: Vec::new(),
            fired: Vec::new(),
            dirty: Vec::new(),
            waiting: Vec::new(),
            verify: VecDeque::new(),
            deferred: Vec::new(),
            batch: SendBatch::default(),
            outputs: Vec::new(),
            flush_soon: false,
            draining: false,
            lapses: 0,
            busy: false,
            busy_next: false,
            random: random::Random::new(|| driver.random()),
            resuming: Vec::new(),
            resuming_bound: 0,
            json: Json::default(),
            fields: Fields::default(),
            stash_reserve: limits::STASH_RESERVE_BYTES,
            driver,
        }
    }

    /// Puts what a log and a store kept into the homes. Call it before the first turn: nobody is served yet, so nobody is told.
    pub fn rebuild(&mut self, kept: impl Iterator<Item = Kept>) {
        for kept in kept {
            let event = match kept {
                Kept::Event(event) => event,
                Kept::Reserved(scope) => {
                    self.reserve(&scope);
                    continue;
                }
                Kept::Open(scope) => {
                    self.open(&scope);
                    continue;
                }
            };
            if let Err(code) = self.homes.event(self.now, &event, &FramesEncoder) {
                tracing::error!(code = code.name(), topic = &*event.topic, place = event.place, "event refused");
            }
            while self.homes.output().is_some() {}
        }
        self.homes.seal(self.now);
        while self.homes.output().is_some() {}
        self.show_homes();
    }

    /// Turns until the node is drained.
    pub fn run(&mut self) {
        while self.turn() == Turn::Next {}
    }

    /// Waits for something to do, at most until the next timer, and does it.
    pub fn turn(&mut self) -> Turn {
        if !self.wait() {
            return Turn::Next;
        }
        let started = self.driver.now();
        (self.now, self.wall) = (started, self.driver.wall());
        self.settings.refresh();
        self.mind_lease();
        self.port.flush_outboxes();
        self.drain_deliver();
        self.resume_waiting();
        self.dispatch_completions();
        self.drain_requests();
        self.verify_tokens();
        self.fire_timers();
        self.settle_streams();
        self.drain_deliver();
        self.flush_dirty();
        if self.node.draining.load(Ordering::Acquire) {
            self.drain();
        }
        self.finish_turn(started);
        if self.draining && (self.slots.is_empty() || self.node.abandon.load(Ordering::Acquire)) {
            return Turn::Ended;
        }
        Turn::Next
    }

    /// The simulation's door to the driver.
    pub fn driver_mut(&mut self) -> &mut D {
        &mut self.driver
    }

    /// `false` if the driver sleeps on, which ends the turn.
    fn wait(&mut self) -> bool {
        let Self { driver, port, completions, .. } = self;
        let wait = if self.busy || port.has_input() {
            Wait::Poll
        } else {
            Wait::Until(self.timers.next_deadline().min(self.homes.next_deadline()))
        };
        let mut work_arrived = || {
            port.announce_sleep();
            port.has_input()
        };
        driver.wait(wait, &mut work_arrived, completions);
        if driver.sleeps_on() {
            return false;
        }
        port.awake();
        true
    }

    fn verify_tokens(&mut self) {
        while self.port.can_request(self.settings.presence)
            && let Some(key) = self.verify.pop_front()
        {
            self.with(key, |connection, cx| connection.verify(cx));
            if self.driver.now().since(self.now) > limits::VERIFY_BUDGET {
                break;
            }
        }
    }

    fn fire_timers(&mut self) {
        let mut fired = std::mem::take(&mut self.fired);
        self.timers.advance(self.now, &mut fired);
        for key in fired.drain(..) {
            self.with(key, |connection, cx| {
                // An entry that an earlier one overtook says nothing.
                if connection.timer <= cx.now {
                    connection.timer = Monotonic::NEVER;
                    connection.timer(cx);
                }
            });
        }
        self.fired = fired;
    }

    /// Whether a connection whose input waits could go on now.
    fn can_go_on(&self, slot: u32) -> bool {
        let may_request = |node| self.port.can_request(node) && self.port.deliver_clear();
        let connection = self.slots.connection(self.slots.key(slot));
        connection.is_some_and(|connection| connection.can_go_on(&self.settings, &may_request))
    }

    /// Closes whoever has a session if the lease has run out since the last look, before another byte is read; sessions
    /// that presence gives meanwhile belong to the next lease.
    fn mind_lease(&mut self) {
        let lapses = self.node.lease.lapses(self.now);
        if lapses == self.lapses {
            return;
        }
        self.lapses = lapses;
        for key in self.slots.keys() {
            self.with(key, |connection, cx| {
                if connection.has_session() {
                    connection.close(cx, CloseReason::TryAgainLater);
                }
            });
        }
    }

    /// Stops accepting and tells everybody; each turn of a drain flushed before.
    fn drain(&mut self) {
        if std::mem::replace(&mut self.draining, true) {
            return;
        }
        self.driver.stop_accepting();
        let spread = u64::try_from(self.node.reconnect_spread.as_millis()).unwrap_or(u64::MAX).max(1);
        for key in self.slots.keys() {
            self.with(key, |connection, cx| {
                let delay_ms = (cx.random)() % spread;
                connection.close_with(cx, CloseReason::Restart, 1012, &format!("reconnect in {delay_ms} ms"));
            });
        }
        self.flush_dirty();
    }

    fn finish_turn(&mut self, started: Monotonic) {
        for peer in self.port.wake_list() {
            if !mutant!(self.settings, LostDoorbell) {
                self.driver.wake(peer);
            }
        }
        self.show_homes();
        self.busy = std::mem::take(&mut self.busy_next)
            || self.waiting.iter().any(|slot| self.can_go_on(*slot))
            || !self.dirty.is_empty()
            || !self.verify.is_empty() && self.port.can_request(self.settings.presence)
            || self.homes.has_pending()
            || !self.deferred.is_empty();
        let took = self.driver.now().since(started).as_nanos() as u64;
        let stats = &self.stats;
        stats.publish(&self.ledger);
        stats.tick_ns.record(took);
        stats.tick_max_ns.set(stats.tick_max_ns.read().max(took));
        stats.ticks_total.add(1);
        stats.mesh_depth.record(self.port.depth().0 as u64 + self.port.depth().1 as u64);
        stats.connections.set(self.slots.len() as u64);
        stats.sessions.set(self.members.sizes().0 as u64);
        stats.paused_connections.set(self.waiting.len() as u64);
    }

    fn show_homes(&self) {
        let (history_bytes, streams) = self.homes.sizes();
        self.stats.history_bytes.set(history_bytes as u64);
        self.stats.streams.set(streams as u64);
    }

    /// Checks what must hold between turns: conservation (D5), seats; for tests, simulations and debug builds.
    ///
    /// # Panics
    /// If an invariant is broken.
    pub fn check(&self) {
        self.members.check();
        let bound = RESUMING_MIN + 2 * self.slots.peak();
        assert!(self.resuming.len() <= bound, "{} connections are noted as resuming", self.resuming.len());
        let newcomers = self.slots.connections().filter(|connection| connection.is_newcomer()).count();
        assert_eq!(self.newcomers.len(), newcomers, "who has authenticated or ended is counted as a newcomer");
        for class in crate::class::Class::ALL {
            let waiting: u64 = self.slots.connections().map(|connection| connection.queue.pending(class)).sum();
            let account = &self.ledger.accounts[class.index()];
            assert_eq!(account.pending(), waiting, "D5: {class:?} {account:?}");
        }
        let reserved: usize = self.slots.connections().map(|connection| connection.reserved(&self.settings)).sum();
        assert_eq!(reserved + self.stash_reserve, limits::STASH_RESERVE_BYTES, "D4: the stashes' reserve");
        let limits = &self.settings.queue;
        for connection in self.slots.connections() {
            let queue = &connection.queue;
            queue.invariants();
            if queue.is_blocked() && !queue.is_closed() {
                let (frames, bytes) = (queue.pending(crate::class::Class::Reliable), queue.pending_bytes());
                assert!(frames <= limits.frames as u64 + 1, "D4: {frames} reliable frames wait for a slow connection");
                let answers = limits.answer_bytes + 2 * self.settings.max_frame;
                assert!(bytes <= limits.bytes + answers, "D4: {bytes} bytes wait for a slow connection");
                let deadline = queue.age_deadline(limits) + AGE_SLACK;
                assert!(deadline > self.now, "D4: a reliable frame waits longer than its bound");
            }
        }
    }

    /// A connection's write queue, for tests and simulations.
    #[must_use]
    pub fn queue(&self, key: ConnKey) -> Option<&crate::delivery::WriteQueue> {
        self.slots.connection(key).map(|connection| &connection.queue)
    }

    /// The conservation accounts, for tests and simulations.
    #[must_use]
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// What a connection is doing, for messages of tests and simulations.
    #[must_use]
    pub fn describe(&self, key: ConnKey) -> String {
        let connection = self.slots.connection(key).map(crate::session::Connection::describe);
        format!("{connection:?}, seats {:?}, depth {:?}", self.members.seats(key.slot), self.port.depth())
    }

    /// Bytes that the stashes have of the shard's reserve, for tests and simulations.
    #[must_use]
    pub fn stash_reserved(&self) -> usize {
        limits::STASH_RESERVE_BYTES - self.stash_reserve
    }

    /// Deliveries and requests that wait behind full rings.
    #[must_use]
    pub fn waiting(&self) -> (usize, usize) {
        self.port.depth()
    }

    /// Connections, sessions, scopes and streams the shard holds, for leak tests.
    #[must_use]
    pub fn sizes(&self) -> (usize, (usize, usize, usize)) {
        (self.slots.len(), self.members.sizes())
    }
}

/// Whether the named broken policy runs; never without the feature `mutants`.
macro_rules! mutant {
    ($settings:expr, $name:ident) => {{
        #[cfg(feature = "mutants")]
        let broken = $settings.queue.mutant == $crate::mutant::Mutant::$name;
        #[cfg(not(feature = "mutants"))]
        let broken = false;
        broken
    }};
}
use mutant;

/// How long the list of resuming connections may always get.
const RESUMING_MIN: usize = 16;
/// How exactly time-outs of connections are kept.
const TIMER_GRANULARITY: Duration = Duration::from_millis(10);
/// How late the check of a queue's age may come: the timers' granularity and a turn.
const AGE_SLACK: Duration = Duration::from_secs(1);
