//! How Redis is reached, and what is wrong when it is not.

use std::fmt;
use std::net::{TcpStream, ToSocketAddrs as _};

use redis::{
    Client, ConnectionAddr, ConnectionInfo, ErrorKind, IntoConnectionInfo as _, RedisConnectionInfo, RedisError,
    RedisResult,
};

use crate::limits;
use crate::ports::CheckError;

/// Where Redis is and how it lets one in. Its `Debug` form hides the password.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisSettings {
    /// Name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// User of an ACL; `None` = the default one.
    pub username: Option<String>,
    /// Password of the user.
    pub password: Option<String>,
    /// Database number.
    pub database: u32,
    /// Whether the connection is encrypted.
    pub tls: bool,
    /// PEM file of the authorities that may have signed the server's certificate; `None` = the system's.
    pub ca_path: Option<String>,
}

impl RedisSettings {
    /// The server without password and TLS.
    #[must_use]
    pub fn new(host: &str, port: u16) -> Self {
        let (username, password, ca_path) = (None, None, None);
        Self { host: host.to_owned(), port, username, password, database: 0, tls: false, ca_path }
    }

    /// Connects once and looks whether this server will do; its version.
    ///
    /// # Errors
    /// One line with the server, what is wrong and the remedy.
    pub fn check(&self) -> Result<String, CheckError> {
        let unreachable = |error: &RedisError| CheckError { text: self.explain(error), refused: !is_away(error) };
        let mut connection = self.connect().map_err(|error| unreachable(&error))?;
        let info: String = redis::cmd("INFO").query(&mut connection).map_err(|error| unreachable(&error))?;
        let field = |name: &str| {
            let value = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            value.unwrap_or_default().trim().to_owned()
        };
        let refuse = |what: String| CheckError { text: format!("redis {}: {what}", self.place()), refused: true };
        let version = field("redis_version");
        let major = version.split('.').next().and_then(|major| major.parse::<u32>().ok()).unwrap_or(0);
        if major < VERSION {
            return Err(refuse(format!("version {version} is too old; ringgate needs Redis {VERSION} or newer")));
        }
        if field("cluster_enabled") == "1" {
            let text = "it is a Redis Cluster, over which presence's scripts cannot be spread; give a single server \
                        (with replicas, if it must not fail)";
            return Err(refuse(text.to_owned()));
        }
        if field("role") != "master" {
            return Err(refuse("it is a replica, which cannot be written; give the master".to_owned()));
        }
        if !matches!(field("maxmemory_policy").as_str(), "noeviction" | "") {
            let policy = field("maxmemory_policy");
            tracing::warn!(
                policy,
                "redis may evict presence's keys when its memory is full; set maxmemory-policy noeviction"
            );
        }
        Ok(version)
    }

    /// Other gateways that have a lease.
    ///
    /// # Errors
    /// As [`RedisSettings::check`].
    pub fn other_gateways(&self, gateway_id: &str) -> Result<Vec<String>, CheckError> {
        let fault = |error: RedisError| CheckError { text: self.explain(&error), refused: !is_away(&error) };
        let mut connection = self.connect().map_err(fault)?;
        let (mut cursor, mut found) = (0u64, Vec::new());
        loop {
            let mut scan = redis::cmd("SCAN");
            scan.arg(cursor).arg("MATCH").arg("gateway:*").arg("COUNT").arg(1000).arg("TYPE").arg("string");
            let (next, keys): (u64, Vec<String>) = scan.query(&mut connection).map_err(fault)?;
            let others = keys.iter().filter_map(|key| key.strip_prefix("gateway:")).filter(|id| *id != gateway_id);
            found.extend(others.map(str::to_owned));
            cursor = next;
            if cursor == 0 {
                return Ok(found);
            }
        }
    }

    /// A connection, with time-outs.
    pub(super) fn connect(&self) -> RedisResult<redis::Connection> {
        let connection = self.client()?.get_connection_with_timeout(limits::REDIS_TIMEOUT)?;
        connection.set_read_timeout(Some(limits::REDIS_TIMEOUT))?;
        connection.set_write_timeout(Some(limits::REDIS_TIMEOUT))?;
        Ok(connection)
    }

    /// One line: the server, what is wrong, the remedy.
    pub(super) fn explain(&self, error: &RedisError) -> String {
        let remedy = if error.kind() == ErrorKind::AuthenticationFailed || is_denied(error) {
            "set redis.password (RINGGATE_REDIS_PASSWORD) and redis.username to what this server expects"
        } else if error.is_io_error() && self.tls {
            "is Redis running there, by TLS, with a certificate for this name that redis.ca_path has signed?"
        } else if error.is_io_error() {
            "is Redis running there? Set REDIS_HOST and REDIS_PORT; if it speaks TLS only, redis.tls = true"
        } else {
            "see Redis's log"
        };
        format!("redis {}: {error}; {remedy}", self.place())
    }

    fn place(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    fn client(&self) -> RedisResult<Client> {
        let mut redis = RedisConnectionInfo::default().set_db(i64::from(self.database));
        if let Some(username) = &self.username {
            redis = redis.set_username(username);
        }
        if let Some(password) = &self.password {
            redis = redis.set_password(password);
        }
        // A name is looked up here for TCP: the crate would try its first address alone.
        let host = self.host.clone();
        if self.tls {
            return self.tls_client(redis);
        }
        let host = self.reachable().unwrap_or(host);
        let info: ConnectionInfo = ConnectionAddr::Tcp(host, self.port).into_connection_info()?;
        Client::open(info.set_redis_settings(redis))
    }

    /// The first of the name's addresses that takes a connection.
    fn reachable(&self) -> Option<String> {
        let addresses: Vec<_> = (self.host.as_str(), self.port).to_socket_addrs().ok()?.collect();
        let [_, _, ..] = addresses[..] else { return None };
        let open = |address: &&std::net::SocketAddr| TcpStream::connect_timeout(address, limits::REDIS_TIMEOUT).is_ok();
        addresses.iter().find(open).map(|address| address.ip().to_string())
    }

    #[cfg(feature = "redis-tls")]
    fn tls_client(&self, redis: RedisConnectionInfo) -> RedisResult<Client> {
        // Whoever set one first keeps it; any will do.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let root_cert = match &self.ca_path {
            Some(path) => Some(std::fs::read(path).map_err(RedisError::from)?),
            None => None,
        };
        let address =
            ConnectionAddr::TcpTls { host: self.host.clone(), port: self.port, insecure: false, tls_params: None };
        let info = address.into_connection_info()?.set_redis_settings(redis);
        Client::build_with_tls(info, redis::TlsCertificates { client_tls: None, root_cert })
    }

    #[cfg(not(feature = "redis-tls"))]
    fn tls_client(&self, _redis: RedisConnectionInfo) -> RedisResult<Client> {
        let text = "this ringgate was built without TLS for Redis; build it with --features redis-tls, or set redis.tls = false";
        Err(RedisError::from((ErrorKind::InvalidClientConfig, text)))
    }
}

impl fmt::Debug for RedisSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisSettings")
            .field("host", &self.host)
            .field("port", &self.port)
            .field("username", &self.username)
            .field("database", &self.database)
            .field("tls", &self.tls)
            .finish_non_exhaustive()
    }
}

/// Whether the server may be there later.
fn is_away(error: &RedisError) -> bool {
    error.is_io_error() || error.is_timeout() || error.is_connection_refusal() || error.code() == Some("LOADING")
}

fn is_denied(error: &RedisError) -> bool {
    matches!(error.code(), Some("NOAUTH" | "WRONGPASS" | "NOPERM"))
}

/// For `PEXPIRE … GT`.
const VERSION: u32 = 7;
