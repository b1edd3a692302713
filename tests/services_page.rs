//! The JavaScript of `src/page`: `tests/page` passes on Node, and the demo page plays in a real browser against the real
//! binary. `tests/services/page.sh` and `chromium.sh` equip them.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

/// A browser that hangs fails instead.
const DEMO_SECONDS: &str = "300";

/// A gateway in dev mode; ended when it is dropped.
struct Gateway {
    process: Child,
    /// The page's address.
    url: String,
}

impl Gateway {
    fn start(driver: &str) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_ringgate"))
            .args(["serve", "--host", "127.0.0.1", "--port", "0", "--health-port", "0", "--dev", "--driver", driver])
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines().map_while(Result::ok);
        let line = lines.find(|line| line.contains("#token=")).expect("a line with the page's address");
        let url = line.split_whitespace().last().unwrap().split('#').next().unwrap().to_owned();
        // Whatever else it says must not find a closed pipe.
        std::thread::spawn(move || lines.for_each(drop));
        Self { process, url }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn path(relative: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(relative)
}

fn succeeded(output: &Output) -> String {
    let (said, complained) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}{complained}");
    said.trim().to_owned()
}

/// The client keeps its promises against scripted gateways, the page makes the right state of what it receives.
#[test]
fn the_pages_tests_pass() {
    succeeded(&Command::new(path("tests/services/page.sh")).output().unwrap());
}

/// Two windows of a real browser sign in, meet in a room, chat and play dice to the end while TCP connections of one are
/// reset again and again, also in the middle of a frame, and the other cuts its own: neither misses or doubles anything.
/// Pictures stay in `target/screenshots`.
#[test]
fn two_browsers_play_the_demo() {
    let equip = Command::new(path("tests/services/chromium.sh")).stderr(Stdio::inherit()).output().unwrap();
    let modules = succeeded(&equip);
    for driver in ["uring", "monoio"] {
        let gateway = Gateway::start(driver);
        let demo = Command::new("timeout")
            .args([DEMO_SECONDS, "node"])
            .args([path("tests/page/demo.mjs"), PathBuf::from(&gateway.url)])
            .arg(path("target/screenshots").join(driver))
            .env("NODE_PATH", &modules)
            .output()
            .unwrap();
        let summary = succeeded(&demo);
        println!("{driver}: {summary}");
        for (name, least) in [("rolls", 17), ("cuts", 2), ("resumed", 2), ("compared", 20)] {
            assert!(count(&summary, name) >= least, "{name}: {summary}");
        }
        assert_eq!(count(&summary, "resumed"), count(&summary, "cuts"), "{summary}");
    }
}

/// A number of the demo's last line, which is a flat JSON object.
fn count(summary: &str, name: &str) -> u64 {
    let rest = summary.split_once(&format!("\"{name}\":")).unwrap_or_else(|| panic!("{name} in {summary}")).1;
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    rest[..end].parse().unwrap()
}
