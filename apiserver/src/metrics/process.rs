//! What the kernel says of this process. Read when somebody asks.

use std::fs;

use base::metrics::Text;

/// The kernel tells times in hundredths of a second, on every architecture.
const TICKS: f64 = 100.0;

/// Writes `process_*`; what can't be read is left out.
pub(super) fn write(text: &mut Text) {
    let read = |path: &str| fs::read_to_string(path).ok();
    if let Some(stat) = read("/proc/self/stat") {
        // The name of the program may have blanks and brackets in it.
        let fields: Vec<f64> = stat.rsplit_once(')').map_or_else(Vec::new, |(_, rest)| {
            rest.split_whitespace().map(|field| field.parse().unwrap_or_default()).collect()
        });
        let field = |number: usize| fields.get(number - 3).copied().unwrap_or_default();
        let help = "Total user and system CPU time spent in seconds.";
        text.single("process_cpu_seconds_total", "counter", help, (field(14) + field(15)) / TICKS);
        let boot = read("/proc/stat").and_then(|stat| {
            stat.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse::<f64>().ok())
        });
        if let Some(boot) = boot {
            let help = "Start time of the process since unix epoch in seconds.";
            text.single("process_start_time_seconds", "gauge", help, boot + field(22) / TICKS);
        }
        text.single("process_virtual_memory_bytes", "gauge", "Virtual memory size in bytes.", field(23));
    }
    let status = read("/proc/self/status");
    let resident = status.as_deref().and_then(|status| {
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        line.trim().trim_end_matches("kB").trim().parse::<u64>().ok()
    });
    if let Some(resident) = resident {
        let help = "Resident memory size in bytes.";
        text.single("process_resident_memory_bytes", "gauge", help, resident * 1024);
    }
    if let Ok(open) = fs::read_dir("/proc/self/fd") {
        text.single("process_open_fds", "gauge", "Number of open file descriptors.", open.count());
    }
    let most = read("/proc/self/limits").and_then(|limits| {
        let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    });
    if let Some(most) = most {
        text.single("process_max_fds", "gauge", "Maximum number of open file descriptors.", most);
    }
}
