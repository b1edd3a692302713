//! The backends of `tests/examples` over a real Kafka, started as the README says: whole games between players on a
//! gateway, with backends that are killed in the middle, in Python, in Go and in turns.

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Child, Command, Stdio};

use ringgate::bus::kafka::KafkaBus;
use ringgate::message::Append;
use ringgate::ports::{Bus, Record, partition_name};
use serde_json::{Value, json};

use super::broker::Broker;
use super::gateway::{Client, Gateway, ringgate};
use super::suite::{append, put_as, take, until};

/// A whole game: white takes the king with the ninth move.
const MOVES: [&str; 9] = ["e2e4", "e7e5", "d1h5", "b8c6", "f1c4", "g8f6", "h5f7", "a7a6", "f7e8"];
const PIECES: &str = "PpQnBnQpQ";
const PLAYERS: [&str; 3] = ["white", "black", "watcher"];
/// A command as PROTOCOLS writes it, of the game that the seeds add.
const ENVELOPE: &str = include_str!("../examples/chess_move.json");

/// The Python one plays a whole game and is killed again and again.
#[test]
fn a_game_with_the_backend_in_python() {
    plays(&["python"]);
}

/// The one in Go does.
#[test]
fn a_game_with_the_backend_in_go() {
    plays(&["go"]);
}

/// Each goes on where the other was killed.
#[test]
fn a_game_with_backends_in_turns() {
    plays(&["go", "python"]);
}

/// Records that nobody can read stop no game; the envelope of the seeds becomes their event; it has the fields of those
/// that the gateway writes.
#[test]
fn backends_read_the_seeds_envelope() {
    for language in ["python", "go"] {
        let table = Table::set();
        let mut bus = table.bus(&["games.commands", "games.events"]);
        let room = "chess.seed";
        let deep = format!(r#"{{"event_type":"games.command.chess.move","x":{}"#, "[".repeat(50_000));
        for garbage in ["", "no JSON", "5", "null", "[]", r#"{"event_type":"games.command.chess.move"}"#, &deep] {
            send(&mut bus, "games.commands", room, garbage.as_bytes());
        }
        let other = ENVELOPE.replace("games.command.chess.move", "games.command.bigger_dice.roll");
        send(&mut bus, "games.commands", room, other.as_bytes());
        let _backend = table.backend(language);
        let (mut first, mut second) = (table.player("123"), table.player("456"));
        first.wishes("join", room, json!({}));
        assert_eq!(first.hears(), json!(["lobby_joined", "123"]));
        second.wishes("join", room, json!({}));
        assert_eq!(second.hears(), json!(["lobby_joined", "456"]));
        send(&mut bus, "games.commands", room, ENVELOPE.as_bytes());
        let moved = second.until("games.event.chess.moved");
        for (field, value) in [("room_id", room), ("player_id", "123"), ("from", "e2"), ("to", "e4"), ("piece", "P")] {
            assert_eq!(moved[field], value, "{language}: {moved}");
        }
        second.wishes("move", room, json!({"from": "e7", "to": "e5"}));
        assert_eq!(second.until("games.event.chess.moved")["player_id"], "456", "{language}");
        let ours = last(&all(&mut bus, "games.commands"), room);
        let fields = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<BTreeSet<_>>();
        let (mut ours, seeds) = (parse(&ours.value), parse(ENVELOPE.as_bytes()));
        // This client sent one; it is among its fields.
        ours["payload"].as_object_mut().unwrap().remove("correlation_id").unwrap();
        for part in ["", "/user", "/payload"] {
            assert_eq!(fields(ours.pointer(part).unwrap()), fields(seeds.pointer(part).unwrap()), "{part}");
        }
    }
}

/// The game, with backends of these languages in turns; every third command finds one dead, every third one kills it.
fn plays(languages: &[&str]) {
    let table = Table::set();
    let (room, mut starts) = ("chess.1", languages.iter().cycle());
    let mut start = || table.backend(starts.next().unwrap());
    let mut backend = start();
    let mut players = PLAYERS.map(|user| table.player(user));
    sit(&mut players, room);
    refusals(&mut players, room);
    let mut bus = table.bus(&["games.commands", "games.events", "chess.state"]);
    for (n, squares) in MOVES.iter().enumerate() {
        if n % 3 == 1 {
            backend.kill();
        }
        let (from, to) = squares.split_at(2);
        players[n % 2].wishes("move", room, json!({"from": from, "to": to}));
        if n % 3 == 2 {
            // Some time between reading the command and the commit of its offset, another one in each game.
            std::thread::park_timeout(std::time::Duration::from_millis(2 * n as u64));
            backend.kill();
        }
        if n % 3 != 0 {
            backend = start();
        }
        hear_move(&mut players, n, squares);
        if n == 4 {
            until("the game's record is written", || {
                parse(&last(&all(&mut bus, "chess.state"), room).value)["moves"] == 5
            });
            backend.kill();
            half_done(&mut bus, room);
            backend = start();
        }
    }
    for player in &mut players {
        assert_eq!(player.hears(), json!(["game_ended", "white"]));
    }
    players[2].wishes("leave", room, json!({}));
    assert_eq!(players[2].hears(), json!(["room_left", null]), "and nothing before, the end was the end");
    for player in &mut players[..2] {
        player.wishes("move", room, json!({"from": "a1", "to": "a2"}));
        assert_eq!(player.hears(), json!(["error", "you have no seat"]));
    }
    count(&mut bus, room);
}

/// All three come in; the first two have the seats. Whoever is in hears it, from its own entry on.
fn sit(players: &mut [Player; 3], room: &str) {
    for (n, user) in PLAYERS.into_iter().enumerate() {
        players[n].wishes("join", room, json!({}));
        assert_eq!(players[n].hears(), json!(["lobby_joined", user]));
        for player in &mut players[..=n] {
            if n < 2 {
                assert_eq!(player.hears(), json!(["player_joined", user]));
            }
        }
    }
}

/// What is not allowed is told to the sender alone, as what follows shows; a field that only looks like the room's is
/// none; another game's room stays shut.
fn refusals(players: &mut [Player; 3], room: &str) {
    players[1].wishes("move", room, json!({"from": "e7", "to": "e5", "ROOM_ID": "chess.other", "Room_Id": "x"}));
    assert_eq!(players[1].hears(), json!(["error", "wait for your turn"]));
    players[0].wishes("move", room, json!({"from": "e7", "to": ["e5"]}));
    assert_eq!(players[0].hears(), json!(["error", "join, leave, or move from one square to another"]));
    players[0].wishes("move", room, json!({"from": "e7", "to": "e5"}));
    assert_eq!(players[0].hears(), json!(["error", "move a piece of yours to where you have none"]));
    players[2].wishes("join", "den", json!({}));
    assert_eq!(players[2].hears(), json!(["error", "rooms of this game are named chess.<any name>"]));
}

/// Everybody hears the move once; that it is the other's turn, the other alone.
fn hear_move(players: &mut [Player; 3], n: usize, squares: &str) {
    for (at, player) in players.iter_mut().enumerate() {
        let moved = player.until_event();
        assert_eq!(heard(&moved), json!(["chess.moved", PLAYERS[n % 2]]), "{moved}");
        let piece = &PIECES[n..=n];
        assert_eq!((&moved["n"], &moved["piece"]), (&json!(n + 1), &json!(piece)), "{moved}");
        assert_eq!(squares, format!("{}{}", moved["from"].as_str().unwrap(), moved["to"].as_str().unwrap()));
        if at == (n + 1) % 2 && n + 1 < MOVES.len() {
            assert_eq!(player.hears(), json!(["chess.your_turn", null]));
        }
    }
}

/// As if the backend had been killed between the events of the last command and the game's record: the record is the one
/// before, and the command is there to be read. Once more it is there behind it, as a gateway repeats it for a client.
fn half_done(bus: &mut KafkaBus, room: &str) {
    let states: Vec<_> = all(bus, "chess.state").into_iter().filter(|record| &*record.key == room.as_bytes()).collect();
    let command = last(&all(bus, "games.commands"), room);
    send(bus, "chess.state", room, &states[states.len() - 2].value);
    send(bus, "games.commands", room, &command.value);
    send(bus, "games.commands", room, &command.value);
}

/// Every event is in the room's partition; an id that is there twice says the same twice; each command has its events.
fn count(bus: &mut KafkaBus, room: &str) {
    let (mut events, mut places) = (BTreeMap::new(), BTreeSet::new());
    for partition in 0..bus.partitions("games.events") {
        let records = partition_records(bus, "games.events", partition);
        for record in records.iter().filter(|record| &*record.key == room.as_bytes()) {
            places.insert(partition);
            let event = parse(&record.value);
            let id = event["event_id"].as_str().unwrap().to_owned();
            assert_eq!(uuid_version(&id), '5', "{id}");
            assert_eq!(*events.entry(id).or_insert_with(|| event.clone()), event, "another event of the same id");
        }
    }
    assert_eq!(places.len(), 1, "the room's events are in one partition");
    let mut kinds = BTreeMap::<&str, usize>::new();
    for event in events.values() {
        *kinds.entry(event["event_type"].as_str().unwrap().strip_prefix("games.event.").unwrap()).or_default() += 1;
    }
    let expected = [
        ("chess.moved", 9),
        ("chess.your_turn", 8),
        ("error", 5),
        ("game_ended", 1),
        ("lobby_joined", 3),
        ("player_joined", 2),
        ("room_left", 1),
    ];
    assert_eq!(kinds, BTreeMap::from(expected));
}

/// Kafka with the topics and a gateway with the row, as the README makes them.
struct Table {
    gateway: Gateway,
    broker: Broker,
}

impl Table {
    fn set() -> Self {
        let broker = Broker::start();
        let words = |part: &str| readme(part).split_whitespace().skip(1).collect::<Vec<_>>();
        let (fine, _, complaints) = ringgate(broker.address(), &words("topics create"));
        assert!(fine, "{complaints}");
        let flags = &words("serve --config")[1..];
        Self { gateway: Gateway::start_with(broker.address(), flags), broker }
    }

    /// The README's line, in a shell that becomes the backend.
    fn backend(&self, language: &str) -> Backend {
        let line = format!("exec {}", readme(&format!("$(tests/services/{language}.sh)")));
        let (host, port) = self.broker.address().split_once(':').unwrap();
        let mut shell = Command::new("sh");
        shell.args(["-c", &line]).env("KAFKA_HOST", host).env("KAFKA_PORT", port).stdout(Stdio::null());
        Backend(shell.spawn().unwrap())
    }

    fn player(&self, user: &str) -> Player {
        let (_, token, _) = ringgate("-:1", &["token", "mint", "--sub", user]);
        let client = Client::open(&self.gateway, json!({"token": token.trim()}));
        Player { client, last: BTreeMap::new(), sent: 0 }
    }

    fn bus(&self, topics: &[&str]) -> KafkaBus {
        KafkaBus::open(&self.broker.config(topics)).unwrap()
    }
}

/// The line of the README's page that has this in it, without its comment.
fn readme(part: &str) -> &'static str {
    let page = include_str!("../../README.md").split("### A backend over Kafka\n").nth(1).unwrap();
    let block = page.split("```sh\n").nth(1).unwrap().split("```").next().unwrap();
    let line = block.lines().find(|line| line.contains(part)).unwrap_or_else(|| panic!("no {part}"));
    line.split("  #").next().unwrap().trim()
}

/// A process that is killed at the latest when it is dropped.
struct Backend(Child);

impl Backend {
    fn kill(&mut self) {
        // It may be dead already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A client that checks that every frame follows the one before.
struct Player {
    client: Client,
    /// The last place of each handle.
    last: BTreeMap<u64, u64>,
    sent: usize,
}

impl Player {
    fn wishes(&mut self, verb: &str, room: &str, fields: Value) {
        self.sent += 1;
        let correlation = format!("c{}", self.sent);
        let mut message = json!({"type": format!("games.command.chess.{verb}"), "correlation_id": correlation});
        message["room_id"] = room.into();
        message.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        self.client.send(&message);
    }

    /// The next event or refusal: what, and who or why. A refusal names the last command.
    fn hears(&mut self) -> Value {
        let message = self.until_event();
        if message["type"] == "system.error" {
            assert_eq!(message["correlation_id"], format!("c{}", self.sent), "{message}");
        }
        heard(&message)
    }

    fn until_event(&mut self) -> Value {
        loop {
            let message = self.read();
            let message_type = message["type"].as_str().unwrap();
            if message_type.starts_with("games.event.") || message_type == "system.error" {
                return message;
            }
        }
    }

    fn until(&mut self, message_type: &str) -> Value {
        loop {
            let message = self.read();
            if message["type"] == message_type {
                return message;
            }
        }
    }

    fn read(&mut self) -> Value {
        let message = self.client.read().unwrap();
        if let Some([handle, place, prev]) = message["at"].as_array().map(Vec::as_slice) {
            let [handle, place, prev] = [handle, place, prev].map(|number| number.as_u64().unwrap());
            let before = self.last.insert(handle, place);
            assert!(before.is_none_or(|before| before == prev), "{message} does not follow {before:?}");
        }
        message
    }
}

fn heard(message: &Value) -> Value {
    let who = [&message["message"], &message["player_id"], &message["user_id"], &message["player"]["user_id"]];
    let who = who.into_iter().chain([&message["winner_id"]]).find(|who| !who.is_null());
    let what = message["type"].as_str().unwrap();
    json!([what.trim_start_matches("games.event.").trim_start_matches("system."), who])
}

fn send(bus: &mut KafkaBus, topic: &str, key: &str, value: &[u8]) {
    put_as(bus, &Append { key: key.as_bytes().into(), ..append(topic, value) }).unwrap();
}

/// All records of a topic, by partition.
fn all(bus: &mut KafkaBus, topic: &str) -> Vec<Record> {
    (0..bus.partitions(topic)).flat_map(|partition| partition_records(bus, topic, partition)).collect()
}

fn partition_records(bus: &mut KafkaBus, topic: &str, partition: u32) -> Vec<Record> {
    let name = partition_name(topic, partition);
    let end = bus.range(&name).1;
    take(bus, &name, 0, usize::try_from(end).unwrap()).0
}

/// The last one of a key.
fn last(records: &[Record], key: &str) -> Record {
    records.iter().rfind(|record| &*record.key == key.as_bytes()).unwrap().clone()
}

fn parse(text: &[u8]) -> Value {
    serde_json::from_slice(text).unwrap()
}

fn uuid_version(id: &str) -> char {
    id.as_bytes()[14].into()
}
