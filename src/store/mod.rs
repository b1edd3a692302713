//! The store: what outlives a process (DESIGN §4). SQLite in a file below `data_dir`, or in memory where none is set; of
//! workers on many machines, their history in PostgreSQL. It belongs to one thread, and no shard ever touches it.

mod postgres;
mod sqlite;

pub use postgres::{PostgresSettings, PostgresStore};
pub use sqlite::{SqliteStore, StoreSettings};

#[cfg(test)]
mod suite;
