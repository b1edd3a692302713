//! Gateways' presence on one Redis, driven by hand in virtual time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::close::CloseReason;
use crate::id::{ConnAddr, ConnKey, ConnectionId, NodeId, Scope, SessionId, TokenHash};
use crate::message::{
    HubChange, Position, PresenceChange, PresenceKind, PresenceReply, PresenceRequest, ScopeEntry, SessionRecord,
};
use crate::ports::{Lease, Presence};
use crate::presence::{GatewaySettings, RedisPresence};
use crate::router::ThreadWaker;
use crate::server::Server;
use crate::suite::WINDOW;
use crate::time::Monotonic;

/// One Redis, one clock.
pub struct Cluster {
    pub server: Server,
    pub control: redis::Connection,
    now: Monotonic,
    next_nonce: u64,
}

/// A gateway's presence and what it said.
pub struct Gateway {
    pub presence: RedisPresence,
    pub lease: Arc<Lease>,
    pub nonce: u64,
    pub replies: Vec<PresenceReply>,
    pub changes: Vec<PresenceChange>,
    pub hub_changes: Vec<HubChange>,
    /// Whether the bus accepts what is said.
    pub announces: bool,
}

impl Cluster {
    pub fn start() -> Self {
        Self::on(Server::start())
    }

    pub fn on(server: Server) -> Self {
        let control = server.connect();
        Self { server, control, now: Monotonic::ZERO, next_nonce: 1 }
    }

    pub fn now(&self) -> Monotonic {
        self.now
    }

    /// A gateway that has its lease.
    pub fn gateway(&mut self, id: &str) -> Gateway {
        let mut gateway = self.unready_gateway(id, 1000);
        gateway.settle(self.now);
        gateway
    }

    pub fn unready_gateway(&mut self, id: &str, detached_max: usize) -> Gateway {
        self.next_nonce += 1;
        gateway_on(&self.server, id, self.next_nonce, detached_max)
    }

    /// Lets time pass, for these gateways; others stand still.
    pub fn pass(&mut self, time: Duration, gateways: &mut [&mut Gateway]) {
        let until = self.now + time;
        while self.now < until {
            let step = until.since(self.now).min(STEP);
            self.skip(step);
            for gateway in gateways.iter_mut() {
                gateway.settle(self.now);
            }
        }
    }

    /// Moves the clock and Redis's times to live, and nobody looks.
    pub fn skip(&mut self, time: Duration) {
        let () = redis::cmd("EVAL").arg(SHIFT).arg(0).arg(time.as_millis() as u64).query(&mut self.control).unwrap();
        self.now += time;
    }

    /// All keys, in order.
    pub fn keys(&mut self) -> Vec<String> {
        let mut keys: Vec<String> = redis::cmd("KEYS").arg("*").query(&mut self.control).unwrap();
        keys.sort();
        keys
    }

    pub fn members(&mut self, key: &str) -> Vec<String> {
        let mut members: Vec<String> = redis::cmd("SMEMBERS").arg(key).query(&mut self.control).unwrap();
        members.sort();
        members
    }

    pub fn field(&mut self, key: &str, field: &str) -> Option<String> {
        redis::cmd("HGET").arg(key).arg(field).query(&mut self.control).unwrap()
    }

    /// Asks a gateway and waits for all that follows; what it replied.
    pub fn ask(&mut self, gateway: &mut Gateway, request: PresenceRequest) -> Vec<PresenceReply> {
        gateway.ask(self.now, request)
    }
}

/// A gateway that asks for its lease.
pub fn gateway_on(server: &Server, id: &str, nonce: u64, detached_max: usize) -> Gateway {
    let settings = GatewaySettings {
        gateway_id: id.to_owned(),
        nonce,
        incarnation: 1000 + nonce,
        resume_window: WINDOW,
        history_time: WINDOW,
        detached_max,
        seed: 7,
        wall: ringgate::shard::driver::syscall::wall,
    };
    let lease = Arc::new(Lease::endless());
    let wake = Arc::new(ThreadWaker::new(std::thread::current()));
    let presence = RedisPresence::start(server.settings(), settings, Arc::clone(&lease), wake);
    let (replies, changes, hub_changes) = (Vec::new(), Vec::new(), Vec::new());
    Gateway { presence, lease, nonce, replies, changes, hub_changes, announces: true }
}

impl Gateway {
    /// Does what there is to do; a wait for Redis is the caller's.
    pub fn turn(&mut self, now: Monotonic) {
        self.presence.poll(now, &mut self.replies);
        self.presence.changes(&mut self.changes);
        self.presence.hub_changes(&mut self.hub_changes);
        if self.announces {
            self.presence.announced(&mut self.replies);
        }
    }

    /// Turns until nothing is on its way.
    pub fn settle(&mut self, now: Monotonic) {
        self.until(now, "settled", |gateway| gateway.presence.is_settled());
    }

    /// Turns until it is so.
    pub fn until(&mut self, now: Monotonic, what: &str, mut holds: impl FnMut(&mut Self) -> bool) {
        let began = Instant::now();
        loop {
            self.turn(now);
            if holds(self) {
                return;
            }
            assert!(began.elapsed() < Duration::from_secs(20), "{what}: not within 20 s: {:?}", self.presence);
            std::thread::park_timeout(Duration::from_micros(300));
        }
    }

    pub fn ask(&mut self, now: Monotonic, request: PresenceRequest) -> Vec<PresenceReply> {
        self.say(now, request);
        self.settle(now);
        std::mem::take(&mut self.replies)
    }

    /// Asks and does not wait.
    pub fn say(&mut self, now: Monotonic, request: PresenceRequest) {
        self.presence.handle(now, request, &mut self.replies);
    }

    /// The name of its connection of this number.
    pub fn name(&self, n: u32) -> String {
        ConnectionId::of(self.nonce, conn(n)).to_string()
    }

    /// Who came and went: connection, or that of another gateway, and what.
    pub fn told(&mut self) -> Vec<(String, PresenceKind)> {
        let name = |change: &PresenceChange| ConnectionId::of(change.life.nonce, change.connection).to_string();
        let told = self.changes.iter().map(|change| (name(change), change.kind.clone())).collect();
        self.changes.clear();
        told
    }
}

pub fn conn(n: u32) -> ConnAddr {
    ConnAddr { shard: NodeId(0), conn: ConnKey { slot: n, generation: 1 } }
}

pub fn session(n: u8) -> SessionId {
    SessionId([n; 16])
}

/// Session `n` of the user, for a connection.
pub fn open(from: u32, n: u8, user: &str) -> PresenceRequest {
    let record = SessionRecord {
        session: session(n),
        user: user.into(),
        username: "Player".into(),
        roles: ["user".into()].into(),
        expires_at: 9,
        scopes: Vec::new(),
        acted: Vec::new(),
        last_close: None,
    };
    PresenceRequest::Open { from: conn(from), record: Box::new(record), token: TokenHash([n; 16]) }
}

pub fn resume(from: u32, n: u8) -> PresenceRequest {
    PresenceRequest::Resume { from: conn(from), user: None, token: TokenHash([n; 16]) }
}

pub fn enter(n: u8, room: &str, admitted: bool) -> PresenceRequest {
    let entered = vec![Position { stream: format!("relay/room:{room}").into(), epoch: 5, place: 4 }];
    let entry = ScopeEntry { scope: Scope::Room(room.into()), entered, admitted };
    PresenceRequest::Entered { session: session(n), entry }
}

pub fn leave(n: u8, room: &str) -> PresenceRequest {
    PresenceRequest::Left { session: session(n), scope: Scope::Room(room.into()) }
}

pub fn detach(from: u32, n: u8, last_close: CloseReason) -> PresenceRequest {
    PresenceRequest::Detached { from: conn(from), session: session(n), last_close }
}

/// The record that a connection was given.
pub fn resumed(replies: &[PresenceReply], to: u32) -> &SessionRecord {
    match replies {
        [PresenceReply::Resumed { to: given, record }] if *given == conn(to) => record,
        other => panic!("not resumed for {to}: {other:?}"),
    }
}

/// No lease may run out between two looks at it.
const STEP: Duration = Duration::from_secs(8);

const SHIFT: &str = "
for _, key in ipairs(redis.call('KEYS', '*')) do
  local left = redis.call('PTTL', key)
  if left > 0 then
    if left > tonumber(ARGV[1]) then redis.call('PEXPIRE', key, left - ARGV[1]) else redis.call('DEL', key) end
  end
end";
