//! What a frame is (RFC 6455 §5.2).

/// The opcodes that RFC 6455 defines; all others are reserved.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum Opcode {
    /// Goes on with the fragmented message.
    Continuation = 0,
    /// First or only frame of a UTF-8 message.
    Text = 1,
    /// First or only frame of a message of any bytes.
    Binary = 2,
    /// The last frame a side sends.
    Close = 8,
    /// Asks for a pong with the same payload.
    Ping = 9,
    /// Answers a ping, or comes unasked.
    Pong = 10,
}

impl Opcode {
    /// The opcode of a header's low four bits; `None` if it is reserved.
    #[must_use]
    #[inline]
    pub fn from_wire(bits: u8) -> Option<Self> {
        Some(match bits {
            0 => Self::Continuation,
            1 => Self::Text,
            2 => Self::Binary,
            8 => Self::Close,
            9 => Self::Ping,
            10 => Self::Pong,
            _ => return None,
        })
    }

    /// Whether it is a control frame: never fragmented, at most 125 bytes, allowed between fragments (§5.5).
    #[must_use]
    #[inline]
    pub fn is_control(self) -> bool {
        self as u8 & 8 != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Exactly the six defined opcodes are read, each from its own number.
    #[test]
    fn opcodes_are_their_wire_numbers() {
        let known: Vec<u8> = (0..=255).filter(|&bits| Opcode::from_wire(bits).is_some()).collect();
        assert_eq!(known, [0, 1, 2, 8, 9, 10]);
        for bits in known {
            let opcode = Opcode::from_wire(bits).unwrap();
            assert_eq!(opcode as u8, bits);
            assert_eq!(opcode.is_control(), bits >= 8);
        }
    }
}
