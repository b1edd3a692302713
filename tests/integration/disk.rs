//! With `data_dir` the bus outlives the process: kill -9 at any moment loses nothing that was acknowledged, doubles
//! nothing, and streams go on where they were.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::error::Error;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Instant;

use ringgate::bus::{DiskBus, DiskConfig, WriterChoice};
use ringgate::id::{ConnAddr, StreamHandle};
use ringgate::message::{Append, Position};
use ringgate::ports::{Accepted, Bus};
use ringgate::protocol::frames::json::{self, Hello, Join};
use ringgate::protocol::frames::{Header, client, types};
use ringgate::router::{ThreadWaker, Wake};
use ringgate::time::WallMillis;
use rustix::process::Signal;
use simd_json::prelude::*;
use tungstenite::Message;

use crate::client::{BATTLE, Client};
use crate::node::{DEADLINE, Gateway, command, token, until};

/// A folder, removed at the end.
pub struct DataDir(pub PathBuf);

impl DataDir {
    pub fn new() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("ringgate-disk-{}-{n}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub fn start(&self, flags: &[&str]) -> Gateway {
        Gateway::start(&[&["--data-dir", self.0.to_str().unwrap()], flags].concat())
    }

    /// Rows of a table of the store, with a condition perhaps.
    pub fn rows(&self, table: &str) -> u64 {
        let db = rusqlite::Connection::open(self.0.join("store.sqlite")).unwrap();
        db.busy_timeout(DEADLINE).unwrap();
        db.query_row(&format!("SELECT COUNT(*) FROM {table}"), [], |row| row.get(0)).unwrap()
    }

    /// All records of a topic, held against the law that offsets have no gap.
    pub fn records(&self, topic: &str) -> Vec<String> {
        let (mut bus, _) = DiskBus::open(&disk(&self.0, WriterChoice::Thread)).unwrap();
        let ((mut next, end), mut out) = (bus.range(topic), Vec::new());
        while next < end {
            next = bus.read(topic, next, 1000, &mut out);
        }
        for (at, record) in out.iter().enumerate() {
            assert_eq!(record.offset, at as u64, "{topic}");
        }
        out.into_iter().map(|record| String::from_utf8(record.value.to_vec()).unwrap()).collect()
    }
}

impl Drop for DataDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn disk(path: &PathBuf, writer: WriterChoice) -> DiskConfig {
    DiskConfig { writer, segment_bytes: 64 << 10, ..DiskConfig::new(path, 5, 6, || WallMillis(1)) }
}

fn battle(room: &mut Client, stream: StreamHandle, events: u32, interval_ms: u32) {
    let body = format!(r#"{{"room_id":"arena","events":{events},"interval_ms":{interval_ms}}}"#);
    room.command(BATTLE, stream, 9, body.as_bytes());
    assert_eq!(room.expect(types::ACK).header.number, 9);
}

fn battle_stream(client: &Client) -> Position {
    let found = client.positions().into_iter().find(|position| &*position.stream == "games.events.0/room:arena");
    found.expect("the room's stream of the bus is introduced")
}

/// A room's stream goes on behind a kill -9 under the same epoch, its chain of places unbroken, histories are rebuilt
/// before anybody is served, and what the gateway says of itself is `disk`.
#[test]
fn streams_go_on_behind_a_crash() {
    let dir = DataDir::new();
    for driver in ["uring", "monoio"] {
        let mut gateway = dir.start(&["--driver", driver]);
        assert!(gateway.page("/ready").contains(r#""durability":"disk""#));
        assert!(gateway.banner.contains("bus embedded on disk in "), "{}", gateway.banner);
        let mut publisher = Client::publisher(&gateway, "server");
        let relay = publisher.join("arena")[0];
        battle(&mut publisher, relay, 50, 0);
        publisher.expect(types::BATTLE_END);
        let before = battle_stream(&publisher);
        gateway.signal(Signal::KILL);
        gateway.ended();
        let gateway = dir.start(&["--driver", driver]);
        assert!(gateway.metric("ringgate_history_bytes").iter().sum::<u64>() > 0, "histories come from the log");
        let mut late = Client::open(&gateway);
        let (token, positions) = (token("server", &["publisher"]), publisher.positions());
        late.hello(&Hello { token: Some(&token), resume: Some(&publisher.resume), positions, delta_window: None });
        let told = (late.recovered, late.reason.as_deref());
        assert_eq!(told, (false, Some("epoch_changed")), "the room's own streams are in memory");
        let relay = late.joined()[0];
        assert_eq!(battle_stream(&late), before, "the head is where it was, under the log's epoch");
        battle(&mut late, relay, 5, 0);
        // The client holds the first of them to the place before the crash.
        late.expect(types::BATTLE_END);
        assert!(battle_stream(&late).place >= before.place + 6);
    }
}

/// A battle that a kill -9 cuts off goes on after the restart, every event of it once.
#[test]
fn a_battle_survives_a_crash() {
    const EVENTS: u32 = 300;
    let dir = DataDir::new();
    let mut gateway = dir.start(&[]);
    let mut publisher = Client::publisher(&gateway, "server");
    let relay = publisher.join("arena")[0];
    battle(&mut publisher, relay, EVENTS, 3);
    for _ in 0..60 {
        publisher.expect(types::BATTLE_TIMELINE);
    }
    gateway.signal(Signal::KILL);
    gateway.ended();
    let mut gateway = dir.start(&[]);
    let mut late = Client::publisher(&gateway, "server");
    late.join("arena");
    // Its end may have come before the JOIN.
    if battle_stream(&late).place <= u64::from(EVENTS) {
        late.expect(types::BATTLE_END);
    }
    gateway.signal(Signal::KILL);
    gateway.ended();
    let events = dir.records("games.events");
    let numbers: Vec<u32> = events
        .iter()
        .filter(|event| event.contains("battle.event.timeline"))
        .map(|event| event.rsplit_once("\"n\":").unwrap().1.trim_end_matches('}').parse().unwrap())
        .collect();
    assert_eq!(numbers, (1..=EVENTS).collect::<Vec<_>>());
    assert_eq!(events.iter().filter(|event| event.contains("battle.event.end")).count(), 1);
}

/// What the server API acknowledged is in its log streams behind a kill -9, under the same places and epoch, older than
/// what memory keeps or not; a place from before the crash is one to go on from.
#[test]
fn the_server_api_goes_on_behind_a_crash() {
    const EVENTS: u64 = 300;
    let dir = DataDir::new();
    let event = |n: u64| {
        format!(r#"{{"event_type":"games.event.test.step","target":{{"room_id":"r{}"}},"payload":{{"n":{n}}}}}"#, n % 7)
    };
    let (mut before, mut last) = (None, 0);
    for flags in [["--bus-writer", "thread"], ["--bus-writer", "auto"]] {
        let mut gateway = dir.start(&flags);
        if let Some(epoch) = before {
            let mut log = gateway.follow(&format!("games.events?from=0&epoch={epoch}"));
            let ids = (0..last).map(|n| (n, log.record()));
            ids.for_each(|(n, record)| assert_eq!(record.get_u64("place"), Some(n + 1)));
        }
        let mut live = gateway.follow(&format!("games.events?from={last}"));
        before = live.standing.get_u64("epoch");
        let lines: Vec<String> = (last..last + EVENTS).map(event).collect();
        let answer = gateway.post("/api/events", "application/x-ndjson", &lines.join("\n"));
        assert_eq!(answer.body.matches("event_id").count() as u64, EVENTS, "{answer:?}");
        let mut numbers: Vec<_> = (0..EVENTS)
            .map(|n| {
                let record = live.record();
                assert_eq!(record.get_u64("place"), Some(last + n + 1));
                record.get("payload").unwrap().get_u64("n").unwrap()
            })
            .collect();
        // Events of different keys pass each other.
        numbers.sort_unstable();
        assert!(numbers.into_iter().eq(last..last + EVENTS));
        last += EVENTS;
        gateway.signal(Signal::KILL);
        gateway.ended();
    }
    assert_eq!(dir.records("games.events").len() as u64, last);
}

/// A second gateway on the same folder says so in one line, and one that may not write there says that.
#[test]
fn a_folder_that_cannot_be_used_is_named() {
    let dir = DataDir::new();
    let _gateway = dir.start(&[]);
    let refusal = |path: &str| {
        let output = command(&["--data-dir", path]).output().unwrap();
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    let second = refusal(dir.0.to_str().unwrap());
    assert!(second.contains("another process uses it; stop that one or give another --data-dir"), "{second}");
    let nowhere = refusal("/proc/nowhere");
    assert!(nowhere.contains("data_dir /proc/nowhere: cannot make /proc/nowhere/log"), "{nowhere}");
}

/// What a killed round leaves is checked by the next: 40 processes that append to the log as fast as it goes are killed
/// in the middle, with either writer. Every acknowledged value is there, in order, none twice.
#[test]
fn kill_9_loses_nothing_that_the_log_acknowledged() {
    const ROUNDS: usize = 40;
    let dir = DataDir::new();
    let mut acknowledged: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for round in 0..ROUNDS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "disk::appends_until_it_is_killed", "--nocapture"])
            .env("RINGGATE_APPEND_TO", &dir.0)
            .env("RINGGATE_ROUND", round.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        // A moment of load that differs from round to round, counted in acknowledgements.
        let mut count = 0;
        for line in lines.by_ref() {
            count += usize::from(note(&line, &mut acknowledged));
            if count > 3 + round * 29 {
                break;
            }
        }
        child.kill().unwrap();
        lines.for_each(|line| _ = note(&line, &mut acknowledged));
        child.wait().unwrap();
        assert!(count > 3 + round * 29, "round {round} ended by itself");
    }
    for (topic, acknowledged) in acknowledged {
        let found = dir.records(&topic);
        let unique: BTreeSet<_> = found.iter().cloned().collect();
        assert_eq!(unique.len(), found.len(), "{topic}: a record is there twice");
        let missing: Vec<_> = acknowledged.difference(&unique).collect();
        assert!(missing.is_empty(), "{topic}: acknowledged and lost: {missing:?}");
        assert!(found.is_sorted(), "{topic}: values ascend as they were appended");
        assert!(acknowledged.len() > ROUNDS * 3 / 3);
    }
}

/// Whether the line is an acknowledgement; it is cut off at most by the kill.
fn note(line: &str, acknowledged: &mut BTreeMap<String, BTreeSet<String>>) -> bool {
    let Some((topic, value)) = line.strip_prefix("ack ").and_then(|rest| rest.split_once(' ')) else { return false };
    let Some(value) = value.strip_suffix('.') else { return false };
    acknowledged.entry(topic.to_owned()).or_default().insert(value.to_owned())
}

/// The killed process of the test above; by itself it proves nothing and ends at once.
#[test]
fn appends_until_it_is_killed() {
    let Some(path) = std::env::var_os("RINGGATE_APPEND_TO") else { return };
    let round: usize = std::env::var("RINGGATE_ROUND").unwrap().parse().unwrap();
    let writer = if round.is_multiple_of(2) { WriterChoice::Auto } else { WriterChoice::Thread };
    let (log, _) = DiskBus::open(&disk(&path.into(), writer)).unwrap();
    let mut bus = log.reader(&[], Arc::new(ThreadWaker::new(thread::current())) as Arc<dyn Wake>);
    let (mut waiting, mut ends, began) = (VecDeque::new(), Vec::new(), Instant::now());
    for n in 0.. {
        let topic = ["a", "b", "c"][n % 3];
        let value = format!("{round:03}:{n:08}:{}", "x".repeat(n * 7 % 900));
        let append = Append {
            from: ConnAddr::NOBODY,
            correlation: 0,
            topic: topic.into(),
            key: Box::default(),
            value: value.as_bytes().into(),
        };
        match bus.append(WallMillis(1), &append).unwrap() {
            Accepted::Pending(ticket) => waiting.push_back((ticket, topic, value)),
            Accepted::Now => panic!("nothing is durable at once"),
        }
        while waiting.len() > round % 64 {
            bus.completed(&mut ends);
            if ends.is_empty() {
                thread::park();
            }
            let mut out = std::io::stdout().lock();
            for end in ends.drain(..) {
                let (ticket, topic, value) = waiting.pop_front().unwrap();
                assert_eq!((end.ticket, end.outcome), (ticket, Ok(())));
                writeln!(out, "ack {topic} {value}.").unwrap();
            }
            out.flush().unwrap();
        }
        assert!(began.elapsed() < DEADLINE, "nobody kills it");
    }
}

/// The same through the real binary, ten times: every COMMAND that was answered ACK before the kill is in the log, once.
#[test]
fn kill_9_loses_no_acknowledged_command() {
    const ROUNDS: usize = 10;
    const CLIENTS: usize = 6;
    let dir = DataDir::new();
    let acknowledged = Mutex::new(Vec::new());
    for round in 0..ROUNDS {
        let flags: &[&str] = if round % 2 == 0 { &[] } else { &["--bus-writer", "thread"] };
        let mut gateway = dir.start(flags);
        let (address, before) = (gateway.address, acknowledged.lock().unwrap().len());
        thread::scope(|scope| {
            for player in 0..CLIENTS {
                let acknowledged = &acknowledged;
                scope.spawn(move || {
                    // Each command in a room of its own, until the connection breaks: the gateway was killed.
                    for n in 0.. {
                        let room = format!("r{round}-{player}-{n}");
                        match start_in(address, &room) {
                            Ok(()) => acknowledged.lock().unwrap().push(room),
                            Err(_) => return,
                        }
                    }
                });
            }
            until("there is load", || acknowledged.lock().unwrap().len() > before + 3 + round * 2);
            gateway.signal(Signal::KILL);
        });
        gateway.ended();
    }
    let commands = dir.records("games.commands");
    for room in acknowledged.into_inner().unwrap() {
        let field = format!("\"room_id\":\"{room}\"");
        let times = commands.iter().filter(|command| command.contains(&field)).count();
        assert_eq!(times, 1, "{room}");
    }
}

/// One life: HELLO, JOIN, a battle's COMMAND; `Ok` once that is acknowledged.
fn start_in(address: SocketAddr, room: &str) -> Result<(), Box<dyn Error>> {
    let stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(DEADLINE))?;
    let (mut socket, _) =
        tungstenite::client(format!("ws://{address}/ws/frames"), stream).map_err(|e| e.to_string())?;
    let send = |socket: &mut tungstenite::WebSocket<TcpStream>, write: &dyn Fn(&mut Vec<u8>)| {
        let mut frame = Vec::new();
        write(&mut frame);
        socket.send(Message::binary(frame))
    };
    let token = token(room, &["publisher"]);
    send(&mut socket, &|out| client::hello(out, &Hello { token: Some(&token), ..Hello::default() }))?;
    send(&mut socket, &|out| client::join(out, 1, &Join { room, password: None }))?;
    loop {
        let Message::Binary(bytes) = socket.read()? else { continue };
        let (header, payload) = Header::read(&bytes).ok_or("no frame")?;
        match header.frame_type {
            types::JOINED => {
                let mut payload = payload.to_vec();
                let joined: json::Joined<'_> = json::read(&mut payload).map_err(|_| "no JSON")?;
                let relay = StreamHandle(joined.streams[0].handle);
                let body = format!(r#"{{"room_id":"{room}","events":2,"interval_ms":0}}"#);
                send(&mut socket, &|out| client::command(out, BATTLE, relay, 2, body.as_bytes()))?;
            }
            types::ACK if header.number == 2 => return Ok(()),
            types::ERROR => return Err(String::from_utf8_lossy(payload).into()),
            _ => {}
        }
    }
}
