//! A gateway process on free ports: started, awaited by its first line, observed through /proc and its health port,
//! killed on drop.

use std::fmt::Debug;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ringgate::auth::{Grant, Signer};
use rustix::process::{Pid, Signal, kill_process};

/// Both drivers must pass every test with the same counts.
pub const DRIVERS: [&str; 2] = ["uring", "monoio"];
/// A condition that has not come true after this time will not.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// Opens the server API.
pub const API_KEY: &str = "an-integration-tests-api-key";
pub const SECRET: &str = "an integration test's secret, 32 bytes and more";

/// Runs a test against a fresh gateway of each driver; what it counted must be equal.
pub fn on_each_driver<C: PartialEq + Debug>(flags: &[&str], test: impl Fn(&mut Gateway) -> C) {
    let counts = DRIVERS.map(|driver| {
        let mut gateway = Gateway::start(&[&["--driver", driver], flags].concat());
        let count = test(&mut gateway);
        println!("{driver}: {count:?}");
        count
    });
    assert_eq!(counts[0], counts[1], "{DRIVERS:?} count differently");
}

/// A running gateway.
pub struct Gateway {
    child: Child,
    pub address: SocketAddr,
    pub health: SocketAddr,
    /// The first two lines of stdout.
    pub banner: String,
    stdout: BufReader<ChildStdout>,
    stderr: Arc<Mutex<String>>,
    listener: Option<JoinHandle<()>>,
}

/// The binary with its key and two free ports on loopback, two shards; flags given later win nothing back.
pub fn command(flags: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringgate"));
    command.env_clear().env("JWT_SECRET", SECRET).env("API_KEY", API_KEY).stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    for (flag, value) in [("--host", "127.0.0.1"), ("--port", "0"), ("--health-port", "0"), ("--shards", "2")] {
        if !flags.contains(&flag) {
            command.args([flag, value]);
        }
    }
    command.args(flags);
    command
}

/// A token of `sub` with these roles.
pub fn token(sub: &str, roles: &[&str]) -> String {
    signer().mint(&Grant { sub, roles, ..Grant::default() })
}

/// Mints what the gateways of the tests take.
pub fn signer() -> Signer {
    Signer::from_secret(SECRET.as_bytes()).unwrap()
}

impl Gateway {
    pub fn start(flags: &[&str]) -> Self {
        Self::spawn(command(flags))
    }

    /// Starts and reads until the gateway says where it listens.
    pub fn spawn(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let mut errors = BufReader::new(child.stderr.take().unwrap());
        let stderr = Arc::new(Mutex::new(String::new()));
        let listener = std::thread::spawn({
            let stderr = Arc::clone(&stderr);
            move || {
                let mut line = String::new();
                while errors.read_line(&mut line).is_ok_and(|bytes| bytes > 0) {
                    stderr.lock().unwrap().push_str(&line);
                    line.clear();
                }
            }
        });
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut banner = String::new();
        while banner.lines().count() < 2 && stdout.read_line(&mut banner).unwrap() > 0 {}
        if banner.lines().count() < 2 {
            let (status, _) = (child.wait().unwrap(), listener.join());
            panic!("no ready line, {status}: {banner} {}", stderr.lock().unwrap());
        }
        let between = |from: &str| {
            let rest = banner.split_once(from).unwrap_or_else(|| panic!("{from} in {banner}")).1;
            rest.split_once('/').unwrap().0.parse().unwrap()
        };
        let (address, health) = (between("ws://"), between("http://"));
        Self { child, address, health, banner, stdout, stderr, listener: Some(listener) }
    }

    /// The next line of stdout with this text.
    pub fn line_with(&mut self, text: &str) -> String {
        let mut line = String::new();
        while !line.contains(text) {
            line.clear();
            assert!(self.stdout.read_line(&mut line).unwrap() > 0, "the output ended without {text:?}");
        }
        line.trim_end().to_owned()
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        self.stderr.lock().unwrap().clone()
    }

    fn status_kib(&self, field: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with(field)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// Resident memory, KiB.
    pub fn rss_kib(&self) -> u64 {
        self.status_kib("VmRSS:")
    }

    /// Open descriptors.
    pub fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap().count()
    }

    /// Body of a page of the health port.
    pub fn page(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(self.health).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer.split_once("\r\n\r\n").unwrap().1.to_owned()
    }

    /// The values of a metric, one per shard.
    pub fn metric(&self, name: &str) -> Vec<u64> {
        let page = self.page("/metrics");
        let rows = page.lines().filter(|line| line.split('{').next() == Some(name));
        rows.map(|line| line.rsplit_once(' ').unwrap().1.parse().unwrap()).collect()
    }

    /// Connections that ended for the reason with this label, all shards.
    pub fn closes(&self, label: &str) -> u64 {
        let (page, label) = (self.page("/metrics"), format!("reason=\"{label}\""));
        let rows = page.lines().filter(|line| line.starts_with("ringgate_closes") && line.contains(&label));
        rows.map(|line| line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap()).sum()
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for its end.
    pub fn ended(&mut self) -> ExitStatus {
        let mut status = None;
        until("the gateway ends", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let ended = self.child.try_wait().is_ok_and(|status| status.is_some());
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(listener) = self.listener.take() {
            let _ = listener.join();
        }
        if std::thread::panicking() {
            eprintln!("gateway had ended: {ended}; its log:\n{}", self.log());
        } else {
            assert!(!self.log().contains("panicked"), "{}", self.log());
        }
    }
}

/// Asks again, a little apart, until it is so.
pub fn until(what: &str, holds: impl FnMut() -> bool) {
    until_within(DEADLINE, what, holds);
}

/// The same for what takes its time.
pub fn until_within(limit: Duration, what: &str, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < limit, "{what}: not within {limit:?}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}
