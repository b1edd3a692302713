//! The store in a real PostgreSQL, which `tests/services/postgres.sh` installs and starts: the suite of every store,
//! outages, who may write, and what is said to an operator whose URL does not do.

mod outage;
mod refused;
mod server;
#[path = "../../src/store/suite.rs"]
mod suite;
mod writer;

use ringgate::ports::Store as _;
use ringgate::store::{PostgresSettings, PostgresStore};

use server::Server;
use suite::{message, texts};

fn open(server: &Server) -> PostgresStore {
    PostgresStore::open(&server.settings(10)).unwrap()
}

/// What every store does, PostgreSQL does.
#[test]
fn it_is_a_store() {
    let server = Server::start();
    let fresh = |messages_max| {
        server.ask("DROP TABLE IF EXISTS ringgate_writer, records, rooms, room_players, chat_messages");
        PostgresStore::open(&server.settings(messages_max)).unwrap()
    };
    suite::records_are_kept_by_service_and_key(fresh(10));
    suite::messages_are_a_bounded_history(fresh(4));
    suite::a_batch_done_again_changes_nothing(fresh(10));
    suite::whatever_is_said_is_taken(fresh(10));
}

/// An operator finds the tables of PROTOCOLS B with the types that PostgreSQL has for them, times to the millisecond; the
/// trial of an opening leaves nothing there.
#[test]
fn an_operator_reads_the_tables() {
    use ringgate::ports::Write;
    use ringgate::time::WallMillis;
    let server = Server::start();
    let mut store = open(&server);
    let tables = "SELECT (SELECT count(*) FROM rooms) + (SELECT count(*) FROM room_players)
        + (SELECT count(*) FROM chat_messages) + (SELECT count(*) FROM records)";
    assert_eq!(server.ask(tables), ["0"]);
    let at = WallMillis(1_700_000_000_123);
    let room = Write::Room { room: "r".into(), code: "ABCDEF".into(), max_players: 10, at };
    let player = Write::Player { room: "r".into(), player: "u".into(), name: "Ann".into(), at };
    store.write(&[room, player, message(0xab, "r")]).unwrap();
    let utc = |column: &str| format!("to_char({column} AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.MS')");
    let rooms = format!("SELECT id, code, {}, max_players FROM rooms", utc("created_at"));
    assert_eq!(server.ask(&rooms), ["r|ABCDEF|2023-11-14 22:13:20.123|10"]);
    let players = format!("SELECT id, room_id, display_name, {} FROM room_players", utc("created_at"));
    assert_eq!(server.ask(&players), ["u|r|name 171|2023-11-14 22:13:20.123"], "the name is the one last seen");
    let messages = format!("SELECT id, room_id, room_player_id, message, {} FROM chat_messages", utc("created_at"));
    assert_eq!(server.ask(&messages), ["abababab-abab-abab-abab-abababababab|r|u|m171|1970-01-01 00:00:00.171"]);
}

/// By TLS, with an authority that is known, it is a store; without that authority it is refused with the remedy.
#[test]
fn tls_checks_the_certificate() {
    let server = Server::with(&["--tls", "--password", "sesame"]);
    let (url, authority) = (server.url(), server.file("ca.crt"));
    let with = |url: &str, ca: Option<&str>| PostgresSettings::parse(url, ca, 10).unwrap();
    let mut store = PostgresStore::open(&with(&url, Some(&authority))).unwrap();
    store.write(&[message(1, "r")]).unwrap();
    assert_eq!(texts(&mut store, "r", 9), ["m1"]);
    let tls = server.ask_in(
        "postgres",
        "SELECT count(*) FROM pg_stat_ssl s JOIN pg_stat_activity a USING (pid)
        WHERE s.ssl AND a.application_name = 'ringgate'",
    );
    assert_eq!(tls, ["1"]);
    let refused = |settings: &PostgresSettings| {
        let error = PostgresStore::open(settings).unwrap_err().to_string();
        assert!(!error.contains("sesame"), "{error}");
        error
    };
    let unknown = refused(&with(&format!("{url}?sslmode=require"), None));
    assert!(unknown.contains("UnknownIssuer") && unknown.contains("store.postgres_ca_path"), "{unknown}");
    let other_name = format!("{}?hostaddr=127.0.0.1", url.replace("@127.0.0.1", "@other.example"));
    let other_name = refused(&with(&other_name, Some(&authority)));
    assert!(other_name.contains("not valid for name \"other.example\""), "{other_name}");
    let plain = refused(&with(&url, None));
    assert!(plain.contains("no encryption") && plain.contains("sslmode=require"), "{plain}");
    let absent = refused(&with(&url, Some("/no/such.pem")));
    assert!(absent.contains("store.postgres_ca_path = \"/no/such.pem\""), "{absent}");
}
