//! Empties namespaces that are being deleted, and lets them go.
//!
//! Promises: pods go first, and only when none is left the rest, so that no pod loses its secrets or network
//! policies while it runs; a namespace goes only after lists of every kind, made afterwards, showed nothing;
//! its conditions tell what it waits for.

mod plan;
#[cfg(test)]
mod tests;

use client::{Cache, Change, Client, Key};
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{ListParams, ObjectList};
use kube::core::Request;

use self::plan::{Content, is_terminating, plan};
use crate::Config;
use crate::harness::{self, Context, Error, Metadata, Plan, Reconciler, Worker, collection};
use crate::resources::Resources;

/// Objects of one kind that are counted one by one; of more, only the number is known.
const COUNTED: u32 = 500;

/// Starts the controller.
pub(crate) fn start(context: &Context, _: &Config) {
    let namespaces = context.caches.of::<Namespace>();
    let resources = Resources::follow(&context.caches);
    let mut worker = Worker::new(context, "namespace", 4);
    worker.watches(&namespaces, |namespace| {
        if is_terminating(namespace) { vec![Key::of(namespace)] } else { Vec::new() }
    });
    for kind in resources.kinds.iter().filter(|kind| kind.row.namespaced()) {
        worker.reads_as(&kind.row.plural, &kind.cache);
        let queue = worker.queue();
        kind.cache.on_change(move |change| {
            let going = match change {
                Change::Applied(object, _) if object.metadata.deletion_timestamp.is_none() => return,
                Change::Applied(object, _) | Change::Deleted(object) => object,
                Change::Missed => return,
            };
            queue.add(Key::new("", going.metadata.namespace.clone().unwrap_or_default()));
        });
    }
    harness::start(
        context,
        worker,
        Namespaces { client: context.client.clone(), clock: context.clock.clone(), namespaces, resources },
    );
}

struct Namespaces {
    client: Client,
    clock: base::Clock,
    namespaces: Cache<Namespace>,
    resources: Resources,
}

impl Reconciler for Namespaces {
    fn name(&self) -> &'static str {
        "namespace-controller"
    }

    async fn plan(&self, key: &Key) -> Result<Plan, Error> {
        let Some(namespace) = self.namespaces.get_key(key).filter(|found| is_terminating(found)) else {
            return Ok(Plan::nothing());
        };
        let mut contents = self.cached(&key.name);
        if contents.is_empty() {
            // A cache may lag, and events have none: only the API can tell that nothing is left.
            contents = self.live(&key.name, |_| true).await?;
        } else if !contents.iter().any(Content::is_pods) {
            contents.extend(self.live(&key.name, |name| name == "pods").await?);
        }
        Ok(plan(&namespace, &contents, self.clock.now()))
    }
}

impl Namespaces {
    /// What the caches show of a namespace's content.
    fn cached(&self, namespace: &str) -> Vec<Content> {
        let kinds = self.resources.kinds.iter().filter(|kind| kind.row.namespaced());
        let contents = kinds.filter_map(|kind| {
            let objects = kind.cache.in_namespace(namespace);
            let metadata = objects.iter().map(|object| &object.metadata);
            (!objects.is_empty()).then(|| Content::of(&kind.row, metadata))
        });
        contents.collect()
    }

    /// What the API shows of a namespace's content now, of the kinds whose names are `wanted`.
    async fn live(&self, namespace: &str, wanted: impl Fn(&str) -> bool) -> Result<Vec<Content>, Error> {
        let mut contents = Vec::new();
        for row in self.resources.with_content().filter(|row| wanted(&row.group_resource().to_string())) {
            let what = || format!("list {} in {namespace}", row.group_resource());
            let params = ListParams { limit: Some(COUNTED), ..ListParams::default() };
            let request = Request::new(collection(row, Some(namespace)))
                .list_metadata(&params)
                .map_err(|failure| Error::Other(format!("{}: {failure}", what())))?;
            let list: ObjectList<Metadata> =
                self.client.request(request).await.map_err(|source| Error::Api { what: what(), source })?;
            if !list.items.is_empty() {
                let mut content = Content::of(row, list.items.iter().map(|object| &object.metadata));
                let more = list.metadata.remaining_item_count.unwrap_or(0);
                content.more(usize::try_from(more).unwrap_or(0));
                contents.push(content);
            }
        }
        Ok(contents)
    }
}
