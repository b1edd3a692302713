//! A bus, a store and a password pool that outlive the worker, and fail when they are told to.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};

use super::*;
use crate::ports::{ChatMessage, Durability, partition_name};
use crate::services::rooms::{Task, Work};

/// What survives a crash.
#[derive(Default)]
pub struct Disk {
    pub topics: BTreeMap<String, Vec<Record>>,
    pub records: BTreeMap<(String, String), Vec<u8>>,
    pub messages: BTreeMap<EventId, ChatMessage>,
    pub done: BTreeMap<String, u64>,
    /// Partitions of each command topic beside the first.
    pub more_partitions: u32,
    /// Appends and transactions until everything fails; `None` = never.
    pub fuse: Option<usize>,
    /// Appends until the bus is full; `None` = never.
    pub room_for: Option<usize>,
    /// The topic and the offset behind which nothing can be read; and the most records that were read at once.
    pub unreadable: Option<(&'static str, u64)>,
    pub read_most: usize,
    /// Whether appends end later.
    pub later: bool,
    /// Appends that were begun, and those whose end nobody knows yet.
    pub begun: u64,
    pub ended: Vec<Completed>,
    /// The next append that is to end ends badly, and all behind it.
    pub fail_next: bool,
}

impl Disk {
    /// Whether the next operation succeeds.
    fn burn(&mut self) -> bool {
        match &mut self.fuse {
            Some(0) => false,
            Some(left) => {
                *left -= 1;
                true
            }
            None => true,
        }
    }

    pub fn put(&mut self, topic: &str, at: u64, value: impl Into<Vec<u8>>) {
        let records = self.topics.entry(topic.into()).or_default();
        let (offset, value) = (records.len() as u64, value.into().into());
        records.push(Record { offset, timestamp: WallMillis(at), key: (*b"").into(), value });
    }

    /// The same in the partition of a user's commands.
    pub fn put_of(&mut self, topic: &str, user: u8, at: u64, value: impl Into<Vec<u8>>) {
        let partition = u32::from(user) % (self.more_partitions + 1);
        self.put(&partition_name(topic, partition), at, value);
    }

    /// The envelopes on all partitions of a topic.
    pub fn all_texts(&self, topic: &str) -> Vec<String> {
        (0..=self.more_partitions).flat_map(|partition| self.texts(&partition_name(topic, partition))).collect()
    }

    /// The envelopes on a topic.
    pub fn texts(&self, topic: &str) -> Vec<String> {
        let text = |record: &Record| String::from_utf8(record.value.to_vec()).unwrap();
        self.topics.get(topic).map(|records| records.iter().map(text).collect()).unwrap_or_default()
    }
}

#[derive(Clone, Default)]
pub struct Shared(pub Arc<Mutex<Disk>>);

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Shared")
    }
}

impl Bus for Shared {
    fn durability(&self) -> Durability {
        Durability::Memory
    }

    fn partitions(&self, topic: &str) -> u32 {
        if COMMAND_TOPICS.contains(&topic) { self.0.lock().unwrap().more_partitions + 1 } else { 1 }
    }

    fn epoch(&self, _topic: &str) -> u64 {
        1
    }

    fn append(&mut self, now: WallMillis, append: &Append) -> Result<Accepted, ErrorCode> {
        let mut disk = self.0.lock().unwrap();
        if let Some(left) = &mut disk.room_for {
            *left = left.checked_sub(1).ok_or(ErrorCode::Unavailable)?;
        }
        if !disk.burn() {
            return Err(ErrorCode::Unavailable);
        }
        if disk.later {
            disk.begun += 1;
            let (ticket, failed) = (Ticket(disk.begun), disk.fail_next);
            disk.ended.push(Completed { ticket, outcome: if failed { Err(ErrorCode::Unavailable) } else { Ok(()) } });
            if !failed {
                disk.put(&append.topic, now.0, append.value.to_vec());
            }
            return Ok(Accepted::Pending(ticket));
        }
        disk.put(&append.topic, now.0, append.value.to_vec());
        Ok(Accepted::Now)
    }

    fn completed(&mut self, out: &mut Vec<Completed>) {
        let mut disk = self.0.lock().unwrap();
        disk.fail_next = false;
        out.append(&mut disk.ended);
    }

    fn range(&self, topic: &str) -> (u64, u64) {
        (0, self.0.lock().unwrap().topics.get(topic).map_or(0, |records| records.len() as u64))
    }

    fn since(&self, topic: &str, since: WallMillis) -> u64 {
        let disk = self.0.lock().unwrap();
        let records = disk.topics.get(topic).map_or(&[][..], |records| records);
        records.iter().position(|record| record.timestamp >= since).unwrap_or(records.len()) as u64
    }

    fn read(&mut self, topic: &str, offset: u64, max: usize, out: &mut Vec<Record>) -> u64 {
        let mut disk = self.0.lock().unwrap();
        let Disk { topics, unreadable, read_most, .. } = &mut *disk;
        let Some(records) = topics.get(topic) else { return offset };
        let end = unreadable.filter(|(name, _)| *name == topic).map_or(usize::MAX, |(_, end)| end as usize);
        let end = end.min(records.len());
        let from = usize::try_from(offset).unwrap().min(end);
        let to = from.saturating_add(max).min(end);
        *read_most = (*read_most).max(to - from);
        out.extend_from_slice(&records[from..to]);
        if from == to { offset } else { to as u64 }
    }

    fn done(&mut self, topic: &str, offset: u64) {
        self.0.lock().unwrap().done.insert(topic.into(), offset);
    }
}

impl Store for Shared {
    fn load(&mut self, service: &str) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        let disk = self.0.lock().unwrap();
        let own = disk.records.iter().filter(|((name, _), _)| name == service);
        Ok(own.map(|((_, key), value)| (key.clone(), value.clone())).collect())
    }

    fn write(&mut self, batch: &[Write]) -> Result<(), StoreError> {
        let mut disk = self.0.lock().unwrap();
        if !disk.burn() {
            return Err(StoreError { place: "the test".into(), cause: "the fuse is out".into(), lost: false });
        }
        for write in batch.iter().cloned() {
            match write {
                Write::Put { service, key, value } => {
                    disk.records.insert((service.into(), key.into()), value.into());
                }
                Write::Remove { service, key } => {
                    disk.records.remove(&(service.into(), key.into()));
                }
                Write::Message(message) => {
                    disk.messages.entry(message.id).or_insert(*message);
                }
                Write::Room { .. } | Write::RemoveRoom { .. } | Write::Player { .. } => {}
            }
        }
        Ok(())
    }

    fn messages(&mut self, _room: &str, _max: usize) -> Result<Vec<ChatMessage>, StoreError> {
        Ok(Vec::new())
    }
}

/// Hashes at once, by something that shows nothing of the password.
#[derive(Default, Debug)]
pub struct Hasher(VecDeque<(u64, Outcome)>);

impl Passwords for Hasher {
    fn submit(&mut self, work: Work) -> Result<(), Work> {
        let digest = |password: &str| EventId::v5(b"a test's hashing", &[password.as_bytes()]).to_string();
        let outcome = match &work.task {
            Task::Hash { password, .. } => Outcome::Hashed(digest(password).into()),
            Task::Verify { hash, password } => Outcome::Verified(**hash == *digest(password)),
        };
        self.0.push_back((work.ticket, outcome));
        Ok(())
    }

    fn finished(&mut self) -> Option<(u64, Outcome)> {
        self.0.pop_front()
    }
}

pub type Worker = ServiceWorker<Shared, Shared, Hasher>;

pub const WINDOW: Duration = Duration::from_secs(300);

/// A worker over what there is.
pub fn worker(disk: &Shared) -> Worker {
    try_worker(disk).unwrap()
}

/// The same, if it can start.
pub fn try_worker(disk: &Shared) -> Result<Worker, String> {
    let settings = WorkerSettings { resume_window: WINDOW, seed: 1, secret: [7; 16], restarted: None };
    ServiceWorker::open(disk.clone(), disk.clone(), Hasher::default(), &settings)
}

/// Turns until there is nothing to do at that time.
pub fn spin(worker: &mut Worker, wall: u64) {
    while worker.turn(NOW, WallMillis(wall)) <= NOW {}
}

pub const NOW: Monotonic = Monotonic::ZERO;

/// A command's envelope; `session` 0 = none.
pub fn command(id: u32, event_type: &str, user: u8, session: u8, payload: &str) -> Vec<u8> {
    let session = match session {
        0 => String::new(),
        session => format!(r#""session_id":"00000000-0000-0000-0000-0000000000{session:02x}","#),
    };
    format!(
        r#"{{"event_id":"{}","event_type":"{event_type}",{session}"correlation_id":"c{id}","user":{{"user_id":"u{user}","username":"U{user}","roles":[]}},"payload":{payload}}}"#,
        id_of_command(id)
    )
    .into_bytes()
}

/// The id that [`command`] gives.
pub fn id_of_command(id: u32) -> EventId {
    let mut bytes = [0; 16];
    bytes[..4].copy_from_slice(&id.to_be_bytes());
    EventId(bytes)
}

/// The id of the room that a command creates.
pub fn room_of(command: u32) -> String {
    EventId::v5(&id_of_command(command).0, &[b"room"]).to_string()
}
