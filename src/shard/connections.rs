//! The connection table, and how a call into a connection is made, carried out and settled.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::driver::Driver;
use super::{Shard, mutant};
use crate::id::{ConnAddr, ConnKey, NodeId, Scope};
use crate::message::{JoinRequest, Request, Start, StreamStart};
use crate::session::{Connection, Cx, Output, queue_context};
use crate::streams::Cursor;

/// Slots by index; a slot's generation names its life.
#[derive(Default)]
pub(super) struct Slots {
    slots: Vec<Slot>,
    free: Vec<u32>,
    used: usize,
}

/// A slot; the flags say what the driver was told.
#[derive(Default)]
pub(super) struct Slot {
    generation: u32,
    pub connection: Option<Box<Connection>>,
    /// In the dirty list.
    pub dirty: bool,
    /// A `Writable` is awaited; a flush before it would be refused.
    pub blocked: bool,
    /// In the waiting list.
    pub waiting: bool,
    reading: bool,
    fin_sent: bool,
    /// Counted against its client's address.
    newcomer: bool,
}

impl Slots {
    /// Takes a free slot for a new connection.
    pub fn insert(&mut self, connection: Box<Connection>) -> ConnKey {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            u32::try_from(self.slots.len() - 1).expect("descriptors run out before 2^32 slots")
        });
        self.used += 1;
        let entry = &mut self.slots[slot as usize];
        let generation = entry.generation;
        *entry = Slot { generation, connection: Some(connection), reading: true, newcomer: true, ..Slot::default() };
        ConnKey { slot, generation }
    }

    /// The driver says that the socket is closed: the slot may live again.
    pub fn free(&mut self, key: ConnKey) {
        let Some(slot) = self.slots.get_mut(key.slot as usize).filter(|slot| slot.generation == key.generation) else {
            return;
        };
        *slot = Slot { generation: (key.generation + 1) & ConnKey::GENERATION_MAX, ..Slot::default() };
        self.free.push(key.slot);
        self.used -= 1;
    }

    /// The slot's present key.
    pub fn key(&self, slot: u32) -> ConnKey {
        ConnKey { slot, generation: self.slots[slot as usize].generation }
    }

    /// The slot, if it lives that life and its connection was not ended.
    pub fn live(&mut self, key: ConnKey) -> Option<&mut Slot> {
        let slot = self.slots.get_mut(key.slot as usize)?;
        (slot.generation == key.generation && slot.connection.is_some()).then_some(slot)
    }

    /// The connection of that life.
    pub fn connection(&self, key: ConnKey) -> Option<&Connection> {
        let slot = self.slots.get(key.slot as usize).filter(|slot| slot.generation == key.generation)?;
        slot.connection.as_deref()
    }

    /// The slot, whatever its life; it must exist.
    pub fn get_mut(&mut self, slot: u32) -> &mut Slot {
        &mut self.slots[slot as usize]
    }

    /// Keys of the connections that were not ended.
    pub fn keys(&self) -> Vec<ConnKey> {
        let live = self.slots.iter().enumerate().filter(|(_, slot)| slot.connection.is_some());
        live.map(|(index, slot)| ConnKey { slot: index as u32, generation: slot.generation }).collect()
    }

    /// The connections that were not ended.
    pub fn connections(&self) -> impl Iterator<Item = &Connection> {
        self.slots.iter().filter_map(|slot| slot.connection.as_deref())
    }

    /// [`Slots::connections`] with their keys.
    pub fn entries(&self) -> impl Iterator<Item = (ConnKey, &Connection)> {
        let entry = |(index, slot): (usize, &Slot)| ConnKey { slot: index as u32, generation: slot.generation };
        let live = self.slots.iter().enumerate();
        live.filter_map(move |(index, slot)| Some((entry((index, slot)), slot.connection.as_deref()?)))
    }

    /// [`Slots::connections`], to call into without a context.
    pub fn connections_mut(&mut self) -> impl Iterator<Item = &mut Connection> {
        self.slots.iter_mut().filter_map(|slot| slot.connection.as_deref_mut())
    }

    /// The most slots there were in use at once.
    pub fn peak(&self) -> usize {
        self.slots.len()
    }

    /// Slots in use, those whose socket is being closed among them.
    pub fn len(&self) -> usize {
        self.used
    }

    pub fn is_empty(&self) -> bool {
        self.used == 0
    }
}

impl<D: Driver> Shard<D> {
    /// Calls into a connection, carries out what it wants and settles it; `None` if it is gone.
    pub(super) fn with<T>(&mut self, key: ConnKey, call: impl FnOnce(&mut Connection, &mut Cx<'_>) -> T) -> Option<T> {
        self.with_driver(key, |connection, cx, _| call(connection, cx))
    }

    /// [`Shard::with`] for calls that read in the driver's buffers.
    pub(super) fn with_driver<T>(
        &mut self,
        key: ConnKey,
        call: impl FnOnce(&mut Connection, &mut Cx<'_>, &mut D) -> T,
    ) -> Option<T> {
        let mut connection = self.slots.live(key)?.connection.take()?;
        let mut outputs = std::mem::take(&mut self.outputs);
        let result = {
            let Self {
                driver,
                port,
                settings,
                ledger,
                pool,
                newcomers,
                visits,
                stats,
                random,
                json,
                fields,
                stash_reserve,
                ..
            } = self;
            let mut cx = Cx {
                now: self.now,
                wall: self.wall,
                me: ConnAddr { shard: port.id(), conn: key },
                settings,
                ledger,
                pool,
                newcomers,
                visits,
                stats,
                json,
                fields,
                random: &mut || random.next(),
                stash_reserve,
                may_request: &|node| port.can_request(node) && port.deliver_clear(),
                out: &mut outputs,
            };
            call(&mut connection, &mut cx, driver)
        };
        self.slots.get_mut(key.slot).connection = Some(connection);
        for output in outputs.drain(..) {
            self.carry_out(key, output);
        }
        self.outputs = outputs;
        self.settle(key);
        Some(result)
    }

    fn carry_out(&mut self, key: ConnKey, output: Output) {
        match output {
            Output::Request(node, request) => self.port.request(node, request),
            Output::Verify => self.verify.push_back(key),
            Output::Identify { user, session, publisher } => {
                self.members.identify(key.slot, user, session, publisher);
            }
            Output::Join { scope, session, publisher, admitted, entry, resume } => {
                let resumes = self.slots.connection(key).is_some_and(Connection::is_resuming);
                if resumes && self.resuming.last() != Some(&key) {
                    self.note_resuming(key);
                }
                self.members.expect_join(&scope);
                let from = ConnAddr { shard: self.port.id(), conn: key };
                let home = scope.home(self.settings.shards);
                let join = JoinRequest { from, session, scope, publisher, admitted, entry, resume };
                self.port.request(home, Request::Join(Box::new(join)));
            }
            Output::Confirm { scope, streams } => self.confirm(key, &scope, &streams),
            Output::Decline { scope } => {
                if self.members.join_answered(&scope) {
                    self.leave_home(scope);
                }
            }
            Output::Leave { .. } if mutant!(self.settings, KeptSeat) => {}
            Output::Leave { scope } => {
                if self.members.leave(key.slot, &scope) {
                    self.leave_home(scope);
                }
            }
            Output::Detach => {
                for scope in self.members.remove(key.slot) {
                    self.leave_home(scope);
                }
            }
        }
    }

    /// Those that have resumed are forgotten before the list grows, so that it is never twice as long as it must be.
    fn note_resuming(&mut self, key: ConnKey) {
        if self.resuming.len() >= self.resuming_bound {
            let slots = &self.slots;
            self.resuming.retain(|key| slots.connection(*key).is_some_and(Connection::is_resuming));
            self.resuming_bound = (2 * self.resuming.len()).max(super::RESUMING_MIN);
        }
        self.resuming.push(key);
    }

    fn confirm(&mut self, key: ConnKey, scope: &Scope, streams: &[StreamStart]) {
        self.members.confirm(key.slot, scope, streams.iter().map(|start| Arc::clone(&start.introduction)));
        for start in streams {
            let stream = start.introduction.handle;
            let beginning = mutant!(self.settings, JoinAtBeginning);
            match if beginning { Start::Behind(0) } else { start.start } {
                Start::Live => {
                    self.members.seat(key.slot, stream, true);
                }
                Start::Behind(place) | Start::Anew(place) => {
                    if self.members.seat(key.slot, stream, false)
                        && let Some(connection) = &mut self.slots.get_mut(key.slot).connection
                    {
                        connection.cursors.push(Cursor::new(stream, place));
                    }
                }
                Start::Lost(_) => debug_assert!(false, "a lost position was replaced by the head before"),
            }
        }
        if self.members.join_answered(scope) {
            self.leave_home(scope.clone());
        }
    }

    pub(super) fn leave_home(&mut self, scope: Scope) {
        let home = scope.home(self.settings.shards);
        let from = self.port.id();
        self.port.request(home, Request::Leave { scope, from });
    }

    /// Brings the driver, the lists and the timers in line with what the connection now is.
    pub(super) fn settle(&mut self, key: ConnKey) {
        self.pull(key);
        let Some(slot) = self.slots.live(key) else { return };
        let Some(connection) = slot.connection.as_deref_mut() else { return };
        if slot.newcomer && !connection.is_newcomer() {
            slot.newcomer = false;
            self.newcomers.leave(key.slot);
        }
        let reading = connection.wants_reads();
        if reading != std::mem::replace(&mut slot.reading, reading) {
            if reading { self.driver.resume_reads(key) } else { self.driver.pause_reads(key) }
        }
        if connection.has_sendable() && !slot.dirty && !slot.blocked {
            slot.dirty = true;
            self.dirty.push(key.slot);
        }
        if connection.is_waiting() && !slot.waiting {
            slot.waiting = true;
            self.waiting.push(key.slot);
        }
        let deadline = connection.next_deadline(&self.settings);
        if deadline < connection.timer {
            connection.timer = deadline;
            self.timers.insert(deadline, key);
        }
        if connection.is_flushed_and_closing() && !slot.fin_sent {
            slot.fin_sent = true;
            self.driver.shutdown_write(key);
        }
        let early = mutant!(self.settings, EarlyClose) && connection.is_closing();
        if connection.is_over(self.now) || early {
            let Self { ledger, pool, stats, settings, .. } = self;
            let dialect = connection.dialect();
            connection.queue.abandon(&mut queue_context(dialect, self.now, settings, ledger, pool, stats));
            slot.connection = None;
            self.driver.close(key);
            self.node.connections.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Sends the pulls of a connection that catches up.
    fn pull(&mut self, key: ConnKey) {
        let Some(connection) = self.slots.live(key).and_then(|slot| slot.connection.as_deref_mut()) else { return };
        let me = ConnAddr { shard: self.port.id(), conn: key };
        let port = &self.port;
        let may_request = |node: NodeId| port.can_request(node);
        for (home, pull) in connection.pulls(me, &self.settings, &may_request) {
            self.port.request(home, Request::Pull(Box::new(pull)));
        }
    }
}
