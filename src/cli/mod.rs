//! The command line: text in, one text for stdout or one line per error for stderr, and an exit code.
//!
//! A command is a function of its arguments and [`Surroundings`]; only [`run`] touches the process. Exit codes:
//! 0 done, 1 failed, 2 wrong usage or configuration.

pub mod connect;
pub mod load;

mod config;
mod flags;
mod token;
mod topics;

use std::ffi::OsString;
use std::io::Write as _;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::{ArgMatches, Command};

use crate::time::WallMillis;

/// What commands know of the process.
#[derive(Clone, Default, Debug)]
pub struct Surroundings {
    /// The environment.
    pub env: Vec<(String, String)>,
    /// The wall clock.
    pub now: WallMillis,
}

/// Why a command failed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failure {
    /// 1, or 2 for wrong usage or configuration.
    pub code: u8,
    /// For stderr, a line each.
    pub lines: Vec<String>,
}

/// Runs the program with its arguments, its own name first.
#[must_use]
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let matches = match command().try_get_matches_from(args) {
        Ok(matches) => matches,
        Err(error) => {
            // A closed stream leaves nobody to tell.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    match matches.subcommand() {
        Some(("connect", matches)) => return connect::run(matches),
        Some(("load", matches)) => return load::run(matches),
        _ => {}
    }
    match dispatch(&matches, &Surroundings::of_process()) {
        Ok(text) => {
            let _ = std::io::stdout().write_all(text.as_bytes());
            ExitCode::SUCCESS
        }
        Err(failure) => {
            for line in &failure.lines {
                complain(line);
            }
            ExitCode::from(failure.code)
        }
    }
}

/// The grammar. Without a command, `serve` runs, and its flags stand alone.
#[must_use]
pub fn command() -> Command {
    Command::new("ringgate")
        .version(env!("CARGO_PKG_VERSION"))
        .about("A WebSocket gateway for real-time games and chat")
        .after_help("Without a command, serve runs. `ringgate config default` prints every key with its meaning.")
        .args_conflicts_with_subcommands(true)
        .args(flags::args())
        .subcommand(Command::new("serve").about("Runs the gateway (the default)").args(flags::args()))
        .subcommand(worker_command())
        .subcommand(connect::command())
        .subcommand(load::command())
        .subcommand(token::command())
        .subcommand(config::command())
        .subcommand(topics::command())
}

/// Carries out what was parsed; the text is for stdout.
///
/// # Errors
/// The lines for stderr and the exit code.
pub fn dispatch(matches: &ArgMatches, surroundings: &Surroundings) -> Result<String, Failure> {
    match matches.subcommand() {
        None => serve(matches, surroundings),
        Some(("serve", matches)) => serve(matches, surroundings),
        Some(("worker", matches)) => worker(matches, surroundings),
        Some(("token", matches)) => token::run(matches, surroundings),
        Some(("config", matches)) => config::run(matches, surroundings),
        Some(("topics", matches)) => topics::run(matches, surroundings),
        Some((other, _)) => Err(Failure::usage(format!("{other}: unknown command; see `ringgate --help`"))),
    }
}

fn serve(matches: &ArgMatches, surroundings: &Surroundings) -> Result<String, Failure> {
    let mut reading = flags::Reading::new(matches, surroundings);
    let loaded = reading.load()?;
    for warning in &loaded.warnings {
        complain(&format!("warning: {warning}"));
    }
    let read = Box::new(move || reading.load().map_err(|failure| failure.lines));
    crate::server::run(loaded.config, read).map(|()| String::new()).map_err(Failure::new)
}

fn worker_command() -> Command {
    Command::new("worker")
        .about("Runs the services for gateways that share a Kafka; of several one is active, the others stand by")
        .long_about(
            "Runs rooms, dice, chat, hub and battle for gateways that share a Kafka (KAFKA_HOST). Of several workers one is \
             active and the others stand by: one that ends hands over at once, one that vanishes within some seconds. Their \
             records are in the topic ringgate.state. With REDIS_HOST a worker also reaps gateways that are gone. It takes \
             the configuration that `serve` takes; what concerns clients alone means nothing to it. With POSTGRES_URL it \
             keeps the history of rooms and messages in PostgreSQL, with server.data_dir in history.sqlite there; without \
             either, history is not kept.",
        )
        .args(flags::args())
}

fn worker(matches: &ArgMatches, surroundings: &Surroundings) -> Result<String, Failure> {
    let loaded = flags::Reading::new(matches, surroundings).load()?;
    for warning in &loaded.warnings {
        complain(&format!("warning: {warning}"));
    }
    if loaded.config.kafka.host.is_none() {
        let remedy = "set KAFKA_HOST; without it `ringgate serve` runs the services itself";
        return Err(Failure::usage(format!("kafka.host is not set: a worker serves gateways over Kafka; {remedy}")));
    }
    crate::server::run_worker(&loaded.config).map(|()| String::new()).map_err(Failure::new)
}

fn complain(line: &str) {
    let _ = writeln!(std::io::stderr(), "ringgate: {line}");
}

impl Surroundings {
    /// Those of this process. Environment entries that are not UTF-8 are read with replacement characters.
    #[must_use]
    pub fn of_process() -> Self {
        let text = |text: OsString| text.to_string_lossy().into_owned();
        let env = std::env::vars_os().map(|(name, value)| (text(name), text(value))).collect();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { env, now: WallMillis(u64::try_from(now.as_millis()).unwrap_or(u64::MAX)) }
    }

    /// A variable of the environment that is set and not empty.
    #[must_use]
    pub fn env(&self, name: &str) -> Option<&str> {
        self.env.iter().find(|(other, value)| other == name && !value.is_empty()).map(|(_, value)| &**value)
    }
}

impl Failure {
    /// Something failed: exit code 1.
    #[must_use]
    pub fn new(line: String) -> Self {
        Self { code: 1, lines: vec![line] }
    }

    /// Wrong usage or configuration: exit code 2.
    #[must_use]
    pub fn usage(line: String) -> Self {
        Self { code: 2, lines: vec![line] }
    }
}

#[cfg(test)]
mod tests;
