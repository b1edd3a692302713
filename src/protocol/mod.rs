//! The dialects: each translates its wire form to the core's vocabulary and back (PROTOCOLS). Sans-IO; a dialect knows
//! neither connections nor sessions.

mod defaults;
pub mod envelope;
pub mod frames;
pub mod gateway;
pub mod routes;
