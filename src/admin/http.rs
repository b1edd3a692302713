//! One HTTP/1.1 request per connection: the routes, their answers, and the bounds of a head. Errors are
//! `{"error":{"code","message"}}`, as in the server API.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use prometheus_client::registry::Registry;
use serde::Serialize;
use tokio::io::AsyncWrite;
use tokio::net::TcpStream;

use super::{AdminState, metrics};
use crate::limits;

/// The routes over a state.
pub(super) fn router(state: Arc<AdminState>) -> Router {
    let registry = Arc::new(metrics::registry(Arc::clone(&state)));
    Router::new()
        .route("/health", get(health))
        .route("/ready", get(ready).with_state(state))
        .route("/metrics", get(show_metrics).with_state(registry))
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
}

/// Reads a request, answers it, closes. The caller bounds its time.
pub(super) async fn serve(stream: TcpStream, router: Router) {
    let mut connection = http1::Builder::new()
        .keep_alive(false)
        .max_buf_size(limits::ADMIN_HEAD_BYTES)
        .max_headers(limits::ADMIN_HEADERS)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    // An error is the client's: it went away or broke the protocol, and was answered where HTTP has an answer.
    let _ = (&mut connection).await;
    close(connection.into_parts().io.into_inner()).await;
}

/// Ends the answer, then discards what the client still sends: closing with unread input would reset the connection
/// and could destroy the answer on its way (RFC 9112 §9.6).
async fn close(mut stream: TcpStream) {
    if poll_fn(|context| Pin::new(&mut stream).poll_shutdown(context)).await.is_err() {
        return;
    }
    let mut discarded = [0; 4096];
    while stream.readable().await.is_ok() {
        match stream.try_read(&mut discarded) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
    }
}

async fn health() -> Response {
    #[derive(Serialize)]
    struct Health {
        status: &'static str,
    }
    json(StatusCode::OK, &Health { status: "ok" })
}

async fn ready(State(state): State<Arc<AdminState>>) -> Response {
    #[derive(Serialize)]
    struct Ready<'a> {
        ready: bool,
        draining: bool,
        durability: &'static str,
        driver: &'a str,
        shards: usize,
        version: &'static str,
    }
    let ready = state.takes_connections();
    let body = Ready {
        ready,
        draining: state.draining.load(Ordering::Acquire),
        durability: state.durability.name(),
        driver: &state.driver,
        shards: state.shards.len(),
        version: state.version,
    };
    json(if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, &body)
}

async fn show_metrics(State(registry): State<Arc<Registry>>) -> Response {
    let mut text = String::new();
    match prometheus_client::encoding::text::encode(&mut text, &registry) {
        Ok(()) => ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response(),
        Err(_) => error(StatusCode::INTERNAL_SERVER_ERROR, "internal", "a metric could not be written"),
    }
}

async fn not_found() -> Response {
    error(StatusCode::NOT_FOUND, "not_found", "no such path; there are /health, /ready and /metrics")
}

async fn method_not_allowed() -> Response {
    error(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "this path answers GET and HEAD")
}

fn error(status: StatusCode, code: &'static str, message: &'static str) -> Response {
    #[derive(Serialize)]
    struct Body {
        error: Detail,
    }
    #[derive(Serialize)]
    struct Detail {
        code: &'static str,
        message: &'static str,
    }
    json(status, &Body { error: Detail { code, message } })
}

fn json(status: StatusCode, body: &impl Serialize) -> Response {
    let text = simd_json::to_string(body).expect("plain structs of strings, numbers and flags serialise");
    (status, [(header::CONTENT_TYPE, "application/json")], text).into_response()
}
