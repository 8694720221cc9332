//! The OCI specification of a container, from what CRI and the image say.

use std::collections::BTreeMap;
use std::path::Path;

use cri::{ContainerConfig, LinuxContainerResources, LinuxContainerSecurityContext};
use serde_json::{Map, Value, json};

use super::capabilities::capabilities;
use super::devices::devices;
use super::mounts::{Surroundings, mounts, root_propagation};
use super::resources::{oom_score_adj, resources};
use super::seccomp;
use super::user::{self, User};
use crate::cgroup::Cgroups;
use crate::error::Error;
use crate::image::ImageConfig;

/// Where executables are looked for if the image doesn't say.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What a container is made of.
pub(crate) struct Ingredients<'a> {
    pub(crate) config: &'a ContainerConfig,
    pub(crate) image: &'a ImageConfig,
    pub(crate) rootfs: &'a Path,
    pub(crate) cgroup: &'a str,
    pub(crate) cgroups: &'a Cgroups,
    /// Directory of the sandbox's files.
    pub(crate) sandbox: &'a Path,
    pub(crate) hostname: &'a str,
    pub(crate) host_ipc: bool,
    /// Namespaces to join, by OCI's name.
    pub(crate) join: Vec<(&'static str, String)>,
    /// Whether the container gets a pid namespace of its own.
    pub(crate) own_pid: bool,
}

/// The finished specification and what the status shows of it.
pub(crate) struct Spec {
    pub(crate) json: Value,
    pub(crate) user: User,
}

impl Ingredients<'_> {
    /// Puts everything together. Reads the rootfs; blocks.
    pub(crate) fn spec(&self) -> Result<Spec, Error> {
        let linux = self.config.linux.clone().unwrap_or_default();
        let security = linux.security_context.unwrap_or_default();
        let user = user::resolve(self.rootfs, &security, &self.image.user)?;
        let process = self.process(&security, &user, linux.resources.as_ref())?;
        let mut linux = self.linux(&security, linux.resources.unwrap_or_default())?;
        let held = capabilities(security.capabilities.as_ref(), security.privileged)?.held;
        if let Some(filter) = seccomp::profile(security.seccomp.as_ref(), security.privileged, &held)? {
            linux.insert("seccomp".to_owned(), filter);
        }
        let around =
            Surroundings { sandbox: self.sandbox, host_ipc: self.host_ipc, privileged: security.privileged };
        let json = json!({
            "ociVersion": "1.2.0",
            "process": process,
            "root": { "path": self.rootfs, "readonly": security.readonly_rootfs },
            "mounts": mounts(&self.config.mounts, &around)?,
            "annotations": self.config.annotations,
            "linux": linux,
        });
        Ok(Spec { json, user })
    }

    fn process(
        &self,
        security: &LinuxContainerSecurityContext,
        user: &User,
        resources: Option<&LinuxContainerResources>,
    ) -> Result<Value, Error> {
        refuse_apparmor(security)?;
        let capabilities = capabilities(security.capabilities.as_ref(), security.privileged)?;
        let (held, ambient) = (&capabilities.held, &capabilities.ambient);
        let mut process = json!({
            "terminal": self.config.tty,
            "user": { "uid": user.uid, "gid": user.gid, "additionalGids": user.groups },
            "args": self.args()?,
            "env": self.env()?,
            "cwd": self.cwd()?,
            "capabilities": {
                "bounding": held, "effective": held, "permitted": held, "inheritable": ambient, "ambient": ambient,
            },
            "oomScoreAdj": oom_score_adj(resources.map_or(0, |resources| resources.oom_score_adj)),
        });
        // Only if true: libcontainer loads the seccomp filter too late, and fails, when the field is there.
        if security.no_new_privs {
            process["noNewPrivileges"] = json!(true);
        }
        Ok(process)
    }

    fn args(&self) -> Result<Vec<String>, Error> {
        let (mut args, rest) = match (self.config.command.is_empty(), self.config.args.is_empty()) {
            (false, _) => (self.config.command.clone(), &self.config.args),
            (true, false) => (self.image.entrypoint.clone(), &self.config.args),
            (true, true) => (self.image.entrypoint.clone(), &self.image.cmd),
        };
        args.extend(rest.iter().cloned());
        if args.is_empty() {
            return Err(Error::Invalid("no command specified".to_owned()));
        }
        Ok(args)
    }

    /// Later ones replace earlier ones of the same name, at the place of the first.
    fn env(&self) -> Result<Vec<String>, Error> {
        let mut order: Vec<String> = Vec::new();
        let mut values: BTreeMap<String, String> = BTreeMap::new();
        let mut set = |name: &str, value: &str| {
            if values.insert(name.to_owned(), value.to_owned()).is_none() {
                order.push(name.to_owned());
            }
        };
        set("PATH", PATH);
        if self.config.tty {
            set("TERM", "xterm");
        }
        set("HOSTNAME", self.hostname);
        for pair in &self.image.env {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            set(name, value);
        }
        for pair in &self.config.envs {
            let value = std::str::from_utf8(&pair.value)
                .map_err(|_| Error::Invalid(format!("environment variable {} is not UTF-8", pair.key)))?;
            set(&pair.key, value);
        }
        Ok(order.into_iter().map(|name| format!("{name}={}", values[&name])).collect())
    }

    fn cwd(&self) -> Result<String, Error> {
        let chosen =
            [&self.config.working_dir, &self.image.working_dir].into_iter().find(|path| !path.is_empty());
        match chosen {
            None => Ok("/".to_owned()),
            Some(path) if path.starts_with('/') => Ok(path.clone()),
            Some(path) => Err(Error::Invalid(format!("working directory {path:?} is not absolute"))),
        }
    }

    fn linux(
        &self,
        security: &LinuxContainerSecurityContext,
        wanted: LinuxContainerResources,
    ) -> Result<Map<String, Value>, Error> {
        let privileged = security.privileged;
        let mut namespaces = vec![json!({ "type": "mount" })];
        if !privileged {
            namespaces.push(json!({ "type": "cgroup" }));
        }
        if self.own_pid {
            namespaces.push(json!({ "type": "pid" }));
        }
        namespaces.extend(self.join.iter().map(|(kind, path)| json!({ "type": kind, "path": path })));
        let devices = devices(&self.config.devices, privileged)?;
        let mut resources = resources(&wanted, self.cgroups);
        resources.insert("devices".to_owned(), Value::Array(devices.rules));
        let (mut masked, mut readonly) = (security.masked_paths.clone(), security.readonly_paths.clone());
        if privileged {
            masked.clear();
            readonly.clear();
        } else {
            // libcontainer mounts version 1 hierarchies writable, whatever the mount says.
            readonly.extend(
                self.cgroups.legacy_mount_names().iter().map(|name| format!("/sys/fs/cgroup/{name}")),
            );
        }
        let linux = json!({
            "namespaces": namespaces,
            "cgroupsPath": self.cgroup,
            "resources": resources,
            "devices": devices.nodes,
            "maskedPaths": masked,
            "readonlyPaths": readonly,
            "rootfsPropagation": root_propagation(&self.config.mounts, privileged)?,
        });
        match linux {
            Value::Object(linux) => Ok(linux),
            _ => Ok(Map::new()),
        }
    }
}

/// AppArmor is not supported: a profile by name is refused, the default one is what the node has, none.
fn refuse_apparmor(security: &LinuxContainerSecurityContext) -> Result<(), Error> {
    let localhost = security
        .apparmor
        .as_ref()
        .is_some_and(|profile| profile.profile_type() == cri::security_profile::ProfileType::Localhost);
    match localhost && !security.privileged {
        true => Err(Error::Invalid("AppArmor profiles are not supported by this runtime".to_owned())),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use cri::KeyValue;

    use super::*;

    fn with<T>(config: ContainerConfig, image: ImageConfig, f: impl FnOnce(&Ingredients<'_>) -> T) -> T {
        let cgroups = Cgroups::detect().unwrap();
        f(&Ingredients {
            config: &config,
            image: &image,
            rootfs: Path::new("/nonexistent"),
            cgroup: "/a/b",
            cgroups: &cgroups,
            sandbox: Path::new("/s"),
            hostname: "box",
            host_ipc: false,
            join: vec![("network", "/s/ns/net".to_owned())],
            own_pid: true,
        })
    }

    fn strings(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn command_and_args_replace_entrypoint_and_cmd() {
        for (command, args, expected) in [
            (vec![], vec![], vec!["entry", "cmd"]),
            (vec![], vec!["a"], vec!["entry", "a"]),
            (vec!["c"], vec![], vec!["c"]),
            (vec!["c"], vec!["a"], vec!["c", "a"]),
        ] {
            let config = ContainerConfig {
                command: strings(&command),
                args: strings(&args),
                ..ContainerConfig::default()
            };
            let image = ImageConfig {
                entrypoint: strings(&["entry"]),
                cmd: strings(&["cmd"]),
                ..ImageConfig::default()
            };
            assert_eq!(with(config, image, |each| each.args().unwrap()), strings(&expected));
        }
        assert!(with(ContainerConfig::default(), ImageConfig::default(), |each| each.args().is_err()));
    }

    #[test]
    fn the_pods_environment_wins_over_the_images() {
        let config = ContainerConfig {
            envs: vec![KeyValue { key: "A".to_owned(), value: b"pod".to_vec() }],
            ..ContainerConfig::default()
        };
        let image = ImageConfig { env: strings(&["A=image", "PATH=/bin"]), ..ImageConfig::default() };
        assert_eq!(
            with(config, image, |each| each.env().unwrap()),
            strings(&["PATH=/bin", "HOSTNAME=box", "A=pod"])
        );
    }

    #[test]
    fn the_linux_part_is_what_libcontainer_reads() {
        let linux = with(ContainerConfig::default(), ImageConfig::default(), |each| {
            each.linux(&LinuxContainerSecurityContext::default(), LinuxContainerResources::default()).unwrap()
        });
        let linux: oci_spec::runtime::Linux = serde_json::from_value(Value::Object(linux)).unwrap();
        assert_eq!(linux.namespaces().as_ref().unwrap().len(), 4);
        assert_eq!(linux.rootfs_propagation().as_deref(), Some("private"));
    }
}
