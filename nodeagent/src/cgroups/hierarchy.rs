//! The cgroup filesystems of the machine: v1 with one tree per controller, v2 with one for all, or the hybrid of
//! both, which counts as v1 because the limits are there.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};
use nix::unistd::Pid;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{PidfdFlags, pidfd_open, pidfd_send_signal};

use crate::pod::resources::CgroupLimits;

/// The controllers that pods are limited and accounted by.
const CONTROLLERS: [&str; 9] =
    ["cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids", "hugetlb"];
/// Those that are handed down to children on v2.
const UNIFIED: [&str; 6] = ["cpu", "cpuset", "memory", "io", "pids", "hugetlb"];

#[derive(Debug)]
pub(super) enum Hierarchies {
    Separate {
        /// Per controller its tree. Controllers mounted together appear as several names of one tree.
        trees: Vec<(&'static str, PathBuf)>,
        /// Trees without a controller of ours, in which a runtime makes the same cgroups: systemd's, and v2's.
        others: Vec<PathBuf>,
    },
    Unified(PathBuf),
}

/// An error that names the file.
fn at(path: &Path, error: impl Into<io::Error>) -> io::Error {
    let error: io::Error = error.into();
    io::Error::new(error.kind(), format!("cgroup {}: {error}", path.display()))
}

fn write(path: &Path, value: impl ToString) -> io::Result<()> {
    fs::write(path, value.to_string()).map_err(|error| at(path, error))
}

impl Hierarchies {
    pub(super) fn find(mount: &Path) -> io::Result<Self> {
        let kind = statfs(mount).map_err(|error| at(mount, error))?.filesystem_type();
        if kind == CGROUP2_SUPER_MAGIC {
            return Ok(Self::Unified(mount.to_owned()));
        }
        let mut found: Vec<(&'static str, PathBuf)> = Vec::new();
        for name in CONTROLLERS {
            // `cpu` may be a link to `cpu,cpuacct`: one tree is worked on once.
            let Ok(tree) = fs::canonicalize(mount.join(name)) else { continue };
            let on_v1 = statfs(&tree).is_ok_and(|found| found.filesystem_type() != CGROUP2_SUPER_MAGIC);
            if on_v1 && tree.join("cgroup.procs").exists() {
                found.push((name, tree));
            }
        }
        if found.is_empty() {
            return Err(at(mount, io::Error::new(io::ErrorKind::NotFound, "no controller is mounted here")));
        }
        let trees = below(mount).into_iter().map(|name| mount.join(name));
        let others = trees.filter(|tree| tree.join("cgroup.procs").exists());
        let others = others.filter(|tree| !found.iter().any(|(_, known)| known == tree)).collect();
        Ok(Self::Separate { trees: found, others })
    }

    /// The directory of a cgroup in the tree of a controller.
    pub(super) fn directory(&self, controller: &str, path: &str) -> Option<PathBuf> {
        match self {
            Self::Unified(tree) => Some(tree.join(path)),
            Self::Separate { trees, .. } => {
                trees.iter().find(|(name, _)| *name == controller).map(|(_, tree)| tree.join(path))
            }
        }
    }

    fn directories(&self, path: &str) -> Vec<PathBuf> {
        match self {
            Self::Unified(tree) => vec![tree.join(path)],
            Self::Separate { trees, .. } => {
                let mut found: Vec<PathBuf> = trees.iter().map(|(_, tree)| tree.join(path)).collect();
                found.sort_unstable();
                found.dedup();
                found
            }
        }
    }

    /// Makes a cgroup and all above it, in every tree.
    pub(super) fn create(&self, path: &str) -> io::Result<()> {
        match self {
            Self::Unified(tree) => {
                let mut directory = tree.clone();
                for part in path.split('/') {
                    hand_down(&directory)?;
                    directory.push(part);
                    make(&directory)?;
                }
                // The pod's own: its containers' cgroups need the controllers too.
                hand_down(&directory)
            }
            Self::Separate { trees, .. } => {
                for (controller, tree) in trees {
                    let mut directory = tree.clone();
                    for part in path.split('/') {
                        let above = directory.clone();
                        directory.push(part);
                        make(&directory)?;
                        if *controller == "cpuset" {
                            inherit_cpuset(&above, &directory)?;
                        }
                    }
                }
                Ok(())
            }
        }
    }

    pub(super) fn set_shares(&self, path: &str, shares: i64) -> io::Result<()> {
        let Some(directory) = self.directory("cpu", path) else { return Ok(()) };
        match self {
            Self::Separate { .. } => write(&directory.join("cpu.shares"), shares),
            Self::Unified(_) => optional(write(&directory.join("cpu.weight"), weight(shares))),
        }
    }

    /// Sets the limits of a cgroup; an absent limit is lifted.
    pub(super) fn limit(&self, path: &str, limits: &CgroupLimits) -> io::Result<()> {
        self.set_shares(path, limits.cpu_shares)?;
        match self {
            Self::Unified(tree) => {
                let directory = tree.join(path);
                let quota = limits.cpu_quota.map_or("max".to_owned(), |quota| quota.to_string());
                optional(write(&directory.join("cpu.max"), format!("{quota} {}", limits.cpu_period)))?;
                let memory = limits.memory.map_or("max".to_owned(), |memory| memory.to_string());
                optional(write(&directory.join("memory.max"), memory))
            }
            Self::Separate { .. } => {
                if let Some(directory) = self.directory("cpu", path) {
                    // A kernel without bandwidth control has no such files.
                    optional(write(&directory.join("cpu.cfs_period_us"), limits.cpu_period))?;
                    optional(write(&directory.join("cpu.cfs_quota_us"), limits.cpu_quota.unwrap_or(-1)))?;
                }
                if let Some(directory) = self.directory("memory", path) {
                    write(&directory.join("memory.limit_in_bytes"), limits.memory.unwrap_or(-1))?;
                }
                Ok(())
            }
        }
    }

    /// The cgroups directly below one, in any tree.
    pub(super) fn children(&self, path: &str) -> Vec<String> {
        self.directories(path).iter().flat_map(|directory| below(directory)).collect()
    }

    /// Removes a cgroup and all below it from every tree; it need not exist.
    pub(super) fn remove(&self, path: &str) -> io::Result<()> {
        let mut result = Ok(());
        let mut directories = self.directories(path);
        if let Self::Separate { others, .. } = self {
            directories.extend(others.iter().map(|tree| tree.join(path)));
        }
        for directory in directories {
            // The other trees are cleared even if one is still busy.
            if let Err(error) = remove(&directory) {
                result = Err(error);
            }
        }
        result
    }

    /// Kills what runs in a cgroup and below, and waits until it is gone.
    pub(super) fn kill(&self, path: &str, limit: Duration) -> io::Result<()> {
        let mut processes = BTreeSet::new();
        self.directories(path).iter().for_each(|directory| processes_below(directory, &mut processes));
        let mut killed = Vec::new();
        for pid in processes.into_iter().filter_map(rustix::process::Pid::from_raw) {
            // A pidfd means this process even if it ends and its number is given to another.
            match pidfd_open(pid, PidfdFlags::empty()) {
                Ok(process) => killed.push(process),
                Err(error) if error == rustix::io::Errno::SRCH => {}
                Err(error) => return Err(error.into()),
            }
        }
        for process in &killed {
            match pidfd_send_signal(process, rustix::process::Signal::KILL) {
                Err(error) if error != rustix::io::Errno::SRCH => return Err(error.into()),
                _ => {}
            }
        }
        let limit = Timespec::try_from(limit).map_err(io::Error::other)?;
        for process in &killed {
            if poll(&mut [PollFd::new(process, PollFlags::IN)], Some(&limit))? == 0 {
                let why = format!("processes of cgroup {path} do not end on SIGKILL");
                return Err(io::Error::new(io::ErrorKind::TimedOut, why));
            }
        }
        Ok(())
    }

    #[cfg(test)]
    pub(super) fn is_unified(&self) -> bool {
        matches!(self, Self::Unified(_))
    }

    #[cfg(test)]
    pub(super) fn enter(&self, path: &str, pid: u32) -> io::Result<()> {
        self.directories(path).iter().try_for_each(|directory| write(&directory.join("cgroup.procs"), pid))
    }
}

/// On v2 a controller that the kernel or the cgroup above doesn't offer is done without.
fn optional(result: io::Result<()>) -> io::Result<()> {
    result.or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) })
}

/// v1's shares (2 to 262144) on v2's scale (1 to 10000), as the runtimes convert them.
fn weight(shares: i64) -> i64 {
    1 + (shares.max(2) - 2) * 9999 / 262_142
}

fn make(directory: &Path) -> io::Result<()> {
    match fs::create_dir(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(at(directory, error)),
        _ => Ok(()),
    }
}

/// Offers to the children of a v2 cgroup what it has itself.
fn hand_down(directory: &Path) -> io::Result<()> {
    let controllers = directory.join("cgroup.controllers");
    let offered = fs::read_to_string(&controllers).map_err(|error| at(&controllers, error))?;
    let control = directory.join("cgroup.subtree_control");
    let enabled = fs::read_to_string(&control).map_err(|error| at(&control, error))?;
    for controller in offered.split_whitespace().filter(|name| UNIFIED.contains(name)) {
        if !enabled.split_whitespace().any(|name| name == controller) {
            write(&control, format_args!("+{controller}"))?;
        }
    }
    Ok(())
}

/// A new cpuset is empty, and nothing can run in it until it has processors and memory.
fn inherit_cpuset(above: &Path, directory: &Path) -> io::Result<()> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let own = directory.join(file);
        let value = fs::read_to_string(&own).map_err(|error| at(&own, error))?;
        if value.trim().is_empty() {
            let inherited = fs::read_to_string(above.join(file)).map_err(|error| at(&own, error))?;
            write(&own, inherited.trim())?;
        }
    }
    Ok(())
}

fn below(directory: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let directories = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    directories.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

/// Children first: a cgroup with children can't be removed.
fn remove(directory: &Path) -> io::Result<()> {
    for child in below(directory) {
        remove(&directory.join(child))?;
    }
    match fs::remove_dir(directory) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => {
            kill_all(directory)?;
            Err(at(directory, error))
        }
    }
}

fn processes_below(directory: &Path, found: &mut BTreeSet<i32>) {
    let text = fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
    found.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()));
    below(directory).iter().for_each(|child| processes_below(&directory.join(child), found));
}

/// Kills what still runs in a cgroup.
fn kill_all(directory: &Path) -> io::Result<()> {
    let procs = directory.join("cgroup.procs");
    let text = match fs::read_to_string(&procs) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other.map_err(|error| at(&procs, error))?,
    };
    for pid in text.lines().filter_map(|line| line.parse().ok()).filter(|pid| *pid > 0) {
        match kill(Pid::from_raw(pid), Signal::SIGKILL) {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(error) => return Err(at(&procs, error)),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_become_weights_as_the_runtimes_convert_them() {
        for (shares, expected) in [(0, 1), (2, 1), (1024, 39), (262_144, 10_000)] {
            assert_eq!(weight(shares), expected, "{shares}");
        }
    }
}
