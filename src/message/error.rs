//! The codes of errors that clients are told, the same in every dialect.

/// What a client is told went wrong. The wire index of dialect D is `as u16 + 1`; append only.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[expect(missing_docs, reason = "the names are PROTOCOLS A's, which describes them")]
pub enum ErrorCode {
    AuthFailed,
    NotAuthenticated,
    BadRequest,
    UnknownType,
    Forbidden,
    RoomNotFound,
    RoomFull,
    RoomExists,
    WrongPassword,
    NotInRoom,
    NotYourTurn,
    GameNotStarted,
    RecipientNotFound,
    TooLong,
    RateLimited,
    Unavailable,
    Internal,
}

impl ErrorCode {
    /// Every code, in wire order.
    pub const ALL: [Self; 17] = [
        Self::AuthFailed,
        Self::NotAuthenticated,
        Self::BadRequest,
        Self::UnknownType,
        Self::Forbidden,
        Self::RoomNotFound,
        Self::RoomFull,
        Self::RoomExists,
        Self::WrongPassword,
        Self::NotInRoom,
        Self::NotYourTurn,
        Self::GameNotStarted,
        Self::RecipientNotFound,
        Self::TooLong,
        Self::RateLimited,
        Self::Unavailable,
        Self::Internal,
    ];

    /// Dialect D's number, from 1.
    #[must_use]
    pub fn index(self) -> u16 {
        self as u16 + 1
    }

    /// The name in JSON dialects.
    #[must_use]
    pub fn name(self) -> &'static str {
        const NAMES: [&str; 17] = [
            "auth_failed",
            "not_authenticated",
            "bad_request",
            "unknown_type",
            "forbidden",
            "room_not_found",
            "room_full",
            "room_exists",
            "wrong_password",
            "not_in_room",
            "not_your_turn",
            "game_not_started",
            "recipient_not_found",
            "too_long",
            "rate_limited",
            "unavailable",
            "internal",
        ];
        NAMES[self as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The error codes' wire order is the enum's.
    #[test]
    fn error_codes_count_from_one() {
        for (i, code) in ErrorCode::ALL.iter().enumerate() {
            assert_eq!(usize::from(code.index()), i + 1);
        }
        assert_eq!(ErrorCode::Internal.name(), "internal");
        assert_eq!(ErrorCode::RateLimited.name(), "rate_limited");
    }
}
