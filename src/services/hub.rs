//! The room hubs of PROTOCOLS B: who is there, and what they say. Rooms and players are made by the HTTP side, which says
//! so with `rooms.command.opened` and `rooms.command.enrolled`, commands that no client can send.
//!
//! Laws: only players who are enrolled in a hub are heard there; `player_joined` and `player_left` of a player alternate;
//! a hub without players ends after the resume window, and with it its rows.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::seats::{Deadlines, Player, Whereabouts};
use super::{Caller, NEVER, Outbox, Refused, Sighting, SightingKind, after, clean, record};
use crate::id::is_room_id;
use crate::limits;
use crate::message::ErrorCode;
use crate::ports::{ChatMessage, Write};
use crate::time::WallMillis;

/// All hubs. See the module.
#[derive(Debug)]
pub struct Hubs {
    hubs: BTreeMap<Box<str>, Hub>,
    whereabouts: Whereabouts,
    deadlines: Deadlines,
    resume_window: Duration,
    changed: BTreeSet<Box<str>>,
}

/// A command for hubs; texts as they came.
#[derive(Clone, Copy, Debug)]
pub enum Command<'a> {
    /// `rooms.command.chat`.
    Chat {
        /// What to say.
        message: Option<&'a str>,
    },
    /// `rooms.command.vote`: handed to the members as it is.
    Vote {
        /// The client's fields, a JSON object's text.
        fields: &'a str,
    },
    /// `rooms.command.action`: handed to the members as it is.
    Action {
        /// The client's fields, a JSON object's text.
        fields: &'a str,
    },
}

/// A player who got a place in a hub.
#[derive(Clone, Copy, Debug)]
pub struct Enrolled<'a> {
    /// Player id.
    pub player: &'a str,
    /// Display name.
    pub name: &'a str,
    /// Whose place it was, if it was one's.
    pub in_place_of: Option<&'a str>,
}

/// A hub's state: its record.
#[derive(Serialize, Deserialize, Debug)]
struct Hub {
    max_players: u32,
    enrolled: BTreeMap<Box<str>, Box<str>>,
    /// Those of the enrolled who are there.
    present: Vec<Player>,
    empty_until: Option<WallMillis>,
}

impl Hubs {
    /// None.
    #[must_use]
    pub fn new(resume_window: Duration) -> Self {
        Self {
            hubs: BTreeMap::new(),
            whereabouts: Whereabouts::default(),
            deadlines: Deadlines::default(),
            resume_window,
            changed: BTreeSet::new(),
        }
    }

    /// Whether the room is a hub.
    #[must_use]
    pub fn has(&self, room: &str) -> bool {
        self.hubs.contains_key(room)
    }

    /// Takes a record back; `false` if it is none.
    pub fn restore(&mut self, room: &str, value: &mut [u8]) -> bool {
        let Ok(hub) = simd_json::from_slice::<Hub>(value) else { return false };
        for player in &hub.present {
            player.sessions().for_each(|session| self.whereabouts.add(session, room));
        }
        self.deadlines.set(room, hub.deadline());
        self.hubs.insert(room.into(), hub);
        true
    }

    /// The records of what has changed since it was asked last.
    pub fn save(&mut self, out: &mut Vec<Write>) {
        for room in std::mem::take(&mut self.changed) {
            out.push(match self.hubs.get(&room) {
                Some(hub) => record(SERVICE, &room, hub),
                None => Write::Remove { service: SERVICE, key: room },
            });
        }
    }

    /// A room was made. Of an id that is no room's, or of one beyond [`limits::ROOMS_TOTAL`], nothing is kept.
    pub fn opened(&mut self, now: WallMillis, room: &str, code: &str, max_players: u32, out: &mut Outbox) {
        if !is_room_id(room) || self.has(room) || self.hubs.len() >= limits::ROOMS_TOTAL {
            return;
        }
        let max_players = max_players.clamp(1, limits::ROOM_PLAYERS_MAX);
        let empty_until = Some(after(now, self.resume_window));
        let hub = Hub { max_players, enrolled: BTreeMap::new(), present: Vec::new(), empty_until };
        self.hubs.insert(room.into(), hub);
        self.changed(room);
        out.writes.push(Write::Room { room: room.into(), code: code.into(), max_players, at: now });
    }

    /// A player got a token for the room, and perhaps the place of another one. An empty room then waits anew.
    pub fn enrolled(&mut self, now: WallMillis, room: &str, enrolled: &Enrolled<'_>, out: &mut Outbox) {
        let Enrolled { player, name, in_place_of } = *enrolled;
        let window = self.resume_window;
        let Some(hub) = self.hubs.get_mut(room) else { return };
        if let Some(gone) = in_place_of.filter(|gone| !hub.present.iter().any(|player| *player.user == **gone)) {
            hub.enrolled.remove(gone);
        }
        if let Some(until) = &mut hub.empty_until {
            *until = (*until).max(after(now, window));
        }
        if hub.enrolled.len() >= hub.max_players as usize && !hub.enrolled.contains_key(player) {
            return;
        }
        hub.enrolled.insert(player.into(), name.into());
        self.changed(room);
        out.writes.push(Write::Player { room: room.into(), player: player.into(), name: name.into(), at: now });
    }

    /// Carries a player's command out.
    pub fn handle(
        &mut self,
        now: WallMillis,
        caller: &Caller<'_>,
        room: Option<&str>,
        command: &Command<'_>,
        out: &mut Outbox,
    ) {
        out.begin(caller.sender.command, now);
        if let Err(refused) = self.carry_out(now, caller, room, command, out) {
            out.refuse(&caller.sender, room.filter(|room| is_room_id(room)), refused);
        }
    }

    fn carry_out(
        &mut self,
        now: WallMillis,
        caller: &Caller<'_>,
        room: Option<&str>,
        command: &Command<'_>,
        out: &mut Outbox,
    ) -> Result<(), Refused> {
        let room = room.ok_or_else(|| Refused::bad("room_id is missing; send the room to speak in"))?;
        let hub = self.hubs.get(room);
        let hub = hub.ok_or_else(|| Refused(ErrorCode::RoomNotFound, "there is no such hub; make one".into()))?;
        let name = hub.enrolled.get(caller.user);
        let name =
            name.ok_or_else(|| Refused(ErrorCode::NotInRoom, "you are no player of this room; join it".into()))?;
        match *command {
            Command::Chat { message } => {
                let message = clean("message", message, limits::CHAT_CHARS)?;
                let said =
                    Said { player_id: caller.user, display_name: name, message: &message, sent_at: now.rfc3339() };
                out.tell("rooms.event.chat", room, &said);
                out.writes.push(Write::Message(Box::new(ChatMessage {
                    id: caller.sender.command,
                    room: room.into(),
                    sender: caller.user.into(),
                    sender_name: name.clone(),
                    message: message.into(),
                    at: now,
                })));
            }
            Command::Vote { fields } => hand_on(caller, room, name, "rooms.event.vote", fields, out),
            Command::Action { fields } => hand_on(caller, room, name, "rooms.event.action", fields, out),
        }
        Ok(())
    }

    /// What presence says.
    pub fn sighted(&mut self, now: WallMillis, sighting: &Sighting<'_>, out: &mut Outbox) {
        out.begin(sighting.id, now);
        let held = after(now, self.resume_window);
        let rooms = match sighting.kind {
            SightingKind::Joined { room } | SightingKind::Left { room } => vec![room.into()],
            SightingKind::Connected | SightingKind::Disconnected { .. } => self.whereabouts.of(sighting.session),
        };
        for room in rooms {
            let Some(hub) = self.hubs.get_mut(&room) else { continue };
            if matches!(sighting.kind, SightingKind::Joined { .. }) {
                hub.arrive(&room, sighting, &mut self.whereabouts, out);
            }
            let seated = hub.present.iter_mut().find(|player| player.sessions().any(|it| it == sighting.session));
            let Some(player) = seated else { continue };
            match sighting.kind {
                SightingKind::Connected | SightingKind::Joined { .. } => {
                    player.seen(sighting.session);
                }
                SightingKind::Disconnected { kicked: false } => {
                    player.missed(sighting.session, held);
                }
                SightingKind::Disconnected { kicked: true } | SightingKind::Left { .. } => {
                    player.rise(sighting.session);
                    self.whereabouts.remove(sighting.session, &room);
                    if !matches!(sighting.kind, SightingKind::Left { .. }) {
                        hub.enrolled.remove(sighting.user);
                    }
                }
            }
            hub.depart(now, self.resume_window, &room, out);
            self.changed(&room);
        }
    }

    /// The gateways were started anew and have no connection: every seat is held for a resume window from when they were
    /// last alive, as the sessions are.
    pub fn doubt_all(&mut self, alive: WallMillis) {
        let until = after(alive, self.resume_window);
        let mut doubted = Vec::new();
        for (room, hub) in &mut self.hubs {
            if hub.present.iter_mut().fold(false, |any, player| player.doubt(until) | any) {
                doubted.push(room.clone());
            }
        }
        doubted.iter().for_each(|room| self.changed(room));
    }

    /// When something happens by itself.
    #[must_use]
    pub fn next(&self) -> WallMillis {
        self.deadlines.next()
    }

    /// Does what was due at [`Hubs::next`], if that has come; to be called again until it has not.
    pub fn poll(&mut self, now: WallMillis, out: &mut Outbox) -> bool {
        let Some((at, room)) = self.deadlines.due(now) else { return false };
        out.begin_deadline(&room, at);
        let hub = self.hubs.get_mut(&room).expect("a deadline belongs to a hub");
        for player in &mut hub.present {
            for session in player.expire(at) {
                self.whereabouts.remove(session, &room);
            }
        }
        hub.depart(at, self.resume_window, &room, out);
        if hub.empty_until.is_some_and(|until| until <= at) {
            self.hubs.remove(&room);
            out.writes.push(Write::RemoveRoom { room: room.clone() });
        }
        self.changed(&room);
        true
    }

    fn changed(&mut self, room: &str) {
        self.deadlines.set(room, self.hubs.get(room).map_or(NEVER, Hub::deadline));
        self.changed.insert(room.into());
    }
}

impl Hub {
    /// A session is here; if it is an enrolled player's, it sits down.
    fn arrive(&mut self, room: &str, sighting: &Sighting<'_>, whereabouts: &mut Whereabouts, out: &mut Outbox) {
        let Some(name) = self.enrolled.get(sighting.user) else { return };
        self.empty_until = None;
        let known = self.present.iter().position(|player| *player.user == *sighting.user);
        let at = known.unwrap_or_else(|| {
            out.tell("rooms.event.player_joined", room, &Who { player_id: sighting.user, display_name: name });
            self.present.push(Player::new(sighting.user, name));
            self.present.len() - 1
        });
        if let Some(former) = self.present[at].sit(sighting.session, NEVER) {
            whereabouts.remove(former, room);
        }
        whereabouts.add(sighting.session, room);
    }

    /// Players without a seat are gone.
    fn depart(&mut self, now: WallMillis, resume_window: Duration, room: &str, out: &mut Outbox) {
        for player in self.present.extract_if(.., |player| player.is_gone()) {
            let who = Who { player_id: &player.user, display_name: &player.name };
            out.tell("rooms.event.player_left", room, &who);
        }
        if self.present.is_empty() && self.empty_until.is_none() {
            self.empty_until = Some(after(now, resume_window));
        }
    }

    fn deadline(&self) -> WallMillis {
        let seats = self.present.iter().map(Player::deadline).min().unwrap_or(NEVER);
        seats.min(self.empty_until.unwrap_or(NEVER))
    }
}

/// Hands a command's fields to the members, with who sent them.
fn hand_on(caller: &Caller<'_>, room: &str, name: &str, event_type: &'static str, fields: &str, out: &mut Outbox) {
    out.tell(event_type, room, &Who { player_id: caller.user, display_name: name });
    let event = out.events.last_mut().expect("it has just been made");
    if fields.len() > "{}".len() {
        event.payload.pop();
        event.payload.push(',');
        event.payload.push_str(&fields[1..]);
    }
}

/// Payload of `rooms.event.chat`.
#[derive(Serialize)]
struct Said<'a> {
    player_id: &'a str,
    display_name: &'a str,
    message: &'a str,
    sent_at: String,
}

/// Payload of `rooms.event.player_joined` and `player_left`.
#[derive(Serialize)]
struct Who<'a> {
    player_id: &'a str,
    display_name: &'a str,
}

/// Whose records these are in the store.
pub const SERVICE: &str = "hub";
