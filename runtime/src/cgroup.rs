//! Control groups as they are mounted here: version 1 (also hybrid) or version 2. What libcontainer does not
//! do is done here: joining, killing and removing whole trees, limits of a running container, and figures.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::error::{Error, IoContext};
use crate::process::PidFd;

mod limits;
mod stats;

/// One mounted hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Hierarchy {
    /// Controllers of a version 1 hierarchy (`name=systemd` counts as one); empty for version 2.
    controllers: Vec<String>,
    mount_point: PathBuf,
}

/// The hierarchies of this machine.
#[derive(Clone, Debug)]
pub(crate) struct Cgroups {
    hierarchies: Vec<Hierarchy>,
    /// Whether the controllers are in version 1 hierarchies.
    legacy: bool,
}

impl Cgroups {
    /// Reads what is mounted.
    pub(crate) fn detect() -> Result<Self, Error> {
        let path = Path::new("/proc/self/mountinfo");
        Ok(Self::from_mountinfo(&fs::read_to_string(path).at("read", path)?))
    }

    fn from_mountinfo(text: &str) -> Self {
        let mut hierarchies: Vec<Hierarchy> = Vec::new();
        for line in text.lines() {
            let Some((before, after)) = line.split_once(" - ") else { continue };
            let mut after = after.split(' ');
            let (kind, options) = (after.next().unwrap_or_default(), after.nth(1).unwrap_or_default());
            let mut before = before.split(' ').skip(3);
            let (root, mount_point) = (before.next().unwrap_or_default(), before.next().unwrap_or_default());
            if root != "/" || !mount_point.starts_with("/sys/fs/cgroup") {
                continue;
            }
            let controllers: Vec<String> = match kind {
                "cgroup" => options
                    .split(',')
                    .filter(|option| {
                        !matches!(*option, "rw" | "ro" | "xattr" | "noprefix" | "clone_children")
                    })
                    .filter(|option| !option.starts_with("release_agent="))
                    .map(str::to_owned)
                    .collect(),
                "cgroup2" => Vec::new(),
                _ => continue,
            };
            let hierarchy = Hierarchy { controllers, mount_point: PathBuf::from(mount_point) };
            if !hierarchies.iter().any(|known| known.controllers == hierarchy.controllers) {
                hierarchies.push(hierarchy);
            }
        }
        let legacy =
            hierarchies.iter().any(|hierarchy| hierarchy.controllers.iter().any(|name| name == "memory"));
        Self { hierarchies, legacy }
    }

    /// Whether the controllers are in version 1 hierarchies.
    pub(crate) fn legacy(&self) -> bool {
        self.legacy
    }

    /// Whether a controller exists here.
    pub(crate) fn has(&self, controller: &str) -> bool {
        if self.legacy {
            return self.hierarchy(controller).is_some();
        }
        self.hierarchies.first().is_some_and(|unified| {
            fs::read_to_string(unified.mount_point.join("cgroup.controllers"))
                .is_ok_and(|names| names.split_whitespace().any(|name| name == controller))
        })
    }

    /// Whether cgroups have a file of a controller. On version 2 the root has few, so a child is asked.
    pub(crate) fn root_has(&self, controller: &str, file: &str) -> bool {
        let Some(root) = self.directory(controller, "/") else { return false };
        match self.legacy {
            true => root.join(file).exists(),
            false => fs::read_dir(root)
                .is_ok_and(|entries| entries.flatten().any(|entry| entry.path().join(file).exists())),
        }
    }

    /// The names below `/sys/fs/cgroup` that a container sees on version 1.
    pub(crate) fn legacy_mount_names(&self) -> Vec<String> {
        let mut names: BTreeSet<String> = BTreeSet::new();
        for hierarchy in self.hierarchies.iter().filter(|hierarchy| !hierarchy.controllers.is_empty()) {
            names
                .extend(hierarchy.controllers.iter().map(|name| name.trim_start_matches("name=").to_owned()));
            names.extend(hierarchy.mount_point.file_name().and_then(|name| name.to_str()).map(str::to_owned));
        }
        names.into_iter().collect()
    }

    fn hierarchy(&self, controller: &str) -> Option<&Hierarchy> {
        match self.legacy {
            true => {
                self.hierarchies.iter().find(|each| each.controllers.iter().any(|name| name == controller))
            }
            false => self.hierarchies.iter().find(|each| each.controllers.is_empty()),
        }
    }

    /// The directory of a cgroup for a controller (on version 2 the same for all).
    fn directory(&self, controller: &str, cgroup: &str) -> Option<PathBuf> {
        Some(self.hierarchy(controller)?.mount_point.join(cgroup.trim_start_matches('/')))
    }

    /// The directories of a cgroup in all hierarchies.
    fn directories(&self, cgroup: &str) -> impl Iterator<Item = PathBuf> {
        self.hierarchies.iter().map(move |each| each.mount_point.join(cgroup.trim_start_matches('/')))
    }

    /// Moves the calling process into a cgroup, made if need be, in those hierarchies that decide over life
    /// and limits: where it is killed with a service, and whose memory and process limit it counts to.
    /// Best effort: a machine may delegate only some of them.
    pub(crate) fn join(&self, cgroup: &str) {
        for hierarchy in &self.hierarchies {
            let decisive = ["memory", "pids", "freezer", "name=systemd"];
            let wanted = hierarchy.controllers.is_empty()
                || hierarchy.controllers.iter().any(|name| decisive.contains(&name.as_str()));
            let directory = hierarchy.mount_point.join(cgroup.trim_start_matches('/'));
            if wanted && fs::create_dir_all(&directory).is_ok() {
                let _ = fs::write(directory.join("cgroup.procs"), "0");
            }
        }
    }

    /// How often the OOM killer struck in a cgroup.
    pub(crate) fn oom_kills(&self, cgroup: &str) -> u64 {
        let file = if self.legacy { "memory.oom_control" } else { "memory.events" };
        let Some(directory) = self.directory("memory", cgroup) else { return 0 };
        fs::read_to_string(directory.join(file)).ok().and_then(|text| field(&text, "oom_kill")).unwrap_or(0)
    }

    /// The processes of a cgroup and of all below it.
    pub(crate) fn processes(&self, cgroup: &str) -> BTreeSet<i32> {
        let mut found = BTreeSet::new();
        // On version 1 the hierarchies can differ, so each is read.
        for directory in self.directories(cgroup) {
            for directory in tree(&directory) {
                let text = fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
                // 0 is a process of a pid namespace that can't be seen from here.
                found.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()).filter(|pid| *pid > 0));
            }
        }
        found
    }

    /// Kills every process of a cgroup and below, and waits until they are gone. Blocks, at most for `limit`.
    pub(crate) fn kill(&self, cgroup: &str, limit: Duration) -> Result<(), Error> {
        let deadline = Instant::now() + limit;
        let own = std::process::id() as i32;
        loop {
            let processes: Vec<PidFd> = self
                .processes(cgroup)
                .into_iter()
                .filter(|pid| *pid != own)
                .filter_map(|pid| PidFd::open(pid).ok())
                // A process that ended between the listing and here is already readable.
                .filter(|process| !process.wait(Duration::ZERO))
                .collect();
            if processes.is_empty() {
                return Ok(());
            }
            self.thaw(cgroup);
            for process in &processes {
                process.signal(libc::SIGKILL).at("kill the processes of", cgroup)?;
            }
            for process in &processes {
                if !process.wait(deadline.saturating_duration_since(Instant::now())) {
                    return Err(Error::Deadline(format!(
                        "processes of cgroup {cgroup} do not end on SIGKILL"
                    )));
                }
            }
        }
    }

    /// A frozen process does not die.
    fn thaw(&self, cgroup: &str) {
        let (file, word) = if self.legacy { ("freezer.state", "THAWED") } else { ("cgroup.freeze", "0") };
        if let Some(directory) = self.directory("freezer", cgroup) {
            let _ = fs::write(directory.join(file), word);
        }
    }

    /// Removes a cgroup and all below it from every hierarchy. One that is not there is no error.
    pub(crate) fn remove(&self, cgroup: &str) -> Result<(), Error> {
        if cgroup.trim_matches('/').is_empty() {
            return Ok(());
        }
        for directory in self.directories(cgroup) {
            for directory in tree(&directory).iter().rev() {
                match fs::remove_dir(directory) {
                    Err(error) if error.kind() != ErrorKind::NotFound => {
                        return Err(error).at("remove", directory);
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// Removes a cgroup that has nothing below it.
    pub(crate) fn remove_if_empty(&self, cgroup: &str) {
        if cgroup.trim_matches('/').is_empty() {
            return;
        }
        for directory in self.directories(cgroup) {
            let _ = fs::remove_dir(directory);
        }
    }
}

/// A cgroup directory and all below it, parents first; empty when it doesn't exist.
fn tree(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![directory.to_owned()];
    while let Some(directory) = open.pop() {
        let Ok(entries) = fs::read_dir(&directory) else { continue };
        open.extend(
            entries
                .flatten()
                .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
                .map(|entry| entry.path()),
        );
        found.push(directory);
    }
    found
}

/// The number after a name in a file of `name number` lines.
fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
24 18 0:22 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
25 24 0:23 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
26 24 0:24 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
27 24 0:25 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd
28 24 0:26 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
29 24 0:24 / /var/elsewhere rw,relatime - cgroup cgroup rw,memory
";

    #[test]
    fn a_hybrid_machine_counts_as_version_1() {
        let cgroups = Cgroups::from_mountinfo(HYBRID);
        assert!(cgroups.legacy());
        assert!(cgroups.has("cpuacct"));
        assert!(!cgroups.has("hugetlb"));
        assert_eq!(cgroups.directory("cpu", "/a/b"), Some(PathBuf::from("/sys/fs/cgroup/cpu,cpuacct/a/b")));
        assert_eq!(cgroups.directories("/a").count(), 4);
        assert_eq!(cgroups.legacy_mount_names(), ["cpu", "cpu,cpuacct", "cpuacct", "memory", "systemd"]);
    }

    #[test]
    fn a_unified_machine_has_one_directory_for_all_controllers() {
        let cgroups =
            Cgroups::from_mountinfo("25 24 0:23 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n");
        assert!(!cgroups.legacy());
        assert_eq!(cgroups.directory("memory", "/a"), Some(PathBuf::from("/sys/fs/cgroup/a")));
        assert!(cgroups.legacy_mount_names().is_empty());
    }

    #[test]
    fn fields_are_found_by_their_whole_name() {
        assert_eq!(field("oom_kill_disable 0\nunder_oom 0\noom_kill 3\n", "oom_kill"), Some(3));
        assert_eq!(field("", "oom_kill"), None);
    }
}
