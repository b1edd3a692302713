//! Session records in a store (DELIVERY §6, `data_dir`): what is written when, and how it is read back.
//!
//! Laws: a record is written when something of it has changed, all changes of one settling in one transaction, and before
//! any reply that tells of them leaves; nothing is written for a frame. Beside the records stands one row that says when
//! this process was last alive and up to when all changes were told: who had a connection when the process ended
//! counts as detached from then on, and a change that may not have reached the bus is said again under its old id.
//! A record never holds a resume token, only its hash.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::sessions::{Owed, Sessions, Standing, Whole};
use crate::close::CloseReason;
use crate::id::{ConnAddr, ConnKey, NodeId, Scope, SessionId, TokenHash};
use crate::limits;
use crate::message::{GatewayLife, Position, PresenceKind, ScopeEntry, SessionRecord};
use crate::ports::{Store, StoreError, Write};
use crate::time::{Monotonic, WallMillis};

/// A store of session records and what this process has told it.
pub(super) struct Keeper {
    store: Box<dyn Store>,
    life: GatewayLife,
    log: u64,
    /// The same moment on both clocks.
    began: (Monotonic, WallMillis),
    /// When the former process was last alive.
    former_alive: WallMillis,
    batch: Vec<Write>,
    /// When the row of life is due.
    alive_due: Monotonic,
    alive_interval: Duration,
    /// Up to when everything was told, and whether the row says so.
    told: WallMillis,
    told_written: bool,
    /// By topic, the place up to which kicks were carried out.
    kicks: BTreeMap<Arc<str>, u64>,
    /// Set while the store cannot be written: when to try again.
    retry: Option<Monotonic>,
}

/// What a store had.
pub(super) struct Found {
    /// Records that live, by the time at which they expire, and whether they are stored otherwise; none has an owner.
    pub(super) living: Vec<(Whole, bool)>,
    /// What is left of others.
    pub(super) ended: Vec<Whole>,
}

impl Keeper {
    /// Takes the records out of a store. Who had a connection lost it when the former process was last alive; if the bus
    /// has `log`, another numbering than then, no place of any record means anything, and all of them have ended.
    pub(super) fn open(
        (now, wall): (Monotonic, WallMillis),
        life: GatewayLife,
        log: u64,
        window: Duration,
        mut store: Box<dyn Store>,
    ) -> Result<(Self, Found), StoreError> {
        let row = store.load(LIFE)?.into_iter().find(|(key, _)| key == LIFE_KEY);
        let former = match row {
            None => LifeRow { log, alive: wall.0, told: 0, kicks: Vec::new() },
            Some((_, mut value)) => read_life(&mut value)?,
        };
        if former.log != log {
            tracing::warn!(
                was = former.log,
                is = log,
                "the bus has another log than the sessions had: they have ended"
            );
        }
        let clock = Clock { began: (now, wall), window };
        let mut found = Found { living: Vec::new(), ended: Vec::new() };
        let mut batch = Vec::new();
        for (key, mut value) in store.load(SERVICE)? {
            match read(&key, &mut value, &clock, &former) {
                Ok((whole, _)) if whole.standing == Standing::Ended || former.log != log => {
                    found.ended.push(Whole { standing: Standing::Ended, ..whole });
                }
                Ok(living) => found.living.push(living),
                Err(cause) => {
                    tracing::error!(session = key, cause, "a session's record does not read: the session is gone");
                    batch.push(Write::Remove { service: SERVICE, key: key.into() });
                }
            }
        }
        found.living.sort_by_key(|(whole, _)| match whole.standing {
            Standing::Detached(until) => until,
            Standing::Attached(..) | Standing::Ended => Monotonic::ZERO,
        });
        let alive_interval = (window / 30).clamp(Duration::from_millis(100), Duration::from_secs(10));
        let (told, told_written) = (WallMillis(former.told), true);
        let began = (now, wall);
        let kicks = former.kicks.into_iter().filter(|_| former.log == log);
        let kicks = kicks.map(|(topic, place)| (topic.into(), place)).collect();
        let keeper = Self {
            store,
            life,
            log,
            began,
            former_alive: WallMillis(former.alive),
            batch,
            alive_due: now,
            alive_interval,
            told,
            told_written,
            kicks,
            retry: None,
        };
        Ok((keeper, found))
    }

    /// When the former process was last alive; now if there was none.
    pub(super) fn former_alive(&self) -> WallMillis {
        self.former_alive
    }

    /// The kicks of a topic are carried out up to this place.
    pub(super) fn kicked(&mut self, topic: Arc<str>, place: u64) {
        let known = self.kicks.entry(topic).or_insert(0);
        *known = place.max(*known);
    }

    /// Whether that kick was carried out.
    pub(super) fn has_kicked(&self, topic: &str, place: u64) -> bool {
        self.kicks.get(topic).is_some_and(|known| place <= *known)
    }

    /// Writes what has changed, all or nothing; what could not be written is tried again later. `told`: nothing that has
    /// changed is owed to anybody.
    pub(super) fn settle(&mut self, now: Monotonic, told: bool, sessions: &mut Sessions) {
        if told {
            self.told_written &= !sessions.all_told();
            self.told = self.wall(now);
        }
        if self.retry.is_some_and(|at| now < at) {
            return;
        }
        sessions.sweep(limits::PRESENCE_SWEEP);
        let cleanup = self.batch.len();
        for session in sessions.touched() {
            let key = session.to_string().into();
            let whole = sessions.by_session(session).map(|slot| sessions.whole(slot));
            let whole = whole.as_ref().or_else(|| sessions.ended(session));
            self.batch.push(match whole {
                Some(whole) => Write::Put { service: SERVICE, key, value: self.row(whole) },
                None => Write::Remove { service: SERVICE, key },
            });
        }
        let alive = now >= self.alive_due && (!self.told_written || sessions.detached() < sessions.len());
        if self.batch.is_empty() && !alive {
            return;
        }
        // Beside any change, for the first record must not stand there without its schema.
        let kicks = self.kicks.iter().map(|(topic, place)| (topic.to_string(), *place)).collect();
        let (alive, told_until) = (self.wall(now).0, self.told.0);
        let life = LifeRow { log: self.log, alive, told: told_until, kicks };
        let value = simd_json::to_vec(&SchemaRow { schema: SCHEMA, life: Some(life) })
            .expect("plain numbers are always JSON")
            .into();
        self.batch.push(Write::Put { service: LIFE, key: LIFE_KEY.into(), value });
        match self.store.write(&self.batch) {
            Ok(()) => {
                if self.retry.take().is_some() {
                    tracing::info!("session records can be written again");
                }
                self.batch.clear();
                sessions.written();
                self.alive_due = now + self.alive_interval;
                self.told_written = told || self.told_written;
            }
            Err(error) => {
                if self.retry.is_none() {
                    tracing::error!(%error, "session records cannot be written: a restart now ends what is not there");
                }
                self.batch.truncate(cleanup);
                self.retry = Some(now + RETRY);
            }
        }
    }

    /// When [`Keeper::settle`] has something to do by itself.
    pub(super) fn next(&self, now: Monotonic, sessions: &Sessions) -> Monotonic {
        match self.retry {
            Some(at) => at,
            None if sessions.has_stale() => now,
            None if !self.told_written || sessions.detached() < sessions.len() => self.alive_due,
            None => Monotonic::NEVER,
        }
    }

    fn wall(&self, at: Monotonic) -> WallMillis {
        Clock { began: self.began, window: Duration::ZERO }.wall(at)
    }

    fn row(&self, whole: &Whole) -> Box<[u8]> {
        let Whole { record, token, standing, owed } = whole;
        let position = |at: &'_ Position| PositionRow(at.stream.to_string().into(), at.epoch, at.place);
        let scope = |entry: &ScopeEntry| ScopeRow {
            scope: entry.scope.to_string().into(),
            entered: entry.entered.iter().map(position).collect(),
            admitted: entry.admitted,
        };
        let change = |owed: &Owed| OwedRow {
            owner: OwnerRow::of(owed.life, owed.connection, owed.number),
            kind: match &owed.kind {
                PresenceKind::Connected => KindRow::Connected,
                PresenceKind::Disconnected(reason) => KindRow::Disconnected(reason.label().into()),
                PresenceKind::Joined(room) => KindRow::Joined(room.to_string().into()),
                PresenceKind::Left(room) => KindRow::Left(room.to_string().into()),
            },
            at: self.wall(owed.at).0,
        };
        let row = Row {
            token: u128::from_be_bytes(token.0).to_string().into(),
            user: Cow::Borrowed(&record.user),
            username: Cow::Borrowed(&record.username),
            roles: record.roles.iter().map(|role| Cow::Borrowed(&**role)).collect(),
            expires_at: record.expires_at,
            scopes: record.scopes.iter().map(scope).collect(),
            acted: record.acted.iter().map(position).collect(),
            last_close: record.last_close.map(|reason| reason.label().into()),
            standing: match *standing {
                Standing::Attached(to, number) => StandingRow::Attached(OwnerRow::of(self.life, to, number)),
                Standing::Detached(until) => StandingRow::Detached(self.wall(until).0),
                Standing::Ended => StandingRow::Ended,
            },
            owed: owed.iter().map(change).collect(),
        };
        simd_json::to_vec(&row).expect("text and numbers are always JSON").into()
    }
}

impl std::fmt::Debug for Keeper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keeper").field("told", &self.told).field("retry", &self.retry).finish_non_exhaustive()
    }
}

/// Both clocks, and how long a record lives without an owner.
struct Clock {
    began: (Monotonic, WallMillis),
    window: Duration,
}

impl Clock {
    fn wall(&self, at: Monotonic) -> WallMillis {
        let (began, wall) = self.began;
        let ms = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        WallMillis((wall.0 + ms(at.since(began))).saturating_sub(ms(began.since(at))))
    }

    /// No later than a window from now, whatever the clock of the former process said; the beginning if it is over.
    fn until(&self, wall: WallMillis) -> Monotonic {
        let left = Duration::from_millis(wall.0.saturating_sub(self.began.1.0));
        self.began.0 + left.min(self.window)
    }
}

fn read_life(value: &mut [u8]) -> Result<LifeRow, StoreError> {
    let unread = |error| refused(&format!("its row {LIFE}/{LIFE_KEY} does not read: {error}"));
    // Of another form no more than its number is known. Reading works in place.
    match simd_json::from_slice::<SchemaRow>(&mut value.to_vec()).map_err(unread)?.schema {
        SCHEMA => simd_json::from_slice(value).map_err(unread),
        schema => Err(refused(&format!("its session records are of schema {schema}, this ringgate's is {SCHEMA}"))),
    }
}

/// A record from its row, and whether it is another one now; `Err` says why it is none.
fn read(key: &str, value: &mut [u8], clock: &Clock, former: &LifeRow) -> Result<(Whole, bool), String> {
    let session = SessionId::parse(key).ok_or("its key is no session's id")?;
    let row: Row<'_> = simd_json::from_slice(value).map_err(|error| error.to_string())?;
    let reason = |label: &str| CloseReason::ALL.iter().find(|row| row.label == label).map(|row| row.reason);
    let token: u128 = row.token.parse().map_err(|_| "its token's hash is none")?;
    let positions = |rows: Vec<PositionRow<'_>>| -> Vec<Position> {
        rows.into_iter()
            .map(|PositionRow(stream, epoch, place)| Position { stream: (*stream).into(), epoch, place })
            .collect()
    };
    let mut scopes = Vec::with_capacity(row.scopes.len());
    for entry in row.scopes {
        let scope = Scope::parse(&entry.scope).ok_or_else(|| format!("{} is no scope", entry.scope))?;
        scopes.push(ScopeEntry { scope, entered: positions(entry.entered), admitted: entry.admitted });
    }
    let mut owed = Vec::new();
    for change in row.owed.iter().filter(|change| change.at >= former.told) {
        let OwnerRow { nonce, incarnation, number, .. } = change.owner;
        let kind = match &change.kind {
            KindRow::Connected => PresenceKind::Connected,
            KindRow::Disconnected(label) => {
                PresenceKind::Disconnected(reason(label).ok_or_else(|| format!("{label} is no reason"))?)
            }
            KindRow::Joined(room) => PresenceKind::Joined((**room).into()),
            KindRow::Left(room) => PresenceKind::Left((**room).into()),
        };
        let (life, connection) = (GatewayLife { nonce, incarnation }, change.owner.addr());
        owed.push(Owed { life, connection, number, kind, at: clock.began.0 });
    }
    let mut last_close = row.last_close.as_deref().and_then(reason);
    let alive = former.alive.saturating_add(u64::try_from(clock.window.as_millis()).unwrap_or(u64::MAX));
    let changed = matches!(row.standing, StandingRow::Attached(_));
    let until = match row.standing {
        StandingRow::Attached(owner) => {
            let OwnerRow { nonce, incarnation, number, .. } = owner;
            let (life, reason) = (GatewayLife { nonce, incarnation }, CloseReason::Restart);
            let kind = PresenceKind::Disconnected(reason);
            owed.push(Owed { life, connection: owner.addr(), number, kind, at: clock.began.0 });
            last_close = Some(reason);
            Some(clock.until(WallMillis(alive)))
        }
        StandingRow::Detached(until) => Some(clock.until(WallMillis(until))),
        StandingRow::Ended => None,
    };
    let record = SessionRecord {
        session,
        user: (*row.user).into(),
        username: (*row.username).into(),
        roles: row.roles.iter().map(|role| Box::from(&**role)).collect(),
        expires_at: row.expires_at,
        scopes,
        acted: positions(row.acted),
        last_close,
    };
    let standing = until.filter(|until| *until > clock.began.0).map_or(Standing::Ended, Standing::Detached);
    Ok((Whole { record, token: TokenHash(token.to_be_bytes()), standing, owed }, changed))
}

fn refused(cause: &str) -> StoreError {
    let remedy = "start the ringgate that wrote it, or move the file away: all sessions then begin anew";
    StoreError { place: "sessions.sqlite".into(), cause: format!("{cause}; {remedy}"), lost: false }
}

/// The row beside the records, and the form of them all.
#[derive(Serialize, Deserialize)]
struct SchemaRow {
    schema: u32,
    #[serde(flatten, skip_deserializing)]
    life: Option<LifeRow>,
}

/// See [`SchemaRow`].
#[derive(Serialize, Deserialize)]
struct LifeRow {
    /// The numbering of the bus's log.
    log: u64,
    /// When the process surely lived, Unix milliseconds.
    alive: u64,
    /// Departures from before that are told.
    told: u64,
    /// Topics with the place up to which their kicks were carried out.
    kicks: Vec<(String, u64)>,
}

/// A record in the store; times are Unix milliseconds.
#[derive(Serialize, Deserialize)]
struct Row<'a> {
    /// The token's hash as a decimal number.
    token: Cow<'a, str>,
    user: Cow<'a, str>,
    username: Cow<'a, str>,
    roles: Vec<Cow<'a, str>>,
    expires_at: u64,
    scopes: Vec<ScopeRow<'a>>,
    acted: Vec<PositionRow<'a>>,
    last_close: Option<Cow<'a, str>>,
    standing: StandingRow,
    owed: Vec<OwedRow<'a>>,
}

#[derive(Serialize, Deserialize)]
struct ScopeRow<'a> {
    scope: Cow<'a, str>,
    entered: Vec<PositionRow<'a>>,
    admitted: bool,
}

/// Stream, epoch, place.
#[derive(Serialize, Deserialize)]
struct PositionRow<'a>(Cow<'a, str>, u64, u64);

#[derive(Serialize, Deserialize)]
enum StandingRow {
    Attached(OwnerRow),
    Detached(u64),
    Ended,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
struct OwnerRow {
    nonce: u64,
    incarnation: u64,
    number: u64,
    shard: u16,
    slot: u32,
    generation: u32,
}

impl OwnerRow {
    fn of(life: GatewayLife, addr: ConnAddr, number: u64) -> Self {
        let GatewayLife { nonce, incarnation } = life;
        let ConnAddr { shard, conn: ConnKey { slot, generation } } = addr;
        Self { nonce, incarnation, number, shard: shard.0, slot, generation }
    }

    fn addr(&self) -> ConnAddr {
        ConnAddr { shard: NodeId(self.shard), conn: ConnKey { slot: self.slot, generation: self.generation } }
    }
}

#[derive(Serialize, Deserialize)]
struct OwedRow<'a> {
    owner: OwnerRow,
    kind: KindRow<'a>,
    at: u64,
}

#[derive(Serialize, Deserialize)]
enum KindRow<'a> {
    Connected,
    Disconnected(Cow<'a, str>),
    Joined(Cow<'a, str>),
    Left(Cow<'a, str>),
}

/// Whose records these are in the store.
pub(super) const SERVICE: &str = "presence.session";
const LIFE: &str = "presence.life";
const LIFE_KEY: &str = "life";
/// The form of the rows above; a change that older builds would misread is a new one.
const SCHEMA: u32 = 1;
/// How long a store that fails is left alone.
const RETRY: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests;
