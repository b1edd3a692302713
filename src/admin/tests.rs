//! The admin side over real sockets.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;

use super::*;
use crate::bus::{EmbeddedBus, TopicBounds};
use crate::id::NodeId;
use crate::ports::{LogView, Record, Unreadable};
use crate::router::{self, Latest, mesh};
use crate::time::WallMillis;

const PATIENCE: Duration = Duration::from_secs(20);

fn start(bounds: Bounds) -> (Admin, Arc<AdminState>) {
    start_over(Arc::new(EmbeddedBus::new(7, TopicBounds::default())), bounds)
}

fn start_over(log: Arc<dyn LogView>, bounds: Bounds) -> (Admin, Arc<AdminState>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let state = Arc::new(AdminState::new(vec![Arc::default(), Arc::default()], Durability::Memory, "uring"));
    let (api, _) = api(log);
    (spawn_bounded(listener, Arc::clone(&state), api, bounds).unwrap(), state)
}

/// An API over a log and a mesh of its own, and its node.
fn api(log: Arc<dyn LogView>) -> (Api, ApiPeer) {
    let port = mesh::build(1, router::Bounds::default()).pop().unwrap();
    let (peer, calls) = super::connect(port, Nodes { shards: 0, presence: NodeId(0), bus: NodeId(0) });
    let wall = || WallMillis(0);
    let (keys, routes) = (Latest::new(vec![KEY.to_owned()]), Latest::new(Arc::default()));
    (Api::new(ApiConfig { keys, routes, log, calls, nonce: 1, event_bytes: 1000, wall }), peer)
}

const KEY: &str = "a key of a test, long enough";

fn connect(admin: &Admin) -> TcpStream {
    let stream = TcpStream::connect(admin.address()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Sends a request and reads the answer to its end: status, head, body.
fn exchange(mut stream: TcpStream, request: &str) -> (u16, String, String) {
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, head.to_ascii_lowercase(), body.to_owned())
}

fn request(admin: &Admin, method: &str, path: &str) -> (u16, String, String) {
    exchange(connect(admin), &format!("{method} {path} HTTP/1.1\r\nhost: admin\r\n\r\n"))
}

/// Health is the fixed body that load balancers compare.
#[test]
fn health_is_ok() {
    let (admin, _) = start(Bounds::default());
    let (status, head, body) = request(&admin, "GET", "/health");
    assert_eq!((status, body.as_str()), (200, r#"{"status":"ok"}"#));
    assert!(head.contains("content-type: application/json"), "{head}");
    let (status, _, body) = request(&admin, "HEAD", "/health");
    assert_eq!((status, body.as_str()), (200, ""));
    admin.stop();
}

/// Readiness is 503 before the start is complete and while draining, 200 between, and says what runs.
#[test]
fn readiness_follows_the_life_of_the_process() {
    let (admin, state) = start(Bounds::default());
    let (status, _, body) = request(&admin, "GET", "/ready");
    assert_eq!(status, 503);
    assert!(body.contains(r#""ready":false"#), "{body}");
    state.ready.store(true, Ordering::Release);
    let (status, _, body) = request(&admin, "GET", "/ready");
    let version = env!("CARGO_PKG_VERSION");
    let expected = format!(
        r#"{{"ready":true,"draining":false,"durability":"memory","driver":"uring","shards":2,"version":"{version}"}}"#
    );
    assert_eq!((status, body), (200, expected));
    state.draining.store(true, Ordering::Release);
    let (status, _, body) = request(&admin, "GET", "/ready");
    assert_eq!(status, 503);
    assert!(body.contains(r#""ready":false,"draining":true"#), "{body}");
    admin.stop();
}

/// A scrape shows what the shards count at that moment, as OpenMetrics.
#[test]
fn metrics_show_the_present() {
    let (admin, state) = start(Bounds::default());
    state.shards[1].connections.set(7);
    let (status, head, body) = request(&admin, "GET", "/metrics");
    assert_eq!(status, 200);
    assert!(head.contains("content-type: application/openmetrics-text; version=1.0.0"), "{head}");
    assert!(body.contains("\nringgate_connections{shard=\"1\"} 7\n") && body.ends_with("# EOF\n"), "{body}");
    state.shards[1].connections.set(8);
    assert!(request(&admin, "GET", "/metrics").2.contains("\nringgate_connections{shard=\"1\"} 8\n"));
    admin.stop();
}

/// Unknown paths are 404, wrong methods 405 with what is allowed; both explain themselves as JSON.
#[test]
fn errors_explain_themselves() {
    let (admin, _) = start(Bounds::default());
    let (status, _, body) = request(&admin, "GET", "/nothing");
    assert_eq!(status, 404);
    assert!(body.starts_with(r#"{"error":{"code":"not_found","message":""#), "{body}");
    for path in ["/health", "/ready", "/metrics"] {
        let (status, head, body) = request(&admin, "DELETE", path);
        assert_eq!(status, 405, "{path}");
        assert!(head.contains("allow: get,head"), "{head}");
        assert!(body.starts_with(r#"{"error":{"code":"method_not_allowed","message":""#), "{body}");
    }
    admin.stop();
}

/// A head over its bound, or with too many headers, is answered 431 even when the client is not done sending.
#[test]
fn large_heads_are_refused() {
    let (admin, _) = start(Bounds::default());
    let long = format!("GET /health HTTP/1.1\r\nx: {}", "y".repeat(4 * limits::ADMIN_HEAD_BYTES));
    assert_eq!(exchange(connect(&admin), &long).0, 431);
    let many = format!("GET /health HTTP/1.1\r\n{}\r\n", "x: y\r\n".repeat(limits::ADMIN_HEADERS + 1));
    assert_eq!(exchange(connect(&admin), &many).0, 431);
    let fits = format!("GET /health HTTP/1.1\r\n{}\r\n", "x: y\r\n".repeat(limits::ADMIN_HEADERS));
    assert_eq!(exchange(connect(&admin), &fits).0, 200);
    admin.stop();
}

/// What is not HTTP is answered or closed, and the next client is served.
#[test]
fn nonsense_does_not_harm_the_next_client() {
    let (admin, _) = start(Bounds::default());
    assert_eq!(exchange(connect(&admin), "\u{1}\u{2} nonsense\r\n\r\n").0, 400);
    drop(connect(&admin));
    assert_eq!(request(&admin, "GET", "/health").0, 200);
    admin.stop();
}

/// Clients that say nothing, never finish their head or stay after the answer lose their place after the request time.
#[test]
fn slow_clients_lose_their_place() {
    let (admin, _) = start(Bounds { connections: 1, request_time: Duration::from_millis(100), ..Bounds::default() });
    let held = ["", "GET /hea", "GET /health HTTP/1.1\r\nhost: a\r\n\r\n"].map(|said| {
        let mut stream = connect(&admin);
        stream.write_all(said.as_bytes()).unwrap();
        stream
    });
    assert_eq!(request(&admin, "GET", "/health").0, 200);
    for mut stream in held {
        let ended = stream.read_to_end(&mut Vec::new()).map_err(|error| error.kind());
        assert!(matches!(ended, Ok(_) | Err(ErrorKind::ConnectionReset)), "{ended:?}");
    }
    admin.stop();
}

/// Connections beyond the cap wait unserved and get their turn when one ends.
#[test]
fn connections_are_capped() {
    let (admin, _) = start(Bounds { connections: 1, request_time: PATIENCE, ..Bounds::default() });
    let first = connect(&admin);
    let mut second = connect(&admin);
    second.write_all(b"GET /health HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
    second.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let early = second.read(&mut [0; 16]).unwrap_err();
    assert!(matches!(early.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "served beyond the cap: {early}");
    drop(first);
    second.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut answer = String::new();
    second.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    admin.stop();
}

/// When `stop` returns, the port is closed; an idle connection does not hold it up.
#[test]
fn stop_closes_the_port() {
    let (admin, _) = start(Bounds::default());
    let address = admin.address();
    let idle = connect(&admin);
    assert_eq!(request(&admin, "GET", "/health").0, 200);
    admin.stop();
    assert_eq!(TcpStream::connect(address).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    drop(idle);
}

/// Dropping the handle ends the thread: the port closes without `stop`.
#[test]
fn a_dropped_handle_ends_the_thread() {
    let (admin, _) = start(Bounds::default());
    let mut idle = connect(&admin);
    drop(admin);
    // The end of the runtime closes what it still served; a reset counts as closed.
    assert!(!matches!(idle.read(&mut [0; 16]), Ok(1..)));
}

/// A request with the key, sent; its answer is to be read.
fn keyed(admin: &Admin, request: &str, headers: &str) -> TcpStream {
    let mut stream = connect(admin);
    let head = format!("{request} HTTP/1.1\r\nhost: a\r\nauthorization: apikey {KEY}\r\n{headers}\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    stream
}

/// A body that does not come costs a place for the request time; while nobody runs the mesh, questions are answered 503.
#[test]
fn slow_bodies_are_cut_off() {
    let (admin, _) = start(Bounds { connections: 1, request_time: Duration::from_millis(100), ..Bounds::default() });
    let mut slow = keyed(&admin, "POST /api/events", "content-length: 10\r\n");
    slow.write_all(b"12345").unwrap();
    let (status, _, body) = exchange(keyed(&admin, "GET /api/presence/a", ""), "");
    assert_eq!(status, 503, "{body}");
    let ended = slow.read_to_end(&mut Vec::new()).map_err(|error| error.kind());
    assert!(matches!(ended, Ok(0) | Err(ErrorKind::ConnectionReset)), "{ended:?}");
    admin.stop();
}

/// An early end of a body is answered 400.
#[test]
fn short_bodies_are_refused() {
    let (admin, _) = start(Bounds::default());
    let mut short = keyed(&admin, "POST /api/events", "content-length: 10\r\n");
    short.write_all(b"12345").unwrap();
    short.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answer = String::new();
    short.read_to_string(&mut answer).unwrap();
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400"), "{answer}");
    admin.stop();
}

/// A body that does not say its length is measured on its way.
#[test]
fn long_bodies_are_refused() {
    let (admin, _) = start(Bounds::default());
    let mut long = keyed(&admin, "POST /api/events", "transfer-encoding: chunked\r\n");
    let body = format!("{:x}\r\n{}\r\n0\r\n\r\n", limits::API_BODY_BYTES + 1, "x".repeat(limits::API_BODY_BYTES + 1));
    // What is refused on its way may not be taken to its end.
    let _ = long.write_all(body.as_bytes());
    let (status, _, body) = exchange(long, "");
    assert!(status == 413 && body.contains(r#""code":"too_long""#), "{body}");
    admin.stop();
}

fn put(log: &mut EmbeddedBus, count: usize) {
    use crate::message::Append;
    for _ in 0..count {
        let (topic, from) = ("games.events".into(), crate::id::ConnAddr::NOBODY);
        let append = Append { from, correlation: 0, topic, key: Box::default(), value: (*b"{}").into() };
        crate::ports::Bus::append(log, WallMillis(0), &append).unwrap();
    }
}

/// A place that the topic no longer keeps is answered 409; a stream that falls behind ends with that as its last line.
#[test]
fn evicted_records_are_told() {
    let mut log = EmbeddedBus::new(7, TopicBounds { records: 4, bytes: 1000 });
    put(&mut log, 10);
    let (admin, _) = start_over(Arc::new(Lagging(log.handle())), Bounds::default());
    let (status, _, body) = exchange(keyed(&admin, "GET /api/log/games.events?from=5", ""), "");
    assert!(status == 409 && body.contains(r#""code":"history_evicted""#), "{body}");
    let (status, head, body) = exchange(keyed(&admin, "GET /api/log/games.events?from=6&epoch=7", ""), "");
    assert!(status == 200 && head.contains("content-type: application/x-ndjson"), "{head}");
    let lines: Vec<&str> = body.lines().filter(|line| line.starts_with('{')).collect();
    assert_eq!(lines[0], r#"{"topic":"games.events","epoch":7,"first":6,"head":10}"#);
    assert_eq!(&lines[1..3], [r#"{"place":7}"#, r#"{"place":8}"#]);
    assert!(lines.len() == 4 && lines[3].starts_with(r#"{"error":{"code":"history_evicted""#), "{body}");
    admin.stop();
}

/// A view whose reader is overtaken behind the second record.
struct Lagging(EmbeddedBus);

impl LogView for Lagging {
    fn epoch(&self, topic: &str) -> u64 {
        LogView::epoch(&self.0, topic)
    }

    fn range(&self, topic: &str) -> (u64, u64) {
        LogView::range(&self.0, topic)
    }

    fn look(&self, topic: &str, offset: u64, _max: usize, out: &mut Vec<Record>) -> Result<(), Unreadable> {
        self.0.look(topic, if offset < 8 { offset } else { offset + 1 }, 1, out)
    }

    fn watch(&self, topic: &str, waker: &std::task::Waker) {
        self.0.watch(topic, waker);
    }
}

/// A stream whose log cannot be read ends with that as its last line.
#[test]
fn unreadable_logs_are_told() {
    struct Broken;
    impl LogView for Broken {
        fn epoch(&self, _topic: &str) -> u64 {
            7
        }
        fn range(&self, _topic: &str) -> (u64, u64) {
            (0, 3)
        }
        fn look(&self, _: &str, _: u64, _: usize, _: &mut Vec<Record>) -> Result<(), Unreadable> {
            Err(Unreadable)
        }
        fn watch(&self, _topic: &str, _waker: &std::task::Waker) {}
    }
    let (admin, _) = start_over(Arc::new(Broken), Bounds::default());
    let (status, _, body) = exchange(keyed(&admin, "GET /api/log/games.events?from=1", ""), "");
    let lines: Vec<&str> = body.lines().filter(|line| line.starts_with('{')).collect();
    assert!(status == 200 && lines.len() == 2, "{body}");
    assert!(lines[1].starts_with(r#"{"error":{"code":"unavailable""#), "{body}");
    admin.stop();
}

/// A topic without an end, which counts the bytes it was asked for.
#[derive(Default)]
struct Endless(std::sync::atomic::AtomicUsize);

impl LogView for Endless {
    fn epoch(&self, _topic: &str) -> u64 {
        7
    }

    fn range(&self, _topic: &str) -> (u64, u64) {
        (0, 1 << 40)
    }

    fn look(&self, _topic: &str, offset: u64, max: usize, out: &mut Vec<Record>) -> Result<(), Unreadable> {
        let value: Arc<[u8]> = format!("{{\"x\":\"{}\"}}", "x".repeat(1000)).into_bytes().into();
        let record =
            |offset| Record { offset, timestamp: WallMillis(0), key: (*b"").into(), value: Arc::clone(&value) };
        out.extend((offset..offset + max as u64).map(record));
        self.0.fetch_add(max * value.len(), Ordering::Relaxed);
        Ok(())
    }

    fn watch(&self, _topic: &str, _waker: &std::task::Waker) {}
}

/// A reader that takes nothing is sent what the kernel buffers and little more, and loses its place after the stall.
#[test]
fn stalled_readers_are_cut_off() {
    let log = Arc::new(Endless::default());
    let bounds = Bounds { connections: 1, request_time: Duration::from_millis(100), stall: Duration::from_millis(300) };
    let (admin, _) = start_over(Arc::clone(&log) as Arc<dyn LogView>, bounds);
    let mut stalled = keyed(&admin, "GET /api/log/games.events?from=0", "");
    assert_eq!(request(&admin, "GET", "/health").0, 200, "the place is free again");
    let made = log.0.load(Ordering::Relaxed);
    assert!(made < 32 << 20, "{made} bytes were made for a reader that took none");
    let mut rest = Vec::new();
    let ended = stalled.read_to_end(&mut rest).map_err(|error| error.kind());
    assert!(matches!(ended, Ok(_) | Err(ErrorKind::ConnectionReset)), "{ended:?}");
    assert!(!rest.ends_with(b"0\r\n\r\n"), "cut off, not ended");
    assert_eq!(log.0.load(Ordering::Relaxed), made, "nothing is made for who is cut off");
    admin.stop();
}

/// A reader that takes what comes outlives request time and stall, through silence too; `stop` ends its stream whole.
#[test]
fn streams_live_while_they_are_read() {
    let mut log = EmbeddedBus::new(7, TopicBounds::default());
    let (request_time, stall) = (Duration::from_millis(100), Duration::from_millis(400));
    let bounds = Bounds { request_time, stall, ..Bounds::default() };
    let (admin, _) = start_over(Arc::new(log.handle()), bounds);
    let mut stream = keyed(&admin, "GET /api/log/games.events?heartbeat_ms=100", "");
    let mut got = String::new();
    let mut piece = [0; 4096];
    while got.matches("heartbeat").count() < 10 {
        let size = stream.read(&mut piece).unwrap();
        assert!(size > 0, "{got}");
        got += std::str::from_utf8(&piece[..size]).unwrap();
    }
    put(&mut log, 1);
    while !got.contains(r#"{"place":1}"#) {
        let size = stream.read(&mut piece).unwrap();
        assert!(size > 0, "{got}");
        got += std::str::from_utf8(&piece[..size]).unwrap();
    }
    admin.stop();
    stream.read_to_string(&mut got).unwrap();
    assert!(got.ends_with("0\r\n\r\n"), "{got}");
}
