//! Relaying where gateways share a bus (DELIVERY §7): frames and players' commands go to the relay topic instead of the
//! room's home, and all gateways are told which publishers are where.
//!
//! A publisher hears of each of its frames, and has a bounded number of them on their way, beyond which its reading
//! pauses: so a bus that stands still pauses those who publish to it and nobody else. One whose frame is refused is closed
//! 1013, for a hole nobody sees is worse; lest a later one of its frames be accepted behind it, those on their way were
//! sent within [`limits::RELAY_SPAN`], so that an outage refuses them together.

use super::authenticate::Session;
use super::connection::{Connection, Flow, Phase, Until};
use super::frames::room_name;
use super::{Cx, Output};
use crate::close::CloseReason;
use crate::frame::FrameKind;
use crate::id::{NodeId, Scope, SessionId, StreamHandle};
use crate::limits;
use crate::message::{ErrorCode, PublisherState, Publishing, Request};
use crate::protocol::relay::{self, Sender};
use crate::time::Monotonic;

/// Frames of a publisher on their way to the bus.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct UnderWay {
    frames: u32,
    bytes: u32,
    /// When the first of them was sent.
    since: Monotonic,
    /// Another one waits until all are answered.
    ends: bool,
}

impl UnderWay {
    /// Whether another one must wait: for room, or because it would be sent so long behind the first that a bus that has
    /// stopped could refuse that one and accept this one when it is back.
    fn must_wait(&mut self, now: Monotonic) -> bool {
        self.ends |= self.frames > 0 && now.since(self.since) >= limits::RELAY_SPAN;
        self.ends
            || self.frames as usize >= limits::RELAY_UNANSWERED
            || self.bytes as usize >= limits::RELAY_UNANSWERED_BYTES
    }

    /// Whether who waits goes on: not with every answer, or each would cost a pause.
    fn goes_on(self) -> bool {
        !self.ends
            && self.frames as usize * 2 <= limits::RELAY_UNANSWERED
            && self.bytes as usize * 2 <= limits::RELAY_UNANSWERED_BYTES
    }

    fn sent(&mut self, now: Monotonic, bytes: u32) {
        if self.frames == 0 {
            self.since = now;
        }
        self.frames += 1;
        self.bytes = self.bytes.saturating_add(bytes);
    }

    fn answered(&mut self, bytes: u32) {
        self.frames = self.frames.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(bytes);
        self.ends &= self.frames > 0;
    }
}

impl Connection {
    /// A publisher's frame for the members of the room of this seat.
    pub(super) fn publish_by_bus(
        &mut self,
        cx: &mut Cx<'_>,
        kind: FrameKind,
        forgets: bool,
        stream: StreamHandle,
        correlation: u64,
        payload: &[u8],
    ) -> Flow {
        let Phase::Open(session) = &mut self.phase else { return Flow::Next };
        if session.seldom.as_mut().is_some_and(|seldom| seldom.under_way.must_wait(cx.now)) {
            return Flow::Hold(Until::Open(cx.settings.bus));
        }
        let (id, by_bus) = (session.id, |out: &mut Vec<u8>| out.extend_from_slice(payload));
        let Some(scope) = session.rooms.iter().find(|seat| seat.relay == stream).map(|seat| seat.scope.clone()) else {
            return Flow::Next;
        };
        let value = relay::frame(kind, forgets, Sender::Publisher, id, by_bus);
        let bytes = u32::try_from(value.len()).unwrap_or(u32::MAX);
        let flow = Self::send_by_bus(cx, &scope, correlation, value);
        if flow == Flow::Next
            && let Phase::Open(session) = &mut self.phase
        {
            session.seldom().under_way.sent(cx.now, bytes);
        }
        flow
    }

    /// Puts a record into the partition of a room; it is answered under this number, not 0.
    pub(super) fn send_by_bus(cx: &mut Cx<'_>, scope: &Scope, number: u64, value: Vec<u8>) -> Flow {
        if !(cx.may_request)(cx.settings.bus) {
            return Flow::Hold(Until::Open(cx.settings.bus));
        }
        let Some(room) = room_name(scope) else { return Flow::Next };
        let append = relay::record(&cx.settings.relay_topic, cx.me, number, room, value);
        cx.out.push(Output::Request(cx.settings.bus, Request::Append(Box::new(append))));
        Flow::Next
    }

    /// What became of a publisher's frame.
    pub fn relayed(&mut self, cx: &mut Cx<'_>, correlation: u64, bytes: u32, outcome: Result<(), ErrorCode>) {
        let Phase::Open(session) = &mut self.phase else { return };
        session.seldom().under_way.answered(bytes);
        if correlation != 0 {
            self.answered(cx, correlation, outcome);
        }
        if outcome.is_err() {
            self.close(cx, CloseReason::TryAgainLater);
        }
    }

    /// Whether what is held for this node waits for answers about the frames before it.
    pub(super) fn waits_for_relayed(&self, node: NodeId, bus: NodeId) -> bool {
        matches!(&self.phase, Phase::Open(session) if node == bus && !session.under_way().goes_on())
    }
}

impl Session {
    pub(super) fn under_way(&self) -> UnderWay {
        self.seldom.as_ref().map(|seldom| seldom.under_way).unwrap_or_default()
    }
}

/// All gateways are told what a publisher is to a room.
pub(super) fn tell(cx: &mut Cx<'_>, session: SessionId, scope: &Scope, state: PublisherState) {
    if let (true, Some(room)) = (cx.settings.relays_by_bus, room_name(scope)) {
        let connection = cx.settings.connection_id(cx.me);
        let publishing = Publishing { room: room.clone(), session, connection, state };
        cx.out.push(Output::Request(cx.settings.bus, Request::Publishing(Box::new(publishing))));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// A publisher waits when too many frames are on their way and goes on when half of them are answered; when the first
    /// was sent a while ago it waits for all of them.
    #[test]
    fn frames_on_their_way_were_sent_together() {
        let at = |ms| Monotonic::ZERO + Duration::from_millis(1000 + ms);
        let span = limits::RELAY_SPAN.as_millis() as u64;
        let mut under_way = UnderWay::default();
        assert!(!under_way.must_wait(at(0)), "nothing is on its way");
        (0..limits::RELAY_UNANSWERED).for_each(|_| under_way.sent(at(0), 10));
        assert!(under_way.must_wait(at(1)) && !under_way.goes_on());
        (0..limits::RELAY_UNANSWERED / 2).for_each(|_| under_way.answered(10));
        assert!(under_way.goes_on() && !under_way.must_wait(at(span - 1)));
        assert!(under_way.must_wait(at(span)) && !under_way.goes_on());
        (1..limits::RELAY_UNANSWERED / 2).for_each(|_| under_way.answered(10));
        assert!(!under_way.goes_on(), "the last may be refused yet");
        under_way.answered(10);
        assert!(under_way.goes_on() && !under_way.must_wait(at(5 * span)));
        under_way.sent(at(6 * span), 10);
        assert!(!under_way.must_wait(at(6 * span + 1)), "the time begins with the first");
    }

    /// However fast or slowly a publisher speaks while the bus stands still, what is on its way when the first frame is
    /// refused was sent within the span: no frame behind it has so much longer to wait that a bus that is back takes it.
    #[test]
    fn an_outage_refuses_what_is_on_its_way_together() {
        let patience = limits::KAFKA_DELIVERY_TIMEOUT.as_millis() as u64;
        for pause in [1, 3, 100, 249, 251, 900] {
            let (mut under_way, began) = (UnderWay::default(), 1000);
            let at = |ms| Monotonic::ZERO + Duration::from_millis(ms);
            let mut sent = Vec::new();
            for now in (began..began + patience).step_by(pause) {
                if !under_way.must_wait(at(now)) {
                    under_way.sent(at(now), 10);
                    sent.push(now);
                }
            }
            let last = *sent.last().expect("the first waits for nothing");
            assert!(at(last).since(at(began)) < limits::RELAY_SPAN, "every {pause} ms: {sent:?}");
            assert!(sent.len() as u64 >= (last - began) / pause as u64, "it is not held up before");
        }
    }
}
