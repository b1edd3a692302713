//! Dialect D on an upgraded connection: what each message of a client does (PROTOCOLS D).

use std::sync::Arc;

use super::authenticate::{RoomSeat, Session};
use super::connection::{Connection, Flow, Phase};
use super::{Cx, Output};
use crate::class::Class;
use crate::close::CloseReason;
use crate::frame::FrameKind;
use crate::id::{EventId, NodeId, Scope, StreamHandle, is_room_id};
use crate::message::{Append, ErrorCode, Introduction, PresenceRequest, Publish, Request};
use crate::protocol::envelope::{ClientCommand, command_id, put_command};
use crate::protocol::frames::{self, Inbound, PLAYER_KIND_MIN, json, types, write};
use crate::protocol::routes::{CommandRoute, Destination, Require};
use crate::time::{Monotonic, Rate};

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
            Inbound::Leave { correlation, room } => self.leave(cx, correlation, room),
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
            Inbound::Publish { kind, class, key, forgets, stream, correlation, payload } => {
                let body = payload.into();
                let publish =
                    Publish { from: cx.me, correlation, stream, to_input: false, kind, class, key, forgets, body };
                return self.publish(cx, publish);
            }
        }
        Flow::Next
    }

    fn join(&mut self, cx: &mut Cx<'_>, correlation: u64, json: &mut [u8]) -> Flow {
        // Reading works in place, so a message that has to be held is decided upon before it is read.
        if !every_node_open(cx) {
            return Flow::Hold(None);
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
        if session.joining.iter().any(|(other, _)| *other == scope) {
            self.error(cx, ErrorCode::BadRequest, correlation, "room: this JOIN is on its way");
        } else if session.rooms.iter().any(|seat| seat.scope == scope) {
            self.error(cx, ErrorCode::BadRequest, correlation, "room: this session is in it");
        } else if session.rooms.len() + session.joining.len() >= cx.settings.rooms_max {
            let text = format!("room: a session has at most {} rooms; LEAVE one", cx.settings.rooms_max);
            self.error(cx, ErrorCode::Forbidden, correlation, &text);
        } else {
            session.joining.push((scope.clone(), correlation));
            let (session, publisher) = (session.id, session.publisher);
            cx.out.push(Output::Join { scope, session, publisher, resume: None });
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

    fn leave(&mut self, cx: &mut Cx<'_>, correlation: u64, room: &str) {
        if !self.may_move(cx, correlation) {
            return;
        }
        let Phase::Open(session) = &mut self.phase else { return };
        let Some(at) = session.rooms.iter().position(|seat| seat.is(room)) else {
            return self.error(cx, ErrorCode::NotInRoom, correlation, "room: this session is not in it");
        };
        let seat = session.rooms.swap_remove(at);
        let (id, publisher, scope) = (session.id, session.publisher, seat.scope);
        self.cursors.retain(|cursor| !seat.streams.contains(&cursor.stream()));
        for stream in seat.streams {
            self.with_queue(cx, |queue, context| queue.leave_stream(stream, context));
        }
        if publisher {
            let home = scope.home(cx.settings.shards);
            let scope = scope.clone();
            cx.out.push(Output::Request(home, Request::PublisherGone { scope, from: cx.me, gone: true }));
        }
        self.ask_presence(cx, PresenceRequest::Left { session: id, scope: scope.clone() });
        cx.out.push(Output::Leave { scope });
        self.answer(cx, |out| write::left(out, correlation, room));
    }

    fn publish(&mut self, cx: &mut Cx<'_>, publish: Publish) -> Flow {
        let Phase::Open(session) = &self.phase else { return Flow::Next };
        let correlation = publish.correlation;
        if !session.publisher {
            self.error(cx, ErrorCode::Forbidden, correlation, "publishing needs the role publisher");
        } else if !session.rooms.iter().any(|seat| seat.relay == publish.stream) || publish.stream == StreamHandle::NONE
        {
            self.error(cx, ErrorCode::BadRequest, correlation, "stream: expected the relay handle of a joined room");
        } else {
            return Self::send_home(cx, publish);
        }
        Flow::Next
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
        if session.room_of(stream).is_none() {
            self.error(cx, ErrorCode::NotInRoom, correlation, "stream: expected a handle of a joined room");
            return Flow::Next;
        }
        // What has to be held is counted when it goes on.
        let held = stream.home(cx.settings.shards).is_some_and(|home| !(cx.may_request)(home));
        let rate = cx.settings.player_commands;
        if !held && !session.player_commands.allow(cx.now, rate) {
            self.too_fast(cx, correlation, "commands to publishers", rate);
            return Flow::Next;
        }
        let publish = Publish {
            from: cx.me,
            correlation,
            stream,
            to_input: true,
            kind: FrameKind { frame_type: types::PLAYER_COMMAND, kind },
            class: Class::Reliable,
            key: 0,
            forgets: false,
            body: write::player_command_body(correlation, &session.user, payload),
        };
        Self::send_home(cx, publish)
    }

    fn too_fast(&mut self, cx: &mut Cx<'_>, correlation: u64, what: &str, rate: Rate) {
        self.error(cx, ErrorCode::RateLimited, correlation, &format!("{what}: at most {}/s", rate.per_second));
    }

    fn send_home(cx: &mut Cx<'_>, publish: Publish) -> Flow {
        let Some(home) = publish.stream.home(cx.settings.shards) else { return Flow::Next };
        if !(cx.may_request)(home) {
            return Flow::Hold(Some(home));
        }
        cx.out.push(Output::Request(home, Request::Publish(Box::new(publish))));
        Flow::Next
    }

    fn command(&mut self, cx: &mut Cx<'_>, kind: u16, stream: StreamHandle, correlation: u64, payload: &[u8]) -> Flow {
        if !(cx.may_request)(cx.settings.bus) {
            return Flow::Hold(Some(cx.settings.bus));
        }
        match self.append(cx, kind, stream, correlation, payload) {
            Ok(append) => cx.out.push(Output::Request(cx.settings.bus, Request::Append(Box::new(append)))),
            Err((code, text)) => self.error(cx, code, correlation, &text),
        }
        Flow::Next
    }

    /// The command's envelope, or why it is not sent.
    fn append(
        &mut self,
        cx: &mut Cx<'_>,
        kind: u16,
        stream: StreamHandle,
        correlation: u64,
        payload: &[u8],
    ) -> Result<Append, (ErrorCode, String)> {
        let unknown = || (ErrorCode::UnknownType, format!("kind: no command has the kind {kind}"));
        let routes = Arc::clone(&cx.settings.routes);
        let (index, route) = routes.command_of_kind(kind).ok_or_else(unknown)?;
        let (Destination::Topic(topic), Phase::Open(session)) = (&route.destination, &mut self.phase) else {
            return Err(unknown());
        };
        let room = session.room_of(stream).cloned();
        session.may(route, room.is_some())?;
        if !session.allows(cx.now, index as u16, route.rate) {
            return Err((ErrorCode::RateLimited, format!("{}: at most {}/s", route.pattern, route.rate.per_second)));
        }
        let number = correlation.to_string();
        let correlation_id = (correlation != 0).then_some(&*number);
        let event_id = match correlation_id {
            Some(number) => command_id(session.id, number, payload),
            None => EventId::v7(cx.wall, cx.entropy()),
        };
        let room_id = room.as_ref().and_then(room_name);
        let command = ClientCommand {
            event_id,
            event_type: &route.pattern,
            timestamp: cx.wall,
            gateway_id: &cx.settings.gateway_id,
            connection: cx.settings.connection_id(cx.me),
            session: session.id,
            correlation: correlation_id,
            user_id: &session.user,
            username: &session.username,
            roles: &session.roles,
            room_id,
            form: route.payload,
            body: payload,
        };
        let mut value = Vec::new();
        put_command(&mut value, &command, cx.json);
        let key = room_id.unwrap_or(&session.user).as_bytes().into();
        Ok(Append { from: cx.me, correlation, topic: (**topic).into(), key, value: value.into() })
    }

    /// A publish or a command with a correlation was accepted or refused.
    pub fn answered(&mut self, cx: &mut Cx<'_>, correlation: u64, outcome: Result<(), ErrorCode>) {
        if !self.is_open() {
            return;
        }
        match outcome {
            Ok(()) => self.answer(cx, |out| write::ack(out, correlation)),
            Err(code) => self.error(cx, code, correlation, refusal_text(code)),
        }
    }

    /// A stream appeared in a scope of this connection; its frames follow.
    pub fn introduced(&mut self, cx: &mut Cx<'_>, scope: &Scope, introduction: &Introduction) {
        if let Phase::Open(session) = &mut self.phase
            && let Some(seat) = session.rooms.iter_mut().find(|seat| seat.scope == *scope)
        {
            seat.streams.push(introduction.handle);
        }
        self.answer(cx, |out| write::position(out, introduction));
    }

    /// The held message waited too long: a command is refused and reading goes on; a publisher would leave a hole that
    /// nobody sees, so it is closed and may resume (DELIVERY §5).
    pub(super) fn give_up_held(&mut self, cx: &mut Cx<'_>) {
        let Some(mut held) = self.pause.take().and_then(|pause| pause.held) else { return };
        match frames::parse(&mut held) {
            Ok(Inbound::Command { correlation, .. } | Inbound::Join { correlation, .. }) => {
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

    pub(super) fn error(&mut self, cx: &mut Cx<'_>, code: ErrorCode, correlation: u64, text: &str) {
        self.answer(cx, |out| write::error(out, code, correlation, text));
    }
}

impl Session {
    fn room_of(&self, stream: StreamHandle) -> Option<&Scope> {
        let known = stream != StreamHandle::NONE;
        self.rooms.iter().find(|seat| known && seat.streams.contains(&stream)).map(|seat| &seat.scope)
    }

    fn may(&self, route: &CommandRoute, member: bool) -> Result<(), (ErrorCode, String)> {
        match &route.require {
            Require::Member(_) if !member => {
                Err((ErrorCode::NotInRoom, "stream: expected a handle of a joined room".into()))
            }
            Require::Role(role) if !self.roles.contains(role) => {
                Err((ErrorCode::Forbidden, format!("{} needs the role {role}", route.pattern)))
            }
            _ => Ok(()),
        }
    }

    fn allows(&mut self, now: Monotonic, route: u16, rate: Rate) -> bool {
        let at = self.rates.iter().position(|(index, _)| *index == route).unwrap_or_else(|| {
            self.rates.push((route, crate::auth::Bucket::default()));
            self.rates.len() - 1
        });
        self.rates[at].1.allow(now, rate)
    }
}

impl RoomSeat {
    fn is(&self, room: &str) -> bool {
        room_name(&self.scope) == Some(room)
    }
}

fn room_name(scope: &Scope) -> Option<&str> {
    match scope {
        Scope::Room(room) => Some(room),
        _ => None,
    }
}

/// Whether requests to every shard and to presence may be sent; a JOIN does not know its home before it is read.
fn every_node_open(cx: &Cx<'_>) -> bool {
    (0..=cx.settings.shards).all(|node| (cx.may_request)(NodeId(node)))
}

fn refusal_text(code: ErrorCode) -> &'static str {
    match code {
        ErrorCode::Unavailable => "nobody can take it now; try again",
        ErrorCode::RoomNotFound => "the room has ended",
        _ => "refused",
    }
}
