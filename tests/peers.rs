//! Peers on real threads: bus and services, with the test in a shard's place.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use ringgate::bus::{BusPeer, EVENT_TOPICS, EmbeddedBus, Nodes, TopicBounds};
use ringgate::class::Class;
use ringgate::frame::FrameKind;
use ringgate::id::{ConnAddr, ConnectionId, EventId, NodeId, Scope, SessionId};
use ringgate::message::{Append, Request};
use ringgate::protocol::envelope::{Audience, ClientCommand, EventRule, EventRules, Json, PayloadForm, put_command};
use ringgate::router::{Bounds, Latest, Port, ThreadWaker, Wake, mesh, peer};
use ringgate::store::{SqliteStore, StoreSettings};
use ringgate::time::{Monotonic, WallMillis};
use ringgate::workers::{self, COMMAND_TOPICS, PasswordPool, ServiceWorker, WorkerSettings};

const WINDOW: Duration = Duration::from_secs(300);
const BUS: NodeId = NodeId(3);
const NODES: Nodes = Nodes { shards: 2, presence: NodeId(2) };

/// Whatever it is, it is for the room.
struct Table;

impl EventRules for Table {
    fn rule(&self, _event_type: &str) -> Option<EventRule<'_>> {
        let kind = FrameKind { frame_type: 33, kind: 0 };
        Some(EventRule { to: Audience::Room, target: None, class: Class::Reliable, coalesce: None, kind, effect: None })
    }
}

/// With real threads: a command that a shard sends comes back as the battle's whole timeline and its end.
#[test]
fn a_battle_crosses_the_threads() {
    let started = Instant::now();
    let clock = move || (Monotonic::ZERO + started.elapsed(), WallMillis(1));
    let mut ports: Vec<Port> = mesh::build(4, Bounds { slots: 8, outbox: 4 });
    let bus_port = ports.pop().unwrap();
    let (stop, log) = (Arc::new(AtomicBool::new(false)), EmbeddedBus::new(1, TopicBounds::default()));
    let own: Arc<dyn Wake> = Arc::new(ThreadWaker::new(thread::current()));
    let bus_thread = {
        let (stop, log, own) = (Arc::clone(&stop), log.handle(), Arc::clone(&own));
        thread::spawn(move || {
            let reader = log.reader(&EVENT_TOPICS, Arc::new(ThreadWaker::new(thread::current())));
            let mut bus = BusPeer::new(bus_port, reader, Latest::new(Table), NODES, &EVENT_TOPICS);
            peer::run(&mut bus, &[own.clone(), own.clone(), own.clone(), own], clock, &stop);
        })
    };
    let worker_thread = {
        let (stop, log) = (Arc::clone(&stop), log.handle());
        thread::spawn(move || {
            let wake: Arc<dyn Wake> = Arc::new(ThreadWaker::new(thread::current()));
            let reader = log.reader(&COMMAND_TOPICS, Arc::clone(&wake));
            let store = SqliteStore::open(&StoreSettings { file: None, messages_max: 10 }).unwrap();
            let passwords = PasswordPool::start(1, &wake).unwrap();
            let settings = WorkerSettings { resume_window: WINDOW, seed: 1, secret: [1; 16], restarted: None };
            let mut worker = ServiceWorker::open(reader, store, passwords, &settings).unwrap();
            workers::run(&mut worker, clock, &stop);
        })
    };
    let wakes: Vec<Arc<dyn Wake>> =
        vec![own.clone(), own.clone(), own, Arc::new(ThreadWaker::new(bus_thread.thread().clone()))];
    let mut rooms = (0..).map(|n| format!("r{n}"));
    let room = rooms.find(|room| Scope::Room(room.as_str().into()).home(2) == NodeId(0)).unwrap();
    let append = Append {
        from: ConnAddr::NOBODY,
        correlation: 0,
        topic: "games.commands".into(),
        key: room.as_bytes().into(),
        value: battle_command(&room, r#"{"events":3000,"interval_ms":0}"#).into(),
    };
    ports[0].request(BUS, Request::Append(Box::new(append)));
    let got = receive(&mut ports[0], &wakes, 3001);
    let numbers = (1..=3000).map(|n| format!(r#""n":{n}}}"#)).chain([r#""events":3000}"#.to_owned()]);
    for (body, end) in got.iter().zip(numbers) {
        assert!(body.ends_with(&end), "{body} {end}");
    }
    stop.store(true, Ordering::Release);
    for thread in [bus_thread, worker_thread] {
        thread.thread().unpark();
        thread.join().unwrap();
    }
}

fn battle_command(room: &str, body: &str) -> Vec<u8> {
    let command = ClientCommand {
        event_id: EventId([3; 16]),
        event_type: "battle.command.start",
        timestamp: WallMillis(0),
        gateway_id: "gw",
        connection: ConnectionId([2; 16]),
        session: SessionId([1; 16]),
        correlation: None,
        user_id: "u",
        username: "u",
        roles: &[],
        room_id: Some(room),
        password: None,
        form: PayloadForm::Enriched,
        body: body.as_bytes(),
        checked: false,
    };
    let mut out = Vec::new();
    put_command(&mut out, &command, &mut Json::default());
    out
}

/// Plays a shard until so many events are there; fails if it takes a minute.
fn receive(port: &mut Port, wakes: &[Arc<dyn Wake>], count: usize) -> Vec<String> {
    let (began, mut got) = (Instant::now(), Vec::new());
    while got.len() < count {
        port.flush_outboxes();
        while let Some((_, Request::Event(event))) = port.take_request() {
            got.push(String::from_utf8(event.body.into()).unwrap());
        }
        for node in port.wake_list() {
            wakes[node.index()].wake();
        }
        port.announce_sleep();
        if !port.has_input() && got.len() < count {
            thread::park_timeout(Duration::from_secs(60));
        }
        port.awake();
        assert!(began.elapsed() < Duration::from_secs(60), "only {} events came", got.len());
    }
    got
}
