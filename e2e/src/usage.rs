//! What a process takes of the machine.

use std::time::Duration;

/// CPU time and memory of a process; nothing of one that is not there.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// Of all its threads, since it started.
    pub processor: Duration,
    /// Bytes that are in memory now.
    pub resident: u64,
    /// The most bytes that were in memory at once.
    pub peak: u64,
}

impl Usage {
    /// What the kernel says of a process.
    pub fn of(pid: u32) -> Self {
        let read = |name: &str| std::fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap_or_default();
        let (stat, status) = (read("stat"), read("status"));
        // Counted from the state, which is the third field: utime is the 14th, stime the 15th.
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks =
            |index: usize| fields.get(index).and_then(|text| text.parse::<u64>().ok()).unwrap_or_default();
        let kib = |name: &str| {
            let rest = status.lines().find_map(|line| line.strip_prefix(name));
            rest.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or_default()
        };
        Self {
            processor: Duration::from_millis((ticks(11) + ticks(12)) * 10),
            resident: kib("VmRSS:") * 1024,
            peak: kib("VmHWM:") * 1024,
        }
    }
}
