//! What does a message cost on its way from one node to another? Goal: at most 20 ns per message, amortised.
//!
//! `batch/*` pushes and takes runs of 64 on one thread: the instructions without the cache traffic. `threads/*` sends
//! through two busy threads. crossbeam's multi-producer `ArrayQueue` is what a simpler mesh would use. The message has
//! 48 bytes like the mesh's own.

use std::hint::{black_box, spin_loop};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput};
use crossbeam_queue::ArrayQueue;
use ringgate::id::NodeId;
use ringgate::router::mailbox::mailbox;
use ringgate::router::{Bounds, Port, mesh};

type Message = [u64; 6];

const RUN: u64 = 64;
const SLOTS: usize = 1024;

fn batch(c: &mut Criterion) {
    let mut group = c.benchmark_group("batch");
    group.throughput(Throughput::Elements(RUN));
    group.bench_function("mailbox", |b| {
        let (mut tx, mut rx) = mailbox::<Message>(SLOTS);
        b.iter(|| {
            (0..RUN).for_each(|i| tx.push([i; 6]).expect("the ring is larger than a run"));
            while let Some(message) = rx.pop() {
                black_box(message);
            }
        });
    });
    group.bench_function("array_queue", |b| {
        let queue = ArrayQueue::<Message>::new(SLOTS);
        b.iter(|| {
            (0..RUN).for_each(|i| queue.push([i; 6]).expect("the queue is larger than a run"));
            while let Some(message) = queue.pop() {
                black_box(message);
            }
        });
    });
    for nodes in [2usize, 10, 66] {
        group.bench_function(format!("port_{nodes}_nodes"), |b| {
            let mut ports: Vec<Port<Message, Message>> = mesh::build(nodes, Bounds { slots: 128, outbox: 64 });
            let (to, from) = (NodeId(0), nodes - 1);
            b.iter(|| {
                (0..RUN).for_each(|i| ports[from].deliver(to, [i; 6]));
                assert_eq!(ports[from].wake_list().count(), 0);
                while let Some(message) = ports[0].take_deliver() {
                    black_box(message);
                }
                assert_eq!(ports[0].wake_list().count(), 0);
            });
        });
    }
    group.finish();
}

fn threads(c: &mut Criterion) {
    let mut group = c.benchmark_group("threads");
    group.throughput(Throughput::Elements(1));
    group.bench_function("mailbox", |b| {
        b.iter_custom(|messages| {
            let (mut tx, mut rx) = mailbox::<Message>(SLOTS);
            through_threads(messages, move |message| tx.push(message).is_ok(), move || rx.pop().is_some())
        });
    });
    group.bench_function("array_queue", |b| {
        b.iter_custom(|messages| {
            let queue = Arc::new(ArrayQueue::<Message>::new(SLOTS));
            let sink = Arc::clone(&queue);
            through_threads(messages, move |message| queue.push(message).is_ok(), move || sink.pop().is_some())
        });
    });
    group.finish();
}

/// How long it takes to push and to take that many messages on two threads.
fn through_threads(
    messages: u64,
    mut push: impl FnMut(Message) -> bool + Send + 'static,
    mut pop: impl FnMut() -> bool,
) -> Duration {
    let start = Instant::now();
    let producer = thread::spawn(move || {
        for i in 0..messages {
            while !push([i; 6]) {
                spin_loop();
            }
        }
    });
    for _ in 0..messages {
        while !pop() {
            spin_loop();
        }
    }
    let elapsed = start.elapsed();
    producer.join().expect("the producer does not panic");
    elapsed
}

fn main() {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .configure_from_args();
    batch(&mut criterion);
    threads(&mut criterion);
    criterion.final_summary();
}
