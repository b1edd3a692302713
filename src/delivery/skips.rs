//! Deltas left out and not yet told, per stream (D6). Survives an empty queue, for the telling waits for the stream's
//! next delta. Bounded by the streams of the connection: what it leaves is taken out.

use crate::id::StreamHandle;

/// Left-out counts of one connection. Invariant: `untold` ascends by stream; every count is > 0.
#[derive(Default, Debug)]
pub(super) struct Skips {
    untold: Vec<Untold>,
    /// Left out since the connection began, told or not.
    pub total: u64,
}

#[derive(Clone, Copy, Debug)]
struct Untold {
    stream: StreamHandle,
    count: u64,
    /// Whether the plan under way tells it.
    planned: bool,
}

impl Skips {
    /// Counts left-out deltas of a stream.
    pub fn add(&mut self, stream: StreamHandle, count: u64) {
        self.total += count;
        match self.position(stream) {
            Ok(at) => self.untold[at].count += count,
            Err(at) => self.untold.insert(at, Untold { stream, count, planned: false }),
        }
    }

    /// What is to be told of the stream, 0 if nothing.
    pub fn untold(&self, stream: StreamHandle) -> u64 {
        self.position(stream).map_or(0, |at| self.untold[at].count)
    }

    /// What is to be told of the stream and not planned yet, 0 if nothing.
    pub fn unplanned(&self, stream: StreamHandle) -> u64 {
        self.position(stream).ok().map(|at| self.untold[at]).filter(|u| !u.planned).map_or(0, |u| u.count)
    }

    /// The plan tells the stream.
    pub fn plan(&mut self, stream: StreamHandle) {
        if let Ok(at) = self.position(stream) {
            self.untold[at].planned = true;
        }
    }

    /// No plan exists.
    pub fn clear_plan(&mut self) {
        self.untold.iter_mut().for_each(|untold| untold.planned = false);
    }

    /// The stream's count is told, or the client has left the stream.
    pub fn remove(&mut self, stream: StreamHandle) {
        if let Ok(at) = self.position(stream) {
            self.untold.remove(at);
        }
    }

    fn position(&self, stream: StreamHandle) -> Result<usize, usize> {
        self.untold.binary_search_by_key(&stream, |untold| untold.stream)
    }
}
