//! The bus is a log (DESIGN §7, DELIVERY §7): commands go in, events come out, everyone reads at their own pace.

mod disk;
mod duplicates;
mod embedded;
#[cfg(feature = "kafka")]
pub mod kafka;
mod peer;
mod rebuild;
mod relay;
mod topic;

pub use disk::{DiskBus, DiskConfig, Opened, WriterChoice};
pub use embedded::EmbeddedBus;
pub use peer::{BusPeer, Nodes};
pub use rebuild::{Rebuilt, rebuild};
pub use relay::Publishers;
pub use topic::TopicBounds;

pub use crate::protocol::routes::EVENT_TOPICS;

/// The topic that keeps what nobody can use.
pub const DEAD_TOPIC: &str = "ringgate.dead";

#[cfg(test)]
mod tests;
