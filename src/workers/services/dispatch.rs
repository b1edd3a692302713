//! From records of the bus to inputs of services: which service, and which fields.

use std::time::Duration;

use crate::id::{SessionId, is_room_id};
use crate::limits;
use crate::message::ErrorCode;
use crate::ports::Write;
use crate::protocol::envelope::members::{is_no_text, member, text};
use crate::protocol::envelope::{EnvelopeError, Json, ServiceCommand, own_fields, parse_command};
use crate::services::battle::{self, Battles, Start};
use crate::services::hub::{self, Hubs};
use crate::services::rooms::{self, Outcome, Rooms};
use crate::services::{Caller, Outbox, SeenCommands, Sender, Sighting, SightingKind, chat};
use crate::time::WallMillis;

/// All services of a worker.
#[derive(Debug)]
pub struct Services {
    pub rooms: Rooms,
    pub hubs: Hubs,
    pub battles: Battles,
    pub seen: SeenCommands,
    /// What presence said before that is of connections that are no more.
    pub restarted: Restarted,
    /// The broken policy to run instead.
    #[cfg(feature = "mutants")]
    pub mutant: crate::mutant::Mutant,
}

/// A start of the gateways whose presence is read, with nobody connected.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Restarted {
    /// When they started.
    pub at: WallMillis,
    /// When the former ones were last alive, and their connections with them; at most `at`.
    pub alive: WallMillis,
}

/// A record of a command topic.
pub struct Input<'a> {
    pub topic: &'static str,
    /// Names it among those of its topic.
    pub ticket: u64,
    pub at: WallMillis,
    pub value: &'a [u8],
}

impl Services {
    pub fn new(resume_window: Duration, secret: [u8; 16], seed: u64) -> Self {
        Self {
            rooms: Rooms::new(resume_window, secret),
            hubs: Hubs::new(resume_window),
            battles: Battles::new(seed),
            seen: SeenCommands::new(resume_window, limits::SEEN_COMMANDS, seed),
            restarted: Restarted::default(),
            #[cfg(feature = "mutants")]
            mutant: crate::mutant::Mutant::None,
        }
    }

    /// Whether a broken policy does commands again that come again; see [`crate::mutant`].
    fn does_again(&self) -> bool {
        #[cfg(feature = "mutants")]
        return self.mutant == crate::mutant::Mutant::CommandAgain;
        #[cfg(not(feature = "mutants"))]
        false
    }

    /// Everything that [`Services::restore`] takes back.
    pub fn names() -> impl Iterator<Item = &'static str> {
        rooms::SERVICES.into_iter().chain([hub::SERVICE, battle::SERVICE])
    }

    pub fn restore(&mut self, service: &str, key: &str, value: &mut [u8]) -> bool {
        match service {
            hub::SERVICE => self.hubs.restore(key, value),
            battle::SERVICE => self.battles.restore(key, value),
            _ => self.rooms.restore(service, key, value),
        }
    }

    pub fn save(&mut self, out: &mut Vec<Write>) {
        self.rooms.save(out);
        self.hubs.save(out);
        self.battles.save(out);
    }

    /// When something happens by itself.
    pub fn next(&self) -> WallMillis {
        self.rooms.next().min(self.hubs.next()).min(self.battles.next())
    }

    /// Carries out what rooms and hubs have to do until then, the earliest first, at most `budget` of it.
    pub fn timers(&mut self, until: WallMillis, budget: &mut usize, out: &mut Outbox) {
        while *budget > 0 {
            let hub_first = self.hubs.next() < self.rooms.next();
            let any = if hub_first { self.hubs.poll(until, out) } else { self.rooms.poll(until, out) };
            if !any {
                return;
            }
            *budget -= 1;
        }
    }

    /// Carries out one record; what is another backend's is left alone.
    pub fn input(&mut self, input: &Input<'_>, json: &mut Json, out: &mut Outbox) -> Result<(), EnvelopeError> {
        let command = parse_command(input.value, json)?;
        if input.topic == PRESENCE {
            // Of hubs this topic and that of commands both tell, so that each does before it speaks of their players.
            match &*command.event_type {
                "gateway.presence.opened" => self.hub_made(input.at, Verb::HubOpened, &command, out),
                "gateway.presence.enrolled" => self.hub_made(input.at, Verb::HubEnrolled, &command, out),
                _ => self.sighted(input.at, &command, out),
            }
            return Ok(());
        }
        let Some(verb) = Verb::of(input.topic, &command.event_type) else { return Ok(()) };
        if !self.seen.first(input.at, command.event_id) && !self.does_again() {
            return Ok(());
        }
        let field = |name| member(command.payload, name).and_then(text);
        let (session, correlation) = (command.session, command.correlation.as_deref());
        let sender = Sender { command: command.event_id, session, correlation };
        match verb {
            Verb::Battle => {
                let room = field("room_id");
                let (events, interval_ms) = (member(command.payload, "events"), member(command.payload, "interval_ms"));
                let start = Start { sender, room: room.as_deref(), events, interval_ms };
                self.battles.start(input.at, &start, &mut out.events);
            }
            Verb::HubOpened | Verb::HubEnrolled if session.is_none() => self.hub_made(input.at, verb, &command, out),
            Verb::HubOpened | Verb::HubEnrolled => {}
            _ => {
                let Some(user) = command.user_id.as_deref() else {
                    return Err(EnvelopeError::Missing { field: "user.user_id".into() });
                };
                let caller = Caller { sender, user, name: command.username.as_deref().unwrap_or(user) };
                self.call(input, verb, &caller, &command, out);
            }
        }
        Ok(())
    }

    fn call(
        &mut self,
        input: &Input<'_>,
        verb: Verb,
        caller: &Caller<'_>,
        command: &ServiceCommand<'_>,
        out: &mut Outbox,
    ) {
        let field = |name| member(command.payload, name).and_then(text);
        if let Some(name) = verb.texts().iter().find(|name| is_no_text(command.payload, name)) {
            let room = field("room_id").filter(|room| is_room_id(room));
            let text = format!("{name} is neither a string nor a number; send a string");
            out.events.extend(caller.sender.error(input.at, room.as_deref(), ErrorCode::BadRequest, &text));
            return;
        }
        let (room_id, room_name, password) = (field("room_id"), field("room_name"), field("password"));
        let (game_type, max_players) = (field("game_type"), field("max_players"));
        let (room_id, password) = (room_id.as_deref(), password.as_deref());
        let (room_name, game_type) = (room_name.as_deref(), game_type.as_deref());
        let command = match verb {
            Verb::CreateRoom => {
                rooms::Command::Create { game_type, room_name, password, max_players: max_players.as_deref() }
            }
            Verb::JoinRoom => {
                if room_id.is_some_and(|room| self.hubs.has(room)) {
                    let text = "the room is entered with a token of its own; ask POST /api/rooms/{code}/join for one";
                    out.events.extend(caller.sender.error(input.at, room_id, ErrorCode::Forbidden, text));
                    return;
                }
                rooms::Command::Join { room_name, room_id, password }
            }
            Verb::LeaveRoom => rooms::Command::Leave { room_id },
            Verb::ListRooms => rooms::Command::List { game_type },
            Verb::Roll => rooms::Command::Roll { room_id },
            _ => return self.talk(input.at, verb, caller, command, out),
        };
        self.rooms.handle(input.at, input.ticket, caller, &command, out);
    }

    fn talk(
        &mut self,
        now: WallMillis,
        verb: Verb,
        caller: &Caller<'_>,
        command: &ServiceCommand<'_>,
        out: &mut Outbox,
    ) {
        let field = |name| member(command.payload, name).and_then(text);
        let room = field("room_id");
        let fields = || own_fields(command.payload, &OURS);
        match verb {
            Verb::Private => {
                let (recipient_id, content) = (field("recipient_id"), field("content"));
                let (recipient_id, content) = (recipient_id.as_deref(), content.as_deref());
                chat::handle(now, caller, &chat::Command::Private { recipient_id, content }, out);
            }
            Verb::Lobby => {
                let (lobby_id, content) = (field("lobby_id"), field("content"));
                let (lobby_id, content) = (lobby_id.as_deref(), content.as_deref());
                chat::handle(now, caller, &chat::Command::Lobby { lobby_id, content }, out);
            }
            Verb::HubChat => {
                let message = field("message");
                let chat = hub::Command::Chat { message: message.as_deref() };
                self.hubs.handle(now, caller, room.as_deref(), &chat, out);
            }
            Verb::HubVote => {
                let vote = hub::Command::Vote { fields: &fields() };
                self.hubs.handle(now, caller, room.as_deref(), &vote, out);
            }
            _ => {
                let action = hub::Command::Action { fields: &fields() };
                self.hubs.handle(now, caller, room.as_deref(), &action, out);
            }
        }
    }

    fn hub_made(&mut self, now: WallMillis, verb: Verb, command: &ServiceCommand<'_>, out: &mut Outbox) {
        let field = |name| member(command.payload, name).and_then(text);
        let Some(room) = field("room_id") else { return };
        match verb {
            Verb::HubOpened => {
                let max_players = field("max_players").and_then(|text| text.parse().ok());
                let code = field("code").unwrap_or_default();
                self.hubs.opened(now, &room, &code, max_players.unwrap_or(limits::ROOM_PLAYERS), out);
            }
            _ => {
                let gone = field("in_place_of");
                if let (Some(player), Some(name)) = (field("player_id"), field("display_name")) {
                    let enrolled = hub::Enrolled { player: &player, name: &name, in_place_of: gone.as_deref() };
                    self.hubs.enrolled(now, &room, &enrolled, out);
                }
            }
        }
    }

    fn sighted(&mut self, now: WallMillis, record: &ServiceCommand<'_>, out: &mut Outbox) {
        let field = |name| member(record.payload, name).and_then(text);
        let room = field("room_id");
        let reason = field("reason");
        let kind = match (record.event_type.strip_prefix("gateway.presence."), room.as_deref()) {
            (Some("connected"), _) => SightingKind::Connected,
            (Some("disconnected"), _) => SightingKind::Disconnected { kicked: reason.as_deref() == Some("kicked") },
            (Some("joined"), Some(room)) => SightingKind::Joined { room },
            (Some("left"), Some(room)) => SightingKind::Left { room },
            _ => return,
        };
        let Some(session) = record.session.or_else(|| field("session_id").and_then(|id| SessionId::parse(&id))) else {
            return;
        };
        let user = record.user_id.as_deref().unwrap_or_default();
        let name = record.username.as_deref().unwrap_or_default();
        let sighting = Sighting { id: record.event_id, session, user, name, kind };
        self.see(now, &sighting, out);
        if now < self.restarted.at && matches!(kind, SightingKind::Connected | SightingKind::Joined { .. }) {
            let gone = Sighting { kind: SightingKind::Disconnected { kicked: false }, ..sighting };
            self.see(self.restarted.alive, &gone, out);
        }
    }

    fn see(&mut self, now: WallMillis, sighting: &Sighting<'_>, out: &mut Outbox) {
        self.rooms.sighted(now, sighting, out);
        self.hubs.sighted(now, sighting, out);
    }

    /// The gateways were started anew: nobody whom presence said to be there is.
    pub fn restarted(&mut self, restarted: Restarted) {
        self.restarted = restarted;
        self.rooms.doubt_all(restarted.alive);
        self.hubs.doubt_all(restarted.alive);
    }

    /// A password was hashed.
    pub fn finish(&mut self, now: WallMillis, ticket: u64, outcome: Outcome, out: &mut Outbox) {
        self.rooms.finish(now, ticket, outcome, out);
    }
}

/// What the reference services understand.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Verb {
    Battle,
    CreateRoom,
    JoinRoom,
    LeaveRoom,
    ListRooms,
    Roll,
    Private,
    Lobby,
    HubChat,
    HubVote,
    HubAction,
    HubOpened,
    HubEnrolled,
}

impl Verb {
    fn of(topic: &str, event_type: &str) -> Option<Self> {
        Some(match (topic, event_type) {
            (GAMES, "battle.command.start") => Self::Battle,
            (GAMES, "games.command.create_room") => Self::CreateRoom,
            (GAMES, "games.command.join_room") => Self::JoinRoom,
            (GAMES, "games.command.leave_room") => Self::LeaveRoom,
            (GAMES, "games.command.list_rooms") => Self::ListRooms,
            (GAMES, "games.command.bigger_dice.roll") => Self::Roll,
            (CHAT, "chat.command.send_message") => Self::Private,
            (CHAT, "chat.command.send_lobby_message") => Self::Lobby,
            (ROOMS, "rooms.command.chat") => Self::HubChat,
            (ROOMS, "rooms.command.vote") => Self::HubVote,
            (ROOMS, "rooms.command.action") => Self::HubAction,
            (ROOMS, "rooms.command.opened") => Self::HubOpened,
            (ROOMS, "rooms.command.enrolled") => Self::HubEnrolled,
            _ => return None,
        })
    }

    /// Its fields that are texts if they are there: one that is something else is not taken for one that is missing.
    fn texts(self) -> &'static [&'static str] {
        match self {
            Self::CreateRoom => &["game_type", "room_name", "password", "max_players"],
            Self::JoinRoom => &["room_id", "room_name", "password"],
            Self::LeaveRoom | Self::Roll => &["room_id"],
            Self::ListRooms => &["game_type"],
            Self::Private => &["recipient_id", "content"],
            Self::Lobby => &["lobby_id", "content"],
            Self::HubChat => &["message"],
            Self::Battle | Self::HubVote | Self::HubAction | Self::HubOpened | Self::HubEnrolled => &[],
        }
    }
}

/// Where gateways say who is there.
pub const PRESENCE: &str = "gateway.presence";
/// Commands of rooms, games and battles.
pub const GAMES: &str = "games.commands";
/// Commands of chat.
pub const CHAT: &str = "chat.commands";
/// Commands of room hubs.
pub const ROOMS: &str = "rooms.commands";
/// Fields of a hub's payload that are not the player's own.
const OURS: [&str; 8] =
    ["type", "user_id", "username", "socket_id", "session_id", "room_id", "player_id", "display_name"];
