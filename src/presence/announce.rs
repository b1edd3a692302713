//! Who comes and goes, said on the bus: `gateway.presence` (PROTOCOLS A).
//!
//! Laws: every `connected` that was said is followed by a `disconnected`; what is said has an id of its own, kept however
//! often the bus refuses it. What waits for the bus is state, never a queue (DELIVERY §5): who came and went while it
//! waited is not said at all, so that it is bounded by the connections there are and those whose `connected` was said.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt;
use std::sync::Arc;

use foldhash::quality::FixedState;
use serde::Serialize;

use crate::id::{ConnAddr, ConnectionId, EventId, SessionId};
use crate::limits;
use crate::message::{Append, ErrorCode, GatewayLife, HubChange, PresenceChange, PresenceKind};
use crate::ports::{Accepted, Bus, Completed, Ticket};
use crate::time::WallMillis;

/// Says changes on a bus. See the module.
pub struct Announcer {
    bus: Box<dyn Bus>,
    gateway_id: String,
    topic: Arc<str>,
    rooms_topic: Arc<str>,
    /// Changes there were; orders what waits.
    counter: u64,
    waiting: BTreeMap<u64, Waiting>,
    /// What the rooms service is to be told of hubs, in order, with its place among the changes.
    hubs: VecDeque<(u64, Append)>,
    /// Given to the bus and not yet accepted, in order.
    unconfirmed: VecDeque<(Ticket, Given)>,
    completed: Vec<Completed>,
    by_subject: HashMap<Subject, u64, FixedState>,
}

/// What was given to the bus.
enum Given {
    Change(u64, Waiting),
    Hub(u64, Append),
}

/// A change that the bus has not taken.
struct Waiting {
    change: PresenceChange,
    /// Whether the bus was told that its subject is there: else a departure need not be told either.
    known: bool,
}

/// What a change is about: of two that wait, the later one counts.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
enum Subject {
    Connection(GatewayLife, ConnAddr),
    Member(SessionId, Arc<str>),
}

impl Announcer {
    /// Says what changes on this gateway; `seed` is that of the hashes.
    #[must_use]
    pub fn new(bus: Box<dyn Bus>, gateway_id: String, seed: u64) -> Self {
        Self {
            bus,
            gateway_id,
            topic: TOPIC.into(),
            rooms_topic: ROOMS_TOPIC.into(),
            counter: 0,
            waiting: BTreeMap::new(),
            hubs: VecDeque::new(),
            unconfirmed: VecDeque::new(),
            completed: Vec::new(),
            by_subject: HashMap::with_hasher(FixedState::with_seed(seed)),
        }
    }

    /// Changes that the bus has not taken yet.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.len() + self.hubs.len()
    }

    /// Whether the bus has accepted all there was to say.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.waiting() == 0 && self.unconfirmed.is_empty()
    }

    /// Records of hubs that the bus has not taken yet.
    #[must_use]
    pub fn hubs_waiting(&self) -> usize {
        self.hubs.len()
    }

    /// Says these changes of hubs, behind what was to be said before them. The rooms service reads two topics, between
    /// which there is no order: it hears of a hub in each, before anything that concerns the hub.
    pub fn announce_hubs(&mut self, wall: WallMillis, changes: impl Iterator<Item = HubChange>) {
        for change in changes {
            for (topic, module) in [(&self.topic, TOPIC), (&self.rooms_topic, ROOMS)] {
                self.counter += 1;
                self.hubs.push_back((self.counter, hub_record(wall, topic, module, &change)));
            }
        }
        self.give(wall);
    }

    /// Says these changes and those that wait, as far as the bus takes them.
    pub fn announce(&mut self, wall: WallMillis, changes: impl Iterator<Item = PresenceChange>) {
        for change in changes {
            self.put(change);
        }
        self.give(wall);
    }

    fn give(&mut self, wall: WallMillis) {
        self.confirm();
        while self.unconfirmed.len() < limits::BUS_PENDING {
            let hub = self.hubs.front().map(|(counter, _)| *counter);
            let change = self.waiting.first_key_value().map(|(counter, _)| *counter);
            let taken = match (hub, change) {
                (Some(hub), change) if change.is_none_or(|change| hub < change) => self.give_hub(wall),
                (_, Some(_)) => self.give_change(wall),
                (_, None) => return,
            };
            if !taken {
                return;
            }
        }
    }

    /// Whether the bus took what is first to be said of hubs.
    fn give_hub(&mut self, wall: WallMillis) -> bool {
        let Some((_, append)) = self.hubs.front() else { return false };
        let outcome = self.bus.append(wall, append);
        if outcome == Err(ErrorCode::Unavailable) {
            return false;
        }
        let Some((counter, append)) = self.hubs.pop_front() else { return false };
        match outcome {
            Ok(Accepted::Now) => {}
            Ok(Accepted::Pending(ticket)) => self.unconfirmed.push_back((ticket, Given::Hub(counter, append))),
            Err(code) => tracing::error!(code = code.name(), "the bus refused a hub's record for good"),
        }
        true
    }

    /// Whether the bus took the first change.
    fn give_change(&mut self, wall: WallMillis) -> bool {
        let Some((&counter, Waiting { change, .. })) = self.waiting.first_key_value() else { return false };
        let outcome = self.bus.append(wall, &self.record(wall, change));
        if outcome == Err(ErrorCode::Unavailable) {
            return false;
        }
        let subject = subject(change);
        if self.by_subject.get(&subject) == Some(&counter) {
            self.by_subject.remove(&subject);
        }
        let Some((_, said)) = self.waiting.pop_first() else { return false };
        match outcome {
            Ok(Accepted::Now) => {}
            Ok(Accepted::Pending(ticket)) => self.unconfirmed.push_back((ticket, Given::Change(counter, said))),
            Err(code) => tracing::error!(code = code.name(), "the bus refused a presence record for good"),
        }
        true
    }

    /// Takes note of what the bus has accepted; what it has not waits again, in its old place and under its old id.
    fn confirm(&mut self) {
        self.bus.completed(&mut self.completed);
        let mut refused = false;
        for Completed { ticket, outcome } in self.completed.drain(..) {
            refused |= outcome.is_err();
            if refused {
                break;
            }
            let confirmed = self.unconfirmed.pop_front();
            debug_assert!(confirmed.is_some_and(|(expected, _)| expected == ticket), "completed in order");
        }
        if refused {
            // Not by subject: a later change of it counts on this one's having been said.
            for (_, given) in self.unconfirmed.drain(..).rev() {
                match given {
                    Given::Change(counter, said) => _ = self.waiting.insert(counter, said),
                    Given::Hub(counter, append) => self.hubs.push_front((counter, append)),
                }
            }
        }
    }

    fn put(&mut self, change: PresenceChange) {
        if change.again {
            self.counter += 1;
            self.waiting.insert(self.counter, Waiting { change, known: true });
            return;
        }
        let subject = subject(&change);
        let departs = matches!(change.kind, PresenceKind::Disconnected(_) | PresenceKind::Left(_));
        let unsaid = self.by_subject.remove(&subject).and_then(|counter| self.waiting.remove(&counter));
        // Changes of a subject alternate, so the first that waits tells what was said before.
        let known = unsaid.map_or(departs, |unsaid| unsaid.known);
        if departs && !known {
            return;
        }
        self.counter += 1;
        self.by_subject.insert(subject, self.counter);
        self.waiting.insert(self.counter, Waiting { change, known });
    }

    fn record(&self, wall: WallMillis, change: &PresenceChange) -> Append {
        let PresenceChange { life, connection, number, session, user, username, kind, gateway, again: _ } = change;
        let connection = ConnectionId::of(life.nonce, *connection);
        let gateway_id = gateway.as_deref().unwrap_or(&self.gateway_id);
        let (name, room_id, reason) = match kind {
            PresenceKind::Connected => ("connected", None, None),
            PresenceKind::Disconnected(reason) => ("disconnected", None, Some(*reason)),
            PresenceKind::Joined(room) => ("joined", Some(&**room), None),
            PresenceKind::Left(room) => ("left", Some(&**room), None),
        };
        let room = room_id.unwrap_or_default().as_bytes();
        let (incarnation, number) = (life.incarnation.to_be_bytes(), number.to_be_bytes());
        let id = EventId::v5(&connection.0, &[&incarnation, name.as_bytes(), b"\0", room, b"\0", &number]);
        let (connection_id, session_id) = (connection.to_string(), session.to_string());
        let payload = Payload {
            kind: name,
            connection_id: &connection_id,
            session_id: &session_id,
            user_id: user,
            gateway_id,
            room_id,
            reason: reason.map(|reason| reason.row().label),
        };
        let envelope = Envelope {
            event_id: id.to_string(),
            event_type: format!("{TOPIC}.{name}"),
            timestamp: wall.rfc3339(),
            gateway_id,
            session_id: &session_id,
            user: User { user_id: user, username },
            payload,
        };
        Append {
            from: ConnAddr::NOBODY,
            correlation: 0,
            topic: Arc::clone(&self.topic),
            key: session_id.as_bytes().into(),
            value: simd_json::to_vec(&envelope).expect("plain text is always JSON").into(),
        }
    }
}

impl fmt::Debug for Announcer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Announcer").field("waiting", &self.waiting.len()).finish_non_exhaustive()
    }
}

fn subject(change: &PresenceChange) -> Subject {
    match &change.kind {
        PresenceKind::Connected | PresenceKind::Disconnected(_) => Subject::Connection(change.life, change.connection),
        PresenceKind::Joined(room) | PresenceKind::Left(room) => Subject::Member(change.session, Arc::clone(room)),
    }
}

/// `<module>.opened` or `<module>.enrolled`, under an id that is the same whenever it is said.
fn hub_record(wall: WallMillis, topic: &Arc<str>, module: &str, change: &HubChange) -> Append {
    let (name, room, player, payload) = match change {
        HubChange::Opened { room, code, max_players } => {
            let payload =
                HubPayload { code: Some(code.as_str()), max_players: Some(*max_players), ..HubPayload::of(room) };
            ("opened", room, "", payload)
        }
        HubChange::Enrolled { room, player, name, in_place_of } => {
            let (player_id, in_place_of) = (Some(&**player), in_place_of.as_deref());
            let payload = HubPayload { player_id, display_name: Some(name), in_place_of, ..HubPayload::of(room) };
            ("enrolled", room, &**player, payload)
        }
    };
    let id = EventId::v5(&HUBS, &[name.as_bytes(), b"\0", room.as_bytes(), b"\0", player.as_bytes()]);
    let envelope = HubEnvelope {
        event_id: id.to_string(),
        event_type: format!("{module}.{name}"),
        timestamp: wall.rfc3339(),
        payload: HubPayload { kind: name, ..payload },
    };
    Append {
        from: ConnAddr::NOBODY,
        correlation: 0,
        topic: Arc::clone(topic),
        key: room.as_bytes().into(),
        value: simd_json::to_vec(&envelope).expect("plain text is always JSON").into(),
    }
}

#[derive(Serialize)]
struct HubEnvelope<'a> {
    event_id: String,
    event_type: String,
    timestamp: String,
    payload: HubPayload<'a>,
}

#[derive(Serialize)]
struct HubPayload<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    room_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_players: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    player_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    display_name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    in_place_of: Option<&'a str>,
}

impl<'a> HubPayload<'a> {
    fn of(room_id: &'a str) -> Self {
        let (code, max_players, player_id, display_name, in_place_of) = (None, None, None, None, None);
        Self { kind: "", room_id, code, max_players, player_id, display_name, in_place_of }
    }
}

#[derive(Serialize)]
struct Envelope<'a> {
    event_id: String,
    event_type: String,
    timestamp: String,
    gateway_id: &'a str,
    session_id: &'a str,
    user: User<'a>,
    payload: Payload<'a>,
}

#[derive(Serialize)]
struct User<'a> {
    user_id: &'a str,
    username: &'a str,
}

#[derive(Serialize)]
struct Payload<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    connection_id: &'a str,
    session_id: &'a str,
    user_id: &'a str,
    gateway_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    room_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
}

/// Also the module in front of the records' types.
const TOPIC: &str = "gateway.presence";
/// Where commands for hubs go, and the module in front of their types.
const ROOMS_TOPIC: &str = "rooms.commands";
const ROOMS: &str = "rooms.command";
/// Namespace of the ids of what is said of hubs.
const HUBS: [u8; 16] = *b"ringgate hubs\0\0\0";

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use proptest::prelude::*;

    use super::*;
    use crate::close::CloseReason;
    use crate::id::{ConnKey, NodeId, RoomCode};
    use crate::ports::{Durability, Record};

    #[derive(Default)]
    struct Shared {
        records: Vec<String>,
        room_for: usize,
    }

    /// A bus that takes as many records as it is allowed to.
    struct Scarce(Arc<Mutex<Shared>>);

    impl Bus for Scarce {
        fn durability(&self) -> Durability {
            Durability::Memory
        }

        fn epoch(&self, _topic: &str) -> u64 {
            1
        }

        fn append(&mut self, _now: WallMillis, append: &Append) -> Result<Accepted, ErrorCode> {
            let mut shared = self.0.lock().unwrap();
            shared.room_for = shared.room_for.checked_sub(1).ok_or(ErrorCode::Unavailable)?;
            shared.records.push(String::from_utf8(append.value.to_vec()).unwrap());
            Ok(Accepted::Now)
        }

        fn completed(&mut self, _out: &mut Vec<Completed>) {}

        fn range(&self, _topic: &str) -> (u64, u64) {
            (0, 0)
        }

        fn since(&self, _topic: &str, _since: WallMillis) -> u64 {
            0
        }

        fn read(&mut self, _topic: &str, offset: u64, _max: usize, _out: &mut Vec<Record>) -> u64 {
            offset
        }

        fn done(&mut self, _topic: &str, _offset: u64) {}
    }

    fn rig() -> (Announcer, Arc<Mutex<Shared>>) {
        let shared = Arc::new(Mutex::new(Shared { room_for: usize::MAX, ..Shared::default() }));
        (Announcer::new(Box::new(Scarce(Arc::clone(&shared))), "gw:1".into(), 1), shared)
    }

    fn change(slot: u32, number: u64, kind: PresenceKind) -> PresenceChange {
        let connection = ConnAddr { shard: NodeId(0), conn: ConnKey { slot, generation: 1 } };
        let session = SessionId([slot as u8; 16]);
        let life = GatewayLife { nonce: 7, incarnation: 3 };
        let (gateway, user, username) = (None, "u".into(), "U".into());
        PresenceChange { gateway, life, connection, number, session, user, username, kind, again: false }
    }

    /// A departure that another gateway says of a connection is the record by which its own gateway says it.
    #[test]
    fn a_reaper_says_it_under_the_same_id() {
        let gone = || change(1, 0, PresenceKind::Disconnected(CloseReason::ConnectionLost));
        let (mut own, said) = rig();
        own.announce(WallMillis(5), std::iter::once(gone()));
        let reaped = Arc::new(Mutex::new(Shared { room_for: usize::MAX, ..Shared::default() }));
        let mut reaper = Announcer::new(Box::new(Scarce(Arc::clone(&reaped))), "gw:2".into(), 1);
        let gone = PresenceChange { gateway: Some("gw:1".into()), ..gone() };
        reaper.announce(WallMillis(5), std::iter::once(gone));
        assert_eq!(said.lock().unwrap().records[0], reaped.lock().unwrap().records[0]);
    }

    /// A record names connection, session, user, gateway, room and reason, under an id of its own.
    #[test]
    fn a_change_becomes_a_record() {
        let (mut announcer, shared) = rig();
        let kinds = [
            PresenceKind::Connected,
            PresenceKind::Joined("arena".into()),
            PresenceKind::Left("arena".into()),
            PresenceKind::Joined("arena".into()),
            PresenceKind::Disconnected(CloseReason::ConnectionLost),
        ];
        for (number, kind) in (1..).zip(kinds) {
            announcer.announce(WallMillis(5), std::iter::once(change(1, number, kind)));
        }
        let records = std::mem::take(&mut shared.lock().unwrap().records);
        let expected = r#""event_type":"gateway.presence.joined","timestamp":"1970-01-01T00:00:00.005Z","gateway_id":"gw:1","session_id":"01010101-0101-0101-0101-010101010101","user":{"user_id":"u","username":"U"},"payload":{"type":"joined","connection_id":"00000000-0000-0007-0000-000100000001","session_id":"01010101-0101-0101-0101-010101010101","user_id":"u","gateway_id":"gw:1","room_id":"arena"}}"#;
        assert!(records[1].ends_with(expected), "{}", records[1]);
        assert!(records[4].ends_with(r#""gateway_id":"gw:1","reason":"connection_lost"}}"#), "{}", records[4]);
        let ids: std::collections::BTreeSet<_> = records.iter().map(|record| record[..52].to_owned()).collect();
        assert_eq!(ids.len(), 5);
    }

    /// Who left a hub is said to have gone before who gets the place is enrolled, however late the bus takes both.
    #[test]
    fn departures_come_before_the_next_enrolment() {
        let (mut announcer, shared) = rig();
        let enrolled = |player: &str, place: Option<&str>| HubChange::Enrolled {
            room: "r".into(),
            player: player.into(),
            name: player.into(),
            in_place_of: place.map(Into::into),
        };
        announcer.announce(WallMillis(5), std::iter::once(change(1, 1, PresenceKind::Connected)));
        shared.lock().unwrap().room_for = 0;
        let gone = change(1, 2, PresenceKind::Disconnected(CloseReason::Kicked));
        announcer.announce(WallMillis(5), std::iter::once(gone));
        announcer.announce_hubs(WallMillis(5), std::iter::once(enrolled("q", Some("p"))));
        announcer.announce(WallMillis(5), std::iter::once(change(2, 1, PresenceKind::Connected)));
        shared.lock().unwrap().room_for = usize::MAX;
        announcer.announce(WallMillis(6), std::iter::empty());
        let types = ["connected", "disconnected", "presence.enrolled", "command.enrolled", "connected"];
        let records = &shared.lock().unwrap().records;
        assert_eq!(records.len(), types.len());
        for (record, event_type) in records.iter().zip(types) {
            assert!(record.contains(&format!("{event_type}\",\"timestamp\"")), "{record}");
        }
    }

    /// What is said again for a former process is said in full and in order, however long the bus refuses it: nobody knows
    /// what of it was heard.
    #[test]
    fn what_is_said_again_is_not_left_out() {
        let (mut announcer, shared) = rig();
        shared.lock().unwrap().room_for = 0;
        let kinds = [
            PresenceKind::Connected,
            PresenceKind::Joined("r".into()),
            PresenceKind::Left("r".into()),
            PresenceKind::Disconnected(CloseReason::Restart),
        ];
        let again = kinds.map(|kind| PresenceChange { again: true, ..change(1, 1, kind) });
        announcer.announce(WallMillis(5), again.into_iter());
        // The same session comes back, and goes before anybody heard of it.
        announcer.announce(WallMillis(5), std::iter::once(change(2, 2, PresenceKind::Connected)));
        let gone = PresenceKind::Disconnected(CloseReason::Normal);
        announcer.announce(WallMillis(5), std::iter::once(change(2, 2, gone)));
        shared.lock().unwrap().room_for = usize::MAX;
        assert!(!announcer.is_done());
        announcer.announce(WallMillis(6), std::iter::empty());
        assert!(announcer.is_done());
        let records = std::mem::take(&mut shared.lock().unwrap().records);
        let types = ["connected", "joined", "left", "disconnected"];
        assert_eq!(records.len(), types.len());
        for (record, name) in records.iter().zip(types) {
            assert!(record.contains(&format!("gateway.presence.{name}\"")), "{record}");
        }
    }

    /// Of a hub both topics are told, in order, before anybody is said to be in it, however late the bus takes it; what is
    /// said again has its old id.
    #[test]
    fn hubs_come_before_their_players() {
        let (mut announcer, shared) = rig();
        let opened = || HubChange::Opened { room: "r".into(), code: RoomCode::of(0), max_players: 3 };
        let enrolled = || HubChange::Enrolled {
            room: "r".into(),
            player: "p".into(),
            name: "P".into(),
            in_place_of: Some("q".into()),
        };
        shared.lock().unwrap().room_for = 1;
        announcer.announce_hubs(WallMillis(5), [opened(), enrolled()].into_iter());
        announcer.announce(WallMillis(5), std::iter::once(change(1, 1, PresenceKind::Joined("r".into()))));
        assert_eq!((announcer.hubs_waiting(), announcer.waiting()), (3, 4));
        shared.lock().unwrap().room_for = usize::MAX;
        announcer.announce(WallMillis(6), std::iter::empty());
        assert_eq!(announcer.waiting(), 0);
        let records = std::mem::take(&mut shared.lock().unwrap().records);
        let types =
            ["gateway.presence.opened", "rooms.command.opened", "gateway.presence.enrolled", "rooms.command.enrolled"];
        for (record, event_type) in records.iter().zip(types) {
            assert!(record.contains(&format!("\"event_type\":\"{event_type}\"")), "{record}");
        }
        let payload = r#""payload":{"type":"opened","room_id":"r","code":"AAAAAA","max_players":3}}"#;
        assert!(records[0].ends_with(payload), "{}", records[0]);
        let payload =
            r#""payload":{"type":"enrolled","room_id":"r","player_id":"p","display_name":"P","in_place_of":"q"}}"#;
        assert!(records[3].ends_with(payload), "{}", records[3]);
        assert!(records[4].contains("gateway.presence.joined"));
        announcer.announce_hubs(WallMillis(9), std::iter::once(opened()));
        assert_eq!(shared.lock().unwrap().records[0][..50], records[0][..50], "the same id");
    }

    proptest! {
        /// Whatever the bus refuses and when: in the end consumers know who is there, each `connected` is followed by its
        /// `disconnected`, and what waits is bounded by the connections and rooms there are or were said to be.
        #[test]
        fn the_bus_learns_the_truth(steps in proptest::collection::vec((0u32..4, 0usize..4, 0usize..3), 1..80)) {
            let (mut announcer, shared) = rig();
            shared.lock().unwrap().room_for = 0;
            let mut there = [false; 4];
            let mut member = [false; 4];
            let mut generation = [0u32; 4];
            for (number, (slot, act, room_for)) in (1..).zip(steps) {
                let at = slot as usize;
                let kind = match act {
                    0 | 1 => {
                        there[at] = !there[at];
                        generation[at] += u32::from(there[at]);
                        if there[at] { PresenceKind::Connected } else { PresenceKind::Disconnected(CloseReason::Normal) }
                    }
                    _ if !there[at] => continue,
                    _ => {
                        member[at] = !member[at];
                        if member[at] { PresenceKind::Joined("r".into()) } else { PresenceKind::Left("r".into()) }
                    }
                };
                let mut change = change(slot, number, kind);
                change.connection.conn.generation = generation[at];
                shared.lock().unwrap().room_for = room_for;
                announcer.announce(WallMillis(1), std::iter::once(change));
                let said = shared.lock().unwrap().records.len();
                prop_assert!(announcer.waiting() <= 8 + said);
            }
            shared.lock().unwrap().room_for = usize::MAX;
            announcer.announce(WallMillis(1), std::iter::empty());
            prop_assert_eq!(announcer.waiting(), 0);
            let records = &shared.lock().unwrap().records;
            for slot in 0..4u32 {
                let session = format!("\"session_id\":\"{}\"", SessionId([slot as u8; 16]));
                let own: Vec<_> = records.iter().filter(|record| record.contains(&session)).collect();
                let open: i32 = own.iter().map(|record| match () {
                    () if record.contains("presence.connected") => 1,
                    () if record.contains("presence.disconnected") => -1,
                    () => 0,
                }).sum();
                prop_assert_eq!(open, i32::from(there[slot as usize]));
                let moved = own.iter().rev().find(|record| record.contains("\"room_id\""));
                let is_member = moved.is_some_and(|record| record.contains("presence.joined"));
                prop_assert_eq!(is_member, member[slot as usize]);
            }
        }
    }
}
