//! What must hold between values, and dev mode.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use super::load::{Origin, index_of};
use super::{Config, LOOPBACK, print};
use crate::keys::Source;

/// Decides dev mode and the host (PROTOCOLS "Dev mode"): no key and no host is dev mode on loopback; a host without a
/// key is refused unless dev mode is forced; a key without a host listens everywhere.
pub(super) fn resolve_dev_mode(config: &mut Config, origins: &[Origin], errors: &mut Vec<String>) {
    let auth = &config.auth;
    let keys = [
        ("auth.jwt_public_key_path", auth.jwt_public_key_path.is_some()),
        ("auth.jwt_jwks", auth.jwt_jwks.is_some()),
        ("auth.jwt_secret", auth.jwt_secret.is_some()),
    ];
    let mut keys = keys.into_iter().filter(|(_, is_set)| *is_set).map(|(key, _)| print::place(key, config, origins));
    if let Some(first) = keys.next() {
        let second =
            |place| format!("{place}: a second token key beside {first}; the key fixes the algorithm, so unset one");
        errors.extend(keys.map(second));
    }
    let has_key = config.auth.has_key();
    let remedy = "set JWT_PUBLIC_KEY_PATH, JWT_JWKS or JWT_SECRET, or try with --dev";
    let mut refuse = |key: &str, why: &str, config: &Config| {
        errors.push(format!("{}: {why}; {remedy}", print::place(key, config, origins)));
    };
    match config.server.host {
        _ if config.server.dev => _ = config.server.host.get_or_insert(LOOPBACK),
        _ if has_key => _ = config.server.host.get_or_insert(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
        Some(_) => refuse("server.host", "without a token key nobody could be told from anybody", config),
        None if index_of("server.dev").is_some_and(|index| origins[index] != Origin::Default) => {
            refuse("server.dev", "outside dev mode a token key is needed", config);
        }
        None => {
            config.server.host = Some(LOOPBACK);
            config.server.dev = true;
        }
    }
}

/// The relations of `limits`' assertions, for configured values, and those between listeners.
pub(super) fn relations(config: &Config, origins: &[Origin], errors: &mut Vec<String>) {
    let (delivery, timeouts) = (&config.delivery, &config.timeouts);
    let frame = delivery.max_frame + FRAME_OVERHEAD;
    let history = delivery.resume_window + timeouts.idle + HISTORY_SLACK;
    let rows: [(bool, &str, &str, String); 9] = [
        (
            delivery.queue_bytes >= 2 * frame,
            "delivery.queue_bytes",
            "delivery.max_frame",
            format!("must be at least 2 × (max_frame + 64) = {}", 2 * frame),
        ),
        (
            delivery.answer_bytes >= frame,
            "delivery.answer_bytes",
            "delivery.max_frame",
            format!("must be at least max_frame + 64 = {frame}"),
        ),
        (
            timeouts.ping * 2 < timeouts.idle,
            "timeouts.ping_ms",
            "timeouts.idle_ms",
            format!("must be less than half of idle_ms = {}", timeouts.idle.as_millis()),
        ),
        (
            delivery.queue_frames <= delivery.history_events,
            "delivery.queue_frames",
            "delivery.history_events",
            format!("must be at most history_events = {}, or a slow client could not resume", delivery.history_events),
        ),
        (
            delivery.queue_bytes <= delivery.history_bytes,
            "delivery.queue_bytes",
            "delivery.history_bytes",
            format!("must be at most history_bytes = {}, or a slow client could not resume", delivery.history_bytes),
        ),
        (
            delivery.history_bytes <= delivery.history_total_bytes,
            "delivery.history_bytes",
            "delivery.history_total_bytes",
            format!("must be at most history_total_bytes = {}", delivery.history_total_bytes),
        ),
        (
            timeouts.close <= timeouts.drain,
            "timeouts.close_ms",
            "timeouts.drain_ms",
            format!("must be at most drain_ms = {}", timeouts.drain.as_millis()),
        ),
        (
            config.server.data_dir.is_none() || config.bus.retention >= history,
            "bus.retention_s",
            "delivery.resume_window_s",
            format!(
                "must be at least resume_window_s + idle_ms + 30 s = {} s, or a restart loses histories",
                history.as_secs()
            ),
        ),
        (
            !same_listener(config),
            "server.health_port",
            "server.port",
            format!("must differ from port = {}, both listen on one address", config.server.port),
        ),
    ];
    for (_, key, other, message) in rows.into_iter().filter(|(holds, ..)| !holds) {
        errors.push(format!("{}: {message}; {}", print::place(key, config, origins), remedy(key, other, origins)));
    }
}

/// What many gateways must have alike.
pub(super) fn cluster(config: &Config, origins: &[Origin], errors: &mut Vec<String>) {
    if config.redis.host.is_some() && config.auth.room_token_key.is_none() {
        let place = print::place("redis.host", config, origins);
        errors.push(format!(
            "{place}: one gateway's room tokens would be no other's; set auth.room_token_key to the same secret on all \
             of them (`openssl rand -hex 32` prints one), or unset redis.host"
        ));
    }
}

/// What is allowed but deserves a line.
pub(super) fn warnings(config: &Config, warnings: &mut Vec<String>) {
    if let Some(source) = config.auth.key_source().filter(Source::is_open_to_all) {
        warnings.push(format!(
            "auth.jwt_jwks = {source}: without TLS, whoever is on the way there can put in keys of its own, and so be \
             anybody; use an https URL"
        ));
    }
    if config.auth.jwt_secret.as_ref().is_some_and(|secret| secret.len() < HS256_BYTES) {
        warnings.push(format!(
            "auth.jwt_secret is shorter than {HS256_BYTES} bytes (RFC 7518 §3.2) and may be guessed; make one with `openssl rand -hex 32`"
        ));
    }
    if config.store.settings().is_some_and(|settings| settings.is_open_to_all()) {
        warnings.push(
            "store.postgres_url asks for no TLS: whoever is on the way there can read the password and what players say; \
             add sslmode=require"
                .to_owned(),
        );
    }
    if config.store.postgres_url.is_some() && config.kafka.host.is_none() {
        let place = config.server.data_dir.as_ref().map_or("memory", |_| "SQLite in server.data_dir");
        warnings.push(format!(
            "store.postgres_url is not used without Kafka: it is for the history of `ringgate worker`, and here history is \
             kept in {place}; set KAFKA_HOST, or unset POSTGRES_URL"
        ));
    }
}

fn same_listener(config: &Config) -> bool {
    let server = &config.server;
    let overlap = |a: IpAddr, b: IpAddr| a == b || a.is_unspecified() || b.is_unspecified();
    server.port != 0 && server.port == server.health_port && overlap(server.host(), server.health_host)
}

/// The relation may have been broken by the value that it does not blame.
fn remedy(key: &str, other: &str, origins: &[Origin]) -> String {
    let origin = |name: &str| index_of(name).and_then(|index| origins.get(index));
    let blame = match (origin(key), origin(other)) {
        (Some(Origin::Default), Some(origin)) if *origin != Origin::Default => {
            format!(" ({other} is set by {})", print::origin(origin))
        }
        _ => String::new(),
    };
    format!("change {key} or {other}{blame}")
}

/// The longest header of a frame and of a dialect, rounded up (`limits`).
const FRAME_OVERHEAD: usize = 64;
/// See `limits::HISTORY_TIME`.
const HISTORY_SLACK: Duration = Duration::from_secs(30);
const HS256_BYTES: usize = 32;
