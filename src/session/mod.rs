//! The life cycle of one connection, sans-IO: bytes, answers and timers in, outputs out. The only place that joins
//! websocket, protocol, auth and delivery.
//!
//! Law: after every call with a [`Cx`], the shard carries out `cx.out` in order and then settles the connection: reads
//! on or off ([`Connection::wants_reads`]), a flush if [`Connection::has_sendable`], its timer
//! ([`Connection::next_deadline`]), the end of the socket ([`Connection::is_flushed_and_closing`]).
//!
//! It never touches a socket, a clock, another connection, or the streams: what it wants of them are outputs.

mod answers;
mod authenticate;
mod commands;
mod connection;
mod effects;
mod frames;
mod gateway;
mod handshake;
mod hub;
mod lobby;
mod lookups;
mod page;
mod relay;
mod settings;
mod stash;

use std::sync::Arc;

pub use connection::{Connection, Dialect, queue_context};
pub use page::Asset;
pub use settings::{Clocks, KeyReading, Settings};

use crate::id::{ConnAddr, NodeId, Scope, SessionId};
use crate::message::{Position, Request, ResumeFrom, StreamStart};
use crate::stats::{Ledger, ShardStats};
use crate::time::{Monotonic, WallMillis};

/// What a call into a connection may use.
pub struct Cx<'a> {
    /// The shard's monotonic time of this turn.
    pub now: Monotonic,
    /// The wall clock of this turn.
    pub wall: WallMillis,
    /// Who is called.
    pub me: ConnAddr,
    /// Configuration.
    pub settings: &'a Settings,
    /// Conservation account of the shard.
    pub ledger: &'a mut Ledger,
    /// The shard's free queues.
    pub pool: &'a mut crate::delivery::Pool,
    /// The shard's connections that have not authenticated, by address.
    pub newcomers: &'a mut crate::auth::Newcomers,
    /// Calls of the rooms API, by address.
    pub visits: &'a mut crate::auth::Visits,
    /// What the shard shows.
    pub stats: &'a ShardStats,
    /// Where dialect A's fields are found; scratch.
    pub fields: &'a mut crate::protocol::gateway::Fields,
    /// Reads JSON in buffers of its own.
    pub json: &'a mut crate::protocol::envelope::Json,
    /// 64 random bits.
    pub random: &'a mut dyn FnMut() -> u64,
    /// What stashes of the shard may still hold beyond their own bound; `limits::STASH_RESERVE_BYTES` while none does.
    pub stash_reserve: &'a mut usize,
    /// Whether a request to the node may be sent now; if not, its source pauses (DELIVERY §5).
    pub may_request: &'a dyn Fn(NodeId) -> bool,
    /// What the shard must carry out, in order.
    pub out: &'a mut Vec<Output>,
}

impl Cx<'_> {
    /// Random bytes of a time-ordered id.
    fn entropy(&mut self) -> [u8; 10] {
        let mut bytes = [0; 10];
        bytes[..8].copy_from_slice(&(self.random)().to_be_bytes());
        bytes[8..].copy_from_slice(&(self.random)().to_be_bytes()[..2]);
        bytes
    }
}

/// What a connection wants of its shard.
#[derive(Debug)]
pub enum Output {
    /// Send a request over the mesh.
    Request(NodeId, Request),
    /// The token of this connection waits to be verified; call [`Connection::verify`] within the budget.
    Verify,
    /// The slot carries this session from here on.
    Identify {
        /// User id.
        user: Arc<str>,
        /// The session.
        session: SessionId,
        /// Whether it has the role `publisher`.
        publisher: bool,
    },
    /// Ask the scope's home; the answer comes back through [`Connection::joined`].
    Join {
        /// The scope.
        scope: Scope,
        /// Whose session.
        session: SessionId,
        /// Whether it has the role `publisher`.
        publisher: bool,
        /// Whether a backend let it in.
        admitted: bool,
        /// The place of the event that let it in.
        entry: Option<Position>,
        /// Where to go on.
        resume: Option<ResumeFrom>,
    },
    /// The join is accepted: take the seats, start the cursors.
    Confirm {
        /// The scope.
        scope: Scope,
        /// Its streams and where they start.
        streams: Vec<StreamStart>,
    },
    /// The join came to nothing.
    Decline {
        /// The scope.
        scope: Scope,
    },
    /// Leave a scope that was confirmed.
    Leave {
        /// The scope.
        scope: Scope,
    },
    /// The session is detached: give up all seats.
    Detach,
}

/// Whether the named broken policy runs; never without the feature `mutants`.
macro_rules! mutant {
    ($cx:expr, $name:ident) => {{
        #[cfg(feature = "mutants")]
        let broken = $cx.settings.queue.mutant == $crate::mutant::Mutant::$name;
        #[cfg(not(feature = "mutants"))]
        let broken = false;
        broken
    }};
}
use mutant;
