//! `[[command]]` and `[[event]]` of the TOML file: rows with their lines, every error at once.

use std::borrow::Cow;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::file::{FileError, line_of, nearest, shorten};
use super::table::{Field, Half, TO, USER};
use crate::class::Class;
use crate::frame::FrameKind;
use crate::protocol::envelope::PayloadForm;
use crate::protocol::frames::types;
use crate::protocol::routes::{
    CommandRoute, Destination, EVENT_TOPICS, EventRoute, PartitionKey, Require, RouteEffect, Routes, RowError, RowRef,
    Source, To, covers,
};
use crate::time::Rate;

/// The file's rows, in its order.
#[derive(Debug, Default)]
pub(super) struct Rows {
    commands: Vec<CommandRoute>,
    events: Vec<EventRoute>,
    command_places: Vec<Place>,
    event_places: Vec<Place>,
}

/// Where a row stands.
#[derive(Debug)]
struct Place {
    /// From 1.
    line: usize,
    /// Its fields: name, line, value as written.
    fields: Vec<(Box<str>, usize, String)>,
    /// Fields that were replaced by a default because their values could not be read.
    broken: Vec<Box<str>>,
}

impl Rows {
    /// Reads the rows; what cannot be read is an error and, where possible, replaced, so that the rest is checked too.
    pub fn read(text: &str, document: &DeTable<'_>, errors: &mut Vec<FileError>) -> Self {
        let mut rows = Self::default();
        for_each(text, document, Half::Command, errors, |reader| {
            if let Some(row) = command(reader) {
                rows.commands.push(row);
                rows.command_places.push(reader.place());
            }
        });
        let commands = &rows.commands;
        let (events, places) = (&mut rows.events, &mut rows.event_places);
        for_each(text, document, Half::Event, errors, |reader| {
            if let Some(row) = event(reader, commands) {
                events.push(row);
                places.push(reader.place());
            }
        });
        rows
    }

    /// Half, pattern and line of every row.
    pub fn places(&self) -> impl Iterator<Item = (Half, &str, usize)> {
        let commands = self.commands.iter().map(|row| &*row.pattern).zip(&self.command_places);
        let events = self.events.iter().map(|row| &*row.pattern).zip(&self.event_places);
        let commands = commands.map(|(pattern, place)| (Half::Command, pattern, place.line));
        commands.chain(events.map(|(pattern, place)| (Half::Event, pattern, place.line)))
    }

    /// The built-in table with these rows, if they keep its laws.
    pub fn build(&self, errors: &mut Vec<FileError>) -> Option<Routes> {
        match Routes::with(self.commands.clone(), self.events.clone()) {
            Ok(routes) => Some(routes),
            Err(breaches) => {
                errors.extend(breaches.iter().filter_map(|breach| self.blame(breach)));
                None
            }
        }
    }

    fn blame(&self, breach: &RowError) -> Option<FileError> {
        let RowError { row, pattern, field, problem, remedy } = breach;
        let (half, place) = match row {
            RowRef::Command(index) => (Half::Command, self.command_places.get(*index)),
            RowRef::Event(index) => (Half::Event, self.event_places.get(*index)),
        };
        let half = half.name();
        let Some(place) = place else {
            let text = format!("built-in [[{half}]] {pattern:?}: {field}: {problem}; {remedy}");
            return Some(FileError { line: 1, text });
        };
        // What a default in a broken field's place leads to is not the author's doing.
        if place.broken.iter().any(|name| **name == **field || ENTANGLED.contains(&&**name)) {
            return None;
        }
        let given = place.fields.iter().find(|(name, ..)| **name == **field);
        let (line, value) = match given {
            Some((_, line, shown)) => (*line, format!("{field} = {shown}")),
            None => (place.line, format!("{field} (left out)")),
        };
        Some(FileError { line, text: format!("[[{half}]] {pattern:?}: {value}: {problem}; {remedy}") })
    }
}

fn for_each(
    text: &str,
    document: &DeTable<'_>,
    half: Half,
    errors: &mut Vec<FileError>,
    mut read: impl FnMut(&mut Reader<'_>),
) {
    let Some(rows) = document.get(half.name()) else { return };
    let no_row = |line| {
        let text = format!("{0}: expected rows of the type table; write [[{0}]] above each row", half.name());
        FileError { line, text }
    };
    let DeValue::Array(elements) = rows.get_ref() else {
        return errors.push(no_row(line_of(text, rows.span().start)));
    };
    for element in elements {
        let line = line_of(text, element.span().start);
        match element.get_ref() {
            DeValue::Table(table) => read(&mut Reader::new(text, half, line, table, errors)),
            _ => errors.push(no_row(line)),
        }
    }
}

/// Reads the fields of a row.
struct Reader<'a> {
    text: &'a str,
    half: Half,
    line: usize,
    table: &'a DeTable<'a>,
    pattern: String,
    errors: &'a mut Vec<FileError>,
    broken: Vec<Box<str>>,
}

impl<'a> Reader<'a> {
    fn new(text: &'a str, half: Half, line: usize, table: &'a DeTable<'a>, errors: &'a mut Vec<FileError>) -> Self {
        let mut reader = Self { text, half, line, table, pattern: String::new(), errors, broken: Vec::new() };
        for name in table.keys() {
            if half.fields().iter().all(|field| *field.name != **name.get_ref()) {
                reader.unknown(name);
            }
        }
        reader
    }

    fn unknown(&mut self, key: &Spanned<Cow<'_, str>>) {
        let name = &**key.get_ref();
        let names = || self.half.fields().iter().map(|field| field.name);
        let remedy = match nearest(name, names()) {
            Some(near) => format!("did you mean {near}?"),
            None => format!("[[{}]] has {}", self.half.name(), names().collect::<Vec<_>>().join(", ")),
        };
        let of = match self.table.get("type").map(Spanned::get_ref) {
            Some(DeValue::String(pattern)) => format!(" {pattern:?}"),
            _ => String::new(),
        };
        let text = format!("[[{}]]{of}: {name}: unknown field; {remedy}", self.half.name());
        self.errors.push(FileError { line: line_of(self.text, key.span().start), text });
    }

    /// The pattern; without one there is no row.
    fn pattern(&mut self) -> Option<Box<str>> {
        let half = self.half.name();
        match self.table.get("type").map(|value| (value.get_ref(), value.span())) {
            Some((DeValue::String(pattern), _)) => {
                self.pattern = pattern.to_string();
                Some(self.pattern.as_str().into())
            }
            Some((_, span)) => {
                let shown = shorten(&self.text[span.clone()]);
                let text =
                    format!("[[{half}]]: type = {shown}: expected a text; write type = {}", self.field("type").example);
                self.errors.push(FileError { line: line_of(self.text, span.start), text });
                None
            }
            None => {
                let text = format!("[[{half}]]: type is missing; write type = {}", self.field("type").example);
                self.errors.push(FileError { line: self.line, text });
                None
            }
        }
    }

    fn field(&self, name: &str) -> &'static Field {
        self.half.fields().iter().find(|field| field.name == name).expect("only fields of the half are asked for")
    }

    fn has(&self, name: &str) -> bool {
        self.table.contains_key(name)
    }

    /// A text field, read by `parse`; `None` if it is left out, or wrong, which is an error.
    fn text<T>(&mut self, name: &str, parse: impl FnOnce(&str) -> Option<T>) -> Option<T> {
        let value = self.table.get(name)?;
        let read = match value.get_ref() {
            DeValue::String(text) => parse(text),
            _ => None,
        };
        if read.is_none() {
            self.wrong(name);
        }
        read
    }

    /// A number in range; `None` if it is left out, or wrong, which is an error.
    fn number(&mut self, name: &str, is_valid: impl FnOnce(u16) -> bool) -> Option<u16> {
        let value = self.table.get(name)?;
        let read = match value.get_ref() {
            DeValue::Integer(number) => u16::from_str_radix(number.as_str(), number.radix()).ok(),
            _ => None,
        };
        let read = read.filter(|number| is_valid(*number));
        if read.is_none() {
            self.wrong(name);
        }
        read
    }

    fn wrong(&mut self, name: &str) {
        let Field { expected, example, .. } = self.field(name);
        self.refuse(name, &format!("expected {expected}"), &format!("write {name} = {example}"));
    }

    /// An error at a field, or at the row if the field is left out.
    fn refuse(&mut self, name: &str, problem: &str, remedy: &str) {
        self.broken.push(name.into());
        let (line, value) = match self.table.get(name) {
            Some(value) => {
                let shown = shorten(&self.text[value.span()]);
                (line_of(self.text, value.span().start), format!("{name} = {shown}"))
            }
            None => (self.line, format!("{name} (left out)")),
        };
        let text = format!("[[{}]] {:?}: {value}: {problem}; {remedy}", self.half.name(), self.pattern);
        self.errors.push(FileError { line, text });
    }

    fn place(&self) -> Place {
        let fields = self.table.iter().map(|(name, value)| {
            let shown = shorten(&self.text[value.span()]);
            (Box::from(&**name.get_ref()), line_of(self.text, value.span().start), shown)
        });
        Place { line: self.line, fields: fields.collect(), broken: self.broken.clone() }
    }
}

fn command(reader: &mut Reader<'_>) -> Option<CommandRoute> {
    let pattern = reader.pattern()?;
    let destination = destination(reader);
    let key = reader.text("key", |name| Some(if name == USER { None } else { Some(name.into()) }));
    let require = reader.text("require", require);
    let rate = reader.text("rate", Rate::parse);
    let payload = reader.text("payload", |form| match form {
        "enriched" => Some(PayloadForm::Enriched),
        "raw" => Some(PayloadForm::Raw),
        _ => None,
    });
    let d_kind = reader.number("kind", |_| true);
    let is_ours = ["games.", "chat.", "rooms."].iter().any(|module| pattern.starts_with(module));
    let form = if is_ours { PayloadForm::Enriched } else { PayloadForm::Raw };
    let (key, payload, usual) = match destination {
        Destination::Topic(_) => (key.flatten(), payload.unwrap_or(form), Require::Authenticated),
        Destination::Relay | Destination::Gateway => {
            for name in ["key", "payload"].into_iter().filter(|name| reader.has(name)).collect::<Vec<_>>() {
                reader.refuse(name, "it says how a topic's records are written, and there is no topic", "leave it out");
            }
            let member = Require::Member("room_id".into());
            let usual = if destination == Destination::Relay { member } else { Require::Authenticated };
            (None, PayloadForm::Enriched, usual)
        }
    };
    let kept = Routes::default().commands().iter().find(|row| row.pattern == pattern).and_then(|row| row.d_kind);
    let for_topic = matches!(destination, Destination::Topic(_));
    Some(CommandRoute {
        pattern,
        destination,
        key: key.map_or(PartitionKey::User, PartitionKey::Field),
        require: require.unwrap_or(usual),
        rate: rate.unwrap_or(RATE),
        payload,
        d_kind: d_kind.or(kept.filter(|_| for_topic)),
    })
}

fn destination(reader: &mut Reader<'_>) -> Destination {
    let given: Vec<&str> = ["topic", "relay", "answer"].into_iter().filter(|name| reader.has(name)).collect();
    let topic = reader.text("topic", |topic| Some(Destination::Topic(topic.into())));
    let relay = reader.text("relay", |what| (what == "room").then_some(Destination::Relay));
    let answer = reader.text("answer", |who| (who == "gateway").then_some(Destination::Gateway));
    match given.as_slice() {
        [] => {
            reader.refuse("topic", "the command goes nowhere", "write topic = \"games.commands\", or relay = \"room\"")
        }
        [first, second, ..] => {
            let problem = format!("a second destination beside {first}");
            reader.refuse(second, &problem, "remove one of them");
        }
        [_] => {}
    }
    topic.or(relay).or(answer).unwrap_or_else(|| Destination::Topic("games.commands".into()))
}

fn require(text: &str) -> Option<Require> {
    match text.split_once(':') {
        None if text == "none" => Some(Require::None),
        None if text == "authenticated" => Some(Require::Authenticated),
        Some(("member", field)) => Some(Require::Member(field.into())),
        Some(("role", role)) => Some(Require::Role(role.into())),
        _ => None,
    }
}

fn event(reader: &mut Reader<'_>, commands: &[CommandRoute]) -> Option<EventRoute> {
    let pattern = reader.pattern()?;
    let built_in = Routes::default().events().iter().find(|row| row.pattern == pattern).cloned();
    let source = source(reader, &pattern, built_in.as_ref(), commands);
    let to = reader.text("to", |text| TO.iter().find(|(name, _)| *name == text).map(|(_, to)| *to));
    if !reader.has("to") {
        reader.refuse("to", "nobody would get it", "write to = \"room\", or user, session, everyone");
    }
    let target = reader.text("target", |name| Some(name.into()));
    let effect = reader.text("effect", effect);
    let class = reader.text("class", |class| match class {
        "reliable" => Some(Class::Reliable),
        "delta" => Some(Class::Delta),
        _ => None,
    });
    let class = class.unwrap_or(Class::Reliable);
    let coalesce = reader.text("coalesce", |name| Some(name.into()));
    let kind = kind(reader, class, built_in.filter(|row| row.class == class).map(|row| row.kind));
    let to = to.unwrap_or(To::Room);
    Some(EventRoute { pattern, source, to, target, effect, class, coalesce, kind })
}

fn source(reader: &mut Reader<'_>, pattern: &str, built_in: Option<&EventRoute>, commands: &[CommandRoute]) -> Source {
    if reader.has("topic") && reader.has("relay") {
        reader.refuse("relay", "a second source beside topic", "remove one of them");
    }
    let topic = reader.text("topic", |topic| Some(Source::Topic(topic.into())));
    let relay = reader.text("relay", |what| (what == "room").then_some(Source::Relay));
    topic.or(relay).unwrap_or_else(|| {
        let relays = |row: &CommandRoute| row.destination == Destination::Relay && covers(&row.pattern, pattern);
        let module = pattern.split('.').next().unwrap_or_default();
        let own = EVENT_TOPICS.iter().find(|topic| topic.strip_suffix(".events") == Some(module));
        match built_in {
            _ if commands.iter().any(relays) => Source::Relay,
            Some(row) => row.source.clone(),
            None => Source::Topic((*own.unwrap_or(&EVENT_TOPICS[0])).into()),
        }
    })
}

fn effect(text: &str) -> Option<RouteEffect> {
    match text.split_once(':') {
        None if text == "kick" => Some(RouteEffect::Kick),
        Some(("join", field)) => Some(RouteEffect::Join(field.into())),
        Some(("leave", field)) => Some(RouteEffect::Leave(field.into())),
        Some(("forget", field)) => Some(RouteEffect::Forget(field.into())),
        _ => None,
    }
}

/// Type and kind in dialect D; what the file leaves out is that of the built-in row, if there is one of this class.
fn kind(reader: &mut Reader<'_>, class: Class, built_in: Option<Option<FrameKind>>) -> Option<FrameKind> {
    let usual = match (&built_in, class) {
        (Some(kind), _) => kind.map_or(0, |kind| kind.frame_type),
        (None, Class::Delta) => types::WORLD_DELTA,
        (None, _) => types::EVENT,
    };
    let frame_type = reader.number("d_type", |number| matches!(number, 0 | 3 | 32..=35));
    let frame_type = frame_type.map_or(usual, |number| number as u8);
    let number = reader.number("kind", |number| number != 0);
    if frame_type == 0 {
        if reader.has("kind") {
            reader.refuse("kind", "what is shown to nobody has none", "leave it out, or write d_type = 35");
        }
        return None;
    }
    let kept = built_in.flatten().filter(|kind| kind.frame_type == frame_type).map_or(0, |kind| kind.kind);
    Some(FrameKind { frame_type, kind: number.unwrap_or(kept) })
}

/// Fields that others are judged by.
const ENTANGLED: [&str; 7] = ["topic", "relay", "answer", "to", "class", "d_type", "effect"];
/// Where a row says nothing.
const RATE: Rate = Rate::per_second(20);
