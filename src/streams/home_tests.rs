//! Tests of homes: places and pages against a plain list, resume verdicts against DELIVERY §6, room life.

use proptest::prelude::*;

use super::home::{HomeConfig, HomeOutput, Homes};
use super::{Cursor, Members};
use crate::class::Class;
use crate::frame::{Audience, Encode, FrameKind, Item};
use crate::id::{ConnAddr, ConnKey, NodeId, Scope, SessionId, StreamHandle};
use crate::limits;
use crate::message::{
    Effect, ErrorCode, Event, JoinRequest, LostReason, PageNext, Position, Publish, PublishTo, ResumeFrom, Start,
    StreamStart,
};
use crate::time::Monotonic;
use std::sync::Arc;
use std::time::Duration;

/// A frame on the wire is its body.
pub(super) struct Plain;

impl Encode for Plain {
    fn encode(&self, _: StreamHandle, _: &Item, _: FrameKind, body: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(body);
    }
}

const EVENTS: usize = 16;
pub(super) const ME: ConnAddr = ConnAddr { shard: NodeId(0), conn: ConnKey { slot: 0, generation: 0 } };

pub(super) fn at(seconds: u64) -> Monotonic {
    Monotonic::ZERO + Duration::from_secs(seconds)
}

pub(super) fn homes() -> Homes {
    let config = HomeConfig {
        shard: NodeId(0),
        shards: 1,
        epoch: 9,
        seed: 1,
        batch_frames: 8,
        history_events: EVENTS,
        history_bytes: 1 << 20,
        history_total_bytes: 1 << 20,
        history_time: Duration::from_secs(390),
        own_streams: 4,
        resume_window: Duration::from_secs(300),
    };
    Homes::new(config, Monotonic::ZERO)
}

fn scope() -> Scope {
    Scope::Room("arena".into())
}

fn join(homes: &mut Homes, publisher: bool, resume: Option<ResumeFrom>) -> Result<Vec<StreamStart>, ErrorCode> {
    homes.join(
        at(1),
        &JoinRequest {
            from: ME,
            session: SessionId([1 + u8::from(publisher); 16]),
            scope: scope(),
            publisher,
            admitted: false,
            entry: None,
            resume,
        },
    )
}

fn open(homes: &mut Homes) -> StreamHandle {
    let streams = join(homes, true, None).unwrap();
    while homes.output().is_some() {}
    streams[0].introduction.handle
}

fn publish(homes: &mut Homes, stream: StreamHandle, class: Class, key: u64, body: &[u8]) -> u64 {
    let kind = FrameKind { frame_type: 35, kind: 0 };
    let (from, body) = (ME, body.into());
    let publish =
        Publish { from, correlation: 0, stream, to: PublishTo::Stream, kind, class, key, forgets: false, body };
    homes.publish(at(1), &publish, &Plain).unwrap().place
}

fn relay_start(homes: &mut Homes, epoch: u64, place: u64) -> Start {
    let positions = vec![Position { stream: "relay/room:arena".into(), epoch, place }];
    join(homes, false, Some(ResumeFrom { positions, entered: Vec::new() })).unwrap()[0].start
}

/// What a cursor brings from a place on: bodies in order, until it is live.
fn caught_up(homes: &Homes, stream: StreamHandle, after: u64, frames: usize) -> Result<Vec<Vec<u8>>, PageNext> {
    let mut cursor = Cursor::new(stream, after);
    let mut bodies = Vec::new();
    for _ in 0..1000 {
        let pull = cursor.pull(ME, frames, 1 << 16).expect("no pull is under way");
        let page = homes.page(&pull);
        for run in &page.runs {
            bodies.extend((run.from..run.to).map(|i| run.batch.bytes(i as usize, i as usize + 1).to_vec()));
        }
        match page.next {
            PageNext::Live | PageNext::More => {}
            other => return Err(other),
        }
        if cursor.advance(&page) {
            return Ok(bodies);
        }
    }
    panic!("the catch-up never ends");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// However publishes fall into batches, a resume from any place brings exactly the later reliable frames in order
    /// and then each key's newest value once, or says that the history no longer reaches back.
    #[test]
    fn a_resume_brings_what_a_list_would(
        steps in prop::collection::vec((0u8..6, 0u64..4), 1..80),
        seen in 0usize..90,
        frames in 1usize..12,
    ) {
        let mut homes = homes();
        let stream = open(&mut homes);
        let mut reliable: Vec<(u64, Vec<u8>)> = Vec::new();
        let mut newest: Vec<(u64, Vec<u8>)> = Vec::new();
        for (number, (what, key)) in steps.iter().enumerate() {
            let body = vec![number as u8 + 1; 3];
            match what {
                0 => homes.seal(at(1)),
                1 | 2 => {
                    publish(&mut homes, stream, Class::Delta, *key, &body);
                    newest.retain(|(other, _)| other != key);
                    newest.push((*key, body));
                }
                _ => reliable.push((publish(&mut homes, stream, Class::Reliable, 0, &body), body)),
            }
        }
        homes.seal(at(1));
        let place = reliable.get(seen).map_or_else(|| reliable.last().map_or(0, |(place, _)| *place), |(place, _)| *place);
        let expected = reliable.iter().filter(|(other, _)| *other > place).map(|(_, body)| body.clone());
        let expected: Vec<_> = expected.chain(newest.iter().map(|(_, body)| body.clone())).collect();
        let kept_from = reliable.len().saturating_sub(EVENTS);
        let reaches = reliable.iter().take(kept_from).all(|(other, _)| *other <= place);
        match relay_start(&mut homes, 9, place) {
            Start::Lost(reason) => prop_assert!(!reaches && reason == LostReason::HistoryEvicted),
            Start::Behind(from) => {
                prop_assert!(reaches);
                prop_assert_eq!(caught_up(&homes, stream, from, frames), Ok(expected));
            }
            Start::Live => prop_assert!(false, "a resume is always caught up"),
            Start::Anew(_) => prop_assert!(false, "it never came in anew"),
        }
    }

    /// Batches chain without a gap: each reliable frame's `prev` is the place before it, whatever the sealing.
    #[test]
    fn sealed_batches_chain(steps in prop::collection::vec(0u8..4, 1..100)) {
        let mut homes = homes();
        let stream = open(&mut homes);
        for step in steps {
            match step {
                0 => homes.seal(at(1)),
                1 => { publish(&mut homes, stream, Class::Delta, 1, b"d"); }
                _ => { publish(&mut homes, stream, Class::Reliable, 0, b"r"); }
            }
        }
        homes.seal(at(1));
        let mut last = 0;
        while let Some(output) = homes.output() {
            let HomeOutput::Batch { batch, .. } = output else { continue };
            prop_assert!(batch.len() <= 8);
            for item in batch.items() {
                if item.class == Class::Reliable {
                    prop_assert_eq!(item.prev, last);
                    last = item.place;
                } else {
                    prop_assert_eq!(item.place, last);
                }
            }
        }
    }
}

/// Another epoch, a place beyond the head, and no position each get their own verdict.
#[test]
fn positions_are_judged() {
    let mut homes = homes();
    let stream = open(&mut homes);
    publish(&mut homes, stream, Class::Reliable, 0, b"one");
    homes.seal(at(1));
    assert_eq!(relay_start(&mut homes, 8, 1), Start::Lost(LostReason::EpochChanged));
    assert_eq!(relay_start(&mut homes, 9, 99), Start::Behind(99));
    assert_eq!(caught_up(&homes, stream, 99, 4), Err(PageNext::Wait));
    let nothing = join(&mut homes, false, Some(ResumeFrom::default())).unwrap()[0].start;
    assert_eq!(nothing, Start::Behind(0), "absent position and entry: the stream did not exist then");
}

/// A cursor that eviction overtakes is told so, and starts nothing silently.
#[test]
fn eviction_overtakes_a_cursor() {
    let mut homes = homes();
    let stream = open(&mut homes);
    for _ in 0..EVENTS * 2 {
        publish(&mut homes, stream, Class::Reliable, 0, b"x");
    }
    homes.seal(at(1));
    assert_eq!(caught_up(&homes, stream, 1, 4), Err(PageNext::Evicted));
}

/// A room nobody opened is not found; a publisher opens it; players' commands are refused once no publisher's session
/// can take them; an abandoned room ends after a resume window.
#[test]
fn rooms_open_and_end() {
    let mut homes = homes();
    assert_eq!(join(&mut homes, false, None).unwrap_err(), ErrorCode::RoomNotFound);
    let relay = open(&mut homes);
    assert_eq!(join(&mut homes, false, None).unwrap().len(), 1, "players do not see the input stream");
    let command = || Publish {
        from: ME,
        correlation: 0,
        stream: relay,
        to: PublishTo::Input,
        kind: FrameKind { frame_type: 18, kind: 0x8000 },
        class: Class::Reliable,
        key: 0,
        forgets: false,
        body: Box::default(),
    };
    assert!(homes.publish(at(2), &command(), &Plain).is_ok());
    let other = ConnAddr { conn: ConnKey { slot: 7, generation: 0 }, ..ME };
    homes.publisher_gone(at(2), &scope(), other, true);
    assert!(homes.publish(at(2), &command(), &Plain).is_ok(), "another connection's word does not count");
    homes.publisher_gone(at(2), &scope(), ME, true);
    assert_eq!(homes.publish(at(2), &command(), &Plain), Err(ErrorCode::Unavailable));
    homes.leave(at(2), &scope(), NodeId(0));
    homes.seal(at(2));
    for second in (20..600).step_by(20) {
        homes.expire(at(second));
    }
    assert_eq!(homes.sizes(), (0, 0));
    assert_eq!(join(&mut homes, false, None).unwrap_err(), ErrorCode::RoomNotFound);
    assert_eq!(Members::new(1).sizes(), (0, 0, 0));
}

/// What a shared bus relays: a stream for each partition, under its places; deltas follow the reliable frame before them
/// and are in no history; what players send is seen by publishers alone. A room that another gateway's publisher opened is
/// open here, for as long as it is told of, and one that backends let into is not.
#[test]
fn a_shared_bus_relays() {
    let mut homes = homes();
    let relayed = |partition, frame_type, place| Event {
        id: None,
        topic: "ringgate.relay".into(),
        partition,
        epoch: 77,
        place,
        scope: scope(),
        class: if frame_type == 32 { Class::Delta } else { Class::Reliable },
        key: 5,
        forgets: false,
        kind: FrameKind { frame_type, kind: 0 },
        effect: None,
        audience: None,
        body: vec![place as u8].into(),
    };
    assert_eq!(join(&mut homes, false, None).unwrap_err(), ErrorCode::RoomNotFound);
    homes.open(at(1), &scope()).unwrap();
    join(&mut homes, false, None).unwrap();
    for (partition, frame_type, place) in [(2, 35, 4), (2, 32, 5), (2, 32, 6), (2, 18, 7), (0, 35, 1), (2, 35, 9)] {
        homes.event(at(1), &relayed(partition, frame_type, place), &Plain).unwrap();
    }
    homes.event(at(1), &relayed(2, 35, 9), &Plain).unwrap();
    homes.seal(at(1));
    let told = |streams: Vec<StreamStart>| -> Vec<_> {
        let told = |start: &StreamStart| {
            let Position { stream, epoch, place } = &start.introduction.position;
            (stream.to_string(), *epoch, *place)
        };
        streams.iter().map(told).filter(|(name, ..)| name.starts_with("ringgate")).collect()
    };
    let stream = |name: &str, place| (format!("ringgate.relay.{name}/room:arena"), 77, place);
    let all = [stream("2", 9), stream("input.2", 7), stream("0", 1)];
    let streams = join(&mut homes, false, None).unwrap();
    let handle = streams.iter().find(|start| start.introduction.position.place == 9).unwrap().introduction.handle;
    assert_eq!(told(streams), [all[0].clone(), all[2].clone()]);
    assert_eq!(told(join(&mut homes, true, None).unwrap()), all);
    let items: Vec<_> = std::iter::from_fn(|| homes.output()).collect();
    let items = items.iter().find_map(|output| match output {
        HomeOutput::Batch { batch, .. } if batch.stream() == handle => Some(batch.items()),
        _ => None,
    });
    let items: Vec<_> = items.unwrap().iter().map(|item| (item.class, item.place, item.prev)).collect();
    let (reliable, delta) = (Class::Reliable, Class::Delta);
    assert_eq!(items, [(reliable, 4, 0), (delta, 4, 0), (delta, 4, 0), (reliable, 9, 4)]);
    assert_eq!(caught_up(&homes, handle, 0, 8).unwrap(), [[4], [9], [6]], "histories, then the newest value");
    let admitted = Scope::Room("den".into());
    homes.reserve(at(1), &admitted).unwrap();
    homes.open(at(1), &admitted).unwrap();
    assert!(homes.admits(&admitted));
}

/// Sessions of a former process come back into rooms that this one has never heard of: those of an open room find it
/// open, with its streams numbered anew and told as lost, whoever is first; those that a backend let in do not open it, a
/// publisher among them neither.
#[test]
fn rooms_of_a_former_process_are_there_again() {
    let position = |kind: &str, epoch| Position { stream: format!("{kind}/room:arena").into(), epoch, place: 3 };
    let former = || {
        let entered = vec![position("relay", 8), position("input", 8), position("games.events.0", 4)];
        ResumeFrom { positions: Vec::new(), entered }
    };
    let lost = Start::Lost(LostReason::EpochChanged);
    for publisher in [false, true] {
        let mut homes = homes();
        let starts = join(&mut homes, publisher, Some(former())).unwrap();
        let found: Vec<_> = starts.iter().map(|start| (start.start, start.introduction.publishers_only)).collect();
        assert_eq!(found, [(lost, false), (lost, true)][..if publisher { 2 } else { 1 }]);
        assert!(starts.iter().all(|start| start.introduction.position.epoch == 9) && !homes.admits(&scope()));
        assert_eq!(join(&mut homes, !publisher, None).unwrap().len(), if publisher { 1 } else { 2 });
    }
    // A position of this process's own numbering, and none at all, lose nothing.
    let mut homes = homes();
    let own = ResumeFrom { positions: vec![position("relay", 9)], entered: Vec::new() };
    assert!(join(&mut homes, false, Some(own)).unwrap().iter().all(|start| start.start != lost));
    for order in [[false, true], [true, false]] {
        let mut homes = self::homes();
        for publisher in order {
            let entered = vec![position("games.events.0", 4)];
            let resume = Some(ResumeFrom { positions: Vec::new(), entered });
            let (from, session, scope) = (ME, SessionId([1; 16]), scope());
            let request = JoinRequest { from, session, scope, publisher, admitted: true, entry: None, resume };
            assert!(homes.join(at(1), &request).is_ok());
        }
        assert!(homes.admits(&scope()));
        assert_eq!(join(&mut homes, false, None).unwrap_err(), ErrorCode::RoomNotFound);
    }
}

fn event(homes: &mut Homes, place: u64, effect: Option<Effect>, audience: Option<Audience>) {
    homes.event(at(1), &plain_event(place, effect, audience), &Plain).unwrap();
    homes.seal(at(1));
}

pub(super) fn plain_event(place: u64, effect: Option<Effect>, audience: Option<Audience>) -> Event {
    Event {
        id: None,
        topic: "games.events".into(),
        partition: 0,
        epoch: 4,
        place,
        scope: scope(),
        class: Class::Reliable,
        key: 0,
        forgets: false,
        kind: FrameKind { frame_type: 35, kind: 1 },
        effect,
        audience: audience.map(Arc::new),
        body: place.to_string().into_bytes().into(),
    }
}

/// Who is let in by an event misses nothing behind it and gets nothing before it, whether the room's home is ahead of
/// that event or behind it; other streams start at their heads.
#[test]
fn an_entry_starts_right_behind_its_event() {
    for (before, behind) in [(&[3, 5, 9, 12][..], &[20, 21][..]), (&[][..], &[3, 9, 12]), (&[3], &[8, 9, 10])] {
        let mut homes = homes();
        for place in before {
            event(&mut homes, *place, None, None);
        }
        let entry = Position { stream: "games.events.0/room:arena".into(), epoch: 4, place: 7 };
        let session = SessionId([1; 16]);
        let join = JoinRequest {
            from: ME,
            session,
            scope: scope(),
            publisher: false,
            admitted: true,
            entry: Some(entry),
            resume: None,
        };
        let starts = homes.join(at(1), &join).unwrap();
        assert_eq!((starts.len(), starts[0].start), (1, Start::Behind(7)));
        assert_eq!(starts[0].introduction.position.place, 7);
        for place in behind {
            event(&mut homes, *place, None, None);
        }
        let expected = before.iter().chain(behind).filter(|place| **place > 7);
        let expected: Vec<Vec<u8>> = expected.map(|place: &u64| place.to_string().into_bytes()).collect();
        assert_eq!(caught_up(&homes, starts[0].introduction.handle, 7, 2), Ok(expected));
    }
}

/// An event of another epoch ends its stream: what waited is delivered, the members are told to go, and a stream of the
/// same name begins with it, which no position of the old numbering fits.
#[test]
fn another_epoch_begins_the_stream_anew() {
    let mut homes = homes();
    event(&mut homes, 5, None, None);
    let entry = |epoch| Position { stream: "games.events.0/room:arena".into(), epoch, place: 5 };
    let (from, session, scope) = (ME, SessionId([1; 16]), scope());
    let ask = |resume, entry| JoinRequest {
        from,
        session,
        scope: scope.clone(),
        publisher: false,
        admitted: true,
        entry,
        resume,
    };
    let old = homes.join(at(1), &ask(None, Some(entry(4)))).unwrap()[0].introduction.handle;
    while homes.output().is_some() {}
    homes.event(at(1), &plain_event(6, None, None), &Plain).unwrap();
    homes.event(at(1), &Event { epoch: 8, ..plain_event(2, None, None) }, &Plain).unwrap();
    homes.seal(at(1));
    let outputs: Vec<_> = std::iter::from_fn(|| homes.output()).collect();
    let [
        HomeOutput::Batch { batch: last, .. },
        HomeOutput::Broken { stream, .. },
        HomeOutput::Introduce { introduction, .. },
        HomeOutput::Batch { batch: first, .. },
    ] = &outputs[..]
    else {
        panic!("{outputs:?}")
    };
    assert_eq!((last.stream(), *stream, first.stream()), (old, old, introduction.handle));
    assert_eq!((introduction.position.epoch, introduction.handle == old), (8, false));
    let resume = ResumeFrom { positions: vec![entry(4)], entered: Vec::new() };
    let starts = homes.join(at(1), &ask(Some(resume), None)).unwrap();
    assert_eq!((starts.len(), starts[0].start), (1, Start::Lost(LostReason::EpochChanged)));
}

/// What was said to a session before it asked its home is still for it; once that is evicted, it is told so.
#[test]
fn a_session_hears_everything_that_was_said_to_it() {
    for (events, expected) in [(3, Start::Behind(0)), (EVENTS as u64 + 1, Start::Lost(LostReason::HistoryEvicted))] {
        let (mut homes, session) = (homes(), SessionId([1; 16]));
        let scope = Scope::Session(session);
        for place in 1..=events {
            let told = Event { scope: scope.clone(), ..plain_event(place, None, None) };
            homes.event(at(1), &told, &Plain).unwrap();
        }
        homes.seal(at(1));
        while homes.output().is_some() {}
        let (publisher, admitted, entry, resume) = (false, false, None, None);
        let request = JoinRequest { from: ME, session, scope, publisher, admitted, entry, resume };
        let streams = homes.join(at(1), &request).unwrap();
        let place = if events == 3 { 0 } else { events };
        assert_eq!((streams[0].start, streams[0].introduction.position.place), (expected, place));
    }
}

/// An entry that the history no longer reaches back to is said to be lost, and so is one of another numbering.
#[test]
fn an_entry_that_was_evicted_is_told() {
    let mut homes = homes();
    for place in 1..=EVENTS as u64 * 2 {
        event(&mut homes, place, None, None);
    }
    for (epoch, reason) in [(4, LostReason::HistoryEvicted), (5, LostReason::EpochChanged)] {
        let entry = Position { stream: "games.events.0/room:arena".into(), epoch, place: 3 };
        let session = SessionId([1; 16]);
        let join = JoinRequest {
            from: ME,
            session,
            scope: scope(),
            publisher: false,
            admitted: true,
            entry: Some(entry),
            resume: None,
        };
        let starts = homes.join(at(1), &join).unwrap();
        assert_eq!(starts[0].start, Start::Lost(reason));
        assert_eq!(starts[0].introduction.position.place, EVENTS as u64 * 2);
    }
}

/// What is special about a frame goes with it, live, and from the history when the batch is split there.
#[test]
fn marks_go_with_their_frames() {
    let mut homes = homes();
    let relay = open(&mut homes);
    event(&mut homes, 1, Some(Effect::Leave("arena".into())), Some(Audience::Only(["a".into()].into())));
    let mut batches = std::iter::from_fn(|| homes.output()).filter_map(|output| match output {
        HomeOutput::Batch { batch, .. } if batch.stream() != relay => Some(batch),
        _ => None,
    });
    let batch = batches.next().unwrap();
    let mark = &batch.marks()[0];
    assert!(mark.audience.as_ref().unwrap().includes("a") && !mark.audience.as_ref().unwrap().includes("b"));
    let act = mark.act.as_ref().unwrap();
    assert_eq!((act.joins, act.place, &*act.room), (false, 1, "arena"));
    assert_eq!(act.room_stream(), "games.events.0/room:arena");
}

/// A room that a backend lets sessions into is not opened by a publisher's JOIN, and closed to all others.
#[test]
fn a_service_room_stays_closed() {
    let mut homes = homes();
    let session = SessionId([1; 16]);
    let admitted =
        JoinRequest { from: ME, session, scope: scope(), publisher: false, admitted: true, entry: None, resume: None };
    assert!(homes.join(at(1), &admitted).is_ok());
    assert!(join(&mut homes, true, None).is_ok(), "a game server gets its streams");
    assert_eq!(join(&mut homes, false, None).unwrap_err(), ErrorCode::RoomNotFound);
}

/// A room that is known to be a backend's, after a restart for example, is opened by nobody, neither before its first
/// member nor while the backend may still hold it for those who left; one that was open before stays open.
#[test]
fn a_reserved_room_is_opened_by_nobody() {
    let mut homes = homes();
    homes.reserve(at(1), &scope()).unwrap();
    assert!(join(&mut homes, true, None).is_ok(), "a game server gets its streams");
    assert_eq!(join(&mut homes, false, None).unwrap_err(), ErrorCode::RoomNotFound);
    homes.publisher_gone(at(1), &scope(), ME, true);
    homes.leave(at(1), &scope(), NodeId(0));
    while homes.output().is_some() {}
    for second in (20..900).step_by(20) {
        homes.expire(at(second));
    }
    assert!(join(&mut homes, true, None).is_ok());
    assert_eq!(join(&mut homes, false, None).unwrap_err(), ErrorCode::RoomNotFound);
    let (mut homes, scope) = (self::homes(), scope());
    open(&mut homes);
    homes.reserve(at(1), &scope).unwrap();
    assert!(join(&mut homes, false, None).is_ok());
}

/// Members of a room share the home's copy of its name; a scope that is not kept here stays the asker's.
#[test]
fn a_rooms_name_is_kept_once() {
    let mut homes = homes();
    open(&mut homes);
    let text = |scope: &Scope| match scope {
        Scope::Room(name) => name.as_ptr(),
        other => panic!("{other}"),
    };
    let (first, second) = (homes.own_name(scope()), homes.own_name(scope()));
    assert_eq!(first, scope());
    assert_eq!(text(&first), text(&second));
    let unknown = Scope::Room("elsewhere".into());
    assert_eq!(text(&homes.own_name(unknown.clone())), text(&unknown));
}

/// A publisher whom a backend let in does not open the room to everybody, as if its JOIN had come first.
#[test]
fn a_publisher_that_is_let_in_opens_nothing() {
    let mut homes = homes();
    let session = SessionId([1; 16]);
    let admitted =
        JoinRequest { from: ME, session, scope: scope(), publisher: true, admitted: true, entry: None, resume: None };
    assert_eq!(homes.join(at(1), &admitted).unwrap().len(), 2, "it gets its streams");
    assert_eq!(join(&mut homes, false, None).unwrap_err(), ErrorCode::RoomNotFound);
}

/// A resume starts no earlier than the session came in, whatever its client says, and is told where that is; one that no
/// home had answered for starts at the heads, but behind the event that let it in.
#[test]
fn a_resume_reads_nothing_from_before_the_entry() {
    let mut homes = homes();
    let relay = open(&mut homes);
    let places: Vec<u64> = (0..6).map(|i| publish(&mut homes, relay, Class::Reliable, 0, &[i])).collect();
    homes.seal(at(1));
    let position = |epoch, place| Position { stream: "relay/room:arena".into(), epoch, place };
    let mut start = |positions: Vec<Position>, entered: Vec<Position>| {
        join(&mut homes, false, Some(ResumeFrom { positions, entered })).unwrap()
    };
    let entry = places[2];
    for (epoch, said, expected) in [
        (9, 0, Start::Anew(entry)),
        (9, places[1], Start::Anew(entry)),
        (9, entry, Start::Behind(entry)),
        (9, places[4], Start::Behind(places[4])),
        (9, 99, Start::Behind(99)),
        (8, places[4], Start::Anew(entry)),
    ] {
        let starts = start(vec![position(epoch, said)], vec![position(9, entry)]);
        assert_eq!(starts[0].start, expected, "said {said} of {epoch}");
    }
    assert_eq!(start(Vec::new(), vec![position(9, entry)])[0].start, Start::Behind(entry));
    // The home was restarted since the entry: all that it has is newer.
    assert_eq!(start(vec![position(9, 0)], vec![position(8, entry)])[0].start, Start::Behind(0));

    let event = Position { stream: "games.events.0/room:arena".into(), epoch: 5, place: 7 };
    let starts = start(Vec::new(), vec![event, Position::unsaid()]);
    let of = |name: &str| starts.iter().find(|start| *start.introduction.position.stream == *name).unwrap().start;
    assert_eq!(of("relay/room:arena"), Start::Anew(places[5]));
    assert_eq!(of("games.events.0/room:arena"), Start::Behind(7));
}

/// A session that comes back to a room of which the home has nothing can relay in it, and such a room ends like others.
#[test]
fn a_room_without_events_has_a_relay_stream_and_ends() {
    let mut homes = homes();
    let session = SessionId([1; 16]);
    let resume = Some(ResumeFrom::default());
    let back = JoinRequest { from: ME, session, scope: scope(), publisher: false, admitted: true, entry: None, resume };
    let streams = homes.join(at(1), &back).unwrap();
    assert_eq!(&*streams[0].introduction.position.stream, "relay/room:arena");
    while homes.output().is_some() {}
    homes.leave(at(2), &scope(), NodeId(0));
    let own = |homes: &Homes| match homes.own_name(scope()) {
        Scope::Room(name) => name,
        other => panic!("{other}"),
    };
    let kept = own(&homes);
    assert!(Arc::ptr_eq(&kept, &own(&homes)));
    for second in (20..1000).step_by(20) {
        homes.expire(at(second));
    }
    assert!(!Arc::ptr_eq(&own(&homes), &own(&homes)), "the home forgets it");
}

/// The newest values of a stream are bounded in bytes, whatever their number: those that changed longest ago go.
#[test]
fn newest_values_are_bounded_in_bytes() {
    let mut homes = homes();
    let relay = open(&mut homes);
    let large = vec![7; 1 << 16];
    for key in 0..200 {
        publish(&mut homes, relay, Class::Delta, key, &large);
    }
    publish(&mut homes, relay, Class::Delta, 0, b"newest");
    homes.seal(at(1));
    let values = caught_up(&homes, relay, u64::MAX, 8).unwrap();
    let bytes: usize = values.iter().map(Vec::len).sum();
    assert!((1..=limits::HOME_DELTA_BYTES).contains(&bytes), "{bytes}");
    assert_eq!(values.last().unwrap(), b"newest");
}
