//! The `Origin` check of the upgrade (RFC 6455 §10.2): it protects users of browsers from foreign pages. It is not
//! authentication, and clients that are no browsers send none.

/// Whether a request with these headers may upgrade: no `Origin`, or a page of the same host (any port), or of
/// localhost, or one of the allowlist. `*` in the allowlist allows any origin, `null` included.
#[must_use]
pub fn allowed<S: AsRef<str>>(origin: Option<&str>, host: Option<&str>, allowlist: &[S]) -> bool {
    let Some(origin) = origin else { return true };
    if allowlist.iter().any(|entry| entry.as_ref() == "*") {
        return true;
    }
    let Some(origin) = Origin::parse(origin) else { return false };
    origin.is_local()
        || host.and_then(split_authority).is_some_and(|(name, _)| name.eq_ignore_ascii_case(origin.name))
        || allowlist.iter().filter_map(|entry| Origin::parse(entry.as_ref())).any(|entry| entry.equals(&origin))
}

/// Whether the text can be an entry of the allowlist: `*`, or scheme, host and maybe port, as browsers send them.
#[must_use]
pub fn is_origin(text: &str) -> bool {
    text == "*" || Origin::parse(text).is_some()
}

/// An origin of scheme http or https (RFC 6454 §6.2).
/// Whether a `Host` is an address or this machine, rather than a domain, which its owner can point anywhere (DNS
/// rebinding) so that a browser takes a foreign page for one of this server.
#[must_use]
pub fn is_address(host: &str) -> bool {
    let Some((name, _)) = split_authority(host) else { return false };
    let literal = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
    is_local_name(name)
        || name.parse::<std::net::Ipv4Addr>().is_ok()
        || literal.is_some_and(|name| name.parse::<std::net::Ipv6Addr>().is_ok())
}

struct Origin<'a> {
    secure: bool,
    name: &'a str,
    port: u16,
}

impl<'a> Origin<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let (scheme, authority) = text.split_once("://")?;
        let secure = scheme.eq_ignore_ascii_case("https");
        if !secure && !scheme.eq_ignore_ascii_case("http") {
            return None;
        }
        let (name, port) = split_authority(authority)?;
        Some(Self { secure, name, port: port.unwrap_or(if secure { 443 } else { 80 }) })
    }

    fn equals(&self, other: &Self) -> bool {
        self.secure == other.secure && self.port == other.port && self.name.eq_ignore_ascii_case(other.name)
    }

    fn is_local(&self) -> bool {
        is_local_name(self.name)
    }
}

/// RFC 6761 §6.3 keeps `localhost` and what is below it for this machine.
fn is_local_name(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    name == "localhost"
        || name.ends_with(".localhost")
        || name == "[::1]"
        || name.parse::<std::net::Ipv4Addr>().is_ok_and(|address| address.is_loopback())
}

/// Host and port of `host`, `host:port`, `[v6]`, `[v6]:port`; anything with user, path or space is none.
fn split_authority(text: &str) -> Option<(&str, Option<u16>)> {
    let end = if text.starts_with('[') { text.find(']')? + 1 } else { text.find(':').unwrap_or(text.len()) };
    let (name, rest) = text.split_at(end);
    let valid = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'[' | b']' | b':');
    if name.is_empty() || !name.bytes().all(valid) {
        return None;
    }
    match rest.strip_prefix(':') {
        None if rest.is_empty() => Some((name, None)),
        Some(port) if port.bytes().all(|b| b.is_ascii_digit()) => Some((name, Some(port.parse().ok()?))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NONE: [&str; 0] = [];

    /// Without an allowlist: no origin, the same host and localhost pass, foreign pages do not.
    #[test]
    fn same_host_and_localhost_pass_by_default() {
        let host = Some("play.example.com:9998");
        assert!(allowed(None, host, &NONE));
        for origin in [
            "https://play.example.com",
            "http://PLAY.example.com:3000",
            "http://localhost:5173",
            "http://127.0.0.1",
            "https://app.localhost",
            "http://[::1]:8080",
        ] {
            assert!(allowed(Some(origin), host, &NONE), "{origin}");
        }
        for origin in [
            "https://evil.example",
            "https://play.example.com.evil.example",
            "https://example.com",
            "https://localhost.evil.example",
            "https://notlocalhost",
            "http://127.0.0.1.evil.example",
            "https://play.example.com@evil.example",
            "https://evil.example/play.example.com",
            "file://play.example.com",
            "null",
            "",
            "https://",
            "https://:443",
        ] {
            assert!(!allowed(Some(origin), host, &NONE), "{origin}");
        }
        assert!(!allowed(Some("https://play.example.com"), None, &NONE));
        assert!(allowed(Some("http://[2001:db8::1]"), Some("[2001:DB8::1]:9998"), &NONE));
    }

    /// The allowlist compares scheme, host and port, defaults filled in; `*` allows all.
    #[test]
    fn the_allowlist_is_exact() {
        let list = ["https://app.example.com", "http://dev.example.com:3000"];
        for origin in ["https://app.example.com", "https://App.example.com:443", "http://dev.example.com:3000"] {
            assert!(allowed(Some(origin), Some("ws.example.com"), &list), "{origin}");
        }
        for origin in ["http://app.example.com", "https://app.example.com:444", "https://a.app.example.com", "null"] {
            assert!(!allowed(Some(origin), Some("ws.example.com"), &list), "{origin}");
        }
        assert!(allowed(Some("null"), None, &["*"]));
        assert!(is_origin("*") && is_origin("https://a.b:1"));
        assert!(!is_origin("a.b") && !is_origin("https://a.b/") && !is_origin("https://a.b:99999"));
    }

    /// Addresses and localhost are no domains; anything that a name server answers for is one.
    #[test]
    fn domains_are_told_from_addresses() {
        for host in
            ["127.0.0.1:9998", "localhost", "LOCALHOST:80", "a.localhost", "[::1]:9998", "192.168.0.7", "[fe80::1]"]
        {
            assert!(is_address(host), "{host}");
        }
        for host in ["example.com", "localhost.example.com:9998", "127.0.0.1.example", "[x]", "", ":80", "1.2.3", "a b"]
        {
            assert!(!is_address(host), "{host}");
        }
    }

    proptest! {
        /// No header a peer sends makes the check panic.
        #[test]
        fn any_header_is_survived(origin in ".{0,60}", host in ".{0,60}") {
            let _ = allowed(Some(&origin), Some(&host), &["https://a.example"]);
            let _ = allowed(Some(&format!("http://{origin}")), Some(&host), &NONE);
        }
    }
}
