//! Where a request comes from: a TLS connection or a component of the same process.

use std::net::SocketAddr;
use std::sync::Arc;

use rustls_pki_types::CertificateDer;

use crate::UserInfo;

/// What is known of the connection that carries a request.
#[derive(Clone, Debug, Default)]
pub struct Connection {
    /// The certificates that the client proved to hold, its own first. Already verified against the cluster's CA.
    pub peer_certificates: Vec<CertificateDer<'static>>,
    pub remote: Option<SocketAddr>,
    /// The identity that an in-process transport carries; authentication takes it as proven.
    pub identity: Option<Arc<UserInfo>>,
}
