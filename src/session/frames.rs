//! Dialect D on an upgraded connection: what each message of a client does (PROTOCOLS D).

use std::sync::Arc;

use super::answers::refusal_text;
use super::authenticate::{JoinStep, Joining, RoomSeat, Session};
use super::commands::Sent;
use super::connection::{Connection, Dialect, Flow, Phase, Until};
use super::relay::tell;
use super::{Cx, Output};
use crate::class::Class;
use crate::close::CloseReason;
use crate::frame::FrameKind;
use crate::id::{NodeId, Scope, StreamHandle, is_room_id};
use crate::message::{ErrorCode, Introduction, PresenceRequest, Publish, PublishTo, PublisherState, Request};
use crate::protocol::frames::{self, Inbound, PLAYER_KIND_MIN, json, types, write};
use crate::protocol::relay;
use crate::protocol::routes::Require;
use crate::time::Rate;

impl Connection {
    /// One binary message. It may be called again with the same bytes after `Hold`.
    pub(super) fn message(&mut self, cx: &mut Cx<'_>, payload: &mut [u8]) -> Flow {
        let inbound = match frames::parse(payload) {
            Ok(inbound) => inbound,
            Err(_) => {
                self.close(cx, CloseReason::BadRequest);
                return Flow::Next;
            }
        };
        match (&self.phase, inbound) {
            (Phase::Hello { .. }, Inbound::Hello { json }) => self.hello(cx, json),
            (Phase::Hello { .. }, _) => self.close(cx, CloseReason::Unauthorized),
            (Phase::Open(_), inbound) => return self.open_message(cx, inbound),
            _ => {}
        }
        Flow::Next
    }

    fn open_message(&mut self, cx: &mut Cx<'_>, inbound: Inbound<'_>) -> Flow {
        match inbound {
            Inbound::Hello { .. } => self.error(cx, ErrorCode::BadRequest, 0, "HELLO was answered before"),
            Inbound::Ping { payload } => self.answer(cx, |out| write::pong(out, payload)),
            Inbound::Pong => {}
            Inbound::Join { correlation, json } => return self.join(cx, correlation, json),
            Inbound::Leave { correlation, room } => return self.leave(cx, correlation, room),
            Inbound::DeltaAck { count } => {
                if self.queue.acknowledge_deltas(count).is_err() {
                    self.close(cx, CloseReason::BadRequest);
                }
            }
            Inbound::Command { kind, stream, correlation, payload } if kind >= PLAYER_KIND_MIN => {
                return self.player_command(cx, kind, stream, correlation, payload);
            }
            Inbound::Command { kind, stream, correlation, payload } => {
                return self.command(cx, kind, stream, correlation, payload);
            }
            Inbound::Publish { stream, correlation, .. } if !self.may_publish(cx, stream, correlation) => {}
            Inbound::Publish { kind, forgets, stream, correlation, payload, .. } if cx.settings.relays_by_bus => {
                return self.publish_by_bus(cx, kind, forgets, stream, correlation, payload);
            }
            Inbound::Publish { kind, class, key, forgets, stream, correlation, payload } => {
                let body = payload.into();
                let publish = Publish {
                    from: cx.me,
                    correlation,
                    stream,
                    to: PublishTo::Stream,
                    kind,
                    class,
                    key,
                    forgets,
                    body,
                };
                return Self::send_home(cx, publish);
            }
        }
        Flow::Next
    }

    fn join(&mut self, cx: &mut Cx<'_>, correlation: u64, json: &mut [u8]) -> Flow {
        // Reading works in place, so a message that has to be held is decided upon before it is read.
        if !every_node_open(cx) {
            return Flow::Hold(Until::EveryNodeOpen);
        }
        let join: json::Join<'_> = match json::read(json) {
            Ok(join) => join,
            Err(_) => {
                self.close(cx, CloseReason::BadRequest);
                return Flow::Next;
            }
        };
        if !is_room_id(join.room) {
            self.error(cx, ErrorCode::BadRequest, correlation, "room: expected 1-64 of A-Z a-z 0-9 . _ -");
            return Flow::Next;
        }
        if !self.may_move(cx, correlation) {
            return Flow::Next;
        }
        let Phase::Open(session) = &mut self.phase else { return Flow::Next };
        let scope = Scope::Room(join.room.into());
        // Who does not wait for the service any longer and asks again starts anew.
        let again = session.joining.iter().position(|joining| joining.scope == scope && session.may_make_way(joining));
        if let Some(at) = again {
            session.joining.remove(at);
        }
        if session.is_joining(&scope) {
            self.error(cx, ErrorCode::BadRequest, correlation, "room: this JOIN is on its way");
        } else if session.rooms.iter().any(|seat| seat.scope == scope) {
            self.error(cx, ErrorCode::BadRequest, correlation, "room: this session is in it");
        } else if !session.has_room_for_one(cx.settings.rooms_max) {
            let text = format!("room: a session has at most {} rooms; LEAVE one", cx.settings.rooms_max);
            self.error(cx, ErrorCode::Forbidden, correlation, &text);
        } else {
            let step = JoinStep::Home { password: join.password.map(Box::from) };
            session.joining.push(Joining { scope: scope.clone(), correlation, step });
            let (session, publisher) = (session.id, session.publisher);
            let (admitted, entry) = (false, None);
            cx.out.push(Output::Join { scope, session, publisher, admitted, entry, resume: None });
        }
        Flow::Next
    }

    /// Counts a JOIN or LEAVE, or refuses it.
    fn may_move(&mut self, cx: &mut Cx<'_>, correlation: u64) -> bool {
        let Phase::Open(session) = &mut self.phase else { return false };
        let rate = cx.settings.moves;
        let allowed = session.moves.allow(cx.now, rate);
        if !allowed {
            self.too_fast(cx, correlation, "JOIN and LEAVE", rate);
        }
        allowed
    }

    fn leave(&mut self, cx: &mut Cx<'_>, correlation: u64, room: &str) -> Flow {
        if !every_node_open(cx) {
            return Flow::Hold(Until::EveryNodeOpen);
        }
        if self.may_move(cx, correlation) && !self.leave_room(cx, &Scope::Room(room.into()), Some(correlation)) {
            self.error(cx, ErrorCode::NotInRoom, correlation, "room: this session is not in it");
        }
        Flow::Next
    }

    /// Ends a membership; `false` if there is none. A client that asked is answered, and an event that asks ends an
    /// admission on its way, too.
    pub(super) fn leave_room(&mut self, cx: &mut Cx<'_>, scope: &Scope, correlation: Option<u64>) -> bool {
        let Phase::Open(session) = &mut self.phase else { return false };
        let id = session.id;
        let Some(at) = session.rooms.iter().position(|seat| seat.scope == *scope) else {
            let undone = if correlation.is_none() { session.undo_join(scope) } else { None };
            let Some(asked) = undone else { return false };
            if asked != 0 {
                self.error(cx, ErrorCode::NotInRoom, asked, "room: an event took this session out of it");
            }
            self.publisher_left(cx, scope);
            self.ask_presence(cx, PresenceRequest::Left { session: id, scope: scope.clone() });
            return true;
        };
        let seat = session.rooms.remove(at);
        if let Some(seldom) = &mut session.seldom {
            // As in the record: who enters anew begins behind what has acted.
            seldom.acted.retain(|known| !scope.has_stream(&known.stream));
        }
        self.cursors.retain(|cursor| !seat.has(cursor.stream()));
        for stream in seat.streams() {
            self.with_queue(cx, |queue, context| queue.leave_stream(stream, context));
        }
        let scope = seat.scope;
        self.publisher_left(cx, &scope);
        self.ask_presence(cx, PresenceRequest::Left { session: id, scope: scope.clone() });
        if let Some(room) = room_name(&scope) {
            self.left(cx, correlation.unwrap_or(0), room);
        }
        cx.out.push(Output::Leave { scope });
        true
    }

    /// Tells the home that this session publishes to the room no longer.
    fn publisher_left(&mut self, cx: &mut Cx<'_>, scope: &Scope) {
        if let Phase::Open(session) = &self.phase
            && session.publisher
        {
            let id = session.id;
            tell(cx, id, scope, PublisherState::Gone);
            let gone = Request::PublisherGone { scope: scope.clone(), from: cx.me, gone: true };
            cx.out.push(Output::Request(scope.home(cx.settings.shards), gone));
        }
    }

    /// Whether this session may publish by the handle, or is told why not.
    fn may_publish(&mut self, cx: &mut Cx<'_>, stream: StreamHandle, correlation: u64) -> bool {
        let Phase::Open(session) = &self.phase else { return false };
        if !session.publisher {
            self.error(cx, ErrorCode::Forbidden, correlation, "publishing needs the role publisher");
        } else if !session.rooms.iter().any(|seat| seat.relay == stream) || stream == StreamHandle::NONE {
            self.error(cx, ErrorCode::BadRequest, correlation, "stream: expected the relay handle of a joined room");
        } else {
            return true;
        }
        false
    }

    fn player_command(
        &mut self,
        cx: &mut Cx<'_>,
        kind: u16,
        stream: StreamHandle,
        correlation: u64,
        payload: &[u8],
    ) -> Flow {
        let Phase::Open(session) = &mut self.phase else { return Flow::Next };
        let Some(scope) = session.room_of(stream).cloned() else {
            self.error(cx, ErrorCode::NotInRoom, correlation, "stream: expected a handle of a joined room");
            return Flow::Next;
        };
        // What has to be held is counted when it goes on.
        let by_bus = cx.settings.relays_by_bus;
        let target = if by_bus { Some(cx.settings.bus) } else { stream.home(cx.settings.shards) };
        let held = target.is_some_and(|node| !(cx.may_request)(node));
        let rate = cx.settings.player_commands;
        if !held && !session.seldom().player_commands.allow(cx.now, rate) {
            self.too_fast(cx, correlation, "commands to publishers", rate);
            return Flow::Next;
        }
        let body = write::player_command_body(correlation, &session.user, payload);
        if by_bus {
            let value = relay::input(kind, session.id, &body);
            return Self::send_by_bus(cx, &scope, correlation, value);
        }
        let publish = Publish {
            from: cx.me,
            correlation,
            stream,
            to: PublishTo::Input,
            kind: FrameKind { frame_type: types::PLAYER_COMMAND, kind },
            class: Class::Reliable,
            key: 0,
            forgets: false,
            body,
        };
        Self::send_home(cx, publish)
    }

    fn too_fast(&mut self, cx: &mut Cx<'_>, correlation: u64, what: &str, rate: Rate) {
        self.error(cx, ErrorCode::RateLimited, correlation, &format!("{what}: at most {rate}"));
    }

    fn send_home(cx: &mut Cx<'_>, publish: Publish) -> Flow {
        let Some(home) = publish.stream.home(cx.settings.shards) else { return Flow::Next };
        if !(cx.may_request)(home) {
            return Flow::Hold(Until::Open(home));
        }
        cx.out.push(Output::Request(home, Request::Publish(Box::new(publish))));
        Flow::Next
    }

    fn command(&mut self, cx: &mut Cx<'_>, kind: u16, stream: StreamHandle, correlation: u64, payload: &[u8]) -> Flow {
        if !(cx.may_request)(cx.settings.bus) {
            return Flow::Hold(Until::Open(cx.settings.bus));
        }
        let Phase::Open(session) = &self.phase else { return Flow::Next };
        let routes = Arc::clone(&cx.settings.routes);
        let Some((row, route)) = routes.command_of_kind(kind) else {
            let text = format!("kind: no command has the kind {kind}");
            self.error(cx, ErrorCode::UnknownType, correlation, &text);
            return Flow::Next;
        };
        let room = session.room_of(stream).and_then(room_name).map(Arc::clone);
        if matches!(route.require, Require::Member(_)) && room.is_none() {
            self.error(cx, ErrorCode::NotInRoom, correlation, "stream: expected a handle of a joined room");
            return Flow::Next;
        }
        let number = (correlation != 0).then(|| correlation.to_string());
        let key = room.as_deref().unwrap_or(&session.user).as_bytes().into();
        let event_type = &route.pattern;
        let (correlation_id, ticket, body) = (number.as_deref(), correlation, payload);
        let room_id = room.as_deref();
        let sent =
            Sent { row, route, event_type, room_id, key, correlation_id, ticket, body, checked: false, named_by: body };
        self.send_command(cx, sent);
        Flow::Next
    }

    /// The held message waited too long: a command is refused and reading goes on; a publisher would leave a hole that
    /// nobody sees, so it is closed and may resume (DELIVERY §5).
    pub(super) fn give_up_held(&mut self, cx: &mut Cx<'_>) {
        let Some((mut held, _)) = self.pause.take().and_then(|pause| pause.held) else { return };
        match self.dialect {
            Dialect::Gateway => return self.give_up_text(cx, &held),
            Dialect::Rooms => return self.give_up_hub(cx, &held),
            Dialect::Frames | Dialect::Echo => {}
        }
        match frames::parse(&mut held) {
            Ok(
                Inbound::Command { correlation, .. }
                | Inbound::Join { correlation, .. }
                | Inbound::Leave { correlation, .. },
            ) => {
                self.error(cx, ErrorCode::Unavailable, correlation, refusal_text(ErrorCode::Unavailable));
                self.last_input = cx.now;
                self.resume(cx);
            }
            _ => self.close(cx, CloseReason::TryAgainLater),
        }
    }

    /// A stream appeared in a scope while this resume waits for other homes: its frames so far are caught up. `false`
    /// once the connection no longer resumes.
    pub fn introduced_while_resuming(&mut self, scope: &Scope, introduction: &Arc<Introduction>) -> bool {
        let Phase::Busy(pending) = &mut self.phase else { return false };
        pending.introduce(scope, introduction)
    }
}

impl Session {
    /// Whether the room is asked for, and nothing but time is needed for an answer.
    pub(super) fn is_joining(&self, scope: &Scope) -> bool {
        let waits = |joining: &Joining| !joining.is_undone() && !self.may_make_way(joining);
        self.joining.iter().any(|joining| joining.scope == *scope && waits(joining))
    }

    /// Ends a join on its way, whose number it returns; `None` if there is none.
    pub(super) fn undo_join(&mut self, scope: &Scope) -> Option<u64> {
        let at = self.joining.iter().position(|joining| joining.scope == *scope && !joining.is_undone())?;
        if self.joining[at].at_service() {
            return Some(self.joining.remove(at).correlation);
        }
        let joining = &mut self.joining[at];
        joining.step = JoinStep::Undone;
        Some(std::mem::take(&mut joining.correlation))
    }

    /// Whether nothing but the rooms service will say anything more of it.
    fn may_make_way(&self, joining: &Joining) -> bool {
        let passed_on = self.seldom.as_ref().is_some_and(|seldom| seldom.passed_on.contains(&joining.correlation));
        joining.at_service() && !passed_on
    }

    /// Whether it was a JOIN that the bus now has answered for.
    pub(super) fn take_passed_on(&mut self, correlation: u64) -> bool {
        let Some(seldom) = &mut self.seldom else { return false };
        let at = seldom.passed_on.iter().position(|number| *number == correlation);
        at.map(|at| seldom.passed_on.remove(at)).is_some()
    }

    /// Whether one more room fits; what a service never answered makes way.
    pub(super) fn has_room_for_one(&mut self, rooms_max: usize) -> bool {
        let taken = self.rooms.len() + self.joining.iter().filter(|joining| !joining.is_undone()).count();
        if taken >= rooms_max
            && let Some(at) = self.joining.iter().position(|joining| self.may_make_way(joining))
        {
            self.joining.remove(at);
            return true;
        }
        taken < rooms_max
    }

    /// The seat of a room.
    pub(super) fn seat(&self, room: &str) -> Option<&RoomSeat> {
        self.rooms.iter().find(|seat| room_name(&seat.scope).is_some_and(|name| **name == *room))
    }

    pub(super) fn room_of(&self, stream: StreamHandle) -> Option<&Scope> {
        self.rooms.iter().find(|seat| seat.has(stream)).map(|seat| &seat.scope)
    }
}

pub(super) fn room_name(scope: &Scope) -> Option<&Arc<str>> {
    match scope {
        Scope::Room(room) => Some(room),
        _ => None,
    }
}

/// Whether requests to every shard and to presence may be sent; a JOIN does not know its home before it is read, and the
/// LEAVE behind it has the same way to go.
fn every_node_open(cx: &Cx<'_>) -> bool {
    (0..=cx.settings.shards).all(|node| (cx.may_request)(NodeId(node)))
}
