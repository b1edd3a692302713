//! From texts to [`Config`]: file, then environment, then flags, each value checked against its key's row.

use std::sync::Arc;

use super::file::FileError;
use super::keys::{KEYS, Key, Kind};
use super::table::Half;
use super::{Config, check, file, print};

/// Where values come from. The caller reads file, environment and command line.
#[derive(Clone, Copy, Default, Debug)]
pub struct Sources<'a> {
    /// The file's name, for errors, and its text.
    pub file: Option<(&'a str, &'a str)>,
    /// The environment; an empty value counts as unset.
    pub env: &'a [(String, String)],
    /// Key names (`server.port`) and the values of their flags.
    pub flags: &'a [(&'static str, String)],
}

/// A configuration and how it came about.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The settings.
    pub config: Config,
    /// Where each key's value comes from, in the order of [`KEYS`].
    pub origins: Vec<Origin>,
    /// The type table's rows in the file: half, pattern, place.
    pub rows: Vec<(Half, Box<str>, Origin)>,
    /// What is allowed but deserves a line in the log.
    pub warnings: Vec<String>,
}

/// Where a key's value comes from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Origin {
    /// The default.
    Default,
    /// A line of the file, from 1.
    File(String, usize),
    /// An environment name.
    Env(String),
    /// Its flag.
    Flag,
}

/// A value as its source has it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Raw {
    /// Untyped, from environment or flag.
    Word(String),
    Text(String),
    Number(i128),
    Bool(bool),
    List(Vec<String>),
    /// A type that no key has.
    Other,
}

/// Builds the configuration.
///
/// # Errors
/// All errors, one line each: place, key, value, what is expected, what to write.
pub fn load(sources: &Sources<'_>) -> Result<Loaded, Vec<String>> {
    let mut loader = Loader {
        config: Config::default(),
        origins: vec![Origin::Default; KEYS.len()],
        rows: Vec::new(),
        warnings: Vec::new(),
        errors: Vec::new(),
    };
    if let Some((name, text)) = sources.file {
        loader.file(name, text);
    }
    loader.environment(sources.env);
    for (name, value) in sources.flags {
        let index = index_of(name).expect("flags are made from the table");
        loader.apply(index, &Raw::Word(value.clone()), value, Origin::Flag);
    }
    loader.finish()
}

/// A key's index in the table.
pub(super) fn index_of(name: &str) -> Option<usize> {
    KEYS.iter().position(|key| key.name == name)
}

struct Loader {
    config: Config,
    origins: Vec<Origin>,
    rows: Vec<(Half, Box<str>, Origin)>,
    warnings: Vec<String>,
    errors: Vec<String>,
}

impl Loader {
    fn file(&mut self, name: &str, text: &str) {
        let file::Contents { entries, rows, mut errors } = file::parse(text);
        for entry in entries {
            let origin = Origin::File(name.to_owned(), entry.line);
            if let Err(text) = self.write(entry.key, &entry.raw, &entry.shown, origin) {
                errors.push(FileError { line: entry.line, text });
            }
        }
        if let Some(routes) = rows.build(&mut errors) {
            self.config.routes = Arc::new(routes);
        }
        let place =
            |(half, pattern, line): (Half, &str, usize)| (half, pattern.into(), Origin::File(name.to_owned(), line));
        self.rows = rows.places().map(place).collect();
        errors.sort();
        self.errors.extend(errors.into_iter().map(|FileError { line, text }| format!("{name}:{line}: {text}")));
    }

    fn environment(&mut self, env: &[(String, String)]) {
        let find = |name: &str| env.iter().find(|(other, value)| other == name && !value.is_empty());
        for (index, key) in KEYS.iter().enumerate() {
            for name in key.env.map(str::to_owned).into_iter().chain([key.env_name()]) {
                if let Some((_, value)) = find(&name) {
                    self.apply(index, &Raw::Word(value.clone()), value, Origin::Env(name));
                }
            }
        }
        // Only a warning: orchestrators put names of their own there (RINGGATE_PORT_9998_TCP of a Kubernetes service).
        for (name, _) in env.iter().filter(|(name, _)| name.starts_with("RINGGATE_") && name != CONFIG_ENV) {
            if KEYS.iter().all(|key| key.env_name() != *name) {
                self.warnings
                    .push(format!("environment {name} names no key and is ignored; see `ringgate config default`"));
            }
        }
    }

    fn apply(&mut self, index: usize, raw: &Raw, shown: &str, origin: Origin) {
        if let Err(error) = self.write(index, raw, shown, origin) {
            self.errors.push(error);
        }
    }

    /// Sets a key; the error of a line of the file is without its place.
    fn write(&mut self, index: usize, raw: &Raw, shown: &str, origin: Origin) -> Result<(), String> {
        let key = &KEYS[index];
        if write(key, raw, &mut self.config) {
            self.origins[index] = origin;
            return Ok(());
        }
        let shown = if key.is_secret() { print::REDACTED } else { shown };
        let (expected, example) = (print::expected(key), print::example(key));
        Err(match origin {
            Origin::File(..) => {
                format!("{} = {shown}: expected {expected}; write {} = {example}", key.name, key.key())
            }
            Origin::Env(name) => {
                format!("{name}={shown}: {}: expected {expected}; set {name}={}", key.name, print::word(key))
            }
            Origin::Flag | Origin::Default => {
                format!(
                    "--{} {shown}: {}: expected {expected}; give --{} {}",
                    key.flag,
                    key.name,
                    key.flag,
                    print::word(key)
                )
            }
        })
    }

    fn finish(mut self) -> Result<Loaded, Vec<String>> {
        // Relations between values mean nothing while a value is missing.
        if self.errors.is_empty() {
            check::resolve_dev_mode(&mut self.config, &self.origins, &mut self.errors);
            check::relations(&self.config, &self.origins, &mut self.errors);
            check::cluster(&self.config, &self.origins, &mut self.errors);
            check::warnings(&self.config, &mut self.warnings);
        }
        if self.errors.is_empty() {
            Ok(Loaded { config: self.config, origins: self.origins, rows: self.rows, warnings: self.warnings })
        } else {
            Err(self.errors)
        }
    }
}

/// Writes a value to its place; whether it has the key's type and range.
fn write(key: &Key, raw: &Raw, config: &mut Config) -> bool {
    match (&key.kind, raw) {
        (Kind::Number { min, max, write, .. }, Raw::Number(_) | Raw::Word(_)) => {
            let number = match raw {
                Raw::Number(number) => u64::try_from(*number).ok(),
                Raw::Word(word) => word.trim().parse().ok(),
                _ => None,
            };
            let Some(number) = number.filter(|number| (*min..=*max).contains(number)) else { return false };
            write(config, number);
            true
        }
        (Kind::Bool { write, .. }, Raw::Bool(value)) => {
            write(config, *value);
            true
        }
        (Kind::Bool { write, .. }, Raw::Word(word)) => {
            let value = match word.trim() {
                "true" | "1" => true,
                "false" | "0" => false,
                _ => return false,
            };
            write(config, value);
            true
        }
        (Kind::Text { write, .. }, Raw::Text(text) | Raw::Word(text)) => write(config, text),
        (Kind::List { write, .. }, Raw::List(values)) => write(config, values),
        (Kind::List { write, .. }, Raw::Word(word)) => {
            let values: Vec<_> =
                word.split(',').map(str::trim).filter(|value| !value.is_empty()).map(str::to_owned).collect();
            write(config, &values)
        }
        _ => false,
    }
}

/// Names the file, where no flag does.
const CONFIG_ENV: &str = "RINGGATE_CONFIG";
