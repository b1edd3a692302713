//! The table of keys. A row is all there is to know of a key; nothing else in the crate lists them.

use std::net::IpAddr;
use std::time::Duration;

use super::{Config, DriverChoice, LogFormat, LogLevel, SaslMechanism, WriterChoice};
use crate::auth::{Cidr, RoomKey, is_origin};
use crate::keys::Source;
use crate::limits;

/// A row of the table.
#[derive(Debug)]
pub struct Key {
    /// `section.key`, as in the file; the environment name is `RINGGATE_<SECTION>_<KEY>`.
    pub name: &'static str,
    /// The flag, without its dashes.
    pub flag: &'static str,
    /// A second environment name that deployments already use; the other one wins.
    pub env: Option<&'static str>,
    /// What it means, with what its special values mean; one sentence or two, without unit and range.
    pub meaning: &'static str,
    /// Its type with range and access.
    pub kind: Kind,
}

/// A key's type with range and access to its place in [`Config`].
#[derive(Debug)]
pub enum Kind {
    /// A whole number of `unit`, `min` to `max`.
    Number {
        /// The unit, in the plural.
        unit: &'static str,
        /// Least value.
        min: u64,
        /// Greatest value.
        max: u64,
        /// Reads it.
        read: fn(&Config) -> u64,
        /// Writes it; in range.
        write: fn(&mut Config, u64),
    },
    /// `true` or `false`.
    Bool {
        /// Reads it.
        read: fn(&Config) -> bool,
        /// Writes it.
        write: fn(&mut Config, bool),
    },
    /// A text of some form; unset if the default has none.
    Text {
        /// What is expected, e.g. "an IP address".
        expected: &'static str,
        /// A valid value.
        example: &'static str,
        /// Whether the value must never be printed.
        secret: bool,
        /// Reads it.
        read: fn(&Config) -> Option<String>,
        /// Writes it; whether the value is valid.
        write: fn(&mut Config, &str) -> bool,
    },
    /// A list of texts of some form; in environment and flags separated by commas.
    List {
        /// What is expected of each.
        expected: &'static str,
        /// A valid entry.
        example: &'static str,
        /// Whether the entries must never be printed.
        secret: bool,
        /// Reads it.
        read: fn(&Config) -> Vec<String>,
        /// Replaces it; whether the entries are valid.
        write: fn(&mut Config, &[String]) -> bool,
    },
}

impl Key {
    /// The section, e.g. `server`.
    #[must_use]
    pub fn section(&self) -> &'static str {
        self.name.split_once('.').map_or("", |(section, _)| section)
    }

    /// The key within its section, e.g. `port`.
    #[must_use]
    pub fn key(&self) -> &'static str {
        self.name.split_once('.').map_or("", |(_, key)| key)
    }

    /// The environment name every key has.
    #[must_use]
    pub fn env_name(&self) -> String {
        format!("RINGGATE_{}", self.name.replace('.', "_").to_ascii_uppercase())
    }

    /// Whether the value must never be printed.
    #[must_use]
    pub fn is_secret(&self) -> bool {
        matches!(self.kind, Kind::Text { secret: true, .. } | Kind::List { secret: true, .. })
    }
}

/// The number accessors of a field of type `$type`.
macro_rules! number {
    ($section:ident.$field:ident: $type:ty, $unit:literal, $min:expr, $max:expr) => {
        Kind::Number {
            unit: $unit,
            min: $min,
            max: $max,
            read: |config| config.$section.$field as u64,
            write: |config, value| config.$section.$field = value as $type,
        }
    };
}

/// The accessors of a duration, counted in `$unit` by these functions.
macro_rules! duration {
    ($section:ident.$field:ident, $unit:literal, $read:ident, $write:ident, $min:expr, $max:expr) => {
        Kind::Number {
            unit: $unit,
            min: $min,
            max: $max,
            read: |config| config.$section.$field.$read() as u64,
            write: |config, value| config.$section.$field = Duration::$write(value),
        }
    };
    ($section:ident.$field:ident, $min:expr, $max:expr) => {
        duration!($section.$field, "milliseconds", as_millis, from_millis, $min, $max)
    };
}

macro_rules! flag {
    ($section:ident.$field:ident) => {
        Kind::Bool { read: |config| config.$section.$field, write: |config, value| config.$section.$field = value }
    };
}

/// The accessors of an optional text; empty is not valid.
macro_rules! text {
    ($section:ident.$field:ident, $expected:literal, $example:literal, secret: $secret:literal) => {
        Kind::Text {
            expected: $expected,
            example: $example,
            secret: $secret,
            read: |config| config.$section.$field.clone(),
            write: |config, value| {
                config.$section.$field = Some(value.to_owned());
                !value.is_empty()
            },
        }
    };
}

/// The accessors of a choice between named values.
macro_rules! choice {
    ($section:ident.$field:ident, $expected:literal, $example:literal, $($name:literal => $value:expr),+) => {
        Kind::Text {
            expected: $expected,
            example: $example,
            secret: false,
            read: |config| {
                $(if config.$section.$field == $value { return Some($name.to_owned()); })+
                None
            },
            write: |config, value| match value {
                $($name => { config.$section.$field = $value; true })+
                _ => false,
            },
        }
    };
}

const fn row(name: &'static str, flag: &'static str, meaning: &'static str, kind: Kind) -> Key {
    Key { name, flag, env: None, meaning, kind }
}

const fn known_as(env: &'static str, mut key: Key) -> Key {
    key.env = Some(env);
    key
}

fn address(text: &str) -> Option<IpAddr> {
    if text == "localhost" { Some(super::LOOPBACK) } else { text.parse().ok() }
}

/// `HOST` or `HOST:PORT`; an IPv6 address in brackets.
fn is_broker(text: &str) -> bool {
    let text = text.trim();
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => (host, Some(port)),
        _ => (text, None),
    };
    let host_is = |byte: u8| byte.is_ascii_alphanumeric() || b".-_[]:".contains(&byte);
    !host.is_empty()
        && host.bytes().all(host_is)
        && (!host.contains(':') || (host.starts_with('[') && host.ends_with(']')))
        && port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0))
}

/// Environment and flags separate keys by commas, a header ends them at white space.
fn is_api_key(key: &str) -> bool {
    (limits::API_KEY_BYTES_MIN..=limits::API_KEY_BYTES_MAX).contains(&key.len())
        && key.bytes().all(|byte| byte.is_ascii_graphic() && byte != b',')
}

const PORT: &str = "port";
const HOUR_MS: u64 = 3_600_000;
const GIB: u64 = 1 << 30;

/// All keys, by section, in the order they are printed.
#[rustfmt::skip]
pub static KEYS: &[Key] = &[
    known_as("WS_HOST", row("server.host", "host",
        "Address clients connect to. Unset: 0.0.0.0 if a key is configured, 127.0.0.1 in dev mode.",
        Kind::Text {
            expected: "an IP address",
            example: "0.0.0.0",
            secret: false,
            read: |config| config.server.host.map(|host| host.to_string()),
            write: |config, value| {
                config.server.host = address(value);
                config.server.host.is_some()
            },
        })),
    known_as("WS_PORT", row("server.port", PORT,
        "Port clients connect to. 0 = any free one.",
        number!(server.port: u16, "port", 0, 65535))),
    row("server.health_host", "health-host",
        "Address of health, metrics and server API.",
        Kind::Text {
            expected: "an IP address",
            example: "127.0.0.1",
            secret: false,
            read: |config| Some(config.server.health_host.to_string()),
            write: |config, value| address(value).map(|host| config.server.health_host = host).is_some(),
        }),
    known_as("WS_HEALTH_PORT", row("server.health_port", "health-port",
        "Port of health, metrics and server API. 0 = any free one.",
        number!(server.health_port: u16, "port", 0, 65535))),
    row("server.shards", "shards",
        "Shard threads. 0 = one for each core.",
        number!(server.shards: u16, "threads", 0, limits::SHARDS_MAX as u64)),
    row("server.driver", "driver",
        "I/O driver. auto tries io_uring and falls back to monoio (epoll); a named one is used or the start fails.",
        choice!(server.driver, "auto, uring or monoio", "auto",
            "auto" => DriverChoice::Auto, "uring" => DriverChoice::Uring, "monoio" => DriverChoice::Monoio)),
    row("server.pin", "pin",
        "Whether each shard thread is pinned to a core.",
        flag!(server.pin)),
    row("server.dev", "dev",
        "Dev mode: a token key made in memory if none is configured, demo page and echo. On by itself when neither \
         key nor host is set.",
        flag!(server.dev)),
    row("server.max_connections", "max-connections",
        "Connections of the node. 0 = the descriptor limit less 64.",
        number!(server.max_connections: u32, "connections", 0, 16_777_216)),
    known_as("GATEWAY_ID", row("server.gateway_id", "gateway-id",
        "Stable name of this gateway in its cluster. Unset: host name and port.",
        Kind::Text {
            expected: "1–128 of A–Z a–z 0–9 . _ : -",
            example: "gateway-1",
            secret: false,
            read: |config| config.server.gateway_id.clone(),
            write: |config, value| {
                config.server.gateway_id = Some(value.to_owned());
                (1..=128).contains(&value.len())
                    && value.bytes().all(|b| b.is_ascii_alphanumeric() || b"._:-".contains(&b))
            },
        })),
    row("server.origins", "origins",
        "Origins of web pages that may connect, beside the same host and localhost. * = any.",
        Kind::List {
            expected: "origins, each scheme://host or scheme://host:port without a path, or *",
            example: "https://app.example.com",
            secret: false,
            read: |config| config.server.origins.clone(),
            write: |config, values| {
                config.server.origins = values.to_vec();
                values.iter().all(|value| is_origin(value))
            },
        }),
    row("server.trusted_proxies", "trusted-proxies",
        "Proxies whose X-Forwarded-For or Forwarded names the client, for newcomers_max.",
        Kind::List {
            expected: "networks or addresses, e.g. 10.0.0.0/8",
            example: "10.0.0.0/8",
            secret: false,
            read: |config| config.server.trusted_proxies.iter().map(Cidr::to_string).collect(),
            write: |config, values| {
                let networks: Result<_, _> = values.iter().map(|value| value.parse()).collect();
                networks.map(|networks| config.server.trusted_proxies = networks).is_ok()
            },
        }),
    row("server.newcomers_max", "newcomers-max",
        "Connections of one client address and shard that have not authenticated; another gets 429. An IPv6 /64 counts \
         as one address.",
        number!(server.newcomers_max: u32, "connections", 1, 16_777_216)),
    row("server.rooms_calls_per_minute", "rooms-calls-per-minute",
        "Calls of POST /api/rooms and of its join that one client address and shard may make in a minute; another gets \
         429.",
        number!(server.rooms_calls_per_minute: u32, "calls", 1, 1_000_000)),
    known_as("DATA_DIR", row("server.data_dir", "data-dir",
        "Folder for what must survive the process: the bus's log, the services' records, sessions and room hubs. Unset: all is kept in memory and gone with the process.",
        text!(server.data_dir, "a path", "/var/lib/ringgate", secret: false))),

    known_as("JWT_PUBLIC_KEY_PATH", row("auth.jwt_public_key_path", "jwt-public-key-path",
        "PEM file of the public key that tokens are checked with; the key fixes the algorithm: RS256, ES256, EdDSA.",
        text!(auth.jwt_public_key_path, "a path", "/etc/ringgate/jwt.pem", secret: false))),
    known_as("JWT_JWKS", row("auth.jwt_jwks", "jwt-jwks",
        "JWK Set (RFC 7517) of the public keys that tokens are checked with, a file or a URL: a token's kid names its key. \
         It is read again by itself, so keys may change while the gateway runs.",
        Kind::Text {
            expected: "a path, or a URL https://HOST/PATH without a user in it",
            example: "https://login.example.com/.well-known/jwks.json",
            secret: false,
            read: |config| config.auth.jwt_jwks.clone(),
            write: |config, value| {
                config.auth.jwt_jwks = Some(value.to_owned());
                Source::of(value, None).is_some()
            },
        })),
    row("auth.jwt_jwks_interval_s", "jwt-jwks-interval-s",
        "How often the JWK Set is read again; a token with a new kid has it read at once, but not more than every 10 s.",
        duration!(auth.jwt_jwks_interval, "seconds", as_secs, from_secs, 1, 86_400)),
    row("auth.jwt_jwks_ca_path", "jwt-jwks-ca-path",
        "PEM file of the authority that has signed the certificate of the JWK Set's server. Unset: the system's.",
        text!(auth.jwt_jwks_ca_path, "a path", "/etc/ringgate/login-ca.pem", secret: false)),
    known_as("JWT_SECRET", row("auth.jwt_secret", "jwt-secret",
        "Secret of HS256 tokens, 32 bytes or more. Better set by environment than in a file or flag.",
        text!(auth.jwt_secret, "a secret text", "<32 random bytes or more>", secret: true))),
    row("auth.jwt_issuer", "jwt-issuer",
        "The iss claim that tokens must have. Unset: not checked.",
        text!(auth.jwt_issuer, "a text", "https://login.example.com", secret: false)),
    row("auth.jwt_audience", "jwt-audience",
        "The aud claim that tokens must have, alone or in a list. Unset: not checked.",
        text!(auth.jwt_audience, "a text", "ringgate", secret: false)),
    row("auth.room_token_key", "room-token-key",
        "Secret of the tokens of room hubs. Unset: one is made, kept in data_dir if that is set, else gone with the \
         process. It also seals rooms' passwords on their way to the bus: rooms made under another one cannot be \
         joined with theirs. Better set by environment than in a file or flag.",
        Kind::Text {
            expected: "a secret text of 32 bytes or more",
            example: "<what `openssl rand -hex 32` prints>",
            secret: true,
            read: |config| config.auth.room_token_key.clone(),
            write: |config, value| {
                config.auth.room_token_key = Some(value.to_owned());
                value.len() >= RoomKey::BYTES
            },
        }),

    known_as("API_KEY", row("admin.api_keys", "api-keys",
        "Keys that open the server API on the health port. Unset: it answers nobody; in dev mode a key is made.",
        Kind::List {
            expected: "keys of 16–256 visible ASCII characters without a comma",
            example: "<replace-by-32-random-bytes-in-hex>",
            secret: true,
            read: |config| config.admin.api_keys.clone(),
            write: |config, values| {
                config.admin.api_keys = values.to_vec();
                !values.is_empty() && values.iter().all(|key| is_api_key(key))
            },
        })),

    row("delivery.queue_frames", "queue-frames",
        "Reliable frames that may wait for a slow connection; beyond it the connection is closed 4408.",
        number!(delivery.queue_frames: usize, "frames", 1, 1_000_000)),
    row("delivery.queue_bytes", "queue-bytes",
        "Bytes, reliable and delta, that may wait for a slow connection; beyond it the connection is closed 4408.",
        number!(delivery.queue_bytes: usize, "bytes", 1024, GIB)),
    row("delivery.queue_age_ms", "queue-age-ms",
        "How long a reliable frame may wait for a slow connection; then the connection is closed 4408.",
        duration!(delivery.queue_age, 1, HOUR_MS)),
    row("delivery.delta_keys", "delta-keys",
        "Keys whose newest delta may wait for a slow connection.",
        number!(delivery.delta_keys: usize, "keys", 1, 1_000_000)),
    row("delivery.answer_frames", "answer-frames",
        "Answers that may wait for a connection before its reading pauses.",
        number!(delivery.answer_frames: usize, "frames", 1, 1_000_000)),
    row("delivery.answer_bytes", "answer-bytes",
        "Bytes of answers that may wait for a connection before its reading pauses.",
        number!(delivery.answer_bytes: usize, "bytes", 1024, GIB)),
    row("delivery.history_events", "history-events",
        "Reliable frames a stream's history keeps for those who resume.",
        number!(delivery.history_events: usize, "frames", 1, 10_000_000)),
    row("delivery.history_bytes", "history-bytes",
        "Bytes a stream's history keeps.",
        number!(delivery.history_bytes: usize, "bytes", 1024, 4 * GIB)),
    row("delivery.history_total_bytes", "history-total-bytes",
        "Bytes all histories of a shard keep together; beyond it the longest idle go first.",
        number!(delivery.history_total_bytes: usize, "bytes", 1024, 1024 * GIB)),
    row("delivery.resume_window_s", "resume-window-s",
        "How long a session outlives its connection.",
        duration!(delivery.resume_window, "seconds", as_secs, from_secs, 1, 86_400)),
    row("delivery.max_frame", "max-frame",
        "A client's longest message; above it the connection is closed 1009.",
        number!(delivery.max_frame: usize, "bytes", 128, 16 << 20)),
    row("delivery.rooms_max", "rooms-max",
        "Rooms a session may be in.",
        number!(delivery.rooms_max: usize, "rooms", 1, 1024)),
    row("delivery.moves_per_second", "moves-per-second",
        "JOINs and LEAVEs of a connection, together; beyond it they are answered rate_limited.",
        number!(delivery.moves_per_second: u32, "messages", 1, 1_000_000)),
    row("delivery.player_commands_per_second", "player-commands-per-second",
        "Commands of a connection to the publishers of its rooms; beyond it they are answered rate_limited.",
        number!(delivery.player_commands_per_second: u32, "messages", 1, 1_000_000)),

    row("timeouts.handshake_ms", "handshake-ms",
        "From accept to the end of the upgrade request.",
        duration!(timeouts.handshake, 10, HOUR_MS)),
    row("timeouts.authentication_ms", "authentication-ms",
        "From the upgrade to authentication; then the connection is closed 4401.",
        duration!(timeouts.authentication, 10, HOUR_MS)),
    row("timeouts.idle_ms", "idle-ms",
        "A connection without message, heartbeat or pong for this long is closed 4410.",
        duration!(timeouts.idle, 10, HOUR_MS)),
    row("timeouts.ping_ms", "ping-ms",
        "How often the server pings.",
        duration!(timeouts.ping, 5, HOUR_MS)),
    row("timeouts.close_ms", "close-ms",
        "From the server's close frame to the end of the socket, if the client does not close first.",
        duration!(timeouts.close, 1, HOUR_MS)),
    row("timeouts.drain_ms", "drain-ms",
        "From SIGTERM to the end of the process.",
        duration!(timeouts.drain, 1, HOUR_MS)),
    row("timeouts.pause_ms", "pause-ms",
        "How long a paused publisher waits before its command is refused or it is closed 1013.",
        duration!(timeouts.pause, 1, HOUR_MS)),

    known_as("KAFKA_HOST", row("kafka.host", "kafka-host",
        "Kafka for commands and events, shared by all gateways of a cluster. Several brokers: HOST or HOST:PORT, separated \
         by commas. Unset: the bus is in this process.",
        Kind::Text {
            expected: "host names or addresses, separated by commas, each with or without :port",
            example: "kafka.internal",
            secret: false,
            read: |config| config.kafka.host.clone(),
            write: |config, value| {
                config.kafka.host = Some(value.to_owned());
                value.split(',').all(is_broker)
            },
        })),
    known_as("KAFKA_PORT", row("kafka.port", "kafka-port",
        "Kafka's port, where the host names none.",
        number!(kafka.port: u16, "port", 1, 65535))),
    row("kafka.delivery_timeout_ms", "kafka-delivery-timeout-ms",
        "How long a command may wait until Kafka has accepted it; then it is answered unavailable.",
        duration!(kafka.delivery_timeout, 100, HOUR_MS)),
    row("kafka.connect_timeout_ms", "kafka-connect-timeout-ms",
        "How long a start waits until Kafka answers; then it fails.",
        duration!(kafka.connect_timeout, 100, HOUR_MS)),
    row("kafka.generation", "kafka-generation",
        "Numbers the life of the topics' contents. Another one tells every client that what it knows of places is over; \
         for a cluster that was restored from a copy.",
        number!(kafka.generation: u64, "generation", 0, i64::MAX as u64)),
    row("kafka.tls", "kafka-tls",
        "Whether Kafka is spoken to by TLS. Needs a ringgate built with the feature kafka-tls.",
        flag!(kafka.tls)),
    row("kafka.ca_path", "kafka-ca-path",
        "PEM file of the authorities that brokers' certificates may be signed by. Unset: the system's.",
        text!(kafka.ca_path, "a path", "/etc/ringgate/kafka-ca.pem", secret: false)),
    row("kafka.certificate_path", "kafka-certificate-path",
        "PEM file of this gateway's certificate, where Kafka asks for one.",
        text!(kafka.certificate_path, "a path", "/etc/ringgate/kafka.pem", secret: false)),
    row("kafka.key_path", "kafka-key-path",
        "PEM file of that certificate's key.",
        text!(kafka.key_path, "a path", "/etc/ringgate/kafka.key", secret: false)),
    row("kafka.sasl_mechanism", "kafka-sasl-mechanism",
        "How the user is authenticated. SCRAM needs a ringgate built with the feature kafka-tls.",
        choice!(kafka.sasl_mechanism, "PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512", "PLAIN",
            "PLAIN" => SaslMechanism::Plain, "SCRAM-SHA-256" => SaslMechanism::ScramSha256,
            "SCRAM-SHA-512" => SaslMechanism::ScramSha512)),
    row("kafka.username", "kafka-username",
        "SASL user. Unset: Kafka is spoken to without SASL.",
        text!(kafka.username, "a name", "ringgate", secret: false)),
    row("kafka.password", "kafka-password",
        "Password of that user. Better set by environment than in a file or flag.",
        text!(kafka.password, "a secret text", "<the password>", secret: true)),

    row("bus.retention_s", "bus-retention-s",
        "How long the log in data_dir keeps records; nothing that a service has not read is removed.",
        duration!(bus.retention, "seconds", as_secs, from_secs, 60, 31_536_000)),
    row("bus.retention_bytes", "bus-retention-bytes",
        "Bytes the log in data_dir keeps; a start reads them all once.",
        number!(bus.retention_bytes: u64, "bytes", 1 << 20, 1024 * GIB)),
    row("bus.segment_bytes", "bus-segment-bytes",
        "Bytes of a file of the log; whole files are removed.",
        number!(bus.segment_bytes: u32, "bytes", 64 << 10, GIB)),
    row("bus.writer", "bus-writer",
        "What writes the log. auto tries tokio-uring and falls back to a thread; tokio-uring is used or the start fails.",
        choice!(bus.writer, "auto, tokio-uring or thread", "auto",
            "auto" => WriterChoice::Auto, "tokio-uring" => WriterChoice::Uring, "thread" => WriterChoice::Thread)),

    known_as("REDIS_HOST", row("redis.host", "redis-host",
        "Redis for presence, sessions and rooms, shared by all gateways of a cluster. Unset: they are kept in this process.",
        text!(redis.host, "a host name or address", "redis.internal", secret: false))),
    known_as("REDIS_PORT", row("redis.port", "redis-port",
        "Redis's port.",
        number!(redis.port: u16, "port", 1, 65535))),
    row("redis.username", "redis-username",
        "User of Redis's ACL. Unset: the default one.",
        text!(redis.username, "a name", "ringgate", secret: false)),
    row("redis.password", "redis-password",
        "Password of that user. Better set by environment than in a file or flag.",
        text!(redis.password, "a secret text", "<the password>", secret: true)),
    row("redis.database", "redis-database",
        "Number of Redis's database.",
        number!(redis.database: u32, "number", 0, 65535)),
    row("redis.tls", "redis-tls",
        "Whether Redis is spoken to by TLS; its certificate must name redis.host.",
        flag!(redis.tls)),
    row("redis.ca_path", "redis-ca-path",
        "PEM file of the authorities that Redis's certificate may be signed by. Unset: the system's.",
        text!(redis.ca_path, "a path", "/etc/ringgate/redis-ca.pem", secret: false)),

    known_as("POSTGRES_URL", row("store.postgres_url", "postgres-url",
        "PostgreSQL in which workers (`ringgate worker`) keep the history of rooms and messages, in place of a file in \
         data_dir; sslmode=require asks for TLS and checks the certificate. Better set by environment than in a file or \
         flag.",
        Kind::Text {
            expected: "a URL or key words that name a host, with sslmode=disable, prefer or require if at all",
            example: "postgres://ringgate:<password>@postgres.internal/ringgate",
            secret: true,
            read: |config| config.store.postgres_url.clone(),
            write: |config, value| {
                config.store.postgres_url = Some(value.to_owned());
                config.store.settings().is_some()
            },
        })),
    row("store.postgres_ca_path", "postgres-ca-path",
        "PEM file of the authorities that PostgreSQL's certificate may be signed by; asks for TLS. Unset: the system's.",
        text!(store.postgres_ca_path, "a path", "/etc/ringgate/postgres-ca.pem", secret: false)),

    row("mesh.ring_slots", "mesh-ring-slots",
        "Messages of one ring between two shards.",
        number!(mesh.ring_slots: usize, "messages", 2, 1_048_576)),

    row("log.level", "log-level",
        "The least level that is logged.",
        choice!(log.level, "error, warn, info, debug or trace", "info",
            "error" => LogLevel::Error, "warn" => LogLevel::Warn, "info" => LogLevel::Info,
            "debug" => LogLevel::Debug, "trace" => LogLevel::Trace)),
    row("log.format", "log-format",
        "The form of a log line.",
        choice!(log.format, "text or json", "text", "text" => LogFormat::Text, "json" => LogFormat::Json)),
];
