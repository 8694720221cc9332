//! Figures of a cgroup, in the units of version 2.

use std::fs;
use std::path::Path;

use super::{Cgroups, field};

/// Processor time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct CpuFigures {
    /// Since the cgroup exists.
    pub(crate) nanoseconds: u64,
}

/// Memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct MemoryFigures {
    pub(crate) usage: u64,
    /// Usage without the file pages that can be dropped at once.
    pub(crate) working_set: u64,
    pub(crate) rss: u64,
    pub(crate) page_faults: u64,
    pub(crate) major_page_faults: u64,
    /// `None` when there is no limit.
    pub(crate) limit: Option<u64>,
    pub(crate) swap: u64,
}

impl Cgroups {
    /// `None` when the cgroup does not exist.
    pub(crate) fn cpu(&self, cgroup: &str) -> Option<CpuFigures> {
        let nanoseconds = if self.legacy {
            number(&self.directory("cpuacct", cgroup)?.join("cpuacct.usage"))?
        } else {
            let text = fs::read_to_string(self.directory("cpu", cgroup)?.join("cpu.stat")).ok()?;
            field(&text, "usage_usec")? * 1000
        };
        Some(CpuFigures { nanoseconds })
    }

    /// `None` when the cgroup does not exist.
    pub(crate) fn memory(&self, cgroup: &str) -> Option<MemoryFigures> {
        let directory = self.directory("memory", cgroup)?;
        let stat = fs::read_to_string(directory.join("memory.stat")).ok()?;
        let value = |name| field(&stat, name).unwrap_or(0);
        if self.legacy {
            let usage = number(&directory.join("memory.usage_in_bytes"))?;
            return Some(MemoryFigures {
                usage,
                working_set: usage.saturating_sub(value("total_inactive_file")),
                rss: value("total_rss"),
                page_faults: value("total_pgfault"),
                major_page_faults: value("total_pgmajfault"),
                // The kernel shows "no limit" as the largest number of whole pages.
                limit: number(&directory.join("memory.limit_in_bytes")).filter(|limit| *limit < 1 << 62),
                swap: value("total_swap"),
            });
        }
        let usage = number(&directory.join("memory.current"))?;
        Some(MemoryFigures {
            usage,
            working_set: usage.saturating_sub(value("inactive_file")),
            rss: value("anon"),
            page_faults: value("pgfault"),
            major_page_faults: value("pgmajfault"),
            limit: number(&directory.join("memory.max")),
            swap: number(&directory.join("memory.swap.current")).unwrap_or(0),
        })
    }
}

/// The number a file holds; `None` also for `max`.
fn number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}
