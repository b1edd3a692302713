//! Reading: a consumer that is assigned each partition when it is first read, and gives its records from a queue of its
//! own, so that a partition whose events wait holds up no other.
//!
//! Laws: records of a partition come in order and without a gap, or under another epoch; nothing is fetched ahead beyond
//! a bound per partition; only [`Reader::range`] and [`Reader::since`] wait for Kafka.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::base_consumer::PartitionQueue;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::BorrowedMessage;
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};

use super::cluster::Cluster;
use super::producer::{log, words};
use crate::limits;
use crate::ports::{Record, topic_and_partition};
use crate::router::Wake;
use crate::time::WallMillis;

/// See the module.
pub struct Reader {
    consumer: Arc<BaseConsumer<Quiet>>,
    cluster: Arc<Cluster>,
    wake: Option<Arc<dyn Wake>>,
    lanes: Vec<Lane>,
    /// What was known of the cluster when the lanes were last held against it.
    version: u64,
    /// When an error was last logged.
    complained: Option<Instant>,
}

/// A partition that is read.
struct Lane {
    name: Box<str>,
    topic: Box<str>,
    partition: i32,
    /// Of the topic, as it was when reading began.
    id: Arc<str>,
    /// How often the numbering of this topic broke.
    breaks: u32,
    /// Set when the numbering has become another; carried out when what was read before is given.
    broken: Option<Break>,
    queue: Option<PartitionQueue<Quiet>>,
    /// The offset to go on from.
    next: u64,
    /// The end as it was known last.
    end: u64,
}

/// Why a numbering is over.
enum Break {
    /// The topic was made anew, under this id.
    NewTopic(Arc<str>),
    /// Records that were to be read are gone; so often had the watch looked then.
    Lost { looks: u64 },
}

/// What became of a poll.
enum Polled {
    Record(Record),
    End,
    Lost,
    Failed(KafkaError),
    Nothing,
}

impl Reader {
    /// A reader that has read nothing yet; `wake` is called when records come.
    ///
    /// # Errors
    /// What is wrong with the configuration.
    pub fn open(config: &ClientConfig, cluster: Arc<Cluster>, wake: Option<Arc<dyn Wake>>) -> Result<Self, String> {
        let mut consumer: BaseConsumer<Quiet> =
            config.create_with_context(Quiet).map_err(|error: KafkaError| words(&error))?;
        if let Some(wake) = &wake {
            cluster.tell(wake);
            let wake = Arc::clone(wake);
            consumer.set_nonempty_callback(move || wake.wake());
        }
        let version = cluster.version();
        Ok(Self { consumer: Arc::new(consumer), cluster, wake, lanes: Vec::new(), version, complained: None })
    }

    /// The epoch of what was read last.
    pub fn epoch(&self, name: &str) -> Option<u64> {
        let lane = self.lanes.iter().find(|lane| *lane.name == *name)?;
        Some(self.cluster.epoch(&lane.topic, &lane.id, lane.breaks))
    }

    /// The first offset and the next, as Kafka says now; waits for it. `(0, 0)` if there is no such partition.
    pub fn range(&mut self, name: &str) -> (u64, u64) {
        let Some(at) = self.lane(name) else { return (0, 0) };
        let (topic, partition) = (self.lanes[at].topic.clone(), self.lanes[at].partition);
        let ask = |consumer: &BaseConsumer<Quiet>| {
            consumer.fetch_watermarks(&topic, partition, limits::KAFKA_REQUEST_TIMEOUT)
        };
        let (low, high) = self.insist(ask);
        let (low, high) = (u64::try_from(low).unwrap_or(0), u64::try_from(high).unwrap_or(0));
        self.lanes[at].end = high;
        (low, high)
    }

    /// The offset of the first record that is not older; waits for Kafka.
    pub fn since(&mut self, name: &str, since: WallMillis) -> u64 {
        let (_, end) = self.range(name);
        let Some(at) = self.lane(name) else { return 0 };
        let mut times = TopicPartitionList::new();
        let time = Offset::Offset(i64::try_from(since.0).unwrap_or(i64::MAX));
        if times.add_partition_offset(&self.lanes[at].topic, self.lanes[at].partition, time).is_err() {
            return 0;
        }
        let ask =
            |consumer: &BaseConsumer<Quiet>| consumer.offsets_for_times(times.clone(), limits::KAFKA_REQUEST_TIMEOUT);
        let found = self.insist(ask);
        match found.elements().first().map(|element| element.offset()) {
            Some(Offset::Offset(offset)) => u64::try_from(offset).unwrap_or(0),
            _ => end,
        }
    }

    /// See [`crate::ports::Bus::read`].
    pub fn read(&mut self, name: &str, offset: u64, max: usize, out: &mut Vec<Record>) -> u64 {
        self.serve();
        let Some(at) = self.lane(name) else { return offset };
        let Self { consumer, cluster, wake, lanes, .. } = self;
        let lane = &mut lanes[at];
        let (before, mut failure) = (out.len(), None);
        match lane.broken.take() {
            // Perhaps the topic was made anew: the watch is asked first.
            Some(Break::Lost { looks }) if cluster.looks() == looks => {
                lane.broken = Some(Break::Lost { looks });
                return lane.next;
            }
            Some(reason) => lane.start_anew(consumer, wake.as_ref(), reason),
            None if lane.queue.is_none() || offset != lane.next => lane.start(consumer, wake.as_ref(), offset),
            None => {}
        }
        while out.len() - before < max {
            match lane.poll() {
                Polled::Record(record) => {
                    lane.next = record.offset + 1;
                    out.push(record);
                }
                // Markers of transactions, and what was compacted away, have offsets too.
                Polled::End => lane.next = lane.next.max(lane.end),
                Polled::Lost => {
                    // What was read before belongs to the numbering that is over: a later call begins the new one.
                    lane.broken = Some(Break::Lost { looks: cluster.looks() });
                    cluster.hurry();
                    break;
                }
                Polled::Failed(error) => failure = Some(error),
                Polled::Nothing => break,
            }
        }
        let next = lane.next;
        if let Some(error) = failure {
            self.complain(&error);
        }
        next
    }

    /// Serves the client's own events, and holds the lanes against what is known of the cluster now.
    fn serve(&mut self) {
        while let Some(event) = self.consumer.poll(Duration::ZERO) {
            if let Err(error) = event.map(drop) {
                self.complain(&error);
            }
        }
        let version = self.cluster.version();
        if version == self.version {
            return;
        }
        self.version = version;
        for lane in &mut self.lanes {
            let now = self.cluster.topic(&lane.topic).map(|topic| topic.id);
            if let Some(id) = now.filter(|id| *id != lane.id) {
                lane.broken = Some(Break::NewTopic(id));
            }
        }
    }

    /// The lane of a partition that is there.
    fn lane(&mut self, name: &str) -> Option<usize> {
        if let Some(at) = self.lanes.iter().position(|lane| *lane.name == *name) {
            return Some(at);
        }
        let (topic, number) = topic_and_partition(name);
        let known = self.cluster.topic(topic).filter(|known| number < known.partitions)?;
        self.lanes.push(Lane {
            name: name.into(),
            topic: topic.into(),
            partition: i32::try_from(number).ok()?,
            id: known.id,
            breaks: 0,
            broken: None,
            queue: None,
            next: 0,
            end: 0,
        });
        Some(self.lanes.len() - 1)
    }

    /// Asks until Kafka answers.
    fn insist<T>(&mut self, ask: impl Fn(&BaseConsumer<Quiet>) -> Result<T, KafkaError>) -> T {
        loop {
            match ask(&self.consumer) {
                Ok(answer) => return answer,
                Err(error) => self.complain(&error),
            }
            std::thread::park_timeout(limits::KAFKA_WATCH_AGAIN);
        }
    }

    fn complain(&mut self, error: &KafkaError) {
        if self.complained.is_none_or(|at| at.elapsed() > COMPLAINTS) {
            tracing::warn!(error = words(error), "Kafka cannot be read; it is tried again");
            self.complained = Some(Instant::now());
        }
    }
}

impl Lane {
    /// Fetches from this offset on.
    fn start(&mut self, consumer: &Arc<BaseConsumer<Quiet>>, wake: Option<&Arc<dyn Wake>>, offset: u64) {
        let mut list = TopicPartitionList::new();
        let from =
            if offset == 0 { Offset::Beginning } else { Offset::Offset(i64::try_from(offset).unwrap_or(i64::MAX)) };
        let listed = list.add_partition_offset(&self.topic, self.partition, from);
        if self.queue.take().is_some() {
            // What was fetched goes with it.
            let _ = consumer.incremental_unassign(&list);
        }
        // Before it is fetched: a queue that was split stays so.
        let mut queue = consumer.split_partition_queue(&self.topic, self.partition);
        if let (Some(queue), Some(wake)) = (&mut queue, wake) {
            let wake = Arc::clone(wake);
            queue.set_nonempty_callback(move || wake.wake());
        }
        if let Err(error) = listed.and_then(|()| consumer.incremental_assign(&list)) {
            tracing::error!(topic = &*self.topic, partition = self.partition, %error, "the partition cannot be read");
            queue = None;
        }
        self.queue = queue;
        self.next = offset;
    }

    /// Goes on at the beginning of another numbering.
    fn start_anew(&mut self, consumer: &Arc<BaseConsumer<Quiet>>, wake: Option<&Arc<dyn Wake>>, reason: Break) {
        match reason {
            Break::NewTopic(id) => (self.id, self.breaks) = (id, 0),
            Break::Lost { .. } => {
                let (topic, partition, next) = (&*self.topic, self.partition, self.next);
                tracing::error!(topic, partition, next, "records are gone before they were read: another epoch begins");
                self.breaks += 1;
            }
        }
        self.end = 0;
        self.start(consumer, wake, 0);
    }

    fn poll(&self) -> Polled {
        match self.queue.as_ref().and_then(|queue| queue.poll(Duration::ZERO)) {
            None => Polled::Nothing,
            Some(Ok(message)) => Polled::Record(record(&message)),
            Some(Err(KafkaError::PartitionEOF(_))) => Polled::End,
            Some(Err(KafkaError::MessageConsumption(code))) if LOST.contains(&code) => Polled::Lost,
            Some(Err(error)) => Polled::Failed(error),
        }
    }
}

fn record(message: &BorrowedMessage<'_>) -> Record {
    Record {
        offset: u64::try_from(message.offset()).unwrap_or(0),
        timestamp: WallMillis(message.timestamp().to_millis().and_then(|at| u64::try_from(at).ok()).unwrap_or(0)),
        key: message.key().unwrap_or_default().into(),
        value: message.payload().unwrap_or_default().into(),
    }
}

/// A consumer's context: its lines go into the gateway's log.
struct Quiet;

impl ClientContext for Quiet {
    fn log(&self, level: RDKafkaLogLevel, topic: &str, message: &str) {
        log(level, topic, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "a consumer's error");
    }
}

impl ConsumerContext for Quiet {}

/// Errors that say that the place to read from is not there.
const LOST: [RDKafkaErrorCode; 4] = [
    RDKafkaErrorCode::OffsetOutOfRange,
    RDKafkaErrorCode::AutoOffsetReset,
    RDKafkaErrorCode::LogTruncation,
    RDKafkaErrorCode::NoOffset,
];
/// How often an error that lasts is logged.
const COMPLAINTS: Duration = Duration::from_secs(10);
