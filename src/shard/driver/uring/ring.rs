//! One io_uring with its receive buffers: staging, entering, reaping. io_uring(7).
//!
//! Invariants: an entry that points at memory ([`Ring::send`]) is only staged by a caller who enters before the memory
//! goes away; everything else the kernel may touch is owned here and given up in `Drop`. It knows no connections.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

use io_uring::squeue::{Entry, Flags};
use io_uring::types::{CancelBuilder, Fd};
use io_uring::{IoUring, cqueue, opcode};

use super::buffers::BufferGroup;

/// What a completion says, copied out of the queue.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cqe {
    pub(super) user_data: u64,
    pub(super) result: i32,
    flags: u32,
}

impl Cqe {
    /// Whether the operation goes on; if not, it must be armed again.
    pub(super) fn more(self) -> bool {
        cqueue::more(self.flags)
    }

    /// The buffer it took, if any.
    pub(super) fn buffer(self) -> Option<u16> {
        cqueue::buffer_select(self.flags)
    }
}

/// See the module.
pub(super) struct Ring {
    io: IoUring,
    enter_fd: RawFd,
    enter_flags: u32,
    /// The working set, and the small group that only single receives after ENOBUFS take from.
    pub(super) groups: [BufferGroup; 2],
}

/// Group of multishot receives.
pub(super) const MAIN: u16 = 0;
/// Group of receives after ENOBUFS.
pub(super) const RESERVE: u16 = 1;

impl Ring {
    /// Builds the ring and its buffers; it belongs to the calling thread from then on (`SINGLE_ISSUER`).
    ///
    /// # Errors
    /// With the step's name: refused (EPERM), unknown (ENOSYS, EINVAL), out of locked memory (ENOMEM).
    pub(super) fn build() -> Result<Self, (&'static str, io::Error)> {
        let io = build_io().map_err(|e| ("io_uring_setup", e))?;
        let (enter_fd, registered) = register_fd(&io);
        let mut enter_flags = registered;
        if io.params().is_feature_no_iowait() {
            enter_flags |= ENTER_NO_IOWAIT;
        }
        let main = BufferGroup::register(&io, MAIN, MAIN_BUFFERS, BUFFER_BYTES).map_err(|e| ("buffer ring", e))?;
        let mut groups = [
            main,
            match BufferGroup::register(&io, RESERVE, RESERVE_BUFFERS, BUFFER_BYTES) {
                Ok(reserve) => reserve,
                Err(e) => return Err(("second buffer ring", e)),
            },
        ];
        debug_assert_eq!(groups[0].bytes_mut(0, 0).len(), 0);
        Ok(Self { io, enter_fd, enter_flags, groups })
    }

    /// Stages a multishot accept: one completion per socket, `SOCK_NONBLOCK | SOCK_CLOEXEC`.
    pub(super) fn accept(&mut self, listener: RawFd, user_data: u64) {
        let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        self.push(opcode::AcceptMulti::new(Fd(listener)).flags(flags).build().user_data(user_data));
    }

    /// Stages a multishot receive into the main group. `poll_first` skips the attempt to receive at once: for sockets
    /// that are likely to have nothing yet.
    pub(super) fn receive(&mut self, socket: RawFd, poll_first: bool, user_data: u64) {
        let entry = opcode::RecvMulti::new(Fd(socket), MAIN).build().user_data(user_data);
        self.push(if poll_first { with_poll_first(entry) } else { entry });
    }

    /// Stages one receive into the reserve, polling first so that buffers given back meanwhile are seen.
    pub(super) fn receive_reserved(&mut self, socket: RawFd, user_data: u64) {
        let entry = opcode::Recv::new(Fd(socket), std::ptr::null_mut(), 0)
            .buf_group(RESERVE)
            .build()
            .flags(Flags::BUFFER_SELECT)
            .user_data(user_data);
        self.push(with_poll_first(entry));
    }

    /// Stages a poll(2) for `events`; with `multi` it goes on until cancelled.
    pub(super) fn poll(&mut self, fd: RawFd, events: i16, multi: bool, user_data: u64) {
        self.push(opcode::PollAdd::new(Fd(fd), events as u32).multi(multi).build().user_data(user_data));
    }

    /// Stages the cancellation of the operation with this `target` as its user data; reports failure only.
    pub(super) fn cancel(&mut self, target: u64, user_data: u64) {
        let entry = opcode::AsyncCancel::new(target).build().user_data(user_data);
        self.push(entry.flags(Flags::SKIP_SUCCESS));
    }

    /// Stages the cancellation of everything armed on a descriptor; reports failure only.
    pub(super) fn cancel_all(&mut self, fd: RawFd, user_data: u64) {
        let entry = opcode::AsyncCancel2::new(CancelBuilder::fd(Fd(fd)).all()).build().user_data(user_data);
        self.push(entry.flags(Flags::SKIP_SUCCESS));
    }

    /// Stages a send that is over when the next [`Ring::submit`] returns, and that completes visibly only if it was
    /// short or failed.
    ///
    /// # Safety
    /// `bytes` must stay where they are until `submit` has returned.
    pub(super) unsafe fn send(&mut self, socket: RawFd, bytes: &[u8], user_data: u64) {
        let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let entry = opcode::Send::new(Fd(socket), bytes.as_ptr(), len)
            .flags(libc::MSG_DONTWAIT | libc::MSG_WAITALL | libc::MSG_NOSIGNAL)
            .build()
            .flags(Flags::SKIP_SUCCESS)
            .user_data(user_data);
        self.push(entry);
    }

    /// Entries that can be staged before the queue has to be submitted.
    pub(super) fn room(&mut self) -> usize {
        let queue = self.io.submission();
        queue.capacity() - queue.len()
    }

    fn push(&mut self, entry: Entry) {
        if self.io.submission().is_full() {
            self.submit();
        }
        // SAFETY: whatever an entry points at outlives the operation: only `send` has pointers, see there; the
        // buffers of receives belong to the groups, which are unregistered before they are freed.
        let pushed = unsafe { self.io.submission().push(&entry) };
        pushed.expect("a submitted queue has room");
    }

    /// Submits all that is staged, without running completions. Sends are over when it returns.
    pub(super) fn submit(&mut self) {
        while !self.io.submission().is_empty() {
            // Completions of what was submitted may overflow; with NODROP the kernel keeps them.
            self.enter(0, 0, None);
        }
    }

    /// Submits, runs completions, and waits for `want` of them, at most for `timeout`.
    pub(super) fn submit_and_wait(&mut self, want: u32, timeout: Option<Duration>) {
        self.enter(want, ENTER_GETEVENTS, timeout);
    }

    /// Whether an enter would bring anything: entries to submit, deferred work, kept overflow.
    pub(super) fn needs_enter(&mut self) -> bool {
        let queue = self.io.submission();
        !queue.is_empty() || queue.taskrun() || queue.cq_overflow()
    }

    /// Whether the kernel has completion work that an enter would run.
    pub(super) fn has_deferred(&mut self) -> bool {
        let queue = self.io.submission();
        queue.taskrun() || queue.cq_overflow()
    }

    /// Whether the completion queue overflowed and an enter is needed to fetch the rest.
    pub(super) fn overflowed(&mut self) -> bool {
        self.io.submission().cq_overflow()
    }

    /// Moves all completions that are in the queue behind those in `out`.
    pub(super) fn reap(&mut self, out: &mut Vec<Cqe>) {
        let copy = |c: cqueue::Entry| Cqe { user_data: c.user_data(), result: c.result(), flags: c.flags() };
        out.extend(self.io.completion().map(copy));
    }

    fn enter(&mut self, want: u32, flags: u32, timeout: Option<Duration>) {
        let timespec = timeout.map(|t| KernelTimespec {
            seconds: i64::try_from(t.as_secs()).unwrap_or(i64::MAX),
            nanos: i64::from(t.subsec_nanos()),
        });
        let arg = GetEventsArg {
            sigmask: 0,
            sigmask_bytes: 0,
            min_wait_us: 0,
            timespec: timespec.as_ref().map_or(0, |t| std::ptr::from_ref(t) as u64),
        };
        let to_submit = self.io.submission().len() as u32;
        let flags = flags | self.enter_flags | ENTER_EXT_ARG;
        // SAFETY: descriptor and flags are this ring's; `arg` and the timespec it points at outlive the call; staged
        // entries are valid (see `push`).
        let result = unsafe {
            libc::syscall(
                libc::SYS_io_uring_enter,
                self.enter_fd,
                to_submit,
                want,
                flags,
                &raw const arg,
                size_of::<GetEventsArg>(),
            )
        };
        if result >= 0 {
            return;
        }
        let error = io::Error::last_os_error();
        // ETIME: the timeout; EINTR: a signal; EAGAIN and EBUSY: memory is short or completions wait: try again.
        if !matches!(error.raw_os_error(), Some(libc::ETIME | libc::EINTR | libc::EAGAIN | libc::EBUSY)) {
            panic!("io_uring_enter on the ring's own thread: {error}");
        }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        let patience = io_uring::types::Timespec::new().nsec(100_000_000);
        // Sockets close with their descriptors only when nothing is armed on them.
        let _ = self.io.submitter().register_sync_cancel(Some(patience), CancelBuilder::any());
        for _ in 0..DROP_ROUNDS {
            if !self.needs_enter() {
                break;
            }
            self.submit_and_wait(0, None);
            self.io.completion().for_each(drop);
        }
        for group in &mut self.groups {
            group.unregister(&self.io);
        }
    }
}

/// The best set of flags that the kernel takes: 6.6, 6.1, 6.0.
fn build_io() -> io::Result<IoUring> {
    let mut error = None;
    for flavour in 0..3 {
        let mut builder = IoUring::builder();
        builder.setup_submit_all().setup_cqsize(CQ_ENTRIES).setup_clamp().setup_taskrun_flag();
        match flavour {
            0 => builder.setup_single_issuer().setup_defer_taskrun().setup_no_sqarray(),
            1 => builder.setup_single_issuer().setup_defer_taskrun(),
            _ => builder.setup_coop_taskrun(),
        };
        match builder.build(SQ_ENTRIES) {
            Ok(io) => return Ok(io),
            Err(e) if e.raw_os_error() == Some(libc::EINVAL) => error = Some(e),
            Err(e) => return Err(e),
        }
    }
    Err(error.expect("three flavours were tried"))
}

/// IORING_REGISTER_RING_FDS: what to pass to enter, and the flag that goes with it. The `io-uring` crate keeps the
/// index in a borrowed `Submitter`, which cannot live beside its ring.
fn register_fd(io: &IoUring) -> (RawFd, u32) {
    let mut update = RingFdUpdate { offset: u32::MAX, reserved: 0, fd: io.as_raw_fd() as u64 };
    // SAFETY: the pointer is to one update, as the count says, and it outlives the call.
    let result =
        unsafe { libc::syscall(libc::SYS_io_uring_register, io.as_raw_fd(), REGISTER_RING_FDS, &raw mut update, 1u32) };
    if result == 1 { (update.offset as RawFd, ENTER_REGISTERED_RING) } else { (io.as_raw_fd(), 0) }
}

/// The crate's receives have no setter for the flag.
fn with_poll_first(mut entry: Entry) -> Entry {
    let ioprio = std::ptr::from_mut(&mut entry).cast::<u16>().wrapping_add(IOPRIO_OFFSET / 2);
    // SAFETY: `Entry` is `repr(C)` over the kernel's io_uring_sqe, 64 bytes, in which ioprio is a u16 at byte 2.
    unsafe { *ioprio |= RECVSEND_POLL_FIRST };
    entry
}

/// `struct io_uring_getevents_arg`, io_uring_enter(2).
#[repr(C)]
struct GetEventsArg {
    sigmask: u64,
    sigmask_bytes: u32,
    min_wait_us: u32,
    timespec: u64,
}

/// `struct __kernel_timespec`.
#[repr(C)]
struct KernelTimespec {
    seconds: i64,
    nanos: i64,
}

/// `struct io_uring_rsrc_update`, io_uring_register(2).
#[repr(C)]
struct RingFdUpdate {
    offset: u32,
    reserved: u32,
    fd: u64,
}

const ENTER_GETEVENTS: u32 = 1;
const ENTER_EXT_ARG: u32 = 1 << 3;
const ENTER_REGISTERED_RING: u32 = 1 << 4;
const ENTER_NO_IOWAIT: u32 = 1 << 7;
const REGISTER_RING_FDS: u32 = 20;
const RECVSEND_POLL_FIRST: u16 = 1;
const IOPRIO_OFFSET: usize = 2;

/// Entries staged between two enters: a flush chunk and the receives armed beside it.
const SQ_ENTRIES: u32 = 512;
/// A storm of accepts and a full set of receives fit without overflow.
const CQ_ENTRIES: u32 = 4096;
/// Receive buffers: with their length 1 MiB, which fits in L2; the whole group is the working set, as it is a FIFO.
pub(super) const MAIN_BUFFERS: u16 = 512;
const RESERVE_BUFFERS: u16 = 64;
const BUFFER_BYTES: u32 = 2048;

/// Enters that run what was cancelled when the ring goes, 20 operations each.
const DROP_ROUNDS: usize = 10_000;

const _: () = assert!(size_of::<Entry>() == 64);
const _: () = assert!(size_of::<GetEventsArg>() == 24 && size_of::<KernelTimespec>() == 16);
