//! One HTTP request to a pod, as probes and hooks make it: no reuse of connections, no check of certificates
//! (a pod's certificate is made for its clients' names for it, not for its address), bounded answers.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::future::{Either, select};
use http::{HeaderName, HeaderValue, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::HTTPHeader;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// Of an answer's body, this much is kept for messages.
const BODY_LIMIT: usize = 10 * 1024;
const REDIRECTS: usize = 10;

/// Where and how to ask.
#[derive(Clone, Debug)]
pub(crate) struct Get<'a> {
    pub(crate) scheme: &'a str,
    pub(crate) host: &'a str,
    pub(crate) port: u16,
    pub(crate) path: &'a str,
    pub(crate) headers: &'a [HTTPHeader],
    pub(crate) user_agent: &'a str,
    pub(crate) timeout: Duration,
}

/// An answer, with the beginning of its body.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) body: String,
    /// The answer points to another host, which is not followed.
    pub(crate) redirect: Option<String>,
}

impl Get<'_> {
    /// `scheme://host:port/path`.
    pub(crate) fn url(&self) -> String {
        let slash = if self.path.starts_with('/') { "" } else { "/" };
        let authority = authority(self.host, self.port);
        format!("{}://{authority}{slash}{}", self.scheme.to_ascii_lowercase(), self.path)
    }

    /// Asks, following redirects on the same host. Errors are in Go's words.
    pub(crate) async fn send(&self) -> Result<Answer, String> {
        let url = self.url();
        let failed = |why: String| format!("Get \"{url}\": {why}");
        match tokio::time::timeout(self.timeout, self.follow(&url)).await {
            Ok(answer) => answer.map_err(failed),
            Err(_) => Err(failed(
                "context deadline exceeded (Client.Timeout exceeded while awaiting headers)".to_owned(),
            )),
        }
    }

    async fn follow(&self, url: &str) -> Result<Answer, String> {
        let mut target: Uri = url.parse().map_err(|error| format!("{error}"))?;
        for _ in 0..=REDIRECTS {
            let (answer, location) = self.once(&target).await?;
            let Some(location) = location.filter(|_| answer.status.is_redirection()) else {
                return Ok(answer);
            };
            let next = resolve(&target, &location)?;
            if next.host() != target.host() {
                return Ok(Answer { redirect: Some(answer.body.clone()), ..answer });
            }
            target = next;
        }
        Err("stopped after 10 redirects".to_owned())
    }

    async fn once(&self, target: &Uri) -> Result<(Answer, Option<String>), String> {
        let secure = target.scheme_str() == Some("https");
        let host = target.host().unwrap_or_default().trim_matches(['[', ']']);
        let port = target.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let stream = dial(host, port).await?;
        let request = self.request(target)?;
        if secure {
            let name = ServerName::try_from(host.to_owned()).map_err(|error| error.to_string())?;
            let tls = base::tls::any_peer().map_err(|error| error.to_string())?.with_no_client_auth();
            let connector = tokio_rustls::TlsConnector::from(Arc::new(tls));
            let stream = connector.connect(name, stream).await.map_err(|error| error.to_string())?;
            exchange(stream, request).await
        } else {
            exchange(stream, request).await
        }
    }

    fn request(&self, target: &Uri) -> Result<Request<Empty<Bytes>>, String> {
        let path = target.path_and_query().map_or("/", |path| path.as_str());
        let mut request = Request::get(path).body(Empty::new()).map_err(|error| error.to_string())?;
        let headers = request.headers_mut();
        let value = |text: &str| HeaderValue::from_str(text).map_err(|error| error.to_string());
        headers.insert(header::USER_AGENT, value(self.user_agent)?);
        headers.insert(header::ACCEPT, HeaderValue::from_static("*/*"));
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        headers.insert(header::HOST, value(target.authority().map_or("", |authority| authority.as_str()))?);
        for custom in self.headers {
            let name = HeaderName::from_bytes(custom.name.as_bytes()).map_err(|error| error.to_string())?;
            if custom.value.is_empty() && (name == header::ACCEPT || name == header::USER_AGENT) {
                headers.remove(name);
            } else {
                headers.insert(name, value(&custom.value)?);
            }
        }
        Ok(request)
    }
}

/// Opens a TCP connection. Errors are in Go's words.
pub(crate) async fn dial(host: &str, port: u16) -> Result<TcpStream, String> {
    let address = authority(host, port);
    TcpStream::connect((host, port)).await.map_err(|error| {
        let text = error.to_string();
        let text = text.split(" (os error").next().unwrap_or_default().to_ascii_lowercase();
        format!("dial tcp {address}: connect: {text}")
    })
}

/// Host and port in one text, IPv6 in brackets.
pub(crate) fn authority(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Empty<Bytes>>,
) -> Result<(Answer, Option<String>), String> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| error.to_string())?;
    let talk = Box::pin(async move {
        let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
        let location = response.headers().get(header::LOCATION);
        let location = location.and_then(|value| value.to_str().ok()).map(str::to_owned);
        let status = response.status();
        let mut body = response.into_body();
        let mut kept = BytesMut::new();
        while kept.len() < BODY_LIMIT
            && let Some(frame) = body.frame().await
        {
            let Ok(frame) = frame else { break };
            if let Some(data) = frame.data_ref() {
                kept.extend_from_slice(&data[..data.len().min(BODY_LIMIT - kept.len())]);
            }
        }
        let body = String::from_utf8_lossy(&kept).into_owned();
        Ok((Answer { status, body, redirect: None }, location))
    });
    match select(talk, Box::pin(connection)).await {
        Either::Left((answer, _)) => answer,
        Either::Right((_, talk)) => talk.await,
    }
}

fn resolve(base: &Uri, location: &str) -> Result<Uri, String> {
    let absolute = if location.contains("://") {
        location.to_owned()
    } else {
        let scheme = base.scheme_str().unwrap_or("http");
        let authority = base.authority().map_or("", |authority| authority.as_str());
        if location.starts_with('/') {
            format!("{scheme}://{authority}{location}")
        } else {
            let directory = base.path().rsplit_once('/').map_or("", |(directory, _)| directory);
            format!("{scheme}://{authority}{directory}/{location}")
        }
    };
    absolute.parse().map_err(|error| format!("failed to parse Location header \"{location}\": {error}"))
}
