//! What is true: every record of the log, by stream and by the command that it answers.

use std::collections::{BTreeMap, BTreeSet};

use ringgate::bus::EmbeddedBus;
use ringgate::ports::{Bus, Record};
use serde_json::Value;

/// See the module.
pub struct Books {
    log: EmbeddedBus,
    next: BTreeMap<&'static str, u64>,
    /// By stream, the events with their places.
    streams: BTreeMap<String, Vec<(u64, Value)>>,
    /// Every event by its id.
    events: BTreeMap<String, Value>,
    repeated: u64,
    /// Ids of the commands of a correlation.
    commands: BTreeMap<String, BTreeSet<String>>,
    /// Types of the events that answer a correlation.
    answers: BTreeMap<String, Vec<String>>,
    /// By room and player.
    scores: BTreeMap<(String, String), u64>,
    breach: Option<String>,
    rolls: u64,
}

/// A command that a client sent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sent {
    pub correlation: String,
    pub kind: &'static str,
    pub text: String,
    /// Under which session; 0 of a player that never had one.
    pub session: String,
    pub acknowledged: bool,
    pub refused: bool,
    /// It was sent on a connection that broke before it was answered, or more than once.
    pub doubtful: bool,
}

impl Books {
    pub fn new(log: EmbeddedBus) -> Self {
        Self {
            log,
            next: BTreeMap::new(),
            streams: BTreeMap::new(),
            events: BTreeMap::new(),
            repeated: 0,
            commands: BTreeMap::new(),
            answers: BTreeMap::new(),
            scores: BTreeMap::new(),
            breach: None,
            rolls: 0,
        }
    }

    /// Takes down what the log has got, and holds it against what it had.
    pub fn read(&mut self) -> Result<(), String> {
        for topic in EVENTS.into_iter().chain(COMMANDS) {
            let mut records = Vec::new();
            let next = self.next.get(topic).copied().unwrap_or(0);
            let next = self.log.read(topic, next, usize::MAX, &mut records);
            self.next.insert(topic, next);
            for record in records {
                let value: Value = serde_json::from_slice(&record.value).expect("an envelope");
                if EVENTS.contains(&topic) { self.event(topic, &record, value) } else { self.command(&value) }
            }
        }
        self.breach.take().map_or(Ok(()), Err)
    }

    fn command(&mut self, value: &Value) {
        if let Some(correlation) = value["correlation_id"].as_str() {
            let id = value["event_id"].as_str().unwrap_or_default().to_owned();
            self.commands.entry(correlation.to_owned()).or_default().insert(id);
        }
    }

    fn event(&mut self, topic: &str, record: &Record, value: Value) {
        let id = value["event_id"].as_str().unwrap_or_default();
        match self.events.insert(id.to_owned(), value.clone()) {
            // What repeats an event of the window reaches nobody.
            Some(first) if first == value => {
                self.repeated += 1;
                return;
            }
            Some(first) => self.breach = Some(format!("once: {first} was made again as {value}")),
            None => {}
        }
        let kind = value["event_type"].as_str().unwrap_or_default().to_owned();
        if let Some(correlation) = value["payload"]["correlation_id"].as_str() {
            self.answers.entry(correlation.to_owned()).or_default().push(kind.clone());
        }
        self.play(&kind, &value["payload"]);
        let target = &value["target"];
        let named = |field: &str, scope: &str| target[field].as_str().map(|name| format!("{scope}:{name}"));
        let scope = named("room_id", "room").or_else(|| named("user_id", "user"));
        let scope = scope.or_else(|| named("session_id", "session")).unwrap_or_else(|| "everyone".into());
        self.streams.entry(format!("{topic}.0/{scope}")).or_default().push((record.offset + 1, value));
    }

    /// A score grows by what is rolled: nothing was rolled twice, nothing forgotten.
    fn play(&mut self, kind: &str, payload: &Value) {
        let room = payload["room_id"].as_str().unwrap_or_default().to_owned();
        match kind {
            "games.event.game_started" => self.scores.retain(|(other, _), _| *other != room),
            "games.event.bigger_dice.rolled" => {
                self.rolls += 1;
                let player = payload["player_id"].as_str().unwrap_or_default().to_owned();
                let score = self.scores.entry((room, player)).or_default();
                *score += payload["roll"].as_u64().unwrap_or(0);
                if payload["new_score"].as_u64() != Some(*score) {
                    self.breach = Some(format!("once: the score should be {score}, but {payload}"));
                }
            }
            _ => {}
        }
    }

    /// The event at a place, and the place that a client must have had before it if it had `had`.
    pub fn at(&self, stream: &str, had: u64, place: u64) -> Result<&Value, String> {
        let events = self.streams.get(stream).map_or(&[][..], |events| events);
        let Ok(at) = events.binary_search_by_key(&place, |event| event.0) else {
            return Err(format!("D1: {stream} has no place {place}"));
        };
        let next = events.get(events.partition_point(|event| event.0 <= had)).map(|event| event.0);
        match next.filter(|next| *next != place) {
            Some(next) => Err(format!("D2: {stream} goes on with {place} behind {had}, {next} is missing")),
            None => Ok(&events[at].1),
        }
    }

    /// The events of a stream with their places.
    pub fn events(&self, stream: &str) -> &[(u64, Value)] {
        self.streams.get(stream).map_or(&[][..], |events| events)
    }

    /// The last place of a stream.
    pub fn head(&self, stream: &str) -> Option<u64> {
        self.streams.get(stream)?.last().map(|event| event.0)
    }

    /// The streams of these scopes.
    pub fn streams_of<'a>(&'a self, scopes: &'a BTreeSet<String>) -> impl Iterator<Item = &'a str> {
        let names = self.streams.keys().map(String::as_str);
        names.filter(|name| name.split_once('/').is_some_and(|(_, scope)| scopes.contains(scope)))
    }

    /// Kept: what was acknowledged is in the log, and answered. Once: it is there under one id and answered once.
    pub fn complete<'a>(&self, sent: impl Iterator<Item = &'a Sent>) -> Result<(), String> {
        for sent in sent {
            let ids = self.commands.get(&sent.correlation).map_or(0, BTreeSet::len);
            let answers = self.answers.get(&sent.correlation).map_or(&[][..], |answers| answers);
            let due = usize::from(ids > 0) * if sent.kind == PRIVATE { 2 } else { 1 };
            let refused = answers.iter().any(|kind| kind.ends_with(".error"));
            let due = if refused { 1 } else { due };
            if sent.acknowledged && ids == 0 {
                return Err(format!("kept: {sent:?} is not in the log"));
            }
            if ids > 1 {
                return Err(format!("once: {sent:?} has {ids} ids"));
            }
            if sent.refused && !sent.doubtful && ids > 0 {
                return Err(format!("once: {sent:?} is in the log all the same"));
            }
            if answers.len() < due {
                return Err(format!("kept: {sent:?} is in the log and was never answered: {answers:?}"));
            }
            if answers.len() > due {
                return Err(format!("once: {sent:?} is answered by {answers:?}"));
            }
        }
        Ok(())
    }

    pub fn summary(&self) -> String {
        let events: usize = self.streams.values().map(Vec::len).sum();
        let (commands, rolls, repeated) = (self.commands.len(), self.rolls, self.repeated);
        format!("commands {commands}, events {events}, rolls {rolls}, repeated in the log {repeated}")
    }
}

const EVENTS: [&str; 4] = ["games.events", "chat.events", "rooms.events", "system.events"];
const COMMANDS: [&str; 2] = ["games.commands", "chat.commands"];
/// Answered to the sender and to the recipient.
pub const PRIVATE: &str = "chat.command.send_message";
