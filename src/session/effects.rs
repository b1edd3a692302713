//! What frames do to the session they are delivered to, and what of a batch a member sees (DELIVERY §4 "Effects",
//! "only / except").
//!
//! Law: an effect acts once, at the frame's first delivery to its session, live or in a replay; the session's record
//! keeps up to where each stream's effects have acted.

use std::sync::Arc;

use super::authenticate::{JoinStep, Joining, Session};
use super::connection::{Connection, Phase};
use super::frames::room_name;
use super::{Cx, Output, mutant};
use crate::frame::{Act, Form, Handles, Run, View};
use crate::id::Scope;
use crate::message::{ErrorCode, Position, PresenceRequest, ScopeEntry};
use crate::protocol::Refusal;

impl Connection {
    /// Frames `from..to` of a batch, of which some are marked: what this member may not see becomes an advance, what
    /// frames do is done. `from < to <= batch.len()`.
    pub fn deliver_marked(&mut self, cx: &mut Cx<'_>, handles: &mut Handles<'_>, from: u32, to: u32) {
        // Every member walks over the marks, so nothing is allocated or counted atomically for it.
        let batch = handles.of(self.form(), View::Whole).clone();
        let marks = batch.marks();
        let first = marks.partition_point(|mark| mark.index < from);
        let mut at = from;
        for mark in marks[first..].iter().take_while(|mark| mark.index < to) {
            let Phase::Open(session) = &self.phase else { return };
            let hidden = mark.audience.as_ref().is_some_and(|audience| !audience.includes(&session.user));
            if hidden && !mutant!(cx, IgnoredAudience) {
                self.deliver_run(cx, handles, View::Whole, at, mark.index);
                if !mutant!(cx, NoAdvance) {
                    self.deliver_run(cx, handles, View::Advance, mark.index, mark.index + 1);
                }
                at = mark.index + 1;
            } else if mark.refusal && self.form() == Form::Frames {
                self.deliver_run(cx, handles, View::Whole, at, mark.index);
                self.deliver_run(cx, handles, View::Refusal, mark.index, mark.index + 1);
                self.refused(Refusal::read(handles.batch().bytes(mark.index as usize, mark.index as usize + 1)));
                at = mark.index + 1;
            } else if let Some(act) = &mark.act {
                self.deliver_run(cx, handles, View::Whole, at, mark.index + 1);
                at = mark.index + 1;
                if self.act(cx, act) {
                    return;
                }
            }
        }
        self.deliver_run(cx, handles, View::Whole, at, to);
    }

    fn deliver_run(&mut self, cx: &mut Cx<'_>, handles: &mut Handles<'_>, view: View, from: u32, to: u32) {
        if from < to && self.is_open() {
            let batch = handles.of(self.form(), view).clone();
            self.deliver(cx, Run { batch, from, to });
        }
    }

    /// A backend refused a command: if that was a JOIN, it is answered.
    fn refused(&mut self, refusal: Refusal) {
        let Phase::Open(session) = &mut self.phase else { return };
        let number = refusal.correlation;
        session.joining.retain(|joining| !joining.at_service() || joining.correlation != number || number == 0);
    }

    /// Carries out what a frame does unless it has acted before; `true` if the session left the room whose frame it is,
    /// so that nothing behind it is for this member.
    fn act(&mut self, cx: &mut Cx<'_>, act: &Act) -> bool {
        let Phase::Open(session) = &mut self.phase else { return true };
        let place = Position { stream: Arc::clone(&act.stream), epoch: act.epoch, place: act.place };
        let acted = &mut session.seldom().acted;
        match acted.iter_mut().find(|known| known.stream == act.stream) {
            Some(known) if known.epoch == act.epoch && known.place >= act.place && !mutant!(cx, EffectAgain) => {
                return false;
            }
            Some(known) => *known = place.clone(),
            None => acted.push(place.clone()),
        }
        let id = session.id;
        let left = if act.joins {
            self.enter(cx, act);
            false
        } else {
            self.leave_room(cx, &Scope::Room(Arc::clone(&act.room)), None) && act.room_stream() == *act.stream
        };
        // Behind what it did: after a crash between the two it acts again, which changes nothing.
        self.ask_presence(cx, PresenceRequest::Acted { session: id, place });
        left
    }

    fn enter(&mut self, cx: &mut Cx<'_>, act: &Act) {
        let Phase::Open(session) = &mut self.phase else { return };
        let scope = Scope::Room(Arc::clone(&act.room));
        let admitted = |joining: &Joining| joining.scope == scope && joining.step == JoinStep::Admitted;
        if session.joining.iter().any(admitted) || session.rooms.iter().any(|seat| seat.scope == scope) {
            return;
        }
        // A JOIN on its way is answered by this one.
        let correlation = session.undo_join(&scope).unwrap_or(0);
        if !session.has_room_for_one(cx.settings.rooms_max) {
            let text = format!("room {}: a session has at most {} rooms", act.room, cx.settings.rooms_max);
            return self.error(cx, ErrorCode::Forbidden, correlation, &text);
        }
        let entry = Position { stream: act.room_stream().into(), epoch: act.epoch, place: act.place };
        let (id, publisher) = (session.id, session.publisher);
        session.joining.push(Joining { scope: scope.clone(), correlation, step: JoinStep::Admitted });
        // From here on the room belongs to the session, whatever becomes of this connection.
        let entered = vec![entry.clone(), Position::unsaid()];
        let kept = ScopeEntry { scope: scope.clone(), entered, admitted: true };
        self.ask_presence(cx, PresenceRequest::Entered { session: id, entry: kept });
        let (admitted, entry) = (true, Some(entry));
        cx.out.push(Output::Join { scope, session: id, publisher, admitted, entry, resume: None });
    }
}

impl Session {
    /// Whether an event has let this session into the room, whose streams are on their way.
    pub(super) fn is_entering(&self, room: &str) -> bool {
        self.entering().any(|scope| room_name(scope).is_some_and(|name| **name == *room))
    }

    /// The same of any room.
    pub(super) fn is_entering_any(&self) -> bool {
        self.entering().next().is_some()
    }

    fn entering(&self) -> impl Iterator<Item = &Scope> {
        let admitted = self.joining.iter().filter(|joining| joining.step == JoinStep::Admitted);
        admitted.map(|joining| &joining.scope)
    }
}
