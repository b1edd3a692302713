//! The end of a scenario: gateways drained, and what they leave in Redis.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::listed;
use crate::node::{DEADLINE, Gateway};

/// Drains the gateways. Fails if there is a key that PROTOCOLS does not know, if anything but what lives on for a window is
/// left of them, or if that is left after it.
pub fn nothing_is_left(control: &mut redis::Connection, gateways: Vec<Gateway>, window: Duration) {
    listed::check(control, window);
    for mut gateway in gateways {
        gateway.signal(Signal::TERM);
        assert!(gateway.ended().success(), "{}", gateway.log());
    }
    listed::check(control, window);
    // The lease of a worker that was killed ends by itself.
    until_empty("only what lives on for a window is left", || {
        listed::keys(control).into_iter().filter(|key| !listed::lives_on(key)).collect()
    });
    listed::skip(control, window * 2);
    assert_eq!(listed::keys(control), [] as [String; 0], "nothing is left after the window");
}

/// Waits until there is nothing; says what there still is.
pub fn until_empty(what: &str, mut left: impl FnMut() -> Vec<String>) {
    let began = Instant::now();
    while let left = left()
        && !left.is_empty()
    {
        assert!(began.elapsed() < DEADLINE, "{what}: {left:?} not within {DEADLINE:?}");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}
