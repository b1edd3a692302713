//! The host settings of `tuning/`: the script restores what it changed, and the files agree with the code and with
//! their own documentation. Works on a directory that plays the root of a host; the machine is not touched.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use ringgate::limits;

const TUNING: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tuning");

/// A directory that plays `/`; removed at the end.
struct Host(PathBuf);

impl Host {
    fn new(name: &str) -> Self {
        let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("tuning-{name}"));
        let _ = fs::remove_dir_all(&root);
        let host = Self(root);
        host.write("proc/sys/net/core/somaxconn", "4096\n");
        host.write("proc/sys/net/core/netdev_max_backlog", "1000\n");
        host.write("proc/sys/net/ipv4/tcp_slow_start_after_idle", "1\n");
        host.write("proc/sys/net/ipv4/ip_local_port_range", "32768\t60999\n");
        host.write("etc/sysctl.d/90-ringgate.conf", "net.core.somaxconn = 1234\n");
        fs::set_permissions(host.0.join("etc/sysctl.d/90-ringgate.conf"), PermissionsExt::from_mode(0o640)).unwrap();
        host
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.0.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.0.join(path)).unwrap()
    }

    fn run(&self, arguments: &[&str]) -> Output {
        Command::new("sh").arg(format!("{TUNING}/apply.sh")).args(arguments).env("PREFIX", &self.0).output().unwrap()
    }

    /// Runs the script, which must succeed, and gives what it printed.
    fn succeed(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success() && err.is_empty(), "{arguments:?}: {out}{err}");
        out.into_owned()
    }

    /// Every path with its mode, and a file's content.
    fn snapshot(&self) -> BTreeMap<PathBuf, (u32, Option<Vec<u8>>)> {
        let (mut all, mut folders) = (BTreeMap::new(), vec![self.0.clone()]);
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                let metadata = fs::metadata(&path).unwrap();
                let content = metadata.is_file().then(|| fs::read(&path).unwrap());
                if metadata.is_dir() {
                    folders.push(path.clone());
                }
                all.insert(path, (metadata.permissions().mode(), content));
            }
        }
        all
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn tuning(path: &str) -> String {
    fs::read_to_string(Path::new(TUNING).join(path)).unwrap()
}

/// The unit's value of a key that occurs once.
fn unit_value(unit: &str, key: &str) -> String {
    let prefix = format!("{key}=");
    unit.lines().find_map(|line| line.strip_prefix(&prefix)).unwrap_or_else(|| panic!("no {key}")).to_owned()
}

/// After apply and revert the host is as it was: values, files, modes, directories; also when applied twice.
#[test]
fn revert_restores_exactly() {
    let host = Host::new("revert");
    let before = host.snapshot();
    host.succeed(&["apply"]);
    assert_eq!(host.read("proc/sys/net/core/somaxconn"), "16384\n");
    assert_eq!(host.read("proc/sys/net/ipv4/ip_local_port_range"), "10240 65535\n");
    assert_eq!(host.read("etc/sysctl.d/90-ringgate.conf"), tuning("sysctl.d/90-ringgate.conf"));
    assert_eq!(host.read("etc/systemd/system/ringgate.service"), tuning("systemd/ringgate.service"));
    let worker = "etc/systemd/system/ringgate-worker.service";
    assert_eq!(host.read(worker), tuning("systemd/ringgate-worker.service"));
    assert_eq!(host.read("etc/security/limits.d/ringgate.conf"), tuning("limits.d/ringgate.conf"));
    let environment = fs::metadata(host.0.join("etc/ringgate/ringgate.env")).unwrap();
    assert_eq!(environment.permissions().mode() & 0o777, 0o600, "it may hold a secret");
    host.succeed(&["apply"]);
    host.succeed(&["revert"]);
    let mut after = host.snapshot();
    // The parents of the saved state stay: other programs keep theirs there.
    after.retain(|path, _| before.contains_key(path) || ![host.0.join("var"), host.0.join("var/lib")].contains(path));
    assert_eq!(after, before);
    assert!(host.succeed(&["revert"]).starts_with("nothing to revert"));
}

/// A dry run says what it would do and does nothing, before and after an apply.
#[test]
fn a_dry_run_changes_nothing() {
    let host = Host::new("dry-run");
    let before = host.snapshot();
    let said = host.succeed(&["--dry-run", "apply"]);
    assert!(said.contains("would set net.core.somaxconn = 16384 (now 4096)"), "{said}");
    assert!(said.contains("absent    net.ipv4.tcp_max_syn_backlog"), "{said}");
    assert_eq!(host.snapshot(), before);
    host.succeed(&["apply"]);
    let applied = host.snapshot();
    assert!(host.succeed(&["revert", "--dry-run"]).contains("would restore net.core.somaxconn = 4096"));
    assert_eq!(host.snapshot(), applied);
}

/// Show tells present, wanted and saved apart.
#[test]
fn show_tells_now_wanted_and_saved_apart() {
    let host = Host::new("show");
    let said = host.succeed(&["show"]);
    assert!(said.contains("net.core.somaxconn: now 4096, wanted 16384, saved -\n"), "{said}");
    assert!(said.contains("etc/sysctl.d/90-ringgate.conf: different"), "{said}");
    assert!(said.contains("etc/ringgate/ringgate.env: missing"), "{said}");
    host.succeed(&["apply"]);
    let said = host.succeed(&["show"]);
    assert!(said.contains("net.core.somaxconn: now 16384, wanted 16384, saved 4096\n"), "{said}");
    assert!(said.contains("ip_local_port_range: now 10240 65535, wanted 10240 65535, saved 32768 60999\n"), "{said}");
    assert!(said.contains("tcp_max_syn_backlog: now absent, wanted 16384, saved -\n"), "{said}");
    assert!(!said.contains("different") && !said.contains("missing"), "{said}");
}

/// The operator's own environment file is not overwritten, and an edit is not lost by reverting.
#[test]
fn edits_are_kept() {
    let host = Host::new("edits");
    host.write("etc/ringgate/ringgate.env", "WS_HOST=10.0.0.1\n");
    host.succeed(&["apply"]);
    assert_eq!(host.read("etc/ringgate/ringgate.env"), "WS_HOST=10.0.0.1\n");
    host.write("etc/systemd/system/ringgate.service", "[Service]\n");
    host.succeed(&["revert"]);
    assert_eq!(host.read("etc/ringgate/ringgate.env"), "WS_HOST=10.0.0.1\n");
    assert!(!host.0.join("etc/systemd/system/ringgate.service").exists());
    assert_eq!(host.read("etc/systemd/system/ringgate.service.before-revert"), "[Service]\n");
}

/// A value that cannot be set or restored is named, the rest is done, the exit status says so, and what is saved stays.
#[test]
fn a_refused_value_is_reported() {
    let host = Host::new("refused");
    let path = host.0.join("proc/sys/net/core/somaxconn");
    fs::remove_file(&path).unwrap();
    // A regular file that even root cannot write.
    std::os::unix::fs::symlink("/proc/version", &path).unwrap();
    for (action, complaint) in
        [("apply", "cannot set net.core.somaxconn"), ("revert", "cannot restore net.core.somaxconn")]
    {
        let output = host.run(&[action]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(complaint), "{said}");
        let expected = if action == "apply" { "16384\n" } else { "1000\n" };
        assert_eq!(host.read("proc/sys/net/core/netdev_max_backlog"), expected);
        assert!(host.0.join("var/lib/ringgate-tuning/sysctl/net.core.somaxconn").exists());
    }
}

/// Wrong usage is an error with the usage, never an action.
#[test]
fn wrong_usage_changes_nothing() {
    let host = Host::new("usage");
    let before = host.snapshot();
    for arguments in [&[][..], &["apply", "revert"], &["--force", "apply"], &["apply", "--prefix"]] {
        let output = host.run(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(String::from_utf8_lossy(&output.stdout).contains("apply|show|revert"), "{arguments:?}");
    }
    assert_eq!(host.snapshot(), before);
}

/// Every sysctl says why and whether it was measured, and the manual's table has the same value.
#[test]
fn every_sysctl_is_explained() {
    let (conf, manual) = (tuning("sysctl.d/90-ringgate.conf"), tuning("README.md"));
    let mut settings = 0;
    for paragraph in conf.split("\n\n") {
        for line in paragraph.lines().filter(|line| !line.starts_with('#')) {
            let (key, value) = line.split_once(" = ").unwrap();
            let why = paragraph.split(line).next().unwrap().to_lowercase();
            assert!(why.contains("measured"), "{key} does not say whether it was measured");
            let row = manual.lines().find(|row| row.starts_with(&format!("| `{key}` |"))).expect(key);
            assert_eq!(row.split(" | ").nth(2), Some(value), "{key}");
            settings += 1;
        }
    }
    assert!(settings >= 5, "{settings} settings");
}

/// The unit leaves the gateway time to drain, its descriptors and its io_uring, and matches the limits file.
#[test]
fn the_unit_agrees_with_the_gateway() {
    let unit = tuning("systemd/ringgate.service");
    let stop: u64 = unit_value(&unit, "TimeoutStopSec").parse().unwrap();
    assert!(stop > limits::DRAIN_TIMEOUT.as_secs(), "{stop} s is shorter than the drain");
    let descriptors = unit_value(&unit, "LimitNOFILE");
    assert!(descriptors.parse::<u64>().unwrap() > limits::RESERVED_DESCRIPTORS);
    let limits_file = tuning("limits.d/ringgate.conf");
    assert_eq!(limits_file.matches(&format!("nofile   {descriptors}\n")).count(), 2);
    for call in ["io_uring_setup", "io_uring_enter", "io_uring_register"] {
        assert!(unit.lines().any(|line| line.starts_with("SystemCallFilter=") && line.contains(call)), "{call}");
    }
    assert_eq!(unit_value(&unit, "CapabilityBoundingSet"), "");
    assert_eq!(unit_value(&unit, "NoNewPrivileges"), "yes");
    assert_eq!(unit_value(&unit, "ProtectSystem"), "strict");
    assert_eq!(unit_value(&unit, "Restart"), "on-failure");
}

/// The worker's unit leaves it time to hand over, has as few rights as the gateway's, and stands beside it.
#[test]
fn the_workers_unit_agrees_with_the_worker() {
    let (unit, gateway) = (tuning("systemd/ringgate-worker.service"), tuning("systemd/ringgate.service"));
    let stop: u64 = unit_value(&unit, "TimeoutStopSec").parse().unwrap();
    assert!(stop > limits::WORKER_STOP_TIME.as_secs(), "{stop} s is shorter than the end takes");
    assert_eq!(unit_value(&unit, "ExecStart"), "/usr/local/bin/ringgate worker --health-port 9996");
    let rights = |unit: &str| -> Vec<String> {
        let starts = ["Protect", "Private", "Restrict", "Capab", "NoNew", "Memory", "Ambient", "Lock", "Remove"];
        unit.lines().filter(|line| starts.iter().any(|start| line.starts_with(start))).map(str::to_owned).collect()
    };
    assert_eq!(rights(&unit), rights(&gateway));
    assert!(rights(&unit).len() > 15);
}

/// systemd accepts the units without a word, where systemd is installed (the binary is replaced by one that exists).
#[test]
fn systemd_accepts_the_units() {
    let host = Host::new("unit");
    for name in ["ringgate.service", "ringgate-worker.service"] {
        host.write(name, &tuning(&format!("systemd/{name}")).replace("/usr/local/bin/ringgate", "/bin/true"));
        let verify = Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(host.0.join(name)).output();
        let Ok(output) = verify else { return };
        let said = String::from_utf8_lossy(&output.stderr);
        let ours: Vec<&str> = said.lines().filter(|line| line.contains(name)).collect();
        assert!(ours.is_empty(), "{ours:?}");
    }
}
