//! The bus is a log (DESIGN §7, DELIVERY §7): commands go in, events come out, everyone reads at their own pace.

mod embedded;
mod peer;

pub use embedded::{EmbeddedBus, TopicBounds};
pub use peer::{BusPeer, BusStats, Nodes};

pub use crate::protocol::routes::EVENT_TOPICS;

/// The topic that keeps what nobody can use.
pub const DEAD_TOPIC: &str = "ringgate.dead";
