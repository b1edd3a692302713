//! The store: what outlives a process (DESIGN §4). SQLite in a file below `data_dir`, or in memory where none is set; it
//! belongs to one thread, and no shard ever touches it.

mod sqlite;

pub use sqlite::{SqliteStore, StoreSettings};
