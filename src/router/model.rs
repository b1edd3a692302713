//! Model checking of mailbox, doorbell and port: every interleaving and every value the memory model allows, up to the
//! bound. A lost wake-up is a deadlock, which loom reports. A wake-up is loom's `Notify`, which like an eventfd keeps one
//! for later. Run with `RUSTFLAGS="--cfg ringgate_loom" cargo test --lib router::model`.

use std::sync::Arc;

use loom::sync::Notify;
use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};
use loom::thread;

use super::mailbox::{Receiver, mailbox};
use super::{Bounds, Doorbell, Port, mesh};
use crate::id::NodeId;

/// A mailbox and a doorbell lose no wake-up: a pushed message is seen by the last look, or the producer rings.
#[test]
fn a_pushed_message_is_seen_or_rung_for() {
    loom::model(|| hop(Doorbell::new(), true));
}

/// The check bites: without the fences, sleeper and producer miss each other.
#[test]
#[should_panic(expected = "deadlock")]
fn without_fences_a_wake_up_is_lost() {
    loom::model(|| hop(Unfenced(AtomicBool::new(false)), true));
}

/// The check bites: without the fence on the sleeper's side, they miss each other.
#[test]
#[should_panic(expected = "deadlock")]
fn without_the_sleepers_fence_a_wake_up_is_lost() {
    loom::model(|| hop(HalfFenced(AtomicBool::new(false)), true));
}

/// The check bites: a sleeper that does not look once more misses what came before it announced its sleep.
#[test]
#[should_panic(expected = "deadlock")]
fn without_the_last_look_a_wake_up_is_lost() {
    loom::model(|| hop(Doorbell::new(), false));
}

/// Two producers ring at most once per sleep, and the sleeper gets both messages.
#[test]
fn two_producers_ring_once_per_sleep() {
    bounded().check(|| {
        let bell = Arc::new(Doorbell::new());
        let rings = Arc::new(AtomicUsize::new(0));
        let wake_up = Arc::new(Notify::new());
        let inboxes = [0, 1].map(|_| {
            let (mut tx, rx) = mailbox(1);
            let (bell, rings, wake_up) = (Arc::clone(&bell), Arc::clone(&rings), Arc::clone(&wake_up));
            let producer = thread::spawn(move || {
                tx.push(()).unwrap();
                if bell.ring_needed() {
                    rings.fetch_add(1, Ordering::Relaxed);
                    wake_up.notify();
                }
            });
            (rx, producer)
        });
        let [(mut a, producer_a), (mut b, producer_b)] = inboxes;
        let (mut taken, mut sleeps) = (0, 0);
        while taken < 2 {
            taken += usize::from(a.pop().is_some()) + usize::from(b.pop().is_some());
            if taken < 2 {
                sleeps += 1;
                sleep(&*bell, &wake_up, || !a.is_empty() || !b.is_empty());
            }
        }
        producer_a.join().unwrap();
        producer_b.join().unwrap();
        assert!(rings.load(Ordering::Relaxed) <= sleeps);
    });
}

/// A producer that found the ring full and sleeps is woken once there is room, however often that happens.
#[test]
fn a_starved_producer_is_woken() {
    bounded().check(|| starve(Receiver::producer_starves, true));
}

/// The check bites: a consumer that never looks whether its producer starves leaves it asleep.
#[test]
#[should_panic(expected = "deadlock")]
fn without_the_look_at_starved_a_producer_is_lost() {
    bounded().check(|| starve(|_| false, true));
}

/// The check bites: a consumer that clears the flag may clear the one of the producer's next failure.
#[test]
#[should_panic(expected = "deadlock")]
fn with_starved_cleared_by_the_consumer_a_producer_is_lost() {
    bounded().check(|| starve(Receiver::take_starved, true));
}

/// The check bites: a producer that does not look for room once more before it sleeps misses it.
#[test]
#[should_panic(expected = "deadlock")]
fn without_the_last_look_for_room_a_producer_is_lost() {
    bounded().check(|| starve(Receiver::producer_starves, false));
}

/// Two ports with rings and outboxes of 1 that send each other more than fits get everything in order, with both
/// sleeping whenever their port allows it.
#[test]
fn two_ports_exchange_everything() {
    bounded().check(|| {
        let mut ports: Vec<Port<u32, u32>> = mesh::build(2, Bounds { slots: 1, outbox: 1 });
        let (b, a) = (ports.pop().unwrap(), ports.pop().unwrap());
        let wake_ups = Arc::new([Notify::new(), Notify::new()]);
        let second = thread::spawn({
            let wake_ups = Arc::clone(&wake_ups);
            move || exchange(b, &wake_ups, 2, 2)
        });
        exchange(a, &wake_ups, 2, 2);
        second.join().unwrap();
    });
}

/// At most two preemptions per execution: these models have too many without a bound, and every broken variant
/// here is found within it.
fn bounded() -> loom::model::Builder {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(2);
    builder
}

/// Sends `sent` deliver messages, takes `expected`.
fn exchange(mut port: Port<u32, u32>, wake_ups: &[Notify; 2], sent: u32, expected: u32) {
    let to = NodeId(1 - port.id().0);
    for message in 0..sent {
        port.deliver(to, message);
    }
    let mut taken = 0;
    loop {
        let waiting = port.flush_outboxes();
        while let Some((from, message)) = port.take_deliver() {
            assert_eq!((from, message), (to, taken));
            taken += 1;
        }
        for node in port.wake_list() {
            wake_ups[node.index()].notify();
        }
        if waiting == 0 && taken == expected {
            return;
        }
        port.announce_sleep();
        if !port.has_input() {
            wake_ups[port.id().index()].wait();
        }
        port.awake();
    }
}

/// One producer, one message, a consumer that sleeps until it comes.
fn hop<B: Bell>(bell: B, last_look: bool) {
    let bell = Arc::new(bell);
    let wake_up = Arc::new(Notify::new());
    let (mut tx, mut rx) = mailbox(1);
    let producer = thread::spawn({
        let (bell, wake_up) = (Arc::clone(&bell), Arc::clone(&wake_up));
        move || {
            tx.push(7).unwrap();
            if bell.ring_needed() {
                wake_up.notify();
            }
        }
    });
    let message = loop {
        match rx.pop() {
            Some(message) => break message,
            None => sleep(&*bell, &wake_up, || last_look && !rx.is_empty()),
        }
    };
    assert_eq!(message, 7);
    producer.join().unwrap();
}

/// Three messages through a ring of one; the producer sleeps while it is full, the consumer while it is empty.
fn starve(starves: fn(&Receiver<u32>) -> bool, last_look: bool) {
    let producer = Arc::new((Doorbell::new(), Notify::new()));
    let consumer = Arc::new((Doorbell::new(), Notify::new()));
    let (mut tx, mut rx) = mailbox(1);
    let sending = thread::spawn({
        let (producer, consumer) = (Arc::clone(&producer), Arc::clone(&consumer));
        move || {
            for message in 0..3 {
                while tx.push(message).is_err() {
                    sleep(&producer.0, &producer.1, || last_look && tx.has_room());
                }
                if consumer.0.ring_needed() {
                    consumer.1.notify();
                }
            }
        }
    });
    for expected in 0..3 {
        let message = loop {
            match rx.pop() {
                Some(message) => break message,
                None => sleep(&consumer.0, &consumer.1, || !rx.is_empty()),
            }
        };
        assert_eq!(message, expected);
        if starves(&rx) && producer.0.ring_needed() {
            producer.1.notify();
        }
    }
    sending.join().unwrap();
}

/// The sleeper's half of the protocol.
fn sleep<B: Bell>(bell: &B, wake_up: &Notify, has_work: impl Fn() -> bool) {
    bell.announce_sleep();
    if !has_work() {
        wake_up.wait();
    }
    bell.awake();
}

/// The doorbell, or a broken one.
trait Bell: Send + Sync + 'static {
    fn announce_sleep(&self);
    fn awake(&self);
    fn ring_needed(&self) -> bool;
}

impl Bell for Doorbell {
    fn announce_sleep(&self) {
        Doorbell::announce_sleep(self);
    }
    fn awake(&self) {
        Doorbell::awake(self);
    }
    fn ring_needed(&self) -> bool {
        Doorbell::ring_needed(self)
    }
}

/// A doorbell without its fences.
struct Unfenced(AtomicBool);

impl Bell for Unfenced {
    fn announce_sleep(&self) {
        self.0.store(true, Ordering::Release);
    }
    fn awake(&self) {
        self.0.swap(false, Ordering::AcqRel);
    }
    fn ring_needed(&self) -> bool {
        self.0.compare_exchange(true, false, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

/// A doorbell with the producer's fence only.
struct HalfFenced(AtomicBool);

impl Bell for HalfFenced {
    fn announce_sleep(&self) {
        self.0.store(true, Ordering::Release);
    }
    fn awake(&self) {
        self.0.swap(false, Ordering::AcqRel);
    }
    fn ring_needed(&self) -> bool {
        fence(Ordering::SeqCst);
        self.0.compare_exchange(true, false, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}
