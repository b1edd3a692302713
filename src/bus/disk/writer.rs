//! The thread that writes the log: takes what waits, makes it durable, tells who waits for it, begins a new segment
//! when one is full or old, removes what retention lets go, and mends what a refused write left behind.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc;
use std::task::Waker;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::folder::Folder;
use super::sink::{Make, Sink};
use super::state::{Job, Segment, State};
use super::{DiskConfig, Shared, wake};
use crate::limits;
use crate::log::{Header, RECORD_HEAD, Tail};

/// Starts the thread; returns it and what writes, in words.
pub(super) fn start(
    shared: Arc<Shared>,
    folder: Folder,
    config: &DiskConfig,
    tail: Tail,
    make: Make,
) -> Result<(JoinHandle<()>, String), String> {
    let (started, starting) = mpsc::channel();
    let config = config.clone();
    let body = move || {
        let sink = match make() {
            Ok((sink, words)) => {
                // Whoever started the thread waits for this.
                let _ = started.send(Ok(words));
                sink
            }
            Err(error) => {
                let _ = started.send(Err(error));
                return;
            }
        };
        let segment = shared.lock().last_segment();
        let ends = Ends(Arc::clone(&shared));
        let (buffer, places) = (Vec::new(), Vec::new());
        let (unneeded, failing, stuck) = (VecDeque::new(), false, false);
        Writer { shared, folder, config, sink, segment, tail, buffer, places, failing, unneeded, stuck }.run();
        drop(ends);
    };
    let thread = thread::Builder::new().name("log".into()).spawn(body);
    let thread = thread.map_err(|error| format!("the log's thread: {error}"))?;
    let words = starting.recv().map_err(|_| "the log's thread ended while it started".to_owned())??;
    Ok((thread, words))
}

/// A segment's mark. Nobody who does not know the seed can foresee it.
pub(super) fn mark(seed: u64, number: u64) -> u32 {
    xxhash_rust::xxh3::xxh3_64_with_seed(&number.to_le_bytes(), seed) as u32
}

struct Writer {
    shared: Arc<Shared>,
    folder: Folder,
    config: DiskConfig,
    sink: Box<dyn Sink>,
    /// The segment that is written.
    segment: Segment,
    tail: Tail,
    buffer: Vec<u8>,
    places: Vec<u32>,
    /// The last batch failed; told once until one succeeds.
    failing: bool,
    /// Segments to be removed, oldest first.
    unneeded: VecDeque<u64>,
    /// The first of them could not be; told once.
    stuck: bool,
}

impl Writer {
    fn run(&mut self) {
        while let Some(job) = self.next_job() {
            let outcome = self.make_room(&job).and_then(|()| self.write(&job));
            match outcome {
                Ok(tail) => {
                    self.tail = tail;
                    if std::mem::take(&mut self.failing) {
                        tracing::info!(segment = self.segment.number, "the log is written again");
                    }
                    let finished = self.shared.lock().finish(job.batch, &self.places, u64::from(tail.bytes));
                    let (wakes, watchers) = finished;
                    wake(&wakes);
                    watchers.into_iter().for_each(Waker::wake);
                }
                Err(error) => {
                    if !std::mem::replace(&mut self.failing, true) {
                        tracing::error!(error, "the log cannot be written; appends are refused until it can");
                    }
                    let wakes = self.shared.lock().fail(job.batch);
                    wake(&wakes);
                    if !self.mend() {
                        return;
                    }
                }
            }
            if self.buffer.capacity() > 2 * limits::LOG_BATCH_BYTES {
                self.buffer = Vec::new();
            }
        }
    }

    /// Waits for work; `None` when the last handle is gone and nothing waits.
    fn next_job(&mut self) -> Option<Job> {
        let shared = Arc::clone(&self.shared);
        let mut state = shared.lock();
        loop {
            if let Some(job) = state.take() {
                return Some(job);
            }
            if state.is_abandoned() {
                return None;
            }
            let waited = shared.work.wait_timeout(state, RETENTION_INTERVAL);
            let (again, waited) = waited.expect("nothing panics while it holds the log");
            state = again;
            if waited.timed_out() {
                let gone = state.expire(&self.config.retention, (self.config.clock)());
                drop(state);
                self.remove(&gone);
                state = shared.lock();
            }
        }
    }

    /// Begins a new segment if the batch does not fit, or if this one is old.
    fn make_room(&mut self, job: &Job) -> Result<(), String> {
        let records = job.batch.items.iter().map(|item| &item.record);
        let bytes: usize = records.map(|record| RECORD_HEAD + record.key.len() + record.value.len()).sum();
        let full = self.tail.bytes as usize + bytes > self.config.segment_bytes as usize;
        let age = (self.config.clock)().0.saturating_sub(self.tail.created.0);
        let old = u128::from(age) > self.config.retention.segment_age().as_millis();
        if self.tail.records > 0 && (full || old) { self.roll() } else { Ok(()) }
    }

    fn write(&mut self, job: &Job) -> Result<Tail, String> {
        self.places.clear();
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.clear();
        let tail = self.tail.encode(&job.batch.items, &job.names, &mut buffer, &mut self.places);
        let (outcome, buffer) = self.sink.write(&self.segment.file, u64::from(self.tail.bytes), buffer);
        self.buffer = buffer;
        outcome.map(|()| tail).map_err(|error| format!("segment {}: {error}", self.segment.number))
    }

    /// Begins a new segment, and removes those that retention lets go.
    fn roll(&mut self) -> Result<(), String> {
        let created = (self.config.clock)();
        let number = self.tail.number + self.tail.records;
        let mark = mark(self.config.seed, number);
        let header = {
            let state = self.shared.lock();
            Header { log: state.id, number, mark, created, topics: state.starts() }
        };
        let file = self.folder.create(&header)?;
        self.segment = Segment { number, mark, file };
        self.tail = header.tail();
        let mut state = self.shared.lock();
        state.add_segment(self.segment.clone(), u64::from(self.tail.bytes), created);
        let gone = state.expire(&self.config.retention, created);
        drop(state);
        self.remove(&gone);
        Ok(())
    }

    /// Cuts what a refused write may have left and goes on in a new segment, once the disk lets it; `false` if the last
    /// handle is gone before that.
    fn mend(&mut self) -> bool {
        loop {
            let shared = Arc::clone(&self.shared);
            let in_use = |state: &mut State| !state.is_abandoned();
            let waited = shared.work.wait_timeout_while(shared.lock(), limits::LOG_RETRY, in_use);
            let (state, _) = waited.expect("nothing panics while it holds the log");
            if state.is_abandoned() {
                return false;
            }
            drop(state);
            let cut = self.folder.cut(&self.segment.file, self.segment.number, u64::from(self.tail.bytes));
            // What a failed sync leaves in memory says nothing of the disk, so what follows goes elsewhere.
            match cut.and_then(|()| if self.tail.records > 0 { self.roll() } else { Ok(()) }) {
                Ok(()) => {
                    let wakes = self.shared.lock().resume();
                    wake(&wakes);
                    return true;
                }
                Err(error) => tracing::debug!(error, "the log cannot be written yet"),
            }
        }
    }

    /// Removes segments in order: one that stays keeps those behind it, for a start takes a hole for damage.
    fn remove(&mut self, gone: &[u64]) {
        self.unneeded.extend(gone);
        while let Some(number) = self.unneeded.front() {
            match self.folder.remove(*number) {
                Ok(()) => _ = self.unneeded.pop_front(),
                Err(error) => {
                    if !std::mem::replace(&mut self.stuck, true) {
                        tracing::warn!(error, "a segment that is no longer needed cannot be removed yet");
                    }
                    return;
                }
            }
        }
        self.stuck = false;
    }
}

/// However the thread ends, nobody waits for it in vain.
struct Ends(Arc<Shared>);

impl Drop for Ends {
    fn drop(&mut self) {
        if let Ok(mut state) = self.0.state.lock() {
            let wakes = state.end();
            drop(state);
            wake(&wakes);
        }
    }
}

/// How often an idle log looks at what it keeps.
const RETENTION_INTERVAL: Duration = Duration::from_secs(10);
