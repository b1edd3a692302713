//! One HTTP/1.1 request per connection: from the table of routes to their answers, and the bounds of a head.

use std::future::poll_fn;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, on};
use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use prometheus_client::registry::Registry;
use serde::Serialize;
use tokio::io::AsyncWrite;
use tokio::net::TcpStream;

use super::answer::{self, Fault};
use super::api::Api;
use super::life::Life;
use super::routes::{Method, Operation, ROUTES, Route};
use super::target::Target;
use super::{AdminState, metrics};
use crate::limits;

/// Who is connected and for how long.
#[derive(Clone, Debug)]
pub(super) struct Client {
    pub(super) address: IpAddr,
    pub(super) life: Life,
}

/// What the routes are answered from.
#[derive(Clone)]
struct Sources {
    state: Arc<AdminState>,
    registry: Arc<Registry>,
    api: Arc<Api>,
}

/// The routes over their sources.
pub(super) fn router(state: Arc<AdminState>, api: Arc<Api>) -> Router {
    let registry = Arc::new(metrics::registry(Arc::clone(&state)));
    let sources = Sources { state, registry, api };
    let mut router = Router::new();
    for route in &ROUTES {
        let sources = sources.clone();
        let method = match route.method {
            Method::Get => MethodFilter::GET,
            Method::Post => MethodFilter::POST,
        };
        let handler = move |client: Extension<Client>, request: Request| answer(route, sources, client.0, request);
        router = router.route(&route.pattern(), on(method, handler));
    }
    router.fallback(not_found).method_not_allowed_fallback(method_not_allowed)
}

/// Reads a request, answers it, closes. The caller bounds its time.
pub(super) async fn serve(stream: TcpStream, router: Router, client: Client) {
    let router = router.layer(Extension(client));
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

async fn answer(route: &'static Route, sources: Sources, client: Client, request: Request) -> Response {
    let answered = if route.keyed {
        sources.api.answer(route, request, client.address, client.life).await
    } else {
        Target::read(route, request.uri()).map(|_| sources.show(route.operation))
    };
    let response = answered.unwrap_or_else(IntoResponse::into_response);
    debug_assert!(
        route.statuses.contains(&response.status().as_u16()),
        "{} answers {}, which its row does not say",
        route.name,
        response.status()
    );
    response
}

impl Sources {
    /// What needs no key.
    fn show(&self, operation: Operation) -> Response {
        match operation {
            Operation::Health => health(),
            Operation::Ready => ready(&self.state),
            Operation::Metrics => show_metrics(&self.registry),
            Operation::Description => answer::body(StatusCode::OK, answer::JSON, DESCRIPTION),
            Operation::Publish
            | Operation::Log
            | Operation::Disconnect
            | Operation::Presence
            | Operation::History
            | Operation::Connections => unreachable!("these routes are keyed"),
        }
    }
}

pub(super) fn health() -> Response {
    #[derive(Serialize)]
    struct Health {
        status: &'static str,
    }
    answer::json(StatusCode::OK, &Health { status: "ok" })
}

fn ready(state: &AdminState) -> Response {
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
    answer::json(if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, &body)
}

pub(super) fn show_metrics(registry: &Registry) -> Response {
    let mut text = String::new();
    // Only a writer that fails fails it, and memory does not.
    prometheus_client::encoding::text::encode(&mut text, registry).expect("every metric is writable");
    answer::body(StatusCode::OK, metrics::CONTENT_TYPE, text)
}

async fn not_found() -> Fault {
    let paths: Vec<&str> = ROUTES.iter().map(|route| route.path).collect();
    Fault::not_found(format!("no such path; there are: {}", paths.join(" ")))
}

pub(super) async fn method_not_allowed() -> Fault {
    let message = "this path answers other methods; the header Allow names them";
    Fault::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message)
}

/// The routes for tools, in OpenAPI 3.1.
pub(super) const DESCRIPTION: &str = include_str!("openapi.json");
