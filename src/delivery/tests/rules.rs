//! Each rule of DELIVERY §3 by itself. Most run the harness, so the model and the laws watch as well.

use std::sync::Arc;
use std::time::Duration;

use super::harness::{Harness, Op};
use super::{HEAD, TestFrame, run, shared};
use crate::class::Class;
use crate::close::CloseReason;
use crate::delivery::{CreditExceeded, EncodeSkipped, Limits, ToSend, Verdict, WriteQueue};
use crate::frame::Run;
use crate::id::StreamHandle;
use crate::time::Monotonic;

const ALL: Op = Op::Flush { room: 1 << 30 };
const NOTHING: Op = Op::Flush { room: 0 };
const CLOSE: Verdict = Verdict::Close(CloseReason::SlowConsumer);

/// A reliable frame that forgets `key` if not 0.
fn reliable(key: u8) -> (bool, u8, u16) {
    (false, key, 0)
}

fn delta(key: u8) -> (bool, u8, u16) {
    (true, key, 0)
}

fn push(frames: &[(bool, u8, u16)]) -> Op {
    Op::Push { stream: 1, frames: frames.to_vec(), cut: 0 }
}

/// A harness that did the operations.
fn after(limits: Limits, ops: &[Op]) -> Harness {
    let mut harness = Harness::new(limits, true);
    for op in ops {
        harness.step(op).unwrap();
    }
    harness
}

/// Once the answer to a LEAVE is out, no delta of the left stream follows, also if the queue becomes slow only behind
/// that answer and another key's newer value lets it pass.
#[test]
fn nothing_follows_the_answer_to_a_leave() {
    let of = |stream, key| Op::Push { stream, frames: vec![delta(key)], cut: 0 };
    let ops = [of(2, 1), of(1, 1), of(1, 1), Op::Leave { stream: 1 }, Op::Answer { pad: 0 }, of(2, 1), of(1, 2)];
    let mut harness = after(Limits::default(), &ops);
    for op in [NOTHING, ALL] {
        harness.step(&op).unwrap();
    }
    assert_eq!(harness.ledger.accounts[Class::Delta.index()].delivered, 2, "one of stream 2, one behind the answer");
    assert_eq!(harness.ledger.accounts[Class::Delta.index()].dropped, 2);
    harness.drain().unwrap();
}

/// What the client has, e.g. `R1 D3 S2`: tag and number in order of pushing, of a `skipped` the count.
fn received(harness: &Harness) -> String {
    let (mut wire, mut out) = (&harness.model.wire[..], Vec::new());
    while let Some(frame) = TestFrame::read(wire).unwrap() {
        out.push(format!("{}{}", char::from(frame.tag), frame.id));
        wire = &wire[frame.byte_len()..];
    }
    out.join(" ")
}

fn frame(tag: u8, key: u8, id: u32, pad: u16) -> TestFrame {
    let class = if tag == b'D' { Class::Delta } else { Class::Reliable };
    TestFrame { class, tag, stream: 1, key, id, pad }
}

fn account(harness: &Harness, class: Class) -> crate::stats::Account {
    harness.ledger.accounts[class.index()]
}

/// An empty queue is at most a cache line and gives its memory back to the pool.
#[test]
fn an_empty_queue_is_small_and_owns_nothing() {
    assert!(size_of::<WriteQueue>() <= 64, "{}", size_of::<WriteQueue>());
    let mut harness = after(Limits::default(), &[push(&[reliable(0)]), NOTHING]);
    assert_eq!((harness.pool.backlogs.len(), harness.pool.rings.len()), (0, 0));
    harness.step(&ALL).unwrap();
    assert!(harness.queue.is_empty());
    assert_eq!((harness.pool.backlogs.len(), harness.pool.rings.len()), (1, 1));
}

/// One pending run is sent from the shared bytes, and so is the rest of a frame under way.
#[test]
fn one_run_is_sent_without_a_copy() {
    let mut harness = Harness::new(Limits::default(), true);
    let run = run(&[frame(b'R', 0, 1, 50), frame(b'R', 0, 2, 50)], Monotonic::ZERO);
    let bytes = run.bytes().as_ptr();
    harness.with(|queue, cx| {
        assert_eq!(queue.push_run(run, cx), Verdict::Queued);
        let ToSend::Run { run, skip: 0 } = queue.next_send(cx) else { panic!("not shared") };
        assert!(std::ptr::eq(run.bytes().as_ptr(), bytes));
        assert_eq!(queue.sent(HEAD + 60, cx), Verdict::Queued);
        let ToSend::Run { run, skip: 10 } = queue.next_send(cx) else { panic!("not the frame under way") };
        assert_eq!(queue.sent(run.byte_len() - 10, cx), Verdict::Queued);
        assert!(queue.is_empty());
    });
}

/// A gather has whole frames of at most 64 KiB; a larger run goes alone, uncopied.
#[test]
fn a_gather_is_bounded() {
    let mut harness = Harness::new(Limits::default(), true);
    let frames = |ids: std::ops::Range<u32>| ids.map(|id| frame(b'R', 0, id, 30_000)).collect::<Vec<_>>();
    harness.with(|queue, cx| {
        for ids in [0..1, 1..2, 2..3, 3..8] {
            let _ = queue.push_run(run(&frames(ids), Monotonic::ZERO), cx);
        }
        let mut sizes = Vec::new();
        loop {
            let mut out = Vec::new();
            match queue.next_send(cx) {
                ToSend::Nothing => break,
                ToSend::Gather => queue.gather(&mut out),
                ToSend::Run { run, skip } => out.extend_from_slice(&run.bytes()[skip..]),
            }
            sizes.push(out.len());
            let _ = queue.sent(out.len(), cx);
        }
        assert_eq!(sizes, [2 * (30_000 + HEAD), 30_000 + HEAD, 5 * (30_000 + HEAD)]);
    });
}

/// While fast, several values of a key are sent, and `forget` forgets nothing.
#[test]
fn a_fast_queue_replaces_and_forgets_nothing() {
    let harness =
        after(Limits::default(), &[push(&[delta(7), delta(7)]), push(&[reliable(7)]), push(&[delta(7)]), ALL]);
    assert_eq!(received(&harness), "D1 D2 R3 D4");
}

/// While slow, a key keeps its turn and sends its newest value; a reliable frame may pass an older delta, a delta never
/// an earlier reliable frame.
#[test]
fn a_slow_queue_keeps_turns_and_newest_values() {
    let ops = [push(&[delta(1), delta(2)]), NOTHING, push(&[reliable(0)]), push(&[delta(1)]), ALL];
    let harness = after(Limits::default(), &ops);
    assert_eq!(received(&harness), "R3 S1 D4 D2");
    let harness = after(Limits::default(), &[push(&[delta(1)]), NOTHING, push(&[reliable(0)]), ALL]);
    assert_eq!(received(&harness), "D1 R2");
}

/// A frame of which the kernel has a part is finished first, even if its value was replaced meanwhile.
#[test]
fn a_frame_under_way_is_finished() {
    let ops = [push(&[delta(1)]), Op::Flush { room: 3 }, push(&[delta(1)]), Op::Pong, ALL];
    assert_eq!(received(&after(Limits::default(), &ops)), "D1 O3 D2");
}

/// `forget` takes the waiting value of its key in its own stream, and no other.
#[test]
fn forget_takes_the_waiting_delta() {
    let other = Op::Push { stream: 2, frames: vec![delta(1)], cut: 0 };
    let ops = [push(&[delta(1), delta(2)]), other, NOTHING, push(&[reliable(1)]), push(&[delta(1)]), ALL];
    let harness = after(Limits::default(), &ops);
    assert_eq!(received(&harness), "S1 D2 D3 R4 D5");
    assert_eq!(account(&harness, Class::Delta).dropped, 1);
}

/// What was left out is told before the stream's next delta, also when the queue has long been fast again.
#[test]
fn skips_are_told_before_the_next_delta() {
    let limits = Limits { delta_keys: 1, ..Limits::default() };
    let ops =
        [push(&[delta(1)]), Op::Flush { room: 2 }, push(&[delta(2), delta(3), delta(4)]), push(&[reliable(2)]), ALL];
    let mut harness = after(limits, &ops);
    assert_eq!(received(&harness), "D1 R5");
    assert!(!harness.queue.is_slow());
    let fast = Op::Push { stream: 2, frames: vec![delta(1)], cut: 0 };
    for op in [fast, push(&[reliable(0)]), push(&[delta(1)]), push(&[delta(1)]), ALL] {
        harness.step(&op).unwrap();
    }
    assert_eq!(received(&harness), "D1 R5 D6 R7 S3 D8 D9");
    assert_eq!(account(&harness, Class::Control).delivered, 1);
    assert_eq!(harness.queue.deltas_left_out(), 3);
}

/// A dialect without a `skipped` frame tells nothing and counts no control frame.
#[test]
fn a_dialect_may_have_no_skipped_frame() {
    struct Silent;
    impl EncodeSkipped for Silent {
        fn encode_skipped(&self, _: StreamHandle, _: u64, _: &mut Vec<u8>) {}
    }
    let mut harness = Harness::new(Limits::default(), true);
    harness.with(|queue, cx| {
        cx.skipped = &Silent;
        let deltas = run(&[frame(b'D', 1, 1, 0), frame(b'D', 1, 2, 0), frame(b'D', 2, 3, 0)], Monotonic::ZERO);
        let _ = queue.push_run(deltas, cx);
        assert!(matches!(queue.next_send(cx), ToSend::Run { .. }));
        assert_eq!(queue.sent(0, cx), Verdict::Replaced);
        let mut out = Vec::new();
        assert!(matches!(queue.next_send(cx), ToSend::Gather));
        queue.gather(&mut out);
        assert_eq!(out.len(), 2 * HEAD);
        let _ = queue.sent(out.len(), cx);
        assert!(queue.is_empty());
        assert_eq!(cx.ledger.of(Class::Control).enqueued, 0);
    });
}

/// A slow connection is closed by the first reliable frame beyond the bound, a fast one is flushed at half.
#[test]
fn frames_are_bounded_while_slow() {
    let limits = Limits { frames: 4, ..Limits::default() };
    let mut harness = after(limits.clone(), &[push(&[reliable(0)])]);
    assert!(!harness.queue.over_half(&limits));
    harness.step(&push(&[reliable(0)])).unwrap();
    assert!(harness.queue.over_half(&limits), "half is reached");
    harness.step(&push(&[reliable(0); 9])).unwrap();
    harness.step(&ALL).unwrap();
    assert!(harness.queue.is_empty(), "a burst closes no fast connection");

    let mut harness = after(limits.clone(), &[push(&[reliable(0); 4]), NOTHING]);
    assert!(!harness.queue.over_half(&limits), "flushing a blocked queue helps nobody");
    let one = run(&[frame(b'R', 0, 1, 0)], Monotonic::ZERO);
    assert_eq!(harness.with(|queue, cx| queue.push_run(one.clone(), cx)), CLOSE);
    assert_eq!(harness.with(|queue, cx| queue.push_run(one, cx)), CLOSE);
    assert_eq!(account(&harness, Class::Reliable).lost_at_close, 1, "what comes after the verdict waits no more");
}

/// When a reliable frame needs the bytes, the youngest keys are left out first; only then is the connection closed.
#[test]
fn bytes_are_bounded_while_slow() {
    let limits = Limits { bytes: 10 * HEAD, delta_bytes: 5 * HEAD, ..Limits::default() };
    let deltas = [delta(1), delta(2), delta(3), delta(4), delta(5), delta(6)];
    let mut harness = after(limits, &[push(&[reliable(0)]), NOTHING, push(&deltas)]);
    assert_eq!(harness.queue.pending(Class::Delta), 5, "the sixth is beyond the ring's bytes");
    harness.step(&push(&[reliable(0); 8])).unwrap();
    assert_eq!(harness.queue.pending(Class::Delta), 1, "the youngest four made room");
    harness.step(&push(&[reliable(0)])).unwrap();
    assert!(!harness.model.overflowed);
    harness.step(&push(&[reliable(0)])).unwrap();
    assert!(harness.model.overflowed);
}

/// The oldest reliable frame of a slow connection has a deadline; answers, deltas and fast queues have none.
#[test]
fn age_is_bounded_while_slow() {
    let limits = Limits { age: Duration::from_secs(10), ..Limits::default() };
    let mut harness = after(limits.clone(), &[Op::Answer { pad: 0 }, push(&[delta(1)]), NOTHING]);
    assert_eq!(harness.queue.age_deadline(&limits), Monotonic::NEVER);
    harness.step(&Op::Advance { seconds: 5 }).unwrap();
    harness.step(&push(&[reliable(0)])).unwrap();
    let deadline = harness.queue.age_deadline(&limits);
    assert_eq!(deadline, Monotonic::ZERO + Duration::from_secs(15));
    harness.step(&Op::Advance { seconds: 9 }).unwrap();
    assert_eq!(harness.with(|queue, cx| queue.check_age(cx)), Verdict::Queued);
    harness.step(&Op::Advance { seconds: 1 }).unwrap();
    assert_eq!(harness.with(|queue, cx| queue.check_age(cx)), CLOSE);
    let harness = after(limits.clone(), &[push(&[reliable(0)]), Op::Advance { seconds: 99 }]);
    assert_eq!(harness.queue.age_deadline(&limits), Monotonic::NEVER, "not flushed yet, not slow");
}

/// Answers keep their place among the reliable frames and have a share of their own.
#[test]
fn answers_are_ordered_and_bounded_apart() {
    let limits = Limits { frames: 2, answer_frames: 2, ..Limits::default() };
    let ops = [Op::Answer { pad: 0 }, push(&[reliable(0)]), Op::Answer { pad: 0 }, push(&[reliable(0)]), NOTHING];
    let mut harness = after(limits.clone(), &ops);
    assert!(harness.queue.answers_over(&limits) && !harness.queue.answers_drained(&limits));
    let verdict = harness.with(|queue, cx| queue.push_answer(vec![b'A'; 9].into(), cx));
    assert_eq!(verdict, Verdict::AnswersFull);
    let mut harness = after(limits.clone(), &ops);
    harness.step(&Op::Flush { room: 2 * HEAD }).unwrap();
    assert!(harness.queue.answers_drained(&limits) && harness.queue.is_blocked());
    harness.step(&ALL).unwrap();
    assert_eq!(received(&harness), "A1 R2 A3 R4");
}

/// Used-up credit holds deltas back and nothing else, and reliable bounds close nobody for it.
#[test]
fn credit_holds_deltas_back() {
    let limits = Limits { frames: 2, ..Limits::default() };
    let ops = [Op::Window(2), push(&[delta(1), delta(2), delta(3)]), push(&[reliable(0); 5]), ALL];
    let mut harness = after(limits, &ops);
    assert_eq!(received(&harness), "D1 D2 R4 R5 R6 R7 R8");
    assert!(harness.queue.is_slow() && !harness.queue.is_blocked() && !harness.queue.has_sendable());
    let lie = harness.queue.acknowledge_deltas(3);
    assert_eq!(lie, Err(CreditExceeded { acknowledged: 3, delivered: 2 }));
    for op in [push(&[delta(3)]), Op::Acknowledge { behind: 1 }, ALL] {
        harness.step(&op).unwrap();
    }
    assert_eq!(received(&harness), "D1 D2 R4 R5 R6 R7 R8 S1 D9");
    assert!(!harness.queue.is_slow());
}

/// Of several pings and of several pongs that wait the newest is sent, before all else.
#[test]
fn the_newest_ping_and_pong_survive() {
    let ops = [push(&[reliable(0)]), NOTHING, Op::Ping, Op::Pong, Op::Ping, Op::Pong, ALL];
    let harness = after(Limits::default(), &ops);
    assert_eq!(received(&harness), "O5 P4 R1");
    assert_eq!(account(&harness, Class::Control).replaced, 2);
}

/// Closing finishes the frame under way, loses the rest, sends the close frame and takes nothing more.
#[test]
fn close_finishes_the_frame_under_way() {
    let frames = [reliable(0), reliable(0), delta(1)];
    let ops = [push(&frames), Op::Flush { room: 5 }, Op::Pong, Op::Close { frame: true }, push(&frames), Op::Ping, ALL];
    let harness = after(Limits::default(), &ops);
    assert_eq!(received(&harness), "R1 C5");
    assert!(harness.queue.is_empty() && harness.queue.is_closed());
    let lost = Class::ALL.map(|class| account(&harness, class).lost_at_close);
    assert_eq!(lost, [1, 1, 0, 1]);
}

/// Abandoning loses what waits, the frame under way and the close frame too.
#[test]
fn abandon_loses_everything() {
    let ops = [push(&[reliable(0); 2]), Op::Flush { room: 5 }, Op::Close { frame: true }, Op::Abandon];
    let harness = after(Limits::default(), &ops);
    let lost = Class::ALL.map(|class| account(&harness, class).lost_at_close);
    assert_eq!((lost, harness.queue.is_empty()), ([2, 0, 0, 1], true));
}

/// Leaving a stream takes its waiting deltas, which a later answer could pass, and its untold skips.
#[test]
fn leaving_takes_the_streams_deltas() {
    let other = Op::Push { stream: 2, frames: vec![delta(1)], cut: 0 };
    let ops =
        [push(&[delta(1), delta(1), delta(2)]), other, NOTHING, Op::Leave { stream: 1 }, Op::Answer { pad: 0 }, ALL];
    assert_eq!(received(&after(Limits::default(), &ops)), "D4 A5");
}

/// The age of a delta is measured once, when the kernel took its first byte: from then on it cannot be replaced. That
/// holds for a frame cut in a fast queue's run and for one cut in the ring of a slow queue.
#[test]
fn delta_age_is_recorded() {
    let seconds = |harness: &Harness| harness.delta_age.read().1 / 1_000_000_000;
    let mut harness = after(Limits::default(), &[push(&[delta(1), delta(2), reliable(0)])]);
    harness.step(&Op::Advance { seconds: 3 }).unwrap();
    harness.step(&Op::Flush { room: 3 }).unwrap();
    assert_eq!(seconds(&harness), 3, "the first delta has begun");
    harness.step(&Op::Advance { seconds: 1 }).unwrap();
    harness.step(&ALL).unwrap();
    assert_eq!(seconds(&harness), 3 + 4);
    let mut harness = after(Limits::default(), &[push(&[reliable(0)]), NOTHING, push(&[delta(1)])]);
    let reliable = harness.queue.pending_bytes() / 2;
    harness.step(&Op::Flush { room: reliable + 3 }).unwrap();
    harness.step(&Op::Advance { seconds: 5 }).unwrap();
    harness.step(&ALL).unwrap();
    let (buckets, sum) = harness.delta_age.read();
    assert_eq!((buckets.iter().map(|(_, count)| count).sum::<u64>(), sum), (1, 0), "{sum}");
}

/// A slow queue keeps alive the frames that wait, not the batch they came in.
#[test]
fn a_slow_queue_lets_go_of_batches() {
    let mut harness = Harness::new(Limits::default(), true);
    let frames: Vec<_> = (0..64).map(|id| frame(b'R', 0, id, 100)).collect();
    let batch = {
        let mut builder = crate::frame::BatchBuilder::new(StreamHandle(1));
        frames.iter().for_each(|frame| builder.push(frame.item(), |out| out.extend_from_slice(&frame.wire())));
        Arc::new(builder.seal(Monotonic::ZERO))
    };
    let weak = Arc::downgrade(&batch);
    harness.with(|queue, cx| {
        let _ = queue.push_run(Run::whole(crate::frame::Shared::new(batch)), cx);
        let _ = queue.next_send(cx);
        let _ = queue.sent(63 * (100 + HEAD), cx);
        assert_eq!(queue.pending(Class::Reliable), 1);
    });
    assert!(weak.upgrade().is_none(), "one waiting frame keeps the whole batch");
}

/// Members that split the same batch share the single frames.
#[test]
fn slow_members_share_single_frames() {
    let batch = shared(&[frame(b'R', 0, 1, 0), frame(b'R', 0, 2, 0)], Monotonic::ZERO);
    let mut sent = Vec::new();
    for _ in 0..2 {
        let mut harness = Harness::new(Limits::default(), true);
        harness.with(|queue, cx| {
            let _ = queue.push_run(Run::whole(batch.clone()), cx);
            let _ = queue.next_send(cx);
            let _ = queue.sent(HEAD, cx);
            let ToSend::Run { run, .. } = queue.next_send(cx) else { panic!("one frame waits") };
            sent.push(run);
        });
    }
    assert!(std::ptr::eq(sent[0].bytes(), sent[1].bytes()));
}
