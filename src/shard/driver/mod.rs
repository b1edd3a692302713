//! The I/O driver: one shard's door to the kernel or to the simulated network.
//!
//! The law: within one turn the shard calls [`Driver::wait`] once, then acts on what came back, then [`Driver::flush`]
//! as often as it needs. A driver never decides anything about a connection; it moves bytes and says what happened.
//! Completions of a former life of a slot never reach the shard.

#[cfg(test)]
mod conformance;
pub mod monoio;
pub mod simulated;
pub mod syscall;
pub mod uring;

use std::io;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::time::Duration;

use crate::frame::Run;
use crate::id::{ConnKey, NodeId};
pub use crate::router::Wake;
use crate::time::{Monotonic, WallMillis};

/// What a shard needs of the world. `uring` and `monoio` implement it over sockets, `simulated` over a seeded model.
pub trait Driver {
    /// An accepted socket that is no connection yet.
    type Socket;

    /// The monotonic clock.
    fn now(&self) -> Monotonic;

    /// The wall clock.
    fn wall(&self) -> WallMillis;

    /// 64 random bits, fit for tokens and ids.
    fn random(&mut self) -> u64;

    /// Submits what is staged and collects completions, appending to `out`. `Wait::Until` blocks while there are none,
    /// at most to its instant; a doorbell rung since the last call ends it at once. Before blocking it calls
    /// `work_arrived`, which announces the sleep to the mesh and looks for work once more; if that says yes it does not
    /// block. All staged operations are submitted by then.
    fn wait(&mut self, wait: Wait, work_arrived: &mut dyn FnMut() -> bool, out: &mut Vec<Completion<Self::Socket>>);

    /// Whether the last `wait` is still going on: a driver that may not block its thread (the simulated one) returns
    /// where others would block. The turn then ends, and the next one calls `wait` again to come out of it.
    fn sleeps_on(&self) -> bool {
        false
    }

    /// Makes the socket the connection and arms its receive. `conn.slot` must be free in the driver, that is, never
    /// used or reported [`Completion::Closed`].
    fn attach(&mut self, conn: ConnKey, socket: Self::Socket);

    /// Sends `response` as far as the kernel takes it at once, then closes the socket without a reset where possible.
    fn refuse(&mut self, socket: Self::Socket, response: &[u8]);

    /// Whether new sockets are accepted; initially yes. Off for good at shutdown: the listener is closed.
    fn stop_accepting(&mut self);

    /// The received bytes of a lease.
    fn bytes_mut(&mut self, lease: &Lease) -> &mut [u8];

    /// Gives a lease back; every lease must be given back before the next `wait`.
    fn release(&mut self, lease: Lease);

    /// Sends every entry of the batch without blocking and fills in the outcomes. At most one entry per connection.
    /// Nothing of the batch is referred to after it returns.
    fn flush(&mut self, batch: &mut SendBatch);

    /// Reports [`Completion::Writable`] once, when the socket takes bytes again.
    fn watch_writable(&mut self, conn: ConnKey);

    /// Stops receiving; a hang-up is still reported (`Failed` or `EndOfStream`). Completions under way still arrive.
    fn pause_reads(&mut self, conn: ConnKey);

    /// Receives again.
    fn resume_reads(&mut self, conn: ConnKey);

    /// Ends the sending side (FIN behind what the kernel holds); input goes on.
    fn shutdown_write(&mut self, conn: ConnKey);

    /// Cancels what is armed and closes the socket once nothing is; then, and not before, [`Completion::Closed`] frees
    /// the slot. No other completion of the connection is reported after this call.
    fn close(&mut self, conn: ConnKey);

    /// Wakes another node of the mesh if it sleeps. Called at most once per target and turn, and only when the mesh
    /// says that the target sleeps.
    fn wake(&mut self, peer: NodeId);
}

/// How long [`Driver::wait`] may block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wait {
    /// Not at all: work is pending.
    Poll,
    /// Until a completion, a doorbell or the instant; `Monotonic::NEVER` = no deadline.
    Until(Monotonic),
}

/// What happened.
#[derive(Debug)]
pub enum Completion<S> {
    /// A client connected.
    Accepted {
        /// The socket; `attach` or `refuse` it.
        socket: S,
        /// Its address.
        peer: SocketAddr,
    },
    /// Accepting failed for want of descriptors or memory; the driver tries again by itself, without spinning.
    AcceptFailed(io::ErrorKind),
    /// Bytes arrived.
    Received {
        /// Which connection.
        conn: ConnKey,
        /// Where they are; 1 byte at least.
        lease: Lease,
    },
    /// The client sent FIN; nothing more arrives.
    EndOfStream {
        /// Which connection.
        conn: ConnKey,
    },
    /// The connection is broken (reset, timeout); `close` it.
    Failed {
        /// Which connection.
        conn: ConnKey,
        /// How.
        kind: io::ErrorKind,
    },
    /// See [`Driver::watch_writable`].
    Writable {
        /// Which connection.
        conn: ConnKey,
    },
    /// The socket is closed and the slot free.
    Closed {
        /// Which connection.
        conn: ConnKey,
    },
}

/// Received bytes in a driver's buffer. Not `Clone`: it is given back exactly once.
#[derive(PartialEq, Eq, Debug)]
#[must_use = "a lease must be released"]
pub struct Lease {
    /// The driver's buffer number.
    pub buffer: u32,
    /// How many bytes.
    pub len: u32,
}

/// One flush: what to send to whom. Reused, so that a flush allocates nothing at rest.
#[derive(Default, Debug)]
pub struct SendBatch {
    entries: Vec<SendEntry>,
    scratch: Vec<u8>,
}

/// One connection's share of a flush.
#[derive(Debug)]
pub struct SendEntry {
    /// The connection.
    pub conn: ConnKey,
    /// Filled in by the driver.
    pub outcome: Outcome,
    source: Source,
}

#[derive(Debug)]
enum Source {
    /// A run's bytes from `skip` on: nothing is copied.
    Shared { run: Run, skip: u32 },
    /// Bytes gathered in the batch's scratch.
    Gathered { start: u32, end: u32 },
}

/// What became of a send.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// The kernel took all bytes.
    Sent,
    /// The kernel took this many, fewer than asked, maybe 0; `watch_writable` and go on later.
    Short(usize),
    /// The connection is broken.
    Error(io::ErrorKind),
}

impl SendBatch {
    /// Sends a run's bytes from byte `skip` on, without a copy.
    pub fn push_run(&mut self, conn: ConnKey, run: Run, skip: usize) {
        debug_assert!(skip < run.byte_len());
        self.entries.push(SendEntry {
            conn,
            outcome: Outcome::Short(0),
            source: Source::Shared { run, skip: skip as u32 },
        });
    }

    /// Sends what `gather` appends to the scratch; nothing if it appends nothing.
    pub fn push_gathered(&mut self, conn: ConnKey, gather: impl FnOnce(&mut Vec<u8>)) {
        let start = self.scratch.len();
        gather(&mut self.scratch);
        let end = self.scratch.len();
        if end > start {
            let source = Source::Gathered { start: start as u32, end: end as u32 };
            self.entries.push(SendEntry { conn, outcome: Outcome::Short(0), source });
        }
    }

    /// How many sends.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is nothing to send.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Bytes gathered so far; the shard flushes before this grows large.
    #[must_use]
    pub fn gathered_bytes(&self) -> usize {
        self.scratch.len()
    }

    /// Connection and bytes of entry `index < len()`.
    #[must_use]
    pub fn entry(&self, index: usize) -> (ConnKey, &[u8]) {
        let entry = &self.entries[index];
        let bytes = match &entry.source {
            Source::Shared { run, skip } => &run.bytes()[*skip as usize..],
            Source::Gathered { start, end } => &self.scratch[*start as usize..*end as usize],
        };
        (entry.conn, bytes)
    }

    /// Records what became of entry `index < len()`.
    pub fn set_outcome(&mut self, index: usize, outcome: Outcome) {
        self.entries[index].outcome = outcome;
    }

    /// Connection, bytes asked for and outcome of each entry.
    pub fn outcomes(&self) -> impl Iterator<Item = (ConnKey, usize, Outcome)> {
        (0..self.entries.len()).map(|i| {
            let (conn, bytes) = self.entry(i);
            (conn, bytes.len(), self.entries[i].outcome)
        })
    }

    /// Forgets everything, keeps the memory.
    pub fn clear(&mut self) {
        self.entries.clear();
        self.scratch.clear();
    }
}

/// [`Driver::refuse`] over a TCP socket: unread input would turn the close into a reset, so what is there is read away.
fn refuse(socket: &TcpStream, response: &[u8]) {
    let mut discard = [0u8; 4096];
    // The client may be gone; then there is nobody to tell.
    if syscall::send(socket.as_raw_fd(), response).is_ok() && socket.shutdown(Shutdown::Write).is_ok() {
        for _ in 0..4 {
            if !matches!(syscall::recv(socket.as_raw_fd(), &mut discard), Ok(1..)) {
                break;
            }
        }
    }
}

/// Whether an error of accept or receive says nothing about the socket: interrupted, cancelled, not ready, or a client
/// that was gone before it was accepted.
fn is_passing(errno: i32) -> bool {
    matches!(errno, libc::EAGAIN | libc::EINTR | libc::ECANCELED | libc::ECONNABORTED)
}

/// How long accepting rests when descriptors or memory have run out.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);
