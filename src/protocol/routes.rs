//! The type table: which message types exist and what becomes of them (PROTOCOLS "The type table's defaults").
//!
//! Plain rows and fast lookups over them. A pattern is a full type name, or a prefix with `.*`; the longest pattern
//! that matches wins, and a full name is longer than any prefix of it. The table reads no message: it names the fields.
//!
//! Rows become a table only if they keep its laws ([`RowError`] names each breach with its remedy). The law of deltas
//! cannot be checked here: a type of class delta must be self-contained, that is, applying only the newest value of a
//! key equals applying all (DELIVERY §1). What must not be missed is a reliable event.

mod check;

use std::collections::HashMap;
use std::fmt;

use foldhash::fast::FixedState;

use super::envelope::{Audience, EffectRule, EventRule, EventRules, PayloadForm};
use crate::class::Class;
use crate::frame::FrameKind;
use crate::time::Rate;

/// A row for commands, client → backend.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CommandRoute {
    /// Full type name, or a prefix with `.*`.
    pub pattern: Box<str>,
    /// Where it goes.
    pub destination: Destination,
    /// The partition key of a topic's record; `User` elsewhere.
    pub key: PartitionKey,
    /// What the sender must be.
    pub require: Require,
    /// How often one connection may send it; all types of one row share the allowance.
    pub rate: Rate,
    /// The form of a topic's payload; `Enriched` elsewhere.
    pub payload: PayloadForm,
    /// Dialect D's kind; only rows with a full name have one.
    pub d_kind: Option<u16>,
}

/// Where a command goes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Destination {
    /// A topic of the bus.
    Topic(Box<str>),
    /// Straight to the members of the room that [`Require::Member`]'s field names, in its relay stream.
    Relay,
    /// The gateway answers itself.
    Gateway,
}

/// What a command is partitioned by.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PartitionKey {
    /// The message's field; the user id if the message has none.
    Field(Box<str>),
    /// The user id.
    User,
}

/// What a sender must be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Require {
    /// Nothing: also before authentication.
    None,
    /// Authenticated.
    Authenticated,
    /// A member of the room that the message's field names.
    Member(Box<str>),
    /// Authenticated with this role.
    Role(Box<str>),
}

/// A row for events, backend → clients.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EventRoute {
    /// Full type name, or a prefix with `.*`.
    pub pattern: Box<str>,
    /// Where it comes from.
    pub source: Source,
    /// Whom it addresses if its envelope has no target.
    pub to: To,
    /// The payload's field with the target's id, instead of the usual ones.
    pub target: Option<Box<str>>,
    /// What it does besides being delivered.
    pub effect: Option<RouteEffect>,
    /// `Reliable` or `Delta`.
    pub class: Class,
    /// Delta: the payload's field with the coalescing key.
    pub coalesce: Option<Box<str>>,
    /// Type and kind in dialect D; `None` = carried out, never shown to clients.
    pub kind: Option<FrameKind>,
}

/// Where an event comes from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Source {
    /// A topic of the bus.
    Topic(Box<str>),
    /// A room's relay stream.
    Relay,
}

/// Whom an event without an explicit target addresses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum To {
    /// A room: the row's target field, or `room_id`, `lobby_id`.
    Room,
    /// A user: the row's target field, or `user_id`, `recipient_id`.
    User,
    /// A session (PROTOCOLS "Bus topics and envelopes").
    Session,
    /// Every authenticated connection.
    Everyone,
    /// The room that the target field names; where that is absent or null, the user.
    RoomOrUser,
}

/// An event's effect on the sessions it addresses; fields are the payload's.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RouteEffect {
    /// The session joins the room that the field names.
    Join(Box<str>),
    /// The session leaves the room that the field names.
    Leave(Box<str>),
    /// Earlier deltas of the key that the field names are forgotten.
    Forget(Box<str>),
    /// The user's sessions end.
    Kick,
}

/// The table with its lookups. Immutable; replaced as a whole on reload. Two tables are equal if their rows are.
#[derive(Clone, Debug)]
pub struct Routes {
    commands: Vec<CommandRoute>,
    events: Vec<EventRoute>,
    command_patterns: Patterns,
    event_patterns: Patterns,
    kinds: HashMap<u16, usize, FixedState>,
    event_kinds: HashMap<(u8, u16), usize, FixedState>,
}

/// What a command row is called across reloads: a hash of its pattern, so that what is kept per row (a connection's
/// rates) stays with its row whatever comes before it in another table.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct RowId(u64);

/// Names a row of those that were to become a table.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum RowRef {
    /// Index into the commands.
    Command(usize),
    /// Index into the events.
    Event(usize),
}

/// Why a row cannot be in the table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RowError {
    /// Which row.
    pub row: RowRef,
    /// Its pattern.
    pub pattern: Box<str>,
    /// The field to change, as the configuration file calls it.
    pub field: &'static str,
    /// What is wrong with it.
    pub problem: String,
    /// What to write instead.
    pub remedy: String,
}

/// What a relayed command is to the members of its room (DELIVERY §7, Relay): they get it under its own type with the
/// client's fields and a `sender_id` of the gateway's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Relayed<'a> {
    /// The command's field that names the room; the sender must be a member of it.
    pub room: &'a str,
    /// `Reliable` or `Delta`.
    pub class: Class,
    /// Delta: the command's field with the coalescing key.
    pub coalesce: Option<&'a str>,
    /// Reliable: the command's field with the key whose earlier deltas are forgotten.
    pub forget: Option<&'a str>,
    /// Type and kind in dialect D.
    pub kind: FrameKind,
}

impl Routes {
    /// Builds the lookups.
    ///
    /// # Errors
    /// Every breach of the table's laws, by row, commands first.
    pub fn new(commands: Vec<CommandRoute>, events: Vec<EventRoute>) -> Result<Self, Vec<RowError>> {
        let errors = check::all(&commands, &events);
        if !errors.is_empty() {
            return Err(errors);
        }
        let command_patterns = Patterns::new(commands.iter().map(|row| &*row.pattern));
        let event_patterns = Patterns::new(events.iter().map(|row| &*row.pattern));
        let kinds = commands.iter().enumerate().filter_map(|(index, row)| Some((row.d_kind?, index))).collect();
        let event_kinds = event_kinds(&events);
        Ok(Self { commands, events, command_patterns, event_patterns, kinds, event_kinds })
    }

    /// The compiled-in table with these rows added, in front of it; a row replaces the compiled-in one of the same
    /// pattern.
    ///
    /// # Errors
    /// See [`Routes::new`]; besides, the kinds below [`CONFIGURED_KINDS`] belong to the compiled-in types. Rows are
    /// counted as they are given here.
    pub fn with(mut commands: Vec<CommandRoute>, mut events: Vec<EventRoute>) -> Result<Self, Vec<RowError>> {
        let mut errors = check::reserved(&commands, &events);
        let (own_commands, own_events) = (commands.len(), events.len());
        let replaced = |pattern: &str| commands.iter().any(|row| &*row.pattern == pattern);
        let kept: Vec<_> = super::defaults::commands().into_iter().filter(|row| !replaced(&row.pattern)).collect();
        commands.extend(kept);
        let replaced = |pattern: &str| events.iter().any(|row| &*row.pattern == pattern);
        let kept: Vec<_> = super::defaults::events().into_iter().filter(|row| !replaced(&row.pattern)).collect();
        events.extend(kept);
        match Self::new(commands, events) {
            Ok(routes) if errors.is_empty() => return Ok(routes),
            Ok(_) => {}
            Err(others) => errors.extend(others),
        }
        // What a compiled-in row suffers from is the doing of a configured one.
        let is_own = |error: &RowError| match error.row {
            RowRef::Command(index) => index < own_commands,
            RowRef::Event(index) => index < own_events,
        };
        if errors.iter().any(is_own) {
            errors.retain(is_own);
        }
        errors.sort_by_key(|error| error.row);
        Err(errors)
    }

    /// The row of a command type, with its name.
    #[must_use]
    pub fn command(&self, type_name: &str) -> Option<(RowId, &CommandRoute)> {
        self.command_patterns.find(type_name).map(|index| self.row(index))
    }

    /// The row of dialect D's command kind, with its name; its pattern is the full type name.
    #[must_use]
    pub fn command_of_kind(&self, kind: u16) -> Option<(RowId, &CommandRoute)> {
        self.kinds.get(&kind).map(|index| self.row(*index))
    }

    /// What a command of this type is to the members, if its row relays it: as the `[[event]]` row of the same type
    /// whose source is the relay says, else reliable.
    #[must_use]
    pub fn relayed<'a>(&'a self, type_name: &str) -> Option<Relayed<'a>> {
        let (_, CommandRoute { destination: Destination::Relay, require: Require::Member(room), .. }) =
            self.command(type_name)?
        else {
            return None;
        };
        let plain = Relayed { room, class: Class::Reliable, coalesce: None, forget: None, kind: PLAIN_EVENT };
        let Some(row) = self.event(type_name).filter(|row| row.source == Source::Relay) else { return Some(plain) };
        let forget = match &row.effect {
            Some(RouteEffect::Forget(field)) => Some(&**field),
            _ => None,
        };
        let kind = row.kind.unwrap_or(PLAIN_EVENT);
        Some(Relayed { class: row.class, coalesce: row.coalesce.as_deref(), forget, kind, ..plain })
    }

    /// The row of an event type.
    #[must_use]
    pub fn event(&self, type_name: &str) -> Option<&EventRoute> {
        self.event_patterns.find(type_name).map(|index| &self.events[index])
    }

    /// The row of an event's type and kind in dialect D: of several the first with a full name, else the first.
    #[must_use]
    pub fn event_of_kind(&self, kind: FrameKind) -> Option<&EventRoute> {
        self.event_kinds.get(&(kind.frame_type, kind.kind)).map(|index| &self.events[*index])
    }

    /// All command rows.
    #[must_use]
    pub fn commands(&self) -> &[CommandRoute] {
        &self.commands
    }

    /// All event rows.
    #[must_use]
    pub fn events(&self) -> &[EventRoute] {
        &self.events
    }

    fn row(&self, index: usize) -> (RowId, &CommandRoute) {
        let row = &self.commands[index];
        (RowId(self.command_patterns.ids[index]), row)
    }
}

impl Default for Routes {
    /// The compiled-in table.
    fn default() -> Self {
        Self::with(Vec::new(), Vec::new()).expect("the compiled-in rows are consistent")
    }
}

impl PartialEq for Routes {
    fn eq(&self, other: &Self) -> bool {
        self.commands == other.commands && self.events == other.events
    }
}

impl Eq for Routes {}

impl fmt::Display for RowError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}: {}; {}", self.pattern, self.field, self.problem, self.remedy)
    }
}

impl std::error::Error for RowError {}

/// Whether the text is a pattern: a full type name, or a prefix with `.*`, of `[A-Za-z0-9._-]`.
#[must_use]
pub fn is_pattern(text: &str) -> bool {
    let stem = text.strip_suffix(ANY).unwrap_or(text);
    !stem.is_empty() && stem.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

/// Whether every type of the narrow pattern is one of the wide pattern.
#[must_use]
pub fn covers(wide: &str, narrow: &str) -> bool {
    let prefix = wide.strip_suffix('*');
    wide == narrow || prefix.is_some_and(|prefix| narrow.len() > prefix.len() && narrow.starts_with(prefix))
}

fn event_kinds(events: &[EventRoute]) -> HashMap<(u8, u16), usize, FixedState> {
    let mut kinds = HashMap::default();
    let indices = |prefixes| move |(_, row): &(usize, &EventRoute)| row.pattern.ends_with(ANY) == prefixes;
    let full_first = [false, true].into_iter().flat_map(|prefixes| events.iter().enumerate().filter(indices(prefixes)));
    for (index, row) in full_first {
        if let Some(kind) = row.kind {
            kinds.entry((kind.frame_type, kind.kind)).or_insert(index);
        }
    }
    kinds
}

/// Patterns with the index of their row: full names by hash, prefixes longest first. Only the table's author
/// chooses what is in the map, so a fixed hash is safe.
#[derive(Clone, Debug)]
struct Patterns {
    names: HashMap<Box<str>, usize, FixedState>,
    prefixes: Vec<(Box<str>, usize)>,
    /// By row: see [`RowId`].
    ids: Vec<u64>,
}

impl Patterns {
    /// Of patterns that are valid and differ.
    fn new<'a>(patterns: impl Iterator<Item = &'a str>) -> Self {
        let (mut names, mut prefixes, mut ids) = (HashMap::default(), Vec::<(Box<str>, usize)>::new(), Vec::new());
        for (index, pattern) in patterns.enumerate() {
            ids.push(xxhash_rust::xxh3::xxh3_64(pattern.as_bytes()));
            match pattern.strip_suffix('*') {
                None => _ = names.insert(pattern.into(), index),
                Some(prefix) => prefixes.push((prefix.into(), index)),
            }
        }
        prefixes.sort_by_key(|(prefix, _)| std::cmp::Reverse(prefix.len()));
        Self { names, prefixes, ids }
    }

    /// A prefix matches types with at least one character behind its last dot.
    fn find(&self, type_name: &str) -> Option<usize> {
        let by_prefix = || {
            let matches = |prefix: &str| type_name.len() > prefix.len() && type_name.starts_with(prefix);
            self.prefixes.iter().find(|(prefix, _)| matches(prefix)).map(|(_, index)| *index)
        };
        self.names.get(type_name).copied().or_else(by_prefix)
    }
}

/// The topics that a gateway reads events from (PROTOCOLS "Bus topics and envelopes").
pub const EVENT_TOPICS: [&str; 4] = ["games.events", "chat.events", "rooms.events", "system.events"];
/// D's kinds from here on are for configured rows; those below belong to the compiled-in types.
pub const CONFIGURED_KINDS: u16 = 256;
/// The end of a prefix pattern.
const ANY: &str = ".*";
/// D's EVENT of no kind.
const PLAIN_EVENT: FrameKind = FrameKind { frame_type: super::frames::types::EVENT, kind: 0 };
/// D's kinds from here on are player commands to game servers (PROTOCOLS D, type 18).
const PLAYER_KINDS: u16 = 0x8000;

impl EventRules for Routes {
    fn rule(&self, event_type: &str) -> Option<EventRule<'_>> {
        let row = self.event(event_type)?;
        let to = match row.to {
            To::Room => Audience::Room,
            To::User => Audience::User,
            To::Session => Audience::Session,
            To::Everyone => Audience::Everyone,
            To::RoomOrUser => Audience::RoomOrUser,
        };
        let effect = row.effect.as_ref().map(|effect| match effect {
            RouteEffect::Join(field) => EffectRule::Join(field),
            RouteEffect::Leave(field) => EffectRule::Leave(field),
            RouteEffect::Forget(field) => EffectRule::Forget(field),
            RouteEffect::Kick => EffectRule::Kick,
        });
        let kind = row.kind.unwrap_or(FrameKind { frame_type: 0, kind: 0 });
        let (target, coalesce) = (row.target.as_deref(), row.coalesce.as_deref());
        Some(EventRule { to, target, class: row.class, coalesce, kind, effect })
    }
}

#[cfg(test)]
mod tests;
