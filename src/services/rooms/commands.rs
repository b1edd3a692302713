//! What clients ask of rooms.

use super::room::{Room, RoomLeft, RoomsListed};
use super::{Command, Entry, Goal, PENDING, Pending, Rooms, Task, Work, game, salt};
use crate::id::{EventId, Scope, SessionId, is_room_id};
use crate::limits;
use crate::message::ErrorCode;
use crate::services::bigger_dice::{GAME_TYPE, PLAYERS_MAX};
use crate::services::{Caller, NEVER, Outbox, Refused, clean};
use crate::time::WallMillis;

impl Rooms {
    /// Carries a command out. `ticket` names it, should it have to wait for its password.
    pub fn handle(
        &mut self,
        now: WallMillis,
        ticket: u64,
        caller: &Caller<'_>,
        command: &Command<'_>,
        out: &mut Outbox,
    ) {
        out.begin(caller.sender.command, now);
        // Without a session nobody could be told, and nobody would sit there.
        let Some(session) = caller.sender.session else { return };
        let by = By { now, ticket, caller, session };
        let (room, outcome) = match *command {
            Command::Create { game_type, room_name, password, max_players } => {
                (None, self.create(&by, game_type, room_name, password, max_players, out))
            }
            Command::Join { room_name, room_id, password } => {
                (room_id, self.join(&by, room_name, room_id, password, out))
            }
            Command::Leave { room_id } => (room_id, self.leave(&by, room_id, out)),
            Command::List { game_type } => {
                self.list(&by, game_type, out);
                (None, Ok(()))
            }
            Command::Roll { room_id } => (room_id, self.roll(&by, room_id, out)),
        };
        if let Err(refused) = outcome {
            out.refuse(&caller.sender, room.filter(|room| is_room_id(room)), refused);
        }
    }

    fn create(
        &mut self,
        by: &By<'_>,
        game_type: Option<&str>,
        room_name: Option<&str>,
        password: Option<&str>,
        max_players: Option<&str>,
        out: &mut Outbox,
    ) -> Result<(), Refused> {
        let game_type = game_type.filter(|game_type| is_room_id(game_type));
        let game_type = game_type.ok_or_else(|| Refused::bad("game_type must be 1–64 of A-Z a-z 0-9 . _ -"))?;
        let room_name = clean("room_name", room_name, limits::ROOM_NAME_CHARS)?;
        let password = checked_password(password)?;
        let capacity = capacity(game_type, max_players)?;
        self.may_create(by.caller.user, &room_name)?;
        let id = EventId::v5(&by.caller.sender.command.0, &[b"room"]).to_string();
        let Some(password) = password else {
            let room = Room::new(&id, by.now, &room_name, game_type, capacity);
            let host = by.pending(Goal::Join { room: id.into() });
            self.open(by.now, room, &host, out);
            return Ok(());
        };
        let task = Task::Hash { salt: salt(&id), password: password.into() };
        let (room, room_name, game_type) = (id.into(), room_name.into(), game_type.into());
        self.suspend(by, Goal::Create { room, room_name, game_type, capacity }, task, out)
    }

    fn may_create(&self, user: &str, room_name: &str) -> Result<(), Refused> {
        let creating = |pending: &Pending| match &pending.goal {
            Goal::Create { room_name, .. } => Some(room_name.clone()),
            Goal::Join { .. } => None,
        };
        let under_way = || self.pending.values().filter(|pending| creating(pending).is_some());
        let taken = under_way().any(|pending| creating(pending).as_deref() == Some(room_name));
        if taken || self.by_name.contains_key(room_name) {
            let text = format!("there is a room named {room_name:?}; choose another room_name");
            return Err(Refused(ErrorCode::RoomExists, text));
        }
        let own = under_way().filter(|pending| *pending.user == *user).count();
        self.may_have_another(user, own)?;
        if self.rooms.len() + under_way().count() >= limits::ROOMS_TOTAL {
            let text = format!("there are {} rooms, the most there may be; join one", limits::ROOMS_TOTAL);
            return Err(Refused(ErrorCode::Unavailable, text));
        }
        Ok(())
    }

    fn may_have_another(&self, user: &str, under_way: usize) -> Result<(), Refused> {
        let rooms = self.by_user.get(user).map_or(0, std::collections::BTreeSet::len) + under_way;
        if rooms < limits::ROOMS_PER_USER {
            return Ok(());
        }
        Err(Refused(ErrorCode::Forbidden, format!("you are in {rooms} rooms, the most there may be; leave one")))
    }

    fn join(
        &mut self,
        by: &By<'_>,
        room_name: Option<&str>,
        room_id: Option<&str>,
        password: Option<&str>,
        out: &mut Outbox,
    ) -> Result<(), Refused> {
        let password = checked_password(password)?;
        let id = match (room_id, room_name) {
            (Some(id), _) => Some(id.into()),
            (None, Some(name)) => {
                let name = clean("room_name", Some(name), limits::ROOM_NAME_CHARS)?;
                self.by_name.get(&*name).cloned()
            }
            (None, None) => return Err(Refused::bad("room_name and room_id are missing; send one of them")),
        };
        let id: Box<str> = id.filter(|id| self.rooms.contains_key(id)).ok_or_else(no_room)?;
        let entry = self.may_enter(&id, by.caller.user)?;
        let pending = by.pending(Goal::Join { room: id.clone() });
        let room = self.rooms.get_mut(&id).expect("who may enter a room has one");
        let Some(hash) = room.password.clone().filter(|_| entry == Entry::New) else {
            return self.admit(by.now, &id, &pending, out);
        };
        if self.pending.len() >= limits::PASSWORD_QUEUE {
            return Err(busy());
        }
        if !room.may_guess(by.caller.user, by.now) {
            let text = "too many passwords were tried; try again in a minute";
            return Err(Refused(ErrorCode::RateLimited, text.into()));
        }
        self.changed(&id);
        match password {
            Some(password) => {
                let task = Task::Verify { hash, password: password.into() };
                self.suspend(by, Goal::Join { room: id }, task, out)
            }
            None => {
                self.answer_later(&pending, &id);
                Ok(())
            }
        }
    }

    /// Whether there is a room, and a place in it for the user.
    pub(super) fn may_enter(&self, id: &str, user: &str) -> Result<Entry, Refused> {
        let room = self.rooms.get(id).ok_or_else(no_room)?;
        if room.player(user).is_some() {
            return Ok(Entry::Again);
        }
        if room.is_full() {
            let text = format!("the room has its {} players; join another", room.capacity);
            return Err(Refused(ErrorCode::RoomFull, text));
        }
        self.may_have_another(user, 0).map(|()| Entry::New)
    }

    fn suspend(&mut self, by: &By<'_>, goal: Goal, task: Task, out: &mut Outbox) -> Result<(), Refused> {
        if self.pending.len() >= limits::PASSWORD_QUEUE {
            return Err(busy());
        }
        self.pending.insert(by.ticket, by.pending(goal));
        self.touch(PENDING, &by.ticket.to_string());
        out.work.push(Work { ticket: by.ticket, task });
        Ok(())
    }

    fn leave(&mut self, by: &By<'_>, room_id: Option<&str>, out: &mut Outbox) -> Result<(), Refused> {
        let id = room_id.ok_or_else(|| Refused::bad("room_id is missing; send the room to leave"))?;
        let room = self.rooms.get(id).ok_or_else(no_room)?;
        let player = room.player(by.caller.user).ok_or_else(not_in_room)?;
        let mut sessions: Vec<_> = player.sessions().collect();
        if !sessions.contains(&by.session) {
            sessions.push(by.session);
        }
        for session in sessions {
            let correlation_id = by.caller.sender.correlation.filter(|_| session == by.session);
            out.emit("games.event.room_left", Scope::Session(session), id, &RoomLeft { room_id: id, correlation_id });
        }
        self.remove_player(by.now, id, by.caller.user, "left", out);
        self.changed(id);
        Ok(())
    }

    fn list(&self, by: &By<'_>, game_type: Option<&str>, out: &mut Outbox) {
        let most = limits::ROOMS_LISTED + 1;
        let ids: Vec<_> = match game_type {
            Some(game_type) => {
                let all = (game_type.into(), WallMillis(0), "".into())..(game_type.into(), NEVER, "".into());
                self.by_type.range(all).rev().take(most).map(|(_, _, id)| id).collect()
            }
            None => self.by_age.iter().rev().take(most).map(|(_, id)| id).collect(),
        };
        let more = ids.len() > limits::ROOMS_LISTED;
        let rooms = ids.iter().take(limits::ROOMS_LISTED).map(|id| self.rooms[*id].listed()).collect();
        let listed = RoomsListed { rooms, more, correlation_id: by.caller.sender.correlation };
        out.emit("games.event.rooms_listed", Scope::Session(by.session), &by.session.to_string(), &listed);
    }

    fn roll(&mut self, by: &By<'_>, room_id: Option<&str>, out: &mut Outbox) -> Result<(), Refused> {
        let id = room_id.ok_or_else(|| Refused::bad("room_id is missing; send the room to roll in"))?;
        let room = self.rooms.get_mut(id).ok_or_else(no_room)?;
        if room.player(by.caller.user).is_none() {
            return Err(not_in_room());
        }
        game::roll(room, by.caller, &self.secret, out)?;
        self.changed(id);
        Ok(())
    }
}

/// A command under way.
struct By<'a> {
    now: WallMillis,
    ticket: u64,
    caller: &'a Caller<'a>,
    session: SessionId,
}

impl By<'_> {
    fn pending(&self, goal: Goal) -> Pending {
        Pending {
            command: self.caller.sender.command,
            session: self.session,
            correlation: self.caller.sender.correlation.map(Into::into),
            user: self.caller.user.into(),
            name: self.caller.name.into(),
            at: self.now,
            goal,
        }
    }
}

fn checked_password(password: Option<&str>) -> Result<Option<&str>, Refused> {
    let password = password.filter(|password| !password.is_empty());
    if password.is_some_and(|password| password.len() > limits::PASSWORD_BYTES) {
        let text = format!("password is too long; send at most {} bytes", limits::PASSWORD_BYTES);
        return Err(Refused(ErrorCode::TooLong, text));
    }
    Ok(password)
}

fn capacity(game_type: &str, max_players: Option<&str>) -> Result<u32, Refused> {
    let (usual, most) = match game_type {
        GAME_TYPE => (PLAYERS_MAX, PLAYERS_MAX),
        _ => (limits::ROOM_PLAYERS, limits::ROOM_PLAYERS_MAX),
    };
    let Some(text) = max_players else { return Ok(usual) };
    let number = text.parse().ok().filter(|number| (2..=most).contains(number));
    number.ok_or_else(|| Refused::bad(format!("max_players must be a whole number from 2 to {most}")))
}

fn no_room() -> Refused {
    Refused(
        ErrorCode::RoomNotFound,
        "no room has this room_name or room_id; list_rooms shows those that there are".into(),
    )
}

fn not_in_room() -> Refused {
    Refused(ErrorCode::NotInRoom, "you are not in this room; join it".into())
}

fn busy() -> Refused {
    Refused(ErrorCode::Unavailable, "too many passwords wait to be checked; try again".into())
}
