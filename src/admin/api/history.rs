//! `GET /api/history/{stream}`: what the stream's home keeps, a page at a time.

use std::sync::Arc;

use axum::http::StatusCode;
use axum::response::Response;

use super::peer::{Answer, Ask};
use super::{Api, put_quoted};
use crate::admin::answer::{self, Fault};
use crate::admin::target::Target;
use crate::frame::{Audience, Batch};
use crate::id::Scope;
use crate::limits;
use crate::message::{ApiAnswer, ApiAsk, HistoryAsk, HistoryPage, HistoryRefusal, LostReason};
use crate::protocol::envelope::{Json, put_payload};
use crate::protocol::frames::Header;

impl Api {
    pub(super) async fn history(&self, target: &Target) -> Result<Response, Fault> {
        let stream = &target.segment;
        let scope = stream.split_once('/').and_then(|(_, scope)| Scope::parse(scope)).ok_or_else(|| {
            let message = "a stream's name is like relay/room:<id> or games.events.0/room:<id>";
            Fault::bad_request("stream", message)
        })?;
        let most = limits::API_HISTORY_FRAMES as u64;
        let ask = HistoryAsk {
            stream: stream.as_str().into(),
            epoch: target.number("epoch", 0, u64::MAX)?,
            after: target.number("after", 0, u64::MAX)?,
            frames: target.number("limit", 1, most)?.unwrap_or(FRAMES) as u32,
            bytes: limits::HISTORY_BYTES as u32,
        };
        let home = scope.home(self.calls.nodes().shards);
        match self.calls.ask(Ask::Shard(home, ApiAsk::History(ask))).await? {
            Answer::Shard(ApiAnswer::History(Ok(page))) => {
                Ok(answer::body(StatusCode::OK, answer::JSON, page_text(&page)))
            }
            Answer::Shard(ApiAnswer::History(Err(refusal))) => Err(refused(refusal)),
            _ => Err(Fault::unavailable("the shard answered something else; try again")),
        }
    }
}

fn refused(refusal: HistoryRefusal) -> Fault {
    match refusal {
        HistoryRefusal::NoStream => Fault::not_found("there is no such stream, or nothing was ever sent in it"),
        HistoryRefusal::Lost(LostReason::EpochChanged) => {
            Fault::conflict("epoch_changed", "the stream is numbered anew; begin without after and epoch")
        }
        HistoryRefusal::Lost(_) => Fault::conflict(
            "history_evicted",
            "the history begins later; leave after out to begin with its oldest event",
        ),
    }
}

fn page_text(page: &HistoryPage) -> Vec<u8> {
    let position = &page.introduction.position;
    let mut out = b"{\"stream\":".to_vec();
    put_quoted(&mut out, &position.stream);
    let numbers = format!(",\"epoch\":{},\"head\":{},\"after\":{}", position.epoch, position.place, page.after);
    out.extend_from_slice(numbers.as_bytes());
    out.extend_from_slice(b",\"events\":[");
    let mut json = Json::default();
    for (n, (batch, index)) in frames(page).enumerate() {
        if n > 0 {
            out.push(b',');
        }
        put_frame(&mut out, batch, index, &mut json);
    }
    out.extend_from_slice(b"]}");
    out
}

fn frames(page: &HistoryPage) -> impl Iterator<Item = (&Arc<Batch>, usize)> {
    page.runs.iter().flat_map(|run| (run.from as usize..run.to as usize).map(move |index| (&run.batch, index)))
}

/// One frame, from dialect D's wire form, which is what homes keep.
fn put_frame(out: &mut Vec<u8>, batch: &Batch, index: usize, json: &mut Json) {
    let item = batch.items()[index];
    let mark = batch.marks().iter().find(|mark| mark.index as usize == index);
    out.extend_from_slice(format!("{{\"place\":{},\"prev\":{}", item.place, item.prev).as_bytes());
    if let Some((header, mut payload)) = Header::read(message(batch.bytes(index, index + 1))) {
        out.extend_from_slice(format!(",\"frame_type\":{},\"kind\":{}", header.frame_type, header.kind).as_bytes());
        if item.forgets {
            out.extend_from_slice(format!(",\"forgets\":\"{}\"", item.key).as_bytes());
            payload = payload.get(size_of::<u64>()..).unwrap_or_default();
        }
        put_payload(out, payload, json);
    }
    if let Some(audience) = mark.and_then(|mark| mark.audience.as_deref()) {
        let (name, users) = match audience {
            Audience::Only(users) => ("only", users),
            Audience::Except(users) => ("except", users),
        };
        out.extend_from_slice(format!(",\"{name}\":{}", answer::text(users)).as_bytes());
    }
    out.push(b'}');
}

/// What is behind the header of an unmasked WebSocket frame (RFC 6455 §5.2).
fn message(frame: &[u8]) -> &[u8] {
    let header = match frame.get(1) {
        Some(126) => 4,
        Some(127) => 10,
        _ => 2,
    };
    frame.get(header..).unwrap_or_default()
}

/// Frames of a page if the request does not say how many.
const FRAMES: u64 = 100;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::class::Class;
    use crate::frame::{BatchBuilder, Encode, FrameKind, Item, Mark, SentRun};
    use crate::id::StreamHandle;
    use crate::message::{Introduction, Position};
    use crate::protocol::frames::FramesEncoder;
    use crate::time::Monotonic;

    /// A page shows each frame with its place, and its payload as JSON where it is JSON, whatever its length; the key
    /// that it forgets stands by itself, and who alone saw it is named.
    #[test]
    fn frames_are_shown_as_json() {
        let long = format!("\"{}\"", "x".repeat(70_000));
        let bodies: [&[u8]; 4] =
            [b"{\"n\":1.50}", b"\xff\x00", &[&9_u64.to_le_bytes()[..], b"[1]"].concat(), long.as_bytes()];
        let mut builder = BatchBuilder::new(StreamHandle(1));
        for (n, body) in bodies.iter().enumerate() {
            let place = n as u64 + 1;
            let item = Item { class: Class::Reliable, key: 9, forgets: n == 2, place, prev: place - 1 };
            let kind = FrameKind { frame_type: 35, kind: 7 };
            builder.push(item, |out| FramesEncoder.encode(StreamHandle(1), &item, kind, body, out));
            let audience = (n == 1).then(|| Arc::new(Audience::Only(["\"eve\"".into(), "bob".into()].into())));
            builder.mark(Mark { audience, ..Mark::default() });
        }
        let position = Position { stream: "relay/room:a".into(), epoch: 3, place: 4 };
        let introduction = Introduction { handle: StreamHandle(1), position, publishers_only: false };
        let batch = Arc::new(builder.seal(Monotonic::ZERO));
        let page = HistoryPage {
            introduction: Arc::new(introduction),
            runs: vec![SentRun { batch: Arc::clone(&batch), from: 0, to: 2 }, SentRun { batch, from: 2, to: 4 }],
            after: 4,
        };
        let expected = format!(
            r#"{{"stream":"relay/room:a","epoch":3,"head":4,"after":4,"events":[{{"place":1,"prev":0,"frame_type":35,"kind":7,"payload":{{"n":1.50}}}},{{"place":2,"prev":1,"frame_type":35,"kind":7,"data_base64":"/wA=","only":["\"eve\"","bob"]}},{{"place":3,"prev":2,"frame_type":35,"kind":7,"forgets":"9","payload":[1]}},{{"place":4,"prev":3,"frame_type":35,"kind":7,"payload":{long}}}]}}"#
        );
        assert_eq!(String::from_utf8(page_text(&page)).unwrap(), expected);
    }
}
