//! A game's backend on Kafka: it lets sessions into rooms and says numbered events there, with all the patience it takes.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::ClientContext;
use rdkafka::Message as _;
use rdkafka::error::KafkaError;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};
use ringgate::bus::kafka::KafkaBus;
use ringgate::id::EventId;
use ringgate::ports::{Bus, partition_name};
use serde_json::{Value, json};

use crate::broker::Broker;
use crate::node::{DEADLINE, until};

/// See the module.
pub struct Backend {
    producer: ThreadedProducer<Accepted>,
    namespace: [u8; 16],
    /// Ticks said in each room.
    ticks: BTreeMap<String, u64>,
    number: u64,
}

/// What is on its way to Kafka, by key.
#[derive(Clone, Default)]
struct Accepted(Arc<Mutex<BTreeMap<Vec<u8>, u64>>>);

impl Accepted {
    fn on_its_way(&self, key: &str) -> u64 {
        self.0.lock().unwrap().get(key.as_bytes()).copied().unwrap_or_default()
    }
}

impl ClientContext for Accepted {}

impl ProducerContext for Accepted {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        assert!(result.is_ok() || std::thread::panicking(), "a patient producer's record failed: {result:?}");
        let Ok(message) = result else { return };
        let mut on_its_way = self.0.lock().unwrap();
        *on_its_way.get_mut(message.key().unwrap()).unwrap() -= 1;
    }
}

impl Backend {
    /// A backend of this name.
    pub fn start(kafka: &str, name: &str) -> Self {
        let mut config = ClientConfig::new();
        // At least once: an idempotent producer may be turned away for good by a broker that was killed, and what is said
        // again has its id. Order over an outage is kept by one tick of a room at a time.
        config.set("bootstrap.servers", kafka).set("acks", "all").set("message.timeout.ms", "0");
        config.set("max.in.flight.requests.per.connection", "1").set("retries", "2147483647");
        config.set("linger.ms", "1").set("partitioner", "murmur2_random").set("socket.timeout.ms", "3000");
        config.set("topic.metadata.refresh.interval.ms", "500").set("reconnect.backoff.max.ms", "500");
        let producer = config.create_with_context(Accepted::default()).unwrap();
        let mut namespace = [0; 16];
        namespace.iter_mut().zip(name.bytes()).for_each(|(to, byte)| *to = byte);
        Self { producer, namespace, ticks: BTreeMap::new(), number: 0 }
    }

    /// An id that nobody had.
    pub fn next_id(&mut self) -> String {
        self.number += 1;
        EventId::v5(&self.namespace, &[&self.number.to_be_bytes()]).to_string()
    }

    /// Produces this value; the key chooses the partition if none is named.
    pub fn put(&self, topic: &str, partition: Option<i32>, key: &str, value: &[u8]) {
        let mut record = BaseRecord::<_, [u8], ()>::to(topic).key(key).payload(value);
        record.partition = partition;
        *self.producer.context().0.lock().unwrap().entry(key.into()).or_default() += 1;
        let began = Instant::now();
        while let Err((error, again)) = self.producer.send(record) {
            let full = matches!(error, KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull));
            assert!(full && began.elapsed() < DEADLINE, "{error}");
            std::thread::park_timeout(Duration::from_millis(5));
            record = again;
        }
    }

    /// An event of `games.events` under a new id.
    pub fn event(&mut self, event_type: &str, key: &str, target: &Value, payload: &Value) {
        let event_id = self.next_id();
        let event = json!({"event_id": event_id, "event_type": event_type, "timestamp": "2026-01-01T00:00:00Z",
            "target": target, "payload": payload});
        self.put("games.events", None, key, event.to_string().as_bytes());
    }

    /// Lets a session into a room.
    pub fn admit(&mut self, session: &str, room: &str) {
        self.event("games.event.lobby_joined", room, &json!({"session_id": session}), &json!({"room_id": room}));
    }

    /// The next numbered event of a room, and its number, from 1.
    pub fn tick(&mut self, room: &str) -> u64 {
        let n = self.ticks.entry(room.to_owned()).or_default();
        *n += 1;
        let n = *n;
        self.event("games.event.tick", room, &json!({"room_id": room}), &json!({"room_id": room, "n": n}));
        n
    }

    /// How many ticks a room had.
    pub fn ticks(&self, room: &str) -> u64 {
        self.ticks.get(room).copied().unwrap_or_default()
    }

    /// The last event of a room: how many ticks it had.
    pub fn end(&mut self, room: &str) {
        let count = self.ticks(room);
        self.event("games.event.end", room, &json!({"room_id": room}), &json!({"room_id": room, "count": count}));
    }

    /// Partitions of a topic, as Kafka says now.
    pub fn partitions(&self, topic: &str) -> usize {
        let found = self.producer.client().fetch_metadata(Some(topic), DEADLINE).unwrap();
        found.topics()[0].partitions().len()
    }

    /// Waits until Kafka has all of it.
    pub fn flush(&self) {
        self.producer.flush(Duration::from_secs(60)).unwrap();
    }

    /// Ticks of these rooms in turn, so many a second in all at most, until the load is ended: a room's next one once
    /// Kafka has its last.
    pub fn load(mut self, rooms: &[&str], per_second: u32) -> Load {
        let rooms: Vec<String> = rooms.iter().map(|room| (*room).to_owned()).collect();
        let stop = Arc::new(AtomicBool::new(false));
        let (over, said) = (Arc::clone(&stop), Arc::new(AtomicU64::new(0)));
        let count = Arc::clone(&said);
        let thread = std::thread::spawn(move || {
            let (began, mut n) = (Instant::now(), 0u32);
            while !over.load(Ordering::Acquire) {
                let due = Duration::from_secs(1) * n / per_second;
                if let Some(early) = due.checked_sub(began.elapsed()) {
                    std::thread::park_timeout(early);
                    continue;
                }
                let room = &rooms[n as usize % rooms.len()];
                n += 1;
                // Other rooms are on partitions of their own.
                if self.producer.context().on_its_way(room) == 0 {
                    self.tick(room);
                    count.fetch_add(1, Ordering::AcqRel);
                }
            }
            for room in &rooms {
                until("Kafka has a room's last tick", || self.producer.context().on_its_way(room) == 0);
                self.end(room);
            }
            self.flush();
            self
        });
        Load { stop, said, thread: Some(thread) }
    }
}

/// Events that are said by a thread of their own; they end when it is dropped, so that a test that fails ends too.
pub struct Load {
    stop: Arc<AtomicBool>,
    said: Arc<AtomicU64>,
    thread: Option<JoinHandle<Backend>>,
}

impl Load {
    /// Waits until so many more were said.
    pub fn goes_on(&self, events: u64) {
        let from = self.said.load(Ordering::Acquire);
        until("the load goes on", || self.said.load(Ordering::Acquire) >= from + events);
    }

    /// Ends it: the last event of each room is said, and Kafka has all.
    pub fn end(mut self) -> Backend {
        self.stop();
        self.thread.take().expect("it ends once").join().unwrap()
    }

    fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        self.thread.as_ref().inspect(|thread| thread.thread().unpark());
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop();
    }
}

/// All that a topic has, partition by partition, as JSON.
pub fn values(broker: &Broker, topic: &str) -> Vec<Value> {
    texts(broker, topic).iter().map(|text| serde_json::from_str(text).unwrap()).collect()
}

/// All that a topic has, partition by partition.
pub fn texts(broker: &Broker, topic: &str) -> Vec<String> {
    let mut bus = KafkaBus::open(&broker.config(&[topic])).unwrap();
    let mut out = Vec::new();
    for partition in 0..bus.partitions(topic) {
        let name = partition_name(topic, partition);
        let ((_, end), mut next, mut page) = (bus.range(&name), 0, Vec::new());
        until(&format!("{name} is read to {end}"), || {
            next = bus.read(&name, next, 1000, &mut page);
            next >= end
        });
        out.extend(page.iter().map(|record| String::from_utf8(record.value.to_vec()).unwrap()));
    }
    out
}
