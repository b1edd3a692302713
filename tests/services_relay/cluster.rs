//! A Kafka and a Redis of a test's own, and the gateways on them.

use std::path::PathBuf;
use std::process::Command;

use ringgate::id::StreamHandle;
use ringgate::limits::RESUME_WINDOW;

use crate::broker::Broker;
use crate::client::Client;
use crate::left::{nothing_is_left, until_empty};
use crate::listed;
use crate::node::{Gateway, SECRET, command, until};
use crate::server::Server;

/// What players tell each other without a backend.
const TABLE: &str = r#"
[[command]]
type = "party.*"
relay = "room"
rate = "1000/s"
[[event]]
type = "party.position"
relay = "room"
to = "room"
class = "delta"
coalesce = "entity_id"
kind = 300
"#;
const ROOM_KEY: &str = "a room token key of the tests, of 32 bytes or more";

/// See the module.
pub struct Cluster {
    pub broker: Broker,
    redis: Server,
    table: PathBuf,
}

impl Cluster {
    /// Both servers, and topics of so many partitions.
    pub fn start(partitions: u32) -> Self {
        let (broker, redis) = (Broker::start(), Server::start());
        let port = redis.settings().port;
        let table = std::env::temp_dir().join(format!("ringgate-relay-{}-{port}.toml", std::process::id()));
        std::fs::write(&table, TABLE).unwrap();
        let cluster = Self { broker, redis, table };
        let mut create = Command::new(env!("CARGO_BIN_EXE_ringgate"));
        create.env_clear().env("JWT_SECRET", SECRET);
        create.args(["topics", "create", "--retention-s", "3600", "--partitions", &partitions.to_string()]);
        cluster.put_servers(&mut create);
        let made = create.output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        cluster
    }

    /// A gateway that is ready, for which a frame waits a short while.
    pub fn gateway(&self, id: &str) -> Gateway {
        self.gateway_with(id, &["--kafka-delivery-timeout-ms", "3000"])
    }

    /// The same with other flags.
    pub fn gateway_with(&self, id: &str, flags: &[&str]) -> Gateway {
        let own = ["--gateway-id", id, "--config", self.table.to_str().unwrap()];
        let mut serve = command(&[&own, flags].concat());
        self.put_servers(&mut serve);
        Gateway::spawn(serve)
    }

    /// Ends these gateways, all that are left under their ids; fails if anything else is left of them, or of those that
    /// were killed.
    pub fn ends(&self, gateways: Vec<(&str, Gateway)>) {
        let mut control = self.redis.connect();
        let living: Vec<_> =
            gateways.iter().map(|(id, _)| [format!("gateway:{id}"), format!("gateway:{id}:sockets")]).collect();
        let of_the_dead = |key: &String| key.starts_with("gateway:") && !living.as_flattened().contains(key);
        until_empty("gateways that were killed are reaped", || {
            listed::keys(&mut control).into_iter().filter(of_the_dead).collect()
        });
        let gateways = gateways.into_iter().map(|(_, gateway)| gateway).collect();
        nothing_is_left(&mut control, gateways, RESUME_WINDOW);
    }

    fn put_servers(&self, command: &mut Command) {
        let (host, port) = self.broker.address().split_once(':').unwrap();
        command.env("KAFKA_HOST", host).env("KAFKA_PORT", port);
        command.env("REDIS_HOST", "127.0.0.1").env("REDIS_PORT", self.redis.settings().port.to_string());
        command.env("RINGGATE_AUTH_ROOM_TOKEN_KEY", ROOM_KEY);
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.table);
    }
}

/// A value of the process as a whole.
pub fn metric(gateway: &Gateway, name: &str) -> u64 {
    let page = gateway.page("/metrics");
    let value = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.unwrap_or_else(|| panic!("{name} in {page}")).parse().unwrap()
}

/// A publisher of the room `arena` on one gateway, of which the other one knows, and the handle to publish on.
pub fn publisher(here: &Gateway, there: &Gateway) -> (Client, StreamHandle) {
    let mut publisher = Client::publisher(here, "server");
    let relay = publisher.join("arena")[0];
    knows(there, 1);
    (publisher, relay)
}

/// Waits until the gateway knows of so many publishers in rooms.
pub fn knows(gateway: &Gateway, publishers: u64) {
    until("the gateway knows the publishers", || metric(gateway, "ringgate_relay_publishers") == publishers);
}

/// Reads a member's frames up to a reliable one with this payload; deltas by key, and all payloads of reliable ones.
pub fn read_to(member: &mut Client, last: &[u8]) -> (std::collections::BTreeMap<u64, Vec<u8>>, Vec<Vec<u8>>, u64) {
    let (mut deltas, mut reliable, mut skipped) = (std::collections::BTreeMap::new(), Vec::new(), 0);
    loop {
        let frame = member.read();
        match frame.header.frame_type {
            32 => {
                let (key, value) = frame.payload.split_first_chunk().unwrap();
                deltas.insert(u64::from_le_bytes(*key), value.to_vec());
            }
            33..=35 => {
                let ends = frame.payload == last;
                reliable.push(frame.payload);
                if ends {
                    return (deltas, reliable, skipped);
                }
            }
            36 => skipped += frame.header.number,
            _ => {}
        }
    }
}
