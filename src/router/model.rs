//! Model checking of mailbox, doorbell and port: every interleaving and every value the memory model allows, up to the
//! bound. A lost wake-up is a deadlock, which loom reports. Run with
//! `RUSTFLAGS="--cfg ringgate_loom" cargo test --lib router::model`.

use std::sync::Arc;

use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};
use loom::thread::{self, Thread};

use super::mailbox::{Receiver, Sender, mailbox};
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
    loom::model(|| {
        let bell = Arc::new(Doorbell::new());
        let rings = Arc::new(AtomicUsize::new(0));
        let sleeper = thread::current();
        let inboxes = [0, 1].map(|_| {
            let (mut tx, rx) = mailbox(1);
            let (bell, rings, sleeper) = (Arc::clone(&bell), Arc::clone(&rings), sleeper.clone());
            let producer = thread::spawn(move || {
                tx.push(()).unwrap();
                if bell.ring_needed() {
                    rings.fetch_add(1, Ordering::Relaxed);
                    sleeper.unpark();
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
                sleep(&*bell, || !a.is_empty() || !b.is_empty());
            }
        }
        producer_a.join().unwrap();
        producer_b.join().unwrap();
        assert!(rings.load(Ordering::Relaxed) <= sleeps);
    });
}

/// A producer that found the ring full and sleeps is woken once there is room.
#[test]
fn a_starved_producer_is_woken() {
    loom::model(|| starve(Sender::push));
}

/// The check bites: a producer that does not try again after it said that it starves sleeps forever.
#[test]
#[should_panic(expected = "deadlock")]
fn without_the_second_try_a_starved_producer_is_lost() {
    loom::model(|| starve(Sender::push_without_second_try));
}

/// Two ports with rings and outboxes of 1 that send each other more than fits get everything in order, with both
/// sleeping whenever their port allows it.
#[test]
fn two_ports_exchange_everything() {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(2);
    builder.check(|| {
        let mut ports: Vec<Port<u32, u32>> = mesh::build(2, Bounds { slots: 1, outbox: 1 });
        let (b, a) = (ports.pop().unwrap(), ports.pop().unwrap());
        let first = thread::current();
        let second = thread::spawn({
            let first = first.clone();
            move || exchange(b, &first, 1, 2)
        });
        exchange(a, second.thread(), 2, 1);
        second.join().unwrap();
    });
}

/// Sends `sent` deliver messages, takes `expected`.
fn exchange(mut port: Port<u32, u32>, other: &Thread, sent: u32, expected: u32) {
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
            assert_eq!(node, to);
            other.unpark();
        }
        if waiting == 0 && taken == expected {
            return;
        }
        port.announce_sleep();
        if !port.has_input() {
            thread::park();
        }
        port.awake();
    }
}

/// One producer, one message, a consumer that sleeps until it comes.
fn hop<B: Bell>(bell: B, last_look: bool) {
    let bell = Arc::new(bell);
    let (mut tx, mut rx) = mailbox(1);
    let (ringer, sleeper) = (Arc::clone(&bell), thread::current());
    let producer = thread::spawn(move || {
        tx.push(7).unwrap();
        if ringer.ring_needed() {
            sleeper.unpark();
        }
    });
    let message = loop {
        match rx.pop() {
            Some(message) => break message,
            None => sleep(&*bell, || last_look && !rx.is_empty()),
        }
    };
    assert_eq!(message, 7);
    producer.join().unwrap();
}

/// A producer with two messages for a ring of one, which sleeps while it is full; the consumer never sleeps, but ends
/// with the second message.
fn starve(push: fn(&mut Sender<u32>, u32) -> Result<(), u32>) {
    let bell = Arc::new(Doorbell::new());
    let (mut tx, rx) = mailbox(1);
    tx.push(0).unwrap();
    let (sleeper, own_bell) = (thread::current(), Arc::clone(&bell));
    let consumer = thread::spawn(move || take_one(rx, &bell, &sleeper));
    while push(&mut tx, 1).is_err() {
        sleep(&*own_bell, || tx.has_room());
    }
    consumer.join().unwrap();
}

/// Takes one message and sees to it that the producer learns of the room.
fn take_one(mut rx: Receiver<u32>, producers_bell: &Doorbell, producer: &Thread) {
    assert_eq!(rx.pop(), Some(0));
    if rx.take_starved() && producers_bell.ring_needed() {
        producer.unpark();
    }
}

/// The sleeper's half of the protocol.
fn sleep<B: Bell>(bell: &B, has_work: impl Fn() -> bool) {
    bell.announce_sleep();
    if !has_work() {
        thread::park();
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
        self.0.store(false, Ordering::Release);
    }
    fn ring_needed(&self) -> bool {
        self.0.load(Ordering::Acquire) && self.0.swap(false, Ordering::AcqRel)
    }
}

/// A doorbell with the producer's fence only.
struct HalfFenced(AtomicBool);

impl Bell for HalfFenced {
    fn announce_sleep(&self) {
        self.0.store(true, Ordering::Release);
    }
    fn awake(&self) {
        self.0.store(false, Ordering::Release);
    }
    fn ring_needed(&self) -> bool {
        fence(Ordering::SeqCst);
        self.0.load(Ordering::Acquire) && self.0.swap(false, Ordering::AcqRel)
    }
}
