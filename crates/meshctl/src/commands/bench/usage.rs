//! What a broker costs, as the operating system counts it. Only Linux tells it this finely.

use std::time::Duration;

use mesh_lab::Lab;

/// CPU time that all brokers of `lab` have used so far, with all their threads; `None` where it cannot be told.
pub fn cpu(lab: &Lab) -> Option<Duration> {
    lab.config()
        .topology
        .ids()
        .map(|id| cpu_of_process(lab.pid(id.as_str())?))
        .sum()
}

/// Memory that the mean broker of `lab` holds now, in bytes; `None` where it cannot be told.
///
/// `VmRSS` of `/proc/PID/status`; source: proc(5).
pub fn memory(lab: &Lab) -> Option<u64> {
    let all: Option<u64> = lab
        .config()
        .topology
        .ids()
        .map(|id| memory_of(lab.pid(id.as_str())?))
        .sum();
    Some(all? / lab.config().topology.brokers().len() as u64)
}

/// The same of one process.
pub fn memory_of(pid: u32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// The most memory that a process ever held, in bytes; `None` where it cannot be told.
pub fn peak_of(pid: u32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// CPU time that the process has used so far with all its threads that are left; `None` where it cannot be told.
///
/// From `/proc/PID/task/*/schedstat`, which counts nanoseconds. Source: Linux, Documentation/scheduler/sched-stats.rst.
pub fn cpu_of_process(pid: u32) -> Option<Duration> {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).ok()?;
    let used = threads.map(|thread| {
        let text = std::fs::read_to_string(thread.ok()?.path().join("schedstat")).ok()?;
        Some(Duration::from_nanos(
            text.split_whitespace().next()?.parse().ok()?,
        ))
    });
    used.sum()
}

/// The processor time that the calling thread has had.
pub(crate) fn cpu_of_thread() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap_or_default()
}
