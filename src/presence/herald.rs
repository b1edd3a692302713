//! Gateways that share a bus tell each other that they are there, so that those which do not share presence do not both go
//! on: without it events of one's sessions, takeovers and rooms would be nobody else's, and no client would be told.
//!
//! Each says so in the topic of the state, under a key of its own, again and again, and once more when it ends. Law: of
//! two living gateways that do not share presence, the one whose first word stands later in the topic does not start.
//! A gateway that only starts reads that topic, and stops reading when it knows.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::id::ConnAddr;
use crate::limits;
use crate::message::Append;
use crate::ports::{Bus, Completed, Record};
use crate::time::{Monotonic, WallMillis};

/// What a gateway says of itself.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub struct Standing {
    /// Names it among all.
    pub gateway_id: String,
    /// Names its process.
    pub nonce: u64,
    /// Whether its presence is shared with others.
    pub shares: bool,
    /// `false`: it ends.
    pub alive: bool,
}

/// Says that a gateway is there. See the module.
pub struct Herald {
    bus: Box<dyn Bus>,
    standing: Standing,
    due: Monotonic,
    completed: Vec<Completed>,
}

impl Herald {
    /// Nothing is said yet.
    #[must_use]
    pub fn new(bus: Box<dyn Bus>, standing: Standing) -> Self {
        Self { bus, standing, due: Monotonic::ZERO, completed: Vec::new() }
    }

    /// Says it, if it is time; returns when to come again.
    pub fn turn(&mut self, now: Monotonic, wall: WallMillis) -> Monotonic {
        self.bus.completed(&mut self.completed);
        // One that was not accepted is followed by another soon.
        self.completed.clear();
        if now >= self.due {
            let said = self.say(wall);
            self.due = now + if said { limits::KAFKA_HERALD_INTERVAL } else { super::peer::RETRY };
        }
        self.due
    }

    /// The gateway ends.
    pub fn leave(mut self, wall: WallMillis) {
        self.standing.alive = false;
        self.say(wall);
    }

    fn say(&mut self, wall: WallMillis) -> bool {
        let key = format!("{KEY}{}", self.standing.gateway_id).into_bytes().into();
        let value = simd_json::to_vec(&self.standing).expect("plain data is always JSON").into();
        let append = Append { from: ConnAddr::NOBODY, correlation: 0, topic: TOPIC.into(), key, value };
        self.bus.append(wall, &append).is_ok()
    }
}

impl fmt::Debug for Herald {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Herald").field("standing", &self.standing).finish_non_exhaustive()
    }
}

/// What a gateway finds when it starts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It is not known yet; look again.
    Wait,
    /// It may go on.
    Start,
    /// This one is there and does not share presence with it.
    Refused(Standing),
}

/// Listens to other gateways. See the module.
pub struct Neighbours {
    bus: Box<dyn Bus>,
    me: Standing,
    next: u64,
    page: Vec<Record>,
    /// When this gateway's own first word was read.
    placed: Option<Monotonic>,
    /// Those that were there before it, by id, as far as nobody has heard that they ended.
    others: BTreeMap<String, Standing>,
    refused: Option<Standing>,
}

impl Neighbours {
    /// Reads what was said since then, of which all that lives has said something.
    #[must_use]
    pub fn new(bus: Box<dyn Bus>, me: Standing, since: WallMillis) -> Self {
        let (first, _) = bus.range(TOPIC);
        let next = bus.since(TOPIC, since).max(first);
        Self { bus, me, next, page: Vec::new(), placed: None, others: BTreeMap::new(), refused: None }
    }

    /// How long a gateway is silent at most.
    #[must_use]
    pub fn since(wall: WallMillis) -> WallMillis {
        WallMillis(wall.0.saturating_sub(limits::KAFKA_HERALD_SILENCE.as_millis() as u64))
    }

    /// Reads on; what is known then.
    pub fn look(&mut self, now: Monotonic) -> Verdict {
        self.read(now);
        match (&self.refused, self.placed) {
            (Some(other), _) => Verdict::Refused(other.clone()),
            (None, None) => Verdict::Wait,
            (None, Some(_)) if self.others.is_empty() => Verdict::Start,
            (None, Some(placed)) if now >= placed + limits::KAFKA_HERALD_SILENCE => Verdict::Start,
            (None, Some(_)) => Verdict::Wait,
        }
    }

    /// Those that have spoken lately and do not share presence with this one, which need not say anything.
    pub fn others(&mut self, now: Monotonic) -> impl Iterator<Item = &Standing> {
        self.read(now);
        self.others.values()
    }

    fn read(&mut self, now: Monotonic) {
        loop {
            self.next = self.bus.read(TOPIC, self.next, limits::BUS_READ_RECORDS, &mut self.page);
            if self.page.is_empty() {
                return;
            }
            for record in std::mem::take(&mut self.page) {
                // Others keep their state here too.
                if record.key.starts_with(KEY.as_bytes())
                    && let Ok(said) = simd_json::from_slice(&mut record.value.to_vec())
                {
                    self.hear(now, said);
                }
            }
            self.bus.done(TOPIC, self.next);
        }
    }

    fn hear(&mut self, now: Monotonic, said: Standing) {
        if said.gateway_id == self.me.gateway_id {
            // A former life, or another process with this id, which presence has to tell apart.
            if said.nonce == self.me.nonce {
                self.placed.get_or_insert(now);
            }
        } else if !said.alive || said.shares && self.me.shares {
            self.others.remove(&said.gateway_id);
        } else if self.placed.is_none() {
            self.others.insert(said.gateway_id.clone(), said);
        } else if self.others.contains_key(&said.gateway_id) {
            self.refused = Some(said);
        }
    }
}

impl fmt::Debug for Neighbours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Neighbours").field("me", &self.me).field("others", &self.others).finish_non_exhaustive()
    }
}

/// Where it is said: one partition, so one order.
const TOPIC: &str = "ringgate.state";
/// Before the gateway's id, where others have their services' names.
const KEY: &str = "gateway/";
const _: () = assert!(limits::KAFKA_HERALD_INTERVAL.as_millis() * 3 <= limits::KAFKA_HERALD_SILENCE.as_millis());

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::bus::{EmbeddedBus, TopicBounds};
    use crate::router::ThreadWaker;

    struct Gateway {
        herald: Herald,
        neighbours: Neighbours,
    }

    impl Gateway {
        fn new(bus: &EmbeddedBus, id: &str, nonce: u64, shares: bool) -> Self {
            let wake = || Arc::new(ThreadWaker::new(std::thread::current()));
            let me = Standing { gateway_id: id.into(), nonce, shares, alive: true };
            let neighbours = Neighbours::new(Box::new(bus.reader(&[TOPIC], wake())), me.clone(), WallMillis(0));
            Self { herald: Herald::new(Box::new(bus.reader(&[], wake())), me), neighbours }
        }

        fn turn(&mut self, now: Monotonic) -> Verdict {
            self.herald.turn(now, WallMillis(1));
            self.neighbours.look(now)
        }
    }

    fn at(ms: u64) -> Monotonic {
        Monotonic::ZERO + std::time::Duration::from_millis(ms)
    }

    fn bus() -> EmbeddedBus {
        EmbeddedBus::new(1, TopicBounds::default())
    }

    /// A second gateway is refused once the first has shown that it lives, unless both share presence; whichever of them
    /// does not.
    #[test]
    fn the_second_is_refused() {
        for (first_shares, second_shares) in [(false, false), (true, false), (false, true), (true, true)] {
            let bus = bus();
            let mut first = Gateway::new(&bus, "a", 1, first_shares);
            assert_eq!(first.turn(at(0)), Verdict::Start);
            let mut second = Gateway::new(&bus, "b", 2, second_shares);
            let together = first_shares && second_shares;
            assert_eq!(second.turn(at(1)), if together { Verdict::Start } else { Verdict::Wait });
            first.herald.turn(at(3000), WallMillis(1));
            match second.neighbours.look(at(3001)) {
                Verdict::Refused(other) => assert!(!together && other.gateway_id == "a"),
                verdict => assert!(together && verdict == Verdict::Start, "{verdict:?}"),
            }
        }
    }

    /// Of two that start at once the one that spoke first goes on.
    #[test]
    fn one_of_two_goes_on() {
        let bus = bus();
        let (mut a, mut b) = (Gateway::new(&bus, "a", 1, false), Gateway::new(&bus, "b", 2, false));
        b.herald.turn(at(0), WallMillis(1));
        assert_eq!(a.turn(at(0)), Verdict::Wait);
        assert_eq!(b.turn(at(1)), Verdict::Start);
        b.herald.turn(at(3000), WallMillis(1));
        assert!(matches!(a.turn(at(3000)), Verdict::Refused(other) if other.gateway_id == "b"));
        a.herald.leave(WallMillis(1));
    }

    /// Who has ended is not waited for, who crashed is until it has been silent for long enough, and a former life of the
    /// same id not at all.
    #[test]
    fn who_is_gone_is_no_neighbour() {
        let bus = bus();
        let mut ended = Gateway::new(&bus, "a", 1, false);
        ended.turn(at(0));
        ended.herald.leave(WallMillis(1));
        let mut crashed = Gateway::new(&bus, "b", 2, false);
        assert_eq!(crashed.turn(at(1)), Verdict::Start);
        drop(crashed);
        assert_eq!(Gateway::new(&bus, "b", 3, false).turn(at(2)), Verdict::Start);
        let mut next = Gateway::new(&bus, "c", 4, false);
        assert_eq!(next.neighbours.others(at(2)).count(), 1);
        assert_eq!(next.turn(at(2)), Verdict::Wait);
        assert_eq!(next.turn(at(10_001)), Verdict::Wait);
        assert_eq!(next.turn(at(10_002)), Verdict::Start);
    }
}
