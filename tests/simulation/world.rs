//! N shipped shards, embedded presence, model clients, one seed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::Duration;

use ringgate::auth::{Grant, RoomKey, Signer, Verifier};
use ringgate::class::Class;
use ringgate::delivery;
use ringgate::id::{NodeId, SessionId};
use ringgate::limits;
use ringgate::message::{Deliver, Request};
use ringgate::ports::Presence;
use ringgate::presence::EmbeddedPresence;
use ringgate::protocol::routes::Routes;
use ringgate::router::{Bounds, Latest, Port, mesh::build};
use ringgate::session::{Clocks, Settings};
use ringgate::shard::driver::Driver;
use ringgate::shard::driver::simulated::{Network, SimulatedDriver, Weather};
use ringgate::shard::{NodeState, Shard, ShardConfig};
use ringgate::stats::ShardStats;
use ringgate::streams::HomeConfig;
use ringgate::time::{Monotonic, Rate};

use crate::backend::{Backend, SERVICE_ROOM};
use crate::client::{Client, Seat, State, Temper};
use crate::oracle::Oracle;

/// What a run varies.
#[derive(Clone, Debug)]
pub struct Plan {
    pub shards: u16,
    pub rooms: usize,
    pub publishers: usize,
    pub players: usize,
    pub steps: usize,
    pub weather: Weather,
    pub bounds: Bounds,
    pub queue: delivery::Limits,
    /// One client action in this many is a reset, a FIN, a kick or a change of mood; 0 = none.
    pub trouble_in: u64,
    pub tempers: Vec<Temper>,
    pub event_bytes: usize,
    pub keys: u64,
    /// Every key in every step, to watch turns.
    pub all_keys: bool,
    /// Frames of one batch.
    pub batch_frames: usize,
    /// Publishers send this many events and deltas at once.
    pub burst: usize,
    /// One action in this many enters or leaves a room, one in as many is a command; 0 = none.
    pub moves_in: u64,
    /// Rooms that only the rooms service lets sessions into.
    pub service_rooms: usize,
    /// One player in this many speaks dialect A; 0 = none.
    pub texts_in: u32,
    /// One step in this many brings an event of the bus; 0 = none.
    pub events_in: u64,
    /// Reliable frames that a stream's history keeps; fewer than what a client can miss make it lose its session's past.
    pub history_events: usize,
    /// Seconds that the tokens of players live.
    pub token_life_s: Option<u64>,
}

pub struct World {
    pub network: Network,
    pub shards: Vec<Shard<SimulatedDriver>>,
    pub clients: Vec<Client>,
    pub oracle: Oracle,
    pub backend: Backend,
    presence: EmbeddedPresence,
    presence_port: Port,
    presence_awake: bool,
    /// Presence does nothing.
    pub presence_stuck: bool,
    presence_deadline: Monotonic,
    wakers: Vec<SimulatedDriver>,
    settings: Latest<Settings>,
    signer: Signer,
    plan: Plan,
    kicked: u64,
}

impl World {
    pub fn new(seed: u64, plan: Plan) -> Self {
        let nodes = usize::from(plan.shards) + 2;
        let network = Network::new(seed, nodes, plan.weather);
        let mut ports: Vec<Port> = build(nodes, plan.bounds);
        let bus_port = ports.pop().expect("the bus is the last node");
        let presence_port = ports.pop().expect("presence is the last but one");
        let secret = b"a secret of at least thirty-two bytes";
        let signer = Signer::from_secret(secret).expect("a good secret");
        let shared = Latest::new(settings(&plan, Verifier::from_secret(secret).expect("a good secret")));
        let shards = shards(&network, ports, &plan, &shared, 77, seed);
        let wakers: Vec<_> = (0..nodes as u16).map(|node| network.driver(NodeId(node))).collect();
        #[cfg_attr(not(feature = "mutants"), expect(unused_mut, reason = "only mutants change it"))]
        let mut backend = {
            let users = (plan.publishers + plan.players) as u32;
            Backend::new(bus_port, plan.shards, Routes::default(), users)
        };
        #[cfg(feature = "mutants")]
        backend.break_with(plan.queue.mutant);
        let mut world = Self {
            presence: EmbeddedPresence::new(Duration::from_secs(300), 1 << 20, seed),
            presence_port,
            presence_awake: true,
            presence_stuck: false,
            presence_deadline: Monotonic::ZERO,
            backend,
            wakers,
            settings: shared,
            signer,
            oracle: Oracle::counting(plan.all_keys, plan.history_events < ENOUGH_HISTORY),
            network,
            shards,
            clients: Vec::new(),
            plan,
            kicked: 0,
        };
        world.clients = (0..world.plan.publishers + world.plan.players).map(|n| world.client(n as u32)).collect();
        world
    }

    fn client(&self, number: u32) -> Client {
        let plan = &self.plan;
        let publisher = (number as usize) < plan.publishers;
        let room = |number: usize| format!("room-{}", number % plan.rooms);
        let token = self.token(number);
        let temper = if publisher { Temper::Fast } else { plan.tempers[number as usize % plan.tempers.len()] };
        let window = (!publisher && number % 5 == 4).then_some(8);
        let mut client = Client::new(number, room(number as usize), token, publisher, temper, window);
        let services = (0..plan.service_rooms).map(service_room);
        client.rooms = (0..plan.rooms).map(room).chain(services).map(|room| (room, Seat::Out)).collect();
        client.text = !publisher && plan.texts_in > 0 && number % plan.texts_in == 1;
        client.short_history = plan.history_events < ENOUGH_HISTORY;
        client.may_be_lost = client.short_history;
        if plan.burst > 0 {
            client.catch_up = Duration::from_millis(20);
        }
        client
    }

    /// A token for a client, as old as it may be from now on.
    pub fn token(&self, number: u32) -> String {
        let publisher = (number as usize) < self.plan.publishers;
        let roles: &[&str] = if publisher { &["publisher"] } else { &[] };
        let life = self.plan.token_life_s.filter(|_| !publisher);
        let exp = life.map(|life| self.wakers[0].wall().seconds() + life);
        self.signer.mint(&Grant { sub: &format!("user-{number}"), username: None, roles, exp, ..Grant::default() })
    }

    pub fn delivered(&self) -> u64 {
        self.clients.iter().map(|client| client.delivered).sum()
    }

    /// The whole run: trouble, then peace, then judgement.
    pub fn run(&mut self) -> Result<(), String> {
        for step in 0..self.plan.steps {
            self.act(step)?;
            self.spin(Duration::from_millis(1))?;
            if step.is_multiple_of(64) {
                self.judge()?;
            }
        }
        if self.plan.all_keys {
            let slow = self.clients.iter().filter(|client| matches!(client.temper, Temper::Trickle(_)));
            for client in slow {
                self.oracle.turns_kept(client.number, self.plan.keys as usize)?;
            }
            self.oracle.count_keys = false;
        }
        self.peace()
    }

    /// Everybody reads, reconnects and rests; then each key is published once more and everything must be there.
    fn peace(&mut self) -> Result<(), String> {
        // Small rings and late doorbells together make a round trip of each few messages.
        let limit = 4000 * (1 + self.plan.weather.doorbell.as_millis() as usize / 5);
        for round in 0..limit {
            for index in 0..self.clients.len() {
                if self.clients[index].state == State::Idle {
                    self.connect(index);
                }
                self.join_own(index, 1);
                self.clients[index].read(&self.network, &mut self.oracle, true)?;
            }
            self.spin(Duration::from_millis(5))?;
            if round == limit / 2 {
                if let Some(client) = self.clients.iter().find(|client| client.publisher && client.state != State::Open)
                {
                    return Err(format!("D7: publisher {} is {:?} in peace", client.number, client.state));
                }
                for index in 0..self.plan.publishers {
                    // More than once, so that the last values replace others where credit is used up.
                    for key in (0..self.plan.keys).cycle().take(3 * self.plan.keys as usize) {
                        self.clients[index].publish_delta(&self.network, &mut self.oracle, key, 40);
                    }
                    self.clients[index].publish_event(&self.network, &mut self.oracle, 40);
                }
                self.tell_all();
                for client in &mut self.clients {
                    client.answered()?;
                    client.ping(&self.network);
                }
            }
            let settled = round > limit / 2 && self.clients.iter().all(|client| client.settled(&self.oracle).is_ok());
            if settled {
                break;
            }
        }
        self.judge()?;
        self.told()?;
        self.complete()?;
        self.clients.iter().try_for_each(|client| {
            client.settled(&self.oracle).map_err(|breach| {
                let connection = client.socket.and_then(|socket| self.network.connection(socket));
                let state = connection.map(|(node, conn)| self.shards[node.index()].describe(conn));
                format!("{breach}; the server: {connection:?} {}", state.unwrap_or_default())
            })
        })
    }

    pub fn connect(&mut self, index: usize) {
        let node = NodeId(self.network.below(u64::from(self.plan.shards)) as u16);
        if self.plan.service_rooms > 0 && self.network.below(3) == 0 {
            self.clients[index].forget_some();
        }
        if self.plan.service_rooms > 0 && self.network.below(6) == 0 {
            self.clients[index].claim_more(&self.network);
        }
        self.clients[index].connect(&self.network, node);
    }

    /// A client that is out of its own room asks to get in, by a chance of one in so many. It may have left, or have
    /// been earlier than the publisher that opens the room.
    fn join_own(&mut self, index: usize, chance_in: u64) {
        let client = &mut self.clients[index];
        let ready = matches!(client.state, State::Joining | State::Open) && client.rooms[&client.room] == Seat::Out;
        if ready && self.network.below(chance_in) == 0 {
            let room = client.room.clone();
            client.join(&self.network, &mut self.oracle, &room);
        }
    }

    /// An event of the bus for each room, user and session there is, and for everyone.
    fn tell_all(&mut self) {
        let Self { backend, oracle, network, clients, plan, .. } = self;
        if plan.events_in == 0 {
            return;
        }
        for room in clients[0].rooms.keys() {
            backend.tell_whole_room(network, oracle, room);
        }
        for client in clients.iter() {
            backend.tell_user(network, oracle, &format!("user-{}", client.number));
            backend.tell_session(network, oracle, &client.session);
        }
        backend.tell_everyone(network, oracle);
    }

    /// The bus brings something for somebody.
    fn tell_some(&mut self) {
        let Self { backend, oracle, network, clients, plan, .. } = self;
        if plan.events_in == 0 || network.below(plan.events_in) != 0 {
            return;
        }
        let client = &clients[network.below(clients.len() as u64) as usize];
        // Often several at once, so that small rings are full.
        let service = service_room(network.below(plan.service_rooms.max(1) as u64) as usize);
        for _ in 0..1 + network.below(6) {
            match network.below(if plan.service_rooms > 0 { 12 } else { 8 }) {
                8 | 9 => backend.tell_room(network, oracle, &service),
                10 | 11 => {
                    let Some(session) = SessionId::parse(&client.session).filter(|_| !client.publisher) else {
                        continue;
                    };
                    match network.below(2) {
                        0 => backend.let_in(network, oracle, session, &service, None),
                        _ => backend.take_out(network, oracle, session, &service, None),
                    }
                }
                0..=3 => backend.tell_room(network, oracle, &client.room),
                4 | 5 => backend.tell_user(network, oracle, &format!("user-{}", client.number)),
                6 => backend.tell_session(network, oracle, &client.session),
                _ => backend.tell_everyone(network, oracle),
            }
        }
    }

    /// Some clients do something.
    fn act(&mut self, step: usize) -> Result<(), String> {
        self.tell_some();
        for index in 0..self.clients.len() {
            let network = self.network.clone();
            let client = &mut self.clients[index];
            client.read(&network, &mut self.oracle, false)?;
            if client.state == State::Idle {
                if network.below(4) == 0 {
                    self.connect(index);
                }
                continue;
            }
            self.join_own(index, 40);
            let client = &self.clients[index];
            if client.state != State::Open {
                continue;
            }
            if client.publisher {
                self.backend.open(&client.room);
            }
            self.wander(index);
            let client = &mut self.clients[index];
            if client.publisher {
                self.publish(index, step);
            } else if self.plan.trouble_in > 0 && network.below(self.plan.trouble_in) == 0 {
                self.trouble(index);
            } else if network.below(50) == 0 {
                client.ping(&network);
            }
        }
        Ok(())
    }

    /// Enters or leaves a room; says something to a room's backend or publishers.
    fn wander(&mut self, index: usize) {
        let Self { network, oracle, clients, plan, .. } = self;
        if plan.moves_in == 0 {
            return;
        }
        let client = &mut clients[index];
        let number = network.below((plan.rooms + plan.service_rooms) as u64) as usize;
        let room = match number.checked_sub(plan.rooms) {
            // The first of them is the players' own.
            Some(0) if client.publisher => return,
            Some(number) => service_room(number),
            None => format!("room-{number}"),
        };
        let by_service = room.starts_with(SERVICE_ROOM) && client.rooms[&room] == Seat::In && network.below(2) == 0;
        if network.below(plan.moves_in) == 0 && by_service {
            client.leave_by_service(network, &room);
        } else if network.below(plan.moves_in) == 0 {
            client.move_in_or_out(network, oracle, &room);
        } else if client.rooms[&room] == Seat::In && !client.publisher {
            match network.below(plan.moves_in) {
                0 => client.command_bus(network, oracle, &room),
                1 => client.command_publishers(network, oracle, &room),
                _ => {}
            }
        }
    }

    fn publish(&mut self, index: usize, step: usize) {
        let network = self.network.clone();
        let client = &mut self.clients[index];
        if self.plan.all_keys {
            for key in 0..self.plan.keys {
                client.publish_delta(&network, &mut self.oracle, key, 60);
            }
            if step.is_multiple_of(16) {
                client.publish_event(&network, &mut self.oracle, 20);
            }
            return;
        }
        for number in 0..self.plan.burst {
            client.publish_event(&network, &mut self.oracle, 10);
            client.publish_delta(&network, &mut self.oracle, number as u64 % self.plan.keys, 10);
        }
        for _ in 0..network.below(4) {
            if network.below(3) == 0 {
                let size = network.below(self.plan.event_bytes as u64) as usize;
                client.publish_event(&network, &mut self.oracle, size);
            } else if network.below(12) == 0 {
                client.publish_forget(&network, &mut self.oracle, network.below(self.plan.keys));
            } else {
                client.publish_delta(&network, &mut self.oracle, network.below(self.plan.keys), 40);
            }
        }
    }

    fn trouble(&mut self, index: usize) {
        let network = self.network.clone();
        let Some(socket) = self.clients[index].socket else { return };
        match network.below(8) {
            0..=2 => {
                network.reset(socket);
                self.clients[index].drop_socket();
            }
            3 => {
                network.finish(socket);
                self.clients[index].drop_socket();
            }
            // A second connection takes the session over while the first still stands.
            4 => self.connect(index),
            5 => self.kick(index),
            _ => {
                let pause = Duration::from_millis(network.below(3000));
                self.clients[index].stalled_until = network.now() + pause;
                self.clients[index].steady = false;
                self.clients[index].temper = match network.below(3) {
                    0 => Temper::Fast,
                    1 => Temper::Trickle(1 + network.below(600) as usize),
                    _ => Temper::Stall,
                };
            }
        }
    }

    /// The bus brings a kick of the client's user.
    fn kick(&mut self, index: usize) {
        self.kicked += 1;
        let client = &mut self.clients[index];
        self.backend.kick(&self.network, &format!("user-{}", client.number));
        // The session is gone: the client starts anew, and its old positions mean nothing.
        (client.resume, client.may_be_lost) = (None, true);
    }

    /// Lets the node work for this much virtual time.
    pub fn spin(&mut self, span: Duration) -> Result<(), String> {
        let until = self.network.now() + span;
        loop {
            let mut worked = turn_shards(&self.network, &mut self.shards);
            worked |= self.turn_presence();
            worked |= self.backend.turn(&self.network, &mut self.wakers);
            worked |= self.backend.serve(&self.network, &mut self.oracle);
            if worked {
                // A turn costs time, so a flood cannot stop the clock.
                self.network.advance(self.network.now() + Duration::from_micros(20));
            } else if self.network.now() >= until {
                return Ok(());
            } else {
                self.network.advance(until);
            }
            if self.network.now() > until + Duration::from_secs(5) {
                return Err("D8: the node never rests".into());
            }
        }
    }

    fn turn_presence(&mut self) -> bool {
        let node = self.presence_port.id();
        let now = self.network.now();
        if self.presence_stuck {
            return false;
        }
        if !(self.presence_awake || self.network.take_ring(node) || self.presence_deadline <= now) {
            return false;
        }
        self.presence_port.awake();
        self.presence_port.flush_outboxes();
        let mut replies = Vec::new();
        while let Some((_, request)) = self.presence_port.take_request() {
            if let Request::Presence(request) = request {
                self.presence.handle(now, *request, &mut replies);
            }
        }
        self.presence_deadline = self.presence.poll(now, &mut replies);
        for reply in replies {
            self.presence_port.deliver(reply.to().shard, Deliver::Presence(Box::new(reply)));
        }
        let wake: Vec<NodeId> = self.presence_port.wake_list().collect();
        wake.into_iter().for_each(|peer| self.wakers[node.index()].wake(peer));
        self.presence_port.announce_sleep();
        self.presence_awake = self.presence_port.has_input();
        true
    }

    /// D2: what was acknowledged is there.
    pub fn complete(&mut self) -> Result<(), String> {
        let stayed = |room: &str, sent| {
            let publishers = self.clients.iter().filter(|client| client.publisher);
            let mut inside = publishers.filter(|client| client.seats().any(|seat| seat == room));
            inside.any(|client| client.since.get(room).is_some_and(|since| *since <= sent))
        };
        self.oracle.complete(&self.backend.commands(), stayed)
    }

    /// D6: what a queue left out is what its client was told of.
    fn told(&self) -> Result<(), String> {
        if self.plan.trouble_in == 0 {
            // No connection ended, so the node's account is the sum of what its clients were told.
            let views = self.clients.iter().flat_map(|client| client.streams.values());
            let told: u64 = views.map(|view| view.told).sum();
            let accounts = self.shards.iter().map(|shard| shard.ledger().accounts[Class::Delta.index()]);
            let left: u64 = accounts.map(|account| account.replaced + account.dropped).sum();
            if told != left {
                return Err(format!("D6: {left} deltas were left out, clients were told of {told}"));
            }
        }
        for client in &self.clients {
            let Some((node, conn)) = client.socket.and_then(|socket| self.network.connection(socket)) else { continue };
            let Some(queue) = self.shards[node.index()].queue(conn) else { continue };
            let told: u64 = client.streams.values().map(|view| view.told).sum();
            let left = queue.deltas_left_out();
            // What a LEAVE leaves out of its own room is not told.
            let left_rooms = client.leaves > 0 && told + client.told_of_left <= left;
            if told != left && !left_rooms {
                return Err(format!(
                    "D6: client {} was told of {told} deltas left out, there are {left}",
                    client.number
                ));
            }
        }
        Ok(())
    }

    /// What must hold at any time. Each judgement is followed by a reload, which must change nothing of it.
    fn judge(&mut self) -> Result<(), String> {
        let settings = Settings { routes: Arc::new(Routes::default()), ..(*self.settings).clone() };
        self.settings.publish(settings);
        for shard in &self.shards {
            shard.check();
        }
        let now = self.network.now();
        for client in self.clients.iter().filter(|client| client.state == State::Open && client.temper == Temper::Fast)
        {
            let Some(socket) = client.socket else { continue };
            for view in client.streams.values().filter(|_| !self.network.was_slow(socket)) {
                let Some(had) = view.place else { continue };
                if let Some(place) = self.oracle.overdue(now, &view.name, had, Duration::from_secs(2)) {
                    return Err(format!("D8: client {} still waits for place {place} of {}", client.number, view.name));
                }
            }
        }
        Ok(())
    }

    pub fn summary(&self) -> String {
        let closes = |code: u16| -> usize {
            self.clients.iter().map(|client| client.closes.iter().filter(|close| **close == code).count()).sum()
        };
        let recovered: u64 = self.clients.iter().map(|client| client.recovered).sum();
        let anew: u64 = self.clients.iter().map(|client| client.unrecovered).sum();
        let (acknowledged, commands, events) = self.oracle.counts();
        let moves: u64 = self.clients.iter().map(|client| client.moves).sum();
        format!(
            "slots {}, delivered {}, acknowledged {acknowledged}, commands {commands}, events {events}, moves {moves}, \
             resumed {recovered}, not recovered {anew}, 4408 {}, 4409 {}, kicks {}",
            self.shards.iter().map(|shard| shard.sizes().0).sum::<usize>(),
            self.delivered(),
            closes(4408),
            closes(4409),
            self.kicked,
        )
    }
}

fn service_room(number: usize) -> String {
    format!("{SERVICE_ROOM}{number}")
}

/// Frames that no client of a run can ever be behind.
pub const ENOUGH_HISTORY: usize = 4096;

/// The shards of a node; `epoch` numbers the streams that have no log behind them.
pub fn shards(
    network: &Network,
    ports: Vec<Port>,
    plan: &Plan,
    settings: &Latest<Settings>,
    epoch: u64,
    seed: u64,
) -> Vec<Shard<SimulatedDriver>> {
    let node = Arc::new(NodeState {
        lease: Arc::new(ringgate::ports::Lease::endless()),
        connections: AtomicU64::new(0),
        connections_max: 10_000,
        draining: AtomicBool::new(false),
        abandon: AtomicBool::new(false),
        reconnect_spread: Duration::from_secs(5),
    });
    let shards = ports.into_iter().map(|port| {
        let homes = HomeConfig {
            shard: port.id(),
            shards: plan.shards,
            epoch,
            seed,
            batch_frames: plan.batch_frames,
            history_events: plan.history_events,
            history_bytes: 8 << 20,
            history_total_bytes: 64 << 20,
            history_time: Duration::from_secs(390),
            own_streams: if plan.history_events < ENOUGH_HISTORY { 16 } else { limits::OWN_STREAMS },
            resume_window: Duration::from_secs(300),
        };
        let driver = network.driver(port.id());
        let (settings, stats) = (settings.clone(), Arc::new(ShardStats::default()));
        Shard::new(driver, ShardConfig { port, homes, settings, stats, node: Arc::clone(&node), seed })
    });
    shards.collect()
}

/// A turn of each shard that has something to do, from a drawn one on; `false` if none had.
pub fn turn_shards(network: &Network, shards: &mut [Shard<SimulatedDriver>]) -> bool {
    let mut worked = false;
    let first = network.below(shards.len() as u64) as usize;
    for offset in 0..shards.len() {
        let index = (first + offset) % shards.len();
        if network.is_runnable(NodeId(index as u16)) {
            shards[index].turn();
            worked = true;
        }
    }
    worked
}

/// What the node's shards are told.
pub fn settings(plan: &Plan, verifier: Verifier) -> Settings {
    Settings {
        key_reading: None,
        room_key: RoomKey::new(b"a simulation's"),
        rooms_epoch: Arc::new(1.into()),
        relays_by_bus: false,
        relay_topic: "ringgate.relay".into(),
        rooms_calls: Rate::per_minute(60),
        verifier: Arc::new(verifier),
        routes: Arc::new(Routes::default()),
        origins: Vec::new(),
        trusted_proxies: Vec::new(),
        newcomers_max: 1 << 20,
        dev: false,
        page: &[],
        guests: None,
        gateway_id: "sim".into(),
        nonce: 1,
        shards: plan.shards,
        presence: NodeId(plan.shards),
        bus: NodeId(plan.shards + 1),
        durability: "memory",
        queue: plan.queue.clone(),
        max_frame: 64 << 10,
        rooms_max: 8,
        moves: Rate::per_second(limits::MOVES_PER_SECOND),
        player_commands: Rate::per_second(limits::PLAYER_COMMANDS_PER_SECOND),
        clocks: Clocks { idle: Duration::from_secs(3600), ..Clocks::default() },
    }
}
