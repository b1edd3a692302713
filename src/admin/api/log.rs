//! `GET /api/log/{topic}`: a topic as lines of JSON, from an offset on and for as long as the reader takes them.
//!
//! Laws: a line is a record of the topic, in order and without a gap, or the last one, which says why there is none.
//! A stream holds one piece of about [`limits::API_CHUNK_BYTES`] and makes the next when that was taken; a reader that
//! takes nothing for [`limits::API_STREAM_STALL`] is cut off, and one that falls behind what the topic keeps is told
//! `history_evicted`. It never holds anything back: not the bus, not the services, not other streams.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::StatusCode;
use axum::response::Response;
use hyper::body::Frame;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;

use super::{Api, Moved, put_quoted, topics};
use crate::admin::answer::{self, Fault};
use crate::admin::life::Life;
use crate::admin::target::Target;
use crate::limits;
use crate::ports::LogView;
use crate::protocol::envelope::{Json, put_record};

impl Api {
    pub(super) fn log(&self, target: &Target, life: Life) -> Result<Response, Fault> {
        let topics = topics(&self.routes());
        let topic = topics
            .iter()
            .find(|topic| ***topic == *target.segment)
            .ok_or_else(|| Fault::not_found(format!("there is no such topic; there are: {}", topics.join(", "))))?;
        if let Some(words) = self.log.elsewhere() {
            return Err(Fault::not_found(words));
        }
        let from = target.number("from", 0, u64::MAX)?;
        let epoch = target.number("epoch", 0, u64::MAX)?;
        let silence = target.number("heartbeat_ms", HEARTBEAT_MS_MIN, limits::API_HEARTBEAT_MS)?;
        let now_epoch = self.log.epoch(topic);
        let (first, head) = self.log.range(topic);
        // A place that the topic has not reached belongs to a numbering that is gone.
        if epoch.is_some_and(|epoch| epoch != now_epoch) || from.is_some_and(|from| from > head) {
            let message =
                format!("the topic is numbered anew, epoch {now_epoch}: {first} to {head}; begin with one of these");
            return Err(Fault::conflict("epoch_changed", message));
        }
        if from.is_some_and(|from| from < first) {
            return Err(evicted(first));
        }
        let place = Arc::clone(&self.streams)
            .try_acquire_owned()
            .map_err(|_| Fault::unavailable(format!("{} log streams are open; end one", limits::API_STREAMS)))?;
        let mut greeting = b"{\"topic\":".to_vec();
        put_quoted(&mut greeting, topic);
        greeting.extend_from_slice(format!(",\"epoch\":{now_epoch},\"first\":{first},\"head\":{head}}}\n").as_bytes());
        let reader = Reader {
            topic: topic.clone(),
            next: from.unwrap_or(head),
            log: Arc::clone(&self.log),
            waker: Waker::from(Arc::clone(&self.moved)),
            moved: Arc::clone(&self.moved),
            silence: Duration::from_millis(silence.unwrap_or(limits::API_HEARTBEAT_MS)),
            json: Json::default(),
            greeting: Some(greeting.into()),
            ended: false,
        };
        let body = LogBody { piece: Some(reader.read()), life, _place: place };
        Ok(answer::body(StatusCode::OK, answer::NDJSON, Body::new(body)))
    }
}

/// Where a stream stands in its topic.
struct Reader {
    topic: Box<str>,
    next: u64,
    log: Arc<dyn LogView>,
    moved: Arc<Moved>,
    /// Tells `moved`.
    waker: Waker,
    /// How long nothing is said at most.
    silence: Duration,
    json: Json,
    /// The first line, until it is said.
    greeting: Option<Bytes>,
    /// The last line was made.
    ended: bool,
}

/// A piece being made, and who makes the next.
type Piece = Pin<Box<dyn Future<Output = (Reader, Option<Bytes>)> + Send>>;

impl Reader {
    fn read(mut self) -> Piece {
        Box::pin(async move {
            let piece = self.piece().await;
            (self, piece)
        })
    }

    /// The next piece: records, or a heartbeat after a silence; `None` at the end.
    async fn piece(&mut self) -> Option<Bytes> {
        if let Some(greeting) = self.greeting.take() {
            return Some(greeting);
        }
        loop {
            if self.ended || self.moved.over.load(Ordering::Acquire) {
                return None;
            }
            let moved = Arc::clone(&self.moved);
            let mut news = std::pin::pin!(moved.notify.notified());
            // Listen before looking, so that nothing comes between.
            news.as_mut().enable();
            self.log.watch(&self.topic, &self.waker);
            if let Some(piece) = self.records() {
                return Some(piece);
            }
            if timeout(self.silence, news).await.is_err() {
                return Some(format!("{{\"heartbeat\":true,\"head\":{}}}\n", self.log.range(&self.topic).1).into());
            }
        }
    }

    fn records(&mut self) -> Option<Bytes> {
        let (mut records, mut out) = (Vec::new(), Vec::new());
        let looked = self.log.look(&self.topic, self.next, limits::API_CHUNK_RECORDS, &mut records);
        if looked.is_err() {
            return Some(self.end(&Fault::unavailable("the log cannot be read here; the gateway's own log says why")));
        }
        for record in records {
            if record.offset != self.next {
                out.extend_from_slice(&self.end(&evicted(record.offset)));
                break;
            }
            if out.len() >= limits::API_CHUNK_BYTES {
                break;
            }
            self.next = record.offset + 1;
            put_record(&mut out, self.next, &record.value, &mut self.json);
        }
        (!out.is_empty()).then(|| out.into())
    }

    /// The last line.
    fn end(&mut self, fault: &Fault) -> Bytes {
        self.ended = true;
        (fault.text() + "\n").into()
    }
}

/// A stream as a body: hyper asks for the next frame when it has room for it.
struct LogBody {
    /// `None` at the end.
    piece: Option<Piece>,
    life: Life,
    _place: OwnedSemaphorePermit,
}

impl hyper::body::Body for LogBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        // Being asked says that there is room, so the reader took something; a heartbeat asks again before the end.
        self.life.step();
        let Some(making) = &mut self.piece else { return Poll::Ready(None) };
        let Poll::Ready((reader, piece)) = making.as_mut().poll(context) else { return Poll::Pending };
        self.piece = piece.is_some().then(|| reader.read());
        Poll::Ready(piece.map(|piece| Ok(Frame::data(piece))))
    }
}

fn evicted(first: u64) -> Fault {
    Fault::conflict("history_evicted", format!("the topic begins with {first} now; what was before is gone"))
}

/// The shortest silence that a reader may ask for.
const HEARTBEAT_MS_MIN: u64 = 100;
