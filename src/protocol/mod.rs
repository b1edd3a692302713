//! Dialects and the type table.

mod defaults;
pub mod routes;
