//! Workers run the services over the bus, on a thread of their own. What a worker does is a `turn` that a simulation
//! drives by itself; [`run`] is the thread around it.

mod passwords;
mod services;

use std::sync::atomic::{AtomicBool, Ordering};

pub use passwords::{PasswordPool, Passwords};
pub use services::{COMMAND_TOPICS, Lost, Restarted, SERVICE_EVENT_TOPICS, ServiceWorker, Tally, WorkerSettings};

use crate::ports::{Bus, Store};
use crate::router::peer::park;
use crate::time::{Monotonic, WallMillis};

/// Drives the worker on this thread until `stop` is set and the thread unparked. The bus must unpark the thread when
/// it has something for the worker, and so must the passwords.
pub fn run<B: Bus, S: Store, P: Passwords>(
    worker: &mut ServiceWorker<B, S, P>,
    clock: impl Fn() -> (Monotonic, WallMillis),
    stop: &AtomicBool,
) {
    while !stop.load(Ordering::Acquire) {
        let (now, wall) = clock();
        let next = worker.turn(now, wall);
        if next > now && !stop.load(Ordering::Acquire) {
            park(now, next);
        }
    }
}
