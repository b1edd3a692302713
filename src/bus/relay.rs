//! Who publishes to which rooms, on all gateways that share the bus (DELIVERY §7 "Relay").
//!
//! A gateway tells the others by notices in the relay topic: at once when a publisher's session comes into a room, loses
//! its connection or leaves, and again every third of the resume window while it is there. A notice is valid for a resume
//! window, so a publisher is known for as long as it is attached or may come back, and one whose gateway crashed for no
//! longer than its session can be resumed. What is said of a session's former connection changes nothing.
//!
//! Never a queue: what the bus does not take is made anew when it is tried again.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use foldhash::quality::FixedState;

use crate::id::SessionId;
use crate::limits;
use crate::message::{PublisherState, Publishing};
use crate::protocol::relay;
use crate::time::{Monotonic, WallMillis};

/// See the module.
#[derive(Debug)]
pub struct Publishers {
    window: Duration,
    rooms: HashMap<Arc<str>, Vec<Known>, FixedState>,
    /// Of all rooms.
    count: usize,
    /// This gateway's that are attached.
    own: HashMap<(Arc<str>, SessionId), Own, FixedState>,
    /// When the first of them is to be told again.
    next: Monotonic,
}

/// A publisher in a room.
#[derive(Debug)]
struct Known {
    publishing: Publishing,
    /// As of the notice that is valid for longest.
    until: WallMillis,
}

/// A publisher of this gateway.
#[derive(Debug)]
struct Own {
    publishing: Publishing,
    /// When it is to be told again.
    due: Monotonic,
}

impl Publishers {
    /// Nobody yet; a session may come back within `window`.
    #[must_use]
    pub fn new(window: Duration) -> Self {
        let (rooms, own) = (HashMap::default(), HashMap::default());
        Self { window, rooms, count: 0, own, next: Monotonic::NEVER }
    }

    /// A session of this gateway, which is to be told to all now.
    pub fn of_here(&mut self, now: Monotonic, wall: WallMillis, publishing: Publishing) {
        let key = (Arc::clone(&publishing.room), publishing.session);
        if let PublisherState::Attached { .. } = publishing.state {
            let due = now + self.window / RENEWALS;
            self.next = self.next.min(due);
            self.own.insert(key, Own { publishing: publishing.clone(), due });
        } else if self.own.get(&key).is_some_and(|own| own.publishing.connection == publishing.connection) {
            self.own.remove(&key);
        }
        self.note(wall, wall, publishing);
    }

    /// A notice that was accepted at that time.
    pub fn note(&mut self, wall: WallMillis, accepted: WallMillis, publishing: Publishing) {
        let until = WallMillis(accepted.0.min(wall.0).saturating_add(millis(self.window)));
        if self.count >= limits::RELAY_PUBLISHERS {
            self.sweep(wall);
        }
        let full = self.count >= limits::RELAY_PUBLISHERS;
        let known = self.rooms.get_mut(&publishing.room);
        let known = known.and_then(|known| known.iter_mut().find(|known| known.is_of(publishing.session)));
        match (publishing.state, known) {
            (PublisherState::Attached { .. }, Some(known)) => {
                // A notice that comes back is older than what was noted here.
                let until =
                    if known.publishing.connection == publishing.connection { known.until.max(until) } else { until };
                *known = Known { publishing, until };
            }
            (PublisherState::Attached { .. }, None) if !full => {
                self.count += 1;
                self.rooms.entry(Arc::clone(&publishing.room)).or_default().push(Known { publishing, until });
            }
            (PublisherState::Detached, Some(known)) if known.publishing.connection == publishing.connection => {
                known.until = known.until.max(until);
            }
            (PublisherState::Gone, Some(known)) if known.publishing.connection == publishing.connection => {
                let Publishing { room, session, .. } = &publishing;
                self.retain(room, |known| !known.is_of(*session));
            }
            _ => {}
        }
    }

    /// Whether a publisher is in the room, or may come back to it.
    pub fn has(&mut self, wall: WallMillis, room: &str) -> bool {
        self.retain(room, |known| known.until > wall);
        self.rooms.contains_key(room)
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count
    }

    /// What is to be told now; [`Publishers::untold`] says which of it was not taken.
    pub fn due(&mut self, now: Monotonic, wall: WallMillis) -> Vec<Publishing> {
        if now < self.next {
            return Vec::new();
        }
        let (mut due, mut next) = (Vec::new(), Monotonic::NEVER);
        for own in self.own.values_mut() {
            if own.due <= now {
                own.due = now + self.window / RENEWALS;
                due.push(own.publishing.clone());
            }
            next = next.min(own.due);
        }
        self.next = next;
        // No notice is needed to know one's own.
        due.iter().for_each(|publishing| self.note(wall, wall, publishing.clone()));
        due
    }

    /// The bus has not taken it: it is told again soon, if it still is so.
    pub fn untold(&mut self, now: Monotonic, publishing: &Publishing) {
        if let Some(own) = self.own.get_mut(&(Arc::clone(&publishing.room), publishing.session)) {
            own.due = own.due.min(now + limits::RELAY_NOTICE_AGAIN);
            self.next = self.next.min(own.due);
        }
    }

    /// When [`Publishers::due`] has something.
    #[must_use]
    pub fn next(&self) -> Monotonic {
        self.next
    }

    /// The rooms that are open because a publisher is there.
    pub fn open_rooms(&mut self, wall: WallMillis) -> impl Iterator<Item = &Arc<str>> {
        self.sweep(wall);
        let open = |known: &Known| known.publishing.state == PublisherState::Attached { open: true };
        self.rooms.iter().filter(move |(_, known)| known.iter().any(open)).map(|(room, _)| room)
    }

    fn retain(&mut self, room: &str, keep: impl Fn(&Known) -> bool) {
        let Some(known) = self.rooms.get_mut(room) else { return };
        let before = known.len();
        known.retain(keep);
        self.count -= before - known.len();
        if known.is_empty() {
            self.rooms.remove(room);
        }
    }

    fn sweep(&mut self, wall: WallMillis) {
        let rooms: Vec<Arc<str>> = self.rooms.keys().cloned().collect();
        rooms.iter().for_each(|room| self.retain(room, |known| known.until > wall));
    }
}

/// Which records of a relay partition were read. A gateway's stand there in the order of their numbers, but for those that
/// its client library says again though Kafka has them: it does when another one was refused whose fate it does not know.
#[derive(Default, Debug)]
pub struct Repeats {
    /// By process, its last record.
    last: HashMap<u64, u64, FixedState>,
}

impl Repeats {
    /// Whether a record of this value, read now, was read before.
    pub fn is_repeat(&mut self, value: &[u8]) -> bool {
        let Some((process, number)) = relay::origin(value) else { return false };
        if self.last.len() >= limits::RELAY_PROCESSES && !self.last.contains_key(&process) {
            self.last.clear();
        }
        let last = self.last.entry(process).or_default();
        let is_repeat = number <= *last;
        *last = number.max(*last);
        is_repeat
    }
}

impl Known {
    fn is_of(&self, session: SessionId) -> bool {
        self.publishing.session == session
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Notices of an attached publisher within a window: two may be lost.
const RENEWALS: u32 = 3;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::ConnectionId;

    const WINDOW: Duration = Duration::from_secs(300);

    fn said(connection: u8, state: PublisherState) -> Publishing {
        let (session, connection) = (SessionId([1; 16]), ConnectionId([connection; 16]));
        Publishing { room: "arena".into(), session, connection, state }
    }

    fn attached(connection: u8) -> Publishing {
        said(connection, PublisherState::Attached { open: true })
    }

    fn at(seconds: u64) -> (Monotonic, WallMillis) {
        (Monotonic::ZERO + Duration::from_secs(seconds), WallMillis(seconds * 1000))
    }

    /// Another gateway's publisher is known for a window behind its last notice, and no more when it has left.
    #[test]
    fn a_notice_is_valid_for_a_window() {
        let mut publishers = Publishers::new(WINDOW);
        let note = |publishers: &mut Publishers, at: u64, publishing| {
            publishers.note(WallMillis(at * 1000), WallMillis(at * 1000), publishing);
        };
        note(&mut publishers, 0, attached(1));
        assert!(publishers.has(WallMillis(299_999), "arena") && !publishers.has(WallMillis(0), "other"));
        note(&mut publishers, 100, said(1, PublisherState::Detached));
        assert!(publishers.has(WallMillis(399_999), "arena"));
        assert!(!publishers.has(WallMillis(400_000), "arena"));
        note(&mut publishers, 400, attached(1));
        note(&mut publishers, 401, said(1, PublisherState::Gone));
        assert!(!publishers.has(WallMillis(401_000), "arena"));
        assert_eq!((publishers.count(), publishers.rooms.len()), (0, 0));
    }

    /// What a former connection says when it ends does not concern the one that took its session over.
    #[test]
    fn a_former_connection_says_nothing() {
        let mut publishers = Publishers::new(WINDOW);
        for publishing in [attached(1), attached(2), said(1, PublisherState::Gone), said(1, PublisherState::Detached)] {
            publishers.note(WallMillis(0), WallMillis(0), publishing);
        }
        assert!(publishers.has(WallMillis(1), "arena"));
        publishers.note(WallMillis(1), WallMillis(1), said(2, PublisherState::Gone));
        assert!(!publishers.has(WallMillis(1), "arena"));
    }

    /// One's own publisher is told again every third of the window while it is attached, sooner when the bus took nothing,
    /// and known without any notice.
    #[test]
    fn ones_own_are_told_again() {
        let mut publishers = Publishers::new(WINDOW);
        let (now, wall) = at(0);
        publishers.of_here(now, wall, attached(1));
        assert_eq!(publishers.next(), at(100).0);
        assert_eq!(publishers.due(at(99).0, at(99).1), []);
        assert_eq!(publishers.due(at(100).0, at(100).1), [attached(1)]);
        publishers.untold(at(100).0, &attached(1));
        assert_eq!(publishers.next(), at(101).0);
        assert_eq!(publishers.due(at(101).0, at(101).1), [attached(1)]);
        assert!(publishers.has(at(400).1, "arena"));
        publishers.of_here(at(150).0, at(150).1, said(1, PublisherState::Detached));
        assert_eq!(publishers.due(at(300).0, at(300).1), []);
        publishers.untold(at(300).0, &attached(1));
        assert_eq!(publishers.next(), Monotonic::NEVER);
        assert!(publishers.has(at(449).1, "arena") && !publishers.has(at(450).1, "arena"));
    }

    /// More than the bound are not kept, until others have expired.
    #[test]
    fn publishers_are_bounded() {
        let mut publishers = Publishers::new(WINDOW);
        let one = |n: usize| Publishing { room: format!("r{n}").into(), ..attached(1) };
        for n in 0..=limits::RELAY_PUBLISHERS {
            publishers.note(WallMillis(0), WallMillis(0), one(n));
        }
        assert_eq!(publishers.count(), limits::RELAY_PUBLISHERS);
        assert!(!publishers.has(WallMillis(0), &format!("r{}", limits::RELAY_PUBLISHERS)));
        publishers.note(WallMillis(400_000), WallMillis(400_000), one(7));
        assert_eq!((publishers.count(), publishers.open_rooms(WallMillis(400_000)).count()), (1, 1));
    }

    /// A record of a number that was read, of that process, is a repeat; one that does not say which it is is none. Of
    /// more processes than the bound all are forgotten.
    #[test]
    fn repeats_are_known_by_number() {
        let mut repeats = Repeats::default();
        let mut read = |process: u64, number: u64| {
            let mut value = [0; relay::HEADER_BYTES];
            value[0] = relay::VERSION;
            relay::put_origin(&mut value, process, number);
            repeats.is_repeat(&value)
        };
        assert_eq!([1, 2, 5, 2, 5, 6].map(|number| read(7, number)), [false, false, false, true, true, false]);
        assert!(!read(8, 2) && !read(0, 1) && !read(0, 1), "of others");
        (0..limits::RELAY_PROCESSES as u64).for_each(|process| _ = read(100 + process, 1));
        assert!(!read(7, 6), "forgotten");
        assert!(!repeats.is_repeat(b"short") && repeats.last.len() < limits::RELAY_PROCESSES);
    }

    /// A start takes notices for as old as they are, and none for younger than now.
    #[test]
    fn old_notices_are_old() {
        let mut publishers = Publishers::new(WINDOW);
        publishers.note(WallMillis(350_000), WallMillis(0), attached(1));
        assert!(!publishers.has(WallMillis(350_000), "arena"));
        publishers.note(WallMillis(350_000), WallMillis(999_000), attached(1));
        assert!(!publishers.has(WallMillis(650_000), "arena"));
    }
}
