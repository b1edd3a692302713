//! Whole runs against a server that keeps the promise, or breaks it in one way.

use super::fake::{self, Fault};
use super::*;

/// What a run against a new server found.
fn report(fault: Fault, line: &str) -> Result<Report, String> {
    let address = fake::start(fault);
    let line = format!("load {line} --url ws://{address} --warmup 0 --duration 0.2 --drain 1");
    let matches = command().try_get_matches_from(line.split_whitespace()).unwrap();
    measure(options::read(&matches).unwrap())
}

/// Fan-out of a server that keeps the promise is intact, everything published is received by everyone, and time,
/// rate and memory are measured.
#[test]
fn an_honest_server_passes() {
    let line = format!("fanout --secret s --connections 3 --in-flight 4 --threads 2 --pid {}", std::process::id());
    let report = report(Fault::None, &line).unwrap();
    assert!(report.intact, "{}", report.text());
    assert!(report.published > 4 && report.unacknowledged == 0, "{}", report.text());
    // The publisher is a member too.
    assert_eq!(report.reliable, report.published * 4);
    assert!(report.latency.is_some_and(|latency| latency.p99_us > 0.0) && report.deliveries_per_s > 0.0);
    assert!(report.server_rss_bytes.is_some() && report.server_cpu.is_some());
}

/// One dropped, doubled or swapped frame to one member breaks the run, and the fault is named.
#[test]
fn a_broken_promise_is_found() {
    for (fault, name) in [(Fault::Drop, "missing"), (Fault::Double, "duplicated"), (Fault::Swap, "reordered")] {
        let report = report(fault, "fanout --secret s --connections 3 --in-flight 2").unwrap();
        assert!(!report.intact, "{fault:?}");
        assert_eq!(report.faults.get(name), Some(&1), "{fault:?}: {}", report.text());
    }
}

/// The same where members speak JSON: each is found as it is in frames, resumes are followed, battles are watched, a
/// heartbeat without an answer is missed.
#[test]
fn a_broken_promise_is_found_in_json() {
    let json = |fault, line: &str| report(fault, &format!("{line} --secret s --dialect json")).unwrap();
    let fanout = "fanout --connections 3 --in-flight 2 --delta-rate 100";
    let whole = json(Fault::None, fanout);
    assert!(whole.intact && whole.deltas > 0 && whole.latency.is_some(), "{}", whole.text());
    assert_eq!((whole.reliable, whole.deltas_left_out, whole.deltas % 4), (whole.published * 4, 0, 0));
    for (fault, name) in [(Fault::Drop, "missing"), (Fault::Double, "duplicated"), (Fault::Swap, "reordered")] {
        let broken = json(fault, fanout);
        assert!(!broken.intact, "{fault:?}");
        assert_eq!(broken.faults.get(name), Some(&1), "{fault:?}: {}", broken.text());
    }
    let resume = "fanout --connections 3 --in-flight 2 --rate 200 --resume";
    let resumed = json(Fault::Close, resume);
    assert!(resumed.intact && resumed.resumed == 1 && resumed.losses_told == 0, "{}", resumed.text());
    let told = json(Fault::CloseAndForget, resume);
    assert!(told.intact && told.losses_told == 1, "{}", told.text());
    assert_eq!(json(Fault::CloseAndLie, resume).faults.get("missing"), Some(&1));
    assert_eq!(json(Fault::None, "idle --connections 2 --battle 3,1").battles_whole, 2);
    assert_eq!(json(Fault::Drop, "idle --connections 2 --battle 3,1").faults.get("battles_broken"), Some(&2));
    assert!(json(Fault::None, "echo --connections 3 --in-flight 2").intact);
    assert_eq!(json(Fault::Drop, "echo --connections 3 --in-flight 2").faults.get("missing"), Some(&1));
}

/// The exit code is 0 for an intact run, 1 for a broken one, 2 for one that could not be done.
#[test]
fn exit_codes() {
    for dialect in ["frames", "json"] {
        for (fault, code) in
            [(Fault::None, 0), (Fault::Drop, 1), (Fault::Double, 1), (Fault::Swap, 1), (Fault::Reject, 2)]
        {
            let address = fake::start(fault);
            let line = format!(
                "load fanout --dialect {dialect} --secret s --connections 2 --url ws://{address} --duration 0.1 --drain 1 --json"
            );
            let matches = command().try_get_matches_from(line.split_whitespace()).unwrap();
            assert_eq!(run(&matches), ExitCode::from(code), "{dialect} {fault:?}");
        }
    }
}

/// A member that is closed resumes and gets everything; a loss that is told is no fault, one that is not is.
#[test]
fn resumes_are_followed() {
    let line = "fanout --secret s --connections 3 --in-flight 2 --rate 200 --resume";
    let whole = report(Fault::Close, line).unwrap();
    assert!(whole.intact && whole.resumed == 1 && whole.losses_told == 0, "{}", whole.text());
    assert_eq!(whole.closes.get(&4408), Some(&1));
    assert_eq!(whole.reliable, whole.published * 4);
    let told = report(Fault::CloseAndForget, line).unwrap();
    assert!(told.intact && told.losses_told == 1, "{}", told.text());
    let lie = report(Fault::CloseAndLie, line).unwrap();
    assert_eq!(lie.faults.get("missing"), Some(&1), "{}", lie.text());
}

/// Rates, deltas beside events, slow readers and several publishers go together.
#[test]
fn mixed_traffic_is_checked() {
    let line = "burst --secret s --connections 4 --publishers 2 --rate 300 --delta-rate 300 --delta-share 0.25 \
                --delta-keys 3 --stalled-share 0.25 --reader-speed 20000";
    let report = report(Fault::None, line).unwrap();
    assert!(report.intact, "{}", report.text());
    assert!(report.deltas > 0 && report.delta_latency.is_some() && report.stalled_latency.is_some());
    assert!(report.stalled_delta_latency.is_some(), "{}", report.text());
    assert_eq!(report.deltas_left_out, 0, "{}", report.text());
}

/// Deltas that a server leaves out must be told, exactly, in either dialect: silently, too few and too many are each a
/// fault with exit code 1, the truth is none. A newest value that never came is looked for, too.
#[test]
fn left_out_deltas_are_held_to_what_is_told() {
    for dialect in ["frames", "json"] {
        let line = format!("stalled --secret s --connections 2 --delta-rate 200 --delta-keys 4 --dialect {dialect}");
        for (told, fault, code) in [
            (2, None, 0),
            (0, Some("deltas_untold"), 1),
            (1, Some("deltas_untold"), 1),
            (3, Some("deltas_told_too_many"), 1),
        ] {
            let found = report(Fault::Skip { told }, &line).unwrap();
            assert_eq!((found.deltas_told, found.deltas_left_out), (told, 2), "{}", found.text());
            assert_eq!(found.faults.keys().copied().next(), fault, "{}", found.text());
            let address = fake::start(Fault::Skip { told });
            let line = format!("load {line} --url ws://{address} --warmup 0 --duration 0.1 --drain 1");
            let matches = command().try_get_matches_from(line.split_whitespace()).unwrap();
            assert_eq!(run(&matches), ExitCode::from(code), "{dialect} {told}");
        }
        let resumed = report(Fault::Close, &format!("{line} --rate 200 --resume")).unwrap();
        assert!(resumed.intact && resumed.resumed == 1 && resumed.deltas > 0, "{}", resumed.text());
    }
}

/// A slow reader reads the bytes per second it was told, though frames come to it in pieces.
#[test]
fn slow_readers_keep_their_speed() {
    let line = "stalled --secret s --connections 2 --stalled-share 0.5 --rate 400 --size 1000 --reader-speed 100000";
    let report = report(Fault::None, line).unwrap();
    // 0.2 s at 100,000 B/s are 19 frames; a loaded machine may sleep through a part of it.
    assert!((10..=30).contains(&report.stalled_deliveries), "{}", report.stalled_deliveries);
}

/// A battle's timeline is checked to its end.
#[test]
fn battles_are_watched() {
    let whole = report(Fault::None, "idle --secret s --connections 2 --battle 3,1").unwrap();
    assert!(whole.intact && whole.battles_whole == 2, "{}", whole.text());
    let broken = report(Fault::Drop, "idle --secret s --connections 2 --battle 3,1").unwrap();
    assert_eq!(broken.faults.get("battles_broken"), Some(&2), "{}", broken.text());
}

/// Echoes come back once and in order.
#[test]
fn echo_is_measured() {
    let report = report(Fault::None, "echo --connections 3 --in-flight 2").unwrap();
    assert!(report.intact && report.deliveries > 6, "{}", report.text());
    assert!(report.latency.is_some());
}

/// A storm connects everybody, and with `--resume` once more.
#[test]
fn storms_are_measured() {
    let report = report(Fault::None, "storm --secret s --connections 20 --connect-concurrency 4 --resume").unwrap();
    assert!(report.intact && report.resumed == 20, "{}", report.text());
    assert!(report.connects_per_s.is_some() && report.resumes_per_s.is_some() && report.connect_latency.is_some());
}

/// A server that is not there and a token that is not accepted are plain errors with a remedy.
#[test]
fn errors_name_the_remedy() {
    let error = report(Fault::Reject, "fanout --token x --connections 1").unwrap_err();
    assert!(error.contains("rejected the token") && error.contains("--secret"), "{error}");
    let matches = command().get_matches_from(["load", "echo", "--url", "ws://127.0.0.1:1"]);
    let error = measure(options::read(&matches).unwrap()).unwrap_err();
    assert!(error.contains("cannot reach 127.0.0.1:1") && error.contains("--url"), "{error}");
}
