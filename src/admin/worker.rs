//! The health port of a worker: `/live` (and `/health`), `/ready`, `/metrics`. There is nothing to call: a worker serves
//! no client.

use std::fmt;
use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::get;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;
use serde::Serialize;

use super::answer::{self, Fault};
use super::metrics::{counter, gauge};
use super::{Admin, Bounds, http, spawn_router};
use crate::stats::{Counter, WorkerStats};

/// What a worker shows.
#[derive(Debug)]
pub struct WorkerState {
    /// The thread of the services writes them.
    pub stats: Arc<WorkerStats>,
    /// Whether the process is ending.
    pub draining: AtomicBool,
}

impl WorkerState {
    /// Of a worker that has just started.
    #[must_use]
    pub fn new(stats: Arc<WorkerStats>) -> Self {
        Self { stats, draining: AtomicBool::new(false) }
    }
}

/// Starts the health port of a worker on a bound, listening socket.
///
/// # Errors
/// See [`super::spawn`].
pub fn spawn(listener: TcpListener, state: Arc<WorkerState>) -> io::Result<Admin> {
    let mut registry = Registry::with_prefix("ringgate");
    registry.register_collector(Box::new(Scrape(Arc::clone(&state))));
    let registry = Arc::new(registry);
    let router = Router::new()
        .route("/live", get(async || http::health()))
        .route("/health", get(async || http::health()))
        .route("/ready", get(async move || ready(&state)))
        .route("/metrics", get(async move || http::show_metrics(&registry)))
        .fallback(async || Fault::not_found("no such path; there are: /live /health /ready /metrics"))
        .method_not_allowed_fallback(http::method_not_allowed);
    spawn_router(listener, router, || {}, Bounds::default())
}

/// One that stands by is as ready as the active one.
fn ready(state: &WorkerState) -> Response {
    #[derive(Serialize)]
    struct Ready {
        ready: bool,
        draining: bool,
        role: &'static str,
        version: &'static str,
    }
    let draining = state.draining.load(Ordering::Acquire);
    let role = if state.stats.active.read() == 1 { "active" } else { "standby" };
    let status = if draining { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
    answer::json(status, &Ready { ready: !draining, draining, role, version: env!("CARGO_PKG_VERSION") })
}

#[derive(Debug)]
struct Scrape(Arc<WorkerState>);

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let stats = &self.0.stats;
        let labels = [("version", env!("CARGO_PKG_VERSION"))];
        encoder.encode_descriptor("build", "What runs here.", None, MetricType::Info)?.encode_info(&labels)?;
        let help = "1 while this worker is the active one.";
        gauge(encoder.encode_descriptor("worker_active", help, None, MetricType::Gauge)?, stats.active.read())?;
        let rows: [(&str, &str, &Counter); 4] = [
            ("worker_terms", "Times that this worker became the active one.", &stats.terms_total),
            ("worker_commands", "Records of command topics that were carried out.", &stats.commands_total),
            ("worker_events", "Events given to the bus.", &stats.events_total),
            ("worker_transactions", "Transactions of the services' records.", &stats.transactions_total),
        ];
        for (name, help, value) in rows {
            counter(encoder.encode_descriptor(name, help, None, MetricType::Counter)?, value.read())?;
        }
        let help = "Records of a command topic that wait, as measured last; 0 while this worker stands by.";
        let mut family = encoder.encode_descriptor("worker_lag_records", help, None, MetricType::Gauge)?;
        for (topic, lag) in &stats.lag {
            gauge(family.encode_family(&[("topic", *topic)])?, lag.read())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpStream;

    use super::*;

    fn get(admin: &Admin, path: &str) -> String {
        let mut stream = TcpStream::connect(admin.address()).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    /// A worker says whether it is the active one, in words and in numbers, and stops being ready when it ends.
    #[test]
    fn a_worker_shows_its_role() {
        let state = Arc::new(WorkerState::new(Arc::new(WorkerStats::new(&["games.commands"]))));
        let admin = spawn(TcpListener::bind("127.0.0.1:0").unwrap(), Arc::clone(&state)).unwrap();
        assert!(get(&admin, "/live").ends_with("{\"status\":\"ok\"}"));
        assert!(get(&admin, "/ready").contains(r#""ready":true,"draining":false,"role":"standby""#));
        state.stats.active.set(1);
        state.stats.commands_total.add(3);
        state.stats.lag[0].1.set(7);
        assert!(get(&admin, "/ready").contains(r#""role":"active""#));
        let metrics = get(&admin, "/metrics");
        for line in [
            "ringgate_worker_active 1\n",
            "ringgate_worker_commands_total 3\n",
            "ringgate_worker_lag_records{topic=\"games.commands\"} 7\n",
        ] {
            assert!(metrics.contains(line), "{metrics}");
        }
        state.draining.store(true, Ordering::Release);
        assert!(get(&admin, "/ready").starts_with("HTTP/1.1 503"));
        assert!(get(&admin, "/nowhere").contains("/live /health /ready /metrics"));
        admin.stop();
    }
}
