//! Limits of a container in OCI's form.

use cri::LinuxContainerResources;
use serde_json::{Map, Value, json};

use super::capabilities::has_sys_resource;
use crate::cgroup::Cgroups;

/// The `resources` object, without devices.
pub(crate) fn resources(wanted: &LinuxContainerResources, cgroups: &Cgroups) -> Map<String, Value> {
    let swap = if cgroups.legacy() { "memory.memsw.limit_in_bytes" } else { "memory.swap.max" };
    let features = Features { swap: cgroups.root_has("memory", swap), hugepages: cgroups.has("hugetlb") };
    convert(wanted, features)
}

/// What this kernel offers beyond the basics.
struct Features {
    swap: bool,
    hugepages: bool,
}

fn convert(wanted: &LinuxContainerResources, features: Features) -> Map<String, Value> {
    let mut cpu = Map::new();
    for (name, value) in [("quota", wanted.cpu_quota), ("period", wanted.cpu_period)] {
        if value != 0 {
            cpu.insert(name.to_owned(), json!(value));
        }
    }
    if wanted.cpu_shares != 0 {
        // The kernel's own least value; a smaller one is an error on version 1.
        cpu.insert("shares".to_owned(), json!(wanted.cpu_shares.max(2)));
    }
    for (name, value) in [("cpus", &wanted.cpuset_cpus), ("mems", &wanted.cpuset_mems)] {
        if !value.is_empty() {
            cpu.insert(name.to_owned(), json!(value));
        }
    }
    let mut memory = Map::new();
    if wanted.memory_limit_in_bytes != 0 {
        memory.insert("limit".to_owned(), json!(wanted.memory_limit_in_bytes));
        if features.swap {
            // Without it the container could swap without limit.
            let swap = if wanted.memory_swap_limit_in_bytes != 0 {
                wanted.memory_swap_limit_in_bytes
            } else {
                wanted.memory_limit_in_bytes
            };
            memory.insert("swap".to_owned(), json!(swap));
        }
    }
    let mut resources = Map::new();
    if !cpu.is_empty() {
        resources.insert("cpu".to_owned(), Value::Object(cpu));
    }
    if !memory.is_empty() {
        resources.insert("memory".to_owned(), Value::Object(memory));
    }
    if features.hugepages && !wanted.hugepage_limits.is_empty() {
        let limits: Vec<Value> = wanted
            .hugepage_limits
            .iter()
            .map(|limit| json!({ "pageSize": limit.page_size, "limit": limit.limit }))
            .collect();
        resources.insert("hugepageLimits".to_owned(), Value::Array(limits));
    }
    if !wanted.unified.is_empty() {
        resources.insert("unified".to_owned(), json!(wanted.unified));
    }
    resources
}

/// The score the container can have: without CAP_SYS_RESOURCE it can't be below ours.
pub(crate) fn oom_score_adj(wanted: i64) -> i64 {
    let own =
        std::fs::read_to_string("/proc/self/oom_score_adj").ok().and_then(|text| text.trim().parse().ok());
    let wanted = wanted.clamp(-1000, 1000);
    if has_sys_resource() { wanted } else { wanted.max(own.unwrap_or(0)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_given_only_where_asked_for_and_possible() {
        let wanted = LinuxContainerResources {
            cpu_shares: 1,
            cpu_quota: 50_000,
            cpu_period: 100_000,
            memory_limit_in_bytes: 64 << 20,
            hugepage_limits: vec![cri::HugepageLimit { page_size: "2MB".to_owned(), limit: 0 }],
            ..LinuxContainerResources::default()
        };
        let all = Value::Object(convert(&wanted, Features { swap: true, hugepages: true }));
        assert_eq!(all["cpu"], json!({ "shares": 2, "quota": 50_000, "period": 100_000 }));
        assert_eq!(all["memory"], json!({ "limit": 64 << 20, "swap": 64 << 20 }));
        assert_eq!(all["hugepageLimits"][0]["pageSize"], "2MB");
        let few = Value::Object(convert(&wanted, Features { swap: false, hugepages: false }));
        assert_eq!(few["memory"], json!({ "limit": 64 << 20 }));
        assert!(few.get("hugepageLimits").is_none());
        assert!(
            convert(&LinuxContainerResources::default(), Features { swap: true, hugepages: true }).is_empty()
        );
    }
}
