//! The table of session records: found by token, by session and by user, and in the order in which they were detached.
//!
//! Built for millions of idle sessions: an index costs five bytes a record, names that many sessions share are kept
//! once, detached records form a list, so that the oldest is found and any is taken out without a scan.
//!
//! Invariants: a record is in all three indexes; it is in the detached list exactly when its owner is `Detached`, and
//! that list ascends in `until`, for the window is the same for all.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash};
use std::sync::Arc;

use foldhash::quality::FixedState;
use hashbrown::HashTable;

use crate::close::CloseReason;
use crate::id::{ConnAddr, Scope, SessionId, TokenHash};
use crate::message::{Position, RoomMember, ScopeEntry, SessionRecord};
use crate::packed::Packed;
use crate::time::Monotonic;

/// A record's number in the table while it lives.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) struct Slot(u32);

impl Slot {
    const NONE: Self = Self(u32::MAX);

    fn some(self) -> Option<Self> {
        (self != Self::NONE).then_some(self)
    }
}

/// All session records.
#[derive(Debug)]
pub(super) struct Sessions {
    /// Chunks of [`CHUNK`] records: growing never copies what is there.
    chunks: Vec<Vec<Option<Kept>>>,
    free: Vec<Slot>,
    by_token: HashTable<Slot>,
    by_session: HashTable<Slot>,
    /// The first of each user's records.
    by_user: HashTable<Slot>,
    oldest: Slot,
    newest: Slot,
    detached: usize,
    names: Shared<str>,
    role_sets: Shared<[Box<str>]>,
    /// What few sessions have.
    extras: HashMap<Slot, Extra, FixedState>,
    hasher: FixedState,
}

/// A record as it is kept.
#[derive(Debug)]
pub(super) struct Kept {
    session: SessionId,
    token: TokenHash,
    user: Arc<str>,
    username: Arc<str>,
    roles: Arc<[Box<str>]>,
    expires_at: u64,
    scopes: Packed<Entered>,
    owner: Owner,
    user_next: Slot,
    user_prev: Slot,
    last_close: Option<CloseReason>,
}

/// [`ScopeEntry`] without spare capacity.
#[derive(Debug)]
struct Entered {
    scope: Scope,
    positions: Box<[Position]>,
}

/// What backends did with a session.
#[derive(Default, Debug)]
struct Extra {
    /// Up to where the effects of streams' events have acted.
    acted: Vec<Position>,
    /// The scopes it was let into.
    admitted: Vec<Scope>,
}

/// Whose the session is.
#[derive(Clone, Copy, Debug)]
enum Owner {
    Attached(ConnAddr),
    Detached { until: Monotonic, older: Slot, newer: Slot },
}

impl Sessions {
    /// An empty table.
    pub(super) fn new(seed: u64) -> Self {
        let hasher = FixedState::with_seed(seed);
        Self {
            chunks: Vec::new(),
            free: Vec::new(),
            by_token: HashTable::new(),
            by_session: HashTable::new(),
            by_user: HashTable::new(),
            oldest: Slot::NONE,
            newest: Slot::NONE,
            detached: 0,
            names: Shared(HashMap::with_hasher(hasher.clone())),
            role_sets: Shared(HashMap::with_hasher(hasher.clone())),
            extras: HashMap::with_hasher(hasher.clone()),
            hasher,
        }
    }

    /// Records kept.
    pub(super) fn len(&self) -> usize {
        self.by_session.len()
    }

    /// Records without an owner.
    pub(super) fn detached(&self) -> usize {
        self.detached
    }

    /// The record of a resume token.
    pub(super) fn by_token(&self, token: TokenHash) -> Option<Slot> {
        self.by_token.find(self.hasher.hash_one(token), |slot| self.kept(*slot).token == token).copied()
    }

    /// The record of a session.
    pub(super) fn by_session(&self, session: SessionId) -> Option<Slot> {
        self.by_session.find(self.hasher.hash_one(session), |slot| self.kept(*slot).session == session).copied()
    }

    /// One of the user's records.
    pub(super) fn by_user(&self, user: &str) -> Option<Slot> {
        self.by_user.find(self.hasher.hash_one(user), |slot| *self.kept(*slot).user == *user).copied()
    }

    /// The record that was detached first, and when it expires.
    pub(super) fn oldest_detached(&self) -> Option<(Slot, Monotonic)> {
        let slot = self.oldest.some()?;
        match self.kept(slot).owner {
            Owner::Detached { until, .. } => Some((slot, until)),
            Owner::Attached(_) => unreachable!("only detached records are in the list"),
        }
    }

    /// Adds a record; one of the same session or token must not be there.
    pub(super) fn insert(&mut self, record: SessionRecord, token: TokenHash, owner: ConnAddr) -> Slot {
        debug_assert!(self.by_token(token).is_none() && self.by_session(record.session).is_none());
        let SessionRecord { session, user, username, roles, expires_at, scopes, acted, last_close } = record;
        let same_name = *user == *username;
        let head = self.by_user(&user);
        let user = head.map_or(user, |head| self.kept(head).user.clone());
        let username = if same_name { user.clone() } else { username };
        let admitted = scopes.iter().filter(|entry| entry.admitted);
        let admitted: Vec<Scope> = admitted.map(|entry| entry.scope.clone()).collect();
        let scopes = scopes.into_iter().map(|entry| self.compact(entry)).collect();
        let roles = self.role_sets.take(roles);
        let slot = self.vacant();
        *self.cell(slot) = Some(Kept {
            session,
            token,
            user,
            username,
            roles,
            expires_at,
            scopes,
            owner: Owner::Attached(owner),
            user_next: Slot::NONE,
            user_prev: Slot::NONE,
            last_close,
        });
        if !acted.is_empty() || !admitted.is_empty() {
            self.extras.insert(slot, Extra { acted, admitted });
        }
        self.index(slot, head);
        slot
    }

    /// Takes a record out, whatever its state.
    pub(super) fn remove(&mut self, slot: Slot) {
        self.unlink_detached(slot);
        self.unindex(slot);
        let kept = self.cell(slot).take().expect("a slot is named only while its record lives");
        self.free.push(slot);
        self.extras.remove(&slot);
        self.role_sets.give_back(&kept.roles);
        for entered in &kept.scopes {
            self.release(entered);
        }
    }

    /// The connection that owns the record.
    pub(super) fn owner(&self, slot: Slot) -> Option<ConnAddr> {
        match self.kept(slot).owner {
            Owner::Attached(owner) => Some(owner),
            Owner::Detached { .. } => None,
        }
    }

    /// Makes the connection the owner.
    pub(super) fn attach(&mut self, slot: Slot, owner: ConnAddr) {
        self.unlink_detached(slot);
        self.kept_mut(slot).owner = Owner::Attached(owner);
    }

    /// Leaves the record without an owner; `until` is no earlier than that of any record detached before.
    pub(super) fn detach(&mut self, slot: Slot, until: Monotonic) {
        self.unlink_detached(slot);
        let older = self.newest;
        self.kept_mut(slot).owner = Owner::Detached { until, older, newer: Slot::NONE };
        match older.some() {
            Some(older) => *self.links(older).1 = slot,
            None => self.oldest = slot,
        }
        self.newest = slot;
        self.detached += 1;
    }

    /// The session's id.
    pub(super) fn session(&self, slot: Slot) -> SessionId {
        self.kept(slot).session
    }

    /// What its session is known by.
    pub(super) fn token(&self, slot: Slot) -> TokenHash {
        self.kept(slot).token
    }

    /// The copy of the record's roles that all records with the same share.
    pub(super) fn roles(&self, slot: Slot) -> Arc<[Box<str>]> {
        self.kept(slot).roles.clone()
    }

    /// The session, its user and the user's name.
    pub(super) fn who(&self, slot: Slot) -> (SessionId, Arc<str>, Arc<str>) {
        let kept = self.kept(slot);
        (kept.session, Arc::clone(&kept.user), Arc::clone(&kept.username))
    }

    /// Remembers how the last connection ended.
    pub(super) fn close(&mut self, slot: Slot, reason: CloseReason) {
        self.kept_mut(slot).last_close = Some(reason);
    }

    /// Whether the scope is among the record's.
    pub(super) fn is_in(&self, slot: Slot, scope: &Scope) -> bool {
        self.kept(slot).scopes.iter().any(|entered| entered.scope == *scope)
    }

    /// Puts the scope among the record's, in place of what was said of it before.
    pub(super) fn enter(&mut self, slot: Slot, entry: ScopeEntry) {
        self.leave(slot, &entry.scope);
        if entry.admitted {
            self.extras.entry(slot).or_default().admitted.push(entry.scope.clone());
        }
        let entered = self.compact(entry);
        self.kept_mut(slot).scopes.push(entered);
    }

    /// Takes the scope out of the record.
    pub(super) fn leave(&mut self, slot: Slot, scope: &Scope) {
        let Some(at) = self.kept(slot).scopes.iter().position(|entered| entered.scope == *scope) else { return };
        let entered = self.kept_mut(slot).scopes.remove(at);
        if let Some(extra) = self.extras.get_mut(&slot) {
            extra.admitted.retain(|other| other != scope);
        }
        self.release(&entered);
    }

    /// Gives the session another token's roles and end.
    pub(super) fn refresh(&mut self, slot: Slot, roles: Arc<[Box<str>]>, expires_at: u64) {
        let roles = self.role_sets.take(roles);
        let kept = self.kept_mut(slot);
        kept.expires_at = expires_at;
        let old = std::mem::replace(&mut kept.roles, roles);
        self.role_sets.give_back(&old);
    }

    /// Moves the place up to which the effects of a stream's events have acted.
    pub(super) fn acted(&mut self, slot: Slot, place: Position) {
        let acted = &mut self.extras.entry(slot).or_default().acted;
        match acted.iter_mut().find(|known| known.stream == place.stream) {
            Some(known) => *known = place,
            None => acted.push(place),
        }
    }

    /// The record as its owner gets it.
    pub(super) fn record(&self, slot: Slot) -> SessionRecord {
        let kept = self.kept(slot);
        let extra = self.extras.get(&slot);
        let admitted = |scope| extra.is_some_and(|extra| extra.admitted.contains(scope));
        SessionRecord {
            session: kept.session,
            user: kept.user.clone(),
            username: kept.username.clone(),
            roles: kept.roles.clone(),
            expires_at: kept.expires_at,
            scopes: kept
                .scopes
                .iter()
                .map(|entered| ScopeEntry {
                    scope: entered.scope.clone(),
                    entered: entered.positions.to_vec(),
                    admitted: admitted(&entered.scope),
                })
                .collect(),
            acted: extra.map(|extra| extra.acted.clone()).unwrap_or_default(),
            last_close: kept.last_close,
        }
    }

    /// The sessions in a room among `look` records from `after` on, and where the next look goes on.
    pub(super) fn members(&self, room: &str, after: u32, look: usize) -> (Vec<RoomMember>, Option<u32>) {
        let records = self.chunks.last().map_or(0, |last| (self.chunks.len() - 1) * CHUNK + last.len());
        let to = (after as usize).saturating_add(look).min(records);
        let kept = (after as usize..to).filter_map(|at| self.chunks[at / CHUNK][at % CHUNK].as_ref());
        let inside = |kept: &&Kept| {
            kept.scopes.iter().any(|entered| matches!(&entered.scope, Scope::Room(other) if **other == *room))
        };
        let member = |kept: &Kept| RoomMember {
            session: kept.session,
            user: kept.user.clone(),
            username: kept.username.clone(),
            connection: match kept.owner {
                Owner::Attached(owner) => Some(owner),
                Owner::Detached { .. } => None,
            },
            elsewhere: None,
        };
        let members = kept.filter(inside).map(member).collect();
        (members, u32::try_from(to).ok().filter(|_| to < records))
    }

    /// Shares the names of an entry with all who have the same.
    fn compact(&mut self, entry: ScopeEntry) -> Entered {
        let scope = match entry.scope {
            Scope::Room(name) => Scope::Room(self.names.take(name)),
            Scope::User(name) => Scope::User(self.names.take(name)),
            scope @ (Scope::Session(_) | Scope::Everyone) => scope,
        };
        let share = |position: Position| Position { stream: self.names.take(position.stream), ..position };
        Entered { scope, positions: entry.entered.into_iter().map(share).collect() }
    }

    fn release(&mut self, entered: &Entered) {
        if let Scope::Room(name) | Scope::User(name) = &entered.scope {
            self.names.give_back(name);
        }
        for position in &entered.positions {
            self.names.give_back(&position.stream);
        }
    }

    fn index(&mut self, slot: Slot, head: Option<Slot>) {
        let Self { chunks, by_token, by_session, by_user, hasher, .. } = self;
        let kept = |slot: Slot| kept_in(chunks, slot);
        by_token.insert_unique(hasher.hash_one(kept(slot).token), slot, |s| hasher.hash_one(kept(*s).token));
        by_session.insert_unique(hasher.hash_one(kept(slot).session), slot, |s| hasher.hash_one(kept(*s).session));
        let Some(head) = head else {
            by_user.insert_unique(hasher.hash_one(&*kept(slot).user), slot, |s| hasher.hash_one(&*kept(*s).user));
            return;
        };
        let second = std::mem::replace(&mut self.kept_mut(head).user_next, slot);
        let kept = self.kept_mut(slot);
        (kept.user_prev, kept.user_next) = (head, second);
        if let Some(second) = second.some() {
            self.kept_mut(second).user_prev = slot;
        }
    }

    fn unindex(&mut self, slot: Slot) {
        let kept = kept_in(&self.chunks, slot);
        let (prev, next) = (kept.user_prev, kept.user_next);
        let same = |other: &Slot| *other == slot;
        let token = self.by_token.find_entry(self.hasher.hash_one(kept.token), same);
        token.expect("a record is in the token index").remove();
        let session = self.by_session.find_entry(self.hasher.hash_one(kept.session), same);
        session.expect("a record is in the session index").remove();
        if prev == Slot::NONE {
            let head = self.by_user.find_entry(self.hasher.hash_one(&*kept.user), same);
            let mut head = head.expect("a user's first record is in the user index");
            match next.some() {
                Some(next) => *head.get_mut() = next,
                None => drop(head.remove()),
            }
        } else {
            self.kept_mut(prev).user_next = next;
        }
        if let Some(next) = next.some() {
            self.kept_mut(next).user_prev = prev;
        }
    }

    fn unlink_detached(&mut self, slot: Slot) {
        let Owner::Detached { older, newer, .. } = self.kept(slot).owner else { return };
        match older.some() {
            Some(older) => *self.links(older).1 = newer,
            None => self.oldest = newer,
        }
        match newer.some() {
            Some(newer) => *self.links(newer).0 = older,
            None => self.newest = older,
        }
        self.detached -= 1;
    }

    /// `(older, newer)` of a record in the detached list.
    fn links(&mut self, slot: Slot) -> (&mut Slot, &mut Slot) {
        match &mut self.kept_mut(slot).owner {
            Owner::Detached { older, newer, .. } => (older, newer),
            Owner::Attached(_) => unreachable!("only detached records are in the list"),
        }
    }

    fn vacant(&mut self) -> Slot {
        if let Some(slot) = self.free.pop() {
            return slot;
        }
        if self.chunks.last().is_none_or(|chunk| chunk.len() == CHUNK) {
            self.chunks.push(Vec::with_capacity(CHUNK));
        }
        let full = (self.chunks.len() - 1) * CHUNK;
        let chunk = self.chunks.last_mut().expect("one was just made sure of");
        chunk.push(None);
        Slot(u32::try_from(full + chunk.len() - 1).expect("2^32 records do not fit in memory"))
    }

    fn cell(&mut self, slot: Slot) -> &mut Option<Kept> {
        &mut self.chunks[slot.0 as usize / CHUNK][slot.0 as usize % CHUNK]
    }

    fn kept(&self, slot: Slot) -> &Kept {
        kept_in(&self.chunks, slot)
    }

    fn kept_mut(&mut self, slot: Slot) -> &mut Kept {
        self.cell(slot).as_mut().expect("a slot is named only while its record lives")
    }
}

fn kept_in(chunks: &[Vec<Option<Kept>>], slot: Slot) -> &Kept {
    let cell = &chunks[slot.0 as usize / CHUNK][slot.0 as usize % CHUNK];
    cell.as_ref().expect("a slot is named only while its record lives")
}

/// Values that many records share, each kept once, with the number of places it stands in.
#[derive(Debug)]
struct Shared<T: ?Sized>(HashMap<Arc<T>, u32, FixedState>);

impl<T: ?Sized + Hash + Eq> Shared<T> {
    /// The shared copy of the value, for one more place.
    fn take(&mut self, value: Arc<T>) -> Arc<T> {
        let entry = self.0.entry(value);
        let shared = entry.key().clone();
        *entry.or_insert(0) += 1;
        shared
    }

    /// One place less; the last one frees the value.
    fn give_back(&mut self, value: &Arc<T>) {
        let count = self.0.get_mut(value).expect("what is given back was taken");
        *count -= 1;
        if *count == 0 {
            self.0.remove(value);
        }
    }
}

/// Records per chunk: 36 KiB.
const CHUNK: usize = 256;

/// An idle session must cost little (DESIGN §10: 1,000 B in all); 300 B of them here, in one room.
const _: () = assert!(size_of::<Option<Kept>>() <= 144);
const _: () = assert!(size_of::<Entered>() + size_of::<Position>() <= 72);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{ConnKey, NodeId};

    fn owner(slot: u32) -> ConnAddr {
        ConnAddr { shard: NodeId(0), conn: ConnKey { slot, generation: 1 } }
    }

    fn record(n: u8, user: &str) -> SessionRecord {
        SessionRecord {
            session: SessionId([n; 16]),
            user: user.into(),
            username: user.into(),
            roles: ["user".into()].into(),
            expires_at: u64::MAX,
            scopes: vec![entry("arena")],
            acted: Vec::new(),
            last_close: None,
        }
    }

    fn entry(room: &str) -> ScopeEntry {
        let stream = format!("relay/room:{room}").into();
        ScopeEntry {
            scope: Scope::Room(room.into()),
            entered: vec![Position { stream, epoch: 1, place: 2 }],
            admitted: false,
        }
    }

    /// Names and role sets are kept once for all records, and go with the last that has them.
    #[test]
    fn shared_names_live_as_long_as_a_record_has_them() {
        let mut sessions = Sessions::new(1);
        let slots: Vec<_> = (0..10).map(|n| sessions.insert(record(n, "u"), TokenHash([n; 16]), owner(0))).collect();
        assert_eq!((sessions.names.0.len(), sessions.role_sets.0.len()), (2, 1));
        let held = sessions.record(slots[0]);
        assert!(Arc::ptr_eq(&held.user, &sessions.record(slots[9]).user), "one user id for all");
        assert!(Arc::ptr_eq(&sessions.roles(slots[0]), &sessions.record(slots[9]).roles), "one role set for all");
        sessions.enter(slots[3], entry("other"));
        assert_eq!(sessions.names.0.len(), 4);
        for slot in slots {
            sessions.remove(slot);
        }
        assert_eq!((sessions.names.0.len(), sessions.role_sets.0.len(), sessions.len()), (0, 0, 0));
    }

    /// Looks of any length find each member of a room once, and who has a connection.
    #[test]
    fn looks_find_every_member_once() {
        let mut sessions = Sessions::new(1);
        let slots: Vec<_> = (0..200).map(|n| sessions.insert(record(n, "u"), TokenHash([n; 16]), owner(0))).collect();
        for slot in &slots[..100] {
            sessions.leave(*slot, &Scope::Room("arena".into()));
        }
        sessions.remove(slots[150]);
        sessions.detach(slots[151], Monotonic::ZERO);
        for look in [1, 7, 200, 1000] {
            let (mut found, mut after) = (Vec::new(), Some(0));
            while let Some(from) = after {
                let (members, next) = sessions.members("arena", from, look);
                found.extend(members);
                after = next;
            }
            let expected: Vec<u8> = (100..200).filter(|n| *n != 150).collect();
            assert_eq!(found.iter().map(|member| member.session.0[0]).collect::<Vec<_>>(), expected, "look {look}");
            assert!(found.iter().all(|member| member.connection.is_none() == (member.session.0[0] == 151)));
        }
        assert_eq!(sessions.members("arena", u32::MAX, 10), (Vec::new(), None));
        assert_eq!(Sessions::new(1).members("arena", 0, 10), (Vec::new(), None));
    }

    /// All of a user's records are found one after the other, whichever was taken out before.
    #[test]
    fn a_users_records_are_chained() {
        let mut sessions = Sessions::new(1);
        let slots: Vec<_> = (0..6).map(|n| sessions.insert(record(n, "u"), TokenHash([n; 16]), owner(0))).collect();
        sessions.insert(record(9, "other"), TokenHash([9; 16]), owner(0));
        for at in [0, 5, 2] {
            sessions.remove(slots[at]);
        }
        let mut left = Vec::new();
        while let Some(slot) = sessions.by_user("u") {
            left.push(sessions.session(slot).0[0]);
            sessions.remove(slot);
        }
        left.sort_unstable();
        assert_eq!(left, [1, 3, 4]);
        assert_eq!(sessions.len(), 1);
    }

    /// The detached list keeps its order when records leave it from the front, the middle and the end.
    #[test]
    fn detached_records_leave_the_list_anywhere() {
        let mut sessions = Sessions::new(1);
        let slots: Vec<_> = (0..5).map(|n| sessions.insert(record(n, "u"), TokenHash([n; 16]), owner(0))).collect();
        for (n, slot) in slots.iter().enumerate() {
            sessions.detach(*slot, Monotonic::from_nanos(n as u64));
        }
        for at in [2, 0, 4] {
            sessions.attach(slots[at], owner(7));
        }
        let mut order = Vec::new();
        while let Some((slot, until)) = sessions.oldest_detached() {
            order.push(until.as_nanos());
            sessions.remove(slot);
        }
        assert_eq!((order, sessions.detached(), sessions.len()), (vec![1, 3], 0, 3));
    }
}
