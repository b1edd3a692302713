//! `ringgate config`: print the default file, check a configuration.

use clap::{Arg, ArgMatches, Command};

use super::{Failure, Surroundings, flags};
use crate::config;

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
                .about("Checks a file together with the environment; prints every value and where it comes from")
                .arg(file),
        )
}

/// Carries it out.
pub(super) fn run(matches: &ArgMatches, surroundings: &Surroundings) -> Result<String, Failure> {
    match matches.subcommand() {
        Some(("default", _)) => Ok(config::default_file()),
        Some(("check", matches)) => check(matches.get_one::<String>("file").map(String::as_str), surroundings),
        _ => Err(Failure::usage("config: give default or check; see `ringgate config --help`".to_owned())),
    }
}

fn check(file: Option<&str>, surroundings: &Surroundings) -> Result<String, Failure> {
    let loaded = flags::Reading::of(file, Vec::new(), surroundings).load()?;
    loaded.config.auth.verifier().map_err(Failure::usage)?;
    let warnings: String = loaded.warnings.iter().map(|warning| format!("# warning: {warning}\n")).collect();
    Ok(format!("{}{warnings}# valid\n", config::explain(&loaded)))
}
