//! A nonblocking TCP connection with what is cut off at its ends: the start of a frame, and bytes not yet taken.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};

use rustix::fd::OwnedFd;
use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto};

use super::wire;

/// Bytes of a thread's read buffer; more than the longest frame that is accepted.
pub const BUFFER_BYTES: usize = 256 << 10;

/// One connection.
#[derive(Debug)]
pub struct Link {
    stream: TcpStream,
    carry: Vec<u8>,
    out: Vec<u8>,
    written: usize,
    masks: u32,
}

/// What a read brought.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Received {
    /// The buffer's first bytes, how many of them are new, and whether the socket is drained.
    Bytes(usize, usize, bool),
    /// Nothing for now.
    Nothing,
    /// The end.
    End,
}

impl Link {
    /// Begins to connect; the first write or read tells how it went.
    ///
    /// # Errors
    /// No descriptor or no port left.
    pub fn connect(address: SocketAddr) -> io::Result<Self> {
        let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket: OwnedFd = rustix::net::socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP))?;
        match rustix::net::connect(&socket, &address) {
            Ok(()) | Err(rustix::io::Errno::INPROGRESS) => {}
            Err(error) => return Err(error.into()),
        }
        let stream = TcpStream::from(socket);
        stream.set_nodelay(true)?;
        Ok(Self { stream, carry: Vec::new(), out: Vec::new(), written: 0, masks: 0x9e37_79b9 })
    }

    /// The socket.
    #[must_use]
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Bytes that wait to be written.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.out.len() - self.written
    }

    /// Queues bytes as they are.
    pub fn put(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    /// Queues a masked frame of `len` payload bytes.
    pub fn put_frame(&mut self, opcode: u8, len: usize, write: impl FnOnce(&mut Vec<u8>)) {
        self.masks = self.masks.wrapping_mul(0x9e37_79b1).wrapping_add(1);
        wire::put_masked(&mut self.out, opcode, self.masks.to_le_bytes(), len, write);
    }

    /// Queues a binary frame that `write` makes in `scratch`.
    pub fn put_binary(&mut self, scratch: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
        scratch.clear();
        write(scratch);
        self.put_frame(wire::opcode::BINARY, scratch.len(), |out| out.extend_from_slice(scratch));
    }

    /// Writes what the kernel takes.
    ///
    /// # Errors
    /// The connection is gone.
    pub fn flush(&mut self) -> io::Result<()> {
        while self.written < self.out.len() {
            match self.stream.write(&self.out[self.written..]) {
                Ok(n) => self.written += n,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.out.clear();
        self.written = 0;
        Ok(())
    }

    /// Puts what was kept and at most `limit` new bytes at the front of the buffer, which has `BUFFER_BYTES`.
    ///
    /// # Errors
    /// The connection is gone.
    pub fn receive(&mut self, buffer: &mut [u8], limit: usize) -> io::Result<Received> {
        let kept = self.carry.len();
        let end = buffer.len().min(kept.saturating_add(limit));
        loop {
            match self.stream.read(&mut buffer[kept..end]) {
                Ok(0) => return Ok(Received::End),
                Ok(n) => {
                    buffer[..kept].copy_from_slice(&self.carry);
                    self.carry.clear();
                    return Ok(Received::Bytes(kept + n, n, kept + n < end));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Received::Nothing),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Keeps the start of a frame for the next read.
    pub fn keep(&mut self, rest: &[u8]) {
        self.carry.extend_from_slice(rest);
    }
}
