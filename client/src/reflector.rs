//! Keeps a cache equal to the API: list, then watch from the list's revision, and list again only when the
//! history is gone (410). A failed list leaves the cache as it is: an error is never an empty list.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use base::{Clock, Random};
use futures::TryStreamExt;
use kube::api::{ListParams, WatchEvent, WatchParams};
use kube::core::ObjectList;
use kube::core::request::Request;
use kube::{Client, Resource};
use tracing::debug;

use crate::cache::{Cached, Shared, Source};
use crate::error;

const PAGE: u32 = 500;
/// The server ends a watch after this time; a random share is added so that clients don't all come back at once.
const WATCH_SECONDS: u32 = 240;
/// A watch that says nothing for this long beyond its own timeout is dead.
const WATCH_GRACE: Duration = Duration::from_secs(30);
const BACKOFF_START: Duration = Duration::from_millis(50);
const BACKOFF_LIMIT: Duration = Duration::from_secs(5);

pub(crate) struct Reflector<K> {
    pub(crate) client: Client,
    pub(crate) clock: Clock,
    pub(crate) random: Random,
    pub(crate) source: Source,
    pub(crate) labels: Option<String>,
    pub(crate) fields: Option<String>,
    pub(crate) cache: Arc<Shared<K>>,
}

/// Where the reflector stands.
enum State {
    /// Nothing is known, or the history behind what is known is gone.
    List,
    /// Everything up to this revision is in the cache.
    Watch(String),
}

/// How one step ended without a new state.
enum Interrupted {
    Expired,
    Failed(kube::Error),
    /// The server ended the watch; carries on from this revision.
    Ended(String),
    /// The same after an error.
    Broken(String, kube::Error),
}

impl<K: Cached> Reflector<K> {
    pub(crate) async fn run(self) {
        let request = Request::new(&self.source.path);
        let mut state = State::List;
        let mut backoff = BACKOFF_START;
        loop {
            let started = self.clock.instant();
            let outcome = match &state {
                State::List => self.list(&request).await.map(State::Watch).map_err(Interrupted::Failed),
                State::Watch(revision) => Err(self.watch(&request, revision.clone()).await),
            };
            // A server that ends watches at once, for whatever reason, must not be asked in a tight loop.
            let short = self.clock.instant() - started < BACKOFF_LIMIT;
            let (next, failure) = match outcome {
                Ok(next) => (Some(next), None),
                Err(Interrupted::Expired) => {
                    (Some(State::List), Some("the watch history is gone".to_owned()))
                }
                Err(Interrupted::Ended(revision)) => {
                    (Some(State::Watch(revision)), short.then(|| "the watch ended early".to_owned()))
                }
                Err(Interrupted::Broken(revision, failure)) => {
                    (Some(State::Watch(revision)), Some(failure.to_string()))
                }
                Err(Interrupted::Failed(failure)) => (None, Some(failure.to_string())),
            };
            state = next.unwrap_or(state);
            if let Some(failure) = failure {
                if !short {
                    backoff = BACKOFF_START;
                }
                debug!(resource = %self.source.plural, failure, retry_in = ?backoff, "following the API was interrupted");
                self.clock.wait(self.random.jitter(backoff, 0.5)).await;
                backoff = (backoff * 2).min(BACKOFF_LIMIT);
            }
        }
    }

    /// Reads everything, page by page, and returns the revision of the list.
    async fn list(&self, request: &Request) -> Result<String, kube::Error> {
        let mut params = ListParams {
            label_selector: self.labels.clone(),
            field_selector: self.fields.clone(),
            limit: Some(PAGE),
            ..ListParams::default()
        };
        let mut objects: Vec<K> = Vec::new();
        loop {
            let list = if self.source.metadata_only {
                request.list_metadata(&params)
            } else {
                request.list(&params)
            };
            let list = list.map_err(kube::Error::BuildRequest)?;
            let page: ObjectList<K> = self.client.request(list).await?;
            objects.extend(page.items);
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params.continue_token = Some(token),
                None => {
                    let revision = page.metadata.resource_version.unwrap_or_default();
                    self.cache.replace(objects, number(&revision));
                    return Ok(revision);
                }
            }
        }
    }

    /// Follows the changes after `revision` until the watch ends.
    async fn watch(&self, request: &Request, mut revision: String) -> Interrupted {
        let seconds =
            WATCH_SECONDS + u32::try_from(self.random.below(u64::from(WATCH_SECONDS / 4))).unwrap_or(0);
        let params = WatchParams {
            label_selector: self.labels.clone(),
            field_selector: self.fields.clone(),
            timeout: Some(seconds),
            bookmarks: true,
            ..WatchParams::default()
        };
        let deadline = self.clock.instant() + Duration::from_secs(u64::from(seconds)) + WATCH_GRACE;
        let request = if self.source.metadata_only {
            request.watch_metadata(&params, &revision)
        } else {
            request.watch(&params, &revision)
        };
        let request = match request {
            Ok(request) => request,
            Err(failure) => return Interrupted::Broken(revision, kube::Error::BuildRequest(failure)),
        };
        let events = match self.client.request_events::<K>(request).await {
            Ok(events) => events,
            Err(failure) if error::is_expired(&failure) => return Interrupted::Expired,
            Err(failure) => return Interrupted::Broken(revision, failure),
        };
        let mut events = pin!(events);
        loop {
            let event = tokio::select! {
                biased;
                event = events.try_next() => event,
                () = self.clock.wait_until(deadline) => return Interrupted::Ended(revision),
            };
            match event {
                Ok(Some(WatchEvent::Added(object) | WatchEvent::Modified(object))) => {
                    revision = version(&object);
                    self.cache.apply(object, number(&revision));
                }
                Ok(Some(WatchEvent::Deleted(object))) => {
                    revision = version(&object);
                    self.cache.delete(object, number(&revision));
                }
                Ok(Some(WatchEvent::Bookmark(bookmark))) => {
                    revision = bookmark.metadata.resource_version;
                    self.cache.advance(number(&revision));
                }
                Ok(Some(WatchEvent::Error(status))) if status.code == 410 => return Interrupted::Expired,
                Ok(Some(WatchEvent::Error(status))) => {
                    return Interrupted::Broken(revision, kube::Error::Api(status));
                }
                Ok(None) => return Interrupted::Ended(revision),
                Err(failure) if error::is_expired(&failure) => return Interrupted::Expired,
                Err(failure) => return Interrupted::Broken(revision, failure),
            }
        }
    }
}

fn version<K: Resource>(object: &K) -> String {
    object.meta().resource_version.clone().unwrap_or_default()
}

/// Revisions are opaque to clients but since Kubernetes 1.35 (KEP-5504) comparable as integers.
fn number(revision: &str) -> u64 {
    revision.parse().unwrap_or(0)
}
