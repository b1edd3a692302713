//! The log on disk as a pure function of bytes: record format, segments, recovery, index, group commit, retention.
//! Nothing in here touches a file; `bus::disk` does what it says.
//!
//! A log is a chain of segments. A segment is a header (the log's id, what the log held before it) and records; the
//! records of all topics share the chain, so that one write and one fdatasync serve every appender that waits.
//!
//! Laws:
//! - A batch is written only when the batch before it is durable, and acknowledged only when it is durable itself. So
//!   what a crash may tear is the last batch, and a flaw with a later batch behind it is damage, never a torn tail.
//! - Offsets of a topic are contiguous over all segments; a header repeats every topic's next offset, so that neither
//!   retention nor a cut tail ever makes an offset anew that a client was told of.
//! - Recovery keeps every durable record and refuses, with the byte at which it stopped, what it cannot explain.

mod commit;
mod index;
mod record;
mod recovery;
mod retention;
mod segment;

pub use commit::{Batch, Commit, CommitBounds, Item, Refused};
pub use index::Index;
pub use record::{Entry, Flaw, Kind, RECORD_HEAD, parse, put};
pub use recovery::{Damage, Recovered, Recovery};
pub use retention::{Held, Retention};
pub use segment::{Header, Tail, TopicStart};

#[cfg(test)]
mod tests;
