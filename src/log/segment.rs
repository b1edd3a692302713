//! A segment's header, and its tail while it is written.
//!
//! Header, little-endian: magic (8), CRC-32 of all that follows (4), length (4), the log's id (8), records before this
//! segment (8), mark (4), number of topics (4), time of its making (8); then per topic its next offset (8), the name's
//! length (2), the name. It is written, synced and only then given its name, so a segment never has half of one.

use std::sync::Arc;

use super::record::{Entry, Kind, half, long, put, word};
use super::{Flaw, Item};
use crate::time::WallMillis;

/// What a segment begins with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Header {
    /// The log's id: the epoch of its positions, < 2^53.
    pub log: u64,
    /// Records of the log before this segment; names the file.
    pub number: u64,
    /// Random per segment; every record of it has it.
    pub mark: u32,
    /// When it was made.
    pub created: WallMillis,
    /// All topics so far, by number.
    pub topics: Vec<TopicStart>,
}

/// A topic where a segment begins.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TopicStart {
    /// Its name.
    pub name: Arc<str>,
    /// Offset of its next record.
    pub next: u64,
}

/// Where the next batch goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tail {
    /// The segment's number.
    pub number: u64,
    /// Its mark.
    pub mark: u32,
    /// Bytes it has.
    pub bytes: u32,
    /// Records it has.
    pub records: u64,
    /// Topics whose names it has.
    pub named: usize,
    /// When it was made.
    pub created: WallMillis,
}

impl Header {
    /// Its bytes.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.extend_from_slice(&[0; 8]);
        out.extend_from_slice(&self.log.to_le_bytes());
        out.extend_from_slice(&self.number.to_le_bytes());
        out.extend_from_slice(&self.mark.to_le_bytes());
        out.extend_from_slice(&(self.topics.len() as u32).to_le_bytes());
        out.extend_from_slice(&self.created.0.to_le_bytes());
        for topic in &self.topics {
            out.extend_from_slice(&topic.next.to_le_bytes());
            let length = u16::try_from(topic.name.len()).expect("the bus bounds topic names to TOPIC_BYTES_MAX");
            out.extend_from_slice(&length.to_le_bytes());
            out.extend_from_slice(topic.name.as_bytes());
        }
        let length = out.len() as u32;
        out[12..16].copy_from_slice(&length.to_le_bytes());
        let crc = crc32fast::hash(&out[12..]);
        out[8..12].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// Reads the header at the beginning of a segment; returns it with its length.
    ///
    /// # Errors
    /// What is wrong with the bytes.
    pub fn parse(bytes: &[u8]) -> Result<(Self, usize), Flaw> {
        if !bytes.starts_with(MAGIC) || bytes.len() < FIXED {
            return Err(Flaw::Head);
        }
        let length = word(bytes, 12) as usize;
        let bytes = bytes.get(..length).filter(|bytes| bytes.len() >= FIXED).ok_or(Flaw::Short)?;
        if crc32fast::hash(&bytes[12..]) != word(bytes, 8) {
            return Err(Flaw::Checksum);
        }
        let (mut topics, mut rest) = (Vec::new(), &bytes[FIXED..]);
        for _ in 0..word(bytes, 36) {
            let (head, behind) = rest.split_at_checked(10).ok_or(Flaw::Head)?;
            let (name, behind) = behind.split_at_checked(usize::from(half(head, 8))).ok_or(Flaw::Head)?;
            let name = std::str::from_utf8(name).map_err(|_| Flaw::Head)?.into();
            topics.push(TopicStart { name, next: long(head, 0) });
            rest = behind;
        }
        let created = WallMillis(long(bytes, 40));
        let header = Self { log: long(bytes, 16), number: long(bytes, 24), mark: word(bytes, 32), created, topics };
        Ok((header, length))
    }

    /// The tail of a segment that has nothing but this header.
    #[must_use]
    pub fn tail(&self) -> Tail {
        Tail {
            number: self.number,
            mark: self.mark,
            bytes: self.bytes().len() as u32,
            records: 0,
            named: self.topics.len(),
            created: self.created,
        }
    }
}

impl Tail {
    /// Appends the batch's bytes, names of new topics first, and each record's place in the segment. `names` are all
    /// topics by number. Returns the tail once these bytes are durable.
    #[must_use]
    pub fn encode<T>(self, items: &[Item<T>], names: &[Arc<str>], out: &mut Vec<u8>, places: &mut Vec<u32>) -> Self {
        let (from, batch) = (out.len(), self.bytes);
        let last = items.iter().map(|item| usize::from(item.topic) + 1).max().unwrap_or(0);
        for (topic, name) in names.iter().enumerate().take(last).skip(self.named) {
            let timestamp = items[0].record.timestamp;
            let (kind, topic, value) = (Kind::Topic, topic as u16, name.as_bytes());
            put(out, self.mark, batch, &Entry { kind, topic, offset: 0, timestamp, key: b"", value });
        }
        for Item { topic, record, .. } in items {
            places.push(batch + (out.len() - from) as u32);
            let entry = Entry {
                kind: Kind::Record,
                topic: *topic,
                offset: record.offset,
                timestamp: record.timestamp,
                key: &record.key,
                value: &record.value,
            };
            put(out, self.mark, batch, &entry);
        }
        let bytes = batch + (out.len() - from) as u32;
        Self { bytes, records: self.records + items.len() as u64, named: self.named.max(last), ..self }
    }
}

/// The last byte counts formats.
const MAGIC: &[u8; 8] = b"RGATLOG\x01";
/// Bytes before the topics.
const FIXED: usize = 48;
