//! A PostgreSQL of a test's own.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use ringgate::store::PostgresSettings;
use rustix::process::{Pid, Signal, kill_process};

/// A running server; it ends, and its data are removed, when this is dropped.
pub struct Server {
    folder: PathBuf,
    port: u16,
    password: Option<String>,
}

impl Server {
    /// One without password and TLS.
    pub fn start() -> Self {
        Self::with(&[])
    }

    /// One with these options of `postgres.sh`.
    pub fn with(options: &[&str]) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("ringgate-postgres-{}-{n}", std::process::id()));
        let port = script("start", &folder, options).parse().expect("postgres.sh prints a port");
        let password = options.iter().skip_while(|option| **option != "--password").nth(1);
        Self { folder, port, password: password.map(|password| (*password).to_owned()) }
    }

    /// What `POSTGRES_URL` says of the database that is ringgate's own.
    pub fn url(&self) -> String {
        self.url_of("ringgate", self.password.as_deref().unwrap_or("any"), "ringgate")
    }

    /// The same of another user and database.
    pub fn url_of(&self, user: &str, password: &str, database: &str) -> String {
        format!("postgres://{user}:{password}@127.0.0.1:{}/{database}", self.port)
    }

    /// How a worker reaches it.
    pub fn settings(&self, messages_max: u64) -> PostgresSettings {
        PostgresSettings::parse(&self.url(), None, messages_max).unwrap()
    }

    /// What an operator sees who asks in the database: rows as lines, columns divided by `|`.
    pub fn ask(&self, sql: &str) -> Vec<String> {
        self.ask_in("ringgate", sql)
    }

    /// The same in another database.
    pub fn ask_in(&self, database: &str, sql: &str) -> Vec<String> {
        let mut psql = Command::new("psql");
        psql.args([
            "-X",
            "-q",
            "-A",
            "-t",
            "-v",
            "ON_ERROR_STOP=1",
            "-h",
            "127.0.0.1",
            "-U",
            "postgres",
            "-d",
            database,
        ]);
        psql.args(["-p", &self.port.to_string(), "-c", sql]).stderr(Stdio::inherit());
        let output = psql.output().unwrap();
        assert!(output.status.success(), "{sql}");
        String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
    }

    /// Somebody who has begun a transaction with these commands, and does not end it before it is dropped.
    pub fn hold(&self, sql: &str) -> Holder {
        let mut psql = Command::new("psql");
        psql.args(["-X", "-q", "-A", "-t", "-h", "127.0.0.1", "-U", "postgres", "-d", "ringgate", "-p"]);
        psql.arg(self.port.to_string()).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = psql.spawn().unwrap();
        writeln!(child.stdin.as_mut().unwrap(), "BEGIN; {sql}; SELECT 'held';").unwrap();
        let mut lines = BufReader::new(child.stdout.as_mut().unwrap()).lines().map(Result::unwrap);
        assert!(lines.any(|line| line == "held"), "{sql}");
        Holder(child)
    }

    /// A file in its folder.
    pub fn file(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    /// Ends it as an operator does.
    pub fn stop(&self) {
        script("stop", &self.folder, &[]);
    }

    /// Ends it at once.
    pub fn kill(&self) {
        script("kill", &self.folder, &[]);
    }

    /// Starts it again, with its data, on its port.
    pub fn again(&self) {
        assert_eq!(script("start", &self.folder, &[]), self.port.to_string());
    }

    /// Stops all its processes as they are, or lets them go on.
    pub fn freeze(&self, frozen: bool) {
        let file = std::fs::read_to_string(self.folder.join("data/postmaster.pid")).unwrap();
        let postmaster = file.lines().next().unwrap().to_owned();
        let signal = if frozen { Signal::STOP } else { Signal::CONT };
        // First the one that makes others.
        for id in std::iter::once(postmaster.clone()).chain(children(&postmaster)) {
            // A child may just have ended.
            let _ = kill_process(Pid::from_raw(id.parse().unwrap()).unwrap(), signal);
        }
    }
}

/// See [`Server::hold`].
pub struct Holder(Child);

impl Drop for Holder {
    fn drop(&mut self) {
        // It may have been ended by the server.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.folder.join("data/postmaster.pid").exists() {
            self.freeze(false);
        }
        self.kill();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn children(of: &str) -> Vec<String> {
    let tasks = std::fs::read_to_string(format!("/proc/{of}/task/{of}/children")).unwrap_or_default();
    tasks.split_whitespace().map(str::to_owned).collect()
}

fn script(command: &str, folder: &Path, options: &[&str]) -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/services/postgres.sh");
    let output = Command::new(script).arg(command).arg(folder).args(options).stderr(Stdio::inherit()).output().unwrap();
    assert!(output.status.success(), "postgres.sh {command} failed");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}
