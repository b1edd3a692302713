//! (placeholder, replaced by the timer wheel)

/// Timer wheel.
#[derive(Debug)]
pub struct Wheel;
