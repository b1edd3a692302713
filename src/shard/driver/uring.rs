//! The driver on io_uring: our own small reactor, no futures, no allocation per operation.
//!
//! Per connection at most three operations are armed: a receive (multishot), a poll for room to send, a poll for the
//! hang-up of a paused one. Invariants: a descriptor is closed when nothing is armed on it, and a slot is free then
//! and not before; `user_data` names operation, generation and slot, and what names a former life is ignored; every
//! buffer is the kernel's, or leased to the shard between two waits. It never acts inside the reaping loop.

mod buffers;
mod probe;
mod ring;

use std::fs::File;
use std::io::{self, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use self::ring::{Cqe, MAIN, MAIN_BUFFERS, RESERVE, Ring};
use super::{Completion, Driver, Lease, Outcome, SendBatch, Wait, Wake, syscall};
use crate::id::{ConnKey, NodeId};
use crate::time::{Monotonic, WallMillis};

pub use self::probe::{ProbeError, probe};

/// What a driver is built from.
#[derive(Default)]
pub struct UringConfig {
    /// A listener of [`syscall::listen`]; without one nothing is accepted.
    pub listener: Option<OwnedFd>,
}

/// See the module. Build it on the thread that will call it: the ring belongs to one thread.
pub struct UringDriver {
    ring: Ring,
    slots: Vec<Slot>,
    listener: Listener,
    bell: Arc<Eventfd>,
    bell_armed: bool,
    bell_rang: bool,
    wakers: Vec<Arc<dyn Wake>>,
    entropy: syscall::Entropy,
    reaped: Vec<Cqe>,
    /// Slots whose socket was closed with nothing armed; reported by the next wait.
    closed: Vec<ConnKey>,
    /// Leases that are out.
    leased: u32,
}

/// One slot. The socket is there from `attach` until `Closed`.
#[derive(Default)]
struct Slot {
    socket: Option<TcpStream>,
    generation: u32,
    /// Operations in the kernel whose last completion has not come.
    armed: u8,
    /// `PAUSED`, `ENDED`, `CLOSING`.
    state: u8,
}

#[derive(Default)]
struct Listener {
    fd: Option<OwnedFd>,
    armed: bool,
    stopping: bool,
    /// After a failure for want of descriptors or memory: when to try again.
    retry_at: Option<Monotonic>,
}

/// A doorbell that a ring can poll: writes are counted by nobody, they only wake.
struct Eventfd(File);

impl Wake for Eventfd {
    fn wake(&self) {
        // Full (2^64 - 2 rings) cannot happen, and then it is readable anyway.
        let _ = (&self.0).write(&1u64.to_ne_bytes());
    }
}

impl UringDriver {
    /// Sets up ring, buffers and doorbell.
    ///
    /// # Errors
    /// As [`probe`]'s, in the text.
    pub fn new(config: UringConfig) -> io::Result<Self> {
        let ring = Ring::build().map_err(|(step, source)| {
            let error = ProbeError { step, source };
            io::Error::new(error.source.kind(), error.to_string())
        })?;
        Ok(Self {
            ring,
            slots: Vec::new(),
            listener: Listener { fd: config.listener, ..Listener::default() },
            bell: Arc::new(Eventfd(syscall::eventfd()?)),
            bell_armed: false,
            bell_rang: false,
            wakers: Vec::new(),
            entropy: syscall::Entropy::default(),
            reaped: Vec::new(),
            closed: Vec::new(),
            leased: 0,
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

    /// The open slot of a connection, unless it is closing or gone.
    fn open(&mut self, conn: ConnKey) -> Option<&mut Slot> {
        let slot = self.slots.get_mut(conn.slot as usize)?;
        let open = slot.socket.is_some() && slot.generation == conn.generation && slot.state & CLOSING == 0;
        open.then_some(slot)
    }

    /// Arms `operation` on the connection unless it is armed.
    fn arm(&mut self, conn: ConnKey, operation: u8, how: Arm) {
        let slot = &mut self.slots[conn.slot as usize];
        let Some(socket) = &slot.socket else { return };
        if slot.armed & operation != 0 {
            return;
        }
        slot.armed |= operation;
        let (fd, user_data) = (socket.as_raw_fd(), tag(operation, conn));
        match how {
            Arm::Receive { poll_first } => self.ring.receive(fd, poll_first, user_data),
            Arm::ReceiveReserved => {
                slot.armed |= RESERVED;
                self.ring.receive_reserved(fd, tag(RECEIVE | RESERVED, conn));
            }
            Arm::Poll(events) => self.ring.poll(fd, events, false, user_data),
        }
    }

    /// Cancels an armed operation of the connection; its last completion is still to come.
    fn cancel(&mut self, conn: ConnKey, operation: u8) {
        let reserved = if operation == RECEIVE { self.slots[conn.slot as usize].armed & RESERVED } else { 0 };
        self.ring.cancel(tag(operation | reserved, conn), tag(CANCEL, conn));
    }

    /// Arms what the connection's state wants and closes it when it is closing and nothing is armed.
    fn settle(&mut self, conn: ConnKey) {
        let slot = &mut self.slots[conn.slot as usize];
        if slot.state & CLOSING != 0 {
            if slot.armed == 0 && slot.socket.take().is_some() {
                self.closed.push(conn);
                if self.listener.retry_at.is_some() {
                    self.listener.retry_at = Some(Monotonic::ZERO);
                }
            }
        } else if slot.state & (ENDED | PAUSED) == PAUSED {
            self.arm(conn, HANGUP, Arm::Poll(HANGUP_EVENTS));
        } else if slot.state & ENDED == 0 {
            self.arm(conn, RECEIVE, Arm::Receive { poll_first: false });
        }
    }

    fn arm_standing(&mut self) {
        if !self.bell_armed {
            self.bell_armed = true;
            self.ring.poll(self.bell.0.as_raw_fd(), libc::POLLIN, true, standing(BELL));
        }
        let Some(fd) = &self.listener.fd else { return };
        if self.listener.armed || self.listener.stopping {
            return;
        }
        if self.listener.retry_at.is_none_or(|at| at <= syscall::monotonic()) {
            self.listener.retry_at = None;
            self.listener.armed = true;
            self.ring.accept(fd.as_raw_fd(), standing(ACCEPT));
        }
    }

    /// One enter that takes what is there, and at most waits `timeout` for the first.
    fn enter(&mut self, timeout: Option<Option<Duration>>) {
        match timeout {
            None if self.ring.has_deferred() => self.ring.submit_and_wait(self.want(), Some(Duration::ZERO)),
            None if self.ring.needs_enter() => self.ring.submit_and_wait(0, None),
            None => {}
            Some(timeout) => {
                self.ring.submit_and_wait(1, timeout);
                self.ring.reap(&mut self.reaped);
                if self.ring.has_deferred() {
                    self.ring.submit_and_wait(self.want(), Some(Duration::ZERO));
                }
            }
        }
        self.ring.reap(&mut self.reaped);
        while self.ring.overflowed() {
            self.ring.submit_and_wait(0, None);
            self.ring.reap(&mut self.reaped);
        }
    }

    /// How many completions one enter may run: not so many that receives outrun the buffers, those counted that were
    /// reaped and not yet acted on.
    fn want(&self) -> u32 {
        let free = usize::from(self.ring.groups[usize::from(MAIN)].free());
        free.saturating_sub(usize::from(BUFFER_MARGIN) + self.reaped.len()).max(1) as u32
    }

    /// Turns what was reaped into completions and arms again what ended.
    fn act(&mut self, out: &mut Vec<Completion<TcpStream>>) {
        let reaped = std::mem::take(&mut self.reaped);
        for cqe in &reaped {
            let (operation, conn) = untag(cqe.user_data);
            match operation {
                ACCEPT => self.accepted(*cqe, out),
                BELL => {
                    self.bell_rang = true;
                    self.bell_armed = cqe.more();
                }
                RECEIVE | RECEIVE_RESERVED => self.received(*cqe, conn, out),
                HANGUP => self.hung_up(*cqe, conn, out),
                WRITABLE => self.became_writable(*cqe, conn, out),
                _ => {}
            }
        }
        self.reaped = reaped;
        self.reaped.clear();
        out.extend(self.closed.drain(..).map(|conn| Completion::Closed { conn }));
    }

    fn accepted(&mut self, cqe: Cqe, out: &mut Vec<Completion<TcpStream>>) {
        if !cqe.more() {
            self.listener.armed = false;
        }
        if cqe.result >= 0 {
            // SAFETY: the completion hands over a descriptor that was just opened for us.
            let socket = TcpStream::from(unsafe { OwnedFd::from_raw_fd(cqe.result) });
            // A peer that is gone already has no address; there is nobody to serve.
            if let Ok(peer) = socket.peer_addr() {
                out.push(Completion::Accepted { socket, peer });
            }
        } else if !self.listener.stopping && !super::is_passing(-cqe.result) {
            out.push(Completion::AcceptFailed(io::Error::from_raw_os_error(-cqe.result).kind()));
            self.listener.retry_at = Some(syscall::monotonic() + super::ACCEPT_RETRY);
        }
        if self.listener.stopping && !self.listener.armed {
            self.listener.fd = None;
        }
    }

    /// The slot that the completion is about, its operation noted as over if it is; `None` for a former life.
    fn concerned(&mut self, cqe: Cqe, conn: ConnKey, operation: u8) -> Option<&mut Slot> {
        let slot = self.slots.get_mut(conn.slot as usize)?;
        if slot.socket.is_none() || slot.generation != conn.generation {
            return None;
        }
        if !cqe.more() {
            slot.armed &= !operation;
            debug_assert!(slot.armed & !ARMED_BITS == 0);
        }
        Some(slot)
    }

    fn received(&mut self, cqe: Cqe, conn: ConnKey, out: &mut Vec<Completion<TcpStream>>) {
        let lease = self.leased(cqe);
        let Some(slot) = self.concerned(cqe, conn, RECEIVE | RESERVED) else {
            lease.into_iter().for_each(|lease| self.release(lease));
            return;
        };
        let open = slot.state & (CLOSING | ENDED) == 0;
        match cqe.result {
            1.. if open => out.extend(lease.map(|lease| Completion::Received { conn, lease })),
            0 if open => {
                slot.state |= ENDED;
                out.push(Completion::EndOfStream { conn });
                lease.into_iter().for_each(|lease| self.release(lease));
            }
            error if open => {
                lease.into_iter().for_each(|lease| self.release(lease));
                if -error == libc::ENOBUFS {
                    return self.starved(conn);
                }
                if !super::is_passing(-error) {
                    self.slots[conn.slot as usize].state |= ENDED;
                    let kind = io::Error::from_raw_os_error(-error).kind();
                    out.push(Completion::Failed { conn, kind });
                }
            }
            _ => lease.into_iter().for_each(|lease| self.release(lease)),
        }
        if !cqe.more() {
            self.settle(conn);
        }
    }

    /// No buffer was left: take turns on the reserve, unless reading paused meanwhile.
    fn starved(&mut self, conn: ConnKey) {
        if self.slots[conn.slot as usize].state & PAUSED != 0 {
            self.settle(conn);
        } else if self.ring.groups[usize::from(RESERVE)].free() > 0 {
            self.arm(conn, RECEIVE, Arm::ReceiveReserved);
        } else {
            self.arm(conn, RECEIVE, Arm::Receive { poll_first: true });
        }
    }

    /// The lease that a receive's completion brings, if it took a buffer.
    fn leased(&mut self, cqe: Cqe) -> Option<Lease> {
        let buffer = cqe.buffer()?;
        // Both groups number their buffers from 0; the user data says which of them was asked.
        let group = usize::from((cqe.user_data >> 56) as u8 & RESERVED != 0);
        self.ring.groups[group].taken();
        self.leased += 1;
        let base = if group == usize::from(MAIN) { 0 } else { u32::from(MAIN_BUFFERS) };
        Some(Lease { buffer: base + u32::from(buffer), len: u32::try_from(cqe.result).unwrap_or(0) })
    }

    fn hung_up(&mut self, cqe: Cqe, conn: ConnKey, out: &mut Vec<Completion<TcpStream>>) {
        let Some(slot) = self.concerned(cqe, conn, HANGUP) else { return };
        let broken = cqe.result & i32::from(libc::POLLERR | libc::POLLHUP) != 0;
        // A connection that reads again learns of the hang-up by reading.
        if cqe.result > 0 && slot.state == PAUSED {
            slot.state |= ENDED;
            let error = slot.socket.as_ref().and_then(|s| s.take_error().ok().flatten());
            out.push(match error {
                Some(error) => Completion::Failed { conn, kind: error.kind() },
                None if broken => Completion::Failed { conn, kind: io::ErrorKind::ConnectionReset },
                None => Completion::EndOfStream { conn },
            });
        }
        self.settle(conn);
    }

    fn became_writable(&mut self, cqe: Cqe, conn: ConnKey, out: &mut Vec<Completion<TcpStream>>) {
        let Some(slot) = self.concerned(cqe, conn, WRITABLE) else { return };
        if slot.state & CLOSING != 0 {
            self.settle(conn);
        } else {
            out.push(Completion::Writable { conn });
        }
    }

    /// Sends `entries` of the batch in one enter.
    fn flush_chunk(&mut self, batch: &mut SendBatch, entries: std::ops::Range<usize>) {
        for index in entries {
            let (conn, bytes) = batch.entry(index);
            let Some(fd) = self.open(conn).and_then(|slot| slot.socket.as_ref()).map(AsRawFd::as_raw_fd) else {
                batch.set_outcome(index, Outcome::Error(io::ErrorKind::NotConnected));
                continue;
            };
            // SAFETY: the batch is borrowed until `submit` below has returned, and nothing in it moves: outcomes are
            // set in place. There is room for the chunk, so no earlier submit splits it either.
            unsafe { self.ring.send(fd, bytes, u64::from(SEND) << 56 | index as u64) };
            batch.set_outcome(index, Outcome::Sent);
        }
        self.ring.submit();
        let from = self.reaped.len();
        self.ring.reap(&mut self.reaped);
        while self.ring.overflowed() {
            self.ring.submit_and_wait(0, None);
            self.ring.reap(&mut self.reaped);
        }
        // The sends' completions are ours, all others wait for the next `wait`.
        let mut kept = from;
        for at in from..self.reaped.len() {
            let cqe = self.reaped[at];
            if cqe.user_data >> 56 == u64::from(SEND) {
                let index = (cqe.user_data & 0xffff_ffff) as usize;
                batch.set_outcome(index, outcome(cqe.result, batch.entry(index).1.len()));
            } else {
                self.reaped[kept] = cqe;
                kept += 1;
            }
        }
        self.reaped.truncate(kept);
    }
}

impl Driver for UringDriver {
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
        debug_assert_eq!(self.leased, 0, "every lease is given back before the next wait");
        let had = out.len();
        self.bell_rang = false;
        self.arm_standing();
        self.enter(None);
        self.act(out);
        let Wait::Until(deadline) = wait else { return };
        if out.len() > had || self.bell_rang || work_arrived() {
            return;
        }
        while out.len() == had && !self.bell_rang {
            self.arm_standing();
            let until = self.listener.retry_at.map_or(deadline, |at| at.min(deadline));
            let now = syscall::monotonic();
            if deadline <= now {
                return;
            }
            self.enter(Some((until != Monotonic::NEVER).then(|| until.since(now))));
            self.act(out);
        }
    }

    fn attach(&mut self, conn: ConnKey, socket: TcpStream) {
        debug_assert!(conn.generation <= ConnKey::GENERATION_MAX);
        let index = conn.slot as usize;
        if index >= self.slots.len() {
            self.slots.resize_with(index + 1, Slot::default);
        }
        debug_assert!(self.slots[index].socket.is_none(), "slot {index} is free");
        self.slots[index] = Slot { socket: Some(socket), generation: conn.generation, armed: 0, state: 0 };
        self.arm(conn, RECEIVE, Arm::Receive { poll_first: true });
    }

    fn refuse(&mut self, socket: TcpStream, response: &[u8]) {
        super::refuse(&socket, response);
    }

    fn stop_accepting(&mut self) {
        self.listener.stopping = true;
        self.listener.retry_at = None;
        if self.listener.armed {
            self.ring.cancel(standing(ACCEPT), standing(CANCEL));
        } else {
            self.listener.fd = None;
        }
    }

    fn bytes_mut(&mut self, lease: &Lease) -> &mut [u8] {
        let (group, buffer) = locate(lease);
        self.ring.groups[group].bytes_mut(buffer, lease.len)
    }

    fn release(&mut self, lease: Lease) {
        let (group, buffer) = locate(&lease);
        self.ring.groups[group].give(buffer);
        self.leased -= 1;
    }

    fn flush(&mut self, batch: &mut SendBatch) {
        let mut from = 0;
        while from < batch.len() {
            if self.ring.room() < FLUSH_CHUNK {
                self.ring.submit();
            }
            let to = batch.len().min(from + FLUSH_CHUNK);
            self.flush_chunk(batch, from..to);
            from = to;
        }
    }

    fn watch_writable(&mut self, conn: ConnKey) {
        if self.open(conn).is_some() {
            self.arm(conn, WRITABLE, Arm::Poll(libc::POLLOUT));
        }
    }

    fn pause_reads(&mut self, conn: ConnKey) {
        let Some(slot) = self.open(conn) else { return };
        if slot.state & PAUSED != 0 {
            return;
        }
        slot.state |= PAUSED;
        if slot.armed & RECEIVE != 0 {
            self.cancel(conn, RECEIVE);
        }
        self.settle(conn);
    }

    fn resume_reads(&mut self, conn: ConnKey) {
        let Some(slot) = self.open(conn) else { return };
        slot.state &= !PAUSED;
        if slot.armed & HANGUP != 0 {
            self.cancel(conn, HANGUP);
        }
        // If the receive's cancellation is under way, its last completion arms it again.
        self.settle(conn);
    }

    fn shutdown_write(&mut self, conn: ConnKey) {
        if let Some(socket) = self.open(conn).and_then(|slot| slot.socket.as_ref()) {
            // A broken connection says so by its receive.
            let _ = socket.shutdown(Shutdown::Write);
        }
    }

    fn close(&mut self, conn: ConnKey) {
        let Some(slot) = self.open(conn) else { return };
        slot.state |= CLOSING;
        if slot.armed != 0 {
            let fd = slot.socket.as_ref().map_or(-1, AsRawFd::as_raw_fd);
            self.ring.cancel_all(fd, tag(CANCEL, conn));
        }
        self.settle(conn);
    }

    fn wake(&mut self, peer: NodeId) {
        if let Some(waker) = self.wakers.get(peer.index()) {
            waker.wake();
        }
    }
}

/// What to arm.
enum Arm {
    Receive { poll_first: bool },
    ReceiveReserved,
    Poll(i16),
}

/// `user_data` of an operation on a connection: operation (8 bits), generation (24), slot (32).
fn tag(operation: u8, conn: ConnKey) -> u64 {
    u64::from(operation) << 56 | u64::from(conn.generation) << 32 | u64::from(conn.slot)
}

/// `user_data` of an operation that no connection has.
fn standing(operation: u8) -> u64 {
    u64::from(operation) << 56
}

fn untag(user_data: u64) -> (u8, ConnKey) {
    let generation = (user_data >> 32) as u32 & ConnKey::GENERATION_MAX;
    ((user_data >> 56) as u8, ConnKey { slot: user_data as u32, generation })
}

/// Group and buffer of a lease: the main group's buffers come first.
fn locate(lease: &Lease) -> (usize, u16) {
    let buffer = u16::try_from(lease.buffer).expect("a lease of this driver");
    if buffer < MAIN_BUFFERS { (usize::from(MAIN), buffer) } else { (usize::from(RESERVE), buffer - MAIN_BUFFERS) }
}

fn outcome(result: i32, asked: usize) -> Outcome {
    match usize::try_from(result) {
        Ok(taken) if taken >= asked => Outcome::Sent,
        Ok(taken) => Outcome::Short(taken),
        Err(_) if -result == libc::EAGAIN => Outcome::Short(0),
        Err(_) => Outcome::Error(io::Error::from_raw_os_error(-result).kind()),
    }
}

// Operations; the first three are also the bits of `Slot::armed`.
const RECEIVE: u8 = 1;
const HANGUP: u8 = 1 << 1;
const WRITABLE: u8 = 1 << 2;
/// With `RECEIVE`: a single one into the reserve.
const RESERVED: u8 = 1 << 7;
const RECEIVE_RESERVED: u8 = RECEIVE | RESERVED;
const ARMED_BITS: u8 = RECEIVE | HANGUP | WRITABLE | RESERVED;
const ACCEPT: u8 = 0x10;
const BELL: u8 = 0x11;
const CANCEL: u8 = 0x12;
const SEND: u8 = 0x13;

// Bits of `Slot::state`.
const PAUSED: u8 = 1;
/// The end of input was reported; nothing is received any more.
const ENDED: u8 = 1 << 1;
const CLOSING: u8 = 1 << 2;

const HANGUP_EVENTS: i16 = libc::POLLRDHUP | libc::POLLHUP | libc::POLLERR;
/// Sends per enter: with more, the first answers wait for the last.
const FLUSH_CHUNK: usize = 256;
/// Receive buffers left for completions beyond those asked for: one operation may bring several.
const BUFFER_MARGIN: u16 = 32;
