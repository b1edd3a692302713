//! The metric table: what `/metrics` shows of every shard, in base units (seconds, bytes), with its meaning. Values are
//! read at the moment of a scrape; nothing is counted twice or kept here.

use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};

use super::AdminState;
use crate::class::Class;
use crate::close::CloseReason;
use crate::stats::{BusStats, Counter, Histogram, KeyStats, ShardStats};

/// OpenMetrics 1.0 text, which Prometheus asks for by itself.
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// A registry that shows the state, all names prefixed `ringgate_`.
pub(super) fn registry(state: Arc<AdminState>) -> Registry {
    let mut registry = Registry::with_prefix("ringgate");
    registry.register_collector(Box::new(Scrape(state)));
    registry
}

#[derive(Debug)]
struct Scrape(Arc<AdminState>);

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let state = &*self.0;
        let shards: Vec<(String, &ShardStats)> =
            state.shards.iter().enumerate().map(|(number, stats)| (number.to_string(), &**stats)).collect();
        encode_process(&mut encoder, state)?;
        encode_bus(&mut encoder, &state.bus)?;
        encode_keys(&mut encoder, &state.keys)?;
        for row in &ROWS {
            let unit = row.unit.as_ref();
            let mut family = encoder.encode_descriptor(row.name, row.help, unit, row.value.metric_type())?;
            for (shard, stats) in &shards {
                let labels = [("shard", shard.as_str())];
                row.encode(stats, family.encode_family(&labels)?)?;
            }
        }
        encode_frames(&mut encoder, &shards)?;
        encode_closes(&mut encoder, &shards)
    }
}

/// A row of the table: one value per shard.
struct Row {
    /// Without prefix, unit and type suffix.
    name: &'static str,
    help: &'static str,
    /// Appended to the name. What the table calls seconds is kept in nanoseconds.
    unit: Option<Unit>,
    value: Value,
}

enum Value {
    Counter(fn(&ShardStats) -> &Counter),
    Gauge(fn(&ShardStats) -> &Counter),
    Histogram(fn(&ShardStats) -> &Histogram),
}

impl Value {
    fn metric_type(&self) -> MetricType {
        match self {
            Self::Counter(_) => MetricType::Counter,
            Self::Gauge(_) => MetricType::Gauge,
            Self::Histogram(_) => MetricType::Histogram,
        }
    }
}

impl Row {
    fn encode(&self, stats: &ShardStats, encoder: MetricEncoder<'_>) -> fmt::Result {
        let seconds = matches!(self.unit, Some(Unit::Seconds));
        match self.value {
            Value::Counter(field) => counter(encoder, field(stats).read()),
            Value::Gauge(field) if seconds => real_gauge(encoder, nanos_to_seconds(field(stats).read())),
            Value::Gauge(field) => gauge(encoder, field(stats).read()),
            Value::Histogram(field) if seconds => histogram(encoder, field(stats), TIME_BITS, nanos_to_seconds),
            Value::Histogram(field) => histogram(encoder, field(stats), COUNT_BITS, |count| count as f64),
        }
    }
}

/// Bucket bounds of times: 1 µs to 17 s, as powers of two of nanoseconds.
const TIME_BITS: RangeInclusive<usize> = 10..=34;
/// Bucket bounds of counts: 0 to 65,535.
const COUNT_BITS: RangeInclusive<usize> = 0..=16;

/// The rows, in the order of [`ShardStats`]. Frames by class and closes by reason have labels of their own, below.
static ROWS: [Row; 19] = {
    use Value::{Counter as C, Gauge as G, Histogram as H};
    const fn row(name: &'static str, unit: Option<Unit>, value: Value, help: &'static str) -> Row {
        Row { name, help, unit, value }
    }
    [
        row("connections", None, G(|s| &s.connections), "Open WebSocket connections."),
        row("sessions", None, G(|s| &s.sessions), "Authenticated sessions with a connection."),
        row("connections_accepted", None, C(|s| &s.accepted_total), "TCP connections accepted."),
        row("connections_refused", None, C(|s| &s.refused_total), "Connections closed before the upgrade succeeded."),
        row("received_frames", None, C(|s| &s.frames_in_total), "WebSocket frames received."),
        row("received", Some(Unit::Bytes), C(|s| &s.bytes_in_total), "Bytes received."),
        row("sent", Some(Unit::Bytes), C(|s| &s.bytes_out_total), "Bytes of frames the kernel accepted."),
        row("sends", None, C(|s| &s.sends_total), "Send operations."),
        row("short_sends", None, C(|s| &s.short_sends_total), "Send operations that the kernel took only in part."),
        row("queue_frames", None, H(|s| &s.queue_frames), "Frames that wait in a connection's write queue."),
        row(
            "delta_age",
            Some(Unit::Seconds),
            H(|s| &s.delta_age_ns),
            "Age of delta frames when the kernel took their first byte.",
        ),
        row("tick", Some(Unit::Seconds), H(|s| &s.tick_ns), "Time of a tick, without the wait."),
        row("tick_max", Some(Unit::Seconds), G(|s| &s.tick_max_ns), "The longest tick since the start."),
        row("ticks", None, C(|s| &s.ticks_total), "Ticks."),
        row("mesh_depth", None, H(|s| &s.mesh_depth), "Messages found in a mailbox of the mesh when drained."),
        row("pauses", None, C(|s| &s.pauses_total), "Times that a connection's reading was paused."),
        row("paused_connections", None, G(|s| &s.paused_connections), "Connections whose reading is paused now."),
        row("history", Some(Unit::Bytes), G(|s| &s.history_bytes), "Bytes that stream histories keep."),
        row("streams", None, G(|s| &s.streams), "Streams homed here."),
    ]
};

/// Index in [`ShardStats::TERMS`] of the one term that is no counter.
const PENDING: usize = 5;
const _: () = assert!(ShardStats::TERMS.len() == PENDING + 1);

/// What is the same for all shards.
fn encode_process(encoder: &mut DescriptorEncoder<'_>, state: &AdminState) -> fmt::Result {
    let labels =
        [("version", state.version), ("driver", state.driver.as_str()), ("durability", state.durability.name())];
    encoder.encode_descriptor("build", "What runs here.", None, MetricType::Info)?.encode_info(&labels)?;
    let help = "1 when new connections should be sent here.";
    gauge(encoder.encode_descriptor("ready", help, None, MetricType::Gauge)?, u64::from(state.takes_connections()))?;
    let help = "1 from the moment the process is told to end.";
    gauge(
        encoder.encode_descriptor("draining", help, None, MetricType::Gauge)?,
        u64::from(state.draining.load(Ordering::Acquire)),
    )
}

/// What the bus's peer counts, in the order of [`BusStats`].
fn encode_bus(encoder: &mut DescriptorEncoder<'_>, bus: &BusStats) -> fmt::Result {
    let counters = [
        ("bus_commands", &bus.commands_total, "Commands that the bus has accepted."),
        ("bus_refused", &bus.refused_total, "Commands that the bus refused."),
        ("bus_events", &bus.events_total, "Events of backends given to their streams."),
        ("bus_poison", &bus.poison_total, "Records that nobody can use."),
        ("bus_poison_lost", &bus.poison_lost_total, "Records that nobody can use and that could not be kept either."),
        ("bus_duplicates", &bus.duplicates_total, "Events that repeat one of the history time, which are dropped."),
        ("relayed", &bus.relayed_total, "Frames of this gateway's clients that the bus has accepted to be relayed."),
        (
            "relay_refused",
            &bus.relay_refused_total,
            "Frames of this gateway's clients that were not relayed: the bus refused them, or no publisher was there.",
        ),
        ("relay_events", &bus.relay_events_total, "Relayed frames of all gateways given to their streams."),
    ];
    for (name, value, help) in counters {
        counter(encoder.encode_descriptor(name, help, None, MetricType::Counter)?, value.read())?;
    }
    let help = "Publishers in rooms of all gateways, as far as the bus tells of them.";
    gauge(encoder.encode_descriptor("relay_publishers", help, None, MetricType::Gauge)?, bus.relay_publishers.read())
}

/// What the reader of token keys counts, where there is one.
fn encode_keys(encoder: &mut DescriptorEncoder<'_>, keys: &KeyStats) -> fmt::Result {
    if keys.reads_total.read() == 0 {
        return Ok(());
    }
    let help = "Keys of the JWK Set that tokens are checked with.";
    gauge(encoder.encode_descriptor("token_keys", help, None, MetricType::Gauge)?, keys.keys.read())?;
    let help = "Times the JWK Set was read.";
    let reads = encoder.encode_descriptor("token_key_reads", help, None, MetricType::Counter)?;
    counter(reads, keys.reads_total.read())?;
    let help = "Times the JWK Set could not be read or used; the keys from before stay.";
    let failures = encoder.encode_descriptor("token_key_failures", help, None, MetricType::Counter)?;
    counter(failures, keys.failures_total.read())
}

/// The account of DELIVERY D5: enqueued = delivered + replaced + dropped + lost_at_close + pending, per class.
fn encode_frames(encoder: &mut DescriptorEncoder<'_>, shards: &[(String, &ShardStats)]) -> fmt::Result {
    let help = "Frames by class and what became of them; delivered means accepted by the kernel.";
    let mut family = encoder.encode_descriptor("frames", help, None, MetricType::Counter)?;
    for (shard, stats) in shards {
        for class in Class::ALL {
            let terms = ShardStats::TERMS.iter().zip(&stats.conservation[class.index()]);
            for (term, value) in terms.take(PENDING) {
                let labels = [("shard", shard.as_str()), ("class", class.label()), ("term", term)];
                counter(family.encode_family(&labels)?, value.read())?;
            }
        }
    }
    let help = "Frames that wait in write queues.";
    let mut family = encoder.encode_descriptor("frames_pending", help, None, MetricType::Gauge)?;
    for (shard, stats) in shards {
        for class in Class::ALL {
            let labels = [("shard", shard.as_str()), ("class", class.label())];
            gauge(family.encode_family(&labels)?, stats.conservation[class.index()][PENDING].read())?;
        }
    }
    Ok(())
}

fn encode_closes(encoder: &mut DescriptorEncoder<'_>, shards: &[(String, &ShardStats)]) -> fmt::Result {
    let help = "Connections that ended, by reason.";
    let mut family = encoder.encode_descriptor("closes", help, None, MetricType::Counter)?;
    for (shard, stats) in shards {
        for (row, count) in CloseReason::ALL.iter().zip(&stats.closes_total) {
            let labels = [("shard", shard.as_str()), ("reason", row.label)];
            counter(family.encode_family(&labels)?, count.read())?;
        }
    }
    Ok(())
}

pub(super) fn counter(mut encoder: MetricEncoder<'_>, value: u64) -> fmt::Result {
    encoder.encode_counter::<NoLabels, u64, u64>(&value, None)
}

/// A gauge beyond `i64` would be an error of the encoder and take the whole scrape with it.
pub(super) fn gauge(mut encoder: MetricEncoder<'_>, value: u64) -> fmt::Result {
    encoder.encode_gauge(&i64::try_from(value).unwrap_or(i64::MAX))
}

fn real_gauge(mut encoder: MetricEncoder<'_>, value: f64) -> fmt::Result {
    encoder.encode_gauge(&value)
}

/// Values are whole numbers, so the bucket below the exclusive bound 2^i is the one up to 2^i − 1 inclusive, exactly.
/// The buckets under the range join its first, those above it join `+Inf`.
fn histogram(
    mut encoder: MetricEncoder<'_>,
    histogram: &Histogram,
    bits: RangeInclusive<usize>,
    scale: fn(u64) -> f64,
) -> fmt::Result {
    let (buckets, sum) = histogram.read();
    let (below, rest) = buckets.split_at(*bits.start());
    let (within, above) = rest.split_at(bits.count());
    let mut out: Vec<(f64, u64)> = within.iter().map(|(bound, count)| (scale(bound - 1), *count)).collect();
    out[0].1 += below.iter().map(|(_, count)| count).sum::<u64>();
    out.push((f64::MAX, above.iter().map(|(_, count)| count).sum()));
    let count = out.iter().map(|(_, count)| count).sum();
    encoder.encode_histogram::<NoLabels>(scale(sum), count, &out, None)
}

fn nanos_to_seconds(nanos: u64) -> f64 {
    nanos as f64 / 1e9
}

type NoLabels = [(&'static str, &'static str); 0];

#[cfg(test)]
#[path = "metrics_tests.rs"]
mod tests;
