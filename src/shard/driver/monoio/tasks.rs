//! The tasks of the portable driver: one per connection, one that accepts, two that listen to doorbell and one-shot
//! set, and one whose only purpose is to be queued.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::io;
use std::net::TcpStream;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};

use monoio::io::IntoPollIo;
use monoio::net::tcp::stream_poll::TcpStreamPoll;
use tokio::io::{AsyncRead, ReadBuf};

use super::{
    ACCEPTOR, ACCEPTS_PER_TURN, BELL, BUFFER_BYTES, BUFFERS_PER_TURN, CLOSING, ENDED, PAUSED, Shared, WATCHED, WATCHER,
};
use crate::id::ConnKey;
use crate::shard::driver::{ACCEPT_RETRY, Completion, Lease, is_passing, syscall};

type Common = Rc<RefCell<Shared>>;

/// Starts the standing tasks. Called inside the runtime.
pub(super) fn start(shared: &Common, bell: UnixStream, set: OwnedFd, listener: Option<OwnedFd>) -> io::Result<()> {
    monoio::spawn(tick(Rc::clone(shared)));
    monoio::spawn(hear(Rc::clone(shared), pollable(bell.into())?));
    monoio::spawn(watch(Rc::clone(shared), pollable(set)?));
    if let Some(listener) = listener {
        monoio::spawn(accept(Rc::clone(shared), pollable(listener)?));
    }
    Ok(())
}

/// Any descriptor that epoll takes, in the runtime's clothes: only its readiness is used.
fn pollable(fd: OwnedFd) -> io::Result<monoio::net::TcpStream> {
    monoio::net::TcpStream::from_std(TcpStream::from(fd))
}

/// Starts the task of a connection. Called inside the runtime.
pub(super) fn serve(shared: &Common, conn: ConnKey, socket: TcpStream) {
    let registered = monoio::net::TcpStream::from_std(socket).and_then(IntoPollIo::into_poll_io);
    let stream = match registered {
        Ok(stream) => Some(stream),
        Err(error) => {
            let mut shared = shared.borrow_mut();
            let slot = &mut shared.slots[conn.slot as usize];
            slot.state |= ENDED;
            // The socket is closed; the slot is taken until the shard closes it.
            slot.fd = UNREGISTERED_FD;
            shared.report(Completion::Failed { conn, kind: error.kind() });
            None
        }
    };
    monoio::spawn(Connection { shared: Rc::clone(shared), conn, stream });
}

/// Reads while the slot says so; ends when it is closing.
struct Connection {
    shared: Common,
    conn: ConnKey,
    stream: Option<TcpStreamPoll>,
}

impl Future for Connection {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        let mut guard = this.shared.borrow_mut();
        let shared = &mut *guard;
        let slot = &mut shared.slots[this.conn.slot as usize];
        if slot.state & CLOSING != 0 {
            // Leaves the runtime's epoll and closes, in this order, before the slot is said to be free.
            this.stream = None;
            (slot.fd, slot.task) = (-1, None);
            shared.report(Completion::Closed { conn: this.conn });
            return Poll::Ready(());
        }
        if slot.task.is_none() {
            slot.task = Some(cx.waker().clone());
        }
        let Some(stream) = &mut this.stream else { return Poll::Pending };
        for _ in 0..BUFFERS_PER_TURN {
            if shared.slots[this.conn.slot as usize].state & (PAUSED | ENDED) != 0 {
                return Poll::Pending;
            }
            let Some(buffer) = shared.free.pop() else { break };
            match read(stream, cx, shared, this.conn, buffer) {
                Poll::Ready(completion) => shared.report(completion),
                Poll::Pending => return Poll::Pending,
            }
        }
        shared.again.push(cx.waker().clone());
        Poll::Pending
    }
}

/// One read into `buffer`, which is given back unless it comes to a lease.
fn read(
    stream: &mut TcpStreamPoll,
    cx: &mut Context<'_>,
    shared: &mut Shared,
    conn: ConnKey,
    buffer: u16,
) -> Poll<Completion<TcpStream>> {
    let start = usize::from(buffer) * BUFFER_BYTES;
    let mut room = ReadBuf::new(&mut shared.memory[start..start + BUFFER_BYTES]);
    let result = Pin::new(stream).poll_read(cx, &mut room);
    let len = room.filled().len() as u32;
    if let (Poll::Ready(Ok(())), 1..) = (&result, len) {
        shared.leased += 1;
        return Poll::Ready(Completion::Received { conn, lease: Lease { buffer: u32::from(buffer), len } });
    }
    shared.free.push(buffer);
    let end = match result {
        Poll::Pending => return Poll::Pending,
        Poll::Ready(Ok(())) => Completion::EndOfStream { conn },
        Poll::Ready(Err(error)) => Completion::Failed { conn, kind: error.kind() },
    };
    shared.slots[conn.slot as usize].state |= ENDED;
    Poll::Ready(end)
}

/// Accepts by the batch; rests when descriptors or memory have run out.
async fn accept(shared: Common, source: monoio::net::TcpStream) {
    let fd = source.as_raw_fd();
    while readable_or_stopped(&shared, &source, ACCEPTOR).await {
        let mut failed = false;
        for _ in 0..ACCEPTS_PER_TURN {
            match syscall::accept(fd) {
                Ok(socket) => {
                    // A peer that is gone already has no address; there is nobody to serve.
                    if let Ok(peer) = socket.peer_addr() {
                        shared.borrow_mut().report(Completion::Accepted { socket, peer });
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) if e.raw_os_error().is_some_and(is_passing) => {}
                Err(e) => {
                    shared.borrow_mut().report(Completion::AcceptFailed(e.kind()));
                    failed = true;
                    break;
                }
            }
        }
        if failed {
            monoio::time::sleep(ACCEPT_RETRY).await;
        } else {
            next_turn(&shared).await;
        }
    }
}

/// Whether the source is readable; false once the standing task `task` is to end.
async fn readable_or_stopped(shared: &Common, source: &monoio::net::TcpStream, task: usize) -> bool {
    let mut readable = pin!(source.readable(false));
    poll_fn(|cx| {
        let mut shared = shared.borrow_mut();
        if shared.stopped[task] {
            return Poll::Ready(false);
        }
        shared.standing[task] = Some(cx.waker().clone());
        drop(shared);
        readable.as_mut().poll(cx).map(|ready| ready.is_ok())
    })
    .await
}

/// Ready in the next turn.
async fn next_turn(shared: &Common) {
    let mut noted = false;
    poll_fn(|cx| {
        if noted {
            return Poll::Ready(());
        }
        noted = true;
        shared.borrow_mut().again.push(cx.waker().clone());
        Poll::Pending
    })
    .await;
}

/// Hears the doorbell and empties it.
async fn hear(shared: Common, bell: monoio::net::TcpStream) {
    let mut discard = [0; 256];
    while readable_or_stopped(&shared, &bell, BELL).await {
        while let Ok(1..) = syscall::recv(bell.as_raw_fd(), &mut discard) {}
        let mut shared = shared.borrow_mut();
        shared.rang = true;
        shared.wake_main();
    }
}

/// Reports room to send and hang-ups.
async fn watch(shared: Common, set: monoio::net::TcpStream) {
    let mut room = [syscall::Report { events: 0, u64: 0 }; 64];
    while readable_or_stopped(&shared, &set, WATCHER).await {
        let mut shared = shared.borrow_mut();
        let reports = shared.set.take(&mut room);
        for report in reports {
            let (events, data) = (report.events, report.u64);
            let conn = ConnKey { slot: data as u32, generation: (data >> 32) as u32 };
            report_watched(&mut shared, conn, events);
        }
    }
}

fn report_watched(shared: &mut Shared, conn: ConnKey, events: u32) {
    let Some(slot) = shared.open(conn) else { return };
    let has = |event: i32| events & event as u32 != 0;
    let broken = has(libc::EPOLLERR) || has(libc::EPOLLHUP);
    if slot.state & WATCHED != 0 && (broken || has(libc::EPOLLOUT)) {
        slot.state &= !WATCHED;
        shared.report(Completion::Writable { conn });
    }
    let slot = &mut shared.slots[conn.slot as usize];
    if slot.state & (PAUSED | ENDED) == PAUSED && (broken || has(libc::EPOLLRDHUP)) {
        slot.state |= ENDED;
        let end = match syscall::take_error(slot.fd) {
            Some(error) => Completion::Failed { conn, kind: error.kind() },
            None if broken => Completion::Failed { conn, kind: io::ErrorKind::ConnectionReset },
            None => Completion::EndOfStream { conn },
        };
        shared.report(end);
    }
    if shared.slots[conn.slot as usize].state & (WATCHED | PAUSED) != 0 {
        shared.watch(conn);
    }
}

/// Runs when it is woken and says so.
async fn tick(shared: Common) {
    poll_fn(|cx| {
        let mut shared = shared.borrow_mut();
        shared.ticked = true;
        shared.ticker = Some(cx.waker().clone());
        shared.wake_main();
        Poll::Pending
    })
    .await
}

/// No descriptor, but not free: system calls on it fail.
const UNREGISTERED_FD: i32 = i32::MAX;
