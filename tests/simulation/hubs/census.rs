//! Who has a place in which hub and who is connected, as the players know it; and the judgement of what the log has.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ringgate::time::Monotonic;
use serde_json::Value;

use super::guest::{Guest, Said, State, Ticket, stream};
use crate::services::house::House;

/// See the module.
pub struct Census {
    /// By hub: calls under way, and those whose answer never came. Each may have made a player nobody knows.
    pub strays: Vec<usize>,
    /// By hub.
    members: Vec<Vec<Member>>,
}

/// A player as the others know it.
pub struct Member {
    pub player: String,
    pub name: String,
    pub enrolled_at: Monotonic,
    connected: Option<bool>,
    /// Since when all this has been so.
    since: Monotonic,
}

impl Member {
    /// Whether it was connected at this time; `None` if that is not known.
    pub fn was_connected(&self, at: Monotonic) -> Option<bool> {
        self.connected.filter(|_| self.since + SURE <= at)
    }
}

impl Census {
    pub fn new(hubs: usize) -> Self {
        Self { strays: vec![0; hubs], members: (0..hubs).map(|_| Vec::new()).collect() }
    }

    /// Asks everybody.
    pub fn take(&mut self, now: Monotonic, guests: &[Guest]) {
        self.members.iter_mut().for_each(Vec::clear);
        for guest in guests {
            let Some(Ticket { player, .. }) = guest.ticket() else { continue };
            let connected = match guest.state {
                State::Open => Some(true),
                State::Idle if guest.is_alone() => Some(false),
                _ => None,
            };
            let (player, name) = (player.clone(), guest.name());
            let since = guest.changed_at.max(guest.enrolled_at).min(now);
            let enrolled_at = guest.enrolled_at;
            self.members[guest.hub].push(Member { player, name, enrolled_at, connected, since });
        }
    }

    /// A call has brought somebody a place.
    pub fn enrol(&mut self, hub: usize, player: String, name: String, at: Monotonic) {
        self.strays[hub] -= 1;
        self.members[hub].push(Member { player, name, enrolled_at: at, connected: None, since: at });
    }

    pub fn members(&self, hub: usize) -> &[Member] {
        &self.members[hub]
    }

    /// What was said stands once in the log, what was refused does not; who comes and goes alternate; everybody is there.
    /// Returns how much was said.
    pub fn judge(&self, house: &House, guests: &[Guest]) -> Result<usize, String> {
        let mut count = 0;
        for guest in guests {
            let Some(Ticket { room, player, .. }) = guest.ticket() else { continue };
            let mut times: BTreeMap<&str, usize> = BTreeMap::new();
            for (_, event) in house.books.events(&stream(room)) {
                let payload = &event["payload"];
                if payload["player_id"] == **player
                    && let Some(mark) = payload["message"].as_str().or(payload["choice"].as_str())
                {
                    *times.entry(mark).or_default() += 1;
                }
            }
            for said in guest.said() {
                count += 1;
                let Said { mark, refused, doubtful, .. } = said;
                match times.remove(&**mark).unwrap_or(0) {
                    0 if *refused || *doubtful => {}
                    0 => return Err(format!("kept: {said:?} of {player} is not in the log")),
                    1 if *refused && !*doubtful => {
                        return Err(format!("once: {said:?} was refused and said all the same"));
                    }
                    1 => {}
                    times => return Err(format!("once: {said:?} of {player} is said {times} times")),
                }
            }
            if let Some(mark) = times.keys().next() {
                return Err(format!("once: {player} never said {mark}"));
            }
            if !present(house, room)?.contains(player) {
                return Err(format!("kept: {player} is there, and the room was not told"));
            }
        }
        Ok(count)
    }

    /// The rooms were told that everybody left.
    pub fn all_left(&self, house: &House, guests: &[Guest]) -> Result<(), String> {
        for Ticket { room, .. } in guests.iter().filter_map(Guest::ticket) {
            let present = present(house, room)?;
            if !present.is_empty() {
                return Err(format!("kept: {room} was not told that {present:?} left"));
            }
        }
        Ok(())
    }
}

/// Who is there, as the room was told.
fn present(house: &House, room: &str) -> Result<BTreeSet<String>, String> {
    let mut present = BTreeSet::new();
    for (place, event) in house.books.events(&stream(room)) {
        let player = event["payload"]["player_id"].as_str().unwrap_or_default();
        let alternates = match event["event_type"].as_str() {
            Some("rooms.event.player_joined") => present.insert(player.to_owned()),
            Some("rooms.event.player_left") => present.remove(player),
            _ => true,
        };
        if !alternates {
            return Err(format!("once: {event} at {place}, but {present:?} are there"));
        }
    }
    Ok(present)
}

/// What was said in the room: places and payloads.
pub fn chats<'a>(house: &'a House, room: &str) -> Vec<(u64, &'a Value)> {
    let events = house.books.events(&stream(room)).iter();
    events
        .filter(|(_, event)| event["event_type"] == "rooms.event.chat")
        .map(|(place, event)| (*place, &event["payload"]))
        .collect()
}

/// Behind that, presence knows of a change.
const SURE: Duration = Duration::from_secs(1);
