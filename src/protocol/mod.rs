//! The dialects: each translates its wire form to the core's vocabulary and back (PROTOCOLS). Sans-IO; a dialect knows
//! neither connections nor sessions.

pub mod frames;
//! Dialects and the type table.

mod defaults;
pub mod routes;
