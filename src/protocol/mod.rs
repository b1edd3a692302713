//! The dialects: each translates its wire form to the core's vocabulary and back (PROTOCOLS). Sans-IO; a dialect knows
//! neither connections nor sessions.

mod defaults;
pub mod envelope;
mod forms;
pub mod frames;
pub mod gateway;
pub mod relay;
pub mod rooms;
pub mod routes;

pub use forms::{Forms, Refusal};
