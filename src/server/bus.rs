//! Which bus the node has, and the way of its events back into the homes at a start.

use std::path::Path;
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, bounded};

#[cfg(feature = "kafka")]
use crate::bus::kafka::KafkaBus;
use crate::bus::{DiskBus, DiskConfig, EmbeddedBus, TopicBounds};
use crate::config::Config;
use crate::log::Retention;
use crate::message::Kept;
use crate::ports::{Bus, Durability, LogView};
use crate::router::Wake;
use crate::shard::driver::syscall::{self, Entropy};

/// The bus, of which each thread takes a reader.
pub enum NodeBus {
    /// Gone with the process.
    Memory(EmbeddedBus),
    /// In `data_dir`.
    Disk(DiskBus),
    /// Shared with other gateways.
    #[cfg(feature = "kafka")]
    Kafka(Box<KafkaBus>),
}

impl NodeBus {
    /// The configured one, and what it is in words.
    ///
    /// # Errors
    /// One line: why Kafka or `data_dir` cannot be used, with the remedy.
    pub fn open(config: &Config, entropy: &mut Entropy) -> Result<(Self, String), String> {
        #[cfg(feature = "kafka")]
        if let Some(kafka) = super::kafka::settings(config) {
            let bus = KafkaBus::open(&kafka)?;
            let words = format!("Kafka at {}, cluster {}", kafka.brokers, bus.cluster_id());
            return Ok((Self::Kafka(Box::new(bus)), words));
        }
        #[cfg(not(feature = "kafka"))]
        if config.kafka.host.is_some() {
            return Err(super::kafka::refusal());
        }
        let id = entropy.next_u64() >> 11;
        let Some(data_dir) = &config.server.data_dir else {
            return Ok((Self::Memory(EmbeddedBus::new(id, TopicBounds::default())), "embedded in memory".into()));
        };
        let disk = DiskConfig {
            retention: Retention { time: config.bus.retention, bytes: config.bus.retention_bytes },
            segment_bytes: config.bus.segment_bytes,
            writer: config.bus.writer,
            ..DiskConfig::new(Path::new(data_dir), id, entropy.next_u64(), syscall::wall)
        };
        let (bus, found) = DiskBus::open(&disk)?;
        let (bytes, segments) = (found.bytes, found.segments);
        tracing::info!(data_dir, id = found.id, segments, bytes, torn = found.torn, "the bus's log is open");
        Ok((Self::Disk(bus), format!("embedded on disk in {data_dir}, written by {}", found.writer)))
    }

    /// See [`EmbeddedBus::reader`].
    pub fn reader(&self, topics: &[&str], wake: Arc<dyn Wake>) -> Box<dyn Bus> {
        match self {
            Self::Memory(bus) => Box::new(bus.reader(topics, wake)),
            Self::Disk(bus) => Box::new(bus.reader(topics, wake)),
            #[cfg(feature = "kafka")]
            Self::Kafka(bus) => Box::new(bus.reader(wake)),
        }
    }

    /// A reader whose appends are those of independent senders.
    pub fn commands(&self, topics: &[&str], wake: Arc<dyn Wake>) -> Box<dyn Bus> {
        match self {
            #[cfg(feature = "kafka")]
            Self::Kafka(bus) => Box::new(bus.commands(wake)),
            _ => self.reader(topics, wake),
        }
    }

    /// How many partitions a topic has.
    pub fn partitions(&self, topic: &str) -> u32 {
        match self {
            Self::Memory(bus) => bus.partitions(topic),
            Self::Disk(bus) => bus.partitions(topic),
            #[cfg(feature = "kafka")]
            Self::Kafka(bus) => bus.partitions(topic),
        }
    }

    /// Whether others share it: services run elsewhere, and what it has comes when it comes.
    pub fn is_shared(&self) -> bool {
        self.durability() == Durability::Kafka
    }

    /// The bus for another thread.
    pub fn share(&self) -> Self {
        match self {
            Self::Memory(bus) => Self::Memory(bus.handle()),
            Self::Disk(bus) => Self::Disk(bus.handle()),
            #[cfg(feature = "kafka")]
            Self::Kafka(bus) => Self::Kafka(Box::new(bus.handle())),
        }
    }

    /// The numbering of a topic.
    pub fn epoch(&self, topic: &str) -> u64 {
        match self {
            Self::Memory(bus) => Bus::epoch(bus, topic),
            Self::Disk(bus) => Bus::epoch(bus, topic),
            #[cfg(feature = "kafka")]
            Self::Kafka(bus) => bus.epoch(topic),
        }
    }

    /// The topics, to be looked at.
    pub fn view(&self) -> Arc<dyn LogView> {
        match self {
            Self::Memory(bus) => Arc::new(bus.handle()),
            Self::Disk(bus) => Arc::new(bus.handle()),
            #[cfg(feature = "kafka")]
            Self::Kafka(bus) => Arc::new(bus.view()),
        }
    }

    /// What an acknowledgement means.
    pub fn durability(&self) -> Durability {
        match self {
            Self::Memory(bus) => bus.durability(),
            Self::Disk(bus) => bus.durability(),
            #[cfg(feature = "kafka")]
            Self::Kafka(bus) => bus.durability(),
        }
    }
}

/// The ways from the log to the shards' homes: one sender for the bus's thread, a receiver per shard, which ends when
/// all is given.
pub fn ways(shards: u16) -> (Vec<Sender<Kept>>, Vec<Receiver<Kept>>) {
    (0..shards).map(|_| bounded(REBUILD_EVENTS)).unzip()
}

/// Events that wait for a shard while histories are rebuilt.
const REBUILD_EVENTS: usize = 1024;
