//! What the node's machine is and has, from `/proc`, `/sys` and `/etc`.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use k8s_openapi::api::core::v1::NodeSystemInfo;

/// Memory that pods don't get, so that the node itself keeps breathing (upstream's eviction threshold).
const MEMORY_RESERVE: i64 = 100 << 20;

/// What a node can give to pods: whole units, thousandths for CPU.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Resources {
    pub(crate) capacity: BTreeMap<String, i64>,
    pub(crate) allocatable: BTreeMap<String, i64>,
}

impl Resources {
    /// Reads the machine; `data_dir` is on the disk that pods write to.
    pub(crate) fn read(data_dir: &Path, max_pods: u32) -> Self {
        let mut capacity = BTreeMap::from([
            ("cpu".to_owned(), cpus(&text("/proc/stat")) * 1000),
            ("memory".to_owned(), memory(&text("/proc/meminfo"), &cgroup_limits())),
            ("pods".to_owned(), i64::from(max_pods)),
            ("ephemeral-storage".to_owned(), disk(data_dir)),
        ]);
        capacity.extend(huge_pages(Path::new("/sys/kernel/mm/hugepages")));
        let mut allocatable = capacity.clone();
        let huge: i64 =
            capacity.iter().filter(|(name, _)| name.starts_with("hugepages-")).map(|(_, bytes)| *bytes).sum();
        if let Some(memory) = allocatable.get_mut("memory") {
            *memory = (*memory - huge - MEMORY_RESERVE).max(0);
        }
        if let Some(disk) = allocatable.get_mut("ephemeral-storage") {
            *disk -= *disk / 10;
        }
        Self { capacity, allocatable }
    }
}

/// The machine's names and versions.
pub(crate) fn system(runtime_version: &str) -> NodeSystemInfo {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let first = |paths: &[&str]| {
        let mut found = paths.iter().map(|path| text(path).trim().to_owned());
        found.find(|text| !text.is_empty()).unwrap_or_default()
    };
    let machine_id = first(&["/etc/machine-id", "/var/lib/dbus/machine-id"]);
    let uuid = first(&["/sys/class/dmi/id/product_uuid"]);
    NodeSystemInfo {
        architecture: architecture.to_owned(),
        boot_id: first(&["/proc/sys/kernel/random/boot_id"]),
        container_runtime_version: runtime_version.to_owned(),
        kernel_version: first(&["/proc/sys/kernel/osrelease"]),
        kube_proxy_version: String::new(),
        kubelet_version: concat!("v1.36.0+skiff", env!("CARGO_PKG_VERSION")).to_owned(),
        system_uuid: if uuid.is_empty() { machine_id.clone() } else { uuid },
        machine_id,
        operating_system: "linux".to_owned(),
        os_image: os_name(&text("/etc/os-release")),
        ..NodeSystemInfo::default()
    }
}

fn text(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// Processors that are online: a `cpuN` line each.
fn cpus(stat: &str) -> i64 {
    let is_cpu = |line: &&str| {
        line.strip_prefix("cpu").is_some_and(|rest| rest.starts_with(|letter: char| letter.is_ascii_digit()))
    };
    i64::try_from(stat.lines().filter(is_cpu).count()).unwrap_or(1).max(1)
}

/// The machine's memory, or less if the agent itself is limited to less.
fn memory(meminfo: &str, limits: &[String]) -> i64 {
    let total = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let total = total.and_then(|rest| rest.trim().trim_end_matches("kB").trim().parse::<i64>().ok());
    let total = total.unwrap_or(0) * 1024;
    let limits = limits.iter().filter_map(|limit| limit.trim().parse::<i64>().ok());
    limits.filter(|limit| *limit > 0).fold(total, i64::min)
}

fn cgroup_limits() -> Vec<String> {
    ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"].map(text).into()
}

fn disk(path: &Path) -> i64 {
    let Ok(found) = nix::sys::statvfs::statvfs(path) else { return 0 };
    let bytes = u128::from(found.blocks()) * u128::from(found.fragment_size());
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// Huge pages by size, in bytes.
fn huge_pages(root: &Path) -> BTreeMap<String, i64> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(root).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(kilobytes) =
            name.strip_prefix("hugepages-").and_then(|rest| rest.trim_end_matches("kB").parse::<i64>().ok())
        else {
            continue;
        };
        let count = fs::read_to_string(entry.path().join("nr_hugepages")).unwrap_or_default();
        let count: i64 = count.trim().parse().unwrap_or(0);
        let size = match kilobytes {
            size if size % (1 << 20) == 0 => format!("{}Gi", size >> 20),
            size if size % (1 << 10) == 0 => format!("{}Mi", size >> 10),
            size => format!("{size}Ki"),
        };
        found.insert(format!("hugepages-{size}"), count * kilobytes * 1024);
    }
    found
}

fn os_name(release: &str) -> String {
    let name = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    name.unwrap_or("Linux").trim_matches('"').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_is_read_from_the_kernels_files() {
        assert_eq!(cpus("cpu  1 2\ncpu0 1\ncpu1 2\nintr 5\n"), 2);
        let meminfo = "MemTotal:        2048 kB\nMemFree: 1 kB\n";
        assert_eq!(memory(meminfo, &["max\n".into(), String::new()]), 2 << 20);
        assert_eq!(memory(meminfo, &["1048576\n".into()]), 1 << 20);
        assert_eq!(os_name("NAME=x\nPRETTY_NAME=\"Debian 12\"\n"), "Debian 12");
        let here = Resources::read(Path::new("/"), 110);
        assert!(here.capacity["memory"] > here.allocatable["memory"] && here.allocatable["memory"] > 0);
        assert_eq!(here.allocatable["pods"], 110);
    }
}
