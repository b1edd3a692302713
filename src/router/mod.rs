//! The mesh between threads: every node, shard or peer, owns one [`Port`] and exchanges messages with every other node
//! through single-producer, single-consumer rings.
//!
//! - [`mailbox`]: one ring, which tells its producer when there is room again.
//! - [`doorbell`]: who sleeps and must be woken, without a lost wake-up.
//! - [`mesh`]: the ports, with the outboxes and the rules of DELIVERY §5 that keep the wait graph free of cycles.
//! - [`peer`]: the thread of a node that has no connections.
//! - [`latest`]: what the control thread replaces while all nodes go on reading it.
//!
//! Nothing in the mesh drops a message for a living node, reorders the messages of a sender, blocks, reads a clock, or
//! wakes a thread: it says who must be woken, and the driver or [`peer::run`] does it.

pub mod doorbell;
pub mod latest;
pub mod mailbox;
pub mod mesh;
pub mod peer;

#[cfg(all(test, ringgate_loom))]
mod model;
#[cfg(ringgate_loom)]
mod ring_model;

pub use doorbell::{Doorbell, ThreadWaker, Wake};
pub use latest::Latest;
pub use mesh::{Bounds, Port};

/// The primitives the model checker replaces.
mod sync {
    #[cfg(ringgate_loom)]
    pub(super) use loom::sync::atomic::{AtomicBool, Ordering, fence};
    #[cfg(not(ringgate_loom))]
    pub(super) use std::sync::atomic::{AtomicBool, Ordering, fence};
}
