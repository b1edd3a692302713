//! The presence peer: carries requests of shards and of the bus peer to a [`Presence`], and its replies back, and says on
//! the bus who comes and goes. It holds no state of its own, and takes no request while a reply could not be placed.

use std::time::Duration;

use super::{Announcer, Heard, Listener};
use crate::limits;
use crate::message::{Deliver, ErrorCode, HubChange, PresenceChange, PresenceReply, PresenceRequest, Request};
use crate::ports::Presence;
use crate::router::Port;
use crate::router::peer::Peer;
use crate::time::{Monotonic, WallMillis};

/// A node of the mesh that keeps the sessions.
#[derive(Debug)]
pub struct PresencePeer<P> {
    port: Port,
    presence: P,
    replies: Vec<PresenceReply>,
    changes: Vec<PresenceChange>,
    hub_changes: Vec<HubChange>,
    announcer: Option<Announcer>,
    listener: Option<Listener>,
}

impl<P: Presence> PresencePeer<P> {
    /// The peer at this end of the mesh.
    #[must_use]
    pub fn new(port: Port, presence: P) -> Self {
        Self {
            port,
            presence,
            replies: Vec::new(),
            changes: Vec::new(),
            hub_changes: Vec::new(),
            announcer: None,
            listener: None,
        }
    }

    /// The same, saying who comes and goes.
    #[must_use]
    pub fn announcing(self, announcer: Announcer) -> Self {
        Self { announcer: Some(announcer), ..self }
    }

    /// The same, hearing what is said in hubs.
    #[must_use]
    pub fn listening(self, listener: Listener) -> Self {
        Self { listener: Some(listener), ..self }
    }

    fn hear(&mut self) {
        if let Some(listener) = &mut self.listener {
            listener.hear(|heard| match heard {
                Heard::Said(room, message) => self.presence.said(room, message),
                Heard::Renumbered => self.presence.renumbered(),
            });
        }
    }

    fn handle(&mut self, now: Monotonic, wall: WallMillis, request: PresenceRequest) {
        let full = |announcer: &Announcer| announcer.hubs_waiting() >= limits::HUB_CHANGES_WAITING;
        let refused = match &request {
            PresenceRequest::CreateHub(hub) => Some(hub.from),
            PresenceRequest::JoinHub(join) => {
                // Whoever has left the hub is said to have before somebody gets the place.
                let from = join.from;
                self.reply(now);
                self.announce(now, wall);
                Some(from)
            }
            PresenceRequest::HubState { .. } => {
                // Whoever knows the head of the room's stream has seen nothing that the bus does not have.
                self.hear();
                None
            }
            _ => None,
        };
        match refused.filter(|_| self.announcer.as_ref().is_some_and(full)) {
            Some(to) => self.replies.push(PresenceReply::Enrolled { to, outcome: Err(ErrorCode::Unavailable) }),
            None => self.presence.handle(now, request, &mut self.replies),
        }
    }

    /// Says what has changed; returns when to be called again for what the bus did not take.
    fn announce(&mut self, now: Monotonic, wall: WallMillis) -> Monotonic {
        self.presence.changes(&mut self.changes);
        self.presence.hub_changes(&mut self.hub_changes);
        if let Some(announcer) = &mut self.announcer {
            announcer.announce_hubs(wall, self.hub_changes.drain(..));
            announcer.announce(wall, self.changes.drain(..));
        }
        self.changes.clear();
        self.hub_changes.clear();
        if self.announcer.as_ref().is_none_or(Announcer::is_done) {
            self.presence.announced(&mut self.replies);
        }
        let waiting = self.announcer.as_ref().map_or(0, Announcer::waiting);
        if waiting == 0 { Monotonic::NEVER } else { now + RETRY }
    }

    /// The node ends and its shards have: takes what they still said, and has presence carry it out. Call it until it
    /// returns true.
    pub fn finish(&mut self, now: Monotonic, wall: WallMillis) -> bool {
        self.turn(now, wall);
        for _ in self.port.wake_list() {}
        let said = self.announcer.as_ref().is_none_or(Announcer::is_done);
        !self.port.has_input() && said && self.presence.finish(now)
    }

    /// What keeps the sessions.
    #[must_use]
    pub fn presence(&self) -> &P {
        &self.presence
    }

    /// The same, to be prepared before the first turn.
    pub fn presence_mut(&mut self) -> &mut P {
        &mut self.presence
    }

    /// Lets what was handled survive, then the replies leave.
    fn reply(&mut self, now: Monotonic) {
        let told = self.announcer.as_ref().is_none_or(Announcer::is_done);
        self.presence.settle(now, told);
        for reply in self.replies.drain(..) {
            self.port.deliver(reply.to().shard, Deliver::Presence(Box::new(reply)));
        }
    }
}

impl<P: Presence> Peer for PresencePeer<P> {
    fn turn(&mut self, now: Monotonic, wall: WallMillis) -> Monotonic {
        self.port.flush_outboxes();
        // Nobody answers a peer; what comes all the same must not fill a ring.
        while self.port.take_deliver().is_some() {}
        self.hear();
        let (mut left, group) = (limits::RING_SLOTS, self.presence.group());
        let mut handled = 0;
        while left > 0
            && let Some((from, request)) = self.port.take_request()
        {
            left -= 1;
            handled += 1;
            match request {
                Request::Presence(request) => self.handle(now, wall, *request),
                other => tracing::error!(from = from.0, ?other, "the presence peer got a request of another's"),
            }
            if handled == group {
                self.reply(now);
                handled = 0;
            }
        }
        self.presence.poll(now, &mut self.replies);
        self.reply(now);
        // Settling has moved its own deadline.
        let next = self.presence.poll(now, &mut self.replies);
        let retry = self.announce(now, wall);
        if !self.replies.is_empty() {
            self.reply(now);
        }
        if left == 0 { now } else { next.min(retry) }
    }

    fn port(&mut self) -> &mut Port {
        &mut self.port
    }
}

/// How long a bus that refuses is left alone.
pub(super) const RETRY: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::close::CloseReason;
    use crate::id::{ConnAddr, ConnKey, NodeId, SessionId, TokenHash};
    use crate::message::{PresenceRequest, SessionRecord};
    use crate::presence::EmbeddedPresence;
    use crate::router::{Bounds, mesh};

    const PRESENCE: NodeId = NodeId(2);
    const TOKEN: TokenHash = TokenHash([1; 16]);
    const SESSION: SessionId = SessionId([1; 16]);

    fn conn(shard: u16, slot: u32) -> ConnAddr {
        ConnAddr { shard: NodeId(shard), conn: ConnKey { slot, generation: 1 } }
    }

    fn open(from: ConnAddr) -> PresenceRequest {
        let record = SessionRecord {
            session: SESSION,
            user: "u".into(),
            username: "u".into(),
            roles: [].into(),
            expires_at: 0,
            scopes: Vec::new(),
            acted: Vec::new(),
            last_close: None,
        };
        PresenceRequest::Open { from, record: Box::new(record), token: TOKEN }
    }

    /// Two shards and presence, all driven by hand.
    struct Rig {
        shards: Vec<Port>,
        peer: PresencePeer<EmbeddedPresence>,
        now: Monotonic,
    }

    impl Rig {
        fn new(bounds: Bounds) -> Self {
            let mut shards = mesh::build(3, bounds);
            let port = shards.pop().unwrap();
            let presence = EmbeddedPresence::new(Duration::from_secs(300), 100, 1);
            Self { shards, peer: PresencePeer::new(port, presence), now: Monotonic::ZERO }
        }

        fn ask(&mut self, shard: usize, request: PresenceRequest) {
            self.shards[shard].request(PRESENCE, Request::Presence(Box::new(request)));
        }

        fn turn(&mut self) -> Monotonic {
            let next = self.peer.turn(self.now, WallMillis(0));
            assert!(self.peer.port().wake_list().next().is_none(), "nobody sleeps here");
            next
        }

        fn got(&mut self, shard: usize) -> Option<PresenceReply> {
            let (from, message) = self.shards[shard].take_deliver()?;
            assert_eq!(from, PRESENCE);
            match message {
                Deliver::Presence(reply) => Some(*reply),
                other => panic!("{other:?}"),
            }
        }
    }

    /// A session goes from a connection of one shard to one of another through the mesh.
    #[test]
    fn a_takeover_crosses_shards() {
        let mut rig = Rig::new(Bounds::default());
        rig.ask(0, open(conn(0, 1)));
        assert_eq!(rig.turn(), Monotonic::NEVER);
        assert!(matches!(rig.got(0), Some(PresenceReply::Opened { .. })));
        rig.ask(1, PresenceRequest::Resume { from: conn(1, 5), user: None, token: TOKEN });
        assert_eq!(rig.turn(), Monotonic::ZERO + limits::TAKEOVER_WAIT);
        assert!(matches!(rig.got(0), Some(PresenceReply::Stop { to, session: SESSION }) if to == conn(0, 1)));
        assert!(rig.got(1).is_none());
        let detached =
            PresenceRequest::Detached { from: conn(0, 1), session: SESSION, last_close: CloseReason::Replaced };
        rig.ask(0, detached);
        assert_eq!(rig.turn(), Monotonic::NEVER);
        let reply = rig.got(1);
        assert!(
            matches!(reply, Some(PresenceReply::Resumed { to, ref record })
            if to == conn(1, 5) && record.last_close == Some(CloseReason::Replaced)),
            "{reply:?}"
        );
    }

    /// An owner that never answers is waited for until the deadline that the turn names.
    #[test]
    fn a_silent_owner_is_waited_for_until_the_deadline() {
        let mut rig = Rig::new(Bounds::default());
        rig.ask(0, open(conn(0, 1)));
        rig.ask(0, PresenceRequest::Resume { from: conn(1, 5), user: None, token: TOKEN });
        rig.now = rig.turn();
        assert!(rig.got(1).is_none());
        rig.turn();
        assert!(matches!(rig.got(1), Some(PresenceReply::Resumed { .. })));
    }

    /// With rings of one message a shard that does not take its replies stops the taking of requests, and nothing is lost.
    #[test]
    fn replies_that_cannot_be_placed_stop_the_taking() {
        let mut rig = Rig::new(Bounds { slots: 1, outbox: 1 });
        for slot in 0..10 {
            rig.ask(0, PresenceRequest::Resume { from: conn(1, slot), user: None, token: TOKEN });
        }
        for _ in 0..20 {
            rig.turn();
            rig.shards[0].flush_outboxes();
            rig.shards[0].wake_list().for_each(drop);
        }
        assert!(rig.peer.port().depth().0 <= 1, "one in the outbox, one in the ring");
        let mut got = Vec::new();
        for _ in 0..40 {
            got.extend(rig.got(1).map(|reply| reply.to().conn.slot));
            rig.shards[1].wake_list().for_each(drop);
            rig.turn();
            rig.shards[0].flush_outboxes();
        }
        assert_eq!(got, (0..10).collect::<Vec<_>>());
    }
}
