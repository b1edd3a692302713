//! The portable driver: monoio's epoll side, for hosts that refuse io_uring.
//!
//! A task per connection reads when the runtime says so, into buffers that it takes only then; sends are plain calls
//! of [`Driver::flush`]. The runtime turns inside [`Driver::wait`] and nowhere else, so nothing here wakes a task
//! between waits: it is noted and done at the start of the next one.
//!
//! monoio's readiness cannot be awaited beside unread input, nor for a hang-up alone. So the two rare conditions, room
//! to send and the hang-up of a paused connection, are watched by a one-shot epoll set that is one more descriptor of
//! the runtime. What reads too much in a turn, or finds no buffer, goes on in the next one, first come first served.

mod tasks;

use std::cell::RefCell;
use std::future::poll_fn;
use std::io::{self, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use monoio::time::{Instant, TimeDriver};
use monoio::{LegacyDriver, Runtime, RuntimeBuilder};

use super::{Completion, Driver, Lease, Outcome, SendBatch, Wait, Wake, syscall};
use crate::id::{ConnKey, NodeId};
use crate::time::{Monotonic, WallMillis};

/// What a driver is built from.
#[derive(Default)]
pub struct MonoioConfig {
    /// A listener of [`syscall::listen`]; without one nothing is accepted.
    pub listener: Option<OwnedFd>,
}

/// See the module.
pub struct MonoioDriver {
    runtime: Runtime<TimeDriver<LegacyDriver>>,
    shared: Rc<RefCell<Shared>>,
    /// The receive buffers; they are lent to the tasks during a wait.
    memory: Vec<u8>,
    bell: Arc<Bell>,
    wakers: Vec<Arc<dyn Wake>>,
    entropy: syscall::Entropy,
}

/// What driver and tasks share. Borrowed for moments only, never across an await.
struct Shared {
    slots: Vec<Slot>,
    out: Vec<Completion<TcpStream>>,
    memory: Vec<u8>,
    free: Vec<u16>,
    leased: u32,
    set: syscall::OneShotSet,
    rang: bool,
    /// The probing task of a turn that must not block ran.
    ticked: bool,
    /// Standing tasks that are to end, by `ACCEPTOR`, `BELL`, `WATCHER`.
    stopped: [bool; 3],
    /// Connections whose task is to be started in the next turn.
    attached: Vec<(ConnKey, TcpStream)>,
    /// Tasks to wake in the next turn.
    again: Vec<Waker>,
    /// The future that a wait blocks on.
    main: Option<Waker>,
    ticker: Option<Waker>,
    standing: [Option<Waker>; 3],
}

/// One slot; free while `fd` is negative.
struct Slot {
    fd: RawFd,
    generation: u32,
    /// `PAUSED`, `ENDED`, `CLOSING`, `WATCHED`.
    state: u8,
    task: Option<Waker>,
}

/// The ringing end of a socketpair; full means rung.
struct Bell(UnixStream);

impl Wake for Bell {
    fn wake(&self) {
        let _ = (&self.0).write(&[1]);
    }
}

impl MonoioDriver {
    /// Sets up the runtime, the doorbell and the tasks that accept and watch.
    ///
    /// # Errors
    /// Out of descriptors or memory.
    pub fn new(config: MonoioConfig) -> io::Result<Self> {
        let mut runtime = RuntimeBuilder::<LegacyDriver>::new().with_entries(EVENTS_PER_TURN).enable_timer().build()?;
        let (ring, heard) = UnixStream::pair()?;
        ring.set_nonblocking(true)?;
        heard.set_nonblocking(true)?;
        let shared = Rc::new(RefCell::new(Shared::new()?));
        let set = shared.borrow().set.as_fd().try_clone_to_owned()?;
        runtime.block_on(async { tasks::start(&shared, heard, set, config.listener) })?;
        Ok(Self {
            runtime,
            shared,
            memory: vec![0; usize::from(BUFFERS) * BUFFER_BYTES],
            bell: Arc::new(Bell(ring)),
            wakers: Vec::new(),
            entropy: syscall::Entropy::default(),
        })
    }

    /// This driver's doorbell.
    #[must_use]
    pub fn waker(&self) -> Arc<dyn Wake> {
        Arc::clone(&self.bell) as Arc<dyn Wake>
    }

    /// The doorbells of all nodes, by [`NodeId::index`].
    pub fn set_wakers(&mut self, wakers: Vec<Arc<dyn Wake>>) {
        self.wakers = wakers;
    }

    /// One turn of the runtime: with a deadline it blocks until something happened, without it does not block.
    fn turn(&mut self, deadline: Option<Monotonic>, out: &mut Vec<Completion<TcpStream>>) {
        {
            let mut shared = self.shared.borrow_mut();
            std::mem::swap(&mut shared.memory, &mut self.memory);
            std::mem::swap(&mut shared.out, out);
        }
        let shared = &self.shared;
        match deadline {
            None => self.runtime.block_on(probe(shared)),
            Some(Monotonic::NEVER) => self.runtime.block_on(happened(shared, out_len(shared))),
            Some(deadline) => {
                let span = deadline.since(syscall::monotonic());
                self.runtime.block_on(async {
                    let mut happened = std::pin::pin!(happened(shared, out_len(shared)));
                    let mut expired = std::pin::pin!(monoio::time::sleep_until(Instant::now() + span));
                    poll_fn(|cx| match happened.as_mut().poll(cx) {
                        Poll::Pending => expired.as_mut().poll(cx),
                        ready => ready,
                    })
                    .await;
                });
            }
        }
        let mut shared = self.shared.borrow_mut();
        std::mem::swap(&mut shared.memory, &mut self.memory);
        std::mem::swap(&mut shared.out, out);
    }
}

fn out_len(shared: &RefCell<Shared>) -> usize {
    shared.borrow().out.len()
}

/// Starts and wakes what was noted since the last turn, and is ready when every event that is there was acted on.
async fn probe(shared: &Rc<RefCell<Shared>>) {
    let (attached, again, ticker) = {
        let mut shared = shared.borrow_mut();
        let ticker = shared.ticker.take();
        shared.ticked = false;
        (std::mem::take(&mut shared.attached), std::mem::take(&mut shared.again), ticker)
    };
    for (conn, socket) in attached {
        tasks::serve(shared, conn, socket);
    }
    again.into_iter().for_each(Waker::wake);
    // A queued task makes the runtime ask epoll without waiting; this one is there to be queued.
    ticker.into_iter().for_each(Waker::wake);
    poll_fn(|cx| shared.borrow_mut().ready_if(cx, |shared| shared.ticked)).await;
}

/// Ready when there are more than `had` completions or the doorbell rang.
async fn happened(shared: &Rc<RefCell<Shared>>, had: usize) {
    poll_fn(|cx| shared.borrow_mut().ready_if(cx, |shared| shared.out.len() > had || shared.rang)).await;
}

impl Shared {
    fn new() -> io::Result<Self> {
        Ok(Self {
            slots: Vec::new(),
            out: Vec::new(),
            memory: Vec::new(),
            free: (0..BUFFERS).rev().collect(),
            leased: 0,
            set: syscall::OneShotSet::new()?,
            rang: false,
            ticked: false,
            stopped: [false; 3],
            attached: Vec::new(),
            again: Vec::new(),
            main: None,
            ticker: None,
            standing: [None, None, None],
        })
    }

    fn ready_if(&mut self, cx: &mut Context<'_>, done: impl Fn(&Self) -> bool) -> Poll<()> {
        if done(self) {
            return Poll::Ready(());
        }
        self.main = Some(cx.waker().clone());
        Poll::Pending
    }

    fn report(&mut self, completion: Completion<TcpStream>) {
        self.out.push(completion);
        self.wake_main();
    }

    fn wake_main(&mut self) {
        if let Some(main) = self.main.take() {
            main.wake();
        }
    }

    /// The open slot of a connection, unless it is closing or gone.
    fn open(&mut self, conn: ConnKey) -> Option<&mut Slot> {
        let slot = self.slots.get_mut(conn.slot as usize)?;
        (slot.fd >= 0 && slot.generation == conn.generation && slot.state & CLOSING == 0).then_some(slot)
    }

    /// Lets the connection's task look at its slot in the next turn; one that is not started will do so anyway.
    fn wake_task(&mut self, conn: ConnKey) {
        if let Some(waker) = &self.slots[conn.slot as usize].task {
            self.again.push(waker.clone());
        }
    }

    /// Ends a standing task in the next turn.
    fn stop(&mut self, task: usize) {
        self.stopped[task] = true;
        let waker = self.standing[task].take();
        self.again.extend(waker);
    }

    /// Brings the one-shot set in line with what the connection waits for.
    fn watch(&mut self, conn: ConnKey) {
        let slot = &self.slots[conn.slot as usize];
        let mut events = 0;
        if slot.state & WATCHED != 0 {
            events |= libc::EPOLLOUT;
        }
        if slot.state & (PAUSED | ENDED) == PAUSED {
            events |= libc::EPOLLRDHUP;
        }
        if events == 0 {
            return self.set.forget(slot.fd);
        }
        let data = u64::from(conn.generation) << 32 | u64::from(conn.slot);
        if let Err(error) = self.set.watch(slot.fd, events as u32, data) {
            // Unwatched it would wait for ever.
            self.slots[conn.slot as usize].state |= ENDED;
            self.report(Completion::Failed { conn, kind: error.kind() });
        }
    }
}

impl Driver for MonoioDriver {
    type Socket = TcpStream;

    fn now(&self) -> Monotonic {
        syscall::monotonic()
    }

    fn wall(&self) -> WallMillis {
        syscall::wall()
    }

    fn random(&mut self) -> u64 {
        self.entropy.next_u64()
    }

    fn wait(&mut self, wait: Wait, work_arrived: &mut dyn FnMut() -> bool, out: &mut Vec<Completion<TcpStream>>) {
        let before = out.len();
        let noted = {
            let mut shared = self.shared.borrow_mut();
            debug_assert_eq!(shared.leased, 0, "every lease is given back before the next wait");
            shared.rang = false;
            out.append(&mut shared.out);
            !shared.attached.is_empty() || !shared.again.is_empty()
        };
        let had = out.len();
        let Wait::Until(deadline) = wait else { return self.turn(None, out) };
        if noted {
            self.turn(None, out);
            if out.len() > had || self.shared.borrow().rang {
                return;
            }
        }
        // What is noted by now was noted by the turn above, for want of buffers or of time.
        let busy = had > before || !self.shared.borrow().again.is_empty();
        if busy || work_arrived() || deadline <= syscall::monotonic() {
            return self.turn(None, out);
        }
        // monoio's timers count milliseconds, and its first one may be short.
        while out.len() == had && !self.shared.borrow().rang && syscall::monotonic() < deadline {
            self.turn(Some(deadline), out);
        }
    }

    fn attach(&mut self, conn: ConnKey, socket: TcpStream) {
        debug_assert!(conn.generation <= ConnKey::GENERATION_MAX);
        let mut shared = self.shared.borrow_mut();
        let index = conn.slot as usize;
        if index >= shared.slots.len() {
            shared.slots.resize_with(index + 1, || Slot { fd: -1, generation: 0, state: 0, task: None });
        }
        debug_assert!(shared.slots[index].fd < 0, "slot {index} is free");
        shared.slots[index] = Slot { fd: socket.as_raw_fd(), generation: conn.generation, state: 0, task: None };
        shared.attached.push((conn, socket));
    }

    fn refuse(&mut self, socket: TcpStream, response: &[u8]) {
        super::refuse(&socket, response);
    }

    fn stop_accepting(&mut self) {
        self.shared.borrow_mut().stop(ACCEPTOR);
    }

    fn bytes_mut(&mut self, lease: &Lease) -> &mut [u8] {
        let start = lease.buffer as usize * BUFFER_BYTES;
        &mut self.memory[start..start + lease.len as usize]
    }

    fn release(&mut self, lease: Lease) {
        let mut shared = self.shared.borrow_mut();
        shared.free.push(u16::try_from(lease.buffer).expect("a lease of this driver"));
        shared.leased -= 1;
    }

    fn flush(&mut self, batch: &mut SendBatch) {
        let mut shared = self.shared.borrow_mut();
        for index in 0..batch.len() {
            let (conn, bytes) = batch.entry(index);
            let outcome = match shared.open(conn) {
                Some(slot) => send_all(slot.fd, bytes),
                None => Outcome::Error(io::ErrorKind::NotConnected),
            };
            batch.set_outcome(index, outcome);
        }
    }

    fn watch_writable(&mut self, conn: ConnKey) {
        let mut shared = self.shared.borrow_mut();
        if let Some(slot) = shared.open(conn) {
            slot.state |= WATCHED;
            shared.watch(conn);
        }
    }

    fn pause_reads(&mut self, conn: ConnKey) {
        let mut shared = self.shared.borrow_mut();
        if let Some(slot) = shared.open(conn) {
            slot.state |= PAUSED;
            shared.watch(conn);
        }
    }

    fn resume_reads(&mut self, conn: ConnKey) {
        let mut shared = self.shared.borrow_mut();
        if let Some(slot) = shared.open(conn) {
            slot.state &= !PAUSED;
            shared.watch(conn);
            shared.wake_task(conn);
        }
    }

    fn shutdown_write(&mut self, conn: ConnKey) {
        if let Some(slot) = self.shared.borrow_mut().open(conn) {
            // A broken connection says so by its receive.
            let _ = syscall::shutdown_write(slot.fd);
        }
    }

    fn close(&mut self, conn: ConnKey) {
        let mut shared = self.shared.borrow_mut();
        if let Some(slot) = shared.open(conn) {
            slot.state |= CLOSING;
            shared.wake_task(conn);
        }
    }

    fn wake(&mut self, peer: NodeId) {
        if let Some(waker) = self.wakers.get(peer.index()) {
            waker.wake();
        }
    }
}

impl Drop for MonoioDriver {
    /// Ends the tasks, which hold what they share with us, and us by their wakers.
    fn drop(&mut self) {
        {
            let mut shared = self.shared.borrow_mut();
            [ACCEPTOR, BELL, WATCHER].into_iter().for_each(|task| shared.stop(task));
            for slot in &mut shared.slots {
                slot.state |= CLOSING;
            }
            let tasks: Vec<Waker> = shared.slots.iter().filter_map(|slot| slot.task.clone()).collect();
            shared.again.extend(tasks);
        }
        for _ in 0..DROP_TURNS {
            self.turn(None, &mut Vec::new());
        }
        let mut shared = self.shared.borrow_mut();
        let wakers = (shared.ticker.take(), std::mem::take(&mut shared.standing), shared.main.take());
        let again = (std::mem::take(&mut shared.again), std::mem::take(&mut shared.slots));
        drop(shared);
        drop((wakers, again));
    }
}

/// Sends until all is taken or nothing more is.
fn send_all(fd: RawFd, bytes: &[u8]) -> Outcome {
    let mut sent = 0;
    while sent < bytes.len() {
        match syscall::send(fd, &bytes[sent..]) {
            Ok(taken) => sent += taken,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Outcome::Short(sent),
            Err(e) => return Outcome::Error(e.kind()),
        }
    }
    Outcome::Sent
}

// Standing tasks.
const ACCEPTOR: usize = 0;
const BELL: usize = 1;
const WATCHER: usize = 2;

// Bits of `Slot::state`.
const PAUSED: u8 = 1;
/// The end of input was reported; nothing is received any more.
const ENDED: u8 = 1 << 1;
const CLOSING: u8 = 1 << 2;
/// `Writable` is to be reported.
const WATCHED: u8 = 1 << 3;

/// Receive buffers: 1 MiB together, which fits in L2.
const BUFFERS: u16 = 256;
const BUFFER_BYTES: usize = 4096;
/// Buffers that one connection may fill per turn.
const BUFFERS_PER_TURN: u32 = 4;
/// Connections accepted per turn.
const ACCEPTS_PER_TURN: u32 = 256;
const EVENTS_PER_TURN: u32 = 1024;
/// A task that was not started needs two turns to end.
const DROP_TURNS: usize = 2;
