//! What the process is told by signals, from its first moment on.
//!
//! A start may wait long for Kafka, Redis or the disk. Until it says that it has begun, nobody has been served, so SIGTERM
//! and SIGINT end the process at once; from then on they are handed on. Never blocks the start.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use crate::shard::driver::syscall::{Signal, Signals};

/// SIGTERM, SIGINT and SIGHUP, as they come.
pub struct Told {
    signals: Receiver<Signal>,
    begun: Arc<AtomicBool>,
}

impl Told {
    /// Blocks the signals in the calling thread and those it starts from now on, so call it before any is started.
    ///
    /// # Errors
    /// Out of descriptors, memory or threads, in words.
    pub fn listen() -> Result<Self, String> {
        let failed = |error| format!("signals cannot be read: {error}");
        let mut source = Signals::block().map_err(failed)?;
        let (hand_on, signals) = channel();
        let begun = Arc::new(AtomicBool::new(false));
        let told = Self { signals, begun: Arc::clone(&begun) };
        let listen = move || {
            while let Ok(signal) = source.wait() {
                match (begun.load(Ordering::Acquire), signal) {
                    (false, Signal::Terminate) => std::process::exit(0),
                    // What is being read is as new.
                    (false, Signal::Reload) => {}
                    (true, signal) => drop(hand_on.send(signal)),
                }
            }
        };
        thread::Builder::new().name("signals".into()).spawn(listen).map_err(failed)?;
        Ok(told)
    }

    /// From now on [`Self::wait`] is told everything.
    pub fn begin(&self) {
        self.begun.store(true, Ordering::Release);
    }

    /// Blocks until a signal arrives; whoever cannot be told any more is to end.
    pub fn wait(&self) -> Signal {
        self.signals.recv().unwrap_or(Signal::Terminate)
    }
}
