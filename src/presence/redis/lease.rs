//! The gateway's lease: registering, renewing, losing it and coming back (PROTOCOLS "Redis keys").

use std::time::Duration;

use redis::Value;

use super::RedisPresence;
use super::answers::Asked;
use super::record::string;
use crate::limits;
use crate::message::{ErrorCode, PresenceReply, PresenceRequest};
use crate::time::Monotonic;

/// What this gateway is to Redis now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Standing {
    /// Redis cannot be reached.
    Away { before: u64 },
    /// It asks for a lease, `before` being the one it had, 0 = none yet; or will at that time.
    Asking { before: u64, again_at: Monotonic },
    /// It has one, which it asked for or renewed last at that time.
    Held { incarnation: u64, asked_at: Monotonic },
}

impl Standing {
    /// The lease that calls name.
    pub fn incarnation(self) -> u64 {
        match self {
            Self::Away { before } | Self::Asking { before, .. } => before,
            Self::Held { incarnation, .. } => incarnation,
        }
    }
}

impl RedisPresence {
    /// Redis is there: asks for the lease.
    pub(super) fn register(&mut self, now: Monotonic) {
        let before = self.standing.incarnation();
        self.standing = Standing::Asking { before, again_at: Monotonic::NEVER };
        if !self.ask("register", Vec::new(), Asked::Registered { at: now }) {
            self.standing = Standing::Asking { before, again_at: now + AGAIN };
        }
    }

    /// That could not be asked.
    pub(super) fn register_later(&mut self, now: Monotonic) {
        if let Standing::Asking { before, .. } = self.standing {
            self.standing = Standing::Asking { before, again_at: now + AGAIN };
        }
    }

    /// The answer to that.
    pub(super) fn registered(
        &mut self,
        now: Monotonic,
        at: Monotonic,
        answer: &[Value],
        replies: &mut Vec<PresenceReply>,
    ) {
        let word = answer.first().and_then(string).unwrap_or_default();
        let before = self.standing.incarnation();
        match (word, answer.get(1).and_then(string).and_then(|life| life.parse().ok())) {
            ("HELD", Some(incarnation)) => self.has_lease(now, at, incarnation, replies),
            ("TAKEN", life) => {
                tracing::error!(
                    gateway_id = self.gateway.gateway_id,
                    life,
                    "another process has this gateway's id, and its lease; give one of them another GATEWAY_ID"
                );
                self.refuse_early(replies);
                self.standing = Standing::Asking { before, again_at: now + limits::GATEWAY_RENEWAL };
            }
            _ => self.standing = Standing::Asking { before, again_at: now + AGAIN },
        }
    }

    fn has_lease(&mut self, now: Monotonic, at: Monotonic, incarnation: u64, replies: &mut Vec<PresenceReply>) {
        let before = self.standing.incarnation();
        let lapsed = before != 0 && now >= self.lease.until();
        if lapsed {
            // Shards close what they have, whether or not they come to look before the new lease is there.
            self.lease.lapse();
        }
        self.lease.extend(at + limits::GATEWAY_LEASE);
        self.standing = Standing::Held { incarnation, asked_at: at };
        tracing::info!(gateway_id = self.gateway.gateway_id, incarnation, lapsed, "presence has its lease in redis");
        // Kicks first, so that nothing is adopted that they end.
        self.write_ended();
        self.write_all();
        self.reap_own();
        for request in std::mem::take(&mut self.early) {
            self.handle_ready(now, request, replies);
        }
    }

    /// Somebody says that the lease is not this gateway's any more: flushed, expired or taken.
    pub(super) fn fenced(&mut self, now: Monotonic) {
        if matches!(self.standing, Standing::Held { .. }) {
            tracing::warn!(
                gateway_id = self.gateway.gateway_id,
                "redis does not know this gateway's lease; registering anew"
            );
            self.register(now);
        }
    }

    /// Redis cannot be reached: whoever waits is told by the answers to the calls that were lost.
    pub(super) fn away(&mut self, why: &str, replies: &mut Vec<PresenceReply>) {
        if !matches!(self.standing, Standing::Away { .. }) || self.standing.incarnation() == 0 {
            tracing::warn!("{why}");
        }
        self.standing = Standing::Away { before: self.standing.incarnation() };
        self.refuse_early(replies);
        self.reaper.stop();
    }

    /// Renews what is due; returns when to come again.
    pub(super) fn mind_lease(&mut self, now: Monotonic) -> Monotonic {
        match self.standing {
            Standing::Held { incarnation, asked_at } => {
                let due = asked_at + limits::GATEWAY_RENEWAL;
                if now < due {
                    return due;
                }
                self.standing = Standing::Held { incarnation, asked_at: now };
                // If it is not taken, the next one may be.
                self.ask("renew", Vec::new(), Asked::Renewed { at: now });
                now + limits::GATEWAY_RENEWAL
            }
            Standing::Asking { again_at, .. } => {
                if again_at <= now {
                    self.register(now);
                }
                again_at.max(now + AGAIN)
            }
            Standing::Away { .. } => Monotonic::NEVER,
        }
    }

    /// The lease was renewed when it was asked for at `at`.
    pub(super) fn renewed(&mut self, now: Monotonic, at: Monotonic) {
        if now >= self.lease.until() {
            // It came so late that shards may have closed already; all of them do.
            self.lease.lapse();
        }
        self.lease.extend(at + limits::GATEWAY_LEASE);
    }

    /// Whether a request may be carried out; if not, it waits for the lease, or is answered.
    pub(super) fn early_or_away(
        &mut self,
        request: PresenceRequest,
        replies: &mut Vec<PresenceReply>,
    ) -> Option<PresenceRequest> {
        if self.is_ready() || asker(&request).is_none() {
            return Some(request);
        }
        if matches!(self.standing, Standing::Asking { .. }) && self.early.len() < limits::REDIS_CALLS {
            self.early.push_back(request);
            return None;
        }
        refuse(&request, replies);
        None
    }

    fn refuse_early(&mut self, replies: &mut Vec<PresenceReply>) {
        for request in self.early.drain(..) {
            refuse(&request, replies);
        }
    }
}

/// Who waits for an answer to this; `None` if nobody does.
fn asker(request: &PresenceRequest) -> Option<crate::id::ConnAddr> {
    match request {
        PresenceRequest::Open { from, .. }
        | PresenceRequest::Resume { from, .. }
        | PresenceRequest::Attach { from, .. }
        | PresenceRequest::Members { from, .. }
        | PresenceRequest::FindHub { from, .. }
        | PresenceRequest::HubState { from, .. } => Some(*from),
        PresenceRequest::CreateHub(hub) => Some(hub.from),
        PresenceRequest::JoinHub(join) => Some(join.from),
        PresenceRequest::Entered { .. }
        | PresenceRequest::Left { .. }
        | PresenceRequest::Refreshed { .. }
        | PresenceRequest::Acted { .. }
        | PresenceRequest::Detached { .. }
        | PresenceRequest::Kick { .. } => None,
    }
}

/// Tells whoever asks that presence is away.
pub(super) fn refuse(request: &PresenceRequest, replies: &mut Vec<PresenceReply>) {
    let Some(to) = asker(request) else { return };
    replies.push(match request {
        PresenceRequest::CreateHub(_) | PresenceRequest::JoinHub(_) => {
            PresenceReply::Enrolled { to, outcome: Err(ErrorCode::Unavailable) }
        }
        _ => PresenceReply::Unavailable { to },
    });
}

/// Between two questions for a lease that somebody reaps.
const AGAIN: Duration = Duration::from_millis(100);
