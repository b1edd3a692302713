//! The bus of a simulated node: the shipped peer over the shipped embedded log, and a backend that appends events and
//! answers the commands of the rooms service.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ringgate::bus::{BusPeer, EVENT_TOPICS, EmbeddedBus, Nodes, TopicBounds};
use ringgate::frame::Audience;
use ringgate::id::{ConnAddr, EventId, NodeId, Scope, SessionId};
use ringgate::message::{Append, ErrorCode};
use ringgate::ports::{Bus, Record};
use ringgate::protocol::envelope::members::{member, text};
use ringgate::protocol::envelope::{Json, ServiceCommand, parse_command, put_event};
use ringgate::protocol::routes::Routes;
use ringgate::router::peer::Peer;
use ringgate::router::{Latest, Port, Wake};
use ringgate::services::Sender;
use ringgate::shard::driver::Driver;
use ringgate::shard::driver::simulated::{Network, SimulatedDriver};

use crate::oracle::{Effect, Oracle, Told};

pub struct Backend {
    peer: BusPeer<EmbeddedBus, Routes>,
    log: EmbeddedBus,
    /// Reads what clients ask of the rooms service, up to `next_command`.
    commands: EmbeddedBus,
    next_command: u64,
    json: Json,
    /// Rooms whose publisher is there: the service lets everybody in.
    open: BTreeSet<String>,
    /// Users there are, `user-0` and on.
    users: u32,
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
    pub fn new(port: Port, shards: u16, routes: Routes, users: u32) -> Self {
        let log = EmbeddedBus::new(EPOCH, TopicBounds::default());
        let rang = Arc::new(Bell::default());
        let reader = log.reader(&EVENT_TOPICS, Arc::clone(&rang) as Arc<dyn Wake>);
        let commands = log.reader(&[COMMANDS], Arc::clone(&rang) as Arc<dyn Wake>);
        let nodes = Nodes { shards, presence: NodeId(shards) };
        let peer = BusPeer::new(port, reader, Latest::new(routes), nodes, &EVENT_TOPICS);
        let (json, open) = (Json::default(), BTreeSet::new());
        Self { peer, log, commands, next_command: 0, json, open, users, rang, awake: true }
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

    /// The rooms service takes its time, then answers every command that is there; `true` if it did.
    pub fn serve(&mut self, network: &Network, oracle: &mut Oracle) -> bool {
        if self.commands.range(COMMANDS).1 == self.next_command || network.below(SERVICE_TURN_IN) != 0 {
            return false;
        }
        let mut records = Vec::new();
        self.next_command = self.commands.read(COMMANDS, self.next_command, usize::MAX, &mut records);
        self.commands.done(COMMANDS, self.next_command);
        for Record { value, .. } in records {
            let mut json = std::mem::take(&mut self.json);
            let command = parse_command(&value, &mut json).expect("a command of the gateway can be read");
            self.answer(network, oracle, &command);
            self.json = json;
        }
        true
    }

    /// A publisher is in its room.
    pub fn open(&mut self, room: &str) {
        if !self.open.contains(room) {
            self.open.insert(room.to_owned());
        }
    }

    fn answer(&mut self, network: &Network, oracle: &mut Oracle, command: &ServiceCommand<'_>) {
        let ServiceCommand { event_id, event_type, session: Some(session), correlation, payload, .. } = command else {
            return;
        };
        let sender = Sender { command: *event_id, session: Some(*session), correlation: correlation.as_deref() };
        let number = correlation.as_deref().and_then(|number| number.parse().ok());
        let room = member(payload, "room_id").and_then(text).unwrap_or_default();
        match &**event_type {
            "games.command.join_room" if room.starts_with(SERVICE_ROOM) || self.open.contains(&*room) => {
                self.let_in(network, oracle, *session, &room, number);
            }
            "games.command.leave_room" => self.take_out(network, oracle, *session, &room, number),
            _ => {
                let event = sender
                    .error(network.driver(NodeId(0)).wall(), None, ErrorCode::RoomNotFound, "nobody has made it")
                    .expect("it has a session");
                let place = self.append(network, EVENTS, event.event_type, &event.target, &None, |_| event.payload);
                oracle
                    .event(format!("{EVENTS}.0/{}", event.target), Told { place, refuses: number, ..Told::default() });
            }
        }
    }

    /// The session joins the room; before and behind that, others hear of it there.
    pub fn let_in(
        &mut self,
        network: &Network,
        oracle: &mut Oracle,
        session: SessionId,
        room: &str,
        number: Option<u64>,
    ) {
        self.tell_several(network, oracle, room);
        self.act(network, oracle, session, Effect { joins: true, room: room.to_owned() }, number);
        self.tell_several(network, oracle, room);
        // Now and then the service has second thoughts.
        if network.below(8) == 0 {
            self.take_out(network, oracle, session, room, None);
        }
    }

    /// The session leaves the room.
    pub fn take_out(
        &mut self,
        network: &Network,
        oracle: &mut Oracle,
        session: SessionId,
        room: &str,
        number: Option<u64>,
    ) {
        self.act(network, oracle, session, Effect { joins: false, room: room.to_owned() }, number);
        self.tell_several(network, oracle, room);
    }

    fn act(&mut self, network: &Network, oracle: &mut Oracle, session: SessionId, effect: Effect, number: Option<u64>) {
        let event_type = if effect.joins { "games.event.lobby_joined" } else { "games.event.room_left" };
        let answers = number.map_or(String::new(), |number| format!("\"correlation_id\":\"{number}\","));
        let payload = |n| format!("{{\"room_id\":\"{}\",{answers}\"n\":{n}}}", effect.room);
        let scope = Scope::Session(session);
        let place = self.append(network, EVENTS, event_type, &scope, &None, payload);
        let told = Told { place, answers: number, effect: Some(effect), ..Told::default() };
        oracle.event(format!("{EVENTS}.0/{scope}"), told);
    }

    fn tell_several(&mut self, network: &Network, oracle: &mut Oracle, room: &str) {
        for _ in 0..network.below(3) {
            self.tell_room(network, oracle, room);
        }
    }

    /// A service tells a room something, or some of its members.
    pub fn tell_room(&mut self, network: &Network, oracle: &mut Oracle, room: &str) {
        let audience = match network.below(4) {
            0 => Some(Audience::Only(self.some_users(network))),
            1 => Some(Audience::Except(self.some_users(network))),
            _ => None,
        };
        self.tell_audience(network, oracle, EVENTS, "games.event.turn_changed", Scope::Room(room.into()), audience);
    }

    /// A service tells everybody in a room something.
    pub fn tell_whole_room(&mut self, network: &Network, oracle: &mut Oracle, room: &str) {
        self.tell(network, oracle, EVENTS, "games.event.turn_changed", Scope::Room(room.into()));
    }

    fn some_users(&self, network: &Network) -> Box<[Box<str>]> {
        let all = 0..self.users;
        let some = all.filter(|_| network.below(2) == 0).map(|number| format!("user-{number}").into());
        let mut some: Vec<Box<str>> = some.collect();
        some.sort_unstable();
        some.into()
    }

    /// A user gets a private message.
    pub fn tell_user(&mut self, network: &Network, oracle: &mut Oracle, user: &str) {
        self.tell(network, oracle, "chat.events", "chat.event.message_received", Scope::User(user.into()));
    }

    /// A session gets an answer.
    pub fn tell_session(&mut self, network: &Network, oracle: &mut Oracle, session: &str) {
        let Some(session) = SessionId::parse(session) else { return };
        self.tell(network, oracle, EVENTS, "games.event.rooms_listed", Scope::Session(session));
    }

    /// An announcement.
    pub fn tell_everyone(&mut self, network: &Network, oracle: &mut Oracle) {
        self.tell(network, oracle, "system.events", "system.event.announcement", Scope::Everyone);
    }

    /// Ends a user's sessions.
    pub fn kick(&mut self, network: &Network, user: &str) {
        self.append(network, "system.events", "system.event.kick", &Scope::User(user.into()), &None, numbered);
    }

    fn tell(&mut self, network: &Network, oracle: &mut Oracle, topic: &str, event_type: &str, scope: Scope) {
        self.tell_audience(network, oracle, topic, event_type, scope, None);
    }

    fn tell_audience(
        &mut self,
        network: &Network,
        oracle: &mut Oracle,
        topic: &str,
        event_type: &str,
        scope: Scope,
        audience: Option<Audience>,
    ) {
        // An empty `except` is none.
        let audience = audience.filter(|audience| !matches!(audience, Audience::Except(users) if users.is_empty()));
        let place = self.append(network, topic, event_type, &scope, &audience, numbered);
        oracle.event(format!("{topic}.0/{scope}"), Told { place, audience, ..Told::default() });
    }

    /// Appends an event whose payload may depend on its own place.
    fn append(
        &mut self,
        network: &Network,
        topic: &str,
        event_type: &str,
        target: &Scope,
        audience: &Option<Audience>,
        payload: impl FnOnce(u64) -> String,
    ) -> u64 {
        let wall = network.driver(NodeId(0)).wall();
        let place = self.log.range(topic).1 + 1;
        let mut value = Vec::new();
        let id = EventId::v5(&[7; 16], &[topic.as_bytes(), &place.to_le_bytes()]);
        put_event(&mut value, id, event_type, wall, target, &payload(place));
        if let Some(audience) = audience {
            let (name, users) = match audience {
                Audience::Only(users) => ("only", users),
                Audience::Except(users) => ("except", users),
            };
            let target = format!("\"target\":{{\"{name}\":{},", serde_json::json!(users));
            value = String::from_utf8(value).expect("an envelope").replacen("\"target\":{", &target, 1).into_bytes();
        }
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

/// A payload that names the event's place.
fn numbered(place: u64) -> String {
    format!("{{\"n\":{place}}}")
}

const EPOCH: u64 = 5;
/// How rooms begin that only the service lets sessions into.
pub const SERVICE_ROOM: &str = "svc-";
const COMMANDS: &str = "games.commands";
const EVENTS: &str = "games.events";
/// One turn in this many, of those that have something to do, the rooms service does it.
const SERVICE_TURN_IN: u64 = 4;
