//! The laws of the type table. A breach is an error with the row, the field to change and what to write.

use std::collections::{HashMap, HashSet};

use super::{
    ANY, CONFIGURED_KINDS, CommandRoute, Destination, EVENT_TOPICS, EventRoute, PLAYER_KINDS, PartitionKey, Require,
    RouteEffect, RowError, RowRef, Source, To, covers, is_pattern,
};
use crate::class::Class;
use crate::limits;
use crate::protocol::defaults;
use crate::protocol::frames::types;

/// Every breach, by row.
pub(super) fn all(commands: &[CommandRoute], events: &[EventRoute]) -> Vec<RowError> {
    let mut found = Found::default();
    let mut patterns = HashSet::new();
    for (index, row) in commands.iter().enumerate() {
        found.at(RowRef::Command(index), &row.pattern);
        found.pattern(&mut patterns);
        command(row, &mut found);
    }
    command_kinds(commands, &mut found);
    let mut patterns = HashSet::new();
    for (index, row) in events.iter().enumerate() {
        found.at(RowRef::Event(index), &row.pattern);
        found.pattern(&mut patterns);
        event(row, &mut found);
        relayed(row, commands, &mut found);
        forget(row, events, &mut found);
    }
    event_kinds(events, &mut found);
    topics(commands, &mut found);
    found.errors.sort_by_key(|error| error.row);
    found.errors
}

/// Kinds of configured rows that belong to other, compiled-in types.
pub(super) fn reserved(commands: &[CommandRoute], events: &[EventRoute]) -> Vec<RowError> {
    let mut found = Found::default();
    for (index, row) in commands.iter().enumerate() {
        let own = defaults::commands().into_iter().find(|other| other.pattern == row.pattern);
        let own = own.and_then(|other| other.d_kind);
        if let Some(kind) = row.d_kind.filter(|kind| (1..CONFIGURED_KINDS).contains(kind) && own != Some(*kind)) {
            found.at(RowRef::Command(index), &row.pattern);
            found.add("kind", format!("{kind} belongs to ringgate's own types"), "write one from 256 to 32767");
        }
    }
    for (index, row) in events.iter().enumerate() {
        let own = defaults::events().into_iter().find(|other| other.pattern == row.pattern);
        let own = own.and_then(|other| other.kind);
        let Some(kind) = row.kind.filter(|kind| own != Some(*kind)) else { continue };
        found.at(RowRef::Event(index), &row.pattern);
        if (1..CONFIGURED_KINDS).contains(&kind.kind) {
            let problem = format!("{} belongs to ringgate's own types", kind.kind);
            found.add("kind", problem, "write one from 256 to 65535, or leave it out");
        }
        if kind.frame_type == types::ERROR {
            found.add("d_type", "3 is the type of ringgate's own error event".into(), "write 35");
        }
    }
    found.errors
}

/// Collects breaches of the row under way.
#[derive(Default)]
struct Found {
    row: Option<(RowRef, Box<str>)>,
    errors: Vec<RowError>,
}

impl Found {
    fn at(&mut self, row: RowRef, pattern: &str) {
        self.row = Some((row, pattern.into()));
    }

    fn add(&mut self, field: &'static str, problem: String, remedy: &str) {
        let (row, pattern) = self.row.clone().expect("a row is named before it is judged");
        self.errors.push(RowError { row, pattern, field, problem, remedy: remedy.to_owned() });
    }

    fn expect(&mut self, holds: bool, field: &'static str, problem: &str, remedy: &str) {
        if !holds {
            self.add(field, problem.to_owned(), remedy);
        }
    }

    fn pattern(&mut self, patterns: &mut HashSet<Box<str>>) {
        let (_, pattern) = self.row.clone().expect("a row is named before it is judged");
        if !is_pattern(&pattern) {
            let problem = "neither a full type name nor a prefix with .*, of A-Z a-z 0-9 . _ -";
            self.add("type", problem.into(), "write e.g. \"games.command.chess.move\" or \"games.command.*\"");
        } else if !patterns.insert(pattern) {
            self.add("type", "it has two rows".into(), "remove one of them");
        }
    }

    /// A field of a message, named by the row.
    fn message_field(&mut self, field: &'static str, name: &str) {
        let valid = (1..=64).contains(&name.len())
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'));
        let problem = format!("{name:?} cannot name a field of the message: 1-64 of A-Z a-z 0-9 _ -");
        self.expect(valid, field, &problem, "write the name of a field at the message's top level, e.g. room_id");
    }
}

fn command(row: &CommandRoute, found: &mut Found) {
    let is_own = row.pattern.starts_with("system.") || ANSWERED.contains(&&*row.pattern);
    match &row.destination {
        Destination::Gateway => {
            let problem = "the gateway has no answer of its own to this type";
            found.expect(ANSWERED.contains(&&*row.pattern), "answer", problem, "write topic or relay instead");
        }
        _ if is_own => {
            let remedy = match ANSWERED.contains(&&*row.pattern) {
                true => "write answer = \"gateway\" instead of topic and relay",
                false => "choose a name that does not begin with system.",
            };
            found.add("type", "the gateway answers this type itself".into(), remedy);
        }
        Destination::Topic(topic) => command_topic(topic, found),
        Destination::Relay => {
            let problem = "a relayed command goes to the members of a room, so its sender must be one";
            let holds = matches!(row.require, Require::Member(_));
            found.expect(holds, "require", problem, "write require = \"member:room_id\" with the field of the room");
        }
    }
    if let PartitionKey::Field(name) = &row.key {
        found.message_field("key", name);
    }
    match &row.require {
        Require::Member(name) => found.message_field("require", name),
        Require::Role(role) => found.expect(!role.is_empty(), "require", "no role is named", "write e.g. role:admin"),
        Require::None => {
            let holds = row.destination == Destination::Gateway;
            let problem = "before authentication there is nobody to send for";
            found.expect(holds, "require", problem, "write require = \"authenticated\"");
        }
        Require::Authenticated => {}
    }
}

fn command_topic(topic: &str, found: &mut Found) {
    if !is_topic(topic) {
        found.add("topic", NO_TOPIC.into(), "write e.g. \"games.commands\"");
    } else if EVENT_TOPICS.contains(&topic) || topic.starts_with("ringgate.") || topic == "gateway.presence" {
        let problem = "clients must not write to this topic: gateways trust what is in it".to_owned();
        found.add("topic", problem, "choose a topic of commands, e.g. \"games.commands\"");
    }
}

fn command_kinds(commands: &[CommandRoute], found: &mut Found) {
    let mut kinds = HashMap::new();
    for (index, row) in commands.iter().enumerate() {
        let Some(kind) = row.d_kind else { continue };
        found.at(RowRef::Command(index), &row.pattern);
        if row.pattern.ends_with(ANY) {
            found.add("kind", "a prefix cannot be turned back into a type".into(), "give each full type name a row");
        } else if !(1..PLAYER_KINDS).contains(&kind) {
            found.add("kind", format!("{kind} is outside 1-32767"), "write one from 256 to 32767");
        } else if let Some(other) = kinds.insert(kind, &row.pattern) {
            found.add("kind", format!("{kind} is the kind of {other:?}"), "write another, from 256 to 32767");
        } else if !matches!(row.destination, Destination::Topic(_)) {
            let problem = "only commands for a topic have one".to_owned();
            found.add("kind", problem, "leave it out; game servers publish with D's types 32 to 35");
        }
    }
}

fn event(row: &EventRoute, found: &mut Found) {
    event_source(row, found);
    event_class(row, found);
    match &row.effect {
        Some(RouteEffect::Join(field) | RouteEffect::Leave(field)) => {
            found.message_field("effect", field);
            let holds = matches!(row.to, To::Session | To::User);
            found.expect(holds, "effect", "only a session joins or leaves a room", "write to = \"session\"");
        }
        Some(RouteEffect::Kick) => {
            found.expect(row.to == To::User, "effect", "only a user is kicked", "write to = \"user\"");
        }
        Some(RouteEffect::Forget(field)) => found.message_field("effect", field),
        None => {}
    }
    if let Some(target) = &row.target {
        found.message_field("target", target);
        let problem = "an event to everyone has no target";
        found.expect(row.to != To::Everyone, "target", problem, "leave it out");
    }
}

fn event_source(row: &EventRoute, found: &mut Found) {
    match &row.source {
        Source::Topic(topic) => {
            let problem = "the gateway reads no events from this topic";
            let remedy = format!("write one of {}", EVENT_TOPICS.join(", "));
            found.expect(EVENT_TOPICS.contains(&&**topic), "topic", problem, &remedy);
        }
        Source::Relay => {
            let problem = "what is relayed goes to the members of its room";
            found.expect(row.to == To::Room, "to", problem, "write to = \"room\"");
            found.expect(row.target.is_none(), "target", problem, "leave it out: the stream names the room");
            let holds = matches!(row.effect, None | Some(RouteEffect::Forget(_)));
            let problem = "what players send must not make others join, leave or be kicked";
            found.expect(holds, "effect", problem, "leave it out, or let a backend send the event");
            found.expect(row.kind.is_some(), "d_type", "what is relayed is shown", "leave it out");
        }
    }
}

fn event_class(row: &EventRoute, found: &mut Found) {
    let frame_type = row.kind.map(|kind| kind.frame_type);
    if row.class == Class::Delta {
        match &row.coalesce {
            Some(field) => found.message_field("coalesce", field),
            None => {
                let remedy = "write coalesce = the field whose newest value replaces older ones, e.g. \"entity_id\"";
                found.add("coalesce", "a delta needs a key".into(), remedy);
            }
        }
        let problem = "a delta may be left out, and its effect with it";
        found.expect(row.effect.is_none(), "effect", problem, "write class = \"reliable\", or leave the effect out");
        let problem = "a delta's type is 32, so that everybody knows what may be left out";
        found.expect(frame_type == Some(types::WORLD_DELTA), "d_type", problem, "leave it out");
    } else {
        let problem = "only deltas are coalesced: a reliable event is never left out";
        found.expect(row.coalesce.is_none(), "coalesce", problem, "write class = \"delta\", or leave it out");
        let shown = [types::ERROR, types::BATTLE_TIMELINE, types::BATTLE_END, types::EVENT];
        let holds = frame_type.is_none_or(|frame_type| shown.contains(&frame_type));
        found.expect(
            holds,
            "d_type",
            "a reliable event has another type",
            "write 33, 34 or 35, or 0 to show it to nobody",
        );
    }
}

/// A row of events that a relay row carries must say so, or the class it gives would be without effect.
fn relayed(row: &EventRoute, commands: &[CommandRoute], found: &mut Found) {
    let relays = |command: &&CommandRoute| command.destination == Destination::Relay;
    let mut carried = commands.iter().filter(relays).filter(|command| covers(&command.pattern, &row.pattern));
    if let (Source::Topic(_), Some(command)) = (&row.source, carried.next()) {
        let problem = format!("its type is relayed by the [[command]] {:?}", command.pattern);
        found.add("topic", problem, "write relay = \"room\" instead");
    }
}

/// A forget removes deltas of its own stream, so there must be some.
fn forget(row: &EventRoute, events: &[EventRoute], found: &mut Found) {
    if !matches!(row.effect, Some(RouteEffect::Forget(_))) {
        return;
    }
    let in_its_stream =
        |other: &EventRoute| other.class == Class::Delta && other.source == row.source && other.to == row.to;
    let problem = "no delta comes from the same topic or relay to the same audience, so there is nothing to forget";
    let remedy = "send it where its deltas are sent (topic or relay, and to), or add their row";
    found.expect(events.iter().any(in_its_stream), "effect", problem, remedy);
}

fn event_kinds(events: &[EventRoute], found: &mut Found) {
    let mut kinds = HashMap::new();
    for (index, row) in events.iter().enumerate() {
        let Some(kind) = row.kind.filter(|kind| kind.kind != 0) else { continue };
        if let Some(other) = kinds.insert((kind.frame_type, kind.kind), &row.pattern) {
            found.at(RowRef::Event(index), &row.pattern);
            found.add("kind", format!("{} is the kind of {other:?}", kind.kind), "write another, from 256 to 65535");
        }
    }
}

/// An embedded bus has a bounded number of topics; the gateway's own are among them.
fn topics(commands: &[CommandRoute], found: &mut Found) {
    let mut topics: HashSet<&str> = EVENT_TOPICS.into_iter().collect();
    for (index, row) in commands.iter().enumerate() {
        if let Destination::Topic(topic) = &row.destination
            && topics.insert(topic)
            && topics.len() > limits::BUS_TOPICS - OWN_TOPICS
        {
            found.at(RowRef::Command(index), &row.pattern);
            let problem = format!("the table names more than {} topics", limits::BUS_TOPICS - OWN_TOPICS);
            found.add("topic", problem, "let several types share a topic");
        }
    }
}

/// Kafka's rule for names.
fn is_topic(topic: &str) -> bool {
    (1..=249).contains(&topic.len())
        && topic.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
        && topic != "."
        && topic != ".."
}

/// What the gateway answers itself.
const ANSWERED: [&str; 3] = ["system.*", "rooms.command.members", "rooms.command.history"];
const NO_TOPIC: &str = "no name of a topic: 1-249 of A-Z a-z 0-9 . _ -";
/// `ringgate.*` and `gateway.presence`.
const OWN_TOPICS: usize = 4;
