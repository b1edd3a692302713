//! Tests of the bound on streams of users and sessions: what it keeps, and what a resume is told of the others.

use super::home::{HomeOutput, Homes};
use super::home_tests::{ME, Plain, at, homes, plain_event};
use crate::id::{Scope, SessionId};
use crate::message::{
    Event, HistoryAsk, HistoryRefusal, JoinRequest, LostReason, PageNext, Position, Pull, ResumeFrom, Start,
    StreamStart,
};

/// What `homes()` keeps, and remembers of those that it does not.
const KEPT: usize = 4;
const REMEMBERED: u64 = 8;

fn session(number: u64) -> Scope {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&number.to_be_bytes());
    Scope::Session(SessionId(id))
}

/// Says something to the session of this number, at this place.
fn tell(homes: &mut Homes, seconds: u64, number: u64, place: u64) {
    let told = Event { scope: session(number), ..plain_event(place, None, None) };
    homes.event(at(seconds), &told, &Plain).unwrap();
    homes.seal(at(seconds));
}

/// A session comes back, having seen its stream up to a place, or not having heard of it.
fn resume(homes: &mut Homes, seconds: u64, number: u64, seen: Option<u64>) -> Vec<StreamStart> {
    let scope = session(number);
    let stream = |place| Position { stream: format!("games.events.0/{scope}").into(), epoch: 4, place };
    let resume = ResumeFrom { positions: seen.map(stream).into_iter().collect(), entered: Vec::new() };
    let (session, resume) = (SessionId([1; 16]), Some(resume));
    let request = JoinRequest { from: ME, session, scope, publisher: false, admitted: false, entry: None, resume };
    homes.join(at(seconds), &request).unwrap()
}

fn introductions(homes: &mut Homes) -> usize {
    std::iter::from_fn(|| homes.output()).filter(|output| matches!(output, HomeOutput::Introduce { .. })).count()
}

/// Sessions without number, each of which is told something once, leave no more streams than the bound, in memory or
/// among the scopes; streams of rooms and everyone are no part of it.
#[test]
fn a_storm_of_sessions_leaves_a_bounded_number_of_streams() {
    let mut homes = homes();
    for scope in [Scope::Everyone, Scope::Room("arena".into())] {
        homes.event(at(1), &Event { scope, ..plain_event(1, None, None) }, &Plain).unwrap();
    }
    for number in 1..=1_000 {
        tell(&mut homes, 1, number, number + 1);
    }
    assert_eq!(homes.sizes().1, KEPT + 2);
    assert!(homes.remembered() <= REMEMBERED as usize, "{}", homes.remembered());
    for number in 990..=1_000 {
        let user = Event { scope: Scope::User(number.to_string().into()), ..plain_event(number, None, None) };
        homes.event(at(1), &user, &Plain).unwrap();
    }
    homes.seal(at(1));
    assert_eq!(homes.sizes().1, KEPT + 2);
}

/// Who has seen all of an evicted stream goes on behind it, under the handle that it knew and with a whole chain of
/// frames; who has not is told that history is gone, whether or not it had heard of the stream.
#[test]
fn a_resume_is_told_of_an_evicted_stream_only_if_it_lacks_something() {
    for (seen, expected) in [
        (Some(7), Start::Behind(7)),
        (Some(6), Start::Lost(LostReason::HistoryEvicted)),
        (None, Start::Lost(LostReason::HistoryEvicted)),
    ] {
        let mut homes = homes();
        tell(&mut homes, 1, 0, 6);
        tell(&mut homes, 1, 0, 7);
        let handle = resume(&mut homes, 1, 0, None)[0].introduction.handle;
        (1..=KEPT as u64).for_each(|number| tell(&mut homes, 2, number, 7 + number));
        assert_eq!(homes.sizes().1, KEPT);
        let told = introductions(&mut homes);
        assert_eq!(told, 1 + KEPT);
        let streams = resume(&mut homes, 3, 0, seen);
        assert_eq!((streams.len(), streams[0].start), (1, expected));
        let introduction = &streams[0].introduction;
        assert_eq!((introduction.handle, introduction.position.place), (handle, 7));
        tell(&mut homes, 3, 0, 20);
        assert_eq!(introductions(&mut homes), 0, "its members know it");
        assert_eq!(resume(&mut homes, 3, 0, Some(7))[0].start, Start::Behind(7));
    }
}

/// A live member notices nothing: the event behind an eviction follows the one before it under the same handle. A
/// catch-up that is under way ends with 4408.
#[test]
fn an_eviction_breaks_no_chain() {
    let mut homes = homes();
    tell(&mut homes, 1, 0, 7);
    let stream = resume(&mut homes, 1, 0, Some(7))[0].introduction.handle;
    (1..=KEPT as u64).for_each(|number| tell(&mut homes, 2, number, 7 + number));
    let pull = Pull { from: ME, stream, after: 3, after_delta: 0, frames: 9, bytes: 999 };
    assert_eq!(homes.page(&pull).next, PageNext::Evicted);
    while homes.output().is_some() {}
    tell(&mut homes, 3, 0, 30);
    let Some(HomeOutput::Batch { batch, .. }) = homes.output() else { panic!("no batch") };
    assert_eq!((batch.stream(), batch.items()[0].prev, batch.items()[0].place), (stream, 7, 30));
}

/// Who joins keeps its streams from being the next that are evicted, so that its catch-up is not cut off.
#[test]
fn a_join_is_a_use() {
    let mut homes = homes();
    (0..KEPT as u64).for_each(|number| tell(&mut homes, 1, number, 1 + number));
    let stream = resume(&mut homes, 2, 0, None)[0].introduction.handle;
    tell(&mut homes, 3, 100, 50);
    let pull = Pull { from: ME, stream, after: 0, after_delta: 0, frames: 9, bytes: 999 };
    assert_eq!(homes.page(&pull).next, PageNext::Live);
}

/// Beyond what is remembered of single streams, a resume is told as soon as it may lack something, never less: only who
/// stands behind everything that was forgotten goes on. A new session is not told of what was never for it.
#[test]
fn what_was_forgotten_is_told() {
    let mut homes = homes();
    (1..=100).for_each(|number| tell(&mut homes, 1, number, number));
    let forgotten = 100 - KEPT as u64 - REMEMBERED;
    assert_eq!(resume(&mut homes, 2, 1, Some(1))[0].start, Start::Lost(LostReason::HistoryEvicted));
    assert_eq!(resume(&mut homes, 2, 2, None)[0].start, Start::Lost(LostReason::HistoryEvicted));
    assert_eq!(resume(&mut homes, 2, 200, Some(forgotten))[0].start, Start::Behind(forgotten));
    assert_eq!(resume(&mut homes, 2, forgotten + 1, Some(forgotten + 1))[0].start, Start::Behind(forgotten + 1));
    let (id, scope) = (SessionId([9; 16]), Scope::Session(SessionId([9; 16])));
    let (publisher, admitted, entry, resume) = (false, false, None, None);
    let request = JoinRequest { from: ME, session: id, scope, publisher, admitted, entry, resume };
    assert_eq!(homes.join(at(2), &request).unwrap().len(), 0);
}

/// What nobody can lack any more is forgotten, and an unknown stream counts as recovered again.
#[test]
fn evictions_end_with_the_history_time() {
    let mut homes = homes();
    (1..=100).for_each(|number| tell(&mut homes, 1, number, number));
    homes.expire(at(391));
    assert!(homes.remembered() > 0);
    homes.expire(at(392));
    assert_eq!(homes.remembered(), 0);
    assert!(resume(&mut homes, 392, 1, None).is_empty());
}

/// A stream that is there again is checked as often as another, and ends with its history; its name is no longer known.
#[test]
fn a_stream_that_is_there_again_ends_like_another() {
    let mut homes = homes();
    tell(&mut homes, 1, 0, 1);
    (1..=KEPT as u64).for_each(|number| tell(&mut homes, 2, number, 1 + number));
    let stream = format!("games.events.0/{}", session(0)).into();
    let ask = HistoryAsk { stream, epoch: None, after: None, frames: 9, bytes: 999 };
    assert!(matches!(homes.history(&ask), Err(HistoryRefusal::Lost(LostReason::HistoryEvicted))));
    tell(&mut homes, 3, 0, 10);
    assert!(homes.history(&ask).is_ok());
    (3..=420).for_each(|seconds| homes.expire(at(seconds)));
    assert_eq!(homes.sizes().1, 0);
    assert!(matches!(homes.history(&ask), Err(HistoryRefusal::NoStream)));
}
