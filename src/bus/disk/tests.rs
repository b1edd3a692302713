//! What only the log on disk does: it outlives its process, refuses what it must not touch, and goes on after errors.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::sink::{Sink, ThreadSink};
use super::*;
use crate::bus::tests::{Count, Scratch, append, disk_config, offsets, put, until};

fn open(config: &DiskConfig) -> DiskBus {
    DiskBus::open(config).unwrap().0
}

fn values(bus: &mut DiskBus, topic: &str) -> Vec<(u64, Vec<u8>)> {
    let (mut next, end) = bus.range(topic);
    let mut out = Vec::new();
    while next < end {
        next = bus.read(topic, next, 7, &mut out);
    }
    out.into_iter().map(|record| (record.offset, record.value.to_vec())).collect()
}

fn segments(scratch: &Scratch) -> Vec<PathBuf> {
    let files = fs::read_dir(scratch.0.join("log")).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = files.filter(|path| path.extension().is_some_and(|name| name == "log")).collect();
    files.sort();
    files
}

/// What was acknowledged is there after the log was closed, over many segments, with the same id, whichever writer wrote
/// it; offsets go on, and both memory and disk are read as one.
#[test]
fn a_log_outlives_its_process() {
    let scratch = Scratch::new();
    let mut expected = Vec::new();
    for (round, writer) in [WriterChoice::Thread, WriterChoice::Uring, WriterChoice::Auto].into_iter().enumerate() {
        let config = DiskConfig { new_id: 7 + round as u64, ..disk_config(&scratch, writer) };
        let (mut bus, opened) = DiskBus::open(&config).unwrap();
        assert_eq!((bus.epoch("t"), opened.id, opened.torn), (7, 7, 0), "the id is the log's, not the process's");
        assert_eq!(values(&mut bus, "t"), expected);
        for n in 0..40u64 {
            let value = vec![n as u8; 100 + n as usize * 7];
            put(&mut bus, "t", &value).unwrap();
            put(&mut bus, &format!("other{n}"), &value).unwrap();
            expected.push((round as u64 * 40 + n, value));
        }
        assert_eq!(values(&mut bus, "t"), expected);
    }
    assert!(segments(&scratch).len() > 5);
    let mut bus = open(&disk_config(&scratch, WriterChoice::Auto));
    assert_eq!(values(&mut bus, "other7").len(), 3);
    assert_eq!(offsets(&mut bus, "t", 118, 100), (vec![118, 119], 120));
}

/// A reader that follows from the beginning sees what is on disk and what comes as one sequence.
#[test]
fn reading_crosses_from_disk_to_memory() {
    let scratch = Scratch::new();
    let config = disk_config(&scratch, WriterChoice::Thread);
    let mut bus = open(&config);
    for n in 0..300u32 {
        put(&mut bus, if n % 3 == 0 { "t" } else { "noise" }, &[7; 200]).unwrap();
    }
    drop(bus);
    let mut bus = open(&config);
    for _ in 0..10 {
        put(&mut bus, "t", b"new").unwrap();
    }
    let mut reader = bus.reader(&["t"], Arc::new(Count::default()));
    let (mut next, mut seen) = (0, Vec::new());
    while next < 110 {
        let (more, behind) = offsets(&mut reader, "t", next, 9);
        assert!((1..=9).contains(&more.len()));
        seen.extend(more);
        next = behind;
    }
    assert_eq!(seen, (0..110).collect::<Vec<_>>());
}

/// The second owner of a folder is told so.
#[test]
fn a_folder_has_one_owner() {
    let scratch = Scratch::new();
    let config = disk_config(&scratch, WriterChoice::Thread);
    let first = open(&config);
    let error = DiskBus::open(&config).unwrap_err();
    assert!(error.contains("another process uses it; stop that one or give another --data-dir"), "{error}");
    drop(first);
    open(&config);
}

/// A folder that cannot be used, and a file that is damaged, are named with the remedy; a torn tail is cut.
#[test]
fn what_cannot_be_used_is_named() {
    let scratch = Scratch::new();
    let config = disk_config(&scratch, WriterChoice::Thread);
    let occupied = scratch.0.join("file");
    fs::write(&occupied, b"x").unwrap();
    let error = DiskBus::open(&DiskConfig { data_dir: occupied, ..config.clone() }).unwrap_err();
    assert!(error.contains("cannot make") && error.contains("--data-dir") && !error.contains('\n'), "{error}");
    let mut bus = open(&config);
    for _ in 0..50 {
        put(&mut bus, "t", &[1; 300]).unwrap();
    }
    drop(bus);
    let files = segments(&scratch);
    let last = fs::OpenOptions::new().write(true).open(files.last().unwrap()).unwrap();
    let length = last.metadata().unwrap().len();
    last.write_all_at(&[0xab; 33], length).unwrap();
    let (bus, opened) = DiskBus::open(&config).unwrap();
    assert_eq!((opened.torn, bus.range("t")), (33, (0, 50)));
    assert_eq!(last.metadata().unwrap().len(), length);
    drop(bus);
    File::options().write(true).open(&files[1]).unwrap().write_all_at(b"?", 600).unwrap();
    let error = DiskBus::open(&config).unwrap_err();
    let file = files[1].display().to_string();
    assert!(error.starts_with(&file) && error.contains("damaged at byte ") && error.contains("restore"), "{error}");
}

/// Retention drops whole segments by bytes and by time, never what a reader has not dealt with, and keeps the offsets.
#[test]
fn retention_keeps_what_is_unread() {
    let scratch = Scratch::new();
    let retention = Retention { time: Duration::from_secs(3600), bytes: 10_000 };
    let config = DiskConfig { retention, ..disk_config(&scratch, WriterChoice::Thread) };
    let mut bus = open(&config);
    let mut reader = bus.reader(&["t"], Arc::new(Count::default()));
    for _ in 0..100 {
        put(&mut bus, "t", &[1; 300]).unwrap();
    }
    assert_eq!(bus.range("t"), (0, 100));
    reader.done("t", 30);
    // Two of these do not fit into one segment.
    put(&mut bus, "t", &[1; 3000]).unwrap();
    put(&mut bus, "t", &[1; 3000]).unwrap();
    let (first, next) = bus.range("t");
    assert!((20..=30).contains(&first) && next == 102, "{first}");
    assert_eq!(values(&mut bus, "t").len() as u64, next - first);
    reader.done("t", 102);
    put(&mut bus, "t", &[1; 3000]).unwrap();
    until("the disk shrinks", || segments(&scratch).len() <= 4);
    drop((bus, reader));
    let far = Retention { time: Duration::from_millis(1), bytes: u64::MAX };
    let config = DiskConfig { retention: far, clock: || WallMillis(10_000), ..config };
    let mut bus = open(&config);
    assert_eq!(bus.range("t").1, 103);
    put(&mut bus, "t", b"x").unwrap();
    put(&mut bus, "other", b"x").unwrap();
    assert_eq!((bus.range("t"), segments(&scratch).len()), ((103, 104), 1), "all else is older than a millisecond");
    drop(bus);
    assert_eq!(values(&mut open(&config), "t"), [(103, b"x".to_vec())]);
}

/// A segment that cannot be removed keeps all behind it, so that the next start finds no hole; once it can be, all go.
#[test]
fn segments_go_in_order() {
    let scratch = Scratch::new();
    let retention = Retention { time: Duration::from_secs(3600), bytes: 8_000 };
    let config = DiskConfig { retention, ..disk_config(&scratch, WriterChoice::Thread) };
    let mut bus = open(&config);
    for _ in 0..8 {
        put(&mut bus, "t", &[1; 3000]).unwrap();
    }
    until("the disk shrinks", || bus.range("t").0 > 0 && segments(&scratch).len() <= 4);
    let stuck = segments(&scratch).remove(0);
    let aside = scratch.0.join("aside");
    fs::rename(&stuck, &aside).unwrap();
    fs::create_dir(&stuck).unwrap();
    for _ in 0..8 {
        put(&mut bus, "t", &[2; 3000]).unwrap();
    }
    let kept = segments(&scratch).len();
    assert!(kept > 8, "{kept} segments: nothing behind the one that is stuck went");
    fs::remove_dir(&stuck).unwrap();
    fs::rename(&aside, &stuck).unwrap();
    drop(bus);
    let mut bus = open(&config);
    put(&mut bus, "t", &[3; 3000]).unwrap();
    put(&mut bus, "t", &[3; 3000]).unwrap();
    until("all go", || segments(&scratch).len() <= 4);
}

/// What has a name that no segment gets is none.
#[test]
fn foreign_files_are_no_segments() {
    let scratch = Scratch::new();
    let config = disk_config(&scratch, WriterChoice::Thread);
    put(&mut open(&config), "t", b"x").unwrap();
    for name in ["+5.log", "5.log", "000000000000000000005.log", "x.log"] {
        fs::write(scratch.0.join("log").join(name), b"nothing").unwrap();
    }
    assert_eq!(values(&mut open(&config), "t").len(), 1);
}

/// A reader of a log that was there before counts as far behind, so that appends are refused, until it says how far it is.
#[test]
fn a_reader_that_comes_back_says_how_far_it_is() {
    let scratch = Scratch::new();
    let config = DiskConfig {
        bounds: TopicBounds { records: 8, bytes: 1 << 20 },
        ..disk_config(&scratch, WriterChoice::Thread)
    };
    let mut bus = open(&config);
    (0..20).for_each(|_| put(&mut bus, "t", b"x").unwrap());
    drop(bus);
    let mut bus = open(&config);
    let mut reader = bus.reader(&["t"], Arc::new(Count::default()));
    assert_eq!(put(&mut bus, "t", b"x"), Err(ErrorCode::Unavailable));
    reader.done("t", 20);
    assert_eq!(put(&mut bus, "t", b"x"), Ok(()));
}

/// A disk that is full, and then is not. It writes a part before it refuses.
struct Full {
    inner: ThreadSink,
    /// Writes that still fail.
    left: Arc<AtomicUsize>,
}

impl Sink for Full {
    fn write(&mut self, file: &Arc<File>, at: u64, bytes: Vec<u8>) -> (io::Result<()>, Vec<u8>) {
        let fails = self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
        if fails {
            file.write_all_at(&bytes[..bytes.len() / 2], at).unwrap();
            return (Err(io::Error::from(io::ErrorKind::StorageFull)), bytes);
        }
        self.inner.write(file, at, bytes)
    }
}

/// While the disk refuses, nothing is acknowledged, nothing half-written is ever read, all that waits fails in order,
/// and the handle must take note before it may append again; afterwards the log goes on without a gap.
#[test]
fn a_full_disk_refuses_and_the_log_goes_on() {
    let scratch = Scratch::new();
    let config = disk_config(&scratch, WriterChoice::Thread);
    let left = Arc::new(AtomicUsize::new(0));
    let full = Full { inner: ThreadSink, left: Arc::clone(&left) };
    let make = Box::new(move || Ok((Box::new(full) as Box<dyn Sink>, String::new())));
    let (mut bus, _) = DiskBus::open_with(&config, make).unwrap();
    let wake = Arc::new(Count::default());
    let mut waiting = bus.reader(&[], wake);
    put(&mut bus, "t", b"before").unwrap();
    left.store(2, Ordering::SeqCst);
    for n in 0..20u8 {
        if waiting.append(WallMillis(5), &append("t", &[n; 50])).is_err() {
            break;
        }
    }
    let mut ends = Vec::new();
    until("the first fails", || {
        waiting.completed(&mut ends);
        !ends.is_empty()
    });
    assert!(ends.iter().all(|end| end.outcome == Err(ErrorCode::Unavailable)), "{ends:?}");
    assert_eq!(bus.range("t"), (0, 1));
    until("the disk is tried again, refuses once more, and then takes it", || put(&mut bus, "t", b"after").is_ok());
    assert_eq!(left.load(Ordering::SeqCst), 0);
    let expected = [(0, b"before".to_vec()), (1, b"after".to_vec())];
    assert_eq!(values(&mut bus, "t"), expected);
    drop((bus, waiting));
    assert_eq!(values(&mut open(&config), "t"), expected);
}

/// A disk that syncs when it is told to.
struct Slow {
    inner: ThreadSink,
    begun: crossbeam_channel::Sender<()>,
    go_on: crossbeam_channel::Receiver<()>,
}

impl Sink for Slow {
    fn write(&mut self, file: &Arc<File>, at: u64, bytes: Vec<u8>) -> (io::Result<()>, Vec<u8>) {
        self.begun.send(()).unwrap();
        self.go_on.recv().unwrap();
        self.inner.write(file, at, bytes)
    }
}

/// Nothing is acknowledged and nothing is read before the sync has returned; what came meanwhile is one batch.
#[test]
fn nothing_is_acknowledged_before_the_sync() {
    let scratch = Scratch::new();
    let (begun, begins) = crossbeam_channel::bounded(0);
    let (go, go_on) = crossbeam_channel::bounded(0);
    let slow = move || Ok((Box::new(Slow { inner: ThreadSink, begun, go_on }) as Box<dyn Sink>, String::new()));
    let (mut bus, _) = DiskBus::open_with(&disk_config(&scratch, WriterChoice::Thread), Box::new(slow)).unwrap();
    let mut ends = Vec::new();
    bus.append(WallMillis(5), &append("t", b"0")).unwrap();
    begins.recv().unwrap();
    for n in 1..10u8 {
        bus.append(WallMillis(5), &append("t", &[n])).unwrap();
    }
    bus.completed(&mut ends);
    assert_eq!((ends.len(), bus.range("t"), offsets(&mut bus, "t", 0, 9)), (0, (0, 0), (vec![], 0)));
    go.send(()).unwrap();
    begins.recv().unwrap();
    bus.completed(&mut ends);
    assert_eq!((ends.len(), bus.range("t")), (1, (0, 1)), "the first batch is one record, the second has not synced");
    go.send(()).unwrap();
    until("the second batch ends", || bus.range("t") == (0, 10));
    bus.completed(&mut ends);
    assert_eq!(ends.len(), 10);
}

/// A handle that has not been told of its failure appends nothing behind it.
#[test]
fn a_failure_comes_before_the_next_append() {
    let scratch = Scratch::new();
    let config = disk_config(&scratch, WriterChoice::Thread);
    let full = Full { inner: ThreadSink, left: Arc::new(AtomicUsize::new(1)) };
    let make = Box::new(move || Ok((Box::new(full) as Box<dyn Sink>, String::new())));
    let (mut bus, _) = DiskBus::open_with(&config, make).unwrap();
    let (mut slow, mut ends) = (bus.handle(), Vec::new());
    slow.append(WallMillis(5), &append("t", b"lost")).unwrap();
    until("others go on", || put(&mut bus, "t", b"x").is_ok());
    assert_eq!(slow.append(WallMillis(5), &append("t", b"later")), Err(ErrorCode::Unavailable));
    slow.completed(&mut ends);
    assert_eq!(ends.len(), 1);
    assert_eq!(put(&mut slow, "t", b"later"), Ok(()));
}

/// A view is told that a place cannot be read, sees what is behind it, and is not told so at the end of a topic.
#[test]
fn a_view_is_told_what_cannot_be_read() {
    let scratch = Scratch::new();
    let config =
        DiskConfig { bounds: TopicBounds { records: 8, bytes: 1000 }, ..disk_config(&scratch, WriterChoice::Thread) };
    let mut bus = open(&config);
    for n in 0..10u8 {
        put(&mut bus, "t", &[n]).unwrap();
    }
    let view: &dyn crate::ports::LogView = &bus;
    let mut out = Vec::new();
    view.look("t", 0, 1, &mut out).unwrap();
    let path = segments(&scratch).pop().unwrap();
    let file = File::options().write(true).open(&path).unwrap();
    file.write_all_at(&vec![0; fs::metadata(&path).unwrap().len() as usize], 0).unwrap();
    assert_eq!(view.look("t", 0, 1, &mut out), Err(crate::ports::Unreadable));
    view.look("t", 2, 9, &mut out).unwrap();
    view.look("t", 10, 9, &mut out).unwrap();
    let seen: Vec<_> = out.iter().map(|record| record.offset).collect();
    assert_eq!(seen, [0, 2, 3, 4, 5, 6, 7, 8, 9], "the newest are in memory");
}

/// The last handle's end writes what waits.
#[test]
fn closing_writes_what_waits() {
    let scratch = Scratch::new();
    let config = disk_config(&scratch, WriterChoice::Auto);
    let mut bus = open(&config);
    for n in 0..100u8 {
        bus.append(WallMillis(5), &append("t", &[n])).unwrap();
    }
    drop(bus);
    assert_eq!(values(&mut open(&config), "t").len(), 100);
}
