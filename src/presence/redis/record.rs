//! A session's record as fields of its hash, and back.

use std::sync::Arc;

use redis::Value;
use serde::{Deserialize, Serialize};

use crate::close::CloseReason;
use crate::id::{Scope, SessionId, TokenHash};
use crate::message::{Position, ScopeEntry, SessionRecord};

/// An event that kicked a user, as place and topic; empty if there was none.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(super) struct Mark(pub Box<str>);

impl Mark {
    /// Whether that event, one without a place for sure, is not behind this one.
    pub fn is_before(&self, event: Option<&(Arc<str>, u64)>) -> bool {
        let Some((topic, place)) = event else { return true };
        let mark = self.0.split_once(' ');
        mark.is_none_or(|(last, known)| *known != **topic || last.parse().is_ok_and(|last: u64| last < *place))
    }
}

/// A record, its token and the count of its owners.
#[derive(Debug)]
pub(super) struct Kept {
    pub record: SessionRecord,
    pub token: TokenHash,
    pub version: u64,
    /// The last kick of its user before it was opened.
    pub kicked: Mark,
}

#[derive(Serialize, Deserialize)]
struct Place(Box<str>, u64, u64);

#[derive(Serialize, Deserialize)]
struct Entry(Box<str>, bool, Vec<Place>);

/// The script's `RECORD`, in its order.
pub(super) fn fields(record: &SessionRecord, token: TokenHash, version: u64, kicked: &Mark) -> [Box<[u8]>; 12] {
    let scopes: Vec<_> = record.scopes.iter().map(entry).collect();
    let acted: Vec<_> = record.acted.iter().map(place).collect();
    let last_close = record.last_close.map_or("", |reason| reason.row().label);
    [
        text(&record.session.to_string()),
        token_text(token),
        text(&version.to_string()),
        text(&record.user),
        text(&record.username),
        json(&*record.roles),
        text(&record.expires_at.to_string()),
        json(&scopes),
        json(&acted),
        text(last_close),
        text(&rooms(record)),
        text(&kicked.0),
    ]
}

/// The record in these fields; `None` if they are none.
pub(super) fn read(fields: &Value) -> Option<Kept> {
    let Value::Array(fields) = fields else { return None };
    let at = |index: usize| string(fields.get(index)?);
    let scopes: Vec<Entry> = parse(at(7)?)?;
    let acted: Vec<Place> = parse(at(8)?)?;
    let roles: Vec<Box<str>> = parse(at(5)?)?;
    let record = SessionRecord {
        session: SessionId::parse(at(0)?)?,
        user: at(3)?.into(),
        username: at(4)?.into(),
        roles: roles.into(),
        expires_at: at(6)?.parse().ok()?,
        scopes: scopes.into_iter().map(scope_entry).collect::<Option<_>>()?,
        acted: acted.into_iter().map(position).collect(),
        last_close: CloseReason::ALL.iter().find(|row| Some(row.label) == at(9)).map(|row| row.reason),
    };
    let kicked = Mark(at(11).unwrap_or_default().into());
    Some(Kept { record, token: parse_token(at(1)?)?, version: at(2)?.parse().ok()?, kicked })
}

/// A token's hash in hexadecimal: the name of the key that leads to its session.
pub(super) fn token_text(token: TokenHash) -> Box<[u8]> {
    text(&format!("{:032x}", u128::from_be_bytes(token.0)))
}

pub(super) fn parse_token(text: &str) -> Option<TokenHash> {
    (text.len() == 32).then(|| u128::from_str_radix(text, 16).ok()).flatten().map(|hash| TokenHash(hash.to_be_bytes()))
}

pub(super) fn text(text: &str) -> Box<[u8]> {
    text.as_bytes().into()
}

/// A value as text.
pub(super) fn string(value: &Value) -> Option<&str> {
    match value {
        Value::BulkString(bytes) => std::str::from_utf8(bytes).ok(),
        Value::SimpleString(text) => Some(text),
        _ => None,
    }
}

/// A value as a number.
pub(super) fn number(value: &Value) -> Option<u64> {
    match value {
        Value::Int(number) => u64::try_from((*number).max(0)).ok(),
        other => string(other)?.parse().ok(),
    }
}

/// `s/<room>` where a backend let the session in, else `o/<room>`; what the script counts members by.
fn rooms(record: &SessionRecord) -> String {
    let mut out = String::new();
    for entry in &record.scopes {
        if let Scope::Room(room) = &entry.scope {
            let kind = if entry.admitted { "s/" } else { "o/" };
            out.extend([if out.is_empty() { "" } else { " " }, kind, room]);
        }
    }
    out
}

fn entry(entry: &ScopeEntry) -> Entry {
    Entry(entry.scope.to_string().into(), entry.admitted, entry.entered.iter().map(place).collect())
}

fn scope_entry(Entry(scope, admitted, entered): Entry) -> Option<ScopeEntry> {
    Some(ScopeEntry { scope: Scope::parse(&scope)?, entered: entered.into_iter().map(position).collect(), admitted })
}

fn place(position: &Position) -> Place {
    Place((*position.stream).into(), position.epoch, position.place)
}

fn position(Place(stream, epoch, place): Place) -> Position {
    Position { stream: stream.into(), epoch, place }
}

fn json<T: Serialize + ?Sized>(value: &T) -> Box<[u8]> {
    simd_json::to_vec(value).expect("plain data is always JSON").into()
}

fn parse<T: for<'a> Deserialize<'a>>(text: &str) -> Option<T> {
    simd_json::from_slice(&mut text.as_bytes().to_vec()).ok()
}
