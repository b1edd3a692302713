//! A client under load: in one room, every tick of which it must get once and in order, wherever it is connected; it
//! sends commands, one at a time, says each again after a reconnect until it is acknowledged, and resumes at the next
//! gateway that listens.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::backend::Backend;
use crate::cluster::Directory;
use crate::json::{End, Json};
use crate::node::token;

/// See the module.
pub struct Player {
    pub user: String,
    pub room: String,
    json: Json,
    /// Where it connects next; see [`Directory::at`].
    place: usize,
    /// The last tick.
    pub tick: u64,
    /// Ticks by the room's own word.
    last: Option<u64>,
    /// How often it has resumed.
    pub resumed: u64,
    /// Close codes it was given.
    pub closes: Vec<u16>,
    /// How often a command was refused.
    pub refused: u64,
    /// Commands acknowledged, by correlation.
    pub acknowledged: BTreeSet<String>,
    sent: u64,
    waiting: Option<String>,
    next_command: Instant,
}

impl Player {
    /// Authenticates at a gateway and is let into its room by the backend.
    pub fn enter(directory: &Directory, backend: &mut Backend, place: usize, user: &str, room: &str) -> Self {
        let address = directory.at(place).expect("a gateway listens at first");
        let mut json = Json::connect(address, "", None).unwrap();
        json.authenticate(&json!({"token": token(user, &[])}));
        json.stream().set_read_timeout(Some(PATIENCE)).unwrap();
        backend.admit(json.session["session_id"].as_str().unwrap(), room);
        assert_eq!(json.expect("games.event.lobby_joined")["room_id"], room);
        Self {
            user: user.to_owned(),
            room: room.to_owned(),
            json,
            place,
            tick: 0,
            last: None,
            resumed: 0,
            closes: Vec::new(),
            refused: 0,
            acknowledged: BTreeSet::new(),
            sent: 0,
            waiting: None,
            next_command: Instant::now(),
        }
    }

    /// Plays until the room has ended, through whatever comes.
    pub fn play(&mut self, directory: &Directory) {
        while self.last.is_none() {
            if let Err(end) = self.turn(directory) {
                self.resume(directory, end);
            }
        }
        while self.waiting.is_some() {
            if let Err(end) = self.turn(directory) {
                self.resume(directory, end);
            }
        }
        assert_eq!(self.last, Some(self.tick), "{}: the last tick is the last", self.user);
    }

    /// Plays until so many more ticks have come; its connection stays.
    pub fn plays(&mut self, directory: &Directory, ticks: u64) {
        let until = self.tick + ticks;
        while self.tick < until && self.last.is_none() {
            self.turn(directory).unwrap_or_else(|end| panic!("{}: the connection ended: {end:?}", self.user));
        }
    }

    /// Resumes there while it has a connection elsewhere, which it returns.
    pub fn moves(&mut self, directory: &Directory, place: usize) -> Json {
        let fields = json!({"resume": self.json.resume(), "positions": self.json.positions()});
        let address = directory.at(place).expect("a gateway listens there");
        let next = open(address, &fields).unwrap_or_else(|| panic!("{} is not let in", self.user));
        self.place = place;
        let former = std::mem::replace(&mut self.json, next);
        self.has_resumed(directory);
        former
    }

    /// Waits for the next message and does what it says.
    fn turn(&mut self, directory: &Directory) -> Result<(), End> {
        let message = self.json.attempt()?;
        let text = |name: &str| message[name].as_str().unwrap_or_default().to_owned();
        match text("type").as_str() {
            "games.event.tick" => {
                assert_eq!(message["room_id"], self.room.as_str());
                self.tick += 1;
                assert_eq!(message["n"], self.tick, "{}: a tick is missing or doubled", self.user);
                self.command()?;
            }
            "games.event.end" => self.last = message["count"].as_u64(),
            "system.ack" => {
                assert_eq!(self.waiting.take(), Some(text("correlation_id")));
                self.acknowledged.insert(text("correlation_id"));
                directory.acknowledgements.add();
            }
            "system.error" => {
                assert_eq!(message["code"], "unavailable", "{}: {message}", self.user);
                directory.refusals.add();
                self.refused += 1;
                // Refused for now: whoever wants it done says it again.
                self.say_again()?;
            }
            _ => {}
        }
        Ok(())
    }

    /// Sends the next command, if it is time.
    fn command(&mut self) -> Result<(), End> {
        if self.waiting.is_some() || Instant::now() < self.next_command {
            return Ok(());
        }
        self.sent += 1;
        self.waiting = Some(format!("{}-{}", self.user, self.sent));
        self.say_again()
    }

    /// Says the command that waits for its acknowledgement.
    fn say_again(&mut self) -> Result<(), End> {
        let Some(correlation) = &self.waiting else { return Ok(()) };
        self.next_command = Instant::now() + COMMAND_INTERVAL;
        self.json
            .try_send(&json!({"type": "games.command.test.move", "room_id": self.room, "correlation_id": correlation}))
    }

    /// Resumes where somebody listens; it must be told that nothing is lost.
    fn resume(&mut self, directory: &Directory, end: End) {
        match end {
            End::Closed(code, _) => self.closes.push(code),
            End::Lost(_) => {}
        }
        directory.closes.add();
        let (began, resume) = (Instant::now(), self.json.resume());
        loop {
            assert!(began.elapsed() < RESUME_DEADLINE, "{}: nobody lets it in", self.user);
            self.place += 1;
            let fields = json!({"resume": resume, "positions": self.json.positions()});
            if let Some(next) = directory.at(self.place).and_then(|address| open(address, &fields)) {
                self.json = next;
                break;
            }
            std::thread::park_timeout(Duration::from_millis(20));
        }
        self.has_resumed(directory);
    }

    fn has_resumed(&mut self, directory: &Directory) {
        self.resumed += 1;
        let session = &self.json.session;
        assert_eq!(session["recovered"], true, "{}: {session}", self.user);
        assert_eq!(session["rooms"], json!([self.room]), "{}", self.user);
        directory.resumes.add();
        // If that is lost too, the next turn finds out.
        let _ = self.say_again();
    }
}

/// A connection of the session, or nothing if it cannot be had now.
fn open(address: SocketAddr, fields: &Value) -> Option<Json> {
    let mut json = Json::connect(address, "", None).ok()?;
    json.ask_in(fields).ok()?;
    loop {
        let message = json.attempt().ok()?;
        match message["type"].as_str() {
            Some("system.authenticated") => {
                json.stream().set_read_timeout(Some(PATIENCE)).ok()?;
                return Some(json);
            }
            Some("system.error") => {
                assert_eq!(message["code"], "unavailable", "{message}");
                return None;
            }
            _ => {}
        }
    }
}

/// A session has a connection again within this time, whatever happens to gateways.
const RESUME_DEADLINE: Duration = Duration::from_secs(40);
/// Longer than an outage, in which nothing may come.
const PATIENCE: Duration = Duration::from_secs(60);
/// Commands of one connection may come 20 times a second.
const COMMAND_INTERVAL: Duration = Duration::from_millis(100);
