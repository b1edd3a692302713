//! What is true, collected from what publishers sent and what any client received.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use ringgate::time::Monotonic;

#[derive(Default)]
pub struct Oracle {
    /// What stands at a place: the same for everybody.
    frames: HashMap<(String, u64), (u32, u32)>,
    /// Where a publisher's frame stands: one place only.
    places: HashMap<(u32, u32), (String, u64)>,
    heads: BTreeMap<String, u64>,
    first_seen: BTreeMap<(String, u64), Monotonic>,
    /// By publisher and correlation.
    asked: HashMap<(u32, u64), u32>,
    acknowledged: HashSet<(u32, u32)>,
    newest: BTreeMap<(String, u64), u32>,
    /// While `count_keys` is on: by client and key, how often each other key was sent since that key's last turn.
    turns: BTreeMap<u32, BTreeMap<u64, BTreeMap<u64, u32>>>,
    pub count_keys: bool,
}

impl Oracle {
    /// Nothing is known; whether turns of keys are counted.
    pub fn counting(keys: bool) -> Self {
        Self { count_keys: keys, ..Self::default() }
    }

    pub fn published(&mut self, publisher: u32, sequence: u32, correlation: u64, _room: &str) {
        self.asked.insert((publisher, correlation), sequence);
    }

    pub fn delta(&mut self, room: &str, key: u64, version: u32) {
        self.newest.insert((room.to_owned(), key), version);
    }

    /// A key was forgotten: it need not reach anybody any more, until it is published again.
    pub fn forgotten(&mut self, room: &str, key: u64) {
        self.newest.remove(&(room.to_owned(), key));
    }

    pub fn acknowledged(&mut self, publisher: u32, correlation: u64) {
        if let Some(sequence) = self.asked.get(&(publisher, correlation)) {
            self.acknowledged.insert((publisher, *sequence));
        }
    }

    /// A client received the frame at this place.
    pub fn seen(&mut self, now: Monotonic, stream: &str, place: u64, payload: &[u8]) -> Result<(), String> {
        if !stream.starts_with("relay/") {
            return Ok(());
        }
        let number =
            |at: usize| payload.get(at..at + 4).map(|bytes| u32::from_le_bytes(bytes.try_into().expect("four")));
        let (Some(publisher), Some(sequence)) = (number(0), number(4)) else { return Err("a mangled payload".into()) };
        let id = (publisher, sequence);
        let there = *self.frames.entry((stream.to_owned(), place)).or_insert(id);
        if there != id {
            return Err(format!("D1: {stream} place {place} is {there:?} for one client and {id:?} for another"));
        }
        let first = self.places.entry(id).or_insert_with(|| (stream.to_owned(), place)).clone();
        if first != (stream.to_owned(), place) {
            return Err(format!("D1: {id:?} stands at {first:?} and at {place}"));
        }
        let head = self.heads.entry(stream.to_owned()).or_default();
        *head = (*head).max(place);
        self.first_seen.entry((stream.to_owned(), place)).or_insert(now);
        Ok(())
    }

    pub fn head(&self, stream: &str) -> u64 {
        self.heads.get(stream).copied().unwrap_or(0)
    }

    pub fn newest(&self, room: &str) -> impl Iterator<Item = (u64, u32)> {
        let mine = self.newest.iter().filter(move |((other, _), _)| other == room);
        mine.map(|((_, key), version)| (*key, *version))
    }

    /// The oldest frame behind `place` that others had more than `patience` ago (D8).
    pub fn overdue(&self, now: Monotonic, stream: &str, place: u64, patience: Duration) -> Option<u64> {
        let behind = self.first_seen.range((stream.to_owned(), place + 1)..=(stream.to_owned(), u64::MAX));
        behind.map(|((_, place), at)| (*place, *at)).find(|(_, at)| now.since(*at) > patience).map(|(place, _)| place)
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

    /// Every acknowledged frame stands somewhere.
    pub fn complete(&self) -> Result<(), String> {
        match self.acknowledged.iter().find(|id| !self.places.contains_key(id)) {
            Some(id) => Err(format!("D2: {id:?} was acknowledged and reached nobody")),
            None => Ok(()),
        }
    }

    pub fn acknowledged_frames(&self) -> usize {
        self.acknowledged.len()
    }
}
