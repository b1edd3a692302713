//! One thread of a run: an edge-triggered epoll loop over its clients. It allocates nothing per message once every
//! connection's buffers have grown to what they need.

use std::io;
use std::sync::atomic::Ordering;

use rustix::event::{Timespec, epoll};
use rustix::fd::OwnedFd;

use super::link::BUFFER_BYTES;
use super::session::{Client, Step};
use super::shared::{Measured, Phase, Shared};

/// A thread's clients with their index in the run, ascending.
#[derive(Debug)]
pub struct Worker<'a> {
    shared: &'a Shared,
    thread: usize,
    clients: Vec<(usize, Client)>,
    epoll: OwnedFd,
    buffer: Box<[u8]>,
    scratch: Vec<u8>,
    measured: Measured,
    /// Clients before this one have begun to connect once.
    begun: usize,
    connecting: usize,
    /// The client to look at next for a connection to begin; below `begun` unless that is 0.
    next: usize,
    phase: Phase,
    next_tick_ns: u64,
    published: u64,
}

/// How often slow readers, new connections and the end of the drain are looked at.
const TICK_NS: u64 = 5_000_000;
/// How long a thread sleeps at most.
const SLEEP_NS: u64 = 20_000_000;
const EVENTS: usize = 1024;

impl<'a> Worker<'a> {
    /// A thread's state.
    ///
    /// # Errors
    /// No descriptor left.
    pub fn new(shared: &'a Shared, thread: usize, clients: Vec<(usize, Client)>) -> io::Result<Self> {
        Ok(Self {
            shared,
            thread,
            clients,
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            buffer: vec![0; BUFFER_BYTES].into(),
            scratch: Vec::new(),
            measured: Measured::new(),
            begun: 0,
            connecting: 0,
            next: 0,
            phase: Phase::Connect,
            next_tick_ns: 0,
            published: 0,
        })
    }

    /// Runs until the main thread stops it; returns what was measured.
    ///
    /// # Errors
    /// The epoll descriptor failed.
    pub fn run(mut self) -> io::Result<Measured> {
        let mut events = Vec::with_capacity(EVENTS);
        loop {
            let phase = self.shared.phase();
            if phase == Phase::Stop {
                return Ok(self.finish());
            }
            if phase != self.phase {
                self.enter(phase);
            }
            let now = self.shared.now();
            if now >= self.next_tick_ns {
                self.tick(now);
                self.next_tick_ns = now + TICK_NS;
            }
            let due = self.send().min(self.next_tick_ns).min(now + SLEEP_NS);
            let wait = due.saturating_sub(self.shared.now());
            let timeout = Timespec { tv_sec: 0, tv_nsec: wait.cast_signed() };
            events.clear();
            match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), Some(&timeout)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            let connecting = self.connecting;
            for event in &events {
                let at = event.data.u64() as usize;
                self.with(at, |client, buffer, step| client.on_ready(buffer, step));
            }
            if self.connecting < connecting {
                // Attempts that ended make room for others.
                self.connect(self.shared.now());
            }
            let delivered = self.measured.deliveries;
            if delivered != self.published {
                self.shared.delivered.fetch_add(delivered - self.published, Ordering::Relaxed);
                self.published = delivered;
            }
        }
    }

    /// Lends a client what it works with, and counts whether it is connecting.
    fn with<R>(&mut self, at: usize, act: impl FnOnce(&mut Client, &mut [u8], &mut Step<'_>) -> R) -> R {
        let client = &mut self.clients[at].1;
        let was = client.is_connecting();
        let now = self.shared.now();
        let mut step = Step { shared: self.shared, measured: &mut self.measured, scratch: &mut self.scratch, now };
        let result = act(client, &mut self.buffer, &mut step);
        match (was, client.is_connecting()) {
            (true, false) => self.connecting -= 1,
            (false, true) => self.connecting += 1,
            _ => {}
        }
        result
    }

    fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        if phase == Phase::Reconnect {
            (0..self.clients.len()).for_each(|at| {
                self.with(at, |client, _, step| {
                    if !client.is_sender() {
                        client.drop_connection(step);
                    }
                })
            });
        }
        if phase == Phase::Drain {
            self.shared.draining.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// Publishers first have their index, so they stand first in their thread.
    fn send(&mut self) -> u64 {
        let mut due = u64::MAX;
        for at in 0..self.clients.len() {
            if !self.clients[at].1.is_sender() {
                break;
            }
            due = due.min(self.with(at, |client, _, step| client.on_time(step)));
        }
        due
    }

    fn tick(&mut self, now: u64) {
        self.connect(now);
        for at in 0..self.begun {
            if self.clients[at].1.is_throttled() {
                self.with(at, |client, buffer, step| client.on_ready(buffer, step));
            }
        }
        let draining = self.shared.draining.load(Ordering::Acquire);
        if self.phase == Phase::Drain && draining == self.shared.options.threads {
            let pending = self.clients.iter().filter(|(_, client)| client.is_pending(self.shared)).count();
            self.shared.pending[self.thread].store(pending, Ordering::Release);
        }
    }

    /// Begins connections as far as the run and the bound on attempts at once allow.
    fn connect(&mut self, now: u64) {
        let allowed = self.shared.allowed.load(Ordering::Acquire);
        let at_once = self.shared.options.concurrency.div_ceil(self.shared.options.threads);
        while self.begun < self.clients.len() && self.clients[self.begun].0 < allowed {
            self.begun += 1;
        }
        for _ in 0..self.begun {
            if self.connecting >= at_once {
                return;
            }
            // Goes round, so that a storm does not scan everybody for each one.
            let at = self.next;
            self.next = (self.next + 1) % self.begun;
            if self.clients[at].1.wants_connection(now) && !self.begin(at) {
                return;
            }
        }
    }

    fn begin(&mut self, at: usize) -> bool {
        let now = self.shared.now();
        let step = Step { shared: self.shared, measured: &mut self.measured, scratch: &mut self.scratch, now };
        let flags = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::ET;
        let data = epoll::EventData::new_u64(at as u64);
        let outcome = self.clients[at]
            .1
            .connect(&step)
            .and_then(|socket| epoll::add(&self.epoll, socket, data, flags).map_err(io::Error::from));
        self.connecting += usize::from(outcome.is_ok());
        if let Err(error) = &outcome {
            self.shared.fail(format!(
                "cannot open connection {}: {error}; raise `ulimit -n`, or widen net.ipv4.ip_local_port_range",
                self.clients[at].0 + 1
            ));
        }
        outcome.is_ok()
    }

    fn finish(mut self) -> Measured {
        let sent = self.shared.sent();
        for (_, client) in std::mem::take(&mut self.clients) {
            client.finish(self.shared, &sent, &mut self.measured);
        }
        self.measured
    }
}
