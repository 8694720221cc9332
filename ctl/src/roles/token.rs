//! `skiff token`: how machines are let in.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use apiserver::auth::bootstrap_token;
use apiserver::pki;
use apiserver::pki::join_token::JoinToken;
use base::{Clock, Random};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::Subcommand;
use client::connect;
use client::kube::api::{Api, PostParams};
use client::kube::config::Kubeconfig;
use k8s_openapi::api::core::v1::Secret;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use super::{DATA_DIR, process};
use crate::Failure;
use crate::failure::{Because, first_line};

#[derive(Debug, Subcommand)]
pub(crate) enum Token {
    /// Print a new token
    Create {
        /// Data directory of the cluster.
        #[arg(long, value_name = "DIR", default_value = DATA_DIR, env = "SKIFF_DATA_DIR")]
        data_dir: PathBuf,
        /// How many hours the token is good for.
        #[arg(long, value_name = "HOURS", default_value_t = 24, value_parser = clap::value_parser!(u64).range(1..=8760))]
        hours: u64,
        /// What the token is for.
        #[arg(long, default_value = "")]
        description: String,
    },
}

impl Token {
    pub(crate) fn run(self) -> Result<ExitCode, Failure> {
        let Self::Create { data_dir, hours, description } = self;
        process::run(async move {
            let path = data_dir.join("admin.kubeconfig");
            let client = connect::kubeconfig(&path, None).await.map_err(|error| {
                let error = first_line(error);
                Failure::new(format!("{error}: run this on the machine of the server, with its --data-dir"))
            })?;
            let fingerprint = fingerprint(&path)?;
            let token = JoinToken::generate(fingerprint, &Random::system());
            let expires = Clock::system().now() + Duration::from_secs(hours * 3600);
            let secret = bootstrap_token::secret(&token, Some(expires), &description);
            let secret: Secret = serde_json::from_value(secret).because("join token")?;
            let secrets: Api<Secret> = Api::namespaced(client, "kube-system");
            secrets.create(&PostParams::default(), &secret).await.because("join token")?;
            println!("{token}");
            Ok(ExitCode::SUCCESS)
        })
    }
}

/// The fingerprint of the authority that the kubeconfig trusts.
fn fingerprint(path: &std::path::Path) -> Result<String, Failure> {
    let about = path.display();
    let config = Kubeconfig::read_from(path).because(&about)?;
    let data = config
        .clusters
        .first()
        .and_then(|named| named.cluster.as_ref())
        .and_then(|cluster| cluster.certificate_authority_data.clone())
        .ok_or_else(|| Failure::new(format!("{}: no certificate authority", path.display())))?;
    let pem = STANDARD.decode(data).because(&about)?;
    let der = CertificateDer::from_pem_slice(&pem).because(&about)?;
    Ok(pki::fingerprint(&der))
}
