//! What the gateway itself says, in the client's dialect.
//!
//! A client's correlation is a number in dialect D. In dialect A it is text: the session keeps it under a ticket, a
//! number that is used once, until the last answer.

use super::Cx;
use super::authenticate::{JoinStep, Session, Ticket};
use super::connection::{Connection, Dialect, Phase};
use crate::close::CloseReason;
use crate::id::Scope;
use crate::message::{ErrorCode, Introduction, LostReason, StreamStart};
use crate::protocol::frames::{json, write};
use crate::protocol::{gateway, rooms};

impl Connection {
    /// An error; `correlation` is the client's number, or a ticket, which is used up.
    pub(super) fn error(&mut self, cx: &mut Cx<'_>, code: ErrorCode, correlation: u64, text: &str) {
        match self.dialect {
            Dialect::Gateway | Dialect::Rooms => {
                let id = self.take_ticket(correlation).and_then(|ticket| ticket.correlation_id);
                self.text_error(cx, code, text, id.as_deref());
            }
            Dialect::Frames | Dialect::Echo => self.answer(cx, |out| write::error(out, code, correlation, text)),
        }
    }

    /// An error in a dialect of JSON, to be known by the client's correlation id.
    pub(super) fn text_error(&mut self, cx: &mut Cx<'_>, code: ErrorCode, text: &str, correlation_id: Option<&str>) {
        if self.dialect == Dialect::Rooms {
            return self.answer(cx, |out| rooms::write::error(out, code, text, correlation_id));
        }
        self.answer(cx, |out| gateway::write::error(out, code, text, correlation_id));
    }

    /// A publish or a command was accepted or refused.
    pub fn answered(&mut self, cx: &mut Cx<'_>, correlation: u64, outcome: Result<(), ErrorCode>) {
        let Phase::Open(session) = &mut self.phase else { return };
        let joins = session.take_passed_on(correlation);
        match outcome {
            Err(code) => {
                if joins {
                    session.joining.retain(|joining| !joining.at_service() || joining.correlation != correlation);
                }
                self.error(cx, code, correlation, refusal_text(code));
            }
            // JOINED is the answer, or the service's refusal.
            Ok(()) if joins => {}
            Ok(()) if self.dialect == Dialect::Gateway => {
                if let Some(id) = self.take_ticket(correlation).and_then(|ticket| ticket.correlation_id) {
                    self.answer(cx, |out| gateway::write::ack(out, &id));
                }
            }
            // In dialect B the event is the answer.
            Ok(()) if self.dialect == Dialect::Rooms => _ = self.take_ticket(correlation),
            Ok(()) => self.answer(cx, |out| write::ack(out, correlation)),
        }
    }

    /// A stream appeared in a scope of this connection; its frames follow.
    pub fn introduced(&mut self, cx: &mut Cx<'_>, scope: &Scope, introduction: &Introduction) {
        if let Phase::Open(session) = &mut self.phase
            && let Some(seat) = session.rooms.iter_mut().find(|seat| seat.scope == *scope)
        {
            seat.others.push(introduction.handle);
        }
        self.position(cx, introduction);
    }

    /// Tells the client of the scope's streams, before any of their frames. `lost`: a stream does not start where the
    /// event that let the session in stands.
    pub(super) fn introduce(
        &mut self,
        cx: &mut Cx<'_>,
        correlation: u64,
        scope: &Scope,
        streams: &[StreamStart],
        lost: Option<LostReason>,
    ) {
        let introductions = streams.iter().map(|start| &*start.introduction);
        match (self.dialect, scope) {
            (Dialect::Gateway | Dialect::Rooms, _) if streams.is_empty() => {}
            (Dialect::Rooms, _) => self.answer(cx, |out| rooms::write::position(out, introductions)),
            (Dialect::Gateway, _) => self.answer(cx, |out| gateway::write::position(out, introductions, lost)),
            (_, Scope::Room(room)) => self.answer(cx, |out| write::joined(out, correlation, room, introductions, lost)),
            (_, Scope::User(_) | Scope::Session(_) | Scope::Everyone) => {
                introductions.for_each(|introduction| self.position(cx, introduction));
            }
        }
    }

    /// The session is out of the room; in dialect A the event that did it says so.
    pub(super) fn left(&mut self, cx: &mut Cx<'_>, correlation: u64, room: &str) {
        if self.dialect == Dialect::Frames {
            self.answer(cx, |out| write::left(out, correlation, room));
        }
    }

    /// Answers HELLO or `system.authenticate`.
    pub(super) fn welcome(&mut self, cx: &mut Cx<'_>, session: &Session, welcome: &Welcome<'_>) {
        let frame = self.welcome_frame(cx, session, welcome);
        self.answer(cx, |out| *out = frame);
    }

    /// The answer to HELLO or `system.authenticate`.
    pub(super) fn welcome_frame(&self, cx: &Cx<'_>, session: &Session, welcome: &Welcome<'_>) -> Vec<u8> {
        let Welcome { resume, recovered, reason, lost, last_close } = *welcome;
        let rooms: Vec<&str> = session.room_names().collect();
        let mut frame = Vec::new();
        match self.dialect {
            Dialect::Gateway => {
                let answer = gateway::write::Authenticated {
                    user_id: &session.user,
                    username: &session.username,
                    roles: &session.roles,
                    session: Some(session.id),
                    resume,
                    recovered,
                    reason,
                    lost,
                    rooms: &rooms,
                    last_close,
                };
                gateway::write::authenticated(&mut frame, &answer);
            }
            // B's first message is its `state`, which is not written here.
            Dialect::Frames | Dialect::Rooms | Dialect::Echo => {
                let welcome = json::Welcome {
                    connection_id: &cx.settings.connection_id(cx.me).to_string(),
                    session_id: &session.id.to_string(),
                    user_id: &session.user,
                    resume: resume.unwrap_or_default(),
                    heartbeat_ms: u64::try_from(cx.settings.clocks.ping.as_millis()).unwrap_or(u64::MAX),
                    recovered,
                    reason: reason.map(LostReason::name),
                    lost: lost.to_vec(),
                    rooms,
                    durability: cx.settings.durability,
                    last_close: last_close.map(write::last_close),
                };
                write::welcome(&mut frame, &welcome);
            }
        }
        frame
    }

    fn position(&mut self, cx: &mut Cx<'_>, introduction: &Introduction) {
        match self.dialect {
            Dialect::Gateway => self.answer(cx, |out| gateway::write::position(out, [introduction], None)),
            Dialect::Rooms => self.answer(cx, |out| rooms::write::position(out, [introduction])),
            Dialect::Frames | Dialect::Echo => self.answer(cx, |out| write::position(out, introduction)),
        }
    }

    pub(super) fn take_ticket(&mut self, number: u64) -> Option<Ticket> {
        let Phase::Open(session) = &mut self.phase else { return None };
        let tickets = &mut session.seldom.as_mut()?.tickets;
        let at = tickets.iter().position(|ticket| ticket.number == number)?;
        Some(tickets.remove(at))
    }
}

/// What a welcome says of a resume.
#[derive(Clone, Copy, Default)]
pub(super) struct Welcome<'a> {
    /// The resume token; `None` when an attached session's token was refreshed.
    pub resume: Option<&'a str>,
    pub recovered: bool,
    pub reason: Option<LostReason>,
    /// Streams that could not be recovered.
    pub lost: &'a [&'a str],
    pub last_close: Option<CloseReason>,
}

impl super::authenticate::Joining {
    /// Whether it waits for the rooms service.
    pub(super) fn at_service(&self) -> bool {
        self.step == JoinStep::Service
    }

    /// Whether its home's answer comes to nothing.
    pub(super) fn is_undone(&self) -> bool {
        self.step == JoinStep::Undone
    }
}

pub(super) fn refusal_text(code: ErrorCode) -> &'static str {
    match code {
        ErrorCode::Unavailable => "nobody can take it now; try again",
        ErrorCode::RoomNotFound => "the room has ended",
        _ => "refused",
    }
}
