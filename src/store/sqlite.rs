//! The store in SQLite: one table of the services' records, three of PROTOCOLS B's history.
//!
//! Laws: a batch is one transaction, so that a record never tells of half an input; a message id is stored once. The
//! journal is written ahead and given to the kernel with every batch, so that a killed process loses nothing; a machine
//! that loses power may lose the newest batches, whose inputs the services then do again from the bus.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, Transaction, params};

use crate::id::EventId;
use crate::ports::{ChatMessage, Store, StoreError, Write};
use crate::time::WallMillis;

/// A database and its only user. See the module.
#[derive(Debug)]
pub struct SqliteStore {
    db: Connection,
    place: String,
    messages_max: u64,
}

/// Where the store is and how much it keeps.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoreSettings {
    /// The file, made if it is not there; `None` = in memory.
    pub file: Option<PathBuf>,
    /// Chat messages kept, all conversations together; beyond it the oldest go.
    pub messages_max: u64,
}

impl SqliteStore {
    /// Opens the database and makes the tables that are missing.
    ///
    /// # Errors
    /// If the file cannot be used: who holds it, or what to do about it.
    pub fn open(settings: &StoreSettings) -> Result<Self, StoreError> {
        let place = settings.file.as_deref().map_or("in memory".into(), |file| file.display().to_string());
        let open = || {
            let db = match settings.file.as_deref() {
                Some(file) => open_file(file)?,
                None => Connection::open_in_memory()?,
            };
            db.execute_batch(TABLES)?;
            Ok(db)
        };
        let db = open().map_err(|error: rusqlite::Error| failed(&place, &error))?;
        Ok(Self { db, place, messages_max: settings.messages_max })
    }

    fn tried<T>(&self, outcome: rusqlite::Result<T>) -> Result<T, StoreError> {
        outcome.map_err(|error| failed(&self.place, &error))
    }
}

impl Store for SqliteStore {
    fn load(&mut self, service: &str) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        let read = || {
            let mut select = self.db.prepare_cached("SELECT key, value FROM records WHERE service = ? ORDER BY key")?;
            select.query_map([service], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
        };
        self.tried(read())
    }

    fn write(&mut self, batch: &[Write]) -> Result<(), StoreError> {
        let Self { db, place, messages_max } = self;
        let mut carry_out = || {
            let transaction = db.transaction()?;
            let mut talked = false;
            for write in batch {
                talked |= matches!(write, Write::Message(_));
                change(&transaction, write)?;
            }
            if talked {
                trim(&transaction, i64::try_from(*messages_max).unwrap_or(i64::MAX))?;
            }
            transaction.commit()
        };
        carry_out().map_err(|error| failed(place, &error))
    }

    fn messages(&mut self, room: &str, max: usize) -> Result<Vec<ChatMessage>, StoreError> {
        let read = || {
            let mut select = self.db.prepare_cached(MESSAGES)?;
            let rows = select.query_map(params![room, i64::try_from(max).unwrap_or(i64::MAX)], |row| {
                let id: [u8; 16] = row.get(0)?;
                let sender: String = row.get(1)?;
                let name: Option<String> = row.get(2)?;
                Ok(ChatMessage {
                    id: EventId(id),
                    room: room.into(),
                    sender_name: name.unwrap_or_else(|| sender.clone()).into(),
                    sender: sender.into(),
                    message: row.get::<_, String>(3)?.into(),
                    at: WallMillis(row.get::<_, i64>(4)?.unsigned_abs()),
                })
            })?;
            rows.collect()
        };
        let mut messages: Vec<_> = self.tried(read())?;
        messages.reverse();
        Ok(messages)
    }
}

fn open_file(file: &Path) -> rusqlite::Result<Connection> {
    // SQLite would make it readable for everybody; what it makes beside it has the modes of the file. Where this fails,
    // SQLite says why. A file that is there must not even be opened: closing a descriptor of it would take the locks of
    // this process's other stores away (fcntl(2), POSIX locks), and whoever then looks into the file from outside would
    // take itself for the last user and remove the journal under them.
    let _ = OpenOptions::new().create_new(true).write(true).mode(MODE).open(file);
    let db = Connection::open(file)?;
    db.busy_timeout(BUSY)?;
    db.pragma_update(None, "journal_mode", "WAL")?;
    db.pragma_update(None, "synchronous", "NORMAL")?;
    Ok(db)
}

fn change(db: &Transaction<'_>, write: &Write) -> rusqlite::Result<()> {
    match write {
        Write::Put { service, key, value } => {
            db.prepare_cached("INSERT OR REPLACE INTO records VALUES (?, ?, ?)")?
                .execute(params![service, &**key, &**value])?;
        }
        Write::Remove { service, key } => {
            db.prepare_cached("DELETE FROM records WHERE service = ? AND key = ?")?.execute([*service, &**key])?;
        }
        Write::Room { room, code, max_players, at } => {
            let row = params![&**room, &**code, millis(*at), max_players];
            db.prepare_cached("INSERT OR REPLACE INTO rooms VALUES (?, ?, ?, ?)")?.execute(row)?;
        }
        Write::RemoveRoom { room } => {
            for table in ["rooms WHERE id", "room_players WHERE room_id", "chat_messages WHERE room_id"] {
                db.prepare_cached(&format!("DELETE FROM {table} = ?"))?.execute([&**room])?;
            }
        }
        Write::Player { room, player, name, at } => {
            let row = params![&**player, &**room, &**name, millis(*at)];
            db.prepare_cached("INSERT OR REPLACE INTO room_players VALUES (?, ?, ?, ?)")?.execute(row)?;
        }
        Write::Message(message) => {
            let ChatMessage { id, room, sender, sender_name, message, at } = &**message;
            let row = params![&**sender, &**room, &**sender_name, millis(*at)];
            db.prepare_cached(SENDER)?.execute(row)?;
            let row = params![&id.0[..], &**room, &**sender, &**message, millis(*at)];
            db.prepare_cached(MESSAGE)?.execute(row)?;
        }
    }
    Ok(())
}

/// Takes out the oldest messages beyond the bound, and who has said nothing else in a room that is none of B's.
fn trim(db: &Transaction<'_>, messages_max: i64) -> rusqlite::Result<()> {
    let newest: Option<i64> = db.query_row("SELECT max(seq) FROM chat_messages", [], |row| row.get(0))?;
    let last = newest.unwrap_or(0).saturating_sub(messages_max);
    if last > 0 {
        db.prepare_cached(TRIM_SENDERS)?.execute([last])?;
        db.prepare_cached("DELETE FROM chat_messages WHERE seq <= ?")?.execute([last])?;
    }
    Ok(())
}

fn millis(at: WallMillis) -> i64 {
    i64::try_from(at.0).unwrap_or(i64::MAX)
}

fn failed(place: &str, error: &rusqlite::Error) -> StoreError {
    let remedy = match error.sqlite_error_code() {
        Some(rusqlite::ErrorCode::DatabaseBusy | rusqlite::ErrorCode::DatabaseLocked) => {
            "; another process uses it: stop that one or choose another data_dir"
        }
        Some(rusqlite::ErrorCode::DiskFull) => "; free space on its file system",
        Some(rusqlite::ErrorCode::CannotOpen | rusqlite::ErrorCode::ReadOnly) => {
            "; make its folder, and let this user write there"
        }
        Some(rusqlite::ErrorCode::NotADatabase | rusqlite::ErrorCode::DatabaseCorrupt) => {
            "; move the file away or bring back a copy of it"
        }
        _ => "",
    };
    StoreError { place: place.into(), cause: format!("{error}{remedy}"), lost: false }
}

/// Hashes of passwords and players' words are nobody's but this user's, as in the log.
const MODE: u32 = 0o600;
/// How long a transaction of somebody's who looks into the file is waited for.
const BUSY: std::time::Duration = std::time::Duration::from_secs(5);
/// `created_at` is in milliseconds since the Unix epoch; `seq` counts without holes what was stored.
const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS records (
        service TEXT NOT NULL, key TEXT NOT NULL, value BLOB NOT NULL,
        PRIMARY KEY (service, key)) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS rooms (
        id TEXT PRIMARY KEY, code TEXT NOT NULL, created_at INTEGER NOT NULL, max_players INTEGER NOT NULL);
    CREATE TABLE IF NOT EXISTS room_players (
        id TEXT NOT NULL, room_id TEXT NOT NULL, display_name TEXT NOT NULL, created_at INTEGER NOT NULL,
        PRIMARY KEY (room_id, id)) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS chat_messages (
        seq INTEGER PRIMARY KEY, id BLOB NOT NULL UNIQUE, room_id TEXT NOT NULL, room_player_id TEXT NOT NULL,
        message TEXT NOT NULL, created_at INTEGER NOT NULL);
    CREATE INDEX IF NOT EXISTS chat_messages_by_room ON chat_messages (room_id, seq);";
const SENDER: &str = "INSERT INTO room_players VALUES (?, ?, ?, ?)
    ON CONFLICT (room_id, id) DO UPDATE SET display_name = excluded.display_name";
const MESSAGE: &str = "INSERT OR IGNORE INTO chat_messages (id, room_id, room_player_id, message, created_at)
    VALUES (?, ?, ?, ?, ?)";
const TRIM_SENDERS: &str = "DELETE FROM room_players
    WHERE (room_id, id) IN (SELECT room_id, room_player_id FROM chat_messages WHERE seq <= ?1)
    AND NOT EXISTS (SELECT 1 FROM rooms WHERE rooms.id = room_players.room_id)
    AND NOT EXISTS (SELECT 1 FROM chat_messages AS m
        WHERE m.room_id = room_players.room_id AND m.room_player_id = room_players.id AND m.seq > ?1)";
const MESSAGES: &str = "SELECT m.id, m.room_player_id, p.display_name, m.message, m.created_at
    FROM chat_messages m LEFT JOIN room_players p ON p.room_id = m.room_id AND p.id = m.room_player_id
    WHERE m.room_id = ? ORDER BY m.seq DESC LIMIT ?";

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::super::suite::{self, message, put};
    use super::*;

    fn memory(messages_max: u64) -> SqliteStore {
        SqliteStore::open(&StoreSettings { file: None, messages_max }).unwrap()
    }

    /// What every store does, SQLite does.
    #[test]
    fn it_is_a_store() {
        suite::records_are_kept_by_service_and_key(memory(10));
        suite::messages_are_a_bounded_history(memory(4));
        suite::a_batch_done_again_changes_nothing(memory(10));
        suite::whatever_is_said_is_taken(memory(10));
    }

    /// What was written is there when the file is opened again; a file that is none says so.
    #[test]
    fn a_file_outlives_its_store() {
        let folder = std::env::temp_dir().join(format!("ringgate-store-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let settings = StoreSettings { file: Some(folder.join("store.sqlite")), messages_max: 10 };
        let room = Write::Room { room: "r".into(), code: "ABCDEF".into(), max_players: 10, at: WallMillis(1) };
        let player = Write::Player { room: "r".into(), player: "u".into(), name: "U".into(), at: WallMillis(1) };
        SqliteStore::open(&settings).unwrap().write(&[put("a", "1"), room, player, message(1, "r")]).unwrap();
        let mut store = SqliteStore::open(&settings).unwrap();
        assert_eq!((store.load("rooms").unwrap().len(), store.messages("r", 9).unwrap().len()), (1, 1));
        drop(store);
        let mode = std::fs::metadata(folder.join("store.sqlite")).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{mode:o}: hashes of passwords and what players said are nobody else's");
        std::fs::write(folder.join("other"), vec![7; 4096]).unwrap();
        for (file, told) in [("other", "move the file away"), ("no/such", "make its folder")] {
            let settings = StoreSettings { file: Some(folder.join(file)), messages_max: 10 };
            let error = SqliteStore::open(&settings).unwrap_err().to_string();
            assert!(error.contains(told) && error.contains(file), "{error}");
        }
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
