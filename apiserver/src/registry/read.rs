//! Get and list.

use std::sync::Arc;
use std::time::Duration;

use api::cbor;
use api::field::{FieldError, Path};
use api::resource::Resource;
use api::schema::protobuf;
use api::status::Status;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::{BufMut, Bytes, BytesMut};
use http::{Response, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use store::Revision;

use crate::body::Body;
use crate::cache::{Cache, Entry, Selector, Snapshot};
use crate::context::Context;
use crate::negotiate::{Form, Media};
use crate::registry::options::integer;
use crate::registry::table::Shape;
use crate::registry::{Registry, fresh_failure, selectors};
use crate::request::Query;
use crate::respond;
use crate::server::Server;

/// Items are written into chunks of about this size.
const CHUNK: usize = 64 * 1024;
/// So many items of a list that is no text are written at a time.
const ITEMS: usize = 50;
/// How long a read waits for a revision that the cache has not reached.
const PATIENCE: Duration = Duration::from_secs(3);

/// GET of one object.
pub async fn get(
    server: &Arc<Server>,
    context: &Context<'_>,
    row: &Arc<Resource>,
) -> Result<Response<Body>, Status> {
    let registry = &server.registry;
    let cache = registry.stored(row)?;
    match version(&context.info.query)? {
        None => drop(registry.caches.fresh().await.map_err(fresh_failure)?),
        Some(0) => {}
        Some(version) => reach(registry, version).await?,
    }
    let info = context.info;
    let namespace = if row.namespaced() { info.namespace.as_str() } else { "" };
    cache.check_one(namespace, &info.name).map_err(Status::internal)?;
    let entry = cache
        .get(namespace, &info.name)
        .ok_or_else(|| Status::not_found(row.group_resource(), &info.name))?;
    let shape = Shape::new(registry, row, context.accept, &info.query)?;
    respond::object(StatusCode::OK, context.accept, shape.one(&entry, true)?)
}

/// GET of a collection.
pub async fn list(
    server: &Arc<Server>,
    context: &Context<'_>,
    row: &Arc<Resource>,
) -> Result<Response<Body>, Status> {
    let registry = &server.registry;
    let cache = registry.stored(row)?;
    let query = &context.info.query;
    let selector = selectors::read(context.info, row, &cache)?;
    let shape = Shape::new(registry, row, context.accept, query)?;
    let limit = usize::try_from(integer(query, "limit")?.unwrap_or(0)).unwrap_or(0);
    let Page { snapshot, start, entries } = page(registry, &cache, query, &selector, limit).await?;

    // With a limit, the list is cut before its first byte is written: its head says where it goes on.
    let mut metadata = json!({"resourceVersion": snapshot.revision.to_string()});
    let mut chosen = entries;
    if limit > 0 && chosen.is_none() {
        let mut scan = snapshot.scan(&selector, start.as_deref());
        let some: Vec<Arc<Entry>> = scan.by_ref().take(limit).cloned().collect();
        if let (Some(last), Some(_)) = (some.last(), scan.next()) {
            metadata["continue"] = Value::from(token(snapshot.revision, last.key()));
            if !selector.is_restricted() {
                let rest = snapshot.scan(&selector, Some(&after(last.key()))).count();
                metadata["remainingItemCount"] = Value::from(rest);
            }
            cache.pin(&snapshot);
        }
        chosen = Some(some);
    }
    let source = match chosen {
        Some(entries) => Source::Entries(entries.into_iter()),
        None => Source::Snapshot { snapshot, selector, next: start },
    };
    let source =
        if shape.is_ranked() { Source::Entries(shape.rank(source.entries())?.into_iter()) } else { source };
    let items = Items { shape, source, metadata: Some(metadata), first: true };
    if context.accept.media == Media::Json && !context.accept.pretty {
        let stream =
            futures::stream::unfold(
                items,
                |mut items| async move { items.chunk().map(|chunk| (chunk, items)) },
            );
        return Ok(respond::with(StatusCode::OK, Media::Json.content_type(), Body::stream(stream)));
    }
    let media = context.accept.media;
    if media == Media::Protobuf || media == Media::Cbor && context.accept.form != Form::Table {
        return Ok(respond::with(StatusCode::OK, media.content_type(), items.binary(media).await?));
    }
    let mut items = items;
    let mut whole = BytesMut::new();
    while let Some(chunk) = items.chunk() {
        whole.extend_from_slice(&chunk);
    }
    respond::object(StatusCode::OK, context.accept, whole.freeze())
}

/// Where a list comes from.
pub(crate) struct Page {
    pub snapshot: Snapshot,
    /// The first key.
    pub start: Option<String>,
    /// The objects, where an index found them.
    pub entries: Option<Vec<Arc<Entry>>>,
}

/// Finds the snapshot that a list is to show, by upstream's rules of resourceVersion, match and continue.
pub(crate) async fn page(
    registry: &Registry,
    cache: &Cache,
    query: &Query,
    selector: &Selector,
    limit: usize,
) -> Result<Page, Status> {
    check_match(query)?;
    if let Some(continued) = query.get("continue") {
        let token = Token::read(continued)?;
        if query.get("resourceVersion").is_some_and(|version| version != "0") {
            return Err(Status::bad_request(
                "specifying resource version is not allowed when using continue",
            ));
        }
        // -1: go on with what there is now, by the client's own choice.
        let snapshot = if token.rv < 0 {
            registry.caches.fresh().await.map_err(fresh_failure)?;
            cache.snapshot()
        } else {
            reach(registry, token.rv).await?;
            cache.snapshot_at(token.rv).map_err(|_| token.expired())?
        };
        cache.check().map_err(Status::internal)?;
        return Ok(Page { snapshot, start: Some(token.start), entries: None });
    }
    let matching = query.get("resourceVersionMatch");
    // A list that asks for a version which is none is a bad request, other reads fail with 500.
    let bad = |status: Status| Status::bad_request(format!("invalid resource version: {}", status.message));
    // Pages are cut from a snapshot, one after the other.
    let present = || if limit > 0 { (cache.snapshot(), None) } else { cache.present(selector) };
    let (snapshot, entries) = match version(query).map_err(bad)? {
        None => {
            registry.caches.fresh().await.map_err(fresh_failure)?;
            present()
        }
        Some(0) => present(),
        Some(version) => {
            reach(registry, version).await?;
            // Without a match, a limited list is exact: its pages belong together.
            if matching == Some("Exact") || matching.is_none() && limit > 0 {
                let snapshot = cache.snapshot_at(version);
                (snapshot.map_err(|expired| too_old(version, expired.oldest))?, None)
            } else {
                present()
            }
        }
    };
    cache.check().map_err(Status::internal)?;
    Ok(Page { snapshot, start: None, entries })
}

/// `resourceVersion`; `None` if it is not given.
pub(crate) fn version(query: &Query) -> Result<Option<Revision>, Status> {
    let Some(text) = query.get("resourceVersion") else { return Ok(None) };
    match text.parse::<u64>().ok().and_then(|version| Revision::try_from(version).ok()) {
        Some(version) => Ok(Some(version)),
        None => {
            let path = Path::new("resourceVersion");
            let why = format!("strconv.ParseUint: parsing {}: invalid syntax", api::field::quote(text));
            let error = FieldError::invalid(&path, text, why);
            // Upstream's odd but well-known answer: 500 without a reason.
            Err(Status::failure(500, api::status::Reason::Unknown, error.to_string()))
        }
    }
}

/// Waits a little for a revision that other servers of the cluster may have reached already.
pub(crate) async fn reach(registry: &Registry, version: Revision) -> Result<(), Status> {
    registry.caches.reach(version, PATIENCE).await.map_err(|not| {
        let number = |revision| u64::try_from(revision).unwrap_or(0);
        Status::too_large_resource_version(1, number(not.wanted), number(not.current))
    })
}

/// 410 for a revision that is out of the window.
pub(crate) fn too_old(requested: Revision, oldest: Revision) -> Status {
    Status::expired(format!("too old resource version: {requested} ({oldest})"))
}

fn check_match(query: &Query) -> Result<(), Status> {
    let mut errors = Vec::new();
    let path = Path::new("resourceVersionMatch");
    let version = query.get("resourceVersion");
    if let Some(matching) = query.get("resourceVersionMatch") {
        if version.is_none() {
            let why = "resourceVersionMatch is forbidden unless resourceVersion is provided";
            errors.push(FieldError::forbidden(&path, why));
        }
        if query.get("continue").is_some() {
            errors.push(FieldError::forbidden(
                &path,
                "resourceVersionMatch is forbidden when continue is provided",
            ));
        }
        if !matches!(matching, "Exact" | "NotOlderThan") {
            errors.push(FieldError::not_supported(&path, matching, &["Exact", "NotOlderThan", ""]));
        }
        if matching == "Exact" && version == Some("0") {
            let why = "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"";
            errors.push(FieldError::forbidden(&path, why));
        }
    }
    if query.get("sendInitialEvents").is_some() {
        let path = Path::new("sendInitialEvents");
        errors.push(FieldError::forbidden(&path, "sendInitialEvents is forbidden for list"));
    }
    if errors.is_empty() { Ok(()) } else { Err(Status::invalid("meta.k8s.io", "ListOptions", "", &errors)) }
}

/// Where a list goes on, as clients carry it.
#[derive(Debug, Deserialize, Serialize)]
pub struct Token {
    v: String,
    rv: Revision,
    start: String,
}

impl Token {
    /// Reads a token; it need not be one of ours.
    pub fn read(text: &str) -> Result<Self, Status> {
        let invalid = |why: &str| {
            Status::bad_request(format!("invalid continue token: continue key is not valid{why}"))
        };
        let bytes = URL_SAFE_NO_PAD
            .decode(text.trim_end_matches('='))
            .map_err(|error| invalid(&format!(": {error}")))?;
        let value = api::schema::decode::parse(&bytes).map_err(|error| invalid(&format!(": {error}")))?;
        let token: Self = serde_json::from_value(value).map_err(|error| invalid(&format!(": {error}")))?;
        if token.v != "meta.k8s.io/v1" {
            return Err(invalid(&format!(": server does not recognize this encoded version {}", token.v)));
        }
        if token.rv == 0 {
            return Err(invalid(": incorrect encoded start resourceVersion (version meta.k8s.io/v1)"));
        }
        if token.start.is_empty() {
            return Err(invalid(": encoded start key empty (version meta.k8s.io/v1)"));
        }
        Ok(token)
    }

    /// 410, with the token by which the client can go on inconsistently.
    fn expired(&self) -> Status {
        let token = encode(-1, &self.start);
        Status::expired(
            "The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing with the provided token results in an inconsistent list - objects that were created, modified, or deleted between the time the first chunk was returned and now may show up in the list.",
        )
        .continuing(token)
    }
}

fn token(revision: Revision, last: &str) -> String {
    encode(revision, &after(last))
}

/// The first possible key after `key`.
fn after(key: &str) -> String {
    format!("{key}\0")
}

fn encode(rv: Revision, start: &str) -> String {
    let token = Token { v: "meta.k8s.io/v1".to_owned(), rv, start: start.to_owned() };
    URL_SAFE_NO_PAD.encode(serde_json::to_vec(&token).unwrap_or_default())
}

enum Source {
    Entries(std::vec::IntoIter<Arc<Entry>>),
    Snapshot { snapshot: Snapshot, selector: Selector, next: Option<String> },
}

impl Source {
    fn entries(self) -> Vec<Arc<Entry>> {
        match self {
            Self::Entries(entries) => entries.collect(),
            Self::Snapshot { snapshot, selector, next } => {
                snapshot.scan(&selector, next.as_deref()).cloned().collect()
            }
        }
    }
}

/// A list that is not text, being written.
enum Binary<'a> {
    Cbor(cbor::List<'a>),
    Protobuf(protobuf::List),
}

/// Writes a list, chunk by chunk.
struct Items {
    shape: Shape,
    source: Source,
    /// Of the list; gone once its head is written.
    metadata: Option<Value>,
    first: bool,
}

impl Items {
    /// The whole list in protobuf or CBOR, which have a length before the items.
    async fn binary(self, media: Media) -> Result<Bytes, Status> {
        let entries = self.source.entries();
        let (kind, version) = self.shape.list_kind();
        let metadata = self.metadata.unwrap_or_default();
        let mut list = if media == Media::Cbor {
            Binary::Cbor(cbor::List::new(&version, &kind, &metadata, entries.len()))
        } else {
            let list = protobuf::List::new(&version, &kind, &metadata).map_err(respond::not_marshalable)?;
            Binary::Protobuf(list)
        };
        let mut text = BytesMut::new();
        for some in entries.chunks(ITEMS) {
            for entry in some {
                text.clear();
                self.shape.put_item(&mut text, entry)?;
                let item: Value = serde_json::from_slice(&text).map_err(Status::internal)?;
                match &mut list {
                    Binary::Cbor(list) => list.push(&item),
                    Binary::Protobuf(list) => list.push(&item).map_err(Status::internal)?,
                }
            }
            // Others want to be answered, too.
            tokio::task::yield_now().await;
        }
        Ok(match list {
            Binary::Cbor(list) => list.finish().into(),
            Binary::Protobuf(list) => list.finish().into(),
        })
    }

    /// The next chunk; `None` at the end. An object that can't be shown is left out: the head is written already.
    fn chunk(&mut self) -> Option<Bytes> {
        let mut out = BytesMut::with_capacity(CHUNK + CHUNK / 4);
        if let Some(metadata) = self.metadata.take() {
            self.shape.put_head(&mut out, &metadata, true);
        } else if self.first
            && matches!(&self.source, Source::Entries(entries) if entries.as_slice().is_empty())
        {
            return None;
        }
        let mut first = self.first;
        let mut put = |out: &mut BytesMut, entry: &Entry| {
            let before = out.len();
            if !first {
                out.put_u8(b',');
            }
            match self.shape.put_item(out, entry) {
                Ok(()) => first = false,
                Err(status) => {
                    out.truncate(before);
                    tracing::error!(%status, key = entry.key(), "left out of a list");
                }
            }
        };
        let mut ended = true;
        match &mut self.source {
            Source::Entries(entries) => {
                while let Some(entry) = entries.as_slice().first() {
                    if out.len() >= CHUNK {
                        ended = false;
                        break;
                    }
                    put(&mut out, entry);
                    entries.next();
                }
            }
            Source::Snapshot { snapshot, selector, next } => {
                let mut resume = None;
                for entry in snapshot.scan(selector, next.as_deref()) {
                    if out.len() >= CHUNK {
                        resume = Some(entry.key().to_owned());
                        ended = false;
                        break;
                    }
                    put(&mut out, entry);
                }
                *next = resume;
            }
        }
        self.first = first;
        if ended {
            out.put_slice(b"]}\n");
            self.source = Source::Entries(Vec::new().into_iter());
            self.first = true;
        }
        Some(out.freeze())
    }
}
