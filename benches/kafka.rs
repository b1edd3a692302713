//! How many appends a second does Kafka acknowledge to one gateway, and how late; and how long does a gateway read what
//! is retained before it is ready?
//!
//! Appends: per second, p50 and p99 of append to acknowledgement in µs, at 1, 16, 256 in flight, events of 300 B, for
//! commands (`hasty`: each ends by itself) and for what a thread says in order (`patient`). Goal: 256 in flight share
//! round trips, so ≥ 20 × the appends of 1 in flight.
//! Start: seconds from exec to `/ready`, beside events of 300 B in 100 rooms within the history time. Goal: in proportion.
//!
//! `cargo bench --features real-services --bench kafka`; Kafka is the one that `tests/services/kafka.sh` installs, one
//! broker, which shares this machine's cores. Without `--bench`, as under `cargo test --benches`, a smoke run.

#[allow(dead_code, reason = "the tests use all of it")]
#[path = "../tests/bus/broker.rs"]
mod broker;

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use broker::Broker;
use hdrhistogram::Histogram;
use ringgate::bus::kafka::KafkaBus;
use ringgate::id::{ConnAddr, EventId};
use ringgate::message::Append;
use ringgate::ports::{Accepted, Bus, Completed, Ticket};
use ringgate::router::{ThreadWaker, Wake};
use ringgate::shard::driver::syscall;

const IN_FLIGHT: [usize; 3] = [1, 16, 256];
/// Handles take turns, so that a drift of the machine meets both.
const ROUNDS: usize = 3;
const TOPIC: &str = "games.events";
const ROOMS: u64 = 100;

fn main() {
    let is_measured = std::env::args().any(|argument| argument == "--bench");
    let broker = Broker::start();
    let args = ["topics", "create", "--partitions", "3"];
    let created = ringgate(&broker, &args).output().expect("the binary runs");
    assert!(created.status.success(), "{}", String::from_utf8_lossy(&created.stderr));
    let bus = KafkaBus::open(&broker.config(&[TOPIC])).expect("Kafka answers");
    println!("{:>10} {:>8} {:>12} {:>9} {:>9}", "in flight", "handle", "appends/s", "p50 µs", "p99 µs");
    let span = Duration::from_millis(if is_measured { 1500 } else { 20 });
    let wake = || Arc::new(ThreadWaker::new(std::thread::current())) as Arc<dyn Wake>;
    let handles = [("hasty", bus.commands(wake())), ("patient", bus.reader(wake()))];
    throughput(handles, span);
    drop(bus);
    // Another broker: what was appended above would have to be read too.
    drop(broker);
    start_up(if is_measured { &[0, 10_000, 100_000, 500_000] } else { &[0, 100] });
}

fn throughput(mut handles: [(&str, KafkaBus); 2], span: Duration) {
    for in_flight in IN_FLIGHT {
        let mut results = [(0, histogram()), (0, histogram())];
        for _ in 0..ROUNDS {
            for ((_, bus), (count, latencies)) in handles.iter_mut().zip(&mut results) {
                *count += append_for(bus, in_flight, span, latencies);
            }
        }
        for ((name, _), (count, latencies)) in handles.iter().zip(&results) {
            let rate = *count as f64 / (span.as_secs_f64() * ROUNDS as f64);
            let [p50, p99] = [0.5, 0.99].map(|at| latencies.value_at_quantile(at) / 1000);
            println!("{in_flight:>10} {name:>8} {rate:>12.0} {p50:>9} {p99:>9}");
        }
    }
}

/// Appends for so long; returns how many were acknowledged. Ends when nothing is under way.
fn append_for(bus: &mut KafkaBus, in_flight: usize, span: Duration, latencies: &mut Histogram<u64>) -> u64 {
    let (began, mut waiting, mut ends, mut number) = (Instant::now(), VecDeque::new(), Vec::new(), 0);
    let mut count = 0;
    while began.elapsed() < span || !waiting.is_empty() {
        while waiting.len() < in_flight && began.elapsed() < span {
            number += 1;
            match bus.append(syscall::wall(), &event(number)) {
                Ok(Accepted::Pending(ticket)) => waiting.push_back((ticket, Instant::now())),
                other => panic!("{other:?}"),
            }
        }
        bus.completed(&mut ends);
        if ends.is_empty() {
            std::thread::park();
        }
        for Completed { ticket, outcome } in ends.drain(..) {
            outcome.expect("Kafka takes it");
            latencies.saturating_record(taken(&mut waiting, ticket).elapsed().as_nanos() as u64);
            count += 1;
        }
    }
    count
}

/// When the append of the ticket began; independent ones may end in another order.
fn taken(waiting: &mut VecDeque<(Ticket, Instant)>, ticket: Ticket) -> Instant {
    let at = waiting.iter().position(|(waits, _)| *waits == ticket).expect("it is under way");
    waiting.remove(at).expect("found above").1
}

/// Nanoseconds, up to a minute.
fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("bounds and digits are allowed")
}

/// A reliable event of about 300 B for one of the rooms.
fn event(number: u64) -> Append {
    let room = format!("room-{}", number % ROOMS);
    let id = EventId(u128::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835).to_be_bytes());
    let (at, filler) = (syscall::wall().rfc3339(), "x".repeat(80));
    let value = format!(
        r#"{{"event_id":"{id}","event_type":"battle.event.timeline","timestamp":"{at}","target":{{"room_id":"{room}"}},"payload":{{"room_id":"{room}","number":{number},"filler":"{filler}"}}}}"#
    );
    let (topic, key, value) = (TOPIC.into(), room.as_bytes().into(), value.into_bytes().into());
    Append { from: ConnAddr::NOBODY, correlation: 0, topic, key, value }
}

/// Starts a gateway beside ever more events.
fn start_up(amounts: &[u64]) {
    println!("\n{:>10} {:>10} {:>12}", "events", "ready in s", "events/s");
    let broker = Broker::start();
    let created = ringgate(&broker, &["topics", "create", "--partitions", "3"]).output().expect("the binary runs");
    assert!(created.status.success(), "{}", String::from_utf8_lossy(&created.stderr));
    let mut retained = 0;
    for &events in amounts {
        fill(&broker, retained..events);
        retained = events;
        let mut seconds: Vec<f64> = (0..ROUNDS).map(|_| until_ready(&broker)).collect();
        seconds.sort_by(f64::total_cmp);
        let median = seconds[ROUNDS / 2];
        println!("{events:>10} {median:>10.2} {:>12.0}", events as f64 / median);
    }
}

/// Appends these events.
fn fill(broker: &Broker, numbers: std::ops::Range<u64>) {
    let bus = KafkaBus::open(&broker.config(&[TOPIC])).expect("Kafka answers");
    let mut bus = bus.reader(Arc::new(ThreadWaker::new(std::thread::current())));
    let (mut waiting, mut ends) = (0_usize, Vec::new());
    for number in numbers {
        waiting +=
            usize::from(bus.append(syscall::wall(), &event(number)).expect("there is room for it") != Accepted::Now);
        while waiting >= 256 {
            waiting -= ended(&mut bus, &mut ends);
        }
    }
    while waiting > 0 {
        waiting -= ended(&mut bus, &mut ends);
    }
}

fn ended(bus: &mut KafkaBus, ends: &mut Vec<Completed>) -> usize {
    bus.completed(ends);
    if ends.is_empty() {
        std::thread::park();
    }
    ends.drain(..).inspect(|end| end.outcome.expect("Kafka takes it")).count()
}

/// Seconds from exec until `/ready` says so.
fn until_ready(broker: &Broker) -> f64 {
    let began = Instant::now();
    let args = ["serve", "--host", "127.0.0.1", "--port", "0", "--health-port", "0", "--log-level", "warn"];
    let mut gateway = ringgate(broker, &args).stdout(Stdio::piped()).spawn().expect("the binary starts");
    let lines = BufReader::new(gateway.stdout.take().expect("piped")).lines().map(|line| line.expect("it prints text"));
    let health = lines.map(|line| line.split("http://").nth(1).map(|rest| rest.split('/').next().map(str::to_owned)));
    let health = health.flatten().flatten().next().expect("it says where its health port is");
    while !is_ready(&health) {
        std::thread::sleep(Duration::from_millis(2));
    }
    let took = began.elapsed().as_secs_f64();
    gateway.kill().expect("it runs");
    gateway.wait().expect("it was killed");
    took
}

fn is_ready(health: &str) -> bool {
    let Ok(mut stream) = TcpStream::connect(health) else { return false };
    let mut answer = String::new();
    let asked = write!(stream, "GET /ready HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    asked.and_then(|()| stream.read_to_string(&mut answer)).is_ok() && answer.starts_with("HTTP/1.1 200")
}

fn ringgate(broker: &Broker, args: &[&str]) -> Command {
    let (host, port) = broker.address().split_once(':').expect("HOST:PORT");
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringgate"));
    command.args(args).env("KAFKA_HOST", host).env("KAFKA_PORT", port).env("GATEWAY_ID", "bench");
    command.env("JWT_SECRET", "a secret of the benchmarks, 32 bytes long");
    command
}
