//! How the process ends, and why it does not begin.

use std::io::Write;
#[cfg(feature = "kafka")]
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
#[cfg(feature = "kafka")]
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;
#[cfg(feature = "kafka")]
use rustix::process::{Pid, kill_process};

use crate::client::Client;
use crate::node::{command, on_each_driver, until};
use crate::raw::Raw;

/// SIGTERM: every connection is told 1012 and when to come back, then the process ends with exit code 0; SIGINT is the
/// same.
#[test]
fn a_drain_tells_everybody() {
    for signal in [Signal::TERM, Signal::INT] {
        on_each_driver(&[], |gateway| {
            let mut clients: Vec<Client> = (0..20).map(|n| Client::player(gateway, &format!("p{n}"))).collect();
            clients.push(Client::open(gateway));
            gateway.signal(signal);
            for client in &mut clients {
                let (code, text) = client.closed();
                assert_eq!(code, 1012);
                let delay = text.strip_prefix("reconnect in ").and_then(|rest| rest.strip_suffix(" ms"));
                assert!(delay.is_some_and(|delay| delay.parse::<u64>().is_ok_and(|ms| ms < 5000)), "{text}");
            }
            let told = clients.len();
            drop(clients);
            assert_eq!(gateway.ended().code(), Some(0));
            told
        });
    }
}

/// A start that waits for a Kafka that is not there ends as soon as it is told to, the gateway's and the worker's.
#[cfg(feature = "kafka")]
#[test]
fn a_start_that_waits_can_be_ended() {
    for what in ["serve", "worker"] {
        // Nobody listens on a port that was bound just now.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut start = Command::new(env!("CARGO_BIN_EXE_ringgate"));
        start.env_clear().args([what, "--health-port", "0"]).env("KAFKA_HOST", "127.0.0.1").env("WS_PORT", "0");
        start.env("KAFKA_PORT", port.to_string()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut start = start.spawn().unwrap();
        let mut lines = BufReader::new(start.stderr.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap().contains("Connection refused")), "{what} does not wait");
        kill_process(Pid::from_child(&start), Signal::TERM).unwrap();
        let mut status = None;
        until("it ends", || {
            status = start.try_wait().unwrap();
            status.is_some()
        });
        assert_eq!(status.unwrap().code(), Some(0), "{what}");
    }
}

/// A client that does not close holds the drain up to the close time-out, no longer.
#[test]
fn a_drain_is_bounded() {
    on_each_driver(&["--close-ms", "300"], |gateway| {
        let mut stubborn = Raw::player(gateway, "bob");
        gateway.signal(Signal::TERM);
        assert_eq!(stubborn.closed(), 1012);
        gateway.ended().code()
    });
}

/// A second signal ends the process at once, whoever has not closed yet.
#[test]
fn a_second_signal_ends_at_once() {
    on_each_driver(&["--close-ms", "60000", "--drain-ms", "60000"], |gateway| {
        let mut stubborn = Raw::player(gateway, "bob");
        gateway.signal(Signal::TERM);
        assert_eq!(stubborn.frame().unwrap().0, 0x88);
        until("draining is said", || gateway.page("/ready").contains("\"draining\":true"));
        assert!(gateway.is_running());
        let signalled = Instant::now();
        gateway.signal(Signal::TERM);
        let code = gateway.ended().code();
        assert!(signalled.elapsed() < Duration::from_secs(5));
        code
    });
}

/// SIGHUP neither ends the process nor a connection.
#[test]
fn a_hangup_changes_nothing() {
    on_each_driver(&[], |gateway| {
        let mut client = Client::player(gateway, "bob");
        gateway.signal(Signal::HUP);
        until("it is logged", || gateway.log().contains("SIGHUP"));
        client.send(|out| ringgate::protocol::frames::client::ping(out, b"here"));
        assert_eq!(client.read().payload, b"here");
    });
}

/// A start that cannot be ends with a non-zero exit code, nothing on stdout, and one line that names what is wrong and
/// what to do.
#[test]
fn failed_starts_say_why() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let scratch = std::env::temp_dir().join(format!("ringgate-drain-{}.toml", std::process::id()));
    std::fs::File::create(&scratch).unwrap().write_all(b"[server]\nprot = 1\n").unwrap();
    let scratch_name = scratch.to_str().unwrap().to_owned();
    let cases: [(&[&str], i32, &[&str]); 6] = [
        (&["--port", &port], 1, &["port 127.0.0.1:", &port, "in use", "--port"]),
        (&["--health-port", &port], 1, &["health port", &port, "in use", "--health-port"]),
        (&["--driver", "kqueue"], 2, &["--driver kqueue", "auto, uring or monoio"]),
        (&["--ping-ms", "50000"], 2, &["ping_ms", "less than half of idle_ms"]),
        (&["--config", &scratch_name], 2, &[&scratch_name, ":2", "prot", "port"]),
        (&["--jwt-public-key-path", "/nowhere.pem"], 2, &["jwt_public_key_path"]),
    ];
    for (flags, code, words) in cases {
        let output = command(flags).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{flags:?}: {stderr}");
        assert!(output.stdout.is_empty());
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
        for word in words {
            assert!(stderr.contains(word), "{flags:?}: no {word:?} in {stderr}");
        }
    }
    let output = command(&["--no-such-flag"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8(output.stderr).unwrap().contains("--no-such-flag"));
    std::fs::remove_file(scratch).unwrap();
}
