//! What a run prints.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::verify::Tally;

/// Everything a run found; printed as one JSON object or as text. Units in the names.
#[derive(Clone, PartialEq, Default, Debug, Serialize)]
pub struct Report {
    pub mode: &'static str,
    pub connections: usize,
    pub publishers: usize,
    pub rooms: usize,
    pub size: usize,
    pub seconds: f64,
    pub deliveries: u64,
    pub deliveries_per_s: f64,
    pub bytes_per_s: f64,
    pub stalled_deliveries: u64,
    pub latency: Option<Percentiles>,
    pub delta_latency: Option<Percentiles>,
    pub stalled_latency: Option<Percentiles>,
    /// Age of a delta when a stalled member reads it.
    pub stalled_delta_latency: Option<Percentiles>,
    pub connect_latency: Option<Percentiles>,
    pub connects_per_s: Option<f64>,
    pub resumes_per_s: Option<f64>,
    pub resumed: u64,
    pub own_cpu_share: f64,
    pub server_cpu: Option<ServerCpu>,
    pub server_rss_bytes: Option<u64>,
    /// `(connections, resident bytes)`.
    pub server_rss_samples: Vec<(usize, u64)>,
    pub server_rss_bytes_per_connection: Option<f64>,
    pub published: u64,
    pub refused: u64,
    pub unacknowledged: u64,
    pub reliable: u64,
    pub deltas: u64,
    pub deltas_told: u64,
    pub deltas_left_out: u64,
    pub losses_told: u64,
    pub battle_events: u64,
    pub battles: u64,
    pub battles_whole: u64,
    pub closes: BTreeMap<u16, u64>,
    pub errors: BTreeMap<String, u64>,
    /// Counts of what must not happen, by name; absent if none.
    pub faults: BTreeMap<&'static str, u64>,
    pub intact: bool,
}

/// Times of messages, µs.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct Percentiles {
    pub count: u64,
    pub min_us: f64,
    pub mean_us: f64,
    pub p50_us: f64,
    pub p90_us: f64,
    pub p99_us: f64,
    pub p999_us: f64,
    pub max_us: f64,
}

/// CPU time the server took in the window.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct ServerCpu {
    pub cores: f64,
    pub us_per_delivery: f64,
    /// By thread: name, cores.
    pub threads: Vec<(String, f64)>,
}

impl Percentiles {
    /// Of a histogram of ns; `None` if it is empty.
    #[must_use]
    pub fn of(histogram: &Histogram<u64>) -> Option<Self> {
        let us = |ns: u64| ns as f64 / 1e3;
        (!histogram.is_empty()).then(|| Self {
            count: histogram.len(),
            min_us: us(histogram.min()),
            mean_us: histogram.mean() / 1e3,
            p50_us: us(histogram.value_at_quantile(0.5)),
            p90_us: us(histogram.value_at_quantile(0.9)),
            p99_us: us(histogram.value_at_quantile(0.99)),
            p999_us: us(histogram.value_at_quantile(0.999)),
            max_us: us(histogram.max()),
        })
    }
}

impl Report {
    /// Takes a run's tally over.
    pub fn judge(&mut self, tally: &Tally) {
        let faults = [
            ("missing", tally.missing),
            ("duplicated", tally.duplicated),
            ("reordered", tally.reordered),
            ("chain_gaps", tally.chain_gaps),
            ("chain_repeats", tally.chain_repeats),
            ("unintroduced", tally.unintroduced),
            ("corrupt", tally.corrupt),
            ("deltas_regressed", tally.deltas_regressed),
            ("deltas_early", tally.deltas_early),
            ("deltas_untold", tally.deltas_untold),
            ("deltas_told_too_many", tally.deltas_told_too_many),
            ("battles_broken", tally.battles_broken),
        ];
        self.faults = faults.into_iter().filter(|(_, count)| *count > 0).collect();
        self.intact = tally.is_clean();
        (self.reliable, self.deltas) = (tally.reliable, tally.deltas);
        (self.deltas_told, self.deltas_left_out) = (tally.deltas_told, tally.deltas_left_out);
        self.losses_told = tally.losses_told;
        (self.battle_events, self.battles_whole) = (tally.battle_events, tally.battles_whole);
    }

    /// One JSON object.
    #[must_use]
    pub fn json(&self) -> String {
        simd_json::serde::to_string(self).expect("numbers, strings, lists and maps always serialise")
    }

    /// For people.
    #[must_use]
    pub fn text(&self) -> String {
        let mut out = String::new();
        self.write(&mut out).expect("writing to a string never fails");
        out
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        let Self { mode, connections, publishers, rooms, size, seconds, .. } = self;
        writeln!(
            out,
            "{mode}: {connections} connections, {publishers} publishers, {rooms} rooms, {size} B, {seconds:.1} s"
        )?;
        writeln!(
            out,
            "  deliveries   {:>12.0} /s   {:.1} MB/s   ({} in all)",
            self.deliveries_per_s,
            self.bytes_per_s / 1e6,
            self.deliveries
        )?;
        for (name, times) in [
            ("latency", &self.latency),
            ("deltas", &self.delta_latency),
            ("stalled", &self.stalled_latency),
            ("slow deltas", &self.stalled_delta_latency),
            ("connect", &self.connect_latency),
        ] {
            if let Some(t) = times {
                let Percentiles { p50_us, p90_us, p99_us, p999_us, max_us, .. } = t;
                writeln!(
                    out,
                    "  {name:<12} p50 {p50_us:.0}  p90 {p90_us:.0}  p99 {p99_us:.0}  p99.9 {p999_us:.0}  max {max_us:.0} µs"
                )?;
            }
        }
        for (name, rate) in [("connects", self.connects_per_s), ("resumes", self.resumes_per_s)] {
            if let Some(rate) = rate {
                writeln!(out, "  {name:<12} {rate:>12.0} /s")?;
            }
        }
        writeln!(out, "  own CPU      {:>12.2} cores", self.own_cpu_share)?;
        self.write_server(out)?;
        self.write_verdict(out)
    }

    fn write_server(&self, out: &mut String) -> std::fmt::Result {
        if let Some(cpu) = &self.server_cpu {
            writeln!(out, "  server CPU   {:>12.2} cores, {:.3} µs per delivery", cpu.cores, cpu.us_per_delivery)?;
            for (name, cores) in &cpu.threads {
                writeln!(out, "    {name:<16} {cores:.3}")?;
            }
        }
        if let Some(bytes) = self.server_rss_bytes {
            let before = self.server_rss_samples.last().map_or(bytes, |(_, before)| *before);
            writeln!(
                out,
                "  server RSS   {:>12.1} MB, {:.1} MB once all were live",
                bytes as f64 / 1e6,
                before as f64 / 1e6
            )?;
        }
        if let Some(slope) = self.server_rss_bytes_per_connection {
            writeln!(out, "  per connection {slope:>10.0} B resident")?;
        }
        Ok(())
    }

    fn write_verdict(&self, out: &mut String) -> std::fmt::Result {
        let Self { reliable, deltas, deltas_told, deltas_left_out, losses_told, resumed, .. } = self;
        let battle = match self.battles {
            0 => String::new(),
            _ => format!(" ({} of battles)", self.battle_events),
        };
        let reliable = reliable + self.battle_events;
        writeln!(
            out,
            "  received     {reliable} reliable{battle}, {deltas} deltas ({deltas_left_out} left out, {deltas_told} told)"
        )?;
        if self.refused + self.unacknowledged + resumed + losses_told > 0 {
            let Self { refused, unacknowledged, .. } = self;
            writeln!(
                out,
                "  {refused} refused, {unacknowledged} unacknowledged, {resumed} resumed, {losses_told} losses told"
            )?;
        }
        if self.battles > 0 {
            writeln!(out, "  battles      {} whole of {}", self.battles_whole, self.battles)?;
        }
        for (code, count) in &self.closes {
            writeln!(out, "  closed       {code}: {count}")?;
        }
        for (error, count) in &self.errors {
            writeln!(out, "  error        {error}: {count}")?;
        }
        for (fault, count) in &self.faults {
            writeln!(out, "  FAULT        {fault}: {count}")?;
        }
        writeln!(out, "  integrity    {}", if self.intact { "intact" } else { "BROKEN" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A broken run says so in both forms, and names the fault.
    #[test]
    fn faults_are_named() {
        let mut report = Report::default();
        report.judge(&Tally { missing: 2, reliable: 5, ..Tally::default() });
        assert!(!report.intact);
        assert!(report.json().contains(r#""faults":{"missing":2},"intact":false"#), "{}", report.json());
        assert!(report.text().contains("missing: 2") && report.text().contains("BROKEN"));
        report.judge(&Tally::default());
        assert!(report.text().contains("intact"));
    }

    /// A battle's events are reliable frames too, and the battles that did not arrive whole can be seen.
    #[test]
    fn battles_are_counted() {
        let mut report = Report { battles: 3, ..Report::default() };
        report.judge(&Tally { reliable: 5, battle_events: 40, battles_whole: 2, ..Tally::default() });
        let text = report.text();
        assert!(text.contains("45 reliable (40 of battles), 0 deltas") && text.contains("2 whole of 3"), "{text}");
    }
}
