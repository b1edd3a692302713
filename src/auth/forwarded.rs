//! The client's address behind proxies: `X-Forwarded-For` and `Forwarded` (RFC 7239), believed only as far as they
//! were written by trusted proxies.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

/// A network: an address and how many of its leading bits count.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cidr {
    address: IpAddr,
    prefix: u8,
}

impl Cidr {
    /// Whether the address is in the network. IPv4 in IPv6 form (`::ffff:a.b.c.d`) counts as IPv4.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                let differing = network.to_bits() ^ address.to_bits();
                differing.leading_zeros() >= u32::from(self.prefix)
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                let differing = network.to_bits() ^ address.to_bits();
                differing.leading_zeros() >= u32::from(self.prefix)
            }
            _ => false,
        }
    }
}

impl FromStr for Cidr {
    type Err = ();

    /// `10.0.0.0/8`, `2001:db8::/32`, or a single address.
    fn from_str(text: &str) -> Result<Self, ()> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix.parse::<u8>().map_err(|_| ())?)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| ())?;
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.unwrap_or(bits);
        if prefix > bits { Err(()) } else { Ok(Self { address, prefix }) }
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

/// The address of the client: `peer` itself if it is no trusted proxy, else the last address in the headers that is
/// none. Values are the header's lines in order. What does not parse ends the search at the proxy that wrote it.
///
/// If both headers came, `X-Forwarded-For` counts; a proxy must remove the one it does not write.
#[must_use]
pub fn client_address(peer: IpAddr, forwarded_for: &[&str], forwarded: &[&str], trusted: &[Cidr]) -> IpAddr {
    let is_trusted = |address: IpAddr| trusted.iter().any(|network| network.contains(address));
    let mut client = peer.to_canonical();
    let by_list = forwarded_for.iter().rev().flat_map(|line| line.rsplit(',')).map(str::trim);
    let by_elements = forwarded.iter().rev().flat_map(|line| line.rsplit(',')).map(element_for);
    let mut hops: Box<dyn Iterator<Item = &str>> =
        if forwarded_for.is_empty() { Box::new(by_elements) } else { Box::new(by_list) };
    while is_trusted(client) {
        match hops.next().and_then(parse_node) {
            Some(address) => client = address,
            None => break,
        }
    }
    client
}

/// The value of `for=` in an element of `Forwarded`, without quotes; empty if there is none.
fn element_for(element: &str) -> &str {
    element
        .split(';')
        .filter_map(|pair| pair.split_once('='))
        .find(|(name, _)| name.trim().eq_ignore_ascii_case("for"))
        .map_or("", |(_, value)| value.trim().trim_matches('"'))
}

/// An address, with or without port, IPv6 with or without brackets; `unknown` and obfuscated names are none.
fn parse_node(text: &str) -> Option<IpAddr> {
    let bare = || text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let address = text.parse::<SocketAddr>().map(|socket| socket.ip()).or_else(|_| bare().parse()).ok()?;
    Some(address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn networks() -> Vec<Cidr> {
        ["10.0.0.0/8", "2001:db8::/32"].map(|text| text.parse().unwrap()).to_vec()
    }

    /// A peer that is no trusted proxy is the client, whatever it claims.
    #[test]
    fn untrusted_peers_are_not_believed() {
        assert_eq!(client_address(ip("192.0.2.1"), &["1.2.3.4"], &["for=1.2.3.4"], &networks()), ip("192.0.2.1"));
        assert_eq!(client_address(ip("10.0.0.1"), &["1.2.3.4"], &[], &[]), ip("10.0.0.1"));
    }

    /// Behind trusted proxies the last untrusted address counts, not what the client put before it.
    #[test]
    fn the_last_untrusted_hop_is_the_client() {
        let cases: [(&[&str], &[&str], &str); 9] = [
            (&["6.6.6.6, 1.2.3.4, 10.1.1.1"], &[], "1.2.3.4"),
            (&["6.6.6.6", "1.2.3.4:567"], &[], "1.2.3.4"),
            (&["[2001:db9::5]:80"], &[], "2001:db9::5"),
            (&["::ffff:1.2.3.4"], &[], "1.2.3.4"),
            (&["6.6.6.6, garbage"], &[], "10.0.0.1"),
            (&["10.2.2.2"], &[], "10.2.2.2"),
            (&[], &["for=6.6.6.6, For=\"[2001:db9::1]:4711\";proto=https"], "2001:db9::1"),
            (&[], &["for=_hidden, for=10.3.3.3"], "10.3.3.3"),
            (&["1.2.3.4"], &["for=6.6.6.6"], "1.2.3.4"),
        ];
        for (forwarded_for, forwarded, expected) in cases {
            let client = client_address(ip("10.0.0.1"), forwarded_for, forwarded, &networks());
            assert_eq!(client, ip(expected), "{forwarded_for:?} {forwarded:?}");
        }
        assert_eq!(client_address(ip("::ffff:10.0.0.1"), &["1.2.3.4"], &[], &networks()), ip("1.2.3.4"));
    }

    /// Networks parse with and without prefix, and contain exactly the addresses that share it.
    #[test]
    fn networks_compare_leading_bits() {
        let network: Cidr = "10.1.0.0/16".parse().unwrap();
        assert!(network.contains(ip("10.1.255.1")) && !network.contains(ip("10.2.0.1")));
        assert!("0.0.0.0/0".parse::<Cidr>().unwrap().contains(ip("1.2.3.4")));
        assert!(!"0.0.0.0/0".parse::<Cidr>().unwrap().contains(ip("2001:db8::1")));
        let single: Cidr = "::1".parse().unwrap();
        assert_eq!(single.to_string(), "::1/128");
        for bad in ["", "10.0.0.0/33", "10.0.0.0/", "::/129", "host", "10.0.0/8"] {
            assert!(bad.parse::<Cidr>().is_err(), "{bad}");
        }
    }

    proptest! {
        /// No header a peer sends makes the search panic.
        #[test]
        fn any_header_is_survived(a in ".{0,80}", b in ".{0,80}") {
            let _ = client_address(ip("10.0.0.1"), &[&a], &[], &networks());
            let _ = client_address(ip("10.0.0.1"), &[], &[&format!("for={b},{a}")], &networks());
        }
    }
}
