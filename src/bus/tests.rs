//! What every embedded bus does, wherever it keeps its records: each test runs over all of them. What Kafka does as well
//! stands in `tests/bus/suite.rs`.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Waker;

use proptest::prelude::*;

use suite::Subject as _;

use super::*;
use crate::limits;
use crate::message::ErrorCode;
use crate::ports::{Bus, LogView};
use crate::router::Wake;
use crate::time::WallMillis;

#[path = "../../tests/bus/suite.rs"]
pub(super) mod suite;

pub(super) use suite::{Count, append, put, until};

/// A folder of its own, removed at the end.
pub(super) struct Scratch(pub PathBuf);

impl Scratch {
    pub fn new() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("ringgate-bus-{}-{n}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// An implementation under test.
enum Subject {
    Memory(EmbeddedBus),
    Disk(DiskBus, #[expect(dead_code, reason = "removed with the log")] Scratch),
}

impl suite::Subject for Subject {
    fn reader(&self, topics: &[&str], wake: Arc<dyn Wake>) -> Box<dyn Bus> {
        match self {
            Self::Memory(bus) => Box::new(bus.reader(topics, wake)),
            Self::Disk(bus, _) => Box::new(bus.reader(topics, wake)),
        }
    }

    fn handle(&self) -> Box<dyn Bus> {
        match self {
            Self::Memory(bus) => Box::new(bus.handle()),
            Self::Disk(bus, _) => Box::new(bus.handle()),
        }
    }
}

impl Subject {
    fn view(&self) -> Box<dyn LogView> {
        match self {
            Self::Memory(bus) => Box::new(bus.handle()),
            Self::Disk(bus, _) => Box::new(bus.handle()),
        }
    }
}

/// A disk log's settings for tests.
pub(super) fn disk_config(scratch: &Scratch, writer: WriterChoice) -> DiskConfig {
    DiskConfig { writer, segment_bytes: 4096, ..DiskConfig::new(&scratch.0, 7, 99, || WallMillis(1000)) }
}

/// All implementations, by name.
fn subjects(bounds: TopicBounds) -> Vec<(&'static str, Subject)> {
    let disk = |writer| {
        let scratch = Scratch::new();
        let config = DiskConfig { bounds, ..disk_config(&scratch, writer) };
        Subject::Disk(DiskBus::open(&config).unwrap().0, scratch)
    };
    vec![
        ("memory", Subject::Memory(EmbeddedBus::new(7, bounds))),
        ("disk, thread", disk(WriterChoice::Thread)),
        ("disk, tokio-uring", disk(WriterChoice::Uring)),
    ]
}

pub(super) fn offsets(bus: &mut dyn Bus, topic: &str, from: u64, max: usize) -> (Vec<u64>, u64) {
    let mut out = Vec::new();
    let next = bus.read(topic, from, max, &mut out);
    (out.iter().map(|record| record.offset).collect(), next)
}

/// Offsets count from 0 in each topic, reading goes on where it stopped, and a record is what was appended.
#[test]
fn topics_are_read_by_offset() {
    for (name, subject) in subjects(TopicBounds { records: 10, bytes: 1000 }) {
        suite::topics_are_read_by_offset(&subject);
        let mut bus = subject.handle();
        assert_eq!(offsets(&mut *bus, "t", 9, 2), (vec![], 9), "{name}: ahead of the end one waits there");
        let durability = if name == "memory" { "memory" } else { "disk" };
        assert_eq!((bus.epoch("t"), bus.durability().name()), (7, durability));
    }
}

/// More than half a bound of unread records refuses appends, evicts nothing unread, and ends with a wake-up.
#[test]
fn a_slow_reader_turns_into_refusal() {
    for (name, subject) in subjects(TopicBounds { records: 8, bytes: 1000 }) {
        let wake = Arc::new(Count::default());
        let (mut reader, mut bus) = (subject.reader(&["t"], wake.clone()), subject.handle());
        for n in 0..5 {
            put(&mut *bus, "t", &[n]).unwrap();
            wake.reaches(usize::from(n) + 1);
        }
        assert_eq!(put(&mut *bus, "t", b"x"), Err(ErrorCode::Unavailable), "{name}");
        assert_eq!(put(&mut *bus, "free", b"x"), Ok(()), "{name}: another topic is not concerned");
        reader.done("t", 2);
        assert_eq!(wake.read(), 5, "{name}: three unread are more than a quarter");
        reader.done("t", 3);
        assert_eq!(wake.read(), 6, "{name}");
        reader.done("t", 1);
        assert_eq!(put(&mut *bus, "t", b"x"), Ok(()), "{name}: a cursor never goes back");
    }
    for (name, subject) in subjects(TopicBounds { records: 100, bytes: 100 }) {
        let (_reader, mut bus) = (subject.reader(&["t"], Arc::new(Count::default())), subject.handle());
        put(&mut *bus, "t", &[0; 49]).unwrap();
        put(&mut *bus, "t", &[0; 49]).unwrap();
        assert_eq!(put(&mut *bus, "t", b"x"), Err(ErrorCode::Unavailable), "{name}");
        assert_eq!(put(&mut *bus, "t", &[0; 50]), Err(ErrorCode::TooLong), "{name}");
    }
}

/// A reader that is gone holds nothing back any more.
#[test]
fn a_dropped_reader_holds_nothing_back() {
    for (name, subject) in subjects(TopicBounds { records: 4, bytes: 1000 }) {
        let (reader, mut bus) = (subject.reader(&["t"], Arc::new(Count::default())), subject.handle());
        for n in 0..3 {
            put(&mut *bus, "t", &[n]).unwrap();
        }
        assert_eq!(put(&mut *bus, "t", b"x"), Err(ErrorCode::Unavailable), "{name}");
        drop(reader);
        for n in 0..9 {
            put(&mut *bus, "t", &[n]).unwrap();
        }
        assert_eq!(bus.range("t").1, 12, "{name}");
    }
}

/// A view sees what can be read and holds nothing up: its watcher is woken once, by the next record of its topic only.
#[test]
fn a_view_looks_without_duty() {
    for (name, subject) in subjects(TopicBounds { records: 4, bytes: 1000 }) {
        let (mut bus, view, count) = (subject.handle(), subject.view(), Arc::new(Count::default()));
        let waker = Waker::from(Arc::clone(&count));
        for _ in 0..3 {
            view.watch("t", &waker);
        }
        for _ in 0..2 {
            // Whoever the first woke was woken before the second was taken.
            put(&mut *bus, "other", b"x").unwrap();
        }
        assert_eq!(count.read(), 0, "{name}");
        for n in 0..10 {
            put(&mut *bus, "t", &[n]).unwrap();
        }
        count.reaches(1);
        let first = if name == "memory" { 6 } else { 0 };
        assert_eq!((count.read(), view.epoch("t"), view.range("t")), (1, 7, (first, 10)), "{name}");
        let mut out = Vec::new();
        for (from, max) in [(0, 2), (8, 9), (10, 2)] {
            view.look("t", from, max, &mut out).unwrap();
        }
        view.look("nowhere", 0, 2, &mut out).unwrap();
        let seen: Vec<_> = out.iter().map(|record| (record.offset, record.value[0])).collect();
        assert_eq!(seen, [first, first + 1, 8, 9].map(|offset| (offset, offset as u8)), "{name}");
        view.watch("t", &waker);
        put(&mut *bus, "t", b"x").unwrap();
        count.reaches(2);
    }
}

/// The number of topics is bounded.
#[test]
fn topics_are_bounded() {
    for (name, subject) in subjects(TopicBounds { records: 4, bytes: 1000 }) {
        let mut bus = subject.handle();
        for n in 0..limits::BUS_TOPICS {
            put(&mut *bus, &n.to_string(), b"x").unwrap();
        }
        assert_eq!(put(&mut *bus, "one more", b"x"), Err(ErrorCode::Unavailable), "{name}");
    }
}

/// Appends that do not wait for each other end in order, each once, and are read in that order.
#[test]
fn appends_in_flight_end_in_order() {
    subjects(TopicBounds::default()).iter().for_each(|(_, subject)| suite::appends_in_flight_end_in_order(subject));
}

/// A handle's tickets are its own.
#[test]
fn handles_are_told_of_their_own_appends() {
    subjects(TopicBounds::default())
        .iter()
        .for_each(|(_, subject)| suite::handles_are_told_of_their_own_appends(subject));
}

/// Readers at any pace see every record once, in order, while it is written, and are woken for what comes.
#[test]
fn readers_go_at_their_own_pace() {
    subjects(TopicBounds::default()).iter().for_each(|(_, subject)| suite::every_reader_sees_everything(subject));
}

/// After a start the histories have each event once, and what comes later comes once, live, behind them.
#[test]
fn a_peer_gives_each_event_once() {
    subjects(TopicBounds::default()).iter().for_each(|(_, subject)| suite::a_peer_gives_each_event_once(subject));
}

/// A command is answered when the bus has it, and can be read then.
#[test]
fn commands_are_answered_when_they_are_there() {
    let subjects = subjects(TopicBounds::default());
    subjects.iter().for_each(|(_, subject)| suite::commands_are_answered_when_they_are_there(subject));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Readers at any pace see every accepted record once, in order; what is accepted depends on their lag alone.
    #[test]
    fn every_reader_sees_everything(steps in proptest::collection::vec((0u8..4, 1usize..40), 1..200)) {
        let bounds = TopicBounds { records: 16, bytes: 400 };
        for (_, subject) in subjects(bounds) {
            let mut bus = subject.handle();
            let reader = |_| (subject.reader(&["t"], Arc::new(Count::default())), 0u64, Vec::new());
            let mut readers: Vec<_> = (0..2).map(reader).collect();
            let mut accepted: Vec<Vec<u8>> = Vec::new();
            for (step, n) in &steps {
                if *step < 2 {
                    let value = vec![accepted.len() as u8; *n];
                    let behind = readers.iter().map(|(_, at, _)| accepted.len() - *at as usize).max().unwrap();
                    let bytes: usize = accepted.iter().rev().take(behind).map(|v| v.len() + 1).sum();
                    let free = behind <= bounds.records / 2 && bytes <= bounds.bytes / 2;
                    prop_assert_eq!(put(&mut *bus, "t", &value).is_ok(), free);
                    if free {
                        accepted.push(value);
                    }
                } else {
                    let (reader, at, seen) = &mut readers[usize::from(*step) - 2];
                    let mut out = Vec::new();
                    *at = reader.read("t", *at, *n, &mut out);
                    seen.extend(out.into_iter().map(|record| record.value.to_vec()));
                    reader.done("t", *at);
                }
            }
            for (mut reader, at, mut seen) in readers {
                let mut out = Vec::new();
                reader.read("t", at, usize::MAX, &mut out);
                seen.extend(out.into_iter().map(|record| record.value.to_vec()));
                prop_assert_eq!(&seen, &accepted);
            }
        }
    }
}
