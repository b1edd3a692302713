//! Masking (RFC 6455 §5.3): XOR with a repeated four-byte key, in place, in words that the compiler turns into vectors.

/// XORs `bytes` with `key`, whose first byte meets the byte at `offset` 0 of the payload; `offset` is the place of
/// `bytes[0]` in the payload. Masking and unmasking are the same operation.
#[inline]
pub fn apply_mask(bytes: &mut [u8], mut key: [u8; 4], offset: usize) {
    key.rotate_left(offset & 3);
    let word = u64::from_ne_bytes([key[0], key[1], key[2], key[3], key[0], key[1], key[2], key[3]]);
    let (blocks, rest) = bytes.as_chunks_mut::<32>();
    for block in blocks {
        for lane in block.as_chunks_mut::<8>().0 {
            *lane = (u64::from_ne_bytes(*lane) ^ word).to_ne_bytes();
        }
    }
    let (lanes, tail) = rest.as_chunks_mut::<8>();
    for lane in lanes {
        *lane = (u64::from_ne_bytes(*lane) ^ word).to_ne_bytes();
    }
    for (byte, key) in tail.iter_mut().zip(word.to_ne_bytes()) {
        *byte ^= key;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every length and offset around the vector sizes gives what a byte loop gives.
    #[test]
    fn words_mask_like_bytes() {
        let key = [0x37, 0xfa, 0x21, 0x3d];
        for len in (0..140).chain([1023, 1024, 1025]) {
            for offset in 0..9 {
                let mut bytes: Vec<u8> = (0..len).map(|i| (i * 31) as u8).collect();
                let expected: Vec<u8> = bytes.iter().enumerate().map(|(i, b)| b ^ key[(i + offset) % 4]).collect();
                apply_mask(&mut bytes, key, offset);
                assert_eq!(bytes, expected, "{len} bytes at {offset}");
            }
        }
    }

    /// The masked "Hello" of RFC 6455 §5.7 reads as in the text.
    #[test]
    fn the_rfc_example_is_hello() {
        let mut bytes = [0x7f, 0x9f, 0x4d, 0x51, 0x58];
        apply_mask(&mut bytes, [0x37, 0xfa, 0x21, 0x3d], 0);
        assert_eq!(&bytes, b"Hello");
    }
}
