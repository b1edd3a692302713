//! How long an admin connection may live: a fixed time for a request, for as long as its reader takes what is sent for a
//! stream, and for as long as the bus goes on with a batch of events.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

/// The end of a connection's life, as it stands. It is only ever put off.
#[derive(Clone, Debug)]
pub(super) struct Life {
    until: Arc<Mutex<Instant>>,
    stall: Duration,
}

impl Life {
    /// A request's `time` from now; each step of a stream or batch gives it `stall` more.
    pub(super) fn new(time: Duration, stall: Duration) -> Self {
        Self { until: Arc::new(Mutex::new(Instant::now() + time)), stall }
    }

    /// The reader took what was sent before, or an event of the batch was answered.
    pub(super) fn step(&self) {
        let mut until = self.until.lock().expect("nothing panics while it holds an instant");
        *until = (*until).max(Instant::now() + self.stall);
    }

    /// Runs a connection to its end or to the end of its life.
    pub(super) async fn bound(&self, connection: impl Future<Output = ()>) {
        let mut connection = std::pin::pin!(connection);
        loop {
            let until = self.until();
            if timeout_at(until, &mut connection).await.is_ok() || self.until() <= until {
                return;
            }
        }
    }

    fn until(&self) -> Instant {
        *self.until.lock().expect("nothing panics while it holds an instant")
    }
}
