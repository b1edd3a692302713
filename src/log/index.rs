//! Where records are: per topic one entry for about every 64 KiB of segment, so that memory is a fraction of the log
//! and a reader scans little.
//!
//! Invariants of a topic: entries ascend by offset and by place; the first record of the topic in each segment has one;
//! every record between two entries lies less than [`Index::BLOCK_BYTES`] behind the former.

use std::collections::VecDeque;

use crate::time::WallMillis;

/// See the module. Segments are named by their numbers, topics by theirs.
#[derive(Default, Debug)]
pub struct Index {
    topics: Vec<TopicIndex>,
}

#[derive(Debug)]
struct TopicIndex {
    /// Offset of the next record.
    next: u64,
    entries: VecDeque<Block>,
}

#[derive(Debug)]
struct Block {
    offset: u64,
    segment: u64,
    at: u32,
    /// The newest timestamp of all records up to this block's end; a clock that was set back makes it no smaller.
    newest: WallMillis,
}

impl Index {
    /// How far a reader may have to scan from a block's place.
    pub const BLOCK_BYTES: u32 = 64 << 10;

    /// The next topic, whose next record gets this offset.
    pub fn add_topic(&mut self, next: u64) {
        self.topics.push(TopicIndex { next, entries: VecDeque::new() });
    }

    /// A record is durable at this place. Offsets of a topic come without a gap.
    pub fn note(&mut self, topic: u16, offset: u64, timestamp: WallMillis, segment: u64, at: u32) {
        let topic = &mut self.topics[usize::from(topic)];
        debug_assert_eq!(topic.next, offset);
        topic.next = offset + 1;
        match topic.entries.back_mut() {
            Some(block) if block.segment == segment && at - block.at < Self::BLOCK_BYTES => {
                block.newest = block.newest.max(timestamp);
            }
            last => {
                let newest = last.map_or(timestamp, |block| block.newest.max(timestamp));
                topic.entries.push_back(Block { offset, segment, at, newest });
            }
        }
    }

    /// Offset of the topic's oldest record, and of its next.
    #[must_use]
    pub fn range(&self, topic: u16) -> (u64, u64) {
        let topic = &self.topics[usize::from(topic)];
        (topic.entries.front().map_or(topic.next, |block| block.offset), topic.next)
    }

    /// Segment and place of the block that holds this record; `None` if there is no such record. The record is one of
    /// the topic's that begin less than [`Index::BLOCK_BYTES`] behind the place.
    #[must_use]
    pub fn find(&self, topic: u16, offset: u64) -> Option<(u64, u32)> {
        let topic = &self.topics[usize::from(topic)];
        let behind = topic.entries.partition_point(|block| block.offset <= offset);
        let block = topic.entries.get(behind.checked_sub(1)?)?;
        (offset < topic.next).then_some((block.segment, block.at))
    }

    /// An offset from which on all records not older than `since` are found: their first, or one somewhat before.
    #[must_use]
    pub fn since(&self, topic: u16, since: WallMillis) -> u64 {
        let topic = &self.topics[usize::from(topic)];
        let behind = topic.entries.partition_point(|block| block.newest < since);
        topic.entries.get(behind).map_or(topic.next, |block| block.offset)
    }

    /// Forgets the oldest segment's records.
    pub fn drop_segment(&mut self, segment: u64) {
        for topic in &mut self.topics {
            while topic.entries.front().is_some_and(|block| block.segment <= segment) {
                topic.entries.pop_front();
            }
        }
    }
}
