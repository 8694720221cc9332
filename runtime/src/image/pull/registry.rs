//! One registry during one pull, with errors in the words that containerd has for them.

use std::error::Error;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use oci_client::client::{BlobResponse, Client, ClientConfig, ClientProtocol};
use oci_client::errors::{OciDistributionError, OciErrorCode};
use oci_client::manifest::OciDescriptor;
use oci_client::{Reference as Target, RegistryOperation};
use sha2::{Digest, Sha256};
use tokio::io::AsyncWriteExt;
use tracing::debug;

use super::auth::Credentials;
use crate::image::document::{
    DOCKER_INDEX, DOCKER_MANIFEST, DOCUMENT_LIMIT, Descriptor, INDEX, MANIFEST, digest_text, sha256,
};
use crate::image::error::{At, ImageError};
use crate::image::reference::{Object, Reference};

/// A registry that gives nothing for so long is given up.
pub(super) const STALL: Duration = Duration::from_secs(60);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// So often a broken download is taken up where it broke; each must have brought something.
const RESUMES: usize = 5;
const ACCEPT: [&str; 4] = [MANIFEST, INDEX, DOCKER_MANIFEST, DOCKER_INDEX];

/// A registry, spoken to with the credentials of one pull.
pub(super) struct Registry {
    client: Client,
    target: Target,
    stall: Duration,
}

/// Whether a registry is spoken to without TLS: it is this machine, in the local network's own domain, or
/// configured.
pub(super) fn is_plain_http(domain: &str, configured: &[String]) -> bool {
    let host = match domain.strip_prefix('[') {
        Some(literal) => literal.split(']').next().unwrap_or_default(),
        None => domain.split(':').next().unwrap_or_default(),
    };
    host == "localhost"
        || host.ends_with(".local")
        || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
        || configured.iter().any(|name| name == domain || name == host)
}

impl Registry {
    /// Gets the right to pull from the image's repository. Gives up when nothing comes for `stall`.
    pub(super) async fn connect(
        name: &Reference,
        credentials: Credentials,
        plain_http: bool,
        stall: Duration,
    ) -> Result<Self, ImageError> {
        // Fails when there is a provider already, which serves as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let config = ClientConfig {
            protocol: if plain_http { ClientProtocol::Http } else { ClientProtocol::Https },
            read_timeout: Some(stall),
            connect_timeout: Some(CONNECT_TIMEOUT.min(stall)),
            user_agent: concat!("skiff/", env!("CARGO_PKG_VERSION")),
            ..ClientConfig::default()
        };
        // Without TLS too, the client wants the machine's CA certificates, and fails when there are none.
        let client = Client::try_from(config)
            .map_err(|e| ImageError::Registry(format!("failed to make a client: {}", causes(&e))))?;
        let registry = Self { client, target: target(name), stall };
        let authorized = registry.client.auth(&registry.target, &credentials, RegistryOperation::Pull);
        authorized.await.map_err(|e| registry.error(name.to_string(), e))?;
        Ok(registry)
    }

    /// A manifest or index with its digest, which is checked.
    pub(super) async fn manifest(&self, name: &Reference) -> Result<(String, Vec<u8>), ImageError> {
        let target = target(name);
        // The credentials were stored when connecting.
        let anonymous = Credentials::Anonymous;
        let (bytes, _) = self
            .client
            .pull_manifest_raw(&target, &anonymous, &ACCEPT)
            .await
            .map_err(|e| self.error(name.to_string(), e))?;
        let digest = sha256(&bytes);
        if let Object::Digest(wanted) = &name.object
            && *wanted != digest
        {
            return Err(ImageError::content(name.to_string(), format!("the registry gave {digest}")));
        }
        if bytes.len() as u64 > DOCUMENT_LIMIT {
            return Err(ImageError::content(name.to_string(), "the manifest is too large"));
        }
        Ok((digest, bytes.to_vec()))
    }

    /// A small blob.
    pub(super) async fn document(&self, wanted: &Descriptor) -> Result<Vec<u8>, ImageError> {
        let what = || format!("blob {}", wanted.digest);
        if wanted.size > DOCUMENT_LIMIT {
            return Err(ImageError::content(what(), "it is too large"));
        }
        let mut stream = self.stream(wanted, 0).await?.1;
        let mut bytes = Vec::new();
        while let Some(chunk) = self.next(&mut stream).await? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() as u64 > wanted.size {
                return Err(ImageError::content(what(), "it is larger than announced"));
            }
        }
        match sha256(&bytes) == wanted.digest {
            true => Ok(bytes),
            false => Err(ImageError::content(what(), "its content has another digest")),
        }
    }

    /// Writes a blob to a file and checks its size and digest. A connection that breaks is taken up again.
    pub(super) async fn download(&self, wanted: &Descriptor, path: &Path) -> Result<(), ImageError> {
        let what = || format!("blob {}", wanted.digest);
        let file = tokio::fs::File::create(path).await.at("create", path)?;
        let mut file = tokio::io::BufWriter::with_capacity(256 << 10, file);
        let mut hash = Sha256::new();
        let mut offset = 0;
        let mut resumes = 0;
        loop {
            let before = offset;
            let broken = match self.stream(wanted, offset).await {
                Err(error) => Some(error),
                Ok((from, mut stream)) => {
                    // A registry that can't give a part gives all: pass over what is here.
                    let mut pass_over = offset - from;
                    loop {
                        match self.next(&mut stream).await {
                            Ok(Some(mut chunk)) => {
                                let known = usize::try_from(pass_over).unwrap_or(usize::MAX).min(chunk.len());
                                pass_over -= known as u64;
                                let chunk = chunk.split_off(known);
                                offset += chunk.len() as u64;
                                if offset > wanted.size {
                                    return Err(ImageError::content(what(), "it is larger than announced"));
                                }
                                hash.update(&chunk);
                                file.write_all(&chunk).await.at("write", path)?;
                            }
                            Ok(None) => break None,
                            Err(error) => break Some(error),
                        }
                    }
                }
            };
            match broken {
                None => break,
                Some(error) if offset == before || resumes == RESUMES => return Err(error),
                Some(error) => {
                    resumes += 1;
                    debug!(blob = %wanted.digest, offset, %error, "taking a download up again");
                }
            }
        }
        file.flush().await.at("write", path)?;
        let actual = digest_text(hash.finalize());
        match actual == wanted.digest {
            true => Ok(()),
            false => Err(ImageError::content(what(), format!("its content has the digest {actual}"))),
        }
    }

    /// A blob from an offset, or, if the registry can't, from the beginning; and from where it is.
    async fn stream(
        &self,
        wanted: &Descriptor,
        offset: u64,
    ) -> Result<(u64, BoxStream<'static, std::io::Result<Bytes>>), ImageError> {
        let descriptor = OciDescriptor {
            digest: wanted.digest.clone(),
            media_type: wanted.media_type.clone(),
            size: i64::try_from(wanted.size).unwrap_or(i64::MAX),
            ..OciDescriptor::default()
        };
        let named = || format!("{}@{}", self.target.repository(), wanted.digest);
        if offset == 0 {
            let response = self.client.pull_blob_stream(&self.target, &descriptor);
            return Ok((0, response.await.map_err(|e| self.error(named(), e))?.stream.boxed()));
        }
        let response = self.client.pull_blob_stream_partial(&self.target, &descriptor, offset, None);
        match response.await.map_err(|e| self.error(named(), e))? {
            BlobResponse::Full(all) => Ok((0, all.stream.boxed())),
            BlobResponse::Partial(part) => Ok((offset, part.stream.boxed())),
        }
    }

    async fn next<S>(&self, stream: &mut S) -> Result<Option<Bytes>, ImageError>
    where
        S: futures::Stream<Item = std::io::Result<Bytes>> + Unpin,
    {
        match tokio::time::timeout(self.stall, stream.try_next()).await {
            Ok(Ok(chunk)) => Ok(chunk),
            Ok(Err(error)) if is_timeout(&error) => Err(self.stalled()),
            Ok(Err(error)) => Err(ImageError::Registry(causes(&error))),
            Err(_) => Err(self.stalled()),
        }
    }

    fn stalled(&self) -> ImageError {
        ImageError::Registry(format!("{} sent nothing for {:?}", self.target.registry(), self.stall))
    }

    fn error(&self, subject: String, error: OciDistributionError) -> ImageError {
        match error {
            OciDistributionError::RequestError(error) if error.is_timeout() => self.stalled(),
            OciDistributionError::RequestError(error) => {
                ImageError::Registry(format!("failed to do request: {}", causes(&error)))
            }
            OciDistributionError::UnauthorizedError { url } => {
                ImageError::Denied(format!("authorization failed: {url}"))
            }
            OciDistributionError::AuthenticationFailure(reason) => {
                ImageError::Denied(format!("failed to authorize: {}", reason.trim()))
            }
            OciDistributionError::RegistryError { envelope, url } => {
                let Some(first) = envelope.errors.first() else {
                    return ImageError::Registry(format!("unexpected answer from GET request to {url}"));
                };
                match first.code {
                    OciErrorCode::ManifestUnknown
                    | OciErrorCode::NameUnknown
                    | OciErrorCode::BlobUnknown
                    | OciErrorCode::ManifestBlobUnknown
                    | OciErrorCode::NotFound => ImageError::NotFound(subject),
                    OciErrorCode::Denied | OciErrorCode::Unauthorized => {
                        ImageError::Denied(format!("server message: {}", first.message))
                    }
                    OciErrorCode::Toomanyrequests => ImageError::Registry(format!(
                        "unexpected status from GET request to {url}: 429 Too Many Requests: {}",
                        first.message
                    )),
                    _ => ImageError::Registry(format!(
                        "unexpected answer from GET request to {url}: {:?}: {}",
                        first.code, first.message
                    )),
                }
            }
            OciDistributionError::ServerError { code: 404, .. } => ImageError::NotFound(subject),
            OciDistributionError::ServerError { code: 403, message, .. } => {
                ImageError::Denied(format!("server message: {}", message.trim()))
            }
            OciDistributionError::ServerError { code, url, .. } => {
                let status =
                    http::StatusCode::from_u16(code).map_or_else(|_| code.to_string(), |s| s.to_string());
                ImageError::Registry(format!("unexpected status from GET request to {url}: {status}"))
            }
            other => ImageError::Registry(causes(&other)),
        }
    }
}

fn target(name: &Reference) -> Target {
    let (domain, path) = (name.domain.clone(), name.path.clone());
    match &name.object {
        Object::Tag(tag) => Target::with_tag(domain, path, tag.clone()),
        Object::Digest(digest) => Target::with_digest(domain, path, digest.clone()),
    }
}

/// An error with its causes, as far as each says something new.
fn causes(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

/// Whether the client gave up waiting: it says so in one of the causes.
fn is_timeout(error: &std::io::Error) -> bool {
    error.kind() == std::io::ErrorKind::TimedOut || causes(error).contains("operation timed out")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tls_is_left_out_only_where_it_protects_nothing_or_is_not_wanted() {
        let configured = ["registry:5000".to_owned(), "plain.example".to_owned()];
        for (domain, plain) in [
            ("localhost", true),
            ("localhost:5000", true),
            ("127.0.0.1:5000", true),
            ("127.3.2.1", true),
            ("[::1]:5000", true),
            ("registry.kube-system.svc.cluster.local:5000", true),
            ("registry:5000", true),
            ("registry", false),
            ("plain.example:80", true),
            ("docker.io", false),
            ("10.0.0.1:5000", false),
            ("local", false),
            ("localhost.example", false),
        ] {
            assert_eq!(is_plain_http(domain, &configured), plain, "{domain}");
        }
    }
}
