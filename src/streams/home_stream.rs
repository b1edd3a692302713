//! One stream of a home: what is kept of it, and where a member of it starts (DELIVERY §6 "Recovered").

use std::sync::Arc;

use super::deltas::DeltaValues;
use super::history::History;
use crate::frame::{Act, BatchBuilder};
use crate::id::Scope;
use crate::message::{Introduction, JoinRequest, LostReason, Position, ResumeFrom, Start, StreamStart};
use crate::time::Monotonic;

/// See the module.
#[derive(Debug)]
pub struct HomeStream {
    pub scope: Scope,
    pub introduction: Arc<Introduction>,
    pub head: u64,
    /// The head is no less than that of a former life, which is not remembered; on the wire it is not known.
    pub head_is_bound: bool,
    pub last_event: Monotonic,
    /// The last frame or join, by which it is in `Homes::own` if it belongs there.
    pub last_use: Monotonic,
    /// An earlier check is one of a life that ended.
    pub next_check: Monotonic,
    pub pending: BatchBuilder,
    pub dirty: bool,
    pub history: History,
    pub deltas: DeltaValues,
}

impl HomeStream {
    /// Where a member starts (DELIVERY §6 "Recovered"); unless `guarded`, a resume reads what was before its entry.
    pub fn start(&self, join: &JoinRequest, entry: Option<&Position>, guarded: bool) -> StreamStart {
        let known = &self.introduction.position;
        let entry = entry.filter(|entry| entry.stream == known.stream && entry.place != u64::MAX);
        // What was said to a session from its first moment on is for it, however late it asks.
        let beginning = Position { place: 0, ..known.clone() };
        let own = (join.resume.is_none() && matches!(self.scope, Scope::Session(_))).then_some(&beginning);
        let entry = entry.or(own);
        let start = match (&join.resume, entry) {
            (Some(resume), _) => self.resume_start(resume, guarded),
            (None, Some(entry)) => self.start_behind(entry),
            (None, None) if self.deltas.is_empty() => Start::Live,
            (None, None) => Start::Behind(self.head),
        };
        let place = match (entry, start) {
            (Some(entry), Start::Behind(_)) => entry.place,
            _ => self.head,
        };
        let position = Position { stream: Arc::clone(&known.stream), epoch: known.epoch, place };
        StreamStart { introduction: Arc::new(Introduction { position, ..*self.introduction }), start }
    }

    /// What a frame of this place does.
    pub fn act(&self, joins: bool, room: &Arc<str>, place: u64) -> Act {
        let Position { stream, epoch, .. } = &self.introduction.position;
        Act { joins, room: Arc::clone(room), stream: Arc::clone(stream), epoch: *epoch, place }
    }

    fn start_behind(&self, position: &Position) -> Start {
        if position.epoch != self.introduction.position.epoch {
            Start::Lost(LostReason::EpochChanged)
        } else if self.history.reaches_back_to(position.place, self.head) {
            Start::Behind(position.place)
        } else {
            Start::Lost(LostReason::HistoryEvicted)
        }
    }

    /// Where a resume goes on: where its client stands, in a room never before the session came in (DELIVERY §6).
    fn resume_start(&self, resume: &ResumeFrom, guarded: bool) -> Start {
        let known = &self.introduction.position;
        let named =
            |positions: &'_ [Position]| positions.iter().find(|position| position.stream == known.stream).cloned();
        let said = named(&resume.positions);
        let guarded = guarded && matches!(self.scope, Scope::Room(_));
        let stands_before = |entry: &Position| {
            let said = said.as_ref().filter(|_| entry.epoch == known.epoch);
            said.is_some_and(|said| said.epoch != entry.epoch || said.place < entry.place)
        };
        match named(&resume.entered) {
            // It was let in, and no home has said where this stream starts: here.
            None if guarded && resume.entered.iter().any(Position::is_unsaid) => Start::Anew(self.head),
            Some(entry) if guarded && stands_before(&entry) => match self.start_behind(&entry) {
                Start::Behind(place) => Start::Anew(place),
                lost => lost,
            },
            entry => {
                let beginning = Position { place: 0, ..known.clone() };
                self.start_behind(&said.or(entry).unwrap_or(beginning))
            }
        }
    }
}
