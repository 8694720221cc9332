//! TLS configurations: for the API server, for node agents, and for clients of either.

use std::fmt;
use std::sync::Arc;

use base::tls::provider;
use rustls::client::WantsClientCert;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{
    ClientConfig, ConfigBuilder, DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig,
    SignatureScheme,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use tracing::error;

use super::{AGENT_CLIENT, Error, Pki, Profile, identity};

fn failed(error: impl fmt::Display) -> Error {
    Error::Tls(error.to_string())
}

fn roots(authority: &CertificateDer<'_>) -> Result<Arc<RootCertStore>, Error> {
    let mut roots = RootCertStore::empty();
    roots.add(authority.clone().into_owned()).map_err(failed)?;
    Ok(Arc::new(roots))
}

fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, Error> {
    CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<_, _>>().map_err(failed)
}

fn private_key(pem: &str) -> Result<PrivateKeyDer<'static>, Error> {
    // Not the parser's own words: they may quote the input.
    PrivateKeyDer::from_pem_slice(pem.as_bytes())
        .map_err(|_| Error::Tls("the private key is not PEM".to_owned()))
}

/// The names under which an API server answers, besides `own` (its addresses and host name).
pub fn server_names(own: &[String], service_address: &str, cluster_domain: &str) -> Vec<String> {
    let mut names: Vec<String> = [
        "localhost",
        "127.0.0.1",
        "::1",
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        service_address,
    ]
    .map(str::to_owned)
    .into();
    names.push(format!("kubernetes.default.svc.{cluster_domain}"));
    for name in own {
        if !name.is_empty() && !names.contains(name) {
            names.push(name.clone());
        }
    }
    names
}

/// The API server's configuration: clients may show a certificate of the cluster's authority, or none. The serving
/// certificate is renewed while the server runs.
pub fn api_server(pki: &Arc<Pki>, names: Vec<String>) -> Result<Arc<ServerConfig>, Error> {
    let resolver = Renewing { pki: pki.clone(), profile: Profile::server("kube-apiserver", &[], names) };
    resolver.current()?;
    let clients = WebPkiClientVerifier::builder_with_provider(roots(pki.authority_der())?, provider())
        .allow_unauthenticated()
        .build()
        .map_err(failed)?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(failed)?
        .with_client_cert_verifier(clients)
        .with_cert_resolver(Arc::new(resolver));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// A node agent's configuration: only the API server gets in. Certificates of other nodes come from the same
/// authority, and without the check of the name every node could run commands on every other.
pub fn node_agent(
    authority_pem: &str,
    certificate_pem: &str,
    key_pem: &str,
) -> Result<Arc<ServerConfig>, Error> {
    let authority =
        certificates(authority_pem)?.into_iter().next().ok_or_else(|| failed("no CA certificate"))?;
    let inner = WebPkiClientVerifier::builder_with_provider(roots(&authority)?, provider())
        .build()
        .map_err(failed)?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(failed)?
        .with_client_cert_verifier(Arc::new(OnlyApiServer { inner }))
        .with_single_cert(certificates(certificate_pem)?, private_key(key_pem)?)
        .map_err(failed)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// A client that trusts the cluster's authority alone and shows `credential` (certificate and key, PEM) if given.
pub fn client(authority_pem: &str, credential: Option<(&str, &str)>) -> Result<ClientConfig, Error> {
    let authority =
        certificates(authority_pem)?.into_iter().next().ok_or_else(|| failed("no CA certificate"))?;
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(failed)?
        .with_root_certificates(roots(&authority)?);
    with_credential(builder, credential)
}

/// A client that takes any certificate. It is for backends that users name: a proxied service has a certificate of
/// its own, of which the cluster knows nothing.
pub fn unverified_client(credential: Option<(&str, &str)>) -> Result<ClientConfig, Error> {
    with_credential(base::tls::any_peer().map_err(failed)?, credential)
}

fn with_credential(
    builder: ConfigBuilder<ClientConfig, WantsClientCert>,
    credential: Option<(&str, &str)>,
) -> Result<ClientConfig, Error> {
    match credential {
        None => Ok(builder.with_no_client_auth()),
        Some((certificate, key)) => {
            builder.with_client_auth_cert(certificates(certificate)?, private_key(key)?).map_err(failed)
        }
    }
}

/// Serves the current certificate of a profile.
#[derive(Debug)]
struct Renewing {
    pki: Arc<Pki>,
    profile: Profile,
}

impl Renewing {
    fn current(&self) -> Result<Arc<CertifiedKey>, Error> {
        let credential = self.pki.credential("apiserver", &self.profile)?;
        let key =
            provider().key_provider.load_private_key(private_key(credential.key_pem())?).map_err(failed)?;
        Ok(Arc::new(CertifiedKey::new(vec![credential.certificate.clone()], key)))
    }
}

impl ResolvesServerCert for Renewing {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.current().inspect_err(|reason| error!(%reason, "no serving certificate")).ok()
    }
}

/// Accepts the API server's own client certificate and no other.
#[derive(Debug)]
struct OnlyApiServer {
    inner: Arc<dyn ClientCertVerifier>,
}

impl ClientCertVerifier for OnlyApiServer {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let verified = self.inner.verify_client_cert(end_entity, intermediates, now)?;
        match identity(end_entity) {
            Some(peer) if peer.common_name == AGENT_CLIENT => Ok(verified),
            _ => Err(rustls::Error::InvalidCertificate(
                rustls::CertificateError::ApplicationVerificationFailure,
            )),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}
