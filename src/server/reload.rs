//! SIGHUP: reads the configuration again and hands the type table and the keys that tokens are checked with to the bus
//! and the shards, the table and its own keys to the server API. Connections notice nothing; sessions stay, whatever key
//! their token was checked with. A set of keys that others publish is read by a thread of its own, now and whenever it is
//! time; what it has read is put in place here.
//!
//! A configuration with errors changes nothing. What only a start can change is named in a warning and left alone.

use std::fmt::Write as _;
use std::sync::Arc;

use crate::auth::{KeySet, Verifier};
use crate::config::{self, Config, Loaded};
use crate::keys;
use crate::protocol::routes::Routes;
use crate::router::Latest;
use crate::session::{KeyReading, Settings};

/// Reads the sources of the configuration again: the configuration, or its errors, a line each.
pub type Read = Box<dyn FnMut() -> Result<Loaded, Vec<String>> + Send>;

/// See the module.
pub struct Reloader {
    read: Read,
    /// What runs.
    running: Config,
    settings: Latest<Settings>,
    rules: Latest<Arc<Routes>>,
    api_keys: Latest<Vec<String>>,
}

impl Reloader {
    /// Of a node that runs `config` and reads these.
    #[must_use]
    pub fn new(
        read: Read,
        running: Config,
        settings: Latest<Settings>,
        rules: Latest<Arc<Routes>>,
        api_keys: Latest<Vec<String>>,
    ) -> Self {
        Self { read, running, settings, rules, api_keys }
    }

    /// Carries out a SIGHUP and logs what became of it; whether the nodes must be woken to see something new.
    pub fn reload(&mut self) -> bool {
        match self.try_reload() {
            Ok(said) => {
                tracing::info!("SIGHUP: {}", said.as_deref().unwrap_or("nothing changed"));
                said.is_some()
            }
            Err(errors) => {
                for error in errors {
                    tracing::error!("SIGHUP: nothing is reloaded: {error}");
                }
                false
            }
        }
    }

    /// What changed; `None` if nothing did.
    fn try_reload(&mut self) -> Result<Option<String>, Vec<String>> {
        let Loaded { config, warnings, .. } = (self.read)()?;
        let verifier = self.verifier(&config).map_err(|error| vec![error])?;
        if let Some(KeyReading { wish, .. }) = &self.settings.key_reading {
            // What it brings comes by itself.
            wish.insist();
        }
        for warning in warnings {
            tracing::warn!("SIGHUP: {warning}");
        }
        let by_start = |key: &str| key.starts_with("auth.jwt_jwks");
        let reloaded =
            |key: &str| !by_start(key) && ["auth.jwt", "admin."].iter().any(|section| key.starts_with(section));
        for key in config::differing(&self.running, &config).into_iter().filter(|key| !reloaded(key)) {
            tracing::warn!("SIGHUP: {key} differs from what runs; it takes effect at the next start");
        }
        let mut said = table_changes(&self.running.routes, &config.routes);
        let new_key = verifier.filter(|verifier| !verifier.is_same(&self.settings.verifier));
        if new_key.is_some() {
            said.push("the token key".to_owned());
        }
        if self.running.admin != config.admin {
            said.push(format!("{} API keys", config.admin.api_keys.len()));
            self.api_keys.publish(config.admin.api_keys.clone());
            self.running.admin = config.admin;
        }
        if said.is_empty() {
            return Ok(None);
        }
        // The bus first: a command that a new row allows is answered by events that a new row may carry.
        self.rules.publish(Arc::clone(&config.routes));
        let verifier = new_key.map_or_else(|| Arc::clone(&self.settings.verifier), Arc::new);
        self.settings.refresh();
        let settings = Settings { verifier, routes: Arc::clone(&config.routes), ..(*self.settings).clone() };
        self.settings.publish(settings);
        (self.running.routes, self.running.auth) = (config.routes, config.auth);
        Ok(Some(format!("reloaded: {}", said.join("; "))))
    }

    /// Puts token keys in place that were read for the `number`th time; the shards must be woken. What else was required of
    /// tokens is required on.
    pub fn use_keys(&mut self, number: u64, set: &KeySet) {
        self.settings.refresh();
        let mut settings = (*self.settings).clone();
        let verifier = self.running.auth.verifier_of(set.clone());
        if !verifier.is_same(&settings.verifier) {
            keys::tell("token keys are others now", set);
            settings.verifier = Arc::new(verifier);
        }
        // Even where the keys are the same, that they are as new as can be is news.
        settings.key_reading = settings.key_reading.map(|reading| KeyReading { number, ..reading });
        self.settings.publish(settings);
    }

    /// The configured key's; `None` if the node made its key itself and goes on with it.
    fn verifier(&self, config: &Config) -> Result<Option<Verifier>, String> {
        let (running, auth) = (&self.running.auth, &config.auth);
        if running.jwt_jwks.is_some() && running.jwt_jwks == auth.jwt_jwks {
            let verifier = (*self.settings.verifier).clone();
            return Ok(Some(verifier.requiring(auth.jwt_issuer.as_deref(), auth.jwt_audience.as_deref())));
        }
        if running.jwt_jwks != auth.jwt_jwks && running.has_key() && auth.has_key() {
            return Err("auth.jwt_jwks: keys from elsewhere than before; restart".to_owned());
        }
        match (running.has_key(), auth.has_key()) {
            (true, false) => Err("auth: there is no token key any more, and a gateway does not turn into dev mode; \
                                  set JWT_PUBLIC_KEY_PATH, JWT_JWKS or JWT_SECRET, or restart"
                .to_owned()),
            (false, true) => Err("auth: a token key in place of the one made up in dev mode; restart".to_owned()),
            _ => config.auth.verifier(),
        }
    }
}

/// Rows that were added, changed and removed, a text per half and kind.
fn table_changes(before: &Routes, after: &Routes) -> Vec<String> {
    let commands = |routes: &Routes| routes.commands().iter().map(|row| (row.pattern.clone(), row.clone())).collect();
    let events = |routes: &Routes| routes.events().iter().map(|row| (row.pattern.clone(), row.clone())).collect();
    let said = [
        half_changes("command", commands(before), commands(after)),
        half_changes("event", events(before), events(after)),
    ];
    said.into_iter().flatten().collect()
}

type Rows<R> = Vec<(Box<str>, R)>;

fn half_changes<R: PartialEq>(half: &str, before: Rows<R>, after: Rows<R>) -> Option<String> {
    let find = |rows: &'_ Rows<R>, pattern: &str| rows.iter().position(|(other, _)| **other == *pattern);
    let mut said = String::new();
    for (pattern, row) in &after {
        match find(&before, pattern) {
            None => _ = write!(said, " +{pattern}"),
            Some(at) if before[at].1 != *row => _ = write!(said, " ~{pattern}"),
            Some(_) => {}
        }
    }
    for (pattern, _) in before.iter().filter(|(pattern, _)| find(&after, pattern).is_none()) {
        let _ = write!(said, " -{pattern}");
    }
    (!said.is_empty()).then(|| format!("[[{half}]]{said}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Sources;

    fn load(text: &str) -> Result<Loaded, Vec<String>> {
        config::load(&Sources { file: Some(("f.toml", text)), ..Sources::default() })
    }

    /// A reload says which rows came, changed and went; rows that stay are not mentioned.
    #[test]
    fn changes_are_named_by_row() {
        let row = |name: &str, rate: &str| {
            format!("[[command]]\ntype = \"{name}\"\ntopic = \"games.commands\"\nrate = \"{rate}\"\n")
        };
        let before = load(&(row("a.x", "1/s") + &row("a.y", "1/s"))).unwrap().config.routes;
        let after = load(&(row("a.z", "1/s") + &row("a.y", "2/s"))).unwrap().config.routes;
        assert_eq!(table_changes(&before, &after), ["[[command]] +a.z ~a.y -a.x"]);
        assert!(table_changes(&after, &after).is_empty());
        let event = load("[[event]]\ntype = \"games.event.*\"\nto = \"room\"\n").unwrap().config.routes;
        assert!(table_changes(&Routes::default(), &event).is_empty(), "a row equal to the built-in one is no change");
    }
}
