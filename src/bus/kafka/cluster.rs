//! What is known of the cluster: its id, and of each topic the id and the number of partitions. A thread asks anew every
//! [`limits::KAFKA_WATCH_INTERVAL`], so that partitions that are added, and topics that are made again, are met.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::thread::{self, JoinHandle, Thread};
use std::time::Instant;

use xxhash_rust::xxh3::Xxh3;

use super::Describe;
use super::producer::Line;
use crate::limits;
use crate::ports::{Described, topic_and_partition};
use crate::router::Wake;

/// See the module.
pub struct Cluster {
    id: String,
    generation: u64,
    topics: Mutex<HashMap<Arc<str>, Option<Described>>>,
    /// Grows whenever something is known anew.
    version: AtomicU64,
    /// Counts the watch's looks that Kafka answered.
    looks: AtomicU64,
    /// Somebody waits for the next.
    hurried: AtomicBool,
    /// Whom news wakes.
    readers: Mutex<Vec<Weak<dyn Wake>>>,
    stop: AtomicBool,
    /// Who asks.
    watch: OnceLock<Thread>,
}

impl Cluster {
    /// The cluster of this id, whose topics nobody has asked for yet.
    pub fn new(id: String, generation: u64) -> Self {
        Self {
            id,
            generation,
            topics: Mutex::default(),
            version: AtomicU64::new(0),
            looks: AtomicU64::new(0),
            hurried: AtomicBool::new(false),
            readers: Mutex::default(),
            stop: AtomicBool::new(false),
            watch: OnceLock::new(),
        }
    }

    /// Its id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Counts what was learned: nothing has changed while it is the same.
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// Counts the watch's looks: what changed before one began is known when it has ended.
    pub fn looks(&self) -> u64 {
        self.looks.load(Ordering::Acquire)
    }

    /// The topic, if it is there. One that nobody has named before is asked for at once.
    pub fn topic(&self, name: &str) -> Option<Described> {
        let mut topics = lock(&self.topics);
        if let Some(known) = topics.get(name) {
            return known.clone();
        }
        if topics.len() < limits::BUS_TOPICS {
            topics.insert(name.into(), None);
            self.hurry();
        }
        None
    }

    /// The numbering of a topic's partition after so many breaks of it; < 2^53.
    pub fn epoch(&self, topic: &str, id: &str, breaks: u32) -> u64 {
        let mut hash = Xxh3::new();
        for part in [self.id.as_bytes(), topic.as_bytes(), id.as_bytes()] {
            hash.update(part);
            hash.update(&[0]);
        }
        hash.update(&self.generation.to_be_bytes());
        hash.update(&breaks.to_be_bytes());
        hash.digest() >> 11
    }

    /// The numbering of a partition that nobody has read yet.
    pub fn first_epoch(&self, name: &str) -> u64 {
        let (topic, _) = topic_and_partition(name);
        let id = self.topic(topic).map(|topic| topic.id);
        self.epoch(topic, id.as_deref().unwrap_or_default(), 0)
    }

    /// News wakes it from now on, for as long as somebody else holds it.
    pub fn tell(&self, reader: &Arc<dyn Wake>) {
        let mut readers = lock(&self.readers);
        readers.retain(|reader| reader.strong_count() > 0);
        readers.push(Arc::downgrade(reader));
    }

    /// Takes note of what Kafka says of these topics. One that is gone keeps its last description: it may come again.
    pub fn learn(&self, names: &[Arc<str>], described: Vec<Option<Described>>) {
        let mut topics = lock(&self.topics);
        let mut news = false;
        for (name, described) in names.iter().zip(described) {
            if described.is_some() && topics.get(name) != Some(&described) {
                if let Some(Some(before)) = topics.get(name).filter(|_| self.version() > 0) {
                    say(name, before, described.as_ref());
                }
                topics.insert(Arc::clone(name), described);
                news = true;
            }
        }
        drop(topics);
        self.version.fetch_add(u64::from(news), Ordering::AcqRel);
        self.looks.fetch_add(1, Ordering::AcqRel);
        if news || self.hurried.swap(false, Ordering::AcqRel) {
            let readers: Vec<_> = lock(&self.readers).iter().filter_map(Weak::upgrade).collect();
            readers.iter().for_each(|reader| reader.wake());
        }
    }

    fn names(&self) -> Vec<Arc<str>> {
        lock(&self.topics).keys().cloned().collect()
    }

    /// Has the watch look again at once; readers are woken when it has.
    pub fn hurry(&self) {
        self.hurried.store(true, Ordering::Release);
        self.watch.get().map(Thread::unpark);
    }
}

/// The thread that asks; dropping it ends it.
pub struct Watch {
    cluster: Arc<Cluster>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Starts it.
    ///
    /// # Errors
    /// If the process has no thread left.
    pub fn start(cluster: &Arc<Cluster>, line: &Arc<Line>, describe: Describe) -> Result<Self, String> {
        let (shared, line) = (Arc::clone(cluster), Arc::clone(line));
        let thread = thread::Builder::new().name("kafka-watch".into()).spawn(move || watch(&shared, &line, describe));
        let thread = thread.map_err(|error| format!("kafka-watch: {error}"))?;
        // Set once: a cluster has one watch.
        let _ = cluster.watch.set(thread.thread().clone());
        Ok(Self { cluster: Arc::clone(cluster), thread: Some(thread) })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.cluster.stop.store(true, Ordering::Release);
        self.cluster.hurry();
        // Its panic would have been told by the default hook.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn watch(cluster: &Cluster, line: &Line, describe: Describe) {
    let mut silent_since: Option<Instant> = None;
    while !cluster.stop.load(Ordering::Acquire) {
        let names = cluster.names();
        match describe(line.producer().client(), &names, limits::KAFKA_REQUEST_TIMEOUT) {
            Ok(described) => {
                cluster.learn(&names, described);
                if let Some(since) = silent_since.take() {
                    tracing::info!(seconds = since.elapsed().as_secs(), "Kafka answers again");
                }
            }
            Err(error) if silent_since.is_none() && !cluster.stop.load(Ordering::Acquire) => {
                let reason = line.last_error().unwrap_or_else(|| error.to_string());
                tracing::warn!(
                    reason,
                    "Kafka does not answer; commands wait and are answered unavailable until it does"
                );
                silent_since = Some(Instant::now());
            }
            Err(_) => {}
        }
        line.mend();
        let silent = silent_since.is_some();
        thread::park_timeout(if silent { limits::KAFKA_WATCH_AGAIN } else { limits::KAFKA_WATCH_INTERVAL });
    }
}

fn say(topic: &str, before: &Described, now: Option<&Described>) {
    match now {
        Some(now) if now.id != before.id => {
            tracing::warn!(topic, "the topic was made anew: it is read from its beginning under another epoch");
        }
        Some(now) => {
            let (before, now) = (before.partitions, now.partitions);
            tracing::info!(topic, before, now, "the topic has got partitions");
        }
        None => {}
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing here is left half done by a panic.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
