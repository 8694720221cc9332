//! The OpenAPI documents: `/openapi/v2`, `/openapi/v3` and what its index names.
//!
//! A document is made when it is first asked for, on a thread for such work and one at a time, and kept compressed, as
//! most clients want it: some tens of kilobytes, where the text has up to megabytes. Nothing is made for who doesn't ask.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, BufWriter, Read, Write};
use std::sync::Arc;

use api::openapi;
use api::resource::Table;
use api::status::Status;
use bytes::Bytes;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use http::header::{
    ACCEPT, ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, ETAG, HeaderName, HeaderValue, IF_NONE_MATCH,
    LOCATION, VARY,
};
use http::request::Parts;
use http::{Response, StatusCode};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use tokio::sync::Mutex;

use crate::discovery::{GIT_VERSION, only_get};
use crate::routes::RouteRequest;
use crate::server::Server;
use crate::{Body, respond};

/// The media type under which older clients ask for the document of version 2.
const GNOSTIC: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

/// The documents that were asked for.
#[derive(Debug, Default)]
pub(crate) struct Documents(Mutex<Made>);

#[derive(Debug, Default)]
struct Made {
    /// What they were made from.
    table: Option<Arc<Table>>,
    documents: HashMap<Which, Document>,
    /// The hashes of the index of version 3, by path.
    hashes: Option<Arc<BTreeMap<String, String>>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Which {
    V2,
    V2Protobuf,
    V3(String),
}

#[derive(Clone, Debug)]
struct Document {
    /// Tells its content from any other.
    hash: String,
    compressed: Bytes,
}

impl Made {
    /// Forgets what was made from another table.
    fn renew(&mut self, table: &Arc<Table>) {
        if !self.table.as_ref().is_some_and(|known| Arc::ptr_eq(known, table)) {
            *self = Self { table: Some(table.clone()), ..Self::default() };
        }
    }
}

impl Documents {
    /// A document; none if there is no such group version.
    async fn get(&self, server: &Server, which: Which) -> Result<Option<Document>, Status> {
        let table = server.registry.table();
        let mut made = self.0.lock().await;
        made.renew(&table);
        if let Some(document) = made.documents.get(&which) {
            return Ok(Some(document.clone()));
        }
        let wanted = which.clone();
        let Some(document) = server.tasks.blocking(move || make(&table, &wanted)).await? else {
            return Ok(None);
        };
        made.documents.insert(which, document.clone());
        Ok(Some(document))
    }

    /// The hashes of all documents of version 3, by path.
    async fn hashes(&self, server: &Server) -> Result<Arc<BTreeMap<String, String>>, Status> {
        let table = server.registry.table();
        let mut made = self.0.lock().await;
        made.renew(&table);
        if let Some(hashes) = &made.hashes {
            return Ok(hashes.clone());
        }
        let hashes = Arc::new(server.tasks.blocking(move || hash_all(&table)).await?);
        made.hashes = Some(hashes.clone());
        Ok(hashes)
    }
}

fn make(table: &Table, which: &Which) -> Result<Option<Document>, Status> {
    let document = match which {
        Which::V2 | Which::V2Protobuf => openapi::v2(table, GIT_VERSION),
        Which::V3(path) => match openapi::v3(table, path, GIT_VERSION) {
            Some(document) => document,
            None => return Ok(None),
        },
    };
    let hashed = written(GzEncoder::new(Vec::new(), Compression::default()), |out| match which {
        Which::V2Protobuf => out.write_all(&document.protobuf()),
        _ => document.json(out),
    })?;
    let mut compressed = hashed.to.finish().map_err(Status::internal)?;
    compressed.shrink_to_fit();
    Ok(Some(Document { hash: hex(hashed.hash), compressed: compressed.into() }))
}

fn hash_all(table: &Table) -> Result<BTreeMap<String, String>, Status> {
    let mut hashes = BTreeMap::new();
    for path in openapi::v3_paths(table) {
        if let Some(document) = openapi::v3(table, &path, GIT_VERSION) {
            hashes.insert(path, hex(written(io::sink(), |out| document.json(out))?.hash));
        }
    }
    Ok(hashes)
}

/// Writes and hashes. The pieces that a document is written in are a few bytes long: they are collected.
fn written<W: Write>(
    to: W,
    write: impl FnOnce(&mut BufWriter<Hashed<W>>) -> io::Result<()>,
) -> Result<Hashed<W>, Status> {
    let mut out = BufWriter::new(Hashed { hash: Sha256::new(), to });
    write(&mut out).map_err(Status::internal)?;
    out.into_inner().map_err(|failed| Status::internal(failed.into_error()))
}

/// Passes on what is written, and hashes it.
struct Hashed<W> {
    hash: Sha256,
    to: W,
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.to.write(bytes)?;
        self.hash.update(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

fn hex(hash: Sha256) -> String {
    hash.finalize().iter().map(|byte| format!("{byte:02X}")).collect()
}

/// GET /openapi/v2
pub async fn v2(request: RouteRequest<'_>) -> Result<Response<Body>, Status> {
    only_get(request.parts)?;
    let protobuf = clauses(request.parts, ACCEPT).find_map(|clause| {
        // Older clients write an at sign, which newer parsers of media types refuse.
        match clause {
            "application/json" | "*/*" => Some(false),
            _ => (clause.replace("v2@v1", "v2.v1") == GNOSTIC).then_some(true),
        }
    });
    let (media, which) = match protobuf {
        Some(true) => (GNOSTIC, Which::V2Protobuf),
        _ => ("application/json", Which::V2),
    };
    let document = request.server.documents.get(request.server, which).await?;
    answer(request.parts, media, &document.ok_or_else(Status::unknown_path)?)
}

/// GET /openapi/v3 and what its index names
pub async fn v3(request: RouteRequest<'_>) -> Result<Response<Body>, Status> {
    only_get(request.parts)?;
    let documents = &request.server.documents;
    let path = request.info.path.trim_start_matches("/openapi/v3").trim_matches('/');
    let at = |path: &str, hash: &str| format!("/openapi/v3/{path}?hash={hash}");
    if path.is_empty() {
        let hashes = documents.hashes(request.server).await?;
        let paths: Map<String, Value> = hashes
            .iter()
            .map(|(path, hash)| (path.clone(), json!({"serverRelativeURL": at(path, hash)})))
            .collect();
        return Ok(respond::json(&json!({"paths": paths})));
    }
    let document = documents.get(request.server, Which::V3(path.to_owned())).await?;
    let document = document.ok_or_else(Status::unknown_path)?;
    let query = request.parts.uri.query().unwrap_or_default();
    let Some(wanted) = query.split('&').find_map(|part| part.strip_prefix("hash=")) else {
        return answer(request.parts, "application/json", &document);
    };
    if wanted != document.hash {
        let mut response = respond::with(StatusCode::MOVED_PERMANENTLY, "text/plain", Body::empty());
        let to = HeaderValue::from_str(&at(path, &document.hash)).map_err(Status::internal)?;
        response.headers_mut().insert(LOCATION, to);
        return Ok(response);
    }
    // Who asks with the hash asks for this very content: it can be kept for good.
    let mut response = answer(request.parts, "application/json", &document)?;
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("public, immutable"));
    Ok(response)
}

/// The items of a header that is a list, without their parameters.
fn clauses(parts: &Parts, header: HeaderName) -> impl Iterator<Item = &str> {
    let values = parts.headers.get_all(header).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(|item| item.split(';').next().unwrap_or_default().trim())
}

/// The document as the client can take it, or that it has it already.
fn answer(parts: &Parts, media: &'static str, document: &Document) -> Result<Response<Body>, Status> {
    let tag = format!("\"{}\"", document.hash);
    let known = clauses(parts, IF_NONE_MATCH).any(|known| known.trim_start_matches("W/") == tag);
    let mut response = if known {
        respond::with(StatusCode::NOT_MODIFIED, media, Body::empty())
    } else if clauses(parts, ACCEPT_ENCODING).any(|encoding| encoding == "gzip") {
        let mut response = respond::with(StatusCode::OK, media, document.compressed.clone());
        response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        response
    } else {
        let mut text = Vec::new();
        GzDecoder::new(&document.compressed[..]).read_to_end(&mut text).map_err(Status::internal)?;
        respond::with(StatusCode::OK, media, text)
    };
    let headers = response.headers_mut();
    headers.insert(ETAG, HeaderValue::from_str(&tag).map_err(Status::internal)?);
    headers.insert(VARY, HeaderValue::from_static("Accept, Accept-Encoding"));
    Ok(response)
}
