//! Why a connection ends: one table gives wire code, text, reconnect advice and metric label (PROTOCOLS "Close codes").
//! The manual prints it and clients follow it.

/// What a client should do after a close.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reconnect {
    /// Reconnect after a delay and resume the session.
    Resume,
    /// Reconnect after a delay.
    Delayed,
    /// Do not reconnect without a change on the client's side.
    No,
}

/// The reason of a close, sent or received. `as usize` indexes [`CloseReason::ALL`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[expect(missing_docs, reason = "the table below documents each row")]
pub enum CloseReason {
    Normal,
    GoingAway,
    Protocol,
    UnsupportedData,
    InvalidUtf8,
    Policy,
    TooBig,
    Internal,
    Restart,
    TryAgainLater,
    BadRequest,
    Unauthorized,
    AuthenticationTimeout,
    TokenExpired,
    Forbidden,
    Kicked,
    RoomNotFound,
    SlowConsumer,
    Replaced,
    IdleTimeout,
    RateLimited,
    HandshakeTimeout,
    ConnectionLost,
    Refused,
    HistoryEvicted,
}

/// A row of the table.
#[derive(Clone, Copy, Debug)]
pub struct CloseRow {
    /// The reason.
    pub reason: CloseReason,
    /// The WebSocket close code; 0 = no close frame is sent.
    pub code: u16,
    /// The reason text of the close frame.
    pub text: &'static str,
    /// What the client should do.
    pub reconnect: Reconnect,
    /// The metric label.
    pub label: &'static str,
}

impl CloseReason {
    /// The table, in the order of the enum.
    pub const ALL: [CloseRow; 25] = {
        use CloseReason as R;
        use Reconnect::{Delayed, No, Resume};
        const fn row(reason: R, code: u16, text: &'static str, reconnect: Reconnect, label: &'static str) -> CloseRow {
            CloseRow { reason, code, text, reconnect, label }
        }
        [
            row(R::Normal, 1000, "", No, "normal"),
            row(R::GoingAway, 1001, "going away", Resume, "going_away"),
            row(R::Protocol, 1002, "protocol error", No, "protocol"),
            row(R::UnsupportedData, 1003, "unsupported data", No, "unsupported_data"),
            row(R::InvalidUtf8, 1007, "invalid UTF-8", No, "invalid_utf8"),
            row(R::Policy, 1008, "policy violation", No, "policy"),
            row(R::TooBig, 1009, "message too big", No, "too_big"),
            row(R::Internal, 1011, "internal error", Resume, "internal"),
            row(R::Restart, 1012, "service restart", Resume, "restart"),
            row(R::TryAgainLater, 1013, "try again later", Resume, "try_again_later"),
            row(R::BadRequest, 4400, "bad_request", No, "bad_request"),
            row(R::Unauthorized, 4401, "unauthorized", No, "unauthorized"),
            row(R::AuthenticationTimeout, 4401, "authentication timeout", Delayed, "authentication_timeout"),
            row(R::TokenExpired, 4401, "token expired", No, "token_expired"),
            row(R::Forbidden, 4403, "forbidden", No, "forbidden"),
            row(R::Kicked, 4403, "kicked", No, "kicked"),
            row(R::RoomNotFound, 4404, "room_not_found", No, "room_not_found"),
            row(R::SlowConsumer, 4408, "slow_consumer", Resume, "slow_consumer"),
            row(R::Replaced, 4409, "replaced", No, "replaced"),
            row(R::IdleTimeout, 4410, "idle_timeout", Resume, "idle_timeout"),
            row(R::RateLimited, 4429, "rate_limited", Delayed, "rate_limited"),
            row(R::HandshakeTimeout, 0, "handshake timeout", Delayed, "handshake_timeout"),
            row(R::ConnectionLost, 0, "connection lost", Resume, "connection_lost"),
            row(R::Refused, 0, "refused", No, "refused"),
            row(R::HistoryEvicted, 4408, "history_evicted", Resume, "history_evicted"),
        ]
    };

    /// The reason's row.
    #[must_use]
    pub fn row(self) -> &'static CloseRow {
        &Self::ALL[self as usize]
    }

    /// The WebSocket close code; 0 = no close frame is sent.
    #[must_use]
    pub fn code(self) -> u16 {
        self.row().code
    }

    /// The reason text of the close frame.
    #[must_use]
    pub fn text(self) -> &'static str {
        self.row().text
    }

    /// The metric label.
    #[must_use]
    pub fn label(self) -> &'static str {
        self.row().label
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table's order is the enum's, every label is unique, and texts fit a control frame.
    #[test]
    fn the_close_table_is_consistent() {
        let mut labels = std::collections::BTreeSet::new();
        for (index, row) in CloseReason::ALL.iter().enumerate() {
            assert_eq!(row.reason as usize, index);
            assert!(labels.insert(row.label), "{} twice", row.label);
            assert!(row.text.len() <= 123);
            assert!(row.code == 0 || (1000..5000).contains(&row.code));
        }
    }
}
