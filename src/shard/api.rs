//! What the server API asks of a shard: its longest queues, closes, pages of histories. Asked rarely, answered within the
//! turn; nothing is kept for it.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::Shard;
use super::driver::Driver;
use crate::close::CloseReason;
use crate::id::{ConnAddr, ConnKey};
use crate::message::{ApiAnswer, ApiAsk, ApiReply, ApiRequest, Deliver, Request, Whom};

impl<D: Driver> Shard<D> {
    pub(super) fn api(&mut self, request: ApiRequest) {
        match &request.ask {
            ApiAsk::Connections { limit } => {
                let answer = self.longest_queues(*limit);
                self.answer_api(request.from, answer);
            }
            ApiAsk::Disconnect { whom, code, reason } => {
                let count = self.disconnect(whom, *code, reason);
                self.answer_api(request.from, ApiAnswer::Disconnected(count));
            }
            // Pages are cut from sealed streams.
            ApiAsk::History(_) => self.deferred.push(Request::Api(Box::new(request))),
        }
    }

    /// Answers a deferred look at a history. Call on sealed streams.
    pub(super) fn history(&mut self, request: &ApiRequest) {
        if let ApiAsk::History(ask) = &request.ask {
            let answer = ApiAnswer::History(self.homes.history(ask));
            self.answer_api(request.from, answer);
        }
    }

    fn longest_queues(&self, limit: usize) -> ApiAnswer {
        let mut longest: BinaryHeap<Reverse<(usize, ConnKey)>> = BinaryHeap::with_capacity(limit + 1);
        for (key, connection) in self.slots.entries() {
            longest.push(Reverse((connection.queue.pending_bytes(), key)));
            if longest.len() > limit {
                longest.pop();
            }
        }
        // Ascending in `Reverse`: the longest first.
        let keys = longest.into_sorted_vec().into_iter().map(|Reverse((_, key))| key);
        let info = |key: ConnKey| {
            let addr = ConnAddr { shard: self.port.id(), conn: key };
            self.slots.connection(key).map(|connection| connection.info(addr, self.now))
        };
        ApiAnswer::Connections { total: self.slots.len(), rows: keys.filter_map(info).collect() }
    }

    pub(super) fn disconnect(&mut self, whom: &Whom, code: u16, text: &str) -> usize {
        let reason = reason_of(code);
        let keys: Vec<ConnKey> = match whom {
            Whom::Connection(key) => vec![*key],
            Whom::User(user) => {
                if reason == CloseReason::Kicked {
                    // As with a kick from the bus: a resume whose answer is on its way must not outlive it.
                    self.slots.connections_mut().for_each(|connection| connection.kicked_while_looking(user));
                }
                self.members.of_user(user).into_iter().map(|slot| self.slots.key(slot)).collect()
            }
        };
        let mut count = 0;
        for key in keys {
            let told = self.with(key, |connection, cx| {
                let lives = !connection.is_closing();
                connection.close_with(cx, reason, code, text);
                lives
            });
            count += usize::from(told == Some(true));
        }
        count
    }

    fn answer_api(&mut self, to: ConnAddr, answer: ApiAnswer) {
        self.port.deliver(to.shard, Deliver::Api(Box::new(ApiReply { to: to.conn, answer })));
    }
}

/// What a close by the API counts as; codes without a row of their own are the application's policy.
fn reason_of(code: u16) -> CloseReason {
    if code == CloseReason::Kicked.code() {
        return CloseReason::Kicked;
    }
    CloseReason::ALL.iter().find(|row| row.code == code).map_or(CloseReason::Policy, |row| row.reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Codes of the table keep their reason, 4403 is a kick, others are policy.
    #[test]
    fn codes_have_reasons() {
        let reasons = [1000, 1012, 4403, 4408, 4777].map(reason_of);
        use CloseReason::{Kicked, Normal, Policy, Restart, SlowConsumer};
        assert_eq!(reasons, [Normal, Restart, Kicked, SlowConsumer, Policy]);
    }
}
