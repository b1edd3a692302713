//! Whether this process may use io_uring: a trial that does the real thing, never a look at the kernel's version.

use std::fmt;
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use super::ring::{MAIN, Ring};

/// What the trial failed at. Its text names the probable cause and the remedy.
#[derive(Debug)]
pub struct ProbeError {
    /// The step that failed: `io_uring_setup`, `buffer ring`, `receive`, …
    pub step: &'static str,
    /// The kernel's answer.
    pub source: io::Error,
}

/// Builds a ring with its receive buffers and receives over a socketpair.
///
/// # Errors
/// The step that failed, why probably, and what to do.
pub fn probe() -> Result<(), ProbeError> {
    let failed = |step| move |source| ProbeError { step, source };
    let mut ring = Ring::build().map_err(|(step, source)| ProbeError { step, source })?;
    let (mut client, server) = UnixStream::pair().map_err(failed("socketpair"))?;
    ring.receive(server.as_raw_fd(), true, TRIAL_TAG);
    ring.submit();
    client.write_all(TRIAL).map_err(failed("socketpair"))?;
    ring.submit_and_wait(1, Some(PATIENCE));
    let mut reaped = Vec::new();
    ring.reap(&mut reaped);
    let Some(cqe) = reaped.first().copied() else {
        return Err(ProbeError { step: "receive", source: io::ErrorKind::TimedOut.into() });
    };
    if cqe.result < 0 {
        return Err(ProbeError { step: "receive", source: io::Error::from_raw_os_error(-cqe.result) });
    }
    let intact = cqe.user_data == TRIAL_TAG
        && cqe.more()
        && cqe.result as usize == TRIAL.len()
        && cqe.buffer().is_some_and(|buffer| {
            let group = &mut ring.groups[usize::from(MAIN)];
            group.taken();
            let intact = group.bytes_mut(buffer, TRIAL.len() as u32) == TRIAL;
            group.give(buffer);
            intact
        });
    if intact { Ok(()) } else { Err(ProbeError { step: "receive", source: io::ErrorKind::InvalidData.into() }) }
}

impl fmt::Display for ProbeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "io_uring cannot be used: {}: {}; {}", self.step, self.source, self.explanation())
    }
}

impl std::error::Error for ProbeError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

impl ProbeError {
    /// The probable cause and the remedy.
    fn explanation(&self) -> String {
        match self.source.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => refusal(),
            Some(libc::ENOSYS) => {
                "the kernel is older than 5.1 or built without CONFIG_IO_URING, or a sandbox (gVisor, \
                 a seccomp profile) hides it: use Linux 6.1 or later, or --driver monoio"
                    .into()
            }
            Some(libc::ENOMEM) => "the limit of locked memory (RLIMIT_MEMLOCK) is probably too low: raise it with \
                 ulimit -l, LimitMEMLOCK= or the container's ulimits, about 2 MiB per shard, or use --driver monoio"
                .into(),
            Some(libc::EMFILE | libc::ENFILE) => "no descriptors are left: raise ulimit -n".into(),
            Some(libc::EINVAL) => "the kernel lacks an operation of Linux 6.1 (deferred task work, buffer rings, \
                 multishot receive): use a newer kernel, or --driver monoio"
                .into(),
            _ => "the trial did not do what Linux 6.1 and later do: use --driver monoio".into(),
        }
    }
}

/// EPERM comes from a sysctl, which can be read, or from a filter, which can be guessed.
fn refusal() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let disabled = read("/proc/sys/kernel/io_uring_disabled");
    let red_hat = read("/etc/os-release").lines().any(|line| line.starts_with("ID_LIKE=") && line.contains("rhel"))
        || read("/etc/os-release").lines().any(|line| line == "ID=\"rhel\"");
    match disabled.trim() {
        "2" if red_hat => "kernel.io_uring_disabled = 2, the default of RHEL 9: sysctl kernel.io_uring_disabled=0, or \
             use --driver monoio"
            .into(),
        "1" => {
            "kernel.io_uring_disabled = 1, so only members of the group kernel.io_uring_group and CAP_SYS_ADMIN may \
             use it: join the group, or sysctl kernel.io_uring_disabled=0, or use --driver monoio"
                .into()
        }
        "2" => "kernel.io_uring_disabled = 2: sysctl kernel.io_uring_disabled=0, or use --driver monoio".into(),
        _ => {
            "a seccomp profile refuses it, as those of Docker, containerd and Kubernetes (RuntimeDefault) do: run with \
             a profile that allows io_uring_setup, io_uring_enter and io_uring_register (docker run --security-opt \
             seccomp=PROFILE.json), or use --driver monoio"
                .into()
        }
    }
}

const TRIAL: &[u8] = b"ringgate";
const TRIAL_TAG: u64 = 1;
const PATIENCE: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::driver::syscall;

    /// Where a filter refuses io_uring, the trial says EPERM, names the probable cause and a remedy.
    #[test]
    fn a_refusal_is_explained() {
        let error = std::thread::spawn(|| {
            syscall::deny_io_uring().unwrap();
            probe().unwrap_err()
        })
        .join()
        .unwrap();
        assert_eq!(error.source.raw_os_error(), Some(libc::EPERM));
        let text = error.to_string();
        assert!(text.contains("seccomp") || text.contains("io_uring_disabled"), "{text}");
        assert!(text.contains("--driver monoio"), "{text}");
    }

    /// Every cause that can be told apart has a remedy of its own.
    #[test]
    fn each_cause_has_its_remedy() {
        let text = |errno| ProbeError { step: "s", source: io::Error::from_raw_os_error(errno) }.to_string();
        assert!(text(libc::ENOMEM).contains("RLIMIT_MEMLOCK"));
        assert!(text(libc::ENOSYS).contains("CONFIG_IO_URING"));
        assert!(text(libc::EINVAL).contains("newer kernel"));
        assert!(text(libc::EMFILE).contains("ulimit -n"));
    }
}
