//! A worker of the real binary.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// Ended when it is dropped.
pub struct Worker {
    child: Child,
    health: String,
}

impl Worker {
    /// One that has started; it stands by, or is the active one.
    pub fn start(kafka: &str) -> Self {
        Self::spawn(&mut Self::over(kafka))
    }

    /// What starts one over this Kafka.
    pub fn over(kafka: &str) -> Command {
        let (host, port) = kafka.split_once(':').unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringgate"));
        command.env("KAFKA_HOST", host).env("KAFKA_PORT", port).env("GATEWAY_ID", "test");
        command
    }

    /// The same with the environment of this command.
    pub fn spawn(command: &mut Command) -> Self {
        let level = std::env::var("RINGGATE_LOG_LEVEL").unwrap_or_else(|_| "warn".to_owned());
        command.args(["worker", "--health-port", "0", "--log-level", &level]);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = lines.map(Result::unwrap).find(|line| line.contains("health http://")).expect("the worker starts");
        let health = line.split("http://").nth(1).unwrap().split('/').next().unwrap().to_owned();
        Self { child, health }
    }

    /// Whether it says that it is the active one.
    pub fn is_active(&self) -> bool {
        let ready: Value = serde_json::from_str(&self.get("/ready")).unwrap();
        ready["role"] == "active"
    }

    /// A number of `/metrics`.
    pub fn metric(&self, name: &str) -> u64 {
        let metrics = self.get("/metrics");
        let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {name} in {metrics}")).parse().unwrap()
    }

    /// The body of an answer of the health port.
    pub fn get(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(&self.health).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer.split_once("\r\n\r\n").unwrap().1.to_owned()
    }

    /// It does nothing from now on.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    /// It goes on.
    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    /// Ends it at once.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Ends it as an operator does.
    pub fn stop(mut self) {
        self.signal(Signal::TERM);
        assert_eq!(self.child.wait().unwrap().code(), Some(0));
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
