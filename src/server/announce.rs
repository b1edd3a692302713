//! What a start says: log lines to stderr, and in dev mode what to try next to stdout.

use std::io::Write as _;
use std::net::SocketAddr;

use tracing_subscriber::filter::LevelFilter;

use super::Keys;
use crate::auth::Grant;
use crate::config::{Config, Log, LogFormat, LogLevel};

/// Log lines go to stderr from here on.
pub fn start_log(log: &Log) {
    let level = match log.level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    let lines = tracing_subscriber::fmt().with_max_level(level).with_writer(std::io::stderr).with_target(false);
    // A second start in one process (tests) keeps the first log.
    let _ = match log.format {
        LogFormat::Text => lines.try_init(),
        LogFormat::Json => lines.json().try_init(),
    };
}

/// One line that says what runs, with its parts in words; in dev mode tokens and commands to paste.
pub fn ready(config: &Config, keys: &Keys, api_keys: &[String], address: SocketAddr, admin: SocketAddr, parts: &str) {
    let mut text = format!(
        "ringgate {} listens on ws://{address}/ws (JSON) and /ws/frames (binary)\n{parts}, health http://{admin}/health\n",
        env!("CARGO_PKG_VERSION"),
    );
    if let (true, Some(signer)) = (config.server.dev, &keys.signer) {
        let mint = |sub, roles: &[&str]| signer.mint(&Grant { sub, roles, ..Grant::default() });
        let (player, publisher) = (mint("player", &[]), mint("server", &["publisher"]));
        let program = program();
        text += &format!(
            "warning: dev mode: the key is made up and gone at the next start; set JWT_SECRET or JWT_PUBLIC_KEY_PATH\n\
             open in a browser:    http://{address}/#token={player}\n\
             token of a player:    {player}\n\
             token of a publisher: {publisher}\n\
             try in a second terminal:\n  \
             {program} connect ws://{address} --token {publisher} --publisher --room demo\n  \
             {program} load fanout --url ws://{address} --token {player} --publisher-token {publisher} --connections 100 --duration 5\n"
        );
    }
    if let (true, [key]) = (config.admin.api_keys.is_empty(), api_keys) {
        // With Kafka the log is there.
        let path = if config.kafka.host.is_none() { "log/games.commands?from=0" } else { "connections" };
        text += &format!(
            "server API, key {key}:\n  curl -N -H 'Authorization: apikey {key}' 'http://{admin}/api/{path}'\n"
        );
    }
    // A closed stdout leaves nobody to tell; the log has stderr.
    let _ = std::io::stdout().write_all(text.as_bytes()).and_then(|()| std::io::stdout().flush());
}

/// Two lines that say that a worker runs, and where it shows how it is.
#[cfg(feature = "kafka")]
pub fn working(bus: &str, admin: SocketAddr) {
    let text = format!(
        "ringgate {} worker: rooms, dice, chat, hub and battle for the gateways of {bus}\none of all workers is active, the \
         others stand by, health http://{admin}/ready\n",
        env!("CARGO_PKG_VERSION"),
    );
    let _ = std::io::stdout().write_all(text.as_bytes()).and_then(|()| std::io::stdout().flush());
}

/// How this program was started, for lines to paste.
fn program() -> String {
    std::env::args().next().filter(|name| !name.is_empty()).unwrap_or_else(|| "ringgate".into())
}
