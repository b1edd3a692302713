//! Dialect A on an upgraded connection: what each message of a client does (PROTOCOLS A).
//!
//! Whatever a client writes is answered; only a flood of what cannot be read ends the connection.

use std::sync::Arc;

use super::answers::Welcome;
use super::authenticate::{Hello, KEY_MAY_COME, Refresh, Session, Ticket, is_publisher, may_come};
use super::commands::Sent;
use super::connection::{Connection, Flow, Phase, Until, closes_at};
use super::{Cx, Output};
use crate::auth::TokenError;
use crate::class::Class;
use crate::close::CloseReason;
use crate::id::Scope;
use crate::limits;
use crate::message::{ErrorCode, PresenceRequest, Publish, PublishTo, Request};
use crate::protocol::envelope::delta_key;
use crate::protocol::gateway::{self, Authenticate, Command, Inbound, write};
use crate::protocol::relay;
use crate::protocol::routes::{CommandRoute, Destination, PartitionKey, Relayed, Require, RowId};

impl Connection {
    /// One text message. It may be called again with the same text after `Hold`.
    pub(super) fn gateway_message(&mut self, cx: &mut Cx<'_>, text: &[u8]) -> Flow {
        let mut fields = std::mem::take(cx.fields);
        let flow = match gateway::parse(text, &mut fields) {
            Ok(inbound) => self.gateway_inbound(cx, inbound),
            Err(malformed) => {
                self.malformed(cx, &malformed.to_string());
                Flow::Next
            }
        };
        *cx.fields = fields;
        flow
    }

    fn gateway_inbound(&mut self, cx: &mut Cx<'_>, inbound: Inbound<'_>) -> Flow {
        match (inbound, &self.phase) {
            (Inbound::Heartbeat, _) => {
                let now = cx.wall;
                self.answer(cx, |out| write::heartbeat_ack(out, now));
            }
            (Inbound::Authenticate(message), Phase::Hello { .. }) => self.authenticate(cx, message),
            (Inbound::Authenticate(message), Phase::Open(_)) => self.refresh(cx, message),
            (Inbound::Command(command), Phase::Open(_)) => return self.gateway_command(cx, &command),
            (Inbound::DeltaAck { count }, Phase::Open(_)) => {
                if self.queue.acknowledge_deltas(count).is_err() {
                    self.close(cx, CloseReason::BadRequest);
                }
            }
            (Inbound::Command(command), _) => self.not_authenticated(cx, command.correlation_id.as_deref()),
            (Inbound::DeltaAck { .. }, _) => self.not_authenticated(cx, None),
            (Inbound::Authenticate(_), _) => {}
        }
        Flow::Next
    }

    fn not_authenticated(&mut self, cx: &mut Cx<'_>, correlation_id: Option<&str>) {
        let text = "send system.authenticate first";
        self.answer(cx, |out| write::error(out, ErrorCode::NotAuthenticated, text, correlation_id));
    }

    /// What cannot be read is answered; the third within a while is one too many.
    pub(super) fn malformed(&mut self, cx: &mut Cx<'_>, text: &str) {
        self.text_error(cx, ErrorCode::BadRequest, text, None);
        if self.is_one_fault_too_many(cx) {
            self.close(cx, CloseReason::BadRequest);
        }
    }

    fn is_one_fault_too_many(&mut self, cx: &Cx<'_>) -> bool {
        let faults = match &mut self.phase {
            Phase::Open(session) => &mut session.seldom().faults,
            Phase::Hello { prepared, .. } => &mut prepared.get_or_insert_default().faults,
            _ => return false,
        };
        faults.retain(|at| cx.now.since(*at) < limits::FAULTS_TIME);
        faults.push(cx.now);
        faults.len() >= limits::FAULTS
    }

    fn authenticate(&mut self, cx: &mut Cx<'_>, message: Authenticate<'_>) {
        let Phase::Hello { prepared, .. } = &mut self.phase else { return };
        let (resume, token) = match prepared {
            Some(prepared) => (prepared.resume.clone(), prepared.token.clone()),
            None => (None, None),
        };
        let hello = Hello {
            token: message.token.map(|token| Box::from(&*token)).or(token),
            resume: message.resume.map(|resume| Box::from(&*resume)).or(resume),
            positions: message.positions,
            correlation_id: message.correlation_id.map(|id| Box::from(&*id)),
        };
        self.begin(cx, hello, message.delta_window);
    }

    /// A token for a session that is attached: it takes the place of the old one.
    fn refresh(&mut self, cx: &mut Cx<'_>, message: Authenticate<'_>) {
        let Phase::Open(session) = &mut self.phase else { return };
        let correlation_id = message.correlation_id.map(|id| Box::from(&*id));
        // A good token costs the shard a signature's check and presence a record, each time.
        if !session.moves.allow(cx.now, cx.settings.moves) {
            let text = format!("system.authenticate: at most {}", cx.settings.moves);
            return self.answer(cx, |out| write::error(out, ErrorCode::RateLimited, &text, correlation_id.as_deref()));
        }
        let seldom = session.seldom();
        match message.token {
            Some(token) if seldom.refresh.is_none() => {
                seldom.refresh = Some(Box::new(Refresh { token: Box::from(&*token), correlation_id }));
                cx.out.push(Output::Verify);
            }
            token => {
                let text = if token.is_some() { "a token is being checked" } else { "token: expected a new token" };
                self.answer(cx, |out| write::error(out, ErrorCode::BadRequest, text, correlation_id.as_deref()));
            }
        }
    }

    /// Checks the token that is to refresh the session's.
    pub(super) fn verify_refresh(&mut self, cx: &mut Cx<'_>) {
        let Phase::Open(session) = &mut self.phase else { return };
        let Some(refresh) = session.seldom.as_mut().and_then(|seldom| seldom.refresh.take()) else { return };
        let failed = match cx.settings.verifier.verify(&refresh.token, cx.wall) {
            Err(TokenError::UnknownKey) if may_come(cx) => {
                let id = refresh.correlation_id;
                return self.answer(cx, |out| write::error(out, ErrorCode::Unavailable, KEY_MAY_COME, id.as_deref()));
            }
            Err(error) => error.to_string(),
            Ok(claims) if claims.user != session.user => "the token is another user's".to_owned(),
            Ok(claims) => {
                session.closes_at = closes_at(cx, claims.expires_at);
                session.roles = claims.roles.clone();
                let publishes = is_publisher(&session.roles) != session.publisher;
                let (id, roles, expires_at) = (session.id, claims.roles, claims.expires_at);
                self.ask_presence(cx, PresenceRequest::Refreshed { session: id, roles, expires_at });
                self.refreshed(cx, refresh.correlation_id);
                if publishes {
                    // What a publisher receives and may do is settled with every home when the session is resumed.
                    let reason = CloseReason::TryAgainLater;
                    self.close_with(cx, reason, reason.code(), "the role publisher has changed; resume");
                }
                return;
            }
        };
        let id = refresh.correlation_id;
        self.answer(cx, |out| write::error(out, ErrorCode::AuthFailed, &failed, id.as_deref()));
        // Checking a signature costs more than reading it: whoever keeps failing ends like whoever cannot write JSON.
        if self.is_one_fault_too_many(cx) {
            self.close(cx, CloseReason::Unauthorized);
        }
    }

    fn refreshed(&mut self, cx: &mut Cx<'_>, correlation_id: Option<Box<str>>) {
        let Phase::Open(session) = &self.phase else { return };
        let frame = self.welcome_frame(cx, session, &Welcome { recovered: true, ..Welcome::default() });
        self.answer(cx, |out| *out = frame);
        if let Some(id) = correlation_id {
            self.answer(cx, |out| write::ack(out, &id));
        }
    }

    fn gateway_command(&mut self, cx: &mut Cx<'_>, command: &Command<'_>) -> Flow {
        let Phase::Open(session) = &mut self.phase else { return Flow::Next };
        let routes = Arc::clone(&cx.settings.routes);
        let id = command.correlation_id.as_deref();
        let refuse = |connection: &mut Self, cx: &mut Cx<'_>, code, text: &str| {
            connection.answer(cx, |out| write::error(out, code, text, id));
            Flow::Next
        };
        let Some((row, route)) = routes.command(&command.event_type) else {
            let text = format!("type: the type table has no command {}", command.event_type);
            return refuse(self, cx, ErrorCode::UnknownType, &text);
        };
        let room = match &route.require {
            Require::Member(field) => match command.field(field) {
                None => return refuse(self, cx, ErrorCode::BadRequest, &format!("{field}: expected a room's id")),
                // Whoever has just been told that a room is theirs is in it: the streams come before the command goes on.
                Some(room) if session.is_entering(&room) => return Flow::Hold(Until::Entered),
                Some(room) if session.seat(&room).is_none() => {
                    return refuse(self, cx, ErrorCode::NotInRoom, &format!("{field}: this session is not in it"));
                }
                Some(room) => Some((&**field, room)),
            },
            _ => None,
        };
        match &route.destination {
            Destination::Topic(_) => {
                if !(cx.may_request)(cx.settings.bus) {
                    return Flow::Hold(Until::Open(cx.settings.bus));
                }
                let key = match &route.key {
                    PartitionKey::Field(field) => command.field(field),
                    PartitionKey::User => None,
                };
                let key = key.as_deref().unwrap_or(&session.user).as_bytes().into();
                let Some(ticket) = session.ticket(id) else {
                    return refuse(self, cx, ErrorCode::RateLimited, "too many commands wait for an answer");
                };
                let room_id = room.as_ref().filter(|(field, _)| *field == "room_id").map(|(_, room)| &**room);
                self.send_command(cx, for_backend(command, (row, route), room_id, key, ticket));
            }
            Destination::Relay => match (routes.relayed(&command.event_type), room) {
                (Some(relayed), Some((_, room))) => {
                    if !session.allows(cx.now, row, route.rate) {
                        let text = format!("{}: at most {}", route.pattern, route.rate);
                        return refuse(self, cx, ErrorCode::RateLimited, &text);
                    }
                    return self.relay(cx, command, &relayed, &room);
                }
                _ => return refuse(self, cx, ErrorCode::UnknownType, "type: no room to relay it to"),
            },
            Destination::Gateway if !is_question(&command.event_type) => {
                let text = format!("type: the gateway has no answer to {}", command.event_type);
                return refuse(self, cx, ErrorCode::UnknownType, &text);
            }
            Destination::Gateway => {
                if let Err((code, text)) = session.may(route) {
                    return refuse(self, cx, code, &text);
                }
                if !session.allows(cx.now, row, route.rate) {
                    let text = format!("{}: at most {}", route.pattern, route.rate);
                    return refuse(self, cx, ErrorCode::RateLimited, &text);
                }
                return self.look_at_room(cx, command);
            }
        }
        Flow::Next
    }

    /// Straight to the members, in the room's relay stream (DELIVERY §7 "Relay").
    fn relay(&mut self, cx: &mut Cx<'_>, command: &Command<'_>, relayed: &Relayed<'_>, room: &str) -> Flow {
        let Phase::Open(session) = &mut self.phase else { return Flow::Next };
        let Some(stream) = session.seat(room).and_then(|seat| seat.streams().next()) else { return Flow::Next };
        let Some(home) = stream.home(cx.settings.shards) else { return Flow::Next };
        let by_bus = cx.settings.relays_by_bus;
        let target = if by_bus { cx.settings.bus } else { home };
        if !(cx.may_request)(target) {
            return Flow::Hold(Until::Open(target));
        }
        let id = command.correlation_id.as_deref();
        let keyed = relayed.coalesce.or(relayed.forget);
        let key = match keyed.map(|field| (field, command.field(field))) {
            None => None,
            Some((_, Some(value))) => Some(delta_key(&value)),
            Some((field, None)) => {
                let text = format!("{field}: expected the key that this type of message coalesces by");
                self.answer(cx, |out| write::error(out, ErrorCode::BadRequest, &text, id));
                return Flow::Next;
            }
        };
        let Some(ticket) = session.ticket(id) else {
            let text = "too many commands wait for an answer";
            self.answer(cx, |out| write::error(out, ErrorCode::RateLimited, text, id));
            return Flow::Next;
        };
        let put_body = |out: &mut Vec<u8>| {
            if let Some(key) = key {
                out.extend_from_slice(&key.to_le_bytes());
            }
            write::relayed_body(out, &command.event_type, command.body, &session.user);
        };
        let forgets = relayed.class == Class::Reliable && relayed.forget.is_some();
        if by_bus {
            let value = relay::frame(relayed.kind, forgets, relay::Sender::Player, session.id, put_body);
            return Self::send_by_bus(cx, &Scope::Room(room.into()), ticket, value);
        }
        let mut body = Vec::new();
        put_body(&mut body);
        let publish = Publish {
            from: cx.me,
            correlation: ticket,
            stream,
            to: PublishTo::Relay,
            kind: relayed.kind,
            class: relayed.class,
            key: key.unwrap_or_default(),
            forgets,
            body: body.into(),
        };
        cx.out.push(Output::Request(home, Request::Publish(Box::new(publish))));
        Flow::Next
    }

    /// What was held for too long is refused (DELIVERY §5).
    pub(super) fn give_up_text(&mut self, cx: &mut Cx<'_>, text: &[u8]) {
        let mut fields = std::mem::take(cx.fields);
        if let Ok(Inbound::Command(command)) = gateway::parse(text, &mut fields) {
            let id = command.correlation_id.as_deref();
            let refusal = super::answers::refusal_text(ErrorCode::Unavailable);
            self.answer(cx, |out| write::error(out, ErrorCode::Unavailable, refusal, id));
        }
        *cx.fields = fields;
        self.last_input = cx.now;
        self.resume(cx);
    }
}

/// The command as it is sent on, under this number.
fn for_backend<'a>(
    command: &'a Command<'_>,
    (row, route): (RowId, &'a CommandRoute),
    room_id: Option<&'a str>,
    key: Box<[u8]>,
    ticket: u64,
) -> Sent<'a> {
    let body = command.body.as_bytes();
    Sent {
        row,
        route,
        event_type: &command.event_type,
        room_id,
        key,
        correlation_id: command.correlation_id.as_deref(),
        ticket,
        body,
        // The whole text was read.
        checked: true,
        named_by: body,
    }
}

/// Whether the gateway itself answers commands of this type.
fn is_question(event_type: &str) -> bool {
    matches!(event_type, "rooms.command.members" | "rooms.command.history")
}

impl Session {
    /// A number for the answer to a command; `None` while too many wait.
    pub(super) fn ticket(&mut self, correlation_id: Option<&str>) -> Option<u64> {
        let seldom = self.seldom();
        if seldom.tickets.len() >= limits::COMMANDS_UNANSWERED {
            return None;
        }
        seldom.last_ticket += 1;
        seldom.tickets.push(Ticket { number: seldom.last_ticket, correlation_id: correlation_id.map(Box::from) });
        Some(seldom.last_ticket)
    }
}
