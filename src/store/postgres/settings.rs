//! How PostgreSQL is reached, and what is wrong when it is not.

use std::error::Error as _;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use tokio::runtime::Builder;
use tokio::time::timeout;
use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Config, Error};

use super::{Wire, prepare};
use crate::limits;
use crate::ports::CheckError;

/// Where PostgreSQL is and how much is kept there. Its `Debug` form hides the password.
#[derive(Clone, PartialEq, Eq)]
pub struct PostgresSettings {
    pub(super) config: Config,
    pub(super) ca_path: Option<String>,
    pub(super) messages_max: u64,
}

impl PostgresSettings {
    /// Reads a URL (`postgres://user:password@host/database`) or key words (`host=… dbname=…`); with `ca_path`, a PEM file
    /// of the authorities that may have signed the server's certificate, TLS is asked for. `messages_max` is the number of
    /// chat messages kept, all conversations together; beyond it the oldest go.
    #[must_use]
    pub fn parse(url: &str, ca_path: Option<&str>, messages_max: u64) -> Option<Self> {
        let mut config: Config = url.parse().ok().filter(|config: &Config| !config.get_hosts().is_empty())?;
        // One that cannot be written is another's, of several the next one's.
        config.target_session_attrs(TargetSessionAttrs::ReadWrite);
        config.tcp_user_timeout(limits::POSTGRES_TIMEOUT).keepalives_idle(limits::POSTGRES_KEEPALIVE);
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(limits::POSTGRES_SILENCE);
        }
        if config.get_application_name().is_none() {
            config.application_name("ringgate");
        }
        if ca_path.is_some() {
            config.ssl_mode(SslMode::Require);
        }
        Some(Self { config, ca_path: ca_path.map(str::to_owned), messages_max })
    }

    /// Connects once and tries all that a worker does there, without leaving anything; in words what is there.
    ///
    /// # Errors
    /// One line with the server, what is wrong and the remedy.
    pub fn check(&self) -> Result<String, CheckError> {
        let failed =
            |fault: Fault| CheckError { text: format!("{}: {}", self.place(), fault.text), refused: fault.refused };
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| failed(Fault::refuse(format!("runtime: {error}"))))?;
        let work = async {
            let wire = Wire::reach(self).await?;
            let (_, missing) = prepare(&wire.client, limits::POSTGRES_TIMEOUT, None).await?;
            let tables = if missing { "the first worker will make its tables" } else { "its tables are there" };
            Ok(format!("{}: reached, version {}, {tables}", self.place(), wire.version))
        };
        let outcome = runtime.block_on(async { timeout(limits::POSTGRES_TIMEOUT, work).await });
        runtime.shutdown_background();
        outcome.unwrap_or_else(|_| Err(Fault::silence(limits::POSTGRES_TIMEOUT))).map_err(failed)
    }

    /// In words, without the password.
    pub(super) fn place(&self) -> String {
        let host = |host: &Host| match host {
            Host::Tcp(name) => name.clone(),
            Host::Unix(path) => path.display().to_string(),
        };
        let ports = self.config.get_ports();
        let port = |at: usize| ports.get(at).or(ports.first()).copied().unwrap_or(5432);
        let hosts = self.config.get_hosts().iter().enumerate().map(|(at, name)| format!("{}:{}", host(name), port(at)));
        let database = self.config.get_dbname().or(self.config.get_user()).unwrap_or("of its user");
        format!("PostgreSQL at {}, database {database}", hosts.collect::<Vec<_>>().join(","))
    }

    /// Whether whoever is on the way there may read what is said: another machine, without TLS.
    #[must_use]
    pub fn is_open_to_all(&self) -> bool {
        let is_far = |host: &Host| match host {
            Host::Tcp(name) => {
                let is_here = |address: IpAddr| address.is_loopback();
                !name.eq_ignore_ascii_case("localhost") && !name.parse().is_ok_and(is_here)
            }
            Host::Unix(_) => false,
        };
        !self.wants_tls() && self.config.get_hosts().iter().any(is_far)
    }

    pub(super) fn wants_tls(&self) -> bool {
        self.config.get_ssl_mode() == SslMode::Require
    }
}

impl fmt::Debug for PostgresSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PostgresSettings").field(&self.place()).finish()
    }
}

/// Why something was not done.
#[derive(Debug)]
pub struct Fault {
    /// With the remedy.
    pub text: String,
    /// Waiting does not mend it.
    pub refused: bool,
    /// The connection had ended.
    pub gone: bool,
    /// More time may do.
    pub slow: bool,
    /// Another writes.
    pub lost: bool,
}

impl Fault {
    pub fn refuse(text: String) -> Self {
        Self { text, refused: true, gone: false, slow: false, lost: false }
    }

    pub fn silence(patience: Duration) -> Self {
        let text = format!(
            "it did not answer within {} s; is it overloaded, or the network between broken?",
            patience.as_secs()
        );
        Self { text, refused: false, gone: false, slow: true, lost: false }
    }

    pub fn taken_over(ours: i64, present: Option<i64>) -> Self {
        let present = present.map_or("none".to_owned(), |term| term.to_string());
        let text = format!(
            "another worker writes there now (term {present}, this one's was {ours}); workers of another cluster need a \
             database of their own"
        );
        Self { text, refused: false, gone: false, slow: false, lost: true }
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        let Some(told) = error.as_db_error() else { return without_word(&error) };
        let code = told.code();
        let row = REMEDIES.iter().find(|(known, ..)| known == code);
        let (refused, remedy) = row.map_or((false, "see PostgreSQL's log"), |(_, refused, remedy)| (*refused, *remedy));
        let text = format!("{} ({}); {remedy}", told.message(), code.code());
        Self { text, refused, gone: ENDED.contains(code), slow: *code == SqlState::QUERY_CANCELED, lost: false }
    }
}

/// An error that is not the server's word. Its parts are said once each.
fn without_word(error: &Error) -> Fault {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(part) = source {
        let said = part.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        source = part.source();
    }
    let by = |words: &str| text.starts_with(words);
    let (refused, remedy) = if by("error performing TLS") {
        (true, "is it set up for TLS, with a certificate for this name that store.postgres_ca_path has signed?")
    } else if by("invalid configuration") || by("authentication error") {
        (true, "set user and password in POSTGRES_URL to what this server expects")
    } else if by("error serializing") || by("error deserializing") || by("query returned") {
        (true, FOREIGN)
    } else if text.contains("does not allow writes") {
        (false, "it is a copy of another: name that one in POSTGRES_URL, or all of them with commas between")
    } else {
        (false, "is PostgreSQL running there, as POSTGRES_URL says?")
    };
    let gone = error.is_closed() || by("error communicating");
    Fault { text: format!("{text}; {remedy}"), refused, gone, slow: false, lost: false }
}

const FOREIGN: &str = "its tables are not ringgate's: give ringgate a database of its own in POSTGRES_URL, or a schema (options=-csearch_path%3Dname)";
/// What a binary without TLS says.
#[cfg(not(feature = "postgres-tls"))]
pub const NO_TLS: &str = "this ringgate was built without TLS for PostgreSQL; build it with --features postgres-tls, or set \
                          sslmode=disable in POSTGRES_URL and no store.postgres_ca_path";
/// What the server says, whether waiting does not mend it, and what does.
const REMEDIES: [(SqlState, bool, &str); 15] = [
    (SqlState::INVALID_PASSWORD, true, "set user and password in POSTGRES_URL to what this server expects"),
    (
        SqlState::INVALID_AUTHORIZATION_SPECIFICATION,
        true,
        "make the user, or let it in by pg_hba.conf; if that asks for TLS, add sslmode=require to POSTGRES_URL",
    ),
    (SqlState::INVALID_CATALOG_NAME, true, "make it with createdb, or name another in POSTGRES_URL"),
    (
        SqlState::INSUFFICIENT_PRIVILEGE,
        true,
        "let the user of POSTGRES_URL make tables (GRANT CREATE ON SCHEMA public), and write those that are there",
    ),
    (SqlState::INVALID_SCHEMA_NAME, true, "make the schema that search_path names"),
    (SqlState::UNDEFINED_COLUMN, true, FOREIGN),
    (SqlState::UNDEFINED_TABLE, true, FOREIGN),
    (SqlState::DATATYPE_MISMATCH, true, FOREIGN),
    (SqlState::INVALID_COLUMN_REFERENCE, true, FOREIGN),
    (SqlState::NOT_NULL_VIOLATION, true, FOREIGN),
    (SqlState::WRONG_OBJECT_TYPE, true, FOREIGN),
    (
        SqlState::QUERY_CANCELED,
        false,
        "who holds a lock there, or keeps it busy? It gets more time when it is tried again",
    ),
    (SqlState::DISK_FULL, false, "free space on its file system"),
    (SqlState::TOO_MANY_CONNECTIONS, false, "raise its max_connections, or end some"),
    (SqlState::CANNOT_CONNECT_NOW, false, "it starts or stops; it is tried again"),
];
/// What the server says when it ends a connection, or is none any more that can be written.
const ENDED: [SqlState; 5] = [
    SqlState::ADMIN_SHUTDOWN,
    SqlState::CRASH_SHUTDOWN,
    SqlState::CANNOT_CONNECT_NOW,
    SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT,
    SqlState::READ_ONLY_SQL_TRANSACTION,
];
