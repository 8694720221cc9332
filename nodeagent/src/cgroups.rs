//! The cgroups of pods, as the kubelet's cgroupfs driver makes them: one per pod below one per quality of
//! service, above those that the runtime makes for containers.
//!
//! ```text
//! <root>/pod<uid>               guaranteed
//! <root>/burstable/pod<uid>
//! <root>/besteffort/pod<uid>
//! ```
//!
//! On cgroup v1 (and the hybrid of both) the tree exists once per controller, on v2 once.

mod hierarchy;

use std::io;
use std::path::Path;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;

use crate::pod::resources::{Qos, pod_limits, qos};
use hierarchy::Hierarchies;

/// Every place where the cgroup of a pod can be, relative to the root.
const CLASSES: [&str; 3] = ["", "burstable", "besteffort"];

/// How long killed processes may take to disappear.
const KILL_LIMIT: Duration = Duration::from_secs(10);

/// The cgroups below one root.
#[derive(Debug)]
pub struct Cgroups {
    hierarchies: Hierarchies,
    /// Without slashes at its ends.
    root: String,
}

impl Cgroups {
    /// Makes the root and the classes of service below it, in every controller that the kernel offers.
    pub fn new(root: &str) -> Result<Self, io::Error> {
        Self::within(Hierarchies::find(Path::new("/sys/fs/cgroup"))?, root)
    }

    fn within(hierarchies: Hierarchies, root: &str) -> Result<Self, io::Error> {
        let cgroups = Self { hierarchies, root: checked(root)? };
        for class in CLASSES {
            cgroups.hierarchies.create(&cgroups.path(class))?;
        }
        // Whoever has asked for nothing gets what is left.
        cgroups.hierarchies.set_shares(&cgroups.path("besteffort"), 2)?;
        Ok(cgroups)
    }

    /// Makes the cgroup of a pod with its limits, or brings the limits up to date. Returns the path that the
    /// runtime makes the containers' cgroups under.
    pub fn set_up(&self, pod: &Pod) -> Result<String, io::Error> {
        let class = match qos(pod) {
            Qos::Guaranteed => "",
            Qos::Burstable => "burstable",
            Qos::BestEffort => "besteffort",
        };
        let path = self.path(&format!("{class}/{}", directory(crate::pod::uid(pod))?));
        self.hierarchies.create(&path)?;
        self.hierarchies.limit(&path, &pod_limits(pod))?;
        Ok(format!("/{path}"))
    }

    /// Removes the cgroup of a pod with everything in it. Processes that are still in it are killed; as long as
    /// one of them has not ended, the error is `ResourceBusy`, and the call is to be made again.
    pub fn remove(&self, pod_uid: &str) -> Result<(), io::Error> {
        let name = directory(pod_uid)?;
        for class in CLASSES {
            self.hierarchies.remove(&self.path(&format!("{class}/{name}")))?;
        }
        Ok(())
    }

    /// The uids of the pods that have a cgroup.
    pub fn pods(&self) -> Vec<String> {
        let mut found: Vec<String> =
            CLASSES.iter().flat_map(|class| self.hierarchies.children(&self.path(class))).collect();
        found.sort_unstable();
        found.dedup();
        found.into_iter().filter_map(|name| name.strip_prefix("pod").map(str::to_owned)).collect()
    }

    fn path(&self, below: &str) -> String {
        format!("{}/{}", self.root, below.trim_matches('/')).trim_end_matches('/').to_owned()
    }
}

/// Ends what runs in an agent's cgroups and removes them all. Succeeds when there are none. Blocks, not for long.
pub fn remove_all(root: &str) -> Result<(), io::Error> {
    let root = checked(root)?;
    let hierarchies = Hierarchies::find(Path::new("/sys/fs/cgroup"))?;
    hierarchies.kill(&root, KILL_LIMIT)?;
    hierarchies.remove(&root)
}

/// A root without slashes at its ends.
fn checked(root: &str) -> Result<String, io::Error> {
    let root = root.trim_matches('/');
    if root.split('/').any(|part| part.is_empty() || part == "..") {
        let why = format!("cgroup root {root:?} is not a path");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    }
    Ok(root.to_owned())
}

/// The name of a pod's cgroup. A uid comes from the API, so what would leave the class is refused.
fn directory(uid: &str) -> Result<String, io::Error> {
    if uid.is_empty() || uid.contains('/') {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("pod uid {uid:?} is not a name of a cgroup"),
        ));
    }
    Ok(format!("pod{uid}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::testing::{container, pod};

    /// A root of its own, removed at the end of the test whatever happens in it.
    struct Kernel(Cgroups);

    impl Kernel {
        fn new(name: &str) -> Self {
            Self(Cgroups::new(&format!("/skiff-test-{name}-{}", std::process::id())).unwrap())
        }

        fn read(&self, controller: &str, path: &str, file: &str) -> String {
            let path = path.trim_start_matches('/');
            let directory = self.0.hierarchies.directory(controller, path).unwrap();
            std::fs::read_to_string(directory.join(file)).unwrap().trim().to_owned()
        }
    }

    impl Drop for Kernel {
        fn drop(&mut self) {
            let _ = self.0.hierarchies.remove(&self.0.root);
        }
    }

    #[test]
    fn a_pod_gets_a_cgroup_of_its_class_with_its_limits() {
        let kernel = Kernel::new("limits");
        let mut web = pod().with(container("c").resources("r.cpu=500m l.cpu=1 l.memory=64Mi")).build();
        web.metadata.uid = Some("u-1".into());
        let parent = kernel.0.set_up(&web).unwrap();
        assert_eq!(parent, format!("/{}/burstable/podu-1", kernel.0.root));
        if kernel.0.hierarchies.is_unified() {
            assert_eq!(kernel.read("cpu", &parent, "cpu.max"), "100000 100000");
            assert_eq!(kernel.read("memory", &parent, "memory.max"), "67108864");
        } else {
            assert_eq!(kernel.read("cpu", &parent, "cpu.shares"), "512");
            assert_eq!(kernel.read("cpu", &parent, "cpu.cfs_quota_us"), "100000");
            assert_eq!(kernel.read("memory", &parent, "memory.limit_in_bytes"), "67108864");
        }
        assert_eq!(kernel.0.pods(), ["u-1"]);
        assert_eq!(kernel.0.set_up(&web).unwrap(), parent, "once more changes nothing");
    }

    #[test]
    fn a_pod_is_removed_with_what_its_containers_left() {
        let kernel = Kernel::new("remove");
        let mut plain = pod().with(container("c")).build();
        plain.metadata.uid = Some("u-2".into());
        let parent = kernel.0.set_up(&plain).unwrap();
        let parent = parent.trim_start_matches('/');
        kernel.0.hierarchies.create(&format!("{parent}/container/nested")).unwrap();
        kernel.0.remove("u-2").unwrap();
        assert!(kernel.0.pods().is_empty());
        kernel.0.remove("u-2").unwrap();
    }

    #[test]
    fn processes_that_a_container_left_are_killed() {
        let kernel = Kernel::new("kill");
        let mut plain = pod().with(container("c")).build();
        plain.metadata.uid = Some("u-3".into());
        let parent = kernel.0.set_up(&plain).unwrap();
        let parent = parent.trim_start_matches('/');
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        kernel.0.hierarchies.enter(parent, child.id()).unwrap();
        let busy = kernel.0.remove("u-3").unwrap_err();
        assert_eq!(busy.kind(), io::ErrorKind::ResourceBusy, "{busy}");
        assert!(!child.wait().unwrap().success());
        kernel.0.remove("u-3").unwrap();
        assert!(kernel.0.pods().is_empty());
    }

    #[test]
    fn all_cgroups_of_an_agent_go_with_what_runs_in_them() {
        let kernel = Kernel::new("all");
        let mut plain = pod().with(container("c")).build();
        plain.metadata.uid = Some("u-4".into());
        let parent = kernel.0.set_up(&plain).unwrap();
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        kernel.0.hierarchies.enter(parent.trim_start_matches('/'), child.id()).unwrap();
        let root = kernel.0.root.clone();
        for _ in 0..2 {
            remove_all(&root).unwrap();
            assert!(kernel.0.hierarchies.children(&root).is_empty());
        }
        assert!(!child.wait().unwrap().success());
    }

    #[test]
    fn a_name_that_leaves_the_tree_is_refused() {
        assert!(directory("../../etc").is_err());
        assert!(directory("").is_err());
        assert!(Cgroups::new("/a/../b").is_err());
    }
}
