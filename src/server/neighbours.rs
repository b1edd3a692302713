//! Other gateways on the same Kafka: without a Redis that all have in common there may be one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

use super::bus::NodeBus;
use crate::limits;
use crate::presence::{Herald, Neighbours, Standing, Verdict};
use crate::router::{ThreadWaker, Wake};
use crate::shard::driver::syscall;
#[cfg(feature = "kafka")]
use crate::time::Monotonic;

/// Says on a shared bus that this gateway starts, and waits until it is known whether it may. Call the answer's
/// [`herald`] from then on.
///
/// # Errors
/// One line: which gateway is there, with the remedy.
pub fn meet(log: &NodeBus, me: &Standing) -> Result<(), String> {
    let wake: Arc<dyn Wake> = Arc::new(ThreadWaker::new(thread::current()));
    let mut herald = Herald::new(log.reader(&[], Arc::clone(&wake)), me.clone());
    let mut neighbours = Neighbours::new(log.reader(&[], wake), me.clone(), Neighbours::since(syscall::wall()));
    let (began, mut is_told) = (Instant::now(), false);
    loop {
        let now = syscall::monotonic();
        herald.turn(now, syscall::wall());
        match neighbours.look(now) {
            Verdict::Start => return Ok(()),
            Verdict::Refused(other) => {
                herald.leave(syscall::wall());
                return Err(refusal(me, &other));
            }
            Verdict::Wait if began.elapsed() > limits::KAFKA_HERALD_LOOK => {
                tracing::warn!("Kafka does not say whether other gateways are there; there must be none without Redis");
                return Ok(());
            }
            Verdict::Wait => {}
        }
        if !is_told && let Some(other) = neighbours.others(now).next() {
            is_told = true;
            let gateway_id = &other.gateway_id;
            tracing::info!(gateway_id, "another gateway was here a moment ago; waiting whether it is still");
        }
        thread::park_timeout(limits::KAFKA_WATCH_AGAIN);
    }
}

/// Says that the gateway is there until it stops, and that it ends.
pub fn herald(log: &NodeBus, me: Standing, stop: &AtomicBool) {
    let mut herald = Herald::new(log.reader(&[], Arc::new(ThreadWaker::new(thread::current()))), me);
    while !stop.load(Ordering::Acquire) {
        let now = syscall::monotonic();
        let next = herald.turn(now, syscall::wall());
        thread::park_timeout(next.since(now).min(limits::KAFKA_HERALD_INTERVAL));
    }
    herald.leave(syscall::wall());
}

/// The gateways that this one could not start beside.
#[cfg(feature = "kafka")]
pub fn look(log: &NodeBus, me: &Standing) -> Vec<String> {
    let wake: Arc<dyn Wake> = Arc::new(ThreadWaker::new(thread::current()));
    let mut neighbours = Neighbours::new(log.reader(&[], wake), me.clone(), Neighbours::since(syscall::wall()));
    let began = Instant::now();
    // Each that lives speaks once in this time.
    while began.elapsed() < limits::KAFKA_HERALD_INTERVAL + limits::KAFKA_WATCH_AGAIN {
        neighbours.others(Monotonic::ZERO).for_each(drop);
        thread::park_timeout(limits::KAFKA_WATCH_AGAIN);
    }
    neighbours.others(Monotonic::ZERO).map(|other| refusal(me, other)).collect()
}

fn refusal(me: &Standing, other: &Standing) -> String {
    let who = match (me.shares, other.shares) {
        (false, false) => "neither it nor this one has Redis",
        (true, _) => "it has no Redis",
        (false, true) => "this one has no Redis",
    };
    format!(
        "gateway {} is on this Kafka already, and {who}: sessions and rooms of one would be unknown to the other; set \
         REDIS_HOST to the same Redis on all gateways, or give this one a Kafka of its own",
        other.gateway_id
    )
}
