//! The table of session records: found by token, by session and by user, and in the order in which they were detached.
//!
//! Built for millions of idle sessions: an index costs five bytes a record, names that many sessions share are kept
//! once, detached records form a list, so that the oldest is found and any is taken out without a scan.
//!
//! Invariants: a record is in all three indexes; it is in the detached list exactly when its owner is `Detached`, and
//! that list ascends in `until`, for the window is the same for all.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, Hash};
use std::sync::Arc;

use foldhash::quality::FixedState;
use hashbrown::HashTable;

use crate::close::CloseReason;
use crate::id::{ConnAddr, Scope, SessionId, TokenHash};
use crate::message::{GatewayLife, Position, PresenceKind, RoomMember, ScopeEntry, SessionRecord};
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
    /// Records that differ from what is stored of them, those that have ended too; `None` = nothing is stored.
    touched: Option<HashSet<SessionId, FixedState>>,
    /// Records that have expired and are still stored; they may stay there for a while.
    stale: Vec<SessionId>,
    /// Records with changes that are not surely told.
    owing: Vec<SessionId>,
    /// Those of them that have ended.
    ended: HashMap<SessionId, Whole, FixedState>,
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
    /// Whether some version of it is stored.
    stored: bool,
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
    /// Changes that others are not surely told of.
    owed: Vec<Owed>,
}

/// A change that others are to be told of.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Owed {
    pub(super) life: GatewayLife,
    pub(super) connection: ConnAddr,
    pub(super) number: u64,
    pub(super) kind: PresenceKind,
    pub(super) at: Monotonic,
}

/// A record with all that is kept beside it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Whole {
    pub(super) record: SessionRecord,
    pub(super) token: TokenHash,
    pub(super) standing: Standing,
    pub(super) owed: Vec<Owed>,
}

/// Whether a record has an owner.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Standing {
    /// The owner, and the number of its attachment.
    Attached(ConnAddr, u64),
    /// None; the record expires then.
    Detached(Monotonic),
    /// It has expired or was ended; what is left of it is told.
    Ended,
}

/// Whose the session is.
#[derive(Clone, Copy, Debug)]
enum Owner {
    Attached { to: ConnAddr, number: u64 },
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
            touched: None,
            stale: Vec::new(),
            owing: Vec::new(),
            ended: HashMap::with_hasher(hasher.clone()),
            hasher,
        }
    }

    /// From now on it is remembered which records have changed.
    pub(super) fn watch(&mut self) {
        self.touched = Some(HashSet::with_hasher(self.hasher.clone()));
    }

    /// The record was read from where it is stored; unless it has `changed` since, it is the same there.
    pub(super) fn taken_back(&mut self, slot: Slot, changed: bool) {
        let kept = self.kept_mut(slot);
        kept.stored = true;
        let session = kept.session;
        if let Some(touched) = self.touched.as_mut().filter(|_| !changed) {
            touched.remove(&session);
        }
    }

    /// A record that is stored and has expired.
    pub(super) fn is_stale(&mut self, session: SessionId) {
        self.stale.push(session);
    }

    /// Counts some of the expired records among those that have changed, so that a crowd of them is not one long write.
    pub(super) fn sweep(&mut self, most: usize) {
        let rest = self.stale.len().saturating_sub(most);
        if let Some(touched) = &mut self.touched {
            touched.extend(self.stale.drain(rest..));
        }
        if self.stale.is_empty() {
            self.stale = Vec::new();
        }
    }

    /// Whether there is something to sweep.
    pub(super) fn has_stale(&self) -> bool {
        !self.stale.is_empty()
    }

    /// The records that have changed and were not written since, in no order.
    pub(super) fn touched(&self) -> impl Iterator<Item = SessionId> {
        self.touched.iter().flatten().copied()
    }

    /// What [`Sessions::touched`] named is written.
    pub(super) fn written(&mut self) {
        let Some(touched) = &mut self.touched else { return };
        let mut written = std::mem::take(touched);
        for session in written.drain() {
            if let Some(slot) = self.by_session(session) {
                self.kept_mut(slot).stored = true;
            }
        }
        self.touched = Some(written);
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

    /// Another record of the same user; behind [`Sessions::by_user`] all of them.
    pub(super) fn next_of_user(&self, slot: Slot) -> Option<Slot> {
        self.kept(slot).user_next.some()
    }

    /// The record that was detached first, and when it expires.
    pub(super) fn oldest_detached(&self) -> Option<(Slot, Monotonic)> {
        let slot = self.oldest.some()?;
        match self.kept(slot).owner {
            Owner::Detached { until, .. } => Some((slot, until)),
            Owner::Attached { .. } => unreachable!("only detached records are in the list"),
        }
    }

    /// Adds a record; one of the same session or token must not be there.
    pub(super) fn insert(&mut self, record: SessionRecord, token: TokenHash, to: ConnAddr, number: u64) -> Slot {
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
            owner: Owner::Attached { to, number },
            user_next: Slot::NONE,
            user_prev: Slot::NONE,
            last_close,
            stored: false,
        });
        if !acted.is_empty() || !admitted.is_empty() {
            self.extras.insert(slot, Extra { acted, admitted, owed: Vec::new() });
        }
        self.index(slot, head);
        self.touch(slot);
        slot
    }

    /// Takes a record out, whatever its state.
    pub(super) fn remove(&mut self, slot: Slot) {
        let owes = self.touched.is_some() && self.owes(slot);
        if owes {
            let whole = Whole { standing: Standing::Ended, ..self.whole(slot) };
            self.ended.insert(whole.record.session, whole);
        }
        self.unlink_detached(slot);
        self.unindex(slot);
        let kept = self.cell(slot).take().expect("a slot is named only while its record lives");
        if let Some(touched) = &mut self.touched {
            // Of what nobody wrote there is nothing to remove.
            _ = if kept.stored || owes { touched.insert(kept.session) } else { touched.remove(&kept.session) };
        }
        self.free.push(slot);
        self.extras.remove(&slot);
        self.role_sets.give_back(&kept.roles);
        for entered in &kept.scopes {
            self.release(entered);
        }
    }

    /// Takes a record out whose time is over.
    pub(super) fn expire(&mut self, slot: Slot) {
        let session = self.kept(slot).session;
        self.remove(slot);
        if self.ended(session).is_none() && self.touched.as_mut().is_some_and(|touched| touched.remove(&session)) {
            self.stale.push(session);
        }
    }

    /// The connection that owns the record.
    pub(super) fn owner(&self, slot: Slot) -> Option<ConnAddr> {
        match self.kept(slot).owner {
            Owner::Attached { to, .. } => Some(to),
            Owner::Detached { .. } => None,
        }
    }

    /// The number of the owner's attachment; 0 = there is no owner.
    pub(super) fn attachment(&self, slot: Slot) -> u64 {
        match self.kept(slot).owner {
            Owner::Attached { number, .. } => number,
            Owner::Detached { .. } => 0,
        }
    }

    /// Makes the connection the owner, by the attachment of this number.
    pub(super) fn attach(&mut self, slot: Slot, to: ConnAddr, number: u64) {
        self.unlink_detached(slot);
        self.kept_mut(slot).owner = Owner::Attached { to, number };
        self.touch(slot);
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
        self.touch(slot);
    }

    /// Others are to be told of a change of the session's.
    pub(super) fn owe(&mut self, slot: Slot, owed: Owed) {
        self.extras.entry(slot).or_default().owed.push(owed);
        self.owing.push(self.kept(slot).session);
    }

    /// Everything that was owed is told; returns whether there was anything.
    pub(super) fn all_told(&mut self) -> bool {
        let owing = std::mem::take(&mut self.owing);
        let ended = std::mem::take(&mut self.ended);
        if let Some(touched) = &mut self.touched {
            touched.extend(ended.into_keys());
        }
        for session in &owing {
            let Some(slot) = self.by_session(*session) else { continue };
            if let Some(extra) = self.extras.get_mut(&slot) {
                extra.owed = Vec::new();
                if extra.acted.is_empty() && extra.admitted.is_empty() {
                    self.extras.remove(&slot);
                }
            }
        }
        !owing.is_empty()
    }

    /// What is left of a session that has ended.
    pub(super) fn ended(&self, session: SessionId) -> Option<&Whole> {
        self.ended.get(&session)
    }

    /// Keeps what is left of a session that is not in the table.
    pub(super) fn bury(&mut self, whole: Whole) {
        let session = whole.record.session;
        self.owing.push(session);
        self.ended.insert(session, whole);
        if let Some(touched) = &mut self.touched {
            touched.insert(session);
        }
    }

    fn owes(&self, slot: Slot) -> bool {
        self.extras.get(&slot).is_some_and(|extra| !extra.owed.is_empty())
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
        self.touch(slot);
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
        self.touch(slot);
    }

    /// Takes the scope out of the record.
    pub(super) fn leave(&mut self, slot: Slot, scope: &Scope) {
        let Some(at) = self.kept(slot).scopes.iter().position(|entered| entered.scope == *scope) else { return };
        let entered = self.kept_mut(slot).scopes.remove(at);
        if let Some(extra) = self.extras.get_mut(&slot) {
            extra.admitted.retain(|other| other != scope);
            // Nobody resumes a stream of a room that was left; who enters it anew begins behind what has acted.
            extra.acted.retain(|known| !scope.has_stream(&known.stream));
            if extra.acted.is_empty() && extra.admitted.is_empty() && extra.owed.is_empty() {
                self.extras.remove(&slot);
            }
        }
        self.release(&entered);
        self.touch(slot);
    }

    /// Gives the session another token's roles and end.
    pub(super) fn refresh(&mut self, slot: Slot, roles: Arc<[Box<str>]>, expires_at: u64) {
        let roles = self.role_sets.take(roles);
        let kept = self.kept_mut(slot);
        kept.expires_at = expires_at;
        let old = std::mem::replace(&mut kept.roles, roles);
        self.role_sets.give_back(&old);
        self.touch(slot);
    }

    /// Moves the place up to which the effects of a stream's events have acted. Of a room that was left, perhaps by that
    /// event, nothing is kept: only streams of the session's scopes are, which are few.
    pub(super) fn acted(&mut self, slot: Slot, place: Position) {
        let rooms = || self.kept(slot).scopes.iter().map(|entered| &entered.scope);
        if place.stream.contains("/room:") && !rooms().any(|scope| scope.has_stream(&place.stream)) {
            return;
        }
        let acted = &mut self.extras.entry(slot).or_default().acted;
        match acted.iter_mut().find(|known| known.stream == place.stream) {
            Some(known) => *known = place,
            None => acted.push(place),
        }
        self.touch(slot);
    }

    /// The record with all that is kept beside it.
    pub(super) fn whole(&self, slot: Slot) -> Whole {
        let standing = match self.kept(slot).owner {
            Owner::Attached { to, number } => Standing::Attached(to, number),
            Owner::Detached { until, .. } => Standing::Detached(until),
        };
        let owed = self.extras.get(&slot).map(|extra| extra.owed.clone()).unwrap_or_default();
        Whole { record: self.record(slot), token: self.kept(slot).token, standing, owed }
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
                Owner::Attached { to, .. } => Some(to),
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
            Owner::Attached { .. } => unreachable!("only detached records are in the list"),
        }
    }

    fn touch(&mut self, slot: Slot) {
        let session = self.kept(slot).session;
        if let Some(touched) = &mut self.touched {
            touched.insert(session);
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
mod tests;
