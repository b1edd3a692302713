//! The history of rooms and messages in PostgreSQL: whatever becomes of workers and of the database, what was acknowledged
//! is there, once, in order.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use ringgate::store::PostgresStore;
use serde_json::{Value, json};

use super::broker::Broker;
use super::game::table;
use super::gateway::{Client, Gateway};
use super::postgres::Server;
use super::takeover::ranked;
use super::until;
use super::worker::Worker;

/// A database with its tables, so that an operator can ask before a worker has been there.
fn database(options: &[&str]) -> Server {
    let server = Server::with(options);
    drop(PostgresStore::open(&server.settings(10)).unwrap());
    server
}

fn worker(broker: &Broker, server: &Server) -> Worker {
    Worker::spawn(Worker::over(broker.address()).env("POSTGRES_URL", server.url()))
}

/// Somebody who talks, one message behind the other.
struct Talker {
    client: Client,
    said: u32,
}

impl Talker {
    fn open(gateway: &Gateway) -> Self {
        Self { client: Client::open_as(gateway, "ann", json!({})), said: 0 }
    }

    /// Says so many things, each when the one before is acknowledged.
    fn say(&mut self, many: u32) {
        for _ in 0..many {
            self.said += 1;
            // One that is refused for the rate is said again.
            until("it is acknowledged", || {
                self.client.send(&json!({
                    "type": "chat.command.send_message", "recipient_id": "bob", "content": self.said.to_string(),
                    "correlation_id": self.said.to_string()
                }));
                loop {
                    let answer = self.client.read().unwrap();
                    match answer["type"].as_str().unwrap() {
                        "system.ack" => return true,
                        "system.error" if answer["code"] == "rate_limited" => return false,
                        "system.error" | "close" => panic!("{answer}"),
                        _ => {}
                    }
                }
            });
        }
    }

    /// All that was acknowledged is in the database, once, in order.
    fn is_kept_by(&self, server: &Server) {
        let everything: Vec<String> = (1..=self.said).map(|n| n.to_string()).collect();
        until("all that was said is kept", || {
            server.ask("SELECT count(*) FROM chat_messages") == [self.said.to_string()]
        });
        assert_eq!(server.ask("SELECT message FROM chat_messages ORDER BY seq"), everything);
        assert_eq!(server.ask("SELECT count(DISTINCT id) FROM chat_messages"), [self.said.to_string()]);
    }
}

/// A room hub that a player makes; its id.
fn make_room(gateway: &Gateway) -> String {
    let mut stream = TcpStream::connect(&gateway.address).unwrap();
    let body = r#"{"display_name":"Ann"}"#;
    let head = format!("Host: a\r\nConnection: close\r\nContent-Length: {}", body.len());
    write!(stream, "POST /api/rooms HTTP/1.1\r\n{head}\r\n\r\n{body}").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let body: Value = serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
    body["room_id"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned()
}

/// Of two workers the active one is killed in the middle of a chat, and the other goes on: messages, rooms and players of
/// both terms are in the one database, each once.
#[test]
fn a_history_outlives_its_worker() {
    let (server, (broker, gateway)) = (database(&[]), table(1));
    let (first, second) = ranked([worker(&broker, &server), worker(&broker, &server)]);
    let mut ann = Talker::open(&gateway);
    ann.say(10);
    let before = make_room(&gateway);
    ann.is_kept_by(&server);
    ann.say(20);
    first.kill();
    ann.say(10);
    until("the other is active", || second.is_active());
    ann.say(10);
    let behind = make_room(&gateway);
    ann.is_kept_by(&server);
    let rooms = || server.ask("SELECT id FROM rooms ORDER BY created_at");
    until("both rooms are kept", || rooms() == [before.as_str(), &behind]);
    let players =
        "SELECT r.id, p.display_name FROM rooms r JOIN room_players p ON p.room_id = r.id ORDER BY r.created_at";
    assert_eq!(server.ask(players), [format!("{before}|Ann"), format!("{behind}|Ann")]);
    assert_eq!(server.ask("SELECT term FROM ringgate_writer"), ["3"], "each worker had one term, and the test");
}

/// A worker freezes in the middle of a chat, another goes on, and the first wakes with what it was about to write: it
/// stands by, what was said is there once, and it can take over again.
#[test]
fn a_frozen_worker_leaves_the_history_alone() {
    let (server, (broker, gateway)) = (database(&[]), table(1));
    let (first, second) = ranked([worker(&broker, &server), worker(&broker, &server)]);
    let mut ann = Talker::open(&gateway);
    ann.say(15);
    first.freeze();
    ann.say(15);
    until("the other is active", || second.is_active());
    ann.say(15);
    ann.is_kept_by(&server);
    first.thaw();
    until("it stands by", || !first.is_active());
    ann.say(15);
    ann.is_kept_by(&server);
    assert!(second.is_active() && !first.is_active());
    second.kill();
    ann.say(15);
    until("it takes over again", || first.is_active());
    ann.is_kept_by(&server);
    assert_eq!(server.ask("SELECT term FROM ringgate_writer"), ["4"], "three terms of workers, and the test's");
}

/// PostgreSQL goes away in the middle of a chat and comes back, then it is frozen and goes on: the worker waits for it and
/// goes on by itself in the same term, and nothing that was acknowledged is lost or comes twice.
#[test]
fn a_history_outlives_its_database() {
    const LAG: &str = "ringgate_worker_lag_records{topic=\"chat.commands\"}";
    let (server, (broker, gateway)) = (database(&[]), table(1));
    let worker = worker(&broker, &server);
    let mut ann = Talker::open(&gateway);
    ann.say(10);
    ann.is_kept_by(&server);
    server.stop();
    ann.say(20);
    until("the worker waits", || worker.metric(LAG) > 0);
    server.again();
    ann.say(10);
    ann.is_kept_by(&server);
    until("it is measured that it waits no more", || worker.metric(LAG) == 0);
    server.freeze(true);
    ann.say(20);
    until("the worker waits again", || worker.metric(LAG) > 0);
    server.freeze(false);
    ann.say(10);
    ann.is_kept_by(&server);
    assert!(worker.is_active());
    assert_eq!(worker.metric("ringgate_worker_terms_total"), 1);
    worker.stop();
}

/// A worker starts while PostgreSQL is away, takes commands, and writes the history when it is there; one whose password
/// is wrong does not start, and says what to set without telling the password.
#[test]
fn a_worker_waits_for_its_database() {
    let (server, (broker, gateway)) = (database(&["--password", "sesame"]), table(1));
    server.stop();
    let worker = worker(&broker, &server);
    until("it is active", || worker.is_active());
    let mut ann = Talker::open(&gateway);
    ann.say(10);
    server.again();
    ann.is_kept_by(&server);
    let wrong = server.url_of("ringgate", "hunter2", "ringgate");
    let mut refused = Worker::over(broker.address());
    let output = refused.env("POSTGRES_URL", wrong).args(["worker", "--health-port", "0"]).output().unwrap();
    let complaints = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{complaints}");
    assert!(
        complaints.contains("set user and password in POSTGRES_URL") && !complaints.contains("hunter2"),
        "{complaints}"
    );
}
