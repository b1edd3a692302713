//! What the process is told by signals, from its first moment on, and by its own threads.
//!
//! A start may wait long for Kafka, Redis or the disk. Until it says that it has begun, nobody has been served, so SIGTERM
//! and SIGINT end the process at once; from then on they are handed on. Never blocks the start.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use crate::auth::KeySet;
use crate::shard::driver::syscall::{Signal, Signals};

/// SIGTERM, SIGINT and SIGHUP, as they come; new token keys.
pub struct Told {
    words: Receiver<Word>,
    hand_on: Sender<Word>,
    begun: Arc<AtomicBool>,
}

/// What somebody says.
pub enum Word {
    /// SIGTERM or SIGINT.
    Terminate,
    /// SIGHUP.
    Reload,
    /// Token keys, read again for the time that the number says.
    Keys(u64, KeySet),
}

impl Told {
    /// Blocks the signals in the calling thread and those it starts from now on, so call it before any is started.
    ///
    /// # Errors
    /// Out of descriptors, memory or threads, in words.
    pub fn listen() -> Result<Self, String> {
        let failed = |error| format!("signals cannot be read: {error}");
        let mut source = Signals::block().map_err(failed)?;
        let (hand_on, words) = channel();
        let begun = Arc::new(AtomicBool::new(false));
        let told = Self { words, hand_on: hand_on.clone(), begun: Arc::clone(&begun) };
        let listen = move || {
            while let Ok(signal) = source.wait() {
                match (begun.load(Ordering::Acquire), signal) {
                    (false, Signal::Terminate) => std::process::exit(0),
                    // What is being read is as new.
                    (false, Signal::Reload) => {}
                    (true, Signal::Terminate) => drop(hand_on.send(Word::Terminate)),
                    (true, Signal::Reload) => drop(hand_on.send(Word::Reload)),
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

    /// How a thread of this process has its word.
    pub fn teller(&self) -> Sender<Word> {
        self.hand_on.clone()
    }

    /// Blocks until there is something; whoever cannot be told any more is to end.
    pub fn wait(&self) -> Word {
        self.words.recv().unwrap_or(Word::Terminate)
    }

    /// Blocks until the process is told to end.
    pub fn wait_for_end(&self) {
        while !matches!(self.wait(), Word::Terminate) {}
    }
}
