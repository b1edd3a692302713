//! Appending: one idempotent producer per policy, shared by handles, and each handle's accounts.
//!
//! Laws: an append is accepted when Kafka's delivery report says so, refused when it gives up or a bound is reached, and
//! ends once. A partition that stands still refuses for itself alone. A producer that Kafka has turned away for good is
//! replaced; what was on its way with it fails. A patient one ends so at the first record that Kafka refuses for good, so
//! that nothing behind it in its partition is accepted: who appends it all again keeps the order.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::client::{Client, ClientContext};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};

use super::cluster::{Cluster, lock};
use super::tickets::Tickets;
use crate::limits;
use crate::message::{Append, ErrorCode};
use crate::ports::{Accepted, Completed, Ticket};
use crate::protocol::relay;
use crate::router::Wake;
use crate::time::WallMillis;

/// A producer that is replaced when it has failed for good.
pub struct Line {
    config: ClientConfig,
    producer: Mutex<Arc<Sending>>,
}

/// A producer and the thread that serves its reports.
pub struct Sending(ThreadedProducer<Reports>);

impl Sending {
    /// The client, to ask the cluster with.
    pub fn client(&self) -> &Client<Reports> {
        self.0.client()
    }
}

impl Line {
    /// A producer of this configuration; it connects by itself.
    ///
    /// # Errors
    /// What is wrong with the configuration.
    pub fn open(config: ClientConfig) -> Result<Self, String> {
        let producer = Mutex::new(Arc::new(Self::create(&config).map_err(|error| words(&error))?));
        Ok(Self { config, producer })
    }

    /// The producer as it is now.
    pub fn producer(&self) -> Arc<Sending> {
        Arc::clone(&lock(&self.producer))
    }

    /// What the client complained of last.
    pub fn last_error(&self) -> Option<String> {
        lock(&self.producer().client().context().0).clone()
    }

    /// Replaces a producer that has failed for good.
    pub fn mend(&self) {
        let failed = self.producer();
        let Some((_, reason)) = failed.client().fatal_error() else { return };
        match Self::create(&self.config) {
            Ok(new) => {
                tracing::warn!(reason, "Kafka has turned the producer away; another one takes over");
                *lock(&self.producer) = Arc::new(new);
                // Its end waits for reports.
                let ending = thread::Builder::new().name("kafka-end".into()).spawn(move || drop(failed));
                drop(ending);
            }
            Err(error) => tracing::error!(%error, "no new producer can be made"),
        }
    }

    /// Waits until everything is accepted or refused, for so long at most.
    pub fn flush(&self, most: Duration) {
        // Who is owed a report is told by the purge that follows.
        let _ = self.producer().0.flush(most);
    }

    fn create(config: &ClientConfig) -> Result<Sending, KafkaError> {
        config.create_with_context(Reports::default()).map(Sending)
    }
}

/// Takes delivery reports, and the client's complaints: the last one is kept.
#[derive(Default)]
pub struct Reports(Mutex<Option<String>>);

impl ClientContext for Reports {
    fn log(&self, level: RDKafkaLogLevel, topic: &str, message: &str) {
        log(level, topic, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        // That all brokers are down is why one asks; another says why they are.
        let code = error.rdkafka_error_code();
        if code == Some(RDKafkaErrorCode::AllBrokersDown) {
            return;
        }
        *lock(&self.0) = Some(if reason.is_empty() { words(&error) } else { reason.to_owned() });
    }
}

impl ProducerContext for Reports {
    type DeliveryOpaque = Box<Flight>;

    fn delivery(&self, result: &DeliveryResult<'_>, flight: Box<Flight>) {
        flight.partition.fetch_sub(1, Ordering::AcqRel);
        let outcome = match result {
            Ok(_) => Ok(()),
            Err((error, _)) => {
                tracing::debug!(%error, "an append is refused");
                Err(ErrorCode::Unavailable)
            }
        };
        lock(&flight.ends.ended).push(Completed { ticket: flight.ticket, outcome });
        if let Some(wake) = &flight.ends.wake {
            wake.wake();
        }
    }
}

/// An append on its way.
#[derive(Debug)]
pub struct Flight {
    ticket: Ticket,
    ends: Arc<Ends>,
    /// How many are on their way to its partition.
    partition: Arc<AtomicUsize>,
}

/// Where the ends of a handle's appends come.
pub struct Ends {
    ended: Mutex<Vec<Completed>>,
    wake: Option<Arc<dyn Wake>>,
}

impl std::fmt::Debug for Ends {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ends").finish_non_exhaustive()
    }
}

/// A handle's side of appending.
pub struct Sender {
    line: Arc<Line>,
    cluster: Arc<Cluster>,
    ends: Arc<Ends>,
    tickets: Tickets,
    came: Vec<Completed>,
    /// By topic and partition: how many are on their way.
    flights: HashMap<Arc<str>, Vec<Arc<AtomicUsize>>>,
    /// Of those, to one partition.
    most: usize,
}

impl Sender {
    /// Appends by this producer. With `patience`, in order and for as long as it takes; else each for itself.
    pub fn new(line: Arc<Line>, cluster: Arc<Cluster>, patience: bool, wake: Option<Arc<dyn Wake>>) -> Self {
        let (tickets, most) = match patience {
            true => (Tickets::ordered(), usize::MAX),
            false => (Tickets::unordered(), limits::KAFKA_PARTITION_PENDING),
        };
        let ends = Arc::new(Ends { ended: Mutex::default(), wake });
        Self { line, cluster, ends, tickets, came: Vec::new(), flights: HashMap::new(), most }
    }

    /// See [`crate::ports::Bus::append`].
    ///
    /// # Errors
    /// See there.
    pub fn append(&mut self, now: WallMillis, append: &Append) -> Result<Accepted, ErrorCode> {
        if append.key.len() + append.value.len() + RECORD_OVERHEAD > limits::KAFKA_RECORD_BYTES {
            return Err(ErrorCode::TooLong);
        }
        if !self.tickets.admits() {
            return Err(ErrorCode::Unavailable);
        }
        let topic = self.cluster.topic(&append.topic).ok_or(ErrorCode::Unavailable)?;
        let partition = partition_of(&append.key, topic.partitions);
        let flights = self.flights_to(&append.topic, partition);
        let is_relay = *append.topic == *relay::TOPIC;
        let most = if is_relay { self.most.max(limits::KAFKA_RELAY_PENDING) } else { self.most };
        if flights.load(Ordering::Acquire) >= most {
            return Err(ErrorCode::Unavailable);
        }
        flights.fetch_add(1, Ordering::AcqRel);
        let ticket = self.tickets.give();
        let flight = Box::new(Flight { ticket, ends: Arc::clone(&self.ends), partition: Arc::clone(&flights) });
        let record = BaseRecord::with_opaque_to(&append.topic, flight)
            .partition(i32::try_from(partition).unwrap_or(0))
            .key(&*append.key)
            .payload(&*append.value)
            .timestamp(i64::try_from(now.0).unwrap_or(i64::MAX));
        let producer = self.line.producer();
        let sent = match producer.0.send(record) {
            // The watch knows a partition that this client has not met: the client chooses among those it knows.
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::UnknownPartition), record)) => {
                producer.0.send(BaseRecord { partition: None, ..record })
            }
            sent => sent,
        };
        let Err((error, _)) = sent else { return Ok(Accepted::Pending(ticket)) };
        flights.fetch_sub(1, Ordering::AcqRel);
        self.tickets.take_back();
        self.line.mend();
        match error {
            KafkaError::MessageProduction(RDKafkaErrorCode::MessageSizeTooLarge) => Err(ErrorCode::TooLong),
            _ => Err(ErrorCode::Unavailable),
        }
    }

    /// See [`crate::ports::Bus::completed`].
    pub fn completed(&mut self, out: &mut Vec<Completed>) {
        self.came.append(&mut lock(&self.ends.ended));
        if self.came.iter().any(|end| end.outcome.is_err()) {
            self.line.mend();
        }
        self.tickets.end(&mut self.came, out);
    }

    fn flights_to(&mut self, topic: &Arc<str>, partition: u32) -> Arc<AtomicUsize> {
        let at = partition as usize;
        if self.flights.get(topic).is_none_or(|known| known.len() <= at) {
            let known = self.flights.entry(Arc::clone(topic)).or_default();
            known.resize_with(at + 1, Arc::default);
        }
        Arc::clone(&self.flights[topic][at])
    }
}

/// The partition of a key: murmur2, as Kafka's own clients choose it, so that others' records of a key are beside ours.
pub fn partition_of(key: &[u8], partitions: u32) -> u32 {
    (murmur2(key) & 0x7fff_ffff) % partitions.max(1)
}

/// MurmurHash2 with the seed of Kafka's `DefaultPartitioner`.
fn murmur2(data: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    let mut h = 0x9747_b28c ^ data.len() as u32;
    let mut words = data.chunks_exact(4);
    for word in &mut words {
        let k = u32::from_le_bytes(word.try_into().expect("chunks of four")).wrapping_mul(M);
        h = h.wrapping_mul(M) ^ (k ^ (k >> 24)).wrapping_mul(M);
    }
    let rest = words.remainder();
    if !rest.is_empty() {
        for (at, byte) in rest.iter().enumerate() {
            h ^= u32::from(*byte) << (8 * at);
        }
        h = h.wrapping_mul(M);
    }
    h = (h ^ (h >> 13)).wrapping_mul(M);
    h ^ (h >> 15)
}

/// What an error says, without the crate's wrapping.
pub fn words(error: &KafkaError) -> String {
    match error {
        KafkaError::ClientConfig(_, what, key, value) => format!("{what} ({key} = {value})"),
        KafkaError::ClientCreation(what) => what.clone(),
        error => error.rdkafka_error_code().map_or_else(|| error.to_string(), |code| code.to_string()),
    }
}

/// librdkafka's own lines go into the gateway's log.
pub fn log(level: RDKafkaLogLevel, topic: &str, message: &str) {
    match level {
        // What it thinks of settings that are ours.
        _ if topic == "CONFWARN" => tracing::debug!(topic, "librdkafka: {message}"),
        RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical | RDKafkaLogLevel::Error => {
            tracing::warn!(topic, "librdkafka: {message}");
        }
        RDKafkaLogLevel::Warning | RDKafkaLogLevel::Notice => tracing::info!(topic, "librdkafka: {message}"),
        RDKafkaLogLevel::Info | RDKafkaLogLevel::Debug => tracing::debug!(topic, "librdkafka: {message}"),
    }
}

/// Bytes of a record beside key and value, with its batch.
const RECORD_OVERHEAD: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    /// Keys go where Kafka's own clients put them; the values are those of its `UtilsTest.testMurmur2`.
    #[test]
    fn keys_hash_as_with_kafkas_own_clients() {
        for (key, expected) in [
            ("21", -973_932_308i32),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
        ] {
            assert_eq!(murmur2(key.as_bytes()) as i32, expected, "{key}");
        }
        assert_eq!(partition_of(b"", 0), 0);
        assert!((0..100u8).all(|key| partition_of(&[key], 7) < 7));
    }
}
