//! A list without room to spare, for the lists of every idle connection: most are empty or hold one entry, and a
//! `Vec` would keep three words and room for four entries for each of them.
//!
//! An empty list owns no memory, a list of n exactly n entries. A change moves the whole list, so it is for lists that
//! change seldom and stay short: rooms, streams and scopes of one session.

use std::ops::{Deref, DerefMut};

/// See the module. Reads as a slice.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Packed<T>(Box<[T]>);

impl<T> Packed<T> {
    /// Appends an entry.
    pub fn push(&mut self, entry: T) {
        self.change(|entries| {
            entries.reserve_exact(1);
            entries.push(entry);
        });
    }

    /// Takes the entry at `at < len()` out; those behind it move up.
    pub fn remove(&mut self, at: usize) -> T {
        self.change(|entries| entries.remove(at))
    }

    /// Keeps the entries of which `keep` is true.
    pub fn retain(&mut self, keep: impl FnMut(&T) -> bool) {
        self.change(|entries| entries.retain(keep));
    }

    fn change<R>(&mut self, change: impl FnOnce(&mut Vec<T>) -> R) -> R {
        let mut entries = std::mem::take(self).0.into_vec();
        let result = change(&mut entries);
        self.0 = entries.into_boxed_slice();
        result
    }
}

impl<T> Default for Packed<T> {
    fn default() -> Self {
        Self(Box::default())
    }
}

impl<T> Deref for Packed<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<T> DerefMut for Packed<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.0
    }
}

impl<T> FromIterator<T> for Packed<T> {
    fn from_iter<I: IntoIterator<Item = T>>(entries: I) -> Self {
        Self(entries.into_iter().collect())
    }
}

impl<T> IntoIterator for Packed<T> {
    type Item = T;
    type IntoIter = std::vec::IntoIter<T>;
    fn into_iter(self) -> Self::IntoIter {
        self.0.into_vec().into_iter()
    }
}

impl<'a, T> IntoIterator for &'a Packed<T> {
    type Item = &'a T;
    type IntoIter = std::slice::Iter<'a, T>;
    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

/// What an empty list costs inside its owner.
const _: () = assert!(size_of::<Packed<u64>>() == 16);

#[cfg(test)]
mod tests {
    use super::*;

    /// Entries come and go as they would in a vector, order kept.
    #[test]
    fn changes_keep_the_order() {
        let mut list: Packed<u32> = (0..4).collect();
        list.push(4);
        assert_eq!(list.remove(1), 1);
        list.retain(|entry| entry % 2 == 0);
        assert_eq!(*list, [0, 2, 4]);
        list[0] = 9;
        assert_eq!(list.into_iter().collect::<Vec<_>>(), [9, 2, 4]);
    }
}
