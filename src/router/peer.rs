//! The thread of a peer: a node of the mesh that has no connections (presence, bus). What it does is a [`Peer`], which a
//! simulation drives by itself; [`run`] is the thread around it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::{Port, Wake};
use crate::time::{Monotonic, WallMillis};

/// A node of the mesh without connections.
pub trait Peer {
    /// Does what there is to do, up to a budget, and never blocks; returns when to be called again at the latest, `now`
    /// or earlier if there is more. Whoever calls it empties the port's wake list afterwards.
    fn turn(&mut self, now: Monotonic, wall: WallMillis) -> Monotonic;

    /// Its end of the mesh.
    fn port(&mut self) -> &mut Port;

    /// Whether a turn would take input. While not, something past the mesh unparks the thread when it would again.
    fn takes_input(&self) -> bool {
        true
    }
}

/// Drives the peer on this thread until `stop` is set and the thread unparked. `wakes` are by node; whoever gives the
/// peer work past the mesh must unpark the thread.
pub fn run(
    peer: &mut impl Peer,
    wakes: &[Arc<dyn Wake>],
    clock: impl Fn() -> (Monotonic, WallMillis),
    stop: &AtomicBool,
) {
    while !stop.load(Ordering::Acquire) {
        let (now, wall) = clock();
        let next = peer.turn(now, wall);
        let port = peer.port();
        for node in port.wake_list() {
            wakes[node.index()].wake();
        }
        if next <= now {
            continue;
        }
        port.announce_sleep();
        // A wake-up between the turn and here is kept by `park`.
        let idle = !port.has_input() || !peer.takes_input();
        if idle && !stop.load(Ordering::Acquire) {
            park(now, next);
        }
        peer.port().awake();
    }
}

/// Blocks this thread until it is unparked, or from `now` to `until`; it may return early.
pub fn park(now: Monotonic, until: Monotonic) {
    if until == Monotonic::NEVER {
        thread::park();
    } else {
        thread::park_timeout(until.since(now));
    }
}
