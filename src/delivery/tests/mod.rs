//! Tests of the write queue.
