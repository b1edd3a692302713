//! The bare server (IO_URING.md): multishot accept, multishot receive into a buffer ring, gathered sends whose success
//! makes no completion. Its law: between two enters nothing of the kernel's points into `batch` or an `out`.

use std::collections::VecDeque;
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;

use base64::Engine as _;
use io_uring::types::{Fd, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode, squeue};
use sha1::{Digest, Sha1};

use ringgate::class::Class;
use ringgate::frame::{Encode, FrameKind, Item, put_websocket_header};
use ringgate::id::StreamHandle;
use ringgate::message::{Introduction, Position};
use ringgate::protocol::frames::json::Welcome;
use ringgate::protocol::frames::{FramesEncoder, Header, types, write};

/// What it does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// Sends every message back.
    Echo,
    /// Sends every published frame to everyone who joined.
    Fanout,
}

/// The only room, as `ringgate load` names it.
pub const ROOM: &str = "load-0";
const RELAY: StreamHandle = StreamHandle(1);

/// The server.
pub struct Server {
    ring: IoUring,
    listener: TcpListener,
    mode: Mode,
    buffers: Buffers,
    connections: Vec<Option<Connection>>,
    free: Vec<u32>,
    generation: u32,
    ended: usize,
    /// Connections that are open, and what was sent to them since there was none: shows that the bytes and sends of
    /// a run are ringgate's.
    open: usize,
    sends: u64,
    bytes: u64,
    /// Frames published since the last flush, as everyone gets them.
    batch: Vec<u8>,
    place: u64,
    dirty: Vec<u32>,
    /// Connections of this flush whose `out` was sent, and which were sent the batch itself.
    sent: Vec<u32>,
    pending: VecDeque<Completion>,
}

#[derive(Default)]
struct Connection {
    fd: Option<OwnedFd>,
    generation: u32,
    carry: Vec<u8>,
    out: Vec<u8>,
    upgraded: bool,
    member: bool,
    is_dirty: bool,
    /// Waits for POLLOUT; output collects in `out`.
    blocked: bool,
    sent_batch: bool,
}

struct Completion {
    user_data: u64,
    result: i32,
    flags: u32,
}

const ACCEPT: u64 = 0;
const RECEIVE: u64 = 1;
const SEND: u64 = 2;
const WRITABLE: u64 = 3;
const GROUP: u16 = 0;
const BUFFERS: u16 = 512;
const BUFFER_BYTES: usize = 2048;
/// Completions asked for at once: fewer than there are buffers, so that a burst does not end in ENOBUFS.
const WANTED: usize = 384;

impl Server {
    /// A server on a listener.
    pub fn new(listener: TcpListener, mode: Mode) -> io::Result<Self> {
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_submit_all()
            .setup_cqsize(16_384)
            .setup_clamp()
            .build(4096)?;
        let buffers = Buffers::register(&ring)?;
        Ok(Self {
            ring,
            listener,
            mode,
            buffers,
            connections: Vec::new(),
            free: Vec::new(),
            generation: 0,
            ended: 0,
            open: 0,
            sends: 0,
            bytes: 0,
            batch: Vec::new(),
            place: 0,
            dirty: Vec::new(),
            sent: Vec::new(),
            pending: VecDeque::new(),
        })
    }

    /// Serves until this many connections have ended.
    pub fn run(mut self, connections: usize) -> io::Result<()> {
        self.accept()?;
        while self.ended < connections {
            self.wait()?;
            while let Some(completion) = self.pending.pop_front() {
                self.take(&completion)?;
            }
            self.buffers.publish();
            self.flush()?;
        }
        Ok(())
    }

    /// Takes what is there, or sleeps until something is.
    fn wait(&mut self) -> io::Result<()> {
        if self.pending.is_empty() {
            let now = Timespec::new();
            self.enter(WANTED, &now)?;
            self.reap();
        }
        if self.pending.is_empty() {
            match self.ring.submit_and_wait(1) {
                Ok(_) => {}
                Err(error) if error.raw_os_error() == Some(libc::EINTR) => {}
                Err(error) => return Err(error),
            }
            self.reap();
        }
        Ok(())
    }

    fn enter(&mut self, wanted: usize, timeout: &Timespec) -> io::Result<()> {
        let arguments = SubmitArgs::new().timespec(timeout);
        match self.ring.submitter().submit_with_args(wanted, &arguments) {
            Ok(_) => Ok(()),
            Err(error) if matches!(error.raw_os_error(), Some(libc::ETIME | libc::EINTR | libc::EBUSY)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Collects completions; failed sends are settled here, while what they pointed to still stands.
    fn reap(&mut self) {
        let mut failed = Vec::new();
        for entry in self.ring.completion() {
            let completion = Completion { user_data: entry.user_data(), result: entry.result(), flags: entry.flags() };
            if completion.user_data & 0xff == SEND {
                failed.push(completion);
            } else {
                self.pending.push_back(completion);
            }
        }
        failed.iter().for_each(|completion| self.send_failed(completion));
    }

    fn take(&mut self, completion: &Completion) -> io::Result<()> {
        let slot = (completion.user_data >> 8) as u32;
        match completion.user_data & 0xff {
            ACCEPT => self.accepted(completion),
            RECEIVE => self.received(slot, completion),
            WRITABLE => {
                if let Some(connection) = self.living(slot, completion) {
                    connection.blocked = false;
                    self.mark(slot);
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn accept(&mut self) -> io::Result<()> {
        let entry = opcode::AcceptMulti::new(Fd(self.listener.as_raw_fd()))
            .flags(libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC)
            .build()
            .user_data(ACCEPT);
        self.push(entry)
    }

    fn accepted(&mut self, completion: &Completion) -> io::Result<()> {
        if completion.result >= 0 {
            // SAFETY: the kernel has just made this descriptor for this completion; nobody else has it.
            let fd = unsafe { OwnedFd::from_raw_fd(completion.result) };
            rustix::net::sockopt::set_tcp_nodelay(&fd, true)?;
            self.generation = (self.generation + 1) & 0x00ff_ffff;
            let connection = Connection { fd: Some(fd), generation: self.generation, ..Connection::default() };
            let slot = self.free.pop().unwrap_or(self.connections.len() as u32);
            if slot as usize == self.connections.len() {
                self.connections.push(None);
            }
            self.connections[slot as usize] = Some(connection);
            self.open += 1;
            self.receive(slot)?;
        }
        if cqueue::more(completion.flags) { Ok(()) } else { self.accept() }
    }

    fn receive(&mut self, slot: u32) -> io::Result<()> {
        let Some((fd, tag)) = self.tagged(slot, RECEIVE) else { return Ok(()) };
        self.push(opcode::RecvMulti::new(Fd(fd), GROUP).build().user_data(tag))
    }

    fn received(&mut self, slot: u32, completion: &Completion) -> io::Result<()> {
        let buffer = cqueue::buffer_select(completion.flags);
        let alive = self.living(slot, completion).is_some();
        if let (Some(id), true) = (buffer, alive && completion.result > 0) {
            self.read(slot, id, completion.result as usize);
        }
        buffer.into_iter().for_each(|id| self.buffers.release(id));
        if !alive {
            return Ok(());
        }
        if completion.result == 0 || (completion.result < 0 && completion.result != -libc::ENOBUFS) {
            self.end(slot);
            return Ok(());
        }
        if cqueue::more(completion.flags) { Ok(()) } else { self.receive(slot) }
    }

    fn read(&mut self, slot: u32, id: u16, len: usize) {
        let Some(mut connection) = self.connections[slot as usize].take() else { return };
        let bytes = self.buffers.bytes_mut(id, len);
        if connection.carry.is_empty() {
            let used = feed(&mut connection, bytes, self.mode, &mut self.batch, &mut self.place);
            connection.carry.extend_from_slice(&bytes[used..]);
        } else {
            let mut carry = std::mem::take(&mut connection.carry);
            carry.extend_from_slice(bytes);
            let used = feed(&mut connection, &mut carry, self.mode, &mut self.batch, &mut self.place);
            carry.drain(..used);
            connection.carry = carry;
        }
        let answers = !connection.out.is_empty();
        self.connections[slot as usize] = Some(connection);
        if answers {
            self.mark(slot);
        }
    }

    /// One send per connection that has output: its own bytes, or the batch as it stands.
    fn flush(&mut self) -> io::Result<()> {
        let published = !self.batch.is_empty();
        if published {
            for slot in 0..self.connections.len() as u32 {
                let Some(connection) = self.connections[slot as usize].as_mut().filter(|c| c.member) else { continue };
                if connection.blocked || !connection.out.is_empty() {
                    connection.out.extend_from_slice(&self.batch);
                } else {
                    connection.sent_batch = true;
                }
                self.mark(slot);
            }
        }
        let dirty = std::mem::take(&mut self.dirty);
        for &slot in &dirty {
            self.send(slot)?;
        }
        if !self.sent.is_empty() {
            self.ring.submit()?;
            self.reap();
        }
        for slot in std::mem::take(&mut self.sent) {
            if let Some(connection) = &mut self.connections[slot as usize] {
                if !connection.blocked {
                    connection.out.clear();
                }
                connection.sent_batch = false;
            }
        }
        self.batch.clear();
        self.dirty = dirty;
        self.dirty.clear();
        Ok(())
    }

    fn send(&mut self, slot: u32) -> io::Result<()> {
        let Some(connection) = &mut self.connections[slot as usize] else { return Ok(()) };
        connection.is_dirty = false;
        let bytes = if connection.sent_batch { &self.batch } else { &connection.out };
        if connection.blocked || bytes.is_empty() {
            return Ok(());
        }
        let (pointer, len) = (bytes.as_ptr(), bytes.len() as u32);
        let Some((fd, tag)) = self.tagged(slot, SEND) else { return Ok(()) };
        let entry = opcode::Send::new(Fd(fd), pointer, len)
            .flags(libc::MSG_DONTWAIT | libc::MSG_WAITALL | libc::MSG_NOSIGNAL)
            .build()
            .flags(squeue::Flags::SKIP_SUCCESS)
            .user_data(tag);
        self.sent.push(slot);
        (self.sends, self.bytes) = (self.sends + 1, self.bytes + u64::from(len));
        self.push(entry)
    }

    /// A short send or none: the rest waits for POLLOUT.
    fn send_failed(&mut self, completion: &Completion) {
        let slot = (completion.user_data >> 8) as u32;
        let written = completion.result.max(0) as usize;
        let batch = &self.batch;
        let Some(connection) = self.connections[slot as usize].as_mut() else { return };
        if u64::from(connection.generation) != completion.user_data >> 40 {
            return;
        }
        if completion.result < 0 && completion.result != -libc::EAGAIN {
            // The receive ends too and takes the connection away.
            connection.out.clear();
            connection.member = false;
            return;
        }
        if connection.sent_batch {
            connection.out.extend_from_slice(&batch[written..]);
        } else {
            connection.out.drain(..written);
        }
        connection.blocked = true;
        if let Some((fd, tag)) = self.tagged(slot, WRITABLE) {
            let entry = opcode::PollAdd::new(Fd(fd), libc::POLLOUT as u32).build().user_data(tag);
            self.push(entry).expect("a submission queue that was just submitted has room");
        }
    }

    fn end(&mut self, slot: u32) {
        // Nothing is armed but perhaps a poll, whose completion names a former life.
        self.connections[slot as usize] = None;
        self.free.push(slot);
        self.ended += 1;
        self.open -= 1;
        if self.open == 0 && self.sends > 0 {
            println!("limit: {} sends, {} bytes", self.sends, self.bytes);
            (self.sends, self.bytes) = (0, 0);
        }
    }

    fn mark(&mut self, slot: u32) {
        if let Some(connection) = self.connections[slot as usize].as_mut().filter(|c| !c.is_dirty) {
            connection.is_dirty = true;
            self.dirty.push(slot);
        }
    }

    fn living(&mut self, slot: u32, completion: &Completion) -> Option<&mut Connection> {
        let connection = self.connections.get_mut(slot as usize)?.as_mut()?;
        (u64::from(connection.generation) == completion.user_data >> 40).then_some(connection)
    }

    /// The descriptor and the `user_data` of an operation: generation 24 bits, slot 32, operation 8.
    fn tagged(&self, slot: u32, operation: u64) -> Option<(RawFd, u64)> {
        let connection = self.connections[slot as usize].as_ref()?;
        let tag = u64::from(connection.generation) << 40 | u64::from(slot) << 8 | operation;
        Some((connection.fd.as_ref()?.as_raw_fd(), tag))
    }

    fn push(&mut self, entry: squeue::Entry) -> io::Result<()> {
        // SAFETY: descriptors live until their connection's entry is dropped, which the generation tells; receives use
        // the registered buffers; a send's bytes stand until `flush` has entered the kernel, where the send is
        // finished inline (MSG_DONTWAIT), see the module's law.
        while unsafe { self.ring.submission().push(&entry) }.is_err() {
            self.ring.submit()?;
        }
        Ok(())
    }
}

/// Takes whole messages; returns how many bytes they were.
fn feed(connection: &mut Connection, input: &mut [u8], mode: Mode, batch: &mut Vec<u8>, place: &mut u64) -> usize {
    let mut used = 0;
    if !connection.upgraded {
        let Some(end) = input.windows(4).position(|window| window == b"\r\n\r\n") else { return 0 };
        let head = String::from_utf8_lossy(&input[..end]).into_owned();
        let key = head.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Key: ")).unwrap_or_default();
        let digest = Sha1::new().chain_update(key).chain_update("258EAFA5-E914-47DA-95CA-C5AB0DC85B11").finalize();
        let accept = base64::engine::general_purpose::STANDARD.encode(digest);
        connection.out.extend_from_slice(upgrade_response(&accept).as_bytes());
        connection.upgraded = true;
        used = end + 4;
    }
    while let Some((opcode, start, end)) = split(&input[used..]) {
        let (mask, payload) = input[used + start - 4..used + end].split_at_mut(4);
        let mask = [mask[0], mask[1], mask[2], mask[3]];
        unmask(payload, mask);
        match (opcode, mode) {
            (2, Mode::Echo) => {
                put_websocket_header(&mut connection.out, 2, payload.len());
                connection.out.extend_from_slice(payload);
            }
            (2, Mode::Fanout) => on_frame(connection, payload, batch, place),
            _ => {}
        }
        used += end;
    }
    used
}

/// Opcode, start and end of the first masked frame's payload.
fn split(input: &[u8]) -> Option<(u8, usize, usize)> {
    let [first, second, ..] = *input else { return None };
    let (head, len) = match second & 0x7f {
        126 => (4, usize::from(u16::from_be_bytes(*input.get(2..)?.first_chunk()?))),
        127 => (10, u64::from_be_bytes(*input.get(2..)?.first_chunk()?) as usize),
        short => (2, usize::from(short)),
    };
    let (start, end) = (head + 4, head + 4 + len);
    (input.len() >= end).then_some((first & 15, start, end))
}

fn unmask(payload: &mut [u8], mask: [u8; 4]) {
    let word = u64::from_ne_bytes([mask[0], mask[1], mask[2], mask[3], mask[0], mask[1], mask[2], mask[3]]);
    let mut chunks = payload.chunks_exact_mut(8);
    for chunk in &mut chunks {
        let value = u64::from_ne_bytes((&*chunk).try_into().expect("chunks of 8")) ^ word;
        chunk.copy_from_slice(&value.to_ne_bytes());
    }
    for (byte, mask) in chunks.into_remainder().iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
}

/// Just enough of dialect D.
fn on_frame(connection: &mut Connection, message: &[u8], batch: &mut Vec<u8>, place: &mut u64) {
    let Some((header, payload)) = Header::read(message) else { return };
    match header.frame_type {
        types::HELLO => put_welcome(&mut connection.out),
        types::JOIN => {
            put_joined(&mut connection.out, header.number, *place);
            connection.member = true;
        }
        types::WORLD_DELTA..=types::EVENT => {
            let delta = header.frame_type == types::WORLD_DELTA;
            let prev = if delta { 0 } else { *place };
            *place += u64::from(!delta);
            let class = if delta { Class::Delta } else { Class::Reliable };
            let item = Item { class, key: 0, forgets: false, place: *place, prev };
            let kind = FrameKind { frame_type: header.frame_type, kind: header.kind };
            FramesEncoder.encode(RELAY, &item, kind, payload, batch);
            if header.number != 0 {
                write::ack(&mut connection.out, header.number);
            }
        }
        _ => {}
    }
}

/// The upgrade response.
pub fn upgrade_response(accept: &str) -> String {
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n\r\n"
    )
}

/// The canned WELCOME.
pub fn put_welcome(out: &mut Vec<u8>) {
    write::welcome(out, &Welcome { connection_id: "limit", session_id: "limit", ..Welcome::default() });
}

/// JOINED with the relay stream at its head.
pub fn put_joined(out: &mut Vec<u8>, correlation: u64, head: u64) {
    let position = Position { stream: Arc::from("relay/room:load-0"), epoch: 1, place: head };
    write::joined(out, correlation, ROOM, [&Introduction { handle: RELAY, position, publishers_only: false }], None);
}

/// The ring of provided buffers; both parts live as long as the server's ring.
struct Buffers {
    /// Page-aligned entries that the kernel reads, 16 bytes each.
    entries: *mut io_uring::types::BufRingEntry,
    layout: std::alloc::Layout,
    bytes: Box<[u8]>,
    tail: u16,
}

impl Buffers {
    fn register(ring: &IoUring) -> io::Result<Self> {
        let layout = std::alloc::Layout::from_size_align(usize::from(BUFFERS) * 16, 4096)
            .expect("8 KiB at a page's alignment is a layout");
        // SAFETY: the layout has a size above 0.
        let entries = unsafe { std::alloc::alloc_zeroed(layout) }.cast();
        let bytes = vec![0; usize::from(BUFFERS) * BUFFER_BYTES].into();
        let mut buffers = Self { entries, layout, bytes, tail: 0 };
        // SAFETY: `entries` is page-aligned, has `BUFFERS` entries, and outlives the ring: fields of `Server` are
        // dropped in order, the ring first.
        unsafe { ring.submitter().register_buf_ring_with_flags(entries as u64, BUFFERS, GROUP, 0)? };
        (0..BUFFERS).for_each(|id| buffers.release(id));
        buffers.publish();
        Ok(buffers)
    }

    fn bytes_mut(&mut self, id: u16, len: usize) -> &mut [u8] {
        let start = usize::from(id) * BUFFER_BYTES;
        &mut self.bytes[start..start + len]
    }

    /// Gives a buffer back; the kernel sees it after `publish`.
    fn release(&mut self, id: u16) {
        let address = self.bytes[usize::from(id) * BUFFER_BYTES..].as_mut_ptr() as u64;
        // SAFETY: the index is below `BUFFERS`; the kernel reads no entry beyond the published tail.
        let entry = unsafe { &mut *self.entries.add(usize::from(self.tail % BUFFERS)) };
        entry.set_addr(address);
        entry.set_len(BUFFER_BYTES as u32);
        entry.set_bid(id);
        self.tail = self.tail.wrapping_add(1);
    }

    fn publish(&mut self) {
        // SAFETY: the tail lies in the first entry's reserved field, 2-byte aligned; only this thread writes it, the
        // kernel reads it, hence the atomic store.
        let tail = unsafe {
            let tail = io_uring::types::BufRingEntry::tail(self.entries).cast_mut();
            std::sync::atomic::AtomicU16::from_ptr(tail)
        };
        tail.store(self.tail, std::sync::atomic::Ordering::Release);
    }
}

impl Drop for Buffers {
    fn drop(&mut self) {
        // SAFETY: allocated in `register` with this layout; the ring that read it is gone.
        unsafe { std::alloc::dealloc(self.entries.cast(), self.layout) };
    }
}
