//! Relaying where gateways share a bus (DELIVERY §7): frames and players' commands go to the relay topic instead of the
//! room's home, and all gateways are told which publishers are where.
//!
//! A publisher hears of each of its frames, and has a bounded number of them on their way, beyond which its reading
//! pauses: so a bus that stands still pauses those who publish to it and nobody else. One whose frame is refused is closed
//! 1013, for a hole nobody sees is worse.

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

/// Frames of a publisher on their way to the bus.
#[derive(Clone, Copy, Default)]
pub(super) struct UnderWay {
    frames: u32,
    bytes: u32,
}

impl UnderWay {
    /// Whether another one must wait.
    fn is_full(self) -> bool {
        self.frames as usize >= limits::RELAY_UNANSWERED || self.bytes as usize >= limits::RELAY_UNANSWERED_BYTES
    }

    /// Whether who waits goes on: not with every answer, or each would cost a pause.
    fn is_half_empty(self) -> bool {
        self.frames as usize * 2 <= limits::RELAY_UNANSWERED
            && self.bytes as usize * 2 <= limits::RELAY_UNANSWERED_BYTES
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
        if session.under_way().is_full() {
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
            let under_way = &mut session.seldom().under_way;
            under_way.frames += 1;
            under_way.bytes = under_way.bytes.saturating_add(bytes);
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
        let under_way = &mut session.seldom().under_way;
        under_way.frames = under_way.frames.saturating_sub(1);
        under_way.bytes = under_way.bytes.saturating_sub(bytes);
        if correlation != 0 {
            self.answered(cx, correlation, outcome);
        }
        if outcome.is_err() {
            self.close(cx, CloseReason::TryAgainLater);
        }
    }

    /// Whether what is held for this node waits for answers about the frames before it.
    pub(super) fn waits_for_relayed(&self, node: NodeId, bus: NodeId) -> bool {
        matches!(&self.phase, Phase::Open(session) if node == bus && !session.under_way().is_half_empty())
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
