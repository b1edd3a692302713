//! What the gateway tells a player of its hub: where its stream goes on, who is there, what was said.

use ringgate::time::Monotonic;
use serde_json::Value;

use super::census::{Census, chats};
use super::guest::{Claim, Guest, stream};
use crate::services::house::House;

impl Guest {
    /// The first state of a connection.
    pub(super) fn joined(&mut self, house: &House, census: &Census, payload: &Value) -> Result<(), String> {
        let who = self.number;
        let room = self.ticket.as_ref().map_or("", |ticket| &*ticket.room).to_owned();
        let introduction = &payload["stream"];
        if payload["room_id"] != *room || introduction["stream"] != *stream(&room) {
            return Err(format!("D1: guest {who} of {room} is told {payload}"));
        }
        let (epoch, offset) =
            (introduction["epoch"].as_u64().unwrap_or(0), introduction["offset"].as_u64().unwrap_or(0));
        self.goes_on(offset, payload)?;
        self.entry = Some(self.entry.map_or(offset, |entry| entry.min(offset)));
        self.position = Some((epoch, offset));
        self.introduced(introduction, Some(offset));
        self.lists_members(census, self.connected_at, payload)?;

        let said = chats(house, &room);
        let upto = said.partition_point(|(place, _)| *place <= offset);
        let (messages, newer) = (payload["messages"].as_array().map_or(&[][..], |list| list), said.len() - upto);
        let least = upto.min(KEPT.saturating_sub(newer));
        let last = upto.checked_sub(messages.len()).map(|from| &said[from..upto]);
        let same = last.is_some_and(|last| last.iter().zip(messages).all(|((_, known), message)| *known == message));
        if !same || messages.len() < least || messages.len() > KEPT {
            return Err(format!(
                "D1: guest {who} at {offset} is told {} messages, {least} or more of {upto} were to be",
                messages.len()
            ));
        }
        Ok(())
    }

    /// Whether a connection goes on where it asked to, or is told why not.
    fn goes_on(&mut self, offset: u64, payload: &Value) -> Result<(), String> {
        let who = self.number;
        let (recovered, reason) = (payload["recovered"] == true, payload["reason"].as_str());
        let had = self.position.map_or(self.floor, |position| position.1);
        let doubtful = std::mem::take(&mut self.entry_doubtful);
        let wrong = |what: &str| Err(format!("{what}: guest {who} at {had} of {:?} is told {payload}", self.entry));
        self.resumed += u64::from(recovered);
        match self.claim {
            _ if offset < self.floor => wrong("D1"),
            Claim::Nowhere if recovered || reason.is_some() || offset < had => wrong("D6"),
            Claim::Here(place) if recovered && offset != place => wrong("D2"),
            Claim::Here(_) if !recovered && !doubtful => wrong("D6"),
            Claim::Beginning if recovered && self.floor > 0 => wrong("D1"),
            Claim::Beginning if !recovered && !doubtful && reason != Some("entered_later") => wrong("D6"),
            Claim::Beginning if !recovered && !doubtful && self.entry.is_some_and(|entry| offset > entry) => {
                wrong("D2")
            }
            _ => Ok(()),
        }
    }

    /// Everybody who had a place when it asked, and nobody else but who got one since, or never heard of it.
    fn lists_members(&self, census: &Census, asked: Monotonic, payload: &Value) -> Result<(), String> {
        let who = self.number;
        let listed = payload["members"].as_array().map_or(&[][..], |list| list);
        let mut known = 0;
        for member in census.members(self.hub) {
            let Some(there) = listed.iter().find(|there| there["player_id"] == *member.player) else {
                if member.enrolled_at > asked {
                    continue;
                }
                return Err(format!("D1: guest {who} is not told of {}: {payload}", member.player));
            };
            known += 1;
            let me = self.ticket.as_ref().is_some_and(|ticket| ticket.player == member.player);
            let connected = if me { Some(true) } else { member.was_connected(asked) };
            if there["display_name"] != *member.name || connected.is_some_and(|is| there["connected"] != is) {
                return Err(format!("D1: guest {who} is told {there}, connected: {connected:?}"));
            }
        }
        if listed.len() > known + census.strays[self.hub] {
            return Err(format!("D1: guest {who} is told of {} members, there are {known}", listed.len()));
        }
        Ok(())
    }

    /// The answer to a question, asked when so many chats were read.
    pub(super) fn told(
        &self,
        house: &House,
        census: &Census,
        event: &str,
        (asked, read): (Monotonic, usize),
        payload: &Value,
    ) -> Result<(), String> {
        let who = self.number;
        match event {
            "members" => self.lists_members(census, asked, payload),
            "history" => {
                let said = chats(house, self.ticket.as_ref().map_or("", |ticket| &*ticket.room));
                let messages = payload["messages"].as_array().map_or(&[][..], |list| list);
                let ends = (read..=said.len()).any(|end| {
                    let last = &said[end.saturating_sub(KEPT)..end];
                    last.len() == messages.len() && last.iter().zip(messages).all(|((_, known), said)| *known == said)
                });
                if ends { Ok(()) } else { Err(format!("D1: guest {who} read {read} chats and is told {payload}")) }
            }
            _ => Ok(()),
        }
    }
}

/// Messages that a hub shows.
const KEPT: usize = ringgate::limits::HUB_MESSAGES;
