//! What does a fan-out cost in user space, per delivery? One shard, 500 members in one room, one relayed event of 100 B:
//! frame in, place and history, index, queues, flush, accounts. The driver is the simulated one; its time is taken off.
//! Goal: ≤ 5 % of a bare TCP send of 2–4 µs (DESIGN §10), so ≤ 100–200 ns per delivery, the driver's part included.
//!
//! `sixteen` publishes sixteen events at once, as a burst brings them: one gathered send per member.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_main};
use ringgate::auth::{Grant, RoomKey, Signer, Verifier};
use ringgate::delivery;
use ringgate::frame::FrameKind;
use ringgate::id::{ConnKey, NodeId, StreamHandle};
use ringgate::message::{Deliver, Request};
use ringgate::ports::Presence;
use ringgate::presence::EmbeddedPresence;
use ringgate::protocol::frames::client::{self, FromServer};
use ringgate::protocol::frames::{json, types};
use ringgate::protocol::routes::Routes;
use ringgate::router::{Bounds, Latest, Port, mesh};
use ringgate::session::{Clocks, Settings};
use ringgate::shard::driver::simulated::{Network, SimulatedDriver, SocketId, Weather};
use ringgate::shard::driver::{Completion, Driver, Lease, SendBatch, Wait};
use ringgate::shard::{NodeState, Shard, ShardConfig};
use ringgate::stats::ShardStats;
use ringgate::streams::HomeConfig;
use ringgate::time::{Monotonic, Rate, WallMillis};
use ringgate::websocket::{self, Opcode};

const MEMBERS: usize = 500;
const SECRET: &[u8] = b"a secret of at least thirty-two bytes";
const PRESENCE: NodeId = NodeId(1);

fn tick(c: &mut Criterion) {
    for (name, events) in [("fanout_500/one", 1usize), ("fanout_500/sixteen", 16)] {
        let mut group = c.benchmark_group("tick");
        group.throughput(Throughput::Elements((MEMBERS * events) as u64));
        group.bench_function(name, |b| {
            let mut room = Room::new();
            b.iter_custom(|iterations| (0..iterations).map(|_| room.publish(events)).sum());
        });
        group.finish();
    }
}

/// One shard with a full room.
struct Room {
    network: Network,
    shard: Shard<Timed>,
    spent: Rc<std::cell::Cell<Duration>>,
    presence: EmbeddedPresence,
    presence_port: Port,
    /// Nothing is sent to the bus; its end must be there.
    _bus_port: Port,
    members: Vec<SocketId>,
    relay: StreamHandle,
    discard: Vec<u8>,
}

impl Room {
    fn new() -> Self {
        let weather = Weather { send_buffer: 1 << 20, receive_piece: 1 << 30, short_send_in: 0, ..Weather::default() };
        let network = Network::new(1, 3, weather);
        let mut ports: Vec<Port> = mesh::build(3, Bounds::default());
        let (bus, presence_port) = (ports.pop().expect("of three"), ports.pop().expect("of three"));
        let spent = Rc::default();
        let driver = Timed { inner: network.driver(NodeId(0)), spent: Rc::clone(&spent) };
        let config = config(ports.pop().expect("of three"));
        let mut room = Self {
            shard: Shard::new(driver, config),
            network,
            spent,
            presence: EmbeddedPresence::new(Duration::from_secs(300), 1 << 20, 1),
            presence_port,
            _bus_port: bus,
            members: Vec::new(),
            relay: StreamHandle::NONE,
            discard: Vec::new(),
        };
        // The first is the publisher, a member like the others.
        (0..MEMBERS).for_each(|number| room.enter(number));
        room
    }

    /// Connects a member and lets it join.
    fn enter(&mut self, number: usize) {
        let signer = Signer::from_secret(SECRET).expect("a good secret");
        let grant = Grant { sub: &format!("user-{number}"), roles: &["publisher"], ..Grant::default() };
        let token = signer.mint(&grant);
        let socket = self.network.connect(NodeId(0)).expect("it accepts");
        let key = websocket::client_key([1; 16]);
        self.network.send(socket, &websocket::client_request("bench", "/ws/frames", &key, &[], None));
        let mut payload = Vec::new();
        client::hello(&mut payload, &json::Hello { token: Some(&token), ..json::Hello::default() });
        self.send(socket, &payload);
        payload.clear();
        self.settle();
        client::join(&mut payload, 1, &json::Join { room: "bench", password: None });
        self.send(socket, &payload);
        self.settle();
        self.discard.clear();
        self.network.read(socket, usize::MAX, &mut self.discard);
        let relay = relay(&self.discard).expect("JOINED came and introduced the relay stream");
        assert!(self.relay == StreamHandle::NONE || self.relay == relay, "all are in one room");
        self.relay = relay;
        self.members.push(socket);
    }

    /// Publishes that many events at once; returns what it took the shard without its driver.
    fn publish(&mut self, events: usize) -> Duration {
        for _ in 0..events {
            let mut payload = Vec::new();
            let kind = FrameKind { frame_type: types::EVENT, kind: 0 };
            client::publish(&mut payload, kind, false, self.relay, 0, &[7; 100]);
            self.send(self.members[0], &payload);
        }
        self.spent.set(Duration::ZERO);
        let mut took = Duration::ZERO;
        while self.network.is_runnable(NodeId(0)) {
            let started = Instant::now();
            self.shard.turn();
            took += started.elapsed();
        }
        self.read_all(events);
        self.network.advance(self.network.now() + Duration::from_micros(100));
        took - self.spent.get()
    }

    /// Takes what every member got, and checks that it is all there.
    fn read_all(&mut self, events: usize) {
        for socket in &self.members {
            self.discard.clear();
            self.network.read(*socket, usize::MAX, &mut self.discard);
            assert!(self.discard.len() >= events * 100, "a member has {} bytes of {events} events", self.discard.len());
        }
    }

    fn send(&self, socket: SocketId, payload: &[u8]) {
        let mut frame = Vec::new();
        websocket::put_masked_frame(&mut frame, Opcode::Binary, [1, 2, 3, 4], payload);
        self.network.send(socket, &frame);
    }

    /// Lets shard and presence work until nothing is left to do.
    fn settle(&mut self) {
        loop {
            let mut worked = false;
            while self.network.is_runnable(NodeId(0)) {
                self.shard.turn();
                worked = true;
            }
            let mut replies = Vec::new();
            self.presence_port.awake();
            self.presence_port.flush_outboxes();
            while let Some((_, request)) = self.presence_port.take_request() {
                if let Request::Presence(request) = request {
                    self.presence.handle(self.network.now(), *request, &mut replies);
                }
            }
            worked |= !replies.is_empty();
            for reply in replies {
                self.presence_port.deliver(reply.to().shard, Deliver::Presence(Box::new(reply)));
            }
            let wake: Vec<NodeId> = self.presence_port.wake_list().collect();
            wake.into_iter().for_each(|peer| self.shard.driver_mut().wake(peer));
            // Doorbells take up to 200 µs.
            self.network.advance(self.network.now() + Duration::from_micros(500));
            if !worked {
                return;
            }
        }
    }
}

/// The relay stream's handle in what a member got, which is the upgrade's answer and then frames.
fn relay(input: &[u8]) -> Option<StreamHandle> {
    let end = input.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let mut rest = &input[end..];
    while let [_, second, ..] = *rest {
        let (head, len) = match second {
            126 => (4, usize::from(u16::from_be_bytes([rest[2], rest[3]]))),
            short => (2, usize::from(short)),
        };
        if let Some(FromServer::Joined { json, .. }) = client::parse(&rest[head..head + len]) {
            let mut json = json.to_vec();
            let joined = json::read::<json::Joined<'_>>(&mut json).expect("a readable JOINED");
            let stream = joined.streams.iter().find(|stream| stream.stream.starts_with("relay/"))?;
            return Some(StreamHandle(stream.handle));
        }
        rest = &rest[head + len..];
    }
    None
}

fn config(port: Port) -> ShardConfig {
    let homes = HomeConfig {
        shard: port.id(),
        shards: 1,
        epoch: 1,
        seed: 1,
        batch_frames: 4096,
        history_events: 4096,
        history_bytes: 8 << 20,
        history_total_bytes: 64 << 20,
        history_time: Duration::from_secs(390),
        own_streams: 1 << 17,
        resume_window: Duration::from_secs(300),
    };
    let settings = Settings {
        verifier: Arc::new(Verifier::from_secret(SECRET).expect("a good secret")),
        routes: Arc::new(Routes::default()),
        origins: Vec::new(),
        trusted_proxies: Vec::new(),
        newcomers_max: 1 << 20,
        dev: false,
        page: &[],
        guests: None,
        key_reading: None,
        room_key: RoomKey::new(b"a bench's"),
        rooms_epoch: Arc::new(1.into()),
        relays_by_bus: false,
        relay_topic: "ringgate.relay".into(),
        rooms_calls: Rate::per_minute(60),
        gateway_id: "bench".into(),
        nonce: 1,
        shards: 1,
        presence: PRESENCE,
        bus: NodeId(2),
        durability: "memory",
        queue: delivery::Limits::default(),
        max_frame: 64 << 10,
        rooms_max: 8,
        moves: Rate::per_second(100),
        player_commands: Rate::per_second(100),
        clocks: Clocks { idle: Duration::from_secs(1 << 30), ping: Duration::from_secs(1 << 30), ..Clocks::default() },
    };
    let node = Arc::new(NodeState {
        lease: Arc::new(ringgate::ports::Lease::endless()),
        connections: AtomicU64::new(0),
        connections_max: 10_000,
        draining: AtomicBool::new(false),
        abandon: AtomicBool::new(false),
        reconnect_spread: Duration::from_secs(5),
    });
    ShardConfig { port, homes, settings: Latest::new(settings), stats: Arc::new(ShardStats::default()), node, seed: 1 }
}

/// The simulated driver with a stopwatch on the calls that stand for the kernel.
struct Timed {
    inner: SimulatedDriver,
    spent: Rc<std::cell::Cell<Duration>>,
}

impl Timed {
    fn time<R>(&mut self, act: impl FnOnce(&mut SimulatedDriver) -> R) -> R {
        let started = Instant::now();
        let result = act(&mut self.inner);
        self.spent.set(self.spent.get() + started.elapsed());
        result
    }
}

impl Driver for Timed {
    type Socket = SocketId;

    fn now(&self) -> Monotonic {
        self.inner.now()
    }

    fn wall(&self) -> WallMillis {
        self.inner.wall()
    }

    fn random(&mut self) -> u64 {
        self.inner.random()
    }

    fn wait(&mut self, wait: Wait, work_arrived: &mut dyn FnMut() -> bool, out: &mut Vec<Completion<SocketId>>) {
        self.time(|inner| inner.wait(wait, work_arrived, out));
    }

    fn sleeps_on(&self) -> bool {
        self.inner.sleeps_on()
    }

    fn attach(&mut self, conn: ConnKey, socket: SocketId) {
        self.inner.attach(conn, socket);
    }

    fn refuse(&mut self, socket: SocketId, response: &[u8]) {
        self.inner.refuse(socket, response);
    }

    fn stop_accepting(&mut self) {
        self.inner.stop_accepting();
    }

    fn bytes_mut(&mut self, lease: &Lease) -> &mut [u8] {
        self.inner.bytes_mut(lease)
    }

    fn release(&mut self, lease: Lease) {
        self.inner.release(lease);
    }

    fn flush(&mut self, batch: &mut SendBatch) {
        self.time(|inner| inner.flush(batch));
    }

    fn watch_writable(&mut self, conn: ConnKey) {
        self.inner.watch_writable(conn);
    }

    fn pause_reads(&mut self, conn: ConnKey) {
        self.inner.pause_reads(conn);
    }

    fn resume_reads(&mut self, conn: ConnKey) {
        self.inner.resume_reads(conn);
    }

    fn shutdown_write(&mut self, conn: ConnKey) {
        self.inner.shutdown_write(conn);
    }

    fn close(&mut self, conn: ConnKey) {
        self.inner.close(conn);
    }

    fn wake(&mut self, peer: NodeId) {
        self.inner.wake(peer);
    }
}

mod group {
    criterion::criterion_group! {
        name = benches;
        config = super::Criterion::default()
            .warm_up_time(std::time::Duration::from_millis(500))
            .measurement_time(std::time::Duration::from_secs(2))
            .sample_size(20);
        targets = super::tick
    }
}
criterion_main!(group::benches);
