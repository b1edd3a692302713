//! A value that the control thread replaces while shards and peers go on reading it: a chain of versions, each of which
//! knows its successor once there is one. A reader moves on when it likes, for the cost of one load; nobody locks,
//! nobody waits, and a version lives as long as somebody reads it.

use std::ops::Deref;
use std::sync::{Arc, OnceLock};

/// A reader's place in the chain; it shows the version it stands on until [`Latest::refresh`]. A clone stands there too
/// and moves by itself.
#[derive(Debug)]
pub struct Latest<T> {
    version: Arc<Version<T>>,
}

#[derive(Debug)]
struct Version<T> {
    value: T,
    next: OnceLock<Arc<Self>>,
}

impl<T> Latest<T> {
    /// The first version.
    #[must_use]
    pub fn new(value: T) -> Self {
        Self { version: Arc::new(Version { value, next: OnceLock::new() }) }
    }

    /// Moves on to the newest version; whether there was a newer one.
    pub fn refresh(&mut self) -> bool {
        let mut moved = false;
        while let Some(next) = self.version.next.get() {
            self.version = Arc::clone(next);
            moved = true;
        }
        moved
    }

    /// Adds a version and moves on to it. What happened before is seen by whoever sees the version.
    pub fn publish(&mut self, value: T) {
        let mut new = Arc::new(Version { value, next: OnceLock::new() });
        let version = Arc::clone(&new);
        loop {
            self.refresh();
            match self.version.next.set(new) {
                Ok(()) => break,
                Err(back) => new = back,
            }
        }
        self.version = version;
    }
}

impl<T> Clone for Latest<T> {
    fn clone(&self) -> Self {
        Self { version: Arc::clone(&self.version) }
    }
}

impl<T> Deref for Latest<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.version.value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A reader keeps its version until it refreshes, then has the newest; nothing is read that nobody stands on.
    #[test]
    fn readers_move_when_they_like() {
        let mut control = Latest::new(Arc::new(1));
        let first = Arc::downgrade(&*control);
        let (mut early, mut late) = (control.clone(), control.clone());
        assert!(!early.refresh());
        for n in 2..=4 {
            control.publish(Arc::new(n));
        }
        assert!(early.refresh() && !early.refresh());
        assert_eq!((**control, **early, **late), (4, 4, 1));
        assert!(first.upgrade().is_some());
        assert!(late.refresh());
        assert!(first.upgrade().is_none());
    }

    /// Versions published by several are all in the chain, and every reader ends at the same one.
    #[test]
    fn publishers_do_not_lose_versions() {
        let chain = Latest::new(0);
        let count = |mut reader: Latest<usize>| {
            let mut versions = 1;
            while let Some(next) = reader.version.next.get() {
                reader.version = Arc::clone(next);
                versions += 1;
            }
            versions
        };
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let mut own = chain.clone();
                scope.spawn(move || (1..=100).for_each(|n| own.publish(thread * 100 + n)));
            }
        });
        assert_eq!(count(chain.clone()), 401);
    }
}
