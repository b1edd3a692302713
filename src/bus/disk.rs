//! A log of topics on this machine's disk, behind the same port as the one in memory: one partition each, offsets from
//! 0, in the format of [`crate::log`].
//!
//! Laws: an append is acknowledged only after fdatasync, and nobody reads it before; what is acknowledged survives the
//! end of the process and of the machine. One thread writes; appends that come while it syncs go with the next batch.
//! While the disk refuses, appends are `Unavailable`, what was under way fails, and the log goes on once it can.
//! One process at a time owns a folder. Nothing is evicted that an active reader has not dealt with.
//!
//! Handles share a lock that nobody holds across a write or a sync. The newest records are read from memory; older
//! ones, after a start, from the files.

mod folder;
mod sink;
mod state;
mod writer;

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::task::Waker;
use std::thread::JoinHandle;

use super::topic::{ReaderId, TopicBounds, Wakes};
use crate::limits;
use crate::log::{CommitBounds, Header, Kind, Recovered, Recovery, Retention, parse};
use crate::message::{Append, ErrorCode};
use crate::ports::{Accepted, Bus, Completed, Durability, Record, Unreadable};
use crate::router::Wake;
use crate::time::WallMillis;
use folder::Folder;
pub use sink::WriterChoice;
use state::{Block, State};

/// A handle of the log. See the module. The log is closed when the last one is dropped.
pub struct DiskBus {
    shared: Arc<Shared>,
    reader: ReaderId,
}

/// What a log is opened with.
#[derive(Clone, Debug)]
pub struct DiskConfig {
    /// The log lies in `log` below it; both are made if they are not there.
    pub data_dir: PathBuf,
    /// What is kept in memory, and half of which a reader may lag.
    pub bounds: TopicBounds,
    /// What is kept on disk.
    pub retention: Retention,
    /// Bytes of a segment.
    pub segment_bytes: u32,
    /// What writes.
    pub writer: WriterChoice,
    /// The id of a log that is made now; random, < 2^53.
    pub new_id: u64,
    /// Entropy for what nobody may foresee in the files.
    pub seed: u64,
    /// The wall clock.
    pub clock: fn() -> WallMillis,
}

/// What opening found, for the start line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Opened {
    /// What writes, and why.
    pub writer: String,
    /// The log's id.
    pub id: u64,
    /// Segments and bytes that were read.
    pub segments: usize,
    /// See `segments`.
    pub bytes: u64,
    /// Bytes of a torn batch, which nobody was told of, that were cut off.
    pub torn: u64,
}

impl DiskConfig {
    /// Everything at its default for this folder.
    #[must_use]
    pub fn new(data_dir: impl Into<PathBuf>, new_id: u64, seed: u64, clock: fn() -> WallMillis) -> Self {
        Self {
            data_dir: data_dir.into(),
            bounds: TopicBounds::default(),
            retention: Retention { time: limits::LOG_RETENTION, bytes: limits::LOG_RETENTION_BYTES },
            segment_bytes: limits::LOG_SEGMENT_BYTES,
            writer: WriterChoice::Auto,
            new_id,
            seed,
            clock,
        }
    }
}

impl DiskBus {
    /// Opens the log, or makes one; this handle reads nothing by duty.
    ///
    /// # Errors
    /// One line that names the folder or file, what is wrong with it, and the remedy: the folder cannot be used, another
    /// process has it, or a file is damaged where no crash explains it.
    pub fn open(config: &DiskConfig) -> Result<(Self, Opened), String> {
        let make = sink::choose(config.writer, &config.data_dir);
        Self::open_with(config, make)
    }

    fn open_with(config: &DiskConfig, make: sink::Make) -> Result<(Self, Opened), String> {
        let folder = Folder::open(&config.data_dir)?;
        let (recovered, segments) = recover(&folder, config)?;
        let found = Opened {
            writer: String::new(),
            id: recovered.log,
            segments: recovered.held.len(),
            bytes: recovered.held.iter().map(|held| held.bytes).sum(),
            torn: recovered.torn,
        };
        let bounds = CommitBounds {
            records: limits::LOG_PENDING_RECORDS,
            bytes: limits::LOG_PENDING_BYTES,
            batch_bytes: limits::LOG_BATCH_BYTES,
        };
        let tail = recovered.tail;
        let mut state = State::new(recovered, segments, config.bounds, bounds);
        let reader = state.add_handle(None);
        let shared = Arc::new(Shared { state: Mutex::new(state), work: Condvar::new(), writer: Mutex::new(None) });
        let (thread, writer) = writer::start(Arc::clone(&shared), folder, config, tail, make)?;
        *shared.writer.lock().expect("nobody else has it yet") = Some(thread);
        Ok((Self { shared, reader }, Opened { writer, ..found }))
    }

    /// A handle that reads these topics from their oldest record on, until [`Bus::done`] says otherwise: nothing of
    /// them is evicted before that. `wake` is called when one of them gets a record, when appends of this handle end,
    /// and when one that was refused may be tried again. Dropping the handle ends that.
    #[must_use]
    pub fn reader(&self, topics: &[&str], wake: Arc<dyn Wake>) -> Self {
        let mut state = self.shared.lock();
        let reader = state.add_handle(Some(wake));
        state.register(reader, topics);
        drop(state);
        Self { shared: Arc::clone(&self.shared), reader }
    }

    /// A handle that reads nothing by duty and is not woken.
    #[must_use]
    pub fn handle(&self) -> Self {
        let reader = self.shared.lock().add_handle(None);
        Self { shared: Arc::clone(&self.shared), reader }
    }
}

impl Bus for DiskBus {
    fn durability(&self) -> Durability {
        Durability::Disk
    }

    fn epoch(&self, _topic: &str) -> u64 {
        self.shared.lock().id
    }

    fn append(&mut self, now: WallMillis, append: &Append) -> Result<Accepted, ErrorCode> {
        let record =
            Record { offset: 0, timestamp: now, key: append.key.as_ref().into(), value: append.value.as_ref().into() };
        let ticket = self.shared.lock().append(self.reader, &append.topic, record)?;
        self.shared.work.notify_one();
        Ok(Accepted::Pending(ticket))
    }

    fn completed(&mut self, out: &mut Vec<Completed>) {
        self.shared.lock().completed(self.reader, out);
    }

    fn range(&self, topic: &str) -> (u64, u64) {
        self.shared.lock().range(topic)
    }

    fn since(&self, topic: &str, since: WallMillis) -> u64 {
        self.shared.lock().since(topic, since)
    }

    fn read(&mut self, topic: &str, offset: u64, max: usize, out: &mut Vec<Record>) -> u64 {
        // Its readers wait where it cannot be read.
        self.shared.read(topic, offset, max, out).unwrap_or_else(|at| at)
    }

    fn done(&mut self, topic: &str, offset: u64) {
        let wakes = self.shared.lock().done(self.reader, topic, offset);
        wakes.iter().for_each(|wake| wake.wake());
    }
}

impl crate::ports::LogView for DiskBus {
    fn epoch(&self, _topic: &str) -> u64 {
        self.shared.lock().id
    }

    fn range(&self, topic: &str) -> (u64, u64) {
        self.shared.lock().range(topic)
    }

    fn look(&self, topic: &str, offset: u64, max: usize, out: &mut Vec<Record>) -> Result<(), Unreadable> {
        let before = out.len();
        match self.shared.read(topic, offset, max, out) {
            Err(_) if out.len() == before => Err(Unreadable),
            Ok(_) | Err(_) => Ok(()),
        }
    }

    fn watch(&self, topic: &str, waker: &Waker) {
        self.shared.lock().watch(topic, waker);
    }
}

impl Drop for DiskBus {
    fn drop(&mut self) {
        let Ok(mut state) = self.shared.state.lock() else { return };
        let (wakes, last) = state.remove_handle(self.reader);
        drop(state);
        wakes.iter().for_each(|wake| wake.wake());
        if last {
            self.shared.work.notify_one();
            let thread = self.shared.writer.lock().ok().and_then(|mut writer| writer.take());
            // Its panic has been told by the log's refusals.
            let _ = thread.map(JoinHandle::join);
        }
    }
}

impl fmt::Debug for DiskBus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DiskBus").field("reader", &self.reader).finish_non_exhaustive()
    }
}

/// What handles and writer share.
struct Shared {
    state: Mutex<State>,
    /// Rung when there is something to write, or the last handle is gone.
    work: Condvar,
    /// Joined by the last handle.
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while it holds the log")
    }

    /// Reads from memory what is there, all else from the files; returns the offset to go on from, as an error where it
    /// cannot be read.
    fn read(&self, topic: &str, offset: u64, max: usize, out: &mut Vec<Record>) -> Result<u64, u64> {
        let (mut next, before) = (offset, out.len());
        loop {
            let left = max - (out.len() - before);
            let block = match self.lock().read(topic, next, left, out) {
                Ok(next) => return Ok(next),
                Err(block) => block,
            };
            match read_block(&block, left, out) {
                Ok(behind) => next = behind,
                Err(error) => {
                    let (file, at) = (block.number, block.at);
                    tracing::error!(topic, segment = file, at, error, "the log cannot be read");
                    return Err(next);
                }
            }
            if out.len() - before >= max.min(limits::BUS_READ_RECORDS) {
                return Ok(next);
            }
        }
    }
}

fn wake(wakes: &[Arc<dyn Wake>]) {
    wakes.iter().for_each(|wake| wake.wake());
}

/// Reads all segments, or makes the first; cuts a torn tail.
fn recover(folder: &Folder, config: &DiskConfig) -> Result<(Recovered, Vec<state::Segment>), String> {
    let mut numbers = folder.numbers()?;
    if numbers.is_empty() {
        let created = (config.clock)();
        let mark = writer::mark(config.seed, 0);
        folder.create(&Header { log: config.new_id, number: 0, mark, created, topics: Vec::new() })?;
        numbers.push(0);
    }
    let (mut recovery, mut segments, mut bytes) = (Recovery::default(), Vec::new(), Vec::new());
    for (at, number) in numbers.iter().enumerate() {
        let last = at + 1 == numbers.len();
        let file = folder.read(*number, &mut bytes)?;
        recovery.segment(&bytes, last).map_err(|damage| folder.damaged(*number, &damage))?;
        let (header, _) = Header::parse(&bytes).map_err(|flaw| folder.refuse(*number, flaw.text()))?;
        if header.number != *number {
            return Err(folder.refuse(*number, &format!("its header says segment {}", header.number)));
        }
        segments.push(state::Segment { number: *number, mark: header.mark, file });
    }
    let recovered = recovery.finish().expect("there is a first segment");
    if recovered.torn > 0 {
        let last = segments.last().expect("there is a first segment");
        folder.cut(&last.file, last.number, u64::from(recovered.tail.bytes))?;
        tracing::warn!(bytes = recovered.torn, "a batch that a crash tore, and nobody was told of, is cut off the log");
    }
    Ok((recovered, segments))
}

/// Appends the block's records of its topic from the wanted offset on, at most `max`; returns the offset behind them.
fn read_block(block: &Block, max: usize, out: &mut Vec<Record>) -> Result<u64, String> {
    let (mut at, mut next, mut taken) = (u64::from(block.at), block.offset, 0);
    let mut bytes = Vec::new();
    let mut begin = 0;
    while at < block.end && taken < max {
        match parse(&bytes[begin..], block.mark) {
            Ok((entry, length, _)) => {
                if entry.kind == Kind::Record && entry.topic == block.topic && entry.offset >= next {
                    let (offset, timestamp) = (entry.offset, entry.timestamp);
                    out.push(Record { offset, timestamp, key: entry.key.into(), value: entry.value.into() });
                    (next, taken) = (offset + 1, taken + 1);
                }
                at += length as u64;
                begin += length;
            }
            Err(flaw) => {
                // Twice what did not suffice, up to the segment's end.
                let had = bytes.len() - begin;
                let want = (had * 2).max(BLOCK_READ).min(usize::try_from(block.limit - at).unwrap_or(usize::MAX));
                if want <= had {
                    return Err(flaw.text().to_owned());
                }
                bytes = folder::read_at(&block.file, at, want).map_err(|error| error.to_string())?;
                begin = 0;
            }
        }
    }
    if taken == 0 { Err(format!("offset {} is not where the index says", block.offset)) } else { Ok(next) }
}

fn no_wakes() -> Wakes {
    Arc::default()
}

/// Bytes read at once of a block.
const BLOCK_READ: usize = 128 << 10;

#[cfg(test)]
mod tests;
