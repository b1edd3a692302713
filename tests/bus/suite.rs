//! What every bus does, embedded or real: `src/bus/tests.rs` runs it over the embedded ones, `tests/services_kafka.rs`
//! over Kafka.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use ringgate::bus::{BusPeer, DEAD_TOPIC, Nodes, rebuild};
use ringgate::class::Class;
use ringgate::frame::FrameKind;
use ringgate::id::{ConnAddr, ConnKey, NodeId};
use ringgate::message::{Append, Deliver, ErrorCode, Event, Request};
use ringgate::ports::{Accepted, Bus, Completed, Record, Ticket, partition_name};
use ringgate::protocol::envelope::{Audience, EffectRule, EventRule, EventRules};
use ringgate::router::peer::Peer;
use ringgate::router::{Bounds, Latest, Port, Wake, mesh};
use ringgate::time::{Monotonic, WallMillis};

/// An implementation under test, empty.
pub trait Subject {
    /// A handle that reads these topics.
    fn reader(&self, topics: &[&str], wake: Arc<dyn Wake>) -> Box<dyn Bus>;

    /// A handle that nobody is woken for.
    fn handle(&self) -> Box<dyn Bus>;

    /// A topic without records, which the test calls so; it has one partition.
    fn topic(&self, name: &str) -> String {
        name.to_owned()
    }
}

/// Counts how often it was woken.
#[derive(Default)]
pub struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(&self) {
        self.0.fetch_add(1, Ordering::Release);
    }
}

/// A waker of the standard library that counts.
impl std::task::Wake for Count {
    fn wake(self: Arc<Self>) {
        Wake::wake(&*self);
    }
}

impl Count {
    /// Waits until it was woken so often.
    pub fn reaches(&self, times: usize) {
        until(&format!("{times} wake-ups"), || self.read() >= times);
    }

    /// How often it was woken.
    pub fn read(&self) -> usize {
        self.0.load(Ordering::Acquire)
    }
}

/// Asks again until it is so.
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < Duration::from_secs(60), "{what}: not within 60 s");
        std::thread::park_timeout(Duration::from_micros(200));
    }
}

/// A record for a topic.
pub fn append(topic: &str, value: &[u8]) -> Append {
    let key = b"k".as_slice().into();
    Append { from: ConnAddr::NOBODY, correlation: 0, topic: topic.into(), key, value: value.into() }
}

/// Appends and waits for the end of it.
pub fn put(bus: &mut dyn Bus, topic: &str, value: &[u8]) -> Result<(), ErrorCode> {
    put_as(bus, &append(topic, value))
}

/// The same with any key.
pub fn put_as(bus: &mut dyn Bus, append: &Append) -> Result<(), ErrorCode> {
    match bus.append(WallMillis(5), append)? {
        Accepted::Now => Ok(()),
        Accepted::Pending(ticket) => {
            let mut ends = Vec::new();
            until("the append ends", || {
                bus.completed(&mut ends);
                !ends.is_empty()
            });
            assert_eq!((ends.len(), ends[0].ticket), (1, ticket));
            ends[0].outcome
        }
    }
}

/// Reads until so many records are there; where to go on.
pub fn take(bus: &mut dyn Bus, topic: &str, from: u64, count: usize) -> (Vec<Record>, u64) {
    let (mut out, mut next) = (Vec::new(), from);
    until(&format!("{count} records of {topic}"), || {
        let left = count - out.len();
        next = bus.read(topic, next, left, &mut out);
        out.len() == count
    });
    (out, next)
}

/// Offsets count from 0 in each topic, reading goes on where it stopped, and a record is what was appended.
pub fn topics_are_read_by_offset(subject: &dyn Subject) {
    let (t, other, nowhere) = (subject.topic("t"), subject.topic("other"), "nowhere");
    let mut bus = subject.handle();
    for value in [b"a", b"b", b"c"] {
        put(&mut *bus, &t, value).unwrap();
    }
    put(&mut *bus, &other, b"x").unwrap();
    let offsets =
        |(records, next): (Vec<Record>, u64)| (records.iter().map(|record| record.offset).collect::<Vec<_>>(), next);
    assert_eq!(offsets(take(&mut *bus, &t, 0, 2)), (vec![0, 1], 2));
    assert_eq!(offsets(take(&mut *bus, &t, 2, 1)), (vec![2], 3));
    assert_eq!(offsets(take(&mut *bus, &t, 3, 0)), (vec![], 3));
    assert_eq!(offsets(take(&mut *bus, &t, 1, 2)), (vec![1, 2], 3), "what was read is read again");
    assert_eq!(bus.read(nowhere, 4, 2, &mut Vec::new()), 4);
    let expected = Record { offset: 0, timestamp: WallMillis(5), key: (*b"k").into(), value: (*b"x").into() };
    assert_eq!(take(&mut *bus, &other, 0, 1).0, [expected]);
    assert_eq!((bus.partitions(&t), bus.range(&t), bus.range(nowhere)), (1, (0, 3), (0, 0)));
    assert_eq!((bus.since(&t, WallMillis(5)), bus.since(&t, WallMillis(6))), (0, 3));
    let epoch = bus.epoch(&t);
    assert!(epoch < 1 << 53);
    assert_eq!(subject.handle().epoch(&t), epoch, "all handles number alike");
}

/// Appends that do not wait for each other end in order, each once, and are read in that order.
pub fn appends_in_flight_end_in_order(subject: &dyn Subject) {
    let (t, wake) = (subject.topic("t"), Arc::new(Count::default()));
    let mut bus = subject.reader(&[], wake.clone());
    let (mut tickets, mut ends) = (Vec::new(), Vec::new());
    for n in 0..1000u32 {
        match bus.append(WallMillis(5), &append(&t, &n.to_le_bytes())).unwrap() {
            Accepted::Now => {}
            Accepted::Pending(ticket) => tickets.push(ticket),
        }
    }
    until("all have ended", || {
        bus.completed(&mut ends);
        ends.len() == tickets.len()
    });
    let expected: Vec<_> = tickets.iter().map(|ticket| Completed { ticket: *ticket, outcome: Ok(()) }).collect();
    assert_eq!(ends, expected);
    assert!(tickets.windows(2).all(|pair| pair[0] < pair[1]));
    if !tickets.is_empty() {
        // Ends can be seen a moment before who waits for them is woken.
        wake.reaches(1);
    }
    let (out, next) = take(&mut *bus, &t, 0, 1000);
    assert_eq!(next, 1000);
    let values = out.iter().map(|record| u32::from_le_bytes((*record.value).try_into().unwrap()));
    assert!(values.eq(0..1000));
}

/// A handle's tickets are its own.
pub fn handles_are_told_of_their_own_appends(subject: &dyn Subject) {
    let (t, mut one, mut other) = (subject.topic("t"), subject.handle(), subject.handle());
    let (mut ends, mut of_other) = (Vec::new(), Vec::new());
    if let Accepted::Pending(ticket) = one.append(WallMillis(5), &append(&t, b"x")).unwrap() {
        put(&mut *other, &t, b"y").unwrap();
        until("both have ended", || {
            one.completed(&mut ends);
            !ends.is_empty()
        });
        other.completed(&mut of_other);
        assert_eq!((ends.len(), ends[0].ticket, of_other.len()), (1, ticket, 0));
        assert_eq!(ticket, Ticket(1));
    }
}

/// Readers at any pace see every record once, in order, while it is written, and are woken for what comes.
pub fn every_reader_sees_everything(subject: &dyn Subject) {
    let t = subject.topic("t");
    let mut bus = subject.handle();
    let readers = [1, 7, 1000].map(|pace| {
        let wake = Arc::new(Count::default());
        (subject.reader(&[&t], wake.clone()), wake, pace, 0u64, Vec::new())
    });
    let mut readers = Vec::from(readers);
    for n in 0..200u32 {
        put(&mut *bus, &t, &n.to_le_bytes()).unwrap();
        for (reader, _, pace, next, seen) in &mut readers {
            *next = reader.read(&t, *next, *pace, seen);
            reader.done(&t, *next);
        }
    }
    let mut heard = Vec::new();
    for (reader, wake, pace, next, seen) in &mut readers {
        let mut before = 0;
        until("a reader is at the end", || {
            // A full page may not be all that there is; a call that gives nothing was the last until a wake-up.
            let had = seen.len();
            before = wake.read();
            *next = reader.read(&t, *next, *pace, seen);
            *next == 200 && seen.len() == had
        });
        let values = seen.iter().map(|record| u32::from_le_bytes((*record.value).try_into().unwrap()));
        assert!(values.eq(0..200), "pace {pace}");
        heard.push(before);
    }
    put(&mut *bus, &t, b"news").unwrap();
    for ((reader, wake, pace, next, seen), mut heard) in readers.iter_mut().zip(heard) {
        until("whoever reads at each wake-up has the news", || {
            let now = wake.read();
            if now > heard {
                heard = now;
                *next = reader.read(&t, *next, *pace, seen);
            }
            *next == 201
        });
    }
}

/// The rules that a peer's tests need.
pub struct Table;

impl EventRules for Table {
    fn rule(&self, event_type: &str) -> Option<EventRule<'_>> {
        let rule = |to, frame_type, effect| {
            let kind = FrameKind { frame_type, kind: 0 };
            Some(EventRule { to, target: None, class: Class::Reliable, coalesce: None, kind, effect })
        };
        match event_type {
            "battle.event.timeline" => rule(Audience::Room, 33, None),
            "system.event.kick" => rule(Audience::User, 0, Some(EffectRule::Kick)),
            _ => None,
        }
    }
}

/// A command's number, and what became of it.
pub type Answer = (u64, Result<(), ErrorCode>);

/// A bus peer on a mesh that is driven by hand: one shard, presence, the peer.
pub struct Rig {
    ports: Vec<Port>,
    /// The peer.
    pub peer: BusPeer<Box<dyn Bus>, Table>,
}

impl Rig {
    /// The peer as a start makes it: histories first. And their events.
    pub fn start(mut bus: Box<dyn Bus>, topics: &[&str]) -> (Self, Vec<Event>) {
        let mut ports: Vec<Port> = mesh::build(3, Bounds::default());
        let port = ports.pop().unwrap();
        let mut events = Vec::new();
        let wait = || {
            std::thread::park_timeout(Duration::from_millis(1));
            true
        };
        let rebuilt = rebuild(&mut bus, &Table, topics, WallMillis(0), Duration::from_secs(3600), wait, |event| {
            events.push(event);
            true
        });
        let nodes = Nodes { shards: 1, presence: NodeId(1) };
        let peer = BusPeer::new(port, bus, Latest::new(Table), nodes, topics).after(rebuilt);
        (Self { ports, peer }, events)
    }

    /// Gives the peer a command of the shard's connection.
    pub fn command(&mut self, correlation: u64, topic: &str, key: &[u8]) {
        let from = ConnAddr { shard: NodeId(0), conn: ConnKey { slot: 5, generation: 2 } };
        let value = b"{}".as_slice().into();
        let append = Append { from, correlation, topic: topic.into(), key: key.into(), value };
        self.ports[0].request(NodeId(2), Request::Append(Box::new(append)));
    }

    /// A turn of the peer: the events and the answers that came of it.
    pub fn turn(&mut self) -> (Vec<Event>, Vec<Answer>) {
        self.peer.turn(Monotonic::ZERO, WallMillis(1));
        self.peer.port().wake_list().for_each(drop);
        self.ports[0].flush_outboxes();
        let (mut events, mut answers) = (Vec::new(), Vec::new());
        while let Some((_, request)) = self.ports[0].take_request() {
            match request {
                Request::Event(event) => events.push(*event),
                other => panic!("{other:?}"),
            }
        }
        while let Some((_, message)) = self.ports[0].take_deliver() {
            match message {
                Deliver::Answered { correlation, outcome, .. } => answers.push((correlation, outcome)),
                other => panic!("{other:?}"),
            }
        }
        self.ports[0].wake_list().for_each(drop);
        self.ports[1].wake_list().for_each(drop);
        (events, answers)
    }
}

/// An event for a room, under this id.
pub fn timeline(room: &str, n: usize, id: &str) -> String {
    format!(
        r#"{{"event_id":"{id}","event_type":"battle.event.timeline","target":{{"room_id":"{room}"}},"payload":{{"n":{n}}}}}"#
    )
}

/// After a start the histories have each event once, up to the head; what comes later comes once, live, behind them: an
/// event that its service repeats is dropped, a poison event is kept in `ringgate.dead` and holds nothing up.
pub fn a_peer_gives_each_event_once(subject: &dyn Subject) {
    let (t, dead) = (subject.topic("games.events"), subject.topic(DEAD_TOPIC));
    let mut bus = subject.handle();
    let id = |n: u8| format!("2ed6657d-e927-568b-95e1-2665a8aea6{n:02x}");
    let kick = r#"{"event_type":"system.event.kick","target":{"user_id":"u"},"payload":{}}"#;
    for text in [&timeline("r", 1, &id(1)), &timeline("r", 2, &id(2)), &timeline("r", 1, &id(1)), "poison", kick] {
        put(&mut *bus, &t, text.as_bytes()).unwrap();
    }
    let (mut rig, histories) = Rig::start(subject.reader(&[&t], Arc::new(Count::default())), &[&t]);
    let places = |events: &[Event]| events.iter().map(|event| event.place).collect::<Vec<_>>();
    assert_eq!(places(&histories), [1, 2], "no repeat, and no kick, for that acted once");
    assert!(histories.iter().all(|event| event.epoch == bus.epoch(&t) && event.partition == 0 && *event.topic == *t));
    for text in [&timeline("r", 2, &id(2)), "{}", &timeline("r", 3, &id(3)), &timeline("r", 3, &id(3))] {
        put(&mut *bus, &t, text.as_bytes()).unwrap();
    }
    let (mut live, stats) = (Vec::new(), rig.peer.stats());
    until("all is looked at", || {
        live.extend(rig.turn().0);
        stats.duplicates_total.read() == 2
    });
    assert_eq!((places(&live), stats.poison_total.read()), (vec![8], 1));
    if dead == DEAD_TOPIC {
        let (buried, _) = take(&mut *bus, &dead, 0, 1);
        let text = std::str::from_utf8(&buried[0].value).unwrap();
        assert!(text.contains(r#""offset":6,"#) && text.contains(r#""data_base64":"e30=""#), "{text}");
    }
}

/// A command is answered when the bus has it, and can be read then.
pub fn commands_are_answered_when_they_are_there(subject: &dyn Subject) {
    let (commands, events) = (subject.topic("games.commands"), subject.topic("games.events"));
    let (mut rig, _) = Rig::start(subject.reader(&[&events], Arc::new(Count::default())), &[&events]);
    for correlation in 1..=20 {
        rig.command(correlation, &commands, b"k");
    }
    let mut answers = Vec::new();
    until("all are answered", || {
        answers.extend(rig.turn().1);
        answers.len() == 20
    });
    assert!(answers.iter().map(|(correlation, _)| *correlation).eq(1..=20), "those of one key in order");
    assert!(answers.iter().all(|(_, outcome)| outcome.is_ok()));
    let mut bus = subject.handle();
    assert_eq!(bus.range(&partition_name(&commands, 0)).1, 20);
    take(&mut *bus, &commands, 0, 20);
}
