//! What published payloads carry so that their way can be checked: who sent them, their number, when.

use std::io::Write as _;

/// The head of a published payload: magic, publisher u32, number u64, time u64, little-endian; the rest is filled with
/// the number's low byte.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stamp {
    /// Index of the publisher in the run.
    pub publisher: u32,
    /// From 1, without holes; reliable frames and deltas count apart.
    pub number: u64,
    /// When it was sent, or at a fixed rate should have been; ns on the run's clock.
    pub sent_ns: u64,
}

/// What a payload turned out to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reading {
    /// One of this run's.
    Ours(Stamp),
    /// One of this run's, but its length or filling is wrong.
    Corrupt,
    /// Somebody else's.
    Foreign,
}

impl Stamp {
    /// Bytes of a stamp; no payload of a run is shorter.
    pub const LEN: usize = 24;
    /// Bytes of the longest stamp in JSON.
    pub const JSON_LEN: usize = 97;
    const EVENT: &str = "load.event";
    /// As the default type table names a publisher's deltas for members that speak JSON.
    const DELTA: &str = "world.delta";
    const MAGIC: [u8; 4] = *b"RgL1";

    /// Appends a payload of `len` bytes, at least [`Stamp::LEN`].
    pub fn put(&self, out: &mut Vec<u8>, len: usize) {
        let start = out.len();
        out.extend_from_slice(&Self::MAGIC);
        out.extend_from_slice(&self.publisher.to_le_bytes());
        out.extend_from_slice(&self.number.to_le_bytes());
        out.extend_from_slice(&self.sent_ns.to_le_bytes());
        out.resize(start + len, self.number as u8);
    }

    /// Appends the same as JSON of exactly `len` bytes, at least [`Stamp::JSON_LEN`], with a type that names the class.
    pub fn put_json(&self, out: &mut Vec<u8>, len: usize, delta: bool) {
        let Self { publisher, number, sent_ns } = *self;
        let event_type = if delta { Self::DELTA } else { Self::EVENT };
        let end = out.len() + len;
        // Writing to memory cannot fail.
        let _ = write!(out, r#"{{"type":"{event_type}","p":{publisher},"n":{number},"t":{sent_ns},"x":""#);
        out.resize(end - 2, Self::filling(number));
        out.extend_from_slice(b"\"}");
    }

    /// Reads what [`Stamp::put_json`] wrote, whatever fields the gateway put around it.
    #[must_use]
    #[inline]
    pub fn read_json(payload: &[u8], len: usize) -> Reading {
        let text = std::str::from_utf8(payload).unwrap_or_default();
        let typed = |name: &&str| text.get(TYPE.len()..).is_some_and(|at| at.starts_with(*name));
        let Some(name) = [Self::EVENT, Self::DELTA].into_iter().find(typed) else { return Reading::Foreign };
        Self::fields(text, name, len).map_or(Reading::Corrupt, Reading::Ours)
    }

    fn fields(text: &str, name: &str, len: usize) -> Option<Self> {
        let (_, fields) = text.split_once(",\"p\":")?;
        let (publisher, rest) = fields.split_once(",\"n\":")?;
        let (number, rest) = rest.split_once(",\"t\":")?;
        let (sent_ns, rest) = rest.split_once(",\"x\":\"")?;
        let (filling, _) = rest.split_once('"')?;
        let number = number.parse().ok()?;
        let numbers = fields.len() - rest.len() + ",\"p\":".len();
        let whole = TYPE.len() + name.len() + 1 + numbers + filling.len() + 2;
        let filled = filling.bytes().next_back().is_none_or(|last| last == Self::filling(number));
        (whole == len && filled).then_some(Self {
            publisher: publisher.parse().ok()?,
            number,
            sent_ns: sent_ns.parse().ok()?,
        })
    }

    fn filling(number: u64) -> u8 {
        b'a' + (number % 26) as u8
    }

    /// Reads a payload that should have `len` bytes.
    #[must_use]
    #[inline]
    pub fn read(payload: &[u8], len: usize) -> Reading {
        let Some(head) = payload.first_chunk::<{ Self::LEN }>() else { return Reading::Foreign };
        if head[..4] != Self::MAGIC {
            return Reading::Foreign;
        }
        let word = |at: usize| u64::from_le_bytes(head[at..at + 8].try_into().expect("8 of the head's bytes"));
        let publisher = u32::from_le_bytes([head[4], head[5], head[6], head[7]]);
        let stamp = Self { publisher, number: word(8), sent_ns: word(16) };
        let filled = payload[Self::LEN..].last().is_none_or(|last| *last == stamp.number as u8);
        if payload.len() == len && filled { Reading::Ours(stamp) } else { Reading::Corrupt }
    }
}

/// What JSON begins with.
const TYPE: &str = "{\"type\":\"";

#[cfg(test)]
mod tests {
    use super::*;

    /// JSON is read as it was written, also with the fields that the gateway adds; a changed one is told apart, and so is
    /// somebody else's; the longest stamp fits.
    #[test]
    fn json_stamps_round_trip() {
        let stamp = Stamp { publisher: 3, number: 0x0102, sent_ns: 99 };
        for (len, delta) in [(97, false), (100, true), (1000, false)] {
            let mut text = Vec::new();
            stamp.put_json(&mut text, len, delta);
            assert_eq!((text.len(), Stamp::read_json(&text, len)), (len, Reading::Ours(stamp)));
            let text = String::from_utf8(text).unwrap();
            let sent = text.replace(",\"p\"", ",\"entity_id\":\"7\",\"p\"").replace("\"}", "\",\"at\":[1,2,3]}");
            assert_eq!(Stamp::read_json(sent.as_bytes(), len), Reading::Ours(stamp));
            assert_eq!(Stamp::read_json(sent.as_bytes(), len + 1), Reading::Corrupt);
            assert_eq!(Stamp::read_json(sent.replace("258", "259").as_bytes(), len), Reading::Corrupt);
            assert_eq!(Stamp::read_json(sent.replace("d.", "s.").as_bytes(), len), Reading::Foreign);
        }
        let mut text = Vec::new();
        Stamp { publisher: u32::MAX, number: u64::MAX, sent_ns: u64::MAX }.put_json(&mut text, Stamp::JSON_LEN, true);
        assert_eq!(text.len(), Stamp::JSON_LEN);
    }

    /// A payload is read as it was written, and a cut, overwritten or foreign one is told apart.
    #[test]
    fn stamps_round_trip() {
        let stamp = Stamp { publisher: 3, number: 0x0102, sent_ns: 99 };
        for len in [24, 25, 100] {
            let mut payload = Vec::new();
            stamp.put(&mut payload, len);
            assert_eq!(Stamp::read(&payload, len), Reading::Ours(stamp));
            assert_eq!(Stamp::read(&payload, len + 1), Reading::Corrupt);
            payload[0] ^= 1;
            assert_eq!(Stamp::read(&payload, len), Reading::Foreign);
        }
        let mut payload = Vec::new();
        stamp.put(&mut payload, 30);
        *payload.last_mut().unwrap() ^= 1;
        assert_eq!(Stamp::read(&payload, 30), Reading::Corrupt);
    }
}
