//! What only the log in memory does: it evicts. `bus::tests` has what every bus does.

use super::*;
use crate::bus::tests::{offsets, put};
use crate::message::ErrorCode;

/// Without readers the oldest make room; who asks for them gets what follows.
#[test]
fn the_oldest_are_evicted() {
    let mut bus = EmbeddedBus::new(7, TopicBounds { records: 4, bytes: 1000 });
    for n in 0..10 {
        put(&mut bus, "t", &[n]).unwrap();
    }
    assert_eq!(bus.range("t"), (6, 10));
    assert_eq!(offsets(&mut bus, "t", 0, 2), (vec![6, 7], 8));
    put(&mut bus, "t", &[0; 499]).unwrap();
    put(&mut bus, "t", &[0; 499]).unwrap();
    assert_eq!(bus.range("t"), (10, 12), "the byte bound counts keys and values");
    assert_eq!(put(&mut bus, "t", &[0; 500]), Err(ErrorCode::TooLong));
}
