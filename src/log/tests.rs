//! The log against a disk that stops anywhere: what was acknowledged is there, in order, and nothing twice.

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::ports::Record;
use crate::time::WallMillis;

const BOUNDS: CommitBounds = CommitBounds { records: 50, bytes: 20_000, batch_bytes: 2000 };
const NAMES: [&str; 3] = ["games.events", "chat.events", "x"];

/// A log whose disk is memory. It does what `bus::disk` does, without files.
struct Model {
    segments: Vec<Vec<u8>>,
    tail: Tail,
    commit: Commit<()>,
    names: Vec<Arc<str>>,
    /// Values by topic name and offset: acknowledged.
    durable: Vec<(Arc<str>, u64, Vec<u8>)>,
    /// Refused or unknown: they may be there all the same.
    marks: u32,
}

impl Model {
    fn new() -> Self {
        let header = Header { log: 7, number: 0, mark: 0x5a5a_0001, created: WallMillis(1), topics: Vec::new() };
        let (segments, commit) = (vec![header.bytes()], Commit::new(BOUNDS));
        Self { segments, tail: header.tail(), commit, names: Vec::new(), durable: Vec::new(), marks: 1 }
    }

    fn push(&mut self, name: &str, value: Vec<u8>) -> Result<(), Refused> {
        let topic = self.names.iter().position(|known| **known == *name).unwrap_or_else(|| {
            self.commit.add_topic(0);
            self.names.push(name.into());
            self.names.len() - 1
        });
        let value = value.into();
        let record = Record { offset: 0, timestamp: WallMillis(self.marks.into()), key: (*b"key").into(), value };
        self.commit.push(topic as u16, record, ())
    }

    /// Writes a batch; `torn` of its bytes reach the disk before it stops, all of them without.
    fn write(&mut self, torn: Option<usize>) {
        let Some(batch) = self.commit.take() else { return };
        let (mut out, mut places) = (Vec::new(), Vec::new());
        let tail = self.tail.encode(&batch.items, &self.names, &mut out, &mut places);
        assert_eq!(places.len(), batch.items.len());
        let segment = self.segments.last_mut().unwrap();
        assert_eq!(segment.len(), self.tail.bytes as usize);
        if let Some(torn) = torn {
            segment.extend_from_slice(&out[..torn % out.len()]);
            self.commit.fail(batch);
            return;
        }
        segment.extend_from_slice(&out);
        self.tail = tail;
        for item in self.commit.finish(batch) {
            let name = Arc::clone(&self.names[usize::from(item.topic)]);
            self.durable.push((name, item.record.offset, item.record.value.to_vec()));
        }
    }

    fn roll(&mut self) {
        if self.tail.records == 0 {
            return;
        }
        self.marks += 1;
        let topics = self.names.iter().cloned().zip(self.commit.durable());
        let header = Header {
            log: 7,
            number: self.tail.number + self.tail.records,
            mark: 0x5a5a_0000 + self.marks,
            created: WallMillis(u64::from(self.marks)),
            topics: topics.map(|(name, next)| TopicStart { name, next }).collect(),
        };
        self.segments.push(header.bytes());
        self.tail = header.tail();
    }

    /// Opens the log anew; what is torn is cut.
    fn reopen(&mut self) -> Recovered {
        let recovered = recover(&self.segments).unwrap();
        self.segments.last_mut().unwrap().truncate(recovered.tail.bytes as usize);
        self.names = recovered.topics.iter().map(|topic| Arc::clone(&topic.name)).collect();
        self.commit = Commit::new(BOUNDS);
        recovered.topics.iter().for_each(|topic| self.commit.add_topic(topic.next));
        self.tail = recovered.tail;
        recovered
    }
}

fn recover(segments: &[Vec<u8>]) -> Result<Recovered, (usize, Damage)> {
    let mut recovery = Recovery::default();
    for (at, bytes) in segments.iter().enumerate() {
        recovery.segment(bytes, at + 1 == segments.len()).map_err(|damage| (at, damage))?;
    }
    Ok(recovery.finish().unwrap())
}

/// Every record, found through the index, as a reader finds it.
fn contents(segments: &[Vec<u8>], log: &Recovered) -> Vec<(Arc<str>, u64, Vec<u8>)> {
    let mut out = Vec::new();
    for (topic, start) in log.topics.iter().enumerate() {
        let (first, next) = log.index.range(topic as u16);
        assert_eq!(next, start.next);
        for offset in first..next {
            let (segment, mut at) = log.index.find(topic as u16, offset).unwrap();
            let bytes = segments.iter().find(|bytes| Header::parse(bytes).unwrap().0.number == segment).unwrap();
            let mark = Header::parse(bytes).unwrap().0.mark;
            loop {
                let (entry, length, _) = parse(&bytes[at as usize..], mark).unwrap();
                if (entry.kind, usize::from(entry.topic), entry.offset) == (Kind::Record, topic, offset) {
                    out.push((Arc::clone(&start.name), offset, entry.value.to_vec()));
                    break;
                }
                at += length as u32;
            }
        }
    }
    out
}

fn sorted(mut records: Vec<(Arc<str>, u64, Vec<u8>)>) -> Vec<(Arc<str>, u64, Vec<u8>)> {
    records.sort();
    records
}

#[derive(Clone, Debug)]
enum Step {
    Push(usize, usize),
    Write,
    Roll,
    /// A batch stops half-way, then these bytes lie behind it, and the log is opened anew.
    Crash(usize, Vec<u8>),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..NAMES.len(), 0usize..900).prop_map(|(topic, bytes)| Step::Push(topic, bytes)),
        3 => Just(Step::Write),
        1 => Just(Step::Roll),
        1 => (any::<usize>(), proptest::collection::vec(any::<u8>(), 0..200)).prop_map(|(at, tail)| Step::Crash(at, tail)),
    ]
}

proptest! {
    /// Whatever is appended and wherever the disk stops: what is opened again is all that was acknowledged, in order,
    /// and beyond it at most a prefix of the batch that was under way; offsets go on without a gap or a repeat.
    #[test]
    fn reopening_finds_the_acknowledged_prefix(steps in proptest::collection::vec(step(), 1..150)) {
        let mut log = Model::new();
        let mut n = 0u32;
        for step in steps.into_iter().chain([Step::Crash(usize::MAX, vec![0; 50])]) {
            match step {
                Step::Push(topic, bytes) => {
                    n += 1;
                    let value = [&n.to_le_bytes()[..], &vec![n as u8; bytes]].concat();
                    let _ = log.push(NAMES[topic], value);
                }
                Step::Write => log.write(None),
                Step::Roll => log.roll(),
                Step::Crash(at, garbage) => {
                    log.write(Some(at));
                    log.segments.last_mut().unwrap().extend_from_slice(&garbage);
                    let recovered = log.reopen();
                    let found = contents(&log.segments, &recovered);
                    let extra = found.len() - log.durable.len();
                    prop_assert!(extra <= BOUNDS.records);
                    let durable = sorted(log.durable.clone());
                    prop_assert!(durable.iter().all(|record| found.contains(record)));
                    // What was under way and is whole is there for good.
                    log.durable = found;
                }
            }
        }
    }

    /// No byte of a sealed segment, and none before the last batch, can change unnoticed.
    #[test]
    fn damage_in_the_middle_is_refused(at in any::<usize>(), bit in 0u8..8, sealed in any::<bool>()) {
        let mut log = Model::new();
        for n in 0..20u8 {
            log.push(NAMES[usize::from(n % 3)], vec![n; 100]).unwrap();
            log.write(None);
            if n == 9 {
                log.roll();
            }
        }
        let first = usize::from(!sealed);
        let limit = if sealed { log.segments[0].len() } else { log.segments[1].len() - 200 };
        let at = at % limit;
        log.segments[first][at] ^= 1 << bit;
        let (segment, damage) = recover(&log.segments).unwrap_err();
        prop_assert_eq!(segment, first);
        prop_assert!(damage.at <= at, "{} {}", damage, at);
    }

    /// Garbage never passes for records, and never makes recovery fail or panic, behind any whole batch.
    #[test]
    fn garbage_behind_the_last_batch_is_cut(garbage in proptest::collection::vec(any::<u8>(), 0..500)) {
        let mut log = Model::new();
        log.push("x", b"1".to_vec()).unwrap();
        log.write(None);
        log.segments[0].extend_from_slice(&garbage);
        let recovered = log.reopen();
        prop_assert_eq!(recovered.torn, garbage.len() as u64);
        prop_assert_eq!(contents(&log.segments, &recovered), log.durable);
    }
}

/// A record that a client sends as its payload does not pass for a record of the log, not even in a torn batch.
#[test]
fn a_payload_does_not_forge_a_record() {
    let mut log = Model::new();
    let mut forged = vec![0; 64];
    let entry = Entry { kind: Kind::Record, topic: 0, offset: 9, timestamp: WallMillis(1), key: b"", value: b"evil" };
    put(&mut forged, 0x1234_5678, 60_000, &entry);
    log.push("x", forged.clone()).unwrap();
    log.push("x", b"second".to_vec()).unwrap();
    log.write(None);
    log.push("x", forged).unwrap();
    log.write(Some(150));
    let recovered = log.reopen();
    assert!(recovered.torn > 0);
    assert_eq!(contents(&log.segments, &recovered), log.durable);
}

/// A segment that is missing, foreign, or shorter than it was is refused by name of what is wrong.
#[test]
fn a_broken_chain_is_refused() {
    let mut log = Model::new();
    for n in 0..3u8 {
        log.push("x", vec![n; 10]).unwrap();
        log.write(None);
        log.push("x", vec![n; 10]).unwrap();
        log.write(None);
        log.roll();
    }
    let refusal = |segments: &[Vec<u8>]| recover(segments).unwrap_err().1.to_string();
    let [a, b, c, d] = [0, 1, 2, 3].map(|at: usize| log.segments[at].clone());
    let missing = refusal(&[a.clone(), c.clone()]);
    assert_eq!(missing, "damaged at byte 0: it begins behind record 4, the segments before it end at 2");
    let cut = a[..a.len() - 51].to_vec();
    assert!(parse(&a[a.len() - 53..], 0x5a5a_0001).is_ok(), "the last record has 53 bytes");
    assert!(refusal(&[cut, b.clone()]).contains("a record ends behind the end of the file"));
    let whole_record_less = a[..a.len() - 53].to_vec();
    assert!(refusal(&[whole_record_less, b.clone()]).contains("the segments before it end at 1"));
    let foreign = Header { log: 8, ..Header::parse(&b).unwrap().0 }.bytes();
    assert!(refusal(&[a, foreign]).contains("it belongs to log 8, the segments before it to log 7"));
    let recovered = recover(&[c, d]).unwrap();
    assert_eq!(recovered.index.range(0), (4, 6), "the oldest may be gone: offsets stay");
}

/// One batch is under way at a time; what is queued meanwhile goes with the next; bounds refuse, failure refuses all
/// that waits and gives the offsets anew.
#[test]
fn batches_are_made_one_at_a_time() {
    let mut commit: Commit<u32> = Commit::new(CommitBounds { records: 4, bytes: 4000, batch_bytes: 600 });
    commit.add_topic(10);
    let record =
        |bytes: usize| Record { offset: 0, timestamp: WallMillis(0), key: (*b"").into(), value: vec![0; bytes].into() };
    let offsets = |items: &[Item<u32>]| items.iter().map(|item| (item.tag, item.record.offset)).collect::<Vec<_>>();
    commit.push(0, record(9000), 1).expect("a single record always fits");
    assert_eq!(commit.push(0, record(1), 2), Err(Refused), "the bytes are used up");
    let batch = commit.take().unwrap();
    assert!(commit.take().is_none());
    assert_eq!(offsets(&commit.finish(batch)), [(1, 10)]);
    for tag in 2..6 {
        commit.push(0, record(200), tag).unwrap();
    }
    assert_eq!(commit.push(0, record(1), 6), Err(Refused), "the records are used up");
    let batch = commit.take().unwrap();
    assert_eq!(offsets(&batch.items), [(2, 11), (3, 12)], "as much as a batch may have");
    assert_eq!(offsets(&commit.fail(batch)), [(2, 11), (3, 12), (4, 13), (5, 14)]);
    assert!(commit.is_idle() && commit.take().is_none());
    commit.push(0, record(1), 7).unwrap();
    let batch = commit.take().unwrap();
    assert_eq!(offsets(&commit.finish(batch)), [(7, 11)]);
}

/// Reading from a time on finds every record of that time or later, though the clock was set back meanwhile.
#[test]
fn a_time_is_found_though_the_clock_went_back() {
    let mut index = Index::default();
    index.add_topic(0);
    for (offset, (time, segment)) in [(100, 0), (300, 0), (200, 1), (250, 2), (400, 3)].into_iter().enumerate() {
        index.note(0, offset as u64, WallMillis(time), segment, 0);
    }
    assert_eq!(index.since(0, WallMillis(50)), 0);
    assert_eq!(index.since(0, WallMillis(240)), 0, "offset 3 is found, and the block that 300 is in comes before it");
    assert_eq!(index.since(0, WallMillis(301)), 4);
    assert_eq!(index.since(0, WallMillis(401)), 5);
    index.drop_segment(1);
    assert_eq!(index.range(0), (3, 5));
    assert_eq!((index.find(0, 2), index.find(0, 4), index.find(0, 5)), (None, Some((3, 0)), None));
}

/// Old or surplus segments go from the front, never the last one and nothing unread.
#[test]
fn retention_drops_whole_segments() {
    let held: Vec<_> =
        (0..5).map(|n| Held { number: n * 10, bytes: 100, newest: WallMillis(1000 * (n + 1)) }).collect();
    let keep = |secs, bytes| Retention { time: Duration::from_secs(secs), bytes };
    let now = WallMillis(6500);
    assert_eq!(keep(100, 500).expired(&held, now, None), 0);
    assert_eq!(keep(100, 499).expired(&held, now, None), 1);
    assert_eq!(keep(100, 0).expired(&held, now, None), 4, "the last one stays");
    assert_eq!(keep(3, 500).expired(&held, now, None), 3, "those whose newest record is older than 3.5 s");
    assert_eq!(keep(3, 500).expired(&held, now, Some(10)), 1, "segment 10 holds something unread");
    assert_eq!(keep(0, 0).expired(&held, now, Some(0)), 0);
}
