//! The real binary with its bus on a Kafka of the test's own.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tungstenite::{Message, WebSocket};

const RINGGATE: &str = env!("CARGO_BIN_EXE_ringgate");
const SECRET: &str = "a secret of the services' tests, 32 bytes";
const API_KEY: &str = "0123456789abcdef0123456789abcdef";

/// Runs a command of the binary against this Kafka: its exit, what it printed, what it complained of.
pub fn ringgate(kafka: &str, args: &[&str]) -> (bool, String, String) {
    let output = command(kafka).args(args).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.success(), text(&output.stdout), text(&output.stderr))
}

fn command(kafka: &str) -> Command {
    let (host, port) = kafka.split_once(':').unwrap();
    let mut command = Command::new(RINGGATE);
    command.env("KAFKA_HOST", host).env("KAFKA_PORT", port).env("GATEWAY_ID", "gw-test");
    command.env("JWT_SECRET", SECRET).env("API_KEY", API_KEY);
    command
}

/// A running gateway.
pub struct Gateway {
    child: Child,
    /// `HOST:PORT` of clients.
    pub address: String,
    health: String,
}

impl Gateway {
    /// One that is ready.
    pub fn start(kafka: &str) -> Self {
        Self::start_with(kafka, &[])
    }

    /// One with more flags.
    pub fn start_with(kafka: &str, flags: &[&str]) -> Self {
        let mut serve = command(kafka);
        serve.args(["serve", "--host", "127.0.0.1", "--port", "0", "--health-port", "0", "--log-level", "warn"]);
        serve.args(flags);
        let mut child = serve.stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut lines = lines.map(Result::unwrap);
        let first = lines.find(|line| line.contains("listens on ws://")).expect("the gateway starts");
        let second = lines.next().unwrap();
        let between = |text: &str, from: &str| text.split(from).nth(1).unwrap().split('/').next().unwrap().to_owned();
        assert!(second.contains("bus Kafka at"), "{second}");
        Self { child, address: between(&first, "ws://"), health: between(&second, "http://") }
    }

    /// An answer of the health port.
    pub fn get(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(&self.health).unwrap();
        let head = format!("Host: x\r\nAuthorization: apikey {API_KEY}\r\nConnection: close");
        write!(stream, "GET {path} HTTP/1.1\r\n{head}\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    /// Ends it as an operator does.
    pub fn stop(mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        assert!(self.child.wait().unwrap().success(), "the drain failed");
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A client of `/ws`.
pub struct Client {
    socket: WebSocket<TcpStream>,
    /// `system.authenticated`.
    pub session: Value,
}

impl Client {
    /// One that has authenticated with these fields beside its token.
    pub fn open(gateway: &Gateway, fields: Value) -> Self {
        Self::open_as(gateway, "ann", fields)
    }

    /// The same as another user.
    pub fn open_as(gateway: &Gateway, user: &str, fields: Value) -> Self {
        let stream = TcpStream::connect(&gateway.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let (socket, _) = tungstenite::client(format!("ws://{}/ws", gateway.address), stream).unwrap();
        let mut client = Self { socket, session: Value::Null };
        assert_eq!(client.until("system.welcome")["durability"], "kafka");
        let (_, token, _) = ringgate("-:1", &["token", "mint", "--sub", user]);
        let mut message = json!({"type": "system.authenticate", "token": token.trim()});
        message.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        client.send(&message);
        client.session = client.until("system.authenticated");
        client
    }

    /// Sends a message.
    pub fn send(&mut self, message: &Value) {
        self.socket.send(Message::text(message.to_string())).unwrap();
    }

    /// The next message, within a minute or so: the gateway's pings alone do not keep it waiting.
    pub fn read(&mut self) -> Result<Value, tungstenite::Error> {
        let began = Instant::now();
        loop {
            assert!(began.elapsed() < Duration::from_secs(60), "the gateway says nothing");
            match self.socket.read()? {
                Message::Text(text) => return Ok(serde_json::from_str(&text).unwrap()),
                Message::Close(Some(close)) => return Ok(json!({"type": "close", "code": u16::from(close.code)})),
                _ => {}
            }
        }
    }

    /// The next message of this type; what comes before is passed over.
    pub fn until(&mut self, message_type: &str) -> Value {
        loop {
            let message = self.read().unwrap();
            if message["type"] == message_type {
                return message;
            }
        }
    }
}
