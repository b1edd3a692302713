//! A Redis of a test's own.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::process::{Pid, Signal, kill_process};

use crate::presence::RedisSettings;

/// A running server; it ends when this is dropped.
pub struct Server {
    folder: PathBuf,
    options: Vec<String>,
    settings: RedisSettings,
}

impl Server {
    /// One without password and TLS.
    pub fn start() -> Self {
        Self::with(&[])
    }

    /// One with these options of `redis.sh`.
    pub fn with(options: &[&str]) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("ringgate-redis-{}-{n}", std::process::id()));
        let options: Vec<String> = options.iter().map(|option| (*option).to_owned()).collect();
        let port = script("start", &folder, &options).parse().expect("redis.sh prints a port");
        let mut settings = RedisSettings::new("127.0.0.1", port);
        settings.password = options.iter().skip_while(|option| *option != "--password").nth(1).cloned();
        settings.tls = options.iter().any(|option| option == "--tls");
        settings.ca_path = settings.tls.then(|| folder.join("ca.crt").display().to_string());
        Self { folder, options, settings }
    }

    /// How it is reached.
    pub fn settings(&self) -> &RedisSettings {
        &self.settings
    }

    /// A connection of the test's own.
    pub fn connect(&self) -> redis::Connection {
        redis::Client::open(("127.0.0.1", self.settings.port)).unwrap().get_connection().unwrap()
    }

    /// Ends it; what it had is gone.
    pub fn stop(&self) {
        script("stop", &self.folder, &[]);
    }

    /// Starts it again, empty, on its port.
    pub fn restart(&self) {
        let mut options = vec!["--port".to_owned(), self.settings.port.to_string()];
        options.extend(self.options.iter().cloned());
        script("start", &self.folder, &options);
    }

    /// Stops its process as it is, or lets it go on.
    pub fn freeze(&self, frozen: bool) {
        let id = std::fs::read_to_string(self.folder.join("redis.pid")).unwrap().trim().parse().unwrap();
        kill_process(Pid::from_raw(id).unwrap(), if frozen { Signal::STOP } else { Signal::CONT }).unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.folder.join("redis.pid").exists() {
            self.freeze(false);
        }
        self.stop();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn script(command: &str, folder: &Path, options: &[String]) -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/services/redis.sh");
    let output = Command::new(script).arg(command).arg(folder).args(options).stderr(Stdio::inherit()).output().unwrap();
    assert!(output.status.success(), "redis.sh {command} failed");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}
