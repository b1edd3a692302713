//! Random numbers for calls into connections: a hash-based generator (NIST SP 800-90A, Hash_DRBG in spirit) that is
//! keyed from the driver's entropy, so a call may draw as many as its input makes it.

use sha2::{Digest, Sha256};

/// Numbers nobody outside can foresee; the same for the same key.
#[derive(Debug)]
pub(super) struct Random {
    key: [u8; 32],
    counter: u64,
    block: [u8; 32],
    used: usize,
}

impl Random {
    /// Keyed with 256 bits of entropy.
    pub fn new(mut entropy: impl FnMut() -> u64) -> Self {
        let mut key = [0; 32];
        for word in key.chunks_exact_mut(8) {
            word.copy_from_slice(&entropy().to_be_bytes());
        }
        Self { key, counter: 0, block: [0; 32], used: 32 }
    }

    /// The next 64 bits.
    pub fn next(&mut self) -> u64 {
        if self.used == self.block.len() {
            self.counter += 1;
            let hash = Sha256::new().chain_update(self.key).chain_update(self.counter.to_be_bytes());
            self.block = hash.finalize().into();
            self.used = 0;
        }
        let word = self.block[self.used..].first_chunk().expect("words are used up one by one");
        self.used += 8;
        u64::from_be_bytes(*word)
    }
}
