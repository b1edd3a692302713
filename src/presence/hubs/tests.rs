//! What hubs keep, tell and forget, also over a restart and when the store fails.

use std::collections::BTreeMap;
use std::sync::Mutex;

use proptest::prelude::*;

use super::*;
use crate::id::{ConnAddr, EventId};
use crate::ports::ChatMessage;
use crate::time::WallMillis;

const WINDOW: Duration = Duration::from_secs(400);

fn at(seconds: u64) -> Monotonic {
    Monotonic::ZERO + Duration::from_secs(seconds)
}

fn creation(n: u64, max_players: u32) -> CreateHub {
    let codes = std::array::from_fn(|k| RoomCode::of(n + k as u64));
    let (room, player) = (format!("r{n}").into(), format!("p{n}").into());
    CreateHub { from: ConnAddr::NOBODY, room, player, name: "Ann".into(), max_players, codes }
}

fn joining(code: RoomCode, player: &str) -> JoinHub {
    JoinHub { from: ConnAddr::NOBODY, code, player: player.into(), name: player.into() }
}

fn message(place: u64, text: &str) -> HubMessage {
    HubMessage { place, payload: format!("{{\"message\":\"{text}\",\"sent_at\":\"{text}\"}}").into() }
}

/// A store whose writes can be made to fail, shared with the test.
#[derive(Clone, Default)]
struct Shelf(Arc<Mutex<Books>>);

#[derive(Default)]
struct Books {
    records: BTreeMap<String, Vec<u8>>,
    messages: Vec<ChatMessage>,
    fails: bool,
}

impl Store for Shelf {
    fn load(&mut self, service: &str) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        assert_eq!(service, SERVICE);
        Ok(self.0.lock().unwrap().records.clone().into_iter().collect())
    }

    fn write(&mut self, batch: &[Write]) -> Result<(), StoreError> {
        let mut books = self.0.lock().unwrap();
        if books.fails {
            return Err(StoreError { place: "shelf".into(), cause: "full".into(), lost: false });
        }
        for write in batch {
            match write {
                Write::Put { key, value, .. } => _ = books.records.insert((**key).to_owned(), value.to_vec()),
                Write::Remove { key, .. } => _ = books.records.remove(&**key),
                other => panic!("{other:?}"),
            }
        }
        Ok(())
    }

    fn messages(&mut self, room: &str, max: usize) -> Result<Vec<ChatMessage>, StoreError> {
        let books = self.0.lock().unwrap();
        let found: Vec<_> = books.messages.iter().filter(|message| &*message.room == room).cloned().collect();
        Ok(found[found.len().saturating_sub(max)..].to_vec())
    }
}

/// A full hub takes nobody, until a player without session has been gone for a window; that one's place is given on.
#[test]
fn places_are_given_on() {
    let mut hubs = Hubs::new(WINDOW, 1);
    let (room, code) = hubs.create(at(0), &creation(1, 2)).unwrap();
    hubs.join(at(1), &joining(code, "bob"), |_| false).unwrap();
    assert_eq!(hubs.join(at(2), &joining(code, "eve"), |_| false), Err(ErrorCode::RoomFull));
    assert!(hubs.enter(at(2), &room, "bob") && !hubs.enter(at(2), &room, "eve"));
    assert_eq!(hubs.join(at(401), &joining(code, "eve"), |player| player == "p1"), Err(ErrorCode::RoomFull));
    assert!(hubs.join(at(401), &joining(code, "eve"), |_| false).is_ok(), "the first is gone longest");
    assert!(!hubs.enter(at(401), &room, "p1") && hubs.enter(at(401), &room, "eve"));
    let mut changes = Vec::new();
    hubs.changes(&mut changes);
    let last = HubChange::Enrolled { room, player: "eve".into(), name: "eve".into(), in_place_of: Some("p1".into()) };
    assert_eq!(changes.last(), Some(&last));
    assert_eq!(hubs.join(at(401), &joining(RoomCode::of(99), "x"), |_| false), Err(ErrorCode::RoomNotFound));
}

/// A code that is taken is drawn anew; when all that were drawn are, nothing is made.
#[test]
fn codes_name_one_hub() {
    let mut hubs = Hubs::new(WINDOW, 1);
    let mut made = |n: u64| hubs.create(at(0), &CreateHub { room: format!("x{n}").into(), ..creation(7, 2) });
    let codes: BTreeSet<_> = (0..4).map(|n| made(n).unwrap().1).collect();
    assert_eq!(codes.len(), 4);
    assert_eq!(hubs.create(at(0), &creation(7, 2)), Err(ErrorCode::Unavailable));
    assert_eq!(hubs.sizes().0, 4);
}

/// A hub lives while a player of it has a session and a while longer, less than a window; nothing of it is left then.
#[test]
fn unused_hubs_end() {
    let mut hubs = Hubs::new(WINDOW, 1);
    let (room, code) = hubs.create(at(0), &creation(1, 2)).unwrap();
    hubs.said(&room, message(1, "a"));
    let mut now = Monotonic::ZERO;
    while now < at(10_000) {
        now = hubs.next();
        hubs.poll(now, |player| player == "p1");
    }
    assert!(hubs.find(code).is_some());
    let left = now;
    while hubs.find(code).is_some() {
        now = hubs.next();
        hubs.poll(now, |_| false);
    }
    assert!(now.since(left) >= WINDOW / 4 && now.since(left) < WINDOW, "{:?}", now.since(left));
    assert_eq!((hubs.sizes(), hubs.next()), ((0, 0), Monotonic::NEVER));
    assert!(hubs.codes.is_empty() && hubs.oldest.is_empty());
    hubs.said(&room, message(2, "b"));
    assert_eq!(hubs.sizes(), (0, 0));
}

/// What is in the store comes back, with its messages, which the log's are fitted to: each once, in order. A write that
/// fails makes nothing and takes nothing.
#[test]
fn hubs_come_back() {
    let shelf = Shelf::default();
    let open = || {
        let mut hubs = Hubs::new(WINDOW, 1);
        hubs.keep_in(at(0), Box::new(shelf.clone())).unwrap();
        hubs
    };
    let mut hubs = open();
    let (room, code) = hubs.create(at(0), &creation(1, 2)).unwrap();
    shelf.0.lock().unwrap().fails = true;
    assert_eq!(hubs.join(at(0), &joining(code, "bob"), |_| false), Err(ErrorCode::Unavailable));
    assert_eq!(hubs.create(at(0), &creation(50, 2)), Err(ErrorCode::Unavailable));
    assert_eq!((hubs.sizes().0, hubs.find(code).unwrap().players.len()), (1, 1));
    shelf.0.lock().unwrap().fails = false;
    hubs.join(at(0), &joining(code, "bob"), |_| false).unwrap();
    for n in 0..60u8 {
        shelf.0.lock().unwrap().messages.push(ChatMessage {
            id: EventId([n; 16]),
            room: "r1".into(),
            sender: "p1".into(),
            sender_name: "Ann".into(),
            message: n.to_string().into(),
            at: WallMillis(u64::from(n)),
        });
    }
    let before = hubs.find(code);
    let mut hubs = open();
    assert_eq!(hubs.find(code), before);
    let kept = hubs.state(&room, |_| false).messages;
    assert_eq!(kept.len(), limits::HUB_MESSAGES);
    // The log has them from the sixth on, and two that the store was not given before the crash.
    let payload = |n: u8| {
        let sent_at = WallMillis(u64::from(n)).rfc3339();
        format!("{{\"player_id\":\"p1\",\"display_name\":\"Ann\",\"message\":\"{n}\",\"sent_at\":\"{sent_at}\"}}")
    };
    for n in 5..62 {
        hubs.said(&room, HubMessage { place: 100 + u64::from(n), payload: payload(n).into() });
    }
    let after = hubs.state(&room, |_| false).messages;
    let expected: Vec<_> =
        (12..62).map(|n| HubMessage { place: 100 + u64::from(n), payload: payload(n).into() }).collect();
    assert_eq!(after, expected);
    let mut changes = Vec::new();
    hubs.changes(&mut changes);
    assert_eq!(changes.len(), 3, "the service is told of the hub and both players again");
    hubs.poll(at(10_000), |_| false);
    assert!(shelf.0.lock().unwrap().records.is_empty());
}

proptest! {
    /// Whatever is said where, and however often it is heard: each hub keeps its newest messages within the bounds, in
    /// order, and the sums are right.
    #[test]
    fn messages_are_bounded(said in prop::collection::vec((0u64..4, 1usize..9000), 0..150)) {
        let mut hubs = Hubs::new(WINDOW, 1);
        for n in 0..3 {
            hubs.create(at(0), &creation(10 * n, 2)).unwrap();
        }
        for (place, (room, bytes)) in (1..).zip(said) {
            let message = message(place, &"x".repeat(bytes));
            let room = format!("r{}", 10 * room);
            hubs.said(&room, message.clone());
            hubs.said(&room, message);
        }
        let mut sum = 0;
        for hub in hubs.hubs.values() {
            let bytes: usize = hub.messages.iter().map(|message| message.payload.len()).sum();
            prop_assert!(hub.messages.len() <= limits::HUB_MESSAGES && bytes <= limits::HUB_MESSAGES_BYTES);
            prop_assert_eq!(bytes, hub.message_bytes);
            prop_assert!(hub.messages.iter().is_sorted_by(|a, b| a.place < b.place));
            sum += bytes;
        }
        prop_assert_eq!(sum, hubs.sizes().1);
        let listed = hubs.hubs.values().filter(|hub| !hub.messages.is_empty()).count();
        prop_assert_eq!(listed, hubs.oldest.len());
    }
}
