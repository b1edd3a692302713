//! CPU time and memory of processes, from `/proc` (proc_pid_schedstat: the first number is time on a core, ns).

use std::collections::BTreeMap;
use std::fs;

/// CPU time of each thread, ns, by thread id with its name.
pub type CpuTimes = BTreeMap<u32, (String, u64)>;

/// The threads' CPU times; empty if the process is gone.
#[must_use]
pub fn cpu_times(pid: u32) -> CpuTimes {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { return CpuTimes::new() };
    let thread = |id: u32| {
        let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/task/{id}/{file}"));
        let ns = read("schedstat").ok()?.split_whitespace().next()?.parse().ok()?;
        Some((id, (read("comm").ok()?.trim().to_owned(), ns)))
    };
    tasks.filter_map(|entry| thread(entry.ok()?.file_name().to_str()?.parse().ok()?)).collect()
}

/// CPU time between two readings, ns: of each thread that took any, and of all.
#[must_use]
pub fn cpu_between(before: &CpuTimes, after: &CpuTimes) -> (Vec<(String, u64)>, u64) {
    let mut threads = Vec::new();
    for (id, (name, ns)) in after {
        let spent = ns.saturating_sub(before.get(id).map_or(0, |(_, ns)| *ns));
        if spent > 0 {
            threads.push((name.clone(), spent));
        }
    }
    let total = threads.iter().map(|(_, ns)| ns).sum();
    (threads, total)
}

/// Resident bytes; `None` if the process is gone.
#[must_use]
pub fn resident_bytes(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib * 1024)
}

/// Slope of the least-squares line through `(x, y)`; `None` for fewer than two different x.
#[must_use]
pub fn slope(samples: &[(f64, f64)]) -> Option<f64> {
    let n = samples.len() as f64;
    let (sum_x, sum_y) = samples.iter().fold((0.0, 0.0), |(x, y), sample| (x + sample.0, y + sample.1));
    let (mean_x, mean_y) = (sum_x / n, sum_y / n);
    let spread: f64 = samples.iter().map(|(x, _)| (x - mean_x).powi(2)).sum();
    let shared: f64 = samples.iter().map(|(x, y)| (x - mean_x) * (y - mean_y)).sum();
    (spread > 0.0).then(|| shared / spread)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The own process has threads that take time, and memory.
    #[test]
    fn the_own_process_is_seen() {
        let before = cpu_times(std::process::id());
        assert!(!before.is_empty());
        assert!(resident_bytes(std::process::id()).unwrap() > 100_000);
        assert_eq!(resident_bytes(0), None);
        let mut after = before.clone();
        after.values_mut().next().unwrap().1 += 5;
        assert_eq!(cpu_between(&before, &after).1, 5);
    }

    /// The slope is that of the line the samples lie on.
    #[test]
    fn slopes_are_least_squares() {
        assert_eq!(slope(&[(1.0, 5.0), (2.0, 7.0), (3.0, 9.0)]), Some(2.0));
        assert_eq!(slope(&[(1.0, 5.0)]), None);
    }
}
