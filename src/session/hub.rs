//! Dialect B on an upgraded connection (PROTOCOLS B): the player's session, the first state, commands and answers.
//!
//! The room token is the player's identity: presence has at most one session of a player, and a second connection takes
//! it over (4409). Where the room's stream goes on the request's `epoch` and `offset` say, but never before the session
//! came in (DELIVERY §6); a new session comes in now. Of the player's own streams (errors, private events) the dialect has
//! no positions: a connection gets again what came since the former one began.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::answers::refusal_text;
use super::authenticate::{Asked, Entry, Pending, Resuming, RoomSeat, Session, Visit};
use super::commands::Sent;
use super::connection::{Connection, Flow, Phase, Until};
use super::{Cx, Output, mutant};
use crate::close::CloseReason;
use crate::id::{Scope, SessionId, TokenHash};
use crate::limits;
use crate::message::{
    ErrorCode, HubState, Introduction, Joined, LostReason, Position, PresenceReply, PresenceRequest, ResumeFrom,
    ScopeEntry, SessionRecord, Start, StreamStart,
};
use crate::protocol::gateway::Fields;
use crate::protocol::rooms::{self, Message, Op, Unfit, Wish, write};

impl Connection {
    /// Asks presence for the player's session.
    pub(super) fn attach(&mut self, cx: &mut Cx<'_>, visit: Visit, player: Arc<str>, name: Arc<str>, token: TokenHash) {
        let record = SessionRecord {
            session: SessionId(super::authenticate::random_bytes(cx)),
            user: player,
            username: name,
            roles: [].into(),
            expires_at: u64::MAX,
            scopes: Vec::new(),
            acted: Vec::new(),
            last_close: None,
        };
        let (from, room) = (cx.me, visit.room.clone());
        let session = Box::new(Session::new(cx, record.session, &record));
        self.phase = Phase::Busy(Box::new(Pending::Attaching { session, visit }));
        self.ask_presence(cx, PresenceRequest::Attach { from, room, record: Box::new(record), token });
    }

    /// Presence has given the player's session, a new one or the one there was; or the room or the place is gone.
    pub(super) fn attached(
        &mut self,
        cx: &mut Cx<'_>,
        mut session: Box<Session>,
        mut visit: Visit,
        reply: PresenceReply,
    ) {
        let mut known = None;
        match reply {
            PresenceReply::Opened { roles, .. } => session.roles = roles,
            PresenceReply::Resumed { record, .. } => {
                session = Box::new(Session::new(cx, record.session, &record));
                known = Some(record.scopes);
            }
            _ => {
                self.phase = Phase::hello(0);
                self.error(cx, ErrorCode::RoomNotFound, 0, refusal_text(ErrorCode::RoomNotFound));
                return self.close(cx, CloseReason::RoomNotFound);
            }
        }
        self.identify(cx, &session);
        let room = Scope::Room(visit.room.clone());
        visit.entry = match &known {
            None => Entry::Expired,
            Some(known) if entered(known, &room).is_empty() => Entry::Later,
            Some(_) => Entry::Known,
        };
        let (id, stream) = (session.id, visit.stream());
        let mut scopes = vec![room.clone()];
        scopes.extend(session.own_scopes());
        let resuming = Resuming {
            session,
            token: Box::default(),
            last_close: None,
            answers: Vec::with_capacity(scopes.len()),
            admitted: vec![room.clone()],
            scopes: scopes.clone(),
            visit: Some(Box::new(visit)),
        };
        // The stream is made at once: the first state names it.
        let rooms_epoch = cx.settings.rooms_epoch.load(Ordering::Relaxed);
        let entry = Position { stream: stream.clone(), epoch: rooms_epoch, place: u64::MAX };
        let visit = resuming.visit.as_deref().filter(|visit| visit.entry == Entry::Known);
        let said = visit.and_then(|visit| visit.position);
        let said = said.map(|(epoch, place)| Position { stream: stream.clone(), epoch, place });
        let mut resume = said.map(|said| {
            let entered = known.as_deref().map_or_else(Vec::new, |known| entered(known, &room));
            // What has another numbering since the session came in is all behind that.
            let guards = |entry: &Position| entry.stream != stream || entry.epoch == said.epoch;
            ResumeFrom { entered: entered.into_iter().filter(guards).collect(), positions: vec![said] }
        });
        self.phase = Phase::Busy(Box::new(Pending::Resuming(Box::new(resuming))));
        for scope in scopes {
            let admitted = scope == room;
            let (entry, resume) = if admitted {
                (Some(entry.clone()), resume.take())
            } else {
                // What the former connection may have got already comes again: nobody knows where it stopped there.
                let since = |known: &Vec<_>| ResumeFrom { positions: Vec::new(), entered: entered(known, &scope) };
                (None, known.as_ref().map(since))
            };
            cx.out.push(Output::Join { scope, session: id, publisher: false, admitted, entry, resume });
        }
    }

    /// All homes have answered: now presence may say who is here and what was said, for it has heard of whatever they
    /// have.
    pub(super) fn ask_state(&mut self, cx: &mut Cx<'_>, room: Arc<str>) {
        self.ask_presence(cx, PresenceRequest::HubState { from: cx.me, room });
    }

    /// The first state, then the streams.
    pub(super) fn enter_hub(&mut self, cx: &mut Cx<'_>, resuming: Resuming, visit: &Visit, state: &HubState) {
        let Resuming { mut session, mut answers, .. } = resuming;
        let name = visit.stream();
        let room = Scope::Room(visit.room.clone());
        let starts = answers.iter().flat_map(|answer| answer.outcome.iter().flatten());
        let found = starts.into_iter().find(|start| start.introduction.position.stream == name);
        let Some(StreamStart { introduction, start }) = found else {
            // The home has used up its handles: give everything back.
            return self.give_up_entry(cx, &session, answers);
        };
        let head = introduction.position.place;
        let (offset, lost) = visit.begins(*start, head);
        let offset = if mutant!(cx, HubAtHead) { head } else { offset };
        let recovered = visit.position.is_some() && lost.is_none();
        // It keeps the place of its first entry, as long as there is a way on from there.
        let enters = visit.entry != Entry::Known || matches!(*start, Start::Lost(_));
        let position = Position { place: offset, ..introduction.position.clone() };
        let stream = Introduction { position, ..**introduction };
        let messages = state.messages.iter().filter(|message| message.place <= offset || mutant!(cx, StateAhead));
        let joined = write::Joined {
            room: &visit.room,
            code: visit.code,
            max_players: visit.max_players,
            members: &state.members,
            messages: &messages.map(|message| &*message.payload).collect::<Vec<_>>(),
            stream: &stream,
            recovered,
            reason: lost,
        };
        self.answer(cx, |out| write::joined(out, &joined));
        for answer in &mut answers {
            for start in answer.outcome.iter_mut().flatten() {
                let own = start.introduction.position.stream == name;
                start.start = match start.start {
                    _ if own => Start::Behind(offset),
                    Start::Behind(place) | Start::Anew(place) => Start::Behind(place),
                    Start::Live | Start::Lost(_) => Start::Behind(start.introduction.position.place),
                };
            }
            if let (true, Ok(streams)) = (answer.scope == room, &answer.outcome) {
                session.rooms.push(RoomSeat::new(&room, streams));
            }
        }
        let id = session.id;
        self.phase = Phase::Open(session);
        for Joined { scope, outcome, .. } in answers {
            let enters = enters || scope != room;
            self.enter_scope(cx, id, enters, scope, outcome, &name);
        }
    }

    fn give_up_entry(&mut self, cx: &mut Cx<'_>, session: &Session, answers: Vec<Joined>) {
        for answer in answers {
            cx.out.push(Output::Decline { scope: answer.scope });
        }
        cx.out.push(Output::Detach);
        let (from, session, last_close) = (cx.me, session.id, CloseReason::TryAgainLater);
        self.ask_presence(cx, PresenceRequest::Detached { from, session, last_close });
        self.phase = Phase::hello(0);
        self.close(cx, CloseReason::TryAgainLater);
    }

    fn enter_scope(
        &mut self,
        cx: &mut Cx<'_>,
        session: SessionId,
        enters: bool,
        scope: Scope,
        outcome: Result<Vec<StreamStart>, ErrorCode>,
        told: &str,
    ) {
        let Ok(streams) = outcome else { return cx.out.push(Output::Decline { scope }) };
        let others: Vec<_> = streams.iter().map(|start| &*start.introduction).collect();
        let others: Vec<_> = others.into_iter().filter(|other| *other.position.stream != *told).collect();
        if !others.is_empty() {
            self.answer(cx, |out| write::position(out, others));
        }
        let admitted = matches!(scope, Scope::Room(_));
        if enters && (admitted || !streams.is_empty()) {
            let entered = streams.iter().map(|start| start.introduction.position.clone()).collect();
            let entry = ScopeEntry { scope: scope.clone(), entered, admitted };
            self.ask_presence(cx, PresenceRequest::Entered { session, entry });
        }
        cx.out.push(Output::Confirm { scope, streams });
    }

    /// One text message. It may be called again with the same text after `Hold`.
    pub(super) fn hub_message(&mut self, cx: &mut Cx<'_>, text: &[u8]) -> Flow {
        let mut fields = std::mem::take(cx.fields);
        let flow = match rooms::parse(text, &mut fields) {
            Ok(message) => self.hub_wish(cx, &message),
            Err(malformed) => {
                self.malformed(cx, &malformed.to_string());
                Flow::Next
            }
        };
        *cx.fields = fields;
        flow
    }

    fn hub_wish(&mut self, cx: &mut Cx<'_>, message: &Message<'_>) -> Flow {
        let id = message.correlation_id.as_deref();
        match message.wish {
            Ok(Wish::System(Op::Ping)) => {
                let now = cx.wall;
                self.answer(cx, |out| write::pong(out, now, id));
                Flow::Next
            }
            Ok(Wish::System(op)) => self.question(cx, op, id),
            Ok(Wish::Command(event_type, fields)) => self.hub_command(cx, event_type, fields, message),
            Err(unfit) => {
                let code = match unfit {
                    Unfit::Type => ErrorCode::UnknownType,
                    Unfit::Long => ErrorCode::TooLong,
                    Unfit::Payload | Unfit::Empty | Unfit::Op | Unfit::Twice(_) => ErrorCode::BadRequest,
                };
                self.text_error(cx, code, unfit.text(), id);
                Flow::Next
            }
        }
    }

    fn hub_command(&mut self, cx: &mut Cx<'_>, event_type: &str, fields: &str, message: &Message<'_>) -> Flow {
        let Phase::Open(session) = &mut self.phase else { return Flow::Next };
        let id = message.correlation_id.as_deref();
        let routes = Arc::clone(&cx.settings.routes);
        let (route, room) = (routes.command(event_type), session.room_names().next().map(Box::<str>::from));
        let (Some((row, route)), Some(room)) = (route, room) else {
            let text = format!("type: the type table has no command {event_type}");
            self.text_error(cx, ErrorCode::UnknownType, &text, id);
            return Flow::Next;
        };
        if !(cx.may_request)(cx.settings.bus) {
            return Flow::Hold(Until::Open(cx.settings.bus));
        }
        let Some(ticket) = session.ticket(id) else {
            self.text_error(cx, ErrorCode::RateLimited, "too many commands wait for an answer", id);
            return Flow::Next;
        };
        let (key, room_id) = (room.as_bytes().into(), Some(&*room));
        let (body, named_by) = (fields.as_bytes(), message.body.as_bytes());
        let sent =
            Sent { row, route, event_type, room_id, key, correlation_id: id, ticket, body, checked: true, named_by };
        self.send_command(cx, sent);
        Flow::Next
    }

    /// A question that presence answers.
    fn question(&mut self, cx: &mut Cx<'_>, op: Op, id: Option<&str>) -> Flow {
        let Phase::Open(session) = &mut self.phase else { return Flow::Next };
        let routes = Arc::clone(&cx.settings.routes);
        let Some(room) = session.room_names().next().map(Arc::from) else { return Flow::Next };
        if !(cx.may_request)(cx.settings.presence) {
            return Flow::Hold(Until::Open(cx.settings.presence));
        }
        let row = op.command().and_then(|command| routes.command(command));
        let too_fast = row.is_some_and(|(row, route)| !session.allows(cx.now, row, route.rate));
        let asked = &mut session.seldom().asked;
        if too_fast || asked.len() >= limits::HUB_QUESTIONS {
            self.text_error(cx, ErrorCode::RateLimited, "payload.op: asked too often", id);
            return Flow::Next;
        }
        asked.push(Asked { op, correlation_id: id.map(Box::from) });
        self.ask_state(cx, room);
        Flow::Next
    }

    /// Presence answered the first question that waits.
    pub(super) fn hub_answer(&mut self, cx: &mut Cx<'_>, state: &HubState) {
        let Phase::Open(session) = &mut self.phase else { return };
        let asked = session.seldom.as_mut().map(|seldom| &mut seldom.asked).filter(|asked| !asked.is_empty());
        let Some(Asked { op, correlation_id }) = asked.map(|asked| asked.remove(0)) else { return };
        let id = correlation_id.as_deref();
        match op {
            Op::History => {
                let messages: Vec<_> = state.messages.iter().map(|message| &*message.payload).collect();
                self.answer(cx, |out| write::history(out, &messages, id));
            }
            Op::Members | Op::Ping => self.answer(cx, |out| write::members(out, &state.members, id)),
        }
    }

    /// What was held for too long is refused (DELIVERY §5).
    pub(super) fn give_up_hub(&mut self, cx: &mut Cx<'_>, text: &[u8]) {
        let mut fields: Fields = std::mem::take(cx.fields);
        if let Ok(message) = rooms::parse(text, &mut fields) {
            let id = message.correlation_id.as_deref();
            self.text_error(cx, ErrorCode::Unavailable, refusal_text(ErrorCode::Unavailable), id);
        }
        *cx.fields = fields;
        self.last_input = cx.now;
        self.resume(cx);
    }
}

/// Where the session, or for scopes without positions its former connection, entered the scope.
fn entered(known: &[ScopeEntry], scope: &Scope) -> Vec<Position> {
    let entry = known.iter().find(|entry| entry.scope == *scope);
    entry.map(|entry| entry.entered.clone()).unwrap_or_default()
}

impl Visit {
    /// The name of the room's stream of events.
    pub(super) fn stream(&self) -> Arc<str> {
        format!("rooms.events.0/room:{}", self.room).into()
    }

    /// Where the room's stream goes on, whose head is this, and why not where the request says.
    fn begins(&self, start: Start, head: u64) -> (u64, Option<LostReason>) {
        let Some((_, said)) = self.position else { return (head, None) };
        match (self.entry, start) {
            (Entry::Expired, _) => (head, Some(LostReason::Expired)),
            (Entry::Later, _) => (head, Some(LostReason::EnteredLater)),
            (Entry::Known, Start::Behind(place)) => (place, None),
            (Entry::Known, Start::Live) => (said.min(head), None),
            (Entry::Known, Start::Anew(place)) => (place, Some(LostReason::EnteredLater)),
            (Entry::Known, Start::Lost(reason)) => (head, Some(reason)),
        }
    }
}
