//! The traits that peers meet in: a peer's thread owns an implementation and knows nothing of the others.

use std::sync::Arc;
use std::task::Waker;

use crate::message::{Append, ErrorCode, PresenceReply, PresenceRequest};
use crate::time::{Monotonic, WallMillis};

/// Presence and session records. Requests of one sender are carried out in order; a remote store answers later,
/// through [`Presence::poll`].
pub trait Presence: Send {
    /// Carries out or starts a request.
    fn handle(&mut self, now: Monotonic, request: PresenceRequest, replies: &mut Vec<PresenceReply>);

    /// Does what time has brought (expiry, answers of a remote store); returns when to call again.
    fn poll(&mut self, now: Monotonic, replies: &mut Vec<PresenceReply>) -> Monotonic;
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

/// A log of topics. Appending is accepted or refused; reading is pulled, so the bus never waits for a reader.
pub trait Bus: Send {
    /// What an acknowledgement means here.
    fn durability(&self) -> Durability;

    /// The numbering of a topic; < 2^53.
    fn epoch(&self, topic: &str) -> u64;

    /// Appends a record or starts to.
    ///
    /// # Errors
    /// `Unavailable` while the topic cannot take more without evicting what an active service has not read.
    fn append(&mut self, now: WallMillis, append: &Append) -> Result<(), ErrorCode>;

    /// Copies out at most `max` records of the topic from `offset` on; returns the offset to go on from.
    fn read(&mut self, topic: &str, offset: u64, max: usize, out: &mut Vec<Record>) -> u64;

    /// This reader has dealt with every record of the topic below `offset`: they may be evicted.
    fn done(&mut self, topic: &str, offset: u64);
}

/// A log looked at by somebody whom nothing waits for: what they have not seen may be evicted. Nothing here blocks for
/// longer than it takes to copy what is asked for.
pub trait LogView: Send + Sync {
    /// The numbering of a topic; < 2^53.
    fn epoch(&self, topic: &str) -> u64;

    /// The offset of the oldest record kept, and the offset that the next record gets.
    fn range(&self, topic: &str) -> (u64, u64);

    /// Copies out at most `max` records of the topic from `offset` on, from the oldest one kept if that is later.
    fn look(&self, topic: &str, offset: u64, max: usize, out: &mut Vec<Record>);

    /// Wakes once, when the topic gets its next record; a waker that is known already is kept once.
    fn watch(&self, topic: &str, waker: &Waker);
}
