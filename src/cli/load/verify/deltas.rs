//! What became of a room's deltas at one member (D3, D6), judged per connection.
//!
//! A publisher numbers its deltas from 1 and gives them to its keys in turn, so number `n` is of key `n % keys` and the
//! numbers say what was left out. A first connection begins before number 1: what it did not get was left out. One that
//! comes later begins with the newest value of each key (DELIVERY §4 "Catch-up"), which nothing counts, so of it two
//! things are sure: everything behind the lowest number it got was received or left out, and it began at most one turn of
//! the keys before the newest number that had come before it.
//!
//! Law: after [`DeltaCheck::close`] the connection is judged and the next begins.

/// A member's deltas; publishers are counted within the room.
#[derive(Debug)]
pub struct DeltaCheck {
    keys: u64,
    keeps_newest: bool,
    publishers: Vec<Values>,
    /// The connection is not the first.
    later: bool,
    /// Told on this connection.
    told: u64,
    /// Left out before a value of the same key that came on this connection.
    passed: u64,
    /// The most of `passed` that was not told by then.
    late: u64,
    verdict: Verdict,
}

/// What closed connections come to.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Verdict {
    /// Left out: what was told, as far as the numbers allow it, else the nearest count that they do.
    pub left_out: u64,
    /// Left out and not told, or told behind a delta that came after.
    pub untold: u64,
    /// Told beyond what can have been left out.
    pub told_too_many: u64,
}

/// What of a publisher's numbers has arrived.
#[derive(Clone, Default, Debug)]
struct Values {
    /// By key: the highest number that ever came; empty until one has.
    newest: Vec<u64>,
    /// By key: the highest number that came on this connection.
    here: Vec<u64>,
    /// On this connection.
    received: u64,
    lowest: u64,
    /// The highest number that came before this connection.
    before: u64,
}

impl DeltaCheck {
    /// A member of a room with so many publishers and `keys` keys for each. `keeps_newest` = a server within its bounds
    /// never leaves out the newest value of a key.
    #[must_use]
    pub fn new(publishers: usize, keys: usize, keeps_newest: bool) -> Self {
        Self {
            keys: keys as u64,
            keeps_newest,
            publishers: vec![Values::default(); publishers],
            later: false,
            told: 0,
            passed: 0,
            late: 0,
            verdict: Verdict::default(),
        }
    }

    /// Takes a delta; `false` if it is older than one of its key that came, or came on this connection before.
    #[inline]
    pub fn take(&mut self, publisher: usize, number: u64) -> bool {
        let values = &mut self.publishers[publisher];
        if values.newest.is_empty() {
            values.newest.resize(self.keys as usize, 0);
            values.here.resize(self.keys as usize, 0);
        }
        let index = (number % self.keys) as usize;
        let (newest, here) = (&mut values.newest[index], &mut values.here[index]);
        if number < *newest || number <= *here {
            return false;
        }
        self.passed += match *here {
            0 if self.later => 0,
            0 => (number - 1) / self.keys,
            last => (number - last) / self.keys - 1,
        };
        (*newest, *here) = (number, number);
        values.lowest = if values.received == 0 { number } else { values.lowest.min(number) };
        values.received += 1;
        self.late = self.late.max(self.passed.saturating_sub(self.told));
        true
    }

    /// The server says that deltas were left out.
    pub fn tell(&mut self, count: u64) {
        self.told += count;
    }

    /// Whether nothing can come any more of what publishers have sent, `refused` of which the server may not have taken.
    #[must_use]
    pub fn is_complete(&self, sent: impl Fn(usize) -> u64, refused: u64) -> bool {
        if !self.keeps_newest {
            return true;
        }
        let has_newest = |(index, values): (usize, &Values)| {
            let sent = sent(index);
            sent == 0 || (!values.here.is_empty() && values.here.iter().all(|here| here + self.keys > sent))
        };
        let behind = self.at_least(&sent).saturating_sub(self.told);
        behind <= refused && (!self.later || refused > 0 || self.publishers.iter().enumerate().all(has_newest))
    }

    /// The connection is over, with so many deltas sent by then; at the run's `end` all that is due has come.
    pub fn close(&mut self, sent: impl Fn(usize) -> u64, end: bool) {
        let at_most: u64 = self
            .publishers
            .iter()
            .enumerate()
            .map(|(index, values)| {
                let begin = if self.later { values.before.saturating_sub(self.keys) } else { 0 };
                sent(index).saturating_sub(begin + values.received)
            })
            .sum();
        let at_least = if end && self.keeps_newest { self.at_least(&sent) } else { self.passed };
        self.verdict.untold += self.late.max(at_least.saturating_sub(self.told));
        self.verdict.told_too_many += self.told.saturating_sub(at_most);
        self.verdict.left_out += self.told.max(at_least).min(at_most.max(at_least));
        for values in &mut self.publishers {
            values.before = values.newest.iter().copied().max().unwrap_or(0);
            values.here.fill(0);
            values.received = 0;
        }
        (self.later, self.told, self.passed, self.late) = (true, 0, 0, 0);
    }

    /// What connections that are closed come to.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// What this connection must have left out if nothing comes any more.
    fn at_least(&self, sent: impl Fn(usize) -> u64) -> u64 {
        let due = |(index, values): (usize, &Values)| match (self.later, values.received) {
            (true, 0) => 0,
            (true, received) => (sent(index) + 1).saturating_sub(values.lowest + received),
            (false, received) => sent(index).saturating_sub(received),
        };
        self.publishers.iter().enumerate().map(due).sum::<u64>().max(self.passed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a connection of one publisher with 4 keys is: the numbers that come, and what is told before them.
    enum Came {
        Number(u64),
        Told(u64),
    }
    use Came::{Number, Told};

    fn feed(check: &mut DeltaCheck, came: &[Came]) {
        for came in came {
            match *came {
                Number(number) => assert!(check.take(0, number), "{number}"),
                Told(count) => check.tell(count),
            }
        }
    }

    /// `(left_out, untold, told_too_many)` of one connection to the end of a run of `sent` deltas.
    fn first(came: &[Came], sent: u64) -> (u64, u64, u64) {
        let mut check = DeltaCheck::new(1, 4, true);
        feed(&mut check, came);
        check.close(|_| sent, true);
        let Verdict { left_out, untold, told_too_many } = check.verdict();
        (left_out, untold, told_too_many)
    }

    /// On a first connection every number is accounted for: what did not come must be told, no more, no less, and before
    /// the next delta.
    #[test]
    fn a_first_connection_is_exact() {
        assert_eq!(first(&[Number(1), Number(2), Number(3)], 3), (0, 0, 0));
        assert_eq!(first(&[Number(1), Told(1), Number(6), Number(3), Number(4), Number(5)], 6), (1, 0, 0));
        assert_eq!(first(&[Number(1), Number(6), Number(3), Number(4), Number(5)], 6), (1, 1, 0), "silent");
        assert_eq!(first(&[Told(1), Number(9), Number(6), Number(7), Number(8)], 9), (5, 4, 0), "too few");
        assert_eq!(first(&[Number(1), Told(3), Number(3)], 3), (1, 0, 2), "too many");
        assert_eq!(first(&[Number(1), Number(6), Told(1), Number(3), Number(4), Number(5)], 6), (1, 1, 0), "too late");
        assert_eq!(first(&[Number(1), Number(2)], 3), (1, 1, 0), "the newest of a key");
    }

    /// A later connection begins anywhere within one turn of the keys, and is held to what is behind the lowest number
    /// it got; what passed while nobody was connected is not left out.
    #[test]
    fn a_later_connection_is_held_to_what_is_sure() {
        let later = |came: &[Came], sent| {
            let mut check = DeltaCheck::new(1, 4, true);
            feed(&mut check, &[Number(1), Number(2)]);
            check.close(|_| 2, false);
            feed(&mut check, came);
            let complete = check.is_complete(|_| sent, 0);
            check.close(|_| sent, true);
            let Verdict { left_out, untold, told_too_many } = check.verdict();
            (left_out, untold, told_too_many, complete)
        };
        let values = || vec![Number(9), Number(10), Number(11), Number(12)];
        let and = |more: Vec<Came>| values().into_iter().chain(more).collect::<Vec<_>>();
        assert_eq!(later(&values(), 12), (0, 0, 0, true));
        assert_eq!(later(&and(vec![Number(13)]), 13), (0, 0, 0, true));
        assert_eq!(later(&and(vec![Told(2), Number(14), Number(15), Number(16), Number(17)]), 17), (2, 0, 0, true));
        assert_eq!(later(&and(vec![Number(17), Number(14), Number(15), Number(16)]), 17), (1, 1, 0, false));
        assert_eq!(later(&[Number(11), Number(12)], 12), (0, 0, 0, false), "two keys are under way");
        assert_eq!(later(&[], 0), (0, 0, 0, true));
        assert_eq!(later(&[Told(99), Number(9), Number(10), Number(11), Number(12)], 12), (8, 0, 91, true));
    }

    /// A value is taken once on a connection, again on the next, and an older one never.
    #[test]
    fn values_never_go_back() {
        let mut check = DeltaCheck::new(1, 2, true);
        assert!(check.take(0, 3) && !check.take(0, 3) && !check.take(0, 1) && check.take(0, 2));
        check.close(|_| 3, false);
        assert!(check.take(0, 3) && !check.take(0, 3) && !check.take(0, 1));
    }

    /// What the server refused needs no telling, and where bounds may take the newest value of a key only what a newer
    /// value of the key passed must be told.
    #[test]
    fn what_cannot_be_known_is_forgiven() {
        let mut check = DeltaCheck::new(1, 4, true);
        feed(&mut check, &[Number(1), Number(3)]);
        assert!(check.is_complete(|_| 3, 1) && !check.is_complete(|_| 3, 0));
        let mut check = DeltaCheck::new(1, 4, false);
        feed(&mut check, &[Number(1), Number(6)]);
        assert!(check.is_complete(|_| 9, 0));
        check.close(|_| 9, true);
        assert_eq!(check.verdict(), Verdict { left_out: 1, untold: 1, told_too_many: 0 });
    }
}
