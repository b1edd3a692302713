//! The ends of a handle's appends, in the order that the handle promises.
//!
//! Law: every ticket that was given ends once. In order, what ends early waits for those before it; when one has failed,
//! nothing more is admitted, and when all that were given have ended, it and all behind it are told to have failed.

use std::collections::VecDeque;

use crate::message::ErrorCode;
use crate::ports::{Completed, Ticket};

/// See the module.
#[derive(Debug)]
pub struct Tickets {
    /// The next one.
    next: u64,
    order: Order,
}

#[derive(Debug)]
enum Order {
    /// Each is told as it ends.
    None,
    /// Told in order: what has ended of those from `told` on.
    Given { told: u64, ended: VecDeque<Option<Result<(), ErrorCode>>>, failed: bool },
}

impl Tickets {
    /// For a handle of independent senders: as they end.
    pub fn unordered() -> Self {
        Self { next: 1, order: Order::None }
    }

    /// For a handle of one sender: in the order in which they were given.
    pub fn ordered() -> Self {
        Self { next: 1, order: Order::Given { told: 1, ended: VecDeque::new(), failed: false } }
    }

    /// Whether another append may be made.
    pub fn admits(&self) -> bool {
        !matches!(self.order, Order::Given { failed: true, .. })
    }

    /// The ticket of an append.
    pub fn give(&mut self) -> Ticket {
        let ticket = Ticket(self.next);
        self.next += 1;
        if let Order::Given { ended, .. } = &mut self.order {
            ended.push_back(None);
        }
        ticket
    }

    /// The last ticket given is taken back: there was no append.
    pub fn take_back(&mut self) {
        self.next -= 1;
        if let Order::Given { ended, .. } = &mut self.order {
            ended.pop_back();
        }
    }

    /// Takes the ends that came and tells those that may be told.
    pub fn end(&mut self, came: &mut Vec<Completed>, out: &mut Vec<Completed>) {
        let Order::Given { told, ended, failed } = &mut self.order else {
            out.append(came);
            return;
        };
        for Completed { ticket, outcome } in came.drain(..) {
            let at = ticket.0.checked_sub(*told).and_then(|at| usize::try_from(at).ok());
            if let Some(place) = at.and_then(|at| ended.get_mut(at)) {
                *place = Some(outcome);
                *failed |= outcome.is_err();
            }
        }
        while let Some(Some(Ok(()))) = ended.front() {
            ended.pop_front();
            out.push(Completed { ticket: Ticket(*told), outcome: Ok(()) });
            *told += 1;
        }
        if *failed && ended.iter().all(Option::is_some) {
            for _ in ended.drain(..) {
                out.push(Completed { ticket: Ticket(*told), outcome: Err(ErrorCode::Unavailable) });
                *told += 1;
            }
            *failed = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(tickets: &mut Tickets, came: &[(Ticket, bool)]) -> Vec<(u64, bool)> {
        let outcome = |ok: bool| if ok { Ok(()) } else { Err(ErrorCode::Unavailable) };
        let mut came = came.iter().map(|(ticket, ok)| Completed { ticket: *ticket, outcome: outcome(*ok) }).collect();
        let mut out = Vec::new();
        tickets.end(&mut came, &mut out);
        assert!(came.is_empty());
        out.iter().map(|end| (end.ticket.0, end.outcome.is_ok())).collect()
    }

    /// In order: an early end waits for those before it, and each is told once.
    #[test]
    fn ends_wait_for_those_before_them() {
        let mut tickets = Tickets::ordered();
        let given: Vec<_> = (0..3).map(|_| tickets.give()).collect();
        assert_eq!(end(&mut tickets, &[(given[2], true), (given[1], true)]), []);
        assert_eq!(end(&mut tickets, &[(given[0], true)]), [(1, true), (2, true), (3, true)]);
        assert_eq!(end(&mut tickets, &[(given[1], false)]), [], "it was told");
        assert!(tickets.admits());
    }

    /// In order: with one that failed all behind it have, once none of them is under way; until then nothing is admitted.
    #[test]
    fn one_failure_fails_those_behind_it() {
        let mut tickets = Tickets::ordered();
        let given: Vec<_> = (0..4).map(|_| tickets.give()).collect();
        assert_eq!(end(&mut tickets, &[(given[0], true), (given[1], false), (given[2], true)]), [(1, true)]);
        assert!(!tickets.admits());
        assert_eq!(end(&mut tickets, &[(given[3], true)]), [(2, false), (3, false), (4, false)]);
        assert!(tickets.admits());
        assert_eq!(tickets.give(), Ticket(5));
        tickets.take_back();
        assert_eq!(tickets.give(), Ticket(5));
    }

    /// Of independent senders each is told at once.
    #[test]
    fn independent_ends_are_told_as_they_come() {
        let mut tickets = Tickets::unordered();
        let given: Vec<_> = (0..3).map(|_| tickets.give()).collect();
        assert_eq!(end(&mut tickets, &[(given[2], true), (given[0], false)]), [(3, true), (1, false)]);
        assert!(tickets.admits());
    }
}
