//! Presence in Redis, for many gateways (PROTOCOLS "Redis keys", DELIVERY §6). Sans-IO but for the link: time is an
//! argument, and what Redis answers is taken in `poll`.
//!
//! This gateway remembers the sessions whose last owner was one of its connections. What is said of them is state here,
//! written behind: each write has the whole record, so a newer one takes an older one's place, a repeated one changes
//! nothing, and all of them restore what a Redis that was flushed has lost. What must be decided among gateways (a new
//! session, a takeover, a place in a hub) is one call of an atomic script, and waits for its answer.
//!
//! Laws: a session has one owner, a connection, named in its record; each new owner counts the record's version up, and
//! what is said under an older version is refused. A gateway writes while it has its lease, and not after; whoever finds
//! a lease gone reaps what that gateway left, under the lease as a lock, and says `disconnected` before keys go. Calls
//! are carried out in the order in which they were made. Who gets a session or a place is told by the script's answer,
//! so behind its commit. Nothing waits without bound: who asks while Redis is away is told so.
//!
//! Redis Cluster is refused: one script touches keys of many slots.

mod answers;
mod hubs;
mod kicks;
mod lease;
mod link;
mod reaper;
mod record;
mod settings;
mod takeover;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use foldhash::quality::FixedState;

use self::answers::Asked;
use self::hubs::Messages;
use self::kicks::Kicked;
use self::lease::Standing;
use self::link::{Call, Event, Link};
use self::reaper::Reaper;
use self::record::Mark;
use self::takeover::{Held, Waiter};
use super::sessions::{Sessions, Slot};
use crate::close::CloseReason;
use crate::id::{ConnAddr, ConnectionId, Scope, SessionId, TokenHash};
use crate::message::{
    GatewayLife, HubChange, HubMessage, Kick, PresenceChange, PresenceKind, PresenceReply, PresenceRequest,
    SessionRecord,
};
use crate::ports::{Lease, Presence};
use crate::router::Wake;
use crate::time::{Monotonic, WallMillis};

pub use settings::RedisSettings;

/// What a gateway is to Redis.
#[derive(Clone, Debug)]
pub struct GatewaySettings {
    /// Names it among all gateways.
    pub gateway_id: String,
    /// Names this process's connections ([`ConnectionId::of`]).
    pub nonce: u64,
    /// The life that the announcer names (`gateway.presence`), kept with each connection for whoever reaps it.
    pub incarnation: u64,
    /// How long a session outlives its connection.
    pub resume_window: Duration,
    /// How old kicks may be that [`Presence::carry_out`] is given; no shorter than the window.
    pub history_time: Duration,
    /// Sessions without a connection that are kept for this gateway; beyond it the longest detached expire early.
    pub detached_max: usize,
    /// Of all hashes.
    pub seed: u64,
    /// The wall clock, for `connected_at`.
    pub wall: fn() -> WallMillis,
}

/// Presence of a gateway that shares Redis with others. See the module.
#[derive(Debug)]
pub struct RedisPresence {
    gateway: GatewaySettings,
    link: Link,
    standing: Standing,
    lease: Arc<Lease>,
    table: Sessions,
    /// What the table does not know of its sessions.
    own: HashMap<SessionId, Own, FixedState>,
    /// Sessions to be written, some of which may be gone.
    unwritten: VecDeque<SessionId>,
    /// Ends of sessions and connections to be written; as many as there were when Redis went away, and no more.
    ended: VecDeque<Ended>,
    /// When each session with a connection is written anew, so that its time to live does not end.
    refreshes: BTreeSet<(Monotonic, SessionId)>,
    /// Calls on their way, by tag.
    asked: HashMap<u64, Asked, FixedState>,
    next_tag: u64,
    /// Writes among them.
    writes: usize,
    /// Questions for sessions among them.
    claims: usize,
    /// Kicks since those were asked.
    kicked: VecDeque<Kicked>,
    /// Notices that may be about their answers.
    unheard: Vec<Box<str>>,
    waiters: HashMap<SessionId, Waiter, FixedState>,
    /// Of `waiters`, by time.
    deadlines: BTreeSet<(Monotonic, SessionId)>,
    /// Sessions whose owner is being asked for.
    held: HashMap<SessionId, Held, FixedState>,
    /// Requests that came before the lease.
    early: VecDeque<PresenceRequest>,
    /// Entries into rooms and exits there were.
    moves: u64,
    changes: Vec<PresenceChange>,
    hub_changes: Vec<HubChange>,
    /// Answers that wait until the bus has what they promise.
    promised: Vec<PresenceReply>,
    messages: Messages,
    reaper: Reaper,
    finishing: bool,
    /// The time of the call that is under way.
    now: Monotonic,
}

/// See [`RedisPresence::own`].
#[derive(Debug)]
struct Own {
    version: u64,
    kicked: Mark,
    /// When its connection got it, milliseconds since the epoch.
    connected_at: u64,
    /// When it ends, if it has no connection.
    until: Monotonic,
    /// A connection that had it and may still stand in Redis.
    former: Option<ConnAddr>,
    is_unwritten: bool,
    /// Whether its connection was announced.
    is_announced: bool,
    refresh_at: Monotonic,
}

/// See [`RedisPresence::ended`].
#[derive(Clone, Debug)]
enum Ended {
    Session {
        session: SessionId,
        version: u64,
        owner: Option<ConnAddr>,
    },
    Connections(Vec<ConnectionId>),
    /// All sessions of the user from before that event, and its place in a hub.
    User {
        user: Arc<str>,
        event: Option<(Arc<str>, u64)>,
    },
}

impl RedisPresence {
    /// Connects in the background; `wake` is rung when [`Presence::poll`] has something to do. The lease says how long
    /// this gateway's sessions are its own.
    #[must_use]
    pub fn start(redis: &RedisSettings, gateway: GatewaySettings, lease: Arc<Lease>, wake: Arc<dyn Wake>) -> Self {
        let channels = vec![format!("gateway:{}:inbox", gateway.gateway_id), LEASES.to_owned()];
        let hasher = FixedState::with_seed(gateway.seed);
        // Until the first lease nothing is this gateway's, so nothing is lost.
        lease.extend(Monotonic::NEVER);
        Self {
            link: Link::start(redis, channels, wake),
            standing: Standing::Asking { before: 0, again_at: Monotonic::NEVER },
            lease,
            table: Sessions::new(gateway.seed),
            own: HashMap::with_hasher(hasher.clone()),
            unwritten: VecDeque::new(),
            ended: VecDeque::new(),
            refreshes: BTreeSet::new(),
            asked: HashMap::with_hasher(hasher.clone()),
            next_tag: 1,
            writes: 0,
            claims: 0,
            kicked: VecDeque::new(),
            unheard: Vec::new(),
            waiters: HashMap::with_hasher(hasher.clone()),
            deadlines: BTreeSet::new(),
            held: HashMap::with_hasher(hasher.clone()),
            early: VecDeque::new(),
            moves: 0,
            changes: Vec::new(),
            hub_changes: Vec::new(),
            promised: Vec::new(),
            messages: Messages::new(hasher.clone()),
            reaper: Reaper::new(hasher),
            finishing: false,
            now: Monotonic::ZERO,
            gateway,
        }
    }

    /// Sessions remembered here, attached or not.
    #[must_use]
    pub fn sessions(&self) -> usize {
        self.table.len()
    }

    /// Those of them that have no connection.
    #[must_use]
    pub fn detached(&self) -> usize {
        self.table.detached()
    }

    /// Whether the lease is held, so that requests are carried out.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        matches!(self.standing, Standing::Held { .. })
    }

    /// Whether all that was said is in Redis, and nobody waits for an answer.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.is_ready()
            && self.asked.values().all(|asked| matches!(asked, Asked::Watch(_)))
            && self.ended.is_empty()
            && self.unwritten.is_empty()
            && self.early.is_empty()
            && self.reaper.is_idle()
    }

    /// When a session expires or a takeover has waited long enough.
    #[must_use]
    pub fn sessions_next(&self) -> Monotonic {
        let expiry = self.table.oldest_detached().map_or(Monotonic::NEVER, |(_, until)| until);
        let takeover = self.deadlines.first().map_or(Monotonic::NEVER, |(deadline, _)| *deadline);
        expiry.min(takeover)
    }

    /// Does what was due before `now`'s request.
    fn advance(&mut self, now: Monotonic, replies: &mut Vec<PresenceReply>) {
        self.now = now;
        while let Some((slot, _)) = self.table.oldest_detached().filter(|(_, until)| *until <= now) {
            self.forget(slot);
        }
        while let Some(&(_, session)) = self.deadlines.first().filter(|(deadline, _)| *deadline <= now) {
            self.seize(session, replies);
        }
    }

    /// A request that Redis must decide, or that says something of sessions.
    fn act_on(&mut self, now: Monotonic, request: PresenceRequest, replies: &mut Vec<PresenceReply>) {
        match request {
            PresenceRequest::Open { from, record, token } => self.open(from, *record, token, replies),
            PresenceRequest::Resume { from, user, token } => self.claim(from, user, token, replies),
            PresenceRequest::Attach { from, room, record, token } => {
                self.attach(from, &room, *record, token, replies);
            }
            PresenceRequest::Entered { session, entry } => {
                if let Some(slot) = self.table.by_session(session) {
                    if !self.table.is_in(slot, &entry.scope) {
                        self.moved(slot, &entry.scope, PresenceKind::Joined);
                    }
                    self.table.enter(slot, entry);
                    self.write_soon(session);
                }
            }
            PresenceRequest::Left { session, scope } => {
                if let Some(slot) = self.table.by_session(session) {
                    if self.table.is_in(slot, &scope) {
                        self.moved(slot, &scope, PresenceKind::Left);
                    }
                    self.table.leave(slot, &scope);
                    self.write_soon(session);
                }
            }
            PresenceRequest::Refreshed { session, roles, expires_at } => {
                if let Some(slot) = self.table.by_session(session) {
                    self.table.refresh(slot, roles, expires_at);
                    self.write_soon(session);
                }
            }
            PresenceRequest::Acted { session, place } => {
                if let Some(slot) = self.table.by_session(session) {
                    self.table.acted(slot, place);
                    self.write_soon(session);
                }
            }
            PresenceRequest::Detached { from, session, last_close } => {
                self.detached_by(now, from, session, last_close, replies);
            }
            PresenceRequest::Kick { user, event } => self.kick(user, event, replies),
            PresenceRequest::Disconnect(disconnect) => self.disconnect(&disconnect, replies),
            PresenceRequest::Members { from, room, after } => self.members(from, &room, after, replies),
            PresenceRequest::CreateHub(hub) => self.create_hub(&hub, replies),
            PresenceRequest::JoinHub(join) => self.join_hub(&join, replies),
            PresenceRequest::FindHub { from, code } => self.find_hub(from, code, replies),
            PresenceRequest::HubState { from, room } => self.hub_state(from, room, replies),
        }
    }

    /// Puts a new session into the table.
    fn insert(
        &mut self,
        record: SessionRecord,
        token: TokenHash,
        owner: ConnAddr,
        (version, kicked): (u64, Mark),
    ) -> Slot {
        let session = record.session;
        let slot = self.table.insert(record, token, owner, 0);
        let own = Own {
            version,
            kicked,
            connected_at: (self.gateway.wall)().0,
            until: Monotonic::NEVER,
            former: None,
            is_unwritten: false,
            is_announced: false,
            refresh_at: Monotonic::NEVER,
        };
        self.own.insert(session, own);
        slot
    }

    /// Takes a session out of the table, without a word to Redis.
    fn forget(&mut self, slot: Slot) {
        let session = self.table.session(slot);
        if let Some(own) = self.own.remove(&session) {
            self.refreshes.remove(&(own.refresh_at, session));
        }
        self.table.remove(slot);
    }

    /// Ends a session for good; whoever waits for it is told.
    fn end(&mut self, slot: Slot, reason: CloseReason, replies: &mut Vec<PresenceReply>) {
        let session = self.table.session(slot);
        let owner = self.table.owner(slot);
        if let Some(owner) = owner {
            self.departed(slot, owner, reason);
        }
        if let Some(waiter) = self.end_takeover(session) {
            replies.push(PresenceReply::Expired { to: waiter.from });
        }
        if let Some(held) = self.held.get_mut(&session) {
            held.is_ended = true;
        }
        let own = self.own.get(&session);
        let version = own.map_or(0, |own| own.version);
        let owner = owner.or(own.and_then(|own| own.former));
        self.ended.push_back(Ended::Session { session, version, owner });
        self.forget(slot);
    }

    fn detached_by(
        &mut self,
        now: Monotonic,
        from: ConnAddr,
        session: SessionId,
        last_close: CloseReason,
        replies: &mut Vec<PresenceReply>,
    ) {
        let Some(slot) = self.table.by_session(session).filter(|slot| self.table.owner(*slot) == Some(from)) else {
            return self.give_up(from, session);
        };
        if last_close == CloseReason::Kicked {
            let (_, user, _) = self.table.who(slot);
            self.kick_later(user, None);
            return self.end(slot, CloseReason::Kicked, replies);
        }
        self.table.close(slot, last_close);
        self.departed(slot, from, last_close);
        let until = now + self.gateway.resume_window;
        self.table.detach(slot, until);
        if let Some(own) = self.own.get_mut(&session) {
            (own.until, own.former) = (until, Some(from));
            self.refreshes.remove(&(own.refresh_at, session));
            own.refresh_at = Monotonic::NEVER;
        }
        self.write_soon(session);
        if let Some(waiter) = self.end_takeover(session) {
            self.claim(waiter.from, None, waiter.token, replies);
            return;
        }
        while self.table.detached() > self.gateway.detached_max {
            let (oldest, _) = self.table.oldest_detached().expect("there are more than none");
            self.end(oldest, CloseReason::Normal, replies);
        }
    }

    /// Keeps what others are to be told.
    fn changed(&mut self, slot: Slot, connection: ConnAddr, kind: PresenceKind) {
        // A connection comes and goes once, so whoever says that of a gateway that is gone finds the same number.
        let number = match kind {
            PresenceKind::Connected | PresenceKind::Disconnected(_) => 0,
            PresenceKind::Joined(_) | PresenceKind::Left(_) => {
                self.moves += 1;
                self.moves
            }
        };
        let GatewaySettings { nonce, incarnation, .. } = self.gateway;
        let (gateway, life, again) = (None, GatewayLife { nonce, incarnation }, false);
        let (session, user, username) = self.table.who(slot);
        self.changes.push(PresenceChange { gateway, life, connection, number, session, user, username, kind, again });
    }

    /// The session is the connection's, and Redis says so too.
    fn arrived(&mut self, slot: Slot, connection: ConnAddr) {
        let session = self.table.session(slot);
        if let Some(own) = self.own.get_mut(&session) {
            own.is_announced = true;
        }
        self.changed(slot, connection, PresenceKind::Connected);
    }

    fn departed(&mut self, slot: Slot, connection: ConnAddr, reason: CloseReason) {
        let session = self.table.session(slot);
        let announced = self.own.get_mut(&session).is_some_and(|own| std::mem::take(&mut own.is_announced));
        if announced {
            self.changed(slot, connection, PresenceKind::Disconnected(reason));
        }
    }

    /// A session that has a connection moved between rooms.
    fn moved(&mut self, slot: Slot, scope: &Scope, kind: impl FnOnce(Arc<str>) -> PresenceKind) {
        if let (Scope::Room(room), Some(owner)) = (scope, self.table.owner(slot)) {
            self.changed(slot, owner, kind(Arc::clone(room)));
        }
    }

    fn connection(&self, addr: ConnAddr) -> ConnectionId {
        ConnectionId::of(self.gateway.nonce, addr)
    }

    /// Gives a call to the link; `false` if it does not take it.
    fn ask(&mut self, operation: &str, args: Vec<Box<[u8]>>, asked: Asked) -> bool {
        let tag = self.next_tag;
        let window = format!("{} {}", self.gateway.resume_window.as_millis(), self.gateway.incarnation);
        let head = [operation, &self.gateway.gateway_id, &self.standing.incarnation().to_string(), &window];
        let args = head.iter().map(|arg| record::text(arg)).chain(args).collect();
        if !self.link.give(Call { tag, args }) {
            return false;
        }
        self.next_tag += 1;
        self.writes += usize::from(asked.is_write());
        self.claims += usize::from(asked.is_claim());
        self.asked.insert(tag, asked);
        true
    }
}

impl Presence for RedisPresence {
    fn handle(&mut self, now: Monotonic, request: PresenceRequest, replies: &mut Vec<PresenceReply>) {
        self.advance(now, replies);
        match self.early_or_away(request, replies) {
            Some(request) => self.handle_ready(now, request, replies),
            None => return,
        }
        self.write();
    }

    fn poll(&mut self, now: Monotonic, replies: &mut Vec<PresenceReply>) -> Monotonic {
        self.advance(now, replies);
        while let Some(event) = self.link.event() {
            match event {
                Event::Up => self.register(now),
                Event::Down(why) => self.away(&why, replies),
                Event::Answer(tag, outcome) => self.answered(now, tag, outcome, replies),
                Event::Listening => self.listening(now),
                Event::Notice(channel, text) => self.noticed(now, &channel, &text, replies),
            }
        }
        let lease = self.mind_lease(now);
        let watch = self.watch(now);
        while let Some(&(_, session)) = self.refreshes.first().filter(|(at, _)| *at <= now) {
            self.refreshes.pop_first();
            self.write_soon(session);
        }
        self.write();
        let refresh = self.refreshes.first().map_or(Monotonic::NEVER, |(at, _)| *at);
        self.sessions_next().min(lease).min(watch).min(refresh)
    }

    fn carry_out(&mut self, _now: Monotonic, kicks: Vec<Kick>) {
        for Kick { user, topic, place } in kicks {
            self.kick_later(user, Some((topic, place)));
        }
    }

    fn changes(&mut self, out: &mut Vec<PresenceChange>) {
        self.reaper.offered();
        out.append(&mut self.changes);
    }

    fn hub_changes(&mut self, out: &mut Vec<HubChange>) {
        out.append(&mut self.hub_changes);
    }

    fn said(&mut self, room: &str, message: HubMessage) {
        self.messages.said(room, message);
    }

    fn renumbered(&mut self) {
        self.messages.renumbered();
    }

    fn announced(&mut self, replies: &mut Vec<PresenceReply>) {
        replies.append(&mut self.promised);
        self.reap_announced();
    }

    fn finish(&mut self, now: Monotonic) -> bool {
        let mut unheard = Vec::new();
        self.poll(now, &mut unheard);
        if !self.is_ready() {
            return true;
        }
        let is_written = self.ended.is_empty() && self.unwritten.is_empty() && self.writes == 0;
        if is_written && !std::mem::replace(&mut self.finishing, true) {
            self.ask("release", Vec::new(), Asked::Released);
        }
        self.finishing && !self.asked.values().any(|asked| matches!(asked, Asked::Released))
    }
}

/// What all gateways hear: whose lease was renewed.
const LEASES: &str = "gateway:leases";
