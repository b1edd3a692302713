//! From the bytes of all segments back to the log: index, numbering, and where a torn tail is cut.
//!
//! Cost: one checksum of every retained byte, nothing of what retention removed.

use std::fmt;
use std::sync::Arc;

use super::record::{RECORD_HEAD, parse, word};
use super::{Entry, Header, Held, Index, Kind, Tail, TopicStart};

/// A log under recovery. Feed it its segments, oldest first.
#[derive(Default, Debug)]
pub struct Recovery {
    log: Option<u64>,
    topics: Vec<TopicStart>,
    index: Index,
    held: Vec<Held>,
    /// Records so far, those before the first segment included.
    records: u64,
    tail: Option<Tail>,
    /// Bytes cut off the last segment.
    torn: u64,
}

/// A recovered log.
#[derive(Debug)]
pub struct Recovered {
    /// The log's id.
    pub log: u64,
    /// Topics by number, with their next offsets.
    pub topics: Vec<TopicStart>,
    /// Where records are.
    pub index: Index,
    /// The segments.
    pub held: Vec<Held>,
    /// Where the next batch goes; the last segment is to be cut to its `bytes`.
    pub tail: Tail,
    /// Bytes of the last segment behind that.
    pub torn: u64,
}

/// What no crash explains, and at which byte of the segment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Damage {
    /// Byte of the file.
    pub at: usize,
    /// What is wrong.
    pub what: String,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "damaged at byte {}: {}", self.at, self.what)
    }
}

impl std::error::Error for Damage {}

impl Recovery {
    /// Takes the next segment; `last` if none follows.
    ///
    /// # Errors
    /// Damage. A torn tail of the last segment is none.
    pub fn segment(&mut self, bytes: &[u8], last: bool) -> Result<(), Damage> {
        let damage = |at, what: &str| Damage { at, what: what.to_owned() };
        let (header, mut at) = Header::parse(bytes).map_err(|flaw| damage(0, &format!("header: {}", flaw.text())))?;
        self.follow(&header)?;
        let mut tail = Tail { bytes: at as u32, ..header.tail() };
        let mut newest = header.created;
        while at < bytes.len() {
            match parse(&bytes[at..], header.mark) {
                Ok((entry, length, _)) => {
                    self.take(&entry, header.number, at).map_err(|what| Damage { at, what })?;
                    tail.records += u64::from(entry.kind == Kind::Record);
                    newest = if tail.records == 1 { entry.timestamp } else { newest.max(entry.timestamp) };
                    at += length;
                }
                Err(flaw) if last => {
                    if let Some(behind) = later_batch(&bytes[at..], header.mark, at) {
                        let what = format!("{}, but byte {behind} begins a record written later", flaw.text());
                        return Err(Damage { at, what });
                    }
                    break;
                }
                Err(flaw) => return Err(damage(at, flaw.text())),
            }
        }
        self.torn = (bytes.len() - at) as u64;
        self.held.push(Held { number: header.number, bytes: at as u64, newest });
        self.tail = Some(Tail { bytes: at as u32, named: self.topics.len(), ..tail });
        Ok(())
    }

    /// The log; `None` if there was no segment.
    #[must_use]
    pub fn finish(self) -> Option<Recovered> {
        let Self { log, topics, index, held, tail, torn, .. } = self;
        Some(Recovered { log: log?, topics, index, held, tail: tail?, torn })
    }

    /// Whether the segment is the one that follows.
    fn follow(&mut self, header: &Header) -> Result<(), Damage> {
        let wrong = |what: String| Err(Damage { at: 0, what });
        match self.log {
            None => {
                self.log = Some(header.log);
                self.records = header.number;
                for topic in &header.topics {
                    self.index.add_topic(topic.next);
                }
                self.topics.clone_from(&header.topics);
            }
            Some(log) if log != header.log => {
                return wrong(format!("it belongs to log {}, the segments before it to log {log}", header.log));
            }
            Some(_) if header.number != self.records => {
                let records = self.records;
                return wrong(format!(
                    "it begins behind record {}, the segments before it end at {records}",
                    header.number
                ));
            }
            Some(_) => {
                // Topics whose first records still waited when it was made come last.
                let known = self.topics.len();
                let fresh = header.topics.get(known..).unwrap_or_default();
                if !header.topics.starts_with(&self.topics) || fresh.iter().any(|topic| topic.next != 0) {
                    return wrong("its topics are not where the segments before it end".into());
                }
                fresh.iter().for_each(|_| self.index.add_topic(0));
                self.topics.extend_from_slice(fresh);
            }
        }
        Ok(())
    }

    fn take(&mut self, entry: &Entry<'_>, segment: u64, at: usize) -> Result<(), String> {
        if entry.kind == Kind::Topic {
            let name: Arc<str> = std::str::from_utf8(entry.value).map_err(|_| "a topic's name is not UTF-8")?.into();
            if usize::from(entry.topic) != self.topics.len() {
                return Err(format!("topic {} is named where topic {} is next", entry.topic, self.topics.len()));
            }
            self.topics.push(TopicStart { name, next: 0 });
            self.index.add_topic(0);
            return Ok(());
        }
        let topic = self.topics.get_mut(usize::from(entry.topic));
        let topic = topic.ok_or_else(|| format!("a record of topic {}, which has no name", entry.topic))?;
        if topic.next != entry.offset {
            return Err(format!("offset {} of {} where {} is next", entry.offset, topic.name, topic.next));
        }
        topic.next += 1;
        self.records += 1;
        self.index.note(entry.topic, entry.offset, entry.timestamp, segment, at as u32);
        Ok(())
    }
}

/// Where behind a flaw a record of a later batch begins, which was written only after the flawed one was durable. The
/// mark is random, so other bytes pass for one once in 2^32 places, and then the checksum tells.
fn later_batch(bytes: &[u8], mark: u32, flaw: usize) -> Option<usize> {
    let mark_bytes = mark.to_le_bytes();
    let mut at = 1;
    while at + RECORD_HEAD <= bytes.len() {
        let found = bytes[at + 8..].windows(4).position(|window| window == mark_bytes)?;
        at += found;
        let batch_is_later = at + RECORD_HEAD <= bytes.len() && word(&bytes[at..], 12) as usize > flaw;
        if batch_is_later && parse(&bytes[at..], mark).is_ok() {
            return Some(flaw + at);
        }
        at += 1;
    }
    None
}
