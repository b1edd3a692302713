//! Who sits where: players of rooms with the sessions they came with, and when a place is given up. Shared by the services
//! that have rooms.
//!
//! Law: a seat is held for a session; it is sure while presence says that the session is connected and in the room, and
//! else ends at its deadline. A seat that presence has not confirmed yet has one too, so that a session that was gone
//! before its command was carried out leaves no ghost.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{NEVER, as_text};
use crate::id::SessionId;
use crate::limits;
use crate::time::WallMillis;

/// A user in a room.
#[derive(Clone, Serialize, Deserialize, Debug)]
pub(super) struct Player {
    pub(super) user: Box<str>,
    pub(super) name: Box<str>,
    seats: Vec<Seat>,
}

/// A session of a player.
#[derive(Clone, Copy, Serialize, Deserialize, Debug)]
struct Seat {
    #[serde(with = "as_text")]
    session: SessionId,
    /// When it is given up; `None` while the session is surely there.
    until: Option<WallMillis>,
}

impl Player {
    /// A player without a seat.
    pub(super) fn new(user: &str, name: &str) -> Self {
        Self { user: user.into(), name: name.into(), seats: Vec::new() }
    }

    /// Sits down, until presence confirms it or `until` comes; returns the session whose seat it took for that.
    pub(super) fn sit(&mut self, session: SessionId, until: WallMillis) -> Option<SessionId> {
        if self.seats.iter().any(|seat| seat.session == session) {
            return None;
        }
        let full = self.seats.len() == limits::SEATS_PER_PLAYER;
        let former = full.then(|| self.seats.remove(0).session);
        self.seats.push(Seat { session, until: Some(until) });
        former
    }

    /// Presence saw the session: it is here.
    pub(super) fn seen(&mut self, session: SessionId) {
        self.seats.iter_mut().filter(|seat| seat.session == session).for_each(|seat| seat.until = None);
    }

    /// Presence saw the session go: its seat is held until then, or as long as it is already.
    pub(super) fn missed(&mut self, session: SessionId, until: WallMillis) {
        let seats = self.seats.iter_mut().filter(|seat| seat.session == session);
        seats.for_each(|seat| seat.until = Some(seat.until.map_or(until, |held| held.min(until))));
    }

    /// Gives a session's seat up.
    pub(super) fn rise(&mut self, session: SessionId) {
        self.seats.retain(|seat| seat.session != session);
    }

    /// Gives up what is due; returns whose seats those were.
    pub(super) fn expire(&mut self, now: WallMillis) -> Vec<SessionId> {
        let due = |seat: &Seat| seat.until.is_some_and(|until| until <= now);
        let gone = self.seats.iter().filter(|seat| due(seat)).map(|seat| seat.session).collect();
        self.seats.retain(|seat| !due(seat));
        gone
    }

    /// Puts a deadline to all seats that have none; returns whether there was one.
    pub(super) fn doubt(&mut self, until: WallMillis) -> bool {
        let mut sure = self.seats.iter_mut().filter(|seat| seat.until.is_none()).peekable();
        let any = sure.peek().is_some();
        sure.for_each(|seat| seat.until = Some(until));
        any
    }

    /// Whether it has no seat left.
    pub(super) fn is_gone(&self) -> bool {
        self.seats.is_empty()
    }

    /// When the next seat is given up.
    pub(super) fn deadline(&self) -> WallMillis {
        self.seats.iter().filter_map(|seat| seat.until).min().unwrap_or(NEVER)
    }

    /// Its sessions.
    pub(super) fn sessions(&self) -> impl Iterator<Item = SessionId> {
        self.seats.iter().map(|seat| seat.session)
    }
}

/// Which rooms a session sits in.
#[derive(Default, Debug)]
pub(super) struct Whereabouts(BTreeMap<SessionId, BTreeSet<Box<str>>>);

impl Whereabouts {
    /// It sits in the room.
    pub(super) fn add(&mut self, session: SessionId, room: &str) {
        self.0.entry(session).or_default().insert(room.into());
    }

    /// It does not sit in the room any more.
    pub(super) fn remove(&mut self, session: SessionId, room: &str) {
        if let Some(rooms) = self.0.get_mut(&session) {
            rooms.remove(room);
            if rooms.is_empty() {
                self.0.remove(&session);
            }
        }
    }

    /// The rooms it sits in.
    pub(super) fn of(&self, session: SessionId) -> Vec<Box<str>> {
        self.0.get(&session).map(|rooms| rooms.iter().cloned().collect()).unwrap_or_default()
    }
}

/// Rooms by their next deadline.
#[derive(Default, Debug)]
pub(super) struct Deadlines {
    queue: BTreeSet<(WallMillis, Box<str>)>,
    by_room: BTreeMap<Box<str>, WallMillis>,
}

impl Deadlines {
    /// The room's next deadline, in place of the one it had.
    pub(super) fn set(&mut self, room: &str, at: WallMillis) {
        if let Some(former) = self.by_room.remove(room) {
            self.queue.remove(&(former, room.into()));
        }
        if at != NEVER {
            self.by_room.insert(room.into(), at);
            self.queue.insert((at, room.into()));
        }
    }

    /// The earliest.
    pub(super) fn next(&self) -> WallMillis {
        self.queue.first().map_or(NEVER, |(at, _)| *at)
    }

    /// The earliest, if it has come.
    pub(super) fn due(&self, now: WallMillis) -> Option<(WallMillis, Box<str>)> {
        self.queue.first().filter(|(at, _)| *at <= now).cloned()
    }
}
