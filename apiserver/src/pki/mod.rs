//! The cluster's certificate authority and keys, made at first start and kept in one directory.
//!
//! Everything that proves an identity comes from here: the certificates of the API server, of the
//! administrator and of the components, the certificates of nodes (signed from their requests, see
//! [`Pki::sign_node`]), and the key that signs service account tokens ([`TokenKey`]); so do the
//! keys of what the store must not show ([`SealingKeys`]). Certificates are
//! issued again when their names change or a third of their life is left; no timer runs for that:
//! whoever uses a credential asks for it anew ([`Pki::credential`]) and gets the current one.
//!
//! Keys never leave the directory except inside a [`Credential`], and have no `Debug` output.

mod certificate;
mod files;
pub mod join_token;
mod sealing;
pub mod tls;
mod token_key;

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base::{Clock, Random};
use rcgen::{Issuer, KeyPair};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use sha2::{Digest, Sha256};

pub use certificate::{Identity, Profile, identity, signing_request};
pub use sealing::SealingKeys;
pub use token_key::TokenKey;

/// How long the cluster's own authority is valid.
const AUTHORITY_LIFE: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// How long every other certificate is valid.
const LEAF_LIFE: Duration = Duration::from_secs(365 * 24 * 3600);
/// Clocks of other machines may be behind by this much.
const CLOCK_SKEW: Duration = Duration::from_secs(3600);

/// The common name of the certificate with which the API server calls node agents.
pub const AGENT_CLIENT: &str = "kube-apiserver-kubelet-client";

/// Why keys or certificates can't be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{}: {source}", path.display())]
    File { path: PathBuf, source: std::io::Error },
    #[error("{}: {reason}", path.display())]
    Damaged { path: PathBuf, reason: String },
    #[error("{} is there but {} is not; restore the key from a backup, or remove both to start a new cluster", certificate.display(), key.display())]
    MissingKey { certificate: PathBuf, key: PathBuf },
    #[error("certificate for {subject:?}: {reason}")]
    Issue { subject: String, reason: String },
    #[error("certificate signing request: {0}")]
    Request(String),
    #[error("TLS configuration: {0}")]
    Tls(String),
}

/// A certificate with its private key.
pub struct Credential {
    pub certificate_pem: String,
    key_pem: String,
    pub certificate: CertificateDer<'static>,
    /// Unix time after which the certificate is to be issued anew.
    renew_after: i64,
}

impl Credential {
    /// The private key, for a kubeconfig file or a TLS configuration. Never log it.
    pub fn key_pem(&self) -> &str {
        &self.key_pem
    }

    fn parse(certificate_pem: String, key_pem: String) -> Result<Self, String> {
        let certificate = CertificateDer::from_pem_slice(certificate_pem.as_bytes())
            .map_err(|error| format!("certificate is not PEM: {error}"))?;
        let (not_before, not_after) = certificate::validity(&certificate)?;
        Ok(Self {
            renew_after: not_after - (not_after - not_before) / 3,
            certificate_pem,
            key_pem,
            certificate,
        })
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential").field("renew_after", &self.renew_after).finish_non_exhaustive()
    }
}

/// The certificates that a joining node gets.
#[derive(Clone, Debug)]
pub struct NodeCertificates {
    pub client_pem: String,
    pub serving_pem: String,
}

/// The cluster's certificate authority and keys.
pub struct Pki {
    /// `None`: kept in memory only (tests, simulation).
    directory: Option<PathBuf>,
    clock: Clock,
    random: Random,
    authority: Issuer<'static, KeyPair>,
    authority_pem: String,
    authority_der: CertificateDer<'static>,
    tokens: TokenKey,
    sealing: SealingKeys,
    issued: Mutex<HashMap<String, (Profile, Arc<Credential>)>>,
}

impl fmt::Debug for Pki {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pki")
            .field("directory", &self.directory)
            .field("authority", &self.fingerprint())
            .finish_non_exhaustive()
    }
}

impl Pki {
    /// Opens the directory, making it and its keys at first start. What a crash left half done is completed.
    pub fn open(directory: &Path, clock: Clock, random: Random) -> Result<Self, Error> {
        files::make_directory(directory)?;
        let (key_path, certificate_path) = (directory.join("ca.key"), directory.join("ca.crt"));
        let (key, certificate) = (files::read(&key_path)?, files::read(&certificate_path)?);
        let key = match (key, &certificate) {
            (None, Some(_)) => {
                return Err(Error::MissingKey { certificate: certificate_path, key: key_path });
            }
            // The key is on disk before a certificate names it, so a crash leaves at most a key alone.
            (None, None) => {
                let key = certificate::new_key()?;
                files::write(&key_path, key.serialize_pem().as_bytes(), 0o600)?;
                key
            }
            (Some(pem), _) => KeyPair::from_pem(&pem)
                .map_err(|error| Error::Damaged { path: key_path, reason: error.to_string() })?,
        };
        let certificate = match certificate {
            Some(pem) => pem,
            None => {
                let pem = certificate::authority(&key, &random, &clock)?;
                files::write(&certificate_path, pem.as_bytes(), 0o644)?;
                pem
            }
        };
        let token_path = directory.join("sa.key");
        let tokens = match files::read(&token_path)? {
            Some(pem) => pem,
            None => {
                let pem = certificate::new_key()?.serialize_pem();
                files::write(&token_path, pem.as_bytes(), 0o600)?;
                pem
            }
        };
        let tokens =
            TokenKey::from_pem(&tokens).map_err(|reason| Error::Damaged { path: token_path, reason })?;
        let sealing_path = directory.join("sealing.key");
        let sealing = match files::read(&sealing_path)? {
            Some(text) => text,
            None => {
                let text = SealingKeys::generate(&random);
                files::write(&sealing_path, text.as_bytes(), 0o600)?;
                text
            }
        };
        let sealing =
            SealingKeys::parse(&sealing).map_err(|reason| Error::Damaged { path: sealing_path, reason })?;
        Self::assemble(Some(directory.to_owned()), clock, random, key, certificate, (tokens, sealing))
            .map_err(|reason| Error::Damaged { path: certificate_path, reason })
    }

    /// An authority that lives as long as the process, for tests and simulation.
    pub fn in_memory(clock: Clock, random: Random) -> Result<Self, Error> {
        let key = certificate::new_key()?;
        let certificate = certificate::authority(&key, &random, &clock)?;
        let tokens = TokenKey::from_pem(&certificate::new_key()?.serialize_pem())
            .map_err(|reason| Error::Issue { subject: "service account tokens".to_owned(), reason })?;
        let failed = |reason| Error::Issue { subject: "sealing key".to_owned(), reason };
        let sealing = SealingKeys::parse(&SealingKeys::generate(&random)).map_err(failed)?;
        Self::assemble(None, clock, random, key, certificate, (tokens, sealing))
            .map_err(|reason| Error::Issue { subject: "authority".to_owned(), reason })
    }

    fn assemble(
        directory: Option<PathBuf>,
        clock: Clock,
        random: Random,
        key: KeyPair,
        authority_pem: String,
        (tokens, sealing): (TokenKey, SealingKeys),
    ) -> Result<Self, String> {
        let authority_der = CertificateDer::from_pem_slice(authority_pem.as_bytes())
            .map_err(|error| format!("not a PEM certificate: {error}"))?;
        if !certificate::belongs_to(&authority_der, &key) {
            return Err("the certificate does not belong to the key beside it".to_owned());
        }
        let authority = Issuer::from_ca_cert_der(&authority_der, key).map_err(|error| error.to_string())?;
        Ok(Self {
            directory,
            clock,
            random,
            authority,
            authority_pem,
            authority_der,
            tokens,
            sealing,
            issued: Mutex::default(),
        })
    }

    /// The authority's certificate. Public.
    pub fn authority_pem(&self) -> &str {
        &self.authority_pem
    }

    /// The authority's certificate. Public.
    pub fn authority_der(&self) -> &CertificateDer<'static> {
        &self.authority_der
    }

    /// SHA-256 of the authority's certificate, in hex: what a join token pins.
    pub fn fingerprint(&self) -> String {
        fingerprint(&self.authority_der)
    }

    /// The key of service account tokens.
    pub fn tokens(&self) -> &TokenKey {
        &self.tokens
    }

    /// The keys of what the store must not show.
    pub(crate) fn sealing(&self) -> &SealingKeys {
        &self.sealing
    }

    /// The credential called `name` as `profile` describes it: the one in use, or a new one if there is none,
    /// if it no longer fits, or if the greater part of its life is over.
    pub fn credential(&self, name: &str, profile: &Profile) -> Result<Arc<Credential>, Error> {
        let now = self.clock.now().as_second();
        let mut issued = self.issued.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((held, credential)) = issued.get(name)
            && held == profile
            && now < credential.renew_after
        {
            return Ok(credential.clone());
        }
        let credential = match self.load(name, profile, now)? {
            Some(credential) => credential,
            None => self.issue(name, profile)?,
        };
        let credential = Arc::new(credential);
        issued.insert(name.to_owned(), (profile.clone(), credential.clone()));
        Ok(credential)
    }

    /// The credential on disk, if it is whole, ours, as described and not due.
    fn load(&self, name: &str, profile: &Profile, now: i64) -> Result<Option<Credential>, Error> {
        let Some(directory) = &self.directory else { return Ok(None) };
        let certificate = files::read(&directory.join(format!("{name}.crt")))?;
        let key = files::read(&directory.join(format!("{name}.key")))?;
        let (Some(certificate), Some(key)) = (certificate, key) else { return Ok(None) };
        let Ok(credential) = Credential::parse(certificate, key) else { return Ok(None) };
        let fits = now < credential.renew_after
            && KeyPair::from_pem(&credential.key_pem)
                .is_ok_and(|key| certificate::belongs_to(&credential.certificate, &key))
            && certificate::fits(&credential.certificate, profile, &self.authority_der);
        Ok(fits.then_some(credential))
    }

    fn issue(&self, name: &str, profile: &Profile) -> Result<Credential, Error> {
        let failed = |reason: String| Error::Issue { subject: profile.common_name.clone(), reason };
        let key = certificate::new_key()?;
        let pem = certificate::leaf(profile, &key, &self.authority, &self.random, &self.clock)?;
        let credential = Credential::parse(pem, key.serialize_pem()).map_err(failed)?;
        if let Some(directory) = &self.directory {
            // Key first: a crash in between leaves a pair that does not belong together, which `load` sees.
            files::write(&directory.join(format!("{name}.key")), credential.key_pem.as_bytes(), 0o600)?;
            files::write(
                &directory.join(format!("{name}.crt")),
                credential.certificate_pem.as_bytes(),
                0o644,
            )?;
        }
        Ok(credential)
    }

    /// The administrator, a member of `system:masters`.
    pub fn admin(&self) -> Result<Arc<Credential>, Error> {
        self.credential("admin", &Profile::client("kubernetes-admin", &["system:masters"]))
    }

    /// What the API server shows to node agents.
    pub fn agent_client(&self) -> Result<Arc<Credential>, Error> {
        self.credential("apiserver-kubelet-client", &Profile::client(AGENT_CLIENT, &["system:masters"]))
    }

    /// A component that runs as a process of its own, such as `system:kube-scheduler`.
    pub fn component(&self, user: &str) -> Result<Arc<Credential>, Error> {
        self.credential(user.trim_start_matches("system:"), &Profile::client(user, &[]))
    }

    /// The serving certificate of the agent of `node`, when agent and API server share a process.
    pub fn node_serving(&self, node: &str, addresses: &[IpAddr]) -> Result<Arc<Credential>, Error> {
        self.credential(&format!("node-{node}-serving"), &node_serving_profile(node, addresses))
    }

    /// The client certificate of the agent of `node`.
    pub fn node_client(&self, node: &str) -> Result<Arc<Credential>, Error> {
        self.credential(&format!("node-{node}-client"), &node_client_profile(node))
    }

    /// Signs the two requests of a node. Of a request only the public key and the proof that its sender holds
    /// the private key are taken; the names must be those of the node, and the rest comes from here.
    pub fn sign_node(
        &self,
        node: &str,
        addresses: &[IpAddr],
        client_request: &str,
        serving_request: &str,
    ) -> Result<NodeCertificates, Error> {
        let sign = |request: &str, profile: &Profile| {
            let public = certificate::verify_request(request, profile)?;
            certificate::leaf(profile, &public, &self.authority, &self.random, &self.clock)
        };
        Ok(NodeCertificates {
            client_pem: sign(client_request, &node_client_profile(node))?,
            serving_pem: sign(serving_request, &node_serving_profile(node, addresses))?,
        })
    }
}

/// True while a certificate (PEM) need not be issued anew: for the first two thirds of its life.
pub fn is_fresh(certificate_pem: &str, now: jiff::Timestamp) -> bool {
    CertificateDer::from_pem_slice(certificate_pem.as_bytes())
        .ok()
        .and_then(|certificate| certificate::validity(&certificate).ok())
        .is_some_and(|(from, to)| now.as_second() >= from && now.as_second() < to - (to - from) / 3)
}

/// SHA-256 of a certificate, in hex.
pub fn fingerprint(certificate: &CertificateDer<'_>) -> String {
    Sha256::digest(certificate.as_ref()).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn node_client_profile(node: &str) -> Profile {
    Profile::client(&format!("system:node:{node}"), &["system:nodes"])
}

fn node_serving_profile(node: &str, addresses: &[IpAddr]) -> Profile {
    let mut names = vec![node.to_owned()];
    names.extend(addresses.iter().map(ToString::to_string));
    Profile::server(&format!("system:node:{node}"), &["system:nodes"], names)
}

#[cfg(test)]
mod tests;
