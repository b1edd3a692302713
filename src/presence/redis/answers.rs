//! What Redis was asked, and what becomes of its answers. A call that was refused for want of the lease did nothing, so
//! it is made again; of one that was lost nobody knows, so what it may have left is taken out, and whoever asked is told
//! that presence is away.

use std::sync::Arc;

use redis::Value;

use super::lease::refuse;
use super::link::Fault;
use super::record::{self, Mark, string};
use super::{Ended, RedisPresence};
use crate::close::CloseReason;
use crate::id::{ConnAddr, SessionId, TokenHash};
use crate::message::{PresenceReply, PresenceRequest, SessionRecord};
use crate::time::Monotonic;

/// A call on its way.
#[derive(Debug)]
pub(super) enum Asked {
    Registered {
        at: Monotonic,
    },
    Renewed {
        at: Monotonic,
    },
    Released,
    Opened {
        from: ConnAddr,
        session: SessionId,
    },
    Claimed {
        from: ConnAddr,
        user: Option<Arc<str>>,
        token: TokenHash,
        session: Option<SessionId>,
    },
    Attached {
        from: ConnAddr,
        room: Arc<str>,
        record: Box<SessionRecord>,
        token: TokenHash,
        known: Option<SessionId>,
    },
    Seized {
        from: ConnAddr,
        token: TokenHash,
        session: SessionId,
    },
    Unwaited,
    Written {
        session: SessionId,
        version: u64,
    },
    Ended(Ended),
    /// A question that changes no session.
    Question(PresenceRequest),
    /// The watch over other gateways.
    Watch(Watch),
    /// A step of reaping.
    Reaping,
}

/// See [`Asked::Watch`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Watch {
    Missing,
    Find,
}

impl Asked {
    /// Whether it writes what is state here.
    pub fn is_write(&self) -> bool {
        matches!(self, Self::Written { .. } | Self::Ended(_))
    }

    /// Whether it asks for a session that there is.
    pub fn is_claim(&self) -> bool {
        matches!(self, Self::Claimed { .. } | Self::Attached { .. } | Self::Seized { .. })
    }
}

impl RedisPresence {
    /// An answer, or that there is none.
    pub(super) fn answered(
        &mut self,
        now: Monotonic,
        tag: u64,
        outcome: Result<Value, Fault>,
        replies: &mut Vec<PresenceReply>,
    ) {
        let Some(asked) = self.asked.remove(&tag) else { return };
        self.forget_kicks(tag);
        self.writes -= usize::from(asked.is_write());
        let was_claim = asked.is_claim();
        self.claims -= usize::from(was_claim);
        match outcome {
            Ok(Value::Array(answer)) => match answer.first().and_then(string) {
                Some("FENCED") => {
                    self.fenced(now);
                    self.ask_again(now, asked, replies);
                }
                Some(word) => self.carried_out(now, asked, word, &answer, replies),
                None => tracing::error!(?asked, "redis answered without a word"),
            },
            Ok(other) => tracing::error!(?asked, ?other, "redis answered something else"),
            Err(fault) => {
                if let Fault::Refused(why) = &fault {
                    tracing::error!(why, ?asked, "redis refused a call");
                }
                self.failed(now, asked, &fault, replies);
            }
        }
        if was_claim {
            self.hear_again(replies);
        }
    }

    fn carried_out(
        &mut self,
        now: Monotonic,
        asked: Asked,
        word: &str,
        answer: &[Value],
        replies: &mut Vec<PresenceReply>,
    ) {
        match asked {
            Asked::Registered { at } => self.registered(now, at, answer, replies),
            Asked::Renewed { at } => self.renewed(now, at),
            Asked::Opened { from, session } => {
                if let Some(own) = self.own.get_mut(&session) {
                    own.kicked = mark(answer);
                }
                self.opened(from, session, replies);
            }
            Asked::Claimed { from, token, session, .. } => {
                self.claimed(now, (from, token), word, answer, replies);
                self.unhold(now, session, replies);
            }
            Asked::Attached { from, record, token, known, .. } => {
                let session = record.session;
                if word == "OPENED" {
                    let (mark, user) = (mark(answer), Arc::clone(&record.user));
                    let is_kicked = self.was_kicked(&user, &mark);
                    let slot = self.insert(*record, token, from, (1, mark));
                    if is_kicked {
                        self.end(slot, CloseReason::Kicked, replies);
                    }
                    self.opened(from, session, replies);
                } else {
                    self.claimed(now, (from, token), word, answer, replies);
                }
                self.unhold(now, Some(session), replies);
                self.unhold(now, known, replies);
            }
            Asked::Seized { from, token, session } => {
                match (word, answer.get(1).and_then(record::read)) {
                    ("GIVEN", Some(kept)) => self.given(from, kept, true, replies),
                    ("NO", _) => self.claim(from, None, token, replies),
                    _ => replies.push(PresenceReply::Expired { to: from }),
                }
                self.unhold(now, Some(session), replies);
            }
            Asked::Written { session, version } => {
                let own = self.own.get_mut(&session).filter(|own| own.version == version);
                match (word, own) {
                    ("LOST", Some(_)) => self.lost(session, replies),
                    ("KEPT", Some(own)) if own.until != Monotonic::NEVER => own.former = None,
                    _ => {}
                }
            }
            Asked::Question(request) => self.question_answered(&request, word, answer, replies),
            Asked::Watch(watch) => self.watched(now, watch, answer),
            Asked::Reaping => self.reaped(now, word, answer),
            Asked::Released | Asked::Unwaited | Asked::Ended(_) => {}
        }
    }

    /// What became of a question for a session.
    fn claimed(
        &mut self,
        now: Monotonic,
        who: (ConnAddr, TokenHash),
        word: &str,
        answer: &[Value],
        replies: &mut Vec<PresenceReply>,
    ) {
        match (word, answer.get(1).and_then(record::read)) {
            ("GIVEN", Some(kept)) => self.given(who.0, kept, false, replies),
            ("WAIT", _) => self.waits(now, who, answer, replies),
            ("FOREIGN", _) => replies.push(PresenceReply::Foreign { to: who.0 }),
            _ => {
                if let Some(slot) = self.table.by_token(who.1) {
                    let session = self.table.session(slot);
                    self.lost(session, replies);
                }
                replies.push(PresenceReply::Expired { to: who.0 });
            }
        }
    }

    /// The lease was gone and the call was not carried out: it waits for the next lease.
    fn ask_again(&mut self, now: Monotonic, asked: Asked, replies: &mut Vec<PresenceReply>) {
        let request = match asked {
            Asked::Opened { from, session } => {
                let Some(slot) = self.table.by_session(session) else { return self.opened(from, session, replies) };
                let (record, token) = (Box::new(self.table.record(slot)), self.table.token(slot));
                if self.table.owner(slot) != Some(from) {
                    return;
                }
                self.forget(slot);
                PresenceRequest::Open { from, record, token }
            }
            Asked::Claimed { from, user, token, session } => {
                self.unhold(now, session, replies);
                PresenceRequest::Resume { from, user, token }
            }
            Asked::Seized { from, token, session } => {
                self.unhold(now, Some(session), replies);
                PresenceRequest::Resume { from, user: None, token }
            }
            Asked::Attached { from, room, record, token, known } => {
                self.unhold(now, Some(record.session), replies);
                self.unhold(now, known, replies);
                PresenceRequest::Attach { from, room, record, token }
            }
            Asked::Question(request) => request,
            other => return self.failed(now, other, &Fault::Lost, replies),
        };
        if let Some(request) = self.early_or_away(request, replies) {
            self.handle_ready(now, request, replies);
        }
    }

    fn failed(&mut self, now: Monotonic, asked: Asked, fault: &Fault, replies: &mut Vec<PresenceReply>) {
        match asked {
            Asked::Opened { from, session } => {
                if let Some(slot) = self.table.by_session(session) {
                    self.end(slot, CloseReason::TryAgainLater, replies);
                }
                replies.push(PresenceReply::Unavailable { to: from });
            }
            Asked::Claimed { from, session, .. } => {
                replies.push(PresenceReply::Unavailable { to: from });
                self.unhold(now, session, replies);
            }
            Asked::Attached { from, record, known, .. } => {
                replies.push(PresenceReply::Unavailable { to: from });
                self.unhold(now, Some(record.session), replies);
                self.unhold(now, known, replies);
            }
            Asked::Seized { from, session, .. } => {
                replies.push(PresenceReply::Unavailable { to: from });
                self.unhold(now, Some(session), replies);
            }
            Asked::Question(request) => refuse(&request, replies),
            // What Redis refuses it would refuse again; the next change or refresh tries.
            Asked::Written { session, .. } if *fault == Fault::Lost => self.write_soon(session),
            Asked::Ended(ended) if *fault == Fault::Lost => self.ended.push_back(ended),
            Asked::Registered { .. } => self.register_later(now),
            Asked::Reaping => self.reaper.stop(),
            Asked::Renewed { .. }
            | Asked::Released
            | Asked::Unwaited
            | Asked::Watch(_)
            | Asked::Written { .. }
            | Asked::Ended(_) => {}
        }
    }
}

/// The last kick of the user of a session that was just opened.
fn mark(answer: &[Value]) -> Mark {
    Mark(answer.get(1).and_then(string).unwrap_or_default().into())
}
