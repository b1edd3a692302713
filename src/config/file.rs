//! The TOML file: sections and keys with their lines, and the type table's rows. Unknown ones are errors that name the nearest known one.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::keys::{KEYS, Key};
use super::load::{Raw, index_of};
use super::rows::Rows;
use super::table::Half;

/// A line of the file that sets a key.
#[derive(Debug)]
pub(super) struct Entry {
    /// Index into the key table.
    pub key: usize,
    /// The value.
    pub raw: Raw,
    /// The value as written, shortened.
    pub shown: String,
    /// From 1.
    pub line: usize,
}

/// What is wrong with a line.
#[derive(PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct FileError {
    /// From 1.
    pub line: usize,
    /// The error without its place.
    pub text: String,
}

/// What the file says, as far as it can be read.
#[derive(Default, Debug)]
pub(super) struct Contents {
    /// Keys of sections.
    pub entries: Vec<Entry>,
    /// The type table's rows.
    pub rows: Rows,
    /// What is wrong with its form.
    pub errors: Vec<FileError>,
}

/// Reads the file.
pub(super) fn parse(text: &str) -> Contents {
    let mut contents = Contents::default();
    let errors = &mut contents.errors;
    let document = match DeTable::parse(text) {
        Ok(document) => document,
        Err(error) => {
            let line = error.span().map_or(1, |span| line_of(text, span.start));
            let message = error.message().replace('\n', ", ");
            let text = format!("not TOML: {message}; `ringgate config default` prints a valid file");
            errors.push(FileError { line, text });
            return contents;
        }
    };
    for (section, value) in document.get_ref() {
        let line = line_of(text, section.span().start);
        let section = &**section.get_ref();
        let is_known = KEYS.iter().any(|key| key.section() == section);
        match value.get_ref() {
            _ if [Half::Command, Half::Event].iter().any(|half| half.name() == section) => {}
            DeValue::Table(keys) if is_known => {
                for (key, value) in keys {
                    match entry(text, section, key, value) {
                        Ok(entry) => contents.entries.push(entry),
                        Err(error) => errors.push(error),
                    }
                }
            }
            DeValue::Table(_) | DeValue::Array(_) => {
                let text = format!("[{section}]: unknown section; {}", nearest_section(section));
                errors.push(FileError { line, text });
            }
            _ => errors.push(FileError { line, text: format!("{section}: {}", homeless_key(section)) }),
        }
    }
    contents.rows = Rows::read(text, document.get_ref(), errors);
    contents
}

fn entry(
    text: &str,
    section: &str,
    key: &Spanned<std::borrow::Cow<'_, str>>,
    value: &Spanned<DeValue<'_>>,
) -> Result<Entry, FileError> {
    let line = line_of(text, key.span().start);
    let full = format!("{section}.{}", key.get_ref());
    let index = index_of(&full).ok_or_else(|| {
        let known: Vec<&str> = KEYS.iter().filter(|key| key.section() == section).map(Key::key).collect();
        let remedy = match nearest(key.get_ref(), known.iter().copied()) {
            Some(near) => format!("did you mean {near}?"),
            None => format!("[{section}] has {}", known.join(", ")),
        };
        FileError { line, text: format!("{full}: unknown key; {remedy}") }
    })?;
    Ok(Entry { key: index, raw: raw(value.get_ref()), shown: shorten(&text[value.span()]), line })
}

fn raw(value: &DeValue<'_>) -> Raw {
    match value {
        DeValue::String(text) => Raw::Text(text.to_string()),
        DeValue::Integer(number) => {
            i128::from_str_radix(number.as_str(), number.radix()).map_or(Raw::Other, Raw::Number)
        }
        DeValue::Boolean(value) => Raw::Bool(*value),
        DeValue::Array(values) => {
            let texts: Option<Vec<_>> = values
                .iter()
                .map(|value| match value.get_ref() {
                    DeValue::String(text) => Some(text.to_string()),
                    _ => None,
                })
                .collect();
            texts.map_or(Raw::Other, Raw::List)
        }
        DeValue::Float(_) | DeValue::Datetime(_) | DeValue::Table(_) => Raw::Other,
    }
}

fn nearest_section(section: &str) -> String {
    let mut sections: Vec<&str> = KEYS.iter().map(Key::section).collect();
    sections.dedup();
    sections.extend([Half::Command, Half::Event].map(Half::name));
    match nearest(section, sections.iter().copied()) {
        Some(near) => format!("did you mean [{near}]?"),
        None => format!("the sections are {}", sections.join(", ")),
    }
}

/// The remedy for a key above the first section.
fn homeless_key(name: &str) -> String {
    match KEYS.iter().find(|key| key.key() == name) {
        Some(key) => format!("a key without a section; write it below [{}]", key.section()),
        None => "unknown key without a section; `ringgate config default` prints all keys".to_owned(),
    }
}

/// The known name that at most two edits lead to.
pub(super) fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    known.map(|other| (edits(name, other), other)).filter(|(edits, _)| *edits <= 2).min().map(|(_, other)| other)
}

/// The Levenshtein distance; names are short.
fn edits(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.bytes().enumerate() {
            let replace = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replace.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

/// The line of a byte, from 1.
pub(super) fn line_of(text: &str, at: usize) -> usize {
    text.bytes().take(at).filter(|b| *b == b'\n').count() + 1
}

/// One line of at most 60 characters.
pub(super) fn shorten(text: &str) -> String {
    let mut shown: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if let Some((cut, _)) = shown.char_indices().nth(60) {
        shown.truncate(cut);
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The distance of names counts insertions, removals and replacements.
    #[test]
    fn edits_are_counted() {
        for (a, b, distance) in [("port", "port", 0), ("prot", "port", 2), ("", "ab", 2), ("hosts", "host", 1)] {
            assert_eq!(edits(a, b), distance, "{a} {b}");
        }
        assert_eq!(nearest("queue_frame", ["queue_frames", "queue_bytes"].into_iter()), Some("queue_frames"));
        assert_eq!(nearest("nothing", ["port"].into_iter()), None);
    }
}
