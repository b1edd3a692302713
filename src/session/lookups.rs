//! What the gateway itself answers of rooms, dialect A: `rooms.command.members` and `rooms.command.history`.
//!
//! Presence is asked for a part of its records at a time, one question of a connection at once; the room's home gives
//! references to its newest frames. Both answers are bounded, whatever the room's size.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::answers::refusal_text;
use super::authenticate::Session;
use super::connection::{Connection, Flow, Phase, Until};
use super::{Cx, Output};
use crate::frame::SentRun;
use crate::id::{Scope, is_room_id};
use crate::limits;
use crate::message::{ErrorCode, PresenceRequest, Recall, Recalled, Request, RoomMember};
use crate::protocol::gateway::{Command, write};

/// A question about a room's members that is not answered yet.
pub struct RoomLook {
    room: Arc<str>,
    correlation_id: Option<Box<str>>,
    /// User id to name: a user has one entry, however many sessions.
    found: BTreeMap<Arc<str>, Arc<str>>,
    bytes: usize,
    /// The answer's bound is reached: the rest is left out, and the answer says so.
    truncated: bool,
}

impl Connection {
    /// Asks for what the command is about; its room was checked if the command's row says so.
    pub(super) fn look_at_room(&mut self, cx: &mut Cx<'_>, command: &Command<'_>) -> Flow {
        let Phase::Open(session) = &mut self.phase else { return Flow::Next };
        let id = command.correlation_id.as_deref();
        let refused = match command.field("room_id").filter(|room| is_room_id(room)) {
            None => Some((ErrorCode::BadRequest, "room_id: expected a room's id".to_owned())),
            Some(room) => match &*command.event_type {
                MEMBERS => match session.ask_for_members(cx, &room, id) {
                    Ok(flow) => return flow,
                    Err(refused) => Some(refused),
                },
                HISTORY => match session.ask_for_history(cx, &room, id) {
                    Ok(flow) => return flow,
                    Err(refused) => Some(refused),
                },
                other => Some((ErrorCode::UnknownType, format!("type: the gateway has no answer to {other}"))),
            },
        };
        if let Some((code, text)) = refused {
            self.answer(cx, |out| write::error(out, code, &text, id));
        }
        Flow::Next
    }

    /// Presence looked at a part of its records.
    pub(super) fn members_found(&mut self, cx: &mut Cx<'_>, members: Vec<RoomMember>, next: Option<u32>) {
        let Phase::Open(session) = &mut self.phase else { return };
        let looks = &mut session.seldom().looks;
        let Some(look) = looks.first_mut() else { return };
        members.into_iter().for_each(|member| look.add(member));
        if let Some(after) = next.filter(|_| !look.truncated) {
            let room = Arc::clone(&look.room);
            return self.ask_presence(cx, PresenceRequest::Members { from: cx.me, room, after });
        }
        let look = looks.remove(0);
        if let Some(following) = looks.first() {
            let room = Arc::clone(&following.room);
            self.ask_presence(cx, PresenceRequest::Members { from: cx.me, room, after: 0 });
        }
        self.answer(cx, |out| {
            let members = look.found.iter().map(|(user, name)| (&**user, &**name));
            write::members(out, &look.room, members, look.truncated, look.correlation_id.as_deref());
        });
    }

    /// Presence cannot be reached: the question that it was asked, whichever dialect's, is refused.
    pub(super) fn refuse_question(&mut self, cx: &mut Cx<'_>) {
        let Phase::Open(session) = &mut self.phase else { return };
        let Some(seldom) = session.seldom.as_mut() else { return };
        let id = if !seldom.looks.is_empty() {
            seldom.looks.remove(0).correlation_id
        } else if !seldom.asked.is_empty() {
            seldom.asked.remove(0).correlation_id
        } else {
            return;
        };
        if let Some(following) = seldom.looks.first() {
            let room = Arc::clone(&following.room);
            self.ask_presence(cx, PresenceRequest::Members { from: cx.me, room, after: 0 });
        }
        self.text_error(cx, ErrorCode::Unavailable, refusal_text(ErrorCode::Unavailable), id.as_deref());
    }

    /// The home gave the room's newest frames.
    pub fn recalled(&mut self, cx: &mut Cx<'_>, recalled: &Recalled) {
        let (Some(ticket), Phase::Open(session), Scope::Room(room)) =
            (self.take_ticket(recalled.number), &self.phase, &recalled.scope)
        else {
            return;
        };
        let user = Arc::clone(&session.user);
        let frames = recalled.runs.iter().flat_map(|run| {
            let seen = (run.from..run.to).filter(|index| is_for(&user, run, *index));
            seen.map(|index| (run.batch.bytes(index as usize, index as usize + 1), run.batch.origin()))
        });
        let routes = Arc::clone(&cx.settings.routes);
        self.answer(cx, |out| write::history(out, room, frames, &routes, ticket.correlation_id.as_deref()));
    }
}

/// A question under way, or why there is none.
type Asked = Result<Flow, (ErrorCode, String)>;

impl Session {
    fn ask_for_members(&mut self, cx: &mut Cx<'_>, room: &str, correlation_id: Option<&str>) -> Asked {
        if !(cx.may_request)(cx.settings.presence) {
            return Ok(Flow::Hold(Until::Open(cx.settings.presence)));
        }
        let looks = &mut self.seldom().looks;
        if looks.len() >= limits::LOOKS_WAITING {
            return Err((ErrorCode::RateLimited, format!("{MEMBERS}: {} wait for an answer", looks.len())));
        }
        let room: Arc<str> = room.into();
        if looks.is_empty() {
            let ask = PresenceRequest::Members { from: cx.me, room: Arc::clone(&room), after: 0 };
            cx.out.push(Output::Request(cx.settings.presence, Request::Presence(Box::new(ask))));
        }
        let correlation_id = correlation_id.map(Box::from);
        looks.push(RoomLook { room, correlation_id, found: BTreeMap::new(), bytes: 0, truncated: false });
        Ok(Flow::Next)
    }

    fn ask_for_history(&mut self, cx: &mut Cx<'_>, room: &str, correlation_id: Option<&str>) -> Asked {
        let scope = Scope::Room(room.into());
        let home = scope.home(cx.settings.shards);
        if !(cx.may_request)(home) {
            return Ok(Flow::Hold(Until::Open(home)));
        }
        let Some(number) = self.ticket(correlation_id) else {
            return Err((ErrorCode::RateLimited, "too many commands wait for an answer".to_owned()));
        };
        let (frames, bytes) = (write::HISTORY_ANSWER_EVENTS, write::HISTORY_ANSWER_BYTES);
        let recall = Recall { from: cx.me, number, scope, frames, bytes };
        cx.out.push(Output::Request(home, Request::Recall(Box::new(recall))));
        Ok(Flow::Next)
    }
}

impl RoomLook {
    fn add(&mut self, member: RoomMember) {
        if self.truncated || self.found.contains_key(&member.user) {
            return;
        }
        let bytes = member.user.len() + member.username.len() + MEMBER_OVERHEAD;
        if self.bytes + bytes > limits::MEMBERS_ANSWER_BYTES {
            self.truncated = true;
            return;
        }
        self.bytes += bytes;
        self.found.insert(member.user, member.username);
    }
}

/// Whether the user may see the frame.
fn is_for(user: &str, run: &SentRun, index: u32) -> bool {
    let marks = run.batch.marks();
    let mark = marks.binary_search_by_key(&index, |mark| mark.index).ok().map(|at| &marks[at]);
    mark.and_then(|mark| mark.audience.as_ref()).is_none_or(|audience| audience.includes(user))
}

const MEMBERS: &str = "rooms.command.members";
const HISTORY: &str = "rooms.command.history";
/// What a member has in the answer beside id and name.
const MEMBER_OVERHEAD: usize = r#"{"user_id":"","username":""},"#.len();
