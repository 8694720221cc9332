//! New limits for a cgroup with processes in it.

use std::fs;
use std::path::Path;

use cri::LinuxContainerResources;

use super::Cgroups;
use crate::error::{Error, IoContext};

/// The range of `cpu.shares` that the kernel takes.
const SHARES: (i64, i64) = (2, 262_144);

impl Cgroups {
    /// Applies what is given; a zero or an empty value means no change.
    pub(crate) fn limit(&self, cgroup: &str, resources: &LinuxContainerResources) -> Result<(), Error> {
        if self.legacy { self.limit_legacy(cgroup, resources) } else { self.limit_unified(cgroup, resources) }
    }

    fn limit_legacy(&self, cgroup: &str, resources: &LinuxContainerResources) -> Result<(), Error> {
        if let Some(cpu) = self.directory("cpu", cgroup) {
            if resources.cpu_shares != 0 {
                set(&cpu.join("cpu.shares"), resources.cpu_shares.clamp(SHARES.0, SHARES.1))?;
            }
            if resources.cpu_period != 0 {
                set(&cpu.join("cpu.cfs_period_us"), resources.cpu_period)?;
            }
            if resources.cpu_quota != 0 {
                set(&cpu.join("cpu.cfs_quota_us"), resources.cpu_quota)?;
            }
        }
        if let Some(memory) = self.directory("memory", cgroup)
            && resources.memory_limit_in_bytes != 0
        {
            let limit = resources.memory_limit_in_bytes;
            let both = if resources.memory_swap_limit_in_bytes > 0 {
                resources.memory_swap_limit_in_bytes
            } else {
                limit
            };
            let (plain, with_swap) =
                (memory.join("memory.limit_in_bytes"), memory.join("memory.memsw.limit_in_bytes"));
            if !with_swap.exists() {
                set(&plain, limit)?;
            } else if set(&plain, limit).is_ok() {
                set(&with_swap, both)?;
            } else {
                // Memory can't be raised above memory plus swap, so that one goes first.
                set(&with_swap, both)?;
                set(&plain, limit)?;
            }
        }
        self.limit_cpuset(cgroup, resources)
    }

    fn limit_unified(&self, cgroup: &str, resources: &LinuxContainerResources) -> Result<(), Error> {
        let Some(directory) = self.directory("memory", cgroup) else { return Ok(()) };
        if resources.cpu_shares != 0 {
            set(&directory.join("cpu.weight"), weight(resources.cpu_shares))?;
        }
        if resources.cpu_quota != 0 || resources.cpu_period != 0 {
            let quota = match resources.cpu_quota {
                quota if quota > 0 => quota.to_string(),
                _ => "max".to_owned(),
            };
            let period = if resources.cpu_period > 0 { resources.cpu_period } else { 100_000 };
            set(&directory.join("cpu.max"), format!("{quota} {period}"))?;
        }
        let limit = resources.memory_limit_in_bytes;
        if limit != 0 {
            set(&directory.join("memory.max"), if limit > 0 { limit.to_string() } else { "max".to_owned() })?;
            let swap = directory.join("memory.swap.max");
            if swap.exists() && limit > 0 {
                // CRI gives memory plus swap; version 2 wants swap alone.
                set(&swap, (resources.memory_swap_limit_in_bytes - limit).max(0))?;
            }
        }
        for (file, value) in &resources.unified {
            if file.contains('/') {
                return Err(Error::Invalid(format!("cgroup file {file:?} must not contain a slash")));
            }
            set(&directory.join(file), value)?;
        }
        self.limit_cpuset(cgroup, resources)
    }

    fn limit_cpuset(&self, cgroup: &str, resources: &LinuxContainerResources) -> Result<(), Error> {
        let Some(directory) = self.directory("cpuset", cgroup) else { return Ok(()) };
        if !resources.cpuset_cpus.is_empty() {
            set(&directory.join("cpuset.cpus"), &resources.cpuset_cpus)?;
        }
        if !resources.cpuset_mems.is_empty() {
            set(&directory.join("cpuset.mems"), &resources.cpuset_mems)?;
        }
        Ok(())
    }
}

fn set(file: &Path, value: impl ToString) -> Result<(), Error> {
    let value = value.to_string();
    fs::write(file, &value).at("write", file)
}

/// Version 2's weight for version 1's shares, as systemd, runc and libcontainer convert it.
fn weight(shares: i64) -> i64 {
    1 + (shares.clamp(SHARES.0, SHARES.1) - 2) * 9999 / 262_142
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_become_a_weight_over_the_whole_range() {
        for (shares, expected) in [(0, 1), (2, 1), (1024, 39), (262_144, 10_000), (1 << 40, 10_000)] {
            assert_eq!(weight(shares), expected, "{shares}");
        }
    }
}
