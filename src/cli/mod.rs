//! The commands of the binary.

pub mod connect;
pub mod load;
