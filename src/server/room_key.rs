//! The key of room tokens: configured, or made once and kept in `data_dir`, or made for this process.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use crate::auth::RoomKey;
use crate::config::Config;
use crate::shard::driver::syscall::Entropy;

/// The node's key; `data_dir` must be there.
///
/// # Errors
/// One line with the file and a remedy.
pub fn room_key(config: &Config, entropy: &mut Entropy) -> Result<RoomKey, String> {
    if let Some(secret) = &config.auth.room_token_key {
        return Ok(RoomKey::new(secret.as_bytes()));
    }
    let made: Vec<u8> = (0..RoomKey::BYTES / 8).flat_map(|_| entropy.next_u64().to_be_bytes()).collect();
    let Some(folder) = &config.server.data_dir else { return Ok(RoomKey::new(&made)) };
    let file = Path::new(folder).join(FILE);
    let secret = kept(&file, &made).map_err(|error| {
        let file = file.display();
        format!("{file}: {error}; make it readable and writable, or set auth.room_token_key")
    })?;
    if secret.len() < RoomKey::BYTES {
        let (file, bytes) = (file.display(), secret.len());
        return Err(format!("{file}: {bytes} bytes are no key; remove it, and players join their rooms anew"));
    }
    Ok(RoomKey::new(&secret))
}

/// What the file has, or these bytes, written to it; for nobody but this user.
fn kept(file: &Path, made: &[u8]) -> std::io::Result<Vec<u8>> {
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(file) {
        Ok(mut new) => {
            new.write_all(made)?;
            new.sync_all()?;
            Ok(made.to_vec())
        }
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            let mut secret = Vec::new();
            std::fs::File::open(file)?.take(4096).read_to_end(&mut secret)?;
            Ok(secret)
        }
        Err(error) => Err(error),
    }
}

const FILE: &str = "room_token.key";

#[cfg(test)]
mod tests {
    use super::*;

    /// A key is made once and found again; an unusable file says so and what to do.
    #[test]
    fn a_key_is_kept() {
        let folder = std::env::temp_dir().join(format!("ringgate-room-key-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let mut config = Config::default();
        config.server.data_dir = Some(folder.display().to_string());
        let mut entropy = Entropy::default();
        let token = room_key(&config, &mut entropy).unwrap().mint("r", "p");
        assert!(room_key(&config, &mut entropy).unwrap().verify(&token).is_ok());
        std::fs::write(folder.join(FILE), "short").unwrap();
        assert!(room_key(&config, &mut entropy).unwrap_err().contains("remove it"));
        config.auth.room_token_key = Some("x".repeat(32));
        assert!(room_key(&config, &mut entropy).unwrap().verify(&token).is_err());
        std::fs::remove_dir_all(&folder).unwrap();
        config.auth.room_token_key = None;
        assert!(room_key(&config, &mut entropy).unwrap_err().contains("auth.room_token_key"));
    }
}
