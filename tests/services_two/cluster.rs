//! A Kafka and a Redis of a test's own, the gateways on them, and what must be true when they have ended.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::backend::{Backend, values};
use crate::broker::Broker;
use crate::left::nothing_is_left;
use crate::listed;
use crate::node::{self, Gateway, command, until};
use crate::server::Server;
use crate::worker::Worker;

/// How long a session outlives its connection here.
pub const WINDOW: Duration = Duration::from_secs(60);
/// Partitions of a topic that is read in parallel.
pub const PARTITIONS: i32 = 3;

/// See the module.
pub struct Cluster {
    pub broker: Broker,
    pub redis: Server,
    control: redis::Connection,
}

impl Cluster {
    /// Both servers, and the topics.
    pub fn start() -> Self {
        let (broker, redis) = (Broker::start(), Server::start());
        let control = redis.connect();
        let cluster = Self { broker, redis, control };
        let mut create = Command::new(env!("CARGO_BIN_EXE_ringgate"));
        create.env_clear().args(["topics", "create", "--retention-s", "3600", "--partitions", &PARTITIONS.to_string()]);
        let made = cluster.on_servers(&mut create).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        cluster
    }

    /// A gateway that is ready.
    pub fn gateway(&self, id: &str) -> Gateway {
        self.gateway_with(id, &[])
    }

    /// The same with more flags.
    pub fn gateway_with(&self, id: &str, flags: &[&str]) -> Gateway {
        let window = WINDOW.as_secs().to_string();
        let mut own = vec!["--gateway-id", id, "--resume-window-s", &window];
        if !flags.contains(&"--kafka-delivery-timeout-ms") {
            own.extend(["--kafka-delivery-timeout-ms", "3000"]);
        }
        let mut serve = command(&[&own, flags].concat());
        Gateway::spawn(std::mem::replace(self.on_servers(&mut serve), Command::new("true")))
    }

    /// A worker; it stands by, or is the active one.
    pub fn worker(&self, id: &str) -> Worker {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringgate"));
        command.env_clear().env("GATEWAY_ID", id).stderr(Stdio::null());
        command.env("RINGGATE_DELIVERY_RESUME_WINDOW_S", WINDOW.as_secs().to_string());
        Worker::spawn(self.on_servers(&mut command))
    }

    /// The environment of whatever runs on these servers.
    pub fn on_servers<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        let (host, port) = self.broker.address().split_once(':').unwrap();
        command.env("KAFKA_HOST", host).env("KAFKA_PORT", port).env("JWT_SECRET", node::SECRET);
        command.env("REDIS_HOST", "127.0.0.1").env("REDIS_PORT", self.redis.settings().port.to_string());
        command.env("RINGGATE_AUTH_ROOM_TOKEN_KEY", ROOM_KEY)
    }

    /// A backend of this name; names make its events' ids.
    pub fn backend(&self, name: &str) -> Backend {
        Backend::start(self.broker.address(), name)
    }

    /// Redis has been away.
    pub fn redis_is_back(&mut self) {
        self.control = self.redis.connect();
    }

    /// Redis forgets everything.
    pub fn flush(&mut self) {
        let () = redis::cmd("FLUSHALL").query(&mut self.control).unwrap();
    }

    /// A set's members, in order.
    pub fn members(&mut self, key: &str) -> Vec<String> {
        let mut members: Vec<String> = redis::cmd("SMEMBERS").arg(key).query(&mut self.control).unwrap();
        members.sort();
        members
    }

    /// Waits until presence says just this: who is online, with one connection each, and who is in the rooms.
    pub fn tells(&mut self, gateways: &[&str], rooms: &[(&str, &[&str])], within: Duration) {
        let mut online: Vec<String> = rooms.iter().flat_map(|(_, users)| users.iter()).map(|u| (*u).into()).collect();
        online.sort();
        online.dedup();
        let began = Instant::now();
        while let Err(otherwise) = self.looks_like(gateways, rooms, &online) {
            assert!(began.elapsed() < within, "not within {within:?}: {otherwise}");
            std::thread::park_timeout(Duration::from_millis(20));
        }
        listed::check(&mut self.control, WINDOW);
    }

    /// What is otherwise.
    fn looks_like(&mut self, gateways: &[&str], rooms: &[(&str, &[&str])], online: &[String]) -> Result<(), String> {
        let there = self.members("presence:online");
        same("online", &there, online)?;
        let mut theirs = Vec::new();
        for user in online {
            let sockets = self.members(&format!("user:{user}:sockets"));
            same(user, &[sockets.len()], &[1])?;
            theirs.extend(sockets);
        }
        let mut all: Vec<_> = gateways.iter().flat_map(|id| self.members(&format!("gateway:{id}:sockets"))).collect();
        all.sort();
        theirs.sort();
        same("the gateways' sockets", &all, &theirs)?;
        for (room, users) in rooms {
            same(room, &self.members(&format!("room:{room}:users")), users)?;
            same(room, &[self.members(&format!("room:{room}:sockets")).len()], &[users.len()])?;
        }
        Ok(())
    }

    /// Drains the gateways; fails if anything is left ([`nothing_is_left`]), or if `gateway.presence` does not tell of each
    /// connection's coming and going, once.
    pub fn ends(mut self, gateways: Vec<Gateway>) {
        nothing_is_left(&mut self.control, gateways, WINDOW);
        self.everybody_came_and_went();
    }

    fn everybody_came_and_went(&self) {
        let mut told: BTreeMap<(String, String), Vec<String>> = BTreeMap::new();
        for record in values(&self.broker, "gateway.presence") {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let (kind, connection) = (&record["payload"]["type"], &record["payload"]["connection_id"]);
            let ids = told.entry((text(connection), text(kind))).or_default();
            let id = text(&record["event_id"]);
            if !ids.contains(&id) {
                ids.push(id);
            }
        }
        let of = |kind: &str| {
            let all = told.iter().filter(|((_, other), _)| other == kind);
            all.map(|((connection, _), ids)| (connection.clone(), ids.len())).collect::<Vec<_>>()
        };
        let (came, went) = (of("connected"), of("disconnected"));
        assert!(!came.is_empty() && came.iter().all(|(_, count)| *count == 1), "{came:?}");
        assert_eq!(came, went, "each who came went, once");
    }
}

/// Where the gateways are now; empty while one is away.
pub struct Directory {
    addresses: Mutex<Vec<Option<SocketAddr>>>,
    /// Sessions that went on somewhere.
    pub resumes: Count,
    /// Commands that were acknowledged.
    pub acknowledgements: Count,
    /// Commands that were answered `unavailable`.
    pub refusals: Count,
    /// Connections that were closed.
    pub closes: Count,
}

/// How often something was seen, by all players.
#[derive(Default)]
pub struct Count(AtomicU64);

impl Count {
    pub fn add(&self) {
        self.0.fetch_add(1, Ordering::AcqRel);
    }

    pub fn read(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    /// Waits until it was so often, in all.
    pub fn reaches(&self, count: u64) {
        until(&format!("{count}, is {}", self.read()), || self.read() >= count);
    }
}

impl Directory {
    /// All of these.
    pub fn of(gateways: &[&Gateway]) -> Self {
        let addresses = gateways.iter().map(|gateway| Some(gateway.address)).collect();
        let (resumes, acknowledgements, refusals, closes) = Default::default();
        Self { addresses: Mutex::new(addresses), resumes, acknowledgements, refusals, closes }
    }

    /// The gateway of this place is there now, or not.
    pub fn set(&self, at: usize, gateway: Option<&Gateway>) {
        self.lock()[at] = gateway.map(|gateway| gateway.address);
    }

    /// The address at this place, of whatever number.
    pub fn at(&self, number: usize) -> Option<SocketAddr> {
        let all = self.lock();
        all[number % all.len()]
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Option<SocketAddr>>> {
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Starts a gateway again under its id once Redis and Kafka have it back.
pub fn again(cluster: &Cluster, directory: &Directory, at: usize, id: &str) -> Gateway {
    let gateway = cluster.gateway(id);
    directory.set(at, Some(&gateway));
    until("it is ready", || gateway.page("/ready").contains("kafka"));
    gateway
}

fn same<A: PartialEq<B> + Debug, B: Debug>(what: &str, is: &[A], expected: &[B]) -> Result<(), String> {
    if is == expected { Ok(()) } else { Err(format!("{what} is {is:?}, expected {expected:?}")) }
}

const ROOM_KEY: &str = "a room token key of the tests, of 32 bytes or more";
