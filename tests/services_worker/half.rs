//! A batch that is half done when another worker takes over, and a worker that does not know yet that it is over.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use ringgate::bus::kafka::{KafkaBus, KafkaConfig, StateStore};
use ringgate::id::ConnAddr;
use ringgate::message::{Append, ErrorCode};
use ringgate::ports::{Accepted, Bus, Completed, Durability, Record, partition_name};
use ringgate::router::{ThreadWaker, Wake};
use ringgate::time::{Monotonic, WallMillis};
use ringgate::workers::{COMMAND_TOPICS, Lost, PasswordPool, SERVICE_EVENT_TOPICS, ServiceWorker, WorkerSettings};
use serde_json::{Value, json};

use super::game::table;
use super::until;

/// A bus that takes so many appends and no more.
struct Stingy {
    bus: KafkaBus,
    left: Arc<AtomicUsize>,
}

impl Bus for Stingy {
    fn durability(&self) -> Durability {
        self.bus.durability()
    }

    fn partitions(&self, topic: &str) -> u32 {
        self.bus.partitions(topic)
    }

    fn epoch(&self, topic: &str) -> u64 {
        self.bus.epoch(topic)
    }

    fn append(&mut self, now: WallMillis, append: &Append) -> Result<Accepted, ErrorCode> {
        let take = |left: usize| left.checked_sub(1);
        let left = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take);
        left.map_err(|_| ErrorCode::Unavailable)?;
        self.bus.append(now, append)
    }

    fn completed(&mut self, out: &mut Vec<Completed>) {
        self.bus.completed(out);
    }

    fn range(&self, topic: &str) -> (u64, u64) {
        self.bus.range(topic)
    }

    fn since(&self, topic: &str, since: WallMillis) -> u64 {
        self.bus.since(topic, since)
    }

    fn read(&mut self, topic: &str, offset: u64, max: usize, out: &mut Vec<Record>) -> u64 {
        self.bus.read(topic, offset, max, out)
    }

    fn done(&mut self, topic: &str, offset: u64) {
        self.bus.done(topic, offset);
    }
}

type Worker = ServiceWorker<Stingy, StateStore, PasswordPool>;

fn open(bus: &KafkaBus, config: &KafkaConfig, left: &Arc<AtomicUsize>) -> Worker {
    let wake: Arc<dyn Wake> = Arc::new(ThreadWaker::new(std::thread::current()));
    let passwords = PasswordPool::start(1, &wake).unwrap();
    let bus = Stingy { bus: bus.reader(wake), left: Arc::clone(left) };
    let window = Duration::from_secs(300);
    let settings = WorkerSettings { resume_window: window, seed: 1, secret: [7; 16], restarted: None };
    let mut wait = || {
        std::thread::park_timeout(Duration::from_millis(20));
        true
    };
    ServiceWorker::open_waiting(bus, StateStore::open(config, None).unwrap(), passwords, &settings, &mut wait).unwrap()
}

/// Turns for as long as a condition wants.
fn spin(worker: &mut Worker, what: &str, mut over: impl FnMut(&Worker) -> bool) {
    let began = Instant::now();
    let wall = || WallMillis(std::time::UNIX_EPOCH.elapsed().unwrap().as_millis().try_into().unwrap());
    until(what, || {
        let now = Monotonic::from_nanos(began.elapsed().as_nanos().try_into().unwrap());
        while worker.turn(now, wall()) <= now {}
        over(worker)
    });
}

/// Every event on the log, partition by partition.
fn events(bus: &mut KafkaBus) -> Vec<Value> {
    let mut all = Vec::new();
    for partition in 0..bus.partitions("games.events") {
        let (name, mut next, mut records) = (partition_name("games.events", partition), 0, Vec::new());
        let (_, end) = bus.range(&name);
        until("a partition is read", || {
            next = bus.read(&name, next, 1000, &mut records);
            next >= end
        });
        all.extend(records.iter().map(|record| serde_json::from_slice::<Value>(&record.value).unwrap()));
    }
    all
}

/// The events of each room in the order of their first copies; copies must be the same to the last byte.
fn told(events: &[Value]) -> BTreeMap<String, Vec<Value>> {
    let (mut first, mut rooms) = (HashMap::new(), BTreeMap::<String, Vec<Value>>::new());
    for event in events {
        let id = event["event_id"].as_str().unwrap().to_owned();
        if let Some(before) = first.insert(id, event.clone()) {
            assert_eq!(before, *event);
            continue;
        }
        let room = event["target"]["room_id"].as_str().unwrap().to_owned();
        rooms.entry(room).or_default().push(event["payload"]["n"].clone());
    }
    rooms
}

/// A worker is cut off in the middle of a batch of three partitions: the one that takes over appends what is missing and
/// nothing twice. The former, which knows nothing of it, then appends what it still had: copies, behind the first ones and
/// in their order; its next batch is refused, and it says that it is over.
#[test]
fn a_batch_half_done_is_done_once() {
    const ROOMS: u32 = 20;
    let (broker, _gateway) = table(3);
    let topics: Vec<&str> = COMMAND_TOPICS.iter().chain(&SERVICE_EVENT_TOPICS).copied().collect();
    let config = broker.config(&topics);
    let bus = KafkaBus::open(&config).unwrap();
    let mut log = bus.handle();
    for n in 0..ROOMS {
        let room = format!("room-{n}");
        let command = json!({
            "event_id": format!("00000000-0000-4000-8000-{n:012x}"), "event_type": "battle.command.start",
            "user": {"user_id": "ann", "username": "ann", "roles": []},
            "payload": {"room_id": room, "events": 3, "interval_ms": 0}
        });
        let (key, value) = (room.as_bytes().into(), command.to_string().into_bytes().into());
        let topic = "games.commands".into();
        let append = Append { from: ConnAddr::NOBODY, correlation: 0, topic, key, value };
        assert!(log.append(WallMillis(1), &append).is_ok());
    }
    let left = Arc::new(AtomicUsize::new(0));
    let mut former = open(&bus, &config, &left);
    spin(&mut former, "a batch is begun", |worker| worker.tally().commands > 0);
    left.store(3, Ordering::Relaxed);
    spin(&mut former, "some events are there", |_| events(&mut bus.handle()).len() == 3);
    let plenty = Arc::new(AtomicUsize::new(usize::MAX));
    let mut worker = open(&bus, &config, &plenty);
    let whole = usize::try_from(ROOMS).unwrap() * 4;
    spin(&mut worker, "all is done", |worker| worker.battles() == 0 && events(&mut bus.handle()).len() >= whole);
    let all = events(&mut log);
    assert_eq!(all.len(), whole, "nothing twice");
    let expected = [json!(1), json!(2), json!(3), Value::Null];
    assert!(told(&all).values().all(|room| *room == expected));
    left.store(usize::MAX, Ordering::Relaxed);
    spin(&mut former, "the former knows", |worker| worker.lost().is_some());
    assert!(matches!(former.lost(), Some(Lost::Store(error)) if error.lost), "{:?}", former.lost());
    let copies = events(&mut log);
    assert!(copies.len() > whole, "it had something left");
    assert_eq!(told(&copies).len(), told(&all).len());
    assert!(told(&copies).values().all(|room| *room == expected));
    spin(&mut worker, "it goes on", |worker| worker.lost().is_none());
}
