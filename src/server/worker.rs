//! `ringgate worker`: the reference services over Kafka, in a process without clients.
//!
//! Of all workers of a cluster one is active; the others stand by, each ready to go on from its records. Who is active is
//! a lease of Kafka's ([`WorkerLease`]); that nobody else writes is the law of the records' store ([`StateStore`]). A
//! worker that was frozen and believes that it is active still makes no difference: its next batch is refused, and what it
//! gave to the event topics before are the events of the batch that the active one does again: the same, in the same
//! order, under the same ids, so that gateways drop whichever copies come second. (Copies are known for the history time:
//! a worker that sleeps for longer than that, with events that had not left its machine, would repeat those.) With Redis
//! every worker also has a lease among the gateways, so that those that are gone are reaped when none is left.
//!
//! Order at the end: services first, so that they have said what they had; then the lease, so that another takes over at
//! once.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, bounded};

use super::presence::{NodePresence, gateway_settings};
use super::threads::{clock, spawn};
use super::told::{Told, Word};
use super::{announce, kafka};
use crate::admin::{self, WorkerState};
use crate::bus::kafka::{KafkaBus, KafkaConfig, StateStore, WorkerLease, fit_for_records};
use crate::config::Config;
use crate::limits;
use crate::message::GatewayLife;
use crate::ports::{Bus as _, Durability, Lease, Store, StoreError, topic_and_partition};
use crate::presence::{Announcer, Reaping};
use crate::router::peer::park;
use crate::router::{ThreadWaker, Wake};
use crate::shard::driver::syscall::Entropy;
use crate::stats::WorkerStats;
use crate::store::{PostgresSettings, PostgresStore, SqliteStore, StoreSettings};
use crate::time::Monotonic;
use crate::workers::{COMMAND_TOPICS, PasswordPool, ServiceWorker, WorkerSettings};

/// Runs a worker until it is told to stop.
///
/// # Errors
/// One line that says what failed, with its remedy.
pub fn run(config: &Config) -> Result<(), String> {
    let told = Told::listen()?;
    announce::start_log(&config.log);
    let mut entropy = Entropy::default();
    let Some(kafka) = settings(config, &mut entropy) else {
        return Err("a worker serves gateways over Kafka: set KAFKA_HOST; without it `ringgate serve` runs the \
                    services itself"
            .to_owned());
    };
    let health = SocketAddr::new(config.server.health_host, config.server.health_port);
    let health = TcpListener::bind(health)
        .map_err(|error| format!("health port {health}: {error}; choose another with --health-port"))?;
    let bus = KafkaBus::open(&kafka)?;
    fit_for_records(&kafka)?;
    let history = History::of(config);
    history.check()?;
    let stats = Arc::new(WorkerStats::new(&COMMAND_TOPICS));
    let state = Arc::new(WorkerState::new(Arc::clone(&stats)));
    let reaping = Reaper::of(config, &kafka.gateway_id, &mut entropy)?;
    let admin = admin::spawn_worker(health, Arc::clone(&state)).map_err(|error| format!("admin side: {error}"))?;
    let stop = Arc::new(AtomicBool::new(false));
    let words = format!("Kafka at {}, cluster {}", kafka.brokers, bus.cluster_id());
    let mut threads = Vec::new();
    if let Some(reaper) = reaping {
        let log = bus.handle();
        threads.push(spawn("presence", &stop, move |stop| reaper.run(&log, stop)));
    }
    let places = Places::default();
    measure(&bus, &stats, &places)?;
    let services = Services::of(config, kafka, bus, (history, stats, places), &mut entropy);
    threads.push(spawn("services", &stop, move |stop| services.run(stop)));
    told.begin();
    announce::working(&words, admin.address());
    while !matches!(told.wait(), Word::Terminate) {
        tracing::info!("SIGHUP: a worker has nothing to reload; start it anew");
    }
    state.draining.store(true, Ordering::Release);
    stop.store(true, Ordering::Release);
    end_at_once_if_told_again(told);
    await_end(threads);
    admin.stop();
    Ok(())
}

/// The bus as this worker uses it, under a name of its own: several may run on one host.
fn settings(config: &Config, entropy: &mut Entropy) -> Option<KafkaConfig> {
    let kafka = kafka::settings(config)?;
    let number = entropy.next_u64() >> 32;
    Some(KafkaConfig { gateway_id: format!("worker-{}-{number:08x}", kafka.gateway_id), ..kafka })
}

/// The services' thread: stands by, and does the services' work in its terms.
struct Services {
    kafka: KafkaConfig,
    bus: KafkaBus,
    history: History,
    settings: WorkerSettings,
    stats: Arc<WorkerStats>,
    places: Places,
}

impl Services {
    fn of(
        config: &Config,
        kafka: KafkaConfig,
        bus: KafkaBus,
        (history, stats, places): (History, Arc<WorkerStats>, Places),
        entropy: &mut Entropy,
    ) -> Self {
        let mut secret = [0; 16];
        secret[..8].copy_from_slice(&entropy.next_u64().to_be_bytes());
        secret[8..].copy_from_slice(&entropy.next_u64().to_be_bytes());
        let (resume_window, seed) = (config.delivery.resume_window, entropy.next_u64());
        // The gateways live on; who is gone they say, or who reaps them.
        let settings = WorkerSettings { resume_window, seed, secret, restarted: None };
        Self { kafka, bus, history, settings, stats, places }
    }

    fn run(self, stop: &AtomicBool) {
        let wake: Arc<dyn Wake> = Arc::new(ThreadWaker::new(thread::current()));
        let lease = match WorkerLease::join(&self.kafka, Arc::clone(&wake)) {
            Ok(lease) => lease,
            Err(error) => {
                tracing::error!("{error}");
                std::process::exit(1);
            }
        };
        while !stop.load(Ordering::Acquire) {
            let Some(term) = lease.term() else {
                thread::park_timeout(STANDBY);
                continue;
            };
            let goes_on = || !stop.load(Ordering::Acquire) && lease.term() == Some(term);
            let outcome = self.serve(&wake, &goes_on);
            self.stats.active.set(0);
            self.places.clear();
            match outcome {
                Err(reason) if goes_on() => {
                    tracing::error!("{reason}; this worker stands by");
                    lease.give_up(term);
                }
                _ if stop.load(Ordering::Acquire) => {}
                _ => tracing::warn!("the lease is gone; this worker stands by"),
            }
        }
    }

    /// A term: takes over, and works until it may not go on.
    fn serve(&self, wake: &Arc<dyn Wake>, goes_on: &impl Fn() -> bool) -> Result<(), String> {
        let began = Instant::now();
        let history = self.history.open().map_err(|error| error.to_string())?;
        let store = StateStore::open(&self.kafka, history).map_err(|error| error.to_string())?;
        let records = store.records();
        let passwords = PasswordPool::start(1, wake).map_err(|error| format!("password thread: {error}"))?;
        let reader = self.bus.reader(Arc::clone(wake));
        let mut waited = Instant::now();
        let mut wait = || {
            if waited.elapsed() > COMPLAINTS {
                tracing::warn!("the topics do not give what they tell of; this worker waits for Kafka");
                waited = Instant::now();
            }
            park(Monotonic::ZERO, Monotonic::ZERO + limits::KAFKA_WATCH_AGAIN);
            goes_on()
        };
        let mut worker = ServiceWorker::open_waiting(reader, store, passwords, &self.settings, &mut wait)?;
        tracing::info!(records, ms = began.elapsed().as_millis(), "this worker is the active one");
        self.stats.active.set(1);
        self.stats.terms_total.add(1);
        let mut told = worker.tally();
        while goes_on() {
            let (now, wall) = clock();
            let next = worker.turn(now, wall);
            let tally = worker.tally();
            self.stats.commands_total.add(tally.commands - told.commands);
            self.stats.events_total.add(tally.events - told.events);
            self.stats.transactions_total.add(tally.transactions - told.transactions);
            if tally.commands != told.commands || next > now {
                self.places.show(worker.places());
            }
            told = tally;
            if let Some(lost) = worker.lost() {
                return Err(lost.to_string());
            }
            if next > now && goes_on() {
                park(now, next);
            }
        }
        Ok(())
    }
}

/// Where the history of rooms and messages is kept.
enum History {
    /// It is not.
    Nowhere,
    /// In a file of this machine's.
    Sqlite(StoreSettings),
    /// For the workers of all machines.
    Postgres(Box<PostgresSettings>),
}

impl History {
    fn of(config: &Config) -> Self {
        let messages_max = limits::MESSAGES_ON_DISK;
        match (config.store.settings(), &config.server.data_dir) {
            (Some(postgres), _) => Self::Postgres(Box::new(postgres)),
            (None, Some(folder)) => {
                Self::Sqlite(StoreSettings { file: Some(Path::new(folder).join(HISTORY)), messages_max })
            }
            (None, None) => Self::Nowhere,
        }
    }

    /// Refuses what waiting does not mend, so that an operator hears of it at the start and not at a takeover.
    fn check(&self) -> Result<(), String> {
        let Self::Postgres(postgres) = self else { return Ok(()) };
        match postgres.check() {
            Ok(words) => tracing::info!("{words}"),
            Err(error) if error.refused => return Err(error.text),
            Err(error) => tracing::warn!(%error, "the history waits for its database"),
        }
        Ok(())
    }

    fn open(&self) -> Result<Option<Box<dyn Store>>, StoreError> {
        Ok(match self {
            Self::Nowhere => None,
            Self::Sqlite(settings) => Some(Box::new(SqliteStore::open(settings)?)),
            Self::Postgres(settings) => Some(Box::new(PostgresStore::open(settings)?)),
        })
    }
}

/// Where the services stand, for whoever measures how far they are behind.
#[derive(Clone, Default)]
struct Places(Arc<Mutex<Vec<PartitionPlace>>>);

/// A partition's name, and the offset of the next record.
type PartitionPlace = (Arc<str>, u64);

impl Places {
    fn show<'a>(&self, places: impl Iterator<Item = (&'a Arc<str>, u64)>) {
        let mut shown = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        shown.clear();
        shown.extend(places.map(|(name, next)| (Arc::clone(name), next)));
    }

    fn clear(&self) {
        self.show(std::iter::empty());
    }

    fn seen(&self) -> Vec<PartitionPlace> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Starts a thread that asks Kafka how far the services are behind: it may wait as long as Kafka is away, and nobody waits
/// for it.
fn measure(bus: &KafkaBus, stats: &Arc<WorkerStats>, places: &Places) -> Result<(), String> {
    let (bus, stats, places) = (bus.handle(), Arc::clone(stats), places.clone());
    let body = move || loop {
        let seen = places.seen();
        for (topic, lag) in &stats.lag {
            let of_topic = seen.iter().filter(|(name, _)| topic_and_partition(name).0 == *topic);
            lag.set(of_topic.map(|(name, next)| bus.range(name).1.saturating_sub(*next)).sum());
        }
        thread::park_timeout(limits::WORKER_LAG_INTERVAL);
    };
    let thread: Result<JoinHandle<()>, _> = thread::Builder::new().name("lag".into()).spawn(body);
    thread.map(drop).map_err(|error| format!("lag: {error}"))
}

/// Presence without clients, so that somebody reaps gateways that are gone.
struct Reaper {
    sessions: NodePresence,
    gateway_id: String,
    seed: u64,
}

impl Reaper {
    /// `None` without Redis.
    fn of(config: &Config, name: &str, entropy: &mut Entropy) -> Result<Option<Self>, String> {
        let seed = entropy.next_u64();
        let life = GatewayLife { nonce: entropy.next_u64(), incarnation: entropy.next_u64() >> 11 };
        let gateway = gateway_settings(config, name, life, seed);
        let sessions = NodePresence::in_redis(config, gateway, Arc::new(Lease::endless()), Durability::Kafka)?;
        Ok(sessions.map(|sessions| Self { sessions, gateway_id: name.to_owned(), seed }))
    }

    fn run(self, log: &KafkaBus, stop: &AtomicBool) {
        let wake: Arc<dyn Wake> = Arc::new(ThreadWaker::new(thread::current()));
        let announcer = Announcer::new(Box::new(log.reader(Arc::clone(&wake))), self.gateway_id, self.seed);
        let mut reaping = Reaping::new(self.sessions.start(wake), announcer);
        while !stop.load(Ordering::Acquire) {
            let (now, wall) = clock();
            let next = reaping.turn(now, wall);
            if next > now && !stop.load(Ordering::Acquire) {
                park(now, next);
            }
        }
        let until = Instant::now() + limits::KAFKA_FLUSH_TIME;
        loop {
            let (now, wall) = clock();
            if reaping.finish(now, wall) || Instant::now() >= until {
                return;
            }
            thread::park_timeout(Duration::from_millis(1));
        }
    }
}

/// Waits for the threads, which may themselves be waiting for Kafka, for so long at most.
fn await_end(threads: Vec<JoinHandle<()>>) {
    let until = Instant::now() + limits::WORKER_STOP_TIME;
    let (ended, ends): (_, Receiver<()>) = bounded(1);
    threads.iter().for_each(|thread| thread.thread().unpark());
    let join = move || {
        threads.into_iter().for_each(|thread| _ = thread.join());
        drop(ended);
    };
    let joining = thread::Builder::new().name("end".into()).spawn(join);
    if joining.is_ok()
        && ends.recv_timeout(until.saturating_duration_since(Instant::now())).is_err_and(|error| error.is_timeout())
    {
        tracing::warn!("Kafka or Redis do not answer; the worker ends without their word");
        std::process::exit(0);
    }
}

/// A second signal ends the process at once.
fn end_at_once_if_told_again(told: Told) {
    let wait = move || {
        told.wait_for_end();
        std::process::exit(0);
    };
    // Without it the time-out ends it.
    drop(thread::Builder::new().name("obedience".into()).spawn(wait));
}

/// The history tables, in a worker's `data_dir`.
const HISTORY: &str = "history.sqlite";
/// How often one that stands by looks up, should it have missed a word.
const STANDBY: Duration = Duration::from_secs(1);
/// How often a wait that lasts is told.
const COMPLAINTS: Duration = Duration::from_secs(10);
