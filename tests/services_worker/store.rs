//! The services' records, on Kafka and in SQLite, by the same test; and what only Kafka can bring.

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use ringgate::bus::kafka::{STATE_TOPIC, StateStore, fit_for_records};
use ringgate::id::EventId;
use ringgate::ports::{ChatMessage, Store, Write};
use ringgate::store::{SqliteStore, StoreSettings};
use ringgate::time::WallMillis;

use super::broker::Broker;

fn put(service: &'static str, key: &str, value: &str) -> Write {
    Write::Put { service, key: key.into(), value: value.as_bytes().into() }
}

fn remove(service: &'static str, key: &str) -> Write {
    Write::Remove { service, key: key.into() }
}

fn message() -> Write {
    Write::Message(Box::new(ChatMessage {
        id: EventId([1; 16]),
        room: "r".into(),
        sender: "u".into(),
        sender_name: "U".into(),
        message: "hi".into(),
        at: WallMillis(1),
    }))
}

fn texts(store: &mut dyn Store, service: &str) -> Vec<(String, String)> {
    let records = store.load(service).unwrap().into_iter();
    records.map(|(key, value)| (key, String::from_utf8(value).unwrap())).collect()
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

/// What every store does: records by service and key, in batches, for whoever opens it next; history beside them.
fn a_store_keeps_records(open: &dyn Fn() -> Box<dyn Store>) {
    let mut store = open();
    assert_eq!(texts(&mut *store, "rooms"), []);
    store
        .write(&[put("rooms", "b", "1"), put("rooms", "a/1", "2"), put("rooms", "b", "3"), put("hub", "b", "4")])
        .unwrap();
    store.write(&[message(), put("rooms", "c", "5")]).unwrap();
    store.write(&[message()]).unwrap();
    assert_eq!(
        texts(&mut *store, "rooms"),
        pairs(&[("a/1", "2"), ("b", "3"), ("c", "5")]),
        "read again when it is asked again"
    );
    drop(store);
    let mut store = open();
    assert_eq!(texts(&mut *store, "rooms"), pairs(&[("a/1", "2"), ("b", "3"), ("c", "5")]));
    store.write(&[remove("rooms", "b"), remove("rooms", "nobody"), put("rooms", "c", "6")]).unwrap();
    store.write(&[]).unwrap();
    drop(store);
    let mut store = open();
    assert_eq!(texts(&mut *store, "rooms"), pairs(&[("a/1", "2"), ("c", "6")]));
    assert_eq!(texts(&mut *store, "hub"), pairs(&[("b", "4")]));
    assert_eq!(texts(&mut *store, "nobody's"), []);
    let messages = store.messages("r", 9).unwrap();
    assert_eq!(messages.iter().map(|message| &*message.message).collect::<Vec<_>>(), ["hi"], "once");
}

/// SQLite and Kafka keep records alike.
#[test]
fn stores_keep_records_alike() {
    let broker = Broker::start();
    make(&broker, 1, "compact");
    let folder = std::env::temp_dir().join(format!("ringgate-worker-store-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let sqlite = |name: &str| {
        let settings = StoreSettings { file: Some(folder.join(name)), messages_max: 10 };
        Box::new(SqliteStore::open(&settings).unwrap())
    };
    a_store_keeps_records(&|| sqlite("all"));
    let config = broker.config(&[STATE_TOPIC]);
    a_store_keeps_records(&|| Box::new(StateStore::open(&config, Some(sqlite("history"))).unwrap()));
    std::fs::remove_dir_all(&folder).unwrap();
}

/// Whoever opens the store takes it over: the former one is told so, and nothing of it is kept from then on.
#[test]
fn a_store_has_one_writer() {
    let broker = Broker::start();
    make(&broker, 1, "compact");
    let config = broker.config(&[STATE_TOPIC]);
    let mut former = StateStore::open(&config, None).unwrap();
    former.write(&[put("rooms", "a", "1")]).unwrap();
    let mut store = StateStore::open(&config, None).unwrap();
    assert_eq!(store.records(), 1);
    let error = former.write(&[put("rooms", "a", "2")]).unwrap_err();
    assert!(error.lost && error.to_string().contains("another worker has taken over"), "{error}");
    assert!(former.write(&[put("rooms", "a", "2")]).unwrap_err().lost, "and so it stays");
    store.write(&[put("rooms", "b", "3")]).unwrap();
    drop((former, store));
    let mut store = StateStore::open(&config, None).unwrap();
    assert_eq!(texts(&mut store, "rooms"), pairs(&[("a", "1"), ("b", "3")]));
}

/// A batch with a record that Kafka never takes is refused as a whole, by the record's name and with the remedy; the store
/// goes on.
#[test]
fn a_record_that_is_too_long_is_named() {
    let broker = Broker::start();
    make(&broker, 1, "compact");
    let mut store = StateStore::open(&broker.config(&[STATE_TOPIC]), None).unwrap();
    let long = "x".repeat(2_000_000);
    let error = store.write(&[put("rooms", "a", "1"), put("rooms", "long", &long)]).unwrap_err();
    let text = error.to_string();
    assert!(
        !error.lost && text.contains("record rooms/long of 2000000 bytes") && text.contains("max.message.bytes"),
        "{text}"
    );
    store.write(&[put("rooms", "b", "2")]).unwrap();
    assert_eq!(texts(&mut store, "rooms"), pairs(&[("b", "2")]), "all of a batch or nothing");
}

/// A topic that would forget records, or that has several partitions, is refused with the remedy.
#[test]
fn a_topic_that_forgets_is_refused() {
    let broker = Broker::start();
    let config = broker.config(&[STATE_TOPIC]);
    let refusal = |partitions, policy: &str, told: &str| {
        make(&broker, partitions, policy);
        let refusal = fit_for_records(&config).unwrap_err();
        assert!(refusal.contains(told), "{refusal}");
        broker.delete(STATE_TOPIC);
    };
    refusal(1, "delete", "cleanup.policy = delete: rooms would be forgotten; set it to compact");
    refusal(1, "compact,delete", "rooms would be forgotten");
    refusal(2, "compact", "2 partitions, but the services' records need one");
    make(&broker, 1, "compact");
    fit_for_records(&config).unwrap();
}

fn make(broker: &Broker, partitions: i32, policy: &str) {
    let admin: AdminClient<DefaultClientContext> =
        rdkafka::ClientConfig::new().set("bootstrap.servers", broker.address()).create().unwrap();
    let spec = NewTopic::new(STATE_TOPIC, partitions, TopicReplication::Fixed(1)).set("cleanup.policy", policy);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let made = runtime.block_on(admin.create_topics([&spec], &AdminOptions::new())).unwrap();
    made.into_iter().for_each(|outcome| _ = outcome.unwrap());
}
