//! What authentication, authorization and admission read: objects of the watch cache, by kind.

use std::fmt::Debug;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use serde::de::DeserializeOwned;
use tracing::error;

/// The kinds that decisions are made by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    ClusterRole,
    ClusterRoleBinding,
    IngressClass,
    LimitRange,
    Namespace,
    Node,
    PersistentVolume,
    Pod,
    PriorityClass,
    ResourceSlice,
    Role,
    RoleBinding,
    RuntimeClass,
    Secret,
    ServiceAccount,
    StorageClass,
    VolumeAttachment,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 17] = [
        Self::ClusterRole,
        Self::ClusterRoleBinding,
        Self::IngressClass,
        Self::LimitRange,
        Self::Namespace,
        Self::Node,
        Self::PersistentVolume,
        Self::Pod,
        Self::PriorityClass,
        Self::ResourceSlice,
        Self::Role,
        Self::RoleBinding,
        Self::RuntimeClass,
        Self::Secret,
        Self::ServiceAccount,
        Self::StorageClass,
        Self::VolumeAttachment,
    ];

    /// API group and plural name.
    pub fn resource(self) -> (&'static str, &'static str) {
        const RBAC: &str = "rbac.authorization.k8s.io";
        match self {
            Self::ClusterRole => (RBAC, "clusterroles"),
            Self::ClusterRoleBinding => (RBAC, "clusterrolebindings"),
            Self::IngressClass => ("networking.k8s.io", "ingressclasses"),
            Self::LimitRange => ("", "limitranges"),
            Self::Namespace => ("", "namespaces"),
            Self::Node => ("", "nodes"),
            Self::PersistentVolume => ("", "persistentvolumes"),
            Self::Pod => ("", "pods"),
            Self::PriorityClass => ("scheduling.k8s.io", "priorityclasses"),
            Self::ResourceSlice => ("resource.k8s.io", "resourceslices"),
            Self::Role => (RBAC, "roles"),
            Self::RoleBinding => (RBAC, "rolebindings"),
            Self::RuntimeClass => ("node.k8s.io", "runtimeclasses"),
            Self::Secret => ("", "secrets"),
            Self::ServiceAccount => ("", "serviceaccounts"),
            Self::StorageClass => ("storage.k8s.io", "storageclasses"),
            Self::VolumeAttachment => ("storage.k8s.io", "volumeattachments"),
        }
    }
}

// A kind that is not listed would have no objects.
const _: () = assert!(Kind::ALL.len() == Kind::VolumeAttachment as usize + 1);

/// One object as of one revision.
#[derive(Clone, Debug)]
pub struct Item {
    pub namespace: String,
    pub name: String,
    pub revision: i64,
    /// Its JSON.
    pub json: Bytes,
}

impl Item {
    /// The object, or the part of it that `T` describes. A stored value that can't be read is reported and left
    /// out: nothing is granted by it, and everything else goes on.
    pub fn read<T: DeserializeOwned>(&self) -> Option<T> {
        serde_json::from_slice(&self.json)
            .inspect_err(|reason| error!(namespace = %self.namespace, name = %self.name, %reason, "a stored object can't be read"))
            .ok()
    }
}

/// The present of the watch cache.
pub trait Source: Debug + Send + Sync {
    /// One object; `namespace` is empty for cluster-scoped kinds.
    fn get(&self, kind: Kind, namespace: &str, name: &str) -> Option<Item>;
    /// All objects of a kind.
    fn list(&self, kind: Kind) -> Vec<Item>;
    /// All objects of a kind in a namespace.
    fn in_namespace(&self, kind: Kind, namespace: &str) -> Vec<Item>;
    /// The pods of a node, by an index.
    fn pods_on(&self, node: &str) -> Vec<Item>;
    /// Changes whenever an object of the kind does: what was derived at one value holds as long as it stays.
    fn version(&self, kind: Kind) -> i64;
    /// Waits until the present shows everything that was acknowledged before this call, or for as long as is sensible.
    fn catch_up(&self) -> BoxFuture<'_, ()>;
}

/// A shared [`Source`].
pub type Objects = Arc<dyn Source>;

#[cfg(test)]
pub(crate) mod fixed {
    //! Objects in memory, for tests.

    use std::collections::BTreeMap;
    use std::sync::Mutex;

    use serde_json::Value;

    use super::{Item, Kind, Source};

    #[derive(Debug, Default)]
    pub(crate) struct Fixed(
        Mutex<(i64, BTreeMap<(Kind, String, String), Item>)>,
        /// What is in the store already, but not here.
        Mutex<Option<(Kind, Value)>>,
    );

    impl Fixed {
        pub(crate) fn put(&self, kind: Kind, object: Value) {
            let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
            let (namespace, name) = (text("namespace"), text("name"));
            let mut state = self.0.lock().unwrap();
            state.0 += 1;
            let item = Item {
                namespace: namespace.clone(),
                name: name.clone(),
                revision: state.0,
                json: object.to_string().into(),
            };
            state.1.insert((kind, namespace, name), item);
        }

        /// Puts an object where it is seen only after catching up.
        pub(crate) fn put_late(&self, kind: Kind, object: Value) {
            *self.1.lock().unwrap() = Some((kind, object));
        }

        pub(crate) fn remove(&self, kind: Kind, namespace: &str, name: &str) {
            let mut state = self.0.lock().unwrap();
            state.0 += 1;
            state.1.remove(&(kind, namespace.to_owned(), name.to_owned()));
        }
    }

    impl Source for Fixed {
        fn get(&self, kind: Kind, namespace: &str, name: &str) -> Option<Item> {
            self.0.lock().unwrap().1.get(&(kind, namespace.to_owned(), name.to_owned())).cloned()
        }

        fn list(&self, kind: Kind) -> Vec<Item> {
            self.0
                .lock()
                .unwrap()
                .1
                .iter()
                .filter(|((k, ..), _)| *k == kind)
                .map(|(_, item)| item.clone())
                .collect()
        }

        fn in_namespace(&self, kind: Kind, namespace: &str) -> Vec<Item> {
            self.list(kind).into_iter().filter(|item| item.namespace == namespace).collect()
        }

        fn pods_on(&self, node: &str) -> Vec<Item> {
            let on = |item: &Item| item.read::<Value>().is_some_and(|pod| pod["spec"]["nodeName"] == node);
            self.list(Kind::Pod).into_iter().filter(on).collect()
        }

        fn version(&self, _: Kind) -> i64 {
            self.0.lock().unwrap().0
        }

        fn catch_up(&self) -> futures::future::BoxFuture<'_, ()> {
            Box::pin(async {
                if let Some((kind, object)) = self.1.lock().unwrap().take() {
                    self.put(kind, object);
                }
            })
        }
    }
}
