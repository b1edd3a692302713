//! The worker against a bus that refuses, repeats and is full of other people's commands.

use std::time::Duration;

use super::*;
use crate::ports::Durability;

/// A bus that takes as many events as it is allowed to.
#[derive(Debug, Default)]
struct Scarce {
    commands: Vec<Vec<u8>>,
    events: Vec<String>,
    room_for: usize,
    done: u64,
    /// Appends end when the test says so.
    later: bool,
    given: u64,
    ended: Vec<Completed>,
}

impl Bus for Scarce {
    fn durability(&self) -> Durability {
        Durability::Memory
    }

    fn epoch(&self, _topic: &str) -> u64 {
        1
    }

    fn append(&mut self, _now: WallMillis, append: &Append) -> Result<Accepted, ErrorCode> {
        assert_eq!(&*append.topic, "games.events");
        self.room_for = self.room_for.checked_sub(1).ok_or(ErrorCode::Unavailable)?;
        self.events.push(String::from_utf8(append.value.to_vec()).unwrap());
        self.given += 1;
        Ok(if self.later { Accepted::Pending(Ticket(self.given)) } else { Accepted::Now })
    }

    fn completed(&mut self, out: &mut Vec<Completed>) {
        out.append(&mut self.ended);
    }

    fn range(&self, topic: &str) -> (u64, u64) {
        (0, if topic == "games.events" { self.events.len() } else { self.commands.len() } as u64)
    }

    fn since(&self, _topic: &str, _since: WallMillis) -> u64 {
        0
    }

    fn read(&mut self, topic: &str, offset: u64, max: usize, out: &mut Vec<Record>) -> u64 {
        let events: Vec<_> = self.events.iter().map(|event| event.clone().into_bytes()).collect();
        let records = if topic == "games.events" { &events } else { &self.commands };
        let from = offset as usize;
        let to = (from + max).min(records.len());
        for (at, record) in records.iter().enumerate().take(to).skip(from) {
            let (timestamp, value) = (WallMillis(100 * at as u64), record.as_slice().into());
            out.push(Record { offset: at as u64, timestamp, key: (*b"").into(), value });
        }
        to as u64
    }

    fn done(&mut self, _topic: &str, offset: u64) {
        self.done = offset;
    }
}

const NOW: Monotonic = Monotonic::ZERO;

fn command(id: u8, event_type: &str, payload: &str) -> Vec<u8> {
    format!(
        r#"{{"event_id":"000000{id:02x}-0000-0000-0000-000000000000","event_type":"{event_type}","session_id":"00000000-0000-0000-0000-000000000009","payload":{payload}}}"#
    )
    .into_bytes()
}

fn start(id: u8, room: &str, events: u32, interval_ms: u32) -> Vec<u8> {
    let payload = format!(r#"{{"room_id":"{room}","events":{events},"interval_ms":{interval_ms}}}"#);
    command(id, "battle.command.start", &payload)
}

fn worker(commands: Vec<Vec<u8>>, room_for: usize) -> ServiceWorker<Scarce> {
    ServiceWorker::new(Scarce { commands, room_for, ..Scarce::default() }, 1)
}

/// A battle's events are envelopes with id, type, time, target and payload, and the turn names the next one's time.
#[test]
fn a_command_becomes_events() {
    let mut worker = worker(vec![start(1, "arena", 2, 50)], 100);
    let next = worker.turn(NOW, WallMillis(0));
    assert_eq!(next, NOW + Duration::from_millis(50));
    assert_eq!(worker.turn(next, WallMillis(1)), Monotonic::NEVER);
    let events = &worker.bus.events;
    assert_eq!(events.len(), 3);
    assert!(events[0].starts_with(r#"{"event_id":""#), "{}", events[0]);
    let first = r#""event_type":"battle.event.timeline","timestamp":"1970-01-01T00:00:00.000Z","target":{"room_id":"arena"},"payload":{"room_id":"arena","battle_id":""#;
    assert!(events[0].contains(first), "{}", events[0]);
    assert!(events[2].contains(r#""event_type":"battle.event.end""#) && events[2].ends_with(r#""events":2}}"#));
    assert_eq!(worker.battles(), 0);
}

/// A repeated command is done once; other games' commands and unreadable ones hold nothing up.
#[test]
fn commands_are_done_once_and_others_left_alone() {
    let commands = vec![
        start(1, "a", 1, 0),
        b"nonsense".to_vec(),
        command(2, "games.command.chess.move", "{}"),
        start(1, "a", 1, 0),
        command(3, "battle.command.start", "{}"),
    ];
    let mut worker = worker(commands, 100);
    while worker.turn(NOW, WallMillis(0)) <= NOW {}
    let events = &worker.bus.events;
    assert_eq!(events.iter().filter(|event| event.contains("battle.event.timeline")).count(), 1);
    assert_eq!(events.iter().filter(|event| event.contains("games.event.error")).count(), 1);
    assert_eq!((events.len(), worker.bus.done), (3, 5));
}

/// A full bus stops the services without losing or repeating an event, and without memory for what waits.
#[test]
fn a_full_bus_slows_the_services() {
    let mut worker = worker(vec![start(1, "a", 1000, 0), start(2, "b", 1000, 0)], 0);
    let mut refusals = 0;
    while worker.bus.events.len() < 2002 {
        if worker.turn(NOW, WallMillis(0)) == Monotonic::NEVER {
            refusals += 1;
            assert!(worker.pending.len() <= EVENTS_PER_TURN);
            worker.bus.room_for = 17;
        }
    }
    assert!(refusals > 100);
    for room in ["a", "b"] {
        let of_room = format!(r#""target":{{"room_id":"{room}"}}"#);
        let events: Vec<_> = worker.bus.events.iter().filter(|event| event.contains(&of_room)).collect();
        assert_eq!(events.len(), 1001);
        for (at, event) in events[..1000].iter().enumerate() {
            assert!(event.ends_with(&format!(r#""n":{}}}}}"#, at + 1)), "{event}");
        }
    }
}

/// A command counts as done only once its own events are accepted.
#[test]
fn a_command_is_done_behind_its_events() {
    let mut worker = worker(vec![command(3, "battle.command.start", "{}")], 0);
    assert_eq!(worker.turn(NOW, WallMillis(0)), Monotonic::NEVER);
    assert_eq!((worker.bus.done, worker.bus.events.len()), (0, 0));
    worker.bus.room_for = 1;
    worker.turn(NOW, WallMillis(0));
    assert_eq!((worker.bus.done, worker.bus.events.len()), (1, 1));
}

/// Commands count as done once the bus has accepted their events; what it has not is given again, in order, before
/// anything newer.
#[test]
fn what_the_bus_gives_back_is_given_again() {
    let commands = (1..=3).map(|id| command(id, "battle.command.start", "{}")).collect();
    let mut worker = worker(commands, 100);
    worker.bus.later = true;
    worker.turn(NOW, WallMillis(0));
    assert_eq!((worker.bus.given, worker.bus.done), (3, 0));
    worker.bus.ended.push(Completed { ticket: Ticket(1), outcome: Ok(()) });
    for ticket in [2, 3] {
        worker.bus.ended.push(Completed { ticket: Ticket(ticket), outcome: Err(ErrorCode::Unavailable) });
    }
    worker.turn(NOW, WallMillis(0));
    let events = &worker.bus.events;
    assert_eq!((events.len(), &events[1..3], worker.bus.done), (5, &events[3..5], 0));
    for ticket in [4, 5] {
        worker.bus.ended.push(Completed { ticket: Ticket(ticket), outcome: Ok(()) });
    }
    worker.turn(NOW, WallMillis(0));
    assert_eq!(worker.bus.done, 3);
}

/// After a restart, cut off anywhere, the events that were not yet accepted follow, those that were do not come again,
/// and a command is answered as it was: the battle that ended before it had ended then, too.
#[test]
fn a_restart_goes_on_where_it_was_cut_off() {
    // Accepted at 0, 100 and 200 ms: the second battle of the room begins when the first, of 30 ms, is over.
    let commands = vec![start(1, "a", 4, 10), start(2, "a", 5, 10), start(3, "b", 300, 0)];
    let whole = {
        let mut worker = worker(commands.clone(), 10_000).recover(WallMillis(300), 1);
        let now = NOW + Duration::from_secs(10);
        while worker.turn(now, WallMillis(300)) <= now {}
        worker.bus.events
    };
    assert_eq!(whole.len(), 5 + 6 + 301);
    let timeless = |event: &String| event.replacen(r#""timestamp":"1970-01-01T00:00:00.300Z""#, "", 1);
    for cut in [0, 1, 3, 5, 8, 11, 100, 311, 312] {
        let bus =
            Scarce { commands: commands.clone(), events: whole[..cut].to_vec(), room_for: 10_000, ..Scarce::default() };
        let mut worker = ServiceWorker::new(bus, 1).recover(WallMillis(300), 1);
        let now = NOW + Duration::from_secs(10);
        while worker.turn(now, WallMillis(300)) <= now {}
        assert!(worker.bus.events.iter().map(timeless).eq(whole.iter().map(timeless)), "cut at {cut}");
    }
}
