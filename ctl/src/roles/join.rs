//! How a machine joins: it learns the cluster's authority, proves it with the token, and gets its certificates.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use apiserver::join::{JoinRequest, JoinResponse};
use apiserver::pki::join_token::JoinToken;
use apiserver::pki::{self, Profile};
use base::Clock;
use bytes::Bytes;
use http::{Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::Failure;
use crate::failure::Because;

const PATIENCE: Duration = Duration::from_secs(10);
const MOST: usize = 1024 * 1024;

/// What a joined machine keeps, in one file that only root can read.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Membership {
    pub(crate) server: String,
    pub(crate) node_name: String,
    pub(crate) node_ip: IpAddr,
    pub(crate) client_key: String,
    pub(crate) serving_key: String,
    pub(crate) granted: JoinResponse,
}

impl Membership {
    fn path(dir: &Path) -> PathBuf {
        dir.join("membership.json")
    }

    /// What an earlier join left.
    pub(crate) fn load(dir: &Path) -> Result<Option<Self>, Failure> {
        let path = Self::path(dir);
        match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map(Some).because(path.display()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Failure::new(format!("{}: {error}", path.display()))),
        }
    }

    /// False when the certificates are near their end: it is time to renew them.
    pub(crate) fn is_fresh(&self) -> bool {
        pki::is_fresh(&self.granted.client_certificate, Clock::system().now())
    }

    fn store(&self, dir: &Path) -> Result<(), Failure> {
        let path = Self::path(dir);
        let value = serde_json::to_value(self).because(path.display())?;
        // JSON is YAML, and the file holds keys as a kubeconfig does.
        crate::kubeconfig::write_private(&path, value.to_string().as_bytes())
    }
}

/// Joins the cluster at `server` with a token.
pub(crate) async fn join(
    dir: &Path,
    server: &str,
    token: &JoinToken,
    node_name: &str,
    node_ip: IpAddr,
) -> Result<Membership, Failure> {
    let uri: Uri = server.parse().because(format!("--server {server}"))?;
    // Whoever answers may give the authority's certificate: the token proves it, or does not.
    let open = base::tls::any_peer().because("TLS")?.with_no_client_auth();
    let authority = exchange(&uri, open, Method::GET, "/skiff/ca", None, Bytes::new()).await?;
    let authority = String::from_utf8(authority).because(format!("{server}/skiff/ca"))?;
    if !token.verify(&authority) {
        return Err(Failure::new(format!(
            "{server} is not the cluster that the token was made for: check --server, or get a token there with `skiff token create`"
        )));
    }
    let trusted = pki::tls::client(&authority, None).because("TLS")?;
    obtain(dir, server, trusted, Some(token.bearer()), node_name, node_ip).await
}

/// Gets new certificates by the right of those that the node has: they are old, or the node or the server has
/// another address now.
pub(crate) async fn renew(
    dir: &Path,
    server: &str,
    known: &Membership,
    node_ip: IpAddr,
) -> Result<Membership, Failure> {
    let own = (known.granted.client_certificate.as_str(), known.client_key.as_str());
    let trusted = pki::tls::client(&known.granted.ca, Some(own)).because("TLS")?;
    obtain(dir, server, trusted, None, &known.node_name, node_ip).await
}

/// Makes keys, has the server sign certificates for them, and keeps both.
async fn obtain(
    dir: &Path,
    server: &str,
    trusted: rustls::ClientConfig,
    bearer: Option<String>,
    node_name: &str,
    node_ip: IpAddr,
) -> Result<Membership, Failure> {
    let uri: Uri = server.parse().because(format!("--server {server}"))?;
    let request = |profile: &Profile| pki::signing_request(profile).because("certificate signing request");
    let name = format!("system:node:{node_name}");
    let (client_csr, client_key) = request(&Profile::client(&name, &["system:nodes"]))?;
    let names = vec![node_name.to_owned(), node_ip.to_string()];
    let (serving_csr, serving_key) = request(&Profile::server(&name, &["system:nodes"], names))?;
    let wanted =
        JoinRequest { node_name: node_name.to_owned(), addresses: vec![node_ip], client_csr, serving_csr };
    let body = serde_json::to_vec(&wanted).because("join request")?;
    let answer = exchange(&uri, trusted, Method::POST, "/skiff/join", bearer, body.into()).await?;
    let granted: JoinResponse = serde_json::from_slice(&answer).because(format!("{server}/skiff/join"))?;
    let membership = Membership {
        server: server.to_owned(),
        node_name: node_name.to_owned(),
        node_ip,
        client_key,
        serving_key,
        granted,
    };
    membership.store(dir)?;
    Ok(membership)
}

/// One request on a connection of its own.
async fn exchange(
    server: &Uri,
    tls: rustls::ClientConfig,
    method: Method,
    path: &str,
    bearer: Option<String>,
    body: Bytes,
) -> Result<Vec<u8>, Failure> {
    let what = format!("{}{path}", server.to_string().trim_end_matches('/'));
    let (Some("https"), Some(host)) = (server.scheme_str(), server.host()) else {
        return Err(Failure::usage(format!("--server must look like https://HOST:6443, not {server}")));
    };
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let port = server.port_u16().unwrap_or(6443);
    let about = what.clone();
    let work = async {
        let stream = TcpStream::connect((host.as_str(), port)).await.because(&about)?;
        let name = ServerName::try_from(host.clone()).because(&about)?;
        let stream = TlsConnector::from(Arc::new(tls)).connect(name, stream).await.because(&about)?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.because(&about)?;
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(http::header::HOST, format!("{host}:{port}"))
            .header(http::header::CONTENT_TYPE, "application/json");
        let by_token = bearer.is_some();
        if let Some(bearer) = bearer {
            request = request.header(http::header::AUTHORIZATION, format!("Bearer {bearer}"));
        }
        let request = request.body(Full::new(body)).because(&about)?;
        let exchange = async {
            let answer = sender.send_request(request).await.because(&about)?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), MOST).collect().await.because(&about)?.to_bytes();
            if status.is_success() {
                return Ok(body.to_vec());
            }
            if by_token && status == StatusCode::UNAUTHORIZED {
                let server = server.to_string();
                return Err(Failure::new(format!(
                    "the token is not known to {}, or it has expired: get another with `skiff token create` there",
                    server.trim_end_matches('/')
                )));
            }
            let said: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
            let said = said["message"].as_str().unwrap_or_default();
            Err(Failure::new(format!("{what}: {status}: {said}")))
        };
        tokio::pin!(connection);
        tokio::select! {
            answer = exchange => answer,
            ended = &mut connection => Err(Failure::new(match ended {
                Ok(()) => format!("{what}: the server closed the connection"),
                Err(error) => format!("{what}: {error}"),
            })),
        }
    };
    match tokio::time::timeout(PATIENCE, work).await {
        Ok(result) => result,
        Err(_) => Err(Failure::new(format!("{what}: no answer within {} s", PATIENCE.as_secs()))),
    }
}
