//! Connections that have not authenticated yet, counted by the client's address, so that one host cannot take every
//! place of a node with connections that say nothing.
//!
//! The table holds only connections between accept and a session, so its size is bounded by theirs, and an
//! authenticated connection costs nothing here. Behind a trusted proxy the client is whom its headers name; what a
//! proxy does on its own behalf is not counted.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};

use foldhash::fast::FixedState;

use super::forwarded::{Cidr, client_address};

/// See the module. Invariant: `counts` holds for each address how many of `slots` name it, and nothing else.
#[derive(Debug)]
pub struct Newcomers {
    /// Of one address.
    most: u32,
    trusted: Vec<Cidr>,
    slots: HashMap<u32, IpAddr, FixedState>,
    counts: HashMap<IpAddr, u32, FixedState>,
}

impl Newcomers {
    /// Nobody; `most` newcomers of one address are let in, `seed` makes the hashes unpredictable for clients.
    #[must_use]
    pub fn new(most: u32, trusted: Vec<Cidr>, seed: u64) -> Self {
        let hasher = FixedState::with_seed(seed);
        Self { most, trusted, slots: HashMap::with_hasher(hasher.clone()), counts: HashMap::with_hasher(hasher) }
    }

    /// Whether a connection from this address may come in.
    #[must_use]
    pub fn has_room(&self, peer: IpAddr) -> bool {
        self.counts.get(&counted(peer)).is_none_or(|count| *count < self.most)
    }

    /// Counts a connection that came in; its slot must not be counted.
    pub fn enter(&mut self, slot: u32, peer: IpAddr) {
        let peer = peer.to_canonical();
        self.slots.insert(slot, peer);
        self.change(peer, true);
    }

    /// The request of a connection names whom it was forwarded for; whether that client may go on.
    pub fn forwarded(&mut self, slot: u32, forwarded_for: &[&str], forwarded: &[&str]) -> bool {
        let Some(peer) = self.slots.get(&slot).copied().filter(|peer| self.is_trusted(*peer)) else { return true };
        let client = client_address(peer, forwarded_for, forwarded, &self.trusted);
        if self.is_trusted(client) {
            return true;
        }
        let has_room = self.has_room(client);
        if has_room {
            self.slots.insert(slot, client);
            self.change(client, true);
        }
        has_room
    }

    /// Whom a newcomer counts as: its address, of IPv6 the /64; `None` for what a trusted proxy does on its own behalf.
    #[must_use]
    pub fn address(&self, slot: u32) -> Option<IpAddr> {
        self.slots.get(&slot).filter(|address| !self.is_trusted(**address)).map(|address| counted(*address))
    }

    /// A connection has authenticated or ended.
    pub fn leave(&mut self, slot: u32) {
        let Some(address) = self.slots.remove(&slot) else { return };
        self.change(address, false);
        if self.slots.is_empty() && self.slots.capacity() > KEPT {
            self.slots.shrink_to(KEPT);
            self.counts.shrink_to(KEPT);
        }
    }

    /// How many there are, of all addresses.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    fn change(&mut self, address: IpAddr, enters: bool) {
        if self.is_trusted(address) {
            return;
        }
        let address = counted(address);
        let count = self.counts.entry(address).or_default();
        *count = if enters { *count + 1 } else { *count - 1 };
        if *count == 0 {
            self.counts.remove(&address);
        }
    }

    fn is_trusted(&self, address: IpAddr) -> bool {
        self.trusted.iter().any(|network| network.contains(address))
    }
}

/// One host has a whole /64 of IPv6 (RFC 6177).
fn counted(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
        v4 @ IpAddr::V4(_) => v4,
    }
}

/// Entries whose room is kept when everybody has gone.
const KEPT: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn two(trusted: &[&str]) -> Newcomers {
        Newcomers::new(2, trusted.iter().map(|text| text.parse().unwrap()).collect(), 1)
    }

    /// An address has its number of places, another one its own, and who leaves makes room.
    #[test]
    fn places_are_counted_by_address() {
        let mut newcomers = two(&[]);
        newcomers.enter(1, ip("192.0.2.1"));
        newcomers.enter(2, ip("::ffff:192.0.2.1"));
        assert!(!newcomers.has_room(ip("192.0.2.1")) && newcomers.has_room(ip("192.0.2.2")));
        assert!(newcomers.forwarded(1, &["1.2.3.4"], &[]), "nobody is believed");
        newcomers.leave(1);
        newcomers.leave(1);
        assert!(newcomers.has_room(ip("192.0.2.1")));
        newcomers.enter(3, ip("2001:db8::1"));
        newcomers.enter(4, ip("2001:db8::ffff"));
        assert!(!newcomers.has_room(ip("2001:db8::2")) && newcomers.has_room(ip("2001:db8:0:1::1")));
    }

    /// Behind a trusted proxy its clients are counted, each by itself, and the proxy is not.
    #[test]
    fn clients_of_proxies_are_counted_by_themselves() {
        let mut newcomers = two(&["10.0.0.0/8"]);
        for slot in 0..5 {
            assert!(newcomers.has_room(ip("10.0.0.1")));
            newcomers.enter(slot, ip("10.0.0.1"));
        }
        assert!(newcomers.forwarded(0, &["192.0.2.1"], &[]));
        assert!(newcomers.forwarded(1, &[], &["for=192.0.2.1"]));
        assert!(!newcomers.forwarded(2, &["192.0.2.1"], &[]));
        assert!(newcomers.forwarded(3, &["192.0.2.2"], &[]));
        assert!(newcomers.forwarded(4, &[], &[]), "the proxy itself");
        newcomers.leave(2);
        newcomers.leave(0);
        assert!(newcomers.has_room(ip("192.0.2.1")));
    }

    proptest! {
        /// Whatever comes and goes, the counts are those of the slots, and nothing is left when all have gone.
        #[test]
        fn counts_are_those_of_the_slots(steps in prop::collection::vec((0u32..8, 0u8..3, 0u8..3), 0..200)) {
            let mut newcomers = two(&["10.0.0.0/8"]);
            for (slot, act, host) in steps {
                match act {
                    0 if !newcomers.slots.contains_key(&slot) => {
                        newcomers.enter(slot, IpAddr::from([if host == 0 { 10 } else { 192 }, 0, 2, host]));
                    }
                    1 => _ = newcomers.forwarded(slot, &[&format!("198.51.100.{host}")], &[]),
                    _ => newcomers.leave(slot),
                }
                let mut expected = HashMap::<IpAddr, u32, FixedState>::default();
                for address in newcomers.slots.values().filter(|address| !newcomers.is_trusted(**address)) {
                    *expected.entry(counted(*address)).or_default() += 1;
                }
                prop_assert!(expected.len() == newcomers.counts.len());
                prop_assert!(expected.iter().all(|(address, count)| newcomers.counts.get(address) == Some(count)));
            }
            (0..8).for_each(|slot| newcomers.leave(slot));
            prop_assert!(newcomers.counts.is_empty());
        }
    }
}
