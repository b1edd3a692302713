//! Rooms of any game type, and bigger_dice in those of its own (PROTOCOLS A): create, join, leave, list, roll.
//!
//! Laws: a room never has more players than its capacity, and a user is one player of a room however many sessions sit
//! there; names are unique; a player who loses the last connection keeps the place for the resume window; an empty room
//! ends after one. Passwords (seals of them, in the gateway's commands) are kept as Argon2 hashes only and enter no event: hashing is [`Work`] that leaves with a
//! ticket and comes back through [`Rooms::finish`]. A wrong password is answered a fixed time behind its command, and
//! guesses are counted, so that neither time nor patience finds it out.

mod commands;
mod game;
mod room;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::seats::{Deadlines, Player, Whereabouts};
use super::{NEVER, Outbox, Refused, Sender, Sighting, SightingKind, after, as_text, record};
use crate::id::{EventId, Scope, SessionId};
use crate::message::ErrorCode;
use crate::ports::Write;
use crate::time::WallMillis;
use room::{LobbyJoined, Person, PlayerMoved, Room, RoomCreated};

/// All rooms. See the module.
#[derive(Debug)]
pub struct Rooms {
    rooms: BTreeMap<Box<str>, Room>,
    by_name: BTreeMap<Box<str>, Box<str>>,
    /// In the order in which they were made.
    by_age: BTreeSet<(WallMillis, Box<str>)>,
    /// The same by game type.
    by_type: BTreeSet<(Box<str>, WallMillis, Box<str>)>,
    by_user: BTreeMap<Box<str>, BTreeSet<Box<str>>>,
    whereabouts: Whereabouts,
    deadlines: Deadlines,
    /// By ticket.
    pending: BTreeMap<u64, Pending>,
    late: BTreeMap<(WallMillis, EventId), Late>,
    resume_window: Duration,
    secret: [u8; 16],
    /// Records that are behind, by service and key.
    changed: BTreeSet<(&'static str, Box<str>)>,
}

/// A command for rooms; texts as the client sent them.
#[derive(Clone, Copy, Debug)]
pub enum Command<'a> {
    /// `games.command.create_room`.
    Create {
        /// 1–64 of `[A-Za-z0-9._-]`.
        game_type: Option<&'a str>,
        /// The new room's name.
        room_name: Option<&'a str>,
        /// `None` or empty = open to all.
        password: Option<&'a str>,
        /// Capacity, if it is not the game's.
        max_players: Option<&'a str>,
    },
    /// `games.command.join_room`.
    Join {
        /// By name,
        room_name: Option<&'a str>,
        /// or by id, which goes first.
        room_id: Option<&'a str>,
        /// What the client thinks is the password.
        password: Option<&'a str>,
    },
    /// `games.command.leave_room`.
    Leave {
        /// The room.
        room_id: Option<&'a str>,
    },
    /// `games.command.list_rooms`.
    List {
        /// Only rooms of this type.
        game_type: Option<&'a str>,
    },
    /// `games.command.bigger_dice.roll`.
    Roll {
        /// The room.
        room_id: Option<&'a str>,
    },
}

/// A password to be hashed, away from the service's thread.
#[derive(Clone, PartialEq, Eq)]
pub struct Work {
    /// Names the command that waits for it.
    pub ticket: u64,
    /// What to do.
    pub task: Task,
}

/// See [`Work`].
#[derive(Clone, PartialEq, Eq)]
pub enum Task {
    /// Make a hash of a new password.
    Hash {
        /// Unique and not secret.
        salt: [u8; 16],
        /// The password.
        password: Box<str>,
    },
    /// Hold a password against a hash.
    Verify {
        /// In PHC form.
        hash: Box<str>,
        /// The password.
        password: Box<str>,
    },
}

impl std::fmt::Debug for Work {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Work").field("ticket", &self.ticket).finish_non_exhaustive()
    }
}

/// What came of [`Work`].
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub enum Outcome {
    /// The hash, in PHC form.
    Hashed(Box<str>),
    /// Whether the password fits.
    Verified(bool),
    /// It was not done.
    Failed,
}

/// A command that waits for its password; what is kept of it has none.
#[derive(Clone, Serialize, Deserialize, Debug)]
struct Pending {
    #[serde(with = "as_text")]
    command: EventId,
    #[serde(with = "as_text")]
    session: SessionId,
    correlation: Option<Box<str>>,
    user: Box<str>,
    name: Box<str>,
    at: WallMillis,
    goal: Goal,
}

#[derive(Clone, Serialize, Deserialize, Debug)]
enum Goal {
    Create { room: Box<str>, room_name: Box<str>, game_type: Box<str>, capacity: u32 },
    Join { room: Box<str> },
}

/// An answer whose time has not come.
#[derive(Clone, Serialize, Deserialize, Debug)]
struct Late {
    due: WallMillis,
    #[serde(with = "as_text")]
    command: EventId,
    #[serde(with = "as_text")]
    session: SessionId,
    correlation: Option<Box<str>>,
    room: Box<str>,
}

impl Rooms {
    /// None. `secret` is what dice are seeded with besides the command's id; it must be the same as before when records
    /// are taken back.
    #[must_use]
    pub fn new(resume_window: Duration, secret: [u8; 16]) -> Self {
        Self {
            rooms: BTreeMap::new(),
            by_name: BTreeMap::new(),
            by_age: BTreeSet::new(),
            by_type: BTreeSet::new(),
            by_user: BTreeMap::new(),
            whereabouts: Whereabouts::default(),
            deadlines: Deadlines::default(),
            pending: BTreeMap::new(),
            late: BTreeMap::new(),
            resume_window,
            secret,
            changed: BTreeSet::new(),
        }
    }

    /// Rooms that there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rooms.len()
    }

    /// Whether there is no room.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rooms.is_empty()
    }

    /// Whether this service has the room.
    #[must_use]
    pub fn has(&self, room: &str) -> bool {
        self.rooms.contains_key(room)
    }

    /// The tickets that are out.
    pub fn tickets(&self) -> impl Iterator<Item = u64> {
        self.pending.keys().copied()
    }

    /// Takes a record of one of [`SERVICES`] back; `false` if it is none.
    pub fn restore(&mut self, service: &str, key: &str, value: &mut [u8]) -> bool {
        match service {
            PENDING => {
                let (Ok(ticket), Ok(pending)) = (key.parse(), simd_json::from_slice(value)) else { return false };
                self.pending.insert(ticket, pending);
            }
            LATE => {
                let Ok(late) = simd_json::from_slice::<Late>(value) else { return false };
                self.late.insert((late.due, late.command), late);
            }
            _ => {
                let Ok(room) = simd_json::from_slice::<Room>(value) else { return false };
                self.index(room);
            }
        }
        true
    }

    /// The records of what has changed since it was asked last.
    pub fn save(&mut self, out: &mut Vec<Write>) {
        for (service, key) in std::mem::take(&mut self.changed) {
            let kept = match service {
                PENDING => {
                    key.parse().ok().and_then(|ticket| self.pending.get(&ticket)).map(|it| record(service, &key, it))
                }
                LATE => self.late.values().find(|it| it.key() == *key).map(|it| record(service, &key, it)),
                _ => self.rooms.get(&key).map(|room| record(service, &key, room)),
            };
            out.push(kept.unwrap_or(Write::Remove { service, key }));
        }
    }

    /// The work that a ticket is out for, anew: `password` is that of its command. `None` if the ticket is not out, or
    /// the room is gone.
    #[must_use]
    pub fn work_again(&self, ticket: u64, password: &str) -> Option<Work> {
        let task = match &self.pending.get(&ticket)?.goal {
            Goal::Create { room, .. } => Task::Hash { salt: salt(room), password: password.into() },
            Goal::Join { room } => {
                let hash = self.rooms.get(room)?.password.clone()?;
                Task::Verify { hash, password: password.into() }
            }
        };
        Some(Work { ticket, task })
    }

    /// When something happens by itself.
    #[must_use]
    pub fn next(&self) -> WallMillis {
        self.deadlines.next().min(self.late.first_key_value().map_or(NEVER, |((due, _), _)| *due))
    }

    /// Does what was due at [`Rooms::next`], if that has come; to be called again until it has not.
    pub fn poll(&mut self, now: WallMillis, out: &mut Outbox) -> bool {
        let late = self.late.first_key_value().map_or(NEVER, |((due, _), _)| *due);
        match self.deadlines.due(now) {
            Some((at, room)) if at <= late => self.expire(at, &room, out),
            _ if late <= now => self.answer_late(out),
            _ => return false,
        }
        true
    }

    /// The work of a ticket is done.
    pub fn finish(&mut self, now: WallMillis, ticket: u64, outcome: Outcome, out: &mut Outbox) {
        let Some(pending) = self.pending.remove(&ticket) else { return };
        self.touch(PENDING, &ticket.to_string());
        out.begin(pending.command, now);
        let sender = pending.sender();
        match (&pending.goal, outcome) {
            (Goal::Create { room, room_name, game_type, capacity }, Outcome::Hashed(hash)) => {
                let mut made = Room::new(room, pending.at, room_name, game_type, *capacity);
                made.password = Some(hash);
                self.open(now, made, &pending, out);
            }
            (Goal::Join { room }, Outcome::Verified(true)) => {
                let admitted = self.admit(now, room, &pending, out);
                if let Err(refused) = admitted {
                    out.refuse(&sender, Some(room), refused);
                }
            }
            (Goal::Join { room }, Outcome::Verified(false)) => self.answer_later(&pending, room),
            (Goal::Create { .. } | Goal::Join { .. }, _) => {
                let text = "the password could not be checked; try again";
                out.refuse(&sender, None, Refused(ErrorCode::Unavailable, text.into()));
            }
        }
    }

    /// What presence says.
    pub fn sighted(&mut self, now: WallMillis, sighting: &Sighting<'_>, out: &mut Outbox) {
        out.begin(sighting.id, now);
        let held = after(now, self.resume_window);
        let rooms = match sighting.kind {
            SightingKind::Joined { room } | SightingKind::Left { room } => vec![room.into()],
            SightingKind::Connected | SightingKind::Disconnected { .. } => self.whereabouts.of(sighting.session),
        };
        for id in rooms {
            let Some(room) = self.rooms.get_mut(&id) else { continue };
            let Some(player) = room.player_of(sighting.session) else { continue };
            let user = player.user.clone();
            match sighting.kind {
                SightingKind::Connected | SightingKind::Joined { .. } => {
                    player.seen(sighting.session);
                }
                SightingKind::Disconnected { kicked: true } => {
                    player.rise(sighting.session);
                    self.whereabouts.remove(sighting.session, &id);
                }
                // A leave that crossed a new join is followed by its `joined`.
                SightingKind::Disconnected { .. } | SightingKind::Left { .. } => {
                    player.missed(sighting.session, held);
                }
            }
            if self.rooms[&id].player(&user).is_some_and(Player::is_gone) {
                self.remove_player(now, &id, &user, "kicked", out);
            }
            self.changed(&id);
        }
    }

    /// The gateways were started anew and have no connection: every seat is held for a resume window from when they were
    /// last alive, as the sessions are.
    pub fn doubt_all(&mut self, alive: WallMillis) {
        let until = after(alive, self.resume_window);
        let mut doubted = Vec::new();
        for room in self.rooms.values_mut() {
            let any = room.players.iter_mut().fold(false, |any, player| player.doubt(until) | any);
            if any {
                doubted.push(room.id.clone());
            }
        }
        doubted.iter().for_each(|room| self.changed(room));
    }

    fn expire(&mut self, at: WallMillis, id: &str, out: &mut Outbox) {
        out.begin_deadline(id, at);
        let room = self.rooms.get_mut(id).expect("a deadline belongs to a room");
        let mut gone = Vec::new();
        for player in &mut room.players {
            for session in player.expire(at) {
                self.whereabouts.remove(session, id);
            }
            if player.is_gone() {
                gone.push(player.user.clone());
            }
        }
        for user in gone {
            self.remove_player(at, id, &user, "disconnected", out);
        }
        if self.rooms[id].empty_until.is_some_and(|until| until <= at) {
            self.end(id, out);
        } else {
            self.changed(id);
        }
    }

    /// The room ends; nobody is in it.
    fn end(&mut self, id: &str, out: &mut Outbox) {
        let Some(room) = self.rooms.remove(id) else { return };
        self.by_name.remove(&room.name);
        self.by_age.remove(&(room.made, room.id.clone()));
        self.by_type.remove(&(room.game_type, room.made, room.id));
        self.deadlines.set(id, NEVER);
        self.touch(ROOMS, id);
        out.writes.push(Write::RemoveRoom { room: id.into() });
    }

    /// A new room with its host.
    fn open(&mut self, now: WallMillis, mut room: Room, host: &Pending, out: &mut Outbox) {
        let mut player = Player::new(&host.user, &host.name);
        player.sit(host.session, after(now, self.resume_window));
        room.players.push(player);
        let created = RoomCreated {
            room_id: &room.id,
            room_name: &room.name,
            game_type: &room.game_type,
            host_id: &host.user,
            host_name: &host.name,
            is_password_protected: room.password.is_some(),
            max_players: room.capacity,
            correlation_id: host.correlation.as_deref(),
        };
        out.emit("games.event.room_created", Scope::Session(host.session), &room.id, &created);
        let id = room.id.clone();
        self.index(room);
        self.changed(&id);
    }

    /// Somebody who may, joins; or a player does with another session.
    fn admit(&mut self, now: WallMillis, id: &str, who: &Pending, out: &mut Outbox) -> Result<(), Refused> {
        let until = after(now, self.resume_window);
        let may = self.may_enter(id, &who.user)?;
        let room = self.rooms.get_mut(id).expect("who may enter a room has one");
        room.forget_guesses(&who.user);
        if may == Entry::New {
            room.players.push(Player::new(&who.user, &who.name));
            room.empty_until = None;
            self.by_user.entry(who.user.clone()).or_default().insert(id.into());
            let player = Person { user_id: &who.user, username: &who.name };
            let host_id = room.players.first().map(|host| &*host.user);
            out.tell("games.event.player_joined", id, &PlayerMoved { room_id: id, player, host_id, reason: None });
        }
        let player = room.player_mut(&who.user).expect("the player has just joined, or was there");
        if let Some(former) = player.sit(who.session, until) {
            self.whereabouts.remove(former, id);
        }
        self.whereabouts.add(who.session, id);
        let room = &self.rooms[id];
        let joined = LobbyJoined {
            room_id: id,
            room_name: &room.name,
            game_type: &room.game_type,
            host_id: &room.players[0].user,
            player: Person { user_id: &who.user, username: &who.name },
            players: room.people(),
            max_players: room.capacity,
            turn: room.game.as_ref().map(super::bigger_dice::Dice::turn),
            scores: room.scores(),
            correlation_id: who.correlation.as_deref(),
        };
        out.emit("games.event.lobby_joined", Scope::Session(who.session), id, &joined);
        self.changed(id);
        Ok(())
    }

    /// A player without a seat leaves, and the others are told.
    fn remove_player(&mut self, now: WallMillis, id: &str, user: &str, reason: &'static str, out: &mut Outbox) {
        let Some(room) = self.rooms.get_mut(id) else { return };
        let Some(at) = room.players.iter().position(|player| *player.user == *user) else { return };
        let player = room.players.remove(at);
        let host_id = room.players.first().map(|host| &*host.user);
        let left = PlayerMoved { room_id: id, player: Person::of(&player), host_id, reason: Some(reason) };
        out.tell("games.event.player_left", id, &left);
        for session in player.sessions() {
            self.whereabouts.remove(session, id);
        }
        if let Some(rooms) = self.by_user.get_mut(user) {
            rooms.remove(id);
            if rooms.is_empty() {
                self.by_user.remove(user);
            }
        }
        if room.players.is_empty() {
            room.empty_until = Some(after(now, self.resume_window));
        }
        game::player_left(room, user, out);
    }

    fn answer_later(&mut self, pending: &Pending, room: &str) {
        let late = Late {
            due: after(pending.at, crate::limits::WRONG_PASSWORD_DELAY),
            command: pending.command,
            session: pending.session,
            correlation: pending.correlation.clone(),
            room: room.into(),
        };
        self.touch(LATE, &late.key());
        self.late.insert((late.due, late.command), late);
    }

    fn answer_late(&mut self, out: &mut Outbox) {
        let Some((_, late)) = self.late.pop_first() else { return };
        self.touch(LATE, &late.key());
        out.begin(late.command, late.due);
        let sender =
            Sender { command: late.command, session: Some(late.session), correlation: late.correlation.as_deref() };
        let text = "the room has another password";
        out.refuse(&sender, Some(&late.room), Refused(ErrorCode::WrongPassword, text.into()));
    }

    fn index(&mut self, room: Room) {
        self.by_name.insert(room.name.clone(), room.id.clone());
        self.by_age.insert((room.made, room.id.clone()));
        self.by_type.insert((room.game_type.clone(), room.made, room.id.clone()));
        for player in &room.players {
            self.by_user.entry(player.user.clone()).or_default().insert(room.id.clone());
            player.sessions().for_each(|session| self.whereabouts.add(session, &room.id));
        }
        self.deadlines.set(&room.id, room.deadline());
        self.rooms.insert(room.id.clone(), room);
    }

    /// The room's record is behind, and its deadline may be another.
    fn changed(&mut self, room: &str) {
        let deadline = self.rooms.get(room).map_or(NEVER, Room::deadline);
        self.deadlines.set(room, deadline);
        self.touch(ROOMS, room);
    }

    fn touch(&mut self, service: &'static str, key: &str) {
        self.changed.insert((service, key.into()));
    }
}

/// How one may enter a room.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Entry {
    /// As a player it has.
    Again,
    /// As a new player.
    New,
}

impl Pending {
    fn sender(&self) -> Sender<'_> {
        Sender { command: self.command, session: Some(self.session), correlation: self.correlation.as_deref() }
    }
}

impl Late {
    /// Its record's name, unique since a command is answered once.
    fn key(&self) -> String {
        self.command.to_string()
    }
}

/// A room's salt: its id, which is unique.
fn salt(room: &str) -> [u8; 16] {
    EventId::v5(b"ringgatepassword", &[room.as_bytes()]).0
}

/// Whose records these are in the store.
pub const SERVICES: [&str; 3] = [ROOMS, PENDING, LATE];
/// Whose records are rooms, by their ids.
pub const ROOMS: &str = "rooms";
const PENDING: &str = "rooms.pending";
const LATE: &str = "rooms.late";
