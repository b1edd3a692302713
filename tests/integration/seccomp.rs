//! Kernels and containers without io_uring.

use std::os::unix::process::CommandExt;
use std::process::Command;

use ringgate::shard::driver::syscall::deny_io_uring;

use crate::client::Client;
use crate::disk::DataDir;
use crate::node::{Gateway, command};

/// Where io_uring is denied, `auto` serves with monoio and its banner says why.
#[test]
fn auto_falls_back_and_says_why() {
    let gateway = Gateway::spawn(denied(command(&["--driver", "auto"])));
    assert!(gateway.banner.contains("driver monoio ("), "{}", gateway.banner);
    assert!(gateway.banner.contains("io_uring"), "{}", gateway.banner);
    assert!(gateway.page("/ready").contains("\"driver\":\"monoio\""));
    let mut publisher = Client::publisher(&gateway, "server");
    publisher.join("arena");
}

/// Where io_uring works, `auto` takes it.
#[test]
fn auto_takes_io_uring() {
    let gateway = Gateway::start(&["--driver", "auto"]);
    assert!(gateway.banner.contains("driver uring"), "{}", gateway.banner);
}

/// Where io_uring is denied, `--driver uring` fails with the cause and the remedy.
#[test]
fn uring_by_name_fails_with_its_remedy() {
    let output = denied(command(&["--driver", "uring"])).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(output.stdout.is_empty());
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    for word in ["--driver uring", "io_uring", "seccomp", "--driver auto"] {
        assert!(stderr.contains(word), "no {word:?} in {stderr}");
    }
}

/// The log on disk is written by tokio-uring where it works; where it is denied `auto` falls back and says why, and by
/// name it fails with the remedy.
#[test]
fn the_log_falls_back_to_its_thread() {
    let dir = DataDir::new();
    let path = dir.0.to_str().unwrap();
    let gateway = Gateway::start(&["--data-dir", path]);
    assert!(gateway.banner.contains("written by tokio-uring (a trial"), "{}", gateway.banner);
    drop(gateway);
    let gateway = Gateway::spawn(denied(command(&["--data-dir", path])));
    assert!(gateway.banner.contains("written by thread (tokio-uring: "), "{}", gateway.banner);
    drop(gateway);
    let output = denied(command(&["--data-dir", path, "--bus-writer", "tokio-uring"])).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && stderr.contains("--bus-writer auto"), "{stderr}");
}

/// The command, run under a filter that answers EPERM to io_uring's system calls.
fn denied(mut command: Command) -> Command {
    // SAFETY: between fork and exec the closure makes two system calls and allocates nothing.
    unsafe { command.pre_exec(deny_io_uring) };
    command
}
