//! Each cluster role of a cluster's beginning × every resource × every verb, against what upstream's policy says.

use std::collections::{BTreeMap, BTreeSet};

use super::*;

/// The expectations; its head says how they are written.
const EXPECTED: &str = include_str!("cluster_roles.txt");
/// The verbs of requests, and those that only authorization knows.
const VERBS: &str = "create delete deletecollection get list patch update watch \
                     approve attest bind escalate impersonate proxy sign use";
/// Roles that no other server has are not upstream's.
const OWN: &str = "system:skiff:";

/// What a role may do: groups, resources, names, verbs.
struct Line {
    group: &'static str,
    resources: Vec<&'static str>,
    names: Vec<&'static str>,
    verbs: Vec<&'static str>,
}

impl Line {
    fn read(text: &'static str) -> Self {
        let (what, verbs) = text.trim().rsplit_once(": ").expect("verbs");
        let (group, resources) = what.split_once(' ').expect("resources");
        let (resources, names) = resources.split_once(" (").unwrap_or((resources, ""));
        Self {
            group: if group == "core" { "" } else { group },
            resources: resources.split(' ').collect(),
            names: names.trim_end_matches(')').split(',').filter(|name| !name.is_empty()).collect(),
            verbs: verbs.split(' ').collect(),
        }
    }

    fn allows(&self, verb: &str, group: &str, resource: &str, name: &str) -> bool {
        let part = resource.split_once('/').map_or(String::new(), |(_, part)| format!("*/{part}"));
        let is = |one: &str| one == "*" || one == resource || one == part;
        (self.verbs.contains(&verb) || self.verbs.contains(&"*"))
            && (self.group == group || self.group == "*")
            && self.resources.iter().any(|one| is(one))
            && (self.names.is_empty() || self.names.contains(&name))
    }
}

fn expected() -> BTreeMap<&'static str, Vec<Line>> {
    let mut roles: BTreeMap<_, Vec<Line>> = BTreeMap::new();
    let mut role = "";
    for line in EXPECTED.lines().filter(|line| !line.starts_with('#')) {
        match line.strip_prefix("  ") {
            Some(line) => roles.entry(role).or_default().push(Line::read(line)),
            None => {
                role = line;
                roles.entry(role).or_default();
            }
        }
    }
    roles
}

/// All that is served, and all that the expectations name.
fn resources(roles: &BTreeMap<&str, Vec<Line>>) -> BTreeSet<(String, String)> {
    let table = Table::builtin();
    let mut all = BTreeSet::new();
    for row in table.rows() {
        all.insert((row.group.to_string(), row.plural.to_string()));
        for part in &row.subresources {
            all.insert((row.group.to_string(), format!("{}/{}", row.plural, part.name)));
        }
    }
    for line in roles.values().flatten().filter(|line| line.group != "URL") {
        let known = line.resources.iter().filter(|resource| !resource.starts_with('*'));
        all.extend(known.map(|resource| (line.group.to_owned(), (*resource).to_owned())));
    }
    // One that nobody knows.
    all.insert(("example.org".to_owned(), "things".to_owned()));
    all
}

/// Somebody who has this role and nothing else, not even what everybody has.
fn holder(role: &str) -> UserInfo {
    let mut user = UserInfo::new(format!("holder of {role}"), &[]);
    user.groups.clear();
    user
}

#[test]
fn each_cluster_role_allows_what_upstreams_does_and_no_more() {
    let expected = expected();
    let objects = Arc::new(Fixed::default());
    let [mut roles, ..] = objects::rbac();
    fill_aggregated(&mut roles);
    let mut names = BTreeSet::new();
    for role in roles {
        let name = role["metadata"]["name"].as_str().unwrap().to_owned();
        let subject = json!({"kind": "User", "name": holder(&name).name});
        let binding = json!({"metadata": {"name": name}, "subjects": [subject],
            "roleRef": {"kind": "ClusterRole", "name": name}});
        objects.put(Kind::ClusterRoleBinding, binding);
        objects.put(Kind::ClusterRole, role);
        names.extend(Some(name).filter(|name| !name.starts_with(OWN)));
    }
    let known: BTreeSet<String> = expected.keys().map(|name| (*name).to_owned()).collect();
    assert_eq!(names, known);

    let rbac = Rbac::new(objects);
    let resources = resources(&expected);
    let mut wrong = Vec::new();
    for (role, lines) in &expected {
        let user = Arc::new(holder(role));
        let mut ask = |request: Attributes, want: bool, what: String| {
            if rbac.authorize(&request).is_ok() != want {
                wrong.push(format!("{role}: {what}: {}", if want { "is not allowed" } else { "is allowed" }));
            }
        };
        let named: BTreeSet<&str> = lines.iter().flat_map(|line| line.names.iter().copied()).collect();
        for (group, resource) in &resources {
            let (plural, part) = resource.split_once('/').unwrap_or((resource, ""));
            for verb in VERBS.split_whitespace() {
                for name in named.iter().copied().chain(["somebody"]) {
                    let request = Attributes {
                        user: user.clone(),
                        verb: verb.into(),
                        group: group.clone(),
                        resource: plural.into(),
                        subresource: part.into(),
                        namespace: "team".into(),
                        name: name.into(),
                        resource_request: true,
                        ..Attributes::default()
                    };
                    let want = lines.iter().any(|line| line.allows(verb, group, resource, name));
                    ask(request, want, format!("{verb} {group}/{resource} {name}"));
                }
            }
        }
        let paths = "/ /api /api/v1 /apis/apps/v1 /healthz /healthz/x /livez /livez/x /metrics /metrics/slis /readyz \
                     /readyz/x /openapi /openapi/v3 /openid/v1/jwks /version /version/ /debug/pprof \
                     /.well-known/openid-configuration";
        for path in paths.split_whitespace() {
            let request = Attributes {
                user: user.clone(),
                verb: "get".into(),
                path: path.into(),
                ..Attributes::default()
            };
            let fits = |one: &&str| {
                let start = one.strip_suffix('*');
                *one == path || start.is_some_and(|start| path.starts_with(start))
            };
            let want = lines.iter().any(|line| line.group == "URL" && line.resources.iter().any(fits));
            ask(request, want, format!("get {path}"));
        }
    }
    assert!(wrong.is_empty(), "{} differences:\n{}", wrong.len(), wrong.join("\n"));
}
