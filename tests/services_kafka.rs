//! The bus over a real Kafka, which `tests/services/kafka.sh` starts for each test: the suite of all buses, and what only
//! Kafka can bring: partitions, topics made anew, records gone, brokers frozen and restarted.

mod bus {
    mod backends;
    pub mod broker;
    pub mod gateway;
    mod secure;
    pub mod suite;
}

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bus::broker::Broker;
use bus::gateway::{Client, Gateway, ringgate};
use bus::suite::{self, Count, Rig, Subject, append, put, put_as, take, timeline, until};
use ringgate::bus::kafka::{Creation, KafkaBus, KafkaConfig, create, look};
use ringgate::message::{Append, ErrorCode};
use ringgate::ports::{Accepted, Bus, Completed, Durability, partition_name};
use ringgate::router::Wake;
use ringgate::shard::driver::syscall::describe_topics;
use ringgate::time::WallMillis;
use serde_json::json;

/// Kafka as a subject of the suite.
struct Kafka<'a> {
    broker: &'a Broker,
    bus: KafkaBus,
    number: usize,
}

impl<'a> Kafka<'a> {
    fn new(broker: &'a Broker) -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let bus = KafkaBus::open(&broker.config(&[])).unwrap();
        Self { broker, bus, number: NEXT.fetch_add(1, Ordering::Relaxed) }
    }
}

impl Subject for Kafka<'_> {
    fn reader(&self, _topics: &[&str], wake: Arc<dyn Wake>) -> Box<dyn Bus> {
        Box::new(self.bus.reader(wake))
    }

    fn handle(&self) -> Box<dyn Bus> {
        Box::new(self.bus.handle())
    }

    fn topic(&self, name: &str) -> String {
        let own = if name == ringgate::bus::DEAD_TOPIC { name.to_owned() } else { format!("{name}.{}", self.number) };
        self.broker.create(&own, 1);
        until("the topic is known", || self.bus.has(&own));
        own
    }
}

/// What every bus does, Kafka does.
#[test]
fn kafka_does_what_every_bus_does() {
    let broker = Broker::start();
    let scenes: [fn(&dyn Subject); 6] = [
        suite::topics_are_read_by_offset,
        suite::appends_in_flight_end_in_order,
        suite::handles_are_told_of_their_own_appends,
        suite::every_reader_sees_everything,
        suite::a_peer_gives_each_event_once,
        suite::commands_are_answered_when_they_are_there,
    ];
    for scene in scenes {
        let kafka = Kafka::new(&broker);
        assert_eq!(kafka.handle().durability(), Durability::Kafka);
        scene(&kafka);
    }
}

/// Values under a key, in the order in which they are read of all partitions.
fn by_key(bus: &mut dyn Bus, topic: &str, count: usize) -> BTreeMap<String, Vec<u32>> {
    let mut found: BTreeMap<String, Vec<u32>> = BTreeMap::new();
    let (mut next, mut seen) = (BTreeMap::<u32, u64>::new(), 0);
    until(&format!("{count} records"), || {
        for partition in 0..bus.partitions(topic) {
            let (name, mut page) = (partition_name(topic, partition), Vec::new());
            let from = next.entry(partition).or_default();
            *from = bus.read(&name, *from, 100, &mut page);
            for record in page {
                seen += 1;
                let key = String::from_utf8(record.key.to_vec()).unwrap();
                found.entry(key).or_default().push(u32::from_le_bytes((*record.value).try_into().unwrap()));
            }
        }
        seen >= count
    });
    found
}

fn keyed(topic: &str, key: &str, n: u32) -> Append {
    Append { key: key.as_bytes().into(), ..append(topic, &n.to_le_bytes()) }
}

/// Appends all and waits until they are accepted.
fn put_all(bus: &mut KafkaBus, appends: impl Iterator<Item = Append>) {
    let (mut under_way, mut ends) = (0, Vec::new());
    for append in appends {
        match bus.append(WallMillis(1), &append).unwrap() {
            Accepted::Now => {}
            Accepted::Pending(_) => under_way += 1,
        }
    }
    until("all are accepted", || {
        bus.completed(&mut ends);
        ends.len() == under_way
    });
    assert!(ends.iter().all(|end| end.outcome.is_ok()));
}

/// Records of a key stand in one partition, in order, whichever it is; all partitions are used.
#[test]
fn a_key_has_a_partition() {
    let broker = Broker::start();
    broker.create("t", 8);
    let mut bus = KafkaBus::open(&broker.config(&["t"])).unwrap();
    let keys: Vec<String> = (0..40).map(|n| format!("room-{n}")).collect();
    put_all(&mut bus, (0..10).flat_map(|n| keys.iter().map(move |key| keyed("t", key, n))));
    let found = by_key(&mut bus, "t", 400);
    assert_eq!(found.len(), 40);
    assert!(found.values().all(|values| values.iter().copied().eq(0..10)));
    let used = (0..8).filter(|partition| bus.range(&partition_name("t", *partition)).1 > 0).count();
    assert!(used >= 7, "40 keys use {used} of 8 partitions");
}

/// Partitions that are added while events flow are read from their beginning: every event comes once.
#[test]
fn added_partitions_are_read_from_their_beginning() {
    let broker = Broker::start();
    broker.create("games.events", 1);
    let bus = KafkaBus::open(&broker.config(&["games.events"])).unwrap();
    let (mut rig, _) = Rig::start(Box::new(bus.reader(Arc::new(Count::default()))), &["games.events"]);
    let (mut writer, mut seen, mut sent) = (bus.handle(), BTreeMap::new(), 0);
    let send = |writer: &mut KafkaBus, sent: &mut usize| {
        let text = timeline(&format!("r{}", *sent % 50), *sent, "00000000-0000-0000-0000-000000000000");
        let key = format!("r{}", *sent % 50);
        put_as(writer, &Append { key: key.as_bytes().into(), ..append("games.events", text.as_bytes()) }).unwrap();
        *sent += 1;
    };
    (0..50).for_each(|_| send(&mut writer, &mut sent));
    broker.add_partitions("games.events", 4);
    until("the partitions are used", || {
        send(&mut writer, &mut sent);
        bus.partitions("games.events") == 4
    });
    (0..200).for_each(|_| send(&mut writer, &mut sent));
    until("all have come", || {
        for event in rig.turn().0 {
            let earlier = seen.insert((event.partition, event.place), String::from_utf8(event.body.to_vec()).unwrap());
            assert_eq!(earlier, None, "an event came twice");
        }
        seen.len() == sent
    });
    let partitions: std::collections::BTreeSet<_> = seen.keys().map(|(partition, _)| *partition).collect();
    assert_eq!(partitions.len(), 4);
}

/// A topic that was removed and made again is another numbering: it is read from its beginning, whatever its offsets.
#[test]
fn a_topic_made_anew_has_another_epoch() {
    let broker = Broker::start();
    broker.create("games.events", 1);
    let bus = KafkaBus::open(&broker.config(&["games.events"])).unwrap();
    let (mut rig, _) = Rig::start(Box::new(bus.reader(Arc::new(Count::default()))), &["games.events"]);
    let mut writer = bus.handle();
    let event = |n: usize| timeline("r", n, "00000000-0000-0000-0000-000000000000");
    let mut events = Vec::new();
    (0..3).for_each(|n| put(&mut writer, "games.events", event(n).as_bytes()).unwrap());
    until("the first have come", || {
        events.extend(rig.turn().0);
        events.len() == 3
    });
    broker.delete("games.events");
    broker.create("games.events", 1);
    // More than before, so that no offset is out of range.
    let mut other = KafkaBus::open(&broker.config(&["games.events"])).unwrap();
    (10..20).for_each(|n| put(&mut other, "games.events", event(n).as_bytes()).unwrap());
    bus.look_again();
    let anew = other.epoch("games.events");
    assert_ne!(events[0].epoch, anew);
    until("all of the new topic have come under its epoch", || {
        events.extend(rig.turn().0);
        events.iter().filter(|event| event.epoch == anew).count() == 10
    });
    let places: Vec<_> = events.iter().filter(|event| event.epoch == anew).map(|event| event.place).collect();
    assert!(places.iter().copied().eq(1..=10), "{places:?}");
    until("the old handle writes to the new topic", || put(&mut writer, "games.events", event(20).as_bytes()).is_ok());
    take(&mut other, "games.events", 10, 1);
    assert_eq!(bus.handle().epoch("games.events"), anew, "every handle numbers it alike");
}

/// Records that are gone before they were read are no silent gap: what follows comes under another epoch.
#[test]
fn records_that_are_gone_change_the_epoch() {
    let broker = Broker::start();
    broker.create("t", 1);
    let bus = KafkaBus::open(&broker.config(&["t"])).unwrap();
    let (mut writer, mut reader) = (bus.handle(), bus.handle());
    put(&mut writer, "t", b"a").unwrap();
    let (_, next) = take(&mut reader, "t", 0, 1);
    let epoch = reader.epoch("t");
    // A reader that is told where it stands, and comes back when that is gone.
    let mut late = bus.handle();
    for value in [b"b", b"c", b"d"] {
        put(&mut writer, "t", value).unwrap();
    }
    broker.delete_records("t", 3);
    assert_eq!((next, late.epoch("t")), (1, epoch));
    let (mut out, mut next) = (Vec::new(), next);
    until("what is left comes", || {
        next = late.read("t", next, 10, &mut out);
        !out.is_empty()
    });
    assert_eq!((out[0].offset, &*out[0].value, next), (3, b"d".as_slice(), 4));
    assert_ne!(late.epoch("t"), epoch);
    assert_eq!(late.range("t"), (3, 4));
}

/// A frozen broker: commands are answered `unavailable` in time and not at all before, nobody waits longer, and when it
/// is back everything goes on by itself; what a patient handle said is there, in order, once.
#[test]
fn a_frozen_broker_refuses_in_time() {
    let broker = Broker::start();
    broker.create("games.commands", 1);
    broker.create("games.events", 1);
    let config =
        KafkaConfig { delivery_timeout: Duration::from_secs(3), ..broker.config(&["games.commands", "games.events"]) };
    let bus = KafkaBus::open(&config).unwrap();
    let (mut rig, _) = Rig::start(Box::new(bus.commands(Arc::new(Count::default()))), &["games.events"]);
    let mut patient = bus.handle();
    put(&mut patient, "games.events", timeline("r", 0, "").as_bytes()).unwrap();
    broker.freeze();
    let began = Instant::now();
    (1..=5).for_each(|correlation| rig.command(correlation, "games.commands", b"k"));
    (1..=5).for_each(|n| {
        let pending = patient.append(WallMillis(1), &append("games.events", timeline("r", n, "").as_bytes()));
        assert!(matches!(pending, Ok(Accepted::Pending(_))));
    });
    let mut answers = Vec::new();
    until("the commands are answered", || {
        answers.extend(rig.turn().1);
        answers.len() == 5
    });
    let waited = began.elapsed();
    assert!(answers.iter().all(|(_, outcome)| *outcome == Err(ErrorCode::Unavailable)));
    assert!(waited > Duration::from_secs(2) && waited < Duration::from_secs(8), "{waited:?}");
    broker.thaw();
    let mut ends = Vec::new();
    until("what was said with patience is accepted", || {
        patient.completed(&mut ends);
        ends.len() == 5
    });
    assert!(ends.iter().all(|Completed { outcome, .. }| outcome.is_ok()));
    let (records, _) = take(&mut patient, "games.events", 0, 6);
    let expected: Vec<_> = (0..6).map(|n| timeline("r", n, "")).collect();
    assert!(records.iter().map(|record| String::from_utf8(record.value.to_vec()).unwrap()).eq(expected));
    assert_eq!(patient.range("games.events").1, 6, "nothing came twice");
    let mut correlation = 5;
    until("commands are accepted again", || {
        correlation += 1;
        rig.command(correlation, "games.commands", b"k");
        let mut answers = Vec::new();
        until("an answer", || {
            answers.extend(rig.turn().1);
            !answers.is_empty()
        });
        answers[0].1.is_ok()
    });
}

/// A record that Kafka refuses for good, here for its topic's bound, takes those behind it with it: none of them is in the
/// log, so whoever appends them again keeps their order, and each is there once.
#[test]
fn what_is_behind_a_refusal_is_not_accepted() {
    let broker = Broker::start();
    broker.create_with("t", 1, &[("max.message.bytes", "2000")]);
    let bus = KafkaBus::open(&broker.config(&["t"])).unwrap();
    let (mut patient, mut ends) = (bus.handle(), Vec::new());
    put_all(&mut patient, (0..3).map(|n| keyed("t", "k", n)));
    for round in 0..12 {
        let first = 3 + round * 20;
        let long = append("t", &[b'x'; 5000]);
        let behind = (first..first + 20).map(|n| keyed("t", "k", n));
        for record in std::iter::once(Append { key: b"k".as_slice().into(), ..long }).chain(behind.clone()) {
            assert!(matches!(patient.append(WallMillis(1), &record), Ok(Accepted::Pending(_)) | Err(_)));
        }
        until("all have ended", || {
            patient.completed(&mut ends);
            !ends.is_empty()
        });
        assert!(ends.drain(..).all(|end: Completed| end.outcome == Err(ErrorCode::Unavailable)));
        put_all(&mut patient, behind);
    }
    let (records, _) = take(&mut bus.handle(), "t", 0, 243);
    let values: Vec<_> = records.iter().map(|record| u32::from_le_bytes((*record.value).try_into().unwrap())).collect();
    assert!(values.iter().copied().eq(0..243), "{values:?}");
    assert_eq!(patient.range("t").1, 243, "nothing came twice");
}

/// A broker that is restarted under load loses nothing that was accepted, and a reader sees all of it, in order.
#[test]
fn a_restart_under_load_loses_nothing() {
    let broker = Broker::start();
    broker.create("t", 3);
    let bus = KafkaBus::open(&broker.config(&["t"])).unwrap();
    let (mut commands, mut reader) = (bus.commands(Arc::new(Count::default())), bus.handle());
    let (mut sent, mut under_way, mut accepted) = (0u32, BTreeMap::new(), Vec::new());
    let mut ends = Vec::new();
    let mut load = |bus: &mut KafkaBus, accepted: &mut Vec<u32>| {
        if let Ok(Accepted::Pending(ticket)) = bus.append(WallMillis(1), &keyed("t", &format!("k{}", sent % 9), sent)) {
            under_way.insert(ticket, sent);
        }
        sent += 1;
        bus.completed(&mut ends);
        for Completed { ticket, outcome } in ends.drain(..) {
            let n = under_way.remove(&ticket).expect("each ends once");
            accepted.extend(outcome.is_ok().then_some(n));
        }
        std::thread::park_timeout(Duration::from_millis(1));
        under_way.len()
    };
    for _ in 0..2 {
        let before = accepted.len();
        until("some are accepted", || {
            load(&mut commands, &mut accepted);
            accepted.len() > before + 300
        });
        broker.stop();
        (0..300).for_each(|_| _ = load(&mut commands, &mut accepted));
        broker.again();
    }
    let before = accepted.len();
    until("some are accepted again", || {
        load(&mut commands, &mut accepted);
        accepted.len() > before + 300
    });
    accepted.sort_unstable();
    let mut seen: Vec<u32> = Vec::new();
    for partition in 0..3 {
        let name = partition_name("t", partition);
        let (end, mut next, mut records) = (reader.range(&name).1, 0, Vec::new());
        until("a partition is read", || {
            next = reader.read(&name, next, 1000, &mut records);
            next >= end
        });
        let mut last: BTreeMap<Vec<u8>, u32> = BTreeMap::new();
        for record in records {
            let n = u32::from_le_bytes((*record.value).try_into().unwrap());
            assert!(last.insert(record.key.to_vec(), n).is_none_or(|before| before < n), "out of order, or twice");
            seen.push(n);
        }
    }
    seen.sort_unstable();
    let missing: Vec<_> = accepted.iter().filter(|n| seen.binary_search(n).is_err()).collect();
    assert!(missing.is_empty(), "accepted and lost: {missing:?}");
}

/// A partition whose only broker is gone has no leader and stands alone: commands are refused in time, again and again;
/// what a patient handle says to it waits, and is there in order, once, when the leader is back; the other partition is
/// written and read meanwhile, also by who opens the bus only then.
#[test]
fn a_partition_without_leader_stands_alone() {
    let broker = Broker::start();
    let second = broker.beside();
    broker.create_on("t", &[1, 2]);
    let config = KafkaConfig { delivery_timeout: Duration::from_secs(1), ..broker.config(&["t"]) };
    let bus = KafkaBus::open(&config).unwrap();
    let (mut waits, mut other) = (bus.handle(), bus.handle());
    let ends = |bus: &KafkaBus| [0, 1].map(|partition| bus.range(&partition_name("t", partition)).1);
    let mut keys = [const { None }; 2];
    for n in 0.. {
        let (key, before) = (format!("room-{n}"), ends(&other));
        put_as(&mut other, &keyed("t", &key, 0)).unwrap();
        let partition = usize::from(ends(&other)[1] > before[1]);
        keys[partition].get_or_insert(key);
        if keys.iter().all(Option::is_some) {
            break;
        }
    }
    let keys = keys.map(Option::unwrap);
    // A producer that knew the leader.
    let mut commands = bus.commands(Arc::new(Count::default()));
    put_as(&mut commands, &keyed("t", &keys[1], 0)).unwrap();
    let [with, without] = ends(&other);
    second.stop();
    until("the partition has no leader", || !broker.has_leader("t", 1));
    for n in 1..=50 {
        assert!(matches!(waits.append(WallMillis(1), &keyed("t", &keys[1], n)), Ok(Accepted::Pending(_))));
        put_as(&mut other, &keyed("t", &keys[0], n)).unwrap();
    }
    let mut late = KafkaBus::open(&broker.config(&["t"])).unwrap();
    put_as(&mut late, &keyed("t", &keys[0], 51)).unwrap();
    let values = |records: Vec<ringgate::ports::Record>| {
        records.iter().map(|record| u32::from_le_bytes((*record.value).try_into().unwrap())).collect::<Vec<_>>()
    };
    assert!(values(take(&mut late, "t", with, 51).0).into_iter().eq(1..=51));
    for round in 0..8 {
        let began = Instant::now();
        assert_eq!(put_as(&mut commands, &keyed("t", &keys[1], 1000)), Err(ErrorCode::Unavailable));
        assert!(began.elapsed() < Duration::from_secs(5), "round {round}: {:?}", began.elapsed());
        put_as(&mut commands, &keyed("t", &keys[0], 52 + round)).unwrap();
    }
    let mut told = Vec::new();
    waits.completed(&mut told);
    assert_eq!(told, [], "nothing of it is accepted or refused");
    second.again();
    until("what waited is accepted", || {
        waits.completed(&mut told);
        told.len() == 50
    });
    assert!(told.iter().all(|end| end.outcome.is_ok()));
    let name = partition_name("t", 1);
    assert!(values(take(&mut late, &name, without, 50).0).into_iter().eq(1..=50));
    assert_eq!(ends(&late), [with + 59, without + 50], "nothing came twice");
}

/// A start says what is wrong: nobody there, topics missing; topics are made on request, once; a look finds what deserves
/// a change.
#[test]
fn a_start_says_what_is_wrong() {
    let nobody = KafkaConfig {
        connect_timeout: Duration::from_secs(1),
        ..KafkaConfig::new("127.0.0.1:1", "gw", describe_topics)
    };
    let refusal = KafkaBus::open(&nobody).map(|_| ()).unwrap_err();
    assert!(refusal.starts_with("Kafka at 127.0.0.1:1 did not answer within 1 s: "), "{refusal}");
    assert!(refusal.contains("refused") && refusal.contains("check KAFKA_HOST"), "{refusal}");
    let broker = Broker::start();
    let config = broker.config(&["games.commands", "games.events", "system.events", "ringgate.state"]);
    let refusal = KafkaBus::open(&config).map(|_| ()).unwrap_err();
    let expected =
        "no topic games.commands, games.events, system.events, ringgate.state; make them with `ringgate topics create`";
    assert!(refusal.contains(expected), "{refusal}");
    let hour = Duration::from_secs(3600);
    let creation = Creation { partitions: 6, replication: None, min_insync_replicas: Some(1), retention: hour };
    let lines = create(&config, &creation).unwrap();
    assert_eq!((lines.len(), &*lines[0]), (4, "games.commands: made"));
    assert_eq!(create(&config, &creation).unwrap()[1], "games.events: was there; it is left as it is");
    let bus = KafkaBus::open(&config).unwrap();
    assert_eq!(["games.events", "system.events"].map(|topic| bus.partitions(topic)), [6, 1]);
    let found = look(&config, hour).unwrap();
    assert!(found.lines.iter().any(|line| line == "kafka topic games.events: 6 partitions"), "{:?}", found.lines);
    assert_eq!(found.warnings, [""; 0]);
    let found = look(&config, 2 * hour).unwrap();
    assert!(
        found.warnings[0].contains("retention.ms = 3600000 is less than the histories' 7200000"),
        "{:?}",
        found.warnings
    );
    let impossible = Creation { replication: Some(3), ..creation };
    broker.delete("games.events");
    let refusals = create(&config, &impossible).unwrap_err();
    assert!(refusals[0].contains("give --replication at most the number of brokers"), "{refusals:?}");
}

/// The binary over Kafka: topics by its own command, a check that reaches it, a log that says where it is, a command that
/// a backend reads, an event that comes to the client, a restart after which a resume replays what was missed, a topic
/// made anew that closes who was reading it and tells it at the resume.
#[test]
fn the_binary_speaks_kafka() {
    let broker = Broker::start();
    let kafka = broker.address().to_owned();
    let (fine, _, complaints) = ringgate(&kafka, &["serve", "--port", "0", "--health-port", "0"]);
    assert!(!fine && complaints.contains("make them with `ringgate topics create`"), "{complaints}");
    let (fine, lines, complaints) =
        ringgate(&kafka, &["topics", "create", "--partitions", "3", "--retention-s", "3600"]);
    assert!(fine && lines.contains("games.events: made\n"), "{lines}{complaints}");
    let (fine, lines, complaints) = ringgate(&kafka, &["config", "check", "--connect"]);
    assert!(fine && lines.contains("# kafka topic games.events: 3 partitions\n"), "{lines}{complaints}");
    let gateway = Gateway::start(&kafka);
    assert!(gateway.get("/ready").contains("kafka"), "{}", gateway.get("/ready"));
    let elsewhere = gateway.get("/api/log/games.events");
    assert!(elsewhere.starts_with("HTTP/1.1 404 ") && elsewhere.contains("read them there"), "{elsewhere}");
    let mut backend = KafkaBus::open(&broker.config(&["games.commands", "games.events"])).unwrap();
    let mut client = Client::open(&gateway, json!({}));
    client.send(&json!({"type": "games.command.list_rooms", "correlation_id": "c1"}));
    assert_eq!(client.until("system.ack")["correlation_id"], "c1");
    let command = (0..3).map(|n| partition_name("games.commands", n)).find(|name| backend.range(name).1 == 1).unwrap();
    let (records, _) = take(&mut backend, &command, 0, 1);
    let envelope: serde_json::Value = serde_json::from_slice(&records[0].value).unwrap();
    assert_eq!((&envelope["user"]["user_id"], &envelope["gateway_id"]), (&json!("ann"), &json!("gw-test")));
    let mut say = |n: u64| {
        let event = json!({"event_type": "games.event.error", "target": {"user_id": "ann"},
            "payload": {"code": "forbidden", "message": n.to_string()}});
        let key = b"ann".as_slice().into();
        put_as(&mut backend, &Append { key, ..append("games.events", event.to_string().as_bytes()) }).unwrap();
    };
    say(1);
    let first = client.until("system.error");
    assert_eq!(first["message"], "1");
    let stream = |message: &serde_json::Value| {
        let streams = message["streams"].as_array().unwrap().clone();
        streams.into_iter().find(|stream| stream["stream"].as_str().unwrap().ends_with("/user:ann")).unwrap()
    };
    gateway.stop();
    say(2);
    let gateway = Gateway::start(&kafka);
    // Without Redis the session is gone with its gateway, the histories are not.
    let mut client = Client::open(&gateway, json!({}));
    say(3);
    let position = stream(&client.until("system.position"));
    let third = client.until("system.error");
    assert_eq!((&third["message"], &third["at"][2]), (&json!("3"), &json!(2)), "its prev is the place of the second");
    let resume = client.session["resume"].clone();
    broker.delete("games.events");
    broker.create("games.events", 3);
    until("the backend writes to the new topic", || {
        let event = json!({"event_type": "games.event.error", "target": {"user_id": "ann"},
            "payload": {"code": "forbidden", "message": "anew"}});
        let key = b"ann".as_slice().into();
        put_as(&mut backend, &Append { key, ..append("games.events", event.to_string().as_bytes()) }).is_ok()
    });
    assert_eq!(client.until("close")["code"], 1013);
    let positions =
        json!({position["stream"].as_str().unwrap(): {"epoch": position["epoch"], "offset": third["at"][1]}});
    let client = Client::open(&gateway, json!({"resume": resume, "positions": positions}));
    assert_eq!((&client.session["recovered"], &client.session["reason"]), (&json!(false), &json!("epoch_changed")));
}
