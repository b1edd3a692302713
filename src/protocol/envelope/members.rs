//! JSON texts as they stand: whether one is valid, and the members of an object as slices of it.
//!
//! [`members`] relies on validity for its meaning, never for its safety: of any text it makes slices or an end.

use std::borrow::Cow;

use simd_json::{Buffers, Tape};

/// Tells JSON from other bytes. Holds the buffers of simd-json, so that a check allocates nothing at rest.
pub struct Json {
    copy: Vec<u8>,
    buffers: Buffers,
    tape: Option<Tape<'static>>,
}

impl Default for Json {
    fn default() -> Self {
        Self { copy: Vec::new(), buffers: Buffers::default(), tape: Some(Tape(Vec::new())) }
    }
}

impl Json {
    /// The bytes as text without surrounding space, if they are one JSON value; simd-json works on a copy, since it
    /// writes into what it reads.
    pub fn check<'a>(&mut self, bytes: &'a [u8]) -> Option<&'a str> {
        self.copy.clear();
        self.copy.extend_from_slice(bytes);
        let mut tape = self.tape.take().unwrap_or(Tape(Vec::new())).reset();
        let valid = simd_json::fill_tape(&mut self.copy, &mut self.buffers, &mut tape).is_ok();
        self.tape = Some(tape.reset());
        if self.copy.capacity() > KEPT_BYTES {
            *self = Self::default();
        }
        let text = if valid { std::str::from_utf8(bytes).ok()? } else { return None };
        Some(text.trim_matches(SPACE))
    }

    /// Like [`Json::check`], for objects only.
    pub fn check_object<'a>(&mut self, bytes: &'a [u8]) -> Option<&'a str> {
        self.check(bytes).filter(|text| text.starts_with('{'))
    }
}

impl std::fmt::Debug for Json {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Json").finish_non_exhaustive()
    }
}

/// The members of an object, in order: the key as it stands between its quotes, and the value's text.
pub fn members(object: &str) -> impl Iterator<Item = (&str, &str)> {
    let mut rest = object.trim_matches(SPACE).strip_prefix('{').unwrap_or("");
    std::iter::from_fn(move || {
        rest = rest.trim_start_matches(SPACE);
        rest = rest.strip_prefix(',').unwrap_or(rest).trim_start_matches(SPACE);
        let (key, behind) = string(rest)?;
        let value = behind.trim_start_matches(SPACE).strip_prefix(':')?.trim_start_matches(SPACE);
        let (value, behind) = value.split_at_checked(value_len(value))?;
        rest = behind;
        (!value.is_empty()).then_some((key, value))
    })
}

/// The value of an object's member; of several with the name the last, as most parsers take it.
#[must_use]
pub fn member<'a>(object: &'a str, name: &str) -> Option<&'a str> {
    members(object).filter(|(key, _)| names(key, name)).last().map(|(_, value)| value)
}

/// Whether a key, as it stands between its quotes, spells the name.
#[must_use]
pub fn names(key: &str, name: &str) -> bool {
    if key.contains('\\') { unescape(key).is_some_and(|key| key == name) } else { key == name }
}

/// What a string says; of a number its digits, since ids may be sent as numbers. `None` for other values.
#[must_use]
pub fn text(value: &str) -> Option<Cow<'_, str>> {
    match value.as_bytes().first()? {
        b'"' => {
            let (inner, _) = string(value)?;
            if inner.contains('\\') { unescape(inner).map(Cow::Owned) } else { Some(Cow::Borrowed(inner)) }
        }
        b'-' | b'0'..=b'9' => Some(Cow::Borrowed(value)),
        _ => None,
    }
}

/// Whether an object has such a member and it is neither null nor a [`text`].
#[must_use]
pub fn is_no_text(object: &str, name: &str) -> bool {
    member(object, name).is_some_and(|value| value != "null" && text(value).is_none())
}

/// The first of these names that an object has more than once; parsers differ in which of them they take.
#[must_use]
pub fn given_twice(object: &str, wanted: &[&'static str]) -> Option<&'static str> {
    let count = |name: &str| members(object).filter(|(key, _)| names(key, name)).count();
    wanted.iter().copied().find(|name| count(name) > 1)
}

/// The inside of the string that the text begins with, and what follows its closing quote.
fn string(text: &str) -> Option<(&str, &str)> {
    let inner = text.strip_prefix('"')?;
    let mut escaped = false;
    let end = inner.bytes().position(|byte| {
        let quote = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        quote
    })?;
    Some((inner.get(..end)?, inner.get(end + 1..)?))
}

/// Bytes of the value that the text begins with.
fn value_len(text: &str) -> usize {
    let (mut depth, mut in_string, mut escaped) = (0usize, false, false);
    for (at, byte) in text.bytes().enumerate() {
        if in_string {
            in_string = byte != b'"' || escaped;
            escaped = byte == b'\\' && !escaped;
            if in_string || depth > 0 {
                continue;
            }
            return at + 1;
        }
        match byte {
            b'"' => in_string = true,
            b'{' | b'[' => depth += 1,
            b'}' | b']' if depth > 1 => depth -= 1,
            b'}' | b']' if depth == 1 => return at + 1,
            b',' | b'}' | b']' | b' ' | b'\t' | b'\n' | b'\r' if depth == 0 => return at,
            _ => {}
        }
    }
    text.len()
}

fn unescape(inner: &str) -> Option<String> {
    let mut quoted = format!("\"{inner}\"").into_bytes();
    simd_json::from_slice(&mut quoted).ok()
}

/// JSON's white space (RFC 8259 §2).
pub(super) const SPACE: [char; 4] = [' ', '\t', '\n', '\r'];
/// Buffers that one huge text made larger than this are not kept.
const KEPT_BYTES: usize = 1 << 20;
