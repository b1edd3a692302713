//! Kafka over librdkafka's mock cluster, which is in this process: what a real broker cannot be asked to do at will.
//! `tests/services_kafka.rs` has the real one.

use std::time::Duration;

use rdkafka::client::Client;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;

use super::producer::partition_of;
use super::*;
use crate::bus::tests::suite::{self, Count, Subject, append, put_as, until};
use crate::ports::{Described, partition_name};

type Mock = MockCluster<'static, DefaultProducerContext>;

fn config(mock: &Mock) -> KafkaConfig {
    KafkaConfig {
        connect_timeout: Duration::from_secs(10),
        delivery_timeout: Duration::from_secs(2),
        ..KafkaConfig::new(mock.bootstrap_servers(), "test", described)
    }
}

/// The mock answers no DescribeTopics: it has topics without ids.
fn described(
    client: &Client<Reports>,
    topics: &[Arc<str>],
    timeout: Duration,
) -> Result<Vec<Option<Described>>, RDKafkaErrorCode> {
    let failed = |error: KafkaError| error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown);
    let metadata = client.fetch_metadata(None, timeout).map_err(failed)?;
    let find = |name: &Arc<str>| metadata.topics().iter().find(|topic| topic.name() == &**name);
    let count = |name| Some(u32::try_from(find(name)?.partitions().len()).unwrap());
    Ok(topics.iter().map(|name| Some(Described { id: "mock".into(), partitions: count(name)? })).collect())
}

/// A mock as a subject of the suite.
struct Mocked(Mock, KafkaBus);

impl Subject for Mocked {
    fn reader(&self, _topics: &[&str], wake: Arc<dyn Wake>) -> Box<dyn Bus> {
        Box::new(self.1.reader(wake))
    }

    fn handle(&self) -> Box<dyn Bus> {
        Box::new(self.1.handle())
    }

    fn topic(&self, name: &str) -> String {
        self.0.create_topic(name, 1, 1).unwrap();
        until("the topic is known", || {
            self.1.look_again();
            self.1.has(name)
        });
        name.to_owned()
    }
}

/// What every bus does that a mock can be asked for.
#[test]
fn a_mock_does_what_every_bus_does() {
    let scenes: [fn(&dyn Subject); 4] = [
        suite::appends_in_flight_end_in_order,
        suite::handles_are_told_of_their_own_appends,
        suite::every_reader_sees_everything,
        suite::commands_are_answered_when_they_are_there,
    ];
    for scene in scenes {
        let mock = MockCluster::new(1).unwrap();
        let bus = KafkaBus::open(&config(&mock)).unwrap();
        scene(&Mocked(mock, bus));
    }
}

/// Keys of these partitions of two.
fn keys() -> [String; 2] {
    [0, 1].map(|wanted| {
        let mut keys = (0..).map(|n: u32| format!("room-{n}"));
        keys.find(|key| partition_of(key.as_bytes(), 2) == wanted).unwrap()
    })
}

/// A partition whose leader is away is refused for itself alone: in time, beyond its bound at once; others go on, and so
/// does it when its leader is back.
#[test]
fn a_partition_without_leader_stands_alone() {
    // With no leader at all the mock itself ends (librdkafka 2.12.1), so the leader goes.
    let mock = MockCluster::new(2).unwrap();
    mock.create_topic("t", 2, 1).unwrap();
    for (partition, broker) in [(0, 2), (1, 1)] {
        mock.partition_leader("t", partition, Some(broker)).unwrap();
    }
    let bus = KafkaBus::open(&KafkaConfig { topics: vec!["t".to_owned()], ..config(&mock) }).unwrap();
    let mut commands = bus.commands(Arc::new(Count::default()));
    let to = |partition: usize| Append { key: keys()[partition].as_bytes().into(), ..append("t", b"x") };
    for partition in [0, 1] {
        put_as(&mut commands, &to(partition)).unwrap();
    }
    mock.broker_down(2).unwrap();
    let began = Instant::now();
    let stuck: Vec<_> = (0..limits::KAFKA_PARTITION_PENDING).map(|_| commands.append(WallMillis(1), &to(0))).collect();
    assert!(stuck.iter().all(Result::is_ok));
    assert_eq!(commands.append(WallMillis(1), &to(0)), Err(ErrorCode::Unavailable), "beyond its bound");
    let mut ends = Vec::new();
    let other = commands.append(WallMillis(1), &to(1)).unwrap();
    until("the other partition accepts", || {
        commands.completed(&mut ends);
        ends.iter().any(|end| Accepted::Pending(end.ticket) == other)
    });
    assert!(began.elapsed() < Duration::from_secs(2), "it did not wait for the first");
    until("those without leader end", || {
        commands.completed(&mut ends);
        ends.len() == stuck.len() + 1
    });
    let refused = ends.iter().filter(|end| end.outcome == Err(ErrorCode::Unavailable)).count();
    assert_eq!(refused, stuck.len());
    mock.broker_up(2).unwrap();
    until("it goes on", || put_as(&mut commands, &to(0)).is_ok());
    let mut reader = bus.handle();
    let (mut out, mut next) = (Vec::new(), 0);
    until("it can be read", || {
        next = reader.read(&partition_name("t", 0), next, 9999, &mut out);
        out.len() >= 2
    });
}

/// What is too long is told at once.
#[test]
fn a_record_that_kafka_never_takes_is_told() {
    let mock = MockCluster::new(1).unwrap();
    mock.create_topic("t", 1, 1).unwrap();
    let mut bus = KafkaBus::open(&KafkaConfig { topics: vec!["t".to_owned()], ..config(&mock) }).unwrap();
    let long = append("t", &vec![b'x'; limits::KAFKA_RECORD_BYTES]);
    assert_eq!(bus.append(WallMillis(1), &long), Err(ErrorCode::TooLong));
    let most = append("t", &vec![b'x'; limits::KAFKA_RECORD_BYTES - 2000]);
    assert_eq!(put_as(&mut bus, &most), Ok(()));
    assert_eq!(bus.append(WallMillis(1), &append("nowhere", b"x")), Err(ErrorCode::Unavailable));
}

/// The numbering is the cluster's, the topic's, the operator's and that of breaks; each makes another.
#[test]
fn epochs_name_numberings() {
    let cluster = |id: &str, generation| Cluster::new(id.to_owned(), generation);
    let base = cluster("c", 0).epoch("t", "id", 0);
    assert_eq!(base, cluster("c", 0).epoch("t", "id", 0), "every gateway and every start says the same");
    for other in [
        cluster("d", 0).epoch("t", "id", 0),
        cluster("c", 1).epoch("t", "id", 0),
        cluster("c", 0).epoch("u", "id", 0),
        cluster("c", 0).epoch("t", "di", 0),
        cluster("c", 0).epoch("t", "id", 1),
    ] {
        assert!(other != base && other < 1 << 53);
    }
}

/// No secret is printed.
#[test]
fn secrets_are_not_printed() {
    let mut config = KafkaConfig::new("k:9092", "gw", described);
    config.security = Security { username: Some("u".into()), password: Some("hush".into()), ..Security::default() };
    assert!(!format!("{config:?} {:?}", config.security).contains("hush"));
}

/// What this binary cannot do is refused with the remedy.
#[cfg(not(feature = "kafka-tls"))]
#[test]
fn what_needs_tls_is_refused() {
    let mut config = KafkaConfig::new("k:9092", "gw", described);
    config.security.tls = true;
    let refusal = KafkaBus::open(&config).map(|_| ()).unwrap_err();
    assert!(refusal.contains("kafka.tls") && refusal.contains("--features kafka-tls"), "{refusal}");
}
