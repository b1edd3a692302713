//! The command line of `ringgate load`.

use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;

use clap::{Arg, ArgAction, ArgMatches, Command};

use crate::limits;

use super::stamp::Stamp;
use super::verify::Shape;

/// What is measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// Connections that send and get their own messages back.
    Echo,
    /// One publisher per room.
    Fanout,
    /// Many publishers at once.
    Burst,
    /// Members that only hold their connections.
    Idle,
    /// Connecting as such.
    Storm,
    /// Members of which some do not read.
    Stalled,
    /// Players who roll dice in pairs: the way of a command.
    Rolls,
}

impl Mode {
    const ALL: [(&'static str, Self); 7] = [
        ("echo", Self::Echo),
        ("fanout", Self::Fanout),
        ("burst", Self::Burst),
        ("idle", Self::Idle),
        ("storm", Self::Storm),
        ("stalled", Self::Stalled),
        ("rolls", Self::Rolls),
    ];

    /// The argument's spelling.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::ALL[self as usize].0
    }
}

/// When a publisher's frame leaves its in-flight window.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pace {
    /// Acknowledged and received by the room's last member, so that a slow machine is not overrun.
    Delivered,
    /// Acknowledged.
    Acked,
}

/// What members speak; publishers are game servers and speak binary frames.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Dialect {
    /// D, binary frames.
    Frames,
    /// A, JSON. Payloads are JSON too.
    Json,
}

/// A battle to be watched.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BattlePlan {
    /// Events of the timeline.
    pub events: u64,
    /// ms between them.
    pub interval_ms: u64,
}

/// Where the tokens come from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Tokens {
    /// One for members, one for publishers.
    Given(String, String),
    /// Minted with this HS256 secret, a user each.
    Minted(String),
    /// None is needed (echo).
    None,
}

/// Everything the command line says; units in the names, rates per second.
#[derive(Clone, Debug)]
pub struct Options {
    pub mode: Mode,
    pub dialect: Dialect,
    pub address: SocketAddr,
    pub host: String,
    pub path: String,
    pub tokens: Tokens,
    pub connections: usize,
    pub publishers: usize,
    pub rooms: usize,
    pub size: usize,
    pub in_flight: u64,
    pub pace: Pace,
    pub rate: f64,
    pub delta_share: f64,
    pub delta_rate: f64,
    pub delta_keys: usize,
    pub delta_window: Option<u32>,
    pub stalled: usize,
    pub reader_speed: u64,
    pub resume: bool,
    pub battle: Option<BattlePlan>,
    pub warmup: Duration,
    pub duration: Duration,
    pub drain: Duration,
    pub concurrency: usize,
    pub threads: usize,
    pub cpus: Vec<usize>,
    pub pid: Option<u32>,
    pub json: bool,
}

impl Options {
    /// What a member's checks need.
    #[must_use]
    pub fn shape(&self) -> Shape {
        let frame = self.size + FRAMING_BYTES_MAX;
        let keys = self.delta_keys * self.publishers.div_ceil(self.rooms);
        Shape {
            keeps_newest: keys <= limits::DELTA_KEYS
                && keys * frame <= limits::DELTA_BYTES
                && (limits::QUEUE_FRAMES + keys) * frame <= limits::QUEUE_BYTES,
            rooms: self.rooms,
            publishers: self.publishers,
            size: self.size,
            json: self.dialect == Dialect::Json,
            delta_keys: self.delta_keys,
        }
    }

    /// Members and publishers.
    #[must_use]
    pub fn total(&self) -> usize {
        self.connections + self.publishers
    }
}

/// More than a payload gains on its way into a frame of either dialect.
const FRAMING_BYTES_MAX: usize = 256;

/// The clap command.
#[must_use]
pub fn command() -> Command {
    let value = |name: &'static str, value: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name(value).help(help)
    };
    Command::new("load")
        .about("Puts load on a server and checks that every reliable frame arrives once and in order")
        .arg(Arg::new("mode").required(true).value_parser(Mode::ALL.map(|(name, _)| name)).help("What to measure"))
        .arg(value("url", "URL", "Server, with or without a path").default_value("ws://127.0.0.1:9998"))
        .arg(
            value(
                "dialect",
                "DIALECT",
                "What members speak; in json, echoes are heartbeats [default: frames; rolls: json]",
            )
            .value_parser(["frames", "json"]),
        )
        .arg(value("token", "JWT", "Members' token"))
        .arg(value("publisher-token", "JWT", "Publishers' token, role publisher [default: that of --token]"))
        .arg(value("secret", "SECRET", "Mint a token for each connection with this HS256 secret"))
        .arg(value("connections", "N", "Members, or echo connections; rolls: players, two in a room"))
        .arg(value("rooms", "N", "Rooms the members are spread over").default_value("1"))
        .arg(value("publishers", "N", "Publishers, at least one per room"))
        .arg(value("size", "BYTES", "Payload of a message, at least 24, in json 97").default_value("100"))
        .arg(value("in-flight", "N", "Messages a sender has under way (without --rate)"))
        .arg(
            value("pace", "WHEN", "A message is under way until then")
                .value_parser(["delivered", "acked"])
                .default_value("delivered"),
        )
        .arg(value(
            "rate",
            "N",
            "Messages per second and publisher; 0 = by --in-flight. rolls: per second and room; 0 = at once",
        ))
        .arg(value("delta-share", "SHARE", "Share of messages that are deltas, 0 to 1").default_value("0"))
        .arg(value("delta-rate", "N", "Deltas per second and publisher beside the messages").default_value("0"))
        .arg(value("delta-keys", "N", "Delta keys per publisher").default_value("16"))
        .arg(value("delta-window", "N", "Credit that members give for deltas"))
        .arg(value("stalled-share", "SHARE", "Share of members that read slowly or not at all, 0 to 1"))
        .arg(value("reader-speed", "BYTES", "Bytes per second that those read; 0 = nothing").default_value("0"))
        .arg(
            Arg::new("resume")
                .long("resume")
                .action(ArgAction::SetTrue)
                .help("Closed members reconnect and resume; storm: everybody does it once"),
        )
        .arg(value("battle", "EVENTS,MS", "Start a battle in each room and check its timeline"))
        .arg(value("warmup", "SECONDS", "Time before measuring").default_value("0.5"))
        .arg(value("duration", "SECONDS", "Time of measuring").default_value("5"))
        .arg(value("drain", "SECONDS", "Longest wait for the last frames").default_value("10"))
        .arg(value("connect-concurrency", "N", "Connections being made at once").default_value("256"))
        .arg(value("threads", "N", "Threads").default_value("1"))
        .arg(value("cpus", "LIST", "Cores to pin the threads to, e.g. 2,3"))
        .arg(value("pid", "PID", "The server's process: show its CPU time and memory"))
        .arg(Arg::new("json").long("json").action(ArgAction::SetTrue).help("Print one JSON object"))
}

/// Reads and checks the command line.
///
/// # Errors
/// What is wrong, with its remedy.
pub fn read(matches: &ArgMatches) -> Result<Options, String> {
    let text = |name: &str| matches.get_one::<String>(name).map(String::as_str);
    let mode_name = text("mode").unwrap_or_default();
    let mode = Mode::ALL.iter().find(|(name, _)| *name == mode_name).map(|(_, mode)| *mode);
    let mode = mode.ok_or("mode: missing")?;
    let preset = preset(mode);
    let alone = matches!(mode, Mode::Echo | Mode::Rolls);
    let publishers = if alone { 0 } else { number(text("publishers"), "publishers", preset.publishers)? };
    let connections: usize = number(text("connections"), "connections", preset.connections)?;
    let rooms = if mode == Mode::Rolls { (connections / 2).max(1) } else { number(text("rooms"), "rooms", 1)? };
    let share: f64 = number(text("stalled-share"), "stalled-share", preset.stalled_share)?;
    let dialect = match (mode, text("dialect")) {
        (Mode::Rolls, Some("frames")) => return Err("--dialect frames: players of rolls speak json".into()),
        (Mode::Rolls, _) | (_, Some("json")) => Dialect::Json,
        _ => Dialect::Frames,
    };
    let (address, host, path) = url(text("url").unwrap_or_default(), mode, dialect)?;
    let seconds = |name: &str| Ok::<_, String>(Duration::from_secs_f64(number(text(name), name, 1.0)?));
    let options = Options {
        mode,
        dialect,
        address,
        host,
        path,
        tokens: tokens(
            mode == Mode::Echo && dialect == Dialect::Frames,
            text("token"),
            text("publisher-token"),
            text("secret"),
        )?,
        connections,
        publishers: if alone { 0 } else { publishers.max(rooms) },
        rooms,
        size: number(text("size"), "size", 100)?,
        in_flight: number(text("in-flight"), "in-flight", preset.in_flight)?,
        pace: if text("pace") == Some("acked") { Pace::Acked } else { Pace::Delivered },
        rate: number(text("rate"), "rate", preset.rate)?,
        delta_share: number(text("delta-share"), "delta-share", 0.0)?,
        delta_rate: number(text("delta-rate"), "delta-rate", 0.0)?,
        delta_keys: number(text("delta-keys"), "delta-keys", 16)?,
        delta_window: text("delta-window").map(|value| number(Some(value), "delta-window", 0)).transpose()?,
        stalled: (connections as f64 * share).round() as usize,
        reader_speed: number(text("reader-speed"), "reader-speed", 0)?,
        resume: matches.get_flag("resume"),
        battle: text("battle").map(battle).transpose()?,
        warmup: seconds("warmup")?,
        duration: seconds("duration")?,
        drain: seconds("drain")?,
        concurrency: number(text("connect-concurrency"), "connect-concurrency", 256)?,
        threads: number(text("threads"), "threads", 1)?,
        cpus: cpus(text("cpus").unwrap_or_default())?,
        pid: text("pid").map(|value| number(Some(value), "pid", 0)).transpose()?,
        json: matches.get_flag("json"),
    };
    check(&options, share)?;
    Ok(options)
}

struct Preset {
    connections: usize,
    publishers: usize,
    in_flight: u64,
    rate: f64,
    stalled_share: f64,
}

/// The workloads of DESIGN §10.
fn preset(mode: Mode) -> Preset {
    let base = Preset { connections: 500, publishers: 1, in_flight: 1, rate: 0.0, stalled_share: 0.0 };
    match mode {
        Mode::Echo => Preset { connections: 200, ..base },
        Mode::Fanout => base,
        Mode::Burst => Preset { publishers: 20, in_flight: 8, ..base },
        Mode::Idle => Preset { connections: 10_000, ..base },
        Mode::Storm => Preset { connections: 15_000, ..base },
        Mode::Rolls => Preset { connections: 200, ..base },
        Mode::Stalled => Preset { connections: 250, rate: 200.0, stalled_share: 0.1, ..base },
    }
}

fn check(options: &Options, stalled_share: f64) -> Result<(), String> {
    let at_least = |name: &str, value: usize, least: usize| {
        if value < least { Err(format!("--{name} {value}: give at least {least}")) } else { Ok(()) }
    };
    let stamp = if options.dialect == Dialect::Json { Stamp::JSON_LEN } else { Stamp::LEN };
    at_least("size", options.size, stamp)?;
    at_least("rooms", options.rooms, 1)?;
    at_least("connections", options.connections, options.rooms)?;
    at_least("threads", options.threads, 1)?;
    at_least("delta-keys", options.delta_keys, 1)?;
    at_least("connect-concurrency", options.concurrency, 1)?;
    at_least("in-flight", options.in_flight as usize, 1)?;
    for (name, share) in [("delta-share", options.delta_share), ("stalled-share", stalled_share)] {
        if !(0.0..=1.0).contains(&share) {
            return Err(format!("--{name} {share}: give a share from 0 to 1"));
        }
    }
    if options.mode == Mode::Rolls {
        if options.connections % 2 == 1 {
            return Err(format!("--connections {}: give an even number, two sit in a room", options.connections));
        }
        if options.concurrency < 2 {
            return Err("--connect-concurrency 1: give at least 2, two sit in a room".into());
        }
        if !matches!(options.tokens, Tokens::Minted(_)) {
            return Err("--token: give --secret, each player is a user of its own".into());
        }
        if options.resume || options.battle.is_some() || options.stalled > 0 {
            return Err("--resume, --battle, --stalled-share: players of rolls have none".into());
        }
    }
    if options.rate < 0.0 || options.delta_rate < 0.0 {
        return Err("--rate and --delta-rate: give 0 or more".into());
    }
    Ok(())
}

fn tokens(
    none_needed: bool,
    member: Option<&str>,
    publisher: Option<&str>,
    secret: Option<&str>,
) -> Result<Tokens, String> {
    match (member, publisher, secret) {
        (None, None, Some(secret)) => Ok(Tokens::Minted(secret.into())),
        (Some(member), publisher, None) => Ok(Tokens::Given(member.into(), publisher.unwrap_or(member).into())),
        (None, Some(publisher), None) => Ok(Tokens::Given(publisher.into(), publisher.into())),
        (None, None, None) if none_needed => Ok(Tokens::None),
        (None, None, None) => {
            Err("no token: pass --secret (the server's JWT_SECRET), or --token and --publisher-token".into())
        }
        (_, _, Some(_)) => Err("--secret excludes --token and --publisher-token: leave one out".into()),
    }
}

fn url(text: &str, mode: Mode, dialect: Dialect) -> Result<(SocketAddr, String, String), String> {
    let rest = text.strip_prefix("ws://").ok_or_else(|| format!("--url {text:?}: give ws://HOST:PORT"))?;
    let (host, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
    let default = if mode == Mode::Echo { "/echo" } else { "/ws/frames" };
    let own = !path.trim_matches('/').is_empty();
    if own && dialect == Dialect::Json {
        return Err(format!("--url {text:?}: leave the path out with --dialect json, which uses /ws and /ws/frames"));
    }
    let path = if own { path } else { default };
    let with_port = if host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok()) {
        host.to_owned()
    } else {
        format!("{host}:80")
    };
    let found = with_port.to_socket_addrs().map_err(|error| format!("--url {text:?}: {error}"))?.next();
    let address = found.ok_or_else(|| format!("--url {text:?}: {host} has no address"))?;
    Ok((address, host.to_owned(), path.to_owned()))
}

fn battle(text: &str) -> Result<BattlePlan, String> {
    let parts = text.split_once(',').and_then(|(events, ms)| Some((events.parse().ok()?, ms.parse().ok()?)));
    let (events, interval_ms) = parts.ok_or_else(|| format!("--battle {text:?}: give EVENTS,MS, e.g. 100,20"))?;
    Ok(BattlePlan { events, interval_ms })
}

fn cpus(text: &str) -> Result<Vec<usize>, String> {
    let parts = text.split(',').filter(|part| !part.is_empty());
    parts.map(|part| part.trim().parse().map_err(|_| format!("--cpus {text:?}: give core numbers, e.g. 2,3"))).collect()
}

fn number<T: std::str::FromStr>(text: Option<&str>, name: &str, default: T) -> Result<T, String> {
    text.map_or(Ok(default), |text| text.parse().map_err(|_| format!("--{name} {text:?}: give a number")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(line: &str) -> Result<Options, String> {
        let matches = command().try_get_matches_from(["load"].into_iter().chain(line.split_whitespace()));
        read(&matches.map_err(|error| error.to_string())?)
    }

    /// Presets are those of the performance targets, and options override them.
    #[test]
    fn presets_and_options() {
        let burst = options("burst --secret s").unwrap();
        assert_eq!(
            (burst.connections, burst.publishers, burst.in_flight, burst.path.as_str()),
            (500, 20, 8, "/ws/frames")
        );
        let echo = options("echo --connections 3 --url ws://127.0.0.1:1/x").unwrap();
        assert_eq!((echo.connections, echo.publishers, echo.path.as_str()), (3, 0, "/x"));
        let stalled = options("stalled --secret s --rooms 2 --battle 10,5 --cpus 0,1").unwrap();
        assert_eq!((stalled.stalled, stalled.publishers, stalled.cpus), (25, 2, vec![0, 1]));
        assert_eq!(stalled.battle, Some(BattlePlan { events: 10, interval_ms: 5 }));
    }

    /// Every wrong option is refused, naming the option and what to give instead.
    #[test]
    fn wrong_options_name_the_remedy() {
        for (line, part) in [
            ("fanout", "--secret"),
            ("fanout --secret s --token t", "leave one out"),
            ("fanout --secret s --size 3", "at least 24"),
            ("fanout --secret s --dialect json --size 96", "at least 97"),
            ("echo --dialect json", "--secret"),
            ("rolls --secret s --dialect frames", "speak json"),
            ("rolls --secret s --connections 3", "an even number"),
            ("rolls --secret s --resume", "--resume"),
            ("rolls --token t", "--secret"),
            ("fanout --secret s --dialect json --url ws://127.0.0.1/ws", "leave the path out"),
            ("fanout --secret s --delta-share 2", "0 to 1"),
            ("fanout --secret s --battle 3", "EVENTS,MS"),
            ("fanout --secret s --url http://x", "ws://HOST:PORT"),
            ("fanout --secret s --rate x", "give a number"),
            ("fanout --secret s --cpus a", "core numbers"),
            ("nothing", "echo"),
        ] {
            let error = options(line).unwrap_err();
            assert!(error.contains(part), "{line}: {error}");
        }
    }
}
