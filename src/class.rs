//! Delivery classes: what may happen to a frame on its way to one connection.

/// The class of a frame. `Delta` is the only one that may be dropped or replaced (D2).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Class {
    /// Has a place in its stream; delivered in order, or the connection closes.
    Reliable,
    /// Self-contained newest value of a key; may be replaced or left out while the client is slow.
    Delta,
    /// An answer to this connection or an introduction; never dropped, bounded by pausing the connection's reading.
    Answer,
    /// Ping, pong, close: a reserved place each.
    Control,
}

impl Class {
    /// Every class, in the order of [`Class::index`].
    pub const ALL: [Self; 4] = [Self::Reliable, Self::Delta, Self::Answer, Self::Control];

    /// Index into tables that have one entry per class.
    #[must_use]
    pub fn index(self) -> usize {
        self as usize
    }

    /// The metric label.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Reliable => "reliable",
            Self::Delta => "delta",
            Self::Answer => "answer",
            Self::Control => "control",
        }
    }
}
