//! PostgreSQL away, frozen, back.

use std::time::{Duration, Instant};

use ringgate::limits;
use ringgate::ports::Store as _;
use ringgate::store::PostgresStore;

use super::open;
use super::server::Server;
use super::suite::{message, put, texts};

/// No longer than the bound, and what a busy machine adds.
const BOUND: Duration = limits::POSTGRES_TIMEOUT.saturating_add(Duration::from_secs(3));

/// A server that is restarted between two batches, as an operator does it or by a crash, is not noticed; while it is away
/// a batch is refused at once and may be tried again, and nothing of it is there.
#[test]
fn a_restart_is_mended() {
    let server = Server::start();
    let mut store = open(&server);
    store.write(&[message(1, "r")]).unwrap();
    server.stop();
    server.again();
    store.write(&[message(2, "r")]).unwrap();
    server.kill();
    server.again();
    store.write(&[message(3, "r")]).unwrap();
    server.stop();
    let batch = [message(4, "r"), put("a", "1")];
    for _ in 0..2 {
        let began = Instant::now();
        let error = store.write(&batch).unwrap_err();
        assert!(!error.lost && error.cause.contains("is PostgreSQL running there, as POSTGRES_URL says?"), "{error}");
        assert!(error.to_string().contains("PostgreSQL at 127.0.0.1:"), "{error}");
        assert!(began.elapsed() < BOUND, "{:?}", began.elapsed());
    }
    assert!(store.messages("r", 9).is_err());
    server.again();
    store.write(&batch).unwrap();
    assert_eq!(texts(&mut store, "r", 9), ["m1", "m2", "m3", "m4"]);
    assert_eq!(store.load("rooms").unwrap().len(), 1);
}

/// A server that is frozen holds a batch up for so long and no longer, again and again; when it goes on, so does the
/// store, and whatever became of the batch there, it stands there once.
#[test]
fn a_frozen_server_is_not_waited_for_for_ever() {
    let server = Server::start();
    let mut store = open(&server);
    store.write(&[message(1, "r")]).unwrap();
    server.freeze(true);
    for _ in 0..2 {
        let began = Instant::now();
        let error = store.write(&[message(2, "r")]).unwrap_err();
        assert!(!error.lost && error.cause.contains("did not answer within 5 s"), "{error}");
        assert!(began.elapsed() < BOUND, "{:?}", began.elapsed());
    }
    server.freeze(false);
    let began = Instant::now();
    while let Err(error) = store.write(&[message(2, "r"), message(3, "r")]) {
        assert!(!error.lost && began.elapsed() < 2 * BOUND, "{error}");
    }
    assert_eq!(texts(&mut store, "r", 9), ["m1", "m2", "m3"]);
}

/// A store that is opened while its server is away takes it over when it is back, and makes its tables then.
#[test]
fn a_store_waits_for_its_server() {
    let server = Server::start();
    server.stop();
    let mut store = open(&server);
    assert!(!store.write(&[message(1, "r")]).unwrap_err().lost);
    server.again();
    store.write(&[message(1, "r")]).unwrap();
    assert_eq!(server.ask("SELECT term FROM ringgate_writer"), ["1"]);
    assert_eq!(texts(&mut store, "r", 9), ["m1"]);
}

/// Somebody's lock on a table holds a batch up within the bound; then it is written.
#[test]
fn a_lock_is_not_waited_for_for_ever() {
    let server = Server::start();
    let mut store = open(&server);
    let holder = server.hold("LOCK TABLE chat_messages IN ACCESS EXCLUSIVE MODE");
    let began = Instant::now();
    let error = store.write(&[message(1, "r")]).unwrap_err();
    assert!(!error.lost && began.elapsed() < BOUND, "{error} after {:?}", began.elapsed());
    drop(holder);
    store.write(&[message(1, "r")]).unwrap();
    assert_eq!(texts(&mut store, "r", 9), ["m1"]);
}

/// The store of a thread that ends leaves no connection behind.
#[test]
fn a_store_that_is_dropped_is_gone() {
    let server = Server::start();
    let count = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'ringgate'";
    let store: PostgresStore = open(&server);
    assert_eq!(server.ask(count), ["1"]);
    drop(store);
    let began = Instant::now();
    while server.ask(count) != ["0"] {
        assert!(began.elapsed() < BOUND);
    }
}
