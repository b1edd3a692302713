//! The tables and statements, and what a write asks of them. PostgreSQL's texts have no NUL: U+FFFD stands for it.

use std::borrow::Cow;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Error, Row, Statement};

use crate::id::EventId;
use crate::ports::{ChatMessage, Write};
use crate::time::WallMillis;

/// A statement with its values.
pub struct Call<'a> {
    pub statement: &'a Statement,
    values: Vec<Value<'a>>,
}

type Value<'a> = Box<dyn ToSql + Sync + 'a>;

impl Call<'_> {
    /// In the statement's order.
    pub fn values(&self) -> impl ExactSizeIterator<Item = &(dyn ToSql + Sync)> {
        self.values.iter().map(|value| &**value as &(dyn ToSql + Sync))
    }
}

/// The statements of a connection.
#[derive(Debug)]
pub struct Statements {
    pub fence: Statement,
    pub load: Statement,
    pub messages: Statement,
    pub newest: Statement,
    put: Statement,
    remove: Statement,
    room: Statement,
    remove_room: [Statement; 3],
    player: Statement,
    sender: Statement,
    message: Statement,
    trim: [Statement; 2],
}

impl Statements {
    pub async fn prepare(client: &Client) -> Result<Self, Error> {
        Ok(Self {
            fence: client.prepare(FENCE).await?,
            load: client.prepare(LOAD).await?,
            messages: client.prepare(MESSAGES).await?,
            newest: client.prepare(NEWEST).await?,
            put: client.prepare(PUT).await?,
            remove: client.prepare("DELETE FROM records WHERE service = $1 AND key = $2").await?,
            room: client.prepare(ROOM).await?,
            remove_room: [
                client.prepare("DELETE FROM rooms WHERE id = $1").await?,
                client.prepare("DELETE FROM room_players WHERE room_id = $1").await?,
                client.prepare("DELETE FROM chat_messages WHERE room_id = $1").await?,
            ],
            player: client.prepare(PLAYER).await?,
            sender: client.prepare(SENDER).await?,
            message: client.prepare(MESSAGE).await?,
            trim: [client.prepare(TRIM_SENDERS).await?, client.prepare(TRIM).await?],
        })
    }

    /// What a write asks for, in order.
    pub fn calls<'a>(&'a self, write: &'a Write) -> Vec<Call<'a>> {
        fn call<'a>(statement: &'a Statement, values: Vec<Value<'a>>) -> Call<'a> {
            Call { statement, values }
        }
        match write {
            Write::Put { service, key, value } => {
                vec![call(&self.put, vec![Box::new(*service), Box::new(text(key)), Box::new(&**value)])]
            }
            Write::Remove { service, key } => {
                vec![call(&self.remove, vec![Box::new(*service), Box::new(text(key))])]
            }
            Write::Room { room, code, max_players, at } => {
                let max_players = i32::try_from(*max_players).unwrap_or(i32::MAX);
                let (room, code) = (Box::new(text(room)), Box::new(text(code)));
                vec![call(&self.room, vec![room, code, Box::new(moment(*at)), Box::new(max_players)])]
            }
            Write::RemoveRoom { room } => {
                self.remove_room.iter().map(|statement| call(statement, vec![Box::new(text(room))])).collect()
            }
            Write::Player { room, player, name, at } => vec![call(&self.player, player_row(player, room, name, *at))],
            Write::Message(said) => {
                let ChatMessage { id, room, sender, sender_name, message, at } = &**said;
                let id = Box::new(id.to_string());
                let row: Vec<Value<'_>> = vec![
                    id,
                    Box::new(text(room)),
                    Box::new(text(sender)),
                    Box::new(text(message)),
                    Box::new(moment(*at)),
                ];
                vec![call(&self.sender, player_row(sender, room, sender_name, *at)), call(&self.message, row)]
            }
        }
    }

    /// Takes out the messages up to this one, and who has said nothing else in a room that is none of B's.
    pub fn trim(&self, last: i64) -> Vec<Call<'_>> {
        self.trim.iter().map(|statement| Call { statement, values: vec![Box::new(last)] }).collect()
    }
}

fn player_row<'a>(player: &'a str, room: &'a str, name: &'a str, at: WallMillis) -> Vec<Value<'a>> {
    vec![Box::new(text(player)), Box::new(text(room)), Box::new(text(name)), Box::new(moment(at))]
}

/// A row of [`MESSAGES`].
pub fn message(room: &str, row: &Row) -> Result<ChatMessage, Error> {
    let (id, sender, name): (String, String, Option<String>) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
    let (message, at): (String, SystemTime) = (row.try_get(3)?, row.try_get(4)?);
    let at = at.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    Ok(ChatMessage {
        // The column has UUIDs alone.
        id: EventId::parse(&id).unwrap_or(EventId([0; 16])),
        room: room.into(),
        sender_name: name.unwrap_or_else(|| sender.clone()).into(),
        sender: sender.into(),
        message: message.into(),
        at: WallMillis(u64::try_from(at).unwrap_or(u64::MAX)),
    })
}

/// A batch that has every statement carried out, and leaves nothing.
pub fn trial() -> Vec<Write> {
    let (room, at): (Box<str>, _) = ("ringgate trial".into(), WallMillis(0));
    let (sender, name): (Box<str>, Box<str>) = (room.clone(), room.clone());
    let message = ChatMessage {
        id: EventId([0; 16]),
        room: room.clone(),
        sender: sender.clone(),
        sender_name: name.clone(),
        message: name.clone(),
        at,
    };
    vec![
        Write::Put { service: "trial", key: room.clone(), value: (*b"{}").into() },
        Write::Remove { service: "trial", key: room.clone() },
        Write::Room { room: room.clone(), code: name.clone(), max_players: 1, at },
        Write::Player { room: room.clone(), player: sender, name, at },
        Write::Message(Box::new(message)),
        Write::RemoveRoom { room },
    ]
}

/// As PostgreSQL takes it.
pub fn text(text: &str) -> Cow<'_, str> {
    if text.contains('\0') { text.replace('\0', "\u{fffd}").into() } else { text.into() }
}

fn moment(at: WallMillis) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(at.0.min(LATEST_MS))
}

/// The end of the year 9999, within what the type holds.
const LATEST_MS: u64 = 253_402_300_799_999;

/// How many of the tables are not there.
pub const MISSING: &str = "SELECT count(*) FROM unnest(ARRAY['ringgate_writer', 'records', 'rooms', 'room_players',
    'chat_messages']) AS name WHERE to_regclass(name) IS NULL";
/// `seq` counts what was stored; there is one writer. The second index finds whether a sender has said anything else.
pub const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS ringgate_writer (
        one BOOLEAN PRIMARY KEY CHECK (one), term BIGINT NOT NULL);
    CREATE TABLE IF NOT EXISTS records (
        service TEXT NOT NULL, key TEXT COLLATE \"C\" NOT NULL, value BYTEA NOT NULL,
        PRIMARY KEY (service, key));
    CREATE TABLE IF NOT EXISTS rooms (
        id TEXT PRIMARY KEY, code TEXT NOT NULL, created_at TIMESTAMPTZ NOT NULL, max_players INTEGER NOT NULL);
    CREATE TABLE IF NOT EXISTS room_players (
        id TEXT NOT NULL, room_id TEXT NOT NULL, display_name TEXT NOT NULL, created_at TIMESTAMPTZ NOT NULL,
        PRIMARY KEY (room_id, id));
    CREATE TABLE IF NOT EXISTS chat_messages (
        seq BIGINT PRIMARY KEY, id UUID NOT NULL UNIQUE, room_id TEXT NOT NULL, room_player_id TEXT NOT NULL,
        message TEXT NOT NULL, created_at TIMESTAMPTZ NOT NULL);
    CREATE INDEX IF NOT EXISTS chat_messages_by_room ON chat_messages (room_id, seq);
    CREATE INDEX IF NOT EXISTS chat_messages_by_sender ON chat_messages (room_id, room_player_id, seq);";
/// The next term.
pub const TAKE: &str = "INSERT INTO ringgate_writer (one, term) VALUES (TRUE, 1)
    ON CONFLICT (one) DO UPDATE SET term = ringgate_writer.term + 1 RETURNING term";
const FENCE: &str = "SELECT term FROM ringgate_writer FOR UPDATE";
const LOAD: &str = "SELECT key, value FROM records WHERE service = $1 ORDER BY key COLLATE \"C\"";
const PUT: &str = "INSERT INTO records (service, key, value) VALUES ($1, $2, $3)
    ON CONFLICT (service, key) DO UPDATE SET value = excluded.value";
const ROOM: &str = "INSERT INTO rooms (id, code, created_at, max_players) VALUES ($1, $2, $3, $4)
    ON CONFLICT (id) DO UPDATE SET code = excluded.code, created_at = excluded.created_at,
        max_players = excluded.max_players";
const PLAYER: &str = "INSERT INTO room_players (id, room_id, display_name, created_at) VALUES ($1, $2, $3, $4)
    ON CONFLICT (room_id, id) DO UPDATE SET display_name = excluded.display_name, created_at = excluded.created_at";
const SENDER: &str = "INSERT INTO room_players (id, room_id, display_name, created_at) VALUES ($1, $2, $3, $4)
    ON CONFLICT (room_id, id) DO UPDATE SET display_name = excluded.display_name
        WHERE room_players.display_name <> excluded.display_name";
const MESSAGE: &str = "INSERT INTO chat_messages (seq, id, room_id, room_player_id, message, created_at)
    SELECT coalesce(max(seq), 0) + 1, $1::text::uuid, $2::text, $3::text, $4::text, $5::timestamptz FROM chat_messages
    ON CONFLICT (id) DO NOTHING";
const NEWEST: &str = "SELECT max(seq) FROM chat_messages";
/// In portions, so that their plan is that of an index, and none takes long.
const TRIM: &str = "DELETE FROM chat_messages WHERE seq = ANY (ARRAY(
    SELECT seq FROM chat_messages WHERE seq <= $1 ORDER BY seq LIMIT 1000))";
const TRIM_SENDERS: &str = "WITH old AS MATERIALIZED (
        SELECT room_id, room_player_id FROM chat_messages WHERE seq <= $1 ORDER BY seq LIMIT 1000)
    DELETE FROM room_players AS p
    WHERE (p.room_id, p.id) IN (SELECT room_id, room_player_id FROM old)
    AND NOT EXISTS (SELECT 1 FROM rooms WHERE rooms.id = p.room_id)
    AND NOT EXISTS (SELECT 1 FROM chat_messages AS m
        WHERE m.room_id = p.room_id AND m.room_player_id = p.id AND m.seq > $1)";
const MESSAGES: &str = "SELECT m.id::text, m.room_player_id, p.display_name, m.message, m.created_at
    FROM chat_messages AS m LEFT JOIN room_players AS p ON p.room_id = m.room_id AND p.id = m.room_player_id
    WHERE m.room_id = $1 ORDER BY m.seq DESC LIMIT $2";
