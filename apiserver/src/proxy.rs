//! Requests that go on to a pod, a service or a node: every method, path and query as they are, and upgrades.
//!
//! As with node agents every request gets a connection of its own, and the client's credentials stay here. An answer
//! is changed only where it speaks of places: links and redirects lead through the proxy.

mod headers;
mod html;
mod location;
mod path;
mod rewrite;

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use api::resource::Resource;
use api::status::{Reason, Status};
use bytes::{Bytes, BytesMut};
use flate2::Compression;
use http::header::{
    CACHE_CONTROL, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderValue, LOCATION,
};
use http::request::Parts;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use rustls_pki_types::ServerName;
use tokio_rustls::TlsConnector;
use tracing::debug;

use crate::admission::{AdmissionContext, Operation};
use crate::agents::{self, Sender, connected, dial, passed_on};
use crate::body::{BoxError, RequestBody, boxed};
use crate::context::Context;
use crate::pki;
use crate::registry::fresh_failure;
use crate::server::Server;
use crate::{Body, RequestInfo, respond};

use location::{Target, Way};
use path::Paths;
use rewrite::Rewriter;

/// How long a backend may take to accept a connection.
const DIALING: Duration = Duration::from_secs(30);
/// Pages larger than this keep their links.
const MOST_HTML: usize = 4 << 20;

/// Answers with what the backend answers.
pub(crate) async fn answer(
    server: &Arc<Server>,
    context: &Context<'_>,
    row: &Arc<Resource>,
    parts: &Parts,
    body: RequestBody,
    client: Option<OnUpgrade>,
) -> Result<Response<Body>, Status> {
    let info = context.info;
    let methods = [
        Method::GET,
        Method::HEAD,
        Method::POST,
        Method::PUT,
        Method::PATCH,
        Method::DELETE,
        Method::OPTIONS,
    ];
    if !methods.contains(&parts.method) {
        return Err(Status::method_not_allowed());
    }
    server.registry.caches.fresh().await.map_err(fresh_failure)?;
    let admission = AdmissionContext {
        user: context.user,
        operation: Operation::Connect,
        resource: row,
        subresource: &info.subresource,
        namespace: &info.namespace,
        name: info.name.clone(),
        dry_run: false,
        warnings: context.warnings,
    };
    server.admission.validate(&admission, None, None)?;
    let target = location::find(server, context, row)?;
    let paths = Paths::of(info, parts.uri.path());
    let remote = context.connection.remote.map(|remote| remote.ip());
    let wants_upgrade = headers::wants_upgrade(&parts.headers);
    if let Some(client) = client.filter(|_| wants_upgrade) {
        return upgraded(server, context, &target, &paths, parts, client).await;
    }
    let query = parts.uri.query();
    if paths.inner.is_empty() && matches!(parts.method, Method::GET | Method::HEAD) {
        return Ok(redirect(&paths, query));
    }
    let host = headers::host(parts);
    let mut request = Request::new(body);
    *request.method_mut() = parts.method.clone();
    *request.uri_mut() = uri(&paths, query)?;
    *request.headers_mut() = headers::for_backend(&parts.headers, remote);
    headers::set(request.headers_mut(), HOST, &host);
    headers::set(request.headers_mut(), headers::FORWARDED_URI, &paths.outer());
    let unreachable =
        |why: String| Status::service_unavailable(format!("error trying to reach service: {why}"));
    let mut sender = connect(server, &target).await.map_err(unreachable)?;
    let answer = sender.send_request(request).await.map_err(|error| unreachable(error.to_string()))?;
    let rewriter = Rewriter { prefix: &paths.prefix, source_host: &target.host(), request_host: &host };
    Ok(returned(answer, &parts.method, &rewriter).await)
}

/// Cuts a path as a request for a proxy has it. For fuzz targets.
pub(crate) fn read_path(info: &RequestInfo, path: &str) {
    let _ = uri(&Paths::of(info, path), None);
}

/// Reads the headers of a request for a backend, and those of its answer. For fuzz targets.
pub(crate) fn read_headers(all: &HeaderMap) {
    let _ = (headers::wants_upgrade(all), headers::for_backend(all, None), headers::for_upgrade(all, None));
    let _ = (headers::for_client(all.clone()), is_html(all));
}

/// Rewrites a page of a backend. For fuzz targets.
pub(crate) fn read_page(page: &[u8]) {
    let rewriter = Rewriter { prefix: "/p", source_host: "host:80", request_host: "api" };
    let _ = html::rewrite(page, |url| rewriter.url(url));
}

fn uri(paths: &Paths, query: Option<&str>) -> Result<http::Uri, Status> {
    let path = if paths.inner.is_empty() { "/" } else { &paths.inner };
    let whole = query.map_or_else(|| path.to_owned(), |query| format!("{path}?{query}"));
    whole.parse().map_err(|error| Status::bad_request(format!("{whole}: {error}")))
}

/// Sends the client to where relative links lead to the backend.
fn redirect(paths: &Paths, query: Option<&str>) -> Response<Body> {
    let query = query.filter(|query| !query.is_empty()).map_or_else(String::new, |query| format!("?{query}"));
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
    headers::set(response.headers_mut(), LOCATION, &format!("{}/{query}", paths.prefix));
    response
}

/// A connection to the backend.
async fn connect(server: &Server, target: &Target) -> Result<Sender, String> {
    let address = target.address;
    let connecting = async {
        match target.way {
            Way::Agent => server.agents.connect(server, address, false).await,
            Way::Http => connected(server, dial(address).await?).await,
            Way::Https => connected(server, encrypted(address).await?).await,
        }
    };
    let connected = tokio::time::timeout(DIALING, connecting).await;
    connected.unwrap_or_else(|_| Err(format!("dial tcp {address}: i/o timeout")))
}

async fn encrypted(
    address: SocketAddr,
) -> Result<tokio_rustls::client::TlsStream<tokio::net::TcpStream>, String> {
    let config = pki::tls::unverified_client(None).map_err(|error| error.to_string())?;
    let name = ServerName::IpAddress(address.ip().into());
    let stream = dial(address).await?;
    TlsConnector::from(Arc::new(config)).connect(name, stream).await.map_err(|error| format!("tls: {error}"))
}

/// A request that is to become something else than HTTP.
async fn upgraded(
    server: &Arc<Server>,
    context: &Context<'_>,
    target: &Target,
    paths: &Paths,
    parts: &Parts,
    client: OnUpgrade,
) -> Result<Response<Body>, Status> {
    let failed = |why: String| Status::failure(500, Reason::Unknown, why);
    let remote = context.connection.remote.map(|remote| remote.ip());
    let mut request = Request::new(boxed(Empty::<Bytes>::new()));
    *request.method_mut() = parts.method.clone();
    *request.uri_mut() = uri(paths, parts.uri.query())?;
    *request.headers_mut() = headers::for_upgrade(&parts.headers, remote);
    headers::set(request.headers_mut(), HOST, &headers::host(parts));
    let dialed = connect(server, target).await;
    let mut sender = dialed.map_err(|why| failed(format!("error dialing backend: {why}")))?;
    let answer = sender.send_request(request).await;
    let mut answer = answer.map_err(|error| failed(format!("error sending request: {error}")))?;
    let code = answer.status();
    if code == StatusCode::SWITCHING_PROTOCOLS {
        let backend = hyper::upgrade::on(&mut answer);
        agents::spawn(server, context, agents::copy(client, backend));
        return Ok(agents::switching(std::mem::take(answer.headers_mut())));
    }
    if code.as_u16() < 400 {
        return Err(failed(format!("invalid upgrade response: status code {}", code.as_u16())));
    }
    // The client may take what comes next on this connection for the other protocol: nothing comes.
    let (parts, body) = answer.into_parts();
    let mut response = Response::new(passed_on(body));
    *response.status_mut() = code;
    *response.headers_mut() = headers::for_client(parts.headers);
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    Ok(response)
}

/// The backend's answer, as the client gets it.
async fn returned(answer: Response<Incoming>, method: &Method, rewriter: &Rewriter<'_>) -> Response<Body> {
    let (parts, body) = answer.into_parts();
    let mut headers = headers::for_client(parts.headers);
    let location = headers.get(LOCATION).and_then(|location| location.to_str().ok()).map(str::to_owned);
    let mut body = match location {
        Some(location) => {
            headers::set(&mut headers, LOCATION, &rewriter.url(&location));
            passed_on(body)
        }
        None if *method != Method::HEAD && is_html(&headers) => linked(&mut headers, body, rewriter).await,
        None => passed_on(body),
    };
    if *method == Method::HEAD {
        body = Body::empty();
    }
    // What every answer of the API has, whatever the backend says.
    let mut all = std::mem::take(respond::text(StatusCode::OK, "").headers_mut());
    all.remove(CONTENT_TYPE);
    debug_assert!(all.contains_key(CACHE_CONTROL));
    for (name, value) in &headers {
        all.append(name, value.clone());
    }
    let mut response = Response::new(body);
    *response.status_mut() = parts.status;
    *response.headers_mut() = all;
    response
}

fn is_html(headers: &HeaderMap) -> bool {
    let media = headers.get(CONTENT_TYPE).and_then(|media| media.to_str().ok()).unwrap_or_default();
    media.split(';').next().is_some_and(|media| media.trim() == "text/html")
}

/// A page with its links led through the proxy. One that is too large, or packed in a way that is not known here, is
/// passed on as it is.
async fn linked(headers: &mut HeaderMap, mut body: Incoming, rewriter: &Rewriter<'_>) -> Body {
    let encoding = headers.get(CONTENT_ENCODING).map(|encoding| encoding.as_bytes().to_vec());
    let is_packed = match encoding.as_deref() {
        None | Some(b"") => false,
        Some(b"gzip") => true,
        Some(_) => return passed_on(body),
    };
    let mut page = BytesMut::new();
    while let Some(frame) = body.frame().await {
        match frame.map(|frame| frame.into_data()) {
            Ok(Ok(data)) => page.extend_from_slice(&data),
            Ok(Err(_)) => {}
            Err(error) => return broken(page.freeze(), error.into()),
        }
        if page.len() > MOST_HTML {
            let rest = passed_on(body);
            return joined(page.freeze(), rest);
        }
    }
    let page = page.freeze();
    let rewritten = if is_packed {
        unpacked(&page).and_then(|plain| packed(&html::rewrite(&plain, |url| rewriter.url(url))))
    } else {
        Some(html::rewrite(&page, |url| rewriter.url(url)))
    };
    let page = rewritten.map_or(page, Bytes::from);
    headers.insert(CONTENT_LENGTH, HeaderValue::from(page.len()));
    Body::from(page)
}

/// The page, unless it is no gzip or too large.
fn unpacked(page: &[u8]) -> Option<Vec<u8>> {
    let mut plain = Vec::new();
    let limit = MOST_HTML as u64 + 1;
    let read = flate2::read::GzDecoder::new(page).take(limit).read_to_end(&mut plain);
    if let Err(error) = &read {
        debug!(%error, "a page that is not gzip, as it says it is");
    }
    read.is_ok_and(|length| length <= MOST_HTML).then_some(plain)
}

fn packed(plain: &[u8]) -> Option<Vec<u8>> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(plain).ok()?;
    encoder.finish().ok()
}

/// What was read, and then the rest.
fn joined(read: Bytes, rest: Body) -> Body {
    let Body::Fallible(rest) = rest else { return Body::from(read) };
    let first = futures::stream::once(async move { Ok(read) });
    Body::Fallible(Box::pin(futures::StreamExt::chain(first, rest)))
}

/// What was read, and then the error that ended it.
fn broken(read: Bytes, error: BoxError) -> Body {
    let parts = [Ok(read), Err(error)];
    Body::Fallible(Box::pin(futures::stream::iter(parts)))
}
