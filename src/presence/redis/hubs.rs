//! Questions that change no session: members of rooms, and room hubs (PROTOCOLS B), whose codes and players are in
//! Redis. What is said in hubs is heard from the bus and kept here, for whoever connects.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use foldhash::quality::FixedState;
use redis::Value;

use super::RedisPresence;
use super::answers::Asked;
use super::record::{number, string, text};
use crate::id::{ConnAddr, ConnectionId, RoomCode, SessionId};
use crate::limits;
use crate::message::{
    CreateHub, Disconnect, Elsewhere, ErrorCode, Hub, HubChange, HubMember, HubMessage, HubState, JoinHub,
    PresenceReply, PresenceRequest, RoomMember,
};

impl RedisPresence {
    /// Those that have a connection, then those that have none, of whatever gateway.
    pub(super) fn members(&mut self, from: ConnAddr, room: &Arc<str>, after: u32, replies: &mut Vec<PresenceReply>) {
        // Whatever was said before is in the answer.
        self.write();
        let of = if after < DETACHED { "sockets" } else { "detached" };
        let args = vec![text(room), text(of), text(&(after % DETACHED).to_string())];
        self.question("members", args, PresenceRequest::Members { from, room: Arc::clone(room), after }, replies);
    }

    /// Tells the gateways that have those connections.
    pub(super) fn disconnect(&mut self, disconnect: &Disconnect, replies: &mut Vec<PresenceReply>) {
        let Disconnect { whom, code, reason, .. } = disconnect;
        let (kind, id) = match whom {
            Elsewhere::User(user) => ("user", user.to_string()),
            Elsewhere::Connection(id) => ("connection", id.to_string()),
        };
        let args = vec![text(kind), text(&id), text(&code.to_string()), text(reason)];
        let again = PresenceRequest::Disconnect(Box::new(disconnect.clone()));
        self.question("disconnect", args, again, replies);
    }

    pub(super) fn create_hub(&mut self, hub: &CreateHub, replies: &mut Vec<PresenceReply>) {
        let CreateHub { from, room, player, name, max_players, codes } = hub;
        let args = [text(room), text(player), text(name), text(&max_players.to_string())];
        let args = args.into_iter().chain(codes.iter().map(|code| text(code.as_str()))).collect();
        let (from, max_players, codes) = (*from, *max_players, *codes);
        let again =
            CreateHub { from, room: room.clone(), player: player.clone(), name: name.clone(), max_players, codes };
        self.question("create_hub", args, PresenceRequest::CreateHub(Box::new(again)), replies);
    }

    pub(super) fn join_hub(&mut self, join: &JoinHub, replies: &mut Vec<PresenceReply>) {
        let JoinHub { from, code, player, name } = join;
        let args = vec![text(code.as_str()), text(player), text(name)];
        let again = JoinHub { from: *from, code: *code, player: player.clone(), name: name.clone() };
        self.question("join_hub", args, PresenceRequest::JoinHub(Box::new(again)), replies);
    }

    pub(super) fn find_hub(&mut self, from: ConnAddr, code: RoomCode, replies: &mut Vec<PresenceReply>) {
        self.question("find_hub", vec![text(code.as_str())], PresenceRequest::FindHub { from, code }, replies);
    }

    pub(super) fn hub_state(&mut self, from: ConnAddr, room: Arc<str>, replies: &mut Vec<PresenceReply>) {
        self.question("hub_state", vec![text(&room)], PresenceRequest::HubState { from, room }, replies);
    }

    fn question(
        &mut self,
        operation: &str,
        args: Vec<Box<[u8]>>,
        request: PresenceRequest,
        replies: &mut Vec<PresenceReply>,
    ) {
        let mut refused = Vec::new();
        super::lease::refuse(&request, &mut refused);
        if !self.ask(operation, args, Asked::Question(request)) {
            replies.append(&mut refused);
        }
    }

    pub(super) fn question_answered(
        &mut self,
        request: &PresenceRequest,
        word: &str,
        answer: &[Value],
        replies: &mut Vec<PresenceReply>,
    ) {
        match request {
            PresenceRequest::Members { from, .. } => {
                let at = |index: usize| answer.get(index).and_then(number);
                let next = match (answer.get(1).and_then(string), at(2).and_then(|cursor| u32::try_from(cursor).ok())) {
                    (Some("sockets"), Some(cursor)) => Some(cursor).filter(|cursor| *cursor < DETACHED),
                    (Some("detached"), Some(cursor)) => cursor.checked_add(DETACHED),
                    _ => None,
                };
                let members = answer.iter().skip(3).filter_map(|entry| self.member(entry)).collect();
                replies.push(PresenceReply::Members { to: *from, members, next });
            }
            PresenceRequest::Disconnect(disconnect) => {
                let told = answer.get(1).and_then(number).and_then(|told| usize::try_from(told).ok());
                let connections = told.unwrap_or(0);
                replies.push(PresenceReply::Disconnected { to: disconnect.from, connections });
            }
            PresenceRequest::CreateHub(hub) => self.enrolled(hub.from, Some(hub), None, word, answer, replies),
            PresenceRequest::JoinHub(join) => self.enrolled(join.from, None, Some(join), word, answer, replies),
            PresenceRequest::FindHub { from, code } => {
                replies.push(PresenceReply::Hub { to: *from, hub: hub(*code, answer).map(Box::new) });
            }
            PresenceRequest::HubState { from, room } => {
                let members = answer.iter().skip(1).filter_map(hub_member).collect();
                let state = HubState { members, messages: self.messages.of(room) };
                replies.push(PresenceReply::HubState { to: *from, state: Box::new(state) });
            }
            other => tracing::error!(?other, "that is no question"),
        }
    }

    fn member(&self, entry: &Value) -> Option<RoomMember> {
        let Value::Array(fields) = entry else { return None };
        let at = |index: usize| fields.get(index).and_then(string);
        // A session without connection has an empty name.
        let name = ConnectionId::parse(at(0)?);
        let connection = name.and_then(|name| name.addr(self.gateway.nonce));
        let elsewhere = name.filter(|_| connection.is_none());
        let (user, username) = (at(2)?.into(), at(3)?.into());
        Some(RoomMember { session: SessionId::parse(at(1)?)?, user, username, connection, elsewhere })
    }

    /// A place was given, or not. The caller is told when the bus has what the rooms service must know.
    fn enrolled(
        &mut self,
        to: ConnAddr,
        made: Option<&CreateHub>,
        joined: Option<&JoinHub>,
        word: &str,
        answer: &[Value],
        replies: &mut Vec<PresenceReply>,
    ) {
        let at = |index: usize| answer.get(index).and_then(string);
        let place = at(1).map(Arc::<str>::from).zip(at(2).and_then(RoomCode::parse));
        let Some((room, code)) = place.filter(|_| word == "ENROLLED") else {
            let code = match word {
                "NONE" => ErrorCode::RoomNotFound,
                "FULL" => ErrorCode::RoomFull,
                _ => ErrorCode::Unavailable,
            };
            replies.push(PresenceReply::Enrolled { to, outcome: Err(code) });
            return;
        };
        if let Some(CreateHub { max_players, player, name, .. }) = made {
            let (player, name) = (player.clone(), name.clone());
            self.hub_changes.push(HubChange::Opened { room: room.clone(), code, max_players: *max_players });
            self.hub_changes.push(HubChange::Enrolled { room: room.clone(), player, name, in_place_of: None });
        }
        if let Some(JoinHub { player, name, .. }) = joined {
            let in_place_of = at(3).filter(|id| !id.is_empty()).map(Arc::from);
            let (player, name) = (player.clone(), name.clone());
            self.hub_changes.push(HubChange::Enrolled { room: room.clone(), player, name, in_place_of });
        }
        self.promised.push(PresenceReply::Enrolled { to, outcome: Ok((room, code)) });
    }
}

fn hub(code: RoomCode, answer: &[Value]) -> Option<Hub> {
    let at = |index: usize| answer.get(index).and_then(string);
    let (room, max_players) = (at(1)?.into(), at(2)?.parse().ok()?);
    let players =
        answer[3..].chunks_exact(2).filter_map(|pair| Some((string(&pair[0])?.into(), string(&pair[1])?.into())));
    Some(Hub { room, code, max_players, players: players.collect() })
}

fn hub_member(entry: &Value) -> Option<HubMember> {
    let Value::Array(fields) = entry else { return None };
    let at = |index: usize| fields.get(index).and_then(string);
    let connected = fields.get(2).and_then(number) == Some(1);
    Some(HubMember { player: at(0)?.into(), name: at(1)?.into(), connected })
}

/// The newest messages of each room that they were said in, within the bounds of one and of all.
#[derive(Debug)]
pub(super) struct Messages {
    rooms: HashMap<Arc<str>, Said, FixedState>,
    /// Rooms by when something was said there last.
    by_age: BTreeMap<u64, Arc<str>>,
    clock: u64,
    bytes: usize,
}

#[derive(Default, Debug)]
struct Said {
    messages: VecDeque<HubMessage>,
    bytes: usize,
    last: u64,
}

impl Messages {
    pub(super) fn new(hasher: FixedState) -> Self {
        Self { rooms: HashMap::with_hasher(hasher), by_age: BTreeMap::new(), clock: 0, bytes: 0 }
    }

    /// A message stands in the room's stream; one that is known already changes nothing.
    pub(super) fn said(&mut self, room: &str, message: HubMessage) {
        if self.rooms.get(room).and_then(|said| said.messages.back()).is_some_and(|last| last.place >= message.place) {
            return;
        }
        self.clock += 1;
        let room: Arc<str> = room.into();
        let said = self.rooms.entry(Arc::clone(&room)).or_default();
        let mut former = said.messages.iter_mut().filter(|known| known.place == 0);
        if let Some(known) = former.find(|known| known.payload == message.payload) {
            known.place = message.place;
            return;
        }
        self.by_age.remove(&said.last);
        said.last = self.clock;
        self.by_age.insert(self.clock, room);
        said.bytes += message.payload.len();
        self.bytes += message.payload.len();
        said.messages.push_back(message);
        while said.messages.len() > limits::HUB_MESSAGES || said.bytes > limits::HUB_MESSAGES_BYTES {
            let bytes = said.messages.pop_front().map_or(0, |message| message.payload.len());
            said.bytes -= bytes;
            self.bytes -= bytes;
        }
        while self.bytes > limits::HUB_MESSAGES_TOTAL_BYTES || self.rooms.len() > limits::ROOMS_TOTAL {
            let Some((_, room)) = self.by_age.pop_first() else { return };
            self.bytes -= self.rooms.remove(&room).map_or(0, |said| said.bytes);
        }
    }

    /// What is known stands before all that comes, where it does not come again.
    pub(super) fn renumbered(&mut self) {
        for message in self.rooms.values_mut().flat_map(|said| &mut said.messages) {
            message.place = 0;
        }
    }

    fn of(&self, room: &str) -> Vec<HubMessage> {
        self.rooms.get(room).map(|said| said.messages.iter().cloned().collect()).unwrap_or_default()
    }
}

/// From here on a look at members goes on among those without connection.
const DETACHED: u32 = 1 << 31;
