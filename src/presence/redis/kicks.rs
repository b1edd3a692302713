//! Kicks: what they end here ends at once; Redis is told of them, so that sessions of the user which nobody remembers, or
//! another gateway that is gone, end when somebody asks for them, and so that a hub's player has no place any more.
//!
//! Law: a kick ends the sessions that were opened before it, whichever gateway hears of it first, and however often: each
//! session knows the last kick of its user before it was opened.

use std::sync::Arc;

use super::record::Mark;
use super::{Ended, RedisPresence};
use crate::close::CloseReason;
use crate::limits;
use crate::message::PresenceReply;

/// A kick that answers which are on their way do not know of.
#[derive(Debug)]
pub(super) struct Kicked {
    /// Calls from this one on were made behind it.
    behind: u64,
    user: Arc<str>,
    event: Option<(Arc<str>, u64)>,
}

impl RedisPresence {
    /// Ends the sessions of the user that were opened before the event, if it is one, else all.
    pub(super) fn kick(&mut self, user: Arc<str>, event: Option<(Arc<str>, u64)>, replies: &mut Vec<PresenceReply>) {
        let of_user = std::iter::successors(self.table.by_user(&user), |slot| self.table.next_of_user(*slot));
        let is_before = |session| self.own.get(&session).is_none_or(|own| own.kicked.is_before(event.as_ref()));
        let ended: Vec<_> = of_user.filter(|slot| is_before(self.table.session(*slot))).collect();
        if self.claims > 0 {
            self.kicked.push_back(Kicked { behind: self.next_tag, user: Arc::clone(&user), event: event.clone() });
        }
        self.kick_later(user, event);
        for slot in ended {
            self.end(slot, CloseReason::Kicked, replies);
        }
    }

    /// Redis is to be told of a kick.
    pub(super) fn kick_later(&mut self, user: Arc<str>, event: Option<(Arc<str>, u64)>) {
        if self.ended.len() < self.gateway.detached_max + limits::REDIS_CALLS {
            self.ended.push_back(Ended::User { user, event });
        } else {
            tracing::error!(user = &*user, "redis is away for too long to be told of a kick; kick the user again");
        }
    }

    /// The call of this tag is answered, and all before it are.
    pub(super) fn forget_kicks(&mut self, tag: u64) {
        while self.kicked.front().is_some_and(|kicked| kicked.behind <= tag) {
            self.kicked.pop_front();
        }
    }

    /// Whether the user of a session that Redis just gave was kicked since it was asked.
    pub(super) fn was_kicked(&self, user: &str, mark: &Mark) -> bool {
        self.kicked.iter().any(|kicked| *kicked.user == *user && mark.is_before(kicked.event.as_ref()))
    }
}
