//! Commands in, events out, over a mesh driven by hand.

use std::time::Duration;

use super::*;
use crate::bus::{EVENT_TOPICS, EmbeddedBus, TopicBounds, rebuild};
use crate::class::Class;
use crate::frame::FrameKind;
use crate::id::{ConnKey, EventId, SessionId};
use crate::message::ErrorCode;
use crate::protocol::envelope::{Audience, EffectRule, EventRule, put_event};
use crate::router::{Bounds, Wake, mesh};

const PRESENCE: NodeId = NodeId(2);
const BUS: NodeId = NodeId(3);
const NODES: Nodes = Nodes { shards: 2, presence: PRESENCE };

const HOUR: Duration = Duration::from_secs(3600);

/// The rules that these tests need.
struct Table;

impl EventRules for Table {
    fn rule(&self, event_type: &str) -> Option<EventRule<'_>> {
        let rule = |to, frame_type, effect| {
            let kind = FrameKind { frame_type, kind: 0 };
            Some(EventRule { to, target: None, class: Class::Reliable, coalesce: None, kind, effect })
        };
        match event_type {
            "battle.event.timeline" => rule(Audience::Room, 33, None),
            "battle.event.end" => rule(Audience::Room, 34, None),
            "games.event.error" => rule(Audience::Session, 35, None),
            "system.event.kick" => rule(Audience::User, 0, Some(EffectRule::Kick)),
            _ => None,
        }
    }
}

/// Wakes nobody: whoever drives by hand looks anyway.
struct Nobody;

impl Wake for Nobody {
    fn wake(&self) {}
}

struct Rig {
    /// Shards 0 and 1, presence.
    ports: Vec<Port>,
    peer: BusPeer<EmbeddedBus, Table>,
    bus: EmbeddedBus,
}

impl Rig {
    fn new(bounds: Bounds, topic: TopicBounds) -> Self {
        let mut ports = mesh::build(4, bounds);
        let port = ports.pop().unwrap();
        let bus = EmbeddedBus::new(77, topic);
        let reader = bus.reader(&EVENT_TOPICS, Arc::new(Nobody));
        Self { ports, peer: BusPeer::new(port, reader, Latest::new(Table), NODES, &EVENT_TOPICS), bus }
    }

    fn event(&mut self, topic: &str, value: &str) -> Result<(), ErrorCode> {
        let (key, value) = (Box::default(), value.as_bytes().into());
        let append = Append { from: ConnAddr::NOBODY, correlation: 0, topic: topic.into(), key, value };
        self.bus.append(WallMillis(1), &append).map(|_| ())
    }

    fn timeline(&mut self, room: &str, n: usize) -> Result<(), ErrorCode> {
        let text = format!(
            r#"{{"event_type":"battle.event.timeline","target":{{"room_id":"{room}"}},"payload":{{"n":{n}}}}}"#
        );
        self.event("games.events", &text)
    }

    fn turn(&mut self) -> Monotonic {
        let next = self.peer.turn(Monotonic::ZERO, WallMillis(1));
        self.peer.port().wake_list().for_each(drop);
        next
    }

    fn events(&mut self, shard: usize) -> Vec<Event> {
        let mut events = Vec::new();
        while let Some((from, request)) = self.ports[shard].take_request() {
            assert_eq!(from, BUS);
            match request {
                Request::Event(event) => events.push(*event),
                other => panic!("{other:?}"),
            }
        }
        self.ports[shard].wake_list().for_each(drop);
        events
    }
}

fn command(correlation: u64, value: Vec<u8>) -> Append {
    let from = ConnAddr { shard: NodeId(1), conn: ConnKey { slot: 5, generation: 2 } };
    Append { from, correlation, topic: "games.commands".into(), key: b"arena".as_slice().into(), value: value.into() }
}

/// A room whose home is that shard.
fn room_of(shard: u16) -> String {
    let mut rooms = (0..).map(|n| format!("r{n}"));
    rooms.find(|room| Scope::Room(room.as_str().into()).home(2) == NodeId(shard)).unwrap()
}

/// A command is in the log before it is acknowledged; without a correlation nobody is answered; a refusal is told.
#[test]
fn commands_are_answered_when_the_log_has_them() {
    let mut rig = Rig::new(Bounds::default(), TopicBounds { records: 4, bytes: 1000 });
    let _service = rig.bus.reader(&["games.commands"], Arc::new(Nobody));
    for correlation in [0, 7, 8, 9] {
        rig.ports[1].request(BUS, Request::Append(Box::new(command(correlation, b"{}".to_vec()))));
    }
    assert_eq!(rig.turn(), Monotonic::NEVER);
    let mut answers = Vec::new();
    while let Some((_, message)) = rig.ports[1].take_deliver() {
        match message {
            Deliver::Answered { to, correlation, outcome } => answers.push((to.slot, correlation, outcome)),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(answers, [(5, 7, Ok(())), (5, 8, Ok(())), (5, 9, Err(ErrorCode::Unavailable))]);
    assert_eq!(rig.bus.range("games.commands"), (0, 3));
    let stats = rig.peer.stats();
    assert_eq!((stats.commands_total.read(), stats.refused_total.read()), (3, 1));
}

/// Events reach the home of their scope with topic, epoch and place.
#[test]
fn events_reach_their_homes() {
    let mut rig = Rig::new(Bounds::default(), TopicBounds::default());
    let rooms = [room_of(0), room_of(1)];
    for n in 0..4 {
        rig.timeline(&rooms[n % 2], n).unwrap();
    }
    rig.turn();
    for (shard, places) in [[1, 3], [2, 4]].into_iter().enumerate() {
        let events = rig.events(shard);
        assert_eq!(events.iter().map(|event| event.place).collect::<Vec<_>>(), places);
        for event in events {
            assert_eq!((&*event.topic, event.partition, event.epoch), ("games.events", 0, 77));
            assert_eq!(event.scope, Scope::Room(rooms[shard].as_str().into()));
        }
    }
}

/// While a home takes nothing, its events stay in the log, writers are refused in the end, and nothing is lost.
#[test]
fn what_the_mesh_does_not_take_stays_in_the_log() {
    let bounds = Bounds { slots: 1, outbox: 1 };
    let mut rig = Rig::new(bounds, TopicBounds { records: 1024, bytes: 1 << 20 });
    let room = room_of(0);
    let mut written = 0;
    while rig.timeline(&room, written).is_ok() {
        written += 1;
        assert_eq!(rig.turn(), Monotonic::NEVER);
        assert!(rig.peer.port().depth().1 <= 1);
    }
    assert!((513..=513 + limits::BUS_READ_RECORDS).contains(&written), "{written}");
    let mut got = Vec::new();
    while got.len() < written {
        let events = rig.events(0);
        assert!(!events.is_empty() || rig.turn() == Monotonic::NEVER);
        got.extend(events.into_iter().map(|event| event.place));
        rig.turn();
    }
    assert_eq!(got, (1..=written as u64).collect::<Vec<_>>());
    assert!(rig.timeline(&room, 0).is_ok(), "there is room again");
}

/// Poison is kept with its reason, counted, and holds nothing up; what gateways say to each other is not poison.
#[test]
fn poison_is_kept_apart() {
    let mut rig = Rig::new(Bounds::default(), TopicBounds::default());
    rig.event("games.events", "\u{1}").unwrap();
    rig.event("games.events", r#"{"event_type":"chess.event.moved","payload":{}}"#).unwrap();
    rig.event("system.events", r#"{"event_type":"system.gateway.started","payload":{}}"#).unwrap();
    rig.timeline(&room_of(0), 1).unwrap();
    rig.turn();
    assert_eq!(rig.events(0).len(), 1);
    assert_eq!((rig.peer.stats().poison_total.read(), rig.peer.stats().events_total.read()), (2, 1));
    let mut dead = Vec::new();
    rig.bus.read(DEAD_TOPIC, 0, 10, &mut dead);
    let text = |at: usize| std::str::from_utf8(&dead[at].value).unwrap();
    assert_eq!(
        text(0),
        r#"{"topic":"games.events","partition":0,"offset":0,"reason":"the record is not a JSON object; send an envelope in UTF-8","data_base64":"AQ=="}"#
    );
    assert!(text(1).contains(r#""offset":1,"reason":"event_type is \"chess.event.moved\"; add"#), "{}", text(1));
    assert_eq!(dead.len(), 2);
}

/// An event for a connection waits, with what is behind it in its topic, until the connection's shard has said whose
/// session that is; of one that is gone, or another process's, it is poison.
#[test]
fn a_connection_is_asked_for_its_session() {
    const NONCE: u64 = 5;
    let mut rig = Rig::new(Bounds::default(), TopicBounds::default());
    rig.peer = rig.peer.naming(NONCE);
    let conn = ConnKey { slot: 7, generation: 3 };
    let session = SessionId([9; 16]);
    let home = Scope::Session(session).home(2).index();
    let id = |nonce, shard| ConnectionId::of(nonce, ConnAddr { shard: NodeId(shard), conn }).to_string();
    let target = |id: &str| {
        format!(
            r#"{{"event_type":"games.event.error","target":{{"connection_id":"{id}"}},"payload":{{"code":"internal"}}}}"#
        )
    };
    for answer in [Some(session), None] {
        rig.event("games.events", &target(&id(NONCE, 1))).unwrap();
        let behind = format!(
            r#"{{"event_type":"games.event.error","target":{{"session_id":"{session}"}},"payload":{{"code":"x"}}}}"#
        );
        rig.event("games.events", &behind).unwrap();
        rig.turn();
        let given = rig.peer.stats().events_total.read();
        assert_eq!(given, if answer.is_some() { 0 } else { 2 }, "both wait");
        let Some((_, Request::WhoIs { from, number, conn: asked })) = rig.ports[1].take_request() else { panic!() };
        assert_eq!((from, asked), (BUS, conn));
        rig.ports[1].deliver(BUS, Deliver::Session { number, session: answer });
        rig.turn();
        let events = rig.events(home);
        assert!(events.iter().all(|event| event.scope == Scope::Session(session)));
        assert_eq!(events.len(), if answer.is_some() { 2 } else { 1 });
    }
    for elsewhere in [id(NONCE + 1, 1), id(NONCE, 2)] {
        rig.event("games.events", &target(&elsewhere)).unwrap();
        rig.turn();
        assert!(rig.ports.iter_mut().all(|port| port.take_request().is_none()));
    }
    assert_eq!(rig.peer.stats().poison_total.read(), 3);
}

/// Poison that cannot be kept is counted, however much it is, and is known as lost until some is kept again.
#[test]
fn lost_poison_is_counted() {
    let mut rig = Rig::new(Bounds::default(), TopicBounds { records: 8, bytes: 1 << 20 });
    let mut reader = rig.bus.reader(&[DEAD_TOPIC], Arc::new(Nobody));
    let poison = |rig: &mut Rig, times: usize| {
        for _ in 0..times {
            rig.event("games.events", "nonsense").unwrap();
            rig.turn();
        }
        (rig.peer.stats().poison_total.read(), rig.peer.stats().poison_lost_total.read(), rig.peer.dead_lost)
    };
    assert_eq!(poison(&mut rig, 5), (5, 0, false));
    assert_eq!(poison(&mut rig, 100), (105, 100, true));
    reader.done(DEAD_TOPIC, 5);
    assert_eq!(poison(&mut rig, 1), (106, 100, false));
}

/// A kick goes to the user's home, and to presence, so that no connection resumes the session.
#[test]
fn a_kick_ends_the_sessions_too() {
    let mut rig = Rig::new(Bounds::default(), TopicBounds::default());
    rig.event("system.events", r#"{"event_type":"system.event.kick","payload":{"user_id":"bad"}}"#).unwrap();
    rig.turn();
    let home = Scope::User("bad".into()).home(2);
    let events = rig.events(home.index());
    assert_eq!((events.len(), &events[0].effect, events[0].kind.frame_type), (1, &Some(Effect::Kick), 0));
    let Some((_, Request::Presence(request))) = rig.ports[2].take_request() else { panic!("presence is not told") };
    assert!(matches!(*request, PresenceRequest::Kick { user, .. } if &*user == "bad"));
}

/// Much more than one turn's budget comes out in order, whatever the rings hold.
#[test]
fn a_long_log_is_read_in_order() {
    for slots in [1, 3, 1024] {
        let mut rig = Rig::new(Bounds { slots, outbox: 2 }, TopicBounds::default());
        let room = room_of(1);
        for n in 0..2000 {
            rig.timeline(&room, n).unwrap();
        }
        let mut got = Vec::new();
        while got.len() < 2000 {
            rig.turn();
            got.extend(rig.events(1).into_iter().map(|event| event.place));
        }
        assert_eq!(got, (1..=2000).collect::<Vec<_>>());
    }
}

/// An envelope that a service wrote is one that the peer reads.
#[test]
fn service_events_are_not_poison() {
    let mut rig = Rig::new(Bounds::default(), TopicBounds::default());
    let mut out = Vec::new();
    let target = Scope::Session(SessionId([1; 16]));
    put_event(&mut out, EventId([1; 16]), "games.event.error", WallMillis(1), &target, r#"{"code":"internal"}"#);
    rig.event("games.events", std::str::from_utf8(&out).unwrap()).unwrap();
    rig.turn();
    let events = rig.events(target.home(2).index());
    assert_eq!((events.len(), rig.peer.stats().poison_total.read()), (1, 0));
}

/// A service's event that comes again under its id is given once, also when the first was given before a restart; an id
/// that several events share, or one that nobody derived, drops nothing.
#[test]
fn repeated_events_are_given_once() {
    let mut rig = Rig::new(Bounds::default(), TopicBounds::default());
    let room = room_of(0);
    let event = |id: &EventId, n: usize| {
        let mut out = Vec::new();
        let payload = format!(r#"{{"n":{n}}}"#);
        put_event(&mut out, *id, "battle.event.timeline", WallMillis(1), &Scope::Room(room.as_str().into()), &payload);
        String::from_utf8(out).unwrap()
    };
    let (derived, random) = (EventId::v5(&[1; 16], &[b"1"]), EventId::v7(WallMillis(1), [3; 10]));
    for (id, n) in [(&derived, 1), (&derived, 1), (&derived, 2), (&random, 3), (&random, 3), (&derived, 1)] {
        rig.event("games.events", &event(id, n)).unwrap();
    }
    rig.turn();
    assert_eq!(rig.events(0).iter().map(|event| event.place).collect::<Vec<_>>(), [1, 3, 4, 5]);
    assert_eq!(rig.peer.stats().duplicates_total.read(), 2);
    let mut given = Vec::new();
    let rebuilt = rebuild(
        &mut rig.bus.handle(),
        &Table,
        &EVENT_TOPICS,
        WallMillis(0),
        HOUR,
        || false,
        |event| {
            given.push(event.place);
            true
        },
    );
    assert_eq!((given, rebuilt.events), (vec![1, 3, 4, 5], 4), "a rebuild leaves out what was left out");
    let port = mesh::build(4, Bounds::default()).pop().unwrap();
    let reader = rig.bus.reader(&EVENT_TOPICS, Arc::new(Nobody));
    let mut restarted = BusPeer::new(port, reader, Latest::new(Table), NODES, &EVENT_TOPICS).after(rebuilt);
    rig.event("games.events", &event(&derived, 2)).unwrap();
    rig.event("games.events", &event(&derived, 9)).unwrap();
    restarted.turn(Monotonic::ZERO, WallMillis(1));
    restarted.port().wake_list().for_each(drop);
    assert_eq!((restarted.stats().duplicates_total.read(), restarted.stats().events_total.read()), (1, 1));
}

/// A repeat is known for as long as histories are kept, however long that was configured, and not beyond.
#[test]
fn repeats_are_known_for_the_history_time() {
    let mut event = Vec::new();
    let id = EventId::v5(&[1; 16], &[b"1"]);
    put_event(&mut event, id, "battle.event.timeline", WallMillis(0), &Scope::Room("arena".into()), "{}");
    for (history, given) in [(HOUR, 1), (Duration::from_secs(1), 2)] {
        let mut rig = Rig::new(Bounds::default(), TopicBounds::default());
        let rebuilt = rebuild(&mut rig.bus.handle(), &Table, &EVENT_TOPICS, WallMillis(0), history, || false, |_| true);
        rig.peer = rig.peer.after(rebuilt);
        for at in [0, 1_800_000] {
            let append = Append { topic: "games.events".into(), ..command(0, event.clone()) };
            rig.bus.append(WallMillis(at), &append).unwrap();
        }
        rig.turn();
        assert_eq!(rig.peer.stats().events_total.read(), given, "{history:?}");
    }
}

/// A rebuild gives what is not older than asked for, and no kick.
#[test]
fn a_rebuild_carries_out_no_kick() {
    let mut rig = Rig::new(Bounds::default(), TopicBounds::default());
    rig.event("system.events", r#"{"event_type":"system.event.kick","payload":{"user_id":"bad"}}"#).unwrap();
    rig.timeline(&room_of(0), 1).unwrap();
    let count = |since| {
        let mut count = 0;
        rebuild(
            &mut rig.bus.handle(),
            &Table,
            &EVENT_TOPICS,
            WallMillis(since),
            HOUR,
            || false,
            |event| {
                assert_eq!(event.effect, None);
                count += 1;
                true
            },
        );
        count
    };
    assert_eq!((count(1), count(2)), (1, 0));
}

/// An append that ends later is answered then, in order, and while too many are on their way no more are taken.
#[test]
fn answers_wait_for_the_bus() {
    let mut ports = mesh::build(4, Bounds::default());
    let bus = Later::default();
    let mut peer = BusPeer::new(ports.pop().unwrap(), bus, Latest::new(Table), NODES, &[]);
    for correlation in 1..=3 {
        ports[1].request(BUS, Request::Append(Box::new(command(correlation, b"{}".to_vec()))));
    }
    let mut answers = |peer: &mut BusPeer<Later, Table>| {
        peer.turn(Monotonic::ZERO, WallMillis(1));
        peer.port().wake_list().for_each(drop);
        let mut answers = Vec::new();
        while let Some((_, Deliver::Answered { correlation, outcome, .. })) = ports[1].take_deliver() {
            answers.push((correlation, outcome));
        }
        answers
    };
    assert_eq!(answers(&mut peer), []);
    peer.bus.ended.push(Completed { ticket: Ticket(1), outcome: Ok(()) });
    assert_eq!(answers(&mut peer), [(1, Ok(()))]);
    peer.bus.ended.push(Completed { ticket: Ticket(2), outcome: Err(ErrorCode::Unavailable) });
    peer.bus.ended.push(Completed { ticket: Ticket(3), outcome: Err(ErrorCode::Unavailable) });
    assert_eq!(answers(&mut peer), [(2, Err(ErrorCode::Unavailable)), (3, Err(ErrorCode::Unavailable))]);
    assert_eq!((peer.stats().commands_total.read(), peer.stats().refused_total.read()), (1, 2));
    for _ in 0..limits::BUS_PENDING {
        peer.append(WallMillis(1), &mut command(1, Vec::new()));
    }
    assert!(!peer.takes_input());
    peer.bus.ended.push(Completed { ticket: Ticket(4), outcome: Ok(()) });
    peer.answer_completed();
    assert!(peer.takes_input());
}

/// A log that cannot be read is tried again by itself, and its events reach their homes when it can be, each once.
#[test]
fn a_log_that_cannot_be_read_is_tried_again() {
    let mut ports = mesh::build(4, Bounds::default());
    let bus = Later::default();
    let mut peer = BusPeer::new(ports.pop().unwrap(), bus, Latest::new(Table), NODES, &["games.events"]);
    let mut events = |peer: &mut BusPeer<Later, Table>| {
        let next = peer.turn(Monotonic::ZERO, WallMillis(1));
        peer.port().wake_list().for_each(drop);
        let taken = (0..2).flat_map(|shard| std::iter::from_fn(|| ports[shard].take_request()).collect::<Vec<_>>());
        (next, taken.count())
    };
    assert_eq!(events(&mut peer), (Monotonic::NEVER, 0), "there is nothing");
    peer.bus.events = 3;
    peer.bus.is_broken = true;
    for _ in 0..2 {
        let (next, count) = events(&mut peer);
        assert!(next > Monotonic::ZERO && next < Monotonic::NEVER, "not in a loop, and not never: {next:?}");
        assert_eq!(count, 0);
    }
    peer.bus.is_broken = false;
    assert_eq!(events(&mut peer), (Monotonic::NEVER, 3));
    assert_eq!(events(&mut peer), (Monotonic::NEVER, 0));
}

/// A bus that accepts when the test says so, and cannot be read when it says so.
#[derive(Default)]
struct Later {
    given: u64,
    ended: Vec<Completed>,
    /// How many events there are.
    events: u64,
    is_broken: bool,
}

impl Bus for Later {
    fn durability(&self) -> crate::ports::Durability {
        crate::ports::Durability::Disk
    }

    fn epoch(&self, _topic: &str) -> u64 {
        1
    }

    fn append(&mut self, _now: WallMillis, _append: &Append) -> Result<Accepted, ErrorCode> {
        self.given += 1;
        Ok(Accepted::Pending(Ticket(self.given)))
    }

    fn completed(&mut self, out: &mut Vec<Completed>) {
        out.append(&mut self.ended);
    }

    fn range(&self, _topic: &str) -> (u64, u64) {
        (0, self.events)
    }

    fn since(&self, _topic: &str, _since: WallMillis) -> u64 {
        0
    }

    fn read(&mut self, _topic: &str, offset: u64, _max: usize, out: &mut Vec<Record>) -> u64 {
        if self.is_broken {
            return offset;
        }
        out.extend((offset..self.events).map(|offset| Record {
            offset,
            timestamp: WallMillis(1),
            key: b"r".as_slice().into(),
            value: br#"{"event_type":"battle.event.timeline","target":{"room_id":"r"},"payload":{}}"#.as_slice().into(),
        }));
        self.events.max(offset)
    }

    fn done(&mut self, _topic: &str, _offset: u64) {}
}
