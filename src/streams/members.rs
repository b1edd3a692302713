//! The connections of one shard by scope and stream: who gets a batch that a home sent here.
//!
//! A slot that is identified belongs to the scopes of its user, its session and to everyone; these cost nothing until
//! one of them has a stream. A room's members are listed. Every stream has a dense list of the slots that receive its
//! batches live; a slot that catches up has a seat without a place in that list.
//!
//! Invariant: a seat with place `p` in stream `s` means `live(s)[p]` is its slot, and the other way round.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::Arc;

use foldhash::fast::FixedState;
use hashbrown::HashTable;

use crate::id::{Scope, SessionId, StreamHandle};
use crate::message::Introduction;
use crate::packed::Packed;

/// See the module.
#[derive(Debug)]
pub struct Members {
    slots: Vec<Option<Box<Slot>>>,
    scopes: HashMap<Scope, LocalScope, FixedState>,
    streams: HashMap<StreamHandle, LocalStream, FixedState>,
    /// First slot of each user, by the hash of the id; the others are chained.
    users: HashTable<u32>,
    /// The slot that carries each session, by the hash of its id.
    sessions: HashTable<u32>,
    hasher: FixedState,
}

#[derive(Debug)]
struct Slot {
    user: Arc<str>,
    session: SessionId,
    next_of_user: u32,
    previous_of_user: u32,
    /// Which of the own scopes (user, session, everyone) were joined; bit by [`own_bit`].
    own: u8,
    publisher: bool,
    scopes: Packed<ScopeSeat>,
    streams: Packed<Seat>,
}

#[derive(Debug)]
struct ScopeSeat {
    scope: Scope,
    position: u32,
}

/// A slot's seat in a stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Seat {
    /// The stream.
    pub stream: StreamHandle,
    position: u32,
}

#[derive(Default, Debug)]
struct LocalScope {
    members: Vec<u32>,
    streams: Vec<Arc<Introduction>>,
    /// Joins that were sent and not yet answered.
    pending: u32,
}

#[derive(Default, Debug)]
struct LocalStream {
    live: Vec<u32>,
    /// Slots that catch up or are live.
    seats: u32,
    /// Slots whose cursor waits for the stream to move.
    waiting: Vec<u32>,
}

impl Seat {
    /// Whether the slot receives the stream's batches as they come.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.position != NONE
    }
}

impl Members {
    /// Nobody; `seed` makes the hashes unpredictable for clients.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let hasher = FixedState::with_seed(seed);
        Self {
            slots: Vec::new(),
            scopes: HashMap::with_hasher(hasher.clone()),
            streams: HashMap::with_hasher(hasher.clone()),
            users: HashTable::new(),
            sessions: HashTable::new(),
            hasher,
        }
    }

    /// The slot now carries this session. It must carry none.
    pub fn identify(&mut self, slot: u32, user: Arc<str>, session: SessionId, publisher: bool) {
        let index = slot as usize;
        if self.slots.len() <= index {
            self.slots.resize_with(index + 1, || None);
        }
        debug_assert!(self.slots[index].is_none(), "a slot carries one session");
        let next = self.put_first_of_user(&user, slot);
        if let Some(follower) = self.slot_mut(next) {
            follower.previous_of_user = slot;
        }
        self.put_of_session(session, slot);
        self.slots[index] = Some(Box::new(Slot {
            user,
            session,
            next_of_user: next,
            previous_of_user: NONE,
            own: 0,
            publisher,
            scopes: Packed::default(),
            streams: Packed::default(),
        }));
    }

    /// A join of the scope was sent to its home.
    pub fn expect_join(&mut self, scope: &Scope) {
        if let Scope::Room(_) = scope {
            self.scopes.entry(scope.clone()).or_default().pending += 1;
        }
    }

    /// A join was answered, whatever the answer, and the member (if it still is one) confirmed; `true` if the shard now
    /// has nobody in the scope, so that the home must be told.
    pub fn join_answered(&mut self, scope: &Scope) -> bool {
        let Some(local) = self.scopes.get_mut(scope) else { return false };
        local.pending = local.pending.saturating_sub(1);
        self.drop_if_empty(scope)
    }

    /// The slot is a member of the scope from here on. Its seats are taken stream by stream, by [`Members::seat`].
    /// A second confirmation changes nothing.
    pub fn confirm(&mut self, slot: u32, scope: &Scope, streams: impl Iterator<Item = Arc<Introduction>>) {
        if self.slot(slot).is_none() {
            return;
        }
        let mut streams = streams.peekable();
        if let Some(bit) = own_bit(scope) {
            self.slot_mut(slot).expect("checked above").own |= bit;
            if streams.peek().is_none() {
                return;
            }
        }
        self.enter(slot, scope);
        let local = self.scopes.entry(scope.clone()).or_default();
        for introduction in streams {
            if !local.streams.iter().any(|known| known.handle == introduction.handle) {
                local.streams.push(introduction);
            }
        }
    }

    /// A stream appeared in a scope: every member takes a live seat; returns those slots, which must be told first.
    pub fn introduce(&mut self, scope: &Scope, introduction: &Arc<Introduction>) -> Vec<u32> {
        let candidates = self.candidates(scope);
        let told: Vec<u32> = candidates
            .into_iter()
            .filter(|&slot| {
                self.slot(slot).is_some_and(|state| {
                    let joined = own_bit(scope).is_none_or(|bit| state.own & bit != 0);
                    joined && (state.publisher || !introduction.publishers_only)
                })
            })
            .collect();
        for &slot in &told {
            self.enter(slot, scope);
        }
        if let Some(local) = self.scopes.get_mut(scope)
            && !local.streams.iter().any(|known| known.handle == introduction.handle)
        {
            local.streams.push(Arc::clone(introduction));
        }
        told.into_iter().filter(|&slot| self.seat(slot, introduction.handle, true)).collect()
    }

    /// Takes a seat in a stream, live or catching up; `false` if the slot has one.
    pub fn seat(&mut self, slot: u32, stream: StreamHandle, live: bool) -> bool {
        let Some(state) = self.slots.get_mut(slot as usize).and_then(Option::as_mut) else { return false };
        if state.streams.iter().any(|seat| seat.stream == stream) {
            return false;
        }
        let local = self.streams.entry(stream).or_default();
        local.seats += 1;
        let position = if live { local.push_live(slot) } else { NONE };
        state.streams.push(Seat { stream, position });
        true
    }

    /// A slot that caught up receives the stream's batches from here on.
    pub fn go_live(&mut self, slot: u32, stream: StreamHandle) {
        let Some(state) = self.slots.get_mut(slot as usize).and_then(Option::as_mut) else { return };
        let seat = state.streams.iter_mut().find(|seat| seat.stream == stream && !seat.is_live());
        if let (Some(seat), Some(local)) = (seat, self.streams.get_mut(&stream)) {
            seat.position = local.push_live(slot);
        }
    }

    /// The slot's cursor waits until the stream moves.
    pub fn wait(&mut self, slot: u32, stream: StreamHandle) {
        if let Some(local) = self.streams.get_mut(&stream) {
            local.waiting.push(slot);
        }
    }

    /// The slots that waited for the stream to move.
    pub fn take_waiting(&mut self, stream: StreamHandle) -> Vec<u32> {
        self.streams.get_mut(&stream).map(|local| std::mem::take(&mut local.waiting)).unwrap_or_default()
    }

    /// The slots that receive the stream's batches as they come.
    #[must_use]
    pub fn live(&self, stream: StreamHandle) -> &[u32] {
        self.streams.get(&stream).map_or(&[], |local| &local.live)
    }

    /// The slot's seats.
    #[must_use]
    pub fn seats(&self, slot: u32) -> &[Seat] {
        self.slot(slot).map_or(&[], |state| &state.streams)
    }

    /// The streams of a scope that has members here.
    #[must_use]
    pub fn scope_streams(&self, scope: &Scope) -> &[Arc<Introduction>] {
        self.scopes.get(scope).map_or(&[], |local| &local.streams)
    }

    /// The slots of a user.
    #[must_use]
    pub fn of_user(&self, user: &str) -> Vec<u32> {
        let mut found = Vec::new();
        let is_user = |slot: &u32| *identified(&self.slots, *slot).user == *user;
        let mut next = self.users.find(self.hasher.hash_one(user), is_user).copied().unwrap_or(NONE);
        while let Some(state) = self.slot(next) {
            found.push(next);
            next = state.next_of_user;
        }
        found
    }

    /// The stream is over: the slots that have a seat in it. It looks at every slot, for it happens hardly ever.
    #[must_use]
    pub fn broken(&mut self, stream: StreamHandle) -> Vec<u32> {
        for local in self.scopes.values_mut() {
            local.streams.retain(|known| known.handle != stream);
        }
        let seated = |slot: &u32| self.seats(*slot).iter().any(|seat| seat.stream == stream);
        (0..u32::try_from(self.slots.len()).unwrap_or(u32::MAX)).filter(seated).collect()
    }

    /// The slot leaves the scope and its streams; `true` if the shard now has nobody in it.
    pub fn leave(&mut self, slot: u32, scope: &Scope) -> bool {
        let Some(state) = self.slots.get_mut(slot as usize).and_then(Option::as_mut) else { return false };
        let Some(at) = state.scopes.iter().position(|seat| seat.scope == *scope) else { return false };
        let position = state.scopes.remove(at).position;
        let Some(local) = self.scopes.get_mut(scope) else { return false };
        let left: Vec<StreamHandle> = local.streams.iter().map(|introduction| introduction.handle).collect();
        local.members.swap_remove(position as usize);
        if let Some(&moved) = local.members.get(position as usize) {
            let seat = self.slot_mut(moved).and_then(|state| state.scopes.iter_mut().find(|seat| seat.scope == *scope));
            seat.expect("a listed member has a scope seat").position = position;
        }
        for stream in left {
            self.unseat(slot, stream);
        }
        self.drop_if_empty(scope)
    }

    /// The slot carries no session any more; returns the scopes that the shard now has nobody in.
    pub fn remove(&mut self, slot: u32) -> Vec<Scope> {
        let Some(state) = self.slot(slot) else { return Vec::new() };
        let scopes: Vec<Scope> = state.scopes.iter().map(|seat| seat.scope.clone()).collect();
        let empty = scopes.into_iter().filter(|scope| self.leave(slot, scope)).collect();
        let Some(state) = self.slots.get_mut(slot as usize).and_then(Option::take) else { return empty };
        let this = |other: &u32| *other == slot;
        // A later slot may have taken the session over.
        if let Ok(entry) = self.sessions.find_entry(self.hasher.hash_one(state.session), this) {
            entry.remove();
        }
        if let Some(previous) = self.slot_mut(state.previous_of_user) {
            previous.next_of_user = state.next_of_user;
        } else if let Ok(mut first) = self.users.find_entry(self.hasher.hash_one(&*state.user), this) {
            match state.next_of_user {
                NONE => drop(first.remove()),
                next => *first.get_mut() = next,
            }
        }
        if let Some(next) = self.slot_mut(state.next_of_user) {
            next.previous_of_user = state.previous_of_user;
        }
        empty
    }

    /// Checks the invariants of the module; for tests and simulations.
    ///
    /// # Panics
    /// If one is broken.
    pub fn check(&self) {
        for (stream, local) in &self.streams {
            assert!(local.seats as usize >= local.live.len());
            for (position, slot) in local.live.iter().enumerate() {
                let seats = self.seats(*slot);
                let seat = seats.iter().find(|seat| seat.stream == *stream).expect("a live slot has a seat");
                assert_eq!(seat.position as usize, position);
            }
        }
        for (scope, local) in &self.scopes {
            assert!(local.pending > 0 || !local.members.is_empty(), "{scope} is kept for nobody");
            for (position, slot) in local.members.iter().enumerate() {
                let state = self.slot(*slot).expect("a member is identified");
                let seat = state.scopes.iter().find(|seat| seat.scope == *scope).expect("a member has a seat");
                assert_eq!(seat.position as usize, position);
            }
        }
    }

    /// How many sessions, scopes and streams the shard knows; all zero when nobody is connected.
    #[must_use]
    pub fn sizes(&self) -> (usize, usize, usize) {
        (self.sessions.len(), self.scopes.len(), self.streams.len())
    }

    fn slot(&self, slot: u32) -> Option<&Slot> {
        self.slots.get(slot as usize)?.as_deref()
    }

    fn slot_mut(&mut self, slot: u32) -> Option<&mut Slot> {
        self.slots.get_mut(slot as usize)?.as_deref_mut()
    }

    fn of_session(&self, session: SessionId) -> Option<u32> {
        let is_session = |slot: &u32| identified(&self.slots, *slot).session == session;
        self.sessions.find(self.hasher.hash_one(session), is_session).copied()
    }

    /// Makes the slot the user's first; returns the one that was, or `NONE`.
    fn put_first_of_user(&mut self, user: &str, slot: u32) -> u32 {
        let Self { slots, users, hasher, .. } = self;
        let user_of = |slot: &u32| &*identified(slots, *slot).user;
        let hash = hasher.hash_one(user);
        if let Some(first) = users.find_mut(hash, |slot| user_of(slot) == user) {
            return std::mem::replace(first, slot);
        }
        users.insert_unique(hash, slot, |slot| hasher.hash_one(user_of(slot)));
        NONE
    }

    /// Makes the slot the one that carries the session.
    fn put_of_session(&mut self, session: SessionId, slot: u32) {
        let Self { slots, sessions, hasher, .. } = self;
        let session_of = |slot: &u32| identified(slots, *slot).session;
        let hash = hasher.hash_one(session);
        match sessions.find_mut(hash, |slot| session_of(slot) == session) {
            Some(carrier) => *carrier = slot,
            None => drop(sessions.insert_unique(hash, slot, |slot| hasher.hash_one(session_of(slot)))),
        }
    }

    fn candidates(&self, scope: &Scope) -> Vec<u32> {
        match scope {
            Scope::Room(_) => self.scopes.get(scope).map(|local| local.members.clone()).unwrap_or_default(),
            Scope::User(user) => self.of_user(user),
            Scope::Session(session) => self.of_session(*session).into_iter().collect(),
            Scope::Everyone => {
                let slots = self.slots.iter().enumerate();
                slots.filter(|(_, state)| state.is_some()).map(|(slot, _)| slot as u32).collect()
            }
        }
    }

    fn enter(&mut self, slot: u32, scope: &Scope) {
        let Some(state) = self.slots.get_mut(slot as usize).and_then(Option::as_mut) else { return };
        if state.scopes.iter().any(|seat| seat.scope == *scope) {
            return;
        }
        let local = self.scopes.entry(scope.clone()).or_default();
        let seat = ScopeSeat { scope: scope.clone(), position: local.members.len() as u32 };
        local.members.push(slot);
        state.scopes.push(seat);
    }

    fn unseat(&mut self, slot: u32, stream: StreamHandle) {
        let Some(state) = self.slots.get_mut(slot as usize).and_then(Option::as_mut) else { return };
        let Some(at) = state.streams.iter().position(|seat| seat.stream == stream) else { return };
        let seat = state.streams.remove(at);
        let Some(local) = self.streams.get_mut(&stream) else { return };
        local.seats -= 1;
        local.waiting.retain(|waiting| *waiting != slot);
        if seat.is_live() {
            local.live.swap_remove(seat.position as usize);
            if let Some(&moved) = local.live.get(seat.position as usize) {
                let state = self.slots.get_mut(moved as usize).and_then(Option::as_mut);
                let moved = state.and_then(|state| state.streams.iter_mut().find(|seat| seat.stream == stream));
                moved.expect("a live slot has a seat").position = seat.position;
            }
        }
        if self.streams.get(&stream).is_some_and(|local| local.seats == 0) {
            self.streams.remove(&stream);
        }
    }

    fn drop_if_empty(&mut self, scope: &Scope) -> bool {
        let empty = self.scopes.get(scope).is_some_and(|local| local.pending == 0 && local.members.is_empty());
        if empty {
            self.scopes.remove(scope);
        }
        empty && matches!(scope, Scope::Room(_))
    }
}

impl LocalStream {
    fn push_live(&mut self, slot: u32) -> u32 {
        self.live.push(slot);
        self.live.len() as u32 - 1
    }
}

/// The state of a slot that an index names.
fn identified(slots: &[Option<Box<Slot>>], slot: u32) -> &Slot {
    slots[slot as usize].as_deref().expect("an index names slots that carry a session")
}

/// The scopes every session belongs to have a bit; rooms have none.
fn own_bit(scope: &Scope) -> Option<u8> {
    match scope {
        Scope::Room(_) => None,
        Scope::User(_) => Some(1),
        Scope::Session(_) => Some(2),
        Scope::Everyone => Some(4),
    }
}

const NONE: u32 = u32::MAX;

/// What an idle member costs (DESIGN §10: 1,000 B with everything); size classes of the allocator.
const _: () = assert!(size_of::<Slot>() <= 80 && size_of::<ScopeSeat>() <= 32 && size_of::<Seat>() <= 8);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Position;

    fn room(name: &str) -> Scope {
        Scope::Room(name.into())
    }

    fn introduction(handle: u32, publishers_only: bool) -> Arc<Introduction> {
        let position = Position { stream: format!("s{handle}").into(), epoch: 1, place: 0 };
        Arc::new(Introduction { handle: StreamHandle(handle), position, publishers_only })
    }

    fn identified(count: u32) -> Members {
        let mut members = Members::new(1);
        for slot in 0..count {
            let user = if slot % 2 == 0 { "even" } else { "odd" };
            members.identify(slot, user.into(), SessionId([slot as u8; 16]), slot == 0);
        }
        members
    }

    /// Members that leave from the middle keep everybody else's seat right, and the last one out is reported.
    #[test]
    fn seats_stay_right_when_members_leave() {
        let mut members = identified(5);
        let stream = introduction(7, false);
        for slot in 0..5 {
            members.expect_join(&room("a"));
            members.confirm(slot, &room("a"), std::iter::once(Arc::clone(&stream)));
            assert!(members.seat(slot, stream.handle, slot != 3));
            assert!(!members.join_answered(&room("a")));
        }
        members.check();
        assert_eq!(members.live(stream.handle), [0, 1, 2, 4]);
        members.go_live(3, stream.handle);
        assert!(!members.leave(1, &room("a")));
        members.check();
        for slot in [0, 3, 4] {
            assert!(members.remove(slot).is_empty());
            members.check();
        }
        assert_eq!(members.live(stream.handle), [2]);
        assert_eq!(members.remove(2), [room("a")]);
        assert_eq!(members.sizes(), (1, 0, 0));
    }

    /// A user's scope costs nothing until it has a stream, and then reaches exactly the user's joined slots.
    #[test]
    fn own_scopes_are_seated_when_a_stream_appears() {
        let mut members = identified(4);
        let scope = Scope::User("even".into());
        members.confirm(0, &scope, std::iter::empty());
        assert_eq!(members.sizes(), (4, 0, 0));
        assert_eq!(members.introduce(&scope, &introduction(3, false)), [0], "slot 2 has not joined yet");
        assert_eq!(members.live(StreamHandle(3)), [0]);
        assert_eq!(members.of_user("even"), [2, 0]);
        members.remove(2);
        assert_eq!(members.of_user("even"), [0]);
        members.check();
    }

    /// A room's input stream seats publishers only.
    #[test]
    fn input_streams_are_for_publishers() {
        let mut members = identified(2);
        for slot in 0..2 {
            members.expect_join(&room("a"));
            members.confirm(slot, &room("a"), std::iter::empty());
            members.join_answered(&room("a"));
        }
        assert_eq!(members.introduce(&room("a"), &introduction(9, true)), [0]);
        members.check();
    }

    /// A join on its way keeps the scope, so that its home is not told to leave too early.
    #[test]
    fn a_pending_join_keeps_the_scope() {
        let mut members = identified(2);
        members.expect_join(&room("a"));
        members.expect_join(&room("a"));
        members.confirm(0, &room("a"), std::iter::empty());
        assert!(!members.join_answered(&room("a")));
        assert!(!members.leave(0, &room("a")), "the other join is still on its way");
        assert!(members.join_answered(&room("a")), "it was refused: now nobody is left");
        assert_eq!(members.sizes().1, 0);
    }
}
