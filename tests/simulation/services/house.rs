//! A whole gateway in one thread: shards, presence, the bus's peer and the services' worker, over a log and a store that
//! outlive them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ringgate::auth::{Grant, Signer, Verifier};
use ringgate::bus::{BusPeer, EVENT_TOPICS, EmbeddedBus, Nodes, TopicBounds, rebuild};
use ringgate::id::{ConnAddr, EventId, NodeId};
use ringgate::message::{Append, ErrorCode, GatewayLife, Kept};
use ringgate::ports::{Accepted, Bus, ChatMessage, Completed, Durability, Record, Store, StoreError, Write};
use ringgate::presence::{Announcer, EmbeddedPresence, Listener, PresencePeer};
use ringgate::protocol::routes::Routes;
use ringgate::router::peer::Peer;
use ringgate::router::{Latest, Port, Wake, mesh::build};
use ringgate::services::rooms::{Outcome, Task, Work};
use ringgate::session::Settings;
use ringgate::shard::Shard;
use ringgate::shard::driver::Driver;
use ringgate::shard::driver::simulated::{Network, SimulatedDriver};
use ringgate::time::{Monotonic, WallMillis};
use ringgate::workers::{COMMAND_TOPICS, Passwords, Restarted, ServiceWorker, WorkerSettings};

use super::books::Books;
use crate::world::{self, Plan};

/// See the module.
pub struct House {
    pub network: Network,
    /// Presence keeps its records beside those of the services.
    keeps: bool,
    pub books: Books,
    shards: Vec<Shard<SimulatedDriver>>,
    presence: Seated<PresencePeer<EmbeddedPresence>>,
    bus: Seated<BusPeer<EmbeddedBus, Routes>>,
    worker: Option<Worker>,
    /// When the services' next worker starts.
    opens_at: Monotonic,
    log: EmbeddedBus,
    records: Records,
    wakers: Vec<SimulatedDriver>,
    signer: Signer,
    plan: Plan,
    seed: u64,
    /// Gateways there have been.
    lives: u64,
}

/// A peer, and whether it has something to do.
struct Seated<P> {
    peer: P,
    bell: Arc<Bell>,
    next: Monotonic,
}

struct Worker {
    worker: ServiceWorker<Frail, Frail, Hasher>,
    bell: Arc<Bell>,
    next: Monotonic,
    fuse: Fuse,
}

#[derive(Default)]
struct Bell(AtomicBool);

impl Wake for Bell {
    fn wake(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Bell {
    fn rang(&self) -> bool {
        self.0.swap(false, Ordering::Relaxed)
    }
}

/// How long a turn takes.
const TURN: Duration = Duration::from_micros(20);

impl House {
    /// A gateway whose sessions end with it.
    pub fn new(seed: u64, plan: Plan) -> Self {
        Self::open(seed, plan, false)
    }

    /// One whose sessions and hubs outlive it.
    pub fn keeping(seed: u64, plan: Plan) -> Self {
        Self::open(seed, plan, true)
    }

    fn open(seed: u64, plan: Plan, keeps: bool) -> Self {
        let log = EmbeddedBus::new(EPOCH, TopicBounds::default());
        let network = Network::new(seed, usize::from(plan.shards) + 2, plan.weather);
        let signer = Signer::from_secret(SECRET).expect("a good secret");
        let records = Records::default();
        let parts = Parts::open(&network, &log, keeps.then_some(&records), &plan, seed, 0);
        let books = Books::new(log.handle());
        let mut house = Self {
            network,
            keeps,
            books,
            shards: parts.shards,
            presence: parts.presence,
            bus: parts.bus,
            worker: None,
            opens_at: Monotonic::ZERO,
            log,
            records,
            wakers: parts.wakers,
            signer,
            plan,
            seed,
            lives: 0,
        };
        house.open_worker(true);
        house
    }

    /// A token for a player.
    pub fn token(&self, number: u32) -> String {
        let user = format!("user-{number}");
        self.signer.mint(&Grant { sub: &user, username: None, roles: &[], exp: None, ..Grant::default() })
    }

    /// The worker ends within one of its next operations, and another goes on from the records a while later.
    pub fn crash(&mut self) {
        if let Some(worker) = &self.worker {
            worker.fuse.light(self.network.below(24) as usize);
        }
    }

    /// The whole gateway is gone in the middle of whatever it does; another begins with the log and the records alone.
    pub fn restart(&mut self) {
        self.worker = None;
        self.lives += 1;
        let seed = self.seed.wrapping_add(self.lives << 32);
        let network = Network::new(seed, usize::from(self.plan.shards) + 2, self.plan.weather);
        network.advance(self.network.now() + Duration::from_millis(50));
        self.network = network;
        self.shards.clear();
        let records = self.keeps.then_some(&self.records);
        let parts = Parts::open(&self.network, &self.log, records, &self.plan, seed, self.lives);
        (self.shards, self.presence, self.bus, self.wakers) = (parts.shards, parts.presence, parts.bus, parts.wakers);
        self.open_worker(true);
    }

    /// From here on nothing breaks.
    pub fn mend(&mut self) {
        if let Some(worker) = &self.worker {
            worker.fuse.mend();
        }
    }

    /// A backend says something in a room: to everybody, or with an audience, an object's members.
    pub fn tell(&mut self, room: &str, event_type: &str, audience: &str, payload: &str) {
        let (wall, number) = (self.wall(), self.log.range("rooms.events").1);
        let id = EventId::v5(b"a simulation's b", &[&number.to_le_bytes()]);
        let value = format!(
            "{{\"event_id\":\"{id}\",\"event_type\":\"{event_type}\",\"timestamp\":\"{}\",\
             \"target\":{{\"room_id\":\"{room}\"{audience}}},\"payload\":{payload}}}",
            wall.rfc3339()
        );
        let append = Append {
            from: ConnAddr::NOBODY,
            correlation: 0,
            topic: "rooms.events".into(),
            key: room.as_bytes().into(),
            value: value.into_bytes().into(),
        };
        self.log.append(wall, &append).expect("everybody reads on");
    }

    /// Hubs and sessions that presence has, and records of hubs.
    pub fn left(&self) -> (usize, usize, usize) {
        let presence = self.presence.peer.presence();
        let records = self.records.0.lock().expect("nothing panics while it holds the records");
        let hubs = records.records.keys().filter(|(service, _)| service == "hub" || service == "presence.hub");
        (presence.hubs().0, presence.sessions(), hubs.count() + records.messages.len())
    }

    fn open_worker(&mut self, with_gateway: bool) {
        let bell = Arc::new(Bell::default());
        let fuse = Fuse::default();
        let reader = self.log.reader(&COMMAND_TOPICS, Arc::clone(&bell) as Arc<dyn Wake>);
        let settings = WorkerSettings {
            resume_window: Duration::from_secs(300),
            seed: self.seed,
            secret: [7; 16],
            restarted: with_gateway.then(|| Restarted { at: self.wall(), alive: self.wall() }),
        };
        let frail = |inner| Frail { inner, records: self.records.clone(), fuse: fuse.clone() };
        let store = frail(self.log.handle());
        let worker = ServiceWorker::open(frail(reader), store, Hasher::default(), &settings);
        #[cfg_attr(not(feature = "mutants"), expect(unused_mut, reason = "only mutants change it"))]
        let mut worker = worker.expect("the records can be read");
        #[cfg(feature = "mutants")]
        worker.break_with(self.plan.queue.mutant);
        self.worker = Some(Worker { worker, bell, next: Monotonic::ZERO, fuse });
    }

    fn wall(&self) -> WallMillis {
        self.network.driver(NodeId(0)).wall()
    }

    /// A shard by chance.
    pub fn some_shard(&self) -> NodeId {
        NodeId(self.network.below(u64::from(self.plan.shards)) as u16)
    }

    /// Lets the node work for this much virtual time.
    pub fn spin(&mut self, span: Duration) -> Result<(), String> {
        let until = self.network.now() + span;
        loop {
            if self.turn() {
                self.network.advance(self.network.now() + TURN);
            } else if self.network.now() >= until {
                self.shards.iter().for_each(Shard::check);
                return self.books.read();
            } else {
                self.network.advance(self.wake_at(until));
            }
            if self.network.now() > until + Duration::from_secs(5) {
                return Err("D8: the node never rests".into());
            }
        }
    }

    /// Lets the node work for a turn, so that who reads now sees it in the middle of its work.
    pub fn glimpse(&mut self) -> Result<(), String> {
        self.turn();
        self.network.advance(self.network.now() + TURN);
        self.books.read()
    }

    /// A turn of everybody who has something to do; `false` if nobody had.
    fn turn(&mut self) -> bool {
        let mut worked = world::turn_shards(&self.network, &mut self.shards);
        worked |= self.presence.turn(&self.network, &mut self.wakers);
        worked |= self.bus.turn(&self.network, &mut self.wakers);
        worked | self.turn_worker()
    }

    /// When a peer or the services have something to do, if that is before `until`.
    fn wake_at(&self, until: Monotonic) -> Monotonic {
        let worker = self.worker.as_ref().map_or(self.opens_at, |worker| worker.next);
        until.min(self.presence.next).min(self.bus.next).min(worker)
    }

    fn turn_worker(&mut self) -> bool {
        let (now, wall) = (self.network.now(), self.wall());
        let Some(worker) = &mut self.worker else {
            if now >= self.opens_at {
                self.open_worker(false);
            }
            return now >= self.opens_at;
        };
        if worker.fuse.is_out() {
            self.worker = None;
            self.opens_at = now + Duration::from_millis(self.network.below(200));
            return true;
        }
        if worker.bell.rang() {
            worker.next = now;
        }
        // It does not get a turn at every instant.
        if worker.next > now || self.network.below(3) == 0 {
            return false;
        }
        worker.next = worker.worker.turn(now, wall);
        true
    }
}

impl<P: Peer> Seated<P> {
    fn new(peer: P, bell: Arc<Bell>) -> Self {
        Self { peer, bell, next: Monotonic::ZERO }
    }

    fn turn(&mut self, network: &Network, wakers: &mut [SimulatedDriver]) -> bool {
        let (node, now) = (self.peer.port().id(), network.now());
        if !(network.take_ring(node) | self.bell.rang() | (self.next <= now)) {
            return false;
        }
        self.peer.port().awake();
        self.next = self.peer.turn(now, wakers[node.index()].wall());
        let wake: Vec<NodeId> = self.peer.port().wake_list().collect();
        wake.into_iter().for_each(|peer| wakers[node.index()].wake(peer));
        self.peer.port().announce_sleep();
        if self.peer.port().has_input() && self.peer.takes_input() {
            self.next = now;
        }
        true
    }
}

/// What a gateway is made of, and what goes when it does.
struct Parts {
    shards: Vec<Shard<SimulatedDriver>>,
    presence: Seated<PresencePeer<EmbeddedPresence>>,
    bus: Seated<BusPeer<EmbeddedBus, Routes>>,
    wakers: Vec<SimulatedDriver>,
}

impl Parts {
    fn open(
        network: &Network,
        log: &EmbeddedBus,
        records: Option<&Records>,
        plan: &Plan,
        seed: u64,
        life: u64,
    ) -> Self {
        let nodes = usize::from(plan.shards) + 2;
        let mut ports: Vec<Port> = build(nodes, plan.bounds);
        let bus_port = ports.pop().expect("the bus is the last node");
        let presence_port = ports.pop().expect("presence is the last but one");
        let verifier = Verifier::from_secret(SECRET).expect("a good secret");
        let rooms_epoch = Arc::new(log.epoch("rooms.events").into());
        let settings = Settings { nonce: 1 + life, rooms_epoch, ..world::settings(plan, verifier) };
        let shared = Latest::new(settings);
        let mut shards = world::shards(network, ports, plan, &shared, 77 + life, seed);

        let bell = Arc::new(Bell::default());
        let mut reader = log.reader(&EVENT_TOPICS, Arc::clone(&bell) as Arc<dyn Wake>);
        let rules = Routes::default();
        let mut events: Vec<Vec<Kept>> = (0..plan.shards).map(|_| Vec::new()).collect();
        let rebuilt = rebuild(
            &mut reader,
            &rules,
            &EVENT_TOPICS,
            WallMillis(0),
            HISTORY,
            || false,
            |event| {
                events[event.scope.home(plan.shards).index()].push(Kept::Event(Box::new(event)));
                true
            },
        );
        for (shard, events) in shards.iter_mut().zip(events) {
            shard.rebuild(events.into_iter());
        }
        let nodes_of = Nodes { shards: plan.shards, presence: NodeId(plan.shards) };
        let peer = BusPeer::new(bus_port, reader, Latest::new(rules), nodes_of, &EVENT_TOPICS).after(rebuilt);
        #[cfg_attr(not(feature = "mutants"), expect(unused_mut, reason = "only mutants change it"))]
        let mut bus = Seated::new(peer, bell);
        #[cfg(feature = "mutants")]
        bus.peer.break_with(plan.queue.mutant);

        let bell = Arc::new(Bell::default());
        let says = Box::new(log.reader(&[], Arc::clone(&bell) as Arc<dyn Wake>));
        let listener =
            Listener::new(Box::new(log.reader(&[Listener::TOPIC], Arc::clone(&bell) as Arc<dyn Wake>)), WallMillis(0));
        let announcer = Announcer::new(says, "sim".into(), seed);
        let life = GatewayLife { nonce: 1 + life, incarnation: 1 + life };
        let mut embedded = EmbeddedPresence::new(Duration::from_secs(300), 1 << 20, seed).announcing(life);
        let wakers: Vec<_> = (0..nodes as u16).map(|node| network.driver(NodeId(node))).collect();
        if let Some(records) = records {
            let store = || Box::new(Frail { inner: log.handle(), records: records.clone(), fuse: Fuse::default() });
            let now = (network.now(), wakers[0].wall());
            let keeping = embedded.keeping_sessions_in(now, EPOCH, store());
            let keeping = keeping.and_then(|embedded| embedded.keeping_hubs_in(now.0, store()));
            embedded = keeping.expect("the records can be read");
        }
        let peer = PresencePeer::new(presence_port, embedded).announcing(announcer).listening(listener);
        Self { shards, presence: Seated::new(peer, bell), bus, wakers }
    }
}

/// Operations that a worker's bus and store still carry out; `usize::MAX` = all.
#[derive(Clone)]
struct Fuse(Arc<AtomicUsize>);

impl Default for Fuse {
    fn default() -> Self {
        Self(Arc::new(AtomicUsize::new(usize::MAX)))
    }
}

impl Fuse {
    fn light(&self, operations: usize) {
        self.0.store(operations, Ordering::Relaxed);
    }

    fn mend(&self) {
        if !self.is_out() {
            self.light(usize::MAX);
        }
    }

    fn is_out(&self) -> bool {
        self.0.load(Ordering::Relaxed) == 0
    }

    /// Whether the next operation is carried out.
    fn burn(&self) -> bool {
        match self.0.load(Ordering::Relaxed) {
            0 => false,
            usize::MAX => true,
            left => {
                self.light(left - 1);
                true
            }
        }
    }
}

/// The records that outlive workers.
#[derive(Clone, Default)]
struct Records(Arc<Mutex<Rows>>);

#[derive(Default)]
struct Rows {
    records: BTreeMap<RecordName, Vec<u8>>,
    /// By room.
    messages: BTreeMap<Box<str>, Vec<ChatMessage>>,
}

/// Service and key.
type RecordName = (String, String);

/// A bus and a store that do nothing any more once the fuse is out.
struct Frail {
    inner: EmbeddedBus,
    records: Records,
    fuse: Fuse,
}

impl Bus for Frail {
    fn durability(&self) -> Durability {
        self.inner.durability()
    }

    fn epoch(&self, topic: &str) -> u64 {
        self.inner.epoch(topic)
    }

    fn append(&mut self, now: WallMillis, append: &Append) -> Result<Accepted, ErrorCode> {
        if self.fuse.burn() { self.inner.append(now, append) } else { Err(ErrorCode::Unavailable) }
    }

    fn completed(&mut self, out: &mut Vec<Completed>) {
        self.inner.completed(out);
    }

    fn range(&self, topic: &str) -> (u64, u64) {
        self.inner.range(topic)
    }

    fn since(&self, topic: &str, since: WallMillis) -> u64 {
        self.inner.since(topic, since)
    }

    fn read(&mut self, topic: &str, offset: u64, max: usize, out: &mut Vec<Record>) -> u64 {
        self.inner.read(topic, offset, max, out)
    }

    fn done(&mut self, topic: &str, offset: u64) {
        self.inner.done(topic, offset);
    }
}

impl Store for Frail {
    fn load(&mut self, service: &str) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        let records = self.records.0.lock().expect("nothing panics while it holds the records");
        let own = records.records.iter().filter(|((name, _), _)| name == service);
        Ok(own.map(|((_, key), value)| (key.clone(), value.clone())).collect())
    }

    fn write(&mut self, batch: &[Write]) -> Result<(), StoreError> {
        if !self.fuse.burn() {
            return Err(StoreError { place: "the simulation".into(), cause: "the fuse is out".into(), lost: false });
        }
        let mut records = self.records.0.lock().expect("nothing panics while it holds the records");
        for write in batch {
            match write {
                Write::Put { service, key, value } => {
                    records.records.insert(((*service).to_owned(), key.to_string()), value.to_vec());
                }
                Write::Remove { service, key } => {
                    records.records.remove(&((*service).to_owned(), key.to_string()));
                }
                Write::Message(message) => {
                    let said = records.messages.entry(message.room.clone()).or_default();
                    if said.iter().all(|known| known.id != message.id) {
                        said.push((**message).clone());
                    }
                }
                Write::RemoveRoom { room } => _ = records.messages.remove(room),
                Write::Room { .. } | Write::Player { .. } => {}
            }
        }
        Ok(())
    }

    fn messages(&mut self, room: &str, max: usize) -> Result<Vec<ChatMessage>, StoreError> {
        let records = self.records.0.lock().expect("nothing panics while it holds the records");
        let said = records.messages.get(room).map_or(&[][..], |said| said);
        Ok(said[said.len().saturating_sub(max)..].to_vec())
    }
}

/// Hashes at once, by something that shows nothing of the password.
#[derive(Default)]
struct Hasher(VecDeque<(u64, Outcome)>);

impl Passwords for Hasher {
    fn submit(&mut self, work: Work) -> Result<(), Work> {
        let digest = |password: &str| EventId::v5(b"a simulation's h", &[password.as_bytes()]).to_string();
        let outcome = match &work.task {
            Task::Hash { password, .. } => Outcome::Hashed(digest(password).into()),
            Task::Verify { hash, password } => Outcome::Verified(**hash == *digest(password)),
        };
        self.0.push_back((work.ticket, outcome));
        Ok(())
    }

    fn finished(&mut self) -> Option<(u64, Outcome)> {
        self.0.pop_front()
    }
}

const EPOCH: u64 = 5;
/// Longer than any run, so that no repetition is missed.
const HISTORY: Duration = Duration::from_secs(86_400);
const SECRET: &[u8] = b"a secret of at least thirty-two bytes";
