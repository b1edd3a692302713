//! Question: what does reading a client's JSON message cost, whole text checked and routing fields found, and what does
//! a stream's frame cost in dialect A's and B's form? Unit: ns per message.
//! Goal: transcoding a bus event of 200 B ≤ 200 ns; reading with the parser that is fastest on the messages of the
//! reference documents. The other parsers stand here only to be compared.
//! Under `cargo test --benches` each case runs once.

#![expect(missing_docs, reason = "criterion's macro makes a public function without documentation")]

use std::borrow::Cow;
use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ringgate::id::StreamHandle;
use ringgate::protocol::frames::{Header, types, write};
use ringgate::protocol::gateway::{Fields, FrameForm, Inbound, Origin, parse};
use ringgate::protocol::routes::Routes;
use serde::Deserialize;
use simd_json::prelude::*;
use simd_json::{Buffers, Tape};

/// Messages of the reference documents, and two of 4 KiB: one long text, and many small values.
fn messages() -> Vec<(&'static str, String)> {
    let jwt = "eyJhbGciOiJSUzI1NiJ9.".to_owned() + &"Zm9v".repeat(150);
    let cells: Vec<_> = (0..150).map(|n| format!("{{\"x\":{n},\"y\":-{n}.25,\"on\":true}}")).collect();
    let room = "2d98ea9d-51dd-4195-9aea-fbfd580799d2";
    vec![
        ("heartbeat", r#"{ "type": "system.heartbeat" }"#.into()),
        ("authenticate", format!(r#"{{ "type": "system.authenticate", "token": "{jwt}" }}"#)),
        (
            "chat",
            r#"{ "type": "chat.command.send_message", "recipient_id": "123", "content": "Hello!", "correlation_id": "c-1" }"#.into(),
        ),
        ("roll", format!(r#"{{ "type": "games.command.bigger_dice.roll", "room_id": "{room}" }}"#)),
        (
            "text_4KiB",
            format!(
                r#"{{"type":"chat.command.send_lobby_message","lobby_id":"{room}","content":"{}"}}"#,
                "words and more ".repeat(270)
            ),
        ),
        (
            "values_4KiB",
            format!(r#"{{"type":"games.command.x.place","room_id":"{room}","cells":[{}]}}"#, cells.join(",")),
        ),
    ]
}

/// Bytes of what was found, so that every parser has the same to do: type, correlation id and the field of the room.
fn found(fields: [Option<&str>; 4]) -> usize {
    fields.into_iter().flatten().map(str::len).sum()
}

fn scanner(text: &str, fields: &mut Fields) -> usize {
    match parse(text.as_bytes(), fields).expect("a message") {
        Inbound::Command(command) => {
            let named = ["room_id", "lobby_id"].map(|name| command.field(name));
            let [room, lobby] = named.each_ref().map(Option::as_deref);
            found([Some(&command.event_type), command.correlation_id.as_deref(), room, lobby])
        }
        _ => 0,
    }
}

/// Also what dialect A would need in front of it: the copy, since simd-json writes into what it reads. The tape allocates
/// nothing when its buffers are kept.
fn simd_tape(text: &str, copy: &mut Vec<u8>, buffers: &mut Buffers, kept: &mut Option<Tape<'static>>) -> usize {
    copy.clear();
    copy.extend_from_slice(text.as_bytes());
    let mut tape = kept.take().unwrap_or(Tape(Vec::new())).reset();
    simd_json::fill_tape(copy, buffers, &mut tape).expect("a message");
    let object = tape.as_value();
    let object = object.as_object().expect("an object");
    let bytes = ["type", "correlation_id", "room_id", "lobby_id"];
    let bytes = bytes.iter().filter_map(|name| object.get(name).and_then(|value| value.as_str().map(str::len))).sum();
    *kept = Some(tape.reset());
    bytes
}

#[derive(Deserialize)]
struct Routed<'a> {
    #[serde(rename = "type", borrow)]
    event_type: Cow<'a, str>,
    #[serde(borrow)]
    correlation_id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    room_id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    lobby_id: Option<Cow<'a, str>>,
}

/// It neither sees doubled unknown fields nor takes numbers for ids: less work than the scanner's.
fn serde(text: &str) -> usize {
    let routed: Routed<'_> = serde_json::from_slice(text.as_bytes()).expect("a message");
    let optional = [&routed.correlation_id, &routed.room_id, &routed.lobby_id].map(Option::as_deref);
    found([Some(&routed.event_type), optional[0], optional[1], optional[2]])
}

fn read(c: &mut Criterion) {
    let mut group = c.benchmark_group("read");
    for (name, text) in messages() {
        group.throughput(Throughput::Bytes(text.len() as u64));
        let mut fields = Fields::default();
        group.bench_function(BenchmarkId::new("scanner", name), |b| {
            b.iter(|| scanner(black_box(&text), &mut fields));
        });
        let (mut copy, mut buffers, mut kept) = (Vec::new(), Buffers::default(), None);
        group.bench_function(BenchmarkId::new("simd_json_tape", name), |b| {
            b.iter(|| simd_tape(black_box(&text), &mut copy, &mut buffers, &mut kept));
        });
        group.bench_function(BenchmarkId::new("serde_json", name), |b| b.iter(|| serde(black_box(&text))));
    }
    group.finish();
}

fn transcode(c: &mut Criterion) {
    let routes = Routes::default();
    let header = |frame_type, kind| Header {
        frame_type,
        kind,
        flags: 0,
        stream: StreamHandle(70),
        number: 123_456,
        prev: 123_455,
    };
    let body = |event_type: &str| format!(r#"{{"type":"{event_type}","room_id":"a","text":"{}"}}"#, "x".repeat(146));
    let cases = [
        ("bus_200B", Origin::Bus, header(types::EVENT, 40), body("rooms.event.chat").into_bytes()),
        ("relayed_json_200B", Origin::Relay, header(types::EVENT, 14), body("rooms.event.chat").into_bytes()),
        ("relayed_bytes_200B", Origin::Relay, header(types::EVENT, 14), vec![0xff; 200]),
        ("relayed_delta_40B", Origin::Relay, header(types::WORLD_DELTA, 0), vec![0xff; 40]),
    ];
    let mut group = c.benchmark_group("transcode");
    for (name, origin, header, payload) in cases {
        let (mut frame, mut out) = (Vec::new(), Vec::new());
        write::frame(&mut frame, header, &payload);
        for (form_name, form) in [("a", FrameForm::Gateway), ("b", FrameForm::Rooms)] {
            group.bench_function(BenchmarkId::new(form_name, name), |b| {
                b.iter(|| {
                    out.clear();
                    assert!(form.transcode(black_box(&frame), origin, &routes, &mut out));
                });
            });
        }
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(std::time::Duration::from_millis(200))
        .measurement_time(std::time::Duration::from_millis(500))
        .sample_size(30);
    targets = read, transcode
}
criterion_main!(benches);
