//! Random operations: the queue against its model and its laws, and each broken policy against the same checks.

use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};

use super::harness::{Harness, Op, STREAMS};
use crate::delivery::Limits;

/// Bounds so small that a short sequence meets them all.
fn small_limits() -> Limits {
    Limits {
        frames: 8,
        bytes: 300,
        age: Duration::from_secs(10),
        delta_keys: 5,
        delta_bytes: 150,
        answer_frames: 4,
        answer_bytes: 100,
        #[cfg(feature = "mutants")]
        mutant: crate::mutant::Mutant::None,
    }
}

/// A connection's life; its end (`Close`, `Abandon`) only where `ends`.
fn operation(ends: bool) -> impl Strategy<Value = Op> {
    let frames = vec((prop::bool::weighted(0.7), 0u8..7, 0u16..24), 1..6);
    let room = prop_oneof![3 => 0usize..60, 2 => 60usize..400, 1 => Just(1 << 20)];
    let end = if ends {
        prop_oneof![any::<bool>().prop_map(|frame| Op::Close { frame }), Just(Op::Abandon)].boxed()
    } else {
        Just(Op::Flush { room: 1 }).boxed()
    };
    prop_oneof![
        24 => (1..=STREAMS, frames, 0usize..3).prop_map(|(stream, frames, cut)| Op::Push { stream, frames, cut }),
        4 => (0u16..40).prop_map(|pad| Op::Answer { pad }),
        1 => Just(Op::Ping),
        2 => Just(Op::Pong),
        14 => room.prop_map(|room| Op::Flush { room }),
        5 => (0u64..4).prop_map(|behind| Op::Acknowledge { behind }),
        1 => prop_oneof![Just(0u32), 1u32..6].prop_map(Op::Window),
        2 => (0u64..5).prop_map(|seconds| Op::Advance { seconds }),
        1 => (1..=STREAMS).prop_map(|stream| Op::Leave { stream }),
        1 => end,
    ]
}

/// Runs `cases` random lives; the error is the smallest failing one.
fn search(cases: u32, limits: &Limits, compare: bool, ends: bool) -> Result<(), String> {
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 2000, ..Config::default() };
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let outcome = TestRunner::new_with_rng(config, rng).run(&vec(operation(ends), 1..60), |ops| {
        let mut harness = Harness::new(limits.clone(), compare);
        ops.iter().try_for_each(|op| harness.step(op)).and_then(|()| harness.drain()).map_err(TestCaseError::fail)
    });
    match outcome {
        Ok(()) => Ok(()),
        Err(TestError::Fail(reason, ops)) => Err(format!("{reason}\n{ops:?}")),
        Err(TestError::Abort(reason)) => Err(format!("aborted: {reason}")),
    }
}

/// In every life the queue does byte for byte what the model does, closes exactly where it does, keeps its accounts
/// after every step (D5), and breaks none of D1–D3, D6, D7; with several streams, short sends, credit and forgets.
#[test]
fn the_queue_is_its_model() {
    search(1500, &small_limits(), true, true).unwrap_or_else(|error| panic!("{error}"));
    search(1500, &Limits { frames: 40, bytes: 4000, ..small_limits() }, true, false)
        .unwrap_or_else(|error| panic!("{error}"));
}

/// The model of every broken policy differs: the checks bite.
#[cfg(feature = "mutants")]
#[test]
fn every_mutant_is_caught() {
    for &mutant in crate::mutant::Mutant::IN_QUEUE {
        let limits = Limits { mutant, ..small_limits() };
        assert!(search(1500, &limits, true, true).is_err(), "{mutant:?} survives");
    }
}

/// The laws alone, which know nothing of how a queue works, catch what breaks D1–D3, D5–D7.
#[cfg(feature = "mutants")]
#[test]
fn the_laws_alone_catch_what_a_client_could_see() {
    use crate::mutant::Mutant as M;
    let visible = [
        (M::DropReliable, "D1"),
        (M::ReorderReliable, ""),
        (M::OlderAfterNewer, "D3"),
        (M::StaleValue, "D3"),
        (M::StarveKey, "D3"),
        (M::ForgottenCount, "D5"),
        (M::DeltaOvertakes, "D1"),
        (M::SilentSkip, "D6"),
        (M::HalfTold, "D6"),
        (M::ReplaceWhileFast, "D2"),
        (M::DropPong, "D7"),
        (M::TornFrame, ""),
    ];
    for (mutant, invariant) in visible {
        let limits = Limits { mutant, frames: 12, bytes: 4000, ..small_limits() };
        let Err(error) = search(1500, &limits, false, false) else { panic!("{mutant:?} survives the laws") };
        assert!(error.contains(invariant), "{mutant:?} was caught for another reason: {error}");
    }
}
