//! The real binary's command line.

use std::io::Write as _;
use std::process::{Command, Output, Stdio};

fn ringgate(args: &[&str], stdin: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_ringgate"))
        .args(args)
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A program that does not read its input may be gone already.
    let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
    child.wait_with_output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// What `config default` prints is a valid configuration that changes nothing.
#[test]
fn the_default_configuration_checks() {
    let default = ringgate(&["config", "default"], "");
    assert!(default.status.success());
    let checked = ringgate(&["config", "check", "-"], text(&default.stdout));
    assert!(checked.status.success(), "{checked:?}");
    assert_eq!(checked.stdout, ringgate(&["config", "check"], "").stdout);
    assert!(text(&checked.stdout).lines().last().unwrap().starts_with("# valid: 0 of "), "{checked:?}");
    let all = ringgate(&["config", "check", "--all"], "");
    assert!(text(&all.stdout).contains("server.port = 9998  # default\n"));
    assert!(text(&all.stdout).lines().last().unwrap().starts_with("# valid: 0 of "));
}

/// What a check prints is what was set and where, and then that it is valid, on one screen.
#[test]
fn a_check_ends_with_its_outcome() {
    let file = "[server]\nport = 4000\n[[event]]\ntype = \"a.e\"\nto = \"room\"\n";
    let checked = ringgate(&["config", "check", "-"], file);
    let lines: Vec<_> = text(&checked.stdout).lines().collect();
    assert_eq!(lines[0], "server.port = 4000  # -:2");
    assert!(lines.len() <= 5 && lines[1].starts_with("[[event]] type = \"a.e\""), "{lines:?}");
    let last = lines.last().unwrap();
    assert!(
        last.starts_with("# valid: 1 of ") && last.contains(" values set, rows of the type table: 1; --all"),
        "{last}"
    );
}

/// An unknown key ends with exit code 2 and one line that names file, line, key and the nearest key.
#[test]
fn unknown_keys_are_named_with_their_line() {
    let output = ringgate(&["config", "check", "-"], "[server]\n\nprot = 1\n");
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(text(&output.stderr), "ringgate: -:3: server.prot: unknown key; did you mean port?\n");
    assert!(output.stdout.is_empty());
}

/// A minted token passes the check by stdin; a changed one ends with exit code 1 and the reason.
#[test]
fn minted_tokens_check() {
    let secret = ["--secret", "0123456789abcdef0123456789abcdef"];
    let minted = ringgate(&[&["token", "mint", "--sub", "7"], &secret[..]].concat(), "");
    assert!(minted.status.success(), "{minted:?}");
    let checked = ringgate(&[&["token", "check"], &secret[..]].concat(), text(&minted.stdout));
    assert!(checked.status.success(), "{checked:?}");
    assert!(text(&checked.stdout).contains("user       7\n"));
    let changed = format!("x{}", text(&minted.stdout));
    let refused = ringgate(&[&["token", "check", changed.trim()], &secret[..]].concat(), "");
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).starts_with("ringgate: refused: "), "{refused:?}");
}

/// A wrong flag ends with exit code 2 and the right flag; help and version with 0.
#[test]
fn usage_errors_and_help_have_their_exit_codes() {
    let wrong = ringgate(&["--prot", "1"], "");
    assert_eq!(wrong.status.code(), Some(2));
    assert!(text(&wrong.stderr).contains("--port"), "{wrong:?}");
    for args in [["--help"], ["--version"]] {
        assert!(ringgate(&args, "").status.success());
    }
}

/// A worker without Kafka ends with exit code 2 and what to set; its help says what it is for.
#[test]
fn a_worker_needs_kafka() {
    let refused = ringgate(&["worker", "--health-port", "0"], "");
    assert_eq!(refused.status.code(), Some(2));
    let complaint = text(&refused.stderr);
    assert!(complaint.contains("kafka.host is not set") && complaint.contains("set KAFKA_HOST"), "{complaint}");
    let help = ringgate(&["worker", "--help"], "");
    assert!(help.status.success() && text(&help.stdout).contains("the others stand by"), "{help:?}");
    assert!(text(&ringgate(&["--help"], "").stdout).contains("worker"));
}
