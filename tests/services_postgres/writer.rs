//! Of several stores on a database one writes.

use std::thread;

use ringgate::ports::{Store as _, Write};
use ringgate::store::PostgresStore;

use super::open;
use super::server::Server;
use super::suite::{message, texts};

fn room() -> Write {
    Write::Room { room: "r".into(), code: "ABCDEF".into(), max_players: 10, at: ringgate::time::WallMillis(1) }
}

/// Whoever opens it takes it over: the former one is told so, and so it stays, though its connection is made anew; a room
/// that has ended since does not come back.
#[test]
fn a_former_writer_is_refused() {
    let server = Server::start();
    let mut former = open(&server);
    former.write(&[room(), message(1, "r")]).unwrap();
    let mut store = open(&server);
    store.write(&[Write::RemoveRoom { room: "r".into() }]).unwrap();
    for _ in 0..2 {
        let error = former.write(&[room(), message(2, "r")]).unwrap_err();
        let told = "another worker writes there now (term 2, this one's was 1)";
        assert!(error.lost && error.cause.contains(told), "{error}");
    }
    assert_eq!(server.ask("SELECT count(*) FROM rooms"), ["0"]);
    assert_eq!(texts(&mut store, "r", 9), [""; 0]);
    store.write(&[message(3, "r")]).unwrap();
    server.ask("DELETE FROM ringgate_writer");
    assert!(store.write(&[message(4, "r")]).unwrap_err().lost, "whoever knows of no term is nobody");
    assert_eq!(texts(&mut open(&server), "r", 9), ["m3"]);
}

/// A writer that froze in the middle of a transaction holds its successor up for no longer than the server waits for it;
/// what it had begun is not there.
#[test]
fn a_frozen_writer_leaves_the_way() {
    let server = Server::start();
    drop(open(&server));
    let silence = ringgate::limits::POSTGRES_SILENCE.as_millis();
    let holder = server.hold(&format!(
        "SET LOCAL idle_in_transaction_session_timeout = {silence}; SELECT term FROM ringgate_writer FOR UPDATE;
         INSERT INTO rooms VALUES ('r', 'ABCDEF', now(), 10)"
    ));
    let mut store = open(&server);
    store.write(&[message(1, "r")]).unwrap();
    assert_eq!(server.ask("SELECT count(*) FROM rooms"), ["0"]);
    assert_eq!(server.ask("SELECT term FROM ringgate_writer"), ["2"], "the first opening waited");
    drop(holder);
}

/// Several that open an empty database at once make its tables once, each takes a term of its own, and the last one writes.
#[test]
fn many_open_at_once() {
    const MANY: usize = 6;
    let server = Server::start();
    let mut stores: Vec<PostgresStore> = thread::scope(|scope| {
        let opening: Vec<_> = (0..MANY).map(|_| scope.spawn(|| open(&server))).collect();
        opening.into_iter().map(|store| store.join().unwrap()).collect()
    });
    assert_eq!(server.ask("SELECT term FROM ringgate_writer"), [MANY.to_string()]);
    let outcomes: Vec<_> = stores.iter_mut().map(|store| store.write(&[message(1, "r")])).collect();
    let (written, refused): (Vec<_>, Vec<_>) = outcomes.into_iter().partition(Result::is_ok);
    assert_eq!(written.len(), 1);
    assert!(refused.into_iter().all(|outcome| outcome.unwrap_err().lost));
}
