//! Who may use the server API: `Authorization: apikey <key>`.
//!
//! Keys are compared by their SHA-256, all of them, without an early end, so that time tells nothing of them. Wrong keys
//! are counted by address, each once in a row, so that a backend with an outdated key does not lock out its neighbours;
//! an address that has guessed too often is answered 429 and its key not looked at. The count is bounded.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Mutex;

use axum::http::{HeaderMap, StatusCode, header};
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use crate::admin::answer::Fault;
use crate::limits;
use crate::router::Latest;

/// See the module.
pub(super) struct Gate {
    keys: Mutex<Keys>,
    guesses: Mutex<BTreeMap<IpAddr, Guesses>>,
}

/// The keys as they are now.
struct Keys {
    digests: Vec<[u8; 32]>,
    texts: Latest<Vec<String>>,
}

/// The wrong keys of an address.
#[derive(Clone, Copy)]
struct Guesses {
    count: u32,
    /// When the count was last lowered, or began.
    since: Instant,
    last: [u8; 32],
}

impl Gate {
    pub(super) fn new(texts: Latest<Vec<String>>) -> Self {
        Self { keys: Mutex::new(Keys { digests: digests(&texts), texts }), guesses: Mutex::default() }
    }

    /// Lets a request through, or says what to send.
    pub(super) fn check(&self, headers: &HeaderMap, from: IpAddr, now: Instant) -> Result<(), Fault> {
        let refuse = |message| Err(Fault::new(StatusCode::UNAUTHORIZED, "unauthorized", message));
        let mut keys = self.keys.lock().expect("nothing panics while it holds the keys");
        if keys.texts.refresh() {
            keys.digests = digests(&keys.texts);
        }
        if keys.digests.is_empty() {
            return refuse(
                "no API key is configured; set API_KEY (16 characters or more) or [admin] api_keys and start anew",
            );
        }
        let Some(key) = headers.get(header::AUTHORIZATION).and_then(|value| key(value.as_bytes())) else {
            return refuse("send the header Authorization: apikey <key>");
        };
        let digest = digest(key);
        let address = group(from);
        let mut guesses = self.guesses.lock().expect("nothing panics while it holds the guesses");
        let before = guesses.get_mut(&address).map(|guesses| guesses.at(now));
        if let Some(Guesses { count: limits::API_GUESSES.., since, .. }) = before {
            let wait = limits::API_GUESS_INTERVAL.saturating_sub(now.saturating_duration_since(since));
            let fault = Fault::new(StatusCode::TOO_MANY_REQUESTS, "rate_limited", "too many wrong keys; wait");
            return Err(fault.retry_after(wait.as_secs() + 1));
        }
        if keys.know(&digest) {
            return Ok(());
        }
        let repeated = before.is_some_and(|guesses| guesses.last == digest);
        if !repeated {
            make_room(&mut guesses, &address);
            let entry = guesses.entry(address).or_insert(Guesses { count: 0, since: now, last: digest });
            entry.last = digest;
            entry.count += 1;
        }
        refuse("the API key is wrong; API_KEY and [admin] api_keys say which are right")
    }
}

impl Keys {
    fn know(&self, digest: &[u8; 32]) -> bool {
        let equals = |key: &[u8; 32]| key.iter().zip(digest).fold(0, |seen, (a, b)| seen | (a ^ b)) == 0;
        self.digests.iter().fold(false, |known, key| known | std::hint::black_box(equals(key)))
    }
}

impl std::fmt::Debug for Gate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gate").finish_non_exhaustive()
    }
}

impl Guesses {
    /// Forgets what time has made up for.
    fn at(&mut self, now: Instant) -> Self {
        let elapsed = now.saturating_duration_since(self.since).as_nanos() / limits::API_GUESS_INTERVAL.as_nanos();
        let forgiven = u32::try_from(elapsed).unwrap_or(u32::MAX).min(self.count);
        self.count -= forgiven;
        self.since = if self.count == 0 { now } else { self.since + limits::API_GUESS_INTERVAL * forgiven };
        *self
    }
}

/// Keeps the table within its bound: the address whose count began or was lowered first is forgotten.
fn make_room(guesses: &mut BTreeMap<IpAddr, Guesses>, address: &IpAddr) {
    if guesses.len() < limits::API_ADDRESSES || guesses.contains_key(address) {
        return;
    }
    let oldest = guesses.iter().min_by_key(|(_, guesses)| guesses.since).map(|(address, _)| *address);
    if let Some(oldest) = oldest {
        guesses.remove(&oldest);
    }
}

/// The scheme is compared as RFC 9110 §11.1 says, without regard to case.
fn key(header: &[u8]) -> Option<&[u8]> {
    let (scheme, key) = header.split_at_checked(SCHEME.len())?;
    let key = key.trim_ascii();
    (scheme.eq_ignore_ascii_case(SCHEME) && !key.is_empty()).then_some(key)
}

fn digests(keys: &[String]) -> Vec<[u8; 32]> {
    keys.iter().map(|key| digest(key.as_bytes())).collect()
}

fn digest(key: &[u8]) -> [u8; 32] {
    Sha256::digest(key).into()
}

/// Who has an IPv6 address has its /64.
fn group(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX))),
        address => address,
    }
}

const SCHEME: &[u8] = b"apikey ";

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const KEY: &str = "a key of sixteen or more";
    const HOME: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

    fn gate_of(keys: &[&str]) -> Gate {
        Gate::new(Latest::new(keys.iter().map(|key| (*key).to_owned()).collect()))
    }

    fn status(gate: &Gate, header: Option<&str>, from: IpAddr, now: Instant) -> u16 {
        let mut headers = HeaderMap::new();
        if let Some(value) = header {
            headers.insert(header::AUTHORIZATION, value.parse().unwrap());
        }
        match gate.check(&headers, from, now) {
            Ok(()) => 200,
            Err(fault) => axum::response::IntoResponse::into_response(fault).status().as_u16(),
        }
    }

    /// Any configured key opens, in any case of the scheme; nothing else does, and without a key nobody gets in.
    #[test]
    fn keys_open() {
        let (gate, now) = (gate_of(&[KEY, "another key, as good"]), Instant::now());
        for header in [format!("apikey {KEY}"), format!("ApiKey  {KEY} "), "apikey another key, as good".into()] {
            assert_eq!(status(&gate, Some(&header), HOME, now), 200, "{header}");
        }
        for header in [None, Some("apikey"), Some("apikey "), Some("Bearer x"), Some("apikey a key of sixteen or mor")]
        {
            assert_eq!(status(&gate, header, HOME, now), 401, "{header:?}");
        }
        assert_eq!(status(&gate_of(&[]), Some(&format!("apikey {KEY}")), HOME, now), 401);
    }

    /// The newest keys open, the former ones no more.
    #[test]
    fn keys_are_replaced() {
        let (mut keys, now) = (Latest::new(vec![KEY.to_owned()]), Instant::now());
        let gate = Gate::new(keys.clone());
        assert_eq!(status(&gate, Some("apikey the key of next year"), HOME, now), 401);
        keys.publish(vec!["the key of next year".into()]);
        assert_eq!(status(&gate, Some("apikey the key of next year"), HOME, now), 200);
        assert_eq!(status(&gate, Some(&format!("apikey {KEY}")), HOME, now), 401);
    }

    /// Different wrong keys of one address end in 429, for the right key too, until time has passed; other addresses go on.
    #[test]
    fn guesses_are_limited() {
        let (gate, now) = (gate_of(&[KEY]), Instant::now());
        let right = format!("apikey {KEY}");
        for n in 0..limits::API_GUESSES {
            assert_eq!(status(&gate, Some(&right), HOME, now), 200);
            assert_eq!(status(&gate, Some(&format!("apikey guess {n}")), HOME, now), 401);
        }
        for header in ["apikey guess", &right] {
            assert_eq!(status(&gate, Some(header), HOME, now), 429);
        }
        assert_eq!(status(&gate, None, HOME, now), 401, "no key is no guess");
        assert_eq!(status(&gate, Some(&right), "10.0.0.1".parse().unwrap(), now), 200);
        let later = now + limits::API_GUESS_INTERVAL;
        assert_eq!(status(&gate, Some(&right), HOME, later), 200);
        assert_eq!(status(&gate, Some("apikey one more"), HOME, later), 401);
        assert_eq!(status(&gate, Some(&right), HOME, later), 429);
    }

    /// A wrong key that is sent again and again is one guess.
    #[test]
    fn an_outdated_key_locks_nobody_out() {
        let (gate, now) = (gate_of(&[KEY]), Instant::now());
        for _ in 0..100 {
            assert_eq!(status(&gate, Some("apikey the key of last year"), HOME, now), 401);
        }
        assert_eq!(status(&gate, Some(&format!("apikey {KEY}")), HOME, now), 200);
    }

    /// However many addresses guess, a bounded number is remembered; a network of IPv6 counts as one.
    #[test]
    fn addresses_are_bounded() {
        let (gate, now) = (gate_of(&[KEY]), Instant::now());
        for n in 0..3000_u128 {
            let from = Ipv6Addr::from_bits(n << 64);
            status(&gate, Some("apikey guess"), from.into(), now + Duration::from_nanos(n as u64));
        }
        assert_eq!(gate.guesses.lock().unwrap().len(), limits::API_ADDRESSES);
        let (a, b) = ("2001:db8::1".parse().unwrap(), "2001:db8::ffff:1".parse().unwrap());
        assert_eq!(group(a), group(b));
        assert_eq!(group("::ffff:10.0.0.1".parse().unwrap()), "10.0.0.1".parse::<IpAddr>().unwrap());
    }
}
