//! Commands for backends, whatever dialect they came in: role, rate, envelope, the bus.

use std::sync::Arc;

use super::authenticate::{JoinStep, Joining, Session};
use super::connection::{Connection, Phase};
use super::frames::room_name;
use super::{Cx, Output};
use crate::auth::{Bucket, RoomKey};
use crate::id::{EventId, Scope};
use crate::limits;
use crate::message::{Append, ErrorCode, Request};
use crate::protocol::envelope::members::{is_no_text, member, text};
use crate::protocol::envelope::{ClientCommand, command_id, put_command, put_string};
use crate::protocol::routes::{CommandRoute, Destination, Require, RowId};
use crate::time::{Monotonic, Rate};

/// A command whose room was checked.
pub(super) struct Sent<'a> {
    /// Its row of the type table.
    pub row: RowId,
    /// The same.
    pub route: &'a CommandRoute,
    /// Its full type.
    pub event_type: &'a str,
    /// The room the sender is a member of, to be put into the payload.
    pub room_id: Option<&'a str>,
    /// Partition key.
    pub key: Box<[u8]>,
    /// The client's correlation id.
    pub correlation_id: Option<&'a str>,
    /// What the bus's answer is known by; 0 = nobody waits for one.
    pub ticket: u64,
    /// The client's fields.
    pub body: &'a [u8],
    /// Whether the dialect's reader found that to be a JSON object.
    pub checked: bool,
    /// What the client sent, as a whole: with the correlation id it names the command.
    pub named_by: &'a [u8],
}

impl Connection {
    /// Sends a command to the bus, which must have room, or answers why not.
    pub(super) fn send_command(&mut self, cx: &mut Cx<'_>, sent: Sent<'_>) {
        let ticket = sent.ticket;
        match self.append(cx, sent) {
            Ok(append) => cx.out.push(Output::Request(cx.settings.bus, Request::Append(Box::new(append)))),
            Err((code, text)) => self.error(cx, code, ticket, &text),
        }
    }

    fn append(&mut self, cx: &mut Cx<'_>, sent: Sent<'_>) -> Result<Append, (ErrorCode, String)> {
        let Sent { row, route, event_type, room_id, key, correlation_id, ticket, body, checked, named_by } = sent;
        let (Destination::Topic(topic), Phase::Open(session)) = (&route.destination, &mut self.phase) else {
            return Err((ErrorCode::UnknownType, format!("type: {event_type} is not for backends")));
        };
        session.may(route)?;
        if !session.allows(cx.now, row, route.rate) {
            return Err((ErrorCode::RateLimited, format!("{}: at most {}", route.pattern, route.rate)));
        }
        let password = match SEALED.contains(&event_type) {
            true => sealed_password(&cx.settings.room_key, body)?,
            false => None,
        };
        let event_id = match correlation_id {
            // An id is a hash that anybody can make: of a password's bytes it would let them be guessed.
            Some(correlation) if password.is_some() => {
                command_id(session.id, correlation, cx.settings.room_key.seal(named_by).as_bytes())
            }
            Some(correlation) => command_id(session.id, correlation, named_by),
            None => EventId::v7(cx.wall, cx.entropy()),
        };
        let command = ClientCommand {
            event_id,
            event_type,
            timestamp: cx.wall,
            gateway_id: &cx.settings.gateway_id,
            connection: cx.settings.connection_id(cx.me),
            session: session.id,
            correlation: correlation_id,
            user_id: &session.user,
            username: &session.username,
            roles: &session.roles,
            room_id,
            password: password.as_deref(),
            form: route.payload,
            body,
            checked,
        };
        let mut value = Vec::new();
        put_command(&mut value, &command, cx.json);
        Ok(Append { from: cx.me, correlation: ticket, topic: (**topic).into(), key, value: value.into() })
    }

    /// No home knows the room as open: the rooms service decides (PROTOCOLS D, admission `service`); JOINED follows its
    /// join effect, its refusal is an event.
    pub(super) fn ask_rooms_service(
        &mut self,
        cx: &mut Cx<'_>,
        scope: Scope,
        correlation: u64,
        password: Option<&str>,
    ) {
        let Phase::Open(session) = &mut self.phase else { return };
        let routes = Arc::clone(&cx.settings.routes);
        let (Some((row, route)), Some(room)) = (routes.command(JOIN_ROOM), room_name(&scope)) else { return };
        let mut body = b"{\"room_id\":".to_vec();
        put_string(&mut body, room);
        if let Some(password) = password {
            body.extend_from_slice(b",\"password\":");
            put_string(&mut body, password);
        }
        body.push(b'}');
        let key = session.user.as_bytes().into();
        let number = (correlation != 0).then(|| correlation.to_string());
        let (correlation_id, ticket) = (number.as_deref(), correlation);
        let (event_type, body) = (JOIN_ROOM, &*body);
        let sent = Sent {
            row,
            route,
            event_type,
            room_id: None,
            key,
            correlation_id,
            ticket,
            body,
            checked: true,
            named_by: body,
        };
        match self.append(cx, sent) {
            Ok(append) => {
                cx.out.push(Output::Request(cx.settings.bus, Request::Append(Box::new(append))));
                let Phase::Open(session) = &mut self.phase else { return };
                session.joining.push(Joining { scope, correlation, step: JoinStep::Service });
                if correlation != 0 {
                    session.seldom().passed_on.push(correlation);
                }
            }
            Err((code, text)) => self.error(cx, code, correlation, &text),
        }
    }
}

impl Session {
    pub(super) fn may(&self, route: &CommandRoute) -> Result<(), (ErrorCode, String)> {
        match &route.require {
            Require::Role(role) if !self.roles.contains(role) => {
                Err((ErrorCode::Forbidden, format!("{} needs the role {role}", route.pattern)))
            }
            _ => Ok(()),
        }
    }

    /// Counts one command of the row, if its rate allows it. Buckets that are full again are forgotten, so those of
    /// rows that a reload took out do not stay.
    pub(super) fn allows(&mut self, now: Monotonic, row: RowId, rate: Rate) -> bool {
        let rates = &mut self.seldom().rates;
        let known = rates.iter().position(|(other, _)| *other == row);
        let at = known.unwrap_or_else(|| {
            rates.retain(|(_, bucket)| !bucket.is_full(now));
            rates.push((row, Bucket::default()));
            rates.len() - 1
        });
        rates[at].1.allow(now, rate)
    }
}

/// What stands for the `password` of a command. An empty one is none; one that is too long stays so, to be refused. What
/// is no text goes nowhere: it may have a password in it.
fn sealed_password(key: &RoomKey, body: &[u8]) -> Result<Option<String>, (ErrorCode, String)> {
    let body = std::str::from_utf8(body).unwrap_or_default();
    if is_no_text(body, "password") {
        return Err((ErrorCode::BadRequest, "password: expected a string, or null for none".to_owned()));
    }
    let password = member(body, "password").and_then(text).unwrap_or_default();
    Ok(match password.len() {
        0 => None,
        1..=limits::PASSWORD_BYTES => Some(key.seal(password.as_bytes())),
        _ => Some("*".repeat(limits::PASSWORD_BYTES + 1)),
    })
}

const JOIN_ROOM: &str = "games.command.join_room";
/// Commands whose passwords stay within the gateway.
const SEALED: [&str; 2] = ["games.command.create_room", JOIN_ROOM];
