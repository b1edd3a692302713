//! What a client knows of the rooms it is in, and what lets it in and out: its own word, a resume, a backend's event
//! (DELIVERY §4 "Effects").
//!
//! A backend's event acts once, when it is first delivered to the session. So one that a client received on a former
//! connection must not act again, one that stands behind the head a resume was told of acts on this connection, and of
//! one in between the client cannot know: the server may have delivered it to a connection that broke.

use ringgate::message::ErrorCode;
use ringgate::shard::driver::simulated::Network;

use crate::client::{Ask, Client, Seat, State};
use crate::oracle::{Oracle, Told};

/// A backend's event that lets the client in or out, and has not done so yet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Passing {
    pub joins: bool,
    /// Its place; where the client cannot know which of several acts, all of theirs.
    pub places: Vec<u64>,
    /// It acts on this connection for sure.
    pub due: bool,
}

/// An introduction of a stream.
#[derive(Clone, Copy, Debug)]
pub struct Introduced<'a> {
    pub handle: u32,
    pub name: &'a str,
    pub epoch: u64,
    pub head: u64,
}

impl Introduced<'_> {
    /// The room whose stream it is.
    pub fn room(&self) -> Option<&str> {
        self.name.split_once("/room:").map(|(_, room)| room)
    }
}

impl Client {
    /// The session is in a room, with these streams; `lost` if one could not start where the event stands that let it in.
    pub(super) fn entered(
        &mut self,
        network: &Network,
        oracle: &Oracle,
        correlation: u64,
        room: &str,
        streams: &[Introduced<'_>],
        lost: bool,
    ) -> Result<(), String> {
        let who = self.number;
        if correlation != 0 {
            match self.asked.remove(&correlation) {
                Some(Ask::Join(asked)) if asked == room => {}
                asked => return Err(format!("D7: client {who}: JOINED {room} answers {asked:?}")),
            }
        }
        let resumed = self.resuming.remove(room);
        let passing = self.passing.get(room).filter(|passing| passing.joins).cloned();
        if !resumed {
            self.passing.remove(room);
        }
        if correlation == 0 && !resumed && passing.is_none() {
            return Err(format!("D1: client {who} is in {room} again, though nothing new let it in"));
        }
        // Where the room's home lets everybody in, the client's own JOIN may have been faster.
        let by_event = !resumed && (correlation == 0 || !oracle.is_open(room));
        if let Some(Passing { places, .. }) = passing.filter(|_| by_event && !lost) {
            let name = format!("games.events.0/room:{room}");
            let start = streams.iter().find(|stream| stream.name == name).map(|stream| stream.head);
            if start.is_none_or(|start| !places.contains(&start)) {
                return Err(format!("D2: client {who} was let into {room} at {places:?} and starts at {start:?}"));
            }
        }
        let fresh = !resumed || lost;
        if resumed && lost {
            self.entered_later(room, streams)?;
        }
        for stream in streams {
            if fresh && (correlation != 0 || resumed || by_event) {
                self.entries.insert(stream.name.to_owned(), (stream.epoch, stream.head));
            }
            if room == self.room && stream.name.starts_with("relay/") {
                self.relay = stream.handle;
            }
            self.introduce(network, stream, fresh);
        }
        if fresh {
            self.since.insert(room.to_owned(), network.now());
        }
        self.rooms.insert(room.to_owned(), Seat::In);
        if room == self.room {
            self.state = State::Open;
        }
        Ok(())
    }

    /// A resume goes on where the session came in, not where the client said that it stands: it stood before that.
    fn entered_later(&mut self, room: &str, streams: &[Introduced<'_>]) -> Result<(), String> {
        let who = self.number;
        let mut later = false;
        for stream in streams {
            let said = self.positions.get(stream.name).filter(|(epoch, _)| *epoch == stream.epoch);
            later |= said.is_none_or(|(_, place)| *place < stream.head);
            let known = self.entries.get(stream.name).filter(|(epoch, _)| *epoch == stream.epoch);
            if let Some((_, place)) = known.filter(|(_, place)| *place > stream.head) {
                return Err(format!(
                    "D1: client {who} came into {} at {place}, goes on from {}",
                    stream.name, stream.head
                ));
            }
        }
        if later { Ok(()) } else { Err(format!("D6: client {who} stood behind its entry into {room} and starts anew")) }
    }

    /// LEFT: behind it no frame of the room's streams may follow.
    pub(super) fn left(&mut self, correlation: u64, room: &str) -> Result<(), String> {
        let who = self.number;
        if correlation == 0 {
            if self.passing.remove(room).is_none_or(|passing| passing.joins) {
                return Err(format!("D1: client {who} is out of {room} again, though nothing new took it out"));
            }
        } else {
            match self.asked.remove(&correlation) {
                Some(Ask::Leave(asked)) if asked == room => {}
                asked => return Err(format!("D7: client {who}: LEFT {room} answers {asked:?}")),
            }
        }
        self.go_out(room);
        Ok(())
    }

    fn go_out(&mut self, room: &str) {
        self.passing.remove(room);
        let gone: Vec<u32> = self.streams.iter().filter(|(_, view)| view.is_of(room)).map(|(h, _)| *h).collect();
        for handle in gone {
            if let Some(view) = self.streams.remove(&handle) {
                self.told_of_left += view.told;
                self.forget_stream(&view.name);
            }
            self.left.insert(handle);
        }
        self.leaves += 1;
        self.since.remove(room);
        self.rooms.insert(room.to_owned(), Seat::Out);
    }

    /// It is out of the stream's room; where it stood may be said again.
    pub(super) fn forget_stream(&mut self, name: &str) {
        self.entries.remove(name);
        if let Some(position) = self.positions.remove(name) {
            self.former.insert(name.to_owned(), position);
        }
    }

    /// A direct refusal of a command.
    pub(super) fn refused(&mut self, code: u16, correlation: u64, text: &str) -> Result<(), String> {
        let limited = code == ErrorCode::RateLimited.index();
        self.limited += u64::from(limited);
        match self.asked.remove(&correlation) {
            Some(Ask::Join(room) | Ask::Service { room, joins: true, answered: false, .. }) => {
                self.turn(&room, Seat::Joining, Seat::Out);
            }
            Some(Ask::Leave(room)) if limited => self.turn(&room, Seat::Leaving, Seat::In),
            Some(Ask::Service { room, joins: false, answered: false, .. }) => {
                self.turn(&room, Seat::Leaving, Seat::In);
            }
            // An event took it out before its LEAVE arrived.
            Some(Ask::Leave(room)) if code == ErrorCode::NotInRoom.index() && self.rooms[&room] != Seat::In => {}
            Some(Ask::Publish | Ask::Command) => {}
            None if correlation == 0 => self.refusals.push(text.to_owned()),
            asked => {
                return Err(format!("D7: client {}: error {code} ({text}) answers {asked:?}", self.number));
            }
        }
        Ok(())
    }

    fn turn(&mut self, room: &str, from: Seat, to: Seat) {
        if self.rooms.get(room) == Some(&from) {
            self.rooms.insert(room.to_owned(), to);
        }
    }

    /// An event of the session's own stream, whose introduction named this head.
    pub(super) fn told(&mut self, told: &Told, head: u64) -> Result<(), String> {
        let new = told.place > self.acted_before;
        self.session_place = self.session_place.max(told.place);
        if let Some(effect) = told.effect.as_ref().filter(|_| new) {
            let (joins, places, due) = (effect.joins, vec![told.place], told.place > head);
            let passing = Passing { joins, places, due };
            if joins { self.let_in(&effect.room, passing) } else { self.taken_out(&effect.room, passing) }
        }
        if self.text
            && let Some(number) = told.answers.or(told.refuses)
        {
            self.answered_by_event(number, told.refuses.is_some())?;
        }
        if told.place >= head {
            for room in std::mem::take(&mut self.doubtful) {
                self.go_out(&room);
            }
        }
        Ok(())
    }

    fn let_in(&mut self, room: &str, mut passing: Passing) {
        self.doubtful.remove(room);
        match self.rooms.get(room) {
            Some(Seat::Out) => {}
            // The answer to its own JOIN is on its way.
            Some(Seat::Joining) => passing.due &= self.text,
            // In a replay it may have been out just now; then its streams are introduced anew.
            _ if self.text && !passing.due => {}
            // What was to take it out had done so before.
            _ => return drop(self.passing.remove(room)),
        }
        match self.passing.get_mut(room) {
            Some(earlier) if earlier.due => {}
            Some(earlier) => {
                earlier.places.append(&mut passing.places);
                earlier.due |= passing.due;
            }
            None => _ = self.passing.insert(room.to_owned(), passing),
        }
    }

    fn taken_out(&mut self, room: &str, passing: Passing) {
        match self.rooms.get(room) {
            // In dialect A the event itself says so.
            Some(Seat::In | Seat::Leaving) if self.text && passing.due => self.go_out(room),
            Some(Seat::In | Seat::Leaving) if self.text => {
                self.passing.remove(room);
                self.doubtful.insert(room.to_owned());
            }
            Some(Seat::In | Seat::Leaving) => _ = self.passing.entry(room.to_owned()).or_insert(passing),
            _ => {
                self.passing.remove(room);
                let asks =
                    |ask: &Ask| matches!(ask, Ask::Service { room: asked, answered: false, .. } if asked == room);
                if self.text && !self.asked.values().any(asks) {
                    self.turn(room, Seat::Joining, Seat::Out);
                }
            }
        }
    }

    /// Dialect A: the service's answer to a command, beside the bus's acknowledgement.
    fn answered_by_event(&mut self, number: u64, refused: bool) -> Result<(), String> {
        if number <= self.asked_before {
            return Ok(());
        }
        let who = self.number;
        let (room, joins, done) = match self.asked.get_mut(&number) {
            Some(Ask::Service { room, joins, acknowledged, answered }) if !*answered => {
                *answered = true;
                (room.clone(), *joins, *acknowledged)
            }
            asked => return Err(format!("D7: client {who}: the service's answer to {number} answers {asked:?}")),
        };
        if done {
            self.asked.remove(&number);
        }
        match joins {
            true if refused || !self.passing.contains_key(&room) => self.turn(&room, Seat::Joining, Seat::Out),
            true => {}
            false => self.turn(&room, Seat::Leaving, Seat::In),
        }
        Ok(())
    }

    /// The bus has a command, or a frame has its place.
    pub(super) fn acknowledged(&mut self, oracle: &mut Oracle, correlation: u64) -> Result<(), String> {
        let who = self.number;
        match self.asked.get_mut(&correlation) {
            Some(Ask::Publish | Ask::Command) => {
                self.asked.remove(&correlation);
                oracle.acknowledged(who, correlation);
            }
            Some(Ask::Service { acknowledged, answered, .. }) if !*acknowledged => {
                *acknowledged = true;
                if *answered || !self.text {
                    self.asked.remove(&correlation);
                }
            }
            asked => return Err(format!("D7: client {who}: ACK {correlation} answers {asked:?}")),
        }
        Ok(())
    }

    /// At the end nothing that was to let it in or out is left.
    pub(super) fn passed(&self) -> Result<(), String> {
        match self.passing.iter().find(|(_, passing)| passing.due) {
            Some((room, passing)) => Err(format!("D2: client {}: {passing:?} of {room} never acted", self.number)),
            None => Ok(()),
        }
    }
}
