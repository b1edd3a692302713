//! The traits that peers meet in: a peer's thread owns an implementation and knows nothing of the others.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::Waker;
use std::thread::{self, Thread};

use crate::id::EventId;
use crate::message::{Append, ErrorCode, HubChange, HubMessage, Kick, PresenceChange, PresenceReply, PresenceRequest};
use crate::time::{Monotonic, WallMillis};

/// Presence and session records. Requests of one sender are carried out in order; a remote store answers later,
/// through [`Presence::poll`].
pub trait Presence: Send {
    /// Carries out or starts a request.
    fn handle(&mut self, now: Monotonic, request: PresenceRequest, replies: &mut Vec<PresenceReply>);

    /// Does what time has brought (expiry, answers of a remote store); returns when to call again.
    fn poll(&mut self, now: Monotonic, replies: &mut Vec<PresenceReply>) -> Monotonic;

    /// How many requests may be handled before [`Presence::settle`] must be called and replies leave.
    fn group(&self) -> usize {
        1
    }

    /// Puts what was handled where it survives this process, if there is such a place; replies leave behind it. `told`:
    /// what [`Presence::changes`] gave so far has reached all who were to be told, for good.
    fn settle(&mut self, _now: Monotonic, _told: bool) {}

    /// Takes what has changed since it was asked last, in order, if it was told to keep that.
    fn changes(&mut self, out: &mut Vec<PresenceChange>);

    /// Takes what has changed of hubs since it was asked last, in order, if it was told to keep that.
    fn hub_changes(&mut self, out: &mut Vec<HubChange>);

    /// A chat message stands in a hub's stream of `rooms.events`.
    fn said(&mut self, room: &str, message: HubMessage);

    /// `rooms.events` has another numbering: no place of what was said before means anything any more.
    fn renumbered(&mut self);

    /// Carries out those of these kicks that a former process did not live to. To be called before anybody is served.
    fn carry_out(&mut self, _now: Monotonic, _kicks: Vec<Kick>) {}

    /// The bus has accepted all that was taken by [`Presence::changes`] and [`Presence::hub_changes`].
    fn announced(&mut self, _replies: &mut Vec<PresenceReply>) {}

    /// The node ends, and nobody asks anything any more: what is still on its way to a remote store goes there. Call it
    /// again until it says that nothing is left.
    fn finish(&mut self, _now: Monotonic) -> bool {
        true
    }
}

impl<P: Presence + ?Sized> Presence for Box<P> {
    fn handle(&mut self, now: Monotonic, request: PresenceRequest, replies: &mut Vec<PresenceReply>) {
        (**self).handle(now, request, replies);
    }

    fn poll(&mut self, now: Monotonic, replies: &mut Vec<PresenceReply>) -> Monotonic {
        (**self).poll(now, replies)
    }

    fn group(&self) -> usize {
        (**self).group()
    }

    fn settle(&mut self, now: Monotonic, told: bool) {
        (**self).settle(now, told);
    }

    fn carry_out(&mut self, now: Monotonic, kicks: Vec<Kick>) {
        (**self).carry_out(now, kicks);
    }

    fn changes(&mut self, out: &mut Vec<PresenceChange>) {
        (**self).changes(out);
    }

    fn hub_changes(&mut self, out: &mut Vec<HubChange>) {
        (**self).hub_changes(out);
    }

    fn said(&mut self, room: &str, message: HubMessage) {
        (**self).said(room, message);
    }

    fn renumbered(&mut self) {
        (**self).renumbered();
    }

    fn announced(&mut self, replies: &mut Vec<PresenceReply>) {
        (**self).announced(replies);
    }

    fn finish(&mut self, now: Monotonic) -> bool {
        (**self).finish(now)
    }
}

/// How long this node may take its sessions for its own: until a moment that whoever keeps its lease moves on. When it
/// has passed, others may take them over, so every connection that has one is closed before its next byte is read
/// (DELIVERY §6). Shared by all threads of a node.
#[derive(Debug)]
pub struct Lease {
    until: AtomicU64,
    /// Leases that ran out; the sessions of each are closed, even if the next is there before anybody looked.
    lapses: AtomicU64,
}

impl Lease {
    /// One that never ends: presence is this process's own.
    #[must_use]
    pub fn endless() -> Self {
        Self { until: AtomicU64::new(u64::MAX), lapses: AtomicU64::new(0) }
    }

    /// Moves its end.
    pub fn extend(&self, until: Monotonic) {
        self.until.store(until.as_nanos(), Ordering::Release);
    }

    /// It has run out, whether or not somebody has seen it.
    pub fn lapse(&self) {
        self.lapses.fetch_add(1, Ordering::AcqRel);
    }

    /// When it ends.
    #[must_use]
    pub fn until(&self) -> Monotonic {
        Monotonic::from_nanos(self.until.load(Ordering::Acquire))
    }

    /// How many have run out by now, the present one included.
    #[must_use]
    pub fn lapses(&self, now: Monotonic) -> u64 {
        let is_over = now >= self.until();
        self.lapses.load(Ordering::Acquire) + u64::from(is_over)
    }
}

/// The wish that the token keys which others publish be read again, because a token names a key that is not among them.
/// Shards have it, one thread fulfils it. Whatever strangers send, a wish is granted only so often.
#[derive(Default, Debug)]
pub struct KeyWish {
    state: AtomicU8,
    urgent: AtomicBool,
    /// The newest reading; the start's is 0.
    newest: AtomicU64,
    reader: OnceLock<Thread>,
}

impl KeyWish {
    /// Wishes, on behalf of somebody who has the keys of reading `known`; whether a newer one may bring the key. `false` if
    /// this one is as new as can be for now.
    pub fn make(&self, known: u64) -> bool {
        let outcome = self.state.compare_exchange(Self::NONE, Self::OPEN, Ordering::AcqRel, Ordering::Acquire);
        match outcome {
            Ok(_) => self.wake(),
            Err(Self::OPEN) => {}
            // Its keys may still be on their way to whoever asks.
            Err(_) => return self.newest.load(Ordering::Acquire) > known,
        }
        true
    }

    /// Has them read at once, however often that was done.
    pub fn insist(&self) {
        self.urgent.store(true, Ordering::Release);
        self.wake();
    }

    /// Whether somebody has insisted since this was asked last.
    #[must_use]
    pub fn is_urgent(&self) -> bool {
        self.urgent.swap(false, Ordering::AcqRel)
    }

    /// The calling thread is the one that reads.
    pub fn attend(&self) {
        let _ = self.reader.set(thread::current());
    }

    /// Whether there is one to be fulfilled.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.state.load(Ordering::Acquire) == Self::OPEN
    }

    /// The keys were read for the `reading`th time after the start; if that was by a wish, no other is granted for now.
    pub fn answered(&self, reading: u64, by_wish: bool) {
        self.newest.store(reading, Ordering::Release);
        if by_wish {
            self.state.store(Self::RESTING, Ordering::Release);
        }
    }

    /// They could not be read: a wish stands until they can, so that whoever comes with another key is told to come again.
    pub fn failed(&self) {
        self.state.store(Self::OPEN, Ordering::Release);
    }

    /// Wishes are granted again.
    pub fn rested(&self) {
        let _ = self.state.compare_exchange(Self::RESTING, Self::NONE, Ordering::AcqRel, Ordering::Acquire);
    }

    fn wake(&self) {
        // A reader that does not attend yet looks before it waits.
        if let Some(reader) = self.reader.get() {
            reader.unpark();
        }
    }

    const NONE: u8 = 0;
    const OPEN: u8 = 1;
    const RESTING: u8 = 2;
}

/// How long an accepted command survives; named in the welcome and in `/ready`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Durability {
    /// As long as the process.
    Memory,
    /// On this machine's disk.
    Disk,
    /// On Kafka, as configured there.
    Kafka,
}

impl Durability {
    /// The wire name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Disk => "disk",
            Self::Kafka => "kafka",
        }
    }
}

/// A record of a topic.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Record {
    /// Offset in its partition, from 0.
    pub offset: u64,
    /// When it was accepted.
    pub timestamp: WallMillis,
    /// Partition key.
    pub key: Arc<[u8]>,
    /// The envelope.
    pub value: Arc<[u8]>,
}

/// How an append was taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Accepted {
    /// It is accepted under the bus's durability.
    Now,
    /// It is under way; [`Bus::completed`] says when it is accepted, or that it is not.
    Pending(Ticket),
}

/// Names an append of one handle until it is completed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Ticket(pub u64);

/// The end of a pending append.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Completed {
    /// Which.
    pub ticket: Ticket,
    /// Accepted, or `Unavailable`: it is not in the log, as far as the bus can tell.
    pub outcome: Result<(), ErrorCode>,
}

/// A log of topics. Appending is accepted or refused, at once or later; reading is pulled, so the bus never waits for a
/// reader, and nobody reads what is not accepted. Each thread has a handle of its own.
///
/// A topic has one or more partitions, each numbered by itself. Readers name the first as the topic, the others as
/// [`partition_name`] says; who appends names the topic, and the key chooses.
///
/// Law of pending appends: a handle's are completed in the order in which they were made; when one fails, so do all
/// behind it, and every further append of the handle is refused until [`Bus::completed`] was called. So whoever appends
/// the failed ones again, in order, keeps the order within each partition: what is behind a failure there is not in the
/// log, or as far as nobody could tell it stands there twice. What had gone to other partitions comes twice too. Only a
/// handle made for independent senders completes each as it ends, so that a partition that stands still holds up no other.
pub trait Bus: Send {
    /// What an acknowledgement means here.
    fn durability(&self) -> Durability;

    /// Partitions that the topic has, ≥ 1; it may get more, which are read from their beginning.
    fn partitions(&self, _topic: &str) -> u32 {
        1
    }

    /// The numbering of a topic; < 2^53. It is that of the records that [`Bus::read`] gave last.
    fn epoch(&self, topic: &str) -> u64;

    /// Appends a record or starts to.
    ///
    /// # Errors
    /// `Unavailable` while the topic cannot take more without evicting what an active service has not read, or the bus
    /// cannot be reached or written; the handle's thread is woken when it may be tried again. `TooLong` for a record
    /// that it never takes.
    fn append(&mut self, now: WallMillis, append: &Append) -> Result<Accepted, ErrorCode>;

    /// Moves the ends of pending appends out, in order. The handle's thread is woken when there are some.
    fn completed(&mut self, out: &mut Vec<Completed>);

    /// Offset of the topic's oldest record that can be read, and the one its next record gets.
    fn range(&self, topic: &str) -> (u64, u64);

    /// An offset from which on all records not older than `since` are read: that of their first, or one before it.
    fn since(&self, topic: &str, since: WallMillis) -> u64;

    /// Copies out at most `max` records of the topic from `offset` on, at least one if there is one here; returns the
    /// offset to go on from. A remote bus may have none here yet that [`Bus::range`] tells of: the handle's thread is
    /// woken when they come. Where the numbering has become another, it goes on at the beginning of that, and
    /// [`Bus::epoch`] names it.
    fn read(&mut self, topic: &str, offset: u64, max: usize, out: &mut Vec<Record>) -> u64;

    /// This reader has dealt with every record of the topic below `offset`: they may be evicted.
    fn done(&mut self, topic: &str, offset: u64);
}

/// What readers call a topic's partition: the first has the topic's name, another `<topic>/<number>`; no topic has a
/// slash in its name.
#[must_use]
pub fn partition_name(topic: &str, partition: u32) -> Arc<str> {
    if partition == 0 { topic.into() } else { format!("{topic}/{partition}").into() }
}

/// Topic and partition of what [`partition_name`] made.
#[must_use]
pub fn topic_and_partition(name: &str) -> (&str, u32) {
    let parts = name.split_once('/').and_then(|(topic, number)| Some((topic, number.parse().ok()?)));
    parts.unwrap_or((name, 0))
}

/// A topic of a remote bus, as its cluster describes it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Described {
    /// The cluster's id of this topic, another one when it is made again.
    pub id: Arc<str>,
    /// How many partitions it has.
    pub partitions: u32,
}

/// A log cannot be read at some place; it has said so to its operator.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Unreadable;

/// A log looked at by somebody whom nothing waits for: what they have not seen may be evicted. Nothing here blocks for
/// longer than it takes to copy what is asked for, from the disk if it is there alone.
pub trait LogView: Send + Sync {
    /// Where topics are to be looked at instead, in words; `None` if it is here.
    fn elsewhere(&self) -> Option<String> {
        None
    }

    /// The numbering of a topic; < 2^53.
    fn epoch(&self, topic: &str) -> u64;

    /// The offset of the oldest record that can be read, and the offset that the next record gets.
    fn range(&self, topic: &str) -> (u64, u64);

    /// Copies out at most `max` records of the topic from `offset` on, from the oldest one kept if that is later, and at
    /// least one if there is one.
    ///
    /// # Errors
    /// If the log cannot be read there; it is the same for as long as that is so.
    fn look(&self, topic: &str, offset: u64, max: usize, out: &mut Vec<Record>) -> Result<(), Unreadable>;

    /// Wakes once, when the topic gets its next record; a waker that is known already is kept once.
    fn watch(&self, topic: &str, waker: &Waker);
}

impl<B: Bus + ?Sized> Bus for Box<B> {
    fn durability(&self) -> Durability {
        (**self).durability()
    }

    fn partitions(&self, topic: &str) -> u32 {
        (**self).partitions(topic)
    }

    fn epoch(&self, topic: &str) -> u64 {
        (**self).epoch(topic)
    }

    fn append(&mut self, now: WallMillis, append: &Append) -> Result<Accepted, ErrorCode> {
        (**self).append(now, append)
    }

    fn completed(&mut self, out: &mut Vec<Completed>) {
        (**self).completed(out);
    }

    fn range(&self, topic: &str) -> (u64, u64) {
        (**self).range(topic)
    }

    fn since(&self, topic: &str, since: WallMillis) -> u64 {
        (**self).since(topic, since)
    }

    fn read(&mut self, topic: &str, offset: u64, max: usize, out: &mut Vec<Record>) -> u64 {
        (**self).read(topic, offset, max, out)
    }

    fn done(&mut self, topic: &str, offset: u64) {
        (**self).done(topic, offset);
    }
}

/// What outlives a process: the services' records (DELIVERY §7) and the history tables of PROTOCOLS B. A call may wait
/// for a disk, so that only workers and the control thread own one.
pub trait Store: Send {
    /// Every record of a service, by key.
    ///
    /// # Errors
    /// If the store cannot be read.
    fn load(&mut self, service: &str) -> Result<Vec<(String, Vec<u8>)>, StoreError>;

    /// Carries out all the writes, in order, or none of them.
    ///
    /// # Errors
    /// If nothing was written; the same batch may be tried again.
    fn write(&mut self, batch: &[Write]) -> Result<(), StoreError>;

    /// The newest `max` messages of a conversation, the oldest of them first.
    ///
    /// # Errors
    /// If the store cannot be read.
    fn messages(&mut self, room: &str, max: usize) -> Result<Vec<ChatMessage>, StoreError>;
}

/// A change of the store.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Write {
    /// A service's record, in place of an earlier one of the key.
    Put {
        /// The service.
        service: &'static str,
        /// The record's name within the service.
        key: Box<str>,
        /// JSON.
        value: Box<[u8]>,
    },
    /// A service's record goes; nothing happens if there is none.
    Remove {
        /// The service.
        service: &'static str,
        /// The record's name within the service.
        key: Box<str>,
    },
    /// A row of `rooms`, in place of an earlier one.
    Room {
        /// Room id.
        room: Box<str>,
        /// The code that players type.
        code: Box<str>,
        /// Capacity.
        max_players: u32,
        /// When it was made.
        at: WallMillis,
    },
    /// A room ends: its rows of all tables go.
    RemoveRoom {
        /// Room id.
        room: Box<str>,
    },
    /// A row of `room_players`, in place of an earlier one of the player.
    Player {
        /// Room id.
        room: Box<str>,
        /// Player id.
        player: Box<str>,
        /// Display name.
        name: Box<str>,
        /// When the player came.
        at: WallMillis,
    },
    /// A row of `chat_messages`; one of the same id is kept as it is.
    Message(Box<ChatMessage>),
}

/// A row of `chat_messages` with its sender's name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ChatMessage {
    /// The command's id: what is done again is stored once.
    pub id: EventId,
    /// Room id; of a private conversation, its name (see [`crate::services::chat`]).
    pub room: Box<str>,
    /// Who said it.
    pub sender: Box<str>,
    /// The sender's display name then.
    pub sender_name: Box<str>,
    /// What was said.
    pub message: Box<str>,
    /// When.
    pub at: WallMillis,
}

/// Why a server of somebody else's is not of use as it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CheckError {
    /// One line with place and remedy.
    pub text: String,
    /// Whether it will not mend by itself, as an unreachable server may.
    pub refused: bool,
}

impl fmt::Display for CheckError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Why the store did not do what it was asked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoreError {
    /// What it was about, e.g. the file.
    pub place: String,
    /// What went wrong there, with the remedy where there is one.
    pub cause: String,
    /// Nothing can be written by this handle any more: another process writes in its place, or it must be opened anew.
    pub lost: bool,
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "store {}: {}", self.place, self.cause)
    }
}

impl std::error::Error for StoreError {}

#[cfg(test)]
mod tests {
    use super::*;

    /// A partition's name leads back to its topic and number.
    #[test]
    fn partitions_have_names() {
        for (topic, partition, name) in [("t", 0, "t"), ("t", 1, "t/1"), ("a.b", 12, "a.b/12")] {
            assert_eq!(&*partition_name(topic, partition), name);
            assert_eq!(topic_and_partition(name), (topic, partition));
        }
    }
}
