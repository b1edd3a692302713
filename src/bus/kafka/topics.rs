//! The topics: which there must be, how they are made on request, and what is wrong with those that are there.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, ConfigResource, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::producer::words;
use super::state::STATE_TOPIC;
use super::{KafkaConfig, Line, connect};
use crate::bus::DEAD_TOPIC;
use crate::limits;
use crate::protocol::relay;

/// How topics are made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Creation {
    /// Partitions of those that are read in parallel.
    pub partitions: u32,
    /// Copies of each; `None` = the cluster's default.
    pub replication: Option<u32>,
    /// Copies that must have a record before it is accepted; `None` = the cluster's default.
    pub min_insync_replicas: Option<u32>,
    /// How long records are kept.
    pub retention: Duration,
}

/// What a look at Kafka found.
#[derive(Default, Debug)]
pub struct Found {
    /// What is there, a line each.
    pub lines: Vec<String>,
    /// What works and deserves a change, a line each.
    pub warnings: Vec<String>,
}

/// Makes the topics of the configuration that are not there, and tells of each what became of it.
///
/// # Errors
/// A line for each that could not be made, or one for all.
pub fn create(config: &KafkaConfig, creation: &Creation) -> Result<Vec<String>, Vec<String>> {
    let bare = KafkaConfig { topics: Vec::new(), ..config.clone() };
    let line = open(&bare).map_err(|reason| vec![reason])?;
    let retention = creation.retention.as_millis().to_string();
    let segment = limits::KAFKA_STATE_SEGMENT_BYTES.to_string();
    let min_insync = creation.min_insync_replicas.map(|count| count.to_string());
    let copies = creation.replication.map_or(-1, |count| i32::try_from(count).unwrap_or(-1));
    let specs: Vec<NewTopic<'_>> = config
        .topics
        .iter()
        .map(|topic| {
            let partitions = if SINGLE.contains(&topic.as_str()) { 1 } else { creation.partitions };
            let count = i32::try_from(partitions).unwrap_or(i32::MAX);
            let mut spec = NewTopic::new(topic, count, TopicReplication::Fixed(copies))
                // One clock for all: a backend's own may lag, and a start would miss its events.
                .set("message.timestamp.type", "LogAppendTime");
            spec = if topic == STATE_TOPIC {
                // A takeover reads all of it, so it is kept short.
                spec.set("cleanup.policy", "compact")
                    .set("segment.bytes", &segment)
                    .set("min.cleanable.dirty.ratio", "0.1")
            } else {
                spec.set("retention.ms", &retention)
            };
            match &min_insync {
                Some(count) => spec.set("min.insync.replicas", count),
                None => spec,
            }
        })
        .collect();
    let admin = admin(&bare).map_err(|reason| vec![reason])?;
    let options = AdminOptions::new().request_timeout(Some(limits::KAFKA_CONNECT_TIMEOUT));
    let made =
        wait(admin.create_topics(&specs, &options)).map_err(|error| vec![format!("topics: {}", words(&error))])?;
    drop(line);
    let (mut done, mut failed) = (Vec::new(), Vec::new());
    for outcome in made {
        match outcome {
            Ok(topic) => done.push(format!("{topic}: made")),
            Err((topic, RDKafkaErrorCode::TopicAlreadyExists)) => {
                done.push(format!("{topic}: was there; it is left as it is"))
            }
            Err((topic, code)) => failed.push(format!("{topic}: {code}{}", remedy(code))),
        }
    }
    if failed.is_empty() { Ok(done) } else { Err(failed) }
}

/// Reaches Kafka and looks at every topic of the configuration.
///
/// # Errors
/// One line: what keeps Kafka from being used, with the remedy.
pub fn look(config: &KafkaConfig, history: Duration) -> Result<Found, String> {
    let line = open(config)?;
    let producer = line.producer();
    let metadata = producer.client().fetch_metadata(None, limits::KAFKA_REQUEST_TIMEOUT);
    let metadata =
        metadata.map_err(|error| unreachable_words(config, limits::KAFKA_REQUEST_TIMEOUT, &words(&error)))?;
    let mut found = Found::default();
    let cluster = producer.client().fetch_cluster_id(limits::KAFKA_REQUEST_TIMEOUT).unwrap_or_default();
    found.lines.push(format!("kafka {}: cluster {cluster}, {} brokers", config.brokers, metadata.brokers().len()));
    for name in &config.topics {
        let Some(topic) = metadata.topics().iter().find(|topic| topic.name() == name) else { continue };
        let count = topic.partitions().len();
        found.lines.push(format!("kafka topic {name}: {count} partitions"));
        if name == STATE_TOPIC && count > 1 {
            found.warnings.push(several_words(count));
        }
        if name == HUB_TOPIC && count > 1 {
            found.warnings.push(format!(
                "kafka topic {name}: {count} partitions, but a visit of a room hub resumes in the first only; make it with one"
            ));
        }
        for partition in topic.partitions().iter().filter(|partition| partition.leader() < 0) {
            let number = partition.id();
            found.warnings.push(format!("kafka topic {name}: partition {number} has no leader; look at its brokers"));
        }
    }
    match settings(config) {
        Ok(settings) => {
            let copies = |name: &str| {
                let topic = metadata.topics().iter().find(|topic| topic.name() == name);
                topic.and_then(|topic| topic.partitions().first().map(|partition| partition.replicas().len()))
            };
            for (name, settings) in config.topics.iter().zip(&settings) {
                judge(name, settings, copies(name), history, &mut found.warnings);
            }
        }
        Err(error) => found.warnings.push(format!(
            "kafka: the topics' settings cannot be read ({}); allow DescribeConfigs to have them checked",
            words(&error)
        )),
    }
    Ok(found)
}

/// Looks whether the topic of the services' records keeps them: a worker must not begin where they would be lost.
///
/// # Errors
/// One line with the remedy.
pub fn fit_for_records(config: &KafkaConfig) -> Result<(), String> {
    let config = KafkaConfig { topics: vec![STATE_TOPIC.to_owned()], ..config.clone() };
    let line = open(&config)?;
    let metadata = line.producer().client().fetch_metadata(Some(STATE_TOPIC), limits::KAFKA_REQUEST_TIMEOUT);
    let metadata =
        metadata.map_err(|error| unreachable_words(&config, limits::KAFKA_REQUEST_TIMEOUT, &words(&error)))?;
    let count = metadata.topics().first().map_or(0, |topic| topic.partitions().len());
    if count > 1 {
        return Err(several_words(count));
    }
    match settings(&config) {
        Ok(settings) => settings.first().and_then(kept_words).map_or(Ok(()), Err),
        Err(error) => {
            let error = words(&error);
            tracing::warn!(error, "whether {STATE_TOPIC} is compacted cannot be read; allow DescribeConfigs");
            Ok(())
        }
    }
}

/// What is wrong with the records' topic if it has several partitions.
fn several_words(count: usize) -> String {
    format!("kafka topic {STATE_TOPIC}: {count} partitions, but the services' records need one; make it with one")
}

/// What is wrong with how it keeps them.
fn kept_words(settings: &ConfigResource) -> Option<String> {
    let policy = settings.get("cleanup.policy").and_then(|entry| entry.value.as_deref())?;
    (policy != "compact").then(|| {
        format!(
            "kafka topic {STATE_TOPIC}: cleanup.policy = {policy}: rooms would be forgotten; set it to compact, as \
             `ringgate topics create` does"
        )
    })
}

/// What a start says when topics are missing.
pub(super) fn missing_words(brokers: &str, missing: &[&str]) -> String {
    format!(
        "Kafka at {brokers} has no topic {}; make them with `ringgate topics create` or by your own means",
        missing.join(", ")
    )
}

/// What a start says when Kafka does not answer, with the remedy that the reason suggests.
pub(super) fn unreachable_words(config: &KafkaConfig, waited: Duration, reason: &str) -> String {
    let says = |text: &str| reason.contains(text);
    let remedy = if says("SASL ") {
        "set kafka.username, kafka.password and kafka.sasl_mechanism to what this listener expects; one that asks for no user \
         wants kafka.username unset"
    } else if config.security.tls {
        "does this listener speak TLS? Its certificate must name this host and be signed by kafka.ca_path; it may ask for one \
         itself (kafka.certificate_path, kafka.key_path), or for a user (kafka.username)"
    } else if says("refused") || says("resolve") {
        "check KAFKA_HOST, KAFKA_PORT, and that its advertised.listeners can be reached from here"
    } else {
        // A listener that expects something else hangs up without a word.
        "check KAFKA_HOST, KAFKA_PORT, and that its advertised.listeners can be reached from here; if it speaks TLS only, \
         kafka.tls = true; if it asks for a user, kafka.username"
    };
    format!("Kafka at {} did not answer within {} s: {reason}; {remedy}", config.brokers, waited.as_secs())
}

fn judge(name: &str, settings: &ConfigResource, copies: Option<usize>, history: Duration, warnings: &mut Vec<String>) {
    let number = |key: &str| settings.get(key).and_then(|entry| entry.value.as_deref()?.parse::<i64>().ok());
    let retention = number("retention.ms").filter(|ms| *ms >= 0).and_then(|ms| u64::try_from(ms).ok());
    let is_read = name.ends_with(".events") || name == relay::TOPIC;
    if is_read && retention.is_some_and(|ms| Duration::from_millis(ms) < history) {
        let least = history.as_millis();
        warnings.push(format!(
            "kafka topic {name}: retention.ms = {} is less than the histories' {least}: a restart loses frames that \
             clients may ask for; set it to {least} or more",
            retention.unwrap_or(0)
        ));
    }
    let least = number("min.insync.replicas").and_then(|count| usize::try_from(count).ok());
    if let (Some(least), Some(copies)) = (least, copies)
        && least > copies
    {
        warnings.push(format!(
            "kafka topic {name}: min.insync.replicas = {least}, but it has {copies} copies: brokers write nothing, or accept \
             what has fewer copies than that; give it more copies, or set it to {copies} or less"
        ));
    }
    if name == STATE_TOPIC {
        warnings.extend(kept_words(settings));
    }
    let longest = number("max.message.bytes").and_then(|bytes| usize::try_from(bytes).ok());
    if let Some(longest) = longest.filter(|longest| *longest < limits::KAFKA_RECORD_BYTES) {
        let least = limits::KAFKA_RECORD_BYTES;
        warnings.push(format!(
            "kafka topic {name}: max.message.bytes = {longest}: records that are written together and are longer are refused \
             together; set it to {least} or more"
        ));
    }
    let stamped = settings.get("message.timestamp.type").and_then(|entry| entry.value.as_deref());
    if is_read && stamped == Some("CreateTime") {
        warnings.push(format!(
            "kafka topic {name}: message.timestamp.type = CreateTime: what comes of a clock that lags may be missing after a \
             restart; set it to LogAppendTime"
        ));
    }
}

fn settings(config: &KafkaConfig) -> Result<Vec<ConfigResource>, KafkaError> {
    let admin: AdminClient<DefaultClientContext> = config.client().create()?;
    let options = AdminOptions::new().request_timeout(Some(limits::KAFKA_REQUEST_TIMEOUT));
    let topics: Vec<_> = config.topics.iter().map(|topic| ResourceSpecifier::Topic(topic)).collect();
    wait(admin.describe_configs(&topics, &options))?
        .into_iter()
        .map(|found| found.map_err(KafkaError::AdminOp))
        .collect()
}

fn open(config: &KafkaConfig) -> Result<Arc<Line>, String> {
    if let Some(refusal) = config.refusal() {
        return Err(refusal);
    }
    let line = Line::open(config.producer(false)).map_err(|reason| format!("Kafka client: {reason}"))?;
    connect(config, &line)?;
    Ok(Arc::new(line))
}

fn admin(config: &KafkaConfig) -> Result<AdminClient<DefaultClientContext>, String> {
    config.client().create().map_err(|error: KafkaError| format!("Kafka client: {}", words(&error)))
}

/// Runs a request of the admin client, whose own thread completes it.
fn wait<T>(request: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.expect("a runtime without drivers needs nothing").block_on(request)
}

fn remedy(code: RDKafkaErrorCode) -> &'static str {
    match code {
        RDKafkaErrorCode::InvalidReplicationFactor => "; give --replication at most the number of brokers",
        RDKafkaErrorCode::TopicAuthorizationFailed | RDKafkaErrorCode::ClusterAuthorizationFailed => {
            "; let this user create topics, or have them made"
        }
        _ => "",
    }
}

/// Where room hubs' events are; who visits one names a place in the first partition.
const HUB_TOPIC: &str = "rooms.events";
/// Topics that one partition suffices for, and whose order is worth more.
const SINGLE: [&str; 4] = ["system.events", HUB_TOPIC, DEAD_TOPIC, STATE_TOPIC];
