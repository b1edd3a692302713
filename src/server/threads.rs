//! The threads of a node: shards, peers, worker, and who waits for signals.

use std::any::Any;
use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle, Thread};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};

use super::Chosen;
use super::bus::NodeBus;
use super::neighbours;
use super::presence::{NodePresence, gateway_settings};
use super::reload::Reloader;
use super::told::{Told, Word};
use crate::admin::{AdminState, ApiPeer};
use crate::bus::{BusPeer, EVENT_TOPICS, Nodes, Publishers, Rebuilt, rebuild};
use crate::config::Config;
use crate::id::{NodeId, Scope};
use crate::limits;
use crate::message::{Effect, Event, GatewayLife, Kept, Kick};
use crate::ports::{Bus, Lease, Presence, Store as _, StoreError};
use crate::presence::{self, Announcer, EmbeddedPresence, Listener, PresencePeer, Standing};
use crate::protocol::relay;
use crate::protocol::routes::Routes;
use crate::router::{Latest, Port, ThreadWaker, Wake, peer};
use crate::services::{hub, rooms};
use crate::shard::driver::Driver;
use crate::shard::driver::monoio::{MonoioConfig, MonoioDriver};
use crate::shard::driver::syscall;
use crate::shard::driver::uring::{UringConfig, UringDriver};
use crate::shard::{NodeState, Shard, ShardConfig};
use crate::stats::BusStats;
use crate::store::{SqliteStore, StoreSettings};
use crate::time::{Monotonic, WallMillis};
use crate::workers::{self, COMMAND_TOPICS, PasswordPool, Restarted, ServiceWorker, WorkerSettings};

/// The shard threads.
pub struct Shards {
    threads: Vec<JoinHandle<()>>,
    wakers: Vec<Arc<dyn Wake>>,
    ended: Receiver<Result<(), String>>,
    rebuilt: Receiver<()>,
}

/// What a shard thread tells while it starts.
type Started = Result<(usize, Arc<dyn Wake>), String>;

impl Shards {
    /// Starts a thread per shard and waits until all have their driver.
    ///
    /// # Errors
    /// The driver's refusal.
    pub fn start(
        driver: &Chosen,
        configs: Vec<ShardConfig>,
        listeners: Vec<OwnedFd>,
        pin: bool,
        peers: &Peers,
        events: Vec<Receiver<Kept>>,
    ) -> Result<Self, String> {
        let count = configs.len();
        let (rebuilding, rebuilt) = bounded(count);
        let (started, starting) = bounded::<Started>(count);
        let (ending, ended) = bounded(count);
        let all_wakers: Arc<OnceLock<Vec<Arc<dyn Wake>>>> = Arc::default();
        let (go, gate) = bounded::<()>(count);
        let parts = configs.into_iter().zip(listeners).zip(events);
        let threads = parts.enumerate().map(|(index, ((config, listener), events))| {
            let life = Life {
                index,
                pin,
                started: started.clone(),
                gate: gate.clone(),
                wakers: Arc::clone(&all_wakers),
                events,
                rebuilding: rebuilding.clone(),
            };
            let (ending, uring) = (ending.clone(), matches!(driver, Chosen::Uring));
            let body = move || {
                let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                    if uring { life.run_uring(config, listener) } else { life.run_monoio(config, listener) }
                }));
                let outcome = outcome.map_err(|panic| format!("shard {index} ended: {}", panic_text(&*panic)));
                // Nobody listens once the node has ended.
                let _ = ending.send(outcome);
            };
            thread::Builder::new()
                .name(format!("shard-{index}"))
                .spawn(body)
                .map_err(|error| format!("shard {index}: {error}"))
        });
        let threads: Vec<_> = threads.collect::<Result<_, _>>()?;
        let mut wakers: Vec<Option<Arc<dyn Wake>>> = vec![None; count];
        for _ in 0..count {
            let (index, waker) = starting.recv().map_err(|_| "a shard ended while it started".to_owned())??;
            wakers[index] = Some(waker);
        }
        let mut wakers: Vec<_> = wakers.into_iter().flatten().collect();
        wakers.extend(peers.wakers());
        // Set once, before the gate opens.
        let _ = all_wakers.set(wakers.clone());
        for _ in 0..count {
            let _ = go.send(());
        }
        Ok(Self { threads, wakers, ended, rebuilt })
    }

    /// Waits until all homes have what the bus kept of their streams.
    pub fn await_histories(&self) {
        // One that ended instead is reported by `join`.
        (0..self.threads.len()).take_while(|_| self.rebuilt.recv().is_ok()).for_each(drop);
    }

    /// The doorbells of all nodes.
    pub fn wakers(&self) -> Vec<Arc<dyn Wake>> {
        self.wakers.clone()
    }

    /// Waits until all shards have drained.
    ///
    /// # Errors
    /// If one of them panicked; the others are then told to end.
    pub fn join(self, node: &NodeState) -> Result<(), String> {
        let mut outcome = Ok(());
        for _ in 0..self.threads.len() {
            let ended = self.ended.recv().unwrap_or_else(|_| Err("a shard vanished".into()));
            if ended.is_err() && outcome.is_ok() {
                outcome = ended;
                node.abandon.store(true, Ordering::Release);
                node.draining.store(true, Ordering::Release);
                self.wakers.iter().for_each(|waker| waker.wake());
            }
        }
        for thread in self.threads {
            // Its panic was reported above.
            let _ = thread.join();
        }
        outcome
    }
}

/// What a shard thread needs besides its shard.
struct Life {
    index: usize,
    pin: bool,
    started: Sender<Started>,
    gate: Receiver<()>,
    wakers: Arc<OnceLock<Vec<Arc<dyn Wake>>>>,
    /// What the bus kept for this shard's homes.
    events: Receiver<Kept>,
    /// Told once the homes have it.
    rebuilding: Sender<()>,
}

impl Life {
    fn run_uring(self, config: ShardConfig, listener: OwnedFd) {
        self.pin();
        match UringDriver::new(UringConfig { listener: Some(listener) }) {
            Ok(mut driver) => {
                if let Some(wakers) = self.meet(driver.waker()) {
                    driver.set_wakers(wakers);
                    self.turn(driver, config);
                }
            }
            Err(error) => self.refuse(&error),
        }
    }

    fn run_monoio(self, config: ShardConfig, listener: OwnedFd) {
        self.pin();
        match MonoioDriver::new(MonoioConfig { listener: Some(listener) }) {
            Ok(mut driver) => {
                if let Some(wakers) = self.meet(driver.waker()) {
                    driver.set_wakers(wakers);
                    self.turn(driver, config);
                }
            }
            Err(error) => self.refuse(&error),
        }
    }

    fn pin(&self) {
        if self.pin
            && let Err(error) = syscall::pin_thread(self.index)
        {
            tracing::warn!(shard = self.index, %error, "not pinned to its core");
        }
    }

    /// Tells this shard's doorbell and waits for everybody's.
    fn meet(&self, waker: Arc<dyn Wake>) -> Option<Vec<Arc<dyn Wake>>> {
        self.started.send(Ok((self.index, waker))).ok()?;
        self.gate.recv().ok()?;
        self.wakers.get().cloned()
    }

    /// Histories first: whoever asks a home, from whatever shard, waits in its mailbox until they are there.
    fn turn<D: Driver>(self, driver: D, config: ShardConfig) {
        let Self { events, rebuilding, .. } = self;
        let mut shard = Shard::new(driver, config);
        shard.rebuild(events.iter());
        // The main thread may have given up meanwhile.
        let _ = rebuilding.send(());
        drop((events, rebuilding));
        shard.run();
    }

    fn refuse(&self, error: &std::io::Error) {
        // The main thread reports the first refusal.
        let _ = self.started.send(Err(format!("shard {}: {error}", self.index)));
    }
}

/// The threads that are no shards: presence, bus, the server API's node, services.
pub struct Peers {
    threads: Vec<JoinHandle<()>>,
    stop: Arc<AtomicBool>,
    wakes: Vec<Sender<Vec<Arc<dyn Wake>>>>,
}

/// The peers' ends of the mesh, by node.
pub struct PeerPorts {
    /// Behind the shards.
    pub presence: Port,
    /// Behind presence.
    pub bus: Port,
    /// Behind the bus.
    pub api: ApiPeer,
}

/// Nodes of the mesh that are no shards.
pub const PEERS: usize = 3;
/// Which of them the server API is.
const API: usize = 2;

impl Peers {
    /// Starts them; they wait for [`Peers::connect`] before they touch the mesh. `events` are the ways to the shards'
    /// homes, by which histories are rebuilt.
    ///
    /// # Errors
    /// One line: why the store cannot be used.
    pub fn start(
        config: &Config,
        shards: u16,
        ports: PeerPorts,
        log: NodeBus,
        events: Vec<Sender<Kept>>,
        rules: Latest<Arc<Routes>>,
        names: Names,
    ) -> Result<Self, String> {
        let PeerPorts { presence, bus, mut api } = ports;
        let Names { gateway_id, nonce, secret, incarnation, seed, lease, stats, rooms_epoch } = names;
        let stop = Arc::new(AtomicBool::new(false));
        let (presence_wakes, presence_gate) = bounded::<Vec<Arc<dyn Wake>>>(1);
        let (bus_wakes, bus_gate) = bounded::<Vec<Arc<dyn Wake>>>(1);
        let window = config.delivery.resume_window;
        let mut store = open_store(config)?;
        let reserved = reserved_rooms(&mut store).map_err(|error| error.to_string())?;
        let (since, history) = kept_since(config);
        let standing =
            Standing { gateway_id: gateway_id.clone(), nonce, shares: config.redis.host.is_some(), alive: true };
        if log.is_shared() {
            neighbours::meet(&log, &standing)?;
        }
        let gateway_life = GatewayLife { nonce, incarnation };
        let settings = gateway_settings(config, &gateway_id, gateway_life, seed);
        let sessions = match NodePresence::in_redis(config, settings, lease, log.durability())? {
            Some(shared) => shared,
            None => {
                let log = log.epoch(PRESENCE_LOG);
                NodePresence::Embedded(Box::new(open_presence(config, seed, gateway_life, log)?))
            }
        };
        let at = syscall::wall();
        let alive = sessions.former_alive().unwrap_or(at).min(at);
        let (kicked, kicks) = bounded(1);
        let life = PresenceLife { port: presence, sessions, log: log.share(), gateway_id, seed, since, kicks };
        let presence_thread = spawn("presence", &stop, move |stop| life.run(&presence_gate, stop));
        let (shared, span) = (log.is_shared(), (since, history));
        let life = BusLife {
            port: bus,
            log: log.share(),
            shards,
            ways: events,
            reserved,
            span,
            window,
            nonce,
            rooms_epoch,
            kicked,
            stats,
        };
        let bus_thread = spawn("bus", &stop, move |stop| life.run(rules, &bus_gate, stop));
        let (api_wakes, api_gate) = bounded::<Vec<Arc<dyn Wake>>>(1);
        let api_thread = spawn("api", &stop, move |stop| {
            if let Ok(wakes) = api_gate.recv() {
                peer::run(&mut api, &wakes, clock, stop);
            }
        });
        let heralds = log.share();
        let settings = WorkerSettings { resume_window: window, seed, secret, restarted: Some(Restarted { at, alive }) };
        let services = move |stop: &AtomicBool| run_services(log, store, &settings, stop);
        let mut threads = vec![presence_thread, bus_thread, api_thread];
        // On a shared bus they are `ringgate worker`'s, or the users' backends'.
        threads.push(match shared {
            false => spawn("services", &stop, services),
            true => spawn("herald", &stop, move |stop| neighbours::herald(&heralds, standing, stop)),
        });
        Ok(Self { threads, stop, wakes: vec![presence_wakes, bus_wakes, api_wakes] })
    }

    /// The thread of the server API's node.
    pub fn api_thread(&self) -> Thread {
        self.threads[API].thread().clone()
    }

    /// The doorbells of the mesh's peers, by node.
    fn wakers(&self) -> impl Iterator<Item = Arc<dyn Wake>> {
        let mesh_nodes = self.threads.iter().take(PEERS);
        mesh_nodes.map(|thread| Arc::new(ThreadWaker::new(thread.thread().clone())) as Arc<dyn Wake>)
    }

    /// Gives the peers everybody's doorbells.
    pub fn connect(&self, wakers: Vec<Arc<dyn Wake>>) {
        for wakes in &self.wakes {
            // A peer that panicked is found when it is joined.
            let _ = wakes.send(wakers.clone());
        }
    }

    /// Ends them; the shards must have ended.
    pub fn stop(self) {
        self.stop.store(true, Ordering::Release);
        drop(self.wakes);
        for thread in self.threads {
            thread.thread().unpark();
            if let Err(panic) = thread.join() {
                tracing::error!("a peer ended: {}", panic_text(&*panic));
            }
        }
    }
}

/// The services' thread: ends with `stop`, or the process with it where they cannot start.
fn run_services(log: NodeBus, store: SqliteStore, settings: &WorkerSettings, stop: &AtomicBool) {
    let wake: Arc<dyn Wake> = Arc::new(ThreadWaker::new(thread::current()));
    let reader = log.reader(&COMMAND_TOPICS, Arc::clone(&wake));
    drop(log);
    match services(reader, store, &wake, settings) {
        Ok(mut worker) => workers::run(&mut worker, clock, stop),
        Err(error) => {
            tracing::error!("the services cannot start: {error}");
            std::process::exit(1);
        }
    }
}

/// What the presence thread needs.
struct PresenceLife {
    port: Port,
    sessions: NodePresence,
    log: NodeBus,
    gateway_id: String,
    seed: u64,
    /// Where history begins.
    since: WallMillis,
    /// The kicks of late that the log has: told once the histories are rebuilt.
    kicks: Receiver<Vec<Kick>>,
}

impl PresenceLife {
    fn run(self, gate: &Receiver<Vec<Arc<dyn Wake>>>, stop: &AtomicBool) {
        let Self { port, sessions, log, gateway_id, seed, since, kicks } = self;
        // Handles of its own, so that it is woken when the bus has taken or refused what it says.
        let wake: Arc<dyn Wake> = Arc::new(ThreadWaker::new(thread::current()));
        let says = log.reader(&[], Arc::clone(&wake));
        let listener = Listener::new(log.reader(&[Listener::TOPIC], Arc::clone(&wake)), since);
        drop(log);
        let announcer = Announcer::new(says, gateway_id, seed);
        let mut peer = PresencePeer::new(port, sessions.start(wake)).announcing(announcer).listening(listener);
        if let Ok(kicks) = kicks.recv() {
            peer.presence_mut().carry_out(syscall::monotonic(), kicks);
        }
        if let Ok(wakes) = gate.recv() {
            peer::run(&mut peer, &wakes, clock, stop);
            finish(&mut peer);
        }
    }
}

/// What the bus's thread needs.
struct BusLife {
    port: Port,
    log: NodeBus,
    shards: u16,
    /// To the shards' homes.
    ways: Vec<Sender<Kept>>,
    /// Rooms that are not theirs to open.
    reserved: BTreeSet<Scope>,
    /// Where history begins, and how long it is.
    span: (WallMillis, Duration),
    /// How long a session may come back.
    window: Duration,
    nonce: u64,
    /// The epoch of the rooms' events as they are read.
    rooms_epoch: Arc<AtomicU64>,
    /// Who waits for the kicks of late.
    kicked: Sender<Vec<Kick>>,
    stats: Arc<BusStats>,
}

impl BusLife {
    fn run(self, rules: Latest<Arc<Routes>>, gate: &Receiver<Vec<Arc<dyn Wake>>>, stop: &AtomicBool) {
        let Self { port, log, shards, ways, reserved, span, window, nonce, rooms_epoch, kicked, stats } = self;
        let shared = log.is_shared();
        let topics: Vec<&str> = EVENT_TOPICS.into_iter().chain(shared.then_some(relay::TOPIC)).collect();
        let mut reader = log.commands(&topics, Arc::new(ThreadWaker::new(thread::current())));
        drop(log);
        let mut publishers = Publishers::new(window);
        let homes = Homes { ways, reserved, publishers: &mut publishers };
        let mut rebuilt = rebuild_homes(&mut reader, shared, &rules, &topics, homes, span);
        // Presence ends with the process, if at all.
        let _ = kicked.send(std::mem::take(&mut rebuilt.kicks));
        let nodes = Nodes { shards, presence: NodeId(shards) };
        let peer = BusPeer::new(port, reader, rules, nodes, &topics).after(rebuilt).naming(nonce);
        let mut peer = peer.showing(stats).numbering(rooms_epoch);
        if shared {
            peer = peer.relaying(publishers);
        }
        if let Ok(wakes) = gate.recv() {
            peer::run(&mut peer, &wakes, clock, stop);
        }
    }
}

/// What a node is called by itself and others, and the entropy of its peers.
pub struct Names {
    /// Names this life of the gateway.
    pub incarnation: u64,
    /// Of all hashes.
    pub seed: u64,
    /// Of the dice, where the store has none.
    pub secret: [u8; 16],
    /// Names connections.
    pub nonce: u64,
    /// Names the gateway.
    pub gateway_id: String,
    /// How long its sessions are its own.
    pub lease: Arc<Lease>,
    /// Where the bus's peer counts.
    pub stats: Arc<BusStats>,
    /// Where the bus keeps the numbering of `rooms.events`.
    pub rooms_epoch: Arc<AtomicU64>,
}

type Services = ServiceWorker<Box<dyn Bus>, SqliteStore, PasswordPool>;

/// Where history begins, and how long it is.
fn kept_since(config: &Config) -> (WallMillis, Duration) {
    let history = super::history_time(config);
    let since = syscall::wall().0.saturating_sub(u64::try_from(history.as_millis()).unwrap_or(u64::MAX));
    (WallMillis(since), history)
}

/// The store: a file below `data_dir`, or memory.
fn open_store(config: &Config) -> Result<SqliteStore, String> {
    open_file(config, STORE).map_err(|error| error.to_string())
}

fn open_file(config: &Config, name: &str) -> Result<SqliteStore, StoreError> {
    let file = config.server.data_dir.as_ref().map(|folder| Path::new(folder).join(name));
    let messages_max = if file.is_some() { limits::MESSAGES_ON_DISK } else { limits::MESSAGES_IN_MEMORY };
    SqliteStore::open(&StoreSettings { file, messages_max })
}

/// What homes are given of a former life.
struct Homes<'a> {
    ways: Vec<Sender<Kept>>,
    /// Rooms that are not theirs to open.
    reserved: BTreeSet<Scope>,
    /// Nobody yet.
    publishers: &'a mut Publishers,
}

/// Gives the homes what the bus kept of their streams since then, which rooms are not theirs to open: those of the store,
/// and those that an event let sessions into; and which are open, for a publisher is there on some gateway.
fn rebuild_homes(
    reader: &mut impl Bus,
    shared: bool,
    rules: &Arc<Routes>,
    topics: &[&str],
    homes: Homes<'_>,
    (since, history): (WallMillis, Duration),
) -> Rebuilt {
    let Homes { ways, mut reserved, publishers } = homes;
    let way = |scope: &Scope| &ways[scope.home(ways.len() as u16).index()];
    let give = |event: Event| {
        if let Some(Effect::Join(room)) = &event.effect {
            reserved.insert(Scope::Room(Arc::clone(room)));
        }
        way(&event.scope).send(Kept::Event(Box::new(event))).is_ok()
    };
    // What others share comes when it comes, and wakes this thread.
    let wait = || {
        if shared {
            peer::park(Monotonic::ZERO, Monotonic::ZERO + limits::KAFKA_WATCH_AGAIN);
        }
        shared
    };
    let mut rebuilt = rebuild(reader, rules, topics, since, history, wait, give);
    for scope in reserved {
        // A shard that ended is reported by whoever joins it.
        let _ = way(&scope).send(Kept::Reserved(scope.clone()));
    }
    let wall = syscall::wall();
    for (accepted, publishing) in rebuilt.notices.drain(..) {
        publishers.note(wall, accepted, publishing);
    }
    for room in publishers.open_rooms(wall) {
        let scope = Scope::Room(Arc::clone(room));
        let _ = way(&scope).send(Kept::Open(scope.clone()));
    }
    tracing::debug!(events = rebuilt.events, "histories are rebuilt");
    rebuilt
}

/// The rooms that only services and room tokens let in, by the store's records.
fn reserved_rooms(store: &mut SqliteStore) -> Result<BTreeSet<Scope>, StoreError> {
    let mut rooms = BTreeSet::new();
    for service in ROOM_RECORDS {
        rooms.extend(store.load(service)?.into_iter().map(|(room, _)| Scope::Room(room.into())));
    }
    Ok(rooms)
}

/// Whose records are named by rooms' ids.
const ROOM_RECORDS: [&str; 3] = [rooms::ROOMS, hub::SERVICE, presence::HUB_RECORDS];

/// Presence in memory; with `data_dir` it keeps its hubs in the store, and its sessions in a file of their own: of two
/// who write to one file, one waits.
fn open_presence(config: &Config, seed: u64, life: GatewayLife, log: u64) -> Result<EmbeddedPresence, String> {
    let window = config.delivery.resume_window;
    let presence = EmbeddedPresence::new(window, limits::DETACHED_SESSIONS, seed).announcing(life);
    let Some(folder) = &config.server.data_dir else { return Ok(presence) };
    let now = clock();
    let kept = presence.keeping_hubs_in(now.0, Box::new(open_store(config)?)).and_then(|presence| {
        let sessions = open_file(config, SESSIONS)?;
        presence.keeping_sessions_in(now, log, Box::new(sessions))
    });
    let presence = kept.map_err(|error| format!("data_dir {folder}: {error}"))?;
    tracing::info!(sessions = presence.sessions(), "sessions are kept in {folder}");
    Ok(presence)
}

/// The shards have ended: what they said last is kept, so that nobody must find out.
fn finish<P: Presence>(peer: &mut PresencePeer<P>) {
    let until = Instant::now() + FINISH;
    loop {
        let (now, wall) = clock();
        if peer.finish(now, wall) || Instant::now() >= until {
            return;
        }
        thread::park_timeout(Duration::from_millis(1));
    }
}

/// The services of this node, on the calling thread.
fn services(
    bus: Box<dyn Bus>,
    store: SqliteStore,
    wake: &Arc<dyn Wake>,
    settings: &WorkerSettings,
) -> Result<Services, String> {
    let passwords = PasswordPool::start(1, wake).map_err(|error| format!("password thread: {error}"))?;
    ServiceWorker::open(bus, store, passwords, settings)
}

/// Starts a thread without which the process ends.
pub fn spawn(name: &str, stop: &Arc<AtomicBool>, body: impl FnOnce(&AtomicBool) + Send + 'static) -> JoinHandle<()> {
    let stop = Arc::clone(stop);
    let label = name.to_owned();
    let guarded = move || {
        if let Err(panic) = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| body(&stop))) {
            // Without this peer the node would answer nobody: end, so that it is started anew.
            tracing::error!("{label} ended: {}", panic_text(&*panic));
            std::process::exit(1);
        }
    };
    let spawned = thread::Builder::new().name(name.to_owned()).spawn(guarded);
    spawned.expect("a process that cannot start its fourth thread cannot serve")
}

/// SIGHUP reloads; SIGTERM or SIGINT drains the node, the drain time-out ends what is left, a second signal ends the
/// process at once.
pub fn obey_signals(
    told: Told,
    mut reloader: Reloader,
    node: Arc<NodeState>,
    wakers: Vec<Arc<dyn Wake>>,
    drain: Duration,
    state: Arc<AdminState>,
) {
    told.begin();
    let wait = move || {
        loop {
            let is_new = match told.wait() {
                Word::Terminate => break,
                Word::Reload => reloader.reload(),
                Word::Keys(reading, set) => {
                    reloader.use_keys(reading, &set);
                    true
                }
            };
            if is_new {
                wakers.iter().for_each(|waker| waker.wake());
            }
        }
        if !state.ready.load(Ordering::Acquire) {
            // Histories may be waiting for Kafka, and nobody has been served.
            std::process::exit(0);
        }
        state.draining.store(true, Ordering::Release);
        node.draining.store(true, Ordering::Release);
        wakers.iter().for_each(|waker| waker.wake());
        let limit = move || {
            let until = Instant::now() + drain;
            while let Some(left) = until.checked_duration_since(Instant::now()) {
                thread::park_timeout(left);
            }
            node.abandon.store(true, Ordering::Release);
            wakers.iter().for_each(|waker| waker.wake());
        };
        if thread::Builder::new().name("drain".into()).spawn(limit).is_err() {
            std::process::exit(0);
        }
        told.wait_for_end();
        std::process::exit(0);
    };
    if let Err(error) = thread::Builder::new().name("obedience".into()).spawn(wait) {
        tracing::error!(%error, "signals will end the process without a drain");
    }
}

/// How long the end of a node waits for Redis.
const FINISH: Duration = Duration::from_secs(2);
/// Records of services and presence, and the history tables of PROTOCOLS B.
const STORE: &str = "store.sqlite";
/// All topics of a log have one numbering.
const PRESENCE_LOG: &str = "games.events";
/// Session records.
const SESSIONS: &str = "sessions.sqlite";

/// The clocks of this machine.
pub fn clock() -> (Monotonic, WallMillis) {
    (syscall::monotonic(), syscall::wall())
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic").to_owned()
}
