//! The system calls that the standard library has no safe form for, and one of librdkafka, each behind a safe function.
//!
//! What is here does one call (or one option list) and reports the answer. It keeps no state, decides nothing about
//! connections and never blocks, except [`Signals::wait`], which is for the main thread, and `describe_topics`, which is
//! for the thread that watches Kafka.

use std::fs::File;
use std::io::{self, Read};
use std::mem::{self, MaybeUninit};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;
#[cfg(feature = "kafka")]
use std::{ffi::CStr, ffi::CString, ptr, sync::Arc};

#[cfg(feature = "kafka")]
use rdkafka::{
    bindings::{self as sys, rd_kafka_resp_err_t as Code},
    client::{Client, ClientContext},
    error::RDKafkaErrorCode,
};

use crate::limits;
#[cfg(feature = "kafka")]
use crate::ports::Described;
use crate::time::{Monotonic, WallMillis};

/// A listening socket, `SOCK_NONBLOCK | SOCK_CLOEXEC`, with the options that its accepted sockets inherit:
/// `TCP_NODELAY`, `TCP_NOTSENT_LOWAT` = [`limits::NOTSENT_LOWAT`] and keepalive. Several may listen on one address
/// (`SO_REUSEPORT`); the kernel spreads connections over them. socket(7), tcp(7).
///
/// # Errors
/// The kernel's, with the address in the text: in use by a process without `SO_REUSEPORT`, not ours, not permitted.
pub fn listen(addr: SocketAddr, backlog: u32) -> io::Result<OwnedFd> {
    listen_unnamed(addr, backlog).map_err(|e| {
        let remedy = match e.kind() {
            io::ErrorKind::AddrInUse => "another process listens there: stop it or choose another port",
            io::ErrorKind::AddrNotAvailable => "no interface has this address",
            io::ErrorKind::PermissionDenied => "ports below 1024 need CAP_NET_BIND_SERVICE",
            _ => "the kernel refused",
        };
        io::Error::new(e.kind(), format!("listen on {addr}: {e} ({remedy})"))
    })
}

fn listen_unnamed(addr: SocketAddr, backlog: u32) -> io::Result<OwnedFd> {
    let family = if addr.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    // SAFETY: no pointers.
    let raw = check(unsafe { libc::socket(family, libc::SOCK_STREAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC, 0) })?;
    // SAFETY: `socket` just returned this descriptor and nobody else knows it.
    let fd = unsafe { OwnedFd::from_raw_fd(raw) };
    for (level, name, value) in [
        (libc::SOL_SOCKET, libc::SO_REUSEADDR, 1),
        (libc::SOL_SOCKET, libc::SO_REUSEPORT, 1),
        (libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1),
        (libc::IPPROTO_TCP, libc::TCP_KEEPIDLE, KEEPALIVE_IDLE_S),
        (libc::IPPROTO_TCP, libc::TCP_KEEPINTVL, KEEPALIVE_INTERVAL_S),
        (libc::IPPROTO_TCP, libc::TCP_KEEPCNT, KEEPALIVE_PROBES),
        (libc::IPPROTO_TCP, libc::TCP_NODELAY, 1),
        (libc::IPPROTO_TCP, libc::TCP_NOTSENT_LOWAT, limits::NOTSENT_LOWAT as i32),
    ] {
        set_option(&fd, level, name, value)?;
    }
    bind(&fd, addr)?;
    let backlog = i32::try_from(backlog).unwrap_or(i32::MAX);
    // SAFETY: no pointers.
    check(unsafe { libc::listen(fd.as_raw_fd(), backlog) })?;
    Ok(fd)
}

fn set_option(fd: &OwnedFd, level: i32, name: i32, value: i32) -> io::Result<()> {
    let len = mem::size_of::<i32>() as libc::socklen_t;
    // SAFETY: the pointer is to `value`, `len` bytes that outlive the call.
    check(unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, (&raw const value).cast(), len) }).map(drop)
}

fn bind(fd: &OwnedFd, addr: SocketAddr) -> io::Result<()> {
    match addr {
        SocketAddr::V4(v4) => {
            let name = libc::sockaddr_in {
                sin_family: libc::AF_INET as libc::sa_family_t,
                sin_port: v4.port().to_be(),
                sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(v4.ip().octets()) },
                sin_zero: [0; 8],
            };
            bind_name(fd, &name)
        }
        SocketAddr::V6(v6) => {
            let name = libc::sockaddr_in6 {
                sin6_family: libc::AF_INET6 as libc::sa_family_t,
                sin6_port: v6.port().to_be(),
                sin6_flowinfo: v6.flowinfo(),
                sin6_addr: libc::in6_addr { s6_addr: v6.ip().octets() },
                sin6_scope_id: v6.scope_id(),
            };
            bind_name(fd, &name)
        }
    }
}

fn bind_name<T>(fd: &OwnedFd, name: &T) -> io::Result<()> {
    let len = mem::size_of::<T>() as libc::socklen_t;
    // SAFETY: `name` is a socket address structure of `len` bytes that outlives the call.
    check(unsafe { libc::bind(fd.as_raw_fd(), std::ptr::from_ref(name).cast(), len) }).map(drop)
}

/// A new eventfd(2), non-blocking; any write makes it readable and wakes whoever polls it.
///
/// # Errors
/// Out of descriptors or memory.
pub fn eventfd() -> io::Result<File> {
    // SAFETY: no pointers.
    let raw = check(unsafe { libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC) })?;
    // SAFETY: `eventfd` just returned this descriptor and nobody else knows it.
    Ok(File::from(unsafe { OwnedFd::from_raw_fd(raw) }))
}

/// send(2) with `MSG_DONTWAIT | MSG_NOSIGNAL`: the number of bytes that the kernel took.
///
/// # Errors
/// `WouldBlock` when it takes none now; else the connection is broken.
pub fn send(socket: RawFd, bytes: &[u8]) -> io::Result<usize> {
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: pointer and length are those of a slice that outlives the call.
    check_len(unsafe { libc::send(socket, bytes.as_ptr().cast(), bytes.len(), flags) })
}

/// recv(2) with `MSG_DONTWAIT`: the number of bytes that were there, 0 = end of stream.
///
/// # Errors
/// `WouldBlock` when there are none now; else the connection is broken.
pub fn recv(socket: RawFd, buffer: &mut [u8]) -> io::Result<usize> {
    // SAFETY: pointer and length are those of a mutable slice that outlives the call.
    check_len(unsafe { libc::recv(socket, buffer.as_mut_ptr().cast(), buffer.len(), libc::MSG_DONTWAIT) })
}

/// shutdown(2) with `SHUT_WR`: FIN behind what the kernel holds.
///
/// # Errors
/// The connection is broken.
pub fn shutdown_write(socket: RawFd) -> io::Result<()> {
    // SAFETY: no pointers.
    check(unsafe { libc::shutdown(socket, libc::SHUT_WR) }).map(drop)
}

/// accept4(2) with `SOCK_NONBLOCK | SOCK_CLOEXEC`.
///
/// # Errors
/// `WouldBlock` when no client waits; out of descriptors or memory; a client that was gone first.
pub fn accept(listener: RawFd) -> io::Result<TcpStream> {
    let (flags, nobody) = (libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC, std::ptr::null_mut());
    // SAFETY: null pointers ask for no address.
    let raw = check(unsafe { libc::accept4(listener, nobody, std::ptr::null_mut(), flags) })?;
    // SAFETY: `accept4` just returned this descriptor and nobody else knows it.
    Ok(TcpStream::from(unsafe { OwnedFd::from_raw_fd(raw) }))
}

/// The pending error of a socket, which it loses by this; `SO_ERROR`, socket(7).
#[must_use]
pub fn take_error(socket: RawFd) -> Option<io::Error> {
    let (mut error, mut len) = (0i32, mem::size_of::<i32>() as libc::socklen_t);
    // SAFETY: the pointers are to a value of `len` bytes and to `len`; both outlive the call.
    let result =
        unsafe { libc::getsockopt(socket, libc::SOL_SOCKET, libc::SO_ERROR, (&raw mut error).cast(), &raw mut len) };
    (result == 0 && error != 0).then(|| io::Error::from_raw_os_error(error))
}

/// A set of descriptors that are each reported once; epoll(7) with `EPOLLONESHOT`. Itself pollable.
pub struct OneShotSet(OwnedFd);

/// What an [`OneShotSet`] reports.
pub type Report = libc::epoll_event;

impl OneShotSet {
    /// An empty set.
    ///
    /// # Errors
    /// Out of descriptors or memory.
    pub fn new() -> io::Result<Self> {
        // SAFETY: no pointers.
        let raw = check(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        // SAFETY: `epoll_create1` just returned this descriptor and nobody else knows it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(raw) }))
    }

    /// Reports `data` once, when one of `events` is there. A closed descriptor leaves the set by itself.
    ///
    /// # Errors
    /// Out of memory or watches.
    pub fn watch(&self, fd: RawFd, events: u32, data: u64) -> io::Result<()> {
        let mut event = libc::epoll_event { events: events | libc::EPOLLONESHOT as u32, u64: data };
        // SAFETY: the pointer is to an event that outlives the call.
        let mut change = |how| check(unsafe { libc::epoll_ctl(self.0.as_raw_fd(), how, fd, &raw mut event) });
        match change(libc::EPOLL_CTL_MOD) {
            Err(e) if e.raw_os_error() == Some(libc::ENOENT) => change(libc::EPOLL_CTL_ADD).map(drop),
            other => other.map(drop),
        }
    }

    /// Takes the descriptor out; it may be out.
    pub fn forget(&self, fd: RawFd) {
        // SAFETY: deletion takes no event.
        unsafe { libc::epoll_ctl(self.0.as_raw_fd(), libc::EPOLL_CTL_DEL, fd, std::ptr::null_mut()) };
    }

    /// Takes what is to be reported now, without waiting: the filled part of `reports`.
    pub fn take<'a>(&self, reports: &'a mut [Report]) -> &'a [Report] {
        let room = i32::try_from(reports.len()).unwrap_or(i32::MAX);
        // SAFETY: pointer and length are those of a mutable slice that outlives the call.
        let filled = unsafe { libc::epoll_wait(self.0.as_raw_fd(), reports.as_mut_ptr(), room, 0) };
        &reports[..usize::try_from(filled).unwrap_or(0)]
    }
}

impl AsFd for OneShotSet {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Binds the calling thread to one CPU; sched_setaffinity(2).
///
/// # Errors
/// The CPU does not exist or is outside the process's cpuset.
pub fn pin_thread(cpu: usize) -> io::Result<()> {
    if cpu >= libc::CPU_SETSIZE as usize {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("cpu {cpu}: at most {}", libc::CPU_SETSIZE)));
    }
    // SAFETY: a `cpu_set_t` is a bit array; all zero is the empty set.
    let mut set: libc::cpu_set_t = unsafe { mem::zeroed() };
    // SAFETY: `cpu` is below CPU_SETSIZE, hence inside the array.
    unsafe { libc::CPU_SET(cpu, &mut set) };
    // SAFETY: the pointer is to a set of the length given, and it outlives the call; 0 is the calling thread.
    check(unsafe { libc::sched_setaffinity(0, mem::size_of_val(&set), &raw const set) })
        .map(drop)
        .map_err(|e| io::Error::new(e.kind(), format!("pin to cpu {cpu}: {e} (choose one of the process's cpuset)")))
}

/// Fills the buffer from the kernel's random source; getrandom(2).
///
/// # Errors
/// Only on kernels older than any that runs io_uring.
pub fn random(buffer: &mut [u8]) -> io::Result<()> {
    let mut filled = 0;
    while filled < buffer.len() {
        let rest = &mut buffer[filled..];
        // SAFETY: pointer and length are those of a mutable slice that outlives the call.
        match check_len(unsafe { libc::getrandom(rest.as_mut_ptr().cast(), rest.len(), 0) }) {
            Ok(n) => filled += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Random words, fetched from the kernel by the page so that one costs a few nanoseconds.
pub struct Entropy {
    pool: [u8; ENTROPY_BYTES],
    used: usize,
}

impl Default for Entropy {
    fn default() -> Self {
        Self { pool: [0; ENTROPY_BYTES], used: ENTROPY_BYTES }
    }
}

impl Entropy {
    /// 64 bits that nobody was given before.
    pub fn next_u64(&mut self) -> u64 {
        if self.used == self.pool.len() {
            random(&mut self.pool).expect("getrandom(2) fails on no kernel since 3.17");
            self.used = 0;
        }
        let (word, _) = self.pool[self.used..].split_first_chunk::<8>().expect("the pool is whole words");
        self.used += 8;
        u64::from_ne_bytes(*word)
    }
}

/// `CLOCK_MONOTONIC`, the same for all threads; clock_gettime(2).
#[must_use]
pub fn monotonic() -> Monotonic {
    let now = clock(libc::CLOCK_MONOTONIC);
    Monotonic::from_nanos(u64::try_from(now.as_nanos()).unwrap_or(u64::MAX))
}

/// `CLOCK_REALTIME`; clock_gettime(2).
#[must_use]
pub fn wall() -> WallMillis {
    WallMillis(u64::try_from(clock(libc::CLOCK_REALTIME).as_millis()).unwrap_or(u64::MAX))
}

fn clock(id: libc::clockid_t) -> Duration {
    let mut time = MaybeUninit::<libc::timespec>::uninit();
    // SAFETY: the pointer is to room for one timespec.
    let result = unsafe { libc::clock_gettime(id, time.as_mut_ptr()) };
    assert_eq!(result, 0, "both clocks exist on every Linux");
    // SAFETY: the call succeeded, so it filled the structure in.
    let time = unsafe { time.assume_init() };
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Turns transparent huge pages off for this process, PR_SET_THP_DISABLE(2const). An allocator that keeps a page for each
/// size of object touches 4 KiB of each; as huge pages they held 42 MiB for 15 MiB of 15,000 idle connections.
///
/// # Errors
/// The kernel is built without them, or a filter refuses the call.
pub fn use_small_pages() -> io::Result<()> {
    Ok(rustix::thread::disable_transparent_huge_pages(true)?)
}

/// Raises the soft limit of open descriptors to the hard limit and returns it; getrlimit(2).
///
/// # Errors
/// None is known for a process that may read its own limits.
pub fn raise_descriptor_limit() -> io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointer is to an rlimit that outlives the call.
    check(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) })?;
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: as above.
    check(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) })?;
    Ok(limit.rlim_cur)
}

/// Makes io_uring answer `EPERM` to the calling thread and the threads it starts, for good, as container profiles do;
/// tests use it to see what the server does there. seccomp(2).
///
/// # Errors
/// The kernel has no seccomp filters.
pub fn deny_io_uring() -> io::Result<()> {
    const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const JUMP_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    let step = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    // The system call's number is the first word of seccomp_data; io_uring's three have the same numbers everywhere.
    let mut program = [
        step(LOAD, 0, 0, 0),
        step(JUMP_EQUAL, 3, 0, libc::SYS_io_uring_setup as u32),
        step(JUMP_EQUAL, 2, 0, libc::SYS_io_uring_enter as u32),
        step(JUMP_EQUAL, 1, 0, libc::SYS_io_uring_register as u32),
        step(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW),
        step(RETURN, 0, 0, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
    ];
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: no pointers.
    check(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) })?;
    // SAFETY: `filter` points to a program of `len` steps; the kernel copies it during the call.
    check(unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const filter) }).map(drop)
}

/// A request from outside to end or to reload.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Signal {
    /// SIGTERM or SIGINT.
    Terminate,
    /// SIGHUP.
    Reload,
}

/// SIGTERM, SIGINT and SIGHUP as something to read instead of handlers; signalfd(2).
pub struct Signals {
    file: File,
}

impl Signals {
    /// Blocks the signals in the calling thread and the threads it starts from now on, so call it first in `main`.
    ///
    /// # Errors
    /// Out of descriptors or memory.
    pub fn block() -> io::Result<Self> {
        let mut set = MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: the pointer is to room for a set, which the call fills in.
        unsafe { libc::sigemptyset(set.as_mut_ptr()) };
        // SAFETY: `sigemptyset` initialised it and cannot fail for a valid pointer.
        let mut set = unsafe { set.assume_init() };
        for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
            // SAFETY: the set is initialised and the signal number valid.
            unsafe { libc::sigaddset(&raw mut set, signal) };
        }
        // SAFETY: the set is initialised; no old mask is asked for.
        match unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) } {
            0 => {}
            error => return Err(io::Error::from_raw_os_error(error)),
        }
        // SAFETY: the set is initialised; -1 asks for a new descriptor.
        let raw = check(unsafe { libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC) })?;
        // SAFETY: `signalfd` just returned this descriptor and nobody else knows it.
        Ok(Self { file: File::from(unsafe { OwnedFd::from_raw_fd(raw) }) })
    }

    /// Blocks until one of the signals arrives.
    ///
    /// # Errors
    /// None is known.
    pub fn wait(&mut self) -> io::Result<Signal> {
        let mut info = [0u8; mem::size_of::<libc::signalfd_siginfo>()];
        self.file.read_exact(&mut info)?;
        // The signal's number is the first word of signalfd_siginfo.
        let (number, _) = info.split_first_chunk::<4>().expect("the structure has 128 bytes");
        Ok(match u32::from_ne_bytes(*number) as i32 {
            libc::SIGHUP => Signal::Reload,
            _ => Signal::Terminate,
        })
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn check_len(result: libc::ssize_t) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

/// The kernel asks a silent peer after this long; WebSocket pings do so earlier, this is for half-closed ones.
const KEEPALIVE_IDLE_S: i32 = 60;
const KEEPALIVE_INTERVAL_S: i32 = 15;
const KEEPALIVE_PROBES: i32 = 4;
const ENTROPY_BYTES: usize = 512;

/// Kafka's id of each of these topics, and how many partitions it has; `None` for one that is not there. Only the id tells
/// that a topic was removed and made again, and the crate has no safe call for it. Blocks until Kafka answers, for
/// `timeout` at most.
///
/// # Errors
/// What kept Kafka from answering.
#[cfg(feature = "kafka")]
pub fn describe_topics<C: ClientContext>(
    client: &Client<C>,
    topics: &[Arc<str>],
    timeout: Duration,
) -> Result<Vec<Option<Described>>, RDKafkaErrorCode> {
    if topics.is_empty() {
        return Ok(Vec::new());
    }
    let names: Vec<CString> = topics.iter().map(|topic| CString::new(&**topic).unwrap_or_default()).collect();
    let mut pointers: Vec<_> = names.iter().map(|name| name.as_ptr()).collect();
    let millis = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: the client lives through this call; `pointers` are `names`' texts, which end in NUL and outlive the
    // collection; librdkafka copies them. What is made here is destroyed here, and nothing of it is used afterwards.
    unsafe {
        let rk = client.native_ptr();
        let queue = sys::rd_kafka_queue_new(rk);
        let collection = sys::rd_kafka_TopicCollection_of_topic_names(pointers.as_mut_ptr(), pointers.len());
        let options = sys::rd_kafka_AdminOptions_new(rk, sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS);
        // Refused only where the number is out of range; then the client's own timeout holds.
        sys::rd_kafka_AdminOptions_set_request_timeout(options, millis, ptr::null_mut(), 0);
        sys::rd_kafka_DescribeTopics(rk, collection, options, queue);
        sys::rd_kafka_AdminOptions_destroy(options);
        sys::rd_kafka_TopicCollection_destroy(collection);
        let event = sys::rd_kafka_queue_poll(queue, millis.saturating_add(GRACE_MS));
        let answer = if event.is_null() { Err(RDKafkaErrorCode::OperationTimedOut) } else { described(event, topics) };
        if !event.is_null() {
            sys::rd_kafka_event_destroy(event);
        }
        sys::rd_kafka_queue_destroy(queue);
        answer
    }
}

/// # Safety
/// The event is an answer to `rd_kafka_DescribeTopics`, and lives.
#[cfg(feature = "kafka")]
unsafe fn described(
    event: *mut sys::rd_kafka_event_t,
    topics: &[Arc<str>],
) -> Result<Vec<Option<Described>>, RDKafkaErrorCode> {
    let mut found = vec![None; topics.len()];
    // SAFETY: descriptions and texts belong to the event, which the caller keeps; `descriptions` has `count` entries.
    // Every text ends in NUL.
    unsafe {
        let failed = sys::rd_kafka_event_error(event);
        if failed != Code::RD_KAFKA_RESP_ERR_NO_ERROR {
            return Err(failed.into());
        }
        let result = sys::rd_kafka_event_DescribeTopics_result(event);
        let mut count = 0;
        let descriptions = sys::rd_kafka_DescribeTopics_result_topics(result, &mut count);
        for at in 0..count {
            let description = *descriptions.add(at);
            let name = CStr::from_ptr(sys::rd_kafka_TopicDescription_name(description)).to_string_lossy();
            match sys::rd_kafka_error_code(sys::rd_kafka_TopicDescription_error(description)) {
                Code::RD_KAFKA_RESP_ERR_NO_ERROR => {}
                Code::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART | Code::RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE => {
                    continue;
                }
                code => return Err(code.into()),
            }
            let id = sys::rd_kafka_Uuid_base64str(sys::rd_kafka_TopicDescription_topic_id(description));
            let id = CStr::from_ptr(id).to_string_lossy();
            let mut partitions = 0;
            sys::rd_kafka_TopicDescription_partitions(description, &mut partitions);
            if let Some(at) = topics.iter().position(|topic| **topic == *name) {
                let partitions = u32::try_from(partitions).unwrap_or(u32::MAX);
                found[at] = Some(Described { id: id.as_ref().into(), partitions });
            }
        }
    }
    Ok(found)
}

/// How much longer than the request's own timeout its answer is awaited.
#[cfg(feature = "kafka")]
const GRACE_MS: i32 = 500;

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn option(fd: &impl AsRawFd, level: i32, name: i32) -> i32 {
        let (mut value, mut len) = (0i32, 4 as libc::socklen_t);
        // SAFETY: the pointers are to a 4-byte value and its length.
        let result = unsafe { libc::getsockopt(fd.as_raw_fd(), level, name, (&raw mut value).cast(), &raw mut len) };
        assert_eq!(result, 0);
        value
    }

    /// Accepted sockets inherit no-delay, the backlog bound and keepalive, and two listeners share an address.
    #[test]
    fn accepted_sockets_inherit_the_options() {
        let first = TcpListener::from(listen("127.0.0.1:0".parse().unwrap(), 16).unwrap());
        let addr = first.local_addr().unwrap();
        drop(TcpListener::from(listen(addr, 16).unwrap()));
        let _client = TcpStream::connect(addr).unwrap();
        first.set_nonblocking(false).unwrap();
        let (socket, _) = first.accept().unwrap();
        assert_ne!(option(&socket, libc::IPPROTO_TCP, libc::TCP_NODELAY), 0);
        assert_ne!(option(&socket, libc::SOL_SOCKET, libc::SO_KEEPALIVE), 0);
        assert_eq!(option(&socket, libc::IPPROTO_TCP, libc::TCP_NOTSENT_LOWAT), limits::NOTSENT_LOWAT as i32);
    }

    /// An address that a socket without `SO_REUSEPORT` has is refused with address and remedy.
    #[test]
    fn an_address_in_use_is_named() {
        let other = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = other.local_addr().unwrap();
        let error = listen(addr, 16).unwrap_err().to_string();
        assert!(error.contains(&addr.to_string()) && error.contains("another process"), "{error}");
    }

    /// IPv6 addresses work as IPv4 ones do.
    #[test]
    fn ipv6_listens() {
        let listener = TcpListener::from(listen("[::1]:0".parse().unwrap(), 16).unwrap());
        assert!(listener.local_addr().unwrap().is_ipv6());
    }

    /// A blocked signal is read instead of ending the process, and each has its meaning.
    #[test]
    fn signals_are_read() {
        std::thread::spawn(|| {
            let mut signals = Signals::block().unwrap();
            for (number, meaning) in
                [(libc::SIGHUP, Signal::Reload), (libc::SIGTERM, Signal::Terminate), (libc::SIGINT, Signal::Terminate)]
            {
                // SAFETY: no pointers; the signal goes to this thread, which blocks it.
                assert_eq!(unsafe { libc::raise(number) }, 0);
                assert_eq!(signals.wait().unwrap(), meaning);
            }
        })
        .join()
        .unwrap();
    }

    /// Huge pages are off afterwards, for the memory of every thread.
    #[test]
    fn huge_pages_are_off() {
        use_small_pages().unwrap();
        let off = std::thread::spawn(|| rustix::thread::transparent_huge_pages_are_disabled().unwrap());
        assert!(off.join().unwrap());
    }

    /// The soft limit of descriptors is the hard limit afterwards, however often.
    #[test]
    fn the_descriptor_limit_is_raised() {
        let limit = raise_descriptor_limit().unwrap();
        assert_eq!(raise_descriptor_limit().unwrap(), limit);
        let limits = std::fs::read_to_string("/proc/self/limits").unwrap();
        let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
        let words: Vec<_> = line.split_whitespace().collect();
        assert_eq!((words[3], words[4]), (limit.to_string().as_str(), limit.to_string().as_str()));
    }

    /// Random words differ across a refill of the pool.
    #[test]
    fn entropy_does_not_repeat() {
        let mut entropy = Entropy::default();
        let mut words: Vec<u64> = (0..200).map(|_| entropy.next_u64()).collect();
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), 200);
    }

    /// The clock does not go back and a thread may be pinned to CPU 0 but not to one that does not exist.
    #[test]
    fn clock_and_affinity() {
        let before = monotonic();
        std::thread::spawn(|| {
            pin_thread(0).unwrap();
            assert!(pin_thread(1_000_000).is_err());
        })
        .join()
        .unwrap();
        assert!(monotonic() >= before);
        assert!(wall().0 > 1_600_000_000_000);
    }
}
