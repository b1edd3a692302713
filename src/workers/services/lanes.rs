//! The lanes of a worker: the partitions of the command topics, and where it goes on in each.
//!
//! Laws: a lane's records come in its order and once; a partition that is added is read from its beginning; time goes no
//! further than what was read, so that no deadline comes before an input that was there in time; a lane whose numbering
//! becomes another is nobody's guess: whoever reads it opens it again, by what the records say.

use std::sync::Arc;

use super::batch::{COMMAND_TOPICS, Place, Places};
use super::dispatch::GAMES;
use crate::limits;
use crate::ports::{Bus, Durability, Record, partition_name};
use crate::time::WallMillis;

/// A partition of a command topic.
#[derive(Debug)]
pub struct Lane {
    /// What readers call it.
    pub name: Arc<str>,
    /// Of [`COMMAND_TOPICS`].
    pub topic: &'static str,
    partition: u32,
    /// Its numbering when it was opened.
    epoch: u64,
    /// Where the next page begins.
    pub next: u64,
    /// Whether the places written down were of this numbering, so that what else is written down means this one.
    pub same: bool,
    /// Records below are known to be there.
    end: u64,
    /// What was accepted before is read.
    time: WallMillis,
    /// It had records that it did not give.
    stuck: bool,
}

impl Lane {
    /// Names a record of this lane among those of its topic: its offset in the first partition, as it ever was.
    pub fn ticket(&self, offset: u64) -> u64 {
        u64::from(self.partition) << PARTITION_SHIFT | offset & OFFSETS
    }

    /// What is written down of it when everything below `next` is done.
    pub fn place(&self, next: u64) -> (String, Place) {
        (self.name.as_ref().to_owned(), Place { epoch: self.epoch, next })
    }

    /// The offset of a ticket of the topic, if it is of this lane.
    pub fn offset(&self, ticket: u64) -> Option<u64> {
        (self.topic == GAMES && ticket >> PARTITION_SHIFT == u64::from(self.partition)).then_some(ticket & OFFSETS)
    }
}

/// Pages of all lanes, by lane, and the offsets behind them.
pub type Pages = (Vec<u64>, Vec<Vec<Record>>);

/// All lanes, by topic and partition.
#[derive(Default, Debug)]
pub struct Lanes {
    lanes: Vec<Lane>,
    /// Who reads first, so that each lane has its turn when there is more than a batch takes.
    first: usize,
}

impl Lanes {
    /// Where to go on: from the beginning in lanes whose numbering is another, at the end of those that are shorter than
    /// they were: such a log is an older copy, and what comes now is new. Records that are gone were nobody's to keep.
    pub fn open(bus: &impl Bus, places: &Places) -> Self {
        let mut lanes = Self::default();
        lanes.grow(bus);
        for lane in &mut lanes.lanes {
            let place = places.of(&lane.name).filter(|place| place.epoch == lane.epoch);
            let (start, end) = bus.range(&lane.name);
            lane.end = end;
            lane.same = place.is_some_and(|place| place.next <= end);
            let Some(place) = place else { continue };
            lane.next = place.next.min(end).max(start);
            if place.next < start {
                let (topic, from) = (&*lane.name, place.next);
                tracing::error!(
                    topic,
                    from,
                    start,
                    "commands are gone before they were read: the topic keeps too little"
                );
            }
        }
        lanes
    }

    /// Whether what was written down beside these places means the lanes as they are: all that it knows are the same.
    pub fn same(&self, places: &Places) -> bool {
        let known = |lane: &Lane| lane.partition == 0 || places.of(&lane.name).is_some();
        self.lanes.iter().all(|lane| lane.same || !known(lane))
    }

    /// Takes note of partitions that were added; whether there are some.
    pub fn grow(&mut self, bus: &impl Bus) -> bool {
        let before = self.lanes.len();
        for topic in COMMAND_TOPICS {
            let known = self.lanes.iter().filter(|lane| lane.topic == topic).count();
            for partition in u32::try_from(known).unwrap_or(u32::MAX)..bus.partitions(topic).min(PARTITIONS_MAX) {
                let name = partition_name(topic, partition);
                let (epoch, time) = (bus.epoch(&name), WallMillis(0));
                self.lanes.push(Lane {
                    name,
                    topic,
                    partition,
                    epoch,
                    next: 0,
                    same: false,
                    end: 0,
                    time,
                    stuck: false,
                });
            }
        }
        let grown = self.lanes.len() > before;
        if grown {
            let rank = |topic| COMMAND_TOPICS.iter().position(|other| *other == topic);
            self.lanes.sort_by_key(|lane| (rank(lane.topic), lane.partition));
        }
        grown
    }

    /// A page of each lane, as far as a batch takes them.
    ///
    /// # Errors
    /// The lane whose numbering has become another.
    pub fn read(&mut self, bus: &mut impl Bus, wall: WallMillis) -> Result<Pages, Arc<str>> {
        let count = self.lanes.len();
        let mut pages: Pages = (self.nexts(), vec![Vec::new(); count]);
        let (mut left, begin) = (limits::SERVICE_TURN_RECORDS, self.first);
        for at in (0..count).map(|n| (begin + n) % count) {
            if left == 0 {
                self.first = at;
                break;
            }
            let (lane, page) = (&mut self.lanes[at], &mut pages.1[at]);
            let most = left.min(limits::SERVICE_BATCH_RECORDS);
            // Our own gives all that it has; what comes from now on may be missing in the page.
            let (start, own) = if is_own(bus) { bus.range(&lane.name) } else { (0, 0) };
            let to = bus.read(&lane.name, lane.next, most, page);
            if to != lane.next && bus.epoch(&lane.name) != lane.epoch {
                return Err(Arc::clone(&lane.name));
            }
            left -= page.len().min(left);
            lane.stuck = page.len() < most && to.max(start) < own;
            // Those of a remote bus come when they come.
            let is_behind = page.len() == most || to < lane.end.max(own);
            lane.time = match page.last() {
                Some(last) if is_behind => last.timestamp,
                None if is_behind => lane.time,
                _ => wall,
            };
            pages.0[at] = to;
        }
        Ok(pages)
    }

    /// What was accepted before is read, in every lane.
    pub fn time(&self) -> WallMillis {
        self.lanes.iter().map(|lane| lane.time).min().unwrap_or(WallMillis(0))
    }

    /// Asks again how far the lanes go: after a silence of the bus, what came during it is read before time goes on.
    pub fn look_ahead(&mut self, bus: &impl Bus) {
        for lane in &mut self.lanes {
            lane.end = bus.range(&lane.name).1;
        }
    }

    /// A lane of this process's own bus that has records and gives none, which is a failure of its disk.
    pub fn unreadable(&self) -> Option<&Lane> {
        self.lanes.iter().find(|lane| lane.stuck)
    }

    /// Where each goes on.
    pub fn nexts(&self) -> Vec<u64> {
        self.lanes.iter().map(|lane| lane.next).collect()
    }

    /// Everything below is carried out.
    pub fn advance(&mut self, to: &[u64]) {
        for (lane, to) in self.lanes.iter_mut().zip(to) {
            lane.next = *to;
        }
    }

    /// The lane of this number.
    pub fn at(&self, at: usize) -> &Lane {
        &self.lanes[at]
    }

    /// The lanes, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Lane> {
        self.lanes.iter()
    }

    /// The order in which a batch's records are carried out: topic by topic; of the partitions of one, the earliest
    /// first, each in its own order. The same for the same records.
    pub fn order(&self, records: &[Vec<Record>]) -> Vec<(usize, usize)> {
        let mut order = Vec::with_capacity(records.iter().map(Vec::len).sum());
        for topic in COMMAND_TOPICS {
            let of_topic: Vec<usize> = (0..self.lanes.len()).filter(|at| self.lanes[*at].topic == topic).collect();
            let mut heads = vec![0; of_topic.len()];
            let head = |heads: &[usize], n: usize| Some(records.get(of_topic[n])?.get(heads[n])?.timestamp);
            while let Some((_, n)) = (0..heads.len()).filter_map(|n| Some((head(&heads, n)?, n))).min() {
                order.push((of_topic[n], heads[n]));
                heads[n] += 1;
            }
        }
        order
    }
}

/// Whether the bus is this process's own, which gives at once what it has.
fn is_own(bus: &impl Bus) -> bool {
    bus.durability() != Durability::Kafka
}

/// Bits of a ticket that are its offset: a partition of a million commands a second fills them in nine years.
const PARTITION_SHIFT: u32 = 48;
const OFFSETS: u64 = (1 << PARTITION_SHIFT) - 1;
/// What fits beside them.
const PARTITIONS_MAX: u32 = 1 << (u64::BITS - PARTITION_SHIFT);

#[cfg(test)]
mod tests {
    use super::super::batch::{Places, Plan};
    use super::super::dispatch::{CHAT, PRESENCE};
    use super::super::tests::rig::Shared;
    use super::*;

    fn bus(more: u32) -> Shared {
        let shared = Shared::default();
        shared.0.lock().unwrap().more_partitions = more;
        shared
    }

    fn put(bus: &Shared, topic: &str, partition: u32, at: u64) {
        bus.0.lock().unwrap().put(&partition_name(topic, partition), at, *b"x");
    }

    /// A ticket leads back to its partition and offset, and in the first partition it is the offset, as it ever was.
    #[test]
    fn tickets_name_partition_and_offset() {
        let lanes = Lanes::open(&bus(2), &Places::default());
        let games: Vec<&Lane> = lanes.iter().filter(|lane| lane.topic == GAMES).collect();
        assert_eq!((games.len(), games[0].ticket(7)), (3, 7));
        for (n, lane) in games.iter().enumerate() {
            let found = |other: &&&Lane| other.offset(lane.ticket(7)) == Some(7);
            assert_eq!(games.iter().filter(found).count(), 1);
            assert_eq!(games[n].offset(lane.ticket(7)), Some(7));
        }
        assert_eq!(lanes.iter().next().map(|lane| (lane.topic, lane.offset(7))), Some((PRESENCE, None)));
    }

    /// Records are done topic by topic; those of a topic's partitions in the order of their times, each in its own order.
    #[test]
    fn partitions_are_merged_by_time() {
        let mut bus = bus(1);
        for (topic, partition, at) in [(GAMES, 0, 10), (GAMES, 1, 5), (GAMES, 0, 20), (GAMES, 1, 15), (GAMES, 1, 1)] {
            put(&bus, topic, partition, at);
        }
        put(&bus, PRESENCE, 1, 99);
        let mut lanes = Lanes::open(&bus, &Places::default());
        let (_, records) = lanes.read(&mut bus, WallMillis(100)).unwrap();
        let order = lanes.order(&records);
        let told: Vec<_> =
            order.iter().map(|(lane, at)| (&*lanes.at(*lane).name, records[*lane][*at].offset)).collect();
        let games = "games.commands/1";
        let expected = [("gateway.presence/1", 0), (games, 0), (GAMES, 0), (games, 1), (games, 2), (GAMES, 1)];
        assert_eq!(told, expected);
    }

    /// Time stands where the lane that is furthest behind has been read to, and is now when none is behind; beyond what a
    /// batch takes, lanes take turns.
    #[test]
    fn time_waits_for_the_slowest() {
        let mut bus = bus(9);
        let count = 2 * limits::SERVICE_BATCH_RECORDS as u64;
        for partition in 0..10 {
            (0..count).for_each(|at| put(&bus, GAMES, partition, 1000 + 10 * at + u64::from(partition)));
        }
        let mut lanes = Lanes::open(&bus, &Places::default());
        let (mut seen, mut turns, mut time) = (0, 0, WallMillis(0));
        while seen < 10 * count {
            let (to, records) = lanes.read(&mut bus, WallMillis(1_000_000)).unwrap();
            let taken: usize = records.iter().map(Vec::len).sum();
            assert!((1..=limits::SERVICE_TURN_RECORDS).contains(&taken));
            assert!(lanes.time() >= time, "it does not go back");
            time = lanes.time();
            let left = lanes.iter().zip(&to).filter(|(lane, to)| lane.topic == GAMES && **to < count);
            let due = left.map(|(lane, to)| 1000 + 10 * *to + u64::from(lane.partition)).min();
            assert!(due.is_none_or(|due| time.0 <= due), "{time:?} is beyond {due:?}, which is not read");
            lanes.advance(&to);
            (seen, turns) = (seen + taken as u64, turns + 1);
        }
        assert!(turns >= 5);
        lanes.read(&mut bus, WallMillis(1_000_000)).unwrap();
        assert_eq!(lanes.time(), WallMillis(1_000_000));
    }

    /// Partitions that are added are read from their beginning, and make nothing of what was written down void.
    #[test]
    fn added_partitions_are_read_from_their_beginning() {
        let mut bus = bus(0);
        put(&bus, GAMES, 0, 1);
        let mut lanes = Lanes::open(&bus, &Places::default());
        let (to, _) = lanes.read(&mut bus, WallMillis(1)).unwrap();
        let plan = Plan::new(WallMillis(1), Vec::new(), &lanes, &to);
        lanes.advance(&to);
        let places = Places::at(&lanes, WallMillis(1), &lanes.nexts());
        bus.0.lock().unwrap().more_partitions = 1;
        put(&bus, GAMES, 1, 2);
        assert!(lanes.grow(&bus) && !lanes.grow(&bus));
        let opened = Lanes::open(&bus, &places);
        assert!(opened.same(&places));
        let named = |lanes: &Lanes| lanes.iter().map(|lane| (lane.name.to_string(), lane.next)).collect::<Vec<_>>();
        assert_eq!(named(&lanes), named(&opened));
        assert_eq!(opened.iter().filter(|lane| lane.topic == GAMES).map(|lane| lane.next).collect::<Vec<_>>(), [1, 0]);
        let earlier = Lanes::open(&bus, &Places::default());
        assert_eq!(plan.ends(&earlier).unwrap().iter().sum::<u64>(), 1, "a plan from before means what it meant");
    }

    /// What a worker wrote down before there were partitions still reads, and so does what it writes with several; a plan
    /// of partitions that are not there is refused.
    #[test]
    fn earlier_records_read() {
        let read = |text: &str| simd_json::from_slice::<Plan>(&mut text.as_bytes().to_vec()).unwrap();
        let earlier = read(r#"{"until":5,"outcomes":[],"to":[1,2,3,4]}"#);
        let bus = bus(1);
        let lanes = Lanes::open(&bus, &Places::default());
        assert_eq!(earlier.ends(&lanes).unwrap(), [1, 0, 2, 0, 3, 0, 4, 0]);
        let text = r#"{"until":5,"outcomes":[],"to":[1,2,3,4],"more":[["chat.commands/1",6]]}"#;
        let several = read(text);
        assert_eq!(several.ends(&lanes).unwrap(), [1, 0, 2, 0, 3, 6, 4, 0]);
        assert_eq!(simd_json::to_string(&several).unwrap(), text);
        assert_eq!(several.ends(&Lanes::open(&super::tests::bus(0), &Places::default())), None);
        let mut places = r#"{"until":5,"topics":{"chat.commands":{"epoch":1,"next":0}}}"#.as_bytes().to_vec();
        let places: Places = simd_json::from_slice(&mut places).unwrap();
        assert_eq!(places.of(CHAT).map(|place| place.next), Some(0));
        assert!(!lanes.same(&places), "the others have no place");
    }
}
