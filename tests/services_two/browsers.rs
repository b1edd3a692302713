//! The README's page "Two gateways on Kafka and Redis", played in two windows of a real browser.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::Signal;

use crate::cluster::Cluster;
use crate::node::{Gateway, token, until};
use crate::worker::Worker;

/// A browser that hangs fails instead.
const SECONDS: &str = "300";
const IDS: [&str; 2] = ["a", "b"];

/// Ann's window is on gateway a, Bob's on gateway b. They open a room, join it, chat and play dice to the end, while first
/// Bob's gateway, then the active worker, then Ann's gateway, then Bob's again is killed: the other window plays on, the
/// one that was cut off comes back by itself, and both were told the same, each event once and in order. Presence tells the
/// truth of it. Pictures stay in `target/screenshots/two`.
#[test]
fn a_game_in_two_windows_survives_either_gateway_and_the_worker() {
    let cluster = Cluster::start();
    let mut gateways = IDS.map(|id| cluster.gateway_with(id, &["--dev"]));
    let mut workers = ["worker:0", "worker:1"].map(|id| Some(cluster.worker(id)));
    until("one of them is active", || workers.iter().flatten().any(Worker::is_active));
    let [ann, bob] = [("ann", &gateways[0]), ("bob", &gateways[1])]
        .map(|(name, gateway)| format!("http://{}/#token={}", gateway.address, token(name, &[])));
    let mut windows = windows([&ann, &bob]);
    let mut orders = windows.stdin.take().unwrap();
    let lines = BufReader::new(windows.stdout.take().unwrap()).lines();
    let mut asked = Vec::new();
    for line in lines.map_while(Result::ok) {
        println!("{line}");
        match line.as_str() {
            "kill gateway a" => kill(&mut gateways[0]),
            "kill gateway b" => kill(&mut gateways[1]),
            "start gateway a" => gateways[0] = again(&cluster, "a", &gateways[0]),
            "start gateway b" => gateways[1] = again(&cluster, "b", &gateways[1]),
            "kill worker" => {
                let active = workers.iter_mut().find(|worker| worker.as_ref().is_some_and(Worker::is_active));
                active.and_then(Option::take).expect("one is active").kill();
            }
            _ => continue,
        }
        asked.push(line);
        writeln!(orders, "done").unwrap();
    }
    assert!(windows.wait().unwrap().success());
    let of = |what: &str| asked.iter().filter(|line| line.as_str() == what).count();
    assert_eq!(["kill gateway a", "kill gateway b", "kill worker"].map(of), [1, 2, 1], "{asked:?}");
    workers.into_iter().flatten().for_each(Worker::stop);
    cluster.ends(gateways.into());
}

/// The browser, and who plays in it.
fn windows(urls: [&str; 2]) -> Child {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let equip = Command::new(root.join("tests/services/chromium.sh")).stderr(Stdio::inherit()).output().unwrap();
    assert!(equip.status.success());
    let mut node = Command::new("timeout");
    node.args([SECONDS, "node"]).arg(root.join("tests/page/gateways.mjs")).args(urls);
    node.arg(root.join("target/screenshots/two"));
    node.env("NODE_PATH", String::from_utf8(equip.stdout).unwrap().trim());
    node.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap()
}

fn kill(gateway: &mut Gateway) {
    gateway.signal(Signal::KILL);
    let _ = gateway.ended();
}

/// The same gateway, at its address, where the window looks for it.
fn again(cluster: &Cluster, id: &str, former: &Gateway) -> Gateway {
    let gateway = cluster.gateway_with(id, &["--dev", "--port", &former.address.port().to_string()]);
    assert_eq!(gateway.address, former.address);
    gateway
}
