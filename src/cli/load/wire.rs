//! The client's end of a WebSocket as lean as the load needs it: the upgrade, masked frames out, unmasked frames in.
//! Nothing is copied on the way in. Fragments and masked frames from the server are errors.

/// The `Sec-WebSocket-Key` of RFC 6455 §1.3; a load generator needs no fresh one.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
/// What the server must make of it.
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
/// An upgrade response longer than this is none.
const RESPONSE_BYTES_MAX: usize = 8 << 10;

/// RFC 6455 §5.2 opcodes.
pub mod opcode {
    /// A text message.
    pub const TEXT: u8 = 1;
    /// A binary message.
    pub const BINARY: u8 = 2;
    /// A close.
    pub const CLOSE: u8 = 8;
    /// A ping.
    pub const PING: u8 = 9;
    /// A pong.
    pub const PONG: u8 = 10;
}

/// The upgrade request for `path`.
#[must_use]
pub fn upgrade_request(host: &str, path: &str, subprotocol: Option<&str>) -> Vec<u8> {
    let protocol = subprotocol.map(|name| format!("Sec-WebSocket-Protocol: {name}\r\n")).unwrap_or_default();
    format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n{protocol}\r\n"
    )
    .into_bytes()
}

/// Bytes of the upgrade response at the start of `input`; `None` needs more.
///
/// # Errors
/// The status line, if the server did not upgrade.
pub fn upgrade_response(input: &[u8]) -> Result<Option<usize>, String> {
    let Some(end) = input.windows(4).position(|window| window == b"\r\n\r\n") else {
        let long = input.len() > RESPONSE_BYTES_MAX;
        return if long { Err("no end of the HTTP response's head within 8 KiB".into()) } else { Ok(None) };
    };
    let head = String::from_utf8_lossy(&input[..end]);
    let status = head.lines().next().unwrap_or_default();
    if !status.starts_with("HTTP/1.1 101") {
        return Err(format!("the server did not upgrade: {status:?}"));
    }
    if !head.contains(ACCEPT) {
        return Err("the server's Sec-WebSocket-Accept is wrong".into());
    }
    Ok(Some(end + 4))
}

/// A server's frame at the start of the input.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Frame<'a> {
    /// See [`opcode`].
    pub opcode: u8,
    /// The payload.
    pub payload: &'a [u8],
    /// Bytes of header and payload.
    pub len: usize,
}

/// Reads the frame at the start of `input`; `None` needs more.
///
/// # Errors
/// A frame that a server must not send, or one of more than 128 KiB.
#[inline]
pub fn frame(input: &[u8]) -> Result<Option<Frame<'_>>, &'static str> {
    let [first, second, ..] = *input else { return Ok(None) };
    if first & 0xf0 != 0x80 || first & 0x0f == 0 {
        return Err("a fragment or a reserved bit from the server");
    }
    if second & 0x80 != 0 {
        return Err("a masked frame from the server");
    }
    let (head, len) = match second {
        126 => {
            let Some(bytes) = input.get(2..4) else { return Ok(None) };
            (4, usize::from(u16::from_be_bytes([bytes[0], bytes[1]])))
        }
        127 => {
            let Some(bytes) = input.get(2..).and_then(|rest| rest.first_chunk::<8>()) else { return Ok(None) };
            (10, usize::try_from(u64::from_be_bytes(*bytes)).unwrap_or(usize::MAX))
        }
        short => (2, usize::from(short)),
    };
    if len > FRAME_BYTES_MAX {
        return Err("a frame of more than 128 KiB from the server");
    }
    Ok(input.get(head..head + len).map(|payload| Frame { opcode: first & 0x0f, payload, len: head + len }))
}

const FRAME_BYTES_MAX: usize = 128 << 10;

/// Appends a masked frame of exactly `len` payload bytes, which `write` appends.
pub fn put_masked(out: &mut Vec<u8>, opcode: u8, mask: [u8; 4], len: usize, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    crate::frame::put_websocket_header(out, opcode, len);
    out[start + 1] |= 0x80;
    out.extend_from_slice(&mask);
    let payload = out.len();
    write(out);
    debug_assert_eq!(out.len() - payload, len, "the header promised another length");
    apply_mask(&mut out[payload..], mask);
}

fn apply_mask(bytes: &mut [u8], mask: [u8; 4]) {
    let word = u64::from_ne_bytes([mask[0], mask[1], mask[2], mask[3], mask[0], mask[1], mask[2], mask[3]]);
    let mut chunks = bytes.chunks_exact_mut(8);
    for chunk in &mut chunks {
        let value = u64::from_ne_bytes((&*chunk).try_into().expect("chunks of 8")) ^ word;
        chunk.copy_from_slice(&value.to_ne_bytes());
    }
    for (byte, mask) in chunks.into_remainder().iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A frame is found only when all of it is there, whatever the form of its length.
    #[test]
    fn frames_are_split_at_their_ends() {
        for len in [0usize, 1, 125, 126, 65_535, 65_536] {
            let mut bytes = Vec::new();
            crate::frame::put_websocket_header(&mut bytes, opcode::BINARY, len);
            let head = bytes.len();
            bytes.resize(head + len, 7);
            for cut in [0, 1, head.saturating_sub(1), bytes.len() - 1] {
                assert_eq!(frame(&bytes[..cut]), Ok(None), "{len} cut at {cut}");
            }
            bytes.push(0xff);
            let found = frame(&bytes).unwrap().unwrap();
            assert_eq!((found.opcode, found.payload.len(), found.len), (opcode::BINARY, len, head + len));
        }
        for bad in [[0x02, 0], [0x80, 0], [0xc2, 0], [0x82, 0x80]] {
            assert!(frame(&bad).is_err(), "{bad:x?}");
        }
    }

    /// A masked frame unmasks to what was written (RFC 6455 §5.3), also where the length is no multiple of the mask's.
    #[test]
    fn masked_frames_unmask() {
        let mask = [1, 2, 3, 4];
        let payload: Vec<u8> = (0..29).collect();
        let mut out = Vec::new();
        put_masked(&mut out, opcode::BINARY, mask, payload.len(), |out| out.extend_from_slice(&payload));
        assert_eq!(out[..6], [0x82, 0x80 | 29, 1, 2, 3, 4]);
        let unmasked: Vec<u8> = out[6..].iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect();
        assert_eq!(unmasked, payload);
    }

    /// An upgrade is accepted once its head is whole and right; else the status line is told.
    #[test]
    fn upgrades_are_checked() {
        let good = format!("HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: {ACCEPT}\r\n\r\n");
        assert_eq!(upgrade_response(good.as_bytes()), Ok(Some(good.len())));
        assert_eq!(upgrade_response(&good.as_bytes()[..good.len() - 1]), Ok(None));
        assert!(upgrade_response(b"HTTP/1.1 404 Not Found\r\n\r\n").unwrap_err().contains("404 Not Found"));
        assert!(upgrade_response(b"HTTP/1.1 101 x\r\n\r\n").unwrap_err().contains("Accept"));
        assert!(upgrade_response(&[b'a'; 9000]).is_err());
    }
}
