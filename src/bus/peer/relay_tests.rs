//! What is relayed by a bus that two gateways share, over meshes driven by hand.

use std::time::Duration;

use super::*;
use crate::bus::{EVENT_TOPICS, EmbeddedBus, TopicBounds, rebuild};
use crate::class::Class;
use crate::frame::FrameKind;
use crate::id::{ConnKey, SessionId};
use crate::protocol::frames::types;
use crate::protocol::frames::write::player_command_body;
use crate::protocol::relay::Sender;
use crate::router::{Bounds, Wake, mesh};

const BUS: NodeId = NodeId(3);
const NODES: Nodes = Nodes { shards: 2, presence: NodeId(2) };
const WINDOW: Duration = Duration::from_secs(300);
const SESSION: SessionId = SessionId([1; 16]);
const FROM: ConnAddr = ConnAddr { shard: NodeId(1), conn: ConnKey { slot: 5, generation: 2 } };
const EVENT: FrameKind = FrameKind { frame_type: types::EVENT, kind: 300 };
const DELTA: FrameKind = FrameKind { frame_type: types::WORLD_DELTA, kind: 0 };
const INPUT: u16 = 0x8001;

struct NoRules;

impl EventRules for NoRules {
    fn rule(&self, _event_type: &str) -> Option<EventRule<'_>> {
        None
    }
}

struct Nobody;

impl Wake for Nobody {
    fn wake(&self) {}
}

/// A gateway of those that share the bus: its shards' ends of the mesh, and the peer.
struct Gateway<B> {
    ports: Vec<Port>,
    peer: BusPeer<B, NoRules>,
}

fn topics() -> Vec<&'static str> {
    EVENT_TOPICS.into_iter().chain([relay::TOPIC]).collect()
}

impl Gateway<EmbeddedBus> {
    fn of(bus: &EmbeddedBus) -> Self {
        Self::on(bus.reader(&topics(), Arc::new(Nobody)), Publishers::new(WINDOW), Bounds::default())
    }
}

impl<B: Bus> Gateway<B> {
    fn on(bus: B, publishers: Publishers, bounds: Bounds) -> Self {
        let mut ports = mesh::build(4, bounds);
        let port = ports.pop().unwrap();
        let peer = BusPeer::new(port, bus, Latest::new(NoRules), NODES, &topics()).relaying(publishers);
        Self { ports, peer }
    }

    /// Sends a record of the room and lets the peer take it; what it answers.
    fn send(&mut self, correlation: u64, value: Vec<u8>) -> Option<Deliver> {
        let append = relay::record(&relay::TOPIC.into(), FROM, correlation, "arena", value);
        self.ports[1].request(BUS, Request::Append(Box::new(append)));
        self.turn(0);
        self.ports[1].take_deliver().map(|(_, answer)| answer)
    }

    fn turn(&mut self, seconds: u64) -> Monotonic {
        let now = Monotonic::ZERO + Duration::from_secs(seconds);
        let next = self.peer.turn(now, WallMillis(seconds * 1000));
        self.peer.port().wake_list().for_each(drop);
        next
    }

    /// What the homes are given, in order.
    fn given(&mut self) -> Vec<Request> {
        let home = Scope::Room("arena".into()).home(2);
        let given =
            std::iter::from_fn(|| self.ports[home.index()].take_request()).map(|(_, request)| request).collect();
        self.ports[home.index()].wake_list().for_each(drop);
        given
    }

    fn events(&mut self) -> Vec<Event> {
        let event = |request| if let Request::Event(event) = request { Some(*event) } else { None };
        self.given().into_iter().filter_map(event).collect()
    }

    fn tell(&mut self, state: PublisherState) {
        let publishing =
            Publishing { room: "arena".into(), session: SESSION, connection: ConnectionId([2; 16]), state };
        self.ports[1].request(BUS, Request::Publishing(Box::new(publishing)));
    }
}

fn frame(kind: FrameKind, sender: Sender, text: &[u8]) -> Vec<u8> {
    relay::frame(kind, false, sender, SESSION, |out| out.extend_from_slice(text))
}

fn input() -> Vec<u8> {
    relay::input(INPUT, SESSION, &player_command_body(9, "ann", b"jump"))
}

/// A publisher's frames, deltas too, come to the homes of every gateway, in the order in which the bus has them and under
/// the places that it gives; the publisher hears of each of them, a player of those with a number.
#[test]
fn relayed_frames_reach_every_gateway() {
    let bus = EmbeddedBus::new(77, TopicBounds::default());
    let (mut a, mut b) = (Gateway::of(&bus), Gateway::of(&bus));
    let sent = [(EVENT, &b"one"[..]), (DELTA, b"8 bytes key, value"), (EVENT, b"two")];
    for (n, (kind, text)) in sent.into_iter().enumerate() {
        let value = frame(kind, Sender::Publisher, text);
        let len = value.len() as u32;
        let number = n as u64;
        let answer = a.send(number, value);
        assert!(
            matches!(answer, Some(Deliver::Relayed { to, correlation, bytes, outcome: Ok(()) })
                if (to, correlation, bytes) == (FROM.conn, number, len)),
            "{answer:?}"
        );
    }
    assert!(b.send(0, frame(EVENT, Sender::Player, b"three")).is_none());
    let answer = b.send(4, frame(EVENT, Sender::Player, b"four"));
    assert!(matches!(answer, Some(Deliver::Answered { correlation: 4, outcome: Ok(()), .. })), "{answer:?}");
    a.turn(0);
    for gateway in [&mut a, &mut b] {
        let events = gateway.events();
        let seen: Vec<_> = events.iter().map(|event| (event.place, event.class, &*event.body)).collect();
        let expected: [(u64, Class, &[u8]); 5] = [
            (1, Class::Reliable, b"one"),
            (2, Class::Delta, b"8 bytes key, value"),
            (3, Class::Reliable, b"two"),
            (4, Class::Reliable, b"three"),
            (5, Class::Reliable, b"four"),
        ];
        assert_eq!(seen, expected);
        assert_eq!((&*events[0].topic, events[0].epoch, events[0].kind), (relay::TOPIC, 77, EVENT));
        assert_eq!(events[1].key, u64::from_le_bytes(*b"8 bytes "));
    }
    let (a, b) = (a.peer.stats(), b.peer.stats());
    assert_eq!((a.relayed_total.read(), a.relay_events_total.read(), a.events_total.read()), (3, 5, 0));
    assert_eq!((b.relayed_total.read(), b.commands_total.read()), (2, 0));
}

/// A player's command is taken on any gateway while a publisher of any gateway is in the room or may come back, and
/// refused else; the room is open everywhere meanwhile.
#[test]
fn players_reach_publishers_of_any_gateway() {
    let bus = EmbeddedBus::new(77, TopicBounds::default());
    let (mut a, mut b) = (Gateway::of(&bus), Gateway::of(&bus));
    let refused = b.send(1, input());
    assert!(matches!(refused, Some(Deliver::Answered { outcome: Err(ErrorCode::Unavailable), .. })), "{refused:?}");
    a.tell(PublisherState::Attached { open: true });
    assert_eq!(a.turn(0), Monotonic::ZERO + WINDOW / 3);
    assert!(matches!(&b.given()[..], []));
    b.turn(0);
    assert!(matches!(&b.given()[..], [Request::Open { scope: Scope::Room(room) }] if &**room == "arena"));
    let taken = b.send(2, input());
    assert!(matches!(taken, Some(Deliver::Answered { correlation: 2, outcome: Ok(()), .. })), "{taken:?}");
    a.turn(0);
    let events = a.events();
    assert_eq!((events.len(), events[0].kind), (1, FrameKind { frame_type: types::PLAYER_COMMAND, kind: INPUT }));
    b.turn(1);
    assert_eq!(b.peer.stats().relay_publishers.read(), 1);
    a.tell(PublisherState::Detached);
    a.turn(1);
    b.turn(1);
    assert!(matches!(b.send(3, input()), Some(Deliver::Answered { outcome: Ok(()), .. })));
    a.tell(PublisherState::Gone);
    a.turn(1);
    b.turn(1);
    assert!(matches!(b.send(4, input()), Some(Deliver::Answered { outcome: Err(ErrorCode::Unavailable), .. })));
    assert_eq!(b.peer.stats().relay_refused_total.read(), 2);
}

/// What a gateway's client library says again though the bus has it reaches homes once: those of a gateway that runs, of
/// one that starts and rebuilds, and of that one afterwards. Another gateway's numbers are its own.
#[test]
fn what_is_said_again_comes_once() {
    let bus = EmbeddedBus::new(77, TopicBounds::default());
    let (mut a, mut b) = (Gateway::of(&bus), Gateway::of(&bus));
    (a.peer, b.peer) = (a.peer.naming(1), b.peer.naming(2));
    for text in [b"one", b"two", b"thr"] {
        a.send(0, frame(EVENT, Sender::Player, text));
    }
    let mut records = Vec::new();
    bus.handle().read(relay::TOPIC, 0, 10, &mut records);
    let again = |at: usize| {
        let Record { key, value, .. } = &records[at];
        let topic = relay::TOPIC.into();
        let append = Append { from: FROM, correlation: 0, topic, key: (**key).into(), value: (**value).into() };
        bus.handle().append(WallMillis(1000), &append).unwrap();
    };
    [1, 2].into_iter().for_each(again);
    b.send(0, frame(EVENT, Sender::Player, b"of b"));
    a.send(0, frame(EVENT, Sender::Player, b"four"));
    a.turn(1);
    let texts = |events: Vec<Event>| events.iter().map(|event| event.body.to_vec()).collect::<Vec<_>>();
    let once = [&b"one"[..], b"two", b"thr", b"of b", b"four"];
    b.turn(1);
    assert_eq!(texts(a.events()), once);
    assert_eq!(texts(b.events()), once);
    assert_eq!(a.peer.stats().duplicates_total.read(), 2);

    let (mut bus_too, mut given) = (bus.handle(), Vec::new());
    let (since, history) = (WallMillis(0), Duration::from_secs(390));
    let give = |event| {
        given.push(event);
        true
    };
    let rebuilt = rebuild(&mut bus_too, &NoRules, &topics(), since, history, || false, give);
    assert_eq!(texts(given), once);
    let mut started = Gateway::of(&bus);
    started.peer = started.peer.after(rebuilt);
    again(2);
    started.turn(2);
    assert_eq!(texts(started.events()), [] as [Vec<u8>; 0]);
}

/// A publisher that stays is told of again, so that others know it for as long as it stays.
#[test]
fn a_publisher_that_stays_is_known() {
    let bus = EmbeddedBus::new(77, TopicBounds::default());
    let (mut a, mut b) = (Gateway::of(&bus), Gateway::of(&bus));
    a.tell(PublisherState::Attached { open: false });
    let mut next = a.turn(0);
    for seconds in (0..900).step_by(100) {
        assert_eq!(next, Monotonic::ZERO + Duration::from_secs(seconds + 100));
        b.turn(seconds + 99);
        assert!(b.given().iter().all(|given| !matches!(given, Request::Open { .. })), "it is no open room");
        let known = |b: &mut Gateway<EmbeddedBus>| {
            b.peer.publishers.as_mut().unwrap().has(WallMillis((seconds + 99) * 1000), "arena")
        };
        assert!(known(&mut b), "{seconds}");
        next = a.turn(seconds + 100);
    }
    drop(a);
    b.turn(1000);
    b.turn(1299);
    assert!(b.peer.publishers.as_mut().unwrap().has(WallMillis(1_299_000), "arena"));
    assert!(!b.peer.publishers.as_mut().unwrap().has(WallMillis(1_300_000), "arena"));
}

/// A record that no gateway wrote is kept apart and holds nothing up.
#[test]
fn foreign_records_are_poison() {
    let bus = EmbeddedBus::new(77, TopicBounds::default());
    let mut gateway = Gateway::of(&bus);
    let put = |key: &[u8], value: &[u8]| {
        let (topic, from) = (relay::TOPIC.into(), ConnAddr::NOBODY);
        let append = Append { from, correlation: 0, topic, key: key.into(), value: value.into() };
        bus.handle().append(WallMillis(1), &append).unwrap();
    };
    put(b"arena", b"{}");
    put(b"no room", &frame(EVENT, Sender::Player, b""));
    put(b"arena", &frame(EVENT, Sender::Player, b"good"));
    gateway.turn(1);
    assert_eq!(gateway.events().iter().map(|event| event.place).collect::<Vec<_>>(), [3]);
    let mut dead = Vec::new();
    bus.handle().read(DEAD_TOPIC, 0, 10, &mut dead);
    let text = std::str::from_utf8(&dead[0].value).unwrap();
    assert!(text.contains(r#""topic":"ringgate.relay","partition":0,"offset":0,"reason":"2 bytes are less"#), "{text}");
    assert_eq!((dead.len(), gateway.peer.stats().poison_total.read()), (2, 2));
}

/// A publisher hears of a frame that the bus refused, whether it gave it a number or not; what is told of publishers is
/// told again soon.
#[test]
fn refusals_are_told() {
    let mut gateway = Gateway::on(Away, Publishers::new(WINDOW), Bounds::default());
    for kind in [EVENT, DELTA] {
        let answer = gateway.send(0, frame(kind, Sender::Publisher, b"12345678"));
        assert!(matches!(answer, Some(Deliver::Relayed { correlation: 0, outcome: Err(ErrorCode::Unavailable), .. })));
    }
    gateway.tell(PublisherState::Attached { open: true });
    assert_eq!(gateway.turn(1), Monotonic::ZERO + Duration::from_secs(1) + limits::RELAY_NOTICE_AGAIN);
    assert_eq!(gateway.peer.stats().relay_refused_total.read(), 2);
}

/// A start gives homes the frames of the history, the deltas of its last minute, and knows the publishers of its last
/// window.
#[test]
fn a_rebuild_gives_what_was_relayed() {
    let bus = EmbeddedBus::new(77, TopicBounds::default());
    let put = |second: u64, append: &Append| _ = bus.handle().append(WallMillis(second * 1000), append).unwrap();
    let record = |value| relay::record(&relay::TOPIC.into(), FROM, 0, "arena", value);
    let about = |room: &str| {
        let state = PublisherState::Attached { open: true };
        let publishing = Publishing { room: room.into(), session: SESSION, connection: ConnectionId([2; 16]), state };
        relay::notice(&relay::TOPIC.into(), &publishing)
    };
    put(5, &record(frame(EVENT, Sender::Publisher, b"too old")));
    put(20, &about("old"));
    put(30, &record(frame(EVENT, Sender::Publisher, b"kept")));
    put(130, &about("arena"));
    put(330, &record(frame(DELTA, Sender::Publisher, b"12345678 old")));
    put(340, &record(frame(DELTA, Sender::Publisher, b"12345678 new")));
    let (since, history) = (WallMillis(10_000), Duration::from_secs(390));
    let mut given = Vec::new();
    let rebuilt = rebuild(
        &mut bus.handle(),
        &NoRules,
        &topics(),
        since,
        history,
        || false,
        |event| {
            given.push((event.place, event.class));
            true
        },
    );
    assert_eq!(given, [(3, Class::Reliable), (6, Class::Delta)]);
    let mut publishers = Publishers::new(WINDOW);
    for (accepted, publishing) in rebuilt.notices.clone() {
        publishers.note(WallMillis(400_000), accepted, publishing);
    }
    assert!(publishers.open_rooms(WallMillis(400_000)).map(|room| &**room).eq(["arena"]));
    let mut gateway = Gateway::of(&bus);
    gateway.peer = gateway.peer.after(rebuilt);
    gateway.turn(400);
    assert!(gateway.given().is_empty(), "it reads on behind the rebuild");
}

/// A bus that takes nothing.
struct Away;

impl Bus for Away {
    fn durability(&self) -> crate::ports::Durability {
        crate::ports::Durability::Kafka
    }

    fn epoch(&self, _topic: &str) -> u64 {
        1
    }

    fn append(&mut self, _now: WallMillis, _append: &Append) -> Result<Accepted, ErrorCode> {
        Err(ErrorCode::Unavailable)
    }

    fn completed(&mut self, _out: &mut Vec<Completed>) {}

    fn range(&self, _topic: &str) -> (u64, u64) {
        (0, 0)
    }

    fn since(&self, _topic: &str, _since: WallMillis) -> u64 {
        0
    }

    fn read(&mut self, _topic: &str, offset: u64, _max: usize, _out: &mut Vec<Record>) -> u64 {
        offset
    }

    fn done(&mut self, _topic: &str, _offset: u64) {}
}
