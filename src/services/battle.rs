//! Battles: `battle.command.start {events, interval_ms}` for a room → that many numbered `battle.event.timeline` at that
//! interval → one `battle.event.end` with the count, so that a client can prove that it lost nothing.
//!
//! Laws: the numbers of a battle are 1, 2, …, N, each once and in order, and its end follows N directly, however late
//! or seldom [`Battles::poll`] is called; one battle per room at a time. Event `n` is due `n - 1` intervals behind the
//! start; who comes late gets what is due, at most `budget` events per call, shared fairly among the battles.
//! Ids are derived from the command's id and `n`. It never reads a clock and keeps nothing of a battle that has ended.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use foldhash::quality::FixedState;
use serde::{Deserialize, Serialize};

use super::{NEVER, Sender, ServiceEvent, as_text, record};
use crate::id::{EventId, Scope, is_room_id};
use crate::limits;
use crate::message::ErrorCode;
use crate::ports::Write;
use crate::time::WallMillis;

/// All battles that run. See the module.
#[derive(Debug)]
pub struct Battles {
    by_room: HashMap<Arc<str>, Battle, FixedState>,
    /// The battles in the order of their turns: by when the next event is due, and those that are late by who was
    /// served longest ago.
    due: BTreeMap<(WallMillis, u64), Arc<str>>,
    /// Orders what has the same time: who was served last comes last.
    turn: u64,
    /// Rooms whose record is behind.
    changed: BTreeSet<Arc<str>>,
}

/// `battle.command.start` as it came: the JSON texts of its fields.
#[derive(Clone, Copy, Debug)]
pub struct Start<'a> {
    /// Who wants it.
    pub sender: Sender<'a>,
    /// `room_id`, unquoted.
    pub room: Option<&'a str>,
    /// `events`: how many, 1 to [`limits::BATTLE_EVENTS`].
    pub events: Option<&'a str>,
    /// `interval_ms`: 0 to [`limits::BATTLE_INTERVAL_MS`]; 0 = as fast as the bus takes them.
    pub interval_ms: Option<&'a str>,
}

#[derive(Serialize, Deserialize, Debug)]
struct Battle {
    /// The command that started it; the namespace of its events' ids.
    #[serde(with = "as_text")]
    command: EventId,
    #[serde(with = "as_text")]
    id: EventId,
    events: u64,
    /// The number of its next event.
    next: u64,
    due: WallMillis,
    interval_ms: u64,
    /// Its key in `due`.
    turn: (WallMillis, u64),
}

impl Battles {
    /// None; `seed` is that of the hashes.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let by_room = HashMap::with_hasher(FixedState::with_seed(seed));
        Self { by_room, due: BTreeMap::new(), turn: 0, changed: BTreeSet::new() }
    }

    /// Takes a battle back from its record; `false` if it is none.
    pub fn restore(&mut self, room: &str, value: &mut [u8]) -> bool {
        let Ok(battle) = simd_json::from_slice::<Battle>(value) else { return false };
        self.turn = self.turn.max(battle.turn.1);
        self.due.insert(battle.turn, room.into());
        self.by_room.insert(room.into(), battle);
        true
    }

    /// The records of what has changed since it was asked last.
    pub fn save(&mut self, out: &mut Vec<Write>) {
        for room in std::mem::take(&mut self.changed) {
            out.push(match self.by_room.get(&room) {
                Some(battle) => record(SERVICE, &room, battle),
                None => Write::Remove { service: SERVICE, key: (*room).into() },
            });
        }
    }

    /// When the next event is due.
    #[must_use]
    pub fn next(&self) -> WallMillis {
        self.due.first_key_value().map_or(NEVER, |(key, _)| key.0)
    }

    /// Battles that run.
    #[must_use]
    pub fn running(&self) -> usize {
        self.by_room.len()
    }

    /// Starts a battle, whose first event is due at once, or tells the sender why not.
    pub fn start(&mut self, now: WallMillis, start: &Start<'_>, out: &mut Vec<ServiceEvent>) {
        match self.admit(start) {
            Ok((room, events, interval_ms)) => {
                let command = start.sender.command;
                let id = EventId::v5(&command.0, &[b"battle"]);
                self.by_room.insert(
                    room.clone(),
                    Battle { command, id, events, next: 1, due: now, interval_ms, turn: (now, 0) },
                );
                self.schedule(now, room);
            }
            Err((code, message)) => out.extend(start.sender.error(now, start.room, code, &message)),
        }
    }

    /// Makes at most `budget` events of what is due; returns when the next is, which is in the past if the budget was
    /// used up.
    pub fn poll(&mut self, now: WallMillis, budget: usize, out: &mut Vec<ServiceEvent>) -> WallMillis {
        let mut left = budget;
        while let Some(first) = self.due.first_entry() {
            let at = first.key().0;
            if left == 0 || at > now {
                return at;
            }
            let room = first.remove();
            let battle = self.by_room.get_mut(&room).expect("what is due is of a battle that runs");
            let before = out.len();
            let goes_on = battle.run(&room, now, left.min(BURST), out);
            left -= out.len() - before;
            if goes_on {
                // Not earlier than now: one that is late queues behind all the others that are.
                let at = battle.due.max(now);
                self.schedule(at, room);
            } else {
                self.by_room.remove(&room);
                self.changed.insert(room);
            }
        }
        NEVER
    }

    fn schedule(&mut self, at: WallMillis, room: Arc<str>) {
        self.turn += 1;
        let turn = (at, self.turn);
        self.by_room.get_mut(&room).expect("what is scheduled is a battle that runs").turn = turn;
        self.changed.insert(Arc::clone(&room));
        self.due.insert(turn, room);
    }

    fn admit(&self, start: &Start<'_>) -> Result<(Arc<str>, u64, u64), (ErrorCode, String)> {
        let bad = |text: String| (ErrorCode::BadRequest, text);
        let room = start.room.filter(|room| is_room_id(room)).ok_or_else(|| {
            bad(format!("room_id is {}; name a room with 1–64 of A-Z a-z 0-9 . _ -", shown(start.room)))
        })?;
        let events = bounded("events", start.events, 1, limits::BATTLE_EVENTS).map_err(bad)?;
        let interval_ms = bounded("interval_ms", start.interval_ms, 0, limits::BATTLE_INTERVAL_MS).map_err(bad)?;
        if let Some(battle) = self.by_room.get(room) {
            let Battle { next, events, .. } = battle;
            let text = format!("room {room} has a battle at event {next} of {events}; wait for its battle.event.end");
            return Err((ErrorCode::Unavailable, text));
        }
        if self.by_room.len() >= limits::BATTLES {
            let text = format!("{} battles run, the most there may be; try again when one has ended", limits::BATTLES);
            return Err((ErrorCode::Unavailable, text));
        }
        Ok((room.into(), events, interval_ms))
    }
}

impl Battle {
    /// Makes at most `budget` events of those that are due; returns whether more will follow.
    fn run(&mut self, room: &Arc<str>, now: WallMillis, budget: usize, out: &mut Vec<ServiceEvent>) -> bool {
        for _ in 0..budget {
            if self.due > now {
                break;
            }
            if self.next > self.events {
                out.push(self.end(room));
                return false;
            }
            out.push(self.timeline(room));
            self.next += 1;
            // The end is due with the last event.
            if self.next <= self.events {
                self.due.0 = self.due.0.saturating_add(self.interval_ms);
            }
        }
        true
    }

    fn timeline(&self, room: &Arc<str>) -> ServiceEvent {
        let (n, id) = (self.next, self.id);
        let payload = format!(r#"{{"room_id":"{room}","battle_id":"{id}","n":{n}}}"#);
        self.event(room, "battle.event.timeline", &n.to_be_bytes(), payload)
    }

    fn end(&self, room: &Arc<str>) -> ServiceEvent {
        let (events, id) = (self.events, self.id);
        let payload = format!(r#"{{"room_id":"{room}","battle_id":"{id}","events":{events}}}"#);
        self.event(room, "battle.event.end", b"end", payload)
    }

    fn event(&self, room: &Arc<str>, event_type: &'static str, name: &[u8], payload: String) -> ServiceEvent {
        let (id, target) = (EventId::v5(&self.command.0, &[name]), Scope::Room(room.clone()));
        ServiceEvent { id, event_type, at: self.due, target, key: (**room).into(), payload }
    }
}

/// Reads a whole number from its JSON text.
fn bounded(field: &str, value: Option<&str>, min: u64, max: u64) -> Result<u64, String> {
    let number = value.and_then(|text| text.parse().ok()).filter(|number| (min..=max).contains(number));
    number.ok_or_else(|| format!("{field} is {}; send a whole number from {min} to {max}", shown(value)))
}

/// A value as an error shows it: cut to 64 characters.
fn shown(value: Option<&str>) -> String {
    value.map_or_else(|| "missing".to_owned(), |text| text.chars().take(64).collect())
}

/// Whose records these are in the store.
pub const SERVICE: &str = "battle";
/// Events one battle may have before the next one's turn.
const BURST: usize = 64;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::id::SessionId;

    fn start<'a>(n: u8, room: &'a str, events: &'a str, interval_ms: &'a str) -> Start<'a> {
        let sender = Sender { command: EventId([n; 16]), session: Some(SessionId([9; 16])), correlation: Some("7") };
        Start { sender, room: Some(room), events: Some(events), interval_ms: Some(interval_ms) }
    }

    fn at(ms: u64) -> WallMillis {
        WallMillis(ms)
    }

    fn number(event: &ServiceEvent) -> Option<u64> {
        event.payload.rsplit_once("\"n\":")?.1.trim_end_matches('}').parse().ok()
    }

    /// A battle is its numbered events at their times, and its end with the last.
    #[test]
    fn a_battle_is_a_timeline_and_an_end() {
        let (mut battles, mut out) = (Battles::new(1), Vec::new());
        battles.start(at(5), &start(1, "arena", "3", "100"), &mut out);
        assert_eq!(battles.poll(at(5), 10, &mut out), at(105));
        assert_eq!(battles.poll(at(104), 10, &mut out), at(105));
        assert_eq!(out.len(), 1);
        assert_eq!(battles.poll(at(206), 10, &mut out), NEVER);
        let id = EventId::v5(&[1; 16], &[b"battle"]);
        let payloads: Vec<_> = out.iter().map(|event| (event.event_type, event.payload.clone())).collect();
        let timeline = |n| {
            let payload = format!(r#"{{"room_id":"arena","battle_id":"{id}","n":{n}}}"#);
            ("battle.event.timeline", payload)
        };
        let end = ("battle.event.end", format!(r#"{{"room_id":"arena","battle_id":"{id}","events":3}}"#));
        assert_eq!(payloads, [timeline(1), timeline(2), timeline(3), end]);
        assert!(out.iter().all(|event| event.target == Scope::Room("arena".into()) && &*event.key == "arena"));
        assert_eq!(battles.running(), 0);
    }

    /// The same command makes the same ids again, and no two events share one.
    #[test]
    fn event_ids_follow_from_the_command() {
        let ids = |seed, n| {
            let (mut battles, mut out) = (Battles::new(seed), Vec::new());
            battles.start(at(0), &start(n, "arena", "50", "0"), &mut out);
            battles.poll(at(0), 100, &mut out);
            out.into_iter().map(|event| event.id).collect::<Vec<_>>()
        };
        assert_eq!(ids(1, 1), ids(2, 1));
        let all: std::collections::BTreeSet<_> = ids(1, 1).into_iter().chain(ids(1, 2)).collect();
        assert_eq!(all.len(), 102);
    }

    /// What is wrong with a command is told to its session: field, value, remedy.
    #[test]
    fn bad_commands_are_answered() {
        let mut battles = Battles::new(1);
        let mut error = |start: &Start<'_>| {
            let mut out = Vec::new();
            battles.start(at(0), start, &mut out);
            let event = out.pop().expect("an answer");
            assert_eq!((event.event_type, event.target), ("games.event.error", Scope::Session(SessionId([9; 16]))));
            assert!(event.payload.contains(r#""correlation_id":"7""#), "{}", event.payload);
            event.payload
        };
        for (events, interval, told) in [
            ("0", "1", "events is 0; send a whole number from 1 to 1000000"),
            ("1000001", "1", "events is 1000001; send"),
            ("\"9\"", "1", r#"events is \"9\"; send"#),
            ("1.5", "1", "events is 1.5; send"),
            ("1", "60001", "interval_ms is 60001; send a whole number from 0 to 60000"),
            ("1", "-1", "interval_ms is -1; send"),
        ] {
            let payload = error(&start(1, "arena", events, interval));
            assert!(payload.contains(told) && payload.contains("bad_request"), "{payload}");
        }
        assert!(error(&Start { events: None, ..start(1, "arena", "", "1") }).contains("events is missing; send"));
        assert!(error(&start(1, "a b", "1", "1")).contains("room_id is a b; name a room"));
        let long = "9".repeat(10_000);
        assert!(error(&start(1, "arena", &long, "1")).len() < 300);
        battles.start(at(0), &start(1, "arena", "10", "1000"), &mut Vec::new());
        battles.poll(at(0), 10, &mut Vec::new());
        let mut out = Vec::new();
        battles.start(at(0), &start(2, "arena", "10", "0"), &mut out);
        assert!(out[0].payload.contains("room arena has a battle at event 2 of 10; wait"), "{}", out[0].payload);
        assert_eq!(battles.running(), 1);
    }

    /// The number of battles is bounded.
    #[test]
    fn battles_are_bounded() {
        let (mut battles, mut out) = (Battles::new(1), Vec::new());
        for n in 0..=limits::BATTLES {
            battles.start(at(0), &start(1, &format!("r{n}"), "1", "0"), &mut out);
        }
        assert_eq!((battles.running(), out.len()), (limits::BATTLES, 1));
        assert!(out[0].payload.contains("unavailable"));
    }

    /// A battle as fast as possible does not keep others from their turn.
    #[test]
    fn battles_share_the_budget() {
        let (mut battles, mut out) = (Battles::new(1), Vec::new());
        battles.start(at(0), &start(1, "fast", "1000000", "0"), &mut out);
        battles.start(at(0), &start(2, "slow", "10", "10"), &mut out);
        for ms in 1..=100 {
            assert!(battles.poll(at(ms), 64, &mut out) <= at(ms), "there is more");
        }
        assert_eq!(out.len(), 6400);
        assert_eq!(out.iter().filter(|event| &*event.key == "slow").count(), 11);
    }

    proptest! {
        /// Under any times and budgets of the calls every battle's numbering is complete and in order, nothing comes
        /// before it is due, and what is due comes as soon as the budget allows.
        #[test]
        fn numbering_is_complete_and_in_order(
            plans in proptest::collection::vec((1u64..60, prop_oneof![Just(0u64), 1u64..50], 0u64..100), 1..6),
            calls in proptest::collection::vec((0u64..120, 0usize..90), 1..200),
        ) {
            let mut battles = Battles::new(3);
            let (mut now, mut out, mut started) = (0, Vec::new(), vec![None; plans.len()]);
            for (step, budget) in calls.into_iter().chain(std::iter::repeat_n((3000, 1000), 5)) {
                now += step;
                for (i, (events, interval, from)) in plans.iter().enumerate() {
                    if started[i].is_none() && *from <= now {
                        started[i] = Some(now);
                        let (events, interval) = (events.to_string(), interval.to_string());
                        battles.start(at(now), &start(i as u8, &i.to_string(), &events, &interval), &mut out);
                    }
                }
                let before = out.len();
                let next = battles.poll(at(now), budget, &mut out);
                prop_assert!(out.len() - before <= budget);
                prop_assert!(next > at(now) || out.len() - before == budget);
                for event in &out[before..] {
                    let i: usize = event.key.parse().unwrap();
                    let n = number(event).unwrap_or(plans[i].0);
                    prop_assert!(now >= started[i].unwrap() + (n - 1) * plans[i].1);
                }
            }
            for (i, (events, ..)) in plans.iter().enumerate() {
                let numbers: Vec<_> = out.iter().filter(|event| *event.key == *i.to_string()).map(number).collect();
                let expected: Vec<_> = (1..=*events).map(Some).chain([None]).collect();
                prop_assert_eq!(numbers, expected);
            }
            prop_assert_eq!(battles.running(), 0);
        }
    }
}
