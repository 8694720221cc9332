//! Keeps a cache equal to the API: list, then watch from the list's revision, and list again only when the
//! history is gone (410). A failed list leaves the cache as it is: an error is never an empty list.
//!
//! It knows objects as JSON text only, so that one piece of code follows every kind.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use base::{Clock, Random};
use futures::{AsyncBufReadExt, TryStreamExt};
use http::HeaderValue;
use http::header::ACCEPT_ENCODING;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ListMeta;
use kube::Client;
use kube::api::{ListParams, WatchParams};
use kube::core::request::Request;
use kube::core::watch::Bookmark;
use serde::Deserialize;
use serde_json::value::RawValue;
use tracing::debug;

use crate::cache::Source;
use crate::error;

const PAGE: u32 = 500;
/// The server ends a watch after this time; a random share is added so that clients don't all come back at once.
const WATCH_SECONDS: u32 = 240;
/// A watch that says nothing for this long beyond its own timeout is dead.
const WATCH_GRACE: Duration = Duration::from_secs(30);
const BACKOFF_START: Duration = Duration::from_millis(50);
const BACKOFF_LIMIT: Duration = Duration::from_secs(5);

/// What a reflector keeps equal to the API. Each object comes as its JSON text.
pub(crate) trait Mirror: Send + Sync {
    /// Begins a full list; what is known stays until the list is complete.
    fn listing(self: Arc<Self>) -> Box<dyn Listing>;
    /// Takes over one added or modified object and returns its revision.
    fn applied(&self, object: &RawValue) -> serde_json::Result<String>;
    /// Takes over a deletion, shown by the last state of the object, and returns its revision.
    fn deleted(&self, object: &RawValue) -> serde_json::Result<String>;
    /// Notes that nothing up to `revision` is missing.
    fn reached(&self, revision: &str);
    /// Nothing comes any more.
    fn ended(&self);
}

/// A full list while it comes in.
pub(crate) trait Listing: Send {
    fn add(&mut self, object: &RawValue) -> serde_json::Result<()>;
    /// The list shows the state at `revision`: what is not in it is gone.
    fn complete(self: Box<Self>, revision: &str);
}

pub(crate) struct Reflector {
    pub(crate) client: Client,
    pub(crate) clock: Clock,
    pub(crate) random: Random,
    pub(crate) source: Source,
    pub(crate) labels: Option<String>,
    pub(crate) fields: Option<String>,
    pub(crate) mirror: Arc<dyn Mirror>,
}

/// A page of a list.
#[derive(Deserialize)]
struct Page<'a> {
    metadata: ListMeta,
    #[serde(borrow)]
    items: Vec<&'a RawValue>,
}

/// An event of a watch, its fields in any order.
#[derive(Deserialize)]
struct Event<'a> {
    #[serde(rename = "type")]
    kind: EventType,
    #[serde(borrow)]
    object: &'a RawValue,
}

#[derive(Deserialize)]
#[serde(rename_all = "UPPERCASE")]
enum EventType {
    Added,
    Modified,
    Deleted,
    Bookmark,
    Error,
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

impl Drop for Reflector {
    fn drop(&mut self) {
        self.mirror.ended();
    }
}

impl Reflector {
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
        let mut listing = self.mirror.clone().listing();
        loop {
            let list = if self.source.metadata_only {
                request.list_metadata(&params)
            } else {
                request.list(&params)
            };
            let list = list.map_err(kube::Error::BuildRequest)?;
            let text = self.client.request_text(list).await?;
            let page: Page<'_> = serde_json::from_str(&text).map_err(kube::Error::SerdeError)?;
            for object in page.items {
                listing.add(object).map_err(kube::Error::SerdeError)?;
            }
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params.continue_token = Some(token),
                None => {
                    let revision = page.metadata.resource_version.unwrap_or_default();
                    listing.complete(&revision);
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
        let mut request = match request {
            Ok(request) => request,
            Err(failure) => return Interrupted::Broken(revision, kube::Error::BuildRequest(failure)),
        };
        // Compressed, an event may wait in the middle of a block.
        request.headers_mut().insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        let lines = match self.client.request_stream(request).await {
            Ok(body) => body.lines(),
            Err(failure) if error::is_expired(&failure) => return Interrupted::Expired,
            Err(failure) => return Interrupted::Broken(revision, failure),
        };
        let mut lines = pin!(lines);
        loop {
            let line = tokio::select! {
                biased;
                line = lines.try_next() => line,
                () = self.clock.wait_until(deadline) => return Interrupted::Ended(revision),
            };
            let line = match line {
                Ok(Some(line)) => line,
                Ok(None) => return Interrupted::Ended(revision),
                Err(failure) => return Interrupted::Broken(revision, kube::Error::ReadEvents(failure)),
            };
            match self.take(&line) {
                Ok(reached) => revision = reached,
                Err(failure) if error::is_expired(&failure) => return Interrupted::Expired,
                Err(failure) => return Interrupted::Broken(revision, failure),
            }
        }
    }

    /// Takes over one event and returns the revision that it reaches.
    fn take(&self, line: &str) -> Result<String, kube::Error> {
        let Event { kind, object } = serde_json::from_str(line).map_err(kube::Error::SerdeError)?;
        let reached = match kind {
            EventType::Added | EventType::Modified => self.mirror.applied(object),
            EventType::Deleted => self.mirror.deleted(object),
            EventType::Bookmark => serde_json::from_str::<Bookmark>(object.get()).map(|bookmark| {
                self.mirror.reached(&bookmark.metadata.resource_version);
                bookmark.metadata.resource_version
            }),
            EventType::Error => match serde_json::from_str(object.get()) {
                Ok(status) => return Err(kube::Error::Api(status)),
                Err(failure) => Err(failure),
            },
        };
        reached.map_err(kube::Error::SerdeError)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_read_in_whatever_order_its_fields_come() {
        for line in [
            r#"{"type":"DELETED","object":{"metadata":{"name":"a"}}}"#,
            r#"{"object":{"metadata":{"name":"a"}},"type":"DELETED"}"#,
        ] {
            let event: Event<'_> = serde_json::from_str(line).unwrap();
            assert!(matches!(event.kind, EventType::Deleted));
            assert_eq!(event.object.get(), r#"{"metadata":{"name":"a"}}"#);
        }
    }
}
