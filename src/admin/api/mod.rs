//! The server API (PROTOCOLS "Server API"): publish events, follow a topic, close connections, see rooms, histories and
//! queues. `openapi.json` describes it, the table of routes holds both together.
//!
//! Handlers check and format; what they want of shards, presence and bus they ask over the mesh ([`peer`]), and logs they
//! look at through [`LogView`]. Every answer is bounded, a stream makes its next piece when its reader has taken the last.

mod events;
mod gate;
mod history;
mod log;
mod peer;
mod sessions;

use std::fmt;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, header};
use axum::response::Response;
use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;

pub use peer::{ApiPeer, Calls, Nodes, connect};

use super::answer::{self, Fault};
use super::life::Life;
use super::routes::{Operation, Route};
use super::target::Target;
use crate::id::EventId;
use crate::limits;
use crate::ports::LogView;
use crate::protocol::routes::{Destination, Routes, Source};
use crate::router::Latest;
use crate::time::WallMillis;
use gate::Gate;

/// What the server API is built from.
pub struct ApiConfig {
    /// Keys that open it; none opens it to nobody. The newest count.
    pub keys: Latest<Vec<String>>,
    /// The type table, which says what events there are; the newest counts.
    pub routes: Latest<Arc<Routes>>,
    /// The bus's topics.
    pub log: Arc<dyn LogView>,
    /// The way to shards and peers.
    pub calls: Calls,
    /// Random per process: names connections, as in the session's settings, and new events.
    pub nonce: u64,
    /// Bytes of an event's envelope, so that what clients get of it fits their frames.
    pub event_bytes: usize,
    /// The wall clock.
    pub wall: fn() -> WallMillis,
}

/// The server API. See the module.
pub struct Api {
    gate: Gate,
    routes: Mutex<Latest<Arc<Routes>>>,
    log: Arc<dyn LogView>,
    calls: Calls,
    nonce: u64,
    event_bytes: usize,
    wall: fn() -> WallMillis,
    made: AtomicU64,
    streams: Arc<Semaphore>,
    looks: Semaphore,
    moved: Arc<Moved>,
}

/// Tells log streams that a topic has a new record, or that all is over.
#[derive(Default, Debug)]
struct Moved {
    notify: Notify,
    over: AtomicBool,
}

impl std::task::Wake for Moved {
    fn wake(self: Arc<Self>) {
        self.notify.notify_waiters();
    }
}

impl Api {
    /// Nobody has asked anything yet.
    #[must_use]
    pub fn new(config: ApiConfig) -> Self {
        Self {
            gate: Gate::new(config.keys),
            routes: Mutex::new(config.routes),
            log: config.log,
            calls: config.calls,
            nonce: config.nonce,
            event_bytes: config.event_bytes,
            wall: config.wall,
            made: AtomicU64::new(0),
            streams: Arc::new(Semaphore::new(limits::API_STREAMS)),
            looks: Semaphore::new(1),
            moved: Arc::default(),
        }
    }

    /// Ends the log streams.
    pub(super) fn stop(&self) {
        self.moved.over.store(true, Ordering::Release);
        self.moved.notify.notify_waiters();
    }

    /// Answers a request of a keyed route.
    pub(super) async fn answer(
        self: &Arc<Self>,
        route: &Route,
        request: Request,
        from: IpAddr,
        life: Life,
    ) -> Result<Response, Fault> {
        self.gate.check(request.headers(), from, Instant::now())?;
        let target = Target::read(route, request.uri())?;
        match route.operation {
            Operation::Publish => self.publish(request, life).await,
            Operation::Log => self.log(&target, life),
            Operation::Disconnect => self.disconnect(request).await,
            Operation::Presence => self.presence(&target).await,
            Operation::History => self.history(&target).await,
            Operation::Connections => self.connections(&target).await,
            Operation::Health | Operation::Ready | Operation::Metrics | Operation::Description => {
                Err(Fault::not_found("this route needs no key"))
            }
        }
    }

    /// The type table as it is now.
    fn routes(&self) -> Arc<Routes> {
        let mut routes = self.routes.lock().expect("nothing panics while it holds the table");
        routes.refresh();
        Arc::clone(&routes)
    }

    /// A new event's id.
    fn fresh_id(&self, now: WallMillis) -> EventId {
        let count = self.made.fetch_add(1, Ordering::Relaxed);
        let hash = EventId::v5(&[0; 16], &[&self.nonce.to_be_bytes(), &count.to_be_bytes()]);
        let mut entropy = [0; 10];
        entropy.copy_from_slice(&hash.0[..10]);
        EventId::v7(now, entropy)
    }
}

impl fmt::Debug for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Api").field("gate", &self.gate).finish_non_exhaustive()
    }
}

/// Reads a body within its bound.
async fn read(body: Body) -> Result<Bytes, Fault> {
    to_bytes(body, limits::API_BODY_BYTES).await.map_err(|error| {
        let too_long =
            std::error::Error::source(&error).is_some_and(|source| source.to_string().contains("length limit"));
        if too_long {
            body_too_long()
        } else {
            Fault::bad_request("body", "the body ended early or is not HTTP; send it anew")
        }
    })
}

/// Refuses a body that says itself that it is too long, before it is sent.
fn check_length(headers: &HeaderMap) -> Result<(), Fault> {
    let length = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    let length: Option<u64> = length.and_then(|length| length.parse().ok());
    if length.is_some_and(|length| length > limits::API_BODY_BYTES as u64) { Err(body_too_long()) } else { Ok(()) }
}

fn body_too_long() -> Fault {
    Fault::too_long(format!("a body has at most {} bytes; send several", limits::API_BODY_BYTES))
}

/// The topics of the type table, and those that the gateway itself fills.
fn topics(routes: &Routes) -> Vec<Box<str>> {
    let commands = routes.commands().iter().filter_map(|row| match &row.destination {
        Destination::Topic(topic) => Some(topic.clone()),
        Destination::Relay | Destination::Gateway => None,
    });
    let events = routes.events().iter().filter_map(|row| match &row.source {
        Source::Topic(topic) => Some(topic.clone()),
        Source::Relay => None,
    });
    let own = ["gateway.presence", "ringgate.dead"].map(Box::from);
    let mut topics: Vec<_> = commands.chain(events).chain(own).collect();
    topics.sort_unstable();
    topics.dedup();
    topics
}

/// Bytes as they stand among JSON that was made by hand.
fn put_quoted(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(answer::text(&text).as_bytes());
}
