//! What one member has received, checked twice: by the `prev` chains of its streams, which the server writes, and by the
//! numbers in the payloads, which it does not know. A [`MemberCheck`] lives as long as the session, across reconnects.
//!
//! Invariant: after [`MemberCheck::finish`], `tally.is_clean()` exactly if every reliable frame expected of this member
//! arrived once and in order, or the server said that it could not, and every delta that is known to have been left out
//! was told (`deltas` below says what is known).

mod deltas;

use std::collections::BTreeSet;

use crate::message::Position;

use super::stamp::{Reading, Stamp};
use deltas::DeltaCheck;

/// What went right and wrong, of one member or, added up, of a run.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Tally {
    /// Reliable frames of this run received.
    pub reliable: u64,
    /// Deltas of this run received.
    pub deltas: u64,
    /// Reliable frames that never arrived, by number.
    pub missing: u64,
    /// Reliable frames that arrived twice, by number.
    pub duplicated: u64,
    /// Reliable frames that arrived late, by number.
    pub reordered: u64,
    /// Frames whose `prev` names a place that never arrived.
    pub chain_gaps: u64,
    /// Frames whose place is not behind the last one.
    pub chain_repeats: u64,
    /// Frames of streams that were not introduced.
    pub unintroduced: u64,
    /// Payloads with wrong length or filling.
    pub corrupt: u64,
    /// Deltas older than one of their key that arrived before (D3), or doubled on a connection.
    pub deltas_regressed: u64,
    /// Deltas ahead of a reliable frame that precedes them (D1).
    pub deltas_early: u64,
    /// Deltas left out, as the server told.
    pub deltas_told: u64,
    /// Deltas left out, as counted on connections; what was sent while a member had none is not in it.
    pub deltas_left_out: u64,
    /// Deltas left out that were not told, or not before the next one (D6).
    pub deltas_untold: u64,
    /// Deltas told beyond what was left out.
    pub deltas_told_too_many: u64,
    /// Resumes that the server said it could not serve whole; what was lost by them is not missing.
    pub losses_told: u64,
    /// Events of battles received, their ends too.
    pub battle_events: u64,
    /// Battles that did not arrive whole.
    pub battles_broken: u64,
    /// Battles that did.
    pub battles_whole: u64,
}

impl Tally {
    /// Whether the delivery contract was kept.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        let faults = [
            self.missing,
            self.duplicated,
            self.reordered,
            self.chain_gaps,
            self.chain_repeats,
            self.unintroduced,
            self.corrupt,
            self.deltas_regressed,
            self.deltas_early,
            self.deltas_untold,
            self.deltas_told_too_many,
            self.battles_broken,
        ];
        faults.iter().all(|count| *count == 0)
    }

    /// Adds another's counts.
    pub fn add(&mut self, other: &Self) {
        self.reliable += other.reliable;
        self.deltas += other.deltas;
        self.missing += other.missing;
        self.duplicated += other.duplicated;
        self.reordered += other.reordered;
        self.chain_gaps += other.chain_gaps;
        self.chain_repeats += other.chain_repeats;
        self.unintroduced += other.unintroduced;
        self.corrupt += other.corrupt;
        self.deltas_regressed += other.deltas_regressed;
        self.deltas_early += other.deltas_early;
        self.deltas_told += other.deltas_told;
        self.deltas_left_out += other.deltas_left_out;
        self.deltas_untold += other.deltas_untold;
        self.deltas_told_too_many += other.deltas_told_too_many;
        self.losses_told += other.losses_told;
        self.battle_events += other.battle_events;
        self.battles_broken += other.battles_broken;
        self.battles_whole += other.battles_whole;
    }
}

/// The sizes and counts that a member's checks need.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Rooms of the run; publisher `p` is in room `p % rooms`.
    pub rooms: usize,
    /// Publishers of the run.
    pub publishers: usize,
    /// Bytes of an event's payload; a delta's has 8 more, its key.
    pub size: usize,
    /// Whether payloads are JSON.
    pub json: bool,
    /// Keys per publisher; key `k` is `publisher * delta_keys + k`.
    pub delta_keys: usize,
    /// Whether a server within the default bounds of DELIVERY §3 keeps the newest value of every key for a slow member.
    pub keeps_newest: bool,
}

/// One member's streams and numberings.
#[derive(Debug)]
pub struct MemberCheck {
    shape: Shape,
    streams: Vec<Chain>,
    senders: Vec<Numbering>,
    deltas: DeltaCheck,
    battle: Option<Battle>,
    tally: Tally,
}

/// What publishers have sent, by index in the run.
#[derive(Clone, Default, Debug)]
pub struct Sent {
    /// Number of the last reliable frame.
    pub reliable: Vec<u64>,
    /// Number of the last delta.
    pub deltas: Vec<u64>,
    /// How many of them the server may not have taken.
    pub deltas_refused: Vec<u64>,
    /// `(publisher, number)` of reliable frames that the server refused.
    pub refused: BTreeSet<(u32, u64)>,
}

impl MemberCheck {
    /// A member that has received nothing.
    #[must_use]
    pub fn new(shape: Shape) -> Self {
        let publishers = shape.publishers.div_ceil(shape.rooms);
        let senders = vec![Numbering::default(); publishers];
        let deltas = DeltaCheck::new(publishers, shape.delta_keys, shape.keeps_newest);
        Self { shape, streams: Vec::new(), senders, deltas, battle: None, tally: Tally::default() }
    }

    /// The counts so far; complete after [`MemberCheck::finish`].
    #[must_use]
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// A stream's introduction. A known one keeps its place, so that a resume is checked against what was received.
    pub fn introduce(&mut self, handle: u32, name: &str, epoch: u64, head: u64) {
        let known = self.streams.iter_mut().find(|chain| &*chain.name == name);
        match known {
            Some(chain) if chain.epoch == epoch && !chain.lost => chain.handle = handle,
            Some(chain) => *chain = Chain::new(handle, name, epoch, head),
            None => self.streams.push(Chain::new(handle, name, epoch, head)),
        }
    }

    /// The connection is over; `sent` = deltas that the publishers have sent.
    pub fn disconnected(&mut self, room: usize, sent: impl Fn(usize) -> u64) {
        let first = Publishers { room, shape: self.shape };
        self.deltas.close(|index| first.of(index).map_or(0, &sent), false);
    }

    /// The connection is another from here on; `recovered` as the server said. A battle goes on where it was: what of it
    /// is lost, told or not, it is not whole without.
    pub fn resumed(&mut self, recovered: bool) {
        for chain in &mut self.streams {
            chain.lost = !recovered;
            chain.handle = 0;
        }
        if !recovered {
            self.tally.losses_told += 1;
            self.senders.iter_mut().for_each(Numbering::lose);
        }
    }

    /// What to resume with.
    #[must_use]
    pub fn positions(&self) -> Vec<Position> {
        let position = |chain: &Chain| Position { stream: (*chain.name).into(), epoch: chain.epoch, place: chain.last };
        self.streams.iter().map(position).collect()
    }

    /// A reliable frame; its stamp if it is one of this run's.
    #[inline]
    pub fn reliable(&mut self, handle: u32, place: u64, prev: u64, payload: &[u8]) -> Option<Stamp> {
        self.advance(handle, place, prev);
        let stamp = self.read(payload, self.shape.size)?;
        self.tally.reliable += 1;
        let sender = &mut self.senders[stamp.publisher as usize / self.shape.rooms];
        match sender.take(stamp.number) {
            Took::InOrder => {}
            Took::Late => self.tally.reordered += 1,
            Took::Again => self.tally.duplicated += 1,
        }
        Some(stamp)
    }

    /// A place of the stream, taken by a frame or told to be somebody else's.
    #[inline]
    pub fn advance(&mut self, handle: u32, place: u64, prev: u64) {
        let Some(chain) = self.streams.iter_mut().find(|chain| chain.handle == handle) else {
            self.tally.unintroduced += 1;
            return;
        };
        if place <= chain.last {
            self.tally.chain_repeats += 1;
            return;
        }
        let whole = prev == chain.last || prev == 0 || (chain.fresh && prev < chain.last);
        self.tally.chain_gaps += u64::from(!whole);
        (chain.last, chain.fresh) = (place, false);
    }

    /// A delta that follows place `after`; its stamp if it is one of this run's. `payload` is what is behind the key.
    #[inline]
    pub fn delta(&mut self, handle: u32, after: u64, key: u64, payload: &[u8]) -> Option<Stamp> {
        match self.streams.iter().find(|chain| chain.handle == handle) {
            None => self.tally.unintroduced += 1,
            Some(chain) => self.tally.deltas_early += u64::from(after > chain.last),
        }
        let stamp = self.read(payload, self.shape.size)?;
        self.tally.deltas += 1;
        let keys = self.shape.delta_keys as u64;
        if key != u64::from(stamp.publisher) * keys + stamp.number % keys {
            self.tally.corrupt += 1;
            return None;
        }
        let newer = self.deltas.take(stamp.publisher as usize / self.shape.rooms, stamp.number);
        self.tally.deltas_regressed += u64::from(!newer);
        Some(stamp)
    }

    /// The server says that deltas of a stream were left out.
    pub fn skipped(&mut self, handle: u32, count: u64) {
        self.tally.unintroduced += u64::from(!self.streams.iter().any(|chain| chain.handle == handle));
        self.tally.deltas_told += count;
        self.deltas.tell(count);
    }

    /// Event `n` of a battle's timeline.
    pub fn battle_event(&mut self, n: u64) {
        self.tally.battle_events += 1;
        let battle = self.battle.get_or_insert_default();
        battle.broken |= battle.ended || n != battle.last + 1;
        battle.last = n;
    }

    /// The battle's end, which says how many events it had.
    pub fn battle_end(&mut self, events: u64) {
        self.tally.battle_events += 1;
        let battle = self.battle.get_or_insert_default();
        battle.broken |= battle.ended || events != battle.last;
        battle.ended = true;
    }

    /// Whether the battle's end has arrived.
    #[must_use]
    pub fn battle_ended(&self) -> bool {
        self.battle.as_ref().is_some_and(|battle| battle.ended)
    }

    /// Whether any frame of this run has arrived.
    #[must_use]
    pub fn has_received(&self) -> bool {
        self.tally.reliable > 0
    }

    /// Whether every publisher of the room's last reliable frame has arrived, or none is expected any more.
    #[must_use]
    pub fn is_complete(&self, room: usize, sent: impl Fn(usize) -> u64) -> bool {
        self.publishers_of(room)
            .all(|publisher| self.senders[publisher / self.shape.rooms].highest() >= sent(publisher))
    }

    /// Whether no delta of what publishers have sent can come any more, `refused` as in [`Sent::deltas_refused`].
    #[must_use]
    pub fn has_deltas(&self, room: usize, sent: impl Fn(usize) -> u64, refused: impl Fn(usize) -> u64) -> bool {
        let publishers = Publishers { room, shape: self.shape };
        let refused = self.publishers_of(room).map(refused).sum();
        self.deltas.is_complete(|index| publishers.of(index).map_or(0, &sent), refused)
    }

    /// Counts what is missing. `whole` = this member must have got everything up to the end; `battle` = also a battle.
    pub fn finish(&mut self, room: usize, sent: &Sent, whole: bool, battle: bool) {
        for publisher in self.publishers_of(room) {
            let sender = &self.senders[publisher / self.shape.rooms];
            let last = if whole { sent.reliable[publisher] } else { sender.highest() };
            let refused = sent.refused.range((publisher as u32, 0)..=(publisher as u32, last));
            let refused = refused.filter(|(_, number)| sender.lacks(*number)).count() as u64;
            self.tally.missing += (sender.missing(last)).saturating_sub(refused);
        }
        let publishers = Publishers { room, shape: self.shape };
        // Deltas behind a reliable frame that is missing may be under way like it.
        let caught_up =
            whole && self.is_complete(room, |publisher| sent.reliable[publisher]) && (!battle || self.battle_ended());
        self.deltas.close(|index| publishers.of(index).map_or(0, |publisher| sent.deltas[publisher]), caught_up);
        let refused = self.publishers_of(room).map(|publisher| sent.deltas_refused[publisher]).sum();
        let deltas = self.deltas.verdict();
        self.tally.deltas_left_out += deltas.left_out;
        self.tally.deltas_untold += deltas.untold.saturating_sub(refused);
        self.tally.deltas_told_too_many += deltas.told_too_many;
        if battle && whole {
            let broken = self.battle.as_ref().is_none_or(|battle| battle.broken || !battle.ended);
            self.tally.battles_broken += u64::from(broken);
            self.tally.battles_whole += u64::from(!broken);
        }
    }

    fn publishers_of(&self, room: usize) -> impl Iterator<Item = usize> + use<> {
        (room..self.shape.publishers).step_by(self.shape.rooms)
    }

    #[inline]
    fn read(&mut self, payload: &[u8], len: usize) -> Option<Stamp> {
        match if self.shape.json { Stamp::read_json(payload, len) } else { Stamp::read(payload, len) } {
            Reading::Ours(stamp) if (stamp.publisher as usize) < self.shape.publishers => Some(stamp),
            Reading::Foreign => None,
            Reading::Ours(_) | Reading::Corrupt => {
                self.tally.corrupt += 1;
                None
            }
        }
    }
}

/// A room's publishers.
#[derive(Clone, Copy)]
struct Publishers {
    room: usize,
    shape: Shape,
}

impl Publishers {
    /// Index in the run of the room's publisher `index`, if there is one.
    fn of(self, index: usize) -> Option<usize> {
        Some(self.room + index * self.shape.rooms).filter(|publisher| *publisher < self.shape.publishers)
    }
}

/// A stream's `prev` chain.
#[derive(Debug)]
struct Chain {
    handle: u32,
    name: Box<str>,
    epoch: u64,
    /// Place of the last reliable frame or advance, at first the head at introduction.
    last: u64,
    /// Nothing received since the introduction.
    fresh: bool,
    /// The server could not go on here; the next introduction starts anew.
    lost: bool,
}

impl Chain {
    fn new(handle: u32, name: &str, epoch: u64, head: u64) -> Self {
        Self { handle, name: name.into(), epoch, last: head, fresh: true, lost: false }
    }
}

/// What of a publisher's numbers has arrived.
#[derive(Clone, Default, Debug)]
struct Numbering {
    /// The highest number taken.
    last: u64,
    /// Numbers below `last` that have not arrived: `(first, last)`, ascending.
    gaps: Vec<(u64, u64)>,
    /// The server said that frames were lost; the next number is taken as it comes.
    adrift: bool,
}

enum Took {
    InOrder,
    Late,
    Again,
}

impl Numbering {
    #[inline]
    fn take(&mut self, number: u64) -> Took {
        if number == self.last + 1 || (self.adrift && number > self.last) {
            (self.last, self.adrift) = (number, false);
            return Took::InOrder;
        }
        if number > self.last {
            self.gaps.push((self.last + 1, number - 1));
            self.last = number;
            return Took::InOrder;
        }
        self.fill(number)
    }

    fn fill(&mut self, number: u64) -> Took {
        let Some(at) = self.gaps.iter().position(|(first, last)| (*first..=*last).contains(&number)) else {
            return Took::Again;
        };
        let (first, last) = self.gaps.remove(at);
        let rest = [(first, number - 1), (number + 1, last)];
        self.gaps.splice(at..at, rest.into_iter().filter(|(first, last)| first <= last));
        Took::Late
    }

    fn lose(&mut self) {
        self.adrift = true;
    }

    /// The highest number that is not expected any more.
    fn highest(&self) -> u64 {
        if self.adrift { u64::MAX } else { self.last }
    }

    fn lacks(&self, number: u64) -> bool {
        (!self.adrift && number > self.last) || self.gaps.iter().any(|gap| (gap.0..=gap.1).contains(&number))
    }

    fn missing(&self, last: u64) -> u64 {
        let tail = if self.adrift { 0 } else { last.saturating_sub(self.last) };
        tail + self.gaps.iter().map(|(first, last)| last - first + 1).sum::<u64>()
    }
}

/// A battle's timeline.
#[derive(Default, Debug)]
struct Battle {
    /// The number that came last.
    last: u64,
    broken: bool,
    ended: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: Shape = Shape { rooms: 1, publishers: 1, size: 32, json: false, delta_keys: 2, keeps_newest: true };

    fn member() -> MemberCheck {
        let mut check = MemberCheck::new(SHAPE);
        check.introduce(1, "relay/room:a", 7, 10);
        check
    }

    fn payload(number: u64) -> Vec<u8> {
        let mut out = Vec::new();
        Stamp { publisher: 0, number, sent_ns: 5 }.put(&mut out, 32);
        out
    }

    /// Delivers frame `number`, whose place is 10 + number, chained to the one before.
    fn deliver(check: &mut MemberCheck, number: u64) {
        let stamp = check.reliable(1, 10 + number, 9 + number, &payload(number));
        assert_eq!(stamp.map(|stamp| stamp.number), Some(number));
    }

    fn deliver_delta(check: &mut MemberCheck, number: u64, key: u64, after: u64) {
        check.delta(1, after, key, &payload(number));
    }

    fn finish(mut check: MemberCheck, reliable: u64, deltas: u64) -> Tally {
        let sent = Sent { reliable: vec![reliable], deltas: vec![deltas], deltas_refused: vec![0], ..Sent::default() };
        check.finish(0, &sent, true, false);
        check.tally
    }

    fn nothing_sent() -> Sent {
        Sent { reliable: vec![0], deltas: vec![0], deltas_refused: vec![0], ..Sent::default() }
    }

    fn after(numbers: &[u64], sent: u64) -> Tally {
        let mut check = member();
        numbers.iter().for_each(|number| deliver(&mut check, *number));
        finish(check, sent, 0)
    }

    /// Everything once and in order is clean.
    #[test]
    fn whole_delivery_is_clean() {
        let tally = after(&[1, 2, 3, 4], 4);
        assert!(tally.is_clean(), "{tally:?}");
        assert_eq!(tally.reliable, 4);
    }

    /// A dropped frame is seen by its chain and by its number, in the middle; at the end by its number.
    #[test]
    fn a_dropped_frame_is_seen() {
        let tally = after(&[1, 2, 4], 4);
        assert_eq!((tally.missing, tally.chain_gaps, tally.is_clean()), (1, 1, false));
        let tally = after(&[1, 2, 3], 4);
        assert_eq!((tally.missing, tally.chain_gaps, tally.is_clean()), (1, 0, false));
        let tally = after(&[2, 3, 4], 4);
        assert_eq!((tally.missing, tally.chain_gaps, tally.is_clean()), (1, 1, false));
        assert!(!after(&[], 1).is_clean());
    }

    /// A frame that comes twice is seen by its chain and by its number.
    #[test]
    fn a_doubled_frame_is_seen() {
        let tally = after(&[1, 2, 2, 3], 3);
        assert_eq!((tally.duplicated, tally.chain_repeats, tally.missing, tally.is_clean()), (1, 1, 0, false));
        let tally = after(&[1, 2, 3, 1], 3);
        assert_eq!((tally.duplicated, tally.reordered, tally.is_clean()), (1, 0, false));
    }

    /// Two swapped frames are seen by their chain and by their numbers, and nothing counts as missing.
    #[test]
    fn swapped_frames_are_seen() {
        let tally = after(&[1, 3, 2, 4], 4);
        assert_eq!((tally.reordered, tally.missing, tally.duplicated, tally.is_clean()), (1, 0, 0, false));
        assert_eq!((tally.chain_gaps, tally.chain_repeats), (1, 1));
    }

    /// A chain whose places have holes and advances is whole; a payload that changed and a stream that nobody
    /// introduced are not.
    #[test]
    fn chains_and_payloads_are_checked() {
        let mut check = member();
        check.reliable(1, 50, 10, &payload(1));
        check.advance(1, 60, 50);
        check.reliable(1, 61, 60, &payload(2));
        check.reliable(1, 62, 0, b"somebody else's");
        assert!(check.tally().is_clean());
        check.reliable(2, 1, 0, b"");
        let mut changed = payload(3);
        changed[31] ^= 1;
        check.reliable(1, 63, 62, &changed);
        let tally = finish(check, 2, 0);
        assert_eq!((tally.unintroduced, tally.corrupt, tally.chain_gaps), (1, 1, 0));
    }

    /// Refused frames are not missing.
    #[test]
    fn refused_frames_are_not_missing() {
        let mut check = member();
        deliver(&mut check, 1);
        check.reliable(1, 12, 11, &payload(3));
        let refused = BTreeSet::from([(0, 2), (0, 4)]);
        let sent = Sent { reliable: vec![4], deltas: vec![0], deltas_refused: vec![0], refused };
        check.finish(0, &sent, true, false);
        assert!(check.tally().is_clean(), "{:?}", check.tally());
    }

    /// Left-out deltas are no fault as long as exactly they are told; an older value, one that overtook and one that
    /// came with another's key are.
    #[test]
    fn deltas_are_checked() {
        let run = |told: u64| {
            let mut check = member();
            deliver_delta(&mut check, 1, 1, 10);
            check.skipped(1, told);
            deliver_delta(&mut check, 4, 0, 10);
            deliver_delta(&mut check, 3, 1, 10);
            finish(check, 0, 4)
        };
        let tally = run(1);
        assert_eq!((tally.deltas, tally.deltas_left_out, tally.deltas_told, tally.is_clean()), (3, 1, 1, true));
        let tally = run(0);
        assert_eq!((tally.deltas_left_out, tally.deltas_untold, tally.is_clean()), (1, 1, false));
        let tally = run(3);
        assert_eq!((tally.deltas_left_out, tally.deltas_told_too_many, tally.is_clean()), (1, 2, false));

        let mut check = member();
        deliver_delta(&mut check, 3, 1, 10);
        deliver_delta(&mut check, 1, 1, 10);
        deliver_delta(&mut check, 4, 0, 11);
        deliver_delta(&mut check, 5, 0, 10);
        check.skipped(9, 0);
        let tally = finish(check, 0, 3);
        assert_eq!((tally.deltas_regressed, tally.deltas_early, tally.corrupt, tally.unintroduced), (1, 1, 1, 1));
    }

    /// What was left out of a connection that ended is counted beside what came on the next, and refused ones are not.
    #[test]
    fn deltas_are_checked_by_connection() {
        let mut check = member();
        deliver_delta(&mut check, 5, 1, 10);
        check.disconnected(0, |_| 6);
        check.resumed(true);
        check.introduce(2, "relay/room:a", 7, 10);
        check.delta(2, 10, 0, &payload(8));
        check.delta(2, 10, 1, &payload(9));
        assert!(check.has_deltas(0, |_| 9, |_| 0) && !check.has_deltas(0, |_| 10, |_| 0));
        let tally = finish(check, 0, 9);
        assert_eq!((tally.deltas_left_out, tally.deltas_untold), (2, 2));

        let mut check = member();
        deliver_delta(&mut check, 1, 1, 10);
        let tally = finish(check, 1, 9);
        assert_eq!((tally.missing, tally.deltas_untold), (1, 0), "the run ended before they could come");

        let mut check = member();
        deliver_delta(&mut check, 2, 0, 10);
        let sent = Sent { reliable: vec![0], deltas: vec![2], deltas_refused: vec![1], ..Sent::default() };
        check.finish(0, &sent, true, false);
        assert!(check.tally.is_clean(), "{:?}", check.tally);
    }

    /// A resume that recovers is held to what came before it; one that does not starts anew, and says so.
    #[test]
    fn resumes_are_checked() {
        let mut check = member();
        deliver(&mut check, 1);
        assert_eq!(check.positions(), [Position { stream: "relay/room:a".into(), epoch: 7, place: 11 }]);
        check.resumed(true);
        check.introduce(5, "relay/room:a", 7, 99);
        check.reliable(5, 13, 12, &payload(3));
        let tally = finish(check, 3, 0);
        assert_eq!((tally.missing, tally.chain_gaps), (1, 1));

        let mut check = member();
        deliver(&mut check, 1);
        check.resumed(false);
        check.introduce(5, "relay/room:a", 8, 99);
        check.reliable(5, 100, 99, &payload(90));
        let tally = finish(check, 90, 0);
        assert_eq!((tally.losses_told, tally.is_clean()), (1, true));
    }

    /// A battle is whole with every event and an end that counts them, else broken.
    #[test]
    fn battles_are_checked() {
        let battle = |events: &[u64], end: Option<u64>| {
            let mut check = member();
            events.iter().for_each(|n| check.battle_event(*n));
            end.into_iter().for_each(|count| check.battle_end(count));
            check.finish(0, &nothing_sent(), true, true);
            (check.tally.battles_whole, check.tally.battles_broken)
        };
        assert_eq!(battle(&[1, 2, 3], Some(3)), (1, 0));
        for (events, end) in
            [(&[1, 3][..], Some(3)), (&[1, 2, 3], None), (&[1, 2, 2], Some(2)), (&[1, 2], Some(3)), (&[], None)]
        {
            assert_eq!(battle(events, end), (0, 1), "{events:?} {end:?}");
        }
    }
    /// A battle that lost a part is not whole, though the loss was told; one that lost nothing is, before and behind it.
    #[test]
    fn a_told_loss_breaks_a_battle() {
        for (before, behind, whole) in [(1..3, 3..5, 1), (1..3, 4..5, 0), (1..1, 2..5, 0), (1..5, 5..5, 1)] {
            let mut check = member();
            before.clone().for_each(|n| check.battle_event(n));
            check.resumed(false);
            behind.clone().for_each(|n| check.battle_event(n));
            check.battle_end(4);
            check.finish(0, &nothing_sent(), true, true);
            assert_eq!(
                (check.tally.battles_whole, check.tally.battles_broken),
                (whole, 1 - whole),
                "{before:?} {behind:?}"
            );
        }
    }
}
