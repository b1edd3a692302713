//! Whole frames, appended to a buffer with header and payload contiguous (RFC 6455 §5.2). Never fragments.

use crate::frame::put_websocket_header;
use crate::websocket::{Opcode, apply_mask};

/// Appends a server's text frame; `payload` must be UTF-8, which `&str` says.
pub fn put_text(out: &mut Vec<u8>, payload: &str) {
    put_frame(out, Opcode::Text, payload.as_bytes());
}

/// Appends a server's binary frame.
pub fn put_binary(out: &mut Vec<u8>, payload: &[u8]) {
    put_frame(out, Opcode::Binary, payload);
}

/// Appends a server's ping; at most 125 bytes, the rest is cut off.
pub fn put_ping(out: &mut Vec<u8>, payload: &[u8]) {
    put_frame(out, Opcode::Ping, control_payload(payload));
}

/// Appends a server's pong; at most 125 bytes, the rest is cut off.
pub fn put_pong(out: &mut Vec<u8>, payload: &[u8]) {
    put_frame(out, Opcode::Pong, control_payload(payload));
}

/// Appends a server's close frame. The text is cut at a character so that it has at most [`CLOSE_TEXT_BYTES_MAX`].
/// `code` must be one that may be sent (§7.4); 0 appends a close frame without a code.
pub fn put_close(out: &mut Vec<u8>, code: u16, text: &str) {
    let (payload, len) = close_payload(code, text);
    put_frame(out, Opcode::Close, &payload[..len]);
}

/// Appends a client's frame, masked with `key`, which must not be foreseeable by whoever chose the payload (§10.3).
/// A control frame must have at most 125 bytes.
pub fn put_masked_frame(out: &mut Vec<u8>, opcode: Opcode, key: [u8; 4], payload: &[u8]) {
    debug_assert!(!opcode.is_control() || payload.len() <= CONTROL_BYTES_MAX);
    let second = out.len() + 1;
    out.reserve(HEADER_BYTES_MAX + payload.len());
    put_websocket_header(out, opcode as u8, payload.len());
    out[second] |= 0x80;
    out.extend_from_slice(&key);
    let start = out.len();
    out.extend_from_slice(payload);
    apply_mask(&mut out[start..], key, 0);
}

/// Appends a client's close frame; see [`put_close`].
pub fn put_masked_close(out: &mut Vec<u8>, key: [u8; 4], code: u16, text: &str) {
    let (payload, len) = close_payload(code, text);
    put_masked_frame(out, Opcode::Close, key, &payload[..len]);
}

#[inline]
fn put_frame(out: &mut Vec<u8>, opcode: Opcode, payload: &[u8]) {
    out.reserve(HEADER_BYTES_MAX + payload.len());
    put_websocket_header(out, opcode as u8, payload.len());
    out.extend_from_slice(payload);
}

fn control_payload(payload: &[u8]) -> &[u8] {
    &payload[..payload.len().min(CONTROL_BYTES_MAX)]
}

fn close_payload(code: u16, text: &str) -> ([u8; CONTROL_BYTES_MAX], usize) {
    let mut payload = [0; CONTROL_BYTES_MAX];
    if code == 0 {
        return (payload, 0);
    }
    let len = text.floor_char_boundary(CLOSE_TEXT_BYTES_MAX);
    payload[..2].copy_from_slice(&code.to_be_bytes());
    payload[2..2 + len].copy_from_slice(&text.as_bytes()[..len]);
    (payload, 2 + len)
}

/// Bytes of a close frame's text: a control frame's payload without the code.
pub const CLOSE_TEXT_BYTES_MAX: usize = CONTROL_BYTES_MAX - 2;
/// RFC 6455 §5.5.
const CONTROL_BYTES_MAX: usize = 125;
/// Two bytes, eight of extended length, four of mask.
const HEADER_BYTES_MAX: usize = 14;

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(put: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut out = vec![0xaa];
        put(&mut out);
        assert_eq!(out.remove(0), 0xaa, "only appends");
        out
    }

    /// The unmasked examples of RFC 6455 §5.7 come out byte for byte.
    #[test]
    fn rfc_examples_are_encoded() {
        assert_eq!(encoded(|out| put_text(out, "Hello")), [0x81, 0x05, 0x48, 0x65, 0x6c, 0x6c, 0x6f]);
        assert_eq!(encoded(|out| put_ping(out, b"Hello")), [0x89, 0x05, 0x48, 0x65, 0x6c, 0x6c, 0x6f]);
        let key = [0x37, 0xfa, 0x21, 0x3d];
        let masked = [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
        assert_eq!(encoded(|out| put_masked_frame(out, Opcode::Text, key, b"Hello")), masked);
        assert_eq!(encoded(|out| put_binary(out, &[0; 256]))[..4], [0x82, 0x7e, 0x01, 0x00]);
        assert_eq!(encoded(|out| put_binary(out, &[0; 65536]))[..10], [0x82, 0x7f, 0, 0, 0, 0, 0, 1, 0, 0]);
    }

    /// A close text that is too long is cut between characters; code 0 gives an empty close.
    #[test]
    fn close_frames_fit_a_control_frame() {
        let close = encoded(|out| put_close(out, 1000, &"é".repeat(100)));
        assert_eq!(close[..4], [0x88, 2 + 122, 0x03, 0xe8]);
        assert_eq!(std::str::from_utf8(&close[4..]).unwrap(), "é".repeat(61));
        assert_eq!(encoded(|out| put_close(out, 0, "ignored")), [0x88, 0]);
        assert_eq!(encoded(|out| put_masked_close(out, [0; 4], 0, "")), [0x88, 0x80, 0, 0, 0, 0]);
    }

    /// A ping or pong never exceeds a control frame.
    #[test]
    fn long_control_payloads_are_cut() {
        assert_eq!(encoded(|out| put_pong(out, &[7; 300])).len(), 2 + 125);
    }
}
