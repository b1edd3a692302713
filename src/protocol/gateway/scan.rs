//! A JSON scanner that changes nothing: it checks a text whole (RFC 8259) and says where the members of its outermost
//! object stand. Open brackets are bits of a word, so its work is one pass and its memory a list of spans.
//!
//! Stricter than the grammar where readers differ: no lone surrogates, and no numbers that a double cannot hold.

use std::borrow::Cow;

use super::Malformed;

/// Brackets open at once, the outermost included.
pub const DEPTH_MAX: u32 = 32;
/// Fields of a client's message on its top level; each is compared with all before it.
pub const FIELDS_MAX: usize = 64;
/// Bytes of a field's name on the top level, as sent; bounds those comparisons.
pub const NAME_BYTES_MAX: usize = 256;
/// Bytes of a number; a double's shortest form has at most 24.
pub const NUMBER_BYTES_MAX: usize = 64;

/// Scratch space of [`parse`](super::parse): the fields of the message read last.
#[derive(Clone, Default, Debug)]
pub struct Fields(Vec<Span>);

impl Fields {
    /// Checks a text and finds its fields.
    pub(super) fn read<'a>(&'a mut self, text: &'a str) -> Result<Object<'a>, Malformed> {
        let Self(spans) = self;
        spans.clear();
        scan_object(text, |span| {
            if spans.len() == FIELDS_MAX {
                return Err(Malformed::TooManyFields);
            }
            let key = span.key(text);
            if key.len() > NAME_BYTES_MAX {
                return Err(Malformed::LongName);
            }
            if spans.iter().any(|other| same(other, span, text)) {
                return Err(Malformed::Duplicate { field: unescape(key).chars().take(64).collect() });
            }
            spans.push(*span);
            Ok(())
        })?;
        Ok(Object { text, spans })
    }
}

/// A checked object and where its fields stand.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Object<'a> {
    text: &'a str,
    spans: &'a [Span],
}

impl<'a> Object<'a> {
    /// A field's value as it stands.
    pub(super) fn value(&self, name: &str) -> Option<&'a str> {
        Some(self.span(name)?.value(self.text))
    }

    /// See [`text`].
    pub(super) fn text(&self, name: &str) -> Option<Cow<'a, str>> {
        let span = self.span(name)?;
        let value = span.value(self.text);
        if span.plain { value.get(1..value.len() - 1).map(Cow::Borrowed) } else { text(value) }
    }

    /// What a field says that is a string.
    pub(super) fn string(&self, name: &str) -> Option<Cow<'a, str>> {
        self.text(name).filter(|_| self.value(name).is_some_and(|value| value.starts_with('"')))
    }

    /// Whether there is no such field, or null.
    pub(super) fn is_absent(&self, name: &str) -> bool {
        self.value(name).is_none_or(|value| value == "null")
    }

    fn span(&self, name: &str) -> Option<&'a Span> {
        self.spans.iter().find(|span| span.is(name, self.text))
    }
}

/// Where a member stands in its text.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Span {
    key: u32,
    key_end: u32,
    value: u32,
    value_end: u32,
    /// Whether the name has escapes.
    escaped: bool,
    /// Whether the value is a string without escapes.
    plain: bool,
}

impl Span {
    /// The name as it stands between its quotes.
    pub(super) fn key<'a>(&self, text: &'a str) -> &'a str {
        &text[self.key as usize..self.key_end as usize]
    }

    /// The value as it stands.
    pub(super) fn value<'a>(&self, text: &'a str) -> &'a str {
        &text[self.value as usize..self.value_end as usize]
    }

    /// Whether this is the member's name, however it is spelled.
    pub(super) fn is(&self, name: &str, text: &str) -> bool {
        if self.escaped {
            return Characters(self.key(text)).eq(name.chars());
        }
        self.key_len() == name.len() && self.key(text) == name
    }

    fn key_len(&self) -> usize {
        (self.key_end - self.key) as usize
    }
}

/// Whether two members have one name.
fn same(a: &Span, b: &Span, text: &str) -> bool {
    if a.escaped || b.escaped {
        return Characters(a.key(text)).eq(Characters(b.key(text)));
    }
    a.key_len() == b.key_len() && a.key(text) == b.key(text)
}

/// What a checked value says, if it is a string; of a number its digits.
pub(super) fn text(value: &str) -> Option<Cow<'_, str>> {
    match value.as_bytes().first()? {
        b'"' => value.get(1..value.len() - 1).map(unescape),
        b'-' | b'0'..=b'9' => Some(Cow::Borrowed(value)),
        _ => None,
    }
}

/// What stands between the quotes of a checked string, without escapes.
pub(super) fn unescape(inner: &str) -> Cow<'_, str> {
    if inner.contains('\\') { Cow::Owned(Characters(inner).collect()) } else { Cow::Borrowed(inner) }
}

/// The characters of a checked string. Of an unchecked one, replacement characters stand for what has no meaning.
struct Characters<'a>(&'a str);

impl Characters<'_> {
    fn unit(&mut self) -> Option<u32> {
        let (digits, rest) = self.0.split_at_checked(4)?;
        self.0 = rest;
        u32::from_str_radix(digits, 16).ok()
    }

    fn escaped(&mut self) -> Option<char> {
        let mut rest = self.0.chars();
        let letter = rest.next()?;
        self.0 = rest.as_str();
        Some(match letter {
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'u' => {
                let unit = self.unit()?;
                if !(0xd800..0xdc00).contains(&unit) {
                    return char::from_u32(unit);
                }
                self.0 = self.0.strip_prefix("\\u")?;
                let low = self.unit()?;
                char::from_u32(0x1_0000 + ((unit - 0xd800) << 10) + low.checked_sub(0xdc00)?)?
            }
            other => other,
        })
    }
}

impl Iterator for Characters<'_> {
    type Item = char;

    fn next(&mut self) -> Option<char> {
        let mut rest = self.0.chars();
        let character = rest.next()?;
        self.0 = rest.as_str();
        if character != '\\' {
            return Some(character);
        }
        Some(self.escaped().unwrap_or(char::REPLACEMENT_CHARACTER))
    }
}

/// Checks that the text is one JSON object with nothing but space around it, and shows each of its members in order;
/// the first error of `each` ends it.
pub(super) fn scan_object(text: &str, mut each: impl FnMut(&Span) -> Result<(), Malformed>) -> Result<(), Malformed> {
    let mut scanner = Scanner { bytes: text.as_bytes(), at: 0 };
    if u32::try_from(text.len()).is_err() {
        return Err(scanner.malformed("less than 4 GiB"));
    }
    scanner.space();
    if !scanner.takes(b'{') {
        return Err(Malformed::NotAnObject);
    }
    scanner.space();
    let mut ended = scanner.takes(b'}');
    while !ended {
        match scanner.member() {
            Ok(span) => each(&span)?,
            Err(expected) => return Err(scanner.malformed(expected)),
        }
        scanner.space();
        ended = scanner.takes(b'}');
        if !ended && !scanner.takes(b',') {
            return Err(scanner.malformed("',' or '}'"));
        }
        scanner.space();
    }
    scanner.space();
    if scanner.at < scanner.bytes.len() { Err(scanner.malformed("the end")) } else { Ok(()) }
}

/// Invariant: `at <= bytes.len()`.
struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
}

/// The error is what had to stand at `at`: two words, which fit in registers.
type Scanned<T = ()> = Result<T, &'static str>;

impl Scanner<'_> {
    fn malformed(&self, expected: &'static str) -> Malformed {
        Malformed::Syntax { at: self.at, expected }
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn next(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        self.at += 1;
        Some(byte)
    }

    /// Passes over the byte if it stands here.
    #[inline(always)]
    fn takes(&mut self, byte: u8) -> bool {
        if self.peek() != Some(byte) {
            return false;
        }
        self.at += 1;
        true
    }

    fn space(&mut self) {
        while let Some(b' ' | b'\n' | b'\t' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    /// A member of the outermost object.
    fn member(&mut self) -> Scanned<Span> {
        let key = self.at as u32 + 1;
        let escaped = self.name()?;
        let key_end = self.at as u32 - 1;
        self.colon()?;
        let value = self.at as u32;
        let plain = if self.takes(b'"') {
            !self.string()?
        } else {
            self.value()?;
            false
        };
        Ok(Span { key, key_end, value, value_end: self.at as u32, escaped, plain })
    }

    /// A name; whether it has escapes.
    fn name(&mut self) -> Scanned<bool> {
        if self.takes(b'"') { self.string() } else { Err("a field's name in quotes") }
    }

    /// A colon and the space around it.
    fn colon(&mut self) -> Scanned {
        self.space();
        if !self.takes(b':') {
            return Err("':'");
        }
        self.space();
        Ok(())
    }

    /// One value inside of the outermost object.
    fn value(&mut self) -> Scanned {
        // The bracket opened last is the lowest bit, 1 = an object.
        let (mut open, mut depth) = (0u32, 1);
        loop {
            if let Some(object) = self.begin(depth)? {
                (open, depth) = ((open << 1) | u32::from(object), depth + 1);
                continue;
            }
            loop {
                if depth == 1 {
                    return Ok(());
                }
                self.space();
                let object = open & 1 == 1;
                if self.takes(b',') {
                    self.space();
                    if object {
                        self.name()?;
                        self.colon()?;
                    }
                    break;
                }
                if !self.takes(if object { b'}' } else { b']' }) {
                    return Err(if object { "',' or '}'" } else { "',' or ']'" });
                }
                (open, depth) = (open >> 1, depth - 1);
            }
        }
    }

    /// A scalar or an empty bracket, whole; or a bracket with something in it up to its first value, and then whether
    /// it is an object. `depth` brackets are open.
    #[inline(always)]
    fn begin(&mut self, depth: u32) -> Scanned<Option<bool>> {
        match self.peek() {
            Some(b'{' | b'[') if depth == DEPTH_MAX => return Err("at most 32 open brackets"),
            Some(b'"') => {
                self.at += 1;
                self.string()?;
            }
            Some(b'{') => {
                self.at += 1;
                self.space();
                if !self.takes(b'}') {
                    self.name()?;
                    self.colon()?;
                    return Ok(Some(true));
                }
            }
            Some(b'[') => {
                self.at += 1;
                self.space();
                if !self.takes(b']') {
                    return Ok(Some(false));
                }
            }
            Some(b'-' | b'0'..=b'9') => self.number()?,
            Some(b't') => self.word(b"true")?,
            Some(b'f') => self.word(b"false")?,
            Some(b'n') => self.word(b"null")?,
            _ => return Err("a value"),
        }
        Ok(None)
    }

    fn word(&mut self, word: &[u8]) -> Scanned {
        if !self.bytes[self.at..].starts_with(word) {
            return Err("a value");
        }
        self.at += word.len();
        Ok(())
    }

    /// Behind the opening quote: up to and past the closing one; whether there are escapes.
    fn string(&mut self) -> Scanned<bool> {
        let mut escaped = false;
        loop {
            self.at += plain_len(&self.bytes[self.at..]);
            match self.peek() {
                Some(b'"') => break,
                Some(b'\\') => self.escape()?,
                Some(_) => return Err("an escape in place of a control character"),
                None => return Err("'\"'"),
            }
            escaped = true;
        }
        self.at += 1;
        Ok(escaped)
    }

    /// A backslash and what belongs to it.
    fn escape(&mut self) -> Scanned {
        self.at += 1;
        match self.next() {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => Ok(()),
            Some(b'u') => match self.unit()? {
                0xdc00..0xe000 => Err("a high surrogate before a low one"),
                0xd800..0xdc00 => {
                    let pair = self.takes(b'\\') && self.takes(b'u') && matches!(self.unit()?, 0xdc00..0xe000);
                    if pair { Ok(()) } else { Err("a low surrogate behind a high one") }
                }
                _ => Ok(()),
            },
            _ => Err("one of \"\\/bfnrtu behind a backslash"),
        }
    }

    /// Four hexadecimal digits.
    fn unit(&mut self) -> Scanned<u32> {
        let mut unit = 0;
        for _ in 0..4 {
            let digit = self.next().and_then(|byte| char::from(byte).to_digit(16));
            unit = (unit << 4) | digit.ok_or("four hexadecimal digits behind \\u")?;
        }
        Ok(unit)
    }

    fn number(&mut self) -> Scanned {
        let start = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        if !self.takes(b'0') {
            self.digits()?;
        }
        let mut exponent = false;
        if let Some(b'.' | b'e' | b'E') = self.peek() {
            exponent = self.fraction()?;
        }
        let number = &self.bytes[start..self.at];
        let finite = || std::str::from_utf8(number).is_ok_and(|text| text.parse().is_ok_and(f64::is_finite));
        if number.len() <= NUMBER_BYTES_MAX && (!exponent || finite()) {
            return Ok(());
        }
        self.at = start;
        Err("a number that a double can hold, in at most 64 bytes")
    }

    /// What follows a number's whole part; whether there is an exponent.
    fn fraction(&mut self) -> Scanned<bool> {
        if self.takes(b'.') {
            self.digits()?;
        }
        if !self.takes(b'e') && !self.takes(b'E') {
            return Ok(false);
        }
        let _sign = self.takes(b'+') || self.takes(b'-');
        self.digits()?;
        Ok(true)
    }

    /// One digit or more.
    fn digits(&mut self) -> Scanned {
        let rest = &self.bytes[self.at..];
        let len = rest.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(rest.len());
        self.at += len;
        if len == 0 { Err("a digit") } else { Ok(()) }
    }
}

/// Bytes before the first quote, backslash or control character.
#[inline]
pub(super) fn plain_len(bytes: &[u8]) -> usize {
    let mut at = 0;
    while let Some(chunk) = bytes[at..].first_chunk() {
        let word = u64::from_le_bytes(*chunk);
        // Of each word only the lowest hit is exact, and only that is used: a borrow runs upwards.
        let below = |word: u64, least: u64| word.wrapping_sub(ONES * least) & !word;
        let equal = |byte: u8| below(word ^ (ONES * u64::from(byte)), 1);
        let hits = (equal(b'"') | equal(b'\\') | below(word, 0x20)) & (ONES * 0x80);
        if hits != 0 {
            return at + hits.trailing_zeros() as usize / 8;
        }
        at += 8;
        // Most strings end in the first words; a long one goes on by vectors, which this fold becomes.
        while let Some(chunk) = bytes[at..].first_chunk::<LONG_CHUNK>().filter(|_| at >= LONG_FROM) {
            if chunk.iter().fold(false, |any, byte| any | special(*byte)) {
                break;
            }
            at += LONG_CHUNK;
        }
    }
    bytes[at..].iter().position(|byte| special(*byte)).map_or(bytes.len(), |found| at + found)
}

fn special(byte: u8) -> bool {
    (byte == b'"') | (byte == b'\\') | (byte < 0x20)
}

/// Bytes that a long string is checked by at once, and from where on.
const LONG_CHUNK: usize = 32;
const LONG_FROM: usize = 24;

/// Bytes of a string's inside, from behind its opening quote up to the closing one; `None` if it does not end.
pub(super) fn string_len(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        at += plain_len(bytes.get(at..)?);
        match bytes.get(at)? {
            b'"' => return Some(at),
            b'\\' => at += 2,
            _ => return None,
        }
    }
}

/// One in each byte of a word.
const ONES: u64 = u64::from_le_bytes([1; 8]);

const _: () = assert!(NUMBER_BYTES_MAX == 64 && DEPTH_MAX <= 32);
