//! Names of things: shards, connections, streams, sessions, scopes. Plain data, cheap to copy or to share.

use std::fmt;
use std::sync::Arc;

use crate::limits;
use crate::time::WallMillis;

/// A node of the mesh: the shards are `0..shards`, the peers (presence, bus) follow them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct NodeId(pub u16);

impl NodeId {
    /// The node's place in tables that have one entry per mesh node.
    #[must_use]
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// A set of shards; a bit each, so `limits::SHARDS_MAX` is 64.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct ShardSet(pub u64);

impl ShardSet {
    /// The set `{0, …, shards - 1}`.
    #[must_use]
    pub fn all(shards: u16) -> Self {
        Self(if shards >= 64 { u64::MAX } else { (1 << shards) - 1 })
    }

    /// Adds a shard.
    pub fn insert(&mut self, shard: NodeId) {
        self.0 |= 1 << shard.0;
    }

    /// Takes a shard out.
    pub fn remove(&mut self, shard: NodeId) {
        self.0 &= !(1 << shard.0);
    }

    /// Whether the shard is in the set.
    #[must_use]
    pub fn contains(self, shard: NodeId) -> bool {
        self.0 & (1 << shard.0) != 0
    }

    /// Whether the set has no shard.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The shards, ascending.
    pub fn iter(self) -> impl Iterator<Item = NodeId> {
        (0..64u16).filter(move |shard| self.0 & (1 << shard) != 0).map(NodeId)
    }
}

/// A connection on its shard. The generation tells a slot's lives apart: whatever names a former life is ignored.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ConnKey {
    /// Index into the shard's connection table.
    pub slot: u32,
    /// Life of the slot; wraps at `ConnKey::GENERATION_MAX`.
    pub generation: u32,
}

impl ConnKey {
    /// Generations have 24 bits, so that slot, generation and an operation fit io_uring's `user_data`.
    pub const GENERATION_MAX: u32 = (1 << 24) - 1;
}

/// Where an answer goes: a connection of some shard.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ConnAddr {
    /// The shard that owns the connection.
    pub shard: NodeId,
    /// The connection.
    pub conn: ConnKey,
}

impl ConnAddr {
    /// No connection: the sender of what asks for no answer.
    pub const NOBODY: Self = Self { shard: NodeId(u16::MAX), conn: ConnKey { slot: u32::MAX, generation: 0 } };
}

/// A stream's number within a node process; 0 is none. The home shard assigns it so that
/// `(handle - 1) % shards` is the home, hence no table is needed to route by handle.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct StreamHandle(pub u32);

impl StreamHandle {
    /// No stream.
    pub const NONE: Self = Self(0);

    /// The handle of the home's stream at `index`, on a node of `shards` shards; `None` once 32 bits are used up.
    #[must_use]
    pub fn of_home(index: u32, home: NodeId, shards: u16) -> Option<Self> {
        index.checked_mul(u32::from(shards))?.checked_add(u32::from(home.0) + 1).map(Self)
    }

    /// The shard this stream is homed on; `None` for the handle 0.
    #[must_use]
    pub fn home(self, shards: u16) -> Option<NodeId> {
        let index = self.0.checked_sub(1)?;
        u16::try_from(index % u32::from(shards)).ok().map(NodeId)
    }

    /// The stream's index in its home's table; `None` for the handle 0.
    #[must_use]
    pub fn index(self, shards: u16) -> Option<u32> {
        Some(self.0.checked_sub(1)? / u32::from(shards))
    }
}

/// What survives a reconnect (DELIVERY §6). Random; printed as a UUID.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SessionId(pub [u8; 16]);

impl SessionId {
    /// Reads the textual form of a UUID; `None` if it is not that.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        parse_uuid(text).map(Self)
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        uuid_text(u128::from_be_bytes(self.0), f)
    }
}

/// A connection's name on the wire and in envelopes; printed as a UUID.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ConnectionId(pub [u8; 16]);

impl ConnectionId {
    /// The name of a connection of the process that has this nonce, which is random per process; generations fit 24
    /// bits, shards 8.
    #[must_use]
    pub fn of(nonce: u64, addr: ConnAddr) -> Self {
        let place = u64::from(addr.shard.0) << 56 | u64::from(addr.conn.generation) << 32 | u64::from(addr.conn.slot);
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&nonce.to_be_bytes());
        bytes[8..].copy_from_slice(&place.to_be_bytes());
        Self(bytes)
    }

    /// Reads the textual form of a UUID; `None` if it is not that.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        parse_uuid(text).map(Self)
    }

    /// The nonce of the process that named it.
    #[must_use]
    pub fn nonce(self) -> u64 {
        u64::from_be_bytes(*self.0.first_chunk().expect("sixteen bytes have eight"))
    }

    /// The connection that has this name in the process of this nonce; `None` if it is another process's.
    #[must_use]
    pub fn addr(self, nonce: u64) -> Option<ConnAddr> {
        let place = u64::from_be_bytes(*self.0.last_chunk()?);
        let conn = ConnKey { slot: place as u32, generation: (place >> 32) as u32 & ConnKey::GENERATION_MAX };
        (self.0[..8] == nonce.to_be_bytes()).then_some(ConnAddr { shard: NodeId((place >> 56) as u16), conn })
    }
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        uuid_text(u128::from_be_bytes(self.0), f)
    }
}

/// The name of a command or an event in envelopes: a UUID.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct EventId(pub [u8; 16]);

impl EventId {
    /// UUID v5 (RFC 9562 §5.5) of the parts' concatenation: the same input names the same event (DELIVERY §7).
    #[must_use]
    pub fn v5(namespace: &[u8; 16], parts: &[&[u8]]) -> Self {
        use sha1::{Digest, Sha1};
        let mut sha = Sha1::new();
        sha.update(namespace);
        for part in parts {
            sha.update(part);
        }
        let mut id = [0; 16];
        id.copy_from_slice(&sha.finalize()[..16]);
        Self(stamped(id, 5))
    }

    /// UUID v7 (RFC 9562 §5.7) of a time and 74 bits of the caller's entropy.
    #[must_use]
    pub fn v7(now: WallMillis, entropy: [u8; 10]) -> Self {
        let mut id = [0; 16];
        id[..6].copy_from_slice(&now.0.to_be_bytes()[2..]);
        id[6..].copy_from_slice(&entropy);
        Self(stamped(id, 7))
    }

    /// Reads the textual form, 8-4-4-4-12 hexadecimal digits; `None` if it is not that.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        parse_uuid(text).map(Self)
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        uuid_text(u128::from_be_bytes(self.0), f)
    }
}

/// Sets version and variant (RFC 9562 §4).
fn stamped(mut id: [u8; 16], version: u8) -> [u8; 16] {
    id[6] = id[6] & 0x0f | version << 4;
    id[8] = id[8] & 0x3f | 0x80;
    id
}

fn parse_uuid(text: &str) -> Option<[u8; 16]> {
    let digits = text.as_bytes();
    if digits.len() != 36 || [8, 13, 18, 23].iter().any(|&at| digits[at] != b'-') {
        return None;
    }
    let (mut id, mut nibbles) = ([0u8; 16], 0);
    for &digit in digits.iter().filter(|&&digit| digit != b'-') {
        let value = char::from(digit).to_digit(16)?;
        *id.get_mut(nibbles / 2)? |= (value as u8) << if nibbles % 2 == 0 { 4 } else { 0 };
        nibbles += 1;
    }
    (nibbles == 32).then_some(id)
}

fn uuid_text(value: u128, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let (a, b, c) = ((value >> 96) as u32, (value >> 80) as u16, (value >> 64) as u16);
    let (d, e) = ((value >> 48) as u16, value & 0xffff_ffff_ffff);
    write!(f, "{a:08x}-{b:04x}-{c:04x}-{d:04x}-{e:012x}")
}

/// What players type to find a room: six letters and digits without look-alikes (no I, L, O, 0, 1), in upper case.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RoomCode([u8; Self::LEN]);

impl RoomCode {
    /// Characters of a code.
    pub const LEN: usize = 6;
    const LETTERS: &[u8; 31] = b"ABCDEFGHJKMNPQRSTUVWXYZ23456789";

    /// The code of 64 random bits; of all 887,503,681 each is as likely as the others, to one part in 10^10.
    #[must_use]
    pub fn of(random: u64) -> Self {
        let mut rest = random;
        Self(std::array::from_fn(|_| {
            let letter = Self::LETTERS[(rest % 31) as usize];
            rest /= 31;
            letter
        }))
    }

    /// Reads a code in letters of any case; `None` if the text is none.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let letters: [u8; Self::LEN] = text.as_bytes().try_into().ok()?;
        let letters = letters.map(|letter| letter.to_ascii_uppercase());
        letters.iter().all(|letter| Self::LETTERS.contains(letter)).then_some(Self(letters))
    }

    /// The code's text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("letters and digits are ASCII")
    }
}

impl fmt::Display for RoomCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// SHA-256 of a resume token, cut to 128 bits; the only form of the token that is kept or sent between threads.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct TokenHash(pub [u8; 16]);

/// Whom an event addresses: the unit of order, history and position together with topic and partition.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Scope {
    /// The members of a room.
    Room(Arc<str>),
    /// All sessions of a user.
    User(Arc<str>),
    /// One session.
    Session(SessionId),
    /// Every authenticated connection.
    Everyone,
}

impl Scope {
    /// The shard that orders this scope's streams: a hash of the name that is the same on every node and in every run.
    #[must_use]
    pub fn home(&self, shards: u16) -> NodeId {
        let hash = match self {
            Self::Room(id) => stable_hash(b"room:", id.as_bytes()),
            Self::User(id) => stable_hash(b"user:", id.as_bytes()),
            Self::Session(id) => stable_hash(b"session:", &id.0),
            Self::Everyone => stable_hash(b"everyone", b""),
        };
        NodeId((hash % u64::from(shards)) as u16)
    }

    /// Whether the stream of this name is one of the scope's.
    #[must_use]
    pub fn has_stream(&self, name: &str) -> bool {
        let Some((_, scope)) = name.split_once('/') else { return false };
        match (self, scope.split_once(':')) {
            (Self::Room(id), Some(("room", other))) | (Self::User(id), Some(("user", other))) => **id == *other,
            (Self::Session(id), Some(("session", other))) => SessionId::parse(other) == Some(*id),
            (Self::Everyone, None) => scope == "everyone",
            _ => false,
        }
    }

    /// Reads the form that `Display` writes; `None` if it is not that.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text.split_once(':') {
            Some(("room", id)) if is_room_id(id) => Some(Self::Room(id.into())),
            Some(("user", id)) if (1..=limits::USER_ID_BYTES_MAX).contains(&id.len()) => Some(Self::User(id.into())),
            Some(("session", id)) => SessionId::parse(id).map(Self::Session),
            None if text == "everyone" => Some(Self::Everyone),
            _ => None,
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Room(id) => write!(f, "room:{id}"),
            Self::User(id) => write!(f, "user:{id}"),
            Self::Session(id) => write!(f, "session:{id}"),
            Self::Everyone => f.write_str("everyone"),
        }
    }
}

/// Whether the text may name a room: 1–64 of `[A-Za-z0-9._-]` (PROTOCOLS D).
#[must_use]
pub fn is_room_id(text: &str) -> bool {
    (1..=limits::ROOM_ID_BYTES_MAX).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

/// xxh3-64 of prefix and name: fixed, since homes must be found alike by every thread and after every restart.
fn stable_hash(prefix: &[u8], name: &[u8]) -> u64 {
    let mut hasher = xxhash_rust::xxh3::Xxh3::new();
    hasher.update(prefix);
    hasher.update(name);
    hasher.digest()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A handle leads back to the home and the index it was made from.
    #[test]
    fn a_handle_names_its_home_and_index() {
        for shards in [1u16, 2, 3, 64] {
            for home in 0..shards {
                for index in [0u32, 1, 7, 100_000] {
                    let handle = StreamHandle::of_home(index, NodeId(home), shards).unwrap();
                    assert_ne!(handle, StreamHandle::NONE);
                    assert_eq!(handle.home(shards), Some(NodeId(home)));
                    assert_eq!(handle.index(shards), Some(index));
                }
            }
        }
        assert_eq!(StreamHandle::NONE.home(2), None);
    }

    /// Room ids are 1–64 of the allowed characters and nothing else.
    #[test]
    fn room_ids_are_checked() {
        assert!(is_room_id("arena-1.x_Y"));
        assert!(is_room_id(&"a".repeat(64)));
        for bad in ["", &"a".repeat(65), "a b", "ä", "a/b", "a:b"] {
            assert!(!is_room_id(bad), "{bad:?}");
        }
    }

    /// A code reads back in any case, is made of every letter, and what looks like another letter is none.
    #[test]
    fn room_codes_read_back() {
        let mut letters = std::collections::BTreeSet::new();
        for random in (0..1000u64).map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15)) {
            let code = RoomCode::of(random);
            assert_eq!(RoomCode::parse(&code.to_string().to_lowercase()), Some(code));
            letters.extend(code.as_str().bytes());
        }
        assert_eq!(letters.len(), 31);
        for bad in ["", "ABCDE", "ABCDEFG", "ABCDE0", "ABCDE1", "ABCDEI", "ABCDEL", "ABCDEO", "ABCDÄ"] {
            assert_eq!(RoomCode::parse(bad), None, "{bad}");
        }
    }

    /// A connection's name leads back to it in its own process only; what is printed of a scope reads back.
    #[test]
    fn names_lead_back() {
        let conn = ConnKey { slot: u32::MAX, generation: ConnKey::GENERATION_MAX };
        let addr = ConnAddr { shard: NodeId(63), conn };
        let id = ConnectionId::of(7, addr);
        assert_eq!(ConnectionId::parse(&id.to_string()), Some(id));
        assert_eq!((id.addr(7), id.addr(8), id.nonce()), (Some(addr), None, 7));
        for scope in ["room:a.b-c", "user:a:b/c", "session:00000000-0000-0000-0000-000000000009", "everyone"] {
            assert_eq!(Scope::parse(scope).map(|scope| scope.to_string()).as_deref(), Some(scope));
            let named = |other: &str| Scope::parse(scope).unwrap().has_stream(&format!("games.events.0/{other}"));
            assert!(named(scope) && !named("room:a.b") && !named("user:a") && !named("x"), "{scope}");
        }
        for bad in ["", "room:", "room:a b", "user:", "session:9", "everyone:", "nobody", "group:a"] {
            assert_eq!(Scope::parse(bad), None, "{bad:?}");
        }
    }

    /// Version 5 ids are those of RFC 9562 (appendix A.4), version 7 ids begin with their time, and both read back.
    #[test]
    fn event_ids_are_uuids() {
        let dns = EventId::parse("6ba7b810-9dad-11d1-80b4-00c04fd430c8").unwrap();
        let id = EventId::v5(&dns.0, &[b"www.", b"example.com"]);
        assert_eq!(id.to_string(), "2ed6657d-e927-568b-95e1-2665a8aea6a2");
        assert_eq!(EventId::parse(&id.to_string()), Some(id));
        let seven = EventId::v7(WallMillis(0x0192_aabb_ccdd), [0xff; 10]);
        assert_eq!(seven.to_string(), "0192aabb-ccdd-7fff-bfff-ffffffffffff");
        for bad in [
            "",
            "2ed6657de927568b95e12665a8aea6a2",
            "2ed6657d-e927-568b-95e1-2665a8aea6a",
            "2ed6657d-e927-568b-95e1-2665a8aea6ag",
            "2ed6657d-e927-568b-95e1-2665-8aea6ag",
        ] {
            assert_eq!(EventId::parse(bad), None, "{bad:?}");
        }
    }
}
