//! What does a write queue cost per operation? Nanoseconds, one thread, everything warm.
//! Goal (DESIGN §10): push and flush of one run on a fast connection ≤ 20 ns; the slow path has no goal but is watched.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BatchSize, Criterion, criterion_main};
use ringgate::class::Class;
use ringgate::delivery::{Context, EncodeSkipped, Limits, Pool, ToSend, WriteQueue};
use ringgate::frame::{BatchBuilder, Item, Run, Shared};
use ringgate::id::StreamHandle;
use ringgate::stats::{Histogram, Ledger};
use ringgate::time::Monotonic;

struct Dialect;

impl EncodeSkipped for Dialect {
    fn encode_skipped(&self, stream: StreamHandle, count: u64, out: &mut Vec<u8>) {
        out.extend_from_slice(&stream.0.to_le_bytes());
        out.extend_from_slice(&count.to_le_bytes());
    }
}

/// A shard's share of the context.
#[derive(Debug)]
struct Bench {
    ledger: Ledger,
    pool: Pool,
    limits: Limits,
    delta_age: Histogram,
}

impl Bench {
    fn new() -> Self {
        Self {
            ledger: Ledger::default(),
            pool: Pool::new(1),
            limits: Limits::default(),
            delta_age: Histogram::default(),
        }
    }

    fn context(&mut self) -> Context<'_> {
        Context {
            now: Monotonic::from_nanos(1_000_000),
            limits: &self.limits,
            ledger: &mut self.ledger,
            pool: &mut self.pool,
            skipped: &Dialect,
            delta_age: &self.delta_age,
        }
    }
}

fn run(class: Class, frames: u64) -> Run {
    let mut builder = BatchBuilder::new(StreamHandle(1));
    for n in 1..=frames {
        let item = Item { class, key: n, forgets: false, place: n, prev: n - 1 };
        builder.push(item, |out| out.resize(out.len() + 100, n as u8));
    }
    Run::whole(Shared::new(Arc::new(builder.seal(Monotonic::ZERO))))
}

/// A queue that one short send made slow.
fn slow_queue(cx: &mut Context<'_>) -> WriteQueue {
    let mut queue = WriteQueue::new();
    let _ = queue.push_run(run(Class::Reliable, 1), cx);
    let _ = queue.next_send(cx);
    let _ = queue.sent(10, cx);
    queue
}

fn fast_path(c: &mut Criterion) {
    for (name, frames) in [("fast/push+flush, run of 1", 1), ("fast/push+flush, run of 64", 64)] {
        let (mut bench, mut queue, run) = (Bench::new(), WriteQueue::new(), run(Class::Reliable, frames));
        let bytes = run.byte_len();
        c.bench_function(name, |b| {
            let mut cx = bench.context();
            b.iter(|| {
                let _ = queue.push_run(black_box(&run).clone(), &mut cx);
                let ToSend::Run { run, skip: 0 } = queue.next_send(&mut cx) else { unreachable!("one run waits") };
                black_box(run);
                let _ = queue.sent(bytes, &mut cx);
            });
        });
    }
}

fn slow_path(c: &mut Criterion) {
    let (mut bench, run) = (Bench::new(), run(Class::Delta, 64));
    let mut cx = bench.context();
    let mut queue = slow_queue(&mut cx);
    c.bench_function("slow/push of 64 deltas that replace", |b| {
        b.iter(|| queue.push_run(black_box(&run).clone(), &mut cx));
    });
    queue.abandon(&mut cx);
}

fn becoming_slow(c: &mut Criterion) {
    for (name, class) in [("split/64 reliable frames", Class::Reliable), ("split/64 deltas", Class::Delta)] {
        let (mut bench, run) = (Bench::new(), run(class, 64));
        let mut cx = bench.context();
        c.bench_function(name, |b| {
            b.iter_batched(
                WriteQueue::new,
                |mut queue| {
                    let _ = queue.push_run(black_box(&run).clone(), &mut cx);
                    let _ = queue.next_send(&mut cx);
                    let _ = queue.sent(10, &mut cx);
                    queue.abandon(&mut cx);
                },
                BatchSize::SmallInput,
            );
        });
    }
}

mod group {
    criterion::criterion_group!(benches, super::fast_path, super::slow_path, super::becoming_slow);
}
criterion_main!(group::benches);
