//! Watch: the present, if asked for, and then every change.

use std::sync::Arc;
use std::time::Duration;

use api::cbor;
use api::field::{FieldError, Path};
use api::resource::Resource;
use api::schema::protobuf;
use api::status::Status;
use bytes::{Bytes, BytesMut};
use http::{Response, StatusCode};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::body::Body;
use crate::cache::{Change, Entry, Event, Snapshot, Subscription, put_frame};
use crate::context::Context;
use crate::negotiate::{Accept, Media};
use crate::registry::options::integer;
use crate::registry::table::Shape;
use crate::registry::{fresh_failure, read, selectors};
use crate::respond;
use crate::server::Server;

/// Watches without a timeout of their own end after 30 to 60 minutes, so that they don't all end at once.
const TIMEOUT: Duration = Duration::from_secs(30 * 60);
/// A watcher that asks for bookmarks gets one so often.
const BOOKMARK: Duration = Duration::from_secs(60);
/// Events are written together up to about this size.
const CHUNK: usize = 64 * 1024;
/// How long a client may ask a watch to last.
const LONGEST: i64 = 24 * 3600;

/// What the client wants to see of the present.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Initial {
    /// Nothing: it knows the state as of its resourceVersion.
    None,
    /// Every object as ADDED.
    Objects,
    /// Every object as ADDED, and then a bookmark that says so.
    ObjectsAndBookmark,
}

/// GET with `watch=true`.
pub async fn watch(
    server: &Arc<Server>,
    context: &Context<'_>,
    row: &Arc<Resource>,
) -> Result<Response<Body>, Status> {
    let registry = &server.registry;
    let cache = registry.stored(row)?;
    let query = &context.info.query;
    let selector = Arc::new(selectors::read(context.info, row, &cache)?);
    let bookmarks = query.flag("allowWatchBookmarks");
    let version = read::version(query)?;
    let initial = initial(context, version, bookmarks)?;
    // Without a resourceVersion the present must be the latest; with one it must not be older.
    match version {
        None => drop(registry.caches.fresh().await.map_err(fresh_failure)?),
        Some(0) => {}
        Some(version) if initial != Initial::None => read::reach(registry, version).await?,
        Some(_) => {}
    }
    cache.check().map_err(Status::internal)?;
    let after = if initial == Initial::None { version } else { None };
    let (snapshot, subscription) = cache
        .watch(selector.clone(), after)
        .map_err(|expired| read::too_old(after.unwrap_or(0), expired.oldest))?;
    let timeout = match integer(query, "timeoutSeconds")? {
        Some(seconds @ 1..) => Duration::from_secs(u64::try_from(seconds.min(LONGEST)).unwrap_or(0)),
        _ => registry.random.jitter(TIMEOUT, 1.0),
    };
    let now = registry.clock.instant();
    let present = match initial {
        Initial::None => None,
        Initial::Objects => Some(Present { snapshot, next: None, announce: false }),
        Initial::ObjectsAndBookmark => Some(Present { snapshot, next: None, announce: true }),
    };
    let watching = Watching {
        shape: Shape::new(registry, row, context.accept, query)?,
        row: row.clone(),
        accept: context.accept,
        selector,
        subscription,
        present,
        headers: true,
        deadline: now + timeout,
        bookmark: bookmarks.then(|| now + registry.random.jitter(BOOKMARK, 0.25)),
        random: registry.random.clone(),
    };
    let stream = futures::stream::unfold(watching, |mut watching| async move {
        watching.next().await.map(|bytes| (bytes, watching))
    });
    let content_type = context
        .accept
        .media
        .watch_type()
        .ok_or_else(|| Status::not_acceptable(&["application/json", "application/json;stream=watch"]))?;
    Ok(respond::with(StatusCode::OK, content_type, Body::stream(stream)))
}

fn initial(context: &Context<'_>, version: Option<i64>, bookmarks: bool) -> Result<Initial, Status> {
    let query = &context.info.query;
    let asked = query.get("sendInitialEvents").map(|_| query.flag("sendInitialEvents"));
    let matching = query.get("resourceVersionMatch");
    let mut errors = Vec::new();
    let match_path = Path::new("resourceVersionMatch");
    match (asked, matching) {
        (Some(_), None) => {
            let why = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
            errors.push(FieldError::forbidden(&match_path, why));
        }
        (Some(_), Some("NotOlderThan")) | (None, None) => {}
        (Some(_), Some(other)) => {
            errors.push(FieldError::not_supported(&match_path, other, &["NotOlderThan"]))
        }
        (None, Some(_)) => {
            let why = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided";
            errors.push(FieldError::forbidden(&match_path, why));
        }
    }
    if !errors.is_empty() {
        return Err(Status::invalid("meta.k8s.io", "ListOptions", "", &errors));
    }
    Ok(match (asked, version) {
        (Some(true), _) if bookmarks => Initial::ObjectsAndBookmark,
        (Some(true), _) => Initial::Objects,
        (Some(false), None | Some(0)) => Initial::None,
        (None, None | Some(0)) => Initial::Objects,
        (_, Some(_)) => Initial::None,
    })
}

/// The present, while it is being written.
struct Present {
    snapshot: Snapshot,
    next: Option<String>,
    announce: bool,
}

struct Watching {
    shape: Shape,
    row: Arc<Resource>,
    accept: Accept,
    selector: Arc<crate::cache::Selector>,
    subscription: Subscription,
    present: Option<Present>,
    /// A Table names its columns in its first event only.
    headers: bool,
    deadline: Instant,
    bookmark: Option<Instant>,
    random: base::Random,
}

impl Watching {
    /// The next bytes; `None` at the end of the watch.
    async fn next(&mut self) -> Option<Bytes> {
        if let Some(present) = self.present.take() {
            let bytes = self.present(present);
            if !bytes.is_empty() {
                return Some(bytes);
            }
        }
        loop {
            let timer = self.bookmark.unwrap_or(self.deadline).min(self.deadline);
            let event = tokio::select! {
                biased;
                event = self.subscription.next() => event,
                () = tokio::time::sleep_until(timer) => {
                    if timer == self.deadline {
                        return None;
                    }
                    self.bookmark = Some(timer + self.random.jitter(BOOKMARK, 0.25));
                    // Nothing is waiting, so everything up to the cache's revision was told.
                    match self.subscription.caught_up() {
                        Some(revision) => return Some(self.bookmark_frame(revision, false)),
                        None => continue,
                    }
                }
            };
            let (change, event) = event?;
            let first = self.frame(change, &event);
            let Some(second) = self.subscription.try_next() else {
                self.subscription.count_sent(1);
                return Some(first);
            };
            let mut sent = 2;
            // More is waiting: write it together.
            let mut bytes = BytesMut::from(first);
            bytes.extend_from_slice(&self.frame(second.0, &second.1));
            while bytes.len() < CHUNK {
                let Some((change, event)) = self.subscription.try_next() else { break };
                bytes.extend_from_slice(&self.frame(change, &event));
                sent += 1;
            }
            self.subscription.count_sent(sent);
            return Some(bytes.freeze());
        }
    }

    fn frame(&mut self, change: Change, event: &Event) -> Bytes {
        if self.shape.is_whole() && !self.accept.pretty && self.accept.media == Media::Json {
            return event.frame(change);
        }
        let mut bytes = BytesMut::new();
        if let Some(object) = event.object(change) {
            self.put(&mut bytes, change.word(), object);
        }
        bytes.freeze()
    }

    fn put(&mut self, bytes: &mut BytesMut, word: &str, entry: &Entry) {
        match self.shape.one(entry, self.headers) {
            Ok(object) => {
                self.headers = false;
                self.write(bytes, word, &object);
            }
            Err(status) => self.write(bytes, "ERROR", &status.to_bytes()),
        }
    }

    /// Writes an event of an object's JSON in the form that the client wants.
    fn write(&self, bytes: &mut BytesMut, word: &str, object: &[u8]) {
        if matches!(self.accept.media, Media::Json | Media::Yaml) {
            return put_frame(bytes, word, object);
        }
        let frame = self.binary(word, object).unwrap_or_else(|status| {
            // A Status can always be written.
            self.binary("ERROR", &status.to_bytes()).unwrap_or_default()
        });
        bytes.extend_from_slice(&frame);
    }

    /// An event in a form that is no text.
    fn binary(&self, word: &str, json: &[u8]) -> Result<Vec<u8>, Status> {
        let value: Value = serde_json::from_slice(json).map_err(Status::internal)?;
        let mut frame = Vec::with_capacity(json.len() + 32);
        if self.accept.media == Media::Cbor {
            cbor::put_event(&mut frame, word, &value);
        } else {
            let object = protobuf::object(&value).map_err(respond::not_marshalable)?;
            protobuf::put_frame(&mut frame, word, &object);
        }
        Ok(frame)
    }

    /// The next part of the present.
    fn present(&mut self, mut present: Present) -> Bytes {
        let mut bytes = BytesMut::new();
        let (mut resume, mut sent) = (None, 0);
        let selector = self.selector.clone();
        for entry in present.snapshot.scan(&selector, present.next.as_deref()) {
            if bytes.len() >= CHUNK {
                resume = Some(entry.key().to_owned());
                break;
            }
            if self.shape.is_whole() {
                self.write(&mut bytes, Change::Added.word(), entry.bytes());
            } else {
                self.put(&mut bytes, Change::Added.word(), entry);
            }
            sent += 1;
        }
        self.subscription.count_sent(sent);
        match resume {
            Some(key) => {
                present.next = Some(key);
                self.present = Some(present);
            }
            None if present.announce => {
                let frame = self.bookmark_frame(present.snapshot.revision, true);
                bytes.extend_from_slice(&frame);
            }
            None => {}
        }
        bytes.freeze()
    }

    /// Tells the client up to where it knows everything.
    fn bookmark_frame(&self, revision: i64, end_of_present: bool) -> Bytes {
        let mut metadata = json!({"resourceVersion": revision.to_string(), "creationTimestamp": null});
        if end_of_present {
            metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let object = self.shape.bookmark(&self.row, metadata);
        let mut bytes = BytesMut::new();
        self.write(&mut bytes, "BOOKMARK", object.to_string().as_bytes());
        bytes.freeze()
    }
}
