//! The compiled-in rows of the type table; the test below holds them and PROTOCOLS "The type table's defaults"
//! together.

use super::envelope::PayloadForm;
use super::routes::{CommandRoute, Destination, EventRoute, PartitionKey, Require, RouteEffect, Source, To};
use crate::class::Class;
use crate::frame::FrameKind;
use crate::time::Rate;

/// The command rows.
pub(super) fn commands() -> Vec<CommandRoute> {
    use PartitionKey::User;
    use Require::{Authenticated, None as Anyone};
    let (chat, games, rooms) = ("chat.commands", "games.commands", "rooms.commands");
    vec![
        command("chat.command.send_message", chat, field("recipient_id"), Authenticated, 10, Some(1)),
        command("chat.command.send_lobby_message", chat, field("lobby_id"), member("lobby_id"), 10, Some(2)),
        command("games.command.create_room", games, User, Authenticated, 5, Some(3)),
        command("games.command.join_room", games, User, Authenticated, 5, Some(4)),
        command("games.command.list_rooms", games, User, Authenticated, 5, Some(5)),
        command("games.command.leave_room", games, field("room_id"), member("room_id"), 5, Some(6)),
        command("games.command.*", games, field("room_id"), member("room_id"), 20, None),
        command("rooms.command.chat", rooms, field("room_id"), member("room_id"), 10, Some(7)),
        command("rooms.command.vote", rooms, field("room_id"), member("room_id"), 10, Some(8)),
        command("rooms.command.action", rooms, field("room_id"), member("room_id"), 10, Some(9)),
        command("battle.command.start", games, field("room_id"), member("room_id"), 1, Some(10)),
        local("system.*", Anyone),
        local("rooms.command.members", member("room_id")),
        local("rooms.command.history", member("room_id")),
    ]
}

/// The event rows.
pub(super) fn events() -> Vec<EventRoute> {
    let (chat, games, rooms, system) = ("chat.events", "games.events", "rooms.events", "system.events");
    let join = || Some(RouteEffect::Join("room_id".into()));
    let leave = Some(RouteEffect::Leave("room_id".into()));
    vec![
        EventRoute {
            target: Some("lobby_id".into()),
            ..event("chat.event.message_received", chat, To::RoomOrUser, None, d(EVENT, 1))
        },
        event("games.event.room_created", games, To::Session, join(), d(EVENT, 10)),
        event("games.event.lobby_joined", games, To::Session, join(), d(EVENT, 11)),
        event("games.event.room_left", games, To::Session, leave, d(EVENT, 12)),
        event("games.event.rooms_listed", games, To::Session, None, d(EVENT, 13)),
        event("games.event.error", games, To::Session, None, d(ERROR, 0)),
        event("games.event.player_joined", games, To::Room, None, d(EVENT, 14)),
        event("games.event.player_left", games, To::Room, None, d(EVENT, 15)),
        event("games.event.game_started", games, To::Room, None, d(EVENT, 16)),
        event("games.event.turn_changed", games, To::Room, None, d(EVENT, 17)),
        event("games.event.game_ended", games, To::Room, None, d(EVENT, 18)),
        event("games.event.*", games, To::Room, None, d(EVENT, 19)),
        event("battle.event.timeline", games, To::Room, None, d(BATTLE_TIMELINE, 0)),
        event("battle.event.end", games, To::Room, None, d(BATTLE_END, 0)),
        EventRoute {
            source: Source::Relay,
            class: Class::Delta,
            coalesce: Some("entity_id".into()),
            ..event("world.delta", "", To::Room, None, d(WORLD_DELTA, 0))
        },
        event("rooms.event.*", rooms, To::Room, None, d(EVENT, 40)),
        event("system.event.announcement", system, To::Everyone, None, d(EVENT, 2)),
        event("system.event.kick", system, To::User, Some(RouteEffect::Kick), None),
    ]
}

fn command(
    pattern: &str,
    topic: &str,
    key: PartitionKey,
    require: Require,
    per_second: u32,
    d_kind: Option<u16>,
) -> CommandRoute {
    let destination = Destination::Topic(topic.into());
    let (rate, payload) = (Rate::per_second(per_second), PayloadForm::Enriched);
    CommandRoute { pattern: pattern.into(), destination, key, require, rate, payload, d_kind }
}

fn local(pattern: &str, require: Require) -> CommandRoute {
    CommandRoute { destination: Destination::Gateway, ..command(pattern, "", PartitionKey::User, require, 5, None) }
}

fn field(name: &str) -> PartitionKey {
    PartitionKey::Field(name.into())
}

fn member(name: &str) -> Require {
    Require::Member(name.into())
}

fn event(pattern: &str, topic: &str, to: To, effect: Option<RouteEffect>, kind: Option<FrameKind>) -> EventRoute {
    EventRoute {
        pattern: pattern.into(),
        source: Source::Topic(topic.into()),
        to,
        target: None,
        effect,
        class: Class::Reliable,
        coalesce: None,
        kind,
    }
}

fn d(frame_type: u8, kind: u16) -> Option<FrameKind> {
    Some(FrameKind { frame_type, kind })
}

/// D's ERROR; its kind is the index of the code in the payload.
const ERROR: u8 = 3;
const WORLD_DELTA: u8 = 32;
const BATTLE_TIMELINE: u8 = 33;
const BATTLE_END: u8 = 34;
const EVENT: u8 = 35;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::routes::Routes;

    /// PROTOCOLS' command rows, one type a line: type, topic, key, require, rate, payload, D kind.
    const COMMANDS: &str = "
        chat.command.send_message       | chat.commands  | recipient_id | authenticated   | 10/s | enriched | 1
        chat.command.send_lobby_message | chat.commands  | lobby_id     | member:lobby_id | 10/s | enriched | 2
        games.command.create_room       | games.commands | user         | authenticated   | 5/s  | enriched | 3
        games.command.join_room         | games.commands | user         | authenticated   | 5/s  | enriched | 4
        games.command.list_rooms        | games.commands | user         | authenticated   | 5/s  | enriched | 5
        games.command.leave_room        | games.commands | room_id      | member:room_id  | 5/s  | enriched | 6
        games.command.*                 | games.commands | room_id      | member:room_id  | 20/s | enriched | –
        rooms.command.chat              | rooms.commands | room_id      | member:room_id  | 10/s | enriched | 7
        rooms.command.vote              | rooms.commands | room_id      | member:room_id  | 10/s | enriched | 8
        rooms.command.action            | rooms.commands | room_id      | member:room_id  | 10/s | enriched | 9
        battle.command.start            | games.commands | room_id      | member:room_id  | 1/s  | enriched | 10
        system.*                        | gateway        |              | –               | 5/s  |          | –
        rooms.command.members           | gateway        |              | member:room_id  | 5/s  |          | –
        rooms.command.history           | gateway        |              | member:room_id  | 5/s  |          | –";

    /// PROTOCOLS' event rows, one type a line: type, topic, to, effect, class, coalesce, D type and kind.
    const EVENTS: &str = "
        chat.event.message_received | chat.events   | room by lobby_id, else user | | reliable | | 35, 1
        games.event.room_created    | games.events  | session  | join:room_id  | reliable |           | 35, 10
        games.event.lobby_joined    | games.events  | session  | join:room_id  | reliable |           | 35, 11
        games.event.room_left       | games.events  | session  | leave:room_id | reliable |           | 35, 12
        games.event.rooms_listed    | games.events  | session  |               | reliable |           | 35, 13
        games.event.error           | games.events  | session  |               | reliable |           | 3
        games.event.player_joined   | games.events  | room     |               | reliable |           | 35, 14
        games.event.player_left     | games.events  | room     |               | reliable |           | 35, 15
        games.event.game_started    | games.events  | room     |               | reliable |           | 35, 16
        games.event.turn_changed    | games.events  | room     |               | reliable |           | 35, 17
        games.event.game_ended      | games.events  | room     |               | reliable |           | 35, 18
        games.event.*               | games.events  | room     |               | reliable |           | 35, 19
        battle.event.timeline       | games.events  | room     |               | reliable |           | 33
        battle.event.end            | games.events  | room     |               | reliable |           | 34
        world.delta                 | relay         | room     |               | delta    | entity_id | 32
        rooms.event.*               | rooms.events  | room     |               | reliable |           | 35, 40
        system.event.announcement   | system.events | everyone |               | reliable |           | 35, 2
        system.event.kick           | system.events | user     | kick          | reliable |           | –";

    fn rows(text: &str) -> Vec<Vec<String>> {
        let cells = |line: &str| line.split('|').map(|cell| cell.trim().to_owned()).collect();
        text.lines().skip(1).map(cells).collect()
    }

    fn shown_command(row: &CommandRoute) -> Vec<String> {
        let (topic, key, payload) = match &row.destination {
            Destination::Gateway => ("gateway", "", ""),
            Destination::Relay => ("relay", "", "raw"),
            Destination::Topic(topic) => {
                let key = match &row.key {
                    PartitionKey::Field(name) => name,
                    PartitionKey::User => "user",
                };
                (&**topic, key, if row.payload == PayloadForm::Enriched { "enriched" } else { "raw" })
            }
        };
        let require = match &row.require {
            Require::None => "–".to_owned(),
            Require::Authenticated => "authenticated".to_owned(),
            Require::Member(field) => format!("member:{field}"),
            Require::Role(role) => format!("role:{role}"),
        };
        let rate = row.rate.to_string();
        let kind = row.d_kind.map_or("–".to_owned(), |kind| kind.to_string());
        vec![row.pattern.to_string(), topic.into(), key.into(), require, rate, payload.into(), kind]
    }

    fn shown_event(row: &EventRoute) -> Vec<String> {
        let topic = match &row.source {
            Source::Topic(topic) => topic.to_string(),
            Source::Relay => "relay".to_owned(),
        };
        let to = match row.to {
            To::Room => "room".to_owned(),
            To::User => "user".to_owned(),
            To::Session => "session".to_owned(),
            To::Everyone => "everyone".to_owned(),
            To::RoomOrUser => format!("room by {}, else user", row.target.as_deref().unwrap_or("?")),
        };
        let effect = match &row.effect {
            None => String::new(),
            Some(RouteEffect::Join(field)) => format!("join:{field}"),
            Some(RouteEffect::Leave(field)) => format!("leave:{field}"),
            Some(RouteEffect::Forget(field)) => format!("forget:{field}"),
            Some(RouteEffect::Kick) => "kick".to_owned(),
        };
        let kind = row.kind.map_or("–".to_owned(), |d| match d.kind {
            0 => d.frame_type.to_string(),
            kind => format!("{}, {kind}", d.frame_type),
        });
        let coalesce = row.coalesce.as_deref().unwrap_or_default();
        vec![row.pattern.to_string(), topic, to, effect, row.class.label().into(), coalesce.into(), kind]
    }

    /// The compiled-in table is the one PROTOCOLS prints, row by row.
    #[test]
    fn the_defaults_are_the_printed_table() {
        assert_eq!(commands().iter().map(shown_command).collect::<Vec<_>>(), rows(COMMANDS));
        assert_eq!(events().iter().map(shown_event).collect::<Vec<_>>(), rows(EVENTS));
    }

    /// Every kind leads back to the type that has it.
    #[test]
    fn kinds_name_their_types() {
        let routes = Routes::default();
        for kind in 1..=10 {
            let (name, row) = routes.command_of_kind(kind).unwrap();
            assert_eq!(row.d_kind, Some(kind));
            assert_eq!(routes.command(&row.pattern).unwrap().0, name);
        }
        assert!(routes.command_of_kind(0).is_none() && routes.command_of_kind(11).is_none());
        assert_eq!(&*routes.command("games.command.bigger_dice.roll").unwrap().1.pattern, "games.command.*");
        assert_eq!(routes.event("games.event.bigger_dice.rolled").unwrap().kind, d(EVENT, 19));
        assert!(routes.event("nobody.knows").is_none());
        let event = |frame_type, kind| routes.event_of_kind(FrameKind { frame_type, kind }).map(|row| &*row.pattern);
        assert_eq!((event(EVENT, 14), event(EVENT, 19)), (Some("games.event.player_joined"), Some("games.event.*")));
        assert_eq!((event(WORLD_DELTA, 0), event(EVENT, 0)), (Some("world.delta"), None));
    }
}
