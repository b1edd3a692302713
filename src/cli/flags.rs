//! Flags made from the configuration's key table.

use std::io::Read as _;

use clap::{Arg, ArgAction, ArgMatches};

use super::{Failure, Surroundings};
use crate::config::{self, KEYS, Key, Kind, Loaded, Sources};

/// `--config` and a flag for every key; an argument's id is the key's name.
pub(super) fn args() -> Vec<Arg> {
    let file = Arg::new(FILE)
        .long("config")
        .value_name("FILE")
        .help("TOML file with the configuration, - for stdin [environment: RINGGATE_CONFIG]");
    std::iter::once(file).chain(KEYS.iter().map(flag)).collect()
}

fn flag(key: &'static Key) -> Arg {
    let env = key.env.map_or_else(|| key.env_name(), str::to_owned);
    let arg = Arg::new(key.name)
        .long(key.flag)
        .help(format!("{} [environment: {env}]", key.meaning))
        .help_heading(heading(key.section()))
        .action(ArgAction::Set)
        .allow_negative_numbers(true);
    match key.kind {
        Kind::Number { unit, .. } => arg.value_name(unit),
        Kind::Bool { .. } => {
            arg.value_name("true|false").num_args(0..=1).require_equals(true).default_missing_value("true")
        }
        Kind::Text { .. } => arg.value_name("text"),
        Kind::List { .. } => arg.value_name("list"),
    }
}

/// The sources of a configuration, to be read at the start and again at each reload.
pub(super) struct Reading {
    file: Option<String>,
    /// The text of stdin, which can be read only once.
    stdin: Option<String>,
    flags: Vec<(&'static str, String)>,
    env: Vec<(String, String)>,
}

impl Reading {
    /// Those of the parsed flags, the environment and the file that either names.
    pub fn new(matches: &ArgMatches, surroundings: &Surroundings) -> Self {
        let given = |key: &'static Key| matches.get_one::<String>(key.name).map(|value| (key.name, value.clone()));
        let flags = KEYS.iter().filter_map(given).collect();
        Self::of(matches.get_one::<String>(FILE).map(String::as_str), flags, surroundings)
    }

    /// The same with the file's name and the flags given.
    pub fn of(file: Option<&str>, flags: Vec<(&'static str, String)>, surroundings: &Surroundings) -> Self {
        let file = file.or_else(|| surroundings.env("RINGGATE_CONFIG")).map(str::to_owned);
        Self { file, stdin: None, flags, env: surroundings.env.clone() }
    }

    /// The configuration.
    pub fn load(&mut self) -> Result<Loaded, Failure> {
        let text = match (self.file.as_deref(), &self.stdin) {
            (None, _) => None,
            (Some("-"), Some(text)) => Some(text.clone()),
            (Some(name), _) => Some(read(name)?),
        };
        if self.file.as_deref() == Some("-") {
            self.stdin.clone_from(&text);
        }
        let file = self.file.as_deref().zip(text.as_deref());
        let sources = Sources { file, env: &self.env, flags: &self.flags };
        config::load(&sources).map_err(|lines| Failure { code: 2, lines })
    }
}

/// The text of a file, or of stdin for `-`.
pub(super) fn read(name: &str) -> Result<String, Failure> {
    let mut text = String::new();
    let outcome = match name {
        "-" => std::io::stdin().read_to_string(&mut text).map(|_| text),
        _ => std::fs::read_to_string(name),
    };
    outcome.map_err(|error| Failure::usage(format!("{name}: {error}; give the path of a readable text file")))
}

fn heading(section: &'static str) -> &'static str {
    match section {
        "server" => "Server",
        "auth" => "Authentication",
        "delivery" => "Delivery",
        "timeouts" => "Timeouts",
        "mesh" => "Mesh",
        "admin" => "Server API",
        "bus" => "Bus",
        "kafka" => "Kafka",
        "redis" => "Redis",
        _ => "Log",
    }
}

const FILE: &str = "config";
