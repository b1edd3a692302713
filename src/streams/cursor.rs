//! One member's catch-up in one stream: it pulls pages from the home while its queue has room, and ends when a page
//! says that the batches behind it are next (DELIVERY §4 "Catch-up").
//!
//! Law: at most one pull is under way; live batches of the stream do not reach the member before [`Cursor`] ends.

use crate::id::{ConnAddr, StreamHandle};
use crate::message::{Page, PageNext, Pull};

/// See the module.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cursor {
    stream: StreamHandle,
    after: u64,
    after_delta: u64,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// May pull.
    Ready,
    /// A page is on its way.
    Pulling,
    /// The member's position lies ahead of the home: the next batch of the stream asks again.
    Waiting,
}

impl Cursor {
    /// Starts behind `after`; `u64::MAX` starts at the head, with the newest delta values only.
    #[must_use]
    pub fn new(stream: StreamHandle, after: u64) -> Self {
        Self { stream, after, after_delta: 0, state: State::Ready }
    }

    /// The stream.
    #[must_use]
    pub fn stream(&self) -> StreamHandle {
        self.stream
    }

    /// Whether the next pull waits only for room, in the queue or on the mesh.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.state == State::Ready
    }

    /// The next pull, if one may be sent now: none is under way and the queue has room for `frames` and `bytes`
    /// (what is left of half its bounds).
    pub fn pull(&mut self, from: ConnAddr, frames: usize, bytes: usize) -> Option<Pull> {
        if self.state != State::Ready || frames == 0 || bytes == 0 {
            return None;
        }
        self.state = State::Pulling;
        let (frames, bytes) = (frames.min(1 << 16) as u32, bytes.min(1 << 30) as u32);
        Some(Pull { from, stream: self.stream, after: self.after, after_delta: self.after_delta, frames, bytes })
    }

    /// Takes note of a page whose frames were queued; `true` when the member is live from here on.
    pub fn advance(&mut self, page: &Page) -> bool {
        debug_assert_eq!(self.state, State::Pulling, "a page answers a pull");
        (self.after, self.after_delta) = (page.after, page.after_delta);
        self.state = if page.next == PageNext::Wait { State::Waiting } else { State::Ready };
        page.next == PageNext::Live
    }

    /// The stream has a new batch; a cursor that waits for the home to reach its place asks again.
    pub fn stream_moved(&mut self) {
        if self.state == State::Waiting {
            self.state = State::Ready;
        }
    }
}
