//! The exposition, read back by a strict reader of OpenMetrics 1.0.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::ports::Durability;

/// Samples by name and labels, e.g. `ringgate_connections{shard="0"}`.
type Samples = BTreeMap<String, f64>;

fn scrape(shards: Vec<Arc<ShardStats>>) -> String {
    let state = AdminState::new(shards, Durability::Disk, "uring");
    state.ready.store(true, Ordering::Release);
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry(Arc::new(state))).unwrap();
    text
}

/// Reads an exposition and refuses what the format forbids: a family twice, samples outside their family or without
/// its suffix, a name without its unit, a sample twice, text behind `# EOF`.
fn read(text: &str) -> Samples {
    let mut samples = Samples::new();
    let mut families = BTreeSet::new();
    let (mut family, mut kind) = ("", "");
    let body = text.strip_suffix("# EOF\n").expect("ends with # EOF");
    for line in body.lines() {
        if let Some(comment) = line.strip_prefix("# ") {
            let mut words = comment.splitn(3, ' ');
            let (keyword, name, rest) = (words.next().unwrap(), words.next().unwrap(), words.next().unwrap());
            match keyword {
                "HELP" => {
                    assert!(families.insert(name), "{name} twice");
                    assert!(rest.ends_with('.') && rest.len() > 5, "{line}");
                    (family, kind) = (name, "");
                }
                "TYPE" => {
                    assert_eq!((name, kind), (family, ""), "{line}");
                    kind = rest;
                }
                "UNIT" => assert!(name == family && name.ends_with(&format!("_{rest}")), "{line}"),
                _ => panic!("{line}"),
            }
            continue;
        }
        let (name, value) = line.rsplit_once(' ').unwrap();
        let (base, labels) = name.split_once('{').unwrap_or((name, "}"));
        let suffix = base.strip_prefix(family).unwrap_or_else(|| panic!("{line} is not of {family}"));
        let suffixes: &[&str] = match kind {
            "counter" => &["_total"],
            "gauge" => &[""],
            "info" => &["_info"],
            "histogram" => &["_bucket", "_sum", "_count"],
            _ => panic!("{line} has no type"),
        };
        assert!(suffixes.contains(&suffix), "{line} of {kind} {family}");
        read_labels(labels.strip_suffix('}').unwrap());
        let value: f64 = value.parse().unwrap();
        assert!(samples.insert(name.to_owned(), value).is_none(), "{name} twice");
    }
    samples
}

/// `a="b",c="d"`: names of letters and `_`, values without characters that need escapes, no name twice.
fn read_labels(labels: &str) {
    let mut names = BTreeSet::new();
    for label in labels.split(',').filter(|label| !label.is_empty()) {
        let (name, value) = label.split_once('=').unwrap();
        assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{label}");
        let value = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap();
        assert!(!value.contains(['"', '\\', '\n']), "{label}");
        assert!(names.insert(name), "{labels}");
    }
}

/// The buckets of a histogram sample, in the order of the text: bound and cumulative count.
fn buckets(text: &str, name: &str) -> Vec<(f64, u64)> {
    let prefix = format!("{name}_bucket{{le=\"");
    let lines = text.lines().filter_map(|line| line.strip_prefix(&prefix));
    lines
        .map(|line| {
            let (bound, count) = line.split_once("\",shard=\"0\"} ").unwrap();
            (bound.parse().unwrap(), count.parse().unwrap())
        })
        .collect()
}

/// Every field of the shard's statistics is shown, under its shard; a new field breaks this test until it has a row.
#[test]
fn every_field_of_the_statistics_is_shown() {
    let stats = Arc::new(ShardStats::default());
    let ShardStats {
        connections,
        sessions,
        accepted_total,
        refused_total,
        frames_in_total,
        bytes_in_total,
        bytes_out_total,
        sends_total,
        short_sends_total,
        conservation: _,
        closes_total: _,
        queue_frames: _,
        delta_age_ns: _,
        tick_ns: _,
        tick_max_ns,
        ticks_total,
        mesh_depth: _,
        pauses_total,
        paused_connections,
        history_bytes,
        streams,
    } = &*stats;
    let plain = [
        ("connections", connections),
        ("sessions", sessions),
        ("connections_accepted_total", accepted_total),
        ("connections_refused_total", refused_total),
        ("received_frames_total", frames_in_total),
        ("received_bytes_total", bytes_in_total),
        ("sent_bytes_total", bytes_out_total),
        ("sends_total", sends_total),
        ("short_sends_total", short_sends_total),
        ("ticks_total", ticks_total),
        ("pauses_total", pauses_total),
        ("paused_connections", paused_connections),
        ("history_bytes", history_bytes),
        ("streams", streams),
    ];
    for (n, (_, counter)) in plain.iter().enumerate() {
        counter.set(1000 + n as u64);
    }
    tick_max_ns.set(2_500_000_000);
    let samples = read(&scrape(vec![Arc::default(), Arc::clone(&stats)]));
    for (n, (name, _)) in plain.iter().enumerate() {
        assert_eq!(samples[&format!("ringgate_{name}{{shard=\"1\"}}")], 1000.0 + n as f64, "{name}");
        assert_eq!(samples[&format!("ringgate_{name}{{shard=\"0\"}}")], 0.0, "{name}");
    }
    assert_eq!(samples["ringgate_tick_max_seconds{shard=\"1\"}"], 2.5);
}

/// Frames are shown by class and term, closes by reason, each number at its own labels.
#[test]
fn frames_and_closes_are_shown_by_their_labels() {
    let stats = ShardStats::default();
    for (c, terms) in stats.conservation.iter().enumerate() {
        terms.iter().enumerate().for_each(|(t, term)| term.set((10 * c + t) as u64));
    }
    stats.closes_total.iter().enumerate().for_each(|(n, count)| count.set(100 + n as u64));
    let samples = read(&scrape(vec![Arc::new(stats)]));
    for class in Class::ALL {
        for (t, term) in ShardStats::TERMS.iter().enumerate() {
            let label = class.label();
            let name = match *term {
                "pending" => format!("ringgate_frames_pending{{shard=\"0\",class=\"{label}\"}}"),
                _ => format!("ringgate_frames_total{{shard=\"0\",class=\"{label}\",term=\"{term}\"}}"),
            };
            assert_eq!(samples[&name], (10 * class.index() + t) as f64, "{name}");
        }
    }
    for row in &CloseReason::ALL {
        let name = format!("ringgate_closes_total{{shard=\"0\",reason=\"{}\"}}", row.label);
        assert_eq!(samples[&name], (100 + row.reason as usize) as f64);
    }
}

/// Histograms are cumulative, end at `+Inf` with the count, and hold a value under the first bound that is not below
/// it, in base units.
#[test]
fn histograms_are_cumulative_and_in_base_units() {
    let stats = Arc::new(ShardStats::default());
    for (n, histogram) in [&stats.queue_frames, &stats.mesh_depth].into_iter().enumerate() {
        [0, 1, 4, 7, 1 << 30].into_iter().for_each(|value| histogram.record_n(value, n as u64 + 1));
    }
    for histogram in [&stats.tick_ns, &stats.delta_age_ns] {
        [0, 500, 1_500_000, 60_000_000_000].into_iter().for_each(|value| histogram.record(value));
    }
    let text = scrape(vec![Arc::clone(&stats)]);
    let samples = read(&text);
    for (name, count) in [("queue_frames", 5), ("mesh_depth", 10), ("tick_seconds", 4), ("delta_age_seconds", 4)] {
        let name = format!("ringgate_{name}");
        let buckets = buckets(&text, &name);
        assert!(buckets.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1), "{buckets:?}");
        assert_eq!(*buckets.last().unwrap(), (f64::INFINITY, count));
        assert_eq!(samples[&format!("{name}_count{{shard=\"0\"}}")], count as f64);
    }
    assert_eq!(buckets(&text, "ringgate_queue_frames")[..4], [(0.0, 1), (1.0, 2), (3.0, 2), (7.0, 4)]);
    let ticks = buckets(&text, "ringgate_tick_seconds");
    assert_eq!(ticks[0], (1.023e-6, 2));
    assert_eq!(ticks.iter().find(|(bound, _)| *bound >= 0.0015).unwrap().1, 3);
    assert!((samples["ringgate_tick_seconds_sum{shard=\"0\"}"] - 60.001_500_5).abs() < 1e-9);
}

/// What runs here and whether it is ready is shown, and a counter beyond 2^63 does not break a scrape.
#[test]
fn the_process_is_shown_and_extremes_do_not_break_a_scrape() {
    let stats = ShardStats::default();
    stats.connections.set(u64::MAX);
    stats.ticks_total.set(u64::MAX);
    stats.tick_ns.record(u64::MAX);
    let samples = read(&scrape(vec![Arc::new(stats)]));
    assert_eq!(samples["ringgate_ready"], 1.0);
    assert_eq!(samples["ringgate_draining"], 0.0);
    let version = env!("CARGO_PKG_VERSION");
    let build = format!("ringgate_build_info{{version=\"{version}\",driver=\"uring\",durability=\"disk\"}}");
    assert_eq!(samples[&build], 1.0);
}
