//! What published payloads carry so that their way can be checked: who sent them, their number, when.

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

#[cfg(test)]
mod tests {
    use super::*;

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
