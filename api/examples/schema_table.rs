//! Makes `api/src/schema/kubernetes.txt`, the compact type table, from the facts of a Kubernetes release:
//!
//! ```text
//! cargo run -p skiff-api --example schema_table -- kubernetes-1.36-facts.json > api/src/schema/kubernetes.txt
//! ```
//!
//! The format is read by `api/src/schema/table.rs` and described there.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use serde_json::Value;

/// Packages of implementation, of tests, and internal twins of published types.
fn published(package: &str) -> bool {
    match package.strip_prefix("apimachinery/pkg/") {
        Some(rest) => matches!(rest, "apis/meta/v1"),
        None => !package.starts_with("metrics/") || package == "metrics/pkg/apis/metrics/v1beta1",
    }
}

/// Types that are not written as the structs they are; the reader knows them by the name given here.
fn special(package: &str, name: &str) -> Option<&'static str> {
    Some(match (package.rsplit('/').next().unwrap_or_default(), name) {
        ("v1", "Time") => "$time",
        ("v1", "MicroTime") => "$microtime",
        ("v1", "Duration") => "$duration",
        ("v1", "FieldsV1") => "$fields",
        ("runtime", "RawExtension" | "Object") => "$raw",
        ("intstr", "IntOrString") => "$intorstring",
        ("resource", "Quantity") => "$quantity",
        ("types", "UID" | "NamespacedName") => "string",
        ("v1", "JSON") => "$json",
        ("v1", "JSONSchemaPropsOrArray") => "$schemaorarray",
        ("v1", "JSONSchemaPropsOrBool") => "$schemaorbool",
        ("v1", "JSONSchemaPropsOrStringArray") => "$schemaorstrings",
        _ => return None,
    })
}

/// The types of the aggregator, which the facts leave out. They have not changed since they became stable.
const AGGREGATOR: &str = "\
@kube-aggregator/pkg/apis/apiregistration/v1\tapiregistration.k8s.io\tv1
.APIService
\tTypeMeta
\tmetadata\tapimachinery/pkg/apis/meta/v1.ObjectMeta\t1oq
\tspec\tAPIServiceSpec\t2o
\tstatus\tAPIServiceStatus\t3o
.APIServiceCondition
\ttype\tAPIServiceConditionType\t1
\tstatus\tConditionStatus\t2
\tlastTransitionTime\t$time\t3oq
\treason\tstring\t4oq
\tmessage\tstring\t5oq
=APIServiceConditionType\tstring\tAvailable
.APIServiceList
\tTypeMeta
\tmetadata\tapimachinery/pkg/apis/meta/v1.ListMeta\t1oq
\titems\t[]APIService\t2
.APIServiceSpec
\tservice\tServiceReference\t1po
\tgroup\tstring\t2o
\tversion\tstring\t3o
\tinsecureSkipTLSVerify\tbool\t4o
\tcaBundle\t$bytes\t5oq\tLatomic
\tgroupPriorityMinimum\tint32\t7
\tversionPriority\tint32\t8
.APIServiceStatus
\tconditions\t[]APIServiceCondition\t1oq\tLmap\tPmerge\tKtype\tktype
=ConditionStatus\tstring\tFalse|True|Unknown
.ServiceReference
\tnamespace\tstring\t1o
\tname\tstring\t2o
\tport\tint32\t3poq
";

struct Facts<'a> {
    types: BTreeMap<(&'a str, &'a str), &'a Value>,
}

impl Facts<'_> {
    /// The absolute name of a type as it is written in a package.
    fn resolve(&self, package: &str, written: &str) -> String {
        if let Some(item) = written.strip_prefix("[]") {
            return match item {
                "byte" => "$bytes".to_owned(),
                item => format!("[]{}", self.resolve(package, item)),
            };
        }
        if let Some((_, value)) = written.strip_prefix("map[").and_then(|rest| rest.split_once(']')) {
            return format!("{{}}{}", self.resolve(package, value.trim_start_matches('*')));
        }
        let written = written.trim_start_matches('*');
        match written {
            "string" | "bool" | "int32" | "int64" | "float64" => return written.to_owned(),
            "int" => return "int64".to_owned(),
            "uint64" => return "int64".to_owned(),
            "interface{}" => return "$json".to_owned(),
            _ => {}
        }
        let (alias, name) = written.split_once('.').unwrap_or(("", written));
        let parent = package.rsplit_once('/').map_or("", |(p, _)| p);
        let imported;
        let sibling = format!("{parent}/v1");
        let candidates: Vec<&str> = match alias {
            "" => vec![package],
            "metav1" => vec!["apimachinery/pkg/apis/meta/v1"],
            "runtime" => vec!["apimachinery/pkg/runtime"],
            "intstr" => vec!["apimachinery/pkg/util/intstr"],
            "resource" => vec!["apimachinery/pkg/api/resource"],
            "types" => return "string".to_owned(),
            // Files name one of these packages `v1`.
            "v1" | "apiv1" => {
                vec![&sibling, "api/core/v1", "apimachinery/pkg/apis/meta/v1", "api/autoscaling/v1"]
            }
            // `corev1`, `batchv1`: the group and the version.
            other if other.ends_with("v1") => {
                imported = format!("api/{}/v1", other.trim_end_matches("v1"));
                vec![&imported]
            }
            other => panic!("{package}: unknown import {other} in {written}"),
        };
        for candidate in candidates {
            if let Some(special) = special(candidate, name) {
                return special.to_owned();
            }
            if self.types.contains_key(&(candidate, name)) {
                return match candidate == package {
                    true => name.to_owned(),
                    false => format!("{candidate}.{name}"),
                };
            }
        }
        panic!("{package}: {written} is nowhere");
    }
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

fn list(value: &Value, separator: &str) -> String {
    let items: Vec<&str> = value.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    items.join(separator)
}

fn field(facts: &Facts<'_>, package: &str, field: &Value, out: &mut String) {
    let written = text(field, "type");
    if written.ends_with("TypeMeta") {
        out.push_str("\tTypeMeta\n");
        return;
    }
    let ty = facts.resolve(package, written);
    let _ = write!(out, "\t{}\t{ty}\t", text(field, "name"));
    if let Some(number) = field["proto"].as_u64() {
        let _ = write!(out, "{number}");
    }
    for (key, flag) in [("pointer", 'p'), ("omitempty", 'o'), ("optional", 'q'), ("inline", 'i')] {
        if field[key] == true {
            out.push(flag);
        }
    }
    for (key, flag) in [
        ("listType", 'L'),
        ("mapType", 'M'),
        ("structType", 'S'),
        ("patchStrategy", 'P'),
        ("patchMergeKey", 'K'),
    ] {
        if let Some(value) = field[key].as_str() {
            let _ = write!(out, "\t{flag}{value}");
        }
    }
    if field["listMapKeys"].is_array() {
        let _ = write!(out, "\tk{}", list(&field["listMapKeys"], ","));
    }
    if let Some(default) = field["default"].as_str() {
        // A reference to a constant: two constants are named so, both of AzureDisk.
        let default = match default {
            "ref(AzureDataDiskCachingReadWrite)" => "\"ReadWrite\"",
            "ref(AzureSharedBlobDisk)" => "\"Shared\"",
            other => other,
        };
        let _ = write!(out, "\tD{default}");
    }
    out.push('\n');
}

fn main() {
    let path = std::env::args().nth(1).expect("the path of the facts");
    let facts: Value = serde_json::from_slice(&std::fs::read(path).expect("readable facts")).expect("JSON");
    let types = facts["types"].as_object().expect("types");
    let facts_by_name = Facts {
        types: types
            .iter()
            .map(|(name, ty)| {
                let package = text(ty, "package");
                ((package, &name[package.len() + 1..]), ty)
            })
            .collect(),
    };
    // The first label of an API group names its folder.
    let mut groups: BTreeMap<&str, &str> = BTreeMap::new();
    for resource in facts["resources"].as_array().into_iter().flatten() {
        let group = text(resource, "group");
        groups.insert(group.split('.').next().unwrap_or_default(), group);
    }
    groups.insert("core", "");
    groups.insert("meta", "");
    groups.insert("apiserverinternal", "internal.apiserver.k8s.io");
    groups.insert("apidiscovery", "apidiscovery.k8s.io");
    groups.insert("imagepolicy", "imagepolicy.k8s.io");
    groups.insert("admission", "admission.k8s.io");
    groups.insert("metrics", "metrics.k8s.io");
    groups.insert("extensions", "extensions");

    let packages: BTreeSet<&str> =
        facts_by_name.types.keys().map(|(package, _)| *package).filter(|p| published(p)).collect();
    let mut out = String::from("# Made by api/examples/schema_table.rs from the facts of Kubernetes ");
    let _ = writeln!(out, "{}; do not edit.", text(&facts, "kubernetes"));
    let mut aggregator = Some(AGGREGATOR);
    for package in packages {
        if package > "kube-aggregator" {
            out.push_str(aggregator.take().unwrap_or_default());
        }
        let mut parts = package.rsplit('/');
        let (version, folder) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let group = groups.get(folder).unwrap_or_else(|| panic!("no group for {package}"));
        let _ = writeln!(out, "@{package}\t{group}\t{version}");
        for ((_, name), ty) in
            facts_by_name.types.range((package, "")..).take_while(|((p, _), _)| *p == package)
        {
            if special(package, name).is_some() {
                continue;
            }
            let atomic = if ty["mapType"] == "atomic" { "\ta" } else { "" };
            if ty["kind"] == "alias" {
                let of = text(ty, "of");
                if of.contains("ast.") || of.starts_with("watch.") {
                    continue;
                }
                let of = facts_by_name.resolve(package, of);
                let values = list(&ty["enum"], "|");
                let closed = if ty["isEnum"] == true { "!" } else { "" };
                let _ = writeln!(out, "={name}\t{of}\t{closed}{values}");
                continue;
            }
            let _ = writeln!(out, ".{name}{atomic}");
            for fact in ty["fields"].as_array().into_iter().flatten() {
                if fact["name"].is_string() || fact["inline"] == true {
                    field(&facts_by_name, package, fact, &mut out);
                }
            }
        }
    }
    print!("{out}");
}
