//! The API's node of the mesh: handlers put questions into a bounded channel, its thread sends them on, and gives the
//! answers back.
//!
//! Laws: at most [`limits::API_CALLS`] questions are unanswered, fewer than a ring and its outbox hold, so that an answer
//! never makes a shard pause; an answer to a question that nobody waits for any more is dropped. The thread sleeps while
//! nobody asks.

use std::sync::{Arc, OnceLock};
use std::thread::Thread;

use crossbeam_channel::{Receiver, Sender, bounded};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::{Instant, timeout_at};

use crate::admin::answer::Fault;
use crate::id::{ConnAddr, ConnKey, NodeId};
use crate::limits;
use crate::message::{
    ApiAnswer, ApiAsk, ApiRequest, Append, Deliver, Disconnect, Elsewhere, ErrorCode, PresenceReply, PresenceRequest,
    Request, RoomMember,
};
use crate::router::Port;
use crate::router::peer::Peer;
use crate::time::{Monotonic, WallMillis};

/// Who is who on the mesh.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Nodes {
    /// The shards are `0..shards`.
    pub shards: u16,
    /// The presence peer.
    pub presence: NodeId,
    /// The bus peer.
    pub bus: NodeId,
}

/// The node, and the handlers' end of it.
#[must_use]
pub fn connect(port: Port, nodes: Nodes) -> (ApiPeer, Calls) {
    let (sender, calls) = bounded(limits::API_CALLS);
    let thread = Arc::new(OnceLock::new());
    let places = Arc::new(Semaphore::new(limits::API_CALLS));
    let peer = ApiPeer { port, nodes, calls, slots: Vec::new() };
    (peer, Calls { sender, thread, places, nodes })
}

/// The handlers' end.
#[derive(Clone, Debug)]
pub struct Calls {
    sender: Sender<Call>,
    thread: Arc<OnceLock<Thread>>,
    places: Arc<Semaphore>,
    nodes: Nodes,
}

/// A question.
#[derive(Debug)]
pub(super) enum Ask {
    /// To a shard.
    Shard(NodeId, ApiAsk),
    /// To the bus; `from` and `correlation` are the node's to fill in.
    Append(Append),
    /// Who is in a room, among the records from `after` on.
    Members { room: Arc<str>, after: u32 },
    /// End all sessions of the user; answered when it is done.
    Kick { user: Arc<str> },
    /// Have other gateways close connections.
    Elsewhere { whom: Elsewhere, code: u16, reason: Arc<str> },
}

/// Its answer.
#[derive(Debug)]
pub(super) enum Answer {
    Shard(ApiAnswer),
    Appended(Result<(), ErrorCode>),
    Members { members: Vec<RoomMember>, next: Option<u32> },
    Disconnected(usize),
}

/// A question on its way. Its place is free again when the answer is there, or nobody waits for it.
#[derive(Debug)]
struct Call {
    ask: Ask,
    waiting: Waiting,
}

#[derive(Debug)]
struct Waiting {
    answer: oneshot::Sender<Answer>,
    _place: OwnedSemaphorePermit,
}

/// An answer to come.
#[derive(Debug)]
pub(super) struct Pending {
    answer: oneshot::Receiver<Answer>,
    until: Instant,
    thread: Arc<OnceLock<Thread>>,
}

impl Calls {
    /// Says which thread runs the node; before it nobody is answered. A second call changes nothing.
    pub fn runs_on(&self, thread: Thread) {
        let _ = self.thread.set(thread);
    }

    /// Who is who.
    pub(super) fn nodes(&self) -> Nodes {
        self.nodes
    }

    /// Asks one question and waits for its answer.
    pub(super) async fn ask(&self, ask: Ask) -> Result<Answer, Fault> {
        self.start(ask).await?.answer().await
    }

    /// Asks every shard and waits for all.
    pub(super) async fn ask_shards(&self, ask: &ApiAsk) -> Result<Vec<ApiAnswer>, Fault> {
        // Places are taken together: two who each hold a half would wait for each other.
        let mut places = self.places(u32::from(self.nodes.shards)).await?;
        let mut pending = Vec::with_capacity(usize::from(self.nodes.shards));
        for shard in 0..self.nodes.shards {
            let place = places.split(1).expect("a place was taken for each shard");
            pending.push(self.send(Ask::Shard(NodeId(shard), ask.clone()), place)?);
        }
        let mut answers = Vec::with_capacity(pending.len());
        for answer in pending {
            if let Answer::Shard(answer) = answer.answer().await? {
                answers.push(answer);
            }
        }
        Ok(answers)
    }

    /// Asks and does not wait yet. Questions to one node arrive in the order in which they were started.
    pub(super) async fn start(&self, ask: Ask) -> Result<Pending, Fault> {
        let place = self.places(1).await?;
        self.send(ask, place)
    }

    async fn places(&self, count: u32) -> Result<OwnedSemaphorePermit, Fault> {
        let places = Arc::clone(&self.places).acquire_many_owned(count);
        match timeout_at(Instant::now() + limits::API_CALL_TIME, places).await {
            Ok(Ok(places)) => Ok(places),
            _ => {
                self.wake();
                Err(Fault::unavailable("too many questions wait for an answer; try again"))
            }
        }
    }

    fn send(&self, ask: Ask, place: OwnedSemaphorePermit) -> Result<Pending, Fault> {
        let (sender, answer) = oneshot::channel();
        let call = Call { ask, waiting: Waiting { answer: sender, _place: place } };
        if self.thread.get().is_none() || self.sender.try_send(call).is_err() {
            return Err(Fault::unavailable("the gateway is starting or ending; try again"));
        }
        self.wake();
        let until = Instant::now() + limits::API_CALL_TIME;
        Ok(Pending { answer, until, thread: Arc::clone(&self.thread) })
    }

    fn wake(&self) {
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }
}

impl Pending {
    /// Waits for it; 503 if it does not come in time, which leaves open whether the question was carried out.
    pub(super) async fn answer(mut self) -> Result<Answer, Fault> {
        match timeout_at(self.until, &mut self.answer).await {
            Ok(Ok(answer)) => Ok(answer),
            _ => {
                drop(self.answer);
                if let Some(thread) = self.thread.get() {
                    thread.unpark();
                }
                Err(Fault::unavailable("no answer in time; it is not known whether it was done, so ask or repeat"))
            }
        }
    }
}

/// A node of the mesh that asks. See the module.
#[derive(Debug)]
pub struct ApiPeer {
    port: Port,
    nodes: Nodes,
    calls: Receiver<Call>,
    /// By the slot of the address that answers come to.
    slots: Vec<Slot>,
}

/// A question that was sent; the generation tells the slot's lives apart.
#[derive(Default, Debug)]
struct Slot {
    generation: u32,
    waiting: Option<Waiting>,
}

impl ApiPeer {
    fn begin(&mut self, Call { ask, waiting }: Call) {
        let to = match &ask {
            Ask::Shard(shard, _) => *shard,
            Ask::Append(_) => self.nodes.bus,
            Ask::Members { .. } | Ask::Kick { .. } | Ask::Elsewhere { .. } => self.nodes.presence,
        };
        if waiting.answer.is_closed() || !self.port.can_request(to) {
            // Whoever waits is told by the sender's end.
            return;
        }
        let from = self.place(waiting);
        let presence = |request| Request::Presence(Box::new(request));
        let members = |room, after| presence(PresenceRequest::Members { from, room, after });
        match ask {
            Ask::Shard(_, ask) => self.port.request(to, Request::Api(Box::new(ApiRequest { from, ask }))),
            Ask::Append(append) => {
                self.port.request(to, Request::Append(Box::new(Append { from, correlation: 1, ..append })));
            }
            Ask::Elsewhere { whom, code, reason } => {
                let disconnect = Disconnect { from, whom, code, reason };
                self.port.request(to, presence(PresenceRequest::Disconnect(Box::new(disconnect))));
            }
            Ask::Members { room, after } => self.port.request(to, members(room, after)),
            Ask::Kick { user } => {
                // Presence carries out one sender's requests in order, so what answers the second says that the first
                // is done.
                self.port.request(to, presence(PresenceRequest::Kick { user, event: None }));
                self.port.request(to, members("".into(), u32::MAX));
            }
        }
    }

    /// Takes a slot that is free, or whose question nobody waits for; places bound how many there are.
    fn place(&mut self, waiting: Waiting) -> ConnAddr {
        let slot = self.slots.iter().position(|slot| slot.waiting.is_none()).unwrap_or_else(|| {
            self.slots.push(Slot::default());
            self.slots.len() - 1
        });
        let entry = &mut self.slots[slot];
        entry.generation = (entry.generation + 1) & ConnKey::GENERATION_MAX;
        entry.waiting = Some(waiting);
        let conn = ConnKey { slot: slot as u32, generation: entry.generation };
        ConnAddr { shard: self.port.id(), conn }
    }

    fn finish(&mut self, to: ConnKey, answer: Answer) {
        let slot = self.slots.get_mut(to.slot as usize).filter(|slot| slot.generation == to.generation);
        if let Some(waiting) = slot.and_then(|slot| slot.waiting.take()) {
            // Whoever asked may have gone.
            let _ = waiting.answer.send(answer);
        }
    }

    /// Whoever asked is told by the sender's end.
    fn drop_call(&mut self, to: ConnKey) {
        if let Some(slot) = self.slots.get_mut(to.slot as usize).filter(|slot| slot.generation == to.generation) {
            slot.waiting = None;
        }
    }

    fn take_answers(&mut self) {
        while let Some((from, message)) = self.port.take_deliver() {
            match message {
                Deliver::Api(reply) => self.finish(reply.to, Answer::Shard(reply.answer)),
                Deliver::Answered { to, outcome, .. } => self.finish(to, Answer::Appended(outcome)),
                Deliver::Presence(reply) => match *reply {
                    PresenceReply::Members { to, members, next } => {
                        self.finish(to.conn, Answer::Members { members, next });
                    }
                    PresenceReply::Disconnected { to, connections } => {
                        self.finish(to.conn, Answer::Disconnected(connections));
                    }
                    PresenceReply::Unavailable { to } => self.drop_call(to.conn),
                    other => tracing::error!(from = from.0, ?other, "the API asked presence for no such thing"),
                },
                other => tracing::error!(from = from.0, ?other, "the API got an answer of another's"),
            }
        }
    }
}

impl Peer for ApiPeer {
    fn turn(&mut self, _now: Monotonic, _wall: WallMillis) -> Monotonic {
        self.port.flush_outboxes();
        self.take_answers();
        while let Some((from, request)) = self.port.take_request() {
            tracing::error!(from = from.0, ?request, "the API got a request; nobody asks it anything");
        }
        for slot in &mut self.slots {
            if slot.waiting.as_ref().is_some_and(|waiting| waiting.answer.is_closed()) {
                slot.waiting = None;
            }
        }
        while let Ok(call) = self.calls.try_recv() {
            self.begin(call);
        }
        Monotonic::NEVER
    }

    fn port(&mut self) -> &mut Port {
        &mut self.port
    }
}
