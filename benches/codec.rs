//! Question: what does the codec cost per message? Unit: ns per frame (decode, encode), ns per buffer (mask, UTF-8).
//! Goal: decode of a 100 B masked binary frame that lies whole in the buffer ≤ 40 ns; masking well above a byte loop.
//! Under `cargo test --benches` each case runs once.

#![expect(missing_docs, reason = "criterion's macro makes a public function without documentation")]

use std::hint::black_box;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ringgate::websocket::{Decoder, Message, Opcode, Role, apply_mask, put_binary, put_masked_frame, valid_prefix};

const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
/// Frames per buffer, so that what criterion adds per iteration is spread.
const FRAMES: usize = 100;

/// One receive buffer with many frames, as a busy connection has it. Decoding unmasks in place, so that every other
/// pass sees the payload masked twice; binary payloads do not care.
fn decode(c: &mut Criterion) {
    let mut group = c.benchmark_group("decode_100_frames");
    group.throughput(Throughput::Elements(FRAMES as u64));
    for (name, opcode) in [("binary_100B", Opcode::Binary), ("text_ascii_100B", Opcode::Text)] {
        let mut input = Vec::new();
        (0..FRAMES).for_each(|_| put_masked_frame(&mut input, opcode, KEY, &[b'a'; 100]));
        let mut decoder = Decoder::new(Role::Server, 64 << 10);
        let run = |decoder: &mut Decoder, input: &mut Vec<u8>| {
            let (mut at, mut bytes) = (0, 0);
            while let Some(Message::Binary(payload) | Message::Text(payload)) =
                decoder.next(input, &mut at).expect("a valid frame")
            {
                bytes += payload.len();
            }
            assert_eq!(bytes, FRAMES * 100);
        };
        if opcode == Opcode::Binary {
            group.bench_function(name, |b| b.iter(|| run(&mut decoder, black_box(&mut input))));
        } else {
            let fresh = || input.clone();
            group.bench_function(name, |b| {
                b.iter_batched_ref(fresh, |input| run(&mut decoder, input), BatchSize::SmallInput);
            });
        }
    }
    group.finish();
}

/// What a frame costs that arrives in two halves and goes through the decoder's own buffer.
fn decode_split(c: &mut Criterion) {
    let mut frame = Vec::new();
    put_masked_frame(&mut frame, Opcode::Binary, KEY, &[b'a'; 100]);
    let (first, second) = frame.split_at_mut(50);
    let mut decoder = Decoder::new(Role::Server, 64 << 10);
    c.bench_function("decode_split/binary_100B", |b| {
        b.iter(|| {
            assert_eq!(decoder.next(first, &mut 0), Ok(None));
            let mut at = 0;
            assert!(matches!(decoder.next(second, &mut at), Ok(Some(Message::Binary(_)))));
            assert_eq!(decoder.next(second, &mut at), Ok(None));
        });
    });
}

fn mask(c: &mut Criterion) {
    let mut group = c.benchmark_group("mask");
    for len in [100, 1 << 10, 64 << 10] {
        let mut bytes = vec![b'a'; len];
        group.throughput(Throughput::Bytes(len as u64));
        group.bench_function(BenchmarkId::new("words", len), |b| b.iter(|| apply_mask(black_box(&mut bytes), KEY, 0)));
        group.bench_function(BenchmarkId::new("byte_loop", len), |b| {
            b.iter(|| {
                for (i, byte) in black_box(&mut bytes[..]).iter_mut().enumerate() {
                    *byte ^= KEY[i & 3];
                }
            });
        });
    }
    group.finish();
}

fn encode(c: &mut Criterion) {
    let mut out = Vec::with_capacity(256);
    c.bench_function("encode/binary_100B", |b| {
        b.iter(|| {
            out.clear();
            put_binary(&mut out, black_box(&[b'a'; 100]));
            black_box(&out);
        });
    });
}

fn utf8(c: &mut Criterion) {
    let mut group = c.benchmark_group("utf8");
    for (name, text) in [("ascii", "a"), ("cyrillic", "ж"), ("emoji", "😀")] {
        for len in [100, 4096] {
            let bytes = text.repeat(len / text.len()).into_bytes();
            group.throughput(Throughput::Bytes(bytes.len() as u64));
            group.bench_function(BenchmarkId::new(name, len), |b| b.iter(|| valid_prefix(black_box(&bytes))));
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
    targets = decode, decode_split, mask, encode, utf8
}
criterion_main!(benches);
