//! Which of several workers is the active one: the member of a consumer group to which the records' one partition is
//! assigned. Nobody reads by that assignment; it is a lease that Kafka gives, keeps for who answers, and gives on.
//!
//! Laws: at most one member that Kafka counts has it; who leaves gives it up at once, who vanishes within
//! [`limits::KAFKA_LEASE_TIME`]. A member that was frozen may still believe that it has it: what it may not do then is
//! refused by the store ([`super::StateStore`]), not here. It stays with who has it while others come and go.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, bounded};
use rdkafka::ClientContext;
use rdkafka::TopicPartitionList;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext, Rebalance};
use rdkafka::error::KafkaError;

use super::KafkaConfig;
use super::producer::{log, words};
use super::state::STATE_TOPIC;
use crate::limits;
use crate::router::Wake;

/// A place in the group; dropping it leaves the group.
pub struct WorkerLease {
    member: Arc<Member>,
    ended: Receiver<()>,
}

impl WorkerLease {
    /// Joins the group. `wake` is called when the lease comes and when it goes.
    ///
    /// # Errors
    /// What is wrong with the configuration.
    pub fn join(config: &KafkaConfig, wake: Arc<dyn Wake>) -> Result<Self, String> {
        let (held, terms, again, stop) =
            (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false), AtomicBool::new(false));
        let member = Arc::new(Member { held, terms, again, stop, wake });
        let consumer: BaseConsumer<Attending> = config
            .member()
            .create_with_context(Attending(Arc::clone(&member)))
            .map_err(|error: KafkaError| format!("Kafka client: {}", words(&error)))?;
        consumer.subscribe(&[STATE_TOPIC]).map_err(|error| format!("Kafka group: {}", words(&error)))?;
        let (ending, ended) = bounded(1);
        let attending = Arc::clone(&member);
        let body = move || {
            attend(consumer, &attending);
            // Who waited for it may have gone.
            let _ = ending.send(());
        };
        thread::Builder::new().name("lease".into()).spawn(body).map_err(|error| format!("lease: {error}"))?;
        Ok(Self { member, ended })
    }

    /// Names the term for which the lease is held, if it is.
    #[must_use]
    pub fn term(&self) -> Option<u64> {
        Some(self.member.held.load(Ordering::Acquire)).filter(|term| *term > 0)
    }

    /// Gives the lease up, if it is that of this term, and stands by for another.
    pub fn give_up(&self, term: u64) {
        if self.member.held.compare_exchange(term, 0, Ordering::AcqRel, Ordering::Acquire).is_ok() {
            self.member.again.store(true, Ordering::Release);
        }
    }
}

impl Drop for WorkerLease {
    fn drop(&mut self) {
        self.member.stop.store(true, Ordering::Release);
        // Where Kafka does not answer, the group finds out by itself.
        let _ = self.ended.recv_timeout(limits::KAFKA_FLUSH_TIME);
    }
}

impl std::fmt::Debug for WorkerLease {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WorkerLease").field("term", &self.term()).finish_non_exhaustive()
    }
}

struct Member {
    /// The present term, 0 if it is not ours.
    held: AtomicU64,
    /// Terms there have been.
    terms: AtomicU64,
    /// It is to be given up.
    again: AtomicBool,
    stop: AtomicBool,
    wake: Arc<dyn Wake>,
}

/// The consumer's context.
struct Attending(Arc<Member>);

impl ClientContext for Attending {
    fn log(&self, level: RDKafkaLogLevel, topic: &str, message: &str) {
        log(level, topic, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "the error of a group's member");
    }
}

impl ConsumerContext for Attending {
    fn pre_rebalance(&self, _consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        let is_over = match rebalance {
            Rebalance::Revoke(partitions) => names_it(partitions),
            Rebalance::Assign(_) => false,
            Rebalance::Error(_) => true,
        };
        if is_over {
            self.0.held.store(0, Ordering::Release);
            self.0.wake.wake();
        }
    }

    fn post_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        let Rebalance::Assign(partitions) = rebalance else { return };
        if names_it(partitions) {
            // Its records are not wanted here.
            if let Err(error) = consumer.pause(partitions) {
                tracing::debug!(%error, "the lease's partition is read for nothing");
            }
            let term = self.0.terms.fetch_add(1, Ordering::AcqRel) + 1;
            self.0.held.store(term, Ordering::Release);
            self.0.wake.wake();
        }
    }
}

fn names_it(partitions: &TopicPartitionList) -> bool {
    partitions.find_partition(STATE_TOPIC, 0).is_some()
}

/// Answers the group until it is to end; then leaves, so that another takes over at once.
fn attend(consumer: BaseConsumer<Attending>, member: &Member) {
    let mut complained: Option<Instant> = None;
    while !member.stop.load(Ordering::Acquire) {
        let outcome = consumer.poll(POLL).map_or(Ok(()), |outcome| outcome.map(drop));
        let outcome = outcome.and_then(|()| match member.again.swap(false, Ordering::AcqRel) {
            true => {
                consumer.unsubscribe();
                consumer.subscribe(&[STATE_TOPIC])
            }
            false => Ok(()),
        });
        if let Err(error) = outcome
            && complained.is_none_or(|at| at.elapsed() > COMPLAINTS)
        {
            tracing::warn!(error = words(&error), "the workers' group does not answer; this worker stands by");
            complained = Some(Instant::now());
        }
    }
}

/// How long the group is waited for at a time.
const POLL: Duration = Duration::from_millis(100);
/// How often an error that lasts is logged.
const COMPLAINTS: Duration = Duration::from_secs(10);
