//! Names and addresses inside a pod: hostname, `/etc/hosts`, DNS.

use std::fmt::Write;

use k8s_openapi::api::core::v1::{Pod, PodDNSConfigOption};

use super::{name, namespace, spec, uses_host_network};

/// The longest hostname that the kernel takes is 64 letters, the longest DNS label 63.
const LABEL_LIMIT: usize = 63;

/// What of the cluster and the node a pod's DNS depends on.
#[derive(Clone, Debug, Default)]
pub struct DnsSettings {
    pub cluster_servers: Vec<String>,
    pub cluster_domain: String,
    pub host: Resolver,
}

/// The contents of a resolv.conf.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resolver {
    pub servers: Vec<String>,
    pub searches: Vec<String>,
    pub options: Vec<String>,
}

impl Resolver {
    /// Reads a resolv.conf.
    pub fn parse(text: &str) -> Self {
        let mut resolver = Self::default();
        for line in text.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => resolver.servers.extend(words.next().map(str::to_owned)),
                Some("search" | "domain") => {
                    resolver.searches = words
                        .map(|word| word.trim_end_matches('.').to_owned())
                        .filter(|word| !word.is_empty())
                        .collect();
                }
                Some("options") => resolver.options = words.map(str::to_owned).collect(),
                _ => {}
            }
        }
        resolver
    }
}

/// The pod's hostname and, if it has one, its domain below the cluster's.
pub fn hostname(pod: &Pod, cluster_domain: &str) -> (String, Option<String>) {
    let spec = spec(pod);
    if let Some(name) = spec.hostname_override.as_deref().filter(|name| !name.is_empty()) {
        return (name.to_owned(), None);
    }
    let hostname = match spec.hostname.as_deref().filter(|name| !name.is_empty()) {
        Some(name) => name.to_owned(),
        None => {
            let name = name(pod);
            let cut = &name[..name.len().min(LABEL_LIMIT)];
            cut.trim_end_matches(['-', '.']).to_owned()
        }
    };
    let subdomain = spec.subdomain.as_deref().filter(|subdomain| !subdomain.is_empty());
    let domain = subdomain.map(|subdomain| format!("{subdomain}.{}.svc.{cluster_domain}", namespace(pod)));
    (hostname, domain)
}

/// The pod's DNS, as told to the runtime.
pub fn dns(pod: &Pod, settings: &DnsSettings) -> Resolver {
    let spec = spec(pod);
    let host_network = uses_host_network(pod);
    let mut resolver = match spec.dns_policy.as_deref().unwrap_or("ClusterFirst") {
        "None" => Resolver::default(),
        "Default" => settings.host.clone(),
        "ClusterFirst" if host_network => settings.host.clone(),
        _ => {
            let domain = &settings.cluster_domain;
            let mut searches =
                vec![format!("{}.svc.{domain}", namespace(pod)), format!("svc.{domain}"), domain.clone()];
            searches.extend(settings.host.searches.iter().cloned());
            searches.dedup();
            let servers = settings.cluster_servers.clone();
            Resolver { servers, searches, options: vec!["ndots:5".to_owned()] }
        }
    };
    let Some(extra) = &spec.dns_config else { return resolver };
    for server in extra.nameservers.iter().flatten() {
        if !resolver.servers.contains(server) {
            resolver.servers.push(server.clone());
        }
    }
    for search in extra.searches.iter().flatten() {
        if !resolver.searches.contains(search) {
            resolver.searches.push(search.clone());
        }
    }
    for option in extra.options.iter().flatten() {
        let PodDNSConfigOption { name, value } = option;
        let name = name.as_deref().unwrap_or_default();
        resolver.options.retain(|known| known.split(':').next() != Some(name));
        resolver.options.push(match value.as_deref().filter(|value| !value.is_empty()) {
            Some(value) => format!("{name}:{value}"),
            None => name.to_owned(),
        });
    }
    resolver
}

/// The pod's `/etc/hosts`. A pod in the host's network starts from the host's own file.
pub fn hosts_file(pod: &Pod, ips: &[String], cluster_domain: &str, host_file: &str) -> String {
    let mut text;
    if uses_host_network(pod) {
        text = format!("# Kubernetes-managed hosts file (host network).\n{host_file}");
    } else {
        text = "# Kubernetes-managed hosts file.\n\
                127.0.0.1\tlocalhost\n\
                ::1\tlocalhost ip6-localhost ip6-loopback\n\
                fe00::0\tip6-localnet\n\
                fe00::0\tip6-mcastprefix\n\
                fe00::1\tip6-allnodes\n\
                fe00::2\tip6-allrouters\n"
            .to_owned();
        let (hostname, domain) = hostname(pod, cluster_domain);
        for ip in ips {
            // Writing to a string can't fail.
            let _ = match &domain {
                Some(domain) => writeln!(text, "{ip}\t{hostname}.{domain}\t{hostname}"),
                None => writeln!(text, "{ip}\t{hostname}"),
            };
        }
    }
    let aliases = spec(pod).host_aliases.as_deref().unwrap_or_default();
    if !aliases.is_empty() {
        text.push_str("\n# Entries added by HostAliases.\n");
        for alias in aliases {
            let names = alias.hostnames.as_deref().unwrap_or_default().join("\t");
            let _ = writeln!(text, "{}\t{names}", alias.ip);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{HostAlias, PodDNSConfig};

    use super::*;
    use crate::pod::testing::pod;

    fn settings() -> DnsSettings {
        DnsSettings {
            cluster_servers: vec!["10.96.0.10".into()],
            cluster_domain: "cluster.local".into(),
            host: Resolver::parse(
                "# c\nnameserver 192.0.2.53\nsearch example.com.\noptions edns0 trust-ad\n",
            ),
        }
    }

    #[test]
    fn dns_follows_the_policy() {
        let describe = |policy: &str, host: bool| {
            let mut pod = pod().build();
            let spec = pod.spec.get_or_insert_default();
            spec.dns_policy = Some(policy.to_owned());
            spec.host_network = Some(host);
            let resolver = dns(&pod, &settings());
            format!(
                "{} | {} | {}",
                resolver.servers.join(" "),
                resolver.searches.join(" "),
                resolver.options.join(" ")
            )
        };
        let cluster =
            "10.96.0.10 | default.svc.cluster.local svc.cluster.local cluster.local example.com | ndots:5";
        let host = "192.0.2.53 | example.com | edns0 trust-ad";
        assert_eq!(describe("ClusterFirst", false), cluster);
        assert_eq!(describe("ClusterFirst", true), host);
        assert_eq!(describe("ClusterFirstWithHostNet", true), cluster);
        assert_eq!(describe("Default", false), host);
        assert_eq!(describe("None", false), " |  | ");
    }

    #[test]
    fn dns_config_adds_and_overrides() {
        let mut pod = pod().build();
        pod.spec.get_or_insert_default().dns_config = Some(PodDNSConfig {
            nameservers: Some(vec!["1.1.1.1".into(), "10.96.0.10".into()]),
            searches: Some(vec!["corp".into()]),
            options: Some(vec![PodDNSConfigOption { name: Some("ndots".into()), value: Some("2".into()) }]),
        });
        let resolver = dns(&pod, &settings());
        assert_eq!(resolver.servers, ["10.96.0.10", "1.1.1.1"]);
        assert_eq!(resolver.searches.last().unwrap(), "corp");
        assert_eq!(resolver.options, ["ndots:2"]);
    }

    #[test]
    fn the_hosts_file_names_the_pod_and_its_aliases() {
        let mut pod = pod().build();
        let spec = pod.spec.get_or_insert_default();
        spec.hostname = Some("h".into());
        spec.subdomain = Some("sub".into());
        spec.host_aliases =
            Some(vec![HostAlias { ip: "1.2.3.4".into(), hostnames: Some(vec!["a".into(), "b".into()]) }]);
        let text = hosts_file(&pod, &["10.0.0.1".into()], "cluster.local", "");
        assert!(text.starts_with("# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n"));
        assert!(text.ends_with(
            "10.0.0.1\th.sub.default.svc.cluster.local\th\n\n# Entries added by HostAliases.\n1.2.3.4\ta\tb\n"
        ));
    }

    #[test]
    fn a_long_name_is_cut_to_a_valid_hostname() {
        let mut pod = pod().build();
        pod.metadata.name = Some(format!("{}-{}", "a".repeat(62), "b".repeat(20)));
        assert_eq!(hostname(&pod, "cluster.local").0, "a".repeat(62));
    }
}
