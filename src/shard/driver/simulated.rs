//! The simulated driver: virtual time, a seeded network, N shards in one thread (DESIGN §6, §12).
//!
//! A [`Network`] is the world that drivers and model clients share. Whatever may vary in reality varies by its seed:
//! how the byte stream is cut on receipt, how much of a send the kernel takes, how long a doorbell and a close take.
//! The same seed and the same calls give the same run, bit for bit. Nothing here sleeps: [`Network::advance`] moves the
//! clock to the next instant at which something happens.

use std::cell::{Ref, RefCell, RefMut};
use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use super::{Completion, Driver, Lease, Outcome, SendBatch, Wait};
use crate::id::{ConnKey, NodeId};
use crate::time::{Monotonic, WallMillis};

/// How the network behaves; every duration is an upper bound, drawn uniformly.
#[derive(Clone, Copy, Debug)]
pub struct Weather {
    /// Bytes of the server's send buffer per socket.
    pub send_buffer: usize,
    /// Largest piece in which bytes arrive.
    pub receive_piece: usize,
    /// Delay of a doorbell.
    pub doorbell: Duration,
    /// Delay between `close` and `Closed`.
    pub close: Duration,
    /// One send in this many is cut short though there is room; 0 = none.
    pub short_send_in: u64,
    /// A doorbell is never heard: the mutant that loses wake-ups.
    pub deaf: bool,
}

impl Default for Weather {
    fn default() -> Self {
        Self {
            send_buffer: 32 << 10,
            receive_piece: 2048,
            doorbell: Duration::from_micros(200),
            close: Duration::from_millis(2),
            short_send_in: 16,
            deaf: false,
        }
    }
}

/// The world. Clones share it.
#[derive(Clone)]
pub struct Network(Rc<RefCell<World>>);

struct World {
    now: Monotonic,
    rng: u64,
    weather: Weather,
    sockets: Vec<Socket>,
    nodes: Vec<Node>,
}

#[derive(Default)]
struct Node {
    accepting: bool,
    arrivals: VecDeque<usize>,
    /// Sockets that may have something for this shard.
    active: Vec<usize>,
    /// When a doorbell rung for this node is heard.
    rings: Vec<Monotonic>,
    /// Until when the node blocks; `None` while it does not.
    blocked: Option<Monotonic>,
}

/// One connection, both ends.
#[derive(Default)]
struct Socket {
    node: usize,
    conn: Option<ConnKey>,
    active: bool,
    reading: bool,
    watching: bool,
    to_server: VecDeque<u8>,
    to_client: VecDeque<u8>,
    client_fin: bool,
    client_fin_seen: bool,
    server_fin: bool,
    reset: bool,
    reset_seen: bool,
    closed_at: Option<Monotonic>,
    gone: bool,
    /// Whether a send was ever cut short or refused for want of room.
    ever_short: bool,
}

/// The client's end of a connection.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SocketId(usize);

/// What a client sees when it looks at its socket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sight {
    /// The connection is up.
    Open,
    /// The server ended its side and everything was read.
    Ended,
    /// The connection was reset, or refused and closed.
    Gone,
}

impl Network {
    /// A world of `nodes` mesh nodes at time zero.
    #[must_use]
    pub fn new(seed: u64, nodes: usize, weather: Weather) -> Self {
        let nodes = (0..nodes).map(|_| Node { accepting: true, ..Node::default() }).collect();
        let rng = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0xD1B5_4A32_D192_ED03;
        Self(Rc::new(RefCell::new(World { now: Monotonic::from_nanos(1), rng, weather, sockets: Vec::new(), nodes })))
    }

    /// The shard's driver.
    #[must_use]
    pub fn driver(&self, node: NodeId) -> SimulatedDriver {
        SimulatedDriver { network: self.clone(), node: node.index(), buffers: Vec::new(), free: Vec::new() }
    }

    /// The clock.
    #[must_use]
    pub fn now(&self) -> Monotonic {
        self.world().now
    }

    /// A random number below `bound` ≥ 1, from the world's seed.
    #[must_use]
    pub fn below(&self, bound: u64) -> u64 {
        self.world_mut().below(bound)
    }

    /// Connects to a shard's listener; `None` if it no longer accepts.
    #[must_use]
    pub fn connect(&self, node: NodeId) -> Option<SocketId> {
        let mut world = self.world_mut();
        if !world.nodes[node.index()].accepting {
            return None;
        }
        let id = world.sockets.len();
        world.sockets.push(Socket { node: node.index(), reading: true, ..Socket::default() });
        world.nodes[node.index()].arrivals.push_back(id);
        Some(SocketId(id))
    }

    /// The client sends.
    pub fn send(&self, id: SocketId, bytes: &[u8]) {
        let mut world = self.world_mut();
        world.sockets[id.0].to_server.extend(bytes);
        world.activate(id.0);
    }

    /// The client reads at most `max` bytes, and sees how the connection is.
    pub fn read(&self, id: SocketId, max: usize, out: &mut Vec<u8>) -> Sight {
        let mut world = self.world_mut();
        let socket = &mut world.sockets[id.0];
        let count = max.min(socket.to_client.len());
        out.extend(socket.to_client.drain(..count));
        let ended = socket.to_client.is_empty() && socket.server_fin;
        let sight = match () {
            () if socket.reset || socket.gone && socket.to_client.is_empty() && !socket.server_fin => Sight::Gone,
            () if ended => Sight::Ended,
            () => Sight::Open,
        };
        if count > 0 {
            world.activate(id.0);
        }
        sight
    }

    /// The client ends its side.
    pub fn finish(&self, id: SocketId) {
        let mut world = self.world_mut();
        world.sockets[id.0].client_fin = true;
        world.activate(id.0);
    }

    /// The client resets the connection; what was under way is lost both ways.
    pub fn reset(&self, id: SocketId) {
        let mut world = self.world_mut();
        let socket = &mut world.sockets[id.0];
        socket.reset = true;
        socket.to_client.clear();
        socket.to_server.clear();
        world.activate(id.0);
    }

    /// Whether the server ever could not place all bytes of a send on this socket.
    #[must_use]
    pub fn was_slow(&self, id: SocketId) -> bool {
        self.world().sockets[id.0].ever_short
    }

    /// The connection that the server made of this socket, and its shard.
    #[must_use]
    pub fn connection(&self, id: SocketId) -> Option<(NodeId, ConnKey)> {
        let world = self.world();
        let socket = &world.sockets[id.0];
        socket.conn.map(|conn| (NodeId(socket.node as u16), conn))
    }

    /// Bytes that wait for the client to read them.
    #[must_use]
    pub fn unread(&self, id: SocketId) -> usize {
        self.world().sockets[id.0].to_client.len()
    }

    /// Whether the shard would do something if it took a turn now.
    #[must_use]
    pub fn is_runnable(&self, node: NodeId) -> bool {
        let world = self.world();
        world.nodes[node.index()].blocked.is_none_or(|until| until <= world.now) || world.has_events(node.index())
    }

    /// Rings a peer node's doorbell heard by the simulation; see [`Network::take_ring`].
    #[must_use]
    pub fn take_ring(&self, node: NodeId) -> bool {
        self.world_mut().take_rings(node.index())
    }

    /// Moves the clock to the next instant at which a shard has something to do, but not beyond `limit`.
    pub fn advance(&self, limit: Monotonic) {
        let mut world = self.world_mut();
        let next = world.next_instant().min(limit);
        world.now = world.now.max(next);
    }

    fn world(&self) -> Ref<'_, World> {
        self.0.borrow()
    }

    fn world_mut(&self) -> RefMut<'_, World> {
        self.0.borrow_mut()
    }
}

impl World {
    /// xorshift64*, S. Vigna, "An experimental exploration of Marsaglia's xorshift generators, scrambled".
    fn random(&mut self) -> u64 {
        self.rng ^= self.rng >> 12;
        self.rng ^= self.rng << 25;
        self.rng ^= self.rng >> 27;
        self.rng.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, bound: u64) -> u64 {
        (self.random() >> 11) % bound.max(1)
    }

    fn delay(&mut self, most: Duration) -> Monotonic {
        let nanos = u64::try_from(most.as_nanos()).unwrap_or(u64::MAX);
        self.now + Duration::from_nanos(self.below(nanos.saturating_add(1)))
    }

    fn activate(&mut self, id: usize) {
        let socket = &mut self.sockets[id];
        if !std::mem::replace(&mut socket.active, true) {
            self.nodes[socket.node].active.push(id);
        }
    }

    fn has_events(&self, node: usize) -> bool {
        let state = &self.nodes[node];
        !state.arrivals.is_empty()
            || state.rings.iter().any(|at| *at <= self.now)
            || state.active.iter().any(|id| self.sockets[*id].has_event(self.now, self.weather.send_buffer))
    }

    fn take_rings(&mut self, node: usize) -> bool {
        let now = self.now;
        let rings = &mut self.nodes[node].rings;
        let before = rings.len();
        rings.retain(|at| *at > now);
        rings.len() < before
    }

    fn next_instant(&self) -> Monotonic {
        let nodes = self.nodes.iter();
        let rings = nodes.clone().flat_map(|node| node.rings.iter().copied());
        let blocked = nodes.clone().filter_map(|node| node.blocked);
        let closes = nodes.flat_map(|node| node.active.iter()).filter_map(|id| self.sockets[*id].closed_at);
        rings.chain(blocked).chain(closes).filter(|at| *at > self.now).min().unwrap_or(Monotonic::NEVER)
    }
}

impl Socket {
    fn has_event(&self, now: Monotonic, send_buffer: usize) -> bool {
        if let Some(at) = self.closed_at {
            return at <= now;
        }
        if self.conn.is_none() {
            return false;
        }
        self.reset && !self.reset_seen
            || self.reading && !self.to_server.is_empty()
            || self.reading && self.client_fin && !self.client_fin_seen
            || self.watching && self.to_client.len() < send_buffer / 2
    }
}

/// See the module.
pub struct SimulatedDriver {
    network: Network,
    node: usize,
    buffers: Vec<Vec<u8>>,
    free: Vec<u32>,
}

impl SimulatedDriver {
    fn socket<T>(&mut self, conn: ConnKey, act: impl FnOnce(&mut World, usize) -> T) -> Option<T> {
        let mut world = self.network.world_mut();
        let node = self.node;
        let id =
            world.sockets.iter().position(|socket| socket.node == node && socket.conn == Some(conn) && !socket.gone)?;
        Some(act(&mut world, id))
    }

    fn lease(&mut self, bytes: Vec<u8>) -> Lease {
        let len = bytes.len() as u32;
        let buffer = self.free.pop().unwrap_or_else(|| {
            self.buffers.push(Vec::new());
            self.buffers.len() as u32 - 1
        });
        self.buffers[buffer as usize] = bytes;
        Lease { buffer, len }
    }

    /// One socket's news; at most one piece of input per wait, as a budget would give it.
    fn collect(&mut self, id: usize, out: &mut Vec<Completion<SocketId>>) {
        let mut world = self.network.world_mut();
        let (now, weather) = (world.now, world.weather);
        let piece = 1 + world.below(weather.receive_piece as u64) as usize;
        let socket = &mut world.sockets[id];
        let Some(conn) = socket.conn else { return };
        if let Some(at) = socket.closed_at {
            if at <= now && !std::mem::replace(&mut socket.gone, true) {
                (socket.conn, socket.closed_at) = (None, None);
                out.push(Completion::Closed { conn });
            }
            return;
        }
        if socket.reset {
            if !std::mem::replace(&mut socket.reset_seen, true) {
                out.push(Completion::Failed { conn, kind: io::ErrorKind::ConnectionReset });
            }
            return;
        }
        if socket.watching && socket.to_client.len() < weather.send_buffer / 2 {
            socket.watching = false;
            out.push(Completion::Writable { conn });
        }
        if !socket.reading {
            return;
        }
        let count = piece.min(socket.to_server.len());
        let bytes: Vec<u8> = socket.to_server.drain(..count).collect();
        let ended = socket.to_server.is_empty() && socket.client_fin && !socket.client_fin_seen;
        socket.client_fin_seen |= ended;
        drop(world);
        if !bytes.is_empty() {
            let lease = self.lease(bytes);
            out.push(Completion::Received { conn, lease });
        }
        if ended {
            out.push(Completion::EndOfStream { conn });
        }
    }
}

impl Driver for SimulatedDriver {
    type Socket = SocketId;

    fn now(&self) -> Monotonic {
        self.network.now()
    }

    fn wall(&self) -> WallMillis {
        WallMillis(EPOCH_MS + self.network.now().as_nanos() / 1_000_000)
    }

    fn random(&mut self) -> u64 {
        self.network.world_mut().random()
    }

    fn wait(&mut self, wait: Wait, work_arrived: &mut dyn FnMut() -> bool, out: &mut Vec<Completion<SocketId>>) {
        let node = self.node;
        let slept;
        let active = {
            let mut world = self.network.world_mut();
            slept = world.nodes[node].blocked.take().is_some();
            world.take_rings(node);
            while let Some(id) = world.nodes[node].arrivals.pop_front() {
                out.push(Completion::Accepted {
                    socket: SocketId(id),
                    peer: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
                });
            }
            std::mem::take(&mut world.nodes[node].active)
        };
        for id in &active {
            self.collect(*id, out);
        }
        let mut world = self.network.world_mut();
        for id in active {
            let keep = !world.sockets[id].gone;
            world.sockets[id].active = keep;
            if keep {
                world.nodes[node].active.push(id);
            }
        }
        let idle = out.is_empty() && !slept;
        drop(world);
        if let (Wait::Until(deadline), true) = (wait, idle)
            && !work_arrived()
        {
            self.network.world_mut().nodes[node].blocked = Some(deadline);
        }
    }

    fn sleeps_on(&self) -> bool {
        self.network.world().nodes[self.node].blocked.is_some()
    }

    fn attach(&mut self, conn: ConnKey, socket: SocketId) {
        let mut world = self.network.world_mut();
        world.sockets[socket.0].conn = Some(conn);
        world.activate(socket.0);
    }

    fn refuse(&mut self, socket: SocketId, response: &[u8]) {
        let mut world = self.network.world_mut();
        let socket = &mut world.sockets[socket.0];
        socket.to_client.extend(response);
        (socket.server_fin, socket.gone) = (true, true);
    }

    fn stop_accepting(&mut self) {
        self.network.world_mut().nodes[self.node].accepting = false;
    }

    fn bytes_mut(&mut self, lease: &Lease) -> &mut [u8] {
        &mut self.buffers[lease.buffer as usize]
    }

    fn release(&mut self, lease: Lease) {
        self.buffers[lease.buffer as usize] = Vec::new();
        self.free.push(lease.buffer);
    }

    fn flush(&mut self, batch: &mut SendBatch) {
        for index in 0..batch.len() {
            let (conn, bytes) = batch.entry(index);
            let bytes = bytes.to_vec();
            let outcome = self.socket(conn, |world, id| world.take(id, &bytes));
            batch.set_outcome(index, outcome.unwrap_or(Outcome::Error(io::ErrorKind::NotConnected)));
        }
    }

    fn watch_writable(&mut self, conn: ConnKey) {
        self.socket(conn, |world, id| {
            world.sockets[id].watching = true;
            world.activate(id);
        });
    }

    fn pause_reads(&mut self, conn: ConnKey) {
        self.socket(conn, |world, id| world.sockets[id].reading = false);
    }

    fn resume_reads(&mut self, conn: ConnKey) {
        self.socket(conn, |world, id| {
            world.sockets[id].reading = true;
            world.activate(id);
        });
    }

    fn shutdown_write(&mut self, conn: ConnKey) {
        self.socket(conn, |world, id| world.sockets[id].server_fin = true);
    }

    fn close(&mut self, conn: ConnKey) {
        self.socket(conn, |world, id| {
            let close = world.weather.close;
            let at = world.delay(close);
            let socket = &mut world.sockets[id];
            // A close with unread input resets the connection: what the client has not read is lost.
            if !socket.server_fin || !socket.to_server.is_empty() {
                socket.reset = true;
                socket.to_client.clear();
            }
            socket.closed_at = Some(at);
            world.activate(id);
        });
    }

    fn wake(&mut self, peer: NodeId) {
        let mut world = self.network.world_mut();
        if !world.weather.deaf {
            let doorbell = world.weather.doorbell;
            let at = world.delay(doorbell);
            world.nodes[peer.index()].rings.push(at);
        }
    }
}

impl World {
    /// What the kernel takes of a send.
    fn take(&mut self, id: usize, bytes: &[u8]) -> Outcome {
        let cut = self.weather.short_send_in > 0 && self.below(self.weather.short_send_in) == 0;
        let part = self.below(bytes.len() as u64) as usize;
        let room = self.weather.send_buffer.saturating_sub(self.sockets[id].to_client.len());
        let socket = &mut self.sockets[id];
        if socket.reset {
            return Outcome::Error(io::ErrorKind::ConnectionReset);
        }
        let count = if cut { part } else { bytes.len() }.min(room);
        socket.to_client.extend(&bytes[..count]);
        if count == bytes.len() {
            Outcome::Sent
        } else {
            socket.ever_short = true;
            Outcome::Short(count)
        }
    }
}

/// The wall clock at the simulation's zero: 2026-01-01.
const EPOCH_MS: u64 = 1_767_225_600_000;
