//! The shard: one pinned thread, its connections, its homes. (The loop follows.)

pub mod driver;
