//! `ringgate load`: puts load on a server and checks the promise on the way (DESIGN §10). It speaks dialect D or the
//! echo endpoint from its own small epoll loop, one per thread, so that one core saturates one shard.
//!
//! The main thread moves the run through its phases and never touches a connection; `worker` runs the clients of a
//! thread, `session` is one client, `verify` judges what it received.

mod link;
mod options;
mod process;
mod publisher;
mod report;
mod session;
mod shared;
mod stamp;
mod verify;
mod wire;
mod worker;

use std::io::{IsTerminal, Write};
use std::net::TcpStream;
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::Serialize;

pub use options::command;
use options::{Mode, Options, Tokens};
use process::CpuTimes;
use report::{Percentiles, Report, ServerCpu};
use session::{Client, Player, Role};
use shared::{Measured, Phase, Shared};
use worker::Worker;

use publisher::Publisher;

/// Runs the command; the exit code is 0 if the run went through and every check held, 1 if a check failed, 2 if it
/// could not be done.
#[must_use]
pub fn run(matches: &clap::ArgMatches) -> ExitCode {
    let outcome = options::read(matches).and_then(|options| {
        let json = options.json;
        Ok((measure(options)?, json))
    });
    match outcome {
        Ok((report, json)) => {
            let text = if json { report.json() + "\n" } else { report.text() };
            // A closed pipe is the reader's wish; the verdict is in the exit code.
            let _ = std::io::stdout().write_all(text.as_bytes());
            if report.intact { ExitCode::SUCCESS } else { ExitCode::from(1) }
        }
        Err(error) => {
            eprintln!("ringgate load: {error}");
            ExitCode::from(2)
        }
    }
}

/// Carries a run out.
///
/// # Errors
/// Why it could not be done, with the remedy.
fn measure(options: Options) -> Result<Report, String> {
    raise_descriptor_limit(options.total());
    let address = options.address;
    TcpStream::connect_timeout(&address, Duration::from_secs(5)).map_err(|error| {
        format!("cannot reach {address}: {error}; start the server (`ringgate serve`) or pass --url")
    })?;
    let shared = Shared::new(options);
    let clients = clients(&shared.options)?;
    thread::scope(|scope| {
        let mut threads = Vec::new();
        for (index, clients) in clients.into_iter().enumerate() {
            let worker = Worker::new(&shared, index, clients).map_err(|error| format!("epoll: {error}"))?;
            let cpu = shared.options.cpus.get(index).copied();
            let spawned = thread::Builder::new().name(format!("load-{index}")).spawn_scoped(scope, move || {
                cpu.into_iter().for_each(pin);
                worker.run()
            });
            threads.push(spawned.map_err(|error| format!("thread: {error}"))?);
        }
        let conductor = Conductor { shared: &shared, terminal: std::io::stderr().is_terminal() };
        let outcome = conductor.conduct();
        shared.enter(Phase::Stop);
        let measured = join(threads)?;
        let mut report = outcome?;
        fill(&mut report, &shared, &measured);
        Ok(report)
    })
}

type Threads<'scope> = Vec<ScopedJoinHandle<'scope, std::io::Result<Measured>>>;

fn join(threads: Threads<'_>) -> Result<Measured, String> {
    let mut all = Measured::new();
    for thread in threads {
        let measured = thread.join().map_err(|_| "a thread of the load generator panicked".to_owned())?;
        all.add(&measured.map_err(|error| format!("epoll: {error}"))?);
    }
    Ok(all)
}

/// The clients of each thread. Publishers come first in the run and stand, like the witnesses that pace them, on
/// thread 0, so that pacing needs no other thread.
fn clients(options: &Options) -> Result<Vec<Vec<(usize, Client)>>, String> {
    let mut threads: Vec<Vec<(usize, Client)>> = (0..options.threads).map(|_| Vec::new()).collect();
    for index in 0..options.publishers {
        let role = Role::Publisher(Publisher::new(index));
        let token = token(options, index, true)?;
        threads[0].push((index, Client::new(role, index % options.rooms, false, token, options)));
    }
    let first_witness = options.connections - options.rooms;
    let first_healthy = options.stalled.min(first_witness);
    for member in 0..options.connections {
        let role = match options.mode {
            Mode::Echo => Role::Echo { sent: 0, back: 0 },
            Mode::Rolls => {
                let name = format!("load-{}-{}", std::process::id(), member / 2);
                Role::Player(Player::new(&user(member), &name, member % 2 == 0))
            }
            _ if member < first_healthy => Role::Stalled,
            _ => Role::Member,
        };
        let alone = matches!(options.mode, Mode::Echo | Mode::Rolls);
        let witness = !alone && member >= first_witness;
        let (room, thread) = match options.mode {
            Mode::Rolls => (member / 2, member / 2 % options.threads),
            _ => (member % options.rooms, if witness { 0 } else { member % options.threads }),
        };
        let index = options.publishers + member;
        let token = token(options, index, false)?;
        threads[thread].push((index, Client::new(role, room, witness, token, options)));
    }
    Ok(threads)
}

#[derive(Serialize)]
struct Claims {
    sub: String,
    username: String,
    roles: &'static [&'static str],
    exp: u64,
}

/// The user of a connection.
fn user(index: usize) -> String {
    format!("load-{index}")
}

fn token(options: &Options, index: usize, publisher: bool) -> Result<String, String> {
    match &options.tokens {
        Tokens::None => Ok(String::new()),
        Tokens::Given(member, publishers) => Ok(if publisher { publishers } else { member }.clone()),
        Tokens::Minted(secret) => {
            let name = user(index);
            let roles: &[&str] = if publisher { &["user", "publisher"] } else { &["user"] };
            let day = Duration::from_secs(86_400);
            let exp = std::time::UNIX_EPOCH.elapsed().map_err(|error| error.to_string())? + day;
            let claims = Claims { sub: name.clone(), username: name, roles, exp: exp.as_secs() };
            let key = jsonwebtoken::EncodingKey::from_secret(secret.as_bytes());
            jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &key)
                .map_err(|error| format!("--secret: {error}"))
        }
    }
}

/// The main thread's part.
struct Conductor<'a> {
    shared: &'a Shared,
    terminal: bool,
}

/// How often the main thread looks.
const LOOK: Duration = Duration::from_millis(2);
/// Longest wait for all connections.
const CONNECT_LIMIT: Duration = Duration::from_secs(120);

impl Conductor<'_> {
    fn conduct(&self) -> Result<Report, String> {
        let options = &self.shared.options;
        let mut report = Report {
            mode: options.mode.name(),
            connections: options.connections,
            publishers: options.publishers,
            rooms: options.rooms,
            size: options.size,
            ..Report::default()
        };
        self.connect_to(options.publishers)?;
        let own = process::cpu_times(std::process::id());
        let server = options.pid.map(process::cpu_times);
        let begun = Instant::now();
        for count in self.steps() {
            self.connect_to(options.publishers + count)?;
            if let Some(bytes) = options.pid.and_then(process::resident_bytes) {
                report.server_rss_samples.push((count, bytes));
            }
        }
        let samples: Vec<_> = report.server_rss_samples.iter().map(|(n, bytes)| (*n as f64, *bytes as f64)).collect();
        report.server_rss_bytes_per_connection = process::slope(&samples);
        if options.mode == Mode::Storm {
            self.storm(&mut report, begun, &own, server.as_ref())?;
        } else {
            self.window(&mut report)?;
        }
        report.server_rss_bytes = options.pid.and_then(process::resident_bytes);
        self.drain()?;
        Ok(report)
    }

    /// Members after each of which the server's memory is read.
    fn steps(&self) -> Vec<usize> {
        let all = self.shared.options.connections;
        if self.shared.options.mode != Mode::Idle {
            return vec![all];
        }
        let first = if all > 4000 { 2000 } else { all.div_ceil(4) };
        (0..=4).map(|step| first + (all - first) * step / 4).collect()
    }

    fn connect_to(&self, count: usize) -> Result<(), String> {
        self.shared.allowed.store(count, Ordering::Release);
        self.wait(CONNECT_LIMIT, "connecting", || self.shared.ready.load(Ordering::Acquire) >= count)
    }

    /// Waits for a condition.
    fn wait(&self, limit: Duration, what: &str, done: impl Fn() -> bool) -> Result<(), String> {
        let deadline = Instant::now() + limit;
        while !done() {
            self.check()?;
            if Instant::now() >= deadline {
                self.progress(None);
                let (ready, all) = (self.shared.ready.load(Ordering::Acquire), self.shared.options.total());
                let log = self.shared.log();
                return Err(format!(
                    "{what}: not done after {} s, {ready} of {all} connections are live; closes {:?}, errors {:?}",
                    limit.as_secs(),
                    log.closes,
                    log.errors
                ));
            }
            self.progress(Some(what));
            thread::park_timeout(LOOK);
        }
        Ok(())
    }

    fn check(&self) -> Result<(), String> {
        let fatal = self.shared.log().fatal.clone();
        fatal.map_or(Ok(()), |reason| {
            self.progress(None);
            Err(reason)
        })
    }

    /// The measured window of every mode but the storm.
    fn window(&self, report: &mut Report) -> Result<(), String> {
        let options = &self.shared.options;
        let from = self.shared.now() + options.warmup.as_nanos() as u64;
        let to = from + options.duration.as_nanos() as u64;
        self.shared.measure_to.store(to, Ordering::Release);
        self.shared.measure_from.store(from, Ordering::Release);
        self.shared.enter(Phase::Send);
        let sleep_to = |instant: u64, what: &str| {
            let span = Duration::from_nanos(instant.saturating_sub(self.shared.now()));
            self.wait(span + Duration::from_secs(60), what, || self.shared.now() >= instant)
        };
        sleep_to(from, "warming up")?;
        let own = process::cpu_times(std::process::id());
        let server = options.pid.map(process::cpu_times);
        sleep_to(to, "measuring")?;
        report.seconds = options.duration.as_secs_f64();
        self.cpu(report, &own, server.as_ref());
        if let Some(battle) = options.battle {
            // A battle goes on while its events come; the drain ends it.
            let span = Duration::from_millis(battle.events * battle.interval_ms).saturating_sub(options.duration);
            sleep_to(self.shared.now() + span.as_nanos() as u64, "battle")?;
        }
        Ok(())
    }

    fn storm(
        &self,
        report: &mut Report,
        begun: Instant,
        own: &CpuTimes,
        server: Option<&CpuTimes>,
    ) -> Result<(), String> {
        let options = &self.shared.options;
        report.seconds = begun.elapsed().as_secs_f64();
        report.connects_per_s = Some(options.connections as f64 / report.seconds);
        report.deliveries = options.connections as u64;
        self.cpu(report, own, server);
        if options.resume {
            let again = Instant::now();
            self.shared.enter(Phase::Reconnect);
            self.wait(CONNECT_LIMIT, "dropping", || self.shared.ready.load(Ordering::Acquire) < options.total())?;
            self.wait(CONNECT_LIMIT, "resuming", || self.shared.ready.load(Ordering::Acquire) >= options.total())?;
            report.resumes_per_s = Some(options.connections as f64 / again.elapsed().as_secs_f64());
        }
        Ok(())
    }

    fn cpu(&self, report: &mut Report, own: &CpuTimes, server: Option<&CpuTimes>) {
        let cores = |ns: u64| ns as f64 / 1e9 / report.seconds;
        report.own_cpu_share = cores(process::cpu_between(own, &process::cpu_times(std::process::id())).1);
        if let (Some(before), Some(pid)) = (server, self.shared.options.pid) {
            let (threads, total) = process::cpu_between(before, &process::cpu_times(pid));
            let threads = threads.into_iter().map(|(name, ns)| (name, cores(ns))).collect();
            // The number of deliveries is known at the end; until then this is the time.
            report.server_cpu = Some(ServerCpu { cores: cores(total), us_per_delivery: total as f64 / 1e3, threads });
        }
    }

    /// Lets members take what is left; a run that is not done in time is judged as it stands.
    fn drain(&self) -> Result<(), String> {
        self.shared.enter(Phase::Drain);
        let deadline = Instant::now() + self.shared.options.drain;
        let pending = || self.shared.pending.iter().any(|pending| pending.load(Ordering::Acquire) > 0);
        while pending() && Instant::now() < deadline {
            self.check()?;
            self.progress(Some("draining"));
            thread::park_timeout(LOOK);
        }
        self.progress(None);
        Ok(())
    }

    /// One line that overwrites itself, on a terminal only; `None` clears it.
    fn progress(&self, what: Option<&str>) {
        if !self.terminal {
            return;
        }
        let shared = self.shared;
        let line = what.map_or(String::new(), |what| {
            let (ready, delivered) = (shared.ready.load(Ordering::Acquire), shared.delivered.load(Ordering::Relaxed));
            format!("{what}: {ready} of {} live, {delivered} delivered", shared.options.total())
        });
        // Without its progress line the run is as good.
        let _ = write!(std::io::stderr(), "\r\x1b[K{line}");
    }
}

/// What is known only when all threads have ended.
fn fill(report: &mut Report, shared: &Shared, measured: &Measured) {
    if shared.options.mode != Mode::Storm {
        report.deliveries = measured.deliveries;
    }
    let per_second = |count: u64| if report.seconds > 0.0 { count as f64 / report.seconds } else { 0.0 };
    report.deliveries_per_s = per_second(report.deliveries);
    report.bytes_per_s = per_second(measured.bytes);
    report.stalled_deliveries = measured.stalled_deliveries;
    report.latency = Percentiles::of(&measured.reliable_ns);
    report.delta_latency = Percentiles::of(&measured.delta_ns);
    report.stalled_latency = Percentiles::of(&measured.stalled_ns);
    report.stalled_delta_latency = Percentiles::of(&measured.stalled_delta_ns);
    report.connect_latency = Percentiles::of(&measured.connect_ns);
    report.resumed = measured.resumed;
    report.unacknowledged = measured.unacknowledged;
    if let Some(cpu) = &mut report.server_cpu {
        cpu.us_per_delivery /= report.deliveries.max(1) as f64;
    }
    let sent = shared.sent();
    report.published = sent.reliable.iter().sum();
    let log = shared.log();
    report.refused = log.refused.len() as u64;
    report.closes = log.closes.clone();
    report.errors = log.errors.clone();
    drop(log);
    report.battles = shared.options.battle.map_or(0, |_| report.connections as u64);
    report.judge(&measured.tally);
}

fn pin(cpu: usize) {
    let mut set = rustix::thread::CpuSet::new();
    set.set(cpu);
    if let Err(error) = rustix::thread::sched_setaffinity(None, &set) {
        eprintln!("ringgate load: --cpus {cpu}: {error}; the thread runs unpinned");
    }
}

/// Raises the soft limit to the hard one if the run needs it; if that is not enough, connecting says so.
fn raise_descriptor_limit(connections: usize) {
    let limit = getrlimit(Resource::Nofile);
    let wanted = connections as u64 + 64;
    if limit.current.is_some_and(|current| current < wanted) {
        let new = Rlimit { current: limit.maximum, maximum: limit.maximum };
        // Refused: the limit stays, and connecting reports it with the remedy.
        let _ = setrlimit(Resource::Nofile, new);
    }
}

#[cfg(test)]
mod fake;
#[cfg(test)]
mod tests;
