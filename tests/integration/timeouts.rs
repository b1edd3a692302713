//! The clocks of a connection, configured small.

use crate::node::{on_each_driver, until};
use crate::raw::Raw;

/// Who connects and stays silent is ended without a word after the handshake time-out.
#[test]
fn silence_before_the_upgrade_ends() {
    on_each_driver(&["--handshake-ms", "200"], |gateway| {
        let mut silent: Vec<Raw> = (0..10).map(|_| Raw::connect(gateway)).collect();
        silent[0].write(b"GET /ws/frames HTTP/1.1\r\nHost");
        for raw in &mut silent {
            assert!(raw.ended());
        }
        until("all are counted", || gateway.closes("handshake_timeout") == 10);
        gateway.closes("handshake_timeout")
    });
}

/// Who upgrades and never says HELLO is closed 4401.
#[test]
fn silence_before_hello_closes() {
    on_each_driver(&["--authentication-ms", "200"], |gateway| {
        let mut raw = Raw::upgraded(gateway, "/ws/frames");
        assert_eq!(raw.closed(), 4401);
        gateway.closes("authentication_timeout")
    });
}

/// A session that answers no ping is pinged, then closed 4410; its neighbour that answers stays.
#[test]
fn an_idle_session_closes() {
    on_each_driver(&["--idle-ms", "400", "--ping-ms", "100"], |gateway| {
        let mut idle = Raw::player(gateway, "idle");
        let mut awake = Raw::player(gateway, "awake");
        let answer = std::thread::spawn(move || {
            for _ in 0..8 {
                let (first, payload) = awake.frame().unwrap();
                assert_eq!(first, 0x89);
                awake.write(&crate::raw::masked(0x8A, &payload));
            }
        });
        assert_eq!(idle.frame().unwrap().0, 0x89);
        assert_eq!(idle.closed(), 4410);
        answer.join().unwrap();
        gateway.closes("idle_timeout")
    });
}
