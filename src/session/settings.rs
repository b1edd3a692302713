//! What all connections of a shard share and never change: keys, routes, bounds, clocks' settings. A reload replaces it
//! as a whole, between two turns.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use super::Asset;
use crate::auth::{Cidr, RoomKey, Signer, Verifier};
use crate::delivery;
use crate::id::{ConnAddr, ConnectionId, NodeId};
use crate::limits;
use crate::ports::KeyWish;
use crate::protocol::routes::Routes;
use crate::time::Rate;

/// The reading that the verifier's keys are of, and the wish for a newer one.
#[derive(Clone, Debug)]
pub struct KeyReading {
    /// Shared with whoever reads.
    pub wish: Arc<KeyWish>,
    /// Counted from the start's, which is 0.
    pub number: u64,
}

impl KeyReading {
    /// Whether a newer reading may bring a key that this one has not; if need be, asks for one.
    #[must_use]
    pub fn may_bring_more(&self) -> bool {
        self.wish.make(self.number)
    }
}

/// See the module.
#[derive(Clone)]
pub struct Settings {
    /// Checks tokens.
    pub verifier: Arc<Verifier>,
    /// Where its keys come from, if others publish them.
    pub key_reading: Option<KeyReading>,
    /// Signs and checks room tokens.
    pub room_key: RoomKey,
    /// The numbering of the topic `rooms.events`, as it is now.
    pub rooms_epoch: Arc<AtomicU64>,
    /// How often one address may call the rooms API.
    pub rooms_calls: Rate,
    /// The type table.
    pub routes: Arc<Routes>,
    /// Allowed origins beside the same host and localhost.
    pub origins: Vec<String>,
    /// Proxies whose `X-Forwarded-For` and `Forwarded` are believed.
    pub trusted_proxies: Vec<Cidr>,
    /// Connections of one address and shard that have not authenticated.
    pub newcomers_max: u32,
    /// Echo and demo page are on.
    pub dev: bool,
    /// The demo page, served in dev mode.
    pub page: &'static [Asset],
    /// Makes tokens for guests of the demo page; `None` unless the key was made up for dev mode.
    pub guests: Option<Signer>,
    /// Name of this gateway in envelopes.
    pub gateway_id: String,
    /// Random per process: makes connection ids unguessable and unique across restarts.
    pub nonce: u64,
    /// Shards of the node.
    pub shards: u16,
    /// The presence peer.
    pub presence: NodeId,
    /// The bus peer.
    pub bus: NodeId,
    /// Whether gateways share the bus, so that it carries what is relayed.
    pub relays_by_bus: bool,
    /// The topic for that.
    pub relay_topic: Arc<str>,
    /// What an acknowledgement means.
    pub durability: &'static str,
    /// Bounds of the write queues.
    pub queue: delivery::Limits,
    /// Largest message of a client, bytes.
    pub max_frame: usize,
    /// Rooms of one session.
    pub rooms_max: usize,
    /// How often a connection may JOIN and LEAVE, together.
    pub moves: Rate,
    /// How often a connection may send a command to publishers.
    pub player_commands: Rate,
    /// Intervals and time-outs.
    pub clocks: Clocks,
}

/// Intervals and time-outs of a connection; the defaults are those of `limits`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Clocks {
    /// From accept to the end of the upgrade request.
    pub handshake: Duration,
    /// From the upgrade to a successful HELLO.
    pub authentication: Duration,
    /// Without any input.
    pub idle: Duration,
    /// Between pings.
    pub ping: Duration,
    /// From the close frame to the hard close.
    pub close: Duration,
    /// How long a publisher may be paused.
    pub pause: Duration,
    /// Behind a token's `exp`.
    pub token_grace: Duration,
}

impl Default for Clocks {
    fn default() -> Self {
        Self {
            handshake: limits::HANDSHAKE_TIMEOUT,
            authentication: limits::AUTHENTICATION_TIMEOUT,
            idle: limits::IDLE_TIMEOUT,
            ping: limits::PING_INTERVAL,
            close: limits::CLOSE_TIMEOUT,
            pause: limits::PAUSE_TIMEOUT,
            token_grace: limits::TOKEN_GRACE,
        }
    }
}

impl Settings {
    /// The connection's name on the wire.
    #[must_use]
    pub fn connection_id(&self, addr: ConnAddr) -> ConnectionId {
        ConnectionId::of(self.nonce, addr)
    }
}
