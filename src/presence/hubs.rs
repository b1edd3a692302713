//! Room hubs: codes, players, and the newest messages for those who connect (PROTOCOLS B). The rooms service is told of
//! them, and says in the rooms' streams who comes and goes and what is said.
//!
//! Laws: a code names one hub; a player of a hub has a place in it from its enrolment on, and gives it up only to another
//! one, when the hub is full and no session of the player's is left; who is kicked has none any more. A hub ends when none of its players has had a
//! session for a while, before the service forgets it, so nobody gets into a hub that the service does not know. What a
//! caller was told is in the store, if there is one, before the answer leaves.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use foldhash::quality::FixedState;
use serde::{Deserialize, Serialize};

use crate::id::RoomCode;
use crate::limits;
use crate::message::{CreateHub, ErrorCode, Hub, HubChange, HubMember, HubMessage, HubState, JoinHub};
use crate::ports::{Store, StoreError, Write};
use crate::time::Monotonic;

/// All hubs. See the module.
///
/// Invariants: `codes` has every hub's; `checks` has every hub at its `check_at`; `oldest` has every hub with messages
/// under the place of its first; `message_bytes` is the sum of all; `of_player` has every player's.
pub(super) struct Hubs {
    hubs: HashMap<Arc<str>, Kept, FixedState>,
    codes: HashMap<RoomCode, Arc<str>, FixedState>,
    of_player: HashMap<Arc<str>, Arc<str>, FixedState>,
    checks: BTreeSet<(Monotonic, Arc<str>)>,
    oldest: BTreeSet<(u64, Arc<str>)>,
    message_bytes: usize,
    changes: Vec<HubChange>,
    store: Option<Box<dyn Store>>,
    resume_window: Duration,
}

/// A hub as it is kept.
struct Kept {
    code: RoomCode,
    max_players: u32,
    players: Vec<Player>,
    /// Who was kicked and whose place the service still counts, until another one gets it.
    vacated: Vec<Arc<str>>,
    messages: VecDeque<HubMessage>,
    message_bytes: usize,
    /// It does not end before that.
    keep_until: Monotonic,
    check_at: Monotonic,
}

struct Player {
    id: Arc<str>,
    name: Arc<str>,
    /// When a session of the player was seen last, or the enrolment.
    seen: Monotonic,
}

impl Hubs {
    /// None; in memory.
    pub(super) fn new(resume_window: Duration, seed: u64) -> Self {
        let hasher = FixedState::with_seed(seed);
        Self {
            hubs: HashMap::with_hasher(hasher.clone()),
            codes: HashMap::with_hasher(hasher.clone()),
            of_player: HashMap::with_hasher(hasher),
            checks: BTreeSet::new(),
            oldest: BTreeSet::new(),
            message_bytes: 0,
            changes: Vec::new(),
            store: None,
            resume_window,
        }
    }

    /// Takes back what the store has, and keeps everything there from now on. The service is told of all of it again.
    pub(super) fn keep_in(&mut self, now: Monotonic, mut store: Box<dyn Store>) -> Result<(), StoreError> {
        for (room, mut value) in store.load(SERVICE)? {
            let room: Arc<str> = room.into();
            let record = simd_json::from_slice::<Record>(&mut value).ok();
            let Some((record, code)) =
                record.and_then(|record| RoomCode::parse(&record.code).map(|code| (record, code)))
            else {
                tracing::error!(room = &*room, "a record of the store does not read; its hub is gone");
                continue;
            };
            let players =
                record.players.into_iter().map(|(id, name)| Player { id: id.into(), name: name.into(), seen: now });
            self.insert(now, &room, code, record.max_players, players.collect());
            for message in store.messages(&room, limits::HUB_MESSAGES)? {
                let payload = Payload {
                    player_id: &message.sender,
                    display_name: &message.sender_name,
                    message: &message.message,
                    sent_at: message.at.rfc3339(),
                };
                let payload = simd_json::to_string(&payload).expect("plain text is always JSON");
                self.said(&room, HubMessage { place: 0, payload: payload.into() });
            }
        }
        self.store = Some(store);
        Ok(())
    }

    /// Hubs, and bytes of their messages.
    pub(super) fn sizes(&self) -> (usize, usize) {
        (self.hubs.len(), self.message_bytes)
    }

    /// Makes a hub with its first player.
    pub(super) fn create(&mut self, now: Monotonic, hub: &CreateHub) -> Result<(Arc<str>, RoomCode), ErrorCode> {
        let free = hub.codes.into_iter().find(|code| !self.codes.contains_key(code));
        let Some(code) = free.filter(|_| self.hubs.len() < limits::ROOMS_TOTAL) else {
            return Err(ErrorCode::Unavailable);
        };
        debug_assert!(!self.hubs.contains_key(&hub.room), "room ids are random");
        let first = Player { id: hub.player.clone(), name: hub.name.clone(), seen: now };
        self.insert(now, &hub.room, code, hub.max_players, vec![first]);
        if let Err(error) = self.write(&hub.room) {
            self.remove(&hub.room);
            return Err(unwritten(&error));
        }
        Ok((hub.room.clone(), code))
    }

    /// Gives a player a place; `has_session` tells whose session lives.
    pub(super) fn join(
        &mut self,
        now: Monotonic,
        join: &JoinHub,
        has_session: impl Fn(&str) -> bool,
    ) -> Result<(Arc<str>, RoomCode), ErrorCode> {
        let room = self.codes.get(&join.code).cloned().ok_or(ErrorCode::RoomNotFound)?;
        let window = self.resume_window;
        let hub = self.hubs.get_mut(&room).expect("a code names a hub");
        let mut gone = None;
        if hub.players.len() >= hub.max_players as usize {
            let free = |player: &&Player| player.seen + window <= now && !has_session(&player.id);
            let longest = hub.players.iter().filter(free).min_by_key(|player| player.seen);
            let id = longest.map(|player| player.id.clone()).ok_or(ErrorCode::RoomFull)?;
            let at = hub.players.iter().position(|player| player.id == id).expect("it was found above");
            gone = Some((at, hub.players.remove(at)));
        }
        let vacated = if gone.is_none() { hub.vacated.last().cloned() } else { None };
        let kept_until = hub.keep_until;
        hub.keep_until = kept_until.max(now + window / 2);
        hub.players.push(Player { id: join.player.clone(), name: join.name.clone(), seen: now });
        if let Err(error) = self.write(&room) {
            let hub = self.hubs.get_mut(&room).expect("it was there before");
            hub.players.pop();
            hub.keep_until = kept_until;
            if let Some((at, player)) = gone {
                hub.players.insert(at, player);
            }
            return Err(unwritten(&error));
        }
        self.of_player.insert(join.player.clone(), room.clone());
        if let Some((_, player)) = &gone {
            self.of_player.remove(&player.id);
        }
        if vacated.is_some() {
            self.hubs.get_mut(&room).expect("it was there before").vacated.pop();
        }
        let in_place_of = gone.map(|(_, player)| player.id).or(vacated);
        let (player, name) = (join.player.clone(), join.name.clone());
        self.changes.push(HubChange::Enrolled { room: room.clone(), player, name, in_place_of });
        Ok((room, join.code))
    }

    /// The hub of a code.
    pub(super) fn find(&self, code: RoomCode) -> Option<Hub> {
        let room = self.codes.get(&code)?;
        let hub = self.hubs.get(room)?;
        let players = hub.players.iter().map(|player| (player.id.clone(), player.name.clone()));
        Some(Hub { room: room.clone(), code, max_players: hub.max_players, players: players.collect() })
    }

    /// Whether the player has a place in the hub; then it does not end for a while.
    pub(super) fn enter(&mut self, now: Monotonic, room: &str, player: &str) -> bool {
        let window = self.resume_window;
        let Some(hub) = self.hubs.get_mut(room) else { return false };
        let Some(player) = hub.players.iter_mut().find(|known| *known.id == *player) else { return false };
        player.seen = now;
        hub.keep_until = hub.keep_until.max(now + window / 4);
        true
    }

    /// The player, if it is one's, has no place any more: its token opens nothing, until it joins anew as another.
    pub(super) fn kick(&mut self, player: &str) {
        let Some((player, room)) = self.of_player.remove_entry(player) else { return };
        let Some(hub) = self.hubs.get_mut(&room) else { return };
        hub.players.retain(|known| known.id != player);
        hub.vacated.push(player);
        if let Err(error) = self.write(&room) {
            tracing::error!(%error, "a kicked player's place comes back at the next start");
        }
    }

    /// Who is in the hub and what was said there; `connected` tells whose session has a connection.
    pub(super) fn state(&self, room: &str, connected: impl Fn(&str) -> bool) -> HubState {
        let Some(hub) = self.hubs.get(room) else { return HubState { members: Vec::new(), messages: Vec::new() } };
        let member = |player: &Player| HubMember {
            player: player.id.clone(),
            name: player.name.clone(),
            connected: connected(&player.id),
        };
        HubState { members: hub.players.iter().map(member).collect(), messages: hub.messages.iter().cloned().collect() }
    }

    /// A message stands in the room's stream. Those that the store had are found in the log again.
    pub(super) fn said(&mut self, room: &str, message: HubMessage) {
        let Some((room, hub)) = self.hubs.get_key_value(room) else { return };
        let room = Arc::clone(room);
        if message.place > 0 && hub.messages.iter().any(|known| known.place >= message.place) {
            return;
        }
        // Of the log's messages the store had all but the newest; it gave back the last of them.
        let last = hub.messages.iter().rev().find(|known| known.place == 0);
        let known = hub.messages.iter().any(|known| known.place == 0 && known.payload == message.payload);
        if message.place > 0 && !known && last.is_some_and(|last| sent_at(&message.payload) < sent_at(&last.payload)) {
            return;
        }
        self.unlist(&room);
        let hub = self.hubs.get_mut(&room).expect("it was found above");
        let known = hub.messages.iter_mut().find(|known| known.place == 0 && known.payload == message.payload);
        if let (Some(known), true) = (known, message.place > 0) {
            known.place = message.place;
        } else {
            hub.message_bytes += message.payload.len();
            self.message_bytes += message.payload.len();
            hub.messages.push_back(message);
            while hub.messages.len() > limits::HUB_MESSAGES || hub.message_bytes > limits::HUB_MESSAGES_BYTES {
                self.message_bytes -= hub.drop_first();
            }
        }
        self.list(&room);
        while self.message_bytes > limits::HUB_MESSAGES_TOTAL_BYTES {
            let Some((_, room)) = self.oldest.pop_first() else { return };
            let hub = self.hubs.get_mut(&room).expect("what is listed is a hub");
            self.message_bytes -= hub.drop_first();
            self.list(&room);
        }
    }

    /// What was said stands before all that comes, where it does not come again.
    pub(super) fn renumbered(&mut self) {
        self.oldest.clear();
        for (room, hub) in &mut self.hubs {
            hub.messages.iter_mut().for_each(|message| message.place = 0);
            self.oldest.extend((!hub.messages.is_empty()).then(|| (0, Arc::clone(room))));
        }
    }

    /// What has changed since it was asked last.
    pub(super) fn changes(&mut self, out: &mut Vec<HubChange>) {
        out.append(&mut self.changes);
    }

    /// When [`Hubs::poll`] has something to do.
    pub(super) fn next(&self) -> Monotonic {
        self.checks.first().map_or(Monotonic::NEVER, |(at, _)| *at)
    }

    /// Ends the hubs that nobody has used for a while.
    pub(super) fn poll(&mut self, now: Monotonic, has_session: impl Fn(&str) -> bool) {
        while let Some((at, room)) = self.checks.first().cloned().filter(|(at, _)| *at <= now) {
            self.checks.remove(&(at, room.clone()));
            let interval = self.interval();
            let hub = self.hubs.get_mut(&room).expect("what is to be checked is a hub");
            for player in hub.players.iter_mut().filter(|player| has_session(&player.id)) {
                player.seen = now;
                hub.keep_until = hub.keep_until.max(now + interval);
            }
            if hub.keep_until <= now {
                self.remove(&room);
                if let Some(store) = &mut self.store
                    && let Err(error) = store.write(&[Write::Remove { service: SERVICE, key: (*room).into() }])
                {
                    tracing::error!(%error, "a hub that has ended comes back at the next start, and ends again");
                }
                continue;
            }
            hub.check_at = hub.keep_until.min(now + interval).max(now + Duration::from_millis(1));
            self.checks.insert((hub.check_at, room));
        }
    }

    /// Between checks: a quarter of the resume window, for the service forgets an unused hub after a whole one.
    fn interval(&self) -> Duration {
        self.resume_window / 4
    }

    fn insert(&mut self, now: Monotonic, room: &Arc<str>, code: RoomCode, max_players: u32, players: Vec<Player>) {
        self.changes.push(HubChange::Opened { room: room.clone(), code, max_players });
        for Player { id, name, .. } in &players {
            let (player, name) = (id.clone(), name.clone());
            self.changes.push(HubChange::Enrolled { room: room.clone(), player, name, in_place_of: None });
        }
        let (messages, check_at) = (VecDeque::new(), now + self.interval());
        let keep_until = now + self.resume_window / 2;
        self.of_player.extend(players.iter().map(|player| (player.id.clone(), room.clone())));
        let vacated = Vec::new();
        let hub = Kept { code, max_players, players, vacated, messages, message_bytes: 0, keep_until, check_at };
        self.hubs.insert(room.clone(), hub);
        self.codes.insert(code, room.clone());
        self.checks.insert((check_at, room.clone()));
    }

    fn remove(&mut self, room: &Arc<str>) {
        self.unlist(room);
        let Some(hub) = self.hubs.remove(room) else { return };
        self.message_bytes -= hub.message_bytes;
        self.codes.remove(&hub.code);
        for player in &hub.players {
            self.of_player.remove(&player.id);
        }
        self.checks.remove(&(hub.check_at, room.clone()));
        self.changes.retain(|change| match change {
            HubChange::Opened { room: other, .. } | HubChange::Enrolled { room: other, .. } => other != room,
        });
    }

    fn list(&mut self, room: &Arc<str>) {
        if let Some(first) = self.hubs.get(room).and_then(|hub| hub.messages.front()) {
            self.oldest.insert((first.place, room.clone()));
        }
    }

    fn unlist(&mut self, room: &Arc<str>) {
        if let Some(first) = self.hubs.get(room).and_then(|hub| hub.messages.front()) {
            self.oldest.remove(&(first.place, room.clone()));
        }
    }

    fn write(&mut self, room: &Arc<str>) -> Result<(), StoreError> {
        let (Some(store), Some(hub)) = (&mut self.store, self.hubs.get(room)) else { return Ok(()) };
        let players = hub.players.iter().map(|player| ((*player.id).into(), (*player.name).into()));
        let record =
            Record { code: hub.code.as_str().into(), max_players: hub.max_players, players: players.collect() };
        let value = simd_json::to_vec(&record).expect("plain data is always JSON").into();
        store.write(&[Write::Put { service: SERVICE, key: (**room).into(), value }])
    }
}

impl Kept {
    /// Forgets the oldest message; returns its bytes.
    fn drop_first(&mut self) -> usize {
        let bytes = self.messages.pop_front().map_or(0, |message| message.payload.len());
        self.message_bytes -= bytes;
        bytes
    }
}

impl std::fmt::Debug for Hubs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hubs").field("hubs", &self.hubs.len()).finish_non_exhaustive()
    }
}

fn unwritten(error: &StoreError) -> ErrorCode {
    tracing::error!(%error, "a hub cannot be written");
    ErrorCode::Unavailable
}

/// When a message was sent; of a payload that another backend wrote, nothing perhaps.
fn sent_at(payload: &str) -> Option<&str> {
    payload.rsplit_once("\"sent_at\":\"").map(|(_, time)| time)
}

/// A hub in the store.
#[derive(Serialize, Deserialize)]
struct Record {
    code: Box<str>,
    max_players: u32,
    players: Vec<(Box<str>, Box<str>)>,
}

/// A chat message as the rooms service says it.
#[derive(Serialize)]
struct Payload<'a> {
    player_id: &'a str,
    display_name: &'a str,
    message: &'a str,
    sent_at: String,
}

/// Whose records these are in the store, by room ids.
pub const SERVICE: &str = "presence.hub";

#[cfg(test)]
mod tests;
