//! Deliberately broken policies, to show that the checks of tests and simulation bite. Exists only with the feature
//! `mutants`; chosen at run time, one at a time.

/// A broken policy; each names the invariant of DELIVERY §2 it breaks, or of §7: *kept* = no acknowledged command is lost,
/// *once* = none is done twice.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Mutant {
    /// The true policy.
    #[default]
    None,
    /// D2: a slow queue leaves out every reliable frame beyond half its bound, and counts it as delivered.
    DropReliable,
    /// D1: becoming slow turns the order of the waiting reliable frames round.
    ReorderReliable,
    /// D3: a replaced value is sent after the newer one.
    OlderAfterNewer,
    /// D3: a key that waits keeps its oldest value.
    StaleValue,
    /// D3: a replaced delta goes to the tail of the ring.
    StarveKey,
    /// D5: replaced deltas are not counted.
    ForgottenCount,
    /// D1: the delta ring goes first whatever arrived before.
    DeltaOvertakes,
    /// D4: no bound ever closes a slow connection.
    UnboundedQueue,
    /// D4: the bounds close a connection that is not slow.
    CloseWhileFast,
    /// D6: left-out deltas are never told.
    SilentSkip,
    /// D6: deltas left out by a bound are told, those replaced are not.
    HalfTold,
    /// D2: deltas are replaced though the connection is not slow.
    ReplaceWhileFast,
    /// D7: a slow queue discards pongs.
    DropPong,
    /// DELIVERY §3: `forget` leaves the waiting delta in place.
    IgnoreForget,
    /// DELIVERY §3: deltas are sent beyond the credit.
    IgnoreCredit,
    /// DELIVERY §3: the rest of a frame under way starts again at its first byte.
    TornFrame,
    /// D8: while one connection of a shard is blocked, no other is flushed.
    HeadOfLine,
    /// D6: a connection is closed before its close frame is sent.
    EarlyClose,
    /// D8: a sleeping node is never woken.
    LostDoorbell,
    /// D1: a member that catches up gets live batches as well.
    LiveWhileCatchingUp,
    /// D1: two deliveries of a ring are exchanged.
    SwapDeliveries,
    /// D1: two requests of a ring are exchanged.
    SwapRequests,
    /// D2: an event of the bus is lost when its home's ring is full.
    LostEvent,
    /// D1: a home puts an event of the bus twice.
    DoubledEvent,
    /// D2: the bus peer gives events of a page last first, and the homes take the earlier ones for repeated.
    ReversedEvents,
    /// D1: a LEAVE is answered and the seat kept.
    KeptSeat,
    /// D1: who joins starts at the beginning of the history.
    JoinAtBeginning,
    /// D7: a command that the bus took is answered twice.
    DoubledAnswer,
    /// D1: an effect acts again when its frame is replayed.
    EffectAgain,
    /// D2: who is let into a room by an event starts at the room's head.
    EntryAtHead,
    /// D1: `only` and `except` are ignored.
    IgnoredAudience,
    /// D2: a frame that is not for a member is left out without an advance.
    NoAdvance,
    /// D1: a resume reads what was said in a room before its session came in.
    ResumeBeforeEntry,
    /// D2: a resume that names a place from before its entry starts elsewhere and is not told.
    EntryUntold,
    /// Kept: a command is acknowledged and never reaches the bus.
    ForgottenCommand,
    /// Once: the services do a command again that comes again.
    CommandAgain,
    /// Kept: a worker that starts anew goes on behind the batch that was under way.
    LostBatch,
    /// D2: a hub's player who goes on somewhere starts at the room's head and is told that nothing was lost.
    HubAtHead,
    /// D1: a hub's first state shows messages that its stream brings again.
    StateAhead,
    /// D7: a connection of a hub's player stands on when another one takes its place.
    KeptFormer,
}

impl Mutant {
    /// Every broken policy.
    pub const BROKEN: [Self; 40] = [
        Self::DropReliable,
        Self::ReorderReliable,
        Self::OlderAfterNewer,
        Self::StaleValue,
        Self::StarveKey,
        Self::ForgottenCount,
        Self::DeltaOvertakes,
        Self::UnboundedQueue,
        Self::CloseWhileFast,
        Self::SilentSkip,
        Self::HalfTold,
        Self::ReplaceWhileFast,
        Self::DropPong,
        Self::IgnoreForget,
        Self::IgnoreCredit,
        Self::TornFrame,
        Self::HeadOfLine,
        Self::EarlyClose,
        Self::LostDoorbell,
        Self::LiveWhileCatchingUp,
        Self::SwapDeliveries,
        Self::SwapRequests,
        Self::LostEvent,
        Self::DoubledEvent,
        Self::ReversedEvents,
        Self::KeptSeat,
        Self::JoinAtBeginning,
        Self::DoubledAnswer,
        Self::EffectAgain,
        Self::EntryAtHead,
        Self::IgnoredAudience,
        Self::NoAdvance,
        Self::ResumeBeforeEntry,
        Self::EntryUntold,
        Self::ForgottenCommand,
        Self::CommandAgain,
        Self::LostBatch,
        Self::HubAtHead,
        Self::StateAhead,
        Self::KeptFormer,
    ];

    /// Those of the write queue; the others are those of shard, homes and peers, and only the simulation can see them.
    pub const IN_QUEUE: &'static [Self] = Self::BROKEN.split_at(16).0;

    /// Those that only commands of services show.
    pub const IN_SERVICES: &'static [Self] = Self::BROKEN.split_at(34).1.split_at(3).0;

    /// Those that only players of hubs see.
    pub const IN_HUBS: &'static [Self] = Self::BROKEN.split_at(37).1;
}
