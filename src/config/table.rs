//! The type table's fields as the file has them: what each means, and how a row is written. `rows` reads them.

use std::fmt::Write as _;

use super::load::{Loaded, Origin};
use crate::class::Class;
use crate::protocol::envelope::PayloadForm;
use crate::protocol::routes::{
    CommandRoute, Destination, EventRoute, PartitionKey, Require, RouteEffect, Routes, Source, To,
};

/// A field of a row.
#[derive(Debug)]
pub(super) struct Field {
    /// Its name in the file.
    pub name: &'static str,
    /// What it means, and what holds where it is left out.
    pub meaning: &'static str,
    /// What is expected, e.g. `a rate`.
    pub expected: &'static str,
    /// A valid value, as TOML.
    pub example: &'static str,
}

/// Which half of the table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Half {
    /// `[[command]]`: client → backend.
    Command,
    /// `[[event]]`: backend → clients.
    Event,
}

impl Half {
    /// The name of its rows in the file.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Command => "command",
            Self::Event => "event",
        }
    }

    /// The fields of its rows.
    pub(super) fn fields(self) -> &'static [Field] {
        match self {
            Self::Command => COMMAND_FIELDS,
            Self::Event => EVENT_FIELDS,
        }
    }
}

const fn field(name: &'static str, meaning: &'static str, expected: &'static str, example: &'static str) -> Field {
    Field { name, meaning, expected, example }
}

#[rustfmt::skip]
const COMMAND_FIELDS: &[Field] = &[
    field("type", "Full type name, or a prefix with .* ; the longest pattern that matches a type wins.",
        "a type name or a prefix with .*", "\"games.command.chess.move\""),
    field("topic", "Topic of the bus it goes to.",
        "the name of a topic", "\"games.commands\""),
    field("relay", "room: straight to the members, in the room's relay stream. Instead of topic.",
        "\"room\"", "\"room\""),
    field("answer", "gateway: answered by the gateway itself; only for the types built in so. Instead of topic.",
        "\"gateway\"", "\"gateway\""),
    field("key", "Field of the message that a topic's records are ordered by; where it is absent, the user. \
                  Left out, or \"user\": the user.",
        "the name of a field, or \"user\"", "\"room_id\""),
    field("require", "What the sender must be: authenticated, role:<role>, or member:<field>, that is, a member of the \
                      room that this field names. Left out: authenticated, with relay member:room_id.",
        "authenticated, member:<field>, role:<role> or none", "\"member:room_id\""),
    field("rate", "How often one connection may send it, by second or minute; all types of a row share it. \
                   Left out: 20/s.",
        "a rate by second or minute", "\"20/s\""),
    field("payload", "What a topic gets: enriched (the client's fields, and who sent them) or raw (byte for byte). \
                      Left out: enriched for games.*, chat.*, rooms.*, else raw.",
        "enriched or raw", "\"enriched\""),
    field("kind", "Number of the type in COMMAND frames of /ws/frames; only full names for a topic have one.",
        "a number 256-32767", "300"),
];

#[rustfmt::skip]
const EVENT_FIELDS: &[Field] = &[
    field("type", "Full type name, or a prefix with .* ; the longest pattern that matches a type wins.",
        "a type name or a prefix with .*", "\"games.event.chess.moved\""),
    field("topic", "Topic of the bus it comes from. Left out: that of its module (chat.* comes from chat.events), \
                    else games.events.",
        "games.events, chat.events, rooms.events or system.events", "\"games.events\""),
    field("relay", "room: it comes from players or game servers by the room's relay stream. Instead of topic. \
                    Left out: so if a [[command]] relays it.",
        "\"room\"", "\"room\""),
    field("to", "Whom it is for, where the event itself does not say: room, user, session, everyone, or room_or_user \
                 (the room that target names, where it is absent the user).",
        "room, user, session, everyone or room_or_user", "\"room\""),
    field("target", "Field of the payload that names the room, user or session. Left out: the usual ones, room_id or \
                     lobby_id, user_id or recipient_id, session_id.",
        "the name of a field", "\"lobby_id\""),
    field("effect", "What it does: join:<field> and leave:<field> (the session, the room named there), forget:<field> \
                     (earlier deltas of the key named there, in its own stream), kick (the user).",
        "join:<field>, leave:<field>, forget:<field> or kick", "\"join:room_id\""),
    field("class", "reliable or delta. Left out: reliable.",
        "reliable or delta", "\"delta\""),
    field("coalesce", "Field of the payload with a delta's key: a newer value of a key replaces an older one.",
        "the name of a field", "\"entity_id\""),
    field("d_type", "Type of the frame in /ws/frames: 33 battle timeline, 34 battle end, 35 event, 32 delta, \
                     0 shown to nobody. Left out: 35, for deltas 32.",
        "0, 32, 33, 34 or 35", "35"),
    field("kind", "Number of the type in frames of /ws/frames. Left out: none; built-in types keep theirs.",
        "a number 256-65535", "300"),
];

/// The built-in table as commented rows, with the meaning of every field in front.
pub(super) fn default_rows() -> String {
    let (mut out, routes) = (String::from(HEAD), Routes::default());
    heading(Half::Command, &mut out);
    for row in routes.commands() {
        commented(Half::Command, &command_fields(row), &mut out);
    }
    heading(Half::Event, &mut out);
    let _ = writeln!(out, "# {}", DELTA_LAW.join("\n# "));
    for row in routes.events() {
        commented(Half::Event, &event_fields(row), &mut out);
    }
    out
}

/// The file's rows, a line each, and the law of deltas with the types it binds.
pub(super) fn explain(loaded: &Loaded, out: &mut String) {
    let routes = &loaded.config.routes;
    for (half, pattern, origin) in &loaded.rows {
        let fields = match half {
            Half::Command => routes.commands().iter().find(|row| row.pattern == *pattern).map(command_fields),
            Half::Event => routes.events().iter().find(|row| row.pattern == *pattern).map(event_fields),
        };
        let fields: Vec<String> =
            fields.unwrap_or_default().into_iter().map(|(name, value)| format!("{name} = {value}")).collect();
        let Origin::File(file, line) = origin else { continue };
        let _ = writeln!(out, "[[{}]] {}  # {file}:{line}", half.name(), fields.join(", "));
    }
    let deltas = routes.events().iter().filter(|row| row.class == Class::Delta).map(|row| &*row.pattern);
    let _ = writeln!(out, "# class delta: {}. {}", deltas.collect::<Vec<_>>().join(", "), DELTA_LAW.join(" "));
}

fn heading(half: Half, out: &mut String) {
    let _ = writeln!(out, "\n# [[{}]]", half.name());
    for Field { name, meaning, .. } in half.fields() {
        let _ = writeln!(out, "# {name}: {meaning}");
    }
}

fn commented(half: Half, fields: &[(&'static str, String)], out: &mut String) {
    let _ = writeln!(out, "#[[{}]]", half.name());
    for (name, value) in fields {
        let _ = writeln!(out, "#{name} = {value}");
    }
}

/// A row's fields with their values as TOML.
fn command_fields(row: &CommandRoute) -> Vec<(&'static str, String)> {
    let mut fields = vec![("type", quoted(&row.pattern))];
    let require = match &row.require {
        Require::None => "none".to_owned(),
        Require::Authenticated => "authenticated".to_owned(),
        Require::Member(field) => format!("member:{field}"),
        Require::Role(role) => format!("role:{role}"),
    };
    match &row.destination {
        Destination::Topic(topic) => {
            let key = match &row.key {
                PartitionKey::Field(name) => name,
                PartitionKey::User => USER,
            };
            fields.extend([("topic", quoted(topic)), ("key", quoted(key))]);
        }
        Destination::Relay => fields.push(("relay", quoted("room"))),
        Destination::Gateway => fields.push(("answer", quoted("gateway"))),
    }
    fields.extend([("require", quoted(&require)), ("rate", quoted(&row.rate.to_string()))]);
    if let Destination::Topic(_) = row.destination {
        fields.push(("payload", quoted(if row.payload == PayloadForm::Raw { "raw" } else { "enriched" })));
    }
    fields.extend(row.d_kind.map(|kind| ("kind", kind.to_string())));
    fields
}

fn event_fields(row: &EventRoute) -> Vec<(&'static str, String)> {
    let mut fields = vec![("type", quoted(&row.pattern))];
    fields.push(match &row.source {
        Source::Topic(topic) => ("topic", quoted(topic)),
        Source::Relay => ("relay", quoted("room")),
    });
    let to = TO.iter().find(|(_, to)| *to == row.to).map_or("", |(name, _)| name);
    fields.push(("to", quoted(to)));
    fields.extend(row.target.as_deref().map(|target| ("target", quoted(target))));
    let effect = row.effect.as_ref().map(|effect| match effect {
        RouteEffect::Join(field) => format!("join:{field}"),
        RouteEffect::Leave(field) => format!("leave:{field}"),
        RouteEffect::Forget(field) => format!("forget:{field}"),
        RouteEffect::Kick => "kick".to_owned(),
    });
    fields.extend(effect.map(|effect| ("effect", quoted(&effect))));
    fields.push(("class", quoted(row.class.label())));
    fields.extend(row.coalesce.as_deref().map(|field| ("coalesce", quoted(field))));
    fields.push(("d_type", row.kind.map_or(0, |kind| kind.frame_type).to_string()));
    fields.extend(row.kind.filter(|kind| kind.kind != 0).map(|kind| ("kind", kind.kind.to_string())));
    fields
}

fn quoted(text: &str) -> String {
    format!("{text:?}")
}

/// The names of audiences.
pub(super) const TO: [(&str, To); 5] = [
    ("room", To::Room),
    ("user", To::User),
    ("session", To::Session),
    ("everyone", To::Everyone),
    ("room_or_user", To::RoomOrUser),
];
/// The key that stands for the user.
pub(super) const USER: &str = "user";

const DELTA_LAW: [&str; 3] = [
    "Only types of class delta may be left out, and only for a client that is slow. They must be self-contained:",
    "applying only the newest value of a key equals applying all. What must not be missed (a despawn, a hit, an item)",
    "is a reliable event.",
];

const HEAD: &str = "
# The type table: which message types exist and what becomes of them. Below are the built-in rows. A row of this file
# is added to them; one of the same type replaces the built-in row as a whole. SIGHUP reloads the table and the keys
# without a disconnect; a file with errors changes nothing.
";
