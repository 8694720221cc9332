//! The connection to a cluster: found by kubeconfig, opened once per command.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use client::kube::client::Body;
use client::kube::config::{KubeConfigOptions, Kubeconfig};
use client::kube::{self, Client, Config};
use http::header::{ACCEPT, CONNECTION, CONTENT_TYPE, HeaderName, HeaderValue, UPGRADE, USER_AGENT};
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use serde_json::Value;
use tokio::sync::OnceCell;

use super::call::{ApiError, Call, Refusal};
use super::mapping::Mapping;
use crate::Failure;
use crate::commands::Global;
use crate::failure::{Because, first_line};

/// The start of it names the manager of what is written without another name.
const AGENT: &str = concat!("skiff/", env!("CARGO_PKG_VERSION"));
/// Where `skiff up` leaves the administrator's kubeconfig.
const ADMIN: &str = "/var/lib/skiff/admin.kubeconfig";

/// An open connection, with the namespace that is meant when none is named.
/// An open connection.
pub(crate) struct Session {
    client: Client,
    /// `host:port`, for messages.
    server: String,
    identity: Vec<(HeaderName, HeaderValue)>,
    timeout: Duration,
    namespace: String,
    /// Whether the namespace was named on the command line.
    explicit_namespace: bool,
    pub(super) discovered: OnceCell<Vec<Mapping>>,
}

/// The kubeconfig files to read, strongest first.
pub(crate) fn kubeconfig_files(global: &Global) -> Vec<PathBuf> {
    if let Some(path) = &global.kubeconfig {
        return vec![path.clone()];
    }
    if let Some(list) = std::env::var_os("KUBECONFIG").filter(|list| !list.is_empty()) {
        return std::env::split_paths(&list).filter(|path| !path.as_os_str().is_empty()).collect();
    }
    let own = crate::kubeconfig::user_file().filter(|path| path.is_file());
    vec![own.unwrap_or_else(|| PathBuf::from(ADMIN))]
}

fn load(global: &Global) -> Result<Kubeconfig, Failure> {
    let files = kubeconfig_files(global);
    let mut merged: Option<Kubeconfig> = None;
    for file in &files {
        let text = match std::fs::metadata(file) {
            Ok(_) => Kubeconfig::read_from(file)
                .map_err(first_line)
                .because(format!("error: kubeconfig {}", file.display()))?,
            Err(error) if error.kind() == ErrorKind::NotFound && global.kubeconfig.is_none() => continue,
            Err(error) => return Err(Failure::new(format!("error: kubeconfig {}: {error}", file.display()))),
        };
        merged = Some(match merged {
            None => text,
            Some(earlier) => earlier.merge(text).because("error: kubeconfig")?,
        });
    }
    merged.ok_or_else(|| {
        let looked: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
        Failure::new(format!(
            "error: no kubeconfig found ({}): is the cluster running? start it with `skiff up`",
            looked.join(", ")
        ))
    })
}

impl Session {
    /// Reads the kubeconfig and makes a client. Nothing is sent yet.
    pub(crate) async fn open(global: &Global) -> Result<Self, Failure> {
        let in_cluster = global.kubeconfig.is_none()
            && std::env::var_os("KUBERNETES_SERVICE_HOST").is_some()
            && !kubeconfig_files(global).iter().any(|file| Path::exists(file));
        let mut config = if in_cluster {
            Config::incluster().because("error: in-cluster configuration")?
        } else {
            let options =
                KubeConfigOptions { context: global.context.clone(), ..KubeConfigOptions::default() };
            Config::from_custom_kubeconfig(load(global)?, &options).await.because("error: kubeconfig")?
        };
        if let Some(server) = &global.server {
            config.cluster_url = server.parse().because(format!("error: --server {server}"))?;
        }
        let server = config.cluster_url.authority().map(ToString::to_string).unwrap_or_default();
        let identity = identity(global, &config)?;
        let namespace = global.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
        let client = client::connect::over_tls(config).because("error")?;
        Ok(Self {
            client,
            server,
            identity,
            timeout: global.request_timeout,
            namespace,
            explicit_namespace: global.namespace.is_some(),
            discovered: OnceCell::new(),
        })
    }

    /// The namespace meant when an object names none.
    pub(crate) fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The namespace that was named on the command line, if one was.
    pub(crate) fn explicit_namespace(&self) -> Option<&str> {
        self.explicit_namespace.then_some(self.namespace.as_str())
    }

    pub(crate) fn server(&self) -> &str {
        &self.server
    }

    fn request<B>(&self, call: Call, body: impl FnOnce(Vec<u8>) -> B) -> Result<Request<B>, ApiError> {
        let mut request = Request::builder().method(call.method.clone()).uri(call.target());
        request = request.header(ACCEPT, call.accept).header(USER_AGENT, AGENT);
        if !call.body.is_empty() {
            request = request.header(CONTENT_TYPE, call.content_type);
        }
        for (name, value) in &self.identity {
            request = request.header(name, value);
        }
        request.body(body(call.body)).map_err(|error| ApiError::Broken(format!("request: {error}")))
    }

    /// Sends a request; an answer that isn't success is an error. Warnings of the server go to stderr.
    pub(crate) async fn send(&self, call: Call) -> Result<Response<Body>, ApiError> {
        let request = self.request(call, Body::from)?;
        let sending = self.client.send(request);
        let response = if self.timeout.is_zero() {
            sending.await
        } else {
            tokio::time::timeout(self.timeout, sending).await.map_err(|_| {
                ApiError::Unreachable(format!("no answer within {:?} (--request-timeout)", self.timeout))
            })?
        };
        let response = response.map_err(|error| self.unreachable(error))?;
        for warning in response.headers().get_all(http::header::WARNING) {
            if let Some(text) = warning.to_str().ok().and_then(warning_text) {
                eprintln!("Warning: {text}");
            }
        }
        if response.status().is_success() {
            return Ok(response);
        }
        let code = response.status().as_u16();
        let body = self.bytes(response).await?;
        Err(ApiError::Refused(Box::new(Refusal::read(code, &body))))
    }

    pub(crate) async fn bytes(&self, response: Response<Body>) -> Result<Bytes, ApiError> {
        let collected = response.into_body().collect().await;
        Ok(collected.map_err(|error| self.unreachable(error))?.to_bytes())
    }

    /// The answer as JSON.
    pub(crate) async fn json(&self, call: Call) -> Result<Value, ApiError> {
        let target = call.target().to_owned();
        let response = self.send(call).await?;
        let body = self.bytes(response).await?;
        serde_json::from_slice(&body)
            .map_err(|error| ApiError::Broken(format!("answer to {target}: {error}")))
    }

    /// The answer as text.
    pub(crate) async fn text(&self, call: Call) -> Result<String, ApiError> {
        let response = self.send(call).await?;
        Ok(String::from_utf8_lossy(&self.bytes(response).await?).into_owned())
    }

    /// The object, or nothing if it isn't there.
    pub(crate) async fn find(&self, call: Call) -> Result<Option<Value>, ApiError> {
        match self.json(call).await {
            Ok(object) => Ok(Some(object)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// An answer that comes in lines, as long as it lasts.
    pub(crate) async fn lines(&self, call: Call) -> Result<Lines, ApiError> {
        Ok(Lines { body: self.send(call).await?.into_body(), buffer: Vec::new() })
    }

    /// A WebSocket to a subresource that streams.
    pub(crate) async fn connect(&self, call: Call) -> Result<kube::client::Connection, ApiError> {
        let request = self.request(call, |body| body)?;
        self.client.connect(request).await.map_err(|error| match error {
            kube::Error::Api(status) => {
                let body = serde_json::to_vec(&status).unwrap_or_default();
                ApiError::Refused(Box::new(Refusal::read(status.code, &body)))
            }
            error => self.unreachable(error),
        })
    }

    /// A connection that becomes SPDY, with streams for a purpose.
    pub(crate) async fn upgrade(
        &self,
        call: Call,
        protocol: &'static str,
        purpose: &'static str,
    ) -> Result<hyper::upgrade::Upgraded, ApiError> {
        let mut request = self.request(call, |_| Body::empty())?;
        for (name, value) in [
            (CONNECTION, "Upgrade"),
            (UPGRADE, protocol),
            (HeaderName::from_static("x-stream-protocol-version"), purpose),
        ] {
            request.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        let mut response = self.client.send(request).await.map_err(|error| self.unreachable(error))?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            let code = response.status().as_u16();
            let body = self.bytes(response).await?;
            return Err(ApiError::Refused(Box::new(Refusal::read(code, &body))));
        }
        let upgraded = hyper::upgrade::on(&mut response).await;
        upgraded.map_err(|error| ApiError::Broken(format!("error upgrading connection: {error}")))
    }

    fn unreachable(&self, error: kube::Error) -> ApiError {
        let mut root: &dyn std::error::Error = &error;
        loop {
            if let Some(io) = root.downcast_ref::<std::io::Error>()
                && io.kind() == ErrorKind::ConnectionRefused
            {
                return ApiError::Down { server: self.server.clone() };
            }
            match root.source() {
                Some(source) => root = source,
                None => return ApiError::Unreachable(format!("{}: {root}", self.server)),
            }
        }
    }
}

/// The headers by which the server is asked to act as somebody else.
fn identity(global: &Global, config: &Config) -> Result<Vec<(HeaderName, HeaderValue)>, Failure> {
    let user = global.as_user.clone().or_else(|| config.auth_info.impersonate.clone());
    let configured = config.auth_info.impersonate_groups.clone().unwrap_or_default();
    let groups = if global.as_group.is_empty() { configured } else { global.as_group.clone() };
    if user.is_none() && !groups.is_empty() {
        return Err(Failure::new("error: requesting groups without impersonating a user"));
    }
    let users = user.into_iter().map(|user| ("impersonate-user", user));
    let groups = groups.into_iter().map(|group| ("impersonate-group", group));
    users
        .chain(groups)
        .map(|(name, value)| {
            let value = HeaderValue::from_str(&value).because(format!("error: {name} {value:?}"))?;
            Ok((HeaderName::from_static(name), value))
        })
        .collect()
}

/// The text of a warning header, `299 - "text"`.
fn warning_text(header: &str) -> Option<String> {
    let text = header.strip_prefix("299 ")?.split_once('"')?.1.rsplit_once('"')?.0;
    Some(text.replace("\\\"", "\"").replace("\\\\", "\\"))
}

/// The lines of an answer.
pub(crate) struct Lines {
    body: Body,
    buffer: Vec<u8>,
}

impl Lines {
    /// The next piece, as it comes from the network; `None` at the end.
    pub(crate) async fn chunk(&mut self) -> Result<Option<Bytes>, ApiError> {
        loop {
            match self.body.frame().await {
                None => return Ok(None),
                Some(Err(error)) => {
                    return Err(ApiError::Broken(format!("the stream ended early: {}", chain(&error))));
                }
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
            }
        }
    }

    /// The next line, without its end; `None` at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<u8>>, ApiError> {
        let mut searched = 0;
        loop {
            if let Some(end) = self.buffer[searched..].iter().position(|byte| *byte == b'\n') {
                let mut line: Vec<u8> = self.buffer.drain(..=searched + end).collect();
                line.pop();
                return Ok(Some(line));
            }
            searched = self.buffer.len();
            match self.chunk().await? {
                Some(data) => self.buffer.extend_from_slice(&data),
                None if self.buffer.is_empty() => return Ok(None),
                None => return Ok(Some(std::mem::take(&mut self.buffer))),
            }
        }
    }

    /// The next event of a watch: type and object. `None` at the end of the watch.
    pub(crate) async fn event(&mut self) -> Result<Option<(String, Value)>, ApiError> {
        let Some(line) = self.next().await? else { return Ok(None) };
        let mut event: Value = serde_json::from_slice(&line)
            .map_err(|error| ApiError::Broken(format!("event of a watch: {error}")))?;
        let object = event["object"].take();
        match event["type"].as_str().unwrap_or_default() {
            "ERROR" => {
                let code = object["code"].as_u64().and_then(|code| u16::try_from(code).ok()).unwrap_or(500);
                Err(ApiError::Refused(Box::new(Refusal::read(code, object.to_string().as_bytes()))))
            }
            kind => Ok(Some((kind.to_owned(), object))),
        }
    }
}

/// An error with all its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = cause.to_string();
        next = cause.source();
    }
    text
}
