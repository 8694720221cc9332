//! The parsers of the API under arbitrary bytes, and the seeds that lead into them.
//!
//! What can be read must also be written and read again.

mod bodies;
mod changes;
mod frames;
mod texts;

use std::sync::{Arc, LazyLock};

use api::resource::{GroupVersionKind, Resource, Table};
use api::schema::sample::sample;
use base::fuzz::{self, Target};
use serde_json::Value;

/// Every parser of this crate, of `api` and of `spdy` that reads what clients or peers send.
pub const TARGETS: &[Target] = &[
    Target { name: "json", run: bodies::json, seeds: bodies::json_seeds },
    Target { name: "yaml", run: bodies::yaml, seeds: bodies::yaml_seeds },
    Target { name: "cbor", run: bodies::cbor, seeds: bodies::cbor_seeds },
    Target { name: "protobuf", run: bodies::protobuf, seeds: bodies::protobuf_seeds },
    Target { name: "objects", run: bodies::objects, seeds: bodies::object_seeds },
    Target { name: "json_patch", run: changes::json_patch, seeds: changes::json_patch_seeds },
    Target { name: "strategic", run: changes::strategic, seeds: changes::strategic_seeds },
    Target { name: "field_sets", run: changes::field_sets, seeds: changes::field_set_seeds },
    Target {
        name: "labels",
        run: texts::labels,
        seeds: || fuzz::texts(&["a=b,c!=d", "x in (a,b), !y", "a>1,b<2", "a notin ()"]),
    },
    Target {
        name: "fields",
        run: texts::fields,
        seeds: || fuzz::texts(&["a=b,c!=d", r"metadata.name==a\,b\\\=", "spec.nodeName="]),
    },
    Target {
        name: "quantity",
        run: texts::quantity,
        seeds: || fuzz::texts(&["100m", "1.5Gi", "-12e3", "9223372036854775807Ei", ".1n"]),
    },
    Target {
        name: "times",
        run: texts::times,
        seeds: || {
            fuzz::texts(&[
                "2026-01-02T03:04:05Z",
                "2026-01-02T03:04:05.678901+01:00",
                "1h15m30.918s",
                "-1.5us",
            ])
        },
    },
    Target {
        name: "cron",
        run: texts::cron,
        seeds: || {
            fuzz::texts(&["*/5 1-3 ? jan,FEB mon-fri", "@hourly", "TZ=Asia/Tokyo 0 0 31 2 *", "@every 1h"])
        },
    },
    Target { name: "token", run: texts::token, seeds: texts::token_seeds },
    Target {
        name: "continue_token",
        run: texts::continue_token,
        seeds: || {
            fuzz::texts(&[
                "eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6NywiZGFydCI6ImEifQ",
                "eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6LTEsInN0YXJ0IjoiYVx1MDAwMCJ9",
            ])
        },
    },
    Target {
        name: "request",
        run: texts::request_info,
        seeds: || {
            fuzz::texts(&[
                "GET /api/v1/namespaces/a/pods/b/log?follow=1&tailLines=5&sinceTime=2026-01-02T03:04:05Z",
                "POST /apis/apps/v1/deployments?dryRun=All&fieldValidation=Strict&x=%41+%zz",
                "PATCH /apis/a/b/watch/namespaces/c/d/e/f/g?force=1&fieldManager=m",
                "POST /api/v1/namespaces/a/pods/b/exec?stdin=1&command=ls&command=-l&ports=80,81",
                "DELETE //api//v1/%2e%2e/..;a=b?limit=5&continue&resourceVersion=7",
            ])
        },
    },
    Target {
        name: "delete_options",
        run: texts::options,
        seeds: || {
            let whole =
                r#"{"gracePeriodSeconds":-1,"propagationPolicy":"Orphan","preconditions":{"uid":"a"}}"#;
            fuzz::texts(&[whole, r#"{"dryRun":["All"],"orphanDependents":false}"#])
        },
    },
    Target {
        name: "headers",
        run: texts::headers,
        seeds: || {
            fuzz::texts(&[
                "Accept: application/json;as=Table;v=v1;g=meta.k8s.io;q=0.5, */*\nUser-Agent: curl/8",
                "Content-Type: application/cbor; charset=utf-8\nConnection: upgrade, x\nX-Forwarded-For: ::1",
            ])
        },
    },
    Target { name: "certificates", run: texts::certificates, seeds: texts::certificate_seeds },
    Target {
        name: "audit_policy",
        run: texts::audit_policy,
        seeds: || {
            fuzz::texts(&[
                "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived]\nrules:\n\
                - level: Metadata\n  users: [a]\n  verbs: [get]\n  namespaces: [\"\"]\n  resources:\n\
                \x20 - {group: apps, resources: [\"pods/*\", \"*/scale\"], resourceNames: [x]}\n\
                - {level: None, nonResourceURLs: [\"/healthz*\"]}\n",
            ])
        },
    },
    Target {
        name: "page",
        run: texts::page,
        seeds: || {
            fuzz::texts(&[
                "<a href=\"/x?a&amp;b\">t</a><!-- <a href='/y'> --><IMG SRC = /z alt><script>'<a href=/no>'</script>",
                "//host:80/a/../%2e%2e/b",
            ])
        },
    },
    Target { name: "spdy", run: frames::spdy, seeds: frames::spdy_seeds },
];

static POD: LazyLock<Arc<Resource>> = LazyLock::new(|| row("v1", "Pod"));
static EVENT: LazyLock<Arc<Resource>> = LazyLock::new(|| row("v1", "Event"));
static CRD: LazyLock<Arc<Resource>> =
    LazyLock::new(|| row("apiextensions.k8s.io/v1", "CustomResourceDefinition"));

/// A row of the built-in table; a table without it has no use for these targets.
fn row(api_version: &str, kind: &str) -> Arc<Resource> {
    let table = Table::builtin();
    table.kind_of(api_version, kind).unwrap_or(&table.rows()[0]).clone()
}

fn pod_kind() -> GroupVersionKind {
    GroupVersionKind::fixed("", "v1", "Pod")
}

/// A written sample of every kind.
fn samples(write: impl Fn(&Resource, &Value) -> Vec<u8>) -> Vec<Vec<u8>> {
    let one = |(seed, row): (u64, &Arc<Resource>)| {
        let mut value = sample(&row.schema, seed);
        value["apiVersion"] = row.api_version().into();
        value["kind"] = row.kind.as_ref().into();
        write(row, &value)
    };
    (0..).zip(Table::builtin().rows()).map(one).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn no_parser_is_harmed_by_what_it_is_given() {
        base::fuzz::hold(super::TARGETS);
    }
}
