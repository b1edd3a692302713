//! What a restart changes of presence: nothing but what the law lets go.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use proptest::prelude::*;

use super::*;
use crate::message::{Kick, PresenceChange, PresenceKind, PresenceReply, PresenceRequest};
use crate::ports::{ChatMessage, Presence};
use crate::presence::EmbeddedPresence;
use crate::store::{SqliteStore, StoreSettings};

const WINDOW: Duration = Duration::from_secs(300);
/// The bus's numbering.
const LOG: u64 = 5;
/// What the wall clock says at the monotonic clock's zero.
const EPOCH_MS: u64 = 1_700_000_000_000;

/// A database that outlives its users, and may fail.
#[derive(Clone)]
struct Disk(Arc<Mutex<Platter>>);

struct Platter {
    store: SqliteStore,
    fails: bool,
    transactions: usize,
}

impl Disk {
    fn new() -> Self {
        let store = SqliteStore::open(&StoreSettings { file: None, messages_max: 1 }).unwrap();
        Self(Arc::new(Mutex::new(Platter { store, fails: false, transactions: 0 })))
    }

    fn rows(&self) -> BTreeMap<String, String> {
        let rows = self.0.lock().unwrap().store.load(SERVICE).unwrap();
        rows.into_iter().map(|(key, value)| (key, String::from_utf8(value).unwrap())).collect()
    }

    fn put(&self, service: &'static str, key: &str, value: &str) {
        let write = Write::Put { service, key: key.into(), value: value.as_bytes().into() };
        self.0.lock().unwrap().store.write(&[write]).unwrap();
    }

    fn alive(&self) -> u64 {
        let (_, mut value) = self.0.lock().unwrap().store.load(LIFE).unwrap().remove(0);
        simd_json::from_slice::<LifeRow>(&mut value).unwrap().alive
    }
}

impl Store for Disk {
    fn load(&mut self, service: &str) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        self.0.lock().unwrap().store.load(service)
    }

    fn write(&mut self, batch: &[Write]) -> Result<(), StoreError> {
        let mut platter = self.0.lock().unwrap();
        if platter.fails {
            return Err(StoreError { place: "here".into(), cause: "full".into(), lost: false });
        }
        platter.transactions += 1;
        platter.store.write(batch)
    }

    fn messages(&mut self, _room: &str, _max: usize) -> Result<Vec<ChatMessage>, StoreError> {
        Ok(Vec::new())
    }
}

fn at(seconds: u64) -> Monotonic {
    Monotonic::ZERO + Duration::from_secs(seconds)
}

fn wall(now: Monotonic) -> WallMillis {
    WallMillis(EPOCH_MS + now.as_nanos() / 1_000_000)
}

/// The presence of a gateway's life of this number.
fn start(disk: &Disk, now: Monotonic, life: u64) -> EmbeddedPresence {
    let presence = EmbeddedPresence::new(WINDOW, 10_000, 1).announcing(GatewayLife { nonce: life, incarnation: life });
    presence.keeping_sessions_in((now, wall(now)), LOG, Box::new(disk.clone())).unwrap()
}

fn conn(n: u32) -> ConnAddr {
    ConnAddr { shard: NodeId(1), conn: ConnKey { slot: n, generation: 3 } }
}

fn record(n: u8) -> SessionRecord {
    let position = |stream: &str| Position { stream: stream.into(), epoch: (1 << 53) - 1, place: u64::from(n) };
    SessionRecord {
        session: SessionId([n; 16]),
        user: "ü\"ser".into(),
        username: "Player One".into(),
        roles: ["user".into(), "publisher".into()].into(),
        expires_at: u64::MAX,
        scopes: vec![ScopeEntry {
            scope: Scope::User("ü\"ser".into()),
            entered: vec![position("system.events.0/user:ü\"ser")],
            admitted: false,
        }],
        acted: vec![position("games.events.0/session:x")],
        last_close: None,
    }
}

fn open(n: u8) -> PresenceRequest {
    PresenceRequest::Open { from: conn(u32::from(n)), record: Box::new(record(n)), token: TokenHash([n; 16]) }
}

fn resume(from: u32, n: u8) -> PresenceRequest {
    PresenceRequest::Resume { from: conn(from), user: None, token: TokenHash([n; 16]) }
}

fn detached(from: u32, n: u8, last_close: CloseReason) -> PresenceRequest {
    PresenceRequest::Detached { from: conn(from), session: SessionId([n; 16]), last_close }
}

fn entered(n: u8, room: &str, place: u64) -> PresenceRequest {
    let entered = vec![Position { stream: format!("games.events.0/room:{room}").into(), epoch: 5, place }];
    let entry = ScopeEntry { scope: Scope::Room(room.into()), entered, admitted: place > 4 };
    PresenceRequest::Entered { session: SessionId([n; 16]), entry }
}

fn ask(presence: &mut EmbeddedPresence, now: Monotonic, request: PresenceRequest) -> Vec<PresenceReply> {
    let mut replies = Vec::new();
    presence.handle(now, request, &mut replies);
    presence.settle(now, false);
    replies
}

fn resumed(replies: Vec<PresenceReply>) -> Option<SessionRecord> {
    match <[_; 1]>::try_from(replies).unwrap() {
        [PresenceReply::Resumed { record, .. }] => Some(*record),
        [PresenceReply::Expired { .. }] => None,
        [other] => panic!("{other:?}"),
    }
}

fn changes(presence: &mut EmbeddedPresence) -> Vec<PresenceChange> {
    let mut changes = Vec::new();
    presence.changes(&mut changes);
    changes
}

/// Everything of a record comes back, whatever its session was doing; what a former life's connection had becomes free, and
/// only who has its token gets it.
#[test]
fn records_come_back_whole() {
    let disk = Disk::new();
    let mut presence = start(&disk, at(0), 1);
    ask(&mut presence, at(0), open(1));
    ask(&mut presence, at(0), open(2));
    ask(&mut presence, at(1), entered(1, "arena", 9));
    ask(&mut presence, at(1), entered(2, "arena", 3));
    ask(&mut presence, at(2), detached(2, 2, CloseReason::SlowConsumer));
    drop(presence);
    let mut presence = start(&disk, at(3), 2);
    assert_eq!((presence.sessions(), presence.detached()), (2, 2));
    for (n, place, last_close) in [(1, 9, CloseReason::Restart), (2, 3, CloseReason::SlowConsumer)] {
        let mut expected = SessionRecord { last_close: Some(last_close), ..record(n) };
        let PresenceRequest::Entered { entry, .. } = entered(n, "arena", place) else { unreachable!() };
        expected.scopes.push(entry);
        assert_eq!(resumed(ask(&mut presence, at(3), resume(7, n))), Some(expected));
    }
    assert_eq!(resumed(ask(&mut presence, at(3), resume(7, 3))), None);
    assert!(disk.rows().values().all(|row| !row.contains("resume")));
}

/// Who had a connection lives a window from when the process was last surely alive; who had none, to the end that it had.
/// Time without a process counts, and what has expired leaves no row.
#[test]
fn windows_go_on_while_nobody_runs() {
    let disk = Disk::new();
    let mut presence = start(&disk, at(0), 1);
    ask(&mut presence, at(0), open(1));
    ask(&mut presence, at(0), open(2));
    ask(&mut presence, at(0), detached(2, 2, CloseReason::Normal));
    let mut now = at(0);
    while now < at(100) {
        now = presence.poll(now, &mut Vec::new());
        presence.settle(now, true);
    }
    drop(presence);
    for (down_until, living) in [(299, [true, true]), (301, [true, false]), (399, [true, false]), (401, [false; 2])] {
        let copy = Disk::new();
        disk.rows().iter().for_each(|(key, row)| copy.put(SERVICE, key, row));
        copy.put(
            LIFE,
            LIFE_KEY,
            &format!(r#"{{"schema":1,"log":{LOG},"alive":{},"told":0,"kicks":[]}}"#, disk.alive()),
        );
        let mut presence = start(&copy, at(down_until), 2);
        let found = [1, 2].map(|n| resumed(ask(&mut presence, at(down_until), resume(9, n))).is_some());
        assert_eq!(found, living, "down until {down_until}");
        changes(&mut presence);
        presence.settle(at(down_until), true);
        assert_eq!(copy.rows().len(), living.iter().filter(|living| **living).count());
    }
    assert!(disk.alive() >= wall(at(90)).0, "an idle process says that it lives");
}

/// Everything is told once: what a killed process may not have been heard to say is said again under its old
/// name, what it was heard to say is not, and the ends of connections that it never saw are said by its successor, by each until heard.
#[test]
fn changes_are_told_once() {
    let disk = Disk::new();
    let mut presence = start(&disk, at(0), 1);
    (1..=4).for_each(|n| _ = ask(&mut presence, at(0), open(n)));
    ask(&mut presence, at(1), detached(1, 1, CloseReason::Normal));
    changes(&mut presence);
    // The bus has it all.
    presence.settle(at(1), true);
    let due = self::due(&mut presence, at(1));
    presence.settle(due, true);
    ask(&mut presence, at(30), detached(2, 2, CloseReason::IdleTimeout));
    ask(&mut presence, at(30), PresenceRequest::Kick { user: "nobody".into(), event: None });
    ask(&mut presence, at(30), detached(3, 3, CloseReason::Kicked));
    ask(&mut presence, at(30), entered(4, "arena", 9));
    let unheard: Vec<_> = changes(&mut presence);
    assert_eq!(unheard.len(), 3);
    drop(presence);
    let said = |presence: &mut EmbeddedPresence| -> Vec<_> {
        let mut said = changes(presence);
        said.sort_by_key(|change| change.session);
        assert!(said.iter().all(|change| change.again));
        said
    };
    let mut presence = start(&disk, at(40), 2);
    let again = said(&mut presence);
    for (again, unheard) in again.iter().zip(&unheard) {
        assert_eq!(*again, PresenceChange { again: true, ..unheard.clone() }, "under the same names");
    }
    let PresenceChange { life, connection, number, kind, .. } = &again[3];
    let restart = PresenceKind::Disconnected(CloseReason::Restart);
    assert_eq!((*connection, life.nonce, kind), (conn(4), 1, &restart));
    assert!(*number > 0 && again.len() == 4);
    presence.settle(at(40), false);
    drop(presence);
    let mut presence = start(&disk, at(41), 3);
    assert_eq!(said(&mut presence), again, "nobody has heard it yet");
    presence.settle(at(41), true);
    drop(presence);
    assert_eq!(said(&mut start(&disk, at(60), 4)), []);
    assert_eq!(disk.rows().len(), 3, "the kicked session's row is gone");
}

/// Under another log nobody resumes into places that mean something else; whose connections they were is told all the same.
#[test]
fn another_log_ends_the_sessions() {
    let disk = Disk::new();
    let mut presence = start(&disk, at(0), 1);
    ask(&mut presence, at(0), open(1));
    drop(presence);
    let presence = EmbeddedPresence::new(WINDOW, 10_000, 1).announcing(GatewayLife::default());
    let log = LOG + 1;
    let mut presence = presence.keeping_sessions_in((at(1), wall(at(1))), log, Box::new(disk.clone())).unwrap();
    assert_eq!(resumed(ask(&mut presence, at(1), resume(7, 1))), None);
    let told: Vec<_> = changes(&mut presence).into_iter().map(|change| change.kind).collect();
    assert_eq!(told, [PresenceKind::Connected, PresenceKind::Disconnected(CloseReason::Restart)]);
    presence.settle(at(1), true);
    assert_eq!(disk.rows().len(), 0);
}

/// A kick that the former process did not live to carry out is carried out by its successor; one that it did does not end
/// a session that began behind it.
#[test]
fn kicks_are_carried_out_once() {
    let disk = Disk::new();
    let mut presence = start(&disk, at(0), 1);
    let kick = |place| Kick { user: "ü\"ser".into(), topic: "system.events".into(), place };
    ask(&mut presence, at(0), open(1));
    let Kick { user, topic, place } = kick(7);
    ask(&mut presence, at(1), PresenceRequest::Kick { user, event: Some((topic, place)) });
    ask(&mut presence, at(2), open(2));
    drop(presence);
    let mut presence = start(&disk, at(3), 2);
    presence.carry_out(at(3), vec![kick(3), kick(7)]);
    assert_eq!(presence.sessions(), 1);
    drop(presence);
    let mut presence = start(&disk, at(4), 3);
    presence.carry_out(at(4), vec![kick(7), kick(8)]);
    assert_eq!(presence.sessions(), 0);
    presence.settle(at(4), false);
    drop(presence);
    let mut presence = start(&disk, at(5), 4);
    presence.carry_out(at(5), vec![kick(8)]);
    assert_eq!(resumed(ask(&mut presence, at(5), resume(9, 2))), None);
}

/// When the store is due by itself.
fn due(presence: &mut EmbeddedPresence, now: Monotonic) -> Monotonic {
    let due = presence.poll(now, &mut Vec::new());
    assert!(due > now && due < now + Duration::from_secs(20));
    due
}

/// A record that does not read is left out and removed, its neighbours live; a store of another form is refused with what
/// to do, and left as it is.
#[test]
fn what_does_not_read_is_told() {
    let disk = Disk::new();
    let mut presence = start(&disk, at(0), 1);
    (1..=3).for_each(|n| _ = ask(&mut presence, at(0), open(n)));
    let key = SessionId([2; 16]).to_string();
    for broken in ["", "{", "[]", "{\"token\":\"x\"}", &disk.rows()[&key].replace("user:", "nobody:")] {
        disk.put(SERVICE, &key, broken);
        disk.put(SERVICE, "no id", "{}");
        let mut presence = start(&disk, at(1), 2);
        assert_eq!(presence.sessions(), 2, "{broken}");
        presence.settle(at(1), true);
        assert_eq!(disk.rows().len(), 2);
    }
    for (row, told) in [
        ("{\"schema\":2,\"log\":5,\"alive\":1,\"told\":1}", "of schema 2, this ringgate's is 1"),
        ("{", "does not read"),
    ] {
        disk.put(LIFE, LIFE_KEY, row);
        let presence = EmbeddedPresence::new(WINDOW, 10_000, 1);
        let error =
            presence.keeping_sessions_in((at(1), wall(at(1))), LOG, Box::new(disk.clone())).unwrap_err().to_string();
        assert!(error.contains(told) && error.contains("move the file away"), "{error}");
        assert_eq!(disk.rows().len(), 2);
    }
}

/// While the store fails sessions go on, and it is asked once a second; afterwards it has everything that is, and nothing
/// of what came and went.
#[test]
fn a_store_that_fails_catches_up() {
    let disk = Disk::new();
    let mut presence = start(&disk, at(0), 1);
    ask(&mut presence, at(0), open(1));
    disk.0.lock().unwrap().fails = true;
    ask(&mut presence, at(1), detached(1, 1, CloseReason::Normal));
    (2..60).for_each(|n| _ = ask(&mut presence, at(1), open(n)));
    ask(&mut presence, at(1), PresenceRequest::Kick { user: "ü\"ser".into(), event: None });
    ask(&mut presence, at(1), open(60));
    assert_eq!(presence.poll(at(1), &mut Vec::new()), at(2));
    presence.settle(at(2), true);
    disk.0.lock().unwrap().fails = false;
    presence.settle(at(2), true);
    assert_eq!(disk.rows().len(), 1, "not before a second has passed");
    changes(&mut presence);
    presence.settle(at(3), true);
    assert_eq!(disk.rows().into_keys().collect::<Vec<_>>(), [SessionId([60; 16]).to_string()]);
}

/// What is handled between two settlings is one transaction, a record that changed often is written once, one that came
/// and went not at all, and what changes nothing writes nothing.
#[test]
fn a_group_is_one_transaction() {
    let disk = Disk::new();
    let mut presence = start(&disk, at(0), 1);
    assert_eq!(presence.group(), crate::limits::PRESENCE_GROUP);
    let mut replies = Vec::new();
    for n in 1..=100 {
        presence.handle(at(0), open(n), &mut replies);
        presence.handle(at(0), entered(n, "arena", 9), &mut replies);
    }
    presence.handle(at(0), detached(100, 100, CloseReason::Kicked), &mut replies);
    presence.settle(at(0), true);
    let transactions = || disk.0.lock().unwrap().transactions;
    assert_eq!(transactions(), 1);
    ask(&mut presence, at(1), resume(200, 201));
    presence.settle(at(1), false);
    assert_eq!(transactions(), 1);
    changes(&mut presence);
    presence.settle(at(1), true);
    presence.settle(at(1), true);
    assert_eq!((transactions(), disk.rows().len()), (2, 99), "the kicked one's end is told, and its row goes");
}

/// A crowd that expires at once is forgotten at once, and removed from the store a part at a time, the peer coming back at
/// once for the rest; a restart in between brings nobody back.
#[test]
fn a_crowd_is_swept_in_parts() {
    const CROWD: u32 = limits::PRESENCE_SWEEP as u32 + 10;
    let disk = Disk::new();
    let mut presence = start(&disk, at(0), 1);
    let mut replies = Vec::new();
    for n in 0..CROWD {
        let mut session = [0; 16];
        session[..4].copy_from_slice(&n.to_be_bytes());
        let record = Box::new(SessionRecord { session: SessionId(session), ..record(1) });
        presence.handle(
            at(0),
            PresenceRequest::Open { from: conn(n), record, token: TokenHash(session) },
            &mut replies,
        );
        let (session, last_close) = (SessionId(session), CloseReason::Normal);
        presence.handle(at(0), PresenceRequest::Detached { from: conn(n), session, last_close }, &mut replies);
    }
    presence.settle(at(0), false);
    changes(&mut presence);
    presence.settle(at(0), true);
    assert_eq!(disk.rows().len() as u32, CROWD);
    presence.poll(at(300), &mut replies);
    presence.settle(at(300), true);
    assert_eq!((presence.sessions(), disk.rows().len()), (0, 10));
    assert_eq!(presence.poll(at(300), &mut replies), at(300));
    let mut again = start(&disk, at(301), 2);
    assert_eq!(again.sessions(), 0);
    again.settle(at(301), true);
    assert_eq!((disk.rows().len(), again.poll(at(301), &mut replies)), (0, Monotonic::NEVER));
}

#[derive(Clone, Debug)]
enum Op {
    Open,
    Resume { from: u32, n: u8 },
    Enter { n: u8, room: u8, place: u64 },
    Leave { n: u8, room: u8 },
    Acted { n: u8, place: u64 },
    Refresh { n: u8, expires_at: u64 },
    Detach { n: u8 },
    Kick { n: u8 },
    Pass { ms: u64 },
    Restart { down_ms: u64 },
}

fn op() -> impl Strategy<Value = Op> {
    let n = || 0u8..6;
    prop_oneof![
        4 => Just(Op::Open),
        6 => (200u32..204, n()).prop_map(|(from, n)| Op::Resume { from, n }),
        3 => (n(), 0u8..3, 0u64..9).prop_map(|(n, room, place)| Op::Enter { n, room, place }),
        2 => (n(), 0u8..3).prop_map(|(n, room)| Op::Leave { n, room }),
        2 => (n(), 0u64..9).prop_map(|(n, place)| Op::Acted { n, place }),
        1 => (n(), 0u64..9).prop_map(|(n, expires_at)| Op::Refresh { n, expires_at }),
        4 => n().prop_map(|n| Op::Detach { n }),
        1 => n().prop_map(|n| Op::Kick { n }),
        4 => prop_oneof![0u64..1500, 0u64..200_000].prop_map(|ms| Op::Pass { ms }),
        3 => prop_oneof![0u64..1500, 0u64..400_000].prop_map(|down_ms| Op::Restart { down_ms }),
    ]
}

impl Op {
    /// `owners`: who has each session, as its connection would know; `newest`: the last session that was opened. The
    /// others are named by how much older they are.
    fn request(&self, owners: &BTreeMap<u8, u32>, newest: u8) -> Option<PresenceRequest> {
        let nth = |n: u8| newest.saturating_sub(n);
        let session = |n: u8| SessionId([nth(n); 16]);
        Some(match *self {
            Self::Open => {
                let n = newest + 1;
                let record = SessionRecord { user: format!("u{}", n % 2).into(), ..record(n) };
                PresenceRequest::Open { from: conn(n.into()), record: Box::new(record), token: TokenHash([n; 16]) }
            }
            Self::Resume { from, n } => resume(from, nth(n)),
            Self::Enter { n, room, place } => entered(nth(n), &room.to_string(), place),
            Self::Leave { n, room } => {
                PresenceRequest::Left { session: session(n), scope: Scope::Room(room.to_string().into()) }
            }
            Self::Acted { n, place } => {
                let place = Position { stream: format!("games.events.0/session:{n}").into(), epoch: 5, place };
                PresenceRequest::Acted { session: session(n), place }
            }
            Self::Refresh { n, expires_at } => {
                PresenceRequest::Refreshed { session: session(n), roles: ["user".into()].into(), expires_at }
            }
            Self::Detach { n } => detached(*owners.get(&nth(n))?, nth(n), CloseReason::IdleTimeout),
            Self::Kick { n } => PresenceRequest::Kick { user: format!("u{}", n % 2).into(), event: None },
            Self::Pass { .. } | Self::Restart { .. } => return None,
        })
    }
}

/// Two presences side by side: one that is never restarted, and one that is.
struct Pair {
    steady: EmbeddedPresence,
    restarted: EmbeddedPresence,
    disk: Disk,
    now: Monotonic,
    lives: u64,
    owners: BTreeMap<u8, u32>,
    /// Of the restarted one's connections: how often each was said to come and to go, by name.
    heard: BTreeMap<(SessionId, u64, u32, u64, bool), usize>,
}

impl Pair {
    fn new() -> Self {
        let disk = Disk::new();
        let restarted = start(&disk, at(0), 1);
        let (owners, heard) = (BTreeMap::new(), BTreeMap::new());
        Self { steady: EmbeddedPresence::new(WINDOW, 10_000, 1), restarted, disk, now: at(0), lives: 1, owners, heard }
    }

    /// The peer says what has changed, and the bus takes it.
    fn hear(&mut self) {
        for change in changes(&mut self.restarted) {
            let comes = match change.kind {
                PresenceKind::Connected => true,
                PresenceKind::Disconnected(_) => false,
                PresenceKind::Joined(_) | PresenceKind::Left(_) => continue,
            };
            let name = (change.session, change.life.nonce, change.connection.conn.slot, change.number, comes);
            *self.heard.entry(name).or_default() += 1;
        }
    }

    fn does(&mut self, request: impl Fn() -> PresenceRequest) -> Result<(), TestCaseError> {
        let mut replies = (Vec::new(), Vec::new());
        self.steady.handle(self.now, request(), &mut replies.0);
        self.restarted.handle(self.now, request(), &mut replies.1);
        self.restarted.settle(self.now, true);
        self.settled(replies)
    }

    fn settled(&mut self, replies: (Vec<PresenceReply>, Vec<PresenceReply>)) -> Result<(), TestCaseError> {
        for reply in &replies.0 {
            match reply {
                PresenceReply::Opened { to, .. } => {
                    self.owners.insert(to.conn.slot as u8, to.conn.slot);
                }
                PresenceReply::Resumed { to, record } => {
                    self.owners.insert(record.session.0[0], to.conn.slot);
                }
                _ => {}
            }
        }
        prop_assert_eq!(sorted(replies.0), sorted(replies.1));
        prop_assert_eq!(self.steady.sessions(), self.restarted.sessions());
        prop_assert_eq!(self.steady.detached(), self.restarted.detached());
        Ok(())
    }

    fn pass(&mut self, ms: u64) -> Result<(), TestCaseError> {
        let until = self.now + Duration::from_millis(ms);
        let mut replies = (Vec::new(), Vec::new());
        // As the peer's thread does, it comes back whenever it was told to.
        loop {
            let next = self.restarted.poll(self.now, &mut replies.1);
            self.restarted.settle(self.now, true);
            if next > until {
                break;
            }
            self.now = next;
        }
        self.now = until;
        self.restarted.poll(until, &mut replies.1);
        self.restarted.settle(until, true);
        self.steady.poll(until, &mut replies.0);
        self.settled(replies)
    }

    /// The process is killed, and another one starts: whoever had a connection lost it when the process was last alive,
    /// and who waited for one has lost its own.
    fn restart(&mut self, down_ms: u64, hears: bool) -> Result<(), TestCaseError> {
        if hears {
            self.hear();
        }
        if self.disk.rows().is_empty() {
            return Ok(());
        }
        let alive = Monotonic::ZERO + Duration::from_millis(self.disk.alive() - EPOCH_MS);
        let mut lost = Vec::new();
        for (n, owner) in std::mem::take(&mut self.owners) {
            for waiter in (200..204).filter(|waiter| *waiter != owner) {
                self.steady.handle(alive, detached(waiter, n, CloseReason::Restart), &mut lost);
            }
            self.steady.handle(alive, detached(owner, n, CloseReason::Restart), &mut lost);
        }
        self.now += Duration::from_millis(down_ms);
        self.lives += 1;
        self.restarted = start(&self.disk, self.now, self.lives);
        self.pass(0)
    }
}

fn sorted(replies: Vec<PresenceReply>) -> Vec<String> {
    let mut texts: Vec<_> = replies.iter().map(|reply| format!("{reply:?}")).collect();
    texts.sort();
    texts
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    /// A restart at any point, as often as one likes, equals none in which all connections were lost when the process was
    /// last alive: the same sessions with the same records for the same time; and of each connection it is said that it
    /// came and that it went, under one name.
    #[test]
    fn a_restart_changes_nothing(ops in proptest::collection::vec((op(), any::<bool>()), 1..100)) {
        let (mut pair, mut newest) = (Pair::new(), 0);
        for (op, hears) in ops {
            match op {
                Op::Pass { ms } => pair.pass(ms)?,
                Op::Restart { down_ms } => pair.restart(down_ms, hears)?,
                _ => {
                    let owners = pair.owners.clone();
                    if op.request(&owners, newest).is_some() {
                        pair.does(|| op.request(&owners, newest).unwrap())?;
                    }
                    newest += u8::from(matches!(op, Op::Open));
                }
            }
        }
        pair.hear();
        pair.restart(0, true)?;
        pair.hear();
        for (session, life, conn, number, comes) in pair.heard.keys() {
            let other = pair.heard.contains_key(&(*session, *life, *conn, *number, !comes));
            prop_assert!(other, "{session} on {conn} of life {life}: one of coming and going was not said");
        }
    }
}
