//! What the threads of a run tell each other: the phase, how far they are, what was sent.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use hdrhistogram::Histogram;

use super::options::Options;
use super::verify::{Sent, Tally};

/// Where a run is; only the main thread moves it on.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Phase {
    /// Connections are made, as far as `allowed`.
    Connect,
    /// Publishers send.
    Send,
    /// Everybody drops their connection and resumes (storm).
    Reconnect,
    /// Publishers have stopped; members take what is left.
    Drain,
    /// Threads end.
    Stop,
}

impl Phase {
    const ALL: [Self; 5] = [Self::Connect, Self::Send, Self::Reconnect, Self::Drain, Self::Stop];
}

/// Shared by all threads of a run.
#[derive(Debug)]
pub struct Shared {
    /// The command line.
    pub options: Options,
    /// Zero of the run's clock.
    pub epoch: Instant,
    phase: AtomicU8,
    /// Clients with a smaller index may connect.
    pub allowed: AtomicUsize,
    /// Clients that are live.
    pub ready: AtomicUsize,
    /// Window of measuring, ns on the run's clock.
    pub measure_from: AtomicU64,
    /// Its end.
    pub measure_to: AtomicU64,
    /// Threads that have seen the drain.
    pub draining: AtomicUsize,
    /// By thread: clients that still wait for something in the drain.
    pub pending: Vec<AtomicUsize>,
    /// By publisher: number of the last reliable frame sent.
    pub reliable: Vec<AtomicU64>,
    /// By publisher: number of the last delta sent.
    pub deltas: Vec<AtomicU64>,
    /// By publisher: how many of them the server may not have taken.
    pub deltas_refused: Vec<AtomicU64>,
    /// By publisher: the last reliable frame that the room's witness has.
    pub witnessed: Vec<AtomicU64>,
    /// Deliveries so far, for the progress line.
    pub delivered: AtomicU64,
    log: Mutex<Log>,
}

/// Rare things.
#[derive(Default, Debug)]
pub struct Log {
    /// Reliable frames that the server refused.
    pub refused: BTreeSet<(u32, u64)>,
    /// How often each close code was seen; 1006 = none was sent.
    pub closes: BTreeMap<u16, u64>,
    /// Errors by text.
    pub errors: BTreeMap<String, u64>,
    /// Why the run cannot go on.
    pub fatal: Option<String>,
}

impl Shared {
    /// The state of a run that begins now.
    #[must_use]
    pub fn new(options: Options) -> Self {
        let counters = |n: usize| (0..n).map(|_| AtomicU64::new(0)).collect::<Vec<_>>();
        Self {
            epoch: Instant::now(),
            phase: AtomicU8::new(0),
            allowed: AtomicUsize::new(0),
            ready: AtomicUsize::new(0),
            measure_from: AtomicU64::new(u64::MAX),
            measure_to: AtomicU64::new(u64::MAX),
            draining: AtomicUsize::new(0),
            pending: (0..options.threads).map(|_| AtomicUsize::new(usize::MAX)).collect(),
            reliable: counters(options.publishers),
            deltas: counters(options.publishers),
            deltas_refused: counters(options.publishers),
            witnessed: counters(options.publishers),
            delivered: AtomicU64::new(0),
            log: Mutex::new(Log::default()),
            options,
        }
    }

    /// ns since the run's begin.
    #[must_use]
    #[inline]
    pub fn now(&self) -> u64 {
        self.epoch.elapsed().as_nanos() as u64
    }

    /// Where the run is.
    #[must_use]
    pub fn phase(&self) -> Phase {
        Phase::ALL[usize::from(self.phase.load(Ordering::Acquire))]
    }

    /// Moves the run on; main thread only.
    pub fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Release);
    }

    /// The rare things.
    pub fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the run for a reason.
    pub fn fail(&self, reason: String) {
        self.log().fatal.get_or_insert(reason);
    }

    /// What publishers have sent.
    #[must_use]
    pub fn sent(&self) -> Sent {
        let read = |counters: &[AtomicU64]| counters.iter().map(|count| count.load(Ordering::Acquire)).collect();
        Sent {
            reliable: read(&self.reliable),
            deltas: read(&self.deltas),
            deltas_refused: read(&self.deltas_refused),
            refused: self.log().refused.clone(),
        }
    }
}

/// What a thread has measured.
#[derive(Debug)]
pub struct Measured {
    /// Reliable frames of members that read, or echoes: time under way, ns.
    pub reliable_ns: Histogram<u64>,
    /// Deltas of members that read.
    pub delta_ns: Histogram<u64>,
    /// Reliable frames of stalled members.
    pub stalled_ns: Histogram<u64>,
    /// Deltas of stalled members.
    pub stalled_delta_ns: Histogram<u64>,
    /// From connect to live.
    pub connect_ns: Histogram<u64>,
    /// Messages received in the window.
    pub deliveries: u64,
    /// Wire bytes received in the window.
    pub bytes: u64,
    /// Messages of the window's stalled members, contained in `deliveries`.
    pub stalled_deliveries: u64,
    /// Acknowledgements that never came.
    pub unacknowledged: u64,
    /// Connections that resumed.
    pub resumed: u64,
    /// All members' checks added up.
    pub tally: Tally,
}

impl Measured {
    /// Nothing yet.
    #[must_use]
    pub fn new() -> Self {
        let histogram =
            || Histogram::new_with_bounds(1_000, 600_000_000_000, 3).expect("the bounds are ascending and above 0");
        Self {
            reliable_ns: histogram(),
            delta_ns: histogram(),
            stalled_ns: histogram(),
            stalled_delta_ns: histogram(),
            connect_ns: histogram(),
            deliveries: 0,
            bytes: 0,
            stalled_deliveries: 0,
            unacknowledged: 0,
            resumed: 0,
            tally: Tally::default(),
        }
    }

    /// Adds another thread's.
    pub fn add(&mut self, other: &Self) {
        for (mine, theirs) in [
            (&mut self.reliable_ns, &other.reliable_ns),
            (&mut self.delta_ns, &other.delta_ns),
            (&mut self.stalled_ns, &other.stalled_ns),
            (&mut self.stalled_delta_ns, &other.stalled_delta_ns),
            (&mut self.connect_ns, &other.connect_ns),
        ] {
            mine.add(theirs).expect("all histograms have the same bounds");
        }
        self.deliveries += other.deliveries;
        self.bytes += other.bytes;
        self.stalled_deliveries += other.stalled_deliveries;
        self.unacknowledged += other.unacknowledged;
        self.resumed += other.resumed;
        self.tally.add(&other.tally);
    }
}

impl Default for Measured {
    fn default() -> Self {
        Self::new()
    }
}
