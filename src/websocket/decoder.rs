//! Frames in, messages out (RFC 6455 §5), over input split anywhere.
//!
//! Law: call [`Decoder::next`] until it returns `None`; only then is the input consumed and its buffer free again.
//!
//! Invariants: `valid_to <= message_len <= buffer.len() <= message_len + 125`, `message_len + remaining <= max_message`
//! for data frames. The buffer holds first the fragmented message, then a control frame that came in parts between its
//! fragments; it grows by bytes that have arrived, never by a length that was announced, and an idle decoder owns none.
//! It never answers a ping or a close: that is the caller's.

use std::fmt;

use crate::close::CloseReason;
use crate::websocket::{Opcode, apply_mask, valid_prefix};

/// Which side decodes: it decides whether frames must be masked (§5.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// Every frame must be masked.
    Server,
    /// No frame may be masked.
    Client,
}

/// A whole message or control frame, unmasked, in the caller's input or in the decoder's buffer.
#[derive(PartialEq, Eq, Debug)]
pub enum Message<'a> {
    /// Valid UTF-8.
    Text(&'a mut [u8]),
    /// Any bytes.
    Binary(&'a mut [u8]),
    /// At most 125 bytes; wants a pong with the same.
    Ping(&'a mut [u8]),
    /// At most 125 bytes.
    Pong(&'a mut [u8]),
    /// The peer's close code, valid by §7.4, and text, if it sent a code. All input behind it is ignored.
    Close(Option<(u16, &'a str)>),
}

/// What the peer did wrong. The connection must close with [`DecodeError::reason`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DecodeError {
    /// A reserved bit is set though no extension was negotiated (§5.2).
    ReservedBits,
    /// The opcode is not one of §5.2.
    ReservedOpcode(u8),
    /// A client's frame is not masked, or a server's is (§5.1).
    Masking,
    /// A control frame is fragmented (§5.5).
    FragmentedControl,
    /// A control frame announces more than 125 bytes (§5.5).
    LongControl,
    /// The length is not in its shortest form, or has its top bit set (§5.2).
    Length,
    /// A continuation without a message to continue (§5.4).
    UnexpectedContinuation,
    /// A new message before the fragmented one ended (§5.4).
    UnfinishedMessage,
    /// A close payload of one byte, which is no code (§5.5.1).
    ClosePayload,
    /// A close code that must not be sent (§7.4).
    CloseCode(u16),
    /// Text, or the text of a close, is not UTF-8 (§8.1).
    InvalidUtf8,
    /// The message, with the frame just announced, exceeds the decoder's bound.
    TooBig,
}

impl DecodeError {
    /// How the connection ends: `Protocol` 1002, `InvalidUtf8` 1007 or `TooBig` 1009.
    #[must_use]
    pub fn reason(self) -> CloseReason {
        match self {
            Self::InvalidUtf8 => CloseReason::InvalidUtf8,
            Self::TooBig => CloseReason::TooBig,
            _ => CloseReason::Protocol,
        }
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ReservedBits => f.write_str("a reserved bit is set, but no extension was negotiated"),
            Self::ReservedOpcode(opcode) => write!(f, "opcode {opcode} is reserved"),
            Self::Masking => f.write_str("a client must mask its frames, a server must not"),
            Self::FragmentedControl => f.write_str("a control frame is fragmented"),
            Self::LongControl => f.write_str("a control frame has more than 125 bytes"),
            Self::Length => f.write_str("the payload length is not in its shortest form"),
            Self::UnexpectedContinuation => f.write_str("a continuation frame continues no message"),
            Self::UnfinishedMessage => f.write_str("a message begins before the fragmented one has ended"),
            Self::ClosePayload => f.write_str("a close frame has a payload of one byte"),
            Self::CloseCode(code) => write!(f, "close code {code} must not be sent"),
            Self::InvalidUtf8 => f.write_str("text is not UTF-8"),
            Self::TooBig => f.write_str("the message is larger than allowed"),
        }
    }
}

impl std::error::Error for DecodeError {}

/// Reads one direction of one connection; see the module for its law and memory.
#[derive(Debug)]
pub struct Decoder {
    buffer: Vec<u8>,
    max_message: u32,
    /// Payload bytes of the current frame that have not arrived.
    remaining: u32,
    /// Bytes of the fragmented message at the beginning of `buffer`.
    message_len: u32,
    /// Text: how many bytes of the message are whole characters.
    valid_to: u32,
    /// Mask of the current frame, rotated to the next byte; zero for a client.
    key: [u8; 4],
    /// The first `header_len` bytes of a header that has not arrived whole.
    header: [u8; HEADER_BYTES_MAX],
    header_len: u8,
    phase: Phase,
    role: Role,
    /// `Text` or `Binary` while frames of such a message are collected in `buffer`.
    message: Option<Opcode>,
    /// Of the current frame, meaningful in `Phase::Payload`.
    opcode: Opcode,
    fin: bool,
}

impl Decoder {
    /// A decoder between frames. `max_message` bounds a message's payload, in bytes; 4 GiB at most.
    #[must_use]
    pub fn new(role: Role, max_message: usize) -> Self {
        Self {
            buffer: Vec::new(),
            max_message: u32::try_from(max_message).unwrap_or(u32::MAX),
            remaining: 0,
            message_len: 0,
            valid_to: 0,
            key: [0; 4],
            header: [0; HEADER_BYTES_MAX],
            header_len: 0,
            phase: Phase::Header,
            role,
            message: None,
            opcode: Opcode::Continuation,
            fin: false,
        }
    }

    /// The next message of `input[*at..]`, moving `*at` behind what was read; `None` = all of it is consumed. The input
    /// is unmasked in place. Behind a close frame everything is consumed and ignored.
    ///
    /// # Errors
    /// The first breach of the protocol; then every further call returns it again.
    #[inline]
    pub fn next<'a>(&'a mut self, input: &'a mut [u8], at: &mut usize) -> Result<Option<Message<'a>>, DecodeError> {
        let read = match self.read(input, at) {
            Ok(None) => return Ok(None),
            Ok(Some(read)) => read,
            Err(error) => return Err(self.fail(error)),
        };
        let payload = match read.place {
            Place::Input => &mut input[read.from..read.to],
            Place::Buffer => &mut self.buffer[read.from..read.to],
        };
        Ok(Some(match read.opcode {
            Opcode::Text => Message::Text(payload),
            Opcode::Ping => Message::Ping(payload),
            Opcode::Pong => Message::Pong(payload),
            // Judged by `read`, so that a bad one fails the decoder.
            Opcode::Close => Message::Close(read_close(payload)?),
            _ => Message::Binary(payload),
        }))
    }

    /// Bytes of unfinished messages and frames that the decoder holds; 0 = it owns no memory, provided that the last
    /// [`Decoder::next`] returned `None`.
    #[must_use]
    pub fn buffered_bytes(&self) -> usize {
        self.buffer.len()
    }

    /// Whether the last input ended between messages.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        matches!(self.phase, Phase::Header | Phase::Delivered) && self.header_len == 0 && self.message.is_none()
    }

    #[inline]
    fn read(&mut self, input: &mut [u8], at: &mut usize) -> Result<Option<Read>, DecodeError> {
        match self.phase {
            Phase::Header | Phase::Payload => {}
            Phase::Delivered => self.release(),
            Phase::Closed => {
                self.buffer = Vec::new();
                *at = input.len();
                return Ok(None);
            }
            Phase::Failed(error) => return Err(error),
        }
        loop {
            if self.phase == Phase::Header {
                let Some(frame) = self.take_header(input, at)? else { return Ok(None) };
                let whole = frame.len as usize <= input.len() - *at;
                if whole && frame.fin && (frame.opcode.is_control() || self.message.is_none()) {
                    return self.take_whole(frame, input, at).map(Some);
                }
                self.begin(frame);
            }
            if !self.take_payload(input, at)? {
                return Ok(None);
            }
            if let Some(read) = self.end_frame()? {
                return Ok(Some(read));
            }
        }
    }

    /// The path of nearly every frame: it lies whole in the input and stays there.
    #[inline]
    fn take_whole(&mut self, frame: Frame, input: &mut [u8], at: &mut usize) -> Result<Read, DecodeError> {
        let (from, to) = (*at, *at + frame.len as usize);
        *at = to;
        let payload = &mut input[from..to];
        if self.role == Role::Server {
            apply_mask(payload, frame.key, 0);
        }
        match frame.opcode {
            Opcode::Text if valid_prefix(payload) != Ok(payload.len()) => return Err(DecodeError::InvalidUtf8),
            Opcode::Close => {
                read_close(payload)?;
                self.phase = Phase::Closed;
            }
            _ => {}
        }
        Ok(Read { opcode: frame.opcode, place: Place::Input, from, to })
    }

    /// The next frame's header, from the input alone or together with the part of it that came before.
    #[inline]
    fn take_header(&mut self, input: &[u8], at: &mut usize) -> Result<Option<Frame>, DecodeError> {
        let rest = &input[*at..];
        if self.header_len != 0 {
            return self.complete_header(rest, at);
        }
        if let Some((frame, len)) = self.parse_header(rest)? {
            *at += len;
            return Ok(Some(frame));
        }
        self.header[..rest.len()].copy_from_slice(rest);
        self.header_len = rest.len() as u8;
        *at += rest.len();
        Ok(None)
    }

    #[cold]
    fn complete_header(&mut self, rest: &[u8], at: &mut usize) -> Result<Option<Frame>, DecodeError> {
        let had = usize::from(self.header_len);
        let take = rest.len().min(HEADER_BYTES_MAX - had);
        self.header[had..had + take].copy_from_slice(&rest[..take]);
        let Some((frame, len)) = self.parse_header(&self.header[..had + take])? else {
            self.header_len = (had + take) as u8;
            *at += take;
            return Ok(None);
        };
        self.header_len = 0;
        *at += len - had;
        Ok(Some(frame))
    }

    /// Parses and judges a header as far as it is there: a wrong first byte fails before the second comes. Less than
    /// `HEADER_BYTES_MAX` bytes were given if it needs more.
    #[inline]
    fn parse_header(&self, bytes: &[u8]) -> Result<Option<(Frame, usize)>, DecodeError> {
        let Some(&first) = bytes.first() else { return Ok(None) };
        if first & 0x70 != 0 {
            return Err(DecodeError::ReservedBits);
        }
        let opcode = Opcode::from_wire(first & 0x0f).ok_or(DecodeError::ReservedOpcode(first & 0x0f))?;
        let fin = first & 0x80 != 0;
        self.check_sequence(opcode, fin)?;
        let Some(&second) = bytes.get(1) else { return Ok(None) };
        let masked = second & 0x80 != 0;
        if masked != (self.role == Role::Server) {
            return Err(DecodeError::Masking);
        }
        if opcode.is_control() && second & 0x7f > 125 {
            return Err(DecodeError::LongControl);
        }
        let (len, len_end) = match second & 0x7f {
            126 => {
                let Some(&[_, _, a, b]) = bytes.first_chunk() else { return Ok(None) };
                (u64::from(u16::from_be_bytes([a, b])), 4)
            }
            127 => {
                let Some(&[_, _, ref len @ ..]) = bytes.first_chunk::<10>() else { return Ok(None) };
                (u64::from_be_bytes(*len), 10)
            }
            short => (u64::from(short), 2),
        };
        if (len_end == 4 && len < 126) || (len_end == 10 && !(1 << 16..1 << 63).contains(&len)) {
            return Err(DecodeError::Length);
        }
        if !opcode.is_control() && len > u64::from(self.max_message - self.message_len) {
            return Err(DecodeError::TooBig);
        }
        if !masked {
            return Ok(Some((Frame { opcode, fin, len: len as u32, key: [0; 4] }, len_end)));
        }
        let key = bytes[len_end..].first_chunk().copied();
        Ok(key.map(|key| (Frame { opcode, fin, len: len as u32, key }, len_end + 4)))
    }

    /// Fragments may only be interrupted by whole control frames (§5.4).
    #[inline]
    fn check_sequence(&self, opcode: Opcode, fin: bool) -> Result<(), DecodeError> {
        if opcode.is_control() {
            return if fin { Ok(()) } else { Err(DecodeError::FragmentedControl) };
        }
        match (opcode == Opcode::Continuation, self.message.is_some()) {
            (true, false) => Err(DecodeError::UnexpectedContinuation),
            (false, true) => Err(DecodeError::UnfinishedMessage),
            _ => Ok(()),
        }
    }

    /// A frame that is not whole in the input, or a fragment: its payload goes through the buffer.
    fn begin(&mut self, frame: Frame) {
        self.phase = Phase::Payload;
        self.opcode = frame.opcode;
        self.fin = frame.fin;
        self.key = frame.key;
        self.remaining = frame.len;
        if matches!(frame.opcode, Opcode::Text | Opcode::Binary) {
            self.message = Some(frame.opcode);
        }
    }

    /// Moves what the input has of the current frame into the buffer; whether the frame is complete.
    fn take_payload(&mut self, input: &[u8], at: &mut usize) -> Result<bool, DecodeError> {
        let take = (input.len() - *at).min(self.remaining as usize);
        let from = self.buffer.len();
        self.buffer.extend_from_slice(&input[*at..*at + take]);
        *at += take;
        self.remaining -= take as u32;
        if self.role == Role::Server {
            apply_mask(&mut self.buffer[from..], self.key, 0);
            self.key.rotate_left(take & 3);
        }
        if !self.opcode.is_control() {
            self.message_len += take as u32;
            if self.message == Some(Opcode::Text) {
                let unchecked = &self.buffer[self.valid_to as usize..];
                self.valid_to += valid_prefix(unchecked).map_err(|_| DecodeError::InvalidUtf8)? as u32;
            }
        }
        Ok(self.remaining == 0)
    }

    /// The current frame is complete: what it delivers, if it is the last of its message.
    fn end_frame(&mut self) -> Result<Option<Read>, DecodeError> {
        self.phase = Phase::Header;
        if self.opcode.is_control() {
            let (from, to) = (self.message_len as usize, self.buffer.len());
            self.phase = Phase::Delivered;
            if self.opcode == Opcode::Close {
                read_close(&self.buffer[from..])?;
                self.phase = Phase::Closed;
            }
            return Ok(Some(Read { opcode: self.opcode, place: Place::Buffer, from, to }));
        }
        if !self.fin {
            return Ok(None);
        }
        let opcode = self.message.take().expect("begin() or check_sequence() saw to it that a message is collected");
        if opcode == Opcode::Text && self.valid_to != self.message_len {
            return Err(DecodeError::InvalidUtf8);
        }
        self.phase = Phase::Delivered;
        self.message_len = 0;
        self.valid_to = 0;
        Ok(Some(Read { opcode, place: Place::Buffer, from: 0, to: self.buffer.len() }))
    }

    /// The caller is done with what the buffer delivered: only an unfinished message stays.
    fn release(&mut self) {
        self.phase = Phase::Header;
        if self.message.is_none() {
            self.buffer = Vec::new();
        } else {
            self.buffer.truncate(self.message_len as usize);
        }
    }

    #[cold]
    fn fail(&mut self, error: DecodeError) -> DecodeError {
        self.phase = Phase::Failed(error);
        self.buffer = Vec::new();
        error
    }
}

/// A judged header.
#[derive(Clone, Copy)]
struct Frame {
    opcode: Opcode,
    fin: bool,
    len: u32,
    key: [u8; 4],
}

/// A complete message or control frame and where its payload lies.
struct Read {
    opcode: Opcode,
    place: Place,
    from: usize,
    to: usize,
}

enum Place {
    Input,
    Buffer,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// Between frames, or in a header.
    Header,
    /// In a frame whose payload goes to the buffer.
    Payload,
    /// The buffer holds what was delivered last.
    Delivered,
    /// The peer has said its last.
    Closed,
    /// The peer broke the protocol.
    Failed(DecodeError),
}

/// Code and text of a close frame's payload (§5.5.1).
#[cold]
fn read_close(payload: &[u8]) -> Result<Option<(u16, &str)>, DecodeError> {
    let Some((code, text)) = payload.split_first_chunk() else {
        return if payload.is_empty() { Ok(None) } else { Err(DecodeError::ClosePayload) };
    };
    let code = u16::from_be_bytes(*code);
    // 1004 is undefined, 1005, 1006 and 1015 stand for what was not sent; 1012–1014 are in IANA's registry.
    if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
        return Err(DecodeError::CloseCode(code));
    }
    let text = std::str::from_utf8(text).map_err(|_| DecodeError::InvalidUtf8)?;
    Ok(Some((code, text)))
}

/// Two bytes, eight of extended length, four of mask.
const HEADER_BYTES_MAX: usize = 14;

const _: () = assert!(size_of::<Decoder>() <= 96, "every idle connection has one");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::websocket::put_masked_frame;

    const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

    /// A client's frame, of any first byte.
    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        put_masked_frame(&mut out, Opcode::Binary, KEY, payload);
        out[0] = first;
        out
    }

    /// Feeds pieces of at most `step` bytes; what was read as text, and how it ended.
    fn decode(decoder: &mut Decoder, bytes: &[u8], step: usize) -> (Vec<String>, Result<(), DecodeError>) {
        let mut seen = Vec::new();
        for piece in bytes.chunks(step) {
            let (mut piece, mut at) = (piece.to_vec(), 0);
            loop {
                match decoder.next(&mut piece, &mut at) {
                    Ok(Some(message)) => seen.push(show(&message)),
                    Ok(None) => break,
                    Err(error) => return (seen, Err(error)),
                }
            }
            assert_eq!(at, piece.len(), "None means all is consumed");
        }
        (seen, Ok(()))
    }

    fn show(message: &Message<'_>) -> String {
        let (kind, bytes) = match message {
            Message::Text(bytes) => ("text", bytes),
            Message::Binary(bytes) => ("binary", bytes),
            Message::Ping(bytes) => ("ping", bytes),
            Message::Pong(bytes) => ("pong", bytes),
            Message::Close(close) => return format!("close {close:?}"),
        };
        format!("{kind} {}", String::from_utf8_lossy(bytes))
    }

    /// The frames of RFC 6455 §5.7 read as the text says, for the role that receives them.
    #[test]
    fn rfc_examples_are_read() {
        let mut client = Decoder::new(Role::Client, 1 << 20);
        let mut bytes = b"\x81\x05Hello\x01\x03Hel\x80\x02lo\x89\x05Hello\x82\x7e\x01\x00".to_vec();
        bytes.extend([b'.'; 256]);
        bytes.extend([0x82, 0x7f, 0, 0, 0, 0, 0, 1, 0, 0]);
        bytes.extend([b'.'; 65536]);
        for step in [1, 2, 7, 300, 1 << 20] {
            let (seen, end) = decode(&mut client, &bytes, step);
            assert_eq!((&seen[..3], end), (&["text Hello", "text Hello", "ping Hello"].map(String::from)[..], Ok(())));
            assert_eq!(seen[3..].iter().map(String::len).collect::<Vec<_>>(), [7 + 256, 7 + 65536]);
        }
        let mut server = Decoder::new(Role::Server, 1 << 20);
        let masked = [&frame(0x81, b"Hello")[..], &frame(0x8a, b"Hello")].concat();
        assert_eq!(decode(&mut server, &masked, 3).0, ["text Hello", "pong Hello"]);
    }

    /// Every breach of the framing fails at the byte that shows it, with its close code, and the error stays.
    #[test]
    fn breaches_fail_at_the_byte_that_shows_them() {
        use DecodeError as E;
        let open = frame(0x01, b"a");
        let cases: [(&[u8], &[u8], E, u16); 21] = [
            (b"", b"\xc2", E::ReservedBits, 1002),
            (b"", b"\xa2", E::ReservedBits, 1002),
            (b"", b"\x92", E::ReservedBits, 1002),
            (b"", b"\x83", E::ReservedOpcode(3), 1002),
            (b"", b"\x8b", E::ReservedOpcode(11), 1002),
            (b"", b"\x09", E::FragmentedControl, 1002),
            (b"", b"\x08", E::FragmentedControl, 1002),
            (b"", b"\x80", E::UnexpectedContinuation, 1002),
            (&open, b"\x81", E::UnfinishedMessage, 1002),
            (&open, b"\x02", E::UnfinishedMessage, 1002),
            (b"", b"\x82\x05", E::Masking, 1002),
            (b"", b"\x89\xfe", E::LongControl, 1002),
            (b"", b"\x88\xff", E::LongControl, 1002),
            (b"", b"\x82\xfe\x00\x7d", E::Length, 1002),
            (b"", b"\x82\xff\x00\x00\x00\x00\x00\x00\xff\xff", E::Length, 1002),
            (b"", b"\x82\xff\x80\x00\x00\x00\x00\x01\x00\x00", E::Length, 1002),
            (b"", b"\x82\xff\x7f\xff\xff\xff\xff\xff\xff\xff", E::TooBig, 1009),
            (b"", b"\x82\xfe\x03\xe9", E::TooBig, 1009),
            (&open, b"\x80\xfe\x03\xe8", E::TooBig, 1009),
            (b"", &frame(0x88, b"\x03"), E::ClosePayload, 1002),
            (b"", &frame(0x88, b"\x03\xe8\xff"), E::InvalidUtf8, 1007),
        ];
        for (before, wrong, expected, code) in cases {
            for step in [1, 100] {
                let mut decoder = Decoder::new(Role::Server, 1000);
                assert_eq!(decode(&mut decoder, before, step), (vec![], Ok(())));
                let last = wrong.len() - 1;
                assert_eq!(decode(&mut decoder, &wrong[..last], step), (vec![], Ok(())), "{expected} came early");
                assert_eq!(decode(&mut decoder, &wrong[last..], step), (vec![], Err(expected)));
                assert_eq!(expected.reason().code(), code);
                assert_eq!(decode(&mut decoder, &frame(0x82, b"fine"), step), (vec![], Err(expected)));
                assert_eq!(decoder.buffer.capacity(), 0);
            }
        }
        let mut client = Decoder::new(Role::Client, 1000);
        assert_eq!(decode(&mut client, &frame(0x82, b"x"), 9).1, Err(E::Masking));
    }

    /// Close codes follow RFC 6455 §7.4 and IANA's registry at every border.
    #[test]
    fn close_codes_are_judged() {
        let allowed = [1000, 1001, 1002, 1003, 1007, 1008, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999];
        let forbidden = [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535];
        for code in allowed.into_iter().chain(forbidden) {
            let close = frame(0x88, &[&u16::to_be_bytes(code)[..], b"bye"].concat());
            for step in [1, 100] {
                let (seen, end) = decode(&mut Decoder::new(Role::Server, 9), &close, step);
                if allowed.contains(&code) {
                    assert_eq!((seen, end), (vec![format!("close Some(({code}, \"bye\"))")], Ok(())));
                } else {
                    assert_eq!((seen, end), (vec![], Err(DecodeError::CloseCode(code))));
                }
            }
        }
    }

    /// Behind a close nothing is read any more, not even garbage.
    #[test]
    fn input_behind_a_close_is_ignored() {
        let bytes = [&frame(0x88, b"")[..], &frame(0x82, b"late"), b"\xff\xff\xff"].concat();
        for step in [1, 4, 100] {
            let mut decoder = Decoder::new(Role::Server, 100);
            assert_eq!(decode(&mut decoder, &bytes, step), (vec!["close None".to_owned()], Ok(())));
            assert_eq!(decoder.buffer.capacity(), 0);
        }
    }

    /// Control frames between fragments are delivered at once, whole or in parts, and do not disturb the message.
    #[test]
    fn control_frames_interleave() {
        let bytes = [
            frame(0x01, "k\u{fc}".as_bytes()),
            frame(0x89, b"one"),
            frame(0x00, b"\xe2"),
            frame(0x8a, b""),
            frame(0x00, b""),
            frame(0x89, &[b'p'; 125]),
            frame(0x80, b"\x82\xac"),
            frame(0x82, b"next"),
        ]
        .concat();
        let ping = format!("ping {}", "p".repeat(125));
        let expected = ["ping one", "pong ", &ping, "text k\u{fc}\u{20ac}", "binary next"].map(String::from).to_vec();
        for step in 1..bytes.len() {
            let mut decoder = Decoder::new(Role::Server, 6);
            assert_eq!(decode(&mut decoder, &bytes, step), (expected.clone(), Ok(())), "in steps of {step}");
            assert!(decoder.is_idle());
        }
    }

    /// Invalid text fails at its byte: within a frame that is not complete, and at the end of an unfinished character.
    #[test]
    fn invalid_text_fails_at_once() {
        let bytes = frame(0x01, b"abc\xed\xa0 and more that never matters");
        let mut decoder = Decoder::new(Role::Server, 1000);
        assert_eq!(decode(&mut decoder, &bytes[..10], 100), (vec![], Ok(())));
        assert_eq!(decode(&mut decoder, &bytes[10..11], 1), (vec![], Err(DecodeError::InvalidUtf8)));
        for unfinished in [frame(0x81, b"abc\xe2\x82"), [frame(0x01, b"a"), frame(0x80, b"\xc3")].concat()] {
            for step in [1, 100] {
                let mut decoder = Decoder::new(Role::Server, 1000);
                assert_eq!(decode(&mut decoder, &unfinished, step), (vec![], Err(DecodeError::InvalidUtf8)));
            }
        }
    }

    /// A frame that lies whole in the input is delivered in place, and the decoder allocates nothing.
    #[test]
    fn a_whole_frame_is_not_copied() {
        let mut decoder = Decoder::new(Role::Server, 1000);
        let mut input = [frame(0x82, b"first"), frame(0x81, b"second")].concat();
        let (range, mut at) = (input.as_ptr_range(), 0);
        for expected in [&b"first"[..], b"second"] {
            let Ok(Some(Message::Binary(bytes) | Message::Text(bytes))) = decoder.next(&mut input, &mut at) else {
                panic!("a data message")
            };
            assert!(range.contains(&bytes.as_ptr()));
            assert_eq!(bytes, expected);
        }
        assert_eq!(decoder.next(&mut input, &mut at), Ok(None));
        assert_eq!(decoder.buffer.capacity(), 0);
    }

    /// An announced length reserves nothing; memory follows what arrives, and goes when the message is done.
    #[test]
    fn memory_follows_received_bytes() {
        let mut decoder = Decoder::new(Role::Server, 64 << 10);
        let bytes = frame(0x82, &[1; 60_000]);
        assert_eq!(decode(&mut decoder, &bytes[..108], 4), (vec![], Ok(())));
        assert!(decoder.buffer.capacity() <= 200, "{}", decoder.buffer.capacity());
        assert_eq!(decoder.buffered_bytes(), 100);
        assert!(!decoder.is_idle());
        assert_eq!(decode(&mut decoder, &bytes[108..], 4096).0.len(), 1);
        assert!(decoder.is_idle());
        assert_eq!(decoder.buffer.capacity(), 0);
    }

    /// A message of exactly the bound passes, in one frame and in fragments; control frames do not count.
    #[test]
    fn the_bound_is_inclusive() {
        let pieces = [frame(0x02, &[b'a'; 60]), frame(0x89, &[b'p'; 125]), frame(0x80, &[b'a'; 40])].concat();
        for bytes in [frame(0x82, &[b'a'; 100]), pieces] {
            for step in [1, 1000] {
                let (seen, end) = decode(&mut Decoder::new(Role::Server, 100), &bytes, step);
                assert_eq!((seen.last(), end), (Some(&format!("binary {}", "a".repeat(100))), Ok(())));
                let end = decode(&mut Decoder::new(Role::Server, 99), &bytes, step).1;
                assert_eq!(end, Err(DecodeError::TooBig));
            }
        }
    }
}
