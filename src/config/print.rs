//! How keys and values are shown: the default file, `config check`, places in errors. Secrets are never shown.

use std::fmt::Write as _;

use super::keys::{KEYS, Key, Kind};
use super::load::{Loaded, Origin, index_of};
use super::{Config, table};

/// A valid file with every key, commented out at its default, with meaning, type, range and names, and the built-in type
/// table, commented out.
#[must_use]
pub fn default_file() -> String {
    let mut out = String::from(HEAD);
    let mut section = "";
    for key in KEYS {
        if key.section() != section {
            section = key.section();
            let _ = write!(out, "\n[{section}]\n");
        }
        let other = key.env.map_or(String::new(), |env| format!("{env} or "));
        let _ = writeln!(out, "# {}", key.meaning);
        let unset = if value(key, &Config::default()).is_some() { "" } else { " Unset by default." };
        let _ = writeln!(
            out,
            "# Value: {}.{unset} Flag --{}, environment {other}{}.",
            expected(key),
            key.flag,
            key.env_name()
        );
        let _ = writeln!(out, "#{} = {}", key.key(), example(key));
    }
    out.push_str(&table::default_rows());
    out
}

/// Every key with its value and where it comes from, and the file's rows of the type table, a line each.
#[must_use]
pub fn explain(loaded: &Loaded) -> String {
    explain_keys(loaded, |_| true)
}

/// The same without the keys that are at their default.
#[must_use]
pub fn explain_set(loaded: &Loaded) -> String {
    explain_keys(loaded, |origin| *origin != Origin::Default)
}

fn explain_keys(loaded: &Loaded, shows: impl Fn(&Origin) -> bool) -> String {
    let mut out = String::new();
    for (key, from) in KEYS.iter().zip(&loaded.origins).filter(|(_, from)| shows(from)) {
        let _ = writeln!(out, "{} = {}  # {}", key.name, shown(key, &loaded.config), origin(from));
    }
    table::explain(loaded, &mut out);
    out
}

/// The names of the keys that have another value in the other configuration.
#[must_use]
pub fn differing(one: &Config, other: &Config) -> Vec<&'static str> {
    KEYS.iter().filter(|key| value(key, one) != value(key, other)).map(|key| key.name).collect()
}

/// What a key expects, e.g. `a port 1–65535`.
pub(super) fn expected(key: &Key) -> String {
    match &key.kind {
        Kind::Number { unit: "port", .. } => "a port 1–65535 (0 = any free one)".to_owned(),
        Kind::Number { unit, min, max, .. } => format!("a number of {unit} {min}–{max}"),
        Kind::Bool { .. } => "true or false".to_owned(),
        Kind::Text { expected, .. } => (*expected).to_owned(),
        Kind::List { expected, .. } => format!("a list of {expected}"),
    }
}

/// A valid value as TOML: the default, if there is one.
pub(super) fn example(key: &Key) -> String {
    match &key.kind {
        Kind::Text { example, .. } => value(key, &Config::default()).unwrap_or_else(|| format!("{example:?}")),
        Kind::List { example, .. } => format!("[{example:?}]"),
        Kind::Number { .. } | Kind::Bool { .. } => value(key, &Config::default()).unwrap_or_default(),
    }
}

/// A valid value as a word for environment and flags.
pub(super) fn word(key: &Key) -> String {
    example(key).replace(['[', ']', '"'], "")
}

/// Where a value stands and what it is, to begin an error with.
pub(super) fn place(name: &str, config: &Config, origins: &[Origin]) -> String {
    let index = index_of(name).expect("checks name keys of the table");
    let key = &KEYS[index];
    let value = shown(key, config);
    match &origins[index] {
        Origin::File(file, line) => format!("{file}:{line}: {name} = {value}"),
        Origin::Env(env) => format!("{env}={}: {name}", value.replace('"', "")),
        Origin::Flag => format!("--{} {}: {name}", key.flag, value.replace('"', "")),
        Origin::Default => format!("{name} = {value} (default)"),
    }
}

/// A value's origin in words.
pub(super) fn origin(origin: &Origin) -> String {
    match origin {
        Origin::Default => "default".to_owned(),
        Origin::File(file, line) => format!("{file}:{line}"),
        Origin::Env(name) => format!("environment {name}"),
        Origin::Flag => "flag".to_owned(),
    }
}

fn shown(key: &Key, config: &Config) -> String {
    match value(key, config) {
        None => "unset".to_owned(),
        Some(_) if key.is_secret() => REDACTED.to_owned(),
        Some(value) => value,
    }
}

/// The value as TOML; `None` if unset.
fn value(key: &Key, config: &Config) -> Option<String> {
    match &key.kind {
        Kind::Number { read, .. } => Some(read(config).to_string()),
        Kind::Bool { read, .. } => Some(read(config).to_string()),
        Kind::Text { read, .. } => read(config).map(|text| format!("{text:?}")),
        Kind::List { read, secret, .. } => {
            let values = read(config);
            // No secret is no value; an empty list of others is one.
            (!secret || !values.is_empty()).then(|| format!("{values:?}"))
        }
    }
}

/// Stands for a secret.
pub(super) const REDACTED: &str = "<not shown>";

const HEAD: &str = "\
# ringgate's configuration: every key, commented out; remove the # in front of one to change it.
# A flag goes before the environment, the environment before this file, this file before the default.
# Lists in flags and environment are separated by commas; an empty environment value counts as unset.
";
