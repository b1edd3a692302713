//! From HELLO to an attached session: verify, open or resume, join the session's own scopes, welcome (DELIVERY §6).

use std::sync::Arc;

use super::answers::{Welcome, refusal_text};
use super::connection::{Connection, Dialect, Phase, closes_at};
use super::frames::room_name;
use super::lookups::RoomLook;
use super::relay::{self, UnderWay};
use super::settings::KeyReading;
use super::{Cx, Output, mutant};
use crate::auth::{Bucket, Claims, ResumeToken, TokenError, token_hash};
use crate::close::CloseReason;
use crate::id::{RoomCode, Scope, SessionId, StreamHandle, TokenHash};
use crate::limits;
use crate::message::{
    ErrorCode, Introduction, Joined, LostReason, Position, PresenceReply, PresenceRequest, PublisherState, Request,
    ResumeFrom, ScopeEntry, SessionRecord, Start, StreamStart,
};
use crate::packed::Packed;
use crate::protocol::frames::json;
use crate::protocol::gateway;
use crate::protocol::rooms::Op;
use crate::protocol::routes::RowId;
use crate::time::Monotonic;

/// An attached session.
pub struct Session {
    pub id: SessionId,
    pub user: Arc<str>,
    pub username: Arc<str>,
    pub roles: Arc<[Box<str>]>,
    pub publisher: bool,
    /// When the token's grace ends.
    pub closes_at: Monotonic,
    pub rooms: Packed<RoomSeat>,
    /// Joins on their way.
    pub joining: Packed<Joining>,
    /// Allowance of JOIN, LEAVE and new tokens. Here, since nearly every session has joined a room.
    pub moves: Bucket,
    /// What an idle session has nothing of.
    pub seldom: Option<Box<Seldom>>,
}

/// See [`Session::seldom`].
#[derive(Default)]
pub struct Seldom {
    /// Allowances by command row; those of rows not used of late are left out.
    pub rates: Packed<(RowId, Bucket)>,
    /// Up to where the effects of streams' events have acted.
    pub acted: Packed<Position>,
    /// Commands of dialect A that are not answered.
    pub tickets: Vec<Ticket>,
    pub last_ticket: u64,
    /// Numbers of JOINs that were passed on and that the bus has not answered for; a service may be faster.
    pub passed_on: Packed<u64>,
    /// Questions about rooms' members; presence is looking for the first.
    pub looks: Vec<RoomLook>,
    /// A token that is to take the place of the session's.
    pub refresh: Option<Box<Refresh>>,
    /// Questions of dialect B that presence has not answered, in order.
    pub asked: Vec<Asked>,
    /// When messages came that could not be read.
    pub faults: Vec<Monotonic>,
    /// Allowance of commands to publishers.
    pub player_commands: Bucket,
    /// A publisher's frames that the bus has not answered for.
    pub(super) under_way: UnderWay,
}

/// See [`Seldom::refresh`].
pub struct Refresh {
    pub token: Box<str>,
    pub correlation_id: Option<Box<str>>,
}

/// See [`Seldom::asked`].
pub struct Asked {
    pub op: Op,
    pub correlation_id: Option<Box<str>>,
}

/// A room that was asked for: its home has not answered, or a backend has not let the session in.
pub struct Joining {
    pub scope: Scope,
    /// The client's number; 0 = an event asked.
    pub correlation: u64,
    /// What comes next.
    pub step: JoinStep,
}

/// See [`Joining`]. It cannot be printed, for it may have a password.
#[derive(Clone, PartialEq, Eq)]
pub enum JoinStep {
    /// The home's answer; a room that is not open is then asked for with this password.
    Home { password: Option<Box<str>> },
    /// The event of the rooms service.
    Service,
    /// The home's answer, behind a backend's admission.
    Admitted,
    /// The home's answer, which is declined: an event let the session in anew, or took it out.
    Undone,
}

/// What an answer to a command of dialect A will be known by.
pub struct Ticket {
    pub number: u64,
    pub correlation_id: Option<Box<str>>,
}

/// A room the session is in.
pub struct RoomSeat {
    pub scope: Scope,
    /// The handle that publishers send on; most members know no other stream of the room.
    pub relay: StreamHandle,
    /// The room's other streams.
    pub others: Packed<StreamHandle>,
}

/// A HELLO under way.
pub enum Pending {
    /// Waits for its turn to be verified.
    Verifying { hello: Hello, attempts: u8 },
    /// Presence looks for the session.
    Looking { hello: Hello, claims: Option<Claims>, token: Box<str>, attempts: u8, kicked: Vec<Arc<str>> },
    /// Presence keeps the new session.
    Opening { session: Box<Session>, token: ResumeToken, expired: bool },
    /// Presence gives the session of a hub's player; this one if it is new.
    Attaching { session: Box<Session>, visit: Visit },
    /// The homes say where the session's streams go on; of a hub, presence then says who is there.
    Resuming(Box<Resuming>),
}

/// A hub that a player connects to.
pub struct Visit {
    pub room: Arc<str>,
    pub code: RoomCode,
    pub max_players: u32,
    /// Epoch and offset that the request would have the room's stream go on from.
    pub position: Option<(u64, u64)>,
    pub entry: Entry,
}

/// Whether a player's session has been in its hub before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Entry {
    /// The record says where it came in.
    Known,
    /// The record does not know of it: it comes in now.
    Later,
    /// It is a new session; a former one has ended.
    Expired,
}

/// A resume whose homes have not all answered.
pub struct Resuming {
    pub session: Box<Session>,
    pub token: Box<str>,
    pub last_close: Option<CloseReason>,
    /// The scopes that were asked for.
    pub scopes: Vec<Scope>,
    /// Those of them that a backend let the session into.
    pub admitted: Vec<Scope>,
    pub answers: Vec<Joined>,
    /// Dialect B: the hub.
    pub visit: Option<Box<Visit>>,
}

/// A HELLO, read.
#[derive(Default)]
pub struct Hello {
    pub token: Option<Box<str>>,
    pub resume: Option<Box<str>>,
    pub positions: Vec<Position>,
    /// Dialect A's, for the error.
    pub correlation_id: Option<Box<str>>,
}

impl Pending {
    /// Adds a stream to the parked answer of its scope; `false` if this is no resume.
    pub fn introduce(&mut self, scope: &Scope, introduction: &Arc<Introduction>) -> bool {
        let Self::Resuming(resuming) = self else { return false };
        let visible = resuming.session.publisher || !introduction.publishers_only;
        let parked = resuming.answers.iter_mut().find(|answer| answer.scope == *scope);
        if let (true, Some(Joined { outcome: Ok(streams), .. })) = (visible, parked) {
            streams.push(StreamStart { introduction: Arc::clone(introduction), start: Start::Behind(0) });
        }
        true
    }

    /// The session to detach when the connection ends now.
    pub fn abandon(&mut self, cx: &mut Cx<'_>) -> Option<SessionId> {
        match self {
            Self::Verifying { .. } | Self::Looking { .. } => None,
            Self::Opening { session, .. } | Self::Attaching { session, .. } => Some(session.id),
            Self::Resuming(resuming) => {
                for answer in resuming.answers.drain(..) {
                    cx.out.push(Output::Decline { scope: answer.scope });
                }
                let scopes = std::mem::take(&mut resuming.scopes);
                resuming.session.publisher_gone(cx, scopes.into_iter());
                Some(resuming.session.id)
            }
        }
    }
}

impl Connection {
    pub(super) fn hello(&mut self, cx: &mut Cx<'_>, json: &mut [u8]) {
        let hello: json::Hello<'_> = match json::read(json) {
            Ok(hello) => hello,
            Err(_) => return self.close(cx, CloseReason::BadRequest),
        };
        let window = hello.delta_window;
        let (token, resume) = (hello.token.map(Box::from), hello.resume.map(Box::from));
        self.begin(cx, Hello { token, resume, positions: hello.positions, correlation_id: None }, window);
    }

    /// Begins to authenticate, in whatever dialect it was asked for.
    pub(super) fn begin(&mut self, cx: &mut Cx<'_>, hello: Hello, delta_window: Option<u32>) {
        let Phase::Hello { attempts, .. } = self.phase else { return };
        if let Some(window) = delta_window {
            let verdict = self.with_queue(cx, |queue, context| queue.set_credit(window, context));
            self.judge(cx, verdict);
        }
        if hello.token.is_some() || hello.resume.is_some() {
            // A resume token alone waits for its turn, too: both ask presence, which must have room for it.
            self.phase = Phase::Busy(Box::new(Pending::Verifying { hello, attempts }));
            cx.out.push(Output::Verify);
        } else {
            self.auth_failed(cx, &hello, attempts, "a token is needed, or a resume token");
        }
    }

    /// Verifies the token that [`Output::Verify`] announced.
    pub fn verify(&mut self, cx: &mut Cx<'_>) {
        if self.is_open() {
            return self.verify_refresh(cx);
        }
        let (hello, attempts) = match std::mem::replace(&mut self.phase, Phase::hello(0)) {
            Phase::Busy(pending) => match *pending {
                Pending::Verifying { hello, attempts } => (hello, attempts),
                other => return self.phase = Phase::Busy(Box::new(other)),
            },
            other => return self.phase = other,
        };
        let Some(token) = hello.token.as_deref() else { return self.look_up(cx, hello, None, attempts) };
        match cx.settings.verifier.verify(token, cx.wall) {
            Err(TokenError::UnknownKey) if may_come(cx) => self.try_again(cx, KEY_MAY_COME),
            Err(error) => self.auth_failed(cx, &hello, attempts, &error.to_string()),
            Ok(claims) if hello.resume.is_some() => self.look_up(cx, hello, Some(claims), attempts),
            Ok(claims) => self.open(cx, claims, false),
        }
    }

    fn look_up(&mut self, cx: &mut Cx<'_>, hello: Hello, claims: Option<Claims>, attempts: u8) {
        let token: Box<str> = hello.resume.as_deref().unwrap_or_default().into();
        match token_hash(&token) {
            Some(hash) => {
                let user = claims.as_ref().map(|claims| Arc::clone(&claims.user));
                self.phase =
                    Phase::Busy(Box::new(Pending::Looking { hello, claims, token, attempts, kicked: Vec::new() }));
                self.ask_presence(cx, PresenceRequest::Resume { from: cx.me, user, token: hash });
            }
            None => self.not_found(cx, &hello, claims, attempts),
        }
    }

    /// Presence has no session under the resume token.
    fn not_found(&mut self, cx: &mut Cx<'_>, hello: &Hello, claims: Option<Claims>, attempts: u8) {
        match claims {
            Some(claims) => self.open(cx, claims, true),
            None => self.auth_failed(cx, hello, attempts, "the session has expired; send a token"),
        }
    }

    fn open(&mut self, cx: &mut Cx<'_>, claims: Claims, expired: bool) {
        let id = SessionId(random_bytes(cx));
        let token = ResumeToken::new((cx.random)(), (cx.random)());
        let record = SessionRecord {
            session: id,
            user: Arc::clone(&claims.user),
            username: Arc::clone(&claims.username),
            roles: Arc::clone(&claims.roles),
            expires_at: claims.expires_at,
            scopes: Vec::new(),
            acted: Vec::new(),
            last_close: None,
        };
        let session = Box::new(Session::new(cx, id, &record));
        self.identify(cx, &session);
        let hash: TokenHash = token.hash();
        self.phase = Phase::Busy(Box::new(Pending::Opening { session, token, expired }));
        self.ask_presence(cx, PresenceRequest::Open { from: cx.me, record: Box::new(record), token: hash });
    }

    /// An answer of the presence peer.
    pub fn presence(&mut self, cx: &mut Cx<'_>, reply: PresenceReply) {
        if let PresenceReply::Stop { session, .. } = reply {
            if mutant!(cx, KeptFormer) && self.dialect == Dialect::Rooms {
                return;
            }
            let waits = |pending: &Pending| matches!(pending, Pending::Looking { .. } | Pending::Attaching { .. });
            let waits = matches!(&self.phase, Phase::Busy(pending) if waits(pending));
            if waits || self.session_id() == Some(session) {
                self.close(cx, CloseReason::Replaced);
            } else {
                self.disown(cx, session);
            }
            return;
        }
        let reply = match reply {
            PresenceReply::Unavailable { .. } => return self.presence_away(cx),
            PresenceReply::Members { members, next, .. } => return self.members_found(cx, members, next),
            PresenceReply::Enrolled { outcome, .. } => return self.enrolled(cx, outcome),
            PresenceReply::Hub { hub, .. } => return self.hub_found(cx, hub),
            PresenceReply::HubState { state, .. } if self.is_open() => return self.hub_answer(cx, &state),
            reply => reply,
        };
        let pending = match std::mem::replace(&mut self.phase, Phase::hello(0)) {
            Phase::Busy(pending) => *pending,
            other => {
                self.phase = other;
                if let PresenceReply::Resumed { record, .. } = reply {
                    self.disown(cx, record.session);
                }
                return;
            }
        };
        match (pending, reply) {
            (Pending::Opening { mut session, token, expired }, PresenceReply::Opened { roles, .. }) => {
                session.roles = roles;
                self.opened(cx, session, &token, expired);
            }
            (Pending::Looking { hello, claims, attempts, .. }, PresenceReply::Expired { .. }) => {
                self.not_found(cx, &hello, claims, attempts);
            }
            (Pending::Looking { hello, attempts, .. }, PresenceReply::Foreign { .. }) => {
                self.auth_failed(cx, &hello, attempts, "the token is another user's");
            }
            (Pending::Looking { kicked, .. }, PresenceReply::Resumed { record, .. })
                if kicked.contains(&record.user) =>
            {
                self.close(cx, CloseReason::Kicked);
            }
            (Pending::Looking { hello, claims, token, attempts, .. }, PresenceReply::Resumed { record, .. }) => {
                self.resumed(cx, *record, &hello, claims, token, attempts);
            }
            (
                Pending::Attaching { session, visit },
                reply @ (PresenceReply::Opened { .. } | PresenceReply::Resumed { .. } | PresenceReply::Expired { .. }),
            ) => self.attached(cx, session, visit, reply),
            (Pending::Resuming(mut resuming), PresenceReply::HubState { state, .. }) if resuming.visit.is_some() => {
                if let Some(visit) = resuming.visit.take() {
                    self.enter_hub(cx, *resuming, &visit, &state);
                }
            }
            (pending, _) => self.phase = Phase::Busy(Box::new(pending)),
        }
    }

    /// Presence cannot be reached: who waits for a session comes back later, a question is answered so.
    fn presence_away(&mut self, cx: &mut Cx<'_>) {
        match &mut self.phase {
            Phase::Asking(_) => self.refuse_asking(cx),
            Phase::Open(_) => self.refuse_question(cx),
            Phase::Busy(_) => self.try_again(cx, refusal_text(ErrorCode::Unavailable)),
            _ => {}
        }
    }

    /// What it takes to let the client in may be there when it comes again.
    fn try_again(&mut self, cx: &mut Cx<'_>, text: &str) {
        self.error(cx, ErrorCode::Unavailable, 0, text);
        self.close(cx, CloseReason::TryAgainLater);
    }

    /// A user was kicked; if it is the one whose session presence is looking for, the answer comes too late.
    pub fn kicked_while_looking(&mut self, user: &Arc<str>) {
        if let Phase::Busy(pending) = &mut self.phase
            && let Pending::Looking { kicked, .. } = &mut **pending
        {
            kicked.push(Arc::clone(user));
        }
    }

    /// Tells presence that this connection does not own the session (any more).
    fn disown(&mut self, cx: &mut Cx<'_>, session: SessionId) {
        let last_close = CloseReason::ConnectionLost;
        self.ask_presence(cx, PresenceRequest::Detached { from: cx.me, session, last_close });
    }

    fn opened(&mut self, cx: &mut Cx<'_>, session: Box<Session>, token: &ResumeToken, expired: bool) {
        let reason = expired.then_some(LostReason::Expired);
        let welcome = Welcome { resume: Some(token.as_str()), reason, ..Welcome::default() };
        self.welcome(cx, &session, &welcome);
        let (id, publisher) = (session.id, session.publisher);
        for scope in session.own_scopes() {
            let (admitted, entry) = (false, None);
            cx.out.push(Output::Join { scope, session: id, publisher, admitted, entry, resume: None });
        }
        self.phase = Phase::Open(session);
    }

    fn resumed(
        &mut self,
        cx: &mut Cx<'_>,
        mut record: SessionRecord,
        hello: &Hello,
        claims: Option<Claims>,
        token: Box<str>,
        attempts: u8,
    ) {
        let refused = match &claims {
            // Presence compares users before it stops anybody, but one that is shared may find out afterwards.
            Some(claims) if claims.user != record.user => Some("the token is another user's"),
            None if record.expires_at <= cx.wall.seconds() => Some("the session's token has expired; send a new one"),
            _ => None,
        };
        if let Some(text) = refused {
            self.disown(cx, record.session);
            return self.auth_failed(cx, hello, attempts, text);
        }
        let renews = |claims: &Claims| claims.roles != record.roles || claims.expires_at != record.expires_at;
        if let Some(claims) = claims.filter(renews) {
            (record.roles, record.expires_at) = (claims.roles, claims.expires_at);
            let (session, roles, expires_at) = (record.session, Arc::clone(&record.roles), record.expires_at);
            self.ask_presence(cx, PresenceRequest::Refreshed { session, roles, expires_at });
        }
        let session = Box::new(Session::new(cx, record.session, &record));
        self.identify(cx, &session);
        let mut scopes = record.scopes;
        for scope in session.own_scopes() {
            if !scopes.iter().any(|entry| entry.scope == scope) {
                scopes.push(ScopeEntry { scope, entered: Vec::new(), admitted: false });
            }
        }
        let (id, publisher) = (session.id, session.publisher);
        let mut asked_admitted = Vec::new();
        let asked: Vec<Scope> = scopes.iter().map(|entry| entry.scope.clone()).collect();
        for entry in scopes {
            let suffix = format!("/{}", entry.scope);
            let here = hello.positions.iter().filter(|position| position.stream.ends_with(&suffix));
            let resume = Some(ResumeFrom { positions: here.cloned().collect(), entered: entry.entered });
            let (scope, admitted) = (entry.scope, entry.admitted);
            if admitted {
                asked_admitted.push(scope.clone());
            }
            cx.out.push(Output::Join { scope, session: id, publisher, admitted, entry: None, resume });
        }
        let last_close = record.last_close;
        let resuming = Resuming {
            session,
            token,
            last_close,
            answers: Vec::with_capacity(asked.len()),
            scopes: asked,
            admitted: asked_admitted,
            visit: None,
        };
        self.phase = Phase::Busy(Box::new(Pending::Resuming(Box::new(resuming))));
    }

    /// A home answered a join. A shard whose connection is gone declines the join itself.
    pub fn joined(&mut self, cx: &mut Cx<'_>, joined: Joined) {
        match &mut self.phase {
            Phase::Busy(pending) => {
                if let Pending::Resuming(resuming) = &mut **pending {
                    resuming.answers.push(joined);
                    if resuming.answers.len() == resuming.scopes.len() {
                        match resuming.visit.as_deref().map(|visit| visit.room.clone()) {
                            Some(room) => self.ask_state(cx, room),
                            None => self.finish_resume(cx),
                        }
                    }
                } else {
                    cx.out.push(Output::Decline { scope: joined.scope });
                }
            }
            Phase::Open(_) => self.joined_open(cx, joined),
            _ => cx.out.push(Output::Decline { scope: joined.scope }),
        }
    }

    fn finish_resume(&mut self, cx: &mut Cx<'_>) {
        let Phase::Busy(pending) = std::mem::replace(&mut self.phase, Phase::hello(0)) else { return };
        let Pending::Resuming(resuming) = *pending else { return };
        let Resuming { mut session, token, last_close, mut answers, admitted, .. } = *resuming;
        answers.sort_by(|a, b| a.scope.cmp(&b.scope));
        let starts = || answers.iter().flat_map(|answer| answer.outcome.iter().flatten());
        let lost: Vec<(Arc<str>, LostReason)> = starts()
            .filter_map(|start| match start.start {
                Start::Lost(reason) => Some((Arc::clone(&start.introduction.position.stream), reason)),
                Start::Live | Start::Behind(_) | Start::Anew(_) => None,
            })
            .collect();
        let recovered = lost.is_empty();
        for answer in &answers {
            if let (Scope::Room(_), Ok(streams)) = (&answer.scope, &answer.outcome) {
                session.rooms.push(RoomSeat::new(&answer.scope, streams));
            }
        }
        let reason = lost.first().map(|(_, reason)| *reason);
        let names: Vec<&str> = lost.iter().map(|(name, _)| &**name).collect();
        let welcome = Welcome { resume: Some(&token), recovered, reason, lost: &names, last_close };
        self.welcome(cx, &session, &welcome);
        let (id, publisher) = (session.id, session.publisher);
        self.phase = Phase::Open(session);
        for Joined { scope, outcome, admits, .. } in answers {
            match outcome {
                Ok(mut streams) => {
                    if publisher {
                        relay::tell(cx, id, &scope, PublisherState::Attached { open: !admits });
                    }
                    let anew = recovered && streams.iter().any(|start| matches!(start.start, Start::Anew(_)));
                    for start in &mut streams {
                        start.start = catch_up(start, recovered);
                        if anew && !mutant!(cx, EntryUntold) {
                            start.introduce_at_start();
                        }
                    }
                    let told = Some(LostReason::EnteredLater).filter(|_| anew && !mutant!(cx, EntryUntold));
                    self.introduce(cx, 0, &scope, &streams, told);
                    if !recovered || anew {
                        let admitted = admitted.contains(&scope);
                        let entry = ScopeEntry { scope: scope.clone(), entered: heads(&streams), admitted };
                        self.ask_presence(cx, PresenceRequest::Entered { session: id, entry });
                    }
                    cx.out.push(Output::Confirm { scope, streams });
                }
                Err(_) => {
                    self.ask_presence(cx, PresenceRequest::Left { session: id, scope: scope.clone() });
                    cx.out.push(Output::Decline { scope });
                }
            }
        }
    }

    /// A join of an open session, or one of its own scopes, was answered.
    fn joined_open(&mut self, cx: &mut Cx<'_>, joined: Joined) {
        let Phase::Open(session) = &mut self.phase else { return };
        let (id, scope, admitted) = (session.id, joined.scope, joined.admits);
        // A home answers in the order in which it was asked.
        let asked = session.joining.iter().position(|joining| joining.scope == scope && !joining.at_service());
        let asked = asked.map(|at| session.joining.remove(at));
        let room = matches!(scope, Scope::Room(_));
        let again = session.rooms.iter().any(|seat| seat.scope == scope);
        match (joined.outcome, asked) {
            (_, Some(Joining { step: JoinStep::Undone, .. })) => cx.out.push(Output::Decline { scope }),
            (Ok(mut streams), asked) if !room || asked.is_some() => {
                let correlation = asked.as_ref().map_or(0, |asked| asked.correlation);
                let lost = start_lost_at_heads(&mut streams);
                if room && !again {
                    session.rooms.push(RoomSeat::new(&scope, &streams));
                    if session.publisher {
                        relay::tell(cx, id, &scope, PublisherState::Attached { open: !admitted });
                    }
                }
                self.introduce(cx, correlation, &scope, &streams, lost);
                if again {
                    return cx.out.push(Output::Decline { scope });
                }
                if room || !streams.is_empty() {
                    let entry = ScopeEntry { scope: scope.clone(), entered: heads(&streams), admitted };
                    self.ask_presence(cx, PresenceRequest::Entered { session: id, entry });
                }
                cx.out.push(Output::Confirm { scope, streams });
            }
            (Err(ErrorCode::RoomNotFound), Some(Joining { correlation, step: JoinStep::Home { password }, .. })) => {
                cx.out.push(Output::Decline { scope: scope.clone() });
                self.ask_rooms_service(cx, scope, correlation, password.as_deref());
            }
            (Err(code), Some(asked)) => {
                self.error(cx, code, asked.correlation, refusal_text(code));
                cx.out.push(Output::Decline { scope });
            }
            _ => cx.out.push(Output::Decline { scope }),
        }
    }

    fn auth_failed(&mut self, cx: &mut Cx<'_>, hello: &Hello, attempts: u8, text: &str) {
        self.phase = Phase::hello(attempts + 1);
        match hello.correlation_id.as_deref() {
            Some(id) => self.answer(cx, |out| gateway::write::error(out, ErrorCode::AuthFailed, text, Some(id))),
            None => self.error(cx, ErrorCode::AuthFailed, 0, text),
        }
        if attempts + 1 >= limits::AUTHENTICATION_ATTEMPTS {
            self.close(cx, CloseReason::Unauthorized);
        }
    }

    pub(super) fn identify(&mut self, cx: &mut Cx<'_>, session: &Session) {
        let user = Arc::clone(&session.user);
        cx.out.push(Output::Identify { user, session: session.id, publisher: session.publisher });
    }

    pub(super) fn ask_presence(&mut self, cx: &mut Cx<'_>, request: PresenceRequest) {
        cx.out.push(Output::Request(cx.settings.presence, Request::Presence(Box::new(request))));
    }

    /// The session it has, or is about to have.
    #[must_use]
    pub fn session_id(&self) -> Option<SessionId> {
        match &self.phase {
            Phase::Open(session) => Some(session.id),
            Phase::Busy(pending) => match &**pending {
                Pending::Opening { session, .. } => Some(session.id),
                Pending::Resuming(resuming) => Some(resuming.session.id),
                Pending::Verifying { .. } | Pending::Looking { .. } | Pending::Attaching { .. } => None,
            },
            _ => None,
        }
    }
}

/// Whether the key that a token names may come with the next reading of keys, for which this asks.
pub(super) fn may_come(cx: &Cx<'_>) -> bool {
    cx.settings.key_reading.as_ref().is_some_and(KeyReading::may_bring_more)
}

/// What a client is told whose token names such a key.
pub(super) const KEY_MAY_COME: &str =
    "the token names a key (kid) that this gateway does not have yet; the keys are being read again, connect anew";

/// Whether these are a game server's roles.
pub(super) fn is_publisher(roles: &[Box<str>]) -> bool {
    roles.iter().any(|role| &**role == "publisher")
}

impl Session {
    pub(super) fn new(cx: &Cx<'_>, id: SessionId, record: &SessionRecord) -> Self {
        Self {
            id,
            user: Arc::clone(&record.user),
            username: Arc::clone(&record.username),
            roles: Arc::clone(&record.roles),
            publisher: is_publisher(&record.roles),
            closes_at: closes_at(cx, record.expires_at),
            rooms: Packed::default(),
            joining: Packed::default(),
            moves: Bucket::default(),
            seldom: (!record.acted.is_empty())
                .then(|| Box::new(Seldom { acted: record.acted.iter().cloned().collect(), ..Seldom::default() })),
        }
    }

    /// What an idle session has nothing of.
    pub fn seldom(&mut self) -> &mut Seldom {
        self.seldom.get_or_insert_default()
    }

    /// Tells the homes that this publisher's connection is gone and may come back.
    pub fn publisher_gone(&self, cx: &mut Cx<'_>, scopes: impl Iterator<Item = Scope>) {
        for scope in scopes.filter(|scope| self.publisher && matches!(scope, Scope::Room(_))) {
            let home = scope.home(cx.settings.shards);
            relay::tell(cx, self.id, &scope, PublisherState::Detached);
            cx.out.push(Output::Request(home, Request::PublisherGone { scope, from: cx.me, gone: false }));
        }
    }

    pub(super) fn own_scopes(&self) -> [Scope; 3] {
        [Scope::User(Arc::clone(&self.user)), Scope::Session(self.id), Scope::Everyone]
    }
}

impl Session {
    /// The rooms it is in.
    pub fn room_names(&self) -> impl Iterator<Item = &str> {
        self.rooms.iter().filter_map(|seat| room_name(&seat.scope)).map(|name| &**name)
    }
}

impl StreamStart {
    /// The introduction names the place that the member goes on from, not the head.
    fn introduce_at_start(&mut self) {
        if let Start::Behind(place) = self.start {
            let position = Position { place, ..self.introduction.position.clone() };
            self.introduction = Arc::new(Introduction { position, ..*self.introduction });
        }
    }
}

impl RoomSeat {
    pub(super) fn new(scope: &Scope, streams: &[StreamStart]) -> Self {
        let relay = streams.iter().find(|start| start.introduction.position.stream.starts_with("relay/"));
        let relay = relay.map_or(StreamHandle::NONE, |start| start.introduction.handle);
        let handles = streams.iter().map(|start| start.introduction.handle);
        Self { scope: scope.clone(), relay, others: handles.filter(|handle| *handle != relay).collect() }
    }

    /// Whether the stream is one of the room's that the member was told of.
    pub fn has(&self, stream: StreamHandle) -> bool {
        stream != StreamHandle::NONE && (self.relay == stream || self.others.contains(&stream))
    }

    /// The streams the member was told of.
    pub fn streams(&self) -> impl Iterator<Item = StreamHandle> {
        let relay = Some(self.relay).filter(|relay| *relay != StreamHandle::NONE);
        relay.into_iter().chain(self.others.iter().copied())
    }
}

/// Where a resuming member's cursor starts: what was sent since the home answered must not be missed, so nobody is live
/// at once; if anything is lost, everything starts at the heads that the introduction names.
fn catch_up(start: &StreamStart, recovered: bool) -> Start {
    match start.start {
        Start::Behind(place) | Start::Anew(place) if recovered => Start::Behind(place),
        Start::Live if recovered => Start::Behind(start.introduction.position.place),
        _ => Start::Behind(start.introduction.position.place),
    }
}

/// Streams whose start is gone start at their heads; the client is told why.
fn start_lost_at_heads(streams: &mut [StreamStart]) -> Option<LostReason> {
    let mut lost = None;
    for start in streams {
        if let Start::Lost(reason) = start.start {
            start.start = Start::Behind(start.introduction.position.place);
            lost = Some(reason);
        }
    }
    lost
}

/// What an idle session costs (DESIGN §10: 1,000 B with everything); size classes of the allocator.
const _: () = assert!(size_of::<Session>() <= 128 && size_of::<RoomSeat>() <= 48);

fn heads(streams: &[StreamStart]) -> Vec<Position> {
    streams.iter().map(|start| start.introduction.position.clone()).collect()
}

pub(super) fn random_bytes(cx: &mut Cx<'_>) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&(cx.random)().to_be_bytes());
    bytes[8..].copy_from_slice(&(cx.random)().to_be_bytes());
    bytes
}
