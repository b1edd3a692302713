//! From the configuration to the bus on Kafka: which brokers, which topics, and what a binary without Kafka says.

use std::time::Duration;

#[cfg(feature = "kafka")]
use crate::bus::{DEAD_TOPIC, EVENT_TOPICS};
use crate::config::Config;
#[cfg(feature = "kafka")]
use crate::protocol::routes::Destination;

/// The topics that a gateway and its backends share: the built-in ones (PROTOCOLS "Bus topics and envelopes") and those
/// that the type table names.
#[cfg(feature = "kafka")]
fn topics(config: &Config) -> Vec<String> {
    let named = config.routes.commands().iter().filter_map(|row| match &row.destination {
        Destination::Topic(topic) => Some(topic.to_string()),
        Destination::Relay | Destination::Gateway => None,
    });
    let mut topics: Vec<String> = EVENT_TOPICS.iter().chain(&OWN).map(|topic| (*topic).to_owned()).collect();
    topics.extend(named);
    topics.sort_unstable();
    topics.dedup();
    topics
}

/// The bus on Kafka as it is configured; `None` if it is not.
#[cfg(feature = "kafka")]
#[must_use]
pub fn settings(config: &Config) -> Option<crate::bus::kafka::KafkaConfig> {
    use crate::bus::kafka::{KafkaConfig, Security};
    let kafka = &config.kafka;
    let host_name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    Some(KafkaConfig {
        brokers: kafka.brokers()?,
        gateway_id: config.server.gateway_id(host_name.trim()),
        generation: kafka.generation,
        delivery_timeout: kafka.delivery_timeout,
        connect_timeout: kafka.connect_timeout,
        topics: topics(config),
        describe: crate::shard::driver::syscall::describe_topics,
        security: Security {
            tls: kafka.tls,
            ca_path: kafka.ca_path.clone(),
            certificate_path: kafka.certificate_path.clone(),
            key_path: kafka.key_path.clone(),
            username: kafka.username.clone(),
            password: kafka.password.clone(),
            mechanism: kafka.sasl_mechanism.name().to_owned(),
        },
    })
}

/// How topics are made; see [`create_topics`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TopicWish {
    /// Partitions of those that are read in parallel.
    pub partitions: u32,
    /// Copies of each; `None` = the cluster's default.
    pub replication: Option<u32>,
    /// Copies that must have a record before it is accepted; `None` = the cluster's default.
    pub min_insync_replicas: Option<u32>,
    /// How long records are kept.
    pub retention: Duration,
}

/// Makes the topics of the configuration that are not there; a line for each.
///
/// # Errors
/// A line for each that could not be made, or one for all.
pub fn create_topics(config: &Config, wish: &TopicWish) -> Result<Vec<String>, Vec<String>> {
    if config.kafka.host.is_none() {
        return Err(vec!["kafka.host is not set: there are topics on Kafka only; set KAFKA_HOST".to_owned()]);
    }
    #[cfg(feature = "kafka")]
    if let Some(kafka) = settings(config) {
        let TopicWish { partitions, replication, min_insync_replicas, retention } = *wish;
        let creation = crate::bus::kafka::Creation { partitions, replication, min_insync_replicas, retention };
        return crate::bus::kafka::create(&kafka, &creation);
    }
    let _ = wish;
    Err(vec![refusal()])
}

/// Reaches Kafka, if it is configured: a line for what is there, and for what deserves a change.
///
/// # Errors
/// One line: what keeps it from being used, with the remedy.
pub fn check(config: &Config) -> Result<Vec<String>, String> {
    if config.kafka.host.is_none() {
        return Ok(Vec::new());
    }
    #[cfg(feature = "kafka")]
    if let Some(kafka) = settings(config) {
        let found = crate::bus::kafka::look(&kafka, super::history_time(config))?;
        let me = crate::presence::Standing {
            gateway_id: kafka.gateway_id.clone(),
            nonce: 0,
            shares: config.redis.host.is_some(),
            alive: true,
        };
        let log = super::bus::NodeBus::Kafka(Box::new(crate::bus::kafka::KafkaBus::open(&kafka)?));
        if let Some(refusal) = super::neighbours::look(&log, &me).into_iter().next() {
            return Err(refusal);
        }
        let warnings = found.warnings.into_iter().map(|line| format!("warning: {line}"));
        return Ok(found.lines.into_iter().chain(warnings).collect());
    }
    Err(refusal())
}

/// What a binary without Kafka says to a configuration with it.
pub(super) fn refusal() -> String {
    "kafka.host: this ringgate was built without Kafka; build it with --features kafka, or unset KAFKA_HOST".to_owned()
}

/// What a binary without Kafka says to who wants a worker.
#[cfg(not(feature = "kafka"))]
pub(super) fn refusal_of_worker() -> String {
    "this ringgate was built without Kafka, over which alone a worker serves gateways; build it with --features kafka"
        .to_owned()
}

/// Beside those of events and the type table.
#[cfg(feature = "kafka")]
const OWN: [&str; 7] = [
    "chat.commands",
    "games.commands",
    "rooms.commands",
    "gateway.presence",
    "ringgate.relay",
    DEAD_TOPIC,
    "ringgate.state",
];
