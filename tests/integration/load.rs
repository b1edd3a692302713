//! `ringgate load` against the real gateway: its checks hold where the promise is kept.

use std::process::Command;

use serde_json::Value;

use crate::node::{Gateway, SECRET, on_each_driver};

/// The report of a run that must be intact.
fn load(gateway: &Gateway, line: &str) -> Value {
    let output = Command::new(env!("CARGO_BIN_EXE_ringgate"))
        .args(["load", "--url", &format!("ws://{}", gateway.address), "--secret", SECRET, "--json"])
        .args(line.split_whitespace())
        .env_clear()
        .output()
        .unwrap();
    let (said, complained) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{line}: {said}{complained}");
    serde_json::from_str(said.lines().last().unwrap()).unwrap()
}

/// Members that speak JSON get everything once and in order by their `at` chains: events and deltas of publishers, a
/// battle beside them, across resumes of members that are too slow; heartbeats are all answered.
#[test]
fn json_members_are_checked() {
    on_each_driver(&[], |gateway| {
        let brief = "--dialect json --warmup 0 --duration 1 --drain 10";
        let fanout = load(gateway, &format!("fanout {brief} --connections 20 --delta-rate 300 --delta-window 2"));
        assert!(fanout["reliable"].as_u64().unwrap() > 20 && fanout["deltas"].as_u64().unwrap() > 20, "{fanout}");
        let battle = load(gateway, &format!("stalled {brief} --connections 8 --rate 0 --battle 100,2 --resume"));
        assert_eq!(battle["battles_whole"], 8, "{battle}");
        let storm = load(gateway, &format!("storm {brief} --resume --connections 30"));
        assert!(storm["resumed"].as_u64().unwrap() >= 30, "{storm}");
        let echo = load(gateway, &format!("echo {brief} --connections 5 --in-flight 4"));
        assert!(echo["reliable"].as_u64().unwrap() > 20, "{echo}");
    });
}

/// In a room of five hundred a tenth reads so slowly that they are closed 4408 and resume; everybody gets a battle whole,
/// beside large events and deltas.
#[test]
fn a_tenth_of_five_hundred_stall() {
    on_each_driver(&["--queue-bytes", "131072", "--max-frame", "8192"], |gateway| {
        let room =
            "stalled --connections 500 --stalled-share 0.1 --reader-speed 20000 --resume --warmup 0 --duration 4";
        let line = format!("{room} --dialect json --rate 20 --size 4000 --battle 200,10 --delta-rate 50 --drain 120");
        let report = load(gateway, &line);
        assert_eq!(report["battles_whole"], 500, "{report}");
        assert!(report["resumed"].as_u64().unwrap() > 0, "{report}");
        let closes: Vec<&String> = report["closes"].as_object().unwrap().keys().collect();
        assert_eq!(closes, ["4408"], "{report}");
    });
}

/// Deltas that readers are too slow for are told one for one, by the gateway and by the load's own count of numbers.
#[test]
fn left_out_deltas_are_told() {
    on_each_driver(&[], |gateway| {
        for dialect in ["frames", "json"] {
            let slow =
                "stalled --warmup 0 --duration 2 --drain 10 --connections 6 --stalled-share 0.5 --reader-speed 4000";
            let line = format!("{slow} --rate 10 --delta-rate 2000 --size 300 --resume --dialect {dialect}");
            let report = load(gateway, &line);
            assert_eq!(report["deltas_told"], report["deltas_left_out"], "{report}");
            assert!(report["deltas_told"].as_u64().unwrap() > 0, "{report}");
        }
    });
}

/// Players roll in pairs: every roll is told to who rolled, at once and by a rate, and the time that it took is measured.
#[test]
fn rolls_are_timed() {
    on_each_driver(&[], |gateway| {
        let brief = "rolls --warmup 0 --duration 1 --drain 10 --connections 8";
        let fast = load(gateway, brief);
        let told = fast["reliable"].as_u64().unwrap();
        assert!(told > 20 && fast["latency"]["p50_us"].as_f64().unwrap() > 0.0, "{fast}");
        let paced = load(gateway, &format!("{brief} --rate 10"));
        assert!((20..=60).contains(&paced["latency"]["count"].as_u64().unwrap()), "{paced}");
    });
}
