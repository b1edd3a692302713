//! The configuration: one table of keys ([`Key`]) drives the TOML file, environment names, flags, `config default`
//! and what the manual prints. Precedence: flag, environment, file, default.
//!
//! The type table ([`Half`]: `[[command]]`, `[[event]]`) stands in the file only.
//!
//! [`load()`] is text → [`Config`], a plain struct in bounds; it opens no socket and reads no file but the arguments'.
//! Every error names place, key, value and remedy. Secret values are never printed.

mod check;
mod file;
mod keys;
mod load;
mod print;
mod rows;
mod table;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use crate::auth::{Cidr, KeyError, KeySet, Verifier};
use crate::bus::WriterChoice;
use crate::keys::Source;
use crate::limits;
use crate::presence::RedisSettings;
use crate::protocol::routes::Routes;
use crate::store::PostgresSettings;

pub use keys::{KEYS, Key, Kind};
pub use load::{Loaded, Origin, Sources, load};
pub use print::{default_file, differing, explain, explain_set};
pub use table::Half;

/// All settings, in bounds and consistent once [`load()`] returned them.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Config {
    /// Listeners and threads.
    pub server: Server,
    /// Keys that tokens are checked with.
    pub auth: Auth,
    /// The server API.
    pub admin: Admin,
    /// Bounds of queues, histories and sessions.
    pub delivery: Delivery,
    /// How long things may take.
    pub timeouts: Timeouts,
    /// The bus on Kafka.
    pub kafka: Kafka,
    /// The bus on disk.
    pub bus: Bus,
    /// Redis, for presence.
    pub redis: Redis,
    /// PostgreSQL, for workers' history.
    pub store: Store,
    /// Between shards.
    pub mesh: Mesh,
    /// What is logged.
    pub log: Log,
    /// The type table: the built-in one with the file's rows.
    pub routes: Arc<Routes>,
}

/// Listeners and threads.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Server {
    /// Address clients connect to; `None` until [`load()`] has chosen by dev mode.
    pub host: Option<IpAddr>,
    /// Port clients connect to; 0 = any free one.
    pub port: u16,
    /// Address of the health and server API listener.
    pub health_host: IpAddr,
    /// Port of the health and server API listener; 0 = any free one.
    pub health_port: u16,
    /// Shard threads; 0 = one for each core.
    pub shards: u16,
    /// The I/O driver.
    pub driver: DriverChoice,
    /// Whether shard threads are pinned to cores.
    pub pin: bool,
    /// Dev mode: a key made in memory, demo page and echo.
    pub dev: bool,
    /// Connections of the node; 0 = the descriptor limit less `limits::RESERVED_DESCRIPTORS`.
    pub max_connections: u32,
    /// The configured name; see [`Server::gateway_id`].
    pub gateway_id: Option<String>,
    /// Origins allowed beside the same host and localhost.
    pub origins: Vec<String>,
    /// Proxies whose word on the client's address is believed.
    pub trusted_proxies: Vec<Cidr>,
    /// Connections of one address and shard that have not authenticated.
    pub newcomers_max: u32,
    /// Calls of the rooms API that one address and shard may make in a minute.
    pub rooms_calls_per_minute: u32,
    /// Where the bus's log lies; without it the bus is in memory.
    pub data_dir: Option<String>,
}

/// Which I/O driver to use (DESIGN §6).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "the names are the drivers'")]
pub enum DriverChoice {
    Auto,
    Uring,
    Monoio,
}

/// Keys that tokens are checked with. At most one of key, set and secret is given; without one, dev mode is on. `Debug`
/// hides the secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Auth {
    /// PEM file of an RSA, P-256 or Ed25519 public key.
    pub jwt_public_key_path: Option<String>,
    /// File or URL of a JWK Set.
    pub jwt_jwks: Option<String>,
    /// How often it is read again, at least.
    pub jwt_jwks_interval: Duration,
    /// PEM file of the authority that has signed its server's certificate; the system's without it.
    pub jwt_jwks_ca_path: Option<String>,
    /// HS256 secret.
    pub jwt_secret: Option<String>,
    /// Required `iss`.
    pub jwt_issuer: Option<String>,
    /// Required `aud`.
    pub jwt_audience: Option<String>,
    /// Secret of room tokens; without it one is made.
    pub room_token_key: Option<String>,
}

/// The server API. `Debug` hides the keys.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Admin {
    /// Keys that open it; without one it answers nobody, in dev mode one is made.
    pub api_keys: Vec<String>,
}

/// Bounds of queues, histories and sessions.
#[derive(Clone, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "the key table documents each")]
pub struct Delivery {
    pub queue_frames: usize,
    pub queue_bytes: usize,
    pub queue_age: Duration,
    pub delta_keys: usize,
    pub answer_frames: usize,
    pub answer_bytes: usize,
    pub history_events: usize,
    pub history_bytes: usize,
    pub history_total_bytes: usize,
    pub resume_window: Duration,
    pub max_frame: usize,
    pub rooms_max: usize,
    pub moves_per_second: u32,
    pub player_commands_per_second: u32,
}

/// How long things may take.
#[derive(Clone, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "the key table documents each")]
pub struct Timeouts {
    pub handshake: Duration,
    pub authentication: Duration,
    pub idle: Duration,
    pub ping: Duration,
    pub close: Duration,
    pub drain: Duration,
    pub pause: Duration,
}

/// The bus on Kafka; unused without a host. `Debug` hides the password.
#[derive(Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the key table documents each")]
pub struct Kafka {
    pub host: Option<String>,
    pub port: u16,
    pub delivery_timeout: Duration,
    pub connect_timeout: Duration,
    pub generation: u64,
    pub tls: bool,
    pub ca_path: Option<String>,
    pub certificate_path: Option<String>,
    pub key_path: Option<String>,
    pub sasl_mechanism: SaslMechanism,
    pub username: Option<String>,
    pub password: Option<String>,
}

/// How Kafka authenticates a user.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "the names are the mechanisms'")]
pub enum SaslMechanism {
    Plain,
    ScramSha256,
    ScramSha512,
}

/// The bus on disk.
#[derive(Clone, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "the key table documents each")]
pub struct Bus {
    pub retention: Duration,
    pub retention_bytes: u64,
    pub segment_bytes: u32,
    pub writer: WriterChoice,
}

/// Redis, for presence; used when its host is set. `Debug` hides the password.
#[derive(Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the key table documents each")]
pub struct Redis {
    pub host: Option<String>,
    pub port: u16,
    pub username: Option<String>,
    pub password: Option<String>,
    pub database: u32,
    pub tls: bool,
    pub ca_path: Option<String>,
}

/// PostgreSQL, for workers' history; used when its URL is set. `Debug` hides the URL, which has a password.
#[derive(Clone, PartialEq, Eq, Default)]
#[expect(missing_docs, reason = "the key table documents each")]
pub struct Store {
    pub postgres_url: Option<String>,
    pub postgres_ca_path: Option<String>,
}

/// Between shards.
#[derive(Clone, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "the key table documents each")]
pub struct Mesh {
    pub ring_slots: usize,
}

/// What is logged.
#[derive(Clone, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "the key table documents each")]
pub struct Log {
    pub level: LogLevel,
    pub format: LogFormat,
}

/// The least level that is logged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "the names say it")]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

/// The form of a log line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "the names say it")]
pub enum LogFormat {
    Text,
    Json,
}

impl Server {
    /// The gateway's stable name: the configured one, else host name and port.
    #[must_use]
    pub fn gateway_id(&self, host_name: &str) -> String {
        self.gateway_id.clone().unwrap_or_else(|| format!("{host_name}:{}", self.port))
    }

    /// Where clients connect: the configured address, else loopback, which exposes nothing.
    #[must_use]
    pub fn host(&self) -> IpAddr {
        self.host.unwrap_or(LOOPBACK)
    }
}

impl Redis {
    /// How presence reaches it; `None` if it is not used.
    #[must_use]
    pub fn settings(&self) -> Option<RedisSettings> {
        let Self { host, port, username, password, database, tls, ca_path } = self.clone();
        Some(RedisSettings { host: host?, port, username, password, database, tls, ca_path })
    }
}

impl Store {
    /// How a worker's history is kept in PostgreSQL; `None` if it is not.
    #[must_use]
    pub fn settings(&self) -> Option<PostgresSettings> {
        let url = self.postgres_url.as_deref()?;
        PostgresSettings::parse(url, self.postgres_ca_path.as_deref(), limits::MESSAGES_ON_DISK)
    }
}

impl Auth {
    /// The configured key's verifier; `None` if none is configured (dev mode makes one), or a set ([`Self::key_source`]).
    ///
    /// # Errors
    /// One line with key, value and remedy.
    pub fn verifier(&self) -> Result<Option<Verifier>, String> {
        let verifier = if let Some(path) = &self.jwt_public_key_path {
            let pem = std::fs::read(path).map_err(|error| {
                format!("auth.jwt_public_key_path = {path:?}: {error}; give the path of a readable PEM file")
            })?;
            Verifier::from_public_pem(&pem).map_err(|error| format!("auth.jwt_public_key_path = {path:?}: {error}"))?
        } else if let Some(secret) = &self.jwt_secret {
            Verifier::from_secret(secret.as_bytes()).map_err(|error: KeyError| format!("auth.jwt_secret: {error}"))?
        } else {
            return Ok(None);
        };
        Ok(Some(verifier.requiring(self.jwt_issuer.as_deref(), self.jwt_audience.as_deref())))
    }

    /// Where the set of keys is, if one is configured.
    #[must_use]
    pub fn key_source(&self) -> Option<Source> {
        let source = |text: &String| Source::of(text, self.jwt_jwks_ca_path.as_deref());
        self.jwt_jwks.as_ref().map(|text| source(text).expect("the key table has checked it"))
    }

    /// A set's verifier.
    #[must_use]
    pub fn verifier_of(&self, set: KeySet) -> Verifier {
        Verifier::from_set(set).requiring(self.jwt_issuer.as_deref(), self.jwt_audience.as_deref())
    }

    /// Whether a key or set is configured.
    #[must_use]
    pub fn has_key(&self) -> bool {
        self.jwt_public_key_path.is_some() || self.jwt_secret.is_some() || self.jwt_jwks.is_some()
    }
}

impl Default for Auth {
    fn default() -> Self {
        Self {
            jwt_public_key_path: None,
            jwt_jwks: None,
            jwt_jwks_interval: limits::KEY_SET_INTERVAL,
            jwt_jwks_ca_path: None,
            jwt_secret: None,
            jwt_issuer: None,
            jwt_audience: None,
            room_token_key: None,
        }
    }
}

impl std::fmt::Debug for Auth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Auth")
            .field("jwt_public_key_path", &self.jwt_public_key_path)
            .field("jwt_jwks", &self.jwt_jwks)
            .field("jwt_jwks_interval", &self.jwt_jwks_interval)
            .field("jwt_jwks_ca_path", &self.jwt_jwks_ca_path)
            .field("jwt_secret", &self.jwt_secret.as_ref().map(|_| print::REDACTED))
            .field("jwt_issuer", &self.jwt_issuer)
            .field("jwt_audience", &self.jwt_audience)
            .field("room_token_key", &self.room_token_key.as_ref().map(|_| print::REDACTED))
            .finish()
    }
}

impl std::fmt::Debug for Admin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let keys: Vec<_> = self.api_keys.iter().map(|_| print::REDACTED).collect();
        f.debug_struct("Admin").field("api_keys", &keys).finish()
    }
}

impl std::fmt::Debug for Redis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Redis")
            .field("host", &self.host)
            .field("port", &self.port)
            .field("username", &self.username)
            .field("password", &self.password.as_ref().map(|_| print::REDACTED))
            .field("database", &self.database)
            .field("tls", &self.tls)
            .field("ca_path", &self.ca_path)
            .finish()
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store")
            .field("postgres_url", &self.postgres_url.as_ref().map(|_| print::REDACTED))
            .field("postgres_ca_path", &self.postgres_ca_path)
            .finish()
    }
}

impl Default for Server {
    fn default() -> Self {
        Self {
            host: None,
            port: 9998,
            health_host: LOOPBACK,
            health_port: 9997,
            shards: 0,
            driver: DriverChoice::Auto,
            pin: true,
            dev: false,
            max_connections: 0,
            gateway_id: None,
            origins: Vec::new(),
            trusted_proxies: Vec::new(),
            newcomers_max: limits::NEWCOMERS,
            rooms_calls_per_minute: limits::ROOMS_CALLS_PER_MINUTE,
            data_dir: None,
        }
    }
}

impl Default for Delivery {
    fn default() -> Self {
        Self {
            queue_frames: limits::QUEUE_FRAMES,
            queue_bytes: limits::QUEUE_BYTES,
            queue_age: limits::QUEUE_AGE,
            delta_keys: limits::DELTA_KEYS,
            answer_frames: limits::ANSWER_FRAMES,
            answer_bytes: limits::ANSWER_BYTES,
            history_events: limits::HISTORY_EVENTS,
            history_bytes: limits::HISTORY_BYTES,
            history_total_bytes: limits::HISTORY_TOTAL_BYTES,
            resume_window: limits::RESUME_WINDOW,
            max_frame: limits::MAX_FRAME,
            rooms_max: limits::ROOMS_MAX,
            moves_per_second: limits::MOVES_PER_SECOND,
            player_commands_per_second: limits::PLAYER_COMMANDS_PER_SECOND,
        }
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            handshake: limits::HANDSHAKE_TIMEOUT,
            authentication: limits::AUTHENTICATION_TIMEOUT,
            idle: limits::IDLE_TIMEOUT,
            ping: limits::PING_INTERVAL,
            close: limits::CLOSE_TIMEOUT,
            drain: limits::DRAIN_TIMEOUT,
            pause: limits::PAUSE_TIMEOUT,
        }
    }
}

impl Kafka {
    /// Brokers as `HOST:PORT`, separated by commas; `None` without a host.
    #[must_use]
    pub fn brokers(&self) -> Option<String> {
        let with_port = |broker: &str| match broker.trim() {
            broker if broker.ends_with(']') || !broker.contains(':') => format!("{broker}:{}", self.port),
            broker => broker.to_owned(),
        };
        self.host.as_ref().map(|host| host.split(',').map(with_port).collect::<Vec<_>>().join(","))
    }
}

impl SaslMechanism {
    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha512 => "SCRAM-SHA-512",
        }
    }
}

impl std::fmt::Debug for Kafka {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kafka").field("brokers", &self.brokers()).field("tls", &self.tls).finish_non_exhaustive()
    }
}

impl Default for Kafka {
    fn default() -> Self {
        Self {
            host: None,
            port: 9092,
            delivery_timeout: limits::KAFKA_DELIVERY_TIMEOUT,
            connect_timeout: limits::KAFKA_CONNECT_TIMEOUT,
            generation: 0,
            tls: false,
            ca_path: None,
            certificate_path: None,
            key_path: None,
            sasl_mechanism: SaslMechanism::Plain,
            username: None,
            password: None,
        }
    }
}

impl Default for Bus {
    fn default() -> Self {
        Self {
            retention: limits::LOG_RETENTION,
            retention_bytes: limits::LOG_RETENTION_BYTES,
            segment_bytes: limits::LOG_SEGMENT_BYTES,
            writer: WriterChoice::Auto,
        }
    }
}

impl Default for Redis {
    fn default() -> Self {
        Self { host: None, port: 6379, username: None, password: None, database: 0, tls: false, ca_path: None }
    }
}

impl Default for Mesh {
    fn default() -> Self {
        Self { ring_slots: limits::RING_SLOTS }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { level: LogLevel::Info, format: LogFormat::Text }
    }
}

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

#[cfg(test)]
mod table_tests;
#[cfg(test)]
mod tests;
