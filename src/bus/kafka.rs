//! The log of topics on Kafka, behind the same port as the embedded ones: many gateways, one log (DELIVERY §7).
//!
//! Laws: an append is accepted when all replicas in sync have it; what cannot be is refused within a bound of time, or,
//! for a handle with patience, waits in order. Every partition is read by assignment, nothing is committed, no gap is
//! silent: where records are gone, or a topic was made anew, the epoch changes. Memory is bounded on both ways: by what
//! may be on its way to each partition, by what is fetched ahead of it.
//!
//! librdkafka's threads do the work; a handle's own thread only looks into queues, but for [`Bus::range`] and
//! [`Bus::since`], which ask Kafka.

mod cluster;
mod lease;
mod producer;
mod reader;
mod settings;
mod state;
mod tickets;
mod topics;

use std::cell::RefCell;
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::task::Waker;
use std::time::Instant;

use crate::limits;
use crate::message::{Append, ErrorCode};
use crate::ports::{Accepted, Bus, Completed, Durability, LogView, Record, Unreadable};
use crate::router::Wake;
use crate::time::WallMillis;
use cluster::{Cluster, Watch};
pub use lease::WorkerLease;
pub use producer::Reports;
use producer::{Line, Sender};
use reader::Reader;
pub use settings::{Describe, KafkaConfig, Security};
pub use state::{STATE_TOPIC, StateStore};
pub use topics::{Creation, Found, create, fit_for_records, look};

/// A handle of the log. See the module. The last one waits [`limits::KAFKA_FLUSH_TIME`] at most for what is on its way.
pub struct KafkaBus {
    shared: Arc<Shared>,
    sender: Sender,
    /// Made when it is first needed.
    reader: RefCell<Option<Reader>>,
    wake: Option<Arc<dyn Wake>>,
}

/// What handles share.
struct Shared {
    config: KafkaConfig,
    cluster: Arc<Cluster>,
    /// For commands: gives up in time.
    hasty: Arc<Line>,
    /// For what a thread says in order: never gives up.
    patient: OnceLock<Arc<Line>>,
    /// Ends with the last handle.
    _watch: Watch,
}

impl KafkaBus {
    /// Connects and finds the topics. This handle waits for nobody.
    ///
    /// # Errors
    /// One line: what keeps Kafka from being used, with the remedy.
    pub fn open(config: &KafkaConfig) -> Result<Self, String> {
        if let Some(refusal) = config.refusal() {
            return Err(refusal);
        }
        let line = |patient| Line::open(config.producer(patient)).map_err(|reason| format!("Kafka client: {reason}"));
        let hasty = Arc::new(line(false)?);
        let cluster = Arc::new(connect(config, &hasty)?);
        let watch = Watch::start(&cluster, &hasty, config.describe)?;
        let shared = Shared { config: config.clone(), cluster, hasty, patient: OnceLock::new(), _watch: watch };
        Ok(Self::of(&Arc::new(shared), true, None))
    }

    /// A handle for what one thread says in order, and reads. `wake` is called when records come, and when appends end.
    #[must_use]
    pub fn reader(&self, wake: Arc<dyn Wake>) -> Self {
        Self::of(&self.shared, true, Some(wake))
    }

    /// A handle that appends for independent senders, each of whom is told in time; it reads as the others do.
    #[must_use]
    pub fn commands(&self, wake: Arc<dyn Wake>) -> Self {
        Self::of(&self.shared, false, Some(wake))
    }

    /// A handle that nobody is woken for.
    #[must_use]
    pub fn handle(&self) -> Self {
        Self::of(&self.shared, true, None)
    }

    /// The cluster's id, for the start line.
    #[must_use]
    pub fn cluster_id(&self) -> &str {
        self.shared.cluster.id()
    }

    /// Whether the topic is known to be there.
    #[must_use]
    pub fn has(&self, topic: &str) -> bool {
        self.shared.cluster.topic(topic).is_some()
    }

    /// Looks at the topics at once, rather than within [`limits::KAFKA_WATCH_INTERVAL`].
    pub fn look_again(&self) {
        self.shared.cluster.hurry();
    }

    fn of(shared: &Arc<Shared>, patience: bool, wake: Option<Arc<dyn Wake>>) -> Self {
        let line = if patience { shared.patient() } else { Arc::clone(&shared.hasty) };
        let sender = Sender::new(line, Arc::clone(&shared.cluster), patience, wake.clone());
        Self { shared: Arc::clone(shared), sender, reader: RefCell::new(None), wake }
    }

    fn with_reader<T>(&self, ask: impl FnOnce(&mut Reader) -> T) -> T {
        let mut reader = self.reader.borrow_mut();
        ask(reader.get_or_insert_with(|| {
            let (config, cluster) = (self.shared.config.consumer(), Arc::clone(&self.shared.cluster));
            Reader::open(&config, cluster, self.wake.clone())
                .expect("a configuration that makes a producer makes a reader")
        }))
    }
}

impl Shared {
    fn patient(&self) -> Arc<Line> {
        let open = || {
            let line = Line::open(self.config.producer(true)).expect("one producer of this configuration was made");
            Arc::new(line)
        };
        Arc::clone(self.patient.get_or_init(open))
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let lines = [Some(&self.hasty), self.patient.get()];
        lines.into_iter().flatten().for_each(|line| line.flush(limits::KAFKA_FLUSH_TIME));
    }
}

impl Bus for KafkaBus {
    fn durability(&self) -> Durability {
        Durability::Kafka
    }

    fn partitions(&self, topic: &str) -> u32 {
        self.shared.cluster.topic(topic).map_or(1, |topic| topic.partitions)
    }

    fn epoch(&self, topic: &str) -> u64 {
        let read = self.reader.borrow().as_ref().and_then(|reader| reader.epoch(topic));
        read.unwrap_or_else(|| self.shared.cluster.first_epoch(topic))
    }

    fn append(&mut self, now: WallMillis, append: &Append) -> Result<Accepted, ErrorCode> {
        self.sender.append(now, append)
    }

    fn completed(&mut self, out: &mut Vec<Completed>) {
        self.sender.completed(out);
    }

    fn range(&self, topic: &str) -> (u64, u64) {
        self.with_reader(|reader| reader.range(topic))
    }

    fn since(&self, topic: &str, since: WallMillis) -> u64 {
        self.with_reader(|reader| reader.since(topic, since))
    }

    fn read(&mut self, topic: &str, offset: u64, max: usize, out: &mut Vec<Record>) -> u64 {
        self.with_reader(|reader| reader.read(topic, offset, max, out))
    }

    /// Kafka keeps records by time, whoever has read them.
    fn done(&mut self, _topic: &str, _offset: u64) {}
}

impl fmt::Debug for KafkaBus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaBus").field("cluster", &self.cluster_id()).finish_non_exhaustive()
    }
}

/// Who wants to look into topics on Kafka asks Kafka: nothing of them is here.
#[derive(Clone, Debug)]
pub struct KafkaView(Arc<str>);

impl KafkaBus {
    /// What the server API says of topics.
    #[must_use]
    pub fn view(&self) -> KafkaView {
        KafkaView(self.shared.config.brokers.as_str().into())
    }
}

impl LogView for KafkaView {
    fn elsewhere(&self) -> Option<String> {
        Some(format!("the topics are on Kafka at {}: read them there", self.0))
    }

    fn epoch(&self, _topic: &str) -> u64 {
        0
    }

    fn range(&self, _topic: &str) -> (u64, u64) {
        (0, 0)
    }

    fn look(&self, _topic: &str, _offset: u64, _max: usize, _out: &mut Vec<Record>) -> Result<(), Unreadable> {
        Err(Unreadable)
    }

    fn watch(&self, _topic: &str, _waker: &Waker) {}
}

/// Waits until Kafka answers, and until the topics are there.
fn connect(config: &KafkaConfig, line: &Line) -> Result<Cluster, String> {
    let names: Vec<Arc<str>> = config.topics.iter().map(|topic| topic.as_str().into()).collect();
    let (brokers, began) = (&config.brokers, Instant::now());
    loop {
        let left = config.connect_timeout.saturating_sub(began.elapsed());
        let (producer, most) = (line.producer(), left.min(limits::KAFKA_REQUEST_TIMEOUT));
        let client = producer.client();
        // The cluster's id comes with metadata of the client's own asking only.
        let met = client.fetch_metadata(None, most).map_err(|error| producer::words(&error));
        let answer = met.and_then(|_| (config.describe)(client, &names, most).map_err(|code| code.to_string()));
        let id = answer.as_ref().ok().and_then(|_| client.fetch_cluster_id(most));
        match (answer, id) {
            (Ok(described), Some(id)) => {
                let missing: Vec<_> = names.iter().zip(&described).filter(|(_, found)| found.is_none()).collect();
                if missing.is_empty() {
                    let cluster = Cluster::new(id, config.generation);
                    cluster.learn(&names, described);
                    return Ok(cluster);
                }
                let missing: Vec<&str> = missing.into_iter().map(|(name, _)| &**name).collect();
                return Err(topics::missing_words(brokers, &missing));
            }
            (Err(_), _) | (Ok(_), None) if !left.is_zero() => std::thread::park_timeout(limits::KAFKA_WATCH_AGAIN),
            (answer, _) => {
                let words = answer.err().unwrap_or_else(|| "it has no cluster id".to_owned());
                let reason = line.last_error().unwrap_or(words);
                return Err(topics::unreachable_words(config, config.connect_timeout, &reason));
            }
        }
    }
}

#[cfg(test)]
mod tests;
