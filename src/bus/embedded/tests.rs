//! What the log keeps, what it refuses, whom it wakes.

use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::prelude::*;

use super::*;
use crate::id::ConnAddr;

#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl Count {
    fn read(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

fn append(topic: &str, value: &[u8]) -> Append {
    Append {
        from: ConnAddr::NOBODY,
        correlation: 0,
        topic: topic.into(),
        key: b"k".as_slice().into(),
        value: value.into(),
    }
}

fn small(records: usize, bytes: usize) -> EmbeddedBus {
    EmbeddedBus::new(7, TopicBounds { records, bytes })
}

fn put(bus: &mut EmbeddedBus, topic: &str, value: &[u8]) -> Result<(), ErrorCode> {
    bus.append(WallMillis(5), &append(topic, value))
}

fn offsets(bus: &mut EmbeddedBus, topic: &str, from: u64, max: usize) -> (Vec<u64>, u64) {
    let mut out = Vec::new();
    let next = bus.read(topic, from, max, &mut out);
    (out.iter().map(|record| record.offset).collect(), next)
}

/// A waker of the standard library that counts.
impl std::task::Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// A view sees what is kept and holds nothing up: its watcher is woken once, by the next record of its topic only.
#[test]
fn a_view_looks_without_duty() {
    let mut bus = small(4, 1000);
    let (count, view) = (Arc::new(Count::default()), bus.handle());
    let waker = Waker::from(Arc::clone(&count));
    for _ in 0..3 {
        view.watch("t", &waker);
    }
    put(&mut bus, "other", b"x").unwrap();
    assert_eq!(count.read(), 0);
    for _ in 0..10 {
        put(&mut bus, "t", b"x").unwrap();
    }
    assert_eq!((count.read(), LogView::range(&view, "t")), (1, (6, 10)));
    let mut out = Vec::new();
    view.look("t", 0, 2, &mut out);
    view.look("t", 10, 2, &mut out);
    assert_eq!(out.iter().map(|record| record.offset).collect::<Vec<_>>(), [6, 7]);
}

/// Offsets count from 0 in each topic, reading goes on where it stopped, and a record is what was appended.
#[test]
fn topics_are_read_by_offset() {
    let mut bus = small(10, 1000);
    for value in [b"a", b"b", b"c"] {
        put(&mut bus, "t", value).unwrap();
    }
    put(&mut bus, "other", b"x").unwrap();
    assert_eq!(offsets(&mut bus, "t", 0, 2), (vec![0, 1], 2));
    assert_eq!(offsets(&mut bus, "t", 2, 2), (vec![2], 3));
    assert_eq!(offsets(&mut bus, "t", 3, 2), (vec![], 3));
    assert_eq!(offsets(&mut bus, "t", 9, 2), (vec![], 9), "ahead of the end one waits there");
    assert_eq!(offsets(&mut bus, "nowhere", 4, 2), (vec![], 4));
    let mut out = Vec::new();
    bus.read("other", 0, 1, &mut out);
    let expected = Record { offset: 0, timestamp: WallMillis(5), key: (*b"k").into(), value: (*b"x").into() };
    assert_eq!(out, [expected]);
    assert_eq!((Bus::epoch(&bus, "t"), bus.durability().name()), (7, "memory"));
}

/// Without readers the oldest make room; who asks for them gets what follows.
#[test]
fn the_oldest_are_evicted() {
    let mut bus = small(4, 1000);
    for n in 0..10 {
        put(&mut bus, "t", &[n]).unwrap();
    }
    assert_eq!(bus.range("t"), (6, 10));
    assert_eq!(offsets(&mut bus, "t", 0, 2), (vec![6, 7], 8));
    put(&mut bus, "t", &[0; 499]).unwrap();
    put(&mut bus, "t", &[0; 499]).unwrap();
    assert_eq!(bus.range("t"), (10, 12), "the byte bound counts keys and values");
    assert_eq!(put(&mut bus, "t", &[0; 500]), Err(ErrorCode::TooLong));
}

/// More than half a bound of unread records refuses appends, evicts nothing unread, and ends with a wake-up.
#[test]
fn a_slow_reader_turns_into_refusal() {
    let mut bus = small(8, 1000);
    let wake = Arc::new(Count::default());
    let mut reader = bus.reader(&["t"], wake.clone());
    for n in 0..5 {
        put(&mut bus, "t", &[n]).unwrap();
    }
    assert_eq!(wake.read(), 5, "every record wakes");
    assert_eq!(put(&mut bus, "t", b"x"), Err(ErrorCode::Unavailable));
    assert_eq!(put(&mut bus, "free", b"x"), Ok(()), "another topic is not concerned");
    reader.done("t", 2);
    assert_eq!(wake.read(), 5, "three unread are more than a quarter");
    reader.done("t", 3);
    assert_eq!(wake.read(), 6);
    reader.done("t", 1);
    assert_eq!(put(&mut bus, "t", b"x"), Ok(()), "a cursor never goes back");
    let mut bytes = small(100, 100);
    let _reader = bytes.reader(&["t"], wake.clone());
    put(&mut bytes, "t", &[0; 49]).unwrap();
    put(&mut bytes, "t", &[0; 49]).unwrap();
    assert_eq!(put(&mut bytes, "t", b"x"), Err(ErrorCode::Unavailable));
}

/// A reader that is gone holds nothing back any more.
#[test]
fn a_dropped_reader_holds_nothing_back() {
    let mut bus = small(4, 1000);
    let reader = bus.reader(&["t"], Arc::new(Count::default()));
    for n in 0..3 {
        put(&mut bus, "t", &[n]).unwrap();
    }
    assert_eq!(put(&mut bus, "t", b"x"), Err(ErrorCode::Unavailable));
    drop(reader);
    for n in 0..9 {
        put(&mut bus, "t", &[n]).unwrap();
    }
    assert_eq!(bus.range("t"), (8, 12));
}

/// The number of topics is bounded.
#[test]
fn topics_are_bounded() {
    let mut bus = small(4, 1000);
    for n in 0..limits::BUS_TOPICS {
        put(&mut bus, &n.to_string(), b"x").unwrap();
    }
    assert_eq!(put(&mut bus, "one more", b"x"), Err(ErrorCode::Unavailable));
}

proptest! {
    /// Readers at any pace see every accepted record once, in order, and memory stays within the bounds.
    #[test]
    fn every_reader_sees_everything(steps in proptest::collection::vec((0u8..4, 1usize..40), 1..300)) {
        let bounds = TopicBounds { records: 16, bytes: 400 };
        let mut bus = EmbeddedBus::new(1, bounds);
        let mut readers: Vec<_> = (0..2).map(|_| (bus.reader(&["t"], Arc::new(Count::default())), 0u64, Vec::new())).collect();
        let mut accepted = Vec::new();
        for (step, n) in steps {
            if step < 2 {
                let value = vec![accepted.len() as u8; n];
                let behind = readers.iter().map(|(_, at, _)| accepted.len() - *at as usize).max().unwrap();
                let bytes: usize = accepted.iter().rev().take(behind).map(|v: &Vec<u8>| v.len() + 1).sum();
                let free = behind <= bounds.records / 2 && bytes <= bounds.bytes / 2;
                prop_assert_eq!(put(&mut bus, "t", &value).is_ok(), free);
                if free {
                    accepted.push(value);
                }
            } else {
                let (reader, at, seen) = &mut readers[step as usize - 2];
                let mut out = Vec::new();
                *at = reader.read("t", *at, n, &mut out);
                seen.extend(out.into_iter().map(|record| record.value.to_vec()));
                reader.done("t", *at);
            }
            let (first, next) = bus.range("t");
            prop_assert!(next - first <= bounds.records as u64);
            let kept: usize = accepted[first as usize..].iter().map(|v| v.len() + 1).sum();
            prop_assert!(kept <= bounds.bytes);
        }
        for (reader, at, mut seen) in readers {
            let mut out = Vec::new();
            let mut reader = reader;
            reader.read("t", at, usize::MAX, &mut out);
            seen.extend(out.into_iter().map(|record| record.value.to_vec()));
            prop_assert_eq!(&seen, &accepted);
        }
    }
}
