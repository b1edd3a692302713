//! The admin side: `/health`, `/ready`, `/metrics` and the server API over HTTP on a thread of its own.
//!
//! It reads what shards publish ([`ShardStats`], plain loads), asks them over the mesh, and never makes a shard wait.
//! Connections, heads, bodies and the time of a request are bounded (`limits::ADMIN_*`, `limits::API_*`), so a port that
//! is open to the wrong people costs a fixed amount.

mod answer;
mod api;
mod http;
mod life;
mod metrics;
mod routes;
mod target;
mod worker;

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::sync::{Semaphore, oneshot};
use tokio::time::{sleep, timeout};

pub use api::{Api, ApiConfig, ApiPeer, Calls, Nodes, connect};
pub use worker::{WorkerState, spawn as spawn_worker};

use crate::limits;
use crate::ports::Durability;
use crate::stats::{BusStats, KeyStats, ShardStats};
use life::Life;

/// What the admin side shows; the server writes the flags, the shards their counters.
#[derive(Debug)]
pub struct AdminState {
    /// By shard number.
    pub shards: Vec<Arc<ShardStats>>,
    /// Of the bus's peer.
    pub bus: Arc<BusStats>,
    /// Of whoever reads token keys again.
    pub keys: Arc<KeyStats>,
    /// Whether every part has started and the bus has been read.
    pub ready: AtomicBool,
    /// Whether the process is ending; load balancers must send nobody here.
    pub draining: AtomicBool,
    /// What an accepted command survives.
    pub durability: Durability,
    /// The I/O driver that start-up chose, e.g. `uring`.
    pub driver: String,
    /// The version of this binary.
    pub version: &'static str,
}

impl AdminState {
    /// Not ready and not draining.
    #[must_use]
    pub fn new(shards: Vec<Arc<ShardStats>>, durability: Durability, driver: impl Into<String>) -> Self {
        Self {
            shards,
            bus: Arc::default(),
            keys: Arc::default(),
            ready: AtomicBool::new(false),
            draining: AtomicBool::new(false),
            durability,
            driver: driver.into(),
            version: env!("CARGO_PKG_VERSION"),
        }
    }

    /// Of a node that reads its token keys from elsewhere.
    #[must_use]
    pub fn reading(self, keys: Arc<KeyStats>) -> Self {
        Self { keys, ..self }
    }

    /// Whether new connections should be sent here: ready and not draining.
    #[must_use]
    pub fn takes_connections(&self) -> bool {
        self.ready.load(Ordering::Acquire) && !self.draining.load(Ordering::Acquire)
    }
}

/// The running admin side. Dropping it ends the thread too, without waiting for it.
pub struct Admin {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl Admin {
    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Closes the port, lets answers under way finish for `limits::ADMIN_STOP_TIME`, and joins the thread.
    pub fn stop(self) {
        // An error says that the thread has ended already; then there is nothing to ask of it.
        let _ = self.stop.send(());
        if self.thread.join().is_err() {
            tracing::error!("the admin thread panicked");
        }
    }
}

impl fmt::Debug for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admin").field("address", &self.address).finish_non_exhaustive()
    }
}

/// Starts the admin side on a bound, listening socket.
///
/// # Errors
/// What the system says when the socket, the thread or the thread's epoll cannot be had.
pub fn spawn(listener: TcpListener, state: Arc<AdminState>, api: Api) -> io::Result<Admin> {
    spawn_bounded(listener, state, api, Bounds::default())
}

/// What strangers can cost.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    /// Connections that are served at once.
    connections: u32,
    /// From accept to close, but for streams.
    request_time: Duration,
    /// How long a stream's reader may take nothing.
    stall: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            connections: limits::ADMIN_CONNECTIONS,
            request_time: limits::ADMIN_REQUEST_TIME,
            stall: limits::API_STREAM_STALL,
        }
    }
}

fn spawn_bounded(listener: TcpListener, state: Arc<AdminState>, api: Api, bounds: Bounds) -> io::Result<Admin> {
    let api = Arc::new(api);
    let router = http::router(state, Arc::clone(&api));
    spawn_router(listener, router, move || api.stop(), bounds)
}

/// Serves these routes; `stopping` is called when the port is about to close.
fn spawn_router(
    listener: TcpListener,
    router: axum::Router,
    stopping: impl FnOnce() + Send + 'static,
    bounds: Bounds,
) -> io::Result<Admin> {
    let address = listener.local_addr()?;
    listener.set_nonblocking(true)?;
    let runtime = Builder::new_current_thread().enable_io().enable_time().build()?;
    let listener = {
        let _context = runtime.enter();
        tokio::net::TcpListener::from_std(listener)?
    };
    let (stop, stopped) = oneshot::channel();
    let body = move || run(&runtime, listener, router, stopping, bounds, stopped);
    let thread = std::thread::Builder::new().name("ringgate-admin".into()).spawn(body)?;
    Ok(Admin { address, stop, thread })
}

/// The thread: accepts until told to stop or the handle is gone, then waits for its connections' places to come back.
fn run(
    runtime: &Runtime,
    listener: tokio::net::TcpListener,
    router: axum::Router,
    stopping: impl FnOnce(),
    bounds: Bounds,
    stopped: oneshot::Receiver<()>,
) {
    runtime.block_on(async {
        let places = Arc::new(Semaphore::new(bounds.connections as usize));
        let accepting = tokio::spawn(accept(listener, router, Arc::clone(&places), bounds));
        let _ = stopped.await;
        stopping();
        accepting.abort();
        // An abort ends as an error; it is awaited so that the port is closed when `stop` returns.
        let _ = accepting.await;
        let _ = timeout(limits::ADMIN_STOP_TIME, places.acquire_many(bounds.connections)).await;
    });
}

async fn accept(listener: tokio::net::TcpListener, router: axum::Router, places: Arc<Semaphore>, bounds: Bounds) {
    loop {
        let place = Arc::clone(&places).acquire_owned().await.expect("nobody closes the semaphore");
        match listener.accept().await {
            Ok((stream, from)) => {
                let life = Life::new(bounds.request_time, bounds.stall);
                let client = http::Client { address: from.ip(), life: life.clone() };
                let request = http::serve(stream, router.clone(), client);
                tokio::spawn(async move {
                    life.bound(request).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "the admin port cannot accept; trying again");
                sleep(ACCEPT_RETRY).await;
            }
        }
    }
}

/// Behind a failed accept (no descriptor left), so that it does not spin.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

#[cfg(test)]
mod description_tests;
#[cfg(test)]
mod tests;
