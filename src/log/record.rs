//! A record on disk, little-endian:
//!
//! | at | bytes | what |
//! |---|---|---|
//! | 0 | 4 | CRC-32 of all that follows |
//! | 4 | 4 | length of the record, this head included |
//! | 8 | 4 | the segment's mark, random: nothing a client sends can pass for a record |
//! | 12 | 4 | where in the segment its batch begins |
//! | 16 | 2 | topic, in the order of their first records |
//! | 18 | 2 | kind: 0 = record, 1 = the topic's name |
//! | 20 | 4 | length of the key |
//! | 24 | 8 | offset in the topic |
//! | 32 | 8 | timestamp, milliseconds since the Unix epoch |
//! | 40 | | key, then value |

use crate::time::WallMillis;

/// Bytes before the key.
pub const RECORD_HEAD: usize = 40;

/// A record as it is written, without what its place in the segment adds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry<'a> {
    /// What it is.
    pub kind: Kind,
    /// The topic's number.
    pub topic: u16,
    /// Offset in the topic; of a name, 0.
    pub offset: u64,
    /// When it was accepted.
    pub timestamp: WallMillis,
    /// Partition key.
    pub key: &'a [u8],
    /// The envelope; of [`Kind::Topic`], the name.
    pub value: &'a [u8],
}

/// What a record is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A record of a topic.
    Record,
    /// A topic's name, before its first record in the segment in which it appears.
    Topic,
}

/// Why bytes are no record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Flaw {
    /// They end before the record does.
    Short,
    /// Length, mark, kind or key length cannot be.
    Head,
    /// The checksum differs.
    Checksum,
}

impl Flaw {
    /// In words, for an error.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::Short => "a record ends behind the end of the file",
            Self::Head => "no record begins here",
            Self::Checksum => "a record's checksum does not match",
        }
    }
}

/// Appends the record. `batch` is where in the segment its batch begins.
///
/// # Panics
/// If key and value together exceed 4 GiB, which the bus's bounds exclude.
pub fn put(out: &mut Vec<u8>, mark: u32, batch: u32, entry: &Entry<'_>) {
    let from = out.len();
    let length = RECORD_HEAD + entry.key.len() + entry.value.len();
    let length = u32::try_from(length).expect("the bus bounds records far below 4 GiB");
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&mark.to_le_bytes());
    out.extend_from_slice(&batch.to_le_bytes());
    out.extend_from_slice(&entry.topic.to_le_bytes());
    out.extend_from_slice(&u16::from(entry.kind == Kind::Topic).to_le_bytes());
    out.extend_from_slice(&(entry.key.len() as u32).to_le_bytes());
    out.extend_from_slice(&entry.offset.to_le_bytes());
    out.extend_from_slice(&entry.timestamp.0.to_le_bytes());
    out.extend_from_slice(entry.key);
    out.extend_from_slice(entry.value);
    let crc = crc32fast::hash(&out[from + 4..]);
    out[from..from + 4].copy_from_slice(&crc.to_le_bytes());
}

/// Reads the record at the beginning of `bytes`; returns it with its length and its batch's place.
///
/// # Errors
/// What is wrong with the bytes.
pub fn parse(bytes: &[u8], mark: u32) -> Result<(Entry<'_>, usize, u32), Flaw> {
    let head: &[u8; RECORD_HEAD] = bytes.first_chunk().ok_or(Flaw::Short)?;
    let length = word(head, 4) as usize;
    let (kind, key_length) = (half(head, 18), word(head, 20) as usize);
    if word(head, 8) != mark || kind > 1 || RECORD_HEAD + key_length > length {
        return Err(Flaw::Head);
    }
    let record = bytes.get(..length).ok_or(Flaw::Short)?;
    if crc32fast::hash(&record[4..]) != word(head, 0) {
        return Err(Flaw::Checksum);
    }
    let (key, value) = record[RECORD_HEAD..].split_at(key_length);
    let entry = Entry {
        kind: if kind == 1 { Kind::Topic } else { Kind::Record },
        topic: half(head, 16),
        offset: long(head, 24),
        timestamp: WallMillis(long(head, 32)),
        key,
        value,
    };
    Ok((entry, length, word(head, 12)))
}

pub(super) fn half(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

pub(super) fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from(half(bytes, at)) | u32::from(half(bytes, at + 2)) << 16
}

pub(super) fn long(bytes: &[u8], at: usize) -> u64 {
    u64::from(word(bytes, at)) | u64::from(word(bytes, at + 4)) << 32
}
