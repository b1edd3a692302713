//! Query strings of request targets (RFC 3986 §3.4, percent-encoding §2.1; `+` as browsers' `URLSearchParams` write it).

use std::borrow::Cow;

use crate::websocket::Refusal;

/// The decoded value of the first parameter `name` in `query` (without its `?`); `None` if there is none. A parameter
/// without `=` has the empty value. `+` means a space.
///
/// # Errors
/// `Malformed` if a name or the value is not percent-encoded UTF-8.
pub fn query_parameter<'a>(query: &'a str, name: &str) -> Result<Option<Cow<'a, str>>, Refusal> {
    const BAD: Refusal = Refusal::Malformed("a query parameter is not percent-encoded UTF-8");
    for pair in query.split('&') {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        if decode(key, true).ok_or(BAD)? == name {
            return decode(value, true).ok_or(BAD).map(Some);
        }
    }
    Ok(None)
}

/// Replaces each `%XX` by its byte; borrows if there is none. `None` if a `%` lacks its two hexadecimal digits or the
/// result is not UTF-8.
#[must_use]
pub fn percent_decode(text: &str) -> Option<Cow<'_, str>> {
    decode(text, false)
}

fn decode(text: &str, plus_is_space: bool) -> Option<Cow<'_, str>> {
    let plain = |b: u8| b != b'%' && !(plus_is_space && b == b'+');
    if text.bytes().all(plain) {
        return Some(Cow::Borrowed(text));
    }
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'%' => hex(bytes.next()?)? << 4 | hex(bytes.next()?)?,
            b'+' if plus_is_space => b' ',
            other => other,
        });
    }
    String::from_utf8(out).ok().map(Cow::Owned)
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|value| value as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Parameters are found by their decoded names, values decoded, the first of equal names counts.
    #[test]
    fn parameters_are_found_and_decoded() {
        let query = "token=a.b-c_d&name=J%C3%B6rg+M&%66lag&token=second&=x";
        for (name, value) in [("token", Some("a.b-c_d")), ("name", Some("Jörg M")), ("flag", Some("")), ("no", None)] {
            assert_eq!(query_parameter(query, name).unwrap().as_deref(), value);
        }
        assert!(matches!(query_parameter(query, "token"), Ok(Some(Cow::Borrowed(_)))));
        assert_eq!(query_parameter("", "token"), Ok(None));
    }

    /// Broken escapes and bytes that are no UTF-8 are refused with 400.
    #[test]
    fn broken_escapes_are_refused() {
        for query in ["a=%", "a=%4", "a=%zz", "a=%ff", "%=1&a=2", "a=%+1"] {
            assert_eq!(query_parameter(query, "a").unwrap_err().status(), 400, "{query}");
        }
        assert_eq!(percent_decode("a+b%20c").as_deref(), Some("a+b c"));
        assert_eq!(percent_decode("%2"), None);
    }
}
