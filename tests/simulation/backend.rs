//! The bus of a simulated node: the shipped peer over the shipped embedded log, and a backend that appends events.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ringgate::bus::{BusPeer, EVENT_TOPICS, EmbeddedBus, Nodes, TopicBounds};
use ringgate::id::{ConnAddr, EventId, NodeId, Scope, SessionId};
use ringgate::message::Append;
use ringgate::ports::Bus;
use ringgate::protocol::envelope::put_event;
use ringgate::protocol::routes::Routes;
use ringgate::router::peer::Peer;
use ringgate::router::{Latest, Port, Wake};
use ringgate::shard::driver::Driver;
use ringgate::shard::driver::simulated::{Network, SimulatedDriver};

use crate::oracle::Oracle;

pub struct Backend {
    peer: BusPeer<EmbeddedBus, Routes>,
    log: EmbeddedBus,
    rang: Arc<Bell>,
    /// The peer has more to do, or something was there when it was about to sleep.
    awake: bool,
}

/// The log's own doorbell.
#[derive(Default)]
struct Bell(AtomicBool);

impl Wake for Bell {
    fn wake(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Backend {
    pub fn new(port: Port, shards: u16, routes: Routes) -> Self {
        let log = EmbeddedBus::new(EPOCH, TopicBounds::default());
        let rang = Arc::new(Bell::default());
        let reader = log.reader(&EVENT_TOPICS, Arc::clone(&rang) as Arc<dyn Wake>);
        let nodes = Nodes { shards, presence: NodeId(shards) };
        Self { peer: BusPeer::new(port, reader, Latest::new(routes), nodes, &EVENT_TOPICS), log, rang, awake: true }
    }

    /// Runs a broken policy.
    #[cfg(feature = "mutants")]
    pub fn break_with(&mut self, mutant: ringgate::mutant::Mutant) {
        self.peer.break_with(mutant);
    }

    /// A turn of the peer, if it does not sleep.
    pub fn turn(&mut self, network: &Network, wakers: &mut [SimulatedDriver]) -> bool {
        let node = self.peer.port().id();
        if !(network.take_ring(node) | self.rang.0.swap(false, Ordering::Relaxed) | self.awake) {
            return false;
        }
        let (now, wall) = (network.now(), wakers[node.index()].wall());
        self.peer.port().awake();
        let next = self.peer.turn(now, wall);
        let wake: Vec<NodeId> = self.peer.port().wake_list().collect();
        wake.into_iter().for_each(|peer| wakers[node.index()].wake(peer));
        self.peer.port().announce_sleep();
        self.awake = next <= now || self.peer.port().has_input();
        true
    }

    /// A service tells a room something.
    pub fn tell_room(&mut self, network: &Network, oracle: &mut Oracle, room: &str) {
        self.tell(network, oracle, "games.events", "games.event.turn_changed", Scope::Room(room.into()));
    }

    /// A user gets a private message.
    pub fn tell_user(&mut self, network: &Network, oracle: &mut Oracle, user: &str) {
        self.tell(network, oracle, "chat.events", "chat.event.message_received", Scope::User(user.into()));
    }

    /// A session gets an answer.
    pub fn tell_session(&mut self, network: &Network, oracle: &mut Oracle, session: &str) {
        let Some(session) = SessionId::parse(session) else { return };
        self.tell(network, oracle, "games.events", "games.event.rooms_listed", Scope::Session(session));
    }

    /// An announcement.
    pub fn tell_everyone(&mut self, network: &Network, oracle: &mut Oracle) {
        self.tell(network, oracle, "system.events", "system.event.announcement", Scope::Everyone);
    }

    /// Ends a user's sessions.
    pub fn kick(&mut self, network: &Network, user: &str) {
        self.append(network, "system.events", "system.event.kick", &Scope::User(user.into()));
    }

    fn tell(&mut self, network: &Network, oracle: &mut Oracle, topic: &str, event_type: &str, scope: Scope) {
        let place = self.append(network, topic, event_type, &scope);
        oracle.event(format!("{topic}.0/{scope}"), place);
    }

    /// Appends an event that names its own place.
    fn append(&mut self, network: &Network, topic: &str, event_type: &str, target: &Scope) -> u64 {
        let wall = network.driver(NodeId(0)).wall();
        let place = self.log.range(topic).1 + 1;
        let mut value = Vec::new();
        let id = EventId::v5(&[7; 16], &[topic.as_bytes(), &place.to_le_bytes()]);
        put_event(&mut value, id, event_type, wall, target, &format!("{{\"n\":{place}}}"));
        let append = Append {
            from: ConnAddr::NOBODY,
            correlation: 0,
            topic: topic.into(),
            key: Box::default(),
            value: value.into(),
        };
        self.log.append(wall, &append).expect("the peer reads on");
        place
    }

    /// The commands in the log: the user's number and the correlation of each.
    pub fn commands(&mut self) -> Vec<(u32, u64)> {
        let mut records = Vec::new();
        self.log.read("rooms.commands", 0, usize::MAX, &mut records);
        let commands = records.iter().map(|record| {
            let text = String::from_utf8_lossy(&record.value);
            let after = |mark: &str| {
                let rest = text.split_once(mark).unwrap_or_else(|| panic!("{mark} in {text}")).1;
                rest.split('"').next().and_then(|number| number.parse().ok()).expect("a number")
            };
            (after("\"user_id\":\"user-") as u32, after("\"correlation_id\":\""))
        });
        commands.collect()
    }
}

const EPOCH: u64 = 5;
