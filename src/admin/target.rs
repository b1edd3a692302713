//! What a request's target says: the variable end of its path and its query, percent-decoded (RFC 3986 §2.1).

use axum::http::Uri;

use super::answer::Fault;
use super::routes::Route;

/// The variable parts of a target.
#[derive(PartialEq, Eq, Debug)]
pub(super) struct Target {
    /// What stands in the place of the path's parameter; empty if the route has none.
    pub(super) segment: String,
    query: Vec<(String, String)>,
}

impl Target {
    /// Reads it by the route that it matched.
    ///
    /// # Errors
    /// A parameter that the route does not know, or that comes twice; bytes that are not percent-encoded UTF-8.
    pub(super) fn read(route: &Route, uri: &Uri) -> Result<Self, Fault> {
        let parameter = route.parameter();
        let segment = match parameter {
            None => String::new(),
            Some((prefix, name)) => {
                let rest = uri.path().strip_prefix(prefix).unwrap_or_default();
                decode(rest, false).ok_or_else(|| encoding(name))?
            }
        };
        let mut query: Vec<(String, String)> = Vec::new();
        for pair in uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let name = decode(name, true).ok_or_else(|| encoding(name))?;
            let value = decode(value, true).ok_or_else(|| encoding(&name))?;
            if !route.query.contains(&name.as_str()) {
                let known = if route.query.is_empty() { "none".to_owned() } else { route.query.join(", ") };
                return Err(Fault::bad_request(name, format!("there is no such parameter; there are: {known}")));
            }
            if query.iter().any(|(other, _)| *other == name) {
                return Err(Fault::bad_request(name, "the parameter comes twice; send it once"));
            }
            query.push((name, value));
        }
        Ok(Self { segment, query })
    }

    /// A parameter's value; an empty one counts as absent.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str()).filter(|v| !v.is_empty())
    }

    /// A whole number in this range; `None` if it is absent.
    pub(super) fn number(&self, name: &str, min: u64, max: u64) -> Result<Option<u64>, Fault> {
        let Some(text) = self.text(name) else { return Ok(None) };
        let number = text.parse().ok().filter(|number| (min..=max).contains(number));
        number.map(Some).ok_or_else(|| Fault::bad_request(name, format!("expected a whole number {min}–{max}")))
    }
}

fn encoding(name: &str) -> Fault {
    Fault::bad_request(name, "expected percent-encoded UTF-8")
}

/// Undoes percent-encoding, and in queries `+` for space.
fn decode(text: &str, plus: bool) -> Option<String> {
    let mut bytes = text.bytes();
    let mut out = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'%' => {
                let mut digit = || bytes.next().and_then(|digit| char::from(digit).to_digit(16));
                (digit()? << 4 | digit()?) as u8
            }
            b'+' if plus => b' ',
            byte => byte,
        });
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::routes::ROUTES;

    fn read(name: &str, target: &str) -> Result<Target, Fault> {
        let route = ROUTES.iter().find(|route| route.name == name).unwrap();
        Target::read(route, &target.parse().unwrap())
    }

    /// Path and query are decoded once; what a stream's name needs, slash or `%2F`, reads alike.
    #[test]
    fn targets_are_decoded() {
        let plain = read("history", "/api/history/relay/room:a%25b?after=7&limit=").unwrap();
        assert_eq!(plain.segment, "relay/room:a%b");
        assert_eq!((plain.number("after", 0, 9), plain.number("limit", 1, 9)), (Ok(Some(7)), Ok(None)));
        assert_eq!(read("history", "/api/history/relay%2Froom%3Aa%25b?after=%37&limit=").unwrap(), plain);
        assert_eq!(read("connections", "/api/connections?sort=a+b").unwrap().text("sort"), Some("a b"));
    }

    /// Unknown and repeated parameters, bad encodings and numbers out of range are refused by name.
    #[test]
    fn bad_targets_are_refused() {
        for (target, field) in [
            ("/api/history/a?foo=1", "foo"),
            ("/api/history/a?after=1&after=2", "after"),
            ("/api/history/a%", "stream"),
            ("/api/history/a%ff", "stream"),
            ("/api/history/a?after=%4", "after"),
        ] {
            let fault = read("history", target).unwrap_err();
            assert!(fault.text().ends_with(&format!("\"field\":\"{field}\"}}}}")), "{target}: {}", fault.text());
        }
        for bad in ["-1", "10", "x", "18446744073709551616", "1.0"] {
            let target = read("history", &format!("/api/history/a?after={bad}")).unwrap();
            assert!(target.number("after", 0, 9).is_err(), "{bad}");
        }
    }
}
