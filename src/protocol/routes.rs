//! The type table: which message types exist and what becomes of them (PROTOCOLS "The type table's defaults").
//!
//! Plain rows and fast lookups over them. A pattern is a full type name, or a prefix with `.*`; the longest pattern
//! that matches wins, and a full name is longer than any prefix of it. The table reads no message: it names the fields.

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
    /// The partition key of a topic's record.
    pub key: PartitionKey,
    /// What the sender must be.
    pub require: Require,
    /// How often one connection may send it; all types of one row share the allowance.
    pub rate: Rate,
    /// The form of a topic's payload.
    pub payload: PayloadForm,
    /// Dialect D's kind; only rows with a full name have one.
    pub d_kind: Option<u16>,
}

/// Where a command goes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Destination {
    /// A topic of the bus.
    Topic(Box<str>),
    /// Straight to the members, in the room's relay stream.
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

/// The table with its lookups. Immutable; replaced as a whole on reload.
#[derive(Clone, Debug)]
pub struct Routes {
    commands: Vec<CommandRoute>,
    events: Vec<EventRoute>,
    command_patterns: Patterns,
    event_patterns: Patterns,
    kinds: HashMap<u16, usize, FixedState>,
    event_kinds: HashMap<(u8, u16), usize, FixedState>,
}

/// Why rows do not make a table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RouteError {
    /// Neither a full name nor a prefix with `.*`, of `[A-Za-z0-9._-]`.
    BadPattern(Box<str>),
    /// Two rows of one pattern.
    DuplicatePattern(Box<str>),
    /// Two commands of one D kind.
    DuplicateKind(Box<str>, u16),
    /// A kind on a prefix, which could not be turned back into a type.
    KindOfPrefix(Box<str>),
    /// A kind outside 1–0x7fff; the rest belongs to player commands.
    KindRange(Box<str>, u16),
    /// A coalescing field without class delta, or the reverse.
    CoalesceWithoutDelta(Box<str>),
}

impl Routes {
    /// Builds the lookups.
    ///
    /// # Errors
    /// The first row that contradicts itself or an earlier one.
    pub fn new(commands: Vec<CommandRoute>, events: Vec<EventRoute>) -> Result<Self, RouteError> {
        let command_patterns = Patterns::new(commands.iter().map(|row| &*row.pattern))?;
        let event_patterns = Patterns::new(events.iter().map(|row| &*row.pattern))?;
        let mut kinds = HashMap::default();
        for (index, row) in commands.iter().enumerate() {
            let Some(kind) = row.d_kind else { continue };
            if row.pattern.ends_with(ANY) {
                return Err(RouteError::KindOfPrefix(row.pattern.clone()));
            }
            if !(1..PLAYER_KINDS).contains(&kind) {
                return Err(RouteError::KindRange(row.pattern.clone(), kind));
            }
            if kinds.insert(kind, index).is_some() {
                return Err(RouteError::DuplicateKind(row.pattern.clone(), kind));
            }
        }
        if let Some(row) = events.iter().find(|row| (row.class == Class::Delta) != row.coalesce.is_some()) {
            return Err(RouteError::CoalesceWithoutDelta(row.pattern.clone()));
        }
        let event_kinds = event_kinds(&events);
        Ok(Self { commands, events, command_patterns, event_patterns, kinds, event_kinds })
    }

    /// The compiled-in table with these rows added; a row replaces the compiled-in one of the same pattern.
    ///
    /// # Errors
    /// See [`Routes::new`].
    pub fn with(mut commands: Vec<CommandRoute>, mut events: Vec<EventRoute>) -> Result<Self, RouteError> {
        let replaced = |pattern: &str| commands.iter().any(|row| &*row.pattern == pattern);
        let kept: Vec<_> = super::defaults::commands().into_iter().filter(|row| !replaced(&row.pattern)).collect();
        commands.extend(kept);
        let replaced = |pattern: &str| events.iter().any(|row| &*row.pattern == pattern);
        let kept: Vec<_> = super::defaults::events().into_iter().filter(|row| !replaced(&row.pattern)).collect();
        events.extend(kept);
        Self::new(commands, events)
    }

    /// The row of a command type, with its index, which stays the same as long as the table does.
    #[must_use]
    pub fn command(&self, type_name: &str) -> Option<(usize, &CommandRoute)> {
        let index = self.command_patterns.find(type_name)?;
        Some((index, &self.commands[index]))
    }

    /// The row of dialect D's command kind; its pattern is the full type name.
    #[must_use]
    pub fn command_of_kind(&self, kind: u16) -> Option<(usize, &CommandRoute)> {
        let index = *self.kinds.get(&kind)?;
        Some((index, &self.commands[index]))
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

    /// All command rows; a connection's rates are a table of this length.
    #[must_use]
    pub fn commands(&self) -> &[CommandRoute] {
        &self.commands
    }

    /// All event rows.
    #[must_use]
    pub fn events(&self) -> &[EventRoute] {
        &self.events
    }
}

impl Default for Routes {
    /// The compiled-in table.
    fn default() -> Self {
        Self::with(Vec::new(), Vec::new()).expect("the compiled-in rows are consistent")
    }
}

impl fmt::Display for RouteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadPattern(pattern) => {
                write!(
                    f,
                    "type = {pattern:?}: expected a full type name or a prefix with .*; write e.g. \"games.command.*\""
                )
            }
            Self::DuplicatePattern(pattern) => write!(f, "type = {pattern:?} has two rows; remove one"),
            Self::DuplicateKind(pattern, kind) => {
                write!(f, "type = {pattern:?}: another type has kind {kind}; choose another, from 256")
            }
            Self::KindOfPrefix(pattern) => {
                write!(f, "type = {pattern:?}: a prefix cannot have a kind; give each full type name a row")
            }
            Self::KindRange(pattern, kind) => {
                write!(f, "type = {pattern:?}: kind {kind} is outside 1–32767; choose one from 256")
            }
            Self::CoalesceWithoutDelta(pattern) => {
                write!(f, "type = {pattern:?}: coalesce and class = \"delta\" need each other; write both or neither")
            }
        }
    }
}

impl std::error::Error for RouteError {}

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
}

impl Patterns {
    fn new<'a>(patterns: impl Iterator<Item = &'a str>) -> Result<Self, RouteError> {
        let (mut names, mut prefixes) = (HashMap::default(), Vec::<(Box<str>, usize)>::new());
        for (index, pattern) in patterns.enumerate() {
            let stem = pattern.strip_suffix(ANY);
            let bytes = stem.unwrap_or(pattern).bytes();
            let valid = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
            if bytes.len() == 0 || !bytes.clone().all(valid) {
                return Err(RouteError::BadPattern(pattern.into()));
            }
            let is_new = match stem {
                None => names.insert(pattern.into(), index).is_none(),
                Some(stem) => {
                    let prefix: Box<str> = format!("{stem}.").into();
                    let is_new = prefixes.iter().all(|(other, _)| *other != prefix);
                    prefixes.push((prefix, index));
                    is_new
                }
            };
            if !is_new {
                return Err(RouteError::DuplicatePattern(pattern.into()));
            }
        }
        prefixes.sort_by_key(|(prefix, _)| std::cmp::Reverse(prefix.len()));
        Ok(Self { names, prefixes })
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

/// The end of a prefix pattern.
const ANY: &str = ".*";
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
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn command(pattern: &str, d_kind: Option<u16>) -> CommandRoute {
        CommandRoute {
            pattern: pattern.into(),
            destination: Destination::Topic("t".into()),
            key: PartitionKey::User,
            require: Require::Authenticated,
            rate: Rate { per_second: 1 },
            payload: PayloadForm::Raw,
            d_kind,
        }
    }

    fn find<'a>(routes: &'a Routes, name: &str) -> Option<&'a str> {
        routes.command(name).map(|(_, row)| &*row.pattern)
    }

    /// The longest pattern wins; a prefix needs its dot and something behind it.
    #[test]
    fn the_longest_pattern_wins() {
        let rows = ["a.*", "a.b.*", "a.b.c", "a.bc"].map(|pattern| command(pattern, None));
        let routes = Routes::new(rows.to_vec(), Vec::new()).unwrap();
        for (name, pattern) in [
            ("a.b.c", Some("a.b.c")),
            ("a.b.c.d", Some("a.b.*")),
            ("a.b.d", Some("a.b.*")),
            ("a.bc", Some("a.bc")),
            ("a.bcd", Some("a.*")),
            ("a.b", Some("a.*")),
            ("a.", None),
            ("a", None),
            ("ab", None),
            ("", None),
        ] {
            assert_eq!(find(&routes, name), pattern, "{name}");
        }
    }

    /// A configured row replaces the compiled-in one of its pattern, others stay; new kinds are found.
    #[test]
    fn configured_rows_overlay_the_defaults() {
        let rows = vec![command("games.command.*", None), command("games.command.chess.move", Some(256))];
        let routes = Routes::with(rows, Vec::new()).unwrap();
        assert_eq!(routes.command("games.command.go.move").unwrap().1.payload, PayloadForm::Raw);
        assert_eq!(routes.command("games.command.join_room").unwrap().1.payload, PayloadForm::Enriched);
        assert_eq!(&*routes.command_of_kind(256).unwrap().1.pattern, "games.command.chess.move");
        assert_eq!(routes.commands().len(), Routes::default().commands().len() + 1);
    }

    /// Rows that contradict themselves or each other are refused by name.
    #[test]
    fn contradictions_are_refused() {
        let error = |rows: &[CommandRoute]| Routes::new(rows.to_vec(), Vec::new()).unwrap_err();
        for bad in ["", "*", ".*", "a*", "a.*.b", "a b", "ä"] {
            assert_eq!(error(&[command(bad, None)]), RouteError::BadPattern(bad.into()));
        }
        let twice = [command("a.*", None), command("a.*", None)];
        assert_eq!(error(&twice), RouteError::DuplicatePattern("a.*".into()));
        assert_eq!(error(&[command("a.*", Some(300))]), RouteError::KindOfPrefix("a.*".into()));
        assert_eq!(error(&[command("a", Some(0x8000))]), RouteError::KindRange("a".into(), 0x8000));
        assert_eq!(error(&[command("a", Some(0))]), RouteError::KindRange("a".into(), 0));
        let same = [command("a", Some(9)), command("b", Some(9))];
        assert_eq!(error(&same), RouteError::DuplicateKind("b".into(), 9));
        let mut delta = Routes::default().event("world.delta").unwrap().clone();
        delta.coalesce = None;
        let outcome = Routes::new(Vec::new(), vec![delta]).unwrap_err();
        assert_eq!(outcome, RouteError::CoalesceWithoutDelta("world.delta".into()));
    }

    proptest! {
        /// Lookups agree with a walk over all rows that takes the longest match.
        #[test]
        fn lookups_agree_with_a_walk(name in "(games|chat|system|rooms|x)(\\.(command|event))?(\\.[a-z_]{0,12}){0,2}") {
            let routes = Routes::default();
            let matches = |pattern: &str| match pattern.strip_suffix('*') {
                Some(prefix) => name.len() > prefix.len() && name.starts_with(prefix),
                None => pattern == name,
            };
            let patterns = routes.commands().iter().map(|row| &*row.pattern);
            prop_assert_eq!(find(&routes, &name), patterns.filter(|p| matches(p)).max_by_key(|p| (!p.ends_with('*'), p.len())));
            let patterns = routes.events().iter().map(|row| &*row.pattern);
            let expected = patterns.filter(|p| matches(p)).max_by_key(|p| (!p.ends_with('*'), p.len()));
            prop_assert_eq!(routes.event(&name).map(|row| &*row.pattern), expected);
        }
    }
}
