//! The store in PostgreSQL: the tables of [`super::SqliteStore`], for workers of several machines.
//!
//! Laws: a batch is one transaction; a message id is stored once, and any other write that comes again leaves what it left
//! before, so that a batch whose end nobody knows is done again whole. One handle writes: [`PostgresStore::open`] takes the
//! next term (`ringgate_writer`), every transaction locks that row first and is refused if the term is not its own. So a
//! worker that was frozen brings nothing back, and of two connections of one handle the later waits for the end of what
//! the earlier had begun. A call ends within [`limits::POSTGRES_TIMEOUT`] (the next one may take longer, for some batches
//! do), and a transaction whose owner is frozen keeps its locks for no longer than [`limits::POSTGRES_SILENCE`]; behind an
//! error the connection is given up, and the next call makes another. Neither the password nor what players said is ever
//! printed.

mod calls;
mod settings;
#[cfg(feature = "postgres-tls")]
mod tls;

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Error, NoTls, Socket};

use crate::limits;
use crate::ports::{ChatMessage, Store, StoreError, Write};
use calls::{Call, MISSING, Statements, TABLES, TAKE, text};
use settings::Fault;
pub use settings::PostgresSettings;

/// A handle, one of many on the database, of which one writes. See the module.
#[derive(Debug)]
pub struct PostgresStore {
    session: Session,
    /// `None` only while it is dropped.
    runtime: Option<Runtime>,
}

impl PostgresStore {
    /// Takes the database over and makes the tables that are missing. One that cannot be reached is taken over by the first
    /// write that reaches it.
    ///
    /// # Errors
    /// What waiting does not mend: a password, a database, a permission, tables of somebody else's.
    pub fn open(settings: &PostgresSettings) -> Result<Self, StoreError> {
        let mut store = Self::closed(settings)?;
        match store.run(async |session| session.linked().await.map(drop)) {
            Err(fault) if fault.refused => Err(store.session.error(fault)),
            Err(fault) => {
                tracing::warn!(error = %store.session.error(fault), "the history waits for its database");
                Ok(store)
            }
            Ok(()) => Ok(store),
        }
    }

    /// Without a connection.
    pub(super) fn closed(settings: &PostgresSettings) -> Result<Self, StoreError> {
        let patience = limits::POSTGRES_TIMEOUT;
        let session = Session { settings: settings.clone(), link: None, term: None, patience };
        let runtime = Builder::new_current_thread().enable_all().build();
        let failed = |error| StoreError { place: settings.place(), cause: format!("runtime: {error}"), lost: false };
        Ok(Self { session, runtime: Some(runtime.map_err(failed)?) })
    }

    /// Does some work within the time it may take; again, if the connection had ended while nobody looked.
    fn run<T>(&mut self, work: impl AsyncFn(&mut Session) -> Result<T, Fault>) -> Result<T, Fault> {
        let Self { session, runtime } = self;
        let runtime = runtime.as_ref().expect("there until it is dropped");
        let patience = session.patience;
        let outcome = runtime.block_on(async { timeout(patience, session.attempt(work)).await });
        let outcome = outcome.unwrap_or_else(|_| Err(Fault::silence(patience)));
        session.patience = match &outcome {
            Err(fault) if fault.slow => (patience * 2).min(limits::POSTGRES_TIMEOUT_MAX),
            Err(_) => patience,
            Ok(_) => limits::POSTGRES_TIMEOUT,
        };
        if outcome.is_err() {
            session.link = None;
        }
        outcome
    }
}

impl Store for PostgresStore {
    fn load(&mut self, service: &str) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        let outcome = self.run(async |session| {
            let link = session.linked().await?;
            let rows = link.wire.client.query(&link.statements.load, &[&service]).await?;
            Ok(rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect::<Result<_, Error>>()?)
        });
        outcome.map_err(|fault| self.session.error(fault))
    }

    fn write(&mut self, batch: &[Write]) -> Result<(), StoreError> {
        let outcome = self.run(async |session| session.write(batch).await);
        outcome.map_err(|fault| self.session.error(fault))
    }

    fn messages(&mut self, room: &str, max: usize) -> Result<Vec<ChatMessage>, StoreError> {
        let outcome = self.run(async |session| {
            let link = session.linked().await?;
            let max = i64::try_from(max).unwrap_or(i64::MAX);
            let rows =
                link.wire.client.query(&link.statements.messages, &[&text(room) as &(dyn ToSql + Sync), &max]).await?;
            Ok(rows.iter().rev().map(|row| calls::message(room, row)).collect::<Result<_, Error>>()?)
        });
        outcome.map_err(|fault| self.session.error(fault))
    }
}

impl Drop for PostgresStore {
    fn drop(&mut self) {
        self.session.link = None;
        if let Some(runtime) = self.runtime.take() {
            // A name that is being looked up is not waited for.
            runtime.shutdown_background();
        }
    }
}

/// What is on the other side.
#[derive(Debug)]
struct Session {
    settings: PostgresSettings,
    link: Option<Link>,
    /// Ours, once it is taken.
    term: Option<i64>,
    /// How long the next call may take: longer than one that took too long, for it is the same batch that comes again.
    patience: Duration,
}

impl Session {
    async fn attempt<T>(&mut self, work: impl AsyncFn(&mut Self) -> Result<T, Fault>) -> Result<T, Fault> {
        let was_there = self.link.is_some();
        match work(self).await {
            Err(fault) if was_there && fault.gone => {
                self.link = None;
                work(self).await
            }
            outcome => outcome,
        }
    }

    /// The connection, made if there is none; the first one takes the term.
    async fn linked(&mut self) -> Result<&Link, Fault> {
        if self.link.is_none() {
            let wire = Wire::reach(&self.settings).await?;
            let (statements, _) = prepare(&wire.client, self.patience, Some(&mut self.term)).await?;
            self.link = Some(Link { wire, statements });
        }
        Ok(self.link.as_ref().expect("made if it was not there"))
    }

    async fn write(&mut self, batch: &[Write]) -> Result<(), Fault> {
        let messages_max = i64::try_from(self.settings.messages_max).unwrap_or(i64::MAX);
        self.linked().await?;
        let (Some(Link { wire, statements }), Some(term)) = (&self.link, self.term) else {
            unreachable!("who is linked has taken a term");
        };
        let client = &wire.client;
        client.batch_execute(&begin(self.patience)).await?;
        let present = fence(client, statements).await?;
        if present != Some(term) {
            return Err(Fault::taken_over(term, present));
        }
        carry_out(client, statements, batch, messages_max).await?;
        Ok(client.batch_execute("COMMIT").await?)
    }

    fn error(&self, fault: Fault) -> StoreError {
        StoreError { place: self.settings.place(), cause: fault.text, lost: fault.lost }
    }
}

/// A connection with its statements.
#[derive(Debug)]
struct Link {
    wire: Wire,
    statements: Statements,
}

/// A connection.
struct Wire {
    client: Client,
    version: String,
    /// Moves its bytes.
    task: JoinHandle<()>,
}

impl Wire {
    async fn reach(settings: &PostgresSettings) -> Result<Self, Fault> {
        if !settings.wants_tls() {
            return Self::by(settings, NoTls).await;
        }
        #[cfg(feature = "postgres-tls")]
        return Self::by(settings, tls::Tls::of(settings.ca_path.as_deref()).map_err(Fault::refuse)?).await;
        #[cfg(not(feature = "postgres-tls"))]
        return Err(Fault::refuse(settings::NO_TLS.to_owned()));
    }

    async fn by<T>(settings: &PostgresSettings, tls: T) -> Result<Self, Fault>
    where
        T: MakeTlsConnect<Socket, Stream: Send + 'static>,
    {
        let (client, connection) = settings.config.connect(tls).await?;
        let parameter = |name| connection.parameter(name).unwrap_or_default().to_owned();
        let (version, encoding) = (parameter("server_version"), parameter("server_encoding"));
        // Its end is the end of what waits for an answer.
        let task = tokio::spawn(async { drop(connection.await) });
        let wire = Self { client, version, task };
        match encoding.as_str() {
            "UTF8" => Ok(wire),
            _ => Err(Fault::refuse(format!(
                "the database's encoding is {encoding}, in which not all that players say can be written; make one with \
                 `createdb -T template0 -E UTF8`"
            ))),
        }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl std::fmt::Debug for Wire {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wire").field("version", &self.version).finish_non_exhaustive()
    }
}

/// Makes the tables that are missing, takes a term if none is taken, and tries every statement. Without a place for a term
/// nothing of it is kept. Tells also whether tables were missing.
async fn prepare(
    client: &Client,
    patience: Duration,
    term: Option<&mut Option<i64>>,
) -> Result<(Statements, bool), Fault> {
    client.batch_execute(&begin(patience)).await?;
    // Of several that find no tables one makes them.
    client.batch_execute(&format!("SELECT pg_advisory_xact_lock({LOCK})")).await?;
    let missing: i64 = client.query_one(MISSING, &[]).await?.try_get(0)?;
    if missing > 0 {
        client.batch_execute(TABLES).await?;
    }
    let statements = Statements::prepare(client).await?;
    let taken = match &term {
        Some(None) => Some(client.query_one(TAKE, &[]).await?.try_get(0)?),
        _ => None,
    };
    // Not beside another's transaction, which counts messages as this does.
    fence(client, &statements).await?;
    client.batch_execute("SAVEPOINT trial").await?;
    carry_out(client, &statements, &calls::trial(), i64::MAX).await?;
    client.batch_execute(if term.is_some() { "ROLLBACK TO trial; COMMIT" } else { "ROLLBACK" }).await?;
    if let (Some(term), Some(taken)) = (term, taken) {
        *term = Some(taken);
    }
    Ok((statements, missing > 0))
}

/// Locks the term until the transaction's end; `None` if there is none.
async fn fence(client: &Client, statements: &Statements) -> Result<Option<i64>, Fault> {
    let row = client.query_opt(&statements.fence, &[]).await?;
    Ok(row.map(|row| row.try_get(0)).transpose()?)
}

/// The writes, in order, and what has become too old by them.
async fn carry_out(client: &Client, statements: &Statements, batch: &[Write], messages_max: i64) -> Result<(), Fault> {
    let calls: Vec<Call<'_>> = batch.iter().flat_map(|write| statements.calls(write)).collect();
    for some in calls.chunks(SENT_AT_ONCE) {
        send(client, some).await?;
    }
    if !batch.iter().any(|write| matches!(write, Write::Message(_))) {
        return Ok(());
    }
    let newest: Option<i64> = client.query_one(&statements.newest, &[]).await?.try_get(0)?;
    let last = newest.unwrap_or(0).saturating_sub(messages_max);
    if last > 0 {
        send(client, &statements.trim(last)).await?;
    }
    Ok(())
}

/// Sends calls one behind the other without waiting between, then waits for all; the first that failed is the error.
async fn send(client: &Client, calls: &[Call<'_>]) -> Result<(), Error> {
    let mut flying: Vec<_> =
        calls.iter().map(|call| Some(Box::pin(client.execute_raw(call.statement, call.values())))).collect();
    poll_fn(|context| {
        let mut left = false;
        for call in &mut flying {
            match call.as_mut().map(|call| call.as_mut().poll(context)) {
                Some(Poll::Ready(Err(error))) => return Poll::Ready(Err(error)),
                Some(Poll::Ready(Ok(_))) => *call = None,
                Some(Poll::Pending) => left = true,
                None => {}
            }
        }
        if left { Poll::Pending } else { Poll::Ready(Ok(())) }
    })
    .await
}

/// A transaction's beginning. The server ends one whose owner is silent, so that its locks hold nobody up.
fn begin(patience: Duration) -> String {
    format!(
        "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; SET LOCAL statement_timeout = {0}; \
         SET LOCAL idle_in_transaction_session_timeout = {1}",
        patience.as_millis(),
        limits::POSTGRES_SILENCE.as_millis()
    )
}

/// Calls that are on their way at once.
const SENT_AT_ONCE: usize = 64;
/// Any number that is nobody else's.
const LOCK: i64 = 0x7269_6e67_6761_7465;
