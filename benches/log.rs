//! How many appends a second does the log on disk acknowledge, and how late, with tokio-uring and with the thread?
//! Appends per second, p50 and p99 of append to acknowledgement in µs; 1, 16, 256 in flight; 300 B records. Goal: with
//! 256 in flight the disk's fdatasync is shared, so ≥ 20 × the appends of 1 in flight.
//!
//! `cargo bench --bench log [-- DIRECTORY]`; without `--bench`, as under `cargo test --benches`, a smoke run.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use ringgate::bus::{DiskBus, DiskConfig, WriterChoice};
use ringgate::id::ConnAddr;
use ringgate::message::Append;
use ringgate::ports::{Accepted, Bus};
use ringgate::router::{ThreadWaker, Wake};
use ringgate::time::WallMillis;

const WRITERS: [(&str, WriterChoice); 2] = [("tokio-uring", WriterChoice::Uring), ("thread", WriterChoice::Thread)];
const IN_FLIGHT: [usize; 3] = [1, 16, 256];
/// Writers take turns, so that a drift of the disk meets both.
const ROUNDS: usize = 3;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let measured = arguments.iter().any(|argument| argument == "--bench");
    let folder = arguments.iter().find(|argument| !argument.starts_with("--"));
    let folder = folder.map_or_else(std::env::temp_dir, PathBuf::from);
    let span = Duration::from_millis(if measured { 1500 } else { 20 });
    println!("{:>10} {:>12} {:>12} {:>9} {:>9}", "in flight", "writer", "appends/s", "p50 µs", "p99 µs");
    for in_flight in IN_FLIGHT {
        let mut results = WRITERS.map(|_| (0, histogram()));
        for _ in 0..ROUNDS {
            for ((_, writer), (count, latencies)) in WRITERS.into_iter().zip(&mut results) {
                *count += run(&folder, writer, in_flight, span, latencies);
            }
        }
        for ((name, _), (count, latencies)) in WRITERS.into_iter().zip(&results) {
            let rate = *count as f64 / (span.as_secs_f64() * ROUNDS as f64);
            let [p50, p99] = [0.5, 0.99].map(|at| latencies.value_at_quantile(at) / 1000);
            println!("{in_flight:>10} {name:>12} {rate:>12.0} {p50:>9} {p99:>9}");
        }
    }
}

/// Nanoseconds, up to a minute.
fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("bounds and digits are allowed")
}

/// Appends for so long; returns how many were acknowledged.
fn run(folder: &Path, writer: WriterChoice, in_flight: usize, span: Duration, latencies: &mut Histogram<u64>) -> u64 {
    let scratch = folder.join(format!("ringgate-bench-log-{}", std::process::id()));
    let config = DiskConfig { writer, ..DiskConfig::new(&scratch, 1, 2, || WallMillis(1)) };
    let (log, _) = DiskBus::open(&config).expect("the folder can be used");
    let mut bus = log.reader(&[], Arc::new(ThreadWaker::new(thread::current())) as Arc<dyn Wake>);
    let append = Append {
        from: ConnAddr::NOBODY,
        correlation: 0,
        topic: "games.events".into(),
        key: b"arena".as_slice().into(),
        value: vec![b'x'; 300].into(),
    };
    let (began, mut waiting, mut ends, mut count) = (Instant::now(), VecDeque::new(), Vec::new(), 0);
    while began.elapsed() < span {
        while waiting.len() < in_flight {
            match bus.append(WallMillis(1), &append) {
                Ok(Accepted::Pending(_)) => waiting.push_back(Instant::now()),
                other => panic!("{other:?}"),
            }
        }
        bus.completed(&mut ends);
        if ends.is_empty() {
            thread::park();
        }
        for end in ends.drain(..) {
            end.outcome.expect("the disk takes it");
            let since = waiting.pop_front().expect("as many as were appended").elapsed();
            latencies.saturating_record(since.as_nanos() as u64);
            count += 1;
        }
    }
    drop((bus, log));
    std::fs::remove_dir_all(&scratch).expect("made above");
    count
}
