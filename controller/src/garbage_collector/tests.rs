use std::marker::PhantomData;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::PropagationPolicy::{Background, Foreground, Orphan};
use serde_json::{Value, json};

use super::decide::{Decision, Owner, decide, noticed};
use crate::harness::Metadata;

fn meta(value: &Value) -> ObjectMeta {
    serde_json::from_value(value.clone()).unwrap()
}

fn reference(uid: &str, block: bool) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "name": uid, "uid": uid, "blockOwnerDeletion": block})
}

#[test]
fn an_object_goes_only_when_no_owner_is_there() {
    use Owner::{Absent, Solid, Unknown, Waiting};
    let finalizer = |name: &str| json!([name]);
    let none = || json!(null);
    let leaf = json!({"uid": "d"});
    let blocking = json!({"uid": "d", "ownerReferences": [reference("me", true)]});
    // What depends on it is the object itself.
    let waiting = json!({"uid": "o0", "ownerReferences": [reference("me", true)], "finalizers": ["foregroundDeletion"], "deletionTimestamp": "2026-01-01T00:00:00Z"});
    let release = |uids: &[&str]| Decision::Release(uids.iter().map(|uid| (*uid).to_owned()).collect());
    for (name, going, finalizers, owners, dependents, wanted) in [
        ("no owner", false, none(), &[][..], vec![], Decision::Nothing),
        ("owner there", false, none(), &[Solid], vec![], Decision::Nothing),
        ("owner gone", false, none(), &[Absent], vec![], Decision::Delete(Background)),
        ("all gone", false, none(), &[Absent, Absent], vec![leaf.clone()], Decision::Delete(Background)),
        ("one there", false, none(), &[Absent, Solid], vec![], release(&["o0"])),
        ("one there, one waits", false, none(), &[Solid, Waiting], vec![], release(&["o1"])),
        ("can't be told", false, none(), &[Absent, Unknown], vec![], Decision::Nothing),
        ("its own wish: orphan", false, finalizer("orphan"), &[Absent], vec![], Decision::Delete(Orphan)),
        (
            "its own wish: foreground",
            false,
            finalizer("foregroundDeletion"),
            &[Absent],
            vec![],
            Decision::Delete(Foreground),
        ),
        ("owner waits", false, none(), &[Waiting], vec![], Decision::Delete(Background)),
        (
            "owner waits, dependents",
            false,
            none(),
            &[Waiting],
            vec![leaf.clone()],
            Decision::Delete(Foreground),
        ),
        ("a circle", true, finalizer("foregroundDeletion"), &[Waiting], vec![waiting], Decision::Unblock),
        ("goes anyway", true, none(), &[Absent], vec![], Decision::Nothing),
        ("waits for another", true, finalizer("x/y"), &[Absent], vec![], Decision::Nothing),
        ("orphans", true, finalizer("orphan"), &[], vec![leaf.clone()], Decision::Orphan),
        ("foreground, alone", true, finalizer("foregroundDeletion"), &[], vec![], Decision::Finish),
        ("foreground, not blocked", true, finalizer("foregroundDeletion"), &[], vec![leaf], Decision::Finish),
        (
            "foreground, blocked",
            true,
            finalizer("foregroundDeletion"),
            &[],
            vec![blocking],
            Decision::LookAtDependents,
        ),
    ] {
        let references: Vec<Value> = (0..owners.len()).map(|n| reference(&format!("o{n}"), true)).collect();
        let object = meta(&json!({
            "uid": "me", "finalizers": finalizers, "ownerReferences": references,
            "deletionTimestamp": going.then_some("2026-01-01T00:00:00Z"),
        }));
        let of_me = |uid: &str| {
            let found =
                if uid == "me" { dependents.iter().map(meta).collect() } else { vec![object.clone()] };
            let share = |metadata| Arc::new(Metadata { types: None, metadata, _phantom: PhantomData });
            found.into_iter().map(share).collect()
        };
        assert_eq!(decide(&object, owners, of_me), wanted, "{name}");
    }
}

#[test]
fn only_changes_that_matter_are_noticed() {
    let plain = json!({"uid": "a", "resourceVersion": "1"});
    let owned = json!({"uid": "a", "ownerReferences": [reference("o", true)]});
    let unblocked = json!({"uid": "a", "ownerReferences": [reference("o", false)]});
    let going = json!({"uid": "a", "finalizers": ["orphan"], "deletionTimestamp": "2026-01-01T00:00:00Z"});
    for (name, old, new, look, owners) in [
        ("new without owner", None, Some(&plain), false, 0),
        ("new with owner", None, Some(&owned), true, 0),
        ("the same", Some(&owned), Some(&owned), false, 0),
        ("blocks no longer", Some(&owned), Some(&unblocked), true, 1),
        ("released", Some(&owned), Some(&plain), false, 1),
        ("gone", Some(&owned), None, false, 1),
        ("gone, blocked nobody", Some(&unblocked), None, false, 0),
        ("begins to go", Some(&plain), Some(&going), true, 0),
        ("goes as before", Some(&going), Some(&going), false, 0),
    ] {
        let (old, new) = (old.map(meta), new.map(meta));
        let noticed = noticed(new.as_ref(), old.as_ref());
        assert_eq!((noticed.look, noticed.owners.len()), (look, owners), "{name}");
    }
}
