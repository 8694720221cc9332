//! What a kind can't do is refused in upstream's words.

use crate::walk::Walk;

/// A verb, its method, and whether it is asked of one object.
const VERBS: &[(&str, &str, bool)] = &[
    ("create", "POST", false),
    ("list", "GET", false),
    ("deletecollection", "DELETE", false),
    ("get", "GET", true),
    ("update", "PUT", true),
    ("patch", "PATCH", true),
    ("delete", "DELETE", true),
];

const NOT_ALLOWED: &str = "the server does not allow this method on the requested resource";
const NOT_FOUND: &str = "the server could not find the requested resource";

pub(crate) async fn refused(walk: &mut Walk<'_>) {
    walk.step("methods").await;
    let (all, one) = (walk.all(), walk.one("nobody"));
    let has_items = walk.served.can("get");
    for (verb, method, of_one) in VERBS {
        if walk.served.can(verb) {
            continue;
        }
        let answer = send(walk, method, if *of_one { &one } else { &all }).await;
        // Where nothing is read by name there is no such path at all.
        if *of_one && !has_items {
            walk.is(verb, matches!(answer.code, 404 | 405), &answer.text);
        } else {
            walk.refused(verb, 405, "MethodNotAllowed", NOT_ALLOWED, &answer);
        }
    }
    for (method, path) in [("PUT", &all), ("PATCH", &all), ("POST", &one)] {
        if method == "POST" && !has_items {
            continue;
        }
        let answer = send(walk, method, path).await;
        walk.refused(&format!("{method} of the wrong path"), 405, "MethodNotAllowed", NOT_ALLOWED, &answer);
    }
    if walk.served.namespaced {
        // Nothing is written in all namespaces at once.
        let (code, reason, why) = match walk.served.can("list") {
            true => (405, "MethodNotAllowed", NOT_ALLOWED),
            false => (404, "NotFound", NOT_FOUND),
        };
        for method in ["POST", "DELETE"] {
            let answer = send(walk, method, &walk.served.everywhere()).await;
            walk.refused(&format!("{method} everywhere"), code, reason, why, &answer);
        }
    }
    let answer = walk.api.get(&format!("{one}/walk")).await;
    walk.refused("a subresource that is none", 404, "NotFound", NOT_FOUND, &answer);
    let answer = walk.api.get(&format!("{all}walk")).await;
    walk.refused("a resource that is none", 404, "NotFound", NOT_FOUND, &answer);
    let parts: Vec<(String, Vec<String>)> =
        walk.served.parts.iter().map(|part| (part.name.clone(), part.verbs.clone())).collect();
    for (name, verbs) in parts {
        for (verb, method, _) in VERBS {
            let can = verbs.iter().any(|own| own == verb)
                || *verb == "list" && verbs.iter().any(|own| own == "get")
                || *verb == "deletecollection" && verbs.iter().any(|own| own == "delete");
            if can {
                continue;
            }
            let answer = send(walk, method, &format!("{one}/{name}")).await;
            walk.refused(&format!("{verb} of {name}"), 405, "MethodNotAllowed", NOT_ALLOWED, &answer);
        }
    }
}

async fn send(walk: &Walk<'_>, method: &str, path: &str) -> crate::common::Answer {
    let media = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
    walk.api.send(method, path, &[("content-type", media)], if method == "GET" { "" } else { "{}" }).await
}
