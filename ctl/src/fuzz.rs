//! What the commands are given, under arbitrary bytes, and the list of all fuzz targets.

use base::fuzz::{Target, texts};
use serde_json::json;

use crate::kubeconfig;
use crate::output::columns::Columns;
use crate::output::jsonpath::Template;
use crate::output::yaml;
use crate::resources::files;

const TARGETS: &[Target] = &[
    Target { name: "json_path", run: json_path, seeds: json_path_seeds },
    Target { name: "manifests", run: manifests, seeds: manifest_seeds },
];

/// The targets of every crate.
pub fn targets() -> impl Iterator<Item = &'static Target> {
    [
        apiserver::fuzz::TARGETS,
        runtime::fuzz::TARGETS,
        nodeagent::fuzz::TARGETS,
        network::fuzz::TARGETS,
        TARGETS,
    ]
    .into_iter()
    .flatten()
}

fn json_path(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let object = json!({
        "kind": "List",
        "items": [{"metadata": {"name": "a", "labels": {"x.y/z": "1"}}, "n": 5}, {"metadata": {"name": "b"}, "n": [1, 2]}],
    });
    if let Ok(template) = Template::parse(&text) {
        let _ = (template.run(&object), template.values(&object));
    }
    for columns in [Columns::parse(&text), Columns::parse_file(&text)].into_iter().flatten() {
        let _ = columns.table(std::slice::from_ref(&object), true);
    }
}

fn json_path_seeds() -> Vec<Vec<u8>> {
    texts(&[
        r#"{range .items[*]}{.metadata.name}{"\t"}{.metadata.labels.x\.y/z}{end}"#,
        "{.items[?(@.n>4)].metadata.name} {..name} {.items[0:2:1].n[-1]} {['kind','items']}",
        "NAME:.metadata.name,N:{.items[0].n}",
        "A B\n.kind .items[*].metadata.name",
    ])
}

/// Manifests and kubeconfigs; what was read must be written and read again.
fn manifests(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let _ = kubeconfig::parse(&text);
    let mut found = Vec::new();
    let _ = files::parse(&text, "file", &mut found);
    for manifest in found {
        let again = files::yaml(&yaml::to_string(&manifest.object), 0);
        assert_eq!(again.as_ref(), Ok(&manifest.object));
    }
}

fn manifest_seeds() -> Vec<Vec<u8>> {
    texts(&[
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata:\n  k: |\n    text\n     more\n  on: \"yes\"\n  m: 0644\n---\n# two\n",
        "apiVersion: v1\nkind: List\nitems:\n- &a {apiVersion: v1, kind: Pod}\n- *a\n- {<<: *a, x: 1e3, y: .inf, z: ~}\n",
        r#"{"apiVersion":"v1","kind":"PodList","items":[{"metadata":{"name":"a"}}]}{"apiVersion":"v1","kind":"Pod"}"#,
        "apiVersion: v1\nkind: Config\nclusters:\n- name: a\n  cluster: {server: \"https://[::1]:6443\"}\ncurrent-context: a\n",
    ])
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn no_parser_is_harmed_by_what_it_is_given() {
        base::fuzz::hold(TARGETS);
    }

    #[test]
    fn every_target_has_its_program() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz");
        let manifest = fs::read_to_string(format!("{folder}/Cargo.toml")).unwrap();
        for Target { name, .. } in targets() {
            let program = fs::read_to_string(format!("{folder}/fuzz_targets/{name}.rs")).unwrap();
            assert!(program.contains(&format!("run(\"{name}\", data)")), "{name}");
            assert!(manifest.contains(&format!("path = \"fuzz_targets/{name}.rs\"")), "{name}");
        }
        assert_eq!(fs::read_dir(format!("{folder}/fuzz_targets")).unwrap().count(), targets().count());
    }
}
