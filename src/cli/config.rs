//! `ringgate config`: print the default file, check a configuration.

use clap::{Arg, ArgAction, ArgMatches, Command};

use super::{Failure, Surroundings, flags};
use crate::config::{self, Config, Origin};
use crate::keys::Source;
use crate::server;

/// The grammar.
pub(super) fn command() -> Command {
    let file = Arg::new("file").value_name("FILE").help("The file, - for stdin; without it RINGGATE_CONFIG, or none");
    Command::new("config")
        .about("Prints and checks configurations")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(Command::new("default").about("Prints a file with every key, its meaning, unit and default"))
        .subcommand(
            Command::new("check")
                .about("Checks a file together with the environment; prints what they set, and where")
                .arg(file)
                .arg(
                    Arg::new("all")
                        .long("all")
                        .action(ArgAction::SetTrue)
                        .help("Print the values at their default too"),
                )
                .arg(
                    Arg::new("connect")
                        .long("connect")
                        .action(ArgAction::SetTrue)
                        .help("Also reaches every component that is configured, and says what is wrong with it"),
                ),
        )
}

/// Carries it out.
pub(super) fn run(matches: &ArgMatches, surroundings: &Surroundings) -> Result<String, Failure> {
    match matches.subcommand() {
        Some(("default", _)) => Ok(config::default_file()),
        Some(("check", matches)) => {
            let (all, connects) = (matches.get_flag("all"), matches.get_flag("connect"));
            check(matches.get_one::<String>("file").map(String::as_str), all, connects, surroundings)
        }
        _ => Err(Failure::usage("config: give default or check; see `ringgate config --help`".to_owned())),
    }
}

fn check(file: Option<&str>, all: bool, connects: bool, surroundings: &Surroundings) -> Result<String, Failure> {
    let loaded = flags::Reading::of(file, Vec::new(), surroundings).load()?;
    loaded.config.auth.verifier().map_err(Failure::usage)?;
    // What is on this machine is looked at in any case.
    let token_keys = match loaded.config.auth.key_source().filter(|source| connects || !source.is_url()) {
        Some(source) => key_set(&source).map_err(Failure::usage)?,
        None => String::new(),
    };
    let warnings: String = loaded.warnings.iter().map(|warning| format!("# warning: {warning}\n")).collect();
    let reached = if connects { connect(&loaded.config)? } else { String::new() };
    let explained = if all { config::explain(&loaded) } else { config::explain_set(&loaded) };
    let set = loaded.origins.iter().filter(|origin| **origin != Origin::Default).count();
    let (keys, rows) = (loaded.origins.len(), loaded.rows.len());
    let hint = if all { "" } else { "; --all prints every value" };
    let rows = if rows == 0 { String::new() } else { format!(", rows of the type table: {rows}") };
    Ok(format!("{explained}{warnings}{token_keys}{reached}# valid: {set} of {keys} values set{rows}{hint}\n"))
}

/// What a set of token keys has, a line for each that is left out.
fn key_set(source: &Source) -> Result<String, String> {
    let set = source.read().map_err(|error| format!("auth.jwt_jwks = {error}"))?;
    let skipped = set.skipped().iter().map(|skipped| format!("# warning: auth.jwt_jwks: {skipped}; it is not used\n"));
    let keys = format!("# keys of {source}: {}\n", set.words());
    Ok(std::iter::once(keys).chain(skipped).collect())
}

/// Reaches every component; a line for each.
fn connect(config: &Config) -> Result<String, Failure> {
    let mut outcomes = vec![server::check_kafka(config).map(|lines| lines.join("\n"))];
    if let Some(redis) = config.redis.settings() {
        let reached = |version| format!("redis {}:{}: reached, version {version}", redis.host, redis.port);
        outcomes.push(redis.check().map(reached).map_err(|error| error.to_string()));
    }
    if let Some(postgres) = config.store.settings() {
        outcomes.push(postgres.check().map_err(|error| error.to_string()));
    }
    let faults: Vec<_> = outcomes.iter().filter_map(|outcome| outcome.as_ref().err().cloned()).collect();
    if !faults.is_empty() {
        return Err(Failure { code: 1, lines: faults });
    }
    let lines = outcomes.iter().flatten().flat_map(|lines| lines.lines());
    Ok(lines.map(|line| format!("# {line}\n")).collect())
}
