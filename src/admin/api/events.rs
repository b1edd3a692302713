//! `POST /api/events`: an event envelope, or a batch of them, a line each (`Content-Type: application/x-ndjson`).
//!
//! Laws: nothing reaches the bus that its readers could not use. An event is answered once the bus has it under its
//! durability. Events of one key are accepted in the order of their lines: the next is sent when the one before was
//! accepted, and none behind one that was refused; events of different keys go side by side.

use std::collections::VecDeque;

use axum::extract::Request;
use axum::http::{StatusCode, header};
use axum::response::Response;
use serde::Serialize;

use super::peer::{Answer, Ask, Pending};
use super::{Api, check_length, read};
use crate::admin::answer::{self, Fault};
use crate::admin::life::Life;
use crate::id::{ConnAddr, EventId};
use crate::limits;
use crate::message::{Append, ErrorCode};
use crate::protocol::envelope::{Json, Published, publish_event};
use crate::protocol::routes::Source;

/// What became of an event.
#[derive(Serialize)]
struct Accepted {
    event_id: String,
}

impl Api {
    pub(super) async fn publish(&self, request: Request, life: Life) -> Result<Response, Fault> {
        check_length(request.headers())?;
        let content_type = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let batch = content_type.is_some_and(|content_type| content_type.to_ascii_lowercase().contains("ndjson"));
        let body = read(request.into_body()).await?;
        if batch {
            return self.publish_batch(&body, life).await;
        }
        let (append, id) = self.check(&body, &mut Json::default())?;
        accepted(self.calls.ask(Ask::Append(append)).await)?;
        Ok(answer::json(StatusCode::OK, &Accepted { event_id: id.to_string() }))
    }

    /// Puts an event of the gateway's own on the bus.
    pub(super) async fn publish_own(&self, envelope: &[u8]) -> Result<(), Fault> {
        let (append, _) = self.check(envelope, &mut Json::default())?;
        accepted(self.calls.ask(Ask::Append(append)).await)
    }

    /// A line of answer for each line that is not empty, in order.
    async fn publish_batch(&self, body: &[u8], life: Life) -> Result<Response, Fault> {
        let mut lines = body.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty());
        if lines.clone().nth(limits::API_EVENTS).is_some() {
            return Err(Fault::too_long(format!("a batch has at most {} events; send several", limits::API_EVENTS)));
        }
        let (mut json, mut batch) = (Json::default(), Batch::new(life));
        for (line, text) in lines.by_ref().enumerate() {
            batch.results.push(None);
            match self.check(text, &mut json) {
                Err(fault) => batch.results[line] = Some(fault.text()),
                Ok((append, id)) => {
                    batch.make_way(&append.key).await;
                    if batch.refused.iter().any(|key| **key == *append.key) {
                        let fault = Fault::unavailable("an event of the same key was refused before; send both again");
                        batch.results[line] = Some(fault.text());
                        continue;
                    }
                    let key = append.key.clone();
                    match self.calls.start(Ask::Append(append)).await {
                        Ok(pending) => batch.under_way.push_back(UnderWay { line, id, key, pending }),
                        Err(fault) => batch.refuse(line, key, &fault),
                    }
                }
            }
        }
        while batch.settle_first().await {}
        let mut text = String::new();
        for result in batch.results {
            text += &result.expect("every line was settled");
            text.push('\n');
        }
        Ok(answer::body(StatusCode::OK, answer::NDJSON, text))
    }

    fn check(&self, envelope: &[u8], json: &mut Json) -> Result<(Append, EventId), Fault> {
        if envelope.len() > self.event_bytes {
            return Err(Fault::too_long(format!("an event has at most {} bytes, as a frame", self.event_bytes)));
        }
        let now = (self.wall)();
        let routes = self.routes();
        let event = publish_event(envelope, &*routes, now, self.fresh_id(now), json);
        let Published { event_id, event_type, key, value } = event.map_err(|error| {
            Fault::new(StatusCode::BAD_REQUEST, "bad_request", error.to_string()).field(error.field())
        })?;
        let topic = match routes.event(&event_type).map(|row| &row.source) {
            Some(Source::Topic(topic)) => &**topic,
            _ => {
                let message = format!("{event_type} does not go by the bus; a publisher sends it over its connection");
                return Err(Fault::bad_request("event_type", message));
            }
        };
        let (topic, key, value) = (topic.into(), key.as_bytes().into(), value.into());
        Ok((Append { from: ConnAddr::NOBODY, correlation: 0, topic, key, value }, event_id))
    }
}

/// A batch under way.
struct Batch {
    life: Life,
    /// By line.
    results: Vec<Option<String>>,
    under_way: VecDeque<UnderWay>,
    /// Keys of which an event was refused, or may have been.
    refused: Vec<Box<[u8]>>,
}

struct UnderWay {
    line: usize,
    id: EventId,
    key: Box<[u8]>,
    pending: Pending,
}

impl Batch {
    fn new(life: Life) -> Self {
        Self { life, results: Vec::new(), under_way: VecDeque::new(), refused: Vec::new() }
    }

    /// Waits until no event of the key is under way, and there is room for another one.
    async fn make_way(&mut self, key: &[u8]) {
        while self.under_way.len() >= limits::API_EVENTS_UNDER_WAY
            || self.under_way.iter().any(|event| *event.key == *key)
        {
            self.settle_first().await;
        }
    }

    /// Waits for the answer to the event that was sent first; `false` if none is under way.
    async fn settle_first(&mut self) -> bool {
        let Some(UnderWay { line, id, key, pending }) = self.under_way.pop_front() else { return false };
        let outcome = accepted(pending.answer().await);
        self.life.step();
        match outcome {
            Ok(()) => self.results[line] = Some(answer::text(&Accepted { event_id: id.to_string() })),
            Err(fault) => self.refuse(line, key, &fault),
        }
        true
    }

    fn refuse(&mut self, line: usize, key: Box<[u8]>, fault: &Fault) {
        self.results[line] = Some(fault.text());
        self.refused.push(key);
    }
}

fn accepted(answer: Result<Answer, Fault>) -> Result<(), Fault> {
    match answer? {
        Answer::Appended(Ok(())) => Ok(()),
        Answer::Appended(Err(ErrorCode::TooLong)) => Err(Fault::too_long("the bus takes no record of this size")),
        Answer::Appended(Err(_)) => Err(Fault::unavailable("a reader of the topic is far behind; try again")),
        _ => Err(Fault::unavailable("the bus answered something else; try again")),
    }
}
