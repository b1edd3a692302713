//! What a bus on Kafka is opened with, and what becomes of it in librdkafka's terms.

use std::sync::Arc;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::client::Client;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::RDKafkaErrorCode;

use super::producer::Reports;
use crate::limits;
use crate::ports::Described;

/// Asks Kafka for the id of each topic and how many partitions it has, `None` where there is none; waits so long at most.
pub type Describe = fn(&Client<Reports>, &[Arc<str>], Duration) -> Result<Vec<Option<Described>>, RDKafkaErrorCode>;

/// Where Kafka is and how it is used.
#[derive(Clone)]
pub struct KafkaConfig {
    /// `HOST:PORT` of brokers, separated by commas; one that answers is enough.
    pub brokers: String,
    /// Names this gateway in Kafka's own logs and metrics.
    pub gateway_id: String,
    /// Makes every topic's numbering another one, by the operator's will.
    pub generation: u64,
    /// How long a command may wait to be accepted; then it is answered `unavailable`.
    pub delivery_timeout: Duration,
    /// How long a start waits until Kafka answers.
    pub connect_timeout: Duration,
    /// Topics that must be there.
    pub topics: Vec<String>,
    /// What asks for topics: a call that has no safe form here.
    pub describe: Describe,
    /// How Kafka knows us, and we it.
    pub security: Security,
}

/// TLS and SASL. `Debug` hides the secrets.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Security {
    /// Whether connections are encrypted.
    pub tls: bool,
    /// PEM file of the authorities that brokers' certificates are checked with; the system's if unset.
    pub ca_path: Option<String>,
    /// PEM file of this client's certificate.
    pub certificate_path: Option<String>,
    /// PEM file of its key.
    pub key_path: Option<String>,
    /// SASL user; without one there is no SASL.
    pub username: Option<String>,
    /// SASL password.
    pub password: Option<String>,
    /// `PLAIN`, `SCRAM-SHA-256` or `SCRAM-SHA-512`.
    pub mechanism: String,
}

impl KafkaConfig {
    /// Everything at its default for these brokers.
    #[must_use]
    pub fn new(brokers: impl Into<String>, gateway_id: impl Into<String>, describe: Describe) -> Self {
        Self {
            describe,
            brokers: brokers.into(),
            gateway_id: gateway_id.into(),
            generation: 0,
            delivery_timeout: limits::KAFKA_DELIVERY_TIMEOUT,
            connect_timeout: limits::KAFKA_CONNECT_TIMEOUT,
            topics: Vec::new(),
            security: Security::default(),
        }
    }

    /// Why what is asked for cannot be done: by this binary, or by anybody.
    pub(super) fn refusal(&self) -> Option<String> {
        let Security { tls, certificate_path, key_path, username, password, mechanism, .. } = &self.security;
        if cfg!(not(feature = "kafka-tls")) && (*tls || (username.is_some() && mechanism != "PLAIN")) {
            let what = if *tls { "kafka.tls" } else { "kafka.sasl_mechanism" };
            return Some(format!(
                "{what}: this ringgate speaks to Kafka without TLS and SCRAM; build it with --features kafka-tls"
            ));
        }
        let missing = if username.is_some() && password.as_ref().is_none_or(String::is_empty) {
            "kafka.password: kafka.username is set, and no password; set it (RINGGATE_KAFKA_PASSWORD)"
        } else if certificate_path.is_some() != key_path.is_some() {
            "kafka.certificate_path and kafka.key_path: one is set without the other; set both, or neither"
        } else {
            return None;
        };
        Some(missing.to_owned())
    }

    /// What all clients have in common.
    pub(super) fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.brokers)
            .set("client.id", format!("ringgate-{}", self.gateway_id))
            // Added partitions and moved leaders are met as soon as the watch meets them.
            .set("topic.metadata.refresh.interval.ms", millis(limits::KAFKA_WATCH_INTERVAL))
            .set("metadata.max.age.ms", millis(limits::KAFKA_WATCH_INTERVAL * 3))
            // A broker that is frozen or cut off is given up before clients give up theirs.
            .set("socket.timeout.ms", millis(limits::KAFKA_REQUEST_TIMEOUT))
            .set("socket.keepalive.enable", "true")
            .set("reconnect.backoff.ms", "100")
            .set("reconnect.backoff.max.ms", "2000")
            .set("allow.auto.create.topics", "false")
            .set("log.connection.close", "false")
            .set_log_level(RDKafkaLogLevel::Warning);
        let Security { tls, ca_path, certificate_path, key_path, username, password, mechanism } = &self.security;
        let protocol = match (tls, username.is_some()) {
            (false, false) => "plaintext",
            (false, true) => "sasl_plaintext",
            (true, false) => "ssl",
            (true, true) => "sasl_ssl",
        };
        config.set("security.protocol", protocol);
        let paths = [
            ("ssl.ca.location", ca_path),
            ("ssl.certificate.location", certificate_path),
            ("ssl.key.location", key_path),
        ];
        for (name, value) in paths.into_iter().filter(|_| *tls) {
            value.as_ref().map(|value| config.set(name, value));
        }
        if let Some(username) = username {
            config.set("sasl.mechanisms", mechanism).set("sasl.username", username);
            config.set("sasl.password", password.as_deref().unwrap_or_default());
        }
        config
    }

    /// A producer's. A patient one tries until Kafka takes it, in order; the other gives up after the delivery timeout.
    pub(super) fn producer(&self, patient: bool) -> ClientConfig {
        let mut config = self.client();
        let timeout = if patient { "0".to_owned() } else { millis(self.delivery_timeout) };
        config
            // Implies acks=all: accepted is what all replicas in sync have.
            .set("enable.idempotence", "true")
            .set("message.timeout.ms", timeout)
            // What is behind a record that is refused for good must not be accepted before it is appended again: the client
            // then gives up, but a broker takes any number as a producer's first in a partition, so that a batch behind the
            // refused one must not be under way either. Batches grow meanwhile.
            .set("enable.gapless.guarantee", patient.to_string())
            .set("max.in.flight.requests.per.connection", if patient { "1" } else { "5" })
            .set("request.timeout.ms", millis(limits::KAFKA_REQUEST_TIMEOUT))
            .set("partitioner", "murmur2_random")
            // Batches form by themselves while requests are on their way.
            .set("linger.ms", "0")
            .set("queue.buffering.max.messages", limits::KAFKA_QUEUE_RECORDS.to_string())
            .set("queue.buffering.max.kbytes", (limits::KAFKA_QUEUE_BYTES >> 10).to_string())
            .set("retry.backoff.ms", "50")
            .set("message.max.bytes", limits::KAFKA_RECORD_BYTES.to_string());
        config
    }

    /// That of the services' records: what it says is one transaction after the other, and nobody else's.
    pub(super) fn state_producer(&self) -> ClientConfig {
        let mut config = self.client();
        config
            .set("transactional.id", WORKERS)
            // A worker that vanished in the middle of one holds up no reader for longer.
            .set("transaction.timeout.ms", millis(limits::KAFKA_TRANSACTION_TIME))
            .set("message.timeout.ms", millis(limits::KAFKA_TRANSACTION_TIME))
            .set("linger.ms", "0")
            .set("retry.backoff.ms", "50")
            .set("compression.type", "lz4")
            .set("message.max.bytes", limits::KAFKA_RECORD_BYTES.to_string());
        config
    }

    /// That of a member of the workers' group.
    pub(super) fn member(&self) -> ClientConfig {
        let mut config = self.client();
        config
            .set("group.id", WORKERS)
            // Who has it keeps it while others come and go.
            .set("partition.assignment.strategy", "cooperative-sticky")
            .set("session.timeout.ms", millis(limits::KAFKA_LEASE_TIME))
            .set("heartbeat.interval.ms", millis(limits::KAFKA_LEASE_TIME / 6))
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "latest");
        config
    }

    /// A reader's: it commits nothing, and no gap is silent.
    pub(super) fn consumer(&self) -> ClientConfig {
        let mut config = self.client();
        config
            .set("group.id", format!("ringgate-{}", self.gateway_id))
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "error")
            .set("enable.partition.eof", "true")
            .set("isolation.level", "read_committed")
            // Bounds of what is fetched ahead, for each partition.
            .set("queued.min.messages", limits::KAFKA_AHEAD_RECORDS.to_string())
            .set("queued.max.messages.kbytes", (limits::KAFKA_AHEAD_BYTES >> 10).to_string())
            // Questions, and partitions that are new, wait behind a fetch that waits for records.
            .set("fetch.wait.max.ms", "100")
            .set("fetch.queue.backoff.ms", "20")
            .set("fetch.error.backoff.ms", "100");
        config
    }
}

impl std::fmt::Debug for KafkaConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KafkaConfig")
            .field("brokers", &self.brokers)
            .field("topics", &self.topics)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Security {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Security").field("tls", &self.tls).field("username", &self.username).finish_non_exhaustive()
    }
}

/// What the workers of a cluster have in common: their group, and the name under which one of them writes.
const WORKERS: &str = "ringgate.worker";

fn millis(time: Duration) -> String {
    time.as_millis().to_string()
}
