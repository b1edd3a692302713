//! The bus is a log (DESIGN §7, DELIVERY §7): commands go in, events come out, everyone reads at their own pace.

mod embedded;

pub use embedded::{EmbeddedBus, TopicBounds};
