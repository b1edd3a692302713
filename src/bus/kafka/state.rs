//! The services' records on Kafka: a compacted topic with one partition, one record per key, none for what was removed.
//!
//! Laws: a batch is one transaction; whoever opens the store fences the one that had it before, whose batches are refused
//! from then on, and reads all that was committed until then. So of two workers one writes, and none overwrites what it
//! has not seen. History has no place in it: another store has that, if there is one (a file of the worker's own, or
//! PostgreSQL); it is written first, for it takes what comes again as it is.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::Message as _;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer};
use rdkafka::{Offset, TopicPartitionList};

use super::KafkaConfig;
use super::cluster::lock;
use super::producer::{log, words};
use crate::limits;
use crate::ports::{ChatMessage, Store, StoreError, Write};

/// Keys and values, by service.
type Records = HashMap<String, Vec<(String, Vec<u8>)>>;

/// See the module.
pub struct StateStore {
    config: KafkaConfig,
    producer: ThreadedProducer<Fate>,
    place: String,
    /// What was read at the start and nobody has asked for yet, by service; gone with the first write.
    fresh: Option<Records>,
    /// Services that were asked for: what was read of them is theirs.
    asked: HashSet<String>,
    history: Option<Box<dyn Store>>,
}

impl StateStore {
    /// Takes the store over and reads it; waits for Kafka. `history` keeps what is no record, if it is to be kept.
    ///
    /// # Errors
    /// What keeps it from being used.
    pub fn open(config: &KafkaConfig, history: Option<Box<dyn Store>>) -> Result<Self, StoreError> {
        let place = format!("{STATE_TOPIC} on Kafka at {}", config.brokers);
        let failed = |error: &KafkaError| StoreError { place: place.clone(), cause: explain(error), lost: true };
        let producer: ThreadedProducer<Fate> =
            config.state_producer().create_with_context(Fate::default()).map_err(|error| failed(&error))?;
        producer.init_transactions(limits::KAFKA_STATE_TIMEOUT).map_err(|error| failed(&error))?;
        let mut store = Self { config: config.clone(), producer, place, fresh: None, asked: HashSet::new(), history };
        store.fresh = Some(store.read(None)?);
        Ok(store)
    }

    /// How many records were found that nobody has asked for yet.
    #[must_use]
    pub fn records(&self) -> usize {
        self.fresh.iter().flat_map(Records::values).map(Vec::len).sum()
    }

    /// What is committed, of one service or all, sorted by key.
    fn read(&self, service: Option<&str>) -> Result<Records, StoreError> {
        let consumer: BaseConsumer = self.tried(self.config.consumer().create())?;
        let mut list = TopicPartitionList::new();
        self.tried(list.add_partition_offset(STATE_TOPIC, 0, Offset::Beginning))?;
        self.tried(consumer.assign(&list))?;
        let mut newest: BTreeMap<String, Vec<u8>> = BTreeMap::new();
        let (mut heard, mut last) = (Instant::now(), None);
        loop {
            match consumer.poll(POLL) {
                Some(Ok(message)) => {
                    heard = Instant::now();
                    let key = String::from_utf8_lossy(message.key().unwrap_or_default()).into_owned();
                    let of = key.split_once('/').map(|(of, _)| of);
                    match message.payload() {
                        Some(value) if service.is_none() || service == of => _ = newest.insert(key, value.to_vec()),
                        _ => _ = newest.remove(&key),
                    }
                }
                Some(Err(KafkaError::PartitionEOF(_))) => break,
                Some(Err(error)) => last = Some(words(&error)),
                None => {}
            }
            if heard.elapsed() > limits::KAFKA_STATE_TIMEOUT {
                let reason = last.unwrap_or_else(|| "Kafka does not answer".to_owned());
                return Err(self.refuse(format!("it cannot be read: {reason}"), true));
            }
        }
        let mut found: Records = HashMap::new();
        for (key, value) in newest {
            match key.split_once('/') {
                Some((of, key)) => found.entry(of.to_owned()).or_default().push((key.to_owned(), value)),
                None => tracing::warn!(topic = STATE_TOPIC, key, "a record that is no service's is left alone"),
            }
        }
        Ok(found)
    }

    /// One transaction.
    fn commit<'a>(&self, records: impl Iterator<Item = (String, Option<&'a [u8]>)>) -> Result<(), KafkaError> {
        let fate = self.producer.context();
        *lock(&fate.course) = Course::default();
        self.producer.begin_transaction()?;
        for (key, value) in records {
            let record = BaseRecord::<str, [u8]>::to(STATE_TOPIC).partition(0).key(&key);
            let record = match value {
                Some(value) => record.payload(value),
                None => record,
            };
            if let Err((error, _)) = self.producer.send(record) {
                fate.note(&key, value.map_or(0, <[u8]>::len), &error);
                return Err(error);
            }
            lock(&fate.course).sent += 1;
        }
        self.await_reports();
        let mut tries = COMMITS;
        loop {
            match self.producer.commit_transaction(limits::KAFKA_STATE_TIMEOUT) {
                Err(KafkaError::Transaction(error)) if error.is_retriable() && !error.is_fatal() && tries > 0 => {
                    tries -= 1;
                }
                ended => return ended,
            }
        }
    }

    /// Waits until every record has its report: a commit that finds one under way polls for 100 ms, however soon it comes.
    /// One that takes too long is the commit's to judge.
    fn await_reports(&self) {
        let fate = self.producer.context();
        let until = Instant::now() + limits::KAFKA_STATE_TIMEOUT;
        let mut course = lock(&fate.course);
        while course.told < course.sent {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            course = fate.came.wait_timeout(course, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        drop(course);
        // The client counts a report until its thread has put it away, right behind the last call.
        let soon = Instant::now() + PUT_AWAY;
        while self.producer.in_flight_count() > 0 && Instant::now() < soon {
            thread::yield_now();
        }
    }

    /// What a failed transaction means; what is left of it is taken back.
    fn give_up(&self, error: &KafkaError) -> StoreError {
        let told = lock(&self.producer.context().course).why.take();
        if let Some((code, reason)) = self.producer.client().fatal_error() {
            let taken = FENCED.contains(&code) || error.rdkafka_error_code().is_some_and(|code| FENCED.contains(&code));
            let cause = if taken { TAKEN_OVER.to_owned() } else { reason };
            return self.refuse(cause, true);
        }
        let cause = told.unwrap_or_else(|| explain(error));
        match self.producer.abort_transaction(limits::KAFKA_STATE_TIMEOUT) {
            Ok(()) => self.refuse(cause, false),
            Err(second) => self.refuse(format!("{cause}; {}", explain(&second)), true),
        }
    }

    fn refuse(&self, cause: String, lost: bool) -> StoreError {
        StoreError { place: self.place.clone(), cause, lost }
    }

    fn tried<T>(&self, outcome: Result<T, KafkaError>) -> Result<T, StoreError> {
        outcome.map_err(|error| self.refuse(explain(&error), true))
    }
}

impl Store for StateStore {
    fn load(&mut self, service: &str) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        if let Some(fresh) = &mut self.fresh
            && self.asked.insert(service.to_owned())
        {
            return Ok(fresh.remove(service).unwrap_or_default());
        }
        Ok(self.read(Some(service))?.remove(service).unwrap_or_default())
    }

    fn write(&mut self, batch: &[Write]) -> Result<(), StoreError> {
        if let Some(history) = &mut self.history {
            let rows: Vec<Write> = batch.iter().filter(|write| record(write).is_none()).cloned().collect();
            if !rows.is_empty() {
                history.write(&rows)?;
            }
        }
        // What is written is newer than what was read.
        self.fresh = None;
        let mut records = batch.iter().filter_map(record).peekable();
        if records.peek().is_none() {
            return Ok(());
        }
        self.commit(records).map_err(|error| self.give_up(&error))
    }

    fn messages(&mut self, room: &str, max: usize) -> Result<Vec<ChatMessage>, StoreError> {
        self.history.as_mut().map_or(Ok(Vec::new()), |history| history.messages(room, max))
    }
}

impl std::fmt::Debug for StateStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StateStore").field("place", &self.place).finish_non_exhaustive()
    }
}

/// What becomes of a transaction's records.
#[derive(Default)]
struct Fate {
    course: Mutex<Course>,
    /// A report came.
    came: Condvar,
}

#[derive(Default)]
struct Course {
    /// Why the first record that was not accepted was not.
    why: Option<String>,
    sent: usize,
    /// Accepted or not.
    told: usize,
}

impl Fate {
    fn note(&self, key: &str, bytes: usize, error: &KafkaError) {
        let too_long = [RDKafkaErrorCode::MessageSizeTooLarge, RDKafkaErrorCode::InvalidMessageSize];
        let remedy = match error.rdkafka_error_code() {
            Some(code) if too_long.contains(&code) => {
                "; it is more than one record may have: raise the topic's max.message.bytes, or end that room"
            }
            _ => "",
        };
        lock(&self.course).why = Some(format!("record {key} of {bytes} bytes: {}{remedy}", words(error)));
    }
}

impl ClientContext for Fate {
    fn log(&self, level: RDKafkaLogLevel, topic: &str, message: &str) {
        log(level, topic, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "the error of a store");
    }
}

impl ProducerContext for Fate {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, message)) = result
            // The first says why; others go with it.
            && lock(&self.course).why.is_none()
        {
            let key = String::from_utf8_lossy(message.key().unwrap_or_default()).into_owned();
            self.note(&key, message.payload().map_or(0, <[u8]>::len), error);
        }
        lock(&self.course).told += 1;
        self.came.notify_all();
    }
}

/// Key and value of what is a record.
fn record(write: &Write) -> Option<(String, Option<&[u8]>)> {
    match write {
        Write::Put { service, key, value } => Some((format!("{service}/{key}"), Some(value))),
        Write::Remove { service, key } => Some((format!("{service}/{key}"), None)),
        Write::Room { .. } | Write::RemoveRoom { .. } | Write::Player { .. } | Write::Message(_) => None,
    }
}

fn explain(error: &KafkaError) -> String {
    match error {
        KafkaError::Transaction(error) if FENCED.contains(&error.code()) => TAKEN_OVER.to_owned(),
        KafkaError::Transaction(error) => error.string(),
        error => words(error),
    }
}

/// The records' topic.
pub const STATE_TOPIC: &str = "ringgate.state";
const TAKEN_OVER: &str = "another worker has taken over";
/// What Kafka says to whom another has taken the place of.
const FENCED: [RDKafkaErrorCode; 3] =
    [RDKafkaErrorCode::Fenced, RDKafkaErrorCode::ProducerFenced, RDKafkaErrorCode::InvalidProducerEpoch];
/// How long a client's thread may take with a report that it has told.
const PUT_AWAY: Duration = Duration::from_millis(5);
/// How long a read waits at a time.
const POLL: Duration = Duration::from_millis(100);
/// How often a commit whose end nobody knows is asked for again.
const COMMITS: usize = 2;
