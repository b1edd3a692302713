//! What is true, collected from what publishers and backends sent and what any client received.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use ringgate::frame::Audience;
use ringgate::time::Monotonic;

/// A frame's sender and its number among that sender's.
type Mark = (u32, u32);

/// An event of the bus.
#[derive(Clone, Default, Debug)]
pub struct Told {
    pub place: u64,
    /// Who sees it, if not everybody.
    pub audience: Option<Audience>,
    /// The command of the client that it refuses.
    pub refuses: Option<u64>,
    /// The command of the client that it answers.
    pub answers: Option<u64>,
    pub effect: Option<Effect>,
}

/// What an event does to its session.
#[derive(Clone, Debug)]
pub struct Effect {
    /// Into the room, else out of it.
    pub joins: bool,
    pub room: String,
}

/// Who received something.
#[derive(Clone, Copy, Debug)]
pub struct Reader {
    pub number: u32,
    /// It speaks dialect A.
    pub text: bool,
}

impl Reader {
    fn user(self) -> String {
        format!("user-{}", self.number)
    }
}

impl Told {
    /// Whether the text is that event's.
    fn is(&self, text: &str) -> Result<(), String> {
        let has = |mark: String| {
            let there = text.find(&mark).map(|at| &text[at + mark.len()..]);
            if there.is_some_and(|rest| rest.starts_with([',', '}'])) { Ok(()) } else { Err(mark) }
        };
        match self.refuses {
            Some(number) => has(format!("\"correlation_id\":\"{number}\"")),
            None => has(format!("\"n\":{}", self.place)),
        }
    }
}

/// What a client received at a place.
#[derive(Clone, Copy, Debug)]
pub enum Seen<'a> {
    /// The frame's payload.
    Frame(&'a [u8]),
    /// Its place alone.
    Advance,
}

#[derive(Default)]
pub struct Oracle {
    /// Homes keep few streams, so that `prev` is 0, not known, where one is there again.
    few_streams: bool,
    /// Which frame stands at a place: the same for everybody.
    frames: BTreeMap<String, BTreeMap<u64, Mark>>,
    /// Where a frame stands: one place only.
    places: HashMap<Mark, (String, u64)>,
    /// The streams that the bus feeds, as its log has them.
    log: BTreeMap<String, Vec<Told>>,
    /// Rooms that a publisher may have opened.
    open: HashSet<String>,
    first_seen: BTreeMap<String, BTreeMap<u64, Monotonic>>,
    /// By sender and correlation.
    asked: HashMap<(u32, u64), Mark>,
    /// By mark, the sender's connection.
    lives: HashMap<Mark, u32>,
    acknowledged: HashSet<Mark>,
    /// What was sent to the publishers of a room, and when.
    inputs: HashMap<Mark, (String, Monotonic)>,
    /// Commands for the bus and whether they were acknowledged.
    commands: BTreeMap<(u32, u64), bool>,
    newest: BTreeMap<(String, u64), u32>,
    /// While `count_keys` is on: by client and key, how often each other key was sent since that key's last turn.
    turns: BTreeMap<u32, BTreeMap<u64, BTreeMap<u64, u32>>>,
    pub count_keys: bool,
}

impl Oracle {
    /// Nothing is known; whether turns of keys are counted, and whether homes keep few streams.
    pub fn counting(keys: bool, few_streams: bool) -> Self {
        Self { count_keys: keys, few_streams, ..Self::default() }
    }

    /// A client sent a reliable frame on one of its connections.
    pub fn published(&mut self, mark: Mark, life: u32, correlation: u64) {
        self.asked.insert((mark.0, correlation), mark);
        self.lives.insert(mark, life);
    }

    /// The frame is for the publishers of the room.
    pub fn sent_to_publishers(&mut self, mark: Mark, room: &str, now: Monotonic) {
        self.inputs.insert(mark, (room.to_owned(), now));
    }

    pub fn delta(&mut self, room: &str, key: u64, version: u32) {
        self.newest.insert((room.to_owned(), key), version);
    }

    /// A key was forgotten: it need not reach anybody any more, until it is published again.
    pub fn forgotten(&mut self, room: &str, key: u64) {
        self.newest.remove(&(room.to_owned(), key));
    }

    /// A client sent a command for the bus.
    pub fn commanded(&mut self, client: u32, correlation: u64) {
        self.commands.insert((client, correlation), false);
    }

    /// A backend's event of the stream.
    pub fn event(&mut self, stream: String, told: Told) {
        self.log.entry(stream).or_default().push(told);
    }

    /// The backend's event at this place.
    pub fn told(&self, stream: &str, place: u64) -> Option<&Told> {
        let log = self.log.get(stream)?;
        Some(&log[log.binary_search_by_key(&place, |told| told.place).ok()?])
    }

    /// A publisher asks to be let into the room.
    pub fn opened(&mut self, room: &str) {
        self.open.insert(room.to_owned());
    }

    /// Whether the room's home may let everybody in.
    pub fn is_open(&self, room: &str) -> bool {
        self.open.contains(room)
    }

    pub fn acknowledged(&mut self, client: u32, correlation: u64) {
        if let Some(mark) = self.asked.get(&(client, correlation)) {
            self.acknowledged.insert(*mark);
        }
        if let Some(acknowledged) = self.commands.get_mut(&(client, correlation)) {
            *acknowledged = true;
        }
    }

    /// A client that had everything up to `had` received this at this place, behind `prev`.
    pub fn seen(
        &mut self,
        now: Monotonic,
        reader: Reader,
        stream: &str,
        had: Option<u64>,
        (place, prev): (u64, u64),
        seen: Seen<'_>,
    ) -> Result<(), String> {
        if !self.first_seen.contains_key(stream) {
            self.first_seen.insert(stream.to_owned(), BTreeMap::new());
            self.frames.insert(stream.to_owned(), BTreeMap::new());
        }
        self.first_seen.get_mut(stream).expect("inserted above").entry(place).or_insert(now);
        let numbered = stream.starts_with("relay/") || stream.starts_with("input/");
        if let Some(had) = had.filter(|had| numbered && prev != *had) {
            return Err(format!("D2: {stream} continues {prev}, the client has {had}"));
        }
        match (stream.split('/').next(), seen) {
            (Some("relay"), Seen::Frame(payload)) => self.stands(stream, place, payload.first_chunk()),
            (Some("input"), Seen::Frame(payload)) => self.stands(stream, place, payload.last_chunk()),
            (Some("relay" | "input"), Seen::Advance) => Err(format!("D2: {stream} has a hidden frame at {place}")),
            _ => self.logged(reader, stream, had, (place, prev), seen),
        }
    }

    /// A frame of a stream that a home numbers.
    fn stands(&mut self, stream: &str, place: u64, mark: Option<&[u8; 8]>) -> Result<(), String> {
        let &[a, b, c, d, e, f, g, h] = mark.ok_or("a mangled payload")?;
        let mark = (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h]));
        let frames = self.frames.get_mut(stream).expect("inserted by `seen`");
        if let Some(there) = frames.get(&place) {
            if *there != mark {
                return Err(format!("D1: {stream} place {place} is {there:?} for one client and {mark:?} for another"));
            }
            return Ok(());
        }
        let life = self.lives.get(&mark).ok_or_else(|| format!("D1: {mark:?} in {stream} was never sent"))?;
        frames.insert(place, mark);
        let same = |other: &&Mark| other.0 == mark.0 && self.lives.get(other) == Some(life);
        // What one connection sent keeps its order; looking back a little is enough to see an exchange.
        let before = frames.range(..place).rev().take(NEAR).map(|(_, other)| other).find(same);
        let behind = frames.range(place + 1..).take(NEAR).map(|(_, other)| other).find(same);
        if before.is_some_and(|other| other.1 > mark.1) || behind.is_some_and(|other| other.1 < mark.1) {
            return Err(format!("D1: {stream} has {mark:?} at {place} between {before:?} and {behind:?}"));
        }
        let first = self.places.entry(mark).or_insert_with(|| (stream.to_owned(), place));
        if (&*first.0, first.1) != (stream, place) {
            return Err(format!("D1: {mark:?} stands at {first:?} and at {place} of {stream}"));
        }
        Ok(())
    }

    /// A frame of a stream that the bus feeds.
    fn logged(
        &self,
        reader: Reader,
        stream: &str,
        had: Option<u64>,
        (place, prev): (u64, u64),
        seen: Seen<'_>,
    ) -> Result<(), String> {
        let log = self.log.get(stream).map_or(&[][..], |log| log);
        let Ok(at) = log.binary_search_by_key(&place, |told| told.place) else {
            return Err(format!("D1: {stream} has no place {place}, but {seen:?}"));
        };
        let next = had.map(|had| log[log.partition_point(|told| told.place <= had)].place);
        if let Some(next) = next.filter(|next| *next != place) {
            return Err(format!("D2: {stream} goes on with {place}, event {next} is missing"));
        }
        let before = at.checked_sub(1).map_or(0, |before| log[before].place);
        if prev != before && !(self.few_streams && prev == 0) {
            return Err(format!("D2: {stream} continues {prev} at {place}, the log has {before}"));
        }
        let told = &log[at];
        let hidden = told.audience.as_ref().is_some_and(|audience| !audience.includes(&reader.user()));
        match seen {
            Seen::Advance if hidden || told.refuses.is_some() && !reader.text => Ok(()),
            Seen::Advance => Err(format!("D2: {stream} left out the event at {place}")),
            Seen::Frame(_) if hidden => Err(format!("D1: {stream} shows {told:?} to {}", reader.user())),
            Seen::Frame(payload) => told.is(&String::from_utf8_lossy(payload)).map_err(|what| {
                format!("D1: {stream} has {} at {place} without {what}", String::from_utf8_lossy(payload))
            }),
        }
    }

    /// Every stream with its last place.
    pub fn heads(&self) -> impl Iterator<Item = (&str, u64)> {
        let numbered = self.frames.iter().filter_map(|(name, frames)| Some((&**name, *frames.last_key_value()?.0)));
        let logged = self.log.iter().filter_map(|(name, places)| Some((&**name, places.last()?.place)));
        numbered.chain(logged)
    }

    pub fn newest(&self, room: &str) -> impl Iterator<Item = (u64, u32)> {
        let mine = self.newest.iter().filter(move |((other, _), _)| other == room);
        mine.map(|((_, key), version)| (*key, *version))
    }

    /// The oldest frame behind `place` that others had more than `patience` ago (D8).
    pub fn overdue(&self, now: Monotonic, stream: &str, place: u64, patience: Duration) -> Option<u64> {
        let behind = self.first_seen.get(stream)?.range(place + 1..);
        behind.map(|(place, at)| (*place, *at)).find(|(_, at)| now.since(*at) > patience).map(|(place, _)| place)
    }

    /// A client received a delta of the key. While every key is published in every step, a key that was just sent waits
    /// again at once, so no other key can have more than two turns, and one that was under way, before it (D3).
    pub fn key_sent(&mut self, client: u32, key: u64) -> Result<(), String> {
        if !self.count_keys {
            return Ok(());
        }
        let waiting = self.turns.entry(client).or_default();
        for (other, since) in waiting.iter_mut().filter(|(other, _)| **other != key) {
            let turns = since.entry(key).or_default();
            *turns += 1;
            if *turns > 3 {
                return Err(format!("D3: client {client}: key {key:x} had {turns} turns while {other:x} waited"));
            }
        }
        waiting.insert(key, BTreeMap::new());
        Ok(())
    }

    /// Every key had a turn (D3).
    pub fn turns_kept(&self, client: u32, keys: usize) -> Result<(), String> {
        match self.turns.get(&client).map_or(0, BTreeMap::len) {
            seen if seen == keys => Ok(()),
            seen => Err(format!("D3: client {client}: {seen} of {keys} keys ever had a turn")),
        }
    }

    /// Every acknowledged frame stands somewhere, and every acknowledged command is in the log once, no other twice. A
    /// player's command reaches the publishers that stay in its room: `stayed` says whether one has been there from that
    /// time on.
    pub fn complete(&self, log: &[(u32, u64)], stayed: impl Fn(&str, Monotonic) -> bool) -> Result<(), String> {
        let mut unseen: Vec<_> = self.acknowledged.iter().filter(|mark| !self.places.contains_key(mark)).collect();
        unseen.sort();
        for mark in unseen {
            let input = self.inputs.get(mark);
            if input.is_none_or(|(room, sent)| stayed(room, *sent)) {
                return Err(format!("D2: {mark:?} was acknowledged and reached nobody ({input:?})"));
            }
        }
        let mut times: BTreeMap<(u32, u64), usize> = BTreeMap::new();
        log.iter().for_each(|command| *times.entry(*command).or_default() += 1);
        for (command, acknowledged) in &self.commands {
            let times = times.get(command).copied().unwrap_or(0);
            if times > 1 || *acknowledged && times == 0 {
                return Err(format!(
                    "D2: command {command:?} is {times} times in the log, acknowledged {acknowledged}"
                ));
            }
        }
        Ok(())
    }

    /// Acknowledged frames and commands, and events of the bus.
    pub fn counts(&self) -> (usize, usize, usize) {
        let commands = self.commands.values().filter(|acknowledged| **acknowledged).count();
        (self.acknowledged.len(), commands, self.log.values().map(Vec::len).sum())
    }
}

/// How far a frame is compared with its neighbours.
const NEAR: usize = 64;
