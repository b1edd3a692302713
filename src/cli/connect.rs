//! `ringgate connect`: an interactive client on tungstenite, of the dialect that the URL's path names. One thread reads the
//! socket, one reads standard input; the main thread alone writes and prints, one line per frame. Neither thread runs
//! ahead of it without bound: a server or a pipe that is faster waits.

mod echo;
mod hub;
mod json;

use std::collections::VecDeque;
use std::io::{BufRead, ErrorKind, IsTerminal, Write};
use std::net::TcpStream;
use std::process::ExitCode;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender, SyncSender};
use std::thread;
use std::time::{Duration, Instant};

use clap::{Arg, ArgAction, ArgMatches, Command};
use tungstenite::client::IntoClientRequest;
use tungstenite::http::HeaderValue;
use tungstenite::protocol::Role;
use tungstenite::{Error, HandshakeError, Message, WebSocket};

use self::echo::EchoConsole;
use self::hub::HubConsole;
use self::json::JsonConsole;
use crate::frame::FrameKind;
use crate::id::StreamHandle;
use crate::message::ErrorCode;
use crate::protocol::frames::client::{self, FromServer};
use crate::protocol::frames::json::{Hello, Join, Joined, read};
use crate::protocol::frames::{Header, PLAYER_KIND_MIN, type_name, types};

/// The clap command.
#[must_use]
pub fn command() -> Command {
    let value = |name: &'static str, value: &'static str| Arg::new(name).long(name).value_name(value);
    Command::new("connect")
        .about("Talks to a server readably, in the dialect of the URL's path; reads commands from standard input")
        .arg(Arg::new("url").value_name("URL").default_value("ws://127.0.0.1:9998").help(
            "Server; without a path binary frames, /ws JSON, /ws/rooms makes a room in the hub, /ws/rooms/CODE enters one, \
             /echo (dev mode) says what you say",
        ))
        .arg(value("token", "JWT").help("Token to authenticate with; in the hub that of a player"))
        .arg(value("name", "NAME").help("Enter the hub as a new player of this name"))
        .arg(value("resume", "TOKEN").help("Resume token of an earlier welcome"))
        .arg(value("room", "ROOM").help("Room to join at once; in JSON by its name"))
        .arg(value("delta-window", "N").help("Credit for deltas"))
        .arg(
            Arg::new("publisher")
                .long("publisher")
                .action(ArgAction::SetTrue)
                .help("Send `event` and `delta` as a publisher; without it `event` is a command to the publishers"),
        )
        .arg(value("linger-ms", "MS").default_value("500").help("Quiet time after the end of input before leaving"))
}

/// Runs the command; the exit code is 0 after a normal close or the end of input, 1 if the server closed otherwise or gave
/// no session, 2 if there is no connection.
#[must_use]
pub fn run(matches: &ArgMatches) -> ExitCode {
    match talk(matches) {
        Ok(normal) => ExitCode::from(u8::from(!normal)),
        Err(error) => {
            eprintln!("ringgate connect: {error}");
            ExitCode::from(2)
        }
    }
}

/// What the main thread waits for.
enum Happening {
    Frame(Vec<u8>),
    Closed(String, bool),
    Line(String),
    EndOfInput,
}

/// The writing half and what the commands need to know.
struct Console {
    socket: WebSocket<TcpStream>,
    publisher: bool,
    relay: StreamHandle,
    correlation: u64,
    /// The room to join after the welcome.
    room: Option<String>,
    refused: bool,
    /// The answer that input waits for, by correlation, 0 = the welcome; so a piped script needs no pauses.
    awaited: Option<u64>,
}

fn talk(matches: &ArgMatches) -> Result<bool, String> {
    let text = |name: &str| matches.get_one::<String>(name).map(String::as_str);
    let number = |name: &str| {
        text(name)
            .map(|value| value.parse::<u64>().map_err(|_| format!("--{name} {value:?}: give a number")))
            .transpose()
    };
    let linger = Duration::from_millis(number("linger-ms")?.unwrap_or(500));
    let delta_window = number("delta-window")?.and_then(|window| u32::try_from(window).ok());
    let (publisher, room) = (matches.get_flag("publisher"), text("room").map(str::to_owned));
    let url = text("url").unwrap_or_default();
    let dialect = Dialect::of(url);
    dialect.check(matches)?;
    let (reader, mut speaker): (_, Box<dyn Speaker>) = match dialect {
        Dialect::Frames => {
            let (reader, socket) = connect(url, None)?;
            let mut console = Console::new(socket, publisher, room);
            let hello = Hello { token: text("token"), resume: text("resume"), positions: Vec::new(), delta_window };
            console.send(|out| client::hello(out, &hello))?;
            (reader, Box::new(console))
        }
        Dialect::Json => {
            let (reader, socket) = connect(url, None)?;
            let mut console = JsonConsole::new(socket, room);
            console.authenticate(text("token"), text("resume"), delta_window)?;
            (reader, Box::new(console))
        }
        Dialect::Hub => {
            let (reader, socket) = hub::enter(url, text("name"), text("token"))?;
            (reader, Box::new(HubConsole::new(socket)))
        }
        Dialect::Echo => {
            let (reader, socket) = connect(url, None)?;
            (reader, Box::new(EchoConsole(socket)))
        }
    };
    let (sender, happenings) = mpsc::sync_channel(HAPPENINGS_AHEAD);
    let (permits, permitted) = mpsc::channel();
    let lines = sender.clone();
    // Neither thread is joined: one ends with the connection, the other may be waiting for a line for ever.
    thread::spawn(move || read_socket(reader, &sender));
    thread::spawn(move || read_lines(std::io::stdin().lock(), &permitted, &lines));
    converse(&mut *speaker, &happenings, &permits, linger)
}

/// What is spoken at a path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Dialect {
    /// D, binary frames.
    Frames,
    /// A, at `/ws`.
    Json,
    /// B, at `/ws/rooms` and below.
    Hub,
    /// None, at `/echo`.
    Echo,
}

impl Dialect {
    fn of(url: &str) -> Self {
        let path = url.strip_prefix("ws://").and_then(|rest| rest.split_once('/')).map_or("", |(_, path)| path);
        match path.split('?').next().unwrap_or_default().trim_end_matches('/') {
            "ws" => Self::Json,
            "echo" => Self::Echo,
            path if path == "ws/rooms" || path.starts_with("ws/rooms/") => Self::Hub,
            _ => Self::Frames,
        }
    }

    /// Refuses options of the other dialects.
    fn check(self, matches: &ArgMatches) -> Result<(), String> {
        let given = |names: &[&str]| {
            let name = |name: &&&str| matches.value_source(name) == Some(clap::parser::ValueSource::CommandLine);
            names.iter().find(name).map_or(String::new(), |name| format!("--{name}"))
        };
        let (options, remedy) = match self {
            Self::Frames => (given(&["name"]), "only the hub takes names; give the path /ws/rooms"),
            Self::Json => {
                (given(&["name", "publisher"]), "JSON has neither publishers nor names; leave the path /ws out")
            }
            Self::Hub => {
                let others = ["publisher", "room", "resume", "delta-window"];
                (given(&others), "the hub has none; give --name, or --token with the path /ws/rooms/CODE")
            }
            Self::Echo => {
                let others = ["token", "name", "resume", "room", "delta-window", "publisher"];
                (given(&others), "/echo knows nobody; leave the option or the path out")
            }
        };
        if options.is_empty() { Ok(()) } else { Err(format!("{options}: {remedy}")) }
    }
}

/// Connects; returns the reading and the writing half, which share the socket. `bearer` authorises the upgrade.
fn connect(url: &str, bearer: Option<&str>) -> Result<Halves, String> {
    let (host, path) = split(url)?;
    let path = if path.trim_matches('/').is_empty() { "/ws/frames" } else { path };
    let stream = reach(host)?;
    let writing = stream.try_clone().map_err(|error| error.to_string())?;
    let mut request = format!("ws://{host}{path}").into_client_request().map_err(|error| error.to_string())?;
    if Dialect::of(url) == Dialect::Frames {
        request.headers_mut().insert("Sec-WebSocket-Protocol", HeaderValue::from_static("ringgate.frames.v1"));
    }
    if let Some(token) = bearer {
        let value = HeaderValue::from_str(&format!("Bearer {token}")).map_err(|error| format!("--token: {error}"))?;
        request.headers_mut().insert("Authorization", value);
    }
    let (reader, _) = tungstenite::client(request, stream).map_err(|error| match error {
        HandshakeError::Failure(Error::Http(response)) => {
            let body = response.body().as_deref().map(String::from_utf8_lossy).unwrap_or_default();
            format!("no upgrade: {} {}", response.status(), body.trim())
        }
        error => format!("no upgrade: {error}"),
    })?;
    Ok((reader, WebSocket::from_raw_socket(writing, Role::Client, None)))
}

/// The reading and the writing half of a connection.
type Halves = (WebSocket<TcpStream>, WebSocket<TcpStream>);

/// Host and path.
fn split(url: &str) -> Result<(&str, &str), String> {
    let rest = url.strip_prefix("ws://").ok_or_else(|| format!("{url:?}: give ws://HOST:PORT"))?;
    Ok(rest.find('/').map_or((rest, ""), |at| rest.split_at(at)))
}

fn reach(host: &str) -> Result<TcpStream, String> {
    let stream = TcpStream::connect(host).map_err(|error| {
        format!("cannot reach {host}: {error}; start the server (`ringgate serve`) or pass its URL")
    })?;
    stream.set_nodelay(true).map_err(|error| error.to_string())?;
    Ok(stream)
}

fn read_socket(mut socket: WebSocket<TcpStream>, happenings: &SyncSender<Happening>) {
    loop {
        let happening = match socket.read() {
            Ok(Message::Binary(bytes)) => Happening::Frame(bytes.to_vec()),
            Ok(Message::Text(text)) => Happening::Frame(text.as_bytes().to_vec()),
            Ok(Message::Close(frame)) => {
                let (code, reason) = frame.map_or((1005, String::new()), |f| (u16::from(f.code), f.reason.to_string()));
                Happening::Closed(format!("closed {code} {reason}"), code == 1000)
            }
            // tungstenite queues a pong by itself; flushing it races with nothing, for writes are one call each.
            Ok(Message::Ping(_)) => {
                let _ = socket.flush();
                continue;
            }
            Ok(_) => continue,
            Err(error) => Happening::Closed(format!("connection ended: {error}"), false),
        };
        let ended = matches!(happening, Happening::Closed(..));
        if happenings.send(happening).is_err() || ended {
            return;
        }
    }
}

/// Takes a line for each permit.
fn read_lines(input: impl BufRead, permits: &Receiver<()>, happenings: &SyncSender<Happening>) {
    let mut lines = input.lines();
    while permits.recv().is_ok() {
        let Some(Ok(line)) = lines.next() else { break };
        if happenings.send(Happening::Line(line)).is_err() {
            return;
        }
    }
    // The main thread may have ended first.
    let _ = happenings.send(Happening::EndOfInput);
}

/// Frames and lines that wait for the main thread.
const HAPPENINGS_AHEAD: usize = 256;
/// Lines that were read and wait for an answer to the one before.
const LINES_AHEAD: usize = 64;

/// One side of the conversation, in one dialect.
trait Speaker {
    /// Sees a frame: answers what must be, remembers what commands need.
    ///
    /// # Errors
    /// The connection is gone.
    fn note(&mut self, message: &[u8]) -> Result<(), String>;
    /// Carries a typed line out; false = leave.
    ///
    /// # Errors
    /// How the line is written.
    fn carry_out(&mut self, line: &str) -> Result<bool, String>;
    /// The frame as one line.
    fn describe(&self, message: &[u8]) -> String;
    /// Whether input waits for an answer; so a piped script needs no pauses.
    fn waits(&self) -> bool;
    /// Whether it asked for a session and got none.
    fn is_refused(&self) -> bool;
    /// Says goodbye.
    fn leave(&mut self);
}

/// Prints frames and carries commands out until the connection or the input ends; whether that was normal. A line is
/// read from the input for each permit.
fn converse(
    speaker: &mut dyn Speaker,
    happenings: &Receiver<Happening>,
    permits: &Sender<()>,
    linger: Duration,
) -> Result<bool, String> {
    let tty = std::io::stdin().is_terminal();
    let permit = || {
        // Without a reader there is no more input.
        let _ = permits.send(());
    };
    (0..LINES_AHEAD).for_each(|_| permit());
    let (mut leave_at, mut input) = (None, VecDeque::<Option<String>>::new());
    loop {
        while !speaker.waits() {
            match input.pop_front() {
                None => break,
                Some(None) => leave_at = Some(Instant::now() + linger),
                Some(Some(line)) => {
                    permit();
                    match speaker.carry_out(line.trim()) {
                        Ok(true) => {}
                        Ok(false) => {
                            speaker.leave();
                            return Ok(!speaker.is_refused());
                        }
                        Err(remedy) => print(&remedy, true),
                    }
                }
            }
        }
        if tty {
            print("> ", false);
        }
        let wait = leave_at.map_or(Duration::MAX, |at| at.saturating_duration_since(Instant::now()));
        match happenings.recv_timeout(wait) {
            Ok(Happening::Frame(bytes)) => {
                speaker.note(&bytes)?;
                print(&speaker.describe(&bytes), true);
                leave_at = leave_at.map(|_| Instant::now() + linger);
            }
            Ok(Happening::Closed(text, normal)) => {
                print(&text, true);
                return Ok(normal);
            }
            Ok(Happening::Line(line)) => input.push_back(Some(line)),
            Ok(Happening::EndOfInput) => input.push_back(None),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                speaker.leave();
                return Ok(!speaker.is_refused());
            }
        }
    }
}

impl Console {
    fn new(socket: WebSocket<TcpStream>, publisher: bool, room: Option<String>) -> Self {
        Self { socket, publisher, relay: StreamHandle::NONE, correlation: 0, room, refused: false, awaited: Some(0) }
    }

    fn join(&mut self, room: &str) -> Result<(), String> {
        let correlation = self.next();
        self.awaited = Some(correlation);
        self.send(|out| client::join(out, correlation, &Join { room, password: None }))
    }

    fn command(&mut self, kind: u16, body: &str) -> Result<(), String> {
        let (stream, correlation) = (self.relay, self.next());
        self.send(|out| client::command(out, kind, stream, correlation, body.as_bytes()))
    }

    fn publish(&mut self, frame_type: u8, payload: &[u8]) -> Result<(), String> {
        let (stream, correlation) = (self.relay, self.next());
        self.send(|out| {
            client::publish(out, FrameKind { frame_type, kind: 0 }, false, stream, correlation, payload);
        })
    }

    fn next(&mut self) -> u64 {
        self.correlation += 1;
        self.correlation
    }

    fn send(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> Result<(), String> {
        let mut out = Vec::new();
        write(&mut out);
        send(&mut self.socket, Message::binary(out))
    }
}

impl Speaker for Console {
    fn note(&mut self, bytes: &[u8]) -> Result<(), String> {
        let answered = match client::parse(bytes) {
            Some(FromServer::Ping { payload }) => {
                self.send(|out| client::pong(out, payload))?;
                return Ok(());
            }
            Some(FromServer::Welcome { .. }) => {
                (self.awaited, self.refused) = (None, false);
                return self.room.take().map_or(Ok(()), |room| self.join(&room));
            }
            Some(FromServer::Joined { correlation, json }) => {
                if let Ok(joined) = read::<Joined<'_>>(&mut json.to_vec()) {
                    let relay = joined.streams.iter().find(|stream| stream.stream.starts_with("relay/"));
                    self.relay = relay.map_or(self.relay, |stream| StreamHandle(stream.handle));
                }
                correlation
            }
            Some(FromServer::Error { correlation, .. }) => correlation,
            _ => return Ok(()),
        };
        if self.awaited == Some(answered) {
            // The welcome is the one answer without a number.
            self.refused |= answered == 0;
            self.awaited = None;
        }
        Ok(())
    }

    fn carry_out(&mut self, line: &str) -> Result<bool, String> {
        let (verb, rest) = line.split_once(' ').map_or((line, ""), |(verb, rest)| (verb, rest.trim()));
        match verb {
            "" => {}
            "quit" => return Ok(false),
            "help" => print(HELP, true),
            "join" => self.join(rest)?,
            "leave" => {
                let correlation = self.next();
                self.send(|out| client::leave(out, correlation, rest))?;
            }
            "ping" => self.send(|out| client::ping(out, rest.as_bytes()))?,
            "ack" => {
                let count = rest.parse().map_err(|_| "write: ack COUNT")?;
                self.send(|out| client::delta_ack(out, count))?;
            }
            "event" if self.publisher => self.publish(types::EVENT, rest.as_bytes())?,
            "event" => self.command(PLAYER_KIND_MIN, rest)?,
            "delta" => {
                let (key, text) = rest.split_once(' ').ok_or("write: delta KEY TEXT")?;
                let key: u64 = key.parse().map_err(|_| "write: delta KEY TEXT, KEY a number")?;
                self.publish(types::WORLD_DELTA, &[&key.to_le_bytes()[..], text.as_bytes()].concat())?;
            }
            "command" => {
                let (kind, body) = rest.split_once(' ').unwrap_or((rest, "{}"));
                self.command(kind.parse().map_err(|_| "write: command KIND JSON, KIND a number")?, body)?;
            }
            other => return Err(format!("{other:?} is no command; write help")),
        }
        Ok(true)
    }

    fn describe(&self, message: &[u8]) -> String {
        describe(message)
    }

    fn waits(&self) -> bool {
        self.awaited.is_some()
    }

    fn is_refused(&self) -> bool {
        self.refused
    }

    fn leave(&mut self) {
        leave(&mut self.socket);
    }
}

const HELP: &str = "\
join ROOM · leave ROOM · event TEXT · delta KEY TEXT · command KIND JSON · ping [TEXT] · ack COUNT · quit · help";

fn send(socket: &mut WebSocket<TcpStream>, message: Message) -> Result<(), String> {
    match socket.send(message) {
        // The reading half says why.
        Err(Error::Io(error)) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        other => other.map_err(|error| format!("cannot send: {error}")),
    }
}

/// A courtesy; the server copes with its absence.
fn leave(socket: &mut WebSocket<TcpStream>) {
    let _ = socket.close(None);
    let _ = socket.flush();
}

/// A line, or a prompt; a closed pipe ends the process at the next happening, so it is not an error here.
fn print(text: &str, line: bool) {
    let mut out = std::io::stdout().lock();
    let _ = if line { writeln!(out, "{text}") } else { write!(out, "{text}") };
    let _ = out.flush();
}

/// One line: type name, the fields that are not 0, the payload as text or hex.
fn describe(message: &[u8]) -> String {
    let Some((header, payload)) = Header::read(message) else {
        return format!("{} bytes that are no frame: {}", message.len(), readable(message));
    };
    let name = type_name(header.frame_type).map_or_else(|| format!("TYPE {}", header.frame_type), str::to_owned);
    let mut line = name;
    let fields = [
        ("flags", u64::from(header.flags)),
        ("kind", u64::from(header.kind)),
        ("stream", u64::from(header.stream.0)),
        ("number", header.number),
        ("prev", header.prev),
    ];
    for (name, value) in fields.into_iter().filter(|(_, value)| *value != 0) {
        line += &format!(" {name}={value}");
    }
    let code = ErrorCode::ALL.get(usize::from(header.kind).wrapping_sub(1));
    if let (types::ERROR, Some(code)) = (header.frame_type, code) {
        line += &format!(" code={}", code.name());
    }
    let keyed = header.frame_type == types::WORLD_DELTA || header.flags & Header::FORGETS != 0;
    match payload.split_first_chunk::<8>() {
        Some((key, rest)) if keyed => line + &format!(" key={} {}", u64::from_le_bytes(*key), readable(rest)),
        _ if payload.is_empty() => line,
        _ => line + " " + &readable(payload),
    }
}

/// Text as it is, without control characters; other bytes in hex.
fn readable(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.chars().any(char::is_control) => text.to_owned(),
        _ => bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
    }
}

#[cfg(test)]
mod tests {
    use std::io::BufReader;

    use tungstenite::handshake::server::{Request, Response};

    use super::*;
    use crate::message::{Introduction, Position};
    use crate::protocol::frames::json;
    use crate::protocol::frames::{Inbound, parse, write};

    /// A frame is one line with its name, its fields and its payload; control characters never reach the terminal.
    #[test]
    fn frames_are_readable() {
        let line = |write: &dyn Fn(&mut Vec<u8>)| {
            let mut out = Vec::new();
            write(&mut out);
            describe(&out[2..])
        };
        assert_eq!(line(&|out| write::ack(out, 7)), "ACK number=7");
        let error = line(&|out| write::error(out, ErrorCode::BadRequest, 2, "no"));
        assert_eq!(error, "ERROR kind=3 number=2 code=bad_request no");
        assert_eq!(line(&|out| write::ping(out, b"\x1b[2J")), "PING 1b5b324a");
        let delta = Header { frame_type: types::WORLD_DELTA, stream: StreamHandle(3), number: 9, ..Header::default() };
        let body = [&5u64.to_le_bytes()[..], b"x"].concat();
        assert_eq!(line(&|out| write::frame(out, delta, &body)), "WORLD_DELTA stream=3 number=9 key=5 x");
        assert_eq!(describe(b"ab"), "2 bytes that are no frame: ab");
    }

    /// A connected console and its server.
    fn pair() -> (Console, WebSocket<TcpStream>) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = thread::spawn(move || {
            #[expect(clippy::result_large_err, reason = "the callback's type is tungstenite's")]
            let agree = |_: &Request, mut response: Response| {
                let name = HeaderValue::from_static("ringgate.frames.v1");
                response.headers_mut().insert("Sec-WebSocket-Protocol", name);
                Ok(response)
            };
            tungstenite::accept_hdr(listener.accept().unwrap().0, agree).unwrap()
        });
        let (_reader, socket) = connect(&format!("ws://{address}"), None).unwrap();
        let mut console = Console::new(socket, true, None);
        console.relay = StreamHandle(3);
        (console, server.join().unwrap())
    }

    /// A script's lines wait for the welcome and for each join, so that `event` knows its stream; the end of input
    /// comes last.
    #[test]
    fn scripts_wait_for_answers() {
        let (mut console, mut server) = pair();
        let (sender, happenings) = mpsc::channel();
        for line in ["join arena", "event hello"] {
            sender.send(Happening::Line(line.into())).unwrap();
        }
        sender.send(Happening::EndOfInput).unwrap();
        let frame = |write: &dyn Fn(&mut Vec<u8>)| {
            let mut out = Vec::new();
            write(&mut out);
            let head = if out[1] == 126 { 4 } else { 2 };
            Happening::Frame(out.split_off(head))
        };
        let position = Position { stream: "relay/room:arena".into(), epoch: 1, place: 0 };
        let relay = Introduction { handle: StreamHandle(9), position, publishers_only: false };
        sender.send(frame(&|out| write::welcome(out, &json::Welcome::default()))).unwrap();
        sender.send(frame(&|out| write::joined(out, 1, "arena", [&relay], None))).unwrap();
        assert_eq!(converse(&mut console, &happenings, &mpsc::channel().0, Duration::ZERO), Ok(true));
        let mut join = server.read().unwrap().into_data().to_vec();
        assert!(matches!(parse(&mut join), Ok(Inbound::Join { correlation: 1, .. })));
        let mut event = server.read().unwrap().into_data().to_vec();
        assert!(matches!(parse(&mut event), Ok(Inbound::Publish { stream: StreamHandle(9), .. })));
        assert!(server.read().unwrap().is_close());
    }

    /// Every command sends the frame it names, and a wrong one sends nothing and says how it is written.
    #[test]
    fn commands_send_frames() {
        let (mut console, mut server) = pair();
        let mut sent = |line: &str| {
            assert_eq!(console.carry_out(line), Ok(true));
            server.read().unwrap().into_data().to_vec()
        };
        assert!(matches!(parse(&mut sent("join arena")), Ok(Inbound::Join { correlation: 1, .. })));
        assert_eq!(parse(&mut sent("leave arena")), Ok(Inbound::Leave { correlation: 2, room: "arena" }));
        assert_eq!(parse(&mut sent("ping")), Ok(Inbound::Ping { payload: b"" }));
        assert_eq!(parse(&mut sent("ack 4")), Ok(Inbound::DeltaAck { count: 4 }));
        let event = sent("event hello there");
        assert_eq!(Header::read(&event).unwrap().1, b"hello there");
        let mut delta = sent("delta 5 x");
        assert!(matches!(parse(&mut delta), Ok(Inbound::Publish { key: 5, stream: StreamHandle(3), .. })));
        let mut command = sent(r#"command 10 {"events":3}"#);
        assert!(matches!(parse(&mut command), Ok(Inbound::Command { kind: 10, payload: br#"{"events":3}"#, .. })));
        for (line, remedy) in [("delta x", "delta KEY TEXT"), ("ack", "ack COUNT"), ("dance", "help")] {
            assert!(console.carry_out(line).unwrap_err().contains(remedy));
        }
        assert_eq!(console.carry_out("quit"), Ok(false));
    }

    /// However much input there is, only so many lines are taken while the first waits for its answer.
    #[test]
    fn input_waits_for_answers() {
        let (mut console, mut server) = pair();
        console.awaited = None;
        let (sender, happenings) = mpsc::sync_channel(HAPPENINGS_AHEAD);
        let (permits, permitted) = mpsc::channel();
        let lines = sender.clone();
        let reader = thread::spawn(move || {
            let mut input = std::io::Cursor::new("join arena\n".repeat(10 * LINES_AHEAD));
            read_lines(BufReader::with_capacity(11, &mut input), &permitted, &lines);
            input.position() / 11
        });
        thread::scope(|scope| {
            scope.spawn(|| {
                assert!(server.read().is_ok());
                sender.send(Happening::Closed(String::new(), false)).unwrap();
            });
            assert_eq!(converse(&mut console, &happenings, &permits, Duration::ZERO), Ok(false));
        });
        drop((permits, happenings));
        assert!((1..=1 + LINES_AHEAD as u64).contains(&reader.join().unwrap()));
    }

    /// The path names the dialect, and options of another one are refused with the remedy.
    #[test]
    fn paths_name_dialects() {
        for (line, dialect, remedy) in [
            ("", Dialect::Frames, None),
            ("ws://a:1/ws/frames --publisher --room r", Dialect::Frames, None),
            ("--name Ann", Dialect::Frames, Some("give the path /ws/rooms")),
            ("ws://a:1/ws?token=t --room r", Dialect::Json, None),
            ("ws://a:1/ws/ --publisher", Dialect::Json, Some("leave the path /ws out")),
            ("ws://a:1/ws/rooms --name Ann", Dialect::Hub, None),
            ("ws://a:1/ws/rooms/ABCDEF?token=t", Dialect::Hub, None),
            ("ws://a:1/ws/rooms/ABCDEF --resume r", Dialect::Hub, Some("--resume: the hub has none")),
            ("ws://a:1/ws/roomservice", Dialect::Frames, None),
        ] {
            let matches = command().get_matches_from(format!("connect {line}").split_whitespace());
            let found = Dialect::of(matches.get_one::<String>("url").unwrap());
            assert_eq!(found, dialect, "{line}");
            match (found.check(&matches), remedy) {
                (Err(error), Some(remedy)) => assert!(error.contains(remedy), "{error}"),
                (outcome, remedy) => assert_eq!((outcome, remedy), (Ok(()), None), "{line}"),
            }
        }
    }

    /// A server that is not there is a plain error with a remedy.
    #[test]
    fn an_absent_server_is_explained() {
        let error = connect("ws://127.0.0.1:1", None).err().unwrap();
        assert!(error.contains("cannot reach 127.0.0.1:1") && error.contains("ringgate serve"), "{error}");
        assert!(connect("http://x", None).err().unwrap().contains("ws://HOST:PORT"));
    }
}
