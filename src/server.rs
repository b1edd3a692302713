//! Assembly of a node: builds the parts, pins and starts their threads, waits for a signal, drains, joins.
//!
//! SIGHUP reloads the type table and the keys.
//!
//! Order: signals, limits, keys, ports (a port in use ends it here), mesh, peers, admin, shards, ready. The reverse at
//! the end: shards first, since everything else serves them.

mod announce;
mod bus;
mod kafka;
mod neighbours;
mod presence;
mod reload;
mod room_key;
mod threads;
mod told;
#[cfg(feature = "kafka")]
mod worker;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::admin::{self, AdminState, Api, ApiConfig, Calls};
use crate::auth::{RoomKey, Signer, Verifier};
use crate::config::{Config, DriverChoice};
use crate::delivery;
use crate::id::NodeId;
use crate::keys::{self, Watch};
use crate::limits;
use crate::page;
use crate::ports::{Durability, KeyWish, Lease, LogView};
use crate::presence::Listener;
use crate::protocol::relay;
use crate::protocol::routes::Routes;
use crate::router::{Bounds, Latest, Port, mesh};
use crate::session::{Clocks, KeyReading, Settings};
use crate::shard::driver::syscall::{self, Entropy};
use crate::shard::driver::uring;
use crate::shard::{NodeState, ShardConfig};
use crate::stats::{KeyStats, ShardStats};
use crate::streams::HomeConfig;
use crate::time::Rate;
pub use kafka::{TopicWish, check as check_kafka, create_topics};
pub use reload::Read;
use reload::Reloader;
use told::{Told, Word};

/// Runs the node until it is told to stop; SIGHUP has `read` read the configuration again.
///
/// # Errors
/// One line that says what failed, with its remedy.
pub fn run(config: Config, read: Read) -> Result<(), String> {
    let told = Told::listen()?;
    announce::start_log(&config.log);
    if let Err(error) = syscall::use_small_pages() {
        tracing::warn!(%error, "huge pages stay on: connections will take about twice the memory");
    }
    let descriptors = syscall::raise_descriptor_limit().map_err(|error| format!("descriptor limit: {error}"))?;
    let mut entropy = Entropy::default();
    let mut keys = keys(&config, &mut entropy)?;
    let driver = choose_driver(config.server.driver)?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let shards = match config.server.shards {
        0 => u16::try_from(cores.min(limits::SHARDS_MAX)).unwrap_or(1),
        shards => shards,
    };
    let (address, listeners) = listen(SocketAddr::new(config.server.host(), config.server.port), shards)?;
    let health = SocketAddr::new(config.server.health_host, config.server.health_port);
    let health = TcpListener::bind(health)
        .map_err(|error| format!("health port {health}: {error}; choose another with --health-port"))?;
    let (log, bus_words) = bus::NodeBus::open(&config, &mut entropy)?;
    one_partition(log.partitions(Listener::TOPIC))?;
    let durability = log.durability();
    let node = Arc::new(node_state(&config, descriptors));
    let rooms_epoch = Arc::new(AtomicU64::new(log.epoch(Listener::TOPIC)));
    let rooms = Rooms { key: room_key::room_key(&config, &mut entropy)?, epoch: Arc::clone(&rooms_epoch) };
    let settings = Latest::new(settings(&config, &keys, shards, durability, rooms, &mut entropy));
    let (nonce, gateway_id) = (settings.nonce, settings.gateway_id.clone());
    let rules = Latest::new(Arc::clone(&config.routes));
    let stats: Vec<_> = (0..shards).map(|_| Arc::new(ShardStats::default())).collect();
    let bounds = Bounds { slots: config.mesh.ring_slots, ..Bounds::default() };
    let mut ports: Vec<Port> = mesh::build(usize::from(shards) + threads::PEERS, bounds);
    let (peer_ports, calls) = peer_ports(&mut ports, &settings);
    let seed = entropy.next_u64();
    let epoch = entropy.next_u64() >> 11;
    let shard_configs = ports.into_iter().zip(&stats).map(|(port, stats)| ShardConfig {
        homes: home_config(&config, port.id(), shards, own_numbering(durability, epoch), seed),
        port,
        settings: settings.clone(),
        stats: Arc::clone(stats),
        node: Arc::clone(&node),
        seed,
    });
    let state = Arc::new(AdminState::new(stats.clone(), durability, driver.name()).reading(keys.stats()));
    let (to_homes, events) = bus::ways(shards);
    let view = log.view();
    let secret = (u128::from(entropy.next_u64()) << 64 | u128::from(entropy.next_u64())).to_be_bytes();
    let lease = Arc::clone(&node.lease);
    let stats = Arc::clone(&state.bus);
    let names = threads::Names { incarnation: epoch, seed, secret, nonce, gateway_id, lease, stats, rooms_epoch };
    let peers = threads::Peers::start(&config, shards, peer_ports, log, to_homes, rules.clone(), names)?;
    calls.runs_on(peers.api_thread());
    let api_keys = Latest::new(api_keys(&config, &mut entropy));
    let api = api(&config, &settings, &rules, api_keys.clone(), calls, view);
    let admin = admin::spawn(health, Arc::clone(&state), api).map_err(|error| format!("admin side: {error}"))?;
    let (configs, pin) = (shard_configs.collect(), config.server.pin && cores > 1);
    let running = threads::Shards::start(&driver, configs, listeners, pin, &peers, events)?;
    peers.connect(running.wakers());
    let drain = config.timeouts.drain;
    keys.read_again(&told)?;
    let reloader = Reloader::new(read, config.clone(), settings, rules, api_keys.clone());
    threads::obey_signals(told, reloader, Arc::clone(&node), running.wakers(), drain, Arc::clone(&state));
    running.await_histories();
    state.ready.store(true, Ordering::Release);
    let words = format!("shards {shards}, {}, bus {bus_words}", driver.words());
    announce::ready(&config, &keys, &api_keys, address, admin.address(), &words);
    let outcome = running.join(&node);
    peers.stop();
    admin.stop();
    outcome
}

/// Runs a worker until it is told to stop: the reference services, for gateways that share a bus on Kafka.
///
/// # Errors
/// One line that says what failed, with its remedy.
pub fn run_worker(config: &Config) -> Result<(), String> {
    #[cfg(feature = "kafka")]
    return worker::run(config);
    #[cfg(not(feature = "kafka"))]
    {
        let _ = config;
        Err(kafka::refusal_of_worker())
    }
}

/// A client of a room hub names one place to go on from, so that the hubs' events have one order.
fn one_partition(partitions: u32) -> Result<(), String> {
    let topic = Listener::TOPIC;
    match partitions {
        0 | 1 => Ok(()),
        more => Err(format!(
            "kafka topic {topic}: it has {more} partitions, but who visits a room hub goes on from one place, so it must \
             have one; make it anew with one, as `ringgate topics create` does"
        )),
    }
}

/// What tokens are checked with; in dev mode also what mints them.
pub(crate) struct Keys {
    verifier: Arc<Verifier>,
    signer: Option<Signer>,
    /// Who reads them again, where others publish them.
    watch: Option<Watch>,
}

impl Keys {
    /// What a set's reader counts; nothing without one.
    fn stats(&self) -> Arc<KeyStats> {
        self.watch.as_ref().map(|watch| Arc::clone(&watch.stats)).unwrap_or_default()
    }

    /// From now on a set is read again, and what is in it told.
    fn read_again(&mut self, told: &Told) -> Result<(), String> {
        let Some(watch) = self.watch.take() else { return Ok(()) };
        let teller = told.teller();
        watch.start(move |reading, set| drop(teller.send(Word::Keys(reading, set))))
    }
}

/// What room hubs need: the key of their tokens, the numbering of their events.
struct Rooms {
    key: RoomKey,
    epoch: Arc<AtomicU64>,
}

/// The driver and why.
#[derive(Clone, Debug)]
pub(crate) enum Chosen {
    /// io_uring works here, or was asked for.
    Uring,
    /// epoll through monoio, and why.
    Monoio(String),
}

impl Chosen {
    fn name(&self) -> &'static str {
        match self {
            Self::Uring => "uring",
            Self::Monoio(_) => "monoio",
        }
    }

    fn words(&self) -> String {
        let why = match self {
            Self::Uring => "a trial ring worked",
            Self::Monoio(why) => why,
        };
        format!("driver {} ({why})", self.name())
    }
}

fn choose_driver(choice: DriverChoice) -> Result<Chosen, String> {
    match (choice, uring::probe()) {
        (DriverChoice::Monoio, _) => Ok(Chosen::Monoio("asked for by --driver".into())),
        (_, Ok(())) => Ok(Chosen::Uring),
        (DriverChoice::Auto, Err(error)) => Ok(Chosen::Monoio(error.to_string())),
        (DriverChoice::Uring, Err(error)) => Err(format!("--driver uring: {error}; or use --driver auto")),
    }
}

fn keys(config: &Config, entropy: &mut Entropy) -> Result<Keys, String> {
    if let Some(source) = config.auth.key_source() {
        let set = source.read().map_err(|error| format!("auth.jwt_jwks = {error}"))?;
        keys::tell(&format!("token keys of {source}"), &set);
        let stats = Arc::new(KeyStats::default());
        stats.read(set.len());
        let (every, wish) = (config.auth.jwt_jwks_interval, Arc::new(KeyWish::default()));
        let verifier = Arc::new(config.auth.verifier_of(set));
        return Ok(Keys { verifier, signer: None, watch: Some(Watch { source, every, wish, stats }) });
    }
    if let Some(verifier) = config.auth.verifier()? {
        return Ok(Keys { verifier: Arc::new(verifier), signer: None, watch: None });
    }
    let secret: Vec<u8> = (0..4).flat_map(|_| entropy.next_u64().to_be_bytes()).collect();
    let made = |error| format!("the dev key: {error}");
    let verifier = Verifier::from_secret(&secret).map_err(made)?;
    let signer = Signer::from_secret(&secret).map_err(made)?;
    Ok(Keys { verifier: Arc::new(verifier), signer: Some(signer), watch: None })
}

/// The peers' ends of the mesh, which are the last ones.
fn peer_ports(ports: &mut Vec<Port>, settings: &Settings) -> (threads::PeerPorts, Calls) {
    let api = ports.pop().expect("the server API is the last node");
    let bus = ports.pop().expect("the bus is the last but one");
    let presence = ports.pop().expect("presence is the one before");
    let nodes = admin::Nodes { shards: settings.shards, presence: settings.presence, bus: settings.bus };
    let (api, calls) = admin::connect(api, nodes);
    (threads::PeerPorts { presence, bus, api }, calls)
}

/// The configured keys; in dev mode one is made up if there is none.
fn api_keys(config: &Config, entropy: &mut Entropy) -> Vec<String> {
    if config.server.dev && config.admin.api_keys.is_empty() {
        return vec![format!("{:016x}{:016x}", entropy.next_u64(), entropy.next_u64())];
    }
    config.admin.api_keys.clone()
}

fn api(
    config: &Config,
    settings: &Settings,
    rules: &Latest<Arc<Routes>>,
    keys: Latest<Vec<String>>,
    calls: Calls,
    log: Arc<dyn LogView>,
) -> Api {
    Api::new(ApiConfig {
        keys,
        routes: rules.clone(),
        log,
        calls,
        nonce: settings.nonce,
        event_bytes: config.delivery.max_frame,
        wall: syscall::wall,
    })
}

/// One SO_REUSEPORT listener per shard. Since such sockets would share a port with another process that uses them too,
/// a plain bind finds out first whether somebody has it. A free port is the first listener's choice, which keeps it.
fn listen(address: SocketAddr, shards: u16) -> Result<(SocketAddr, Vec<OwnedFd>), String> {
    let refused =
        |error: io::Error| format!("port {address}: {error}; stop what uses it or choose another with --port");
    if address.port() != 0 {
        drop(TcpListener::bind(address).map_err(refused)?);
    }
    let first = TcpListener::from(syscall::listen(address, BACKLOG).map_err(refused)?);
    let bound = first.local_addr().map_err(refused)?;
    let others = (1..shards).map(|_| syscall::listen(bound, BACKLOG));
    let listeners: io::Result<Vec<_>> = std::iter::once(Ok(first.into())).chain(others).collect();
    Ok((bound, listeners.map_err(refused)?))
}

fn node_state(config: &Config, descriptors: u64) -> NodeState {
    let connections_max = match u64::from(config.server.max_connections) {
        0 => descriptors.saturating_sub(limits::RESERVED_DESCRIPTORS).max(1),
        most => most,
    };
    NodeState {
        lease: Arc::new(Lease::endless()),
        connections: AtomicU64::new(0),
        connections_max,
        draining: AtomicBool::new(false),
        abandon: AtomicBool::new(false),
        reconnect_spread: RECONNECT_SPREAD,
    }
}

fn settings(
    config: &Config,
    keys: &Keys,
    shards: u16,
    durability: Durability,
    rooms: Rooms,
    entropy: &mut Entropy,
) -> Settings {
    let (delivery, timeouts) = (&config.delivery, &config.timeouts);
    let host_name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    Settings {
        verifier: Arc::clone(&keys.verifier),
        key_reading: keys.watch.as_ref().map(|watch| KeyReading { wish: Arc::clone(&watch.wish), number: 0 }),
        room_key: rooms.key,
        rooms_epoch: rooms.epoch,
        rooms_calls: Rate::per_minute(config.server.rooms_calls_per_minute),
        routes: Arc::clone(&config.routes),
        origins: config.server.origins.clone(),
        trusted_proxies: config.server.trusted_proxies.clone(),
        newcomers_max: config.server.newcomers_max,
        dev: config.server.dev,
        page: page::ASSETS,
        guests: keys.signer.clone(),
        gateway_id: config.server.gateway_id(host_name.trim()),
        nonce: entropy.next_u64(),
        shards,
        presence: NodeId(shards),
        bus: NodeId(shards + 1),
        relays_by_bus: durability == Durability::Kafka,
        relay_topic: relay::TOPIC.into(),
        durability: durability.name(),
        queue: delivery::Limits {
            frames: delivery.queue_frames,
            bytes: delivery.queue_bytes,
            age: delivery.queue_age,
            delta_keys: delivery.delta_keys,
            delta_bytes: delivery.queue_bytes / 2,
            answer_frames: delivery.answer_frames,
            answer_bytes: delivery.answer_bytes,
            #[cfg(feature = "mutants")]
            mutant: crate::mutant::Mutant::None,
        },
        max_frame: delivery.max_frame,
        rooms_max: delivery.rooms_max,
        moves: Rate::per_second(delivery.moves_per_second),
        player_commands: Rate::per_second(delivery.player_commands_per_second),
        clocks: Clocks {
            handshake: timeouts.handshake,
            authentication: timeouts.authentication,
            idle: timeouts.idle,
            ping: timeouts.ping,
            close: timeouts.close,
            pause: timeouts.pause,
            token_grace: limits::TOKEN_GRACE,
        },
    }
}

/// Where the bus numbers what is relayed, homes number nothing, and a session may resume on another gateway.
fn own_numbering(durability: Durability, epoch: u64) -> u64 {
    if durability == Durability::Kafka { relay::HANDLE_EPOCH } else { epoch }
}

fn home_config(config: &Config, shard: NodeId, shards: u16, epoch: u64, seed: u64) -> HomeConfig {
    let delivery = &config.delivery;
    HomeConfig {
        shard,
        shards,
        epoch,
        seed,
        batch_frames: (delivery.queue_frames / 2).max(1),
        history_events: delivery.history_events,
        history_bytes: delivery.history_bytes,
        history_total_bytes: delivery.history_total_bytes,
        history_time: history_time(config),
        own_streams: limits::OWN_STREAMS,
        resume_window: delivery.resume_window,
    }
}

/// See `limits::HISTORY_TIME`.
fn history_time(config: &Config) -> Duration {
    config.delivery.resume_window + config.timeouts.idle + Duration::from_secs(30)
}

/// Connections that may wait to be accepted; the kernel cuts it to `net.core.somaxconn`.
const BACKLOG: u32 = 65_535;
/// Clients of a node that restarts come back spread over this time.
const RECONNECT_SPREAD: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::thread;

    use super::*;

    /// A free port that is asked for stays this node's from the moment it is chosen, whoever else looks for one meanwhile.
    #[test]
    fn a_free_port_is_kept() {
        let (any, over) = (SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), AtomicBool::new(false));
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    while !over.load(Ordering::Relaxed) {
                        let _others: Vec<_> = (0..64).filter_map(|_| TcpListener::bind(any).ok()).collect();
                    }
                });
            }
            let failed = (0..10_000).find_map(|_| listen(any, 2).err());
            over.store(true, Ordering::Relaxed);
            assert_eq!(failed, None);
        });
    }
}
